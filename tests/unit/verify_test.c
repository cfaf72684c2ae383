/* The verifier: what the cache may spare and what it may not. The tests named way_* are ways to get a token past this layer that
 * were thought of and tried. */
#include "unit/test.h"

#include "sallyport/auth/verify.h"
#include "unit/forge.h"

#define HEADER "{\"alg\":\"ES256\",\"kid\":\"k1\"}"
#define NOW 1000000
#define CLAIMS(sub, jti) "{\"sub\":\"" sub "\",\"jti\":\"" jti "\",\"iat\":1000000,\"exp\":1003600}"

static const struct token_rules rules = {.leeway_s = 30, .max_lifetime_s = 86400, .embedded = EMBEDDED_LIMITED};

static struct verifier *
verifier_with(const char *revoked, enum forge_key k)
{
    struct err err = {0};
    forge_open();
    struct revocations *list = revocations_parse(slice_str(revoked), "revoked.json", &err);
    struct verifier *v = verifier_new(&rules, forge.sets[k], list);
    revocations_unref(list); /* the verifier has its own reference */
    return v;
}

static struct addr
address(const char *text)
{
    struct addr a = {0};
    addr_parse(slice_str(text), &a);
    return a;
}

/* The reason; *hit says whether the signature came from the cache. */
static enum reason
ask(struct verifier *v, const char *token, const struct presentation *from, int64_t now, bool *hit)
{
    struct identity *id = NULL;
    bool cached = false;
    enum reason reason = verifier_check(v, slice_str(token), from, now, &id, &cached);
    CHECK((reason == REASON_OK) == (id != NULL));
    identity_unref(id);
    if (hit)
        *hit = cached;
    return reason;
}

static struct presentation anywhere; /* no listener name, no address, no certificate */

TEST(a_hit_spares_the_signature_and_nothing_else)
{
    struct verifier *v = verifier_with("[{\"jti\":\"out\",\"until\":2000000}]", FORGE_P256);
    char *token = forge_token(FORGE_P256, HEADER, CLAIMS("sb-1", "t-1"));
    bool hit;
    CHECK(ask(v, token, &anywhere, NOW, &hit) == REASON_OK && !hit);
    CHECK(ask(v, token, &anywhere, NOW + 3630, &hit) == REASON_OK && hit);
    CHECK(ask(v, token, &anywhere, NOW + 3631, &hit) == REASON_TOKEN_EXPIRED);
    CHECK(ask(v, token, &anywhere, NOW - 31, &hit) == REASON_TOKEN_NOT_YET_VALID); /* for a verifier whose clock was set back */
    free(token);
    token = forge_token(FORGE_P256, HEADER, CLAIMS("sb-1", "out"));
    for (int i = 0; i < 3; i++)
        CHECK(ask(v, token, &anywhere, NOW, &hit) == REASON_TOKEN_REVOKED && !hit);
    free(token);
    verifier_free(v);
}

TEST(an_identity_outlives_its_verifier)
{
    struct verifier *v = verifier_with("", FORGE_P256);
    char *token = forge_token(FORGE_P256, HEADER, CLAIMS("sb-1", "t-1"));
    struct identity *id = NULL;
    bool cached;
    CHECK(verifier_check(v, slice_str(token), &anywhere, NOW, &id, &cached) == REASON_OK);
    verifier_free(v);
    CHECK(id && strcmp(id->sub, "sb-1") == 0);
    identity_unref(id);
    free(token);
}

TEST(refusals_are_not_remembered)
{
    struct verifier *v = verifier_with("", FORGE_P256);
    char *token = forge_token(FORGE_P256_OTHER, HEADER, CLAIMS("sb-1", "t-1"));
    bool hit;
    for (int i = 0; i < 3; i++)
        CHECK(ask(v, token, &anywhere, NOW, &hit) == REASON_TOKEN_SIGNATURE && !hit);
    free(token);
    token = forge_token(FORGE_P256, HEADER, CLAIMS("sb-1", "t-1"));
    CHECK(ask(v, token, &anywhere, NOW - 1000, &hit) == REASON_TOKEN_NOT_YET_VALID && !hit);
    CHECK(ask(v, token, &anywhere, NOW, &hit) == REASON_OK && !hit); /* then is later than it was */
    CHECK(ask(v, token, &anywhere, NOW, &hit) == REASON_OK && hit);
    free(token);
    verifier_free(v);
}

