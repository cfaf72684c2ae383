/* Accepting connections on sockets that the supervisor opened. Pauses on EMFILE/ENFILE and on the owner's word. */
#ifndef SALLYPORT_NET_LISTEN_H
#define SALLYPORT_NET_LISTEN_H

#include <sys/socket.h>

#include "sallyport/net/loop.h"

struct listener;

/* Owns the descriptor (non-blocking, close-on-exec). `from` is the peer's address, valid during the call. */
typedef void accept_fn(void *owner, int fd, const struct sockaddr *from);
/* Accepts in batches of at most 64 a turn. */
struct listener *listener_new(struct loop *l, int fd, bool exclusive, accept_fn *on_accept, void *owner);
void listener_pause(struct listener *ln);  /* counted; the queue keeps what waits */
void listener_resume(struct listener *ln);
void listener_free(struct listener *ln); /* closes its descriptor; the supervisor's copy lives on */
bool listener_starved(const struct listener *ln); /* paused because descriptors ran out */

#endif
