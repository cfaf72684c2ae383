/* The worker's leaves: asking once, believing nothing that does not fit, the cap of the cache, cancelling; and the server context:
 * certificates by host, ALPN exactly, versions, and sessions that stay with their host, port and sandbox. */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "sallyport/base/mem.h"
#include "sallyport/tls/leaf.h"
#include "sallyport/tls/leafwire.h"
#include "sallyport/tls/mint.h"
#include "unit/test.h"
#include "unit/tlspair.h"

#define POLICY "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define OTHER "ffff456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

#define FEW 64 /* kept leaves */

/* A keeper in a struct: it keeps the questions, and answers when told. */
struct world {
    struct leaf_store *store;
    struct ca *ca;
    EVP_PKEY *leaf_public;
    char *ca_pem, *ca_key, *leaf_private, *leaf_public_pem;
    struct leaf_question asked[64];
    char tokens[64][32];
    size_t count;
    bool full;
    int64_t now;
    size_t told;
    enum reason reason;
    struct leaf *leaf; /* the last that was told */
    struct leaf_wait *to_cancel;
};

static bool
take_question(void *arg, struct slice frame)
{
    struct world *w = arg;
    struct leaf_question q;
    if (w->full)
        return false;
    CHECK(leaf_question_read(frame, &q));
    snprintf(w->tokens[w->count % 64], 32, "%.*s", SLICE_ARG(q.token));
    w->asked[w->count++ % 64] = q;
    return true;
}

static struct leaf_store *
new_store(struct world *w)
{
    struct err err = {0};
    struct leaf_store_options o = {.key_pem = slice_str(w->leaf_private), .ca_pem = slice_str(w->ca_pem), .send = take_question, .arg = w, .cache_max = FEW};
    struct leaf_store *s = leaf_store_new(&o, &err);
    CHECK_THAT(s != NULL, "%s", err.text);
    return s;
}

static void
begin(struct world *w)
{
    struct err err = {0};
    *w = (struct world){.now = (int64_t)time(NULL)};
    struct ca_options o = {.now_s = w->now, .days = 30};
    if (ca_generate(&o, &w->ca_pem, &w->ca_key, &err) < 0 || leaf_key_generate(&w->leaf_private, &w->leaf_public_pem, &err) < 0)
        abort();
    w->ca = ca_load(slice_str(w->ca_pem), slice_str(w->ca_key), w->now, &err);
    w->leaf_public = leaf_key_public(slice_str(w->leaf_public_pem), &err);
    w->store = new_store(w);
}

static void
end(struct world *w)
{
    leaf_unref(w->leaf);
    leaf_store_free(w->store);
    ca_free(w->ca);
    EVP_PKEY_free(w->leaf_public);
    free(w->ca_pem);
    free(w->ca_key);
    free(w->leaf_private);
    free(w->leaf_public_pem);
}

static void
on_leaf(void *owner, enum reason reason, struct leaf *leaf)
{
    struct world *w = owner;
    w->told++;
    w->reason = reason;
    leaf_unref(w->leaf);
    w->leaf = leaf;
    leaf_cancel(w->to_cancel);
    w->to_cancel = NULL;
}

static struct host
host_of(const char *text)
{
    struct host h = {0};
    if (!host_parse(slice_str(text), &h))
        abort();
    return h;
}

static struct leaf *
get(struct world *w, const char *name, const char *policy, struct leaf_wait **wait)
{
    struct host h = host_of(name);
    struct leaf_ask ask = {.policy = "p", .policy_sha256 = policy, .host = &h, .port = 443, .token = slice_str("token")};
    return leaf_get(w->store, &ask, w->now, on_leaf, w, wait);
}

static bool
reply(struct world *w, uint32_t id, enum leaf_status status, struct slice der)
{
    struct leaf_answer a = {id, status, der};
    struct buf b;
    buf_init(&b, 8192);
    CHECK(leaf_answer_write(&b, &a));
    bool taken = leaf_store_answer(w->store, buf_slice(&b));
    buf_done(&b);
    return taken;
}

