/* Encodings: round trips of every length, and one text for one value. */
#include "unit/test.h"

#include "sallyport/base/buf.h"
#include "sallyport/base/digest.h"
#include "sallyport/base/mem.h"
#include "sallyport/base/encoding.h"

TEST(base64_round_trips)
{
    unsigned char in[100], out[100];
    char text[200];
    size_t len;
    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (unsigned char)(i * 151 + 7);
    for (size_t n = 0; n <= sizeof in; n++) {
        size_t text_len = base64url_encode(slice_of(in, n), text);
        CHECK(text_len == strlen(text) && !strpbrk(text, "=+/"));
        CHECK(base64url_decode(slice_of(text, text_len), out, &len) && len == n &&
              memcmp(in, out, n) == 0);
        text_len = base64_encode(slice_of(in, n), text);
        CHECK(text_len % 4 == 0 && !strpbrk(text, "-_"));
        CHECK(base64_decode(slice_of(text, text_len), out, &len) && len == n &&
              memcmp(in, out, n) == 0);
        while (text_len > 0 && text[text_len - 1] == '=')
            text_len--;
        CHECK(base64_decode(slice_of(text, text_len), out, &len) && len == n &&
              memcmp(in, out, n) == 0);
    }
}

TEST(base64url_is_canonical)
{
    static const char *const bad[] = {
        "A",   "AAAAA", "AB",   "AAB",  "AA==", "AA=", "AAA=", "AA\n",
        " AA", "A A",   "AA+A", "AA/A", "A.A",  "Z9",  "////", "\xff\xff\xff\xff",
        "AAA*"};
    unsigned char out[16];
    size_t len = 99;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_THAT(!base64url_decode(slice_str(bad[i]), out, &len) && len == 99, "%s", bad[i]);
    CHECK(!base64url_decode(slice_of("AA\0A", 4), out, &len));
    CHECK(base64url_decode(slice_str("AA"), out, &len) && len == 1 && out[0] == 0);
    CHECK(base64url_decode(slice_str("_-8"), out, &len) && len == 2 && out[0] == 0xff &&
          out[1] == 0xef);
    CHECK(base64url_decode(slice_str(""), out, &len) && len == 0);
}

/* Each pair of bytes, and each third byte behind the pairs that may have one: as many texts are taken as there are values. */
TEST(every_tail_has_one_text)
{
    unsigned char out[8];
    char again[8];
    size_t len, pairs = 0, threes = 0;
    for (unsigned n = 0; n < 0x10000; n++) {
        char text[3] = {(char)(n >> 8), (char)n, 0};
        if (base64url_decode(slice_of(text, 2), out, &len)) {
            CHECK(len == 1 && base64url_encode(slice_of(out, len), again) == 2 && memcmp(text, again, 2) == 0);
            pairs++;
        }
        for (unsigned c = 0; c < 0x100; c++) {
            text[2] = (char)c;
            if (base64url_decode(slice_of(text, 3), out, &len)) {
                CHECK(len == 2 && base64url_encode(slice_of(out, len), again) == 3 && memcmp(text, again, 3) == 0);
                threes++;
            }
        }
    }
    CHECK(pairs == 0x100 && threes == 0x10000);
}

TEST(base64_padding_is_right_or_absent)
{
    static const char *const bad[] = {
        "QQ=",  "QUI==",    "QUJD=", "=",      "==",    "====", "Q===", "QQ=Q",
        "=QQQ", "QQ==QQ==", "QR==",  "QQ==\n", "QQ ==", "-_-_", "QUJDR"};
    unsigned char out[32];
    size_t len = 99;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_THAT(!base64_decode(slice_str(bad[i]), out, &len) && len == 99, "%s", bad[i]);
    CHECK(base64_decode(slice_str("QQ=="), out, &len) && len == 1 && out[0] == 'A');
    CHECK(base64_decode(slice_str("QUI"), out, &len) && len == 2);
    CHECK(base64_decode(slice_str("+/+/"), out, &len) && len == 3);
}

TEST(every_bad_byte_in_every_place)
{
    unsigned char out[16];
    size_t len;
    int accepted = 0;
    for (int c = 0; c < 256; c++) {
        for (int at = 0; at < 4; at++) {
            char text[4] = {'A', 'A', 'A', 'A'};
            text[at] = (char)c;
            accepted += base64url_decode(slice_of(text, 4), out, &len);
        }
    }
    CHECK(accepted == 64 * 4);
}

TEST(hex_is_lower_case_and_exact)
{
    unsigned char out[2] = {9, 9};
    char text[5];
    hex_encode("\x00\xfe", 2, text);
    CHECK_STR(text, "00fe");
    CHECK(hex_decode(slice_str("00fe"), out, 2) && out[0] == 0 && out[1] == 0xfe);
    CHECK(!hex_decode(slice_str("00FE"), out, 2));
    CHECK(!hex_decode(slice_str("00f"), out, 2));
    CHECK(!hex_decode(slice_str("00fe0"), out, 2));
    CHECK(!hex_decode(slice_str("00feff"), out, 2));
    CHECK(!hex_decode(slice_str("00 e"), out, 2));
    CHECK(!hex_decode(slice_str("0g00"), out, 2));
}

