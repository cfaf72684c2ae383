/* The pool of idle upstream connections on real sockets: who gets which, how many are kept, and what ends them. */
#include "sallyport/proxy/pool.h"

#include <sys/resource.h>

#include "sallyport/auth/identity.h"
#include "sallyport/base/mem.h"
#include "unit/loopback.h"
#include "unit/policies.h"

#define PEERS_MAX (POOL_MAX + 8)

static struct pool *pool;
static const struct policy *policies[2];
static int before, peers[PEERS_MAX], peer_count;

static void
begin(void)
{
    before = open_descriptors();
    loop = loop_new();
    pool = pool_new(loop);
    policies[0] = compile("{\"version\":1,\"networking\":{\"type\":\"limited\",\"allowed_hosts\":[\"a.example.com\"]}}");
    policies[1] = compile("{\"version\":1,\"networking\":{\"type\":\"unrestricted\"}}");
    peer_count = 0;
}

/* The pool's own are closed with it. */
static void
end(void)
{
    pool_free(pool);
    for (int i = 0; i < peer_count; i++)
        if (peers[i] >= 0)
            close(peers[i]);
    for (int i = 0; i < 2; i++)
        policy_unref((struct policy *)(uintptr_t)policies[i]);
    loop_free(loop);
    CHECK(open_descriptors() == before);
}

static struct exchange
asks(const char *sub, int policy, const char *host, uint16_t port)
{
    static struct identity ids[8];
    static struct ask asked[8];
    static int next;
    struct identity *id = &ids[next % 8];
    struct exchange x = {.identity = id, .policy = policies[policy], .ask = &asked[next++ % 8]};
    id->sub = (char *)(uintptr_t)sub;
    CHECK(host_parse(slice_str(host), &x.ask->target.host));
    CHECK(addr_parse(slice_str("192.0.2.1"), &x.address));
    x.ask->target.port = port;
    return x;
}

/* Returns which peer the connection put in has. */
static int
put(const struct exchange *x)
{
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    peers[peer_count] = fds[1];
    pool_put(pool, x, stream_new(loop, fds[0], NULL, NULL));
    return peer_count++;
}

static bool
is_closed(int peer)
{
    char byte;
    return recv(peers[peer], &byte, 1, MSG_DONTWAIT) == 0;
}

/* What the connection says is heard by its peer. */
static bool
takes(const struct exchange *x, int peer)
{
    struct addr address;
    char text[8] = "";
    size_t sent;
    struct stream *s = pool_take(pool, x, &address);
    if (!s)
        return false;
    bool right = addr_equal(&address, &x->address) && stream_write_slice(s, slice_str("mine"), &sent) == STREAM_DONE &&
                 recv(peers[peer], text, sizeof text, MSG_DONTWAIT) == 4;
    stream_free(s);
    return right;
}

TEST(the_newest_of_the_same_sandbox_policy_host_and_port)
{
    begin();
    struct exchange x = asks("sbx-1", 0, "a.example.com", 80);
    int older = put(&x), newer = put(&x);
    CHECK(takes(&x, newer));
    CHECK(takes(&x, older));
    CHECK(!takes(&x, older));
    end();
}

TEST(nobody_else_gets_it)
{
    begin();
    struct exchange x = asks("sbx-1", 0, "a.example.com", 80);
    struct exchange others[] = {
        asks("sbx-2", 0, "a.example.com", 80), asks("sbx", 0, "a.example.com", 80), asks("sbx-1", 1, "a.example.com", 80),
    };
    int mine = put(&x);
    for (size_t i = 0; i < 3; i++)
        CHECK_THAT(!takes(&others[i], mine), "%zu", i);
    struct exchange elsewhere[] = {
        asks("sbx-1", 0, "b.example.com", 80), asks("sbx-1", 0, "a.example.co", 80), asks("sbx-1", 0, "a.example.com", 81),
    };
    for (size_t i = 0; i < 3; i++)
        CHECK_THAT(!takes(&elsewhere[i], mine), "%zu", i);
    CHECK(takes(&x, mine));
    end();
}

