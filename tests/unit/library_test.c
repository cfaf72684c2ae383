/* The library context of inspection: every kind of key and handshake that OpenSSL's own has for us,
 * and what it does not read. */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/provider.h>
#include <openssl/rsa.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sallyport/base/mem.h"
#include "sallyport/tls/library.h"
#include "unit/test.h"
#include "unit/tlspair.h"

/* ---- whose algorithms ---- */

/* In a process of its own: a library context is made once. */
static int
in_child(int (*fn)(void))
{
    int status = -1;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        _exit(fn());
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status)
                                                                           : -1;
}

static int
with_another_provider(void)
{
    return OSSL_PROVIDER_load(NULL, "default") && OSSL_PROVIDER_load(NULL, "base") &&
                   tls_library() == NULL
               ? 0
               : 1;
}

static int
with_validated_ones(void)
{
    return EVP_default_properties_enable_fips(NULL, 1) == 1 && tls_library() == NULL ? 0 : 1;
}

static int
as_usual(void)
{
    bool expected = OPENSSL_version_major() == 3 && OPENSSL_version_minor() <= 1;
    return (tls_library() != NULL) == expected && tls_library() == tls_library() ? 0 : 1;
}

/* First, as long as this process has not made it. */
TEST(where_openssl_is_configured_otherwise_its_own_context_is_used)
{
    CHECK(in_child(with_another_provider) == 0);
    CHECK(in_child(with_validated_ones) == 0);
    CHECK(in_child(as_usual) == 0);
}

/* ---- certificates ---- */

static X509 *
certificate(EVP_PKEY *key, EVP_PKEY *signer, const EVP_MD *md)
{
    X509 *cert = X509_new();
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -60);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)"a.example", -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(cert));
    if (X509_set_pubkey(cert, key) != 1 || X509_sign(cert, signer, md) == 0)
        abort();
    return cert;
}

/* The same bytes, read by the library. */
static X509 *
read_again(X509 *cert)
{
    unsigned char *der = NULL;
    int len = i2d_X509(cert, &der);
    X509 *again = tls_read_der(slice_of((const char *)der, (size_t)len));
    OPENSSL_free(der);
    return again;
}

static EVP_PKEY *
dsa_key(void)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "DSA", NULL);
    EVP_PKEY *parameters = NULL, *key = NULL;
    if (EVP_PKEY_paramgen_init(ctx) != 1 || EVP_PKEY_paramgen(ctx, &parameters) != 1)
        abort();
    EVP_PKEY_CTX_free(ctx);
    ctx = EVP_PKEY_CTX_new_from_pkey(NULL, parameters, NULL);
    if (EVP_PKEY_keygen_init(ctx) != 1 || EVP_PKEY_generate(ctx, &key) != 1)
        abort();
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(parameters);
    return key;
}

static EVP_PKEY *
pss_key(void)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA-PSS", NULL);
    EVP_PKEY *key = NULL;
    if (EVP_PKEY_keygen_init(ctx) != 1 || EVP_PKEY_CTX_set_rsa_keygen_bits(ctx, 2048) != 1 ||
        EVP_PKEY_generate(ctx, &key) != 1)
        abort();
    EVP_PKEY_CTX_free(ctx);
    return key;
}

