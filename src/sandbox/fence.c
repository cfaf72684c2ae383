/* The verbs of `sallyport fence`: read the options, plan, lay or lift the rules, say what is there.
 * It works on the network namespace it is started in and on nothing else, and needs CAP_NET_ADMIN
 * there. */
#include "sallyport/sandbox/fence.h"

#include <errno.h>
#include <ifaddrs.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "sallyport/base/file.h"
#include "sallyport/base/json.h"
#include "sallyport/base/mem.h"

#define RESOLV_CONF "/etc/resolv.conf"
#define RESOLV_CONF_MAX 65536
#define UID_LAST 4294967294u /* one less than "none" */

static const char help_text[] =
    "usage: sallyport fence install --proxy-uid N [OPTIONS]\n"
    "       sallyport fence show [--json]\n"
    "       sallyport fence remove\n"
    "\n"
    "Rules in the present network namespace (a pod's, a VM's): only the proxy's user leaves, "
    "loopback works, everything else is\n"
    "refused at once and counted. Installing again replaces what was there, in one step. Needs "
    "CAP_NET_ADMIN.\n"
    "\n"
    "  --proxy-uid N             the user that the proxy runs as (repeatable)\n"
    "  --guard-uid N             the user of the proxy's workers: leaves too, but not to private, "
    "link-local, metadata and\n"
    "                            other special ranges\n"
    "  --guard-allow RANGE       what --guard-uid may reach all the same (repeatable); resolvers "
    "of resolv.conf always are\n"
    "  --allow-loopback-dns      everybody may ask a resolver on loopback, which would carry "
    "queries out\n"
    "  --allow-forward           leave alone what only passes through this namespace\n"
    "  --json                    show: as one JSON object\n";

struct fence_options {
    struct fence_plan plan;
    bool json;
};

/* ---- options ---- */

static int
take_uid(const char *option, const char *value, uint32_t *ret, struct err *err)
{
    unsigned long long uid;
    if (!slice_parse_uint(slice_str(value), UID_LAST, &uid))
        return err_invalid(err, "%s: a user id such as 65532 is expected", option);
    if (uid == 0)
        return err_invalid(
            err, "%s: with 0 every root process would leave; run the proxy as a user of its own",
            option);
    *ret = (uint32_t)uid;
    return 0;
}

static int
take_proxy(const char *value, struct fence_options *o, struct err *err)
{
    struct fence_plan *p = &o->plan;
    uint32_t uid = 0;
    if (take_uid("--proxy-uid", value, &uid, err) < 0)
        return -1;
    for (size_t i = 0; i < p->proxy_count; i++)
        if (p->proxies[i] == uid)
            return 0;
    if (p->proxy_count == FENCE_UIDS_MAX)
        return err_invalid(err, "--proxy-uid: is given more than %d times", FENCE_UIDS_MAX);
    p->proxies[p->proxy_count++] = uid;
    return 0;
}

static int
take_guard(const char *value, struct fence_options *o, struct err *err)
{
    uint32_t uid = 0;
    if (take_uid("--guard-uid", value, &uid, err) < 0)
        return -1;
    if (o->plan.guarded && o->plan.guard_uid != uid)
        return err_invalid(err, "--guard-uid: is given twice");
    o->plan.guarded = true;
    o->plan.guard_uid = uid;
    return 0;
}

static int
take_open(const char *value, struct fence_options *o, struct err *err)
{
    if (o->plan.open_count == FENCE_OPEN_MAX)
        return err_invalid(err, "--guard-allow: is given more than %d times", FENCE_OPEN_MAX);
    if (!cidr_parse(slice_str(value), &o->plan.open[o->plan.open_count]))
        return err_invalid(
            err, "--guard-allow: a range such as 10.96.0.0/12 is expected, without host bits");
    o->plan.open_count++;
    return 0;
}

