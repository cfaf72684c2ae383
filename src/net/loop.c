/* The event loop of a process: libevent for readiness, timers and signals, and what belongs to the end of a turn:
 * deferred calls, hooks, late frees. Every process has one loop and one thread; nothing here is locked. The loop knows
 * nothing of sockets' meaning: listen, resolve and channel register their own events on its base, streams with its poller. */
#include "sallyport/net/loop.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <signal.h>

#include "sallyport/base/clock.h"
#include "sallyport/base/mem.h"
#include "sallyport/net/poller.h"

#define HOOKS_MAX 8
/* Deferred work may defer more work. After so many rounds the sockets have their turn first, so that two objects that
 * wake each other cannot keep the loop from its other clients. */
#define ROUNDS_MAX 16

struct late {
    void *ptr;
    void (*free_fn)(void *);
};

struct hook {
    void (*fn)(void *arg);
    void *arg;
};

struct watched_signal {
    struct watched_signal *next;
    struct event *event;
    void (*fn)(void *arg, int signo);
    void *arg;
};

struct watched_fd {
    struct watched_fd *next;
    struct event *event;
    void (*fn)(void *arg);
    void *arg;
};

struct loop {
    struct event_base *base;
    struct poller *poller;
    struct list deferred;
    struct late *late;      /* what is freed at the end of the turn */
    size_t late_count, late_size;
    struct hook hooks[HOOKS_MAX];
    size_t hook_count;
    struct watched_signal *signals;
    struct watched_fd *fds;
    int64_t now_ms;         /* 0: not asked for in this turn */
    int64_t wall_us;        /* likewise */
    bool running, stopped;
};

static struct event_base *
base_new(void)
{
    struct event_config *config = event_config_new();
    if (!config)
        abort();
    /* One thread: no locks. The environment (EVENT_NOEPOLL and so on) has no say in how a guard waits. */
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV);
    event_config_avoid_method(config, "select"); /* select breaks at descriptor 1024, silently */
    struct event_base *base = event_base_new_with_config(config);
    event_config_free(config);
    return base;
}

struct loop *
loop_new(void)
{
    struct event_base *base = base_new();
    struct poller *poller = base ? poller_new(base) : NULL;
    if (!poller) {
        if (base)
            event_base_free(base);
        return NULL;
    }
    /* A peer that is gone is an error of the call, never a signal. */
    signal(SIGPIPE, SIG_IGN);
    struct loop *l = mem_zalloc(sizeof *l);
    l->base = base;
    l->poller = poller;
    list_init(&l->deferred);
    return l;
}

static void
run_deferred(struct loop *l)
{
    for (int round = 0; round < ROUNDS_MAX && !list_empty(&l->deferred); round++) {
        /* Only what waits now; what these calls add is the next round's. */
        for (size_t left = l->deferred.count; left > 0 && !list_empty(&l->deferred); left--) {
            struct deferred *d = list_entry(list_first(&l->deferred), struct deferred, node);
            list_remove(&l->deferred, &d->node);
            d->fn(d->arg);
        }
    }
}

static void
run_late_frees(struct loop *l)
{
    /* By index: freeing one object may add others behind it. */
    for (size_t i = 0; i < l->late_count; i++) {
        struct late late = l->late[i];
        late.free_fn(late.ptr);
    }
    l->late_count = 0;
}

static void
end_turn(struct loop *l)
{
    run_deferred(l);
    for (size_t i = 0; i < l->hook_count; i++)
        l->hooks[i].fn(l->hooks[i].arg);
    run_late_frees(l);
    l->now_ms = 0;
    l->wall_us = 0;
}

void
loop_free(struct loop *l)
{
    if (!l)
        return;
    do {
        run_deferred(l);
        run_late_frees(l);
    } while (!list_empty(&l->deferred));
    while (l->signals) {
        struct watched_signal *s = l->signals;
        l->signals = s->next;
        event_free(s->event);
        free(s);
    }
    while (l->fds) {
        struct watched_fd *w = l->fds;
        l->fds = w->next;
        event_free(w->event);
        free(w);
    }
    poller_free(l->poller);
    event_base_free(l->base);
    free(l->late);
    free(l);
}

/* Work left over must not wait for a socket. */
static bool
is_idle(const struct loop *l)
{
    return list_empty(&l->deferred) && poller_is_idle(l->poller);
}

/* The poller's own event is always there; it wakes nobody while nothing is registered with it. */
static bool
has_nothing_to_wait_for(struct loop *l)
{
    return is_idle(l) && poller_is_empty(l->poller) && event_base_get_num_events(l->base, EVENT_BASE_COUNT_ADDED) == 1;
}

/* 0 after loop_stop; 1 when there is nothing left that could ever wake it; -1 with errno when waiting failed. */
int
loop_run(struct loop *l)
{
    int result = 0;
    l->running = true;
    l->stopped = false;
    end_turn(l); /* what was deferred while setting up */
    while (!l->stopped && result == 0) {
        if (has_nothing_to_wait_for(l)) {
            result = 1;
            break;
        }
        result = event_base_loop(l->base, EVLOOP_ONCE | (is_idle(l) ? 0 : EVLOOP_NONBLOCK));
        poller_run_due(l->poller);
        end_turn(l);
    }
    l->running = false;
    return l->stopped ? 0 : result;
}

