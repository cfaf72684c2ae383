/* Errors of the control path (start, reload, commands): one sentence that says what, where and what was expected.
 * The data path has `enum reason` instead. Leaf code does not log; the command prints once. */
#ifndef SALLYPORT_BASE_ERR_H
#define SALLYPORT_BASE_ERR_H

#define ERR_TEXT_MAX 1024

enum err_kind {
    ERR_NONE = 0,
    ERR_INVALID, /* bad usage or input: exit status 2 */
    ERR_RUN,     /* could not run (address in use, no permission): exit status 3 */
};

struct err {
    enum err_kind kind;
    char text[ERR_TEXT_MAX];
};

/* All return -1, so that `return err_invalid(err, …)` reads well. err is never NULL. */
int err_invalid(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int err_run(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int err_errno(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3))); /* ERR_RUN, ": strerror" appended */
int err_wrap(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));  /* puts "…: " in front */
int err_exit_status(const struct err *err); /* 2 or 3 */

#endif
