/* The client side of inspection: what is verified, what is resumed, and what failed. Every connection has a small struct on
 * its SSL that its callbacks fill in; the sessions of all lie in one capped table, keyed by who may use them. */
#include "sallyport/tls/upstream.h"

#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/x509v3.h>
#include <stdio.h>

#include "sallyport/base/buf.h"
#include "sallyport/base/list.h"
#include "sallyport/base/map.h"
#include "sallyport/base/mem.h"
#include "sallyport/tls/context.h"
#include "sallyport/tls/signatures.h"

#define ALPN_WIRE_MAX 256
#define TLSFEATURE_STATUS_REQUEST 5  /* RFC 7633: must-staple */
#define STAPLE_SKEW_S 300
#define STAPLE_MAX 65536

/* What the stapled OCSP response came to. */
enum staple { STAPLE_UNSEEN = 0, STAPLE_FINE, STAPLE_REVOKED, STAPLE_MISSING };

/* The sessions of one key: a ticket of TLS 1.3 is used once (RFC 8446 appendix C.4), and connections come several at once. */
struct stock {
    struct list sessions;    /* the oldest first; never empty between calls */
    char key[SHA256_HEX_SIZE];
};

struct session {
    struct list_node node;   /* in upstream_tls.recent */
    struct list_node sibling; /* in stock.sessions */
    struct stock *stock;
    SSL_SESSION *session;
    int64_t until_s;
};

struct upstream_tls {
    unsigned refs;
    SSL_CTX *context;
    struct map *stocks;      /* key -> struct stock */
    struct list recent;      /* the least recently made first */
};

/* What hangs on an SSL. */
struct connection {
    struct upstream_tls *upstream;
    char key[SHA256_HEX_SIZE];
    int64_t until_s;         /* how long what was verified may be relied on, by the wall clock; at first the resumed session's */
    bool verified;           /* until_s is this connection's own, or confirmed */
    enum staple staple;
    int alert_sent, alert_received; /* -1: none */
    int reason;              /* OpenSSL's own, when it gave up; 0: none */
};

/* ---- sessions ---- */

static void
forget(struct upstream_tls *u, struct session *s)
{
    struct stock *stock = s->stock;
    list_remove(&stock->sessions, &s->sibling);
    list_remove(&u->recent, &s->node);
    SSL_SESSION_free(s->session);
    free(s);
    if (list_empty(&stock->sessions)) {
        map_remove(u->stocks, slice_str(stock->key));
        free(stock);
    }
}

static void
forget_all(struct upstream_tls *u, const char *key)
{
    struct stock *stock = map_get(u->stocks, slice_str(key));
    for (size_t left = stock ? stock->sessions.count : 0; left; left--)
        forget(u, list_entry(list_first(&stock->sessions), struct session, sibling));
}

static struct stock *
stock_of(struct upstream_tls *u, const char *key)
{
    struct stock *stock = map_get(u->stocks, slice_str(key));
    if (stock)
        return stock;
    stock = mem_zalloc(sizeof *stock);
    memcpy(stock->key, key, sizeof stock->key);
    list_init(&stock->sessions);
    map_put(u->stocks, slice_str(stock->key), stock);
    return stock;
}

/* Takes the session over. */
static void
remember(struct upstream_tls *u, const char *key, SSL_SESSION *session, int64_t until_s)
{
    struct session *s = mem_zalloc(sizeof *s);
    s->stock = stock_of(u, key);
    s->session = session;
    s->until_s = until_s;
    list_append(&s->stock->sessions, &s->sibling);
    list_append(&u->recent, &s->node);
    if (s->stock->sessions.count > UPSTREAM_SESSIONS_OF_ONE)
        forget(u, list_entry(list_first(&s->stock->sessions), struct session, sibling));
    while (u->recent.count > UPSTREAM_SESSIONS_MAX)
        forget(u, list_entry(list_first(&u->recent), struct session, node));
}

/* The newest. What is too old makes way, and the older ones with it. Returns how long it may be relied on, 0 without one.
 * OpenSSL stamps sessions by the wall clock, as it judges certificates, so that this is the one clock to compare with. */
