/* `sallyport policy suggest`: a policy document from old records. It proposes hosts that were asked for and nothing that a list,
 * the guard or a rule has refused; what it widens beyond the records (a wildcard) it says. The proposal is for a person to read:
 * a sandbox chooses what it asks for. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sallyport/base/file.h"
#include "sallyport/base/json.h"
#include "sallyport/base/map.h"
#include "sallyport/base/mem.h"
#include "sallyport/cmd/policy.h"
#include "sallyport/policy/context.h"
#include "sallyport/policy/decide.h"
#include "sallyport/policy/hosts.h"
#include "sallyport/policy/registries.h"

#define SUGGEST_HOSTS_MAX 50000 /* told apart; nobody reads a longer proposal */
#define SUGGEST_PORTS_MAX 32    /* of one host; the rest is left out and said */
#define SUGGEST_BASE_DEPTH 16   /* at least as deep as a policy may be; the compiler has read it before us */
#define WILDCARD_DEFAULT 5
#define WILDCARD_MIN 2

/* One host of the records. */
struct candidate {
    struct host host;
    uint16_t ports[SUGGEST_PORTS_MAX]; /* wanted, sorted in the end */
    size_t port_count, ports_left_out;
    bool barred;      /* refused by a blocked list, the guard or as a special name */
    bool ruled_out;   /* refused by a rule of the policy */
    bool refused;     /* refused otherwise, and not what is proposed */
    bool writes;      /* seen: more than reading a registry */
    bool by_rule;     /* let out by a rule, which may have judged methods and paths */
    bool wanted;      /* asked for in the way that is proposed */
    bool bare;        /* to be proposed without a port */
    bool managed;     /* a proposed package manager stands for it */
    bool in_wildcard;
};

struct suggestion {
    struct desk *desk;
    const struct policy_options *options;
    struct policy *base;             /* NULL without --base */
    struct policy *open;             /* unrestricted: what it refuses, lists and built-in names refuse */
    struct map *hosts;
    struct candidate **sorted;
    size_t count;
    unsigned long long wildcard_min; /* 0: none */
    uint64_t decisions, folded;
    bool too_many;
    char **entries;                  /* of allowed_hosts */
    size_t entry_count;
    const char **managers;           /* names; borrowed */
    struct manager_set manager_set;
    size_t manager_count, wildcard_count;
    json_t *notes;                   /* what a reader has to know, a line each */
};

__attribute__((format(printf, 2, 3))) static void
suggest_note(struct suggestion *s, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    json_array_append_new(s->notes, json_string(text));
}

/* ---- reading ---- */

static struct candidate *
candidate_of(struct suggestion *s, const struct host *host)
{
    struct candidate *c = map_get(s->hosts, host_slice(host));
    if (c)
        return c;
    if (map_count(s->hosts) >= SUGGEST_HOSTS_MAX) {
        s->too_many = true;
        return NULL;
    }
    c = mem_zalloc(sizeof *c);
    c->host = *host;
    map_put(s->hosts, host_slice(host), c);
    return c;
}

static void
want_port(struct candidate *c, uint16_t port)
{
    c->wanted = true;
    for (size_t i = 0; i < c->port_count; i++) {
        if (c->ports[i] == port)
            return;
    }
    if (c->port_count < SUGGEST_PORTS_MAX)
        c->ports[c->port_count++] = port;
    else
        c->ports_left_out++;
}

/* A request that was seen, and that no package manager's registry takes for one that reads. */
static bool
is_writing(const struct suggestion *s, const struct old_decision *d, const struct host *host)
{
    const struct registries *r = policy_context_registries(s->desk->context);
    struct manager_set all = {{UINT64_MAX, UINT64_MAX}};
    struct target target = {.scheme = SCHEME_HTTPS, .host = *host, .port = d->port};
    struct question q = {.target = &target, .method = d->method, .path = d->path};
    struct read_answer answer;
    struct host_key key;
    size_t manager;
    if ((d->entry != ENTRY_FORWARD && d->entry != ENTRY_INSPECTED) || !d->method.ptr || !r)
        return false;
    host_key_init(&key, host);
    registries_ask(r, &all, &key, &q, &manager, &answer);
    return !answer.allowed;
}

