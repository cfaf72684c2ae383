/* The lists of objects of a policy document: rules, MCP servers, private addresses; and what can be said about them only
 * together. Each list is indexed by host, with a chain through the members that have the same entry, in their order. */
#include "sallyport/policy/document.h"

#include "sallyport/base/mem.h"
#include "sallyport/policy/decide.h"

/* ---- rules ---- */

static bool
is_method(const char *text)
{
    size_t len = strlen(text);
    if (len == 0 || len > METHOD_LEN_MAX)
        return false;
    for (size_t i = 0; i < len; i++) { /* token characters of RFC 9110 section 5.6.2, without lower case */
        char c = text[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("!#$%&'*+-.^_`|~", c)))
            return false;
    }
    return true;
}

static int
note_method(struct policy *p, const struct json_at *at, const char *method, struct err *err)
{
    for (size_t i = 0; i < p->method_count; i++) {
        if (strcmp(p->methods[i], method) == 0)
            return 0;
    }
    if (p->method_count == METHODS_MAX)
        return json_fail(at, err, "the rules name more than %d methods", METHODS_MAX);
    p->methods[p->method_count++] = mem_strdup(method);
    return 0;
}

static int
read_methods(struct policy *p, struct rule *r, const struct json_at *at, struct err *err)
{
    if (document_texts(at, METHODS_MAX, &r->methods, err) < 0)
        return -1;
    if (r->methods && !r->methods[0])
        return json_fail(at, err, "is empty; leave it out to mean any method");
    for (size_t i = 0; r->methods && r->methods[i]; i++) {
        struct json_at element = json_element(at, i);
        const char *m = r->methods[i];
        if (!is_method(m))
            return json_fail(&element, err, "is no method; methods are case-sensitive and written as \"GET\"");
        if (strcmp(m, "CONNECT") == 0 || strcmp(m, "TRACE") == 0 || strcmp(m, "TRACK") == 0)
            return json_fail(&element, err, "a rule cannot name %s: %s", m,
                             m[0] == 'C' ? "a tunnel is judged by the requests inside it" : "it is never forwarded");
        if (note_method(p, &element, m, err) < 0)
            return -1;
    }
    return 0;
}

static int
read_pattern(struct rule *r, const struct json_at *at, struct err *err)
{
    const char *text = NULL;
    struct err fault = {.kind = ERR_NONE};
    if (json_get_string(at, &text, err) < 0)
        return -1;
    if (!at->value)
        return 0;
    if (!text)
        return json_fail(at, err, "expected a pattern");
    r->path = pattern_compile(slice_str(text), &fault);
    if (!r->path)
        return json_fail(at, err, "%s", fault.text);
    r->path_text = mem_strdup(text);
    return 0;
}

static int
read_rule_id(struct rule *r, const struct json_at *at, struct err *err)
{
    const char *text = NULL;
    if (json_get_string(at, &text, err) < 0)
        return -1;
    if (!text)
        return 0;
    size_t len = strlen(text);
    bool good = len > 0 && len <= 64;
    for (size_t i = 0; i < len && good; i++)
        good = text[i] > 0x20 && text[i] < 0x7f;
    if (!good)
        return json_fail(at, err, "expected 1 to 64 printable characters without blanks");
    r->id = mem_strdup(text);
    return 0;
}

