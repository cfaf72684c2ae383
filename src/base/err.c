/* Errors of the control path: one sentence each, made where the fault is found, wrapped on the way
 * up, printed once. */
#include "sallyport/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int
err_invalid(struct err *err, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, args);
    va_end(args);
    err->kind = ERR_INVALID;
    return -1;
}

int
err_run(struct err *err, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, args);
    va_end(args);
    err->kind = ERR_RUN;
    return -1;
}

int
err_errno(struct err *err, const char *fmt, ...)
{
    int number = errno;
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, args);
    va_end(args);
    size_t len = strlen(err->text);
    snprintf(err->text + len, sizeof err->text - len, ": %s", strerror(number));
    err->kind = ERR_RUN;
    errno = number;
    return -1;
}

int
err_wrap(struct err *err, const char *fmt, ...)
{
    char inner[ERR_TEXT_MAX];
    memcpy(inner, err->text, sizeof inner);
    inner[sizeof inner - 1] = '\0';
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, args);
    va_end(args);
    size_t len = strlen(err->text);
    snprintf(err->text + len, sizeof err->text - len, ": %s", inner);
    if (err->kind == ERR_NONE)
        err->kind = ERR_RUN; /* wrapping what was never set is our own slip; it must not look like
                                success */
    return -1;
}

int
err_exit_status(const struct err *err)
{
    return err->kind == ERR_INVALID ? 2 : 3;
}