static int
take_loopback_dns(const char *value, struct fence_options *o, struct err *err)
{
    (void)value;
    (void)err;
    o->plan.loopback_names = true;
    return 0;
}

static int
take_forward(const char *value, struct fence_options *o, struct err *err)
{
    (void)value;
    (void)err;
    o->plan.forward = true;
    return 0;
}

static int
take_json(const char *value, struct fence_options *o, struct err *err)
{
    (void)value;
    (void)err;
    o->json = true;
    return 0;
}

static const struct row {
    const char *name;
    bool valued;
    int (*take)(const char *value, struct fence_options *o, struct err *err);
    const char *verb; /* the one that it belongs to */
} rows[] = {
    {"--proxy-uid", true, take_proxy, "install"},
    {"--guard-uid", true, take_guard, "install"},
    {"--guard-allow", true, take_open, "install"},
    {"--allow-loopback-dns", false, take_loopback_dns, "install"},
    {"--allow-forward", false, take_forward, "install"},
    {"--json", false, take_json, "show"},
};
#define ROW_COUNT (sizeof rows / sizeof rows[0])

static int
unknown(const char *word, const char *verb, struct err *err)
{
    const char *names[ROW_COUNT + 1];
    size_t count = 0;
    for (size_t i = 0; i < ROW_COUNT; i++)
        if (strcmp(rows[i].verb, verb) == 0)
            names[count++] = rows[i].name;
    names[count] = NULL;
    const char *near = nearest_word(word, names);
    return err_invalid(err, "fence %s: unknown option %.80s; %s%s", verb, word,
                       near ? "did you mean " : "--help lists them", near ? near : "");
}

static int
take_option(const char *verb, int argc, char **argv, int *i, struct fence_options *o,
            struct err *err)
{
    struct slice given, name = slice_split(slice_str(argv[*i]), '=', &given);
    for (size_t k = 0; k < ROW_COUNT; k++) {
        if (!slice_is(name, rows[k].name) || strcmp(rows[k].verb, verb) != 0)
            continue;
        if (!rows[k].valued && given.ptr)
            return err_invalid(err, "%s takes no value", rows[k].name);
        if (!rows[k].valued || given.ptr)
            return rows[k].take(given.ptr, o, err);
        if (*i + 1 >= argc)
            return err_invalid(err, "%s needs a value", rows[k].name);
        return rows[k].take(argv[++*i], o, err);
    }
    return unknown(argv[*i], verb, err);
}

static int
parse(const char *verb, int argc, char **argv, struct fence_options *o, struct err *err)
{
    for (int i = 0; i < argc; i++)
        if (take_option(verb, argc, argv, &i, o, err) < 0)
            return -1;
    return 0;
}

/* ---- what this namespace looks like ---- */

/* The resolvers that the proxy's workers ask; a line that is no address is none. */
static void
find_resolvers(struct fence_plan *plan)
{
    struct err err = {0};
    cleanup_free char *text = NULL;
    size_t len;
    if (file_read(RESOLV_CONF, RESOLV_CONF_MAX, FILE_ANY, &text, &len, &err) < 0)
        return;
    struct slice rest = slice_of(text, len), line;
    while (rest.ptr && plan->resolver_count < FENCE_RESOLVERS_MAX) {
        line = slice_trim_ows(slice_split(rest, '\n', &rest));
        if (!slice_starts_with(line, "nameserver"))
            continue;
        line = slice_trim_ows(
            slice_of(line.ptr + strlen("nameserver"), line.len - strlen("nameserver")));
        if (addr_parse(line, &plan->resolvers[plan->resolver_count]))
            plan->resolver_count++;
    }
}

static bool
has_device(const struct fence_plan *plan, const char *name)
{
    for (size_t i = 0; i < plan->device_count; i++)
        if (strcmp(plan->devices[i], name) == 0)
            return true;
    return false;
}

/* getifaddrs lists a device once an address family; AF_PACKET entries are there for devices without
 * addresses. */
