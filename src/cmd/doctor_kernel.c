/* The kernel part of `sallyport doctor`: who this process is, what it could become, which
 * namespaces it could make or enter, and what of the kernel and of other processes it could write
 * or read. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <linux/sched.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sallyport/cmd/doctor.h"

#define GROUP "kernel"
#define PROCESSES_MAX 256
#define ADVICE_CAPS "drop ALL capabilities and forbid privilege escalation"

/* ---- /proc/self/status ---- */

struct status {
    uint64_t uid[4]; /* real, effective, saved, file system */
    uint64_t inheritable, permitted, effective, bounding, ambient;
    uint64_t no_new_privs, seccomp;
};

/* The numbers behind "NAME:", as many as there are up to count. False when line is another. */
static bool
take_numbers(const char *line, const char *name, int base, uint64_t *ret, size_t count)
{
    size_t len = strlen(name);
    if (strncmp(line, name, len) != 0 || line[len] != ':')
        return false;
    const char *at = line + len + 1;
    for (size_t i = 0; i < count; i++) {
        char *end;
        ret[i] = strtoull(at, &end, base);
        if (end == at)
            return false;
        at = end;
    }
    return true;
}

static bool
read_status(struct status *s)
{
    const struct {
        const char *name;
        int base;
        uint64_t *place;
        size_t count;
    } rows[] = {
        {"Uid", 10, s->uid, 4},
        {"CapInh", 16, &s->inheritable, 1},
        {"CapPrm", 16, &s->permitted, 1},
        {"CapEff", 16, &s->effective, 1},
        {"CapBnd", 16, &s->bounding, 1},
        {"CapAmb", 16, &s->ambient, 1},
        {"NoNewPrivs", 10, &s->no_new_privs, 1},
        {"Seccomp", 10, &s->seccomp, 1},
    };
    char line[256];
    size_t seen = 0;
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof line, f))
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
            seen += take_numbers(line, rows[i].name, rows[i].base, rows[i].place, rows[i].count);
    if (f)
        fclose(f);
    return seen == sizeof rows / sizeof rows[0];
}

/* ---- user and capabilities ---- */

static bool
in_first_user_namespace(void)
{
    char line[128] = ":";
    uint64_t map[3] = {1, 1, 0}; /* inside, outside, count */
    FILE *f = fopen("/proc/self/uid_map", "re");
    bool ok = f && fgets(line + 1, sizeof line - 1, f) && take_numbers(line, "", 10, map, 3);
    if (f)
        fclose(f);
    return ok && map[0] == 0 && map[1] == 0 && map[2] == UINT32_MAX;
}

static void
judge_user(struct doctor *d, const struct status *s)
{
    bool root = s->uid[0] == 0 || s->uid[1] == 0 || s->uid[2] == 0;
    enum doctor_verdict verdict = !root                       ? DOCTOR_PASS
                                  : in_first_user_namespace() ? DOCTOR_FAIL
                                                              : DOCTOR_WARN;
    doctor_add(d, GROUP, "user", verdict, "run the workload as a user of its own (runAsNonRoot)",
               "uid %llu%s", (unsigned long long)s->uid[1],
               root && !in_first_user_namespace() ? ", root of a user namespace only"
               : root                             ? ", root of the machine"
                                                  : "");
}

static int
become(void *uid)
{
    uid_t u = *(uint32_t *)uid;
    return setresuid(u, u, u) == 0 ? 0 : 1;
}

static void
judge_proxy_user(struct doctor *d, const struct status *s)
{
    if (!d->has_proxy_uid)
        return;
    bool is = false;
    for (size_t i = 0; i < 4; i++)
        is |= s->uid[i] == d->proxy_uid;
    bool can = !is && doctor_in_child(become, &d->proxy_uid) == 0;
    doctor_add(d, GROUP, "the proxy's user", is || can ? DOCTOR_FAIL : DOCTOR_PASS,
               "another user for the workload than the proxy's, without CAP_SETUID: the fence lets "
               "that user out",
               is    ? "this is uid %u"
               : can ? "uid %u can be taken on"
                     : "uid %u cannot be taken on",
               d->proxy_uid);
}

