/* Confinement of a child after its start. What a stolen one can still do is what stands in the tables below. */
#include "sallyport/process/confine.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/sched.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sallyport/base/diag.h"
#include "sallyport/base/sanitized.h"

/* The build in which `make check` counts instructions: callgrind works inside the process and knows no filters. */
#ifdef SALLYPORT_INSTRUMENTED
#define INSTRUMENTED 1
#else
#define INSTRUMENTED 0
#endif

/* ---- user, capabilities, dumps ---- */

static int
drop_user(const struct role_start *start, struct err *err)
{
    if (start->uid < 0 || geteuid() != 0)
        return 0;
    gid_t gid = (gid_t)start->gid;
    uid_t uid = (uid_t)start->uid;
    if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
        return err_errno(err, "user: cannot become user %d, group %d (null stays what it is)", start->uid, start->gid);
    return 0;
}

static int
drop_capabilities(struct err *err)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {0};
    /* Some may be missing already; past the last one the answer is an error. */
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        prctl(PR_CAPBSET_DROP, cap, 0, 0, 0); /* needs CAP_SETPCAP; no_new_privs makes it moot */
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    return syscall(SYS_capset, &head, none) < 0 ? err_errno(err, "giving up capabilities") : 0;
}

static int
forbid_dumps(struct err *err)
{
    struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_CORE, &none) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return err_errno(err, "forbidding core dumps");
    return 0;
}

/* ---- Landlock: no file at all (descriptors that are open stay open) ---- */

#define FILES_V1 ((UINT64_C(1) << 13) - 1) /* execute … make_sym */

static uint64_t
handled_files(long abi)
{
    uint64_t all = FILES_V1;
    if (abi >= 2)
        all |= UINT64_C(1) << 13; /* refer */
    if (abi >= 3)
        all |= UINT64_C(1) << 14; /* truncate */
    if (abi >= 5)
        all |= UINT64_C(1) << 15; /* ioctl_dev */
    return all;
}

static void
forbid_files(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi < 1) {
        diag(DIAG_WARNING, "this kernel has no Landlock: files are closed by the system call filter alone");
        return;
    }
    struct landlock_ruleset_attr attr = {.handled_access_fs = handled_files(abi)};
    /* A sanitizer reads its own maps and symbols when it reports. */
    if (SANITIZED)
        attr.handled_access_fs &= ~(uint64_t)(LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR);
    int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr.handled_access_fs, 0);
    if (fd < 0 || syscall(SYS_landlock_restrict_self, fd, 0) < 0)
        diag(DIAG_WARNING, "Landlock refuses: files are closed by the system call filter alone");
    if (fd >= 0)
        close(fd);
}

/* ---- system calls ---- */

/* What ends the process at once: nothing here ever does that, so somebody else is at the wheel. */
static const int deadly[] = {
    SCMP_SYS(execve), SCMP_SYS(execveat), SCMP_SYS(process_vm_readv), SCMP_SYS(process_vm_writev), SCMP_SYS(bpf),
    SCMP_SYS(kexec_load), SCMP_SYS(init_module), SCMP_SYS(finit_module), SCMP_SYS(delete_module), SCMP_SYS(mount), SCMP_SYS(umount2),
    SCMP_SYS(pivot_root), SCMP_SYS(chroot), SCMP_SYS(setns), SCMP_SYS(unshare), SCMP_SYS(perf_event_open), SCMP_SYS(userfaultfd),
    SCMP_SYS(io_uring_setup), SCMP_SYS(keyctl), SCMP_SYS(add_key), SCMP_SYS(request_key), SCMP_SYS(personality), SCMP_SYS(reboot),
    SCMP_SYS(swapon), SCMP_SYS(swapoff), SCMP_SYS(acct), SCMP_SYS(open_by_handle_at), SCMP_SYS(setuid), SCMP_SYS(setgid),
    SCMP_SYS(setresuid), SCMP_SYS(setresgid), SCMP_SYS(fork), SCMP_SYS(vfork),
#if !SANITIZED
    SCMP_SYS(ptrace), /* a leak check traces its own process */
#endif
};

