/* The decision (CONTRACT section 3, "Order"): blocked, special names, rules, then the lists that open hosts, else deny.
 * Pure: no waiting, no allocation, and a cost that depends on the labels of the name and on the rules of this host, not on
 * the length of any list. Zero is deny; what cannot be told is never taken for an allow. */
#include "sallyport/policy/decide.h"

#include <string.h>

#include "sallyport/base/encoding.h"
#include "sallyport/policy/model.h"

#define PATH_SEEN_MAX 65536 /* a longer path is not matched: no head is that large with the default limits */

struct judging {
    const struct policy *p;
    const struct question *q;
    struct host_key key;
    enum scheme scheme;        /* of the request; of a tunnel what its port is held to, NONE where that is open */
    bool tunnel;
    bool default_port;
    const char *special;       /* why only exact entries count, or NULL */
    bool missed_method, missed_path, too_large, port_closed; /* what an allowing entry fell short of */
    const struct rule *maybe_allow, *maybe_deny;  /* the first rule that cannot tell, before anything certain */
    bool path_read, path_good;
    struct slice path;         /* normalised */
};

/* Three values and a fourth: the rule is meant, but the path may not be interpreted. */
enum match { MATCH_NO = 0, MATCH_CANNOT_TELL, MATCH_YES, MATCH_REFUSED };

const char *
source_text(enum source s)
{
    switch (s) {
    case SOURCE_NONE: return "";
    case SOURCE_POLICY: return "policy";
    case SOURCE_OPERATOR: return "operator";
    case SOURCE_REGISTRIES: return "registries";
    case SOURCE_MCP: return "mcp";
    case SOURCE_BLOCKLIST: return "blocklist";
    case SOURCE_BUILTIN: return "builtin";
    case SOURCE_PARENT: return "parent";
    }
    return "";
}

bool
policy_knows_method(const struct policy *policy, struct slice method)
{
    for (size_t i = 0; i < policy->method_count; i++) {
        if (slice_is(method, policy->methods[i]))
            return true;
    }
    return false;
}

/* ---- the verdict ---- */

/* As much of it as has room; end leaves one byte for the terminator. */
static char *
put(char *at, const char *end, struct slice text)
{
    size_t room = (size_t)(end - at);
    return mempcpy(at, text.ptr, text.len < room ? text.len : room);
}

/* By hand: this is written for every request. */
static void
settle(struct verdict *v, enum action action, enum reason reason, enum source source, const char *list, const char *name)
{
    const char *end = v->rule + sizeof v->rule - 1;
    v->action = action;
    v->reason = reason;
    v->source = source;
    *put(put(v->rule, end, slice_str(list)), end, slice_str(name)) = '\0';
}

/* list[index], and the entry's own name where it has one. */
static void
settle_entry(struct verdict *v, enum action action, enum reason reason, enum source source, const char *list, size_t index, const char *name)
{
    char entry[RULE_TEXT_SIZE] = "[";
    char *at = entry + 1 + decimal_encode(index, entry + 1);
    *at++ = ']';
    if (name) {
        *at++ = ' ';
        at = put(at, entry + sizeof entry - 1, slice_str(name));
    }
    *at = '\0';
    settle(v, action, reason, source, list, entry);
}

static void
settle_rule(struct verdict *v, enum action action, enum reason reason, const struct policy *p, const struct rule *r)
{
    settle_entry(v, action, reason, SOURCE_POLICY, "rules", (size_t)(r - p->rules), r->id);
}

/* "A refusal is method_not_allowed if a rule matches in all but method, else path_not_allowed if in all but path, else
 * host_not_allowed" (or its port). */
static enum reason
refusal(const struct judging *j, bool by_default)
{
    if (j->too_large)
        return REASON_BODY_TOO_LARGE;
    if (j->missed_method)
        return REASON_METHOD_NOT_ALLOWED;
    if (j->missed_path)
        return REASON_PATH_NOT_ALLOWED;
    return by_default && j->port_closed ? REASON_PORT_NOT_ALLOWED : REASON_HOST_NOT_ALLOWED;
}

/* ---- the path, read at most once ---- */

static bool
read_path(struct judging *j)
{
    static char text[PATH_SEEN_MAX]; /* one thread a process */
    if (j->path_read)
        return j->path_good;
    j->path_read = true;
    if (j->q->path.len >= sizeof text || !path_normalise(j->q->path, text, &j->path.len))
        return false;
    j->path.ptr = text;
    j->path_good = true;
    return true;
}

/* ---- rules ---- */

static enum match
match_scheme(const struct judging *j, enum scheme wanted)
{
    if (wanted == SCHEME_NONE)
        return MATCH_YES;
    if (j->scheme == SCHEME_NONE)
        return MATCH_CANNOT_TELL;
    return j->scheme == wanted ? MATCH_YES : MATCH_NO;
}

