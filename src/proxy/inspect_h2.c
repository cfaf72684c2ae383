/* Streams of the client's HTTP/2 connection and streams of the upstream's, mapped one to one. Data goes from the one session
 * straight into the buffer of the other, and is counted as read there when it leaves here: each stream has
 * the pace of its slower end. Whatever may end (a stream, a session, the tunnel) does so from here by exchange_finish. */
#include "sallyport/proxy/inspect_h2.h"

#include "sallyport/base/mem.h"
#include "sallyport/http/fields.h"
#include "sallyport/http/h2.h"
#include "sallyport/proxy/request.h"

#define OUT_MAX 65536           /* bytes of one side on their way into its socket */
#define READ_ROUNDS 8           /* reads of one side before others get their turn */
#define FLUSH_ROUNDS 16         /* what one side's writing lets the other say, in one go */
#define TICK_MS 1000
#define EARLY_MAX 65535         /* of a request that is being judged: the first window of its stream */
#define INTERIM_MAX 16          /* 1xx answers to one request */
#define REPLY_MAX 65536
#define CLIENT_STREAMS_MAX 128
#define UPSTREAM_STREAMS_MAX (2 * CLIENT_STREAMS_MAX) /* as many again that are being reset */
#define FAULT_TEXT_SIZE 160
#define VIA "2 sallyport"

/* One of the two connections. */
struct side {
    struct stream *stream; /* NULL when it is gone */
    struct h2_session *session;
    struct buf out;
    bool eof;
    int64_t moved_ms;      /* when `out` last got shorter or empty */
};

struct inspect_h2 {
    struct inspection *i;
    struct exchange *tunnel;
    struct loop *loop;
    struct side client, upstream;
    struct list calls;
    struct deferred flush;
    bool flushing;         /* deferred */
    struct timer tick;
    int64_t active_ms;     /* a request began or ended */
    bool heard;            /* the upstream has answered something */
    uint32_t ended_with;   /* the code of its GOAWAY */
    bool leaving;          /* the client has been told to go elsewhere */
    bool gone;             /* … and that this was the last */
    bool over;
};

struct inspect_call {
    struct list_node node;
    struct inspect_h2 *h;
    struct exchange *x;      /* NULL when it has ended: only the answer is still going out */
    struct h2_stream *down;  /* the client's; NULL when closed */
    struct h2_stream *up;    /* the upstream's; NULL before and after */
    struct h2_head *request;
    struct buf early;        /* data that came before the request went up */
    struct h2_head *trailers; /* likewise */
    bool request_ended, answered, response_ended;
    unsigned interim;
    int64_t replied_ms;      /* when our own answer was begun; 0: it was not */
};

static void finish_call(struct inspect_call *call, enum reason reason, const char *cause);

/* ---- calls ---- */

static struct inspect_call *
call_new(struct inspect_h2 *h, struct h2_stream *down, struct h2_head *request)
{
    struct inspect_call *call = mem_zalloc(sizeof *call);
    call->h = h;
    call->down = down;
    call->request = request;
    call->request_ended = request->end;
    buf_init(&call->early, EARLY_MAX);
    list_append(&h->calls, &call->node);
    h2_stream_set_owner(down, call);
    h->active_ms = loop_now_ms(h->loop);
    return call;
}

static void
free_call_memory(void *ptr)
{
    struct inspect_call *call = ptr;
    h2_head_free(call->request);
    h2_head_free(call->trailers);
    buf_done(&call->early);
    free(call);
}

static void
call_free(struct inspect_call *call)
{
    list_remove(&call->h->calls, &call->node);
    call->h->active_ms = loop_now_ms(call->h->loop);
    loop_free_later(call->h->loop, call, free_call_memory);
}

static void flush_all(void *arg);

static void
wake(struct inspect_h2 *h)
{
    if (h->flushing || h->over)
        return;
    h->flushing = true;
    loop_defer(h->loop, &h->flush, flush_all, h);
}

static void
drop_up(struct inspect_call *call, uint32_t code)
{
    if (call->up)
        h2_stream_reset(steal(&call->up), code);
}

