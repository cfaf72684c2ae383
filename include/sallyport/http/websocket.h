/* The opening handshake of WebSocket (RFC 6455 section 4), both halves of it. Nothing else may be
 * upgraded to. */
#ifndef SALLYPORT_HTTP_WEBSOCKET_H
#define SALLYPORT_HTTP_WEBSOCKET_H

#include <stdbool.h>

#include "sallyport/http/head.h"

/* A request that really asks for it: GET, HTTP/1.1, no body, Connection with `upgrade`, Upgrade
 * exactly `websocket`, version 13, one key of 16 bytes. head_parse_request keeps the answer in
 * head->upgrade_websocket. */
bool websocket_request_ok(const struct head *request);
/* Is `response` (a 101) the answer to this very request: Upgrade and Connection as they must be, a
 * Sec-WebSocket-Accept that belongs to its key, and a subprotocol only if the request offered it?
 * Anything else would be a tunnel that nobody asked for, and must not reach the client. */
bool websocket_accepted(const struct head *request, const struct head *response);

#endif
