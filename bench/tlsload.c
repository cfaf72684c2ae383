/* A load generator for inspecting proxies on loopback, one thread, one epoll: TLS inside CONNECT.
 * Certificates are verified by the given CA alone, so that a proxy that does not inspect measures
 * nothing but errors. Prints one JSON object.
 *
 * usage: tlsload MODE PROXY_PORT ORIGIN_PORT CONNECTIONS SECONDS CA [TOKEN_FILE]
 *   new      CONNECT, a full handshake, a request, its answer, close; CONNECTIONS at once
 *   resumed  the same, each with the session of the connection before
 *   kept     requests one after the other in connections that stay
 *   bulk     downloads; counts bytes
 *   hosts    `new`, every connection to a host that was not visited before; ends after HOSTS
 */
#include "bench/tls.h"

#define EVENTS 256
#define HEAD_MAX 20480
#define HOSTS 1000
#define SAMPLES_MAX 1000000
#define BODY_LEN 64

enum mode { MODE_NEW = 1, MODE_RESUMED, MODE_KEPT, MODE_BULK, MODE_HOSTS };
enum state { STATE_CONNECTING = 1, STATE_TUNNEL, STATE_TLS };

struct client {
    int fd, host;
    enum state state;
    SSL *ssl;
    SSL_SESSION *session; /* of the newest ticket */
    uint32_t watched;
    bool asked;
    int64_t begun_us;
    size_t got;
    char in[RECORD_LEN];
};

static enum mode mode;
static int epoll, proxy_port, origin_port, connections, next_host;
static char token[HEAD_MAX];
static SSL_CTX *context;
static uint64_t done, errors, resumed, bytes;
static uint32_t *samples;
static size_t sample_count;
static bool over;

static void start(struct client *c);

static int
on_session(SSL *ssl, SSL_SESSION *session)
{
    struct client *c = SSL_get_app_data(ssl);
    SSL_SESSION_free(c->session);
    c->session = session;
    return 1;
}

static void
rewatch(struct client *c, uint32_t events)
{
    if (events != c->watched)
        watch(epoll, c->fd, c->watched = events, c, EPOLL_CTL_MOD);
}

static void
stop(struct client *c)
{
    if (c->ssl && SSL_is_init_finished(c->ssl))
        SSL_shutdown(c->ssl);
    ERR_clear_error();
    SSL_free(c->ssl);
    c->ssl = NULL;
    close(c->fd);
    c->fd = -1;
}

static void
again(struct client *c)
{
    stop(c);
    if (!over && errors < 100000)
        start(c);
}

static void
failed(struct client *c)
{
    errors++;
    again(c);
}

static void
start(struct client *c)
{
    struct sockaddr_in sa = loopback(proxy_port);
    int on = 1;
    if (mode == MODE_HOSTS && next_host == HOSTS)
        return;
    c->host = mode == MODE_HOSTS ? next_host++ : 0;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->state = STATE_CONNECTING;
    c->asked = false;
    c->got = 0;
    c->begun_us = now_us();
    if (connect(c->fd, (struct sockaddr *)&sa, sizeof sa) != 0 && errno != EINPROGRESS)
        die("connect");
    watch(epoll, c->fd, c->watched = EPOLLOUT, c, EPOLL_CTL_ADD);
}

static void
send_connect(struct client *c)
{
    char head[HEAD_MAX + 512];
    int n =
        snprintf(head, sizeof head,
                 "CONNECT " HOST_FORMAT ":%d HTTP/1.1\r\nHost: " HOST_FORMAT ":%d\r\n%s%s%s\r\n",
                 c->host, origin_port, c->host, origin_port,
                 token[0] ? "Proxy-Authorization: Bearer " : "", token, token[0] ? "\r\n" : "");
    c->state = STATE_TUNNEL;
    rewatch(c, EPOLLIN);
    if (send(c->fd, head, (size_t)n, MSG_NOSIGNAL) != n)
        failed(c);
}

static void
begin_tls(struct client *c)
{
    char name[64];
    snprintf(name, sizeof name, HOST_FORMAT, c->host);
    c->ssl = SSL_new(context);
    SSL_set_app_data(c->ssl, c);
    SSL_set_fd(c->ssl, c->fd);
    SSL_set_connect_state(c->ssl);
    SSL_set_tlsext_host_name(c->ssl, name);
    SSL_set1_host(c->ssl, name);
    if (mode == MODE_RESUMED && c->session)
        SSL_set_session(c->ssl, c->session);
    c->state = STATE_TLS;
    c->got = 0;
}

static void
on_tunnel(struct client *c)
{
    ssize_t n = read(c->fd, c->in + c->got, sizeof c->in - c->got);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        failed(c);
        return;
    }
    c->got += (size_t)n;
    if (!memmem(c->in, c->got, "\r\n\r\n", 4))
        return;
    if (memcmp(c->in, "HTTP/1.", 7) != 0 || memcmp(c->in + 8, " 200", 4) != 0)
        failed(c);
    else
        begin_tls(c);
}