/* Both streams end; the exchange is told nothing. */
static void
drop(struct inspect_call *call, uint32_t down_code)
{
    drop_up(call, H2_CANCEL);
    if (call->down)
        h2_stream_reset(steal(&call->down), down_code);
    wake(call->h);
    call_free(call);
}

void
inspect_h2_exchange_ended(struct inspect_call *call)
{
    call->x = NULL;
    drop(call, call->answered ? H2_INTERNAL_ERROR : H2_CANCEL);
}

/* The client's stream is reset with `code`, and the exchange ends. */
static void
reset_call(struct inspect_call *call, uint32_t code, enum reason reason, const char *cause)
{
    if (call->down)
        h2_stream_reset(steal(&call->down), code);
    finish_call(call, reason, cause);
}

static void
finish_call(struct inspect_call *call, enum reason reason, const char *cause)
{
    struct exchange *x = call->x;
    if (!x) {
        drop(call, H2_CANCEL);
        return;
    }
    x->reason = reason;
    exchange_finish(x, cause);
}

void
inspect_h2_adopt(struct inspect_call *call, struct exchange *x)
{
    call->x = x;
}

bool
inspect_h2_has_answered(const struct inspect_call *call)
{
    return call->answered;
}

/* ---- heads ---- */

/* One Via for the whole way so far (RFC 9110 section 7.6.3). */
static void
add_via(struct h2_head *to, const struct h2_head *from)
{
    struct buf via;
    buf_init(&via, from->size + sizeof VIA + 2);
    for (size_t i = 0; i < from->head.field_count; i++)
        if (slice_is(from->head.fields[i].name, "via") && from->head.fields[i].value.len) {
            buf_append_slice(&via, from->head.fields[i].value);
            buf_append_str(&via, ", ");
        }
    buf_append_str(&via, VIA);
    h2_head_add(to, slice_str("via"), buf_slice(&via), false);
    buf_done(&via);
}

static bool
passes_up(const struct inspect_call *call, struct slice name)
{
    /* The method has been judged: the origin must not be told another one. */
    bool judged = slice_starts_with(slice_str(call->x->ask->verdict.rule), "rules[") || call->x->ask->verdict.source == SOURCE_REGISTRIES;
    if (slice_is(name, "content-length") || slice_is(name, "te") || slice_is(name, "trailer") || slice_is(name, "expect"))
        return true;
    return fields_pass_request(name, judged);
}

static struct h2_head *
request_for_upstream(const struct inspect_call *call)
{
    const struct h2_head *from = call->request;
    const struct exchange *x = call->x;
    struct h2_head *to = h2_head_new();
    char authority[TARGET_TEXT_SIZE];
    target_format(&x->ask->target, authority);
    to->head.method = from->head.method;
    to->scheme = slice_str("https");
    to->authority = h2_head_dup(to, x->ask->target.port == 443 ? host_slice(&x->ask->target.host) : slice_str(authority));
    to->path = x->ask->path;
    to->end = from->end;
    for (size_t i = 0; i < from->head.field_count; i++)
        if (passes_up(call, from->head.fields[i].name))
            h2_head_add(to, from->head.fields[i].name, from->head.fields[i].value, from->sensitive[i]);
    add_via(to, from);
    return to;
}

static struct h2_head *
response_for_client(const struct h2_head *from)
{
    struct h2_head *to = h2_head_new();
    to->head.status = from->head.status;
    to->end = from->end;
    for (size_t i = 0; i < from->head.field_count; i++) {
        struct slice name = from->head.fields[i].name;
        if (slice_is(name, "content-length") || fields_pass_response(name))
            h2_head_add(to, name, from->head.fields[i].value, from->sensitive[i]);
    }
    add_via(to, from);
    return to;
}

/* Trailers, less what a head would not have passed either. */
static struct h2_head *
pass_trailers(const struct h2_head *from, bool up)
{
    if (!from)
        return NULL;
    struct h2_head *to = h2_head_new();
    for (size_t i = 0; i < from->head.field_count; i++) {
        struct slice name = from->head.fields[i].name;
        if (up ? fields_pass_request(name, true) : fields_pass_response(name))
            h2_head_add(to, name, from->head.fields[i].value, from->sensitive[i]);
    }
    return to;
}

