/* Reading what the settings name, and packing it for those who have no files. Used by the supervisor alone; bundleview.c is
 * the other side. A file that is wrong is an error with its name: the caller keeps the old bundle. */
#include "sallyport/process/bundle.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sallyport/base/diag.h"
#include "sallyport/base/file.h"
#include "sallyport/base/mem.h"
#include "sallyport/process/bundlepack.h"
#include "sallyport/process/config.h"
#include "sallyport/tls/context.h"

#define SMALL_FILE_MAX (8u << 20) /* keys, revocations, registries, PEMs */
/* Those who judge by policies. */
#define FOR_POLICIES (FOR_WORKER | FOR_ADMIN | FOR_KEEPER)
#define QUIET_S 2 /* file systems with coarse clocks keep whole seconds */
#define REGISTRIES_NAME "registries.json"
#define BLOCKLIST_NAME "safety-blocklist.json"

/* Takes bytes over. */
static void
add_owned(struct bundle *b, const char *name, char *bytes, size_t len, unsigned audience)
{
    if (b->count == b->room) {
        b->room = b->room ? b->room * 2 : 64;
        b->items = mem_realloc(b->items, b->room * sizeof *b->items);
    }
    b->items[b->count++] = (struct bundle_item){.name = mem_strdup(name), .bytes = bytes, .len = len, .audience = audience};
    b->bytes += len;
}

void
bundle_add(struct bundle *b, const char *name, const void *bytes, size_t len, unsigned audience)
{
    add_owned(b, name, mem_dup_slice(slice_of(bytes, len)), len, audience);
}

void
bundle_done(struct bundle *b)
{
    for (size_t i = 0; i < b->count; i++) {
        mem_wipe(b->items[i].bytes, b->items[i].len);
        free(b->items[i].bytes);
        free(b->items[i].name);
    }
    free(b->items);
    *b = (struct bundle){0};
}

static int
add_file(struct bundle *b, const char *name, const char *path, int checks, unsigned audience, const char *setting, struct err *err)
{
    char *bytes;
    size_t len;
    if (file_read(path, SMALL_FILE_MAX, checks, &bytes, &len, err) < 0)
        return err_wrap(err, "%s", setting);
    add_owned(b, name, bytes, len, audience);
    return 0;
}

static bool
exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 || errno != ENOENT;
}

/* A file that may be absent. */
static int
add_optional(struct bundle *b, const char *name, const char *path, unsigned audience, const char *setting, struct err *err)
{
    if (!path || !exists(path))
        return 0;
    return add_file(b, name, path, FILE_NOT_WRITABLE_BY_OTHERS, audience, setting, err);
}

/* A secret that is one line; the newline at its end is not part of it. */
static int
add_secret_line(struct bundle *b, const char *name, const char *path, const char *setting, struct err *err)
{
    if (add_file(b, name, path, FILE_PRIVATE, FOR_WORKER, setting, err) < 0)
        return -1;
    struct bundle_item *item = &b->items[b->count - 1];
    while (item->len && (item->bytes[item->len - 1] == '\n' || item->bytes[item->len - 1] == '\r'))
        item->len--;
    return item->len ? 0 : err_invalid(err, "%s: %s: is empty", setting, path);
}

/* ---- policies ---- */

static int
by_name(const void *a, const void *b)
{
    return strcmp(((const struct bundle_item *)a)->name, ((const struct bundle_item *)b)->name);
}

static const struct bundle_item *
find_item(const struct bundle *b, const char *name)
{
    struct bundle_item key = {.name = (char *)(uintptr_t)name};
    return b && b->count ? bsearch(&key, b->items, b->count, sizeof *b->items, by_name) : NULL;
}

/* A file that changed a moment ago may change again within the same tick of its clock, so its mark is not trusted. */
static struct file_mark
mark_of(const char *path)
{
    struct stat st;
    struct timespec now;
    if (stat(path, &st) < 0)
        return (struct file_mark){0};
    clock_gettime(CLOCK_REALTIME, &now);
    return (struct file_mark){.modified = st.st_mtim, .changed = st.st_ctim, .dev = st.st_dev, .ino = st.st_ino, .size = st.st_size,
                              .trusted = now.tv_sec - st.st_ctim.tv_sec > QUIET_S && now.tv_sec - st.st_mtim.tv_sec > QUIET_S};
}

static bool
same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool
same_mark(const struct file_mark *a, const struct file_mark *b)
{
    return a->trusted && b->trusted && a->dev == b->dev && a->ino == b->ino && a->size == b->size && same_time(a->modified, b->modified) &&
           same_time(a->changed, b->changed);
}

