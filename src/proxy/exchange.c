/* The life of one request (DESIGN section 4): straight through what is pure, then from wait to wait. Decide before effect:
 * no query before the name is allowed and on record, no SYN before the decision is, no byte before it is kept. */
#include "sallyport/proxy/exchange.h"

#include "sallyport/base/arena.h"
#include "sallyport/base/clock.h"
#include "sallyport/base/diag.h"
#include "sallyport/base/mem.h"
#include "sallyport/policy/inspect.h"
#include "sallyport/proxy/account.h"
#include "sallyport/proxy/forward.h"
#include "sallyport/proxy/identify.h"
#include "sallyport/proxy/inspect.h"
#include "sallyport/proxy/inspect_h2.h"
#include "sallyport/proxy/keeperlink.h"
#include "sallyport/proxy/parent.h"
#include "sallyport/proxy/pool.h"
#include "sallyport/proxy/request.h"
#include "sallyport/proxy/transparent.h"
#include "sallyport/proxy/tunnel.h"

#define RETRY_AFTER_S 10
#define RAW_TARGET_MAX 1024 /* of a head that cannot be parsed, for its record */
/* How many bytes upstream are counted before they are taken from the shared budget: one atomic add a burst. */
#define BUDGET_STEP 65536
#define BUDGET_PARTS 64

static void find_addresses(struct exchange *x);
static void release_ask(struct ask *ask);
static void judge(struct exchange *x, const struct addr *answers, size_t count);
static void on_kept(void *owner, bool kept);
static void record_decision(struct exchange *x);
static void wait_for_record(struct exchange *x, enum exchange_state state, uint64_t ticket, bool handed, void (*then)(void *, bool));
static void serve(struct exchange *x);

/* ---- state ---- */

/* Which states may follow which: row = from, bit = to. */
#define TO(s) (1u << EXCHANGE_##s)
static const unsigned transitions[] = {
    [EXCHANGE_NEW] = TO(KEEPING) | TO(HANDING) | TO(RESOLVING) | TO(CLOSING),
    [EXCHANGE_HANDING] = TO(RESOLVING) | TO(DIALING) | TO(KEEPING) | TO(CLOSING),
    [EXCHANGE_RESOLVING] = TO(HANDING) | TO(CLOSING),
    [EXCHANGE_DIALING] = TO(CHAINING) | TO(KEEPING) | TO(UPSTREAM_TLS) | TO(CLIENT_TLS) | TO(SERVING) | TO(CLOSING),
    [EXCHANGE_CHAINING] = TO(UPSTREAM_TLS) | TO(PEEKING) | TO(RELAYING) | TO(SERVING) | TO(CLOSING),
    [EXCHANGE_KEEPING] = TO(CHAINING) | TO(PEEKING) | TO(RELAYING) | TO(SERVING) | TO(CLOSING),
    [EXCHANGE_PEEKING] = TO(RELAYING) | TO(DIALING) | TO(CLIENT_TLS) | TO(CLOSING),
    [EXCHANGE_UPSTREAM_TLS] = TO(CLIENT_TLS) | TO(CLOSING),
    [EXCHANGE_CLIENT_TLS] = TO(SERVING) | TO(CLOSING),
    [EXCHANGE_RELAYING] = TO(CLOSING),
    [EXCHANGE_SERVING] = TO(DIALING) | TO(RELAYING) | TO(CLOSING),
    [EXCHANGE_CLOSING] = TO(DONE),
    [EXCHANGE_DONE] = 0,
};

void
exchange_enter(struct exchange *x, enum exchange_state next)
{
    if (!(transitions[x->state] & (1u << next))) {
        char id[ULID_TEXT_SIZE];
        ulid_format(&x->id, id);
        diag(DIAG_ALARM, "exchange %s: impossible step from state %d to %d", id, x->state, next);
        abort();
    }
    x->state = next;
    proxy_file(x->proxy, x, 0); /* other limits may hold now */
}

