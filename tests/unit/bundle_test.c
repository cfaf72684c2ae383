/* The bundle: files into a sealed memfd and back; permissions, missing files, secrets' audience, and bundles that lie. */
#include "sallyport/process/bundle.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sallyport/base/mem.h"
#include "sallyport/process/bundlepack.h"
#include "sallyport/process/config.h"
#include "unit/test.h"

static char folder[64];

static void
make_folder(void)
{
    strcpy(folder, "/tmp/sallyport-bundle-XXXXXX");
    CHECK(mkdtemp(folder) != NULL);
}

static void
put(const char *name, const char *text, mode_t mode)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0 && chmod(path, mode) == 0);
}

static void
remove_file(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    CHECK(unlink(path) == 0);
}

static void
remove_folder(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    CHECK(system(command) == 0);
}

struct made {
    json_t *config;
    struct settings settings;
    struct bundle bundle;
};

static int
make(struct made *m, const char *config, const struct bundle_extra *extra, struct err *err)
{
    *m = (struct made){0};
    m->config = json_loads(config, 0, NULL);
    if (config_read(m->config, "c.json", folder, &m->settings, err) < 0)
        return -1;
    struct bundle_extra none = {0};
    return bundle_collect(m->config, folder, &m->settings, extra ? extra : &none, &m->bundle, err);
}

static void
unmake(struct made *m)
{
    bundle_done(&m->bundle);
    settings_free(&m->settings);
    json_decref(m->config);
}

#define CONFIG "{\"auth\":{\"keys\":\"k.json\"},\"policies\":\"policies\"}"

static void
basic_files(void)
{
    char path[128];
    make_folder();
    snprintf(path, sizeof path, "%s/policies", folder);
    CHECK(mkdir(path, 0755) == 0);
    put("k.json", "KEYS", 0644);
    put("policies/one.json", "ONE", 0644);
    put("policies/t.w-o_2.json", "TWO", 0644);
}

TEST(files_travel_and_come_back)
{
    struct made m;
    struct err err = {0};
    struct bundle_view *v;
    basic_files();
    put("policies/registries.json", "REG", 0644);
    put("policies/safety-blocklist.json", "BLOCK", 0644);
    put("policies/.hidden.json", "x", 0644);
    put("policies/readme.txt", "x", 0644);
    put("policies/bad name.json", "x", 0644);
    put("revoked.json", "[]", 0644);
    CHECK_THAT(make(&m, CONFIG, NULL, &err) == 0, "%s", err.text);
    CHECK(m.bundle.policies == 2);
    int fd = bundle_seal(&m.bundle, FOR_WORKER, false, &err);
    CHECK(fd >= 0);
    CHECK((fcntl(fd, F_GET_SEALS) & PACK_SEALS) == PACK_SEALS);
    CHECK(write(fd, "x", 1) < 0);
    CHECK_THAT(bundle_open(fd, &v, &err) == 0, "%s", err.text);
    CHECK(slice_is(bundle_view_blob(v, "keys"), "KEYS"));
    CHECK(slice_is(bundle_view_blob(v, "policy/one"), "ONE"));
    CHECK(slice_is(bundle_view_blob(v, "policy/t.w-o_2"), "TWO"));
    CHECK(slice_is(bundle_view_blob(v, "registries"), "REG"));
    CHECK(slice_is(bundle_view_blob(v, "blocklist"), "BLOCK"));
    CHECK(slice_is(bundle_view_blob(v, "revoked"), "[]"));
    CHECK(bundle_view_blob(v, "policy/registries").ptr == NULL);
    CHECK(bundle_view_blob(v, "policy/bad name").ptr == NULL);
    CHECK(bundle_view_blob(v, "policy-file/one").ptr != NULL);
    CHECK_STR(v->settings.audience, "sallyport");
    CHECK(strstr(v->settings.keys_path, folder) == v->settings.keys_path);
    bundle_close(v);
    unmake(&m);
    remove_folder();
}

static bool
travels(const struct bundle *b, enum audience who, const char *name, const char *text)
{
    struct err err = {0};
    struct bundle_view *v;
    int fd = bundle_seal(b, who, false, &err);
    if (fd < 0 || bundle_open(fd, &v, &err) < 0)
        return false;
    struct slice got = bundle_view_blob(v, name);
    bool there = got.ptr && slice_is(got, text);
    bundle_close(v);
    return there;
}

