/* Policy documents: what loads, what does not, and what the errors say. */
#include "sallyport/policy/policy.h"

#include "unit/policies.h"

static void
refuses_in(struct policy_context *c, const char *json, enum policy_origin origin, const char *wanted)
{
    char text[ERR_TEXT_MAX];
    struct policy *p = compile_in(c, json, origin, text);
    CHECK_THAT(!p, "loaded: %s", json);
    CHECK_THAT(strstr(text, wanted), "\"%s\" does not say \"%s\"", text, wanted);
    policy_unref(p);
}

static void
refuses(const char *json, const char *wanted)
{
    refuses_in(context_with(NULL), json, POLICY_FILE, wanted);
}

TEST(empty_and_missing_deny_everything)
{
    static const char *const documents[] = {"", "{}", "{\"version\": 1}", "{\"networking\": {}}", "{\"networking\": {\"type\": \"limited\"}}",
                                            "{\"networking\": {\"type\": \"limited\", \"allowed_hosts\": []}}"};
    for (size_t i = 0; i < sizeof documents / sizeof documents[0]; i++) {
        struct policy *p = compile(documents[i]);
        expect(p, "api.example.com:443", "host_not_allowed");
        expect(p, "http api.example.com:80 GET /", "host_not_allowed");
        expect(p, "[::1]:443", "host_not_allowed");
        policy_unref(p);
    }
    struct policy_context *c = context_with(NULL);
    struct policy *p = policy_deny_all(c, "none");
    expect(p, "api.example.com:443", "host_not_allowed");
    CHECK_STR(policy_name(p), "none");
    policy_unref(p);
    policy_context_unref(c);
}

TEST(errors_carry_file_path_and_what_was_expected)
{
    refuses("{\"networking\": {\"alowed_hosts\": []}}", "test.json: networking: unknown key \"alowed_hosts\"; did you mean \"allowed_hosts\"?");
    refuses("{\"netwroking\": {}}", "did you mean \"networking\"?");
    refuses("{\"networking\": {\"type\": \"limitd\"}}", "test.json: networking.type: expected one of \"limited\", \"unrestricted\"");
    refuses("{\"networking\": {\"type\": null, \"allow_mcp_server\": true}}", "did you mean \"allow_mcp_servers\"?");
    refuses("{\"networking\": {\"allowed_hosts\": \"foo.example.com\"}}", "test.json: networking.allowed_hosts: expected an array");
    refuses("{\"networking\": {\"allowed_hosts\": [\"a.example.com\", 7]}}", "networking.allowed_hosts[1]");
    refuses("{\"networking\": {\"allowed_hosts\": [\"a.example.com\", \"https://b.example.com/x\"]}}", "networking.allowed_hosts[1]: the entry has a path");
    refuses("{\"networking\": {\"allowed_hosts\": [\"*\"]}}", "would open every host");
    refuses("{\"networking\": {\"allowed_hosts\": [\"*.com\"]}}", "public suffix");
    refuses("{\"networking\": {\"allowed_hosts\": [null]}}", "expected a host entry");
    refuses("{\"networking\": {\"allowed_hosts\": [\"a.example.com\\u0000\"]}}", "test.json");
    refuses("{\"networking\": {\"allow_mcp_servers\": \"yes\"}}", "networking.allow_mcp_servers");
    refuses("[]", "expected an object");
    refuses("{\"version\": 2}", "test.json: version");
    refuses("{\"networking\": {}, \"networking\": {}}", "test.json");
    refuses("{\"networking\": {}", "test.json");
    refuses("\xef\xbb\xbf{}", "byte order mark");
    refuses("{\"mode\": \"reporting\"}", "test.json: mode: expected one of \"enforce\", \"report\"");
    refuses("{\"limits\": {\"tunnels\": 0}}", "limits.tunnels");
    refuses("{\"limits\": {\"tunnels\": 1.5}}", "limits.tunnels");
    refuses("{\"limits\": {\"tunnel\": 1}}", "did you mean \"tunnels\"?");
    refuses("{\"blocked_hosts\": [\"*\"]}", "test.json: blocked_hosts[0]");
}

