/* HTTP/2 inside an inspected tunnel: the client's connection to one upstream connection, stream to stream. Each stream is an
 * exchange of its own, a child of the tunnel's, judged and recorded like any request. */
#ifndef SALLYPORT_PROXY_INSPECT_H2_H
#define SALLYPORT_PROXY_INSPECT_H2_H

#include "sallyport/http/h2_fields.h"
#include "sallyport/http/status.h"
#include "sallyport/proxy/inspect.h"

struct inspect_h2;
struct inspect_call; /* one stream of the client's; x->call of its exchange */

/* Takes both streams, their TLS done. upstream NULL: there is none, and each request hears why (inspect_fault, inspect_denied). */
struct inspect_h2 *inspect_h2_new(struct inspection *i, struct stream *client, struct stream *upstream);
void inspect_h2_free(struct inspect_h2 *h); /* the exchanges inside end with it; NULL is fine */

/* For exchange.c. */
void inspect_h2_adopt(struct inspect_call *call, struct exchange *x); /* the exchange has begun */
/* The decision is kept: the request goes up. May end the exchange. */
void inspect_h2_serve(struct inspect_call *call);
/* The client has the head of an answer: no other can follow. */
bool inspect_h2_has_answered(const struct inspect_call *call);
/* The proxy's own answer, after its exchange has ended; the call is given up. */
void inspect_h2_reply(struct inspect_call *call, const struct reply_facts *facts);
/* The exchange has ended in another way: what is open of the two streams is reset. */
void inspect_h2_exchange_ended(struct inspect_call *call);

#endif