static int
add_policy(struct bundle *b, const char *name, const char *path, const struct bundle *before, struct err *err)
{
    char *bytes;
    size_t len;
    cleanup_free char *blob = mem_printf("policy/%s", name);
    cleanup_free char *file = mem_printf("policy-file/%s", name);
    struct file_mark mark = mark_of(path);
    const struct bundle_item *known = find_item(before, blob);
    if (known && same_mark(&known->mark, &mark)) {
        len = known->len;
        bytes = mem_dup_slice(slice_of(known->bytes, len));
    } else if (file_read(path, POLICY_TEXT_MAX, FILE_NOT_WRITABLE_BY_OTHERS, &bytes, &len, err) < 0) {
        return err_wrap(err, "policy");
    }
    add_owned(b, blob, bytes, len, FOR_POLICIES);
    b->items[b->count - 1].mark = mark;
    bundle_add(b, file, path, strlen(path), FOR_POLICIES);
    b->policies++;
    if (b->bytes > BUNDLE_BYTES_MAX || b->policies > BUNDLE_FILES_MAX)
        return err_invalid(err, "policies: more than %llu bytes or %u files", BUNDLE_BYTES_MAX, BUNDLE_FILES_MAX);
    return 0;
}

/* NAME.json -> the length of NAME; 0 for what is not a policy. */
static size_t
policy_stem(const char *file)
{
    size_t len = strlen(file);
    if (len < 6 || strcmp(file + len - 5, ".json") != 0 || file[0] == '.')
        return 0;
    if (strcmp(file, REGISTRIES_NAME) == 0 || strcmp(file, BLOCKLIST_NAME) == 0)
        return 0;
    if (!config_name_ok(slice_of(file, len - 5))) {
        diag(DIAG_WARNING, "policies: %s: is left out: letters, digits, '.', '_' and '-' are expected in a name", file);
        return 0;
    }
    return len - 5;
}

static int
add_policies(struct bundle *b, const char *folder, const struct bundle *before, struct err *err)
{
    DIR *dir = opendir(folder);
    if (!dir && errno == ENOENT) {
        diag(DIAG_WARNING, "policies: %s: there is no such folder: every token gets policy_unknown", folder);
        return 0;
    }
    if (!dir)
        return err_errno(err, "policies: %s", folder);
    int rc = 0;
    for (struct dirent *e = readdir(dir); e && rc == 0; e = readdir(dir)) {
        size_t stem = policy_stem(e->d_name);
        if (!stem)
            continue;
        cleanup_free char *name = mem_dup_slice(slice_of(e->d_name, stem));
        cleanup_free char *path = mem_printf("%s/%s", folder, e->d_name);
        rc = add_policy(b, name, path, before, err);
    }
    closedir(dir);
    return rc;
}

static int
add_all_policies(struct bundle *b, const struct settings *s, const struct bundle_extra *extra, struct err *err)
{
    if (extra->policy) {
        bundle_add(b, "policy/policy", extra->policy, strlen(extra->policy), FOR_POLICIES);
        b->policies++;
        return 0;
    }
    if (s->policy_file)
        return add_policy(b, "policy", s->policy_file, extra->before, err);
    return s->policies_dir ? add_policies(b, s->policies_dir, extra->before, err) : 0;
}

/* ---- the rest ---- */

static int
add_registries(struct bundle *b, const struct settings *s, struct err *err)
{
    if (!s->registries_path)
        return 0;
    const char *slash = strrchr(s->registries_path, '/');
    struct slice folder = slash ? slice_of(s->registries_path, (size_t)(slash - s->registries_path) + 1) : slice_str("");
    cleanup_free char *blocklist = mem_printf("%.*s" BLOCKLIST_NAME, SLICE_ARG(folder));
    if (add_optional(b, "registries", s->registries_path, FOR_POLICIES, "registries", err) < 0)
        return -1;
    return add_optional(b, "blocklist", blocklist, FOR_POLICIES, "registries", err);
}

static int
add_keys(struct bundle *b, const struct settings *s, const struct bundle_extra *extra, struct err *err)
{
    if (extra->keys_jwks) {
        bundle_add(b, "keys", extra->keys_jwks, strlen(extra->keys_jwks), FOR_POLICIES);
        return 0;
    }
    if (!s->keys_path)
        return err_invalid(err, "auth.keys: a key file is expected");
    int checks = FILE_NOT_WRITABLE_BY_OTHERS | (s->allow_hmac ? FILE_PRIVATE : 0);
    return add_file(b, "keys", s->keys_path, checks, FOR_WORKER | FOR_KEEPER | (s->allow_hmac ? 0 : FOR_ADMIN), "auth.keys", err);
}

