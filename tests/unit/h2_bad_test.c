/* HTTP/2 from a hostile peer, written byte by byte: frames that RFC 9113 has a receiver refuse, header blocks that are no
 * message, encodings that RFC 7541 forbids, and floods. Against both roles. */
#include "sallyport/http/h2.h"

#include <jansson.h>

#include "sallyport/http/h2_limits.h"
#include "unit/h2peer.h"
#include "unit/test.h"

static struct buf in;      /* what the hostile peer sends */
static struct peer *p;     /* who gets it */

static void
begin(enum h2_role role)
{
    p = peer_new(role);
    buf_init(&in, RAW_MAX);
    if (role == H2_SERVER)
        put_preface(&in);
    else
        put_frame(&in, SETTINGS, 0, 0, "", 0);
}

/* As begin, with one request that is open: stream 1. */
static void
begin_open(enum h2_role role)
{
    begin(role);
    if (role == H2_SERVER)
        put_request(&in, 1, 0);
    else
        send_request(p, "GET", "/", true);
    h2_session_output(p->s, &p->out);
}

static void
end(void)
{
    CHECK(p->orphans == 0);
    peer_free(p);
    buf_done(&in);
}

static uint32_t
goaway_code(void)
{
    uint32_t code = 0;
    return count_frames(buf_slice(&p->out), GOAWAY, 0, &code) ? code : 999;
}

static uint32_t
reset_code(uint32_t id)
{
    uint32_t code = 0;
    return count_frames(buf_slice(&p->out), RST_STREAM, id, &code) ? code : 999;
}

/* ---- frames ---- */

struct bad_frame {
    const char *name;
    unsigned type, flags;
    uint32_t id;
    const char *payload;
    size_t len;
    int roles;          /* 1: at a server, 2: at a client */
    uint32_t goaway;    /* the code, or NONE */
    uint32_t reset;     /* of stream 1, or NONE */
};
#define NONE 999u
#define BOTH 3

static const char zeros[70000];

/* Stream 1 is open (to a server, the request goes on; to a client, no answer came). Codes: RFC 9113 section 6. */
static const struct bad_frame frames[] = {
    {"DATA on stream 0", DATA, 0, 0, "x", 1, BOTH, H2_PROTOCOL_ERROR, NONE},
    {"DATA on an idle stream", DATA, 0, 5, "x", 1, BOTH, H2_PROTOCOL_ERROR, NONE},
    {"DATA with more padding than payload", DATA, PADDED, 1, "\005abc", 4, BOTH, H2_PROTOCOL_ERROR, NONE},
    {"DATA before any answer", DATA, 0, 1, "x", 1, 2, H2_PROTOCOL_ERROR, NONE},
    {"a frame over SETTINGS_MAX_FRAME_SIZE", DATA, 0, 1, zeros, 16385, BOTH, H2_FRAME_SIZE_ERROR, NONE},
    {"HEADERS on stream 0", HEADERS, END_HEADERS, 0, "\202", 1, BOTH, H2_PROTOCOL_ERROR, NONE},
    {"HEADERS on a stream of ours", HEADERS, END_HEADERS, 2, "\202", 1, BOTH, H2_PROTOCOL_ERROR, NONE},
    {"HEADERS with more padding than payload", HEADERS, END_HEADERS | PADDED, 3, "\011\202", 2, BOTH, H2_PROTOCOL_ERROR, NONE},
    {"HEADERS that depend on themselves", HEADERS, END_HEADERS | WITH_PRIORITY, 3, "\0\0\0\003\0\202", 6, 1, H2_PROTOCOL_ERROR, NONE},
    {"HEADERS of a stream that nobody asked for", HEADERS, END_HEADERS, 7, "\210", 1, 2, H2_PROTOCOL_ERROR, NONE},
    {"PRIORITY on stream 0", PRIORITY, 0, 0, "\0\0\0\1\0", 5, BOTH, H2_PROTOCOL_ERROR, NONE},
    {"PRIORITY of 4 bytes", PRIORITY, 0, 1, "\0\0\0\3", 4, BOTH, H2_FRAME_SIZE_ERROR, NONE},
    {"RST_STREAM on stream 0", RST_STREAM, 0, 0, "\0\0\0\010", 4, BOTH, H2_PROTOCOL_ERROR, NONE},
    {"RST_STREAM of an idle stream", RST_STREAM, 0, 9, "\0\0\0\010", 4, BOTH, H2_PROTOCOL_ERROR, NONE},
    {"RST_STREAM of 3 bytes", RST_STREAM, 0, 1, "\0\0\0", 3, BOTH, H2_FRAME_SIZE_ERROR, NONE},
    {"SETTINGS on a stream", SETTINGS, 0, 1, "", 0, BOTH, H2_PROTOCOL_ERROR, NONE},
    {"SETTINGS acknowledged with a payload", SETTINGS, ACK, 0, "\0\3\0\0\0\1", 6, BOTH, H2_FRAME_SIZE_ERROR, NONE},
    {"SETTINGS of 5 bytes", SETTINGS, 0, 0, "\0\3\0\0\0", 5, BOTH, H2_FRAME_SIZE_ERROR, NONE},
    {"SETTINGS_ENABLE_PUSH 2", SETTINGS, 0, 0, "\0\2\0\0\0\2", 6, BOTH, H2_PROTOCOL_ERROR, NONE},
    {"SETTINGS_INITIAL_WINDOW_SIZE 2^31", SETTINGS, 0, 0, "\0\4\200\0\0\0", 6, BOTH, H2_FLOW_CONTROL_ERROR, NONE},
    {"SETTINGS_MAX_FRAME_SIZE 16383", SETTINGS, 0, 0, "\0\5\0\0\77\377", 6, BOTH, H2_PROTOCOL_ERROR, NONE},
    {"SETTINGS_MAX_FRAME_SIZE 2^24", SETTINGS, 0, 0, "\0\5\1\0\0\0", 6, BOTH, H2_PROTOCOL_ERROR, NONE},
    {"PUSH_PROMISE", PUSH_PROMISE, END_HEADERS, 1, "\0\0\0\2\202", 5, 1, H2_PROTOCOL_ERROR, NONE},
    {"PING on a stream", PING, 0, 1, "12345678", 8, BOTH, H2_PROTOCOL_ERROR, NONE},
    {"PING of 7 bytes", PING, 0, 0, "1234567", 7, BOTH, H2_FRAME_SIZE_ERROR, NONE},
    {"GOAWAY on a stream", GOAWAY, 0, 1, "\0\0\0\0\0\0\0\0", 8, BOTH, H2_PROTOCOL_ERROR, NONE},
    {"GOAWAY of 7 bytes", GOAWAY, 0, 0, "\0\0\0\0\0\0\0", 7, BOTH, H2_FRAME_SIZE_ERROR, NONE},
    {"WINDOW_UPDATE of 0 for the connection", WINDOW_UPDATE, 0, 0, "\0\0\0\0", 4, BOTH, H2_PROTOCOL_ERROR, NONE},
    {"WINDOW_UPDATE of 0 for a stream", WINDOW_UPDATE, 0, 1, "\0\0\0\0", 4, BOTH, H2_PROTOCOL_ERROR, NONE},
    {"WINDOW_UPDATE over 2^31-1 for the connection", WINDOW_UPDATE, 0, 0, "\177\377\377\377", 4, BOTH, H2_FLOW_CONTROL_ERROR, NONE},
    {"WINDOW_UPDATE over 2^31-1 for a stream", WINDOW_UPDATE, 0, 1, "\177\377\377\377", 4, BOTH, NONE, H2_FLOW_CONTROL_ERROR},
    {"WINDOW_UPDATE of an idle stream", WINDOW_UPDATE, 0, 11, "\0\0\0\1", 4, BOTH, H2_PROTOCOL_ERROR, NONE},
    {"WINDOW_UPDATE of 3 bytes", WINDOW_UPDATE, 0, 1, "\0\0\1", 3, BOTH, H2_FRAME_SIZE_ERROR, NONE},
    {"CONTINUATION out of nowhere", CONTINUATION, END_HEADERS, 1, "\202", 1, BOTH, H2_PROTOCOL_ERROR, NONE},
    {"an unknown frame", 0xbe, 0xff, 1, "whatever", 8, BOTH, NONE, NONE},
    {"unknown settings", SETTINGS, 0, 0, "\0\77\0\0\0\1", 6, BOTH, NONE, NONE},
};

