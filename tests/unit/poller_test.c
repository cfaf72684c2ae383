/* Edges of real sockets: told once, never lost, and turns for those that are due. */
#include "sallyport/net/poller.h"

#include <errno.h>

#include "unit/loopback.h"

struct end {
    struct source source;
    int fd;
    unsigned calls, dues;
    unsigned last; /* edges of the last call that had any */
    struct end *forgets; /* the other one, when told */
    bool again_always;
};

static struct poller *poller;
static struct end a, b;

static void
on_edges(struct source *s, unsigned edges)
{
    struct end *e = list_entry(s, struct end, source);
    if (edges == 0) {
        e->dues++;
        if (e->again_always)
            poller_again(poller, &e->source);
        return;
    }
    e->calls++;
    e->last = edges;
    if (e->forgets) {
        poller_forget(poller, &e->forgets->source);
        close(e->forgets->fd);
        e->forgets->fd = -1;
        e->forgets = NULL;
    }
}

static void
begin(void)
{
    int fds[2];
    loop = loop_new();
    poller = loop_poller(loop);
    tcp_pair(fds);
    a = (struct end){.source = {.fn = on_edges}, .fd = fds[0]};
    b = (struct end){.source = {.fn = on_edges}, .fd = fds[1]};
}

static void
end_one(struct end *e)
{
    if (e->fd < 0)
        return;
    poller_forget(poller, &e->source);
    close(e->fd);
}

static void
end(void)
{
    end_one(&a);
    end_one(&b);
    CHECK(poller_is_empty(poller));
    loop_free(loop);
}

TEST(what_is_there_already_is_told_when_it_is_added_and_only_once)
{
    begin();
    CHECK(send(a.fd, "x", 1, 0) == 1);
    poller_add(poller, &a.source, a.fd, false);
    poller_add(poller, &b.source, b.fd, false);
    run_loop_for(20);
    CHECK(b.calls == 1 && b.last == EDGE_IN && a.calls == 0);
    run_loop_for(20);
    CHECK(b.calls == 1); /* unread, and not told again */
    CHECK(send(a.fd, "y", 1, 0) == 1);
    run_loop_for(20);
    CHECK(b.calls == 2);
    end();
}

TEST(an_end_is_told_with_the_bytes_before_it)
{
    begin();
    poller_add(poller, &a.source, a.fd, false);
    poller_add(poller, &b.source, b.fd, false);
    CHECK(send(a.fd, "x", 1, 0) == 1 && shutdown(a.fd, SHUT_WR) == 0);
    run_loop_for(20);
    CHECK(b.last == (EDGE_IN | EDGE_END));
    end();
}

TEST(a_reset_is_an_edge_of_every_kind)
{
    struct linger now = {1, 0};
    begin();
    poller_add(poller, &a.source, a.fd, false);
    poller_add(poller, &b.source, b.fd, false);
    setsockopt(a.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    poller_forget(poller, &a.source);
    close(a.fd);
    a.fd = -1;
    run_loop_for(20);
    CHECK(b.last == (EDGE_IN | EDGE_OUT | EDGE_END));
    end();
}

TEST(urgent_data_is_told_as_an_end_as_it_cuts_reads_short)
{
    char data[16];
    begin();
    poller_add(poller, &a.source, a.fd, false);
    poller_add(poller, &b.source, b.fd, false);
    CHECK(send(a.fd, "ab", 2, 0) == 2 && send(a.fd, "!", 1, MSG_OOB) == 1 && send(a.fd, "cd", 2, 0) == 2);
    run_loop_for(20);
    CHECK(b.last & EDGE_END);
    CHECK(recv(b.fd, data, sizeof data, 0) == 2); /* there is more, and no edge for it */
    CHECK(recv(b.fd, data, sizeof data, 0) == 2);
    end();
}

static void
fill(int fd)
{
    static char bulk[65536];
    while (send(fd, bulk, sizeof bulk, 0) > 0)
        ;
    CHECK(errno == EAGAIN);
}

static void
empty(int fd)
{
    static char bulk[65536];
    while (recv(fd, bulk, sizeof bulk, 0) > 0)
        ;
}

TEST(room_is_told_to_whoever_asked_for_it_before_or_after)
{
    begin();
    poller_add(poller, &a.source, a.fd, false);
    poller_add(poller, &b.source, b.fd, true);
    run_loop_for(20);
    CHECK(a.calls == 0 && b.last == EDGE_OUT); /* there is room from the beginning */
    fill(a.fd);
    empty(b.fd);
    run_loop_for(20);
    CHECK(a.calls == 0); /* nobody asked */
    fill(a.fd);
    poller_add_out(poller, &a.source, a.fd);
    run_loop_for(20);
    unsigned before = a.calls;
    for (int i = 0; i < 50 && a.calls == before; i++) {
        empty(b.fd);
        run_loop_for(5);
    }
    CHECK(a.calls > before && a.last == EDGE_OUT);
    end();
}

TEST(one_that_was_forgotten_inside_the_batch_is_not_called)
{
    begin();
    poller_add(poller, &a.source, a.fd, false);
    poller_add(poller, &b.source, b.fd, false);
    CHECK(send(a.fd, "x", 1, 0) == 1 && send(b.fd, "x", 1, 0) == 1);
    a.forgets = &b;
    run_loop_for(20);
    /* Whichever the kernel named first; the reset that b's unread byte makes of its close is a's second edge. */
    CHECK(a.calls >= 1 && b.calls <= 1);
    end();
}

TEST(who_is_always_due_has_one_turn_and_keeps_nobody_from_his)
{
    begin();
    poller_add(poller, &a.source, a.fd, false);
    poller_add(poller, &b.source, b.fd, false);
    a.again_always = b.again_always = true;
    poller_again(poller, &a.source);
    poller_again(poller, &b.source);
    run_loop_for(20); /* the timer fires all the same */
    CHECK(a.dues > 2 && b.dues > 2 && a.dues - b.dues + 1 <= 2);
    a.again_always = b.again_always = false;
    poller_not_again(poller, &a.source);
    poller_not_again(poller, &b.source);
    CHECK(poller_is_idle(poller));
    end();
}

TEST(a_loop_with_an_edge_to_wait_for_does_not_end)
{
    begin();
    poller_add(poller, &a.source, a.fd, false);
    poller_forget(poller, &a.source);
    close(a.fd);
    a.fd = -1;
    poller_add(poller, &b.source, b.fd, false);
    CHECK(!poller_is_empty(poller));
    run_loop_for(10);
    CHECK(b.last & EDGE_END);
    end();
}
