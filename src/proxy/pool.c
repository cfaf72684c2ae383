/* Idle upstream connections of plain HTTP, by sandbox, policy, host and port. Whatever happens on an idle connection (an end,
 * stray bytes, its time) throws it away. Taking one and putting one back cost the same however many there are. */
#include "sallyport/proxy/pool.h"

#include <assert.h>

#include "sallyport/auth/claims.h"
#include "sallyport/base/map.h"
#include "sallyport/base/mem.h"

/* The idle ones of one key; there is none without any. */
struct group {
    struct list idle; /* the newest first: it is the least likely to be closed by now */
    size_t key_len;
    char key[];
};

struct idle {
    struct list_node node;     /* in pool.all, oldest first */
    struct list_node in_group;
    struct pool *pool;
    struct group *group;
    struct stream *stream;
    struct addr address;
    int64_t until_ms;
};

struct pool {
    struct loop *loop;
    struct list all;
    struct map *groups;  /* key -> struct group */
    struct timer expiry; /* one for all: each is kept for the same time, so the oldest goes first */
};

/* What has one length, then the host, then the sandbox: a byte that no host has stands between these two. */
#define KEY_MAX (SHA256_HEX_SIZE + sizeof(uint16_t) + HOST_TEXT_SIZE + CLAIMS_SUB_MAX)

static struct slice
key_of(const struct exchange *x, char text[KEY_MAX])
{
    struct slice sandbox = slice_str(x->identity->sub);
    char *at = mempcpy(text, policy_sha256(x->policy), SHA256_HEX_SIZE);
    assert(sandbox.len <= CLAIMS_SUB_MAX);
    at = mempcpy(at, &x->ask->target.port, sizeof x->ask->target.port);
    at = mempcpy(at, x->ask->target.host.text, x->ask->target.host.len);
    *at++ = '\n';
    at = mempcpy(at, sandbox.ptr, sandbox.len);
    return slice_of(text, (size_t)(at - text));
}

struct pool *
pool_new(struct loop *loop)
{
    struct pool *p = mem_zalloc(sizeof *p);
    p->loop = loop;
    p->groups = map_new();
    list_init(&p->all);
    return p;
}

static struct group *
group_at(struct pool *p, struct slice key)
{
    struct group *g = map_get(p->groups, key);
    if (g)
        return g;
    g = mem_alloc(sizeof *g + key.len);
    g->key_len = key.len;
    memcpy(g->key, key.ptr, key.len);
    list_init(&g->idle);
    map_put(p->groups, key, g);
    return g;
}

/* Takes it out of both lists; its stream is the caller's. */
static void
unlink_idle(struct idle *i)
{
    struct pool *p = i->pool;
    struct group *g = steal(&i->group);
    list_remove(&p->all, &i->node);
    list_remove(&g->idle, &i->in_group);
    if (!list_empty(&g->idle))
        return;
    map_remove(p->groups, slice_of(g->key, g->key_len));
    free(g);
}

static void
drop(struct idle *i)
{
    unlink_idle(i);
    stream_free(steal(&i->stream));
    loop_free_later(i->pool->loop, i, free);
}

static void
on_event(void *owner, enum stream_event event)
{
    struct idle *i = owner;
    char byte;
    size_t got = 0;
    /* Its last read may have been one that filled the buffer: then it is asked once whether there is more. */
    if (event != STREAM_READABLE || stream_read(i->stream, &byte, 1, &got) != STREAM_AGAIN)
        drop(i);
}

static void
on_expiry(void *arg)
{
    struct pool *p = arg;
    int64_t now = loop_now_ms(p->loop);
    for (struct list_node *n = list_first(&p->all); n; n = list_first(&p->all)) {
        struct idle *i = list_entry(n, struct idle, node);
        if (i->until_ms > now) {
            timer_start(p->loop, &p->expiry, i->until_ms - now, on_expiry, p);
            return;
        }
        drop(i);
    }
}

struct stream *
pool_take(struct pool *p, const struct exchange *x, struct addr *ret_address)
{
    char text[KEY_MAX];
    struct group *g = list_empty(&p->all) ? NULL : map_get(p->groups, key_of(x, text));
    if (!g)
        return NULL;
    struct idle *i = list_entry(list_first(&g->idle), struct idle, in_group);
    unlink_idle(i);
    struct stream *s = steal(&i->stream);
    stream_set_owner(s, NULL, NULL);
    stream_want(s, false, false);
    *ret_address = i->address;
    loop_free_later(p->loop, i, free);
    return s;
}

void
pool_put(struct pool *p, const struct exchange *x, struct stream *s)
{
    char text[KEY_MAX];
    struct group *g = group_at(p, key_of(x, text));
    if (g->idle.count >= POOL_PER_KEY) {
        stream_free(s);
        return;
    }
    struct idle *i = mem_alloc(sizeof *i);
    *i = (struct idle){.pool = p, .group = g, .stream = s, .address = x->address, .until_ms = loop_now_ms(p->loop) + POOL_IDLE_MS};
    list_append(&p->all, &i->node);
    list_prepend(&g->idle, &i->in_group);
    if (p->all.count > POOL_MAX)
        drop(list_entry(list_first(&p->all), struct idle, node));
    if (!timer_running(&p->expiry))
        timer_start(p->loop, &p->expiry, POOL_IDLE_MS, on_expiry, p);
    stream_set_owner(s, on_event, i);
    stream_set_deadline(s, 0);
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
    timer_stop(&p->expiry);
    map_free(p->groups, NULL);
    free(p);
}