static int
read_rule(struct policy *p, struct rule *r, const struct json_at *at, struct err *err)
{
    static const char *const members[] = {"id", "host", "scheme", "methods", "path", "action", NULL};
    static const char *const schemes[] = {"http", "https", NULL};
    static const char *const actions[] = {"deny", "allow", NULL};
    struct json_at id = json_member(at, "id"), host = json_member(at, "host"), scheme = json_member(at, "scheme");
    struct json_at methods = json_member(at, "methods"), path = json_member(at, "path"), act = json_member(at, "action");
    int chosen_scheme = -1, chosen_action = -1;

    if (json_want_object(at, err) < 0 || json_only_members(at, members, err) < 0 || read_rule_id(r, &id, err) < 0 ||
        document_word(&scheme, schemes, &chosen_scheme, err) < 0 || document_word(&act, actions, &chosen_action, err) < 0)
        return -1;
    if (chosen_action < 0)
        return json_fail(at, err, "\"action\" is missing; expected \"allow\" or \"deny\"");
    if (!host.value)
        return json_fail(at, err, "\"host\" is missing; expected a host entry");
    r->scheme = chosen_scheme < 0 ? SCHEME_NONE : chosen_scheme == 0 ? SCHEME_HTTP : SCHEME_HTTPS;
    r->allow = chosen_action == 1;
    if (document_entry(p->context, &host, r->allow ? ENTRY_OPENS : ENTRY_NAMES, &r->host, err) < 0)
        return -1;
    if (r->host.url && r->scheme == SCHEME_NONE) /* "http://host" in a rule means that scheme */
        r->scheme = strncasecmp(json_string_value(host.value), "http:", 5) == 0 ? SCHEME_HTTP : SCHEME_HTTPS;
    return read_methods(p, r, &methods, err) < 0 || read_pattern(r, &path, err) < 0 ? -1 : 0;
}

/* Puts item `index` at the end of the chain that begins at `first`; `tails` holds the last of each chain. */
static void
chain(uint32_t *tails, uint32_t first, uint32_t index, uint32_t *(*next_of)(struct policy *p, uint32_t i), struct policy *p)
{
    *next_of(p, index) = NO_NEXT;
    tails[index] = index;
    if (first == HOSTS_NO_INDEX)
        return;
    *next_of(p, tails[first]) = index;
    tails[first] = index;
}

static uint32_t *
next_rule(struct policy *p, uint32_t i)
{
    return &p->rules[i].next;
}

static uint32_t *
next_server(struct policy *p, uint32_t i)
{
    return &p->servers[i].next;
}

static uint32_t *
next_private(struct policy *p, uint32_t i)
{
    return &p->privates[i].next;
}

int
document_rules(struct policy *p, const struct json_at *at, struct err *err)
{
    p->rule_hosts = hosts_new();
    if (!at->value)
        return 0;
    if (json_want_array(at, err) < 0)
        return -1;
    size_t count = json_array_size(at->value);
    if (count > RULES_MAX)
        return json_fail(at, err, "has %zu rules; at most %d", count, RULES_MAX);
    p->rules = mem_array(count + 1, sizeof *p->rules);
    cleanup_free uint32_t *tails = mem_array(count + 1, sizeof *tails);
    for (size_t i = 0; i < count; i++) {
        struct json_at element = json_element(at, i);
        struct rule *r = &p->rules[p->rule_count++];
        if (read_rule(p, r, &element, err) < 0)
            return -1;
        chain(tails, hosts_add(p->rule_hosts, &r->host, (uint32_t)i), (uint32_t)i, next_rule, p);
    }
    hosts_seal(p->rule_hosts);
    return 0;
}

/* ---- MCP servers ---- */

static int
read_url_path(struct mcp_server *s, struct slice path, const struct json_at *at, struct err *err)
{
    char text[1024];
    size_t len;
    if (path.len >= sizeof text || slice_has_byte(path, '?') || slice_has_byte(path, '#'))
        return json_fail(at, err, "the path is too long or has a query or fragment; expected https://host/path");
    if (path.len == 0)
        path = slice_str("/");
    if (!path_is_wellformed(path) || !path_normalise(path, text, &len))
        return json_fail(at, err, "the path is not plain (escapes, dot segments that leave the root)");
    while (len > 0 && text[len - 1] == '/')
        len--;
    s->path = mem_dup_slice(slice_of(text, len));
    return 0;
}

