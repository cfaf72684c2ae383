/* The network part of `sallyport doctor`: routes, connections, datagrams, resolvers. All attempts
 * run at once, within one deadline. The addresses are those of documentation, of metadata services,
 * and what --probe names.
 *
 * An attempt is judged by what the kernel of this namespace did: no route, a route that ends on
 * loopback (where only the gate listens), or a route that leaves, on which a refusal must be this
 * namespace's own. Whether it is shows in a datagram to the same address: a local rule refuses its
 * send(), a refusal from outside cannot. */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sallyport/base/addr.h"
#include "sallyport/base/clock.h"
#include "sallyport/base/file.h"
#include "sallyport/base/mem.h"
#include "sallyport/base/random.h"
#include "sallyport/cmd/doctor.h"

#define GROUP "network"
#define DEADLINE_MS 1500
#define TARGETS_MAX (KNOWN_COUNT + DOCTOR_PROBES_MAX)
#define RESOLVERS_MAX 4
#define RESOLV_CONF_MAX 65536
#define ADVICE_ROUTE "take the interface away (sallyport run), or lay `sallyport fence install`"
#define ADVICE_DNS "an empty resolv.conf, or the gate's own responder (sallyport run --transparent)"

enum route { ROUTE_UNKNOWN, ROUTE_NONE, ROUTE_LOCAL, ROUTE_LEAVES };

static const struct {
    const char *what, *address;
    uint16_t port;
    bool tcp;
} known[] = {
    {"public address", "192.0.2.1", 443, true},
    {"public address, plain", "198.51.100.1", 80, true},
    {"public address, odd port", "203.0.113.1", 8443, true},
    {"public IPv6 address", "2001:db8::1", 443, true},
    {"private address", "10.255.255.254", 443, true},
    {"metadata service", "169.254.169.254", 80, true},
    {"metadata service, IPv6", "fd00:ec2::254", 80, true},
    {"multicast", "224.0.0.251", 5353, false},
    {"link-local multicast, IPv6", "ff02::fb", 5353, false},
};
#define KNOWN_COUNT (sizeof known / sizeof known[0])

struct target {
    const char *what; /* static */
    struct sockaddr_storage sa;
    socklen_t len;
    char text[SOCKADDR_TEXT_SIZE];
    enum route route;
    int tcp, udp;       /* sockets; -1: none */
    int tcp_error;      /* EINPROGRESS while it is open; 0: connected */
    int udp_error;      /* 0: sent */
    bool answered_here; /* the connection's own end is loopback or the address itself */
};

struct resolver {
    struct addr addr;
    char text[ADDR_TEXT_SIZE];
    enum route route;
    int fd, send_error;
    uint16_t id;
    uint8_t reply[512];
    size_t reply_len; /* 0: none */
};

struct network {
    struct target targets[TARGETS_MAX];
    size_t target_count;
    struct resolver resolvers[RESOLVERS_MAX + 1]; /* and a public one */
    size_t resolver_count, configured;
};

/* ---- routes ---- */

static enum route
route_of_reply(const struct nlmsghdr *head, ssize_t got)
{
    if (got < (ssize_t)NLMSG_LENGTH(sizeof(struct rtmsg)) || head->nlmsg_len > (size_t)got)
        return ROUTE_UNKNOWN;
    if (head->nlmsg_type == NLMSG_ERROR)
        return ((const struct nlmsgerr *)NLMSG_DATA(head))->error ? ROUTE_NONE : ROUTE_UNKNOWN;
    const struct rtmsg *route = NLMSG_DATA(head);
    if (route->rtm_type == RTN_LOCAL)
        return ROUTE_LOCAL;
    unsigned out = 0;
    size_t at = NLMSG_LENGTH(sizeof *route);
    while (at + sizeof(struct rtattr) <= head->nlmsg_len) {
        const struct rtattr *a = (const struct rtattr *)((const char *)head + at);
        if (a->rta_len < sizeof *a || at + a->rta_len > head->nlmsg_len)
            return ROUTE_UNKNOWN;
        if (a->rta_type == RTA_OIF && a->rta_len >= RTA_LENGTH(sizeof out))
            memcpy(&out, RTA_DATA(a), sizeof out);
        at += RTA_ALIGN(a->rta_len);
    }
    return out == if_nametoindex("lo") ? ROUTE_LOCAL : ROUTE_LEAVES;
}

