/* A load generator for forward proxies on loopback, one thread, one epoll. Prints one JSON object.
 *
 * usage: load MODE PROXY_PORT ORIGIN_PORT CONNECTIONS SECONDS [TOKENS [ADDRESS]]
 *   tunnels    CONNECT, a request, its answer, close; CONNECTIONS at once; a token of the file each, in turn
 *   denied     CONNECT to a host that no list has, its 403, close
 *   requests   plain GET on kept connections
 *   inside     GET in tunnels that stay open
 *   idle       opens CONNECTIONS tunnels with one request in each, says so, and keeps them until standard input ends
 *   each       as tunnels, until every token of the file has been used once
 * ADDRESS (127.0.0.1) is where it connects from and where the origin is: one pair of addresses has some 28,000 ports.
 */
#include "bench/common.h"

#define EVENTS 256
#define BUFFER 4096
#define HEAD_MAX 20480
#define SAMPLES_MAX 4000000
#define BODY_LEN 64

enum mode { MODE_TUNNELS = 1, MODE_REQUESTS, MODE_INSIDE, MODE_IDLE, MODE_DENIED, MODE_EACH };
enum state { STATE_CONNECTING = 1, STATE_TUNNEL, STATE_ANSWER, STATE_RESTING };

struct client {
    int fd;
    enum state state;
    int64_t begun_us;
    bool answered; /* on this connection */
    size_t got;
    char in[BUFFER];
};

struct run {
    enum mode mode;
    int epoll, proxy_port, origin_port, connections;
    char **tokens;
    size_t token_count, next_token;
    char request[256];
    const char *address;
    uint64_t done, errors, opened, reconnects;
    uint32_t *samples;
    size_t sample_count;
    bool over;
};

static void start(struct run *r, struct client *c);

static void
read_tokens(struct run *r, const char *path)
{
    FILE *f = fopen(path, "r");
    char line[HEAD_MAX];
    if (!f)
        die(path);
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        r->tokens = realloc(r->tokens, (r->token_count + 1) * sizeof *r->tokens);
        r->tokens[r->token_count++] = strdup(line);
    }
    fclose(f);
}

static const char *
take_token(struct run *r)
{
    return r->token_count ? r->tokens[r->next_token++ % r->token_count] : NULL;
}

static int
credential(struct run *r, char *out, size_t size)
{
    const char *token = take_token(r);
    return token ? snprintf(out, size, "Proxy-Authorization: Bearer %s\r\n", token) : 0;
}

static void
send_all(struct run *r, struct client *c, const char *bytes, size_t len)
{
    if (send(c->fd, bytes, len, MSG_NOSIGNAL) != (ssize_t)len)
        r->errors++;
}

static void
send_connect(struct run *r, struct client *c)
{
    char head[HEAD_MAX];
    const char *host = r->mode == MODE_DENIED ? "denied.example.com" : r->address;
    int port = r->mode == MODE_DENIED ? 443 : r->origin_port;
    int n = snprintf(head, sizeof head, "CONNECT %s:%d HTTP/1.1\r\nHost: %s:%d\r\n", host, port, host, port);
    n += credential(r, head + n, sizeof head - (size_t)n);
    n += snprintf(head + n, sizeof head - (size_t)n, "\r\n");
    c->state = STATE_TUNNEL;
    c->got = 0;
    send_all(r, c, head, (size_t)n);
}

static void
send_request(struct run *r, struct client *c)
{
    char head[HEAD_MAX];
    c->state = STATE_ANSWER;
    c->got = 0;
    if (r->mode != MODE_REQUESTS) {
        send_all(r, c, r->request, strlen(r->request));
        return;
    }
    c->begun_us = now_us();
    int n =
        snprintf(head, sizeof head, "GET http://%s:%d/ HTTP/1.1\r\nHost: %s:%d\r\n", r->address, r->origin_port, r->address, r->origin_port);
    n += credential(r, head + n, sizeof head - (size_t)n);
    n += snprintf(head + n, sizeof head - (size_t)n, "\r\n");
    send_all(r, c, head, (size_t)n);
}

static void
again(struct run *r, struct client *c)
{
    close(c->fd);
    c->fd = -1;
    if (!r->over && (r->mode != MODE_EACH || r->next_token < r->token_count))
        start(r, c);
}

static void
failed(struct run *r, struct client *c)
{
    r->errors++;
    if (r->errors > 100000 || r->mode == MODE_IDLE) {
        close(c->fd);
        c->fd = -1;
        return;
    }
    again(r, c);
}

/* The port is left to connect, which may use one again that other addresses have. */
static void
bind_to(int fd, const char *address)
{
    struct sockaddr_in sa = {.sin_family = AF_INET};
    int on = 1;
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (inet_pton(AF_INET, address, &sa.sin_addr) != 1 || bind(fd, (struct sockaddr *)&sa, sizeof sa) != 0)
        die(address);
}

static void
start(struct run *r, struct client *c)
{
    struct sockaddr_in sa = loopback(r->proxy_port);
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->state = STATE_CONNECTING;
    c->answered = false;
    c->begun_us = now_us();
    if (strcmp(r->address, "127.0.0.1") != 0)
        bind_to(c->fd, r->address);
    if (connect(c->fd, (struct sockaddr *)&sa, sizeof sa) != 0 && errno != EINPROGRESS)
        die("connect");
    watch(r->epoll, c->fd, EPOLLOUT, c, EPOLL_CTL_ADD);
}

static void
count(struct run *r, struct client *c)
{
    int64_t now = now_us();
    r->done++;
    if (r->sample_count < SAMPLES_MAX)
        r->samples[r->sample_count++] = (uint32_t)(now - c->begun_us);
    c->begun_us = now;
}

