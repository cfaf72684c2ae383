/* Time: wall time that does not run backwards within a process, monotonic time, and their text
 * forms. */
#include "sallyport/base/clock.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "sallyport/base/slice.h"

#define DURATION_MAX_S (10LL * 365 * 86400)
#define WALL_MAX_US                                                                                \
    253402300799999999LL /* 9999-12-31T23:59:59.999999Z: the last with four digits of year */

static int64_t
read_us(clockid_t id)
{
    struct timespec ts;
    if (clock_gettime(id, &ts) != 0)
        abort(); /* both clocks always exist on Linux */
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t
clock_wall_us(void)
{
    static _Atomic int64_t high;
    int64_t now = read_us(CLOCK_REALTIME);
    int64_t seen = atomic_load_explicit(&high, memory_order_relaxed);
    while (now > seen) {
        if (atomic_compare_exchange_weak(&high, &seen, now))
            return now;
    }
    return seen;
}

int64_t
clock_mono_us(void)
{
    return read_us(CLOCK_MONOTONIC);
}

int64_t
clock_mono_ms(void)
{
    return clock_mono_us() / 1000;
}

static void
put_digits(char *at, unsigned value, int digits)
{
    while (digits-- > 0) {
        at[digits] = (char)('0' + value % 10);
        value /= 10;
    }
}

struct civil {
    unsigned year, month, day;
};

/* Days since 1970 to a proleptic Gregorian date, counted in 400-year eras of 146,097 days that
 * begin on 1 March, which puts the leap day last. No libc: gmtime_r takes the time zone lock, and a
 * record is written for every request. */
static struct civil
civil_from_days(unsigned days)
{
    unsigned since = days + 719468; /* days from 0000-03-01 to 1970-01-01 */
    unsigned era = since / 146097, in_era = since % 146097;
    unsigned year = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    unsigned in_year = in_era - (365 * year + year / 4 - year / 100);
    unsigned shifted = (5 * in_year + 2) / 153; /* March is 0 */
    unsigned month = shifted < 10 ? shifted + 3 : shifted - 9;
    unsigned day = in_year - (153 * shifted + 2) / 5 + 1;
    return (struct civil){era * 400 + year + (month <= 2), month, day};
}

/* All but the fraction, which is left at zeros. */
static void
format_second(int64_t seconds, char text[CLOCK_TEXT_SIZE])
{
    unsigned in_day = (unsigned)(seconds % 86400);
    struct civil date = civil_from_days((unsigned)(seconds / 86400));
    memcpy(text, "0000-00-00T00:00:00.000000Z", CLOCK_TEXT_SIZE);
    put_digits(text, date.year, 4);
    put_digits(text + 5, date.month, 2);
    put_digits(text + 8, date.day, 2);
    put_digits(text + 11, in_day / 3600, 2);
    put_digits(text + 14, in_day / 60 % 60, 2);
    put_digits(text + 17, in_day % 60, 2);
}

void
clock_format_utc(int64_t wall_us, char text[CLOCK_TEXT_SIZE])
{
    /* Of thousands of records a second, only the fraction differs. */
    static _Thread_local int64_t last_second = -1;
    static _Thread_local char last_text[CLOCK_TEXT_SIZE];
    if (wall_us < 0)
        wall_us = 0;
    if (wall_us > WALL_MAX_US)
        wall_us = WALL_MAX_US;
    if (wall_us / 1000000 != last_second) {
        last_second = wall_us / 1000000;
        format_second(last_second, last_text);
    }
    memcpy(text, last_text, CLOCK_TEXT_SIZE);
    put_digits(text + 20, (unsigned)(wall_us % 1000000), 6);
}

static int64_t
unit_seconds(char unit)
{
    switch (unit) {
    case 's':
        return 1;
    case 'm':
        return 60;
    case 'h':
        return 3600;
    case 'd':
        return 86400;
    default:
        return 0;
    }
}

int
clock_parse_duration(const char *text, int64_t *ret_seconds)
{
    struct slice s = slice_str(text);
    int64_t unit = s.len > 0 ? unit_seconds(s.ptr[s.len - 1]) : 0;
    if (unit != 0)
        s.len--;
    else
        unit = 1;
    unsigned long long count;
    if (!slice_parse_uint(s, (unsigned long long)(DURATION_MAX_S / unit), &count))
        return 0;
    *ret_seconds = (int64_t)count * unit;
    return 1;
}