static bool
reply_for(struct world *w, struct ca *by, EVP_PKEY *key, uint32_t id, const char *name)
{
    struct host h = host_of(name);
    unsigned char *der;
    size_t len;
    if (!ca_mint(by, &h, key, w->now, &der, &len))
        abort();
    bool taken = reply(w, id, LEAF_STATUS_MINTED, slice_of((const char *)der, len));
    free(der);
    return taken;
}

/* A leaf by the whole way, kept. */
static struct leaf *
have(struct world *w, const char *name)
{
    struct leaf_wait *wait;
    struct leaf *l = get(w, name, POLICY, &wait);
    if (l)
        return l;
    CHECK(wait && reply_for(w, w->ca, w->leaf_public, w->asked[(w->count - 1) % 64].id, name));
    CHECK(w->reason == REASON_OK && w->leaf);
    l = w->leaf;
    w->leaf = NULL;
    return l;
}

TEST(a_host_is_asked_for_once_and_kept)
{
    struct world w;
    struct leaf_wait *one, *two;
    begin(&w);
    CHECK(!get(&w, "www.example.com", POLICY, &one) && one);
    CHECK(!get(&w, "www.example.com", POLICY, &two) && two && w.count == 1);
    CHECK(w.asked[0].port == 443 && slice_is(host_slice(&w.asked[0].host), "www.example.com"));
    CHECK_STR(w.tokens[0], "token");
    CHECK(reply_for(&w, w.ca, w.leaf_public, w.asked[0].id, "www.example.com"));
    CHECK(w.told == 2 && w.reason == REASON_OK && w.leaf);
    struct leaf *kept = get(&w, "www.example.com", OTHER, &one);
    CHECK(kept == w.leaf && !one && w.count == 1);
    leaf_unref(kept);
    end(&w);
}

TEST(another_policy_asks_for_itself)
{
    struct world w;
    struct leaf_wait *one, *two;
    begin(&w);
    CHECK(!get(&w, "www.example.com", POLICY, &one) && !get(&w, "www.example.com", OTHER, &two));
    CHECK(w.count == 2 && w.asked[0].id != w.asked[1].id);
    CHECK(reply(&w, w.asked[1].id, LEAF_STATUS_REFUSED, slice_of("", 0)));
    CHECK(w.told == 1 && w.reason == REASON_INTERNAL && !w.leaf);
    leaf_cancel(one);
    end(&w);
}

TEST(what_does_not_fit_is_not_used)
{
    struct world w, other;
    struct leaf_wait *wait;
    begin(&w);
    begin(&other);
    /* another host's certificate, another CA's, another key's, garbage, a certificate with bytes behind it */
    for (int i = 0; i < 5; i++) {
        CHECK(!get(&w, "www.example.com", POLICY, &wait) && wait);
        uint32_t id = w.asked[(w.count - 1) % 64].id;
        w.told = 0;
        if (i == 0)
            reply_for(&w, w.ca, w.leaf_public, id, "evil.example.com");
        else if (i == 1)
            reply_for(&w, other.ca, w.leaf_public, id, "www.example.com");
        else if (i == 2)
            reply_for(&w, w.ca, other.leaf_public, id, "www.example.com");
        else if (i == 3)
            reply(&w, id, LEAF_STATUS_MINTED, slice_str("garbage"));
        else {
            struct host h = host_of("www.example.com");
            unsigned char *der, *more;
            size_t len;
            CHECK(ca_mint(w.ca, &h, w.leaf_public, w.now, &der, &len));
            more = mem_zalloc(len + 1);
            memcpy(more, der, len);
            reply(&w, id, LEAF_STATUS_MINTED, slice_of((const char *)more, len + 1));
            free(more);
            free(der);
        }
        CHECK_THAT(w.told == 1 && w.reason == REASON_INTERNAL && !w.leaf, "case %d", i);
    }
    end(&w);
    end(&other);
}

