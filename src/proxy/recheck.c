/* What lives on is judged again: by the clock (tokens end, tunnels idle) and by each new snapshot. What may not live on is cut,
 * and its close record says why. */
#include "sallyport/proxy/exchange.h"
#include "sallyport/proxy/forward.h"

#include "sallyport/base/mem.h"
#include "sallyport/proxy/tunnel.h"

#define TUNE_AFTER_MS 2000

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
    if (x->ask && exchange_is_request(x)) {
        q.method = x->ask->head.method;
        q.path = x->ask->path;
    }
    policy_decide(policy, &q, &v);
    if (v.action == ACTION_DENY)
        return v.reason;
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

void
exchange_recheck(struct exchange *x, bool snapshot_changed)
{
    struct snapshot *s = x->proxy->snapshot;
    const struct settings *set = snapshot_settings(s);
    int64_t now_s = loop_wall_us(x->proxy->loop) / 1000000, now_ms = loop_now_ms(x->proxy->loop);
    bool over = x->state == EXCHANGE_CLOSING || x->state == EXCHANGE_DONE; /* ended with another one */
    if (over || !x->policy || !x->has_target)
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
    bool tunnel = x->state == EXCHANGE_PEEKING || x->state == EXCHANGE_RELAYING;
    if ((tunnel || x->inspection) && set->lifetime_ms && now_ms - x->started_ms > set->lifetime_ms)
        exchange_finish(x, "lifetime");
    else if (tunnel && set->idle_timeout_ms && now_ms - x->active_ms > set->idle_timeout_ms)
        exchange_finish(x, "idle_timeout");
    else if (x->forward && set->idle_timeout_ms && now_ms - x->active_ms > set->idle_timeout_ms)
        forward_idle(x->forward);
    else if (x->call && set->idle_timeout_ms && now_ms - x->active_ms > set->idle_timeout_ms)
        exchange_fail(x, REASON_UPSTREAM_TIMEOUT, NULL);
}
