/* Streams and listeners over wires. Readiness is told level-triggered, exactly when the product
 * wants it; TLS is not played here (the system tests do). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fakes/world.h"
#include "sallyport/base/mem.h"
#include "sallyport/net/doze.h"
#include "sallyport/net/listen.h"
#include "sallyport/net/stream.h"

#define WIRE_FD_FIRST 1000000
#define WIRE_BYTES_MAX (64u << 20)
#define BACKLOG_MAX 256
#define ACCEPT_BATCH 64 /* as net/listen.h says */
#define LISTENERS_MAX 8

struct stream {
    struct pollee pollee;
    struct wire *wire;
    stream_fn *on_event;
    void *owner;
    bool want_read, want_write;
    bool failed; /* a read has found the reset; STREAM_FAILED follows unless the stream is freed */
    bool told_failed;
    struct timer deadline;
};

struct listener {
    struct pollee pollee;
    int fd;
    bool paused;
    accept_fn *on_accept;
    void *owner;
};

/* The queue belongs to the socket, which outlives the listener. */
static struct queue {
    int fd;
    struct listener *listener;
    struct wire *waiting[BACKLOG_MAX];
    size_t count;
} queues[LISTENERS_MAX];
static size_t queue_count;

struct wire *
wire_new(bool upstream, const struct addr *peer, uint16_t port)
{
    if (world.wire_count == WORLD_WIRES_MAX) {
        fprintf(stderr, "scenario: more than %d connections\n", WORLD_WIRES_MAX);
        exit(2);
    }
    struct wire *w = mem_zalloc(sizeof *w);
    size_t n = upstream ? ++world.upstream_count : ++world.client_count;
    snprintf(w->name, sizeof w->name, "%c%zu", upstream ? 'u' : 'c', n);
    w->fd = WIRE_FD_FIRST + (int)world.wire_count;
    w->upstream = upstream;
    w->peer = *peer;
    w->peer_port = port;
    w->window = SIZE_MAX;
    buf_init(&w->to_product, WIRE_BYTES_MAX);
    buf_init(&w->from_product, WIRE_BYTES_MAX);
    world.wires[world.wire_count++] = w;
    return w;
}

struct wire *
wire_find(const char *name)
{
    for (size_t i = 0; i < world.wire_count; i++)
        if (strcmp(world.wires[i]->name, name) == 0)
            return world.wires[i];
    return NULL;
}

struct wire *
wire_by_fd(int fd)
{
    size_t i = (size_t)(fd - WIRE_FD_FIRST);
    return fd >= WIRE_FD_FIRST && i < world.wire_count ? world.wires[i] : NULL;
}

static bool
readable(const struct wire *w)
{
    return buf_len(&w->to_product) > 0 || w->fin_in || w->rst_in;
}

static bool
writable(const struct wire *w)
{
    return w->window > 0 || w->rst_in;
}

static bool
fire_failure(struct stream *s)
{
    bool early = world.fail_event && s->wire->rst_in && (s->want_read || s->want_write);
    if (s->told_failed || !(early || s->failed))
        return false;
    s->told_failed = true;
    s->on_event(s->owner, STREAM_FAILED);
    return true;
}

static bool
fire_stream(void *object)
{
    struct stream *s = object;
    bool any = false;
    if (fire_failure(s))
        return true;
    if (s->told_failed)
        return false; /* nothing more will come */
    if (s->want_read && readable(s->wire)) {
        any = true;
        s->on_event(s->owner, STREAM_READABLE);
    }
    if (!s->pollee.dead && s->want_write && writable(s->wire)) {
        any = true;
        s->on_event(s->owner, STREAM_WRITABLE);
    }
    return any;
}

struct stream *
stream_new(struct loop *loop, int fd, stream_fn *on_event, void *owner)
{
    (void)loop;
    struct wire *w = wire_by_fd(fd);
    if (!w || w->stream || w->closed) {
        fprintf(stderr, "scenario: stream_new on a descriptor that is not ours: %d\n", fd);
        abort();
    }
    struct stream *s = mem_zalloc(sizeof *s);
    s->wire = w;
    s->on_event = on_event;
    s->owner = owner;
    w->stream = s;
    pollee_add(&s->pollee, fire_stream, s);
    return s;
}

void
stream_free(struct stream *s)
{
    if (!s)
        return;
    timer_stop(&s->deadline);
    s->wire->stream = NULL;
    s->wire->fin_out = true;
    s->wire->closed = true;
    pollee_drop(&s->pollee, free);
}

void
stream_reset(struct stream *s)
{
    if (s)
        s->wire->reset = true;
    stream_free(s);
}

void
stream_set_owner(struct stream *s, stream_fn *on_event, void *owner)
{
    s->on_event = on_event;
    s->owner = owner;
}

void
stream_want(struct stream *s, bool want_read, bool want_write)
{
    s->want_read = want_read;
    s->want_write = want_write;
}

static size_t
at_most(size_t len)
{
    return world.read_max && len > world.read_max ? world.read_max : len;
}

enum stream_io
stream_read(struct stream *s, void *data, size_t size, size_t *ret_len)
{
    struct wire *w = s->wire;
    size_t have = buf_len(&w->to_product);
    if (s->pollee.dead)
        world_fault("%s: read after free", w->name);
    if (w->rst_in) {
        s->failed = true;
        return STREAM_ERROR;
    }
    if (size == 0) {
        world_fault("%s: read into no room", w->name);
        return STREAM_ERROR;
    }
    if (have == 0)
        return w->fin_in ? STREAM_EOF : STREAM_AGAIN;
    size_t n = at_most(have < size ? have : size);
    memcpy(data, buf_slice(&w->to_product).ptr, n);
    buf_consume(&w->to_product, n);
    *ret_len = n;
    return STREAM_DONE;
}

