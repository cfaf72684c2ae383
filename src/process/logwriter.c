/* Writing the decision log. The one promise: every byte of the file belongs to a whole line, whenever and however this
 * process ends, but for the last line, which recordfile_mend sets aside. */
#include "sallyport/process/logwriter.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sallyport/base/mem.h"
#include "sallyport/record/record.h"

void
logwriter_init(struct log_writer *w)
{
    *w = (struct log_writer){.fd = -1};
    buf_init(&w->pending, LOGWRITER_PENDING_MAX);
    chain_init(&w->chain);
}

static void
close_file(struct log_writer *w)
{
    if (w->fd < 0)
        return;
    /* Gives the reserve back, which lies behind the end. */
    if (w->reserved > w->size && logwriter_check(w) == WANT_NONE && ftruncate(w->fd, (off_t)w->size) < 0)
        w->reserved = 0;
    close(w->fd);
    w->fd = -1;
}

void
logwriter_done(struct log_writer *w)
{
    close_file(w);
    buf_done(&w->pending);
}

/* ---- reading what is there ---- */

static uint64_t
file_size(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_size > 0 ? (uint64_t)st.st_size : 0;
}

/* The last line of a file that ends in a newline, without it; ptr NULL for an empty file. Points into `store`. */
static struct slice
last_line(int fd, char store[RECORD_LINE_MAX + 2])
{
    uint64_t size = file_size(fd);
    size_t len = size < RECORD_LINE_MAX + 2 ? (size_t)size : RECORD_LINE_MAX + 2;
    if (len == 0 || pread(fd, store, len, (off_t)(size - len)) != (ssize_t)len)
        return slice_of(NULL, 0);
    if (store[len - 1] == '\n')
        len--;
    const char *newline = memrchr(store, '\n', len);
    return newline ? slice_of(newline + 1, len - (size_t)(newline + 1 - store)) : slice_of(store, len);
}

static int
find_head(struct log_writer *w, int before, struct err *err)
{
    cleanup_free char *store = mem_alloc(RECORD_LINE_MAX + 2);
    char prev[SHA256_HEX_SIZE], hash[SHA256_HEX_SIZE];
    uint64_t seq;
    struct slice line = last_line(w->fd, store);
    if (!line.ptr && before >= 0)
        line = last_line(before, store);
    if (!line.ptr)
        return 0;
    if (!chain_read_line(line, &seq, prev, hash))
        return err_invalid(err, "record.path: the last line is not a record of this log; move the file away");
    w->chain.next_seq = seq + 1;
    memcpy(w->chain.prev, hash, sizeof hash);
    return 0;
}

static uint64_t
first_number(const struct log_writer *w)
{
    cleanup_free char *store = mem_alloc(RECORD_LINE_MAX + 1);
    char prev[SHA256_HEX_SIZE], hash[SHA256_HEX_SIZE];
    uint64_t seq;
    ssize_t n = pread(w->fd, store, RECORD_LINE_MAX + 1, 0);
    const char *newline = n > 0 ? memchr(store, '\n', (size_t)n) : NULL;
    if (newline && chain_read_line(slice_of(store, (size_t)(newline - store)), &seq, prev, hash))
        return seq;
    return w->chain.next_seq;
}

int
logwriter_open(struct log_writer *w, int fd, int before, struct err *err)
{
    w->fd = fd;
    w->size = file_size(fd);
    if (find_head(w, before, err) < 0)
        return -1;
    w->first_seq = first_number(w);
    return 0;
}

void
logwriter_switch(struct log_writer *w, int fd)
{
    struct slice lines = buf_slice(&w->pending);
    const char *newline = lines.len ? memchr(lines.ptr, '\n', lines.len) : NULL;
    char prev[SHA256_HEX_SIZE], hash[SHA256_HEX_SIZE];
    close_file(w);
    w->fd = fd;
    w->size = file_size(fd);
    w->reserved = 0;
    w->torn = w->failing = false;
    w->first_seq = w->chain.next_seq;
    if (newline)
        chain_read_line(slice_of(lines.ptr, (size_t)(newline - lines.ptr)), &w->first_seq, prev, hash);
}

#define TAIL_CHUNK (1u << 20)

