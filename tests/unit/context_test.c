/* The proxy's own TLS contexts: what they accept from PEM texts, and what they demand of a peer. */
#include "sallyport/tls/context.h"

#include <openssl/err.h>

#include "sallyport/base/encoding.h"
#include "sallyport/base/digest.h"
#include "unit/certs.h"
#include "unit/test.h"

static struct test_cert ca, other_ca, leaf, client_leaf, expired;
static struct err err;
static SSL *client, *server;

static void
make_all(void)
{
    test_cert_make(&ca, NULL, NULL, 30);
    test_cert_make(&other_ca, NULL, NULL, 30);
    test_cert_make(&leaf, &ca, "DNS:gw.example.test", 30);
    test_cert_make(&client_leaf, &ca, NULL, 30);
    test_cert_make(&expired, &ca, NULL, -1);
}

static void
drop_all(void)
{
    test_cert_done(&ca);
    test_cert_done(&other_ca);
    test_cert_done(&leaf);
    test_cert_done(&client_leaf);
    test_cert_done(&expired);
}

static SSL_CTX *
server_context(const char *client_ca)
{
    return tls_server_context(slice_str(leaf.cert_pem), slice_str(leaf.key_pem), slice_str(client_ca), &err);
}

/* Connects two sessions through memory; true when both are through. */
static bool
shake_hands(SSL_CTX *client_ctx, SSL_CTX *server_ctx)
{
    BIO *a = NULL, *b = NULL;
    bool done = false, failed = false;
    BIO_new_bio_pair(&a, 0, &b, 0);
    SSL_set_bio(client, a, a);
    SSL_set_bio(server, b, b);
    SSL_set_connect_state(client);
    SSL_set_accept_state(server);
    (void)client_ctx;
    (void)server_ctx;
    for (int i = 0; i < 20 && !failed; i++) {
        char byte;
        int x = SSL_do_handshake(client), y = SSL_do_handshake(server);
        int ex = x == 1 ? 0 : SSL_get_error(client, x), ey = y == 1 ? 0 : SSL_get_error(server, y);
        failed = (ex != 0 && ex != SSL_ERROR_WANT_READ) || (ey != 0 && ey != SSL_ERROR_WANT_READ);
        done = x == 1 && y == 1;
        if (done) { /* TLS 1.3: the server's verdict on the client's certificate comes with the next read */
            int n = SSL_read(client, &byte, 1);
            failed = n <= 0 && SSL_get_error(client, n) != SSL_ERROR_WANT_READ;
            break;
        }
    }
    ERR_clear_error();
    return done && !failed;
}

static bool
connect_pair(SSL_CTX *client_ctx, SSL_CTX *server_ctx)
{
    client = SSL_new(client_ctx);
    server = SSL_new(server_ctx);
    return shake_hands(client_ctx, server_ctx);
}

static void
drop_pair(void)
{
    SSL_free(client);
    SSL_free(server);
}

TEST(broken_texts_are_refused_with_a_sentence)
{
    make_all();
    char both[8192];
    snprintf(both, sizeof both, "%s-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", leaf.cert_pem);
    static const char encrypted[] = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    const struct { const char *what, *cert, *key, *ca; } cases[] = {
        {"nothing", "", "", ""},
        {"no key", leaf.cert_pem, "", ""},
        {"no certificate", "", leaf.key_pem, ""},
        {"text", "hello", leaf.key_pem, ""},
        {"key of another", leaf.cert_pem, ca.key_pem, ""},
        {"key for certificate", leaf.key_pem, leaf.key_pem, ""},
        {"broken second certificate", both, leaf.key_pem, ""},
        {"encrypted key", leaf.cert_pem, encrypted, ""},
        {"client CA is text", leaf.cert_pem, leaf.key_pem, "hello"},
        {"client CA is a key", leaf.cert_pem, leaf.key_pem, leaf.key_pem},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        err = (struct err){0};
        SSL_CTX *ctx = tls_server_context(slice_str(cases[i].cert), slice_str(cases[i].key), slice_str(cases[i].ca), &err);
        CHECK_THAT(!ctx && err.kind == ERR_INVALID && err.text[0], "%s: %s", cases[i].what, err.text);
        CHECK_THAT(ERR_peek_error() == 0, "%s", cases[i].what);
        SSL_CTX_free(ctx);
    }
    CHECK(!tls_client_context(slice_str("hello"), &err));
    drop_all();
}

