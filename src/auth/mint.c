/* Making keys and tokens, for operators and tests, with libjwt. libjwt 1.10.2 has no EdDSA, so
 * Ed25519 tokens are signed by OpenSSL's EVP here; every other algorithm is libjwt's, kid header
 * included. Nothing of this judges a token that arrives: libjwt takes the algorithm from the token,
 * an empty key for a good one, and does not look at exp. Owned by the commands; never linked into a
 * worker's path, and never writes a file. */
#include "sallyport/auth/mint.h"

#include <errno.h>
#include <jwt.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include "sallyport/auth/claims.h"
#include "sallyport/auth/credential.h"
#include "sallyport/base/encoding.h"
#include "sallyport/base/json.h"
#include "sallyport/base/mem.h"
#include "sallyport/base/random.h"

#define RSA_BITS 3072 /* NIST SP 800-57 part 1: 128 bits of strength */
#define RSA_BITS_MIN 2048
#define HMAC_BYTES 32
#define HMAC_BYTES_MIN 32 /* RFC 7518 section 3.2 */
#define FIELD_MAX 1024    /* bytes of the largest number of a JWK: an RSA modulus of 8192 bits */
#define JWKS_DEPTH_MAX 8

static int
fail_openssl(struct err *err, const char *doing)
{
    char text[256];
    unsigned long code = ERR_get_error();
    ERR_error_string_n(code, text, sizeof text);
    ERR_clear_error();
    return err_run(err, "%s: %s", doing, code ? text : "OpenSSL gave no reason");
}

static int
set_base64url(json_t *jwk, const char *name, const unsigned char *bytes, size_t len)
{
    cleanup_free char *text = mem_alloc((len + 2) / 3 * 4 + 1);
    size_t text_len = base64url_encode(slice_of(bytes, len), text);
    int rc = json_object_set_new(jwk, name, json_string(text));
    mem_wipe(text, text_len);
    return rc;
}

/* -- public half -> JWK -- */

/* `len` 0: as many bytes as the number has (RSA); else padded to it (coordinates). */
static int
set_number(json_t *jwk, const char *name, const EVP_PKEY *pkey, const char *param, size_t len)
{
    unsigned char bytes[FIELD_MAX];
    BIGNUM *n = NULL;
    if (EVP_PKEY_get_bn_param(pkey, param, &n) != 1)
        return -1;
    size_t want = len ? len : (size_t)BN_num_bytes(n);
    int got = want <= sizeof bytes ? BN_bn2binpad(n, bytes, (int)want) : -1;
    BN_free(n);
    return got < 0 ? -1 : set_base64url(jwk, name, bytes, want);
}

static int
set_ec(json_t *jwk, const EVP_PKEY *pkey, const char *crv, size_t field)
{
    return json_object_set_new(jwk, "kty", json_string("EC")) ||
           json_object_set_new(jwk, "crv", json_string(crv)) ||
           set_number(jwk, "x", pkey, OSSL_PKEY_PARAM_EC_PUB_X, field) ||
           set_number(jwk, "y", pkey, OSSL_PKEY_PARAM_EC_PUB_Y, field);
}

static int
set_okp(json_t *jwk, const EVP_PKEY *pkey)
{
    unsigned char x[32];
    size_t len = sizeof x;
    return EVP_PKEY_get_raw_public_key(pkey, x, &len) != 1 ||
           json_object_set_new(jwk, "kty", json_string("OKP")) ||
           json_object_set_new(jwk, "crv", json_string("Ed25519")) ||
           set_base64url(jwk, "x", x, len);
}

static int
set_public(json_t *jwk, const EVP_PKEY *pkey, enum jwa alg)
{
    switch (alg) {
    case JWA_ES256:
        return set_ec(jwk, pkey, "P-256", 32);
    case JWA_ES384:
        return set_ec(jwk, pkey, "P-384", 48);
    case JWA_RS256:
        return json_object_set_new(jwk, "kty", json_string("RSA")) ||
               set_number(jwk, "n", pkey, OSSL_PKEY_PARAM_RSA_N, 0) ||
               set_number(jwk, "e", pkey, OSSL_PKEY_PARAM_RSA_E, 0);
    case JWA_EDDSA:
        return set_okp(jwk, pkey);
    case JWA_HS256:
    case JWA_NONE:
        break;
    }
    return -1;
}

static json_t *
new_jwk(enum jwa alg, const char *kid)
{
    return json_pack("{s:s, s:s, s:s}", "kid", kid, "alg", jwa_name(alg), "use", "sig");
}

