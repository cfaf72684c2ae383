/* The dated data files, read strictly: registries.json (hosts of package managers, and what lint knows about hosts) and
 * safety-blocklist.json. Hosts are grouped under their domain, so one table serves all managers, with a set of managers
 * for each host. Immutable after parsing; owned by the policy context. */
#include "sallyport/policy/registries.h"

#include <stdio.h>

#include "sallyport/base/json.h"
#include "sallyport/base/mem.h"

#define DATA_DEPTH 8
#define RISK_HOSTS_MAX 1024
#define CATEGORIES_MAX 64
#define READ_GROUPS_MAX 128
#define READ_GROUPS_A_HOST 8

struct manager {
    char *name;
    char **aliases;
    size_t alias_count;
    bool named_only, plain_http;
};

struct risk_list {
    char *reason;
    struct host_entry *entries;
    size_t count;
};

/* The read endpoints of some hosts, for all managers that need them or for those of `managers`. */
struct read_group {
    bool limited;
    struct manager_set managers;
    struct reads *reads;
};

struct registry_host {
    struct manager_set members;
    uint8_t groups[READ_GROUPS_A_HOST];
    size_t group_count;
};

struct registries {
    char *date;
    struct manager managers[MANAGERS_MAX];
    size_t count;
    const char **words; /* names and aliases, NULL-terminated */
    struct hosts *hosts;
    struct registry_host *facts; /* by index of hosts */
    size_t host_count;
    struct read_group groups[READ_GROUPS_MAX];
    size_t group_count;
    struct risk_list risks[RISK_COUNT];
};

struct blocklist {
    char *date;
    struct hosts *hosts;
    uint8_t *category_of; /* by index of hosts */
    size_t host_count;
    char *categories[CATEGORIES_MAX];
    size_t count;
};

void
manager_set_add(struct manager_set *s, size_t manager)
{
    s->bits[manager / 64] |= UINT64_C(1) << (manager % 64);
}

bool
manager_set_has(const struct manager_set *s, size_t manager)
{
    return s->bits[manager / 64] >> (manager % 64) & 1;
}

/* ---- grouped hosts ---- */

typedef int (*on_entry)(void *ctx, const struct json_at *at, const struct host_entry *e, struct err *err);

static int
read_label(const struct json_at *at, const char *domain, on_entry visit, void *ctx, struct err *err)
{
    const char *label = NULL;
    char text[HOST_MAX + 8], why[ENTRY_WHY_SIZE];
    struct host_entry e;

    if (json_get_string(at, &label, err) < 0)
        return -1;
    if (!label)
        return json_fail(at, err, "expected a label, \"@\" or \"*\"");
    int n = strcmp(label, "@") == 0 ? snprintf(text, sizeof text, "%s", domain)
                                    : snprintf(text, sizeof text, "%s.%s", label, domain);
    if (n < 0 || (size_t)n >= sizeof text)
        return json_fail(at, err, "the host is too long");
    if (!host_entry_parse(slice_str(text), &e, why))
        return json_fail(at, err, "\"%s\" %s", text, why);
    return visit(ctx, at, &e, err);
}

/* {"example.org": ["@", "www"], …} */
static int
read_grouped(const struct json_at *at, on_entry visit, void *ctx, struct err *err)
{
    const char *domain;
    json_t *labels;

    if (!json_is_object(at->value))
        return json_fail(at, err, "expected hosts as {\"example.org\": [\"@\", \"www\"]}");
    json_object_foreach((json_t *)at->value, domain, labels) {
        struct json_at list = json_member(at, domain);
        if (json_want_array(&list, err) < 0)
            return -1;
        for (size_t i = 0; i < json_array_size(labels); i++) {
            struct json_at element = json_element(&list, i);
            if (read_label(&element, domain, visit, ctx, err) < 0)
                return -1;
        }
    }
    return 0;
}

static int
read_text(const struct json_at *object, const char *member, char **ret, struct err *err)
{
    struct json_at at = json_member(object, member);
    const char *text = NULL;
    if (json_get_string(&at, &text, err) < 0)
        return -1;
    if (!text)
        return json_fail(object, err, "\"%s\" is missing", member);
    *ret = mem_strdup(text);
    return 0;
}

/* ---- managers ---- */

struct manager_hosts {
    struct registries *r;
    size_t manager;
};

