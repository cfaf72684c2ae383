/* Everything a decision depends on, compiled from one bundle. Opens nothing: the bytes come from the caller, who read them
 * while there still was a file system. Policies are compiled when they are first asked for. */
#include "sallyport/proxy/snapshot.h"

#include "sallyport/base/diag.h"
#include "sallyport/base/map.h"
#include "sallyport/base/mem.h"

#define EMBEDDED_CACHE_MAX 4096 /* compiled policies of tokens; when full the cache starts anew */

/* A policy of the bundle: compiled on first use; `broken` remembers that it could not be. */
struct entry {
    struct slice text;
    char *file;
    struct policy *policy;
    bool broken;
};

struct snapshot {
    unsigned refs;
    uint64_t generation;
    const struct settings *settings;
    struct token_rules rules;
    struct keyset *keys;
    struct revocations *revoked;
    struct verifier *verifier;
    struct policy_context *context;
    struct guard *guard;
    struct map *blobs;     /* name -> struct blob */
    struct map *policies;  /* name -> struct entry */
    struct entry *everybody; /* --policy FILE */
    struct map *embedded;  /* document -> struct policy */
    struct map *overrides; /* host -> struct host_override */
    void (*on_free)(void *arg);
    void *on_free_arg;
};

static void
free_entry(void *value)
{
    struct entry *e = value;
    policy_unref(e->policy);
    free(e->file);
    free(e);
}

static void
free_policy(void *value)
{
    policy_unref(value);
}

struct slice
snapshot_blob(const struct snapshot *s, const char *name)
{
    const struct blob *b = map_get(s->blobs, slice_str(name));
    return b ? b->bytes : slice_of(NULL, 0);
}

static void
index_blobs(struct snapshot *s, const struct blob *blobs, size_t count)
{
    static const char prefix[] = "policy/";
    for (size_t i = 0; i < count; i++) {
        struct blob *copy = mem_alloc(sizeof *copy);
        *copy = blobs[i];
        free(map_put(s->blobs, copy->name, copy));
        if (!slice_starts_with(copy->name, prefix))
            continue;
        struct entry *e = mem_zalloc(sizeof *e);
        e->text = copy->bytes;
        struct slice name = slice_of(copy->name.ptr + sizeof prefix - 1, copy->name.len - (sizeof prefix - 1));
        struct entry *old = map_put(s->policies, name, e);
        if (old)
            free_entry(old);
        if (s->settings->policy_file)
            s->everybody = e;
    }
}

static void
name_files(void *ctx, struct slice name, void *value)
{
    struct snapshot *s = ctx;
    struct entry *e = value;
    cleanup_free char *key = mem_printf("policy-file/%.*s", SLICE_ARG(name));
    struct slice file = snapshot_blob(s, key);
    e->file = file.ptr ? mem_dup_slice(file) : mem_printf("%.*s.json", SLICE_ARG(name));
}

static int
load_auth(struct snapshot *s, struct err *err)
{
    const struct settings *set = s->settings;
    s->rules = (struct token_rules){
        .issuer = set->issuer,
        .audience = set->audience,
        .leeway_s = set->leeway_s,
        .max_lifetime_s = set->max_lifetime_s,
        .embedded = set->embedded,
    };
    s->keys = keyset_parse(snapshot_blob(s, "keys"), set->keys_path ? set->keys_path : "keys", set->allow_hmac, err);
    if (!s->keys)
        return -1;
    s->revoked = revocations_parse(snapshot_blob(s, "revoked"), set->revoked_path ? set->revoked_path : "revoked", err);
    if (!s->revoked)
        return -1;
    s->verifier = verifier_new(&s->rules, s->keys, s->revoked);
    return 0;
}

static int
load_context(struct snapshot *s, struct err *err)
{
    const struct settings *set = s->settings;
    const char **names = mem_array(set->override_count + 1, sizeof *names);
    for (size_t i = 0; i < set->override_count; i++) {
        names[i] = set->overrides[i].host;
        map_put(s->overrides, slice_str(set->overrides[i].host), &set->overrides[i]);
    }
    struct policy_context_options o = {
        .default_ports = set->default_port_count ? set->default_ports : NULL,
        .default_port_count = set->default_port_count,
        .tls_ports = set->tls_ports,
        .tls_port_count = set->tls_port_count,
        .plain_ports = set->plain_ports,
        .plain_port_count = set->plain_port_count,
        .platform_hosts = (const char *const *)set->platform_hosts.items,
        .blocked_hosts = (const char *const *)set->blocked_hosts.items,
        .registries_json = snapshot_blob(s, "registries"),
        .blocklist_json = snapshot_blob(s, "blocklist"),
        .inspect = set->inspect,
        .has_parent = set->parent_url != NULL,
        .passthrough = (const char *const *)set->passthrough.items,
        .override_hosts = names,
        .allow_addresses = set->allow_addresses.items,
        .allow_address_count = set->allow_addresses.count,
        .delegable_addresses = set->delegable_addresses.items,
        .delegable_address_count = set->delegable_addresses.count,
    };
    s->context = policy_context_new(&o, err);
    free(names);
    return s->context ? 0 : -1;
}

