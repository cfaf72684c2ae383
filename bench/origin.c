/* A small origin server on loopback: answers every request head with the same 64 bytes and keeps
 * the connection. One thread. usage: origin PORT [ADDRESS] */
#include "bench/common.h"

#define BODY "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define EVENTS 256

static const char answer[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 64\r\n\r\n" BODY;
static unsigned char matched[65536]; /* by descriptor: how much of CRLF CRLF has been seen */

static void
accept_all(int epoll, int listener)
{
    int on = 1, fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= (int)sizeof matched) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        matched[fd] = 0;
        watch(epoll, fd, EPOLLIN, (void *)(intptr_t)fd, EPOLL_CTL_ADD);
    }
}

/* False: the connection is over. */
static bool
serve(int fd)
{
    char bytes[16384];
    ssize_t n = read(fd, bytes, sizeof bytes);
    if (n < 0)
        return errno == EAGAIN;
    for (ssize_t i = 0; i < n; i++) {
        char want = matched[fd] % 2 ? '\n' : '\r';
        matched[fd] = bytes[i] == want ? matched[fd] + 1 : bytes[i] == '\r';
        if (matched[fd] < 4)
            continue;
        matched[fd] = 0;
        if (write(fd, answer, sizeof answer - 1) != (ssize_t)sizeof answer - 1)
            return false; /* nobody here pipelines enough to fill a socket */
    }
    return n > 0;
}

int
main(int argc, char **argv)
{
    struct epoll_event events[EVENTS];
    if (argc < 2)
        return 2;
    begin_program(3600);
    int epoll = epoll_create1(EPOLL_CLOEXEC), listener = listen_on(argc > 2 ? argv[2] : "127.0.0.1", atoi(argv[1]));
    watch(epoll, listener, EPOLLIN, (void *)(intptr_t)listener, EPOLL_CTL_ADD);
    puts("ready");
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = (int)(intptr_t)events[i].data.ptr;
            if (fd == listener)
                accept_all(epoll, listener);
            else if (!serve(fd))
                close(fd);
        }
    }
}
