/* The launcher: one loop over one sandbox. Makes its first process, starts the gate when the sockets are there and CMD has run
 * for a moment or somebody knocks (a CMD that is gone before costs no gate), copies the terminal, hands signals on, keeps the time, and at the end leaves no process, control group or file behind, whichever
 * of caller, CMD and gate ends first. Holds no token and parses nothing that comes from inside. */
#include "sallyport/sandbox/launch.h"

#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sallyport/base/clock.h"
#include "sallyport/base/file.h"
#include "sallyport/base/mem.h"
#include "sallyport/sandbox/environment.h"
#include "sallyport/sandbox/gate.h"
#include "sallyport/sandbox/inside.h"
#include "sallyport/sandbox/mounts.h"
#include "sallyport/sandbox/talk.h"
#include "sallyport/sandbox/terminal.h"
#include "sallyport/sandbox/trust.h"

#define GATE_DELAY_MS 5      /* longer than `true` runs, shorter than what any program with a network needs to begin */
#define GATE_START_MS 10000  /* until it serves what already waits */
#define GATE_SETTLE_MS 500   /* for what still lies in its sockets when CMD has ended */
#define GATE_END_MS 8000     /* for closing its records */
#define ORPHANS_END_MS 2000
#define TIMEOUT_GRACE_MS 2000
#define CREDENTIAL_MAX 32768

struct launcher {
    struct sandbox_options o;
    struct place place;
    struct limits limits;
    struct gate gate;
    struct gate_sockets sockets;
    struct terminal terminal;
    pid_t caller, child;       /* child 0: has ended */
    int control, signals, wait; /* wait -1: nothing to wait for any more */
    bool started, timed_out, orphaned;
    int64_t gate_at_ms;        /* when the gate is started at the latest */
    int status;                /* of CMD */
    int64_t deadline_ms;       /* 0: none */
    struct err failure;        /* one without a text is not ours to tell */
    bool filter_due;
    char *credential, *ca_bundle, **env;
};

/* ---- what comes in with us ---- */

/* Directories would show the host's tree, sockets of the host's network would lead out: CMD's standard descriptors are files,
 * pipes and terminals. */
static int
check_standard(int fd, struct err *err)
{
    struct stat st;
    int domain = 0, type = 0;
    socklen_t len = sizeof domain, type_len = sizeof type;
    if (fstat(fd, &st) < 0) {
        if (open("/dev/null", O_RDWR) != fd)
            return err_run(err, "descriptor %d is closed", fd);
        return 0;
    }
    if (S_ISDIR(st.st_mode) || (fcntl(fd, F_GETFL) & O_PATH) || S_ISBLK(st.st_mode))
        return err_invalid(err, "descriptor %d is a directory or disk, through which CMD would see the host", fd);
    if (!S_ISSOCK(st.st_mode))
        return 0;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 || getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_len) < 0 ||
        domain != AF_UNIX || type != SOCK_STREAM)
        return err_invalid(err, "descriptor %d is a socket of the host's network, through which CMD could leave; use a pipe", fd);
    return 0;
}

static int
read_files(struct launcher *l, struct err *err)
{
    size_t len;
    if (l->o.credential_file) {
        if (file_read(l->o.credential_file, CREDENTIAL_MAX, FILE_PRIVATE, &l->credential, &len, err) < 0)
            return -1;
        l->credential[strcspn(l->credential, "\r\n")] = '\0';
    }
    return 0;
}

/* Shared with the caller: as long as one of us lives, nobody sweeps the folder away. */
static void
hold_run_dir(const char *path)
{
    cleanup_free char *name = mem_printf("%s/lock", path);
    int fd = open(name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0)
        flock(fd, LOCK_SH | LOCK_NB);
}