static int
read_url(struct policy *p, struct mcp_server *s, const struct json_at *at, struct err *err)
{
    const char *text = NULL;
    char why[ENTRY_WHY_SIZE];
    struct host_entry e;

    if (json_get_string(at, &text, err) < 0)
        return -1;
    if (!text || (strncmp(text, "https://", 8) != 0 && strncmp(text, "http://", 7) != 0))
        return json_fail(at, err, "expected a URL, https://host/path");
    bool tls = text[4] == 's';
    const char *authority = text + (tls ? 8 : 7), *path = authority + strcspn(authority, "/?#");
    if (!host_entry_parse(slice_of(text, (size_t)(path - text)), &e, why))
        return json_fail(at, err, "the host of the URL %s", why);
    if (e.suffix)
        return json_fail(at, err, "a server has one host; expected https://host/path");
    if (e.host.kind != HOST_NAME && !context_literal_may_load(p->context, &e.host))
        return json_fail(at, err, "the address of the URL is not public; the operator must open it first");
    s->target.scheme = tls ? SCHEME_HTTPS : SCHEME_HTTP;
    s->target.host = e.host;
    s->target.port = e.port;
    return read_url_path(s, slice_str(path), at, err);
}

static int
read_server(struct policy *p, struct mcp_server *s, const struct json_at *at, enum mcp_default fallback, struct err *err)
{
    static const char *const members[] = {"name", "url", "allowed_tools", "user_approved_tools", "denied_tools", "mcp_default", NULL};
    static const char *const fallbacks[] = {"ask", "allow", "deny", NULL};
    struct json_at name = json_member(at, "name"), url = json_member(at, "url");
    struct json_at allowed = json_member(at, "allowed_tools"), approved = json_member(at, "user_approved_tools");
    struct json_at denied = json_member(at, "denied_tools"), word = json_member(at, "mcp_default");
    const char *text = NULL;
    int chosen = (int)fallback;

    if (json_want_object(at, err) < 0 || json_only_members(at, members, err) < 0 ||
        json_get_string(&name, &text, err) < 0 || document_word(&word, fallbacks, &chosen, err) < 0)
        return -1;
    if (!text || !*text || strlen(text) > 64)
        return json_fail(&name, err, "expected the server's name, 1 to 64 bytes");
    s->name = mem_strdup(text);
    s->fallback = (enum mcp_default)chosen;
    if (!url.value)
        return json_fail(at, err, "\"url\" is missing; expected https://host/path");
    return read_url(p, s, &url, err) < 0 || document_texts(&allowed, TOOLS_MAX, &s->allowed_tools, err) < 0 ||
                   document_texts(&approved, TOOLS_MAX, &s->approved_tools, err) < 0 ||
                   document_texts(&denied, TOOLS_MAX, &s->denied_tools, err) < 0
               ? -1
               : 0;
}

int
document_servers(struct policy *p, const struct json_at *at, enum mcp_default fallback, struct err *err)
{
    p->server_hosts = hosts_new();
    if (!at->value)
        return 0;
    if (json_want_array(at, err) < 0)
        return -1;
    size_t count = json_array_size(at->value);
    if (count > MCP_SERVERS_MAX)
        return json_fail(at, err, "has %zu servers; at most %d", count, MCP_SERVERS_MAX);
    p->servers = mem_array(count + 1, sizeof *p->servers);
    cleanup_free uint32_t *tails = mem_array(count + 1, sizeof *tails);
    for (size_t i = 0; i < count; i++) {
        struct json_at element = json_element(at, i);
        struct mcp_server *s = &p->servers[p->server_count++];
        if (read_server(p, s, &element, fallback, err) < 0)
            return -1;
        struct host_entry e = {.port = s->target.port, .host = s->target.host};
        chain(tails, hosts_add(p->server_hosts, &e, (uint32_t)i), (uint32_t)i, next_server, p);
    }
    hosts_seal(p->server_hosts);
    return 0;
}

/* ---- private addresses ---- */

static int
read_cidrs(struct private_range *r, const struct json_at *at, struct err *err)
{
    cleanup_free char **texts = NULL;
    int result = document_texts(at, PRIVATE_CIDRS_MAX, &texts, err);
    size_t count = 0;
    while (texts && texts[count])
        count++;
    r->cidrs = mem_array(count + 1, sizeof *r->cidrs);
    for (size_t i = 0; i < count; i++) {
        struct json_at element = json_element(at, i);
        if (result == 0 && !cidr_parse(slice_str(texts[i]), &r->cidrs[i]))
            result = json_fail(&element, err, "expected an address or a prefix as \"10.2.0.0/16\", with no bits behind it");
        free(texts[i]);
    }
    r->count = count;
    if (result == 0 && count == 0)
        return json_fail(at, err, "expected a list of addresses or prefixes");
    return result;
}

