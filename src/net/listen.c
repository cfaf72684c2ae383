/* Accepting on sockets that the supervisor opened: in batches, paused on the owner's word and when descriptors run out.
 * It never closes a connection itself: what cannot be accepted now keeps its place in the kernel's queue. */
#include "sallyport/net/listen.h"
#include "sallyport/net/stream.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sallyport/base/diag.h"
#include "sallyport/base/file.h"
#include "sallyport/base/mem.h"

#define BATCH_MAX 64
/* On a socket that several workers share, one that takes everything leaves the others idle. */
#define BATCH_SHARED 8
#define RETRY_MS 100 /* descriptors come back within a few round trips or not at all */

struct listener {
    struct loop *loop;
    struct event event;
    struct timer retry;
    accept_fn *on_accept;
    void *owner;
    int fd;
    int batch;         /* the most that are accepted in one turn */
    int expected;      /* how many to ask for in the next one */
    unsigned pauses;   /* by the owner */
    bool resting;      /* by us: until the retry timer */
    bool starved;      /* resting for want of descriptors or memory */
    bool armed, freed;
};

static void
listener_rearm(struct listener *ln)
{
    bool want = ln->pauses == 0 && !ln->resting && !ln->freed;
    if (want == ln->armed)
        return;
    if (want && event_add(&ln->event, NULL) != 0)
        abort();
    if (!want)
        event_del(&ln->event);
    ln->armed = want;
}

static void
on_retry(void *arg)
{
    struct listener *ln = arg;
    ln->resting = false;
    ln->starved = false;
    listener_rearm(ln);
}

static void
listener_rest(struct listener *ln, int error)
{
    ln->resting = true;
    ln->starved = error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
    if (!ln->starved)
        diag(DIAG_WARNING, "accept failed with error %d; trying again", error);
    timer_start(ln->loop, &ln->retry, RETRY_MS, on_retry, ln);
    listener_rearm(ln);
}

/* Errors of the one connection, which is gone, and not of the listening socket (accept(2)). */
static bool
error_is_of_connection(int error)
{
    switch (error) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case EPERM: /* a packet filter's word */
    case ENOPROTOOPT:
    case ENETDOWN:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EOPNOTSUPP:
    case ETIMEDOUT:
        return true;
    }
    return false;
}

/* As many as came lately, twice as many when all those were there. To ask on until nobody is left would cost each connection that
 * comes alone a second call; who is left over is told of by the loop. */
static void
on_waiting(evutil_socket_t fd, short what, void *arg)
{
    struct listener *ln = arg;
    (void)fd;
    (void)what;
    int most = ln->expected;
    for (int i = 0; i < most && ln->armed; i++) {
        struct sockaddr_storage from = {0}; /* a unix socket's peer has none */
        socklen_t len = sizeof from;
        int client = accept4(ln->fd, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (client >= 0) {
            ln->on_accept(ln->owner, client, (struct sockaddr *)&from); /* may pause or free the listener */
            continue;
        }
        if (errno == EAGAIN) {
            ln->expected = i > 0 ? i : 1;
            return;
        }
        if (!error_is_of_connection(errno)) {
            listener_rest(ln, errno);
            return;
        }
    }
    ln->expected = most * 2 < ln->batch ? most * 2 : ln->batch;
}

/* exclusive: the socket is shared with other workers, each of which should be woken for connections of its own. libevent
 * offers no EPOLLEXCLUSIVE, and an epoll descriptor nested into another does not keep the wake-ups apart, so all workers
 * wake and all but one find EAGAIN, which is harmless; the small batch spreads the connections. */
struct listener *
listener_new(struct loop *l, int fd, bool exclusive, accept_fn *on_accept, void *owner)
{
    struct listener *ln = mem_zalloc(sizeof *ln);
    ln->loop = l;
    ln->fd = fd;
    ln->batch = exclusive ? BATCH_SHARED : BATCH_MAX;
    ln->expected = 1;
    ln->on_accept = on_accept;
    ln->owner = owner;
    stream_tune_listener(fd);
    if (fd_set_nonblocking(fd) != 0)
        diag(DIAG_WARNING, "a listening socket cannot be made non-blocking: error %d", errno);
    if (event_assign(&ln->event, loop_base(l), fd, EV_READ | EV_PERSIST, on_waiting, ln) != 0)
        abort();
    listener_rearm(ln);
    return ln;
}

void
listener_pause(struct listener *ln)
{
    ln->pauses++;
    listener_rearm(ln);
}

void
listener_resume(struct listener *ln)
{
    assert(ln->pauses > 0);
    ln->pauses--;
    listener_rearm(ln);
}

void
listener_free(struct listener *ln)
{
    if (!ln || ln->freed)
        return;
    ln->freed = true;
    listener_rearm(ln);
    timer_stop(&ln->retry);
    close(ln->fd);
    loop_free_later(ln->loop, ln, free);
}

bool
listener_starved(const struct listener *ln)
{
    return ln->starved;
}
