/* Tokens: what is refused and by which reason, and that libjwt accepts whatever we accept. */
#include "unit/test.h"

#include "sallyport/auth/claims.h"
#include "sallyport/auth/credential.h"
#include "unit/forge.h"

#define HEADER "{\"alg\":\"ES256\",\"kid\":\"k1\",\"typ\":\"JWT\"}"
#define TIMES "\"iat\":1000000,\"exp\":1003600"
#define CLAIMS "{\"sub\":\"sb-1\",\"jti\":\"t-1\"," TIMES "}"

static struct token_rules rules = {.leeway_s = 30, .max_lifetime_s = 86400, .embedded = EMBEDDED_LIMITED};

/* Verifies, and holds an accepted token against libjwt. */
static enum reason
judge(enum forge_key k, const char *token, size_t len, struct identity **ret)
{
    struct err err = {0};
    struct identity *id = NULL;
    enum reason reason = token_verify(&rules, forge.sets[k], slice_of(token, len), &id, &err);
    CHECK((reason == REASON_OK) == (id != NULL));
    CHECK_THAT((reason == REASON_OK) == (err.text[0] == 0), "%s: %s", reason_text(reason), err.text);
    for (const char *p = err.text; *p; p++)
        CHECK_THAT(*p >= 0x20 && *p <= 0x7e, "an error holds the byte %d", *p);
    if (reason == REASON_OK && k != FORGE_ED)
        CHECK_THAT(mint_second_opinion(token, slice_str(forge.pem[k]), &err) == 0, "libjwt refuses what we accept: %s", token);
    if (ret)
        *ret = id;
    else
        identity_unref(id);
    return reason;
}

static enum reason
judge_str(enum forge_key k, char *token)
{
    enum reason reason = judge(k, token, strlen(token), NULL);
    free(token);
    return reason;
}

#define CHECK_REASON(got, wanted)                                                                  \
    do {                                                                                           \
        enum reason got_ = (got);                                                                  \
        CHECK_THAT(got_ == (wanted), "%s, expected %s", reason_text(got_), reason_text(wanted));   \
    } while (0)

TEST(every_algorithm_is_accepted)
{
    forge_open();
    CHECK_REASON(judge_str(FORGE_P256, forge_token(FORGE_P256, HEADER, CLAIMS)), REASON_OK);
    CHECK_REASON(judge_str(FORGE_P384, forge_token(FORGE_P384, "{\"alg\":\"ES384\",\"kid\":\"k1\"}", CLAIMS)), REASON_OK);
    CHECK_REASON(judge_str(FORGE_RSA, forge_token(FORGE_RSA, "{\"alg\":\"RS256\"}", CLAIMS)), REASON_OK);
    CHECK_REASON(judge_str(FORGE_ED, forge_token(FORGE_ED, "{\"alg\":\"EdDSA\",\"typ\":\"JWT\"}", CLAIMS)), REASON_OK);
    struct err err = {0};
    struct keyset *oct = keyset_parse(slice_str(FORGE_OCT), "oct.json", true, &err);
    char *token = forge_hmac("{\"alg\":\"HS256\",\"kid\":\"k1\"}", CLAIMS, forge_secret, 32);
    struct identity *id = NULL;
    CHECK_REASON(token_verify(&rules, oct, slice_str(token), &id, NULL), REASON_OK);
    CHECK(mint_second_opinion(token, slice_of(forge_secret, 32), &err) == 0);
    identity_unref(id);
    keyset_unref(oct);
    free(token);
}

TEST(claims_become_an_identity)
{
    forge_open();
    char *token = forge_token(FORGE_P256, HEADER,
        "{\"sub\":\"sb-1\",\"jti\":\"t-1\",\"iat\":1000000,\"nbf\":1000001,\"exp\":1003600,\"session_id\":\"s\",\"org\":\"o\",\"user\":\"u\","
        "\"policy\":\"code-review\",\"policy_sha256\":\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\","
        "\"vault_ids\":[\"v1\",\"v2\"],\"cnf\":{\"address\":\"10.0.0.0/8\"},\"x\":{\"a\":[1,2,3]}}");
    struct identity *id = NULL;
    CHECK_REASON(judge(FORGE_P256, token, strlen(token), &id), REASON_OK);
    if (id) {
        struct slice input, sig;
        CHECK_STR(id->sub, "sb-1");
        CHECK_STR(id->jti, "t-1");
        CHECK_STR(id->session, "s");
        CHECK_STR(id->org, "o");
        CHECK_STR(id->user, "u");
        CHECK_STR(id->policy_name, "code-review");
        CHECK(strlen(id->policy_sha256) == 64);
        CHECK(id->iat == 1000000 && id->nbf == 1000001 && id->exp == 1003600);
        CHECK_STR(id->vault_ids[0], "v1");
        CHECK_STR(id->vault_ids[1], "v2");
        CHECK(!id->vault_ids[2] && !id->embedded_policy);
        CHECK(id->binding == BINDING_ADDRESS && id->binding_address.bits == 8);
        CHECK(token_split(slice_str(token), &input, &sig) && input.ptr == token && sig.len == 86);
        CHECK(input.len + 1 + sig.len == strlen(token) && token[input.len] == '.');
    }
    identity_unref(id);
    free(token);
}

