/* Bytes that come from a sandbox or a balancer besides HTTP and TLS: DNS queries, watched packets, the PROXY header; and the
 * synthetic names behind them. */
#include "unit/test.h"

#include "sallyport/net/dns_query.h"
#include "sallyport/proxy/names.h"
#include "sallyport/proxy/preface.h"
#include "sallyport/proxy/shared.h"
#include "sallyport/proxy/watch.h"

#define BYTES(text) slice_of(text, sizeof text - 1)

/* ---- DNS queries ---- */

#define QUERY "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03" "api\x07" "example\x03" "com\x00\x00\x01\x00\x01"

TEST(a_query_is_read)
{
    struct dns_query q;
    CHECK(dns_query_read(BYTES(QUERY), &q) == DNS_NOERROR);
    CHECK_STR(q.name, "api.example.com");
    CHECK(q.id == 0x1234 && q.type == DNS_TYPE_A && q.recursion_desired);
}

TEST(a_query_cut_anywhere_is_a_format_error_or_dropped)
{
    struct slice whole = BYTES(QUERY);
    for (size_t n = 0; n < whole.len; n++) {
        struct dns_query q;
        int r = dns_query_read(slice_of(whole.ptr, n), &q);
        CHECK_THAT(r == -1 || r == DNS_FORMERR, "%zu bytes: %d", n, r);
    }
}

TEST(unusual_queries_are_not_interpreted)
{
    struct dns_query q;
    /* an answer; opcode 2; two questions; an answer section; compression in the question; class CH */
    CHECK(dns_query_read(BYTES("\x12\x34\x81\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01"), &q) == -1);
    CHECK(dns_query_read(BYTES("\x12\x34\x11\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01"), &q) == DNS_NOTIMP);
    CHECK(dns_query_read(BYTES("\x12\x34\x01\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01"), &q) == DNS_FORMERR);
    CHECK(dns_query_read(BYTES("\x12\x34\x01\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00\x01\x00\x01"), &q) == DNS_FORMERR);
    CHECK(dns_query_read(BYTES("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"), &q) == DNS_FORMERR);
    CHECK(dns_query_read(BYTES("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01" "a\x00\x00\x01\x00\x03"), &q) == DNS_NOTIMP);
    CHECK(dns_query_read(BYTES("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03" "a\x00" "b\x00\x00\x01\x00\x01"), &q) == DNS_FORMERR);
}

TEST(a_name_longer_than_255_bytes_is_refused)
{
    char msg[400] = "\x12\x34\x01\x00\x00\x01";
    size_t at = 12;
    struct dns_query q;
    while (at < 12 + 260) {
        msg[at] = 60;
        memset(msg + at + 1, 'a', 60);
        at += 61;
    }
    msg[at++] = 0;
    memcpy(msg + at, "\x00\x01\x00\x01", 4);
    CHECK(dns_query_read(slice_of(msg, at + 4), &q) == DNS_FORMERR);
}

TEST(an_answer_repeats_the_question)
{
    static const char query[] = QUERY;
    struct dns_query q;
    struct buf out;
    struct addr a = {.family = AF_INET, .bytes = {198, 18, 0, 7}};
    buf_init(&out, 512);
    CHECK(dns_query_read(BYTES(QUERY), &q) == DNS_NOERROR);
    CHECK(dns_reply_write(&out, &q, DNS_NOERROR, &a, 30));
    struct slice s = buf_slice(&out);
    CHECK(s.len == sizeof query - 1 + 16);
    CHECK(memcmp(out.data + out.start + 12, query + 12, sizeof query - 1 - 12) == 0);
    CHECK(memcmp(out.data + out.end - 4, a.bytes, 4) == 0);
    buf_done(&out);
}

/* ---- synthetic names ---- */

static struct host
named(const char *text)
{
    struct host h = {0};
    CHECK(host_parse(slice_str(text), &h));
    return h;
}

TEST(a_name_keeps_its_addresses)
{
    struct names *n = names_new(0);
    struct host a = named("a.example.com"), b = named("b.example.com");
    struct addr a4 = names_address(n, "s", &a, AF_INET), a6 = names_address(n, "s", &a, AF_INET6), b4 = names_address(n, "s", &b, AF_INET);
    struct addr again = names_address(n, "s", &a, AF_INET);
    CHECK(addr_equal(&a4, &again) && !addr_equal(&a4, &b4));
    CHECK(names_is_synthetic(&a4) && names_is_synthetic(&a6));
    const struct host *found = names_find(n, "s", &a6);
    CHECK(found && host_equal(found, &a));
    found = names_find(n, "s", &b4);
    CHECK(found && host_equal(found, &b));
    struct addr other = {.family = AF_INET, .bytes = {198, 18, 200, 1}}, real = {.family = AF_INET, .bytes = {93, 184, 216, 34}};
    CHECK(!names_find(n, "s", &other) && !names_find(n, "s", &real) && !names_is_synthetic(&real));
    names_free(n);
}

TEST(the_least_recently_used_name_goes_first)
{
    struct names *n = names_new(0);
    struct host first = named("first.example.com"), second = named("second.example.com");
    struct addr first4 = names_address(n, "s", &first, AF_INET), second4 = names_address(n, "s", &second, AF_INET);
    for (int i = 0; i < NAMES_MAX - 2; i++) {
        char text[64];
        snprintf(text, sizeof text, "n%d.example.com", i);
        struct host h = named(text);
        names_address(n, "s", &h, AF_INET);
    }
    CHECK(names_find(n, "s", &first4) != NULL); /* used again: now `second` is the oldest */
    struct host more = named("more.example.com");
    struct addr more4 = names_address(n, "s", &more, AF_INET);
    const struct host *at_second = names_find(n, "s", &second4);
    CHECK(addr_equal(&more4, &second4) && at_second && host_equal(at_second, &more));
    CHECK(names_find(n, "s", &first4) != NULL);
    names_free(n);
}

