/* What a head looks like when it has been passed on, byte for byte, and that it can be read in one
 * way only. */
#include "unit/test.h"

#include <llhttp.h>

#include "sallyport/base/arena.h"
#include "sallyport/http/body.h"
#include "sallyport/http/fields.h"

#define H "Host: one.test\r\n"
#define VIA "Via: 1.1 sallyport\r\n"

static const struct forward_options plain = {.via_pseudonym = "sallyport"};

/* Parses and writes; text gets the outcome, or "" when the buffer is too small. */
static void
pass_request(const char *raw, const struct forward_options *options, size_t cap, char *text,
             size_t size)
{
    struct arena *arena = arena_new(4096);
    struct head head = {0};
    struct target target = {0};
    struct slice path;
    struct buf out;
    struct forward_options o = *options;
    buf_init(&out, cap);
    text[0] = '\0';
    enum reason r = head_parse_request(arena, slice_str(raw), &head);
    CHECK_THAT(r == REASON_OK, "%s: %s", raw, reason_text(r));
    CHECK(target_from_uri(head.target, &target, &path) == REASON_OK);
    o.body = head.body;
    o.content_length = head.content_length;
    if (fields_write_request(&out, &head, &target, path, &o))
        snprintf(text, size, "%.*s", SLICE_ARG(buf_slice(&out)));
    else
        CHECK(buf_len(&out) == 0);
    buf_done(&out);
    arena_free(arena);
}

struct pass_case {
    const char *raw, *want;
};

static void
check_requests(const struct pass_case *cases, size_t count, const struct forward_options *o)
{
    char text[4096];
    for (size_t i = 0; i < count; i++) {
        pass_request(cases[i].raw, o, 4096, text, sizeof(text));
        CHECK_STR(text, cases[i].want);
    }
}
#define CHECK_REQUESTS(cases, o) check_requests(cases, sizeof(cases) / sizeof(cases[0]), o)

TEST(request_lines_and_host)
{
    static const struct pass_case cases[] = {
        {"GET http://One.test./p?q HTTP/1.1\r\nHost: ONE.TEST:80\r\n\r\n",
         "GET /p?q HTTP/1.1\r\n" H VIA "\r\n"},
        {"GET http://one.test HTTP/1.1\r\n" H "\r\n", "GET / HTTP/1.1\r\n" H VIA "\r\n"},
        {"GET http://one.test:8080/ HTTP/1.1\r\nHost: one.test:8080\r\n\r\n",
         "GET / HTTP/1.1\r\nHost: one.test:8080\r\n" VIA "\r\n"},
        {"GET http://one.test:443/ HTTP/1.1\r\nHost: one.test:443\r\n\r\n",
         "GET / HTTP/1.1\r\nHost: one.test:443\r\n" VIA "\r\n"},
        {"GET http://[2001:0db8::7]/ HTTP/1.1\r\nHost: [2001:db8:0::7]\r\n\r\n",
         "GET / HTTP/1.1\r\nHost: [2001:db8::7]\r\n" VIA "\r\n"},
        {"GET http://one.test/ HTTP/1.0\r\n\r\n",
         "GET / HTTP/1.1\r\n" H "Via: 1.0 sallyport\r\n\r\n"},
        {"OPTIONS http://one.test HTTP/1.1\r\n" H "\r\n", "OPTIONS * HTTP/1.1\r\n" H VIA "\r\n"},
        {"OPTIONS http://one.test/ HTTP/1.1\r\n" H "\r\n", "OPTIONS / HTTP/1.1\r\n" H VIA "\r\n"},
        {"PROPFIND http://one.test/ HTTP/1.1\r\n" H "\r\n", "PROPFIND / HTTP/1.1\r\n" H VIA "\r\n"},
        {"GET http://one.test/%2e%2e/%2F/a//b/../c;d?e=%00&f HTTP/1.1\r\n" H "\r\n",
         "GET /%2e%2e/%2F/a//b/../c;d?e=%00&f HTTP/1.1\r\n" H VIA "\r\n"},
    };
    CHECK_REQUESTS(cases, &plain);
}

