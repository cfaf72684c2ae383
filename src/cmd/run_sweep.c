/* What a run leaves behind when its processes were all killed at once: its folder. Each run holds a lock in it (flock, shared by this
 * process and the helper, let go by the kernel whatever ends them), and the next run of the same user removes folders whose lock
 * nobody holds. Nobody else's folder is touched, and none without a lock. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sallyport/base/mem.h"
#include "sallyport/cmd/run.h"

#define PREFIX "sallyport-"
#define RANDOM_LEN 6 /* of mkdtemp */
#define LOCK "lock"

size_t
run_bases(const char *ret[RUN_BASES_MAX])
{
    size_t count = 0;
    const char *own = getenv("XDG_RUNTIME_DIR");
    if (own && own[0] == '/')
        ret[count++] = own;
    if (geteuid() == 0)
        ret[count++] = "/run";
    ret[count++] = "/tmp";
    ret[count++] = "/dev/shm";
    ret[count++] = "/var/tmp";
    return count;
}

/* It has its name only when it is held: whoever finds it free finds a dead run. */
int
run_lock(struct run *r, struct err *err)
{
    cleanup_free char *made = mem_printf("%s/" LOCK ".new", r->dir), *path = mem_printf("%s/" LOCK, r->dir);
    r->lock = open(made, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (r->lock < 0 || flock(r->lock, LOCK_SH) < 0 || rename(made, path) < 0)
        return err_errno(err, "%s", path);
    return 0;
}

static bool
is_run_name(const char *name)
{
    size_t prefix = strlen(PREFIX);
    return strncmp(name, PREFIX, prefix) == 0 && strlen(name) == prefix + RANDOM_LEN && !strpbrk(name + prefix, "./-_");
}

/* The lock, held by us alone, of a folder whose run is dead; or -1. */
static int
take_over(int folder)
{
    struct stat st;
    if (fstat(folder, &st) < 0 || st.st_uid != geteuid() || (st.st_mode & 077))
        return -1;
    int lock = openat(folder, LOCK, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) < 0) {
        close(lock);
        return -1;
    }
    return lock;
}

/* The lock goes last: a sweep that is interrupted is taken up by the next. Takes folder over. */
static void
empty(int folder)
{
    DIR *d = fdopendir(folder);
    if (!d) {
        close(folder);
        return;
    }
    for (struct dirent *e = readdir(d); e; e = readdir(d))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && strcmp(e->d_name, LOCK) != 0)
            unlinkat(dirfd(d), e->d_name, 0);
    unlinkat(dirfd(d), LOCK, 0);
    closedir(d);
}

static bool
sweep_one(int base, const char *name)
{
    int folder = openat(base, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int lock = folder < 0 ? -1 : take_over(folder);
    if (lock < 0) {
        if (folder >= 0)
            close(folder);
        return false;
    }
    empty(folder);
    unlinkat(base, name, AT_REMOVEDIR);
    close(lock);
    return true;
}

bool
run_sweep(void)
{
    const char *bases[RUN_BASES_MAX];
    bool found = false;
    size_t count = run_bases(bases);
    for (size_t i = 0; i < count; i++) {
        DIR *d = opendir(bases[i]);
        for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d))
            if (is_run_name(e->d_name) && sweep_one(dirfd(d), e->d_name))
                found = true;
        if (d)
            closedir(d);
    }
    return found;
}