/* Of all descriptors that came in beside the standard ones, the one that was named stays, as 3. */
static int
keep_wait_fd(struct launcher *l, struct err *err)
{
    if (l->o.wait_fd && dup2(l->o.wait_fd, 3) < 0)
        return err_errno(err, "--wait-fd");
    close_range(l->o.wait_fd ? 4 : 3, ~0u, 0);
    l->wait = l->o.wait_fd ? 3 : -1;
    if (l->wait >= 0)
        fcntl(l->wait, F_SETFD, FD_CLOEXEC);
    return 0;
}

static int
prepare(struct launcher *l, struct err *err)
{
    for (int fd = 0; fd < 3; fd++)
        if (check_standard(fd, err) < 0)
            return -1;
    if (keep_wait_fd(l, err) < 0)
        return -1;
    hold_run_dir(l->o.run_dir);
    if (read_files(l, err) < 0)
        return -1;
    struct environment_in in = {environ, &l->o.env, l->credential, l->o.id, l->o.ca_bundle ? INSIDE_CA_BUNDLE : NULL, !l->o.no_proxy_env};
    if (l->o.ca_bundle && trust_read(l->o.ca_bundle, &in, &l->ca_bundle, err) < 0)
        return err_wrap(err, "--ca-bundle");
    l->env = environment_make(&in, err);
    if (!l->env || place_choose(&l->o, &l->place, err) < 0)
        return -1;
    return limits_make(&l->o, &l->limits, err);
}

/* ---- starting ---- */

static int
open_signals(void)
{
    sigset_t all;
    sigfillset(&all);
    /* Stopping by a key is the terminal's business, and a fault of our own is nobody's to read later. */
    static const int not_ours[] = {SIGTSTP, SIGTTIN, SIGTTOU, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};
    for (size_t i = 0; i < sizeof not_ours / sizeof not_ours[0]; i++)
        sigdelset(&all, not_ours[i]);
    sigprocmask(SIG_SETMASK, &all, NULL);
    return signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
}

struct words { char *start; size_t len; };

static int
make_child(struct launcher *l, struct words words, struct err *err)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_errno(err, "socketpair");
    pid_t pid = place_clone(&l->place, err);
    if (pid == 0) {
        struct inside in = {&l->o, &l->place, &l->limits, l->env, l->ca_bundle, pair[1], words.start, words.len, terminal_wanted()};
        close(pair[0]);
        close(l->signals);
        inside_main(&in);
    }
    close(pair[1]);
    l->control = pair[0];
    if (pid < 0)
        return -1;
    l->child = pid;
    if (place_map_ids(&l->place, pid, err) < 0 || limits_join(&l->limits, pid, err) < 0)
        return -1;
    return say(l->control, SAY_GO, NULL, 0, NULL, 0) < 0 ? err_errno(err, "the sandbox's first process") : 0;
}

static int
give_filter(struct launcher *l, struct err *err)
{
    char *program;
    size_t len;
    if (call_filter_make(&program, &len, err) < 0)
        return -1;
    int rc = say(l->control, SAY_FILTER, program, len, NULL, 0);
    if (rc < 0 && errno == EPIPE)
        rc = 0; /* it has failed already, and its last word is still to be heard */
    else if (rc < 0)
        err_errno(err, "handing the system call filter over");
    free(program);
    return rc;
}

static void
give_up(struct launcher *l, const struct err *why)
{
    if (l->failure.kind == ERR_NONE)
        l->failure = *why;
    if (l->child)
        kill(l->child, SIGKILL);
}

/* ---- what it is told ---- */

static void
take_sockets(struct launcher *l, const struct said *said)
{
    static const char *const known[] = {"sandbox-proxy", "sandbox-transparent", "sandbox-dns", "sandbox-watch"};
    struct slice rest = slice_of(said->text, said->text_len);
    for (size_t i = 0; i < said->fd_count; i++) {
        struct slice name = rest.ptr ? slice_split(rest, '\n', &rest) : slice_str("");
        for (size_t k = 0; k < sizeof known / sizeof known[0]; k++)
            if (slice_is(name, known[k]))
                l->sockets.names[i] = known[k];
        l->sockets.fds[i] = said->fds[i];
    }
    l->sockets.count = said->fd_count;
    l->filter_due = true;
}

