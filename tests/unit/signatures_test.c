/* What is remembered of verified chains: that the step of signatures is skipped for the same bytes
 * alone, and that nothing else is. */
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <time.h>

#include "sallyport/tls/signatures.h"
#include "unit/test.h"

static X509 *
make(EVP_PKEY *key, const char *cn, X509 *issuer, EVP_PKEY *signer, long serial, const char *basic)
{
    X509 *cert = X509_new(), *parent = issuer ? issuer : cert;
    X509V3_CTX ctx;
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), serial);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)cn, -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(parent));
    X509_set_pubkey(cert, key);
    X509V3_set_ctx(&ctx, parent, cert, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, NID_basic_constraints, basic);
    X509_add_ext(cert, e, -1);
    X509_EXTENSION_free(e);
    if (X509_sign(cert, signer, EVP_sha256()) == 0)
        abort();
    return cert;
}

struct world {
    EVP_PKEY *key, *leaf_key;
    X509 *root;
    X509_STORE *store;
};

/* What OpenSSL does itself, counted. */
static int checked;
static X509_STORE_CTX_verify_fn usual;

static int
count(X509_STORE_CTX *ctx)
{
    checked++;
    return usual(ctx);
}

static void
begin(struct world *w)
{
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    *w = (struct world){EVP_EC_gen("P-256"), EVP_EC_gen("P-256"), NULL, X509_STORE_new()};
    w->root = make(w->key, "root", NULL, w->key, 1, "critical,CA:TRUE");
    X509_STORE_add_cert(w->store, w->root);
    X509_STORE_CTX_init(ctx, w->store, NULL, NULL);
    usual = X509_STORE_CTX_get_verify(ctx);
    X509_STORE_CTX_free(ctx);
    X509_STORE_set_verify(w->store, count);
    checked = 0;
    CHECK(signatures_remember(w->store));
    CHECK(signatures_remember(w->store)); /* twice is once */
}

static void
end(struct world *w)
{
    X509_STORE_free(w->store);
    X509_free(w->root);
    EVP_PKEY_free(w->key);
    EVP_PKEY_free(w->leaf_key);
    ERR_clear_error();
}

static X509 *
leaf(struct world *w, long serial)
{
    return make(w->leaf_key, "leaf", w->root, w->key, serial, "critical,CA:FALSE");
}

/* X509_V_OK or what is wrong; at_s: 0 is now. */
static int
verify(struct world *w, X509 *cert, time_t at_s, unsigned long flags)
{
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    X509_STORE_CTX_init(ctx, w->store, cert, NULL);
    if (at_s)
        X509_STORE_CTX_set_time(ctx, 0, at_s);
    X509_STORE_CTX_set_flags(ctx, flags);
    int fine = X509_verify_cert(ctx), error = X509_STORE_CTX_get_error(ctx);
    X509_STORE_CTX_free(ctx);
    CHECK((fine == 1) == (error == X509_V_OK));
    return error;
}

TEST(the_same_bytes_are_checked_once)
{
    struct world w;
    begin(&w);
    X509 *a = leaf(&w, 2), *b = leaf(&w, 3), *copy = X509_dup(a);
    CHECK(verify(&w, a, 0, 0) == X509_V_OK && checked == 1);
    CHECK(verify(&w, a, 0, 0) == X509_V_OK && checked == 1);
    CHECK(verify(&w, copy, 0, 0) == X509_V_OK && checked == 1);
    CHECK(verify(&w, b, 0, 0) == X509_V_OK && checked == 2);
    CHECK(verify(&w, a, 0, 0) == X509_V_OK && checked == 2);
    X509_free(a);
    X509_free(b);
    X509_free(copy);
    end(&w);
}

TEST(what_differs_in_a_bit_is_another_chain)
{
    struct world w;
    begin(&w);
    X509 *a = leaf(&w, 2);
    unsigned char *der = NULL;
    int len = i2d_X509(a, &der);
    CHECK(verify(&w, a, 0, 0) == X509_V_OK && checked == 1);
    for (int i = 0; i < len * 8; i += 5) {
        der[i / 8] ^= (unsigned char)(1 << i % 8);
        const unsigned char *at = der;
        X509 *other = d2i_X509(NULL, &at, len);
        der[i / 8] ^= (unsigned char)(1 << i % 8);
        /* A bit that DER does not let differ comes back as it was. */
        CHECK_THAT(!other || X509_cmp(other, a) == 0 || verify(&w, other, 0, 0) != X509_V_OK,
                   "bit %d", i);
        X509_free(other);
    }
    CHECK(verify(&w, a, 0, 0) == X509_V_OK);
    OPENSSL_free(der);
    X509_free(a);
    end(&w);
}

TEST(what_failed_is_not_remembered)
{
    struct world w;
    begin(&w);
    EVP_PKEY *other = EVP_EC_gen("P-256");
    X509 *forged = make(w.leaf_key, "leaf", w.root, other, 2, "critical,CA:FALSE");
    for (int i = 1; i <= 3; i++)
        CHECK(verify(&w, forged, 0, 0) == X509_V_ERR_CERT_SIGNATURE_FAILURE && checked == i);
    X509_free(forged);
    EVP_PKEY_free(other);
    end(&w);
}

TEST(another_time_is_asked_of_openssl)
{
    struct world w;
    begin(&w);
    X509 *a = leaf(&w, 2);
    CHECK(verify(&w, a, 0, 0) == X509_V_OK && checked == 1);
    CHECK(verify(&w, a, time(NULL) + 7200, 0) == X509_V_ERR_CERT_HAS_EXPIRED && checked == 2);
    CHECK(verify(&w, a, time(NULL) - 7200, 0) == X509_V_ERR_CERT_NOT_YET_VALID && checked == 3);
    /* and other flags are another verification */
    CHECK(verify(&w, a, 0, X509_V_FLAG_CHECK_SS_SIGNATURE) == X509_V_OK && checked == 4);
    CHECK(verify(&w, a, 0, X509_V_FLAG_CHECK_SS_SIGNATURE) == X509_V_OK && checked == 4);
    X509_free(a);
    end(&w);
}

TEST(a_root_that_is_gone_takes_its_chains_with_it)
{
    struct world w, other;
    begin(&w);
    X509 *a = leaf(&w, 2);
    CHECK(verify(&w, a, 0, 0) == X509_V_OK);
    begin(&other); /* a root of the same name */
    CHECK(verify(&other, a, 0, 0) != X509_V_OK);
    CHECK(verify(&other, a, 0, 0) != X509_V_OK);
    X509_free(a);
    end(&other);
    end(&w);
}

TEST(no_more_are_remembered_than_the_cap)
{
    struct world w;
    begin(&w);
    X509 *first = leaf(&w, 2);
    CHECK(verify(&w, first, 0, 0) == X509_V_OK && checked == 1);
    for (long i = 0; i < SIGNATURES_MAX; i++) {
        X509 *next = leaf(&w, 3 + i);
        CHECK(verify(&w, next, 0, 0) == X509_V_OK);
        X509_free(next);
        if (i == SIGNATURES_MAX / 2)
            CHECK(verify(&w, first, 0, 0) == X509_V_OK &&
                  checked == 2 + SIGNATURES_MAX / 2); /* met again: it stays */
    }
    int before = checked;
    CHECK(verify(&w, first, 0, 0) == X509_V_OK && checked == before);
    X509 *second =
        leaf(&w, 3); /* another serial's signature is another chain: ECDSA is made anew each time */
    CHECK(verify(&w, second, 0, 0) == X509_V_OK && checked == before + 1);
    X509_free(second);
    X509_free(first);
    end(&w);
}