static void
finish_stream(struct h2_stream *to, const struct h2_head *trailers, bool up)
{
    struct h2_head *passed = pass_trailers(trailers, up);
    h2_stream_finish(to, passed);
    h2_head_free(passed);
}

/* ---- upwards ---- */

/* Was the connection lost in a way that lets the client simply ask again elsewhere? It was not asked, so it may. */
static void
refuse_to_serve(struct inspect_call *call)
{
    reset_call(call, H2_REFUSED_STREAM, REASON_UPSTREAM_CLOSED, "upstream_closed");
}

/* The data waits in `early` and in the upstream's session alike until it has left, and is counted against the client's
 * window meanwhile. */
static void
send_early(struct inspect_call *call)
{
    if (buf_len(&call->early))
        h2_stream_write(call->up, buf_slice(&call->early));
    buf_done(&call->early);
    if (call->request_ended && !call->request->end)
        finish_stream(call->up, call->trailers, true);
}

void
inspect_h2_serve(struct inspect_call *call)
{
    struct inspect_h2 *h = call->h;
    struct exchange *x = call->x;
    if (!h->upstream.session || !h2_session_takes_requests(h->upstream.session)) {
        refuse_to_serve(call);
        return;
    }
    struct h2_head *head = request_for_upstream(call);
    call->up = h2_submit_request(h->upstream.session, head, call);
    size_t size = call->request->size;
    h2_head_free(head);
    if (!call->up) {
        refuse_to_serve(call);
        return;
    }
    exchange_enter(x, EXCHANGE_SERVING);
    send_early(call);
    wake(h);
    exchange_count(x, size, 0);
}

static void
on_request_head(void *owner, struct h2_stream *s, struct h2_head *head)
{
    struct inspect_h2 *h = owner;
    if (h->over) {
        h2_head_free(head);
        h2_stream_reset(s, H2_REFUSED_STREAM);
        return;
    }
    exchange_start_call(h->i, call_new(h, s, head), head);
}

static void
on_request_data(void *owner, struct h2_stream *s, struct slice data)
{
    struct inspect_call *call = h2_stream_owner(s);
    (void)owner;
    if (!call->x)
        return;
    enum reason r = judge_content(call->x, data.len);
    if (r != REASON_OK) {
        exchange_fail(call->x, r, NULL);
        return;
    }
    bool taken = call->up ? h2_stream_write(call->up, data) : buf_append_slice(&call->early, data);
    if (!taken) /* the upstream has ended its side: what still comes is for nobody */
        h2_stream_discard(s);
    wake(call->h);
}

static void
on_request_end(void *owner, struct h2_stream *s, struct h2_head *trailers)
{
    struct inspect_call *call = h2_stream_owner(s);
    (void)owner;
    call->request_ended = true;
    if (call->up) {
        finish_stream(call->up, trailers, true);
        h2_head_free(trailers);
    } else {
        call->trailers = trailers;
    }
    wake(call->h);
}

/* Bytes of the answer have gone to the client. */
static void
on_response_sent(void *owner, struct h2_stream *s, size_t n)
{
    struct inspect_call *call = h2_stream_owner(s);
    (void)owner;
    if (call->up)
        h2_stream_consume(call->up, n);
    if (call->x)
        exchange_count(call->x, 0, n);
}

static void
on_request_closed(void *owner, struct h2_stream *s, uint32_t code)
{
    struct inspect_call *call = h2_stream_owner(s);
    (void)owner;
    call->down = NULL;
    bool complete = call->response_ended && code == H2_NO_ERROR;
    finish_call(call, REASON_OK, complete ? "complete" : "client_aborted");
}

static void
on_request_malformed(void *owner)
{
    struct inspect_h2 *h = owner;
    if (!h->over)
        exchange_start_call_refused(h->i, REASON_REQUEST_MALFORMED);
}

/* The client begins nothing more; what is under way goes on. */
static void
on_client_goaway(void *owner, int32_t last_id, uint32_t code)
{
    (void)owner, (void)last_id, (void)code;
}

/* ---- downwards ---- */

static void
take_interim(struct inspect_call *call, const struct h2_head *head)
{
    if (++call->interim > INTERIM_MAX) {
        exchange_fail(call->x, REASON_UPSTREAM_CLOSED, NULL);
        return;
    }
    struct h2_head *to = response_for_client(head);
    h2_submit_response(call->down, to);
    h2_head_free(to);
}

