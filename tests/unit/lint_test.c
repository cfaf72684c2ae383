/* Lint: what is warned about, where, and what is left in peace. */
#include "sallyport/policy/lint.h"

#include "unit/policies.h"

static const char data[] = "{\"date\": \"2026-01-01\", \"managers\": {\"alpha\": {\"hosts\": {\"alpha.example\": [\"@\", \"files\"]}}},"
    "\"risks\": {\"write_channel\": {\"reason\": \"takes writes\", \"hosts\": {\"forge.example\": [\"api\"]}},"
    "\"shared_cdn\": {\"reason\": \"fronting\", \"hosts\": {\"cdn.example\": [\"*\"]}},"
    "\"shared_tenants\": {\"reason\": \"anybody\", \"hosts\": {\"cloud.example\": [\"*\"]}}}}";

static bool
found(const char *json, const struct policy_context_options *options, const char *code, const char *where)
{
    struct policy_context_options o = options ? *options : (struct policy_context_options){.registries_json = slice_str(data)};
    struct policy *p = compile_in(context_with(&o), json, POLICY_FILE, NULL);
    struct findings *f = policy_lint(p, NULL);
    bool hit = false;
    for (size_t i = 0; i < f->count; i++)
        hit |= strcmp(f->items[i].code, code) == 0 && strcmp(f->items[i].where, where) == 0 && f->items[i].text[0];
    findings_free(f);
    policy_unref(p);
    return hit;
}

#define HOSTS(list) "{\"networking\": {\"type\": \"limited\", \"allowed_hosts\": [" list "]}}"

