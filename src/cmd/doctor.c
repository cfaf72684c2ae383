/* `sallyport doctor`: run inside a sandbox, it tries the ways out and looks at the runtimes'
 * settings. This file reads the options and prints the rows; the trying is in doctor_network.c,
 * doctor_sockets.c, doctor_kernel.c, doctor_settings.c. */
#include "sallyport/cmd/doctor.h"

#include <jansson.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sallyport/base/mem.h"
#include "sallyport/base/slice.h"

#define CHILD_SECONDS 1 /* what a child tries takes microseconds, or hangs */

static const char usage[] = "sallyport doctor [OPTIONS]";
static const char *const verdict_names[DOCTOR_VERDICTS] = {
    [DOCTOR_FAIL] = "fail",
    [DOCTOR_WARN] = "warn",
    [DOCTOR_PASS] = "pass",
};

/* ---- rows ---- */

static void
copy_printable(char *to, size_t size, const char *from)
{
    size_t i = 0;
    for (; from[i] && i + 1 < size; i++)
        to[i] = from[i] >= 0x20 && from[i] <= 0x7e ? from[i] : '?';
    to[i] = '\0';
}

void
doctor_add(struct doctor *d, const char *group, const char *name, enum doctor_verdict verdict,
           const char *advice, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    if (d->row_count == DOCTOR_ROWS_MAX) {
        d->rows[DOCTOR_ROWS_MAX - 1].verdict = DOCTOR_FAIL;
        return;
    }
    struct doctor_row *row = &d->rows[d->row_count++];
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    row->group = group;
    row->advice = advice;
    row->verdict = verdict;
    copy_printable(row->name, sizeof row->name, name);
    copy_printable(row->found, sizeof row->found, text);
}

static size_t
count_of(const struct doctor *d, enum doctor_verdict verdict)
{
    size_t n = 0;
    for (size_t i = 0; i < d->row_count; i++)
        n += d->rows[i].verdict == verdict;
    return n;
}

int
doctor_in_child(int (*fn)(void *arg), void *arg)
{
    int status;
    pid_t pid = fork();
    if (pid < 0)
        return -1;
    if (pid == 0) {
        signal(SIGALRM, SIG_DFL);
        alarm(CHILD_SECONDS);
        _exit(fn(arg) & 0x7f);
    }
    while (waitpid(pid, &status, 0) < 0) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* ---- printing ---- */

static void
print_text(const struct doctor *d)
{
    const char *group = "";
    for (size_t i = 0; i < d->row_count; i++) {
        const struct doctor_row *row = &d->rows[i];
        if (strcmp(group, row->group) != 0)
            printf("%s%s\n", i ? "\n" : "", group = row->group);
        printf("  %s  %-34s %s\n",
               row->verdict == DOCTOR_FAIL ? "FAIL" : verdict_names[row->verdict], row->name,
               row->found);
        if (row->verdict != DOCTOR_PASS && row->advice)
            printf("        %-34s to do: %s\n", "", row->advice);
    }
    printf("\n%zu failed, %zu warnings, %zu passed%s\n", count_of(d, DOCTOR_FAIL),
           count_of(d, DOCTOR_WARN), count_of(d, DOCTOR_PASS),
           count_of(d, DOCTOR_FAIL) ? ": there is a way out" : "");
}

static void
print_json(const struct doctor *d)
{
    json_t *rows = json_array(), *counts = json_object();
    for (size_t i = 0; i < d->row_count; i++) {
        const struct doctor_row *r = &d->rows[i];
        json_array_append_new(rows, json_pack("{s:s, s:s, s:s, s:s, s:s?}", "group", r->group,
                                              "name", r->name, "verdict", verdict_names[r->verdict],
                                              "found", r->found, "advice",
                                              r->verdict == DOCTOR_PASS ? NULL : r->advice));
    }
    for (enum doctor_verdict v = 0; v < DOCTOR_VERDICTS; v++)
        json_object_set_new(counts, verdict_names[v], json_integer((json_int_t)count_of(d, v)));
    json_t *all = json_pack("{s:b, s:o, s:o}", "way_out", count_of(d, DOCTOR_FAIL) > 0, "counts",
                            counts, "rows", rows);
    json_dumpf(all, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(all);
}

/* ---- */

static int
take_uid(struct doctor *d, const char *text, struct err *err)
{
    unsigned long long uid;
    if (!text)
        return 0;
    if (!slice_parse_uint(slice_str(text), UINT32_MAX - 1, &uid))
        return err_invalid(err, "--proxy-uid: a user id such as 65532 is expected");
    d->has_proxy_uid = true;
    d->proxy_uid = (uint32_t)uid;
    return 0;
}

static int
examine(struct doctor *d, const char *proxy_uid, struct err *err)
{
    if (take_uid(d, proxy_uid, err) < 0)
        return -1;
    doctor_inherited(d);
    if (doctor_network(d, err) < 0)
        return -1;
    doctor_sockets(d);
    doctor_kernel(d);
    doctor_settings(d);
    return 0;
}

struct doctor_call {
    bool json, help, stray;
    const char *proxy_uid;
};

static int
run_doctor(struct doctor *d, const struct doctor_call *call, const struct option_row *options)
{
    struct err err = {0};
    if (call->help) {
        options_help(stdout, usage, options);
        return 0;
    }
    if (call->stray)
        return cmd_usage(usage);
    if (examine(d, call->proxy_uid, &err) < 0)
        return cmd_fail(&err);
    (call->json ? print_json : print_text)(d);
    return count_of(d, DOCTOR_FAIL) ? 1 : 0;
}

int
cmd_doctor(int argc, char **argv)
{
    bool json = false, help = false;
    const char *proxy_uid = NULL;
    struct err err = {0};
    struct doctor *d = mem_zalloc(sizeof *d);
    const struct option_row options[] = {
        {"--probe", OPTION_REPEATED, &d->probes, "ADDR:PORT",
         "try this address too (repeatable); a connection to it is a way out"},
        {"--proxy-uid", OPTION_TEXT, &proxy_uid, "N",
         "fail when this process is, or can become, the proxy's user"},
        {"--ca", OPTION_TEXT, &d->ca_file, "FILE",
         "the inspection CA that the runtimes should trust"},
        {"--json", OPTION_FLAG, &json, NULL, "as one JSON object"},
        {"--help", OPTION_FLAG, &help, NULL, "this text"},
        {0},
    };
    int status;
    if (options_parse(options, &argc, argv, &err) != 0)
        status = cmd_fail(&err);
    else
        status =
            run_doctor(d,
                       &(struct doctor_call){
                           .json = json, .help = help, .stray = argc > 1, .proxy_uid = proxy_uid},
                       options);
    free(d);
    return status;
}
