/* Plays scenario files: once as they stand, then with the bytes of each side split at every offset,
 * byte by byte, with short reads and writes. Prints PASS or FAIL a file. usage: scenario [--once]
 * [-v] FILE… */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fakes/play.h"
#include "sallyport/base/diag.h"
#include "sallyport/base/err.h"

#define SPLITS_ALL 3000 /* bytes of one side that are split at every offset … */
#define SPLITS_SOME 300 /* … and at how many when there are more */

#if defined(__SANITIZE_ADDRESS__)
int __lsan_do_recoverable_leak_check(void);
#else
static int
__lsan_do_recoverable_leak_check(void)
{
    return 0;
}
#endif

struct options {
    bool once, verbose;
};
struct tally {
    size_t plays, failed;
    bool verbose;
};

static bool
fails(const struct script *s, struct staged *st, struct variant v, const char *how, int64_t at,
      struct tally *t)
{
    struct outcome o = {.tell = t->verbose};
    play_script(s, st, v, &o);
    t->plays++;
    if (o.ok)
        return false;
    printf("  %s:%d: %s", s->path, o.line, how);
    if (at >= 0)
        printf(" at %lld", (long long)at);
    printf(": %s\n", o.text);
    return true;
}

static bool
any_split_fails(const struct script *s, struct staged *st, size_t bytes, bool upstream,
                struct tally *t)
{
    size_t step = bytes <= SPLITS_ALL ? 1 : bytes / SPLITS_SOME;
    for (size_t i = 1; i < bytes; i += step) {
        struct variant v = VARIANT_WHOLE;
        *(upstream ? &v.upstream_split : &v.client_split) = (int64_t)i;
        if (fails(s, st, v, upstream ? "the server's bytes split" : "the client's bytes split",
                  (int64_t)i, t))
            return true;
    }
    return false;
}

static bool
play_variants(const struct script *s, struct staged *st, const struct options *o, struct tally *t)
{
    struct outcome first = {0};
    struct variant v = VARIANT_WHOLE;
    if (fails(s, st, v, "as it stands", -1, t))
        return false;
    v.fail_event = true;
    if (fails(s, st, v, "resets told as an event", -1, t))
        return false;
    if (o->once || s->whole)
        return true;
    play_script(s, st, (struct variant)VARIANT_WHOLE, &first);
    v = VARIANT_WHOLE;
    v.bytewise = true;
    if (fails(s, st, v, "byte by byte", -1, t))
        return false;
    v = VARIANT_WHOLE;
    v.read_max = 7;
    if (fails(s, st, v, "seven bytes a call", -1, t))
        return false;
    return !any_split_fails(s, st, first.client_bytes, false, t) &&
           !any_split_fails(s, st, first.upstream_bytes, true, t);
}

static void
play_file(const char *path, const struct options *o, struct tally *t)
{
    struct err err = {0};
    struct staged st;
    struct script *s = script_read(path);
    bool ok = stage_build(&st, s, &err) == 0;
    if (!ok)
        printf("  %s: %s\n", path, err.text);
    size_t before = t->plays;
    ok = ok && play_variants(s, &st, o, t);
    world_reset();
    stage_free(&st);
    if (ok && __lsan_do_recoverable_leak_check()) {
        printf("  %s: memory is lost\n", path);
        ok = false;
    }
    printf("%s %s\n", ok ? "PASS" : "FAIL", s->name);
    if (o->verbose)
        printf("  %zu plays\n", t->plays - before);
    t->failed += !ok;
    script_free(s);
}

int
main(int argc, char **argv)
{
    struct options o = {0};
    struct tally t = {0};
    struct timespec begin, end;
    setvbuf(stdout, NULL, _IOLBF, 0);
    diag_set_level(DIAG_ALARM);
    tokens_init();
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--once") == 0)
            o.once = true;
        else if (strcmp(argv[i], "-v") == 0)
            o.verbose = t.verbose = true;
        else
            play_file(argv[i], &o, &t);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    tokens_done();
    double s = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
    printf("%zu plays in %.1f s, %.0f a second\n", t.plays, s, (double)t.plays / (s > 0 ? s : 1));
    return t.failed ? 1 : 0;
}
