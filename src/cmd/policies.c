/* Loading for `check` and `policy`: the same context, the same compiler and the same strictness as a running proxy has, but
 * nothing is opened to the network and nothing stays open. */
#include "sallyport/cmd/policies.h"

#include <stdlib.h>
#include <string.h>

#include "sallyport/auth/verify.h"
#include "sallyport/base/clock.h"
#include "sallyport/base/file.h"
#include "sallyport/base/mem.h"
#include "sallyport/cmd/cmd.h"
#include "sallyport/process/config.h"

#define DATA_FILE_MAX (8u << 20)
#define TOKEN_FILE_MAX 65536u
#define JWKS_FILE_MAX (1u << 20)

/* ---- configuration ---- */

static int
read_settings(struct desk *d, const char *path, struct err *err)
{
    cleanup_free char *text = NULL;
    size_t len = 0;
    json_t *root;

    if (!path) {
        root = json_object();
    } else {
        if (file_read(path, CONFIG_TEXT_MAX, FILE_NOT_WRITABLE_BY_OTHERS, &text, &len, err) < 0)
            return -1;
        root = json_read(slice_of(text, len), path, CONFIG_DEPTH_MAX, err);
        if (!root)
            return -1;
        d->config_file = mem_strdup(path);
    }
    const char *slash = path ? strrchr(path, '/') : NULL;
    cleanup_free char *base = slash ? mem_dup_slice(slice_of(path, (size_t)(slash - path))) : NULL;
    int result = path ? config_check_file(root, path, err) : 0;
    if (result == 0)
        result = config_read(root, path ? path : "defaults", base, &d->settings, err);
    json_decref(root);
    return result;
}

/* A data file: where the configuration says, else where it was installed. Absent is empty. */
static int
read_data(const char *configured, const char *name, char **ret, size_t *ret_len, struct err *err)
{
    struct err ignored;
    *ret_len = 0;
    if (configured && file_read(configured, DATA_FILE_MAX, FILE_NOT_WRITABLE_BY_OTHERS, ret, ret_len, &ignored) == 0)
        return 0;
    cleanup_free char *path = data_file(name);
    if (!path)
        return 0;
    return file_read(path, DATA_FILE_MAX, FILE_NOT_WRITABLE_BY_OTHERS, ret, ret_len, err);
}

static char *
beside(const char *path, const char *name)
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    return path ? mem_printf("%.*s%s", slash ? (int)(slash - path + 1) : 0, path, name) : NULL;
}

static int
make_context(struct desk *d, struct err *err)
{
    const struct settings *s = &d->settings;
    cleanup_free char *registries = NULL, *blocklist = NULL, *blocklist_path = beside(s->registries_path, "safety-blocklist.json");
    size_t registries_len, blocklist_len;

    if (read_data(d->config_file ? s->registries_path : NULL, "registries.json", &registries, &registries_len, err) < 0 ||
        read_data(d->config_file ? blocklist_path : NULL, "safety-blocklist.json", &blocklist, &blocklist_len, err) < 0)
        return -1;
    cleanup_free const char **names = mem_array(s->override_count + 1, sizeof *names);
    for (size_t i = 0; i < s->override_count; i++)
        names[i] = s->overrides[i].host;
    struct policy_context_options o = {
        .default_ports = s->default_port_count ? s->default_ports : NULL,
        .default_port_count = s->default_port_count,
        .tls_ports = s->tls_port_count ? s->tls_ports : NULL,
        .tls_port_count = s->tls_port_count,
        .plain_ports = s->plain_port_count ? s->plain_ports : NULL,
        .plain_port_count = s->plain_port_count,
        .platform_hosts = (const char *const *)s->platform_hosts.items,
        .blocked_hosts = (const char *const *)s->blocked_hosts.items,
        .registries_json = slice_of(registries ? registries : "", registries_len),
        .blocklist_json = slice_of(blocklist ? blocklist : "", blocklist_len),
        .inspect = s->inspect,
        .has_parent = s->parent_url != NULL,
        .passthrough = (const char *const *)s->passthrough.items,
        .override_hosts = names,
        .allow_addresses = s->allow_addresses.items,
        .allow_address_count = s->allow_addresses.count,
        .delegable_addresses = s->delegable_addresses.items,
        .delegable_address_count = s->delegable_addresses.count,
    };
    d->context = policy_context_new(&o, err);
    return d->context ? 0 : -1;
}

int
desk_open(struct desk *d, const char *config_file, struct err *err)
{
    *d = (struct desk){.config_file = NULL};
    if (read_settings(d, config_file, err) < 0 || make_context(d, err) < 0) {
        desk_close(d);
        return -1;
    }
    struct guard_options o = {
        .allow_addresses = d->settings.allow_addresses.items,
        .allow_count = d->settings.allow_addresses.count,
        .deny_addresses = d->settings.deny_addresses.items,
        .deny_count = d->settings.deny_addresses.count,
        .delegable_addresses = d->settings.delegable_addresses.items,
        .delegable_count = d->settings.delegable_addresses.count,
    };
    d->guard = guard_new(&o);
    return 0;
}

