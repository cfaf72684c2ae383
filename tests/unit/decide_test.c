/* The decision: the order of CONTRACT section 3, sentence by sentence. */
#include "sallyport/policy/decide.h"

#include "unit/policies.h"

#define LIMITED(hosts) "{\"networking\": {\"type\": \"limited\", \"allowed_hosts\": [" hosts "]}"

static struct policy *
compile_with(const struct policy_context_options *o, const char *json)
{
    return compile_in(context_with(o), json, POLICY_FILE, NULL);
}

TEST(a_bare_entry_opens_the_default_ports)
{
    struct policy *p = compile(LIMITED("\"api.example.com\", \"db.example.com:5432\", \"https://tls.example.com\", \"http://plain.example.com\"") "}");
    expect(p, "api.example.com:443", "allow allowed_hosts[0]");
    expect(p, "api.example.com:80", "allow allowed_hosts[0]");
    expect(p, "api.example.com:8443", "port_not_allowed");
    expect(p, "api.example.com:22", "port_not_allowed");
    expect(p, "db.example.com:5432", "allow allowed_hosts[1]");
    expect(p, "db.example.com:443", "port_not_allowed");
    expect(p, "tls.example.com:443", "allow allowed_hosts[2]");
    expect(p, "tls.example.com:80", "port_not_allowed");
    expect(p, "plain.example.com:80", "allow allowed_hosts[3]");
    expect(p, "plain.example.com:443", "port_not_allowed");
    expect(p, "other.example.com:443", "host_not_allowed");
    policy_unref(p);
    const uint16_t ports[] = {8080};
    struct policy_context_options o = {.default_ports = ports, .default_port_count = 1};
    p = compile_with(&o, LIMITED("\"api.example.com\"") "}");
    expect(p, "api.example.com:8080", "allow allowed_hosts[0]");
    expect(p, "api.example.com:443", "port_not_allowed");
    policy_unref(p);
}

TEST(blocked_comes_first_and_on_all_ports)
{
    const char *const operators[] = {"evil.example.com", "*.bad.example.com", "half.example.com:22", NULL};
    struct policy_context_options o = {.blocked_hosts = operators};
    struct policy *p = compile_with(&o, LIMITED("\"*.example.com\", \"evil.example.com:9000\", \"half.example.com:22\"")
                                    ", \"blocked_hosts\": [\"own.example.com\"], \"mode\": \"report\","
                                    "\"rules\": [{\"host\": \"evil.example.com\", \"action\": \"allow\"}]}");
    expect(p, "evil.example.com:443", "host_blocked blocked_hosts[0]");
    expect(p, "evil.example.com:9000", "host_blocked blocked_hosts[0]");
    expect(p, "x.bad.example.com:443", "host_blocked blocked_hosts[1]");
    expect(p, "bad.example.com:443", "allow allowed_hosts[0]");
    expect(p, "own.example.com:443", "host_blocked blocked_hosts[0]");
    expect(p, "half.example.com:22", "host_blocked blocked_hosts[2]");
    expect(p, "half.example.com:443", "allow allowed_hosts[0]");
    CHECK(ask(p, "evil.example.com:443").source == SOURCE_OPERATOR && ask(p, "own.example.com:443").source == SOURCE_POLICY);
    policy_unref(p);
}

TEST(rules_come_before_the_lists_and_the_first_match_wins)
{
    struct policy *p = compile(LIMITED("\"*.example.com\"") ", \"rules\": ["
        "{\"id\": \"one\", \"host\": \"a.example.com\", \"action\": \"deny\"},"
        "{\"id\": \"two\", \"host\": \"a.example.com\", \"action\": \"allow\"},"
        "{\"host\": \"*.sub.example.com\", \"action\": \"deny\"},"
        "{\"host\": \"x.sub.example.com\", \"action\": \"allow\"},"
        "{\"host\": \"y.deep.example.net\", \"action\": \"allow\"},"
        "{\"host\": \"*.deep.example.net\", \"action\": \"deny\"},"
        "{\"host\": \"*.example.net\", \"action\": \"allow\"}]}");
    expect(p, "a.example.com:443", "host_not_allowed rules[0] one");
    expect(p, "a.example.com:9999", "host_not_allowed rules[0] one");
    expect(p, "x.sub.example.com:443", "host_not_allowed rules[2]");
    expect(p, "sub.example.com:443", "allow allowed_hosts[0]");
    expect(p, "y.deep.example.net:443", "allow rules[4]");
    expect(p, "z.deep.example.net:443", "host_not_allowed rules[5]");
    expect(p, "z.example.net:443", "allow rules[6]");
    expect(p, "z.example.net:8443", "port_not_allowed");
    policy_unref(p);
}

