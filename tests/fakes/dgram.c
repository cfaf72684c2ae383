/* Datagrams in scenarios: there are none; a listener for them can be made and stays silent. */
#include "sallyport/net/dgram.h"

#include <unistd.h>

#include "sallyport/base/mem.h"

struct dgram {
    int fd;
};

struct dgram *
dgram_new(struct loop *l, int fd, void (*on_packet)(void *owner, const struct packet *p), void *owner)
{
    (void)l, (void)on_packet, (void)owner;
    struct dgram *d = mem_zalloc(sizeof *d);
    d->fd = fd;
    return d;
}

void
dgram_free(struct dgram *d)
{
    free(d);
}

bool
dgram_reply(struct dgram *d, const struct packet *to, struct slice data)
{
    (void)d, (void)to, (void)data;
    return false;
}
