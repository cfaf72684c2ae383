/* Streams over real sockets: events, back-pressure, ends and failures, TLS both ways. */
#include "sallyport/net/stream.h"

#include <netinet/tcp.h>
#include <time.h>
#include <openssl/err.h>

#include "sallyport/base/mem.h"
#include "sallyport/net/doze.h"
#include "sallyport/tls/context.h"
#include "unit/certs.h"
#include "unit/loopback.h"

#define ALL (256 * 1024)

/* One end, and everything that it saw. */
struct end {
    struct stream *stream;
    bool inside;            /* a call of ours is on the stack: no event may come */
    int readable, writable, secured, failed, timeouts;
    bool eof, error;
    char *got;              /* up to ALL bytes */
    size_t got_len;
    const char *to_send;
    size_t to_send_len;
    size_t read_at_most;    /* of one event; 0: all there is */
    bool free_on_readable, finish_after_send, pause_on_data;
    size_t stop_at;         /* stop the loop at so many bytes */
};

static struct end a, b;
static struct test_cert ca, leaf;
static SSL_CTX *server, *client;

static void
end_read(struct end *e)
{
    for (;;) {
        size_t n = 0, room = e->read_at_most ? e->read_at_most : ALL - e->got_len;
        if (room > ALL - e->got_len)
            room = ALL - e->got_len;
        if (room == 0) {
            stream_want(e->stream, false, false);
            loop_stop(loop);
            return;
        }
        enum stream_io io = stream_read(e->stream, e->got + e->got_len, room, &n);
        if (io == STREAM_DONE)
            e->got_len += n;
        e->eof |= io == STREAM_EOF;
        e->error |= io == STREAM_ERROR;
        if (io == STREAM_EOF || io == STREAM_ERROR)
            stream_want(e->stream, false, false);
        if (io == STREAM_EOF || io == STREAM_ERROR || (e->stop_at && e->got_len >= e->stop_at))
            loop_stop(loop);
        if (e->pause_on_data)
            stream_want(e->stream, false, false);
        if (io != STREAM_DONE || e->read_at_most)
            return;
    }
}

static void
end_write(struct end *e)
{
    while (e->to_send_len > 0) {
        size_t n = 0;
        enum stream_io io = stream_write_slice(e->stream, slice_of(e->to_send, e->to_send_len), &n);
        e->error |= io == STREAM_ERROR;
        if (io != STREAM_DONE)
            return;
        e->to_send += n;
        e->to_send_len -= n;
    }
    stream_want(e->stream, true, false);
    if (e->finish_after_send)
        stream_shutdown_write(e->stream);
}

static void
on_event(void *owner, enum stream_event event)
{
    struct end *e = owner;
    CHECK(!a.inside && !b.inside);
    switch (event) {
    case STREAM_READABLE:
        e->readable++;
        if (e->free_on_readable) {
            stream_free(e->stream);
            e->stream = NULL;
            loop_stop(loop);
            return;
        }
        end_read(e);
        return;
    case STREAM_WRITABLE:
        e->writable++;
        end_write(e);
        return;
    case STREAM_SECURED:
        e->secured++;
        if (a.secured && b.secured)
            loop_stop(loop);
        return;
    case STREAM_FAILED:
        e->failed++;
        loop_stop(loop);
        return;
    case STREAM_TIMEOUT:
        e->timeouts++;
        loop_stop(loop);
        return;
    }
}

static void
begin(void)
{
    int fds[2];
    doze_setup();
    loop = loop_new();
    a = b = (struct end){0};
    a.got = mem_alloc(ALL);
    b.got = mem_alloc(ALL);
    tcp_pair(fds);
    a.stream = stream_new(loop, fds[0], on_event, &a);
    b.stream = stream_new(loop, fds[1], on_event, &b);
}

static void
end(void)
{
    stream_free(a.stream);
    stream_free(b.stream);
    loop_free(loop);
    free(a.got);
    free(b.got);
}

