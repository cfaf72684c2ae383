/* `sallyport run`: CMD in a sandbox that can leave only through the gate. This process prepares the gate's files, starts the
 * helper `sallyport-run`, which does all else, hands signals on, renews the tokens, and gives the account at the end. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sallyport/base/clock.h"
#include "sallyport/base/diag.h"
#include "sallyport/base/mem.h"
#include "sallyport/cmd/helper.h"
#include "sallyport/cmd/run.h"

#define USAGE "sallyport run [OPTIONS] [--] CMD…"
#define HELPER "sallyport-run"
#define STATUS_NO_SANDBOX 125
#define ARGS_MAX 4096
#define LEFT_BEHIND_MS 5000 /* for processes of a helper that was killed */
#define LONGEST_WAIT_S 3600

#define OPTION_ROWS(o)                                                                                                              \
    {"--policy", OPTION_TEXT, &(o)->policy, "FILE", "what may be reached; without: nothing"},                                      \
    {"--config", OPTION_TEXT, &(o)->config, "FILE", "any part of the configuration but listen"},                                   \
    {"--gateway", OPTION_TEXT, &(o)->gateway, "URL", "a shared gateway that everything goes through"},                             \
    {"--gateway-ca", OPTION_TEXT, &(o)->gateway_ca, "FILE", "roots that the gateway's certificate is verified by"},                \
    {"--token-file", OPTION_TEXT, &(o)->token_file, "FILE", "the sandbox's token; read again when it changes, never inside"},      \
    {"--expose-token", OPTION_FLAG, &(o)->expose_token, NULL, "put the token into the proxy URL inside, the classic way"},        \
    {"--work-item", OPTION_TEXT, &(o)->work_item, "FILE", "session and policy from a work item (JSON; - is standard input)"},      \
    {"--inspect", OPTION_TEXT, &(o)->inspect, "MODE", "look into TLS: off, listed (what the policy names) or all"},                 \
    {"--transparent", OPTION_FLAG, &(o)->transparent, NULL, "serve programs that know of no proxy: ports 80 and 443, and DNS"},    \
    {"--port", OPTION_REPEATED, &(o)->ports, "N", "one more port for --transparent"},                                              \
    {"--workdir", OPTION_TEXT, &(o)->workdir, "DIR", "a directory that CMD starts in and may write"},                              \
    {"--bind", OPTION_REPEATED, &(o)->binds, "DIR", "another directory that CMD may write"},                                       \
    {"--bind-ro", OPTION_REPEATED, &(o)->binds_ro, "DIR", "a directory that CMD may read"},                                        \
    {"--rootfs", OPTION_TEXT, &(o)->rootfs, "DIR", "an image's tree instead of the host's programs"},                              \
    {"--memory", OPTION_TEXT, &(o)->memory, "BYTES", "such as 512M"},                                                              \
    {"--cpus", OPTION_TEXT, &(o)->cpus, "N", "processors, such as 1.5"},                                                           \
    {"--pids", OPTION_TEXT, &(o)->pids, "N", "processes at once"},                                                                 \
    {"--timeout", OPTION_TEXT, &(o)->timeout, "TIME", "such as 90s or 15m"},                                                       \
    {"--limits", OPTION_TEXT, &(o)->limits, "best-effort", "rlimits where no control group can be made"},                          \
    {"--env", OPTION_REPEATED, &(o)->env, "NAME[=VALUE]", "one more variable of CMD's; NAME alone takes the caller's"},            \
    {"--no-proxy-env", OPTION_FLAG, &(o)->no_proxy_env, NULL, "set no proxy variables"},                                           \
    {"--json", OPTION_FLAG, &(o)->json, NULL, "the account as JSON"},                                                              \
    {"--quiet", OPTION_FLAG, &(o)->quiet, NULL, "no account"},                                                                     \
    {"--help", OPTION_FLAG, &(o)->help, NULL, "this text"},                                                                        \
    {NULL, OPTION_FLAG, NULL, NULL, NULL},

/* Where CMD begins: the first word that is neither an option of ours nor an option's value. What follows is CMD's own. */
static int
find_command(const struct option_row *rows, int argc, char **argv)
{
    int i = 1;
    for (; i < argc && argv[i][0] == '-' && strcmp(argv[i], "--") != 0; i++)
        for (const struct option_row *row = rows; row->name; row++)
            if (strcmp(row->name, argv[i]) == 0 && row->kind != OPTION_FLAG)
                i++;
    return i < argc ? i : argc;
}

