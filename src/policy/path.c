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

/* The path alone, when it is one. */
static bool
take_path(struct slice *path)
{
    struct slice query;
    *path = slice_split(*path, '?', &query);
    return path->len > 0 && path->ptr[0] == '/' && !slice_has_byte(*path, '#');
}

bool
path_normalise(struct slice path, char *out, size_t *ret_len)
{
    size_t len;
    if (!take_path(&path) || !decode(path, out, &len) || !resolve(out, len, &len))
        return false;
    out[len] = '\0';
    *ret_len = len;
    return true;
}

/* ---- escaped slashes that stay ---- */

static bool
is_escaped_slash(const char *p, const char *end)
{
    return is_escape(p, end) && hex_value(p[1]) == 2 && hex_value(p[2]) == 15;
}

/* Splits at slashes of either kind. True when every piece is an ordinary segment, so that both readings of an escaped slash
 * name what stands there; the last piece may be empty behind a raw slash. */
static bool
has_plain_pieces(struct slice path)
{
    const char *p = path.ptr + 1, *end = path.ptr + path.len;
    for (;;) {
        const char *start = p;
        while (p < end && *p != '/' && !is_escaped_slash(p, end))
            p++;
        struct slice piece = slice_of(start, (size_t)(p - start));
        bool at_end = p == end && start[-1] == '/' && piece.len == 0;
        if (!at_end && (segment_kind(piece) != SEGMENT_PLAIN || piece.ptr[0] == ';'))
            return false;
        if (p == end)
            return true;
        p += *p == '/' ? 1 : 3;
    }
}

/* Decodes all but escaped slashes, which are written as %2F: a percent sign in the result belongs to one of them. */
static bool
decode_around_slashes(struct slice path, char *out, size_t *ret_len)
{
    const char *p = path.ptr, *end = path.ptr + path.len;
    size_t len = 0, part;
    while (p < end) {
        const char *start = p;
        while (p < end && !is_escaped_slash(p, end))
            p++;
        if (!decode(slice_of(start, (size_t)(p - start)), out + len, &part) || memchr(out + len, '%', part))
            return false;
        len += part;
        if (p < end) {
            memcpy(out + len, "%2F", 3);
            len += 3;
            p += 3;
        }
    }
    *ret_len = len;
    return true;
}

bool
path_normalise_marked(struct slice path, char *out, size_t *ret_len)
{
    size_t len;
    bool marked = false;
    if (!take_path(&path))
        return false;
    for (size_t i = 0; i < path.len && !marked; i++)
        marked = is_escaped_slash(path.ptr + i, path.ptr + path.len);
    if (!marked)
        return path_normalise(path, out, ret_len) && !memchr(out, '%', *ret_len);
    if (!decode_around_slashes(path, out, &len) || !has_plain_pieces(slice_of(out, len)))
        return false;
    out[len] = '\0';
    *ret_len = len;
    return true;
}
