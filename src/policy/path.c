/* The path that rules are matched against: percent-encoding and dot segments resolved once. The request itself is sent
 * on as it came, so whatever a server could read in another way than we do is refused here. Pure; opens nothing. */
#include <string.h>

#include "sallyport/policy/decide.h"

static int
hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool
is_escape(const char *p, const char *end)
{
    return end - p >= 3 && p[0] == '%' && hex_value(p[1]) >= 0 && hex_value(p[2]) >= 0;
}

/* A byte that separates segments, or ends the path, for some server: only the raw slash may. */
static bool
is_ambiguous_byte(unsigned char c)
{
    return c < 0x20 || c == 0x7f || c == '\\';
}

/* Overlong UTF-8 (RFC 3629 section 3 forbids it): decoders that accept it read dots and slashes out of it. */
static bool
has_overlong(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i], next = i + 1 < len ? (unsigned char)text[i + 1] : 0;
        if (c == 0xc0 || c == 0xc1 || (c == 0xe0 && next >= 0x80 && next < 0xa0) ||
            (c == 0xf0 && next >= 0x80 && next < 0x90))
            return true;
    }
    return false;
}

/* Decodes once. False for a broken escape, an escaped slash or control byte, and for what would decode a second time. */
static bool
decode(struct slice in, char *out, size_t *ret_len)
{
    const char *p = in.ptr, *end = in.ptr + in.len;
    size_t len = 0;
    while (p < end) {
        unsigned char c = (unsigned char)*p;
        if (c == '%') {
            if (!is_escape(p, end))
                return false;
            c = (unsigned char)(hex_value(p[1]) << 4 | hex_value(p[2]));
            if (c == '/')
                return false;
            p += 3;
        } else {
            p++;
        }
        if (is_ambiguous_byte(c))
            return false;
        out[len++] = (char)c;
    }
    for (size_t i = 0; i < len; i++) {
        if (is_escape(out + i, out + len))
            return false;
    }
    *ret_len = len;
    return !has_overlong(out, len);
}

/* ".", ".." and what some servers take for them: path parameters (..;x) and trailing blanks or dots of file systems. */
enum segment { SEGMENT_PLAIN, SEGMENT_EMPTY, SEGMENT_DOT, SEGMENT_DOTDOT, SEGMENT_DOUBTFUL };

static enum segment
segment_kind(struct slice s)
{
    size_t dots = 0;
    while (dots < s.len && s.ptr[dots] == '.')
        dots++;
    if (s.len == 0)
        return SEGMENT_EMPTY;
    if (dots == s.len)
        return dots == 1 ? SEGMENT_DOT : dots == 2 ? SEGMENT_DOTDOT : SEGMENT_PLAIN;
    if ((dots == 1 || dots == 2) && (s.ptr[dots] == ';' || s.ptr[dots] == ' '))
        return SEGMENT_DOUBTFUL;
    return SEGMENT_PLAIN;
}

/* Resolves dot segments and merges empty ones, in place. A dot-dot that leaves the root, or that follows an empty
 * segment anywhere (servers that merge slashes first read it otherwise), is refused. */
static bool
resolve(char *text, size_t len, size_t *ret_len)
{
    size_t out = 0, at = 0; /* text[0..out) is done and is empty or ends in a segment */
    bool had_empty = false, slash_at_end = false;
    while (at < len) {
        size_t start = ++at; /* behind the slash */
        while (at < len && text[at] != '/')
            at++;
        struct slice s = slice_of(text + start, at - start);
        enum segment kind = segment_kind(s);
        bool last = at == len;
        slash_at_end = last && kind != SEGMENT_PLAIN;
        switch (kind) {
        case SEGMENT_DOUBTFUL:
            return false;
        case SEGMENT_DOTDOT:
            if (out == 0 || had_empty)
                return false;
            while (text[--out] != '/')
                ;
            break;
        case SEGMENT_EMPTY:
            had_empty = true;
            break;
        case SEGMENT_DOT:
            break;
        case SEGMENT_PLAIN:
            had_empty |= s.ptr[0] == ';'; /* empty to a server that drops path parameters */
            text[out++] = '/';
            memmove(text + out, s.ptr, s.len);
            out += s.len;
            break;
        }
    }
    if (slash_at_end || out == 0)
        text[out++] = '/';
    *ret_len = out;
    return true;
}

bool
path_normalise(struct slice path, char *out, size_t *ret_len)
{
    struct slice query;
    size_t len;

    path = slice_split(path, '?', &query);
    if (path.len == 0 || path.ptr[0] != '/' || slice_has_byte(path, '#'))
        return false;
    if (!decode(path, out, &len) || !resolve(out, len, &len))
        return false;
    out[len] = '\0';
    *ret_len = len;
    return true;
}
