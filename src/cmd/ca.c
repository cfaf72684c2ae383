/* `sallyport ca`: the inspection CA of a gate. init makes it, show describes it, bundle writes a trust file for sandboxes. The key
 * is written once, readable by its owner alone, and never read or printed here. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sallyport/base/buf.h"
#include "sallyport/base/clock.h"
#include "sallyport/base/file.h"
#include "sallyport/base/json.h"
#include "sallyport/base/mem.h"
#include "sallyport/cmd/cmd.h"
#include "sallyport/tls/context.h"
#include "sallyport/tls/mint.h"

#define ROOTS_MAX (8u << 20) /* a system's trust file; the usual one has 220 KB */

static char *
in_folder(const char *folder, const char *name)
{
    return mem_printf("%s/%s", folder, name);
}

static int
need_dir(const char *dir, int argc, char **argv, struct err *err)
{
    if (argc > 1)
        return err_invalid(err, "unexpected \"%.80s\"", argv[1]);
    return dir ? 0 : err_invalid(err, "--dir DIR (the CA's folder) is expected");
}

/* ---- init ---- */

static int
parse_constraint(const char *text, struct ca_constraint *ret, struct err *err)
{
    struct host host;
    *ret = (struct ca_constraint){0};
    if (cidr_parse(slice_str(text), &ret->range))
        return 0;
    if (!host_parse(slice_str(text), &host))
        return err_invalid(err, "--constrain \"%.80s\": a name (with all below it), an address or a range such as 192.0.2.0/24 is expected", text);
    if (host.kind == HOST_NAME) {
        ret->name = host;
        return 0;
    }
    ret->range = (struct cidr){.base = host.literal, .bits = host.kind == HOST_IPV4 ? 32 : 128};
    return 0;
}

static int
parse_days(const char *text, int64_t *ret, struct err *err)
{
    unsigned long long days;
    *ret = CA_DAYS_DEFAULT;
    if (!text)
        return 0;
    if (!slice_parse_uint(slice_str(text), CA_DAYS_MAX, &days) || days == 0)
        return err_invalid(err, "--days: 1 to %d are expected", CA_DAYS_MAX);
    *ret = (int64_t)days;
    return 0;
}

static int
make_folder(const char *dir, struct err *err)
{
    if (mkdir(dir, 0755) == 0 || errno == EEXIST)
        return 0;
    return err_errno(err, "%s: cannot make the folder", dir);
}

/* The key first, and only where none is: a CA that sandboxes trust is not lost to a second run. */
static int
write_ca(const char *dir, const char *cert, const char *key, struct err *err)
{
    cleanup_free char *cert_path = in_folder(dir, "ca.pem");
    cleanup_free char *key_path = in_folder(dir, "ca.key");
    if (access(cert_path, F_OK) == 0)
        return err_invalid(err, "%s: exists; a CA is not overwritten", cert_path);
    if (file_create_private(key_path, slice_str(key), err) < 0)
        return -1;
    if (file_replace(cert_path, slice_str(cert), 0644, err) == 0)
        return 0;
    unlink(key_path);
    return -1;
}

static int
init(const char *dir, const struct ca_options *o, struct err *err)
{
    char *cert = NULL, *key = NULL;
    if (make_folder(dir, err) < 0 || ca_generate(o, &cert, &key, err) < 0)
        return -1;
    int rc = write_ca(dir, cert, key, err);
    mem_wipe(key, strlen(key));
    free(key);
    free(cert);
    return rc;
}

