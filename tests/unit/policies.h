/* What the tests of the policy layer share: contexts and policies from text, questions as one line. */
#ifndef TESTS_UNIT_POLICIES_H
#define TESTS_UNIT_POLICIES_H

#include <jansson.h>
#include <stdarg.h>

#include "sallyport/base/file.h"
#include "sallyport/base/mem.h"
#include "sallyport/policy/decide.h"
#include "sallyport/policy/guard.h"
#include "unit/test.h"

#define UNUSED __attribute__((unused))

static UNUSED struct policy_context *
context_with(const struct policy_context_options *o)
{
    struct policy_context_options none = {.registries_json = slice_of("", 0), .blocklist_json = slice_of("", 0)};
    struct err err = {.kind = ERR_NONE};
    struct policy_context *c = policy_context_new(o ? o : &none, &err);
    CHECK_THAT(c, "%s", err.text);
    return c;
}

/* Takes the context over. NULL with the error in `text` (may be NULL: then it is a failure of the test). */
static UNUSED struct policy *
compile_in(struct policy_context *c, const char *json, enum policy_origin origin, char *text)
{
    struct err err = {.kind = ERR_NONE};
    struct policy *p = policy_compile(slice_str(json), "test", "test.json", origin, c, &err);
    policy_context_unref(c);
    if (text)
        snprintf(text, ERR_TEXT_MAX, "%s", err.text);
    else
        CHECK_THAT(p, "%s in %s", err.text, json);
    return p;
}

static UNUSED struct policy *
compile(const char *json)
{
    return compile_in(context_with(NULL), json, POLICY_FILE, NULL);
}

/* "host:port" is a tunnel; "http host:port METHOD /path" and "https …" are requests that are seen. */
static UNUSED struct verdict
ask(const struct policy *p, const char *text)
{
    struct target t = {.scheme = SCHEME_NONE};
    struct question q = {.target = &t};
    struct verdict v;
    char scheme[16] = "", authority[512] = "", method[64] = "", path[4096] = "";
    bool seen = strncmp(text, "http", 4) == 0 && strchr(text, ' ');
    if (seen)
        sscanf(text, "%15s %511s %63s %4095s", scheme, authority, method, path);
    else
        snprintf(authority, sizeof authority, "%s", text);
    CHECK_THAT(target_from_authority(slice_str(authority), &t) == REASON_OK, "%s", text);
    if (seen) {
        t.scheme = scheme[4] == 's' ? SCHEME_HTTPS : SCHEME_HTTP;
        q.method = slice_str(method);
        q.path = slice_str(path);
    }
    policy_decide(p, &q, &v);
    return v;
}

/* "allow", "inspect" or the reason, then the rule: "allow allowed_hosts[0]". */
static UNUSED void
expect(const struct policy *p, const char *question, const char *wanted)
{
    struct verdict v = ask(p, question);
    char got[256];
    const char *word = v.action == ACTION_ALLOW ? "allow" : v.action == ACTION_INSPECT ? "inspect" : reason_text(v.reason);
    snprintf(got, sizeof got, "%s%s%s", word, v.rule[0] ? " " : "", v.rule);
    CHECK_THAT(strcmp(got, wanted) == 0, "%s: \"%s\" is not \"%s\"", question, got, wanted);
    CHECK_THAT((v.action == ACTION_DENY) == (v.reason != REASON_OK), "%s", question);
}

/* Calls fn with each line of a file of JSON lines; a missing file is a failure, never a skip. */
static UNUSED void
each_vector(const char *path, void (*fn)(const json_t *line))
{
    char *text = NULL;
    size_t len = 0, count = 0;
    struct err err = {.kind = ERR_NONE};
    CHECK_THAT(file_read(path, 1 << 20, FILE_ANY, &text, &len, &err) == 0, "%s", err.text);
    for (char *line = text, *end; line && line < text + len; line = end + 1) {
        end = strchrnul(line, '\n');
        json_t *value = json_loadb(line, (size_t)(end - line), JSON_ALLOW_NUL, NULL);
        CHECK_THAT(value, "%s: %.*s", path, (int)(end - line), line);
        if (value) {
            fn(value);
            count++;
        }
        json_decref(value);
    }
    CHECK_THAT(count > 10, "%s has %zu lines", path, count);
    free(text);
}

static UNUSED const char *
member(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

static UNUSED char *
read_text(const char *path, size_t *ret_len)
{
    char *text = NULL;
    struct err err = {.kind = ERR_NONE};
    CHECK_THAT(file_read(path, 8 << 20, FILE_ANY, &text, ret_len, &err) == 0, "%s", err.text);
    return text;
}

#endif