static bool
packs_the_same(const struct bundle *a, const struct bundle *b)
{
    static char one[65536], two[sizeof one];
    struct err err = {0};
    int fd_a = bundle_seal(a, FOR_WORKER, false, &err), fd_b = bundle_seal(b, FOR_WORKER, false, &err);
    ssize_t len_a = pread(fd_a, one, sizeof one, 0), len_b = pread(fd_b, two, sizeof two, 0);
    CHECK(len_a > 0 && len_b > 0 && len_a < (ssize_t)sizeof one);
    close(fd_a);
    close(fd_b);
    return len_a == len_b && memcmp(one, two, (size_t)len_a) == 0;
}

TEST(the_same_files_make_the_same_bytes)
{
    struct made a, b;
    struct err err = {0};
    basic_files();
    CHECK(make(&a, CONFIG, NULL, &err) == 0 && make(&b, CONFIG, NULL, &err) == 0);
    CHECK(packs_the_same(&a.bundle, &b.bundle));
    unmake(&b);
    put("policies/one.json", "OTHER", 0644);
    CHECK(make(&b, CONFIG, NULL, &err) == 0);
    CHECK(!packs_the_same(&a.bundle, &b.bundle));
    unmake(&a);
    unmake(&b);
    remove_folder();
}

TEST(what_has_changed_since_the_bundle_before_is_told)
{
    struct made a, b;
    struct err err = {0};
    basic_files();
    CHECK(make(&a, CONFIG, NULL, &err) == 0);
    struct bundle_extra extra = {.before = &a.bundle};
    CHECK(make(&b, CONFIG, &extra, &err) == 0);
    CHECK(bundle_same(&b.bundle, &a.bundle));
    bundle_add_leaf_key(&b.bundle, "PRIVATE", "PUBLIC");
    CHECK(!bundle_same(&b.bundle, &a.bundle));
    unmake(&b);
    put("policies/one.json", "OTHER", 0644);
    CHECK(make(&b, CONFIG, &extra, &err) == 0);
    CHECK(!bundle_same(&b.bundle, &a.bundle));
    unmake(&b);
    put("policies/three.json", "ONE", 0644);
    put("policies/one.json", "ONE", 0644);
    CHECK(make(&b, CONFIG, &extra, &err) == 0);
    CHECK(!bundle_same(&b.bundle, &a.bundle));
    unmake(&b);
    remove_file("policies/three.json");
    remove_file("policies/one.json");
    CHECK(make(&b, CONFIG, &extra, &err) == 0);
    CHECK(!bundle_same(&b.bundle, &a.bundle));
    unmake(&b);
    unmake(&a);
    remove_folder();
}

TEST(a_leaf_key_goes_to_workers_and_its_public_half_to_the_keeper)
{
    struct made m;
    struct err err = {0};
    basic_files();
    CHECK(make(&m, CONFIG, NULL, &err) == 0);
    bundle_add_leaf_key(&m.bundle, "PRIVATE", "PUBLIC");
    for (size_t i = 1; i < m.bundle.count; i++)
        CHECK(strcmp(m.bundle.items[i - 1].name, m.bundle.items[i].name) < 0);
    CHECK(travels(&m.bundle, FOR_WORKER, "leaf-key", "PRIVATE") && !travels(&m.bundle, FOR_KEEPER, "leaf-key", "PRIVATE"));
    CHECK(travels(&m.bundle, FOR_KEEPER, "leaf-public", "PUBLIC") && !travels(&m.bundle, FOR_WORKER, "leaf-public", "PUBLIC"));
    unmake(&m);
    remove_folder();
}

TEST(what_is_missing_or_too_open_is_refused)
{
    struct made m;
    struct err err = {0};
    basic_files();
    put("k.json", "KEYS", 0666);
    CHECK(make(&m, CONFIG, NULL, &err) < 0 && strstr(err.text, "auth.keys") && strstr(err.text, "k.json"));
    unmake(&m);
    put("k.json", "KEYS", 0644);
    put("policies/one.json", "ONE", 0662);
    CHECK(make(&m, CONFIG, NULL, &err) < 0 && strstr(err.text, "one.json"));
    unmake(&m);
    put("policies/one.json", "ONE", 0644);
    CHECK(make(&m, "{\"auth\":{\"keys\":\"none.json\"}}", NULL, &err) < 0 && strstr(err.text, "none.json"));
    unmake(&m);
    /* A folder that is not there opens nothing, and is no error. */
    CHECK(make(&m, "{\"auth\":{\"keys\":\"k.json\"},\"policies\":\"nowhere\"}", NULL, &err) == 0 && m.bundle.policies == 0);
    unmake(&m);
    /* Secrets must be private. */
    put("token", "secret\n", 0644);
    static const char listener[] = "{\"auth\":{\"keys\":\"k.json\"},\"listen\":[{\"name\":\"l\",\"address\":\"127.0.0.1:1\",\"token_file\":\"token\"}]}";
    CHECK(make(&m, listener, NULL, &err) < 0 && strstr(err.text, "token"));
    unmake(&m);
    put("token", "\n", 0600);
    CHECK(make(&m, listener, NULL, &err) < 0 && strstr(err.text, "empty"));
    unmake(&m);
    remove_folder();
}

