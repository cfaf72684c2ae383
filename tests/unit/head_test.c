/* Heads: the byte check, llhttp behind it and the rules over all fields together. Every case is
 * given whole, split at each byte and byte by byte, and must have one verdict; it stands in memory
 * of exactly its size, so that a sanitizer sees a read beyond it. */
#include "unit/test.h"

#include "sallyport/base/mem.h"
#include "sallyport/http/chars.h"
#include "sallyport/http/head.h"
#include "sallyport/http/websocket.h"

#define CAP 32768
#define BYTES(text) text, sizeof(text) - 1

struct head_case {
    const char *bytes;
    size_t len;
    enum reason want; /* REASON_UNDECIDED: the head is not complete */
};

static char *
exact(const char *bytes, size_t len)
{
    char *copy = mem_alloc(len ? len : 1);
    if (len)
        memcpy(copy, bytes, len);
    return copy;
}

static enum reason
parse_exact(struct slice head, bool response, const char *method)
{
    struct arena *arena = arena_new(4096);
    struct head parsed;
    char *copy = exact(head.ptr, head.len);
    enum reason r =
        response ? head_parse_response(arena, slice_of(copy, head.len), slice_str(method), &parsed)
                 : head_parse_request(arena, slice_of(copy, head.len), &parsed);
    free(copy);
    arena_free(arena);
    return r;
}

/* Feeds the first `split` bytes and then all; or, with split 0, one more byte each time. */
static enum head_scan_status
scan_split(struct head_scan *scan, const char *bytes, size_t len, size_t split)
{
    enum head_scan_status status = HEAD_SCAN_MORE;
    for (size_t n = split ? split : 1; status == HEAD_SCAN_MORE; n = split ? len : n + 1) {
        char *copy = exact(bytes, n);
        status = head_scan(scan, slice_of(copy, n), CAP);
        free(copy);
        if (n == len)
            break;
    }
    return status;
}

static enum reason
verdict_of(struct head_scan *scan, enum head_scan_status status, const char *bytes,
           const char *method)
{
    switch (status) {
    case HEAD_SCAN_MALFORMED:
        return scan->response ? REASON_UPSTREAM_CLOSED : REASON_REQUEST_MALFORMED;
    case HEAD_SCAN_TOO_LARGE:
        return scan->response ? REASON_UPSTREAM_CLOSED : REASON_REQUEST_TOO_LARGE;
    case HEAD_SCAN_MORE:
        return REASON_UNDECIDED;
    case HEAD_SCAN_COMPLETE:
        return parse_exact(slice_of(bytes + scan->start, scan->end - scan->start), scan->response,
                           method);
    }
    return REASON_INTERNAL;
}

static void
check_every_split(const char *bytes, size_t len, bool response, const char *method,
                  enum reason want)
{
    struct head_scan whole = {.response = response};
    enum head_scan_status status = scan_split(&whole, bytes, len, len);
    enum reason got = verdict_of(&whole, status, bytes, method);
    CHECK_THAT(got == want, "%.*s: %s, not %s", (int)(len < 300 ? len : 300), bytes,
               reason_text(got), reason_text(want));
    size_t step = len > 2000 ? len / 97 : 1;
    for (size_t split = 0; split < len; split += step) {
        struct head_scan scan = {.response = response};
        enum head_scan_status s = scan_split(&scan, bytes, len, split);
        CHECK_THAT(s == status && scan.start == whole.start && scan.end == whole.end &&
                       scan.lines == whole.lines,
                   "%.*s: split at %zu: %d, whole: %d", (int)(len < 300 ? len : 300), bytes, split,
                   s, status);
    }
}

static void
check_requests(const struct head_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++)
        check_every_split(cases[i].bytes, cases[i].len, false, "", cases[i].want);
}
#define CHECK_REQUESTS(cases) check_requests(cases, sizeof(cases) / sizeof(cases[0]))

#define G "GET http://one.test/ HTTP/1.1\r\n"
#define P "POST http://one.test/ HTTP/1.1\r\n"
#define H "Host: one.test\r\n"
#define BAD REASON_REQUEST_MALFORMED

static size_t
run_slowly(struct slice s, enum char_class class)
{
    size_t i = 0;
    while (i < s.len && char_is(s.ptr[i], class))
        i++;
    return i;
}

/* Eight bytes are looked at together: each byte in each place of runs of all lengths around that, alone and with a second one
 * behind it, in memory of exactly their size. */
TEST(runs_end_where_the_table_says)
{
    static const char seconds[] = {'a', '\t', ' ', '\r', 0x00, 0x1f, 0x7f, (char)0x80, (char)0xff};
    for (size_t len = 0; len < 20; len++) {
        char *text = mem_alloc(len ? len : 1);
        struct slice s = slice_of(text, len);
        memset(text, 'a', len);
        for (size_t at = 0; at < len; at++) {
            for (unsigned n = 0; n < 256 * sizeof seconds; n++) {
                text[at] = (char)(n % 256);
                if (at + 1 < len)
                    text[at + 1] = seconds[n / 256];
                bool high = (unsigned char)text[at] >= 0x80 || (at + 1 < len && (unsigned char)text[at + 1] >= 0x80);
                CHECK_THAT(chars_value_run(s) == run_slowly(s, CHAR_VALUE) && chars_target_run(s) == run_slowly(s, CHAR_TARGET) &&
                               chars_run(s, CHAR_TOKEN) == run_slowly(s, CHAR_TOKEN) && chars_has_obs_text(s) == high,
                           "%u at %zu of %zu", n, at, len);
            }
            memset(text, 'a', len);
        }
        free(text);
    }
}