void
log_each_tail_line(int fd, uint64_t max, void (*visit)(void *ctx, struct slice line), void *ctx)
{
    uint64_t size = file_size(fd), at = size > max ? size - max : 0;
    bool whole = at == 0; /* the first line may be cut by where we begin */
    size_t held = 0;
    cleanup_free char *chunk = mem_alloc(TAIL_CHUNK);
    while (at < size) {
        ssize_t n = pread(fd, chunk + held, TAIL_CHUNK - held, (off_t)at);
        if (n <= 0)
            return;
        at += (uint64_t)n;
        size_t len = held + (size_t)n, begin = 0;
        for (const char *nl; (nl = memchr(chunk + begin, '\n', len - begin)); begin = (size_t)(nl - chunk) + 1) {
            if (whole)
                visit(ctx, slice_of(chunk + begin, (size_t)(nl - chunk) - begin));
            whole = true;
        }
        held = len - begin;
        if (held == TAIL_CHUNK)
            return; /* no line is so long */
        memmove(chunk, chunk + begin, held);
    }
}

/* ---- writing ---- */

/* More than the reserve is asked for where there is room, so that this is not done for every write. */
#define AHEAD (1u << 20)

bool
logwriter_add(struct log_writer *w, struct slice draft, bool *ret_room)
{
    *ret_room = buf_room(&w->pending) > RECORD_LINE_MAX + 1;
    return *ret_room && chain_append(&w->chain, &w->pending, draft);
}

bool
logwriter_add_sound(struct log_writer *w, struct slice draft)
{
    return buf_room(&w->pending) > RECORD_LINE_MAX + 1 && chain_append_sound(&w->chain, &w->pending, draft);
}

/* Part of a line went in: the file ends before it again. Only bytes that this process has just written are cut. */
static bool
cut_torn(struct log_writer *w)
{
    if (!w->torn)
        return true;
    if (ftruncate(w->fd, (off_t)w->cut_to) < 0)
        return false;
    w->torn = false;
    return true;
}

/* Returns whether a whole line got in. */
static bool
settle_write(struct log_writer *w, size_t written)
{
    struct slice bytes = buf_slice(&w->pending);
    const char *newline = written ? memrchr(bytes.ptr, '\n', written) : NULL;
    size_t lines = newline ? (size_t)(newline - bytes.ptr) + 1 : 0;
    w->size += lines;
    buf_consume(&w->pending, lines);
    if (written > lines) {
        w->torn = true;
        w->cut_to = w->size;
        cut_torn(w);
    }
    return lines > 0;
}

bool
logwriter_flush(struct log_writer *w)
{
    while (buf_len(&w->pending)) {
        struct slice bytes = buf_slice(&w->pending);
        if (w->fd < 0 || !cut_torn(w)) {
            w->failing = true;
            return false;
        }
        ssize_t n = write(w->fd, bytes.ptr, bytes.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            w->failing = true;
            return false;
        }
        /* Half a line is what a full disk takes; trying it at once would be tried for ever. */
        if (!settle_write(w, (size_t)n)) {
            w->failing = true;
            errno = ENOSPC;
            return false;
        }
    }
    w->failing = false;
    return true;
}

bool
logwriter_sync(struct log_writer *w)
{
    return w->fd >= 0 && fdatasync(w->fd) == 0;
}

enum want_file
logwriter_check(const struct log_writer *w)
{
    struct stat st;
    if (w->fd < 0 || fstat(w->fd, &st) < 0)
        return WANT_LOST;
    if (st.st_nlink == 0)
        return WANT_LOST;
    if (!w->torn && (uint64_t)st.st_size != w->size)
        return WANT_TAMPERED;
    return WANT_NONE;
}

static bool
promise(struct log_writer *w, uint64_t bytes)
{
    if (fallocate(w->fd, FALLOC_FL_KEEP_SIZE, (off_t)w->size, (off_t)bytes) < 0)
        return false;
    w->reserved = w->size + bytes;
    return true;
}

bool
logwriter_reserve(struct log_writer *w)
{
    if (w->reserve_bytes == 0 || w->fd < 0 || w->reserved >= w->size + w->reserve_bytes)
        return true;
    if (promise(w, w->reserve_bytes + AHEAD) || promise(w, w->reserve_bytes))
        return true;
    return errno == EOPNOTSUPP || errno == ENOSYS; /* no file system with promises: the write itself will tell */
}