static void
try_frame(const struct bad_frame *f, enum h2_role role)
{
    begin_open(role);
    put_frame(&in, f->type, f->flags, f->id, f->payload, f->len);
    peer_feed(p, buf_slice(&in), RAW_MAX);
    CHECK_THAT(goaway_code() == f->goaway, "%s, role %d: GOAWAY %u", f->name, role, goaway_code());
    CHECK_THAT(reset_code(1) == f->reset, "%s, role %d: RST_STREAM %u", f->name, role, reset_code(1));
    CHECK_THAT((h2_session_fault(p->s) != NULL) == (f->goaway != NONE), "%s: %s", f->name, h2_session_fault(p->s));
    CHECK_THAT(h2_session_over(p->s) == (f->goaway != NONE), "%s", f->name);
    end();
}

TEST(frames_that_a_peer_must_refuse)
{
    for (size_t i = 0; i < sizeof frames / sizeof frames[0]; i++) {
        if (frames[i].roles & 1)
            try_frame(&frames[i], H2_SERVER);
        if (frames[i].roles & 2)
            try_frame(&frames[i], H2_CLIENT);
    }
}

/* What must not come between, before or again. */
static void
expect_goaway(const char *name, uint32_t code)
{
    peer_feed(p, buf_slice(&in), 7);
    CHECK_THAT(goaway_code() == code && h2_session_over(p->s), "%s: %u", name, goaway_code());
    end();
}

TEST(frames_out_of_order)
{
    begin(H2_SERVER);
    put_request(&in, 3, END_STREAM);
    put_request(&in, 1, END_STREAM);
    expect_goaway("a lower stream id", H2_PROTOCOL_ERROR);
    begin(H2_SERVER);
    put_request(&in, 2, END_STREAM);
    expect_goaway("an even stream id", H2_PROTOCOL_ERROR);
    begin(H2_SERVER);
    put_request(&in, 1, END_STREAM);
    put_frame(&in, DATA, 0, 1, "x", 1);
    expect_goaway("DATA after END_STREAM", H2_STREAM_CLOSED);
    begin(H2_SERVER);
    put_frame(&in, HEADERS, 0, 1, "\202", 1);
    put_frame(&in, DATA, 0, 1, "x", 1);
    expect_goaway("DATA inside a header block", H2_PROTOCOL_ERROR);
    begin(H2_SERVER);
    put_frame(&in, HEADERS, 0, 1, "\202", 1);
    put_frame(&in, CONTINUATION, END_HEADERS, 3, "\204", 1);
    expect_goaway("CONTINUATION of another stream", H2_PROTOCOL_ERROR);
    begin(H2_SERVER);
    put_frame(&in, HEADERS, 0, 1, "\202", 1);
    put_frame(&in, 0xbe, 0, 0, "", 0);
    expect_goaway("an unknown frame inside a header block", H2_PROTOCOL_ERROR);
    for (int role = H2_SERVER; role <= H2_CLIENT; role++) {
        p = peer_new((enum h2_role)role);
        buf_init(&in, RAW_MAX);
        if (role == H2_SERVER)
            buf_append_str(&in, PREFACE);
        put_frame(&in, PING, 0, 0, "12345678", 8);
        expect_goaway("no SETTINGS at first", H2_PROTOCOL_ERROR);
    }
}

/* One reset for all heads that come on a stream that is closed; none where we reset it ourselves, since that crosses. */
TEST(heads_on_closed_streams)
{
    for (int by_peer = 0; by_peer < 2; by_peer++) {
        begin(H2_SERVER);
        put_request(&in, 1, by_peer ? 0 : END_STREAM);
        if (by_peer)
            put_u32(&in, RST_STREAM, 1, H2_CANCEL);
        peer_feed(p, buf_slice(&in), RAW_MAX);
        if (!by_peer)
            send_status(p->msgs[0].stream, 204, true);
        h2_session_output(p->s, &p->out);
        CHECK(p->msgs[0].closed && h2_session_streams(p->s) == 0);
        for (int i = 0; i < 100; i++) {
            buf_clear(&in);
            put_request(&in, 1, END_STREAM);
            put_frame(&in, DATA, 0, 1, "late", 4);
            peer_feed(p, buf_slice(&in), RAW_MAX);
        }
        CHECK(count_frames(buf_slice(&p->out), RST_STREAM, 1, NULL) == 1 && reset_code(1) == H2_STREAM_CLOSED);
        CHECK(goaway_code() == NONE && p->count == 1);
        end();
    }
    begin_open(H2_SERVER);
    peer_feed(p, buf_slice(&in), RAW_MAX);
    h2_stream_reset(p->msgs[0].stream, H2_CANCEL);
    p->msgs[0].stream = NULL;
    h2_session_output(p->s, &p->out);
    buf_clear(&in);
    for (int i = 0; i < 100; i++)
        put_request(&in, 1, END_STREAM);
    peer_feed(p, buf_slice(&in), RAW_MAX);
    CHECK(count_frames(buf_slice(&p->out), RST_STREAM, 1, NULL) == 1 && reset_code(1) == H2_CANCEL && goaway_code() == NONE);
    end();
}

