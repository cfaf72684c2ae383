/* `sallyport policy replay`: old decisions judged by another policy, and what would have come out otherwise. A question is put
 * together from a record as the pipeline put it together from the request; what a record does not hold is left out and said,
 * never guessed. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sallyport/base/buf.h"
#include "sallyport/base/map.h"
#include "sallyport/base/mem.h"
#include "sallyport/cmd/log.h"
#include "sallyport/cmd/policy.h"
#include "sallyport/http/head.h"
#include "sallyport/policy/decide.h"

#define CHANGES_MAX 100000 /* told apart; the rest is counted alone */
#define CHANGE_KEY_MAX 8192

/* What would change, for all decisions that ask and answer the same. */
struct change {
    bool closes; /* was allowed, would be denied */
    enum entry entry;
    char host[HOST_TEXT_SIZE];
    uint16_t port;
    char *method, *path; /* NULL: not in the record */
    size_t path_len;
    enum reason was;
    struct verdict now;
    uint64_t count;
    struct slice key; /* in the order of the output; owned */
};

struct replay {
    const struct desk *desk;
    const struct policy *policy;
    struct map *changes;
    uint64_t judged, closed, opened, more;
    uint64_t tunnels;       /* judged without method and path */
    uint64_t unseen;        /* requests inside a tunnel that would not be inspected */
    uint64_t newly_seen;    /* tunnels that would be, their inside being on no record */
    uint64_t elsewhere;     /* refusals that are no policy's */
    uint64_t addresses;     /* refusals of an address that is on no record */
    uint64_t incomplete;    /* cut, or without a canonical host and port */
    uint64_t folded;
    uint64_t by_report;     /* would be let through by report mode alone */
};

/* ---- judging ---- */

static bool
is_a_policys(enum reason r)
{
    return r == REASON_HOST_NOT_ALLOWED || r == REASON_PORT_NOT_ALLOWED || r == REASON_HOST_BLOCKED || r == REASON_METHOD_NOT_ALLOWED ||
           r == REASON_PATH_NOT_ALLOWED || r == REASON_ADDRESS_NOT_ALLOWED;
}

static void
ask_request(const struct replay *r, const struct old_decision *d, struct target *t, enum scheme scheme, struct verdict *v)
{
    struct question q = {.target = t, .method = d->method, .path = d->path};
    enum reason known = method_check(d->method);
    t->scheme = scheme;
    policy_decide(r->policy, &q, v);
    if (known == REASON_OK || (known == REASON_METHOD_UNKNOWN && policy_knows_method(r->policy, d->method)))
        return;
    *v = (struct verdict){.action = ACTION_DENY, .reason = known};
}

static void
ask_tunnel(const struct replay *r, struct target *t, struct verdict *v)
{
    struct question q = {.target = t};
    t->scheme = SCHEME_NONE;
    policy_decide(r->policy, &q, v);
}

/* A name that is open on any port may be known, which is how the responder asks. */
static void
ask_name(const struct replay *r, struct target *t, struct verdict *v)
{
    ask_tunnel(r, t, v);
    if (v->action == ACTION_DENY) {
        t->port = 80;
        ask_tunnel(r, t, v);
    }
    if (v->action == ACTION_DENY && v->reason == REASON_PORT_NOT_ALLOWED)
        *v = (struct verdict){.action = ACTION_ALLOW, .reason = REASON_OK};
}

/* False: this record cannot be asked about. */
static bool
ask(struct replay *r, const struct old_decision *d, struct target *t, struct verdict *v)
{
    switch (d->entry) {
    case ENTRY_OTHER:
        return false;
    case ENTRY_FORWARD:
        if (!d->method.ptr || !d->path.ptr)
            return false;
        ask_request(r, d, t, SCHEME_HTTP, v);
        return true;
    case ENTRY_INSPECTED:
        if (!d->method.ptr || !d->path.ptr)
            return false;
        ask_tunnel(r, t, v);
        if (v->action == ACTION_INSPECT)
            ask_request(r, d, t, SCHEME_HTTPS, v);
        else
            r->unseen += v->action == ACTION_ALLOW;
        return true;
    case ENTRY_TUNNEL:
        ask_tunnel(r, t, v);
        r->tunnels++;
        r->newly_seen += v->action == ACTION_INSPECT && d->allow && !d->inspect;
        return true;
    case ENTRY_DNS:
        ask_name(r, t, v);
        return true;
    }
    return false;
}

