/* A tunnel: bytes both ways between the client and the upstream. Its first flight is looked at (TLS hello, or the head of a
 * plain request) before one byte of it goes up. Reads go through the worker's scratch memory, bulk through a pipe of the
 * worker's; a side has a buffer or a pipe of its own only while the other side is slow. */
#include "sallyport/proxy/tunnel.h"

#include "sallyport/base/arena.h"
#include "sallyport/base/mem.h"
#include "sallyport/http/status.h"
#include "sallyport/net/splice.h"
#include "sallyport/tls/hello.h"

/* Bytes that one direction may move before others get their turn. Spliced bytes cost a third, and less the more go at once:
 * fewer turns, and fewer wake-ups of both peers. */
#define QUOTA 262144
#define BULK_QUOTA (8 * SPLICE_PIPE_BYTES)
/* A direction is spliced once it has filled the scratch memory this often, and copied again after as many short reads as it
 * takes to count back: for few bytes a pipe costs more calls than it saves. */
#define BULK_FROM 2
#define BULK_MAX 4
#define BULK_SHORT 16384

/* How the client's first bytes are judged: by the port of the target. */
enum peek { PEEK_DONE = 0, PEEK_TLS, PEEK_PLAIN, PEEK_OPAQUE };

/* Most tunnels idle: what is in these two structs is what one costs then. */
struct side {
    struct stream *stream;
    struct buf *held;    /* read from this side, not yet written to the other; NULL: nothing, or it is in the pipe */
    struct splice *pipe; /* NULL while nothing is in it */
    bool eof;            /* this side has sent its last byte */
    bool shut;           /* and the other side was told */
    uint8_t bulk;        /* how often it has lately had more than the scratch memory holds: 0 to BULK_MAX */
};

struct tunnel {
    struct exchange *x;
    struct side client, server;
    struct head_scan *scan; /* PEEK_PLAIN, NULL otherwise */
    enum peek peek : 8;
    enum reason refused : 8; /* a reply that says so is on its way to the client; then it ends */
    bool over;
};

static void on_client(void *owner, enum stream_event event);
static void on_server(void *owner, enum stream_event event);

static void
finish(struct tunnel *t, const char *cause)
{
    if (t->over)
        return;
    if (t->refused) /* however the refused tunnel ends, it ends refused */
        exchange_deny_in_tunnel(t->x, t->refused);
    else
        exchange_finish(t->x, cause);
}

/* One side broke off: the other must not take that for an orderly end. */
static void
abort_tunnel(struct tunnel *t, bool by_client)
{
    struct side *other = by_client ? &t->server : &t->client;
    if (t->over)
        return;
    stream_reset(steal(&other->stream));
    finish(t, by_client ? "client_reset" : "upstream_reset");
}

/* ---- what is under way ---- */

static struct slice
held_bytes(const struct side *from)
{
    return from->held ? buf_slice(from->held) : slice_of(NULL, 0);
}

static struct buf *
hold(struct side *from)
{
    if (!from->held) {
        from->held = mem_alloc(sizeof *from->held);
        buf_init(from->held, TUNNEL_BUFFER_MAX);
    }
    return from->held;
}

static void
drop_held(struct side *from)
{
    if (!from->held)
        return;
    buf_done(from->held);
    free(steal(&from->held));
}

static bool
is_blocked(const struct side *from)
{
    return from->pipe || held_bytes(from).len > 0;
}

static void
update_interest(struct tunnel *t)
{
    bool up_blocked = is_blocked(&t->client) && t->peek == PEEK_DONE, down_blocked = is_blocked(&t->server);
    bool read_client = !t->client.eof && (t->peek != PEEK_DONE || !up_blocked);
    bool read_server = !t->server.eof && !down_blocked && (t->peek == PEEK_DONE || t->peek == PEEK_OPAQUE);
    stream_want(t->client.stream, read_client, down_blocked);
    stream_want(t->server.stream, read_server, up_blocked);
}

static bool
count(struct tunnel *t, bool up, size_t n)
{
    return exchange_count(t->x, up ? n : 0, up ? 0 : n);
}

