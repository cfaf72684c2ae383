/* A forge: keys, key sets and tokens of any shape, honest or not, signed by OpenSSL directly so that no code under test
 * has a hand in them. Made once a process; tests only. */
#ifndef TESTS_UNIT_FORGE_H
#define TESTS_UNIT_FORGE_H

#include <openssl/bn.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sallyport/auth/mint.h"
#include "sallyport/auth/token.h"
#include "sallyport/base/encoding.h"
#include "sallyport/base/mem.h"

#define UNUSED __attribute__((unused))

enum forge_key { FORGE_P256 = 0, FORGE_P256_OTHER, FORGE_P384, FORGE_RSA, FORGE_RSA_OTHER, FORGE_ED, FORGE_KEYS };

/* How a signature is spoiled, or that it is not. */
enum forge_twist {
    TWIST_NONE = 0,
    TWIST_FLIP_S,  /* s -> n - s: verifies as well */
    TWIST_DER,     /* OpenSSL's own form instead of r||s */
    TWIST_R_ZERO, TWIST_S_ZERO, TWIST_BOTH_ZERO, TWIST_R_IS_N,
    TWIST_SHORT,   /* the last byte is missing */
    TWIST_LONG,    /* one byte more */
    TWIST_BIT,     /* one bit differs */
};

static struct forge {
    EVP_PKEY *keys[FORGE_KEYS];
    char *pem[FORGE_KEYS];     /* public halves */
    char *private_pem[FORGE_KEYS];
    char *jwk[FORGE_KEYS];     /* kid is "k1" in each */
    struct keyset *sets[FORGE_KEYS]; /* one key each */
} forge;

static const char forge_p256_n[] = "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551";
static const char forge_secret[] = "0123456789abcdef0123456789abcdef";
#define FORGE_OCT "{\"keys\":[{\"kty\":\"oct\",\"kid\":\"k1\",\"k\":\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"}]}"

static UNUSED void
forge_open(void)
{
    static const enum jwa algs[FORGE_KEYS] = {JWA_ES256, JWA_ES256, JWA_ES384, JWA_RS256, JWA_RS256, JWA_EDDSA};
    struct err err = {0};
    if (forge.keys[0])
        return;
    for (int i = 0; i < FORGE_KEYS; i++) {
        if (mint_key(algs[i], "k1", &forge.private_pem[i], &forge.jwk[i], &err)) {
            printf("forge: %s\n", err.text);
            abort();
        }
        BIO *bio = BIO_new_mem_buf(forge.private_pem[i], -1);
        forge.keys[i] = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
        BIO_free(bio);
        char *jwks = mem_printf("{\"keys\":[%s]}", forge.jwk[i]);
        forge.sets[i] = keyset_parse(slice_str(jwks), "test.json", false, &err);
        if (!forge.sets[i] || mint_public_pem(slice_str(jwks), "k1", &forge.pem[i], &err)) {
            printf("forge: %s\n", err.text);
            abort();
        }
        free(jwks);
    }
}

/* At the end of the last test, for the leak checker. */
static UNUSED void
forge_close(void)
{
    for (int i = 0; i < FORGE_KEYS; i++) {
        EVP_PKEY_free(forge.keys[i]);
        free(forge.pem[i]);
        free(forge.private_pem[i]);
        free(forge.jwk[i]);
        keyset_unref(forge.sets[i]);
    }
    memset(&forge, 0, sizeof forge);
}

static UNUSED char *
forge_b64(const void *bytes, size_t len)
{
    char *text = mem_alloc((len + 2) / 3 * 4 + 1);
    base64url_encode(slice_of(bytes, len), text);
    return text;
}

/* r||s of an ECDSA signature, each `field` bytes. */
static UNUSED size_t
forge_raw_ecdsa(unsigned char *sig, size_t len, size_t field, enum forge_twist twist)
{
    const unsigned char *p = sig;
    ECDSA_SIG *pair = d2i_ECDSA_SIG(NULL, &p, (long)len);
    BIGNUM *r = BN_dup(ECDSA_SIG_get0_r(pair)), *s = BN_dup(ECDSA_SIG_get0_s(pair)), *n = NULL;
    BN_hex2bn(&n, forge_p256_n);
    if (twist == TWIST_FLIP_S)
        BN_sub(s, n, s);
    if (twist == TWIST_R_ZERO || twist == TWIST_BOTH_ZERO)
        BN_zero(r);
    if (twist == TWIST_S_ZERO || twist == TWIST_BOTH_ZERO)
        BN_zero(s);
    if (twist == TWIST_R_IS_N)
        BN_copy(r, n);
    BN_bn2binpad(r, sig, (int)field);
    BN_bn2binpad(s, sig + field, (int)field);
    BN_free(r);
    BN_free(s);
    BN_free(n);
    ECDSA_SIG_free(pair);
    return 2 * field;
}

static UNUSED size_t
forge_sign(enum forge_key k, const char *input, unsigned char sig[1024], enum forge_twist twist)
{
    EVP_PKEY *key = forge.keys[k];
    const EVP_MD *md = k == FORGE_ED ? NULL : k == FORGE_P384 ? EVP_sha384() : EVP_sha256();
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    size_t len = 1024;
    EVP_DigestSignInit(ctx, NULL, md, NULL, key);
    if (EVP_DigestSign(ctx, sig, &len, (const unsigned char *)input, strlen(input)) != 1)
        abort();
    EVP_MD_CTX_free(ctx);
    if (EVP_PKEY_get_base_id(key) == EVP_PKEY_EC && twist != TWIST_DER)
        len = forge_raw_ecdsa(sig, len, k == FORGE_P384 ? 48 : 32, twist);
    if (twist == TWIST_SHORT)
        len--;
    if (twist == TWIST_LONG)
        sig[len++] = 0;
    if (twist == TWIST_BIT)
        sig[len / 2] ^= 1;
    return len;
}

static UNUSED char *
forge_join(const char *input, const unsigned char *sig, size_t len)
{
    char *s = forge_b64(sig, len);
    char *token = mem_printf("%s.%s", input, s);
    free(s);
    return token;
}

static UNUSED char *
forge_input(const char *header, size_t header_len, const char *claims, size_t claims_len)
{
    char *h = forge_b64(header, header_len), *c = forge_b64(claims, claims_len);
    char *input = mem_printf("%s.%s", h, c);
    free(h);
    free(c);
    return input;
}

/* Any header over any claims, with lengths because a NUL may be among them. */
static UNUSED char *
forge_bytes(enum forge_key k, const char *header, size_t header_len, const char *claims, size_t claims_len, enum forge_twist twist)
{
    unsigned char sig[1024];
    char *input = forge_input(header, header_len, claims, claims_len);
    char *token = forge_join(input, sig, forge_sign(k, input, sig, twist));
    free(input);
    return token;
}

static UNUSED char *
forge_token(enum forge_key k, const char *header, const char *claims)
{
    return forge_bytes(k, header, strlen(header), claims, strlen(claims), TWIST_NONE);
}

static UNUSED char *
forge_hmac(const char *header, const char *claims, const void *secret, size_t secret_len)
{
    unsigned char mac[32];
    unsigned len;
    char *input = forge_input(header, strlen(header), claims, strlen(claims));
    HMAC(EVP_sha256(), secret, (int)secret_len, (const unsigned char *)input, strlen(input), mac, &len);
    char *token = forge_join(input, mac, len);
    free(input);
    return token;
}

#endif
