/* The pure part of an exchange: what is asked for, whether it may be, and whether there is room for it. No effects but the
 * budgets that admission takes; no waits. */
#include "sallyport/proxy/request.h"

#include "sallyport/base/arena.h"
#include "sallyport/http/h2_fields.h"
#include "sallyport/proxy/inspect.h"

/* Only a first line that is a request line has a target: anything else may be a credential, or what is left of a body whose
 * length was wrong. */
struct slice
target_of_unread(struct slice head)
{
    struct slice rest, version;
    size_t len = 0;
    while (head.len && (head.ptr[0] == '\r' || head.ptr[0] == '\n'))
        head = slice_of(head.ptr + 1, head.len - 1);
    while (len < head.len && head.ptr[len] >= ' ' && head.ptr[len] <= '~')
        len++;
    struct slice method = slice_split(slice_of(head.ptr, len), ' ', &rest);
    if (!rest.ptr || method_check(method) != REASON_OK)
        return slice_of(NULL, 0);
    struct slice target = slice_split(rest, ' ', &version);
    return version.ptr && slice_starts_with(version, "HTTP/") ? target : slice_of(NULL, 0);
}

enum reason
read_request(struct exchange *x, struct slice head)
{
    struct slice copy = arena_dup(x->ask->arena, head);
    enum reason r = head_parse_request(x->ask->arena, copy, &x->ask->head);
    if (r != REASON_OK) {
        x->ask->head = (struct head){0};
        x->ask->raw_target = target_of_unread(copy);
        return r;
    }
    x->ask->raw_target = x->ask->head.target;
    x->kind = slice_is(x->ask->head.method, "CONNECT") ? EXCHANGE_CONNECT : EXCHANGE_FORWARD;
    return REASON_OK;
}

/* "OPTIONS http://host HTTP/1.1" without a path asks about the server as a whole (RFC 9110 section 9.3.7). */
static bool
is_server_options(const struct exchange *x)
{
    static const char scheme[] = "http://";
    struct slice t = x->ask->head.target;
    if (!slice_is(x->ask->head.method, "OPTIONS") || t.len <= sizeof scheme - 1)
        return false;
    struct slice authority = slice_of(t.ptr + sizeof scheme - 1, t.len - (sizeof scheme - 1));
    return !slice_has_byte(authority, '/') && !slice_has_byte(authority, '?');
}

enum reason
make_out_target(struct exchange *x)
{
    enum reason r = x->kind == EXCHANGE_CONNECT ? target_from_authority(x->ask->head.target, &x->ask->target)
                                                : target_from_uri(x->ask->head.target, &x->ask->target, &x->ask->path);
    if (r != REASON_OK)
        return r;
    x->has_target = true;
    if (is_server_options(x))
        x->ask->path = slice_str("*");
    size_t count = 0;
    struct slice host = head_field(&x->ask->head, "Host", &count);
    return count ? target_check_host_field(&x->ask->target, host) : REASON_OK;
}

bool
exchange_is_request(const struct exchange *x)
{
    return x->kind == EXCHANGE_FORWARD || x->kind == EXCHANGE_INNER;
}

static enum reason
check_method(const struct exchange *x)
{
    if (!exchange_is_request(x))
        return REASON_OK;
    enum reason r = method_check(x->ask->head.method);
    return r == REASON_METHOD_UNKNOWN && policy_knows_method(x->policy, x->ask->head.method) ? REASON_OK : r;
}

/* HTTP/2 says neither a length nor that there is content: only the end of the stream tells. */
static enum question_body
body_of(const struct exchange *x)
{
    switch (x->ask->head.body) {
    case BODY_NONE:
        return QUESTION_BODY_NONE;
    case BODY_LENGTH:
        return x->ask->head.content_length ? QUESTION_BODY_SENT : QUESTION_BODY_NONE;
    case BODY_CHUNKED:
    case BODY_TO_EOF:
        return x->call ? QUESTION_BODY_OPEN : QUESTION_BODY_SENT;
    }
    return QUESTION_BODY_SENT;
}

/* The one that counts; one that is there twice is like none that anybody lists. */
static struct slice
content_type_of(const struct head *head)
{
    size_t count;
    struct slice type = head_field(head, "Content-Type", &count);
    return count > 1 ? slice_str("") : type;
}

void
question_of(const struct exchange *x, struct question *ret)
{
    *ret = (struct question){.target = &x->ask->target};
    if (!exchange_is_request(x))
        return;
    ret->method = x->ask->head.method;
    ret->path = x->ask->path;
    ret->body = body_of(x);
    ret->body_len = x->ask->head.body == BODY_LENGTH ? x->ask->head.content_length : BODY_ANY_LENGTH;
    ret->upgrades = x->ask->head.upgrade_websocket;
    if (ret->body != QUESTION_BODY_NONE)
        ret->content_type = x->call ? x->ask->content_type : content_type_of(&x->ask->head);
}

enum reason
decide(struct exchange *x)
{
    enum reason r = check_method(x);
    if (r != REASON_OK)
        return r;
    struct question q;
    question_of(x, &q);
    policy_decide(x->policy, &q, &x->ask->verdict);
    switch (x->ask->verdict.action) {
    case ACTION_DENY:
        return x->ask->verdict.reason;
    case ACTION_ALLOW:
        return REASON_OK;
    case ACTION_INSPECT: /* what a request may do is not known yet: each will be judged by itself */
        x->inspect = true;
        return exchange_is_request(x) ? REASON_INTERNAL : REASON_OK;
    }
    return REASON_INTERNAL;
}