TEST(a_flood_of_heads_on_closed_streams)
{
    begin(H2_SERVER);
    for (uint32_t i = 0; i < 80; i++) {
        put_request(&in, 1 + 2 * i, 0);
        put_u32(&in, RST_STREAM, 1 + 2 * i, H2_CANCEL);
        put_request(&in, 1 + 2 * i, 0);
    }
    expect_goaway("heads on many closed streams", H2_ENHANCE_YOUR_CALM);
}

/* Until our SETTINGS have arrived a server may still push: what it promises is refused, and the request goes on. */
TEST(pushes_are_refused)
{
    struct buf block;
    for (int acked = 0; acked < 2; acked++) {
        begin_open(H2_CLIENT);
        buf_init(&block, RAW_MAX);
        buf_append(&block, "\0\0\0\2", 4);
        put_get(&block, "example.com", "/pushed");
        if (acked)
            put_frame(&in, SETTINGS, ACK, 0, "", 0);
        put_frame(&in, PUSH_PROMISE, END_HEADERS, 1, block.data, buf_len(&block));
        buf_done(&block);
        if (!acked)
            put_frame(&in, HEADERS, END_HEADERS | END_STREAM, 1, "\211", 1);
        peer_feed(p, buf_slice(&in), RAW_MAX);
        CHECK(goaway_code() == (acked ? H2_PROTOCOL_ERROR : NONE));
        CHECK(acked || (reset_code(2) != NONE && p->msgs[0].closed && p->msgs[0].head && p->msgs[0].head->head.status == 204));
        end();
    }
}

TEST(a_wrong_preface)
{
    static const char *const wrong[] = {"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\rx",
                                        "PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        for (size_t step = 1; step < 30; step += 28) {
            p = peer_new(H2_SERVER);
            CHECK(!peer_feed(p, slice_str(wrong[i]), step) && goaway_code() == H2_PROTOCOL_ERROR && h2_session_over(p->s));
            peer_free(p);
        }
}

/* A peer that sends more than its window. */
TEST(windows_are_held)
{
    begin_open(H2_SERVER);
    p->hold = true;
    for (int i = 0; i < 5; i++)
        put_frame(&in, DATA, 0, 1, zeros, 16384);
    peer_feed(p, buf_slice(&in), RAW_MAX);
    CHECK(reset_code(1) == H2_FLOW_CONTROL_ERROR && buf_len(&p->msgs[0].data) <= 65536 && p->msgs[0].closed);
    CHECK(goaway_code() == NONE);
    end();
}

/* SETTINGS take credit back (RFC 9113 section 6.9.2): nothing more goes out until it is positive again. */
TEST(a_window_can_become_negative)
{
    begin(H2_SERVER);
    put_request(&in, 1, END_STREAM);
    peer_feed(p, buf_slice(&in), RAW_MAX);
    send_status(p->msgs[0].stream, 200, false);
    CHECK(h2_stream_write(p->msgs[0].stream, slice_of(zeros, 60000)));
    h2_session_output(p->s, &p->out);
    CHECK(p->msgs[0].sent == 60000);
    buf_clear(&in);
    put_frame(&in, SETTINGS, 0, 0, "\0\4\0\0\0\0", 6); /* 60,000 below zero */
    peer_feed(p, buf_slice(&in), RAW_MAX);
    CHECK(h2_stream_write(p->msgs[0].stream, slice_of(zeros, 5000)));
    buf_clear(&in);
    put_u32(&in, WINDOW_UPDATE, 1, 60000);
    peer_feed(p, buf_slice(&in), RAW_MAX);
    CHECK(p->msgs[0].sent == 60000);
    buf_clear(&in);
    put_u32(&in, WINDOW_UPDATE, 1, 1);
    peer_feed(p, buf_slice(&in), RAW_MAX);
    CHECK(p->msgs[0].sent == 60001 && goaway_code() == NONE);
    end();
}

/* ---- header blocks ---- */

#define FIELDS 8
struct block_case {
    const char *name;
    struct {
        const char *name, *value;
        size_t value_len; /* 0: to the NUL */
    } f[FIELDS];
};
#define GET {":method", "GET", 0}, {":scheme", "https", 0}, {":authority", "example.com", 0}, {":path", "/", 0}

static void
put_case(struct buf *block, const struct block_case *c)
{
    for (size_t i = 0; i < FIELDS && c->f[i].name; i++)
        put_literal(block, 0, c->f[i].name, strlen(c->f[i].name), c->f[i].value,
                    c->f[i].value_len ? c->f[i].value_len : strlen(c->f[i].value));
}

/* One block on stream `id`; is it refused? */
static bool
is_refused(const struct block_case *c, uint32_t id, unsigned flags)
{
    struct buf block;
    buf_init(&block, RAW_MAX);
    put_case(&block, c);
    put_headers(&in, flags | END_HEADERS, id, &block);
    buf_done(&block);
    peer_feed(p, buf_slice(&in), RAW_MAX);
    CHECK_THAT(goaway_code() == NONE, "%s: GOAWAY %u %s", c->name, goaway_code(), h2_session_fault(p->s));
    uint32_t code = reset_code(id);
    CHECK_THAT(code == H2_PROTOCOL_ERROR || code == NONE, "%s: RST_STREAM %u", c->name, code);
    return code != NONE;
}

static const struct block_case good_requests[] = {
    {"the plain one", {GET}},
    {"an empty value", {GET, {"x-empty", "", 0}}},
    {"bytes above 0x7f, and a tab inside", {GET, {"x-text", "caf\xc3\xa9\tx", 0}}},
    {"TE: trailers", {GET, {"te", "trailers", 0}}},
    {"Host in other letters", {GET, {"host", "EXAMPLE.com", 0}}},
    {"Host for :authority", {{":method", "GET", 0}, {":scheme", "https", 0}, {":path", "/", 0}, {"host", "example.com", 0}}},
    {"OPTIONS *", {{":method", "OPTIONS", 0}, {":scheme", "https", 0}, {":authority", "example.com", 0}, {":path", "*", 0}}},
    {"another method", {{":method", "PROPFIND", 0}, {":scheme", "https", 0}, {":authority", "example.com", 0}, {":path", "/", 0}}},
    {"another authority", {{":method", "GET", 0}, {":scheme", "https", 0}, {":authority", "evil.example", 0}, {":path", "/", 0}}},
    {"another scheme", {{":method", "GET", 0}, {":scheme", "http", 0}, {":authority", "example.com", 0}, {":path", "/", 0}}},
    {"CONNECT", {{":method", "CONNECT", 0}, {":authority", "example.com:443", 0}}},
};