static enum match
match_method(const struct judging *j, char *const *methods)
{
    if (!methods)
        return MATCH_YES;
    if (!j->q->method.ptr)
        return MATCH_CANNOT_TELL;
    for (size_t i = 0; methods[i]; i++) {
        if (slice_is(j->q->method, methods[i]))
            return MATCH_YES;
    }
    return MATCH_NO;
}

static enum match
match_path(struct judging *j, const struct pattern *pattern)
{
    if (!pattern)
        return MATCH_YES;
    if (!j->q->path.ptr)
        return MATCH_CANNOT_TELL;
    if (!read_path(j))
        return MATCH_REFUSED;
    switch (pattern_match(pattern, j->path)) {
    case PATTERN_EXCEEDED: return MATCH_REFUSED;
    case PATTERN_NO: return MATCH_NO;
    case PATTERN_YES: return MATCH_YES;
    }
    return MATCH_REFUSED;
}

static enum match
match_rule(struct judging *j, const struct rule *r)
{
    if (r->allow && r->host.port == 0 && !j->default_port) {
        j->port_closed = true;
        return MATCH_NO;
    }
    if (r->allow && r->host.suffix && j->special)
        return MATCH_NO;
    enum match scheme = match_scheme(j, r->scheme);
    if (scheme == MATCH_NO)
        return MATCH_NO;
    enum match method = match_method(j, r->methods), path = match_path(j, r->path);
    if (method == MATCH_NO) {
        j->missed_method |= r->allow && path == MATCH_YES;
        return MATCH_NO;
    }
    if (path == MATCH_NO) {
        j->missed_path |= r->allow && method == MATCH_YES;
        return MATCH_NO;
    }
    if (path == MATCH_REFUSED)
        return MATCH_REFUSED;
    return scheme == MATCH_YES && method == MATCH_YES && path == MATCH_YES ? MATCH_YES : MATCH_CANNOT_TELL;
}

/* The next rule in the policy's order out of the chains of rules that share a host entry. */
static uint32_t
take_lowest(const struct policy *p, uint32_t *heads, size_t count)
{
    size_t lowest = 0;
    for (size_t i = 1; i < count; i++) {
        if (heads[i] < heads[lowest])
            lowest = i;
    }
    uint32_t index = heads[lowest];
    if (index != NO_NEXT)
        heads[lowest] = p->rules[index].next;
    return index;
}

/* True: a rule settled it. What cannot tell is noted and the walk goes on. */
static bool
walk_rules(struct judging *j, struct verdict *v)
{
    uint32_t heads[HOSTS_MATCHES_MAX], index;
    bool closed;
    size_t count = hosts_find_all(j->p->rule_hosts, &j->key, j->q->target->port, true, HOSTS_ANY, heads, &closed);

    j->port_closed |= closed;
    while (count > 0 && (index = take_lowest(j->p, heads, count)) != NO_NEXT) {
        const struct rule *r = &j->p->rules[index];
        switch (match_rule(j, r)) {
        case MATCH_NO:
            break;
        case MATCH_CANNOT_TELL:
            if (r->allow && !j->maybe_allow)
                j->maybe_allow = r;
            else if (!r->allow && !j->maybe_deny)
                j->maybe_deny = r;
            break;
        case MATCH_REFUSED:
            settle_rule(v, ACTION_DENY, REASON_PATH_NOT_ALLOWED, j->p, r);
            return true;
        case MATCH_YES:
            if (r->allow)
                settle_rule(v, ACTION_ALLOW, REASON_OK, j->p, r);
            else
                settle_rule(v, ACTION_DENY, refusal(j, false), j->p, r);
            return true;
        }
    }
    return false;
}

/* ---- the lists that open hosts ---- */

static bool
in_list(struct judging *j, const struct hosts *list, uint32_t *ret_index)
{
    enum hosts_scope scope = j->special ? HOSTS_EXACT_ONLY : HOSTS_ANY;
    enum hosts_result r = hosts_find(list, &j->key, j->q->target->port, j->default_port, scope, ret_index);
    j->port_closed |= r == HOSTS_PORT_CLOSED;
    return r == HOSTS_MATCH;
}

static bool
below_prefix(struct slice path, const char *prefix)
{
    size_t len = strlen(prefix);
    return path.len >= len && memcmp(path.ptr, prefix, len) == 0 && (path.len == len || path.ptr[len] == '/');
}