/* The addresses that were dialled, or the literal itself, before this policy's private_addresses. */
static void
ask_guard(const struct replay *r, const struct old_decision *d, const struct target *t, struct verdict *v)
{
    struct addr addrs[GUARD_ANSWERS_MAX];
    struct endpoints *e = NULL;
    size_t count = 0;
    if (t->host.kind != HOST_NAME)
        addrs[count++] = t->host.literal;
    for (size_t i = 0; t->host.kind == HOST_NAME && i < json_array_size(d->addresses) && count < GUARD_ANSWERS_MAX; i++) {
        const char *text = json_string_value(json_array_get(d->addresses, i));
        count += text && addr_parse(slice_str(text), &addrs[count]);
    }
    if (count == 0)
        return;
    enum reason reason = guard_judge(r->desk->guard, r->policy, t, addrs, count, &e);
    endpoints_free(e);
    if (reason != REASON_OK)
        *v = (struct verdict){.action = ACTION_DENY, .reason = reason};
}

/* ---- what changed ---- */

static bool
put_key(struct buf *b, const struct change *c, struct slice method, struct slice path)
{
    char head[HOST_TEXT_SIZE + 64];
    int n = snprintf(head, sizeof head, "%c%s%c%05u%c%d%c", c->closes ? '0' : '1', c->host, '\0', c->port, '\0', (int)c->entry, '\0');
    return buf_append(b, head, (size_t)n) && buf_append(b, method.ptr, method.len) && buf_append(b, "", 1) &&
           buf_append(b, reason_text(c->was), strlen(reason_text(c->was)) + 1) &&
           buf_append(b, reason_text(c->now.reason), strlen(reason_text(c->now.reason)) + 1) &&
           buf_append(b, c->now.rule, strlen(c->now.rule) + 1) && buf_append(b, path.ptr, path.len);
}

static void
note_change(struct replay *r, const struct old_decision *d, const struct target *t, const struct verdict *v)
{
    struct change c = {.closes = d->allow, .entry = d->entry, .port = d->entry == ENTRY_DNS ? 0 : t->port, .was = d->reason, .now = *v};
    bool request = d->entry == ENTRY_FORWARD || d->entry == ENTRY_INSPECTED;
    struct slice method = request ? d->method : slice_of("", 0), path = request ? d->path : slice_of("", 0);
    struct buf key;
    buf_init(&key, CHANGE_KEY_MAX);
    memcpy(c.host, t->host.text, t->host.len);
    bool fits = put_key(&key, &c, method, path);
    struct change *known = fits ? map_get(r->changes, buf_slice(&key)) : NULL;
    if (!known && fits && map_count(r->changes) < CHANGES_MAX) {
        known = mem_alloc(sizeof *known);
        *known = c;
        known->key = slice_of(mem_dup_slice(buf_slice(&key)), buf_len(&key));
        known->method = request ? mem_dup_slice(method) : NULL;
        known->path = request ? mem_dup_slice(path) : NULL;
        known->path_len = path.len;
        map_put(r->changes, known->key, known);
    }
    if (known)
        known->count++;
    else
        r->more++;
    buf_done(&key);
}

static void
free_change(void *value)
{
    struct change *c = value;
    free(c->method);
    free(c->path);
    free((void *)(uintptr_t)c->key.ptr);
    free(c);
}

static void
settle_change(struct replay *r, const struct old_decision *d, const struct target *t, const struct verdict *v)
{
    bool is = v->action != ACTION_DENY;
    r->judged++;
    r->by_report += v->would_deny;
    if (is == d->allow)
        return;
    r->closed += d->allow;
    r->opened += is;
    note_change(r, d, t, v);
}

