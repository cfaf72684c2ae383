/* `sallyport-run fence install|show|remove`: the fence of a pod or VM in which somebody else starts the sandbox. */
#ifndef SALLYPORT_SANDBOX_FENCE_H
#define SALLYPORT_SANDBOX_FENCE_H

#include <stdbool.h>

#include "sallyport/base/err.h"
#include "sallyport/sandbox/fence_rules.h"

/* argv[0] is "fence". The exit status: 0 done, 1 `show` found none, 2 bad usage, 3 the kernel or a right is missing. */
int fence_main(int argc, char **argv);

/* ---- nftables in the present network namespace ---- */

struct fence_nft; /* an open connection to the kernel */

/* What is laid at the moment. */
struct fence_state {
    bool inet, netdev; /* our tables are there */
    bool hooked;       /* the output chain is, at its hook and dropping by default */
    uint32_t proxies[FENCE_UIDS_MAX + 1]; /* the guarded one among them */
    size_t proxy_count;
    bool guarded;
    uint32_t guard_uid;
    struct fence_count counts[FENCE_COUNTERS];
    char devices[FENCE_DEVICES_MAX][IF_NAMESIZE]; /* with an egress chain */
    size_t device_count;
};

/* 0, or -1 with err (ERR_RUN): no library, no nftables in this kernel, not permitted. */
int fence_nft_open(struct fence_nft **ret, struct err *err);
void fence_nft_close(struct fence_nft *n); /* NULL is fine */
int fence_nft_read(struct fence_nft *n, struct fence_state *ret, struct err *err);
/* All of the text or none of it. */
int fence_nft_run(struct fence_nft *n, const struct buf *text, struct err *err);

#endif
