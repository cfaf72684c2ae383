/* Connecting to judged endpoints: Happy Eyeballs (RFC 8305 section 5) over the list that the guard made, in its order.
 * A dial lives from dial_start until its one callback or dial_cancel. It takes no address but an endpoint's. */
#include "sallyport/net/dial.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>

#include "sallyport/base/mem.h"

#define NEXT_ATTEMPT_MS 250 /* RFC 8305 section 5, "Connection Attempt Delay" */

struct attempt {
    struct dial *dial;
    struct stream *stream; /* NULL: not begun, or over */
    size_t index;          /* into the endpoints */
};

struct dial {
    struct loop *loop;
    struct endpoints *endpoints;
    size_t count, next;         /* next: the first endpoint that was not tried yet */
    size_t open;                /* attempts under way */
    struct attempt *attempts;   /* one an endpoint */
    struct timer overall, stagger;
    struct deferred report;     /* for an end that is reached inside dial_start */
    enum reason worst;          /* most significant failure so far */
    int won;                    /* index of the attempt that connected, or -1 */
    bool over;
    dial_fn *on_done;
    void *owner;
};

static void dial_try_next(struct dial *d);

/* How much a failure says about the server: a refusal is its own word, a missing route the network's, a timeout nobody's.
 * That we have no descriptor left says that the others were never asked. */
static int
significance(enum reason r)
{
    return r == REASON_OVERLOADED            ? 4
           : r == REASON_UPSTREAM_REFUSED     ? 3
           : r == REASON_UPSTREAM_UNREACHABLE ? 2
           : r == REASON_UPSTREAM_TIMEOUT     ? 1
                                              : 0;
}

static enum reason
reason_from_errno(int error)
{
    switch (error) {
    case ECONNREFUSED:
    case ECONNRESET:
        return REASON_UPSTREAM_REFUSED;
    case ETIMEDOUT:
        return REASON_UPSTREAM_TIMEOUT;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        return REASON_OVERLOADED;
    }
    return REASON_UPSTREAM_UNREACHABLE;
}

static void
note_failure(struct dial *d, enum reason r)
{
    if (significance(r) > significance(d->worst))
        d->worst = r;
}

static struct stream *
attempt_take(struct attempt *a)
{
    if (a->stream)
        a->dial->open--;
    return steal(&a->stream);
}

static void
dial_release(void *arg)
{
    struct dial *d = arg;
    endpoints_free(d->endpoints);
    free(d->attempts);
    free(d);
}

/* Stops everything and lets the memory go at the end of the turn. */
static void
dial_dispose(struct dial *d)
{
    d->over = true;
    timer_stop(&d->overall);
    timer_stop(&d->stagger);
    loop_cancel(d->loop, &d->report);
    for (size_t i = 0; i < d->count; i++)
        stream_free(attempt_take(&d->attempts[i]));
    loop_free_later(d->loop, d, dial_release);
}

/* The one end, from the loop. */
static void
dial_finish(void *arg)
{
    struct dial *d = arg;
    struct stream *stream = NULL;
    struct addr address = {0};
    enum reason reason = d->worst ? d->worst : REASON_UPSTREAM_TIMEOUT;
    if (d->won >= 0) {
        struct attempt *a = &d->attempts[d->won];
        address = endpoint_addr(endpoints_at(d->endpoints, a->index));
        stream = attempt_take(a);
        stream_want(stream, false, false);
        stream_set_owner(stream, NULL, NULL);
        stream_no_delay(stream);
        reason = REASON_OK;
    }
    dial_dispose(d);
    d->on_done(d->owner, reason, stream, stream ? &address : NULL);
}

/* A connect to a free port of this host can meet itself: the kernel picks that very port as the source. Nobody is there. It
 * picks none of the reserved ones. */
static bool
connected_to_itself(int fd, const struct endpoint *endpoint)
{
    struct sockaddr_storage here = {0};
    socklen_t len = sizeof here, there_len;
    struct addr from, to;
    uint16_t from_port = 0, to_port = 0;
    if (!addr_from_sockaddr(endpoint_sockaddr(endpoint, &there_len), &to, &to_port) || to_port < IPPORT_RESERVED)
        return false;
    return getsockname(fd, (struct sockaddr *)&here, &len) == 0 && addr_from_sockaddr((struct sockaddr *)&here, &from, &from_port) &&
           from_port == to_port && addr_equal(&from, &to);
}

static void
on_connected(void *owner, enum stream_event event)
{
    struct attempt *a = owner;
    struct dial *d = a->dial;
    (void)event; /* nothing else is wanted of it */
    int error = stream_connect_error(a->stream);
    if (error == 0 && connected_to_itself(stream_raw_fd(a->stream), endpoints_at(d->endpoints, a->index)))
        error = ECONNREFUSED;
    if (error == 0) {
        d->won = (int)a->index;
        dial_finish(d);
        return;
    }
    note_failure(d, reason_from_errno(error));
    stream_free(attempt_take(a));
    dial_try_next(d);
    if (d->open == 0 && !list_linked(&d->report.node))
        dial_finish(d);
}

/* False when it failed at once; the reason is noted. */
static bool
attempt_start(struct dial *d, size_t index)
{
    struct attempt *a = &d->attempts[index];
    socklen_t len = 0;
    const struct sockaddr *sa = endpoint_sockaddr(endpoints_at(d->endpoints, index), &len);
    int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        note_failure(d, reason_from_errno(errno));
        return false;
    }
    if (connect(fd, sa, len) != 0 && errno != EINPROGRESS && errno != EINTR) {
        note_failure(d, reason_from_errno(errno));
        close(fd);
        return false;
    }
    /* A connect that is through already is told as writable by the loop, as any other. */
    a->stream = stream_new_connecting(d->loop, fd, on_connected, a);
    d->open++;
    return true;
}

static void
on_stagger(void *arg)
{
    struct dial *d = arg;
    dial_try_next(d);
    if (d->open == 0 && !list_linked(&d->report.node))
        dial_finish(d);
}

/* Starts the next attempt that does not fail at once, and the timer for the one after it. */
static void
dial_try_next(struct dial *d)
{
    timer_stop(&d->stagger);
    while (d->next < d->count && !attempt_start(d, d->next++))
        ;
    if (d->next < d->count)
        timer_start(d->loop, &d->stagger, NEXT_ATTEMPT_MS, on_stagger, d);
}

static void
on_overall_timeout(void *arg)
{
    struct dial *d = arg;
    note_failure(d, REASON_UPSTREAM_TIMEOUT);
    dial_finish(d);
}

struct dial *
dial_start(struct loop *l, struct endpoints *endpoints, int64_t timeout_ms, dial_fn *on_done, void *owner)
{
    struct dial *d = mem_zalloc(sizeof *d);
    d->loop = l;
    d->endpoints = endpoints;
    d->count = endpoints_count(endpoints);
    d->attempts = mem_array(d->count ? d->count : 1, sizeof *d->attempts);
    d->on_done = on_done;
    d->owner = owner;
    d->won = -1;
    for (size_t i = 0; i < d->count; i++)
        d->attempts[i] = (struct attempt){.dial = d, .index = i};
    timer_start(l, &d->overall, timeout_ms, on_overall_timeout, d);
    dial_try_next(d);
    if (d->open == 0) {
        note_failure(d, REASON_UPSTREAM_UNREACHABLE); /* nothing was there to try */
        loop_defer(l, &d->report, dial_finish, d);
    }
    return d;
}

void
dial_cancel(struct dial *d)
{
    if (d && !d->over)
        dial_dispose(d);
}
