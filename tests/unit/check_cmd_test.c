/* `sallyport check` and `sallyport policy` on real files. The commands are not in the library: their sources are taken in
 * here, two of them with names of their own for what they share. */
#include "unit/test.h"

#include <sys/stat.h>
#include <unistd.h>

#include "../../src/cmd/options.c"
#define usage check_usage
#define run check_run
#include "../../src/cmd/check.c"
#undef usage
#undef run
#define finish policy_finish
#include "../../src/cmd/policy.c"
#include "../../src/cmd/policies.c"

static char folder[] = "/tmp/sallyport-check-XXXXXX";
static char output[1 << 18];
static const char *const names[] = {"p.json", "q.json", "c.json", "cases.json", "in.txt", "out.txt", NULL};

__attribute__((constructor)) static void
make_folder(void)
{
    if (!mkdtemp(folder) || chdir(folder) != 0)
        abort();
}

__attribute__((destructor)) static void
drop_folder(void)
{
    for (size_t i = 0; names[i]; i++)
        unlink(names[i]);
    rmdir(folder);
}

static void
put(const char *name, const char *text)
{
    FILE *f = fopen(name, "w");
    if (!f || fputs(text, f) < 0 || fclose(f) != 0 || chmod(name, 0644) != 0)
        abort();
}

/* Both outputs go to one file; the arguments are cut at blanks. */
static int
command(int (*fn)(int, char **), const char *line)
{
    char text[1024], *argv[32];
    int argc = 0, out = dup(1), err = dup(2);
    snprintf(text, sizeof text, "%s", line);
    for (char *save = NULL, *s = strtok_r(text, " ", &save); s && argc < 31; s = strtok_r(NULL, " ", &save))
        argv[argc++] = s;
    argv[argc] = NULL;
    fflush(stdout);
    if (!freopen("out.txt", "w", stdout))
        abort();
    dup2(1, 2);
    int status = fn(argc, argv);
    fflush(stdout);
    dup2(out, 1);
    dup2(err, 2);
    close(out);
    close(err);
    FILE *f = fopen("out.txt", "r");
    size_t len = f ? fread(output, 1, sizeof output - 1, f) : 0;
    output[len] = '\0';
    if (f)
        fclose(f);
    return status;
}

static const char policy[] = "{\"networking\": {\"type\": \"limited\", \"allowed_hosts\": [\"api.example.com\", \"db.example.com:5432\", \"*.example.org\"]},"
    "\"blocked_hosts\": [\"no.example.org\"],"
    "\"rules\": [{\"id\": \"read\", \"host\": \"plain.example.com\", \"scheme\": \"http\", \"methods\": [\"GET\"], \"path\": \"^/a/\", \"action\": \"allow\"}]}";

#define SAYS(word) CHECK_THAT(strstr(output, word), "\"%s\" is not in:\n%s", word, output)

TEST(answers_say_decision_reason_rule_and_what_to_do)
{
    put("p.json", policy);
    CHECK(command(cmd_check, "check --policy p.json api.example.com API.Example.com.:443 https://x.example.org/y") == 0);
    SAYS("allow  api.example.com  ok: allowed by allowed_hosts[0] (policy)");
    SAYS("allow  https://x.example.org/y  ok: allowed by allowed_hosts[2] (policy), as a tunnel: method and path are not seen");
    CHECK(command(cmd_check, "check --policy p.json api.example.com evil.example.net") == 1);
    SAYS("deny   evil.example.net  host_not_allowed: the policy does not open this host; add the host to networking.allowed_hosts");
    CHECK(command(cmd_check, "check --policy p.json api.example.com:22") == 1);
    SAYS("port_not_allowed");
    CHECK(command(cmd_check, "check --policy p.json no.example.org") == 1);
    SAYS("host_blocked: the host is on a list of blocked hosts, by blocked_hosts[0]");
    CHECK(command(cmd_check, "check --policy p.json http://plain.example.com/a/b") == 0);
    CHECK(command(cmd_check, "check --policy p.json --method POST http://plain.example.com/a/b") == 1);
    SAYS("method_not_allowed");
    CHECK(command(cmd_check, "check --policy p.json http://plain.example.com/b") == 1);
    SAYS("path_not_allowed");
    CHECK(command(cmd_check, "check --policy p.json --method TRACE http://plain.example.com/a/") == 1);
    SAYS("method_not_allowed");
    CHECK(command(cmd_check, "check --policy p.json plain.example.com:80") == 1);
}