static int
add_token_fd(struct bundle *b, const struct listener_settings *l, const struct bundle_extra *extra, struct err *err)
{
    cleanup_free char *name = mem_printf("listener-token/%s", l->name);
    for (size_t i = 0; extra->token_names && extra->token_names[i]; i++)
        if (strcmp(extra->token_names[i], l->token_fd) == 0) {
            bundle_add(b, name, extra->token_texts[i], strlen(extra->token_texts[i]), FOR_WORKER);
            return 0;
        }
    return err_invalid(err, "listen: %s: token_fd: no descriptor named \"%s\" was passed", l->name, l->token_fd);
}

static int
add_listener(struct bundle *b, const struct listener_settings *l, const struct bundle_extra *extra, struct err *err)
{
    cleanup_free char *where = mem_printf("listen: %s", l->name);
    cleanup_free char *token = mem_printf("listener-token/%s", l->name);
    cleanup_free char *cert = mem_printf("tls-cert/%s", l->name);
    cleanup_free char *key = mem_printf("tls-key/%s", l->name);
    cleanup_free char *ca = mem_printf("tls-client-ca/%s", l->name);
    if (l->token_fd && add_token_fd(b, l, extra, err) < 0)
        return -1;
    if (l->token_file && add_secret_line(b, token, l->token_file, where, err) < 0)
        return -1;
    if (l->tls_cert && add_file(b, cert, l->tls_cert, FILE_NOT_WRITABLE_BY_OTHERS, FOR_WORKER, where, err) < 0)
        return -1;
    if (l->tls_key && add_file(b, key, l->tls_key, FILE_PRIVATE, FOR_WORKER, where, err) < 0)
        return -1;
    if (l->tls_client_ca && add_file(b, ca, l->tls_client_ca, FILE_NOT_WRITABLE_BY_OTHERS, FOR_WORKER, where, err) < 0)
        return -1;
    return 0;
}

static int
add_upstream(struct bundle *b, const struct settings *s, struct err *err)
{
    if (s->upstream_ca_file &&
        add_file(b, "upstream-ca", s->upstream_ca_file, FILE_NOT_WRITABLE_BY_OTHERS, FOR_WORKER, "upstream.ca_file", err) < 0)
        return -1;
    if (s->parent_token_file && add_secret_line(b, "parent-token", s->parent_token_file, "upstream.parent_token_file", err) < 0)
        return -1;
    return add_optional(b, "resolv", "/etc/resolv.conf", FOR_WORKER, "resolv.conf", err);
}

/* Roots for upstreams where the operator names none. */
static int
add_system_roots(struct bundle *b, struct err *err)
{
    const char *path = tls_system_roots();
    if (!path)
        return err_run(err, "upstream.ca_file: this system has no CA certificates in a usual place; name a file");
    return add_file(b, "system-roots", path, FILE_NOT_WRITABLE_BY_OTHERS, FOR_WORKER, "upstream.ca_file", err);
}

static void
add_leaf_key(struct bundle *b, const char *private_pem, const char *public_pem)
{
    bundle_add(b, "leaf-key", private_pem, strlen(private_pem), FOR_WORKER);
    bundle_add(b, "leaf-public", public_pem, strlen(public_pem), FOR_KEEPER);
}

/* The CA's certificate goes to all who deal with leaves; its key is in no bundle. */
static int
add_inspection(struct bundle *b, const struct settings *s, const struct bundle_extra *extra, struct err *err)
{
    if (s->inspect == INSPECT_OFF)
        return 0;
    cleanup_free char *ca = mem_printf("%s/ca.pem", s->ca_dir ? s->ca_dir : ".");
    if (add_file(b, "inspect-ca", ca, FILE_NOT_WRITABLE_BY_OTHERS, FOR_WORKER | FOR_KEEPER, "inspect.ca", err) < 0)
        return -1;
    if (extra->leaf_private)
        add_leaf_key(b, extra->leaf_private, extra->leaf_public);
    return s->upstream_ca_file ? 0 : add_system_roots(b, err);
}

static void
add_config(struct bundle *b, const json_t *config, const char *base)
{
    char *text = json_dumps(config, JSON_COMPACT | JSON_SORT_KEYS);
    bundle_add(b, "config", text, strlen(text), FOR_ALL);
    free(text);
    bundle_add(b, "config-base", base ? base : "", base ? strlen(base) : 0, FOR_ALL);
}

static int
collect(const struct settings *s, const struct bundle_extra *extra, struct bundle *b, struct err *err)
{
    if (add_keys(b, s, extra, err) < 0 || add_optional(b, "revoked", s->revoked_path, FOR_POLICIES, "auth.revoked", err) < 0 ||
        add_registries(b, s, err) < 0 || add_upstream(b, s, err) < 0 || add_all_policies(b, s, extra, err) < 0 || add_inspection(b, s, extra, err) < 0)
        return -1;
    for (size_t i = 0; i < s->listener_count; i++)
        if (add_listener(b, &s->listeners[i], extra, err) < 0)
            return -1;
    if (s->checkpoint_key_path &&
        add_file(b, "checkpoint-key", s->checkpoint_key_path, FILE_PRIVATE, FOR_RECORDER, "record.checkpoint_key", err) < 0)
        return -1;
    return 0;
}

