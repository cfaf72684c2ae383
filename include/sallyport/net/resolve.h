/* Names to addresses: c-ares on the loop, A and AAAA by query, answers parsed here; TTL cache, negative cache, one lookup
 * in flight shared by all who ask. No hosts file, no search list. Nothing is judged here; policy/guard does that. */
#ifndef SALLYPORT_NET_RESOLVE_H
#define SALLYPORT_NET_RESOLVE_H

#include "sallyport/base/addr.h"
#include "sallyport/base/reason.h"
#include "sallyport/net/loop.h"

#define RESOLVE_ANSWERS_MAX 65 /* one more than the guard accepts, so that it can see that there are too many */

struct resolver;
struct resolve;

struct answers {
    size_t count;
    struct addr addrs[RESOLVE_ANSWERS_MAX];
};

struct resolver_options {
    const struct sockaddr_storage *servers; /* at least one, else every lookup is REASON_DNS_FAILURE */
    size_t server_count;
    int timeout_ms;     /* for the whole lookup (upstream.dns_timeout_ms) */
    size_t cache_max;   /* entries, default 4096 */
    size_t pending_max; /* lookups in flight, default 1024 */
};

struct resolver *resolver_new(struct loop *l, const struct resolver_options *o);
void resolver_free(struct resolver *r);
/* From the cache alone: REASON_OK, REASON_DNS_FAILURE (negative), or REASON_UNDECIDED when a query is needed. */
enum reason resolver_lookup(struct resolver *r, const char *name, struct answers *ret);
/* Asks. on_done comes from the loop, once: REASON_OK with at least one address, or REASON_DNS_FAILURE; never after cancel.
 * name is canonical (http/target). Waits until both families have ended, or the time is up. */
struct resolve *resolve_start(struct resolver *r, const char *name, void (*on_done)(void *owner, enum reason reason, const struct answers *answers), void *owner);
void resolve_cancel(struct resolve *q);

struct resolver_counts { uint64_t queries, cached, failed; };
struct resolver_counts resolver_counts(const struct resolver *r);

/* DNS message -> addresses and TTL, for the resolver and its fuzz target. False: not an answer to that question
 * (RFC 1035, 3596). CNAMEs are followed inside the message, at most 16. */
struct dns_answer { struct answers answers; uint32_t ttl_s; bool negative; };
bool dns_answer_parse(const unsigned char *msg, size_t len, const char *name, int type, struct dns_answer *ret);

#endif
