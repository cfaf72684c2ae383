/* The journal against a recorder that is played here: batches of a turn, hand-over, acknowledgement, resending, a full
 * queue, a recorder that says no, stalls or goes away. */
#include "sallyport/proxy/journal.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sallyport/net/channel.h"
#include "sallyport/record/frame.h"
#include "unit/test.h"

struct play {
    struct loop *loop;
    struct journal *journal;
    int fd; /* the recorder's end, read and written directly */
    char frame[CHANNEL_FRAME_MAX + 64];
};

struct wire_head { uint16_t type, fds; uint32_t len; };

static void
begin(struct play *p, enum durability d)
{
    int fds[2];
    CHECK(channel_pair(fds) == 0);
    p->loop = loop_new();
    p->journal = journal_new(p->loop, fds[0], d, RECORD_JSONL);
    p->fd = fds[1];
}

static void
end(struct play *p)
{
    journal_free(p->journal);
    loop_free(p->loop);
    close(p->fd);
}

static void
stop(void *arg)
{
    loop_stop(arg);
}

/* Turns until `ms` have passed. */
static void
run(struct play *p, int ms)
{
    struct timer t = {0};
    timer_start(p->loop, &t, ms, stop, p->loop);
    loop_run(p->loop);
}

static uint64_t
add(struct play *p, const char *id)
{
    struct record r = {.event = RECORD_DECISION, .wall_us = 1, .id = slice_str(id), .allow = true, .reason = REASON_OK};
    return journal_add(p->journal, &r, false);
}

/* The next frame that the recorder would get; 0 when there is none. */
static int
next(struct play *p, struct slice *payload)
{
    ssize_t n = recv(p->fd, p->frame, sizeof p->frame, MSG_DONTWAIT);
    struct wire_head h;
    if (n < (ssize_t)sizeof h)
        return 0;
    memcpy(&h, p->frame, sizeof h);
    *payload = slice_of(p->frame + sizeof h, (size_t)n - sizeof h);
    return h.type;
}

static bool
say(struct play *p, uint16_t type, const void *payload, size_t len)
{
    char bytes[256];
    struct wire_head h = {type, 0, (uint32_t)len};
    memcpy(bytes, &h, sizeof h);
    memcpy(bytes + sizeof h, payload, len);
    return send(p->fd, bytes, sizeof h + len, MSG_DONTWAIT | MSG_NOSIGNAL) > 0;
}

static struct record_batch
next_batch(struct play *p, size_t *ret_items)
{
    struct slice payload, items;
    struct record_batch b = {0};
    struct record_item item;
    *ret_items = 0;
    if (next(p, &payload) != RECORD_FRAME_BATCH || !record_batch_check(payload, &b, &items))
        return (struct record_batch){0};
    while (record_item_next(&items, &item))
        ++*ret_items;
    return b;
}

static void
ack(struct play *p, struct record_batch b)
{
    struct record_ack a = {b.epoch, b.number};
    CHECK(say(p, RECORD_FRAME_ACK, &a, sizeof a));
}

struct outcome { int calls; bool kept; };

static void
on_done(void *owner, bool kept)
{
    struct outcome *o = owner;
    o->calls++;
    o->kept = kept;
}

TEST(a_turn_is_one_frame)
{
    struct play p;
    size_t items;
    begin(&p, DURABILITY_WRITTEN);
    CHECK(add(&p, "a") == 1 && add(&p, "b") == 2 && add(&p, "c") == 3);
    CHECK(!journal_flushed(p.journal));
    run(&p, 1);
    CHECK(journal_flushed(p.journal));
    struct record_batch b = next_batch(&p, &items);
    CHECK(b.number == 1 && items == 3 && b.durability == DURABILITY_WRITTEN);
    CHECK(next_batch(&p, &items).number == 0);
    add(&p, "d");
    run(&p, 1);
    CHECK(next_batch(&p, &items).number == 2 && items == 1);
    end(&p);
}

static uint64_t
add_end(struct play *p)
{
    struct record r = {.event = RECORD_CLOSE, .wall_us = 1, .id = slice_str("e")};
    return journal_add(p->journal, &r, false);
}

static uint64_t
add_refusal(struct play *p)
{
    struct record r = {.event = RECORD_DECISION, .wall_us = 1, .id = slice_str("r"), .reason = REASON_HOST_NOT_ALLOWED};
    return journal_add(p->journal, &r, true);
}