TEST(hop_by_hop_fields_end_here)
{
#define G "GET http://one.test/ HTTP/1.1\r\n" H
#define OUT "GET / HTTP/1.1\r\n" H
    static const struct pass_case cases[] = {
        {G "Proxy-Authorization: Basic secret\r\nX: y\r\n\r\n", OUT "X: y\r\n" VIA "\r\n"},
        {G "proxy-AUTHENTICATE: x\r\nProxy-Authentication-Info: x\r\nProxy-Status: x\r\nProxy: "
           "http://x\r\nPROXY_X: y\r\n\r\n",
         OUT VIA "\r\n"},
        {G "Proxy-Connection: Keep-Alive\r\nKeep-Alive: 300\r\nTE: trailers\r\nTrailer: X\r\n\r\n",
         OUT VIA "\r\n"},
        {G "Connection: X-Foo, x-BAZ\r\nX-Foo: 1\r\nX-Bar: 2\r\nX-Baz: 3\r\nx-foo: 4\r\n\r\n",
         OUT "X-Bar: 2\r\n" VIA "\r\n"},
        {G "X-Foo: 1\r\nConnection: a\r\nConnection: X-Foo\r\n\r\n", OUT VIA "\r\n"},
        {G "Connection: close\r\n\r\n", OUT VIA "\r\n"},
        {G "Connection: Host, Authorization, Cookie\r\nAuthorization: a\r\nCookie: b\r\n\r\n",
         OUT "Authorization: a\r\nCookie: b\r\n" VIA "\r\n"},
        {G "Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n\r\n", OUT VIA "\r\n"},
        {G
         "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
         OUT VIA "\r\n"},
        {G "HTTP2-Settings: AAMAAABk\r\n\r\n", OUT VIA "\r\n"},
        {G "X-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\n\r\n",
         OUT "X-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\n" VIA "\r\n"},
        {G "Via: 1.1 a\r\nVia: 1.0 b, 1.1 c\r\n\r\n",
         OUT "Via: 1.1 a, 1.0 b, 1.1 c, 1.1 sallyport\r\n\r\n"},
        {G "Connection: Via, Host\r\nVia: 1.1 a\r\n\r\n", OUT VIA "\r\n"},
        {G "A:  x  y\t\r\nB:\r\na: \xff\r\n\r\n", OUT "A: x  y\r\nB: \r\na: \xff\r\n" VIA "\r\n"},
        {G "X-HTTP-Method-Override: PUT\r\n\r\n", OUT "X-HTTP-Method-Override: PUT\r\n" VIA "\r\n"},
    };
    CHECK_REQUESTS(cases, &plain);
}

TEST(framing_is_written_anew)
{
#define P "POST http://one.test/ HTTP/1.1\r\n" H
#define POUT "POST / HTTP/1.1\r\n" H
    static const struct pass_case cases[] = {
        {P "Content-Length: 3\r\nConnection: Content-Length\r\n\r\n",
         POUT "Content-Length: 3\r\n" VIA "\r\n"},
        {P "Connection: Transfer-Encoding\r\nTransfer-Encoding: CHUNKED\r\n\r\n",
         POUT "Transfer-Encoding: chunked\r\n" VIA "\r\n"},
        {P "Content-Length: 0\r\n\r\n", POUT "Content-Length: 0\r\n" VIA "\r\n"},
        {P "\r\n", POUT VIA "\r\n"},
        {P "Expect: 100-Continue\r\nContent-Length: 3\r\nConnection: Expect\r\n\r\n",
         POUT "Expect: 100-continue\r\nContent-Length: 3\r\n" VIA "\r\n"},
        {P "Expect: 100-continue\r\n\r\n", POUT VIA "\r\n"},
    };
    CHECK_REQUESTS(cases, &plain);
}

TEST(options_of_the_proxy)
{
    char text[4096];
    struct forward_options o = plain;
    o.close = true;
    pass_request(G "\r\n", &o, 4096, text, sizeof(text));
    CHECK_STR(text, OUT VIA "Connection: close\r\n\r\n");
    o = plain;
    o.drop_method_override = true;
    pass_request(
        G "X-HTTP-Method-Override: PUT\r\nx-http-method: PUT\r\nX-Method-Override: PUT\r\n\r\n", &o,
        4096, text, sizeof(text));
    CHECK_STR(text, OUT VIA "\r\n");
    o = plain;
    o.absolute = true;
    o.parent_authorization = slice_str("Bearer t");
    pass_request(G "Proxy-Authorization: Basic secret\r\n\r\n", &o, 4096, text, sizeof(text));
    CHECK_STR(text,
              "GET http://one.test/ HTTP/1.1\r\n" H "Proxy-Authorization: Bearer t\r\n" VIA "\r\n");
    pass_request("OPTIONS http://one.test:81 HTTP/1.1\r\nHost: one.test:81\r\n\r\n", &o, 4096, text,
                 sizeof(text));
    CHECK_STR(text, "OPTIONS http://one.test:81 HTTP/1.1\r\nHost: "
                    "one.test:81\r\nProxy-Authorization: Bearer t\r\n" VIA "\r\n");
}

