/* One accepted connection: what comes before a request (PROXY protocol, TLS), the head, and the proxy's own replies.
 * What a request means is exchange.c's. */
#include "sallyport/proxy/client.h"

#include <unistd.h>

#include "sallyport/base/mem.h"
#include "sallyport/proxy/exchange.h"
#include "sallyport/proxy/forward.h"
#include "sallyport/proxy/inspect.h"
#include "sallyport/proxy/preface.h"
#include "sallyport/proxy/transparent.h"
#include "sallyport/tls/context.h"

#define LINGER_MS 2000
#define LINGER_BYTES_MAX (256u << 10) /* of what a refused client still sends; more is not read */
#define REPLY_MAX 65536
#define READ_SIZE 16384 /* a read goes into scratch memory, so that a connection that says little holds little */
_Static_assert(READ_SIZE <= PROXY_SCRATCH, "a read fits");

static void on_event(void *owner, enum stream_event event);
static void read_head(struct client *c);

static const struct settings *
settings_of(const struct client *c)
{
    return snapshot_settings(c->proxy->snapshot);
}

static void
set_deadline(struct client *c, int64_t delay_ms)
{
    stream_set_deadline(c->stream, delay_ms ? loop_now_ms(c->proxy->loop) + delay_ms : 0);
}

static void
enter(struct client *c, enum client_state next)
{
    c->state = next;
}

static void
begin_heads(struct client *c)
{
    if (c->port->settings->kind == LISTENER_TRANSPARENT) {
        enter(c, CLIENT_FIRST_FLIGHT);
        transparent_begin(c);
        return;
    }
    enter(c, CLIENT_READ_HEAD);
    set_deadline(c, settings_of(c)->head_timeout_ms);
    stream_want(c->stream, true, false);
    if (buf_len(&c->in))
        read_head(c);
}

static void
begin_tls_or_heads(struct client *c)
{
    if (!c->port->tls) {
        begin_heads(c);
        return;
    }
    enter(c, CLIENT_HANDSHAKE);
    set_deadline(c, settings_of(c)->head_timeout_ms);
    stream_accept_tls(c->stream, c->port->tls, buf_slice(&c->in));
    buf_clear(&c->in);
}

void
client_accept(struct port *port, int fd, const struct sockaddr *from)
{
    struct client *c = mem_zalloc(sizeof *c);
    c->proxy = port->proxy;
    c->port = port;
    c->stream = stream_new(c->proxy->loop, fd, on_event, c);
    if (!addr_from_sockaddr(from, &c->peer, &c->peer_port))
        stream_distrust_short_reads(c->stream); /* a unix socket */
    buf_init(&c->in, (size_t)settings_of(c)->head_bytes + 4);
    buf_init(&c->out, REPLY_MAX);
    list_append(&c->proxy->clients, &c->node);
    if (port->settings->proxy_protocol) {
        enter(c, CLIENT_PREFACE);
        set_deadline(c, settings_of(c)->head_timeout_ms);
        stream_want(c->stream, true, false);
    } else {
        begin_tls_or_heads(c);
    }
}

struct client *
client_new_inside(struct inspection *i, struct exchange *tunnel, struct stream *stream)
{
    struct client *c = mem_zalloc(sizeof *c);
    c->proxy = tunnel->proxy;
    c->port = tunnel->port;
    c->inside = i;
    c->stream = stream;
    c->peer = tunnel->peer;
    c->peer_port = tunnel->peer_port;
    c->x5t = tunnel->x5t ? mem_strdup(tunnel->x5t) : NULL;
    buf_init(&c->in, (size_t)settings_of(c)->head_bytes + 4);
    buf_init(&c->out, REPLY_MAX);
    list_append(&c->proxy->clients, &c->node);
    stream_set_owner(stream, on_event, c);
    enter(c, CLIENT_READ_HEAD);
    set_deadline(c, settings_of(c)->idle_timeout_ms);
    stream_want(stream, true, false);
    return c;
}

static void
free_memory(void *ptr)
{
    struct client *c = ptr;
    buf_done(&c->in);
    buf_done(&c->out);
    free(c->x5t);
    free(c);
}

