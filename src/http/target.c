/* The canonical target. One spelling for one destination, made here from what the client wrote and
 * used by everything after; what has no such spelling is refused, so that no two readers can take
 * one text for two hosts. IDNA is used for policy files alone: nothing on the way of a request
 * calls libidn2. */
#include "sallyport/http/target.h"

#include <idn2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sallyport/base/mem.h"
#include "sallyport/http/chars.h"

#define LABEL_MAX 63 /* RFC 1035 section 2.3.4 */
#define PORT_MAX 65535
#define PORT_HTTP 80
#define PORT_HTTPS 443

static char
lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

static bool
label_ok(struct slice label)
{
    return label.len <= LABEL_MAX && chars_all(label, CHAR_LABEL) && label.ptr[0] != '-' &&
           label.ptr[label.len - 1] != '-';
}

/* Letters, digits, "-" and "_" in labels, and a last label that begins with a letter: that ends all
 * the other ways to write an IPv4 address (octal, hex, fewer parts), whatever a resolver would make
 * of them. */
static bool
name_ok(struct slice name)
{
    struct slice rest = name, label = {NULL, 0};
    if (name.len == 0 || name.len > HOST_MAX)
        return false;
    while (rest.ptr) {
        label = slice_split(rest, '.', &rest);
        if (!label_ok(label))
            return false;
    }
    return char_is(label.ptr[0], CHAR_ALPHA);
}

static bool
parse_name(struct slice text, struct host *host)
{
    if (text.len && text.ptr[text.len - 1] == '.')
        text.len--;
    if (!name_ok(text))
        return false;
    host->kind = HOST_NAME;
    host->len = (uint8_t)text.len;
    for (size_t i = 0; i < text.len; i++)
        host->text[i] = lower(text.ptr[i]);
    return true;
}

static void
set_literal(struct host *host, enum host_kind kind)
{
    char text[ADDR_TEXT_SIZE];
    addr_format(&host->literal, text);
    host->kind = kind;
    host->len =
        (uint8_t)snprintf(host->text, sizeof(host->text), kind == HOST_IPV6 ? "[%s]" : "%s", text);
}

/* "[…]". A zone id is no part of the text of an address (and inet_pton takes none). */
static bool
parse_bracketed(struct slice text, struct host *host)
{
    if (text.len < 2 || text.ptr[text.len - 1] != ']' || slice_has_byte(text, '%'))
        return false;
    if (!addr_parse_v6(slice_of(text.ptr + 1, text.len - 2), &host->literal) ||
        host->literal.family != AF_INET6)
        return false;
    set_literal(host, HOST_IPV6);
    return true;
}

bool
host_parse(struct slice text, struct host *ret)
{
    struct host host = {.kind = HOST_NONE};
    if (text.len && text.ptr[0] == '[') {
        if (!parse_bracketed(text, &host))
            return false;
    } else if (addr_parse_v4(text, &host.literal)) {
        set_literal(&host, HOST_IPV4);
    } else if (!parse_name(text, &host)) {
        return false;
    }
    *ret = host;
    return true;
}

bool
host_equal(const struct host *a, const struct host *b)
{
    return a->kind == b->kind && a->kind != HOST_NONE && slice_equal(host_slice(a), host_slice(b));
}

struct target_packed *
target_pack(const struct target *t)
{
    struct target_packed *p = mem_alloc(sizeof *p + t->host.len);
    p->port = t->port;
    p->scheme = (uint8_t)t->scheme;
    p->kind = (uint8_t)t->host.kind;
    p->len = t->host.len;
    memcpy(p->text, t->host.text, t->host.len);
    return p;
}

