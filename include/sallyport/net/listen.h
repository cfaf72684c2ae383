/* Accepting connections on sockets that the supervisor opened. Pauses on EMFILE/ENFILE and on the owner's word. */
#ifndef SALLYPORT_NET_LISTEN_H
#define SALLYPORT_NET_LISTEN_H

#include "sallyport/net/loop.h"

struct listener;

/* on_accept owns the descriptor (non-blocking, close-on-exec). Accepts in batches of at most 64 a turn. */
struct listener *listener_new(struct loop *l, int fd, bool exclusive, void (*on_accept)(void *owner, int fd), void *owner);
void listener_pause(struct listener *ln);  /* counted; the queue keeps what waits */
void listener_resume(struct listener *ln);
void listener_free(struct listener *ln); /* closes its descriptor; the supervisor's copy lives on */
bool listener_starved(const struct listener *ln); /* paused because descriptors ran out */

#endif