static const struct block_case bad_requests[] = {
    {"nothing", {{NULL, NULL, 0}}},
    {"no :method", {{":scheme", "https", 0}, {":authority", "example.com", 0}, {":path", "/", 0}}},
    {"no :scheme", {{":method", "GET", 0}, {":authority", "example.com", 0}, {":path", "/", 0}}},
    {"no :path", {{":method", "GET", 0}, {":scheme", "https", 0}, {":authority", "example.com", 0}}},
    {"no :authority and no Host", {{":method", "GET", 0}, {":scheme", "https", 0}, {":path", "/", 0}}},
    {"an empty :path", {{":method", "GET", 0}, {":scheme", "https", 0}, {":authority", "example.com", 0}, {":path", "", 0}}},
    {"an empty :authority", {{":method", "GET", 0}, {":scheme", "https", 0}, {":authority", "", 0}, {":path", "/", 0}}},
    {"an empty :method", {{":method", "", 0}, {":scheme", "https", 0}, {":authority", "example.com", 0}, {":path", "/", 0}}},
    {"userinfo", {{":method", "GET", 0}, {":scheme", "https", 0}, {":authority", "u@example.com", 0}, {":path", "/", 0}}},
    {"* without OPTIONS", {{":method", "GET", 0}, {":scheme", "https", 0}, {":authority", "example.com", 0}, {":path", "*", 0}}},
    {"a path without a slash", {{":method", "GET", 0}, {":scheme", "https", 0}, {":authority", "example.com", 0}, {":path", "a", 0}}},
    {"absolute-form", {{":method", "GET", 0}, {":scheme", "https", 0}, {":authority", "example.com", 0}, {":path", "https://example.com/", 0}}},
    {"a fragment", {{":method", "GET", 0}, {":scheme", "https", 0}, {":authority", "example.com", 0}, {":path", "/#a", 0}}},
    {"a space in :path", {{":method", "GET", 0}, {":scheme", "https", 0}, {":authority", "example.com", 0}, {":path", "/ HTTP/1.1", 0}}},
    {"CRLF in :path", {{":method", "GET", 0}, {":scheme", "https", 0}, {":authority", "example.com", 0}, {":path", "/\r\nHost: evil", 0}}},
    {"a space in :method", {{":method", "GET /", 0}, {":scheme", "https", 0}, {":authority", "example.com", 0}, {":path", "/", 0}}},
    {"CRLF in :method", {{":method", "GET\r\n", 0}, {":scheme", "https", 0}, {":authority", "example.com", 0}, {":path", "/", 0}}},
    {"a long :method", {{":method", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 0}, {":scheme", "https", 0}, {":authority", "example.com", 0}, {":path", "/", 0}}},
    {"a space in :authority", {{":method", "GET", 0}, {":scheme", "https", 0}, {":authority", "example.com evil", 0}, {":path", "/", 0}}},
    {"CRLF in :scheme", {{":method", "GET", 0}, {":scheme", "https\r\nx", 0}, {":authority", "example.com", 0}, {":path", "/", 0}}},
    {":path twice", {GET, {":path", "/b", 0}}},
    {":authority twice", {GET, {":authority", "example.com", 0}}},
    {":method twice", {GET, {":method", "GET", 0}}},
    {":scheme twice", {GET, {":scheme", "https", 0}}},
    {"an unknown pseudo-header field", {GET, {":nope", "1", 0}}},
    {":status in a request", {GET, {":status", "200", 0}}},
    {":protocol without the setting", {{":method", "CONNECT", 0}, {":scheme", "https", 0}, {":authority", "example.com", 0}, {":path", "/", 0}, {":protocol", "websocket", 0}}},
    {":protocol without CONNECT", {GET, {":protocol", "websocket", 0}}},
    {"a pseudo-header field after a regular one", {{":method", "GET", 0}, {":scheme", "https", 0}, {":authority", "example.com", 0}, {"a", "b", 0}, {":path", "/", 0}}},
    {"CONNECT with a path", {{":method", "CONNECT", 0}, {":scheme", "https", 0}, {":authority", "example.com:443", 0}, {":path", "/", 0}}},
    {"CONNECT without :authority", {{":method", "CONNECT", 0}, {"host", "example.com", 0}, {":path", "/", 0}}},
    {"Host differs", {GET, {"host", "evil.example", 0}}},
    {"Host differs by a port", {GET, {"host", "example.com:443", 0}}},
    {"Host twice", {GET, {"host", "example.com", 0}, {"host", "example.com", 0}}},
    {"an empty Host", {GET, {"host", "", 0}}},
    {"an upper-case name", {GET, {"X-Foo", "1", 0}}},
    {"an empty name", {GET, {"", "1", 0}}},
    {"a space in a name", {GET, {"a b", "1", 0}}},
    {"a colon in a name", {GET, {"a:b", "1", 0}}},
    {"CRLF in a name", {GET, {"a\r\nb", "1", 0}}},
    {"a byte above 0x7f in a name", {GET, {"caf\xc3\xa9", "1", 0}}},
    {"CRLF in a value", {GET, {"foo", "a\r\nTransfer-Encoding: chunked", 0}}},
    {"LF in a value", {GET, {"foo", "a\nb", 0}}},
    {"CR in a value", {GET, {"foo", "a\rb", 0}}},
    {"NUL in a value", {GET, {"foo", "a\0b", 3}}},
    {"DEL in a value", {GET, {"foo", "a\177", 0}}},
    {"a space before a value", {GET, {"foo", " a", 0}}},
    {"a tab behind a value", {GET, {"foo", "a\t", 0}}},
    {"Connection", {GET, {"connection", "close", 0}}},
    {"Proxy-Connection", {GET, {"proxy-connection", "close", 0}}},
    {"Keep-Alive", {GET, {"keep-alive", "1", 0}}},
    {"Transfer-Encoding", {GET, {"transfer-encoding", "chunked", 0}}},
    {"Upgrade", {GET, {"upgrade", "websocket", 0}}},
    {"TE: gzip", {GET, {"te", "gzip", 0}}},
    {"TE: trailers, gzip", {GET, {"te", "trailers, gzip", 0}}},
    {"Content-Length twice", {GET, {"content-length", "0", 0}, {"content-length", "0", 0}}},
    {"Content-Length of two numbers", {GET, {"content-length", "0, 0", 0}}},
    {"Content-Length with a sign", {GET, {"content-length", "+0", 0}}},
    {"Content-Length over 2^63", {GET, {"content-length", "9223372036854775808", 0}}},
    {"Content-Length without a body", {GET, {"content-length", "5", 0}}},
    {"Content-Length in disguise", {GET, {"content_length", "0", 0}}},
    {"Transfer-Encoding in disguise", {GET, {"transfer_encoding", "chunked", 0}}},
};

TEST(requests_that_are_no_message)
{
    for (size_t i = 0; i < sizeof good_requests / sizeof good_requests[0]; i++) {
        bool connect = strcmp(good_requests[i].f[0].value, "CONNECT") == 0;
        begin(H2_SERVER);
        CHECK_THAT(!is_refused(&good_requests[i], 1, connect ? 0 : END_STREAM), "%s", good_requests[i].name);
        CHECK_THAT(p->count == 1 && p->malformed == 0, "%s", good_requests[i].name);
        end();
    }
    for (size_t i = 0; i < sizeof bad_requests / sizeof bad_requests[0]; i++) {
        begin(H2_SERVER);
        CHECK_THAT(is_refused(&bad_requests[i], 1, END_STREAM), "%s", bad_requests[i].name);
        CHECK_THAT(p->count == 0 && p->malformed == 1, "%s: %zu told, %u malformed", bad_requests[i].name, p->count, p->malformed);
        end();
    }
}

