/* Pipes over wires: one that fills and drains as the real one does, so that scenarios with bulk go this way too. Whoever
 * fills one that is not empty, or keeps one, has a fault. */
#include <stdlib.h>
#include <string.h>

#include "fakes/world.h"
#include "sallyport/base/mem.h"
#include "sallyport/net/splice.h"

struct splicer {
    size_t lent;
};

struct splice {
    struct splicer *splicer;
    struct buf bytes;
};

struct splicer *
splicer_new(void)
{
    world.live++;
    return mem_zalloc(sizeof(struct splicer));
}

void
splicer_free(struct splicer *s)
{
    if (s->lent)
        world_fault("%zu pipes were not given back", s->lent);
    world.live--;
    free(s);
}

struct splice *
splice_take(struct splicer *s, struct stream *from, struct stream *to)
{
    (void)from, (void)to;
    if (s->lent == SPLICE_PIPES_MAX)
        return NULL;
    struct splice *p = mem_zalloc(sizeof *p);
    p->splicer = s;
    buf_init(&p->bytes, SPLICE_PIPE_BYTES);
    s->lent++;
    return p;
}

void
splice_give(struct splice *p)
{
    if (!p)
        return;
    p->splicer->lent--;
    buf_done(&p->bytes);
    free(p);
}

size_t
splice_len(const struct splice *p)
{
    return buf_len(&p->bytes);
}

enum stream_io
splice_pull(struct splice *p, struct stream *from, size_t max, size_t *ret_len)
{
    size_t room = max < SPLICE_PIPE_BYTES ? max : SPLICE_PIPE_BYTES;
    if (buf_len(&p->bytes) > 0)
        world_fault("a pipe was filled that was not empty");
    enum stream_io io = stream_read(from, buf_reserve(&p->bytes, room), room, ret_len);
    if (io == STREAM_DONE)
        buf_commit(&p->bytes, *ret_len);
    return io;
}

enum stream_io
splice_push(struct splice *p, struct stream *to)
{
    size_t sent = 0;
    enum stream_io io = stream_write_slice(to, buf_slice(&p->bytes), &sent);
    if (io == STREAM_DONE)
        buf_consume(&p->bytes, sent);
    return io;
}
