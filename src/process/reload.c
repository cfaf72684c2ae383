/* Reading the configuration and all that it names, checking it, and handing it out. What is wrong changes nothing: the old
 * set stays with everybody, and it is said. */
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <unistd.h>

#include "sallyport/base/diag.h"
#include "sallyport/base/file.h"
#include "sallyport/base/mem.h"
#include "sallyport/process/config.h"
#include "sallyport/process/core.h"
#include "sallyport/record/record.h"

/* In the order of bundle_kind. */
static const enum audience audiences[BUNDLE_KINDS] = {FOR_WORKER, FOR_RECORDER, FOR_ADMIN, FOR_KEEPER};

void
loaded_free(struct loaded *l)
{
    for (size_t i = 0; i < BUNDLE_KINDS; i++)
        if (l->fds[i] >= 0)
            close(l->fds[i]);
    if (l->ca_key >= 0)
        close(l->ca_key);
    settings_free(&l->settings);
    json_decref(l->config);
    free(l->base);
    bundle_done(&l->bundle);
    *l = (struct loaded){LOADED_NOTHING};
}

/* ---- settings ---- */

static json_t *
read_file(const char *path, struct err *err)
{
    char *text;
    size_t len;
    if (!path)
        return json_object();
    if (file_read(path, CONFIG_TEXT_MAX, FILE_NOT_WRITABLE_BY_OTHERS, &text, &len, err) < 0)
        return NULL;
    json_t *root = json_read(slice_of(text, len), path, CONFIG_DEPTH_MAX, err);
    free(text);
    if (root && config_check_file(root, path, err) < 0) {
        json_decref(root);
        return NULL;
    }
    return root;
}

static char *
folder_of(const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    if (!slash)
        return mem_strdup("");
    return mem_dup_slice(slice_of(path, slash == path ? 1 : (size_t)(slash - path)));
}

static void
set_flags(json_t *root, const json_t *flags)
{
    json_t *all = (json_t *)flags;
    for (void *i = json_object_iter(all); i; i = json_object_iter_next(all, i))
        config_set(root, json_object_iter_key(i), json_incref(json_object_iter_value(i)));
}

int
load_settings(struct supervisor *s, struct loaded *ret, struct err *err)
{
    const char *file = s->options->config_file ? s->options->config_file : "command line";
    struct loaded l = {LOADED_NOTHING, .generation = s->running.generation + 1};
    l.config = read_file(s->options->config_file, err);
    if (!l.config)
        return -1;
    l.base = folder_of(s->options->config_file);
    set_flags(l.config, s->options->flags);
    if (s->running.config) {
        char fixed[256];
        config_keep_fixed(s->running.config, l.config, fixed, sizeof fixed);
        if (fixed[0])
            diag(DIAG_WARNING, "%s: %s: only a restart changes this; the old value stays", file, fixed);
    }
    if (config_read(l.config, file, l.base, &l.settings, err) < 0 || config_check_available(&l.settings, file, err) < 0) {
        loaded_free(&l);
        return -1;
    }
    *ret = l;
    return 0;
}

/* ---- this host ---- */

static char *
append_line(char *text, const char *line)
{
    char *more = mem_printf("%s%s\n", text, line);
    free(text);
    return more;
}

static char *
append_resolvers(char *text, const struct settings *settings)
{
    char *conf;
    size_t len;
    struct err err = {0};
    for (size_t i = 0; i < settings->dns_servers.count; i++) {
        struct sockaddr_storage sa;
        struct addr a;
        uint16_t port;
        socklen_t sa_len;
        char line[ADDR_TEXT_SIZE];
        if (!sockaddr_parse(slice_str(settings->dns_servers.items[i]), 53, &sa, &sa_len) ||
            !addr_from_sockaddr((struct sockaddr *)&sa, &a, &port))
            continue;
        addr_format(&a, line);
        text = append_line(text, line);
    }
    if (settings->dns_servers.count || file_read("/etc/resolv.conf", 1u << 20, FILE_ANY, &conf, &len, &err) < 0)
        return text;
    for (struct slice rest = slice_of(conf, len); rest.ptr && rest.len;) {
        struct slice line = slice_split(rest, '\n', &rest);
        struct addr a;
        if (!slice_starts_with(line, "nameserver"))
            continue;
        struct slice value = slice_trim_ows(slice_of(line.ptr + 10, line.len - 10));
        char out[ADDR_TEXT_SIZE];
        if (!addr_parse(value, &a))
            continue;
        addr_format(&a, out);
        text = append_line(text, out);
    }
    free(conf);
    return text;
}

char *
own_addresses(const struct settings *settings)
{
    struct ifaddrs *all = NULL;
    char *text = mem_strdup("");
    if (getifaddrs(&all) < 0)
        diag(DIAG_WARNING, "the addresses of this host cannot be read");
    for (struct ifaddrs *i = all; i; i = i->ifa_next) {
        struct addr a;
        uint16_t port;
        char line[ADDR_TEXT_SIZE];
        if (!i->ifa_addr || !addr_from_sockaddr(i->ifa_addr, &a, &port))
            continue;
        addr_format(&a, line);
        text = append_line(text, line);
    }
    freeifaddrs(all);
    return append_resolvers(text, settings);
}

