/* The text of the fence: two nftables tables, replaced as one transaction. Its users are judged by
 * the owner of the sending socket, which nobody can forge without a capability. What has no user (a
 * connection's last packets after its close, the kernel's own answers) leaves only for a flow that
 * was let out before.
 *
 * Pure text; numbers, addresses and device names come from a plan that was checked before, never
 * from a packet. */
#include "sallyport/sandbox/fence_rules.h"

#include <arpa/inet.h>
#include <string.h>

#include "sallyport/base/special_ranges.h"

/* No socket has this owner: it is what the kernel says for "none". `skuid != NOBODY` is "a user's
 * socket, whosesoever". */
#define NOBODY "4294967295"
/* Ethernet, IPv6 and a TCP header with all the options it can have: a SYN-ACK without data is no
 * longer. */
#define SYN_ACK_FRAME_MAX "114"

/* The library looks names of protocols up in /etc/protocols, which small images do not have. */
#define ICMP "1"
#define TCP "6"
#define UDP "17"
#define ICMP6 "58"

static const char *const names[FENCE_COUNTERS] = {
    [FENCE_TCP] = "tcp",         [FENCE_UDP] = "udp",       [FENCE_ICMP] = "icmp",
    [FENCE_OTHER] = "other",     [FENCE_NAMES] = "names",   [FENCE_GUARD] = "guard",
    [FENCE_FORWARD] = "forward", [FENCE_FRAMES] = "frames",
};

const char *
fence_counter_name(enum fence_counter c)
{
    return names[c];
}

bool
fence_device_is_plain(const char *name)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t len = strlen(name);
    return len > 0 && len < IF_NAMESIZE && strspn(name, plain) == len;
}

/* ---- sets ---- */

/* "add table" before "delete table" makes the deletion hold whether the table was there or not. */
static void
drop_table(struct buf *out, const char *family)
{
    buf_printf(out, "add table %s " FENCE_TABLE "\ndelete table %s " FENCE_TABLE "\n", family,
               family);
}

static void
counter(struct buf *out, const struct fence_plan *plan, enum fence_counter c)
{
    buf_printf(out, "  counter refused_%s { packets %llu bytes %llu }\n", names[c],
               (unsigned long long)plan->counts[c].packets,
               (unsigned long long)plan->counts[c].bytes);
}

static void
uids(struct buf *out, const struct fence_plan *plan)
{
    bool guard_named = !plan->guarded;
    buf_append_str(out, "{ ");
    for (size_t i = 0; i < plan->proxy_count; i++) {
        buf_printf(out, "%s%u", i ? ", " : "", plan->proxies[i]);
        guard_named |= plan->proxies[i] == plan->guard_uid;
    }
    if (!guard_named)
        buf_printf(out, "%s%u", plan->proxy_count ? ", " : "", plan->guard_uid);
    buf_append_str(out, " }");
}

static void
element(struct buf *out, const struct addr *a, unsigned bits, bool *any)
{
    char text[ADDR_TEXT_SIZE];
    addr_format(a, text);
    buf_printf(out, "%s%s/%u", *any ? ", " : "", text, bits);
    *any = true;
}

static struct addr
address4(uint32_t base)
{
    struct addr a = {.family = AF_INET};
    base = htonl(base);
    memcpy(a.bytes, &base, sizeof base);
    return a;
}

static struct addr
address6(uint64_t high, uint64_t low)
{
    struct addr a = {.family = AF_INET6};
    for (size_t i = 0; i < 8; i++) {
        a.bytes[i] = (uint8_t)(high >> (56 - 8 * i));
        a.bytes[8 + i] = (uint8_t)(low >> (56 - 8 * i));
    }
    return a;
}

/* Services of clouds whose address stands in no special range. */
static void
services(struct buf *out, uint8_t family, bool *any)
{
#define SERVICE(text, name) text,
    static const char *const texts[] = {SPECIAL_SERVICES(SERVICE)};
#undef SERVICE
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct addr a;
        if (addr_parse(slice_str(texts[i]), &a) && a.family == family)
            element(out, &a, family == AF_INET ? 32 : 128, any);
    }
}