/* -- keys -- */

static EVP_PKEY *
generate(enum jwa alg)
{
    switch (alg) {
    case JWA_ES256:
        return EVP_EC_gen("P-256");
    case JWA_ES384:
        return EVP_EC_gen("P-384");
    case JWA_RS256:
        return EVP_RSA_gen(RSA_BITS);
    case JWA_EDDSA:
        return EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    case JWA_HS256:
    case JWA_NONE:
        break;
    }
    return NULL;
}

/* A copy of what a memory BIO holds, with a NUL behind it; the BIO's own copy is wiped. */
static char *
take_bio(BIO *bio)
{
    char *data = NULL;
    long len = BIO_get_mem_data(bio, &data);
    char *copy = mem_dup_slice(slice_of(len > 0 ? data : "", len > 0 ? (size_t)len : 0));
    if (len > 0)
        mem_wipe(data, (size_t)len);
    return copy;
}

static int
private_pem(EVP_PKEY *pkey, char **ret, struct err *err)
{
    BIO *bio = BIO_new(BIO_s_mem());
    int good = bio && PEM_write_bio_PKCS8PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL) == 1;
    if (good)
        *ret = take_bio(bio);
    BIO_free(bio);
    return good ? 0 : fail_openssl(err, "cannot write the private key");
}

/* A shared secret has one form for both sides: the JWK. */
static int
mint_secret(const char *kid, char **ret_private, char **ret_jwk)
{
    unsigned char secret[HMAC_BYTES];
    json_auto_t *jwk = new_jwk(JWA_HS256, kid);
    random_bytes(secret, sizeof secret);
    json_object_set_new(jwk, "kty", json_string("oct"));
    set_base64url(jwk, "k", secret, sizeof secret);
    mem_wipe(secret, sizeof secret);
    *ret_jwk = json_dumps(jwk, JSON_COMPACT);
    *ret_private = mem_printf("%s\n", *ret_jwk);
    return 0;
}

static int
check_kid(const char *kid, struct err *err)
{
    if (!claims_jti_is_valid(slice_str(kid))) /* the same characters: kid stands in logs, too */
        return err_invalid(err, "kid: expected 1 to %d printable ASCII bytes", KEYSET_KID_MAX);
    return 0;
}

int
mint_key(enum jwa alg, const char *kid, char **ret_private_pem, char **ret_jwk, struct err *err)
{
    if (check_kid(kid, err))
        return -1;
    if (alg == JWA_HS256)
        return mint_secret(kid, ret_private_pem, ret_jwk);
    EVP_PKEY *pkey = generate(alg);
    if (!pkey)
        return fail_openssl(err, "cannot make a key");
    json_auto_t *jwk = new_jwk(alg, kid);
    int rc = jwk && set_public(jwk, pkey, alg) == 0
                 ? 0
                 : fail_openssl(err, "cannot write the public key");
    if (rc == 0)
        rc = private_pem(pkey, ret_private_pem, err);
    if (rc == 0)
        *ret_jwk = json_dumps(jwk, JSON_COMPACT);
    EVP_PKEY_free(pkey);
    return rc;
}

int
mint_jwks_add(const char *jwks, const char *jwk, char **ret_jwks, struct err *err)
{
    struct slice text = jwks ? slice_str(jwks) : slice_of("", 0);
    json_auto_t *root =
        text.len ? json_read(text, "JWKS", JWKS_DEPTH_MAX, err) : json_pack("{s:[]}", "keys");
    json_auto_t *key = root ? json_read(slice_str(jwk), "JWK", JWKS_DEPTH_MAX, err) : NULL;
    if (!key)
        return -1;
    json_t *keys = json_object_get(root, "keys");
    if (!json_is_array(keys))
        return err_invalid(err, "JWKS: has no array \"keys\", expected {\"keys\": [...]}");
    if (json_array_append(keys, key))
        return err_invalid(err, "JWKS: cannot hold another key");
    cleanup_free char *made = json_dumps(root, JSON_INDENT(2));
    /* The reader of such files judges the result: a double kid, too many keys, a private key among
     * them. */
    struct keyset *check = keyset_parse(slice_str(made), "JWKS", true, err);
    if (!check)
        return -1;
    keyset_unref(check);
    *ret_jwks = mem_printf("%s\n", made);
    return 0;
}

/* -- tokens -- */

/* What signs: an EVP_PKEY and its PEM, or the bytes of a shared secret. */
struct signer {
    enum jwa alg;
    EVP_PKEY *pkey;
    unsigned char secret[FIELD_MAX];
    size_t secret_len;
};

