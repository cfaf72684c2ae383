/* `sallyport policy lint|scope|diff|suggest|replay`: what a policy says, what it lets out, and what changes. Reads files, prints,
 * and judges with the proxy's own functions. The verbs that read old records have files of their own. */
#include <stdlib.h>
#include <string.h>

#include "sallyport/base/json.h"
#include "sallyport/base/mem.h"
#include "sallyport/cmd/cmd.h"
#include "sallyport/cmd/policies.h"
#include "sallyport/cmd/policy.h"
#include "sallyport/policy/lint.h"
#include "sallyport/policy/scope.h"

static const char usage[] = "sallyport policy lint|scope|diff|suggest|replay [options] FILE…";

struct printing {
    bool json;
    json_t *rows;
    size_t count;
};

static void
finish(struct printing *p)
{
    if (p->json) {
        json_dumpf(p->rows, stdout, JSON_INDENT(1));
        printf("\n");
    }
    json_decref(p->rows);
}

/* ---- lint ---- */

static void
print_finding(struct printing *out, const char *file, const struct finding *f)
{
    const char *level = f->level == LINT_WARNING ? "warning" : "note";
    if (out->json)
        json_array_append_new(out->rows, json_pack("{s:s, s:s, s:s, s:s, s:s}", "file", file, "level", level, "code", f->code,
                                                   "where", f->where, "text", f->text));
    else
        printf("%s: %s: %s: %s [%s]\n", file, f->where, level, f->text, f->code);
}

static int
lint_file(struct desk *d, const char *file, const struct policy_options *o, struct printing *out, bool *ret_found, struct err *err)
{
    struct policy *p = desk_policy_file(d, file, err);
    if (!p)
        return -1;
    struct lint_options options = {.has_parent = d->settings.parent_url != NULL};
    struct findings *f = policy_lint(p, &options);
    for (size_t i = 0; i < f->count; i++)
        print_finding(out, file, &f->items[i]);
    if (f->left_out > 0 && !out->json)
        printf("%s: and %zu more findings\n", file, f->left_out);
    size_t warnings = findings_warnings(f), notes = f->count + f->left_out - warnings;
    *ret_found |= warnings > 0 || (o->strict && notes > 0);
    if (!out->json)
        printf("%s: %zu warning%s, %zu note%s\n", file, warnings, warnings == 1 ? "" : "s", notes, notes == 1 ? "" : "s");
    findings_free(f);
    policy_unref(p);
    return 0;
}

static int
do_lint(struct desk *d, int argc, char **argv, const struct policy_options *o, struct err *err)
{
    struct printing out = {.json = o->json, .rows = o->json ? json_array() : NULL};
    bool found = false;
    int result = argc < 1 ? err_invalid(err, "policy lint: expected a policy file") : 0;
    for (int i = 0; i < argc && result == 0; i++)
        result = lint_file(d, argv[i], o, &out, &found, err);
    if (result < 0) {
        json_decref(out.rows);
        return -1;
    }
    finish(&out);
    return found;
}

/* ---- scope ---- */

static const char *
effect_text(enum scope_effect e)
{
    switch (e) {
    case SCOPE_CLOSED: return "closed";
    case SCOPE_OPEN: return "open";
    case SCOPE_DENY: return "deny";
    }
    return "closed";
}

static void
print_scope(void *ctx, const struct scope_row *row)
{
    struct printing *out = ctx;
    const char *source = source_text(row->source);
    out->count += row->effect == SCOPE_OPEN;
    if (out->json)
        json_array_append_new(out->rows, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "effect", effect_text(row->effect), "host", row->host,
                                                   "ports", row->ports, "source", source, "where", row->where, "detail", row->detail));
    else
        printf("%-6s  %-40s  %-8s  %s %s%s%s\n", effect_text(row->effect), row->host, row->ports, source, row->where,
               row->detail[0] ? "  " : "", row->detail);
}

static int
do_scope(struct desk *d, int argc, char **argv, const struct policy_options *o, struct err *err)
{
    if (argc != 1)
        return err_invalid(err, "policy scope: expected one policy file");
    struct policy *p = desk_policy_file(d, argv[0], err);
    if (!p)
        return -1;
    struct printing out = {.json = o->json, .rows = o->json ? json_array() : NULL};
    policy_scope(p, print_scope, &out);
    if (!o->json)
        printf("%zu entr%s open\n", out.count, out.count == 1 ? "y is" : "ies are");
    finish(&out);
    policy_unref(p);
    return 0;
}

/* ---- diff ---- */

static void
print_diff(void *ctx, const struct diff_row *row)
{
    struct printing *out = ctx;
    char text[TARGET_TEXT_SIZE];
    const char *scheme = row->target.scheme == SCHEME_HTTP ? "http" : row->target.scheme == SCHEME_HTTPS ? "https" : "tunnel";
    struct target t = row->target;
    const char *host = t.host.text;
    target_format(&t, text);
    out->count++;
    if (out->json) {
        json_array_append_new(out->rows, json_pack("{s:s, s:s, s:i, s:b, s:s, s:s?, s:s, s:s, s:s}", "change", row->opened ? "opened" : "closed",
                                                   "host", host, "port", (int)t.port, "below", row->below, "scheme", scheme,
                                                   "method", row->method, "before", reason_text(row->before.reason), "after",
                                                   reason_text(row->after.reason), "rule", row->rule[0] ? row->rule : row->after.rule));
        return;
    }
    if (row->rule[0])
        printf("%c %s  %s only in one of the two\n", row->opened ? '+' : '-', host, row->rule);
    else
        printf("%c %s %s%s%s  %s\n", row->opened ? '+' : '-', scheme, row->method ? row->method : "", row->method ? " " : "", text,
               row->opened ? row->after.rule : reason_text(row->after.reason));
}