TEST(an_address_is_one_sandboxs_and_one_workers)
{
    struct names *n = names_new(0), *last = names_new(SHARED_WORKERS_MAX - 1);
    struct host a = named("a.example.com"), b = named("b.example.com");
    struct addr mine = names_address(n, "one", &a, AF_INET), theirs = names_address(n, "two", &b, AF_INET);
    struct addr same = names_address(n, "two", &a, AF_INET), far = names_address(last, "one", &b, AF_INET);
    CHECK(!addr_equal(&mine, &same) && !addr_equal(&mine, &theirs) && !addr_equal(&mine, &far));
    CHECK(names_find(n, "one", &mine) && !names_find(n, "two", &mine) && !names_find(n, "on", &mine));
    CHECK(!names_find(n, "one", &theirs) && host_equal(names_find(n, "two", &theirs), &b));
    /* Another worker's addresses are synthetic, but name nothing here. */
    CHECK(names_is_synthetic(&far) && !names_find(n, "one", &far) && host_equal(names_find(last, "one", &far), &b));
    CHECK(!names_find(last, "one", &mine));
    for (int i = 0; i < NAMES_MAX; i++) {
        char text[64];
        snprintf(text, sizeof text, "n%d.example.com", i);
        struct host h = named(text);
        struct addr at = names_address(last, "two", &h, AF_INET6);
        CHECK(names_is_synthetic(&at) && names_find(last, "two", &at));
    }
    CHECK(!names_find(last, "one", &far)); /* it is the other sandbox's by now */
    names_free(n);
    names_free(last);
}

/* ---- watched packets ---- */

TEST(packets_are_read_up_to_their_ports)
{
    struct attempt a;
    CHECK(watch_read(BYTES("\x45\x00\x00\x28\x00\x00\x40\x00\x40\x06\x00\x00\x0a\x00\x00\x01\x08\x08\x08\x08\x12\x34\x1f\x90"), &a));
    CHECK_STR(a.protocol, "tcp");
    CHECK(a.port == 8080 && a.to.bytes[0] == 8);
    /* a later fragment has no ports; a header longer than the packet is none; options are passed over */
    CHECK(watch_read(BYTES("\x45\x00\x00\x28\x00\x00\x00\x10\x40\x11\x00\x00\x0a\x00\x00\x01\x08\x08\x08\x08\x12\x34\x00\x35"), &a) && a.port == 0);
    CHECK(!watch_read(BYTES("\x4f\x00\x00\x28\x00\x00\x40\x00\x40\x06\x00\x00\x0a\x00\x00\x01\x08\x08\x08\x08"), &a));
    CHECK(!watch_read(BYTES("\x44\x00\x00\x28\x00\x00\x40\x00\x40\x06\x00\x00\x0a\x00\x00\x01\x08\x08\x08\x08"), &a));
    CHECK(!watch_read(BYTES("\x25"), &a) && !watch_read(slice_of("", 0), &a));
}

TEST(ipv6_extension_headers_are_walked_and_bounded)
{
    char p[40 + 8 * 12 + 4] = {0x60};
    struct attempt a;
    p[6] = 0; /* hop by hop, and so on for ever */
    CHECK(watch_read(slice_of(p, sizeof p), &a));
    CHECK_STR(a.protocol, "ip");
    p[40] = 17; /* behind the first one: UDP to port 53 */
    p[40 + 8 + 3] = 53;
    CHECK(watch_read(slice_of(p, sizeof p), &a) && a.port == 53);
    CHECK_STR(a.protocol, "udp");
    CHECK(!watch_read(slice_of(p, 39), &a));
}

/* ---- the PROXY header ---- */

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"

TEST(the_proxy_header_names_the_client)
{
    struct addr client = {0};
    uint16_t port = 0;
    size_t used = 0;
    struct slice whole = BYTES(SIGNATURE "\x21\x11\x00\x0c\x0a\x00\x00\x07\x7f\x00\x00\x01\xc8\x00\x0c\x38" "GET");
    CHECK(preface_read(whole, &client, &port, &used) == PREFACE_COMPLETE);
    CHECK(used == 28 && port == 0xc800 && client.family == AF_INET && client.bytes[3] == 7);
    for (size_t n = 0; n < 28; n++)
        CHECK_THAT(preface_read(slice_of(whole.ptr, n), &client, &port, &used) == PREFACE_MORE, "%zu bytes", n);
}

TEST(other_proxy_headers_are_refused)
{
    struct addr client = {0};
    uint16_t port = 0;
    size_t used = 0;
    CHECK(preface_read(BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), &client, &port, &used) == PREFACE_MALFORMED);
    CHECK(preface_read(BYTES(SIGNATURE "\x31\x11\x00\x0c"), &client, &port, &used) == PREFACE_MALFORMED);
    CHECK(preface_read(BYTES(SIGNATURE "\x22\x11\x00\x0c"), &client, &port, &used) == PREFACE_MALFORMED);
    CHECK(preface_read(BYTES(SIGNATURE "\x21\x11\xff\xff"), &client, &port, &used) == PREFACE_MALFORMED);
    CHECK(preface_read(BYTES(SIGNATURE "\x21\x11\x00\x04" "abcd"), &client, &port, &used) == PREFACE_MALFORMED);
    /* LOCAL leaves the connection's own address */
    CHECK(preface_read(BYTES(SIGNATURE "\x20\x00\x00\x00"), &client, &port, &used) == PREFACE_COMPLETE && client.family == 0);
}
