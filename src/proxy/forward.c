/* Plain HTTP/1.x through the gate: the request is re-framed and re-written for the upstream, the answer likewise for the
 * client. One function, step(), moves whatever can move after any event; there are no other sequences. */
#include "sallyport/proxy/forward.h"

#include "sallyport/base/arena.h"
#include "sallyport/base/mem.h"
#include "sallyport/http/body.h"
#include "sallyport/http/fields.h"
#include "sallyport/http/websocket.h"
#include "sallyport/proxy/inspect.h"
#include "sallyport/proxy/parent.h"
#include "sallyport/proxy/pool.h"
#include "sallyport/proxy/request.h"
#include "sallyport/proxy/tunnel.h"

#define FORWARD_BUFFER 65536   /* bytes under way in one direction */
#define FORWARD_HEAD_MAX 49152 /* of an answer; room for one more read stays above it */
#define FORWARD_RUN 16384      /* bytes of body handled at a time */
#define FORWARD_INTERIM_MAX 16 /* 1xx answers to one request */
#define FORWARD_ROUNDS 8       /* reads of the upstream before others get their turn */
#define VIA "sallyport"

struct forward {
    struct exchange *x;
    struct client *client;
    struct stream *upstream;           /* x->upstream */
    struct buf up_out, up_in;
    struct body_reader *request_body;
    bool request_done;                 /* all of it is in up_out or gone */
    bool up_broken;                    /* writing up failed; the answer may still be there */
    bool up_eof, up_heard;             /* heard: at least one byte came */
    struct head_scan scan;
    struct arena *arena;               /* of the response head */
    struct head response;
    bool answered;                     /* the final head has been written to the client */
    struct body_reader *response_body;
    enum body_kind response_kind;      /* as the client gets it */
    bool response_done;
    bool client_stays;                 /* the client's connection may carry another request */
    unsigned interim;
    bool over;
};

static void step(struct forward *f);

/* ---- ends ---- */

/* Ends the exchange because of `reason`; once the answer has begun nothing else can be said than by breaking off. */
static void
fail(struct forward *f, enum reason reason)
{
    struct exchange *x = f->x;
    struct client *c = f->client;
    if (f->over)
        return;
    if (!f->answered) {
        exchange_fail(x, reason, NULL);
        return;
    }
    x->reason = reason;
    exchange_finish(x, reason_text(reason));
    stream_reset(steal(&c->stream));
    client_free(c);
}

static void
client_failed(struct forward *f)
{
    struct client *c = f->client;
    exchange_finish(f->x, "client_aborted");
    client_free(c);
}

static bool
upstream_is_reusable(const struct forward *f)
{
    return f->request_done && !f->up_broken && !f->up_eof && f->response.persistent && buf_len(&f->up_in) == 0 &&
           buf_len(&f->up_out) == 0 && f->response.body != BODY_TO_EOF;
}

static void
complete(struct forward *f)
{
    struct exchange *x = f->x;
    struct client *c = f->client;
    bool stays = f->client_stays && f->request_done;
    if (x->inside) {
        if (upstream_is_reusable(f))
            inspect_return(x->inside, steal(&x->upstream));
        else
            stays = false;
    } else if (upstream_is_reusable(f) && snapshot_generation(x->snapshot) == snapshot_generation(x->proxy->snapshot))
        pool_put(x->proxy->pool, x, steal(&x->upstream));
    exchange_finish(x, "complete");
    if (stays)
        client_next(c);
    else
        client_end(c);
}

/* ---- request, upwards ---- */

static bool
is_safe_to_repeat(const struct exchange *x)
{
    return slice_is(x->ask->head.method, "GET") || slice_is(x->ask->head.method, "HEAD") || slice_is(x->ask->head.method, "OPTIONS");
}

static bool
flush_up(struct forward *f)
{
    while (buf_len(&f->up_out) && !f->up_broken) {
        size_t sent = 0;
        switch (stream_write_slice(f->upstream, buf_slice(&f->up_out), &sent)) {
        case STREAM_DONE:
            buf_consume(&f->up_out, sent);
            if (!exchange_count(f->x, sent, 0))
                return false;
            break;
        case STREAM_AGAIN:
            return true;
        case STREAM_EOF:
        case STREAM_ERROR:
            f->up_broken = true;
            break;
        }
    }
    buf_release(&f->up_out);
    return true;
}