static const char plain_rules[] = LIMITED("\"open.example.com\"") ", \"rules\": ["
    "{\"id\": \"read\", \"host\": \"a.example.com\", \"scheme\": \"http\", \"methods\": [\"GET\", \"HEAD\"], \"path\": \"^/repos/acme/\", \"action\": \"allow\"},"
    "{\"id\": \"rest\", \"host\": \"a.example.com\", \"action\": \"deny\"},"
    "{\"host\": \"b.example.com\", \"scheme\": \"http\", \"path\": \"^/pub/\", \"action\": \"allow\"},"
    "{\"host\": \"open.example.com\", \"scheme\": \"http\", \"path\": \"^/admin\", \"action\": \"deny\"},"
    "{\"host\": \"c.example.com\", \"scheme\": \"http\", \"methods\": [\"PROPFIND\"], \"action\": \"allow\"}]}";

TEST(methods_and_paths_of_plain_requests)
{
    struct policy *p = compile(plain_rules);
    expect(p, "http a.example.com:80 GET /repos/acme/x", "allow rules[0] read");
    expect(p, "http a.example.com:80 GET /repos/acme/x?y=../..", "allow rules[0] read");
    expect(p, "http a.example.com:80 POST /repos/acme/x", "method_not_allowed rules[1] rest");
    expect(p, "http a.example.com:80 get /repos/acme/x", "method_not_allowed rules[1] rest");
    expect(p, "http a.example.com:80 GET /repos/other/x", "path_not_allowed rules[1] rest");
    expect(p, "http a.example.com:80 POST /repos/other/x", "host_not_allowed rules[1] rest");
    expect(p, "http b.example.com:80 GET /pub/x", "allow rules[2]");
    expect(p, "http b.example.com:80 GET /x", "path_not_allowed");
    expect(p, "http b.example.com:8080 GET /pub/x", "port_not_allowed");
    expect(p, "http c.example.com:80 PROPFIND /", "allow rules[4]");
    expect(p, "http c.example.com:80 GET /", "method_not_allowed");
    expect(p, "http open.example.com:80 GET /x", "allow allowed_hosts[0]");
    expect(p, "http open.example.com:80 GET /admin/x", "host_not_allowed rules[3]");
    CHECK(policy_knows_method(p, slice_str("PROPFIND")) && !policy_knows_method(p, slice_str("MKCOL")) && !policy_knows_method(p, slice_str("PROP")));
    policy_unref(p);
}

/* The request of the rule is only seen outside a tunnel: what a tunnel could hide may not open it, nor slip past a denial. */
TEST(a_tunnel_cannot_tell_and_does_not_open)
{
    struct policy *p = compile(plain_rules);
    expect(p, "a.example.com:80", "host_not_allowed rules[1] rest");
    expect(p, "a.example.com:443", "host_not_allowed rules[1] rest");
    expect(p, "b.example.com:80", "host_not_allowed");
    expect(p, "b.example.com:443", "host_not_allowed");
    expect(p, "open.example.com:80", "host_not_allowed rules[3]");
    expect(p, "open.example.com:443", "allow allowed_hosts[0]");
    policy_unref(p);
    /* On a port that is held to neither, either could be inside. */
    p = compile(LIMITED("\"a.example.com:9000\"") ", \"rules\": [{\"host\": \"a.example.com\", \"scheme\": \"http\", \"action\": \"deny\"}]}");
    expect(p, "a.example.com:9000", "host_not_allowed rules[0]");
    policy_unref(p);
    const uint16_t tls[] = {9000};
    struct policy_context_options o = {.tls_ports = tls, .tls_port_count = 1};
    p = compile_with(&o, LIMITED("\"a.example.com:9000\"") ", \"rules\": [{\"host\": \"a.example.com\", \"scheme\": \"http\", \"action\": \"deny\"}]}");
    expect(p, "a.example.com:9000", "allow allowed_hosts[0]");
    policy_unref(p);
}

