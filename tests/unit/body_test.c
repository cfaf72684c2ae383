/* Body framing: every case whole, split at each byte and byte by byte; and llhttp as a second
 * opinion, which must read what is read here likewise. */
#include "unit/test.h"

#include <llhttp.h>

#include "sallyport/base/mem.h"
#include "sallyport/http/body.h"

#define BYTES(text) text, sizeof(text) - 1

/* What came of reading a body. */
struct outcome {
    enum body_status status;
    enum reason fault;
    struct buf data;
    size_t used;
    char trailers[4096];
};

/* Reads one piece (in memory of exactly its size); returns how much of it was used. */
static size_t
read_piece(struct body_reader *r, const char *bytes, size_t len, struct outcome *o)
{
    char *copy = mem_alloc(len ? len : 1);
    size_t total = 0;
    memcpy(copy, bytes, len);
    do {
        size_t used;
        struct slice data;
        o->status = body_read(r, slice_of(copy + total, len - total), &used, &data);
        CHECK(data.len <= used &&
              (data.len == 0 || (data.ptr >= copy + total && data.ptr + data.len <= copy + len)));
        CHECK(buf_append_slice(&o->data, data));
        total += used;
        if (used == 0)
            break;
    } while (total < len && o->status == BODY_MORE);
    free(copy);
    return total;
}

/* split: where the second piece begins; 0: each byte is a piece. */
static void
read_split(enum body_kind kind, uint64_t length, const char *bytes, size_t len, size_t split,
           bool eof, struct outcome *o)
{
    struct body_reader *r = body_reader_new(kind, length);
    *o = (struct outcome){.status = BODY_MORE};
    buf_init(&o->data, 1 << 20);
    for (size_t at = 0, n; at < len && o->status == BODY_MORE; at += n) {
        n = split == 0 ? 1 : at < split ? split : len - at;
        o->used += read_piece(r, bytes + at, n, o);
    }
    if (len == 0)
        read_piece(r, bytes, 0, o);
    if (eof && o->status == BODY_MORE)
        o->status = body_read_eof(r);
    o->fault = body_fault(r);
    CHECK(body_data_bytes(r) == buf_len(&o->data));
    struct slice t = body_trailers(r);
    snprintf(o->trailers, sizeof(o->trailers), "%.*s", SLICE_ARG(t));
    body_reader_free(r);
}

static void
check_body(enum body_kind kind, uint64_t length, const char *bytes, size_t len, bool eof,
           struct outcome *whole)
{
    read_split(kind, length, bytes, len, len, eof, whole);
    size_t step = len > 2000 ? len / 53 : 1;
    for (size_t split = 0; split < len; split += step) {
        struct outcome o;
        read_split(kind, length, bytes, len, split, eof, &o);
        CHECK_THAT(o.status == whole->status &&
                       slice_equal(buf_slice(&o.data), buf_slice(&whole->data)) &&
                       strcmp(o.trailers, whole->trailers) == 0 && o.fault == whole->fault &&
                       (o.status != BODY_END || o.used == whole->used),
                   "%.*s split at %zu: %d, whole: %d", (int)(len < 200 ? len : 200), bytes, split,
                   o.status, whole->status);
        buf_done(&o.data);
    }
}

static void
check_chunked(const char *bytes, size_t len, enum body_status want, const char *data,
              size_t left_over)
{
    struct outcome o;
    check_body(BODY_CHUNKED, 0, bytes, len, false, &o);
    CHECK_THAT(o.status == want, "%.*s: %d, not %d", (int)(len < 200 ? len : 200), bytes, o.status,
               want);
    if (data)
        CHECK_THAT(slice_is(buf_slice(&o.data), data), "%s: \"%.*s\"", bytes,
                   SLICE_ARG(buf_slice(&o.data)));
    if (want == BODY_END)
        CHECK_THAT(len - o.used == left_over, "%s: %zu bytes left", bytes, len - o.used);
    buf_done(&o.data);
}

