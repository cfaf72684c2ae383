/* The shared mapping: counts, budgets over workers, what a dead worker gives back, a full table, recent refusals. */
#include "sallyport/proxy/shared.h"

#include <sys/wait.h>
#include <unistd.h>

#include "unit/test.h"

static struct shared *
fresh(int *ret_fd)
{
    int fd = shared_create();
    CHECK(fd >= 0);
    struct shared *s = shared_map(fd, true);
    CHECK(s != NULL);
    *ret_fd = fd;
    return s;
}

static void
done(struct shared *s, int fd)
{
    shared_unmap(s);
    close(fd);
}

TEST(counters_are_seen_by_all)
{
    int fd;
    struct shared *s = fresh(&fd), *reader = shared_map(fd, false);
    pid_t pid = fork();
    if (pid == 0) {
        for (int i = 0; i < 1000; i++)
            shared_add(s, COUNTER_BYTES_UP, 3);
        _exit(0);
    }
    for (int i = 0; i < 1000; i++)
        shared_add(s, COUNTER_BYTES_UP, 3);
    waitpid(pid, NULL, 0);
    CHECK(shared_get(reader, COUNTER_BYTES_UP) == 6000);
    shared_set(s, COUNTER_POLICY_GENERATION, 7);
    CHECK(shared_get(reader, COUNTER_POLICY_GENERATION) == 7);
    shared_count_request(s, true, REASON_OK);
    shared_count_request(s, false, REASON_HOST_NOT_ALLOWED);
    shared_count_request(s, false, (enum reason)100000);
    CHECK(shared_requests(reader, true, REASON_OK) == 1 && shared_requests(reader, false, REASON_HOST_NOT_ALLOWED) == 1);
    CHECK(shared_requests(reader, false, (enum reason)100000) == 0);
    shared_unmap(reader);
    done(s, fd);
}

TEST(histograms)
{
    int fd;
    struct shared *s = fresh(&fd);
    uint64_t counts[SHARED_BUCKETS + 1], sum, count;
    shared_observe(s, HISTOGRAM_CONNECT, 100);
    shared_observe(s, HISTOGRAM_CONNECT, 101);
    shared_observe(s, HISTOGRAM_CONNECT, -5);
    shared_observe(s, HISTOGRAM_CONNECT, INT64_C(1) << 40);
    shared_histogram(s, HISTOGRAM_CONNECT, counts, &sum, &count);
    CHECK(count == 4 && counts[0] == 2 && counts[1] == 1 && counts[SHARED_BUCKETS] == 1);
    CHECK(sum == 201 + (UINT64_C(1) << 40));
    shared_histogram(s, HISTOGRAM_DECISION, counts, &sum, &count);
    CHECK(count == 0);
    done(s, fd);
}

TEST(tunnels_are_counted_over_workers)
{
    int fd;
    struct shared *s = fresh(&fd);
    struct budget_limits two = {.tunnels = 2}, none = {0};
    struct slice box = slice_str("sbx-1"), other = slice_str("sbx-2");
    CHECK(shared_open_tunnel(s, 0, box, &two) == REASON_OK);
    CHECK(shared_open_tunnel(s, 1, box, &two) == REASON_OK);
    CHECK(shared_open_tunnel(s, 2, box, &two) == REASON_LIMIT_TUNNELS);
    CHECK(shared_open_tunnel(s, 2, other, &two) == REASON_OK);
    CHECK(shared_open_tunnel(s, 2, box, &none) == REASON_OK);
    shared_close_tunnel(s, 2, box);
    shared_close_tunnel(s, 1, box);
    CHECK(shared_open_tunnel(s, 2, box, &two) == REASON_OK);
    /* One that this worker does not have takes nothing from the others. */
    shared_close_tunnel(s, 5, box);
    shared_close_tunnel(s, 1, box);
    CHECK(shared_open_tunnel(s, 2, box, &two) == REASON_LIMIT_TUNNELS);
    done(s, fd);
}