TEST(what_looks_like_a_traversal_is_refused_where_a_path_counts)
{
    static const char *const paths[] = {"/repos/acme/%2e%2e%2fother", "/repos/acme/..%2fother", "/repos/acme/%252e%252e/other", "/../repos/acme/x", "/repos/acme/..;/other",
                                        "/repos/acme/%5c..%5cother", "/repos//acme/../../x", "/repos/acme/%c0%ae%c0%ae/other", "/repos/acme/%zz"};
    struct policy *p = compile(plain_rules);
    char question[256];
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        snprintf(question, sizeof question, "http a.example.com:80 GET %s", paths[i]);
        CHECK_THAT(ask(p, question).reason == REASON_PATH_NOT_ALLOWED, "%s", question);
    }
    expect(p, "http a.example.com:80 GET /repos/acme/../acme/x", "allow rules[0] read");
    expect(p, "http a.example.com:80 GET /repos/acme/../other", "path_not_allowed rules[1] rest");
    expect(p, "http a.example.com:80 GET /%72epos/acme/x", "allow rules[0] read");
    expect(p, "http open.example.com:80 GET /%61dmin", "host_not_allowed rules[3]");
    expect(p, "http open.example.com:80 GET //admin", "host_not_allowed rules[3]");
    expect(p, "http open.example.com:80 GET /./admin", "host_not_allowed rules[3]");
    expect(p, "http open.example.com:80 GET /x/../admin", "host_not_allowed rules[3]");
    expect(p, "http open.example.com:80 GET /%2561dmin", "path_not_allowed rules[3]");
    policy_unref(p);
}

TEST(a_pattern_over_its_limits_denies)
{
    struct policy *p = compile(LIMITED("\"a.example.com\"") ", \"rules\": ["
        "{\"host\": \"a.example.com\", \"scheme\": \"http\", \"path\": \"^/(a+)+$\", \"action\": \"deny\"}]}");
    expect(p, "http a.example.com:80 GET /b", "allow allowed_hosts[0]");
    expect(p, "http a.example.com:80 GET /aaaa", "host_not_allowed rules[0]");
    expect(p, "http a.example.com:80 GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", "path_not_allowed rules[0]");
    policy_unref(p);
}

TEST(servers_open_their_scheme_host_port_and_path)
{
    static const char document[] = "{\"networking\": {\"allow_mcp_servers\": %s}, \"mcp_servers\": ["
        "{\"name\": \"one\", \"url\": \"https://mcp.example.com/mcp\"}, {\"name\": \"two\", \"url\": \"http://plain.example.com:8080/a/\"}, {\"name\": \"three\", \"url\": \"http://plain.example.com:8080/b\"}]}";
    char text[1024];
    snprintf(text, sizeof text, document, "true");
    struct policy *p = compile(text);
    expect(p, "mcp.example.com:443", "allow mcp_servers[0] one");
    expect(p, "mcp.example.com:80", "port_not_allowed");
    expect(p, "http mcp.example.com:443 GET /mcp", "host_not_allowed");
    expect(p, "https mcp.example.com:443 POST /mcp", "allow mcp_servers[0] one");
    expect(p, "https mcp.example.com:443 POST /mcp/x", "allow mcp_servers[0] one");
    expect(p, "https mcp.example.com:443 POST /mcpx", "path_not_allowed");
    expect(p, "https mcp.example.com:443 POST /mcp/../admin", "path_not_allowed");
    expect(p, "http plain.example.com:8080 GET /a", "allow mcp_servers[1] two");
    expect(p, "http plain.example.com:8080 GET /b/x", "allow mcp_servers[2] three");
    expect(p, "http plain.example.com:8080 GET /c", "path_not_allowed");
    expect(p, "x.mcp.example.com:443", "host_not_allowed");
    CHECK(ask(p, "mcp.example.com:443").source == SOURCE_MCP);
    policy_unref(p);
    snprintf(text, sizeof text, document, "false");
    p = compile(text);
    expect(p, "mcp.example.com:443", "host_not_allowed");
    policy_unref(p);
}