/* One run of the body from the client's bytes to up_out. False: no more can be done now. */
static bool
move_request_run(struct forward *f)
{
    struct buf *in = &f->client->in;
    struct slice data = {0}, bytes = buf_slice(in);
    size_t used = 0;
    if (bytes.len > FORWARD_RUN)
        bytes.len = FORWARD_RUN;
    if (buf_room(&f->up_out) < FORWARD_RUN + BODY_CHUNK_OVERHEAD && !f->up_broken)
        return false;
    enum body_status status = body_read(f->request_body, bytes, &used, &data);
    if (status == BODY_MALFORMED) {
        fail(f, body_fault(f->request_body));
        return false;
    }
    enum reason r = judge_content(f->x, data.len);
    if (r != REASON_OK) {
        fail(f, r);
        return false;
    }
    if (!f->up_broken && data.len)
        body_write(&f->up_out, f->x->ask->head.body, data);
    buf_consume(in, used);
    if (status == BODY_END) {
        f->request_done = true;
        if (!f->up_broken)
            body_write_end(&f->up_out, f->x->ask->head.body, slice_of(NULL, 0));
        return false;
    }
    return used > 0;
}

/* False: the exchange has ended. */
static bool
pump_request(struct forward *f)
{
    struct client *c = f->client;
    while (!f->request_done) {
        while (move_request_run(f))
            if (!flush_up(f))
                return false;
        if (f->over)
            return false;
        if (f->request_done || buf_room(&f->up_out) < FORWARD_RUN + BODY_CHUNK_OVERHEAD)
            break;
        size_t before = buf_len(&c->in);
        if (!client_fill(c)) {
            client_failed(f);
            return false;
        }
        if (buf_len(&c->in) == before) {
            if (!c->eof)
                break;
            client_failed(f); /* the body ends before it should */
            return false;
        }
    }
    return flush_up(f);
}

/* ---- answer, downwards ---- */

static bool
flush_down(struct forward *f)
{
    struct client *c = f->client;
    while (buf_len(&c->out)) {
        size_t sent = 0;
        switch (stream_write_slice(c->stream, buf_slice(&c->out), &sent)) {
        case STREAM_DONE:
            buf_consume(&c->out, sent);
            exchange_count(f->x, 0, sent);
            break;
        case STREAM_AGAIN:
            return true;
        case STREAM_EOF:
        case STREAM_ERROR:
            client_failed(f);
            return false;
        }
    }
    return true;
}

static bool
write_head_down(struct forward *f, bool upgrade)
{
    struct forward_options o = {
        .via_pseudonym = VIA,
        .keep_upgrade = upgrade,
        .body = f->response_kind,
        .content_length = f->response.content_length,
        .close = !upgrade && !f->client_stays && f->response.status >= 200,
    };
    return fields_write_response(&f->client->out, &f->response, &o);
}

/* 101 to a request that asked for it: from here on it is a tunnel. */
static void
upgrade(struct forward *f)
{
    struct exchange *x = f->x;
    struct buf from_client, to_client, from_upstream;
    f->response_kind = BODY_NONE;
    enum reason r = websocket_accepted(&x->ask->head, &f->response) ? REASON_OK : REASON_UPSTREAM_CLOSED;
    if (r == REASON_OK && !x->inside) /* inside an inspected tunnel that one counts already */
        r = exchange_open_tunnel(x);
    if (r == REASON_OK && !write_head_down(f, true))
        r = REASON_UPSTREAM_CLOSED;
    if (r != REASON_OK) {
        fail(f, r);
        return;
    }
    x->status = 101;
    to_client = f->client->out;
    buf_init(&f->client->out, 0);
    from_upstream = f->up_in;
    buf_init(&f->up_in, 0);
    struct client *c = steal(&x->client);
    struct stream *s = client_take(c, &from_client);
    f->over = true;
    forward_free(steal(&x->forward));
    tunnel_start_upgraded(x, s, &from_client, &to_client, &from_upstream);
    buf_done(&to_client);
    buf_done(&from_upstream);
}

