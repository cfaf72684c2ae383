/* Lets a client that knows no proxies (h2load) be measured through one: whoever connects is carried
 * through a CONNECT of its own to AUTHORITY. A thread a connection; nothing is looked at.
 * usage: through PORT PROXY_PORT AUTHORITY [TOKEN_FILE] */
#include "bench/common.h"

#include <poll.h>
#include <pthread.h>

#define HEAD_MAX 20480
#define CHUNK 65536

static int proxy_port;
static char head[HEAD_MAX + 512];
static int head_len;

/* The proxy's answer is read byte by byte: what follows it belongs to the client. */
static bool
open_tunnel(int fd)
{
    struct sockaddr_in sa = loopback(proxy_port);
    char answer[4096];
    size_t got = 0;
    if (connect(fd, (struct sockaddr *)&sa, sizeof sa) != 0 ||
        send(fd, head, (size_t)head_len, 0) != head_len)
        return false;
    while (got < sizeof answer && read(fd, answer + got, 1) == 1) {
        got++;
        if (got > 12 && memcmp(answer + got - 4, "\r\n\r\n", 4) == 0)
            return memcmp(answer + 8, " 200", 4) == 0;
    }
    return false;
}

static bool
copy(int from, int to, char *chunk)
{
    ssize_t n = read(from, chunk, CHUNK), sent = 0;
    while (n > 0 && sent < n) {
        ssize_t piece = send(to, chunk + sent, (size_t)(n - sent), MSG_NOSIGNAL);
        if (piece <= 0)
            return false;
        sent += piece;
    }
    return n > 0;
}

static void *
carry(void *arg)
{
    int client = (int)(intptr_t)arg, on = 1, proxy = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char *chunk = malloc(CHUNK);
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(proxy, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    bool fine = open_tunnel(proxy);
    while (fine) {
        struct pollfd fds[] = {{.fd = client, .events = POLLIN}, {.fd = proxy, .events = POLLIN}};
        fine = poll(fds, 2, -1) > 0;
        if (fine && fds[0].revents)
            fine = copy(client, proxy, chunk);
        if (fine && fds[1].revents)
            fine = copy(proxy, client, chunk);
    }
    free(chunk);
    close(proxy);
    close(client);
    return NULL;
}

int
main(int argc, char **argv)
{
    char token[HEAD_MAX] = "";
    if (argc < 4)
        return 2;
    begin_program(600);
    proxy_port = atoi(argv[2]);
    FILE *f = argc > 4 ? fopen(argv[4], "r") : NULL;
    if (f && fgets(token, sizeof token, f))
        token[strcspn(token, "\n")] = '\0';
    head_len = snprintf(head, sizeof head, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s%s%s\r\n", argv[3],
                        argv[3], token[0] ? "Proxy-Authorization: Bearer " : "", token,
                        token[0] ? "\r\n" : "");
    struct sockaddr_in sa = loopback(atoi(argv[1]));
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&sa, sizeof sa) != 0 || listen(listener, 64) != 0)
        die("listen");
    for (;;) {
        pthread_t thread;
        int fd = accept(listener, NULL, NULL);
        if (fd < 0 || pthread_create(&thread, NULL, carry, (void *)(intptr_t)fd) != 0)
            die("accept");
        pthread_detach(thread);
    }
}