void
target_unpack(const struct target_packed *p, struct target *ret)
{
    *ret = (struct target){.scheme = (enum scheme)p->scheme, .port = p->port, .host = {.kind = (enum host_kind)p->kind, .len = p->len}};
    memcpy(ret->host.text, p->text, p->len);
    struct slice text = host_slice(&ret->host);
    if (ret->host.kind == HOST_IPV6)
        text = slice_of(text.ptr + 1, text.len - 2); /* its brackets */
    if (ret->host.kind != HOST_NAME && !addr_parse(text, &ret->host.literal))
        abort(); /* it was written by host_parse */
}

struct slice
host_slice(const struct host *h)
{
    return slice_of(h->text, h->len);
}

/* Splits "host[:port]". *ret_port has ptr NULL when there is no colon; an empty port has not. A
 * colon outside brackets can only be the port's, so unbracketed IPv6 does not get through (its rest
 * is no port). */
static bool
split_authority(struct slice text, struct slice *ret_host, struct slice *ret_port)
{
    if (!text.len || text.ptr[0] != '[') {
        *ret_host = slice_split(text, ':', ret_port);
        return true;
    }
    const char *close = memchr(text.ptr, ']', text.len);
    if (!close)
        return false;
    size_t len = (size_t)(close - text.ptr) + 1;
    *ret_host = slice_of(text.ptr, len);
    *ret_port = slice_of(NULL, 0);
    if (len == text.len)
        return true;
    if (text.ptr[len] != ':')
        return false;
    *ret_port = slice_of(text.ptr + len + 1, text.len - len - 1);
    return true;
}

/* default_port 0: the port must be there. */
static bool
parse_authority(struct slice text, uint16_t default_port, struct host *ret_host, uint16_t *ret_port)
{
    struct slice host, port_text;
    unsigned long long port = default_port;
    if (!split_authority(text, &host, &port_text))
        return false;
    if (port_text.ptr && !slice_parse_uint(port_text, PORT_MAX, &port))
        return false;
    if (port == 0 || !host_parse(host, ret_host))
        return false;
    *ret_port = (uint16_t)port;
    return true;
}

enum reason
target_from_authority(struct slice authority, struct target *ret)
{
    struct target target = {.scheme = SCHEME_NONE};
    if (!parse_authority(authority, 0, &target.host, &target.port))
        return REASON_REQUEST_MALFORMED;
    *ret = target;
    return REASON_OK;
}

static bool
percent_ok(struct slice path, size_t at)
{
    return path.len - at > 2 && char_is(path.ptr[at + 1], CHAR_HEX) &&
           char_is(path.ptr[at + 2], CHAR_HEX);
}

/* "[" and "]" are bytes of RFC 3986 that its grammar keeps for addresses; in queries every client
 * sends them as they are. */
static bool
path_byte_ok(struct slice path, size_t at, bool query)
{
    char c = path.ptr[at];
    if (c == '%')
        return percent_ok(path, at);
    return char_is(c, CHAR_PATH) || (query && (c == '?' || c == '[' || c == ']'));
}

bool
path_is_wellformed(struct slice path)
{
    bool query = false;
    if (!path.len || path.ptr[0] != '/')
        return false;
    for (size_t i = 0; i < path.len; i++) {
        if (path.ptr[i] == '?')
            query = true;
        if (!path_byte_ok(path, i, query))
            return false;
    }
    return true;
}

static size_t
authority_len(struct slice text)
{
    size_t n = 0;
    while (n < text.len && text.ptr[n] != '/' && text.ptr[n] != '?' && text.ptr[n] != '#')
        n++;
    return n;
}