TEST(secrets_go_only_where_they_are_used)
{
    struct made m;
    struct err err = {0};
    basic_files();
    put("token", "secret\r\n", 0600);
    put("ck.pem", "CHECKPOINT", 0600);
    put("key.pem", "KEY", 0600);
    put("cert.pem", "CERT", 0644);
    CHECK_THAT(make(&m,
                    "{\"auth\":{\"keys\":\"k.json\"},\"record\":{\"checkpoint_key\":\"ck.pem\"},\"upstream\":{\"parent_token_file\":\"token\"},"
                    "\"listen\":[{\"name\":\"l\",\"address\":\"127.0.0.1:1\",\"token_file\":\"token\",\"tls\":{\"cert\":\"cert.pem\",\"key\":\"key.pem\"}}]}",
                    NULL, &err) == 0, "%s", err.text);
    CHECK(travels(&m.bundle, FOR_WORKER, "listener-token/l", "secret"));
    CHECK(travels(&m.bundle, FOR_WORKER, "tls-key/l", "KEY"));
    CHECK(travels(&m.bundle, FOR_WORKER, "parent-token", "secret"));
    CHECK(!travels(&m.bundle, FOR_WORKER, "checkpoint-key", "CHECKPOINT"));
    CHECK(travels(&m.bundle, FOR_RECORDER, "checkpoint-key", "CHECKPOINT"));
    CHECK(!travels(&m.bundle, FOR_RECORDER, "keys", "KEYS"));
    CHECK(!travels(&m.bundle, FOR_RECORDER, "tls-key/l", "KEY"));
    CHECK(!travels(&m.bundle, FOR_ADMIN, "tls-key/l", "KEY"));
    CHECK(!travels(&m.bundle, FOR_ADMIN, "listener-token/l", "secret"));
    CHECK(!travels(&m.bundle, FOR_ADMIN, "parent-token", "secret"));
    CHECK(travels(&m.bundle, FOR_ADMIN, "keys", "KEYS"));
    unmake(&m);
    remove_folder();
}

TEST(passed_tokens_and_texts_of_the_command_line)
{
    struct made m;
    struct err err = {0};
    const char *names[] = {"tok", NULL}, *texts[] = {"abc", NULL};
    struct bundle_extra extra = {.keys_jwks = "JWKS", .policy = "POLICY", .token_names = names, .token_texts = texts, .own = "192.0.2.1\n"};
    static const char config[] = "{\"listen\":[{\"name\":\"l\",\"fd\":\"s\",\"token_fd\":\"tok\"}]}";
    make_folder();
    CHECK_THAT(make(&m, config, &extra, &err) == 0, "%s", err.text);
    CHECK(travels(&m.bundle, FOR_WORKER, "listener-token/l", "abc"));
    CHECK(travels(&m.bundle, FOR_WORKER, "keys", "JWKS"));
    CHECK(travels(&m.bundle, FOR_WORKER, "policy/policy", "POLICY"));
    CHECK(travels(&m.bundle, FOR_WORKER, "own", "192.0.2.1\n"));
    unmake(&m);
    names[0] = "other";
    CHECK(make(&m, config, &extra, &err) < 0 && strstr(err.text, "tok"));
    unmake(&m);
    remove_folder();
}

/* ---- bundles that lie ---- */

static int
memfd_of(const void *bytes, size_t len, unsigned seals)
{
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(fd >= 0 && write(fd, bytes, len) == (ssize_t)len);
    CHECK(fcntl(fd, F_ADD_SEALS, seals) == 0);
    return fd;
}

