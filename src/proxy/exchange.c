/* The life of one request (DESIGN section 4): straight through what is pure, then from wait to wait. Decide before effect:
 * no query before the name is allowed and on record, no SYN before the decision is, no byte before it is kept. */
#include "sallyport/proxy/exchange.h"

#include "sallyport/auth/credential.h"
#include "sallyport/base/arena.h"
#include "sallyport/base/clock.h"
#include "sallyport/base/diag.h"
#include "sallyport/base/mem.h"
#include "sallyport/proxy/account.h"
#include "sallyport/proxy/forward.h"
#include "sallyport/proxy/parent.h"
#include "sallyport/proxy/pool.h"
#include "sallyport/proxy/transparent.h"
#include "sallyport/proxy/tunnel.h"

#define EXCHANGE_ARENA 4096
#define RETRY_AFTER_S 10
#define RAW_TARGET_MAX 1024 /* of a head that cannot be parsed, for its record */
/* How many bytes upstream are counted before they are taken from the shared budget: one atomic add a burst. */
#define BUDGET_STEP 65536

static void find_addresses(struct exchange *x);
static void judge(struct exchange *x, const struct addr *answers, size_t count);
static void serve(struct exchange *x);

/* ---- state ---- */

/* Which states may follow which: row = from, bit = to. */
#define TO(s) (1u << EXCHANGE_##s)
static const unsigned transitions[] = {
    [EXCHANGE_NEW] = TO(HANDING) | TO(RESOLVING) | TO(CLOSING),
    [EXCHANGE_HANDING] = TO(RESOLVING) | TO(DIALING) | TO(KEEPING) | TO(CLOSING),
    [EXCHANGE_RESOLVING] = TO(HANDING) | TO(CLOSING),
    [EXCHANGE_DIALING] = TO(CHAINING) | TO(KEEPING) | TO(SERVING) | TO(CLOSING),
    [EXCHANGE_CHAINING] = TO(PEEKING) | TO(RELAYING) | TO(SERVING) | TO(CLOSING),
    [EXCHANGE_KEEPING] = TO(CHAINING) | TO(PEEKING) | TO(RELAYING) | TO(SERVING) | TO(CLOSING),
    [EXCHANGE_PEEKING] = TO(RELAYING) | TO(CLOSING),
    [EXCHANGE_RELAYING] = TO(CLOSING),
    [EXCHANGE_SERVING] = TO(DIALING) | TO(RELAYING) | TO(CLOSING),
    [EXCHANGE_CLOSING] = TO(DONE),
    [EXCHANGE_DONE] = 0,
};

void
exchange_enter(struct exchange *x, enum exchange_state next)
{
    if (!(transitions[x->state] & (1u << next))) {
        diag(DIAG_ALARM, "exchange %s: impossible step from state %d to %d", x->id, x->state, next);
        abort();
    }
    x->state = next;
}

/* ---- beginning and end ---- */

static struct exchange *
exchange_new(struct client *c)
{
    struct proxy *p = c->proxy;
    struct exchange *x = mem_zalloc(sizeof *x);
    x->proxy = p;
    x->client = c;
    x->port = c->port;
    x->snapshot = snapshot_ref(p->snapshot);
    x->arena = arena_new(EXCHANGE_ARENA);
    x->from = c->from;
    memcpy(x->x5t, c->x5t, sizeof x->x5t);
    if (c->from.certificate_x5t)
        x->from.certificate_x5t = x->x5t;
    memcpy(x->client_address, c->address, sizeof x->client_address);
    random_ulid(loop_wall_us(p->loop) / 1000, x->id);
    x->started_ms = x->active_ms = loop_now_ms(p->loop);
    x->started_us = clock_mono_us();
    x->reason = REASON_OK;
    c->exchange = x;
    list_append(&p->exchanges, &x->node);
    return x;
}

static void
free_memory(void *ptr)
{
    struct exchange *x = ptr;
    arena_free(x->arena);
    identity_unref(x->identity);
    snapshot_unref(x->snapshot);
    free(x->sni);
    free(x);
}

