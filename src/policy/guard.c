/* The address guard: which addresses may be dialled, and the only maker of endpoints. The rows of its tables stand in
 * base/special_ranges.h, which the fence reads too. An IPv6 address is judged together with every IPv4 address that it embeds.
 * Pure; it opens nothing and resolves nothing. */
#include "sallyport/policy/guard.h"

#include <stdio.h>
#include <stdlib.h>

#include "sallyport/base/mem.h"
#include "sallyport/base/special_ranges.h"
#include "sallyport/policy/model.h"

struct range4 { uint32_t base; uint8_t bits; const char *name; };
struct range6 { uint64_t base[2]; uint8_t bits; const char *name; };

/* Sorted by base, wider first, so that the last row that contains an address is the most specific one. A lookup compares
 * with each row: 20 and 31 integer comparisons, whatever the address is. */
#define ROW4(base, bits, name) {base, bits, name},
static const struct range4 table4[] = {SPECIAL_RANGES_V4(ROW4)};

#define ROW6(high, low, bits, name) {{high, low}, bits, name},
static const struct range6 table6[] = {SPECIAL_RANGES_V6(ROW6)};

#define SERVICE(text, name) {text, name},
static const struct { const char *text, *name; } metadata_texts[] = {SPECIAL_SERVICES(SERVICE)};
#define METADATA_COUNT (sizeof metadata_texts / sizeof metadata_texts[0])

#define EMBEDDED_MAX 4

/* What has been opened and closed, by whom. */
struct opening {
    const struct cidr *allow, *deny, *delegable;
    size_t allow_count, deny_count, delegable_count;
    const struct addr *own;
    size_t own_count;
    const struct policy *policy; /* NULL: no private addresses */
    uint32_t privates[HOSTS_MATCHES_MAX]; /* heads of the chains that match the host */
    size_t private_count;
};

struct listener {
    struct addr addr;
    uint16_t port;
};

struct guard {
    unsigned refs;
    struct cidr *allow, *deny, *delegable;
    size_t allow_count, deny_count, delegable_count;
    struct addr *own;
    size_t own_count;
    struct listener *listeners;
    size_t listener_count;
};

struct endpoint {
    struct addr addr;
    struct sockaddr_storage sa;
    socklen_t len;
};

struct endpoints {
    size_t count;
    struct endpoint items[];
};

/* ---- the tables ---- */

static uint32_t
word4(const uint8_t *b)
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static uint64_t
word6(const uint8_t *b)
{
    return (uint64_t)word4(b) << 32 | word4(b + 4);
}

static bool
in_range6(const struct range6 *r, uint64_t high, uint64_t low)
{
    uint64_t mask_high = r->bits == 0 ? 0 : r->bits >= 64 ? UINT64_MAX : UINT64_MAX << (64 - r->bits);
    uint64_t mask_low = r->bits <= 64 ? 0 : UINT64_MAX << (128 - r->bits);
    return (high & mask_high) == r->base[0] && (low & mask_low) == r->base[1];
}

static const char *
lookup4(uint32_t a)
{
    const char *name = NULL;
    for (size_t i = 0; i < sizeof table4 / sizeof table4[0]; i++) {
        if ((a & (UINT32_MAX << (32 - table4[i].bits))) == table4[i].base)
            name = table4[i].name;
    }
    return name;
}

static const char *
lookup6(const uint8_t *b)
{
    uint64_t high = word6(b), low = word6(b + 8);
    const char *name = high >> 61 == 1 ? NULL : "outside the global unicast range 2000::/3 (RFC 4291)";
    for (size_t i = 0; i < sizeof table6 / sizeof table6[0]; i++) {
        if (in_range6(&table6[i], high, low))
            name = table6[i].name;
    }
    return name;
}

static const char *
lookup(const struct addr *a)
{
    if (a->family == AF_INET)
        return lookup4(word4(a->bytes));
    return a->family == AF_INET6 ? lookup6(a->bytes) : "no IP address";
}

static const char *
lookup_metadata(const struct addr *a)
{
    static struct addr table[METADATA_COUNT];
    static bool ready;
    if (!ready) {
        for (size_t i = 0; i < METADATA_COUNT; i++) {
            if (!addr_parse(slice_str(metadata_texts[i].text), &table[i]))
                abort();
        }
        ready = true;
    }
    for (size_t i = 0; i < METADATA_COUNT; i++) {
        if (addr_equal(a, &table[i]))
            return metadata_texts[i].name;
    }
    return NULL;
}

