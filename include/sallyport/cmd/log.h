/* What the verbs of `sallyport log` share: the files of a log, their lines, the members of a record, and printing that
 * lets nothing but printable ASCII through. */
#ifndef SALLYPORT_CMD_LOG_H
#define SALLYPORT_CMD_LOG_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "sallyport/base/err.h"
#include "sallyport/base/slice.h"

#define LOG_FILES_MAX 4096

struct log_options {
    bool json, all, help;
    const char *key, *head;
};

/* The files of a log, oldest first. One name stands for the whole log (its rotated files are found beside it); several
 * are taken as they are given. `-` is standard input. */
struct log_files {
    char *names[LOG_FILES_MAX];
    size_t count;
};
int log_files_find(struct log_files *f, int argc, char **argv, struct err *err);
void log_files_done(struct log_files *f);

/* Lines of one file. Those longer than a record can be are cut to RECORD_LINE_MAX + 1. */
struct log_lines {
    int fd;
    char *block;
    size_t start, end;
    bool skipping; /* within a line that was too long */
};
int log_lines_open(struct log_lines *l, const char *name, struct err *err);
void log_lines_close(struct log_lines *l);
ssize_t log_lines_fill(struct log_lines *l);                   /* bytes that were read now; 0 at the end, -1 with errno */
int log_lines_take(struct log_lines *l, struct slice *ret);    /* 1: a line that is there with its newline */
/* whole: a newline followed; only the last line of a file can be without. */
typedef void log_line_fn(void *ctx, struct slice line, bool whole);
int log_each_line(const char *name, log_line_fn *fn, void *ctx, struct err *err);

/* The members of a record in either format. */
struct log_seen {
    json_t *root;          /* owned: json_decref */
    const json_t *members; /* of our own; in root */
};
bool log_seen_read(struct log_seen *s, struct slice line); /* false: no record; root may be set all the same */
struct slice log_seen_text(const struct log_seen *s, const char *name); /* ptr NULL when there is none; any byte */
bool log_seen_is(const struct log_seen *s, const char *name, const char *text);
uint64_t log_seen_number(const struct log_seen *s, const char *name); /* 0 when there is none */

void log_print_safely(struct slice s); /* \xHH for what is not printable */
void log_print_json(json_t *object);   /* one line; takes the reference */
json_t *log_json_count(uint64_t n);

/* The verbs; each prints and returns the exit status. */
int log_verify(const struct log_options *o, const struct log_files *files, struct err *err);
int log_summary(const struct log_options *o, const struct log_files *files, struct err *err);
int log_follow(const struct log_options *o, int count, char **names, struct err *err); /* ends only by a failure */

#endif
