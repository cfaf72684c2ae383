/* `sallyport serve`: the flags, and what --dev makes in memory. Everything else is the supervisor's. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sallyport/base/clock.h"
#include "sallyport/base/file.h"
#include "sallyport/base/mem.h"
#include "sallyport/cmd/cmd.h"
#include "sallyport/cmd/devkey.h"
#include "sallyport/process/config.h"
#include "sallyport/process/supervisor.h"

#define DEV_LISTEN "127.0.0.1:3128"
#define DENY_ALL "{\"version\": 1, \"networking\": {\"type\": \"limited\", \"allowed_hosts\": []}}\n"
#define USAGE "sallyport serve [--config FILE] [OPTIONS]"

struct serve_flags {
    bool help, dev;
    const char *config, *policy, *policies, *keys, *audience, *issuer, *record, *admin, *inspect, *ca, *drain, *workers;
    struct option_list listen;
};

struct serve {
    struct serve_flags flags;
    json_t *settings; /* path -> value */
    char *jwks, *token;
};

/* A path of the command line stands on the working directory, whatever folder the configuration file is in. */
static json_t *
absolute(const char *path)
{
    char folder[4096];
    if (path[0] == '/' || !getcwd(folder, sizeof folder))
        return json_string(path);
    cleanup_free char *whole = mem_printf("%s/%s", folder, path);
    return json_string(whole);
}

static void
set_path(json_t *settings, const char *name, const char *value)
{
    if (value)
        json_object_set_new(settings, name, absolute(value));
}

static void
set_text(json_t *settings, const char *name, const char *value)
{
    if (value)
        json_object_set_new(settings, name, json_string(value));
}

static void
set_listeners(struct serve *s)
{
    const struct serve_flags *f = &s->flags;
    const char *only = f->listen.count == 0 && !f->config && f->dev ? DEV_LISTEN : NULL;
    if (f->listen.count == 0 && !only)
        return;
    json_t *list = json_array();
    for (size_t i = 0; i < f->listen.count || (i == 0 && only); i++) {
        json_t *one = json_object();
        json_object_set_new(one, "address", json_string(only ? only : f->listen.items[i]));
        json_array_append_new(list, one);
    }
    json_object_set_new(s->settings, "listen", list);
}

/* The data files that came with the program, where the command line alone is the configuration. */
static void
set_registries(struct serve *s)
{
    char *file = s->flags.config ? NULL : data_file("registries.json");
    set_path(s->settings, "registries", file);
    free(file);
}

static int
set_workers(struct serve *s, struct err *err)
{
    unsigned long long n;
    if (!s->flags.workers)
        return 0;
    if (!slice_parse_uint(slice_str(s->flags.workers), 64, &n))
        return err_invalid(err, "--workers: a number from 0 to 64 is expected");
    json_object_set_new(s->settings, "workers", json_integer((json_int_t)n));
    return 0;
}

static int
set_all(struct serve *s, struct err *err)
{
    const struct serve_flags *f = &s->flags;
    if (f->policy && f->policies)
        return err_invalid(err, "either --policy or --policies is expected");
    set_listeners(s);
    set_registries(s);
    set_path(s->settings, "policy_file", f->policy);
    set_path(s->settings, "policies", f->policies);
    set_path(s->settings, "auth.keys", f->keys);
    set_text(s->settings, "auth.audience", f->audience);
    set_text(s->settings, "auth.issuer", f->issuer);
    set_path(s->settings, "record.path", f->record);
    set_text(s->settings, "admin.address", f->admin);
    set_text(s->settings, "inspect.mode", f->inspect);
    set_path(s->settings, "inspect.ca", f->ca);
    /* Without a file there is no folder of its own to put a socket into: several may run in one place. */
    if (!f->config)
        json_object_set_new(s->settings, "admin.socket", json_null());
    return set_workers(s, err);
}

/* ---- --dev ---- */

static void
print_dev_lines(void *arg, const char *listening)
{
    static const char *const names[] = {"HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"};
    const struct serve *s = arg;
    struct slice rest, first = slice_split(slice_str(listening), '\n', &rest);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        printf("export %s=http://sandbox:%s@%.*s\n", names[i], s->token, SLICE_ARG(first));
    fflush(stdout);
}

/* ---- the command ---- */

static int
run(struct serve *s, struct err *err)
{
    struct serve_options o = {.config_file = s->flags.config, .flags = s->settings, .drain_s = 30};
    if (s->flags.drain && (clock_parse_duration(s->flags.drain, &o.drain_s) != 1 || o.drain_s > 86400))
        return err_invalid(err, "--drain: seconds (or 5m, 1h) up to a day are expected");
    if (set_all(s, err) < 0)
        return -1;
    if (s->flags.dev) {
        const char *audience = s->flags.audience ? s->flags.audience : "sallyport";
        if (dev_key_make(audience, s->flags.issuer, &s->jwks, &s->token, err) < 0)
            return -1;
        o.keys_jwks = s->jwks;
        o.on_ready = print_dev_lines;
        o.arg = s;
        if (!s->flags.policy && !s->flags.policies && !s->flags.config) {
            o.policy = DENY_ALL;
            set_path(s->settings, "policy_file", "/deny-all");
        }
    }
    return supervisor_run(&o, err);
}

int
cmd_serve(int argc, char **argv)
{
    static struct serve s;
    struct serve_flags *f = &s.flags;
    const struct option_row rows[] = {
        {"--config", OPTION_TEXT, &f->config, "FILE", "configuration (JSON); the flags below go over it"},
        {"--listen", OPTION_REPEATED, &f->listen, "ADDR:PORT", "where clients come in"},
        {"--policy", OPTION_TEXT, &f->policy, "FILE", "one policy for everybody"},
        {"--policies", OPTION_TEXT, &f->policies, "DIR", "policies by name"},
        {"--keys", OPTION_TEXT, &f->keys, "JWKS", "public keys of those who issue tokens"},
        {"--audience", OPTION_TEXT, &f->audience, "A", "the aud that tokens must have"},
        {"--issuer", OPTION_TEXT, &f->issuer, "I", "the iss that tokens must have"},
        {"--record", OPTION_TEXT, &f->record, "FILE", "the decision log"},
        {"--admin", OPTION_TEXT, &f->admin, "ADDR:PORT", "health and metrics"},
        {"--inspect", OPTION_TEXT, &f->inspect, "MODE", "off, listed or all"},
        {"--ca", OPTION_TEXT, &f->ca, "DIR", "the inspection CA"},
        {"--workers", OPTION_TEXT, &f->workers, "N", "worker processes; 0 is one a core"},
        {"--drain", OPTION_TEXT, &f->drain, "SECONDS", "how long SIGTERM lets exchanges finish (30)"},
        {"--dev", OPTION_FLAG, &f->dev, NULL, "an ephemeral key, and the lines to paste"},
        {"--help", OPTION_FLAG, &f->help, NULL, "this text"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    struct err err = {0};
    if (options_parse(rows, &argc, argv, &err) < 0)
        return cmd_fail(&err);
    if (f->help) {
        options_help(stdout, USAGE, rows);
        return 0;
    }
    if (argc > 1)
        return cmd_usage(USAGE);
    s.settings = json_object();
    int rc = run(&s, &err);
    json_decref(s.settings);
    free(s.jwks);
    free(s.token);
    return rc < 0 ? cmd_fail(&err) : 0;
}
