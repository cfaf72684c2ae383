/* The resolver against a DNS server of this test's own, a thread on loopback that behaves as the name's first label says. */
#include "sallyport/net/resolve.h"

#include <pthread.h>
#include <stdatomic.h>

#include "sallyport/base/clock.h"
#include "sallyport/base/mem.h"
#include "unit/dnsmsg.h"
#include "unit/loopback.h"

/* --- the server --------------------------------------------------------------------------------------------------- */

#define ASKED_MAX 4096

static int udp_fd, tcp_fd, stop_pipe[2];
static uint16_t server_port;
static pthread_t server_thread;
static atomic_int asked, asked_by_tcp;
static uint16_t asked_ids[ASKED_MAX], asked_ports[ASKED_MAX];

static bool
is(const char *name, const char *label)
{
    size_t n = strlen(label);
    return strncmp(name, label, n) == 0 && name[n] == '.';
}

static void
question_name(const struct dnsmsg *q, char name[256])
{
    size_t at = 12, out = 0;
    while (q->data[at] && out + q->data[at] + 1 < 255) {
        memcpy(name + out, q->data + at + 1, q->data[at]);
        out += q->data[at];
        name[out++] = '.';
        at += (size_t)q->data[at] + 1;
    }
    name[out ? out - 1 : 0] = '\0';
}

static void
put_addresses(struct dnsmsg *r, const char *owner, unsigned type, unsigned count, uint32_t ttl)
{
    for (unsigned i = 1; i <= count; i++) {
        if (type == 1)
            dns_a(r, owner, ttl, 0xc0000200 + i);
        else
            dns_aaaa(r, owner, ttl, i);
    }
    dns_counts(r, count, 0, 0);
}

/* Fills in the answer; false: none is sent. */
static bool
answer(struct dnsmsg *r, unsigned id, const char *name, unsigned type, bool tcp)
{
    dns_begin(r, id, 0x8180, name, type);
    if (is(name, "silent") || (is(name, "halfsilent") && type == 28))
        return false;
    if (is(name, "servfail") || (is(name, "halffail") && type == 28)) {
        r->data[3] = 0x82;
    } else if (is(name, "nx")) {
        r->data[3] = 0x83;
        dns_soa(r, "example.test", 300, 30);
        dns_counts(r, 0, 1, 0);
    } else if (is(name, "v4only") && type == 28) {
        dns_soa(r, "example.test", 300, 30);
        dns_counts(r, 0, 1, 0);
    } else if (is(name, "alias")) {
        dns_cname(r, NULL, 300, "real.example.test");
        put_addresses(r, "real.example.test", type, 1, 300);
        dns_counts(r, 2, 0, 0);
    } else if ((is(name, "big") || is(name, "tcpcut") || is(name, "tcplie")) && !tcp) {
        r->data[2] |= 0x02;
    } else if (is(name, "big")) {
        put_addresses(r, NULL, type, 30, 300);
    } else if (is(name, "many")) {
        put_addresses(r, NULL, type, 70, 300);
    } else if (is(name, "zero")) {
        put_addresses(r, NULL, type, 1, 0);
    } else if (is(name, "extra")) {
        dns_a(r, "localhost", 300, 0x7f000001);
        dns_a(r, "victim.example.test", 300, 0x7f000001);
        put_addresses(r, NULL, type, 1, 300);
        dns_counts(r, 3, 0, 0);
    } else if (is(name, "loop")) {
        dns_u16(r, 0xc000 | (unsigned)r->len);
        dns_u32(r, 0x00010001);
        dns_u32(r, 300);
        dns_u16(r, 0);
        dns_counts(r, 1, 0, 0);
    } else if (is(name, "wrongq")) {
        dns_begin(r, id, 0x8180, "other.example.test", type);
        put_addresses(r, NULL, type, 1, 300);
    } else if (is(name, "garbage")) {
        r->len = 12 + (id & 3);
    } else if (is(name, "cutlength")) {
        put_addresses(r, NULL, type, 1, 300);
        dns_counts(r, 9, 0, 0);
    } else {
        put_addresses(r, NULL, type, 1, 300);
    }
    return true;
}

static void
note_question(const struct dnsmsg *q, const struct sockaddr_in *from)
{
    int i = atomic_fetch_add(&asked, 1);
    if (i < ASKED_MAX) {
        asked_ids[i] = (uint16_t)(q->data[0] << 8 | q->data[1]);
        asked_ports[i] = from ? ntohs(from->sin_port) : 0;
    }
}