/* A refusal of this record, as far as a policy is behind it. */
static void
note_refusal(const struct suggestion *s, const struct old_decision *d, struct candidate *c, uint16_t port)
{
    bool listed = d->reason == REASON_HOST_NOT_ALLOWED || d->reason == REASON_PORT_NOT_ALLOWED;
    if (listed && s->options->denied && port)
        want_port(c, port);
    if (d->reason == REASON_HOST_BLOCKED || d->reason == REASON_ADDRESS_NOT_ALLOWED || (listed && slice_is(d->source, "builtin")))
        c->barred = true;
    else if (listed && d->rule.ptr && slice_starts_with(d->rule, "rules["))
        c->ruled_out = true;
    else if (listed)
        c->refused = true;
}

static void
on_suggesting(void *ctx, const struct old_decision *d)
{
    struct suggestion *s = ctx;
    struct host host;
    /* A name was asked for, and no connection came of it: the port that most would have gone to. */
    uint16_t port = d->entry == ENTRY_DNS ? 443 : d->port;
    s->decisions++;
    s->folded += d->repeated;
    if (d->cut || !d->host.ptr || !host_parse(d->host, &host) || (d->entry == ENTRY_OTHER && !d->repeated))
        return;
    struct candidate *c = candidate_of(s, &host);
    if (!c)
        return;
    c->writes |= is_writing(s, d, &host);
    if (!d->allow) {
        note_refusal(s, d, c, d->repeated ? 0 : port);
    } else if (!s->options->denied && port) {
        want_port(c, port);
        c->by_rule |= d->rule.ptr && slice_starts_with(d->rule, "rules[");
    }
}

static void
collect_candidate(void *ctx, struct slice key, void *value)
{
    struct suggestion *s = ctx;
    (void)key;
    s->sorted[s->count++] = value;
}

static int
compare_candidates(const void *a, const void *b)
{
    return strcmp((*(struct candidate *const *)a)->host.text, (*(struct candidate *const *)b)->host.text);
}

static int
compare_ports(const void *a, const void *b)
{
    return (int)*(const uint16_t *)a - (int)*(const uint16_t *)b;
}

/* ---- what may be proposed ---- */

static struct verdict
ask_about(const struct policy *p, const struct host *host, uint16_t port)
{
    struct target t = {.host = *host, .port = port};
    struct question q = {.target = &t};
    struct verdict v;
    policy_decide(p, &q, &v);
    return v;
}

static bool
is_shut(const struct suggestion *s, const struct candidate *c)
{
    struct target t = {.host = c->host, .port = c->ports[0]};
    struct verdict v = ask_about(s->open, &c->host, c->ports[0]);
    struct endpoints *e = NULL;
    struct host_entry entry;
    char why[ENTRY_WHY_SIZE];
    /* On the safety blocklist: an allow was the author's own entry, a refusal stays one. */
    if (v.source == SOURCE_BUILTIN || (v.reason == REASON_HOST_BLOCKED && (v.source != SOURCE_BLOCKLIST || s->options->denied)))
        return true;
    if (!host_entry_parse(host_slice(&c->host), &entry, why))
        return true;
    if (c->host.kind == HOST_NAME)
        return false;
    enum reason r = guard_judge(s->desk->guard, s->base ? s->base : s->open, &t, &c->host.literal, 1, &e);
    endpoints_free(e);
    return r != REASON_OK;
}

/* Ports that --base opens are taken off; what its lists or rules refuse cannot be opened by an entry. */
static void
compare_with_base(const struct suggestion *s, struct candidate *c)
{
    size_t kept = 0;
    for (size_t i = 0; i < c->port_count; i++) {
        struct verdict v = ask_about(s->base, &c->host, c->ports[i]);
        bool opens = v.action != ACTION_DENY && !v.would_deny;
        c->barred |= v.reason == REASON_HOST_BLOCKED || v.source == SOURCE_BUILTIN;
        c->ruled_out |= !opens && strncmp(v.rule, "rules[", 6) == 0;
        if (!opens)
            c->ports[kept++] = c->ports[i];
    }
    c->port_count = kept;
}