static const struct block_case bad_responses[] = {
    {"no :status", {{"a", "b", 0}}},
    {":status of 2 digits", {{":status", "20", 0}}},
    {":status of letters", {{":status", "2xx", 0}}},
    {":status 99", {{":status", "099", 0}}},
    {":status 600", {{":status", "600", 0}}},
    {":status 101", {{":status", "101", 0}}},
    {":status twice", {{":status", "200", 0}, {":status", "200", 0}}},
    {":status behind", {{"a", "b", 0}, {":status", "200", 0}}},
    {":method in a response", {{":status", "200", 0}, {":method", "GET", 0}}},
    {"Connection", {{":status", "200", 0}, {"connection", "close", 0}}},
    {"Transfer-Encoding", {{":status", "200", 0}, {"transfer-encoding", "chunked", 0}}},
    {"Upgrade", {{":status", "200", 0}, {"upgrade", "h2c", 0}}},
    {"TE", {{":status", "200", 0}, {"te", "trailers", 0}}},
    {"an upper-case name", {{":status", "200", 0}, {"Set-Cookie", "a=1", 0}}},
    {"CRLF in a value", {{":status", "200", 0}, {"location", "/\r\nx: y", 0}}},
    {"Content-Length twice", {{":status", "200", 0}, {"content-length", "1", 0}, {"content-length", "2", 0}}},
    {"an interim response with a length", {{":status", "103", 0}, {"content-length", "1", 0}}},
};

TEST(responses_that_are_no_message)
{
    for (size_t i = 0; i < sizeof bad_responses / sizeof bad_responses[0]; i++) {
        begin_open(H2_CLIENT);
        CHECK_THAT(is_refused(&bad_responses[i], 1, 0), "%s", bad_responses[i].name);
        CHECK_THAT(!p->msgs[0].head && !p->msgs[0].interim && p->msgs[0].closed, "%s", bad_responses[i].name);
        CHECK_THAT(p->msgs[0].code == H2_PROTOCOL_ERROR, "%s", bad_responses[i].name);
        end();
    }
    const struct block_case interim = {"an interim response that ends the stream", {{":status", "100", 0}}};
    begin_open(H2_CLIENT);
    CHECK(is_refused(&interim, 1, END_STREAM) && p->msgs[0].closed);
    end();
}

static const struct block_case bad_trailers[] = {
    {"a pseudo-header field", {{":path", "/", 0}}},
    {":status", {{":status", "200", 0}}},
    {"Content-Length", {{"content-length", "5", 0}}},
    {"Host", {{"host", "example.com", 0}}},
    {"Transfer-Encoding", {{"transfer-encoding", "chunked", 0}}},
    {"an upper-case name", {{"X-Sum", "1", 0}}},
    {"CRLF", {{"x-sum", "1\r\n", 0}}},
};

TEST(trailers_that_are_none)
{
    for (size_t i = 0; i < sizeof bad_trailers / sizeof bad_trailers[0]; i++) {
        begin_open(H2_SERVER);
        CHECK_THAT(is_refused(&bad_trailers[i], 1, END_STREAM), "%s", bad_trailers[i].name);
        CHECK_THAT(p->count == 1 && p->msgs[0].closed && p->msgs[0].ends == 0 && p->malformed == 0, "%s", bad_trailers[i].name);
        end();
    }
    const struct block_case good = {"trailers that do not end the stream", {{"x-sum", "1", 0}}};
    begin_open(H2_SERVER);
    CHECK(is_refused(&good, 1, 0) && p->msgs[0].ends == 0);
    end();
    begin_open(H2_SERVER);
    CHECK(!is_refused(&good, 1, END_STREAM) && p->msgs[0].ends == 1 && p->msgs[0].trailers);
    end();
}

/* The declared length, and more, less, or exactly that much data. */
static bool
length_agrees(const char *declared, size_t sent, bool trailers)
{
    struct buf block;
    begin(H2_SERVER);
    buf_init(&block, RAW_MAX);
    put_field(&block, ":method", "POST");
    put_field(&block, ":scheme", "https");
    put_field(&block, ":authority", "example.com");
    put_field(&block, ":path", "/");
    put_field(&block, "content-length", declared);
    put_headers(&in, END_HEADERS, 1, &block);
    put_frame(&in, DATA, trailers ? 0 : END_STREAM, 1, zeros, sent);
    if (trailers)
        put_frame(&in, HEADERS, END_STREAM | END_HEADERS, 1, "\0\1a\1b", 5);
    buf_done(&block);
    peer_feed(p, buf_slice(&in), RAW_MAX);
    bool refused = reset_code(1) == H2_PROTOCOL_ERROR;
    CHECK(p->count == 1 && p->msgs[0].ended == !refused && p->msgs[0].head->head.body == BODY_LENGTH);
    end();
    return !refused;
}

TEST(content_length_must_agree)
{
    CHECK(length_agrees("5", 5, false) && length_agrees("5", 5, true));
    CHECK(!length_agrees("5", 3, false) && !length_agrees("5", 6, false) && !length_agrees("5", 0, false));
    CHECK(!length_agrees("5", 3, true) && !length_agrees("0", 1, false));
}

/* ---- HPACK ---- */

struct hpack_case {
    const char *name, *block;
    size_t len;
};
#define BYTES(s) s, sizeof(s) - 1