/* ---- the helper ---- */

struct words { char *items[ARGS_MAX + 1]; size_t count; };

static void
add_word(struct words *w, const char *text)
{
    if (w->count < ARGS_MAX)
        w->items[w->count++] = mem_strdup(text);
}

static void
add_pair(struct words *w, const char *option, const char *value)
{
    if (!value)
        return;
    add_word(w, option);
    add_word(w, value);
}

static void
add_list(struct words *w, const char *option, const struct option_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        add_pair(w, option, list->items[i]);
}

static void
add_in_dir(struct words *w, const char *option, const struct run *r, const char *name)
{
    cleanup_free char *path = mem_printf("%s/%s", r->dir, name);
    add_pair(w, option, path);
}

static void
add_gate(struct words *w, const struct run *r, const char *own)
{
    add_pair(w, "--gate", own);
    add_pair(w, "--gate-arg", "--config");
    add_in_dir(w, "--gate-arg", r, "config.json");
    add_pair(w, "--gate-arg", "--drain");
    add_pair(w, "--gate-arg", "1");
    if (r->has_policy) {
        add_pair(w, "--gate-arg", "--policy");
        add_in_dir(w, "--gate-arg", r, "policy.json");
    }
}

static void
make_words(struct words *w, const struct run *r, const char *own, int wait_fd, int argc, char **argv)
{
    const struct run_options *o = &r->o;
    cleanup_free char *number = mem_printf("%d", wait_fd);
    add_word(w, HELPER);
    add_word(w, "launch");
    add_pair(w, "--id", r->sandbox);
    add_pair(w, "--run-dir", r->dir);
    add_pair(w, "--wait-fd", number);
    add_gate(w, r, own);
    for (size_t i = 0; i < r->hide_count; i++)
        add_pair(w, "--hide", r->hides[i]);
    if (o->transparent)
        add_word(w, "--transparent");
    if (o->no_proxy_env)
        add_word(w, "--no-proxy-env");
    if (o->expose_token)
        add_in_dir(w, "--credential-file", r, "credential");
    if (r->inspects)
        add_in_dir(w, "--ca-bundle", r, "ca-bundle.pem");
    add_list(w, "--port", &o->ports);
    add_list(w, "--bind", &o->binds);
    add_list(w, "--bind-ro", &o->binds_ro);
    add_list(w, "--env", &o->env);
    add_pair(w, "--workdir", o->workdir);
    add_pair(w, "--rootfs", o->rootfs);
    add_pair(w, "--memory", o->memory);
    add_pair(w, "--cpus", o->cpus);
    add_pair(w, "--pids", o->pids);
    add_pair(w, "--timeout", o->timeout);
    add_pair(w, "--limits", o->limits);
    add_word(w, "--");
    for (int i = 0; i < argc; i++)
        add_word(w, argv[i]);
}

static void
free_words(struct words *w)
{
    while (w->count)
        free(w->items[--w->count]);
}

static pid_t
start_helper(const char *helper, struct words *w, struct err *err)
{
    pid_t pid;
    errno = posix_spawn(&pid, helper, NULL, NULL, w->items, environ);
    if (errno == 0)
        return pid;
    err_errno(err, "%s", helper);
    return -1;
}

/* ---- while it runs ---- */