static bool
is_default_port(const struct suggestion *s, uint16_t port)
{
    const struct settings *set = &s->desk->settings;
    for (size_t i = 0; i < set->default_port_count; i++) {
        if (set->default_ports[i] == port)
            return true;
    }
    return set->default_port_count == 0 && (port == 80 || port == 443);
}

static void
sift(struct suggestion *s)
{
    size_t barred = 0, ruled_out = 0, by_rule = 0;
    for (size_t i = 0; i < s->count; i++) {
        struct candidate *c = s->sorted[i];
        if (c->port_count == 0)
            continue;
        qsort(c->ports, c->port_count, sizeof c->ports[0], compare_ports);
        c->barred = c->barred || is_shut(s, c);
        by_rule += c->by_rule && !c->barred;
        if (c->ports_left_out)
            suggest_note(s, "%s: more than %d ports were asked for; the others are left out", c->host.text, SUGGEST_PORTS_MAX);
    }
    for (size_t i = 0; i < s->count; i++) {
        struct candidate *c = s->sorted[i];
        if (c->port_count && s->base)
            compare_with_base(s, c);
        barred += c->port_count && c->barred;
        ruled_out += c->port_count && !c->barred && c->ruled_out;
        if (c->barred || c->ruled_out)
            c->port_count = 0;
    }
    if (barred)
        suggest_note(s, "left out: %zu host%s refused by a blocked list, by the address guard or as a special name", barred, barred == 1 ? "" : "s");
    if (ruled_out)
        suggest_note(s, "left out: %zu host%s refused by a rule, which comes before every list", ruled_out, ruled_out == 1 ? "" : "s");
    if (by_rule)
        suggest_note(s, "%zu host%s let out by rules, which may judge methods and paths; an entry opens the whole host", by_rule,
                     by_rule == 1 ? " was" : "s were");
}

/* ---- package managers ---- */

struct manager_look {
    const struct suggestion *s;
    const struct manager_set *named_only;
    bool complete, has_own, has_new; /* own: no host of one that must be named */
};

static bool
covers_port(uint16_t port, bool plain_http)
{
    return port == 443 || (port == 80 && plain_http);
}

static void
look_at_host(void *ctx, const struct host_entry *e, bool plain_http)
{
    struct manager_look *l = ctx;
    const struct candidate *c = e->suffix ? NULL : map_get(l->s->hosts, host_slice(&e->host));
    const struct registries *r = policy_context_registries(l->s->desk->context);
    struct host_key key;
    size_t manager;
    bool seen = false;
    for (size_t i = 0; c && !c->writes && i < c->port_count; i++)
        seen |= covers_port(c->ports[i], plain_http);
    host_key_init(&key, &e->host);
    l->has_own |= registries_match(r, l->named_only, &key, 443, &manager) != HOSTS_MATCH;
    l->has_new |= seen;
    l->complete &= seen || (c && c->managed);
}

static void
take_off_host(void *ctx, const struct host_entry *e, bool plain_http)
{
    const struct suggestion *s = ctx;
    struct candidate *c = map_get(s->hosts, host_slice(&e->host));
    size_t kept = 0;
    for (size_t i = 0; i < c->port_count; i++) {
        if (!covers_port(c->ports[i], plain_http))
            c->ports[kept++] = c->ports[i];
    }
    c->port_count = kept;
    c->managed = true;
}

/* A manager whose hosts have all been asked for stands for them, as long as it was not asked for more. Those that must be named
 * (code forges and the like) are never proposed, nor others that have no host but theirs. The order is the data file's; one whose
 * hosts all are another's already adds nothing and is not proposed beside it. */
