/* Addresses and prefixes as values. Text is read by inet_pton alone; whatever other forms of
 * address other programs accept (octal, hex, short, scoped) is no address here. */
#include "sallyport/base/addr.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "sallyport/base/encoding.h"

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static size_t
family_len(uint8_t family)
{
    if (family == AF_INET)
        return 4;
    return family == AF_INET6 ? 16 : 0;
}

/* inet_pton wants a terminator; a NUL inside must not end the text early. */
static bool
parse_family(struct slice text, int family, struct addr *ret)
{
    char copy[ADDR_TEXT_SIZE];
    if (text.len == 0 || text.len >= sizeof copy || memchr(text.ptr, '\0', text.len))
        return false;
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    struct addr a = {.family = (uint8_t)family};
    if (inet_pton(family, copy, a.bytes) != 1)
        return false;
    *ret = a;
    return true;
}

bool
addr_parse_v4(struct slice text, struct addr *ret)
{
    return parse_family(text, AF_INET, ret);
}

bool
addr_parse_v6(struct slice text, struct addr *ret)
{
    return parse_family(text, AF_INET6, ret);
}

bool
addr_parse(struct slice text, struct addr *ret)
{
    return slice_has_byte(text, ':') ? addr_parse_v6(text, ret) : addr_parse_v4(text, ret);
}

bool
addr_equal(const struct addr *a, const struct addr *b)
{
    return a->family == b->family && memcmp(a->bytes, b->bytes, family_len(a->family)) == 0;
}

/* What inet_ntop writes, without its printf: each record has such addresses. */
static void
format_v4(const uint8_t bytes[4], char *text)
{
    for (int i = 0; i < 4; i++) {
        text += decimal_encode(bytes[i], text);
        *text++ = i < 3 ? '.' : '\0';
    }
}

void
addr_format(const struct addr *a, char text[ADDR_TEXT_SIZE])
{
    if (a->family == AF_INET)
        format_v4(a->bytes, text);
    else if (family_len(a->family) == 0 || !inet_ntop(a->family, a->bytes, text, ADDR_TEXT_SIZE))
        memcpy(text, "none", sizeof "none");
}

/* Callers may hold a sockaddr_storage that is not aligned as its family: copy, never cast. */
bool
addr_from_sockaddr(const struct sockaddr *sa, struct addr *ret, uint16_t *ret_port)
{
    struct addr a = {0};
    if (sa->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof in);
        a.family = AF_INET;
        memcpy(a.bytes, &in.sin_addr, 4);
        *ret_port = ntohs(in.sin_port);
    } else if (sa->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, sa, sizeof in6);
        bool mapped = memcmp(&in6.sin6_addr, mapped_prefix, sizeof mapped_prefix) == 0;
        a.family = mapped ? AF_INET : AF_INET6;
        memcpy(a.bytes, in6.sin6_addr.s6_addr + (mapped ? 12 : 0), mapped ? 4 : 16);
        *ret_port = ntohs(in6.sin6_port);
    } else {
        return false;
    }
    *ret = a;
    return true;
}

socklen_t
addr_to_sockaddr(const struct addr *a, uint16_t port, struct sockaddr_storage *ret)
{
    memset(ret, 0, sizeof *ret);
    if (a->family == AF_INET) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
        memcpy(&in.sin_addr, a->bytes, 4);
        memcpy(ret, &in, sizeof in);
        return sizeof in;
    }
    if (a->family == AF_INET6) {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
        memcpy(&in6.sin6_addr, a->bytes, 16);
        memcpy(ret, &in6, sizeof in6);
        return sizeof in6;
    }
    return 0;
}

void
sockaddr_format(const struct sockaddr *sa, char text[SOCKADDR_TEXT_SIZE])
{
    struct addr a = {0};
    uint16_t port = 0;
    if (!addr_from_sockaddr(sa, &a, &port) && sa->sa_family != AF_UNIX)
        snprintf(text, SOCKADDR_TEXT_SIZE, "unknown");
    else
        addr_format_with_port(&a, port, text);
}

void
addr_format_with_port(const struct addr *a, uint16_t port, char text[SOCKADDR_TEXT_SIZE])
{
    bool brackets = a->family == AF_INET6;
    if (!a->family) {
        snprintf(text, SOCKADDR_TEXT_SIZE, "unix");
        return;
    }
    text[0] = '[';
    addr_format(a, text + brackets);
    char *end = text + strlen(text);
    if (brackets)
        *end++ = ']';
    *end++ = ':';
    end[decimal_encode(port, end)] = '\0';
}

/* Are the first `bits` of both the same? */
static bool
same_prefix(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    if (memcmp(a, b, bits / 8) != 0)
        return false;
    if (bits % 8 == 0)
        return true;
    uint8_t mask = (uint8_t)(0xff << (8 - bits % 8));
    return ((a[bits / 8] ^ b[bits / 8]) & mask) == 0;
}

static bool
host_bits_zero(const struct cidr *c)
{
    for (unsigned bit = c->bits; bit < family_len(c->base.family) * 8; bit++) {
        if (c->base.bytes[bit / 8] & (0x80 >> bit % 8))
            return false;
    }
    return true;
}

bool
cidr_parse(struct slice text, struct cidr *ret)
{
    struct slice rest, base = slice_split(text, '/', &rest);
    struct cidr c = {0};
    if (!addr_parse(base, &c.base))
        return false;
    unsigned long long all = family_len(c.base.family) * 8, bits = all;
    if (rest.ptr && !slice_parse_uint(rest, all, &bits))
        return false;
    c.bits = (uint8_t)bits;
    if (!host_bits_zero(&c))
        return false;
    *ret = c;
    return true;
}

bool
cidr_contains(const struct cidr *c, const struct addr *a)
{
    return c->base.family != 0 && c->base.family == a->family &&
           same_prefix(c->base.bytes, a->bytes, c->bits);
}

bool
cidr_covers(const struct cidr *outer, const struct cidr *inner)
{
    return outer->bits <= inner->bits && cidr_contains(outer, &inner->base);
}

/* Splits "[v6]:port", "[v6]", "v4:port" and "v4"; the port's ptr is NULL when there is none. */
static bool
split_host_port(struct slice text, struct slice *ret_host, struct slice *ret_port)
{
    if (!slice_starts_with(text, "[")) {
        *ret_host = slice_split(text, ':', ret_port);
        return true;
    }
    struct slice rest, host = slice_split(slice_of(text.ptr + 1, text.len - 1), ']', &rest);
    if (!rest.ptr || (rest.len > 0 && rest.ptr[0] != ':'))
        return false;
    *ret_host = host;
    *ret_port = rest.len > 0 ? slice_of(rest.ptr + 1, rest.len - 1) : slice_of(NULL, 0);
    return true;
}

bool
sockaddr_parse(struct slice text, uint16_t default_port, struct sockaddr_storage *ret,
               socklen_t *ret_len)
{
    struct slice host, port_text;
    struct addr a;
    unsigned long long port = default_port;
    if (!split_host_port(text, &host, &port_text))
        return false;
    bool bracketed = slice_starts_with(text, "[");
    if (!(bracketed ? addr_parse_v6(host, &a) : addr_parse_v4(host, &a)))
        return false;
    if (port_text.ptr ? !slice_parse_uint(port_text, 65535, &port) : default_port == 0)
        return false;
    *ret_len = addr_to_sockaddr(&a, (uint16_t)port, ret);
    return true;
}