static void
check_entry(const json_t *line)
{
    const char *wanted = member(line, "expect");
    json_t *document = json_pack("{s:{s:[O]}}", "networking", "allowed_hosts", json_object_get(line, "entry"));
    char *text = json_dumps(document, 0), error[ERR_TEXT_MAX];
    struct cidr special[2];
    CHECK(cidr_parse(slice_str("192.0.2.0/24"), &special[0]) && cidr_parse(slice_str("2001:db8::/32"), &special[1]));
    struct policy_context_options o = {.allow_addresses = special, .allow_address_count = 2};
    struct policy *p = compile_in(context_with(&o), text, POLICY_FILE, error);
    CHECK_THAT((p != NULL) == (strcmp(wanted, "refuse-to-load") != 0), "%s %s (%s): %s", member(line, "id"), text, member(line, "why"), error);
    CHECK_THAT(p || strncmp(error, "test.json: ", 11) == 0, "%s", error);
    policy_unref(p);
    free(text);
    json_decref(document);
}

TEST(entries_of_the_vectors_in_a_document)
{
    each_vector("tests/vectors/policy-entries.jsonl", check_entry);
}

TEST(a_literal_in_a_forbidden_range_needs_the_operator_first)
{
    refuses("{\"networking\": {\"allowed_hosts\": [\"127.0.0.1\"]}}", "127.0.0.1 is loopback");
    refuses("{\"networking\": {\"allowed_hosts\": [\"[::ffff:10.0.0.1]\"]}}", "private use");
    refuses("{\"rules\": [{\"host\": \"10.0.0.1\", \"action\": \"allow\"}]}", "rules[0].host");
    refuses("{\"mcp_servers\": [{\"name\": \"x\", \"url\": \"http://169.254.169.254/\"}]}", "mcp_servers[0].url");
    struct cidr opened[2];
    CHECK(cidr_parse(slice_str("10.0.0.0/8"), &opened[0]) && cidr_parse(slice_str("169.254.0.0/16"), &opened[1]));
    struct policy_context_options o = {.allow_addresses = opened, .allow_address_count = 2};
    policy_unref(compile_in(context_with(&o), "{\"networking\": {\"allowed_hosts\": [\"10.0.0.1\"]}}", POLICY_FILE, NULL));
    refuses_in(context_with(&o), "{\"networking\": {\"allowed_hosts\": [\"169.254.169.254\"]}}", POLICY_FILE, "metadata");
    /* Blocking one is always fine. */
    policy_unref(compile("{\"blocked_hosts\": [\"169.254.169.254\", \"127.0.0.1\"]}"));
}

TEST(rules_that_need_inspection_do_not_load_without_it)
{
    refuses("{\"rules\": [{\"host\": \"a.example.com\", \"methods\": [\"GET\"], \"action\": \"allow\"}]}", "test.json: rules[0]: methods and paths of https");
    refuses("{\"rules\": [{\"host\": \"a.example.com\", \"path\": \"^/\", \"action\": \"deny\"}]}", "rules[0]");
    refuses("{\"rules\": [{\"host\": \"a.example.com\", \"scheme\": \"https\", \"path\": \"^/\", \"action\": \"deny\"}]}", "rules[0]");
    policy_unref(compile("{\"rules\": [{\"host\": \"a.example.com\", \"scheme\": \"http\", \"methods\": [\"GET\"], \"path\": \"^/\", \"action\": \"allow\"}]}"));
    policy_unref(compile("{\"rules\": [{\"host\": \"a.example.com\", \"action\": \"allow\"}, {\"host\": \"*.example.com:8443\", \"action\": \"deny\"}]}"));
    struct policy_context_options o = {.inspect = INSPECT_LISTED};
    const char *rule = "{\"rules\": [{\"host\": \"a.example.com\", \"methods\": [\"GET\"], \"action\": \"allow\"}]}";
    policy_unref(compile_in(context_with(&o), rule, POLICY_FILE, NULL));
    refuses_in(context_with(&o), "{\"inspect\": {\"mode\": \"off\"}, \"rules\": [{\"host\": \"a.example.com\", \"methods\": [\"GET\"], \"action\": \"allow\"}]}", POLICY_FILE, "rules[0]");
}

