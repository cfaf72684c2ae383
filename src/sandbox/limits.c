/* Control groups by their files. A group is made beside or below our own, where this process may; it is named by the launcher's
 * process id, so that those left by a killed launcher can be told and removed. */
#include "sallyport/sandbox/limits.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "sallyport/base/mem.h"
#include "sallyport/base/slice.h"

#define GROUP_PREFIX "sallyport-"
#define PERIOD_US 100000
#define REMOVE_TRIES 200 /* of 5 ms: the kernel is done with the last process a moment after it is reaped */

struct hierarchy {
    char *mount, *own; /* heap; NULL: none */
};

bool
limits_wanted(const struct sandbox_options *o)
{
    return o->memory_bytes || o->cpu_milli || o->pids;
}

/* ---- where we are ---- */

static bool
has_word(const char *list, const char *word, char separator)
{
    struct slice rest = slice_str(list);
    while (rest.ptr) {
        struct slice one = slice_split(rest, separator, &rest);
        if (slice_is(one, word))
            return true;
    }
    return false;
}

/* /proc/self/mountinfo: "36 35 98:0 /root /mount/point options - type source super,options". controller NULL: version 2. */
static char *
find_mount(const char *controller)
{
    char line[4096], *found = NULL;
    FILE *f = fopen("/proc/self/mountinfo", "re");
    while (f && !found && fgets(line, sizeof line, f)) {
        char point[2048], type[64], super[512];
        const char *dash = strstr(line, " - ");
        if (!dash || sscanf(line, "%*s %*s %*s %*s %2047s", point) != 1 || sscanf(dash, " - %63s %*s %511s", type, super) != 2)
            continue;
        if (controller ? strcmp(type, "cgroup") == 0 && has_word(super, controller, ',') : strcmp(type, "cgroup2") == 0)
            found = mem_strdup(point);
    }
    if (f)
        fclose(f);
    return found;
}

/* /proc/self/cgroup: "4:memory:/path" or "0::/path". */
static char *
find_own(const char *controller)
{
    char line[4096], *found = NULL;
    FILE *f = fopen("/proc/self/cgroup", "re");
    while (f && !found && fgets(line, sizeof line, f)) {
        struct slice path, list, all = slice_str(line);
        if (all.len && all.ptr[all.len - 1] == '\n')
            all.len--;
        slice_split(all, ':', &list);
        struct slice names = slice_split(list, ':', &path);
        cleanup_free char *text = list.ptr ? mem_dup_slice(names) : NULL;
        if (path.ptr && text && (controller ? has_word(text, controller, ',') : names.len == 0))
            found = mem_dup_slice(path);
    }
    if (f)
        fclose(f);
    return found;
}

static bool
hierarchy_find(const char *controller, struct hierarchy *ret)
{
    ret->mount = find_mount(controller);
    ret->own = ret->mount ? find_own(controller) : NULL;
    return ret->own != NULL;
}

static void
hierarchy_done(struct hierarchy *h)
{
    free(h->mount);
    free(h->own);
}

/* ---- making ---- */

static int
write_value(const char *group, const char *file, const char *text)
{
    cleanup_free char *path = mem_printf("%s/%s", group, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t put = write(fd, text, strlen(text));
    close(fd);
    return put < 0 ? -1 : 0;
}

static int
write_number(const char *group, const char *file, uint64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRIu64, value);
    return write_value(group, file, text);
}

static bool
controllers_enabled(const char *parent, const struct sandbox_options *o)
{
    char text[512] = "";
    cleanup_free char *path = mem_printf("%s/cgroup.subtree_control", parent);
    FILE *f = fopen(path, "re");
    bool read = f && fgets(text, sizeof text, f);
    if (f)
        fclose(f);
    if (read)
        text[strcspn(text, "\n")] = '\0';
    return read && (!o->memory_bytes || has_word(text, "memory", ' ')) && (!o->cpu_milli || has_word(text, "cpu", ' ')) &&
           (!o->pids || has_word(text, "pids", ' '));
}