static int
add_host(void *ctx, const struct json_at *at, const struct host_entry *e, struct err *err)
{
    struct manager_hosts *m = ctx;
    struct registries *r = m->r;
    (void)at, (void)err;
    uint32_t index = hosts_add(r->hosts, e, (uint32_t)r->host_count);
    if (index == HOSTS_NO_INDEX) {
        index = (uint32_t)r->host_count++;
        if ((index & (index + 1)) == 0) /* room for the next power of two */
            r->facts = mem_realloc(r->facts, (index + 1) * 2 * sizeof *r->facts);
        memset(&r->facts[index], 0, sizeof r->facts[index]);
    }
    manager_set_add(&r->facts[index].members, m->manager);
    return 0;
}

static int
read_aliases(const struct json_at *object, struct manager *m, struct err *err)
{
    struct json_at at = json_member(object, "aliases");
    if (!at.value)
        return 0;
    if (json_want_array(&at, err) < 0)
        return -1;
    m->aliases = mem_array(json_array_size(at.value) + 1, sizeof *m->aliases);
    for (size_t i = 0; i < json_array_size(at.value); i++) {
        struct json_at element = json_element(&at, i);
        const char *text = NULL;
        if (json_get_string(&element, &text, err) < 0)
            return -1;
        m->aliases[m->alias_count++] = mem_strdup(text ? text : "");
    }
    return 0;
}

static const char *const manager_members[] = {
    "needed_for", "aliases", "named_only", "plain_http", "hosts", "optional_hosts", "wildcards_in_use", "path_scoped",
    "sources", "notes", NULL,
};

static int
read_manager(struct registries *r, const struct json_at *at, const char *name, struct err *err)
{
    if (r->count == MANAGERS_MAX)
        return json_fail(at, err, "more than %d managers", MANAGERS_MAX);
    struct manager_hosts m = {r, r->count};
    struct manager *manager = &r->managers[r->count++];
    struct json_at plain = json_member(at, "plain_http"), hosts = json_member(at, "hosts");

    manager->name = mem_strdup(name);
    manager->named_only = json_member(at, "named_only").value != NULL;
    if (json_only_members(at, manager_members, err) < 0 || json_get_bool(&plain, &manager->plain_http, err) < 0 ||
        read_aliases(at, manager, err) < 0)
        return -1;
    return read_grouped(&hosts, add_host, &m, err);
}

static void
list_words(struct registries *r)
{
    size_t count = r->count;
    for (size_t i = 0; i < r->count; i++)
        count += r->managers[i].alias_count;
    r->words = mem_array(count + 1, sizeof *r->words);
    count = 0;
    for (size_t i = 0; i < r->count; i++) {
        r->words[count++] = r->managers[i].name;
        for (size_t k = 0; k < r->managers[i].alias_count; k++)
            r->words[count++] = r->managers[i].aliases[k];
    }
}

/* ---- what reads them ---- */

static bool
is_a_managers(const struct registries *r, const struct read_group *g, uint32_t host)
{
    for (size_t m = 0; m < r->count; m++) {
        if (manager_set_has(&r->facts[host].members, m) && (!g->limited || manager_set_has(&g->managers, m)))
            return true;
    }
    return false;
}

/* A host of the last group. */
static int
add_read_host(void *ctx, const struct json_at *at, const struct host_entry *e, struct err *err)
{
    struct registries *r = ctx;
    char text[ENTRY_TEXT_SIZE];
    uint32_t index = hosts_add(r->hosts, e, (uint32_t)r->host_count);
    host_entry_format(e, text);
    if (index == HOSTS_NO_INDEX || !is_a_managers(r, &r->groups[r->group_count - 1], index))
        return json_fail(at, err, "%s is under \"hosts\" of no manager that this is for", text);
    struct registry_host *host = &r->facts[index];
    if (host->group_count == READ_GROUPS_A_HOST)
        return json_fail(at, err, "%s is in more than %d groups", text, READ_GROUPS_A_HOST);
    host->groups[host->group_count++] = (uint8_t)(r->group_count - 1);
    return 0;
}

static int
read_group_managers(struct registries *r, struct read_group *g, const struct json_at *at, struct err *err)
{
    if (!at->value)
        return 0;
    if (json_want_array(at, err) < 0)
        return -1;
    g->limited = true;
    for (size_t i = 0; i < json_array_size(at->value); i++) {
        struct json_at element = json_element(at, i);
        const char *text = NULL, *nearest = NULL;
        if (json_get_string(&element, &text, err) < 0)
            return -1;
        int manager = registries_find(r, text ? text : "", &nearest);
        if (manager < 0)
            return json_fail(&element, err, "is no manager of this file%s%s%s", nearest ? "; did you mean \"" : "", nearest ? nearest : "", nearest ? "\"?" : "");
        manager_set_add(&g->managers, (size_t)manager);
    }
    return 0;
}