static void
serve_udp(void)
{
    static struct dnsmsg q, r;
    char name[256];
    struct sockaddr_in from;
    socklen_t len = sizeof from;
    ssize_t n = recvfrom(udp_fd, q.data, sizeof q.data, 0, (struct sockaddr *)&from, &len);
    if (n < 16)
        return;
    q.len = (size_t)n;
    note_question(&q, &from);
    question_name(&q, name);
    unsigned id = (unsigned)(q.data[0] << 8 | q.data[1]);
    unsigned type = q.data[12 + strlen(name) + 2 + 1];
    if (is(name, "wrongid")) { /* a forger, before the server */
        dns_begin(&r, id ^ 1, 0x8180, name, type);
        put_addresses(&r, NULL, type, 9, 300);
        sendto(udp_fd, r.data, r.len, 0, (struct sockaddr *)&from, len);
    }
    if (is(name, "empty"))
        sendto(udp_fd, "", 0, 0, (struct sockaddr *)&from, len);
    if (is(name, "slow"))
        usleep(50000);
    if (answer(&r, id, name, type, false))
        sendto(udp_fd, r.data, r.len, 0, (struct sockaddr *)&from, len);
}

static bool
read_all(int fd, void *data, size_t len)
{
    for (size_t got = 0; got < len;) {
        ssize_t n = read(fd, (char *)data + got, len - got);
        if (n <= 0)
            return false;
        got += (size_t)n;
    }
    return true;
}

static void
serve_tcp(void)
{
    static struct dnsmsg q, r;
    char name[256];
    unsigned char length[2];
    int fd = accept(tcp_fd, NULL, NULL);
    struct timeval soon = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
    while (read_all(fd, length, 2)) {
        q.len = (size_t)(length[0] << 8 | length[1]);
        if (!read_all(fd, q.data, q.len))
            break;
        atomic_fetch_add(&asked_by_tcp, 1);
        question_name(&q, name);
        answer(&r, (unsigned)(q.data[0] << 8 | q.data[1]), name, q.data[12 + strlen(name) + 2 + 1], true);
        if (is(name, "tcpcut"))
            break; /* the line goes dead instead of an answer */
        if (is(name, "tcplie"))
            r.len -= 5; /* an answer that ends before it should */
        length[0] = (unsigned char)(r.len >> 8);
        length[1] = (unsigned char)r.len;
        if (write(fd, length, 2) != 2 || write(fd, r.data, r.len) != (ssize_t)r.len)
            break;
    }
    close(fd);
}

static void *
serve(void *arg)
{
    struct pollfd p[3] = {{udp_fd, POLLIN, 0}, {tcp_fd, POLLIN, 0}, {stop_pipe[0], POLLIN, 0}};
    (void)arg;
    for (;;) {
        poll(p, 3, -1);
        if (p[2].revents)
            return NULL;
        if (p[0].revents)
            serve_udp();
        if (p[1].revents)
            serve_tcp();
    }
}