/* ---- beginning and end ---- */

static struct ask *
ask_new(void)
{
    struct arena *arena = arena_new(ARENA_USUAL);
    struct ask *ask = arena_alloc(arena, sizeof *ask);
    ask->arena = arena;
    ask->denied = REASON_OK;
    return ask;
}

static struct exchange *
exchange_new_at(struct port *port, const struct addr *peer, uint16_t peer_port, const char *x5t)
{
    struct proxy *p = port->proxy;
    struct exchange *x = mem_zalloc(sizeof *x);
    x->proxy = p;
    x->port = port;
    x->snapshot = snapshot_ref(p->snapshot);
    x->ask = ask_new();
    x->peer = *peer;
    x->peer_port = peer_port;
    x->x5t = x5t ? mem_strdup(x5t) : NULL;
    x->id = ulid_new(loop_wall_us(p->loop) / 1000);
    x->started_ms = x->active_ms = loop_now_ms(p->loop);
    x->ask->started_us = clock_mono_us();
    x->reason = REASON_OK;
    proxy_file(p, x, 0);
    return x;
}

static struct exchange *
exchange_new(struct client *c)
{
    struct exchange *x = exchange_new_at(c->port, &c->peer, c->peer_port, c->x5t);
    x->client = c;
    c->exchange = x;
    return x;
}

/* A stream of HTTP/2 inside a tunnel: what is known of the client is the tunnel's. */
static struct exchange *
exchange_new_call(struct inspection *i, struct inspect_call *call)
{
    struct exchange *tunnel = inspect_tunnel(i);
    struct exchange *x = exchange_new_at(tunnel->port, &tunnel->peer, tunnel->peer_port, tunnel->x5t);
    x->inside = i;
    x->call = call;
    x->kind = EXCHANGE_INNER;
    x->pooled = true;
    return x;
}

void
exchange_forget_ask(struct exchange *x)
{
    struct ask *ask = steal(&x->ask);
    release_ask(ask);
    x->target = target_pack(&ask->target);
    arena_free(ask->arena);
}

void
exchange_target(const struct exchange *x, struct target *ret)
{
    if (x->ask)
        *ret = x->ask->target;
    else
        target_unpack(x->target, ret);
}

struct slice
exchange_host(const struct exchange *x)
{
    return x->ask ? host_slice(&x->ask->target.host) : slice_of(x->target->text, x->target->len);
}

uint16_t
exchange_port(const struct exchange *x)
{
    return x->ask ? x->ask->target.port : x->target->port;
}

struct presentation
exchange_presentation(const struct exchange *x)
{
    return (struct presentation){.listener = x->port->name, .client = x->peer, .certificate_x5t = x->x5t};
}

static void
free_memory(void *ptr)
{
    struct exchange *x = ptr;
    if (x->ask)
        arena_free(x->ask->arena);
    free(x->target);
    free(x->x5t);
    identity_unref(x->identity);
    policy_unref((struct policy *)(uintptr_t)x->policy);
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
    if (!x->inspection) /* its requests have counted theirs */
        shared_add(x->proxy->shared, COUNTER_BYTES_DOWN, x->bytes_down);
    x->unspent_up = 0;
}

static void
release_ask(struct ask *ask)
{
    journal_cancel(&ask->wait);
    if (ask->resolve)
        resolve_cancel(steal(&ask->resolve));
    if (ask->dial)
        dial_cancel(steal(&ask->dial));
    endpoints_free(steal(&ask->endpoints));
    parent_free(steal(&ask->parent));
}

