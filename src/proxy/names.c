/* Names and their synthetic addresses: an index into 198.18.0.0/15, and the same index in fd53:616c:6c79::/96. An index is
 * reused only when its name was the one not used for longest. A name is one sandbox's: an address that went over to another
 * sandbox must not lead the first one there. */
#include "sallyport/proxy/names.h"

#include <assert.h>

#include "sallyport/base/list.h"
#include "sallyport/base/map.h"
#include "sallyport/base/mem.h"
#include "sallyport/proxy/shared.h"

#define V4_BASE 0xc6120000u      /* 198.18.0.0 */
#define V4_SIZE 0x20000u         /* /15 */
#define RANGE_SIZE (V4_SIZE / SHARED_WORKERS_MAX)
_Static_assert(NAMES_MAX < RANGE_SIZE, "each worker's names fit into its range");
static const uint8_t v6_base[12] = {0xfd, 0x53, 0x61, 0x6c, 0x6c, 0x79, 0, 0, 0, 0, 0, 0}; /* fd, then "Sally" */

struct name {
    struct list_node node; /* least recently used first */
    struct host host;
    char *key;             /* sandbox and host */
    size_t sandbox_len;    /* of the key */
    uint32_t index;        /* 1 … NAMES_MAX */
};

struct names {
    struct map *by_key;
    uint32_t base;         /* of this worker's range */
    struct name *by_index[NAMES_MAX + 1];
    struct list used;
    uint32_t count;
};

struct names *
names_new(unsigned worker)
{
    struct names *n = mem_zalloc(sizeof *n);
    assert(worker < SHARED_WORKERS_MAX);
    n->base = worker * RANGE_SIZE;
    n->by_key = map_new();
    list_init(&n->used);
    return n;
}

static void
free_name(void *ptr)
{
    struct name *name = ptr;
    free(name->key);
    free(name);
}

void
names_free(struct names *n)
{
    if (!n)
        return;
    map_free(n->by_key, free_name);
    free(n);
}

static void
touch(struct names *n, struct name *name)
{
    list_remove(&n->used, &name->node);
    list_append(&n->used, &name->node);
}

/* Takes the key over. */
static struct name *
new_name(struct names *n, char *key, size_t sandbox_len, const struct host *host)
{
    struct name *name;
    if (n->count < NAMES_MAX) {
        name = mem_zalloc(sizeof *name);
        name->index = ++n->count;
        n->by_index[name->index] = name;
    } else {
        name = list_entry(list_first(&n->used), struct name, node);
        list_remove(&n->used, &name->node);
        map_remove(n->by_key, slice_str(name->key));
        free(name->key);
    }
    name->host = *host;
    name->key = key;
    name->sandbox_len = sandbox_len;
    map_put(n->by_key, slice_str(key), name);
    list_append(&n->used, &name->node);
    return name;
}

static struct addr
address_of(uint32_t index, int family)
{
    struct addr a = {.family = (uint8_t)family};
    uint32_t v4 = V4_BASE + index;
    uint8_t low[4] = {(uint8_t)(v4 >> 24), (uint8_t)(v4 >> 16), (uint8_t)(v4 >> 8), (uint8_t)v4};
    if (family == AF_INET6)
        memcpy(a.bytes, v6_base, sizeof v6_base);
    memcpy(a.bytes + (family == AF_INET6 ? sizeof v6_base : 0), low, sizeof low);
    return a;
}

struct addr
names_address(struct names *n, const char *sandbox, const struct host *host, int family)
{
    cleanup_free char *key = mem_printf("%s\n%s", sandbox, host->text);
    struct name *name = map_get(n->by_key, slice_str(key));
    if (name)
        touch(n, name);
    else
        name = new_name(n, steal(&key), strlen(sandbox), host);
    return address_of(n->base + name->index, family);
}

/* 0: not a synthetic address. */
static uint32_t
index_of(const struct addr *a)
{
    const uint8_t *low = a->bytes;
    if (a->family == AF_INET6) {
        if (memcmp(a->bytes, v6_base, sizeof v6_base) != 0)
            return 0;
        low += sizeof v6_base;
    }
    uint32_t v4 = (uint32_t)low[0] << 24 | (uint32_t)low[1] << 16 | (uint32_t)low[2] << 8 | low[3];
    return v4 > V4_BASE && v4 < V4_BASE + V4_SIZE ? v4 - V4_BASE : 0;
}

bool
names_is_synthetic(const struct addr *a)
{
    return index_of(a) != 0;
}

const struct host *
names_find(struct names *n, const char *sandbox, const struct addr *a)
{
    uint32_t index = index_of(a);
    if (index <= n->base || index - n->base > n->count)
        return NULL;
    struct name *name = n->by_index[index - n->base];
    if (!slice_equal(slice_str(sandbox), slice_of(name->key, name->sandbox_len)))
        return NULL;
    touch(n, name);
    return &name->host;
}
