/* The new root. Every source is taken by descriptor while the host's tree is still in sight, as a mount that stands nowhere;
 * then the new root becomes `/` and the old one is let go; only then are the sources put in their places. So a link in a
 * directory that somebody else wrote can point at nothing outside. Needs open_tree, fsopen and mount_setattr (Linux 5.12). */
#include "sallyport/sandbox/mounts.h"
#include "sallyport/sandbox/trust.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sallyport/base/mem.h"
#include "sallyport/base/slice.h"
#include "sallyport/sandbox/etc.h"

#define PARTS_MAX 320
#define QUIET (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)

struct part {
    int fd;       /* a detached mount; -1: a symbolic link */
    char *path;   /* where it goes; heap */
    char *link;   /* what the link says; heap */
};

struct tree {
    const struct tree_wish *wish;
    struct part parts[PARTS_MAX];
    size_t count;
    int root;     /* detached (a tmpfs) or, of an image, in place on /dev */
    char *workdir;
};

/* ---- names ---- */

/* One step of a path; a link is an error that says so. */
static int
step(int folder, const char *name, struct err *err)
{
    struct stat st;
    int fd = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, "%s", name);
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
        return fd;
    bool link = S_ISLNK(st.st_mode);
    close(fd);
    return link ? err_invalid(err, "\"%s\" is a symbolic link; the directory's own name is expected", name)
                : err_invalid(err, "\"%s\" is not a directory", name);
}

int
open_directory(const char *path, struct err *err)
{
    struct slice rest = slice_str(path);
    int fd = open(path[0] == '/' ? "/" : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || !path[0])
        return fd < 0 ? err_errno(err, "%s", path) : (close(fd), err_invalid(err, "a directory is expected"));
    while (rest.ptr) {
        cleanup_free char *name = mem_dup_slice(slice_split(rest, '/', &rest));
        if (!*name || strcmp(name, ".") == 0)
            continue;
        int next = step(fd, name, err);
        close(fd);
        if (next < 0)
            return err_wrap(err, "%s", path);
        fd = next;
    }
    return fd;
}

/* The name that a descriptor has, from the root on. */
static char *
name_of(int fd, struct err *err)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (len <= 0 || path[0] != '/') {
        err_errno(err, "/proc/self/fd");
        return NULL;
    }
    return mem_dup_slice(slice_of(path, (size_t)len));
}