/* False when a write has ended the tunnel. */
static bool
survives(struct tunnel *t, const struct side *to, enum stream_io written)
{
    if (written == STREAM_DONE || written == STREAM_AGAIN)
        return true;
    abort_tunnel(t, to == &t->client);
    return false;
}

static bool
push(struct tunnel *t, struct side *from, struct side *to)
{
    exchange_stir(t->x);
    return survives(t, to, splice_push(from->pipe, to->stream));
}

static void
give_back_if_empty(struct side *from)
{
    if (splice_len(from->pipe) == 0)
        splice_give(steal(&from->pipe));
}

/* Writes what is held, once: what is left waits for room. False when the tunnel has ended. */
static bool
flush(struct tunnel *t, struct side *from, struct side *to)
{
    size_t sent = 0;
    if (from->pipe) {
        if (!push(t, from, to))
            return false;
        give_back_if_empty(from);
        return true;
    }
    if (!from->held)
        return true;
    if (!survives(t, to, stream_write_slice(to->stream, held_bytes(from), &sent)))
        return false;
    buf_consume(from->held, sent);
    if (buf_len(from->held) == 0)
        drop_held(from);
    return true;
}

/* Passes on bytes that stand in the scratch memory; what does not fit is held. */
static bool
pass(struct tunnel *t, struct side *from, struct side *to, struct slice bytes)
{
    size_t sent = 0;
    if (!survives(t, to, stream_write_slice(to->stream, bytes, &sent)))
        return false;
    if (sent < bytes.len && !buf_append_slice(hold(from), slice_of(bytes.ptr + sent, bytes.len - sent))) {
        finish(t, "internal"); /* cannot be: a held side is not read from */
        return false;
    }
    return count(t, from == &t->client, bytes.len);
}

static void
learn(struct side *from, size_t got)
{
    if (got >= PROXY_SCRATCH && from->bulk < BULK_MAX)
        from->bulk++;
    else if (got < BULK_SHORT && from->bulk > 0)
        from->bulk--;
}

/* What a read has brought that did not bring bytes. False when the tunnel has ended. */
static bool
note_end(struct tunnel *t, struct side *from, enum stream_io io)
{
    if (io == STREAM_ERROR) {
        abort_tunnel(t, from == &t->client);
        return false;
    }
    from->eof = io == STREAM_EOF;
    return true;
}

/* Through the pipe until it runs dry, or blocks. Counted before it goes on: what a budget does not cover stays in the pipe. */
static bool
splice_bulk(struct tunnel *t, struct side *from, struct side *to)
{
    bool up = from == &t->client;
    size_t moved = 0, got = PROXY_SCRATCH, most = up ? exchange_burst(t->x) : SPLICE_PIPE_BYTES;
    enum stream_io io = STREAM_DONE;
    while (got >= PROXY_SCRATCH && splice_len(from->pipe) == 0 && moved < BULK_QUOTA) {
        got = 0;
        io = splice_pull(from->pipe, from->stream, most, &got);
        if (io != STREAM_DONE)
            break;
        learn(from, got);
        if (!count(t, up, got) || !push(t, from, to))
            return false;
        moved += got;
    }
    give_back_if_empty(from);
    return io == STREAM_DONE || note_end(t, from, io);
}

/* Until a read is short: the loop tells when there is more, or an end. */
static bool
copy(struct tunnel *t, struct side *from, struct side *to)
{
    char *scratch = t->x->proxy->scratch;
    size_t moved = 0, got = PROXY_SCRATCH;
    while (got == PROXY_SCRATCH && !is_blocked(from) && moved < QUOTA) {
        got = 0;
        enum stream_io io = stream_read(from->stream, scratch, PROXY_SCRATCH, &got);
        if (io != STREAM_DONE)
            return note_end(t, from, io);
        learn(from, got);
        if (!pass(t, from, to, slice_of(scratch, got)))
            return false;
        moved += got;
    }
    return true;
}

/* Reads from one side, and writes to the other at once. False when the tunnel has ended. */
static bool
move(struct tunnel *t, struct side *from, struct side *to)
{
    if (from->bulk >= BULK_FROM)
        from->pipe = splice_take(t->x->proxy->splicer, from->stream, to->stream);
    return from->pipe ? splice_bulk(t, from, to) : copy(t, from, to);
}