void
desk_close(struct desk *d)
{
    guard_unref(d->guard);
    policy_context_unref(d->context);
    settings_free(&d->settings);
    free(d->config_file);
    *d = (struct desk){.config_file = NULL};
}

/* ---- policies ---- */

struct policy *
desk_policy_file(struct desk *d, const char *path, struct err *err)
{
    cleanup_free char *text = NULL;
    size_t len = 0;
    if (file_read(path, POLICY_TEXT_MAX, FILE_NOT_WRITABLE_BY_OTHERS, &text, &len, err) < 0) {
        err->kind = ERR_INVALID; /* the file was named by the user */
        return NULL;
    }
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t name_len = strlen(name);
    if (name_len > 5 && strcmp(name + name_len - 5, ".json") == 0)
        name_len -= 5;
    cleanup_free char *stem = mem_dup_slice(slice_of(name, name_len));
    return policy_compile(slice_of(text, len), stem, path, POLICY_FILE, d->context, err);
}

struct policy *
desk_policy_named(struct desk *d, const char *dir, const char *name, struct err *err)
{
    if (!config_name_ok(slice_str(name))) {
        err_invalid(err, "\"%s\" is no name of a policy: expected letters, digits, '.', '_' and '-'", name);
        return NULL;
    }
    cleanup_free char *path = mem_printf("%s/%s.json", dir, name);
    return desk_policy_file(d, path, err);
}

/* ---- tokens ---- */

static int
read_token(const char *file, char **ret, struct slice *ret_token, struct err *err)
{
    size_t len;
    if (file_read(file, TOKEN_FILE_MAX, FILE_ANY, ret, &len, err) < 0) {
        err->kind = ERR_INVALID;
        return -1;
    }
    while (len > 0 && ((*ret)[len - 1] == '\n' || (*ret)[len - 1] == '\r'))
        len--;
    *ret_token = slice_of(*ret, len);
    if (slice_starts_with(*ret_token, "jwt_"))
        *ret_token = slice_of(*ret + 4, len - 4);
    return 0;
}

static struct policy *
policy_of(struct desk *d, const struct identity *id, const char *dir, struct err *err)
{
    if (id->embedded_policy)
        return policy_compile(slice_str(id->embedded_policy), "embedded", "token", POLICY_TOKEN, d->context, err);
    const char *name = id->policy_name ? id->policy_name : d->settings.default_policy;
    if (!name) {
        err_invalid(err, "the token names no policy, and there is no default_policy");
        return NULL;
    }
    struct policy *p = desk_policy_named(d, dir, name, err);
    if (p && id->policy_sha256[0] && strcmp(id->policy_sha256, policy_sha256(p)) != 0) {
        err_invalid(err, "policy %s has the digest %s, but the token asks for %s", name, policy_sha256(p), id->policy_sha256);
        policy_unref(p);
        return NULL;
    }
    return p;
}

static enum reason
judge_token(struct desk *d, struct slice token, const struct keyset *keys, struct identity **ret, struct err *err)
{
    const struct settings *s = &d->settings;
    struct token_rules rules = {
        .issuer = s->issuer, .audience = d->config_file ? s->audience : NULL, .leeway_s = s->leeway_s,
        .max_lifetime_s = s->max_lifetime_s, .embedded = s->embedded,
    };
    enum reason reason = token_verify(&rules, keys, token, ret, err);
    return reason == REASON_OK ? token_check_time(&rules, *ret, clock_wall_us() / 1000000) : reason;
}

enum reason
desk_policy_of_token(struct desk *d, const char *token_file, const char *jwks_file, const char *dir, struct policy **ret,
                     char **ret_claim, struct err *err)
{
    cleanup_free char *jwks = NULL, *text = NULL;
    size_t jwks_len = 0;
    struct slice token;
    struct identity *id = NULL;

    if (file_read(jwks_file, JWKS_FILE_MAX, FILE_NOT_WRITABLE_BY_OTHERS, &jwks, &jwks_len, err) < 0) {
        err->kind = ERR_INVALID;
        return REASON_UNDECIDED;
    }
    struct keyset *keys = keyset_parse(slice_of(jwks, jwks_len), jwks_file, d->settings.allow_hmac, err);
    if (!keys)
        return REASON_UNDECIDED;
    if (read_token(token_file, &text, &token, err) < 0) {
        keyset_unref(keys);
        return REASON_UNDECIDED;
    }
    enum reason reason = judge_token(d, token, keys, &id, err);
    if (reason == REASON_OK) {
        *ret_claim = mem_printf("token of %s", id->sub);
        if (!*ret && !(*ret = policy_of(d, id, dir ? dir : d->settings.policies_dir ? d->settings.policies_dir : "policies", err)))
            reason = REASON_POLICY_UNKNOWN;
    }
    identity_unref(id);
    keyset_unref(keys);
    return reason;
}
