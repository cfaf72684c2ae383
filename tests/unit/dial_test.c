/* Dialling: order, the next attempt, the most significant failure, cancelling. The guard's part is played here: this test
 * makes endpoints of loopback addresses itself and links no guard. */
#include "sallyport/net/dial.h"

#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "sallyport/base/mem.h"
#include "unit/loopback.h"

struct endpoint {
    struct sockaddr_storage sa;
    socklen_t len;
};
struct endpoints {
    size_t count;
    struct endpoint list[64];
};

static int endpoints_alive;

size_t
endpoints_count(const struct endpoints *e)
{
    return e->count;
}

const struct endpoint *
endpoints_at(const struct endpoints *e, size_t i)
{
    return &e->list[i];
}

void
endpoints_free(struct endpoints *e)
{
    endpoints_alive--;
    free(e);
}

const struct sockaddr *
endpoint_sockaddr(const struct endpoint *e, socklen_t *ret_len)
{
    *ret_len = e->len;
    return (const struct sockaddr *)&e->sa;
}

struct addr
endpoint_addr(const struct endpoint *e)
{
    struct addr a = {0};
    uint16_t port;
    addr_from_sockaddr((const struct sockaddr *)&e->sa, &a, &port);
    return a;
}

static struct endpoints *
endpoints_make(void)
{
    endpoints_alive++;
    return mem_zalloc(sizeof(struct endpoints));
}

static void
add(struct endpoints *e, const char *address, uint16_t port)
{
    struct addr a;
    CHECK(addr_parse(slice_str(address), &a));
    struct endpoint *p = &e->list[e->count++];
    p->len = addr_to_sockaddr(&a, port, &p->sa);
}

static int done_count;
static enum reason done_reason;
static struct stream *done_stream;
static char done_address[ADDR_TEXT_SIZE];

static void
on_done(void *owner, enum reason reason, struct stream *stream, const struct addr *address)
{
    (void)owner;
    done_count++;
    done_reason = reason;
    done_stream = stream;
    done_address[0] = '\0';
    if (address)
        addr_format(address, done_address);
    CHECK((reason == REASON_OK) == (stream != NULL));
    loop_stop(loop);
}

static struct endpoints *
begin(void)
{
    loop = loop_new();
    done_count = 0;
    done_stream = NULL;
    return endpoints_make();
}

static void
end(void)
{
    stream_free(done_stream);
    loop_free(loop);
    CHECK(endpoints_alive == 0);
}

/* A port of loopback on which nobody listens. */
static uint16_t
closed_port(void)
{
    uint16_t port;
    close(listen_on_loopback(&port, 1));
    return port;
}