/* Bytes behind the head of a whole answer, or -1 while it is not whole. */
static long
behind_head(const struct client *c)
{
    const char *end = memmem(c->in, c->got, "\r\n\r\n", 4);
    return end ? (long)(c->in + c->got - end - 4) : -1;
}

static void
on_tunnel(struct run *r, struct client *c)
{
    if (behind_head(c) < 0)
        return;
    const char *expected = r->mode == MODE_DENIED ? " 403" : " 200";
    if (memcmp(c->in, "HTTP/1.", 7) != 0 || memcmp(c->in + 8, expected, 4) != 0) {
        failed(r, c);
        return;
    }
    if (r->mode == MODE_DENIED) {
        count(r, c);
        again(r, c);
        return;
    }
    if (r->mode == MODE_INSIDE)
        c->begun_us = now_us();
    send_request(r, c);
}

static void
on_answer(struct run *r, struct client *c)
{
    if (behind_head(c) < BODY_LEN)
        return;
    if (memcmp(c->in + 8, " 200", 4) != 0) {
        failed(r, c);
        return;
    }
    if (r->mode == MODE_IDLE) {
        r->opened++;
        c->state = STATE_RESTING;
        return;
    }
    count(r, c);
    c->answered = true;
    if (r->mode == MODE_TUNNELS || r->mode == MODE_EACH)
        again(r, c);
    else if (!r->over)
        send_request(r, c);
}

static void
on_event(struct run *r, struct client *c)
{
    if (c->fd < 0)
        return;
    if (c->state == STATE_CONNECTING) {
        watch(r->epoll, c->fd, EPOLLIN, c, EPOLL_CTL_MOD);
        if (r->mode == MODE_REQUESTS)
            send_request(r, c);
        else
            send_connect(r, c);
        return;
    }
    ssize_t n = read(c->fd, c->in + c->got, BUFFER - c->got);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0 && r->mode == MODE_REQUESTS && c->answered && c->got == 0) {
        r->reconnects++; /* the proxy does not keep connections: that is slow, not wrong */
        again(r, c);
        return;
    }
    if (n <= 0 || c->got + (size_t)n == BUFFER) {
        failed(r, c);
        return;
    }
    c->got += (size_t)n;
    if (c->state == STATE_TUNNEL)
        on_tunnel(r, c);
    else if (c->state == STATE_ANSWER)
        on_answer(r, c);
}

static void
turn(struct run *r, int timeout_ms)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(r->epoll, events, EVENTS, timeout_ms);
    for (int i = 0; i < n; i++)
        on_event(r, events[i].data.ptr);
}

static int
by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t
percentile(struct run *r, double p)
{
    return r->sample_count ? r->samples[(size_t)((double)(r->sample_count - 1) * p)] : 0;
}

static void
run_for(struct run *r, struct client *clients, double seconds)
{
    for (int i = 0; i < r->connections; i++)
        start(r, &clients[i]);
    int64_t begin = now_us(), end = begin + (int64_t)(seconds * 1e6);
    while (now_us() < end && (r->mode != MODE_EACH || r->done + r->errors < r->token_count))
        turn(r, 10);
    r->over = true;
    double took = (double)(now_us() - begin) / 1e6;
    qsort(r->samples, r->sample_count, sizeof *r->samples, by_value);
    printf("{\"ops\":%llu,\"errors\":%llu,\"reconnects\":%llu,\"seconds\":%.3f,\"p50_us\":%u,\"p99_"
           "us\":%u}\n",
           (unsigned long long)r->done, (unsigned long long)r->errors,
           (unsigned long long)r->reconnects, took, percentile(r, 0.5), percentile(r, 0.99));
}

/* Opens them a few at a time, so that no queue overflows. */
static void
hold_idle(struct run *r, struct client *clients)
{
    int started = 0;
    int64_t end = now_us() + INT64_C(120000000);
    while (r->opened + r->errors < (uint64_t)r->connections && now_us() < end) {
        while (started < r->connections && (uint64_t)started < r->opened + r->errors + 64)
            start(r, &clients[started++]);
        turn(r, 100);
    }
    printf("{\"open\":%llu,\"errors\":%llu}\n", (unsigned long long)r->opened,
           (unsigned long long)r->errors);
    fflush(stdout);
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
}

int
main(int argc, char **argv)
{
    static const char *const modes[] = {"", "tunnels", "requests", "inside", "idle", "denied", "each"};
    static struct run r;
    if (argc < 6)
        return 2;
    for (int i = 1; i <= MODE_EACH; i++)
        if (strcmp(argv[1], modes[i]) == 0)
            r.mode = (enum mode)i;
    if (!r.mode)
        return 2;
    begin_program(300);
    r.proxy_port = atoi(argv[2]);
    r.origin_port = atoi(argv[3]);
    r.connections = atoi(argv[4]);
    if (argc > 6)
        read_tokens(&r, argv[6]);
    r.address = argc > 7 ? argv[7] : "127.0.0.1";
    snprintf(r.request, sizeof r.request, "GET / HTTP/1.1\r\nHost: %s:%d\r\n\r\n", r.address, r.origin_port);
    r.samples = malloc(SAMPLES_MAX * sizeof *r.samples);
    r.epoll = epoll_create1(EPOLL_CLOEXEC);
    struct client *clients = calloc((size_t)r.connections, sizeof *clients);
    if (r.mode == MODE_IDLE)
        hold_idle(&r, clients);
    else
        run_for(&r, clients, atof(argv[5]));
    return 0;
}
