/* Two ways to make a sandbox. Without privileges: a user namespace, in which one id, not root's, is the caller's. As root:
 * no user namespace; the processes get a uid of their own that nobody else has, or that of the working directory's owner.
 * Where neither works, the kernel setting in the way is named. */
#include "sallyport/sandbox/place.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sallyport/sandbox/mounts.h"

/* As root each sandbox has a uid of its own: this plus the launcher's process id, which is at most 2^22. */
#define OWN_UID_BASE 0x70000000u
#define OWN_UID_SMALL 65533u /* where the ids of this container end before */

#define NAMESPACES (CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS)

static bool
has_capabilities(void)
{
    static const int wanted[] = {CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_NET_RAW, CAP_SETUID, CAP_SETGID, CAP_CHOWN, CAP_SETPCAP};
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &head, data) < 0)
        return false;
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        if (!(data[CAP_TO_INDEX(wanted[i])].effective & CAP_TO_MASK(wanted[i])))
            return false;
    return true;
}

/* Is the id mapped in the user namespace that we are in? */
static bool
id_exists(const char *map, unsigned long id)
{
    unsigned long inside, outside, count;
    bool found = false;
    FILE *f = fopen(map, "re");
    while (f && !found && fscanf(f, "%lu %lu %lu", &inside, &outside, &count) == 3)
        found = id >= inside && id - inside < count;
    if (f)
        fclose(f);
    return found;
}

static bool
ids_exist(unsigned long id)
{
    return id_exists("/proc/self/uid_map", id) && id_exists("/proc/self/gid_map", id);
}

/* The caller's namespace by a process that stays in its own user namespace just long enough to be opened. */
static int
open_user_namespace(uid_t uid, gid_t gid, struct err *err)
{
    char path[64], map[64];
    int sync[2], ns = -1;
    if (pipe2(sync, O_CLOEXEC) < 0)
        return err_errno(err, "pipe");
    pid_t pid = (pid_t)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) {
        char c;
        close(sync[1]);
        (void)!read(sync[0], &c, 1);
        _exit(0);
    }
    close(sync[0]);
    static const char *const files[] = {"uid_map", "gid_map"};
    int rc = pid < 0 ? err_errno(err, "a user namespace for it cannot be made") : 0;
    for (int i = 0; rc == 0 && i < 2; i++) {
        snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, files[i]);
        snprintf(map, sizeof map, "0 %lu 1\n", i == 0 ? (unsigned long)uid : (unsigned long)gid);
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, map, strlen(map)) < 0)
            rc = err_errno(err, "%s", path);
        if (fd >= 0)
            close(fd);
    }
    if (rc == 0) {
        snprintf(path, sizeof path, "/proc/%d/ns/user", (int)pid);
        ns = open(path, O_RDONLY | O_CLOEXEC);
        if (ns < 0)
            err_errno(err, "%s", path);
    }
    close(sync[1]);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    return ns;
}

static int
owner_of(const char *path, struct stat *ret, struct err *err)
{
    int fd = open_directory(path, err);
    if (fd < 0)
        return -1;
    int rc = fstat(fd, ret) < 0 ? err_errno(err, "%s", path) : 0;
    close(fd);
    return rc;
}

/* The working directory's owner, when that is not root: files that CMD makes there are then the owner's, as without us. */
static int
choose_root_way(const struct sandbox_options *o, struct place *p, struct err *err)
{
    struct stat st;
    bool roots = false;
    uid_t own = OWN_UID_BASE + (uid_t)getpid();
    p->uid = p->gid = ids_exist(own) ? own : OWN_UID_SMALL;
    if (o->workdir) {
        if (owner_of(o->workdir, &st, err) < 0)
            return err_wrap(err, "--workdir");
        if (st.st_uid != 0) {
            p->uid = st.st_uid;
            p->gid = st.st_gid ? st.st_gid : st.st_uid;
        }
        roots = st.st_uid == 0;
    }
    for (size_t i = 0; i < o->binds.count; i++) {
        if (owner_of(o->binds.items[i], &st, err) < 0)
            return err_wrap(err, "--bind");
        roots |= st.st_uid == 0;
    }
    if (roots) {
        struct err why = {0};
        p->idmap = open_user_namespace(p->uid, p->gid, &why);
        snprintf(p->idmap_why, sizeof p->idmap_why, "%.*s", (int)sizeof p->idmap_why - 1, why.text);
    }
    return 0;
}

