/* The loop with virtual time: a turn fires every source once, then due timers, then what was
 * deferred, then the hooks of the turn's end, then frees, in the order that net/loop.h promises. */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fakes/world.h"
#include "sallyport/base/mem.h"

#define HOOKS_MAX 8

struct hook {
    void (*fn)(void *arg);
    void *arg;
};

struct later {
    struct list_node node;
    void *ptr;
    void (*free_fn)(void *);
};

struct clockwork { /* what struct timer.impl points to */
    struct list_node node;
    struct timer *timer;
    int64_t at_ms;
};

struct loop {
    struct list sources, deferred, later, timers; /* timers by time, then by start */
    struct hook hooks[HOOKS_MAX];
    size_t hook_count;
    bool stopped;
};

struct world world;

void
world_fault(const char *fmt, ...)
{
    if (world.fault[0])
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(world.fault, sizeof world.fault, fmt, ap);
    va_end(ap);
}

struct loop *
loop_new(void)
{
    struct loop *l = mem_zalloc(sizeof *l);
    list_init(&l->sources);
    list_init(&l->deferred);
    list_init(&l->later);
    list_init(&l->timers);
    world.loop = l;
    return l;
}

static void
run_deferred(struct loop *l)
{
    struct list_node *n;
    while ((n = list_first(&l->deferred)) != NULL) {
        struct deferred *d = list_entry(n, struct deferred, node);
        list_remove(&l->deferred, n);
        d->fn(d->arg);
    }
}

static void
run_frees(struct loop *l)
{
    struct list_node *n;
    while ((n = list_first(&l->later)) != NULL) {
        struct later *x = list_entry(n, struct later, node);
        list_remove(&l->later, n);
        x->free_fn(x->ptr);
        free(x);
    }
}

void
loop_free(struct loop *l)
{
    run_deferred(l);
    run_frees(l);
    while (!list_empty(&l->timers)) {
        struct clockwork *c = list_entry(list_first(&l->timers), struct clockwork, node);
        world_fault("a timer still runs at the end");
        timer_stop(c->timer);
    }
    free(l);
    world.loop = NULL;
}

int64_t
loop_now_ms(struct loop *l)
{
    (void)l;
    return world.mono_ms;
}

int64_t
loop_wall_us(struct loop *l)
{
    (void)l;
    return world.wall_us;
}

void
loop_defer(struct loop *l, struct deferred *d, void (*fn)(void *), void *arg)
{
    if (list_linked(&d->node)) {
        world_fault("a node was deferred twice");
        return;
    }
    d->fn = fn;
    d->arg = arg;
    list_append(&l->deferred, &d->node);
}

void
loop_cancel(struct loop *l, struct deferred *d)
{
    if (list_linked(&d->node))
        list_remove(&l->deferred, &d->node);
}

void
loop_free_later(struct loop *l, void *ptr, void (*free_fn)(void *))
{
    struct later *x = mem_zalloc(sizeof *x);
    x->ptr = ptr;
    x->free_fn = free_fn;
    list_append(&l->later, &x->node);
}

void
loop_on_turn_end(struct loop *l, void (*fn)(void *), void *arg)
{
    if (l->hook_count == HOOKS_MAX)
        abort();
    l->hooks[l->hook_count++] = (struct hook){fn, arg};
}

/* After the last timer that is due no later, so that timers of one instant run in the order they
 * were started. */
static void
insert_timer(struct loop *l, struct clockwork *c)
{
    struct list_node *n = list_last(&l->timers), *head = &l->timers.head;
    while (n && n != head && list_entry(n, struct clockwork, node)->at_ms > c->at_ms)
        n = n->prev;
    if (!n || n == head) {
        list_prepend(&l->timers, &c->node);
        return;
    }
    c->node.prev = n;
    c->node.next = n->next;
    n->next->prev = &c->node;
    n->next = &c->node;
    l->timers.count++;
}

void
timer_start(struct loop *l, struct timer *t, int64_t delay_ms, void (*fn)(void *), void *arg)
{
    timer_stop(t);
    struct clockwork *c = mem_zalloc(sizeof *c);
    c->timer = t;
    c->at_ms = world.mono_ms + (delay_ms > 0 ? delay_ms : 0);
    *t = (struct timer){c, l, fn, arg};
    insert_timer(l, c);
    world.live++;
}

void
timer_stop(struct timer *t)
{
    struct clockwork *c = t->impl;
    if (!c)
        return;
    t->impl = NULL;
    list_remove(&t->loop->timers, &c->node);
    free(c);
    world.live--;
}

bool
timer_running(const struct timer *t)
{
    return t->impl != NULL;
}

