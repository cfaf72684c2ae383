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
#include "../../src/cmd/log_lines.c"
#include "../../src/cmd/policy_records.c"
#include "../../src/cmd/policy_replay.c"
#include "../../src/cmd/policy_suggest.c"

static char folder[] = "/tmp/sallyport-check-XXXXXX";
static char output[1 << 18];
static const char *const names[] = {"p.json", "q.json", "c.json", "cases.json", "in.txt", "out.txt", "d", "d.000000000001", "r.json", NULL};

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
    SAYS("expected lint, scope, diff, suggest or replay");
    CHECK(command(cmd_policy, "policy scope") == 2 && command(cmd_policy, "policy") == 2);
    CHECK(command(cmd_policy, "policy scope none.json") == 2);
}

/* ---- old records ---- */

static char records[65536];

/* Lines as the gate writes them, as far as replay and suggest read them. */
__attribute__((format(printf, 6, 7))) static void
add(const char *sandbox, const char *entry, const char *host, int port, const char *reason, const char *more, ...)
{
    char text[1024];
    size_t len = strlen(records);
    va_list args;
    va_start(args, more);
    vsnprintf(text, sizeof text, more, args);
    va_end(args);
    snprintf(records + len, sizeof records - len,
             "{\"ts\":\"2026-11-20T18:08:24.471461Z\",\"seq\":1,\"event\":\"decision\",\"sandbox\":\"%s\",\"entry\":\"%s\",\"host\":\"%s\","
             "\"port\":%d,\"decision\":\"%s\",\"reason\":\"%s\"%s%s}\n",
             sandbox, entry, host, port, strcmp(reason, "ok") == 0 ? "allow" : "deny", reason, text[0] ? "," : "", text);
}
#define TUNNEL(host, port, reason) add("s1", "connect", host, port, reason, "\"method\":\"CONNECT\",\"path\":null")

static void
put_records(const char *name)
{
    put(name, records);
    records[0] = '\0';
}

static json_t *
output_json(void)
{
    json_t *value = json_loads(output, 0, NULL);
    CHECK_THAT(value, "%s", output);
    return value ? value : json_object();
}

#define SAYS_NOT(word) CHECK_THAT(!strstr(output, word), "\"%s\" is in:\n%s", word, output)

TEST(replay_says_what_would_change)
{
    put("p.json", policy);
    TUNNEL("api.example.com", 443, "ok");
    TUNNEL("old.example.net", 443, "ok");
    put_records("d.000000000001");
    TUNNEL("old.example.net", 443, "ok");
    TUNNEL("a.example.org", 443, "host_not_allowed");
    TUNNEL("no.example.org", 443, "ok");
    TUNNEL("api.example.com", 8443, "port_not_allowed");
    add("s1", "forward", "plain.example.com", 80, "ok", "\"method\":\"GET\",\"path\":\"/a/b\"");
    add("s1", "forward", "plain.example.com", 80, "ok", "\"method\":\"POST\",\"path\":\"/a/b\"");
    add("s1", "forward", "plain.example.com", 80, "path_not_allowed", "\"method\":\"GET\",\"path\":\"/a/c\"");
    add("s1", "forward", "plain.example.com", 80, "ok", "\"method\":\"TRACE\",\"path\":\"/\\u0007\"");
    put_records("d");
    CHECK(command(cmd_policy, "policy replay --policy p.json d") == 1);
    SAYS("- tunnel old.example.net:443  was allowed, would be denied: host_not_allowed  2 times\n");
    SAYS("- tunnel no.example.org:443  was allowed, would be denied: host_blocked, by blocked_hosts[0]  1 time\n");
    SAYS("+ tunnel a.example.org:443  was denied (host_not_allowed), would be allowed, by allowed_hosts[2]  1 time\n");
    SAYS("- http POST plain.example.com:80/a/b  was allowed, would be denied: method_not_allowed");
    SAYS("+ http GET plain.example.com:80/a/c  was denied (path_not_allowed), would be allowed, by rules[0] read");
    SAYS("- http TRACE plain.example.com:80/\\x07  was allowed");
    SAYS_NOT("http GET plain.example.com:80/a/b");
    SAYS_NOT(":8443");
    SAYS("10 decisions judged: 5 allowed before would be denied, 2 denied before would be allowed\n");
    SAYS("note: 6 tunnels judged by host and port: the record of a tunnel holds no method and no path");
    CHECK(command(cmd_policy, "policy replay --json --policy p.json d") == 1);
    json_t *all = output_json(), *changes = json_object_get(all, "changes");
    CHECK(json_integer_value(json_object_get(all, "judged")) == 10 && json_array_size(changes) == 6);
    CHECK_STR(json_string_value(json_object_get(json_array_get(changes, 0), "host")), "no.example.org");
    CHECK_STR(json_string_value(json_object_get(json_array_get(changes, 0), "change")), "denied");
    CHECK_STR(json_string_value(json_object_get(json_array_get(changes, 5), "change")), "allowed");
    json_decref(all);
    TUNNEL("api.example.com", 443, "ok");
    put_records("d");
    unlink("d.000000000001");
    CHECK(command(cmd_policy, "policy replay --policy p.json d") == 0);
    SAYS("1 decision judged: 0 allowed");
}