static int
ca_init(int argc, char **argv)
{
    static const char usage[] = "sallyport ca init --dir DIR [--constrain HOST]… [--days N]";
    static struct option_list names;
    static struct ca_constraint constraints[CA_CONSTRAINTS_MAX];
    struct ca_options o = {.constraints = constraints, .now_s = clock_wall_us() / 1000000};
    const char *dir = NULL, *days = NULL;
    bool help = false;
    struct err err = {0};
    const struct option_row rows[] = {
        {"--dir", OPTION_TEXT, &dir, "DIR", "where ca.pem and ca.key go; made when it is not there"},
        {"--constrain", OPTION_REPEATED, &names, "HOST", "a name (with all below it), address or range that the CA is good for; nothing else then"},
        {"--days", OPTION_TEXT, &days, "N", "how long it is valid (730)"},
        {"--help", OPTION_FLAG, &help, NULL, "this text"},
        {0},
    };
    if (options_parse(rows, &argc, argv, &err) < 0)
        return cmd_fail(&err);
    if (help) {
        options_help(stdout, usage, rows);
        return 0;
    }
    if (need_dir(dir, argc, argv, &err) < 0 || parse_days(days, &o.days, &err) < 0)
        return cmd_fail(&err);
    if (names.count > CA_CONSTRAINTS_MAX) {
        err_invalid(&err, "--constrain: at most %d are expected", CA_CONSTRAINTS_MAX);
        return cmd_fail(&err);
    }
    for (; o.constraint_count < names.count; o.constraint_count++)
        if (parse_constraint(names.items[o.constraint_count], &constraints[o.constraint_count], &err) < 0)
            return cmd_fail(&err);
    if (init(dir, &o, &err) < 0)
        return cmd_fail(&err);
    return printf("%s/ca.pem: trust this in the sandboxes\n%s/ca.key: the gate's alone\n", dir, dir) < 0;
}

/* ---- show ---- */

static int
read_cert(const char *dir, char **ret, size_t *ret_len, struct err *err)
{
    cleanup_free char *path = in_folder(dir, "ca.pem");
    return file_read(path, CA_PEM_MAX, FILE_ANY, ret, ret_len, err);
}

/* What is wrong with the key file as the gate would see it, or "fine". */
static const char *
judge_key(const char *dir)
{
    struct stat st;
    cleanup_free char *path = in_folder(dir, "ca.key");
    if (stat(path, &st) < 0)
        return errno == ENOENT ? "missing" : "unreadable";
    return !S_ISREG(st.st_mode) ? "no regular file" : st.st_mode & 077 ? "readable by others: the gate refuses it; chmod 0600" : "fine";
}

static json_t *
lines_array(const char *text)
{
    json_t *list = json_array();
    for (struct slice rest = slice_str(text); rest.ptr && rest.len;) {
        struct slice line = slice_split(rest, '\n', &rest);
        json_array_append_new(list, json_stringn(line.ptr, line.len));
    }
    return list;
}

static int
print_json(const struct ca_facts *f, const char *key)
{
    json_auto_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:s}", "subject", f->subject, "key", f->key, "serial", f->serial,
                               "not_before", f->not_before, "not_after", f->not_after, "sha256", f->sha256, "subject_key_id", f->ski,
                               "constraints", lines_array(f->constraints), "key_file", key);
    cleanup_free char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    return !text || puts(text) < 0;
}

static int
print_facts(const struct ca_facts *f, const char *key)
{
    printf("subject         %s\nkey             %s\nserial          %s\nvalid           %s to %s\nsha256          %s\nsubject key id  %s\n", f->subject,
           f->key, f->serial, f->not_before, f->not_after, f->sha256, f->ski);
    printf("private key     %s\n", key);
    for (struct slice rest = slice_str(f->constraints); rest.ptr && rest.len;)
        printf("good for        %.*s\n", SLICE_ARG(slice_split(rest, '\n', &rest)));
    return 0;
}

