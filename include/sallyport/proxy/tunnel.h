/* Bytes both ways between two streams: half-close, back-pressure, first-flight checks. Without bytes under way a tunnel
 * holds no buffer. */
#ifndef SALLYPORT_PROXY_TUNNEL_H
#define SALLYPORT_PROXY_TUNNEL_H

#include "sallyport/proxy/exchange.h"
#include "sallyport/tls/hello.h"

#define TUNNEL_BUFFER_MAX 65536 /* bytes held back a direction while the other side is slow, or looked at */

/* After the 200 is in `to_client`: takes the client's stream, what it has sent already, and x->upstream. */
void tunnel_start(struct exchange *x, struct stream *client, struct buf *from_client, struct slice to_client);
/* After a 101: both sides speak freely; nothing is checked any more. */
void tunnel_start_upgraded(struct exchange *x, struct stream *client, struct buf *from_client, struct buf *to_client, struct buf *from_upstream);
/* Does the hello name the target? Keeps the SNI for the record. */
enum reason tunnel_check_hello(struct exchange *x, const struct hello *hello);
void tunnel_tune(struct tunnel *t); /* the upstream side: the client side has it from its listener */
void tunnel_free(struct tunnel *t); /* closes both streams */

#endif
