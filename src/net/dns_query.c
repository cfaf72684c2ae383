/* DNS queries of a sandbox and their answers. One question, no compression, no more than a host name: what is unusual gets
 * a format error instead of an interpretation. */
#include "sallyport/net/dns_query.h"

#include <string.h>

#define HEADER 12
#define LABEL_MAX 63
#define NAME_WIRE_MAX 255
#define FLAG_QR 0x8000u
#define FLAG_RD 0x0100u
#define FLAG_RA 0x0080u
#define FLAG_AA 0x0400u
#define OPCODE(flags) (((flags) >> 11) & 15u)
#define CLASS_IN 1
#define POINTER_TO_QUESTION 0xc00c /* RFC 1035 section 4.1.4: offset 12 */

static unsigned
get16(const unsigned char *p)
{
    return (unsigned)(p[0] << 8 | p[1]);
}

static bool
put16(struct buf *out, unsigned v)
{
    unsigned char b[2] = {(unsigned char)(v >> 8), (unsigned char)v};
    return buf_append(out, b, sizeof b);
}

/* The name at p; the number of bytes that it takes, or 0. */
static size_t
read_name(const unsigned char *p, size_t len, char *text)
{
    size_t at = 0, out = 0;
    while (at < len && p[at] != 0) {
        size_t label = p[at++];
        if (label > LABEL_MAX || len - at < label || at + label >= NAME_WIRE_MAX)
            return 0;
        if (out)
            text[out++] = '.';
        memcpy(text + out, p + at, label);
        out += label;
        at += label;
    }
    text[out] = '\0';
    if (at >= len || memchr(text, '\0', out))
        return 0;
    return at + 1;
}

int
dns_query_read(struct slice msg, struct dns_query *ret)
{
    const unsigned char *p = (const unsigned char *)msg.ptr;
    if (msg.len < HEADER || (get16(p + 2) & FLAG_QR))
        return -1;
    *ret = (struct dns_query){.id = (uint16_t)get16(p), .recursion_desired = get16(p + 2) & FLAG_RD};
    if (OPCODE(get16(p + 2)) != 0)
        return DNS_NOTIMP;
    if (get16(p + 4) != 1 || get16(p + 6) != 0 || get16(p + 8) != 0)
        return DNS_FORMERR;
    size_t name = read_name(p + HEADER, msg.len - HEADER, ret->name);
    if (name == 0 || msg.len - HEADER < name + 4)
        return DNS_FORMERR;
    ret->type = (uint16_t)get16(p + HEADER + name);
    ret->class_ = (uint16_t)get16(p + HEADER + name + 2);
    ret->question_len = name + 4;
    memcpy(ret->question, p + HEADER, name + 4);
    return ret->class_ == CLASS_IN ? DNS_NOERROR : DNS_NOTIMP;
}

static bool
write_address(struct buf *out, const struct addr *a, uint32_t ttl_s)
{
    unsigned width = a->family == AF_INET ? 4 : 16;
    return put16(out, POINTER_TO_QUESTION) && put16(out, a->family == AF_INET ? DNS_TYPE_A : DNS_TYPE_AAAA) &&
           put16(out, CLASS_IN) && put16(out, ttl_s >> 16) && put16(out, ttl_s & 0xffff) && put16(out, width) &&
           buf_append(out, a->bytes, width);
}

bool
dns_reply_write(struct buf *out, const struct dns_query *q, enum dns_rcode rcode, const struct addr *address, uint32_t ttl_s)
{
    unsigned flags = FLAG_QR | FLAG_AA | FLAG_RA | (q->recursion_desired ? FLAG_RD : 0) | (unsigned)rcode;
    return put16(out, q->id) && put16(out, flags) && put16(out, q->question_len ? 1 : 0) && put16(out, address ? 1 : 0) &&
           put16(out, 0) && put16(out, 0) && buf_append(out, q->question, q->question_len) &&
           (!address || write_address(out, address, ttl_s));
}
