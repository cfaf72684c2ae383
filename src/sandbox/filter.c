/* The system calls of a sandboxed program. What opens new ground is refused: namespaces, mounts, other processes' memory,
 * keys, kernel programs, and every socket family that the sandbox's network does not hold. Another architecture's entry
 * points (i386, x32) end the process. Numbers newer than this list are ENOSYS, so that libc falls back. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <seccomp.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sallyport/base/file.h"
#include "sallyport/sandbox/confine.h"

#define PROGRAM_BYTES_MAX (4096 * sizeof(struct sock_filter)) /* BPF_MAXINSNS */
#define NEWEST_KNOWN 450 /* set_mempolicy_home_node, Linux 5.17 */
#define NEWEST_THINKABLE 520

/* Not permitted, whoever asks. */
static const int refused[] = {
    /* other namespaces, other roots */
    SCMP_SYS(setns), SCMP_SYS(mount), SCMP_SYS(umount2), SCMP_SYS(umount), SCMP_SYS(pivot_root), SCMP_SYS(chroot), SCMP_SYS(move_mount),
    SCMP_SYS(open_tree), SCMP_SYS(fsopen), SCMP_SYS(fsconfig), SCMP_SYS(fsmount), SCMP_SYS(fspick), SCMP_SYS(mount_setattr),
    SCMP_SYS(sethostname), SCMP_SYS(setdomainname),
    /* other processes */
    SCMP_SYS(ptrace), SCMP_SYS(process_vm_readv), SCMP_SYS(process_vm_writev), SCMP_SYS(pidfd_getfd), SCMP_SYS(kcmp),
    SCMP_SYS(process_madvise), SCMP_SYS(migrate_pages), SCMP_SYS(move_pages),
    /* keys, kernel programs, kernel events */
    SCMP_SYS(keyctl), SCMP_SYS(add_key), SCMP_SYS(request_key), SCMP_SYS(bpf), SCMP_SYS(perf_event_open), SCMP_SYS(userfaultfd),
    SCMP_SYS(fanotify_init), SCMP_SYS(fanotify_mark), SCMP_SYS(lookup_dcookie), SCMP_SYS(name_to_handle_at), SCMP_SYS(open_by_handle_at),
    /* the machine */
    SCMP_SYS(init_module), SCMP_SYS(finit_module), SCMP_SYS(delete_module), SCMP_SYS(create_module), SCMP_SYS(get_kernel_syms),
    SCMP_SYS(query_module), SCMP_SYS(kexec_load), SCMP_SYS(kexec_file_load), SCMP_SYS(reboot), SCMP_SYS(swapon), SCMP_SYS(swapoff),
    SCMP_SYS(acct), SCMP_SYS(syslog), SCMP_SYS(iopl), SCMP_SYS(ioperm), SCMP_SYS(quotactl), SCMP_SYS(quotactl_fd), SCMP_SYS(nfsservctl),
    SCMP_SYS(settimeofday), SCMP_SYS(stime), SCMP_SYS(clock_settime), SCMP_SYS(adjtimex), SCMP_SYS(clock_adjtime), SCMP_SYS(vhangup),
    SCMP_SYS(modify_ldt), SCMP_SYS(uselib), SCMP_SYS(sysfs), SCMP_SYS(ustat), SCMP_SYS(_sysctl), SCMP_SYS(vserver), SCMP_SYS(vm86),
};

/* Said not to exist: programs have another way. clone3 hides its flags in memory, where no filter can read them; the calls
 * of io_uring pass every filter on sockets. */
static const int absent[] = {
    SCMP_SYS(clone3), SCMP_SYS(io_uring_setup), SCMP_SYS(io_uring_enter), SCMP_SYS(io_uring_register),
};

static const uint64_t namespace_flags[] = {
    CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET,
};

/* Of the newer numbers those that libc and runtimes use and that open nothing: cachestat, fchmodat2, futex_wake, futex_wait,
 * futex_requeue, mseal. */
static bool
is_harmless(int number)
{
    return number == 451 || (number >= 454 && number <= 456) || number == 462;
}

#define REFUSE SCMP_ACT_ERRNO(EPERM)
#define ONE(f, action, call, ...) (seccomp_rule_add((f), (action), (call), __VA_ARGS__) < 0 ? -1 : 0)

static int
add_plain(scmp_filter_ctx f)
{
    int rc = 0;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        if (refused[i] >= 0) /* negative: this architecture never had it */
            rc |= ONE(f, REFUSE, refused[i], 0);
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++)
        rc |= ONE(f, SCMP_ACT_ERRNO(ENOSYS), absent[i], 0);
    for (int number = NEWEST_KNOWN + 1; number <= NEWEST_THINKABLE; number++)
        if (!is_harmless(number))
            rc |= ONE(f, SCMP_ACT_ERRNO(ENOSYS), number, 0);
    return rc;
}

static int
add_namespaces(scmp_filter_ctx f)
{
    int rc = ONE(f, REFUSE, SCMP_SYS(unshare), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_NEWTIME, CLONE_NEWTIME));
    for (size_t i = 0; i < sizeof namespace_flags / sizeof namespace_flags[0]; i++) {
        rc |= ONE(f, REFUSE, SCMP_SYS(clone), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, namespace_flags[i], namespace_flags[i]));
        rc |= ONE(f, REFUSE, SCMP_SYS(unshare), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, namespace_flags[i], namespace_flags[i]));
    }
    return rc;
}

/* UNIX, INET, INET6 and the reading half of routing netlink (writing needs a capability that nobody here has). The kernel
 * takes the lower half of each argument; values with an upper half are above every number here and refused as such. */
