/* The least that inspection can cost: a proxy that answers CONNECT, holds a TLS session to each
 * side, and copies what it decrypts. It looks at nothing, verifies nothing, records nothing, and
 * dials the origin on loopback whatever the name. One thread.
 * usage: tlsrelay PORT ORIGIN_PORT CERT KEY */
#include "bench/tls.h"

#define EVENTS 256
#define HEAD_MAX 32768

struct pair;

/* One side. What has been read from it lies in `bytes` until the other side has taken it. */
struct side {
    struct pair *pair;
    struct side *other;
    int fd;
    SSL *ssl;
    uint32_t watched;
    bool blocked; /* its socket takes no more */
    size_t from, till;
    char bytes[RECORD_LEN];
};

struct pair {
    struct side client, server;
    bool tunnel, dead;
    size_t head_len;
    char head[HEAD_MAX];
    struct pair *next_dead;
};

static SSL_CTX *towards_client, *towards_server;
static int epoll, origin_port;
static struct pair *dead;

static void
bury(struct pair *p)
{
    if (p->dead)
        return;
    p->dead = true;
    p->next_dead = dead;
    dead = p;
}

/* At the end of a turn: an event of the same turn may still name the pair. */
static void
free_dead(void)
{
    while (dead) {
        struct pair *p = dead;
        struct side *sides[] = {&p->client, &p->server};
        dead = p->next_dead;
        for (int i = 0; i < 2; i++) {
            SSL_free(sides[i]->ssl);
            if (sides[i]->fd >= 0)
                close(sides[i]->fd);
        }
        free(p);
    }
}

static void
begin_side(struct side *s, SSL_CTX *ctx, bool serve)
{
    int on = 1;
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    s->ssl = SSL_new(ctx);
    SSL_set_fd(s->ssl, s->fd);
    if (serve)
        SSL_set_accept_state(s->ssl);
    else
        SSL_set_connect_state(s->ssl);
}

static void
accept_all(int listener)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct pair *p = calloc(1, sizeof *p);
        p->client = (struct side){.pair = p, .other = &p->server, .fd = fd, .watched = EPOLLIN};
        p->server = (struct side){.pair = p, .other = &p->client, .fd = -1, .watched = EPOLLIN};
        watch(epoll, fd, EPOLLIN, &p->client, EPOLL_CTL_ADD);
    }
}

static bool
open_tunnel(struct pair *p)
{
    static const char yes[] = "HTTP/1.1 200 Connection established\r\n\r\n";
    struct sockaddr_in sa = loopback(origin_port);
    ssize_t n = read(p->client.fd, p->head + p->head_len, HEAD_MAX - p->head_len);
    if (n <= 0)
        return n < 0 && errno == EAGAIN;
    p->head_len += (size_t)n;
    if (p->head_len < 4 || memcmp(p->head + p->head_len - 4, "\r\n\r\n", 4) != 0)
        return p->head_len < HEAD_MAX;
    p->server.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connect(p->server.fd, (struct sockaddr *)&sa, sizeof sa) != 0 && errno != EINPROGRESS)
        return false;
    begin_side(&p->client, towards_client, true);
    begin_side(&p->server, towards_server, false);
    watch(epoll, p->server.fd, EPOLLIN | EPOLLOUT, &p->server, EPOLL_CTL_ADD);
    p->server.watched = EPOLLIN | EPOLLOUT;
    p->tunnel = true;
    return write(p->client.fd, yes, sizeof yes - 1) == (ssize_t)sizeof yes - 1;
}

/* One step from a side to its other; *ret_moved says whether anything went. False: the end. */
static bool
move(struct side *s, bool *ret_moved)
{
    if (s->from == s->till) {
        int n = SSL_read(s->ssl, s->bytes, RECORD_LEN);
        if (n <= 0)
            return would_block(s->ssl, n);
        s->from = 0;
        s->till = (size_t)n;
        *ret_moved = true;
    }
    int n = SSL_write(s->other->ssl, s->bytes + s->from, (int)(s->till - s->from));
    s->other->blocked = n <= 0;
    if (n <= 0)
        return would_block(s->other->ssl, n);
    s->from += (size_t)n;
    *ret_moved = true;
    return true;
}

static void
watch_side(struct side *s)
{
    bool begun = SSL_is_init_finished(s->ssl);
    bool reads = s->from == s->till || !begun;
    bool writes = (s->blocked && begun) || SSL_want_write(s->ssl);
    uint32_t events = (reads ? EPOLLIN : 0) | (writes ? EPOLLOUT : 0);
    if (events != s->watched)
        watch(epoll, s->fd, s->watched = events, s, EPOLL_CTL_MOD);
}

static void
serve(struct pair *p)
{
    bool fine = p->tunnel || open_tunnel(p), moved = p->tunnel;
    /* Nothing is lost when a turn ends early: OpenSSL reads record by record, and a whole one fits.
     */
    for (int i = 0; fine && moved && i < 16; i++) {
        moved = false;
        fine = move(&p->client, &moved) && move(&p->server, &moved);
    }
    if (!fine) {
        bury(p);
    } else if (p->tunnel) {
        watch_side(&p->client);
        watch_side(&p->server);
    }
}

int
main(int argc, char **argv)
{
    struct epoll_event events[EVENTS];
    if (argc != 5)
        return 2;
    begin_program(3600);
    origin_port = atoi(argv[2]);
    towards_client = server_context(argv[3], argv[4]);
    towards_server = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_mode(towards_server,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    int listener = tls_listener(atoi(argv[1]));
    watch(epoll, listener, EPOLLIN, NULL, EPOLL_CTL_ADD);
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct side *s = events[i].data.ptr;
            if (!s)
                accept_all(listener);
            else if (!s->pair->dead)
                serve(s->pair);
        }
        free_dead();
    }
}