static void
propose_managers(struct suggestion *s, bool may)
{
    const struct registries *r = policy_context_registries(s->desk->context);
    struct manager_set all, named_only;
    if (!r)
        suggest_note(s, "no registries.json was found: package managers are listed by their hosts");
    if (!r || !may)
        return;
    registries_all(r, &all);
    for (size_t i = 0; i < sizeof all.bits / sizeof all.bits[0]; i++)
        named_only.bits[i] = ~all.bits[i];
    s->managers = mem_array(registries_count(r) + 1, sizeof *s->managers);
    for (size_t i = 0; i < registries_count(r); i++) {
        struct manager_look l = {.s = s, .named_only = &named_only, .complete = true};
        if (!manager_set_has(&all, i))
            continue;
        registries_each(r, i, look_at_host, &l);
        if (!l.complete || !l.has_own || !l.has_new)
            continue;
        s->managers[s->manager_count++] = registries_name(r, i);
        registries_each(r, i, take_off_host, s);
    }
}

/* ---- wildcards ---- */

struct domain {
    char *name;
    size_t below, labels;
};

static const char *
parent_of(const char *name)
{
    const char *dot = strchr(name, '.');
    return dot && strchr(dot + 1, '.') ? dot + 1 : NULL;
}

static void
count_domains(struct map *domains, const struct candidate *c)
{
    for (const char *name = parent_of(c->host.text); name; name = parent_of(name)) {
        struct domain *d = map_get(domains, slice_str(name));
        if (!d) {
            d = mem_zalloc(sizeof *d);
            d->name = mem_strdup(name);
            for (const char *p = name; p; p = strchr(p + 1, '.'))
                d->labels++;
            map_put(domains, slice_str(name), d);
        }
        d->below++;
    }
}

static void
free_domain(void *value)
{
    struct domain *d = value;
    free(d->name);
    free(d);
}

struct domain_list {
    struct domain **items;
    size_t count, min;
};

static void
collect_domain(void *ctx, struct slice key, void *value)
{
    struct domain_list *l = ctx;
    struct domain *d = value;
    (void)key;
    if (d->below >= l->min)
        l->items[l->count++] = d;
}

