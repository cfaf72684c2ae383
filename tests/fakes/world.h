/* The far side of the fake network, as the scenario runner sees it. The files beside this one
 * implement the symbols of include/sallyport/net without a socket and with virtual time; they are
 * linked instead of src/net. There is one world a process: world_reset() before each play,
 * world_check_empty() after it. Single-threaded, deterministic. */
#ifndef TESTS_FAKES_WORLD_H
#define TESTS_FAKES_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/addr.h"
#include "sallyport/base/buf.h"
#include "sallyport/base/list.h"
#include "sallyport/net/loop.h"
#include "sallyport/net/resolve.h"

#define WORLD_START_US INT64_C(1795198104000000) /* 2026-11-20T18:08:24Z */
#define WORLD_WIRES_MAX 512
#define WORLD_EFFECTS_MAX 4096
#define WORLD_TURNS_MAX 200000 /* 400,000 bytes at seven a turn are 57,143; more turns without rest: somebody is told the same thing for ever */

/* Everything that can fire in a turn: streams, listeners, lookups, dials, channels. Freed at the
 * end of the turn. */
struct pollee {
    struct list_node node;
    bool (*fire)(void *object); /* true: something happened */
    void *object;
    bool dead;
};
void pollee_add(struct pollee *s, bool (*fire)(void *), void *object);
void pollee_drop(struct pollee *s,
                 void (*free_fn)(void *)); /* dead now, freed (s->object) at the end of the turn */

/* What the product did that somebody outside could notice, in order. */
enum effect_kind {
    EFFECT_RECORD = 1,
    EFFECT_KEPT,
    EFFECT_QUERY,
    EFFECT_DIAL,
    EFFECT_UPSTREAM,
    EFFECT_CLIENT
};
struct effect {
    enum effect_kind kind;
    char *text;       /* a record's JSON object; a name; "address:port"; a wire's name */
    uint64_t ticket;  /* records: a number of the fake recorder's own; kept: up to which one */
    struct addr addr; /* dial, upstream */
};
void effect_add(enum effect_kind kind, const char *text, uint64_t ticket, const struct addr *addr);

/* One connection; the scenario holds the other end. */
struct wire {
    char name[12]; /* "c1", "u1" */
    int fd;        /* a number that no descriptor of this process has */
    bool upstream;
    struct addr peer;
    uint16_t peer_port;
    struct stream *stream; /* the product's end, while there is one */
    struct buf to_product;
    bool fin_in, rst_in;
    struct buf from_product; /* not yet expected by the scenario */
    uint64_t sent_in_all;    /* bytes the product wrote */
    bool fin_out;            /* the product has shut down its side or closed */
    bool closed, reset;      /* the product has let go of it */
    size_t window;           /* bytes that the product may write before it has to wait */
};

struct world {
    struct loop *loop;
    int64_t mono_ms, wall_us;
    size_t wire_count, client_count, upstream_count;
    size_t effect_count;
    size_t live; /* streams, listeners, lookups, dials, timers, channels, resolvers that exist */
    size_t read_max; /* bytes of one stream_read or stream_write: 0 is unlimited */
    bool fail_event; /* a reset is told as STREAM_FAILED instead of as readable */
    char fault[256]; /* the product broke the network layer's contract */
    /* What is in use is told by the counts: these need no clearing between plays. */
    struct wire *wires[WORLD_WIRES_MAX];
    struct effect effects[WORLD_EFFECTS_MAX];
};
extern struct world world;

void world_reset(void);
void world_fault(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Runs turns until nothing more happens at this instant. False: it never rests. */
bool world_settle(void);
bool world_advance(int64_t ms); /* timer by timer */

struct wire *wire_new(bool upstream, const struct addr *peer, uint16_t port);
struct wire *wire_find(const char *name);
struct wire *wire_by_fd(int fd);

/* Listeners by the descriptor number that proxy_listen got. */
bool world_connect(int listener_fd, struct wire *client);

/* DNS. ttl_s 0: not cached. Changing an entry answers those who wait for it. */
enum dns_kind { DNS_FAIL = 0, DNS_ANSWER, DNS_HOLD };
void world_dns(const char *name, enum dns_kind kind, const struct answers *answers, uint32_t ttl_s);

/* Connects, by address and port (0: any). Everything is accepted at once by default. */
enum connect_kind {
    CONNECT_OK = 0,
    CONNECT_REFUSED,
    CONNECT_UNREACHABLE,
    CONNECT_TIMEOUT,
    CONNECT_HOLD
};
void world_connects(const struct addr *address, uint16_t port, enum connect_kind kind,
                    int64_t after_ms);

/* The recorder at the other end of the journal's channel. */
enum recorder_kind {
    RECORDER_OK = 0,  /* keeps and acknowledges at once */
    RECORDER_HOLD,    /* takes, does not acknowledge */
    RECORDER_FULL,    /* its queue takes no frame */
    RECORDER_BROKEN,  /* says that records cannot be kept (a full disk) */
    RECORDER_GONE,    /* the channel has closed */
    RECORDER_RESTART, /* loses what is not acknowledged and asks for it again */
};
void world_recorder(enum recorder_kind kind);
#define WORLD_RECORDER_FD 990000

/* The reset of each part, called by world_reset. */
void names_reset(void);
void dials_reset(void);
void recorder_reset(void);
void listeners_reset(void);

#endif