void
loop_stop(struct loop *l)
{
    l->stopped = true;
    event_base_loopbreak(l->base);
}

struct event_base *
loop_base(struct loop *l)
{
    return l->base;
}

struct poller *
loop_poller(struct loop *l)
{
    return l->poller;
}

/* The clock is read by the first who asks in a turn, which is after the wait: a turn without timers reads none. Outside
 * loop_run there are no turns, so nothing is kept. */
int64_t
loop_now_ms(struct loop *l)
{
    if (!l->running)
        return clock_mono_ms();
    if (l->now_ms == 0)
        l->now_ms = clock_mono_ms();
    return l->now_ms;
}

int64_t
loop_wall_us(struct loop *l)
{
    if (!l->running)
        return clock_wall_us();
    if (l->wall_us == 0)
        l->wall_us = clock_wall_us();
    return l->wall_us;
}

void
loop_defer(struct loop *l, struct deferred *d, void (*fn)(void *), void *arg)
{
    assert(!list_linked(&d->node));
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
    if (l->late_count == l->late_size) {
        l->late_size = l->late_size ? l->late_size * 2 : 64;
        l->late = mem_realloc(l->late, l->late_size * sizeof *l->late);
    }
    l->late[l->late_count++] = (struct late){ptr, free_fn};
}

void
loop_on_turn_end(struct loop *l, void (*fn)(void *), void *arg)
{
    assert(l->hook_count < HOOKS_MAX);
    l->hooks[l->hook_count++] = (struct hook){fn, arg};
}

/* --- timers ------------------------------------------------------------------------------------------------------ */

/* impl is a libevent event while the timer runs and NULL otherwise, so that a timer needs no disposal of its own. */
static void
timer_fired(evutil_socket_t fd, short what, void *arg)
{
    struct timer *t = arg;
    (void)fd;
    (void)what;
    event_free(t->impl);
    t->impl = NULL;
    t->fn(t->arg); /* may free the timer's owner */
}

void
timer_start(struct loop *l, struct timer *t, int64_t delay_ms, void (*fn)(void *), void *arg)
{
    if (delay_ms < 0)
        delay_ms = 0;
    if (!t->impl)
        t->impl = evtimer_new(l->base, timer_fired, t);
    if (!t->impl)
        abort();
    t->loop = l;
    t->fn = fn;
    t->arg = arg;
    struct timeval delay = {.tv_sec = delay_ms / 1000, .tv_usec = (delay_ms % 1000) * 1000};
    if (evtimer_add(t->impl, &delay) != 0)
        abort(); /* only for want of memory */
}

void
timer_stop(struct timer *t)
{
    if (!t->impl)
        return;
    event_free(t->impl); /* takes it out of the queue, even when it has expired in this turn */
    t->impl = NULL;
}

bool
timer_running(const struct timer *t)
{
    return t->impl != NULL;
}

/* --- knocks ------------------------------------------------------------------------------------------------------ */

static void
knock_heard(evutil_socket_t fd, short what, void *arg)
{
    struct knock *k = arg;
    (void)fd;
    (void)what;
    knock_stop(k);
    k->fn(k->arg);
}

void
knock_wait(struct loop *l, struct knock *k, int fd, void (*fn)(void *arg), void *arg)
{
    knock_stop(k);
    k->fn = fn;
    k->arg = arg;
    k->impl = event_new(l->base, fd, EV_READ, knock_heard, k);
    if (!k->impl || event_add(k->impl, NULL) != 0)
        abort();
}

void
knock_stop(struct knock *k)
{
    if (k->impl)
        event_free(k->impl);
    k->impl = NULL;
}

/* --- signals ----------------------------------------------------------------------------------------------------- */

static void
signal_arrived(evutil_socket_t signo, short what, void *arg)
{
    struct watched_signal *s = arg;
    (void)what;
    s->fn(s->arg, (int)signo);
}

void
loop_on_signal(struct loop *l, int signo, void (*fn)(void *, int signo), void *arg)
{
    struct watched_signal *s = mem_zalloc(sizeof *s);
    s->fn = fn;
    s->arg = arg;
    s->event = evsignal_new(l->base, signo, signal_arrived, s);
    if (!s->event || event_add(s->event, NULL) != 0)
        abort();
    s->next = l->signals;
    l->signals = s;
}

static void
fd_readable(evutil_socket_t fd, short what, void *arg)
{
    struct watched_fd *w = arg;
    (void)fd;
    (void)what;
    w->fn(w->arg);
}

void
loop_on_readable(struct loop *l, int fd, void (*fn)(void *), void *arg)
{
    struct watched_fd *w = mem_zalloc(sizeof *w);
    w->fn = fn;
    w->arg = arg;
    w->event = event_new(l->base, fd, EV_READ | EV_PERSIST, fd_readable, w);
    if (!w->event || event_add(w->event, NULL) != 0)
        abort();
    w->next = l->fds;
    l->fds = w;
}