int
place_choose(const struct sandbox_options *o, struct place *ret, struct err *err)
{
    struct place p = {.user_namespace = true, .uid = INSIDE_UID, .gid = INSIDE_UID, .idmap = -1};
    if (geteuid() == 0 && has_capabilities() && (ids_exist(OWN_UID_BASE) || ids_exist(OWN_UID_SMALL))) {
        p.user_namespace = false;
        if (choose_root_way(o, &p, err) < 0)
            return -1;
    }
    *ret = p;
    return 0;
}

/* ---- what stands in the way ---- */

/* The number in a kernel setting, or -1. */
static long
setting(const char *path)
{
    long value = -1;
    FILE *f = fopen(path, "re");
    if (f && fscanf(f, "%ld", &value) != 1)
        value = -1;
    if (f)
        fclose(f);
    return value;
}

static const struct {
    const char *path;
    long bad;
    const char *text;
} settings[] = {
    {"/proc/sys/user/max_user_namespaces", 0, "user.max_user_namespaces is 0: allow some (sysctl user.max_user_namespaces=10000)"},
    {"/proc/sys/kernel/unprivileged_userns_clone", 0,
     "kernel.unprivileged_userns_clone is 0: set it to 1 (sysctl kernel.unprivileged_userns_clone=1)"},
    {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 1,
     "kernel.apparmor_restrict_unprivileged_userns is 1: set it to 0, or give sallyport-run an AppArmor profile with `userns,`"},
    {"/proc/sys/user/max_net_namespaces", 0, "user.max_net_namespaces is 0: allow some"},
    {"/proc/sys/user/max_mnt_namespaces", 0, "user.max_mnt_namespaces is 0: allow some"},
    {"/proc/sys/user/max_pid_namespaces", 0, "user.max_pid_namespaces is 0: allow some"},
};

static const char *
blocking_setting(void)
{
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
        if (setting(settings[i].path) == settings[i].bad)
            return settings[i].text;
    return NULL;
}

void
place_explain(const struct place *p, bool certain, struct err *err)
{
    char before[ERR_TEXT_MAX];
    const char *why = p->user_namespace ? blocking_setting() : NULL;
    if (!p->user_namespace || (!why && !certain))
        return;
    if (!why)
        why = "no kernel setting forbids it, so a container runtime's or service manager's filter does "
              "(Docker: --security-opt seccomp=…, systemd: RestrictNamespaces=), or this is a chroot";
    snprintf(before, sizeof before, "%s", err->text);
    err_run(err, "%.500s. %s; or run as root with CAP_SYS_ADMIN", before, why);
}

/* ---- the clone ---- */

pid_t
place_clone(const struct place *p, struct err *err)
{
    unsigned long flags = NAMESPACES | SIGCHLD | (p->user_namespace ? CLONE_NEWUSER : 0);
    pid_t pid = (pid_t)syscall(SYS_clone, flags, 0, 0, 0, 0);
    if (pid < 0) {
        err_errno(err, p->user_namespace ? "a user namespace cannot be made" : "namespaces cannot be made");
        place_explain(p, true, err);
    }
    return pid;
}

static int
write_file(pid_t pid, const char *name, const char *text, struct err *err)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int rc = fd < 0 || write(fd, text, strlen(text)) < 0 ? err_errno(err, "%s", name) : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}

int
place_map_ids(const struct place *p, pid_t pid, struct err *err)
{
    char uids[48], gids[48];
    if (!p->user_namespace)
        return 0;
    snprintf(uids, sizeof uids, "%u %u 1\n", (unsigned)p->uid, (unsigned)geteuid());
    snprintf(gids, sizeof gids, "%u %u 1\n", (unsigned)p->gid, (unsigned)getegid());
    if (write_file(pid, "setgroups", "deny", err) < 0 || write_file(pid, "uid_map", uids, err) < 0 ||
        write_file(pid, "gid_map", gids, err) < 0) {
        place_explain(p, true, err);
        return -1;
    }
    return 0;
}
