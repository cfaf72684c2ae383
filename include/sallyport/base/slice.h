/* A view of bytes that somebody else owns; it is never NUL-terminated and may hold any byte. */
#ifndef SALLYPORT_BASE_SLICE_H
#define SALLYPORT_BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct slice {
    const char *ptr;
    size_t len;
};

/* printf("%.*s", SLICE_ARG(s)): for text that is known to be printable. */
#define SLICE_ARG(s) (int)(s).len, (s).ptr

static inline struct slice
slice_of(const void *ptr, size_t len)
{
    return (struct slice){ptr, len};
}

static inline struct slice
slice_str(const char *text)
{
    return (struct slice){text, strlen(text)};
}

/* For tables of texts, whose lengths are then known beforehand. */
#define SLICE_LITERAL(text) {(text), sizeof(text) - 1}

static inline bool
slice_equal(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static inline bool
slice_is(struct slice a, const char *text)
{
    return slice_equal(a, slice_str(text));
}

/* ASCII case only; bytes above 0x7f compare as they are. */
bool slice_same_letters(const char *a, const char *b, size_t len);

static inline bool
slice_equal_nocase(struct slice a, struct slice b)
{
    return a.len == b.len && slice_same_letters(a.ptr, b.ptr, a.len);
}

bool slice_starts_with(struct slice s, const char *prefix);
bool slice_has_byte(struct slice s, char byte);
/* The part before the first `byte`, or all of s; *ret_rest is what follows it (ptr NULL when byte is not there). */
struct slice slice_split(struct slice s, char byte, struct slice *ret_rest);
/* Strips SP and HTAB at both ends (OWS, RFC 9110 section 5.6.3). */
struct slice slice_trim_ows(struct slice s);
/* Decimal digits only, no sign, no leading zero but "0" itself, at most max; false leaves *ret alone. */
bool slice_parse_uint(struct slice s, unsigned long long max, unsigned long long *ret);

#endif
