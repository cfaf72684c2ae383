/* The match structure over host entries: one open-addressing table for exact names and for suffixes, keyed by name,
 * kind and port, over one text that holds every name. It owns copies of the names and nothing else, opens nothing, and
 * is immutable once sealed. Every name that has an entry also has a slot with port 0, so that "the host is there, but
 * not this port" is answered without a walk. */
#include "sallyport/policy/hosts.h"

#include <stdlib.h>

#include "sallyport/base/mem.h"
#include "sallyport/base/random.h"

#define FLAG_USED 1
#define FLAG_SUFFIX 2
#define FLAG_URL 4
#define FIRST_SLOTS 16 /* a power of two, as all sizes here */

struct slot {
    uint32_t name;  /* offset into names */
    uint32_t hash;  /* of the name alone */
    uint32_t index; /* HOSTS_NO_INDEX: only marks that the name is there under some port */
    uint16_t port;
    uint8_t len;
    uint8_t flags;  /* 0: free */
};

struct hosts {
    struct slot *slots;
    uint32_t slot_count, used, entries;
    char *names;
    uint32_t names_len, names_size;
};

/* Keyed per process: nobody who chooses names (an embedded policy is its issuer's) can prepare collisions. */
static uint64_t
hash_seed(void)
{
    static uint64_t seed;
    while (!seed)
        random_bytes(&seed, sizeof seed);
    return seed;
}

/* From the right to the left, so that the hash of a name is a step on the way to the hashes of the names below it. */
static inline uint64_t
hash_step(uint64_t h, char c)
{
    h = (h ^ (uint8_t)c) * 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio: odd, bits well spread */
    return h ^ (h >> 29);
}

static inline uint32_t
hash_end(uint64_t h)
{
    h *= 0xbf58476d1ce4e5b9u; /* a multiplier of splitmix64's finaliser */
    return (uint32_t)(h >> 32);
}

static uint32_t
hash_name(const char *name, size_t len)
{
    uint64_t h = hash_seed();
    while (len > 0)
        h = hash_step(h, name[--len]);
    return hash_end(h);
}

void
host_key_init(struct host_key *key, const struct host *host)
{
    uint64_t h = hash_seed();
    uint32_t hash[HOST_LABELS_MAX];
    uint8_t start[HOST_LABELS_MAX];
    size_t count = 0;

    key->host = host;
    for (size_t i = host->len; i > 0; i--) {
        bool below_dot = host->kind == HOST_NAME && i < host->len && host->text[i - 1] == '.';
        if (below_dot && count < HOST_LABELS_MAX - 1) {
            hash[count] = hash_end(h);
            start[count++] = (uint8_t)i;
        }
        h = hash_step(h, host->text[i - 1]);
    }
    hash[count] = hash_end(h);
    start[count++] = 0;
    key->count = (uint8_t)count;
    for (size_t i = 0; i < count; i++) {
        key->hash[i] = hash[count - 1 - i];
        key->start[i] = start[count - 1 - i];
    }
}

struct hosts *
hosts_new(void)
{
    return mem_zalloc(sizeof(struct hosts));
}

void
hosts_free(struct hosts *h)
{
    if (!h)
        return;
    free(h->slots);
    free(h->names);
    free(h);
}

static uint32_t
slot_place(uint32_t hash, uint16_t port, uint8_t suffix, uint32_t mask)
{
    return (hash ^ (port * 0x9e3779b1u) ^ (suffix ? 0x5bd1e995u : 0)) & mask;
}

static struct slot *
slot_find(const struct hosts *h, const char *name, size_t len, uint32_t hash, uint8_t suffix, uint16_t port)
{
    if (h->slot_count == 0)
        return NULL;
    uint32_t mask = h->slot_count - 1;
    for (uint32_t i = slot_place(hash, port, suffix, mask);; i = (i + 1) & mask) {
        struct slot *s = &h->slots[i];
        if (!s->flags)
            return NULL;
        if (s->hash == hash && s->port == port && s->len == len && (s->flags & FLAG_SUFFIX) == suffix &&
            memcmp(h->names + s->name, name, len) == 0)
            return s;
    }
}

static struct slot *
slot_free(struct slot *slots, uint32_t slot_count, uint32_t hash, uint16_t port, uint8_t suffix)
{
    uint32_t mask = slot_count - 1, i = slot_place(hash, port, suffix, mask);
    while (slots[i].flags)
        i = (i + 1) & mask;
    return &slots[i];
}

static void
resize(struct hosts *h, uint32_t slot_count)
{
    struct slot *slots = mem_array(slot_count, sizeof *slots);
    for (uint32_t i = 0; i < h->slot_count; i++) {
        const struct slot *s = &h->slots[i];
        if (s->flags)
            *slot_free(slots, slot_count, s->hash, s->port, s->flags & FLAG_SUFFIX) = *s;
    }
    free(h->slots);
    h->slots = slots;
    h->slot_count = slot_count;
}

void
hosts_reserve(struct hosts *h, size_t count)
{
    uint32_t wanted = FIRST_SLOTS;
    while (wanted < UINT32_MAX / 4 && wanted * 7ull < (h->used + (uint64_t)count) * 10)
        wanted *= 2;
    if (wanted > h->slot_count)
        resize(h, wanted);
}

static struct slot *
slot_insert(struct hosts *h, uint32_t name, uint8_t len, uint32_t hash, uint8_t suffix, uint16_t port)
{
    if (h->used * 10ull >= h->slot_count * 7ull)
        resize(h, h->slot_count ? h->slot_count * 2 : FIRST_SLOTS);
    struct slot *s = slot_free(h->slots, h->slot_count, hash, port, suffix);
    *s = (struct slot){name, hash, HOSTS_NO_INDEX, port, len, (uint8_t)(FLAG_USED | suffix)};
    h->used++;
    return s;
}

