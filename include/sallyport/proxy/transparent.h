/* Transparent listeners: connections that a sandbox makes to any address arrive here, and getsockname tells which. The first
 * flight (or the synthetic address) tells the name. */
#ifndef SALLYPORT_PROXY_TRANSPARENT_H
#define SALLYPORT_PROXY_TRANSPARENT_H

#include "sallyport/proxy/client.h"

/* After accept: finds the original address, and either starts the exchange or waits for the first flight. */
void transparent_begin(struct client *c);
/* More bytes, the end, or (timeout) nothing more: starts the exchange as soon as the target is known. */
void transparent_continue(struct client *c, bool timeout);
/* The TLS alert that says "access denied" (RFC 8446 section 6.2), for clients that were about to speak TLS. */
struct slice transparent_alert(void);

#endif
