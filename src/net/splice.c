/* The pipes of a worker. A few are kept while nobody needs them; making one costs four system calls and the kernel a table.
 * A pipe that comes back with bytes in it is closed: the bytes are somebody's, and must reach nobody else. */
#include "sallyport/net/splice.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "sallyport/base/list.h"
#include "sallyport/base/mem.h"

#define KEPT_MAX 16                          /* pipes that wait for their next use */
#define WORTH_IT (SPLICE_PIPE_BYTES / 4)     /* a smaller pipe moves less at once than copying does */

struct splicer {
    struct list kept;
    size_t count; /* lent ones too */
    bool unable;  /* the kernel, or a filter of system calls, does not splice sockets */
};

struct splice {
    struct list_node node; /* in splicer.kept */
    struct splicer *splicer;
    int in, out;           /* the ends that bytes go in and come out at */
    size_t len;
};

struct splicer *
splicer_new(void)
{
    struct splicer *s = mem_zalloc(sizeof *s);
    list_init(&s->kept);
    return s;
}

/* Over the kernel's limit for users a pipe still grows a little, or not at all; then copying is better. */
static bool
grow(int fd)
{
    for (size_t size = SPLICE_PIPE_BYTES; size >= WORTH_IT; size /= 2)
        if (fcntl(fd, F_SETPIPE_SZ, (int)size) >= 0)
            return true;
    return false;
}

static struct splice *
pipe_new(struct splicer *s)
{
    int ends[2];
    if (s->count == SPLICE_PIPES_MAX || pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0)
        return NULL;
    if (!grow(ends[1])) {
        close(ends[0]);
        close(ends[1]);
        return NULL;
    }
    struct splice *p = mem_zalloc(sizeof *p);
    p->splicer = s;
    p->out = ends[0];
    p->in = ends[1];
    s->count++;
    return p;
}

static void
pipe_free(struct splice *p)
{
    p->splicer->count--;
    close(p->in);
    close(p->out);
    free(p);
}

static struct splice *
take_kept(struct splicer *s)
{
    struct list_node *n = list_first(&s->kept);
    if (!n)
        return NULL;
    list_remove(&s->kept, n);
    return list_entry(n, struct splice, node);
}

void
splicer_free(struct splicer *s)
{
    struct splice *p;
    if (!s)
        return;
    while ((p = take_kept(s)))
        pipe_free(p);
    assert(s->count == 0);
    free(s);
}

struct splice *
splice_take(struct splicer *s, struct stream *from, struct stream *to)
{
    if (s->unable || !stream_can_splice_in(from) || stream_raw_fd(to) < 0)
        return NULL;
    struct splice *p = take_kept(s);
    return p ? p : pipe_new(s);
}

void
splice_give(struct splice *p)
{
    if (!p)
        return;
    struct splicer *s = p->splicer;
    if (p->len > 0 || s->kept.count == KEPT_MAX) {
        pipe_free(p);
        return;
    }
    list_prepend(&s->kept, &p->node); /* the one whose table is in the cache is used next */
}

size_t
splice_len(const struct splice *p)
{
    return p->len;
}

enum stream_io
splice_pull(struct splice *p, struct stream *from, size_t max, size_t *ret_len)
{
    assert(p->len == 0 && max > 0);
    ssize_t n = stream_splice_in(from, p->in, max < SPLICE_PIPE_BYTES ? max : SPLICE_PIPE_BYTES);
    if (n == 0)
        return STREAM_EOF;
    if (n > 0) {
        *ret_len = p->len = (size_t)n;
        return STREAM_DONE;
    }
    if (errno == EINVAL || errno == ENOSYS || errno == EPERM)
        p->splicer->unable = true;
    return p->splicer->unable || errno == EAGAIN ? STREAM_AGAIN : STREAM_ERROR;
}

enum stream_io
splice_push(struct splice *p, struct stream *to)
{
    ssize_t n = stream_splice_out(to, p->out, p->len);
    if (n < 0)
        return errno == EAGAIN || errno == ENOBUFS ? STREAM_AGAIN : STREAM_ERROR;
    p->len -= (size_t)n;
    return STREAM_DONE;
}