TEST(headers)
{
    forge_open();
    static const struct { const char *text; enum reason reason; } rows[] = {
        {"{ \"kid\":\"k1\",\n \"typ\":\"JWT\", \"alg\":\"ES256\" }", REASON_OK},
        {"{\"alg\":\"ES256\"}", REASON_OK},
        {"{\"\\u0061lg\":\"ES256\"}", REASON_OK},
        {"{\"alg\":\"none\"}", REASON_TOKEN_SIGNATURE},
        {"{\"alg\":\"None\"}", REASON_TOKEN_SIGNATURE},
        {"{\"alg\":\"\"}", REASON_TOKEN_SIGNATURE},
        {"{\"alg\":\"es256\"}", REASON_TOKEN_SIGNATURE},
        {"{\"alg\":\"ES256 \"}", REASON_TOKEN_SIGNATURE},
        {"{\"alg\":\"ES256K\"}", REASON_TOKEN_SIGNATURE},
        {"{\"alg\":\"ES384\"}", REASON_TOKEN_SIGNATURE},
        {"{\"alg\":\"HS256\"}", REASON_TOKEN_SIGNATURE},
        {"{\"alg\":\"RS256\"}", REASON_TOKEN_SIGNATURE},
        {"{\"alg\":\"ES256\\u0000\"}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":1}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":true}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":null}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":[\"ES256\"]}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":{\"a\":1}}", REASON_TOKEN_MALFORMED},
        {"{\"kid\":\"k1\",\"typ\":\"JWT\"}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"ES256\",\"alg\":\"none\"}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"none\",\"\\u0061lg\":\"ES256\"}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"ES256\",\"kid\":\"x\",\"kid\":\"k1\"}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"ES256\",\"kid\":\"unknown\"}", REASON_TOKEN_SIGNATURE},
        {"{\"alg\":\"ES256\",\"kid\":\"../../dev/null\"}", REASON_TOKEN_SIGNATURE},
        {"{\"alg\":\"ES256\",\"kid\":\"k1\\u0000x\"}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"ES256\",\"kid\":\"\"}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"ES256\",\"kid\":null}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"ES256\",\"kid\":1}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"ES256\",\"kid\":[\"k1\"]}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"ES256\",\"typ\":\"at+jwt\"}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"ES256\",\"typ\":\"jwt\"}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"ES256\",\"typ\":5}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"ES256\",\"typ\":null}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"ES256\",\"crit\":[\"exp\"]}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"ES256\",\"crit\":[]}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"ES256\",\"crit\":[\"b64\"],\"b64\":false}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"ES256\",\"jku\":\"https://keys.example.com/jwks.json\"}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"ES256\",\"x5u\":\"https://keys.example.com/c.pem\"}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"ES256\",\"jwk\":{\"kty\":\"EC\"}}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"ES256\",\"zip\":\"DEF\"}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"ES256\",\"enc\":\"A128GCM\"}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"ES256\",\"Alg\":\"none\"}", REASON_TOKEN_MALFORMED},
        {"[\"ES256\"]", REASON_TOKEN_MALFORMED},
        {"\"ES256\"", REASON_TOKEN_MALFORMED},
        {"1", REASON_TOKEN_MALFORMED},
        {"{}", REASON_TOKEN_MALFORMED},
        {"{", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"ES256\"}x", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"ES256\"}{}", REASON_TOKEN_MALFORMED},
        {"\xef\xbb\xbf{\"alg\":\"ES256\"}", REASON_TOKEN_MALFORMED},
        {"{\"alg\":\"ES256\xff\"}", REASON_TOKEN_MALFORMED},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        enum reason got = judge_str(FORGE_P256, forge_token(FORGE_P256, rows[i].text, CLAIMS));
        CHECK_THAT(got == rows[i].reason, "%s: %s, expected %s", rows[i].text, reason_text(got), reason_text(rows[i].reason));
    }
    CHECK_REASON(judge_str(FORGE_P256, forge_bytes(FORGE_P256, "{\"alg\":\"ES256\"}\0", 16, CLAIMS, strlen(CLAIMS), TWIST_NONE)),
                 REASON_TOKEN_MALFORMED);
}

/* A key can say "verify me by another algorithm" only through alg; these sign with what the gate publishes. */
TEST(algorithm_confusion)
{
    forge_open();
    struct err err = {0};
    static const char header[] = "{\"alg\":\"HS256\",\"kid\":\"k1\",\"typ\":\"JWT\"}";
    CHECK_REASON(judge_str(FORGE_RSA, forge_hmac(header, CLAIMS, forge.pem[FORGE_RSA], strlen(forge.pem[FORGE_RSA]))), REASON_TOKEN_SIGNATURE);
    CHECK_REASON(judge_str(FORGE_P256, forge_hmac(header, CLAIMS, forge.pem[FORGE_P256], strlen(forge.pem[FORGE_P256]))), REASON_TOKEN_SIGNATURE);
    CHECK_REASON(judge_str(FORGE_RSA, forge_hmac(header, CLAIMS, "", 0)), REASON_TOKEN_SIGNATURE);
    CHECK_REASON(judge_str(FORGE_RSA, forge_hmac("{\"alg\":\"RS256\"}", CLAIMS, forge.pem[FORGE_RSA], strlen(forge.pem[FORGE_RSA]))), REASON_TOKEN_SIGNATURE);
    CHECK_REASON(judge_str(FORGE_P256, forge_token(FORGE_P256_OTHER, HEADER, CLAIMS)), REASON_TOKEN_SIGNATURE);
    CHECK_REASON(judge_str(FORGE_RSA, forge_token(FORGE_RSA_OTHER, "{\"alg\":\"RS256\"}", CLAIMS)), REASON_TOKEN_SIGNATURE);
    CHECK_REASON(judge_str(FORGE_P256, forge_token(FORGE_ED, HEADER, CLAIMS)), REASON_TOKEN_SIGNATURE);
    CHECK_REASON(judge_str(FORGE_P256, forge_token(FORGE_RSA, HEADER, CLAIMS)), REASON_TOKEN_SIGNATURE);
    CHECK_REASON(judge_str(FORGE_P256, forge_token(FORGE_P384, HEADER, CLAIMS)), REASON_TOKEN_SIGNATURE);

    /* A set with a secret beside public keys: neither signs for the other. */
    char *text = mem_printf("{\"keys\":[%s,{\"kty\":\"oct\",\"kid\":\"h\",\"k\":\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"}]}", forge.jwk[FORGE_RSA]);
    struct keyset *both = keyset_parse(slice_str(text), "both.json", true, &err);
    struct identity *id = NULL;
    static const struct { const char *header; bool good; } rows[] = {
        {"{\"alg\":\"HS256\",\"kid\":\"h\"}", true},
        {"{\"alg\":\"HS256\",\"kid\":\"k1\"}", false},
        {"{\"alg\":\"RS256\",\"kid\":\"h\"}", false},
        {"{\"alg\":\"RS256\",\"kid\":\"k1\"}", false},
        {"{\"alg\":\"HS256\"}", false}, /* no kid, two keys */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *token = forge_hmac(rows[i].header, CLAIMS, forge_secret, 32);
        CHECK_REASON(token_verify(&rules, both, slice_str(token), &id, NULL), rows[i].good ? REASON_OK : REASON_TOKEN_SIGNATURE);
        free(token);
    }
    identity_unref(id);
    keyset_unref(both);
    free(text);
}