TEST(targets_without_a_canonical_form_are_denied)
{
    static const char *const bad[] = {"127.1", "a..example.com", "api.example.com:443:443", "user@api.example.com", "[::1%25lo]", "http://api.example.com:0/", "https://api.example.com:99999/",
                                      "https://user@api.example.com/", "https:///x", "ftp://api.example.com/", "http://", "https://api.example.com\\@evil/"};
    put("p.json", policy);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char line[256];
        snprintf(line, sizeof line, "check --policy p.json %s", bad[i]);
        CHECK_THAT(command(cmd_check, line) == 1, "%s", bad[i]);
        SAYS("request_malformed");
    }
}

TEST(an_address_is_judged_as_if_the_host_resolved_so)
{
    put("p.json", policy);
    CHECK(command(cmd_check, "check --policy p.json --address 8.8.8.8 api.example.com") == 0);
    CHECK(command(cmd_check, "check --policy p.json --address 10.0.0.1 api.example.com") == 1);
    SAYS("address_not_allowed: 10.0.0.1 is private use");
    CHECK(command(cmd_check, "check --policy p.json --address ::ffff:169.254.169.254 api.example.com") == 1);
    CHECK(command(cmd_check, "check --policy p.json --address 127.1 api.example.com") == 2);
    CHECK(command(cmd_check, "check --policy p.json --address 10.0.0.1 evil.example.net") == 1);
    SAYS("host_not_allowed");
}

TEST(standard_input_is_a_list_of_targets)
{
    put("p.json", policy);
    put("in.txt", "# a comment\n\napi.example.com\r\n  x.example.org  \nevil.example.net");
    if (!freopen("in.txt", "r", stdin))
        abort();
    CHECK(command(cmd_check, "check --policy p.json -") == 1);
    SAYS("allow  api.example.com  ok");
    SAYS("allow  x.example.org  ok");
    SAYS("deny   evil.example.net");
    CHECK(!strstr(output, "comment"));
}

TEST(cases_pass_and_fail)
{
    put("p.json", policy);
    put("cases.json", "[{\"target\": \"api.example.com\", \"expect\": \"allow\", \"rule\": \"allowed_hosts[0]\"},"
                      "{\"target\": \"http://plain.example.com/a/\", \"method\": \"POST\", \"expect\": \"deny\", \"reason\": \"method_not_allowed\"},"
                      "{\"target\": \"http://plain.example.com/a/\", \"expect\": \"allow\", \"rule\": \"rules[0]\", \"note\": \"without the id\"},"
                      "{\"target\": \"api.example.com\", \"address\": \"10.0.0.1\", \"expect\": \"deny\", \"reason\": \"address_not_allowed\"}]");
    CHECK(command(cmd_check, "check --policy p.json --cases cases.json") == 0);
    SAYS("4 of 4 cases passed");
    put("cases.json", "[{\"target\": \"api.example.com\", \"expect\": \"deny\"}, {\"target\": \"evil.example.net\", \"expect\": \"deny\", \"reason\": \"host_blocked\"}, {\"target\": \"db.example.com:5432\", \"expect\": \"allow\"}]");
    CHECK(command(cmd_check, "check --policy p.json --cases cases.json") == 1);
    SAYS("FAIL  api.example.com  expected deny, got allow ok by allowed_hosts[0]");
    SAYS("FAIL  evil.example.net  expected deny host_blocked, got deny host_not_allowed");
    SAYS("1 of 3 cases passed");
    static const char *const bad[] = {"{}", "[{\"target\": \"a.example.com\"}]", "[{\"target\": \"a\", \"expect\": \"maybe\"}]", "[{\"target\": \"a\", \"expect\": \"deny\", \"reasn\": \"x\"}]",
                                      "[{\"target\": \"a\", \"expect\": \"deny\", \"reason\": \"no_such\"}]", "[", "[7]"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        put("cases.json", bad[i]);
        CHECK_THAT(command(cmd_check, "check --policy p.json --cases cases.json") == 2, "%s", bad[i]);
        SAYS("cases.json");
    }
}