static int
do_diff(struct desk *d, int argc, char **argv, const struct policy_options *o, struct err *err)
{
    if (argc != 2)
        return err_invalid(err, "policy diff: expected two policy files, the old and the new");
    struct policy *before = desk_policy_file(d, argv[0], err);
    struct policy *after = before ? desk_policy_file(d, argv[1], err) : NULL;
    int result = -1;
    if (after) {
        struct printing out = {.json = o->json, .rows = o->json ? json_array() : NULL};
        size_t opened = policy_diff(before, after, print_diff, &out);
        if (!o->json)
            printf("%zu difference%s, %zu of them open something\n", out.count, out.count == 1 ? "" : "s", opened);
        finish(&out);
        result = opened > 0;
    }
    policy_unref(before);
    policy_unref(after);
    return result;
}

/* ---- the command ---- */

static const struct {
    const char *name;
    int (*fn)(struct desk *d, int argc, char **argv, const struct policy_options *o, struct err *err);
    const char *help;
} actions[] = {
    {"lint", do_lint, "warn about risky entries; 1 when there are warnings (--strict: or notes)"},
    {"scope", do_scope, "everything that the policy lets out, with where each entry comes from"},
    {"diff", do_diff, "OLD NEW: what changes; 1 when something becomes reachable"},
    {"suggest", policy_suggest, "LOG…: a policy from the records of a decision log"},
    {"replay", policy_replay, "--policy FILE LOG…: old records judged by another policy; 1 when a decision changes"},
};
#define ACTION_COUNT (sizeof actions / sizeof actions[0])

/* An option of another verb would be a wish that nobody fulfils. */
static int
refuse_strangers(const char *name, const struct policy_options *o, struct err *err)
{
    bool replay = strcmp(name, "replay") == 0, suggest = strcmp(name, "suggest") == 0;
    if (o->policy && !replay)
        return err_invalid(err, "policy %s: --policy belongs to `policy replay`", name);
    if (o->sandbox && !replay && !suggest)
        return err_invalid(err, "policy %s: --sandbox belongs to `policy replay` and `policy suggest`", name);
    if ((o->denied || o->base || o->wildcard) && !suggest)
        return err_invalid(err, "policy %s: --denied, --base and --wildcard belong to `policy suggest`", name);
    return 0;
}

static int
run(const char *name, int argc, char **argv, const struct policy_options *o, struct err *err)
{
    for (size_t i = 0; i < ACTION_COUNT; i++) {
        struct desk d;
        if (strcmp(actions[i].name, name) != 0)
            continue;
        if (refuse_strangers(name, o, err) < 0 || desk_open(&d, o->config, err) < 0)
            return -1;
        int result = actions[i].fn(&d, argc, argv, o, err);
        desk_close(&d);
        return result;
    }
    return err_invalid(err, "policy: there is no \"%.40s\"; expected lint, scope, diff, suggest or replay", name);
}

int
cmd_policy(int argc, char **argv)
{
    struct policy_options o = {.config = NULL};
    const struct option_row rows[] = {
        {"--config", OPTION_TEXT, &o.config, "FILE", "as a proxy with this configuration would read it"},
        {"--strict", OPTION_FLAG, &o.strict, NULL, "lint: notes count as warnings"},
        {"--policy", OPTION_TEXT, &o.policy, "FILE", "replay: the policy that judges"},
        {"--sandbox", OPTION_TEXT, &o.sandbox, "S", "replay, suggest: the records of this sandbox alone"},
        {"--denied", OPTION_FLAG, &o.denied, NULL, "suggest: what the allowlist refused, instead of what was allowed"},
        {"--base", OPTION_TEXT, &o.base, "FILE", "suggest: this policy, with what it does not open yet"},
        {"--wildcard", OPTION_TEXT, &o.wildcard, "N", "suggest: a wildcard for N names below one domain (5; 0: never)"},
        {"--json", OPTION_FLAG, &o.json, NULL, "print JSON"},
        {"--help", OPTION_FLAG, &o.help, NULL, "this help"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    struct err err = {.kind = ERR_NONE};

    if (options_parse(rows, &argc, argv, &err) < 0)
        return cmd_fail(&err);
    if (o.help) {
        options_help(stdout, usage, rows);
        printf("\n");
        for (size_t i = 0; i < ACTION_COUNT; i++)
            printf("  %-8s %s\n", actions[i].name, actions[i].help);
        return 0;
    }
    if (argc < 2)
        return cmd_usage(usage);
    int result = run(argv[1], argc - 2, argv + 2, &o, &err);
    return result < 0 ? cmd_fail(&err) : result;
}