/* Both are in the order of names. */
static void
compare(struct bundle *b, const struct bundle *before)
{
    for (size_t i = 0, k = 0; before && i < b->count && k < before->count;) {
        struct bundle_item *item = &b->items[i];
        const struct bundle_item *known = &before->items[k];
        int order = by_name(item, known);
        if (order == 0)
            item->same = known->len == item->len && memcmp(known->bytes, item->bytes, item->len) == 0;
        i += order <= 0;
        k += order >= 0;
    }
}

int
bundle_collect(const json_t *config, const char *base, const struct settings *settings, const struct bundle_extra *extra,
               struct bundle *ret, struct err *err)
{
    struct bundle b = {0};
    add_config(&b, config, base);
    if (extra->own)
        bundle_add(&b, "own", extra->own, strlen(extra->own), FOR_POLICIES);
    if (extra->listening)
        bundle_add(&b, "listening", extra->listening, strlen(extra->listening), FOR_POLICIES);
    if (collect(settings, extra, &b, err) < 0) {
        bundle_done(&b);
        return -1;
    }
    /* In a fixed order, so that the same files make the same bytes. */
    qsort(b.items, b.count, sizeof *b.items, by_name);
    compare(&b, extra->before);
    *ret = b;
    return 0;
}

bool
bundle_same(const struct bundle *b, const struct bundle *before)
{
    for (size_t i = 0; i < b->count; i++)
        if (!b->items[i].same)
            return false;
    return b->count == before->count;
}

void
bundle_add_leaf_key(struct bundle *b, const char *private_pem, const char *public_pem)
{
    add_leaf_key(b, private_pem, public_pem);
    qsort(b->items, b->count, sizeof *b->items, by_name);
}

/* What every policy is compiled with. */
static bool
same_context(const struct bundle *b)
{
    static const char *const names[] = {"config", "config-base", "registries", "blocklist"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const struct bundle_item *item = find_item(b, names[i]);
        if (item && !item->same)
            return false;
    }
    return true;
}

/* ---- packing ---- */

/* What is packed, and for whom. */
struct packing {
    enum audience audience;
    bool skip_same; /* policies that are as they were */
};

static bool
is_packed(const struct bundle_item *item, const struct packing *p)
{
    if (p->skip_same && item->same && slice_starts_with(slice_str(item->name), "policy/"))
        return false;
    return item->audience & p->audience;
}

static size_t
packed_size(const struct bundle *b, const struct packing *p, uint64_t *ret_count)
{
    size_t size = sizeof(struct pack_head);
    *ret_count = 0;
    for (size_t i = 0; i < b->count; i++)
        if (is_packed(&b->items[i], p)) {
            size += sizeof(struct pack_entry) + strlen(b->items[i].name) + b->items[i].len;
            ++*ret_count;
        }
    return size;
}

static void
pack(const struct bundle *b, const struct packing *p, char *out, size_t size, uint64_t count)
{
    struct pack_head head = {PACK_MAGIC, count, size};
    memcpy(out, &head, sizeof head);
    char *entry = out + sizeof head, *at = entry + count * sizeof(struct pack_entry);
    for (size_t i = 0; i < b->count; i++) {
        const struct bundle_item *item = &b->items[i];
        if (!is_packed(item, p))
            continue;
        struct pack_entry e = {.name_at = (uint64_t)(at - out), .name_len = strlen(item->name), .len = item->len};
        e.at = e.name_at + e.name_len;
        memcpy(entry, &e, sizeof e);
        memcpy(at, item->name, e.name_len);
        memcpy(at + e.name_len, item->bytes, item->len);
        entry += sizeof e;
        at += e.name_len + item->len;
    }
}

int
bundle_seal(const struct bundle *b, enum audience audience, bool news, struct err *err)
{
    uint64_t count;
    const struct packing p = {audience, news && same_context(b)};
    size_t size = packed_size(b, &p, &count);
    int fd = memfd_create("sallyport-bundle", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return err_errno(err, "memfd_create");
    char *map = MAP_FAILED;
    if (ftruncate(fd, (off_t)size) == 0)
        map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        err_errno(err, "a bundle of %zu bytes", size);
        close(fd);
        return -1;
    }
    pack(b, &p, map, size, count);
    munmap(map, size);
    if (fcntl(fd, F_ADD_SEALS, PACK_SEALS) < 0) {
        err_errno(err, "sealing the bundle");
        close(fd);
        return -1;
    }
    return fd;
}
