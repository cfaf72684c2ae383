/* Verification keys: JWKS (RFC 7517, 7518, 8037) -> EVP_PKEY, once, at load. What a key may verify
 * is fixed here by its type and curve; a token has no say in it. Owned by the snapshot, shared by
 * reference, immutable. Reads no file, makes no key, and never holds a private one (an HMAC secret,
 * where the operator allows it, is both). */
#include "sallyport/auth/keyset.h"

#include <assert.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/param_build.h>

#include "sallyport/base/encoding.h"
#include "sallyport/base/json.h"
#include "sallyport/base/mem.h"

#define KEYSET_DEPTH_MAX 8
#define RSA_BITS_MIN 2048
#define RSA_BITS_MAX 8192 /* beyond, a verification costs more than a refused one is worth */
#define RSA_EXPONENT_BITS_MAX 64
#define HMAC_BYTES_MIN 32 /* RFC 7518 section 3.2 */
#define HMAC_BYTES_MAX 1024
#define EC_FIELD_MAX 48

struct key {
    enum jwa alg;
    char *kid;             /* NULL when the JWK has none */
    EVP_PKEY *pkey;        /* NULL for HMAC */
    unsigned char *secret; /* HMAC only */
    size_t secret_len;
};

struct keyset {
    unsigned refs;
    size_t count;
    struct key keys[KEYSET_MAX_KEYS];
};

/* One row for each algorithm: what a JWK must be to have it. */
static const struct jwa_row {
    enum jwa alg;
    const char *name;
    const char *kty;
    const char *crv; /* NULL: the type has no curves */
    size_t field;    /* bytes of a coordinate, or of r and of s */
} jwa_rows[] = {
    {JWA_ES256, "ES256", "EC", "P-256", 32}, {JWA_ES384, "ES384", "EC", "P-384", 48},
    {JWA_RS256, "RS256", "RSA", NULL, 0},    {JWA_EDDSA, "EdDSA", "OKP", "Ed25519", 32},
    {JWA_HS256, "HS256", "oct", NULL, 0},
};
#define JWA_ROWS (sizeof jwa_rows / sizeof jwa_rows[0])

static const struct jwa_row *
row_of(enum jwa alg)
{
    for (size_t i = 0; i < JWA_ROWS; i++)
        if (jwa_rows[i].alg == alg)
            return &jwa_rows[i];
    return NULL;
}

const char *
jwa_name(enum jwa alg)
{
    const struct jwa_row *row = row_of(alg);
    return row ? row->name : "none";
}

enum jwa
jwa_from_name(struct slice name)
{
    for (size_t i = 0; i < JWA_ROWS; i++)
        if (slice_is(name, jwa_rows[i].name))
            return jwa_rows[i].alg;
    return JWA_NONE;
}

/* -- reading one JWK -- */

static int
want_string(const struct json_at *at, const char **ret, struct err *err)
{
    *ret = NULL;
    if (json_get_string(at, ret, err))
        return -1;
    if (!*ret) {
        json_fail(at, err, "is required");
        return -1;
    }
    return 0;
}

/* A member of canonical base64url (RFC 7518 section 6). Heap; the caller wipes what is secret. */
static int
read_bytes(const struct json_at *jwk, const char *name, unsigned char **ret, size_t *ret_len,
           struct err *err)
{
    struct json_at at = json_member(jwk, name);
    const char *text;
    if (want_string(&at, &text, err))
        return -1;
    struct slice s = slice_str(text);
    unsigned char *bytes = mem_alloc(s.len * 3 / 4 + 1);
    if (s.len == 0 || !base64url_decode(s, bytes, ret_len)) {
        free(bytes);
        json_fail(&at, err, "expected base64url without padding");
        return -1;
    }
    *ret = bytes;
    return 0;
}

static int
read_field(const struct json_at *jwk, const char *name, size_t len, unsigned char *out,
           struct err *err)
{
    cleanup_free unsigned char *bytes = NULL;
    size_t got;
    if (read_bytes(jwk, name, &bytes, &got, err))
        return -1;
    if (got != len) {
        struct json_at at = json_member(jwk, name);
        return json_fail(&at, err, "has %zu bytes, expected %zu", got, len);
    }
    memcpy(out, bytes, len);
    return 0;
}

