/* Scope and diff: they list what the decision opens, and nothing else. */
#include "sallyport/policy/scope.h"

#include "unit/policies.h"

static char listing[65536];

static void
on_row(void *ctx, const struct scope_row *row)
{
    static const char *const effects[] = {"closed", "open", "deny"};
    size_t len = strlen(listing);
    (void)ctx;
    snprintf(listing + len, sizeof listing - len, "%s %s %s %s %s|%s\n", effects[row->effect], row->host, row->ports, source_text(row->source), row->where, row->detail);
}

TEST(rows_in_the_order_of_the_decision)
{
    const char *const platform[] = {"p.example.com", NULL}, *const blocked[] = {"*.evil.example.com", NULL};
    struct policy_context_options o = {
        .platform_hosts = platform, .blocked_hosts = blocked,
        .registries_json = slice_str("{\"date\": \"2026-01-01\", \"managers\": {\"alpha\": {\"plain_http\": true, \"hosts\": {\"alpha.example\": [\"*.cdn\"]}}}}"),
        .blocklist_json = slice_str("{\"date\": \"2026-02-02\", \"categories\": {\"paste\": {\"reason\": \"r\", \"hosts\": {\"paste.example\": [\"@\"]}}}}"),
    };
    struct policy *p = compile_in(context_with(&o),
        "{\"networking\": {\"type\": \"unrestricted\", \"allowed_hosts\": [\"a.example.com\", \"*.b.example.com:8443\", \"x.evil.example.com\", \"db.corp.internal\"], \"allow_mcp_servers\": true, \"allow_package_managers\": true},"
        "\"mcp_servers\": [{\"name\": \"m\", \"url\": \"https://m.example.com/mcp/\"}], \"blocked_hosts\": [\"own.example.com\"],"
        "\"rules\": [{\"id\": \"r\", \"host\": \"c.example.com\", \"scheme\": \"http\", \"methods\": [\"GET\", \"HEAD\"], \"path\": \"^/x\", \"action\": \"allow\"}, {\"host\": \"d.example.com\", \"action\": \"deny\"}]}", POLICY_FILE, NULL);
    listing[0] = '\0';
    policy_scope(p, on_row, NULL);
    CHECK_STR(listing, "deny *.evil.example.com all operator blocked_hosts[0]|\n"
                       "deny own.example.com all policy blocked_hosts[0]|\n"
                       "open c.example.com 80,443 policy rules[0] r|http GET,HEAD ^/x\n"
                       "deny d.example.com all policy rules[1]|\n"
                       "open a.example.com 80,443 policy allowed_hosts[0]|\n"
                       "open *.b.example.com 8443 policy allowed_hosts[1]|\n"
                       "closed x.evil.example.com 80,443 policy allowed_hosts[2]|closed by blocked_hosts[0]\n"
                       "closed db.corp.internal 80,443 policy allowed_hosts[3]|closed by special names: internal\n"
                       "open m.example.com 443 mcp mcp_servers[0] m|/mcp\n"
                       "open *.cdn.alpha.example 80,443 registries package_managers.alpha|by plain requests read: GET,HEAD; tunnels are not inspected, so read and write\n"
                       "open p.example.com 80,443 operator platform_hosts[0]|\n"
                       "open (every public host) 80,443 policy networking.type|less the 1 hosts of the safety blocklist of 2026-02-02\n");
    policy_unref(p);
}