TEST(inspection_stays_below_the_ceiling)
{
    refuses("{\"inspect\": {\"mode\": \"listed\"}}", "inspect.mode: the operator's inspect.mode is \"off\"");
    refuses("{\"inspect\": {\"mode\": \"all\"}}", "inspect.mode");
    refuses("{\"inspect\": {\"hosts\": [\"a.example.com\"]}}", "inspect.hosts");
    policy_unref(compile("{\"inspect\": {\"mode\": \"off\"}}"));
    struct policy_context_options listed = {.inspect = INSPECT_LISTED}, all = {.inspect = INSPECT_ALL};
    policy_unref(compile_in(context_with(&listed), "{\"inspect\": {\"mode\": \"listed\"}}", POLICY_FILE, NULL));
    refuses_in(context_with(&listed), "{\"inspect\": {\"mode\": \"all\"}}", POLICY_FILE, "\"listed\"");
    policy_unref(compile_in(context_with(&all), "{\"inspect\": {\"mode\": \"all\"}}", POLICY_FILE, NULL));
}

TEST(passthrough_and_sight_exclude_each_other)
{
    static const char *const both[] = {
        "{\"inspect\": {\"passthrough\": [\"*.example.com\"]}, \"rules\": [{\"host\": \"a.example.com\", \"methods\": [\"GET\"], \"action\": \"allow\"}]}",
        "{\"inspect\": {\"passthrough\": [\"a.example.com\"]}, \"rules\": [{\"host\": \"*.example.com\", \"path\": \"^/x\", \"action\": \"deny\"}]}",
        "{\"inspect\": {\"passthrough\": [\"mcp.example.com\"]}, \"mcp_servers\": [{\"name\": \"m\", \"url\": \"https://mcp.example.com/x\", \"denied_tools\": [\"t\"]}]}",
    };
    struct policy_context_options o = {.inspect = INSPECT_ALL};
    for (size_t i = 0; i < 3; i++)
        refuses_in(context_with(&o), both[i], POLICY_FILE, "passthrough");
    const char *const operators[] = {"*.example.com", NULL};
    o.passthrough = operators;
    refuses_in(context_with(&o), "{\"rules\": [{\"host\": \"a.example.com\", \"methods\": [\"GET\"], \"action\": \"allow\"}]}", POLICY_FILE, "passthrough");
}

TEST(rules_are_read_strictly)
{
    refuses("{\"rules\": [{\"action\": \"allow\"}]}", "\"host\" is missing");
    refuses("{\"rules\": [{\"host\": \"a.example.com\"}]}", "\"action\" is missing");
    refuses("{\"rules\": [{\"host\": \"a.example.com\", \"action\": \"permit\"}]}", "rules[0].action: expected one of \"deny\", \"allow\"");
    refuses("{\"rules\": [{\"host\": \"a.example.com\", \"action\": \"allow\", \"method\": [\"GET\"]}]}", "did you mean \"methods\"?");
    refuses("{\"rules\": [{\"host\": \"a.example.com\", \"scheme\": \"http\", \"action\": \"allow\", \"methods\": [\"get\"]}]}", "rules[0].methods[0]");
    refuses("{\"rules\": [{\"host\": \"a.example.com\", \"scheme\": \"http\", \"action\": \"allow\", \"methods\": []}]}", "rules[0].methods");
    refuses("{\"rules\": [{\"host\": \"a.example.com\", \"scheme\": \"http\", \"action\": \"allow\", \"methods\": [\"TRACE\"]}]}", "never forwarded");
    refuses("{\"rules\": [{\"host\": \"a.example.com\", \"scheme\": \"http\", \"action\": \"allow\", \"methods\": [\"CONNECT\"]}]}", "tunnel");
    refuses("{\"rules\": [{\"host\": \"a.example.com\", \"scheme\": \"http\", \"action\": \"allow\", \"path\": \"^/(\"}]}", "rules[0].path: is no pattern, at");
    refuses("{\"rules\": [{\"host\": \"a.example.com\", \"scheme\": \"http\", \"action\": \"allow\", \"path\": \"\"}]}", "rules[0].path");
    refuses("{\"rules\": [{\"host\": \"a.example.com\", \"scheme\": \"ftp\", \"action\": \"allow\"}]}", "rules[0].scheme");
    refuses("{\"rules\": [{\"host\": \"*\", \"action\": \"deny\"}]}", "rules[0].host");
    refuses("{\"rules\": [{\"id\": \"a b\", \"host\": \"a.example.com\", \"action\": \"deny\"}]}", "rules[0].id");
}

