/* `sallyport check`: what a policy does with each target, and why. It calls the functions that the proxy calls (target,
 * token, decide, guard) in the proxy's order and nothing of the network, so that it says what the proxy does. */
#include <stdlib.h>
#include <string.h>

#include "sallyport/base/file.h"
#include "sallyport/base/json.h"
#include "sallyport/base/mem.h"
#include "sallyport/cmd/cmd.h"
#include "sallyport/cmd/policies.h"
#include "sallyport/policy/decide.h"

#define CASES_MAX (8u << 20)
#define CASES_DEPTH 4
#define LINE_SHOWN 512 /* bytes of a target that is no target, repeated in the answer */

static const char usage[] = "sallyport check [--policy FILE | --config FILE | --token FILE --keys JWKS] [options] TARGET…";

struct check_options {
    const char *policy, *policies, *config, *method, *address, *token, *keys, *cases;
    bool json, help;
};

struct check {
    const struct check_options *options;
    struct desk desk;
    struct policy *policy;
    enum reason token_reason; /* REASON_OK without a token */
    char *token_text;         /* "token of sbx-1", or why it was refused; NULL without one */
    json_t *results;          /* --json */
    bool denied;
};

/* One question and its answer. */
struct answer {
    struct slice asked;
    bool has_target, tunnel, seen_inside;
    struct target target;
    struct slice method, path;
    struct verdict verdict;
    char address[ADDR_TEXT_SIZE]; /* the address that was refused */
    const char *address_why;
};

/* ---- from text to target ---- */

/* "host", "host:port" or "[v6]:port": CONNECT's authority, with 443 where a port is left out. */
static enum reason
read_authority(struct slice text, struct answer *a)
{
    char full[LINE_SHOWN];
    const char *bracket = text.len && text.ptr[0] == '[' ? memchr(text.ptr, ']', text.len) : NULL;
    struct slice tail = bracket ? slice_of(bracket, text.len - (size_t)(bracket - text.ptr)) : text;
    int n = snprintf(full, sizeof full, "%.*s%s", SLICE_ARG(text), slice_has_byte(tail, ':') ? "" : ":443");
    if (n < 0 || (size_t)n >= sizeof full || memchr(text.ptr, '\0', text.len))
        return REASON_REQUEST_MALFORMED;
    return target_from_authority(slice_of(full, (size_t)n), &a->target);
}

static enum reason
read_https(struct slice text, struct answer *a)
{
    struct slice rest, authority = slice_split(text, '/', &rest);
    a->path = rest.ptr ? slice_of(rest.ptr - 1, rest.len + 1) : slice_str("/");
    if (!path_is_wellformed(a->path) || slice_has_byte(authority, '@'))
        return REASON_REQUEST_MALFORMED;
    return read_authority(authority, a);
}

static enum reason
read_target(struct answer *a, const char *method)
{
    struct slice text = a->asked;
    enum reason r;
    a->tunnel = true;
    if (slice_starts_with(text, "http://")) {
        a->tunnel = false;
        a->method = slice_str(method ? method : "GET");
        r = target_from_uri(text, &a->target, &a->path);
    } else if (slice_starts_with(text, "https://")) {
        a->method = slice_str(method ? method : "GET");
        r = read_https(slice_of(text.ptr + 8, text.len - 8), a);
    } else {
        r = read_authority(text, a);
    }
    a->has_target = r == REASON_OK;
    return r;
}

/* ---- judging ---- */

/* The methods that the proxy forwards at all, as its pipeline sees them. */
static enum reason
judge_method(const struct policy *p, struct slice m)
{
    static const char *const usual[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++) {
        if (slice_is(m, usual[i]))
            return REASON_OK;
    }
    if (slice_is(m, "TRACE") || slice_is(m, "TRACK"))
        return REASON_METHOD_UNSUPPORTED;
    return policy_knows_method(p, m) ? REASON_OK : REASON_METHOD_UNKNOWN;
}

static void
deny(struct answer *a, enum reason reason)
{
    a->verdict.action = ACTION_DENY;
    a->verdict.reason = reason;
}

