/* Eight bytes at once, for runs of bytes that are nearly all harmless: `octets < ' '`, `octets == '"'` and the like compare each
 * of the eight, and what several comparisons find is put together by `|` (vector extensions of gcc and clang). */
#ifndef SALLYPORT_BASE_OCTETS_H
#define SALLYPORT_BASE_OCTETS_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define OCTETS 8
typedef unsigned char octets __attribute__((vector_size(OCTETS)));
typedef signed char octets_found __attribute__((vector_size(OCTETS))); /* all bits of a byte are set where it is so */

static inline octets
octets_at(const char *p)
{
    octets bytes;
    memcpy(&bytes, p, OCTETS);
    return bytes;
}

static inline octets_found
octets_outside(octets bytes, unsigned char first, unsigned char last)
{
    unsigned char width = (unsigned char)(last - first);
    return (octets_found)((bytes - first) > width); /* what is below wraps around */
}

/* Which of the eight is the first that was found; OCTETS when none was. */
static inline size_t
octets_first(octets_found found)
{
    uint64_t bits = le64toh((uint64_t)found);
    return bits ? (size_t)__builtin_ctzll(bits) / 8 : OCTETS;
}

#endif
