/* DNS for a sandbox that has none: allowed names get synthetic addresses, the rest does not exist. No query ever leaves. */
#ifndef SALLYPORT_PROXY_RESPONDER_H
#define SALLYPORT_PROXY_RESPONDER_H

#include "sallyport/proxy/core.h"

void responder_listen_udp(struct port *port, int fd);
/* One connection of DNS over TCP (RFC 7766). */
void responder_accept_tcp(struct port *port, int fd);
struct dns_connection;
void responder_close(struct dns_connection *d);
void responder_close_all(struct proxy *p);

#endif