TEST(servers_are_read_strictly)
{
    refuses("{\"mcp_servers\": [{\"url\": \"https://mcp.example.com/\"}]}", "mcp_servers[0].name");
    refuses("{\"mcp_servers\": [{\"name\": \"m\"}]}", "\"url\" is missing");
    refuses("{\"mcp_servers\": [{\"name\": \"m\", \"url\": \"mcp.example.com\"}]}", "expected a URL");
    refuses("{\"mcp_servers\": [{\"name\": \"m\", \"url\": \"https://*.example.com/\"}]}", "one host");
    refuses("{\"mcp_servers\": [{\"name\": \"m\", \"url\": \"https://u@mcp.example.com/\"}]}", "mcp_servers[0].url");
    refuses("{\"mcp_servers\": [{\"name\": \"m\", \"url\": \"https://mcp.example.com/?x=1\"}]}", "query");
    refuses("{\"mcp_servers\": [{\"name\": \"m\", \"url\": \"https://mcp.example.com/%2e%2e/%2e%2e/\"}]}", "not plain");
    refuses("{\"mcp_servers\": [{\"name\": \"m\", \"url\": \"https://mcp.example.com/\", \"allow_tools\": []}]}", "did you mean \"allowed_tools\"?");
    refuses("{\"mcp_default\": \"maybe\"}", "mcp_default");
}

TEST(private_addresses_are_read_strictly)
{
    refuses("{\"private_addresses\": [{\"host\": \"db.example.com\"}]}", "both needed");
    refuses("{\"private_addresses\": [{\"host\": \"db.example.com\", \"addresses\": []}]}", "private_addresses[0].addresses");
    refuses("{\"private_addresses\": [{\"host\": \"db.example.com\", \"addresses\": [\"10.2.0.1/16\"]}]}", "private_addresses[0].addresses[0]");
    refuses("{\"private_addresses\": [{\"host\": \"db.example.com\", \"addresses\": [\"10.2\"]}]}", "private_addresses[0].addresses[0]");
    policy_unref(compile("{\"private_addresses\": [{\"host\": \"db.example.com\", \"addresses\": [\"10.2.0.0/16\"]}]}"));
}

TEST(what_only_a_file_may_say)
{
    refuses_in(context_with(NULL), "{\"mode\": \"report\"}", POLICY_TOKEN, "only a policy file");
    refuses_in(context_with(NULL), "{\"private_addresses\": [{\"host\": \"a.example.com\", \"addresses\": [\"10.0.0.0/8\"]}]}", POLICY_TOKEN, "only a policy file");
    policy_unref(compile_in(context_with(NULL), "{\"mode\": \"enforce\"}", POLICY_TOKEN, NULL));
    policy_unref(compile("{\"mode\": \"report\"}"));
}