static int
ca_show(int argc, char **argv)
{
    static const char usage[] = "sallyport ca show --dir DIR [--json]";
    const char *dir = NULL;
    bool help = false, json = false;
    struct err err = {0};
    struct ca_facts facts;
    cleanup_free char *pem = NULL;
    size_t len;
    const struct option_row rows[] = {
        {"--dir", OPTION_TEXT, &dir, "DIR", "the CA's folder"},
        {"--json", OPTION_FLAG, &json, NULL, "print JSON"},
        {"--help", OPTION_FLAG, &help, NULL, "this text"},
        {0},
    };
    if (options_parse(rows, &argc, argv, &err) < 0)
        return cmd_fail(&err);
    if (help) {
        options_help(stdout, usage, rows);
        return 0;
    }
    if (need_dir(dir, argc, argv, &err) < 0 || read_cert(dir, &pem, &len, &err) < 0 || ca_describe(slice_of(pem, len), &facts, &err) < 0)
        return cmd_fail(&err);
    const char *key = judge_key(dir);
    int rc = json ? print_json(&facts, key) : print_facts(&facts, key);
    bool expired = clock_wall_us() / 1000000 >= facts.not_after_s;
    ca_facts_done(&facts);
    return rc || expired || strcmp(key, "fine") != 0;
}

/* ---- bundle ---- */

static int
write_bundle(const char *dir, const char *out, struct err *err)
{
    cleanup_free char *ca = NULL, *roots = NULL;
    size_t ca_len, roots_len;
    struct ca_facts facts;
    const char *system = tls_system_roots();
    if (!system)
        return err_run(err, "this system has no CA certificates in a usual place");
    if (read_cert(dir, &ca, &ca_len, err) < 0 || ca_describe(slice_of(ca, ca_len), &facts, err) < 0)
        return -1;
    ca_facts_done(&facts);
    if (file_read(system, ROOTS_MAX, FILE_ANY, &roots, &roots_len, err) < 0)
        return -1;
    struct buf b;
    buf_init(&b, ROOTS_MAX + CA_PEM_MAX + 1);
    bool gap = roots_len && roots[roots_len - 1] != '\n';
    bool fine = buf_append(&b, roots, roots_len) && (!gap || buf_append_str(&b, "\n")) && buf_append(&b, ca, ca_len);
    int rc = fine ? file_replace(out, buf_slice(&b), 0644, err) : err_invalid(err, "%s: is too large", system);
    buf_done(&b);
    return rc;
}

static int
ca_bundle(int argc, char **argv)
{
    static const char usage[] = "sallyport ca bundle --dir DIR --out FILE";
    const char *dir = NULL, *out = NULL;
    bool help = false;
    struct err err = {0};
    const struct option_row rows[] = {
        {"--dir", OPTION_TEXT, &dir, "DIR", "the CA's folder"},
        {"--out", OPTION_TEXT, &out, "FILE", "the system's roots and the CA, as one PEM file"},
        {"--help", OPTION_FLAG, &help, NULL, "this text"},
        {0},
    };
    if (options_parse(rows, &argc, argv, &err) < 0)
        return cmd_fail(&err);
    if (help) {
        options_help(stdout, usage, rows);
        return 0;
    }
    if (!out)
        err_invalid(&err, "--out FILE is expected");
    else if (need_dir(dir, argc, argv, &err) == 0 && write_bundle(dir, out, &err) == 0)
        return 0;
    return cmd_fail(&err);
}

/* ---- the command ---- */

int
cmd_ca(int argc, char **argv)
{
    static const struct command commands[] = {
        {"init", ca_init, "make the inspection CA"},
        {"show", ca_show, "describe it"},
        {"bundle", ca_bundle, "write the system's roots and the CA as one file"},
    };
    bool help = argc > 1 && strcmp(argv[1], "--help") == 0;
    for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].fn(argc - 1, argv + 1);
    if (!help)
        return cmd_usage("sallyport ca init|show|bundle [options] (--help after each tells more)");
    puts("usage: sallyport ca COMMAND [options]\n");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        printf("  %-8s %s\n", commands[i].name, commands[i].help);
    puts("\n`sallyport ca COMMAND --help` lists the options.");
    return 0;
}