TEST(keys_of_every_kind_that_signs_certificates_are_read)
{
    struct {
        const char *name;
        EVP_PKEY *key;
        const EVP_MD *md;
    } rows[] = {
        {"RSA", EVP_RSA_gen(2048), EVP_sha256()},
        {"RSA-PSS", pss_key(), EVP_sha384()},
        {"P-256", EVP_EC_gen("P-256"), EVP_sha256()},
        {"P-384", EVP_EC_gen("P-384"), EVP_sha384()},
        {"P-521", EVP_EC_gen("P-521"), EVP_sha512()},
        {"DSA", dsa_key(), EVP_sha256()},
        {"Ed25519", EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"), NULL},
        {"Ed448", EVP_PKEY_Q_keygen(NULL, NULL, "ED448"), NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        X509 *cert = certificate(rows[i].key, rows[i].key, rows[i].md), *again = read_again(cert);
        EVP_PKEY *key = again ? X509_get0_pubkey(again) : NULL;
        CHECK_THAT(key && EVP_PKEY_eq(key, rows[i].key) == 1, "%s", rows[i].name);
        CHECK_THAT(key && X509_verify(again, key) == 1, "%s", rows[i].name);
        /* and a signature that is wrong stays wrong */
        EVP_PKEY *other = EVP_EC_gen("P-256");
        X509 *forged = certificate(rows[i].key, other, EVP_sha256()), *read = read_again(forged);
        CHECK_THAT(key && read && X509_verify(read, key) != 1, "%s", rows[i].name);
        X509_free(cert);
        X509_free(again);
        X509_free(forged);
        X509_free(read);
        EVP_PKEY_free(other);
        EVP_PKEY_free(rows[i].key);
    }
    ERR_clear_error();
}

TEST(a_key_that_signs_nothing_is_not_read)
{
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "X25519"), *signer = EVP_EC_gen("P-256");
    X509 *cert = certificate(key, signer, EVP_sha256()), *again = read_again(cert);
    CHECK(again != NULL);
    if (tls_library())
        CHECK(again && X509_get0_pubkey(again) == NULL);
    X509_free(cert);
    X509_free(again);
    EVP_PKEY_free(key);
    EVP_PKEY_free(signer);
    ERR_clear_error();
}

TEST(der_is_one_certificate_and_nothing_else)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = certificate(key, key, EVP_sha256());
    unsigned char *der = NULL;
    size_t len = (size_t)i2d_X509(cert, &der);
    char *longer = mem_zalloc(len + 1);
    memcpy(longer, der, len);
    CHECK(tls_read_der(slice_of(longer, len + 1)) == NULL);
    for (size_t cut = 0; cut < len; cut++)
        CHECK(tls_read_der(slice_of(longer, cut)) == NULL);
    X509 *whole = tls_read_der(slice_of(longer, len));
    CHECK(whole && X509_cmp(whole, cert) == 0);
    X509_free(whole);
    X509_free(cert);
    EVP_PKEY_free(key);
    OPENSSL_free(der);
    free(longer);
    ERR_clear_error();
}

TEST(private_keys_come_from_pem_without_a_passphrase)
{
    static const char *const curves[] = {"P-256", "P-384"};
    for (size_t i = 0; i < 2; i++) {
        EVP_PKEY *key = EVP_EC_gen(curves[i]);
        BIO *plain = BIO_new(BIO_s_mem()), *locked = BIO_new(BIO_s_mem());
        char *data;
        PEM_write_bio_PrivateKey(plain, key, NULL, NULL, 0, NULL, NULL);
        PEM_write_bio_PrivateKey(locked, key, EVP_aes_128_cbc(), (const unsigned char *)"word", 4,
                                 NULL, NULL);
        size_t len = (size_t)BIO_get_mem_data(plain, &data);
        EVP_PKEY *ours = tls_read_private_pem(slice_of(data, len));
        CHECK_THAT(ours && EVP_PKEY_eq(ours, key) == 1, "%s", curves[i]);
        X509 *cert = certificate(key, key, EVP_sha256()), *again = read_again(cert);
        CHECK_THAT(ours && again && X509_check_private_key(again, ours) == 1, "%s", curves[i]);
        len = (size_t)BIO_get_mem_data(locked, &data);
        CHECK(tls_read_private_pem(slice_of(data, len)) == NULL);
        CHECK(tls_read_private_pem(slice_of("", 0)) == NULL);
        BIO_free(plain);
        BIO_free(locked);
        X509_free(cert);
        X509_free(again);
        EVP_PKEY_free(ours);
        EVP_PKEY_free(key);
    }
    ERR_clear_error();
}

/* ---- handshakes ---- */

