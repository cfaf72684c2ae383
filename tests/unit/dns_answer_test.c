/* The reader of DNS answers: chains, caches' times, and messages that lie. */
#include "sallyport/base/mem.h"
#include "sallyport/net/resolve.h"
#include "unit/dnsmsg.h"
#include "unit/test.h"

#define NAME "www.example.test"
#define OK_FLAGS 0x8180

static struct dnsmsg m;
static struct dns_answer got;

/* From memory of exactly that size. */
static bool
parse_as(const char *name, int type)
{
    unsigned char *copy = mem_alloc(m.len ? m.len : 1);
    memcpy(copy, m.data, m.len);
    bool ok = dns_answer_parse(copy, m.len, name, type, &got);
    free(copy);
    return ok;
}

static bool
parse(void)
{
    return parse_as(NAME, 1);
}

static void
begin(void)
{
    dns_begin(&m, 7, OK_FLAGS, NAME, 1);
}

TEST(addresses_are_read)
{
    begin();
    dns_a(&m, NULL, 300, 0xc0000201);
    dns_a(&m, NAME, 200, 0xc0000202);
    dns_counts(&m, 2, 0, 0);
    CHECK(parse() && got.answers.count == 2 && got.ttl_s == 200 && !got.negative);
    CHECK(got.answers.addrs[1].family == AF_INET && got.answers.addrs[1].bytes[3] == 2);
    dns_begin(&m, 7, OK_FLAGS, NAME, 28);
    dns_aaaa(&m, NULL, 300, 9);
    dns_counts(&m, 1, 0, 0);
    CHECK(parse_as(NAME, 28) && got.answers.count == 1 && got.answers.addrs[0].family == AF_INET6);
    CHECK(got.answers.addrs[0].bytes[15] == 9);
}

TEST(names_compare_without_case)
{
    dns_begin(&m, 7, OK_FLAGS, "WWW.Example.TEST", 1);
    dns_a(&m, "wWw.eXample.tesT", 300, 1);
    dns_counts(&m, 1, 0, 0);
    CHECK(parse() && got.answers.count == 1);
}

TEST(chains_are_followed_in_any_order)
{
    begin();
    dns_a(&m, "c.example.net", 300, 0xc0000203);
    dns_cname(&m, "b.example.net", 50, "C.example.NET");
    dns_cname(&m, NULL, 100, "b.example.net");
    dns_counts(&m, 3, 0, 0);
    CHECK(parse() && got.answers.count == 1 && got.ttl_s == 50);
}

static void
make_chain(int links)
{
    char from[32], to[32];
    begin();
    for (int i = 0; i < links; i++) {
        snprintf(from, sizeof from, "n%d.example.net", i);
        snprintf(to, sizeof to, "n%d.example.net", i + 1);
        dns_cname(&m, i == 0 ? NULL : from, 300, to);
    }
    dns_a(&m, to, 300, 1);
    dns_counts(&m, (unsigned)links + 1, 0, 0);
}

TEST(chains_have_an_end)
{
    make_chain(16);
    CHECK(parse() && got.answers.count == 1);
    make_chain(17);
    CHECK(!parse());
    begin();
    dns_cname(&m, NULL, 300, "b.example.net");
    dns_cname(&m, "b.example.net", 300, NAME);
    dns_counts(&m, 2, 0, 0);
    CHECK(!parse());
    begin();
    dns_cname(&m, NULL, 300, NAME);
    dns_counts(&m, 1, 0, 0);
    CHECK(!parse());
}

