/* The least that a forward proxy can do: answers every CONNECT to loopback with a tunnel, or a refusal, and copies bytes through one
 * buffer. It checks nothing, keeps no record and trusts its peers: a limit to measure against, nothing to use. One thread, one epoll.
 * usage: relay PORT ORIGIN_PORT...     (a CONNECT to any other port is refused) */
#include "bench/common.h"

#define EVENTS 256
#define BUFFER (256 * 1024)
#define TURN_MAX (512 * 1024) /* bytes of one side before others get their turn */
#define HEAD_MAX 20480
#define ORIGINS_MAX 8

struct side;

struct pair {
    struct side *client, *server;
    char *head; /* until the CONNECT is whole */
    size_t head_len;
    bool over;
    struct pair *next_over;
};

struct side {
    struct pair *pair;
    struct side *other;
    int fd;
    bool connecting, ended;
    char *held; /* read from this side, not taken by the other yet */
    size_t held_at, held_len;
};

static int epoll, origins[ORIGINS_MAX], origin_count;
static char buffer[BUFFER];
static struct pair *over;

static struct side *
side_new(struct pair *p, int fd, uint32_t events)
{
    struct side *s = calloc(1, sizeof *s);
    s->pair = p;
    s->fd = fd;
    watch(epoll, fd, events, s, EPOLL_CTL_ADD);
    return s;
}

static void
end_pair(struct pair *p)
{
    if (p->over)
        return;
    p->over = true;
    close(p->client->fd);
    if (p->server)
        close(p->server->fd);
    p->next_over = over;
    over = p;
}

static void
free_side(struct side *s)
{
    if (s)
        free(s->held);
    free(s);
}

static void
free_ended(void)
{
    while (over) {
        struct pair *p = over;
        over = p->next_over;
        free_side(p->client);
        free_side(p->server);
        free(p->head);
        free(p);
    }
}

/* False: the other side takes no more for now. */
static bool
flush(struct side *s)
{
    while (s->held_at < s->held_len) {
        ssize_t n = send(s->other->fd, s->held + s->held_at, s->held_len - s->held_at, MSG_NOSIGNAL);
        if (n < 0)
            return false;
        s->held_at += (size_t)n;
    }
    free(s->held);
    s->held = NULL;
    s->held_at = s->held_len = 0;
    return true;
}

static void
hold(struct side *s, const char *bytes, size_t len)
{
    s->held = malloc(len);
    memcpy(s->held, bytes, len);
    s->held_at = 0;
    s->held_len = len;
    watch(epoll, s->fd, 0, s, EPOLL_CTL_MOD);
    watch(epoll, s->other->fd, EPOLLIN | EPOLLOUT, s->other, EPOLL_CTL_MOD);
}

static void
copy(struct side *s)
{
    for (size_t moved = 0; moved < TURN_MAX && !s->held;) {
        ssize_t n = recv(s->fd, buffer, sizeof buffer, 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            s->ended = true;
            shutdown(s->other->fd, SHUT_WR);
            if (n < 0 || s->other->ended)
                end_pair(s->pair);
            else
                watch(epoll, s->fd, 0, s, EPOLL_CTL_MOD);
            return;
        }
        ssize_t sent = send(s->other->fd, buffer, (size_t)n, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) {
            end_pair(s->pair);
            return;
        }
        sent = sent < 0 ? 0 : sent;
        if (sent < n)
            hold(s, buffer + sent, (size_t)(n - sent));
        moved += (size_t)n;
        if ((size_t)n < sizeof buffer)
            return;
    }
}

static void
say(struct pair *p, const char *text)
{
    if (send(p->client->fd, text, strlen(text), MSG_NOSIGNAL) < 0)
        end_pair(p);
}

static void
dial(struct pair *p, int port)
{
    struct sockaddr_in sa = loopback(port);
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || (connect(fd, (struct sockaddr *)&sa, sizeof sa) != 0 && errno != EINPROGRESS)) {
        end_pair(p);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    p->server = side_new(p, fd, EPOLLOUT);
    p->server->connecting = true;
    p->server->other = p->client;
    p->client->other = p->server;
}

static void
read_head(struct pair *p)
{
    if (!p->head)
        p->head = malloc(HEAD_MAX);
    ssize_t n = recv(p->client->fd, p->head + p->head_len, HEAD_MAX - 1 - p->head_len, 0);
    if (n <= 0) {
        end_pair(p);
        return;
    }
    p->head_len += (size_t)n;
    p->head[p->head_len] = '\0';
    if (!strstr(p->head, "\r\n\r\n"))
        return;
    const char *colon = strchr(p->head, ':');
    int port = strncmp(p->head, "CONNECT ", 8) == 0 && colon ? atoi(colon + 1) : 0;
    free(p->head);
    p->head = NULL;
    for (int i = 0; i < origin_count; i++)
        if (origins[i] == port) {
            dial(p, port);
            return;
        }
    say(p, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    end_pair(p);
}

static void
on_side(struct side *s, uint32_t events)
{
    struct pair *p = s->pair;
    if (p->over)
        return;
    if (s->connecting) {
        s->connecting = false;
        watch(epoll, s->fd, EPOLLIN, s, EPOLL_CTL_MOD);
        say(p, "HTTP/1.1 200 OK\r\n\r\n");
        return;
    }
    if (!s->other) {
        read_head(p);
        return;
    }
    if ((events & EPOLLOUT) && s->other->held && flush(s->other)) {
        watch(epoll, s->fd, EPOLLIN, s, EPOLL_CTL_MOD);
        watch(epoll, s->other->fd, EPOLLIN, s->other, EPOLL_CTL_MOD);
    }
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !s->held && !s->ended && !s->other->connecting)
        copy(s);
    if (!p->over && (events & EPOLLERR))
        end_pair(p);
}

static void
accept_all(int listener)
{
    int on = 1, fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct pair *p = calloc(1, sizeof *p);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        p->client = side_new(p, fd, EPOLLIN);
    }
}

int
main(int argc, char **argv)
{
    struct epoll_event events[EVENTS];
    if (argc < 3 || argc > 2 + ORIGINS_MAX)
        return 2;
    begin_program(3600);
    for (int i = 2; i < argc; i++)
        origins[origin_count++] = atoi(argv[i]);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_on("127.0.0.1", atoi(argv[1]));
    watch(epoll, listener, EPOLLIN, NULL, EPOLL_CTL_ADD);
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            if (!events[i].data.ptr)
                accept_all(listener);
            else
                on_side(events[i].data.ptr, events[i].events);
        }
        free_ended();
    }
}