TEST(refusals_have_their_reasons)
{
    static const struct { enum leaf_status status; enum reason reason; } rows[] = {
        {LEAF_STATUS_REFUSED, REASON_INTERNAL}, {LEAF_STATUS_UNKNOWN_POLICY, REASON_POLICY_UNKNOWN},
        {LEAF_STATUS_BUSY, REASON_OVERLOADED},  {LEAF_STATUS_FAILED, REASON_INTERNAL},
    };
    struct world w;
    struct leaf_wait *wait;
    begin(&w);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK(!get(&w, "www.example.com", POLICY, &wait) && wait);
        CHECK(reply(&w, w.asked[(w.count - 1) % 64].id, rows[i].status, slice_of("", 0)));
        CHECK(w.told == i + 1 && w.reason == rows[i].reason);
    }
    end(&w);
}

TEST(answers_to_nothing_are_dropped)
{
    struct world w;
    struct leaf_wait *wait;
    begin(&w);
    CHECK(!reply(&w, 7, LEAF_STATUS_REFUSED, slice_of("", 0)));
    CHECK(!leaf_store_answer(w.store, slice_str("")) && !leaf_store_answer(w.store, slice_str("\0\0\0\1\1")));
    CHECK(!get(&w, "www.example.com", POLICY, &wait));
    leaf_cancel(wait);
    CHECK(!reply_for(&w, w.ca, w.leaf_public, w.asked[0].id, "www.example.com") && w.told == 0);
    leaf_cancel(NULL);
    end(&w);
}

TEST(one_who_is_told_may_cancel_another)
{
    struct world w;
    struct leaf_wait *one;
    begin(&w);
    CHECK(!get(&w, "www.example.com", POLICY, &one) && !get(&w, "www.example.com", POLICY, &w.to_cancel));
    CHECK(reply_for(&w, w.ca, w.leaf_public, w.asked[0].id, "www.example.com") && w.told == 1);
    end(&w);
}

TEST(the_end_of_a_store_is_told)
{
    struct world w;
    struct leaf_wait *wait;
    begin(&w);
    CHECK(!get(&w, "a.example.com", POLICY, &wait) && !get(&w, "b.example.com", POLICY, &wait));
    leaf_store_free(w.store);
    w.store = NULL;
    CHECK(w.told == 2 && w.reason == REASON_INTERNAL);
    end(&w);
}

TEST(a_keeper_that_began_anew_is_asked_again)
{
    struct world w;
    struct leaf_wait *wait;
    begin(&w);
    CHECK(!get(&w, "a.example.com", POLICY, &wait));
    leaf_store_again(w.store);
    CHECK(w.count == 2 && w.asked[0].id == w.asked[1].id);
    CHECK_STR(w.tokens[1], "token");
    CHECK(reply_for(&w, w.ca, w.leaf_public, w.asked[0].id, "a.example.com") && w.told == 1);
    leaf_store_again(w.store);
    CHECK(w.count == 2);
    end(&w);
}

TEST(too_much_at_once_is_said_at_once)
{
    struct world w;
    struct leaf_wait *wait;
    begin(&w);
    w.full = true;
    CHECK(!get(&w, "a.example.com", POLICY, &wait) && !wait);
    w.full = false;
    for (int i = 0; i < LEAF_WAITING_MAX; i++) {
        char name[32];
        snprintf(name, sizeof name, "h%d.example.com", i);
        CHECK(!get(&w, name, POLICY, &wait) && wait);
    }
    CHECK(!get(&w, "one-more.example.com", POLICY, &wait) && !wait);
    CHECK(!get(&w, "h1.example.com", POLICY, &wait) && wait); /* joins */
    end(&w);
}