/* A body of a length that nobody said, held to what its request may bring along. */
enum reason
judge_content(struct exchange *x, uint64_t more)
{
    struct ask *a = x->ask;
    a->content += more;
    if (a->content <= a->verdict.body_max)
        return REASON_OK;
    return a->verdict.body_max ? REASON_BODY_TOO_LARGE : REASON_METHOD_NOT_ALLOWED;
}

struct budget_limits
exchange_limits(const struct exchange *x)
{
    struct budget_limits l = {.tunnels = snapshot_settings(x->snapshot)->tunnels_per_sandbox};
    if (!x->policy)
        return l;
    const struct policy_limits *own = policy_limits_of(x->policy);
    if (own->tunnels && (!l.tunnels || own->tunnels < l.tunnels))
        l.tunnels = own->tunnels;
    l.requests_per_minute = own->requests_per_minute;
    l.bytes_up = own->bytes_up;
    return l;
}

enum reason
exchange_open_tunnel(struct exchange *x)
{
    struct shared *shared = x->proxy->shared;
    struct budget_limits limits = exchange_limits(x);
    enum reason r = shared_open_tunnel(shared, x->proxy->worker, slice_str(x->identity->sub), &limits);
    if (r != REASON_OK)
        return r;
    x->holds_tunnel = true;
    shared_add(shared, COUNTER_TUNNELS_OPENED, 1);
    return REASON_OK;
}

/* Whether there is room for what is allowed: records, budgets, and the proxy itself. */
enum reason
admit(struct exchange *x)
{
    struct shared *shared = x->proxy->shared;
    struct slice sandbox = slice_str(x->identity->sub);
    struct budget_limits limits = exchange_limits(x);
    if (x->proxy->draining)
        return REASON_SHUTTING_DOWN;
    if (!journal_available(x->proxy->journal))
        return REASON_RECORD_UNAVAILABLE;
    enum reason r = shared_begin_request(shared, sandbox, &limits, loop_wall_us(x->proxy->loop) / 1000000);
    if (r != REASON_OK)
        return r;
    if (limits.bytes_up && !shared_spend_bytes(shared, sandbox, &limits, 0))
        return REASON_LIMIT_BYTES;
    if (x->inspect && !inspect_has_leaf_room(x))
        return REASON_LIMIT_REQUESTS;
    return exchange_is_request(x) ? REASON_OK : exchange_open_tunnel(x);
}

/* origin-form, byte-exact; OPTIONS may ask about the server; absolute-form only of the tunnel's own target. */
static enum reason
inner_path(const struct head *head, const struct target *target, struct slice *ret)
{
    static const char scheme[] = "https://";
    struct slice t = head->target;
    if (slice_is(t, "*") && slice_is(head->method, "OPTIONS")) {
        *ret = t;
        return REASON_OK;
    }
    if (slice_starts_with(t, scheme)) {
        struct slice rest = slice_of(t.ptr + sizeof scheme - 1, t.len - (sizeof scheme - 1)), path;
        struct slice authority = slice_split(rest, '/', &path);
        enum reason r = target_check_host_field(target, authority);
        if (r != REASON_OK)
            return r;
        t = path.ptr ? slice_of(path.ptr - 1, path.len + 1) : slice_str("/");
    }
    *ret = t;
    return path_is_wellformed(t) ? REASON_OK : REASON_REQUEST_MALFORMED;
}

/* Inside a tunnel the target is the tunnel's; the request may only repeat it (RFC 9112 section 3.2). */
enum reason
make_out_inner_target(struct exchange *x)
{
    size_t count = 0;
    enum reason r = inner_path(&x->ask->head, &x->ask->target, &x->ask->path);
    struct slice host = head_field(&x->ask->head, "Host", &count);
    if (r == REASON_OK && count)
        r = target_check_host_field(&x->ask->target, host);
    return r;
}

/* What the pipeline looks at is copied; the fields stay with the call, whose stream may end while the exchange waits. */
enum reason
read_call(struct exchange *x, const struct h2_head *head)
{
    size_t count;
    x->kind = EXCHANGE_INNER;
    if (head->too_large)
        return REASON_REQUEST_TOO_LARGE;
    x->ask->head.method = arena_dup(x->ask->arena, head->head.method);
    x->ask->head.target = x->ask->raw_target = arena_dup(x->ask->arena, head->head.target);
    x->ask->head.minor = 1;
    x->ask->head.body = head->head.body;
    x->ask->head.content_length = head->head.content_length;
    if (x->ask->head.body != BODY_NONE)
        x->ask->content_type = arena_dup(x->ask->arena, content_type_of(&head->head));
    /* No tunnels inside tunnels, and no clear text inside TLS. */
    if (slice_is(head->head.method, "CONNECT") || !slice_is(head->scheme, "https"))
        return REASON_REQUEST_MALFORMED;
    enum reason r = make_out_inner_target(x);
    if (r == REASON_OK)
        r = target_check_host_field(&x->ask->target, head->authority);
    struct slice expect = head_field(&head->head, "expect", &count);
    if (r == REASON_OK && count && (count > 1 || !slice_equal_nocase(expect, slice_str("100-continue"))))
        r = REASON_EXPECTATION_UNKNOWN;
    return r;
}
