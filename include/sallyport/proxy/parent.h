/* Chaining to another proxy (upstream.parent): CONNECT to it with its own credential, and what it answers. */
#ifndef SALLYPORT_PROXY_PARENT_H
#define SALLYPORT_PROXY_PARENT_H

#include "sallyport/proxy/exchange.h"

struct parent_address {
    bool tls;
    struct host host;
    uint16_t port;
};
/* "http://host:port" or "https://host:port", nothing behind it. */
bool parent_parse(const char *url, struct parent_address *ret);
/* Value of Proxy-Authorization towards the parent, from the snapshot; empty without a token file. */
struct slice parent_authorization(struct exchange *x, struct arena *arena);
/* x->upstream is connected to the parent: handshakes and, for a tunnel, CONNECTs through it. Calls exchange_parent_ready or
 * exchange_fail. */
void parent_start(struct exchange *x, void (*on_ready)(struct exchange *x));
void parent_free(struct parent *p);
/* The parent's refusal of a plain request, where its answer is one (it names a reason that we know); else REASON_OK. */
enum reason parent_verdict(const struct head *answer);
#define PARENT_DETAIL "the proxy that this one goes through refused"
/* The parent's endpoint at an address that its name or literal led to: from the configuration, exempt from the guard. */
struct endpoints *parent_endpoints(const struct exchange *x, const struct addr *address);

#endif