TEST(ambiguous_answers_are_none)
{
    begin(); /* two targets */
    dns_cname(&m, NULL, 300, "b.example.net");
    dns_cname(&m, NULL, 300, "c.example.net");
    dns_a(&m, "b.example.net", 300, 1);
    dns_counts(&m, 3, 0, 0);
    CHECK(!parse());
    begin(); /* the same twice says one thing */
    dns_cname(&m, NULL, 300, "b.example.net");
    dns_cname(&m, NULL, 300, "B.example.net");
    dns_a(&m, "b.example.net", 300, 1);
    dns_counts(&m, 3, 0, 0);
    CHECK(parse());
    begin(); /* here and elsewhere */
    dns_cname(&m, NULL, 300, "b.example.net");
    dns_a(&m, NULL, 300, 1);
    dns_counts(&m, 2, 0, 0);
    CHECK(!parse());
    dns_begin(&m, 7, 0x8183, NAME, 1); /* no such name, and its address */
    dns_a(&m, NULL, 300, 1);
    dns_counts(&m, 1, 0, 0);
    CHECK(!parse());
}

TEST(what_is_said_of_others_is_ignored)
{
    begin();
    dns_a(&m, "other.example.test", 1, 0x7f000001);
    dns_a(&m, "www.example.test.evil.example", 1, 0x7f000001);
    dns_a(&m, "xwww.example.test", 1, 0x7f000001);
    dns_a(&m, NULL, 300, 0xc0000201);
    dns_aaaa(&m, NULL, 1, 1); /* not asked for */
    dns_record(&m, NULL, 1, 1, 4);
    m.data[m.len - 7] = 3; /* class CHAOS */
    dns_u32(&m, 0x7f000001);
    dns_counts(&m, 6, 0, 0);
    CHECK(parse() && got.answers.count == 1 && got.ttl_s == 300 && got.answers.addrs[0].bytes[0] == 0xc0);
    begin(); /* in the wrong section */
    dns_a(&m, NULL, 300, 0x7f000001);
    dns_counts(&m, 0, 1, 0);
    CHECK(parse() && got.negative && got.answers.count == 0);
}

TEST(a_dot_inside_a_label_is_no_border)
{
    begin();
    m.len = 12; /* the question "www.example" "test": two labels, one with a dot */
    dns_u8(&m, 11);
    memcpy(m.data + m.len, "www.example", 11);
    m.len += 11;
    dns_u8(&m, 4);
    memcpy(m.data + m.len, "test", 4);
    m.len += 4;
    dns_u8(&m, 0);
    dns_u16(&m, 1);
    dns_u16(&m, 1);
    dns_a(&m, NULL, 300, 1);
    dns_counts(&m, 1, 0, 0);
    CHECK(!parse());
}