TEST(bindings_hold_on_each_call)
{
    static const struct { const char *cnf; struct presentation good, bad[3]; } rows[] = {
        {"{\"listener\":\"main\"}", {.listener = "main"}, {{.listener = "side"}, {.listener = NULL}, {.listener = "main2"}}},
        {"{\"x5t#S256\":\"47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU\"}", {.certificate_x5t = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"},
         {{.listener = "main"}, {.certificate_x5t = "57DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"}, {.certificate_x5t = ""}}},
    };
    struct verifier *v = verifier_with("", FORGE_P256);
    for (size_t i = 0; i < 2; i++) {
        char *claims = mem_printf("{\"sub\":\"s\",\"iat\":1000000,\"exp\":1003600,\"cnf\":%s}", rows[i].cnf);
        char *token = forge_token(FORGE_P256, HEADER, claims);
        bool hit;
        CHECK(ask(v, token, &rows[i].bad[0], NOW, &hit) == REASON_TOKEN_BINDING && !hit);
        CHECK(ask(v, token, &rows[i].good, NOW, &hit) == REASON_OK);
        for (int j = 0; j < 3; j++)
            CHECK_THAT(ask(v, token, &rows[i].bad[j], NOW, &hit) == REASON_TOKEN_BINDING && hit, "row %zu, presentation %d", i, j);
        CHECK(ask(v, token, NULL, NOW, &hit) == REASON_TOKEN_BINDING);
        CHECK(ask(v, token, &rows[i].good, NOW, &hit) == REASON_OK && hit);
        free(claims);
        free(token);
    }
    verifier_free(v);
}

TEST(addresses_bind_by_prefix_and_family)
{
    static const struct { const char *prefix, *client; bool good; } rows[] = {
        {"10.0.0.0/8", "10.1.2.3", true}, {"10.0.0.0/8", "11.0.0.0", false}, {"10.0.0.7", "10.0.0.7", true}, {"10.0.0.7", "10.0.0.6", false},
        {"10.0.0.0/8", "", false}, {"10.0.0.0/8", "a00::1", false}, {"fd00::/8", "fd12::1", true}, {"fd00::/8", "fe12::1", false},
        {"0.0.0.0/0", "::1", false}, {"::/0", "10.0.0.1", false}, {"0.0.0.0/0", "", false},
    };
    struct verifier *v = verifier_with("", FORGE_P256);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *claims = mem_printf("{\"sub\":\"s\",\"iat\":1000000,\"exp\":1003600,\"cnf\":{\"address\":\"%s\"}}", rows[i].prefix);
        char *token = forge_token(FORGE_P256, HEADER, claims);
        struct presentation from = {.listener = "main", .client = address(rows[i].client)};
        CHECK_THAT((ask(v, token, &from, NOW, NULL) == REASON_OK) == rows[i].good, "%s from %s", rows[i].prefix, rows[i].client);
        free(claims);
        free(token);
    }
    verifier_free(v);
}

TEST(a_live_identity_is_rechecked)
{
    struct verifier *v = verifier_with("[{\"sub\":\"gone\"}]", FORGE_P256);
    struct identity *id = identity_new();
    id->sub = mem_strdup("sb-1");
    id->iat = NOW;
    id->exp = NOW + 100;
    CHECK(verifier_recheck(v, id, &anywhere, NOW) == REASON_OK);
    CHECK(verifier_recheck(v, id, NULL, NOW) == REASON_OK);
    CHECK(verifier_recheck(v, id, &anywhere, NOW + 131) == REASON_TOKEN_EXPIRED);
    free(id->sub);
    id->sub = mem_strdup("gone");
    CHECK(verifier_recheck(v, id, &anywhere, NOW) == REASON_TOKEN_REVOKED);
    identity_unref(id);
    verifier_free(v);
}