static void
signer_done(struct signer *s)
{
    EVP_PKEY_free(s->pkey);
    mem_wipe(s, sizeof *s);
}

static int
read_secret(struct slice text, struct signer *ret, struct err *err)
{
    json_auto_t *jwk = json_read(text, "private key", JWKS_DEPTH_MAX, err);
    if (!jwk)
        return -1;
    const char *kty = json_string_value(json_object_get(jwk, "kty"));
    const char *k = json_string_value(json_object_get(jwk, "k"));
    if (!kty || strcmp(kty, "oct") != 0 || !k)
        return err_invalid(
            err,
            "private key: is JSON, but no JWK of kty oct; expected PEM (PKCS#8) or such a JWK");
    if (strlen(k) > sizeof ret->secret ||
        !base64url_decode(slice_str(k), ret->secret, &ret->secret_len))
        return err_invalid(err, "private key: k: expected base64url without padding");
    if (ret->secret_len < HMAC_BYTES_MIN)
        return err_invalid(err, "private key: k: has %zu bytes, expected at least %d",
                           ret->secret_len, HMAC_BYTES_MIN);
    ret->alg = JWA_HS256;
    return 0;
}

static enum jwa
alg_of(const EVP_PKEY *pkey)
{
    char group[32] = "";
    switch (EVP_PKEY_get_base_id(pkey)) {
    case EVP_PKEY_RSA:
        return EVP_PKEY_get_bits(pkey) >= RSA_BITS_MIN ? JWA_RS256 : JWA_NONE;
    case EVP_PKEY_ED25519:
        return JWA_EDDSA;
    case EVP_PKEY_EC:
        EVP_PKEY_get_group_name(pkey, group, sizeof group, NULL);
        if (strcmp(group, "prime256v1") == 0)
            return JWA_ES256;
        return strcmp(group, "secp384r1") == 0 ? JWA_ES384 : JWA_NONE;
    default: /* an int of OpenSSL's, open-ended */
        return JWA_NONE;
    }
}

/* An encrypted key must fail, not ask a terminal. */
static int
no_passphrase(char *out, int size, int writing, void *ctx)
{
    (void)out, (void)size, (void)writing, (void)ctx;
    return -1;
}

static int
signer_read(struct slice text, struct signer *ret, struct err *err)
{
    *ret = (struct signer){0};
    if (text.len > 0 && text.ptr[0] == '{')
        return read_secret(text, ret, err);
    BIO *bio = BIO_new_mem_buf(text.ptr, (int)text.len);
    ret->pkey = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
    BIO_free(bio);
    ERR_clear_error();
    if (!ret->pkey)
        return err_invalid(err, "private key: expected an unencrypted private key as PEM (PKCS#8)");
    ret->alg = alg_of(ret->pkey);
    if (ret->alg == JWA_NONE)
        return err_invalid(err,
                           "private key: expected P-256, P-384, Ed25519 or RSA of at least %d bits",
                           RSA_BITS_MIN);
    return 0;
}

static int
sign_eddsa(const struct signer *s, const char *kid, const json_t *claims, char **ret,
           struct err *err)
{
    json_auto_t *header = json_pack("{s:s, s:s, s:s*}", "alg", "EdDSA", "typ", "JWT", "kid", kid);
    cleanup_free char *header_text = json_dumps(header, JSON_COMPACT);
    cleanup_free char *claims_text = json_dumps(claims, JSON_COMPACT);
    cleanup_free char *h = mem_alloc(strlen(header_text) * 2 + 8);
    cleanup_free char *c = mem_alloc(strlen(claims_text) * 2 + 8);
    base64url_encode(slice_str(header_text), h);
    base64url_encode(slice_str(claims_text), c);
    cleanup_free char *input = mem_printf("%s.%s", h, c);
    unsigned char sig[64];
    size_t sig_len = sizeof sig;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good =
        ctx && EVP_DigestSignInit(ctx, NULL, NULL, NULL, s->pkey) == 1 &&
        EVP_DigestSign(ctx, sig, &sig_len, (const unsigned char *)input, strlen(input)) == 1;
    EVP_MD_CTX_free(ctx);
    if (!good)
        return fail_openssl(err, "cannot sign");
    char sig_text[(sizeof sig + 2) / 3 * 4 + 1];
    base64url_encode(slice_of(sig, sig_len), sig_text);
    *ret = mem_printf("%s.%s", input, sig_text);
    return 0;
}

