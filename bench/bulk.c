/* Bytes without end, through tunnels. One thread, one epoll.
 *
 * usage: bulk origin PORT                                      a `d` as first byte asks for bytes, a `u` brings them
 *        bulk down|up PROXY_PORT ORIGIN_PORT TUNNELS SECONDS [TOKENS]
 *                                                              prints one JSON object; the first token of the file serves all
 */
#include "bench/common.h"

#define EVENTS 256
#define CHUNK (256 * 1024)
#define TURN_CHUNKS 4 /* of one connection before others get their turn */
#define HEAD_MAX 20480

enum state { STATE_CONNECTING = 1, STATE_ANSWER, STATE_ASKED, STATE_SENDING, STATE_DRAINING };

struct end {
    int fd;
    enum state state;
};

static int epoll;
static char chunk[CHUNK];
static uint64_t moved, errors;

static void
enter(struct end *e, enum state state, uint32_t events)
{
    e->state = state;
    watch(epoll, e->fd, events, e, EPOLL_CTL_MOD);
}

static void
drop(struct end *e)
{
    close(e->fd);
    e->fd = -1;
}

/* True while the connection lives. Received bytes are thrown away in the kernel. */
static bool
move(struct end *e)
{
    for (int i = 0; i < TURN_CHUNKS; i++) {
        ssize_t n = e->state == STATE_SENDING ? send(e->fd, chunk, sizeof chunk, MSG_NOSIGNAL)
                                              : recv(e->fd, NULL, 16 * sizeof chunk, MSG_TRUNC);
        if (n < 0 && errno == EAGAIN)
            return true;
        if (n <= 0)
            return false;
        moved += (uint64_t)n;
    }
    return true;
}

/* ---- the origin ---- */

static void
accept_all(int listener)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct end *e = calloc(1, sizeof *e);
        *e = (struct end){.fd = fd, .state = STATE_ASKED};
        watch(epoll, fd, EPOLLIN, e, EPOLL_CTL_ADD);
    }
}

static bool
on_accepted(struct end *e)
{
    char what;
    if (e->state != STATE_ASKED)
        return move(e);
    if (recv(e->fd, &what, 1, 0) != 1)
        return false;
    enter(e, what == 'd' ? STATE_SENDING : STATE_DRAINING, what == 'd' ? EPOLLOUT : EPOLLIN);
    return true;
}

static void __attribute__((noreturn))
be_origin(int port)
{
    struct epoll_event events[EVENTS];
    int listener = listen_on("127.0.0.1", port);
    watch(epoll, listener, EPOLLIN, NULL, EPOLL_CTL_ADD);
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct end *e = events[i].data.ptr;
            if (!e)
                accept_all(listener);
            else if (!on_accepted(e)) {
                drop(e);
                free(e); /* one event a descriptor and turn */
            }
        }
    }
}

/* ---- the load ---- */

static char head[HEAD_MAX];
static bool downwards;

static void
make_head(int origin_port, const char *tokens)
{
    char token[HEAD_MAX / 2] = "";
    int n = snprintf(head, sizeof head, "CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n", origin_port, origin_port);
    FILE *f = tokens ? fopen(tokens, "r") : NULL;
    if (tokens && (!f || !fgets(token, sizeof token, f)))
        die(tokens);
    if (f) {
        token[strcspn(token, "\n")] = '\0';
        n += snprintf(head + n, sizeof head - (size_t)n, "Proxy-Authorization: Bearer %s\r\n", token);
        fclose(f);
    }
    snprintf(head + n, sizeof head - (size_t)n, "\r\n");
}

static bool
on_dialed(struct end *e)
{
    char answer[1024];
    switch (e->state) {
    case STATE_CONNECTING:
        enter(e, STATE_ANSWER, EPOLLIN);
        return send(e->fd, head, strlen(head), MSG_NOSIGNAL) == (ssize_t)strlen(head);
    case STATE_ANSWER: {
        ssize_t n = recv(e->fd, answer, sizeof answer - 1, 0);
        if (n < 12 || memcmp(answer + 8, " 200", 4) != 0)
            return false;
        enter(e, downwards ? STATE_DRAINING : STATE_SENDING, downwards ? EPOLLIN : EPOLLOUT);
        return send(e->fd, downwards ? "d" : "u", 1, MSG_NOSIGNAL) == 1;
    }
    case STATE_SENDING:
    case STATE_DRAINING:
        return move(e);
    case STATE_ASKED:
        break;
    }
    return false;
}

static void
start(struct end *e, int port)
{
    struct sockaddr_in sa = loopback(port);
    *e = (struct end){.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), .state = STATE_CONNECTING};
    if (e->fd < 0 || (connect(e->fd, (struct sockaddr *)&sa, sizeof sa) != 0 && errno != EINPROGRESS))
        die("connect");
    watch(epoll, e->fd, EPOLLOUT, e, EPOLL_CTL_ADD);
}

static int
be_load(int proxy_port, int tunnels, double seconds)
{
    struct epoll_event events[EVENTS];
    struct end *ends = calloc((size_t)tunnels, sizeof *ends);
    for (int i = 0; i < tunnels; i++)
        start(&ends[i], proxy_port);
    int64_t begin = now_us(), end = begin + (int64_t)(seconds * 1e6);
    while (now_us() < end) {
        int count = epoll_wait(epoll, events, EVENTS, 10);
        for (int i = 0; i < count; i++) {
            struct end *e = events[i].data.ptr;
            if (!on_dialed(e)) {
                errors++;
                drop(e);
            }
        }
    }
    double took = (double)(now_us() - begin) / 1e6;
    printf("{\"ops\":%.3f,\"errors\":%llu,\"seconds\":%.3f}\n", (double)moved / 1e9, (unsigned long long)errors, took);
    return 0;
}

int
main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (strcmp(argv[1], "origin") == 0) {
        begin_program(3600);
        be_origin(atoi(argv[2]));
    }
    if (argc < 6)
        return 2;
    begin_program(300);
    downwards = strcmp(argv[1], "down") == 0;
    make_head(atoi(argv[3]), argc > 6 ? argv[6] : NULL);
    return be_load(atoi(argv[2]), atoi(argv[4]), atof(argv[5]));
}
