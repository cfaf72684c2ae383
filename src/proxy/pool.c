/* Idle upstream connections of plain HTTP, keyed by sandbox, host and port. Whatever happens on an idle connection (an end,
 * stray bytes, its time) throws it away. */
#include "sallyport/proxy/pool.h"

#include "sallyport/base/map.h"
#include "sallyport/base/mem.h"

struct idle {
    struct list_node node;     /* in pool.all, oldest first */
    struct pool *pool;
    char *key;
    struct stream *stream;
    struct addr address;
    struct idle *next;         /* others with the same key */
};

struct pool {
    struct loop *loop;
    struct list all;
    struct map *by_key; /* key -> struct idle, a chain */
};

static char *
key_of(const struct exchange *x)
{
    return mem_printf("%s\n%s\n%s\n%u", x->identity->sub, policy_sha256(x->policy), x->target.host.text, x->target.port);
}

struct pool *
pool_new(struct loop *loop)
{
    struct pool *p = mem_zalloc(sizeof *p);
    p->loop = loop;
    p->by_key = map_new();
    list_init(&p->all);
    return p;
}

/* Takes it out of list and map; its stream is the caller's. */
static void
unlink_idle(struct idle *i)
{
    struct pool *p = i->pool;
    struct slice key = slice_str(i->key);
    struct idle *head = map_remove(p->by_key, key);
    struct idle **at = &head;
    while (*at && *at != i)
        at = &(*at)->next;
    if (*at)
        *at = i->next;
    if (head)
        map_put(p->by_key, key, head);
    list_remove(&p->all, &i->node);
}

static void
free_memory(void *ptr)
{
    struct idle *i = ptr;
    free(i->key);
    free(i);
}

static void
drop(struct idle *i)
{
    unlink_idle(i);
    stream_free(steal(&i->stream));
    loop_free_later(i->pool->loop, i, free_memory);
}

static void
on_event(void *owner, enum stream_event event)
{
    (void)event;
    drop(owner);
}

struct stream *
pool_take(struct pool *p, const struct exchange *x, struct addr *ret_address)
{
    cleanup_free char *key = key_of(x);
    struct idle *i = map_get(p->by_key, slice_str(key));
    if (!i)
        return NULL;
    unlink_idle(i);
    struct stream *s = steal(&i->stream);
    stream_want(s, false, false);
    stream_set_deadline(s, 0);
    *ret_address = i->address;
    loop_free_later(p->loop, i, free_memory);
    return s;
}

static size_t
chain_length(const struct idle *i)
{
    size_t n = 0;
    for (; i; i = i->next)
        n++;
    return n;
}

void
pool_put(struct pool *p, const struct exchange *x, struct stream *s)
{
    char *key = key_of(x);
    if (chain_length(map_get(p->by_key, slice_str(key))) >= POOL_PER_KEY) {
        stream_free(s);
        free(key);
        return;
    }
    if (p->all.count >= POOL_MAX)
        drop(list_entry(list_first(&p->all), struct idle, node));
    struct idle *i = mem_zalloc(sizeof *i);
    i->pool = p;
    i->key = key;
    i->stream = s;
    i->address = x->address;
    i->next = map_remove(p->by_key, slice_str(i->key));
    map_put(p->by_key, slice_str(i->key), i);
    list_append(&p->all, &i->node);
    stream_set_owner(s, on_event, i);
    stream_set_deadline(s, loop_now_ms(p->loop) + POOL_IDLE_MS);
    stream_want(s, true, false);
}

void
pool_flush(struct pool *p)
{
    while (!list_empty(&p->all))
        drop(list_entry(list_first(&p->all), struct idle, node));
}

void
pool_free(struct pool *p)
{
    if (!p)
        return;
    pool_flush(p);
    map_free(p->by_key, NULL);
    free(p);
}