/* How the body goes to the client: as it came where the client understands that, else to the end of the connection. */
static void
choose_response_framing(struct forward *f)
{
    f->response_kind = f->response.body;
    bool modern = f->x->ask->head.minor == 1;
    if (f->response_kind == BODY_TO_EOF && modern)
        f->response_kind = BODY_CHUNKED;
    else if (f->response_kind == BODY_CHUNKED && !modern)
        f->response_kind = BODY_TO_EOF;
    f->client_stays = modern && f->x->ask->head.persistent && !f->x->proxy->draining && f->response_kind != BODY_TO_EOF;
    /* Inside a tunnel one connection goes with one upstream connection: both end together. */
    if (f->x->inside && (!f->response.persistent || f->response.body == BODY_TO_EOF))
        f->client_stays = false;
}

/* A parent's refusal is relayed with its reason; a 407 of the parent is about our credential, not the client's. */
static bool
is_parent_refusal(struct forward *f)
{
    struct exchange *x = f->x;
    if (x->inside || !snapshot_settings(x->snapshot)->parent_url) /* inside a tunnel the origin itself speaks */
        return false;
    enum reason r = parent_verdict(&f->response);
    if (r == REASON_OK)
        return false;
    x->refused_by_parent = true;
    exchange_fail(x, r, PARENT_DETAIL);
    return true;
}

static bool
take_final_head(struct forward *f)
{
    if (is_parent_refusal(f))
        return false;
    choose_response_framing(f);
    if (!f->request_done)
        f->client_stays = false; /* an early answer: what is left of the request is not worth waiting for */
    if (!write_head_down(f, false)) {
        fail(f, REASON_UPSTREAM_CLOSED);
        return false;
    }
    f->x->status = f->response.status;
    f->answered = true;
    f->response_body = body_reader_new(f->response.body, f->response.content_length);
    return true;
}

/* False: ended, or more bytes are needed. */
static bool
read_response_head(struct forward *f)
{
    struct slice bytes = buf_slice(&f->up_in);
    f->scan.response = true;
    switch (head_scan(&f->scan, bytes, FORWARD_HEAD_MAX)) {
    case HEAD_SCAN_MORE:
        return false;
    case HEAD_SCAN_MALFORMED:
    case HEAD_SCAN_TOO_LARGE:
        fail(f, REASON_UPSTREAM_CLOSED);
        return false;
    case HEAD_SCAN_COMPLETE:
        break;
    }
    arena_free(f->arena);
    f->arena = arena_new(ARENA_USUAL);
    struct slice head = arena_dup(f->arena, slice_of(bytes.ptr + f->scan.start, f->scan.end - f->scan.start));
    enum reason r = head_parse_response(f->arena, head, f->x->ask->head.method, &f->response);
    buf_consume(&f->up_in, f->scan.end);
    f->scan = (struct head_scan){0};
    if (r != REASON_OK) {
        fail(f, r);
        return false;
    }
    if (f->response.status == 101) {
        upgrade(f);
        return false;
    }
    if (f->response.status >= 200)
        return take_final_head(f);
    /* An interim answer: HTTP/1.0 has none (RFC 9110 section 15.2), and an endless row of them is an attack. */
    if (++f->interim > FORWARD_INTERIM_MAX) {
        fail(f, REASON_UPSTREAM_CLOSED);
        return false;
    }
    f->response_kind = BODY_NONE;
    if (f->x->ask->head.minor == 1 && !write_head_down(f, false)) {
        fail(f, REASON_UPSTREAM_CLOSED);
        return false;
    }
    return true;
}