TEST(what_nobody_waits_for_has_a_moment_for_company)
{
    struct play p;
    size_t items;
    begin(&p, DURABILITY_WRITTEN);
    CHECK(add_refusal(&p) == 1);
    run(&p, 1);
    CHECK(next_batch(&p, &items).number == 0 && !journal_flushed(p.journal));
    CHECK(add_end(&p) == 2 && add(&p, "b") == 3);
    run(&p, 0);
    CHECK(next_batch(&p, &items).number == 1 && items == 3 && journal_flushed(p.journal));
    /* And not for long: alone it leaves by itself. */
    CHECK(add_end(&p) == 4);
    run(&p, 30);
    CHECK(next_batch(&p, &items).number == 2 && items == 1 && journal_flushed(p.journal));
    end(&p);
}

/* Whoever waits for what has left already is in no hurry about the next. */
TEST(a_wait_for_a_frame_that_has_left_hurries_nothing)
{
    struct play p;
    size_t items;
    struct outcome kept = {0};
    struct journal_wait w = {0};
    begin(&p, DURABILITY_WRITTEN);
    uint64_t ticket = add(&p, "a");
    run(&p, 0);
    struct record_batch b = next_batch(&p, &items);
    CHECK(b.number == 1 && items == 1);
    journal_wait(p.journal, &w, ticket, false, on_done, &kept);
    run(&p, 0);
    ack(&p, b);
    run(&p, 0);
    CHECK(add_end(&p) == 2);
    run(&p, 1);
    CHECK(kept.calls == 1 && next_batch(&p, &items).number == 0);
    run(&p, 30);
    CHECK(next_batch(&p, &items).number == 2 && items == 1);
    end(&p);
}

TEST(what_is_waited_for_leaves_at_once)
{
    struct play p;
    size_t items;
    struct outcome handed = {0};
    struct journal_wait w = {0};
    begin(&p, DURABILITY_WRITTEN);
    journal_wait(p.journal, &w, add_refusal(&p), true, on_done, &handed);
    run(&p, 0);
    CHECK(next_batch(&p, &items).number == 1 && items == 1 && handed.calls == 1 && handed.kept);
    end(&p);
}

/* Ends that fill frames while nothing else happens are not held back in their thousands. */
TEST(ends_that_fill_a_frame_leave_with_it)
{
    struct play p;
    size_t items;
    begin(&p, DURABILITY_WRITTEN);
    for (int i = 0; i < 2000; i++)
        CHECK(add_end(&p) != 0);
    run(&p, 0);
    CHECK(next_batch(&p, &items).number == 1 && items > 100);
    end(&p);
}

TEST(handed_comes_with_the_hand_over_kept_with_the_acknowledgement)
{
    struct play p;
    size_t items;
    struct outcome handed = {0}, kept = {0};
    struct journal_wait wh = {0}, wk = {0};
    begin(&p, DURABILITY_WRITTEN);
    uint64_t ticket = add(&p, "a");
    journal_wait(p.journal, &wh, ticket, true, on_done, &handed);
    journal_wait(p.journal, &wk, ticket, false, on_done, &kept);
    CHECK(handed.calls == 0);
    run(&p, 1);
    CHECK(handed.calls == 1 && handed.kept && kept.calls == 0);
    struct record_batch b = next_batch(&p, &items);
    /* An acknowledgement of another incarnation is not ours, nor is one that is cut. */
    struct record_ack foreign = {b.epoch + 1, b.number};
    say(&p, RECORD_FRAME_ACK, &foreign, sizeof foreign);
    say(&p, RECORD_FRAME_ACK, &foreign, 3);
    run(&p, 5);
    CHECK(kept.calls == 0);
    ack(&p, b);
    run(&p, 5);
    CHECK(kept.calls == 1 && kept.kept);
    /* What is kept already is told in the next turn. */
    journal_wait(p.journal, &wk, ticket, false, on_done, &kept);
    run(&p, 1);
    CHECK(kept.calls == 2);
    end(&p);
}

TEST(buffered_is_kept_when_handed)
{
    struct play p;
    struct outcome kept = {0};
    struct journal_wait w = {0};
    begin(&p, DURABILITY_BUFFERED);
    journal_wait(p.journal, &w, add(&p, "a"), false, on_done, &kept);
    run(&p, 1);
    CHECK(kept.calls == 1 && kept.kept);
    end(&p);
}

