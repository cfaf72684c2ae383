/* A TLS connection's object, and its sleep. OpenSSL keeps 7.6 KB for each side of a connection, four fifths of them zeros, and
 * none of it can be dropped while the connection lives. One that is not used for a while is laid away without its zeros, and
 * is back in its place, byte for byte, when it is next asked for.
 *
 * What makes that right: the object is reached by the pointer that doze_ssl returns and by no other way. OpenSSL has no list
 * of connections, sessions and contexts do not point at them, and a process has one thread. */
#ifndef SALLYPORT_NET_DOZE_H
#define SALLYPORT_NET_DOZE_H

#include <openssl/ssl.h>

#include "sallyport/base/list.h"
#include "sallyport/net/loop.h"

#ifndef DOZE_SWEEP_MS
#define DOZE_SWEEP_MS 500    /* how often those that are awake are looked at */
#endif
#define DOZE_PATIENCE_MAX 64 /* in so many sweeps an object that is not asked for is asleep, whatever its habits */

struct doze_image;

/* Embedded in its owner. */
struct doze {
    struct list_node node;    /* among those that are awake */
    SSL *ssl;
    struct doze_image *image; /* NULL: awake */
    bool stirred;             /* asked for since it was last looked at */
    bool parity;              /* of the sweep that did */
    uint8_t patience;         /* sweeps without being asked for before it sleeps: more after each short sleep */
    uint8_t still;            /* how many there have been */
};

/* Once a process, before OpenSSL allocates anything: it gives OpenSSL its memory functions. Without it, or where it comes too
 * late or finds no address space, all stay awake. */
void doze_setup(void);
/* Makes the object. The loop outlives it. */
void doze_init(struct doze *d, struct loop *l, SSL_CTX *context);
void doze_done(struct doze *d); /* and frees it */
SSL *doze_wake(struct doze *d); /* of one that sleeps */
/* The object, awake. The pointer is good until the turn ends. */
static inline SSL *
doze_ssl(struct doze *d)
{
    d->stirred = true;
    return d->image ? doze_wake(d) : d->ssl;
}

#endif
