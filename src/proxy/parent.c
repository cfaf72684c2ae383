/* Chaining through another proxy. The parent gets our own credential, never the sandbox's token, and its verdict is relayed
 * with its reason. */
#include "sallyport/proxy/parent.h"

#include "sallyport/base/arena.h"
#include "sallyport/base/encoding.h"
#include "sallyport/base/mem.h"
#include "sallyport/tls/context.h"

#define PARENT_HEAD_MAX 32768

struct parent {
    struct exchange *x;
    struct loop *loop;
    bool tls;
    struct buf out, in;
    struct head_scan scan;
    void (*on_ready)(struct exchange *x);
    bool over;
};

bool
parent_parse(const char *url, struct parent_address *ret)
{
    struct slice s = slice_str(url);
    static const char plain[] = "http://", tls[] = "https://";
    ret->tls = slice_starts_with(s, tls);
    if (!ret->tls && !slice_starts_with(s, plain))
        return false;
    size_t skip = ret->tls ? sizeof tls - 1 : sizeof plain - 1;
    struct slice authority = slice_of(s.ptr + skip, s.len - skip);
    if (authority.len && authority.ptr[authority.len - 1] == '/')
        authority.len--;
    struct target t;
    if (target_from_authority(authority, &t) != REASON_OK)
        return false;
    ret->host = t.host;
    ret->port = t.port;
    return true;
}

struct endpoints *
parent_endpoints(const struct exchange *x, const struct addr *address)
{
    struct parent_address parent = {0};
    struct sockaddr_storage ss;
    parent_parse(snapshot_settings(x->snapshot)->parent_url, &parent);
    socklen_t len = addr_to_sockaddr(address, parent.port, &ss);
    return guard_operator_endpoint(&ss, len);
}

struct slice
parent_authorization(struct exchange *x, struct arena *arena)
{
    struct slice token = slice_trim_ows(snapshot_blob(x->snapshot, "parent-token"));
    if (!token.ptr || !token.len)
        return slice_of(NULL, 0);
    while (token.len && (token.ptr[token.len - 1] == '\n' || token.ptr[token.len - 1] == '\r'))
        token.len--;
    return slice_str(arena_printf(arena, "Bearer %.*s", SLICE_ARG(token)));
}

static void
fail(struct parent *p, enum reason reason, const char *detail)
{
    if (!p->over)
        exchange_fail(p->x, reason, detail);
}

static void
done(struct parent *p)
{
    struct exchange *x = p->x;
    void (*on_ready)(struct exchange *) = p->on_ready;
    parent_free(steal(&x->ask->parent));
    on_ready(x);
}

enum reason
parent_verdict(const struct head *answer)
{
    size_t n = 0;
    struct slice named = head_field(answer, "x-deny-reason", &n);
    enum reason r = n == 1 ? reason_from_text(named) : REASON_UNDECIDED;
    return r != REASON_UNDECIDED && answer->status >= 400 && answer->status != 407 && reason_status(r) >= 400 ? r : REASON_OK;
}

/* What the parent said, in our words: its reason where it names one that we know, else by its status. */
static enum reason
reason_of_answer(const struct head *head)
{
    enum reason r = parent_verdict(head);
    if (r != REASON_OK)
        return r;
    if (head->status == 403)
        return REASON_HOST_NOT_ALLOWED;
    return head->status == 504 ? REASON_UPSTREAM_TIMEOUT : REASON_UPSTREAM_REFUSED;
}

static void
take_answer(struct parent *p, struct slice bytes)
{
    struct exchange *x = p->x;
    struct head head;
    struct arena *arena = arena_new(ARENA_USUAL);
    enum reason r = head_parse_response(arena, bytes, slice_str("CONNECT"), &head);
    if (r == REASON_OK && head.status / 100 != 2) {
        r = reason_of_answer(&head);
        x->refused_by_parent = true;
    }
    arena_free(arena);
    if (r != REASON_OK)
        fail(p, r, PARENT_DETAIL);
    else if (buf_len(&p->in) > p->scan.end)
        fail(p, REASON_UPSTREAM_CLOSED, NULL); /* nobody may speak in the tunnel before we have */
    else
        done(p);
}