TEST(bad_input_is_said_with_file_and_path)
{
    put("p.json", "{\"networking\": {\"alowed_hosts\": []}}");
    CHECK(command(cmd_check, "check --policy p.json a.example.com") == 2);
    SAYS("sallyport: p.json: networking: unknown key \"alowed_hosts\"; did you mean \"allowed_hosts\"?");
    CHECK(command(cmd_check, "check --policy none.json a.example.com") == 2);
    CHECK(command(cmd_check, "check a.example.com") == 2);
    CHECK(command(cmd_check, "check --policy p.json") == 2);
    CHECK(command(cmd_check, "check --polcy p.json a.example.com") == 2);
    SAYS("did you mean --policy?");
    put("p.json", policy);
    chmod("p.json", 0666);
    CHECK(command(cmd_check, "check --policy p.json api.example.com") == 2);
    chmod("p.json", 0644);
    CHECK(command(cmd_check, "check --help") == 0);
    SAYS("usage: sallyport check");
}

TEST(json_answers)
{
    put("p.json", policy);
    CHECK(command(cmd_check, "check --policy p.json --json api.example.com [::1 evil.example.net") == 1);
    json_t *value = json_loads(output, 0, NULL);
    CHECK(json_array_size(value) == 3);
    CHECK_STR(json_string_value(json_object_get(json_array_get(value, 0), "decision")), "allow");
    CHECK_STR(json_string_value(json_object_get(json_array_get(value, 0), "rule")), "allowed_hosts[0]");
    CHECK_STR(json_string_value(json_object_get(json_array_get(value, 0), "canonical")), "api.example.com:443");
    CHECK_STR(json_string_value(json_object_get(json_array_get(value, 1), "reason")), "request_malformed");
    CHECK(json_is_null(json_object_get(json_array_get(value, 1), "host")));
    json_decref(value);
}

TEST(the_configuration_is_the_operators_side)
{
    put("p.json", policy);
    put("c.json", "{\"blocked_hosts\": [\"api.example.com\"], \"platform_hosts\": [\"plat.example.com\"], \"default_ports\": [443, 8443], \"upstream\": {\"hosts\": {\"x.example.org\": [\"127.0.0.9\"], \"y.example.org\": [\"10.0.0.1\"]},"
                  "\"allow_addresses\": [\"127.0.0.9\"]}}");
    CHECK(command(cmd_check, "check --config c.json --policy p.json api.example.com") == 1);
    SAYS("host_blocked");
    CHECK(command(cmd_check, "check --config c.json --policy p.json plat.example.com x.example.org:8443") == 0);
    CHECK(command(cmd_check, "check --config c.json --policy p.json y.example.org") == 1);
    SAYS("address_not_allowed: 10.0.0.1");
    put("c.json", "{\"blocked_host\": []}");
    CHECK(command(cmd_check, "check --config c.json --policy p.json api.example.com") == 2);
}

TEST(policy_sub_commands)
{
    put("p.json", policy);
    put("q.json", "{\"networking\": {\"allowed_hosts\": [\"api.example.com\"]}}");
    CHECK(command(cmd_policy, "policy scope p.json") == 0);
    SAYS("rules[0] read  http GET ^/a/");
    SAYS("4 entries are open");
    CHECK(command(cmd_policy, "policy lint q.json") == 0);
    SAYS("q.json: 0 warnings");
    put("p.json", "{\"networking\": {\"allowed_hosts\": [\"api.example.com\", \"a.example.com:25\"]}}");
    CHECK(command(cmd_policy, "policy lint p.json") == 1);
    SAYS("p.json: networking.allowed_hosts[1]: warning: port 25 is mail (SMTP)");
    CHECK(command(cmd_policy, "policy diff q.json p.json") == 1);
    SAYS("+ tunnel a.example.com:25  allowed_hosts[1]");
    CHECK(command(cmd_policy, "policy diff p.json q.json") == 0);
    SAYS("- tunnel a.example.com:25");
    CHECK(command(cmd_policy, "policy diff --json q.json p.json") == 1);
    json_t *value = json_loads(output, 0, NULL);
    CHECK(json_array_size(value) > 0);
    json_decref(value);
    CHECK(command(cmd_policy, "policy scop p.json") == 2);
    SAYS("expected lint, scope or diff");
    CHECK(command(cmd_policy, "policy scope") == 2 && command(cmd_policy, "policy") == 2);
    CHECK(command(cmd_policy, "policy scope none.json") == 2);
}
