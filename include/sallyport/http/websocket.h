/* The opening handshake of WebSocket (RFC 6455 section 4), as far as a proxy has to hold it. */
#ifndef SALLYPORT_HTTP_WEBSOCKET_H
#define SALLYPORT_HTTP_WEBSOCKET_H

#include "sallyport/http/head.h"

/* Is `response` (a 101) the answer to this very request: Upgrade and Connection as they must be, and a Sec-WebSocket-Accept
 * that belongs to its key? Anything else would be a tunnel that nobody asked for. */
bool websocket_accepted(const struct head *request, const struct head *response);

#endif
