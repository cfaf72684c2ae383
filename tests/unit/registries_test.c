/* The dated data files: those that are shipped, and those that are no such files. */
#include "sallyport/policy/registries.h"

#include "unit/policies.h"

static struct registries *
shipped(void)
{
    size_t len = 0;
    struct err err = {.kind = ERR_NONE};
    char *text = read_text("policies/registries.json", &len);
    struct registries *r = registries_parse(slice_of(text, len), "registries.json", &err);
    CHECK_THAT(r, "%s", err.text);
    free(text);
    return r;
}

TEST(the_shipped_registries_load)
{
    struct registries *r = shipped();
    const char *nearest = NULL;
    static const char *const names[] = {"pip", "npm", "cargo", "go", "apt", "maven", "gem", "conda", "docker", "github", "python", "node", "rust"};
    CHECK(registries_count(r) >= 40 && strlen(registries_date(r)) == 10);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        CHECK_THAT(registries_find(r, names[i], &nearest) >= 0, "%s", names[i]);
    CHECK(registries_find(r, "nmp", &nearest) < 0 && nearest && strcmp(nearest, "npm") == 0);
    CHECK(registries_find(r, "", &nearest) < 0);
    struct manager_set all;
    registries_all(r, &all);
    CHECK(manager_set_has(&all, (size_t)registries_find(r, "pip", &nearest)));
    CHECK(!manager_set_has(&all, (size_t)registries_find(r, "github", &nearest)));
    registries_free(r);
}

struct one { const struct registries *r; size_t manager, count; };

static void
on_host(void *ctx, const struct host_entry *e, bool plain_http)
{
    struct one *o = ctx;
    struct host_key key;
    struct manager_set only = {{0}};
    struct host host = e->host;
    size_t found;
    char text[HOST_TEXT_SIZE * 2];
    manager_set_add(&only, o->manager);
    if (e->suffix) {
        snprintf(text, sizeof text, "x.%s", e->host.text);
        CHECK(host_parse(slice_str(text), &host));
    }
    host_key_init(&key, &host);
    CHECK(registries_match(o->r, &only, &key, 443, &found) == HOSTS_MATCH && found == o->manager);
    CHECK(registries_match(o->r, &only, &key, 80, &found) == (plain_http ? HOSTS_MATCH : HOSTS_PORT_CLOSED));
    CHECK(registries_match(o->r, &only, &key, 8080, &found) == HOSTS_PORT_CLOSED);
    CHECK(registries_match(o->r, &(struct manager_set){{0}}, &key, 443, &found) == HOSTS_NONE);
    o->count++;
}

TEST(every_host_of_every_manager_is_found_for_it_alone)
{
    struct registries *r = shipped();
    for (size_t i = 0; i < registries_count(r); i++) {
        struct one o = {r, i, 0};
        registries_each(r, i, on_host, &o);
        CHECK_THAT(o.count > 0, "%s", registries_name(r, i));
    }
    registries_free(r);
}

/* Optional hosts are information and never open. */
TEST(optional_hosts_are_not_opened)
{
    size_t len = 0;
    char *text = read_text("policies/registries.json", &len);
    json_t *root = json_loadb(text, len, 0, NULL), *labels;
    struct registries *r = shipped();
    struct manager_set all = {{UINT64_MAX, UINT64_MAX}};
    const char *domain;
    size_t closed = 0, manager;
    json_object_foreach(json_object_get(json_object_get(json_object_get(root, "managers"), "pip"), "optional_hosts"), domain, labels) {
        for (size_t i = 0; i < json_array_size(labels); i++) {
            char host[512];
            struct host parsed;
            struct host_key key;
            const char *label = json_string_value(json_array_get(labels, i));
            snprintf(host, sizeof host, "%s%s%s", strcmp(label, "@") == 0 ? "" : label, strcmp(label, "@") == 0 ? "" : ".", domain);
            CHECK(host_parse(slice_str(host), &parsed));
            host_key_init(&key, &parsed);
            closed += registries_match(r, &all, &key, 443, &manager) == HOSTS_NONE;
        }
    }
    CHECK(closed > 5);
    registries_free(r);
    json_decref(root);
    free(text);
}

TEST(the_shipped_blocklist_loads)
{
    size_t len = 0;
    struct err err = {.kind = ERR_NONE};
    char *text = read_text("policies/safety-blocklist.json", &len);
    struct blocklist *b = blocklist_parse(slice_of(text, len), "safety-blocklist.json", &err);
    CHECK_THAT(b, "%s", err.text);
    CHECK(blocklist_count(b) > 100 && strlen(blocklist_date(b)) == 10);
    struct host host;
    struct host_key key;
    CHECK(host_parse(slice_str("pastebin.com"), &host));
    host_key_init(&key, &host);
    CHECK_STR(blocklist_match(b, &key), "paste");
    CHECK(host_parse(slice_str("abc.ngrok-free.app"), &host));
    host_key_init(&key, &host);
    CHECK_STR(blocklist_match(b, &key), "tunnel");
    CHECK(host_parse(slice_str("api.example.com"), &host));
    host_key_init(&key, &host);
    CHECK(!blocklist_match(b, &key) && !blocklist_match(NULL, &key));
    blocklist_free(b);
    free(text);
}

TEST(files_that_are_none)
{
    static const struct { const char *json, *word; } rows[] = {
        {"", "registries.json"}, {"{}", "\"date\" is missing"}, {"{\"date\": \"2026-01-01\"}", "\"managers\" is missing"},
        {"{\"date\": \"2026-01-01\", \"managers\": {\"a\": {}}}", "managers.a.hosts"},
        {"{\"date\": \"2026-01-01\", \"managers\": {\"a\": {\"hosts\": {\"example.com\": \"@\"}}}}", "managers.a.hosts.example.com"},
        {"{\"date\": \"2026-01-01\", \"managers\": {\"a\": {\"hosts\": {\"com\": [\"*\"]}}}}", "public suffix"},
        {"{\"date\": \"2026-01-01\", \"managers\": {\"a\": {\"hosts\": {\"example.com\": [\"a/b\"]}}}}", "has a path"},
        {"{\"date\": \"2026-01-01\", \"managers\": {\"a\": {\"host\": {}}}}", "unknown key"},
        {"{\"date\": \"2026-01-01\", \"managers\": {\"a\": {\"hosts\": {\"example.com\": [\"@\"]}, \"plain_http\": \"yes\"}}}", "plain_http"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct err err = {.kind = ERR_NONE};
        struct registries *r = registries_parse(slice_str(rows[i].json), "registries.json", &err);
        CHECK_THAT(!r && strstr(err.text, rows[i].word), "%s: %s", rows[i].json, err.text);
        registries_free(r);
    }
    struct err err = {.kind = ERR_NONE};
    CHECK(!blocklist_parse(slice_str("{\"date\": \"x\"}"), "b.json", &err) && strstr(err.text, "\"categories\" is missing"));
    CHECK(!blocklist_parse(slice_str("{\"date\": \"x\", \"categories\": {\"a\": {\"hosts\": {\"x.example\": [\"*.*\"]}}}}"), "b.json", &err));
}