static const char test_registries[] = "{\"date\": \"2026-01-01\", \"managers\": {"
    "\"alpha\": {\"aliases\": [\"al\"], \"hosts\": {\"alpha.example\": [\"@\", \"files\"], \"shared.example\": [\"cdn\"]}, \"optional_hosts\": {\"alpha.example\": [\"upload\"]}},"
    "\"beta\": {\"plain_http\": true, \"hosts\": {\"beta.example\": [\"*.mirror\"], \"shared.example\": [\"cdn\"]}},"
    "\"forge\": {\"named_only\": \"takes writes\", \"hosts\": {\"forge.example\": [\"@\"]}}}}";

TEST(registries_open_what_the_managers_need)
{
    struct policy_context_options o = {.registries_json = slice_str(test_registries)};
    struct policy *p = compile_with(&o, "{\"networking\": {\"allow_package_managers\": true}}");
    expect(p, "alpha.example:443", "allow package_managers.alpha");
    expect(p, "files.alpha.example:443", "allow package_managers.alpha");
    expect(p, "upload.alpha.example:443", "host_not_allowed");
    expect(p, "alpha.example:80", "port_not_allowed");
    expect(p, "x.mirror.beta.example:80", "allow package_managers.beta");
    expect(p, "x.mirror.beta.example:443", "allow package_managers.beta");
    expect(p, "x.mirror.beta.example:8080", "port_not_allowed");
    expect(p, "forge.example:443", "host_not_allowed");
    expect(p, "http x.mirror.beta.example:80 GET /x", "allow package_managers.beta");
    expect(p, "http x.mirror.beta.example:80 POST /x", "method_not_allowed");
    CHECK(ask(p, "alpha.example:443").source == SOURCE_REGISTRIES);
    policy_unref(p);
    p = compile_with(&o, "{\"networking\": {\"allow_package_managers\": true}, \"package_managers\": [\"beta\", \"forge\"], \"package_access\": \"write\"}");
    expect(p, "alpha.example:443", "host_not_allowed");
    expect(p, "cdn.shared.example:443", "allow package_managers.beta");
    expect(p, "cdn.shared.example:80", "allow package_managers.beta");
    expect(p, "forge.example:443", "allow package_managers.forge");
    expect(p, "http x.mirror.beta.example:80 POST /x", "allow package_managers.beta");
    policy_unref(p);
    p = compile_with(&o, "{\"networking\": {\"allow_package_managers\": false}, \"package_managers\": [\"al\"]}");
    expect(p, "alpha.example:443", "host_not_allowed");
    policy_unref(p);
    p = compile_with(&o, "{\"networking\": {\"allow_package_managers\": true}, \"package_managers\": []}");
    expect(p, "alpha.example:443", "host_not_allowed");
    policy_unref(p);
}

TEST(platform_hosts_come_last)
{
    const char *const platform[] = {"*.platform.example.com", NULL};
    struct policy_context_options o = {.platform_hosts = platform};
    struct policy *p = compile_with(&o, LIMITED("\"a.platform.example.com\"") ", \"rules\": [{\"host\": \"no.platform.example.com\", \"action\": \"deny\"}]}");
    expect(p, "a.platform.example.com:443", "allow allowed_hosts[0]");
    expect(p, "b.platform.example.com:443", "allow platform_hosts[0]");
    expect(p, "no.platform.example.com:443", "host_not_allowed rules[0]");
    CHECK(ask(p, "b.platform.example.com:443").source == SOURCE_OPERATOR);
    policy_unref(p);
}

static const char test_blocklist[] = "{\"date\": \"2026-01-01\", \"categories\": {\"paste\": {\"reason\": \"r\", \"hosts\": {\"paste.example\": [\"@\", \"*\"]}}}}";