TEST(character_classes_are_the_grammar)
{
    for (int c = 0; c < 256; c++) {
        bool digit = c >= '0' && c <= '9', alpha = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        bool hex = digit || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
        bool vchar = c > 0x20 && c < 0x7f, obs = c >= 0x80, space = c == ' ' || c == '\t';
        CHECK_THAT(char_is((char)c, CHAR_TOKEN) ==
                       (digit || alpha || (c && strchr("!#$%&'*+-.^_`|~", c))),
                   "%d", c);
        CHECK_THAT(char_is((char)c, CHAR_VALUE) == (vchar || obs || space), "%d", c);
        CHECK_THAT(char_is((char)c, CHAR_TARGET) == vchar, "%d", c);
        CHECK_THAT(char_is((char)c, CHAR_PATH) ==
                       (digit || alpha || (c && strchr("-._~!$&'()*+,;=:@/", c))),
                   "%d", c);
        CHECK_THAT(char_is((char)c, CHAR_QUOTED) ==
                       ((vchar || obs || space) && c != '"' && c != '\\'),
                   "%d", c);
        CHECK_THAT(char_is((char)c, CHAR_HEX) == hex, "%d", c);
        CHECK_THAT(char_is((char)c, CHAR_LABEL) == (digit || alpha || c == '-' || c == '_'), "%d",
                   c);
        CHECK_THAT(char_is((char)c, CHAR_ALPHA) == alpha, "%d", c);
    }
}

TEST(request_lines)
{
    static const struct head_case cases[] = {
        {BYTES(G H "\r\n"), REASON_OK},
        {BYTES("GET http://one.test/ HTTP/1.0\r\n" H "\r\n"), REASON_OK},
        {BYTES("GET http://one.test/ HTTP/1.0.1\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ HTTP/1.32\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ HTTP/1.10\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ HTTP/1.\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ HTTP/1\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ HTTP/.1\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ HTTP/\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ HTTP/0.9\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ HTTP/2.0\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ HTTP/3.0\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ HTTP/1.2\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ HTTP/4294967297.1\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ HTTP/01.1\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ HTTP/1.01\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ HTTP/+1.1\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ HTTP/1.-1\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ HTTP/1,1\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ http/1.1\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ Http/1.1\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ HTTPS/1.1\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ ICY/1.1\r\n" H "\r\n"), BAD},
        {BYTES("DESCRIBE http://one.test/ RTSP/1.0\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ HTTP/1.1 \r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ HTTP/1.1\t\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ HTTP/1.1x\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/ \r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/  HTTP/1.1\r\n" H "\r\n"), BAD},
        {BYTES("GET  http://one.test/ HTTP/1.1\r\n" H "\r\n"), BAD},
        {BYTES("GET\thttp://one.test/\tHTTP/1.1\r\n" H "\r\n"), BAD},
        {BYTES("GET\x0bhttp://one.test/ HTTP/1.1\r\n" H "\r\n"), BAD},
        {BYTES(" GET http://one.test/ HTTP/1.1\r\n" H "\r\n"), BAD},
        {BYTES("GET\r\n" H "\r\n"), BAD},
        {BYTES("GET \r\n" H "\r\n"), BAD},
        {BYTES("GET  HTTP/1.1\r\n" H "\r\n"), BAD},
        {BYTES(" http://one.test/ HTTP/1.1\r\n" H "\r\n"), BAD},
        {BYTES("http://one.test/ HTTP/1.1\r\n" H "\r\n"), BAD},
        {BYTES("G=\":<>(e),[T];?\" http://one.test/ HTTP/1.1\r\n" H "\r\n"), BAD},
        {BYTES("G\rET http://one.test/ HTTP/1.1\r\n" H "\r\n"), BAD},
        {BYTES("G\0ET http://one.test/ HTTP/1.1\r\n" H "\r\n"), BAD},
        {BYTES("G\xc3\x89T http://one.test/ HTTP/1.1\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/a b HTTP/1.1\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/\x01 HTTP/1.1\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/\0 HTTP/1.1\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/\x7f HTTP/1.1\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/\xe9 HTTP/1.1\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/\r\nX: y HTTP/1.1\r\n" H "\r\n"), BAD},
        {BYTES("GET http://one.test/\rX HTTP/1.1\r\n" H "\r\n"), BAD},
        {BYTES("GET one.test:443 HTTP/1.1\r\n" H "\r\n"), BAD},
        {BYTES("CONNECT one.test:443 two.test:443 HTTP/1.1\r\n" H "\r\n"), BAD},
        {BYTES("CONNECT  HTTP/1.1\r\n" H "\r\n"), BAD},
        {BYTES("CONNECT one.test:443 HTTP/1.0\r\n\r\n"), REASON_OK},
        {BYTES("CONNECT [2001:db8::7]:443 HTTP/1.1\r\nHost: [2001:db8::7]:443\r\n\r\n"), REASON_OK},
        {BYTES("OPTIONS * HTTP/1.1\r\n" H "\r\n"), REASON_OK},
        {BYTES("GET / HTTP/1.1\r\n" H "\r\n"), REASON_OK},
    };
    CHECK_REQUESTS(cases);
}

