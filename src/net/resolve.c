/* Names to addresses: a cache, the lookups in flight, and those who wait for them. Two questions a name (A, AAAA) through
 * net/resolve_ares, answers read by net/dns_answer. Everybody who asks for a name that is being looked up shares the
 * lookup. Answers always come from the loop. Nothing here judges a name or an address. */
#include "sallyport/net/resolve.h"

#include <stdlib.h>
#include <string.h>

#include "sallyport/base/map.h"
#include "sallyport/base/mem.h"
#include "sallyport/net/resolve_ares.h"

#define CACHE_MAX_DEFAULT 4096
#define PENDING_MAX_DEFAULT 1024
#define TIMEOUT_MS_DEFAULT 2000
/* An answer of which one family is missing is kept for so long only: a server that drops AAAA questions must not cost each
 * request the whole timeout, and the other half should still come soon. */
#define PARTIAL_TTL_S 5

enum { FAMILY_A = 0, FAMILY_AAAA, FAMILIES };

struct entry { /* of the cache */
    struct list_node node; /* of resolver.recent, the latest used first */
    char *name;
    int64_t until_ms;
    size_t count;          /* 0: the name has no addresses */
    struct addr addrs[];
};

struct family {
    struct lookup *lookup;
    int type;
    struct question *question; /* under way */
    bool ended;
    bool answered;             /* with addresses or a clear "none" */
    struct dns_answer answer;
};

struct lookup {
    struct resolver *resolver;
    char *name;
    struct family families[FAMILIES];
    struct list waiting;       /* struct resolve */
    struct timer timeout;
    struct deferred done;
};

struct resolve { /* one who waits */
    struct loop *loop;
    struct list_node node;
    struct lookup *lookup;     /* NULL: answered already, `told` brings it */
    struct deferred told;
    struct answers *answers;   /* with `told`; NULL is a failure */
    bool over;                 /* told or cancelled; the memory goes at the end of the turn */
    void (*on_done)(void *owner, enum reason reason, const struct answers *answers);
    void *owner;
};

struct resolver {
    struct loop *loop;
    struct asker *asker;
    int timeout_ms;
    size_t cache_max, pending_max;
    struct map *cache;         /* name -> struct entry */
    struct list recent;
    struct map *lookups;       /* name -> struct lookup, in flight */
    struct resolver_counts counts;
};

/* --- cache ------------------------------------------------------------------------------------------------------- */

static void
cache_drop(struct resolver *r, struct entry *e)
{
    map_remove(r->cache, slice_str(e->name));
    list_remove(&r->recent, &e->node);
    free(e->name);
    free(e);
}

static struct entry *
cache_find(struct resolver *r, const char *name)
{
    struct entry *e = map_get(r->cache, slice_str(name));
    if (!e)
        return NULL;
    if (e->until_ms <= loop_now_ms(r->loop)) {
        cache_drop(r, e);
        return NULL;
    }
    list_remove(&r->recent, &e->node);
    list_prepend(&r->recent, &e->node);
    return e;
}

static void
cache_keep(struct resolver *r, const char *name, const struct answers *a, uint32_t ttl_s)
{
    if (ttl_s == 0)
        return;
    struct entry *old = map_get(r->cache, slice_str(name));
    if (old)
        cache_drop(r, old);
    while (map_count(r->cache) >= r->cache_max)
        cache_drop(r, list_entry(list_last(&r->recent), struct entry, node));
    struct entry *e = mem_zalloc(sizeof *e + a->count * sizeof e->addrs[0]);
    e->name = mem_strdup(name);
    e->until_ms = loop_now_ms(r->loop) + (int64_t)ttl_s * 1000;
    e->count = a->count;
    memcpy(e->addrs, a->addrs, a->count * sizeof e->addrs[0]);
    map_put(r->cache, slice_str(name), e);
    list_prepend(&r->recent, &e->node);
}