static void
forbidden4(struct buf *out)
{
#define ROW(base, bits, name) {base, bits},
    static const struct {
        uint32_t base;
        uint8_t bits;
    } rows[] = {SPECIAL_RANGES_V4(ROW)};
#undef ROW
    bool any = false;
    buf_append_str(out,
                   "  set forbidden4 { type ipv4_addr; flags interval; auto-merge; elements = { ");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct addr a = address4(rows[i].base);
        element(out, &a, rows[i].bits, &any);
    }
    services(out, AF_INET, &any);
    buf_append_str(out, " } }\n");
}

/* Rows outside 2000::/3 are covered by the rule that closes all of that. */
static void
forbidden6(struct buf *out)
{
#define ROW(high, low, bits, name) {high, low, bits},
    static const struct {
        uint64_t high, low;
        uint8_t bits;
    } rows[] = {SPECIAL_RANGES_V6(ROW)};
#undef ROW
    bool any = false;
    buf_append_str(out,
                   "  set forbidden6 { type ipv6_addr; flags interval; auto-merge; elements = { ");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct addr a = address6(rows[i].high, rows[i].low);
        if (rows[i].high >> 61 == 1)
            element(out, &a, rows[i].bits, &any);
    }
    buf_append_str(out, " } }\n");
}

/* ---- chains ---- */

static void
answers(struct buf *out)
{
    buf_append_str(out, "  chain answer {\n"
                        "    meta l4proto " TCP " reject with tcp reset\n"
                        "    reject with icmpx admin-prohibited\n"
                        "  }\n"
                        "  chain refuse {\n"
                        "    meta l4proto " TCP " counter name refused_tcp goto answer\n"
                        "    meta l4proto " UDP " counter name refused_udp goto answer\n"
                        "    meta l4proto { " ICMP ", " ICMP6
                        " } counter name refused_icmp goto answer\n"
                        "    counter name refused_other goto answer\n"
                        "  }\n");
}

/* The workers' own chain. What answers a client is a reply, wherever the client is; only what they
 * open is judged. */
static void
guard_chain(struct buf *out, const struct fence_plan *plan)
{
    char text[ADDR_TEXT_SIZE];
    buf_append_str(out, "  chain guard {\n    ct direction reply return\n");
    for (size_t i = 0; i < plan->resolver_count; i++) {
        addr_format(&plan->resolvers[i], text);
        buf_printf(out, "    %s daddr %s meta l4proto { " TCP ", " UDP " } th dport 53 return\n",
                   plan->resolvers[i].family == AF_INET ? "ip" : "ip6", text);
    }
    for (size_t i = 0; i < plan->open_count; i++) {
        addr_format(&plan->open[i].base, text);
        buf_printf(out, "    %s daddr %s/%u return\n",
                   plan->open[i].base.family == AF_INET ? "ip" : "ip6", text, plan->open[i].bits);
    }
    buf_append_str(out, "    ip daddr @forbidden4 counter name refused_guard goto answer\n"
                        "    ip6 daddr @forbidden6 counter name refused_guard goto answer\n"
                        "    ip6 daddr != 2000::/3 counter name refused_guard goto answer\n"
                        "  }\n");
}

/* Before any address translation, where a resolver on loopback still has its port (a container
 * engine moves its own by translation), and after connection tracking, which says who began. */
static void
asked_chain(struct buf *out, const struct fence_plan *plan)
{
    if (plan->guarded)
        guard_chain(out, plan);
    buf_append_str(
        out, "  chain asked {\n    type filter hook output priority mangle; policy accept;\n");
    if (plan->guarded)
        buf_printf(out, "    meta skuid %u jump guard\n", plan->guard_uid);
    if (!plan->loopback_names)
        buf_append_str(out, "    oif \"lo\" meta skuid != @proxies meta l4proto { " TCP ", " UDP
                            " } th dport { 53, 853 } "
                            "counter name refused_names goto answer\n");
    buf_append_str(out, "  }\n");
}