static void
spend(struct exchange *x)
{
    struct budget_limits limits = exchange_limits(x);
    if (x->unspent_up && x->identity)
        shared_spend_bytes(x->proxy->shared, slice_str(x->identity->sub), &limits, x->unspent_up);
    shared_add(x->proxy->shared, COUNTER_BYTES_UP, x->unspent_up);
    shared_add(x->proxy->shared, COUNTER_BYTES_DOWN, x->bytes_down);
    x->unspent_up = 0;
}

/* Everything that is under way ends; no callback comes afterwards. */
static void
release(struct exchange *x)
{
    journal_cancel(&x->wait);
    if (x->resolve)
        resolve_cancel(steal(&x->resolve));
    if (x->dial)
        dial_cancel(steal(&x->dial));
    endpoints_free(steal(&x->endpoints));
    parent_free(steal(&x->parent));
    tunnel_free(steal(&x->tunnel));
    forward_free(steal(&x->forward));
    stream_free(steal(&x->upstream));
    if (x->holds_tunnel) {
        shared_close_tunnel(x->proxy->shared, x->proxy->worker, slice_str(x->identity->sub));
        shared_add(x->proxy->shared, COUNTER_TUNNELS_CLOSED, 1);
        x->holds_tunnel = false;
    }
}

void
exchange_finish(struct exchange *x, const char *cause)
{
    if (x->state == EXCHANGE_CLOSING || x->state == EXCHANGE_DONE)
        return;
    exchange_enter(x, EXCHANGE_CLOSING);
    x->cause = cause;
    if (x->client && x->client->exchange == x)
        x->client->exchange = NULL;
    release(x);
    spend(x);
    /* A challenge is the first half of a handshake, not an exchange of its own: its one record says all. */
    if (x->reason != REASON_TOKEN_MISSING)
        account_close(x);
    exchange_enter(x, EXCHANGE_DONE);
    x->proxy->tunnels -= x->detached;
    list_remove(&x->proxy->exchanges, &x->node);
    loop_free_later(x->proxy->loop, x, free_memory);
    proxy_settle(x->proxy);
}

/* The reply is built before the exchange ends, and sent after it: its facts are the exchange's. */
static void
reply_and_finish(struct exchange *x, enum reason reason, const char *detail, const char *cause)
{
    struct client *c = x->client;
    char id[ULID_TEXT_SIZE];
    memcpy(id, x->id, sizeof id);
    struct target target = x->target;
    char rule[RULE_TEXT_SIZE];
    memcpy(rule, x->verdict.rule, sizeof rule);
    int status = reason_status(reason);
    struct reply_facts facts = {
        .reason = reason,
        .target = x->has_target ? &target : NULL,
        .rule = rule[0] ? rule : NULL,
        .instance = id,
        .detail = detail,
        .head_request = x->arena && slice_is(x->head.method, "HEAD"),
        .close = true,
        .retry_after_s = status == 429 || status == 503 ? RETRY_AFTER_S : 0,
    };
    bool in_http = x->kind != EXCHANGE_TRANSPARENT || x->speaks_http;
    x->status = in_http ? (uint16_t)status : 0;
    exchange_finish(x, cause);
    if (c && in_http)
        client_reply(c, &facts);
    else if (c)
        client_refuse(c, transparent_alert());
}

/* No decision to allow has been recorded yet: this is the decision. */
static void
refuse(struct exchange *x, enum reason reason)
{
    if (reason == REASON_UNDECIDED)
        reason = REASON_INTERNAL;
    x->reason = reason;
    account_decision(x, reason);
    reply_and_finish(x, reason, NULL, "refused");
}

void
exchange_fail(struct exchange *x, enum reason reason, const char *detail)
{
    if (!x->decided) {
        refuse(x, reason);
        return;
    }
    x->reason = reason;
    if (x->forward && forward_has_answered(x->forward)) {
        struct client *c = x->client;
        exchange_finish(x, reason_text(reason));
        client_free(c);
        return;
    }
    reply_and_finish(x, reason, detail, reason_text(reason));
}

