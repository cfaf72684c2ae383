/* The ClientHello reader against real hellos, cut everywhere, and against those that lie. */
#include "sallyport/tls/hello.h"

#include <openssl/ssl.h>

#include "sallyport/base/mem.h"
#include "unit/test.h"

/* --- a builder ---------------------------------------------------------------------------------------------------- */

struct bytes {
    unsigned char data[70000];
    size_t len;
};

static void
put(struct bytes *b, const void *data, size_t len)
{
    memcpy(b->data + b->len, data, len);
    b->len += len;
}

static void
put_number(struct bytes *b, size_t value, int count)
{
    while (count-- > 0)
        b->data[b->len++] = (unsigned char)(value >> (8 * count));
}

static void
put_extension(struct bytes *b, unsigned type, const void *data, size_t len)
{
    put_number(b, type, 2);
    put_number(b, len, 2);
    put(b, data, len);
}

static void
put_sni(struct bytes *b, const void *name, size_t len)
{
    put_number(b, 0, 2);
    put_number(b, len + 5, 2);
    put_number(b, len + 3, 2);
    put_number(b, 0, 1);
    put_number(b, len, 2);
    put(b, name, len);
}

/* The handshake message around these extensions. */
static void
make_message(struct bytes *m, const struct bytes *extensions)
{
    size_t body = 2 + 32 + 1 + 4 + 2 + 2 + extensions->len;
    m->len = 0;
    put_number(m, 1, 1);
    put_number(m, body, 3);
    put_number(m, 0x0303, 2);
    for (int i = 0; i < 32; i++)
        put_number(m, (size_t)i, 1);
    put_number(m, 0, 1);
    put_number(m, 2, 2);
    put_number(m, 0x1301, 2);
    put_number(m, 0x0100, 2);
    put_number(m, extensions->len, 2);
    put(m, extensions->data, extensions->len);
}

/* Records of at most `size` bytes each. */
static void
make_records(struct bytes *r, const struct bytes *message, size_t size)
{
    r->len = 0;
    for (size_t at = 0; at < message->len; at += size) {
        size_t n = message->len - at < size ? message->len - at : size;
        put_number(r, 0x160301, 3);
        put_number(r, n, 2);
        put(r, message->data + at, n);
    }
}

/* Static: 70 kB each. */
static struct bytes ext, msg, rec;

static enum hello_status
read_ext(struct hello *ret)
{
    make_message(&msg, &ext);
    make_records(&rec, &msg, 16384);
    return hello_read(slice_of(rec.data, rec.len), ret);
}

/* A hello of OpenSSL's client. */
static void
real_hello(struct bytes *out, const char *name)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(ctx);
    BIO *in = BIO_new(BIO_s_mem()), *wire = BIO_new(BIO_s_mem());
    static const unsigned char alpn[] = "\x02h2\x08http/1.1";
    SSL_set_bio(ssl, in, wire);
    SSL_set_connect_state(ssl);
    if (name)
        SSL_set_tlsext_host_name(ssl, name);
    SSL_set_alpn_protos(ssl, alpn, sizeof alpn - 1);
    SSL_do_handshake(ssl);
    int n = BIO_read(wire, out->data, sizeof out->data);
    out->len = n > 0 ? (size_t)n : 0;
    SSL_free(ssl);
    SSL_CTX_free(ctx);
}

/* From memory of exactly that size, so that a byte read too far is seen. */
static enum hello_status
read_exactly(const void *data, size_t len, struct hello *ret)
{
    char *copy = mem_alloc(len ? len : 1);
    memcpy(copy, data, len);
    enum hello_status status = hello_read(slice_of(copy, len), ret);
    free(copy);
    return status;
}

/* --- what passes -------------------------------------------------------------------------------------------------- */

TEST(a_real_hello_is_read_at_every_length)
{
    struct hello h;
    real_hello(&rec, "www.example.com");
    for (size_t n = 0; n < rec.len; n++)
        CHECK_THAT(read_exactly(rec.data, n, &h) == HELLO_MORE, "%zu bytes", n);
    CHECK(read_exactly(rec.data, rec.len, &h) == HELLO_COMPLETE);
    CHECK_STR(h.sni, "www.example.com");
    CHECK(h.has_sni && !h.has_ech && h.length == rec.len);
    CHECK(h.alpn_count == 2);
    CHECK_STR(h.alpn[0], "h2");
    CHECK_STR(h.alpn[1], "http/1.1");
}