static int64_t
resume(struct upstream_tls *u, SSL *ssl, const char *key)
{
    struct stock *stock = map_get(u->stocks, slice_str(key));
    struct session *s = stock ? list_entry(list_last(&stock->sessions), struct session, sibling) : NULL;
    int64_t now = (int64_t)time(NULL);
    if (!s)
        return 0;
    int64_t age = now - (int64_t)SSL_SESSION_get_time(s->session), until_s = s->until_s;
    if (age < 0 || age >= SSL_SESSION_get_timeout(s->session) || now >= until_s || !SSL_SESSION_is_resumable(s->session)) {
        forget_all(u, key);
        return 0;
    }
    SSL_set_session(ssl, s->session);
    if (SSL_SESSION_get_protocol_version(s->session) >= TLS1_3_VERSION)
        forget(u, s);
    return until_s;
}

/* Not for long, and never beyond the end of a certificate that was verified: who resumes shows none. A session that came of
 * resuming another relies on what that one did, however new its ticket. */
static int64_t
reliable_until(SSL *ssl)
{
    STACK_OF(X509) *chain = SSL_get0_verified_chain(ssl);
    int64_t until = (int64_t)time(NULL) + UPSTREAM_SESSION_AGE_S;
    for (int i = 0; i < sk_X509_num(chain); i++) {
        struct tm tm = {0};
        int64_t end = ASN1_TIME_to_tm(X509_get0_notAfter(sk_X509_value(chain, i)), &tm) == 1 ? (int64_t)timegm(&tm) : 0;
        until = end < until ? end : until;
    }
    return chain ? until : 0;
}

/* ---- one connection ---- */

