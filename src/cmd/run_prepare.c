/* What one run needs before it begins: a private folder with a key that nobody else has, a token a listener, and the gate's
 * configuration. The private half of the key stays in this process. Nothing here may lie where the sandbox can write: a
 * folder that CMD renames would take the gate's files with it. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sallyport/auth/mint.h"
#include "sallyport/base/clock.h"
#include "sallyport/base/file.h"
#include "sallyport/base/mem.h"
#include "sallyport/base/random.h"
#include "sallyport/cmd/policies.h"
#include "sallyport/cmd/run.h"
#include "sallyport/process/config.h"

#define KID "run"
#define TOKEN_TTL_S 86400
#define POLICY_MAX (4u << 20)
#define DENY_ALL "{\"version\": 1, \"networking\": {\"type\": \"limited\", \"allowed_hosts\": []}}\n"
/* Of the gateway form: what leaves is the parent's to judge. */
#define FORWARD_ALL "{\"version\": 1, \"networking\": {\"type\": \"parent\"}}\n"

struct listener { const char *name, *fd, *kind; bool transparent; };
static const struct listener listeners[] = {
    {"proxy", "sandbox-proxy", "proxy", false},
    {"transparent", "sandbox-transparent", "transparent", true},
    {"dns", "sandbox-dns", "dns", true},
    {"watch", "sandbox-watch", "watch", false},
};
#define LISTENER_COUNT (sizeof listeners / sizeof listeners[0])

static bool
is_used(const struct run *r, const struct listener *l)
{
    return r->o.transparent || !l->transparent;
}

static char *
in_dir(const struct run *r, const char *name)
{
    return mem_printf("%s/%s", r->dir, name);
}

/* ---- inside and outside ---- */