TEST(what_follows_the_hello_is_not_looked_at)
{
    struct hello h;
    real_hello(&rec, "www.example.com");
    size_t n = rec.len;
    put(&rec, "\x14\x03\x03\x00\x01\x01 and then anything", 24);
    CHECK(read_exactly(rec.data, rec.len, &h) == HELLO_COMPLETE && h.length == n);
}

TEST(a_hello_without_a_name_has_none)
{
    struct hello h;
    real_hello(&rec, NULL);
    CHECK(read_exactly(rec.data, rec.len, &h) == HELLO_COMPLETE);
    CHECK(!h.has_sni);
    CHECK_STR(h.sni, "");
    /* TLS 1.2 may end before the extensions. */
    ext.len = 0;
    make_message(&msg, &ext);
    msg.len -= 2;
    msg.data[3] -= 2;
    make_records(&rec, &msg, 16384);
    CHECK(read_exactly(rec.data, rec.len, &h) == HELLO_COMPLETE && !h.has_sni);
}

TEST(records_of_every_size_make_the_same_hello)
{
    struct hello h;
    ext.len = 0;
    put_sni(&ext, "www.example.com", 15);
    make_message(&msg, &ext);
    for (size_t size = 1; size <= msg.len; size++) {
        make_records(&rec, &msg, size);
        for (size_t n = 1; n < rec.len; n += size < 8 ? 7 : 1)
            CHECK_THAT(read_exactly(rec.data, n, &h) == HELLO_MORE, "records of %zu, %zu bytes", size, n);
        CHECK(read_exactly(rec.data, rec.len, &h) == HELLO_COMPLETE && h.length == rec.len);
        CHECK_STR(h.sni, "www.example.com");
    }
}

TEST(large_hellos_pass_up_to_the_cap)
{
    static char padding[60000];
    struct hello h;
    ext.len = 0;
    put_extension(&ext, 21, padding, sizeof padding);
    put_sni(&ext, "www.example.com", 15);
    CHECK(read_ext(&h) == HELLO_COMPLETE);
    CHECK_STR(h.sni, "www.example.com");
    msg.data[1] = 1; /* 65,536 more than that */
    make_records(&rec, &msg, 16384);
    CHECK(hello_read(slice_of(rec.data, rec.len), &h) == HELLO_MALFORMED);
}

TEST(grease_is_let_pass)
{
    struct hello h;
    ext.len = 0;
    put_extension(&ext, 0x0a0a, "", 0);
    put_sni(&ext, "www.example.com", 15);
    put_extension(&ext, 16, "\x00\x06\x02\x5a\x5a\x02h2", 8);
    put_extension(&ext, 0xfafa, "\x00", 1);
    CHECK(read_ext(&h) == HELLO_COMPLETE && h.has_sni && h.alpn_count == 2);
    CHECK_STR(h.alpn[0], "ZZ");
}

TEST(encrypted_hellos_are_noticed)
{
    static const unsigned kinds[] = {0xfe0d, 0xfe08, 0xfe0c, 0xffce};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct hello h;
        ext.len = 0;
        put_sni(&ext, "outer.example.com", 17);
        put_extension(&ext, kinds[i], "\x00\x00\x01\x00\x01", 5);
        CHECK_THAT(read_ext(&h) == HELLO_COMPLETE && h.has_ech, "%x", kinds[i]);
        CHECK_STR(h.sni, "outer.example.com");
    }
    struct hello h;
    ext.len = 0;
    put_extension(&ext, 0xfe0d, "\x01", 1); /* "I am the inner one" */
    CHECK(read_ext(&h) == HELLO_MALFORMED);
}

TEST(alpn_that_cannot_be_said_is_left_out)
{
    struct hello h;
    ext.len = 0;
    put_number(&ext, 16, 2);
    put_number(&ext, 2 + 4 + 33 + 10 * 3, 2);
    put_number(&ext, 4 + 33 + 10 * 3, 2);
    put(&ext, "\x03h2\0", 4); /* is not "h2" */
    put_number(&ext, 32, 1);
    put(&ext, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 32);
    for (int i = 0; i < 10; i++)
        put(&ext, "\x02h2", 3);
    CHECK(read_ext(&h) == HELLO_COMPLETE && h.alpn_count == 8);
    CHECK_STR(h.alpn[0], "h2");
}

/* --- what does not ------------------------------------------------------------------------------------------------ */

