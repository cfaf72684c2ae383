/* Text encodings, read strictly: one text for one value, everything else is refused. */
#ifndef SALLYPORT_BASE_ENCODING_H
#define SALLYPORT_BASE_ENCODING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sallyport/base/buf.h"
#include "sallyport/base/octets.h"
#include "sallyport/base/slice.h"

/* Canonical unpadded base64url (RFC 7515 section 2). out has room for in.len * 3 / 4 bytes. False: not canonical. */
bool base64url_decode(struct slice in, unsigned char *out, size_t *ret_len);
size_t base64url_encode(struct slice in, char *out); /* out: (len + 2) / 3 * 4 + 1 bytes; NUL-terminated, returns length */
/* Standard base64 (RFC 4648 section 4); `=` padding must be right or absent altogether; no white space. */
bool base64_decode(struct slice in, unsigned char *out, size_t *ret_len);
size_t base64_encode(struct slice in, char *out);
#define DECIMAL_MAX 20 /* digits of a uint64_t */
size_t decimal_encode(uint64_t value, char out[DECIMAL_MAX]); /* no NUL; returns the length */
void hex_encode(const void *in, size_t len, char *out); /* lower case, 2 * len + 1 bytes */
bool hex_decode(struct slice in, unsigned char *out, size_t out_len); /* lower case only, exactly 2 * out_len digits */

/* What stands in a JSON string of ours as it is: printable ASCII but for the quote and the backslash. */
extern const bool json_plain[256];
/* How many bytes at the front of s are that. Inline: most texts are so short that a call would cost as much. */
static inline size_t
json_plain_run(struct slice s)
{
    size_t i = 0;
    for (; s.len - i >= OCTETS; i += OCTETS) {
        octets c = octets_at(s.ptr + i);
        size_t fine = octets_first(octets_outside(c, ' ', '~') | (c == '"') | (c == '\\'));
        if (fine < OCTETS)
            return i + fine;
    }
    while (i < s.len && json_plain[(unsigned char)s.ptr[i]])
        i++;
    return i;
}
#define JSON_ESCAPE_MAX 6
size_t json_escape(unsigned char c, char out[JSON_ESCAPE_MAX]); /* of a byte that does not; no NUL; returns the length */
/* Appends s as a JSON string with quotes; every byte outside 0x20-0x7e as \u00XX (bytes, not code points), so that a
 * record is one line of printable ASCII whatever s holds. At most max_len bytes of s; returns false when cut. */
bool json_append_string(struct buf *b, struct slice s, size_t max_len);
bool json_append_text(struct buf *b, struct slice s, size_t max_len); /* the same without the quotes */

#endif