TEST(unrestricted_opens_public_hosts_on_default_ports)
{
    struct policy_context_options o = {.blocklist_json = slice_str(test_blocklist)};
    struct policy *p = compile_with(&o, "{\"networking\": {\"type\": \"unrestricted\", \"allowed_hosts\": [\"kept.paste.example\", \"a.example.com:9000\"]}, \"blocked_hosts\": [\"no.example.com\", \"8.8.8.8\"]}");
    expect(p, "anything.example.net:443", "allow networking.type unrestricted");
    expect(p, "anything.example.net:80", "allow networking.type unrestricted");
    expect(p, "anything.example.net:22", "port_not_allowed");
    expect(p, "no.example.com:443", "host_blocked blocked_hosts[0]");
    expect(p, "paste.example:443", "host_blocked safety-blocklist.paste");
    expect(p, "x.paste.example:80", "host_blocked safety-blocklist.paste");
    expect(p, "kept.paste.example:443", "allow allowed_hosts[0]");
    expect(p, "a.example.com:9000", "allow allowed_hosts[1]");
    expect(p, "8.8.8.8:443", "host_blocked blocked_hosts[1]");
    expect(p, "[::ffff:8.8.8.8]:443", "host_not_allowed");
    expect(p, "8.8.4.4:443", "allow networking.type unrestricted");
    static const char *const special[] = {"localhost:443", "foo.localhost:443", "metadata.google.internal:80", "metadata.goog:80", "proxyhost:443", "printer.local:443",
                                          "1.0.0.127.in-addr.arpa:443", "x.alt:443", "x.onion:443", "x.test:443", "x.invalid:443", "x.home.arpa:443"};
    for (size_t i = 0; i < sizeof special / sizeof special[0]; i++) {
        struct verdict v = ask(p, special[i]);
        CHECK_THAT(v.action == ACTION_DENY && v.reason == REASON_HOST_NOT_ALLOWED && v.source == SOURCE_BUILTIN, "%s", special[i]);
    }
    policy_unref(p);
}

TEST(parent_leaves_all_but_blocked_hosts_to_the_parent)
{
    const char *const blocked[] = {"closed.example.com", NULL};
    struct policy_context_options o = {.has_parent = true, .blocked_hosts = blocked, .blocklist_json = slice_str(test_blocklist)};
    struct policy *p = compile_with(&o, "{\"networking\": {\"type\": \"parent\"}, \"blocked_hosts\": [\"no.example.com:22\", \"8.8.8.8\"]}");
    expect(p, "anything.example.net:443", "allow networking.type parent");
    expect(p, "anything.example.net:22", "allow networking.type parent");
    expect(p, "paste.example:443", "allow networking.type parent");
    expect(p, "db.corp.internal:5432", "allow networking.type parent");
    expect(p, "no.example.com:443", "allow networking.type parent");
    expect(p, "no.example.com:22", "host_blocked blocked_hosts[0]");
    expect(p, "closed.example.com:8443", "host_blocked blocked_hosts[0]");
    expect(p, "8.8.8.8:1", "host_blocked blocked_hosts[1]");
    expect(p, "[::ffff:8.8.8.8]:443", "host_not_allowed");
    policy_unref(p);

    struct err err = {0};
    struct policy_context_options none = {.has_parent = false};
    struct policy_context *c = context_with(&none);
    CHECK(!policy_compile(slice_str("{\"networking\": {\"type\": \"parent\"}}"), "p", "p.json", POLICY_FILE, c, &err));
    CHECK_THAT(strstr(err.text, "upstream.parent"), "%s", err.text);
    policy_context_unref(c);
}

