/* The fence as text: from a plan to one nftables transaction. Pure: it asks no kernel, so that a test can read what would be
 * laid. The caller runs the text. */
#ifndef SALLYPORT_SANDBOX_FENCE_RULES_H
#define SALLYPORT_SANDBOX_FENCE_RULES_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sallyport/base/addr.h"
#include "sallyport/base/buf.h"

#define FENCE_TABLE "sallyport"
#define FENCE_EGRESS "egress_" /* and the device: the name of its chain */
#define FENCE_UIDS_MAX 8
#define FENCE_OPEN_MAX 64
#define FENCE_RESOLVERS_MAX 8
#define FENCE_DEVICES_MAX 64
#define FENCE_TEXT_MAX 65536 /* the largest plan is a fifth of it */

/* What is counted apart; the names stand in fence_counter_name(). */
enum fence_counter {
    FENCE_TCP,
    FENCE_UDP,
    FENCE_ICMP,
    FENCE_OTHER,
    FENCE_NAMES,   /* DNS over loopback */
    FENCE_GUARD,   /* the proxy's workers, to a forbidden range */
    FENCE_FORWARD, /* packets of others, passing through */
    FENCE_FRAMES,  /* of AF_PACKET sockets; in the netdev table */
    FENCE_COUNTERS
};

struct fence_count { uint64_t packets, bytes; };

struct fence_plan {
    uint32_t proxies[FENCE_UIDS_MAX]; /* users that may leave */
    size_t proxy_count;
    bool guarded;                     /* guard_uid leaves too, but not to the address guard's ranges */
    uint32_t guard_uid;
    struct cidr open[FENCE_OPEN_MAX]; /* ranges that guard_uid may reach all the same */
    size_t open_count;
    struct addr resolvers[FENCE_RESOLVERS_MAX]; /* likewise, port 53 alone */
    size_t resolver_count;
    bool loopback_names;              /* everybody may ask a resolver on loopback */
    bool forward;                     /* leave alone what only passes through */
    char devices[FENCE_DEVICES_MAX][IF_NAMESIZE]; /* with an egress chain; none: no netdev table */
    size_t device_count;
    struct fence_count counts[FENCE_COUNTERS]; /* where the counters begin: what an older fence had counted */
};

const char *fence_counter_name(enum fence_counter c); /* "tcp" */
/* Only names that can stand in a rule: letters, digits, '.', '_', '-'. */
bool fence_device_is_plain(const char *name);
/* Appends the transaction that replaces whatever fence is there. False when the buffer's cap was passed. */
bool fence_rules_install(const struct fence_plan *plan, struct buf *out);
/* Appends the transaction that removes the tables that are there. */
bool fence_rules_remove(bool inet, bool netdev, struct buf *out);

#endif