TEST(a_leaf_that_ends_soon_is_asked_for_anew)
{
    struct world w;
    struct leaf_wait *wait;
    begin(&w);
    leaf_unref(have(&w, "a.example.com"));
    w.now += LEAF_LIFETIME_S - 3601;
    struct leaf *l = get(&w, "a.example.com", POLICY, &wait);
    CHECK(l && !wait);
    leaf_unref(l);
    w.now += 2;
    CHECK(!get(&w, "a.example.com", POLICY, &wait) && wait);
    leaf_cancel(wait);
    end(&w);
}

TEST(a_full_cache_forgets_the_least_used)
{
    struct world w;
    struct leaf_wait *wait;
    char name[32];
    begin(&w);
    for (int i = 0; i < FEW; i++) {
        snprintf(name, sizeof name, "h%d.example.com", i);
        leaf_unref(have(&w, name));
    }
    leaf_unref(have(&w, "h0.example.com")); /* used: now h1 is the oldest */
    CHECK(w.count == FEW);
    leaf_unref(have(&w, "one-more.example.com"));
    struct leaf *l = get(&w, "h0.example.com", POLICY, &wait);
    CHECK(l && !wait);
    leaf_unref(l);
    CHECK(!get(&w, "h1.example.com", POLICY, &wait) && wait);
    leaf_cancel(wait);
    end(&w);
}

TEST(keys_and_certificates_that_cannot_be_read_are_errors)
{
    struct world w;
    struct err err = {0};
    begin(&w);
    struct leaf_store_options o = {.key_pem = slice_str("x"), .ca_pem = slice_str(w.ca_pem), .send = take_question, .arg = &w};
    CHECK(!leaf_store_new(&o, &err));
    o = (struct leaf_store_options){.key_pem = slice_str(w.leaf_private), .ca_pem = slice_str(""), .send = take_question, .arg = &w};
    CHECK(!leaf_store_new(&o, &err));
    end(&w);
}

/* ---- connections ---- */

static SSL_CTX *
client_context(const char *root_pem)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    BIO *bio = BIO_new_mem_buf(root_pem, -1);
    X509 *root = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    BIO_free(bio);
    X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), root);
    X509_free(root);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ctx), X509_V_FLAG_X509_STRICT);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT);
    return ctx;
}

struct visit {
    const char *host, *alpn_offer, *alpn, *partition;
    uint16_t port;
    SSL_SESSION *resume;
};

/* One connection; *ret_session is what it may resume later. */
static int
visit(struct world *w, SSL_CTX *client, const struct visit *v, struct tls_pair *p)
{
    struct leaf *l = have(w, v->host);
    *p = (struct tls_pair){SSL_new(client), SSL_new(leaf_context(w->store))};
    tls_pair_join(p);
    SSL_set1_host(p->client, v->host);
    if (v->alpn_offer)
        SSL_set_alpn_protos(p->client, (const unsigned char *)v->alpn_offer, (unsigned)strlen(v->alpn_offer));
    if (v->resume)
        SSL_set_session(p->client, v->resume);
    CHECK(leaf_apply(l, p->server, v->alpn, slice_str(v->partition), v->port));
    leaf_unref(l);
    return tls_pair_shake(p);
}

static const char *
chosen(SSL *ssl)
{
    static char text[32];
    const unsigned char *name;
    unsigned len;
    SSL_get0_alpn_selected(ssl, &name, &len);
    snprintf(text, sizeof text, "%.*s", (int)len, name ? (const char *)name : "");
    return text;
}

TEST(each_host_gets_its_own_certificate_of_one_context)
{
    struct world w;
    struct tls_pair p;
    begin(&w);
    SSL_CTX *client = client_context(w.ca_pem);
    static const char *const hosts[] = {"a.example.com", "b.example.com", "a.example.com"};
    for (size_t i = 0; i < 3; i++) {
        CHECK(visit(&w, client, &(struct visit){.host = hosts[i], .partition = "s", .port = 443}, &p) == 1);
        CHECK(SSL_get_verify_result(p.client) == X509_V_OK && strcmp(SSL_get_version(p.client), "TLSv1.3") == 0);
        tls_pair_done(&p);
    }
    CHECK(w.count == 2);
    SSL_CTX_free(client);
    end(&w);
}