TEST(a_client_verifies_against_the_given_roots_only)
{
    make_all();
    SSL_CTX *s = server_context(""), *good = tls_client_context(slice_str(ca.cert_pem), &err);
    SSL_CTX *bad = tls_client_context(slice_str(other_ca.cert_pem), &err);
    CHECK(s && good && bad);
    CHECK(connect_pair(good, s));
    drop_pair();
    CHECK(!connect_pair(bad, s));
    drop_pair();
    SSL_CTX_free(s);
    SSL_CTX_free(good);
    SSL_CTX_free(bad);
    drop_all();
}

static bool
try_client_certificate(SSL_CTX *s, const struct test_cert *cert)
{
    SSL_CTX *c = tls_client_context(slice_str(ca.cert_pem), &err);
    if (cert) {
        SSL_CTX_use_certificate(c, cert->cert);
        SSL_CTX_use_PrivateKey(c, cert->key);
    }
    bool ok = connect_pair(c, s);
    SSL_CTX_free(c);
    return ok;
}

TEST(client_certificates_are_demanded_and_verified)
{
    char text[44], expected[64];
    unsigned char digest[32], *der = NULL;
    struct test_cert stranger;
    make_all();
    test_cert_make(&stranger, &other_ca, NULL, 30);
    SSL_CTX *s = server_context(ca.cert_pem);
    CHECK(s && !try_client_certificate(s, NULL));
    drop_pair();
    CHECK(!try_client_certificate(s, &stranger));
    drop_pair();
    CHECK(!try_client_certificate(s, &expired));
    drop_pair();
    CHECK(try_client_certificate(s, &client_leaf));
    CHECK(tls_peer_x5t(server, text));
    int n = i2d_X509(client_leaf.cert, &der);
    sha256(slice_of(der, (size_t)n), digest);
    base64url_encode(slice_of(digest, 32), expected);
    CHECK_STR(text, expected);
    CHECK(strlen(text) == 43);
    OPENSSL_free(der);
    drop_pair();
    SSL_CTX_free(s);
    test_cert_done(&stranger);
    drop_all();
}

TEST(without_a_client_certificate_there_is_no_thumbprint)
{
    char text[44];
    make_all();
    SSL_CTX *s = server_context("");
    CHECK(try_client_certificate(s, &client_leaf)); /* has one, is not asked */
    CHECK(!tls_peer_x5t(server, text));
    CHECK(!tls_peer_x5t(NULL, text));
    drop_pair();
    SSL_CTX_free(s);
    drop_all();
}

static bool
try_alpn(SSL_CTX *s, const char *protocols)
{
    SSL_CTX *c = tls_client_context(slice_str(ca.cert_pem), &err);
    SSL_CTX_set_alpn_protos(c, (const unsigned char *)protocols, (unsigned)strlen(protocols));
    bool ok = connect_pair(c, s);
    SSL_CTX_free(c);
    return ok;
}

TEST(alpn_is_http_1_1_or_a_refusal)
{
    const unsigned char *chosen;
    unsigned len;
    make_all();
    SSL_CTX *s = server_context("");
    CHECK(try_alpn(s, "\x02h2\x08http/1.1"));
    SSL_get0_alpn_selected(client, &chosen, &len);
    CHECK(len == 8 && memcmp(chosen, "http/1.1", 8) == 0);
    drop_pair();
    CHECK(!try_alpn(s, "\x02h2"));
    drop_pair();
    CHECK(try_alpn(s, ""));
    SSL_get0_alpn_selected(client, &chosen, &len);
    CHECK(len == 0);
    drop_pair();
    SSL_CTX_free(s);
    drop_all();
}

static bool
try_old(SSL_CTX *s, int version, const char *ciphers)
{
    SSL_CTX *c = tls_client_context(slice_str(ca.cert_pem), &err);
    SSL_CTX_set_min_proto_version(c, version);
    SSL_CTX_set_max_proto_version(c, version);
    SSL_CTX_set_security_level(c, 0);
    CHECK(SSL_CTX_set_cipher_list(c, ciphers) == 1);
    bool ok = connect_pair(c, s);
    drop_pair();
    SSL_CTX_free(c);
    return ok;
}

TEST(old_versions_and_ciphers_are_refused)
{
    make_all();
    SSL_CTX *s = server_context("");
    CHECK(try_old(s, TLS1_2_VERSION, "ECDHE+AESGCM"));
    CHECK(try_old(s, TLS1_3_VERSION, "ALL"));
    CHECK(!try_old(s, TLS1_2_VERSION, "ECDHE-ECDSA-AES128-SHA"));
    CHECK(!try_old(s, TLS1_1_VERSION, "ALL"));
    CHECK(!try_old(s, TLS1_VERSION, "ALL"));
    SSL_CTX_free(s);
    drop_all();
}