/* A tunnel, then, where it opens for inspection, the request inside it. */
static void
decide(struct check *c, struct answer *a)
{
    struct question q = {.target = &a->target};
    enum reason known = a->method.ptr ? judge_method(c->policy, a->method) : REASON_OK;
    if (a->tunnel) {
        policy_decide(c->policy, &q, &a->verdict);
        if (a->verdict.action != ACTION_INSPECT || !a->method.ptr)
            return;
        a->target.scheme = SCHEME_HTTPS;
        a->seen_inside = true;
    }
    if (known != REASON_OK) {
        deny(a, known);
        return;
    }
    q.method = a->method;
    q.path = a->path;
    policy_decide(c->policy, &q, &a->verdict);
}

static void
judge_addresses(struct check *c, struct answer *a, const struct addr *addrs, size_t count)
{
    struct endpoints *e = NULL;
    enum reason r = guard_judge(c->desk.guard, c->policy, &a->target, addrs, count, &e);
    endpoints_free(e);
    if (r == REASON_OK)
        return;
    deny(a, r);
    for (size_t i = 0; i < count && !a->address_why; i++) {
        a->address_why = guard_explain(c->desk.guard, c->policy, &a->target.host, &addrs[i]);
        addr_format(&addrs[i], a->address);
    }
}

/* The addresses that are known without asking anybody: --address, a literal, upstream.hosts. */
static int
guard_answer(struct check *c, struct answer *a, const char *address, struct err *err)
{
    const struct settings *s = &c->desk.settings;
    struct addr given;
    if (a->target.host.kind != HOST_NAME) {
        judge_addresses(c, a, &a->target.host.literal, 1);
        return 0;
    }
    if (address) {
        if (!addr_parse(slice_str(address), &given))
            return err_invalid(err, "\"%s\" is no address; expected an IPv4 or IPv6 address without brackets", address);
        judge_addresses(c, a, &given, 1);
        return 0;
    }
    for (size_t i = 0; i < s->override_count; i++) {
        struct host host;
        if (host_parse(slice_str(s->overrides[i].host), &host) && host_equal(&host, &a->target.host))
            judge_addresses(c, a, s->overrides[i].addrs, s->overrides[i].count);
    }
    return 0;
}

static int
answer(struct check *c, struct slice asked, const char *method, const char *address, struct answer *a, struct err *err)
{
    *a = (struct answer){.asked = asked};
    if (c->token_reason != REASON_OK) {
        deny(a, c->token_reason);
        return 0;
    }
    enum reason r = read_target(a, method);
    if (r != REASON_OK) {
        deny(a, r);
        return 0;
    }
    decide(c, a);
    return a->verdict.action == ACTION_DENY ? 0 : guard_answer(c, a, address, err);
}

/* ---- saying it ---- */

static char *
target_text(const struct answer *a)
{
    char text[TARGET_TEXT_SIZE];
    if (!a->has_target)
        return NULL;
    target_format(&a->target, text);
    return mem_strdup(text);
}

static char *
sentence(const struct check *c, const struct answer *a)
{
    const struct verdict *v = &a->verdict;
    const char *source = source_text(v->source);
    if (c->token_reason != REASON_OK)
        return mem_printf("%s; %s (%s)", reason_meaning(v->reason), reason_advice(v->reason), c->token_text ? c->token_text : "");
    if (a->address_why)
        return mem_printf("%s is %s; %s", a->address, a->address_why, reason_advice(v->reason));
    if (v->action == ACTION_DENY)
        return mem_printf("%s%s%s; %s", reason_meaning(v->reason), v->rule[0] ? ", by " : "", v->rule,
                          v->source == SOURCE_BUILTIN ? "such a name needs an exact entry, and an address from upstream.hosts or private_addresses"
                                                      : reason_advice(v->reason));
    if (v->would_deny)
        return mem_printf("let through by report mode; enforced, it would be %s", reason_text(v->would_reason));
    const char *how = v->action == ACTION_INSPECT ? ", each request inside is judged" : a->tunnel && a->method.ptr && !a->seen_inside ? ", as a tunnel: method and path are not seen" : "";
    if (v->body_max != BODY_ANY_LENGTH && v->body_max)
        return mem_printf("allowed by %s (%s)%s, with at most %llu bytes of content", v->rule, source, how, (unsigned long long)v->body_max);
    return mem_printf("allowed by %s (%s)%s%s", v->rule, source, how, v->body_max ? "" : ", without content");
}

