/* OpenSSL contexts: the proxy's listeners, its way to a parent proxy, and the two sides of inspection. Built from PEM texts, since a
 * worker has no files. Those of inspected traffic are completed by leaf.c and upstream.c. */
#include "sallyport/tls/context.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <unistd.h>

#include "sallyport/base/digest.h"
#include "sallyport/base/encoding.h"
#include "sallyport/tls/library.h"

/* TLS 1.2 with forward secrecy and authenticated encryption only (RFC 9325 section 4.2); 1.3 has nothing else. */
#define CIPHERS_1_2                                                                                \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"     \
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
/* The three of RFC 8446 appendix B.4 that are in use. The first costs a third less than AES-256 on each byte, and its handshake
 * hashes with SHA-256, which processors compute themselves. */
#define CIPHERS_1_3 "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define CHAIN_MAX 16        /* certificates of one listener */
#define ROOTS_MAX 1024      /* the public bundle has about 140 */

static int
err_tls(struct err *err, const char *what)
{
    unsigned long code = ERR_peek_last_error();
    const char *why = code ? ERR_reason_error_string(code) : NULL;
    ERR_clear_error();
    return err_invalid(err, "%s%s%s", what, why ? ": " : "", why ? why : "");
}

static BIO *
pem_open(struct slice pem)
{
    if (pem.len == 0 || pem.len > INT32_MAX)
        return NULL;
    return BIO_new_mem_buf(pem.ptr, (int)pem.len);
}

/* True when the reading of certificates ended because there were no more, and not at one that is broken. */
static bool
pem_ended(void)
{
    unsigned long code = ERR_peek_last_error();
    bool ended = ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
    if (ended)
        ERR_clear_error();
    return ended;
}

static SSL_CTX *
context_new(OSSL_LIB_CTX *library, const SSL_METHOD *method, struct err *err)
{
    SSL_CTX *ctx = SSL_CTX_new_ex(library, NULL, method);
    if (!ctx || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_cipher_list(ctx, CIPHERS_1_2) != 1 || SSL_CTX_set_ciphersuites(ctx, CIPHERS_1_3) != 1) {
        SSL_CTX_free(ctx);
        err_tls(err, "TLS cannot be set up");
        return NULL;
    }
    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_max_early_data(ctx, 0); /* 0-RTT can be replayed */
    return ctx;
}

/* --- certificates ------------------------------------------------------------------------------------------------- */

static int
use_chain(SSL_CTX *ctx, struct slice pem, struct err *err)
{
    BIO *bio = pem_open(pem);
    if (!bio)
        return err_invalid(err, "the certificate is empty; expected PEM");
    int count = 0, ok = 1;
    for (X509 *cert; ok && (cert = PEM_read_bio_X509(bio, NULL, tls_no_passphrase, NULL)); count++) {
        if (count == 0)
            ok = SSL_CTX_use_certificate(ctx, cert);
        else
            ok = count < CHAIN_MAX && SSL_CTX_add1_chain_cert(ctx, cert);
        X509_free(cert);
    }
    BIO_free(bio);
    if (ok && !pem_ended())
        ok = 0;
    if (ok && count > 0)
        return 0;
    return err_tls(err, count == 0 ? "no certificate found; expected PEM" : "the certificate cannot be used");
}

static int
use_key(SSL_CTX *ctx, struct slice pem, struct err *err)
{
    BIO *bio = pem_open(pem);
    if (!bio)
        return err_invalid(err, "the private key is empty; expected PEM");
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, tls_no_passphrase, NULL);
    BIO_free(bio);
    if (!key)
        return err_tls(err, "the private key cannot be read; expected PEM without a passphrase");
    int ok = SSL_CTX_use_PrivateKey(ctx, key) == 1;
    EVP_PKEY_free(key);
    if (!ok || SSL_CTX_check_private_key(ctx) != 1)
        return err_tls(err, "the private key does not belong to the certificate");
    return 0;
}

static X509 *
read_next(BIO *bio)
{
    return PEM_read_bio_X509(bio, NULL, tls_no_passphrase, NULL);
}

/* Trusts every certificate of the text, as `next` reads them. With `names` their subjects are also sent to clients that are asked
 * for one. */
static int
trust_pem(SSL_CTX *ctx, struct slice pem, X509 *(*next)(BIO *), bool names, struct err *err)
{
    BIO *bio = pem_open(pem);
    if (!bio)
        return err_invalid(err, "the CA certificates are empty; expected PEM");
    int count = 0, ok = 1;
    for (X509 *cert; ok && (cert = next(bio)); count++) {
        ok = count < ROOTS_MAX && X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), cert) == 1 &&
             (!names || SSL_CTX_add_client_CA(ctx, cert) == 1);
        X509_free(cert);
    }
    BIO_free(bio);
    if (ok && !pem_ended())
        ok = 0;
    if (ok && count > 0)
        return 0;
    return err_tls(err, count == 0 ? "no CA certificate found; expected PEM" : "a CA certificate cannot be used");
}

