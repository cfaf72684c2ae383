/* An inspected tunnel, from the 200 until requests can be read from it. Protocols are mirrored: the upstream handshake comes
 * first, then the client gets what the upstream chose and a leaf for the canonical target. An upstream that cannot be had or
 * trusted is reported inside, to each request. */
#include "sallyport/proxy/inspect.h"

#include "sallyport/base/encoding.h"
#include "sallyport/base/mem.h"
#include "sallyport/proxy/inspect_h2.h"
#include "sallyport/proxy/keeperlink.h"
#include "sallyport/proxy/parent.h"
#include "sallyport/proxy/tunnel.h"

#define HTTP11 "http/1.1"
#define HTTP2 "h2"
#define FACTS_MAX 2048

/* What it takes until requests can be read. */
struct opening {
    struct buf out;              /* the 200 on its way */
    struct buf first;            /* the client's first flight: the hello */
    struct hello hello;
    char alpn[UPSTREAM_ALPN_SIZE];
    struct leaf_wait *wait;
    struct leaf *leaf;
};

/* There is one of these an inspected tunnel, however long it is idle. */
struct inspection {
    struct exchange *x;
    struct loop *loop;
    struct opening *opening;     /* NULL from then on */
    struct stream *client;       /* ours until the client side has its TLS */
    struct client *inner;        /* the connection inside; then the stream is its own */
    struct inspect_h2 *h2;       /* likewise, where HTTP/2 is spoken; it has the upstream's too */
    struct stream *upstream;     /* ours while no request has it */
    enum reason denied, fault;
    char *detail;                /* of the fault, in words; heap, NULL */
    struct buf facts;
    bool used, detached, over;
};

static void on_client(void *owner, enum stream_event event);
static void on_upstream(void *owner, enum stream_event event);

/* ---- ends ---- */

/* Before TLS stands on the client's side nothing can be said to it. */
static void
give_up(struct inspection *i, enum reason reason, const char *cause)
{
    if (i->over)
        return;
    i->x->reason = reason;
    exchange_finish(i->x, cause);
}

static void
opening_cancel(struct opening *o)
{
    leaf_cancel(steal(&o->wait));
    leaf_unref(steal(&o->leaf));
}

static void
opening_free(struct opening *o)
{
    if (!o)
        return;
    opening_cancel(o);
    buf_done(&o->out);
    buf_done(&o->first);
    free(o);
}

static void
free_memory(void *ptr)
{
    struct inspection *i = ptr;
    opening_free(i->opening);
    buf_done(&i->facts);
    free(i->detail);
    free(i);
}

void
inspect_free(struct inspection *i)
{
    if (!i)
        return;
    i->over = true;
    if (i->opening)
        opening_cancel(i->opening);
    if (i->inner)
        client_close(steal(&i->inner));
    inspect_h2_free(steal(&i->h2));
    stream_free(steal(&i->client));
    stream_free(steal(&i->upstream));
    loop_free_later(i->loop, i, free_memory);
}

/* ---- facts for the record ---- */

static void
add_fact(struct buf *b, const char *name, const char *value)
{
    if (!value || !value[0])
        return;
    buf_printf(b, "%s\"%s\":", buf_len(b) ? "," : "", name);
    json_append_string(b, slice_str(value), 256);
}

static void
note_upstream(struct inspection *i)
{
    struct upstream_agreed agreed;
    upstream_tls_agreed(stream_tls(i->upstream), &agreed);
    snprintf(i->opening->alpn, sizeof i->opening->alpn, "%s", agreed.alpn);
    add_fact(&i->facts, "alpn", agreed.alpn);
    add_fact(&i->facts, "tls_upstream", agreed.version);
    add_fact(&i->facts, "upstream_certificate", agreed.certificate);
    add_fact(&i->facts, "upstream_issuer", agreed.issuer);
}

struct slice
inspect_facts(const struct inspection *i)
{
    return buf_len(&i->facts) ? buf_slice(&i->facts) : slice_of(NULL, 0);
}

