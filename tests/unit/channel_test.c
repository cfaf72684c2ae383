/* Channels: frames whole, descriptors passed and closed, lies ended. */
#include "sallyport/net/channel.h"

#include <sys/uio.h>

#include "unit/loopback.h"

static struct channel *left, *right;
static int closed_events, frames, writables;
static uint16_t last_type;
static char last_payload[CHANNEL_FRAME_MAX];
static size_t last_len;
static int last_fd_count, kept_fd = -1;
static bool keep_fd, free_inside;

static void
on_event(void *owner, enum channel_event event, struct frame *frame)
{
    (void)owner;
    switch (event) {
    case CHANNEL_FRAME:
        frames++;
        last_type = frame->type;
        last_len = frame->payload.len;
        memcpy(last_payload, frame->payload.ptr, last_len);
        last_fd_count = frame->fd_count;
        if (keep_fd && frame->fd_count > 0) {
            kept_fd = frame->fds[0];
            frame->fds[0] = -1;
        }
        if (free_inside) {
            channel_free(right);
            right = NULL;
        }
        break;
    case CHANNEL_WRITABLE:
        writables++;
        break;
    case CHANNEL_CLOSED:
        closed_events++;
        break;
    }
    loop_stop(loop);
}

/* The right end is a channel; the left one too when both, else a bare descriptor to write lies to. */
static int
begin(bool both)
{
    int fds[2];
    loop = loop_new();
    closed_events = frames = writables = last_fd_count = 0;
    keep_fd = free_inside = false;
    CHECK(channel_pair(fds) == 0);
    CHECK(fcntl(fds[0], F_GETFD) == FD_CLOEXEC && (fcntl(fds[0], F_GETFL) & O_NONBLOCK));
    right = channel_new(loop, fds[1], on_event, NULL);
    left = both ? channel_new(loop, fds[0], on_event, NULL) : NULL;
    return fds[0];
}

static void
end(void)
{
    channel_free(left);
    channel_free(right);
    left = right = NULL;
    loop_free(loop);
}

TEST(a_frame_arrives_whole)
{
    int before = open_descriptors();
    begin(true);
    CHECK(channel_send(left, 7, slice_str("hello"), NULL, 0));
    CHECK(frames == 0);
    run_loop(2000);
    CHECK(frames == 1 && last_type == 7 && last_len == 5 && memcmp(last_payload, "hello", 5) == 0);
    CHECK(channel_send(left, 8, slice_of(NULL, 0), NULL, 0));
    run_loop(2000);
    CHECK(frames == 2 && last_type == 8 && last_len == 0);
    end();
    CHECK(open_descriptors() == before);
}

TEST(the_largest_frame_fits)
{
    static char big[CHANNEL_FRAME_MAX];
    memset(big, 'x', sizeof big);
    begin(true);
    CHECK(channel_send(left, 1, slice_of(big, sizeof big), NULL, 0));
    run_loop(2000);
    CHECK(last_len == sizeof big && memcmp(last_payload, big, sizeof big) == 0);
    end();
}

TEST(descriptors_that_are_not_taken_are_closed)
{
    int before = open_descriptors(), fds[CHANNEL_FDS_MAX];
    begin(true);
    for (int i = 0; i < CHANNEL_FDS_MAX; i++)
        fds[i] = channel_fd(left);
    int open_now = open_descriptors();
    CHECK(channel_send(left, 1, slice_str("x"), fds, CHANNEL_FDS_MAX));
    run_loop(2000);
    CHECK(last_fd_count == CHANNEL_FDS_MAX && open_descriptors() == open_now);
    keep_fd = true;
    CHECK(channel_send(left, 1, slice_str("x"), fds, 3));
    run_loop(2000);
    CHECK(last_fd_count == 3 && open_descriptors() == open_now + 1);
    CHECK(fcntl(kept_fd, F_GETFD) == FD_CLOEXEC);
    close(kept_fd);
    end();
    CHECK(open_descriptors() == before);
}

TEST(descriptors_are_closed_when_the_channel_is_freed_inside)
{
    int before = open_descriptors();
    begin(true);
    int fd = channel_fd(left);
    free_inside = true;
    CHECK(channel_send(left, 1, slice_str("x"), &fd, 1));
    CHECK(channel_send(left, 1, slice_str("y"), &fd, 1));
    run_loop(2000);
    CHECK(frames == 1);
    end();
    CHECK(open_descriptors() == before);
}

struct lie {
    const char *what;
    unsigned char bytes[16];
    size_t len;
    int fds; /* sent with it */
};

