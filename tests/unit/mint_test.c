/* Keys and tokens of our own making: the gate takes them, libjwt takes them, and neither takes what was changed. */
#include "unit/test.h"

#include "sallyport/auth/mint.h"
#include "sallyport/auth/token.h"
#include "sallyport/base/mem.h"

#define CLAIMS "{\"sub\":\"sb-1\",\"iat\":1000000,\"exp\":1003600,\"x\":{\"a\":[1,2.5,\"\xc3\xa9\"]}}"

static const struct token_rules rules = {.leeway_s = 30, .max_lifetime_s = 86400};
static const enum jwa all[] = {JWA_ES256, JWA_ES384, JWA_RS256, JWA_EDDSA, JWA_HS256};
#define ALL (sizeof all / sizeof all[0])

TEST(each_algorithm_from_key_to_identity)
{
    for (size_t i = 0; i < ALL; i++) {
        struct err err = {0};
        char *key = NULL, *jwk = NULL, *jwks = NULL, *token = NULL, *pem = NULL;
        struct identity *id = NULL;
        CHECK_THAT(mint_key(all[i], "k1", &key, &jwk, &err) == 0, "%s", err.text);
        CHECK(!strstr(jwk, "\"d\"") && strstr(jwk, jwa_name(all[i])));
        CHECK_THAT(mint_jwks_add(NULL, jwk, &jwks, &err) == 0, "%s", err.text);
        CHECK_THAT(mint_token(slice_str(key), "k1", CLAIMS, &token, &err) == 0, "%s: %s", jwa_name(all[i]), err.text);
        struct keyset *ks = keyset_parse(slice_str(jwks), "keys.json", true, &err);
        CHECK_THAT(ks, "%s", err.text);
        CHECK_THAT(token_verify(&rules, ks, slice_str(token), &id, &err) == REASON_OK, "%s: %s", jwa_name(all[i]), err.text);
        if (all[i] == JWA_HS256) {
            CHECK(mint_public_pem(slice_str(jwks), "k1", &pem, &err) != 0);
        } else {
            CHECK_THAT(mint_public_pem(slice_str(jwks), "k1", &pem, &err) == 0, "%s", err.text);
            CHECK_THAT(mint_second_opinion(token, slice_str(pem), &err) == (all[i] == JWA_EDDSA ? -1 : 0), "%s: %s", jwa_name(all[i]), err.text);
            char *last = token + strlen(token) - 10;
            *last = *last == 'A' ? 'B' : 'A';
            CHECK(mint_second_opinion(token, slice_str(pem), &err) != 0);
        }
        identity_unref(id);
        keyset_unref(ks);
        free(key);
        free(jwk);
        free(jwks);
        free(token);
        free(pem);
    }
}

/* Leading zero bytes of r and s are where JWS signatures of other makers break. */
TEST(many_signatures_of_one_key)
{
    struct err err = {0};
    char *key = NULL, *jwk = NULL, *jwks = NULL;
    CHECK(mint_key(JWA_ES256, "k1", &key, &jwk, &err) == 0 && mint_jwks_add("", jwk, &jwks, &err) == 0);
    struct keyset *ks = keyset_parse(slice_str(jwks), "keys.json", false, &err);
    for (int i = 0; ks && i < 600; i++) { /* one in 128 has a short r or s */
        char *token = NULL;
        struct identity *id = NULL;
        CHECK(mint_token(slice_str(key), "k1", CLAIMS, &token, &err) == 0);
        CHECK_THAT(token_verify(&rules, ks, slice_str(token), &id, &err) == REASON_OK, "%s: %s", err.text, token);
        identity_unref(id);
        free(token);
    }
    keyset_unref(ks);
    free(key);
    free(jwk);
    free(jwks);
}

TEST(a_set_grows_and_refuses_what_it_has)
{
    struct err err = {0};
    char *key = NULL, *a = NULL, *b = NULL, *one = NULL, *two = NULL, *three = NULL;
    CHECK(mint_key(JWA_EDDSA, "a", &key, &a, &err) == 0);
    free(key);
    CHECK(mint_key(JWA_EDDSA, "b", &key, &b, &err) == 0);
    CHECK(mint_jwks_add("", a, &one, &err) == 0);
    CHECK(mint_jwks_add(one, b, &two, &err) == 0);
    CHECK(mint_jwks_add(two, a, &three, &err) != 0 && strstr(err.text, "same kid as keys[0]"));
    CHECK(mint_jwks_add("{", a, &three, &err) != 0);
    CHECK(mint_jwks_add("[]", a, &three, &err) != 0);
    CHECK(mint_jwks_add("{\"keys\":{}}", a, &three, &err) != 0);
    CHECK(mint_jwks_add("{\"keys\":[{\"kty\":\"oct\"}]}", a, &three, &err) != 0); /* would not load afterwards */
    CHECK(!three);
    free(key);
    free(a);
    free(b);
    free(one);
    free(two);
}

TEST(names_of_keys)
{
    struct err err = {0};
    char *key = NULL, *jwk = NULL;
    CHECK(mint_key(JWA_EDDSA, "", &key, &jwk, &err) != 0);
    CHECK(mint_key(JWA_EDDSA, "a\nb", &key, &jwk, &err) != 0);
    CHECK(mint_key(JWA_NONE, "a", &key, &jwk, &err) != 0);
    CHECK(!key && !jwk);
}

TEST(keys_and_claims_that_cannot_sign)
{
    struct err err = {0};
    char *key = NULL, *jwk = NULL, *token = NULL;
    CHECK(mint_key(JWA_ES256, "k1", &key, &jwk, &err) == 0);
    static const char *const claims[] = {"", "[]", "{", "1", "{\"a\":1,\"a\":2}", "{\"a\":\"\\u0000\"}"};
    for (size_t i = 0; i < sizeof claims / sizeof claims[0]; i++)
        CHECK_THAT(mint_token(slice_str(key), "k1", claims[i], &token, &err) != 0, "%s", claims[i]);
    static const char *const keys[] = {"", "x", "-----BEGIN PRIVATE KEY-----\nMFk=\n-----END PRIVATE KEY-----\n", "{}", "{\"kty\":\"EC\",\"k\":\"AA\"}",
                                       "{\"kty\":\"oct\",\"k\":\"c2VjcmV0\"}", "{\"kty\":\"oct\",\"k\":\"?\"}"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        CHECK_THAT(mint_token(slice_str(keys[i]), "k1", CLAIMS, &token, &err) != 0 && err.kind == ERR_INVALID, "%s", keys[i]);
    char *big = mem_alloc(20001);
    memset(big, 'A', 20000);
    big[20000] = 0;
    char *text = mem_printf("{\"x\":\"%s\"}", big);
    CHECK(mint_token(slice_str(key), "k1", text, &token, &err) != 0 && strstr(err.text, "16384"));
    CHECK(!token);
    CHECK(mint_second_opinion(text, slice_str(jwk), &err) != 0);
    CHECK(mint_second_opinion("a.b.c", slice_of("", 0), &err) != 0);
    free(big);
    free(text);
    free(key);
    free(jwk);
}
