/* Names and their scripted answers. A name that the scenario does not mention fails, and the query
 * is on the list of effects all the same. */
#include <stdlib.h>
#include <string.h>

#include "fakes/world.h"
#include "sallyport/base/map.h"
#include "sallyport/base/mem.h"

#define NAMES_MAX 64

struct entry {
    char name[256];
    enum dns_kind kind;
    struct answers answers;
    uint32_t ttl_s;
    int64_t cached_until_ms; /* 0: nothing cached */
    bool in_flight;
};

static struct entry entries[NAMES_MAX];
static size_t entry_count;

struct resolver {
    struct resolver_counts counts;
};

struct resolve {
    struct pollee pollee;
    struct resolver *resolver;
    struct entry *entry;
    void (*on_done)(void *owner, enum reason reason, const struct answers *answers);
    void *owner;
};

static struct entry *
entry_of(const char *name)
{
    for (size_t i = 0; i < entry_count; i++)
        if (strcmp(entries[i].name, name) == 0)
            return &entries[i];
    if (entry_count == NAMES_MAX || strlen(name) >= sizeof entries[0].name)
        abort();
    struct entry *e = &entries[entry_count++];
    memset(e, 0, sizeof *e);
    memcpy(e->name, name, strlen(name));
    return e;
}

void
world_dns(const char *name, enum dns_kind kind, const struct answers *answers, uint32_t ttl_s)
{
    struct entry *e = entry_of(name);
    e->kind = kind;
    e->ttl_s = ttl_s;
    e->cached_until_ms = 0;
    if (answers)
        e->answers = *answers;
}

void
names_reset(void)
{
    entry_count = 0;
}

struct resolver *
resolver_new(struct loop *l, const struct resolver_options *o)
{
    (void)l, (void)o;
    world.live++;
    return mem_zalloc(sizeof(struct resolver));
}

void
resolver_free(struct resolver *r)
{
    if (r)
        world.live--;
    free(r);
}

enum reason
resolver_lookup(struct resolver *r, const char *name, struct answers *ret)
{
    struct entry *e = entry_of(name);
    if (e->cached_until_ms <= world.mono_ms)
        return REASON_UNDECIDED;
    r->counts.cached++;
    if (e->kind != DNS_ANSWER)
        return REASON_DNS_FAILURE;
    *ret = e->answers;
    return REASON_OK;
}

static bool
fire_resolve(void *object)
{
    struct resolve *q = object;
    struct entry *e = q->entry;
    if (e->kind == DNS_HOLD)
        return false;
    bool ok = e->kind == DNS_ANSWER && e->answers.count > 0;
    e->in_flight = false;
    if (e->ttl_s)
        e->cached_until_ms = world.mono_ms + (int64_t)e->ttl_s * 1000;
    struct answers copy = e->answers;
    pollee_drop(&q->pollee, free);
    q->resolver->counts.failed += !ok;
    q->on_done(q->owner, ok ? REASON_OK : REASON_DNS_FAILURE, ok ? &copy : NULL);
    return true;
}

struct resolve *
resolve_start(struct resolver *r, const char *name,
              void (*on_done)(void *, enum reason, const struct answers *), void *owner)
{
    struct resolve *q = mem_zalloc(sizeof *q);
    q->resolver = r;
    q->entry = entry_of(name);
    q->on_done = on_done;
    q->owner = owner;
    if (!q->entry->in_flight) {
        q->entry->in_flight = true;
        r->counts.queries++;
        effect_add(EFFECT_QUERY, name, 0, NULL);
    }
    pollee_add(&q->pollee, fire_resolve, q);
    return q;
}

void
resolve_cancel(struct resolve *q)
{
    if (!q)
        return;
    pollee_drop(&q->pollee, free);
}

struct resolver_counts
resolver_counts(const struct resolver *r)
{
    return r->counts;
}