TEST(a_policy_knows_its_name_digest_and_limits)
{
    struct policy *p = compile("{\"limits\": {\"tunnels\": 64, \"bytes_up\": 1073741824, \"requests_per_minute\": 600}}");
    char hex[SHA256_HEX_SIZE];
    sha256_hex(slice_str("{\"limits\": {\"tunnels\": 64, \"bytes_up\": 1073741824, \"requests_per_minute\": 600}}"), hex);
    CHECK_STR(policy_sha256(p), hex);
    CHECK_STR(policy_name(p), "test");
    CHECK(policy_limits_of(p)->tunnels == 64 && policy_limits_of(p)->bytes_up == 1073741824 && policy_limits_of(p)->requests_per_minute == 600);
    struct policy *again = policy_ref(p);
    policy_unref(p);
    CHECK_STR(policy_name(again), "test");
    policy_unref(again);
}

TEST(the_whole_example_loads_where_everything_is_on)
{
    static const char document[] =
        "{\"version\": 1, \"networking\": {\"type\": \"limited\", \"allowed_hosts\": [\"api.example.com\", \"*.example.org\", \"https://code.example.net\", \"db.example.net:5432\"],"
        "\"allow_mcp_servers\": true, \"allow_package_managers\": false},"
        "\"mcp_servers\": [{\"name\": \"chat\", \"url\": \"https://mcp.example.com/mcp\", \"allowed_tools\": [\"channels_*\"], \"user_approved_tools\": [\"chat_post\"], \"denied_tools\": [\"channels_delete\"]}],"
        "\"package_managers\": [\"pip\", \"npm\"], \"blocked_hosts\": [],"
        "\"rules\": [{\"id\": \"read-acme\", \"host\": \"code.example.net\", \"methods\": [\"GET\", \"HEAD\"], \"path\": \"^/repos/acme/\", \"action\": \"allow\"}, {\"id\": \"no-other\", \"host\": \"code.example.net\", \"action\": \"deny\"}],"
        "\"private_addresses\": [{\"host\": \"db.corp.example\", \"addresses\": [\"10.2.0.0/16\"]}],"
        "\"inspect\": {\"mode\": \"listed\", \"hosts\": [\"code.example.net\"], \"passthrough\": []},"
        "\"limits\": {\"tunnels\": 64, \"bytes_up\": 1073741824, \"requests_per_minute\": 600}, \"mode\": \"enforce\"}";
    struct policy_context_options o = {.inspect = INSPECT_LISTED};
    policy_unref(compile_in(context_with(&o), document, POLICY_FILE, NULL));
    /* Cut anywhere it is no policy, and says so without a crash. */
    for (size_t len = 1; len < sizeof document - 1; len += 7) {
        struct err err = {.kind = ERR_NONE};
        struct policy_context *c = context_with(&o);
        CHECK(!policy_compile(slice_of(document, len), "cut", "cut.json", POLICY_FILE, c, &err) && err.kind == ERR_INVALID);
        policy_context_unref(c);
    }
}

/* A list long enough to be cut out of the document, with `odd` as its entry in the middle and `tail` behind the networking block. */
static char *
long_document(size_t count, const char *odd, const char *tail)
{
    char *text = malloc(count * 40 + 4096), *p = text;
    p += sprintf(p, "{\"networking\": {\"type\": \"limited\",\n \"allowed_hosts\" : [ ");
    for (size_t i = 0; i < count; i++)
        p += odd && i == count / 2 ? sprintf(p, "%s%s", i ? " ,\n" : "", odd) : sprintf(p, "%s\"h%zu.example.com\"", i ? " ,\n" : "", i);
    sprintf(p, " ]}%s}", tail);
    return text;
}

static void
refuses_long(const char *odd, const char *tail, const char *wanted)
{
    char *text = long_document(3000, odd, tail);
    char error[ERR_TEXT_MAX];
    struct policy *p = compile_in(context_with(NULL), text, POLICY_FILE, error);
    CHECK_THAT(!p && strstr(error, wanted), "%s %s: \"%s\" does not say \"%s\"", odd ? odd : "", tail, error, wanted);
    policy_unref(p);
    free(text);
}

