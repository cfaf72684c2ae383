/* Listening sockets made inside the sandbox's network namespace: a socket belongs for life to the namespace that made it, so
 * which of them accepted is an identity that nobody inside can forge. */
#include "sallyport/sandbox/sockets.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sallyport/sandbox/talk.h"
#include "sallyport/sandbox/watch.h"

#define BACKLOG 4096
#define DNS_PORT 53

union any_address {
    struct sockaddr sa;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* Every address of both families, or of IPv4 where that is all there is. */
static socklen_t
any_address(union any_address *to, bool ipv6, uint16_t port)
{
    memset(to, 0, sizeof *to);
    if (ipv6) {
        to->v6.sin6_family = AF_INET6;
        to->v6.sin6_port = htons(port);
        return sizeof to->v6;
    }
    to->v4.sin_family = AF_INET;
    to->v4.sin_port = htons(port);
    return sizeof to->v4;
}

static int
keep(struct gate_sockets *s, const char *name, int fd)
{
    s->fds[s->count] = fd;
    s->names[s->count++] = name;
    return 0;
}

static int
open_one(struct gate_sockets *s, const char *name, int type, const union any_address *at, socklen_t len, struct err *err)
{
    int on = 1, off = 0, fd = socket(at->sa.sa_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(err, "%s: socket", name);
    bool fine = (type != SOCK_STREAM || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0) &&
                (at->sa.sa_family != AF_INET6 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0) &&
                bind(fd, &at->sa, len) == 0 && (type != SOCK_STREAM || listen(fd, BACKLOG) == 0);
    if (!fine) {
        err_errno(err, "%s: port %u", name, (unsigned)ntohs(at->sa.sa_family == AF_INET6 ? at->v6.sin6_port : at->v4.sin_port));
        close(fd);
        return -1;
    }
    return keep(s, name, fd);
}

static int
open_any(struct gate_sockets *s, const char *name, int type, bool ipv6, uint16_t port, struct err *err)
{
    union any_address at;
    socklen_t len = any_address(&at, ipv6, port);
    return open_one(s, name, type, &at, len, err);
}

static int
open_proxy(struct gate_sockets *s, struct err *err)
{
    union any_address at;
    socklen_t len = any_address(&at, false, SANDBOX_PROXY_PORT);
    at.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return open_one(s, "sandbox-proxy", SOCK_STREAM, &at, len, err);
}

static bool
has_port(const uint16_t *ports, size_t count, uint16_t port)
{
    for (size_t i = 0; i < count; i++)
        if (ports[i] == port)
            return true;
    return false;
}

static int
open_transparent(struct gate_sockets *s, const uint16_t *ports, size_t count, bool ipv6, struct err *err)
{
    for (size_t i = 0; i < count; i++)
        if (open_any(s, "sandbox-transparent", SOCK_STREAM, ipv6, ports[i], err) < 0)
            return -1;
    if (open_any(s, "sandbox-dns", SOCK_DGRAM, ipv6, DNS_PORT, err) < 0)
        return -1;
    return open_any(s, "sandbox-dns", SOCK_STREAM, ipv6, DNS_PORT, err);
}

int
gate_sockets_open(const struct sandbox_options *o, bool ipv6, struct gate_sockets *ret, struct err *err)
{
    uint16_t tcp[SANDBOX_PORTS_MAX + 3] = {443, 80}, udp[1] = {DNS_PORT};
    size_t count = 2;
    ret->count = 0;
    for (size_t i = 0; i < o->port_count; i++)
        if (!has_port(tcp, count, o->ports[i]))
            tcp[count++] = o->ports[i];
    int rc = open_proxy(ret, err);
    if (rc == 0 && o->transparent)
        rc = open_transparent(ret, tcp, count, ipv6, err);
    tcp[count] = DNS_PORT;
    int watch = rc < 0 ? -1 : o->transparent ? watch_open(tcp, count + 1, udp, 1, err) : watch_open(NULL, 0, NULL, 0, err);
    if (watch >= 0)
        return keep(ret, "sandbox-watch", watch);
    gate_sockets_close(ret);
    return -1;
}

void
gate_sockets_leave(struct gate_sockets *s)
{
    int pair[2], all[GATE_SOCKETS_MAX + 2];
    if (s->count && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0) {
        memcpy(all, s->fds, s->count * sizeof all[0]);
        memcpy(all + s->count, pair, sizeof pair);
        (void)say(pair[0], SAY_NOTHING, NULL, 0, all, s->count + 2);
        gate_sockets_close(s);
        close(pair[0]);
        close(pair[1]);
    }
    gate_sockets_close(s);
}

void
gate_sockets_close(struct gate_sockets *s)
{
    for (size_t i = 0; i < s->count; i++)
        close(s->fds[i]);
    s->count = 0;
}
