/* Addresses: only what inet_pton reads, prefixes without host bits, socket addresses with ports. */
#include "unit/test.h"

#include <arpa/inet.h>

#include "sallyport/base/addr.h"

TEST(parse_refuses_other_forms)
{
    static const char *const bad[] = {
        "",
        "1",
        "1.2.3",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "127.1",
        "2130706433",
        "1.2.3.4 ",
        " 1.2.3.4",
        "1.2.3.256",
        "1.2.3.4.5",
        "01.2.3.4",
        "1.2.3.4/8",
        "[::1]",
        "fe80::1%lo",
        "::1%1",
        ":::",
        "1::2::3",
        "::g",
        "12345::",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "::1.2.3",
        "1.2.3.4:80",
        "localhost",
        "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc"};
    struct addr a = {.family = 77};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_THAT(!addr_parse(slice_str(bad[i]), &a) && a.family == 77, "%s", bad[i]);
    CHECK(!addr_parse(slice_of("1.2.3.4\0", 8), &a));
    CHECK(!addr_parse(slice_of("::1\0x", 5), &a));
    CHECK(!addr_parse_v4(slice_str("::1"), &a));
    CHECK(!addr_parse_v6(slice_str("1.2.3.4"), &a));
}

TEST(parse_and_format)
{
    static const char *const same[] = {
        "1.2.3.4", "0.0.0.0", "255.255.255.255", "::", "::1", "2001:db8::1", "::ffff:1.2.3.4"};
    char text[ADDR_TEXT_SIZE];
    struct addr a;
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        CHECK(addr_parse(slice_str(same[i]), &a));
        addr_format(&a, text);
        CHECK_STR(text, same[i]);
    }
    CHECK(addr_parse(slice_str("2001:DB8:0:0::0:1"), &a));
    addr_format(&a, text);
    CHECK_STR(text, "2001:db8::1");
    addr_format(&(struct addr){0}, text);
    CHECK_STR(text, "none");
}

TEST(sockaddrs)
{
    struct sockaddr_storage ss;
    struct addr a, back;
    uint16_t port;
    char text[SOCKADDR_TEXT_SIZE];
    CHECK(addr_parse(slice_str("2001:db8::7"), &a));
    CHECK(addr_to_sockaddr(&a, 443, &ss) == sizeof(struct sockaddr_in6));
    CHECK(addr_from_sockaddr((struct sockaddr *)&ss, &back, &port) && addr_equal(&a, &back) &&
          port == 443);
    sockaddr_format((struct sockaddr *)&ss, text);
    CHECK_STR(text, "[2001:db8::7]:443");
    CHECK(addr_parse(slice_str("::ffff:10.0.0.7"), &a));
    CHECK(addr_to_sockaddr(&a, 51234, &ss) == sizeof(struct sockaddr_in6));
    sockaddr_format((struct sockaddr *)&ss, text);
    CHECK_STR(text, "10.0.0.7:51234");
    CHECK(addr_from_sockaddr((struct sockaddr *)&ss, &back, &port) && back.family == AF_INET);
    ss = (struct sockaddr_storage){.ss_family = AF_UNIX};
    CHECK(!addr_from_sockaddr((struct sockaddr *)&ss, &back, &port));
    sockaddr_format((struct sockaddr *)&ss, text);
    CHECK_STR(text, "unix");
    CHECK(addr_to_sockaddr(&(struct addr){0}, 1, &ss) == 0);
}

TEST(sockaddr_texts)
{
    static const char *const bad[] = {
        "",     "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:080", "127.0.0.1:-1",   "::1:80",
        "[::1", "[::1]80",    "[::1]:",          "::1",           "[127.0.0.1]:80", "localhost:80",
        ":80",  "[]:80",      "127.0.0.1:80:80", "127.0.0.1:8 ",  "[::1]:80x",      "["};
    struct sockaddr_storage ss;
    socklen_t len;
    char text[SOCKADDR_TEXT_SIZE];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_THAT(!sockaddr_parse(slice_str(bad[i]), 53, &ss, &len), "%s", bad[i]);
    CHECK(!sockaddr_parse(slice_str("127.0.0.1"), 0, &ss, &len));
    CHECK(sockaddr_parse(slice_str("127.0.0.1"), 53, &ss, &len));
    sockaddr_format((struct sockaddr *)&ss, text);
    CHECK_STR(text, "127.0.0.1:53");
    CHECK(sockaddr_parse(slice_str("[::]:3128"), 0, &ss, &len) &&
          len == sizeof(struct sockaddr_in6));
    sockaddr_format((struct sockaddr *)&ss, text);
    CHECK_STR(text, "[::]:3128");
    CHECK(sockaddr_parse(slice_str("[::1]"), 53, &ss, &len));
    CHECK(sockaddr_parse(slice_str("0.0.0.0:0"), 0, &ss, &len) &&
          len == sizeof(struct sockaddr_in));
}

static struct cidr
prefix(const char *text)
{
    struct cidr c = {0};
    CHECK_THAT(cidr_parse(slice_str(text), &c), "%s", text);
    return c;
}

static bool
holds(const char *range, const char *address)
{
    struct cidr c = prefix(range);
    struct addr a;
    CHECK(addr_parse(slice_str(address), &a));
    return cidr_contains(&c, &a);
}

TEST(prefixes)
{
    static const char *const bad[] = {"10.0.0.1/8",  "10.0.0.0/33",  "10.0.0.0/",  "10.0.0.0/08",
                                      "10.0.0.0/-1", "10.0.0.0/8/8", "::1/127",    "::/129",
                                      "/8",          "10/8",         "10.0.0.0/ 8"};
    struct cidr c;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_THAT(!cidr_parse(slice_str(bad[i]), &c), "%s", bad[i]);
    CHECK(prefix("10.0.0.1").bits == 32 && prefix("::1").bits == 128);
    CHECK(holds("10.0.0.0/8", "10.255.255.255") && !holds("10.0.0.0/8", "11.0.0.0"));
    CHECK(holds("172.16.0.0/12", "172.31.255.255") && !holds("172.16.0.0/12", "172.32.0.0"));
    CHECK(holds("0.0.0.0/0", "1.2.3.4") && !holds("0.0.0.0/0", "::1") && !holds("::/0", "1.2.3.4"));
    CHECK(holds("2000::/3", "3fff::1") && !holds("2000::/3", "4000::"));
    CHECK(holds("192.0.2.1", "192.0.2.1") && !holds("192.0.2.1", "192.0.2.0"));
    CHECK(holds("fe80::/10", "febf::1") && !holds("fe80::/10", "fec0::1"));
}

TEST(covering)
{
    struct cidr wide = prefix("10.0.0.0/8"), narrow = prefix("10.2.0.0/16"),
                other = prefix("11.0.0.0/16"), none = {0};
    CHECK(cidr_covers(&wide, &narrow) && cidr_covers(&wide, &wide));
    CHECK(!cidr_covers(&narrow, &wide) && !cidr_covers(&wide, &other));
    struct cidr all6 = prefix("::/0");
    CHECK(!cidr_covers(&all6, &narrow));
    CHECK(!cidr_covers(&none, &none));
}