TEST(chunked_bodies)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *data;
        size_t left_over;
    } cases[] = {
        {BYTES("0\r\n\r\n"), "", 0},
        {BYTES("00000\r\n\r\n"), "", 0},
        {BYTES("0000000000000000\r\n\r\n"), "", 0},
        {BYTES("3\r\nabc\r\n0\r\n\r\n"), "abc", 0},
        {BYTES("03\r\nabc\r\n00\r\n\r\n"), "abc", 0},
        {BYTES("3\r\nabc\r\nA\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n"),
         "abc01234567890123456789", 0},
        {BYTES("5\r\n\r\n0\r\n\r\n0\r\n\r\n"), "\r\n0\r\n", 0},
        {BYTES("3;ext=1\r\nabc\r\n0;last\r\n\r\n"), "abc", 0},
        {BYTES("3;a;b=c;d=\"e;f\\\"\tg\"\r\nabc\r\n0\r\n\r\n"), "abc", 0},
        {BYTES("3;a=\"\"\r\nabc\r\n0\r\n\r\n"), "abc", 0},
        {BYTES("3\r\nabc\r\n0\r\nX: y\r\nZ:\r\n\r\n"), "abc", 0},
        {BYTES("0\r\n\r\nGET / HTTP/1.1\r\n"), "", 16},
        {BYTES("1\r\nZ\r\n0\r\n\r\n\r\n"), "Z", 2},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check_chunked(cases[i].bytes, cases[i].len, BODY_END, cases[i].data, cases[i].left_over);
}

TEST(bad_chunks)
{
    static const struct {
        const char *bytes;
        size_t len;
    } cases[] = {
        {BYTES("-0\r\n\r\n")},
        {BYTES("-3\r\nabc\r\n0\r\n\r\n")},
        {BYTES("+3\r\nabc\r\n0\r\n\r\n")},
        {BYTES("0x3\r\nabc\r\n0\r\n\r\n")},
        {BYTES("0_2e\r\n\r\nGET / HTTP/1.1\r\n\r\n")},
        {BYTES("3.0\r\nabc\r\n")},
        {BYTES("1 \r\nZ\r\n0\r\n\r\n")},
        {BYTES(" 1\r\nZ\r\n0\r\n\r\n")},
        {BYTES("1\t\r\nZ\r\n0\r\n\r\n")},
        {BYTES("1 ;a\r\nZ\r\n0\r\n\r\n")},
        {BYTES("1; a\r\nZ\r\n0\r\n\r\n")},
        {BYTES("1;a =b\r\nZ\r\n0\r\n\r\n")},
        {BYTES("1;a= b\r\nZ\r\n0\r\n\r\n")},
        {BYTES("1;a \r\nZ\r\n0\r\n\r\n")},
        {BYTES("\r\n\r\n")},
        {BYTES("\r\nZ\r\n0\r\n\r\n")},
        {BYTES("\r\n1\r\nZ\r\n0\r\n\r\n")},
        {BYTES(";a\r\n\r\n")},
        {BYTES("g\r\n")},
        {BYTES("1g\r\nZ\r\n")},
        {BYTES("INVALID!!!\r\n")},
        {BYTES("\xef\xbc\x91\r\nZ\r\n")},
        {BYTES("1\0\r\nZ\r\n0\r\n\r\n")},
        {BYTES("1\nZ\r\n0\r\n\r\n")},
        {BYTES("1\rXZ\r\n0\r\n\r\n")},
        {BYTES("1\r\r\nZ\r\n")},
        {BYTES("1\r\nZXX0\r\n\r\n")},
        {BYTES("1\r\nZZ\r\n0\r\n\r\n")},
        {BYTES("2\r\nZ\r\n0\r\n\r\n")},
        {BYTES("1\r\nZ\n0\r\n\r\n")},
        {BYTES("1\r\nZ\r0\r\n\r\n")},
        {BYTES("1\r\nZ0\r\n\r\n")},
        {BYTES("3\r\nabcX\r\n0\r\n\r\n")},
        {BYTES("1\r\nZ\r\n\r\n0\r\n\r\n")},
        {BYTES("1;a\nb\r\nZ\r\n0\r\n\r\n")},
        {BYTES("1;a\rb\r\nZ\r\n0\r\n\r\n")},
        {BYTES("2\r\r;a\r\n02\r\n41\r\n0\r\n\r\n")},
        {BYTES("1;\r\nZ\r\n0\r\n\r\n")},
        {BYTES("1;;a\r\nZ\r\n0\r\n\r\n")},
        {BYTES("1;=b\r\nZ\r\n")},
        {BYTES("1;a=\r\nZ\r\n")},
        {BYTES("1;a=;b\r\nZ\r\n")},
        {BYTES("1;a=b=c\r\nZ\r\n")},
        {BYTES("1;a=\"b\r\nZ\r\n0\r\n\r\n")},
        {BYTES("1;a=\"b\\\r\nZ\r\n")},
        {BYTES("1;a=\"b\"c\r\nZ\r\n")},
        {BYTES("1;a=b\"c\"\r\nZ\r\n")},
        {BYTES("1;a=\"\0\"\r\nZ\r\n")},
        {BYTES("1;a\0b\r\nZ\r\n")},
        {BYTES("1 ; a = \"\r\n0\r\n\r\n")},
        {BYTES("1=a\r\nZ\r\n")},
        {BYTES("1,2\r\nZ\r\n")},
        {BYTES("0\r\nXX\r\n")},
        {BYTES("0\r\n X: y\r\n\r\n")},
        {BYTES("0\r\nX: y\r\n z\r\n\r\n")},
        {BYTES("0\r\nX: a\0b\r\n\r\n")},
        {BYTES("0\r\nX : y\r\n\r\n")},
        {BYTES("0\r\n: y\r\n\r\n")},
        {BYTES("0\r\nX: a\rb\r\n\r\n")},
        {BYTES("0\r\nX: a\n\r\n")},
        {BYTES("0\r\n\n")},
        {BYTES("0\r\n\rX")},
        {BYTES("0\n\r\n")},
        {BYTES("0\r\r\n")},
        {BYTES("0\r\nGET / HTTP/1.1\r\n")},
        {BYTES("0\r\nTransfer-Encoding: chunked\r\n\r\n")},
        {BYTES("0\r\ncontent-length: 3\r\n\r\n")},
        {BYTES("0\r\nHost: two.test\r\n\r\n")},
        {BYTES("0\r\nConnection: close\r\n\r\n")},
        {BYTES("0\r\nTrailer: X\r\n\r\n")},
        {BYTES("0\r\nUpgrade: h2c\r\n\r\n")},
        {BYTES("0\r\nContent-Encoding: gzip\r\n\r\n")},
        {BYTES("0\r\nAuthorization: x\r\n\r\n")},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct outcome o;
        check_chunked(cases[i].bytes, cases[i].len, BODY_MALFORMED, NULL, 0);
        read_split(BODY_CHUNKED, 0, cases[i].bytes, cases[i].len, cases[i].len, false, &o);
        CHECK(o.fault == REASON_REQUEST_MALFORMED && o.trailers[0] == '\0');
        buf_done(&o.data);
    }
}