/* Everything that is under way ends; no callback comes afterwards. */
static void
release(struct exchange *x)
{
    if (x->ask)
        release_ask(x->ask);
    tunnel_free(steal(&x->tunnel));
    forward_free(steal(&x->forward));
    if (x->call)
        inspect_h2_exchange_ended(steal(&x->call));
    inspect_free(steal(&x->inspection));
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
    if (x->client && x->client->exchange == x)
        x->client->exchange = NULL;
    spend(x);
    /* A challenge is the first half of a handshake, not an exchange of its own: its one record says all. */
    if (x->reason != REASON_TOKEN_MISSING)
        account_close(x, cause);
    release(x);
    if (x->inside)
        inspect_child_ended(x->inside);
    exchange_enter(x, EXCHANGE_DONE);
    x->proxy->tunnels -= x->detached;
    proxy_unfile(x->proxy, x);
    loop_free_later(x->proxy->loop, x, free_memory);
    proxy_settle(x->proxy);
}

/* The reply is built before the exchange ends, and sent after it: its facts are the exchange's. */
static void
reply_and_finish(struct exchange *x, enum reason reason, const char *detail, const char *cause)
{
    struct client *c = x->client;
    struct inspect_call *call = steal(&x->call);
    char id[ULID_TEXT_SIZE];
    ulid_format(&x->id, id);
    struct target target;
    char rule[RULE_TEXT_SIZE] = "";
    if (x->has_target)
        exchange_target(x, &target);
    if (x->ask)
        memcpy(rule, x->ask->verdict.rule, sizeof rule);
    int status = reason_status(reason);
    struct reply_facts facts = {
        .reason = reason,
        .target = x->has_target ? &target : NULL,
        .rule = rule[0] ? rule : NULL,
        .instance = id,
        .detail = detail,
        .head_request = x->ask && slice_is(x->ask->head.method, "HEAD"),
        .close = !call,
        .retry_after_s = status == 429 || status == 503 ? RETRY_AFTER_S : 0,
    };
    bool in_http = x->kind != EXCHANGE_TRANSPARENT || x->speaks_http;
    x->status = in_http ? (uint16_t)status : 0;
    exchange_finish(x, cause);
    if (call)
        inspect_h2_reply(call, &facts);
    else if (c && in_http)
        client_reply(c, &facts);
    else if (c)
        client_refuse(c, transparent_alert());
}

/* inspect.deny_in_tunnel: many clients hide what a refused CONNECT says, so the refusal is said in TLS instead. */
static bool
may_be_said_inside(const struct exchange *x, enum reason reason)
{
    const struct settings *set = snapshot_settings(x->snapshot);
    if (!set->deny_in_tunnel || !x->proxy->keeper || !keeper_link_leaves(x->proxy->keeper) || x->kind != EXCHANGE_CONNECT || !x->has_target || !x->policy)
        return false;
    /* The keeper judges by the same function, and mints nothing where it says no: passthrough is refused in the open. */
    return reason_status(reason) == 403 && has_port(set->tls_ports, set->tls_port_count, x->ask->target.port) &&
           policy_inspects(x->policy, &x->ask->target.host, x->ask->target.port, true) && inspect_has_leaf_room(x);
}