TEST(other_protocols_are_malformed_at_the_first_byte_that_tells)
{
    static const struct {
        const char *bytes;
        size_t len, told_at; /* bytes after which the verdict must be there */
    } cases[] = {
        {BYTES("\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n"), 1},
        {BYTES("\x80\x2e\x01\x03\x01"), 1},
        {BYTES("\x05\x01\x00"), 1},
        {BYTES("\x04\x01\x01\xbb\x00\x00\x00\x01x\x00"), 1},
        {BYTES("\r\n\x05\x01\x00"), 3},
        {BYTES("\r\n\x16\x03\x01"), 3},
        {BYTES("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 12},
        {BYTES("\r\nPRI * HTTP/2.0\r\n\r\n"), 14},
        {BYTES("SSH-2.0-OpenSSH_9.2\r\n"), 20},
        {BYTES("PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"), 12},
        {BYTES("\r\n\r\nGET / HTTP/1.1\r\n"), 3},
        {BYTES("\nGET / HTTP/1.1\r\n"), 1},
        {BYTES("\rGET / HTTP/1.1\r\n"), 2},
        {BYTES("{\"jsonrpc\""), 1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t n = 1; n <= cases[i].len; n++) {
            struct head_scan scan = {0};
            enum head_scan_status want =
                n < cases[i].told_at ? HEAD_SCAN_MORE : HEAD_SCAN_MALFORMED;
            enum head_scan_status got = head_scan(&scan, slice_of(cases[i].bytes, n), CAP);
            CHECK_THAT(got == want, "case %zu after %zu bytes: %d", i, n, got);
        }
    }
}

TEST(line_endings_and_folding)
{
    static const struct head_case cases[] = {
        {BYTES("\r\n" G H "\r\n"), REASON_OK},
        {BYTES("\r\n\r\n" G H "\r\n"), BAD},
        {BYTES("\n" G H "\r\n"), BAD},
        {BYTES("GET http://one.test/ HTTP/1.1\n" H "\r\n"), BAD},
        {BYTES(G "Host: one.test\nX: y\r\n\r\n"), BAD},
        {BYTES(G H "X: y\n\nGET http://two.test/ HTTP/1.1\r\nHost: two.test\r\n\r\n"), BAD},
        {BYTES(G H "X: y\r\n\n"), BAD},
        {BYTES(G H "\n"), BAD},
        {BYTES(G H "X: a\r\r\n\r\n"), BAD},
        {BYTES(G H "X: a\rb\r\n\r\n"), BAD},
        {BYTES(G H "\r\r\n"), BAD},
        {BYTES(G H "\rX: y\r\n\r\n"), BAD},
        {BYTES(G H "X: a\r\n b\r\n\r\n"), BAD},
        {BYTES(G H "X: a\r\n\tb\r\n\r\n"), BAD},
        {BYTES(G H "X: a\r\n \r\n\r\n"), BAD},
        {BYTES(G " X: a\r\n" H "\r\n"), BAD},
        {BYTES(G "\tContent-Length: 1\r\n" H "\r\nX"), BAD},
        {BYTES(G H "X: y\r\n"), REASON_UNDECIDED},
        {BYTES(G H), REASON_UNDECIDED},
        {BYTES("GET"), REASON_UNDECIDED},
    };
    CHECK_REQUESTS(cases);
}

TEST(fields)
{
    static const struct head_case cases[] = {
        {BYTES(G H "X:y\r\n\r\n"), REASON_OK},
        {BYTES(G H "X:\r\n\r\n"), REASON_OK},
        {BYTES(G H "X: \t \r\n\r\n"), REASON_OK},
        {BYTES(G H "X: \xe4\xff\x80\r\n\r\n"), REASON_OK},
        {BYTES(G H "!#$%&'*+-.^_`|~: y\r\n\r\n"), REASON_OK},
        {BYTES(G H "X : y\r\n\r\n"), BAD},
        {BYTES(G H "X\t: y\r\n\r\n"), BAD},
        {BYTES(G H "X Y: z\r\n\r\n"), BAD},
        {BYTES(G H "X\r\n\r\n"), BAD},
        {BYTES(G H ": y\r\n\r\n"), BAD},
        {BYTES(G H ":\r\nI: am chopped off\r\n\r\n"), BAD},
        {BYTES(G H "\0: y\r\n\r\n"), BAD},
        {BYTES(G H "X\0Y: z\r\n\r\n"), BAD},
        {BYTES(G H "X\xef\xbb\xbf: z\r\n\r\n"), BAD},
        {BYTES("\xef\xbb\xbf" G H "\r\n"), BAD},
        {BYTES(G H "X\"Y: z\r\n\r\n"), BAD},
        {BYTES(G H "X(Y): z\r\n\r\n"), BAD},
        {BYTES(G H "X: a\0b\r\n\r\n"), BAD},
        {BYTES(G H "X: a\0\r\n\r\n"), BAD},
        {BYTES(G H "X: a\x01"
                   "b\r\n\r\n"),
         BAD},
        {BYTES(G H "X: a\x1b[2Jb\r\n\r\n"), BAD},
        {BYTES(G H "X: a\x0b"
                   "b\r\n\r\n"),
         BAD},
        {BYTES(G H "X: a\x0c"
                   "b\r\n\r\n"),
         BAD},
        {BYTES(G H "X: a\x7f\r\n\r\n"), BAD},
    };
    CHECK_REQUESTS(cases);
}

TEST(host)
{
    static const struct head_case cases[] = {
        {BYTES(G "\r\n"), BAD},
        {BYTES("CONNECT one.test:443 HTTP/1.1\r\n\r\n"), BAD},
        {BYTES(G H H "\r\n"), BAD},
        {BYTES(G H "Host: two.test\r\n\r\n"), BAD},
        {BYTES(G H "hOST: one.test\r\n\r\n"), BAD},
        {BYTES("GET http://one.test/ HTTP/1.0\r\n" H H "\r\n"), BAD},
        {BYTES(G "Host:\r\n\r\n"), BAD},
        {BYTES(G "Host: \t\r\n\r\n"), BAD},
        {BYTES("GET http://one.test/ HTTP/1.0\r\nHost:\r\n\r\n"), BAD},
        {BYTES(G "Host: one.test\0\r\n\r\n"), BAD},
        {BYTES(G "Host: \xffone.test\xff\r\n\r\n"), BAD},
        {BYTES(G "Host: \x85one.test\xa0\r\n\r\n"), BAD},
        {BYTES(G "Host : one.test\r\n\r\n"), BAD},
        {BYTES(G "Host:\r\n one.test\r\n\r\n"), BAD},
        {BYTES(G "X-Host: one.test\r\n\r\n"), BAD},
    };
    CHECK_REQUESTS(cases);
}

TEST(content_length)
{
    static const struct head_case cases[] = {
        {BYTES(P H "Content-Length: 0\r\n\r\n"), REASON_OK},
        {BYTES(P H "Content-Length: 9223372036854775807\r\n\r\n"), REASON_OK},
        {BYTES(P H "Content-Length: \t3 \r\n\r\n"), REASON_OK},
        {BYTES(P H "Content-Length: 3\t\r\n\r\n"),
         BAD}, /* llhttp takes SP alone behind the number */
        {BYTES(P H "Content-Length: -0\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: -1\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: +3\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 0x3\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 1_0\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 1 0\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 3.0\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 1e3\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: \"3\"\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 3;q=1\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: \r\n\r\n"), BAD},
        {BYTES(P H "Content-Length:\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: ,\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 3,\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 3, 3\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 3,4\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 3\r\nContent-Length: 3\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 3\r\nContent-Length: 0\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 0\r\nX: y\r\ncontent-LENGTH: 300\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 9223372036854775808\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 18446744073709551615\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 18446744073709551616\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 99999999999999999999999999\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length : 3\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 3\r\n ,4\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: \xef\xbc\x93\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 010\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 00\r\n\r\n"), BAD},
        {BYTES(P H "Content_Length: 3\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 3\r\nCONTENT_LENGTH: 0\r\n\r\n"), BAD},
    };
    CHECK_REQUESTS(cases);
}

TEST(transfer_encoding)
{
    static const struct head_case cases[] = {
        {BYTES(P H "Transfer-Encoding: chunked\r\n\r\n"), REASON_OK},
        {BYTES(P H "transfer-encoding:\tChunKED \r\n\r\n"), REASON_OK},
        {BYTES("GET http://one.test/ HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"),
         REASON_OK},
        {BYTES("POST http://one.test/ HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n"), BAD},
        {BYTES("POST http://one.test/ HTTP/1.0\r\n" H "Transfer-Encoding: gzip\r\n\r\n"), BAD},
        {BYTES(P H "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 5\r\nTransfer-Encoding: identity\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 0\r\nTransfer-Encoding:\r\n\r\n"), BAD},
        {BYTES(P H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"), BAD},
        {BYTES(P H "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"), BAD},
        {BYTES(P H "Transfer-Encoding: identity\r\nX: y\r\ntransfer-ENCODING: chunked\r\n\r\n"),
         BAD},
        {BYTES(P H "Transfer-Encoding: chunked, chunked\r\n\r\n"), BAD},
        {BYTES(P H "Transfer-Encoding: chunked, identity\r\n\r\n"), BAD},
        {BYTES(P H "Transfer-Encoding: chunked,\r\n\r\n"), BAD},
        {BYTES(P H "Transfer-Encoding: ,chunked\r\n\r\n"), BAD},
        {BYTES(P H "Transfer-Encoding: \r\n\r\n"), BAD},
        {BYTES(P H "Transfer-Encoding:\r\n\r\n"), BAD},
        {BYTES(P H "Transfer-Encoding: chunked;q=1\r\n\r\n"), BAD},
        {BYTES(P H "Transfer-Encoding: 'chunked'\r\n\r\n"), BAD},
        {BYTES(P H "Transfer-Encoding: \"chunked\"\r\n\r\n"), BAD},
        {BYTES(P H "Transfer-Encoding: chunked chunked\r\n\r\n"), BAD},
        {BYTES(P H "Transfer-Encoding: \x0b"
                   "chunked\r\n\r\n"),
         BAD},
        {BYTES(P H "Transfer-Encoding: chunked\x0b\r\n\r\n"), BAD},
        {BYTES(P H "Transfer-Encoding: \xff"
                   "chunked\xff\r\n\r\n"),
         BAD},
        {BYTES(P H "Transfer-Encoding: chunked\xc2\xa0\r\n\r\n"), BAD},
        {BYTES(P H "Transfer-Encoding : chunked\r\n\r\n"), BAD},
        {BYTES(P H "Foo: bar\r\n Transfer-Encoding: chunked\r\n\r\n"), BAD},
        {BYTES(P H "X: y\rTransfer-Encoding: chunked\r\n\r\n"), BAD},
        {BYTES(P H "Transfer_Encoding: chunked\r\n\r\n"), BAD},
        {BYTES(P H "Content-Length: 3\r\ntransfer_encoding: chunked\r\n\r\n"), BAD},
        {BYTES(P H "Transfer-Encoding: identity\r\n\r\n"), REASON_CODING_UNSUPPORTED},
        {BYTES(P H "Transfer-Encoding: gzip, chunked\r\n\r\n"), REASON_CODING_UNSUPPORTED},
        {BYTES(P H "Transfer-Encoding: gzip\r\n\r\n"), REASON_CODING_UNSUPPORTED},
        {BYTES(P H "Transfer-Encoding: xchunked\r\n\r\n"), REASON_CODING_UNSUPPORTED},
        {BYTES(P H "Transfer-Encoding: x\r\n\r\n"), REASON_CODING_UNSUPPORTED},
    };
    CHECK_REQUESTS(cases);
}

#define C "CONNECT one.test:443 HTTP/1.1\r\nHost: one.test:443\r\n"

TEST(connect_has_no_body_and_no_upgrade)
{
    static const struct head_case cases[] = {
        {BYTES(C "\r\n"), REASON_OK},
        {BYTES(C "Proxy-Connection: Keep-Alive\r\nUser-Agent: x\r\n\r\n"), REASON_OK},
        {BYTES(C "Content-Length: 0\r\n\r\n"), BAD},
        {BYTES(C "Content-Length: 3\r\n\r\n"), BAD},
        {BYTES(C "Transfer-Encoding: chunked\r\n\r\n"), BAD},
        {BYTES(C "Transfer-Encoding: gzip\r\n\r\n"), BAD},
        {BYTES(C "Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"), BAD},
        {BYTES(C "Upgrade: h2c\r\n\r\n"), BAD},
    };
    CHECK_REQUESTS(cases);
}

TEST(expectations_and_connection_options)
{
    static const struct head_case cases[] = {
        {BYTES(P H "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"), REASON_OK},
        {BYTES(P H "Expect: 100-Continue\r\nContent-Length: 3\r\n\r\n"), REASON_OK},
        {BYTES(P H "Expect: 100-continue, foo\r\nContent-Length: 3\r\n\r\n"),
         REASON_EXPECTATION_UNKNOWN},
        {BYTES(P H "Expect: 100-continue, 100-continue\r\nContent-Length: 3\r\n\r\n"),
         REASON_EXPECTATION_UNKNOWN},
        {BYTES(P H "Expect: 100-continue\r\nExpect: 100-continue\r\n\r\n"),
         REASON_EXPECTATION_UNKNOWN},
        {BYTES(P H "Expect: 200-ok\r\n\r\n"), REASON_EXPECTATION_UNKNOWN},
        {BYTES(P H "Expect:\r\n\r\n"), REASON_EXPECTATION_UNKNOWN},
        {BYTES(P H "Expect: 100-continue\xa0\r\n\r\n"), BAD},
        {BYTES(G H "Connection: close, X-Foo\r\n\r\n"), REASON_OK},
        {BYTES(G H "Connection: ,close,,\r\n\r\n"), REASON_OK},
        {BYTES(G H "Connection:\r\n\r\n"), REASON_OK},
        {BYTES(G H "Connection: close;x\r\n\r\n"), BAD},
        {BYTES(G H "Connection: \"close\"\r\n\r\n"), BAD},
        {BYTES(G H "Connection: close keep-alive\r\n\r\n"), BAD},
        {BYTES(G H "Connection: \xe9\r\n\r\n"), BAD},
        {BYTES(G H "Upgrade: h2c\xff\r\n\r\n"), BAD},
        {BYTES(G H "Proxy-Authorization: Basic \xff\r\n\r\n"), BAD},
        {BYTES(G H "Proxy_Authorization: Basic eA==\r\n\r\n"), BAD},
    };
    CHECK_REQUESTS(cases);
}

/* Parses what is known to be good; the arena and the bytes live until the next call. */
static struct head
good(const char *text)
{
    static struct arena *arena;
    static struct head head;
    arena_free(arena);
    arena = arena_new(4096);
    head = (struct head){0};
    enum reason r = head_parse_request(arena, slice_str(text), &head);
    CHECK_THAT(r == REASON_OK, "%s: %s", text, reason_text(r));
    return head;
}

TEST(parts_of_a_request)
{
    struct head h = good("POST http://one.test/a?b HTTP/1.1\r\nHost:one.test\r\nA: \t b  c\t "
                         "\r\nB:\r\nContent-Length: 12\r\na: 2\r\n\r\n");
    size_t count;
    CHECK(slice_is(h.method, "POST") && slice_is(h.target, "http://one.test/a?b") && h.minor == 1);
    CHECK(h.field_count == 5 && slice_is(h.fields[1].name, "A") &&
          slice_is(h.fields[1].value, "b  c"));
    CHECK(slice_is(h.fields[2].name, "B") && h.fields[2].value.len == 0);
    CHECK(h.body == BODY_LENGTH && h.content_length == 12 && h.persistent && !h.expect_continue &&
          !h.upgrade_websocket);
    CHECK(slice_is(head_field(&h, "A", &count), "b  c") && count == 2);
    CHECK(head_field(&h, "Q", &count).len == 0 && count == 0);
    h = good("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    CHECK(h.body == BODY_NONE && h.persistent);
    h = good("PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: CHUNKED\r\n\r\n");
    CHECK(h.body == BODY_CHUNKED && h.content_length == 0);
    h = good("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    CHECK(h.body == BODY_LENGTH && h.content_length == 0);
}

TEST(persistence)
{
    CHECK(good("GET / HTTP/1.1\r\nHost: x\r\nConnection: Keep-Alive\r\n\r\n").persistent);
    CHECK(good("GET / HTTP/1.1\r\nHost: x\r\nProxy-Connection: close\r\n\r\n").persistent);
    CHECK(!good("GET / HTTP/1.1\r\nHost: x\r\nConnection: CLOSE\r\n\r\n").persistent);
    CHECK(!good("GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, close\r\n\r\n").persistent);
    CHECK(!good("GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n")
               .persistent);
    CHECK(good("GET / HTTP/1.1\r\nHost: x\r\nConnection: closed\r\n\r\n").persistent);
    CHECK(!good("GET / HTTP/1.0\r\nHost: x\r\n\r\n").persistent);
    CHECK(!good("GET / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n").persistent);
}

TEST(expect_continue_needs_a_body_and_http_1_1)
{
    CHECK(good("PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
              .expect_continue);
    CHECK(!good("PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n").expect_continue);
    CHECK(!good("PUT / HTTP/1.0\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
               .expect_continue);
}

TEST(any_token_is_a_method_and_stands_as_it_should)
{
    static const struct {
        const char *method;
        enum reason want;
    } cases[] = {
        {"GET", REASON_OK},
        {"HEAD", REASON_OK},
        {"POST", REASON_OK},
        {"PUT", REASON_OK},
        {"PATCH", REASON_OK},
        {"DELETE", REASON_OK},
        {"OPTIONS", REASON_OK},
        {"CONNECT", REASON_OK},
        {"TRACE", REASON_METHOD_UNSUPPORTED},
        {"TRACK", REASON_METHOD_UNSUPPORTED},
        {"Trace", REASON_METHOD_UNSUPPORTED},
        {"get", REASON_METHOD_UNKNOWN},
        {"PROPFIND", REASON_METHOD_UNKNOWN},
        {"FOO", REASON_METHOD_UNKNOWN},
        {"DESCRIBE", REASON_METHOD_UNKNOWN},
        {"PRI", REASON_METHOD_UNKNOWN},
        {"SOURCE", REASON_METHOD_UNKNOWN},
        {"M-SEARCH", REASON_METHOD_UNKNOWN},
        {"GETX", REASON_METHOD_UNKNOWN},
        {"!#$%&'*+-.^_`|~", REASON_METHOD_UNKNOWN},
        {"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345", REASON_METHOD_UNKNOWN},
    };
    char text[256];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool connect = !strcmp(cases[i].method, "CONNECT");
        snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: x:1\r\n\r\n", cases[i].method,
                 connect ? "x:1" : "http://x:1/");
        struct head h = good(text);
        CHECK(slice_is(h.method, cases[i].method));
        CHECK_THAT(method_check(h.method) == cases[i].want, "%s", cases[i].method);
    }
    static const char longer[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456 / HTTP/1.1\r\nHost: x\r\n\r\n";
    check_every_split(longer, sizeof(longer) - 1, false, "", BAD);
}

/* A head with `count` fields of the form "N: v", Host included. */
static struct slice
many_fields(char *text, size_t size, int count)
{
    int n = snprintf(text, size, G H);
    for (int i = 1; i < count; i++)
        n += snprintf(text + n, size - (size_t)n, "X: y\r\n");
    n += snprintf(text + n, size - (size_t)n, "\r\n");
    return slice_of(text, (size_t)n);
}

TEST(caps)
{
    static char text[70000];
    struct slice s = many_fields(text, sizeof(text), HEAD_FIELDS_MAX);
    check_every_split(s.ptr, s.len, false, "", REASON_OK);
    s = many_fields(text, sizeof(text), HEAD_FIELDS_MAX + 1);
    check_every_split(s.ptr, s.len, false, "", REASON_REQUEST_TOO_LARGE);
    CHECK(parse_exact(s, false, "") == REASON_REQUEST_TOO_LARGE);
    s = many_fields(text, sizeof(text), 5000);
    check_every_split(s.ptr, s.len, false, "", REASON_REQUEST_TOO_LARGE);
    /* One long value, name or target; the cap is on bytes from the first one on. */
    static const char *const starts[] = {G H "X: ", G H, "GET http://one.test/"};
    for (size_t i = 0; i < 3; i++) {
        int n = snprintf(text, sizeof(text), "%s", starts[i]);
        memset(text + n, 'a', 60000);
        check_every_split(text, (size_t)n + 60000, false, "", REASON_REQUEST_TOO_LARGE);
    }
}

TEST(cap_is_exact)
{
    static const char text[] = G H "\r\n";
    size_t len = sizeof(text) - 1;
    for (size_t cap = 1; cap < len + 3; cap++) {
        struct head_scan scan = {0};
        CHECK(head_scan(&scan, slice_of(text, len), cap) ==
              (cap < len ? HEAD_SCAN_TOO_LARGE : HEAD_SCAN_COMPLETE));
        scan = (struct head_scan){0};
        CHECK(head_scan(&scan, slice_of(text, len - 1), cap) ==
              (cap < len ? HEAD_SCAN_TOO_LARGE : HEAD_SCAN_MORE));
    }
}

TEST(scan_stops_behind_the_head)
{
    static const char text[] = "\r\n" C "\r\n\x16\x03\x01 bytes of the tunnel";
    struct head_scan scan = {0};
    CHECK(head_scan(&scan, slice_of(text, sizeof(text) - 1), CAP) == HEAD_SCAN_COMPLETE);
    CHECK(scan.start == 2 && scan.end == 2 + sizeof(C "\r\n") - 1);
    CHECK(head_scan(&scan, slice_of(text, sizeof(text) - 1), CAP) == HEAD_SCAN_COMPLETE);
    CHECK(scan.end == 2 + sizeof(C "\r\n") - 1);
    /* Verdicts stay. */
    scan = (struct head_scan){0};
    CHECK(head_scan(&scan, slice_str("GET\n"), CAP) == HEAD_SCAN_MALFORMED);
    CHECK(head_scan(&scan, slice_str("GET http://one.test/ HTTP/1.1\r\n"), CAP) ==
          HEAD_SCAN_MALFORMED);
    /* The parser takes one head and nothing round it. */
    CHECK(parse_exact(slice_str("\r\n" G H "\r\n"), false, "") == BAD);
    CHECK(parse_exact(slice_str(G H "\r\nX"), false, "") == BAD);
    CHECK(parse_exact(slice_str(G H), false, "") == BAD);
    CHECK(parse_exact(slice_str(""), false, "") == BAD);
}

#define WS "GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Version: 13\r\n"
#define WS_KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define WS_UP "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
#define WS_ACCEPT                                                                                  \
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" /* the example of RFC 6455            \
                                                                section 1.3 */

TEST(websocket_requests)
{
    CHECK(good(WS WS_KEY WS_UP "\r\n").upgrade_websocket);
    CHECK(
        !good(WS WS_KEY "Connection: keep-alive\r\nUpgrade: websocket\r\n\r\n").upgrade_websocket);
    CHECK(!good(WS WS_KEY "Connection: upgrade\r\nUpgrade: websocket, h2c\r\n\r\n")
               .upgrade_websocket);
    CHECK(!good(WS WS_KEY "Upgrade: h2c\r\n" WS_UP "\r\n").upgrade_websocket);
    CHECK(!good(WS WS_UP "\r\n").upgrade_websocket);
    CHECK(!good(WS WS_KEY WS_KEY WS_UP "\r\n").upgrade_websocket);
    CHECK(!good(WS WS_UP "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\r\n\r\n").upgrade_websocket);
    CHECK(!good(WS WS_UP "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=!\r\n\r\n").upgrade_websocket);
    CHECK(!good(WS WS_KEY WS_UP "Content-Length: 3\r\n\r\n").upgrade_websocket);
    CHECK(!good("POST / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Version: 13\r\n" WS_KEY WS_UP "\r\n")
               .upgrade_websocket);
    CHECK(!good("GET / HTTP/1.0\r\nHost: x\r\nSec-WebSocket-Version: 13\r\n" WS_KEY WS_UP "\r\n")
               .upgrade_websocket);
    CHECK(!good("GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Version: 8\r\n" WS_KEY WS_UP "\r\n")
               .upgrade_websocket);
}

static bool
answers(const char *request_text, const char *response_text)
{
    struct arena *arena = arena_new(4096);
    struct head request = {0}, response = {0};
    CHECK(head_parse_request(arena, slice_str(request_text), &request) == REASON_OK);
    CHECK(head_parse_response(arena, slice_str(response_text), request.method, &response) ==
          REASON_OK);
    bool ok = websocket_accepted(&request, &response);
    arena_free(arena);
    return ok;
}

TEST(websocket_answers)
{
    static const char request[] = WS WS_KEY WS_UP "Sec-WebSocket-Protocol: chat, superchat\r\n\r\n";
    CHECK(answers(request, "HTTP/1.1 101 Switching\r\n" WS_UP WS_ACCEPT "\r\n"));
    CHECK(answers(request, "HTTP/1.1 101 Switching\r\n" WS_UP WS_ACCEPT
                           "Sec-WebSocket-Protocol: chat\r\n\r\n"));
    CHECK(!answers(request, "HTTP/1.1 101 Switching\r\n" WS_UP WS_ACCEPT
                            "Sec-WebSocket-Protocol: other\r\n\r\n"));
    CHECK(!answers(request,
                   "HTTP/1.1 101 Switching\r\n" WS_UP "Sec-WebSocket-Accept: wrong\r\n\r\n"));
    CHECK(!answers(request, "HTTP/1.1 101 Switching\r\n" WS_UP "\r\n"));
    CHECK(!answers(request, "HTTP/1.1 101 Switching\r\n" WS_UP WS_ACCEPT WS_ACCEPT "\r\n"));
    CHECK(!answers(request,
                   "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h2c\r\n" WS_ACCEPT
                   "\r\n"));
    CHECK(!answers(request, "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n" WS_ACCEPT "\r\n"));
    CHECK(!answers(request, "HTTP/1.1 200 OK\r\n" WS_UP WS_ACCEPT "\r\n"));
    CHECK(!answers("GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                   "HTTP/1.1 101 Switching\r\n" WS_UP WS_ACCEPT "\r\n"));
}

#define OK1 "HTTP/1.1 200 OK\r\n"
#define GONE REASON_UPSTREAM_CLOSED

TEST(responses)
{
    static const struct head_case cases[] = {
        {BYTES(OK1 "\r\n"), REASON_OK},
        {BYTES("HTTP/1.0 200 OK\r\n\r\n"), REASON_OK},
        {BYTES("HTTP/1.1 200\r\n\r\n"), REASON_OK},
        {BYTES("HTTP/1.1 200 \r\n\r\n"), REASON_OK},
        {BYTES("HTTP/1.1 599 \xc3\xa4\r\n\r\n"), REASON_OK},
        {BYTES("HTTP/1.1 302 Found\r\nLocation: http://[fe80::1]/\r\nContent-Length: 0\r\n\r\n"),
         REASON_OK},
        {BYTES("\r\n" OK1 "\r\n"), GONE},
        {BYTES(OK1 "Content-Length: 3, 4\r\n\r\n"), GONE},
        {BYTES(OK1 "Content-Length: 3, 3\r\n\r\n"), GONE},
        {BYTES(OK1 "Content-Length: 3\r\nContent-Length: 3\r\n\r\n"), GONE},
        {BYTES(OK1 "Content-Length: +3\r\n\r\n"), GONE},
        {BYTES(OK1 "Content-Length: -1\r\n\r\n"), GONE},
        {BYTES(OK1 "Content-Length: 9223372036854775808\r\n\r\n"), GONE},
        {BYTES(OK1 "Content-Length:\r\n\r\n"), GONE},
        {BYTES(OK1 "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), GONE},
        {BYTES(OK1 "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"), GONE},
        {BYTES(OK1 "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"), GONE},
        {BYTES(OK1 "Transfer-Encoding: xchunked\r\n\r\n"), GONE},
        {BYTES(OK1 "Transfer-Encoding: gzip, chunked\r\n\r\n"), GONE},
        {BYTES(OK1 "Transfer-Encoding: \x0b"
                   "chunked\r\n\r\n"),
         GONE},
        {BYTES("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), GONE},
        {BYTES(OK1 "X: a\rb\r\nContent-Length: 0\r\n\r\n"), GONE},
        {BYTES(OK1 "X : a\r\nContent-Length: 0\r\n\r\n"), GONE},
        {BYTES(OK1 "Xa\r\nContent-Length: 0\r\n\r\n"), GONE},
        {BYTES(OK1 "X: a\r\n b\r\n\r\n"), GONE},
        {BYTES(OK1 " X: a\r\n\r\n"), GONE},
        {BYTES(OK1 "X: a\0b\r\n\r\n"), GONE},
        {BYTES("HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n"), GONE},
        {BYTES(OK1 "Content-Length: 0\n\r\n"), GONE},
        {BYTES(OK1 "\n"), GONE},
        {BYTES("HTTP/1.1 20 OK\r\n\r\n"), GONE},
        {BYTES("HTTP/1.1 2000 OK\r\n\r\n"), GONE},
        {BYTES("HTTP/1.1 099 X\r\n\r\n"), GONE},
        {BYTES("HTTP/1.1 600 X\r\n\r\n"), GONE},
        {BYTES("HTTP/1.1 +20 X\r\n\r\n"), GONE},
        {BYTES("HTTP/1.1 20x X\r\n\r\n"), GONE},
        {BYTES("HTTP/1.1  200 X\r\n\r\n"), GONE},
        {BYTES("HTTP/1.1 200OK\r\n\r\n"), GONE},
        {BYTES("HTTP/1.1 200\tOK\r\n\r\n"), GONE},
        {BYTES("HTTP/1.1 200 O\0K\r\n\r\n"), GONE},
        {BYTES("HTTP/1.1 200 O\rK\r\n\r\n"), GONE},
        {BYTES("HTTP/1.1 200 O\x1bK\r\n\r\n"), GONE},
        {BYTES("HTTP/1.1200 OK\r\n\r\n"), GONE},
        {BYTES("HTTP/2.0 200 OK\r\n\r\n"), GONE},
        {BYTES("HTTP/1.2 200 OK\r\n\r\n"), GONE},
        {BYTES("http/1.1 200 OK\r\n\r\n"), GONE},
        {BYTES("ICY 200 OK\r\n\r\n"), GONE},
        {BYTES("\x15\x03\x01\x00\x02\x02\x28"), GONE},
        {BYTES("HTTP/1.1 200"), REASON_UNDECIDED},
        {BYTES("HTTP/1.1 103 Hints\r\nContent-Length: 3\r\n\r\n"), GONE},
        {BYTES("HTTP/1.1 103 Hints\r\nTransfer-Encoding: chunked\r\n\r\n"), GONE},
        {BYTES("HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n"), REASON_OK},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check_every_split(cases[i].bytes, cases[i].len, true, "GET", cases[i].want);
}

TEST(framing_of_responses)
{
    static const struct {
        const char *method, *text;
        enum body_kind body;
        uint64_t length;
        bool persistent;
    } cases[] = {
        {"GET", OK1 "Content-Length: 5\r\n\r\n", BODY_LENGTH, 5, true},
        {"GET", OK1 "Content-Length: 0\r\n\r\n", BODY_LENGTH, 0, true},
        {"GET", OK1 "Content-Length: 5\r\nConnection: close\r\n\r\n", BODY_LENGTH, 5, false},
        {"GET", OK1 "Transfer-Encoding: Chunked\r\n\r\n", BODY_CHUNKED, 0, true},
        {"GET", OK1 "\r\n", BODY_TO_EOF, 0, false},
        {"GET", OK1 "Connection: keep-alive\r\n\r\n", BODY_TO_EOF, 0, false},
        {"GET", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", BODY_LENGTH, 5, false},
        {"GET", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n",
         BODY_LENGTH, 5, true},
        {"HEAD", OK1 "Content-Length: 5\r\n\r\n", BODY_NONE, 0, true},
        {"HEAD", OK1 "Transfer-Encoding: chunked\r\n\r\n", BODY_NONE, 0, true},
        {"HEAD", OK1 "\r\n", BODY_NONE, 0, true},
        {"head", OK1 "\r\n", BODY_TO_EOF, 0, false}, /* methods have a case */
        {"GET", "HTTP/1.1 204 No\r\n\r\n", BODY_NONE, 0, true},
        {"GET", "HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n", BODY_NONE, 0, false},
        {"GET", "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n", BODY_NONE, 0, false},
        {"GET", "HTTP/1.1 304 Not\r\n\r\n", BODY_NONE, 0, true},
        {"GET", "HTTP/1.1 304 Not\r\nContent-Length: 3\r\n\r\n", BODY_NONE, 0, false},
        {"GET", "HTTP/1.1 103 Hints\r\n\r\n", BODY_NONE, 0, true},
        {"GET", "HTTP/1.1 101 Up\r\n\r\n", BODY_NONE, 0, false},
        {"CONNECT", "HTTP/1.1 200 OK\r\n\r\n", BODY_NONE, 0, true},
        {"CONNECT", "HTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\n", BODY_LENGTH, 4, true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct arena *arena = arena_new(4096);
        struct head h = {0};
        CHECK(head_parse_response(arena, slice_str(cases[i].text), slice_str(cases[i].method),
                                  &h) == REASON_OK);
        CHECK_THAT(h.body == cases[i].body && h.content_length == cases[i].length &&
                       h.persistent == cases[i].persistent,
                   "%s %s: body %d length %llu persistent %d", cases[i].method, cases[i].text,
                   h.body, (unsigned long long)h.content_length, h.persistent);
        arena_free(arena);
    }
}

TEST(parts_of_a_response)
{
    struct arena *arena = arena_new(4096);
    struct head h;
    CHECK(head_parse_response(arena, slice_str("HTTP/1.0 404 Not  Found \r\nA: b\r\n\r\n"),
                              slice_str("GET"), &h) == REASON_OK);
    CHECK(h.status == 404 && h.minor == 0 && slice_is(h.phrase, "Not  Found ") &&
          h.field_count == 1);
    CHECK(head_parse_response(arena, slice_str("HTTP/1.1 200\r\n\r\n"), slice_str("GET"), &h) ==
          REASON_OK);
    CHECK(h.status == 200 && h.phrase.len == 0 && h.field_count == 0);
    arena_free(arena);
}

TEST(response_caps)
{
    static char text[200000];
    int n = snprintf(text, sizeof(text), OK1);
    for (int i = 0; i < 10000; i++)
        n += snprintf(text + n, sizeof(text) - (size_t)n, "X: y\r\n");
    check_every_split(text, (size_t)n, true, "GET", GONE);
    n = snprintf(text, sizeof(text), OK1 "X: ");
    memset(text + n, 'a', 100000);
    check_every_split(text, (size_t)n + 100000, true, "GET", GONE);
}

TEST(many_connection_members_are_refused)
{
    static char text[8192];
    int n = snprintf(text, sizeof(text), G H "Connection: a");
    for (int i = 1; i < 64; i++)
        n += snprintf(text + n, sizeof(text) - (size_t)n, ",a");
    snprintf(text + n, sizeof(text) - (size_t)n, "\r\n\r\n");
    CHECK(parse_exact(slice_str(text), false, "") == REASON_OK);
    snprintf(text + n, sizeof(text) - (size_t)n, ",b\r\n\r\n");
    CHECK(parse_exact(slice_str(text), false, "") == BAD);
}