TEST(the_cache_forgets_the_least_recently_used)
{
    struct err err = {0};
    forge_open();
    struct keyset *oct = keyset_parse(slice_str(FORGE_OCT), "oct.json", true, &err); /* cheap to sign */
    struct revocations *none = revocations_parse(slice_str(""), "revoked.json", &err);
    struct verifier *v = verifier_new(&rules, oct, none);
    keyset_unref(oct);
    revocations_unref(none);
    char *first = NULL, *second = NULL;
    bool hit;
    for (int i = 0; i < VERIFIER_CACHE_MAX + 1; i++) {
        char *claims = mem_printf("{\"sub\":\"s\",\"iat\":1000000,\"exp\":1003600,\"n\":%d}", i);
        char *token = forge_hmac("{\"alg\":\"HS256\"}", claims, forge_secret, 32);
        if (i == VERIFIER_CACHE_MAX) /* the first was just used, so the second goes */
            CHECK(ask(v, first, &anywhere, NOW, &hit) == REASON_OK && hit);
        CHECK(ask(v, token, &anywhere, NOW, &hit) == REASON_OK && !hit);
        if (i == 0)
            first = steal(&token);
        if (i == 1)
            second = steal(&token);
        free(token);
        free(claims);
    }
    CHECK(ask(v, first, &anywhere, NOW, &hit) == REASON_OK && hit);
    CHECK(ask(v, second, &anywhere, NOW, &hit) == REASON_OK && !hit);
    free(first);
    free(second);
    verifier_free(v);
}

/* 1: a good token is in the cache; the same header and claims come with another signature. */
TEST(way_1_another_signature_over_a_cached_input)
{
    struct verifier *v = verifier_with("", FORGE_P256);
    char *token = forge_token(FORGE_P256, HEADER, CLAIMS("sb-1", "t-1"));
    bool hit;
    CHECK(ask(v, token, &anywhere, NOW, &hit) == REASON_OK);
    size_t input_len = (size_t)(strrchr(token, '.') - token);
    static const char *const others[] = {".AAAA", ".", "", "..", ".AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        char *forged = mem_printf("%.*s%s", (int)input_len, token, others[i]);
        enum reason got = ask(v, forged, &anywhere, NOW, &hit);
        CHECK_THAT((got == REASON_TOKEN_SIGNATURE || got == REASON_TOKEN_MALFORMED) && !hit, "%s: %s", others[i], reason_text(got));
        free(forged);
    }
    for (size_t i = input_len + 1; token[i]; i++) { /* each character of the signature */
        char was = token[i];
        token[i] = was == 'A' ? 'B' : 'A';
        CHECK_THAT(ask(v, token, &anywhere, NOW, &hit) != REASON_OK && !hit, "byte %zu", i);
        token[i] = was;
    }
    CHECK(ask(v, token, &anywhere, NOW, &hit) == REASON_OK && hit);
    free(token);
    verifier_free(v);
}

/* 2: ECDSA signatures have a twin (n - s). It verifies, so it must give the same identity and be revoked with it. */
TEST(way_2_the_twin_of_a_revoked_signature)
{
    struct verifier *v = verifier_with("[{\"jti\":\"t-1\"}]", FORGE_P256), *open = verifier_with("", FORGE_P256);
    static const char claims[] = CLAIMS("sb-1", "t-1");
    unsigned char sig[1024];
    char *input = forge_input(HEADER, strlen(HEADER), claims, strlen(claims));
    size_t len = forge_sign(FORGE_P256, input, sig, TWIST_NONE);
    char *token = forge_join(input, sig, len);
    BIGNUM *s = BN_bin2bn(sig + 32, 32, NULL), *n = NULL;
    BN_hex2bn(&n, forge_p256_n);
    BN_sub(s, n, s);
    BN_bn2binpad(s, sig + 32, 32);
    char *twin = forge_join(input, sig, len);
    bool hit;
    CHECK(strcmp(token, twin) != 0);
    CHECK(ask(open, token, &anywhere, NOW, &hit) == REASON_OK && !hit);
    CHECK(ask(open, twin, &anywhere, NOW, &hit) == REASON_OK && !hit); /* verified afresh */
    CHECK(ask(v, token, &anywhere, NOW, &hit) == REASON_TOKEN_REVOKED);
    CHECK(ask(v, twin, &anywhere, NOW, &hit) == REASON_TOKEN_REVOKED);
    BN_free(s);
    BN_free(n);
    free(input);
    free(token);
    free(twin);
    verifier_free(v);
    verifier_free(open);
}

