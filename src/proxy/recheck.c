/* What lives on is judged again: by the clock (tokens end, tunnels idle) and by each new snapshot. What may not live on is cut,
 * and its close record says why. */
#include "sallyport/proxy/exchange.h"
#include "sallyport/proxy/forward.h"

#include "sallyport/base/mem.h"
#include "sallyport/proxy/request.h"
#include "sallyport/proxy/tunnel.h"

#define TUNE_AFTER_MS 20000

/* On a listener with a token the renewed token carries on what the old one began, for the same sandbox and policy. */
static void
follow_renewed_token(struct exchange *x, struct snapshot *s, int64_t now_s)
{
    struct slice token = port_token(x->port, s);
    struct presentation from = exchange_presentation(x);
    struct identity *fresh = NULL;
    bool cached;
    if (!token.ptr || verifier_check(snapshot_verifier(s), token, &from, now_s, &fresh, &cached) != REASON_OK)
        return;
    const char *a = fresh->policy_name ? fresh->policy_name : "", *b = x->identity->policy_name ? x->identity->policy_name : "";
    if (strcmp(fresh->sub, x->identity->sub) == 0 && strcmp(a, b) == 0) {
        identity_unref(x->identity);
        x->identity = steal(&fresh);
    }
    identity_unref(fresh);
}

enum reason
exchange_judge_again(const struct exchange *x, const struct addr *addrs, size_t count)
{
    struct snapshot *s = x->proxy->snapshot;
    const struct policy *policy = NULL;
    struct endpoints *e = NULL;
    struct target target;
    if (s == x->snapshot || snapshot_settings(s)->parent_url)
        return REASON_OK;
    enum reason r = snapshot_policy(s, x->identity, &policy);
    exchange_target(x, &target);
    if (r == REASON_OK)
        r = guard_judge(snapshot_guard(s), policy, &target, addrs, count, &e);
    endpoints_free(e);
    return r;
}

static enum reason
decide_again(struct exchange *x, struct snapshot *s)
{
    const struct policy *policy = NULL;
    struct verdict v;
    enum reason r = snapshot_policy(s, x->identity, &policy);
    if (r != REASON_OK)
        return r;
    struct target target;
    exchange_target(x, &target);
    struct question q = {.target = &target};
    if (x->ask)
        question_of(x, &q);
    policy_decide(policy, &q, &v);
    if (v.action == ACTION_DENY)
        return v.reason;
    if (x->ask && v.body_max < x->ask->verdict.body_max)
        x->ask->verdict.body_max = v.body_max; /* for what still comes */
    if (!exchange_is_request(x) && v.action == ACTION_INSPECT && !x->inspect)
        return REASON_HOST_NOT_ALLOWED; /* only inspected from now on, and this one is not */
    return x->address.family ? exchange_judge_again(x, &x->address, 1) : REASON_OK;
}

static void
cut(struct exchange *x, enum reason reason, const char *cause)
{
    x->reason = reason;
    if (x->client || x->call)
        exchange_fail(x, reason, NULL);
    else
        exchange_finish(x, cause);
}

/* The time after which an idle exchange ends, or 0. */
static int64_t
idle_limit(const struct exchange *x, const struct settings *set)
{
    bool tunnel = x->state == EXCHANGE_PEEKING || x->state == EXCHANGE_RELAYING;
    return tunnel || x->forward || x->call ? set->idle_timeout_ms : 0;
}

static int64_t
lifetime_limit(const struct exchange *x, const struct settings *set)
{
    bool tunnel = x->state == EXCHANGE_PEEKING || x->state == EXCHANGE_RELAYING;
    return tunnel || x->inspection ? set->lifetime_ms : 0;
}

static void
end_if_over(struct exchange *x, const struct settings *set, int64_t now_ms)
{
    int64_t lifetime = lifetime_limit(x, set), idle = idle_limit(x, set);
    bool is_idle = idle && now_ms - x->active_ms > idle;
    if (lifetime && now_ms - x->started_ms > lifetime)
        exchange_finish(x, "lifetime");
    else if (is_idle && x->forward)
        forward_idle(x->forward);
    else if (is_idle && x->call)
        exchange_fail(x, REASON_UPSTREAM_TIMEOUT, NULL);
    else if (is_idle)
        exchange_finish(x, "idle_timeout");
}

static void
advance(int64_t *due_ms, int64_t at_ms)
{
    if (at_ms < *due_ms)
        *due_ms = at_ms;
}

/* When a limit can be reached at the earliest, if nothing happens until then; bytes move it further away. */
static int64_t
next_due(const struct exchange *x, const struct settings *set, int64_t now_ms, int64_t now_s)
{
    int64_t lifetime = lifetime_limit(x, set), idle = idle_limit(x, set), due_ms = INT64_MAX;
    int64_t good_s = verifier_good_until(snapshot_verifier(x->proxy->snapshot), x->identity) - now_s;
    if (good_s < INT32_MAX)
        advance(&due_ms, now_ms + good_s * 1000); /* now_s may be nearly over: up to a second early */
    if (lifetime)
        advance(&due_ms, x->started_ms + lifetime);
    if (idle)
        advance(&due_ms, x->active_ms + idle);
    if (x->tunnel && !x->tuned)
        advance(&due_ms, x->started_ms + TUNE_AFTER_MS);
    return due_ms;
}

void
exchange_recheck(struct exchange *x, bool snapshot_changed)
{
    struct snapshot *s = x->proxy->snapshot;
    const struct settings *set = snapshot_settings(s);
    int64_t now_s = loop_wall_us(x->proxy->loop) / 1000000, now_ms = loop_now_ms(x->proxy->loop);
    bool over = x->state == EXCHANGE_CLOSING || x->state == EXCHANGE_DONE; /* ended with another one */
    if (over)
        return;
    proxy_file(x->proxy, x, 0);
    if (!x->policy || !x->has_target)
        return;
    if (x->port->settings->token_file || x->port->settings->token_fd)
        follow_renewed_token(x, s, now_s);
    struct presentation from = exchange_presentation(x);
    enum reason r = verifier_recheck(snapshot_verifier(s), x->identity, &from, now_s);
    if (r == REASON_OK && snapshot_changed)
        r = decide_again(x, s);
    if (r != REASON_OK) {
        cut(x, r, reason_text(r));
        return;
    }
    /* Most connections are over before a probe could be due: only those that last pay for the socket options. */
    if (x->tunnel && !x->tuned && now_ms - x->started_ms > TUNE_AFTER_MS) {
        x->tuned = true;
        tunnel_tune(x->tunnel);
    }
    proxy_file(x->proxy, x, next_due(x, set, now_ms, now_s));
    end_if_over(x, set, now_ms);
}
