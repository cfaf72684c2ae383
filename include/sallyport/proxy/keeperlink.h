/* A worker's side of the keeper channel, and what inspection needs of a snapshot: leaf key, CA certificate, upstream roots.
 * Nothing is made while inspect.mode is off. */
#ifndef SALLYPORT_PROXY_KEEPERLINK_H
#define SALLYPORT_PROXY_KEEPERLINK_H

#include "sallyport/base/err.h"
#include "sallyport/net/loop.h"
#include "sallyport/proxy/shared.h"
#include "sallyport/proxy/snapshot.h"
#include "sallyport/tls/leaf.h"
#include "sallyport/tls/upstream.h"

struct keeper_link;

/* Takes over fd, the worker's end of its channel to the keeper; -1: there is none, and nothing can be inspected. */
struct keeper_link *keeper_link_new(struct loop *l, int fd);
void keeper_link_free(struct keeper_link *k); /* NULL is fine */
/* Follows a snapshot. What did not change is kept, with its cache. -1 with err: nothing can be inspected from now on. */
int keeper_link_set(struct keeper_link *k, const struct snapshot *s, struct err *err);
/* NULL while there is no inspection: by settings, or because it could not be set up. */
struct leaf_store *keeper_link_leaves(struct keeper_link *k);
struct upstream_tls *keeper_link_upstream(struct keeper_link *k);

#endif
