/* Time. Wall time never runs backwards as seen here (a high-water mark), so that a clock that is set back does not
 * revive expired tokens. Everything from http to record takes times as arguments instead of calling this. */
#ifndef SALLYPORT_BASE_CLOCK_H
#define SALLYPORT_BASE_CLOCK_H

#include <stdint.h>

int64_t clock_wall_us(void);  /* microseconds since 1970, not decreasing within a process */
int64_t clock_mono_ms(void);  /* CLOCK_MONOTONIC, milliseconds */
int64_t clock_mono_us(void);

#define CLOCK_TEXT_SIZE 28 /* "2026-11-20T18:08:24.471461Z" and NUL */
void clock_format_utc(int64_t wall_us, char text[CLOCK_TEXT_SIZE]); /* RFC 3339 with microseconds */
/* "1h", "90s", "15m", "7d" or plain seconds; false for anything else or over ten years. */
int clock_parse_duration(const char *text, int64_t *ret_seconds);

#endif
