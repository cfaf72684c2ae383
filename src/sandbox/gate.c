/* Starting the proxy as a service manager would: sockets from descriptor 3 on with their names (LISTEN_FDS), readiness by a
 * datagram (NOTIFY_SOCKET). It outlives the launcher only as long as it takes to close its records. */
#include "sallyport/sandbox/gate.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "sallyport/base/mem.h"

#define FIRST_FD 3
#define PARKED_FD 200 /* above every number that is handed over */
#define WORDS_READ 4096

static int
open_notify(struct gate *g, const char *run_dir, struct err *err)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    if ((size_t)snprintf(g->notify_path, sizeof g->notify_path, "%s/notify", run_dir) >= sizeof at.sun_path)
        return err_invalid(err, "%s: the path is too long for a socket", run_dir);
    memcpy(at.sun_path, g->notify_path, strlen(g->notify_path) + 1);
    g->notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (g->notify < 0 || bind(g->notify, (struct sockaddr *)&at, sizeof at) < 0)
        return err_errno(err, "%s", g->notify_path);
    return 0;
}

static void
hand_over(const struct gate_sockets *s)
{
    int parked[GATE_SOCKETS_MAX];
    for (size_t i = 0; i < s->count; i++)
        parked[i] = fcntl(s->fds[i], F_DUPFD, PARKED_FD);
    for (size_t i = 0; i < s->count; i++)
        if (dup2(parked[i], FIRST_FD + (int)i) < 0)
            _exit(127);
    for (size_t i = 0; i < s->count; i++)
        close(parked[i]);
}

static void
set_environment(const struct gate *g, const struct gate_sockets *s)
{
    char number[16], names[GATE_SOCKETS_MAX * 24] = "";
    snprintf(number, sizeof number, "%d", (int)getpid());
    setenv("LISTEN_PID", number, 1);
    snprintf(number, sizeof number, "%zu", s->count);
    setenv("LISTEN_FDS", number, 1);
    for (size_t i = 0; i < s->count; i++)
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? ":" : "", s->names[i]);
    setenv("LISTEN_FDNAMES", names, 1);
    setenv("NOTIFY_SOCKET", g->notify_path, 1);
}

static void
set_standard(const char *run_dir)
{
    cleanup_free char *log = mem_printf("%s/gate.log", run_dir);
    int null = open("/dev/null", O_RDWR), out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (null < 0 || out < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
        _exit(127);
}

static void __attribute__((noreturn))
become_gate(const struct gate *g, const struct sandbox_options *o, const struct gate_sockets *s, pid_t launcher)
{
    const char *args[SANDBOX_LIST_MAX + 3] = {o->gate, "serve"};
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid(); /* a key that interrupts CMD is not meant for it */
    prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
    if (getppid() != launcher)
        _exit(127);
    for (size_t i = 0; i < o->gate_args.count; i++)
        args[2 + i] = o->gate_args.items[i];
    set_standard(o->run_dir);
    hand_over(s);
    close_range(FIRST_FD + (unsigned)s->count, ~0u, 0);
    set_environment(g, s);
    execv(o->gate, (char **)(void *)args);
    fprintf(stderr, "sallyport: %s: %s\n", o->gate, strerror(errno));
    _exit(127);
}

int
gate_start(struct gate *g, const struct sandbox_options *o, const struct gate_sockets *sockets, struct err *err)
{
    if (open_notify(g, o->run_dir, err) < 0)
        return -1;
    pid_t launcher = getpid(), pid = fork();
    if (pid == 0)
        become_gate(g, o, sockets, launcher);
    if (pid < 0)
        return err_errno(err, "fork");
    g->pid = pid;
    return 0;
}

void
gate_hear(struct gate *g)
{
    char text[256];
    for (;;) {
        ssize_t got = recv(g->notify, text, sizeof text - 1, MSG_DONTWAIT);
        if (got < 0)
            return;
        text[got] = '\0';
        if (strstr(text, "READY=1"))
            g->ready = true;
    }
}

void
gate_last_words(const struct sandbox_options *o, char *text, size_t size)
{
    char all[WORDS_READ + 1];
    cleanup_free char *log = mem_printf("%s/gate.log", o->run_dir);
    snprintf(text, size, "it said nothing");
    int fd = open(log, O_RDONLY | O_CLOEXEC);
    off_t end = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    ssize_t got = fd < 0 ? -1 : pread(fd, all, WORDS_READ, end > WORDS_READ ? end - WORDS_READ : 0);
    if (fd >= 0)
        close(fd);
    while (got > 0 && all[got - 1] == '\n')
        got--;
    if (got <= 0)
        return;
    all[got] = '\0';
    const char *line = strrchr(all, '\n');
    snprintf(text, size, "%s", line ? line + 1 : all);
}