/* Builds and checks: a point that is not on its curve or a modulus that is none does not load. */
static EVP_PKEY *
pkey_from_params(const char *type, OSSL_PARAM_BLD *build)
{
    EVP_PKEY *pkey = NULL;
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(build);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    if (params && ctx && EVP_PKEY_fromdata_init(ctx) == 1 &&
        EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params) == 1) {
        EVP_PKEY_CTX *check = EVP_PKEY_CTX_new(pkey, NULL);
        if (!check || EVP_PKEY_public_check(check) != 1) {
            EVP_PKEY_free(pkey);
            pkey = NULL;
        }
        EVP_PKEY_CTX_free(check);
    }
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    ERR_clear_error();
    return pkey;
}

static int
read_ec(struct key *key, const struct json_at *jwk, const struct jwa_row *row, struct err *err)
{
    unsigned char point[1 + 2 * EC_FIELD_MAX];
    point[0] = 4; /* uncompressed (SEC 1 section 2.3.3) */
    if (read_field(jwk, "x", row->field, point + 1, err) ||
        read_field(jwk, "y", row->field, point + 1 + row->field, err))
        return -1;
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    if (build && OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, row->crv, 0) &&
        OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * row->field))
        key->pkey = pkey_from_params("EC", build);
    OSSL_PARAM_BLD_free(build);
    return key->pkey ? 0 : json_fail(jwk, err, "x and y are not a point of %s", row->crv);
}

static int
read_okp(struct key *key, const struct json_at *jwk, const struct jwa_row *row, struct err *err)
{
    unsigned char x[32];
    if (read_field(jwk, "x", row->field, x, err))
        return -1;
    key->pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, x, sizeof x);
    ERR_clear_error();
    return key->pkey ? 0 : json_fail(jwk, err, "x is not a key of Ed25519");
}

static int
read_number(const struct json_at *jwk, const char *name, BIGNUM **ret, struct err *err)
{
    cleanup_free unsigned char *bytes = NULL;
    size_t len;
    if (read_bytes(jwk, name, &bytes, &len, err))
        return -1;
    struct json_at at = json_member(jwk, name);
    if (bytes[0] == 0) /* Base64urlUInt (RFC 7518 section 2) */
        return json_fail(&at, err, "has a leading zero byte");
    if (len > RSA_BITS_MAX / 8)
        return json_fail(&at, err, "has %zu bits, at most %d are taken", len * 8, RSA_BITS_MAX);
    *ret = BN_bin2bn(bytes, (int)len, NULL);
    return *ret ? 0 : json_fail(&at, err, "is not a number");
}

static int
check_rsa_numbers(const struct json_at *jwk, const BIGNUM *n, const BIGNUM *e, struct err *err)
{
    struct json_at n_at = json_member(jwk, "n"), e_at = json_member(jwk, "e");
    if (BN_num_bits(n) < RSA_BITS_MIN)
        return json_fail(&n_at, err, "has %d bits, expected at least %d", BN_num_bits(n),
                         RSA_BITS_MIN);
    if (!BN_is_odd(e) || BN_is_one(e) || BN_num_bits(e) > RSA_EXPONENT_BITS_MAX)
        return json_fail(&e_at, err,
                         "expected an odd exponent from 3 to 2^64 - 1, AQAB for instance");
    return 0;
}

static int
read_rsa(struct key *key, const struct json_at *jwk, const struct jwa_row *row, struct err *err)
{
    (void)row;
    BIGNUM *n = NULL, *e = NULL;
    OSSL_PARAM_BLD *build = NULL;
    int rc = -1;
    if (read_number(jwk, "n", &n, err) || read_number(jwk, "e", &e, err) ||
        check_rsa_numbers(jwk, n, e, err))
        goto out;
    build = OSSL_PARAM_BLD_new();
    if (build && OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n) &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, e))
        key->pkey = pkey_from_params("RSA", build);
    rc = key->pkey ? 0 : json_fail(jwk, err, "n and e are not an RSA key");
out:
    OSSL_PARAM_BLD_free(build);
    BN_free(n);
    BN_free(e);
    return rc;
}

