/* The fence's text: what is in it, that it closes what the address guard closes, and that nothing but plain words can get in. */
#include "unit/test.h"

#include <arpa/inet.h>

#include "sallyport/base/special_ranges.h"
#include "sallyport/policy/guard.h"
#include "sallyport/sandbox/fence_rules.h"

#define TEXT_MAX FENCE_TEXT_MAX
#define RANGES_MAX 128

static char text[TEXT_MAX + 1];

static const char *
rules(const struct fence_plan *plan)
{
    struct buf b;
    buf_init(&b, TEXT_MAX);
    CHECK(fence_rules_install(plan, &b));
    memcpy(text, buf_slice(&b).ptr, buf_len(&b));
    text[buf_len(&b)] = '\0';
    buf_done(&b);
    return text;
}

static size_t
count(const char *haystack, const char *needle)
{
    size_t n = 0;
    for (const char *p = haystack; (p = strstr(p, needle)); p += strlen(needle))
        n++;
    return n;
}

static struct fence_plan
guarded_plan(void)
{
    struct fence_plan plan = {.proxies = {65532}, .proxy_count = 1, .guarded = true, .guard_uid = 65533};
    return plan;
}

TEST(one_proxy_leaves_and_the_rest_is_refused)
{
    struct fence_plan plan = {.proxies = {65532}, .proxy_count = 1};
    const char *t = rules(&plan);
    CHECK(strstr(t, "set proxies { typeof meta skuid; elements = { 65532 } }"));
    CHECK(strstr(t, "hook output priority filter; policy drop;"));
    CHECK(strstr(t, "reject with tcp reset"));
    CHECK(strstr(t, "reject with icmpx admin-prohibited"));
    CHECK(strstr(t, "hook forward priority filter; policy drop;"));
    CHECK(strstr(t, "th dport { 53, 853 }"));
    CHECK(!strstr(t, "table netdev"));
    CHECK(!strstr(t, "forbidden4"));
    CHECK(!strstr(t, "chain guard"));
}

TEST(an_install_replaces_in_one_transaction)
{
    struct fence_plan plan = {.proxies = {1}, .proxy_count = 1, .devices = {"eth0", "eth1.7"}, .device_count = 2};
    const char *t = rules(&plan);
    CHECK(strncmp(t, "add table inet sallyport\ndelete table inet sallyport\n", 53) == 0);
    CHECK(count(t, "delete table netdev sallyport\n") == 1);
    CHECK(count(t, "hook egress device \"eth0\"") == 1);
    CHECK(count(t, "hook egress device \"eth1.7\"") == 1);
    CHECK(count(t, "{") == count(t, "}"));
}

TEST(openings_are_only_what_was_asked)
{
    struct fence_plan plan = {.proxies = {1}, .proxy_count = 1, .loopback_names = true, .forward = true};
    const char *t = rules(&plan);
    CHECK(!strstr(t, "853"));
    CHECK(!strstr(t, "chain forward"));
    plan = guarded_plan();
    CHECK(cidr_parse(slice_str("10.9.0.0/24"), &plan.open[0]));
    CHECK(addr_parse(slice_str("fd00::53"), &plan.resolvers[0]));
    plan.open_count = plan.resolver_count = 1;
    t = rules(&plan);
    CHECK(strstr(t, "ip daddr 10.9.0.0/24 return"));
    CHECK(strstr(t, "ip6 daddr fd00::53 meta l4proto { 6, 17 } th dport 53 return"));
    CHECK(count(t, " return\n") == 3); /* and the replies to clients */
    CHECK(strstr(t, "elements = { 65532, 65533 }"));
}

TEST(a_user_is_named_once)
{
    struct fence_plan plan = {.proxies = {7}, .proxy_count = 1, .guarded = true, .guard_uid = 7};
    CHECK(strstr(rules(&plan), "set proxies { typeof meta skuid; elements = { 7 } }"));
    plan = (struct fence_plan){.guarded = true, .guard_uid = 0};
    CHECK(strstr(rules(&plan), "set proxies { typeof meta skuid; elements = { 0 } }"));
    plan = (struct fence_plan){.proxies = {1}, .proxy_count = 1};
    CHECK(strstr(rules(&plan), "set proxies { typeof meta skuid; elements = { 1 } }"));
}

TEST(counters_go_on_where_they_were)
{
    struct fence_plan plan = {.proxies = {1}, .proxy_count = 1};
    plan.counts[FENCE_UDP] = (struct fence_count){.packets = 7, .bytes = UINT64_C(18446744073709551615)};
    CHECK(strstr(rules(&plan), "counter refused_udp { packets 7 bytes 18446744073709551615 }"));
}

TEST(the_largest_plan_fits_and_a_small_buffer_says_so)
{
    struct fence_plan plan = guarded_plan();
    for (plan.proxy_count = 0; plan.proxy_count < FENCE_UIDS_MAX; plan.proxy_count++)
        plan.proxies[plan.proxy_count] = 4294967294u - (uint32_t)plan.proxy_count;
    for (; plan.open_count < FENCE_OPEN_MAX; plan.open_count++)
        CHECK(cidr_parse(slice_str("fd12:3456:789a:bcde:f012:3456:789a:bcde/128"), &plan.open[plan.open_count]));
    for (; plan.resolver_count < FENCE_RESOLVERS_MAX; plan.resolver_count++)
        CHECK(addr_parse(slice_str("fd12:3456:789a:bcde:f012:3456:789a:bcde"), &plan.resolvers[plan.resolver_count]));
    for (; plan.device_count < FENCE_DEVICES_MAX; plan.device_count++)
        snprintf(plan.devices[plan.device_count], IF_NAMESIZE, "device-%08zu", plan.device_count);
    for (size_t i = 0; i < FENCE_COUNTERS; i++)
        plan.counts[i] = (struct fence_count){UINT64_MAX, UINT64_MAX};
    CHECK(strlen(rules(&plan)) < TEXT_MAX / 2);

    struct buf b;
    buf_init(&b, 512);
    CHECK(!fence_rules_install(&plan, &b));
    buf_done(&b);
}

