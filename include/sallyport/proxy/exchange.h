/* One request, one decision, one outcome (DESIGN section 4). exchange.c is the pipeline; tunnel.c and forward.c carry what
 * it allowed; account.c writes its records. */
#ifndef SALLYPORT_PROXY_EXCHANGE_H
#define SALLYPORT_PROXY_EXCHANGE_H

#include "sallyport/net/dial.h"
#include "sallyport/net/resolve.h"
#include "sallyport/base/random.h"
#include "sallyport/proxy/client.h"

struct tunnel;
struct forward;
struct parent;
struct inspection;
struct inspect_call;
struct h2_head;

/* A state is a place where we wait. */
enum exchange_state {
    EXCHANGE_NEW = 0,
    EXCHANGE_HANDING,   /* a record must be handed over before the next effect */
    EXCHANGE_RESOLVING,
    EXCHANGE_DIALING,
    EXCHANGE_CHAINING,  /* the parent proxy has our CONNECT */
    EXCHANGE_KEEPING,   /* the decision record must be kept before the first byte goes upstream */
    EXCHANGE_PEEKING,   /* after the 200: the client's first bytes are looked at */
    EXCHANGE_UPSTREAM_TLS,
    EXCHANGE_CLIENT_TLS,
    EXCHANGE_RELAYING,
    EXCHANGE_SERVING,   /* plain HTTP */
    EXCHANGE_CLOSING,
    EXCHANGE_DONE,
};

/* TRANSPARENT: a connection that the sandbox believes to be to its target; like a CONNECT, without its words. */
enum exchange_kind { EXCHANGE_UNKNOWN = 0, EXCHANGE_CONNECT, EXCHANGE_FORWARD, EXCHANGE_TRANSPARENT, EXCHANGE_INNER };

/* What it takes to judge a request, to reach its target and to serve it. It lies in the arena, and a tunnel that carries
 * bytes has none of it: what is in struct exchange is what an idle tunnel costs. */
struct ask {
    struct arena *arena;             /* that this is in, with the bytes of head and path */
    struct head head;
    struct slice raw_target;         /* as sent, for records of what has no canonical form */
    struct slice path;
    struct slice content_type;       /* of a call with a body */
    uint64_t content;                /* bytes of the request's body so far, without framing */
    struct slice token;              /* as presented: the keeper judges it for itself */
    struct target target;            /* valid when has_target */
    struct verdict verdict;
    int64_t started_us;              /* as started_ms, for histograms */
    uint64_t ticket;                 /* of the decision record */
    struct journal_wait wait;
    struct resolve *resolve;
    struct endpoints *endpoints;
    struct dial *dial;
    struct parent *parent;
    enum reason denied;              /* why an inspected tunnel opens only to say so; REASON_OK */
};

struct exchange {
    struct list_node node;           /* in a list of proxy.wheel */
    struct proxy *proxy;
    struct client *client;           /* NULL once a tunnel has taken its stream */
    struct port *port;
    struct snapshot *snapshot;       /* referenced */
    struct identity *identity;       /* referenced; NULL until known */
    const struct policy *policy;     /* referenced; NULL until known */
    struct ask *ask;                 /* NULL once a tunnel has taken over */
    struct target_packed *target;    /* from then on; NULL before */
    char *x5t;                       /* of the client's certificate; heap, NULL */
    struct stream *upstream;
    struct tunnel *tunnel;
    struct forward *forward;
    struct inspection *inspection;   /* of an inspected tunnel */
    struct inspection *inside;       /* of an inner request: the inspection that it came through */
    struct inspect_call *call;       /* of an inner request that is a stream of HTTP/2; it has no client */
    int64_t started_ms;
    int64_t active_ms;               /* last byte either way */
    uint64_t bytes_up, bytes_down;
    char *sni;                       /* of the hello, where it is not the host to the letter; heap, NULL */
    uint32_t unspent_up;             /* of bytes_up, not yet taken from the budget */
    enum exchange_state state : 8;
    enum exchange_kind kind : 8;
    enum reason reason : 8;          /* why it ended, REASON_OK or what went wrong */
    uint16_t status;                 /* of the answer that the client got */
    uint8_t wheel_slot;              /* that node is in */
    bool speaks_http : 1;            /* transparent: a refusal can be said in HTTP */
    bool inspect : 1;                /* this tunnel opens for inspection */
    bool tuned : 1;                  /* socket options of a connection that lasts */
    bool detached : 1;               /* the client's stream is ours: counted in proxy.tunnels */
    bool has_target : 1, decided : 1, holds_tunnel : 1, pooled : 1, retried : 1;
    bool denied_in_tunnel : 1;       /* refused after the 200 */
    bool refused_by_parent : 1;
    bool named : 1;                  /* the client's hello bore a name, its host's unless `sni` says otherwise */
    struct addr peer;                /* the client; family 0 for unix sockets */
    struct addr address;             /* that was dialled */
    uint16_t peer_port;
    struct ulid id;
};