TEST(a_dead_workers_tunnels_come_back)
{
    int fd;
    struct shared *s = fresh(&fd);
    struct budget_limits two = {.tunnels = 2};
    struct slice box = slice_str("sbx-1");
    shared_add(s, COUNTER_TUNNELS_OPENED, 2);
    CHECK(shared_open_tunnel(s, 3, box, &two) == REASON_OK);
    CHECK(shared_open_tunnel(s, 4, box, &two) == REASON_OK);
    shared_worker_gone(s, 3);
    CHECK(shared_get(s, COUNTER_TUNNELS_CLOSED) == 1);
    CHECK(shared_open_tunnel(s, 3, box, &two) == REASON_OK);
    CHECK(shared_open_tunnel(s, 3, box, &two) == REASON_LIMIT_TUNNELS);
    shared_worker_gone(s, SHARED_WORKERS_MAX + 5);
    done(s, fd);
}

TEST(requests_a_minute)
{
    int fd;
    struct shared *s = fresh(&fd);
    struct budget_limits three = {.requests_per_minute = 3}, none = {0};
    struct slice box = slice_str("sbx-1");
    for (int i = 0; i < 3; i++)
        CHECK(shared_begin_request(s, box, &three, 6000) == REASON_OK);
    CHECK(shared_begin_request(s, box, &three, 6001) == REASON_LIMIT_REQUESTS);
    CHECK(shared_begin_request(s, slice_str("sbx-2"), &three, 6001) == REASON_OK);
    CHECK(shared_begin_request(s, box, &none, 6001) == REASON_OK);
    CHECK(shared_begin_request(s, box, &three, 6060) == REASON_OK);
    done(s, fd);
}

TEST(bytes_run_out)
{
    int fd;
    struct shared *s = fresh(&fd);
    struct budget_limits l = {.bytes_up = 100}, none = {0};
    struct slice box = slice_str("sbx-1");
    CHECK(shared_spend_bytes(s, box, &l, 0));
    CHECK(shared_spend_bytes(s, box, &l, 60));
    CHECK(shared_spend_bytes(s, box, &l, 40));
    CHECK(!shared_spend_bytes(s, box, &l, 0));
    CHECK(!shared_spend_bytes(s, box, &l, 1));
    CHECK(shared_spend_bytes(s, box, &none, UINT64_C(1) << 40));
    done(s, fd);
}

TEST(a_full_table_limits_and_never_frees)
{
    int fd, refused = 0;
    struct shared *s = fresh(&fd);
    struct budget_limits l = {.tunnels = 10, .requests_per_minute = 1000}, none = {0};
    char name[32];
    for (int i = 0; i < 3 * SHARED_SANDBOXES; i++) {
        snprintf(name, sizeof name, "box-%d", i);
        enum reason r = shared_open_tunnel(s, 0, slice_str(name), &l);
        CHECK(r == REASON_OK || r == REASON_LIMIT_TUNNELS);
        refused += r != REASON_OK;
    }
    CHECK(refused >= 2 * SHARED_SANDBOXES);
    CHECK(shared_begin_request(s, slice_str("latecomer"), &l, 60) == REASON_LIMIT_REQUESTS);
    CHECK(shared_open_tunnel(s, 0, slice_str("latecomer"), &none) == REASON_OK);
    /* Its slot is nobody's, so closing takes nothing from anybody. */
    shared_close_tunnel(s, 0, slice_str("latecomer"));
    CHECK(!shared_spend_bytes(s, slice_str("latecomer"), &(struct budget_limits){.bytes_up = 1000}, 1));
    done(s, fd);
}

TEST(idle_sandboxes_make_room)
{
    int fd;
    struct shared *s = fresh(&fd);
    struct budget_limits l = {.requests_per_minute = 10};
    char name[32];
    for (int i = 0; i < 2 * SHARED_SANDBOXES; i++) {
        snprintf(name, sizeof name, "box-%d", i);
        shared_begin_request(s, slice_str(name), &l, 60);
    }
    CHECK(shared_begin_request(s, slice_str("late"), &l, 61) == REASON_LIMIT_REQUESTS);
    CHECK(shared_begin_request(s, slice_str("late"), &l, 60 + 61) == REASON_OK);
    done(s, fd);
}

static unsigned
take_leaves(struct shared *s, const char *box, unsigned most, int64_t at_us)
{
    unsigned n = 0;
    while (n < most && shared_take_leaf(s, slice_str(box), at_us))
        n++;
    return n;
}