/* libjwt's number for ours; JWT_ALG_INVAL where it has none. */
static jwt_alg_t
libjwt_alg(enum jwa alg)
{
    switch (alg) {
    case JWA_ES256:
        return JWT_ALG_ES256;
    case JWA_ES384:
        return JWT_ALG_ES384;
    case JWA_RS256:
        return JWT_ALG_RS256;
    case JWA_HS256:
        return JWT_ALG_HS256;
    case JWA_EDDSA:
    case JWA_NONE:
        break;
    }
    return JWT_ALG_INVAL;
}

static int
sign_libjwt(const struct signer *s, struct slice key, const char *kid, const json_t *claims,
            char **ret, struct err *err)
{
    jwt_t *jwt = NULL;
    cleanup_free char *claims_text = json_dumps(claims, JSON_COMPACT);
    char *made = NULL;
    errno = 0;
    int rc = jwt_new(&jwt);
    if (rc == 0)
        rc = jwt_add_grants_json(jwt, claims_text);
    if (rc == 0 && kid)
        rc = jwt_add_header(jwt, "kid", kid);
    if (rc == 0)
        rc = jwt_set_alg(jwt, libjwt_alg(s->alg), (const unsigned char *)key.ptr, (int)key.len);
    if (rc == 0)
        made = jwt_encode_str(jwt);
    jwt_free(jwt);
    ERR_clear_error();
    if (!made)
        return err_run(err, "cannot sign: libjwt refused the key or the claims (%d)",
                       rc ? rc : errno);
    *ret = mem_strdup(made);
    free(made);
    return 0;
}

int
mint_token(struct slice private_pem_text, const char *kid, const char *claims_json,
           char **ret_token, struct err *err)
{
    struct signer s;
    if (kid && check_kid(kid, err))
        return -1;
    json_auto_t *claims = json_read(slice_str(claims_json), "claims", CLAIMS_DEPTH_MAX, err);
    if (!claims)
        return -1;
    if (!json_is_object(claims))
        return err_invalid(err, "claims: expected a JSON object");
    char *token = NULL;
    int rc = signer_read(private_pem_text, &s, err);
    struct slice key = s.alg == JWA_HS256 ? slice_of(s.secret, s.secret_len) : private_pem_text;
    if (rc == 0)
        rc = s.alg == JWA_EDDSA ? sign_eddsa(&s, kid, claims, &token, err)
                                : sign_libjwt(&s, key, kid, claims, &token, err);
    signer_done(&s);
    if (rc || !token)
        return -1;
    size_t len = strlen(token);
    if (len > TOKEN_MAX) {
        free(token);
        return err_invalid(err, "the token would have %zu bytes, at most %d are accepted", len,
                           TOKEN_MAX);
    }
    *ret_token = token;
    return 0;
}

/* -- the second opinion -- */

int
mint_second_opinion(const char *token, struct slice public_pem, struct err *err)
{
    jwt_t *jwt = NULL;
    if (strlen(token) > TOKEN_MAX) /* it would take as much from the stack */
        return err_invalid(err, "libjwt: the token is longer than %d bytes", TOKEN_MAX);
    if (public_pem.len == 0) /* it would accept anything */
        return err_invalid(err, "libjwt: the key is empty");
    int rc = jwt_decode(&jwt, token, (const unsigned char *)public_pem.ptr, (int)public_pem.len);
    jwt_free(jwt);
    ERR_clear_error();
    return rc ? err_invalid(err, "libjwt: does not verify the token (%d)", rc) : 0;
}

int
mint_public_pem(struct slice jwks, const char *kid, char **ret_pem, struct err *err)
{
    struct keyset *ks = keyset_parse(jwks, "JWKS", true, err);
    if (!ks)
        return -1;
    int rc = -1;
    const struct key *key = keyset_find(ks, kid ? slice_str(kid) : slice_of(NULL, 0));
    if (!key || !key_public(key)) {
        err_invalid(err, key ? "JWKS: a shared secret has no public half"
                             : "JWKS: has no key of that kid");
        keyset_unref(ks);
        return rc;
    }
    BIO *bio = BIO_new(BIO_s_mem());
    if (bio && PEM_write_bio_PUBKEY(bio, key_public(key)) == 1) {
        *ret_pem = take_bio(bio);
        rc = 0;
    } else {
        fail_openssl(err, "cannot write the public key");
    }
    BIO_free(bio);
    keyset_unref(ks);
    return rc;
}