TEST(no_call_after_cancel)
{
    struct play p;
    struct outcome o = {0};
    struct journal_wait w = {0};
    begin(&p, DURABILITY_WRITTEN);
    journal_cancel(&w);
    journal_wait(p.journal, &w, add(&p, "a"), true, on_done, &o);
    journal_cancel(&w);
    journal_cancel(&w);
    run(&p, 5);
    CHECK(o.calls == 0);
    end(&p);
}

/* A waiter that is woken and writes the next record gets on in the same turn. */
struct chain_of_waits { struct play *p; struct journal_wait wait; int step; };

static void
on_step(void *owner, bool kept)
{
    struct chain_of_waits *c = owner;
    CHECK(kept);
    if (++c->step < 4)
        journal_wait(c->p->journal, &c->wait, add(c->p, "x"), true, on_step, c);
}

TEST(who_is_handed_goes_on_in_the_same_turn)
{
    struct play p;
    struct chain_of_waits c = {.p = &p};
    begin(&p, DURABILITY_WRITTEN);
    journal_wait(p.journal, &c.wait, add(&p, "a"), true, on_step, &c);
    struct timer t = {0};
    timer_start(p.loop, &t, 0, stop, p.loop);
    loop_run(p.loop);
    CHECK(c.step == 4);
    end(&p);
}

TEST(ticket_zero_is_refused)
{
    struct play p;
    struct outcome o = {0};
    struct journal_wait w = {0};
    begin(&p, DURABILITY_WRITTEN);
    journal_wait(p.journal, &w, 0, true, on_done, &o);
    CHECK(o.calls == 0);
    run(&p, 1);
    CHECK(o.calls == 1 && !o.kept);
    end(&p);
}

TEST(a_new_recorder_gets_again_what_is_not_acknowledged)
{
    struct play p;
    size_t items;
    struct slice payload;
    uint64_t nonce = 77;
    begin(&p, DURABILITY_WRITTEN);
    for (int i = 0; i < 4; i++) {
        add(&p, "a");
        run(&p, 1);
    }
    struct record_batch one = next_batch(&p, &items), two = next_batch(&p, &items);
    next_batch(&p, &items);
    next_batch(&p, &items);
    ack(&p, two); /* the first two */
    say(&p, RECORD_FRAME_RESYNC, &nonce, sizeof nonce);
    run(&p, 5);
    struct record_sync sync;
    CHECK(next(&p, &payload) == RECORD_FRAME_SYNC && payload.len == sizeof sync);
    memcpy(&sync, payload.ptr, sizeof sync);
    CHECK(sync.nonce == 77 && sync.epoch == one.epoch && sync.first == 3 && sync.last == 4);
    CHECK(next_batch(&p, &items).number == 3);
    struct record_batch four = next_batch(&p, &items);
    CHECK(four.number == 4);
    ack(&p, four);
    say(&p, RECORD_FRAME_RESYNC, &nonce, sizeof nonce);
    run(&p, 5);
    CHECK(next(&p, &payload) == RECORD_FRAME_SYNC);
    memcpy(&sync, payload.ptr, sizeof sync);
    CHECK(sync.last < sync.first);
    CHECK(next(&p, &payload) == 0);
    end(&p);
}

static void
count_lost(void *arg)
{
    size_t *n = arg;
    ++*n;
}