TEST(leaves_have_a_share_for_each_sandbox)
{
    int fd;
    const int64_t s1 = 1000000, t = 5000 * s1;
    struct shared *s = fresh(&fd);
    CHECK(shared_leaves_left(s, slice_str("sbx-1"), t));
    CHECK(take_leaves(s, "sbx-1", 10000, t) == SHARED_LEAVES_BURST);
    CHECK(!shared_leaves_left(s, slice_str("sbx-1"), t) && shared_leaves_left(s, slice_str("sbx-2"), t));
    CHECK(take_leaves(s, "sbx-1", 10000, t - s1 / 100) == 0); /* another worker, whose turn began a little earlier */
    CHECK(take_leaves(s, "sbx-2", 10, t) == 10);
    CHECK(take_leaves(s, "sbx-1", 10000, t + s1) == SHARED_LEAVES_PER_S);
    CHECK(take_leaves(s, "sbx-1", 10000, t + 3600 * s1) == SHARED_LEAVES_BURST);
    /* A clock that was set back does not lock anybody out. */
    CHECK(take_leaves(s, "sbx-1", 10000, t + 60 * s1) == SHARED_LEAVES_BURST);
    done(s, fd);
}

TEST(leaves_are_counted_over_workers)
{
    int fd;
    struct shared *s = fresh(&fd);
    pid_t pid = fork();
    if (pid == 0)
        _exit(take_leaves(s, "sbx-1", 100, 6000000) == 100 ? 0 : 1);
    unsigned mine = take_leaves(s, "sbx-1", 100, 6000000);
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0 && mine == 100);
    CHECK(take_leaves(s, "sbx-1", 10000, 6000000) == SHARED_LEAVES_BURST - 200);
    done(s, fd);
}

TEST(guessing_is_limited_by_address)
{
    int fd;
    struct shared *s = fresh(&fd);
    struct slice one = slice_str("192.0.2.1"), two = slice_str("192.0.2.2");
    for (int i = 0; i < SHARED_FAILED_TOKENS_PER_MINUTE; i++) {
        CHECK(!shared_failed_tokens_limited(s, one, 600));
        shared_note_failed_token(s, one, 600);
    }
    CHECK(shared_failed_tokens_limited(s, one, 600));
    CHECK(!shared_failed_tokens_limited(s, two, 600));
    CHECK(!shared_failed_tokens_limited(s, one, 660));
    /* A crowd of addresses does not push out the one that guesses most. */
    char name[32];
    for (int i = 0; i < 50000; i++) {
        snprintf(name, sizeof name, "10.%d.%d.%d", i >> 16, (i >> 8) & 255, i & 255);
        shared_note_failed_token(s, slice_str(name), 600);
    }
    CHECK(shared_failed_tokens_limited(s, one, 600));
    done(s, fd);
}

TEST(recent_refusals_newest_last)
{
    int fd;
    struct shared *s = fresh(&fd);
    struct denial *out = calloc(SHARED_DENIALS, sizeof *out);
    CHECK(shared_denials(s, out, SHARED_DENIALS) == 0);
    for (int i = 0; i < SHARED_DENIALS + 10; i++) {
        struct denial d = {.wall_us = i, .port = (uint16_t)i, .reason = REASON_HOST_NOT_ALLOWED};
        memset(d.host, 'h', sizeof d.host); /* no NUL: the reader ends it */
        shared_denial(s, &d);
    }
    CHECK(shared_denials(s, out, SHARED_DENIALS) == SHARED_DENIALS);
    CHECK(out[0].wall_us == 10 && out[SHARED_DENIALS - 1].wall_us == SHARED_DENIALS + 9);
    CHECK(strlen(out[0].host) == sizeof out[0].host - 1);
    CHECK(shared_denials(s, out, 3) == 3 && out[2].wall_us == SHARED_DENIALS + 9);
    free(out);
    done(s, fd);
}

TEST(the_checkpoint_is_kept)
{
    int fd;
    struct shared *s = fresh(&fd);
    char hash[65], want[65];
    CHECK(shared_checkpoint(s, hash) == 0);
    memset(want, 'a', 64);
    want[64] = '\0';
    shared_set_checkpoint(s, 42, want);
    CHECK(shared_checkpoint(s, hash) == 42);
    CHECK_STR(hash, want);
    done(s, fd);
}