static uint32_t
names_add(struct hosts *h, const char *name, uint8_t len)
{
    if (h->names_size - h->names_len < len) {
        h->names_size = h->names_size ? h->names_size + h->names_size / 2 : 1024;
        h->names = mem_realloc(h->names, h->names_size);
    }
    memcpy(h->names + h->names_len, name, len);
    h->names_len += len;
    return h->names_len - len;
}

uint32_t
hosts_add(struct hosts *h, const struct host_entry *e, uint32_t index)
{
    const char *name = e->host.text;
    uint8_t len = e->host.len, suffix = e->suffix ? FLAG_SUFFIX : 0;
    uint32_t hash = hash_name(name, len);

    struct slot *s = slot_find(h, name, len, hash, suffix, 0);
    if (!s)
        s = slot_insert(h, names_add(h, name, len), len, hash, suffix, 0);
    if (e->port) {
        uint32_t text = s->name;
        s = slot_find(h, name, len, hash, suffix, e->port);
        if (!s)
            s = slot_insert(h, text, len, hash, suffix, e->port);
    }
    if (s->index != HOSTS_NO_INDEX)
        return s->index;
    s->index = index;
    if (e->url)
        s->flags |= FLAG_URL;
    h->entries++;
    return HOSTS_NO_INDEX;
}

void
hosts_seal(struct hosts *h)
{
    if (h->names)
        h->names = mem_realloc(h->names, h->names_len ? h->names_len : 1);
    h->names_size = h->names_len;
}

size_t
hosts_count(const struct hosts *h)
{
    return h ? h->entries : 0;
}

struct probe {
    const struct hosts *h;
    const struct host_key *key;
    uint16_t port;
    bool bare_open, port_closed;
};

/* One name of the chain, exact or as a suffix: up to two matches, the one with the port first. */
static size_t
probe_name(struct probe *p, size_t label, uint8_t suffix, uint32_t *ret)
{
    const char *name = p->key->host->text + p->key->start[label];
    size_t len = (size_t)p->key->host->len - p->key->start[label], count = 0;
    uint32_t hash = p->key->hash[label];

    const struct slot *bare = slot_find(p->h, name, len, hash, suffix, 0);
    if (!bare)
        return 0;
    const struct slot *exact = slot_find(p->h, name, len, hash, suffix, p->port);
    if (exact && p->port)
        ret[count++] = exact->index;
    if (bare->index != HOSTS_NO_INDEX && p->bare_open)
        ret[count++] = bare->index;
    if (count == 0)
        p->port_closed = true;
    return count;
}

size_t
hosts_find_all(const struct hosts *h, const struct host_key *key, uint16_t port, bool bare_open, enum hosts_scope scope,
               uint32_t *ret_indexes, bool *ret_port_closed)
{
    struct probe p = {h, key, port, bare_open, false};
    size_t count = 0;

    *ret_port_closed = false;
    if (!h || h->entries == 0)
        return 0;
    count = probe_name(&p, 0, 0, ret_indexes);
    if (scope == HOSTS_ANY) {
        /* A wildcard never matches a literal: host_key_init gives it one "label". */
        for (size_t i = 1; i < key->count; i++)
            count += probe_name(&p, i, FLAG_SUFFIX, ret_indexes + count);
    }
    *ret_port_closed = p.port_closed;
    return count;
}

enum hosts_result
hosts_find(const struct hosts *h, const struct host_key *key, uint16_t port, bool bare_open, enum hosts_scope scope,
           uint32_t *ret_index)
{
    struct probe p = {h, key, port, bare_open, false};
    uint32_t found[2];

    if (!h || h->entries == 0)
        return HOSTS_NONE;
    size_t count = probe_name(&p, 0, 0, found);
    if (scope == HOSTS_ANY) {
        for (size_t i = 1; i < key->count && count == 0; i++)
            count = probe_name(&p, i, FLAG_SUFFIX, found);
    }
    if (count == 0)
        return p.port_closed ? HOSTS_PORT_CLOSED : HOSTS_NONE;
    *ret_index = found[0];
    return HOSTS_MATCH;
}

static int
slot_by_index(const void *a, const void *b)
{
    uint32_t x = (*(const struct slot *const *)a)->index, y = (*(const struct slot *const *)b)->index;
    return (x > y) - (x < y);
}

void
hosts_each(const struct hosts *h, void (*visit)(void *ctx, const struct host_entry *e, uint32_t index), void *ctx)
{
    if (!h || h->entries == 0)
        return;
    const struct slot **order = mem_array(h->entries, sizeof(struct slot *));
    size_t count = 0;
    for (uint32_t i = 0; i < h->slot_count; i++) {
        if (h->slots[i].flags && h->slots[i].index != HOSTS_NO_INDEX)
            order[count++] = &h->slots[i];
    }
    qsort(order, count, sizeof *order, slot_by_index);
    for (size_t i = 0; i < count; i++) {
        const struct slot *s = order[i];
        struct host_entry e = {.suffix = s->flags & FLAG_SUFFIX, .url = s->flags & FLAG_URL, .port = s->port};
        /* Names in the table are canonical, so they parse to themselves. */
        if (host_parse(slice_of(h->names + s->name, s->len), &e.host))
            visit(ctx, &e, s->index);
    }
    free(order);
}
