/* Warnings about a policy that loads: entries over many tenants, channels that take writes, ports for mail and shells,
 * entries that never open, rules that are never reached. Knowledge about particular hosts comes from the dated data
 * file, never from here. Pure. */
#include "sallyport/policy/lint.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "sallyport/base/mem.h"
#include "sallyport/policy/guard.h"
#include "sallyport/policy/inspect.h"
#include "sallyport/policy/model.h"

struct linting {
    const struct policy *p;
    struct findings *found;
    const char *list; /* the list whose entries are visited */
};

static void note(struct linting *l, enum lint_level level, const char *code, const char *where, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

static void
note(struct linting *l, enum lint_level level, const char *code, const char *where, const char *fmt, ...)
{
    struct findings *f = l->found;
    va_list args;

    if (f->count == LINT_FINDINGS_MAX) {
        f->left_out++;
        return;
    }
    if ((f->count & (f->count - 1)) == 0) /* room for the next power of two */
        f->items = mem_realloc(f->items, (f->count ? f->count * 2 : 1) * sizeof *f->items);
    struct finding *item = &f->items[f->count++];
    *item = (struct finding){.level = level, .code = code};
    snprintf(item->where, sizeof item->where, "%s", where);
    va_start(args, fmt);
    vsnprintf(item->text, sizeof item->text, fmt, args);
    va_end(args);
}

/* ---- single entries ---- */

static const struct { uint16_t port; const char *what; } risky_ports[] = {
    {21, "FTP"}, {22, "SSH, which carries any other connection inside"}, {23, "Telnet"}, {25, "mail (SMTP)"},
    {53, "DNS, which carries data in names"}, {110, "mail (POP3)"}, {123, "time (NTP)"}, {135, "Windows RPC"},
    {139, "NetBIOS"}, {143, "mail (IMAP)"}, {389, "LDAP"}, {445, "SMB"}, {465, "mail (SMTP)"}, {587, "mail (SMTP)"},
    {636, "LDAP"}, {853, "DNS over TLS, which carries data in names"}, {873, "rsync"}, {1080, "SOCKS, another proxy"},
    {2375, "the Docker API"}, {2376, "the Docker API"}, {3128, "another proxy"}, {3389, "remote desktop"},
    {5900, "VNC"}, {6379, "Redis"}, {6443, "the Kubernetes API"}, {9418, "git without encryption"}, {10250, "the kubelet"},
};

static void
lint_port(struct linting *l, const struct host_entry *e, const char *where)
{
    for (size_t i = 0; i < sizeof risky_ports / sizeof risky_ports[0]; i++) {
        if (risky_ports[i].port == e->port)
            note(l, LINT_WARNING, "port", where, "port %u is %s; nothing can be seen of what goes through it", e->port, risky_ports[i].what);
    }
    if (e->port == 80 && e->url)
        note(l, LINT_NOTE, "plain-http", where, "opens port 80 only, where everything can be read and changed on the way");
}

static void
lint_wildcard(struct linting *l, const struct host_entry *e, const char *where)
{
    if (!e->suffix)
        return;
    if (host_is_private_suffix(&e->host))
        note(l, LINT_WARNING, "wildcard-shared", where,
             "*.%s opens the names of every customer of one provider, an attacker's included; name the hosts that are needed",
             e->host.text);
    const char *special = host_special(&e->host);
    if (special)
        note(l, LINT_WARNING, "special-name", where, "never opens: names at or below %s need an exact entry", special);
}

static bool
is_covered(const struct policy *p, const struct host_key *key)
{
    uint32_t index;
    return hosts_find(p->context->overrides, key, 443, true, HOSTS_EXACT_ONLY, &index) == HOSTS_MATCH ||
           hosts_find(p->private_hosts, key, 443, true, HOSTS_ANY, &index) == HOSTS_MATCH;
}

static bool
is_blocked(const struct policy *p, const struct host_key *key, uint16_t port)
{
    uint32_t index;
    return hosts_find(p->context->blocked, key, port, true, HOSTS_ANY, &index) == HOSTS_MATCH ||
           hosts_find(p->blocked, key, port, true, HOSTS_ANY, &index) == HOSTS_MATCH;
}

static void
lint_exact(struct linting *l, const struct host_entry *e, const char *where)
{
    struct host_key key;
    if (e->suffix)
        return;
    host_key_init(&key, &e->host);
    const char *special = host_special(&e->host);
    if (special && !is_covered(l->p, &key))
        note(l, LINT_WARNING, "special-name", where,
             "never opens: %s is special, and neither upstream.hosts nor private_addresses covers it", special);
    if (is_blocked(l->p, &key, e->port ? e->port : 443))
        note(l, LINT_WARNING, "blocked", where, "never opens: the host is blocked, and blocked hosts come first");
    if (e->host.kind != HOST_NAME)
        note(l, LINT_WARNING, "literal", where, "an address instead of a name: no certificate or server name says who answers there");
}

static void
lint_data(struct linting *l, const struct host_entry *e, const char *where)
{
    static const char *const codes[RISK_COUNT] = {"write-channel", "shared-cdn", "wildcard-shared"};
    const struct registries *r = l->p->context->registries;
    struct host_key key;
    size_t manager;

    if (!r)
        return;
    for (int i = 0; i < RISK_COUNT; i++) {
        const char *why = i == RISK_SHARED_TENANTS && host_is_private_suffix(&e->host) ? NULL : registries_risk(r, e, (enum risk)i);
        if (why)
            note(l, LINT_WARNING, codes[i], where, "%s%s: %s", e->suffix ? "*." : "", e->host.text, why);
    }
    struct manager_set all = {{UINT64_MAX, UINT64_MAX}};
    host_key_init(&key, &e->host);
    if (!e->suffix && registries_match(r, &all, &key, 443, &manager) == HOSTS_MATCH)
        note(l, LINT_WARNING, "registry-host", where,
             "a host of %s: \"allow_package_managers\" with \"package_managers\": [\"%s\"] opens what it needs, for reading where "
             "inspected",
             registries_name(r, manager), registries_name(r, manager));
}

static void
lint_entry(void *ctx, const struct host_entry *e, uint32_t index)
{
    struct linting *l = ctx;
    char where[96];
    snprintf(where, sizeof where, "%s[%u]", l->list, index);
    if (e->url)
        note(l, LINT_NOTE, "old-form", where, "the older form with a scheme; \"%s:%u\" says the same", e->host.text, e->port);
    lint_wildcard(l, e, where);
    lint_exact(l, e, where);
    lint_port(l, e, where);
    lint_data(l, e, where);
}

/* ---- rules ---- */

/* Does an earlier rule with the same entry take everything that this one could match? */
static bool
is_shadowed(const struct policy *p, size_t index)
{
    const struct rule *r = &p->rules[index];
    for (size_t i = 0; i < index; i++) {
        const struct rule *before = &p->rules[i];
        bool takes_all = !rule_needs_sight(before) && (before->scheme == SCHEME_NONE || before->scheme == r->scheme);
        bool wider = before->host.suffix == r->host.suffix ? host_equal(&before->host.host, &r->host.host)
                                                           : before->host.suffix && host_entry_covers(&before->host, &r->host.host, 0);
        bool ports = before->host.port == r->host.port || (before->host.port == 0 && !before->allow);
        if (takes_all && wider && ports)
            return true;
    }
    return false;
}

static void
lint_rules(struct linting *l)
{
    const struct policy *p = l->p;
    char where[64];
    l->list = "rules";
    for (size_t i = 0; i < p->rule_count; i++) {
        const struct rule *r = &p->rules[i];
        snprintf(where, sizeof where, "rules[%zu]", i);
        if (r->path_text && r->path_text[0] != '^')
            note(l, LINT_WARNING, "pattern-open", where, "the pattern matches anywhere in the path; begin it with ^ to hold it to the front");
        if (i < 2000 && is_shadowed(p, i)) /* quadratic: enough for lists that people write */
            note(l, LINT_WARNING, "unreachable", where, "never reached: an earlier rule takes every request for this host");
        if (r->allow && !rule_needs_sight(r))
            lint_entry(l, &r->host, (uint32_t)i);
    }
}

/* ---- the whole ---- */

static void
lint_servers(struct linting *l)
{
    const struct policy *p = l->p;
    char where[64];
    if (p->server_count > 0 && !p->mcp_on)
        note(l, LINT_NOTE, "unused", "mcp_servers", "has no effect: networking.allow_mcp_servers is not true");
    if (p->server_count == 0 && p->mcp_on)
        note(l, LINT_NOTE, "unused", "networking.allow_mcp_servers", "opens nothing: there are no mcp_servers");
    for (size_t i = 0; i < p->server_count; i++) {
        const struct mcp_server *s = &p->servers[i];
        snprintf(where, sizeof where, "mcp_servers[%zu]", i);
        if (server_has_tools(s) && p->inspect == INSPECT_OFF)
            note(l, LINT_WARNING, "not-inspected", where, "the tool lists have no effect without inspection: every tool can be called");
        if (s->path[0] && s->target.scheme == SCHEME_HTTPS && p->inspect == INSPECT_OFF)
            note(l, LINT_NOTE, "not-inspected", where, "without inspection the whole host is open, not only %s", s->path);
    }
}

static void
lint_privates(struct linting *l)
{
    const struct policy *p = l->p;
    char where[96];
    for (size_t i = 0; i < p->private_count; i++) {
        for (size_t k = 0; k < p->privates[i].count; k++) {
            bool delegated = false;
            for (size_t d = 0; d < p->context->delegable_count; d++)
                delegated |= cidr_covers(&p->context->delegable[d], &p->privates[i].cidrs[k]);
            snprintf(where, sizeof where, "private_addresses[%zu].addresses[%zu]", i, k);
            if (!delegated)
                note(l, LINT_WARNING, "not-delegated", where,
                     "the operator's upstream.delegable_addresses does not cover all of it; the rest stays closed");
        }
    }
}

struct unseen {
    const struct policy *p;
    size_t hosts, unseen, plain;
    char first[ENTRY_TEXT_SIZE];
};

static void
note_unseen(void *ctx, const struct host_entry *e, bool plain_http)
{
    struct unseen *u = ctx;
    u->hosts++;
    u->plain += plain_http;
    if (e->suffix || policy_inspects(u->p, &e->host, 443, false))
        return;
    if (u->unseen++ == 0)
        host_entry_format(e, u->first);
}

/* "read" holds where requests are seen; what of it is not? */
static void
lint_registries(struct linting *l)
{
    const struct policy *p = l->p;
    struct unseen u = {.p = p};
    if (!p->managers_on || p->managers_write)
        return;
    if (p->unrestricted)
        note(l, LINT_NOTE, "unused", "package_access", "registries can be written to as any other host: unrestricted opens them too");
    if (p->inspect == INSPECT_OFF) {
        note(l, LINT_NOTE, "not-inspected", "package_access", "reading and publishing look the same in a tunnel; without inspection both are open");
        return;
    }
    for (size_t i = 0; i < registries_count(p->context->registries); i++) {
        if (manager_set_has(&p->managers, i))
            registries_each(p->context->registries, i, note_unseen, &u);
    }
    if (u.unseen)
        note(l, LINT_NOTE, "not-inspected", "package_access",
             "reading and publishing look the same in a tunnel: both are open for %zu of %zu entries, the first is %s; name them in inspect.hosts",
             u.unseen, u.hosts, u.first);
    if (u.plain)
        note(l, LINT_NOTE, "not-inspected", "package_access",
             "%zu entries have port 80 too: plain requests to it are judged, and a tunnel to it (CONNECT, run --transparent) is not looked into", u.plain);
}

static void
lint_networking(struct linting *l)
{
    const struct policy *p = l->p;
    if (p->unrestricted)
        note(l, LINT_WARNING, "unrestricted", "networking.type", "opens every public host; data can leave to anywhere");
    if (p->unrestricted && !p->context->blocklist)
        note(l, LINT_WARNING, "no-blocklist", "networking.type", "there is no safety-blocklist.json, so paste and tunnel services are open too");
    if (p->to_parent)
        note(l, LINT_NOTE, "to-parent", "networking.type", "refuses nothing but blocked_hosts; what leaves is for upstream.parent to decide");
    if (p->managers_on && !p->managers_named)
        note(l, LINT_NOTE, "all-managers", "networking.allow_package_managers", "opens the hosts of all package managers; name those that are needed in package_managers");
    if (!p->managers_on && p->managers_named)
        note(l, LINT_NOTE, "unused", "package_managers", "has no effect: networking.allow_package_managers is not true");
    lint_registries(l);
    if (p->report)
        note(l, LINT_WARNING, "report-mode", "mode", "refuses nothing: what the lists would deny is let through and recorded");
    bool opens = hosts_count(p->allowed) > 0 || p->unrestricted || p->to_parent || (p->mcp_on && p->server_count > 0) || p->managers_on;
    for (size_t i = 0; i < p->rule_count; i++)
        opens |= p->rules[i].allow;
    if (!opens)
        note(l, LINT_WARNING, "denies-all", "networking", "opens nothing: every request will be refused");
}

struct findings *
policy_lint(const struct policy *p, const struct lint_options *o)
{
    struct linting l = {.p = p, .found = mem_zalloc(sizeof *l.found)};
    lint_networking(&l);
    l.list = "networking.allowed_hosts";
    hosts_each(p->allowed, lint_entry, &l);
    lint_rules(&l);
    lint_servers(&l);
    lint_privates(&l);
    if (o && o->has_parent)
        note(&l, LINT_NOTE, "parent", "upstream.parent", "names are passed on unresolved, so the guard over their addresses is the parent's duty");
    return l.found;
}

size_t
findings_warnings(const struct findings *f)
{
    size_t count = f->left_out;
    for (size_t i = 0; i < f->count; i++)
        count += f->items[i].level == LINT_WARNING;
    return count;
}

void
findings_free(struct findings *f)
{
    if (!f)
        return;
    free(f->items);
    free(f);
}
