/* A policy document (JSON, CONTRACT section 3) -> struct policy. Strict: what is unknown, of the wrong type or doubtful is
 * an error with file and JSON path, and then there is no policy at all. Opens nothing; the text is the caller's. */
#include "sallyport/policy/document.h"

#include <stdio.h>

#include "sallyport/base/mem.h"
#include "sallyport/policy/bulk.h"
#include "sallyport/policy/guard.h"

#define DOCUMENT_DEPTH 8
#define HOSTS_MAX 1000000 /* entries of one list */

static const char *const document_members[] = {
    "version", "description", "networking", "mcp_servers", "mcp_default", "package_managers", "package_access",
    "blocked_hosts", "rules", "private_addresses", "inspect", "limits", "mode", NULL,
};

/* ---- parts that both readers use ---- */

static int
read_entry(const struct policy_context *c, struct slice text, const struct json_at *at, enum entry_use use,
           struct host_entry *ret, struct err *err)
{
    char why[ENTRY_WHY_SIZE];
    if (!host_entry_parse(text, ret, why))
        return json_fail(at, err, "the entry %s", why);
    if (use == ENTRY_OPENS && ret->host.kind != HOST_NAME && !context_literal_may_load(c, &ret->host))
        return json_fail(at, err, "%s is %s; the operator must open it in upstream.allow_addresses first",
                         ret->host.text, guard_address_name(&ret->host.literal));
    return 0;
}

int
document_entry(const struct policy_context *c, const struct json_at *at, enum entry_use use, struct host_entry *ret,
               struct err *err)
{
    const char *text = NULL;
    if (json_get_string(at, &text, err) < 0)
        return -1;
    if (!text)
        return json_fail(at, err, "expected a host entry (\"api.example.com\", \"*.example.com\", \"db.example.com:5432\")");
    return read_entry(c, slice_str(text), at, use, ret, err);
}

static int
too_many(const struct json_at *at, struct err *err)
{
    return json_fail(at, err, "has more than %d entries", HOSTS_MAX);
}

/* A long list, out of the text of the document. */
static int
read_bulk(const struct policy *p, const struct json_at *at, struct slice list, enum entry_use use, struct hosts *h,
          struct err *err)
{
    struct slice text;
    struct host_entry e;
    hosts_reserve(h, list.len / 32); /* usual entries are about that long, with quotes and comma */
    for (uint32_t i = 0; bulk_next(&list, &text); i++) {
        struct json_at element = {.index = i, .parent = at};
        if (i == HOSTS_MAX)
            return too_many(at, err);
        if (read_entry(p->context, text, &element, use, &e, err) < 0)
            return -1;
        hosts_add(h, &e, i);
    }
    hosts_seal(h);
    return 0;
}

int
document_hosts(const struct policy *p, const struct json_at *at, enum entry_use use, struct hosts **ret, struct err *err)
{
    struct slice list;
    *ret = hosts_new();
    if (!at->value)
        return 0;
    if (json_want_array(at, err) < 0)
        return -1;
    if (bulk_find(p->bulk, at->value, &list))
        return read_bulk(p, at, list, use, *ret, err);
    size_t count = json_array_size(at->value);
    if (count > HOSTS_MAX)
        return too_many(at, err);
    hosts_reserve(*ret, count);
    for (size_t i = 0; i < count; i++) {
        struct json_at element = json_element(at, i);
        struct host_entry e;
        if (document_entry(p->context, &element, use, &e, err) < 0)
            return -1;
        hosts_add(*ret, &e, (uint32_t)i);
    }
    hosts_seal(*ret);
    return 0;
}

int
document_texts(const struct json_at *at, size_t max, char ***ret, struct err *err)
{
    if (!at->value)
        return 0;
    if (json_want_array(at, err) < 0)
        return -1;
    size_t count = json_array_size(at->value);
    if (count > max)
        return json_fail(at, err, "has %zu entries; at most %zu", count, max);
    char **list = *ret = mem_array(count + 1, sizeof *list);
    for (size_t i = 0; i < count; i++) {
        struct json_at element = json_element(at, i);
        const char *text = NULL;
        if (json_get_string(&element, &text, err) < 0)
            return -1;
        if (!text || !*text)
            return json_fail(&element, err, "is empty; expected a text");
        list[i] = mem_strdup(text);
    }
    return 0;
}

int
document_word(const struct json_at *at, const char *const *words, int *ret, struct err *err)
{
    const char *text = NULL;
    char known[128] = "";
    size_t len = 0;

    if (json_get_string(at, &text, err) < 0 || !text)
        return at->value && !text ? json_fail(at, err, "expected a word") : 0;
    for (int i = 0; words[i]; i++) {
        if (strcmp(words[i], text) == 0) {
            *ret = i;
            return 0;
        }
        int n = snprintf(known + len, sizeof known - len, "%s\"%s\"", i ? ", " : "", words[i]);
        len += n > 0 && (size_t)n < sizeof known - len ? (size_t)n : 0;
    }
    return json_fail(at, err, "expected one of %s", known);
}

