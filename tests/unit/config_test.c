/* The configuration table: the whole example loads, defaults are what is documented, errors say file, path and what was
 * expected. */
#include "sallyport/process/config.h"
#include "unit/test.h"

static int
read_config(const char *text, struct settings *ret, struct err *err)
{
    json_t *root = json_read(slice_str(text), "c.json", CONFIG_DEPTH_MAX, err);
    if (!root)
        return -1;
    int rc = config_check_file(root, "c.json", err);
    if (rc == 0)
        rc = config_read(root, "c.json", "/etc/sp", ret, err);
    json_decref(root);
    return rc;
}

static const char example[] =
    "{\"listen\":["
    "{\"name\":\"front\",\"address\":\"0.0.0.0:3128\",\"proxy_protocol\":true},"
    "{\"address\":\"0.0.0.0:3129\",\"tls\":{\"cert\":\"gw.pem\",\"key\":\"/abs/gw.key\",\"client_ca\":null}}],"
    "\"workers\":3,\"user\":\"nobody\","
    "\"auth\":{\"keys\":\"certs/jwks.json\",\"issuer\":null,\"audience\":\"sallyport\",\"leeway_s\":30,\"max_lifetime_s\":86400,"
    "\"revoked\":\"revoked.json\",\"embedded_policies\":\"any\",\"allow_hmac\":false},"
    "\"policies\":\"policies/\",\"default_policy\":null,\"registries\":\"policies/registries.json\","
    "\"platform_hosts\":[\"api.example.com\"],\"blocked_hosts\":[],\"default_ports\":[80,443],\"tls_ports\":[443],\"plain_ports\":[80],"
    "\"inspect\":{\"mode\":\"off\",\"ca\":\"certs/ca\",\"passthrough\":[],\"ech\":\"refuse\",\"deny_in_tunnel\":false},"
    "\"upstream\":{\"ca_file\":null,\"hosts\":{\"api.example.test\":[\"127.0.0.1\",\"::1\"]},\"dns_servers\":[\"192.0.2.1\",\"[2001:db8::1]:5353\"],"
    "\"allow_addresses\":[\"10.0.0.0/8\"],\"deny_addresses\":[],\"delegable_addresses\":[],\"dns_timeout_ms\":2000,"
    "\"connect_timeout_ms\":10000,\"parent\":null,\"parent_token_file\":null},"
    "\"record\":{\"path\":\"decisions.jsonl\",\"format\":\"jsonl\",\"durability\":\"synced\",\"rotate_bytes\":0,\"reserve_bytes\":65536,"
    "\"checkpoint_key\":null},"
    "\"admin\":{\"socket\":\"sallyport.sock\",\"address\":null},\"vault\":null,\"shared_state\":null,"
    "\"limits\":{\"head_bytes\":32768,\"head_timeout_ms\":10000,\"idle_timeout_ms\":300000,\"tunnels_per_sandbox\":1024,\"connections\":0}}";

TEST(the_whole_example_loads)
{
    struct settings s = {0};
    struct err err = {0};
    int rc = read_config(example, &s, &err);
    CHECK_THAT(rc == 0, "%s", err.text);
    if (rc < 0)
        return;
    CHECK(s.listener_count == 2 && s.listeners[0].proxy_protocol);
    CHECK_STR(s.listeners[0].name, "front");
    CHECK_STR(s.listeners[1].name, "listener-2");
    CHECK_STR(s.listeners[1].tls_cert, "/etc/sp/gw.pem");
    CHECK_STR(s.listeners[1].tls_key, "/abs/gw.key");
    CHECK(s.listeners[1].tls_client_ca == NULL);
    CHECK(s.workers == 3 && s.embedded == EMBEDDED_ANY && s.ech_refuse && s.durability == DURABILITY_SYNCED);
    CHECK_STR(s.keys_path, "/etc/sp/certs/jwks.json");
    CHECK(s.override_count == 1 && s.overrides[0].count == 2);
    CHECK(s.dns_servers.count == 2 && s.allow_addresses.count == 1 && s.allow_addresses.items[0].bits == 8);
    CHECK(s.platform_hosts.count == 1 && s.platform_hosts.items[1] == NULL);
    CHECK(config_check_available(&s, "c.json", &err) == 0);
    settings_free(&s);
    CHECK(s.listeners == NULL && s.keys_path == NULL);
}

