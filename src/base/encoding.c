/* Text encodings, read strictly. Base64 is read by table: a token passes through here on every
 * request that is not in the cache. */
#include "sallyport/base/encoding.h"

static const char url_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
static const char std_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char hex_digits[] = "0123456789abcdef";

/* What a digit means in each of the four places of a group: its six bits where they belong in the 24, or NO_DIGIT. */
#define NO_DIGIT (1u << 31)
struct alphabet {
    uint32_t bits[4][256];
};

static void
alphabet_fill(struct alphabet *a, const char *digits)
{
    for (unsigned place = 0; place < 4; place++) {
        for (unsigned c = 0; c < 256; c++)
            a->bits[place][c] = NO_DIGIT;
        for (unsigned i = 0; i < 64; i++)
            a->bits[place][(unsigned char)digits[i]] = i << (18 - 6 * place);
    }
}

static struct alphabet url_alphabet, std_alphabet;

__attribute__((constructor)) static void
alphabets_fill(void)
{
    alphabet_fill(&url_alphabet, url_digits);
    alphabet_fill(&std_alphabet, std_digits);
}

/* The last 2 or 3 digits; the bits that no byte needs must be zero, else two texts would stand for
 * one value. */
static bool
decode_tail(const struct alphabet *a, const unsigned char *p, size_t left, unsigned char *out)
{
    uint32_t group = a->bits[0][p[0]] | a->bits[1][p[1]] | (left == 3 ? a->bits[2][p[2]] : 0);
    if (group & NO_DIGIT)
        return false;
    out[0] = (unsigned char)(group >> 16);
    if (left == 2)
        return (group & 0xffff) == 0;
    out[1] = (unsigned char)(group >> 8);
    return (group & 0xff) == 0;
}

static bool
decode_unpadded(const struct alphabet *a, struct slice in, unsigned char *out, size_t *ret_len)
{
    const unsigned char *p = (const unsigned char *)in.ptr;
    size_t left = in.len % 4, whole = in.len - left, len = 0;
    if (left == 1)
        return false;
    for (size_t i = 0; i < whole; i += 4) {
        uint32_t group = a->bits[0][p[i]] | a->bits[1][p[i + 1]] | a->bits[2][p[i + 2]] | a->bits[3][p[i + 3]];
        if (group & NO_DIGIT)
            return false;
        out[len++] = (unsigned char)(group >> 16);
        out[len++] = (unsigned char)(group >> 8);
        out[len++] = (unsigned char)group;
    }
    if (left > 0) {
        if (!decode_tail(a, p + whole, left, out + len))
            return false;
        len += left - 1;
    }
    *ret_len = len;
    return true;
}

static size_t
encode(const char *digits, struct slice in, char *out, bool pad)
{
    const unsigned char *p = (const unsigned char *)in.ptr;
    size_t len = 0, left = in.len;
    for (; left >= 3; left -= 3, p += 3) {
        out[len++] = digits[p[0] >> 2];
        out[len++] = digits[(p[0] & 0x03) << 4 | p[1] >> 4];
        out[len++] = digits[(p[1] & 0x0f) << 2 | p[2] >> 6];
        out[len++] = digits[p[2] & 0x3f];
    }
    if (left > 0) {
        unsigned second = left == 2 ? p[1] : 0u;
        out[len++] = digits[p[0] >> 2];
        out[len++] = digits[(p[0] & 0x03u) << 4 | second >> 4];
        if (left == 2)
            out[len++] = digits[(second & 0x0f) << 2];
        for (size_t i = left; pad && i < 3; i++)
            out[len++] = '=';
    }
    out[len] = '\0';
    return len;
}

bool
base64url_decode(struct slice in, unsigned char *out, size_t *ret_len)
{
    return decode_unpadded(&url_alphabet, in, out, ret_len);
}

size_t
base64url_encode(struct slice in, char *out)
{
    return encode(url_digits, in, out, false);
}

bool
base64_decode(struct slice in, unsigned char *out, size_t *ret_len)
{
    size_t pad = 0;
    while (pad < 2 && pad < in.len && in.ptr[in.len - 1 - pad] == '=')
        pad++;
    if (pad > 0 && in.len % 4 != 0)
        return false; /* padding that does not complete a group */
    in.len -= pad;
    return decode_unpadded(&std_alphabet, in, out, ret_len);
}

size_t
base64_encode(struct slice in, char *out)
{
    return encode(std_digits, in, out, true);
}

size_t
decimal_encode(uint64_t value, char out[DECIMAL_MAX])
{
    size_t len = 1;
    for (uint64_t rest = value; rest >= 10; rest /= 10)
        len++;
    for (size_t at = len; at-- > 0; value /= 10)
        out[at] = (char)('0' + value % 10);
    return len;
}

void
hex_encode(const void *in, size_t len, char *out)
{
    const unsigned char *p = in;
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = hex_digits[p[i] >> 4];
        out[2 * i + 1] = hex_digits[p[i] & 0x0f];
    }
    out[2 * len] = '\0';
}

#define BAD 0xff

static unsigned
hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    if (c >= 'a' && c <= 'f')
        return (unsigned)(c - 'a' + 10);
    return BAD;
}

bool
hex_decode(struct slice in, unsigned char *out, size_t out_len)
{
    if (in.len % 2 != 0 || in.len / 2 != out_len)
        return false;
    for (size_t i = 0; i < out_len; i++) {
        unsigned high = hex_value(in.ptr[2 * i]), low = hex_value(in.ptr[2 * i + 1]);
        if ((high | low) & 0x80)
            return false;
        out[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}

const bool json_plain[256] = {
    [' '] = true, ['!'] = true, ['#' ... '['] = true, [']' ... '~'] = true,
};

size_t
json_escape(unsigned char c, char out[JSON_ESCAPE_MAX])
{
    out[0] = '\\';
    if (c == '"' || c == '\\') {
        out[1] = (char)c;
        return 2;
    }
    memcpy(out + 1, "u00", 3);
    out[4] = hex_digits[c >> 4];
    out[5] = hex_digits[c & 0x0f];
    return JSON_ESCAPE_MAX;
}

/* Run by run; true when all of it had room. */
static bool
append_escaped(struct buf *b, struct slice s)
{
    while (s.len) {
        char escape[JSON_ESCAPE_MAX];
        size_t plain = json_plain_run(s);
        if (!buf_append(b, s.ptr, plain))
            return false;
        if (plain == s.len)
            return true;
        if (!buf_append(b, escape, json_escape((unsigned char)s.ptr[plain], escape)))
            return false;
        s = slice_of(s.ptr + plain + 1, s.len - plain - 1);
    }
    return true;
}

static bool
append_json(struct buf *b, struct slice s, size_t max_len, const char *quote)
{
    size_t before = buf_len(b);
    bool whole = s.len <= max_len;
    if (!whole)
        s.len = max_len;
    /* Where it has no room, nothing of it stays; the buffer's overflow flag says so. */
    if (!buf_append_str(b, quote) || !append_escaped(b, s) || !buf_append_str(b, quote))
        b->end = b->start + before;
    return whole;
}

bool
json_append_string(struct buf *b, struct slice s, size_t max_len)
{
    return append_json(b, s, max_len, "\"");
}

bool
json_append_text(struct buf *b, struct slice s, size_t max_len)
{
    return append_json(b, s, max_len, "");
}