TEST(unfinished_chunks_are_never_an_end)
{
    static const char text[] = "3;a=\"b\"\r\nabc\r\n0\r\nX: y\r\n\r\n";
    for (size_t n = 0; n < sizeof(text) - 1; n++) {
        struct outcome o;
        check_body(BODY_CHUNKED, 0, text, n, false, &o);
        CHECK_THAT(o.status == BODY_MORE, "after %zu bytes: %d", n, o.status);
        buf_done(&o.data);
        check_body(BODY_CHUNKED, 0, text, n, true, &o);
        CHECK_THAT(o.status == BODY_MALFORMED, "cut after %zu bytes: %d", n, o.status);
        buf_done(&o.data);
    }
}

static void
check_too_large(const char *bytes, size_t len)
{
    struct outcome o;
    check_body(BODY_CHUNKED, 0, bytes, len, false, &o);
    CHECK_THAT(o.status == BODY_MALFORMED && o.fault == REASON_BODY_TOO_LARGE, "%.*s: %d %s",
               (int)(len < 60 ? len : 60), bytes, o.status, reason_text(o.fault));
    buf_done(&o.data);
}

/* head, then `count` times piece, then tail. */
static size_t
repeat(char *text, const char *head, const char *piece, size_t count, const char *tail)
{
    size_t n = (size_t)sprintf(text, "%s", head);
    for (size_t i = 0; i < count; i++)
        n += (size_t)sprintf(text + n, "%s", piece);
    return n + (size_t)sprintf(text + n, "%s", tail);
}