static bool
in_servers(struct judging *j, struct verdict *v)
{
    uint32_t index;
    enum hosts_result found = hosts_find(j->p->server_hosts, &j->key, j->q->target->port, false, HOSTS_EXACT_ONLY, &index);

    j->port_closed |= found == HOSTS_PORT_CLOSED;
    for (index = found == HOSTS_MATCH ? index : NO_NEXT; index != NO_NEXT; index = j->p->servers[index].next) {
        const struct mcp_server *s = &j->p->servers[index];
        if (match_scheme(j, s->target.scheme) == MATCH_NO)
            continue;
        if (s->path[0] && j->q->path.ptr && (!read_path(j) || !below_prefix(j->path, s->path))) {
            j->missed_path = true;
            continue;
        }
        settle_entry(v, ACTION_ALLOW, REASON_OK, SOURCE_MCP, "mcp_servers", index, s->name);
        return true;
    }
    return false;
}

/* "read": a request that is seen must be one that reads. In a tunnel both look the same. */
static bool
may_use_registry(struct judging *j, struct verdict *v, size_t *manager)
{
    struct read_answer answer;
    if (j->p->managers_write || !j->q->method.ptr)
        return true;
    registries_ask(j->p->context->registries, &j->p->managers, &j->key, j->q, manager, &answer);
    if (answer.allowed) {
        v->body_max = j->p->report ? BODY_ANY_LENGTH : answer.body_max;
        return true;
    }
    /* A known method on an unknown path misses the path; anything else is a method that is not for reading here. */
    bool path = !answer.knows_path && answer.knows_method;
    j->too_large |= answer.too_large;
    j->missed_path |= path;
    j->missed_method |= !path;
    return false;
}

static bool
in_registries(struct judging *j, struct verdict *v)
{
    const struct registries *r = j->p->context->registries;
    size_t manager;
    enum hosts_result found = registries_match(r, &j->p->managers, &j->key, j->q->target->port, &manager);

    j->port_closed |= found == HOSTS_PORT_CLOSED;
    if (found != HOSTS_MATCH || !may_use_registry(j, v, &manager))
        return false;
    settle(v, ACTION_ALLOW, REASON_OK, SOURCE_REGISTRIES, "package_managers.", registries_name(r, manager));
    return true;
}

/* An IPv6 form of an IPv4 address would slip past a blocked IPv4 literal: it needs its own entry. */
static bool
is_mapped(const struct host *h)
{
    static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};
    return h->kind == HOST_IPV6 && memcmp(h->literal.bytes, prefix, sizeof prefix) == 0;
}

/* "unrestricted": the default ports of every public host, less the safety blocklist. */
static bool
in_unrestricted(struct judging *j, struct verdict *v)
{
    if (!j->p->unrestricted || j->special || is_mapped(&j->q->target->host))
        return false;
    if (!j->default_port) {
        j->port_closed = true;
        return false;
    }
    const char *category = blocklist_match(j->p->context->blocklist, &j->key);
    if (category)
        settle(v, ACTION_DENY, REASON_HOST_BLOCKED, SOURCE_BLOCKLIST, "safety-blocklist.", category);
    else
        settle(v, ACTION_ALLOW, REASON_OK, SOURCE_POLICY, "networking.type unrestricted", "");
    return true;
}

/* "parent": another proxy judges host and port by its own policy, so a verdict here could only be a wrong one. What is blocked
 * here was refused before. */
static bool
in_parents(struct judging *j, struct verdict *v)
{
    if (!j->p->to_parent || is_mapped(&j->q->target->host))
        return false;
    settle(v, ACTION_ALLOW, REASON_OK, SOURCE_POLICY, "networking.type parent", "");
    return true;
}

static void
walk_lists(struct judging *j, struct verdict *v)
{
    const struct policy *p = j->p;
    uint32_t index;

    if (in_list(j, p->allowed, &index))
        settle_entry(v, ACTION_ALLOW, REASON_OK, SOURCE_POLICY, "allowed_hosts", index, NULL);
    else if ((p->mcp_on && in_servers(j, v)) || (p->managers_on && !j->special && in_registries(j, v)))
        return;
    else if (in_list(j, p->context->platform, &index))
        settle_entry(v, ACTION_ALLOW, REASON_OK, SOURCE_OPERATOR, "platform_hosts", index, NULL);
    else if (!in_unrestricted(j, v) && !in_parents(j, v))
        settle(v, ACTION_DENY, refusal(j, true), SOURCE_POLICY, "", "");
}

/* ---- what comes before and after ---- */