TEST(what_cannot_begin_tls_is_said_at_the_first_byte)
{
    static const struct { const char *bytes; size_t len; } cases[] = {
        {"GET / HTTP/1.1\r\n", 16}, {"SSH-2.0-x\r\n", 11}, {"\x80\x2e\x01\x03\x01", 5}, {"\x00", 1},
        {"\x15\x03\x01\x00\x02\x01\x00", 7}, {"\x14\x03\x03\x00\x01\x01", 6}, {"\x17\x03\x03\x00\x01x", 6},
        {"\x16\x02", 2}, {"\x16\x03\x00\x00\x05", 5}, {"\x16\x03\x7f", 3}, {"\x16\xfe\xfd", 3}, {"G", 1},
    };
    struct hello h;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CHECK_THAT(read_exactly(cases[i].bytes, cases[i].len, &h) == HELLO_NOT_TLS, "case %zu", i);
    CHECK(read_exactly("", 0, &h) == HELLO_MORE);
    CHECK(read_exactly("\x16", 1, &h) == HELLO_MORE);
}

TEST(records_that_lie_are_malformed)
{
    static const struct { const char *what, *bytes; size_t len; } cases[] = {
        {"empty record", "\x16\x03\x01\x00\x00", 5},
        {"record over 16384", "\x16\x03\x01\x40\x01", 5},
        {"another handshake message", "\x16\x03\x01\x00\x04\x02", 6},
        {"hello request", "\x16\x03\x01\x00\x04\x00\x00\x00\x00", 9},
        {"hello of 16 MB", "\x16\x03\x01\x00\x10\x01\xff\xff\xff", 9},
        {"empty hello", "\x16\x03\x01\x00\x04\x01\x00\x00\x00", 9},
        {"alert in the middle", "\x16\x03\x01\x00\x02\x01\x00\x15\x03\x01\x00\x02\x01\x00", 14},
        {"ccs in the middle", "\x16\x03\x01\x00\x02\x01\x00\x14", 8},
        {"version changes to nonsense", "\x16\x03\x01\x00\x02\x01\x00\x16\x09", 9},
    };
    struct hello h;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CHECK_THAT(read_exactly(cases[i].bytes, cases[i].len, &h) == HELLO_MALFORMED, "%s", cases[i].what);
}

TEST(a_second_message_in_the_record_is_malformed)
{
    struct hello h;
    ext.len = 0;
    put_sni(&ext, "www.example.com", 15);
    make_message(&msg, &ext);
    struct bytes *both = mem_alloc(sizeof *both);
    both->len = 0;
    put(both, msg.data, msg.len);
    put(both, msg.data, msg.len);
    make_records(&rec, both, 16384);
    CHECK(hello_read(slice_of(rec.data, rec.len), &h) == HELLO_MALFORMED);
    both->len = msg.len + 1; /* one byte more */
    make_records(&rec, both, 16384);
    CHECK(hello_read(slice_of(rec.data, rec.len), &h) == HELLO_MALFORMED);
    free(both);
}

TEST(too_many_records_are_malformed)
{
    static char padding[2000];
    struct hello h;
    ext.len = 0;
    put_extension(&ext, 21, padding, sizeof padding);
    make_message(&msg, &ext);
    make_records(&rec, &msg, 1);
    CHECK(hello_read(slice_of(rec.data, rec.len), &h) == HELLO_MALFORMED);
}

TEST(bytes_without_end_are_malformed_at_the_cap)
{
    struct hello h;
    rec.len = 0;
    put(&rec, "\x16\x03\x01\x40\x00\x01\x00\xff\xf0", 9);
    size_t first = 5 + 16384;
    rec.len = first;
    for (int i = 0; i < 3; i++) {
        put(&rec, "\x16\x03\x01\x40\x00", 5);
        rec.len += 16384;
    }
    CHECK(hello_read(slice_of(rec.data, first), &h) == HELLO_MORE);
    CHECK(hello_read(slice_of(rec.data, HELLO_MAX), &h) == HELLO_MALFORMED);
}