/* One run of the body from up_in to the client's bytes. False: nothing more now. */
static bool
move_response_run(struct forward *f)
{
    struct buf *out = &f->client->out;
    struct slice data = {0}, bytes = buf_slice(&f->up_in);
    size_t used = 0;
    if (bytes.len > FORWARD_RUN)
        bytes.len = FORWARD_RUN;
    if (buf_room(out) < FORWARD_RUN + BODY_CHUNK_OVERHEAD)
        return false;
    enum body_status status = body_read(f->response_body, bytes, &used, &data);
    if (status == BODY_MALFORMED) {
        fail(f, REASON_UPSTREAM_CLOSED);
        return false;
    }
    if (data.len)
        body_write(out, f->response_kind, data);
    buf_consume(&f->up_in, used);
    if (status == BODY_END) {
        f->response_done = true;
        if (!body_write_end(out, f->response_kind, body_trailers(f->response_body)))
            fail(f, REASON_UPSTREAM_CLOSED);
        return false;
    }
    return used > 0;
}

static bool
fill_from_upstream(struct forward *f)
{
    bool more = false;
    while (!f->up_eof && buf_room(&f->up_in) >= FORWARD_RUN) {
        size_t got = 0;
        /* A head and the little that most answers are come through scratch memory, bulk into a buffer of its own. */
        char *at = f->answered ? buf_reserve(&f->up_in, FORWARD_RUN) : f->x->proxy->scratch;
        enum stream_io io = stream_read(f->upstream, at, FORWARD_RUN, &got);
        if (io == STREAM_AGAIN)
            break;
        if (io == STREAM_DONE) {
            if (f->answered)
                buf_commit(&f->up_in, got);
            else
                buf_append(&f->up_in, at, got);
            more = f->up_heard = true;
            if (got < FORWARD_RUN)
                break;
            continue;
        }
        f->up_eof = true;
        f->up_broken = f->up_broken || io == STREAM_ERROR;
        more = true;
    }
    return more;
}

/* A kept connection that the upstream had closed meanwhile: the request never arrived, so a safe one goes out once more. */
static bool
retry_on_new_connection(struct forward *f)
{
    struct exchange *x = f->x;
    if (x->inside || !x->pooled || x->retried || f->up_heard || !is_safe_to_repeat(x) || x->ask->head.body != BODY_NONE)
        return false;
    stream_free(steal(&x->upstream));
    f->over = true;
    forward_free(steal(&x->forward));
    exchange_redial(x);
    return true;
}

/* Inside a tunnel: the upstream closed its kept connection while this request was on its way. Clients know how to meet that
 * on a connection that ends (RFC 9112 section 9.3.1); an answer of ours would hide it from them. */
static bool
was_lost_between_requests(const struct forward *f)
{
    return f->x->inside && inspect_was_used(f->x->inside) && !f->up_heard;
}

/* Inside a tunnel: TLS ended it before it read anything. */
static bool
was_refused_late(struct forward *f)
{
    struct exchange *x = f->x;
    const char *detail = NULL;
    if (!x->inside || f->up_heard || !inspect_refused_late(x->inside, f->upstream))
        return false;
    enum reason r = inspect_fault(x->inside, &detail);
    exchange_fail(x, r, detail);
    return true;
}

static void
end_with_upstream(struct forward *f)
{
    struct client *c = f->client;
    f->x->reason = REASON_UPSTREAM_CLOSED;
    exchange_finish(f->x, "upstream_closed");
    client_free(c);
}

/* The upstream has said all it will. False: the exchange has ended. */
static bool
take_upstream_eof(struct forward *f)
{
    if (!f->answered) {
        if (was_refused_late(f))
            return false;
        if (was_lost_between_requests(f))
            end_with_upstream(f);
        else if (!retry_on_new_connection(f))
            fail(f, REASON_UPSTREAM_CLOSED);
        return false;
    }
    if (f->response_done)
        return true;
    if (body_read_eof(f->response_body) != BODY_END || f->up_broken) {
        fail(f, REASON_UPSTREAM_CLOSED);
        return false;
    }
    f->response_done = true;
    body_write_end(&f->client->out, f->response_kind, slice_of(NULL, 0));
    return true;
}

static bool
pump_response(struct forward *f)
{
    for (int round = 0; round < FORWARD_ROUNDS; round++) {
        bool more = fill_from_upstream(f);
        while (!f->over && !f->answered && read_response_head(f))
            ;
        while (!f->over && f->answered && !f->response_done && move_response_run(f))
            if (!flush_down(f))
                return false;
        if (f->over || !flush_down(f))
            return false;
        if (f->up_eof && (!f->answered || buf_len(&f->up_in) == 0) && !take_upstream_eof(f))
            return false;
        if (f->response_done || !more || buf_len(&f->client->out))
            break;
    }
    return !f->over && flush_down(f);
}

