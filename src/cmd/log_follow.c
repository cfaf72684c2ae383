/* `sallyport log follow`: records as they come, a line each for people, through rotations. Ends
 * only by a signal or when nobody reads any more. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sallyport/cmd/cmd.h"
#include "sallyport/cmd/log.h"

#define FOLLOW_BACK 10 /* records shown before those to come */
#define FOLLOW_SLEEP_US 200000

static bool
use_colour(void)
{
    const char *no = getenv("NO_COLOR");
    return isatty(STDOUT_FILENO) && !(no && no[0]);
}

static const char *
colour_of(const struct log_seen *s)
{
    if (log_seen_is(s, "decision", "deny"))
        return "\033[31m";
    return log_seen_is(s, "decision", "allow") ? "\033[32m" : "\033[2m";
}

static void
print_word(const struct log_seen *s, const char *name, const char *before)
{
    struct slice text = log_seen_text(s, name);
    if (text.len == 0)
        return;
    fputs(before, stdout);
    log_print_safely(text);
}

static void
print_what(const struct log_seen *s)
{
    print_word(s, "method", " ");
    print_word(s, "scheme", " ");
    print_word(s, "host", " ");
    if (log_seen_number(s, "port"))
        printf(":%" PRIu64, log_seen_number(s, "port"));
    print_word(s, "path", " ");
    print_word(s, "rule", " by ");
    print_word(s, "cause", " ");
    if (log_seen_is(s, "event", "close"))
        printf(" up %" PRIu64 " down %" PRIu64 " in %" PRIu64 " ms", log_seen_number(s, "bytes_up"),
               log_seen_number(s, "bytes_down"), log_seen_number(s, "duration_ms"));
    if (log_seen_number(s, "count"))
        printf(" %" PRIu64 " times", log_seen_number(s, "count"));
}

/* time, event or verdict, reason, sandbox, what. */
static void
print_record(const struct log_seen *s)
{
    bool colour = use_colour();
    const char *ts = json_string_value(json_object_get(s->root, "ts"));
    log_print_safely(slice_str(ts ? ts : "-"));
    fputs(colour ? colour_of(s) : "", stdout);
    print_word(s, "event", " ");
    print_word(s, "decision", " ");
    fputs(colour ? "\033[0m" : "", stdout);
    print_word(s, "would", " would-");
    print_word(s, "reason", " ");
    print_word(s, "sandbox", " ");
    print_what(s);
    putchar('\n');
}

struct follow {
    const struct log_options *options;
    uint64_t to_skip; /* lines of the past that are not shown */
};

static void
on_follow_line(void *ctx, struct slice line, bool whole)
{
    struct follow *f = ctx;
    struct log_seen s = {0};
    (void)whole;
    if (f->to_skip > 0) {
        f->to_skip--;
        return;
    }
    if (!f->options->json && log_seen_read(&s, line)) {
        print_record(&s);
    } else {
        log_print_safely(line); /* a record is printable; what is not is shown for what it is */
        putchar('\n');
    }
    json_decref(s.root);
}

static void
on_count_line(void *ctx, struct slice line, bool whole)
{
    uint64_t *count = ctx;
    (void)line;
    *count += whole;
}

/* Every line that is whole; what is torn waits for the rest of it. */
static int
drain(struct follow *f, struct log_lines *l)
{
    struct slice line;
    ssize_t got;
    do {
        while (log_lines_take(l, &line))
            on_follow_line(f, line, true);
    } while ((got = log_lines_fill(l)) > 0);
    fflush(stdout);
    return got < 0 ? -1 : 0;
}

/* Has another file taken the name, or was this one cut? */
static bool
was_replaced(const char *path, int fd)
{
    struct stat named, open_one;
    if (stat(path, &named) != 0 || fstat(fd, &open_one) != 0)
        return false; /* renamed and not yet made anew */
    return named.st_ino != open_one.st_ino || named.st_dev != open_one.st_dev ||
           open_one.st_size < lseek(fd, 0, SEEK_CUR);
}

static int
follow_file(struct follow *f, const char *path, struct err *err)
{
    struct log_lines l;
    if (log_lines_open(&l, path, err) != 0)
        return -1;
    for (;;) {
        bool replaced = was_replaced(
            path, l.fd); /* asked first: what the old one still holds is drained after */
        if (drain(f, &l) != 0) {
            err_errno(err, "%s: cannot read", path);
            break;
        }
        if (ferror(stdout)) {
            err_run(err, "cannot write to standard output");
            break;
        }
        if (replaced) {
            log_lines_close(&l);
            if (log_lines_open(&l, path, err) != 0)
                return -1;
            continue;
        }
        usleep(FOLLOW_SLEEP_US);
    }
    log_lines_close(&l);
    return -1;
}

int
log_follow(const struct log_options *o, int count, char **names, struct err *err)
{
    struct follow f = {.options = o};
    uint64_t lines = 0;
    if (count != 1) {
        err_invalid(err, "log follow: expected one FILE");
        return cmd_fail(err);
    }
    if (strcmp(names[0], "-") == 0)
        return log_each_line(names[0], on_follow_line, &f, err) == 0 ? 0 : cmd_fail(err);
    if (!o->all) {
        if (log_each_line(names[0], on_count_line, &lines, err) != 0)
            return cmd_fail(err);
        f.to_skip = lines > FOLLOW_BACK ? lines - FOLLOW_BACK : 0;
    }
    follow_file(&f, names[0], err);
    return cmd_fail(err);
}