/* A listener whose queue is full, so that a connect to it hangs. */
static int
deaf_listener(uint16_t *ret_port, int fill[4])
{
    int fd = listen_on_loopback(ret_port, 0);
    for (int i = 0; i < 4; i++) {
        struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(*ret_port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(fill[i], (struct sockaddr *)&sa, sizeof sa);
    }
    usleep(20000);
    return fd;
}

TEST(a_connection_comes_from_the_loop)
{
    uint16_t port;
    int before = open_descriptors();
    int listening = listen_on_loopback(&port, 10);
    struct endpoints *e = begin();
    add(e, "127.0.0.1", port);
    dial_start(loop, e, 2000, on_done, NULL);
    CHECK(done_count == 0);
    run_loop(3000);
    CHECK(done_count == 1 && done_reason == REASON_OK);
    CHECK_STR(done_address, "127.0.0.1");
    int client = accept(listening, NULL, NULL);
    CHECK(client >= 0 && stream_raw_fd(done_stream) >= 0);
    close(client);
    close(listening);
    end();
    CHECK(open_descriptors() == before);
}

TEST(a_refusal_is_said)
{
    struct endpoints *e = begin();
    add(e, "127.0.0.1", closed_port());
    dial_start(loop, e, 2000, on_done, NULL);
    run_loop(3000);
    CHECK(done_count == 1 && done_reason == REASON_UPSTREAM_REFUSED);
    end();
}

TEST(after_a_refusal_the_next_is_tried_at_once)
{
    uint16_t port;
    int listening = listen_on_loopback(&port, 10);
    struct endpoints *e = begin();
    add(e, "127.0.0.2", closed_port());
    add(e, "127.0.0.3", closed_port());
    add(e, "127.0.0.1", port);
    int64_t start = loop_now_ms(loop);
    dial_start(loop, e, 2000, on_done, NULL);
    run_loop(3000);
    CHECK(done_reason == REASON_OK && loop_now_ms(loop) - start < 200);
    CHECK_STR(done_address, "127.0.0.1");
    close(listening);
    end();
}

TEST(a_silent_server_is_overtaken_after_a_quarter_second)
{
    uint16_t port, deaf;
    int fill[4], before = open_descriptors();
    int listening = listen_on_loopback(&port, 10), silent = deaf_listener(&deaf, fill);
    struct endpoints *e = begin();
    add(e, "127.0.0.1", deaf);
    add(e, "127.0.0.1", port);
    int64_t start = loop_now_ms(loop);
    dial_start(loop, e, 5000, on_done, NULL);
    run_loop(6000);
    int64_t took = loop_now_ms(loop) - start;
    CHECK_THAT(done_reason == REASON_OK && took >= 240 && took < 1000, "%d after %lld ms", (int)done_reason, (long long)took);
    close(listening);
    close(silent);
    for (int i = 0; i < 4; i++)
        close(fill[i]);
    end();
    CHECK(open_descriptors() == before);
}

TEST(the_time_is_up_once)
{
    uint16_t deaf;
    int fill[4], silent = deaf_listener(&deaf, fill);
    struct endpoints *e = begin();
    add(e, "127.0.0.1", deaf);
    dial_start(loop, e, 60, on_done, NULL);
    run_loop(3000);
    CHECK(done_count == 1 && done_reason == REASON_UPSTREAM_TIMEOUT);
    run_loop_for(300);
    CHECK(done_count == 1);
    close(silent);
    for (int i = 0; i < 4; i++)
        close(fill[i]);
    end();
}

TEST(a_refusal_says_more_than_a_timeout)
{
    uint16_t deaf;
    int fill[4], silent = deaf_listener(&deaf, fill);
    struct endpoints *e = begin();
    add(e, "127.0.0.1", closed_port());
    add(e, "127.0.0.1", deaf);
    dial_start(loop, e, 100, on_done, NULL);
    run_loop(3000);
    CHECK(done_reason == REASON_UPSTREAM_REFUSED);
    close(silent);
    for (int i = 0; i < 4; i++)
        close(fill[i]);
    end();
}

TEST(no_route_is_unreachable)
{
    struct endpoints *e = begin();
    add(e, "255.255.255.255", 80); /* EACCES or ENETUNREACH at once, without a packet */
    dial_start(loop, e, 2000, on_done, NULL);
    CHECK(done_count == 0);
    run_loop(3000);
    CHECK(done_reason == REASON_UPSTREAM_UNREACHABLE);
    end();
    e = begin(); /* and so is an empty list */
    dial_start(loop, e, 2000, on_done, NULL);
    run_loop(3000);
    CHECK(done_reason == REASON_UPSTREAM_UNREACHABLE);
    end();
}

TEST(without_descriptors_it_is_our_overload)
{
    struct rlimit was, none;
    int spare[1100], count = 0;
    struct endpoints *e = begin();
    add(e, "127.0.0.1", 1);
    add(e, "127.0.0.1", 2);
    getrlimit(RLIMIT_NOFILE, &was);
    none = was;
    none.rlim_cur = 1024;
    setrlimit(RLIMIT_NOFILE, &none);
    while (count < 1100 && (spare[count] = dup(0)) >= 0)
        count++;
    dial_start(loop, e, 2000, on_done, NULL);
    run_loop(3000);
    while (count > 0)
        close(spare[--count]);
    setrlimit(RLIMIT_NOFILE, &was);
    CHECK(done_reason == REASON_OVERLOADED);
    end();
}

TEST(a_cancelled_dial_calls_nobody_and_leaves_nothing)
{
    uint16_t port, deaf;
    int fill[4], before = open_descriptors();
    int listening = listen_on_loopback(&port, 10), silent = deaf_listener(&deaf, fill);
    struct endpoints *e = begin();
    add(e, "127.0.0.1", deaf);
    add(e, "127.0.0.1", port);
    struct dial *d = dial_start(loop, e, 2000, on_done, NULL);
    run_loop_for(5);
    dial_cancel(d);
    dial_cancel(d);
    run_loop_for(300);
    e = endpoints_make();
    dial_cancel(dial_start(loop, e, 2000, on_done, NULL)); /* whose end is deferred */
    run_loop_for(5);
    CHECK(done_count == 0);
    close(listening);
    close(silent);
    for (int i = 0; i < 4; i++)
        close(fill[i]);
    end();
    CHECK(open_descriptors() == before);
}

static struct dial *own;

static void
cancel_own(void *owner, enum reason reason, struct stream *stream, const struct addr *address)
{
    dial_cancel(own); /* too late, and harmless */
    on_done(owner, reason, stream, address);
}

TEST(cancelling_inside_the_end_is_harmless)
{
    uint16_t port;
    int listening = listen_on_loopback(&port, 10);
    struct endpoints *e = begin();
    add(e, "127.0.0.1", port);
    own = dial_start(loop, e, 2000, cancel_own, NULL);
    run_loop(3000);
    CHECK(done_count == 1 && done_reason == REASON_OK);
    close(listening);
    end();
}

TEST(sixty_four_refusals_are_one)
{
    uint16_t port = closed_port();
    int before = open_descriptors();
    struct endpoints *e = begin();
    for (int i = 0; i < 64; i++)
        add(e, "127.0.0.1", port);
    dial_start(loop, e, 5000, on_done, NULL);
    run_loop(6000);
    CHECK(done_count == 1 && done_reason == REASON_UPSTREAM_REFUSED);
    end();
    CHECK(open_descriptors() == before);
}

/* The stream comes registered, and what the server said before the dial had ended is told to its owner. */
static void
on_greeting(void *owner, enum stream_event event)
{
    char text[16];
    size_t len = 0;
    CHECK(event == STREAM_READABLE && stream_read(done_stream, text, sizeof text, &len) == STREAM_DONE);
    *(size_t *)owner += len;
    loop_stop(loop);
}

TEST(a_server_that_speaks_first_is_heard)
{
    uint16_t port;
    size_t heard = 0;
    int listening = listen_on_loopback(&port, 10);
    struct endpoints *e = begin();
    add(e, "127.0.0.1", port);
    dial_start(loop, e, 2000, on_done, NULL);
    usleep(5000);
    int client = accept(listening, NULL, NULL);
    CHECK(client >= 0 && write(client, "220 hello", 9) == 9);
    usleep(5000);
    run_loop(3000);
    CHECK(done_count == 1 && done_reason == REASON_OK);
    run_loop_for(20); /* nobody wants it yet */
    stream_set_owner(done_stream, on_greeting, &heard);
    stream_want(done_stream, true, false);
    run_loop(3000);
    CHECK(heard == 9);
    close(client);
    close(listening);
    end();
}

/* In a network of its own that has one port to give away, which is the one that is dialled. */
static int
dial_oneself(const char *address)
{
    FILE *range = fopen("/proc/sys/net/ipv4/ip_local_port_range", "w");
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (!range || fprintf(range, "41000 41000\n") < 0 || fclose(range) != 0 || ioctl(fd, SIOCSIFFLAGS, &lo) != 0)
        return 2;
    struct endpoints *e = begin();
    add(e, address, 41000);
    dial_start(loop, e, 2000, on_done, NULL);
    run_loop(3000);
    return done_reason == REASON_UPSTREAM_REFUSED ? 0 : 1;
}

TEST(a_connect_that_met_itself_is_a_refusal)
{
    static const char *const addresses[] = {"127.0.0.1", "::1"};
    for (int i = 0; i < 2; i++) {
        int status = -1;
        fflush(stdout);
        pid_t child = fork();
        if (child == 0)
            _exit(unshare(CLONE_NEWNET) == 0 ? dial_oneself(addresses[i]) : 2);
        CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
        if (WEXITSTATUS(status) == 2)
            SKIP("no network namespace can be made here");
        CHECK_THAT(WEXITSTATUS(status) == 0, "%s", addresses[i]);
    }
}