static int
read_oct(struct key *key, const struct json_at *jwk, const struct jwa_row *row, struct err *err)
{
    (void)row;
    if (read_bytes(jwk, "k", &key->secret, &key->secret_len, err))
        return -1;
    struct json_at at = json_member(jwk, "k");
    if (key->secret_len < HMAC_BYTES_MIN || key->secret_len > HMAC_BYTES_MAX)
        return json_fail(&at, err, "has %zu bytes, expected %d to %d", key->secret_len,
                         HMAC_BYTES_MIN, HMAC_BYTES_MAX);
    return 0;
}

/* The row that kty and crv name. */
static int
find_row(const struct json_at *jwk, const struct jwa_row **ret, struct err *err)
{
    struct json_at kty_at = json_member(jwk, "kty"), crv_at = json_member(jwk, "crv");
    const char *kty, *crv = NULL;
    if (want_string(&kty_at, &kty, err))
        return -1;
    bool known = false;
    for (size_t i = 0; i < JWA_ROWS; i++) {
        const struct jwa_row *row = &jwa_rows[i];
        if (strcmp(kty, row->kty) != 0)
            continue;
        known = true;
        if (row->crv && !crv && want_string(&crv_at, &crv, err))
            return -1;
        if (!row->crv || strcmp(crv, row->crv) == 0) {
            *ret = row;
            return 0;
        }
    }
    if (known)
        return json_fail(&crv_at, err,
                         "unknown curve, expected P-256 or P-384 with EC, Ed25519 with OKP");
    return json_fail(&kty_at, err, "unknown key type, expected EC, RSA, OKP or oct");
}

static int
check_alg(const struct json_at *jwk, const struct jwa_row *row, struct err *err)
{
    struct json_at at = json_member(jwk, "alg");
    const char *alg = NULL;
    if (json_get_string(&at, &alg, err))
        return -1;
    if (alg && strcmp(alg, row->name) != 0)
        return json_fail(&at, err, "\"%s\" does not fit this key, expected \"%s\"", alg, row->name);
    return 0;
}

/* `use` and `key_ops` (RFC 7517 sections 4.2 and 4.3) must permit verification where they are
 * given. */
static int
check_use(const struct json_at *jwk, struct err *err)
{
    struct json_at use_at = json_member(jwk, "use"), ops_at = json_member(jwk, "key_ops");
    const char *use = NULL;
    if (json_get_string(&use_at, &use, err))
        return -1;
    if (use && strcmp(use, "sig") != 0)
        return json_fail(&use_at, err, "expected \"sig\": the key may not verify signatures");
    if (!ops_at.value)
        return 0;
    if (json_want_array(&ops_at, err))
        return -1;
    for (size_t i = 0; i < json_array_size(ops_at.value); i++) {
        struct json_at op_at = json_element(&ops_at, i);
        const char *op;
        if (want_string(&op_at, &op, err))
            return -1;
        if (strcmp(op, "verify") == 0)
            return 0;
    }
    return json_fail(&ops_at, err,
                     "expected \"verify\" among them: the key may not verify signatures");
}

/* A private key in this file would be handed to every worker. */
static int
check_public(const struct json_at *jwk, struct err *err)
{
    static const char *const private_members[] = {"d", "p", "q", "dp", "dq", "qi", "oth"};
    for (size_t i = 0; i < sizeof private_members / sizeof private_members[0]; i++) {
        struct json_at at = json_member(jwk, private_members[i]);
        if (at.value)
            return json_fail(&at, err, "is part of a private key, expected public keys only");
    }
    return 0;
}

static int
read_kid(struct key *key, const struct json_at *jwk, struct err *err)
{
    struct json_at at = json_member(jwk, "kid");
    const char *kid = NULL;
    if (json_get_string(&at, &kid, err))
        return -1;
    if (!kid)
        return 0;
    size_t len = strlen(kid);
    if (len < 1 || len > KEYSET_KID_MAX)
        return json_fail(&at, err, "has %zu bytes, expected 1 to %d", len, KEYSET_KID_MAX);
    key->kid = mem_strdup(kid);
    return 0;
}

static int
read_material(struct key *key, const struct json_at *jwk, const struct jwa_row *row,
              struct err *err)
{
    switch (row->alg) {
    case JWA_ES256:
    case JWA_ES384:
        return read_ec(key, jwk, row, err);
    case JWA_RS256:
        return read_rsa(key, jwk, row, err);
    case JWA_EDDSA:
        return read_okp(key, jwk, row, err);
    case JWA_HS256:
        return read_oct(key, jwk, row, err);
    case JWA_NONE:
        break;
    }
    return json_fail(jwk, err, "is no key");
}