static int
read_private(struct policy *p, struct private_range *r, const struct json_at *at, struct err *err)
{
    static const char *const members[] = {"host", "addresses", NULL};
    struct json_at host = json_member(at, "host"), addresses = json_member(at, "addresses");
    if (json_want_object(at, err) < 0 || json_only_members(at, members, err) < 0)
        return -1;
    if (!host.value || !addresses.value)
        return json_fail(at, err, "\"host\" and \"addresses\" are both needed");
    return document_entry(p->context, &host, ENTRY_NAMES, &r->host, err) < 0 || read_cidrs(r, &addresses, err) < 0 ? -1 : 0;
}

int
document_privates(struct policy *p, const struct json_at *at, struct err *err)
{
    p->private_hosts = hosts_new();
    if (!at->value)
        return 0;
    if (json_want_array(at, err) < 0)
        return -1;
    size_t count = json_array_size(at->value);
    if (count > PRIVATE_MAX)
        return json_fail(at, err, "has %zu entries; at most %d", count, PRIVATE_MAX);
    p->privates = mem_array(count + 1, sizeof *p->privates);
    cleanup_free uint32_t *tails = mem_array(count + 1, sizeof *tails);
    for (size_t i = 0; i < count; i++) {
        struct json_at element = json_element(at, i);
        struct private_range *r = &p->privates[p->private_count++];
        if (read_private(p, r, &element, err) < 0)
            return -1;
        struct host_entry e = r->host;
        e.port = 0; /* addresses are of the host, whatever the port */
        chain(tails, hosts_add(p->private_hosts, &e, (uint32_t)i), (uint32_t)i, next_private, p);
    }
    hosts_seal(p->private_hosts);
    return 0;
}

/* ---- inspection and what needs it ---- */

struct overlap {
    const struct host_entry *with;
    bool found;
};

static void
note_overlap(void *ctx, const struct host_entry *e, uint32_t index)
{
    struct overlap *o = ctx;
    (void)index;
    o->found |= host_entry_overlaps(e, o->with);
}

static bool
is_passed_through(const struct policy *p, const struct host_entry *e)
{
    struct overlap o = {e, false};
    hosts_each(p->passthrough, note_overlap, &o);
    hosts_each(p->context->passthrough, note_overlap, &o);
    return o.found;
}

static int
check_rule_sight(const struct policy *p, const struct rule *r, const struct json_at *at, struct err *err)
{
    if (!rule_needs_sight(r) || r->scheme == SCHEME_HTTP)
        return 0;
    if (p->inspect == INSPECT_OFF)
        return json_fail(at, err, "methods and paths of https are only seen with inspection, which is off; say \"scheme\": "
                                  "\"http\", leave them out, or switch inspection on");
    if (is_passed_through(p, &r->host))
        return json_fail(at, err, "the host is also under inspect.passthrough, where methods and paths are not seen");
    return 0;
}

int
document_check_sight(const struct policy *p, const struct json_at *root, struct err *err)
{
    struct json_at rules = json_member(root, "rules"), servers = json_member(root, "mcp_servers");
    for (size_t i = 0; i < p->rule_count; i++) {
        struct json_at at = json_element(&rules, i);
        if (check_rule_sight(p, &p->rules[i], &at, err) < 0)
            return -1;
    }
    for (size_t i = 0; i < p->server_count; i++) {
        struct json_at at = json_element(&servers, i);
        struct host_entry e = {.port = p->servers[i].target.port, .host = p->servers[i].target.host};
        if (server_has_tools(&p->servers[i]) && is_passed_through(p, &e))
            return json_fail(&at, err, "has tool lists, but its host is under inspect.passthrough, where tools are not seen");
    }
    return 0;
}