TEST(upgrade_passes_only_when_it_is_one)
{
#define KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    char text[4096];
    struct forward_options o = plain;
    o.keep_upgrade = true;
    pass_request(G KEY "Upgrade: WebSocket\r\nConnection: upgrade, Sec-WebSocket-Key\r\n\r\n", &o,
                 4096, text, sizeof(text));
    CHECK_STR(text, OUT KEY VIA "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    pass_request(G KEY "Upgrade: websocket\r\nConnection: keep-alive\r\n\r\n", &o, 4096, text,
                 sizeof(text));
    CHECK_STR(text, OUT KEY VIA "\r\n");
    pass_request(G KEY "Upgrade: websocket\r\nConnection: upgrade\r\n\r\n", &plain, 4096, text,
                 sizeof(text));
    CHECK_STR(text, OUT KEY VIA "\r\n");
}

TEST(half_a_head_is_never_written)
{
    char text[4096];
    size_t full = sizeof(OUT "X: y\r\n" VIA "\r\n") - 1;
    for (size_t cap = 0; cap < full; cap++) {
        pass_request(G "X: y\r\n\r\n", &plain, cap, text, sizeof(text));
        CHECK(text[0] == '\0');
    }
    pass_request(G "X: y\r\n\r\n", &plain, full, text, sizeof(text));
    CHECK(strlen(text) == full);
}

TEST(server_options_by_path)
{
    struct arena *arena = arena_new(4096);
    struct head head;
    struct target target = {.scheme = SCHEME_HTTP, .port = 81};
    struct buf out;
    struct forward_options o = plain;
    buf_init(&out, 4096);
    CHECK(host_parse(slice_str("one.test"), &target.host));
    CHECK(head_parse_request(
              arena, slice_str("OPTIONS http://one.test:81 HTTP/1.1\r\nHost: one.test:81\r\n\r\n"),
              &head) == REASON_OK);
    CHECK(fields_write_request(&out, &head, &target, slice_str("*"), &o));
    CHECK(slice_starts_with(buf_slice(&out), "OPTIONS * HTTP/1.1\r\nHost: one.test:81\r\n"));
    buf_clear(&out);
    o.absolute = true;
    CHECK(fields_write_request(&out, &head, &target, slice_str("*"), &o));
    CHECK(slice_starts_with(buf_slice(&out), "OPTIONS http://one.test:81 HTTP/1.1\r\n"));
    buf_done(&out);
    arena_free(arena);
}

TEST(a_407_of_an_upstream_is_not_passed_on)
{
    struct arena *arena = arena_new(4096);
    struct head head;
    struct buf out;
    buf_init(&out, 4096);
    static const char raw[] =
        "HTTP/1.1 407 Auth\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n";
    CHECK(head_parse_response(arena, slice_str(raw), slice_str("GET"), &head) == REASON_OK);
    CHECK(!fields_write_response(&out, &head, &plain) && buf_len(&out) == 0);
    buf_done(&out);
    arena_free(arena);
}

static void
pass_response(const char *method, const char *raw, const struct forward_options *options,
              enum body_kind *body, char *text, size_t size)
{
    struct arena *arena = arena_new(4096);
    struct head head = {0};
    struct buf out;
    struct forward_options o = *options;
    buf_init(&out, 4096);
    enum reason r = head_parse_response(arena, slice_str(raw), slice_str(method), &head);
    CHECK_THAT(r == REASON_OK, "%s: %s", raw, reason_text(r));
    o.body = body ? *body : head.body;
    o.content_length = head.content_length;
    CHECK(fields_write_response(&out, &head, &o));
    snprintf(text, size, "%.*s", SLICE_ARG(buf_slice(&out)));
    buf_done(&out);
    arena_free(arena);
}

