/* The files of a decision log, their lines, and the members of a record: what the verbs of
 * `sallyport log` read by. Whoever wrote the file may have been hostile: lines are capped, depths
 * too, and nothing unprintable is printed. */
#include "sallyport/cmd/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sallyport/base/json.h"
#include "sallyport/base/mem.h"
#include "sallyport/record/record.h"
#include "sallyport/record/verify.h"

#define RECORD_DEPTH 8          /* OCSF's own nesting is 4 */
#define BLOCK_SIZE (256u << 10) /* read at a time; far longer than a record */

void
log_files_done(struct log_files *f)
{
    for (size_t i = 0; i < f->count; i++)
        free(f->names[i]);
}

static int
files_add(struct log_files *f, char *name, struct err *err)
{
    if (f->count == LOG_FILES_MAX) {
        free(name);
        return err_invalid(err, "more than %d files", LOG_FILES_MAX);
    }
    f->names[f->count++] = name;
    return 0;
}

/* Names differ in their last digits alone, of which longer ones are larger numbers. */
static int
compare_rotated(const void *a, const void *b)
{
    const char *left = *(char *const *)a, *right = *(char *const *)b;
    size_t left_len = strlen(left), right_len = strlen(right);
    if (left_len != right_len)
        return left_len < right_len ? -1 : 1;
    return strcmp(left, right);
}

static int
add_rotated(struct log_files *f, const char *path, struct err *err)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    size_t folder_len = slash ? (size_t)(slash - path) + 1 : 0;
    cleanup_free char *folder =
        folder_len ? mem_dup_slice(slice_of(path, folder_len)) : mem_strdup(".");
    uint64_t seq;
    int result = 0;
    DIR *dir = opendir(folder);
    if (!dir)
        return 0; /* opening the file itself says what is wrong */
    for (struct dirent *e; result == 0 && (e = readdir(dir));) {
        if (log_is_rotated_name(base, e->d_name, &seq))
            result = files_add(f, mem_printf("%.*s%s", (int)folder_len, path, e->d_name), err);
    }
    closedir(dir);
    qsort(f->names, f->count, sizeof f->names[0], compare_rotated);
    return result;
}

/* One name stands for the whole log; several are taken as they are given. */
int
log_files_find(struct log_files *f, int argc, char **argv, struct err *err)
{
    if (argc == 1 && strcmp(argv[0], "-") != 0 && add_rotated(f, argv[0], err) != 0)
        return -1;
    if (f->count > 0 && access(argv[0], F_OK) != 0)
        return 0; /* between a rotation's rename and the new file */
    for (int i = 0; i < argc; i++) {
        if (files_add(f, mem_strdup(argv[i]), err) != 0)
            return -1;
    }
    return 0;
}

int
log_lines_open(struct log_lines *l, const char *name, struct err *err)
{
    struct stat st;
    *l = (struct log_lines){.fd = strcmp(name, "-") == 0 ? STDIN_FILENO
                                                         : open(name, O_RDONLY | O_CLOEXEC)};
    if (l->fd < 0) {
        err_errno(err, "%s: cannot open", name);
        err->kind = errno == ENOENT || errno == ENOTDIR ? ERR_INVALID : ERR_RUN;
        return -1;
    }
    if (fstat(l->fd, &st) == 0 && S_ISDIR(st.st_mode)) {
        close(l->fd);
        return err_invalid(err, "%s: is a folder; expected a decision log", name);
    }
    l->block = mem_alloc(BLOCK_SIZE);
    return 0;
}

void
log_lines_close(struct log_lines *l)
{
    if (l->fd > STDIN_FILENO)
        close(l->fd);
    free(l->block);
    l->block = NULL;
}

/* Bytes that were read now; 0 at the end, -1 with errno. */
ssize_t
log_lines_fill(struct log_lines *l)
{
    if (l->start > 0)
        memmove(l->block, l->block + l->start, l->end - l->start);
    l->end -= l->start;
    l->start = 0;
    ssize_t got;
    do
        got = read(l->fd, l->block + l->end, BLOCK_SIZE - l->end);
    while (got < 0 && errno == EINTR);
    if (got > 0)
        l->end += (size_t)got;
    return got;
}

/* The next line that is there with its newline: 1, or 0 when more must be read. */
int
log_lines_take(struct log_lines *l, struct slice *ret)
{
    while (l->end > l->start) {
        char *from = l->block + l->start, *newline = memchr(from, '\n', l->end - l->start);
        size_t len = newline ? (size_t)(newline - from) : l->end - l->start;
        if (!newline && len < BLOCK_SIZE)
            return 0;
        bool was_skipping = l->skipping;
        l->skipping = !newline;
        l->start += len + (newline != NULL);
        if (was_skipping)
            continue;
        *ret = slice_of(from, len <= RECORD_LINE_MAX ? len : RECORD_LINE_MAX + 1);
        return 1;
    }
    return 0;
}

/* 1 with a line, 0 at the end, -1 with errno. */
static int
lines_next(struct log_lines *l, struct slice *ret, bool *ret_whole)
{
    ssize_t got;
    *ret_whole = true;
    do {
        if (log_lines_take(l, ret))
            return 1;
    } while ((got = log_lines_fill(l)) > 0);
    if (got < 0 || l->start == l->end)
        return (int)got;
    *ret_whole = false;
    *ret = slice_of(l->block + l->start, l->end - l->start);
    if (ret->len > RECORD_LINE_MAX)
        ret->len = RECORD_LINE_MAX + 1;
    l->start = l->end = 0;
    return l->skipping ? 0 : 1;
}

int
log_each_line(const char *name, log_line_fn *fn, void *ctx, struct err *err)
{
    struct log_lines l;
    struct slice line;
    bool whole;
    int got;
    if (log_lines_open(&l, name, err) != 0)
        return -1;
    while ((got = lines_next(&l, &line, &whole)) > 0)
        fn(ctx, line, whole);
    if (got < 0)
        err_errno(err, "%s: cannot read", name);
    log_lines_close(&l);
    return got;
}

bool
log_seen_read(struct log_seen *s, struct slice line)
{
    struct err err;
    s->root = json_read_record(line, "record", RECORD_DEPTH, &err);
    const json_t *mapped = json_object_get(s->root, "unmapped");
    s->members = mapped ? mapped : s->root;
    return s->root && json_is_string(json_object_get(s->members, "event"));
}

struct slice
log_seen_text(const struct log_seen *s, const char *name)
{
    const json_t *value = json_object_get(s->members, name);
    if (!json_is_string(value))
        return slice_of(NULL, 0);
    return slice_of(json_string_value(value), json_string_length(value));
}

bool
log_seen_is(const struct log_seen *s, const char *name, const char *text)
{
    return slice_is(log_seen_text(s, name), text);
}

uint64_t
log_seen_number(const struct log_seen *s, const char *name)
{
    json_int_t value = json_integer_value(json_object_get(s->members, name));
    return value > 0 ? (uint64_t)value : 0;
}

void
log_print_safely(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c >= 0x20 && c <= 0x7e)
            putchar(c);
        else
            printf("\\x%02x", c);
    }
}

void
log_print_json(json_t *object)
{
    json_dumpf(object, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
    putchar('\n');
    json_decref(object);
}

json_t *
log_json_count(uint64_t n)
{
    return json_integer((json_int_t)n);
}