static void
enable_controllers(const char *parent, const struct sandbox_options *o)
{
    if (o->memory_bytes)
        (void)write_value(parent, "cgroup.subtree_control", "+memory");
    if (o->cpu_milli)
        (void)write_value(parent, "cgroup.subtree_control", "+cpu");
    if (o->pids)
        (void)write_value(parent, "cgroup.subtree_control", "+pids");
}

static int
fill_v2(const char *group, const struct sandbox_options *o)
{
    char quota[64];
    snprintf(quota, sizeof quota, "%" PRIu64 " %d", o->cpu_milli * PERIOD_US / 1000, PERIOD_US);
    if (o->memory_bytes && write_number(group, "memory.max", o->memory_bytes) < 0)
        return -1;
    if (o->memory_bytes)
        (void)write_number(group, "memory.swap.max", 0); /* absent without swap accounting */
    if (o->memory_bytes)
        (void)write_number(group, "memory.oom.group", 1);
    if (o->cpu_milli && write_value(group, "cpu.max", quota) < 0)
        return -1;
    return o->pids ? write_number(group, "pids.max", o->pids) : 0;
}

static char *
group_in(const char *parent, const struct sandbox_options *o)
{
    char *group = mem_printf("%s/" GROUP_PREFIX "%d-%s", parent, (int)getpid(), o->id);
    if (mkdir(group, 0755) == 0)
        return group;
    free(group);
    return NULL;
}

static bool
try_v2_in(const char *parent, const struct sandbox_options *o, struct limits *l)
{
    if (!controllers_enabled(parent, o))
        enable_controllers(parent, o); /* works where the group holds no process of its own */
    char *group = controllers_enabled(parent, o) ? group_in(parent, o) : NULL;
    if (!group)
        return false;
    l->groups[l->count++] = group;
    if (fill_v2(group, o) == 0)
        return true;
    limits_remove(l);
    return false;
}

/* Below our own group, else beside it: a group that holds processes cannot share out its controllers. */
static bool
try_v2(const struct sandbox_options *o, struct limits *l)
{
    struct hierarchy h = {0};
    bool made = false;
    if (hierarchy_find(NULL, &h)) {
        cleanup_free char *own = mem_printf("%s%s", h.mount, strcmp(h.own, "/") == 0 ? "" : h.own);
        made = try_v2_in(own, o, l);
        char *slash = strrchr(own, '/');
        if (!made && strcmp(h.own, "/") != 0 && slash) {
            *slash = '\0';
            made = try_v2_in(own, o, l);
        }
    }
    hierarchy_done(&h);
    return made;
}

static int
fill_v1(const char *group, const char *controller, const struct sandbox_options *o)
{
    if (strcmp(controller, "memory") == 0) {
        if (write_number(group, "memory.limit_in_bytes", o->memory_bytes) < 0)
            return -1;
        (void)write_number(group, "memory.memsw.limit_in_bytes", o->memory_bytes); /* absent without swap accounting */
        return 0;
    }
    if (strcmp(controller, "pids") == 0)
        return write_number(group, "pids.max", o->pids);
    if (write_number(group, "cpu.cfs_period_us", PERIOD_US) < 0)
        return -1;
    return write_number(group, "cpu.cfs_quota_us", o->cpu_milli * PERIOD_US / 1000);
}

static bool
try_v1_one(const char *controller, const struct sandbox_options *o, struct limits *l)
{
    struct hierarchy h = {0};
    bool made = false;
    if (hierarchy_find(controller, &h)) {
        cleanup_free char *own = mem_printf("%s%s", h.mount, strcmp(h.own, "/") == 0 ? "" : h.own);
        char *group = group_in(own, o);
        if (group) {
            l->groups[l->count++] = group;
            made = fill_v1(group, controller, o) == 0;
        }
    }
    hierarchy_done(&h);
    return made;
}