/* No decision to allow has been recorded yet: this is the decision. */
static void
refuse(struct exchange *x, enum reason reason)
{
    if (reason == REASON_UNDECIDED)
        reason = REASON_INTERNAL;
    x->reason = reason;
    x->ask->ticket = account_decision(x, reason);
    if (may_be_said_inside(x, reason)) {
        x->inspect = true;
        x->ask->denied = reason;
        wait_for_record(x, EXCHANGE_KEEPING, x->ask->ticket, false, on_kept);
        return;
    }
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
        stream_reset(steal(&c->stream)); /* an orderly end would make what came so far look whole */
        client_free(c);
        return;
    }
    if (x->call && inspect_h2_has_answered(x->call)) {
        exchange_finish(x, reason_text(reason));
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

/* The same for every request, however it came: the policy's word, the budgets, and on to its upstream. `r` is what reading it
 * and its token has come to. */
static void
proceed(struct exchange *x, enum reason r)
{
    if (r == REASON_OK)
        r = decide(x);
    if (r == REASON_OK)
        r = admit(x);
    if (r != REASON_OK)
        refuse(x, r);
    else if (x->inside) /* its upstream is the tunnel's, and connected */
        record_decision(x);
    else
        find_addresses(x);
}

static void
start_inner(struct client *c, struct slice head)
{
    struct exchange *x = exchange_new(c);
    x->inside = c->inside;
    x->pooled = true; /* the tunnel's upstream connection is there already */
    enum reason r = read_request(x, head);
    x->kind = EXCHANGE_INNER;
    enum reason who = identify_by_tunnel(x);
    if (r == REASON_OK)
        r = who;
    if (r == REASON_OK)
        r = slice_is(x->ask->head.method, "CONNECT") ? REASON_REQUEST_MALFORMED : make_out_inner_target(x);
    if (r == REASON_OK)
        r = inspect_denied(x->inside);
    proceed(x, r);
}

void
exchange_start_call(struct inspection *i, struct inspect_call *call, const struct h2_head *head)
{
    struct exchange *x = exchange_new_call(i, call);
    inspect_h2_adopt(call, x);
    enum reason who = identify_by_tunnel(x);
    enum reason r = read_call(x, head);
    if (r == REASON_OK)
        r = who;
    if (r == REASON_OK)
        r = inspect_denied(i);
    proceed(x, r);
}

void
exchange_start_call_refused(struct inspection *i, enum reason reason)
{
    struct exchange *x = exchange_new_call(i, NULL);
    (void)identify_by_tunnel(x);
    refuse(x, reason);
}

void
exchange_start(struct client *c, struct slice head)
{
    if (c->inside) {
        start_inner(c, head);
        return;
    }
    struct exchange *x = exchange_new(c);
    enum reason r = read_request(x, head);
    /* Made out first, so that the record of a refused token names the host too; judged after it. */
    enum reason target = r == REASON_OK ? make_out_target(x) : r;
    if (r == REASON_OK)
        r = identify(x);
    if (r == REASON_OK)
        r = target;
    proceed(x, r);
}

void
exchange_start_transparent(struct client *c, const struct target *target, enum reason reason)
{
    struct exchange *x = exchange_new(c);
    c->state = CLIENT_EXCHANGE;
    stream_set_deadline(c->stream, 0);
    x->kind = EXCHANGE_TRANSPARENT;
    const struct settings *set = snapshot_settings(x->snapshot);
    bool letter = buf_len(&c->in) > 0 && buf_slice(&c->in).ptr[0] >= 'A' && buf_slice(&c->in).ptr[0] <= 'Z';
    x->speaks_http = letter || has_port(set->plain_ports, set->plain_port_count, c->original_port);
    if (target) {
        x->ask->target = *target;
        x->has_target = true;
    } else if (reason == REASON_OK) {
        reason = REASON_REQUEST_MALFORMED;
    }
    enum reason r = identify_by_listener(x, slice_of(NULL, 0), loop_wall_us(x->proxy->loop) / 1000000);
    if (r == REASON_OK)
        r = identify_policy(x);
    if (r == REASON_OK)
        r = reason;
    proceed(x, r);
}

void
exchange_start_refused(struct client *c, struct slice raw, enum reason reason)
{
    struct exchange *x = exchange_new(c);
    if (c->inside) {
        x->inside = c->inside;
        x->kind = EXCHANGE_INNER;
        (void)identify_by_tunnel(x);
    }
    raw.len = raw.len < RAW_TARGET_MAX ? raw.len : RAW_TARGET_MAX;
    x->ask->raw_target = target_of_unread(arena_dup(x->ask->arena, raw));
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
    journal_wait(x->proxy->journal, &x->ask->wait, ticket, handed, then, x);
}

static void
on_resolved(void *owner, enum reason reason, const struct answers *answers)
{
    struct exchange *x = owner;
    x->ask->resolve = NULL;
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
    x->ask->resolve = resolve_start(x->proxy->resolver, x->ask->target.host.text, on_resolved, x);
}

static void
resolve(struct exchange *x)
{
    struct answers answers;
    enum reason r = resolver_lookup(x->proxy->resolver, x->ask->target.host.text, &answers);
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
    x->ask->dial = NULL;
    shared_observe(x->proxy->shared, HISTOGRAM_CONNECT, clock_mono_us() - x->ask->started_us);
    if (reason != REASON_OK) {
        exchange_fail(x, reason, NULL);
        return;
    }
    x->upstream = stream;
    if (address && address->family)
        x->address = *address;
    /* What was judged may have been closed while the connect was under way. */
    reason = exchange_judge_again(x, &x->address, 1);
    if (reason != REASON_OK)
        exchange_fail(x, reason, NULL);
    else
        serve(x);
}

void
exchange_dial(struct exchange *x, dial_fn *on_done)
{
    exchange_enter(x, EXCHANGE_DIALING);
    int64_t timeout_ms = snapshot_settings(x->snapshot)->connect_timeout_ms;
    x->ask->dial = dial_start(x->proxy->loop, steal(&x->ask->endpoints), timeout_ms, on_done, x);
}

static void
on_decision_handed(void *owner, bool kept)
{
    struct exchange *x = owner;
    if (!kept)
        exchange_fail(x, REASON_RECORD_UNAVAILABLE, NULL);
    else if (x->pooled || x->inspect)
        serve(x); /* inspected: the upstream is dialled when the hello has been seen */
    else
        exchange_dial(x, on_dialed);
}

static void
record_decision(struct exchange *x)
{
    x->ask->ticket = account_decision(x, REASON_OK);
    wait_for_record(x, EXCHANGE_HANDING, x->ask->ticket, true, on_decision_handed);
}

/* The guard's word on where the name leads; what is dialled later is what was judged here. */
static void
judge(struct exchange *x, const struct addr *answers, size_t count)
{
    enum reason r = guard_judge(snapshot_guard(x->snapshot), x->policy, &x->ask->target, answers, count, &x->ask->endpoints);
    if (r == REASON_OK)
        r = exchange_judge_again(x, answers, count);
    if (r != REASON_OK)
        refuse(x, r);
    else
        record_decision(x);
}

static void
on_parent_resolved(void *owner, enum reason reason, const struct answers *answers)
{
    struct exchange *x = owner;
    x->ask->resolve = NULL;
    if (reason != REASON_OK) {
        refuse(x, reason);
        return;
    }
    x->ask->endpoints = parent_endpoints(x, &answers->addrs[0]);
    record_decision(x);
}

/* With a parent names go on unresolved and its guard judges them; literals are judged here too. The parent's own name comes
 * from the configuration, so that asking for it tells nobody anything about this request. */
static void
find_parent(struct exchange *x)
{
    struct parent_address parent;
    struct answers answers;
    if (x->ask->target.host.kind != HOST_NAME) {
        enum reason r = guard_judge(snapshot_guard(x->snapshot), x->policy, &x->ask->target, &x->ask->target.host.literal, 1, &x->ask->endpoints);
        endpoints_free(steal(&x->ask->endpoints));
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
        x->ask->resolve = resolve_start(x->proxy->resolver, parent.host.text, on_parent_resolved, x);
    }
}

static void
find_addresses(struct exchange *x)
{
    const struct host_override *o = snapshot_override(x->snapshot, &x->ask->target.host);
    if (x->kind == EXCHANGE_FORWARD && (x->upstream = pool_take(x->proxy->pool, x, &x->address))) {
        x->pooled = true;
        record_decision(x);
    } else if (snapshot_settings(x->snapshot)->parent_url) {
        find_parent(x);
    } else if (x->ask->target.host.kind != HOST_NAME) {
        judge(x, &x->ask->target.host.literal, 1);
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
    const struct host_override *o = snapshot_override(x->snapshot, &x->ask->target.host);
    struct addr address = x->address;
    const struct addr *answers = o ? o->addrs : &address;
    size_t count = o ? o->count : 1;
    x->pooled = false;
    x->retried = true;
    enum reason r = REASON_OK;
    if (snapshot_settings(x->snapshot)->parent_url)
        x->ask->endpoints = parent_endpoints(x, &address);
    else
        r = guard_judge(snapshot_guard(x->snapshot), x->policy, &x->ask->target, answers, count, &x->ask->endpoints);
    if (r != REASON_OK)
        exchange_fail(x, r, NULL);
    else
        exchange_dial(x, on_dialed);
}

static void
start_tunnel(struct exchange *x, enum reason denied)
{
    const char *established = x->kind == EXCHANGE_CONNECT ? "HTTP/1.1 200 Connection established\r\n\r\n" : "";
    struct buf from_client;
    x->status = x->kind == EXCHANGE_CONNECT ? 200 : 0;
    struct stream *client = client_take(steal(&x->client), &from_client);
    if (x->inspect)
        inspect_start(x, client, &from_client, slice_str(established), denied);
    else
        tunnel_start(x, client, &from_client, slice_str(established));
}

static void
on_ready(struct exchange *x)
{
    if (exchange_is_request(x))
        forward_start(x);
    else
        start_tunnel(x, x->ask->denied);
}

/* The tunnel's upstream, if it could be had; else what stood in the way is said to each request. */
static void
serve_inside(struct exchange *x)
{
    const char *detail = NULL;
    enum reason r = inspect_fault(x->inside, &detail);
    if (r == REASON_OK && x->call) {
        inspect_h2_serve(x->call);
        return;
    }
    if (r == REASON_OK && !(x->upstream = inspect_borrow(x->inside)))
        r = REASON_UPSTREAM_CLOSED;
    if (r != REASON_OK)
        exchange_fail(x, r, detail);
    else
        forward_start(x);
}

static void
on_kept(void *owner, bool kept)
{
    struct exchange *x = owner;
    if (!kept)
        exchange_fail(x, REASON_RECORD_UNAVAILABLE, NULL);
    else if (x->inside)
        serve_inside(x);
    else if (snapshot_settings(x->snapshot)->parent_url && !x->pooled && !x->inspect)
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
        wait_for_record(x, EXCHANGE_KEEPING, x->ask->ticket, false, on_kept);
}

/* ---- while it lives ---- */

size_t
exchange_burst(const struct exchange *x)
{
    int64_t most = exchange_limits(x).bytes_up;
    if (!most)
        return SIZE_MAX;
    return most / BUDGET_PARTS > BUDGET_STEP ? (size_t)(most / BUDGET_PARTS) : BUDGET_STEP;
}

void
exchange_stir(struct exchange *x)
{
    x->active_ms = loop_now_ms(x->proxy->loop);
}

bool
exchange_count(struct exchange *x, uint64_t up, uint64_t down)
{
    x->bytes_up += up;
    x->bytes_down += down;
    x->unspent_up += (uint32_t)up; /* what one read brings; spent before it comes near to what fits */
    exchange_stir(x);
    if (x->inside)
        inspect_count(x->inside, up, down);
    /* A small budget is looked at more often: what passes over it stays a small part of it. */
    struct budget_limits limits = exchange_limits(x);
    uint64_t step = limits.bytes_up && limits.bytes_up / BUDGET_PARTS < BUDGET_STEP ? (uint64_t)limits.bytes_up / BUDGET_PARTS : BUDGET_STEP;
    if (x->unspent_up < step || x->unspent_up == 0)
        return true;
    uint64_t n = x->unspent_up;
    x->unspent_up = 0;
    shared_add(x->proxy->shared, COUNTER_BYTES_UP, n);
    if (!limits.bytes_up || shared_spend_bytes(x->proxy->shared, slice_str(x->identity->sub), &limits, n))
        return true;
    exchange_fail(x, REASON_LIMIT_BYTES, NULL);
    return false;
}