/* ---- the members ---- */

static int
read_version(const struct json_at *root, struct err *err)
{
    struct json_at at = json_member(root, "version"), description = json_member(root, "description");
    const char *text = NULL;
    int64_t version = 1;
    return json_get_int(&at, 1, 1, &version, err) < 0 || json_get_string(&description, &text, err) < 0 ? -1 : 0;
}

static int
read_networking(struct policy *p, const struct json_at *at, struct err *err)
{
    static const char *const members[] = {"type", "allowed_hosts", "allow_mcp_servers", "allow_package_managers", NULL};
    static const char *const types[] = {"limited", "unrestricted", "parent", NULL};
    struct json_at type = json_member(at, "type"), hosts = json_member(at, "allowed_hosts");
    struct json_at mcp = json_member(at, "allow_mcp_servers"), managers = json_member(at, "allow_package_managers");
    int chosen = 0;

    if (!at->value) {
        p->allowed = hosts_new();
        return 0;
    }
    if (json_want_object(at, err) < 0 || json_only_members(at, members, err) < 0 ||
        document_word(&type, types, &chosen, err) < 0 ||
        document_hosts(p, &hosts, ENTRY_OPENS, &p->allowed, err) < 0 ||
        json_get_bool(&mcp, &p->mcp_on, err) < 0 || json_get_bool(&managers, &p->managers_on, err) < 0)
        return -1;
    p->has_networking = true;
    p->unrestricted = chosen == 1;
    p->to_parent = chosen == 2;
    if (p->to_parent && !p->context->has_parent)
        return json_fail(&type, err, "leaves the decision to another proxy, and none is configured (upstream.parent)");
    return 0;
}

static int
read_manager_name(struct policy *p, const struct json_at *at, struct err *err)
{
    const char *name = NULL, *nearest = NULL;
    if (json_get_string(at, &name, err) < 0)
        return -1;
    if (!name)
        return json_fail(at, err, "expected the name of a package manager");
    if (!p->context->registries)
        return 0; /* allow_package_managers says what is missing */
    int manager = registries_find(p->context->registries, name, &nearest);
    if (manager < 0 && nearest)
        return json_fail(at, err, "no such package manager in registries.json; did you mean \"%s\"?", nearest);
    if (manager < 0)
        return json_fail(at, err, "no such package manager in registries.json");
    manager_set_add(&p->managers, (size_t)manager);
    return 0;
}

static int
read_managers(struct policy *p, const struct json_at *root, struct err *err)
{
    static const char *const accesses[] = {"read", "write", NULL};
    struct json_at at = json_member(root, "package_managers"), access = json_member(root, "package_access");
    struct json_at networking = json_member(root, "networking"), on = json_member(&networking, "allow_package_managers");
    int chosen = 0;

    if (document_word(&access, accesses, &chosen, err) < 0)
        return -1;
    p->managers_write = chosen == 1;
    if (p->managers_on && !p->context->registries)
        return json_fail(&on, err, "there is no registries.json to take hosts from (configuration: \"registries\")");
    if (!at.value) {
        if (p->context->registries)
            registries_all(p->context->registries, &p->managers);
        return 0;
    }
    p->managers_named = true;
    if (json_want_array(&at, err) < 0)
        return -1;
    for (size_t i = 0; i < json_array_size(at.value); i++) {
        struct json_at element = json_element(&at, i);
        if (read_manager_name(p, &element, err) < 0)
            return -1;
    }
    return 0;
}

static const char *
ceiling_text(enum inspect_mode mode)
{
    switch (mode) {
    case INSPECT_OFF: return "off";
    case INSPECT_LISTED: return "listed";
    case INSPECT_ALL: return "all";
    }
    return "off";
}

static int
read_inspect(struct policy *p, const struct json_at *at, struct err *err)
{
    static const char *const members[] = {"mode", "hosts", "passthrough", NULL};
    static const char *const modes[] = {"off", "listed", "all", NULL};
    struct json_at mode = json_member(at, "mode"), hosts = json_member(at, "hosts"), pass = json_member(at, "passthrough");
    int chosen = (int)p->context->inspect;

    if (at->value && (json_want_object(at, err) < 0 || json_only_members(at, members, err) < 0))
        return -1;
    if (document_word(&mode, modes, &chosen, err) < 0 ||
        document_hosts(p, &hosts, ENTRY_NAMES, &p->inspect_hosts, err) < 0 ||
        document_hosts(p, &pass, ENTRY_NAMES, &p->passthrough, err) < 0)
        return -1;
    if (chosen > (int)p->context->inspect)
        return json_fail(&mode, err, "the operator's inspect.mode is \"%s\"; a policy cannot ask for more",
                         ceiling_text(p->context->inspect));
    if (chosen == INSPECT_OFF && hosts_count(p->inspect_hosts) > 0)
        return json_fail(&hosts, err, "names hosts to inspect, but inspection is off");
    p->inspect = (enum inspect_mode)chosen;
    return 0;
}