/* Both sides of the library, or one against OpenSSL's own. */
static bool
shake(OSSL_LIB_CTX *client, OSSL_LIB_CTX *server, EVP_PKEY *key, const EVP_MD *md, int version,
      const char *group, const char *suite)
{
    SSL_CTX *c = SSL_CTX_new_ex(client, NULL, TLS_client_method()),
            *s = SSL_CTX_new_ex(server, NULL, TLS_server_method());
    X509 *cert = certificate(key, key, md);
    SSL_CTX_set_min_proto_version(c, version);
    SSL_CTX_set_max_proto_version(c, version);
    if (suite && (version == TLS1_3_VERSION ? SSL_CTX_set_ciphersuites(c, suite)
                                            : SSL_CTX_set_cipher_list(c, suite)) != 1)
        return false;
    bool set = (!group || SSL_CTX_set1_groups_list(c, group) == 1) &&
               SSL_CTX_use_certificate(s, cert) == 1 && SSL_CTX_use_PrivateKey(s, key) == 1;
    struct tls_pair p = {SSL_new(c), SSL_new(s)};
    tls_pair_join(&p);
    bool fine = set && tls_pair_shake(&p) == 1;
    X509 *peer = SSL_get1_peer_certificate(p.client);
    fine = fine && peer && X509_cmp(peer, cert) == 0 &&
           (!suite || strcmp(SSL_get_cipher_name(p.client), suite) == 0);
    X509_free(peer);
    tls_pair_done(&p);
    X509_free(cert);
    SSL_CTX_free(c);
    SSL_CTX_free(s);
    ERR_clear_error();
    return fine;
}

TEST(each_group_and_suite_is_spoken_with_an_openssl_that_has_all)
{
    static const char *const groups[] = {"X25519", "P-256",     "X448", "P-384",
                                         "P-521",  "ffdhe2048", NULL};
    static const char *const new_suites[] = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384",
                                             "TLS_CHACHA20_POLY1305_SHA256", NULL};
    static const char *const old_suites[] = {"AES128-GCM-SHA256", "AES256-GCM-SHA384",
                                             "CHACHA20-POLY1305", NULL};
    EVP_PKEY *ec = EVP_EC_gen("P-256"), *rsa = EVP_RSA_gen(2048);
    OSSL_LIB_CTX *l = tls_library();
    for (int side = 0; side < 3; side++) {
        OSSL_LIB_CTX *client = side == 1 ? NULL : l, *server = side == 2 ? NULL : l;
        for (const char *const *g = groups; *g; g++)
            CHECK_THAT(shake(client, server, ec, EVP_sha256(), TLS1_3_VERSION, *g, NULL),
                       "side %d, %s", side, *g);
        for (const char *const *s = new_suites; *s; s++)
            CHECK_THAT(shake(client, server, rsa, EVP_sha256(), TLS1_3_VERSION, NULL, *s),
                       "side %d, %s", side, *s);
        for (const char *const *s = old_suites; *s; s++)
            for (int k = 0; k < 2; k++) {
                char suite[64];
                snprintf(suite, sizeof suite, "ECDHE-%s-%s", k ? "RSA" : "ECDSA", *s);
                CHECK_THAT(
                    shake(client, server, k ? rsa : ec, EVP_sha256(), TLS1_2_VERSION, NULL, suite),
                    "side %d, %s", side, suite);
            }
    }
    EVP_PKEY_free(ec);
    EVP_PKEY_free(rsa);
}

/* The certificate's key is what signs the handshake. */
TEST(servers_with_every_kind_of_key_are_spoken_to)
{
    struct {
        const char *name;
        EVP_PKEY *key;
        const EVP_MD *md;
    } rows[] = {
        {"RSA", EVP_RSA_gen(2048), EVP_sha256()},
        {"RSA-PSS", pss_key(), EVP_sha256()},
        {"P-384", EVP_EC_gen("P-384"), EVP_sha384()},
        {"Ed25519", EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"), NULL},
        {"Ed448", EVP_PKEY_Q_keygen(NULL, NULL, "ED448"), NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK_THAT(shake(tls_library(), NULL, rows[i].key, rows[i].md, TLS1_3_VERSION, NULL, NULL),
                   "TLS 1.3, %s", rows[i].name);
        CHECK_THAT(shake(tls_library(), NULL, rows[i].key, rows[i].md, TLS1_2_VERSION, NULL, NULL),
                   "TLS 1.2, %s", rows[i].name);
        EVP_PKEY_free(rows[i].key);
    }
}