static void
free_connection(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int index, long argl, void *argp)
{
    struct connection *c = ptr;
    (void)parent;
    (void)ad;
    (void)index;
    (void)argl;
    (void)argp;
    if (c)
        upstream_tls_unref(c->upstream);
    free(c);
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

static struct connection *
connection_of(const SSL *ssl)
{
    return SSL_get_ex_data(ssl, connection_index());
}

static int
on_session(SSL *ssl, SSL_SESSION *session)
{
    struct connection *c = connection_of(ssl);
    if (!c || SSL_get_verify_result(ssl) != X509_V_OK)
        return 0;
    if (!SSL_session_reused(ssl) && !c->verified)
        c->until_s = reliable_until(ssl);
    c->verified = true;
    if (c->until_s == 0)
        return 0;
    remember(c->upstream, c->key, session, c->until_s);
    return 1;
}

/* The error queue still says why when our alert goes out, or when OpenSSL gives up without one (what comes is no TLS); the
 * stream empties it right after. */
static void
on_info(const SSL *ssl, int where, int value)
{
    struct connection *c = where & (SSL_CB_ALERT | SSL_CB_EXIT) ? connection_of(ssl) : NULL;
    unsigned long code = c ? ERR_peek_last_error() : 0;
    if (!c)
        return;
    if (!c->reason && ERR_GET_LIB(code) == ERR_LIB_SSL)
        c->reason = ERR_GET_REASON(code);
    if (!(where & SSL_CB_ALERT))
        return;
    if ((where & SSL_CB_READ) && c->alert_received < 0 && (value & 0xff) != SSL_AD_CLOSE_NOTIFY)
        c->alert_received = value & 0xff;
    if ((where & SSL_CB_WRITE) && c->alert_sent < 0 && (value & 0xff) != SSL_AD_CLOSE_NOTIFY)
        c->alert_sent = value & 0xff;
}

/* ---- stapled OCSP (RFC 6066 section 8) ---- */

static bool
must_staple(X509 *cert)
{
    TLS_FEATURE *features = X509_get_ext_d2i(cert, NID_tlsfeature, NULL, NULL);
    bool must = false;
    for (int i = 0; features && i < sk_ASN1_INTEGER_num(features); i++)
        must |= ASN1_INTEGER_get(sk_ASN1_INTEGER_value(features, i)) == TLSFEATURE_STATUS_REQUEST;
    TLS_FEATURE_free(features);
    return must;
}

/* The single response about this certificate, whichever digest its id was made with. */
static OCSP_SINGLERESP *
find_single(OCSP_BASICRESP *basic, X509 *cert, X509 *issuer)
{
    for (int i = 0; i < OCSP_resp_count(basic); i++) {
        OCSP_SINGLERESP *single = OCSP_resp_get0(basic, i);
        ASN1_OBJECT *algorithm = NULL;
        OCSP_CERTID *theirs = (OCSP_CERTID *)(uintptr_t)OCSP_SINGLERESP_get0_id(single);
        if (OCSP_id_get0_info(NULL, &algorithm, NULL, NULL, theirs) != 1)
            continue;
        const EVP_MD *md = EVP_get_digestbyobj(algorithm);
        OCSP_CERTID *ours = md ? OCSP_cert_to_id(md, cert, issuer) : NULL;
        bool same = ours && OCSP_id_cmp(ours, theirs) == 0;
        OCSP_CERTID_free(ours);
        if (same)
            return single;
    }
    return NULL;
}

static enum staple
judge_single(OCSP_SINGLERESP *single)
{
    ASN1_GENERALIZEDTIME *this_update = NULL, *next_update = NULL;
    int status = OCSP_single_get0_status(single, NULL, NULL, &this_update, &next_update);
    /* Revoked stays revoked, however old the word of it. */
    if (status == V_OCSP_CERTSTATUS_REVOKED)
        return STAPLE_REVOKED;
    if (status != V_OCSP_CERTSTATUS_GOOD || OCSP_check_validity(this_update, next_update, STAPLE_SKEW_S, -1) != 1)
        return STAPLE_MISSING;
    return STAPLE_FINE;
}

static enum staple
judge_basic(OCSP_BASICRESP *basic, SSL *ssl, STACK_OF(X509) *chain)
{
    X509_STORE *store = SSL_CTX_get_cert_store(SSL_get_SSL_CTX(ssl));
    OCSP_SINGLERESP *single = find_single(basic, sk_X509_value(chain, 0), sk_X509_value(chain, 1));
    if (!single || OCSP_basic_verify(basic, chain, store, 0) != 1)
        return STAPLE_MISSING; /* not about this certificate, or signed by nobody who may */
    return judge_single(single);
}

static enum staple
judge_staple(SSL *ssl, STACK_OF(X509) *chain)
{
    const unsigned char *bytes = NULL;
    long len = SSL_get_tlsext_status_ocsp_resp(ssl, &bytes);
    OCSP_RESPONSE *response = bytes && len > 0 && len <= STAPLE_MAX ? d2i_OCSP_RESPONSE(NULL, &bytes, len) : NULL;
    OCSP_BASICRESP *basic = NULL;
    if (response && OCSP_response_status(response) == OCSP_RESPONSE_STATUS_SUCCESSFUL)
        basic = OCSP_response_get1_basic(response);
    enum staple result = basic ? judge_basic(basic, ssl, chain) : STAPLE_MISSING;
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(response);
    ERR_clear_error();
    return result;
}

/* Called once the chain has been verified, also when nothing was stapled. 0 ends the handshake. A certificate that does not
 * ask for stapling passes without, as everywhere: only "revoked" is then held against it. */
static int
on_staple(SSL *ssl, void *arg)
{
    struct connection *c = connection_of(ssl);
    STACK_OF(X509) *chain = SSL_get0_verified_chain(ssl);
    (void)arg;
    if (!c)
        return 0;
    if (!chain || sk_X509_num(chain) < 2)
        return 1; /* a trusted certificate itself: nobody vouches for it, nobody revokes it */
    c->staple = judge_staple(ssl, chain);
    return c->staple == STAPLE_FINE || (c->staple == STAPLE_MISSING && !must_staple(sk_X509_value(chain, 0)));
}

/* ---- set-up ---- */

struct upstream_tls *
upstream_tls_new(struct slice roots_pem, struct err *err)
{
    SSL_CTX *context = tls_upstream_context(roots_pem, err);
    if (!context)
        return NULL;
    struct upstream_tls *u = mem_zalloc(sizeof *u);
    u->refs = 1;
    u->context = context;
    u->stocks = map_new();
    list_init(&u->recent);
    (void)signatures_remember(SSL_CTX_get_cert_store(context)); /* without it they are checked anew each time */
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, on_session);
    SSL_CTX_set_info_callback(context, on_info);
    SSL_CTX_set_tlsext_status_type(context, TLSEXT_STATUSTYPE_ocsp);
    SSL_CTX_set_tlsext_status_cb(context, on_staple);
    return u;
}