static bool
is_below(const char *path, const char *top)
{
    size_t len = strlen(top);
    return strncmp(path, top, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

/* What makes the sandbox itself cannot be replaced by a named directory. */
static int
check_place(const char *path, struct err *err)
{
    static const char *const ours[] = {"/proc", "/dev", "/sys", "/etc", "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"};
    if (strcmp(path, "/") == 0)
        return err_invalid(err, "/ is the whole host; a directory below it is expected");
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
        if (strcmp(path, ours[i]) == 0 || (i < 4 && is_below(path, ours[i])))
            return err_invalid(err, "%s belongs to the sandbox itself", path);
    return 0;
}

/* ---- sources ---- */

static int
set_attributes(int fd, uint64_t attributes, int userns, struct err *err)
{
    struct mount_attr attr = {.attr_set = attributes | (userns >= 0 ? MOUNT_ATTR_IDMAP : 0)};
    if (userns >= 0)
        attr.userns_fd = (unsigned)userns;
    if (mount_setattr(fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr) == 0)
        return 0;
    return errno == ENOSYS ? err_run(err, "this kernel has no mount_setattr: Linux 5.12 or newer is expected")
                           : err_errno(err, "mount attributes");
}

static int
add_part(struct tree *t, int fd, const char *path, const char *link, struct err *err)
{
    if (t->count == PARTS_MAX) {
        if (fd >= 0)
            close(fd);
        return err_run(err, "more than %d mounts", PARTS_MAX);
    }
    t->parts[t->count++] = (struct part){fd, mem_strdup(path), link ? mem_strdup(link) : NULL};
    return 0;
}

/* path relative to fd; flags of open_tree. -1 with err. */
static int
clone_tree(int fd, const char *path, unsigned flags, struct err *err)
{
    int tree = open_tree(fd, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags);
    if (tree >= 0)
        return tree;
    return errno == ENOSYS ? err_run(err, "this kernel has no open_tree: Linux 5.12 or newer is expected") : err_errno(err, "%s", path);
}

static int
add_read_only(struct tree *t, const char *path, struct err *err)
{
    int fd = clone_tree(AT_FDCWD, path, AT_RECURSIVE, err);
    if (fd < 0)
        return -1;
    if (set_attributes(fd, QUIET | MOUNT_ATTR_RDONLY, -1, err) < 0) {
        close(fd);
        return err_wrap(err, "%s", path);
    }
    return add_part(t, fd, path, NULL, err);
}

/* Where /bin is a link to usr/bin it is one inside, too. */
static int
add_host_path(struct tree *t, const char *path, struct err *err)
{
    struct stat st;
    char link[PATH_MAX];
    if (lstat(path, &st) < 0)
        return 0;
    if (!S_ISLNK(st.st_mode))
        return S_ISDIR(st.st_mode) || S_ISREG(st.st_mode) ? add_read_only(t, path, err) : 0;
    ssize_t len = readlink(path, link, sizeof link - 1);
    if (len <= 0)
        return 0;
    link[len] = '\0';
    return add_part(t, -1, path, link, err);
}

static int
add_system(struct tree *t, struct err *err)
{
    static const char *const folders[] = {"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"};
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++)
        if (add_host_path(t, folders[i], err) < 0)
            return -1;
    int rc = 0;
    for (size_t i = 0; rc == 0 && etc_shown[i]; i++) {
        if (!strpbrk(etc_shown[i], "*?[")) {
            rc = add_host_path(t, etc_shown[i], err);
            continue;
        }
        glob_t found = {0};
        if (glob(etc_shown[i], 0, NULL, &found) == 0)
            for (size_t k = 0; rc == 0 && k < found.gl_pathc; k++)
                rc = add_host_path(t, found.gl_pathv[k], err);
        globfree(&found);
    }
    return rc;
}

static int
add_devices(struct tree *t, struct err *err)
{
    static const char *const nodes[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"};
    static const char *const links[][2] = {
        {"/dev/fd", "/proc/self/fd"}, {"/dev/stdin", "/proc/self/fd/0"}, {"/dev/stdout", "/proc/self/fd/1"},
        {"/dev/stderr", "/proc/self/fd/2"}, {"/dev/ptmx", "pts/ptmx"},
    };
    for (size_t i = 0; i < sizeof nodes / sizeof nodes[0]; i++) {
        int fd = clone_tree(AT_FDCWD, nodes[i], 0, err);
        if (fd < 0 || add_part(t, fd, nodes[i], NULL, err) < 0)
            return -1;
    }
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++)
        if (add_part(t, -1, links[i][0], links[i][1], err) < 0)
            return -1;
    return 0;
}

struct setting { const char *key, *value; };

/* A new file system, mounted nowhere yet. settings end with a key of NULL. */
static int
make_fs(const char *type, const struct setting *settings, unsigned attributes, struct err *err)
{
    int fs = fsopen(type, FSOPEN_CLOEXEC);
    if (fs < 0)
        return err_errno(err, "%s", type);
    int rc = 0;
    for (; rc == 0 && settings && settings->key; settings++)
        rc = fsconfig(fs, FSCONFIG_SET_STRING, settings->key, settings->value, 0);
    if (rc == 0)
        rc = fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
    int fd = rc == 0 ? fsmount(fs, FSMOUNT_CLOEXEC, attributes) : -1;
    if (fd < 0)
        err_errno(err, "mounting a %s", type);
    close(fs);
    return fd;
}

static int
add_kernel_fs(struct tree *t, struct err *err)
{
    static const struct setting pts[] = {{"ptmxmode", "0666"}, {"mode", "0620"}, {NULL, NULL}};
    int fd = make_fs("proc", NULL, QUIET | MOUNT_ATTR_NOEXEC, err);
    if (fd < 0 && errno == EPERM)
        return err_wrap(err, "the kernel allows a new /proc only where the old one is wholly visible: a container runtime has covered "
                             "parts of it (Docker: --security-opt systempaths=unconfined)");
    if (fd < 0 || add_part(t, fd, "/proc", NULL, err) < 0)
        return -1;
    fd = make_fs("devpts", pts, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, err);
    return fd < 0 ? -1 : add_part(t, fd, "/dev/pts", NULL, err);
}

/* ---- the directories that were named ---- */

/* Root's files are the sandbox's own inside: its processes are not root. */
static int
map_owner(const struct tree *t, int folder, int *ret_userns, struct err *err)
{
    struct stat st;
    const struct place *p = t->wish->place;
    *ret_userns = -1;
    if (p->user_namespace)
        return 0;
    if (fstat(folder, &st) < 0)
        return err_errno(err, "stat");
    if (st.st_uid != 0)
        return 0;
    if (p->idmap < 0)
        return err_run(err, "it belongs to root, and the sandbox is not root (%s); give it to another user", p->idmap_why);
    *ret_userns = p->idmap;
    return 0;
}

static int
clone_named(struct tree *t, int folder, bool writable, struct err *err)
{
    int userns = -1;
    if (writable && map_owner(t, folder, &userns, err) < 0)
        return -1;
    int fd = clone_tree(folder, "", AT_EMPTY_PATH | (userns < 0 ? AT_RECURSIVE : 0), err);
    if (fd < 0)
        return -1;
    if (set_attributes(fd, QUIET | (writable ? 0 : MOUNT_ATTR_RDONLY), userns, err) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int
add_named(struct tree *t, const char *option, const char *given, bool writable, char **ret_path, struct err *err)
{
    int folder = open_directory(given, err);
    if (folder < 0)
        return err_wrap(err, "%s", option);
    char *path = name_of(folder, err);
    int fd = path && check_place(path, err) == 0 ? clone_named(t, folder, writable, err) : -1;
    int rc = fd < 0 ? -1 : add_part(t, fd, path, NULL, err);
    close(folder);
    if (rc == 0 && ret_path)
        *ret_path = steal(&path);
    free(path);
    return rc < 0 ? err_wrap(err, "%s %s", option, given) : 0;
}

/* A directory within another one goes in after it. */
static int
by_depth(const void *a, const void *b)
{
    size_t x = strlen(((const struct part *)a)->path), y = strlen(((const struct part *)b)->path);
    return x < y ? -1 : x > y;
}

static int
add_each_named(struct tree *t, struct err *err)
{
    const struct sandbox_options *o = t->wish->options;
    for (size_t i = 0; i < o->binds_ro.count; i++)
        if (add_named(t, "--bind-ro", o->binds_ro.items[i], false, NULL, err) < 0)
            return -1;
    for (size_t i = 0; i < o->binds.count; i++)
        if (add_named(t, "--bind", o->binds.items[i], true, NULL, err) < 0)
            return -1;
    return o->workdir ? add_named(t, "--workdir", o->workdir, true, &t->workdir, err) : 0;
}

static int
add_all_named(struct tree *t, struct err *err)
{
    size_t first = t->count;
    if (add_each_named(t, err) < 0)
        return -1;
    qsort(t->parts + first, t->count - first, sizeof t->parts[0], by_depth);
    return 0;
}

/* ---- the root itself ---- */

/* In a user namespace the files of others cannot be copied up, root's least of all. */
static int
open_image(const struct tree *t, struct err *err)
{
    struct stat st;
    int image = open_directory(t->wish->options->rootfs, err);
    if (image < 0 || !t->wish->place->user_namespace || (fstat(image, &st) == 0 && st.st_uid == t->wish->place->uid && st.st_gid == t->wish->place->gid))
        return image;
    close(image);
    return err_invalid(err, "%s: belongs to another user or group; unprivileged, a tree of one's own is expected", t->wish->options->rootfs);
}

/* An image stays as it is: what CMD writes goes to memory, over it. The upper half has to stand somewhere while the overlay is
 * made; /dev is a directory everywhere, and the nodes that we want of it are taken. */
static int
make_overlay(struct tree *t, struct err *err)
{
    char lower[64];
    int image = open_image(t, err);
    if (image < 0)
        return err_wrap(err, "--rootfs");
    int upper = make_fs("tmpfs", (const struct setting[]){{"mode", "0755"}, {NULL, NULL}}, QUIET, err);
    if (upper >= 0 && move_mount(upper, "", AT_FDCWD, "/dev", MOVE_MOUNT_F_EMPTY_PATH) == 0 && mkdir("/dev/upper", 0755) == 0 &&
        mkdir("/dev/work", 0755) == 0) {
        snprintf(lower, sizeof lower, "/proc/self/fd/%d", image);
        const struct setting settings[] = {{"lowerdir", lower}, {"upperdir", "/dev/upper"}, {"workdir", "/dev/work"}, {NULL, NULL}};
        t->root = make_fs("overlay", settings, QUIET, err);
    } else if (upper >= 0) {
        err_errno(err, "a place for the overlay");
    }
    if (upper >= 0)
        close(upper);
    close(image);
    return t->root < 0 ? err_wrap(err, "--rootfs") : 0;
}

static int
make_root(struct tree *t, struct err *err)
{
    if (t->wish->options->rootfs)
        return make_overlay(t, err);
    t->root = make_fs("tmpfs", (const struct setting[]){{"mode", "0755"}, {NULL, NULL}}, QUIET, err);
    return t->root < 0 ? -1 : 0;
}

static int
enter_root(const struct tree *t, struct err *err)
{
    /* /proc is a directory everywhere, and nothing of the host's is looked up any more. */
    if (move_mount(t->root, "", AT_FDCWD, "/proc", MOVE_MOUNT_F_EMPTY_PATH) < 0 || chdir("/proc") < 0 ||
        syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        return err_errno(err, "entering the new root");
    return 0;
}

/* ---- putting it together, inside ---- */

static int
make_folders(const char *path, bool last, struct err *err)
{
    cleanup_free char *part = mem_strdup(path);
    for (char *p = part + 1;; p++) {
        if (*p != '/' && *p != '\0')
            continue;
        bool end = *p == '\0';
        if (end && !last)
            return 0;
        *p = '\0';
        if (mkdir(part, 0755) < 0 && errno != EEXIST)
            return err_errno(err, "%s", part);
        if (end)
            return 0;
        *p = '/';
    }
}

static int
make_target(const struct part *p, struct err *err)
{
    struct stat st;
    if (fstat(p->fd, &st) < 0)
        return err_errno(err, "%s", p->path);
    if (make_folders(p->path, S_ISDIR(st.st_mode), err) < 0)
        return -1;
    if (S_ISDIR(st.st_mode))
        return 0;
    int fd = open(p->path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0644);
    if (fd < 0 && errno != EROFS && errno != EACCES)
        return err_errno(err, "%s", p->path);
    if (fd >= 0)
        close(fd);
    return 0;
}

static int
put(const struct part *p, struct err *err)
{
    if (p->link) {
        if (make_folders(p->path, false, err) < 0)
            return -1;
        return symlink(p->link, p->path) < 0 && errno != EEXIST ? err_errno(err, "%s", p->path) : 0;
    }
    if (make_target(p, err) < 0)
        return -1;
    return move_mount(p->fd, "", AT_FDCWD, p->path, MOVE_MOUNT_F_EMPTY_PATH) < 0 ? err_errno(err, "%s", p->path) : 0;
}

static const struct {
    const char *path;
    mode_t mode;
    bool own; /* the sandbox's */
} private_folders[] = {
    {"/home", 0755, false}, {SANDBOX_HOME, 0700, true}, {"/root", 0700, true}, {"/tmp", 01777, false}, {"/run", 0755, true},
    {"/run/lock", 01777, true}, {"/var", 0755, true}, {"/var/tmp", 01777, false}, {"/var/lib", 0755, true}, {"/var/cache", 0755, true},
    {"/var/log", 0755, true}, {"/dev", 0755, false}, {"/dev/shm", 01777, false}, {"/proc", 0555, false}, {"/sys", 0555, false},
    {"/opt", 0755, false}, {"/srv", 0755, false}, {"/mnt", 0755, false},
};

static int
make_private(const struct tree *t, struct err *err)
{
    const struct place *p = t->wish->place;
    for (size_t i = 0; i < sizeof private_folders / sizeof private_folders[0]; i++) {
        const char *path = private_folders[i].path;
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
            return err_errno(err, "%s", path);
        if (chmod(path, private_folders[i].mode) < 0 ||
            (private_folders[i].own && !p->user_namespace && chown(path, p->uid, p->gid) < 0))
            return err_errno(err, "%s", path);
    }
    return 0;
}

/* The root is one file system of memory that is mounted read-only; these folders of it are mounted over themselves, writable. */
static int
open_private(struct err *err)
{
    static const char *const writable[] = {"/home", "/root", "/tmp", "/run", "/var", "/dev/shm"};
    for (size_t i = 0; i < sizeof writable / sizeof writable[0]; i++) {
        int fd = clone_tree(AT_FDCWD, writable[i], 0, err);
        if (fd < 0)
            return -1;
        int rc = move_mount(fd, "", AT_FDCWD, writable[i], MOVE_MOUNT_F_EMPTY_PATH);
        close(fd);
        if (rc < 0)
            return err_errno(err, "%s", writable[i]);
    }
    return 0;
}

static int
cover(const char *path, const char *with, uint64_t attributes, struct err *err)
{
    struct err why = {0};
    int fd = clone_tree(AT_FDCWD, with, 0, &why);
    if (fd < 0 || set_attributes(fd, attributes, -1, &why) < 0 || move_mount(fd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return err_errno(err, "covering %s", path);
    close(fd);
    return 0;
}

/* What the kernel shows of itself under /proc: only to be read, or not at all. */
static int
narrow_proc(struct err *err)
{
    static const char *const read_only[] = {"/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"};
    static const char *const hidden[] = {"/proc/kcore", "/proc/keys", "/proc/key-users", "/proc/timer_list", "/proc/kallsyms",
                                         "/proc/vmallocinfo", "/proc/kmsg"};
    for (size_t i = 0; i < sizeof read_only / sizeof read_only[0]; i++)
        if (access(read_only[i], F_OK) == 0 && cover(read_only[i], read_only[i], QUIET | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY, err) < 0)
            return -1;
    for (size_t i = 0; i < sizeof hidden / sizeof hidden[0]; i++)
        if (access(hidden[i], F_OK) == 0 && cover(hidden[i], "/dev/null", QUIET | MOUNT_ATTR_RDONLY, err) < 0)
            return -1;
    return 0;
}

/* Policies and the like that lie in a directory which was named. The cover cannot be moved away from inside. */
static int
cover_hidden(const struct sandbox_options *o, struct err *err)
{
    struct stat st;
    for (size_t i = 0; i < o->hides.count; i++)
        if (lstat(o->hides.items[i], &st) == 0 && S_ISREG(st.st_mode) &&
            cover(o->hides.items[i], "/dev/null", QUIET | MOUNT_ATTR_RDONLY, err) < 0)
            return -1;
    return 0;
}

/* For programs that ask no variable. */
static int
cover_trust(const struct tree_wish *w, struct err *err)
{
    struct stat st;
    for (size_t i = 0; w->ca_bundle && trust_stores[i]; i++)
        if (stat(trust_stores[i], &st) == 0 && S_ISREG(st.st_mode) &&
            cover(trust_stores[i], INSIDE_CA_BUNDLE, QUIET | MOUNT_ATTR_RDONLY, err) < 0)
            return -1;
    return 0;
}

static int
close_root(const struct sandbox_options *o, struct err *err)
{
    struct mount_attr attr = {.attr_set = QUIET | MOUNT_ATTR_RDONLY};
    if (o->rootfs) /* an overlay over memory: CMD may write where the image lets it */
        return 0;
    return mount_setattr(AT_FDCWD, "/", 0, &attr, sizeof attr) < 0 ? err_errno(err, "making the root read-only") : 0;
}

static int
assemble(struct tree *t, struct err *err)
{
    const struct tree_wish *w = t->wish;
    if (make_private(t, err) < 0 || (!w->options->rootfs && open_private(err) < 0) ||
        etc_write(w->options, w->place, w->ca_bundle, err) < 0)
        return -1;
    for (size_t i = 0; i < t->count; i++)
        if (put(&t->parts[i], err) < 0)
            return -1;
    if (narrow_proc(err) < 0 || cover_hidden(w->options, err) < 0 || cover_trust(w, err) < 0)
        return -1;
    return close_root(w->options, err);
}

static int
gather(struct tree *t, struct err *err)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return err_errno(err, "keeping mounts to ourselves");
    if (!t->wish->options->rootfs && add_system(t, err) < 0)
        return -1;
    if (add_devices(t, err) < 0 || add_kernel_fs(t, err) < 0 || add_all_named(t, err) < 0)
        return -1;
    return make_root(t, err);
}

static void
let_go(struct tree *t)
{
    for (size_t i = 0; i < t->count; i++) {
        if (t->parts[i].fd >= 0)
            close(t->parts[i].fd);
        free(t->parts[i].path);
        free(t->parts[i].link);
    }
    if (t->root >= 0)
        close(t->root);
}

int
mounts_make(const struct tree_wish *wish, char **ret_workdir, struct err *err)
{
    struct tree t = {.wish = wish, .root = -1};
    int rc = gather(&t, err);
    if (rc == 0)
        rc = enter_root(&t, err);
    if (rc == 0)
        rc = assemble(&t, err);
    let_go(&t);
    if (rc == 0)
        *ret_workdir = t.workdir ? t.workdir : mem_strdup(SANDBOX_HOME);
    return rc;
}