static const struct {
    int number;
    const char *name;
} capabilities[] = {
    {CAP_NET_RAW, "NET_RAW"},
    {CAP_NET_ADMIN, "NET_ADMIN"},
    {CAP_SETUID, "SETUID"},
    {CAP_SETGID, "SETGID"},
    {CAP_SYS_ADMIN, "SYS_ADMIN"},
    {CAP_SYS_PTRACE, "SYS_PTRACE"},
    {CAP_SYS_MODULE, "SYS_MODULE"},
    {CAP_SYS_RAWIO, "SYS_RAWIO"},
    {CAP_SYS_BOOT, "SYS_BOOT"},
    {CAP_BPF, "BPF"},
    {CAP_PERFMON, "PERFMON"},
    {CAP_MKNOD, "MKNOD"},
    {CAP_DAC_READ_SEARCH, "DAC_READ_SEARCH"},
};

static void
judge_capabilities(struct doctor *d, const struct status *s)
{
    uint64_t held = s->effective | s->permitted | s->ambient | s->inheritable;
    size_t found = 0;
    for (size_t i = 0; i < sizeof capabilities / sizeof capabilities[0]; i++) {
        char name[DOCTOR_NAME_SIZE];
        if (!(held >> capabilities[i].number & 1))
            continue;
        snprintf(name, sizeof name, "capability %s", capabilities[i].name);
        doctor_add(d, GROUP, name, DOCTOR_FAIL, ADVICE_CAPS, "held");
        found++;
    }
    if (found == 0)
        doctor_add(d, GROUP, "capabilities", held ? DOCTOR_WARN : DOCTOR_PASS, ADVICE_CAPS,
                   held ? "held, but none that opens a way" : "none");
    bool can_gain = s->bounding && !s->no_new_privs;
    doctor_add(d, GROUP, "no_new_privs",
               s->no_new_privs ? DOCTOR_PASS
               : can_gain      ? DOCTOR_FAIL
                               : DOCTOR_WARN,
               "allowPrivilegeEscalation: false, or setpriv --no-new-privs", "%s",
               s->no_new_privs ? "set"
               : can_gain      ? "not set: a set-uid program gives capabilities back"
                               : "not set");
    doctor_add(d, GROUP, "system call filter", s->seccomp == 2 ? DOCTOR_PASS : DOCTOR_WARN,
               "a seccomp profile (sallyport run has one; in a pod: RuntimeDefault)", "%s",
               s->seccomp == 2 ? "on" : "none");
}

/* ---- namespaces ---- */

static int
unshare_user(void *unused)
{
    (void)unused;
    return unshare(CLONE_NEWUSER) == 0 ? 0 : errno;
}

static int
unshare_net(void *unused)
{
    (void)unused;
    return unshare(CLONE_NEWNET) == 0 ? 0 : errno;
}

/* clone3 keeps its flags in memory, where a filter cannot look. */
static int
clone3_user(void *unused)
{
    struct clone_args args = {.flags = CLONE_NEWUSER};
    (void)unused;
    long pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0)
        _exit(0);
    return pid > 0 ? 0 : errno;
}

static int
ring(void *unused)
{
    struct io_uring_params params = {0};
    (void)unused;
    return syscall(SYS_io_uring_setup, 1, &params) >= 0 ? 0 : errno;
}

static const struct {
    const char *name;
    int (*fn)(void *);
    const char *advice;
} calls[] = {
    {"new user namespace", unshare_user,
     "a system call filter: every capability is to be had inside a new one"},
    {"new user namespace by clone3", clone3_user,
     "a system call filter that answers clone3 with ENOSYS"},
    {"new network namespace", unshare_net, "a system call filter, and no CAP_SYS_ADMIN"},
    {"io_uring", ring, "a system call filter: its operations pass by the filter of the others"},
};

static void
try_calls(struct doctor *d)
{
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        int error = doctor_in_child(calls[i].fn, NULL);
        doctor_add(d, GROUP, calls[i].name, error ? DOCTOR_PASS : DOCTOR_WARN, calls[i].advice,
                   "%s",
                   error > 0   ? strerror(error)
                   : error < 0 ? "ends the process"
                               : "permitted");
    }
}

/* ---- other processes ---- */

struct others {
    ino_t own_net;
    char entered[16], read[16]; /* process ids; "": none */
};

static int
enter_net(void *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && setns(fd, CLONE_NEWNET) == 0 ? 0 : 1;
}