/* --- server ------------------------------------------------------------------------------------------------------- */

/* The proxy speaks HTTP/1.1 to its clients. One that offers protocols and not this one is told so at once (RFC 7301
 * section 3.2) instead of being misunderstood. */
static int
choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in, unsigned in_len,
            void *arg)
{
    static const unsigned char ours[] = "\x08http/1.1";
    unsigned char *chosen = NULL;
    (void)ssl;
    (void)arg;
    if (SSL_select_next_proto(&chosen, out_len, ours, sizeof ours - 1, in, in_len) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* Every connection shows its certificate anew: a resumed session would bring the one of its first connection, whatever
 * has expired since. */
static int
require_client_certificates(SSL_CTX *ctx, struct slice ca_pem, struct err *err)
{
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    SSL_CTX_set_num_tickets(ctx, 0);
    return trust_pem(ctx, ca_pem, read_next, true, err);
}

SSL_CTX *
tls_server_context(struct slice cert_pem, struct slice key_pem, struct slice client_ca_pem, struct err *err)
{
    static const unsigned char session_context[] = "sallyport";
    SSL_CTX *ctx = context_new(NULL, TLS_server_method(), err);
    if (!ctx)
        return NULL;
    ERR_clear_error();
    SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE);
    /* Tickets carry the session; a cache here would only hold memory. */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_session_id_context(ctx, session_context, sizeof session_context - 1);
    SSL_CTX_set_alpn_select_cb(ctx, choose_alpn, NULL);
    if (use_chain(ctx, cert_pem, err) != 0 || use_key(ctx, key_pem, err) != 0 ||
        (client_ca_pem.len > 0 && require_client_certificates(ctx, client_ca_pem, err) != 0)) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    return ctx;
}

/* --- client ------------------------------------------------------------------------------------------------------- */

static const char *const system_bundles[] = {
    "/etc/ssl/certs/ca-certificates.crt", /* Debian, Alpine */
    "/etc/pki/tls/certs/ca-bundle.crt",   /* Fedora */
    "/etc/ssl/cert.pem",
};

const char *
tls_system_roots(void)
{
    for (size_t i = 0; i < sizeof system_bundles / sizeof system_bundles[0]; i++)
        if (access(system_bundles[i], R_OK) == 0)
            return system_bundles[i];
    return NULL;
}

/* Read here and now, as one file: OpenSSL would look for a root by its hash at the first handshake, when this process may
 * have no file system any more. */
static int
trust_system(SSL_CTX *ctx, struct err *err)
{
    const char *path = tls_system_roots();
    if (path && SSL_CTX_load_verify_file(ctx, path) == 1)
        return 0;
    ERR_clear_error();
    return err_run(err, "no CA certificates found on this system (looked for %s); name a file", system_bundles[0]);
}

SSL_CTX *
tls_client_context(struct slice ca_pem, struct err *err)
{
    SSL_CTX *ctx = context_new(NULL, TLS_client_method(), err);
    if (!ctx)
        return NULL;
    ERR_clear_error();
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    if ((ca_pem.len > 0 ? trust_pem(ctx, ca_pem, read_next, false, err) : trust_system(ctx, err)) != 0) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    return ctx;
}

/* --- inspection --------------------------------------------------------------------------------------------------- */

SSL_CTX *
tls_inspect_context(struct err *err)
{
    SSL_CTX *ctx = context_new(tls_library(), TLS_server_method(), err);
    if (!ctx)
        return NULL;
    SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    /* Tickets carry the session; a cache here would only hold memory. One is enough: each resumption brings the next. */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(ctx, 1);
    return ctx;
}

SSL_CTX *
tls_upstream_context(struct slice roots_pem, struct err *err)
{
    SSL_CTX *ctx = context_new(tls_library(), TLS_client_method(), err);
    if (!ctx)
        return NULL;
    ERR_clear_error();
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_security_level(ctx, 2); /* 112 bits: no RSA below 2048, no SHA-1 signature, whatever a distribution sets */
    if (trust_pem(ctx, roots_pem, tls_read_pem, false, err) != 0) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    return ctx;
}

int
tls_peer_x5t(SSL *ssl, char text[44])
{
    unsigned char digest[SHA256_SIZE];
    unsigned char *der = NULL;
    X509 *cert = ssl ? SSL_get1_peer_certificate(ssl) : NULL;
    if (!cert)
        return 0;
    int len = i2d_X509(cert, &der);
    X509_free(cert);
    if (len <= 0)
        return 0;
    sha256(slice_of(der, (size_t)len), digest);
    OPENSSL_free(der);
    base64url_encode(slice_of(digest, sizeof digest), text);
    return 1;
}