/* True: blocked, or a name that never means a public host and that nobody has covered. Report mode does not soften these. */
static bool
is_barred(struct judging *j, struct verdict *v)
{
    const struct policy_context *c = j->p->context;
    uint16_t port = j->q->target->port;
    uint32_t index;

    if (hosts_find(c->blocked, &j->key, port, true, HOSTS_ANY, &index) == HOSTS_MATCH) {
        settle_entry(v, ACTION_DENY, REASON_HOST_BLOCKED, SOURCE_OPERATOR, "blocked_hosts", index, NULL);
        return true;
    }
    if (hosts_find(j->p->blocked, &j->key, port, true, HOSTS_ANY, &index) == HOSTS_MATCH) {
        settle_entry(v, ACTION_DENY, REASON_HOST_BLOCKED, SOURCE_POLICY, "blocked_hosts", index, NULL);
        return true;
    }
    /* Names that mean nothing in public are the parent's to know: no query is made here. */
    if (j->special && !j->p->to_parent && hosts_find(c->overrides, &j->key, port, true, HOSTS_EXACT_ONLY, &index) != HOSTS_MATCH &&
        hosts_find(j->p->private_hosts, &j->key, port, true, HOSTS_ANY, &index) != HOSTS_MATCH) {
        settle(v, ACTION_DENY, REASON_HOST_NOT_ALLOWED, SOURCE_BUILTIN, "special names: ", j->special);
        return true;
    }
    return false;
}

static bool
passes_through(const struct judging *j)
{
    uint32_t index;
    uint16_t port = j->q->target->port;
    return hosts_find(j->p->passthrough, &j->key, port, true, HOSTS_ANY, &index) == HOSTS_MATCH ||
           hosts_find(j->p->context->passthrough, &j->key, port, true, HOSTS_ANY, &index) == HOSTS_MATCH;
}

/* Can the inside of this tunnel be seen at all? */
static bool
can_inspect(const struct judging *j)
{
    return j->tunnel && j->p->inspect != INSPECT_OFF && j->scheme != SCHEME_HTTP && !passes_through(j);
}

static bool
server_wants_inspection(const struct judging *j)
{
    uint32_t index;
    if (!j->p->mcp_on || hosts_find(j->p->server_hosts, &j->key, j->q->target->port, false, HOSTS_EXACT_ONLY, &index) != HOSTS_MATCH)
        return false;
    for (; index != NO_NEXT; index = j->p->servers[index].next) {
        if (server_has_tools(&j->p->servers[index]))
            return true;
    }
    return false;
}

static bool
is_listed(const struct judging *j)
{
    uint32_t index;
    return hosts_find(j->p->inspect_hosts, &j->key, j->q->target->port, true, HOSTS_ANY, &index) == HOSTS_MATCH ||
           server_wants_inspection(j);
}

/* A tunnel whose requests must be seen opens for inspection, or not at all. */
static void
settle_tunnel(struct judging *j, struct verdict *v)
{
    bool allowed = v->action == ACTION_ALLOW;
    if (allowed && j->maybe_deny) {
        if (can_inspect(j))
            v->action = ACTION_INSPECT;
        else
            settle_rule(v, ACTION_DENY, refusal(j, false), j->p, j->maybe_deny);
    } else if (allowed && can_inspect(j) && (j->p->inspect == INSPECT_ALL || j->maybe_allow || is_listed(j))) {
        v->action = ACTION_INSPECT;
    } else if (!allowed && j->maybe_allow && v->reason != REASON_HOST_BLOCKED && can_inspect(j)) {
        settle_rule(v, ACTION_INSPECT, REASON_OK, j->p, j->maybe_allow);
    }
}

static bool
is_softened_by_report(enum reason r)
{
    return r == REASON_HOST_NOT_ALLOWED || r == REASON_PORT_NOT_ALLOWED || r == REASON_METHOD_NOT_ALLOWED ||
           r == REASON_PATH_NOT_ALLOWED || r == REASON_BODY_TOO_LARGE;
}

void
policy_decide(const struct policy *policy, const struct question *question, struct verdict *ret)
{
    const struct target *t = question->target;
    struct judging j = {.p = policy, .q = question};

    memset(ret, 0, sizeof *ret);
    ret->body_max = BODY_ANY_LENGTH;
    host_key_init(&j.key, &t->host);
    j.tunnel = t->scheme == SCHEME_NONE;
    j.scheme = j.tunnel ? context_tunnel_scheme(policy->context, t->port) : t->scheme;
    j.default_port = port_set_has(&policy->context->default_ports, t->port);
    j.special = host_special(&t->host);
    if (is_barred(&j, ret))
        return;
    if (!walk_rules(&j, ret))
        walk_lists(&j, ret);
    if (j.tunnel)
        settle_tunnel(&j, ret);
    if (policy->report && ret->action == ACTION_DENY && is_softened_by_report(ret->reason)) {
        ret->would_deny = true;
        ret->would_reason = ret->reason;
        ret->action = j.tunnel && can_inspect(&j) && (policy->inspect == INSPECT_ALL || is_listed(&j)) ? ACTION_INSPECT : ACTION_ALLOW;
        ret->reason = REASON_OK;
    }
}