TEST(responses)
{
#define R "HTTP/1.1 200 OK\r\n"
    static const struct {
        const char *method, *raw, *want;
    } cases[] = {
        {"GET", R "Content-Length: 3\r\nA: b\r\n\r\n",
         R "A: b\r\nContent-Length: 3\r\n" VIA "\r\n"},
        {"GET", R "Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n",
         R "Trailer: X\r\nTransfer-Encoding: chunked\r\n" VIA "\r\n"},
        {"GET", R "\r\n", R VIA "Connection: close\r\n\r\n"},
        {"GET", "HTTP/1.0 200 \r\nContent-Length: 0\r\n\r\n",
         "HTTP/1.1 200 \r\nContent-Length: 0\r\nVia: 1.0 sallyport\r\n\r\n"},
        {"GET", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
         "HTTP/1.1 200 \r\nContent-Length: 0\r\n" VIA "\r\n"},
        {"HEAD", R "Content-Length: 1234\r\n\r\n", R "Content-Length: 1234\r\n" VIA "\r\n"},
        {"HEAD", R "Transfer-Encoding: chunked\r\n\r\n", R VIA "\r\n"},
        {"GET", "HTTP/1.1 304 X\r\nContent-Length: 3\r\n\r\n",
         "HTTP/1.1 304 X\r\nContent-Length: 3\r\n" VIA "\r\n"},
        {"GET", "HTTP/1.1 204 X\r\nContent-Length: 3\r\n\r\n", "HTTP/1.1 204 X\r\n" VIA "\r\n"},
        {"GET", "HTTP/1.1 103 Hints\r\nLink: </x>\r\nContent-Length: 0\r\n\r\n",
         "HTTP/1.1 103 Hints\r\nLink: </x>\r\n" VIA "\r\n"},
        {"GET",
         R
         "Connection: X-Foo\r\nX-Foo: secret\r\nKeep-Alive: timeout=9\r\nContent-Length: 0\r\n\r\n",
         R "Content-Length: 0\r\n" VIA "\r\n"},
        {"GET",
         R "Alt-Svc: h2=\":443\"\r\nUpgrade: h2\r\nProxy-Status: evil\r\nX-Deny-Reason: "
           "ok\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
         R "Content-Length: 0\r\n" VIA "\r\n"},
        {"GET", R "Connection: Set-Cookie, Location\r\nSet-Cookie: a\r\nContent-Length: 0\r\n\r\n",
         R "Set-Cookie: a\r\nContent-Length: 0\r\n" VIA "\r\n"},
        {"GET", "HTTP/1.1 302 Found\r\nLocation: http://two.test/\r\nContent-Length: 0\r\n\r\n",
         "HTTP/1.1 302 Found\r\nLocation: http://two.test/\r\nContent-Length: 0\r\n" VIA "\r\n"},
    };
    char text[4096];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        pass_response(cases[i].method, cases[i].raw, &plain, NULL, text, sizeof(text));
        CHECK_STR(text, cases[i].want);
    }
}

TEST(responses_reframed)
{
    char text[4096];
    enum body_kind chunked = BODY_CHUNKED;
    pass_response("GET", R "\r\n", &plain, &chunked, text, sizeof(text));
    CHECK_STR(text, R "Transfer-Encoding: chunked\r\n" VIA "\r\n");
    struct forward_options o = plain;
    o.keep_upgrade = true;
    pass_response("GET", "HTTP/1.1 101 Up\r\nConnection: upgrade\r\nUpgrade: WEBSOCKET\r\n\r\n", &o,
                  NULL, text, sizeof(text));
    CHECK_STR(text, "HTTP/1.1 101 Up\r\n" VIA "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    pass_response("GET", R "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
                  &o, NULL, text, sizeof(text));
    CHECK_STR(text, R "Content-Length: 0\r\n" VIA "\r\n");
    o.close = true;
    pass_response("GET", R "Content-Length: 0\r\n\r\n", &o, NULL, text, sizeof(text));
    CHECK_STR(text, R "Content-Length: 0\r\n" VIA "Connection: close\r\n\r\n");
}

