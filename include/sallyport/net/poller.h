/* Readiness of connected sockets by edge (EPOLLET, epoll(7)): one epoll descriptor a loop, which libevent watches as it watches
 * any other. A socket is registered once, and closing it takes it out again: while it lives no call tells the kernel what is
 * wanted of it just now. What was told once is the owner's to remember. An entry costs no memory but the source that its owner
 * embeds. */
#ifndef SALLYPORT_NET_POLLER_H
#define SALLYPORT_NET_POLLER_H

#include <stdbool.h>

#include "sallyport/base/list.h"

struct event_base;
struct poller; /* one a loop */

enum edge {
    EDGE_IN = 1,  /* there is something to read, which it was not before */
    EDGE_OUT = 2, /* there is room to write again, or a connect has ended */
    EDGE_END = 4, /* the peer's end, an error or urgent data: a short read says nothing about what is left behind it */
    EDGE_URGENT = 8, /* urgent data, with EDGE_END */
};

/* Embedded in its owner and zeroed in the beginning. Its memory must last to the end of the turn in which it was forgotten. */
struct source {
    struct list_node due;
    void (*fn)(struct source *s, unsigned edges); /* from the loop; edges is 0 when it is only due */
};

struct poller *poller_new(struct event_base *base); /* NULL when the kernel gives none */
void poller_free(struct poller *p);                 /* no call afterwards; what is still registered is not closed */
/* From now on s->fn hears of fd: of what is there already, and of what comes. `out`: of EDGE_OUT too, for which every write
 * that finds no room must ask; poller_add_out asks later. Nobody else may hold a copy of fd: it is the last close that
 * unregisters. */
void poller_add(struct poller *p, struct source *s, int fd, bool out);
void poller_add_out(struct poller *p, struct source *s, int fd);
/* Before a registered descriptor is closed. No call afterwards. */
void poller_forget(struct poller *p, struct source *s);
/* s->fn is called once more without an edge: in this turn, or in the next where this one's were called already. */
void poller_again(struct poller *p, struct source *s);
void poller_not_again(struct poller *p, struct source *s);

/* For the loop. */
bool poller_is_idle(const struct poller *p);  /* nothing is due */
bool poller_is_empty(const struct poller *p); /* nothing is registered or due */
void poller_run_due(struct poller *p);        /* what is due now; what becomes due meanwhile is the next turn's */

#endif
