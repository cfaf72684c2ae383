/* Edges of sockets, and turns of those that are not done with what an edge told them. Owns the epoll descriptor and nothing
 * that is registered with it. */
#include "sallyport/net/poller.h"

#include <assert.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "sallyport/base/mem.h"

#define BATCH_MAX 256 /* edges of one turn; what is left is the next one's, behind timers and the other descriptors */

struct poller {
    struct event event; /* the epoll descriptor can be read while it has edges */
    struct list due;
    size_t registered;
    int fd;
};

static unsigned
edges_of(uint32_t events)
{
    unsigned edges = 0;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI))
        edges |= EDGE_IN;
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
        edges |= EDGE_OUT;
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI))
        edges |= EDGE_END;
    if (events & EPOLLPRI)
        edges |= EDGE_URGENT;
    return edges;
}

static void
on_edges(evutil_socket_t fd, short what, void *arg)
{
    struct epoll_event events[BATCH_MAX];
    (void)what;
    (void)arg;
    int count = epoll_wait(fd, events, BATCH_MAX, 0);
    for (int i = 0; i < count; i++) {
        struct source *s = events[i].data.ptr;
        if (s->fn) /* not forgotten since, by one before it */
            s->fn(s, edges_of(events[i].events));
    }
}

struct poller *
poller_new(struct event_base *base)
{
    struct poller *p = mem_zalloc(sizeof *p);
    list_init(&p->due);
    p->fd = epoll_create1(EPOLL_CLOEXEC);
    if (p->fd < 0) {
        free(p);
        return NULL;
    }
    if (event_assign(&p->event, base, p->fd, EV_READ | EV_PERSIST, on_edges, p) != 0 || event_add(&p->event, NULL) != 0)
        abort();
    return p;
}

void
poller_free(struct poller *p)
{
    if (!p)
        return;
    event_del(&p->event);
    close(p->fd);
    free(p);
}

static void
control(struct poller *p, int op, struct source *s, int fd, bool out)
{
    struct epoll_event e = {.events = EPOLLET | EPOLLIN | EPOLLRDHUP | EPOLLPRI | (out ? (uint32_t)EPOLLOUT : 0), .data.ptr = s};
    if (epoll_ctl(p->fd, op, fd, &e) != 0)
        abort(); /* no memory, or a descriptor that is none */
}

void
poller_add(struct poller *p, struct source *s, int fd, bool out)
{
    control(p, EPOLL_CTL_ADD, s, fd, out);
    p->registered++;
}

void
poller_add_out(struct poller *p, struct source *s, int fd)
{
    control(p, EPOLL_CTL_MOD, s, fd, true);
}

void
poller_forget(struct poller *p, struct source *s)
{
    assert(p->registered > 0);
    p->registered--;
    poller_not_again(p, s);
    s->fn = NULL;
}

void
poller_again(struct poller *p, struct source *s)
{
    if (!list_linked(&s->due))
        list_append(&p->due, &s->due);
}

void
poller_not_again(struct poller *p, struct source *s)
{
    if (list_linked(&s->due))
        list_remove(&p->due, &s->due);
}

bool
poller_is_idle(const struct poller *p)
{
    return list_empty(&p->due);
}

bool
poller_is_empty(const struct poller *p)
{
    return p->registered == 0 && list_empty(&p->due);
}

void
poller_run_due(struct poller *p)
{
    for (size_t left = p->due.count; left > 0 && !list_empty(&p->due); left--) {
        struct source *s = list_entry(list_first(&p->due), struct source, due);
        list_remove(&p->due, &s->due);
        s->fn(s, 0);
    }
}