void
exchange_client_gone(struct exchange *x)
{
    exchange_finish(x, "client_aborted");
}

void
exchange_deny_in_tunnel(struct exchange *x, enum reason reason)
{
    x->reason = reason;
    x->denied_in_tunnel = true;
    exchange_finish(x, "refused");
}

/* ---- the pure part ---- */

static enum reason
read_request(struct exchange *x, struct slice head)
{
    struct slice copy = arena_dup(x->arena, head);
    enum reason r = head_parse_request(x->arena, copy, &x->head);
    if (r != REASON_OK) {
        x->head = (struct head){0};
        x->raw_target = copy;
        return r;
    }
    x->raw_target = x->head.target;
    x->kind = slice_is(x->head.method, "CONNECT") ? EXCHANGE_CONNECT : EXCHANGE_FORWARD;
    return REASON_OK;
}

/* The token of a listener that has one is the identity of every request there; a client's own must be of the same sandbox. */
static enum reason
identify_by_listener(struct exchange *x, struct slice own, int64_t now_s)
{
    struct verifier *v = snapshot_verifier(x->snapshot);
    struct slice token = port_token(x->port, x->snapshot);
    bool cached;
    if (!token.ptr)
        return REASON_TOKEN_MISSING;
    enum reason r = verifier_check(v, token, &x->from, now_s, &x->identity, &cached);
    if (r != REASON_OK || !own.ptr)
        return r;
    struct identity *theirs = NULL;
    r = verifier_check(v, own, &x->from, now_s, &theirs, &cached);
    if (r == REASON_OK && strcmp(theirs->sub, x->identity->sub) != 0)
        r = REASON_TOKEN_BINDING;
    identity_unref(theirs);
    return r;
}

static struct slice
client_ip(const struct exchange *x)
{
    return slice_of(x->from.client.bytes, x->from.client.family ? sizeof x->from.client.bytes : 0);
}

static enum reason
identify_by_credential(struct exchange *x, struct slice token, int64_t now_s)
{
    struct shared *shared = x->proxy->shared;
    bool cached = false;
    if (shared_failed_tokens_limited(shared, client_ip(x), now_s))
        return REASON_LIMIT_REQUESTS;
    enum reason r = verifier_check(snapshot_verifier(x->snapshot), token, &x->from, now_s, &x->identity, &cached);
    if (r == REASON_TOKEN_SIGNATURE)
        shared_note_failed_token(shared, client_ip(x), now_s);
    shared_add(shared, r != REASON_OK ? COUNTER_TOKENS_FAILED : cached ? COUNTER_TOKENS_CACHED : COUNTER_TOKENS_VERIFIED, 1);
    return r;
}

static enum reason
identify(struct exchange *x)
{
    int64_t now_s = loop_wall_us(x->proxy->loop) / 1000000;
    bool by_listener = x->port->settings->token_file || x->port->settings->token_fd;
    struct slice token = {0};
    enum reason r = credential_read(x->arena, &x->head, &token);
    if (r != REASON_OK && !(by_listener && r == REASON_TOKEN_MISSING))
        return r;
    r = by_listener ? identify_by_listener(x, token, now_s) : identify_by_credential(x, token, now_s);
    if (r != REASON_OK)
        return r;
    return snapshot_policy(x->snapshot, x->identity, &x->policy);
}

/* "OPTIONS http://host HTTP/1.1" without a path asks about the server as a whole (RFC 9110 section 9.3.7). */
static bool
is_server_options(const struct exchange *x)
{
    static const char scheme[] = "http://";
    struct slice t = x->head.target;
    if (!slice_is(x->head.method, "OPTIONS") || t.len <= sizeof scheme - 1)
        return false;
    struct slice authority = slice_of(t.ptr + sizeof scheme - 1, t.len - (sizeof scheme - 1));
    return !slice_has_byte(authority, '/') && !slice_has_byte(authority, '?');
}

