/* Reading one host entry of a policy or of the configuration: CONTRACT section 3, "Host entries". What is not plainly a
 * host is refused with a sentence that says what to write instead; nothing is repaired or guessed. Pure functions; the
 * public suffix list is the one that libpsl was built with. */
#include "sallyport/policy/hosts.h"

#include <libpsl.h>
#include <stdio.h>

#include "sallyport/base/mem.h"

/* RFC 6761, 6762, 7686, 9476, 8375 and names that clouds give to their metadata services. */
static const char *const special_names[] = {
    "localhost", "local", "internal", "arpa", "alt", "onion", "test", "invalid", "home.arpa", "metadata.goog", NULL,
};

static bool
at_or_below(struct slice name, struct slice top)
{
    if (name.len < top.len || memcmp(name.ptr + name.len - top.len, top.ptr, top.len) != 0)
        return false;
    return name.len == top.len || name.ptr[name.len - top.len - 1] == '.';
}

const char *
host_special(const struct host *host)
{
    struct slice name = host_slice(host);
    if (host->kind != HOST_NAME)
        return NULL;
    for (size_t i = 0; special_names[i]; i++) {
        if (at_or_below(name, slice_str(special_names[i])))
            return special_names[i];
    }
    return slice_has_byte(name, '.') ? NULL : "a single label";
}

bool
host_is_private_suffix(const struct host *host)
{
    return host->kind == HOST_NAME &&
           psl_is_public_suffix2(psl_builtin(), host->text, PSL_TYPE_PRIVATE | PSL_TYPE_NO_STAR_RULE);
}

bool
host_is_public_suffix(const struct host *host)
{
    return host->kind == HOST_NAME && (!slice_has_byte(host_slice(host), '.') || psl_is_public_suffix2(psl_builtin(), host->text, PSL_TYPE_ANY));
}

static bool
refuse(char why[ENTRY_WHY_SIZE], const char *text)
{
    snprintf(why, ENTRY_WHY_SIZE, "%s", text);
    return false;
}

static bool
has_byte_outside_ascii(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if ((unsigned char)s.ptr[i] > 0x7e)
            return true;
    }
    return false;
}

/* A bare name, as nearly all entries of long lists are: nothing to take off and nothing to explain. */
static bool
is_bare(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c > 0x7e || c == ':' || c == '/' || c == '*')
            return false;
    }
    return true;
}

static bool
refuse_unicode(struct slice name, char why[ENTRY_WHY_SIZE])
{
    char ascii[HOST_TEXT_SIZE];
    if (!host_to_ascii(name, ascii))
        return refuse(why, "holds bytes outside ASCII and is no internationalised name; expected a host name in A-labels");
    snprintf(why, ENTRY_WHY_SIZE, "is an internationalised name; write its A-label form \"%s\"", ascii);
    return false;
}

/* Takes "http://" or "https://" off and sets the port that it stands for. */
static bool
take_scheme(struct slice *text, struct host_entry *e, char why[ENTRY_WHY_SIZE])
{
    const char *mark = memmem(text->ptr, text->len, "://", 3);
    if (!mark)
        return true;
    struct slice scheme = slice_of(text->ptr, (size_t)(mark - text->ptr));
    if (slice_equal_nocase(scheme, slice_str("https")))
        e->port = 443;
    else if (slice_equal_nocase(scheme, slice_str("http")))
        e->port = 80;
    else
        return refuse(why, "has a scheme that is neither https nor http; expected a host, host:port or *.host");
    e->url = true;
    *text = slice_of(mark + 3, text->len - scheme.len - 3);
    return true;
}

static bool
take_path(struct slice *text, const struct host_entry *e, char why[ENTRY_WHY_SIZE])
{
    struct slice rest;
    struct slice authority = slice_split(*text, '/', &rest);
    if (!rest.ptr)
        return true;
    if (!e->url || rest.len > 0)
        return refuse(why, "has a path, which an entry cannot limit; write the host alone and put the path into \"rules\"");
    *text = authority;
    return true;
}