static void
take_response(struct inspect_call *call, const struct h2_head *head)
{
    /* The client would take it for ours and send its token again. */
    if (head->head.status == 407) {
        exchange_fail(call->x, REASON_UPSTREAM_CLOSED, NULL);
        return;
    }
    struct h2_head *to = response_for_client(head);
    call->h->heard = true;
    call->answered = true;
    call->response_ended = head->end;
    call->x->status = head->head.status;
    bool sent = h2_submit_response(call->down, to);
    h2_head_free(to);
    if (sent)
        exchange_count(call->x, 0, head->size);
    else
        reset_call(call, H2_INTERNAL_ERROR, REASON_INTERNAL, "internal");
}

static void
on_response_head(void *owner, struct h2_stream *s, struct h2_head *head)
{
    struct inspect_call *call = h2_stream_owner(s);
    struct inspect_h2 *h = owner;
    if (call->x && call->down && head->head.status < 200)
        take_interim(call, head);
    else if (call->x && call->down)
        take_response(call, head);
    h2_head_free(head);
    wake(h);
}

static void
on_response_data(void *owner, struct h2_stream *s, struct slice data)
{
    struct inspect_call *call = h2_stream_owner(s);
    struct inspect_h2 *h = owner;
    if (call->down && !h2_stream_write(call->down, data))
        reset_call(call, H2_INTERNAL_ERROR, REASON_INTERNAL, "internal"); /* a window was not held to */
    wake(h);
}

static void
on_response_end(void *owner, struct h2_stream *s, struct h2_head *trailers)
{
    struct inspect_call *call = h2_stream_owner(s);
    struct inspect_h2 *h = owner;
    call->response_ended = true;
    if (call->down)
        finish_stream(call->down, trailers, false);
    h2_head_free(trailers);
    wake(h);
}

/* Bytes of the request have gone up. */
static void
on_request_sent(void *owner, struct h2_stream *s, size_t n)
{
    struct inspect_call *call = h2_stream_owner(s);
    (void)owner;
    if (call->down)
        h2_stream_consume(call->down, n);
    if (call->x)
        exchange_count(call->x, n, 0);
}

static void
fail_broken(struct inspect_call *call, uint32_t code)
{
    char text[FAULT_TEXT_SIZE];
    snprintf(text, sizeof text, "the answer is no HTTP/2 message, or was broken off: %s", h2_code_text(code));
    exchange_fail(call->x, REASON_UPSTREAM_CLOSED, text);
}

static void
on_response_closed(void *owner, struct h2_stream *s, uint32_t code)
{
    struct inspect_call *call = h2_stream_owner(s);
    struct inspect_h2 *h = owner;
    call->up = NULL;
    wake(h);
    if (call->response_ended) {
        /* It may have answered without reading all; then the client need not go on either. */
        if (call->down && !call->request_ended)
            h2_stream_discard(call->down);
        return;
    }
    /* Codes are for the client to act on (a refused stream is tried again); an answer that is no message is ours to report. */
    if (!call->answered && (code == H2_PROTOCOL_ERROR || code == H2_NO_ERROR || code == H2_INTERNAL_ERROR))
        fail_broken(call, code);
    else
        reset_call(call, code == H2_NO_ERROR ? H2_INTERNAL_ERROR : code, REASON_UPSTREAM_CLOSED, "upstream_reset");
}

/* New requests belong on a connection of their own now. */
static void
leave(struct inspect_h2 *h)
{
    if (h->leaving)
        return;
    h->leaving = true;
    h2_session_drain(h->client.session);
    wake(h);
}

static void
on_upstream_goaway(void *owner, int32_t last_id, uint32_t code)
{
    struct inspect_h2 *h = owner;
    (void)last_id;
    h->ended_with = code;
    leave(h);
}

/* The client may have as many streams open as the upstream takes: then it can choose what comes first, or connect again. */
static void
on_upstream_settings(void *owner)
{
    struct inspect_h2 *h = owner;
    uint32_t most = h2_session_peer_streams(h->upstream.session);
    h2_session_set_streams(h->client.session, most < CLIENT_STREAMS_MAX ? most : CLIENT_STREAMS_MAX);
    wake(h);
}

