/* One accepted connection, from accept until it becomes a tunnel or ends: PROXY protocol, TLS of the proxy itself, heads,
 * own replies. It owns the stream and the bytes that were read and not used yet. */
#ifndef SALLYPORT_PROXY_CLIENT_H
#define SALLYPORT_PROXY_CLIENT_H

#include "sallyport/auth/verify.h"
#include "sallyport/base/buf.h"
#include "sallyport/http/head.h"
#include "sallyport/http/status.h"
#include "sallyport/net/stream.h"
#include "sallyport/proxy/core.h"

struct exchange;
struct inspection;

enum client_state {
    CLIENT_NEW = 0,
    CLIENT_PREFACE,   /* waiting for the PROXY protocol header */
    CLIENT_HANDSHAKE, /* TLS of the proxy listener */
    CLIENT_READ_HEAD,
    CLIENT_FIRST_FLIGHT, /* transparent: bytes that say which host is meant */
    CLIENT_EXCHANGE,  /* an exchange has the word */
    CLIENT_REPLYING,  /* our own reply is going out; the connection ends behind it */
    CLIENT_LINGER,    /* reply sent, reading what still comes so that the reply is not lost to a reset */
    CLIENT_GONE,
};

struct client {
    struct list_node node;      /* in proxy.clients */
    struct proxy *proxy;
    struct port *port;
    struct stream *stream;      /* NULL once a tunnel has taken it */
    enum client_state state;
    struct buf in;              /* read and not used yet */
    struct buf out;             /* our replies, or what a forward writes to the client */
    struct head_scan scan;
    struct exchange *exchange;  /* in CLIENT_EXCHANGE */
    struct inspection *inside;  /* the connection inside an inspected tunnel; NULL outside */
    struct addr peer;           /* as the balancer says, if there is one; family 0 for unix sockets */
    uint16_t peer_port;
    char *x5t;                  /* of the client's certificate; heap, NULL */
    struct addr original;       /* transparent: where the client meant to connect to */
    uint16_t original_port;
    size_t lingered;            /* bytes thrown away in CLIENT_LINGER */
    bool eof;                   /* the client has sent its last byte */
    uint32_t requests;          /* heads read on this connection */
};

void client_accept(struct port *port, int fd, const struct sockaddr *from);
/* The connection inside an inspected tunnel, its TLS done; heads are read from it as from any other. */
struct client *client_new_inside(struct inspection *i, struct exchange *tunnel, struct stream *stream);
void client_free(struct client *c);
/* Sends bytes that are not HTTP (a TLS alert; none: empty) and closes behind them. */
void client_refuse(struct client *c, struct slice bytes);
/* Sends the proxy's own reply and closes behind it; nothing that the client still sends is parsed. */
void client_reply(struct client *c, const struct reply_facts *facts);
/* The exchange is over and the connection may carry the next one. */
void client_next(struct client *c);
/* The exchange takes the stream and the bytes in c->in with it (*ret_in is initialised); the client is freed. */
struct stream *client_take(struct client *c, struct buf *ret_in);
/* Reads what there is into c->in (up to its cap). False: the connection failed. Sets c->eof. */
bool client_fill(struct client *c);
/* All has been said: ends the connection in order, so that what was sent arrives. */
void client_end(struct client *c);
void client_close(struct client *c); /* ends the connection, whatever state it is in */

#endif
