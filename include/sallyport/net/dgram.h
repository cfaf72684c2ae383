/* Datagrams on a socket that lives as long as the loop: DNS queries of a sandbox, packets that a sandbox tried to send. Answers
 * go out from the very address that was asked. */
#ifndef SALLYPORT_NET_DGRAM_H
#define SALLYPORT_NET_DGRAM_H

#include <sys/socket.h>

#include "sallyport/base/slice.h"
#include "sallyport/net/loop.h"

#define DGRAM_MAX 4096 /* bytes of one datagram; longer ones are dropped */

struct dgram;

struct packet {
    struct slice data;             /* valid during the callback */
    struct sockaddr_storage from;
    socklen_t from_len;
    unsigned char control[256];    /* the address that was asked, as the kernel told it */
    size_t control_len;
};

/* on_packet gets each datagram, at most 64 a turn. The descriptor is taken over, and made non-blocking. */
struct dgram *dgram_new(struct loop *l, int fd, void (*on_packet)(void *owner, const struct packet *p), void *owner);
void dgram_free(struct dgram *d); /* before the loop; no callback afterwards */
bool dgram_reply(struct dgram *d, const struct packet *to, struct slice data);

#endif