static int
read_group(struct registries *r, const struct json_at *at, struct err *err)
{
    static const char *const members[] = {"date", "managers", "hosts", "requests", "sources", "notes", NULL};
    struct json_at managers = json_member(at, "managers"), hosts = json_member(at, "hosts"), requests = json_member(at, "requests");
    struct json_at date = json_member(at, "date");
    const char *text = NULL;
    if (r->group_count == READ_GROUPS_MAX)
        return json_fail(at, err, "more than %d groups", READ_GROUPS_MAX);
    struct read_group *g = &r->groups[r->group_count++];
    if (json_want_object(at, err) < 0 || json_only_members(at, members, err) < 0 || json_get_string(&date, &text, err) < 0 ||
        read_group_managers(r, g, &managers, err) < 0)
        return -1;
    if (!text || strlen(text) != strlen("2026-01-01"))
        return json_fail(&date, err, "expected the day of its last check, \"2026-01-01\"");
    g->reads = reads_parse(&requests, err);
    return g->reads ? read_grouped(&hosts, add_read_host, r, err) : -1;
}

static int
read_reads(struct registries *r, const struct json_at *at, struct err *err)
{
    const char *name;
    json_t *value;
    if (!at->value)
        return 0;
    if (json_want_object(at, err) < 0)
        return -1;
    json_object_foreach((json_t *)at->value, name, value) {
        struct json_at one = json_member(at, name);
        if (read_group(r, &one, err) < 0)
            return -1;
    }
    return 0;
}

static int
add_risk(void *ctx, const struct json_at *at, const struct host_entry *e, struct err *err)
{
    struct risk_list *l = ctx;
    if (l->count == RISK_HOSTS_MAX)
        return json_fail(at, err, "more than %d hosts", RISK_HOSTS_MAX);
    l->entries = mem_realloc(l->entries, (l->count + 1) * sizeof *l->entries);
    l->entries[l->count++] = *e;
    return 0;
}

static int
read_risks(struct registries *r, const struct json_at *root, struct err *err)
{
    static const char *const names[] = {"write_channel", "shared_cdn", "shared_tenants", NULL};
    struct json_at risks = json_member(root, "risks");
    if (!risks.value)
        return 0;
    if (json_want_object(&risks, err) < 0 || json_only_members(&risks, names, err) < 0)
        return -1;
    for (size_t i = 0; i < RISK_COUNT; i++) {
        struct json_at one = json_member(&risks, names[i]);
        struct json_at hosts = json_member(&one, "hosts");
        if (one.value && (read_text(&one, "reason", &r->risks[i].reason, err) < 0 ||
                          read_grouped(&hosts, add_risk, &r->risks[i], err) < 0))
            return -1;
    }
    return 0;
}

static int
read_registries(struct registries *r, const struct json_at *root, struct err *err)
{
    static const char *const members[] = {"about", "grouping", "date", "collected", "ports", "sources", "managers", "reading", "reads", "risks", NULL};
    struct json_at managers = json_member(root, "managers"), reads = json_member(root, "reads");
    const char *name;
    json_t *value;

    if (json_want_object(root, err) < 0 || json_only_members(root, members, err) < 0 ||
        read_text(root, "date", &r->date, err) < 0)
        return -1;
    if (!json_is_object(managers.value))
        return json_fail(root, err, "\"managers\" is missing");
    json_object_foreach((json_t *)managers.value, name, value) {
        struct json_at at = json_member(&managers, name);
        if (json_want_object(&at, err) < 0 || read_manager(r, &at, name, err) < 0)
            return -1;
    }
    list_words(r);
    return read_reads(r, &reads, err) < 0 ? -1 : read_risks(r, root, err);
}

struct registries *
registries_parse(struct slice json, const char *name, struct err *err)
{
    json_t *value = json_read(json, name, DATA_DEPTH, err);
    if (!value)
        return NULL;
    struct registries *r = mem_zalloc(sizeof *r);
    r->hosts = hosts_new();
    struct json_at root = json_root(value, name);
    if (read_registries(r, &root, err) < 0) {
        registries_free(r);
        r = NULL;
    } else {
        hosts_seal(r->hosts);
    }
    json_decref(value);
    return r;
}

void
registries_free(struct registries *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->count; i++) {
        for (size_t k = 0; k < r->managers[i].alias_count; k++)
            free(r->managers[i].aliases[k]);
        free(r->managers[i].aliases);
        free(r->managers[i].name);
    }
    for (size_t i = 0; i < RISK_COUNT; i++) {
        free(r->risks[i].reason);
        free(r->risks[i].entries);
    }
    hosts_free(r->hosts);
    for (size_t i = 0; i < r->group_count; i++)
        reads_free(r->groups[i].reads);
    free(r->facts);
    free((void *)r->words);
    free(r->date);
    free(r);
}

