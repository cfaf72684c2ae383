/* Who asks: fills x->identity and x->policy, or says why not. */
#ifndef SALLYPORT_PROXY_IDENTIFY_H
#define SALLYPORT_PROXY_IDENTIFY_H

#include "sallyport/proxy/exchange.h"

/* By the request's own credential, or by its listener's token where that has one. */
enum reason identify(struct exchange *x);
/* By the listener's token alone; `own` is a token that the client sent besides (ptr NULL: none) and must be of the same sandbox.
 * Leaves x->policy alone. */
enum reason identify_by_listener(struct exchange *x, struct slice own, int64_t now_s);
/* The policy that x->identity is judged by; the exchange holds it. */
enum reason identify_policy(struct exchange *x);
/* A request inside an inspected tunnel: what the tunnel has shown, if it still holds; its target with it. */
enum reason identify_by_tunnel(struct exchange *x);

#endif
