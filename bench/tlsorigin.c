/* A small origin behind TLS on loopback, one thread. GET / brings 64 bytes, GET /bulk a gigabyte of
 * zeros; connections are kept. usage: tlsorigin PORT CERT KEY */
#include "bench/tls.h"

#define BODY "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define BULK_LEN (INT64_C(1) << 30)
#define EVENTS 256
#define HEAD_MAX 4096

struct peer {
    int fd;
    SSL *ssl;
    size_t got;
    size_t owed_len; /* of the answer's head (and small body) */
    const char *owed;
    int64_t zeros; /* still to be sent after it */
    uint32_t watched;
    char in[HEAD_MAX];
};

static const char small[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 64\r\n\r\n" BODY;
static const char bulk[] = "HTTP/1.1 200 OK\r\nContent-Type: "
                           "application/octet-stream\r\nContent-Length: 1073741824\r\n\r\n";
static const char zeros[RECORD_LEN];

static void
accept_all(int epoll, int listener, SSL_CTX *ctx)
{
    int on = 1, fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct peer *p = calloc(1, sizeof *p);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        p->fd = fd;
        p->ssl = SSL_new(ctx);
        SSL_set_fd(p->ssl, fd);
        SSL_set_accept_state(p->ssl);
        p->watched = EPOLLIN;
        watch(epoll, fd, EPOLLIN, p, EPOLL_CTL_ADD);
    }
}

/* One request at a time: nobody here pipelines. False: the connection is over. */
static bool
receive(struct peer *p)
{
    int n = SSL_read(p->ssl, p->in + p->got, (int)(HEAD_MAX - p->got));
    if (n <= 0)
        return would_block(p->ssl, n);
    p->got += (size_t)n;
    if (!memmem(p->in, p->got, "\r\n\r\n", 4))
        return p->got < HEAD_MAX;
    bool big = p->got > 9 && memcmp(p->in, "GET /bulk", 9) == 0;
    p->owed = big ? bulk : small;
    p->owed_len = big ? sizeof bulk - 1 : sizeof small - 1;
    p->zeros = big ? BULK_LEN : 0;
    p->got = 0;
    return true;
}

/* A piece; *ret_full when the socket takes no more. */
static bool
send_some(struct peer *p, bool *ret_full)
{
    int64_t piece = p->zeros < RECORD_LEN ? p->zeros : RECORD_LEN;
    int n = p->owed_len ? SSL_write(p->ssl, p->owed, (int)p->owed_len)
                        : SSL_write(p->ssl, zeros, (int)piece);
    if (n <= 0) {
        *ret_full = true;
        return would_block(p->ssl, n);
    }
    if (p->owed_len) {
        p->owed += n;
        p->owed_len -= (size_t)n;
    } else {
        p->zeros -= n;
    }
    return true;
}

static bool
serve(int epoll, struct peer *p)
{
    bool full = false;
    /* A turn has a bound, so that one download does not starve the others. */
    for (int i = 0; i < 16 && !full; i++) {
        if (p->owed_len || p->zeros) {
            if (!send_some(p, &full))
                return false;
        } else {
            if (!receive(p))
                return false;
            full = !p->owed_len;
        }
    }
    uint32_t events = p->owed_len || p->zeros ? EPOLLOUT : EPOLLIN;
    if (events != p->watched)
        watch(epoll, p->fd, p->watched = events, p, EPOLL_CTL_MOD);
    return true;
}

int
main(int argc, char **argv)
{
    struct epoll_event events[EVENTS];
    if (argc != 4)
        return 2;
    begin_program(3600);
    SSL_CTX *ctx = server_context(argv[2], argv[3]);
    int epoll = epoll_create1(EPOLL_CLOEXEC), listener = tls_listener(atoi(argv[1]));
    watch(epoll, listener, EPOLLIN, NULL, EPOLL_CTL_ADD);
    puts("ready");
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct peer *p = events[i].data.ptr;
            if (!p) {
                accept_all(epoll, listener, ctx);
            } else if (!serve(epoll, p)) {
                SSL_free(p->ssl);
                close(p->fd);
                free(p);
            }
        }
    }
}