TEST(defaults_are_the_contract)
{
    struct settings s = {0};
    struct err err = {0};
    CHECK_THAT(read_config("{}", &s, &err) == 0, "%s", err.text);
    CHECK(s.listener_count == 0 && s.workers == 0);
    CHECK_STR(s.user, "nobody");
    CHECK_STR(s.audience, "sallyport");
    CHECK(s.issuer == NULL && s.leeway_s == 30 && s.max_lifetime_s == 86400);
    CHECK(s.embedded == EMBEDDED_LIMITED && !s.allow_hmac && s.inspect == INSPECT_OFF && !s.ech_refuse);
    CHECK(s.default_port_count == 2 && s.default_ports[0] == 80 && s.default_ports[1] == 443);
    CHECK(s.tls_port_count == 1 && s.tls_ports[0] == 443 && s.plain_port_count == 1 && s.plain_ports[0] == 80);
    CHECK(s.dns_timeout_ms == 2000 && s.connect_timeout_ms == 10000);
    CHECK_STR(s.record_path, "/etc/sp/decisions.jsonl");
    CHECK(s.durability == DURABILITY_WRITTEN && s.reserve_bytes == 65536 && s.rotate_bytes == 0 && !s.record_query);
    CHECK_STR(s.admin_socket, "/etc/sp/sallyport.sock");
    CHECK(s.head_bytes == 32768 && s.head_timeout_ms == 10000 && s.idle_timeout_ms == 300000 && s.tunnels_per_sandbox == 1024);
    CHECK(s.connections == 0 && s.default_policy == NULL && s.policy_file == NULL);
    /* Nothing listens: that is said when it is to be served. */
    CHECK(config_check_available(&s, "c.json", &err) < 0 && strstr(err.text, "listen"));
    settings_free(&s);
}