TEST(alpn_is_what_was_said_or_nothing)
{
    struct world w;
    struct tls_pair p;
    begin(&w);
    SSL_CTX *client = client_context(w.ca_pem);
    static const struct { const char *offer, *alpn, *expected; int ok; } rows[] = {
        {"\x02h2\x08http/1.1", "h2", "h2", 1}, {"\x02h2\x08http/1.1", "http/1.1", "http/1.1", 1}, {"\x08http/1.1", "h2", "", 0},
        {"\x08http/1.1", "", "", 1},           {NULL, "http/1.1", "", 1},                          {"\x02h2", NULL, "", 1},
        {"\x02zz\x02h2", "h2", "h2", 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct visit v = {.host = "a.example.com", .alpn_offer = rows[i].offer, .alpn = rows[i].alpn, .partition = "s", .port = 443};
        CHECK_THAT(visit(&w, client, &v, &p) == rows[i].ok, "row %zu", i);
        if (rows[i].ok)
            CHECK_STR(chosen(p.client), rows[i].expected);
        tls_pair_done(&p);
    }
    ERR_clear_error();
    SSL_CTX_free(client);
    end(&w);
}

/* First a connection, then one that would resume it: only the same host, port and partition may. */
static void
check_resumption(int version)
{
    struct world w;
    struct tls_pair p;
    begin(&w);
    SSL_CTX *client = client_context(w.ca_pem);
    SSL_CTX_set_max_proto_version(client, version);
    static const struct { const char *host, *partition; uint16_t port; int resumed; } rows[] = {
        {"a.example.com", "sandbox-1", 443, 1}, {"a.example.com", "sandbox-2", 443, 0}, {"b.example.com", "sandbox-1", 443, 0},
        {"a.example.com", "sandbox-1", 8443, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK(visit(&w, client, &(struct visit){.host = "a.example.com", .partition = "sandbox-1", .port = 443}, &p) == 1);
        SSL_SESSION *session = SSL_get1_session(p.client);
        CHECK(session && SSL_SESSION_is_resumable(session) && !SSL_session_reused(p.client));
        CHECK(SSL_SESSION_get_max_early_data(session) == 0);
        tls_pair_done(&p);
        struct visit again = {.host = rows[i].host, .partition = rows[i].partition, .port = rows[i].port, .resume = session};
        CHECK_THAT(visit(&w, client, &again, &p) == 1, "row %zu", i);
        CHECK_THAT(SSL_session_reused(p.client) == rows[i].resumed, "row %zu, version %x", i, (unsigned)version);
        tls_pair_done(&p);
        SSL_SESSION_free(session);
    }
    SSL_CTX_free(client);
    end(&w);
}

TEST(sessions_stay_with_their_host_port_and_sandbox)
{
    check_resumption(TLS1_3_VERSION);
    check_resumption(TLS1_2_VERSION);
}

TEST(any_worker_of_the_run_resumes)
{
    struct world w;
    struct tls_pair p;
    begin(&w);
    SSL_CTX *client = client_context(w.ca_pem);
    CHECK(visit(&w, client, &(struct visit){.host = "a.example.com", .partition = "s", .port = 443}, &p) == 1);
    SSL_SESSION *session = SSL_get1_session(p.client);
    tls_pair_done(&p);
    leaf_store_free(w.store);
    w.store = new_store(&w); /* another worker, or this one started again */
    CHECK(visit(&w, client, &(struct visit){.host = "a.example.com", .partition = "s", .port = 443, .resume = session}, &p) == 1);
    CHECK(SSL_session_reused(p.client) == 1);
    tls_pair_done(&p);
    /* Another run has another leaf key, and so other tickets. */
    struct world next;
    begin(&next);
    SSL_CTX_set_verify(client, SSL_VERIFY_NONE, NULL);
    CHECK(visit(&next, client, &(struct visit){.host = "a.example.com", .partition = "s", .port = 443, .resume = session}, &p) == 1);
    CHECK(SSL_session_reused(p.client) == 0);
    tls_pair_done(&p);
    SSL_SESSION_free(session);
    SSL_CTX_free(client);
    end(&next);
    end(&w);
}

static int tickets_seen;

static int
count_ticket(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    (void)session;
    tickets_seen++;
    return 0;
}

/* AES-128 whatever else the client would rather have, unless that has no AES of its own; and each ticket is work. */
TEST(the_cheapest_suite_and_one_ticket)
{
    struct world w;
    struct tls_pair p;
    static const struct { const char *offer, *chosen; } rows[] = {
        {"TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"},
        {"TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"},
        {"TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"},
    };
    begin(&w);
    SSL_CTX *client = client_context(w.ca_pem);
    SSL_CTX_sess_set_new_cb(client, count_ticket);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        tickets_seen = 0;
        CHECK(SSL_CTX_set_ciphersuites(client, rows[i].offer) == 1);
        CHECK(visit(&w, client, &(struct visit){.host = "a.example.com", .partition = "s", .port = 443}, &p) == 1);
        CHECK_STR(SSL_get_cipher_name(p.server), rows[i].chosen);
        CHECK_THAT(tickets_seen == 1, "%d tickets", tickets_seen);
        tls_pair_done(&p);
    }
    SSL_CTX_free(client);
    end(&w);
}

TEST(old_versions_are_refused)
{
    struct world w;
    struct tls_pair p;
    begin(&w);
    SSL_CTX *client = client_context(w.ca_pem);
    SSL_CTX_set_security_level(client, 0);
    SSL_CTX_set_min_proto_version(client, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(client, TLS1_1_VERSION);
    CHECK(visit(&w, client, &(struct visit){.host = "a.example.com", .partition = "s", .port = 443}, &p) == 0);
    tls_pair_done(&p);
    ERR_clear_error();
    SSL_CTX_free(client);
    end(&w);
}

TEST(a_client_cannot_renegotiate)
{
    struct world w;
    struct tls_pair p;
    char byte;
    begin(&w);
    SSL_CTX *client = client_context(w.ca_pem);
    SSL_CTX_set_max_proto_version(client, TLS1_2_VERSION);
    CHECK(visit(&w, client, &(struct visit){.host = "a.example.com", .partition = "s", .port = 443}, &p) == 1);
    CHECK(SSL_renegotiate(p.client) == 1);
    (void)SSL_do_handshake(p.client);
    (void)SSL_read(p.server, &byte, 1);
    (void)SSL_do_handshake(p.client);
    CHECK(SSL_renegotiate_pending(p.client) || SSL_get_state(p.client) != TLS_ST_OK || SSL_num_renegotiations(p.server) == 0);
    CHECK(SSL_num_renegotiations(p.server) == 0);
    tls_pair_done(&p);
    ERR_clear_error();
    SSL_CTX_free(client);
    end(&w);
}

TEST(a_connection_that_was_not_prepared_fails)
{
    struct world w;
    begin(&w);
    SSL_CTX *client = client_context(w.ca_pem);
    struct tls_pair p = {SSL_new(client), SSL_new(leaf_context(w.store))};
    tls_pair_join(&p);
    CHECK(tls_pair_shake(&p) == 0);
    tls_pair_done(&p);
    ERR_clear_error();
    SSL_CTX_free(client);
    end(&w);
}

TEST(leaves_outlive_their_store)
{
    struct world w;
    begin(&w);
    struct leaf *l = have(&w, "a.example.com");
    SSL *ssl = SSL_new(leaf_context(w.store));
    leaf_store_free(w.store);
    w.store = NULL;
    CHECK(leaf_apply(l, ssl, "h2", slice_str("s"), 443));
    CHECK(leaf_apply(l, ssl, "http/1.1", slice_str("s"), 443)); /* again: the last holds */
    SSL_free(ssl);
    leaf_unref(l);
    end(&w);
}