static int
find_devices(struct fence_plan *plan, struct err *err)
{
    struct ifaddrs *all = NULL;
    int result = 0;
    if (getifaddrs(&all) < 0)
        return err_errno(err, "fence: the interfaces cannot be listed");
    for (struct ifaddrs *i = all; i && result == 0; i = i->ifa_next) {
        if (i->ifa_flags & IFF_LOOPBACK || has_device(plan, i->ifa_name))
            continue;
        if (!fence_device_is_plain(i->ifa_name))
            result = err_run(
                err, "fence: an interface has a name that cannot stand in a rule; rename it");
        else if (plan->device_count == FENCE_DEVICES_MAX)
            result = err_run(err, "fence: there are more than %d interfaces", FENCE_DEVICES_MAX);
        else
            snprintf(plan->devices[plan->device_count++], IF_NAMESIZE, "%s", i->ifa_name);
    }
    freeifaddrs(all);
    return result;
}

/* ---- install ---- */

static int
lay(struct fence_nft *n, const struct fence_plan *plan, struct err *err)
{
    struct buf text;
    buf_init(&text, FENCE_TEXT_MAX);
    int result = fence_rules_install(plan, &text)
                     ? fence_nft_run(n, &text, err)
                     : err_run(err, "fence: the rules are longer than %d bytes", FENCE_TEXT_MAX);
    buf_done(&text);
    return result;
}

/* With the egress chain where the kernel has one. What there was of it must not survive a fence
 * that comes without. */
static int
lay_best(struct fence_nft *n, struct fence_plan *plan, struct err *err)
{
    struct err first = {0};
    if (plan->device_count == 0 || lay(n, plan, &first) == 0)
        return plan->device_count == 0 ? lay(n, plan, err) : 0;
    plan->device_count = 0;
    if (lay(n, plan, err) < 0)
        return -1;
    fprintf(stderr, "sallyport: fence: no egress chain in this kernel (5.16 has it): frames of "
                    "AF_PACKET sockets are not stopped "
                    "here; the workload must not have CAP_NET_RAW\n");
    return 0;
}

static int
install(struct fence_nft *n, struct fence_options *o, struct err *err)
{
    struct fence_state now;
    struct fence_plan *plan = &o->plan;
    if (fence_nft_read(n, &now, err) < 0 || find_devices(plan, err) < 0)
        return -1;
    if (plan->guarded)
        find_resolvers(plan);
    memcpy(plan->counts, now.counts, sizeof plan->counts);
    if (lay_best(n, plan, err) < 0)
        return -1;
    printf("fence: %s; %zu interface%s with an egress chain\n", now.inet ? "replaced" : "installed",
           plan->device_count, plan->device_count == 1 ? "" : "s");
    return 0;
}

/* ---- remove ---- */

static int
lift(struct fence_nft *n, struct fence_options *o, struct err *err)
{
    struct fence_state now;
    struct buf text;
    (void)o;
    if (fence_nft_read(n, &now, err) < 0)
        return -1;
    if (!now.inet && !now.netdev) {
        printf("fence: there was none\n");
        return 0;
    }
    buf_init(&text, FENCE_TEXT_MAX);
    fence_rules_remove(now.inet, now.netdev, &text);
    int result = fence_nft_run(n, &text, err);
    buf_done(&text);
    if (result == 0)
        printf("fence: removed\n");
    return result;
}

/* ---- show ---- */

static json_t *
shown_counts(const struct fence_state *s)
{
    json_t *all = json_object();
    for (enum fence_counter c = 0; c < FENCE_COUNTERS; c++)
        json_object_set_new(all, fence_counter_name(c),
                            json_pack("{s:I, s:I}", "packets", (json_int_t)s->counts[c].packets,
                                      "bytes", (json_int_t)s->counts[c].bytes));
    return all;
}