/* ---- the client's side ---- */

static struct leaf_store *
leaves_of(const struct exchange *x)
{
    return x->proxy->keeper ? keeper_link_leaves(x->proxy->keeper) : NULL;
}

static void
set_deadline(struct inspection *i)
{
    int64_t delay_ms = snapshot_settings(i->x->snapshot)->head_timeout_ms;
    stream_set_deadline(i->client, loop_now_ms(i->loop) + delay_ms);
}

static void
accept_client(struct inspection *i)
{
    struct exchange *x = i->x;
    if (!leaves_of(x)) {
        give_up(i, REASON_INTERNAL, "leaf");
        return;
    }
    exchange_enter(x, EXCHANGE_CLIENT_TLS);
    set_deadline(i);
    stream_accept_tls(i->client, leaf_context(leaves_of(x)), buf_slice(&i->opening->first));
    buf_done(&i->opening->first);
    buf_init(&i->opening->first, 0);
    /* Who may resume what: nobody but this sandbox under this policy, and no other host. */
    cleanup_free char *partition = mem_printf("%s\n%s", x->identity->sub, policy_sha256(x->policy));
    if (!leaf_apply(i->opening->leaf, stream_tls(i->client), i->opening->alpn, slice_str(partition), x->ask->target.port))
        give_up(i, REASON_INTERNAL, "leaf");
}

static void
on_leaf(void *owner, enum reason reason, struct leaf *leaf)
{
    struct inspection *i = owner;
    i->opening->wait = NULL;
    i->opening->leaf = leaf;
    if (reason != REASON_OK)
        give_up(i, reason, "leaf");
    else
        accept_client(i);
}

static struct leaf_ask
ask_for(const struct exchange *x)
{
    return (struct leaf_ask){
        .policy = policy_name(x->policy),
        .policy_sha256 = policy_sha256(x->policy),
        .host = &x->ask->target.host,
        .port = x->ask->target.port,
        .token = x->ask->token,
    };
}

bool
inspect_has_leaf_room(const struct exchange *x)
{
    struct leaf_store *leaves = leaves_of(x);
    struct leaf_ask ask = ask_for(x);
    int64_t wall_us = loop_wall_us(x->proxy->loop);
    return !leaves || shared_leaves_left(x->proxy->shared, slice_str(x->identity->sub), wall_us) ||
           !leaf_must_be_asked(leaves, &ask, wall_us / 1000000);
}

static void
get_leaf(struct inspection *i)
{
    struct exchange *x = i->x;
    struct leaf_store *leaves = leaves_of(x);
    struct leaf_ask ask = ask_for(x);
    int64_t wall_us = loop_wall_us(i->loop);
    if (!leaves) {
        give_up(i, REASON_INTERNAL, "leaf");
        return;
    }
    /* There was a leaf, or room for one, when the tunnel was let in; others of this sandbox may have been quicker. */
    if (leaf_must_be_asked(leaves, &ask, wall_us / 1000000) &&
        !shared_take_leaf(x->proxy->shared, slice_str(x->identity->sub), wall_us)) {
        exchange_deny_in_tunnel(x, REASON_LIMIT_REQUESTS);
        return;
    }
    set_deadline(i);
    i->opening->leaf = leaf_get(leaves, &ask, wall_us / 1000000, on_leaf, i, &i->opening->wait);
    if (i->opening->leaf)
        accept_client(i);
    else if (!i->opening->wait)
        give_up(i, REASON_OVERLOADED, "leaf");
}

static void
begin_requests(struct inspection *i)
{
    bool http2 = strcmp(i->opening->alpn, HTTP2) == 0;
    exchange_enter(i->x, EXCHANGE_SERVING);
    add_fact(&i->facts, "tls_client", SSL_get_version(stream_tls(i->client)));
    /* An idle tunnel keeps nothing of how it came about. */
    opening_free(steal(&i->opening));
    exchange_forget_ask(i->x);
    if (http2) {
        i->h2 = inspect_h2_new(i, steal(&i->client), steal(&i->upstream));
        return;
    }
    i->inner = client_new_inside(i, i->x, steal(&i->client));
    if (i->upstream)
        inspect_return(i, steal(&i->upstream));
}