/* The longest first: the narrowest wildcard that stands for enough names. */
static int
compare_domains(const void *a, const void *b)
{
    const struct domain *x = *(struct domain *const *)a, *y = *(struct domain *const *)b;
    if (x->labels != y->labels)
        return x->labels > y->labels ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* May names below it be opened unseen? Never where strangers register names, where a tenant is anybody, or where the records
 * show a refusal. */
static bool
may_open_below(const struct suggestion *s, const struct host_entry *e)
{
    const struct registries *r = policy_context_registries(s->desk->context);
    if (host_is_public_suffix(&e->host) || host_special(&e->host) || (r && registries_risk(r, e, RISK_SHARED_TENANTS)))
        return false;
    for (size_t i = 0; i < s->count; i++) {
        const struct candidate *c = s->sorted[i];
        bool shut = c->barred || c->ruled_out || (c->refused && !c->wanted);
        if (shut && host_entry_covers(e, &c->host, 0))
            return false;
    }
    return true;
}

static void
propose_wildcard(struct suggestion *s, const struct domain *d)
{
    char text[HOST_TEXT_SIZE + 2], why[ENTRY_WHY_SIZE];
    struct host_entry e;
    size_t below = 0;
    snprintf(text, sizeof text, "*.%s", d->name);
    if (!host_entry_parse(slice_str(text), &e, why))
        return;
    for (size_t i = 0; i < s->count; i++)
        below += s->sorted[i]->bare && !s->sorted[i]->in_wildcard && host_entry_covers(&e, &s->sorted[i]->host, 0);
    if (below < s->wildcard_min || !may_open_below(s, &e))
        return;
    for (size_t i = 0; i < s->count; i++)
        s->sorted[i]->in_wildcard |= s->sorted[i]->bare && host_entry_covers(&e, &s->sorted[i]->host, 0);
    s->entries[s->entry_count++] = mem_strdup(text);
    s->wildcard_count++;
    suggest_note(s, "%s stands for %zu names, and opens every other name below that domain too (--wildcard 0 lists them singly)", text, below);
}

static void
propose_wildcards(struct suggestion *s)
{
    struct map *domains = map_new();
    for (size_t i = 0; i < s->count; i++) {
        if (s->sorted[i]->bare && s->sorted[i]->host.kind == HOST_NAME)
            count_domains(domains, s->sorted[i]);
    }
    struct domain_list l = {.items = mem_array(map_count(domains) + 1, sizeof *l.items), .min = s->wildcard_min};
    map_each(domains, collect_domain, &l);
    qsort(l.items, l.count, sizeof *l.items, compare_domains);
    for (size_t i = 0; i < l.count; i++)
        propose_wildcard(s, l.items[i]);
    free(l.items);
    map_free(domains, free_domain);
}

/* ---- entries ---- */

static int
compare_entries(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void
propose_ports(struct suggestion *s, struct candidate *c)
{
    for (size_t k = 0; k < c->port_count; k++) {
        if (!is_default_port(s, c->ports[k]))
            s->entries[s->entry_count++] = mem_printf("%s:%u", c->host.text, c->ports[k]);
    }
    if (c->bare && !c->in_wildcard)
        s->entries[s->entry_count++] = mem_strdup(c->host.text);
}

static void
propose_entries(struct suggestion *s)
{
    size_t most = 1;
    for (size_t i = 0; i < s->count; i++) {
        struct candidate *c = s->sorted[i];
        for (size_t k = 0; k < c->port_count; k++)
            c->bare |= is_default_port(s, c->ports[k]);
        most += c->port_count + 1;
    }
    s->entries = mem_array(most, sizeof *s->entries);
    if (s->wildcard_min > 0)
        propose_wildcards(s);
    for (size_t i = 0; i < s->count; i++)
        propose_ports(s, s->sorted[i]);
    qsort(s->entries, s->entry_count, sizeof *s->entries, compare_entries);
}

/* ---- the document ---- */

static json_t *
member_or_new(json_t *object, const char *name, json_t *fresh)
{
    json_t *there = json_object_get(object, name);
    if (there && !json_is_null(there)) {
        json_decref(fresh);
        return there;
    }
    json_object_set_new(object, name, fresh);
    return fresh;
}

static void
extend(json_t *document, const struct suggestion *s)
{
    json_t *networking = member_or_new(document, "networking", json_object());
    member_or_new(networking, "type", json_string("limited"));
    json_t *hosts = member_or_new(networking, "allowed_hosts", json_array());
    for (size_t i = 0; i < s->entry_count; i++)
        json_array_append_new(hosts, json_string(s->entries[i]));
    if (s->manager_count == 0)
        return;
    json_object_set_new(networking, "allow_package_managers", json_true());
    json_t *managers = member_or_new(document, "package_managers", json_array());
    for (size_t i = 0; i < s->manager_count; i++)
        json_array_append_new(managers, json_string(s->managers[i]));
}

static json_t *
read_base(const char *file, struct err *err)
{
    cleanup_free char *text = NULL;
    size_t len = 0;
    if (!file)
        return json_pack("{s:i}", "version", 1);
    if (file_read(file, POLICY_TEXT_MAX, FILE_NOT_WRITABLE_BY_OTHERS, &text, &len, err) < 0) {
        err->kind = ERR_INVALID;
        return NULL;
    }
    return json_read(slice_of(text, len), file, SUGGEST_BASE_DEPTH, err);
}

/* A list of managers that is switched off would be switched on with the proposal's, and none that is on stands for all of them. */
static bool
may_name_managers(const json_t *document)
{
    const json_t *networking = json_object_get(document, "networking");
    bool on = json_is_true(json_object_get(networking, "allow_package_managers"));
    return json_is_array(json_object_get(document, "package_managers")) == on;
}

/* The proxy's own compiler has the last word on what is proposed. */
static int
print_suggestion(const struct suggestion *s, json_t *document, struct err *err)
{
    char *text = json_dumps(document, JSON_INDENT(2));
    struct policy *p = policy_compile(slice_str(text), "suggested", "the proposal", POLICY_FILE, s->desk->context, err);
    int result = p ? 0 : -1;
    policy_unref(p);
    if (p && s->options->json) {
        json_t *all = json_pack("{s:O, s:{s:I, s:I, s:I, s:I, s:I}, s:O}", "policy", document, "counts", "decisions", (json_int_t)s->decisions,
                                "hosts", (json_int_t)s->count, "entries", (json_int_t)s->entry_count, "wildcards",
                                (json_int_t)s->wildcard_count, "package_managers", (json_int_t)s->manager_count, "notes", s->notes);
        json_dumpf(all, stdout, JSON_INDENT(1));
        printf("\n");
        json_decref(all);
    } else if (p) {
        printf("%s\n", text);
        for (size_t i = 0; i < json_array_size(s->notes); i++)
            fprintf(stderr, "# %s\n", json_string_value(json_array_get(s->notes, i)));
    }
    free(text);
    return result;
}

static void
note_counts(struct suggestion *s)
{
    if (s->folded > 0)
        suggest_note(s, "%" PRIu64 " `repeated` records hold no port; they are no reason to propose a host", s->folded);
    suggest_note(s, "%" PRIu64 " decisions about %zu hosts: %zu entries (%zu of them wildcards) and %zu package managers are proposed",
                 s->decisions, s->count, s->entry_count, s->wildcard_count, s->manager_count);
}

static int
suggest(struct suggestion *s, int argc, char **argv, struct err *err)
{
    uint64_t torn;
    if (old_decisions_each(argc, argv, s->options->sandbox, on_suggesting, s, &torn, err) < 0)
        return -1;
    if (s->too_many)
        return err_invalid(err, "policy suggest: more than %d hosts in these records; --sandbox takes those of one sandbox", SUGGEST_HOSTS_MAX);
    json_t *document = read_base(s->options->base, err);
    if (!document)
        return -1;
    s->sorted = mem_array(map_count(s->hosts) + 1, sizeof *s->sorted);
    map_each(s->hosts, collect_candidate, s);
    qsort(s->sorted, s->count, sizeof *s->sorted, compare_candidates);
    sift(s);
    propose_managers(s, may_name_managers(document));
    propose_entries(s);
    if (torn)
        suggest_note(s, "%" PRIu64 " torn lines were left out: the file ends without a newline", torn);
    note_counts(s);
    extend(document, s);
    int result = print_suggestion(s, document, err);
    json_decref(document);
    return result;
}

static void
suggestion_done(struct suggestion *s)
{
    for (size_t i = 0; i < s->entry_count; i++)
        free(s->entries[i]);
    free(s->entries);
    free(s->sorted);
    free((void *)s->managers);
    map_free(s->hosts, free);
    json_decref(s->notes);
    policy_unref(s->base);
    policy_unref(s->open);
}

int
policy_suggest(struct desk *d, int argc, char **argv, const struct policy_options *o, struct err *err)
{
    struct suggestion s = {.desk = d, .options = o, .wildcard_min = WILDCARD_DEFAULT};
    if (argc < 1)
        return err_invalid(err, "policy suggest: expected the files of a decision log");
    if (o->wildcard && (!slice_parse_uint(slice_str(o->wildcard), SUGGEST_HOSTS_MAX, &s.wildcard_min) || s.wildcard_min == 1))
        return err_invalid(err, "--wildcard: expected 0 (none) or a number from %d to %d", WILDCARD_MIN, SUGGEST_HOSTS_MAX);
    s.open = policy_compile(slice_str("{\"networking\": {\"type\": \"unrestricted\"}}"), "open", "", POLICY_FILE, d->context, err);
    if (!s.open || (o->base && !(s.base = desk_policy_file(d, o->base, err)))) {
        policy_unref(s.open);
        return -1;
    }
    s.hosts = map_new();
    s.notes = json_array();
    int result = suggest(&s, argc, argv, err);
    suggestion_done(&s);
    return result;
}
