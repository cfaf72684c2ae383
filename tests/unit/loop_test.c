/* The loop: order at the end of a turn, timers, signals, the clock of a turn. */
#include "sallyport/net/loop.h"

#include <signal.h>

#include "sallyport/base/clock.h"
#include "unit/loopback.h"

static char trace[256];
#define TEXT(t) ((void *)(uintptr_t)(t)) /* callbacks take void *; they only read */

static void
note(void *arg)
{
    strcat(trace, arg);
}

static void
begin(void)
{
    trace[0] = '\0';
    loop = loop_new();
}

static struct deferred first, second, third;

static void
note_and_defer(void *arg)
{
    note(arg);
    loop_defer(loop, &third, note, TEXT("3"));
    loop_free_later(loop, TEXT("f"), note);
}

TEST(a_turn_ends_with_deferred_work_then_hooks_then_frees)
{
    begin();
    loop_on_turn_end(loop, note, TEXT("h"));
    loop_on_turn_end(loop, stop_loop, NULL);
    loop_defer(loop, &first, note_and_defer, TEXT("1"));
    loop_defer(loop, &second, note, TEXT("2"));
    loop_run(loop);
    CHECK_THAT(strncmp(trace, "123hf", 5) == 0, "%s", trace);
    loop_free(loop);
}

TEST(cancelled_work_does_not_run)
{
    begin();
    loop_defer(loop, &first, note, TEXT("1"));
    loop_defer(loop, &second, note, TEXT("2"));
    loop_cancel(loop, &first);
    loop_cancel(loop, &first);
    loop_free(loop); /* runs what was deferred */
    CHECK_STR(trace, "2");
}

static int spins;

static void
defer_again(void *arg)
{
    spins++;
    loop_defer(loop, &first, defer_again, arg);
}

TEST(work_that_defers_itself_does_not_keep_timers_from_running)
{
    begin();
    spins = 0;
    loop_defer(loop, &first, defer_again, NULL);
    run_loop_for(20);
    CHECK(spins > 16);
    loop_cancel(loop, &first);
    loop_free(loop);
}

static struct timer early, late;

static void
stop_late(void *arg)
{
    note(arg);
    timer_stop(&late);
    loop_stop(loop);
}

TEST(timers_fire_once_in_order_and_can_be_moved_and_stopped)
{
    struct timer moved = {0};
    begin();
    timer_start(loop, &moved, 1, note, TEXT("m"));
    timer_start(loop, &late, 5, note, TEXT("l"));
    timer_start(loop, &early, 5, stop_late, TEXT("e"));
    timer_start(loop, &moved, 60000, note, TEXT("m")); /* moved out of the way */
    CHECK(timer_running(&moved));
    run_loop(2000);
    CHECK(strchr(trace, 'e') && !strchr(trace, 'm'));
    CHECK(!timer_running(&early) && !timer_running(&late));
    size_t n = strlen(trace);
    run_loop_for(20);
    CHECK(strlen(trace) == n);
    timer_stop(&moved);
    timer_stop(&moved);
    loop_free(loop);
}

static struct timer again;
static int fired;

static void
start_itself(void *arg)
{
    if (++fired < 3)
        timer_start(loop, &again, 1, start_itself, arg);
    else
        loop_stop(loop);
}

TEST(a_timer_may_start_itself)
{
    begin();
    fired = 0;
    timer_start(loop, &again, 0, start_itself, NULL);
    CHECK(fired == 0); /* never from inside the call */
    run_loop(2000);
    CHECK(fired == 3 && !timer_running(&again));
    loop_free(loop);
}

static int64_t seen_first, seen_second;

static void
look_at_clock(void *arg)
{
    (void)arg;
    seen_first = loop_now_ms(loop);
    usleep(5000);
    seen_second = loop_now_ms(loop);
    CHECK(loop_wall_us(loop) == loop_wall_us(loop));
    loop_stop(loop);
}

TEST(time_stands_still_in_a_turn_and_goes_on_in_the_next)
{
    struct timer t = {0};
    begin();
    timer_start(loop, &t, 0, look_at_clock, NULL);
    run_loop(2000);
    int64_t before = seen_first;
    CHECK(seen_first == seen_second);
    timer_start(loop, &t, 0, look_at_clock, NULL);
    run_loop(2000);
    CHECK(seen_first >= before + 5);
    CHECK(seen_first - clock_mono_ms() <= 0 && clock_mono_ms() - seen_first < 1000);
    loop_free(loop);
}

static void
on_signal(void *arg, int signo)
{
    *(int *)arg += signo;
    loop_stop(loop);
}

static struct knock knocks[2];
static int knock_fds[2];

static void
heard(void *arg)
{
    note(arg);
    if (trace[0] && trace[1])
        loop_stop(loop);
    else
        knock_wait(loop, &knocks[0], knock_fds[0], heard, arg);
}

TEST(a_knock_is_heard_once_and_not_after_it_was_stopped)
{
    begin();
    CHECK(pipe(knock_fds) == 0 && write(knock_fds[1], "x", 1) == 1);
    knock_wait(loop, &knocks[0], knock_fds[0], heard, TEXT("k"));
    knock_wait(loop, &knocks[1], knock_fds[0], heard, TEXT("n"));
    knock_stop(&knocks[1]);
    loop_run(loop);
    CHECK_STR(trace, "kk");
    CHECK(!knocks[0].impl && !knocks[1].impl);
    loop_free(loop);
    close(knock_fds[0]);
    close(knock_fds[1]);
}

TEST(signals_arrive_in_the_loop)
{
    int got = 0;
    begin();
    loop_on_signal(loop, SIGUSR1, on_signal, &got);
    raise(SIGUSR1);
    CHECK(got == 0);
    run_loop(2000);
    CHECK(got == SIGUSR1);
    loop_free(loop);
}

TEST(a_closed_pipe_is_an_error_and_no_signal)
{
    int fds[2];
    begin();
    CHECK(pipe(fds) == 0);
    close(fds[0]);
    CHECK(write(fds[1], "x", 1) == -1);
    close(fds[1]);
    loop_free(loop);
}

TEST(a_loop_with_nothing_to_wait_for_ends)
{
    begin();
    CHECK(loop_run(loop) == 1);
    loop_free(loop);
}

TEST(a_loop_leaves_no_descriptor)
{
    int before = open_descriptors();
    begin();
    loop_on_signal(loop, SIGUSR1, on_signal, &fired);
    loop_free(loop);
    CHECK(open_descriptors() == before);
}
