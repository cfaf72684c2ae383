/* Reading and replacing whole files with caps and permission checks. */
#ifndef SALLYPORT_BASE_FILE_H
#define SALLYPORT_BASE_FILE_H

#include <stddef.h>
#include <sys/types.h>

#include "sallyport/base/err.h"
#include "sallyport/base/slice.h"

enum file_check {
    FILE_ANY = 0,
    FILE_NOT_WRITABLE_BY_OTHERS = 1, /* policies, keys: group or world writable is an error */
    FILE_PRIVATE = 2,                /* secrets: any access for group or others is an error */
};

/* Reads all of a regular file of at most max bytes (no symlink to elsewhere is special; a fifo or device is refused).
 * *ret is heap, with a NUL behind it; wipe it when it is a secret. */
int file_read(const char *path, size_t max, int checks, char **ret, size_t *ret_len, struct err *err);
int file_read_fd(int fd, const char *name, size_t max, char **ret, size_t *ret_len, struct err *err);
/* Writes beside, fsyncs, renames: readers see the old file or the new one. */
int file_replace(const char *path, struct slice content, mode_t mode, struct err *err);
int file_create_private(const char *path, struct slice content, struct err *err); /* 0600, O_EXCL */
int fd_write_all(int fd, struct slice s); /* 0 or -1 with errno; handles short writes and EINTR */
int fd_set_nonblocking(int fd);

#endif