TEST(signatures)
{
    forge_open();
    static const struct { enum forge_twist twist; enum reason reason; } rows[] = {
        {TWIST_NONE, REASON_OK}, {TWIST_FLIP_S, REASON_OK}, /* the identity is the same: see verify_test */
        {TWIST_DER, REASON_TOKEN_SIGNATURE}, {TWIST_R_ZERO, REASON_TOKEN_SIGNATURE}, {TWIST_S_ZERO, REASON_TOKEN_SIGNATURE},
        {TWIST_BOTH_ZERO, REASON_TOKEN_SIGNATURE}, {TWIST_R_IS_N, REASON_TOKEN_SIGNATURE}, {TWIST_SHORT, REASON_TOKEN_SIGNATURE},
        {TWIST_LONG, REASON_TOKEN_SIGNATURE}, {TWIST_BIT, REASON_TOKEN_SIGNATURE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *token = forge_bytes(FORGE_P256, HEADER, strlen(HEADER), CLAIMS, strlen(CLAIMS), rows[i].twist);
        CHECK_REASON(judge_str(FORGE_P256, token), rows[i].reason);
    }
    static const char rs[] = "{\"alg\":\"RS256\"}";
    CHECK_REASON(judge_str(FORGE_RSA, forge_bytes(FORGE_RSA, rs, strlen(rs), CLAIMS, strlen(CLAIMS), TWIST_SHORT)), REASON_TOKEN_SIGNATURE);
    CHECK_REASON(judge_str(FORGE_RSA, forge_bytes(FORGE_RSA, rs, strlen(rs), CLAIMS, strlen(CLAIMS), TWIST_LONG)), REASON_TOKEN_SIGNATURE);
    static const char ed[] = "{\"alg\":\"EdDSA\"}";
    CHECK_REASON(judge_str(FORGE_ED, forge_bytes(FORGE_ED, ed, strlen(ed), CLAIMS, strlen(CLAIMS), TWIST_LONG)), REASON_TOKEN_SIGNATURE);
    CHECK_REASON(judge_str(FORGE_ED, forge_bytes(FORGE_ED, ed, strlen(ed), CLAIMS, strlen(CLAIMS), TWIST_BIT)), REASON_TOKEN_SIGNATURE);
}

/* One token, every cut of it and every single byte replaced: only the whole is good. */
TEST(every_cut_and_every_changed_byte_is_refused)
{
    forge_open();
    char *token = forge_token(FORGE_P256, HEADER, CLAIMS);
    size_t len = strlen(token);
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    static const char bytes[] = {0, ' ', '\n', '\t', '=', '.', '+', '/', '%', (char)0xff};
    for (size_t cut = 0; cut < len; cut++)
        CHECK_THAT(judge(FORGE_P256, token, cut, NULL) != REASON_OK, "%zu bytes pass", cut);
    for (size_t i = 0; i < len; i++) {
        char was = token[i];
        const char *at = memchr(alphabet, was, 64);
        for (size_t j = 0; j < sizeof bytes; j++) {
            token[i] = bytes[j];
            if (bytes[j] != was)
                CHECK_THAT(judge(FORGE_P256, token, len, NULL) != REASON_OK, "byte %zu as %d passes", i, bytes[j]);
        }
        if (at) { /* the neighbour in the alphabet: what non-canonical ends differ in */
            token[i] = alphabet[(at - alphabet) ^ 1];
            CHECK_THAT(judge(FORGE_P256, token, len, NULL) != REASON_OK, "byte %zu as its neighbour passes", i);
        }
        token[i] = was;
    }
    CHECK_REASON(judge(FORGE_P256, token, len, NULL), REASON_OK);
    free(token);
}

TEST(forms)
{
    forge_open();
    char *good = forge_token(FORGE_P256, HEADER, CLAIMS);
    static const struct { const char *before, *after; } around[] = {
        {"", "="}, {"", "=="}, {"", "."}, {"", ".AAAA"}, {"", ".eyJ.x"}, {"", "\n"}, {" ", ""}, {"jwt_", ""}, {"jwt_jwt_", ""},
        {"\xef\xbb\xbf", ""}, {".", ""}, {"", "AAAA"}, {"", " "}, {"Bearer ", ""},
    };
    for (size_t i = 0; i < sizeof around / sizeof around[0]; i++) {
        enum reason got = judge_str(FORGE_P256, mem_printf("%s%s%s", around[i].before, good, around[i].after));
        CHECK_THAT(got == REASON_TOKEN_MALFORMED || got == REASON_TOKEN_SIGNATURE, "row %zu: %s", i, reason_text(got));
    }
    static const char *const not_tokens[] = {"", ".", "..", "...", "a", "a.b", "a.b.c", "a.b.c.d.e", "e30.e30.AAAA", "e30..AAAA", ".e30.AAAA", "e30.e30."};
    for (size_t i = 0; i < sizeof not_tokens / sizeof not_tokens[0]; i++)
        CHECK_THAT(judge_str(FORGE_P256, strdup(not_tokens[i])) == REASON_TOKEN_MALFORMED, "%s", not_tokens[i]);
    /* The signature dropped, and alg none to go with it. */
    char *dot = strrchr(good, '.');
    dot[1] = 0;
    CHECK_REASON(judge_str(FORGE_P256, good), REASON_TOKEN_MALFORMED);
}

TEST(sizes)
{
    forge_open();
    for (size_t pad = 11900; pad < 12300; pad += 40) {
        char *text = mem_alloc(pad + 200);
        memset(text, 'A', pad + 200);
        char *claims = mem_printf("{\"sub\":\"s\"," TIMES ",\"x\":\"%.*s\"}", (int)pad, text);
        char *token = forge_token(FORGE_P256, HEADER, claims);
        enum reason wanted = strlen(token) <= TOKEN_MAX ? REASON_OK : REASON_TOKEN_MALFORMED;
        CHECK_REASON(judge_str(FORGE_P256, token), wanted);
        free(claims);
        free(text);
    }
    char *huge = mem_alloc(9000001);
    memset(huge, 'A', 9000000);
    huge[9000000] = 0;
    CHECK_REASON(judge(FORGE_P256, huge, 9000000, NULL), REASON_TOKEN_MALFORMED);
    memset(huge, '.', 9000000);
    CHECK_REASON(judge(FORGE_P256, huge, 9000000, NULL), REASON_TOKEN_MALFORMED);
    free(huge);
}

/* Claims behind a good signature. */
static void
check_claims(const char *const *texts, size_t count, enum reason wanted)
{
    for (size_t i = 0; i < count; i++) {
        enum reason got = judge_str(FORGE_P256, forge_token(FORGE_P256, HEADER, texts[i]));
        CHECK_THAT(got == wanted, "%s: %s, expected %s", texts[i], reason_text(got), reason_text(wanted));
    }
}
#define CHECK_CLAIMS(wanted, ...)                                                                  \
    do {                                                                                           \
        static const char *const texts_[] = {__VA_ARGS__};                                         \
        check_claims(texts_, sizeof texts_ / sizeof texts_[0], wanted);                            \
    } while (0)
#define WITH(more) "{\"sub\":\"sb-1\"," TIMES "," more "}"

TEST(claims_that_are_no_json_object)
{
    forge_open();
    CHECK_CLAIMS(REASON_TOKEN_MALFORMED, "{\"sub\":\"sb-1\"", "{\"sub\":\"sb-1\"," TIMES "} {\"sub\":\"sb-2\"}", WITH("\"x\":01"),
                 WITH("\"x\":\"\xff\""), WITH("\"x\":\"\\ud800\""), WITH("\"x\":\"a\x01\""), WITH("\"x\":\"a\\u0000\""), WITH("\"x\":NaN"),
                 WITH("\"a\\u0000\":1"), WITH("\"sub\":\"sb-2\""), WITH("\"s\\u0075b\":\"sb-2\""), WITH("\"exp\":1"), WITH("\"x\":{\"a\":1,\"a\":2}"),
                 WITH("\"x\":1e400"), WITH("\"x\":[[[[[[[[1]]]]]]]]"), "x", "{'sub':'sb-1'}", "/**/" CLAIMS, "\xef\xbb\xbf" CLAIMS);
    CHECK_CLAIMS(REASON_TOKEN_CLAIMS, "[]", "\"sb-1\"", "true", "1", "null", "{}", "[" CLAIMS "]");
    CHECK_CLAIMS(REASON_OK, WITH("\"x\":[[[[[[[1]]]]]]]"), " \n" CLAIMS "\n "); /* eight levels with the outer one */
    CHECK_REASON(judge_str(FORGE_P256, forge_bytes(FORGE_P256, HEADER, strlen(HEADER), CLAIMS "\0", strlen(CLAIMS) + 1, TWIST_NONE)), REASON_TOKEN_MALFORMED);
}

/* JSON knows no NUL outside an escape, but not every reader of it notices one. */
TEST(a_nul_anywhere_is_refused)
{
    forge_open();
    static const char header[] = HEADER;
    static const char claims[] = "{\"sub\":\"sb-1\",\"iat\":1000000 ,\"exp\":1003600 ,\"x\":[1 ,-2.5 ,true ,null ,{ } ] }";
    static const char rest[] = {0, 0x01, 0x0b, 0x0c, 0x1f, 0x7f, (char)0xa0, (char)0xfe};
    char text[256];
    CHECK_REASON(judge_str(FORGE_P256, forge_token(FORGE_P256, header, claims)), REASON_OK);
    for (size_t b = 0; b < sizeof rest; b++) {
        for (size_t at = 0; at <= strlen(claims); at++) {
            memcpy(text, claims, at);
            text[at] = rest[b];
            memcpy(text + at + 1, claims + at, strlen(claims) - at);
            char *token = forge_bytes(FORGE_P256, header, strlen(header), text, strlen(claims) + 1, TWIST_NONE);
            enum reason got = judge_str(FORGE_P256, token);
            bool in_key_or_text = rest[b] == 0x7f; /* DEL is allowed in a JSON string */
            CHECK_THAT(got == REASON_TOKEN_MALFORMED || (in_key_or_text && got == REASON_TOKEN_CLAIMS) || (in_key_or_text && got == REASON_OK),
                       "byte %d at %zu of the claims: %s", rest[b], at, reason_text(got));
        }
        for (size_t at = 0; at <= strlen(header); at++) {
            memcpy(text, header, at);
            text[at] = rest[b];
            memcpy(text + at + 1, header + at, strlen(header) - at);
            char *token = forge_bytes(FORGE_P256, text, strlen(header) + 1, claims, strlen(claims), TWIST_NONE);
            CHECK_THAT(judge_str(FORGE_P256, token) != REASON_OK, "byte %d at %zu of the header", rest[b], at);
        }
    }
}

TEST(deep_and_wide_claims)
{
    forge_open();
    for (int depth = 90; depth <= 6000; depth += 1970) {
        char *open = mem_alloc((size_t)depth + 1), *shut = mem_alloc((size_t)depth + 1);
        memset(open, '[', (size_t)depth);
        memset(shut, ']', (size_t)depth);
        open[depth] = shut[depth] = 0;
        char *claims = mem_printf(WITH("\"x\":%s1%s"), open, shut);
        CHECK_REASON(judge_str(FORGE_P256, forge_token(FORGE_P256, HEADER, claims)), REASON_TOKEN_MALFORMED);
        free(claims);
        free(open);
        free(shut);
    }
    for (int count = CLAIMS_VALUES_MAX - 10; count < CLAIMS_VALUES_MAX + 10; count++) {
        char *ones = mem_alloc((size_t)count * 2);
        for (int i = 0; i < count; i++)
            memcpy(ones + 2 * i, "1,", 2);
        char *claims = mem_printf(WITH("\"x\":[%.*s]"), count * 2 - 1, ones);
        /* the object, sub, iat, exp, x and the ones */
        CHECK_REASON(judge_str(FORGE_P256, forge_token(FORGE_P256, HEADER, claims)), count + 5 <= CLAIMS_VALUES_MAX ? REASON_OK : REASON_TOKEN_CLAIMS);
        free(claims);
        free(ones);
    }
}

TEST(times)
{
    forge_open();
#define EXP(e) "{\"sub\":\"s\",\"iat\":1000000,\"exp\":" e "}"
#define IAT(i) "{\"sub\":\"s\",\"exp\":1003600,\"iat\":" i "}"
#define NBF(n) "{\"sub\":\"s\"," TIMES ",\"nbf\":" n "}"
    CHECK_CLAIMS(REASON_TOKEN_CLAIMS, "{\"sub\":\"s\",\"iat\":1000000}", "{\"sub\":\"s\",\"exp\":1000000}", EXP("-1"), EXP("\"never\""), EXP("\"\""),
                 EXP("\"1003600\""), EXP("null"), EXP("true"), EXP("false"), EXP("[1003600]"), EXP("{}"), EXP("1e30"), EXP("1.0036e6"),
                 EXP("1003600.0"), EXP("1003600.5"), EXP("1000000"), EXP("999999"), EXP("0"), EXP("1086401"), EXP("9007199254740992"),
                 EXP("9223372036854775807"), "{\"sub\":\"s\",\"iat\":9007199254740992,\"exp\":9007199254740993}", EXP("4102444800"), IAT("\"now\""), IAT("true"), IAT("null"), IAT("-1"), IAT("1e3"), IAT("0"),
                 IAT("917199"), NBF("true"), NBF("null"), NBF("\"0\""), NBF("-1"), NBF("1.5"), NBF("1003601"), NBF("9007199254740992"),
                 "{\"sub\":\"s\",\"Exp\":1003600,\"iat\":1000000}");
    CHECK_CLAIMS(REASON_TOKEN_MALFORMED, EXP("01003600"), EXP("1_003_600"), EXP("0x10"), EXP("NaN"), EXP("Infinity"), EXP("9223372036854775808"),
                 EXP("99999999999999999999999999"), EXP("+1003600"), EXP("1e400"));
    CHECK_CLAIMS(REASON_OK, EXP("1000001"), EXP("1086400"), IAT("917200"), IAT("1003599"), NBF("0"), NBF("1003600"),
                 "{\"sub\":\"s\",\"iat\":9007199254740000,\"exp\":9007199254740991}", "{\"sub\":\"s\",\"iat\":0,\"exp\":1}");
}

TEST(time_against_the_clock)
{
    struct identity id = {.iat = 1000, .exp = 2000};
    static const struct { int64_t nbf, now; enum reason reason; } rows[] = {
        {0, 969, REASON_TOKEN_NOT_YET_VALID}, {0, 970, REASON_OK}, {0, 1000, REASON_OK}, {0, 2030, REASON_OK}, {0, 2031, REASON_TOKEN_EXPIRED},
        {1500, 1469, REASON_TOKEN_NOT_YET_VALID}, {1500, 1470, REASON_OK}, {0, 0, REASON_TOKEN_NOT_YET_VALID}, {0, CLAIMS_INT_MAX, REASON_TOKEN_EXPIRED},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        id.nbf = rows[i].nbf;
        CHECK_THAT(token_check_time(&rules, &id, rows[i].now) == rows[i].reason, "row %zu", i);
    }
    id = (struct identity){.iat = CLAIMS_INT_MAX - 5, .exp = CLAIMS_INT_MAX};
    CHECK(token_check_time(&rules, &id, 1800000000) == REASON_TOKEN_NOT_YET_VALID);
}

TEST(subjects)
{
    forge_open();
#define SUB(s) "{" TIMES ",\"sub\":" s "}"
    CHECK_CLAIMS(REASON_TOKEN_CLAIMS, "{" TIMES "}", SUB("\"\""), SUB("null"), SUB("1"), SUB("[\"sb-1\"]"), SUB("\"../sb-2\""), SUB("\"a b\""),
                 SUB("\"sb-1\\\"}\""), SUB("\"\xe2\x80\xaesb-1\""), SUB("\"sb-\xef\xbc\x91\""), SUB("\"a\\n\""), SUB("\"a.b\""), SUB("\"a/b\""),
                 "{" TIMES ",\"sub\":\"a\",\"container_id\":\"b\"}", "{" TIMES ",\"sub\":null,\"container_id\":\"b\"}", "{" TIMES ",\"container_id\":\"b b\"}",
                 "{" TIMES ",\"container_id\":7}", "{" TIMES ",\"sub\":\"a\",\"container_id\":null}");
    CHECK_CLAIMS(REASON_OK, SUB("\"a\""), SUB("\"A_z-9\""), "{" TIMES ",\"container_id\":\"b\"}", "{" TIMES ",\"sub\":\"a\",\"container_id\":\"a\"}",
                 SUB("\"\\u0061\""));
    char name[200];
    for (int len = 127; len <= 130; len++) {
        memset(name, 's', sizeof name);
        char *claims = mem_printf(SUB("\"%.*s\""), len, name);
        CHECK_REASON(judge_str(FORGE_P256, forge_token(FORGE_P256, HEADER, claims)), len <= 128 ? REASON_OK : REASON_TOKEN_CLAIMS);
        free(claims);
    }
}

TEST(issuer_and_audience)
{
    forge_open();
    rules.issuer = "issuer.test";
    CHECK_CLAIMS(REASON_TOKEN_ISSUER, CLAIMS, WITH("\"iss\":\"ISSUER.TEST\""), WITH("\"iss\":\"issuer.test/\""), WITH("\"iss\":\"\""), WITH("\"iss\":\"issuer.tes\""));
    CHECK_CLAIMS(REASON_TOKEN_CLAIMS, WITH("\"iss\":[\"issuer.test\"]"), WITH("\"iss\":null"));
    CHECK_CLAIMS(REASON_OK, WITH("\"iss\":\"issuer.test\""));
    rules.issuer = NULL;
    rules.audience = "sallyport";
    CHECK_CLAIMS(REASON_TOKEN_AUDIENCE, CLAIMS, WITH("\"aud\":\"other\""), WITH("\"aud\":\"sallyport-admin\""), WITH("\"aud\":\"sallypor\""), WITH("\"aud\":\"Sallyport\""),
                 WITH("\"aud\":[]"), WITH("\"aud\":[\"other\"]"), WITH("\"aud\":\"\""), WITH("\"aud\":\"sallyport \""), WITH("\"aud\":\"other,sallyport\""));
    CHECK_CLAIMS(REASON_TOKEN_CLAIMS, WITH("\"aud\":null"), WITH("\"aud\":1"), WITH("\"aud\":{\"sallyport\":1}"), WITH("\"aud\":[\"sallyport\",1]"),
                 WITH("\"aud\":[[\"sallyport\"]]"));
    CHECK_CLAIMS(REASON_OK, WITH("\"aud\":\"sallyport\""), WITH("\"aud\":[\"other\",\"sallyport\"]"));
    rules.audience = NULL;
}

TEST(names_for_records)
{
    forge_open();
    CHECK_CLAIMS(REASON_TOKEN_CLAIMS, WITH("\"jti\":\"\""), WITH("\"jti\":\"a\\nb\""), WITH("\"jti\":7"), WITH("\"jti\":null"), WITH("\"jti\":\"\xc3\xa9\""),
                 WITH("\"session_id\":7"), WITH("\"session_id\":\"\""), WITH("\"user\":\"a\\u0085b\""), WITH("\"user\":\"a\\u007f\""), WITH("\"org\":[]"),
                 WITH("\"org\":\"a\",\"organization_uuid\":\"b\""), WITH("\"organization_uuid\":1"), WITH("\"vault_ids\":\"v\""), WITH("\"vault_ids\":[1]"),
                 WITH("\"vault_ids\":[\"\"]"), WITH("\"vault_ids\":{}"));
    CHECK_CLAIMS(REASON_OK, WITH("\"jti\":\"a b~\""), WITH("\"user\":\"J\xc3\xb6rg\""), WITH("\"org\":\"a\",\"organization_uuid\":\"a\""), WITH("\"vault_ids\":[]"));
    char *long_jti = mem_alloc(5000);
    memset(long_jti, 'j', 5000);
    for (int len = 255; len <= 5000; len += 1 + (len > 257) * 2000) {
        char *claims = mem_printf(WITH("\"jti\":\"%.*s\""), len, long_jti);
        CHECK_REASON(judge_str(FORGE_P256, forge_token(FORGE_P256, HEADER, claims)), len <= 256 ? REASON_OK : REASON_TOKEN_CLAIMS);
        free(claims);
    }
    free(long_jti);
}

TEST(bindings)
{
    forge_open();
#define X5T "\"x5t#S256\":\"47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU\""
    CHECK_CLAIMS(REASON_TOKEN_CLAIMS, WITH("\"cnf\":{}"), WITH("\"cnf\":null"), WITH("\"cnf\":\"main\""), WITH("\"cnf\":[]"), WITH("\"cnf\":{\"jwk\":{}}"),
                 WITH("\"cnf\":{\"listener\":\"main\",\"address\":\"10.0.0.0/8\"}"), WITH("\"cnf\":{\"listener\":\"main\",\"x\":1}"),
                 WITH("\"cnf\":{\"listener\":\"\"}"), WITH("\"cnf\":{\"listener\":null}"), WITH("\"cnf\":{\"address\":\"10.0.0.1/8\"}"),
                 WITH("\"cnf\":{\"address\":\"10.1/16\"}"), WITH("\"cnf\":{\"address\":\"10.0.0.0/33\"}"), WITH("\"cnf\":{\"address\":[\"10.0.0.0/8\"]}"),
                 WITH("\"cnf\":{\"x5t#S256\":\"abc\"}"), WITH("\"cnf\":{\"x5t\":\"47DEQpj8HBSa-_TImW-5JCeuQeQ\"}"),
                 WITH("\"cnf\":{\"x5t#S256\":\"47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFV\"}"), /* not canonical */
                 WITH("\"cnf\":{\"x5t#S256\":\"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU\"}"));
    CHECK_CLAIMS(REASON_OK, WITH("\"cnf\":{\"listener\":\"main\"}"), WITH("\"cnf\":{\"address\":\"10.0.0.7\"}"), WITH("\"cnf\":{\"address\":\"fd00::/8\"}"), WITH("\"cnf\":{" X5T "}"));
}

TEST(policy_names)
{
    forge_open();
    CHECK_CLAIMS(REASON_TOKEN_CLAIMS, WITH("\"policy\":\"\""), WITH("\"policy\":\".\""), WITH("\"policy\":\"..\""), WITH("\"policy\":\".hidden\""),
                 WITH("\"policy\":\"../other\""), WITH("\"policy\":\"a/b\""), WITH("\"policy\":\"a\\\\b\""), WITH("\"policy\":\"a b\""), WITH("\"policy\":\"/etc/passwd\""),
                 WITH("\"policy\":7"), WITH("\"policy\":null"), WITH("\"policy\":[\"a\"]"), WITH("\"policy\":\"a%2fb\""), WITH("\"policy\":\"a\xc3\xa9\""),
                 WITH("\"policy\":\"a\",\"policy_sha256\":\"abc\""), WITH("\"policy\":\"a\",\"policy_sha256\":null"),
                 WITH("\"policy_sha256\":\"E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855\""));
    CHECK_CLAIMS(REASON_OK, CLAIMS, WITH("\"policy\":\"code-review_2.1\""), WITH("\"policy\":\"a..b\""), WITH("\"policy\":\"-\""));
}

/* What a policy in a token becomes, or NULL where the token is refused. */
static char *
embedded(enum embedded_policies allowed, const char *claims)
{
    struct identity *id = NULL;
    char *text = NULL;
    rules.embedded = allowed;
    char *whole = mem_printf(WITH("%s"), claims);
    char *token = forge_token(FORGE_P256, HEADER, whole);
    enum reason reason = judge(FORGE_P256, token, strlen(token), &id);
    CHECK_THAT(reason == REASON_OK || reason == REASON_TOKEN_CLAIMS, "%s", reason_text(reason));
    if (id)
        text = mem_strdup(id->embedded_policy ? id->embedded_policy : "none");
    identity_unref(id);
    free(token);
    free(whole);
    rules.embedded = EMBEDDED_LIMITED;
    return text;
}

TEST(embedded_policies)
{
    forge_open();
#define REFUSED NULL
#define OPEN "{\"networking\":{\"type\":\"unrestricted\"},\"version\":1}"
#define ONE "{\"networking\":{\"allowed_hosts\":[\"a.example.com\"],\"type\":\"limited\"},\"version\":1}"
#define TWO "{\"networking\":{\"allowed_hosts\":[\"a.example.com\",\"*.example.org\"],\"type\":\"limited\"},\"version\":1}"
    static const struct { const char *claims, *limited, *any; } rows[] = {
        {"\"allowed_hosts\":[\"a.example.com\"]", ONE, ONE},
        {"\"allowed_hosts\":\"a.example.com\"", ONE, ONE},
        {"\"allowed_hosts\":\"a.example.com, *.example.org\"", TWO, TWO},
        {"\"allowed_hosts\":[\"a.example.com\",\"*.example.org\"]", TWO, TWO},
        {"\"allowed_hosts\":\"\"", "{\"networking\":{\"allowed_hosts\":[],\"type\":\"limited\"},\"version\":1}",
         "{\"networking\":{\"allowed_hosts\":[],\"type\":\"limited\"},\"version\":1}"},
        {"\"allowed_hosts\":[]", "{\"networking\":{\"allowed_hosts\":[],\"type\":\"limited\"},\"version\":1}",
         "{\"networking\":{\"allowed_hosts\":[],\"type\":\"limited\"},\"version\":1}"},
        {"\"allowed_hosts\":\"*\"", REFUSED, OPEN},
        {"\"allowed_hosts\":[\"*\"]", REFUSED, OPEN},
        {"\"allowed_hosts\":\"a.example.com,\"", REFUSED, REFUSED},
        {"\"allowed_hosts\":\",\"", REFUSED, REFUSED},
        {"\"allowed_hosts\":7", REFUSED, REFUSED},
        {"\"allowed_hosts\":null", REFUSED, REFUSED},
        {"\"allowed_hosts\":[7]", REFUSED, REFUSED},
        {"\"allowed_hosts\":{\"a\":1}", REFUSED, REFUSED},
        {"\"allowed_hosts\":[\"a.example.com\"],\"networking\":{\"type\":\"limited\"}", REFUSED, REFUSED},
        {"\"allowed_hosts\":[\"a.example.com\"],\"mcp_servers\":[]", REFUSED, REFUSED},
        {"\"networking\":{\"type\":\"limited\",\"allowed_hosts\":[\"a.example.com\"]}", ONE, ONE},
        {"\"networking\":{\"type\":\"unrestricted\"}", REFUSED, OPEN},
        {"\"networking\":{\"type\":\"Unrestricted\"}", REFUSED, REFUSED},
        {"\"networking\":{\"type\":\"limited\",\"mode\":\"report\"}", REFUSED, REFUSED},
        {"\"networking\":{\"allowed_hosts\":[\"a.example.com\"]}", REFUSED, REFUSED},
        {"\"networking\":{\"type\":null}", REFUSED, REFUSED},
        {"\"networking\":{}", REFUSED, REFUSED},
        {"\"networking\":null", REFUSED, REFUSED},
        {"\"networking\":\"limited\"", REFUSED, REFUSED},
        {"\"networking\":[]", REFUSED, REFUSED},
        {"\"networking\":{\"type\":\"limited\",\"allowed_hosts\":\"*\"}", REFUSED, REFUSED},
        {"\"mcp_servers\":[],\"package_managers\":[\"pip\"]", "{\"mcp_servers\":[],\"networking\":{\"type\":\"limited\"},\"package_managers\":[\"pip\"],\"version\":1}",
         "{\"mcp_servers\":[],\"networking\":{\"type\":\"limited\"},\"package_managers\":[\"pip\"],\"version\":1}"},
        {"\"package_managers\":\"pip\"", REFUSED, REFUSED},
        {"\"mcp_servers\":null", REFUSED, REFUSED},
        /* What widens is left behind, what narrows cannot be. */
        {"\"allowed_hosts\":[\"a.example.com\"],\"mode\":\"report\",\"private_addresses\":[{\"host\":\"a.example.com\",\"addresses\":[\"10.0.0.0/8\"]}]", ONE, ONE},
        {"\"allowed_hosts\":[\"a.example.com\"],\"blocked_hosts\":[\"a.example.com\"]", REFUSED, REFUSED},
        {"\"networking\":{\"type\":\"unrestricted\"},\"rules\":[]", REFUSED, REFUSED},
        {"\"allowed_hosts\":[\"a.example.com\"],\"limits\":{\"tunnels\":1}", REFUSED, REFUSED},
        {"\"allowed_hosts\":[\"a.example.com\"],\"policy\":\"p\"", REFUSED, REFUSED},
        {"\"networking\":{\"type\":\"limited\"},\"policy\":null", REFUSED, REFUSED},
        {"\"allowed_hosts\":[\"a.example.com\"],\"policy_sha256\":\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"", REFUSED, REFUSED},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *off = embedded(EMBEDDED_OFF, rows[i].claims), *limited = embedded(EMBEDDED_LIMITED, rows[i].claims), *any = embedded(EMBEDDED_ANY, rows[i].claims);
        CHECK_THAT(!off, "%s passes where embedded policies are off", rows[i].claims);
        CHECK_THAT(!limited == !rows[i].limited && (!limited || strcmp(limited, rows[i].limited) == 0), "limited: %s gives %s", rows[i].claims, limited ? limited : "a refusal");
        CHECK_THAT(!any == !rows[i].any && (!any || strcmp(any, rows[i].any) == 0), "any: %s gives %s", rows[i].claims, any ? any : "a refusal");
        free(off);
        free(limited);
        free(any);
    }
}

/* Spellings of "every host" that a limited token might try; what is left is for the policy compiler. */
TEST(no_spelling_of_everything_is_limited)
{
    forge_open();
    static const char *const stars[] = {"*", " *", "* ", "*:443", "*:*", "https://*", "http://*:80", "HTTPS://*", "x://*", "**", "**.example.com",
                                        "*.*", "*.*.example.com", "a.*", "*example.com", "a*.example.com", "https://*/", "[*]"};
    for (size_t i = 0; i < sizeof stars / sizeof stars[0]; i++) {
        char *in_claim = mem_printf("\"allowed_hosts\":[\"a.example.com\",\"%s\"]", stars[i]);
        char *as_text = mem_printf("\"allowed_hosts\":\"%s,a.example.com\"", stars[i]);
        char *in_networking = mem_printf("\"networking\":{\"type\":\"limited\",\"allowed_hosts\":[\"%s\"]}", stars[i]);
        char *results[] = {embedded(EMBEDDED_LIMITED, in_claim), embedded(EMBEDDED_LIMITED, as_text), embedded(EMBEDDED_LIMITED, in_networking)};
        for (int j = 0; j < 3; j++) {
            CHECK_THAT(!results[j], "\"%s\" passes: %s", stars[i], results[j]);
            free(results[j]);
        }
        free(in_claim);
        free(as_text);
        free(in_networking);
    }
}

TEST(a_look_is_not_a_verification)
{
    forge_open();
    struct err err = {0};
    char *header, *claims;
    struct identity *id;
    char *token = forge_token(FORGE_P256_OTHER, HEADER, CLAIMS);
    CHECK_REASON(token_peek(&rules, slice_str(token), &header, &claims, &id, &err), REASON_OK);
    CHECK(id && strcmp(id->sub, "sb-1") == 0);
    CHECK(strstr(header, "ES256") && strstr(claims, "1003600"));
    CHECK_REASON(judge(FORGE_P256, token, strlen(token), NULL), REASON_TOKEN_SIGNATURE);
    free(header);
    free(claims);
    identity_unref(id);
    free(token);
    CHECK_REASON(token_peek(&rules, slice_str("e30.eyJ.AAAA"), &header, &claims, &id, &err), REASON_TOKEN_MALFORMED);
    CHECK(!id && !claims);
    free(header);
    free(claims);
}

TEST(the_forge_closes)
{
    forge_close();
}
