/* Views of bytes: comparison, splitting and numbers. Owns nothing, allocates nothing, trusts no
 * terminator. */
#include "sallyport/base/slice.h"

static unsigned char
lower(char c)
{
    unsigned char u = (unsigned char)c;
    return u >= 'A' && u <= 'Z' ? (unsigned char)(u | 0x20) : u;
}

bool
slice_same_letters(const char *a, const char *b, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (a[i] != b[i] && lower(a[i]) != lower(b[i]))
            return false;
    }
    return true;
}

bool
slice_starts_with(struct slice s, const char *prefix)
{
    size_t len = strlen(prefix);
    return s.len >= len && (len == 0 || memcmp(s.ptr, prefix, len) == 0);
}

bool
slice_has_byte(struct slice s, char byte)
{
    return s.len > 0 && memchr(s.ptr, (unsigned char)byte, s.len) != NULL;
}

struct slice
slice_split(struct slice s, char byte, struct slice *ret_rest)
{
    const char *at = s.len > 0 ? memchr(s.ptr, (unsigned char)byte, s.len) : NULL;
    if (!at) {
        *ret_rest = slice_of(NULL, 0);
        return s;
    }
    size_t before = (size_t)(at - s.ptr);
    *ret_rest = slice_of(at + 1, s.len - before - 1);
    return slice_of(s.ptr, before);
}

static bool
is_ows(char c)
{
    return c == ' ' || c == '\t';
}

struct slice
slice_trim_ows(struct slice s)
{
    while (s.len > 0 && is_ows(s.ptr[0])) {
        s.ptr++;
        s.len--;
    }
    while (s.len > 0 && is_ows(s.ptr[s.len - 1]))
        s.len--;
    return s;
}

bool
slice_parse_uint(struct slice s, unsigned long long max, unsigned long long *ret)
{
    unsigned long long value = 0;
    if (s.len == 0 || (s.len > 1 && s.ptr[0] == '0'))
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return false;
        unsigned digit = (unsigned)(s.ptr[i] - '0');
        if (value > (max - digit) / 10 || digit > max)
            return false;
        value = value * 10 + digit;
    }
    *ret = value;
    return true;
}