TEST(only_what_is_sealed_and_sound_is_opened)
{
    struct bundle b = {0};
    struct err err = {0};
    struct bundle_view *v;
    char image[4096];
    bundle_add(&b, "config", "{}", 2, FOR_ALL);
    bundle_add(&b, "x", "yz", 2, FOR_ALL);
    int fd = bundle_seal(&b, FOR_WORKER, false, &err);
    ssize_t size = pread(fd, image, sizeof image, 0);
    CHECK(size > 0);
    CHECK(bundle_open(fd, &v, &err) == 0);
    bundle_close(v);
    CHECK(bundle_open(memfd_of(image, (size_t)size, F_SEAL_SHRINK), &v, &err) < 0 && strstr(err.text, "not sealed"));
    /* Every length and place: one word at a time says something enormous. */
    for (size_t at = 0; at + 8 <= sizeof(struct pack_head) + 2 * sizeof(struct pack_entry); at += 8) {
        char copy[4096];
        memcpy(copy, image, (size_t)size);
        memset(copy + at, 0xff, 8);
        int rc = bundle_open(memfd_of(copy, (size_t)size, PACK_SEALS), &v, &err);
        CHECK_THAT(rc < 0, "word at %zu", at);
        if (rc == 0)
            bundle_close(v);
    }
    for (size_t len = 1; len < (size_t)size; len++)
        CHECK(bundle_open(memfd_of(image, len, PACK_SEALS), &v, &err) < 0);
    bundle_done(&b);
}

TEST(own_addresses_are_read_back)
{
    struct guard_options o;
    bundle_own_addresses(slice_str("192.0.2.1\n::1\nnonsense\n"), slice_str("0.0.0.0:3128\n[::1]:80\nunix\n"), &o);
    CHECK(o.own_count == 2 && o.listener_count == 2);
    free((void *)o.own);
    free((void *)o.listeners);
    bundle_own_addresses(slice_of(NULL, 0), slice_of(NULL, 0), &o);
    CHECK(o.own_count == 0 && o.listener_count == 0);
    free((void *)o.own);
    free((void *)o.listeners);
}

static void
set_back(const char *name)
{
    char command[256];
    snprintf(command, sizeof command, "touch -d '1 hour ago' %s/%s", folder, name);
    CHECK(system(command) == 0);
}

static const struct bundle_item *
item_of(const struct made *m, const char *name)
{
    for (size_t i = 0; i < m->bundle.count; i++)
        if (strcmp(m->bundle.items[i].name, name) == 0)
            return &m->bundle.items[i];
    return NULL;
}

static size_t
packed(const struct bundle *b, bool news, size_t *ret_policies)
{
    struct err err = {0};
    struct bundle_view *v;
    int fd = bundle_seal(b, FOR_WORKER, news, &err);
    CHECK_THAT(fd >= 0 && bundle_open(fd, &v, &err) == 0, "%s", err.text);
    size_t count = v->blob_count;
    *ret_policies = 0;
    for (size_t i = 0; i < count; i++)
        *ret_policies += slice_starts_with(v->blobs[i].name, "policy/");
    bundle_close(v);
    return count;
}

TEST(what_is_the_same_is_known_and_what_is_new_is_seen)
{
    struct made a, b;
    struct err err = {0};
    size_t policies;
    basic_files();
    set_back("policies/one.json");
    CHECK(make(&a, CONFIG, NULL, &err) == 0);
    struct bundle_extra extra = {.before = &a.bundle};
    put("policies/one.json", "0NE", 0644); /* the same size */
    put("policies/three.json", "THREE", 0644);
    CHECK(make(&b, CONFIG, &extra, &err) == 0);
    CHECK(!item_of(&b, "policy/one")->same && strcmp(item_of(&b, "policy/one")->bytes, "0NE") == 0);
    CHECK(item_of(&b, "policy/t.w-o_2")->same && item_of(&b, "keys")->same && item_of(&b, "config")->same);
    CHECK(!item_of(&b, "policy/three")->same);
    /* Only what is new is compiled again. */
    CHECK(packed(&b.bundle, true, &policies) == b.bundle.count - 1 && policies == 2);
    CHECK(packed(&b.bundle, false, &policies) == b.bundle.count && policies == 3);
    unmake(&b);
    /* With another configuration everything is. */
    CHECK(make(&b, "{\"auth\":{\"keys\":\"k.json\"},\"policies\":\"policies\",\"default_ports\":[1]}", &extra, &err) == 0);
    CHECK(packed(&b.bundle, true, &policies) == b.bundle.count && policies == 3);
    unmake(&b);
    unmake(&a);
    remove_folder();
}
