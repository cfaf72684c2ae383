/* Two ends of a TLS connection in memory, for tests. */
#ifndef TESTS_UNIT_TLSPAIR_H
#define TESTS_UNIT_TLSPAIR_H

#include <openssl/ssl.h>

struct tls_pair {
    SSL *client, *server;
};

static inline void
tls_pair_join(struct tls_pair *p)
{
    BIO *a, *b;
    if (BIO_new_bio_pair(&a, 1 << 16, &b, 1 << 16) != 1)
        abort();
    SSL_set_bio(p->client, a, a);
    SSL_set_bio(p->server, b, b);
    SSL_set_connect_state(p->client);
    SSL_set_accept_state(p->server);
}

/* Both handshakes as far as they go; 1: both are done. What comes behind (tickets) is read too. */
static inline int
tls_pair_shake(struct tls_pair *p)
{
    int c = 0, s = 0;
    char byte;
    for (int i = 0; i < 20 && (c != 1 || s != 1); i++) {
        c = c == 1 ? 1 : SSL_do_handshake(p->client);
        s = s == 1 ? 1 : SSL_do_handshake(p->server);
    }
    if (c == 1 && s == 1) {
        (void)SSL_read(p->client, &byte, 1);
        (void)SSL_read(p->server, &byte, 1);
    }
    return c == 1 && s == 1;
}

/* Quiet shutdown marks sessions as good. */
static inline void
tls_pair_done(struct tls_pair *p)
{
    SSL_set_shutdown(p->client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_set_shutdown(p->server, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(p->client);
    SSL_free(p->server);
}

#endif