TEST(special_names_need_an_exact_entry_and_a_cover)
{
    const char *const overrides[] = {"api.corp.internal", "wild.corp.internal", NULL};
    struct policy_context_options o = {.override_hosts = overrides};
    static const char document[] = LIMITED("\"api.corp.internal\", \"db.corp.internal\", \"bare.corp.internal\", \"*.corp.internal\"")
        ", \"private_addresses\": [{\"host\": \"db.corp.internal\", \"addresses\": [\"10.0.0.0/8\"]}],"
        "\"rules\": [{\"host\": \"*.corp.internal\", \"action\": \"allow\"}], \"mode\": \"report\"}";
    struct policy *p = compile_with(&o, document);
    expect(p, "api.corp.internal:443", "allow allowed_hosts[0]");
    expect(p, "db.corp.internal:443", "allow allowed_hosts[1]");
    expect(p, "bare.corp.internal:443", "host_not_allowed special names: internal");
    CHECK(ask(p, "wild.corp.internal:443").would_deny); /* covered, but no exact entry: an ordinary refusal */
    policy_unref(p);
    const char *const platform[] = {"api.corp.internal", NULL};
    o.platform_hosts = platform;
    p = compile_with(&o, "{}");
    expect(p, "api.corp.internal:443", "allow platform_hosts[0]");
    policy_unref(p);
}

TEST(report_mode_lets_through_and_says_what_it_would_do)
{
    const char *const blocked[] = {"blocked.example.com", NULL};
    struct policy_context_options o = {.blocked_hosts = blocked};
    struct policy *p = compile_with(&o, LIMITED("\"a.example.com\"") ", \"mode\": \"report\", \"rules\": ["
        "{\"host\": \"b.example.com\", \"scheme\": \"http\", \"methods\": [\"GET\"], \"action\": \"allow\"}]}");
    static const struct { const char *question; enum reason would; } rows[] = {
        {"other.example.com:443", REASON_HOST_NOT_ALLOWED}, {"a.example.com:22", REASON_PORT_NOT_ALLOWED}, {"http b.example.com:80 POST /", REASON_METHOD_NOT_ALLOWED},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct verdict v = ask(p, rows[i].question);
        CHECK_THAT(v.action == ACTION_ALLOW && v.reason == REASON_OK && v.would_deny && v.would_reason == rows[i].would, "%s", rows[i].question);
    }
    struct verdict v = ask(p, "a.example.com:443");
    CHECK(v.action == ACTION_ALLOW && !v.would_deny);
    expect(p, "blocked.example.com:443", "host_blocked blocked_hosts[0]");
    expect(p, "x.internal:443", "host_not_allowed special names: internal");
    policy_unref(p);
}

static const char inspected[] = LIMITED("\"open.example.com\", \"listed.example.com\", \"pass.example.com\"") ", \"inspect\": {\"hosts\": [\"listed.example.com\"], \"passthrough\": [\"pass.example.com\"]},"
    "\"rules\": [{\"id\": \"read\", \"host\": \"a.example.com\", \"methods\": [\"GET\"], \"path\": \"^/repos/acme/\", \"action\": \"allow\"},"
    "{\"id\": \"rest\", \"host\": \"a.example.com\", \"action\": \"deny\"},"
    "{\"id\": \"late\", \"host\": \"a.example.com\", \"methods\": [\"POST\"], \"action\": \"allow\"},"
    "{\"id\": \"hard\", \"host\": \"b.example.com\", \"action\": \"deny\"},"
    "{\"id\": \"soft\", \"host\": \"b.example.com\", \"methods\": [\"GET\"], \"action\": \"allow\"},"
    "{\"id\": \"noput\", \"host\": \"open.example.com\", \"methods\": [\"PUT\"], \"action\": \"deny\"},"
    "{\"id\": \"only\", \"host\": \"c.example.com\", \"methods\": [\"GET\"], \"action\": \"allow\"}]}";

