/* The canonical target: every way to write a destination has one result, or none. */
#include "unit/test.h"

#include "sallyport/base/mem.h"
#include "sallyport/http/target.h"

#define BYTES(text) text, sizeof(text) - 1

/* Parses a copy of exactly that size. */
static enum reason
parse(bool absolute, const char *bytes, size_t len, struct target *t, char *path, size_t path_size)
{
    struct slice p = {NULL, 0};
    char *copy = mem_alloc(len ? len : 1);
    memcpy(copy, bytes, len);
    enum reason r = absolute ? target_from_uri(slice_of(copy, len), t, &p)
                             : target_from_authority(slice_of(copy, len), t);
    if (absolute && r == REASON_OK)
        snprintf(path, path_size, "%.*s", SLICE_ARG(p));
    free(copy);
    return r;
}

TEST(authorities)
{
    static const struct {
        const char *text, *canonical;
        enum host_kind kind;
    } cases[] = {
        {"one.test:443", "one.test:443", HOST_NAME},
        {"ONE.Test:443", "one.test:443", HOST_NAME},
        {"one.test.:443", "one.test:443", HOST_NAME},
        {"A.B.One.Test.:8443", "a.b.one.test:8443", HOST_NAME},
        {"one.test:1", "one.test:1", HOST_NAME},
        {"one.test:65535", "one.test:65535", HOST_NAME},
        {"localhost:80", "localhost:80", HOST_NAME},
        {"127.0.0.1.one.test:443", "127.0.0.1.one.test:443", HOST_NAME},
        {"1.0.0.127.in-addr.arpa:443", "1.0.0.127.in-addr.arpa:443", HOST_NAME},
        {"xn--fuball-cta.one.test:443", "xn--fuball-cta.one.test:443", HOST_NAME},
        {"r3---sn-abc.one.test:443", "r3---sn-abc.one.test:443", HOST_NAME},
        {"my_host._tcp.one.test:443", "my_host._tcp.one.test:443", HOST_NAME},
        {"0x7f.one.test:443", "0x7f.one.test:443", HOST_NAME},
        {"192.0.2.7:443", "192.0.2.7:443", HOST_IPV4},
        {"0.0.0.0:443", "0.0.0.0:443", HOST_IPV4},
        {"[::1]:443", "[::1]:443", HOST_IPV6},
        {"[2001:0DB8:0007:0:0:0:0:7]:443", "[2001:db8:7::7]:443", HOST_IPV6},
        {"[2001:db8:7::0.0.0.7]:443", "[2001:db8:7::7]:443", HOST_IPV6},
        {"[::FFFF:7f00:1]:443", "[::ffff:127.0.0.1]:443", HOST_IPV6},
        {"[64:ff9b::7f00:1]:80", "[64:ff9b::7f00:1]:80", HOST_IPV6},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct target t = {0};
        char text[TARGET_TEXT_SIZE] = "";
        CHECK_THAT(parse(false, cases[i].text, strlen(cases[i].text), &t, NULL, 0) == REASON_OK,
                   "%s", cases[i].text);
        target_format(&t, text);
        CHECK_STR(text, cases[i].canonical);
        CHECK(t.host.kind == cases[i].kind && t.scheme == SCHEME_NONE &&
              strlen(t.host.text) == t.host.len);
        /* What is canonical stays as it is. */
        struct target again = {0};
        CHECK(parse(false, text, strlen(text), &again, NULL, 0) == REASON_OK &&
              host_equal(&t.host, &again.host));
    }
}