/* Where one name ends and the next begins is part of the key. */
TEST(names_that_read_the_same_together_are_two)
{
    begin();
    struct exchange x = asks("b", 0, "example.coma", 80), y = asks("ab", 0, "example.com", 80);
    int mine = put(&x);
    CHECK(!takes(&y, mine));
    CHECK(takes(&x, mine));
    end();
}

TEST(one_key_keeps_no_more_than_its_cap)
{
    begin();
    struct exchange x = asks("sbx-1", 0, "a.example.com", 80);
    for (int i = 0; i < POOL_PER_KEY; i++)
        put(&x);
    int over = put(&x);
    CHECK(is_closed(over));
    CHECK(!is_closed(0));
    CHECK(takes(&x, POOL_PER_KEY - 1));
    CHECK(!is_closed(put(&x)));
    end();
}

TEST(all_keep_no_more_than_the_cap_and_the_oldest_goes)
{
    static char names[PEERS_MAX][16];
    struct rlimit files;
    CHECK(getrlimit(RLIMIT_NOFILE, &files) == 0);
    if (files.rlim_max < 2 * PEERS_MAX + 64)
        SKIP("too few descriptors are allowed here");
    files.rlim_cur = files.rlim_max; /* a shell's usual 1024 are too few */
    CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0);
    begin();
    for (int i = 0; i < POOL_MAX + 2; i++) {
        snprintf(names[i], sizeof names[i], "sbx-%d", i / POOL_PER_KEY);
        struct exchange x = asks(names[i], 0, "a.example.com", 80);
        put(&x);
    }
    CHECK(is_closed(0) && is_closed(1));
    CHECK(!is_closed(2) && !is_closed(POOL_MAX + 1));
    end();
}

TEST(an_end_or_stray_bytes_throw_it_away)
{
    begin();
    struct exchange x = asks("sbx-1", 0, "a.example.com", 80);
    int ends = put(&x), speaks = put(&x), stays = put(&x);
    shutdown(peers[ends], SHUT_WR);
    CHECK(send(peers[speaks], "x", 1, 0) == 1);
    run_loop_for(20);
    CHECK(recv(peers[speaks], &(char){0}, 1, MSG_DONTWAIT) <= 0); /* a reset, as its byte was never read */
    CHECK(takes(&x, stays));
    CHECK(!takes(&x, ends));
    end();
}

TEST(a_flush_leaves_none)
{
    begin();
    struct exchange x = asks("sbx-1", 0, "a.example.com", 80), y = asks("sbx-2", 0, "a.example.com", 80);
    int a = put(&x), b = put(&y);
    pool_flush(pool);
    CHECK(is_closed(a) && is_closed(b));
    CHECK(!takes(&x, a));
    int c = put(&x);
    CHECK(takes(&x, c));
    end();
}

/* One timer serves all: the first that is over must not take a later one with it, nor the last be forgotten. */
TEST(each_ends_at_its_own_time)
{
    begin();
    struct exchange x = asks("sbx-1", 0, "a.example.com", 80);
    int first = put(&x);
    run_loop_for(600);
    int second = put(&x);
    run_loop_for(POOL_IDLE_MS - 300);
    CHECK(is_closed(first));
    CHECK(!is_closed(second));
    run_loop_for(600);
    CHECK(is_closed(second));
    end();
}

static struct stream *busy;
static struct exchange busy_x;

static void
on_busy(void *owner, enum stream_event event)
{
    char text[4];
    size_t n = 0;
    (void)owner, (void)event;
    CHECK(stream_read(busy, text, sizeof text, &n) == STREAM_DONE && n == 4); /* all there was, and as much as was asked for */
    pool_put(pool, &busy_x, busy);
}

TEST(a_connection_whose_last_read_filled_its_buffer_stays)
{
    int fds[2];
    begin();
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    peers[peer_count++] = fds[1];
    busy_x = asks("sbx", 0, "a.example.com", 80);
    busy = stream_new(loop, fds[0], on_busy, NULL);
    stream_want(busy, true, false);
    CHECK(send(fds[1], "last", 4, 0) == 4);
    run_loop_for(50);
    CHECK(!is_closed(0));
    end();
}