static json_t *
to_json(const struct check *c, const struct answer *a)
{
    cleanup_free char *canonical = target_text(a), *detail = sentence(c, a), *asked = mem_dup_slice(a->asked);
    const struct verdict *v = &a->verdict;
    json_t *asked_text = json_string(asked);
    return json_pack("{s:o, s:s?, s:s?, s:i, s:s, s:s, s:s, s:s, s:b, s:s?, s:s}", "target", asked_text ? asked_text : json_string("(not UTF-8)"),
                     "canonical", canonical, "host", a->has_target ? a->target.host.text : NULL, "port", a->has_target ? (int)a->target.port : 0,
                     "decision", v->action == ACTION_DENY ? "deny" : "allow", "reason", reason_text(v->reason), "rule", v->rule,
                     "source", source_text(v->source), "inspect", v->action == ACTION_INSPECT || a->seen_inside, "would",
                     v->would_deny ? "deny" : NULL, "detail", detail);
}

/* Bytes of standard input may not move the terminal. */
static void
print_plain(struct slice s)
{
    for (size_t i = 0; i < s.len && i < LINE_SHOWN; i++)
        putchar(s.ptr[i] >= 0x20 && s.ptr[i] < 0x7f ? s.ptr[i] : '?');
}

static void
say(struct check *c, const struct answer *a)
{
    c->denied |= a->verdict.action == ACTION_DENY;
    if (c->options->json) {
        json_array_append_new(c->results, to_json(c, a));
        return;
    }
    cleanup_free char *detail = sentence(c, a);
    printf("%s  ", a->verdict.action == ACTION_DENY ? "deny " : "allow");
    print_plain(a->asked);
    printf("  %s: %s\n", reason_text(a->verdict.reason), detail);
}

static int
check_one(struct check *c, struct slice asked, struct err *err)
{
    struct answer a;
    if (answer(c, asked, c->options->method, c->options->address, &a, err) < 0)
        return -1;
    say(c, &a);
    return 0;
}

/* One target a line; empty lines and lines that begin with # are skipped. */
static int
check_stdin(struct check *c, struct err *err)
{
    cleanup_free char *line = NULL;
    size_t size = 0;
    ssize_t len;
    while ((len = getline(&line, &size, stdin)) >= 0) {
        struct slice s = slice_of(line, (size_t)len);
        if (s.len && s.ptr[s.len - 1] == '\n')
            s.len--;
        if (s.len && s.ptr[s.len - 1] == '\r')
            s.len--;
        s = slice_trim_ows(s);
        if (s.len > 0 && s.ptr[0] != '#' && check_one(c, s, err) < 0)
            return -1;
    }
    return 0;
}

static int
check_targets(struct check *c, int argc, char **argv, struct err *err)
{
    for (int i = 1; i < argc; i++) {
        int r = strcmp(argv[i], "-") == 0 ? check_stdin(c, err) : check_one(c, slice_str(argv[i]), err);
        if (r < 0)
            return -1;
    }
    return 0;
}

/* ---- cases ---- */

struct expectation {
    const char *target, *method, *address, *expect, *reason, *rule, *note;
};