TEST(names_that_lie_are_malformed)
{
    static const struct { const char *what, *data; size_t len; } cases[] = {
        {"nothing", "", 0},
        {"empty list", "\x00\x00", 2},
        {"empty name", "\x00\x03\x00\x00\x00", 5},
        {"NUL in it", "\x00\x06\x00\x00\x03" "a\0b", 8},
        {"NUL behind it", "\x00\x05\x00\x00\x02" "a\0", 7},
        {"not ASCII", "\x00\x05\x00\x00\x02\xc3\xa4", 7},
        {"a space", "\x00\x06\x00\x00\x03" "a b", 8},
        {"a newline", "\x00\x05\x00\x00\x02" "a\n", 7},
        {"another kind of name", "\x00\x05\x00\x01\x00\x01", 6},
        {"kind 1", "\x00\x04\x01\x00\x01" "a", 6},
        {"two names", "\x00\x08\x00\x00\x01" "a" "\x00\x00\x01" "b", 10},
        {"a name and another kind", "\x00\x08\x00\x00\x01" "a" "\x01\x00\x01" "b", 10},
        {"list longer than the extension", "\x00\x05\x00\x00\x01" "a", 6},
        {"list shorter", "\x00\x03\x00\x00\x01" "a", 6},
        {"name longer than the list", "\x00\x04\x00\x00\x02" "a", 6},
        {"byte behind the list", "\x00\x04\x00\x00\x01" "ab", 7},
        {"cut", "\x00", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hello h;
        ext.len = 0;
        put_extension(&ext, 0, cases[i].data, cases[i].len);
        CHECK_THAT(read_ext(&h) == HELLO_MALFORMED, "%s", cases[i].what);
    }
}

TEST(names_up_to_255_bytes_fit)
{
    char name[256];
    struct hello h;
    memset(name, 'a', sizeof name);
    ext.len = 0;
    put_sni(&ext, name, 255);
    CHECK(read_ext(&h) == HELLO_COMPLETE && strlen(h.sni) == 255);
    ext.len = 0;
    put_sni(&ext, name, 256);
    CHECK(read_ext(&h) == HELLO_MALFORMED);
}

TEST(duplicate_extensions_are_malformed)
{
    static const unsigned kinds[] = {0, 16, 0xfe0d, 21, 0x0a0a};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct hello h;
        ext.len = 0;
        for (int twice = 0; twice < 2; twice++) {
            if (kinds[i] == 0)
                put_sni(&ext, "a.example.com", 13);
            else if (kinds[i] == 16)
                put_extension(&ext, 16, "\x00\x03\x02h2", 5);
            else
                put_extension(&ext, kinds[i], "\x00", 1);
        }
        CHECK_THAT(read_ext(&h) == HELLO_MALFORMED, "%x", kinds[i]);
    }
}

TEST(bodies_that_lie_are_malformed)
{
    struct hello h;
    ext.len = 0;
    put_sni(&ext, "www.example.com", 15);
    make_message(&msg, &ext);
    static const struct { const char *what; size_t at; unsigned char value; } cases[] = {
        {"SSL 2", 4, 2}, {"SSL 3.0", 5, 0}, {"session of 33", 38, 33}, {"session of 255", 38, 255},
        {"odd ciphers", 40, 3}, {"no ciphers", 40, 0}, {"many ciphers", 39, 255}, {"no null compression", 44, 1},
        {"no compression", 43, 0}, {"extensions longer", 46, 25}, {"extensions shorter", 46, 23},
        {"extension longer", 50, 21}, {"extension shorter", 50, 19},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        unsigned char was = msg.data[cases[i].at];
        CHECK(was != cases[i].value);
        msg.data[cases[i].at] = cases[i].value;
        make_records(&rec, &msg, 16384);
        CHECK_THAT(hello_read(slice_of(rec.data, rec.len), &h) == HELLO_MALFORMED, "%s", cases[i].what);
        msg.data[cases[i].at] = was;
    }
    make_records(&rec, &msg, 16384);
    CHECK(hello_read(slice_of(rec.data, rec.len), &h) == HELLO_COMPLETE);
}

TEST(every_single_changed_byte_is_survived)
{
    struct hello h;
    real_hello(&rec, "www.example.com");
    for (size_t i = 0; i < rec.len; i++) {
        for (int v = 0; v < 256; v += 5) {
            unsigned char was = rec.data[i];
            rec.data[i] = (unsigned char)v;
            enum hello_status s = read_exactly(rec.data, rec.len, &h);
            CHECK(s != HELLO_COMPLETE || h.length <= rec.len);
            rec.data[i] = was;
        }
    }
}

TEST(a_refused_hello_writes_nothing)
{
    struct hello h;
    memset(&h, 0x5a, sizeof h);
    read_exactly("GET ", 4, &h);
    CHECK((unsigned char)h.sni[0] == 0x5a);
}

TEST(names_are_left_as_they_were_sent)
{
    struct hello h;
    ext.len = 0;
    put_sni(&ext, "WWW.Example.COM.", 16);
    CHECK(read_ext(&h) == HELLO_COMPLETE);
    CHECK_STR(h.sni, "WWW.Example.COM.");
}

TEST(too_many_extensions_are_malformed)
{
    struct hello h;
    ext.len = 0;
    for (unsigned i = 0; i < 256; i++)
        put_extension(&ext, 0x4000 + i, "", 0);
    CHECK(read_ext(&h) == HELLO_COMPLETE);
    put_extension(&ext, 0x5000, "", 0);
    CHECK(read_ext(&h) == HELLO_MALFORMED);
}