static void
read_answer(struct parent *p)
{
    for (;;) {
        /* Byte-exact: what follows the head belongs to the tunnel, so no more is read than a head can hold. */
        size_t got = 0;
        char *at = buf_reserve(&p->in, 1);
        enum stream_io io = at ? stream_read(p->x->upstream, at, 1, &got) : STREAM_ERROR;
        if (io == STREAM_AGAIN)
            return;
        if (io != STREAM_DONE) {
            fail(p, REASON_UPSTREAM_CLOSED, NULL);
            return;
        }
        buf_commit(&p->in, got);
        p->scan.response = true;
        switch (head_scan(&p->scan, buf_slice(&p->in), PARENT_HEAD_MAX)) {
        case HEAD_SCAN_MORE:
            break;
        case HEAD_SCAN_MALFORMED:
        case HEAD_SCAN_TOO_LARGE:
            fail(p, REASON_UPSTREAM_CLOSED, NULL);
            return;
        case HEAD_SCAN_COMPLETE:
            take_answer(p, slice_of(p->in.data + p->in.start + p->scan.start, p->scan.end - p->scan.start));
            return;
        }
    }
}

static void
send_connect(struct parent *p)
{
    while (buf_len(&p->out)) {
        size_t sent = 0;
        enum stream_io io = stream_write_slice(p->x->upstream, buf_slice(&p->out), &sent);
        if (io == STREAM_AGAIN)
            break;
        if (io != STREAM_DONE) {
            fail(p, REASON_UPSTREAM_CLOSED, NULL);
            return;
        }
        buf_consume(&p->out, sent);
    }
    stream_want(p->x->upstream, buf_len(&p->out) == 0, buf_len(&p->out) > 0);
}

/* A tunnel asks the parent for one; a plain request is simply sent to it in absolute form. */
static void
on_secured(struct parent *p)
{
    struct exchange *x = p->x;
    if (x->kind == EXCHANGE_FORWARD) {
        done(p);
        return;
    }
    char authority[TARGET_TEXT_SIZE];
    target_format(&x->ask->target, authority);
    struct slice credential = parent_authorization(x, x->ask->arena);
    buf_printf(&p->out, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", authority, authority);
    if (credential.ptr) {
        buf_append_str(&p->out, "Proxy-Authorization: ");
        buf_append_slice(&p->out, credential);
        buf_append_str(&p->out, "\r\n");
    }
    buf_append_str(&p->out, "\r\n");
    send_connect(p);
}

static void
on_event(void *owner, enum stream_event event)
{
    struct parent *p = owner;
    switch (event) {
    case STREAM_READABLE:
        read_answer(p);
        break;
    case STREAM_WRITABLE:
        send_connect(p);
        break;
    case STREAM_SECURED:
        on_secured(p);
        break;
    case STREAM_FAILED:
        fail(p, p->tls && buf_len(&p->in) == 0 ? REASON_UPSTREAM_TLS : REASON_UPSTREAM_CLOSED, NULL);
        break;
    case STREAM_TIMEOUT:
        fail(p, REASON_UPSTREAM_TIMEOUT, NULL);
        break;
    }
}

void
parent_start(struct exchange *x, void (*on_ready)(struct exchange *x))
{
    struct parent_address address = {0};
    struct parent *p = mem_zalloc(sizeof *p);
    p->x = x;
    p->loop = x->proxy->loop;
    p->on_ready = on_ready;
    buf_init(&p->out, PARENT_HEAD_MAX);
    buf_init(&p->in, PARENT_HEAD_MAX);
    x->ask->parent = p;
    exchange_enter(x, EXCHANGE_CHAINING);
    parent_parse(snapshot_settings(x->snapshot)->parent_url, &address);
    stream_set_owner(x->upstream, on_event, p);
    stream_set_deadline(x->upstream, loop_now_ms(p->loop) + snapshot_settings(x->snapshot)->connect_timeout_ms);
    if (!address.tls) {
        on_secured(p);
        return;
    }
    p->tls = true;
    if (!x->proxy->parent_tls)
        fail(p, REASON_UPSTREAM_TLS, NULL);
    else
        stream_connect_tls(x->upstream, x->proxy->parent_tls, address.host.text);
}

static void
free_memory(void *ptr)
{
    struct parent *p = ptr;
    buf_done(&p->out);
    buf_done(&p->in);
    free(p);
}

void
parent_free(struct parent *p)
{
    if (!p)
        return;
    p->over = true;
    if (p->x->upstream)
        stream_set_deadline(p->x->upstream, 0);
    loop_free_later(p->loop, p, free_memory);
}