static void
on_replayed(void *ctx, const struct old_decision *d)
{
    struct replay *r = ctx;
    struct target t = {.port = d->entry == ENTRY_DNS ? 443 : d->port};
    struct verdict v;
    if (d->repeated) {
        r->folded += is_a_policys(d->reason) ? d->count : 0;
        r->elsewhere += is_a_policys(d->reason) ? 0 : d->count;
    } else if (!d->allow && !is_a_policys(d->reason)) {
        r->elsewhere++;
    } else if (d->cut || t.port == 0 || !d->host.ptr || !host_parse(d->host, &t.host) || !ask(r, d, &t, &v)) {
        r->incomplete++;
    } else {
        if (v.action != ACTION_DENY)
            ask_guard(r, d, &t, &v);
        if (v.action != ACTION_DENY && d->reason == REASON_ADDRESS_NOT_ALLOWED && t.host.kind == HOST_NAME)
            r->addresses++;
        else
            settle_change(r, d, &t, &v);
    }
}

/* ---- saying it ---- */

struct change_list {
    struct change **items;
    size_t count;
};

static void
collect_change(void *ctx, struct slice key, void *value)
{
    struct change_list *l = ctx;
    (void)key;
    l->items[l->count++] = value;
}

static int
compare_changes(const void *a, const void *b)
{
    struct slice x = (*(struct change *const *)a)->key, y = (*(struct change *const *)b)->key;
    int order = memcmp(x.ptr, y.ptr, x.len < y.len ? x.len : y.len);
    return order ? order : x.len < y.len ? -1 : x.len > y.len;
}

static const char *
kind_text(enum entry e)
{
    switch (e) {
    case ENTRY_FORWARD: return "http";
    case ENTRY_INSPECTED: return "https";
    case ENTRY_DNS: return "name";
    case ENTRY_TUNNEL:
    case ENTRY_OTHER: break;
    }
    return "tunnel";
}

static json_t *
change_json(const struct change *c)
{
    json_t *o = json_pack("{s:s, s:s, s:s}", "change", c->closes ? "denied" : "allowed", "kind", kind_text(c->entry), "host", c->host);
    json_object_set_new(o, "port", c->port ? json_integer(c->port) : json_null());
    json_object_set_new(o, "method", c->method ? json_string(c->method) : json_null());
    json_object_set_new(o, "path", c->path ? json_stringn(c->path, c->path_len) : json_null());
    json_object_set_new(o, "before", json_string(reason_text(c->was)));
    json_object_set_new(o, "after", json_string(reason_text(c->now.reason)));
    json_object_set_new(o, "rule", json_string(c->now.rule));
    json_object_set_new(o, "would", c->now.would_deny ? json_string("deny") : json_null());
    json_object_set_new(o, "count", log_json_count(c->count));
    return o;
}

static void
print_change(const struct change *c)
{
    printf("%s %s ", c->closes ? "-" : "+", kind_text(c->entry));
    if (c->method) {
        log_print_safely(slice_str(c->method));
        putchar(' ');
    }
    printf("%s", c->host);
    if (c->port)
        printf(":%u", c->port);
    if (c->path)
        log_print_safely(slice_of(c->path, c->path_len));
    if (c->closes)
        printf("  was allowed, would be denied: %s", reason_text(c->now.reason));
    else
        printf("  was denied (%s), would be allowed", reason_text(c->was));
    if (c->now.rule[0])
        printf(", by %s", c->now.rule);
    printf("%s  %" PRIu64 " time%s\n", c->now.would_deny ? " (report mode alone)" : "", c->count, c->count == 1 ? "" : "s");
}

static void
print_note(uint64_t n, const char *one, const char *many, const char *text)
{
    if (n > 0)
        printf("note: %" PRIu64 " %s %s\n", n, n == 1 ? one : many, text);
}