enum reason
resolver_lookup(struct resolver *r, const char *name, struct answers *ret)
{
    struct entry *e = cache_find(r, name);
    if (!e)
        return REASON_UNDECIDED;
    r->counts.cached++;
    if (e->count == 0)
        return REASON_DNS_FAILURE;
    ret->count = e->count;
    memcpy(ret->addrs, e->addrs, e->count * sizeof e->addrs[0]);
    return REASON_OK;
}

/* --- lookups ----------------------------------------------------------------------------------------------------- */

/* Both families, by turns and IPv6 first (RFC 8305 section 4), so that a list that is cut keeps both. */
static void
merge_answers(const struct lookup *k, struct answers *ret)
{
    const struct answers *first = &k->families[FAMILY_AAAA].answer.answers;
    const struct answers *second = &k->families[FAMILY_A].answer.answers;
    ret->count = 0;
    for (size_t i = 0; i < first->count || i < second->count; i++) {
        if (i < first->count && ret->count < RESOLVE_ANSWERS_MAX)
            ret->addrs[ret->count++] = first->addrs[i];
        if (i < second->count && ret->count < RESOLVE_ANSWERS_MAX)
            ret->addrs[ret->count++] = second->addrs[i];
    }
}

/* How long the merged answer holds. Addresses: the shortest of those that brought some. None: the shorter of both noes,
 * and not at all unless both were clear. */
static uint32_t
merge_ttl(const struct lookup *k, const struct answers *merged)
{
    uint32_t ttl = UINT32_MAX;
    bool whole = true;
    for (int i = 0; i < FAMILIES; i++) {
        const struct family *f = &k->families[i];
        whole = whole && f->answered;
        if (f->answered && (merged->count == 0 || !f->answer.negative) && f->answer.ttl_s < ttl)
            ttl = f->answer.ttl_s;
    }
    if (!whole && merged->count == 0)
        return 0;
    return !whole && ttl > PARTIAL_TTL_S ? PARTIAL_TTL_S : ttl;
}

static void
resolve_release(void *arg)
{
    struct resolve *q = arg;
    free(q->answers);
    free(q);
}

static void
on_told(void *arg)
{
    struct resolve *q = arg;
    q->over = true;
    loop_free_later(q->loop, q, resolve_release);
    q->on_done(q->owner, q->answers ? REASON_OK : REASON_DNS_FAILURE, q->answers);
}

/* Takes q off its lookup and lets the loop bring it the answer, which NULL and an empty one say is none. */
static void
resolve_tell(struct resolve *q, const struct answers *answers)
{
    if (q->lookup)
        list_remove(&q->lookup->waiting, &q->node);
    q->lookup = NULL;
    if (answers && answers->count > 0) {
        q->answers = mem_zalloc(sizeof *q->answers);
        q->answers->count = answers->count;
        memcpy(q->answers->addrs, answers->addrs, answers->count * sizeof answers->addrs[0]);
    }
    loop_defer(q->loop, &q->told, on_told, q);
}

static void
lookup_tell_all(struct lookup *k, const struct answers *answers)
{
    while (!list_empty(&k->waiting))
        resolve_tell(list_entry(list_first(&k->waiting), struct resolve, node), answers);
}

static void
lookup_free(struct lookup *k)
{
    for (int i = 0; i < FAMILIES; i++)
        question_cancel(k->families[i].question);
    timer_stop(&k->timeout);
    loop_cancel(k->resolver->loop, &k->done);
    free(k->name);
    free(k);
}

/* Both families have ended, or the time is up. */
static void
lookup_finish(void *arg)
{
    struct lookup *k = arg;
    struct resolver *r = k->resolver;
    struct answers merged;
    merge_answers(k, &merged);
    cache_keep(r, k->name, &merged, merge_ttl(k, &merged));
    if (merged.count == 0)
        r->counts.failed++;
    map_remove(r->lookups, slice_str(k->name));
    lookup_tell_all(k, &merged);
    lookup_free(k);
}

static void
lookup_finish_if_ended(struct lookup *k)
{
    if (k->families[FAMILY_A].ended && k->families[FAMILY_AAAA].ended && !list_linked(&k->done.node))
        loop_defer(k->resolver->loop, &k->done, lookup_finish, k);
}