static bool
try_v1(const struct sandbox_options *o, struct limits *l)
{
    if ((!o->memory_bytes || try_v1_one("memory", o, l)) && (!o->pids || try_v1_one("pids", o, l)) &&
        (!o->cpu_milli || try_v1_one("cpu", o, l)))
        return true;
    limits_remove(l);
    return false;
}

int
limits_make(const struct sandbox_options *o, struct limits *ret, struct err *err)
{
    *ret = (struct limits){0};
    if (!limits_wanted(o))
        return 0;
    limits_sweep();
    if (try_v2(o, ret) || try_v1(o, ret))
        return 0;
    if (!o->best_effort)
        return err_run(err, "--memory, --cpus, --pids: no control group can be made here (version 2: not delegated to this user; "
                            "version 1: only root); --limits best-effort uses rlimits instead");
    ret->rlimits = true;
    return 0;
}

int
limits_join(const struct limits *l, pid_t pid, struct err *err)
{
    for (size_t i = 0; i < l->count; i++)
        if (write_number(l->groups[i], "cgroup.procs", (uint64_t)pid) < 0)
            return err_errno(err, "%s: cgroup.procs", l->groups[i]);
    return 0;
}

/* ---- rlimits ---- */

static void
keep_to_processors(uint64_t milli)
{
    cpu_set_t have, few;
    uint64_t left = (milli + 999) / 1000;
    CPU_ZERO(&few);
    if (sched_getaffinity(0, sizeof have, &have) < 0)
        return;
    for (size_t i = 0; i < CPU_SETSIZE && left; i++)
        if (CPU_ISSET(i, &have)) {
            CPU_SET(i, &few);
            left--;
        }
    sched_setaffinity(0, sizeof few, &few);
}

int
limits_inside(const struct sandbox_options *o, const struct limits *l, struct err *err)
{
    struct rlimit none = {0, 0}, memory = {o->memory_bytes, o->memory_bytes}, pids = {o->pids, o->pids};
    if (setrlimit(RLIMIT_CORE, &none) < 0)
        return err_errno(err, "forbidding core dumps");
    if (!l->rlimits)
        return 0;
    if (o->memory_bytes && setrlimit(RLIMIT_AS, &memory) < 0)
        return err_errno(err, "--memory");
    if (o->pids && setrlimit(RLIMIT_NPROC, &pids) < 0)
        return err_errno(err, "--pids");
    if (o->cpu_milli)
        keep_to_processors(o->cpu_milli);
    return 0;
}

/* ---- removing ---- */

static void
remove_group(const char *group)
{
    struct timespec pause = {0, 5000000};
    for (int i = 0; i < REMOVE_TRIES && rmdir(group) < 0 && errno == EBUSY; i++)
        nanosleep(&pause, NULL);
}

void
limits_remove(struct limits *l)
{
    while (l->count) {
        remove_group(l->groups[--l->count]);
        free(l->groups[l->count]);
    }
}

static void
sweep_folder(const char *folder)
{
    DIR *d = opendir(folder);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
        int pid;
        if (sscanf(e->d_name, GROUP_PREFIX "%d-", &pid) != 1 || kill(pid, 0) == 0 || errno != ESRCH)
            continue;
        cleanup_free char *group = mem_printf("%s/%s", folder, e->d_name);
        rmdir(group);
    }
    if (d)
        closedir(d);
}

void
limits_sweep(void)
{
    static const char *const controllers[] = {NULL, "memory", "pids", "cpu"};
    for (size_t i = 0; i < sizeof controllers / sizeof controllers[0]; i++) {
        struct hierarchy h = {0};
        if (hierarchy_find(controllers[i], &h)) {
            cleanup_free char *own = mem_printf("%s%s", h.mount, h.own);
            sweep_folder(own);
            char *slash = strrchr(own, '/');
            if (!controllers[i] && slash && slash > own && strcmp(h.own, "/") != 0) {
                *slash = '\0';
                sweep_folder(own);
            }
        }
        hierarchy_done(&h);
    }
}