TEST(bad_authorities)
{
    static const struct {
        const char *text;
        size_t len;
    } cases[] = {
        {BYTES("")},
        {BYTES(":")},
        {BYTES(":443")},
        {BYTES("443")},
        {BYTES("one.test")},
        {BYTES("one.test:")},
        {BYTES(".one.test:443")},
        {BYTES("*.one.test:443")},
        {BYTES("%2a.one.test:443")},
        {BYTES("one.test..:443")},
        {BYTES("one..test:443")},
        {BYTES(".:443")},
        {BYTES("..:443")},
        {BYTES("one.test@two.test:443")},
        {BYTES("one.test%40two.test:443")},
        {BYTES("two.test/@one.test:443")},
        {BYTES("two.test\\@one.test:443")},
        {BYTES("user:pw@one.test:443")},
        {BYTES("[one.test]:443")},
        {BYTES("[[::1]]:443")},
        {BYTES("[::1:443")},
        {BYTES("[]:443")},
        {BYTES("one.test[::1]:443")},
        {BYTES("::1]:443")},
        {BYTES("[::1]:443:443")},
        {BYTES("[::1]443")},
        {BYTES("[::1]")},
        {BYTES("[::1]:")},
        {BYTES("[::1].one.test:443")},
        {BYTES("[127.0.0.1]:443")},
        {BYTES("[::1%lo]:443")},
        {BYTES("[::1%25]:443")},
        {BYTES("[fe80::1%1]:443")},
        {BYTES("[::1\0]:443")},
        {BYTES("[ ::1]:443")},
        {BYTES("[v1.x]:443")},
        {BYTES("[1::2::3]:443")},
        {BYTES("[12345::1]:443")},
        {BYTES("[:::1]:443")},
        {BYTES("::1:443")},
        {BYTES("2001:db8::1:443")},
        {BYTES("two.test\0.one.test:443")},
        {BYTES("one.test:443\0")},
        {BYTES("\0one.test:443")},
        {BYTES("one.test\t:443")},
        {BYTES("one.test :443")},
        {BYTES(" one.test:443")},
        {BYTES("one.test\x7f:443")},
        {BYTES("one.test\xa0:443")},
        {BYTES("one\xad.test:443")},
        {BYTES("one%2etest:443")},
        {BYTES("one.test%00.two.test:443")},
        {BYTES("one.test%3a443")},
        {BYTES("\xef\xbd\x81.test:443")},
        {BYTES("one.test\xe2\x80\x8b:443")},
        {BYTES("fa\xc3\x9f.test:443")},
        {BYTES("one\xe3\x80\x82test:443")},
        {BYTES("one.test.xn--:443")},
        {BYTES("127.1:443")},
        {BYTES("2130706433:443")},
        {BYTES("0x7f000001:443")},
        {BYTES("017700000001:443")},
        {BYTES("0:443")},
        {BYTES("0000:443")},
        {BYTES("127.0.0.1.:443")},
        {BYTES("127.0.0.256:443")},
        {BYTES("127.0.0.01:443")},
        {BYTES("0127.0.0.1:443")},
        {BYTES("1.2.3.4.5:443")},
        {BYTES("169.0xfea9fe:443")},
        {BYTES("127.0.0.0x1:443")},
        {BYTES("one.test.1:443")},
        {BYTES("one.0x7f:443")},
        {BYTES("one._test:443")},
        {BYTES("one.test:0")},
        {BYTES("one.test:00")},
        {BYTES("one.test:0443")},
        {BYTES("one.test:65536")},
        {BYTES("one.test:65979")},
        {BYTES("one.test:4294967739")},
        {BYTES("one.test:99999999999999999999")},
        {BYTES("one.test:-443")},
        {BYTES("one.test:+443")},
        {BYTES("one.test: 443")},
        {BYTES("one.test:443 ")},
        {BYTES("one.test:https")},
        {BYTES("one.test:0x1bb")},
        {BYTES("one.test:443:443")},
        {BYTES("one.test:443/")},
        {BYTES("one.test:443/x")},
        {BYTES("one.test:443,two.test:443")},
        {BYTES("one.test:443;two.test:443")},
        {BYTES("one.test:4_43")},
        {BYTES("one.test,two.test:443")},
        {BYTES("http://one.test:443")},
        {BYTES("https://one.test")},
        {BYTES("-a.one.test:443")},
        {BYTES("a-.one.test:443")},
        {BYTES("a.-.test:443")},
        {BYTES("a!b.test:443")},
        {BYTES("a&b.test:443")},
        {BYTES("a~b.test:443")},
        {BYTES("a|b.test:443")},
        {BYTES("a`b.test:443")},
        {BYTES("a+b.test:443")},
        {BYTES("a=b.test:443")},
        {BYTES("a'b.test:443")},
        {BYTES("a\"b.test:443")},
        {BYTES("a<b.test:443")},
        {BYTES("a{b}.test:443")},
        {BYTES("a^b.test:443")},
        {BYTES("a$b.test:443")},
        {BYTES("a?b.test:443")},
        {BYTES("a#b.test:443")},
        {BYTES("*:443")},
        {BYTES("/:443")},
        {BYTES("one.test:\xd9\xa4")},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct target t;
        enum reason r = parse(false, cases[i].text, cases[i].len, &t, NULL, 0);
        CHECK_THAT(r == REASON_REQUEST_MALFORMED, "%s: %s", cases[i].text, reason_text(r));
    }
}