static int
read_key(struct key *key, const struct json_at *jwk, bool allow_hmac, struct err *err)
{
    const struct jwa_row *row = NULL;
    if (json_want_object(jwk, err))
        return -1;
    if (!jwk->value || json_is_null(jwk->value))
        return json_fail(jwk, err, "expected a key (an object)");
    if (find_row(jwk, &row, err) || check_alg(jwk, row, err) || check_use(jwk, err) ||
        read_kid(key, jwk, err))
        return -1;
    if (row->alg == JWA_HS256 && !allow_hmac)
        return json_fail(jwk, err,
                         "is a shared secret (kty oct), which auth.allow_hmac does not allow");
    if (row->alg != JWA_HS256 && check_public(jwk, err))
        return -1;
    key->alg = row->alg;
    return read_material(key, jwk, row, err);
}

/* -- the set -- */

static int
check_kids(const struct keyset *ks, const struct json_at *keys, struct err *err)
{
    for (size_t i = 0; i < ks->count; i++) {
        struct json_at at = json_element(keys, i);
        if (!ks->keys[i].kid && ks->count > 1)
            return json_fail(&at, err, "has no kid, which each of several keys needs");
        for (size_t j = 0; j < i; j++)
            if (strcmp(ks->keys[i].kid, ks->keys[j].kid) == 0)
                return json_fail(&at, err, "has the same kid as keys[%zu]", j);
    }
    return 0;
}

static int
read_keys(struct keyset *ks, const json_t *root, const char *name, bool allow_hmac, struct err *err)
{
    struct json_at at = json_root(root, name);
    if (json_want_object(&at, err))
        return -1;
    struct json_at keys = json_member(&at, "keys");
    if (!keys.value)
        return json_fail(&at, err, "has no member \"keys\", expected a JWKS: {\"keys\": [...]}");
    if (json_want_array(&keys, err))
        return -1;
    size_t count = json_array_size(keys.value);
    if (count < 1 || count > KEYSET_MAX_KEYS)
        return json_fail(&keys, err, "has %zu keys, expected 1 to %d", count, KEYSET_MAX_KEYS);
    for (size_t i = 0; i < count; i++) {
        struct json_at jwk = json_element(&keys, i);
        ks->count++; /* first, so that a half-read key is freed, too */
        if (read_key(&ks->keys[i], &jwk, allow_hmac, err))
            return -1;
    }
    return check_kids(ks, &keys, err);
}

/* The usual mistake is to name the other file of the pair. */
static int
refuse_pem(struct slice text, const char *name, struct err *err)
{
    static const struct {
        const char *mark, *what;
    } kinds[] = {
        {"CERTIFICATE-----", "a certificate (PEM)"},
        {"PRIVATE KEY-----", "a private key (PEM)"},
        {"PUBLIC KEY-----", "a public key (PEM)"},
        {"-----BEGIN", "a PEM file"},
    };
    if (text.ptr[0] == '{' || !memmem(text.ptr, text.len, "-----BEGIN", 10))
        return 0;
    size_t i = 0;
    while (!memmem(text.ptr, text.len, kinds[i].mark, strlen(kinds[i].mark)))
        i++;
    return err_invalid(err,
                       "%s: is %s, expected a JWKS: {\"keys\": [...]} with public keys "
                       "(`sallyport token keygen` writes one)",
                       name, kinds[i].what);
}

struct keyset *
keyset_parse(struct slice jwks, const char *name, bool allow_hmac, struct err *err)
{
    if (jwks.len == 0) {
        err_invalid(err, "%s: is empty, expected a JWKS: {\"keys\": [...]}", name);
        return NULL;
    }
    if (refuse_pem(jwks, name, err))
        return NULL;
    json_auto_t *root = json_read(jwks, name, KEYSET_DEPTH_MAX, err);
    if (!root)
        return NULL;
    struct keyset *ks = mem_zalloc(sizeof *ks);
    ks->refs = 1;
    if (read_keys(ks, root, name, allow_hmac, err)) {
        keyset_unref(ks);
        return NULL;
    }
    return ks;
}

