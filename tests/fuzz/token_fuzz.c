/* Tokens and credentials from hostile bytes. The first byte chooses the way in, so that the fuzzer also gets behind the signature:
 * `t` a whole token, `s` header LF claims (signed here, so good), `c` claims alone, `p` a Proxy-Authorization value. */
#include <openssl/hmac.h>
#include <stdio.h>

#include "sallyport/auth/claims.h"
#include "sallyport/auth/credential.h"
#include "sallyport/auth/mint.h"
#include "sallyport/auth/token.h"
#include "sallyport/base/encoding.h"
#include "sallyport/base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SECRET "0123456789abcdef0123456789abcdef"
#define JWKS                                                                                                           \
    "{\"keys\":[{\"kty\":\"oct\",\"kid\":\"h\",\"k\":\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"},"                  \
    "{\"kty\":\"EC\",\"kid\":\"e\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","             \
    "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}]}"

#define HOLD(cond)                                                                                                     \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                                                 \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static const struct token_rules rules = {.leeway_s = 30, .max_lifetime_s = 86400, .embedded = EMBEDDED_ANY};

static struct keyset *
keys(void)
{
    static struct keyset *set;
    struct err err;
    if (!set)
        set = keyset_parse(slice_str(JWKS), "fuzz", true, &err);
    HOLD(set);
    return set;
}

/* What an accepted identity promises to those who use it unchecked. */
static void
hold_identity(const struct identity *id)
{
    HOLD(id->sub && claims_sub_is_valid(slice_str(id->sub)));
    HOLD(!id->jti || claims_jti_is_valid(slice_str(id->jti)));
    HOLD(!id->policy_name || (claims_policy_name_is_valid(slice_str(id->policy_name)) && !id->embedded_policy));
    HOLD(id->iat >= 0 && id->exp > id->iat && id->exp <= CLAIMS_INT_MAX && id->exp - id->iat <= rules.max_lifetime_s);
    HOLD(!*id->policy_sha256 || strlen(id->policy_sha256) == 64);
    HOLD((id->binding == BINDING_LISTENER) == (id->binding_listener != NULL));
}

static enum reason
verify(struct slice token)
{
    struct identity *id = NULL;
    struct err err = {0};
    struct slice input, sig;
    enum reason reason = token_verify(&rules, keys(), token, &id, &err);
    HOLD((reason == REASON_OK) == (id != NULL));
    if (id) {
        cleanup_free char *text = mem_dup_slice(token);
        hold_identity(id);
        HOLD(token_split(token, &input, &sig) && input.ptr == token.ptr && input.len + 1 + sig.len == token.len);
        HOLD(strlen(text) == token.len);
        HOLD(mint_second_opinion(text, slice_str(SECRET), &err) == 0); /* only the secret's half is known here */
    }
    identity_unref(id);
    return reason;
}

static void
try_claims(struct slice json)
{
    struct identity *id = NULL;
    struct err err = {0};
    if (claims_read(&rules, json, &id, &err) == REASON_OK)
        hold_identity(id);
    identity_unref(id);
}

static void
try_signed(struct slice text)
{
    struct slice claims;
    struct slice header = slice_split(text, '\n', &claims);
    if (!claims.ptr || text.len > TOKEN_MAX)
        return;
    char *token = mem_alloc(text.len * 2 + 128);
    size_t len = base64url_encode(header, token);
    token[len++] = '.';
    len += base64url_encode(claims, token + len);
    unsigned char mac[32];
    unsigned mac_len;
    HMAC(EVP_sha256(), SECRET, 32, (const unsigned char *)token, len, mac, &mac_len);
    token[len++] = '.';
    len += base64url_encode(slice_of(mac, mac_len), token + len);
    verify(slice_of(token, len));
    free(token);
}

static void
try_credential(struct slice value)
{
    struct arena *arena = arena_new(256);
    struct field field = {slice_str("Proxy-Authorization"), value};
    struct head head = {.fields = &field, .field_count = 1};
    struct slice token;
    if (credential_read(arena, &head, &token) == REASON_OK) {
        HOLD(token.len > 0 && token.len <= TOKEN_MAX);
        HOLD(!slice_has_byte(token, 0) && !slice_has_byte(token, ' '));
        verify(token);
    }
    arena_free(arena);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct slice rest = slice_of(data + 1, size - 1);
    if (data[0] == 't')
        verify(rest);
    else if (data[0] == 's')
        try_signed(rest);
    else if (data[0] == 'c')
        try_claims(rest);
    else if (data[0] == 'p')
        try_credential(rest);
    return 0;
}