TEST(errors_say_where_and_what)
{
    static const struct { const char *text, *want[3]; } cases[] = {
        {"{\"polices\":\"p\"}", {"c.json", "polices", "policies"}},
        {"{\"auth\":{\"key\":\"p\"}}", {"c.json: auth", "key", "keys"}},
        {"{\"policy_file\":\"p\"}", {"policy_file"}},
        {"{\"listen\":[{\"address\":\"0.0.0.0:1\",\"adress\":1}]}", {"listen[0]", "adress", "address"}},
        {"{\"listen\":[{\"address\":\"0.0.0.0\"}]}", {"listen[0].address", "0.0.0.0"}},
        {"{\"listen\":[{\"name\":\"a\"}]}", {"listen[0]", "address or fd"}},
        {"{\"listen\":[{\"address\":\"1.2.3.4:1\",\"fd\":\"x\"}]}", {"listen[0]", "address or fd"}},
        {"{\"listen\":[{\"name\":\"a/b\",\"address\":\"1.2.3.4:1\"}]}", {"listen[0].name", "a/b"}},
        {"{\"listen\":[{\"name\":\"a\",\"address\":\"1.2.3.4:1\"},{\"name\":\"a\",\"address\":\"1.2.3.4:2\"}]}", {"listen[1]", "second"}},
        {"{\"listen\":[{\"address\":\"1.2.3.4:1\",\"kind\":\"sock\"}]}", {"listen[0].kind", "\"transparent\""}},
        {"{\"listen\":[{\"address\":\"1.2.3.4:1\",\"kind\":\"dns\"}]}", {"listen[0]", "token"}},
        {"{\"listen\":[{\"address\":\"1.2.3.4:1\",\"tls\":{\"cert\":\"x\"}}]}", {"listen[0].tls", "key"}},
        {"{\"listen\":[{\"address\":\"1.2.3.4:1\",\"token_file\":\"x\",\"token_fd\":\"y\"}]}", {"listen[0]", "either"}},
        {"{\"workers\":65}", {"workers"}},
        {"{\"workers\":\"2\"}", {"workers"}},
        {"{\"auth\":[]}", {"auth", "object"}},
        {"{\"auth\":{\"embedded_policies\":\"all\"}}", {"auth.embedded_policies", "\"limited\""}},
        {"{\"record\":{\"durability\":\"\"}}", {"record.durability", "\"written\""}},
        {"{\"record\":{\"durability\":null}}", {"record.durability", "\"written\""}},
        {"{\"record\":{\"path\":\"\"}}", {"record.path", "empty"}},
        {"{\"default_ports\":[0]}", {"default_ports[0]"}},
        {"{\"default_ports\":[65536]}", {"default_ports[0]"}},
        {"{\"default_ports\":80}", {"default_ports", "array"}},
        {"{\"default_policy\":\"../x\"}", {"default_policy", "../x"}},
        {"{\"upstream\":{\"hosts\":{\"a b\":[\"127.0.0.1\"]}}}", {"upstream.hosts", "a b"}},
        {"{\"upstream\":{\"hosts\":{\"a.example.test\":[]}}}", {"a.example.test", "at least one"}},
        {"{\"upstream\":{\"hosts\":{\"a.example.test\":[\"0x7f.1\"]}}}", {"a.example.test[0]", "0x7f.1"}},
        {"{\"upstream\":{\"allow_addresses\":[\"10.0.0.1/8\"]}}", {"upstream.allow_addresses[0]", "10.0.0.1/8"}},
        {"{\"upstream\":{\"dns_servers\":[\"dns.example\"]}}", {"upstream.dns_servers[0]", "dns.example"}},
        {"{\"platform_hosts\":[null]}", {"platform_hosts[0]"}},
        {"{\"platform_hosts\":[1]}", {"platform_hosts[0]", "string"}},
        {"{\"vault\":\"dir\"}", {"vault", "not available"}},
        {"{\"shared_state\":{}}", {"shared_state", "not available"}},
        {"{\"limits\":{\"head_bytes\":1}}", {"limits.head_bytes"}},
        {"[]", {"c.json", "object"}},
        {"{\"workers\":1,\"workers\":2}", {"c.json"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct settings s = {0};
        struct err err = {0};
        CHECK_THAT(read_config(cases[i].text, &s, &err) < 0, "%s", cases[i].text);
        CHECK_THAT(err.kind == ERR_INVALID, "%s", cases[i].text);
        for (size_t k = 0; k < 3 && cases[i].want[k]; k++)
            CHECK_THAT(strstr(err.text, cases[i].want[k]), "\"%s\" does not hold \"%s\"", err.text, cases[i].want[k]);
        CHECK(s.listeners == NULL);
    }
}

TEST(too_many_are_refused)
{
    char text[8192] = "{\"listen\":[";
    struct settings s = {0};
    struct err err = {0};
    for (int i = 0; i <= CONFIG_LISTENERS_MAX; i++)
        sprintf(text + strlen(text), "%s{\"address\":\"127.0.0.1:%d\"}", i ? "," : "", 1000 + i);
    strcat(text, "]}");
    CHECK(read_config(text, &s, &err) < 0 && strstr(err.text, "at most 32"));
    strcpy(text, "{\"tls_ports\":[");
    for (int i = 0; i < 65; i++)
        sprintf(text + strlen(text), "%s%d", i ? "," : "", 1000 + i);
    strcat(text, "]}");
    CHECK(read_config(text, &s, &err) < 0 && strstr(err.text, "at most 64"));
}

TEST(inspection_needs_a_ca)
{
    struct settings s = {0};
    struct err err = {0};
    CHECK(read_config("{\"listen\":[{\"address\":\"127.0.0.1:1\"}],\"inspect\":{\"mode\":\"listed\"}}", &s, &err) == 0);
    CHECK(s.inspect == INSPECT_LISTED);
    CHECK(config_check_available(&s, "c.json", &err) == 0);
    settings_free(&s);
    CHECK(read_config("{\"listen\":[{\"address\":\"127.0.0.1:1\"}],\"inspect\":{\"mode\":\"all\",\"ca\":null}}", &s, &err) == 0);
    CHECK(config_check_available(&s, "c.json", &err) < 0 && strstr(err.text, "inspect.ca") && err.kind == ERR_INVALID);
    settings_free(&s);
}

TEST(the_command_line_goes_over_the_file)
{
    struct settings s = {0};
    struct err err = {0};
    json_t *root = json_loads("{\"auth\":{\"audience\":\"a\",\"issuer\":\"i\"}}", 0, NULL);
    config_set(root, "auth.audience", json_string("b"));
    config_set(root, "record.path", json_string("/r"));
    config_set(root, "policy_file", json_string("/p"));
    CHECK(config_read(root, "c.json", "/base", &s, &err) == 0);
    CHECK_STR(s.audience, "b");
    CHECK_STR(s.issuer, "i");
    CHECK_STR(s.record_path, "/r");
    CHECK_STR(s.policy_file, "/p");
    settings_free(&s);
    json_decref(root);
}

TEST(paths_stand_on_the_files_folder)
{
    static const struct { const char *base, *want; } cases[] = {{NULL, "x.json"}, {"", "x.json"}, {".", "x.json"}, {"conf", "conf/x.json"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct settings s = {0};
        struct err err = {0};
        json_t *root = json_loads("{\"auth\":{\"keys\":\"x.json\"}}", 0, NULL);
        CHECK(config_read(root, "c.json", cases[i].base, &s, &err) == 0);
        CHECK_STR(s.keys_path, cases[i].want);
        settings_free(&s);
        json_decref(root);
    }
}

TEST(what_only_a_restart_changes_stays)
{
    char text[256];
    json_t *old = json_loads("{\"workers\":2,\"record\":{\"path\":\"a\",\"rotate_bytes\":1}}", 0, NULL);
    json_t *new = json_loads("{\"workers\":3,\"user\":\"x\",\"record\":{\"path\":\"b\",\"rotate_bytes\":2},\"policies\":\"q\"}", 0, NULL);
    config_keep_fixed(old, new, text, sizeof text);
    CHECK_STR(text, "workers, user, record.path");
    CHECK(json_integer_value(json_object_get(new, "workers")) == 2);
    CHECK(json_object_get(new, "user") == NULL);
    CHECK_STR(json_string_value(json_object_get(json_object_get(new, "record"), "path")), "a");
    CHECK(json_integer_value(json_object_get(json_object_get(new, "record"), "rotate_bytes")) == 2);
    CHECK_STR(json_string_value(json_object_get(new, "policies")), "q");
    config_keep_fixed(old, new, text, sizeof text);
    CHECK_STR(text, "");
    json_decref(old);
    json_decref(new);
}

TEST(names)
{
    CHECK(config_name_ok(slice_str("a.b-c_D9")));
    CHECK(!config_name_ok(slice_str("")));
    CHECK(!config_name_ok(slice_str(".a")));
    CHECK(!config_name_ok(slice_str("a/b")));
    CHECK(!config_name_ok(slice_str("a b")));
    CHECK(!config_name_ok(slice_of("a\0b", 3)));
    char longest[130];
    memset(longest, 'a', sizeof longest);
    CHECK(config_name_ok(slice_of(longest, 128)));
    CHECK(!config_name_ok(slice_of(longest, 129)));
}