const char *
registries_date(const struct registries *r)
{
    return r->date;
}

size_t
registries_count(const struct registries *r)
{
    return r->count;
}

const char *
registries_name(const struct registries *r, size_t manager)
{
    return r->managers[manager].name;
}

int
registries_find(const struct registries *r, const char *name, const char **ret_nearest)
{
    for (size_t i = 0; i < r->count; i++) {
        const struct manager *m = &r->managers[i];
        if (strcmp(m->name, name) == 0)
            return (int)i;
        for (size_t k = 0; k < m->alias_count; k++) {
            if (strcmp(m->aliases[k], name) == 0)
                return (int)i;
        }
    }
    *ret_nearest = nearest_word(name, r->words);
    return -1;
}

void
registries_all(const struct registries *r, struct manager_set *ret)
{
    memset(ret, 0, sizeof *ret);
    for (size_t i = 0; i < r->count; i++) {
        if (!r->managers[i].named_only)
            manager_set_add(ret, i);
    }
}

static bool
opens_port(const struct registries *r, size_t manager, uint16_t port)
{
    return port == 443 || (port == 80 && r->managers[manager].plain_http);
}

enum hosts_result
registries_match(const struct registries *r, const struct manager_set *wanted, const struct host_key *key, uint16_t port,
                 size_t *ret_manager)
{
    uint32_t found[HOSTS_MATCHES_MAX];
    bool closed;
    size_t count = hosts_find_all(r->hosts, key, port, true, HOSTS_ANY, found, &closed);
    enum hosts_result result = HOSTS_NONE;

    for (size_t i = 0; i < count; i++) {
        for (size_t m = 0; m < r->count; m++) {
            if (!manager_set_has(wanted, m) || !manager_set_has(&r->facts[found[i]].members, m))
                continue;
            if (opens_port(r, m, port)) {
                *ret_manager = m;
                return HOSTS_MATCH;
            }
            result = HOSTS_PORT_CLOSED;
        }
    }
    return result;
}

/* What the host's groups for this manager say. Groups that were asked for another manager are not asked again. */
static void
ask_groups(const struct registries *r, const struct registry_host *host, size_t manager, const struct read_request *q, unsigned *asked,
           struct read_answer *ret)
{
    bool has_group = false;
    for (size_t i = 0; i < host->group_count && !ret->allowed; i++) {
        const struct read_group *g = &r->groups[host->groups[i]];
        if (g->limited && !manager_set_has(&g->managers, manager))
            continue;
        has_group = true;
        if (!(*asked & 1u << i))
            reads_ask(g->reads, q, ret);
        *asked |= 1u << i;
    }
    if (!has_group)
        reads_ask(NULL, q, ret);
}

void
registries_ask(const struct registries *r, const struct manager_set *wanted, const struct host_key *key, const struct question *question,
               size_t *ret_manager, struct read_answer *ret)
{
    uint32_t found[HOSTS_MATCHES_MAX];
    bool closed;
    uint16_t port = question->target->port;
    size_t count = hosts_find_all(r->hosts, key, port, true, HOSTS_ANY, found, &closed);
    struct read_request q;

    *ret = (struct read_answer){.allowed = false};
    read_request_init(&q, question);
    for (size_t i = 0; i < count; i++) {
        const struct registry_host *host = &r->facts[found[i]];
        unsigned asked = 0;
        for (size_t m = 0; m < r->count; m++) {
            if (!manager_set_has(wanted, m) || !manager_set_has(&host->members, m) || !opens_port(r, m, port))
                continue;
            ask_groups(r, host, m, &q, &asked, ret);
            if (ret->allowed) {
                *ret_manager = m;
                return;
            }
        }
    }
}

struct each_ctx {
    const struct registries *r;
    size_t manager;
    void (*visit)(void *ctx, const struct host_entry *e, bool plain_http);
    void *ctx;
};

static void
each_host(void *ctx, const struct host_entry *e, uint32_t index)
{
    const struct each_ctx *c = ctx;
    if (manager_set_has(&c->r->facts[index].members, c->manager))
        c->visit(c->ctx, e, c->r->managers[c->manager].plain_http);
}

void
registries_each(const struct registries *r, size_t manager,
                void (*visit)(void *ctx, const struct host_entry *e, bool plain_http), void *ctx)
{
    struct each_ctx c = {r, manager, visit, ctx};
    hosts_each(r->hosts, each_host, &c);
}