static void
start_gate(struct launcher *l)
{
    struct err err = {0};
    if (l->gate.pid || l->gate.notify >= 0 || l->failure.kind != ERR_NONE || gate_start(&l->gate, &l->o, &l->sockets, &err) == 0)
        return;
    err_wrap(&err, "starting the proxy");
    give_up(l, &err);
}

/* The last thing that CMD waits for. It is compiled while the caller and the sandbox are busy with their halves. */
static void
give_filter_when_due(struct launcher *l)
{
    struct err err = {0};
    if (!l->filter_due || l->wait >= 0 || !l->child)
        return;
    l->filter_due = false;
    if (give_filter(l, &err) < 0)
        give_up(l, &err);
}

/* The caller has made its files, or has failed and said why. */
static void
hear_caller(struct launcher *l)
{
    char byte;
    if (read(l->wait, &byte, 1) != 1) {
        struct err silent = {.kind = ERR_RUN};
        give_up(l, &silent);
    }
    close(l->wait);
    l->wait = -1;
}

static void
take_failure(struct launcher *l, const struct said *said)
{
    struct err err = {.kind = said->text_len && said->text[0] == ERR_INVALID ? ERR_INVALID : ERR_RUN};
    if (said->text_len)
        snprintf(err.text, sizeof err.text, "%s", said->text + 1);
    if (strstr(err.text, strerror(EPERM)) || strstr(err.text, strerror(EACCES)))
        place_explain(&l->place, false, &err);
    give_up(l, &err);
}

static void
hear_inside(struct launcher *l)
{
    static struct said said;
    if (hear(l->control, &said, MSG_DONTWAIT) <= 0) {
        close(l->control);
        l->control = -1;
        return;
    }
    switch (said.what) {
    case SAY_SOCKETS:
        take_sockets(l, &said);
        break;
    case SAY_TERMINAL:
        terminal_attach(&l->terminal, said.fds[0]);
        break;
    case SAY_STARTED:
        l->started = true;
        l->gate_at_ms = clock_mono_ms() + GATE_DELAY_MS;
        break;
    case SAY_FAILED:
        take_failure(l, &said);
        break;
    case SAY_NOTHING:
    case SAY_GO:
    case SAY_FILTER:
        break;
    }
}

static void
lose_gate(struct launcher *l)
{
    char words[512];
    struct err err = {0};
    l->gate.pid = 0;
    if (!l->child)
        return;
    gate_last_words(&l->o, words, sizeof words);
    err_run(&err, "the proxy has ended, and without it nothing leaves: %s", words);
    give_up(l, &err);
}

static void
reap(struct launcher *l)
{
    int wait_status;
    for (pid_t pid; (pid = waitpid(-1, &wait_status, WNOHANG)) > 0;) {
        if (pid == l->child) {
            l->child = 0;
            l->status = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
        } else if (pid == l->gate.pid) {
            lose_gate(l);
        }
    }
}