void
upstream_tls_unref(struct upstream_tls *u)
{
    if (!u || --u->refs)
        return;
    while (!list_empty(&u->recent))
        forget(u, list_entry(list_first(&u->recent), struct session, node));
    map_free(u->stocks, NULL);
    SSL_CTX_free(u->context);
    free(u);
}

SSL_CTX *
upstream_tls_context(struct upstream_tls *u)
{
    return u->context;
}

const char *
upstream_tls_name(const struct host *h, char text[HOST_TEXT_SIZE])
{
    bool brackets = h->kind == HOST_IPV6;
    snprintf(text, HOST_TEXT_SIZE, "%.*s", brackets ? h->len - 2 : h->len, brackets ? h->text + 1 : h->text);
    return text;
}

static bool
offer_alpn(SSL *ssl, const char (*alpn)[UPSTREAM_ALPN_SIZE], size_t count)
{
    unsigned char wire[ALPN_WIRE_MAX];
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        size_t len = strnlen(alpn[i], UPSTREAM_ALPN_SIZE);
        if (len == 0 || len >= UPSTREAM_ALPN_SIZE || used + 1 + len > sizeof wire)
            return false;
        wire[used++] = (unsigned char)len;
        memcpy(wire + used, alpn[i], len);
        used += len;
    }
    return used == 0 || SSL_set_alpn_protos(ssl, wire, (unsigned)used) == 0;
}

static bool
session_key(const struct host *host, uint16_t port, struct slice partition, char out[SHA256_HEX_SIZE])
{
    struct buf b;
    buf_init(&b, TARGET_TEXT_SIZE + 1 + partition.len);
    bool fine = buf_printf(&b, "%s:%u\n", host->text, (unsigned)port) && buf_append_slice(&b, partition);
    sha256_hex(buf_slice(&b), out);
    buf_done(&b);
    return fine;
}

bool
upstream_tls_prepare(struct upstream_tls *u, SSL *ssl, const struct host *host, uint16_t port, struct slice partition,
                     const char (*alpn)[UPSTREAM_ALPN_SIZE], size_t alpn_count)
{
    struct connection *c = mem_zalloc(sizeof *c);
    c->alert_sent = c->alert_received = -1;
    c->upstream = u;
    u->refs++;
    if (connection_of(ssl) || !session_key(host, port, partition, c->key) || SSL_set_ex_data(ssl, connection_index(), c) != 1) {
        upstream_tls_unref(u);
        free(c);
        return false;
    }
    /* A name that stands in the subject alone is nobody's (RFC 9110 section 4.3.4). */
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    if (!offer_alpn(ssl, alpn, alpn_count))
        return false;
    c->until_s = resume(u, ssl, c->key);
    return true;
}

/* ---- what went wrong ---- */

struct meaning { int code; const char *text; };

