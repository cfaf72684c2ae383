/* Messages between processes: SOCK_SEQPACKET frames with a fixed header, checked lengths, and descriptors. */
#ifndef SALLYPORT_NET_CHANNEL_H
#define SALLYPORT_NET_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/slice.h"
#include "sallyport/net/loop.h"

#define CHANNEL_FRAME_MAX 65536 /* payload bytes of one frame */
#define CHANNEL_FDS_MAX 16

struct channel;

struct frame {
    uint16_t type;
    struct slice payload;      /* valid during the callback */
    int fds[CHANNEL_FDS_MAX];  /* the receiver's; those not taken (set to -1) are closed after the callback */
    int fd_count;
};

enum channel_event { CHANNEL_FRAME = 1, CHANNEL_WRITABLE, CHANNEL_CLOSED };
typedef void channel_fn(void *owner, enum channel_event event, struct frame *frame);

int channel_pair(int fds[2]); /* both close-on-exec, non-blocking, send buffers of at least 1 MiB; -1 with errno */
struct channel *channel_new(struct loop *l, int fd, channel_fn *on_event, void *owner);
void channel_free(struct channel *c);
/* True when the kernel took it (all or nothing); false when the queue is full or the peer is gone. */
bool channel_send(struct channel *c, uint16_t type, struct slice payload, const int *fds, int fd_count);
void channel_want_writable(struct channel *c, bool want); /* CHANNEL_WRITABLE when a frame fits again */
int channel_fd(const struct channel *c);
/* Delivers what is queued now, and CHANNEL_CLOSED when that is the end. Inside another channel's callback its frame is no
 * longer valid behind this. */
void channel_drain(struct channel *c);
/* The socket's own number, the same for all who hold it. */
uint64_t channel_id(int fd);

#endif