/* What follows plays proxy: a client's bytes are read request by request, each request for another
 * path than /evil is passed on, and the first refusal ends it. Then upstreams of different tempers
 * read what they got: none may see a request for /evil. */

/* Passes the body on; false when it is refused or not complete. *used: how many bytes of `in` it
 * took. */
static bool
pass_body(struct buf *out, const struct head *head, struct slice in, size_t *used)
{
    struct body_reader *r = body_reader_new(head->body, head->content_length);
    enum body_status status;
    *used = 0;
    do {
        size_t n;
        struct slice data;
        status = body_read(r, slice_of(in.ptr + *used, in.len - *used), &n, &data);
        CHECK(head->body == BODY_NONE || body_write(out, head->body, data));
        *used += n;
        if (n == 0)
            break;
    } while (status == BODY_MORE);
    body_reader_free(r);
    return status == BODY_END && body_write_end(out, head->body, slice_str(""));
}

/* One request of the stream; false at the end of what may pass. */
static bool
pass_one(struct arena *arena, struct buf *out, struct slice *in)
{
    struct head_scan scan = {0};
    struct head head;
    struct target target;
    struct slice path;
    struct forward_options o = plain;
    size_t used, hosts;
    if (head_scan(&scan, *in, 16384) != HEAD_SCAN_COMPLETE)
        return false;
    struct slice bytes = slice_of(in->ptr + scan.start, scan.end - scan.start);
    if (head_parse_request(arena, bytes, &head) != REASON_OK ||
        method_check(head.method) != REASON_OK)
        return false;
    if (target_from_uri(head.target, &target, &path) != REASON_OK ||
        slice_starts_with(path, "/evil"))
        return false;
    struct slice host = head_field(&head, "Host", &hosts);
    if (hosts && target_check_host_field(&target, host) != REASON_OK)
        return false;
    o.body = head.body;
    o.content_length = head.content_length;
    CHECK(fields_write_request(out, &head, &target, path, &o));
    *in = slice_of(in->ptr + scan.end, in->len - scan.end);
    if (!pass_body(out, &head, *in, &used))
        return false;
    *in = slice_of(in->ptr + used, in->len - used);
    return head.persistent;
}

static int
on_url(llhttp_t *parser, const char *at, size_t len)
{
    CHECK_THAT(!slice_starts_with(slice_of(at, len), "/evil"), "the upstream sees %.*s", (int)len,
               at);
    ++*(int *)parser->data;
    return 0;
}

static int
read_as_upstream(struct slice bytes, unsigned leniency)
{
    static const llhttp_settings_t settings = {.on_url = on_url};
    llhttp_t parser;
    int requests = 0;
    llhttp_init(&parser, HTTP_REQUEST, &settings);
    llhttp_set_lenient_headers(&parser, leniency & 1);
    llhttp_set_lenient_chunked_length(&parser, (leniency & 2) != 0);
    llhttp_set_lenient_keep_alive(&parser, (leniency & 4) != 0);
    llhttp_set_lenient_transfer_encoding(&parser, (leniency & 8) != 0);
    parser.data = &requests;
    llhttp_execute(&parser, bytes.ptr, bytes.len);
    return requests;
}

/* `want_passed` requests get through whole, and upstreams with each combination of llhttp's
 * leniencies find them. */
static void
check_stream(const char *text, int want_passed)
{
    struct arena *arena = arena_new(4096);
    struct buf out;
    struct slice in = slice_str(text);
    int passed = 0;
    buf_init(&out, 65536);
    while (in.len && pass_one(arena, &out, &in))
        passed++;
    CHECK_THAT(passed == want_passed, "%s: %d passed", text, passed);
    for (unsigned leniency = 0; leniency < 16; leniency++)
        CHECK_THAT(read_as_upstream(buf_slice(&out), leniency) >= passed, "%s", text);
    buf_done(&out);
    arena_free(arena);
}

#define EVIL "GET http://one.test/evil HTTP/1.1\r\n" H "\r\n"
#define LAST "GET http://one.test/last HTTP/1.1\r\n" H "\r\n"