static void
begin_tls(void)
{
    struct err err;
    begin();
    test_cert_make(&ca, NULL, NULL, 30);
    test_cert_make(&leaf, &ca, "DNS:gw.example.test,IP:192.0.2.7", 30);
    server = tls_server_context(slice_str(leaf.cert_pem), slice_str(leaf.key_pem), slice_str(""), &err);
    client = tls_client_context(slice_str(ca.cert_pem), &err);
    CHECK(server && client);
}

static void
secure(void)
{
    a.inside = true;
    stream_connect_tls(a.stream, client, "gw.example.test");
    stream_accept_tls(b.stream, server, slice_of(NULL, 0));
    a.inside = false;
    run_loop(5000);
    CHECK(a.secured == 1 && b.secured == 1);
}

static void
end_tls(void)
{
    SSL_CTX_free(server);
    SSL_CTX_free(client);
    test_cert_done(&ca);
    test_cert_done(&leaf);
    end();
    CHECK(ERR_peek_error() == 0);
}

static void
put(struct end *e, const char *text)
{
    size_t n = 0;
    e->inside = true;
    CHECK(stream_write_slice(e->stream, slice_str(text), &n) == STREAM_DONE && n == strlen(text));
    e->inside = false;
}

/* --- plain ------------------------------------------------------------------------------------------------------- */

TEST(nothing_is_told_before_it_is_wanted)
{
    begin();
    put(&a, "hello");
    run_loop_for(20);
    CHECK(b.readable == 0);
    b.stop_at = 5;
    b.inside = true;
    stream_want(b.stream, true, false);
    b.inside = false;
    run_loop(2000);
    CHECK(b.readable == 1 && b.got_len == 5);
    end();
}

TEST(unread_bytes_are_told_again)
{
    begin();
    b.read_at_most = 1;
    b.stop_at = 5;
    put(&a, "hello");
    stream_want(b.stream, true, false);
    run_loop(2000);
    CHECK(b.readable == 5 && memcmp(b.got, "hello", 5) == 0);
    end();
}

TEST(reading_can_be_stopped_and_begun_again)
{
    begin();
    b.stop_at = 1;
    stream_want(b.stream, true, false);
    put(&a, "1");
    run_loop(2000);
    stream_want(b.stream, false, false);
    put(&a, "2");
    run_loop_for(20);
    CHECK(b.got_len == 1);
    stream_want(b.stream, true, false);
    run_loop(2000);
    CHECK(b.got_len == 2);
    end();
}

TEST(a_half_close_is_an_orderly_end_and_the_other_half_lives)
{
    begin();
    stream_want(b.stream, true, false);
    stream_shutdown_write(a.stream);
    run_loop(2000);
    CHECK(b.eof && !b.error && b.failed == 0);
    put(&b, "still here");
    a.stop_at = 10;
    stream_want(a.stream, true, false);
    run_loop(2000);
    CHECK(a.got_len == 10);
    end();
}

TEST(a_reset_is_an_error_and_never_silent)
{
    begin();
    stream_want(b.stream, true, false);
    stream_reset(a.stream);
    a.stream = NULL;
    run_loop(2000);
    CHECK(b.error && !b.eof);
    run_loop_for(10);
    CHECK(b.failed == 1);
    run_loop_for(10);
    CHECK(b.failed == 1);
    end();
}

TEST(writing_to_a_peer_that_is_gone_is_an_error_once_told)
{
    size_t n;
    begin();
    stream_reset(a.stream);
    a.stream = NULL;
    usleep(10000);
    CHECK(stream_write_slice(b.stream, slice_str("x"), &n) == STREAM_ERROR);
    CHECK(stream_write_slice(b.stream, slice_str("x"), &n) == STREAM_ERROR);
    CHECK(b.failed == 0);
    run_loop(2000);
    CHECK(b.failed == 1);
    end();
}

TEST(an_answer_sent_before_the_reset_can_still_be_read)
{
    size_t n;
    begin();
    put(&b, "request, which nobody reads");
    put(&a, "answer");
    usleep(5000);
    stream_free(a.stream); /* unread bytes: the kernel sends RST */
    a.stream = NULL;
    usleep(10000);
    stream_want(b.stream, true, false);
    CHECK(stream_write_slice(b.stream, slice_str("x"), &n) == STREAM_ERROR);
    run_loop(2000);
    CHECK(b.got_len == 6 && memcmp(b.got, "answer", 6) == 0);
    end();
}