static void
show_json(const struct fence_state *s)
{
    json_t *uids = json_array(), *devices = json_array();
    for (size_t i = 0; i < s->proxy_count; i++)
        json_array_append_new(uids, json_integer(s->proxies[i]));
    for (size_t i = 0; i < s->device_count; i++)
        json_array_append_new(devices, json_string(s->devices[i]));
    json_t *all =
        json_pack("{s:b, s:o, s:o, s:o, s:o}", "installed", s->inet && s->hooked, "may_leave", uids,
                  "guard_uid", s->guarded ? json_integer(s->guard_uid) : json_null(),
                  "egress_devices", devices, "refused", shown_counts(s));
    json_dumpf(all, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(all);
}

static void
show_text(const struct fence_state *s)
{
    if (!s->inet || !s->hooked) {
        printf("fence: %s\n", s->inet || s->netdev ? "damaged: install it again"
                                                   : "none in this network namespace");
        return;
    }
    printf("may leave  uid");
    for (size_t i = 0; i < s->proxy_count; i++)
        printf(" %u%s", s->proxies[i],
               s->guarded && s->proxies[i] == s->guard_uid ? " (guarded)" : "");
    printf("\negress    ");
    for (size_t i = 0; i < s->device_count; i++)
        printf(" %s", s->devices[i]);
    printf("%s\n\n%-10s%12s%14s\n", s->device_count ? "" : " no chain", "refused", "packets",
           "bytes");
    for (enum fence_counter c = 0; c < FENCE_COUNTERS; c++)
        printf("%-10s%12llu%14llu\n", fence_counter_name(c),
               (unsigned long long)s->counts[c].packets, (unsigned long long)s->counts[c].bytes);
}

/* 1 when there is no fence: that is what a script asks. */
static int
show(struct fence_nft *n, struct fence_options *o, struct err *err)
{
    struct fence_state now;
    if (fence_nft_read(n, &now, err) < 0)
        return -1;
    if (o->json)
        show_json(&now);
    else
        show_text(&now);
    return now.inet && now.hooked ? 0 : 1;
}

/* ---- */

static const struct verb {
    const char *name;
    int (*fn)(struct fence_nft *n, struct fence_options *o,
              struct err *err); /* an exit status, or -1 with err */
} verbs[] = {{"install", install}, {"show", show}, {"remove", lift}};

static int
run_verb(const struct verb *verb, struct fence_options *o, struct err *err)
{
    struct fence_nft *n = NULL;
    if (fence_nft_open(&n, err) < 0)
        return -1;
    int result = verb->fn(n, o, err);
    fence_nft_close(n);
    return result;
}

static int
complain(const struct err *err)
{
    fprintf(stderr, "sallyport: %s\n", err->text);
    return err_exit_status(err);
}

static bool
wants_help(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

static const struct verb *
find_verb(const char *word)
{
    for (size_t i = 0; word && i < sizeof verbs / sizeof verbs[0]; i++)
        if (strcmp(word, verbs[i].name) == 0)
            return &verbs[i];
    return NULL;
}

static int
fence(int argc, char **argv, struct err *err)
{
    struct fence_options o = {0};
    const struct verb *verb = find_verb(argc > 1 ? argv[1] : NULL);
    if (!verb)
        return err_invalid(err, "fence: install, show or remove is expected; --help says more");
    if (parse(verb->name, argc - 2, argv + 2, &o, err) < 0)
        return -1;
    if (verb->fn == install && o.plan.proxy_count == 0 && !o.plan.guarded)
        return err_invalid(
            err, "fence install: --proxy-uid N is expected: the user that the proxy runs as");
    return run_verb(verb, &o, err);
}

int
fence_main(int argc, char **argv)
{
    struct err err = {0};
    if (wants_help(argc, argv)) {
        fputs(help_text, stdout);
        return 0;
    }
    int result = fence(argc, argv, &err);
    return result < 0 ? complain(&err) : result;
}