/* ---- the driver ---- */

static void
update_interest(struct forward *f)
{
    struct client *c = f->client;
    bool up_blocked = buf_len(&f->up_out) > 0 && !f->up_broken, down_blocked = buf_len(&c->out) > 0;
    bool want_body = !f->request_done && !c->eof && buf_room(&f->up_out) >= FORWARD_RUN + BODY_CHUNK_OVERHEAD;
    stream_want(c->stream, want_body, down_blocked);
    stream_want(f->upstream, !f->up_eof && buf_room(&f->up_in) >= FORWARD_RUN && !down_blocked, up_blocked);
}

static void
step(struct forward *f)
{
    if (!pump_request(f) || f->over)
        return;
    if (!pump_response(f) || f->over)
        return;
    if (f->response_done && buf_len(&f->client->out) == 0)
        complete(f);
    else
        update_interest(f);
}

void
forward_client_event(struct forward *f, enum stream_event event)
{
    switch (event) {
    case STREAM_READABLE:
    case STREAM_WRITABLE:
        step(f);
        break;
    case STREAM_FAILED:
    case STREAM_TIMEOUT:
        client_failed(f);
        break;
    case STREAM_SECURED:
        break;
    }
}

static void
on_upstream(void *owner, enum stream_event event)
{
    struct forward *f = owner;
    switch (event) {
    case STREAM_READABLE:
    case STREAM_WRITABLE:
        step(f);
        break;
    case STREAM_FAILED:
        f->up_eof = f->up_broken = true;
        step(f);
        break;
    case STREAM_TIMEOUT:
    case STREAM_SECURED:
        break;
    }
}

void
forward_idle(struct forward *f)
{
    fail(f, f->request_done ? REASON_UPSTREAM_TIMEOUT : REASON_REQUEST_TIMEOUT);
}

bool
forward_has_answered(const struct forward *f)
{
    return f->answered;
}

static bool
write_request_head(struct forward *f)
{
    struct exchange *x = f->x;
    struct forward_options o = {
        .via_pseudonym = VIA,
        .keep_upgrade = x->ask->head.upgrade_websocket,
        .body = x->ask->head.body,
        .content_length = x->ask->head.content_length,
        /* The method has been judged: the origin must not be told another one. */
        .drop_method_override = slice_starts_with(slice_str(x->ask->verdict.rule), "rules[") || x->ask->verdict.source == SOURCE_REGISTRIES,
    };
    if (snapshot_settings(x->snapshot)->parent_url) {
        o.absolute = true;
        o.parent_authorization = parent_authorization(x, x->ask->arena);
    }
    return fields_write_request(&f->up_out, &x->ask->head, &x->ask->target, x->ask->path, &o);
}

void
forward_start(struct exchange *x)
{
    struct forward *f = mem_zalloc(sizeof *f);
    f->x = x;
    f->client = x->client;
    f->upstream = x->upstream;
    x->forward = f;
    exchange_enter(x, EXCHANGE_SERVING);
    buf_init(&f->up_out, FORWARD_BUFFER + FORWARD_RUN);
    buf_init(&f->up_in, FORWARD_BUFFER);
    f->request_body = body_reader_new(x->ask->head.body, x->ask->head.content_length);
    stream_set_owner(f->upstream, on_upstream, f);
    if (!write_request_head(f))
        fail(f, REASON_REQUEST_TOO_LARGE);
    else
        step(f);
}

static void
free_memory(void *ptr)
{
    struct forward *f = ptr;
    buf_done(&f->up_out);
    buf_done(&f->up_in);
    body_reader_free(f->request_body);
    body_reader_free(f->response_body);
    arena_free(f->arena);
    free(f);
}

void
forward_free(struct forward *f)
{
    if (!f)
        return;
    f->over = true;
    loop_free_later(f->x->proxy->loop, f, free_memory);
}
