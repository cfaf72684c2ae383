/* What the parts of the proxy layer share in one worker: struct proxy, and the listeners ("ports") that feed it.
 * Only src/proxy includes this; everybody else has proxy/proxy.h. */
#ifndef SALLYPORT_PROXY_CORE_H
#define SALLYPORT_PROXY_CORE_H

#include <openssl/ssl.h>

#include "sallyport/base/list.h"
#include "sallyport/net/listen.h"
#include "sallyport/net/loop.h"
#include "sallyport/net/resolve.h"
#include "sallyport/proxy/journal.h"
#include "sallyport/proxy/proxy.h"
#include "sallyport/proxy/shared.h"
#include "sallyport/proxy/snapshot.h"

struct exchange;
struct pool;
struct keeper_link;
struct names;
struct splicer;
struct dgram;

#define PROXY_SCRATCH 65536
#define PROXY_TICK_MS 500
#define PROXY_WHEEL 64           /* ticks: nothing is filed further ahead */

/* One listening socket with what the settings say about it. */
struct port {
    struct list_node node;       /* in proxy.ports */
    struct proxy *proxy;
    char *name;
    struct listener *listener;   /* NULL once draining, and for datagrams */
    struct dgram *dgram;         /* DNS over UDP, watched packets */
    SSL_CTX *tls;                /* NULL: plain */
    const struct listener_settings *settings; /* of the present snapshot */
    bool paused;                 /* by us: too many connections */
};

struct proxy {
    struct loop *loop;
    struct snapshot *snapshot;   /* the present one; exchanges hold their own reference */
    struct journal *journal;
    struct shared *shared;
    unsigned worker;
    size_t connections_max;
    struct resolver *resolver;
    char *resolver_servers;      /* the text it was made from: a reload keeps it while that is the same */
    struct list old_resolvers;   /* replaced by a reload, kept until the end: lookups may be in flight */
    struct list ports;
    struct list clients;         /* connections that are not (yet) tunnels */
    struct list dns;             /* DNS connections over TCP */
    struct list wheel[PROXY_WHEEL]; /* exchanges that have not finished, by the tick in which they are looked at */
    int64_t wheel_tick;          /* the last whose exchanges were looked at */
    size_t exchanges;            /* how many there are */
    size_t tunnels;              /* exchanges that have taken their client's stream */
    struct pool *pool;           /* idle upstream connections of plain HTTP */
    struct timer tick;           /* expiry and idle limits of live exchanges */
    int64_t wall_ahead_ms;       /* how far the wall clock was ahead of the other at the last tick */
    struct keeper_link *keeper;  /* what inspection needs: leaves, trust in upstreams; NULL without */
    SSL_CTX *parent_tls;         /* towards an https:// parent; made once a snapshot */
    struct names *names;         /* synthetic addresses; one sandbox's, so a worker with DNS serves one */
    char *scratch;               /* PROXY_SCRATCH bytes for reads that need no buffer of their own */
    struct splicer *splicer;     /* pipes for tunnels in bulk */
    bool draining;
    void (*on_idle)(void *arg);
    void *on_idle_arg;
    struct deferred idle_check;
};


/* Files an exchange, for the first time or anew, to be looked at once due_ms is over (0: in the next tick). Earlier, where that
 * is further ahead than the wheel turns. */
void proxy_file(struct proxy *p, struct exchange *x, int64_t due_ms);
void proxy_unfile(struct proxy *p, struct exchange *x);
/* Something ended: resumes accepting, and tells a drain that it may be over. */
void proxy_settle(struct proxy *p);
bool has_port(const uint16_t *ports, size_t n, uint16_t port);
size_t proxy_connections(const struct proxy *p);
/* Who a listener with a token speaks for, by the present snapshot and time; a new reference, NULL when the token is not good. */
struct identity *port_identity(struct port *port);
/* The text of that token; ptr NULL without one. */
struct slice port_token(const struct port *port, const struct snapshot *s);

#endif