static int
read_case(const struct json_at *at, struct expectation *e, struct err *err)
{
    static const char *const members[] = {"target", "method", "address", "expect", "reason", "rule", "note", NULL};
    const char **places[] = {&e->target, &e->method, &e->address, &e->expect, &e->reason, &e->rule, &e->note};

    *e = (struct expectation){.target = NULL};
    if (json_want_object(at, err) < 0 || json_only_members(at, members, err) < 0)
        return -1;
    for (size_t i = 0; members[i]; i++) {
        struct json_at member = json_member(at, members[i]);
        if (json_get_string(&member, places[i], err) < 0)
            return -1;
    }
    if (!e->target || !e->expect)
        return json_fail(at, err, "\"target\" and \"expect\" are both needed");
    if (strcmp(e->expect, "allow") != 0 && strcmp(e->expect, "deny") != 0)
        return json_fail(at, err, "\"expect\" is \"allow\" or \"deny\"");
    if (e->reason && strcmp(e->reason, "ok") != 0 && reason_from_text(slice_str(e->reason)) == REASON_UNDECIDED)
        return json_fail(at, err, "there is no reason \"%s\"", e->reason);
    return 0;
}

/* "rules[0]" also means "rules[0] read-acme". */
static bool
same_rule(const char *wanted, const char *got)
{
    size_t len = strlen(wanted);
    return strncmp(wanted, got, len) == 0 && (got[len] == '\0' || got[len] == ' ');
}

static bool
as_expected(const struct expectation *e, const struct answer *a)
{
    const struct verdict *v = &a->verdict;
    bool allowed = v->action != ACTION_DENY;
    return allowed == (strcmp(e->expect, "allow") == 0) && (!e->reason || strcmp(e->reason, reason_text(v->reason)) == 0) &&
           (!e->rule || same_rule(e->rule, v->rule));
}

static void
say_case(struct check *c, const struct expectation *e, const struct answer *a, bool pass)
{
    if (c->options->json) {
        json_t *result = to_json(c, a);
        json_object_set_new(result, "pass", json_boolean(pass));
        json_array_append_new(c->results, result);
        return;
    }
    printf("%s  %s  expected %s%s%s%s%s", pass ? "PASS" : "FAIL", e->target, e->expect, e->reason ? " " : "", e->reason ? e->reason : "",
           e->rule ? " by " : "", e->rule ? e->rule : "");
    if (!pass) {
        cleanup_free char *detail = sentence(c, a);
        printf(", got %s %s%s%s (%s)", a->verdict.action == ACTION_DENY ? "deny" : "allow", reason_text(a->verdict.reason),
               a->verdict.rule[0] ? " by " : "", a->verdict.rule, detail);
    }
    printf("\n");
}

static int
run_cases(struct check *c, const struct json_at *list, struct err *err)
{
    size_t passed = 0, count = json_array_size(list->value);
    if (json_want_array(list, err) < 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        struct json_at at = json_element(list, i);
        struct expectation e;
        struct answer a;
        if (read_case(&at, &e, err) < 0 ||
            answer(c, slice_str(e.target), e.method ? e.method : c->options->method, e.address ? e.address : c->options->address, &a, err) < 0)
            return -1;
        bool pass = as_expected(&e, &a);
        passed += pass;
        c->denied |= !pass;
        say_case(c, &e, &a, pass);
    }
    if (!c->options->json)
        printf("%zu of %zu cases passed\n", passed, count);
    return 0;
}

static int
check_cases(struct check *c, const char *file, struct err *err)
{
    cleanup_free char *text = NULL;
    size_t len;
    if (file_read(file, CASES_MAX, FILE_ANY, &text, &len, err) < 0) {
        err->kind = ERR_INVALID;
        return -1;
    }
    json_t *value = json_read(slice_of(text, len), file, CASES_DEPTH, err);
    if (!value)
        return -1;
    struct json_at list = json_root(value, file);
    int result = run_cases(c, &list, err);
    json_decref(value);
    return result;
}

/* ---- the command ---- */

static int
load_token(struct check *c, struct err *err)
{
    const struct check_options *o = c->options;
    const char *keys = o->keys ? o->keys : c->desk.settings.keys_path;
    if (!keys || (!o->keys && !o->config))
        return err_invalid(err, "--token needs --keys JWKS to verify it with");
    c->token_reason = desk_policy_of_token(&c->desk, o->token, keys, o->policies, &c->policy, &c->token_text, err);
    if (c->token_reason == REASON_UNDECIDED)
        return -1;
    if (c->token_reason != REASON_OK) {
        free(c->token_text);
        c->token_text = mem_strdup(err->text);
    }
    return 0;
}