/* ---- what an address stands for ---- */

static struct addr
from4(const uint8_t *b, uint8_t flip)
{
    struct addr a = {.family = AF_INET};
    for (size_t i = 0; i < 4; i++)
        a.bytes[i] = b[i] ^ flip;
    return a;
}

/* ::ffff:a.b.c.d is a.b.c.d, and that is what is judged and dialled. */
static struct addr
canonical(const struct addr *a)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (a->family == AF_INET6 && memcmp(a->bytes, mapped, sizeof mapped) == 0)
        return from4(a->bytes + 12, 0);
    return *a;
}

static bool
all_zero(const uint8_t *b, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (b[i])
            return false;
    }
    return true;
}

/* The IPv4 addresses that a gateway or tunnel would read out of an IPv6 address: compatible and translated forms, NAT64
 * (RFC 6052), 6to4 (RFC 3056), Teredo (RFC 4380), ISATAP (RFC 5214). */
static size_t
embedded(const struct addr *a, struct addr ret[EMBEDDED_MAX])
{
    static const uint8_t nat64[4] = {0x00, 0x64, 0xff, 0x9b}, translated[12] = {[8] = 0xff, [9] = 0xff};
    const uint8_t *b = a->bytes;
    size_t n = 0;

    if (a->family != AF_INET6)
        return 0;
    bool local = all_zero(b, 15) && b[15] <= 1; /* :: and ::1 stand for themselves */
    if ((all_zero(b, 12) && !local) || memcmp(b, translated, sizeof translated) == 0)
        ret[n++] = from4(b + 12, 0);
    if (memcmp(b, nat64, sizeof nat64) == 0 && (all_zero(b + 4, 8) || word4(b + 12) != 0))
        ret[n++] = from4(b + 12, 0);
    if (memcmp(b, nat64, sizeof nat64) == 0 && b[4] == 0 && b[5] == 1 && b[8] == 0) {
        const uint8_t split[4] = {b[6], b[7], b[9], b[10]}; /* the layout of a /48 prefix */
        if (!all_zero(split, 4))
            ret[n++] = from4(split, 0);
    }
    if (b[0] == 0x20 && b[1] == 0x02)
        ret[n++] = from4(b + 2, 0);
    if (b[0] == 0x20 && b[1] == 0x01 && b[2] == 0 && b[3] == 0) {
        ret[n++] = from4(b + 4, 0);
        ret[n++] = from4(b + 12, 0xff);
    }
    if ((b[8] == 0 || b[8] == 2) && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe && n < EMBEDDED_MAX)
        ret[n++] = from4(b + 12, 0);
    return n;
}

/* ---- who has opened what ---- */

static bool
covered(const struct cidr *list, size_t count, const struct addr *a)
{
    for (size_t i = 0; i < count; i++) {
        if (cidr_contains(&list[i], a))
            return true;
    }
    return false;
}

static bool
named_exactly(const struct cidr *list, size_t count, const struct addr *a)
{
    for (size_t i = 0; i < count; i++) {
        if (list[i].bits == (a->family == AF_INET ? 32 : 128) && addr_equal(&list[i].base, a))
            return true;
    }
    return false;
}

typedef bool (*in_list)(const struct cidr *list, size_t count, const struct addr *a);

/* private_addresses of the policy for this host, as far as the operator has delegated them. */
static bool
privately(const struct opening *o, const struct addr *a, in_list has)
{
    if (!o->policy || !has(o->delegable, o->delegable_count, a))
        return false;
    for (size_t i = 0; i < o->private_count; i++) {
        for (uint32_t k = o->privates[i]; k != NO_NEXT; k = o->policy->privates[k].next) {
            if (has(o->policy->privates[k].cidrs, o->policy->privates[k].count, a))
                return true;
        }
    }
    return false;
}

static bool
is_unspecified(const struct addr *a)
{
    return all_zero(a->bytes, a->family == AF_INET ? 4 : 16);
}

static bool
is_own(const struct opening *o, const struct addr *a)
{
    for (size_t i = 0; i < o->own_count; i++) {
        struct addr own = canonical(&o->own[i]);
        if (addr_equal(&own, a))
            return true;
    }
    return false;
}