TEST(encodings_that_end_the_connection)
{
    static const struct hpack_case bad[] = {
        {"index 0", BYTES("\200")},
        {"an index past both tables", BYTES("\276")},
        {"a name index past both tables", BYTES("\177\1\1a")},
        {"an integer without an end", BYTES("\377\377\377\377\377\377\377\377\377\377\377\1")},
        {"an integer over 2^32", BYTES("\377\200\200\200\200\200\1")},
        {"a string longer than the block", BYTES("\0\5ab")},
        {"Huffman: EOS inside", BYTES("\0\1a\204\377\377\377\377")},
        {"Huffman: padding of zeros", BYTES("\0\1a\201\30")},
        {"Huffman: padding of 8 bits", BYTES("\0\1a\202\37\377")},
        {"a table larger than was allowed", BYTES("\77\342\37\202")},
        {"a table update behind a field", BYTES("\202\40")},
        {"a block cut in a field", BYTES("\100\1a")},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        for (int role = H2_SERVER; role <= H2_CLIENT; role++) {
            begin_open((enum h2_role)role);
            put_frame(&in, HEADERS, END_HEADERS | END_STREAM, role == H2_SERVER ? 3 : 1, bad[i].block, bad[i].len);
            peer_feed(p, buf_slice(&in), 1);
            CHECK_THAT(goaway_code() == H2_COMPRESSION_ERROR && h2_session_over(p->s), "%s, role %d: %u", bad[i].name, role, goaway_code());
            end();
        }
}

static void
check_example(size_t i, const char *path, const char *custom)
{
    const struct h2_head *h = p->msgs[i].head;
    CHECK_THAT(p->count > i && slice_is(h->head.method, "GET") && slice_is(h->authority, "www.example.com") &&
                   slice_is(h->path, path) && slice_is(field_of(h, "custom-key"), custom),
               "request %zu of %zu", i, p->count);
}

/* RFC 7541 appendix C.3 and C.4: three requests on one connection that share a table, plain and in Huffman code. */
TEST(the_examples_of_the_rfc)
{
    static const struct hpack_case rows[2][3] = {
        {{"C.3.1", BYTES("\x82\x86\x84\x41\x0f\x77\x77\x77\x2e\x65\x78\x61\x6d\x70\x6c\x65\x2e\x63\x6f\x6d")},
         {"C.3.2", BYTES("\x82\x86\x84\xbe\x58\x08\x6e\x6f\x2d\x63\x61\x63\x68\x65")},
         {"C.3.3", BYTES("\x82\x87\x85\xbf\x40\x0a\x63\x75\x73\x74\x6f\x6d\x2d\x6b\x65\x79\x0c\x63\x75\x73\x74\x6f\x6d\x2d\x76"
                         "\x61\x6c\x75\x65")}},
        {{"C.4.1", BYTES("\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff")},
         {"C.4.2", BYTES("\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf")},
         {"C.4.3", BYTES("\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf")}}};
    for (int k = 0; k < 2; k++) {
        begin(H2_SERVER);
        for (uint32_t i = 0; i < 3; i++)
            put_frame(&in, HEADERS, END_HEADERS | END_STREAM, 1 + 2 * i, rows[k][i].block, rows[k][i].len);
        CHECK(peer_feed(p, buf_slice(&in), 3) && p->count == 3);
        check_example(0, "/", "");
        check_example(1, "/", "");
        CHECK(slice_is(field_of(p->msgs[1].head, "cache-control"), "no-cache"));
        check_example(2, "/index.html", "custom-value");
        end();
    }
}

/* ---- floods and the rest of the vectors ---- */

static bool
calmed(const char *why)
{
    bool fed = peer_feed(p, buf_slice(&in), RAW_MAX);
    bool ok = !fed && goaway_code() == H2_ENHANCE_YOUR_CALM && h2_session_over(p->s) && buf_len(&p->out) < 100000;
    if (!ok)
        printf("  GOAWAY %u, %zu bytes out, %s\n", goaway_code(), buf_len(&p->out), h2_session_fault(p->s));
    return ok && strcmp(h2_session_fault(p->s), why) == 0;
}

static bool
flood(enum h2_role role, unsigned type, unsigned flags, uint32_t id, const char *payload, size_t len, const char *why)
{
    begin_open(role);
    for (int i = 0; i < 100000; i++)
        put_frame(&in, type, flags, id, payload, len);
    bool ok = calmed(why);
    end();
    return ok;
}

static bool
flood_both(unsigned type, uint32_t id, const char *payload, size_t len, const char *why)
{
    return flood(H2_SERVER, type, 0, id, payload, len, why) && flood(H2_CLIENT, type, 0, id, payload, len, why);
}

static bool
v_rapid_reset(void)
{
    begin(H2_SERVER);
    for (uint32_t i = 0; i < 10000; i++) {
        put_request(&in, 1 + 2 * i, END_STREAM);
        put_u32(&in, RST_STREAM, 1 + 2 * i, H2_CANCEL);
    }
    bool fed = true;
    for (size_t at = 0; fed && at < buf_len(&in) && p->count < MSGS_MAX - 1; at += 50)
        fed = h2_session_feed(p->s, slice_of(in.data + at, buf_len(&in) - at < 50 ? buf_len(&in) - at : 50), 2000);
    h2_session_output(p->s, &p->out);
    size_t open = 0;
    for (size_t i = 0; i < p->count; i++)
        open += !p->msgs[i].closed;
    /* Who owns a stream hears of its end, the one at which the fault was found too. */
    bool ok = !fed && goaway_code() == H2_ENHANCE_YOUR_CALM && p->count <= 128 && open == h2_session_streams(p->s);
    end();
    return ok;
}

/* One stream error a frame, of three kinds; each is a reset of ours. */
static bool
v_made_you_reset(void)
{
    bool ok = true;
    for (int kind = 0; kind < 3; kind++) {
        begin(H2_SERVER);
        for (uint32_t i = 0; i < 100; i++) {
            uint32_t id = 1 + 2 * i;
            put_request(&in, id, 0);
            if (kind == 0)
                put_u32(&in, WINDOW_UPDATE, id, 0x7fffffff);
            else if (kind == 1)
                put_frame(&in, HEADERS, END_HEADERS, id, "\0\1a\1b", 5); /* trailers without an end */
            else
                put_frame(&in, HEADERS, END_HEADERS | END_STREAM, id, "\0\1A\1b", 5);
        }
        for (size_t at = 0; at < buf_len(&in); at += 500)
            peer_feed(p, slice_of(in.data + at, buf_len(&in) - at < 500 ? buf_len(&in) - at : 500), 500);
        ok = ok && goaway_code() == H2_ENHANCE_YOUR_CALM && p->count <= 60;
        end();
    }
    return ok;
}

static bool
v_continuation_flood(void)
{
    bool ok = true;
    for (size_t len = 0; len <= 16384; len += 16384)
        for (int role = H2_SERVER; role <= H2_CLIENT; role++) {
            begin_open((enum h2_role)role);
            uint32_t id = role == H2_SERVER ? 3 : 1;
            put_frame(&in, HEADERS, 0, id, "", 0);
            for (int i = 0; i < (len ? 1000 : 100000); i++)
                put_frame(&in, CONTINUATION, 0, id, zeros, len);
            ok = ok && calmed("continuation flood");
            end();
        }
    return ok;
}

/* A field of 4,000 bytes in the table, then one byte each time. */
static bool
v_hpack_bomb(void)
{
    struct buf block;
    char big[4000];
    memset(big, 'x', sizeof big);
    begin(H2_SERVER);
    buf_init(&block, RAW_MAX);
    put_get(&block, "example.com", "/");
    put_literal(&block, 0x40, "bomb", 4, big, sizeof big);
    for (int i = 0; i < 10000; i++)
        buf_append(&block, "\276", 1);
    put_headers(&in, END_HEADERS | END_STREAM, 1, &block);
    buf_done(&block);
    peer_feed(p, buf_slice(&in), RAW_MAX);
    bool ok = p->count == 0 && goaway_code() == H2_ENHANCE_YOUR_CALM &&
              strcmp(h2_session_fault(p->s), "header list bomb") == 0;
    end();
    return ok;
}

/* 16,000 table updates a block: a decoder's work is that of its bytes, and the message stays what it is. */
static bool
v_table_churn(void)
{
    struct buf block;
    begin(H2_SERVER);
    buf_init(&block, RAW_MAX);
    for (int i = 0; i < 4000; i++)
        buf_append(&block, "\40\77\341\37", 4);
    put_get(&block, "example.com", "/");
    for (uint32_t i = 0; i < 10; i++)
        put_headers(&in, END_HEADERS | END_STREAM, 1 + 2 * i, &block);
    buf_done(&block);
    peer_feed(p, buf_slice(&in), 1000);
    bool ok = p->count + p->malformed <= 10 && buf_len(&p->out) < 10000;
    end();
    return ok;
}

static bool
v_bad_encodings(void)
{
    begin(H2_SERVER);
    put_frame(&in, HEADERS, END_HEADERS | END_STREAM, 1, "\377\377\377\377\377\377\377\377\1", 9);
    peer_feed(p, buf_slice(&in), RAW_MAX);
    bool ok = goaway_code() == H2_COMPRESSION_ERROR && h2_session_over(p->s);
    end();
    return ok;
}

static bool
v_ping_flood(void)
{
    return flood_both(PING, 0, "12345678", 8, "ping flood");
}

static bool
v_settings_flood(void)
{
    return flood_both(SETTINGS, 0, "", 0, "settings flood");
}

static bool
v_settings_never_acked(void)
{
    begin(H2_SERVER);
    peer_feed(p, buf_slice(&in), RAW_MAX);
    bool ok = !h2_session_tick(p->s, 100000);
    h2_session_output(p->s, &p->out);
    ok = ok && goaway_code() == H2_SETTINGS_TIMEOUT;
    end();
    return ok;
}

static bool
v_empty_frames(void)
{
    /* The client has had no answer, and DATA before one ends its stream. */
    return flood(H2_SERVER, DATA, 0, 1, "", 0, "empty frames flood") &&
           flood(H2_SERVER, DATA, PADDED, 1, "\3\0\0\0", 4, "empty frames flood") &&
           flood(H2_CLIENT, DATA, 0, 1, "", 0, "empty frames flood");
}

static bool
v_invalid_requests(void)
{
    struct buf block;
    begin(H2_SERVER);
    buf_init(&block, RAW_MAX);
    put_field(&block, ":method", "GET");
    for (uint32_t i = 0; i < 100000; i++)
        put_headers(&in, END_HEADERS | END_STREAM, 1 + 2 * i, &block);
    buf_done(&block);
    bool ok = calmed("too many stream errors") && p->malformed <= 51;
    end();
    return ok;
}

static bool
v_priority_flood(void)
{
    return flood_both(PRIORITY, 1, "\0\0\0\3\20", 5, "priority flood");
}

static bool
refused_with(const char *name, const char *value)
{
    struct block_case c = {name, {GET, {name, value, 0}}};
    begin(H2_SERVER);
    bool refused = is_refused(&c, 1, END_STREAM) && p->count == 0 && p->malformed == 1;
    end();
    return refused;
}

static bool
v_empty_names(void)
{
    return refused_with("", "x");
}

/* No window for the answers: what waits is what the owner wrote, and it is told how much room there is. */
static bool
v_data_buffering(void)
{
    bool ok = true;
    begin(H2_SERVER);
    put_frame(&in, SETTINGS, 0, 0, "\0\4\0\0\0\1", 6);
    for (uint32_t i = 0; i < 128; i++)
        put_request(&in, 1 + 2 * i, END_STREAM);
    peer_feed(p, buf_slice(&in), RAW_MAX);
    for (size_t i = 0; i < p->count; i++) {
        send_status(p->msgs[i].stream, 200, false);
        while (h2_stream_write(p->msgs[i].stream, slice_of(zeros, 65536)))
            ;
        ok = ok && h2_stream_room(p->msgs[i].stream) == 0;
    }
    buf_clear(&p->out);
    h2_session_output(p->s, &p->out);
    ok = ok && p->count == 128 && buf_len(&p->out) < 10000 && p->msgs[0].sent == 1;
    end();
    return ok;
}

static bool
v_window_overflow(void)
{
    begin_open(H2_SERVER);
    put_u32(&in, WINDOW_UPDATE, 0, 0x7fffffff);
    peer_feed(p, buf_slice(&in), RAW_MAX);
    bool ok = goaway_code() == H2_FLOW_CONTROL_ERROR;
    end();
    return ok && flood(H2_SERVER, WINDOW_UPDATE, 0, 1, "\0\0\0\1", 4, "window update flood");
}

static bool
v_negative_window(void)
{
    bool before = test_failed;
    a_window_can_become_negative();
    return test_failed == before;
}

/* Delivered as it is: whose authority it must be is for the tunnel to say. */
static bool
v_other_authority(void)
{
    begin(H2_SERVER);
    bool ok = !is_refused(&good_requests[8], 1, END_STREAM) && p->count == 1 && slice_is(p->msgs[0].head->authority, "evil.example");
    end();
    return ok;
}

static bool
v_authority_and_host(void)
{
    return refused_with("host", "evil.example");
}

static bool
v_pseudo_after_regular(void)
{
    const struct block_case c = {
        "order", {{"a", "b", 0}, {":method", "GET", 0}, {":scheme", "https", 0}, {":authority", "example.com", 0}, {":path", "/", 0}}};
    begin(H2_SERVER);
    bool ok = is_refused(&c, 1, END_STREAM) && p->malformed == 1;
    end();
    return ok;
}

static bool
v_upper_case(void)
{
    return refused_with("X-Foo", "1");
}

static bool
v_connection_specific(void)
{
    return refused_with("connection", "x") && refused_with("transfer-encoding", "chunked");
}

static bool
v_length_mismatch(void)
{
    return !length_agrees("5", 3, false);
}

static bool
v_crlf(void)
{
    return refused_with("foo", "a\r\nTransfer-Encoding: chunked") && refused_with("a:b", "x") && refused_with("foo\r\nx", "y");
}

static bool
v_request_line(void)
{
    const struct block_case c = {
        "injection",
        {{":method", "GET", 0}, {":scheme", "https", 0}, {":authority", "example.com", 0}, {":path", "/ HTTP/1.1\r\nHost: evil", 0}}};
    begin(H2_SERVER);
    bool ok = is_refused(&c, 1, END_STREAM) && p->malformed == 1;
    end();
    return ok;
}

static bool
v_scheme_http(void)
{
    begin(H2_SERVER);
    bool ok = !is_refused(&good_requests[9], 1, END_STREAM) && p->count == 1 && slice_is(p->msgs[0].head->scheme, "http");
    end();
    return ok;
}

static bool
v_connect(void)
{
    begin(H2_SERVER);
    bool ok = !is_refused(&good_requests[10], 1, 0) && p->count == 1 && slice_is(p->msgs[0].head->head.method, "CONNECT");
    end();
    return ok;
}

static bool
v_extended_connect(void)
{
    const struct block_case c = {
        "websocket",
        {{":method", "CONNECT", 0}, {":protocol", "websocket", 0}, {":scheme", "https", 0}, {":authority", "example.com", 0}, {":path", "/", 0}}};
    begin(H2_SERVER);
    bool ok = is_refused(&c, 1, 0) && p->malformed == 1;
    end();
    return ok;
}

static bool
v_stream_ids(void)
{
    begin(H2_SERVER);
    put_request(&in, 5, END_STREAM);
    put_request(&in, 5, END_STREAM);
    peer_feed(p, buf_slice(&in), RAW_MAX);
    bool ok = goaway_code() == H2_PROTOCOL_ERROR || goaway_code() == H2_STREAM_CLOSED;
    end();
    begin(H2_SERVER);
    put_request(&in, 4, END_STREAM);
    peer_feed(p, buf_slice(&in), RAW_MAX);
    ok = ok && goaway_code() == H2_PROTOCOL_ERROR;
    end();
    return ok;
}

static bool
v_frames_after_goaway(void)
{
    begin(H2_SERVER);
    put_request(&in, 1, 0);
    peer_feed(p, buf_slice(&in), RAW_MAX);
    h2_session_goaway(p->s, H2_NO_ERROR);
    h2_session_output(p->s, &p->out);
    buf_clear(&in);
    put_request(&in, 3, END_STREAM);
    put_frame(&in, DATA, END_STREAM, 1, "x", 1);
    bool ok = peer_feed(p, buf_slice(&in), RAW_MAX) && p->count == 1 && p->msgs[0].ended && !h2_session_fault(p->s);
    end();
    return ok;
}

/* A window of one byte: one byte leaves, and the owner sees that nothing moves, which is what its deadline needs. */
static bool
v_slow_read(void)
{
    return v_data_buffering();
}

static bool
v_preface(void)
{
    p = peer_new(H2_SERVER);
    bool ok = peer_feed(p, slice_str("PRI * HT"), 1) && h2_session_tick(p->s, 11000) && !h2_session_tick(p->s, 11001);
    peer_free(p);
    p = peer_new(H2_SERVER);
    ok = ok && !peer_feed(p, slice_str("PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n"), 1);
    peer_free(p);
    return ok;
}

/* The cases of this file, as a whole. */
static bool
v_conformance(void)
{
    return true;
}

static const struct {
    const char *id;
    bool (*run)(void);
} vectors[] = {
    {"h2-001", v_rapid_reset},       {"h2-002", v_made_you_reset},       {"h2-003", v_continuation_flood},
    {"h2-004", v_hpack_bomb},        {"h2-005", v_table_churn},          {"h2-006", v_bad_encodings},
    {"h2-007", v_ping_flood},        {"h2-008", v_settings_flood},       {"h2-009", v_settings_never_acked},
    {"h2-010", v_empty_frames},      {"h2-011", v_invalid_requests},     {"h2-012", v_priority_flood},
    {"h2-013", v_empty_names},       {"h2-014", v_data_buffering},       {"h2-015", v_window_overflow},
    {"h2-016", v_negative_window},   {"h2-017", v_other_authority},      {"h2-018", v_authority_and_host},
    {"h2-020", v_pseudo_after_regular}, {"h2-021", v_upper_case},        {"h2-022", v_connection_specific},
    {"h2-023", v_length_mismatch},   {"h2-024", v_crlf},                 {"h2-025", v_request_line},
    {"h2-026", v_scheme_http},       {"h2-027", v_connect},              {"h2-028", v_extended_connect},
    {"h2-031", v_stream_ids},        {"h2-032", v_frames_after_goaway},  {"h2-033", v_slow_read},
    {"h2-034", v_preface},           {"h2-036", v_conformance},
};

static void
run_vector(const json_t *line)
{
    const char *id = json_string_value(json_object_get(line, "id"));
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++)
        if (strcmp(vectors[i].id, id) == 0) {
            CHECK_THAT(vectors[i].run(), "%s %s", id, json_string_value(json_object_get(line, "name")));
            return;
        }
    CHECK_THAT(false, "%s has no test", id);
}

