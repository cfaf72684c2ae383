/* Bulk from one plain stream to another without copying: the bytes wait in a pipe, inside the kernel (splice(2)). A worker has
 * a few pipes for all its streams; one is on loan only while bytes are under way. Whoever gets none copies instead. */
#ifndef SALLYPORT_NET_SPLICE_H
#define SALLYPORT_NET_SPLICE_H

#include "sallyport/net/stream.h"

/* Pipes of one worker, lent or kept, two descriptors each. 64 of 1 MiB are what the kernel lets a user without privileges have
 * by default (fs.pipe-user-pages-soft, pipe(7)). */
#define SPLICE_PIPES_MAX 64
#define SPLICE_PIPE_BYTES ((size_t)1 << 20) /* the most that one holds */

struct splicer; /* a worker's pipes */
struct splice;  /* one of them, on loan */

struct splicer *splicer_new(void);
void splicer_free(struct splicer *s); /* everything lent must be back; NULL is fine */

/* An empty pipe for bytes between these two. NULL when they are to be copied: TLS, all pipes are lent, or the kernel gives none
 * that is worth it. Costs nothing but a look while pipes are kept. */
struct splice *splice_take(struct splicer *s, struct stream *from, struct stream *to);
void splice_give(struct splice *p); /* what it still holds is lost; NULL is fine */
size_t splice_len(const struct splice *p); /* bytes it holds */
/* Moves what `from` has into the pipe, which must be empty: at most `max` bytes. As stream_read; STREAM_AGAIN also when the
 * kernel turns out not to splice here: no pipe can be had any more then. */
enum stream_io splice_pull(struct splice *p, struct stream *from, size_t max, size_t *ret_len);
/* Moves what the pipe holds on to `to`, as far as it takes it now, or as far as a signal lets it. As stream_write. */
enum stream_io splice_push(struct splice *p, struct stream *to);

#endif