/* After translation: what is judged is where the packet really goes.
 *  - a SYN-ACK comes from the listener, which root may have opened for workers of another user; it
 * carries no data;
 *  - neighbour discovery is the kernel's, and without it IPv6 has no next hop. */
static void
output_chain(struct buf *out)
{
    buf_append_str(out, "  chain output {\n"
                        "    type filter hook output priority filter; policy drop;\n"
                        "    oif \"lo\" accept\n"
                        "    meta skuid @proxies accept\n"
                        "    meta skuid 0 ct direction reply tcp flags & (fin | syn | rst | ack) "
                        "== syn | ack accept\n"
                        "    meta skuid != " NOBODY " goto refuse\n"
                        "    ct state established,related accept\n"
                        "    icmpv6 type { nd-router-solicit, nd-neighbor-solicit, "
                        "nd-neighbor-advert } ip6 hoplimit 255 accept\n"
                        "    goto refuse\n"
                        "  }\n");
}

static void
inet_table(struct buf *out, const struct fence_plan *plan)
{
    buf_append_str(out, "table inet " FENCE_TABLE " {\n");
    for (enum fence_counter c = 0; c < FENCE_FRAMES; c++)
        counter(out, plan, c);
    buf_append_str(out, "  set proxies { typeof meta skuid; elements = ");
    uids(out, plan);
    buf_append_str(out, " }\n");
    if (plan->guarded) {
        buf_printf(out, "  set guarded { typeof meta skuid; elements = { %u } }\n",
                   plan->guard_uid);
        forbidden4(out);
        forbidden6(out);
    }
    answers(out);
    asked_chain(out, plan);
    output_chain(out);
    if (!plan->forward)
        buf_append_str(out, "  chain forward {\n"
                            "    type filter hook forward priority filter; policy drop;\n"
                            "    counter name refused_forward goto answer\n"
                            "  }\n");
    buf_append_str(out, "}\n");
}

/* A frame of an AF_PACKET socket passes no output hook. Nothing can be answered here; it is
 * dropped. What the kernel sends by itself (ARP, the end of a closed connection) has no user and
 * passes. A base chain a device, which its name holds: some versions leave the device of an egress
 * chain out of their listings. */
static void
netdev_table(struct buf *out, const struct fence_plan *plan)
{
    buf_append_str(out, "table netdev " FENCE_TABLE " {\n");
    counter(out, plan, FENCE_FRAMES);
    buf_append_str(out, "  chain frames {\n    meta skuid ");
    uids(out, plan);
    buf_append_str(out, " accept\n"
                        "    meta skuid 0 meta length <= " SYN_ACK_FRAME_MAX
                        " tcp flags & (fin | syn | rst | ack) == syn | ack accept\n"
                        "    meta skuid != " NOBODY " counter name refused_frames drop\n"
                        "  }\n");
    for (size_t i = 0; i < plan->device_count; i++)
        buf_printf(
            out,
            "  chain " FENCE_EGRESS
            "%s {\n    type filter hook egress device \"%s\" priority filter; policy accept;\n"
            "    goto frames\n  }\n",
            plan->devices[i], plan->devices[i]);
    buf_append_str(out, "}\n");
}

bool
fence_rules_install(const struct fence_plan *plan, struct buf *out)
{
    drop_table(out, "inet");
    if (plan->device_count > 0)
        drop_table(out, "netdev");
    inet_table(out, plan);
    if (plan->device_count > 0)
        netdev_table(out, plan);
    return !out->overflow;
}

bool
fence_rules_remove(bool inet, bool netdev, struct buf *out)
{
    if (inet)
        drop_table(out, "inet");
    if (netdev)
        drop_table(out, "netdev");
    return !out->overflow;
}