TEST(only_plain_device_names)
{
    static const char *const good[] = {"eth0", "eth0.100", "veth_a-b", "a", "fifteen-letters"};
    static const char *const bad[] = {"", "a\"b", "a b", "a;b", "a{", "a\n", "a@b", "a:1", "a/b", "sixteen--letters", "\xc3\xa9"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        CHECK_THAT(fence_device_is_plain(good[i]), "%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_THAT(!fence_device_is_plain(bad[i]), "%s", bad[i]);
}

/* ---- the fence and the guard close the same ---- */

static struct cidr ranges[RANGES_MAX];
static size_t range_count;

/* The elements of both sets, read back out of the text. */
static void
read_ranges(const char *t)
{
    range_count = 0;
    for (const char *p = t; (p = strstr(p, "auto-merge; elements = { ")); ) {
        p += strlen("auto-merge; elements = { ");
        for (;;) {
            size_t len = strcspn(p, ", ");
            CHECK(range_count < RANGES_MAX && cidr_parse(slice_of(p, len), &ranges[range_count]));
            range_count++;
            if (p[len] != ',')
                break;
            p += len + 2;
        }
    }
}

static bool
fenced(const struct addr *a)
{
    if (a->family == AF_INET6 && a->bytes[0] >> 5 != 1)
        return true; /* ip6 daddr != 2000::/3 */
    for (size_t i = 0; i < range_count; i++)
        if (cidr_contains(&ranges[i], a))
            return true;
    return false;
}

/* Adds -1 or 1 to an address; wraps at the ends. */
static struct addr
step(struct addr a, int by)
{
    for (size_t i = a.family == AF_INET ? 4 : 16; i-- > 0;) {
        unsigned was = a.bytes[i];
        a.bytes[i] = (uint8_t)(was + (unsigned)by);
        if (by > 0 ? was != 0xff : was != 0)
            break;
    }
    return a;
}

static struct addr
last_of(const struct cidr *c)
{
    struct addr a = c->base;
    for (size_t bit = c->bits; bit < (a.family == AF_INET ? 32u : 128u); bit++)
        a.bytes[bit / 8] |= (uint8_t)(0x80 >> (bit % 8));
    return a;
}

static void
same(const struct addr *a)
{
    char shown[ADDR_TEXT_SIZE];
    addr_format(a, shown);
    CHECK_THAT(fenced(a) == !guard_address_is_public(a), "%s: fence %s, guard %s", shown, fenced(a) ? "closed" : "open",
               guard_address_is_public(a) ? "open" : "closed");
}

static void
edges_of(const struct cidr *c)
{
    struct addr first = c->base, last = last_of(c), before = step(first, -1), behind = step(last, 1);
    same(&first);
    same(&last);
    same(&before);
    same(&behind);
}

TEST(the_fence_closes_what_the_guard_closes)
{
    static const uint32_t rows4[][2] = {
#define ROW(base, bits, name) {base, bits},
        SPECIAL_RANGES_V4(ROW)
#undef ROW
    };
    static const uint64_t rows6[][3] = {
#define ROW(high, low, bits, name) {high, low, bits},
        SPECIAL_RANGES_V6(ROW)
#undef ROW
    };
    struct fence_plan plan = guarded_plan();
    read_ranges(rules(&plan));
    CHECK(range_count > 30);
    for (size_t i = 0; i < sizeof rows4 / sizeof rows4[0]; i++) {
        struct cidr c = {.base.family = AF_INET, .bits = (uint8_t)rows4[i][1]};
        for (size_t k = 0; k < 4; k++)
            c.base.bytes[k] = (uint8_t)(rows4[i][0] >> (24 - 8 * k));
        edges_of(&c);
    }
    for (size_t i = 0; i < sizeof rows6 / sizeof rows6[0]; i++) {
        struct cidr c = {.base.family = AF_INET6, .bits = (uint8_t)rows6[i][2]};
        for (size_t k = 0; k < 16; k++)
            c.base.bytes[k] = (uint8_t)(rows6[i][k / 8] >> (56 - 8 * (k % 8)));
        edges_of(&c);
    }
}

TEST(services_and_ordinary_addresses_agree_too)
{
    static const char *const addresses[] = {
#define SERVICE(address, name) address,
        SPECIAL_SERVICES(SERVICE)
#undef SERVICE
        "1.1.1.1", "8.8.8.8", "168.63.129.15", "168.63.129.17", "172.32.0.1", "223.255.255.255", "2606:4700::1111",
        "2001:4860:4860::8888", "2a00::1", "3fff:1000::1", "4000::1", "1fff::1", "::1", "fe80::1",
    };
    struct fence_plan plan = guarded_plan();
    read_ranges(rules(&plan));
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        struct addr a;
        CHECK(addr_parse(slice_str(addresses[i]), &a));
        same(&a);
    }
}