/* Comes from inside c-ares, hence the deferred end. */
static void
on_family_answer(void *owner, const unsigned char *msg, size_t len)
{
    struct family *f = owner;
    f->question = NULL;
    f->ended = true;
    f->answered = msg && dns_answer_parse(msg, len, f->lookup->name, f->type, &f->answer);
    lookup_finish_if_ended(f->lookup);
}

static struct lookup *
lookup_start(struct resolver *r, const char *name)
{
    static const int types[FAMILIES] = {DNS_TYPE_A, DNS_TYPE_AAAA};
    struct lookup *k = mem_zalloc(sizeof *k);
    k->resolver = r;
    k->name = mem_strdup(name);
    list_init(&k->waiting);
    map_put(r->lookups, slice_str(name), k);
    r->counts.queries++;
    for (int i = 0; i < FAMILIES; i++) {
        struct family *f = &k->families[i];
        f->lookup = k;
        f->type = types[i];
        f->question = question_start(r->asker, name, f->type, on_family_answer, f);
        f->ended = !f->question;
    }
    timer_start(r->loop, &k->timeout, r->timeout_ms, lookup_finish, k);
    lookup_finish_if_ended(k);
    return k;
}

/* --- asking ------------------------------------------------------------------------------------------------------ */

struct resolve *
resolve_start(struct resolver *r, const char *name,
              void (*on_done)(void *owner, enum reason reason, const struct answers *answers), void *owner)
{
    struct resolve *q = mem_zalloc(sizeof *q);
    q->loop = r->loop;
    q->on_done = on_done;
    q->owner = owner;
    struct answers known;
    enum reason reason = resolver_lookup(r, name, &known);
    if (reason != REASON_UNDECIDED) {
        resolve_tell(q, reason == REASON_OK ? &known : NULL);
        return q;
    }
    struct lookup *k = map_get(r->lookups, slice_str(name));
    if (!k && map_count(r->lookups) >= r->pending_max) {
        r->counts.failed++;
        resolve_tell(q, NULL);
        return q;
    }
    if (!k)
        k = lookup_start(r, name);
    q->lookup = k;
    list_append(&k->waiting, &q->node);
    return q;
}

/* The lookup goes on without its last waiter: its answer is as good for the next who asks, and its time is bounded. */
void
resolve_cancel(struct resolve *q)
{
    if (!q || q->over)
        return;
    q->over = true;
    if (q->lookup)
        list_remove(&q->lookup->waiting, &q->node);
    q->lookup = NULL;
    loop_cancel(q->loop, &q->told);
    loop_free_later(q->loop, q, resolve_release);
}

/* --- life -------------------------------------------------------------------------------------------------------- */

struct resolver *
resolver_new(struct loop *l, const struct resolver_options *o)
{
    struct resolver *r = mem_zalloc(sizeof *r);
    r->loop = l;
    r->timeout_ms = o->timeout_ms > 0 ? o->timeout_ms : TIMEOUT_MS_DEFAULT;
    r->cache_max = o->cache_max ? o->cache_max : CACHE_MAX_DEFAULT;
    r->pending_max = o->pending_max ? o->pending_max : PENDING_MAX_DEFAULT;
    r->cache = map_new();
    r->lookups = map_new();
    list_init(&r->recent);
    r->asker = asker_new(l, o->servers, o->server_count, r->timeout_ms);
    return r;
}

static void
abandon_lookup(void *ctx, struct slice key, void *value)
{
    struct lookup *k = value;
    (void)ctx;
    (void)key;
    lookup_tell_all(k, NULL);
    lookup_free(k);
}

/* Those who still wait hear of a failure, from the loop. */
void
resolver_free(struct resolver *r)
{
    if (!r)
        return;
    map_each(r->lookups, abandon_lookup, NULL);
    map_free(r->lookups, NULL);
    asker_free(r->asker);
    while (!list_empty(&r->recent))
        cache_drop(r, list_entry(list_first(&r->recent), struct entry, node));
    map_free(r->cache, NULL);
    free(r);
}

struct resolver_counts
resolver_counts(const struct resolver *r)
{
    return r->counts;
}