/* Every role: memory, time, waiting, and the descriptors that it has. */
static const int common[] = {
    SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(close), SCMP_SYS(fstat), SCMP_SYS(newfstatat),
    SCMP_SYS(statx), SCMP_SYS(lseek), SCMP_SYS(fcntl), SCMP_SYS(dup), SCMP_SYS(mmap), SCMP_SYS(munmap), SCMP_SYS(mremap),
    SCMP_SYS(mprotect), SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(futex), SCMP_SYS(getrandom), SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_getres), SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep), SCMP_SYS(gettimeofday), SCMP_SYS(time),
    SCMP_SYS(timerfd_create), SCMP_SYS(timerfd_settime), SCMP_SYS(eventfd2), SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl),
    SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_pwait2), SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(recvmsg),
    SCMP_SYS(sendmsg), SCMP_SYS(recvfrom), SCMP_SYS(sendto), SCMP_SYS(shutdown), SCMP_SYS(getsockopt), SCMP_SYS(getsockname),
    SCMP_SYS(getpeername), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(sigaltstack),
    SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid), SCMP_SYS(getegid), SCMP_SYS(getppid),
    SCMP_SYS(getrusage), SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity), SCMP_SYS(restart_syscall), SCMP_SYS(rseq),
    SCMP_SYS(set_robust_list), SCMP_SYS(membarrier), SCMP_SYS(sysinfo), SCMP_SYS(uname), SCMP_SYS(exit), SCMP_SYS(exit_group),
};

static const int for_sockets[] = {
    SCMP_SYS(accept), SCMP_SYS(accept4), SCMP_SYS(connect), SCMP_SYS(bind), SCMP_SYS(setsockopt), SCMP_SYS(recvmmsg),
    SCMP_SYS(sendmmsg), SCMP_SYS(pipe2), SCMP_SYS(ioctl), SCMP_SYS(select), SCMP_SYS(pselect6),
};

/* Pipes for bulk are made as they are needed: how many that is nobody knows before, and the kernel has them count against a limit that
 * all processes of the user share. The size of one is set by fcntl, which everybody has. Between descriptors that a worker has
 * anyway splice moves nothing that read and write could not. */
static const int for_worker[] = {
    SCMP_SYS(splice),
};

static const int for_recorder[] = {
    SCMP_SYS(pread64), SCMP_SYS(fdatasync), SCMP_SYS(fsync), SCMP_SYS(ftruncate), SCMP_SYS(fallocate),
};

#define COUNT(list) (sizeof(list) / sizeof(list)[0])

static int
rule_each(scmp_filter_ctx f, uint32_t action, const int *calls, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int rc = seccomp_rule_add(f, action, calls[i], 0);
        /* -EACCES: the filter's default already; -EDOM: this architecture has no such call. */
        if (rc < 0 && rc != -EACCES && rc != -EDOM)
            return rc;
    }
    return 0;
}

/* Sockets of the Internet only: no netlink, no packet sockets, no unix sockets of the host. */
static int
rule_internet(scmp_filter_ctx f)
{
    const int families[] = {AF_INET, AF_INET6};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < COUNT(families); i++)
        rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)families[i], 0));
    return rc;
}

/* abort() signals its own process; no other one. */
static int
rule_own_signals(scmp_filter_ctx f)
{
    int rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0));
    return rc < 0 ? rc : seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(kill), 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0));
}

static int
add_rules(scmp_filter_ctx f, enum role role)
{
    int rc = rule_each(f, SCMP_ACT_KILL_PROCESS, deadly, COUNT(deadly));
    if (rc < 0 || SANITIZED)
        return rc;
    rc = rule_each(f, SCMP_ACT_ALLOW, common, COUNT(common));
    if (rc == 0)
        rc = rule_own_signals(f);
    if (rc == 0 && role == ROLE_RECORDER)
        rc = rule_each(f, SCMP_ACT_ALLOW, for_recorder, COUNT(for_recorder));
    if (rc == 0 && (role == ROLE_WORKER || role == ROLE_ADMIN))
        rc = rule_each(f, SCMP_ACT_ALLOW, for_sockets, COUNT(for_sockets));
    if (rc == 0 && role == ROLE_WORKER)
        rc = rule_each(f, SCMP_ACT_ALLOW, for_worker, COUNT(for_worker));
    if (rc == 0 && role == ROLE_WORKER)
        rc = rule_internet(f);
    return rc;
}

static bool
loads(scmp_filter_ctx f, enum role role, int *ret_rc)
{
    *ret_rc = add_rules(f, role);
    if (*ret_rc == 0)
        *ret_rc = seccomp_load(f);
    return *ret_rc == 0;
}

static int
filter_calls(enum role role, struct err *err)
{
    scmp_filter_ctx f = seccomp_init(SANITIZED ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(EPERM));
    if (!f)
        return err_run(err, "the system call filter cannot be made");
    int rc;
    bool fine = loads(f, role, &rc);
    seccomp_release(f);
    if (!fine)
        return err_run(err, "the system call filter cannot be loaded: %s", strerror(-rc));
    return 0;
}

int
confine(const struct role_start *start, struct err *err)
{
    if (drop_user(start, err) < 0 || forbid_dumps(err) < 0 || drop_capabilities(err) < 0)
        return -1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return err_errno(err, "no_new_privs");
    if (INSTRUMENTED) {
        diag(DIAG_ALARM, "this build is for counting instructions: it is not confined");
        return 0;
    }
    forbid_files();
    return filter_calls(start->role, err);
}