/* 3: base64 that decodes to the same bytes, to be another token in the eyes of a cache or a revocation list. */
TEST(way_3_other_text_for_the_same_bytes)
{
    struct verifier *v = verifier_with("", FORGE_P256);
    char *token = forge_token(FORGE_P256, HEADER, CLAIMS("sb-1", "t-12")); /* no segment ends on a whole group of four */
    bool hit;
    CHECK(ask(v, token, &anywhere, NOW, &hit) == REASON_OK);
    char *dot = strchr(token, '.'), *dot2 = strrchr(token, '.');
    char *ends[] = {dot - 1, dot2 - 1, token + strlen(token) - 1};
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for (int i = 0; i < 3; i++) {
        char was = *ends[i];
        for (int j = 0; j < 64; j++) {
            *ends[i] = alphabet[j];
            if (alphabet[j] != was)
                CHECK_THAT(ask(v, token, &anywhere, NOW, &hit) != REASON_OK && !hit, "segment %d ends in %c", i, alphabet[j]);
        }
        *ends[i] = was;
    }
    CHECK(ask(v, token, &anywhere, NOW, &hit) == REASON_OK && hit);
    free(token);
    verifier_free(v);
}

/* 4: the public key as HMAC secret (the classic); in token_test over all keys, here through the verifier, cached or not. */
TEST(way_4_the_published_key_as_secret)
{
    struct verifier *v = verifier_with("", FORGE_RSA);
    char *good = forge_token(FORGE_RSA, "{\"alg\":\"RS256\",\"kid\":\"k1\"}", CLAIMS("sb-1", "t-1"));
    char *bad = forge_hmac("{\"alg\":\"HS256\",\"kid\":\"k1\"}", CLAIMS("sb-1", "t-1"), forge.pem[FORGE_RSA], strlen(forge.pem[FORGE_RSA]));
    struct err err = {0};
    CHECK(ask(v, good, &anywhere, NOW, NULL) == REASON_OK);
    CHECK(mint_second_opinion(bad, slice_str(forge.pem[FORGE_RSA]), &err) == 0); /* libjwt falls for it; the test is worth something */
    for (int i = 0; i < 2; i++)
        CHECK(ask(v, bad, &anywhere, NOW, NULL) == REASON_TOKEN_SIGNATURE);
    free(good);
    free(bad);
    verifier_free(v);
}

/* 5: a token whose sandbox has two names, one of them revoked. */
TEST(way_5_revoked_under_the_other_name)
{
    struct verifier *v = verifier_with("[{\"sub\":\"gone\"}]", FORGE_P256);
    static const struct { const char *claims; enum reason reason; } rows[] = {
        {"{\"container_id\":\"gone\",\"iat\":1000000,\"exp\":1003600}", REASON_TOKEN_REVOKED},
        {"{\"sub\":\"gone\",\"iat\":1000000,\"exp\":1003600}", REASON_TOKEN_REVOKED},
        {"{\"sub\":\"g\\u006fne\",\"iat\":1000000,\"exp\":1003600}", REASON_TOKEN_REVOKED},
        {"{\"sub\":\"fresh\",\"container_id\":\"gone\",\"iat\":1000000,\"exp\":1003600}", REASON_TOKEN_CLAIMS},
        {"{\"sub\":\"fresh\",\"jti\":\"gone\",\"iat\":1000000,\"exp\":1003600}", REASON_OK}, /* a jti is no sub */
        {"{\"sub\":\"GONE\",\"iat\":1000000,\"exp\":1003600}", REASON_OK},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *token = forge_token(FORGE_P256, HEADER, rows[i].claims);
        CHECK_THAT(ask(v, token, &anywhere, NOW, NULL) == rows[i].reason, "%s", rows[i].claims);
        free(token);
    }
    verifier_free(v);
}