static const struct h2_callbacks client_callbacks = {on_request_head,  on_request_data,   on_request_end,       on_response_sent,
                                                     on_request_closed, on_request_malformed, on_client_goaway, NULL};

static const struct h2_callbacks upstream_callbacks = {on_response_head,   on_response_data, on_response_end, on_request_sent,
                                                       on_response_closed, NULL,             on_upstream_goaway, on_upstream_settings};

/* ---- the proxy's own answers ---- */

/* The reply of HTTP/1, taken apart: there is one text for it. */
static struct h2_head *
reply_head(const struct reply_facts *facts, struct buf *bytes)
{
    struct head head;
    struct head_scan scan = {.response = true};
    struct h2_head *to = h2_head_new();
    bool ok = reply_write(bytes, facts) && head_scan(&scan, buf_slice(bytes), REPLY_MAX) == HEAD_SCAN_COMPLETE &&
              head_parse_response(to->arena, slice_of(bytes->data + bytes->start, scan.end), slice_str("GET"), &head) == REASON_OK;
    if (!ok)
        abort(); /* our own words */
    to->head.status = head.status;
    for (size_t i = 0; i < head.field_count; i++)
        if (!slice_equal_nocase(head.fields[i].name, slice_str("Connection")))
            h2_head_add(to, head.fields[i].name, head.fields[i].value, false);
    buf_consume(bytes, scan.end);
    to->end = buf_len(bytes) == 0;
    return to;
}

void
inspect_h2_reply(struct inspect_call *call, const struct reply_facts *facts)
{
    struct buf bytes;
    call->x = NULL;
    drop_up(call, H2_CANCEL);
    wake(call->h);
    if (!call->down) {
        call_free(call);
        return;
    }
    buf_init(&bytes, REPLY_MAX);
    struct h2_head *head = reply_head(facts, &bytes);
    call->answered = call->response_ended = true;
    call->replied_ms = loop_now_ms(call->h->loop);
    h2_stream_discard(call->down);
    h2_head_free(steal(&call->request)); /* the stream may stay for a while, until the client has said all */
    h2_head_free(steal(&call->trailers));
    buf_done(&call->early);
    if (h2_submit_response(call->down, head) && !head->end) {
        h2_stream_write(call->down, buf_slice(&bytes));
        h2_stream_finish(call->down, NULL);
    }
    h2_head_free(head);
    buf_done(&bytes);
}

/* ---- the connections ---- */

static void
end_tunnel(struct inspect_h2 *h, const char *cause)
{
    if (!h->over)
        exchange_finish(h->tunnel, cause);
}

/* What it said before its connection broke: answers, or why it wants none of this. */
static void
hear_out(struct inspect_h2 *h)
{
    struct proxy *p = h->tunnel->proxy;
    size_t got = 0;
    for (int round = 0; round < READ_ROUNDS; round++)
        if (stream_read(h->upstream.stream, p->scratch, PROXY_SCRATCH, &got) != STREAM_DONE ||
            !h2_session_feed(h->upstream.session, slice_of(p->scratch, got), loop_now_ms(h->loop)))
            break;
}

/* Why the upstream's connection ended, in words; false: it just did. */
static bool
describe_end(const struct inspect_h2 *h, char text[FAULT_TEXT_SIZE])
{
    const char *fault = h2_session_fault(h->upstream.session);
    if (fault)
        snprintf(text, FAULT_TEXT_SIZE, "the server broke HTTP/2: %s", fault);
    else if (h->ended_with != H2_NO_ERROR)
        snprintf(text, FAULT_TEXT_SIZE, "the server ended the connection: %s", h2_code_text(h->ended_with));
    return fault || h->ended_with != H2_NO_ERROR;
}

