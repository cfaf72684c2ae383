/* Reads a TLS ClientHello (RFC 8446 section 4.1.2) from the first bytes of a tunnel, over as many records and segments
 * as it takes, without a TLS library and without answering. */
#ifndef SALLYPORT_TLS_HELLO_H
#define SALLYPORT_TLS_HELLO_H

#include <stdbool.h>

#include "sallyport/base/slice.h"

#define HELLO_MAX 65536 /* bytes of records; ML-KEM hellos are about 1,800, GREASE ECH adds a few hundred */

enum hello_status {
    HELLO_MALFORMED = 0, /* begins like TLS and is not a ClientHello that may pass */
    HELLO_NOT_TLS,       /* the first byte or bytes cannot begin a TLS record with a handshake */
    HELLO_MORE,          /* so far so good */
    HELLO_COMPLETE,
};

struct hello {
    char sni[256];       /* as sent, NUL-terminated; "" without one. A name with a NUL or non-ASCII byte is malformed */
    bool has_sni;
    bool has_ech;        /* encrypted_client_hello (0xfe0d), real or GREASE */
    char alpn[8][32];    /* at most 8 names, longer or further ones left out */
    size_t alpn_count;
    size_t length;       /* bytes of records that the hello takes */
};

/* bytes: all of the tunnel so far. Duplicate extensions, two names, lengths that disagree: malformed. */
enum hello_status hello_read(struct slice bytes, struct hello *ret);

#endif