static const struct meaning of_certificates[] = {
    {X509_V_ERR_CERT_HAS_EXPIRED, "the server's certificate, or one above it, has expired"},
    {X509_V_ERR_CERT_NOT_YET_VALID, "the server's certificate is not yet valid"},
    {X509_V_ERR_HOSTNAME_MISMATCH, "the server's certificate is for another host"},
    {X509_V_ERR_IP_ADDRESS_MISMATCH, "the server's certificate is not for this address"},
    {X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, "the server's certificate is self-signed"},
    {X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN, "the server's certificate comes from a root that is not trusted here"},
    {X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, "the issuer of the server's certificate is unknown, or an intermediate certificate is missing"},
    {X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
     "the issuer of the server's certificate is unknown, or an intermediate certificate is missing"},
    {X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE,
     "the issuer of the server's certificate is unknown, or an intermediate certificate is missing"},
    {X509_V_ERR_CERT_UNTRUSTED, "the root of the server's certificate is not trusted for servers"},
    {X509_V_ERR_CERT_REVOKED, "the server's certificate is revoked"},
    {X509_V_ERR_CERT_REJECTED, "the root of the server's certificate is distrusted"},
    {X509_V_ERR_CERT_SIGNATURE_FAILURE, "a signature in the server's certificate chain is wrong"},
    {X509_V_ERR_EE_KEY_TOO_SMALL, "the key of the server's certificate is too weak"},
    {X509_V_ERR_CA_KEY_TOO_SMALL, "the key of a CA above the server's certificate is too weak"},
    {X509_V_ERR_CA_MD_TOO_WEAK, "the server's certificate chain is signed with a weak digest"},
    {X509_V_ERR_INVALID_CA, "a certificate above the server's is none of a CA"},
    {X509_V_ERR_INVALID_PURPOSE, "the server's certificate is not for servers"},
    {X509_V_ERR_KEYUSAGE_NO_CERTSIGN, "a certificate above the server's may not sign certificates"},
    {X509_V_ERR_PATH_LENGTH_EXCEEDED, "the server's certificate chain is longer than a CA in it allows"},
    {X509_V_ERR_CERT_CHAIN_TOO_LONG, "the server's certificate chain is too long"},
    {X509_V_ERR_PERMITTED_VIOLATION, "the server's certificate breaks the name constraints of a CA above it"},
    {X509_V_ERR_EXCLUDED_VIOLATION, "the server's certificate breaks the name constraints of a CA above it"},
    {X509_V_ERR_SUBTREE_MINMAX, "the name constraints above the server's certificate cannot be judged"},
    {X509_V_ERR_UNHANDLED_CRITICAL_EXTENSION, "the server's certificate has a critical extension that is not understood"},
};

static const struct meaning of_reasons[] = {
    {SSL_R_UNSUPPORTED_PROTOCOL, "the server has no protocol version of TLS 1.2 or later"},
    {SSL_R_WRONG_VERSION_NUMBER, "the server does not speak TLS"},
    {SSL_R_HTTP_REQUEST, "the server does not speak TLS"},
    {SSL_R_UNEXPECTED_EOF_WHILE_READING, "the server closed the connection during the handshake"},
    {SSL_R_PACKET_LENGTH_TOO_LONG, "the server does not speak TLS"},
    {SSL_R_WRONG_CIPHER_RETURNED, "the server chose a cipher suite that was not offered"},
    {SSL_R_UNKNOWN_CIPHER_RETURNED, "the server chose a cipher suite that was not offered"},
    {SSL_R_DH_KEY_TOO_SMALL, "the server's key exchange is too weak"},
    {SSL_R_WRONG_SIGNATURE_TYPE, "the server signs with a weak or unknown algorithm"},
    {SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS, "the server signs with a weak or unknown algorithm"},
    {SSL_R_INAPPROPRIATE_FALLBACK, "the server saw a downgrade of the protocol version"},
};

static const struct meaning of_alerts[] = {
    {SSL_AD_PROTOCOL_VERSION, "the server has no protocol version of TLS 1.2 or later"},
    {SSL_AD_HANDSHAKE_FAILURE, "the server refused the handshake: no common cipher suite, or it wants a client certificate"},
    {SSL_AD_INSUFFICIENT_SECURITY, "the server wants stronger cipher suites than are offered"},
    {SSL_AD_UNRECOGNIZED_NAME, "the server does not know the host name"},
    {SSL_AD_NO_APPLICATION_PROTOCOL, "the server speaks none of the client's protocols (ALPN)"},
    {SSL_AD_CERTIFICATE_UNKNOWN, "the server wants a client certificate"},
    {SSL_AD_BAD_CERTIFICATE, "the server wants a client certificate"},
    {SSL_AD_INTERNAL_ERROR, "the server reports an error of its own"},
    {SSL_AD_ACCESS_DENIED, "the server denies access"},
};

/* TLS 1.3's certificate_required, which OpenSSL 3.0 has in an internal header only. */
#define ALERT_CERTIFICATE_REQUIRED 116

static const char *
meaning_of(const struct meaning *list, size_t count, int code)
{
    for (size_t i = 0; i < count; i++)
        if (list[i].code == code)
            return list[i].text;
    return NULL;
}
#define MEANING(list, code) meaning_of(list, sizeof(list) / sizeof(list)[0], code)