static int
add_families(scmp_filter_ctx f)
{
    uint32_t no = SCMP_ACT_ERRNO(EAFNOSUPPORT);
    int rc = ONE(f, no, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_GT, AF_NETLINK, 0));
    for (uint64_t family = 0; family < AF_NETLINK; family++)
        if (family != AF_UNIX && family != AF_INET && family != AF_INET6)
            rc |= ONE(f, no, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_EQ, family, 0));
    rc |= ONE(f, no, SCMP_SYS(socket), 2, SCMP_A0(SCMP_CMP_EQ, AF_NETLINK, 0), SCMP_A2(SCMP_CMP_NE, 0, 0));
    rc |= ONE(f, no, SCMP_SYS(socketpair), 1, SCMP_A0(SCMP_CMP_NE, AF_UNIX, 0));
    return rc;
}

/* TCP and UDP alone: no raw packets, no echo sockets, no protocol that the watching socket would not know. */
static int
add_protocols(scmp_filter_ctx f)
{
    static const uint64_t families[] = {AF_INET, AF_INET6};
    int rc = 0;
    for (size_t i = 0; i < 2; i++) {
        struct scmp_arg_cmp family = SCMP_A0(SCMP_CMP_EQ, families[i], 0);
        rc |= ONE(f, REFUSE, SCMP_SYS(socket), 2, family, SCMP_A1(SCMP_CMP_MASKED_EQ, 0xf, SOCK_RAW));
        rc |= ONE(f, SCMP_ACT_ERRNO(EPROTONOSUPPORT), SCMP_SYS(socket), 2, family, SCMP_A2(SCMP_CMP_GT, IPPROTO_UDP, 0));
        for (uint64_t protocol = 1; protocol < IPPROTO_UDP; protocol++)
            if (protocol != IPPROTO_TCP)
                rc |= ONE(f, SCMP_ACT_ERRNO(EPROTONOSUPPORT), SCMP_SYS(socket), 2, family, SCMP_A2(SCMP_CMP_EQ, protocol, 0));
    }
    return rc;
}

/* Typing into a terminal for somebody else; another personality (an older system's ways, no random layout). */
static int
add_rest(scmp_filter_ctx f)
{
    int rc = ONE(f, REFUSE, SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_MASKED_EQ, UINT32_MAX, TIOCSTI));
    rc |= ONE(f, REFUSE, SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_MASKED_EQ, UINT32_MAX, TIOCLINUX));
    rc |= ONE(f, REFUSE, SCMP_SYS(personality), 1, SCMP_A0(SCMP_CMP_NE, UINT32_MAX, 0)); /* asking is fine */
    return rc;
}

/* Files that would run as their owner: what CMD leaves in a named directory is its caller's outside. openat2 says its mode
 * where a filter cannot look, so it is absent and libc falls back. */
static int
add_modes(scmp_filter_ctx f)
{
    static const scmp_datum_t bits[] = {S_ISUID, S_ISGID};
    int rc = ONE(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(openat2), 0);
    for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++) {
        scmp_datum_t b = bits[i];
        rc |= ONE(f, REFUSE, SCMP_SYS(chmod), 1, SCMP_A1(SCMP_CMP_MASKED_EQ, b, b));
        rc |= ONE(f, REFUSE, SCMP_SYS(fchmod), 1, SCMP_A1(SCMP_CMP_MASKED_EQ, b, b));
        rc |= ONE(f, REFUSE, SCMP_SYS(fchmodat), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, b, b));
        rc |= ONE(f, REFUSE, SCMP_SYS(mknod), 1, SCMP_A1(SCMP_CMP_MASKED_EQ, b, b));
        rc |= ONE(f, REFUSE, SCMP_SYS(mknodat), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, b, b));
        rc |= ONE(f, REFUSE, SCMP_SYS(creat), 1, SCMP_A1(SCMP_CMP_MASKED_EQ, b, b));
        rc |= ONE(f, REFUSE, SCMP_SYS(open), 2, SCMP_A1(SCMP_CMP_MASKED_EQ, O_CREAT, O_CREAT), SCMP_A2(SCMP_CMP_MASKED_EQ, b, b));
        rc |= ONE(f, REFUSE, SCMP_SYS(openat), 2, SCMP_A2(SCMP_CMP_MASKED_EQ, O_CREAT, O_CREAT), SCMP_A3(SCMP_CMP_MASKED_EQ, b, b));
    }
    return rc;
}

static int
export(scmp_filter_ctx f, char **ret, size_t *ret_len, struct err *err)
{
    int fd = memfd_create("filter", MFD_CLOEXEC);
    if (fd < 0)
        return err_errno(err, "system call filter");
    int rc = seccomp_export_bpf(f, fd) < 0 || lseek(fd, 0, SEEK_SET) < 0 ? err_run(err, "system call filter: cannot be compiled")
                                                                         : file_read_fd(fd, "system call filter", PROGRAM_BYTES_MAX, ret, ret_len, err);
    close(fd);
    return rc;
}

int
call_filter_make(char **ret, size_t *ret_len, struct err *err)
{
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);
    int rc = !f || seccomp_attr_set(f, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS) < 0 ? -1 : 0;
    if (rc == 0)
        rc = add_plain(f) | add_namespaces(f) | add_families(f) | add_protocols(f) | add_modes(f) | add_rest(f);
    if (rc < 0)
        err_run(err, "system call filter: libseccomp refuses a rule");
    else
        rc = export(f, ret, ret_len, err);
    seccomp_release(f);
    return rc;
}

int
call_filter_load(struct slice program, struct err *err)
{
    struct sock_fprog whole = {(unsigned short)(program.len / sizeof(struct sock_filter)), (struct sock_filter *)(uintptr_t)program.ptr};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &whole) < 0)
        return err_errno(err, "system call filter");
    return 0;
}
