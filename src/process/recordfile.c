/* Opening and renaming record files. Runs in the supervisor, with its privileges; never cuts a byte that it has not put
 * aside before, and never overwrites a file. */
#include "sallyport/process/recordfile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sallyport/base/clock.h"
#include "sallyport/base/diag.h"
#include "sallyport/base/file.h"
#include "sallyport/base/mem.h"
#include "sallyport/record/chain.h"
#include "sallyport/record/record.h"
#include "sallyport/record/verify.h"

/* A torn end is at most a line; two are looked at to find the number of the last whole one. */
#define TAIL_MAX ((off_t)2 * RECORD_LINE_MAX)

static int
open_locked(const char *path, struct record_file *ret, struct err *err)
{
    struct stat st;
    int fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(err, "record.path: %s", path);
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return err_run(err, "record.path: %s: is not a regular file", path);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        close(fd);
        return err_run(err, "record.path: %s: is in use by another sallyport", path);
    }
    ret->fd = fd;
    ret->dev = st.st_dev;
    ret->ino = st.st_ino;
    return 0;
}

static const char *
last_newline(const char *bytes, size_t len)
{
    return memrchr(bytes, '\n', len);
}

/* The number that the torn record would have had; 1 when no whole line is in reach. */
static uint64_t
number_behind(const char *bytes, const char *newline)
{
    uint64_t seq = 0;
    char prev[SHA256_HEX_SIZE], hash[SHA256_HEX_SIZE];
    if (!newline)
        return 1;
    const char *before = last_newline(bytes, (size_t)(newline - bytes));
    const char *line = before ? before + 1 : bytes;
    return chain_read_line(slice_of(line, (size_t)(newline - line)), &seq, prev, hash) ? seq + 1 : 1;
}

static int
set_aside(struct record_file *f, struct slice torn, uint64_t seq, off_t whole, struct err *err)
{
    cleanup_free char *name = log_torn_name(f->path, seq);
    int fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(err, "record.path: setting a torn line aside in %s", name);
    int rc = fd_write_all(fd, torn) < 0 || fsync(fd) < 0 ? -1 : 0;
    if (rc < 0)
        err_errno(err, "record.path: setting a torn line aside in %s", name);
    close(fd);
    if (rc == 0 && ftruncate(f->fd, whole) < 0)
        return err_errno(err, "record.path: %s", f->path);
    if (rc == 0)
        diag(DIAG_WARNING, "%s ended in a torn line of %zu bytes, which is now in %s", f->path, torn.len, name);
    return rc;
}

int
recordfile_mend(struct record_file *f, struct err *err)
{
    struct stat st;
    f->torn_bytes = 0;
    if (fstat(f->fd, &st) < 0)
        return err_errno(err, "record.path: %s", f->path);
    size_t len = (size_t)(st.st_size < TAIL_MAX ? st.st_size : TAIL_MAX);
    if (len == 0)
        return 0;
    cleanup_free char *tail = mem_alloc(len);
    if (pread(f->fd, tail, len, st.st_size - (off_t)len) != (ssize_t)len)
        return err_errno(err, "record.path: reading the end of %s", f->path);
    const char *newline = last_newline(tail, len);
    size_t torn = newline ? len - (size_t)(newline - tail) - 1 : len;
    if (torn == 0)
        return 0;
    if (!newline && (off_t)len < st.st_size)
        return err_invalid(err, "record.path: %s: does not end in lines; it is not a decision log", f->path);
    f->torn_bytes = torn;
    return set_aside(f, slice_of(tail + len - torn, torn), number_behind(tail, newline), st.st_size - (off_t)torn, err);
}

int
recordfile_open(const char *path, struct record_file *ret, struct err *err)
{
    struct record_file f = {.path = mem_strdup(path), .fd = -1};
    if (open_locked(path, &f, err) < 0 || recordfile_mend(&f, err) < 0) {
        recordfile_close(&f);
        return -1;
    }
    *ret = f;
    return 0;
}

void
recordfile_close(struct record_file *f)
{
    if (f->fd >= 0)
        close(f->fd);
    free(f->path);
    *f = (struct record_file){.fd = -1};
}

int
recordfile_before(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    cleanup_free char *folder = slash ? mem_dup_slice(slice_of(path, (size_t)(slash - path) + 1)) : mem_strdup(".");
    DIR *dir = opendir(folder);
    uint64_t newest = 0, seq;
    for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir))
        if (log_is_rotated_name(base, e->d_name, &seq) && seq > newest)
            newest = seq;
    if (dir)
        closedir(dir);
    if (newest == 0)
        return -1;
    cleanup_free char *name = log_rotated_name(path, newest);
    return open(name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
}

bool
recordfile_in_place(const struct record_file *f)
{
    struct stat st;
    return lstat(f->path, &st) == 0 && st.st_dev == f->dev && st.st_ino == f->ino;
}

static int
put_away(const struct record_file *f, enum want_file why, uint64_t first_seq, struct err *err)
{
    char time[CLOCK_TEXT_SIZE];
    clock_format_utc(clock_wall_us(), time);
    if (!recordfile_in_place(f))
        return 0; /* whoever removed or renamed it did it already */
    cleanup_free char *name = why == WANT_ROTATED ? log_rotated_name(f->path, first_seq) : mem_printf("%s.tampered-%s", f->path, time);
    if (renameat2(AT_FDCWD, f->path, AT_FDCWD, name, RENAME_NOREPLACE) < 0)
        return err_errno(err, "renaming %s to %s", f->path, name);
    return 0;
}

int
recordfile_replace(struct record_file *f, enum want_file why, uint64_t first_seq, struct err *err)
{
    struct record_file next = {.path = f->path, .fd = -1};
    struct stat st;
    if (put_away(f, why, first_seq, err) < 0 || open_locked(f->path, &next, err) < 0)
        return -1;
    if (fstat(next.fd, &st) < 0 || st.st_size != 0) {
        close(next.fd);
        return err_run(err, "record.path: %s: somebody else's file is in its place", f->path);
    }
    close(f->fd);
    *f = next;
    return 0;
}