TEST(bytes_and_the_end_behind_them_are_both_told_by_one_edge)
{
    begin();
    put(&a, "last words");
    stream_shutdown_write(a.stream);
    usleep(5000); /* both are there before the loop looks */
    b.read_at_most = 64;
    stream_want(b.stream, true, false);
    run_loop(2000);
    CHECK(b.eof && b.got_len == 10 && b.readable == 2);
    end();
}

TEST(urgent_data_holds_nothing_back)
{
    begin();
    int far = stream_raw_fd(a.stream);
    stream_want(b.stream, true, false);
    b.stop_at = 4;
    CHECK(send(far, "ab", 2, 0) == 2 && send(far, "!", 1, MSG_OOB) == 1 && send(far, "cd", 2, 0) == 2);
    run_loop(2000);
    CHECK(b.got_len == 4 && memcmp(b.got, "abcd", 4) == 0);
    end();
}

TEST(a_descriptor_that_is_sent_along_holds_nothing_back)
{
    int fds[2];
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.head = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    struct iovec iov = {(char *)(uintptr_t)"ab", 2};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.space};
    begin();
    stream_free(b.stream);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    b.stream = stream_new(loop, fds[1], on_event, &b);
    stream_distrust_short_reads(b.stream);
    stream_want(b.stream, true, false);
    run_loop_for(5);
    memcpy(CMSG_DATA(&control.head), &fds[0], sizeof(int));
    CHECK(sendmsg(fds[0], &msg, 0) == 2 && send(fds[0], "cd", 2, 0) == 2); /* a read ends behind the first */
    b.stop_at = 4;
    run_loop(2000);
    CHECK(b.got_len == 4);
    close(fds[0]);
    end();
}

TEST(room_that_is_wanted_without_need_is_told_at_once_and_again)
{
    begin();
    a.to_send = "x";
    a.to_send_len = 0;
    stream_want(a.stream, false, true);
    run_loop_for(10);
    CHECK(a.writable == 1); /* end_write stopped wanting it */
    stream_want(a.stream, false, true);
    run_loop_for(10);
    CHECK(a.writable == 2);
    end();
}

TEST(a_stream_may_be_freed_inside_its_event)
{
    int before = open_descriptors();
    begin();
    b.free_on_readable = true;
    put(&a, "x");
    stream_want(b.stream, true, true);
    run_loop(2000);
    CHECK(b.readable == 1);
    end();
    CHECK(open_descriptors() == before);
}

TEST(no_event_after_free_in_the_same_turn)
{
    begin();
    b.stop_at = a.stop_at = 1;
    put(&a, "x");
    put(&b, "x");
    usleep(5000);
    stream_want(a.stream, true, true);
    stream_want(b.stream, true, true);
    stream_free(b.stream);
    b.stream = NULL;
    run_loop(2000);
    CHECK(b.readable == 0 && b.writable == 0);
    end();
}

static char pattern[ALL];