static void
hear_signals(struct launcher *l)
{
    struct signalfd_siginfo info;
    while (read(l->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        int signo = (int)info.ssi_signo;
        if (getppid() != l->caller) {
            l->orphaned = true;
            if (l->child)
                kill(l->child, SIGKILL);
        }
        if (signo == SIGCHLD)
            reap(l);
        else if (signo == SIGWINCH)
            terminal_resize(&l->terminal);
        else if (l->child && l->started)
            kill(l->child, signo);
        else if (l->child)
            kill(l->child, SIGKILL);
    }
}

static int64_t
sooner(int64_t wait_ms, int64_t at_ms)
{
    int64_t left = at_ms - clock_mono_ms();
    left = left < 0 ? 0 : left;
    return wait_ms < 0 || left < wait_ms ? left : wait_ms;
}

static void
keep_time(struct launcher *l)
{
    if (l->gate_at_ms && clock_mono_ms() >= l->gate_at_ms && l->child) {
        l->gate_at_ms = 0;
        start_gate(l);
    }
    if (!l->deadline_ms || clock_mono_ms() < l->deadline_ms || !l->child)
        return;
    if (!l->timed_out)
        fprintf(stderr, "sallyport: --timeout: CMD has run for %lld s and is ended\n", (long long)l->o.timeout_s);
    kill(l->child, l->timed_out ? SIGKILL : SIGTERM);
    l->timed_out = true;
    l->deadline_ms = clock_mono_ms() + TIMEOUT_GRACE_MS;
}

/* One turn, of at most so many milliseconds (-1: until something happens). */
static void
turn(struct launcher *l, int64_t wait_ms)
{
    struct pollfd rows[7 + GATE_SOCKETS_MAX] = {{.fd = l->signals, .events = POLLIN}, {.fd = l->control, .events = POLLIN},
                                                {.fd = l->gate.notify, .events = POLLIN}};
    terminal_poll(&l->terminal, rows + 3);
    rows[6] = (struct pollfd){.fd = l->wait, .events = POLLIN};
    size_t count = 7;
    for (size_t i = 0; l->gate_at_ms && i < l->sockets.count; i++)
        rows[count++] = (struct pollfd){.fd = l->sockets.fds[i], .events = POLLIN};
    if (l->deadline_ms && l->child)
        wait_ms = sooner(wait_ms, l->deadline_ms);
    if (l->gate_at_ms && l->child)
        wait_ms = sooner(wait_ms, l->gate_at_ms);
    if (poll(rows, (nfds_t)count, wait_ms > 3600000 ? 3600000 : (int)wait_ms) < 0)
        return;
    for (size_t i = 7; i < count; i++)
        if (rows[i].revents)
            l->gate_at_ms = 1; /* somebody knocks: now */
    if (rows[6].revents)
        hear_caller(l);
    if (rows[1].revents)
        hear_inside(l);
    if (rows[2].revents)
        gate_hear(&l->gate);
    terminal_move(&l->terminal, rows + 3);
    give_filter_when_due(l);
    if (rows[0].revents)
        hear_signals(l);
    keep_time(l);
}

/* ---- the end ---- */

static bool
sockets_hold_something(const struct launcher *l)
{
    struct pollfd rows[GATE_SOCKETS_MAX];
    for (size_t i = 0; i < l->sockets.count; i++)
        rows[i] = (struct pollfd){.fd = l->sockets.fds[i], .events = POLLIN};
    return poll(rows, (nfds_t)l->sockets.count, 0) > 0;
}

/* The last attempts of CMD may still wait to be answered or recorded: then the gate gets its time. */
static void
settle_gate(struct launcher *l)
{
    int64_t begin = clock_mono_ms();
    if (l->started && sockets_hold_something(l))
        start_gate(l);
    while (l->gate.pid && !l->gate.ready && sockets_hold_something(l) && clock_mono_ms() - begin < GATE_START_MS)
        turn(l, 20);
    begin = clock_mono_ms();
    while (l->gate.pid && l->gate.ready && sockets_hold_something(l) && clock_mono_ms() - begin < GATE_SETTLE_MS)
        turn(l, 5);
}

static void
stop_gate(struct launcher *l)
{
    if (l->failure.kind == ERR_NONE && !l->orphaned)
        settle_gate(l);
    if (l->gate.pid)
        kill(l->gate.pid, SIGTERM);
    for (int64_t begin = clock_mono_ms(); l->gate.pid && clock_mono_ms() - begin < GATE_END_MS;)
        turn(l, 100);
    if (l->gate.pid)
        kill(l->gate.pid, SIGKILL);
}

/* Processes that a dead gate left came to us (PR_SET_CHILD_SUBREAPER). */
static void
end_orphans(void)
{
    char path[64];
    int pid;
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    FILE *f = fopen(path, "re");
    while (f && fscanf(f, "%d", &pid) == 1)
        kill(pid, SIGKILL);
    if (f)
        fclose(f);
}

static void
wait_for_all(struct launcher *l)
{
    int64_t begin = clock_mono_ms();
    struct pollfd row = {.fd = l->signals, .events = POLLIN};
    struct signalfd_siginfo info;
    bool killed = false;
    for (;;) {
        pid_t pid = waitpid(-1, NULL, WNOHANG);
        if (pid < 0)
            return;
        if (pid > 0)
            continue;
        if (!killed && clock_mono_ms() - begin > ORPHANS_END_MS) {
            end_orphans();
            killed = true;
        }
        poll(&row, 1, 20);
        while (read(l->signals, &info, sizeof info) > 0)
            continue;
    }
}

void
remove_run_dir(const char *path)
{
    DIR *d = opendir(path);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
    rmdir(path);
}

static void
print_failure(const struct err *err)
{
    char line[ERR_TEXT_MAX];
    snprintf(line, sizeof line, "%s", err->text);
    for (char *p = line; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    fprintf(stderr, "sallyport: %s\n", line);
}

static int
end(struct launcher *l)
{
    if (l->child)
        kill(l->child, SIGKILL);
    while (l->child)
        turn(l, 1000);
    while (l->control >= 0) /* its last words may come after the news of its end */
        hear_inside(l);
    terminal_finish(&l->terminal);
    stop_gate(l);
    wait_for_all(l);
    gate_sockets_leave(&l->sockets);
    limits_remove(&l->limits);
    environment_free(l->env);
    if (l->credential)
        mem_wipe(l->credential, strlen(l->credential));
    free(l->credential);
    free(l->ca_bundle);
    if (l->orphaned)
        remove_run_dir(l->o.run_dir);
    if (l->failure.kind == ERR_NONE && !l->started)
        err_run(&l->failure, "the sandbox's first process ended before CMD began");
    if (l->failure.kind == ERR_NONE)
        return l->status;
    if (l->failure.text[0])
        print_failure(&l->failure);
    return STATUS_NO_SANDBOX;
}

static int
run(struct launcher *l, struct words words)
{
    struct err err = {0};
    l->caller = getppid();
    prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    terminal_init(&l->terminal);
    l->control = l->gate.notify = l->signals = l->wait = -1;
    if (prepare(l, &err) < 0) {
        give_up(l, &err);
        return end(l);
    }
    if (l->limits.rlimits)
        fprintf(stderr, "sallyport: --limits best-effort: no control group can be made here; --memory, --cpus and --pids are rlimits of each process\n");
    l->signals = open_signals();
    if (make_child(l, words, &err) < 0)
        give_up(l, &err);
    if (l->o.timeout_s)
        l->deadline_ms = clock_mono_ms() + l->o.timeout_s * 1000;
    while (l->child)
        turn(l, -1);
    return end(l);
}

/* main's arguments and the environment behind them lie in one piece. What is needed of them is copied. */
static struct words
words_of(int argc, char **argv)
{
    char *last = argv[argc - 1];
    for (char **e = environ; *e; e++)
        if (*e > last)
            last = *e;
    return (struct words){argv[0], (size_t)(last + strlen(last) - argv[0])};
}

int
launch_main(int argc, char **argv)
{
    static struct launcher l;
    struct err err = {0};
    char **copy = mem_array((size_t)argc + 1, sizeof *copy);
    for (int i = 0; i < argc; i++)
        copy[i] = mem_strdup(argv[i]);
    int status = 2;
    if (sandbox_options_parse(argc, copy, &l.o, &err) < 0)
        print_failure(&err);
    else
        status = run(&l, words_of(argc, argv));
    for (int i = 0; i < argc; i++)
        free(copy[i]);
    free(copy);
    return status;
}
