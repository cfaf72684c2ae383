/* What the admin endpoint says. Names of metrics: CONTRACT; no label holds a sandbox, a host or a policy. */
#include "sallyport/process/adminpage.h"

#include <inttypes.h>

#include "sallyport/base/clock.h"
#include "sallyport/base/encoding.h"
#include "sallyport/base/mem.h"
#include "sallyport/policy/scope.h"
#include "sallyport/process/config.h"

/* ---- metrics (Prometheus text format 0.0.4) ---- */

static void
head(struct buf *b, const char *name, const char *type, const char *help)
{
    buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void
single(struct buf *b, const char *name, const char *type, const char *help, uint64_t value)
{
    head(b, name, type, help);
    buf_printf(b, "%s %" PRIu64 "\n", name, value);
}

/* Several reasons may have one text (method_not_allowed): their counts are one series. */
static uint64_t
requests_of(const struct shared *s, bool allow, const char *text)
{
    uint64_t sum = 0;
    for (int r = 0; r < REASON_COUNT; r++)
        if (strcmp(reason_text((enum reason)r), text) == 0)
            sum += shared_requests(s, allow, (enum reason)r);
    return sum;
}

static bool
said_before(int r)
{
    for (int k = 0; k < r; k++)
        if (strcmp(reason_text((enum reason)k), reason_text((enum reason)r)) == 0)
            return true;
    return false;
}

static void
metrics_requests(struct buf *b, const struct shared *s)
{
    head(b, "sallyport_requests_total", "counter", "Decisions by outcome and reason.");
    for (int allow = 1; allow >= 0; allow--)
        for (int r = REASON_OK; r < REASON_COUNT; r++) {
            uint64_t n = said_before(r) ? 0 : requests_of(s, allow, reason_text((enum reason)r));
            if (n || (allow && r == REASON_OK))
                buf_printf(b, "sallyport_requests_total{decision=\"%s\",reason=\"%s\"} %" PRIu64 "\n", allow ? "allow" : "deny",
                           reason_text((enum reason)r), n);
        }
}

static void
metrics_histogram(struct buf *b, const struct shared *s, enum histogram h, const char *name, const char *help)
{
    uint64_t counts[SHARED_BUCKETS + 1], sum_us, count, below = 0;
    shared_histogram(s, h, counts, &sum_us, &count);
    head(b, name, "histogram", help);
    for (size_t i = 0; i < SHARED_BUCKETS; i++) {
        below += counts[i];
        buf_printf(b, "%s_bucket{le=\"%g\"} %" PRIu64 "\n", name, (double)shared_bounds()[i] / 1e6, below);
    }
    buf_printf(b, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n%s_sum %.6f\n%s_count %" PRIu64 "\n", name, count, name, (double)sum_us / 1e6, name, count);
}

struct labelled { const char *label; enum counter counter; };

static void
metrics_labelled(struct buf *b, const struct shared *s, const char *name, const char *label, const char *help, const struct labelled *rows)
{
    head(b, name, "counter", help);
    for (; rows->label; rows++)
        buf_printf(b, "%s{%s=\"%s\"} %" PRIu64 "\n", name, label, rows->label, shared_get(s, rows->counter));
}

static void
metrics_record(struct buf *b, const struct shared *s)
{
    char hash[65];
    uint64_t seq = shared_checkpoint(s, hash);
    single(b, "sallyport_records_total", "counter", "Records that workers handed to the recorder.", shared_get(s, COUNTER_RECORDS));
    if (seq == 0)
        return;
    head(b, "sallyport_record_checkpoint", "gauge", "Number of the last record that a checkpoint names; keep SEQ:HASH elsewhere.");
    buf_printf(b, "sallyport_record_checkpoint{hash=\"%s\"} %" PRIu64 "\n", hash, seq);
}

static void
metrics_process(struct buf *b, const struct shared *s)
{
    head(b, "process_cpu_seconds_total", "counter", "CPU time of all processes.");
    buf_printf(b, "process_cpu_seconds_total %.2f\n", (double)shared_get(s, COUNTER_CPU_MS) / 1000);
    single(b, "process_resident_memory_bytes", "gauge", "Resident memory of all processes.", shared_get(s, COUNTER_RSS_BYTES));
    single(b, "process_start_time_seconds", "gauge", "When the supervisor started.", shared_get(s, COUNTER_START_S));
    single(b, "process_max_fds", "gauge", "Descriptors that one process may open.", shared_get(s, COUNTER_MAX_FDS));
    if (shared_get(s, COUNTER_OPEN_FDS))
        single(b, "process_open_fds", "gauge", "Open descriptors of all processes.", shared_get(s, COUNTER_OPEN_FDS));
}

static void
page_metrics(const struct admin_view *v, struct slice name, struct admin_reply *reply)
{
    static const struct labelled bytes[] = {{"up", COUNTER_BYTES_UP}, {"down", COUNTER_BYTES_DOWN}, {0}};
    static const struct labelled tokens[] = {{"verified", COUNTER_TOKENS_VERIFIED}, {"cached", COUNTER_TOKENS_CACHED}, {"failed", COUNTER_TOKENS_FAILED}, {0}};
    static const struct labelled dns[] = {{"ok", COUNTER_DNS_OK}, {"cached", COUNTER_DNS_CACHED}, {"failed", COUNTER_DNS_FAILED}, {0}};
    static const struct labelled reloads[] = {{"ok", COUNTER_RELOADS}, {"failed", COUNTER_RELOADS_FAILED}, {0}};
    const struct shared *s = v->shared;
    struct buf *b = &reply->body;
    uint64_t opened = shared_get(s, COUNTER_TUNNELS_OPENED), closed = shared_get(s, COUNTER_TUNNELS_CLOSED);
    (void)name;
    reply->type = "text/plain; version=0.0.4; charset=utf-8";
    head(b, "sallyport_build_info", "gauge", "Version of this build.");
    buf_append_str(b, "sallyport_build_info{version=\"" SALLYPORT_VERSION "\"} 1\n");
    metrics_requests(b, s);
    single(b, "sallyport_connections_total", "counter", "Connections accepted from clients.", shared_get(s, COUNTER_ACCEPTED));
    single(b, "sallyport_tunnels_active", "gauge", "Tunnels that are open.", opened > closed ? opened - closed : 0);
    metrics_labelled(b, s, "sallyport_bytes_total", "direction", "Bytes relayed.", bytes);
    metrics_histogram(b, s, HISTOGRAM_CONNECT, "sallyport_connect_duration_seconds", "From the request to the upstream's connection.");
    metrics_histogram(b, s, HISTOGRAM_DECISION, "sallyport_decision_duration_seconds", "From the request to its decision.");
    metrics_labelled(b, s, "sallyport_token_verifications_total", "result", "Tokens checked.", tokens);
    metrics_labelled(b, s, "sallyport_dns_lookups_total", "result", "Names looked up.", dns);
    single(b, "sallyport_certificates_minted_total", "counter", "Leaf certificates made for inspection.", shared_get(s, COUNTER_CERTIFICATES));
    metrics_record(b, s);
    single(b, "sallyport_records_lost_total", "counter", "Records that could not be taken: they are missing from the decision log.",
           shared_get(s, COUNTER_RECORDS_LOST));
    single(b, "sallyport_policy_generation", "gauge", "Grows with every configuration that takes effect.", shared_get(s, COUNTER_POLICY_GENERATION));
    metrics_labelled(b, s, "sallyport_reloads_total", "result", "Reloads.", reloads);
    single(b, "sallyport_worker_starts_total", "counter", "Worker processes started.", shared_get(s, COUNTER_WORKER_STARTS));
    single(b, "sallyport_worker_crashes_total", "counter", "Worker processes that ended by themselves.", shared_get(s, COUNTER_WORKER_CRASHES));
    metrics_process(b, s);
}

/* ---- health ---- */

static void
page_healthz(const struct admin_view *v, struct slice name, struct admin_reply *reply)
{
    (void)v;
    (void)name;
    buf_append_str(&reply->body, "ok\n");
}

static void
page_readyz(const struct admin_view *v, struct slice name, struct admin_reply *reply)
{
    (void)name;
    reply->status = v->state.ready ? 200 : 503;
    buf_append_str(&reply->body, v->state.ready ? "ready\n" : v->state.draining ? "draining\n" : "starting\n");
}

/* ---- on the unix socket only ---- */

static void
member(struct buf *b, const char *name, const char *text, const char *end)
{
    buf_printf(b, "\"%s\":", name);
    json_append_string(b, slice_str(text), 1024);
    buf_append_str(b, end);
}

static void
page_denials(const struct admin_view *v, struct slice name, struct admin_reply *reply)
{
    struct denial *list = mem_array(SHARED_DENIALS, sizeof *list);
    size_t count = shared_denials(v->shared, list, SHARED_DENIALS);
    struct buf *b = &reply->body;
    (void)name;
    reply->type = "application/json";
    buf_append_str(b, "[");
    for (size_t i = 0; i < count; i++) {
        char ts[CLOCK_TEXT_SIZE];
        const struct denial *d = &list[i];
        clock_format_utc(d->wall_us, ts);
        buf_printf(b, "%s\n{\"ts\":\"%s\",", i ? "," : "", ts);
        member(b, "sandbox", d->sandbox, ",");
        member(b, "policy", d->policy, ",");
        member(b, "host", d->host, ",");
        buf_printf(b, "\"port\":%u,", d->port);
        member(b, "reason", d->reason < REASON_COUNT ? reason_text((enum reason)d->reason) : "internal", "}");
    }
    buf_append_str(b, "\n]\n");
    free(list);
}

struct scope_printing { struct buf *b; size_t count; };

static void
print_scope_row(void *ctx, const struct scope_row *row)
{
    static const char *const effects[] = {[SCOPE_CLOSED] = "closed", [SCOPE_OPEN] = "open", [SCOPE_DENY] = "deny"};
    struct scope_printing *p = ctx;
    buf_append_str(p->b, p->count++ ? ",\n{" : "\n{");
    member(p->b, "effect", effects[row->effect], ",");
    member(p->b, "host", row->host, ",");
    member(p->b, "ports", row->ports, ",");
    member(p->b, "source", source_text(row->source), ",");
    member(p->b, "where", row->where, ",");
    member(p->b, "detail", row->detail, "}");
}

static void
page_policy(const struct admin_view *v, struct slice name, struct admin_reply *reply)
{
    struct scope_printing p = {&reply->body, 0};
    const struct policy *policy = v->snapshot && config_name_ok(name) ? snapshot_named_policy(v->snapshot, name) : NULL;
    reply->type = "application/json";
    if (!policy) {
        reply->status = v->snapshot ? 404 : 503;
        buf_append_str(p.b, v->snapshot ? "{\"error\":\"there is no such policy\"}\n" : "{\"error\":\"policies are not shown here\"}\n");
        return;
    }
    buf_append_str(p.b, "{");
    member(p.b, "policy", policy_name(policy), ",");
    member(p.b, "sha256", policy_sha256(policy), ",");
    buf_printf(p.b, "\"generation\":%" PRIu64 ",\"scope\":[", snapshot_generation(v->snapshot));
    policy_scope(policy, print_scope_row, &p);
    buf_append_str(p.b, "\n]}\n");
}

/* ---- the table ---- */

static const struct {
    const char *path;
    bool prefix;      /* what follows is an argument */
    bool unix_only;
    void (*fn)(const struct admin_view *v, struct slice name, struct admin_reply *reply);
} pages[] = {
    {"/healthz", false, false, page_healthz}, {"/readyz", false, false, page_readyz},  {"/metrics", false, false, page_metrics},
    {"/denials", false, true, page_denials},  {"/policy/", true, true, page_policy},
};

bool
admin_page(const struct admin_view *view, struct slice path, bool everything, struct admin_reply *reply)
{
    reply->status = 200;
    reply->type = "text/plain; charset=utf-8";
    for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++) {
        size_t len = strlen(pages[i].path);
        bool match = pages[i].prefix ? slice_starts_with(path, pages[i].path) : slice_is(path, pages[i].path);
        if (!match || (pages[i].unix_only && !everything))
            continue;
        pages[i].fn(view, slice_of(path.ptr + len, path.len - len), reply);
        return !reply->body.overflow;
    }
    return false;
}