TEST(no_second_request_hides_in_a_first)
{
    static const struct {
        const char *stream;
        int passed;
    } cases[] = {
        /* Honest streams pass, so that the refusals below mean something. */
        {G "\r\n" LAST, 2},
        {P "Content-Length: 3\r\n\r\nabc" LAST, 2},
        {P "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n\r\n" LAST, 2},
        /* Hidden behind a body that two readers measure differently. */
        {P "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" EVIL, 0},
        {P "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n" EVIL "0\r\n\r\n", 0},
        {P "Content-Length: 44\r\nContent_Length: 0\r\n\r\n" EVIL, 0},
        {P "Content-Length: 44\r\nContent-Length: 0\r\n\r\n" EVIL, 0},
        {P "Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" EVIL, 0},
        {"POST http://one.test/ HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" EVIL,
         0},
        {"POST http://one.test/ HTTP/1.0\r\n" H
         "Connection: keep-alive\r\nContent-Length: 0\r\n\r\n" EVIL,
         0},
        /* Taken away by Connection, so that the upstream would take the body for a request. */
        {P "Connection: Content-Length\r\nContent-Length: 53\r\n\r\n" EVIL LAST, 2},
        {P "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n35\r\n" EVIL
           "\r\n0\r\n\r\n" LAST,
         2},
        /* A body on a method that usually has none. */
        {"GET http://one.test/ HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabc" LAST, 2},
        {"OPTIONS http://one.test HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabc" LAST, 2},
        {"HEAD http://one.test/ HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" LAST,
         2},
        /* Upgrades that the upstream might take: what follows would then be no HTTP to us and HTTP
           to it. */
        {"GET http://one.test/ HTTP/1.1\r\n" H
         "Upgrade: h2c\r\nHTTP2-Settings: A\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n" EVIL,
         1},
        {"GET http://one.test/ HTTP/1.1\r\n" H
         "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 777\r\n\r\n" EVIL,
         1},
        /* Expectations that one side waits for and the other does not. */
        {P "Expect: y 100-continue\r\nContent-Length: 3\r\n\r\nabc" EVIL, 0},
        {P "Expect: 100-continue;a\r\nContent-Length: 3\r\n\r\nabc" EVIL, 0},
        {P "Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc" EVIL, 1},
        /* Chunks. */
        {P "Transfer-Encoding: chunked\r\n\r\n0;\n" EVIL "\r\n0\r\n\r\n", 0},
        {P "Transfer-Encoding: chunked\r\n\r\n2;\nxx\r\n3a\r\n0\r\n\r\n" EVIL "0\r\n\r\n", 0},
        {P "Transfer-Encoding: chunked\r\n\r\n1\r\nZXX0\r\n\r\n" EVIL, 0},
        {P "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 55\r\n\r\n" EVIL, 0},
        {P "Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n" EVIL "\r\n", 0},
        {P "Transfer-Encoding: chunked\r\n\r\n0\r\n" EVIL, 0},
        {P "Transfer-Encoding: chunked\r\n\r\n100000000000000003\r\nabc\r\n0\r\n\r\n" EVIL, 0},
        /* Line ends and white space. */
        {G "X: y\n\n" EVIL "\r\n", 0},
        {G "X: y\r\n\n" EVIL "\r\n", 0},
        {G "X: y\r\n \r\n" EVIL "\r\n", 0},
        {G "X:\r\n GET http://one.test/evil HTTP/1.1\r\n\r\n", 0},
        {G "\r\n\r\n\r\n" EVIL, 1},
        {G "\r\n" EVIL, 1},
        /* In the target. */
        {"GET http://one.test/\tHTTP/1.1\r\n" H "\r\n" EVIL, 0},
        {"GET http://one.test/ HTTP/1.1\x20\r\n" H "\r\n" EVIL, 0},
        {"GET http://one.test#/evil HTTP/1.1\r\n" H "\r\n", 0},
        {"GET http://one.test?/evil HTTP/1.1\r\n" H "\r\n", 0},
        {"GET http://one.test\\/evil HTTP/1.1\r\n" H "\r\n", 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check_stream(cases[i].stream, cases[i].passed);
}

TEST(a_field_behind_the_cap_is_not_lost_but_refused)
{
    static char text[8192];
    int n = snprintf(text, sizeof(text), P);
    for (int i = 1; i < HEAD_FIELDS_MAX; i++)
        n += snprintf(text + n, sizeof(text) - (size_t)n, "X: y\r\n");
    snprintf(text + n, sizeof(text) - (size_t)n,
             "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" EVIL);
    check_stream(text, 0);
}