/* A query behind an empty path ("http://h?q") is refused: it cannot be passed on as it was sent. */
enum reason
target_from_uri(struct slice uri, struct target *ret, struct slice *ret_path)
{
    static const char prefix[] = "http://";
    size_t prefix_len = sizeof(prefix) - 1;
    struct target target = {.scheme = SCHEME_HTTP};
    if (uri.len < prefix_len ||
        !slice_equal_nocase(slice_of(uri.ptr, prefix_len), slice_str(prefix)))
        return REASON_REQUEST_MALFORMED;
    struct slice rest = slice_of(uri.ptr + prefix_len, uri.len - prefix_len);
    size_t len = authority_len(rest);
    struct slice path = slice_of(rest.ptr + len, rest.len - len);
    if (!path.len)
        path = slice_str("/");
    if (!parse_authority(slice_of(rest.ptr, len), PORT_HTTP, &target.host, &target.port) ||
        !path_is_wellformed(path))
        return REASON_REQUEST_MALFORMED;
    *ret = target;
    *ret_path = path;
    return REASON_OK;
}

static uint16_t
implied_port(const struct target *target)
{
    switch (target->scheme) {
    case SCHEME_NONE:
        return target->port;
    case SCHEME_HTTP:
        return PORT_HTTP;
    case SCHEME_HTTPS:
        return PORT_HTTPS;
    }
    return 0;
}

enum reason
target_check_host_field(const struct target *target, struct slice value)
{
    struct host host;
    uint16_t port;
    if (!parse_authority(value, implied_port(target), &host, &port))
        return REASON_REQUEST_MALFORMED;
    return host_equal(&host, &target->host) && port == target->port ? REASON_OK
                                                                    : REASON_HOST_MISMATCH;
}

void
target_format(const struct target *t, char text[TARGET_TEXT_SIZE])
{
    snprintf(text, TARGET_TEXT_SIZE, "%.*s:%u", (int)t->host.len, t->host.text, t->port);
}

bool
host_to_ascii(struct slice utf8, char *out)
{
    char in[4 * HOST_MAX + 1]; /* a U-label takes up to four bytes a character */
    char *ascii = NULL;
    struct host host;
    if (!utf8.len || utf8.len >= sizeof(in) || slice_has_byte(utf8, '\0'))
        return false;
    memcpy(in, utf8.ptr, utf8.len);
    in[utf8.len] = '\0';
    if (idn2_to_ascii_8z(in, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) != IDN2_OK)
        return false;
    /* What libidn2 made of it must itself be a name: it maps full-width dots and digits. */
    bool ok = host_parse(slice_str(ascii), &host) && host.kind == HOST_NAME &&
              host_alabels_ok(host_slice(&host));
    if (ok)
        snprintf(out, HOST_TEXT_SIZE, "%.*s", (int)host.len, host.text);
    idn2_free(ascii);
    return ok;
}

/* Has the UTF-8 text a character above ASCII, and none of the control characters U+0080 to U+009F,
 * which stand in no name but come out of some A-labels that are made up ("xn--a")? */
static bool
is_ulabel(const char *utf8)
{
    for (const char *at = strchr(utf8, 0xc2); at; at = strchr(at + 1, 0xc2))
        if ((unsigned char)at[1] < 0xa0)
            return false;
    return chars_has_obs_text(slice_str(utf8));
}

/* A label with "xn--" must be the one way to write something that is not ASCII. */
static bool
alabel_ok(struct slice label)
{
    char in[LABEL_MAX + 1], *unicode = NULL;
    if (label.len < 4 || !slice_equal_nocase(slice_of(label.ptr, 4), slice_str("xn--")))
        return true;
    if (label.len > LABEL_MAX || slice_has_byte(label, '\0'))
        return false;
    memcpy(in, label.ptr, label.len);
    in[label.len] = '\0';
    if (idn2_to_unicode_8z8z(in, &unicode, 0) != IDN2_OK)
        return false;
    /* libidn2 hands an A-label that it cannot decode back as it is: that is ASCII, and refused
     * likewise. */
    bool ok = is_ulabel(unicode);
    idn2_free(unicode);
    return ok;
}

bool
host_alabels_ok(struct slice canonical)
{
    while (canonical.ptr) {
        struct slice label = slice_split(canonical, '.', &canonical);
        if (!alabel_ok(label))
            return false;
    }
    return true;
}
