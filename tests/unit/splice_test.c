/* Pipes between real sockets: what goes in comes out, ends and resets are told, no more pipes than the cap, and none where
 * they do not pay or the kernel refuses. */
#include "sallyport/net/splice.h"

#include <errno.h>
#include <grp.h>
#include <seccomp.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "sallyport/base/mem.h"
#include "unit/loopback.h"

#define BULK ((size_t)8 << 20)
#define KEPT_AT_MOST 16

/* far[0] — from, to — far[1]: the far ends are the test's. */
static struct stream *from, *to;
static int far[2];
static struct splicer *splicer;

static void
on_event(void *owner, enum stream_event event)
{
    (void)owner, (void)event;
}

static void
begin(void)
{
    int a[2], b[2];
    loop = loop_new();
    tcp_pair(a);
    tcp_pair(b);
    far[0] = a[0];
    far[1] = b[0];
    from = stream_new(loop, a[1], on_event, NULL);
    to = stream_new(loop, b[1], on_event, NULL);
    splicer = splicer_new();
}

static void
end(void)
{
    splicer_free(splicer);
    stream_free(from);
    stream_free(to);
    close(far[0]);
    close(far[1]);
    loop_free(loop);
}

static enum stream_io
pull_when_there(struct splice *p, size_t max, size_t *ret_len)
{
    struct pollfd there = {.fd = stream_raw_fd(from), .events = POLLIN};
    poll(&there, 1, 2000);
    return splice_pull(p, from, max, ret_len);
}

static unsigned char
byte_at(size_t i)
{
    return (unsigned char)(i * 31 + i / 251 + i / 65536);
}