/* A complete head has been read on c; bytes are copied. */
void exchange_start(struct client *c, struct slice head);
/* A transparent connection whose target is known; c->in holds its first flight. REASON_OK, or why it is refused before it is
 * judged. */
void exchange_start_transparent(struct client *c, const struct target *target, enum reason reason);
/* A head that cannot be parsed further: one exchange, refused. */
void exchange_start_refused(struct client *c, struct slice raw, enum reason reason);
/* A stream of an inspected HTTP/2 connection has brought a request; head is the call's. */
void exchange_start_call(struct inspection *i, struct inspect_call *call, const struct h2_head *head);
/* One that is no message: recorded; the stream is reset already. */
void exchange_start_call_refused(struct inspection *i, enum reason reason);
/* A tunnel takes over: what was only needed to get here goes. */
void exchange_forget_ask(struct exchange *x);
/* The target, the host in it (as long as the exchange lives) and its port; only with has_target. */
void exchange_target(const struct exchange *x, struct target *ret);
struct slice exchange_host(const struct exchange *x);
uint16_t exchange_port(const struct exchange *x);
/* Where the client came from, for the binding of a token. */
struct presentation exchange_presentation(const struct exchange *x);
/* The only writer of state: checks the transition. */
void exchange_enter(struct exchange *x, enum exchange_state next);
/* The only exit: close record once, everything released. Idempotent. `cause` is static text. */
void exchange_finish(struct exchange *x, const char *cause);
/* Ends it because of `reason`: a reply when the client can still get one, then exchange_finish. */
void exchange_fail(struct exchange *x, enum reason reason, const char *detail);
/* The client's connection failed or went away. */
void exchange_client_gone(struct exchange *x);
/* After a 200 the bytes show that this tunnel may not be: closed, recorded as a denial. */
void exchange_deny_in_tunnel(struct exchange *x, enum reason reason);
/* Bytes moved; false when the sandbox's byte budget is used up (the exchange has ended then). */
bool exchange_count(struct exchange *x, uint64_t up, uint64_t down);
/* How many bytes upstream may be read before they are counted. */
size_t exchange_burst(const struct exchange *x);
void exchange_stir(struct exchange *x); /* bytes that were counted moved on: it is not idle */
/* By the clock and the present snapshot: still allowed? Ends it otherwise, or files it anew. */
void exchange_recheck(struct exchange *x, bool snapshot_changed);
/* The guard's word by the present snapshot on addresses that were, or are about to be, judged by the exchange's own. */
enum reason exchange_judge_again(const struct exchange *x, const struct addr *addrs, size_t count);
/* A request that is seen whole, as opposed to a tunnel. */
bool exchange_is_request(const struct exchange *x);
struct budget_limits exchange_limits(const struct exchange *x);
/* Takes a tunnel from the sandbox's budget; it goes back when the exchange ends. */
enum reason exchange_open_tunnel(struct exchange *x);
/* Dials what was judged; the record has been handed over. */
void exchange_dial(struct exchange *x, dial_fn *on_done);
/* A fresh upstream connection for a forward whose pooled one was stale. */
void exchange_redial(struct exchange *x);

#endif