void
registries_describe(const struct registries *r, size_t manager, const struct host_entry *e, char *text, size_t size)
{
    struct host_key key;
    uint32_t found[HOSTS_MATCHES_MAX];
    bool closed;
    size_t len = 0;
    host_key_init(&key, &e->host);
    size_t count = hosts_find_all(r->hosts, &key, 443, true, HOSTS_ANY, found, &closed);
    const struct registry_host *host = count && !e->suffix ? &r->facts[found[0]] : NULL;
    for (size_t i = 0; host && i < host->group_count && len < size; i++) {
        const struct read_group *g = &r->groups[host->groups[i]];
        if (g->limited && !manager_set_has(&g->managers, manager))
            continue;
        len += (size_t)snprintf(text + len, size - len, "%s", len ? "; " : "");
        if (len < size) {
            reads_describe(g->reads, text + len, size - len);
            len += strlen(text + len);
        }
    }
    if (len == 0)
        reads_describe(NULL, text, size);
}

const char *
registries_risk(const struct registries *r, const struct host_entry *e, enum risk risk)
{
    const struct risk_list *l = &r->risks[risk];
    if (risk == RISK_SHARED_TENANTS && !e->suffix)
        return NULL;
    for (size_t i = 0; i < l->count; i++) {
        if (host_entry_overlaps(&l->entries[i], e))
            return l->reason;
    }
    return NULL;
}

/* ---- the safety blocklist ---- */

struct category_hosts {
    struct blocklist *b;
    uint8_t category;
};

static int
add_blocked(void *ctx, const struct json_at *at, const struct host_entry *e, struct err *err)
{
    struct category_hosts *c = ctx;
    struct blocklist *b = c->b;
    (void)at, (void)err;
    if (hosts_add(b->hosts, e, (uint32_t)b->host_count) != HOSTS_NO_INDEX)
        return 0;
    size_t index = b->host_count++;
    if ((index & (index + 1)) == 0)
        b->category_of = mem_realloc(b->category_of, (index + 1) * 2);
    b->category_of[index] = c->category;
    return 0;
}

static int
read_category(struct blocklist *b, const struct json_at *at, const char *name, struct err *err)
{
    static const char *const members[] = {"reason", "hosts", NULL};
    struct json_at hosts = json_member(at, "hosts");
    if (b->count == CATEGORIES_MAX)
        return json_fail(at, err, "more than %d categories", CATEGORIES_MAX);
    struct category_hosts c = {b, (uint8_t)b->count};
    b->categories[b->count++] = mem_strdup(name);
    if (json_want_object(at, err) < 0 || json_only_members(at, members, err) < 0)
        return -1;
    return read_grouped(&hosts, add_blocked, &c, err);
}

static int
read_blocklist(struct blocklist *b, const struct json_at *root, struct err *err)
{
    static const char *const members[] = {"about", "grouping", "date", "sources", "categories", NULL};
    struct json_at categories = json_member(root, "categories");
    const char *name;
    json_t *value;

    if (json_want_object(root, err) < 0 || json_only_members(root, members, err) < 0 ||
        read_text(root, "date", &b->date, err) < 0)
        return -1;
    if (!json_is_object(categories.value))
        return json_fail(root, err, "\"categories\" is missing");
    json_object_foreach((json_t *)categories.value, name, value) {
        struct json_at at = json_member(&categories, name);
        if (read_category(b, &at, name, err) < 0)
            return -1;
    }
    return 0;
}

struct blocklist *
blocklist_parse(struct slice json, const char *name, struct err *err)
{
    json_t *value = json_read(json, name, DATA_DEPTH, err);
    if (!value)
        return NULL;
    struct blocklist *b = mem_zalloc(sizeof *b);
    b->hosts = hosts_new();
    struct json_at root = json_root(value, name);
    if (read_blocklist(b, &root, err) < 0) {
        blocklist_free(b);
        b = NULL;
    } else {
        hosts_seal(b->hosts);
    }
    json_decref(value);
    return b;
}

void
blocklist_free(struct blocklist *b)
{
    if (!b)
        return;
    for (size_t i = 0; i < b->count; i++)
        free(b->categories[i]);
    hosts_free(b->hosts);
    free(b->category_of);
    free(b->date);
    free(b);
}

const char *
blocklist_date(const struct blocklist *b)
{
    return b->date;
}

size_t
blocklist_count(const struct blocklist *b)
{
    return b->host_count;
}

const char *
blocklist_match(const struct blocklist *b, const struct host_key *key)
{
    uint32_t index;
    if (!b || hosts_find(b->hosts, key, 443, true, HOSTS_ANY, &index) != HOSTS_MATCH)
        return NULL;
    return b->categories[b->category_of[index]];
}
