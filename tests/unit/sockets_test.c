/* Listening sockets as the supervisor keeps them: what a worker that was taken over did to its own is mended. */
#include "sallyport/process/sockets.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <unistd.h>

#include "sallyport/base/mem.h"
#include "unit/test.h"

static struct listener_settings on_loopback = {.name = (char[]){"main"}, .address = (char[]){"127.0.0.1:0"}};
static struct listener_settings passed_in = {.name = (char[]){"main"}, .fd_name = (char[]){"door"}};

static bool
listens(int fd)
{
    int on = 0;
    socklen_t len = sizeof on;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len) == 0 && on;
}

static bool
can_connect(const struct socket_row *row)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bool fine = connect(fd, (const struct sockaddr *)&row->address, sizeof(struct sockaddr_in)) == 0;
    close(fd);
    return fine;
}

static void
mend_one_of(size_t slots)
{
    struct sockets s;
    struct err err = {0};
    struct settings set = {.listener_count = 1, .listeners = &on_loopback};
    CHECK_THAT(sockets_open(&set, slots, NULL, &s, &err) == 0, "%s", err.text);
    struct socket_row *row = &s.rows[0];
    in_port_t port = ((struct sockaddr_in *)&row->address)->sin_port;
    int other = slots > 1 ? row->fds[0] : -1;
    CHECK(sockets_mend(&s, slots - 1) == 0 && listens(row->fds[slots - 1]));
    /* The worker's copy is the same socket. */
    int copy = dup(row->fds[slots - 1]);
    CHECK(shutdown(copy, SHUT_RDWR) == 0 && !listens(row->fds[slots - 1]));
    close(copy);
    CHECK(slots > 1 || !can_connect(row));
    CHECK(sockets_mend(&s, slots - 1) == 0 && listens(row->fds[slots - 1]));
    struct sockaddr_in now;
    socklen_t len = sizeof now;
    CHECK(getsockname(row->fds[slots - 1], (struct sockaddr *)&now, &len) == 0 && now.sin_port == port);
    CHECK(fcntl(row->fds[slots - 1], F_GETFD) == FD_CLOEXEC && (fcntl(row->fds[slots - 1], F_GETFL) & O_NONBLOCK));
    for (int i = 0; i < 20; i++)
        CHECK(can_connect(row));
    CHECK(other < 0 || (row->fds[0] == other && listens(other)));
    CHECK(sockets_mend(&s, 99) == 0); /* no such slot */
    sockets_close(&s);
}

TEST(a_door_that_was_shut_is_opened_anew)
{
    mend_one_of(1);
    mend_one_of(3);
}

TEST(a_passed_socket_that_was_shut_is_an_alarm)
{
    struct sockets s;
    struct err err = {0};
    struct settings set = {.listener_count = 1, .listeners = &passed_in};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    CHECK(bind(fd, (struct sockaddr *)&to, sizeof to) == 0 && listen(fd, 4) == 0);
    struct passed_fds passed = {.items = {{(char[]){"door"}, fd}}, .count = 1};
    CHECK_THAT(sockets_open(&set, 2, &passed, &s, &err) == 0, "%s", err.text);
    CHECK(sockets_mend(&s, 1) == 0);
    CHECK(shutdown(fd, SHUT_RDWR) == 0);
    CHECK(sockets_mend(&s, 1) == 1 && sockets_mend(&s, 0) == 1);
    sockets_close(&s);
    close(fd);
}