TEST(replay_judges_only_what_records_hold)
{
    put("p.json", policy);
    TUNNEL("x.example.net", 443, "token_expired");
    TUNNEL("x.example.org", 443, "address_not_allowed");
    TUNNEL("x.example.net", 443, "address_not_allowed"); /* denied either way */
    add("s1", "forward", "plain.example.com", 80, "ok", "\"method\":\"GET\",\"path\":\"/b\",\"path_truncated\":true");
    add("s1", "forward", "plain.example.com", 80, "ok", "\"method\":\"GET\",\"path\":null");
    add("s1", "connect", "127.1", 443, "host_not_allowed", "%s", "");
    add("s1", "smoke", "api.example.com", 443, "ok", "%s", "");
    add("s1", "connect", "api.example.com", 443, "ok", "\"addresses\":[\"8.8.8.8\",\"10.0.0.1\"]");
    add("s1", "dns", "y.example.org", 0, "host_not_allowed", "%s", "");
    add("s1", "dns", "db.example.com", 0, "host_not_allowed", "%s", "");
    add("s1", "dns", "y.example.net", 0, "host_not_allowed", "%s", "");
    put_records("d");
    FILE *f = fopen("d", "a");
    fputs("{\"ts\":\"t\",\"event\":\"repeated\",\"sandbox\":\"s1\",\"reason\":\"host_not_allowed\",\"host\":\"z.example.org\",\"count\":7}\n"
          "{\"ts\":\"t\",\"event\":\"start\"}\n{\"ts\":\"20", f);
    fclose(f);
    CHECK(command(cmd_policy, "policy replay --policy p.json d") == 1);
    SAYS("- tunnel api.example.com:443  was allowed, would be denied: address_not_allowed  1 time");
    SAYS("+ name y.example.org  was denied");
    SAYS("+ name db.example.com  was denied");
    SAYS("5 decisions judged: 1 allowed before would be denied, 2 denied before");
    SAYS("note: 1 refusal of an address left out");
    SAYS("note: 7 refusals folded");
    SAYS("note: 1 refusal left out that no allowlist decides");
    SAYS("note: 4 decisions left out: the record is cut");
    SAYS("note: 1 torn line ");
}