/* ---- the upstream's side ---- */

static bool
offers(const struct inspection *i, const char *protocol)
{
    for (size_t k = 0; k < i->opening->hello.alpn_count; k++)
        if (strcmp(i->opening->hello.alpn[k], protocol) == 0)
            return true;
    return false;
}

/* There is no upstream to go by: what the client understands. */
static void
choose_alpn(struct inspection *i)
{
    snprintf(i->opening->alpn, sizeof i->opening->alpn, "%s", offers(i, HTTP11) ? HTTP11 : offers(i, HTTP2) ? HTTP2 : "");
}

/* No request can be served: each will hear why. */
static void
mark_fault(struct inspection *i, enum reason reason, const char *detail)
{
    i->fault = reason;
    free(i->detail);
    i->detail = detail && detail[0] ? mem_strdup(detail) : NULL;
    stream_free(steal(&i->upstream));
    choose_alpn(i);
    get_leaf(i);
}

static void
on_handshake_failed(struct inspection *i)
{
    struct upstream_fault fault;
    upstream_tls_explain(stream_tls(i->upstream), &fault);
    mark_fault(i, REASON_UPSTREAM_TLS, fault.detail);
}

/* What the client offered and we can carry, in its order. */
static size_t
offered(const struct inspection *i, char (*ret)[UPSTREAM_ALPN_SIZE])
{
    size_t n = 0;
    for (size_t k = 0; k < i->opening->hello.alpn_count; k++)
        if (strcmp(i->opening->hello.alpn[k], HTTP11) == 0 || strcmp(i->opening->hello.alpn[k], HTTP2) == 0)
            snprintf(ret[n++], UPSTREAM_ALPN_SIZE, "%s", i->opening->hello.alpn[k]);
    return n;
}

static void
connect_upstream_tls(struct exchange *x)
{
    struct inspection *i = x->inspection;
    struct upstream_tls *tls = x->proxy->keeper ? keeper_link_upstream(x->proxy->keeper) : NULL;
    char name[HOST_TEXT_SIZE], alpn[8][UPSTREAM_ALPN_SIZE];
    i->upstream = steal(&x->upstream);
    stream_set_owner(i->upstream, on_upstream, i);
    exchange_enter(x, EXCHANGE_UPSTREAM_TLS);
    stream_set_deadline(i->upstream, loop_now_ms(i->loop) + snapshot_settings(x->snapshot)->connect_timeout_ms);
    if (!tls) {
        mark_fault(i, REASON_UPSTREAM_TLS, "no trusted certificates are configured");
        return;
    }
    cleanup_free char *partition = mem_printf("%s\n%s", x->identity->sub, policy_sha256(x->policy)); /* no origin links two sandboxes */
    stream_connect_tls(i->upstream, upstream_tls_context(tls), upstream_tls_name(&x->ask->target.host, name));
    if (!upstream_tls_prepare(tls, stream_tls(i->upstream), &x->ask->target.host, x->ask->target.port, slice_str(partition),
                              (const char(*)[UPSTREAM_ALPN_SIZE])alpn, offered(i, alpn)))
        mark_fault(i, REASON_UPSTREAM_TLS, "the connection could not be prepared");
}

static void
on_dialed(void *owner, enum reason reason, struct stream *stream, const struct addr *address)
{
    struct exchange *x = owner;
    x->ask->dial = NULL;
    if (reason != REASON_OK) {
        mark_fault(x->inspection, reason, NULL);
        return;
    }
    x->upstream = stream;
    if (address && address->family)
        x->address = *address;
    reason = exchange_judge_again(x, &x->address, 1);
    if (reason != REASON_OK)
        give_up(x->inspection, reason, reason_text(reason));
    else if (snapshot_settings(x->snapshot)->parent_url)
        parent_start(x, connect_upstream_tls);
    else
        connect_upstream_tls(x);
}