/* One address without what it embeds: why it is closed, or NULL. */
static const char *
closed_alone(const struct opening *o, const struct addr *a)
{
    if (a->family != AF_INET && a->family != AF_INET6)
        return "no IP address";
    if (is_unspecified(a))
        return "the unspecified address, which connects to this host itself";
    if (covered(o->deny, o->deny_count, a))
        return "closed by the operator (upstream.deny_addresses)";
    bool exactly = named_exactly(o->allow, o->allow_count, a);
    if (lookup_metadata(a))
        return exactly ? NULL : "a cloud metadata or host service, which needs an exact entry of its own";
    if (is_own(o, a))
        return exactly || privately(o, a, named_exactly) ? NULL : "an address of this host or its resolver, which needs an exact entry of its own";
    const char *name = lookup(a);
    if (!name || covered(o->allow, o->allow_count, a) || privately(o, a, covered))
        return NULL;
    return name;
}

static const char *
closed(const struct opening *o, const struct addr *raw)
{
    struct addr a = canonical(raw), inner[EMBEDDED_MAX];
    const char *why = closed_alone(o, &a);
    size_t count = embedded(&a, inner);
    for (size_t i = 0; i < count && !why; i++)
        why = closed_alone(o, &inner[i]);
    return why;
}

static struct opening
opening_for(const struct guard *g, const struct policy *policy, const struct host *host)
{
    struct opening o = {
        .allow = g->allow, .allow_count = g->allow_count, .deny = g->deny, .deny_count = g->deny_count,
        .delegable = g->delegable, .delegable_count = g->delegable_count, .own = g->own, .own_count = g->own_count,
        .policy = policy,
    };
    if (policy && policy->private_count > 0 && host) {
        struct host_key key;
        bool port_closed;
        host_key_init(&key, host);
        o.private_count = hosts_find_all(policy->private_hosts, &key, 443, true, HOSTS_ANY, o.privates, &port_closed);
    }
    return o;
}

bool
guard_address_is_public(const struct addr *a)
{
    struct opening nothing = {.allow = NULL};
    return closed(&nothing, a) == NULL;
}

bool
guard_address_is_opened(const struct addr *a, const struct cidr *opened, size_t count)
{
    struct opening o = {.allow = opened, .allow_count = count};
    return closed(&o, a) == NULL;
}

const char *
guard_address_name(const struct addr *a)
{
    struct opening nothing = {.allow = NULL};
    return closed(&nothing, a);
}

const char *
guard_explain(const struct guard *g, const struct policy *policy, const struct host *host, const struct addr *a)
{
    struct opening o = opening_for(g, policy, host);
    return closed(&o, a);
}

/* ---- the guard ---- */

static void *
copy(const void *items, size_t count, size_t size)
{
    void *p = mem_array(count + 1, size);
    if (count > 0)
        memcpy(p, items, count * size);
    return p;
}

struct guard *
guard_new(const struct guard_options *o)
{
    struct guard *g = mem_zalloc(sizeof *g);
    g->refs = 1;
    g->allow = copy(o->allow_addresses, g->allow_count = o->allow_count, sizeof *g->allow);
    g->deny = copy(o->deny_addresses, g->deny_count = o->deny_count, sizeof *g->deny);
    g->delegable = copy(o->delegable_addresses, g->delegable_count = o->delegable_count, sizeof *g->delegable);
    g->own = copy(o->own, g->own_count = o->own_count, sizeof *g->own);
    g->listeners = mem_array(o->listener_count + 1, sizeof *g->listeners);
    for (size_t i = 0; i < o->listener_count; i++) {
        struct listener *l = &g->listeners[g->listener_count];
        if (addr_from_sockaddr((const struct sockaddr *)&o->listeners[i], &l->addr, &l->port))
            g->listener_count++; /* a unix socket has no address to dial */
    }
    return g;
}

struct guard *
guard_ref(struct guard *g)
{
    g->refs++;
    return g;
}

void
guard_unref(struct guard *g)
{
    if (!g || --g->refs > 0)
        return;
    free(g->allow);
    free(g->deny);
    free(g->delegable);
    free(g->own);
    free(g->listeners);
    free(g);
}

