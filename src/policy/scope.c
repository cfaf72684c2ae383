/* The effective list of a policy, row by row in the order of the decision, and the comparison of two policies by asking
 * both the same questions. Both use the decision itself, so that they cannot say anything else than the proxy does. */
#include "sallyport/policy/scope.h"

#include <stdio.h>

#include "sallyport/base/mem.h"
#include "sallyport/policy/inspect.h"
#include "sallyport/policy/model.h"

struct walk {
    const struct policy *p;
    void (*visit)(void *ctx, const struct scope_row *row);
    void *ctx;
    enum source source;
    enum scope_effect effect;
    const char *list;
};

static void
ports_text(const struct policy *p, uint16_t port, char text[SCOPE_PORTS_SIZE])
{
    size_t len = 0;
    if (port) {
        snprintf(text, SCOPE_PORTS_SIZE, "%u", port);
        return;
    }
    text[0] = '\0';
    for (unsigned i = 1; i < 65536 && len + 8 < SCOPE_PORTS_SIZE; i++) {
        if (port_set_has(&p->context->default_ports, (uint16_t)i))
            len += (size_t)snprintf(text + len, SCOPE_PORTS_SIZE - len, "%s%u", len ? "," : "", i);
    }
}

/* The host of an entry, or for a wildcard a name below it that nobody has an exact entry for. */
static bool
probe_host(const struct host_entry *e, struct host *ret)
{
    char text[HOST_TEXT_SIZE * 2];
    if (!e->suffix) {
        *ret = e->host;
        return true;
    }
    snprintf(text, sizeof text, "any-name-below.%s", e->host.text);
    return host_parse(slice_str(text), ret);
}

/* What keeps an opening entry shut: a blocked list, or a special name that nobody covers. */
static void
mark_closed(const struct policy *p, const struct host_entry *e, struct scope_row *row)
{
    struct target t = {.port = e->port ? e->port : 443};
    struct question q = {.target = &t};
    struct verdict v;
    if (!probe_host(e, &t.host))
        return;
    policy_decide(p, &q, &v);
    bool barred = v.reason == REASON_HOST_BLOCKED || v.source == SOURCE_BUILTIN;
    if (v.action == ACTION_DENY && barred && row->effect == SCOPE_OPEN) {
        row->effect = SCOPE_CLOSED;
        snprintf(row->detail, sizeof row->detail, "closed by %s", v.rule);
    }
}

static void
fill(const struct walk *w, const struct host_entry *e, struct scope_row *row)
{
    struct host_entry bare = *e;
    bare.port = 0;
    *row = (struct scope_row){.effect = w->effect, .source = w->source};
    host_entry_format(&bare, row->host);
    if (w->effect == SCOPE_DENY && e->port == 0)
        snprintf(row->ports, sizeof row->ports, "all");
    else
        ports_text(w->p, e->port, row->ports);
}

static void
visit_entry(void *ctx, const struct host_entry *e, uint32_t index)
{
    const struct walk *w = ctx;
    struct scope_row row;
    fill(w, e, &row);
    snprintf(row.where, sizeof row.where, "%s[%u]", w->list, index);
    mark_closed(w->p, e, &row);
    w->visit(w->ctx, &row);
}

static void
visit_list(struct walk *w, const struct hosts *list, const char *name, enum source source, enum scope_effect effect)
{
    w->list = name;
    w->source = source;
    w->effect = effect;
    hosts_each(list, visit_entry, w);
}

static void
rule_detail(const struct rule *r, char text[SCOPE_DETAIL_SIZE])
{
    size_t len = 0;
    static const char *const schemes[] = {"", "http ", "https "};
    len = (size_t)snprintf(text, SCOPE_DETAIL_SIZE, "%s", schemes[r->scheme]);
    for (size_t i = 0; r->methods && r->methods[i] && len + METHOD_LEN_MAX + 2 < SCOPE_DETAIL_SIZE; i++)
        len += (size_t)snprintf(text + len, SCOPE_DETAIL_SIZE - len, "%s%s", i ? "," : "", r->methods[i]);
    if (r->path_text && len + 2 < SCOPE_DETAIL_SIZE)
        snprintf(text + len, SCOPE_DETAIL_SIZE - len, "%s%s", r->methods ? " " : "", r->path_text);
}

static void
visit_rules(struct walk *w)
{
    for (size_t i = 0; i < w->p->rule_count; i++) {
        const struct rule *r = &w->p->rules[i];
        struct scope_row row;
        w->source = SOURCE_POLICY;
        w->effect = r->allow ? SCOPE_OPEN : SCOPE_DENY;
        fill(w, &r->host, &row);
        snprintf(row.where, sizeof row.where, "rules[%zu]%s%s", i, r->id ? " " : "", r->id ? r->id : "");
        rule_detail(r, row.detail);
        mark_closed(w->p, &r->host, &row);
        w->visit(w->ctx, &row);
    }
}

