/* PID 1 of a sandbox. It begins with every right over fresh namespaces, and gives up all of it before CMD exists: network,
 * then files, then terminal, then privileges, then system calls. After that it only reaps, hands signals on, and ends with
 * CMD's status; the kernel ends whatever else is left in the namespace. */
#include "sallyport/sandbox/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sallyport/base/mem.h"
#include "sallyport/sandbox/launch.h"
#include "sallyport/sandbox/mounts.h"
#include "sallyport/sandbox/netlink.h"
#include "sallyport/sandbox/sockets.h"
#include "sallyport/sandbox/talk.h"

struct life {
    const struct inside *in;
    char *workdir;
    int slave; /* CMD's terminal, or -1 */
};

static void __attribute__((noreturn))
fail(const struct inside *in, const struct err *err)
{
    char text[ERR_TEXT_MAX + 1];
    text[0] = (char)err->kind;
    size_t len = strlen(err->text);
    memcpy(text + 1, err->text, len);
    say(in->control, SAY_FAILED, text, len + 1, NULL, 0);
    _exit(STATUS_NO_SANDBOX);
}

/* The launcher may have died before the kernel knew that this process is to die with it. */
static void
die_with_launcher(const struct inside *in)
{
    struct pollfd control = {.fd = in->control, .events = 0};
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (poll(&control, 1, 0) > 0 && (control.revents & POLLHUP))
        _exit(STATUS_NO_SANDBOX);
}

/* The launcher's next word, which must be this one. */
static const struct said *
wait_for(const struct inside *in, enum say what)
{
    static _Alignas(8) struct said said;
    if (hear(in->control, &said, 0) <= 0 || said.what != what)
        _exit(STATUS_NO_SANDBOX);
    return &said;
}

static int
make_network(const struct inside *in, struct err *err)
{
    bool ipv6;
    struct gate_sockets sockets;
    char names[GATE_SOCKETS_MAX * 24] = "";
    if (netlink_set_up(&ipv6, err) < 0 || gate_sockets_open(in->options, ipv6, &sockets, err) < 0)
        return -1;
    for (size_t i = 0; i < sockets.count; i++)
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s\n", sockets.names[i]);
    int rc = say(in->control, SAY_SOCKETS, names, strlen(names), sockets.fds, sockets.count);
    if (rc < 0)
        err_errno(err, "handing sockets over");
    gate_sockets_close(&sockets);
    return rc;
}

static int
make_terminal(struct life *life, struct err *err)
{
    int master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), unlocked = 0;
    if (master < 0 || ioctl(master, TIOCSPTLCK, &unlocked) < 0)
        return err_errno(err, "a terminal");
    life->slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (life->slave < 0 || fchmod(life->slave, 0600) < 0)
        return err_errno(err, "a terminal");
    const struct place *p = life->in->place;
    if (!p->user_namespace && fchown(life->slave, p->uid, p->gid) < 0)
        return err_errno(err, "a terminal");
    int rc = say(life->in->control, SAY_TERMINAL, NULL, 0, &master, 1);
    close(master);
    return rc < 0 ? err_errno(err, "handing the terminal over") : 0;
}

static int
set_up(struct life *life, struct err *err)
{
    const struct inside *in = life->in;
    struct tree_wish wish = {in->options, in->place, in->ca_bundle};
    if (make_network(in, err) < 0)
        return err_wrap(err, "the sandbox's network");
    if (unshare(CLONE_NEWCGROUP) < 0 && errno != EINVAL)
        return err_errno(err, "a namespace of control groups");
    if (sethostname("sandbox", 7) < 0)
        return err_errno(err, "its host name");
    if (mounts_make(&wish, &life->workdir, err) < 0)
        return err_wrap(err, "the sandbox's files");
    if (in->terminal && make_terminal(life, err) < 0)
        return -1;
    return limits_inside(in->options, in->limits, err);
}

static void
give_up(const struct life *life, struct err *err)
{
    const struct said *filter = wait_for(life->in, SAY_FILTER);
    if (drop_privileges(life->in->place, err) < 0)
        fail(life->in, err);
    /* A change of user forgets both. */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    die_with_launcher(life->in);
    if (call_filter_load(slice_of(filter->text, filter->text_len), err) < 0)
        fail(life->in, err);
}

/* ---- CMD ---- */

static void
take_terminal(int slave)
{
    setsid();
    if (slave < 0)
        return;
    ioctl(slave, TIOCSCTTY, 0);
    for (int fd = 0; fd < 3; fd++)
        if (isatty(fd))
            dup2(slave, fd);
}

static void __attribute__((noreturn))
become_command(const struct life *life)
{
    char **command = life->in->options->command;
    sigset_t none;
    sigemptyset(&none);
    take_terminal(life->slave);
    for (int s = 1; s < NSIG; s++)
        signal(s, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    umask(022);
    close_range(3, ~0u, 0);
    if (chdir(life->workdir) < 0) {
        fprintf(stderr, "sallyport: %s: %s\n", life->workdir, strerror(errno));
        _exit(STATUS_NO_SANDBOX);
    }
    environ = life->in->env;
    execvp(command[0], command);
    fprintf(stderr, "sallyport: %.200s: %s\n", command[0], strerror(errno));
    _exit(errno == ENOENT || errno == ENOTDIR ? 127 : 126);
}

/* 128+signal as a shell says it. */
static int
status_of(int wait_status)
{
    return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
}

/* All children that have ended; CMD's status, or -1 while it runs. */
static int
reap(pid_t command)
{
    int wait_status, found = -1;
    for (pid_t pid; (pid = waitpid(-1, &wait_status, WNOHANG)) > 0;)
        if (pid == command)
            found = status_of(wait_status);
    return found;
}

static void __attribute__((noreturn))
watch_over(pid_t command)
{
    sigset_t all;
    sigfillset(&all);
    for (;;) {
        int status = reap(command);
        if (status >= 0)
            _exit(status);
        siginfo_t info;
        int s = sigwaitinfo(&all, &info);
        /* The launcher's words have no sender here (pid 0); what comes from inside has reached CMD without us. */
        if (s > 0 && s != SIGCHLD && info.si_pid == 0 && kill(-command, s) < 0)
            kill(command, s); /* it has no session of its own yet */
    }
}

void
inside_main(const struct inside *in)
{
    struct life life = {.in = in, .slave = -1};
    struct err err = {0};
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    prctl(PR_SET_NAME, "init", 0, 0, 0);
    memset(in->words, 0, in->words_len);
    die_with_launcher(in);
    wait_for(in, SAY_GO);
    /* From here on nobody who shares our uid may look into this process. */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (set_up(&life, &err) < 0)
        fail(in, &err);
    give_up(&life, &err);
    pid_t command = fork();
    if (command == 0)
        become_command(&life);
    if (command < 0) {
        err_errno(&err, "fork");
        fail(in, &err);
    }
    say(in->control, SAY_STARTED, NULL, 0, NULL, 0);
    close_range(0, ~0u, 0);
    watch_over(command);
}
