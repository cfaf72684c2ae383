/* The watching socket's packet filter, run by the kernel on packets of our own (a filter on a datagram socket of the UNIX
 * family sees its bytes the same way), and the requests that make the sandbox's network. */
#include "unit/test.h"

#include "sallyport/sandbox/netlink.h"
#include "sallyport/sandbox/watch.h"

#include <arpa/inet.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

static const uint16_t tcp[] = {443, 80, 53}, udp[] = {53};
static int out = -1, in = -1;

static void
attach(bool transparent)
{
    struct sock_filter program[WATCH_PROGRAM_MAX];
    struct sock_fprog whole = {0, program};
    int pair[2];
    whole.len = (unsigned short)watch_program(tcp, transparent ? 3 : 0, udp, transparent ? 1 : 0, program);
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    CHECK(setsockopt(pair[1], SOL_SOCKET, SO_ATTACH_FILTER, &whole, sizeof whole) == 0);
    out = pair[0];
    in = pair[1];
}

static void
detach(void)
{
    close(out);
    close(in);
}

static bool
passes(const unsigned char *packet, size_t len)
{
    unsigned char got[256];
    send(out, packet, len, 0);
    return recv(in, got, sizeof got, MSG_DONTWAIT) > 0;
}

struct shape { const char *to; unsigned protocol; uint16_t port; uint8_t flags; unsigned options; };

static size_t
build(const struct shape *s, unsigned char *p)
{
    bool six = strchr(s->to, ':') != NULL;
    size_t header = six ? 40 : 20 + s->options * 4;
    memset(p, 0, 128);
    p[0] = six ? 0x60 : (unsigned char)(0x40 | header / 4);
    p[six ? 6 : 9] = (unsigned char)s->protocol;
    CHECK(inet_pton(six ? AF_INET6 : AF_INET, s->to, p + (six ? 24 : 16)) == 1);
    if (s->protocol == IPPROTO_ICMP || s->protocol == IPPROTO_ICMPV6) {
        p[header] = s->flags;
    } else {
        p[header + 2] = (unsigned char)(s->port >> 8);
        p[header + 3] = (unsigned char)s->port;
        p[header + 13] = s->flags;
    }
    return header + 40;
}

#define SYN 0x02
#define ACK 0x10

static void
expect_pass(const struct shape *s, bool wanted)
{
    unsigned char p[256];
    size_t len = build(s, p);
    CHECK_THAT(passes(p, len) == wanted, "%s protocol %u port %u flags %#x: expected %s", s->to, s->protocol, s->port, s->flags,
               wanted ? "to pass" : "to be dropped");
}