/* An orderly end travels on once everything before it has. The second one is said by closing, which TLS cannot. */
static void
shut_if_done(struct side *from, struct side *to)
{
    if (from->eof && !from->shut && !is_blocked(from)) {
        from->shut = true;
        if (!to->shut || stream_tls(to->stream))
            stream_shutdown_write(to->stream);
    }
}

/* After bytes or an end have moved: it is over, or goes on waiting. */
static void
settle(struct tunnel *t, struct side *from, struct side *to)
{
    shut_if_done(from, to);
    if (t->client.shut && t->server.shut)
        finish(t, from == &t->client ? "client_closed" : "upstream_closed");
    else
        update_interest(t);
}

static void
pump(struct tunnel *t, struct side *from, struct side *to)
{
    if (!flush(t, from, to))
        return;
    if (!from->eof && !is_blocked(from) && !move(t, from, to))
        return;
    settle(t, from, to);
}

/* ---- the first flight ---- */

static void
begin_relay(struct tunnel *t)
{
    struct exchange *x = t->x;
    t->peek = PEEK_DONE;
    free(steal(&t->scan));
    stream_set_deadline(t->client.stream, 0);
    exchange_enter(x, EXCHANGE_RELAYING);
    if (t->client.held && !count(t, true, buf_len(t->client.held)))
        return;
    /* What either side has said since, the loop tells. */
    if (flush(t, &t->client, &t->server))
        settle(t, &t->client, &t->server);
}

static void
deny(struct tunnel *t, enum reason reason)
{
    exchange_deny_in_tunnel(t->x, reason);
}

static void
send_refusal(struct tunnel *t)
{
    if (!flush(t, &t->server, &t->client))
        return;
    if (t->server.held) {
        stream_want(t->client.stream, false, true);
        stream_want(t->server.stream, false, false);
        return;
    }
    stream_shutdown_write(t->client.stream);
    deny(t, t->refused);
}

/* Inside a plain tunnel HTTP is spoken, so a refusal can be said in it. */
static void
deny_plain(struct tunnel *t, enum reason reason)
{
    struct target target;
    char id[ULID_TEXT_SIZE];
    exchange_target(t->x, &target);
    ulid_format(&t->x->id, id);
    struct reply_facts facts = {.reason = reason, .target = &target, .instance = id, .close = true};
    t->refused = reason;
    drop_held(&t->client);
    t->client.eof = true;
    if (!reply_write(hold(&t->server), &facts))
        deny(t, reason);
    else
        send_refusal(t);
}

enum reason
tunnel_check_hello(struct exchange *x, const struct hello *hello)
{
    struct host named;
    struct target target;
    exchange_target(x, &target);
    if (hello->has_ech && snapshot_settings(x->snapshot)->ech_refuse)
        return REASON_ECH_REFUSED;
    if (!hello->has_sni)
        return target.host.kind == HOST_NAME ? REASON_SNI_MISSING : REASON_OK;
    x->named = true;
    if (!slice_is(host_slice(&target.host), hello->sni))
        x->sni = mem_strdup(hello->sni);
    if (!host_parse(slice_str(hello->sni), &named) || !host_equal(&named, &target.host))
        return REASON_SNI_MISMATCH;
    return REASON_OK;
}

static void
peek_hello(struct tunnel *t)
{
    struct hello hello;
    enum reason r = REASON_OK;
    switch (hello_read(held_bytes(&t->client), &hello)) {
    case HELLO_MORE:
        if (t->peek == PEEK_OPAQUE && !t->client.held)
            begin_relay(t); /* nothing to say, but it may want to listen */
        else if (t->client.eof)
            finish(t, "client_closed");
        else if (t->client.held && buf_room(t->client.held) == 0)
            deny(t, REASON_NOT_TLS);
        return;
    case HELLO_NOT_TLS:
        r = t->peek == PEEK_OPAQUE ? REASON_OK : REASON_NOT_TLS;
        break;
    case HELLO_MALFORMED:
        r = REASON_NOT_TLS;
        break;
    case HELLO_COMPLETE:
        r = tunnel_check_hello(t->x, &hello);
        break;
    }
    if (r != REASON_OK)
        deny(t, r);
    else
        begin_relay(t);
}