static void
visit_servers(struct walk *w)
{
    w->source = SOURCE_MCP;
    w->effect = SCOPE_OPEN;
    for (size_t i = 0; w->p->mcp_on && i < w->p->server_count; i++) {
        const struct mcp_server *s = &w->p->servers[i];
        struct host_entry e = {.port = s->target.port, .host = s->target.host};
        struct scope_row row;
        fill(w, &e, &row);
        snprintf(row.where, sizeof row.where, "mcp_servers[%zu] %s", i, s->name);
        snprintf(row.detail, sizeof row.detail, "%s", s->path);
        mark_closed(w->p, &e, &row);
        w->visit(w->ctx, &row);
    }
}

struct manager_walk {
    struct walk *w;
    size_t manager;
};

/* What can be done with a registry's host: reading is told from writing only where requests are seen. */
static void
access_detail(const struct walk *w, size_t manager, const struct host_entry *e, bool plain_http, char text[SCOPE_DETAIL_SIZE])
{
    char reads[SCOPE_DETAIL_SIZE / 2];
    struct host host;
    bool seen = probe_host(e, &host) && policy_inspects(w->p, &host, 443, false);
    registries_describe(w->p->context->registries, manager, e, reads, sizeof reads);
    if (w->p->managers_write)
        snprintf(text, SCOPE_DETAIL_SIZE, "read and write");
    else if (seen)
        snprintf(text, SCOPE_DETAIL_SIZE, "read: %s%s", reads, plain_http ? "; in a tunnel to port 80 read and write" : "");
    else if (plain_http)
        snprintf(text, SCOPE_DETAIL_SIZE, "by plain requests read: %s; tunnels are not inspected, so read and write", reads);
    else
        snprintf(text, SCOPE_DETAIL_SIZE, "not inspected, so read and write");
}

static void
visit_registry_host(void *ctx, const struct host_entry *e, bool plain_http)
{
    struct manager_walk *m = ctx;
    struct scope_row row;
    fill(m->w, e, &row);
    snprintf(row.ports, sizeof row.ports, "%s", plain_http ? "80,443" : "443");
    snprintf(row.where, sizeof row.where, "package_managers.%s", registries_name(m->w->p->context->registries, m->manager));
    access_detail(m->w, m->manager, e, plain_http, row.detail);
    mark_closed(m->w->p, e, &row);
    m->w->visit(m->w->ctx, &row);
}

static void
visit_registries(struct walk *w)
{
    const struct registries *r = w->p->context->registries;
    w->source = SOURCE_REGISTRIES;
    w->effect = SCOPE_OPEN;
    for (size_t i = 0; w->p->managers_on && i < registries_count(r); i++) {
        struct manager_walk m = {w, i};
        if (manager_set_has(&w->p->managers, i))
            registries_each(r, i, visit_registry_host, &m);
    }
}

static void
visit_unrestricted(struct walk *w)
{
    struct scope_row row = {.effect = SCOPE_OPEN, .source = SOURCE_POLICY};
    const struct blocklist *b = w->p->context->blocklist;
    if (!w->p->unrestricted)
        return;
    snprintf(row.host, sizeof row.host, "(every public host)");
    ports_text(w->p, 0, row.ports);
    snprintf(row.where, sizeof row.where, "networking.type");
    if (b)
        snprintf(row.detail, sizeof row.detail, "less the %zu hosts of the safety blocklist of %s", blocklist_count(b), blocklist_date(b));
    w->visit(w->ctx, &row);
}

static void
visit_parent(struct walk *w)
{
    struct scope_row row = {.effect = SCOPE_OPEN, .source = SOURCE_POLICY};
    if (!w->p->to_parent)
        return;
    snprintf(row.host, sizeof row.host, "(every host)");
    snprintf(row.ports, sizeof row.ports, "all");
    snprintf(row.where, sizeof row.where, "networking.type");
    snprintf(row.detail, sizeof row.detail, "as upstream.parent decides");
    w->visit(w->ctx, &row);
}

void
policy_scope(const struct policy *p, void (*visit)(void *ctx, const struct scope_row *row), void *ctx)
{
    struct walk w = {.p = p, .visit = visit, .ctx = ctx};
    visit_list(&w, p->context->blocked, "blocked_hosts", SOURCE_OPERATOR, SCOPE_DENY);
    visit_list(&w, p->blocked, "blocked_hosts", SOURCE_POLICY, SCOPE_DENY);
    visit_rules(&w);
    visit_list(&w, p->allowed, "allowed_hosts", SOURCE_POLICY, SCOPE_OPEN);
    visit_servers(&w);
    visit_registries(&w);
    visit_list(&w, p->context->platform, "platform_hosts", SOURCE_OPERATOR, SCOPE_OPEN);
    visit_unrestricted(&w);
    visit_parent(&w);
}

/* ---- the comparison ---- */

struct comparison {
    const struct policy *before, *after;
    void (*visit)(void *ctx, const struct diff_row *row);
    void *ctx;
    struct hosts *asked; /* targets that were compared already */
    size_t opened;
};

static bool
lets_out(const struct verdict *v)
{
    return v->action != ACTION_DENY && !v->would_deny;
}