/* What was asked of it and not answered fails; the client is told to go elsewhere with the rest, unless no connection would do. */
static void
lose_upstream(struct inspect_h2 *h)
{
    const char *detail = NULL;
    char text[FAULT_TEXT_SIZE];
    hear_out(h);
    if (describe_end(h, text)) {
        detail = text;
        inspect_note_fault(h->i, "upstream_fault", text);
    }
    bool refused = !h->heard && inspect_refused_late(h->i, h->upstream.stream);
    enum reason r = refused ? inspect_fault(h->i, &detail) : REASON_UPSTREAM_CLOSED;
    stream_free(steal(&h->upstream.stream));
    for (struct list_node *n = list_first(&h->calls), *next; n; n = next) {
        struct inspect_call *call = list_entry(n, struct inspect_call, node);
        next = list_next(&h->calls, n);
        if (!call->up)
            continue;
        drop_up(call, H2_CANCEL);
        if (call->response_ended)
            continue;
        if (call->answered)
            reset_call(call, H2_INTERNAL_ERROR, REASON_UPSTREAM_CLOSED, "upstream_closed");
        else
            exchange_fail(call->x, r, detail);
    }
    h2_session_drain(h->upstream.session);
    if (!refused)
        leave(h);
}

static bool
write_side(struct inspect_h2 *h, struct side *side)
{
    bool moved = false;
    for (;;) {
        h2_session_output(side->session, &side->out);
        if (buf_len(&side->out) == 0)
            break;
        size_t sent = 0;
        enum stream_io io = stream_write_slice(side->stream, buf_slice(&side->out), &sent);
        if (io == STREAM_AGAIN)
            break;
        if (io != STREAM_DONE) {
            side->eof = true;
            return false;
        }
        buf_consume(&side->out, sent);
        side->moved_ms = loop_now_ms(h->loop);
        moved = true;
    }
    buf_release(&side->out);
    return moved;
}

static void
update_interest(struct side *side)
{
    if (side->stream)
        stream_want(side->stream, !side->eof && h2_session_reading(side->session), buf_len(&side->out) > 0);
}

static bool
is_said(const struct side *side)
{
    return side->eof || (h2_session_over(side->session) && buf_len(&side->out) == 0);
}

/* When nothing more can come of it. */
static bool
settle(struct inspect_h2 *h)
{
    if (h->upstream.stream && is_said(&h->upstream))
        lose_upstream(h);
    if (h->leaving && !h->gone && list_empty(&h->calls)) {
        h->gone = true;
        h2_session_goaway(h->client.session, H2_NO_ERROR);
        return true;
    }
    if (!is_said(&h->client))
        return true;
    inspect_note_fault(h->i, "client_fault", h2_session_fault(h->client.session));
    end_tunnel(h, h2_session_fault(h->client.session) ? "protocol_error" : h->leaving ? "upstream_closed" : "client_closed");
    return false;
}

static void
flush_all(void *arg)
{
    struct inspect_h2 *h = arg;
    h->flushing = false;
    bool moved = true;
    for (int round = 0; moved && round < FLUSH_ROUNDS; round++) {
        moved = write_side(h, &h->client);
        if (h->upstream.stream)
            moved = write_side(h, &h->upstream) || moved;
        if (!settle(h))
            return;
    }
    update_interest(&h->client);
    update_interest(&h->upstream);
    if (moved)
        wake(h);
}

static void
read_side(struct inspect_h2 *h, struct side *side)
{
    struct proxy *p = h->tunnel->proxy;
    for (int round = 0; round < READ_ROUNDS && !side->eof && !h->over && h2_session_reading(side->session); round++) {
        size_t got = 0;
        enum stream_io io = stream_read(side->stream, p->scratch, PROXY_SCRATCH, &got);
        if (io == STREAM_AGAIN)
            break;
        if (io != STREAM_DONE) {
            side->eof = true;
            break;
        }
        if (!h2_session_feed(side->session, slice_of(p->scratch, got), loop_now_ms(h->loop)))
            break;
        if (got < PROXY_SCRATCH / 4)
            break;
    }
    wake(h);
}

static void
on_side_event(struct inspect_h2 *h, struct side *side, enum stream_event event)
{
    switch (event) {
    case STREAM_READABLE:
        read_side(h, side);
        break;
    case STREAM_WRITABLE:
        wake(h);
        break;
    case STREAM_FAILED:
        side->eof = true;
        wake(h);
        break;
    case STREAM_SECURED:
    case STREAM_TIMEOUT:
        break;
    }
}

static void
on_client(void *owner, enum stream_event event)
{
    struct inspect_h2 *h = owner;
    on_side_event(h, &h->client, event);
}

