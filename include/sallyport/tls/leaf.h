/* The certificates that inspected clients are shown: asked of the keeper, kept by canonical host, used on one server context
 * for all hosts. A worker's; holds the run's leaf key and never the CA's. Opens nothing and knows no clock: frames go out by
 * a function, answers and times come as arguments. */
#ifndef SALLYPORT_TLS_LEAF_H
#define SALLYPORT_TLS_LEAF_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/err.h"
#include "sallyport/base/reason.h"
#include "sallyport/base/slice.h"
#include "sallyport/http/target.h"

#define LEAF_CACHE_MAX 10000  /* certificates kept, least recently used goes first */
#define LEAF_WAITING_MAX 4096 /* hosts asked for at once */

struct leaf;       /* a certificate for one host; counted references */
struct leaf_store;
struct leaf_wait;  /* somebody who waits for an answer */

struct leaf_store_options {
    struct slice key_pem; /* the run's leaf key (private) */
    struct slice ca_pem;  /* the inspection CA's certificate, and those above it when it is not a root */
    /* Hands one frame (a keeper question) over; false: it cannot be taken now. */
    bool (*send)(void *arg, struct slice frame);
    void *arg;
    size_t cache_max;     /* 0: LEAF_CACHE_MAX */
};
struct leaf_store *leaf_store_new(const struct leaf_store_options *o, struct err *err);
/* Who waits is told REASON_INTERNAL; leaves and the context live on while they are used. NULL is fine. */
void leaf_store_free(struct leaf_store *s);

/* On whose behalf. The keeper judges this itself and believes none of it. */
struct leaf_ask {
    const char *policy;        /* policy_name */
    const char *policy_sha256; /* policy_sha256 */
    const struct host *host;   /* the canonical target, never SNI */
    uint16_t port;
    struct slice token;        /* the client's token; only needed where the policy is the token's own, else may be empty */
};

/* REASON_OK and a leaf (the owner's, leaf_unref), or OVERLOADED (too many asked), POLICY_UNKNOWN, INTERNAL (the keeper says
 * that this policy does not inspect this host, or cannot mint). From leaf_store_answer and leaf_store_free; never from
 * inside leaf_get. */
typedef void leaf_fn(void *owner, enum reason reason, struct leaf *leaf);

/* A kept leaf (a new reference) and *ret_wait NULL; or NULL and *ret_wait: on_done comes later, once, unless cancelled; or
 * NULL and *ret_wait NULL: nothing can be asked now (REASON_OVERLOADED). The wait has no deadline of its own: the owner's
 * handshake has one. */
struct leaf *leaf_get(struct leaf_store *s, const struct leaf_ask *ask, int64_t wall_s, leaf_fn *on_done, void *owner,
                      struct leaf_wait **ret_wait);
/* Would leaf_get have to ask the keeper for this one? */
bool leaf_must_be_asked(struct leaf_store *s, const struct leaf_ask *ask, int64_t wall_s);
void leaf_cancel(struct leaf_wait *w); /* no callback afterwards; NULL is fine. Not after on_done. */
void leaf_unref(struct leaf *l);       /* NULL is fine */

/* What came from the keeper. Waiters are told from here. False: it was no answer to anything (dropped). */
bool leaf_store_answer(struct leaf_store *s, struct slice frame);
/* A keeper that started anew has forgotten what it was asked: asks again. */
void leaf_store_again(struct leaf_store *s);

/* The one server context, for stream_accept_tls: TLS 1.2 and 1.3, no renegotiation, no 0-RTT, tickets. */
SSL_CTX *leaf_context(struct leaf_store *s);
/* Right after stream_accept_tls, before the loop turns: the certificate, ALPN exactly `alpn` ("" or NULL: none is chosen) and
 * who may resume: the same partition (the sandbox and its policy, in any words), host and port. False: not to be used. */
bool leaf_apply(const struct leaf *l, SSL *ssl, const char *alpn, struct slice partition, uint16_t port);

#endif
