/* Datagrams with descriptors between the launcher and the sandbox's first process. Nothing that runs inside later ever holds
 * this socket. */
#include "sallyport/sandbox/talk.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

union control_space {
    struct cmsghdr head;
    char bytes[CMSG_SPACE((GATE_SOCKETS_MAX + 2) * sizeof(int))];
};

int
say(int fd, enum say what, const char *text, size_t text_len, const int *fds, size_t fd_count)
{
    unsigned char kind = (unsigned char)what;
    struct iovec parts[2] = {{&kind, 1}, {(void *)(uintptr_t)text, text_len}};
    struct msghdr m = {.msg_iov = parts, .msg_iovlen = text_len ? 2 : 1};
    union control_space space = {0};
    if (fd_count) {
        m.msg_control = space.bytes;
        m.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
    }
    return sendmsg(fd, &m, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

static void
take_fds(struct msghdr *m, struct said *ret)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        ret->fd_count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(ret->fds, CMSG_DATA(c), ret->fd_count * sizeof(int));
    }
}

int
hear(int fd, struct said *ret, int flags)
{
    unsigned char kind = 0;
    union control_space space;
    ret->text_len = ret->fd_count = 0;
    struct iovec parts[2] = {{&kind, 1}, {ret->text, SAY_TEXT_MAX}};
    struct msghdr m = {.msg_iov = parts, .msg_iovlen = 2, .msg_control = space.bytes, .msg_controllen = sizeof space.bytes};
    ssize_t got;
    do
        got = recvmsg(fd, &m, flags | MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got <= 0)
        return got < 0 && errno != ECONNRESET ? -1 : 0;
    ret->what = kind <= SAY_FAILED ? (enum say)kind : SAY_NOTHING;
    ret->text_len = (size_t)got - 1;
    ret->text[ret->text_len] = '\0';
    take_fds(&m, ret);
    return 1;
}
