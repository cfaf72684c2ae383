/* PROXY protocol version 2, header only: a pure function over bytes. TLVs are skipped. */
#include "sallyport/proxy/preface.h"

static const unsigned char signature[12] = "\r\n\r\n\0\r\nQUIT\n";

#define FIXED_LEN 16

static void
read_client(const unsigned char *block, uint8_t family, struct addr *ret_client, uint16_t *ret_port)
{
    size_t width = family == AF_INET ? 4 : 16;
    *ret_client = (struct addr){.family = family};
    memcpy(ret_client->bytes, block, width);
    const unsigned char *port = block + 2 * width;
    *ret_port = (uint16_t)((port[0] << 8) | port[1]);
}

enum preface_status
preface_read(struct slice bytes, struct addr *ret_client, uint16_t *ret_port, size_t *ret_len)
{
    const unsigned char *p = (const unsigned char *)bytes.ptr;
    size_t seen = bytes.len < sizeof signature ? bytes.len : sizeof signature;
    if (memcmp(p, signature, seen) != 0)
        return PREFACE_MALFORMED;
    if (bytes.len < FIXED_LEN)
        return PREFACE_MORE;
    unsigned command = p[12], protocol = p[13];
    size_t len = (size_t)((p[14] << 8) | p[15]);
    if (command != 0x20 && command != 0x21)
        return PREFACE_MALFORMED;
    if (FIXED_LEN + len > PREFACE_MAX)
        return PREFACE_MALFORMED;
    if (bytes.len < FIXED_LEN + len)
        return PREFACE_MORE;
    *ret_len = FIXED_LEN + len;
    if (command == 0x20 || protocol == 0x00) /* LOCAL, or UNSPEC: the connection's own address stands */
        return PREFACE_COMPLETE;
    if (protocol == 0x11 && len >= 12)
        read_client(p + FIXED_LEN, AF_INET, ret_client, ret_port);
    else if (protocol == 0x21 && len >= 36)
        read_client(p + FIXED_LEN, AF_INET6, ret_client, ret_port);
    else
        return PREFACE_MALFORMED;
    return PREFACE_COMPLETE;
}
