/* One DNS question over the wire, for net/resolve: c-ares carries it (retries, servers in turn, TCP after truncation) on
 * channels that are changed often. The message that comes back is raw; net/dns_answer reads it. */
#ifndef SALLYPORT_NET_RESOLVE_ARES_H
#define SALLYPORT_NET_RESOLVE_ARES_H


#include "sallyport/base/addr.h"
#include "sallyport/net/loop.h"

#define DNS_TYPE_A 1
#define DNS_TYPE_AAAA 28

struct asker;    /* the channels */
struct question; /* one under way */

/* msg is NULL when no usable answer came: timeout, refusal, all servers failing. From the loop, once; not after
 * question_cancel or asker_free. msg is valid during the call. It may come from inside c-ares: the callee keeps what it
 * needs and defers the rest. */
typedef void question_fn(void *owner, const unsigned char *msg, size_t len);

struct asker *asker_new(struct loop *l, const struct sockaddr_storage *servers, size_t count, int timeout_ms);
void asker_free(struct asker *a); /* ends all questions without a call */
/* name is canonical. NULL: it could not be asked (no server, no descriptors). */
struct question *question_start(struct asker *a, const char *name, int type, question_fn *on_answer, void *owner);
void question_cancel(struct question *q);

#endif