void
loop_on_signal(struct loop *l, int signo, void (*fn)(void *, int), void *arg)
{
    (void)l, (void)signo, (void)fn, (void)arg; /* scenarios have no signals */
}

struct event_base *
loop_base(struct loop *l)
{
    (void)l;
    return NULL;
}

void
loop_stop(struct loop *l)
{
    l->stopped = true;
}

int
loop_run(struct loop *l)
{
    while (!l->stopped && world_advance(1000))
        ;
    return 0;
}

void
pollee_add(struct pollee *s, bool (*fire)(void *), void *object)
{
    s->fire = fire;
    s->object = object;
    s->dead = false;
    list_append(&world.loop->sources, &s->node);
    world.live++;
}

void
pollee_drop(struct pollee *s, void (*free_fn)(void *))
{
    s->dead = true;
    list_remove(&world.loop->sources, &s->node);
    world.live--;
    loop_free_later(world.loop, s->object, free_fn);
}

/* Firing may add and drop sources: those dropped are unlinked but not yet freed, so walk over a
 * copy of the list. */
static bool
fire_sources(struct loop *l)
{
    struct pollee **list = mem_array(l->sources.count + 1, sizeof(struct pollee *));
    size_t count = 0;
    bool any = false;
    for (struct list_node *n = list_first(&l->sources); n; n = list_next(&l->sources, n))
        list[count++] = list_entry(n, struct pollee, node);
    for (size_t i = 0; i < count; i++)
        if (!list[i]->dead && list[i]->fire(list[i]->object))
            any = true;
    free(list);
    return any;
}

static bool
fire_timers(struct loop *l)
{
    bool any = false;
    int64_t now = world.mono_ms;
    struct list_node *n;
    while ((n = list_first(&l->timers)) != NULL) {
        struct clockwork *c = list_entry(n, struct clockwork, node);
        if (c->at_ms > now)
            break;
        struct timer *t = c->timer;
        timer_stop(t);
        any = true;
        t->fn(t->arg);
        if (world.fault[0])
            break;
    }
    return any;
}

static bool
turn(struct loop *l)
{
    bool any = fire_sources(l);
    any |= fire_timers(l);
    any |= !list_empty(&l->deferred);
    run_deferred(l);
    for (size_t i = 0; i < l->hook_count; i++)
        l->hooks[i].fn(l->hooks[i].arg);
    any |= !list_empty(&l->deferred);
    run_deferred(l);
    run_frees(l);
    return any;
}

bool
world_settle(void)
{
    for (int i = 0; i < WORLD_TURNS_MAX; i++)
        if (!turn(world.loop))
            return true;
    world_fault("no rest after %d turns: something is ready and nobody deals with it",
                WORLD_TURNS_MAX);
    return false;
}

static void
set_time(int64_t ms)
{
    world.wall_us += (ms - world.mono_ms) * 1000;
    world.mono_ms = ms;
}

bool
world_advance(int64_t ms)
{
    int64_t until = world.mono_ms + ms;
    if (!world_settle())
        return false;
    for (;;) {
        struct list_node *n = list_first(&world.loop->timers);
        int64_t next = n ? list_entry(n, struct clockwork, node)->at_ms : until + 1;
        if (next > until)
            break;
        set_time(next > world.mono_ms ? next : world.mono_ms);
        if (!world_settle())
            return false;
    }
    set_time(until);
    return world_settle();
}

void
effect_add(enum effect_kind kind, const char *text, uint64_t ticket, const struct addr *addr)
{
    if (world.effect_count == WORLD_EFFECTS_MAX) {
        world_fault("more than %d effects", WORLD_EFFECTS_MAX);
        return;
    }
    struct effect *e = &world.effects[world.effect_count++];
    *e = (struct effect){kind, mem_strdup(text), ticket, {0}};
    if (addr)
        e->addr = *addr;
}

void
world_reset(void)
{
    for (size_t i = 0; i < world.wire_count; i++) {
        buf_done(&world.wires[i]->to_product);
        buf_done(&world.wires[i]->from_product);
        free(world.wires[i]);
    }
    for (size_t i = 0; i < world.effect_count; i++)
        free(world.effects[i].text);
    names_reset();
    dials_reset();
    recorder_reset();
    listeners_reset();
    memset(&world, 0, offsetof(struct world, wires));
    world.mono_ms = 1000000;
    world.wall_us = WORLD_START_US;
}

void
loop_on_readable(struct loop *l, int fd, void (*fn)(void *), void *arg)
{
    (void)l, (void)fd, (void)fn, (void)arg; /* no files either */
}

void
knock_wait(struct loop *l, struct knock *k, int fd, void (*fn)(void *), void *arg)
{
    (void)l, (void)k, (void)fd, (void)fn, (void)arg;
}

void
knock_stop(struct knock *k)
{
    (void)k;
}