static enum route
find_route(const struct addr *to)
{
    struct {
        struct nlmsghdr head;
        struct rtmsg route;
        struct rtattr attribute;
        uint8_t address[16];
    } ask = {
        .head = {.nlmsg_type = RTM_GETROUTE, .nlmsg_flags = NLM_F_REQUEST},
        .route = {.rtm_family = to->family, .rtm_dst_len = to->family == AF_INET ? 32 : 128},
        .attribute = {.rta_type = RTA_DST},
    };
    union {
        struct nlmsghdr head;
        char bytes[4096];
    } reply;
    size_t len = to->family == AF_INET ? 4 : 16;
    memcpy(ask.address, to->bytes, len);
    ask.attribute.rta_len = (unsigned short)RTA_LENGTH(len);
    ask.head.nlmsg_len = (uint32_t)(offsetof(__typeof__(ask), address) + len);
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0)
        return ROUTE_UNKNOWN;
    ssize_t got =
        send(fd, &ask, ask.head.nlmsg_len, 0) < 0 ? -1 : recv(fd, &reply, sizeof reply, 0);
    close(fd);
    return got < 0 ? ROUTE_UNKNOWN : route_of_reply(&reply.head, got);
}

/* ---- starting ---- */

static struct target *
add_target(struct network *n, const char *what, const struct sockaddr_storage *sa, socklen_t len)
{
    struct target *t = &n->targets[n->target_count++];
    struct addr a;
    uint16_t port;
    *t = (struct target){.what = what,
                         .sa = *sa,
                         .len = len,
                         .tcp = -1,
                         .udp = -1,
                         .tcp_error = ENOTCONN,
                         .udp_error = ENOTCONN};
    sockaddr_format((const struct sockaddr *)sa, t->text);
    t->route =
        addr_from_sockaddr((const struct sockaddr *)sa, &a, &port) ? find_route(&a) : ROUTE_UNKNOWN;
    return t;
}

/* Multicast has no route of its own: it leaves by the first interface that is not loopback, if
 * there is one. */
static void
set_scope(struct target *t)
{
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&t->sa;
    struct ifaddrs *all = NULL;
    if (t->sa.ss_family != AF_INET6 ||
        !(IN6_IS_ADDR_MULTICAST(&v6->sin6_addr) || IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr)))
        return;
    t->route = ROUTE_NONE;
    if (getifaddrs(&all) < 0)
        return;
    for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
        if (i->ifa_flags & IFF_LOOPBACK || !(i->ifa_flags & IFF_UP))
            continue;
        v6->sin6_scope_id = if_nametoindex(i->ifa_name);
        t->route = ROUTE_LEAVES;
    }
    freeifaddrs(all);
}