static enum reason
make_out_target(struct exchange *x)
{
    enum reason r = x->kind == EXCHANGE_CONNECT ? target_from_authority(x->head.target, &x->target)
                                                : target_from_uri(x->head.target, &x->target, &x->path);
    if (r != REASON_OK)
        return r;
    x->has_target = true;
    if (is_server_options(x))
        x->path = slice_str("*");
    size_t count = 0;
    struct slice host = head_field(&x->head, "Host", &count);
    return count ? target_check_host_field(&x->target, host) : REASON_OK;
}

static enum reason
check_method(const struct exchange *x)
{
    if (x->kind != EXCHANGE_FORWARD)
        return REASON_OK;
    enum reason r = method_check(x->head.method);
    return r == REASON_METHOD_UNKNOWN && policy_knows_method(x->policy, x->head.method) ? REASON_OK : r;
}

static enum reason
decide(struct exchange *x)
{
    enum reason r = check_method(x);
    if (r != REASON_OK)
        return r;
    struct question q = {.target = &x->target};
    if (x->kind == EXCHANGE_FORWARD) {
        q.method = x->head.method;
        q.path = x->path;
    }
    policy_decide(x->policy, &q, &x->verdict);
    switch (x->verdict.action) {
    case ACTION_DENY:
        return x->verdict.reason;
    case ACTION_ALLOW:
        return REASON_OK;
    case ACTION_INSPECT: /* loads only where inspection is; a policy cannot ask for it here */
        return REASON_INTERNAL;
    }
    return REASON_INTERNAL;
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

/* Whether there is room for what is allowed: records, budgets, and the proxy itself. */
static enum reason
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
    if (x->kind == EXCHANGE_FORWARD)
        return REASON_OK;
    r = shared_open_tunnel(shared, x->proxy->worker, sandbox, &limits);
    if (r == REASON_OK) {
        x->holds_tunnel = true;
        shared_add(shared, COUNTER_TUNNELS_OPENED, 1);
    }
    return r;
}

void
exchange_start(struct client *c, struct slice head)
{
    struct exchange *x = exchange_new(c);
    enum reason r = read_request(x, head);
    if (r == REASON_OK)
        r = identify(x);
    if (r == REASON_OK)
        r = make_out_target(x);
    if (r == REASON_OK)
        r = decide(x);
    if (r == REASON_OK)
        r = admit(x);
    if (r == REASON_OK)
        find_addresses(x);
    else
        refuse(x, r);
}

void
exchange_start_transparent(struct client *c, const struct target *target, enum reason reason)
{
    struct exchange *x = exchange_new(c);
    c->state = CLIENT_EXCHANGE;
    stream_set_deadline(c->stream, 0);
    x->kind = EXCHANGE_TRANSPARENT;
    x->speaks_http = buf_len(&c->in) > 0 && buf_slice(&c->in).ptr[0] >= 'A' && buf_slice(&c->in).ptr[0] <= 'Z';
    if (target) {
        x->target = *target;
        x->has_target = true;
    } else if (reason == REASON_OK) {
        reason = REASON_REQUEST_MALFORMED;
    }
    enum reason r = identify_by_listener(x, slice_of(NULL, 0), loop_wall_us(x->proxy->loop) / 1000000);
    if (r == REASON_OK)
        r = snapshot_policy(x->snapshot, x->identity, &x->policy);
    if (r == REASON_OK)
        r = reason;
    if (r == REASON_OK)
        r = decide(x);
    if (r == REASON_OK)
        r = admit(x);
    if (r == REASON_OK)
        find_addresses(x);
    else
        refuse(x, r);
}

void
exchange_start_refused(struct client *c, struct slice raw, enum reason reason)
{
    struct exchange *x = exchange_new(c);
    x->raw_target = arena_dup(x->arena, slice_of(raw.ptr, raw.len < RAW_TARGET_MAX ? raw.len : RAW_TARGET_MAX));
    refuse(x, reason);
}

/* ---- the waits ---- */