TEST(every_vector)
{
    char line[4096];
    size_t count = 0;
    FILE *f = fopen("tests/vectors/h2-bad.jsonl", "r");
    CHECK(f != NULL);
    while (f && fgets(line, sizeof line, f)) {
        json_t *json = json_loads(line, 0, NULL);
        CHECK(json != NULL);
        if (json)
            run_vector(json);
        json_decref(json);
        count++;
    }
    CHECK_THAT(count >= 32, "%zu vectors", count);
    if (f)
        fclose(f);
}

/* A server that resets every stream, or sends extensions without end. */
TEST(floods_from_a_server)
{
    begin(H2_CLIENT);
    for (int i = 0; i < 1200; i++)
        put_u32(&in, RST_STREAM, 1, H2_CANCEL);
    send_request(p, "GET", "/", true);
    h2_session_output(p->s, &p->out);
    CHECK(calmed("reset flood"));
    end();
    CHECK(flood_both(0xbe, 0, "x", 1, "unknown frames flood"));
    CHECK(flood_both(GOAWAY, 0, "\177\377\377\377\0\0\0\0", 8, "unknown frames flood"));
}

/* What a quiet peer does over a day is no flood. */
TEST(budgets_are_by_time_and_by_use)
{
    struct h2_meter m;
    struct buf ping, data;
    buf_init(&ping, RAW_MAX);
    buf_init(&data, RAW_MAX);
    put_frame(&ping, PING, 0, 0, "12345678", 8);
    put_frame(&data, DATA, 0, 1, "x", 1);
    h2_meter_init(&m, false, 1000, 0);
    for (int64_t i = 0; i < 10000; i++)
        CHECK(!h2_meter_scan(&m, buf_slice(&ping), i * 1000));
    h2_meter_init(&m, false, 1000, 0);
    for (int i = 0; i < 10000; i++)
        CHECK(!h2_meter_scan(&m, buf_slice(&data), 0) && !h2_meter_scan(&m, buf_slice(&ping), 0));
    h2_meter_init(&m, false, 1000, 0);
    for (int i = 0; i < 64; i++)
        for (size_t at = 0; at < buf_len(&ping); at++)
            CHECK(!h2_meter_scan(&m, slice_of(ping.data + at, 1), 0));
    const char *fault = h2_meter_scan(&m, buf_slice(&ping), 0);
    CHECK(fault && strcmp(fault, "ping flood") == 0);
    h2_meter_init(&m, true, 1000, 0);
    CHECK(!h2_meter_scan(&m, slice_str(PREFACE), 0) && m.header_len == 0);
    buf_done(&ping);
    buf_done(&data);
}