struct keyset *
keyset_ref(struct keyset *ks)
{
    assert(ks->refs > 0);
    ks->refs++;
    return ks;
}

static void
key_done(struct key *key)
{
    EVP_PKEY_free(key->pkey);
    if (key->secret)
        mem_wipe(key->secret, key->secret_len);
    free(key->secret);
    free(key->kid);
}

void
keyset_unref(struct keyset *ks)
{
    if (!ks || --ks->refs > 0)
        return;
    for (size_t i = 0; i < ks->count; i++)
        key_done(&ks->keys[i]);
    free(ks);
}

bool
keyset_has_hmac(const struct keyset *ks)
{
    for (size_t i = 0; i < ks->count; i++)
        if (ks->keys[i].alg == JWA_HS256)
            return true;
    return false;
}

size_t
keyset_count(const struct keyset *ks)
{
    return ks->count;
}

const struct key *
keyset_find(const struct keyset *ks, struct slice kid)
{
    if (!kid.ptr)
        return ks->count == 1 ? &ks->keys[0] : NULL;
    for (size_t i = 0; i < ks->count; i++)
        if (ks->keys[i].kid && slice_is(kid, ks->keys[i].kid))
            return &ks->keys[i];
    return NULL;
}

enum jwa
key_alg(const struct key *key)
{
    return key->alg;
}

struct evp_pkey_st *
key_public(const struct key *key)
{
    return key->pkey;
}

/* -- signatures -- */

static bool
verify_evp(const struct key *key, const EVP_MD *md, struct slice input, const unsigned char *sig,
           size_t sig_len)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good =
        ctx && EVP_DigestVerifyInit(ctx, NULL, md, NULL, key->pkey) == 1 &&
        EVP_DigestVerify(ctx, sig, sig_len, (const unsigned char *)input.ptr, input.len) == 1;
    EVP_MD_CTX_free(ctx);
    if (!good)
        ERR_clear_error(); /* else the next TLS call on this thread reports it as its own */
    return good;
}

/* JWS has r||s of fixed length (RFC 7518 section 3.4), OpenSSL wants DER. Its own range check
 * covers r and s. */
static bool
verify_ecdsa(const struct key *key, const EVP_MD *md, struct slice input, struct slice sig)
{
    size_t field = row_of(key->alg)->field;
    if (sig.len != 2 * field)
        return false;
    const unsigned char *bytes = (const unsigned char *)sig.ptr;
    ECDSA_SIG *pair = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(bytes, (int)field, NULL), *s = BN_bin2bn(bytes + field, (int)field, NULL);
    if (!pair || !r || !s || ECDSA_SIG_set0(pair, r, s) != 1) {
        ECDSA_SIG_free(pair);
        BN_free(r);
        BN_free(s);
        return false;
    }
    unsigned char der[2 * (EC_FIELD_MAX + 3) + 3],
        *end = der; /* two INTEGERs in a SEQUENCE of one or two length bytes */
    int der_len = i2d_ECDSA_SIG(pair, NULL);
    bool good = der_len > 0 && (size_t)der_len <= sizeof der &&
                i2d_ECDSA_SIG(pair, &end) == der_len &&
                verify_evp(key, md, input, der, (size_t)der_len);
    ECDSA_SIG_free(pair);
    return good;
}

static bool
verify_hmac(const struct key *key, struct slice input, struct slice sig)
{
    unsigned char mac[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    if (!HMAC(EVP_sha256(), key->secret, (int)key->secret_len, (const unsigned char *)input.ptr,
              input.len, mac, &len))
        return false;
    return sig.len == len && CRYPTO_memcmp(mac, sig.ptr, len) == 0;
}

bool
key_verify(const struct key *key, struct slice input, struct slice sig)
{
    switch (key->alg) {
    case JWA_ES256:
        return verify_ecdsa(key, EVP_sha256(), input, sig);
    case JWA_ES384:
        return verify_ecdsa(key, EVP_sha384(), input, sig);
    case JWA_RS256:
        return verify_evp(key, EVP_sha256(), input, (const unsigned char *)sig.ptr, sig.len);
    case JWA_EDDSA:
        return verify_evp(key, NULL, input, (const unsigned char *)sig.ptr, sig.len);
    case JWA_HS256:
        return verify_hmac(key, input, sig);
    case JWA_NONE:
        break;
    }
    return false;
}