TEST(registries_say_what_can_be_done_with_them)
{
    static const char data[] = "{\"date\": \"2026-01-01\", \"managers\": {\"alpha\": {\"hosts\": {\"alpha.example\": [\"@\", \"files\"]}}}, \"reads\": {\"g\": {\"date\": \"2026-01-01\","
        "\"hosts\": {\"alpha.example\": [\"@\"]}, \"requests\": [{\"methods\": [\"GET\"], \"path\": \"/x\"}, {\"methods\": [\"POST\"], \"path\": \"/y\", \"body\": {\"max_bytes\": 500}}]}}}";
    static const struct { const char *more, *wanted; } rows[] = {
        {"\"inspect\": {\"mode\": \"all\"}", "open alpha.example 443 registries package_managers.alpha|read: GET,HEAD of 1 path pattern; POST of 1 with at most 500 bytes\n"
                                            "open files.alpha.example 443 registries package_managers.alpha|read: GET,HEAD\n"},
        {"\"inspect\": {\"mode\": \"listed\", \"hosts\": [\"files.alpha.example\"]}", "open alpha.example 443 registries package_managers.alpha|not inspected, so read and write\n"
                                            "open files.alpha.example 443 registries package_managers.alpha|read: GET,HEAD\n"},
        {"\"inspect\": {\"mode\": \"all\"}, \"package_access\": \"write\"", "open alpha.example 443 registries package_managers.alpha|read and write\n"
                                            "open files.alpha.example 443 registries package_managers.alpha|read and write\n"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct policy_context_options o = {.registries_json = slice_str(data), .inspect = INSPECT_ALL};
        char json[256];
        snprintf(json, sizeof json, "{\"networking\": {\"allow_package_managers\": true}, %s}", rows[i].more);
        struct policy *p = compile_in(context_with(&o), json, POLICY_FILE, NULL);
        listing[0] = '\0';
        policy_scope(p, on_row, NULL);
        CHECK_STR(listing, rows[i].wanted);
        policy_unref(p);
    }
}

TEST(nothing_opens_nothing)
{
    struct policy *p = compile("{}");
    listing[0] = '\0';
    policy_scope(p, on_row, NULL);
    CHECK_STR(listing, "");
    policy_unref(p);
}

static void
on_diff(void *ctx, const struct diff_row *row)
{
    char text[TARGET_TEXT_SIZE];
    size_t len = strlen(listing);
    (void)ctx;
    target_format(&row->target, text);
    if (row->rule[0])
        snprintf(text, sizeof text, "%s", row->rule);
    snprintf(listing + len, sizeof listing - len, "%c%s%s%s\n", row->opened ? '+' : '-', row->method ? row->method : "", row->method ? " " : "", text);
}

static size_t
diff(const char *before, const char *after)
{
    struct policy_context_options o = {.inspect = INSPECT_LISTED};
    struct policy *a = compile_in(context_with(&o), before, POLICY_FILE, NULL), *b = compile_in(context_with(&o), after, POLICY_FILE, NULL);
    listing[0] = '\0';
    size_t opened = policy_diff(a, b, on_diff, NULL);
    policy_unref(a);
    policy_unref(b);
    return opened;
}

#define HOSTS(list) "{\"networking\": {\"allowed_hosts\": [" list "]}}"

TEST(differences)
{
    CHECK(diff(HOSTS("\"a.example.com\""), HOSTS("\"a.example.com\"")) == 0);
    CHECK_STR(listing, "");
    CHECK(diff(HOSTS("\"a.example.com:443\""), HOSTS("")) == 0);
    CHECK(strstr(listing, "-a.example.com:443\n"));
    CHECK(diff(HOSTS(""), HOSTS("\"a.example.com:443\"")) > 0);
    CHECK(strstr(listing, "+a.example.com:443\n"));
    /* The order of entries is no difference, a wildcard instead of a name is. */
    CHECK(diff(HOSTS("\"a.example.com\", \"b.example.com\""), HOSTS("\"b.example.com\", \"a.example.com\"")) == 0);
    CHECK(diff(HOSTS("\"a.example.com\""), HOSTS("\"*.example.com\"")) > 0);
    CHECK(strstr(listing, "+any-name-below.example.com:443\n") && !strstr(listing, "a.example.com:443\n-"));
    CHECK(diff(HOSTS("\"*.example.com\""), HOSTS("\"a.example.com\"")) == 0);
    CHECK(diff("{\"networking\": {\"allowed_hosts\": [\"*.example.com\"]}, \"blocked_hosts\": [\"x.example.com\"]}", HOSTS("\"*.example.com\"")) > 0);
    CHECK(strstr(listing, "+x.example.com:443\n"));
    CHECK(diff(HOSTS("\"a.example.com\""), "{\"networking\": {\"type\": \"unrestricted\"}}") > 0);
    CHECK(diff("{\"networking\": {\"type\": \"unrestricted\"}}", HOSTS("\"a.example.com\"")) == 0);
}

TEST(rules_that_cannot_be_asked_about_count_as_opening)
{
    static const char with[] = "{\"rules\": [{\"id\": \"r\", \"host\": \"a.example.com\", \"methods\": [\"GET\"], \"path\": \"^/x\", \"action\": \"allow\"}]}";
    static const char other[] = "{\"rules\": [{\"id\": \"r\", \"host\": \"a.example.com\", \"methods\": [\"GET\"], \"path\": \"^/y\", \"action\": \"allow\"}]}";
    static const char deny[] = "{\"networking\": {\"allowed_hosts\": [\"a.example.com\"]}, \"rules\": [{\"host\": \"a.example.com\", \"methods\": [\"PUT\"], \"action\": \"deny\"}]}";
    CHECK(diff(with, with) == 0);
    CHECK(diff(with, other) == 1);
    CHECK(strstr(listing, "+rules[0] r\n") && strstr(listing, "-rules[0] r\n"));
    CHECK(diff(deny, HOSTS("\"a.example.com\"")) > 0);
    CHECK(strstr(listing, "+rules[0]\n"));
}