static void
note_first_byte(struct wire *w)
{
    if (w->sent_in_all == 0)
        effect_add(w->upstream ? EFFECT_UPSTREAM : EFFECT_CLIENT, w->name, 0, &w->peer);
}

enum stream_io
stream_write(struct stream *s, const struct iovec *iov, int count, size_t *ret_len)
{
    struct wire *w = s->wire;
    size_t done = 0;
    if (s->pollee.dead || w->fin_out)
        world_fault("%s: written to after it was shut down", w->name);
    if (w->rst_in)
        return STREAM_ERROR;
    for (int i = 0; i < count; i++) {
        size_t n = iov[i].iov_len < w->window ? iov[i].iov_len : w->window;
        n = world.read_max && n > world.read_max - done ? world.read_max - done : n;
        if (n == 0)
            continue;
        note_first_byte(w);
        buf_append(&w->from_product, iov[i].iov_base, n);
        w->sent_in_all += n;
        done += n;
        if (w->window != SIZE_MAX)
            w->window -= n;
        if (n < iov[i].iov_len)
            break;
    }
    if (done == 0)
        return STREAM_AGAIN;
    *ret_len = done;
    return STREAM_DONE;
}

enum stream_io
stream_write_slice(struct stream *s, struct slice data, size_t *ret_len)
{
    struct iovec iov = {(void *)(uintptr_t)data.ptr, data.len};
    return stream_write(s, &iov, 1, ret_len);
}

void
stream_shutdown_write(struct stream *s)
{
    s->wire->fin_out = true;
}

void
stream_accept_tls(struct stream *s, SSL_CTX *context, struct slice first)
{
    (void)context, (void)first;
    s->wire->rst_in = true;
}

void
stream_connect_tls(struct stream *s, SSL_CTX *context, const char *server_name)
{
    (void)context, (void)server_name;
    s->wire->rst_in = true;
}

void
stream_distrust_short_reads(struct stream *s)
{
    (void)s;
}

SSL *
stream_tls(struct stream *s)
{
    (void)s;
    return NULL;
}

int
stream_raw_fd(struct stream *s)
{
    (void)s;
    return -1; /* nothing to splice */
}

static void
deadline_passed(void *arg)
{
    struct stream *s = arg;
    s->on_event(s->owner, STREAM_TIMEOUT);
}

void
stream_set_deadline(struct stream *s, int64_t at_ms)
{
    timer_stop(&s->deadline);
    if (at_ms)
        timer_start(world.loop, &s->deadline, at_ms - world.mono_ms, deadline_passed, s);
}

void
stream_tune(struct stream *s)
{
    (void)s;
}

void
stream_no_delay(struct stream *s)
{
    (void)s;
}

void
stream_tune_listener(int fd)
{
    (void)fd;
}

void
doze_setup(void)
{
}

static struct queue *
queue_of(int fd)
{
    for (size_t i = 0; i < queue_count; i++)
        if (queues[i].fd == fd)
            return &queues[i];
    if (queue_count == LISTENERS_MAX)
        abort();
    queues[queue_count] = (struct queue){.fd = fd};
    return &queues[queue_count++];
}

static bool
fire_listener(void *object)
{
    struct listener *ln = object;
    struct queue *q = queue_of(ln->fd);
    bool any = false;
    for (int i = 0; i < ACCEPT_BATCH && q->count > 0 && !ln->paused && !ln->pollee.dead; i++) {
        struct wire *w = q->waiting[0];
        memmove(q->waiting, q->waiting + 1, --q->count * sizeof q->waiting[0]);
        any = true;
        struct sockaddr_storage from = {0};
        addr_to_sockaddr(&w->peer, w->peer_port, &from);
        ln->on_accept(ln->owner, w->fd, (struct sockaddr *)&from);
        if (!w->stream)
            w->fin_out = w->closed = true; /* the product closed the descriptor at once */
    }
    return any;
}

struct listener *
listener_new(struct loop *l, int fd, bool exclusive, accept_fn *on_accept, void *owner)
{
    (void)l, (void)exclusive;
    struct listener *ln = mem_zalloc(sizeof *ln);
    ln->fd = fd;
    ln->on_accept = on_accept;
    ln->owner = owner;
    queue_of(fd)->listener = ln;
    pollee_add(&ln->pollee, fire_listener, ln);
    return ln;
}

void
listener_pause(struct listener *ln)
{
    ln->paused = true;
}

void
listener_resume(struct listener *ln)
{
    ln->paused = false;
}

bool
listener_starved(const struct listener *ln)
{
    (void)ln;
    return false;
}

void
listener_free(struct listener *ln)
{
    if (!ln)
        return;
    queue_of(ln->fd)->listener = NULL;
    pollee_drop(&ln->pollee, free);
}

bool
world_connect(int listener_fd, struct wire *client)
{
    struct queue *q = queue_of(listener_fd);
    if (q->count == BACKLOG_MAX)
        return false;
    q->waiting[q->count++] = client;
    return true;
}

void
listeners_reset(void)
{
    queue_count = 0;
}