TEST(replay_looks_inside_only_what_the_policy_inspects)
{
    const char *inspecting = "{\"networking\": {\"allowed_hosts\": [\"b.example.com\"]}, \"inspect\": {\"mode\": \"listed\"}, \"rules\": [{\"host\": \"a.example.com\", "
                             "\"methods\": [\"GET\"], \"path\": \"^/r/\", \"action\": \"allow\"}]}";
    put("c.json", "{\"inspect\": {\"mode\": \"listed\", \"ca\": \"ca\"}}");
    put("p.json", inspecting);
    add("s1", "connect", "a.example.com", 443, "ok", "\"method\":\"CONNECT\",\"inspect\":true");
    add("s1", "inspected", "a.example.com", 443, "ok", "\"method\":\"GET\",\"path\":\"/r/x\"");
    add("s1", "inspected", "a.example.com", 443, "ok", "\"method\":\"PUT\",\"path\":\"/r/x\"");
    add("s1", "inspected", "b.example.com", 443, "method_not_allowed", "\"method\":\"PUT\",\"path\":\"/\"");
    add("s1", "connect", "a.example.com", 443, "ok", "\"method\":\"CONNECT\",\"inspect\":false");
    put_records("d");
    CHECK(command(cmd_policy, "policy replay --config c.json --policy p.json d") == 1);
    SAYS("- https PUT a.example.com:443/r/x  was allowed, would be denied: method_not_allowed");
    SAYS("+ https PUT b.example.com:443/  was denied (method_not_allowed), would be allowed, by allowed_hosts[0]");
    SAYS("5 decisions judged: 1 allowed");
    SAYS("note: 1 tunnel would be inspected");
    SAYS("note: 1 request inside a tunnel that would not be inspected");
}

TEST(replay_refuses_bad_input)
{
    put("p.json", policy);
    TUNNEL("api.example.com", 443, "ok");
    put_records("d");
    CHECK(command(cmd_policy, "policy replay d") == 2 && command(cmd_policy, "policy replay --policy p.json") == 2);
    CHECK(command(cmd_policy, "policy replay --policy none.json d") == 2 && command(cmd_policy, "policy replay --policy p.json none") == 2);
    CHECK(command(cmd_policy, "policy replay --policy p.json --sandbox s2 d") == 2);
    SAYS("no decision of a sandbox \"s2\"");
    CHECK(command(cmd_policy, "policy replay --policy p.json --sandbox s1 d") == 0);
    CHECK(command(cmd_policy, "policy lint --policy p.json p.json") == 2 && command(cmd_policy, "policy replay --policy p.json --denied d") == 2);
    CHECK(command(cmd_policy, "policy scope --sandbox s1 p.json") == 2);
    TUNNEL("api.example.com", 443, "ok");
    strcat(records, "{\"event\":\"decision\",\"decision\":\"perhaps\"}\n");
    put_records("d");
    CHECK(command(cmd_policy, "policy replay --policy p.json d") == 2);
    SAYS("d:2: no decision record");
    CHECK(command(cmd_policy, "policy suggest d") == 2);
}