/* Waits until the recorder has the record (handed), or has kept it. */
static void
wait_for_record(struct exchange *x, enum exchange_state state, uint64_t ticket, bool handed, void (*then)(void *, bool))
{
    if (ticket == 0) {
        exchange_fail(x, REASON_RECORD_UNAVAILABLE, NULL);
        return;
    }
    exchange_enter(x, state);
    if (x->client)
        stream_want(x->client->stream, !x->client->eof && buf_room(&x->client->in) > 0, false);
    journal_wait(x->proxy->journal, &x->wait, ticket, handed, then, x);
}

static void
on_resolved(void *owner, enum reason reason, const struct answers *answers)
{
    struct exchange *x = owner;
    x->resolve = NULL;
    shared_add(x->proxy->shared, reason == REASON_OK ? COUNTER_DNS_OK : COUNTER_DNS_FAILED, 1);
    if (reason != REASON_OK)
        refuse(x, reason);
    else
        judge(x, answers->addrs, answers->count);
}

static void
on_resolve_handed(void *owner, bool kept)
{
    struct exchange *x = owner;
    if (!kept) {
        refuse(x, REASON_RECORD_UNAVAILABLE);
        return;
    }
    exchange_enter(x, EXCHANGE_RESOLVING);
    x->resolve = resolve_start(x->proxy->resolver, x->target.host.text, on_resolved, x);
}

static void
resolve(struct exchange *x)
{
    struct answers answers;
    enum reason r = resolver_lookup(x->proxy->resolver, x->target.host.text, &answers);
    if (r == REASON_OK) {
        shared_add(x->proxy->shared, COUNTER_DNS_CACHED, 1);
        judge(x, answers.addrs, answers.count);
    } else if (r != REASON_UNDECIDED) {
        refuse(x, r);
    } else {
        wait_for_record(x, EXCHANGE_HANDING, account_resolve(x), true, on_resolve_handed);
    }
}

static void
on_dialed(void *owner, enum reason reason, struct stream *stream, const struct addr *address)
{
    struct exchange *x = owner;
    x->dial = NULL;
    shared_observe(x->proxy->shared, HISTOGRAM_CONNECT, clock_mono_us() - x->started_us);
    if (reason != REASON_OK) {
        exchange_fail(x, reason, NULL);
        return;
    }
    x->upstream = stream;
    if (address && address->family)
        x->address = *address;
    serve(x);
}

static void
dial(struct exchange *x)
{
    exchange_enter(x, EXCHANGE_DIALING);
    int64_t timeout_ms = snapshot_settings(x->snapshot)->connect_timeout_ms;
    x->dial = dial_start(x->proxy->loop, steal(&x->endpoints), timeout_ms, on_dialed, x);
}

static void
on_decision_handed(void *owner, bool kept)
{
    struct exchange *x = owner;
    if (!kept)
        exchange_fail(x, REASON_RECORD_UNAVAILABLE, NULL);
    else if (x->pooled)
        serve(x);
    else
        dial(x);
}

static void
record_decision(struct exchange *x)
{
    x->ticket = account_decision(x, REASON_OK);
    wait_for_record(x, EXCHANGE_HANDING, x->ticket, true, on_decision_handed);
}

/* The guard's word on where the name leads; what is dialled later is what was judged here. */
static void
judge(struct exchange *x, const struct addr *answers, size_t count)
{
    enum reason r = guard_judge(snapshot_guard(x->snapshot), x->policy, &x->target, answers, count, &x->endpoints);
    if (r != REASON_OK)
        refuse(x, r);
    else
        record_decision(x);
}

static void
on_parent_resolved(void *owner, enum reason reason, const struct answers *answers)
{
    struct exchange *x = owner;
    x->resolve = NULL;
    if (reason != REASON_OK) {
        refuse(x, reason);
        return;
    }
    x->endpoints = parent_endpoints(x, &answers->addrs[0]);
    record_decision(x);
}