static size_t
send_some(size_t at)
{
    unsigned char data[65536];
    size_t n = BULK - at < sizeof data ? BULK - at : sizeof data;
    for (size_t i = 0; i < n; i++)
        data[i] = byte_at(at + i);
    ssize_t sent = send(far[0], data, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent > 0 ? (size_t)sent : 0;
}

/* False when a byte is not the one that belongs there. */
static bool
receive_some(size_t *at, size_t most)
{
    unsigned char data[65536];
    ssize_t got = recv(far[1], data, most < sizeof data ? most : sizeof data, MSG_DONTWAIT);
    for (ssize_t i = 0; i < got; i++)
        if (data[i] != byte_at((*at)++))
            return false;
    return true;
}

TEST(every_byte_arrives_in_order_at_a_slow_reader)
{
    size_t sent = 0, received = 0, pushed_short = 0, pulled = 0;
    begin();
    struct splice *p = splice_take(splicer, from, to);
    CHECK(p);
    for (int turns = 0; p && received < BULK && turns < 1000000; turns++) {
        size_t got = 0;
        sent += send_some(sent);
        if (splice_len(p) == 0 && splice_pull(p, from, 300000, &got) == STREAM_DONE)
            CHECK(got > 0 && got <= 300000 && splice_len(p) == got);
        pulled += got;
        if (splice_len(p) > 0) {
            CHECK(splice_push(p, to) != STREAM_ERROR);
            pushed_short += splice_len(p) > 0;
        }
        if (turns % 8 == 0 && !receive_some(&received, 50000))
            break;
    }
    CHECK(sent == BULK && pulled == BULK && received == BULK);
    CHECK(pushed_short > 0); /* it was slow enough to matter */
    CHECK(splice_len(p) == 0);
    splice_give(p);
    end();
}

TEST(nothing_yet_an_end_and_a_reset)
{
    size_t got = 0;
    begin();
    struct splice *p = splice_take(splicer, from, to);
    CHECK(splice_pull(p, from, SIZE_MAX, &got) == STREAM_AGAIN && splice_len(p) == 0);
    CHECK(send(far[0], "last", 4, 0) == 4);
    shutdown(far[0], SHUT_WR);
    CHECK(pull_when_there(p, SIZE_MAX, &got) == STREAM_DONE && got == 4);
    CHECK(splice_push(p, to) == STREAM_DONE && splice_len(p) == 0);
    CHECK(pull_when_there(p, SIZE_MAX, &got) == STREAM_EOF);
    splice_give(p);
    end();

    struct linger now = {.l_onoff = 1, .l_linger = 0};
    begin();
    p = splice_take(splicer, from, to);
    setsockopt(far[0], SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(far[0]);
    CHECK(pull_when_there(p, SIZE_MAX, &got) == STREAM_ERROR);
    splice_give(p);
    far[0] = -1;
    end();
}

TEST(a_peer_that_is_gone_is_an_error_and_no_signal)
{
    size_t got = 0;
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    begin(); /* the loop ignores SIGPIPE */
    struct splice *p = splice_take(splicer, from, to);
    CHECK(send(far[0], "lost", 4, 0) == 4 && pull_when_there(p, SIZE_MAX, &got) == STREAM_DONE);
    setsockopt(far[1], SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(far[1]);
    far[1] = -1;
    CHECK(splice_push(p, to) == STREAM_ERROR && splice_len(p) == 4);
    CHECK(splice_push(p, to) == STREAM_ERROR);
    splice_give(p);
    end();
}

/* The bytes of one tunnel never come out in another. */
TEST(a_pipe_with_bytes_in_it_is_not_used_again)
{
    size_t got = 0;
    begin();
    int before = open_descriptors();
    struct splice *p = splice_take(splicer, from, to);
    CHECK(open_descriptors() == before + 2);
    CHECK(send(far[0], "secret", 6, 0) == 6 && pull_when_there(p, SIZE_MAX, &got) == STREAM_DONE);
    splice_give(p);
    CHECK(open_descriptors() == before);
    p = splice_take(splicer, from, to);
    CHECK(splice_len(p) == 0);
    CHECK(send(far[0], "mine", 4, 0) == 4 && pull_when_there(p, SIZE_MAX, &got) == STREAM_DONE && got == 4);
    CHECK(splice_push(p, to) == STREAM_DONE);
    char data[16];
    struct pollfd there = {.fd = far[1], .events = POLLIN};
    poll(&there, 1, 2000);
    CHECK(recv(far[1], data, sizeof data, 0) == 4 && memcmp(data, "mine", 4) == 0);
    splice_give(p);
    CHECK(open_descriptors() == before + 2); /* an empty one is kept */
    splice_give(NULL);
    end();
}

TEST(no_more_than_the_cap_are_lent_and_few_are_kept)
{
    struct splice *lent[SPLICE_PIPES_MAX];
    begin();
    int before = open_descriptors(), count = 0;
    while (count < SPLICE_PIPES_MAX && (lent[count] = splice_take(splicer, from, to)))
        count++;
    /* A user without privileges may have fewer when others of the same user have some. */
    CHECK(geteuid() != 0 || count == SPLICE_PIPES_MAX);
    CHECK(open_descriptors() == before + 2 * count);
    CHECK(!splice_take(splicer, from, to));
    CHECK(open_descriptors() == before + 2 * count);
    splice_give(lent[--count]);
    CHECK((lent[count] = splice_take(splicer, from, to)));
    count++;
    while (count > 0)
        splice_give(lent[--count]);
    CHECK(open_descriptors() <= before + 2 * KEPT_AT_MOST);
    splicer_free(splicer);
    CHECK(open_descriptors() == before);
    splicer = splicer_new();
    end();
}

TEST(without_descriptors_there_is_no_pipe)
{
    struct rlimit files, none;
    begin();
    getrlimit(RLIMIT_NOFILE, &files);
    none = files;
    none.rlim_cur = 0;
    setrlimit(RLIMIT_NOFILE, &none);
    CHECK(!splice_take(splicer, from, to));
    setrlimit(RLIMIT_NOFILE, &files);
    struct splice *p = splice_take(splicer, from, to);
    CHECK(p);
    splice_give(p);
    end();
}

TEST(tls_is_never_spliced)
{
    begin();
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    stream_accept_tls(to, context, slice_of("", 0));
    CHECK(!splice_take(splicer, from, to) && !splice_take(splicer, to, from));
    end();
    SSL_CTX_free(context);
}

/* Runs `body` in a child that may give up what this process still needs. Its result: 0 fine, 77 cannot be tried. */
static int
in_a_child(int (*body)(void))
{
    int status = 0;
    pid_t child = fork();
    if (child == 0)
        _exit(body());
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

#define STRANGER 61234 /* a user that has no pipes yet */

static int
use_up_the_users_pipes(void)
{
    if (setgroups(0, NULL) != 0 || setresgid(STRANGER, STRANGER, STRANGER) != 0 || setresuid(STRANGER, STRANGER, STRANGER) != 0)
        return 77;
    for (int i = 0; i < 4096; i++) {
        int ends[2];
        if (pipe(ends) != 0)
            return 77;
        if (fcntl(ends[1], F_SETPIPE_SZ, 1 << 20) < 0 && errno == EPERM && fcntl(ends[1], F_GETPIPE_SZ) < 65536)
            break; /* past the soft limit: new ones are tiny and do not grow */
    }
    int before = open_descriptors();
    return splice_take(splicer, from, to) == NULL && open_descriptors() == before ? 0 : 1;
}

TEST(a_pipe_that_may_not_grow_is_not_worth_it)
{
    if (geteuid() != 0)
        SKIP("only root can become a user without pipes");
    begin();
    int result = in_a_child(use_up_the_users_pipes);
    end();
    if (result == 77)
        SKIP("no other user here, or no limit for pipes");
    CHECK(result == 0);
}

static int
be_refused(void)
{
    size_t got = 0;
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);
    if (!f || seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(splice), 0) != 0 || seccomp_load(f) != 0)
        return 77;
    seccomp_release(f);
    struct splice *p = splice_take(splicer, from, to);
    if (!p || splice_pull(p, from, SIZE_MAX, &got) != STREAM_AGAIN || splice_len(p) != 0)
        return 1;
    splice_give(p);
    char data[16];
    /* What has come is still there to be copied. */
    return splice_take(splicer, from, to) || stream_read(from, data, sizeof data, &got) != STREAM_DONE || got != 5;
}

TEST(where_splice_is_refused_no_pipe_is_lent_again)
{
    begin();
    CHECK(send(far[0], "bytes", 5, 0) == 5);
    struct pollfd there = {.fd = stream_raw_fd(from), .events = POLLIN};
    poll(&there, 1, 2000);
    int result = in_a_child(be_refused);
    end();
    if (result == 77)
        SKIP("no filter of system calls here");
    CHECK(result == 0);
}

/* ---- in the loop, as a tunnel uses them ---- */

static size_t moved;

static void
carry(void)
{
    size_t got = 0;
    struct splice *p = splice_take(splicer, from, to);
    while (p && splice_pull(p, from, 4096, &got) == STREAM_DONE && splice_push(p, to) == STREAM_DONE)
        moved += got;
    splice_give(p);
    char data[64];
    while (!p && stream_read(from, data, sizeof data, &got) == STREAM_DONE)
        moved += got;
}

static void
on_urgent(void *owner, enum stream_event event)
{
    (void)owner, (void)event;
    carry();
}

TEST(urgent_data_does_not_hold_back_what_is_behind_it)
{
    begin();
    moved = 0;
    stream_set_owner(from, on_urgent, NULL);
    stream_want(from, true, false);
    CHECK(send(far[0], "ab", 2, 0) == 2 && send(far[0], "!", 1, MSG_OOB) == 1 && send(far[0], "cd", 2, 0) == 2);
    run_loop_for(50);
    CHECK(send(far[0], "ef", 2, 0) == 2);
    run_loop_for(50);
    CHECK(moved == 6);
    end();
}
