/* Connecting to judged endpoints, and to nothing else: Happy Eyeballs (RFC 8305) over the list. */
#ifndef SALLYPORT_NET_DIAL_H
#define SALLYPORT_NET_DIAL_H

#include "sallyport/base/reason.h"
#include "sallyport/net/stream.h"
#include "sallyport/policy/guard.h"

struct dial;

/* Takes over `endpoints`. on_done comes from the loop, once, never after cancel: REASON_OK and a stream (the caller's;
 * owner not set yet) and the endpoint's address, or the most significant failure (refused, unreachable, timeout). */
typedef void dial_fn(void *owner, enum reason reason, struct stream *stream, const struct addr *address);
struct dial *dial_start(struct loop *l, struct endpoints *endpoints, int64_t timeout_ms, dial_fn *on_done, void *owner);
void dial_cancel(struct dial *d);

#endif