TEST(under_a_ceiling_tunnels_open_for_inspection)
{
    struct policy_context_options o = {.inspect = INSPECT_LISTED};
    struct policy *p = compile_with(&o, inspected);
    expect(p, "a.example.com:443", "inspect rules[0] read");
    expect(p, "https a.example.com:443 GET /repos/acme/x", "allow rules[0] read");
    expect(p, "https a.example.com:443 POST /repos/acme/x", "method_not_allowed rules[1] rest");
    expect(p, "https a.example.com:443 GET /repos/x", "path_not_allowed rules[1] rest");
    expect(p, "b.example.com:443", "host_not_allowed rules[3] hard");
    expect(p, "c.example.com:443", "inspect rules[6] only");
    expect(p, "https c.example.com:443 POST /", "method_not_allowed");
    expect(p, "open.example.com:443", "inspect allowed_hosts[0]");
    expect(p, "https open.example.com:443 PUT /", "host_not_allowed rules[5] noput");
    expect(p, "https open.example.com:443 GET /", "allow allowed_hosts[0]");
    expect(p, "listed.example.com:443", "inspect allowed_hosts[1]");
    expect(p, "pass.example.com:443", "allow allowed_hosts[2]");
    expect(p, "other.example.com:443", "host_not_allowed");
    /* A tunnel that is held to plain HTTP is not opened by TLS inspection. */
    expect(p, "a.example.com:80", "host_not_allowed rules[1] rest");
    expect(p, "c.example.com:80", "host_not_allowed");
    policy_unref(p);
    o.inspect = INSPECT_ALL;
    p = compile_with(&o, LIMITED("\"x.example.com\", \"pass.example.com\"") ", \"inspect\": {\"mode\": \"all\", \"passthrough\": [\"pass.example.com\"]}}");
    expect(p, "x.example.com:443", "inspect allowed_hosts[0]");
    expect(p, "pass.example.com:443", "allow allowed_hosts[1]");
    expect(p, "http x.example.com:80 GET /", "allow allowed_hosts[0]");
    expect(p, "no.example.com:443", "host_not_allowed");
    policy_unref(p);
    p = compile_with(&o, LIMITED("\"x.example.com\"") ", \"inspect\": {\"mode\": \"off\"}}");
    expect(p, "x.example.com:443", "allow allowed_hosts[0]");
    policy_unref(p);
}

TEST(tool_lists_ask_for_inspection)
{
    struct policy_context_options o = {.inspect = INSPECT_LISTED};
    struct policy *p = compile_with(&o, "{\"networking\": {\"allow_mcp_servers\": true}, \"mcp_servers\": ["
        "{\"name\": \"one\", \"url\": \"https://mcp.example.com/mcp\", \"denied_tools\": [\"x\"]}, {\"name\": \"two\", \"url\": \"https://free.example.com/\"}]}");
    expect(p, "mcp.example.com:443", "inspect mcp_servers[0] one");
    expect(p, "free.example.com:443", "allow mcp_servers[1] two");
    policy_unref(p);
}

TEST(a_rule_text_is_cut_never_overrun)
{
    char document[512], id[65];
    memset(id, 'i', 64);
    id[64] = '\0';
    snprintf(document, sizeof document, "{\"rules\": [{\"id\": \"%s\", \"host\": \"a.example.com\", \"action\": \"allow\"}]}", id);
    struct policy *p = compile(document);
    struct verdict v = ask(p, "a.example.com:443");
    CHECK(v.action == ACTION_ALLOW && strlen(v.rule) < RULE_TEXT_SIZE && strstr(v.rule, "iiii"));
    policy_unref(p);
}

/* Ways past an allowlist that other gates have fallen for. */
TEST(ways_past_the_list)
{
    struct policy *p = compile(LIMITED("\"api.example.com\", \"*.wild.example.com\", \"192.0.3.7\"") "}");
    static const char *const denied[] = {
        "evil-api.example.com:443", "api.example.com.evil.net:443", "apiXexample.com:443", "api-example.com:443", "example.com:443", "www.api.example.com:443",
        "evilwild.example.com:443", "wild.example.com:443", "a.wild.example.com.evil.net:443", "[::ffff:192.0.3.7]:443", "192.0.3.70:443", "192.0.3.8:443",
        "xn--pi-7ia.example.com:443", "a_wild.example.com:443", "api.example.co:443", "pi.example.com:443",
    };
    for (size_t i = 0; i < sizeof denied / sizeof denied[0]; i++)
        CHECK_THAT(ask(p, denied[i]).action == ACTION_DENY, "%s", denied[i]);
    expect(p, "API.EXAMPLE.COM.:443", "allow allowed_hosts[0]");
    expect(p, "127.0.0.1.wild.example.com:443", "allow allowed_hosts[1]");
    policy_unref(p);
}
