/* Reads a ClientHello (RFC 8446 section 4.1.2) out of the first records of a tunnel: pure bytes in, names out. The server
 * behind the tunnel will read the same bytes by itself, so whatever two readers could take in two ways is refused here.
 * Answers nothing and keeps nothing between calls. */
#include "sallyport/tls/hello.h"

#include <stdint.h>
#include <stdlib.h>

#include "sallyport/base/mem.h"

#define RECORD_HEADER 5
#define RECORD_MAX 16384   /* RFC 8446 section 5.1 */
#define MESSAGE_HEADER 4
/* A record may hold a single byte of the hello; a thousand of them is a way to make each further byte cost a walk. */
#define RECORDS_MAX 1024
#define EXTENSIONS_MAX 256 /* browsers send about 20 */

enum { TYPE_HANDSHAKE = 22, CLIENT_HELLO = 1 };

enum {
    EXT_SERVER_NAME = 0,
    EXT_ALPN = 16,
    EXT_ECH = 0xfe0d,
    /* Earlier drafts of the same: encrypted SNI, and ECH up to draft 12. Nobody should send them; who does hides a name. */
    EXT_ESNI = 0xffce,
    EXT_ECH_DRAFT_FIRST = 0xfe08,
    EXT_ECH_DRAFT_LAST = 0xfe0c,
};

/* --- a cursor that cannot leave its bytes ------------------------------------------------------------------------- */

struct cursor {
    const unsigned char *at, *end;
};

static bool
take(struct cursor *c, size_t n, struct cursor *ret)
{
    if ((size_t)(c->end - c->at) < n)
        return false;
    *ret = (struct cursor){c->at, c->at + n};
    c->at += n;
    return true;
}

static size_t
left(const struct cursor *c)
{
    return (size_t)(c->end - c->at);
}

static bool
take_number(struct cursor *c, size_t bytes, size_t *ret)
{
    struct cursor digits;
    if (!take(c, bytes, &digits))
        return false;
    *ret = 0;
    while (digits.at < digits.end)
        *ret = *ret << 8 | *digits.at++;
    return true;
}

/* A vector of RFC 8446 section 3.4: a length of so many bytes, then as many as it says. */
static bool
take_vector(struct cursor *c, size_t length_bytes, struct cursor *ret)
{
    size_t n;
    return take_number(c, length_bytes, &n) && take(c, n, ret);
}

/* --- extensions --------------------------------------------------------------------------------------------------- */

static bool
name_byte_is_plain(unsigned char c)
{
    return c > 0x20 && c < 0x7f;
}

/* RFC 6066 section 3: exactly one name, and it is a host_name. */
static bool
read_server_name(struct cursor data, struct hello *ret)
{
    struct cursor list, name;
    size_t type;
    if (!take_vector(&data, 2, &list) || left(&data) != 0)
        return false;
    if (!take_number(&list, 1, &type) || type != 0 || !take_vector(&list, 2, &name) || left(&list) != 0)
        return false;
    if (left(&name) == 0 || left(&name) >= sizeof ret->sni)
        return false;
    for (size_t i = 0; i < left(&name); i++) {
        if (!name_byte_is_plain(name.at[i]))
            return false;
    }
    memcpy(ret->sni, name.at, left(&name));
    ret->sni[left(&name)] = '\0';
    ret->has_sni = true;
    return true;
}

/* RFC 7301 section 3.1. What the array cannot say exactly (long names, a NUL in one) is left out. */
static bool
read_alpn(struct cursor data, struct hello *ret)
{
    struct cursor list, name;
    if (!take_vector(&data, 2, &list) || left(&data) != 0 || left(&list) == 0)
        return false;
    while (left(&list) > 0) {
        if (!take_vector(&list, 1, &name) || left(&name) == 0)
            return false;
        size_t room = sizeof ret->alpn / sizeof ret->alpn[0];
        if (ret->alpn_count == room || left(&name) >= sizeof ret->alpn[0] || memchr(name.at, 0, left(&name)))
            continue;
        char *out = ret->alpn[ret->alpn_count++];
        memcpy(out, name.at, left(&name));
        out[left(&name)] = '\0';
    }
    return true;
}

/* RFC 9849 section 5: only the outer form (0) is ever on the wire; an inner one would say that this hello is itself the
 * decrypted one, which a server behind a split front might believe. */
static bool
read_ech(struct cursor data, struct hello *ret)
{
    size_t form;
    ret->has_ech = true;
    return take_number(&data, 1, &form) && form == 0;
}

static bool
read_extension(size_t type, struct cursor data, struct hello *ret)
{
    switch (type) {
    case EXT_SERVER_NAME:
        return read_server_name(data, ret);
    case EXT_ALPN:
        return read_alpn(data, ret);
    case EXT_ECH:
        return read_ech(data, ret);
    }
    if (type == EXT_ESNI || (type >= EXT_ECH_DRAFT_FIRST && type <= EXT_ECH_DRAFT_LAST))
        ret->has_ech = true;
    return true;
}

static bool
read_extensions(struct cursor list, struct hello *ret)
{
    uint16_t seen[EXTENSIONS_MAX];
    size_t count = 0;
    while (left(&list) > 0) {
        size_t type;
        struct cursor data;
        if (!take_number(&list, 2, &type) || !take_vector(&list, 2, &data) || count == EXTENSIONS_MAX)
            return false;
        for (size_t i = 0; i < count; i++) {
            if (seen[i] == type)
                return false;
        }
        seen[count++] = (uint16_t)type;
        if (!read_extension(type, data, ret))
            return false;
    }
    return true;
}

