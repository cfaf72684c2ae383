/* The system call filter, in force: each call is made by a child that has loaded it. */
#include "unit/test.h"

#include "sallyport/sandbox/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* The call's errno (0: it worked), or -signal. */
static int
under_filter(const long call[7])
{
    int status;
    struct err err = {0};
    char *program = NULL;
    size_t len = 0;
    CHECK(call_filter_make(&program, &len, &err) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || call_filter_load(slice_of(program, len), &err) < 0)
            _exit(255);
        long rc = syscall(call[0], call[1], call[2], call[3], call[4], call[5], call[6]);
        _exit(rc < 0 ? errno : 0);
    }
    waitpid(pid, &status, 0);
    free(program);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

#define CALL(...) under_filter((const long[7]){__VA_ARGS__})
#define HIGH (1L << 32) /* the kernel takes the lower half of an int argument */

TEST(families_by_allowlist)
{
    CHECK(CALL(SYS_socket, AF_UNIX, SOCK_STREAM, 0) == 0);
    CHECK(CALL(SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP) == 0);
    CHECK(CALL(SYS_socket, AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, IPPROTO_UDP) == 0);
    CHECK(CALL(SYS_socket, AF_INET, SOCK_DGRAM, 0) == 0);
    CHECK(CALL(SYS_socket, AF_NETLINK, SOCK_RAW, 0) == 0);
    for (long family = 0; family < 48; family++)
        if (family != AF_UNIX && family != AF_INET && family != AF_INET6 && family != AF_NETLINK) {
            CHECK_THAT(CALL(SYS_socket, family, SOCK_DGRAM, 0) == EAFNOSUPPORT, "family %ld", family);
            CHECK_THAT(CALL(SYS_socket, family | HIGH, SOCK_DGRAM, 0) == EAFNOSUPPORT, "family %ld with an upper half", family);
        }
    for (long protocol = 1; protocol < 24; protocol++)
        CHECK_THAT(CALL(SYS_socket, AF_NETLINK, SOCK_RAW, protocol) == EAFNOSUPPORT, "netlink %ld", protocol);
    CHECK(CALL(SYS_socket, AF_NETLINK, SOCK_RAW, HIGH | 9) == EAFNOSUPPORT);
}

TEST(tcp_and_udp_alone)
{
    static const long families[] = {AF_INET, AF_INET6};
    for (int i = 0; i < 2; i++) {
        CHECK(CALL(SYS_socket, families[i], SOCK_RAW, IPPROTO_ICMP) != 0);
        CHECK(CALL(SYS_socket, families[i], SOCK_RAW | SOCK_CLOEXEC, 255) != 0);
        CHECK(CALL(SYS_socket, families[i], SOCK_RAW | HIGH, 6) != 0);
        CHECK(CALL(SYS_socket, families[i], SOCK_DGRAM, IPPROTO_ICMP) == EPROTONOSUPPORT);
        CHECK(CALL(SYS_socket, families[i], SOCK_DGRAM, IPPROTO_ICMP | HIGH) == EPROTONOSUPPORT);
        CHECK(CALL(SYS_socket, families[i], SOCK_DGRAM, IPPROTO_ICMPV6) == EPROTONOSUPPORT);
        CHECK(CALL(SYS_socket, families[i], SOCK_STREAM, 132 /* SCTP */) == EPROTONOSUPPORT);
        CHECK(CALL(SYS_socket, families[i], SOCK_STREAM, 262 /* MPTCP */) == EPROTONOSUPPORT);
    }
}

TEST(no_new_namespaces)
{
    static const long flags[] = {CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        CHECK_THAT(CALL(SYS_unshare, flags[i]) == EPERM, "unshare %#lx", flags[i]);
        CHECK_THAT(CALL(SYS_unshare, flags[i] | CLONE_FS) == EPERM, "unshare %#lx", flags[i]);
        CHECK_THAT(CALL(SYS_clone, flags[i] | SIGCHLD, 0, 0, 0, 0) == EPERM, "clone %#lx", flags[i]);
        CHECK_THAT(CALL(SYS_clone, flags[i] | SIGCHLD | HIGH, 0, 0, 0, 0) == EPERM, "clone %#lx with an upper half", flags[i]);
    }
    CHECK(CALL(SYS_unshare, 0x80 /* CLONE_NEWTIME */) == EPERM);
    CHECK(CALL(SYS_unshare, CLONE_FILES) == 0);
    CHECK(CALL(SYS_setns, 0, 0) == EPERM);
    CHECK(CALL(SYS_clone3, 0, 0) == ENOSYS);
}

TEST(what_opens_new_ground_is_refused)
{
    static const long refused[] = {SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_open_tree, SYS_move_mount, SYS_fsopen, SYS_fsmount,
                                   SYS_mount_setattr, SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_pidfd_getfd, SYS_bpf,
                                   SYS_keyctl, SYS_add_key, SYS_request_key, SYS_perf_event_open, SYS_userfaultfd, SYS_open_by_handle_at,
                                   SYS_name_to_handle_at, SYS_init_module, SYS_finit_module, SYS_kexec_load, SYS_reboot, SYS_swapon, SYS_syslog,
                                   SYS_settimeofday, SYS_clock_settime, SYS_sethostname, SYS_quotactl, SYS_fanotify_init};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        CHECK_THAT(CALL(refused[i], 0, 0, 0, 0, 0, 0) == EPERM, "call %ld", refused[i]);
    CHECK(CALL(SYS_io_uring_setup, 1, 0) == ENOSYS);
    CHECK(CALL(SYS_io_uring_enter, 0) == ENOSYS);
    CHECK(CALL(SYS_personality, 0x0040000) == EPERM);
    CHECK(CALL(SYS_personality, 0xffffffffL) == 0);
    CHECK(CALL(SYS_ioctl, 0, TIOCSTI, (long)"x") == EPERM);
    CHECK(CALL(SYS_ioctl, 0, TIOCSTI | HIGH, (long)"x") == EPERM);
    CHECK(CALL(SYS_ioctl, 0, TIOCLINUX, (long)"x") == EPERM);
}

TEST(numbers_of_the_future_do_not_exist)
{
    static const long unknown[] = {457 /* statmount */, 458 /* listmount */, 461, 467 /* open_tree_attr */, 500, 520};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
        CHECK_THAT(CALL(unknown[i], 0, 0) == ENOSYS, "call %ld", unknown[i]);
}

TEST(usual_programs_run)
{
    CHECK(CALL(SYS_getpid) == 0);
    CHECK(CALL(SYS_memfd_create, (long)"x", 0) == 0);
    CHECK(CALL(SYS_clone, SIGCHLD, 0, 0, 0, 0) == 0);
    CHECK(CALL(SYS_openat, AT_FDCWD, (long)"/dev/null", O_RDWR) == 0);
}

#ifdef __x86_64__
TEST(another_architecture_is_the_end)
{
    CHECK(CALL(0x40000000L | SYS_getpid) == -SIGSYS);
    struct err err = {0};
    char *program = NULL;
    size_t len = 0;
    int status;
    CHECK(call_filter_make(&program, &len, &err) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || call_filter_load(slice_of(program, len), &err) < 0)
            _exit(255);
        long rc;
        __asm__ volatile("int $0x80" : "=a"(rc) : "a"(20 /* getpid of i386 */) : "memory");
        _exit(rc < 0);
    }
    waitpid(pid, &status, 0);
    free(program);
    CHECK_THAT(WIFSIGNALED(status) && (WTERMSIG(status) == SIGSYS || WTERMSIG(status) == SIGSEGV), "status %#x", (unsigned)status);
}
#endif