static void
block_signals(sigset_t *all)
{
    /* Stopping belongs to the whole job, and faults are our own. */
    static const int left_out[] = {SIGTSTP, SIGTTIN, SIGTTOU, SIGCONT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    sigfillset(all);
    for (size_t i = 0; i < sizeof left_out / sizeof left_out[0]; i++)
        sigdelset(all, left_out[i]);
    sigprocmask(SIG_BLOCK, all, NULL);
}

/* The wait status of the helper. Others that end came to us from a helper that was killed. */
static bool
has_ended(pid_t helper, int *ret_status)
{
    int status;
    bool found = false;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (pid == helper) {
            *ret_status = status;
            found = true;
        }
    return found;
}

static int
wait_for_helper(struct run *r, pid_t helper, const sigset_t *all)
{
    int status = 0;
    for (;;) {
        if (has_ended(helper, &status))
            return status;
        int64_t left = run_renewal_in(r);
        struct timespec wait = {left < 0 || left > LONGEST_WAIT_S ? LONGEST_WAIT_S : left, 0};
        siginfo_t info;
        int signo = sigtimedwait(all, &info, &wait);
        struct err err = {0};
        if (run_renew_tokens(r, &err) < 0)
            diag(DIAG_ALARM, "renewing the sandbox's token: %s", err.text);
        /* A key of the terminal has reached the helper as well as us. */
        if (signo > 0 && signo != SIGCHLD && signo != SIGWINCH && info.si_code != SI_KERNEL)
            kill(helper, signo);
    }
}

/* Of runs that were killed; reaped as any other that comes to us. */
static pid_t
start_sweep(const char *helper)
{
    static char name[] = HELPER, verb[] = "sweep";
    char *words[] = {name, verb, NULL};
    pid_t pid;
    return posix_spawn(&pid, helper, NULL, NULL, words, environ) == 0 ? pid : -1;
}

/* A helper that was killed: the kernel has ended the sandbox with it; the gate closes its records; the rest is swept. */
static void
clean_up_after(const char *helper)
{
    struct timespec pause = {0, 20000000};
    int64_t begin = clock_mono_ms();
    while (waitpid(-1, NULL, WNOHANG) >= 0 && clock_mono_ms() - begin < LEFT_BEHIND_MS)
        nanosleep(&pause, NULL);
    pid_t pid = start_sweep(helper);
    if (pid > 0)
        waitpid(pid, NULL, 0);
}

static int
status_of(const char *helper, int wait_status, struct err *err)
{
    if (WIFEXITED(wait_status))
        return WEXITSTATUS(wait_status);
    clean_up_after(helper);
    return err_run(err, "the sandbox's launcher was killed by signal %d, and the sandbox with it", WTERMSIG(wait_status));
}

static int
run_helper(struct run *r, const char *own, int argc, char **argv, struct err *err)
{
    static struct words words;
    sigset_t all;
    int pipe_fds[2];
    cleanup_free char *helper = helper_path(HELPER, err);
    if (!helper)
        return -1;
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return err_errno(err, "pipe");
    fcntl(pipe_fds[0], F_SETFD, 0); /* the helper's end */
    make_words(&words, r, own, pipe_fds[0], argc, argv);
    block_signals(&all);
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    /* The classic way needs the token before anything else is there. */
    int rc = r->o.expose_token ? run_finish(r, err) : 0;
    pid_t pid = rc == 0 ? start_helper(helper, &words, err) : -1;
    free_words(&words);
    close(pipe_fds[0]);
    if (pid > 0 && !r->o.expose_token)
        rc = run_finish(r, err);
    if (pid > 0 && rc == 0)
        (void)!write(pipe_fds[1], "y", 1); /* a helper that has ended has said why */
    close(pipe_fds[1]);
    if (pid < 0)
        return -1;
    if (run_sweep()) /* while CMD runs: nobody waits for it */
        start_sweep(helper);
    int wait_status = wait_for_helper(r, pid, &all);
    return rc < 0 ? -1 : status_of(helper, wait_status, err);
}

/* ---- the command ---- */

static int
fail_making(const struct err *err)
{
    int status = cmd_fail(err);
    return status == 2 ? 2 : STATUS_NO_SANDBOX;
}

static int
run(struct run *r, int argc, char **argv)
{
    struct err err = {0};
    cleanup_free char *gate = helper_path("sallyport", &err);
    if (!gate)
        return fail_making(&err);
    if (r->o.work_item && run_read_work_item(r, &err) < 0)
        return fail_making(&err);
    int status = run_begin(r, &err) < 0 ? -1 : run_helper(r, gate, argc, argv, &err);
    if (status < 0)
        status = fail_making(&err);
    else if (!r->o.quiet)
        run_account(r, status);
    run_remove(r);
    return status;
}

int
cmd_run(int argc, char **argv)
{
    static struct run r;
    const struct option_row rows[] = {OPTION_ROWS(&r.o)};
    struct err err = {0};
    int first = find_command(rows, argc, argv), options = first;
    char **ours = mem_array((size_t)first + 1, sizeof *ours); /* options_parse writes where CMD begins */
    memcpy(ours, argv, (size_t)first * sizeof *ours);
    int rc = options_parse(rows, &options, ours, &err);
    free(ours);
    if (rc < 0)
        return cmd_fail(&err);
    if (r.o.help) {
        options_help(stdout, USAGE, rows);
        return 0;
    }
    if (first < argc && strcmp(argv[first], "--") == 0)
        first++;
    if (first >= argc)
        return cmd_usage(USAGE);
    return run(&r, argc - first, argv + first);
}
