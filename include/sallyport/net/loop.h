/* One event loop a process (libevent). Objects that may be freed while their own callback runs are freed at the end of
 * the turn. tests/fakes replaces this layer at link time. */
#ifndef SALLYPORT_NET_LOOP_H
#define SALLYPORT_NET_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/list.h"

struct loop;
struct event_base;
struct poller;

struct loop *loop_new(void);
void loop_free(struct loop *l); /* runs what was deferred */
int loop_run(struct loop *l);   /* until loop_stop */
void loop_stop(struct loop *l);
struct event_base *loop_base(struct loop *l); /* for net/ and process/ only */
struct poller *loop_poller(struct loop *l);   /* for net/ only */
int64_t loop_now_ms(struct loop *l);  /* CLOCK_MONOTONIC, cached for the turn */
int64_t loop_wall_us(struct loop *l); /* wall clock, cached for the turn */

/* Calls fn(arg) once at the end of this turn, in the order asked for. A node may be deferred only once at a time. */
struct deferred {
    struct list_node node;
    void (*fn)(void *arg);
    void *arg;
};
void loop_defer(struct loop *l, struct deferred *d, void (*fn)(void *), void *arg);
void loop_cancel(struct loop *l, struct deferred *d);
/* free_fn(ptr) after everything that was deferred this turn. */
void loop_free_later(struct loop *l, void *ptr, void (*free_fn)(void *));
/* Called at the end of each turn, after deferred work, before freeing (the journal's flush). At most 8. */
void loop_on_turn_end(struct loop *l, void (*fn)(void *), void *arg);

/* One-shot timer, embedded in its owner; zeroed is "not running". Starting again moves it. */
struct timer {
    void *impl;
    struct loop *loop;
    void (*fn)(void *arg);
    void *arg;
};
void timer_start(struct loop *l, struct timer *t, int64_t delay_ms, void (*fn)(void *), void *arg);
void timer_stop(struct timer *t);   /* no callback afterwards */
bool timer_running(const struct timer *t);

/* Waiting until a descriptor can be read, once, embedded in its owner; zeroed is "not waiting". The descriptor stays the
 * caller's, and stays open while it is waited for. */
struct knock {
    void *impl;
    void (*fn)(void *arg);
    void *arg;
};
void knock_wait(struct loop *l, struct knock *k, int fd, void (*fn)(void *arg), void *arg);
void knock_stop(struct knock *k);   /* no callback afterwards */

/* SIGTERM, SIGHUP and so on as callbacks in the loop. */
void loop_on_signal(struct loop *l, int signo, void (*fn)(void *, int signo), void *arg);
/* fn(arg) whenever fd can be read, for as long as the loop lives: inotify and the like. fd stays the caller's. */
void loop_on_readable(struct loop *l, int fd, void (*fn)(void *), void *arg);

#endif