/* 6: a token that was cached before its key was taken out of the set: the new snapshot has a new verifier. */
TEST(way_6_cached_before_the_key_was_retired)
{
    struct verifier *before = verifier_with("", FORGE_P256), *after = verifier_with("", FORGE_P256_OTHER);
    char *token = forge_token(FORGE_P256, HEADER, CLAIMS("sb-1", "t-1"));
    CHECK(ask(before, token, &anywhere, NOW, NULL) == REASON_OK);
    CHECK(ask(after, token, &anywhere, NOW, NULL) == REASON_TOKEN_SIGNATURE);
    free(token);
    verifier_free(before);
    verifier_free(after);
}

/* 7: a clock at the ends of its range, and a lifetime stretched by an iat that is yet to come. */
TEST(way_7_times_at_the_edge)
{
    struct verifier *v = verifier_with("", FORGE_P256);
    static const char *const claims[] = {
        "{\"sub\":\"s\",\"iat\":9007199254740000,\"exp\":9007199254740991}", /* lives in the year 285 million */
        "{\"sub\":\"s\",\"iat\":1000031,\"exp\":1080000}",
        "{\"sub\":\"s\",\"iat\":1000000,\"nbf\":1000031,\"exp\":1003600}",
    };
    for (size_t i = 0; i < sizeof claims / sizeof claims[0]; i++) {
        char *token = forge_token(FORGE_P256, HEADER, claims[i]);
        CHECK_THAT(ask(v, token, &anywhere, NOW, NULL) == REASON_TOKEN_NOT_YET_VALID, "%s", claims[i]);
        free(token);
    }
    char *token = forge_token(FORGE_P256, HEADER, CLAIMS("s", "t"));
    CHECK(ask(v, token, &anywhere, 0, NULL) == REASON_TOKEN_NOT_YET_VALID);
    CHECK(ask(v, token, &anywhere, INT64_MAX / 4, NULL) == REASON_TOKEN_EXPIRED);
    free(token);
    verifier_free(v);
}

/* 8: the dot moved, so that header and claims are other bytes with the same characters. */
TEST(way_8_the_dot_moved)
{
    struct verifier *v = verifier_with("", FORGE_P256);
    char *token = forge_token(FORGE_P256, HEADER, CLAIMS("sb-1", "t-1"));
    CHECK(ask(v, token, &anywhere, NOW, NULL) == REASON_OK);
    size_t dot = (size_t)(strchr(token, '.') - token), len = strlen(token);
    for (size_t at = 0; at < len; at++) {
        if (at == dot)
            continue;
        char *moved = mem_strdup(token);
        memmove(moved + dot, moved + dot + 1, len - dot); /* out … */
        memmove(moved + at + 1, moved + at, len - at);    /* … and in, NUL included */
        moved[at] = '.';
        bool hit;
        CHECK_THAT(ask(v, moved, &anywhere, NOW, &hit) != REASON_OK && !hit, "dot at %zu", at);
        free(moved);
    }
    free(token);
    verifier_free(v);
}

/* 9: a confirmation that we do not know, or two of which one holds. In token_test by claims; here: never treated as unbound. */
TEST(way_9_bindings_that_cannot_be_checked)
{
    struct verifier *v = verifier_with("", FORGE_P256);
    struct presentation from = {.listener = "main", .client = address("10.0.0.7")};
    static const char *const cnf[] = {"{}", "null", "{\"jkt\":\"x\"}", "{\"Listener\":\"main\"}", "{\"listener\":\"main\",\"address\":\"10.0.0.0/8\"}",
                                      "{\"listener\":\"main\",\"jkt\":\"x\"}", "[{\"listener\":\"main\"}]", "{\"address\":\"\"}"};
    for (size_t i = 0; i < sizeof cnf / sizeof cnf[0]; i++) {
        char *claims = mem_printf("{\"sub\":\"s\",\"iat\":1000000,\"exp\":1003600,\"cnf\":%s}", cnf[i]);
        char *token = forge_token(FORGE_P256, HEADER, claims);
        CHECK_THAT(ask(v, token, &from, NOW, NULL) == REASON_TOKEN_CLAIMS, "%s", cnf[i]);
        free(claims);
        free(token);
    }
    verifier_free(v);
}

