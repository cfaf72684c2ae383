/* The address guard: the only maker of endpoints, and only endpoints can be dialled. What is dialled is the sockaddr
 * that was judged; nothing is resolved twice. CONTRACT section 3, "Address guard"; tables: IANA special-purpose registries. */
#ifndef SALLYPORT_POLICY_GUARD_H
#define SALLYPORT_POLICY_GUARD_H

#include <stdbool.h>

#include "sallyport/base/addr.h"
#include "sallyport/base/reason.h"
#include "sallyport/http/target.h"
#include "sallyport/policy/policy.h"

#define GUARD_ANSWERS_MAX 64 /* more answers refuse the name */

struct guard;     /* the operator's settings and this host's own addresses */
struct endpoint;  /* one judged address and port */
struct endpoints; /* those of one target, in the order to dial; heap */

struct guard_options {
    const struct cidr *allow_addresses; /* the operator's way past the tables, never past metadata without its exact address */
    size_t allow_count;
    const struct cidr *deny_addresses;  /* always win */
    size_t deny_count;
    const struct cidr *delegable_addresses; /* what private_addresses of a policy may open */
    size_t delegable_count;
    const struct sockaddr_storage *listeners; /* the proxy's own listening sockets: never dialled, whatever is opened */
    size_t listener_count;
    const struct addr *own;             /* addresses of this host (getifaddrs) and its resolvers: closed unless named exactly */
    size_t own_count;
};

struct guard *guard_new(const struct guard_options *o); /* copies */
struct guard *guard_ref(struct guard *g);
void guard_unref(struct guard *g);

/* Judges all answers for the target (for a literal: the literal itself as the only answer). REASON_OK and *ret (caller
 * frees), or REASON_ADDRESS_NOT_ALLOWED: one forbidden answer refuses all. count 0 is REASON_DNS_FAILURE. */
enum reason guard_judge(const struct guard *g, const struct policy *policy, const struct target *target, const struct addr *answers, size_t count, struct endpoints **ret);
/* For the operator's own upstream (upstream.parent): exempt from the tables; comes from configuration only. */
struct endpoints *guard_operator_endpoint(const struct sockaddr_storage *sa, socklen_t len);
/* Why, for `check` and diagnostics: "private use (RFC 1918)"; NULL when the address is open. */
const char *guard_explain(const struct guard *g, const struct policy *policy, const struct host *host, const struct addr *a);
/* The table alone, without anybody's opening: false for forbidden. */
bool guard_address_is_public(const struct addr *a);
/* The table and a list of opened ranges: what may be named at all. Metadata needs its exact entry. */
bool guard_address_is_opened(const struct addr *a, const struct cidr *opened, size_t count);
/* The table's word for the address ("private use (RFC 1918)"), or NULL when it is public. */
const char *guard_address_name(const struct addr *a);

size_t endpoints_count(const struct endpoints *e);
const struct endpoint *endpoints_at(const struct endpoints *e, size_t i);
void endpoints_free(struct endpoints *e); /* NULL is fine */
const struct sockaddr *endpoint_sockaddr(const struct endpoint *e, socklen_t *ret_len);
struct addr endpoint_addr(const struct endpoint *e);

#endif