static bool
take_port(struct slice *text, struct host_entry *e, char why[ENTRY_WHY_SIZE])
{
    struct slice host = *text, port = {NULL, 0};
    unsigned long long value;

    if (host.len > 0 && host.ptr[0] == '[') {
        const char *end = memchr(host.ptr, ']', host.len);
        if (!end)
            return refuse(why, "opens a bracket and does not close it; expected [IPv6 address]");
        struct slice rest = slice_of(end + 1, host.len - (size_t)(end + 1 - host.ptr));
        host.len = (size_t)(end + 1 - host.ptr);
        if (rest.len > 0) {
            if (rest.ptr[0] != ':')
                return refuse(why, "has something behind the bracket; expected [IPv6 address] or [IPv6 address]:port");
            port = slice_of(rest.ptr + 1, rest.len - 1);
        }
    } else {
        host = slice_split(*text, ':', &port);
        if (port.ptr && slice_has_byte(port, ':'))
            return refuse(why, "has more than one colon; an IPv6 address stands in brackets");
    }
    *text = host;
    if (!port.ptr)
        return true;
    if (!slice_parse_uint(port, 65535, &value) || value == 0)
        return refuse(why, "has a port that is no number from 1 to 65535");
    e->port = (uint16_t)value;
    return true;
}

static bool
take_star(struct slice *text, struct host_entry *e, char why[ENTRY_WHY_SIZE])
{
    if (!slice_has_byte(*text, '*'))
        return true;
    if (slice_is(*text, "*"))
        return refuse(why, "would open every host; use \"type\": \"unrestricted\" if that is meant");
    if (!slice_starts_with(*text, "*."))
        return refuse(why, "has a star that is no whole first label; expected *.host, which matches every name below host");
    *text = slice_of(text->ptr + 2, text->len - 2);
    if (slice_has_byte(*text, '*'))
        return refuse(why, "has more than one star; expected *.host, which matches every name below host");
    e->suffix = true;
    return true;
}

/* The canonical host: what makes it one, and which canonical hosts a policy may not name. */
static bool
judge_host(struct slice text, struct host_entry *e, char why[ENTRY_WHY_SIZE])
{
    if (text.len == 0)
        return refuse(why, "has no host; expected a host name, *.host or an address");
    if (!host_parse(text, &e->host))
        return refuse(why, "is not a host: expected a name of labels of 1 to 63 letters, digits, - and _ whose last label "
                           "begins with a letter, an IPv4 address or an IPv6 address in brackets");
    if (e->host.kind != HOST_NAME) {
        if (e->suffix)
            return refuse(why, "is a wildcard on an address; addresses match only literally");
        return true;
    }
    if (memchr(e->host.text, '-', e->host.len) && !host_alabels_ok(host_slice(&e->host)))
        return refuse(why, "has an xn-- label that stands for no internationalised label");
    if (e->suffix && psl_is_public_suffix2(psl_builtin(), e->host.text, PSL_TYPE_ICANN))
        return refuse(why, "is a wildcard on a public suffix, below which anybody can register names");
    if (!slice_has_byte(host_slice(&e->host), '.'))
        return refuse(why, "is a single label, which no public host has; write the full name");
    return true;
}

bool
host_entry_parse(struct slice text, struct host_entry *ret, char why[ENTRY_WHY_SIZE])
{
    ret->suffix = ret->url = false;
    ret->port = 0;
    ret->host.kind = HOST_NONE;
    if (text.len == 0)
        return refuse(why, "is empty; expected a host");
    if (is_bare(text))
        return judge_host(text, ret, why);
    if (!take_scheme(&text, ret, why) || !take_path(&text, ret, why) || !take_port(&text, ret, why) ||
        !take_star(&text, ret, why))
        return false;
    if (has_byte_outside_ascii(text))
        return refuse_unicode(text, why);
    return judge_host(text, ret, why);
}

void
host_entry_format(const struct host_entry *e, char text[ENTRY_TEXT_SIZE])
{
    int n = snprintf(text, ENTRY_TEXT_SIZE, "%s%s", e->suffix ? "*." : "", e->host.text);
    if (e->port)
        snprintf(text + n, ENTRY_TEXT_SIZE - (size_t)n, ":%u", e->port);
}

static bool
below(const struct host *host, const struct host *top)
{
    return host->kind == HOST_NAME && host->len > top->len && at_or_below(host_slice(host), host_slice(top));
}

bool
host_entry_covers(const struct host_entry *e, const struct host *host, uint16_t port)
{
    if (e->port && port && e->port != port)
        return false;
    return e->suffix ? below(host, &e->host) : host_equal(&e->host, host);
}

bool
host_entry_overlaps(const struct host_entry *a, const struct host_entry *b)
{
    if (a->port && b->port && a->port != b->port)
        return false;
    if (a->suffix && b->suffix)
        return host_equal(&a->host, &b->host) || below(&a->host, &b->host) || below(&b->host, &a->host);
    return a->suffix ? host_entry_covers(a, &b->host, 0) : host_entry_covers(b, &a->host, 0);
}