void
client_free(struct client *c)
{
    if (c->state == CLIENT_GONE)
        return;
    enter(c, CLIENT_GONE);
    stream_free(steal(&c->stream));
    list_remove(&c->proxy->clients, &c->node);
    if (c->inside)
        inspect_client_gone(steal(&c->inside));
    loop_free_later(c->proxy->loop, c, free_memory);
    proxy_settle(c->proxy);
}

void
client_close(struct client *c)
{
    if (c->exchange)
        exchange_client_gone(c->exchange);
    client_free(c);
}

struct stream *
client_take(struct client *c, struct buf *ret_in)
{
    struct stream *s = steal(&c->stream);
    if (c->inside)
        inspect_detach(steal(&c->inside));
    *ret_in = c->in;
    buf_init(&c->in, 0);
    /* Counted before the client is gone, so that accepting does not go on for a moment too many. */
    c->exchange->detached = true;
    c->proxy->tunnels++;
    c->exchange = NULL;
    client_free(c);
    return s;
}

bool
client_fill(struct client *c)
{
    while (!c->eof && buf_room(&c->in) > 0) {
        size_t room = buf_room(&c->in) < READ_SIZE ? buf_room(&c->in) : READ_SIZE, got = 0;
        switch (stream_read(c->stream, c->proxy->scratch, room, &got)) {
        case STREAM_DONE:
            buf_append(&c->in, c->proxy->scratch, got);
            if (got < room)
                return true; /* a short read: the next would find nothing, and the loop tells when there is more */
            break;
        case STREAM_AGAIN:
            return true;
        case STREAM_EOF:
            c->eof = true;
            break;
        case STREAM_ERROR:
            return false;
        }
    }
    return true;
}

/* A head that is over the cap or not HTTP: refused before anything is known about who asks. */
static void
refuse_head(struct client *c, enum reason reason)
{
    exchange_start_refused(c, buf_slice(&c->in), reason);
}

static void
read_head(struct client *c)
{
    struct slice bytes = buf_slice(&c->in);
    switch (head_scan(&c->scan, bytes, (size_t)settings_of(c)->head_bytes)) {
    case HEAD_SCAN_MALFORMED:
        refuse_head(c, REASON_REQUEST_MALFORMED);
        return;
    case HEAD_SCAN_TOO_LARGE:
        refuse_head(c, REASON_REQUEST_TOO_LARGE);
        return;
    case HEAD_SCAN_MORE:
        if (c->eof)
            client_free(c);
        else
            stream_want(c->stream, true, false);
        return;
    case HEAD_SCAN_COMPLETE:
        break;
    }
    set_deadline(c, 0);
    enter(c, CLIENT_EXCHANGE);
    c->requests++;
    struct slice head = slice_of(bytes.ptr + c->scan.start, c->scan.end - c->scan.start);
    size_t used = c->scan.end;
    c->scan = (struct head_scan){0};
    /* The exchange copies the head before it looks at what follows it. */
    c->in.start += used;
    exchange_start(c, head);
}

static void
read_preface(struct client *c)
{
    size_t used = 0;
    switch (preface_read(buf_slice(&c->in), &c->peer, &c->peer_port, &used)) {
    case PREFACE_MALFORMED:
        client_free(c); /* whoever is there is not the balancer: nothing is said to it */
        return;
    case PREFACE_MORE:
        if (c->eof)
            client_free(c);
        return;
    case PREFACE_COMPLETE:
        break;
    }
    buf_consume(&c->in, used);
    begin_tls_or_heads(c);
}

static void
on_secured(struct client *c)
{
    char x5t[44];
    if (tls_peer_x5t(stream_tls(c->stream), x5t))
        c->x5t = mem_strdup(x5t);
    begin_heads(c);
}

static void flush_reply(struct client *c);

void
client_refuse(struct client *c, struct slice bytes)
{
    c->exchange = NULL;
    enter(c, CLIENT_REPLYING);
    set_deadline(c, LINGER_MS);
    buf_append_slice(&c->out, bytes);
    flush_reply(c);
}

static void
linger(struct client *c)
{
    enter(c, CLIENT_LINGER);
    stream_shutdown_write(c->stream);
    set_deadline(c, LINGER_MS);
    stream_want(c->stream, !c->eof, false);
    if (c->eof)
        client_free(c);
}