TEST(caps_of_framing)
{
    static char text[200000];
    check_too_large(BYTES("00000000000000000\r\n\r\n"));
    check_too_large(BYTES("10000000000000000\r\nZ\r\n0\r\n\r\n"));
    check_too_large(BYTES("fffffffffffffffff\r\nabc"));
    check_too_large(BYTES("ffffffffffffffff\r\nZ\r\n0\r\n\r\n"));
    check_too_large(BYTES("7fffffffffffffff\r\nZ\r\n0\r\n\r\n"));
    check_too_large(BYTES("8000000000000000\r\nZ\r\n0\r\n\r\n"));
    check_too_large(BYTES("10000000001\r\nZ\r\n0\r\n\r\n"));
    check_chunked(BYTES("10000000000\r\nZ"), BODY_MORE, "Z", 0);
    check_too_large(text, repeat(text, "", "0", 5000, "\r\n\r\n"));
    check_too_large(text, repeat(text, "1;", "a", BODY_EXTRAS_MAX, "\r\nZ\r\n0\r\n\r\n"));
    check_too_large(text, repeat(text, "", "1;abcdefghijklmnop\r\nZ\r\n", 2500, "0\r\n\r\n"));
    check_too_large(text, repeat(text, "0\r\nX: ", "a", 70000, "\r\n\r\n"));
    check_too_large(text, repeat(text, "0\r\n", "a", 70000, ": y\r\n\r\n"));
    check_too_large(text, repeat(text, "0\r\n", "X: y\r\n", BODY_TRAILERS_MAX + 1, "\r\n"));
    size_t len = repeat(text, "0\r\n", "X: y\r\n", BODY_TRAILERS_MAX, "\r\n");
    check_chunked(text, len, BODY_END, "", 0);
}

TEST(trailers_that_pass)
{
    static const char text[] = "0\r\nX-Sum: 1 2\r\nProxy-Status: evil\r\nAlt-Svc: "
                               "h2\r\nx-deny-reason: ok\r\nKeep-Alive: 1\r\nY:\r\n\r\n";
    struct outcome o;
    check_body(BODY_CHUNKED, 0, text, sizeof(text) - 1, false, &o);
    CHECK(o.status == BODY_END);
    CHECK_STR(o.trailers, "X-Sum: 1 2\r\nY:\r\n");
    buf_done(&o.data);
}

TEST(bodies_with_a_length)
{
    static const struct {
        uint64_t length;
        const char *bytes;
        bool eof;
        enum body_status want;
        const char *data;
        size_t used;
    } cases[] = {
        {0, "", false, BODY_END, "", 0},
        {0, "abc", false, BODY_END, "", 0},
        {3, "abc", false, BODY_END, "abc", 3},
        {3, "abcGET /", false, BODY_END, "abc", 3},
        {3, "ab", false, BODY_MORE, "ab", 2},
        {3, "ab", true, BODY_MALFORMED, "ab", 2},
        {10, "", true, BODY_MALFORMED, "", 0},
        {3, "\r\n\r\n", false, BODY_END, "\r\n\r", 3},
        {0x7fffffffffffffff, "abc", false, BODY_MORE, "abc", 3},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct outcome o;
        check_body(BODY_LENGTH, cases[i].length, cases[i].bytes, strlen(cases[i].bytes),
                   cases[i].eof, &o);
        CHECK_THAT(o.status == cases[i].want && slice_is(buf_slice(&o.data), cases[i].data) &&
                       o.used == cases[i].used,
                   "case %zu", i);
        buf_done(&o.data);
    }
}

TEST(bodies_of_other_kinds)
{
    struct outcome o;
    check_body(BODY_TO_EOF, 0, "abc\r\n", 5, false, &o);
    CHECK(o.status == BODY_MORE && slice_is(buf_slice(&o.data), "abc\r\n"));
    buf_done(&o.data);
    check_body(BODY_TO_EOF, 0, "abc\r\n", 5, true, &o);
    CHECK(o.status == BODY_END);
    buf_done(&o.data);
    check_body(BODY_NONE, 7, "abc", 3, false, &o);
    CHECK(o.status == BODY_END && o.used == 0 && buf_len(&o.data) == 0);
    buf_done(&o.data);
}

TEST(a_verdict_stays)
{
    struct body_reader *r = body_reader_new(BODY_CHUNKED, 0);
    size_t used;
    struct slice data;
    CHECK(body_read(r, slice_str("x"), &used, &data) == BODY_MALFORMED);
    CHECK(body_read(r, slice_str("0\r\n\r\n"), &used, &data) == BODY_MALFORMED && used == 0 &&
          data.len == 0);
    CHECK(body_read_eof(r) == BODY_MALFORMED);
    body_reader_free(r);
    r = body_reader_new(BODY_CHUNKED, 0);
    CHECK(body_read(r, slice_str("0\r\n\r\n1\r\n"), &used, &data) == BODY_END && used == 5);
    CHECK(body_read(r, slice_str("1\r\nZ\r\n"), &used, &data) == BODY_END && used == 0 &&
          data.len == 0);
    CHECK(body_read_eof(r) == BODY_END);
    body_reader_free(r);
    body_reader_free(NULL);
}

