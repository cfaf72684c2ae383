/* Messages between processes over SOCK_SEQPACKET: one frame a packet, {type, descriptor count, length} in front, both held
 * to what really arrived. A frame that lies ends the channel: between our own processes it is a bug or a taken process.
 * Whoever uses a channel judges which types may come; the channel does not. */
#include "sallyport/net/channel.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "sallyport/base/mem.h"

#define SEND_BUFFER (1024 * 1024)
#define DRAIN_MAX 65536 /* more frames than a queue of SEND_BUFFER bytes can hold */
#define BATCH_MAX 32 /* frames taken in one turn, so that a busy peer does not keep the others waiting */

struct frame_header {
    uint16_t type;
    uint16_t fd_count;
    uint32_t length; /* of the payload */
};

struct channel {
    struct loop *loop;
    struct event read_event;
    struct event *write_event; /* while CHANNEL_WRITABLE is wanted */
    channel_fn *on_event;
    void *owner;
    int fd;
    bool closed; /* told, or about to be */
    bool freed;
};

static void
channel_close(struct channel *c)
{
    if (c->closed || c->freed)
        return;
    c->closed = true;
    event_del(&c->read_event);
    channel_want_writable(c, false);
    c->on_event(c->owner, CHANNEL_CLOSED, NULL);
}

/* --- receiving --------------------------------------------------------------------------------------------------- */

static void
close_all(const int *fds, int count)
{
    for (int i = 0; i < count; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
}

/* Takes the descriptors out of the control messages; what does not fit is closed and makes the count too high. */
static int
take_fds(struct msghdr *msg, int fds[CHANNEL_FDS_MAX])
{
    int count = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++, count++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (count < CHANNEL_FDS_MAX)
                fds[count] = fd;
            else
                close(fd);
        }
    }
    return count;
}

/* 1: a frame; 0: nothing there now; -1: the end, or a frame that is none. */
static int
receive(struct channel *c, char *buffer, size_t size, struct frame *ret)
{
    struct frame_header header;
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * CHANNEL_FDS_MAX)];
    } control;
    struct iovec iov[2] = {{&header, sizeof header}, {buffer, size}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n;
    do
        n = recvmsg(c->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? 0 : -1;
    int count = take_fds(&msg, ret->fds);
    bool whole = (size_t)n >= sizeof header && !(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC));
    if (!whole || header.fd_count != count || count > CHANNEL_FDS_MAX ||
        header.length != (size_t)n - sizeof header || header.length > CHANNEL_FRAME_MAX) {
        close_all(ret->fds, count < CHANNEL_FDS_MAX ? count : CHANNEL_FDS_MAX);
        return -1;
    }
    ret->type = header.type;
    ret->fd_count = count;
    ret->payload = slice_of(buffer, header.length);
    return 1;
}

static void
take_frames(struct channel *c, int max)
{
    static char buffer[CHANNEL_FRAME_MAX + 1]; /* one thread; a frame is valid during its callback only */
    for (int i = 0; i < max && !c->freed && !c->closed; i++) {
        struct frame frame = {0};
        int got = receive(c, buffer, sizeof buffer, &frame);
        if (got == 0)
            return;
        if (got < 0) {
            channel_close(c);
            return;
        }
        int count = frame.fd_count;
        c->on_event(c->owner, CHANNEL_FRAME, &frame); /* may free the channel */
        close_all(frame.fds, count);
    }
}

static void
on_frames(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    take_frames(arg, BATCH_MAX);
}

void
channel_drain(struct channel *c)
{
    take_frames(c, DRAIN_MAX);
}

/* --- sending ----------------------------------------------------------------------------------------------------- */

bool
channel_send(struct channel *c, uint16_t type, struct slice payload, const int *fds, int fd_count)
{
    assert(payload.len <= CHANNEL_FRAME_MAX && fd_count >= 0 && fd_count <= CHANNEL_FDS_MAX);
    if (c->closed || c->freed)
        return false;
    struct frame_header header = {type, (uint16_t)fd_count, (uint32_t)payload.len};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * CHANNEL_FDS_MAX)];
    } control = {0};
    struct iovec iov[2] = {{&header, sizeof header}, {(void *)(uintptr_t)payload.ptr, payload.len}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = payload.len > 0 ? 2 : 1};
    if (fd_count > 0) {
        size_t bytes = sizeof(int) * (size_t)fd_count;
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(bytes);
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(bytes);
        memcpy(CMSG_DATA(cmsg), fds, bytes);
    }
    ssize_t n;
    do
        n = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    /* A packet goes whole or not at all. That the peer is gone is told by the reading side, when it has read what is left;
     * a peer that only stopped to read is as gone. */
    if (n < 0 && errno == EPIPE)
        shutdown(c->fd, SHUT_RD);
    return n >= 0;
}

static void
on_room(evutil_socket_t fd, short what, void *arg)
{
    struct channel *c = arg;
    (void)fd;
    (void)what;
    c->on_event(c->owner, CHANNEL_WRITABLE, NULL);
}

void
channel_want_writable(struct channel *c, bool want)
{
    if (want == (c->write_event != NULL) || (want && (c->closed || c->freed)))
        return;
    if (!want) {
        event_free(c->write_event);
        c->write_event = NULL;
        return;
    }
    c->write_event = event_new(loop_base(c->loop), c->fd, EV_WRITE | EV_PERSIST, on_room, c);
    if (!c->write_event || event_add(c->write_event, NULL) != 0)
        abort();
}

/* --- life -------------------------------------------------------------------------------------------------------- */

/* The kernel caps SO_SNDBUF by net.core.wmem_max for those who may not force it; what it grants still holds several
 * frames of the largest size. */
int
channel_pair(int fds[2])
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0)
        return -1;
    int size = SEND_BUFFER;
    for (int i = 0; i < 2; i++) {
        if (setsockopt(fds[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) != 0)
            setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    }
    return 0;
}

struct channel *
channel_new(struct loop *l, int fd, channel_fn *on_event, void *owner)
{
    struct channel *c = mem_zalloc(sizeof *c);
    c->loop = l;
    c->fd = fd;
    c->on_event = on_event;
    c->owner = owner;
    if (event_assign(&c->read_event, loop_base(l), fd, EV_READ | EV_PERSIST, on_frames, c) != 0 ||
        event_add(&c->read_event, NULL) != 0)
        abort();
    return c;
}

void
channel_free(struct channel *c)
{
    if (!c || c->freed)
        return;
    c->freed = true;
    event_del(&c->read_event);
    channel_want_writable(c, false);
    close(c->fd);
    loop_free_later(c->loop, c, free);
}

uint64_t
channel_id(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 ? (uint64_t)st.st_ino : 0;
}

int
channel_fd(const struct channel *c)
{
    return c->fd;
}