/* The request names its host twice at most, in its target and in Host: both must be the tunnel's. */
static enum reason
check_plain_head(struct exchange *x, const struct head *head)
{
    struct target outer, inner;
    struct slice path;
    size_t hosts = 0;
    exchange_target(x, &outer);
    struct slice host = head_field(head, "Host", &hosts);
    if (slice_is(head->method, "CONNECT"))
        return REASON_REQUEST_MALFORMED;
    if (!slice_starts_with(head->target, "/") && !slice_is(head->target, "*")) {
        enum reason r = target_from_uri(head->target, &inner, &path);
        if (r != REASON_OK)
            return r;
        if (!host_equal(&inner.host, &outer.host) || inner.port != outer.port)
            return REASON_HOST_MISMATCH;
    }
    return hosts ? target_check_host_field(&outer, host) : REASON_OK;
}

static void
peek_plain(struct tunnel *t)
{
    struct slice bytes = held_bytes(&t->client);
    enum reason r = REASON_OK;
    if (!t->scan)
        t->scan = mem_zalloc(sizeof *t->scan);
    switch (head_scan(t->scan, bytes, (size_t)snapshot_settings(t->x->snapshot)->head_bytes)) {
    case HEAD_SCAN_MORE:
        if (t->client.eof)
            finish(t, "client_closed");
        else if (t->client.held && buf_room(t->client.held) == 0)
            deny_plain(t, REASON_REQUEST_TOO_LARGE);
        return;
    case HEAD_SCAN_MALFORMED:
        r = REASON_REQUEST_MALFORMED;
        break;
    case HEAD_SCAN_TOO_LARGE:
        r = REASON_REQUEST_TOO_LARGE;
        break;
    case HEAD_SCAN_COMPLETE: {
        struct head head;
        struct arena *arena = arena_new(ARENA_USUAL);
        r = head_parse_request(arena, slice_of(bytes.ptr + t->scan->start, t->scan->end - t->scan->start), &head);
        if (r == REASON_OK)
            r = check_plain_head(t->x, &head);
        arena_free(arena);
        break;
    }
    }
    if (r != REASON_OK)
        deny_plain(t, r);
    else
        begin_relay(t);
}

/* Called when bytes or the end came from a client whose first flight is still looked at. */
static void
peek(struct tunnel *t)
{
    if (t->peek == PEEK_PLAIN)
        peek_plain(t);
    else if (t->client.held || t->client.eof)
        peek_hello(t);
}

static void
read_first_flight(struct tunnel *t)
{
    struct buf *held = hold(&t->client);
    char *scratch = t->x->proxy->scratch;
    size_t got = 0, room = 0;
    /* A short read was all there is: the loop tells when there is more, or an end. */
    while (got == room && !t->client.eof && (room = buf_room(held)) > 0) {
        room = room < PROXY_SCRATCH ? room : PROXY_SCRATCH;
        got = 0;
        enum stream_io io = stream_read(t->client.stream, scratch, room, &got);
        if (io == STREAM_AGAIN)
            break;
        if (io == STREAM_ERROR) {
            abort_tunnel(t, true);
            return;
        }
        t->client.eof = io == STREAM_EOF;
        buf_append(held, scratch, got);
    }
    if (buf_len(held) == 0)
        drop_held(&t->client);
    peek(t);
    if (!t->over && !t->refused)
        update_interest(t);
}

/* ---- events ---- */

static void
on_client(void *owner, enum stream_event event)
{
    struct tunnel *t = owner;
    switch (event) {
    case STREAM_READABLE:
        if (t->refused)
            break;
        if (t->peek != PEEK_DONE)
            read_first_flight(t);
        else
            pump(t, &t->client, &t->server);
        break;
    case STREAM_WRITABLE:
        if (t->refused)
            send_refusal(t);
        else
            pump(t, &t->server, &t->client);
        break;
    case STREAM_FAILED:
        abort_tunnel(t, true);
        break;
    case STREAM_TIMEOUT:
        finish(t, "first_flight_timeout");
        break;
    case STREAM_SECURED:
        break;
    }
}

