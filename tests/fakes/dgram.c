/* Datagram sockets, which nothing arrives at: no scenario sends datagrams. */
#include <stdlib.h>

#include "fakes/world.h"
#include "sallyport/base/mem.h"
#include "sallyport/net/dgram.h"

struct dgram {
    struct pollee pollee;
    int fd;
    void (*on_packet)(void *owner, const struct packet *p);
    void *owner;
};

static bool
fire_dgram(void *object)
{
    (void)object;
    return false;
}

struct dgram *
dgram_new(struct loop *l, int fd, void (*on_packet)(void *owner, const struct packet *p),
          void *owner)
{
    (void)l;
    struct dgram *d = mem_zalloc(sizeof *d);
    d->fd = fd;
    d->on_packet = on_packet;
    d->owner = owner;
    pollee_add(&d->pollee, fire_dgram, d);
    return d;
}

void
dgram_free(struct dgram *d)
{
    if (d)
        pollee_drop(&d->pollee, free);
}

bool
dgram_reply(struct dgram *d, const struct packet *to, struct slice data)
{
    (void)d, (void)to, (void)data;
    return false;
}
