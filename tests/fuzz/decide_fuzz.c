/* Questions to one policy. Input: authority, newline, method, newline, path. Held here, against a naive reading of the same
 * policy: a tunnel opens only for a host that the list names, blocked and special names never open, and a path that is let
 * through where a rule guards it stays below the rule's prefix however a server resolves it. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sallyport/policy/decide.h"
#include "sallyport/policy/guard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char document[] =
    "{\"networking\": {\"allowed_hosts\": [\"api.example.com\", \"*.wild.example.com\", \"db.example.com:5432\"]}, \"blocked_hosts\": [\"no.wild.example.com\"],"
    "\"rules\": [{\"host\": \"plain.example.com\", \"scheme\": \"http\", \"methods\": [\"GET\"], \"path\": \"^/repos/acme/\", \"action\": \"allow\"},"
    "{\"host\": \"plain.example.com\", \"action\": \"deny\"}]}";

static bool
ends_with(const struct host *h, const char *tail)
{
    size_t len = strlen(tail);
    return h->kind == HOST_NAME && h->len > len && strcmp(h->text + h->len - len, tail) == 0;
}

static bool
may_open(const struct target *t)
{
    bool usual = t->port == 80 || t->port == 443;
    if (strcmp(t->host.text, "no.wild.example.com") == 0)
        return false;
    return (usual && strcmp(t->host.text, "api.example.com") == 0) || (usual && ends_with(&t->host, ".wild.example.com")) ||
           (t->port == 5432 && strcmp(t->host.text, "db.example.com") == 0);
}

/* Reads a path as badly as servers do: decodes twice, takes backslashes for slashes, resolves dot segments, drops parameters. */
static void
resolve_badly(const char *path, size_t len, char *out)
{
    char *text = malloc(len + 1), *to = out;
    memcpy(text, path, len);
    text[len] = '\0';
    if (strchr(text, '?'))
        *strchr(text, '?') = '\0';
    for (int round = 0; round < 2; round++) {
        char *w = text;
        for (char *r = text; *r; r++) {
            char hex[3] = {r[1], r[1] ? r[2] : 0, 0};
            char *end;
            long c = *r == '%' && hex[0] && hex[1] ? strtol(hex, &end, 16) : 0;
            if (*r == '%' && c > 0 && *end == '\0') {
                *w++ = (char)c;
                r += 2;
            } else {
                *w++ = *r == '\\' ? '/' : *r;
            }
        }
        *w = '\0';
    }
    *to = '\0';
    for (char *save = NULL, *s = strtok_r(text, "/", &save); s; s = strtok_r(NULL, "/", &save)) {
        s[strcspn(s, ";")] = '\0';
        if (strcmp(s, "..") == 0) {
            while (to > out && *--to != '/')
                ;
            *to = '\0';
        } else if (*s && strcmp(s, ".") != 0) {
            *to++ = '/';
            to = stpcpy(to, s);
        }
    }
    free(text);
}

static void
check(const struct policy *p, struct target *t, struct slice method, struct slice path)
{
    struct question q = {.target = t};
    struct verdict v;
    policy_decide(p, &q, &v);
    assert(v.action != ACTION_INSPECT);
    assert((v.action == ACTION_ALLOW) == may_open(t));
    t->scheme = SCHEME_HTTP;
    q.method = method;
    q.path = path;
    policy_decide(p, &q, &v);
    if (strcmp(t->host.text, "plain.example.com") != 0) {
        assert((v.action == ACTION_ALLOW) == may_open(t));
    } else if (v.action == ACTION_ALLOW) {
        char *resolved = malloc(path.len + 2);
        assert(slice_is(method, "GET"));
        resolve_badly(path.ptr, path.len, resolved);
        assert(strncmp(resolved, "/repos/acme", 11) == 0);
        free(resolved);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct policy *p;
    struct slice rest = slice_of(data, size), path;
    struct target t;
    if (!p) {
        struct policy_context_options o = {.default_port_count = 0};
        struct err err;
        struct policy_context *c = policy_context_new(&o, &err);
        p = policy_compile(slice_str(document), "fuzz", "fuzz.json", POLICY_FILE, c, &err);
        assert(p);
        policy_context_unref(c);
    }
    struct slice authority = slice_split(rest, '\n', &rest);
    struct slice method = slice_split(rest.ptr ? rest : slice_str(""), '\n', &path);
    if (!path.ptr || memchr(path.ptr, 0, path.len) || target_from_authority(authority, &t) != REASON_OK)
        return 0;
    check(p, &t, method, path);
    return 0;
}
