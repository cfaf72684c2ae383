/* A worker's leaves: cache, questions under way, and the server context that all inspected hosts share. A question for a host is asked
 * once, whoever waits for it. The CA's key is never here; an answer is used only if it is a certificate of our own leaf key,
 * issued by our CA, for the host that was asked. */
#include "sallyport/tls/leaf.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "sallyport/base/digest.h"
#include "sallyport/base/encoding.h"
#include "sallyport/base/list.h"
#include "sallyport/base/map.h"
#include "sallyport/base/mem.h"
#include "sallyport/tls/context.h"
#include "sallyport/tls/leafwire.h"
#include "sallyport/tls/library.h"

/* A leaf is asked for anew this long before it ends: no handshake meets an expired one. */
#define LEAF_MARGIN_S 3600
#define CHAIN_MAX 8
#define SESSION_S 3600     /* how long a client may resume */
#define ALPN_MAX 255

struct leaf {
    unsigned refs;
    struct list_node node;   /* in store.recent while kept */
    struct host host;
    X509 *cert;
    EVP_PKEY *key;           /* the store's, a reference of its own */
    STACK_OF(X509) *chain;   /* likewise; NULL when the CA is a root */
    int64_t not_after;
};

struct question {
    struct leaf_store *store;
    struct list_node node;   /* in store.asked */
    uint32_t id;
    struct list waits;
    char *frame;             /* as sent, to be sent again */
    size_t frame_len;
    struct host host;
    bool answered;           /* out of the store's lists; freed when all have been told */
    char key[SHA256_HEX_SIZE + TARGET_TEXT_SIZE];
};

struct leaf_wait {
    struct question *question;
    struct list_node node;
    leaf_fn *on_done;
    void *owner;
};

struct leaf_store {
    SSL_CTX *context;
    EVP_PKEY *key;
    X509 *ca;
    STACK_OF(X509) *chain;
    bool (*send)(void *arg, struct slice frame);
    void *send_arg;
    struct map *kept;        /* host -> struct leaf */
    struct list recent;      /* the least recently used first */
    size_t kept_max;
    struct map *by_key;      /* policy digest and target -> struct question */
    struct list asked;
    uint32_t next_id;
};

/* ---- one connection ---- */

/* What a connection was prepared with; hangs on its SSL. */
struct connection {
    size_t alpn_len;
    unsigned char alpn[]; /* length byte and name */
};

static void
free_connection(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int index, long argl, void *argp)
{
    (void)parent;
    (void)ad;
    (void)index;
    (void)argl;
    (void)argp;
    free(ptr);
}

static int
connection_index(void)
{
    static int index = -1;
    if (index < 0)
        index = SSL_get_ex_new_index(0, NULL, NULL, NULL, free_connection);
    if (index < 0)
        abort();
    return index;
}

