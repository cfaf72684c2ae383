/* A worker's proxy: everything that serves clients on one loop. process/worker makes one and feeds it snapshots. */
#ifndef SALLYPORT_PROXY_PROXY_H
#define SALLYPORT_PROXY_PROXY_H

#include "sallyport/net/loop.h"
#include "sallyport/proxy/journal.h"
#include "sallyport/proxy/shared.h"
#include "sallyport/proxy/snapshot.h"

struct keeper_link;
struct proxy;

struct proxy_options {
    struct loop *loop;
    struct snapshot *snapshot;    /* referenced */
    struct journal *journal;      /* borrowed */
    struct shared *shared;        /* borrowed */
    unsigned worker;              /* slot, below SHARED_WORKERS_MAX */
    struct keeper_link *keeper;   /* taken over; NULL: nothing is inspected */
    size_t connections_max;       /* clients at once; past it accepting pauses */
};

struct proxy *proxy_new(const struct proxy_options *o);
void proxy_free(struct proxy *p);
/* fd is a listening socket, name that of a listener in the settings. Takes it over. -1 with err for a listener that the snapshot does not know. */
int proxy_listen(struct proxy *p, const char *name, int fd, bool exclusive, struct err *err);
/* New exchanges use the new snapshot; live tunnels are judged again by it, those no longer allowed are cut, with a record. */
void proxy_set_snapshot(struct proxy *p, struct snapshot *snapshot);
/* Stops accepting, refuses new requests on kept connections (shutting_down), calls on_idle(arg) when the last exchange has ended. */
void proxy_drain(struct proxy *p, void (*on_idle)(void *arg), void *arg);
/* Ends all exchanges now (cause "shutdown"). */
void proxy_stop(struct proxy *p);
size_t proxy_exchanges(const struct proxy *p);

#endif