static void
move_everything(void)
{
    for (size_t i = 0; i < ALL; i++)
        pattern[i] = (char)(i * 7 + i / 251);
    a.to_send = pattern;
    a.to_send_len = ALL;
    a.finish_after_send = true;
    int small = 4096;
    if (stream_raw_fd(a.stream) >= 0)
        setsockopt(stream_raw_fd(a.stream), SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    stream_want(a.stream, false, true);
    run_loop_for(20); /* the other side does not read: the socket fills */
    size_t left = a.to_send_len;
    CHECK(left > 0 || stream_tls(a.stream));
    stream_want(b.stream, true, false);
    run_loop(20000);
    CHECK(a.to_send_len == 0);
    CHECK_THAT(b.got_len == ALL, "%zu", b.got_len);
    CHECK(memcmp(b.got, pattern, ALL) == 0);
}

TEST(back_pressure_holds_and_loses_nothing)
{
    begin();
    move_everything();
    end();
}

TEST(many_pieces_are_written_in_order)
{
    struct iovec iov[100];
    size_t n = 0;
    begin();
    for (int i = 0; i < 100; i++)
        iov[i] = (struct iovec){pattern + i, 1};
    CHECK(stream_write(a.stream, iov, 100, &n) == STREAM_DONE && n == 64);
    b.stop_at = n;
    stream_want(b.stream, true, false);
    run_loop(2000);
    CHECK(memcmp(b.got, pattern, n) == 0);
    end();
}

TEST(a_deadline_fires_once_moves_and_ends)
{
    begin();
    int64_t start = loop_now_ms(loop);
    stream_set_deadline(a.stream, start + 10);
    stream_set_deadline(a.stream, start + 40); /* later: the timer that runs is kept */
    run_loop(2000);
    CHECK(a.timeouts == 1 && loop_now_ms(loop) >= start + 40);
    run_loop_for(30);
    CHECK(a.timeouts == 1);
    stream_set_deadline(a.stream, loop_now_ms(loop) + 60000);
    stream_set_deadline(a.stream, loop_now_ms(loop) + 5); /* earlier */
    run_loop(2000);
    CHECK(a.timeouts == 2);
    stream_set_deadline(a.stream, loop_now_ms(loop) + 5);
    stream_set_deadline(a.stream, 0);
    run_loop_for(20);
    CHECK(a.timeouts == 2);
    stream_set_deadline(a.stream, loop_now_ms(loop) - 5); /* over already: from the loop all the same */
    CHECK(a.timeouts == 2);
    run_loop(2000);
    CHECK(a.timeouts == 3);
    end();
}

TEST(a_tuned_stream_sends_at_once_and_notices_dead_peers)
{
    int value = 0;
    socklen_t len = sizeof value;
    begin();
    stream_tune(a.stream);
    CHECK(getsockopt(stream_raw_fd(a.stream), IPPROTO_TCP, TCP_NODELAY, &value, &len) == 0 && value == 1);
    CHECK(getsockopt(stream_raw_fd(a.stream), SOL_SOCKET, SO_KEEPALIVE, &value, &len) == 0 && value == 1);
    CHECK(getsockopt(stream_raw_fd(a.stream), IPPROTO_TCP, TCP_USER_TIMEOUT, &value, &len) == 0 && value == 120000);
    end();
}

/* --- TLS --------------------------------------------------------------------------------------------------------- */

TEST(tls_carries_bytes_both_ways)
{
    int before = open_descriptors();
    begin_tls();
    secure();
    CHECK(stream_raw_fd(a.stream) == -1 && stream_tls(b.stream));
    put(&a, "to the server");
    b.stop_at = 13;
    stream_want(b.stream, true, false);
    run_loop(2000);
    CHECK(b.got_len == 13 && memcmp(b.got, "to the server", 13) == 0);
    put(&b, "to the client");
    a.stop_at = 13;
    stream_want(a.stream, true, false);
    run_loop(2000);
    CHECK(a.got_len == 13);
    end_tls();
    CHECK(open_descriptors() == before);
}

static bool
is_empty(EVP_PKEY *key)
{
    unsigned char bytes[64];
    size_t len = sizeof bytes;
    bool empty = EVP_PKEY_get_raw_public_key(key, bytes, &len) != 1 && EVP_PKEY_get_raw_private_key(key, bytes, &len) != 1;
    EVP_PKEY_free(key);
    ERR_clear_error();
    return empty;
}

TEST(ephemeral_keys_end_with_the_handshake)
{
    begin_tls();
    secure();
    for (int i = 0; i < 2; i++) {
        EVP_PKEY *own = NULL, *peers = NULL;
        SSL *ssl = stream_tls(i ? a.stream : b.stream);
        CHECK(SSL_get_tmp_key(ssl, &own) && is_empty(own));
        CHECK(SSL_get_peer_tmp_key(ssl, &peers) && is_empty(peers));
    }
    put(&a, "to the server");
    b.stop_at = 13;
    stream_want(b.stream, true, false);
    run_loop(2000);
    CHECK(b.got_len == 13);
    end_tls();
}

TEST(a_connection_that_slept_goes_on)
{
    begin_tls();
    secure();
    stream_want(a.stream, true, false);
    stream_want(b.stream, true, false);
    for (size_t i = 1; i <= 2; i++) {
        run_loop_for((int64_t)i * 2 * DOZE_SWEEP_MS + 200);
        a.stop_at = b.stop_at = i * 13;
        put(&a, "to the server");
        run_loop(2000);
        put(&b, "to the client");
        run_loop(2000);
        CHECK(a.got_len == i * 13 && b.got_len == i * 13);
    }
    run_loop_for(4 * DOZE_SWEEP_MS + 200);
    stream_shutdown_write(a.stream);
    run_loop(2000);
    CHECK(b.eof && !b.error);
    end_tls();
}

TEST(tls_tells_decrypted_bytes_again)
{
    begin_tls();
    secure();
    b.read_at_most = 1; /* of one record */
    b.stop_at = 10;
    put(&a, "0123456789");
    stream_want(b.stream, true, false);
    run_loop(2000);
    CHECK(b.readable == 10 && b.got_len == 10);
    end_tls();
}

TEST(tls_tells_decrypted_bytes_that_are_wanted_later)
{
    begin_tls();
    secure();
    b.read_at_most = 4;
    b.stop_at = 4;
    b.pause_on_data = true;
    put(&a, "0123456789");
    stream_want(b.stream, true, false);
    run_loop(2000);
    run_loop_for(10);
    CHECK(b.got_len == 4);
    b.stop_at = 10;
    b.pause_on_data = false;
    b.inside = true;
    stream_want(b.stream, true, false); /* the socket has nothing more; the record has */
    b.inside = false;
    run_loop(2000);
    CHECK(b.got_len == 10);
    end_tls();
}

TEST(tls_holds_back_pressure)
{
    begin_tls();
    secure();
    move_everything();
    stream_want(b.stream, true, false);
    b.got_len = 0; /* room for the end, which comes after the last byte */
    run_loop(2000);
    CHECK(b.eof && b.got_len == 0);
    end_tls();
}

TEST(tls_gathers_small_pieces)
{
    char expected[4000];
    struct iovec iov[40];
    size_t n = 0;
    begin_tls();
    secure();
    memset(expected, 'y', sizeof expected);
    for (int i = 0; i < 40; i++)
        iov[i] = (struct iovec){expected + i * 100, 100};
    CHECK(stream_write(a.stream, iov, 40, &n) == STREAM_DONE && n == sizeof expected);
    b.stop_at = n;
    stream_want(b.stream, true, false);
    run_loop(2000);
    CHECK(b.got_len == n && memcmp(b.got, expected, n) == 0);
    end_tls();
}

TEST(tls_close_notify_is_an_orderly_end)
{
    begin_tls();
    secure();
    stream_want(b.stream, true, false);
    stream_shutdown_write(a.stream);
    run_loop(2000);
    CHECK(b.eof && !b.error);
    put(&b, "still here");
    a.stop_at = 10;
    stream_want(a.stream, true, false);
    run_loop(2000);
    CHECK(a.got_len == 10);
    end_tls();
}

TEST(tls_cut_without_close_notify_is_an_error)
{
    begin_tls();
    secure();
    stream_want(b.stream, true, false);
    stream_free(a.stream);
    a.stream = NULL;
    run_loop(2000);
    CHECK(b.error && !b.eof);
    end_tls();
}

/* A client that has spoken already: its bytes were read to look at the hello. */
static void
read_raw(struct stream *s, char *out, size_t size, size_t *ret_len)
{
    struct pollfd p = {.fd = stream_raw_fd(s), .events = POLLIN};
    CHECK(poll(&p, 1, 2000) == 1);
    CHECK(stream_read(s, out, size, ret_len) == STREAM_DONE);
}

TEST(bytes_read_before_tls_belong_to_the_handshake)
{
    char first[4096];
    for (size_t taken = 1; taken < 400; taken += 37) {
        size_t n = 0;
        begin_tls();
        stream_connect_tls(a.stream, client, "gw.example.test");
        run_loop_for(2);
        read_raw(b.stream, first, taken, &n);
        stream_accept_tls(b.stream, server, slice_of(first, n));
        memset(first, 0, sizeof first); /* it was copied */
        run_loop(5000);
        CHECK_THAT(a.secured == 1 && b.secured == 1, "%zu bytes first", taken);
        end_tls();
    }
}

TEST(a_whole_hello_that_came_first_needs_no_further_byte)
{
    char first[8192];
    size_t n = 0;
    begin_tls();
    stream_connect_tls(a.stream, client, "gw.example.test");
    run_loop_for(5);
    read_raw(b.stream, first, sizeof first, &n);
    b.inside = true;
    stream_accept_tls(b.stream, server, slice_of(first, n));
    b.inside = false;
    run_loop(5000);
    CHECK(b.secured == 1);
    end_tls();
}

static double
processor_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

TEST(a_handshake_that_waits_for_room_with_first_bytes_left_does_not_spin)
{
    static char first[40000], junk[65536];
    int fds[2];
    begin_tls();
    SSL *hello = SSL_new(client);
    BIO *out = BIO_new(BIO_s_mem());
    SSL_set_bio(hello, BIO_new(BIO_s_mem()), out);
    SSL_set_connect_state(hello);
    SSL_do_handshake(hello);
    int n = BIO_read(out, first, sizeof first);
    SSL_free(hello);
    CHECK(n > 0);
    memset(first + n, 'x', sizeof first - (size_t)n);
    stream_free(b.stream);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    while (send(fds[1], junk, sizeof junk, 0) > 0)
        ;
    b.stream = stream_new(loop, fds[1], on_event, &b);
    stream_accept_tls(b.stream, server, slice_of(first, sizeof first));
    run_loop_for(20);
    double before = processor_seconds();
    run_loop_for(300);
    CHECK(processor_seconds() - before < 0.1);
    close(fds[0]);
    end_tls();
}

TEST(what_is_not_tls_fails_once)
{
    size_t n;
    begin_tls();
    stream_accept_tls(b.stream, server, slice_str("GET / HTTP/1.1\r\n\r\n"));
    CHECK(b.failed == 0);
    run_loop(2000);
    CHECK(b.failed == 1 && b.secured == 0);
    CHECK(stream_read(b.stream, b.got, 1, &n) == STREAM_ERROR);
    run_loop_for(10);
    CHECK(b.failed == 1);
    end_tls();
}

TEST(a_peer_that_leaves_in_the_handshake_fails_it)
{
    begin_tls();
    stream_accept_tls(b.stream, server, slice_of(NULL, 0));
    stream_free(a.stream);
    a.stream = NULL;
    run_loop(2000);
    CHECK(b.failed == 1);
    end_tls();
}

static void
expect_refusal(const char *name)
{
    begin_tls();
    stream_connect_tls(a.stream, client, name);
    stream_accept_tls(b.stream, server, slice_of(NULL, 0));
    run_loop(5000);
    CHECK_THAT(a.failed == 1 && a.secured == 0, "%s", name ? name : "(none)");
    end_tls();
}

TEST(a_server_of_another_name_is_refused)
{
    expect_refusal("other.example.test");
    expect_refusal("gw.example.test.evil.example.net");
    expect_refusal("192.0.2.8");
    expect_refusal(NULL);
}

TEST(a_server_is_accepted_by_address)
{
    begin_tls();
    stream_connect_tls(a.stream, client, "192.0.2.7");
    stream_accept_tls(b.stream, server, slice_of(NULL, 0));
    run_loop(5000);
    CHECK(a.secured == 1);
    CHECK(SSL_get_servername(stream_tls(b.stream), TLSEXT_NAMETYPE_host_name) == NULL);
    end_tls();
}

TEST(tls_may_be_freed_at_any_point_of_the_handshake)
{
    int before = open_descriptors();
    for (int ms = 0; ms < 6; ms++) {
        begin_tls();
        stream_connect_tls(a.stream, client, "gw.example.test");
        stream_accept_tls(b.stream, server, slice_of(NULL, 0));
        run_loop_for(ms);
        stream_free(b.stream);
        b.stream = NULL;
        run_loop_for(2);
        end_tls();
    }
    CHECK(open_descriptors() == before);
}

/* --- owners that do everything at the worst time ------------------------------------------------------------------- */

static enum stream_event act_on;
static void (*act)(struct stream *s);
static int acts;

static void
act_once(void *owner, enum stream_event event)
{
    struct end *e = owner;
    if (event != act_on)
        return;
    acts++;
    act(e->stream);
    e->stream = NULL;
    loop_stop(loop);
}

static void
act_inside(struct end *e, enum stream_event event, void (*fn)(struct stream *))
{
    act_on = event;
    act = fn;
    acts = 0;
    stream_set_owner(e->stream, act_once, e);
}

TEST(freeing_inside_any_event_is_safe)
{
    static void (*const ways[])(struct stream *) = {stream_free, stream_reset};
    int before = open_descriptors();
    for (int i = 0; i < 2; i++) {
        begin();
        act_inside(&b, STREAM_WRITABLE, ways[i]);
        put(&a, "x");
        stream_want(b.stream, true, true);
        run_loop(2000);
        CHECK(acts == 1);
        end();
        begin();
        act_inside(&b, STREAM_TIMEOUT, ways[i]);
        stream_set_deadline(b.stream, loop_now_ms(loop) + 1);
        run_loop(2000);
        CHECK(acts == 1);
        end();
        begin_tls();
        act_inside(&b, STREAM_SECURED, ways[i]);
        stream_connect_tls(a.stream, client, "gw.example.test");
        stream_accept_tls(b.stream, server, slice_of(NULL, 0));
        run_loop(2000);
        CHECK(acts == 1);
        end_tls();
        begin_tls();
        act_inside(&b, STREAM_FAILED, ways[i]);
        stream_accept_tls(b.stream, server, slice_str("nonsense, not TLS"));
        run_loop(2000);
        CHECK(acts == 1);
        end_tls();
    }
    CHECK(open_descriptors() == before);
}

static void
begin_tls_inside(void *owner, enum stream_event event)
{
    struct end *e = owner;
    char first[4096];
    size_t n = 0;
    if (event != STREAM_READABLE)
        return;
    CHECK(stream_read(e->stream, first, sizeof first, &n) == STREAM_DONE);
    stream_set_owner(e->stream, on_event, e);
    stream_accept_tls(e->stream, server, slice_of(first, n));
}

TEST(tls_may_begin_inside_an_event_under_a_new_owner)
{
    begin_tls();
    stream_connect_tls(a.stream, client, "gw.example.test");
    stream_set_owner(b.stream, begin_tls_inside, &b);
    stream_want(b.stream, true, true); /* writable too: must not be told before SECURED */
    run_loop(5000);
    CHECK(a.secured == 1 && b.secured == 1);
    end_tls();
}

TEST(plain_bytes_behind_the_hello_do_not_pass_for_tls)
{
    char first[8192];
    size_t n = 0;
    begin_tls();
    stream_connect_tls(a.stream, client, "gw.example.test");
    run_loop_for(5);
    read_raw(b.stream, first, sizeof first - 64, &n);
    memcpy(first + n, "GET / HTTP/1.1\r\n\r\n", 18);
    stream_accept_tls(b.stream, server, slice_of(first, n + 18));
    run_loop(5000);
    CHECK(b.failed == 1 && b.secured == 0);
    end_tls();
}

TEST(a_failure_without_an_owner_waits_for_one)
{
    begin_tls();
    stream_set_owner(b.stream, NULL, NULL);
    stream_accept_tls(b.stream, server, slice_str("nonsense, not TLS"));
    run_loop_for(10);
    stream_set_owner(b.stream, on_event, &b);
    CHECK(b.failed == 0);
    run_loop(2000);
    CHECK(b.failed == 1);
    end_tls();
}

TEST(key_updates_in_both_directions_lose_nothing)
{
    begin_tls();
    secure();
    for (int i = 0; i < 20; i++) {
        CHECK(SSL_key_update(stream_tls(a.stream), SSL_KEY_UPDATE_REQUESTED) == 1);
        put(&a, "up");
    }
    b.stop_at = 40;
    stream_want(b.stream, true, false);
    run_loop(2000);
    CHECK(b.got_len == 40);
    put(&b, "down");
    a.stop_at = 4;
    stream_want(a.stream, true, false);
    run_loop(2000);
    CHECK(a.got_len == 4 && a.failed == 0 && b.failed == 0);
    end_tls();
}

/* Through a relay of this test. */
TEST(a_handshake_that_trickles_in_byte_by_byte_is_put_together)
{
    int fds[2];
    char wire[8192];
    begin_tls();
    tcp_pair(fds);
    struct stream *direct = a.stream;
    a.stream = stream_new(loop, fds[0], on_event, &a);
    stream_connect_tls(a.stream, client, "gw.example.test");
    stream_accept_tls(b.stream, server, slice_of(NULL, 0));
    int far = stream_raw_fd(direct);
    for (int i = 0; i < 20000 && !(a.secured && b.secured); i++) {
        size_t step = i < 400 ? 1 : sizeof wire;
        ssize_t n = recv(fds[1], wire, step, 0);
        if (n > 0)
            CHECK(send(far, wire, (size_t)n, 0) == n);
        n = recv(far, wire, step, 0);
        if (n > 0)
            CHECK(send(fds[1], wire, (size_t)n, 0) == n);
        run_loop_for(0);
    }
    CHECK(a.secured == 1 && b.secured == 1);
    stream_free(direct);
    close(fds[1]);
    end_tls();
}

#define RECORD_OF_THREE (5 + 3 + 1 + 16) /* header, bytes, kind, tag: TLS 1.3 */

static size_t
drain(int fd, char *wire, size_t size)
{
    ssize_t n = recv(fd, wire, size, 0);
    return n > 0 ? (size_t)n : 0;
}

/* One call may bring several records and a piece of the next: the whole ones are told, the piece is waited for, not asked for. */
TEST(records_that_come_together_are_all_told_and_a_piece_does_not_spin)
{
    int fds[2];
    char wire[8192];
    size_t n;
    begin_tls();
    tcp_pair(fds);
    struct stream *direct = a.stream;
    a.stream = stream_new(loop, fds[0], on_event, &a);
    stream_connect_tls(a.stream, client, "gw.example.test");
    stream_accept_tls(b.stream, server, slice_of(NULL, 0));
    int far = stream_raw_fd(direct);
    for (int i = 0; i < 1000 && !(a.secured && b.secured); i++) {
        n = drain(fds[1], wire, sizeof wire);
        CHECK(send(far, wire, n, 0) == (ssize_t)n);
        n = drain(far, wire, sizeof wire);
        CHECK(send(fds[1], wire, n, 0) == (ssize_t)n);
        run_loop_for(0);
    }
    b.read_at_most = 3;
    stream_want(b.stream, true, false);
    for (int i = 0; i < 3; i++)
        CHECK(stream_write_slice(a.stream, slice_str(i == 0 ? "one" : i == 1 ? "two" : "six"), &n) == STREAM_DONE && n == 3);
    size_t len = 0;
    for (int i = 0; i < 100 && len < 3 * RECORD_OF_THREE; i++, run_loop_for(1))
        len += drain(fds[1], wire + len, sizeof wire - len);
    CHECK_THAT(len == 3 * RECORD_OF_THREE, "%zu bytes", len);
    CHECK(send(far, wire, len - 10, 0) == (ssize_t)len - 10);
    run_loop_for(30);
    CHECK(b.got_len == 6 && memcmp(b.got, "onetwo", 6) == 0);
    CHECK_THAT(b.readable <= 4, "%d events", b.readable);
    CHECK(send(far, wire + len - 10, 10, 0) == 10);
    run_loop_for(30);
    CHECK(b.got_len == 9 && memcmp(b.got + 6, "six", 3) == 0);
    stream_free(direct);
    close(fds[1]);
    end_tls();
}

TEST(a_write_side_that_broke_does_not_spin)
{
    size_t n;
    begin();
    stream_want(b.stream, true, true);
    run_loop_for(2);
    b.writable = 0;
    stream_shutdown_write(b.stream);
    CHECK(stream_write_slice(b.stream, slice_str("x"), &n) == STREAM_ERROR);
    stream_want(b.stream, true, true);
    run_loop_for(20);
    CHECK_THAT(b.writable <= 1, "%d", b.writable);
    end();
}