static int
load(struct check *c, struct err *err)
{
    const struct check_options *o = c->options;
    if (desk_open(&c->desk, o->config, err) < 0)
        return -1;
    const struct settings *s = &c->desk.settings;
    const char *file = o->policy ? o->policy : s->policy_file;
    c->token_reason = REASON_OK;
    if (file && !(c->policy = desk_policy_file(&c->desk, file, err)))
        return -1;
    if (o->token)
        return load_token(c, err);
    if (o->keys)
        return err_invalid(err, "--keys is for --token");
    if (c->policy)
        return 0;
    if (!o->config || !s->default_policy)
        return err_invalid(err, "no policy to check with: expected --policy FILE, --token FILE --keys JWKS, or a --config with a default_policy");
    c->policy = desk_policy_named(&c->desk, o->policies ? o->policies : s->policies_dir ? s->policies_dir : "policies", s->default_policy, err);
    return c->policy ? 0 : -1;
}

static int
run(struct check *c, int argc, char **argv, struct err *err)
{
    if (load(c, err) < 0)
        return -1;
    if (c->options->json)
        c->results = json_array();
    if (c->options->cases && check_cases(c, c->options->cases, err) < 0)
        return -1;
    if (check_targets(c, argc, argv, err) < 0)
        return -1;
    if (c->options->json) {
        json_dumpf(c->results, stdout, JSON_INDENT(1));
        printf("\n");
    }
    return 0;
}

static void
help(const struct option_row *rows)
{
    options_help(stdout, usage, rows);
    printf("\nTARGET is https://host/path, http://host/path, host:port or a host (port 443); - reads targets from standard input.\n"
           "A cases file is a JSON array of {\"target\": …, \"expect\": \"allow\"|\"deny\"} with, optionally, \"method\", \"address\",\n"
           "\"reason\" and \"rule\" (both compared when given) and \"note\"; each gives a line PASS or FAIL.\n"
           "Exit status: 0 all allowed (all cases passed), 1 some denied (failed), 2 bad input.\n");
}

int
cmd_check(int argc, char **argv)
{
    struct check_options o = {.policy = NULL};
    const struct option_row rows[] = {
        {"--policy", OPTION_TEXT, &o.policy, "FILE", "the policy"},
        {"--config", OPTION_TEXT, &o.config, "FILE", "judge as a proxy with this configuration would"},
        {"--token", OPTION_TEXT, &o.token, "FILE", "judge with this token: what it names or carries is the policy"},
        {"--keys", OPTION_TEXT, &o.keys, "JWKS", "keys that verify the token"},
        {"--policies", OPTION_TEXT, &o.policies, "DIR", "where the policy that a token names is found"},
        {"--method", OPTION_TEXT, &o.method, "M", "method of the request (GET)"},
        {"--address", OPTION_TEXT, &o.address, "IP", "as if the host resolved to this address"},
        {"--cases", OPTION_TEXT, &o.cases, "FILE", "check expectations instead: unit tests of a policy"},
        {"--json", OPTION_FLAG, &o.json, NULL, "answers as JSON"},
        {"--help", OPTION_FLAG, &o.help, NULL, "this help"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    struct err err = {.kind = ERR_NONE};
    struct check c = {.options = &o};

    if (options_parse(rows, &argc, argv, &err) < 0)
        return cmd_fail(&err);
    if (o.help) {
        help(rows);
        return 0;
    }
    if (argc < 2 && !o.cases)
        return cmd_usage(usage);
    int result = run(&c, argc, argv, &err);
    int status = result < 0 ? cmd_fail(&err) : c.denied;
    json_decref(c.results);
    policy_unref(c.policy);
    free(c.token_text);
    desk_close(&c.desk);
    return status;
}