/* Between requests. */
static void
on_idle_upstream(struct inspection *i, enum stream_event event)
{
    /* TLS has things of its own to say (session tickets, key updates): nothing of them is left to read. */
    size_t got = 0;
    if (event == STREAM_READABLE && stream_read(i->upstream, i->x->proxy->scratch, 1, &got) == STREAM_AGAIN)
        return;
    /* Whatever else it says or does, the connection is of no more use. The client's ends with it, unless there is something to say. */
    bool refused = inspect_refused_late(i, i->upstream);
    stream_free(steal(&i->upstream));
    if (i->inner && !refused)
        client_close(steal(&i->inner));
}

static void
on_upstream(void *owner, enum stream_event event)
{
    struct inspection *i = owner;
    if (i->x->state != EXCHANGE_UPSTREAM_TLS) {
        on_idle_upstream(i, event);
        return;
    }
    switch (event) {
    case STREAM_SECURED:
        note_upstream(i);
        stream_set_deadline(i->upstream, 0);
        stream_want(i->upstream, false, false);
        get_leaf(i);
        break;
    case STREAM_FAILED:
        on_handshake_failed(i);
        break;
    case STREAM_TIMEOUT:
        mark_fault(i, REASON_UPSTREAM_TIMEOUT, NULL);
        break;
    case STREAM_READABLE:
    case STREAM_WRITABLE:
        break;
    }
}

/* ---- the first flight ---- */

static void
take_hello(struct inspection *i)
{
    enum reason r = tunnel_check_hello(i->x, &i->opening->hello);
    if (r != REASON_OK) {
        exchange_deny_in_tunnel(i->x, r);
        return;
    }
    stream_want(i->client, false, false);
    if (i->denied != REASON_OK) {
        choose_alpn(i);
        get_leaf(i);
    } else {
        stream_set_deadline(i->client, 0);
        exchange_dial(i->x, on_dialed);
    }
}

static void
peek(struct inspection *i, bool eof)
{
    struct opening *o = i->opening;
    switch (hello_read(buf_slice(&o->first), &o->hello)) {
    case HELLO_MORE:
        if (eof)
            give_up(i, REASON_OK, "client_closed");
        else if (buf_room(&o->first) == 0)
            exchange_deny_in_tunnel(i->x, REASON_NOT_TLS);
        break;
    case HELLO_NOT_TLS:
    case HELLO_MALFORMED:
        exchange_deny_in_tunnel(i->x, REASON_NOT_TLS);
        break;
    case HELLO_COMPLETE:
        take_hello(i);
        break;
    }
}

static void
read_hello(struct inspection *i)
{
    struct opening *o = i->opening;
    bool eof = false;
    while (!eof && buf_room(&o->first)) {
        size_t got = 0, room = buf_room(&o->first) < 16384 ? buf_room(&o->first) : 16384;
        enum stream_io io = stream_read(i->client, buf_reserve(&o->first, room), room, &got);
        if (io == STREAM_AGAIN)
            break;
        if (io == STREAM_ERROR) {
            give_up(i, REASON_OK, "client_reset");
            return;
        }
        eof = io == STREAM_EOF;
        buf_commit(&o->first, got);
    }
    peek(i, eof);
}

/* False: it has ended. */
static bool
flush(struct inspection *i)
{
    struct opening *o = i->opening;
    while (buf_len(&o->out)) {
        size_t sent = 0;
        enum stream_io io = stream_write_slice(i->client, buf_slice(&o->out), &sent);
        if (io == STREAM_AGAIN)
            break;
        if (io != STREAM_DONE) {
            give_up(i, REASON_OK, "client_reset");
            return false;
        }
        buf_consume(&o->out, sent);
    }
    stream_want(i->client, buf_len(&o->out) == 0, buf_len(&o->out) > 0);
    return true;
}