static void
count(struct client *c)
{
    int64_t now = now_us();
    done++;
    if (sample_count < SAMPLES_MAX)
        samples[sample_count++] = (uint32_t)(now - c->begun_us);
    c->begun_us = now;
}

/* 1: go on; 0: wait; -1: failed. */
static int
ask(struct client *c)
{
    char head[256];
    int len = snprintf(head, sizeof head, "GET %s HTTP/1.1\r\nHost: " HOST_FORMAT ":%d\r\n\r\n",
                       mode == MODE_BULK ? "/bulk" : "/", c->host, origin_port);
    int n = SSL_write(c->ssl, head, len);
    if (n <= 0)
        return would_block(c->ssl, n) ? 0 : -1;
    c->asked = true;
    if (mode == MODE_KEPT)
        c->begun_us = now_us();
    return 1;
}

static int
take_answer(struct client *c)
{
    int n = SSL_read(c->ssl, c->in + c->got, (int)(sizeof c->in - c->got));
    if (n <= 0)
        return would_block(c->ssl, n) ? 0 : -1;
    bytes += (uint64_t)n;
    if (mode == MODE_BULK)
        return 1; /* an answer is longer than a round: its end is not looked for */
    c->got += (size_t)n;
    const char *end = memmem(c->in, c->got, "\r\n\r\n", 4);
    if (!end || c->in + c->got - end - 4 < BODY_LEN)
        return c->got < sizeof c->in ? 1 : -1;
    if (memcmp(c->in + 8, " 200", 4) != 0)
        return -1;
    count(c);
    c->asked = false;
    c->got = 0;
    return 1;
}

static void
on_tls(struct client *c)
{
    for (int i = 0; i < 32; i++) {
        uint64_t before = done;
        int r = c->asked ? take_answer(c) : ask(c);
        if (r < 0) {
            failed(c);
            return;
        }
        if (r == 0)
            break;
        if (done == before || mode == MODE_KEPT)
            continue;
        resumed += SSL_session_reused(c->ssl) ? 1 : 0;
        again(c);
        return;
    }
    rewatch(c, SSL_want_write(c->ssl) ? EPOLLOUT : EPOLLIN);
}

static void
on_event(struct client *c)
{
    if (c->fd < 0)
        return;
    if (c->state == STATE_CONNECTING)
        send_connect(c);
    else if (c->state == STATE_TUNNEL)
        on_tunnel(c);
    else
        on_tls(c);
    /* The hello can go out at once. */
    if (c->fd >= 0 && c->state == STATE_TLS && !c->asked && SSL_in_before(c->ssl))
        on_tls(c);
}

static int
by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t
percentile(double p)
{
    return sample_count ? samples[(size_t)((double)(sample_count - 1) * p)] : 0;
}

static void
run_for(struct client *clients, double seconds)
{
    struct epoll_event events[EVENTS];
    int64_t begin = now_us(), end = begin + (int64_t)(seconds * 1e6);
    for (int i = 0; i < connections; i++)
        start(&clients[i]);
    while (now_us() < end && !(mode == MODE_HOSTS && done + errors >= HOSTS)) {
        int n = epoll_wait(epoll, events, EVENTS, 10);
        for (int i = 0; i < n; i++)
            on_event(events[i].data.ptr);
    }
    over = true;
    double took = (double)(now_us() - begin) / 1e6;
    qsort(samples, sample_count, sizeof *samples, by_value);
    printf("{\"ops\":%llu,\"errors\":%llu,\"resumed\":%llu,\"bytes\":%llu,\"seconds\":%.3f,\"p50_"
           "us\":%u,\"p99_us\":%u}\n",
           (unsigned long long)done, (unsigned long long)errors, (unsigned long long)resumed,
           (unsigned long long)bytes, took, percentile(0.5), percentile(0.99));
}

int
main(int argc, char **argv)
{
    static const char *const modes[] = {"", "new", "resumed", "kept", "bulk", "hosts"};
    if (argc < 7)
        return 2;
    for (int i = 1; i <= MODE_HOSTS; i++)
        if (strcmp(argv[1], modes[i]) == 0)
            mode = (enum mode)i;
    if (!mode)
        return 2;
    begin_program(300);
    proxy_port = atoi(argv[2]);
    origin_port = atoi(argv[3]);
    connections = atoi(argv[4]);
    FILE *f = argc > 7 ? fopen(argv[7], "r") : NULL;
    if (f && fgets(token, sizeof token, f))
        token[strcspn(token, "\n")] = '\0';
    context = client_context(argv[6]);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, on_session);
    samples = malloc(SAMPLES_MAX * sizeof *samples);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    struct client *clients = calloc((size_t)connections, sizeof *clients);
    run_for(clients, atof(argv[5]));
    return 0;
}