TEST(writing)
{
    struct buf out;
    buf_init(&out, 100);
    CHECK(body_write(&out, BODY_CHUNKED, slice_str("hello, world!!!!")));
    CHECK(body_write(&out, BODY_CHUNKED, slice_str("")));
    CHECK(body_write_end(&out, BODY_CHUNKED, slice_str("X: y\r\n")));
    CHECK(slice_is(buf_slice(&out), "10\r\nhello, world!!!!\r\n0\r\nX: y\r\n\r\n"));
    buf_clear(&out);
    CHECK(body_write(&out, BODY_LENGTH, slice_str("ab")) &&
          body_write_end(&out, BODY_LENGTH, slice_str("")));
    CHECK(body_write(&out, BODY_TO_EOF, slice_str("cd")) &&
          body_write_end(&out, BODY_TO_EOF, slice_str("")));
    CHECK(!body_write(&out, BODY_NONE, slice_str("ef")) &&
          body_write(&out, BODY_NONE, slice_str("")));
    CHECK(slice_is(buf_slice(&out), "abcd"));
    buf_done(&out);
}

TEST(writing_is_all_or_nothing)
{
    for (size_t cap = 0; cap < 60; cap++) {
        struct buf out;
        buf_init(&out, cap);
        bool ok = body_write(&out, BODY_CHUNKED, slice_str("0123456789"));
        CHECK(ok == (cap >= 10 + BODY_CHUNK_OVERHEAD));
        CHECK(buf_len(&out) == (ok ? sizeof("a\r\n0123456789\r\n") - 1 : 0));
        buf_clear(&out);
        ok = body_write_end(&out, BODY_CHUNKED, slice_str("X: y\r\n"));
        CHECK(ok == (cap >= 11) && buf_len(&out) == (ok ? 11 : 0));
        buf_done(&out);
    }
}

static int
on_body(llhttp_t *parser, const char *at, size_t len)
{
    return buf_append(parser->data, at, len) ? 0 : -1;
}

static int
on_message_complete(llhttp_t *parser)
{
    (void)parser;
    return HPE_PAUSED;
}

/* True when llhttp comes to the end of this chunked body; data gets what it took for data. */
static bool
llhttp_reads(const char *bytes, size_t len, struct buf *data)
{
    static const llhttp_settings_t settings = {.on_body = on_body,
                                               .on_message_complete = on_message_complete};
    static const char head[] = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    llhttp_t parser;
    llhttp_init(&parser, HTTP_REQUEST, &settings);
    parser.data = data;
    CHECK(llhttp_execute(&parser, head, sizeof(head) - 1) == HPE_OK);
    return llhttp_execute(&parser, bytes, len) == HPE_PAUSED;
}

/* Bodies put together at random of pieces that matter: what is accepted here, llhttp accepts, with
 * the same data. With extensions it may refuse (";a=b;c" it does), but not read something else. */
TEST(llhttp_agrees_with_every_body_that_is_accepted)
{
    static const char *const pieces[] = {"0",    "1",  "2",  "a", "\r\n",      "\r\n",
                                         "\r\n", "\r", "\n", ";", "x",         "=",
                                         "X: y", " ",  "\"", "Z", "0\r\n\r\n", "1\r\nZ\r\n"};
    unsigned seed = 12345, accepted = 0;
    for (int i = 0; i < 200000; i++) {
        char text[128] = "";
        size_t len = 0;
        for (int k = 0; k < 8; k++) {
            seed = seed * 1664525 + 1013904223;
            len += (size_t)sprintf(text + len, "%s",
                                   pieces[(seed >> 16) % (sizeof(pieces) / sizeof(pieces[0]))]);
        }
        struct outcome o;
        read_split(BODY_CHUNKED, 0, text, len, len, false, &o);
        if (o.status == BODY_END) {
            struct buf data;
            buf_init(&data, 1024);
            accepted++;
            bool read = llhttp_reads(text, len, &data);
            CHECK_THAT(read ? slice_equal(buf_slice(&data), buf_slice(&o.data))
                            : strchr(text, ';') != NULL,
                       "\"%s\"", text);
            buf_done(&data);
        }
        buf_done(&o.data);
    }
    CHECK(accepted > 1000); /* or the test shows nothing */
}