static const char *
explain_certificate(const struct connection *c, long verify)
{
    const char *text = MEANING(of_certificates, (int)verify);
    if (c && c->staple == STAPLE_REVOKED)
        return "the server's certificate is revoked";
    if (verify != X509_V_OK)
        return text ? text : "the server's certificate cannot be verified";
    if (c && c->alert_sent == SSL_AD_BAD_CERTIFICATE_STATUS_RESPONSE)
        return "the server's certificate demands a proof that it is not revoked, and none that holds was sent (must-staple)";
    if (c && c->alert_sent == SSL_AD_UNSUPPORTED_CERTIFICATE)
        return "the server's certificate is of an unknown kind";
    return NULL;
}

static const char *
explain_protocol(const struct connection *c)
{
    const char *text = c && c->reason ? MEANING(of_reasons, c->reason) : NULL;
    if (text)
        return text;
    if (c && c->alert_sent >= 0)
        return "the server broke the TLS protocol";
    if (c && c->alert_received == ALERT_CERTIFICATE_REQUIRED)
        return "the server wants a client certificate";
    if (c && c->alert_received >= 0) {
        text = MEANING(of_alerts, c->alert_received);
        return text ? text : "the server refused the handshake";
    }
    return "the server closed the connection during the handshake";
}

void
upstream_tls_explain(SSL *ssl, struct upstream_fault *ret)
{
    const struct connection *c = ssl ? connection_of(ssl) : NULL;
    const char *text = ssl ? explain_certificate(c, SSL_get_verify_result(ssl)) : NULL;
    ret->certificate = text != NULL;
    if (!text)
        text = explain_protocol(c);
    snprintf(ret->detail, sizeof ret->detail, "%s", text);
    if (c) /* a session that the server stumbles over is not offered again, nor one of its age */
        forget_all(c->upstream, c->key);
}

bool
upstream_tls_refused_late(SSL *ssl, struct upstream_fault *ret)
{
    const struct connection *c = ssl ? connection_of(ssl) : NULL;
    /* What we sent says nothing: an end without close_notify is answered by an alert of ours. */
    if (!c || c->alert_received < 0)
        return false;
    /* These two are no refusals (RFC 8446 section 6.1, RFC 5246 section 7.2.2). */
    if (c->alert_received == SSL_AD_USER_CANCELLED || c->alert_received == SSL_AD_NO_RENEGOTIATION)
        return false;
    upstream_tls_explain(ssl, ret);
    return true;
}

/* ---- what was agreed ---- */

static void
describe_issuer(X509 *cert, char *out, size_t size)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *data = NULL;
    /* RFC 2253 form escapes controls and what is not ASCII. */
    if (!bio || X509_NAME_print_ex(bio, X509_get_issuer_name(cert), 0, XN_FLAG_RFC2253) < 0) {
        BIO_free(bio);
        return;
    }
    long len = BIO_get_mem_data(bio, &data);
    size_t keep = len > 0 && (size_t)len < size ? (size_t)len : len > 0 ? size - 1 : 0;
    for (size_t i = 0; i < keep; i++)
        out[i] = data[i] >= 0x20 && data[i] < 0x7f ? data[i] : '?';
    out[keep] = '\0';
    BIO_free(bio);
}

void
upstream_tls_agreed(SSL *ssl, struct upstream_agreed *ret)
{
    const unsigned char *alpn = NULL;
    unsigned alpn_len = 0;
    unsigned char *der = NULL;
    *ret = (struct upstream_agreed){.version = SSL_get_version(ssl), .resumed = SSL_session_reused(ssl) == 1};
    SSL_get0_alpn_selected(ssl, &alpn, &alpn_len);
    if (alpn && alpn_len < sizeof ret->alpn)
        memcpy(ret->alpn, alpn, alpn_len);
    X509 *cert = SSL_get0_peer_certificate(ssl);
    int len = cert ? i2d_X509(cert, &der) : -1;
    if (len > 0) {
        sha256_hex(slice_of((const char *)der, (size_t)len), ret->certificate);
        describe_issuer(cert, ret->issuer, sizeof ret->issuer);
    }
    OPENSSL_free(der);
}