static void
print_notes(const struct replay *r, uint64_t torn)
{
    print_note(r->more, "decision", "decisions", "more would change; there are too many to tell apart");
    print_note(r->tunnels, "tunnel", "tunnels", "judged by host and port: the record of a tunnel holds no method and no path");
    print_note(r->newly_seen, "tunnel", "tunnels", "would be inspected; what was inside is on no record and not judged");
    print_note(r->unseen, "request", "requests", "inside a tunnel that would not be inspected, judged as the tunnel");
    print_note(r->by_report, "decision", "decisions", "let through by the report mode of this policy alone");
    if (r->opened > 0)
        printf("note: a refusal's record holds no addresses: what would be allowed is so before the address guard\n");
    print_note(r->addresses, "refusal", "refusals", "of an address left out: the address is on no record");
    print_note(r->folded, "refusal", "refusals", "folded into `repeated` records left out: they hold no port");
    print_note(r->elsewhere, "refusal", "refusals", "left out that no allowlist decides (tokens, syntax, DNS, limits, tools)");
    print_note(r->incomplete, "decision", "decisions", "left out: the record is cut, or without what is needed to ask again");
    print_note(torn, "torn line", "torn lines", "left out: the file ends without a newline");
}

static json_t *
replay_json(const struct replay *r, const char *file, const struct change_list *l, uint64_t torn)
{
    const struct {
        const char *name;
        uint64_t n;
    } counts[] = {
        {"judged", r->judged}, {"now_denied", r->closed}, {"now_allowed", r->opened}, {"changes_left_out", r->more},
        {"tunnels", r->tunnels}, {"newly_inspected", r->newly_seen}, {"no_longer_seen", r->unseen}, {"report_mode", r->by_report},
        {"left_out_addresses", r->addresses}, {"left_out_repeated", r->folded}, {"left_out_not_policy", r->elsewhere},
        {"left_out_incomplete", r->incomplete}, {"torn", torn},
    };
    json_t *o = json_pack("{s:s}", "policy", file), *rows = json_array();
    if (!o) /* a file name that is not UTF-8 */
        o = json_object();
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        json_object_set_new(o, counts[i].name, log_json_count(counts[i].n));
    for (size_t i = 0; i < l->count; i++)
        json_array_append_new(rows, change_json(l->items[i]));
    json_object_set_new(o, "changes", rows);
    return o;
}

static void
print_replay(const struct replay *r, const struct policy_options *o, uint64_t torn)
{
    struct change_list l = {.items = mem_array(map_count(r->changes) + 1, sizeof *l.items)};
    map_each(r->changes, collect_change, &l);
    qsort(l.items, l.count, sizeof *l.items, compare_changes);
    if (o->json) {
        json_t *all = replay_json(r, o->policy, &l, torn);
        json_dumpf(all, stdout, JSON_INDENT(1));
        printf("\n");
        json_decref(all);
    } else {
        for (size_t i = 0; i < l.count; i++)
            print_change(l.items[i]);
        printf("%" PRIu64 " decision%s judged: %" PRIu64 " allowed before would be denied, %" PRIu64 " denied before would be allowed\n",
               r->judged, r->judged == 1 ? "" : "s", r->closed, r->opened);
        print_notes(r, torn);
    }
    free(l.items);
}

int
policy_replay(struct desk *d, int argc, char **argv, const struct policy_options *o, struct err *err)
{
    uint64_t torn;
    if (argc < 1 || !o->policy)
        return err_invalid(err, "policy replay: expected --policy FILE and the files of a decision log");
    struct policy *p = desk_policy_file(d, o->policy, err);
    if (!p)
        return -1;
    struct replay r = {.desk = d, .policy = p, .changes = map_new()};
    int result = old_decisions_each(argc, argv, o->sandbox, on_replayed, &r, &torn, err);
    if (result == 0) {
        print_replay(&r, o, torn);
        result = r.closed + r.opened > 0;
    }
    map_free(r.changes, free_change);
    policy_unref(p);
    return result;
}