TEST(first_packets_to_elsewhere_pass)
{
    attach(false);
    static const struct shape all[] = {
        {"192.0.2.1", 6, 443, SYN, 0}, {"192.0.2.1", 6, 22, SYN, 5}, {"169.254.169.254", 6, 80, SYN | 0xc0 /* ECE, CWR */, 0},
        {"8.8.8.8", 17, 53, 0, 0}, {"10.0.0.1", 17, 443, 0, 2}, {"126.255.255.255", 6, 1, SYN, 0}, {"128.0.0.0", 6, 1, SYN, 0},
        {"192.0.2.1", 1, 0, 8, 0}, {"192.0.2.1", 132, 9, 0, 0}, {"fd00:ec2::254", 6, 80, SYN, 0}, {"2001:db8::1", 17, 443, 0, 0},
        {"ff02::1", 17, 5353, 0, 0}, {"2001:db8::1", 58, 0, 128, 0}, {"::2", 6, 1, SYN, 0}, {"1::1", 6, 1, SYN, 0}, {"::", 17, 1, 0, 0},
        {"::1:0:0:1", 6, 1, SYN, 0}, {"::ffff:7f00:1", 6, 1, SYN, 0}, {"2001:db8::1", 0, 0, 0, 0}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        expect_pass(&all[i], true);
    detach();
}

TEST(loopback_later_packets_and_errors_do_not)
{
    attach(false);
    static const struct shape all[] = {
        {"127.0.0.1", 6, 3128, SYN, 0}, {"127.255.255.255", 17, 1, 0, 0}, {"::1", 6, 3128, SYN, 0}, {"::1", 17, 1, 0, 0},
        {"192.0.2.1", 6, 443, SYN | ACK, 0}, {"192.0.2.1", 6, 443, ACK, 0}, {"192.0.2.1", 6, 443, 0x04 /* RST */, 0},
        {"192.0.2.1", 1, 0, 3, 0}, {"192.0.2.1", 1, 0, 0, 0}, {"2001:db8::1", 58, 0, 1, 0}, {"2001:db8::1", 58, 0, 129, 0},
        {"2001:db8::1", 6, 443, ACK, 0}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        expect_pass(&all[i], false);
    detach();
}

TEST(what_is_served_is_not_told)
{
    attach(true);
    static const struct shape served[] = {{"192.0.2.1", 6, 443, SYN, 0}, {"192.0.2.1", 6, 80, SYN, 3}, {"192.0.2.1", 17, 53, 0, 0},
                                          {"2001:db8::1", 6, 443, SYN, 0}, {"2001:db8::1", 17, 53, 0, 0}, {"192.0.2.1", 6, 53, SYN, 0}};
    static const struct shape other[] = {{"192.0.2.1", 6, 444, SYN, 0}, {"192.0.2.1", 17, 443, 0, 0}, {"192.0.2.1", 17, 80, 0, 1},
                                         {"2001:db8::1", 17, 443, 0, 0}, {"2001:db8::1", 6, 8080, SYN, 0}, {"192.0.2.1", 1, 0, 8, 0}};
    for (size_t i = 0; i < sizeof served / sizeof served[0]; i++)
        expect_pass(&served[i], false);
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++)
        expect_pass(&other[i], true);
    detach();
}

TEST(later_fragments_and_short_packets_are_dropped)
{
    unsigned char p[256];
    attach(false);
    struct shape s = {"192.0.2.1", 17, 53, 0, 0};
    size_t len = build(&s, p);
    p[7] = 1; /* offset of 8 bytes */
    CHECK(!passes(p, len));
    p[7] = 0;
    p[6] = 0x20; /* more follow: the first one */
    CHECK(passes(p, len));
    p[0] = 0x55;
    CHECK(!passes(p, len));
    /* A load behind the end ends the program with a drop; nothing may pass by being short of its port. */
    struct shape t = {"192.0.2.1", 6, 443, SYN, 0};
    build(&t, p);
    for (size_t cut = 1; cut < 34; cut++)
        CHECK_THAT(!passes(p, cut), "%zu bytes", cut);
    detach();
}

TEST(the_longest_program_fits)
{
    uint16_t many[40];
    struct sock_filter program[WATCH_PROGRAM_MAX];
    for (uint16_t i = 0; i < 40; i++)
        many[i] = i;
    CHECK(watch_program(many, 40, many, 1, program) <= WATCH_PROGRAM_MAX);
}

TEST(the_network_is_three_requests)
{
    _Alignas(8) unsigned char bytes[NETLINK_ROUTES_SIZE];
    size_t requests, count = 0, left = netlink_build(7, true, bytes, &requests);
    CHECK(requests == 3);
    for (const struct nlmsghdr *m = (const void *)bytes; NLMSG_OK(m, left); m = NLMSG_NEXT(m, left), count++) {
        CHECK(m->nlmsg_seq == count + 1 && (m->nlmsg_flags & NLM_F_ACK));
        if (count == 0) {
            const struct ifinfomsg *up = NLMSG_DATA(m);
            CHECK(m->nlmsg_type == RTM_NEWLINK && up->ifi_index == 7 && up->ifi_flags == IFF_UP && up->ifi_change == IFF_UP);
            continue;
        }
        const struct rtmsg *route = NLMSG_DATA(m);
        CHECK(m->nlmsg_type == RTM_NEWROUTE && route->rtm_family == (count == 1 ? AF_INET : AF_INET6));
        CHECK(route->rtm_dst_len == 0 && route->rtm_table == RT_TABLE_LOCAL && route->rtm_type == RTN_LOCAL);
        const struct rtattr *oif = RTM_RTA(route);
        CHECK(oif->rta_type == RTA_OIF && oif->rta_len == RTA_LENGTH(4) && *(const int *)RTA_DATA(oif) == 7);
        CHECK(m->nlmsg_len == NLMSG_LENGTH(sizeof *route) + RTA_LENGTH(4));
    }
    CHECK(count == 3 && left == 0);
    CHECK(netlink_build(1, false, bytes, &requests) < sizeof bytes && requests == 2);
}
