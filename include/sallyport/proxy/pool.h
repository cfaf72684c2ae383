/* Idle upstream connections of plain HTTP, reused only for the same sandbox, policy, host and port. */
#ifndef SALLYPORT_PROXY_POOL_H
#define SALLYPORT_PROXY_POOL_H

#include "sallyport/net/stream.h"
#include "sallyport/proxy/exchange.h"

#define POOL_MAX 1024        /* idle connections of a worker; past it the oldest is closed, whose ever it is */
#define POOL_PER_KEY 64      /* to one host of one sandbox: as many as package managers and test runners fetch with at once */
#define POOL_IDLE_MS 5000    /* the shortest that common servers keep a connection, so that few requests meet an end */

struct pool *pool_new(struct loop *loop);
void pool_free(struct pool *p);
void pool_flush(struct pool *p); /* a new snapshot: addresses must be judged again */
/* NULL: none. The caller owns the stream. */
struct stream *pool_take(struct pool *p, const struct exchange *x, struct addr *ret_address);
void pool_put(struct pool *p, const struct exchange *x, struct stream *s); /* takes over the stream */

#endif
