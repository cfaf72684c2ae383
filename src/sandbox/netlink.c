/* Loopback up and every destination local, by hand: three requests in one datagram, three answers. Owned by the sandbox's
 * first process; touches nothing but the namespace that it is in. */
#include "sallyport/sandbox/netlink.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOOPBACK_INDEX 1 /* the first interface of every network namespace */

struct builder {
    unsigned char *out;
    size_t len;
    uint32_t seq;
};

static void *
add(struct builder *b, const void *data, size_t len)
{
    void *place = b->out + b->len;
    memcpy(place, data, len);
    memset(b->out + b->len + len, 0, NLMSG_ALIGN(len) - len);
    b->len += NLMSG_ALIGN(len);
    return place;
}

static void
add_request(struct builder *b, uint16_t type, uint16_t flags, const void *body, size_t body_len, const struct rtattr *attr,
            const void *value, size_t value_len)
{
    struct nlmsghdr head = {
        .nlmsg_type = type,
        .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags),
        .nlmsg_seq = ++b->seq,
        .nlmsg_len = (uint32_t)(NLMSG_LENGTH(body_len) + (attr ? RTA_LENGTH(value_len) : 0)),
    };
    add(b, &head, sizeof head);
    add(b, body, body_len);
    if (attr) {
        add(b, attr, sizeof *attr);
        add(b, value, value_len);
    }
}

static void
add_local_route(struct builder *b, unsigned char family, int loopback)
{
    struct rtmsg route = {
        .rtm_family = family,
        .rtm_table = RT_TABLE_LOCAL,
        .rtm_protocol = RTPROT_STATIC,
        .rtm_scope = family == AF_INET ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE,
        .rtm_type = RTN_LOCAL,
    };
    struct rtattr out = {.rta_len = RTA_LENGTH(sizeof loopback), .rta_type = RTA_OIF};
    add_request(b, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &route, sizeof route, &out, &loopback, sizeof loopback);
}

size_t
netlink_build(int loopback, bool ipv6, unsigned char out[NETLINK_ROUTES_SIZE], size_t *ret_requests)
{
    struct builder b = {out, 0, 0};
    struct ifinfomsg up = {.ifi_family = AF_UNSPEC, .ifi_index = loopback, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    add_request(&b, RTM_NEWLINK, 0, &up, sizeof up, NULL, NULL, 0);
    add_local_route(&b, AF_INET, loopback);
    if (ipv6)
        add_local_route(&b, AF_INET6, loopback);
    *ret_requests = b.seq;
    return b.len;
}

static bool
has_ipv6(void)
{
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static const char *
request_name(uint32_t seq)
{
    return seq == 1 ? "lo up" : seq == 2 ? "route add local 0.0.0.0/0 dev lo" : "route add local ::/0 dev lo";
}

/* Answers come in order, possibly several in a datagram. */
static int
hear_answers(int fd, size_t requests, struct err *err)
{
    _Alignas(struct nlmsghdr) char in[4096];
    while (requests) {
        ssize_t got = recv(fd, in, sizeof in, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return err_errno(err, "netlink");
        size_t left = (size_t)got;
        for (struct nlmsghdr *m = (struct nlmsghdr *)(void *)in; NLMSG_OK(m, left); m = NLMSG_NEXT(m, left)) {
            if (m->nlmsg_type != NLMSG_ERROR || m->nlmsg_len < NLMSG_LENGTH(sizeof(struct nlmsgerr)))
                continue;
            errno = -((struct nlmsgerr *)NLMSG_DATA(m))->error;
            if (errno)
                return err_errno(err, "netlink: %s", request_name(m->nlmsg_seq));
            requests--;
        }
    }
    return 0;
}

int
netlink_set_up(bool *ret_ipv6, struct err *err)
{
    unsigned char out[NETLINK_ROUTES_SIZE];
    size_t requests;
    *ret_ipv6 = has_ipv6();
    size_t len = netlink_build(LOOPBACK_INDEX, *ret_ipv6, out, &requests);
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0)
        return err_errno(err, "netlink: socket");
    int rc = send(fd, out, len, 0) == (ssize_t)len ? hear_answers(fd, requests, err) : err_errno(err, "netlink");
    close(fd);
    return rc;
}