void
client_end(struct client *c)
{
    c->exchange = NULL;
    linger(c);
}

static void
flush_reply(struct client *c)
{
    while (buf_len(&c->out)) {
        size_t sent = 0;
        switch (stream_write_slice(c->stream, buf_slice(&c->out), &sent)) {
        case STREAM_DONE:
            buf_consume(&c->out, sent);
            break;
        case STREAM_AGAIN:
            stream_want(c->stream, false, true);
            return;
        case STREAM_EOF:
        case STREAM_ERROR:
            client_free(c);
            return;
        }
    }
    linger(c);
}

void
client_reply(struct client *c, const struct reply_facts *facts)
{
    c->exchange = NULL;
    enter(c, CLIENT_REPLYING);
    set_deadline(c, LINGER_MS);
    if (!reply_write(&c->out, facts)) {
        client_free(c);
        return;
    }
    flush_reply(c);
}

void
client_next(struct client *c)
{
    c->exchange = NULL;
    if (c->proxy->draining) {
        client_end(c); /* in order: the tail of the answer may still be on its way */
        return;
    }
    enter(c, CLIENT_READ_HEAD);
    buf_release(&c->in);
    buf_release(&c->out);
    set_deadline(c, buf_len(&c->in) ? settings_of(c)->head_timeout_ms : settings_of(c)->idle_timeout_ms);
    if (buf_len(&c->in)) {
        read_head(c);
        return;
    }
    if (c->eof)
        client_free(c);
    else
        stream_want(c->stream, true, false);
}

/* Thrown away, so that the kernel does not answer it with a reset that would overtake our reply. */
static void
discard(struct client *c)
{
    while (c->lingered <= LINGER_BYTES_MAX) {
        size_t got = 0;
        enum stream_io io = stream_read(c->stream, c->proxy->scratch, PROXY_SCRATCH, &got);
        c->lingered += got;
        if (io == STREAM_AGAIN)
            return;
        if (io != STREAM_DONE) {
            client_free(c);
            return;
        }
    }
    /* A reset now could overtake the reply after all, in clients that mind a failed write before they read: full
     * windows hold them until they have read it, or until the time is over. */
    stream_want(c->stream, false, false);
}

static void
on_readable(struct client *c)
{
    bool first = c->state == CLIENT_READ_HEAD && buf_len(&c->in) == 0;
    if (!client_fill(c)) {
        client_close(c);
        return;
    }
    if (c->state == CLIENT_PREFACE) {
        read_preface(c);
    } else if (c->state == CLIENT_FIRST_FLIGHT) {
        transparent_continue(c, false);
    } else if (c->state == CLIENT_READ_HEAD) {
        /* On a kept connection the clock of a head starts with its first byte. */
        if (first && c->requests > 0)
            set_deadline(c, settings_of(c)->head_timeout_ms);
        read_head(c);
    } else if (c->eof || buf_room(&c->in) == 0) {
        stream_want(c->stream, false, false); /* an exchange is waiting: what came is for later */
    }
}

static void
on_timeout(struct client *c)
{
    bool began = buf_len(&c->in) > 0;
    if (c->state == CLIENT_READ_HEAD && began)
        refuse_head(c, REASON_REQUEST_TIMEOUT);
    else if (c->state == CLIENT_FIRST_FLIGHT)
        transparent_continue(c, true);
    else
        client_close(c);
}

static void
on_event(void *owner, enum stream_event event)
{
    struct client *c = owner;
    if (c->state == CLIENT_EXCHANGE && c->exchange && c->exchange->forward) {
        forward_client_event(c->exchange->forward, event);
        return;
    }
    switch (event) {
    case STREAM_READABLE:
        if (c->state == CLIENT_LINGER)
            discard(c);
        else
            on_readable(c);
        break;
    case STREAM_WRITABLE:
        if (c->state == CLIENT_REPLYING)
            flush_reply(c);
        break;
    case STREAM_SECURED:
        on_secured(c);
        break;
    case STREAM_FAILED:
        client_close(c);
        break;
    case STREAM_TIMEOUT:
        on_timeout(c);
        break;
    }
}