TEST(entries)
{
    static const struct { const char *entry, *code; bool wanted; } rows[] = {
        {"\"*.github.io\"", "wildcard-shared", true}, {"\"*.cloud.example\"", "wildcard-shared", true}, {"\"*.a.cloud.example\"", "wildcard-shared", true},
        {"\"a.cloud.example\"", "wildcard-shared", false}, {"\"*.example.com\"", "wildcard-shared", false}, {"\"x.cdn.example\"", "shared-cdn", true},
        {"\"api.forge.example\"", "write-channel", true}, {"\"*.forge.example\"", "write-channel", true}, {"\"www.forge.example\"", "write-channel", false},
        {"\"files.alpha.example\"", "registry-host", true}, {"\"upload.alpha.example\"", "registry-host", false}, {"\"8.8.8.8\"", "literal", true},
        {"\"a.example.com:22\"", "port", true}, {"\"a.example.com:25\"", "port", true}, {"\"a.example.com:8443\"", "port", false},
        {"\"https://a.example.com\"", "old-form", true}, {"\"a.example.com\"", "old-form", false}, {"\"http://a.example.com\"", "plain-http", true},
        {"\"db.corp.internal\"", "special-name", true}, {"\"*.corp.internal\"", "special-name", true}, {"\"a.example.com\"", "special-name", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char json[256];
        snprintf(json, sizeof json, HOSTS("%s"), rows[i].entry);
        CHECK_THAT(found(json, NULL, rows[i].code, "networking.allowed_hosts[0]") == rows[i].wanted, "%s %s", rows[i].entry, rows[i].code);
    }
}

static void
check_vector(const json_t *line)
{
    if (strcmp(member(line, "expect"), "load-with-warning") != 0)
        return;
    size_t len = 0;
    char *registries = read_text("policies/registries.json", &len), json[512];
    struct policy_context_options o = {.registries_json = slice_of(registries, len)};
    snprintf(json, sizeof json, HOSTS("\"%s\""), member(line, "entry"));
    struct policy *p = compile_in(context_with(&o), json, POLICY_FILE, NULL);
    struct findings *f = policy_lint(p, NULL);
    CHECK_THAT(findings_warnings(f) > 0, "%s", member(line, "entry"));
    findings_free(f);
    policy_unref(p);
    free(registries);
}

TEST(vectors_that_load_with_a_warning)
{
    each_vector("tests/vectors/policy-entries.jsonl", check_vector);
}

TEST(the_whole_document)
{
    CHECK(found("{}", NULL, "denies-all", "networking"));
    CHECK(!found(HOSTS("\"a.example.com\""), NULL, "denies-all", "networking"));
    CHECK(found("{\"networking\": {\"type\": \"unrestricted\"}}", NULL, "unrestricted", "networking.type"));
    CHECK(found("{\"networking\": {\"type\": \"unrestricted\"}}", NULL, "no-blocklist", "networking.type"));
    CHECK(found("{\"networking\": {\"allow_package_managers\": true}}", NULL, "all-managers", "networking.allow_package_managers"));
    CHECK(found("{\"networking\": {\"allow_package_managers\": true}}", NULL, "not-inspected", "package_access"));
    struct policy_context_options seen = {.registries_json = slice_str(data), .inspect = INSPECT_ALL};
    CHECK(!found("{\"networking\": {\"allow_package_managers\": true}}", &seen, "not-inspected", "package_access"));
    CHECK(found("{\"networking\": {\"allow_package_managers\": true}, \"inspect\": {\"mode\": \"listed\", \"hosts\": [\"alpha.example\"]}}", &seen, "not-inspected", "package_access"));
    CHECK(!found("{\"networking\": {\"allow_package_managers\": true}, \"inspect\": {\"mode\": \"listed\", \"hosts\": [\"alpha.example\", \"*.alpha.example\"]}}", &seen, "not-inspected", "package_access"));
    CHECK(!found("{\"networking\": {\"allow_package_managers\": true}, \"package_access\": \"write\"}", NULL, "not-inspected", "package_access"));
    CHECK(found("{\"networking\": {\"type\": \"unrestricted\", \"allow_package_managers\": true}}", &seen, "unused", "package_access"));
    CHECK(found("{\"package_managers\": [\"alpha\"]}", NULL, "unused", "package_managers"));
    CHECK(found("{\"mode\": \"report\"}", NULL, "report-mode", "mode"));
    CHECK(found("{\"mcp_servers\": [{\"name\": \"m\", \"url\": \"https://m.example.com/\"}]}", NULL, "unused", "mcp_servers"));
    CHECK(found("{\"networking\": {\"allow_mcp_servers\": true}, \"mcp_servers\": [{\"name\": \"m\", \"url\": \"https://m.example.com/\", \"denied_tools\": [\"t\"]}]}", NULL, "not-inspected", "mcp_servers[0]"));
    CHECK(found("{\"networking\": {\"allowed_hosts\": [\"a.example.com\"]}, \"blocked_hosts\": [\"a.example.com\"]}", NULL, "blocked", "networking.allowed_hosts[0]"));
    CHECK(found("{\"private_addresses\": [{\"host\": \"a.example.com\", \"addresses\": [\"10.0.0.0/8\"]}]}", NULL, "not-delegated", "private_addresses[0].addresses[0]"));
    struct cidr delegable[1];
    CHECK(cidr_parse(slice_str("10.0.0.0/8"), &delegable[0]));
    struct policy_context_options o = {.delegable_addresses = delegable, .delegable_address_count = 1};
    CHECK(!found("{\"private_addresses\": [{\"host\": \"a.example.com\", \"addresses\": [\"10.0.0.0/8\"]}]}", &o, "not-delegated", "private_addresses[0].addresses[0]"));
}

TEST(rules)
{
    CHECK(found("{\"rules\": [{\"host\": \"a.example.com\", \"scheme\": \"http\", \"path\": \"x/\", \"action\": \"allow\"}]}", NULL, "pattern-open", "rules[0]"));
    CHECK(!found("{\"rules\": [{\"host\": \"a.example.com\", \"scheme\": \"http\", \"path\": \"^/x\", \"action\": \"allow\"}]}", NULL, "pattern-open", "rules[0]"));
    CHECK(found("{\"rules\": [{\"host\": \"*.example.com\", \"action\": \"deny\"}, {\"host\": \"a.example.com\", \"action\": \"allow\"}]}", NULL, "unreachable", "rules[1]"));
    CHECK(!found("{\"rules\": [{\"host\": \"a.example.com\", \"scheme\": \"http\", \"action\": \"deny\"}, {\"host\": \"a.example.com\", \"action\": \"allow\"}]}", NULL, "unreachable", "rules[1]"));
    CHECK(!found("{\"rules\": [{\"host\": \"a.example.com:22\", \"action\": \"deny\"}, {\"host\": \"a.example.com\", \"action\": \"allow\"}]}", NULL, "unreachable", "rules[1]"));
    CHECK(found("{\"rules\": [{\"host\": \"api.forge.example\", \"action\": \"allow\"}]}", NULL, "write-channel", "rules[0]"));
}

TEST(a_parent_moves_the_guard)
{
    struct policy *p = compile("{}");
    struct lint_options o = {.has_parent = true};
    struct findings *f = policy_lint(p, &o);
    bool said = false;
    for (size_t i = 0; i < f->count; i++)
        said |= strcmp(f->items[i].code, "parent") == 0;
    CHECK(said);
    findings_free(f);
    findings_free(NULL);
    policy_unref(p);
}

TEST(findings_are_capped)
{
    json_t *hosts = json_array();
    for (int i = 0; i < LINT_FINDINGS_MAX + 50; i++) {
        char text[64];
        snprintf(text, sizeof text, "h%d.example.com:22", i);
        json_array_append_new(hosts, json_string(text));
    }
    json_t *document = json_pack("{s:{s:o}}", "networking", "allowed_hosts", hosts);
    char *json = json_dumps(document, 0);
    struct policy *p = compile(json);
    struct findings *f = policy_lint(p, NULL);
    CHECK(f->count == LINT_FINDINGS_MAX && f->left_out == 50 && findings_warnings(f) == LINT_FINDINGS_MAX + 50);
    findings_free(f);
    policy_unref(p);
    free(json);
    json_decref(document);
}