static void
on_client(void *owner, enum stream_event event)
{
    struct inspection *i = owner;
    switch (event) {
    case STREAM_READABLE:
        if (i->x->state == EXCHANGE_PEEKING)
            read_hello(i);
        break;
    case STREAM_WRITABLE:
        if (i->x->state == EXCHANGE_PEEKING)
            flush(i);
        break;
    case STREAM_SECURED:
        stream_set_deadline(i->client, 0);
        begin_requests(i);
        break;
    case STREAM_FAILED:
        /* Most often: the client does not trust the inspection CA. */
        give_up(i, REASON_OK, i->x->state == EXCHANGE_CLIENT_TLS ? "client_handshake" : "client_reset");
        break;
    case STREAM_TIMEOUT:
        give_up(i, REASON_OK, i->x->state == EXCHANGE_PEEKING ? "first_flight_timeout" : "client_handshake_timeout");
        break;
    }
}

void
inspect_start(struct exchange *x, struct stream *client, struct buf *from_client, struct slice to_client, enum reason denied)
{
    struct inspection *i = mem_zalloc(sizeof *i);
    struct opening *o = mem_zalloc(sizeof *o);
    i->x = x;
    i->loop = x->proxy->loop;
    i->opening = o;
    i->client = client;
    i->denied = denied;
    i->fault = REASON_OK;
    o->first = *from_client;
    o->first.cap = buf_len(from_client) > HELLO_MAX ? buf_len(from_client) : HELLO_MAX; /* limits.head_bytes may be larger */
    buf_init(from_client, 0);
    buf_init(&o->out, 256);
    buf_init(&i->facts, FACTS_MAX);
    buf_append_slice(&o->out, to_client);
    x->inspection = i;
    stream_set_owner(client, on_client, i);
    exchange_enter(x, EXCHANGE_PEEKING);
    set_deadline(i);
    if (flush(i) && buf_len(&o->first))
        peek(i, false);
}

/* ---- for the requests inside ---- */

struct exchange *
inspect_tunnel(struct inspection *i)
{
    return i->x;
}

enum reason
inspect_denied(const struct inspection *i)
{
    return i->denied;
}

enum reason
inspect_fault(const struct inspection *i, const char **ret_detail)
{
    *ret_detail = i->detail;
    return i->fault;
}

bool
inspect_was_used(const struct inspection *i)
{
    return i->used;
}

bool
inspect_refused_late(struct inspection *i, struct stream *upstream)
{
    struct upstream_fault fault;
    if (i->used || !upstream_tls_refused_late(stream_tls(upstream), &fault))
        return false;
    i->fault = REASON_UPSTREAM_TLS;
    free(i->detail);
    i->detail = mem_strdup(fault.detail);
    return true;
}

struct stream *
inspect_borrow(struct inspection *i)
{
    return steal(&i->upstream);
}

void
inspect_return(struct inspection *i, struct stream *upstream)
{
    i->used = i->used || i->inner->requests > 0;
    i->upstream = upstream;
    stream_set_owner(upstream, on_upstream, i);
    stream_set_deadline(upstream, 0);
    stream_want(upstream, true, false);
}

void
inspect_count(struct inspection *i, uint64_t up, uint64_t down)
{
    i->x->bytes_up += up;
    i->x->bytes_down += down;
    i->x->active_ms = loop_now_ms(i->loop);
}

void
inspect_note_fault(struct inspection *i, const char *member, const char *text)
{
    add_fact(&i->facts, member, text);
}

void
inspect_client_gone(struct inspection *i)
{
    i->inner = NULL;
    if (!i->over)
        exchange_finish(i->x, "client_closed");
}

void
inspect_detach(struct inspection *i)
{
    i->inner = NULL;
    i->detached = true;
}

void
inspect_child_ended(struct inspection *i)
{
    if (i->detached && !i->over)
        exchange_finish(i->x, "complete");
}