static void
load_guard(struct snapshot *s, const struct guard_options *own)
{
    const struct settings *set = s->settings;
    struct guard_options o = own ? *own : (struct guard_options){0};
    o.allow_addresses = set->allow_addresses.items;
    o.allow_count = set->allow_addresses.count;
    o.deny_addresses = set->deny_addresses.items;
    o.deny_count = set->deny_addresses.count;
    o.delegable_addresses = set->delegable_addresses.items;
    o.delegable_count = set->delegable_addresses.count;
    s->guard = guard_new(&o);
}

/* NULL when it does not compile; err says why. */
static const struct policy *
entry_policy(struct snapshot *s, struct entry *e, struct slice name, struct err *err)
{
    if (e->policy || e->broken)
        return e->policy;
    cleanup_free char *text = mem_dup_slice(name);
    e->policy = policy_compile(e->text, text, e->file, POLICY_FILE, s->context, err);
    e->broken = e->policy == NULL;
    return e->policy;
}

struct check_all {
    struct snapshot *s;
    struct err *err;
    bool failed;
};

static void
check_entry(void *ctx, struct slice name, void *value)
{
    struct check_all *c = ctx;
    if (!c->failed && !entry_policy(c->s, value, name, c->err))
        c->failed = true;
}

struct snapshot *
snapshot_new(const struct settings *settings, const struct blob *blobs, size_t count, const struct guard_options *own,
             bool check_all, uint64_t generation, struct err *err)
{
    struct snapshot *s = mem_zalloc(sizeof *s);
    s->refs = 1;
    s->generation = generation;
    s->settings = settings;
    s->blobs = map_new();
    s->policies = map_new();
    s->embedded = map_new();
    s->overrides = map_new();
    index_blobs(s, blobs, count);
    map_each(s->policies, name_files, s);
    struct check_all check = {s, err, false};
    if (load_auth(s, err) == 0 && load_context(s, err) == 0) {
        load_guard(s, own);
        if (check_all)
            map_each(s->policies, check_entry, &check);
        if (!check.failed)
            return s;
    }
    snapshot_unref(s);
    return NULL;
}

struct snapshot *
snapshot_ref(struct snapshot *s)
{
    s->refs++;
    return s;
}

void
snapshot_unref(struct snapshot *s)
{
    if (!s || --s->refs > 0)
        return;
    verifier_free(s->verifier);
    revocations_unref(s->revoked);
    keyset_unref(s->keys);
    map_free(s->policies, free_entry);
    map_free(s->embedded, free_policy);
    map_free(s->overrides, NULL);
    map_free(s->blobs, free);
    guard_unref(s->guard);
    policy_context_unref(s->context);
    if (s->on_free)
        s->on_free(s->on_free_arg);
    free(s);
}

void
snapshot_on_free(struct snapshot *s, void (*fn)(void *arg), void *arg)
{
    s->on_free = fn;
    s->on_free_arg = arg;
}

const struct settings *
snapshot_settings(const struct snapshot *s)
{
    return s->settings;
}

const struct token_rules *
snapshot_token_rules(const struct snapshot *s)
{
    return &s->rules;
}

struct verifier *
snapshot_verifier(struct snapshot *s)
{
    return s->verifier;
}

const struct guard *
snapshot_guard(const struct snapshot *s)
{
    return s->guard;
}

uint64_t
snapshot_generation(const struct snapshot *s)
{
    return s->generation;
}

const struct policy *
snapshot_named_policy(struct snapshot *s, struct slice name)
{
    struct entry *e = map_get(s->policies, name);
    if (!e)
        return NULL;
    struct err err = {0};
    bool first = !e->policy && !e->broken;
    const struct policy *p = entry_policy(s, e, name, &err);
    if (!p && first)
        diag(DIAG_ALARM, "policy is not usable, its sandboxes get policy_unknown: %s", err.text);
    return p;
}

/* The policy that a token carries itself: the same document compiles once. */
static enum reason
embedded_policy(struct snapshot *s, const struct identity *id, const struct policy **ret)
{
    struct slice document = slice_str(id->embedded_policy);
    struct policy *p = map_get(s->embedded, document);
    if (!p) {
        struct err err = {0};
        p = policy_compile(document, "embedded", "token", POLICY_TOKEN, s->context, &err);
        if (!p)
            return REASON_TOKEN_CLAIMS;
        /* Those in use are held by their exchanges. */
        if (map_count(s->embedded) >= EMBEDDED_CACHE_MAX) {
            map_free(s->embedded, free_policy);
            s->embedded = map_new();
        }
        map_put(s->embedded, document, p);
    }
    *ret = p;
    return REASON_OK;
}

enum reason
snapshot_policy(struct snapshot *s, const struct identity *id, const struct policy **ret)
{
    const struct policy *p = NULL;
    if (s->settings->policy_file) {
        struct err err = {0};
        p = s->everybody ? entry_policy(s, s->everybody, slice_str("policy"), &err) : NULL;
    } else if (id->embedded_policy) {
        return embedded_policy(s, id, ret);
    } else {
        const char *name = id->policy_name ? id->policy_name : s->settings->default_policy;
        p = name ? snapshot_named_policy(s, slice_str(name)) : NULL;
    }
    if (!p || (id->policy_sha256[0] && strcmp(id->policy_sha256, policy_sha256(p)) != 0))
        return REASON_POLICY_UNKNOWN;
    *ret = p;
    return REASON_OK;
}

const struct host_override *
snapshot_override(const struct snapshot *s, const struct host *host)
{
    return map_get(s->overrides, host_slice(host));
}