TEST(decimals)
{
    static const uint64_t values[] = {0, 9, 10, 4294967296u, UINT64_MAX - 1, UINT64_MAX};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char text[DECIMAL_MAX + 1], expected[32];
        text[decimal_encode(values[i], text)] = '\0';
        snprintf(expected, sizeof expected, "%llu", (unsigned long long)values[i]);
        CHECK_STR(text, expected);
    }
}

TEST(json_strings_are_printable)
{
    struct buf b;
    char all[256];
    buf_init(&b, 100000);
    for (int i = 0; i < 256; i++)
        all[i] = (char)i;
    CHECK(json_append_string(&b, slice_of(all, sizeof all), 1000));
    struct slice s = buf_slice(&b);
    for (size_t i = 0; i < s.len; i++)
        CHECK(s.ptr[i] >= 0x20 && s.ptr[i] <= 0x7e);
    CHECK(memmem(s.ptr, s.len, "\\u0000\\u0001", 12) && memmem(s.ptr, s.len, "\\u00ff", 6));
    CHECK(memmem(s.ptr, s.len, "!\\\"#", 4) && memmem(s.ptr, s.len, "[\\\\]", 4));
    buf_clear(&b);
    CHECK(!json_append_string(&b, slice_str("abcdef"), 3));
    CHECK(slice_is(buf_slice(&b), "\"abc\""));
    buf_clear(&b);
    CHECK(json_append_string(&b, slice_of(NULL, 0), 3));
    CHECK(slice_is(buf_slice(&b), "\"\""));
    buf_done(&b);
    buf_init(&b, 7);
    json_append_string(&b, slice_str("\n"), 10);
    CHECK(b.overflow && buf_len(&b) == 0);
    buf_done(&b);
}

/* Eight bytes are looked at together: each byte in each place of texts of all lengths around that, in memory of exactly its size. */
TEST(a_plain_run_ends_where_the_first_other_byte_is)
{
    for (size_t len = 0; len < 27; len++) {
        char *text = mem_alloc(len);
        memset(text, '~', len);
        CHECK(json_plain_run(slice_of(text, len)) == len);
        for (size_t at = 0; at < len; at++) {
            for (int c = 0; c < 256; c++) {
                bool plain = c >= 0x20 && c <= 0x7e && c != '"' && c != '\\';
                text[at] = (char)c;
                CHECK_THAT(json_plain_run(slice_of(text, len)) == (plain ? len : at), "byte %02x at %zu of %zu", (unsigned)c, at, len);
            }
            text[at] = '~';
        }
        free(text);
    }
}

/* Two of them in one word: the first counts, whatever carries over into its neighbour. */
TEST(of_two_bytes_that_are_not_plain_the_first_counts)
{
    static const unsigned char others[] = {0x00, 0x01, 0x1f, '"', '\\', 0x7f, 0x80, 0xfe, 0xff};
    for (size_t i = 0; i < sizeof others; i++) {
        for (size_t k = 0; k < sizeof others; k++) {
            for (size_t at = 0; at < 7; at++) {
                char text[8];
                memset(text, '!', sizeof text);
                text[at] = (char)others[i];
                text[at + 1] = (char)others[k];
                CHECK(json_plain_run(slice_of(text, sizeof text)) == at);
            }
        }
    }
}

TEST(json_text_is_a_string_without_its_quotes)
{
    struct buf b;
    buf_init(&b, 100);
    CHECK(json_append_text(&b, slice_str("a\"b\\c\n"), 100));
    CHECK(slice_is(buf_slice(&b), "a\\\"b\\\\c\\u000a"));
    CHECK(!json_append_text(&b, slice_str("xyz"), 2));
    CHECK(slice_is(buf_slice(&b), "a\\\"b\\\\c\\u000axy"));
    buf_done(&b);
    for (size_t cap = 0; cap < 12; cap++) { /* half of it never stays */
        buf_init(&b, cap);
        json_append_text(&b, slice_str("plain\n"), 100);
        CHECK(cap < 11 ? b.overflow && buf_len(&b) == 0 : !b.overflow && buf_len(&b) == 11);
        buf_done(&b);
    }
}

TEST(sha256_of_known_texts)
{
    char hex[SHA256_HEX_SIZE];
    unsigned char whole[SHA256_SIZE], parts[SHA256_SIZE];
    sha256_hex(slice_str("abc"), hex); /* FIPS 180-4, example */
    CHECK_STR(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256_hex(slice_of(NULL, 0), hex);
    CHECK_STR(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256(slice_str("abc"), whole);
    sha256_two(slice_str("a"), slice_str("bc"), parts);
    CHECK(memcmp(whole, parts, sizeof whole) == 0);
}