static void
ask(struct comparison *c, struct diff_row *row, const char *method)
{
    struct question q = {.target = &row->target};
    if (method)
        q.method = slice_str(method);
    row->method = method;
    policy_decide(c->before, &q, &row->before);
    policy_decide(c->after, &q, &row->after);
    bool was = lets_out(&row->before), is = lets_out(&row->after);
    bool seen_less = row->before.action == ACTION_INSPECT && row->after.action == ACTION_ALLOW; /* no longer inspected */
    if (was == is && !seen_less)
        return;
    row->opened = is;
    c->opened += row->opened;
    c->visit(c->ctx, row);
}

static void
compare_target(struct comparison *c, const struct host *host, bool below, uint16_t port)
{
    static const char *const methods[] = {"GET", "POST", "PUT", "DELETE"};
    struct diff_row row = {.below = below, .target = {.scheme = SCHEME_NONE, .host = *host, .port = port}};
    struct host_entry e = {.host = *host, .port = port};

    if (hosts_add(c->asked, &e, 0) != HOSTS_NO_INDEX)
        return;
    ask(c, &row, NULL);
    row.target.scheme = SCHEME_HTTP;
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
        ask(c, &row, methods[i]);
}

static void
compare_entry(struct comparison *c, const struct host_entry *e)
{
    struct host host;
    if (!probe_host(e, &host))
        return;
    if (e->port) {
        compare_target(c, &host, e->suffix, e->port);
        return;
    }
    for (unsigned i = 1; i < 65536; i++) {
        if (port_set_has(&c->before->context->default_ports, (uint16_t)i) ||
            port_set_has(&c->after->context->default_ports, (uint16_t)i))
            compare_target(c, &host, e->suffix, (uint16_t)i);
    }
}

static void
compare_indexed(void *ctx, const struct host_entry *e, uint32_t index)
{
    (void)index;
    compare_entry(ctx, e);
}

static void
compare_registry(void *ctx, const struct host_entry *e, bool plain_http)
{
    (void)plain_http;
    compare_entry(ctx, e);
}

static void
compare_by(struct comparison *c, const struct policy *p)
{
    const struct registries *r = p->context->registries;
    hosts_each(p->context->blocked, compare_indexed, c);
    hosts_each(p->blocked, compare_indexed, c);
    for (size_t i = 0; i < p->rule_count; i++)
        compare_entry(c, &p->rules[i].host);
    hosts_each(p->allowed, compare_indexed, c);
    hosts_each(p->server_hosts, compare_indexed, c);
    for (size_t i = 0; p->managers_on && i < registries_count(r); i++) {
        if (manager_set_has(&p->managers, i))
            registries_each(r, i, compare_registry, c);
    }
    hosts_each(p->context->platform, compare_indexed, c);
    if (p->unrestricted || p->to_parent) { /* a public host that nobody names (RFC 2606 keeps the name free) */
        struct host_entry e = {.suffix = false};
        if (host_parse(slice_str("any-other-host.example"), &e.host))
            compare_entry(c, &e);
    }
}

static bool
same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool
same_rule(const struct rule *a, const struct rule *b)
{
    size_t i = 0;
    if (a->allow != b->allow || a->scheme != b->scheme || !same_text(a->path_text, b->path_text) || !a->methods != !b->methods ||
        a->host.suffix != b->host.suffix || a->host.port != b->host.port || !host_equal(&a->host.host, &b->host.host))
        return false;
    while (a->methods && a->methods[i] && b->methods[i] && strcmp(a->methods[i], b->methods[i]) == 0)
        i++;
    return !a->methods || (!a->methods[i] && !b->methods[i]);
}

/* The rules with methods or a path that `here` has and `there` has not. */
static void
compare_rules(struct comparison *c, const struct policy *here, const struct policy *there)
{
    for (size_t i = 0; i < here->rule_count; i++) {
        const struct rule *r = &here->rules[i];
        bool known = !rule_needs_sight(r);
        for (size_t k = 0; k < there->rule_count && !known; k++)
            known = same_rule(r, &there->rules[k]);
        if (known)
            continue;
        struct diff_row row = {.opened = r->allow == (here == c->after), .below = r->host.suffix,
                               .target = {.scheme = r->scheme, .host = r->host.host, .port = r->host.port}};
        snprintf(row.rule, sizeof row.rule, "rules[%zu]%s%s", i, r->id ? " " : "", r->id ? r->id : "");
        c->opened += row.opened;
        c->visit(c->ctx, &row);
    }
}

size_t
policy_diff(const struct policy *before, const struct policy *after, void (*visit)(void *ctx, const struct diff_row *row),
            void *ctx)
{
    struct comparison c = {.before = before, .after = after, .visit = visit, .ctx = ctx, .asked = hosts_new()};
    compare_by(&c, before);
    compare_by(&c, after);
    compare_rules(&c, before, after);
    compare_rules(&c, after, before);
    hosts_free(c.asked);
    return c.opened;
}