/* With a parent names go on unresolved and its guard judges them; literals are judged here too. The parent's own name comes
 * from the configuration, so that asking for it tells nobody anything about this request. */
static void
find_parent(struct exchange *x)
{
    struct parent_address parent;
    struct answers answers;
    if (x->target.host.kind != HOST_NAME) {
        enum reason r = guard_judge(snapshot_guard(x->snapshot), x->policy, &x->target, &x->target.host.literal, 1, &x->endpoints);
        endpoints_free(steal(&x->endpoints));
        if (r != REASON_OK) {
            refuse(x, r);
            return;
        }
    }
    if (!parent_parse(snapshot_settings(x->snapshot)->parent_url, &parent)) {
        refuse(x, REASON_INTERNAL);
        return;
    }
    const struct host_override *o = snapshot_override(x->snapshot, &parent.host);
    if (parent.host.kind != HOST_NAME)
        on_parent_resolved(x, REASON_OK, &(struct answers){1, {parent.host.literal}});
    else if (o && o->count)
        on_parent_resolved(x, REASON_OK, &(struct answers){1, {o->addrs[0]}});
    else if (resolver_lookup(x->proxy->resolver, parent.host.text, &answers) == REASON_OK)
        on_parent_resolved(x, REASON_OK, &answers);
    else {
        exchange_enter(x, EXCHANGE_RESOLVING);
        x->resolve = resolve_start(x->proxy->resolver, parent.host.text, on_parent_resolved, x);
    }
}

static void
find_addresses(struct exchange *x)
{
    const struct host_override *o = snapshot_override(x->snapshot, &x->target.host);
    if (x->kind == EXCHANGE_FORWARD && (x->upstream = pool_take(x->proxy->pool, x, &x->address))) {
        x->pooled = true;
        record_decision(x);
    } else if (snapshot_settings(x->snapshot)->parent_url) {
        find_parent(x);
    } else if (x->target.host.kind != HOST_NAME) {
        judge(x, &x->target.host.literal, 1);
    } else if (o) {
        judge(x, o->addrs, o->count);
    } else {
        resolve(x);
    }
}

/* A pooled connection turned out to be closed: the same judged request goes out on a new one. */
void
exchange_redial(struct exchange *x)
{
    const struct host_override *o = snapshot_override(x->snapshot, &x->target.host);
    struct addr address = x->address;
    const struct addr *answers = o ? o->addrs : &address;
    size_t count = o ? o->count : 1;
    x->pooled = false;
    x->retried = true;
    enum reason r = REASON_OK;
    if (snapshot_settings(x->snapshot)->parent_url)
        x->endpoints = parent_endpoints(x, &address);
    else
        r = guard_judge(snapshot_guard(x->snapshot), x->policy, &x->target, answers, count, &x->endpoints);
    if (r != REASON_OK)
        exchange_fail(x, r, NULL);
    else
        dial(x);
}

static void
start_tunnel(struct exchange *x)
{
    const char *established = x->kind == EXCHANGE_CONNECT ? "HTTP/1.1 200 Connection established\r\n\r\n" : "";
    struct buf from_client;
    x->status = x->kind == EXCHANGE_CONNECT ? 200 : 0;
    struct stream *client = client_take(steal(&x->client), &from_client);
    tunnel_start(x, client, &from_client, slice_str(established));
}

static void
on_ready(struct exchange *x)
{
    if (x->kind == EXCHANGE_FORWARD)
        forward_start(x);
    else
        start_tunnel(x);
}

static void
on_kept(void *owner, bool kept)
{
    struct exchange *x = owner;
    if (!kept)
        exchange_fail(x, REASON_RECORD_UNAVAILABLE, NULL);
    else if (snapshot_settings(x->snapshot)->parent_url && !x->pooled)
        parent_start(x, on_ready);
    else
        on_ready(x);
}

/* Connected; now the decision must be kept as `durability` says. */
static void
serve(struct exchange *x)
{
    if (x->retried)
        on_kept(x, true);
    else
        wait_for_record(x, EXCHANGE_KEEPING, x->ticket, false, on_kept);
}

