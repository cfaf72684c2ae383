/* Connects with scripted ends, one endpoint after the other as Happy Eyeballs would start them: the
 * next one 250 ms later or when the one before has failed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fakes/world.h"
#include "sallyport/base/mem.h"
#include "sallyport/net/dial.h"

#define CONNECTS_MAX 64
#define ATTEMPT_DELAY_MS 250 /* RFC 8305 section 8 */

struct connect_row {
    struct addr address;
    uint16_t port;
    enum connect_kind kind;
    int64_t after_ms;
};
static struct connect_row rows[CONNECTS_MAX];
static size_t row_count;

enum attempt_state { ATTEMPT_WAITING = 0, ATTEMPT_RUNNING, ATTEMPT_FAILED };

struct attempt {
    struct addr address;
    uint16_t port;
    enum attempt_state state;
    int64_t started_ms;
};

struct dial {
    struct pollee pollee;
    struct endpoints *endpoints;
    struct attempt attempts[GUARD_ANSWERS_MAX];
    size_t count;
    int64_t deadline_ms, last_start_ms;
    enum reason worst;
    struct timer tick; /* so that virtual time stops where an attempt starts or ends */
    dial_fn *on_done;
    void *owner;
};

void
world_connects(const struct addr *address, uint16_t port, enum connect_kind kind, int64_t after_ms)
{
    for (size_t i = 0; i < row_count; i++)
        if (addr_equal(&rows[i].address, address) && rows[i].port == port) {
            rows[i] = (struct connect_row){*address, port, kind, after_ms};
            return;
        }
    if (row_count == CONNECTS_MAX)
        abort();
    rows[row_count++] = (struct connect_row){*address, port, kind, after_ms};
}

void
dials_reset(void)
{
    row_count = 0;
}

static struct connect_row
row_of(const struct attempt *a)
{
    for (size_t i = 0; i < row_count; i++)
        if (addr_equal(&rows[i].address, &a->address) &&
            (rows[i].port == 0 || rows[i].port == a->port))
            return rows[i];
    return (struct connect_row){.kind = CONNECT_OK};
}

static void
tick(void *arg)
{
    struct dial *d = arg;
    timer_start(world.loop, &d->tick, 10, tick, d);
}

static void
start_attempt(struct dial *d, struct attempt *a)
{
    char text[ADDR_TEXT_SIZE], full[SOCKADDR_TEXT_SIZE];
    addr_format(&a->address, text);
    snprintf(full, sizeof full, a->address.family == AF_INET6 ? "[%s]:%u" : "%s:%u", text, a->port);
    effect_add(EFFECT_DIAL, full, 0, &a->address);
    a->state = ATTEMPT_RUNNING;
    a->started_ms = d->last_start_ms = world.mono_ms;
}

static bool
start_next(struct dial *d)
{
    for (size_t i = 0; i < d->count; i++)
        if (d->attempts[i].state == ATTEMPT_WAITING) {
            start_attempt(d, &d->attempts[i]);
            return true;
        }
    return false;
}

static void
dial_free(void *arg)
{
    struct dial *d = arg;
    endpoints_free(d->endpoints);
    free(d);
}

static void
end(struct dial *d)
{
    timer_stop(&d->tick);
    pollee_drop(&d->pollee, dial_free);
}

static void
nobody(void *owner, enum stream_event event)
{
    (void)owner, (void)event;
}

static bool
succeed(struct dial *d, const struct attempt *a)
{
    struct addr address = a->address;
    struct wire *w = wire_new(true, &a->address, a->port);
    struct stream *s = stream_new(world.loop, w->fd, nobody, NULL);
    end(d);
    d->on_done(d->owner, REASON_OK, s, &address);
    return true;
}

static bool
fail(struct dial *d, enum reason reason)
{
    end(d);
    d->on_done(d->owner, reason, NULL, NULL);
    return true;
}

/* True when it has ended one way or the other; false: still under way. */
static bool
attempt_ends(struct dial *d, struct attempt *a, bool *ret_ok)
{
    struct connect_row row = row_of(a);
    *ret_ok = false;
    if (a->state != ATTEMPT_RUNNING || world.mono_ms < a->started_ms + row.after_ms)
        return false;
    switch (row.kind) {
    case CONNECT_OK:
        *ret_ok = true;
        return true;
    case CONNECT_REFUSED:
        d->worst = REASON_UPSTREAM_REFUSED;
        break;
    case CONNECT_UNREACHABLE:
        if (d->worst != REASON_UPSTREAM_REFUSED)
            d->worst = REASON_UPSTREAM_UNREACHABLE;
        break;
    case CONNECT_TIMEOUT:
    case CONNECT_HOLD:
        return false;
    }
    a->state = ATTEMPT_FAILED;
    return true;
}

static bool
fire_dial(void *object)
{
    struct dial *d = object;
    size_t running = 0;
    bool failed = false, ok;
    for (size_t i = 0; i < d->count; i++) {
        if (attempt_ends(d, &d->attempts[i], &ok)) {
            if (ok)
                return succeed(d, &d->attempts[i]);
            failed = true;
        }
        running += d->attempts[i].state == ATTEMPT_RUNNING;
    }
    if (world.mono_ms >= d->deadline_ms)
        return fail(d, running ? REASON_UPSTREAM_TIMEOUT : d->worst);
    if ((failed || world.mono_ms >= d->last_start_ms + ATTEMPT_DELAY_MS) && start_next(d))
        return true;
    if (running == 0 && d->count > 0)
        return fail(d, d->worst);
    return failed;
}

struct dial *
dial_start(struct loop *l, struct endpoints *endpoints, int64_t timeout_ms, dial_fn *on_done,
           void *owner)
{
    (void)l;
    struct dial *d = mem_zalloc(sizeof *d);
    d->endpoints = endpoints;
    d->deadline_ms = world.mono_ms + timeout_ms;
    d->worst = REASON_UPSTREAM_UNREACHABLE;
    d->on_done = on_done;
    d->owner = owner;
    for (size_t i = 0; i < endpoints_count(endpoints) && i < GUARD_ANSWERS_MAX; i++) {
        const struct endpoint *e = endpoints_at(endpoints, i);
        socklen_t len;
        addr_from_sockaddr(endpoint_sockaddr(e, &len), &d->attempts[i].address,
                           &d->attempts[i].port);
        d->count++;
    }
    pollee_add(&d->pollee, fire_dial, d);
    start_next(d);
    tick(d);
    return d;
}

void
dial_cancel(struct dial *d)
{
    if (d)
        end(d);
}