static struct sockaddr_storage
server_start(void)
{
    struct sockaddr_storage sa = {0};
    struct sockaddr_in *in = (struct sockaddr_in *)&sa;
    tcp_fd = listen_on_loopback(&server_port, 10);
    udp_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    *in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(server_port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    if (bind(udp_fd, (struct sockaddr *)in, sizeof *in) != 0 || pipe(stop_pipe) != 0)
        abort();
    int big = 1 << 20;
    setsockopt(udp_fd, SOL_SOCKET, SO_RCVBUF, &big, sizeof big);
    atomic_store(&asked, 0);
    atomic_store(&asked_by_tcp, 0);
    pthread_create(&server_thread, NULL, serve, NULL);
    return sa;
}

static void
server_stop(void)
{
    CHECK(write(stop_pipe[1], "x", 1) == 1);
    pthread_join(server_thread, NULL);
    close(udp_fd);
    close(tcp_fd);
    close(stop_pipe[0]);
    close(stop_pipe[1]);
}

/* --- the resolver ------------------------------------------------------------------------------------------------- */

static struct resolver *resolver;
static int done_count, stop_at, ok_count, descriptors_before;
static enum reason done_reason;
static struct answers done;
static bool inside;

static void
on_done(void *owner, enum reason reason, const struct answers *answers)
{
    CHECK(!inside);
    done_count++;
    done_reason = reason;
    ok_count += reason == REASON_OK;
    CHECK((reason == REASON_OK) == (answers != NULL));
    if (answers)
        done = *answers;
    if (owner)
        ++*(int *)owner;
    if (done_count >= stop_at)
        loop_stop(loop);
}

static void
begin_with(struct resolver_options o)
{
    descriptors_before = open_descriptors();
    struct sockaddr_storage sa = server_start();
    loop = loop_new();
    if (o.server_count == 0)
        o.servers = &sa;
    o.server_count = o.server_count == SIZE_MAX ? 0 : o.server_count ? o.server_count : 1;
    resolver = resolver_new(loop, &o);
    done_count = ok_count = 0;
    stop_at = 1;
}

static void
begin(void)
{
    begin_with((struct resolver_options){.timeout_ms = 500});
}

static void
end(void)
{
    resolver_free(resolver);
    loop_free(loop);
    server_stop();
    CHECK(open_descriptors() == descriptors_before);
}

static struct resolve *
ask(const char *name)
{
    inside = true;
    struct resolve *q = resolve_start(resolver, name, on_done, NULL);
    inside = false;
    return q;
}

static enum reason
ask_and_wait(const char *name)
{
    done_count = 0;
    memset(&done, 0, sizeof done);
    ask(name);
    run_loop(5000);
    CHECK(done_count == 1);
    return done_reason;
}

TEST(both_families_are_asked_and_merged)
{
    begin();
    CHECK(ask_and_wait("ok.example.test") == REASON_OK);
    CHECK(done.count == 2 && done.addrs[0].family == AF_INET6 && done.addrs[1].family == AF_INET);
    CHECK(atomic_load(&asked) == 2 && resolver_counts(resolver).queries == 1);
    end();
}

TEST(an_answer_is_kept_for_its_time)
{
    struct answers a;
    begin();
    CHECK(resolver_lookup(resolver, "ok.example.test", &a) == REASON_UNDECIDED);
    ask_and_wait("ok.example.test");
    CHECK(resolver_lookup(resolver, "ok.example.test", &a) == REASON_OK && a.count == 2);
    CHECK(ask_and_wait("ok.example.test") == REASON_OK && done.count == 2);
    CHECK(atomic_load(&asked) == 2 && resolver_counts(resolver).cached == 2);
    end();
}

TEST(no_time_is_not_kept)
{
    struct answers a;
    begin();
    CHECK(ask_and_wait("zero.example.test") == REASON_OK);
    CHECK(resolver_lookup(resolver, "zero.example.test", &a) == REASON_UNDECIDED);
    CHECK(ask_and_wait("zero.example.test") == REASON_OK);
    CHECK(atomic_load(&asked) == 4);
    end();
}

TEST(a_no_is_kept_too)
{
    struct answers a;
    begin();
    CHECK(ask_and_wait("nx.example.test") == REASON_DNS_FAILURE);
    CHECK(resolver_lookup(resolver, "nx.example.test", &a) == REASON_DNS_FAILURE);
    CHECK(ask_and_wait("nx.example.test") == REASON_DNS_FAILURE);
    CHECK(atomic_load(&asked) == 2);
    end();
}

TEST(one_family_is_enough)
{
    begin();
    CHECK(ask_and_wait("v4only.example.test") == REASON_OK && done.count == 1);
    CHECK(ask_and_wait("halffail.example.test") == REASON_OK && done.count == 1);
    CHECK(done.addrs[0].family == AF_INET);
    end();
}

TEST(a_silent_family_is_waited_for_until_the_time_is_up)
{
    begin();
    int64_t start = clock_mono_ms();
    CHECK(ask_and_wait("halfsilent.example.test") == REASON_OK && done.count == 1);
    int64_t took = clock_mono_ms() - start;
    CHECK_THAT(took >= 450 && took < 1500, "%lld ms", (long long)took);
    end();
}

TEST(failures_are_failures_and_not_kept)
{
    static const char *const names[] = {"servfail.example.test", "silent.example.test", "loop.example.test",
                                        "garbage.example.test", "cutlength.example.test"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct answers a;
        begin();
        CHECK_THAT(ask_and_wait(names[i]) == REASON_DNS_FAILURE, "%s", names[i]);
        CHECK_THAT(resolver_lookup(resolver, names[i], &a) == REASON_UNDECIDED, "%s", names[i]);
        CHECK(resolver_counts(resolver).failed == 1);
        end();
    }
}

TEST(aliases_are_followed)
{
    begin();
    CHECK(ask_and_wait("alias.example.test") == REASON_OK && done.count == 2);
    end();
}

TEST(a_truncated_answer_is_asked_for_by_tcp)
{
    begin();
    CHECK(ask_and_wait("big.example.test") == REASON_OK);
    CHECK_THAT(done.count == 60 && atomic_load(&asked_by_tcp) == 2, "%zu", done.count);
    end();
}

TEST(tcp_that_breaks_or_lies_is_a_failure)
{
    begin();
    CHECK(ask_and_wait("tcpcut.example.test") == REASON_DNS_FAILURE);
    CHECK(ask_and_wait("tcplie.example.test") == REASON_DNS_FAILURE);
    CHECK(ask_and_wait("ok.example.test") == REASON_OK);
    end();
}

TEST(too_many_answers_are_seen_as_such)
{
    begin();
    CHECK(ask_and_wait("many.example.test") == REASON_OK && done.count == RESOLVE_ANSWERS_MAX);
    end();
}

TEST(forged_answers_are_not_taken)
{
    begin();
    CHECK(ask_and_wait("wrongid.example.test") == REASON_OK && done.count == 2); /* not 18 */
    CHECK(ask_and_wait("wrongq.example.test") == REASON_DNS_FAILURE);
    CHECK(ask_and_wait("empty.example.test") == REASON_OK);
    end();
}

TEST(answers_about_others_reach_nobody)
{
    struct answers a;
    begin();
    CHECK(ask_and_wait("extra.example.test") == REASON_OK && done.count == 2);
    for (size_t i = 0; i < done.count; i++)
        CHECK(done.addrs[i].bytes[0] != 127);
    CHECK(resolver_lookup(resolver, "victim.example.test", &a) == REASON_UNDECIDED);
    end();
}

TEST(a_lookup_in_flight_is_shared)
{
    begin();
    stop_at = 50;
    for (int i = 0; i < 50; i++)
        ask("slow.example.test");
    CHECK(done_count == 0);
    run_loop(3000);
    CHECK(ok_count == 50 && atomic_load(&asked) == 2);
    end();
}

TEST(cancelled_waiters_hear_nothing)
{
    int mine[4] = {0};
    struct resolve *q[4];
    begin();
    ask_and_wait("ok.example.test");
    done_count = 0;
    for (int i = 0; i < 3; i++)
        q[i] = resolve_start(resolver, "slow.example.test", on_done, &mine[i]);
    q[3] = resolve_start(resolver, "ok.example.test", on_done, &mine[3]); /* from the cache: deferred */
    resolve_cancel(q[0]);
    resolve_cancel(q[3]);
    run_loop_for(10);
    resolve_cancel(q[2]);
    run_loop(3000);
    CHECK(!mine[0] && mine[1] == 1 && !mine[2] && !mine[3]);
    end();
}

TEST(a_lookup_without_waiters_still_fills_the_cache)
{
    struct answers a;
    begin();
    resolve_cancel(ask("slow.example.test"));
    run_loop_for(300);
    CHECK(done_count == 0);
    CHECK(resolver_lookup(resolver, "slow.example.test", &a) == REASON_OK);
    end();
}

static struct resolve *victim;

static void
cancel_victim(void *owner, enum reason reason, const struct answers *answers)
{
    (void)reason;
    (void)answers;
    ++*(int *)owner;
    resolve_cancel(victim);
    loop_stop(loop);
}

TEST(a_waiter_may_cancel_another_when_both_are_due)
{
    int first = 0, second = 0;
    begin();
    resolve_start(resolver, "slow.example.test", cancel_victim, &first);
    victim = resolve_start(resolver, "slow.example.test", on_done, &second);
    run_loop(3000);
    run_loop_for(20);
    CHECK(first == 1 && second == 0);
    end();
}

TEST(over_the_cap_it_fails_at_once_but_from_the_loop)
{
    begin_with((struct resolver_options){.timeout_ms = 500, .pending_max = 2});
    ask("silent.example.test");
    ask("silent.a.example.test");
    ask("ok.example.test");
    CHECK(done_count == 0);
    int64_t start = clock_mono_ms();
    run_loop(3000);
    CHECK(done_reason == REASON_DNS_FAILURE && clock_mono_ms() - start < 300);
    ask("silent.example.test"); /* shares; needs no place */
    stop_at = 4;
    run_loop(3000);
    CHECK(done_count == 4);
    stop_at = 1;
    CHECK(ask_and_wait("ok.example.test") == REASON_OK);
    end();
}

TEST(the_cache_has_a_cap_and_drops_the_unused)
{
    struct answers a;
    begin_with((struct resolver_options){.timeout_ms = 500, .cache_max = 2});
    ask_and_wait("a.example.test");
    ask_and_wait("b.example.test");
    CHECK(resolver_lookup(resolver, "a.example.test", &a) == REASON_OK);
    ask_and_wait("c.example.test");
    CHECK(resolver_lookup(resolver, "b.example.test", &a) == REASON_UNDECIDED);
    CHECK(resolver_lookup(resolver, "a.example.test", &a) == REASON_OK);
    CHECK(resolver_lookup(resolver, "c.example.test", &a) == REASON_OK);
    end();
}

TEST(without_servers_it_fails)
{
    begin_with((struct resolver_options){.timeout_ms = 500, .server_count = SIZE_MAX});
    CHECK(ask_and_wait("ok.example.test") == REASON_DNS_FAILURE);
    end();
}

TEST(a_dead_server_is_passed_over)
{
    uint16_t closed;
    close(listen_on_loopback(&closed, 1));
    descriptors_before = open_descriptors();
    struct sockaddr_storage servers[2] = {{0}, server_start()};
    *(struct sockaddr_in *)&servers[0] = *(struct sockaddr_in *)&servers[1];
    ((struct sockaddr_in *)&servers[0])->sin_port = htons(closed);
    loop = loop_new();
    resolver = resolver_new(loop, &(struct resolver_options){.servers = servers, .server_count = 2, .timeout_ms = 1000});
    stop_at = 1;
    CHECK(ask_and_wait("ok.example.test") == REASON_OK);
    end();
}

TEST(those_who_wait_when_it_goes_hear_of_a_failure)
{
    begin();
    ask("silent.example.test");
    ask("silent.example.test");
    struct resolve *q = ask("slow.example.test");
    resolver_free(resolver);
    resolver = NULL;
    CHECK(done_count == 0);
    resolve_cancel(q);
    stop_at = 2;
    run_loop(1000);
    CHECK(done_count == 2 && ok_count == 0);
    end();
}

static void
free_resolver(void *owner, enum reason reason, const struct answers *answers)
{
    (void)reason;
    ++*(int *)owner;
    CHECK(answers && answers->count == 2);
    resolver_free(resolver);
    resolver = NULL;
    CHECK(answers->count == 2); /* still the caller's during the call */
    loop_stop(loop);
}

TEST(the_resolver_may_go_inside_a_callback)
{
    int count = 0;
    begin();
    resolve_start(resolver, "ok.example.test", free_resolver, &count);
    ask("silent.example.test");
    run_loop(3000);
    run_loop_for(20);
    CHECK(count == 1 && done_count == 1 && done_reason == REASON_DNS_FAILURE);
    end();
}

static int
compare_u16(const void *a, const void *b)
{
    return *(const uint16_t *)a - *(const uint16_t *)b;
}

static int
count_distinct(uint16_t *values, int count)
{
    int distinct = 0;
    qsort(values, (size_t)count, sizeof *values, compare_u16);
    for (int i = 0; i < count; i++)
        distinct += i == 0 || values[i] != values[i - 1];
    return distinct;
}

TEST(ids_and_source_ports_cannot_be_guessed_from_the_last)
{
    char name[64];
    begin_with((struct resolver_options){.timeout_ms = 3000});
    stop_at = 300;
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "n%d.example.test", i);
        ask(name);
    }
    run_loop(10000);
    CHECK(ok_count == 300);
    int n = atomic_load(&asked);
    CHECK(n >= 600 && n <= ASKED_MAX);
    CHECK(count_distinct(asked_ids, n) > n * 9 / 10);
    CHECK_THAT(count_distinct(asked_ports, n) >= n / 64, "%d ports", count_distinct(asked_ports, n));
    end();
}

TEST(the_longest_name_is_asked_and_a_longer_one_refused)
{
    char name[300] = "";
    begin();
    for (int i = 0; i < 3; i++)
        strcat(name, "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff123.");
    strcat(name, "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff1"); /* 253 in all */
    CHECK(strlen(name) == 253);
    CHECK(ask_and_wait(name) == REASON_OK);
    strcat(name, "2");
    CHECK(ask_and_wait(name) == REASON_DNS_FAILURE);
    end();
}