static int
read_limits(struct policy *p, const struct json_at *at, struct err *err)
{
    static const char *const members[] = {"tunnels", "bytes_up", "requests_per_minute", NULL};
    const int64_t most = INT64_C(1) << 53; /* beyond it JSON readers disagree (RFC 8259 section 6) */
    struct json_at tunnels = json_member(at, "tunnels"), bytes = json_member(at, "bytes_up");
    struct json_at requests = json_member(at, "requests_per_minute");

    if (!at->value)
        return 0;
    if (json_want_object(at, err) < 0 || json_only_members(at, members, err) < 0 ||
        json_get_int(&tunnels, 1, 1000000, &p->limits.tunnels, err) < 0 ||
        json_get_int(&bytes, 1, most, &p->limits.bytes_up, err) < 0 ||
        json_get_int(&requests, 1, 1000000000, &p->limits.requests_per_minute, err) < 0)
        return -1;
    return 0;
}

static int
read_mode(struct policy *p, const struct json_at *at, enum policy_origin origin, struct err *err)
{
    static const char *const modes[] = {"enforce", "report", NULL};
    int chosen = 0;
    if (document_word(at, modes, &chosen, err) < 0)
        return -1;
    if (chosen == 1 && origin != POLICY_FILE)
        return json_fail(at, err, "only a policy file may say \"report\", never a token");
    p->report = chosen == 1;
    return 0;
}

static int
read_document(struct policy *p, const struct json_at *root, enum policy_origin origin, struct err *err)
{
    static const char *const fallbacks[] = {"ask", "allow", "deny", NULL};
    struct json_at networking = json_member(root, "networking"), blocked = json_member(root, "blocked_hosts");
    struct json_at inspect = json_member(root, "inspect"), rules = json_member(root, "rules");
    struct json_at servers = json_member(root, "mcp_servers"), privates = json_member(root, "private_addresses");
    struct json_at limits = json_member(root, "limits"), mode = json_member(root, "mode");
    struct json_at mcp_default = json_member(root, "mcp_default");
    int fallback = MCP_ASK;

    if (json_want_object(root, err) < 0 || json_only_members(root, document_members, err) < 0 ||
        read_version(root, err) < 0 || read_networking(p, &networking, err) < 0 || read_managers(p, root, err) < 0 ||
        document_hosts(p, &blocked, ENTRY_NAMES, &p->blocked, err) < 0 || read_inspect(p, &inspect, err) < 0 ||
        document_word(&mcp_default, fallbacks, &fallback, err) < 0)
        return -1;
    if (origin == POLICY_TOKEN && privates.value)
        return json_fail(&privates, err, "only a policy file may open private addresses, never a token");
    if (document_rules(p, &rules, err) < 0 || document_servers(p, &servers, (enum mcp_default)fallback, err) < 0 ||
        document_privates(p, &privates, err) < 0 || read_limits(p, &limits, err) < 0 ||
        read_mode(p, &mode, origin, err) < 0)
        return -1;
    return document_check_sight(p, root, err);
}

/* Reads what the JSON reader made of the document, or of the document without its long lists. */
static int
read_text(struct policy *p, struct slice json, enum policy_origin origin, struct err *err)
{
    struct bulk bulk;
    bulk_cut(json, BULK_ENTRIES_MIN, &bulk);
    json_t *value = json_read(bulk.text ? slice_of(bulk.text, bulk.len) : json, p->file, DOCUMENT_DEPTH, err);
    int result = -1;
    if (value) {
        struct json_at root = json_root(value, p->file);
        p->bulk = &bulk;
        result = read_document(p, &root, origin, err);
        p->bulk = NULL;
    }
    json_decref(value);
    bulk_done(&bulk);
    return result;
}

struct policy *
policy_compile(struct slice json, const char *name, const char *file, enum policy_origin origin,
               struct policy_context *context, struct err *err)
{
    struct policy *p = policy_deny_all(context, name);
    int result = 0;
    free(p->file);
    p->file = mem_strdup(file ? file : name);
    sha256_hex(json, p->sha256);
    if (json.len > POLICY_TEXT_MAX)
        result = err_invalid(err, "%s: has %zu bytes; a policy has at most %u", p->file, json.len, POLICY_TEXT_MAX);
    else if (json.len > 0) /* an empty policy denies everything */
        result = read_text(p, json, origin, err);
    if (result == 0)
        return p;
    policy_unref(p);
    return NULL;
}