TEST(frames_that_lie_end_the_channel_and_leak_nothing)
{
    static const struct lie lies[] = {
        {"no header", {1, 0, 0}, 3, 0},
        {"an empty packet", {0}, 0, 0},
        {"an empty packet with a descriptor", {0}, 0, 1},
        {"no header, with a descriptor", {1, 0, 0}, 3, 1},
        {"longer than it says", {1, 0, 0, 0, 1, 0, 0, 0, 'a', 'b'}, 10, 0},
        {"shorter than it says", {1, 0, 0, 0, 3, 0, 0, 0, 'a', 'b'}, 10, 0},
        {"huge length", {1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, 8, 0},
        {"promises a descriptor", {1, 0, 1, 0, 0, 0, 0, 0}, 8, 0},
        {"hides a descriptor", {1, 0, 0, 0, 0, 0, 0, 0}, 8, 1},
        {"hides descriptors", {1, 0, 1, 0, 0, 0, 0, 0}, 8, 2},
        {"more than there may be", {1, 0, 17, 0, 0, 0, 0, 0}, 8, 17},
        {"many more", {1, 0, 16, 0, 0, 0, 0, 0}, 8, 100},
    };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        const struct lie *lie = &lies[i];
        int before = open_descriptors();
        int fd = begin(false);
        union {
            struct cmsghdr align;
            char bytes[CMSG_SPACE(sizeof(int) * 100)];
        } control = {0};
        struct iovec iov = {(void *)(uintptr_t)lie->bytes, lie->len};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
        if (lie->fds) {
            msg.msg_control = &control;
            msg.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)lie->fds);
            struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
            *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
            c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)lie->fds);
            for (int k = 0; k < lie->fds; k++)
                memcpy(CMSG_DATA(c) + (size_t)k * sizeof fd, &fd, sizeof fd);
        }
        CHECK(sendmsg(fd, &msg, 0) == (ssize_t)lie->len);
        run_loop(2000);
        CHECK_THAT(frames == 0 && closed_events == 1, "%s", lie->what);
        run_loop_for(5);
        CHECK_THAT(closed_events == 1, "%s", lie->what);
        close(fd);
        end();
        CHECK_THAT(open_descriptors() == before, "%s", lie->what);
    }
}

TEST(an_oversized_packet_ends_the_channel)
{
    static char big[CHANNEL_FRAME_MAX + 100];
    int fd = begin(false);
    uint32_t length = sizeof big - 8;
    big[0] = 1;
    memcpy(big + 4, &length, sizeof length);
    CHECK(send(fd, big, sizeof big, 0) == (ssize_t)sizeof big);
    run_loop(2000);
    CHECK(frames == 0 && closed_events == 1);
    close(fd);
    end();
}

TEST(a_peer_that_is_gone_is_told_once_after_its_last_frame)
{
    begin(true);
    CHECK(channel_send(left, 1, slice_str("last"), NULL, 0));
    channel_free(left);
    left = NULL;
    run_loop(2000);
    CHECK(frames == 1);
    if (closed_events == 0)
        run_loop(2000);
    CHECK(closed_events == 1);
    CHECK(!channel_send(right, 1, slice_str("x"), NULL, 0));
    run_loop_for(5);
    CHECK(closed_events == 1);
    end();
}

TEST(a_full_queue_refuses_and_says_when_there_is_room)
{
    static char big[CHANNEL_FRAME_MAX];
    int fds[2], sent = 0;
    loop = loop_new();
    writables = 0;
    CHECK(channel_pair(fds) == 0);
    left = channel_new(loop, fds[0], on_event, NULL);
    while (sent < 1000 && channel_send(left, 1, slice_of(big, sizeof big), NULL, 0))
        sent++;
    CHECK_THAT(sent >= 3 && sent < 1000, "%d", sent);
    channel_want_writable(left, true);
    run_loop_for(10);
    CHECK(writables == 0);
    while (recv(fds[1], big, sizeof big, 0) > 0)
        ;
    run_loop(2000);
    CHECK(writables >= 1);
    channel_want_writable(left, false);
    int before = writables;
    run_loop_for(5);
    CHECK(writables == before);
    close(fds[1]);
    end();
}

TEST(a_flood_of_frames_does_not_keep_timers_from_running)
{
    int fds[2];
    loop = loop_new();
    frames = 0;
    CHECK(channel_pair(fds) == 0);
    right = channel_new(loop, fds[1], on_event, NULL);
    static const char frame[8] = {1};
    int sent = 0;
    while (sent < 200 && send(fds[0], frame, sizeof frame, MSG_DONTWAIT) == (ssize_t)sizeof frame)
        sent++;
    run_loop(2000); /* stopped by the first frame; the turn takes a batch */
    CHECK_THAT(sent == 200 && frames > 0 && frames <= 32, "%d of %d", frames, sent);
    close(fds[0]);
    left = NULL;
    end();
}