static bool
is_loopback(const struct addr *a)
{
    return a->family == AF_INET ? a->bytes[0] == 127 : all_zero(a->bytes, 15) && a->bytes[15] == 1;
}

/* Would this connect to one of the proxy's own sockets? A wildcard listener answers on every address of the host. */
static bool
reaches_listener(const struct guard *g, const struct opening *o, const struct addr *a, uint16_t port)
{
    for (size_t i = 0; i < g->listener_count; i++) {
        const struct listener *l = &g->listeners[i];
        if (l->port != port)
            continue;
        if (addr_equal(&l->addr, a) || (is_unspecified(&l->addr) && (is_own(o, a) || is_loopback(a))))
            return true;
    }
    return false;
}

static bool
may_dial(const struct guard *g, const struct opening *o, const struct addr *raw, uint16_t port)
{
    struct addr a = canonical(raw), inner[EMBEDDED_MAX];
    if (closed(o, raw) || reaches_listener(g, o, &a, port))
        return false;
    size_t count = embedded(&a, inner);
    for (size_t i = 0; i < count; i++) {
        if (reaches_listener(g, o, &inner[i], port))
            return false;
    }
    return true;
}

static void
add_endpoint(struct endpoints *e, const struct addr *a, uint16_t port)
{
    for (size_t i = 0; i < e->count; i++) {
        if (addr_equal(&e->items[i].addr, a))
            return;
    }
    struct endpoint *item = &e->items[e->count++];
    item->addr = *a;
    item->len = addr_to_sockaddr(a, port, &item->sa);
}

/* The next answer of the family at or after *at; false when there is none. */
static bool
next_of_family(const struct addr *answers, size_t count, uint8_t family, size_t *at, struct addr *ret)
{
    for (; *at < count; ++*at) {
        *ret = canonical(&answers[*at]);
        if (ret->family == family) {
            ++*at;
            return true;
        }
    }
    return false;
}

/* RFC 8305 section 4: IPv6 first, then the families in turn, each in the resolver's order. */
static struct endpoints *
in_turn(const struct addr *answers, size_t count, uint16_t port)
{
    struct endpoints *e = mem_zalloc(sizeof *e + count * sizeof e->items[0]);
    size_t at6 = 0, at4 = 0;
    struct addr a;
    bool more = true;
    while (more) {
        more = false;
        if (next_of_family(answers, count, AF_INET6, &at6, &a)) {
            add_endpoint(e, &a, port);
            more = true;
        }
        if (next_of_family(answers, count, AF_INET, &at4, &a)) {
            add_endpoint(e, &a, port);
            more = true;
        }
    }
    return e;
}

enum reason
guard_judge(const struct guard *g, const struct policy *policy, const struct target *target, const struct addr *answers,
            size_t count, struct endpoints **ret)
{
    if (count == 0)
        return REASON_DNS_FAILURE;
    if (count > GUARD_ANSWERS_MAX || target->port == 0)
        return REASON_ADDRESS_NOT_ALLOWED;
    struct opening o = opening_for(g, policy, &target->host);
    for (size_t i = 0; i < count; i++) {
        if (!may_dial(g, &o, &answers[i], target->port))
            return REASON_ADDRESS_NOT_ALLOWED;
    }
    *ret = in_turn(answers, count, target->port);
    return REASON_OK;
}

struct endpoints *
guard_operator_endpoint(const struct sockaddr_storage *sa, socklen_t len)
{
    struct endpoints *e = mem_zalloc(sizeof *e + sizeof e->items[0]);
    uint16_t port;
    if (addr_from_sockaddr((const struct sockaddr *)sa, &e->items[0].addr, &port)) {
        e->count = 1;
        e->items[0].sa = *sa;
        e->items[0].len = len;
    }
    return e;
}

size_t
endpoints_count(const struct endpoints *e)
{
    return e->count;
}

const struct endpoint *
endpoints_at(const struct endpoints *e, size_t i)
{
    return i < e->count ? &e->items[i] : NULL;
}

void
endpoints_free(struct endpoints *e)
{
    free(e);
}

const struct sockaddr *
endpoint_sockaddr(const struct endpoint *e, socklen_t *ret_len)
{
    *ret_len = e->len;
    return (const struct sockaddr *)&e->sa;
}

struct addr
endpoint_addr(const struct endpoint *e)
{
    return e->addr;
}
