/* Time texts against gmtime, durations, and ids. */
#include "unit/test.h"

#include <time.h>

#include "sallyport/base/clock.h"
#include "sallyport/base/random.h"

static void
compare_with_libc(int64_t seconds)
{
    char text[CLOCK_TEXT_SIZE], expected[64];
    time_t t = (time_t)seconds;
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(expected, sizeof expected, "%Y-%m-%dT%H:%M:%S.000042Z", &tm);
    clock_format_utc(seconds * 1000000 + 42, text);
    CHECK_STR(text, expected);
}

TEST(format_agrees_with_libc)
{
    for (int64_t day = 0; day < 2932896; day += day < 60000 ? 1 : 97) /* to the end of 9999 */
        compare_with_libc(day * 86400 + day % 86400);
    compare_with_libc(0);
    compare_with_libc(951782400);  /* 2000-02-29 */
    compare_with_libc(4107542399); /* 2100-02-28, no leap year */
    compare_with_libc(253402300799);
}

TEST(format_clamps)
{
    char text[CLOCK_TEXT_SIZE];
    clock_format_utc(-1, text);
    CHECK_STR(text, "1970-01-01T00:00:00.000000Z");
    clock_format_utc(INT64_MAX, text);
    CHECK_STR(text, "9999-12-31T23:59:59.999999Z");
    clock_format_utc(1795198104471461, text);
    CHECK_STR(text, "2026-11-20T18:08:24.471461Z");
}

TEST(durations)
{
    static const char *const bad[] = {"",      "s",        "-1s", "1.5h", "1 h",
                                      "01h",   "1hh",      "1w",  "h1",   "99999999999999999999",
                                      "3651d", "315360001"};
    int64_t s = 7;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_THAT(!clock_parse_duration(bad[i], &s) && s == 7, "%s", bad[i]);
    CHECK(clock_parse_duration("90s", &s) && s == 90);
    CHECK(clock_parse_duration("15m", &s) && s == 900);
    CHECK(clock_parse_duration("1h", &s) && s == 3600);
    CHECK(clock_parse_duration("3650d", &s) && s == 3650LL * 86400);
    CHECK(clock_parse_duration("120", &s) && s == 120);
    CHECK(clock_parse_duration("0", &s) && s == 0);
}

TEST(clocks_go_forward)
{
    int64_t wall = clock_wall_us(), mono = clock_mono_us();
    for (int i = 0; i < 1000; i++) {
        int64_t next_wall = clock_wall_us(), next_mono = clock_mono_us();
        CHECK(next_wall >= wall && next_mono >= mono);
        wall = next_wall;
        mono = next_mono;
    }
    CHECK(wall / 1000000 > 1700000000);
}

TEST(ulids)
{
    char a[ULID_TEXT_SIZE], b[ULID_TEXT_SIZE];
    random_ulid(1469918176385, a); /* the specification's example of a time */
    CHECK(strncmp(a, "01ARYZ6S41", 10) == 0 && strlen(a) == 26);
    CHECK(strspn(a, "0123456789ABCDEFGHJKMNPQRSTVWXYZ") == 26);
    for (int i = 0; i < 500; i++) {
        random_ulid(1469918176385, b);
        CHECK(strcmp(a, b) != 0);
        memcpy(a, b, sizeof a);
    }
    random_ulid(1469918176386, b);
    CHECK(strncmp(a, b, 10) < 0);
}