static void
start_target(struct target *t, bool with_tcp)
{
    static const char byte = 0;
    const struct sockaddr *sa = (const struct sockaddr *)&t->sa;
    t->udp = socket(sa->sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    t->udp_error =
        t->udp < 0 || connect(t->udp, sa, t->len) < 0 || send(t->udp, &byte, 1, 0) < 0 ? errno : 0;
    if (!with_tcp)
        return;
    t->tcp = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    t->tcp_error = t->tcp < 0 || connect(t->tcp, sa, t->len) < 0 ? errno : 0;
}

static void
start_known(struct network *n)
{
    for (size_t i = 0; i < KNOWN_COUNT; i++) {
        struct addr a;
        struct sockaddr_storage sa;
        if (!addr_parse(slice_str(known[i].address), &a))
            continue;
        socklen_t len = addr_to_sockaddr(&a, known[i].port, &sa);
        struct target *t = add_target(n, known[i].what, &sa, len);
        set_scope(t);
        start_target(t, known[i].tcp);
    }
}

static int
start_probes(struct network *n, const struct doctor *d, struct err *err)
{
    if (d->probes.count > DOCTOR_PROBES_MAX)
        return err_invalid(err, "--probe: is given more than %d times", DOCTOR_PROBES_MAX);
    for (size_t i = 0; i < d->probes.count; i++) {
        struct sockaddr_storage sa;
        socklen_t len;
        if (!sockaddr_parse(slice_str(d->probes.items[i]), 0, &sa, &len))
            return err_invalid(err, "--probe: an address and port such as 192.0.2.1:443 or "
                                    "[2001:db8::1]:443 is expected");
        start_target(add_target(n, "--probe", &sa, len), true);
    }
    return 0;
}

/* ---- resolvers ---- */

/* A query for a name that is reserved for examples and exists: who gets its address has asked the
 * world. */
static const uint8_t question[] = "\x07"
                                  "example\x03"
                                  "org\0\0\1\0\1"; /* and the literal's NUL, which is not sent */

static void
start_resolver(struct network *n, struct slice text)
{
    struct sockaddr_storage sa;
    struct resolver *r = &n->resolvers[n->resolver_count];
    uint8_t query[12 + sizeof question - 1] = {
        [2] = 1, [5] = 1}; /* recursion desired, one question */
    *r = (struct resolver){.fd = -1};
    if (!addr_parse(text, &r->addr))
        return;
    n->resolver_count++;
    addr_format(&r->addr, r->text);
    r->route = find_route(&r->addr);
    random_bytes(&r->id, sizeof r->id);
    memcpy(query, &r->id, sizeof r->id);
    memcpy(query + 12, question, sizeof question - 1);
    socklen_t len = addr_to_sockaddr(&r->addr, 53, &sa);
    r->fd = socket(sa.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    r->send_error = r->fd < 0 || connect(r->fd, (struct sockaddr *)&sa, len) < 0 ||
                            send(r->fd, query, sizeof query, 0) < 0
                        ? errno
                        : 0;
}

static void
start_resolvers(struct network *n)
{
    struct err err = {0};
    cleanup_free char *text = NULL;
    size_t len;
    struct slice rest = {NULL, 0}, line;
    if (file_read("/etc/resolv.conf", RESOLV_CONF_MAX, FILE_ANY, &text, &len, &err) == 0)
        rest = slice_of(text, len);
    while (rest.ptr && n->resolver_count < RESOLVERS_MAX) {
        line = slice_trim_ows(slice_split(rest, '\n', &rest));
        if (slice_starts_with(line, "nameserver"))
            start_resolver(n, slice_trim_ows(slice_of(line.ptr + 10, line.len - 10)));
    }
    n->configured = n->resolver_count;
    start_resolver(n, slice_str("8.8.8.8"));
}

/* ---- waiting ---- */

static void
finish_target(struct target *t)
{
    struct sockaddr_storage own;
    socklen_t len = sizeof own, error_len = sizeof t->tcp_error;
    struct addr here, there;
    uint16_t port;
    if (getsockopt(t->tcp, SOL_SOCKET, SO_ERROR, &t->tcp_error, &error_len) < 0)
        t->tcp_error = errno;
    if (t->tcp_error != 0 || getsockname(t->tcp, (struct sockaddr *)&own, &len) < 0)
        return;
    addr_from_sockaddr((struct sockaddr *)&t->sa, &there, &port);
    t->answered_here =
        addr_from_sockaddr((struct sockaddr *)&own, &here, &port) &&
        (addr_equal(&here, &there) || (here.family == AF_INET && here.bytes[0] == 127));
}

static void
take_reply(struct resolver *r)
{
    ssize_t got = recv(r->fd, r->reply, sizeof r->reply, 0);
    if (got < 0) {
        r->send_error = errno;
        r->reply_len = 0;
    } else if (got >= 12 && memcmp(r->reply, &r->id, sizeof r->id) == 0) {
        r->reply_len = (size_t)got;
    }
}

static size_t
collect(struct network *n, struct pollfd *polls)
{
    size_t count = 0;
    for (size_t i = 0; i < n->target_count; i++)
        if (n->targets[i].tcp_error == EINPROGRESS)
            polls[count++] = (struct pollfd){.fd = n->targets[i].tcp, .events = POLLOUT};
    for (size_t i = 0; i < n->resolver_count; i++)
        if (n->resolvers[i].send_error == 0 && n->resolvers[i].reply_len == 0)
            polls[count++] = (struct pollfd){.fd = n->resolvers[i].fd, .events = POLLIN};
    return count;
}

static void
wait_all(struct network *n)
{
    int64_t end = clock_mono_ms() + DEADLINE_MS;
    for (int64_t left; (left = end - clock_mono_ms()) > 0;) {
        struct pollfd polls[TARGETS_MAX + RESOLVERS_MAX + 1];
        size_t count = collect(n, polls);
        if (count == 0)
            return;
        if (poll(polls, count, (int)left) <= 0)
            continue;
        for (size_t i = 0; i < n->target_count; i++)
            for (size_t k = 0; k < count; k++)
                if (polls[k].revents && polls[k].fd == n->targets[i].tcp)
                    finish_target(&n->targets[i]);
        for (size_t i = 0; i < n->resolver_count; i++)
            for (size_t k = 0; k < count; k++)
                if (polls[k].revents && polls[k].fd == n->resolvers[i].fd)
                    take_reply(&n->resolvers[i]);
    }
}

/* ---- judging ---- */

static bool
stays(const struct target *t)
{
    return t->route == ROUTE_NONE || t->route == ROUTE_LOCAL;
}

static void
judge_tcp(struct doctor *d, const struct target *t)
{
    char name[DOCTOR_NAME_SIZE + SOCKADDR_TEXT_SIZE];
    snprintf(name, sizeof name, "tcp %s", t->text);
    if (t->tcp_error == 0 && (t->route == ROUTE_LOCAL || t->answered_here)) {
        d->transparent |= strcmp(t->what, "--probe") != 0;
        doctor_add(d, GROUP, name, DOCTOR_PASS, NULL, "%s: answered on loopback, by the gate",
                   t->what);
    } else if (t->tcp_error == 0) {
        doctor_add(d, GROUP, name, DOCTOR_FAIL, ADVICE_ROUTE, "%s: connected", t->what);
    } else if (t->tcp_error == EINPROGRESS && stays(t)) {
        doctor_add(d, GROUP, name, DOCTOR_PASS, NULL, "%s: no answer, on loopback", t->what);
    } else if (t->tcp_error == EINPROGRESS && t->udp_error == 0) {
        doctor_add(d, GROUP, name, DOCTOR_FAIL, ADVICE_ROUTE,
                   "%s: the packet left; nothing here refused it", t->what);
    } else if (t->tcp_error == EINPROGRESS) {
        doctor_add(d, GROUP, name, DOCTOR_WARN,
                   "refuse instead of dropping, so that programs fail at once", "%s: no answer",
                   t->what);
    } else if (!stays(t) && t->udp_error == 0) {
        doctor_add(d, GROUP, name, DOCTOR_FAIL, ADVICE_ROUTE, "%s: %s, but not by this namespace",
                   t->what, strerror(t->tcp_error));
    } else {
        doctor_add(d, GROUP, name, DOCTOR_PASS, NULL, "%s: %s", t->what, strerror(t->tcp_error));
    }
}

static void
judge_udp(struct doctor *d, const struct target *t)
{
    char name[DOCTOR_NAME_SIZE + SOCKADDR_TEXT_SIZE];
    snprintf(name, sizeof name, "udp %s", t->text);
    if (t->udp_error != 0)
        doctor_add(d, GROUP, name, DOCTOR_PASS, NULL, "%s: %s", t->what, strerror(t->udp_error));
    else if (stays(t))
        doctor_add(d, GROUP, name, DOCTOR_PASS, NULL, "%s: sent, but no further than loopback",
                   t->what);
    else
        doctor_add(d, GROUP, name, DOCTOR_FAIL, ADVICE_ROUTE, "%s: the datagram left", t->what);
}

/* Behind the question, which is ours: names are skipped, not read. */
static bool
first_address(const struct resolver *r, struct addr *ret)
{
    size_t at = 12 + sizeof question - 1, answers = (size_t)(r->reply[6] << 8 | r->reply[7]);
    for (; answers > 0; answers--) {
        while (at < r->reply_len && r->reply[at] != 0 && r->reply[at] < 0xc0)
            at += r->reply[at] + 1u;
        at += at < r->reply_len && r->reply[at] >= 0xc0 ? 2 : 1;
        if (at + 10 > r->reply_len)
            return false;
        unsigned type = (unsigned)(r->reply[at] << 8 | r->reply[at + 1]);
        size_t len = (size_t)(r->reply[at + 8] << 8 | r->reply[at + 9]);
        at += 10;
        if (type == 1 && len == 4 && at + 4 <= r->reply_len) {
            *ret = (struct addr){.family = AF_INET};
            memcpy(ret->bytes, r->reply + at, 4);
            return true;
        }
        at += len;
    }
    return false;
}

static void
judge_reply(struct doctor *d, const struct resolver *r, const char *name)
{
    unsigned code = r->reply[3] & 0x0f;
    struct addr a;
    /* 198.18.0.0/15 is where the gate's responder takes its synthetic addresses from. */
    if (code == 0 && first_address(r, &a) && !(a.bytes[0] == 198 && (a.bytes[1] & 0xfe) == 18))
        doctor_add(d, GROUP, name, DOCTOR_FAIL, ADVICE_DNS,
                   "a real name was resolved: queries carry data out");
    else if (r->route != ROUTE_LOCAL)
        doctor_add(d, GROUP, name, DOCTOR_FAIL, ADVICE_DNS, "a resolver outside answered");
    else if (code == 2)
        doctor_add(d, GROUP, name, DOCTOR_WARN, ADVICE_DNS,
                   "a resolver on loopback answers that it failed: it may ask others");
    else
        doctor_add(d, GROUP, name, DOCTOR_PASS, NULL, "%s",
                   code == 0 ? "a synthetic answer, by the gate" : "refused, on loopback");
}

static void
judge_resolver(struct doctor *d, const struct resolver *r)
{
    char name[DOCTOR_NAME_SIZE];
    snprintf(name, sizeof name, "dns %s", r->text);
    if (r->send_error != 0)
        doctor_add(d, GROUP, name, DOCTOR_PASS, NULL, "%s", strerror(r->send_error));
    else if (r->reply_len > 0)
        judge_reply(d, r, name);
    else if (r->route == ROUTE_LOCAL || r->route == ROUTE_NONE)
        doctor_add(d, GROUP, name, DOCTOR_PASS, NULL, "no answer, on loopback");
    else
        doctor_add(d, GROUP, name, DOCTOR_FAIL, ADVICE_DNS,
                   "the query left; nothing here refused it");
}

static void
judge_interfaces(struct doctor *d)
{
    struct ifaddrs *all = NULL;
    char names[DOCTOR_FOUND_SIZE] = "";
    if (getifaddrs(&all) < 0) {
        doctor_add(d, GROUP, "interfaces", DOCTOR_WARN, "nothing: the rows below tell",
                   "cannot be listed: %s", strerror(errno));
        return;
    }
    for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
        size_t len = strlen(names);
        if (!(i->ifa_flags & IFF_LOOPBACK) && i->ifa_flags & IFF_UP && !strstr(names, i->ifa_name))
            snprintf(names + len, sizeof names - len, "%s%s", len ? ", " : "", i->ifa_name);
    }
    freeifaddrs(all);
    doctor_add(d, GROUP, "interfaces", *names ? DOCTOR_WARN : DOCTOR_PASS,
               "what is there needs a fence; the rows below tell whether it holds", "%s%s",
               *names ? "beside loopback: " : "only loopback", names);
}

static void
close_all(struct network *n)
{
    for (size_t i = 0; i < n->target_count; i++) {
        if (n->targets[i].tcp >= 0)
            close(n->targets[i].tcp);
        if (n->targets[i].udp >= 0)
            close(n->targets[i].udp);
    }
    for (size_t i = 0; i < n->resolver_count; i++)
        if (n->resolvers[i].fd >= 0)
            close(n->resolvers[i].fd);
}

int
doctor_network(struct doctor *d, struct err *err)
{
    struct network *n = mem_zalloc(sizeof *n);
    int result = 0;
    start_known(n);
    result = start_probes(n, d, err);
    if (result == 0) {
        start_resolvers(n);
        wait_all(n);
        judge_interfaces(d);
        for (size_t i = 0; i < n->target_count; i++) {
            if (n->targets[i].tcp >= 0 || n->targets[i].tcp_error != ENOTCONN)
                judge_tcp(d, &n->targets[i]);
            judge_udp(d, &n->targets[i]);
        }
        if (n->configured == 0)
            doctor_add(d, GROUP, "resolv.conf", DOCTOR_PASS, NULL, "names no resolver");
        for (size_t i = 0; i < n->resolver_count; i++)
            judge_resolver(d, &n->resolvers[i]);
    }
    close_all(n);
    free(n);
    return result;
}
