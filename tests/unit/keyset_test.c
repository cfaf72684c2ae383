/* Key sets: what loads, what does not, and that the error says where. */
#include "unit/test.h"

#include "sallyport/auth/keyset.h"
#include "unit/forge.h"

static struct keyset *
parse(const char *text, bool allow_hmac, struct err *err)
{
    *err = (struct err){0};
    return keyset_parse(slice_str(text), "keys.json", allow_hmac, err);
}

#define EC_X "\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\""
#define EC_Y "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\""
#define EC_KEY "\"kty\":\"EC\",\"crv\":\"P-256\"," EC_X "," EC_Y /* RFC 7515 appendix A.3 */

static const char rsa_1024[] = "{\"keys\":[{\"kty\":\"RSA\",\"kid\":\"a\",\"e\":\"AQAB\",\"n\":\""
    "w7Zdfmece8iaB0kiTY8pCtiBtzbptJmP28nSWwtdjRu0f2GFpajvWE4VhfJAjEsOcwYzay7XGN0b-X84BfC8hmCTOj2b2eHT7NsZegFPKRUQzJ9"
    "wW8ipn_aDJWMGDuB1XyqT1E7DYqjUCEOD1b4FLpy_xPn6oV_TYOfQ9fZdbE8\"}]}";

TEST(refused_sets_say_where_and_what)
{
    static const struct { const char *text, *error; bool hmac; } rows[] = {
        {"", "is empty", false},
        {"{", "line 1", false},
        {"[]", "expected an object", false},
        {"{}", "no member \"keys\"", false},
        {"{\"keys\":{}}", "keys: expected an array", false},
        {"{\"keys\":[]}", "keys: has 0 keys", false},
        {"{\"keys\":[null]}", "keys[0]: expected a key", false},
        {"{\"keys\":[1]}", "keys[0]: expected an object", false},
        {"{\"keys\":[{}]}", "keys[0].kty: is required", false},
        {"{\"keys\":[],\"keys\":[]}", "duplicate", false},
        {"{" EC_KEY "}", "no member \"keys\"", false},
        {"-----BEGIN PUBLIC KEY-----\nMFk=\n-----END PUBLIC KEY-----\n", "is a public key (PEM), expected a JWKS", false},
        {"-----BEGIN CERTIFICATE-----\nMFk=\n-----END CERTIFICATE-----\n", "is a certificate (PEM), expected a JWKS", false},
        {"-----BEGIN EC PRIVATE KEY-----\nMFk=\n-----END EC PRIVATE KEY-----\n", "is a private key (PEM), expected a JWKS", false},
        {"{\"keys\":[{\"kty\":\"dsa\"}]}", "keys[0].kty: unknown key type", false},
        {"{\"keys\":[{\"kty\":\"ec\"}]}", "keys[0].kty: unknown key type", false},
        {"{\"keys\":[{\"kty\":\"EC\"}]}", "keys[0].crv: is required", false},
        {"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-521\"}]}", "keys[0].crv: unknown curve", false},
        {"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"secp256k1\"," EC_X "," EC_Y "}]}", "keys[0].crv: unknown curve", false},
        {"{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"X25519\",\"x\":\"AA\"}]}", "keys[0].crv: unknown curve", false},
        {"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\"," EC_X "}]}", "keys[0].y: is required", false},
        {"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\"," EC_X ",\"y\":\"AAAA\"}]}", "keys[0].y: has 3 bytes, expected 32", false},
        {"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\"," EC_X ",\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a1\"}]}",
         "keys[0].y: expected base64url", false}, /* the last two bits are not zero */
        {"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\"," EC_X ",\"y\":\"y_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}]}",
         "keys[0]: x and y are not a point of P-256", false},
        {"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-384\"," EC_X "," EC_Y "}]}", "keys[0].x: has 32 bytes, expected 48", false},
        {"{\"keys\":[{" EC_KEY ",\"alg\":\"ES384\"}]}", "keys[0].alg: \"ES384\" does not fit this key, expected \"ES256\"", false},
        {"{\"keys\":[{" EC_KEY ",\"alg\":\"any\"}]}", "keys[0].alg: \"any\" does not fit", false},
        {"{\"keys\":[{" EC_KEY ",\"alg\":\"\"}]}", "keys[0].alg: \"\" does not fit", false},
        {"{\"keys\":[{" EC_KEY ",\"alg\":[\"ES256\"]}]}", "keys[0].alg: expected a string", false},
        {"{\"keys\":[{" EC_KEY ",\"d\":\"AA\"}]}", "keys[0].d: is part of a private key", false},
        {"{\"keys\":[{" EC_KEY ",\"d\":null}]}", "keys[0].d: is part of a private key", false},
        {"{\"keys\":[{" EC_KEY ",\"use\":\"enc\"}]}", "keys[0].use: expected \"sig\"", false},
        {"{\"keys\":[{" EC_KEY ",\"key_ops\":[\"sign\"]}]}", "keys[0].key_ops: expected \"verify\"", false},
        {"{\"keys\":[{" EC_KEY ",\"key_ops\":\"verify\"}]}", "keys[0].key_ops: expected an array", false},
        {"{\"keys\":[{" EC_KEY ",\"kid\":\"\"}]}", "keys[0].kid: has 0 bytes", false},
        {"{\"keys\":[{" EC_KEY ",\"kid\":7}]}", "keys[0].kid: expected a string", false},
        {"{\"keys\":[{" EC_KEY ",\"kid\":\"a\"},{" EC_KEY ",\"kid\":\"a\"}]}", "keys[1]: has the same kid as keys[0]", false},
        {"{\"keys\":[{" EC_KEY ",\"kid\":\"a\"},{" EC_KEY "}]}", "keys[1]: has no kid", false},
        {"{\"keys\":[{" EC_KEY "},{" EC_KEY ",\"kid\":\"a\"}]}", "keys[0]: has no kid", false},
        {rsa_1024, "keys[0].n: has 1024 bits, expected at least 2048", false},
        {"{\"keys\":[{\"kty\":\"RSA\",\"e\":\"AQAB\",\"n\":\"AAE\"}]}", "keys[0].n: has a leading zero", false},
        {"{\"keys\":[{\"kty\":\"oct\",\"k\":\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"}]}", "auth.allow_hmac", false},
        {"{\"keys\":[{\"kty\":\"oct\",\"k\":\"c2VjcmV0\"}]}", "keys[0].k: has 6 bytes, expected 32", true},
        {"{\"keys\":[{\"kty\":\"oct\",\"k\":\"\"}]}", "keys[0].k: expected base64url", true},
        {"{\"keys\":[{\"kty\":\"oct\"}]}", "keys[0].k: is required", true},
        {"{\"keys\":[{\"kty\":\"oct\",\"alg\":\"RS256\",\"k\":\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"}]}", "keys[0].alg", true},
        {"{\"a\":[[[[[[[[[[]]]]]]]]]]}", "nested", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct err err;
        struct keyset *ks = parse(rows[i].text, rows[i].hmac, &err);
        CHECK_THAT(!ks, "row %zu (%s) loads", i, rows[i].error);
        CHECK_THAT(strstr(err.text, rows[i].error), "row %zu: \"%s\" is not in \"%s\"", i, rows[i].error, err.text);
        CHECK_THAT(strncmp(err.text, "keys.json: ", 11) == 0, "row %zu: no file in \"%s\"", i, err.text);
        CHECK(err.kind == ERR_INVALID);
        keyset_unref(ks);
    }
}

