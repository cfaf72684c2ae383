/* Certificates for tests, made with OpenSSL: a CA and leaves of it, as PEM texts. */
#ifndef TESTS_UNIT_CERTS_H
#define TESTS_UNIT_CERTS_H

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "sallyport/base/slice.h"

struct test_cert {
    X509 *cert;
    EVP_PKEY *key;
    char cert_pem[4096], key_pem[2048];
};

static inline void
test_cert_done(struct test_cert *c)
{
    X509_free(c->cert);
    EVP_PKEY_free(c->key);
}

static inline void
test_cert_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    if (!e || X509_add_ext(cert, e, -1) != 1)
        abort();
    X509_EXTENSION_free(e);
}

/* issuer NULL: a self-signed CA. alt: subjectAltName such as "DNS:gw.example.test". days below 0: expired. */
static inline void
test_cert_make(struct test_cert *c, const struct test_cert *issuer, const char *alt, int days)
{
    static long serial = 1;
    c->key = EVP_EC_gen("P-256");
    c->cert = X509_new();
    X509_set_version(c->cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(c->cert), serial++);
    X509_gmtime_adj(X509_getm_notBefore(c->cert), -86400L * 30);
    X509_gmtime_adj(X509_getm_notAfter(c->cert), 86400L * days);
    X509_NAME *name = X509_get_subject_name(c->cert);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)(issuer ? "leaf" : "CA"), -1, -1, 0);
    X509 *parent = issuer ? issuer->cert : c->cert;
    X509_set_issuer_name(c->cert, X509_get_subject_name(parent));
    X509_set_pubkey(c->cert, c->key);
    test_cert_extension(c->cert, parent, NID_basic_constraints, issuer ? "critical,CA:FALSE" : "critical,CA:TRUE");
    if (alt)
        test_cert_extension(c->cert, parent, NID_subject_alt_name, alt);
    if (X509_sign(c->cert, issuer ? issuer->key : c->key, EVP_sha256()) == 0)
        abort();
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, c->cert);
    c->cert_pem[BIO_read(bio, c->cert_pem, sizeof c->cert_pem - 1)] = '\0';
    PEM_write_bio_PrivateKey(bio, c->key, NULL, NULL, 0, NULL, NULL);
    c->key_pem[BIO_read(bio, c->key_pem, sizeof c->key_pem - 1)] = '\0';
    BIO_free(bio);
}

#endif