static void
on_upstream(void *owner, enum stream_event event)
{
    struct inspect_h2 *h = owner;
    on_side_event(h, &h->upstream, event);
}

/* A peer that does not read: what is to go out has waited for too long. */
static bool
is_stuck(const struct side *side, int64_t now_ms, int64_t limit_ms)
{
    return limit_ms && buf_len(&side->out) > 0 && now_ms - side->moved_ms > limit_ms;
}

/* The exchange behind such an answer is over, so that its clock no longer runs: a client that opens no window for the answer
 * would keep the tunnel for as long as it likes. */
static void
drop_unread(struct inspect_h2 *h, int64_t now_ms, int64_t limit_ms)
{
    for (struct list_node *n = list_first(&h->calls), *next; limit_ms && n; n = next) {
        struct inspect_call *call = list_entry(n, struct inspect_call, node);
        next = list_next(&h->calls, n);
        if (!call->x && call->replied_ms && now_ms - call->replied_ms > limit_ms)
            drop(call, H2_CANCEL);
    }
}

static void
on_tick(void *arg)
{
    struct inspect_h2 *h = arg;
    int64_t now_ms = loop_now_ms(h->loop), idle_ms = snapshot_settings(h->tunnel->snapshot)->idle_timeout_ms;
    timer_start(h->loop, &h->tick, TICK_MS, on_tick, h);
    h2_session_tick(h->client.session, now_ms);
    if (h->upstream.stream)
        h2_session_tick(h->upstream.session, now_ms);
    if (is_stuck(&h->client, now_ms, idle_ms)) {
        end_tunnel(h, "idle_timeout");
        return;
    }
    if (is_stuck(&h->upstream, now_ms, idle_ms))
        h->upstream.eof = true;
    drop_unread(h, now_ms, idle_ms);
    if (h->tunnel->proxy->draining || (idle_ms && list_empty(&h->calls) && now_ms - h->active_ms > idle_ms))
        leave(h);
    wake(h);
}

static void
side_init(struct side *side, struct stream *stream, struct h2_session *session, stream_fn *on_event, struct inspect_h2 *h)
{
    side->stream = stream;
    side->session = session;
    side->moved_ms = loop_now_ms(h->loop);
    buf_init(&side->out, OUT_MAX);
    if (stream)
        stream_set_owner(stream, on_event, h);
}

struct inspect_h2 *
inspect_h2_new(struct inspection *i, struct stream *client, struct stream *upstream)
{
    struct inspect_h2 *h = mem_zalloc(sizeof *h);
    struct h2_limits limits = H2_LIMITS_DEFAULT, upstream_limits = H2_LIMITS_DEFAULT;
    h->i = i;
    h->tunnel = inspect_tunnel(i);
    h->loop = h->tunnel->proxy->loop;
    list_init(&h->calls);
    int64_t now_ms = h->active_ms = loop_now_ms(h->loop);
    limits.streams = CLIENT_STREAMS_MAX;
    upstream_limits.streams = UPSTREAM_STREAMS_MAX;
    side_init(&h->client, client, h2_session_new(H2_SERVER, &limits, &client_callbacks, h, now_ms), on_client, h);
    if (upstream)
        side_init(&h->upstream, upstream, h2_session_new(H2_CLIENT, &upstream_limits, &upstream_callbacks, h, now_ms), on_upstream, h);
    timer_start(h->loop, &h->tick, TICK_MS, on_tick, h);
    wake(h);
    return h;
}

static void
free_memory(void *ptr)
{
    struct inspect_h2 *h = ptr;
    h2_session_free(h->client.session);
    h2_session_free(h->upstream.session);
    buf_done(&h->client.out);
    buf_done(&h->upstream.out);
    free(h);
}

void
inspect_h2_free(struct inspect_h2 *h)
{
    if (!h)
        return;
    h->over = true;
    timer_stop(&h->tick);
    if (h->flushing)
        loop_cancel(h->loop, &h->flush);
    while (!list_empty(&h->calls))
        finish_call(list_entry(list_first(&h->calls), struct inspect_call, node), REASON_OK, "client_aborted");
    stream_free(steal(&h->client.stream));
    stream_free(steal(&h->upstream.stream));
    loop_free_later(h->loop, h, free_memory);
}