static bool
is_below(const char *path, const char *top)
{
    size_t len = strlen(top);
    return strncmp(path, top, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

/* The directory given to the sandbox that holds path, or NULL. */
static const char *
holder_in(const char *path, const char *const *given, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        cleanup_free char *real = given[i] ? realpath(given[i], NULL) : NULL;
        /* "/" itself is refused by the helper. */
        if (real && strcmp(real, "/") != 0 && is_below(path, real))
            return given[i];
    }
    return NULL;
}

static const char *
writable_holder(const struct run *r, const char *path)
{
    const char *holder = holder_in(path, &r->o.workdir, 1);
    return holder ? holder : holder_in(path, r->o.binds.items, r->o.binds.count);
}

static const char *
any_holder(const struct run *r, const char *path)
{
    const char *holder = writable_holder(r, path);
    if (!holder)
        holder = holder_in(path, r->o.binds_ro.items, r->o.binds_ro.count);
    return holder ? holder : holder_in(path, &r->o.rootfs, 1);
}

/* The path as the kernel sees it; of a file that is not there yet, its folder's. */
static char *
real_name(const char *path)
{
    char *real = realpath(path, NULL);
    if (real)
        return real;
    const char *slash = strrchr(path, '/');
    cleanup_free char *folder = slash ? mem_dup_slice(slice_of(path, (size_t)(slash - path))) : mem_strdup(".");
    cleanup_free char *above = realpath(*folder ? folder : "/", NULL);
    return above ? mem_printf("%s/%s", above, slash ? slash + 1 : path) : mem_strdup(path);
}

/* Read once and copied: from then on it may lie anywhere, but it is not shown. */
static void
hide(struct run *r, const char *path)
{
    cleanup_free char *real = path ? real_name(path) : NULL;
    if (real && any_holder(r, real) && r->hide_count < RUN_HIDES_MAX)
        r->hides[r->hide_count++] = steal(&real);
}

static int
keep_outside(struct run *r, const char *what, const char *path, struct err *err)
{
    if (!path)
        return 0;
    cleanup_free char *real = real_name(path);
    const char *holder = writable_holder(r, real);
    if (holder)
        return err_invalid(err, "%s: %s lies in %s, where the sandbox could replace it; keep it elsewhere", what, path, holder);
    hide(r, path);
    return 0;
}

/* ---- the folder ---- */

static int
make_dir(struct run *r, struct err *err)
{
    const char *bases[RUN_BASES_MAX];
    size_t count = run_bases(bases);
    for (size_t i = 0; i < count; i++) {
        cleanup_free char *real = realpath(bases[i], NULL);
        if (!real || any_holder(r, real))
            continue;
        char *dir = mem_printf("%s/sallyport-XXXXXX", real);
        if (mkdtemp(dir)) {
            r->dir = dir;
            return run_lock(r, err);
        }
        free(dir);
    }
    return err_run(err, "there is no folder for the files of this run that is outside the sandbox and writable "
                        "($XDG_RUNTIME_DIR, /tmp, /dev/shm, /var/tmp were tried)");
}

static int
write_private(const struct run *r, const char *name, const char *text, struct err *err)
{
    cleanup_free char *path = in_dir(r, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int rc = fd < 0 || fd_write_all(fd, slice_str(text)) < 0 ? err_errno(err, "%s", path) : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}

/* ---- identity ---- */

static int
make_key(struct run *r, struct err *err)
{
    char *jwk = NULL, *jwks = NULL;
    if (mint_key(JWA_ES256, KID, &r->key_pem, &jwk, err) < 0)
        return -1;
    int rc = mint_jwks_add(NULL, jwk, &jwks, err);
    if (rc == 0)
        rc = write_private(r, "jwks.json", jwks, err);
    free(jwk);
    free(jwks);
    return rc;
}

/* Bound to one listener: a token that is copied to another sandbox opens nothing there. */
static int
mint_for(struct run *r, const char *listener, int64_t now, char **ret, struct err *err)
{
    json_auto_t *claims = json_pack("{s:s, s:I, s:I, s:{s:s}}", "sub", r->sandbox, "iat", (json_int_t)now, "exp",
                                    (json_int_t)(now + r->token_ttl_s), "cnf", "listener", listener);
    if (r->audience)
        json_object_set_new(claims, "aud", json_string(r->audience));
    if (r->issuer)
        json_object_set_new(claims, "iss", json_string(r->issuer));
    if (r->session)
        json_object_set_new(claims, "session_id", json_string(r->session));
    char *text = json_dumps(claims, JSON_COMPACT);
    int rc = mint_token(slice_str(r->key_pem), KID, text, ret, err);
    free(text);
    return rc;
}

static int
write_token(struct run *r, const struct listener *l, int64_t now, struct err *err)
{
    char *token = NULL;
    cleanup_free char *path = mem_printf("%s/token-%s", r->dir, l->name), *next = mem_printf("%s/token-%s.next", r->dir, l->name);
    if (mint_for(r, l->name, now, &token, err) < 0)
        return -1;
    /* Replaced as a whole: the gate may be reading. */
    int fd = open(next, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int rc = fd < 0 || fd_write_all(fd, slice_str(token)) < 0 || rename(next, path) < 0 ? err_errno(err, "%s", path) : 0;
    if (fd >= 0)
        close(fd);
    mem_wipe(token, strlen(token));
    free(token);
    return rc;
}

static int
write_tokens(struct run *r, struct err *err)
{
    int64_t now = clock_wall_us() / 1000000;
    for (size_t i = 0; i < LISTENER_COUNT; i++)
        if (is_used(r, &listeners[i]) && write_token(r, &listeners[i], now, err) < 0)
            return -1;
    r->token_since_s = now;
    return 0;
}

int64_t
run_renewal_in(const struct run *r)
{
    if (!r->key_pem || !r->token_since_s)
        return -1;
    int64_t left = r->token_since_s + r->token_ttl_s / 2 - clock_wall_us() / 1000000;
    return left > 0 ? left : 0;
}

int
run_renew_tokens(struct run *r, struct err *err)
{
    return run_renewal_in(r) == 0 ? write_tokens(r, err) : 0;
}

/* "user:password" of the classic proxy URL. */
static int
write_credential(struct run *r, struct err *err)
{
    char *token;
    size_t len;
    cleanup_free char *path = in_dir(r, "token-proxy");
    if (file_read(r->o.token_file && !r->o.gateway ? r->o.token_file : path, 32768, FILE_PRIVATE, &token, &len, err) < 0)
        return -1;
    token[strcspn(token, "\r\n")] = '\0';
    cleanup_free char *text = mem_printf("%s:jwt_%s", r->sandbox, token);
    int rc = write_private(r, "credential", text, err);
    mem_wipe(token, len);
    mem_wipe(text, strlen(text));
    free(token);
    return rc;
}

/* ---- configuration ---- */

struct placing { struct run *r; const char *base; struct err *err; bool failed; };

/* Paths stand on the file's folder, and our file is another one. */
static char *
place_path(void *arg, const char *setting, const char *value)
{
    struct placing *p = arg;
    char *whole = value[0] == '/' ? mem_strdup(value) : mem_printf("%s/%s", p->base, value);
    cleanup_free char *what = mem_printf("%s: %s", p->r->o.config, setting);
    if (!p->failed && keep_outside(p->r, what, whole, p->err) < 0)
        p->failed = true;
    if (strcmp(setting, "inspect.ca") == 0) { /* a folder is not hidden as a whole */
        cleanup_free char *key = mem_printf("%s/ca.key", whole);
        hide(p->r, key);
    }
    return whole;
}

static int
read_config(struct run *r, json_t **ret, struct err *err)
{
    char *text;
    size_t len;
    if (!r->o.config) {
        *ret = json_object();
        return 0;
    }
    if (file_read(r->o.config, CONFIG_TEXT_MAX, FILE_ANY, &text, &len, err) < 0)
        return -1;
    json_t *root = json_read(slice_of(text, len), r->o.config, CONFIG_DEPTH_MAX, err);
    free(text);
    if (!root)
        return -1;
    cleanup_free char *real = real_name(r->o.config);
    char *slash = strrchr(real, '/');
    if (slash)
        *slash = '\0';
    struct placing p = {r, real, err, false};
    if (config_check_file(root, r->o.config, err) == 0 && json_object_get(root, "listen"))
        p.failed = (err_invalid(err, "%s: listen: the listeners of a run are its own; leave it out", r->o.config), true);
    else if (err->kind != ERR_NONE)
        p.failed = true;
    else
        config_each_path(root, place_path, &p);
    if (p.failed) {
        json_decref(root);
        return -1;
    }
    *ret = root;
    return 0;
}

static bool
has_setting(const json_t *root, const char *section, const char *name)
{
    return json_object_get(section ? json_object_get(root, section) : root, name) != NULL;
}

static void
set_listeners(const struct run *r, json_t *root)
{
    json_t *list = json_array();
    for (size_t i = 0; i < LISTENER_COUNT; i++) {
        const struct listener *l = &listeners[i];
        if (!is_used(r, l))
            continue;
        cleanup_free char *own = mem_printf("%s/token-%s", r->dir, l->name);
        cleanup_free char *given = r->key_pem ? NULL : real_name(r->o.token_file);
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "name", l->name, "fd", l->fd, "kind", l->kind, "token_file",
                                              given ? given : own));
    }
    config_set(root, "listen", list);
}

static void
set_gateway(const struct run *r, json_t *root)
{
    cleanup_free char *token = real_name(r->o.token_file);
    config_set(root, "upstream.parent", json_string(r->o.gateway));
    config_set(root, "upstream.parent_token_file", json_string(token));
    if (r->o.gateway_ca) {
        cleanup_free char *ca = real_name(r->o.gateway_ca);
        config_set(root, "upstream.ca_file", json_string(ca));
    }
}

/* Root of a user namespace may have no other id to become (rootless containers). */
#define NOBODY 65534

static bool
id_exists(unsigned long id)
{
    FILE *f = fopen("/proc/self/uid_map", "re");
    unsigned long inside, outside, count;
    bool found = f == NULL;
    while (f && !found && fscanf(f, "%lu %lu %lu", &inside, &outside, &count) == 3)
        found = id >= inside && id - inside < count;
    if (f)
        fclose(f);
    return found;
}

/* What a run has by itself, where the file says nothing. */
static void
set_defaults(struct run *r, json_t *root)
{
    cleanup_free char *record = in_dir(r, "decisions.jsonl");
    char *registries = has_setting(root, NULL, "registries") ? NULL : data_file("registries.json");
    cleanup_free char *real = registries ? real_name(registries) : NULL;
    if (real)
        config_set(root, "registries", json_string(real));
    free(registries);
    if (!has_setting(root, NULL, "workers"))
        config_set(root, "workers", json_integer(1));
    if (!json_object_get(root, "user") && geteuid() == 0 && !id_exists(NOBODY))
        config_set(root, "user", json_null());
    if (!has_setting(root, "auth", "revoked"))
        config_set(root, "auth.revoked", json_null());
    if (!has_setting(root, "admin", "socket"))
        config_set(root, "admin.socket", json_null());
    if (!has_setting(root, "record", "path"))
        config_set(root, "record.path", json_string(record));
    if (r->key_pem) {
        cleanup_free char *keys = in_dir(r, "jwks.json");
        config_set(root, "auth.keys", json_string(keys));
    }
}

/* What the token must say, and where the records go: as the gate will read it. */
static int
learn(struct run *r, const json_t *root, const char *file, struct err *err)
{
    struct stat st;
    struct settings s;
    if (config_read(root, file, NULL, &s, err) < 0)
        return -1;
    r->record = s.record_path ? mem_strdup(s.record_path) : NULL;
    r->record_start = r->record && stat(r->record, &st) == 0 ? st.st_size : 0;
    r->audience = s.audience ? mem_strdup(s.audience) : NULL;
    r->issuer = s.issuer ? mem_strdup(s.issuer) : NULL;
    r->token_ttl_s = s.max_lifetime_s < TOKEN_TTL_S ? s.max_lifetime_s : TOKEN_TTL_S;
    settings_free(&s);
    return 0;
}

static int
write_config(struct run *r, json_t *root, struct err *err)
{
    cleanup_free char *path = in_dir(r, "config.json");
    set_listeners(r, root);
    if (r->o.gateway)
        set_gateway(r, root);
    set_defaults(r, root);
    if (learn(r, root, r->o.config ? r->o.config : path, err) < 0)
        return -1;
    char *text = json_dumps(root, JSON_INDENT(1));
    int rc = write_private(r, "config.json", text, err);
    free(text);
    return rc;
}

/* The policy that is in force for all of the run: a copy. */
static int
read_policy(struct run *r, struct err *err)
{
    size_t len;
    if (r->o.policy)
        return file_read(r->o.policy, POLICY_MAX, FILE_ANY, &r->policy_text, &len, err);
    if (r->work_policy)
        r->policy_text = mem_strdup(r->work_policy);
    else if (r->o.gateway)
        r->policy_text = mem_strdup(FORWARD_ALL);
    else if (!r->o.config)
        r->policy_text = mem_strdup(DENY_ALL);
    return 0;
}

static int
write_policy(struct run *r, struct err *err)
{
    return r->policy_text ? write_private(r, "policy.json", r->policy_text, err) : 0;
}

/* The gate may be started much later: what is wrong with a policy is said now. */
static int
try_policy(const struct run *r, struct err *err)
{
    struct desk desk;
    cleanup_free char *config = in_dir(r, "config.json"), *work = in_dir(r, "policy.json");
    if (!r->o.policy && !r->work_policy)
        return 0;
    if (desk_open(&desk, config, err) < 0)
        return -1;
    struct policy *policy = desk_policy_file(&desk, r->o.policy ? r->o.policy : work, err);
    bool fine = policy != NULL;
    policy_unref(policy);
    desk_close(&desk);
    return fine ? 0 : -1;
}

/* ---- all of it ---- */

static int
check_options(struct run *r, struct err *err)
{
    const struct run_options *o = &r->o;
    if (o->gateway && !o->token_file)
        return err_invalid(err, "--gateway: --token-file is expected with it");
    if (!o->gateway && o->gateway_ca)
        return err_invalid(err, "--gateway-ca: belongs to --gateway, which is not given");
    if (!o->gateway && o->token_file && !o->config)
        return err_invalid(err, "--token-file: --gateway URL, or --config with the auth.keys that verify it, is expected with it");
    if (keep_outside(r, "--token-file", o->token_file, err) < 0 || keep_outside(r, "--gateway-ca", o->gateway_ca, err) < 0)
        return -1;
    hide(r, o->config);
    if (!o->token_file)
        return 0;
    /* A token that cannot be read is found now, not by the gate. */
    char *token;
    size_t len;
    if (file_read(o->token_file, 32768, FILE_PRIVATE, &token, &len, err) < 0)
        return err_wrap(err, "--token-file");
    mem_wipe(token, len);
    free(token);
    return 0;
}

int
run_begin(struct run *r, struct err *err)
{
    if (!r->sandbox) {
        char id[ULID_TEXT_SIZE];
        random_ulid(clock_wall_us() / 1000, id);
        r->sandbox = mem_printf("run-%s", id);
    }
    r->has_policy = r->o.policy || r->work_policy || r->o.gateway || !r->o.config;
    hide(r, r->o.policy);
    if (check_options(r, err) < 0 || make_dir(r, err) < 0)
        return -1;
    if (read_config(r, &r->config, err) < 0 || read_policy(r, err) < 0)
        return -1;
    return run_make_trust(r, err);
}

int
run_finish(struct run *r, struct err *err)
{
    if ((!r->o.token_file || r->o.gateway) && make_key(r, err) < 0)
        return -1;
    if (write_config(r, r->config, err) < 0 || write_policy(r, err) < 0 || try_policy(r, err) < 0)
        return -1;
    if (r->key_pem && write_tokens(r, err) < 0)
        return -1;
    return r->o.expose_token ? write_credential(r, err) : 0;
}

void
run_remove(struct run *r)
{
    static const char *const names[] = {"jwks.json", "config.json", "policy.json", "credential", "notify", "gate.log", "decisions.jsonl",
                                        "decisions.jsonl.lock", "ca.pem", "ca.key", "ca-bundle.pem", "lock.new", "lock"};
    for (size_t i = 0; r->dir && i < sizeof names / sizeof names[0]; i++) {
        cleanup_free char *path = in_dir(r, names[i]);
        unlink(path);
    }
    for (size_t i = 0; r->dir && i < LISTENER_COUNT; i++) {
        cleanup_free char *path = mem_printf("%s/token-%s", r->dir, listeners[i].name);
        unlink(path);
    }
    if (r->dir)
        rmdir(r->dir);
    if (r->lock > 0)
        close(r->lock);
    r->lock = 0;
    if (r->key_pem)
        mem_wipe(r->key_pem, strlen(r->key_pem));
    for (size_t i = 0; i < r->hide_count; i++)
        free((char *)(uintptr_t)r->hides[i]);
    r->hide_count = 0;
    json_decref(steal(&r->config));
    free(steal(&r->key_pem));
    free(steal(&r->dir));
    free(steal(&r->record));
    free(steal(&r->audience));
    free(steal(&r->issuer));
    free(steal(&r->sandbox));
    free(steal(&r->session));
    free(steal(&r->work_policy));
    free(steal(&r->policy_text));
}