/* The upstream chose from this client's own list, so a client that does not offer it now is not the one that we read. */
static int
choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in, unsigned in_len, void *arg)
{
    const struct connection *c = SSL_get_ex_data(ssl, connection_index());
    unsigned char *chosen = NULL;
    (void)arg;
    if (!c)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    if (c->alpn_len == 0)
        return SSL_TLSEXT_ERR_NOACK;
    if (SSL_select_next_proto(&chosen, out_len, c->alpn, (unsigned)c->alpn_len, in, in_len) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* Sessions are bound to who may resume them: another sandbox, policy, host or port is another context, and a ticket of
 * one is none in the other. */
static bool
bind_sessions(SSL *ssl, const struct host *host, uint16_t port, struct slice partition)
{
    unsigned char id[SHA256_SIZE];
    struct buf b;
    buf_init(&b, TARGET_TEXT_SIZE + 1 + partition.len);
    bool fine = buf_printf(&b, "%s:%u\n", host->text, (unsigned)port) && buf_append_slice(&b, partition);
    sha256(buf_slice(&b), id);
    buf_done(&b);
    return fine && SSL_set_session_id_context(ssl, id, sizeof id) == 1;
}

bool
leaf_apply(const struct leaf *l, SSL *ssl, const char *alpn, struct slice partition, uint16_t port)
{
    size_t len = alpn ? strlen(alpn) : 0;
    if (len > ALPN_MAX)
        return false;
    struct connection *c = mem_zalloc(sizeof *c + 1 + len);
    if (len) {
        c->alpn[0] = (unsigned char)len;
        memcpy(c->alpn + 1, alpn, len);
        c->alpn_len = len + 1;
    }
    free(SSL_get_ex_data(ssl, connection_index()));
    if (SSL_set_ex_data(ssl, connection_index(), c) != 1) {
        free(c);
        return false;
    }
    bool fine = SSL_use_certificate(ssl, l->cert) == 1 && SSL_use_PrivateKey(ssl, l->key) == 1 &&
                (!l->chain || SSL_set1_chain(ssl, l->chain) == 1) && bind_sessions(ssl, &l->host, port, partition);
    ERR_clear_error();
    return fine;
}

/* ---- leaves ---- */

void
leaf_unref(struct leaf *l)
{
    if (!l || --l->refs)
        return;
    X509_free(l->cert);
    EVP_PKEY_free(l->key);
    sk_X509_pop_free(l->chain, X509_free);
    free(l);
}

static void
forget(struct leaf_store *s, struct leaf *l)
{
    map_remove(s->kept, host_slice(&l->host));
    list_remove(&s->recent, &l->node);
    leaf_unref(l);
}

static void
keep(struct leaf_store *s, struct leaf *l)
{
    struct leaf *old = map_get(s->kept, host_slice(&l->host));
    if (old)
        forget(s, old);
    l->refs++;
    map_put(s->kept, host_slice(&l->host), l);
    list_append(&s->recent, &l->node);
    while (s->recent.count > s->kept_max)
        forget(s, list_entry(list_first(&s->recent), struct leaf, node));
}

static struct leaf *
find_kept(struct leaf_store *s, const struct host *host, int64_t wall_s)
{
    struct leaf *l = map_get(s->kept, host_slice(host));
    if (!l)
        return NULL;
    if (wall_s + LEAF_MARGIN_S >= l->not_after) {
        forget(s, l);
        return NULL;
    }
    list_remove(&s->recent, &l->node);
    list_append(&s->recent, &l->node);
    l->refs++;
    return l;
}

/* The keeper is ours and is not believed all the same: an old one may still hold another CA. */
static bool
is_for(const struct leaf_store *s, X509 *cert, const struct host *host)
{
    EVP_PKEY *key = X509_get0_pubkey(cert);
    if (!key || EVP_PKEY_eq(key, s->key) != 1 || X509_check_issued(s->ca, cert) != X509_V_OK)
        return false;
    if (host->kind == HOST_NAME)
        return X509_check_host(cert, host->text, host->len, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_WILDCARDS, NULL) == 1;
    return X509_check_ip(cert, host->literal.bytes, host->kind == HOST_IPV4 ? 4 : 16, 0) == 1;
}

static struct leaf *
leaf_from(const struct leaf_store *s, struct slice der, const struct host *host)
{
    X509 *cert = tls_read_der(der);
    struct tm tm = {0};
    if (!cert || !is_for(s, cert, host) || ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) != 1) {
        X509_free(cert);
        ERR_clear_error();
        return NULL;
    }
    struct leaf *l = mem_zalloc(sizeof *l);
    l->refs = 1;
    l->host = *host;
    l->cert = cert;
    l->not_after = (int64_t)timegm(&tm);
    EVP_PKEY_up_ref(s->key);
    l->key = s->key;
    l->chain = s->chain ? X509_chain_up_ref(s->chain) : NULL;
    return l;
}

/* ---- asking ---- */

static void
free_question(struct question *q)
{
    if (q->frame)
        mem_wipe(q->frame, q->frame_len); /* a token may be in it */
    free(q->frame);
    free(q);
}

/* No answer reaches it any more, and the next who asks the same asks anew. */
static void
take_out(struct leaf_store *s, struct question *q)
{
    map_remove(s->by_key, slice_str(q->key));
    list_remove(&s->asked, &q->node);
    q->answered = true;
}

/* Asked for one policy is asked for that policy alone: another one may be refused what this one gets. */
static void
question_key(const struct leaf_ask *ask, char key[SHA256_HEX_SIZE + TARGET_TEXT_SIZE])
{
    snprintf(key, SHA256_HEX_SIZE + TARGET_TEXT_SIZE, "%.64s %.*s:%u", ask->policy_sha256, (int)ask->host->len, ask->host->text,
             (unsigned)ask->port);
}

static bool
write_frame(struct question *q, const struct leaf_ask *ask)
{
    struct leaf_question wire = {.id = q->id, .policy = slice_str(ask->policy), .host = *ask->host, .port = ask->port, .token = ask->token};
    struct buf b;
    if (!hex_decode(slice_str(ask->policy_sha256), wire.policy_sha256, SHA256_SIZE))
        return false;
    buf_init(&b, LEAF_QUESTION_MAX);
    bool fine = leaf_question_write(&b, &wire);
    if (fine) {
        q->frame_len = buf_len(&b);
        q->frame = mem_dup_slice(buf_slice(&b));
        mem_wipe(b.data, b.size);
    }
    buf_done(&b);
    return fine;
}

static struct question *
ask_keeper(struct leaf_store *s, const struct leaf_ask *ask, const char *key)
{
    if (s->asked.count >= LEAF_WAITING_MAX)
        return NULL;
    struct question *q = mem_zalloc(sizeof *q);
    q->store = s;
    q->id = s->next_id++;
    q->host = *ask->host;
    list_init(&q->waits);
    memcpy(q->key, key, sizeof q->key);
    if (!write_frame(q, ask) || !s->send(s->send_arg, slice_of(q->frame, q->frame_len))) {
        free_question(q);
        return NULL;
    }
    list_append(&s->asked, &q->node);
    map_put(s->by_key, slice_str(q->key), q);
    return q;
}

bool
leaf_must_be_asked(struct leaf_store *s, const struct leaf_ask *ask, int64_t wall_s)
{
    char key[SHA256_HEX_SIZE + TARGET_TEXT_SIZE];
    const struct leaf *l = map_get(s->kept, host_slice(ask->host));
    if (l && wall_s + LEAF_MARGIN_S < l->not_after)
        return false;
    question_key(ask, key);
    return !map_get(s->by_key, slice_str(key));
}

struct leaf *
leaf_get(struct leaf_store *s, const struct leaf_ask *ask, int64_t wall_s, leaf_fn *on_done, void *owner, struct leaf_wait **ret_wait)
{
    char key[SHA256_HEX_SIZE + TARGET_TEXT_SIZE];
    *ret_wait = NULL;
    struct leaf *l = find_kept(s, ask->host, wall_s);
    if (l)
        return l;
    question_key(ask, key);
    struct question *q = map_get(s->by_key, slice_str(key));
    if (!q)
        q = ask_keeper(s, ask, key);
    if (!q)
        return NULL;
    struct leaf_wait *w = mem_zalloc(sizeof *w);
    *w = (struct leaf_wait){.question = q, .on_done = on_done, .owner = owner};
    list_append(&q->waits, &w->node);
    *ret_wait = w;
    return NULL;
}

/* A question that nobody waits for is forgotten; its answer then finds nothing. */
void
leaf_cancel(struct leaf_wait *w)
{
    if (!w)
        return;
    struct question *q = w->question;
    list_remove(&q->waits, &w->node);
    free(w);
    if (list_empty(&q->waits) && !q->answered) {
        take_out(q->store, q);
        free_question(q);
    }
}

static enum reason
status_reason(enum leaf_status status)
{
    switch (status) {
    case LEAF_STATUS_NONE:
    case LEAF_STATUS_MINTED: /* and could not be used */
    case LEAF_STATUS_REFUSED:
    case LEAF_STATUS_FAILED:
        break;
    case LEAF_STATUS_UNKNOWN_POLICY:
        return REASON_POLICY_UNKNOWN;
    case LEAF_STATUS_BUSY:
        return REASON_OVERLOADED;
    }
    return REASON_INTERNAL;
}

/* A callback may cancel others that wait, ask again or even end the store: the question leaves the store first. */
static void
tell(struct leaf_store *s, struct question *q, enum reason reason, struct leaf *l)
{
    take_out(s, q);
    while (!list_empty(&q->waits)) {
        struct leaf_wait *w = list_entry(list_first(&q->waits), struct leaf_wait, node);
        leaf_fn *on_done = w->on_done;
        void *owner = w->owner;
        list_remove(&q->waits, &w->node);
        free(w);
        if (l)
            l->refs++;
        on_done(owner, reason, l);
    }
    free_question(q);
}

static struct question *
question_of(struct leaf_store *s, uint32_t id)
{
    for (struct list_node *n = list_first(&s->asked); n; n = list_next(&s->asked, n)) {
        struct question *q = list_entry(n, struct question, node);
        if (q->id == id)
            return q;
    }
    return NULL;
}

bool
leaf_store_answer(struct leaf_store *s, struct slice frame)
{
    struct leaf_answer a;
    struct question *q = leaf_answer_read(frame, &a) ? question_of(s, a.id) : NULL;
    if (!q)
        return false;
    struct leaf *l = a.status == LEAF_STATUS_MINTED ? leaf_from(s, a.der, &q->host) : NULL;
    if (l)
        keep(s, l);
    tell(s, q, l ? REASON_OK : status_reason(a.status), l);
    leaf_unref(l);
    return true;
}

void
leaf_store_again(struct leaf_store *s)
{
    for (struct list_node *n = list_first(&s->asked); n; n = list_next(&s->asked, n)) {
        struct question *q = list_entry(n, struct question, node);
        (void)s->send(s->send_arg, slice_of(q->frame, q->frame_len)); /* full: the waiters' deadlines end it */
    }
}

/* ---- the store ---- */

/* All certificates of the text; the first is the CA that signs, the rest stand above it. */
static int
read_ca(struct leaf_store *s, struct slice pem, struct err *err)
{
    BIO *bio = pem.len && pem.len < INT32_MAX ? BIO_new_mem_buf(pem.ptr, (int)pem.len) : NULL;
    s->ca = bio ? tls_read_pem(bio) : NULL;
    bool root = s->ca && X509_check_issued(s->ca, s->ca) == X509_V_OK;
    if (s->ca && !root) {
        s->chain = sk_X509_new_null();
        X509_up_ref(s->ca);
        sk_X509_push(s->chain, s->ca);
        for (X509 *c; sk_X509_num(s->chain) < CHAIN_MAX && (c = tls_read_pem(bio));)
            sk_X509_push(s->chain, c);
    }
    BIO_free(bio);
    ERR_clear_error();
    return s->ca ? 0 : err_invalid(err, "the inspection CA's certificate cannot be read; expected PEM");
}

static int
read_key(struct leaf_store *s, struct slice pem, struct err *err)
{
    s->key = tls_read_private_pem(pem);
    ERR_clear_error();
    return s->key ? 0 : err_invalid(err, "the leaf key cannot be read");
}

/* All workers of a run have the same leaf key, so tickets sealed by what is made of it are good at each of them. */
static bool
share_tickets(SSL_CTX *context, struct slice key_pem)
{
    unsigned char keys[80]; /* name, HMAC key and AES key, as OpenSSL 3 takes them */
    for (size_t i = 0, n; i < sizeof keys; i += n) {
        char label[32];
        unsigned char part[SHA256_SIZE];
        snprintf(label, sizeof label, "sallyport tickets %zu\n", i);
        sha256_two(slice_str(label), key_pem, part);
        n = sizeof keys - i < sizeof part ? sizeof keys - i : sizeof part;
        memcpy(keys + i, part, n);
        mem_wipe(part, sizeof part);
    }
    bool fine = SSL_CTX_set_tlsext_ticket_keys(context, keys, sizeof keys) == 1;
    mem_wipe(keys, sizeof keys);
    return fine;
}

static int
make_context(struct leaf_store *s, struct slice key_pem, struct err *err)
{
    s->context = tls_inspect_context(err);
    if (!s->context)
        return -1;
    SSL_CTX_set_alpn_select_cb(s->context, choose_alpn, NULL);
    SSL_CTX_set_timeout(s->context, SESSION_S);
    return share_tickets(s->context, key_pem) ? 0 : err_run(err, "session tickets cannot be set up");
}

struct leaf_store *
leaf_store_new(const struct leaf_store_options *o, struct err *err)
{
    struct leaf_store *s = mem_zalloc(sizeof *s);
    s->send = o->send;
    s->send_arg = o->arg;
    s->kept = map_new();
    s->kept_max = o->cache_max ? o->cache_max : LEAF_CACHE_MAX;
    s->by_key = map_new();
    s->next_id = 1;
    list_init(&s->recent);
    list_init(&s->asked);
    ERR_clear_error();
    if (read_ca(s, o->ca_pem, err) < 0 || read_key(s, o->key_pem, err) < 0 || make_context(s, o->key_pem, err) < 0) {
        leaf_store_free(s);
        return NULL;
    }
    return s;
}

/* Who still waits hears that nothing comes. */
static void
end_questions(struct leaf_store *s)
{
    for (struct list_node *n; (n = list_first(&s->asked));)
        tell(s, list_entry(n, struct question, node), REASON_INTERNAL, NULL);
}

void
leaf_store_free(struct leaf_store *s)
{
    if (!s)
        return;
    end_questions(s);
    while (!list_empty(&s->recent))
        forget(s, list_entry(list_first(&s->recent), struct leaf, node));
    map_free(s->kept, NULL);
    map_free(s->by_key, NULL);
    SSL_CTX_free(s->context);
    EVP_PKEY_free(s->key);
    X509_free(s->ca);
    sk_X509_pop_free(s->chain, X509_free);
    free(s);
}

SSL_CTX *
leaf_context(struct leaf_store *s)
{
    return s->context;
}