/* Opening a process's memory is judged as attaching to it is, and touches nothing. */
static bool
memory_opens(const char *pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%.16s/mem", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static void
try_process(struct others *o, const char *pid)
{
    char path[64];
    struct stat st;
    bool stranger = false;
    snprintf(path, sizeof path, "/proc/%.16s", pid);
    if (stat(path, &st) == 0)
        stranger = st.st_uid != geteuid();
    snprintf(path, sizeof path, "/proc/%.16s/ns/net", pid);
    if (stat(path, &st) == 0 && st.st_ino != o->own_net) {
        stranger = true;
        if (!*o->entered && doctor_in_child(enter_net, path) == 0)
            snprintf(o->entered, sizeof o->entered, "%.15s", pid);
    }
    if (stranger && !*o->read && memory_opens(pid))
        snprintf(o->read, sizeof o->read, "%.15s", pid);
}

static void
try_processes(struct doctor *d)
{
    struct others o = {0};
    struct stat own;
    size_t left = PROCESSES_MAX;
    DIR *proc = opendir("/proc");
    if (stat("/proc/self/ns/net", &own) == 0)
        o.own_net = own.st_ino;
    for (struct dirent *e; proc && left > 0 && (e = readdir(proc));) {
        if (!isdigit((unsigned char)e->d_name[0]))
            continue;
        try_process(&o, e->d_name);
        left--;
    }
    if (proc)
        closedir(proc);
    const char *advice =
        "a PID namespace of the sandbox's own, and no CAP_SYS_PTRACE or CAP_SYS_ADMIN";
    doctor_add(d, GROUP, "network of other processes", *o.entered ? DOCTOR_FAIL : DOCTOR_PASS,
               advice, "%s%s",
               *o.entered ? "can be entered: that of process " : "none can be entered", o.entered);
    doctor_add(d, GROUP, "memory of other users", *o.read ? DOCTOR_FAIL : DOCTOR_PASS, advice,
               "%s%s", *o.read ? "can be read: that of process " : "none can be read", o.read);
}

/* ---- files of the kernel ---- */

static const struct {
    const char *path;
    int flags;
    enum doctor_verdict when_open;
} files[] = {
    {"/proc/sys/net/ipv4/ip_forward", O_WRONLY, DOCTOR_FAIL},
    {"/proc/sys/kernel/core_pattern", O_WRONLY, DOCTOR_FAIL},
    {"/proc/sys/kernel/modprobe", O_WRONLY, DOCTOR_FAIL},
    {"/proc/sysrq-trigger", O_WRONLY, DOCTOR_FAIL},
    {"/sys/kernel/uevent_helper", O_WRONLY, DOCTOR_FAIL},
    {"/sys/kernel/mm/transparent_hugepage/enabled", O_WRONLY, DOCTOR_FAIL},
    {"/sys/fs/cgroup/release_agent", O_WRONLY, DOCTOR_FAIL},
    {"/dev/mem", O_RDONLY, DOCTOR_FAIL},
    {"/dev/vsock", O_RDONLY, DOCTOR_FAIL},
    {"/dev/vhost-vsock", O_RDWR, DOCTOR_FAIL},
    {"/dev/net/tun", O_RDWR, DOCTOR_WARN},
    {"/dev/kvm", O_RDWR, DOCTOR_WARN},
    {"/dev/fuse", O_RDWR, DOCTOR_WARN},
    {"/dev/kmsg", O_RDONLY, DOCTOR_WARN},
};

static void
try_files(struct doctor *d)
{
    size_t found = 0;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        int fd = open(files[i].path, files[i].flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd < 0)
            continue;
        close(fd);
        found++;
        doctor_add(d, GROUP, files[i].path, files[i].when_open,
                   "/sys and /proc/sys read-only, a minimal /dev", "can be opened%s",
                   files[i].flags == O_RDONLY ? "" : " for writing");
    }
    if (found == 0)
        doctor_add(d, GROUP, "/proc/sys, /sys, /dev", DOCTOR_PASS, NULL,
                   "nothing that opens the kernel");
}

void
doctor_kernel(struct doctor *d)
{
    struct status s = {0};
    if (read_status(&s)) {
        judge_user(d, &s);
        judge_capabilities(d, &s);
    } else {
        doctor_add(d, GROUP, "user and capabilities", DOCTOR_FAIL, "mount /proc in the sandbox",
                   "/proc/self/status cannot be read");
    }
    judge_proxy_user(d, &s);
    try_calls(d);
    try_processes(d);
    try_files(d);
}