TEST(a_full_queue_keeps_the_rest_and_goes_on)
{
    struct play p;
    size_t lost = 0;
    size_t items, got = 0, batches = 0;
    struct slice payload;
    static char path[1000];
    memset(path, 'p', sizeof path);
    begin(&p, DURABILITY_WRITTEN);
    struct record r = {.event = RECORD_DECISION, .wall_us = 1, .path = slice_of(path, sizeof path), .allow = true};
    size_t taken = 0;
    journal_on_lost(p.journal, count_lost, &lost);
    for (int turn = 0; turn < 300; turn++) {
        for (int i = 0; i < 20; i++)
            taken += journal_add(p.journal, &r, false) != 0;
        run(&p, 0);
    }
    CHECK(!journal_flushed(p.journal)); /* the queue did not hold all */
    CHECK(!journal_available(p.journal));
    CHECK(taken < 6000); /* the cap */
    CHECK(journal_add(p.journal, &r, false) == 0);
    CHECK_THAT(lost == 6001 - taken, "%zu lost, %zu taken", lost, taken);
    for (int round = 0; round < 2000 && got < taken; round++) {
        struct record_batch b = {0}, last = {0};
        while ((b = next_batch(&p, &items)).number) {
            CHECK(b.number == ++batches);
            got += items;
            last = b;
        }
        if (last.number)
            ack(&p, last);
        run(&p, 1);
    }
    CHECK_THAT(got == taken, "%zu of %zu", got, taken);
    CHECK(journal_flushed(p.journal) && journal_available(p.journal));
    CHECK(next(&p, &payload) == 0);
    CHECK(journal_add(p.journal, &r, false) != 0 && lost == 6001 - taken);
    end(&p);
}

TEST(a_recorder_that_cannot_keep_refuses_who_waits)
{
    struct play p;
    struct outcome o = {0};
    struct journal_wait w = {0};
    char no = 0, yes = 1;
    begin(&p, DURABILITY_WRITTEN);
    CHECK(journal_available(p.journal));
    journal_wait(p.journal, &w, add(&p, "a"), false, on_done, &o);
    say(&p, RECORD_FRAME_STATE, &no, 1);
    run(&p, 5);
    CHECK(o.calls == 1 && !o.kept && !journal_available(p.journal));
    /* Records of what is open already are taken nevertheless. */
    uint64_t ticket = add(&p, "b");
    CHECK(ticket != 0);
    journal_wait(p.journal, &w, ticket, true, on_done, &o);
    run(&p, 1);
    CHECK(o.calls == 2 && !o.kept);
    say(&p, RECORD_FRAME_STATE, &yes, 1);
    run(&p, 5);
    CHECK(journal_available(p.journal));
    end(&p);
}

TEST(a_recorder_that_stalls_refuses_who_waits)
{
    struct play p;
    size_t items;
    struct outcome o = {0};
    struct journal_wait w = {0};
    begin(&p, DURABILITY_WRITTEN);
    journal_wait(p.journal, &w, add(&p, "a"), false, on_done, &o);
    run(&p, 3000);
    CHECK(o.calls == 0);
    run(&p, 4000);
    CHECK(o.calls == 1 && !o.kept && !journal_available(p.journal));
    ack(&p, next_batch(&p, &items));
    run(&p, 5);
    CHECK(journal_available(p.journal));
    end(&p);
}

TEST(a_recorder_that_is_gone_refuses_all)
{
    struct play p;
    struct outcome o = {0};
    struct journal_wait w = {0};
    begin(&p, DURABILITY_WRITTEN);
    journal_wait(p.journal, &w, add(&p, "a"), false, on_done, &o);
    shutdown(p.fd, SHUT_RDWR);
    run(&p, 5);
    CHECK(o.calls == 1 && !o.kept && !journal_available(p.journal) && journal_flushed(p.journal));
    CHECK(add(&p, "b") == 0);
    end(&p);
}

TEST(a_changed_durability_begins_a_new_frame)
{
    struct play p;
    size_t items;
    begin(&p, DURABILITY_WRITTEN);
    add(&p, "a");
    journal_set(p.journal, DURABILITY_SYNCED, RECORD_JSONL);
    add(&p, "b");
    run(&p, 1);
    CHECK(next_batch(&p, &items).durability == DURABILITY_WRITTEN && items == 1);
    CHECK(next_batch(&p, &items).durability == DURABILITY_SYNCED && items == 1);
    end(&p);
}

TEST(large_records_fill_frames_without_breaking)
{
    struct play p;
    size_t items, got = 0;
    static char path[1000];
    memset(path, '\x01', sizeof path); /* six bytes each when escaped */
    begin(&p, DURABILITY_WRITTEN);
    struct record r = {.event = RECORD_DECISION, .wall_us = 1, .path = slice_of(path, sizeof path), .host = slice_of(path, sizeof path)};
    for (int i = 0; i < 20; i++)
        CHECK(journal_add(p.journal, &r, true) != 0);
    run(&p, 1);
    while (next_batch(&p, &items).number)
        got += items;
    CHECK(got == 20);
    end(&p);
}
