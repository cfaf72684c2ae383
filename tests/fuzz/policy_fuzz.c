/* Policy documents. Held here: a document loads or says why with its file in front; what loads can be asked, linted and listed;
 * a token's document never gets report mode; and a document with its lists cut out is JSON exactly when it was before. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sallyport/base/json.h"
#include "sallyport/policy/bulk.h"
#include "sallyport/policy/decide.h"
#include "sallyport/policy/lint.h"
#include "sallyport/policy/scope.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct policy_context *
context(enum inspect_mode mode)
{
    static const char registries[] = "{\"date\": \"d\", \"managers\": {\"pip\": {\"hosts\": {\"alpha.example\": [\"@\", \"*.cdn\"]}}, \"npm\": {\"hosts\": {\"beta.example\": [\"@\"]}}}, "
        "\"reads\": {\"beta\": {\"date\": \"2026-01-01\", \"hosts\": {\"beta.example\": [\"@\"]}, \"requests\": [{\"methods\": [\"GET\"], \"path\": \"/[^/%]+(/|%2F)x\"}, {\"methods\": [\"POST\"], \"path\": \"/audit\", \"body\": {}}]}}}";
    static const char *const blocked[] = {"blocked.example.com", NULL};
    struct policy_context_options o = {.registries_json = slice_of(registries, sizeof registries - 1), .inspect = mode, .blocked_hosts = blocked};
    struct err err;
    return policy_context_new(&o, &err);
}

static void
ask(const struct policy *p, const char *host, enum scheme scheme, uint16_t port)
{
    struct target t = {.scheme = scheme, .port = port};
    struct question q = {.target = &t};
    struct verdict v;
    assert(host_parse(slice_str(host), &t.host));
    if (scheme != SCHEME_NONE) {
        q.method = slice_str("POST");
        q.path = slice_str("/repos/acme/%2e/x?y");
    }
    policy_decide(p, &q, &v);
    assert((v.action == ACTION_DENY) == (v.reason != REASON_OK));
    assert(v.reason != REASON_UNDECIDED && memchr(v.rule, 0, sizeof v.rule));
    assert(v.action != ACTION_INSPECT || scheme == SCHEME_NONE);
    if (strcmp(host, "blocked.example.com") == 0)
        assert(v.reason == REASON_HOST_BLOCKED);
    if (strcmp(host, "metadata.google.internal") == 0 && v.action != ACTION_DENY)
        assert(!v.would_deny || v.source != SOURCE_BUILTIN);
}

static void
on_row(void *ctx, const struct scope_row *row)
{
    (void)ctx;
    assert(row->host[0] && row->where[0]);
}

static void
check_bulk(struct slice json)
{
    struct bulk b;
    struct err err;
    bulk_cut(json, 1, &b);
    if (b.count > 0) {
        json_t *whole = json_read(json, "whole", 200, &err), *cut = json_read(slice_of(b.text, b.len), "cut", 202, &err);
        assert(!whole == !cut);
        json_decref(whole);
        json_decref(cut);
        for (size_t i = 0; i < b.count; i++) {
            struct slice list = b.lists[i], entry;
            size_t entries = 0;
            while (bulk_next(&list, &entry))
                entries++;
            assert(entries > 0 && list.len < json.len);
        }
    }
    bulk_done(&b);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct policy_context *contexts[3];
    static const char *const hosts[] = {"a.example.com", "blocked.example.com", "metadata.google.internal", "x.cdn.alpha.example", "8.8.8.8", "[::1]", "api.example.org"};
    static const uint16_t ports[] = {443, 80, 8443};
    struct err err = {.kind = ERR_NONE};
    if (size < 1)
        return 0;
    enum inspect_mode mode = (enum inspect_mode)(data[0] % 3);
    enum policy_origin origin = data[0] & 4 ? POLICY_TOKEN : POLICY_FILE;
    if (!contexts[mode])
        contexts[mode] = context(mode);
    check_bulk(slice_of(data + 1, size - 1));
    struct policy *p = policy_compile(slice_of(data + 1, size - 1), "fuzz", "fuzz.json", origin, contexts[mode], &err);
    if (!p) {
        assert(err.kind == ERR_INVALID && strncmp(err.text, "fuzz.json", 9) == 0);
        return 0;
    }
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        for (size_t k = 0; k < 3; k++) {
            ask(p, hosts[i], SCHEME_NONE, ports[k]);
            ask(p, hosts[i], SCHEME_HTTP, ports[k]);
            ask(p, hosts[i], SCHEME_HTTPS, ports[k]);
        }
    }
    struct findings *f = policy_lint(p, NULL);
    for (size_t i = 0; i < f->count; i++)
        assert(origin == POLICY_FILE || strcmp(f->items[i].code, "report-mode") != 0);
    findings_free(f);
    policy_scope(p, on_row, NULL);
    policy_unref(p);
    return 0;
}