/* ---- the bundle ---- */

static int
seal_bundle(struct loaded *l, const struct bundle *b, struct err *err)
{
    for (size_t i = 0; i < BUNDLE_KINDS; i++) {
        if (audiences[i] == FOR_KEEPER && l->settings.inspect == INSPECT_OFF)
            continue;
        l->fds[i] = bundle_seal(b, audiences[i], false, err);
        if (l->fds[i] < 0)
            return -1;
    }
    return 0;
}

int
load_bundle(struct supervisor *s, struct loaded *l, struct err *err)
{
    cleanup_free char *listening = sockets_text(&s->sockets);
    char *own = own_addresses(&l->settings);
    free(s->own);
    s->own = own;
    struct bundle *b = &l->bundle;
    if (keeper_open(s, l, err) < 0)
        return -1;
    struct bundle_extra extra = {.before = s->running.bundle.count ? &s->running.bundle : NULL, .leaf_private = s->leaf_private, .leaf_public = s->leaf_public, .keys_jwks = s->options->keys_jwks, .policy = s->options->policy, .own = own, .listening = listening,
                                 .token_names = s->token_names, .token_texts = (const char *const *)s->token_texts};
    if (bundle_collect(l->config, l->base, &l->settings, &extra, b, err) < 0)
        return -1;
    l->policies = b->policies;
    bool had_leaf_key = s->leaf_private != NULL;
    if (check_bundle(s, l, err) < 0)
        return -1;
    if (s->leaf_private && !had_leaf_key)
        bundle_add_leaf_key(b, s->leaf_private, s->leaf_public);
    return seal_bundle(l, b, err);
}

/* ---- watching ---- */

static void
watch_listener(struct watch *w, const struct listener_settings *l)
{
    watch_file(w, l->token_file);
    watch_file(w, l->tls_cert);
    watch_file(w, l->tls_key);
    watch_file(w, l->tls_client_ca);
}

void
watch_files(struct supervisor *s)
{
    const struct settings *set = &s->running.settings;
    watch_clear(s->watch);
    if (!s->options->keys_jwks)
        watch_file(s->watch, set->keys_path);
    watch_file(s->watch, set->revoked_path);
    if (!set->policy_file)
        watch_folder(s->watch, set->policies_dir);
    watch_file(s->watch, set->policy_file);
    watch_file(s->watch, set->parent_token_file);
    keeper_watch(s);
    for (size_t i = 0; i < set->listener_count; i++)
        watch_listener(s->watch, &set->listeners[i]);
}

/* ---- reload ---- */

/* Blobs have a NUL behind them. */
const char *
bundle_text(const struct bundle *b, const char *name)
{
    for (size_t i = 0; i < b->count; i++)
        if (strcmp(b->items[i].name, name) == 0)
            return b->items[i].bytes;
    return NULL;
}

/* b was collected beside a. */
static bool
differs(const struct loaded *a, const struct loaded *b)
{
    return !bundle_same(&b->bundle, &a->bundle) || !keeper_same_ca(a, b);
}

static void
hand_out(struct supervisor *s)
{
    struct control_bundle told = {s->running.generation};
    for (size_t i = 0; i < s->child_count; i++) {
        struct child *c = &s->children[i];
        int fd = s->running.fds[bundle_kind(c->role)];
        if (c->control && fd >= 0 && !channel_send(c->control, CONTROL_BUNDLE, slice_of(&told, sizeof told), &fd, 1))
            diag(DIAG_ALARM, "%s %u does not take the new configuration", role_name(c->role), c->slot);
    }
}

static void
apply(struct supervisor *s, struct loaded *next, const char *why)
{
    char members[256];
    records_revoked(s, bundle_text(&s->running.bundle, "revoked"), bundle_text(&next->bundle, "revoked"));
    struct loaded before = s->running;
    s->running = *next;
    keeper_follow(s, &before);
    loaded_free(&before);
    hand_out(s);
    watch_files(s);
    watch_nudge(s->watch); /* one more look, which ends it when nothing differs */
    doors_follow(s);
    shared_add(s->shared, COUNTER_RELOADS, 1);
    shared_set(s->shared, COUNTER_POLICY_GENERATION, s->running.generation);
    snprintf(members, sizeof members, "\"generation\":%llu,\"policies\":%zu,\"why\":\"%s\"", (unsigned long long)s->running.generation,
             s->running.policies, why);
    records_event(s, RECORD_RELOAD, members);
    diag(DIAG_NOTICE, "reloaded (%s): %zu policies, generation %llu", why, s->running.policies, (unsigned long long)s->running.generation);
}

void
reload(struct supervisor *s, const char *why)
{
    struct loaded next;
    struct err err = {0};
    if (load_settings(s, &next, &err) == 0) {
        if (load_bundle(s, &next, &err) == 0) {
            if (differs(&s->running, &next))
                apply(s, &next, why);
            else
                loaded_free(&next);
            return;
        }
        loaded_free(&next);
    }
    shared_add(s->shared, COUNTER_RELOADS_FAILED, 1);
    diag(DIAG_ALARM, "the configuration cannot be reloaded, the old one stays: %s", err.text);
}
