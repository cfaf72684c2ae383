/* Reading and replacing whole files, with caps and permission checks. Follows symlinks as open(2)
 * does; takes nothing but regular files by name, so that a fifo or a device never blocks a start or
 * a reload. */
#include "sallyport/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sallyport/base/mem.h"

#define READ_FIRST 4096 /* the usual policy or key file in one read */

/* A path that is wrong is the caller's input; anything else is the machine's. */
static int
fail_path(struct err *err, const char *path, const char *doing)
{
    int number = errno;
    err_errno(err, "%s: cannot %s", path, doing);
    if (number == ENOENT || number == ENOTDIR || number == ELOOP || number == ENAMETOOLONG ||
        number == EISDIR)
        err->kind = ERR_INVALID;
    return -1;
}

static int
check_regular(int fd, const char *path, size_t max, int checks, struct err *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return err_errno(err, "%s: cannot stat", path);
    if (!S_ISREG(st.st_mode))
        return err_invalid(err, "%s: is not a regular file", path);
    if ((checks & FILE_PRIVATE) && (st.st_mode & 077))
        return err_invalid(err, "%s: mode %04o lets others at a secret; expected 0600 or less",
                           path, (unsigned)(st.st_mode & 07777));
    if ((checks & FILE_NOT_WRITABLE_BY_OTHERS) && (st.st_mode & 022))
        return err_invalid(
            err, "%s: mode %04o lets others write; expected no write bit for group and others",
            path, (unsigned)(st.st_mode & 07777));
    if (st.st_size > 0 && (uintmax_t)st.st_size > max)
        return err_invalid(err, "%s: is larger than %zu bytes", path, max);
    return 0;
}

int
file_read_fd(int fd, const char *name, size_t max, char **ret, size_t *ret_len, struct err *err)
{
    size_t size = READ_FIRST, len = 0;
    char *data = mem_alloc(size + 1);
    for (;;) {
        if (len == size) {
            /* A secret may be among the bytes: they move by copy and wipe, not by realloc. */
            char *larger = mem_alloc(2 * size + 1);
            memcpy(larger, data, len);
            mem_wipe(data, len);
            free(data);
            data = larger;
            size *= 2;
        }
        ssize_t got = read(fd, data + len, size - len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            err_errno(err, "%s: cannot read", name);
        else if ((size_t)got > max - len)
            err_invalid(err, "%s: is larger than %zu bytes", name, max);
        else if (got > 0) {
            len += (size_t)got;
            continue;
        } else
            break;
        mem_wipe(data, size);
        free(data);
        return -1;
    }
    data[len] = '\0';
    *ret = data;
    *ret_len = len;
    return 0;
}

int
file_read(const char *path, size_t max, int checks, char **ret, size_t *ret_len, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return fail_path(err, path, "open");
    int result = check_regular(fd, path, max, checks, err);
    if (result == 0)
        result = file_read_fd(fd, path, max, ret, ret_len, err);
    close(fd);
    return result;
}

int
fd_write_all(int fd, struct slice s)
{
    while (s.len > 0) {
        ssize_t put = write(fd, s.ptr, s.len);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -1;
        if (put == 0) {
            errno = EIO; /* a device that takes nothing would loop for ever */
            return -1;
        }
        s.ptr += put;
        s.len -= (size_t)put;
    }
    return 0;
}

int
fd_set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -1;
    return fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -1 : 0;
}

/* Creates path, which must not exist, with exactly this mode and content, on disk. Leaves nothing
 * when it fails. */
static int
create_synced(const char *path, struct slice content, mode_t mode, struct err *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode & 0600);
    if (fd < 0)
        return fail_path(err, path, "create");
    int result = 0;
    if (fchmod(fd, mode) != 0 || fd_write_all(fd, content) != 0 || fsync(fd) != 0)
        result = err_errno(err, "%s: cannot write", path);
    if (close(fd) != 0 && result == 0)
        result = err_errno(err, "%s: cannot close", path);
    if (result != 0)
        unlink(path);
    return result;
}

/* A rename is on disk when its directory is. */
static int
sync_directory(const char *path, struct err *err)
{
    const char *slash = strrchr(path, '/');
    size_t len = slash == path ? 1 : slash ? (size_t)(slash - path) : 0;
    cleanup_free char *folder = slash ? mem_dup_slice(slice_of(path, len)) : mem_strdup(".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, "%s: cannot open the folder", folder);
    /* Some file systems do not sync directories; the content is safe all the same. */
    int result = fsync(fd) != 0 && errno != EINVAL
                     ? err_errno(err, "%s: cannot sync the folder", folder)
                     : 0;
    close(fd);
    return result;
}

int
file_replace(const char *path, struct slice content, mode_t mode, struct err *err)
{
    cleanup_free char *beside = mem_printf("%s.new-%ld", path, (long)getpid());
    unlink(beside); /* left by an earlier process of this number */
    if (create_synced(beside, content, mode, err) != 0)
        return -1;
    if (rename(beside, path) != 0) {
        fail_path(err, path, "replace");
        unlink(beside);
        return -1;
    }
    return sync_directory(path, err);
}

int
file_create_private(const char *path, struct slice content, struct err *err)
{
    if (create_synced(path, content, 0600, err) != 0)
        return -1;
    return sync_directory(path, err);
}