/* 10: an issuer and an audience that the caller frees or changes after the verifier was made. */
TEST(way_10_rules_that_change_under_the_verifier)
{
    struct err err = {0};
    forge_open();
    char audience[] = "sallyport", issuer[] = "issuer.test";
    struct token_rules own = rules;
    own.audience = audience;
    own.issuer = issuer;
    struct revocations *none = revocations_parse(slice_str(""), "revoked.json", &err);
    struct verifier *v = verifier_new(&own, forge.sets[FORGE_P256], none);
    revocations_unref(none);
    memset(audience, 'x', strlen(audience));
    memset(issuer, 'x', strlen(issuer));
    own.max_lifetime_s = own.leeway_s = 1 << 30;
    static const struct { const char *claims; enum reason reason; } rows[] = {
        {"{\"sub\":\"s\",\"iat\":1000000,\"exp\":1003600,\"aud\":\"sallyport\",\"iss\":\"issuer.test\"}", REASON_OK},
        {"{\"sub\":\"s\",\"iat\":1000000,\"exp\":1003600,\"aud\":\"xxxxxxxxx\",\"iss\":\"issuer.test\"}", REASON_TOKEN_AUDIENCE},
        {"{\"sub\":\"s\",\"iat\":1000000,\"exp\":1003600,\"aud\":\"sallyport\",\"iss\":\"xxxxxxxxxxx\"}", REASON_TOKEN_ISSUER},
        {"{\"sub\":\"s\",\"iat\":1000000,\"exp\":1090000,\"aud\":\"sallyport\",\"iss\":\"issuer.test\"}", REASON_TOKEN_CLAIMS},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *token = forge_token(FORGE_P256, HEADER, rows[i].claims);
        CHECK_THAT(ask(v, token, &anywhere, NOW, NULL) == rows[i].reason, "row %zu", i);
        free(token);
    }
    verifier_free(v);
}

/* 11: the signature of a cached token under claims that differ in one character, in each place; also what follows the cached input
 * and what comes before it. */
TEST(way_11_a_cached_signature_under_other_claims)
{
    struct verifier *v = verifier_with("", FORGE_P256);
    char *token = forge_token(FORGE_P256, HEADER, CLAIMS("sb-1", "t-1"));
    bool hit;
    CHECK(ask(v, token, &anywhere, NOW, &hit) == REASON_OK);
    size_t input_len = (size_t)(strrchr(token, '.') - token);
    for (size_t i = 0; i < input_len; i++) {
        char was = token[i];
        token[i] = was == 'A' ? 'B' : 'A';
        CHECK_THAT(ask(v, token, &anywhere, NOW, &hit) != REASON_OK && !hit, "byte %zu", i);
        token[i] = was;
    }
    for (size_t i = 1; i < input_len; i++) {
        char *shorter = mem_printf("%.*s%s", (int)(input_len - i), token, token + input_len);
        CHECK_THAT(ask(v, shorter, &anywhere, NOW, &hit) != REASON_OK && !hit, "without the last %zu", i);
        CHECK_THAT(ask(v, token + i, &anywhere, NOW, &hit) != REASON_OK && !hit, "without the first %zu", i);
        free(shorter);
    }
    char *longer = mem_printf("%.*sAAAA%s", (int)input_len, token, token + input_len);
    CHECK(ask(v, longer, &anywhere, NOW, &hit) != REASON_OK && !hit);
    free(longer);
    CHECK(ask(v, token, &anywhere, NOW, &hit) == REASON_OK && hit);
    free(token);
    verifier_free(v);
}

TEST(the_forge_closes)
{
    forge_close();
}