/* ---- while it lives ---- */

bool
exchange_count(struct exchange *x, uint64_t up, uint64_t down)
{
    x->bytes_up += up;
    x->bytes_down += down;
    x->unspent_up += up;
    x->active_ms = loop_now_ms(x->proxy->loop);
    if (x->unspent_up < BUDGET_STEP)
        return true;
    struct budget_limits limits = exchange_limits(x);
    uint64_t n = x->unspent_up;
    x->unspent_up = 0;
    shared_add(x->proxy->shared, COUNTER_BYTES_UP, n);
    if (!limits.bytes_up || shared_spend_bytes(x->proxy->shared, slice_str(x->identity->sub), &limits, n))
        return true;
    x->reason = REASON_LIMIT_BYTES;
    exchange_finish(x, "limit_bytes");
    return false;
}

/* On a listener with a token the renewed token carries on what the old one began, for the same sandbox and policy. */
static void
follow_renewed_token(struct exchange *x, struct snapshot *s, int64_t now_s)
{
    struct slice token = port_token(x->port, s);
    struct identity *fresh = NULL;
    bool cached;
    if (!token.ptr || verifier_check(snapshot_verifier(s), token, &x->from, now_s, &fresh, &cached) != REASON_OK)
        return;
    const char *a = fresh->policy_name ? fresh->policy_name : "", *b = x->identity->policy_name ? x->identity->policy_name : "";
    if (strcmp(fresh->sub, x->identity->sub) == 0 && strcmp(a, b) == 0) {
        identity_unref(x->identity);
        x->identity = steal(&fresh);
    }
    identity_unref(fresh);
}

static enum reason
decide_again(struct exchange *x, struct snapshot *s)
{
    const struct policy *policy = NULL;
    struct verdict v;
    enum reason r = snapshot_policy(s, x->identity, &policy);
    if (r != REASON_OK)
        return r;
    struct question q = {.target = &x->target};
    if (x->arena && x->kind == EXCHANGE_FORWARD) {
        q.method = x->head.method;
        q.path = x->path;
    }
    policy_decide(policy, &q, &v);
    if (v.action != ACTION_ALLOW)
        return v.reason;
    struct endpoints *e = NULL;
    if (x->address.family && !snapshot_settings(s)->parent_url)
        r = guard_judge(snapshot_guard(s), policy, &x->target, &x->address, 1, &e);
    endpoints_free(e);
    return r;
}

static void
cut(struct exchange *x, enum reason reason, const char *cause)
{
    x->reason = reason;
    if (x->client)
        exchange_fail(x, reason, NULL);
    else
        exchange_finish(x, cause);
}

void
exchange_recheck(struct exchange *x, bool snapshot_changed)
{
    struct snapshot *s = x->proxy->snapshot;
    const struct settings *set = snapshot_settings(s);
    int64_t now_s = loop_wall_us(x->proxy->loop) / 1000000, now_ms = loop_now_ms(x->proxy->loop);
    if (!x->policy || !x->has_target)
        return;
    if (x->port->settings->token_file || x->port->settings->token_fd)
        follow_renewed_token(x, s, now_s);
    enum reason r = verifier_recheck(snapshot_verifier(s), x->identity, &x->from, now_s);
    if (r == REASON_OK && snapshot_changed)
        r = decide_again(x, s);
    if (r != REASON_OK) {
        cut(x, r, reason_text(r));
        return;
    }
    bool tunnel = x->state == EXCHANGE_PEEKING || x->state == EXCHANGE_RELAYING;
    if (tunnel && set->lifetime_ms && now_ms - x->started_ms > set->lifetime_ms)
        exchange_finish(x, "lifetime");
    else if (tunnel && set->idle_timeout_ms && now_ms - x->active_ms > set->idle_timeout_ms)
        exchange_finish(x, "idle_timeout");
    else if (x->forward && set->idle_timeout_ms && now_ms - x->active_ms > set->idle_timeout_ms)
        forward_idle(x->forward);
}