/* The proposal, without the comments that stand in the same output. */
static json_t *
proposal(void)
{
    const char *begin = strstr(output, "{\n");
    json_t *value = begin ? json_loads(begin, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
    CHECK_THAT(value, "%s", output);
    return value ? value : json_object();
}

static void
check_entries(const json_t *document, const char *wanted)
{
    char text[2048] = "";
    const json_t *list = json_object_get(json_object_get(document, "networking"), "allowed_hosts");
    for (size_t i = 0; i < json_array_size(list); i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i ? " " : "", json_string_value(json_array_get(list, i)));
    CHECK_STR(text, wanted);
}

TEST(suggest_proposes_what_was_asked_for)
{
    TUNNEL("b.example.com", 443, "ok");
    TUNNEL("a.example.com", 443, "ok");
    TUNNEL("a.example.com", 443, "ok");
    TUNNEL("a.example.com", 8443, "ok");
    TUNNEL("db.example.net", 5432, "ok");
    TUNNEL("8.8.8.8", 443, "ok");
    TUNNEL("10.0.0.1", 443, "ok");             /* the guard's */
    TUNNEL("x.internal", 443, "ok");           /* a special name */
    TUNNEL("c.example.com", 443, "ok");
    TUNNEL("c.example.com", 443, "address_not_allowed");
    TUNNEL("d.example.com", 443, "host_not_allowed");
    TUNNEL("d.example.com", 22, "port_not_allowed");
    TUNNEL("e.example.com", 443, "host_blocked");
    TUNNEL("e.example.com", 443, "host_not_allowed");
    add("s1", "connect", "f.example.com", 443, "host_not_allowed", "\"rule\":\"rules[1] no\"");
    add("s2", "connect", "g.example.com", 443, "host_not_allowed", "%s", "");
    add("s2", "dns", "h.example.com", 0, "host_not_allowed", "%s", "");
    put_records("d");
    CHECK(command(cmd_policy, "policy suggest d") == 0);
    json_t *p = proposal();
    check_entries(p, "8.8.8.8 a.example.com a.example.com:8443 b.example.com db.example.net:5432");
    SAYS("# left out: 3 hosts refused by a blocked list, by the address guard or as a special name");
    json_dump_file(p, "q.json", 0);
    chmod("q.json", 0644);
    json_decref(p);
    CHECK(command(cmd_check, "check --policy q.json a.example.com a.example.com:8443 b.example.com db.example.net:5432 8.8.8.8") == 0);
    CHECK(command(cmd_policy, "policy replay --policy q.json d") == 1);
    SAYS_NOT("+ ");
    CHECK(command(cmd_policy, "policy suggest --denied d") == 0);
    p = proposal();
    check_entries(p, "d.example.com d.example.com:22 g.example.com h.example.com");
    json_decref(p);
    SAYS("# left out: 1 host refused by a rule");
    CHECK(command(cmd_policy, "policy suggest --denied --sandbox s2 --json d") == 0);
    p = output_json();
    check_entries(json_object_get(p, "policy"), "g.example.com h.example.com");
    CHECK(json_integer_value(json_object_get(json_object_get(p, "counts"), "entries")) == 2);
    CHECK(json_array_size(json_object_get(p, "notes")) >= 1);
    json_decref(p);
    CHECK(command(cmd_policy, "policy suggest --sandbox s3 d") == 2 && command(cmd_policy, "policy suggest") == 2);
    CHECK(command(cmd_policy, "policy suggest --wildcard 1 d") == 2 && command(cmd_policy, "policy suggest --wildcard x d") == 2);
}

TEST(suggest_invents_no_wildcard_lightly)
{
    for (int i = 0; i < 5; i++) {
        char host[64];
        static const char *const domains[] = {"w.example.com", "co.uk", "github.io", "example.org"};
        for (size_t k = 0; k < 4; k++) {
            snprintf(host, sizeof host, "n%d.%s", i, domains[k]);
            TUNNEL(host, 443, "ok");
        }
    }
    TUNNEL("other.example.com", 443, "ok");
    TUNNEL("bad.example.org", 443, "host_not_allowed");
    put_records("d");
    CHECK(command(cmd_policy, "policy suggest d") == 0);
    SAYS("\"*.w.example.com\"");
    SAYS("# *.w.example.com stands for 5 names, and opens every other name below that domain too");
    SAYS("\"other.example.com\"");
    SAYS_NOT("\"n0.w.example.com\"");
    SAYS("\"n4.co.uk\"");
    SAYS("\"n4.github.io\"");
    SAYS("\"n4.example.org\""); /* a name below it was refused */
    SAYS_NOT("\"*.example.com\"");
    CHECK(command(cmd_policy, "policy suggest --wildcard 6 d") == 0);
    SAYS("\"*.example.com\"");
    CHECK(command(cmd_policy, "policy suggest --wildcard 0 d") == 0);
    SAYS_NOT("*.");
}

TEST(suggest_adds_to_a_base)
{
    put("p.json", policy);
    TUNNEL("api.example.com", 443, "host_not_allowed");
    TUNNEL("new.example.com", 443, "host_not_allowed");
    TUNNEL("db.example.com", 443, "port_not_allowed");
    TUNNEL("no.example.org", 443, "host_not_allowed");
    put_records("d");
    CHECK(command(cmd_policy, "policy suggest --denied --base p.json d") == 0);
    json_t *p = proposal();
    check_entries(p, "api.example.com db.example.com:5432 *.example.org db.example.com new.example.com");
    CHECK(json_array_size(json_object_get(p, "rules")) == 1 && json_array_size(json_object_get(p, "blocked_hosts")) == 1);
    json_decref(p);
    CHECK(command(cmd_policy, "policy suggest --base none.json d") == 2);
}

TEST(suggest_knows_package_managers)
{
    put("r.json", "{\"date\": \"2026-01-01\", \"managers\": {"
                  "\"one\": {\"hosts\": {\"example.net\": [\"idx\", \"files\"]}}, \"twin\": {\"hosts\": {\"example.net\": [\"idx\"]}},"
                  "\"plain\": {\"plain_http\": true, \"hosts\": {\"example.net\": [\"deb\"]}},"
                  "\"forge\": {\"named_only\": \"takes writes\", \"hosts\": {\"example.net\": [\"forge\"]}}, \"guest\": {\"hosts\": {\"example.net\": [\"forge\"]}},"
                  "\"more\": {\"hosts\": {\"example.net\": [\"idx\", \"more\"]}},"
                  "\"half\": {\"hosts\": {\"example.net\": [\"h1\", \"h2\"]}}}, \"reads\": {\"more\": {\"date\": \"2026-01-01\", \"hosts\": {\"example.net\": [\"more\"]},"
                  "\"requests\": [{\"methods\": [\"POST\"], \"path\": \"/audit\", \"body\": {}}]}}}");
    put("c.json", "{\"registries\": \"r.json\"}");
    TUNNEL("idx.example.net", 443, "ok");
    TUNNEL("files.example.net", 443, "ok");
    add("s1", "forward", "deb.example.net", 80, "ok", "\"method\":\"GET\",\"path\":\"/\"");
    TUNNEL("forge.example.net", 443, "ok");
    add("s1", "inspected", "more.example.net", 443, "ok", "\"method\":\"POST\",\"path\":\"/audit\"");
    TUNNEL("h1.example.net", 443, "ok");
    put_records("d");
    CHECK(command(cmd_policy, "policy suggest --config c.json d") == 0);
    json_t *p = proposal(), *managers = json_object_get(p, "package_managers");
    check_entries(p, "forge.example.net h1.example.net");
    CHECK(json_array_size(managers) == 3 && json_is_true(json_object_get(json_object_get(p, "networking"), "allow_package_managers")));
    CHECK_STR(json_array_size(managers) ? json_string_value(json_array_get(managers, 0)) : "", "one");
    CHECK_STR(json_array_size(managers) > 1 ? json_string_value(json_array_get(managers, 1)) : "", "plain");
    CHECK_STR(json_array_size(managers) > 2 ? json_string_value(json_array_get(managers, 2)) : "", "more");
    json_decref(p);
    /* What was written to is more than a manager stands for; a list that is switched off stays so. */
    add("s1", "inspected", "files.example.net", 443, "ok", "\"method\":\"POST\",\"path\":\"/\"");
    TUNNEL("idx.example.net", 443, "ok");
    put_records("d");
    CHECK(command(cmd_policy, "policy suggest --config c.json d") == 0);
    p = proposal();
    check_entries(p, "files.example.net");
    json_decref(p);
    put("p.json", "{\"networking\": {\"allowed_hosts\": []}, \"package_managers\": [\"half\"]}");
    CHECK(command(cmd_policy, "policy suggest --config c.json --base p.json d") == 0);
    p = proposal();
    check_entries(p, "files.example.net idx.example.net");
    json_decref(p);
}
