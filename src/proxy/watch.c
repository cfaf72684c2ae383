/* Packets that a sandbox sent to where nobody listens, read from a packet socket on its loopback. The packets are hostile
 * bytes: headers are read up to the ports and no further. */
#include "sallyport/proxy/watch.h"

#include <netinet/in.h>

#include "sallyport/base/mem.h"
#include "sallyport/base/random.h"
#include "sallyport/net/dgram.h"

#define IPV6_HEADER 40
#define EXTENSIONS_MAX 8
#define DNS_PORT 53

static const char *
protocol_name(unsigned protocol)
{
    switch (protocol) {
    case IPPROTO_TCP:
        return "tcp";
    case IPPROTO_UDP:
        return "udp";
    case IPPROTO_ICMP:
        return "icmp";
    case IPPROTO_ICMPV6:
        return "icmpv6";
    default:
        return "ip";
    }
}

static void
read_transport(const unsigned char *p, size_t len, unsigned protocol, struct attempt *ret)
{
    ret->protocol = protocol_name(protocol);
    if ((protocol == IPPROTO_TCP || protocol == IPPROTO_UDP) && len >= 4) {
        ret->from_port = (uint16_t)(p[0] << 8 | p[1]);
        ret->port = (uint16_t)(p[2] << 8 | p[3]);
    }
}

static bool
read_v4(const unsigned char *p, size_t len, struct attempt *ret)
{
    size_t header = (size_t)(p[0] & 15) * 4;
    if (len < 20 || header < 20 || header > len)
        return false;
    ret->to.family = AF_INET;
    memcpy(ret->to.bytes, p + 16, 4);
    bool first_fragment = ((p[6] & 0x1f) | p[7]) == 0;
    read_transport(p + header, first_fragment ? len - header : 0, p[9], ret);
    return true;
}

static bool
read_v6(const unsigned char *p, size_t len, struct attempt *ret)
{
    if (len < IPV6_HEADER)
        return false;
    ret->to.family = AF_INET6;
    memcpy(ret->to.bytes, p + 24, 16);
    unsigned next = p[6];
    size_t at = IPV6_HEADER;
    /* Hop-by-hop, routing and destination options have one form (RFC 8200 section 4); others end the walk. */
    for (int i = 0; i < EXTENSIONS_MAX && (next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS); i++) {
        if (len - at < 8 || len - at < ((size_t)p[at + 1] + 1) * 8)
            break;
        next = p[at];
        at += ((size_t)p[at + 1] + 1) * 8;
    }
    read_transport(p + at, len - at, next, ret);
    return true;
}

bool
watch_read(struct slice packet, struct attempt *ret)
{
    const unsigned char *p = (const unsigned char *)packet.ptr;
    *ret = (struct attempt){0};
    if (packet.len < 1)
        return false;
    if (p[0] >> 4 == 4)
        return read_v4(p, packet.len, ret);
    return p[0] >> 4 == 6 && read_v6(p, packet.len, ret);
}

static void
on_packet(void *owner, const struct packet *packet)
{
    struct port *port = owner;
    struct proxy *p = port->proxy;
    struct attempt a;
    char address[ADDR_TEXT_SIZE], extra[64], id[ULID_TEXT_SIZE];
    /* Port 53 is the responder's alone (programs inside may not bind it): its late answers are no attempts of the sandbox. */
    if (!watch_read(packet->data, &a) || a.from_port == DNS_PORT)
        return;
    addr_format(&a.to, address);
    snprintf(extra, sizeof extra, "\"protocol\":\"%s\"", a.protocol);
    random_ulid(loop_wall_us(p->loop) / 1000, id);
    struct identity *who = port_identity(port);
    struct record r = {
        .event = RECORD_BYPASS,
        .wall_us = loop_wall_us(p->loop),
        .id = slice_str(id),
        .sandbox = who ? slice_str(who->sub) : slice_of(NULL, 0),
        .listener = slice_str(port->name),
        .host = slice_str(address),
        .address = slice_str(address),
        .port = a.port,
        .reason = REASON_ADDRESS_NOT_ALLOWED,
        .extra = slice_str(extra),
    };
    journal_add(p->journal, &r, true);
    identity_unref(who);
}

void
watch_listen(struct port *port, int fd)
{
    port->dgram = dgram_new(port->proxy->loop, fd, on_packet, port);
}