TEST(times_are_cut_and_zero_stays_zero)
{
    static const struct { uint32_t ttl, expected; } cases[] = {
        {0, 0}, {1, 1}, {3600, 3600}, {86400, 3600}, {0x7fffffff, 3600}, {0x80000000, 0}, {0xffffffff, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        begin();
        dns_a(&m, NULL, cases[i].ttl, 1);
        dns_counts(&m, 1, 0, 0);
        CHECK_THAT(parse() && got.ttl_s == cases[i].expected, "%u: %u", cases[i].ttl, got.ttl_s);
    }
}

TEST(a_no_is_kept_as_long_as_its_zone_says)
{
    static const struct { unsigned flags; const char *zone; uint32_t ttl, minimum, expected; } cases[] = {
        {OK_FLAGS, "example.test", 300, 30, 30}, {0x8183, "example.test", 300, 30, 30}, {0x8183, "", 10, 30, 10},
        {0x8183, "test", 9000, 9000, 60}, {0x8183, NAME, 300, 5, 5}, {0x8183, "other.test", 300, 30, 0},
        {0x8183, "ample.test", 300, 30, 0}, {0x8183, "a.www.example.test", 300, 30, 0}, {0x8183, NULL, 0, 0, 0},
        {0x8183, "example.test", 300, 0xffffffff, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dns_begin(&m, 7, cases[i].flags, NAME, 1);
        if (cases[i].zone)
            dns_soa(&m, cases[i].zone, cases[i].ttl, cases[i].minimum);
        dns_counts(&m, 0, cases[i].zone ? 1 : 0, 0);
        CHECK_THAT(parse() && got.negative && got.ttl_s == cases[i].expected, "%zu: %u", i, got.ttl_s);
    }
}

TEST(many_addresses_are_seen_to_be_too_many)
{
    begin();
    for (unsigned i = 0; i < 70; i++)
        dns_a(&m, NULL, 300, i);
    dns_counts(&m, 70, 0, 0);
    CHECK(parse() && got.answers.count == RESOLVE_ANSWERS_MAX);
    begin();
    for (unsigned i = 0; i < 600; i++)
        dns_a(&m, NULL, 300, i);
    dns_counts(&m, 600, 0, 0);
    CHECK(!parse());
}

TEST(headers_that_are_not_ours_are_refused)
{
    static const struct { const char *what; size_t at; unsigned char value; } cases[] = {
        {"a query", 2, 0x01}, {"another opcode", 2, 0x89}, {"truncated", 2, 0x83}, {"server failure", 3, 0x82},
        {"refused", 3, 0x85}, {"no question", 5, 0}, {"two questions", 5, 2}, {"one record too many", 7, 2},
        {"many too many", 6, 0xff}, {"one too few", 7, 0}, {"authority that is not there", 9, 1},
        {"additional that is not there", 11, 1}, {"type of the question", 12 + 18 + 1, 28}, {"class of it", 12 + 18 + 3, 3},
        {"name of it", 13, 'x'},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        begin();
        dns_a(&m, NULL, 300, 1);
        dns_counts(&m, 1, 0, 0);
        CHECK(parse());
        m.data[cases[i].at] = cases[i].value;
        CHECK_THAT(!parse(), "%s", cases[i].what);
    }
    CHECK(!parse_as(NAME, 16) && !parse_as("", 1) && !parse_as("www.example.test.", 1) && !parse_as("a..b", 1));
}

TEST(messages_cut_anywhere_are_refused)
{
    begin();
    dns_cname(&m, NULL, 300, "b.example.net");
    dns_a(&m, "b.example.net", 300, 1);
    dns_soa(&m, "test", 1, 1);
    dns_counts(&m, 2, 1, 0);
    CHECK(parse());
    for (size_t whole = m.len; m.len > 0;) {
        m.len--;
        CHECK_THAT(!parse(), "%zu of %zu bytes", m.len, whole);
    }
    m.len = 0;
    CHECK(!parse());
}

TEST(a_byte_too_many_is_refused)
{
    begin();
    dns_a(&m, NULL, 300, 1);
    dns_counts(&m, 1, 0, 0);
    dns_u8(&m, 0);
    CHECK(!parse());
}

TEST(pointers_never_go_round)
{
    static const unsigned targets[] = {0xc022, 0xc024, 0xffff, 0xc023, 0xc0ff};
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        begin();
        CHECK(m.len == 0x22);
        dns_u16(&m, targets[i]); /* to itself, forward, outside */
        dns_u16(&m, 1);
        dns_u16(&m, 1);
        dns_u32(&m, 300);
        dns_u16(&m, 4);
        dns_u32(&m, 1);
        dns_counts(&m, 1, 0, 0);
        CHECK_THAT(!parse(), "%x", targets[i]);
    }
    begin(); /* a label, then back to that label: longer and longer */
    dns_u16(&m, 0x0161);
    dns_u16(&m, 0xc022);
    dns_u16(&m, 1);
    dns_u16(&m, 1);
    dns_u32(&m, 300);
    dns_u16(&m, 0);
    dns_counts(&m, 1, 0, 0);
    CHECK(!parse());
    begin(); /* the question points at itself */
    m.data[12] = 0xc0;
    m.data[13] = 12;
    CHECK(!parse());
}

TEST(long_rows_of_pointers_are_refused)
{
    begin();
    dns_record(&m, "x.example.test", 16, 1, 400);
    size_t row = m.len;
    for (unsigned i = 0; i < 200; i++) /* each points at the one before it */
        dns_u16(&m, 0xc000 | (i == 0 ? 12 : (unsigned)(row + (i - 1) * 2)));
    size_t last = m.len - 2;
    dns_u16(&m, 0xc000 | (unsigned)last);
    dns_u16(&m, 1);
    dns_u16(&m, 1);
    dns_u32(&m, 300);
    dns_u16(&m, 4);
    dns_u32(&m, 1);
    dns_counts(&m, 2, 0, 0);
    CHECK(!parse());
}

TEST(odd_labels_and_long_names_are_refused)
{
    static const unsigned char odd[] = {0x40, 0x80, 0xbf};
    for (size_t i = 0; i < sizeof odd; i++) {
        begin();
        dns_a(&m, NULL, 300, 1);
        dns_counts(&m, 1, 0, 0);
        m.data[m.len - 16] = odd[i];
        CHECK_THAT(!parse(), "%x", odd[i]);
    }
    begin();
    for (int i = 0; i < 4; i++) { /* 4 * 64 + 1 bytes */
        dns_u8(&m, 63);
        memset(m.data + m.len, 'a', 63);
        m.len += 63;
    }
    dns_u8(&m, 0);
    dns_u16(&m, 1);
    dns_u16(&m, 1);
    dns_u32(&m, 300);
    dns_u16(&m, 4);
    dns_u32(&m, 1);
    dns_counts(&m, 1, 0, 0);
    CHECK(!parse());
}

TEST(addresses_of_wrong_length_are_refused)
{
    begin();
    dns_record(&m, NULL, 1, 300, 16);
    m.len += 16;
    dns_counts(&m, 1, 0, 0);
    CHECK(!parse());
    begin();
    dns_record(&m, NULL, 1, 300, 0);
    dns_counts(&m, 1, 0, 0);
    CHECK(!parse());
    begin(); /* a target with bytes behind it */
    dns_cname(&m, NULL, 300, "b.example.net");
    m.data[m.len - 16]++;
    dns_u8(&m, 0);
    dns_counts(&m, 1, 0, 0);
    CHECK(!parse());
}

TEST(the_upper_half_of_a_failure_counts)
{
    begin();
    dns_a(&m, NULL, 300, 1);
    dns_record(&m, "", 41, 0, 0);
    dns_counts(&m, 1, 0, 1);
    CHECK(parse());
    m.data[m.len - 6] = 1; /* BADVERS is 16 */
    CHECK(!parse());
}

TEST(a_mapped_address_stays_what_it_is)
{
    dns_begin(&m, 7, OK_FLAGS, NAME, 28);
    dns_record(&m, NULL, 28, 300, 16);
    static const unsigned char mapped[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1};
    memcpy(m.data + m.len, mapped, 16);
    m.len += 16;
    dns_counts(&m, 1, 0, 0);
    CHECK(parse_as(NAME, 28) && got.answers.addrs[0].family == AF_INET6);
    CHECK(memcmp(got.answers.addrs[0].bytes, mapped, 16) == 0);
}

TEST(every_single_changed_byte_is_survived)
{
    begin();
    dns_cname(&m, NULL, 300, "b.example.net");
    dns_a(&m, "b.example.net", 300, 1);
    dns_soa(&m, "test", 1, 1);
    dns_record(&m, "", 41, 0, 0);
    dns_counts(&m, 2, 1, 1);
    for (size_t i = 0; i < m.len; i++) {
        unsigned char was = m.data[i];
        for (int v = 0; v < 256; v += 3) {
            m.data[i] = (unsigned char)v;
            if (parse())
                CHECK(got.answers.count <= RESOLVE_ANSWERS_MAX && got.ttl_s <= 3600);
        }
        m.data[i] = was;
    }
}