/* `labels` labels of `len` times 'a', then the port. */
static enum reason
parse_long(int labels, int len, const char *tail, struct target *t)
{
    static char text[8192];
    size_t n = 0;
    for (int i = 0; i < labels; i++) {
        memset(text + n, 'a', (size_t)len);
        n += (size_t)len;
        text[n++] = '.';
    }
    n += (size_t)snprintf(text + n, sizeof(text) - n, "%s", tail);
    return parse(false, text, n, t, NULL, 0);
}

TEST(lengths_of_names)
{
    struct target t;
    CHECK(parse_long(1, 63, "test:443", &t) == REASON_OK);
    CHECK(parse_long(1, 64, "test:443", &t) == REASON_REQUEST_MALFORMED);
    CHECK(parse_long(3, 63, "test:443", &t) == REASON_OK);
    /* 3 * 64 and 61 are 253, the root dot not counted. */
    CHECK(parse_long(3, 63, "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb.ccc:443",
                     &t) == REASON_OK);
    CHECK(t.host.len == HOST_MAX && strlen(t.host.text) == HOST_MAX);
    CHECK(parse_long(3, 63, "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb.ccc.:443",
                     &t) == REASON_OK);
    CHECK(parse_long(3, 63, "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb.cccc:443",
                     &t) == REASON_REQUEST_MALFORMED);
    CHECK(parse_long(127, 1, "test:443", &t) == REASON_REQUEST_MALFORMED);
    CHECK(parse_long(1, 4096, "test:443", &t) == REASON_REQUEST_MALFORMED);
    char text[TARGET_TEXT_SIZE];
    CHECK(parse_long(3, 63, "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb.ccc:65535",
                     &t) == REASON_OK);
    target_format(&t, text);
    CHECK(strlen(text) == HOST_MAX + 6);
}

