/* What the operator's configuration says about every policy (CONTRACT section 2 and 3). Immutable while it is used. */
#ifndef SALLYPORT_POLICY_CONTEXT_H
#define SALLYPORT_POLICY_CONTEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/addr.h"
#include "sallyport/base/err.h"
#include "sallyport/base/slice.h"

enum inspect_mode { INSPECT_OFF = 0, INSPECT_LISTED, INSPECT_ALL };

struct policy_context; /* counted references */

/* All texts are copied. Lists are NULL-terminated arrays of strings, or NULL. */
struct policy_context_options {
    const uint16_t *default_ports;       /* {80, 443} when NULL */
    size_t default_port_count;
    const char *const *platform_hosts;   /* host entries */
    const char *const *blocked_hosts;    /* host entries; without a port all ports */
    struct slice registries_json;        /* policies/registries.json; empty: none (allow_package_managers is an error then) */
    struct slice blocklist_json;         /* policies/safety-blocklist.json; empty: none */
    enum inspect_mode inspect;           /* the ceiling; INSPECT_OFF until inspection is there */
    const char *const *passthrough;
    const char *const *override_hosts;   /* names in upstream.hosts */
    const struct cidr *allow_addresses;
    size_t allow_address_count;
    const struct cidr *delegable_addresses;
    size_t delegable_address_count;
    /* What a tunnel must carry there (it is held to it): {443} and {80} when NULL. Elsewhere a tunnel is opaque, and a
     * rule with a scheme is "cannot tell". */
    const uint16_t *tls_ports, *plain_ports;
    size_t tls_port_count, plain_port_count;
    bool has_parent;                     /* upstream.parent: a policy may leave the decision to it */
};

struct policy_context *policy_context_new(const struct policy_context_options *o, struct err *err);
struct policy_context *policy_context_ref(struct policy_context *c);
void policy_context_unref(struct policy_context *c);
/* The data file of package managers; borrowed, NULL when there is none. */
struct registries;
const struct registries *policy_context_registries(const struct policy_context *c);

#endif