/* 2048 bits, but no product of two large primes: whoever can factor it signs. */
TEST(an_even_modulus_is_no_rsa_key)
{
    unsigned char n[256];
    struct err err;
    memset(n, 0xff, sizeof n);
    n[255] = 0xfe;
    char *text = forge_b64(n, sizeof n);
    char *jwks = mem_printf("{\"keys\":[{\"kty\":\"RSA\",\"n\":\"%s\",\"e\":\"AQAB\"}]}", text);
    struct keyset *ks = parse(jwks, false, &err);
    CHECK_THAT(!ks && strstr(err.text, "keys[0]: n and e are not an RSA key"), "%s", err.text);
    keyset_unref(ks);
    free(text);
    free(jwks);
}

TEST(a_key_without_optional_members_loads)
{
    struct err err;
    struct keyset *ks = parse("{\"keys\":[{" EC_KEY ",\"x5t\":\"?\",\"ext\":true}],\"more\":1}", false, &err);
    CHECK_THAT(ks, "%s", err.text);
    if (!ks)
        return;
    CHECK(keyset_count(ks) == 1);
    const struct key *key = keyset_find(ks, slice_of(NULL, 0));
    CHECK(key && key_alg(key) == JWA_ES256);
    CHECK(!keyset_find(ks, slice_str("")));  /* an empty kid is not an absent one */
    CHECK(!keyset_find(ks, slice_str("k1")));
    keyset_unref(ks);
}

