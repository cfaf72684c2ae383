/* Diagnostics on standard error: one line, one write(2), whatever the arguments hold. The only
 * writer to standard error beside the commands' own last word. */
#include "sallyport/base/diag.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE_MAX_TEXT 1024 /* below PIPE_BUF, so that lines of several processes do not mix */

static const char *diag_role = "";
static enum diag_level diag_limit = DIAG_NOTICE;

void
diag_set_role(const char *role)
{
    diag_role = role;
}

void
diag_set_level(enum diag_level level)
{
    diag_limit = level;
}

static const char *
level_text(enum diag_level level)
{
    switch (level) {
    case DIAG_ALARM:
        return "alarm";
    case DIAG_WARNING:
        return "warning";
    case DIAG_NOTICE:
        return "notice";
    case DIAG_DEBUG:
        return "debug";
    }
    return "unknown";
}

static bool
is_on(enum diag_level level)
{
    static int debug = -1;
    if (debug < 0) {
        const char *value = getenv("SALLYPORT_DEBUG");
        debug = value && strcmp(value, "1") == 0;
    }
    return level <= diag_limit || debug;
}

/* Escapes what is not printable ASCII as \xHH; returns the length, cut at what fits. */
static size_t
put_printable(char *out, size_t size, const char *text)
{
    static const char digits[] = "0123456789abcdef";
    size_t len = 0;
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (size - len < 4)
            break;
        if (c >= 0x20 && c <= 0x7e) {
            out[len++] = (char)c;
            continue;
        }
        out[len++] = '\\';
        out[len++] = 'x';
        out[len++] = digits[c >> 4];
        out[len++] = digits[c & 0x0f];
    }
    return len;
}

void
diag(enum diag_level level, const char *fmt, ...)
{
    char text[LINE_MAX_TEXT], line[LINE_MAX_TEXT + 64];
    if (!is_on(level))
        return;
    va_list args;
    va_start(args, fmt);
    int wanted = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (wanted < 0)
        return;
    int head = diag_role[0]
                   ? snprintf(line, 64, "sallyport[%.32s]: %s: ", diag_role, level_text(level))
                   : snprintf(line, 64, "sallyport: %s: ", level_text(level));
    size_t len = (size_t)head;
    len += put_printable(line + len, sizeof line - len - 4, text);
    if ((size_t)wanted >= sizeof text) {
        memcpy(line + len, "...", 3);
        len += 3;
    }
    line[len++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, len); /* nobody is left to tell */
    (void)ignored;
}