static void
on_server(void *owner, enum stream_event event)
{
    struct tunnel *t = owner;
    switch (event) {
    case STREAM_READABLE:
        pump(t, &t->server, &t->client);
        break;
    case STREAM_WRITABLE:
        if (t->peek == PEEK_DONE) /* nothing goes up before it has been looked at */
            pump(t, &t->client, &t->server);
        break;
    case STREAM_FAILED:
        abort_tunnel(t, false);
        break;
    case STREAM_TIMEOUT:
    case STREAM_SECURED:
        break;
    }
}

/* ---- beginning and end ---- */

static enum peek
peek_for(const struct exchange *x)
{
    const struct settings *set = snapshot_settings(x->snapshot);
    if (has_port(set->tls_ports, set->tls_port_count, exchange_port(x)))
        return PEEK_TLS;
    if (has_port(set->plain_ports, set->plain_port_count, exchange_port(x)))
        return PEEK_PLAIN;
    return PEEK_OPAQUE;
}

static struct tunnel *
tunnel_new(struct exchange *x, struct stream *client, struct buf *from_client)
{
    struct tunnel *t = mem_zalloc(sizeof *t);
    t->x = x;
    t->client.stream = client;
    if (buf_len(from_client)) {
        *hold(&t->client) = *from_client;
        /* limits.head_bytes may have let more come behind the head; then it is full. */
        t->client.held->cap = buf_len(from_client) > TUNNEL_BUFFER_MAX ? buf_len(from_client) : TUNNEL_BUFFER_MAX;
    } else {
        buf_done(from_client);
    }
    buf_init(from_client, 0);
    t->server.stream = steal(&x->upstream);
    stream_set_owner(t->client.stream, on_client, t);
    stream_set_owner(t->server.stream, on_server, t);
    x->tunnel = t;
    exchange_forget_ask(x); /* an idle tunnel keeps nothing of it */
    return t;
}

void
tunnel_start(struct exchange *x, struct stream *client, struct buf *from_client, struct slice to_client)
{
    struct tunnel *t = tunnel_new(x, client, from_client);
    t->peek = peek_for(x);
    exchange_enter(x, EXCHANGE_PEEKING);
    if (to_client.len)
        buf_append_slice(hold(&t->server), to_client);
    if (!flush(t, &t->server, &t->client))
        return;
    /* Where the client must speak first it has as long as for a head; elsewhere the server may. */
    if (t->peek != PEEK_OPAQUE)
        stream_set_deadline(client, loop_now_ms(x->proxy->loop) + snapshot_settings(x->snapshot)->head_timeout_ms);
    if (t->client.held)
        peek(t);
    if (!t->over && !t->refused)
        update_interest(t);
}

void
tunnel_start_upgraded(struct exchange *x, struct stream *client, struct buf *from_client, struct buf *to_client, struct buf *from_upstream)
{
    struct tunnel *t = tunnel_new(x, client, from_client);
    exchange_enter(x, EXCHANGE_RELAYING);
    if (buf_len(to_client) + buf_len(from_upstream)) {
        buf_append_slice(hold(&t->server), buf_slice(to_client));
        buf_append_slice(hold(&t->server), buf_slice(from_upstream));
    }
    if (t->client.held && !count(t, true, buf_len(t->client.held)))
        return;
    pump(t, &t->server, &t->client);
    if (!t->over)
        pump(t, &t->client, &t->server);
}

void
tunnel_tune(struct tunnel *t)
{
    stream_tune(t->server.stream);
}

static void
free_memory(void *ptr)
{
    struct tunnel *t = ptr;
    drop_held(&t->client);
    drop_held(&t->server);
    free(t->scan);
    free(t);
}

void
tunnel_free(struct tunnel *t)
{
    if (!t)
        return;
    t->over = true;
    splice_give(steal(&t->client.pipe));
    splice_give(steal(&t->server.pipe));
    stream_free(steal(&t->client.stream));
    stream_free(steal(&t->server.stream));
    loop_free_later(t->x->proxy->loop, t, free_memory);
}
