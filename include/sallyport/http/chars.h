/* Which bytes may stand where in HTTP/1.x (RFC 9110 section 5.6, RFC 3986). One place, so that
 * heads, trailers, chunk extensions and targets cannot disagree. */
#ifndef SALLYPORT_HTTP_CHARS_H
#define SALLYPORT_HTTP_CHARS_H

#include <stdbool.h>

#include "sallyport/base/slice.h"

enum char_class {
    CHAR_TOKEN = 1,   /* tchar: methods, field names, list members */
    CHAR_VALUE = 2,   /* field values: HTAB, SP, VCHAR, obs-text */
    CHAR_TARGET = 4,  /* request-target: VCHAR; what it means is target.c's business */
    CHAR_PATH = 8,    /* pchar without "%", and "/" */
    CHAR_QUOTED = 16, /* qdtext: inside a quoted-string, unescaped */
    CHAR_HEX = 32,
    CHAR_LABEL = 64, /* letters, digits, "-" and "_" of a host label */
    CHAR_ALPHA = 128,
};

extern const unsigned char char_classes[256];

static inline bool
char_is(char c, enum char_class class)
{
    return (char_classes[(unsigned char)c] & class) != 0;
}

/* How many bytes at the front of s are of that class. Of values and targets, the longest runs in a head, by eight at once. */
size_t chars_run(struct slice s, enum char_class class);
size_t chars_value_run(struct slice s);
size_t chars_target_run(struct slice s);
/* Is s not empty and of that class throughout? */
bool chars_all(struct slice s, enum char_class class);
/* Has s a byte above 0x7f (obs-text)? */
bool chars_has_obs_text(struct slice s);
/* 0 to 15; c is CHAR_HEX. */
unsigned char_hex_value(char c);

#endif
