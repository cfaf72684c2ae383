/* fork and exec of a binary in a role. Between fork and exec only calls that are safe there; the child gets the
 * descriptors of the list, standard error and nothing else, and an environment of what a role may look at. */
#include "sallyport/process/spawn.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sallyport/base/mem.h"

extern char **environ;

/* The rest stays behind: it may hold what no worker should know (NOTIFY_SOCKET, credentials of the operator's shell). */
static const char *const kept[] = {"PATH=", "TZ=", "LANG=", "LC_ALL=", "SALLYPORT_DEBUG=", "ASAN_OPTIONS=", "UBSAN_OPTIONS=",
                                   "LSAN_OPTIONS=", "LD_LIBRARY_PATH=", "LLVM_PROFILE_FILE=", "GCOV_PREFIX="};
#define KEPT_COUNT (sizeof kept / sizeof kept[0])

int
spawn_program(const char *name, struct err *err)
{
    static const char *const places[] = {"", "../libexec/sallyport/"};
    char self[4096];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    if (len <= 0)
        return err_errno(err, "/proc/self/exe");
    self[len] = '\0';
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = '\0';
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        cleanup_free char *path = mem_printf("%s/%s%s", self, places[i], name);
        int fd = open(path, O_PATH | O_CLOEXEC);
        if (fd >= 0)
            return fd;
    }
    return err_run(err, "%s is neither beside this binary nor in ../libexec/sallyport", name);
}

void
spawn_init(struct spawn *s, int program, const char *role)
{
    *s = (struct spawn){.program = program};
    spawn_text(s, "sallyport", role);
}

void
spawn_done(struct spawn *s)
{
    for (int i = 0; i < s->arg_count; i++)
        free(s->args[i]);
    *s = (struct spawn){0};
}

void
spawn_text(struct spawn *s, const char *option, const char *value)
{
    assert(s->arg_count + 2 <= SPAWN_ARGS_MAX);
    s->args[s->arg_count++] = mem_strdup(option);
    s->args[s->arg_count++] = mem_strdup(value);
}

void
spawn_number(struct spawn *s, const char *option, long value)
{
    char text[32];
    snprintf(text, sizeof text, "%ld", value);
    spawn_text(s, option, text);
}

void
spawn_user(struct spawn *s, int uid, int gid)
{
    if (uid < 0)
        return;
    spawn_number(s, "--uid", uid);
    spawn_number(s, "--gid", gid);
}

static int
place_fd(struct spawn *s, int fd)
{
    assert(s->fd_count < SPAWN_FDS_MAX);
    s->fds[s->fd_count] = fd;
    return 3 + s->fd_count++;
}

void
spawn_fd(struct spawn *s, const char *option, int fd)
{
    spawn_number(s, option, place_fd(s, fd));
}

void
spawn_named_fd(struct spawn *s, const char *option, const char *name, int fd, const char *suffix)
{
    cleanup_free char *value = mem_printf("%s=%d%s", name, place_fd(s, fd), suffix);
    spawn_text(s, option, value);
}

/* In the child. Sources may stand where targets will, so all go up first. */
static int
arrange_fds(struct spawn *s)
{
    int high[SPAWN_FDS_MAX], last = 3 + s->fd_count;
    if ((s->program = fcntl(s->program, F_DUPFD, last + 1)) < 0)
        return -1;
    for (int i = 0; i < s->fd_count; i++)
        if ((high[i] = fcntl(s->fds[i], F_DUPFD, last + 1)) < 0)
            return -1;
    for (int i = 0; i < s->fd_count; i++)
        if (dup2(high[i], 3 + i) < 0)
            return -1;
    /* The program is the last one, and closes itself when it has become the child. */
    if ((s->program = dup3(s->program, last++, O_CLOEXEC)) < 0)
        return -1;
    return (int)syscall(SYS_close_range, (unsigned)last, ~0u, 0u);
}

static void
child_environment(char **ret)
{
    size_t count = 0;
    for (char **e = environ; e && *e; e++)
        for (size_t k = 0; k < KEPT_COUNT && count < KEPT_COUNT; k++)
            if (strncmp(*e, kept[k], strlen(kept[k])) == 0)
                ret[count++] = *e;
    ret[count] = NULL;
}

static _Noreturn void
become(struct spawn *s)
{
    char *env[KEPT_COUNT + 1];
    sigset_t none;
    sigemptyset(&none);
    /* The children follow the supervisor: signals to the whole group (a terminal, a service manager) are its own. */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (arrange_fds(s) < 0)
        _exit(127);
    child_environment(env);
    execveat(s->program, "", s->args, env, AT_EMPTY_PATH);
    _exit(127);
}

pid_t
spawn_run(struct spawn *s, struct err *err)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        become(s);
    if (pid < 0)
        return err_errno(err, "fork of the %s", s->args[1]);
    return pid;
}