TEST(uris)
{
    static const struct {
        const char *text, *canonical, *path;
    } cases[] = {
        {"http://one.test/", "one.test:80", "/"},
        {"http://one.test", "one.test:80", "/"},
        {"HTTP://One.Test/X?Y", "one.test:80", "/X?Y"},
        {"http://one.test.:8080/a", "one.test:8080", "/a"},
        {"http://one.test:80", "one.test:80", "/"},
        {"http://[2001:DB8:7::7]/", "[2001:db8:7::7]:80", "/"},
        {"http://[::ffff:10.0.0.1]:81/x", "[::ffff:10.0.0.1]:81", "/x"},
        {"http://192.0.2.7/", "192.0.2.7:80", "/"},
        {"http://one.test/a//b/../c", "one.test:80", "/a//b/../c"},
        {"http://one.test//two.test/", "one.test:80", "//two.test/"},
        {"http://one.test/a:b@c;d,e!$&'()*+=~-._", "one.test:80", "/a:b@c;d,e!$&'()*+=~-._"},
        {"http://one.test/%2e%2e/%2F/a//b/../c;d?e=%00&f", "one.test:80",
         "/%2e%2e/%2F/a//b/../c;d?e=%00&f"},
        {"http://one.test/?a[]=1&b=/?:@", "one.test:80", "/?a[]=1&b=/?:@"},
        {"http://one.test/http://two.test/", "one.test:80", "/http://two.test/"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct target t = {0};
        char text[TARGET_TEXT_SIZE] = "", path[256] = "";
        CHECK_THAT(parse(true, cases[i].text, strlen(cases[i].text), &t, path, sizeof(path)) ==
                       REASON_OK,
                   "%s", cases[i].text);
        target_format(&t, text);
        CHECK_STR(text, cases[i].canonical);
        CHECK_STR(path, cases[i].path);
        CHECK(t.scheme == SCHEME_HTTP);
    }
}

TEST(bad_uris)
{
    static const struct {
        const char *text;
        size_t len;
    } cases[] = {
        {BYTES("")},
        {BYTES("/")},
        {BYTES("*")},
        {BYTES("http")},
        {BYTES("http:")},
        {BYTES("http:/")},
        {BYTES("http://")},
        {BYTES("http:///")},
        {BYTES("http:///one.test/")},
        {BYTES("http:one.test/")},
        {BYTES("http:/one.test/")},
        {BYTES("//one.test/")},
        {BYTES("one.test/")},
        {BYTES("one.test:80")},
        {BYTES("https://one.test/")},
        {BYTES("ftp://one.test/")},
        {BYTES("ws://one.test/")},
        {BYTES("wss://one.test/")},
        {BYTES("unix:/var/run/x.sock")},
        {BYTES("data:text/plain,x")},
        {BYTES("javascript:alert(1)")},
        {BYTES("http ://one.test/")},
        {BYTES("http://http://one.test/")},
        {BYTES("http://one.test@two.test/")},
        {BYTES("http://one.test:80@two.test/")},
        {BYTES("http://@one.test/")},
        {BYTES("http://two.test#@one.test/")},
        {BYTES("http://two.test\\@one.test/")},
        {BYTES("http://one.test\\.two.test/")},
        {BYTES("http://one.test%2f@two.test/")},
        {BYTES("http://two.test:80#one.test/")},
        {BYTES("http://one.test?@two.test/")},
        {BYTES("http://one.test?q")},
        {BYTES("http://one.test#f")},
        {BYTES("http://one.test/#f")},
        {BYTES("http://one.test/?q#f")},
        {BYTES("http://one.test[::1]/")},
        {BYTES("http://[::1]one.test/")},
        {BYTES("http://[::1/")},
        {BYTES("http://one.test\0.two.test/")},
        {BYTES("http://o\tne.test/")},
        {BYTES("http://one.test%00.two.test/")},
        {BYTES("http://one\xe3\x80\x82test/")},
        {BYTES("http://0x7f.1/")},
        {BYTES("http://2130706433/")},
        {BYTES("http://0/")},
        {BYTES("http://one.test:/")},
        {BYTES("http://one.test:0/")},
        {BYTES("http://one.test:+80/")},
        {BYTES("http://one.test:80:80/")},
        {BYTES("http://one.test:080/")},
        {BYTES("http://:80/")},
        {BYTES("http://one.test,two.test/")},
        {BYTES("http://one.test;two.test/")},
        {BYTES("http://one.test|two.test/")},
        {BYTES("http://one.test/%")},
        {BYTES("http://one.test/%2")},
        {BYTES("http://one.test/%zz")},
        {BYTES("http://one.test/%2g")},
        {BYTES("http://one.test/a b")},
        {BYTES("http://one.test/\x01")},
        {BYTES("http://one.test/\0")},
        {BYTES("http://one.test/\x7f")},
        {BYTES("http://one.test/\xe9")},
        {BYTES("http://one.test/<")},
        {BYTES("http://one.test/>")},
        {BYTES("http://one.test/\"")},
        {BYTES("http://one.test/`")},
        {BYTES("http://one.test/{")},
        {BYTES("http://one.test/}")},
        {BYTES("http://one.test/|")},
        {BYTES("http://one.test/^")},
        {BYTES("http://one.test/\\")},
        {BYTES("http://one.test/[")},
        {BYTES("http://one.test/?q=\\")},
        {BYTES("http://one.test/?%")},
        {BYTES("http://one.test\r/")},
        {BYTES("http://one.test/\r\nX: y")},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct target t;
        char path[256];
        enum reason r = parse(true, cases[i].text, cases[i].len, &t, path, sizeof(path));
        CHECK_THAT(r == REASON_REQUEST_MALFORMED, "%s: %s", cases[i].text, reason_text(r));
    }
}

TEST(host_field)
{
    static const struct {
        const char *uri, *value; /* uri without "http://": CONNECT */
        enum reason want;
    } cases[] = {
        {"http://one.test/", "one.test", REASON_OK},
        {"http://one.test/", "one.test:80", REASON_OK},
        {"http://one.test/", "ONE.test.", REASON_OK},
        {"http://one.test/", "two.test", REASON_HOST_MISMATCH},
        {"http://one.test/", "one.test:81", REASON_HOST_MISMATCH},
        {"http://one.test:81/", "one.test:81", REASON_OK},
        {"http://one.test:81/", "one.test", REASON_HOST_MISMATCH},
        {"http://[::1]/", "[0:0::1]", REASON_OK},
        {"http://[::ffff:1.2.3.4]/", "1.2.3.4", REASON_HOST_MISMATCH},
        {"one.test:443", "one.test", REASON_OK},
        {"one.test:443", "one.test:443", REASON_OK},
        {"one.test.:443", "one.test:443", REASON_OK},
        {"one.test:443", "one.test:80", REASON_HOST_MISMATCH},
        {"one.test:443", "www.one.test:443", REASON_HOST_MISMATCH},
        {"http://one.test/", "", REASON_REQUEST_MALFORMED},
        {"http://one.test/", "one.test:", REASON_REQUEST_MALFORMED},
        {"http://one.test/", "one.test:0", REASON_REQUEST_MALFORMED},
        {"http://one.test/", "one.test two.test", REASON_REQUEST_MALFORMED},
        {"http://one.test/", "one.test, two.test", REASON_REQUEST_MALFORMED},
        {"http://one.test/", "one.test@two.test", REASON_REQUEST_MALFORMED},
        {"http://one.test/", "one.test/", REASON_REQUEST_MALFORMED},
        {"http://one.test/", "one.test?x", REASON_REQUEST_MALFORMED},
        {"http://one.test/", "one.test#x", REASON_REQUEST_MALFORMED},
        {"http://one.test/", "http://one.test", REASON_REQUEST_MALFORMED},
        {"http://one.test/", "one.test:80:80", REASON_REQUEST_MALFORMED},
        {"http://[::1]/", "::1", REASON_REQUEST_MALFORMED},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct target t;
        char path[64];
        bool absolute = cases[i].uri[4] == ':';
        CHECK(parse(absolute, cases[i].uri, strlen(cases[i].uri), &t, path, sizeof(path)) ==
              REASON_OK);
        enum reason r = target_check_host_field(&t, slice_str(cases[i].value));
        CHECK_THAT(r == cases[i].want, "%s, Host: %s: %s", cases[i].uri, cases[i].value,
                   reason_text(r));
    }
    struct target https = {.scheme = SCHEME_HTTPS, .port = 443};
    CHECK(host_parse(slice_str("one.test"), &https.host));
    CHECK(target_check_host_field(&https, slice_str("one.test")) == REASON_OK);
    CHECK(target_check_host_field(&https, slice_str("one.test:80")) == REASON_HOST_MISMATCH);
}

TEST(hosts_alone)
{
    struct host a, b;
    CHECK(host_parse(slice_str("One.Test"), &a) && host_parse(slice_str("one.test."), &b) &&
          host_equal(&a, &b));
    CHECK(host_parse(slice_str("two.test"), &b) && !host_equal(&a, &b));
    CHECK(!host_parse(slice_str("one.test:80"), &a) && !host_parse(slice_str("::1"), &a) &&
          !host_parse(slice_str(""), &a));
    CHECK(!host_parse(slice_str("[::1]:80"), &a));
    struct host none = {0};
    CHECK(!host_equal(&none, &none)); /* "no host" is never the same as anything */
}

TEST(paths)
{
    CHECK(path_is_wellformed(slice_str("/")) && path_is_wellformed(slice_str("/a?b?c/d")) &&
          path_is_wellformed(slice_str("//x/%41")));
    static const char *const bad[] = {"",   "a",   "*",   "?q",   "@two.test/", "http://one.test/",
                                      "/#", "/%4", "/\\", "/[1]", "/a\tb"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        CHECK_THAT(!path_is_wellformed(slice_str(bad[i])), "%s", bad[i]);
}

TEST(a_labels)
{
    static const struct {
        const char *name;
        bool ok;
    } cases[] = {
        {"one.test", true},
        {"xn--bcher-kva.test", true},
        {"a.xn--fuball-cta.test", true},
        {"r3---sn-abc.test", true},
        {"axn--b.test", true},
        {"xn--p1ai", true},
        {"xn--.test", false},
        {"xn--a.test", false},
        {"xn--abc-.test", false},
        {"one.xn--test-.x.test", false},
        {"xn--bcher-kva.xn--.test", false},
        {"xn--99999999.test", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        CHECK_THAT(host_alabels_ok(slice_str(cases[i].name)) == cases[i].ok, "%s", cases[i].name);
}

TEST(u_labels)
{
    char out[HOST_TEXT_SIZE];
    CHECK(host_to_ascii(slice_str("b\xc3\xbc"
                                  "cher.test"),
                        out));
    CHECK_STR(out, "xn--bcher-kva.test");
    CHECK(host_to_ascii(slice_str("B\xc3\x9c"
                                  "CHER.Test"),
                        out));
    CHECK_STR(out, "xn--bcher-kva.test");
    CHECK(host_to_ascii(slice_str("fu\xc3\x9f"
                                  "ball.test"),
                        out)); /* IDNA2008: not "ss" */
    CHECK_STR(out, "xn--fuball-cta.test");
    CHECK(!host_to_ascii(slice_str(""), out));
    CHECK(!host_to_ascii(slice_str("\xff\xfe.test"), out));
    CHECK(!host_to_ascii(slice_of("b\xc3\xbc\0.test", 9), out));
    CHECK(!host_to_ascii(slice_str("\xef\xbc\x91\xef\xbc\x92\xef\xbc\x97.0.0.1"),
                         out)); /* full-width digits */
}
