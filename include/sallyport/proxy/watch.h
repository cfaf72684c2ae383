/* What a sandbox tried to send to where nobody listens: each attempt becomes a `bypass` record, folded as refusals are. */
#ifndef SALLYPORT_PROXY_WATCH_H
#define SALLYPORT_PROXY_WATCH_H

#include "sallyport/proxy/core.h"

struct attempt {
    const char *protocol; /* "tcp", "udp", "icmp", "icmpv6", or "ip" */
    struct addr to;
    uint16_t port;        /* 0 without ports */
    uint16_t from_port;
};

void watch_listen(struct port *port, int fd);
/* An IP packet without its link header; false when it is none. Pure. */
bool watch_read(struct slice packet, struct attempt *ret);

#endif