TEST(long_lists_are_read_as_short_ones_are)
{
    char *text = long_document(3000, "\"*.wild.example.org:8443\"", ", \"blocked_hosts\": [\"h7.example.com\"]");
    struct policy *p = compile(text);
    expect(p, "h0.example.com:443", "allow allowed_hosts[0]");
    expect(p, "h2999.example.com:443", "allow allowed_hosts[2999]");
    expect(p, "a.wild.example.org:8443", "allow allowed_hosts[1500]");
    expect(p, "h7.example.com:443", "host_blocked blocked_hosts[0]");
    expect(p, "h3000.example.com:443", "host_not_allowed");
    expect(p, "h1500.example.com:443", "host_not_allowed");
    policy_unref(p);
    free(text);
    refuses_long("\"*\"", "", "test.json: networking.allowed_hosts[1500]: the entry would open every host");
    refuses_long("\"a.example.com/x\"", "", "networking.allowed_hosts[1500]: the entry has a path");
    refuses_long("\"127.0.0.1\"", "", "networking.allowed_hosts[1500]: 127.0.0.1 is loopback");
    refuses_long("\"\"", "", "networking.allowed_hosts[1500]: the entry is empty");
    /* What is not plain stays with the JSON reader. */
    refuses_long("7", "", "networking.allowed_hosts[1500]");
    refuses_long("\"b\xc3\xbc" "cher.example.com\"", "", "xn--bcher-kva.example.com");
    refuses_long("\"a\\u0000.example.com\"", "", "test.json");
    refuses_long("\"a.example.com\" \"b.example.com\"", "", "test.json: line 1502");
    refuses_long("[\"a.example.com\"]", "", "networking.allowed_hosts[1500]");
    refuses_long(NULL, ", \"blockd_hosts\": []", "did you mean \"blocked_hosts\"?");
    refuses_long(NULL, ",\n \"limits\": {\"tunnels\": 1,}", "test.json: line 3002");
    text = long_document(3000, "\"\\u0061.example.org\"", "");
    p = compile(text);
    expect(p, "a.example.org:443", "allow allowed_hosts[1500]");
    policy_unref(p);
    free(text);
}

TEST(long_lists_cannot_be_given_twice_or_forged)
{
    char *list = long_document(1500, NULL, ""), *text = malloc(200000);
    char error[ERR_TEXT_MAX];
    char *hosts = strstr(list, "\"allowed_hosts\"");
    hosts[strlen(hosts) - 2] = '\0'; /* without the two braces */
    sprintf(text, "{\"networking\": {%s, %s}}", hosts, hosts);
    CHECK(!compile_in(context_with(NULL), text, POLICY_FILE, error));
    CHECK_THAT(strstr(error, "test.json"), "%s", error);
    sprintf(text, "{\"networking\": {%s}, \"blocked_hosts\": [{\"00000000000000000000000000000000\": 0}]}", hosts);
    CHECK(!compile_in(context_with(NULL), text, POLICY_FILE, error));
    CHECK_THAT(strstr(error, "blocked_hosts[0]"), "%s", error);
    free(text);
    free(list);
}

TEST(contexts_are_read_strictly)
{
    const char *const bad[] = {"a.example.com", "*", NULL}, *const literal[] = {"10.0.0.1", NULL}, *const good[] = {"a.example.com:22", "*.example.org", NULL};
    struct err err = {.kind = ERR_NONE};
    struct policy_context_options o = {.blocked_hosts = bad};
    CHECK(!policy_context_new(&o, &err));
    CHECK_THAT(strstr(err.text, "blocked_hosts[1]"), "%s", err.text);
    o = (struct policy_context_options){.platform_hosts = literal};
    CHECK(!policy_context_new(&o, &err));
    CHECK_THAT(strstr(err.text, "platform_hosts[0]"), "%s", err.text);
    o = (struct policy_context_options){.registries_json = slice_str("{\"date\": \"2026-01-01\"}")};
    CHECK(!policy_context_new(&o, &err));
    CHECK_THAT(strstr(err.text, "registries.json"), "%s", err.text);
    o = (struct policy_context_options){.platform_hosts = good, .blocked_hosts = good};
    policy_context_unref(context_with(&o));
}
