/* A connected byte stream, TCP or TLS behind one face, by readiness: the owner reads and writes when told that it can,
 * and holds the buffers itself, so that an idle stream costs none. Events come from the loop, never from inside a call
 * that the owner makes. */
#ifndef SALLYPORT_NET_STREAM_H
#define SALLYPORT_NET_STREAM_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "sallyport/base/slice.h"
#include "sallyport/net/loop.h"

struct stream;

enum stream_event {
    STREAM_READABLE = 1, /* read until STREAM_AGAIN or stop wanting it */
    STREAM_WRITABLE,
    STREAM_SECURED,      /* the TLS handshake is done */
    STREAM_FAILED,       /* reset or TLS error; nothing more will come */
    STREAM_TIMEOUT,      /* the deadline passed; set anew or free */
};

enum stream_io { STREAM_ERROR = 0, STREAM_DONE, STREAM_AGAIN, STREAM_EOF };

typedef void stream_fn(void *owner, enum stream_event event);

/* Takes over a connected, non-blocking socket, of which nobody else may hold a copy. No event before stream_want. */
struct stream *stream_new(struct loop *loop, int fd, stream_fn *on_event, void *owner);
/* The same for one whose connect is under way: STREAM_WRITABLE says that it has ended, and stream_connect_error how. */
struct stream *stream_new_connecting(struct loop *loop, int fd, stream_fn *on_event, void *owner);
int stream_connect_error(struct stream *s); /* an errno, 0: it is connected */
/* No event afterwards; safe inside an event of its own; closes the descriptor. NULL is fine. */
void stream_free(struct stream *s);
/* Reads of it may fall short with more behind them: unix sockets, where somebody sends descriptors along (unix(7)). */
void stream_distrust_short_reads(struct stream *s);
void stream_reset(struct stream *s); /* as stream_free, but the peer gets RST (SO_LINGER 0) */
void stream_set_owner(struct stream *s, stream_fn *on_event, void *owner);
/* What to be told about. Level-triggered: unread bytes (also those already decrypted) are told again. */
void stream_want(struct stream *s, bool readable, bool writable);
/* STREAM_DONE: *ret_len > 0 bytes. STREAM_EOF: an orderly end (FIN, close_notify). STREAM_AGAIN, STREAM_ERROR. */
enum stream_io stream_read(struct stream *s, void *data, size_t size, size_t *ret_len);
enum stream_io stream_write(struct stream *s, const struct iovec *iov, int count, size_t *ret_len);
enum stream_io stream_write_slice(struct stream *s, struct slice data, size_t *ret_len);
/* Half-close: FIN, or close_notify and FIN. What the owner still buffers it must write before. */
void stream_shutdown_write(struct stream *s);
/* Server side of TLS from now on. `first` are bytes that were read already and belong to the handshake. Later one
 * STREAM_SECURED or STREAM_FAILED. */
void stream_accept_tls(struct stream *s, SSL_CTX *context, struct slice first);
void stream_connect_tls(struct stream *s, SSL_CTX *context, const char *server_name);
SSL *stream_tls(struct stream *s);        /* NULL for plain */
/* The descriptor, or -1 when its bytes need work (TLS) and cannot be spliced. */
int stream_raw_fd(struct stream *s);
bool stream_can_splice_in(const struct stream *s); /* splice(2) does not get past urgent data: recv does */
/* splice(2) from a plain stream into an empty pipe, and from a pipe into a plain stream, without waiting. As splice returns, -1 with
 * errno; 0 is the end. */
ssize_t stream_splice_in(struct stream *s, int pipe, size_t max);
ssize_t stream_splice_out(struct stream *s, int pipe, size_t len);
/* One deadline, absolute in loop_now_ms time; 0: none. */
void stream_set_deadline(struct stream *s, int64_t at_ms);
/* What a TCP connection needs at once: TCP_NODELAY. */
void stream_no_delay(struct stream *s);
/* And what it needs when it lasts: keepalive probes and a user timeout, so that a peer that vanished is noticed. */
void stream_tune(struct stream *s);
/* All of it for a listening socket: accepted ones inherit it, which costs no call a connection. */
void stream_tune_listener(int fd);

#endif
