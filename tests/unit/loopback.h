/* For tests of the network layer: a loop with an end, real sockets on loopback, and a count of open descriptors. */
#ifndef TESTS_UNIT_LOOPBACK_H
#define TESTS_UNIT_LOOPBACK_H

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sallyport/net/loop.h"
#include "unit/test.h"

static struct loop *loop;
static bool loop_timed_out;

static inline void
stop_loop(void *arg)
{
    loop_timed_out |= arg != NULL;
    loop_stop(loop);
}

/* Runs until somebody stops the loop; after `ms` it is stopped, which fails the test unless the wait was the point. */
static inline void
run_loop(int64_t ms)
{
    struct timer limit = {0};
    loop_timed_out = false;
    timer_start(loop, &limit, ms, stop_loop, &loop_timed_out);
    loop_run(loop);
    timer_stop(&limit);
    CHECK_THAT(!loop_timed_out, "nothing happened in %lld ms", (long long)ms);
}

static inline void
run_loop_for(int64_t ms)
{
    struct timer limit = {0};
    timer_start(loop, &limit, ms, stop_loop, NULL);
    loop_run(loop);
    timer_stop(&limit);
}

static inline int
open_descriptors(void)
{
    int count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (dir && readdir(dir))
        count++;
    if (dir)
        closedir(dir);
    return count;
}

static inline int
listen_on_loopback(uint16_t *ret_port, int backlog)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof sa;
    if (fd < 0 || bind(fd, (struct sockaddr *)&sa, len) != 0 || listen(fd, backlog) != 0 ||
        getsockname(fd, (struct sockaddr *)&sa, &len) != 0)
        abort();
    *ret_port = ntohs(sa.sin_port);
    return fd;
}

static inline int
connect_to_loopback(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof sa) != 0)
        abort();
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* Two ends of one TCP connection, both non-blocking. */
static inline void
tcp_pair(int fds[2])
{
    uint16_t port;
    int listening = listen_on_loopback(&port, 1);
    fds[0] = connect_to_loopback(port);
    struct pollfd p = {.fd = listening, .events = POLLIN};
    poll(&p, 1, 1000);
    fds[1] = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fds[1] < 0)
        abort();
    close(listening);
}

#endif