TEST(a_kid_selects_and_only_exactly)
{
    forge_open();
    struct err err;
    char *other = strdup(forge.jwk[FORGE_RSA]);
    memcpy(strstr(other, "\"k1\""), "\"k2\"", 4);
    char *text = mem_printf("{\"keys\":[%s,%s]}", forge.jwk[FORGE_P256], other);
    struct keyset *ks = parse(text, false, &err);
    CHECK_THAT(ks, "%s", err.text);
    if (ks) {
        CHECK(key_alg(keyset_find(ks, slice_str("k1"))) == JWA_ES256);
        CHECK(key_alg(keyset_find(ks, slice_str("k2"))) == JWA_RS256);
        CHECK(!keyset_find(ks, slice_of(NULL, 0)));
        CHECK(!keyset_find(ks, slice_str("K1")));
        CHECK(!keyset_find(ks, slice_str("k")));
        CHECK(!keyset_find(ks, slice_of("k1\0x", 4)));
        CHECK(!keyset_has_hmac(ks));
    }
    keyset_unref(ks);
    free(text);
    free(other);
}

TEST(at_most_64_keys)
{
    forge_open();
    for (int count = KEYSET_MAX_KEYS; count <= KEYSET_MAX_KEYS + 1; count++) {
        struct err err;
        char *text = strdup("{\"keys\":[");
        for (int i = 0; i < count; i++) {
            char *more = mem_printf("%s%s{" EC_KEY ",\"kid\":\"k%d\"}", text, i ? "," : "", i);
            free(text);
            text = more;
        }
        char *whole = mem_printf("%s]}", text);
        struct keyset *ks = parse(whole, false, &err);
        CHECK_THAT(!!ks == (count <= KEYSET_MAX_KEYS), "%d keys: %s", count, err.text);
        keyset_unref(ks);
        free(text);
        free(whole);
    }
}

/* Every cut of a good set is refused, and none crashes. */
TEST(every_prefix_is_refused)
{
    forge_open();
    char *text = mem_printf("{\"keys\":[%s]}", forge.jwk[FORGE_P256]);
    for (size_t len = 0; len < strlen(text); len++) {
        struct err err = {0};
        struct keyset *ks = keyset_parse(slice_of(text, len), "keys.json", true, &err);
        CHECK_THAT(!ks, "%zu bytes load", len);
        keyset_unref(ks);
    }
    free(text);
}

TEST(every_algorithm_verifies_its_own_signature_alone)
{
    forge_open();
    static const enum forge_key honest[] = {FORGE_P256, FORGE_P384, FORGE_RSA, FORGE_ED};
    unsigned char sig[1024];
    for (size_t i = 0; i < sizeof honest / sizeof honest[0]; i++) {
        size_t len = forge_sign(honest[i], "a.b", sig, TWIST_NONE);
        for (size_t j = 0; j < sizeof honest / sizeof honest[0]; j++) {
            const struct key *key = keyset_find(forge.sets[honest[j]], slice_str("k1"));
            CHECK_THAT(key_verify(key, slice_str("a.b"), slice_of(sig, len)) == (i == j), "%zu by %zu", i, j);
            CHECK(!key_verify(key, slice_str("a.c"), slice_of(sig, len)));
            CHECK(!key_verify(key, slice_str("a.b"), slice_of("", 0)));
        }
        for (size_t cut = 0; cut < len; cut++)
            CHECK_THAT(!key_verify(keyset_find(forge.sets[honest[i]], slice_str("k1")), slice_str("a.b"), slice_of(sig, cut)),
                       "key %zu takes %zu bytes", i, cut);
    }
    struct err err;
    struct keyset *ks = parse(FORGE_OCT, true, &err);
    CHECK(ks && keyset_has_hmac(ks));
    unsigned mac_len;
    HMAC(EVP_sha256(), forge_secret, 32, (const unsigned char *)"a.b", 3, sig, &mac_len);
    const struct key *key = keyset_find(ks, slice_str("k1"));
    CHECK(key_verify(key, slice_str("a.b"), slice_of(sig, 32)));
    for (size_t cut = 0; cut < 32; cut++)
        CHECK(!key_verify(key, slice_str("a.b"), slice_of(sig, cut)));
    sig[31] ^= 1;
    CHECK(!key_verify(key, slice_str("a.b"), slice_of(sig, 32)));
    keyset_unref(ks);
}

TEST(names_of_algorithms_are_exact)
{
    CHECK(jwa_from_name(slice_str("ES256")) == JWA_ES256);
    CHECK(jwa_from_name(slice_str("EdDSA")) == JWA_EDDSA);
    static const char *const none[] = {"", "none", "None", "es256", "ES256 ", "ES256K", "ES512", "PS256", "HS384", "EDDSA", "any"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        CHECK_THAT(jwa_from_name(slice_str(none[i])) == JWA_NONE, "%s", none[i]);
    CHECK(jwa_from_name(slice_of("ES256\0", 6)) == JWA_NONE);
    CHECK_STR(jwa_name(JWA_NONE), "none");
    CHECK_STR(jwa_name(JWA_RS256), "RS256");
}

TEST(the_forge_closes)
{
    forge_close();
}