/* The message without its header. */
static bool
read_message(struct cursor m, struct hello *ret)
{
    struct cursor random, session, ciphers, compressions, extensions;
    size_t major, minor;
    if (!take_number(&m, 1, &major) || major != 3 || !take_number(&m, 1, &minor) || minor == 0 || minor > 4)
        return false;
    if (!take(&m, 32, &random) || !take_vector(&m, 1, &session) || left(&session) > 32)
        return false;
    if (!take_vector(&m, 2, &ciphers) || left(&ciphers) < 2 || left(&ciphers) % 2 != 0)
        return false;
    if (!take_vector(&m, 1, &compressions) || !memchr(compressions.at, 0, left(&compressions)))
        return false;
    if (left(&m) == 0)
        return true; /* TLS 1.2 without extensions: a hello that names nobody */
    return take_vector(&m, 2, &extensions) && left(&m) == 0 && read_extensions(extensions, ret);
}

/* --- records ------------------------------------------------------------------------------------------------------ */

/* The records so far, and what they hold of the handshake message. */
struct records {
    struct cursor bytes;       /* what was not looked at yet */
    unsigned char start[MESSAGE_HEADER]; /* the message's first bytes, which may lie in four records */
    size_t have;               /* bytes of the message seen, header included */
    size_t count;
};

/* 22, 3, then a minor version: what every TLS since 1.0 begins with (SSL 3.0 has a 0 there). */
static enum hello_status
check_opening(const unsigned char *b, size_t len)
{
    if ((len > 0 && b[0] != TYPE_HANDSHAKE) || (len > 1 && b[1] != 3) || (len > 2 && (b[2] == 0 || b[2] > 4)))
        return HELLO_NOT_TLS;
    return HELLO_MORE;
}

/* The next record's payload, or as much as is there. HELLO_COMPLETE: a payload, in *ret. */
static enum hello_status
next_record(struct records *r, struct cursor *ret, bool *ret_whole)
{
    const unsigned char *b = r->bytes.at;
    size_t have = left(&r->bytes);
    if (check_opening(b, have) == HELLO_NOT_TLS)
        return r->count == 0 ? HELLO_NOT_TLS : HELLO_MALFORMED;
    if (have < RECORD_HEADER)
        return HELLO_MORE;
    size_t length = (size_t)b[3] << 8 | b[4];
    /* Empty handshake records are forbidden (RFC 8446 section 5.1). */
    if (length == 0 || length > RECORD_MAX || ++r->count > RECORDS_MAX)
        return HELLO_MALFORMED;
    size_t there = have - RECORD_HEADER;
    *ret_whole = there >= length;
    r->bytes.at += RECORD_HEADER;
    if (!take(&r->bytes, *ret_whole ? length : there, ret))
        return HELLO_MALFORMED;
    return HELLO_COMPLETE;
}

/* Length of the message with its header; 0 while that is not known, SIZE_MAX when it cannot be a hello. */
static size_t
message_length(const struct records *r)
{
    if (r->have > 0 && r->start[0] != CLIENT_HELLO)
        return SIZE_MAX;
    if (r->have < MESSAGE_HEADER)
        return 0;
    size_t n = (size_t)r->start[1] << 16 | (size_t)r->start[2] << 8 | r->start[3];
    return n > HELLO_MAX ? SIZE_MAX : n + MESSAGE_HEADER;
}

/* Walks the records until the message is whole. With `out` its bytes are put together there. */
static enum hello_status
walk(struct slice bytes, unsigned char *out, size_t *ret_message, size_t *ret_length)
{
    const unsigned char *begin = (const unsigned char *)bytes.ptr;
    struct records r = {.bytes = {begin, begin + bytes.len}};
    for (;;) {
        struct cursor part;
        bool whole;
        enum hello_status status = next_record(&r, &part, &whole);
        if (status != HELLO_COMPLETE)
            return status;
        if (out)
            memcpy(out + r.have, part.at, left(&part));
        for (size_t i = 0; i < left(&part) && r.have + i < MESSAGE_HEADER; i++)
            r.start[r.have + i] = part.at[i];
        r.have += left(&part);
        size_t length = message_length(&r);
        /* More in the record than the hello: another message that nobody may send before the server's answer. */
        if (length == SIZE_MAX || (length > 0 && r.have > length))
            return HELLO_MALFORMED;
        if (!whole)
            return HELLO_MORE;
        if (length > 0 && r.have == length) {
            *ret_message = length;
            *ret_length = (size_t)(r.bytes.at - begin);
            return HELLO_COMPLETE;
        }
    }
}

enum hello_status
hello_read(struct slice bytes, struct hello *ret)
{
    size_t message_len, length;
    if (bytes.len == 0)
        return HELLO_MORE;
    enum hello_status status = walk(bytes, NULL, &message_len, &length);
    if (status == HELLO_MORE && bytes.len >= HELLO_MAX)
        return HELLO_MALFORMED;
    if (status != HELLO_COMPLETE)
        return status;
    if (length > HELLO_MAX)
        return HELLO_MALFORMED;
    cleanup_free unsigned char *message = mem_alloc(message_len);
    walk(bytes, message, &message_len, &length);
    struct hello hello = {.length = length};
    if (!read_message((struct cursor){message + MESSAGE_HEADER, message + message_len}, &hello))
        return HELLO_MALFORMED;
    *ret = hello;
    return HELLO_COMPLETE;
}
