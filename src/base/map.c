/* Hash map from byte strings to pointers: open addressing, linear probing, removal by shifting back
 * (no tombstones, so that a map that is filled and emptied for ever stays fast). Hashes are
 * SipHash-1-3 (Aumasson and Bernstein, 2012) under a key of this process alone: whoever chooses
 * names cannot choose collisions. Keys are copied. */
#include "sallyport/base/map.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sallyport/base/mem.h"
#include "sallyport/base/random.h"

#define MAP_SIZE_MIN 8 /* slots; a power of two */

struct entry {
    void *value;
    size_t key_len;
    char key[];
};

struct slot {
    uint64_t hash;
    struct entry *entry; /* NULL: free */
};

struct map {
    struct slot *slots;
    size_t size; /* of slots: 0 or a power of two, at most 3/4 full */
    size_t count;
};

static uint64_t hash_key[2];

static void
key_once(void)
{
    static atomic_flag lock = ATOMIC_FLAG_INIT;
    static atomic_bool made;
    if (atomic_load_explicit(&made, memory_order_acquire))
        return;
    while (atomic_flag_test_and_set(&lock))
        ;
    if (!atomic_load_explicit(&made, memory_order_relaxed))
        random_bytes(hash_key, sizeof hash_key);
    atomic_store_explicit(&made, true, memory_order_release);
    atomic_flag_clear(&lock);
}

static inline uint64_t
rotl(uint64_t x, int bits)
{
    return (x << bits) | (x >> (64 - bits));
}

static inline void
sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[0] = rotl(v[0], 32);
    v[2] += v[3];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[2] = rotl(v[2], 32);
}

static uint64_t
sip_tail(const unsigned char *p, size_t left, size_t len)
{
    uint64_t word = (uint64_t)len << 56;
    for (size_t i = 0; i < left; i++)
        word |= (uint64_t)p[i] << (8 * i);
    return word;
}

static uint64_t
siphash13(struct slice s)
{
    uint64_t v[4] = {hash_key[0] ^ 0x736f6d6570736575u, hash_key[1] ^ 0x646f72616e646f6du,
                     hash_key[0] ^ 0x6c7967656e657261u, hash_key[1] ^ 0x7465646279746573u};
    const unsigned char *p = (const unsigned char *)s.ptr;
    size_t left = s.len;
    for (; left >= 8; left -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8); /* byte order does not matter to a hash that stays in this process */
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    uint64_t word = sip_tail(p, left, s.len);
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
    v[2] ^= 0xff;
    sip_round(v);
    sip_round(v);
    sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

struct map *
map_new(void)
{
    key_once();
    return mem_zalloc(sizeof(struct map));
}

void
map_free(struct map *m, void (*free_value)(void *))
{
    if (!m)
        return;
    for (size_t i = 0; i < m->size; i++) {
        struct entry *e = m->slots[i].entry;
        if (e && free_value)
            free_value(e->value);
        free(e);
    }
    free(m->slots);
    free(m);
}

/* The slot that holds the key, or the free one where it belongs. The map has at least one free
 * slot. */
static size_t
find(const struct map *m, struct slice key, uint64_t hash)
{
    size_t i = (size_t)hash & (m->size - 1);
    for (;; i = (i + 1) & (m->size - 1)) {
        const struct slot *s = &m->slots[i];
        if (!s->entry)
            return i;
        if (s->hash == hash && slice_equal(slice_of(s->entry->key, s->entry->key_len), key))
            return i;
    }
}

static const struct entry *
entry_of(const struct map *m, struct slice key)
{
    return m->count ? m->slots[find(m, key, siphash13(key))].entry : NULL;
}

void *
map_get(const struct map *m, struct slice key)
{
    const struct entry *e = entry_of(m, key);
    return e ? e->value : NULL;
}

struct slice
map_key(const struct map *m, struct slice key)
{
    const struct entry *e = entry_of(m, key);
    return e ? slice_of(e->key, e->key_len) : slice_of(NULL, 0);
}

static void
resize(struct map *m, size_t size)
{
    struct slot *old = m->slots;
    size_t old_size = m->size;
    m->slots = mem_array(size, sizeof *m->slots);
    m->size = size;
    for (size_t i = 0; i < old_size; i++) {
        if (!old[i].entry)
            continue;
        size_t at = (size_t)old[i].hash & (size - 1);
        while (m->slots[at].entry)
            at = (at + 1) & (size - 1);
        m->slots[at] = old[i];
    }
    free(old);
}

static struct entry *
entry_new(struct slice key, void *value)
{
    struct entry *e = mem_alloc(sizeof *e + key.len);
    e->value = value;
    e->key_len = key.len;
    if (key.len > 0)
        memcpy(e->key, key.ptr, key.len);
    return e;
}

void *
map_put(struct map *m, struct slice key, void *value)
{
    assert(value);
    if (m->count + 1 > m->size / 4 * 3)
        resize(m, m->size ? m->size * 2 : MAP_SIZE_MIN);
    uint64_t hash = siphash13(key);
    struct slot *s = &m->slots[find(m, key, hash)];
    if (s->entry) {
        void *before = s->entry->value;
        s->entry->value = value;
        return before;
    }
    *s = (struct slot){hash, entry_new(key, value)};
    m->count++;
    return NULL;
}

/* Entries that probed past the hole move back into it, until a free slot ends the run. */
static void
close_hole(struct map *m, size_t hole)
{
    size_t mask = m->size - 1;
    for (size_t i = (hole + 1) & mask; m->slots[i].entry; i = (i + 1) & mask) {
        size_t home = (size_t)m->slots[i].hash & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            m->slots[hole] = m->slots[i];
            hole = i;
        }
    }
    m->slots[hole] = (struct slot){0, NULL};
}

void *
map_remove(struct map *m, struct slice key)
{
    if (m->count == 0)
        return NULL;
    size_t i = find(m, key, siphash13(key));
    struct entry *e = m->slots[i].entry;
    if (!e)
        return NULL;
    void *value = e->value;
    free(e);
    close_hole(m, i);
    m->count--;
    return value;
}

size_t
map_count(const struct map *m)
{
    return m->count;
}

void
map_each(const struct map *m, void (*visit)(void *ctx, struct slice key, void *value), void *ctx)
{
    for (size_t i = 0; i < m->size; i++) {
        const struct entry *e = m->slots[i].entry;
        if (e)
            visit(ctx, slice_of(e->key, e->key_len), e->value);
    }
}
