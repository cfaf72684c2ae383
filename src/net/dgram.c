/* Datagrams on the loop. A reply leaves from the address that the query was sent to (RFC 1123 section 6.1.3.5 asks this of
 * DNS servers): on a socket that receives for every address there is, the kernel would choose another. */
#include "sallyport/net/dgram.h"

#include <netinet/in.h>
#include <unistd.h>

#include "sallyport/base/file.h"
#include "sallyport/base/mem.h"

#define BATCH 64

struct dgram {
    int fd;
    void (*on_packet)(void *owner, const struct packet *p);
    void *owner;
};

/* Of the control messages only the one that names the local address may be sent back. */
static void
keep_address(struct msghdr *msg, struct packet *p)
{
    p->control_len = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        bool v4 = c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO;
        bool v6 = c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO;
        size_t space = CMSG_SPACE(v4 ? sizeof(struct in_pktinfo) : sizeof(struct in6_pktinfo));
        if ((!v4 && !v6) || space > sizeof p->control)
            continue;
        memcpy(p->control, c, c->cmsg_len < space ? c->cmsg_len : space);
        p->control_len = space;
        struct cmsghdr *kept = (struct cmsghdr *)(void *)p->control;
        if (v4) {
            struct in_pktinfo *info = (struct in_pktinfo *)(void *)CMSG_DATA(kept);
            info->ipi_spec_dst = info->ipi_addr;
            info->ipi_ifindex = 0;
        }
        return;
    }
}

static bool
receive(struct dgram *d, unsigned char *data)
{
    struct packet p = {.from_len = sizeof p.from};
    union {
        struct cmsghdr align;
        unsigned char bytes[256];
    } control;
    struct iovec iov = {data, DGRAM_MAX};
    struct msghdr msg = {&p.from, sizeof p.from, &iov, 1, control.bytes, sizeof control.bytes, 0};
    ssize_t n = recvmsg(d->fd, &msg, MSG_DONTWAIT);
    if (n < 0)
        return false;
    if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
        return true;
    p.from_len = msg.msg_namelen;
    p.data = slice_of(data, (size_t)n);
    keep_address(&msg, &p);
    d->on_packet(d->owner, &p);
    return d->fd >= 0;
}

static void
on_readable(void *arg)
{
    struct dgram *d = arg;
    unsigned char data[DGRAM_MAX];
    for (int i = 0; i < BATCH && d->fd >= 0; i++)
        if (!receive(d, data))
            break;
}

struct dgram *
dgram_new(struct loop *l, int fd, void (*on_packet)(void *owner, const struct packet *p), void *owner)
{
    struct dgram *d = mem_zalloc(sizeof *d);
    int on = 1;
    d->fd = fd;
    d->on_packet = on_packet;
    d->owner = owner;
    fd_set_nonblocking(fd);
    /* One of the two fits the socket's family; a packet socket takes neither and needs none. */
    (void)setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
    /* Answers come from whatever address was asked, assigned or not. */
    (void)setsockopt(fd, IPPROTO_IPV6, IPV6_FREEBIND, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof on);
    loop_on_readable(l, fd, on_readable, d);
    return d;
}

void
dgram_free(struct dgram *d)
{
    if (!d)
        return;
    if (d->fd >= 0)
        close(d->fd);
    free(d);
}

bool
dgram_reply(struct dgram *d, const struct packet *to, struct slice data)
{
    struct iovec iov = {(void *)(uintptr_t)data.ptr, data.len};
    struct msghdr msg = {(void *)(uintptr_t)&to->from, to->from_len, &iov, 1, NULL, 0, 0};
    if (to->control_len) {
        msg.msg_control = (void *)(uintptr_t)to->control;
        msg.msg_controllen = to->control_len;
    }
    return sendmsg(d->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)data.len;
}
