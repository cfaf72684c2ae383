/* One plain HTTP/1.x request to its upstream and the answer back, re-framed on the way. */
#ifndef SALLYPORT_PROXY_FORWARD_H
#define SALLYPORT_PROXY_FORWARD_H

#include "sallyport/proxy/exchange.h"

/* x->upstream is connected and the record is kept. */
void forward_start(struct exchange *x);
void forward_free(struct forward *f);
/* Nothing has moved for limits.idle_timeout_ms. */
void forward_idle(struct forward *f);
bool forward_has_answered(const struct forward *f); /* the client has the head of an answer: no other can follow */
void forward_client_event(struct forward *f, enum stream_event event);

#endif
