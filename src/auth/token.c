/* A JWT in compact form (RFC 7515 section 7.1), read strictly: one text for one token, so that what
 * is verified is what is read. Form, key, signature, claims, in that order: the claims of a token
 * that nobody signed are never parsed. The algorithm is the key's; the header's `alg` may only
 * agree. Pure; sees neither clock nor configuration file. */
#include "sallyport/auth/token.h"

#include <string.h>

#include "sallyport/auth/claims.h"
#include "sallyport/auth/credential.h"
#include "sallyport/base/encoding.h"
#include "sallyport/base/json.h"
#include "sallyport/base/mem.h"

#define DECODED_MAX (TOKEN_MAX * 3 / 4 + 3)

/* The three segments as sent; they point into the token. */
struct segments {
    struct slice header, claims, signature;
    struct slice signing_input; /* header "." claims */
};

/* The three segments decoded, in one buffer that lives on the stack. */
struct decoded {
    unsigned char bytes[DECODED_MAX];
    struct slice header, claims, signature;
};

struct header {
    enum jwa alg;     /* JWA_NONE for every name that we do not verify */
    struct slice kid; /* ptr NULL when absent; points into the header's JSON */
};

static enum reason
malformed(struct err *err, const char *what)
{
    err_invalid(err, "%s", what);
    return REASON_TOKEN_MALFORMED;
}

static bool
split(struct slice token, struct segments *ret)
{
    struct slice rest, more;
    ret->header = slice_split(token, '.', &rest);
    if (!rest.ptr)
        return false;
    ret->claims = slice_split(rest, '.', &more);
    if (!more.ptr || slice_has_byte(more, '.'))
        return false;
    ret->signature = more;
    ret->signing_input = slice_of(token.ptr, ret->header.len + 1 + ret->claims.len);
    return ret->header.len > 0 && ret->claims.len > 0 && ret->signature.len > 0;
}

static bool
decode(struct slice text, struct decoded *d, size_t *used, struct slice *ret)
{
    size_t len;
    if (!base64url_decode(text, d->bytes + *used, &len) || len == 0)
        return false;
    *ret = slice_of(d->bytes + *used, len);
    *used += len;
    return true;
}

static enum reason
read_form(struct slice token, struct segments *s, struct decoded *d, struct err *err)
{
    size_t used = 0;
    if (token.len == 0)
        return malformed(err, "the token is empty");
    if (token.len > TOKEN_MAX)
        return malformed(err, "the token is longer than 16384 bytes");
    if (!split(token, s))
        return malformed(err, "the token has not three segments (header.claims.signature)");
    if (!decode(s->header, d, &used, &d->header) || !decode(s->claims, d, &used, &d->claims) ||
        !decode(s->signature, d, &used, &d->signature))
        return malformed(err, "a segment is not canonical base64url without padding");
    if (slice_has_byte(d->header, '\0')) /* as in claims_read */
        return malformed(err, "the header holds a NUL byte");
    return REASON_OK;
}

/* -- header -- */

static enum reason
read_kid(const json_t *kid, struct slice *ret, struct err *err)
{
    *ret = slice_of(NULL, 0);
    if (!kid)
        return REASON_OK;
    size_t len = json_string_length(kid); /* 0 unless it is a string */
    if (len < 1 || len > KEYSET_KID_MAX)
        return malformed(err, "header: kid: expected a string of 1 to 256 bytes");
    *ret = slice_of(json_string_value(kid), len);
    return REASON_OK;
}

/* alg, kid and typ and nothing else: what a header may ask for beyond that (crit, jku, jwk, x5u,
 * zip, b64) is another way to verify, and there is only one. */
static enum reason
read_header(const json_t *root, struct header *ret, struct err *err)
{
    const json_t *alg = json_object_get(root, "alg"), *kid = json_object_get(root, "kid");
    const json_t *typ = json_object_get(root, "typ");
    if (!json_is_object(root))
        return malformed(err, "the header is not a JSON object");
    if (json_object_size(root) != (size_t) !!alg + !!kid + !!typ)
        return malformed(err, "header: expected only alg, kid and typ");
    if (!json_is_string(alg))
        return malformed(err, "header: alg: expected a string");
    if (typ && (!json_is_string(typ) || strcmp(json_string_value(typ), "JWT") != 0))
        return malformed(err, "header: typ: expected \"JWT\"");
    ret->alg = jwa_from_name(slice_of(json_string_value(alg), json_string_length(alg)));
    return read_kid(kid, &ret->kid, err);
}

static enum reason
bad_signature(struct err *err, const char *what)
{
    err_invalid(err, "%s", what);
    return REASON_TOKEN_SIGNATURE;
}

static enum reason
check_signature(const struct keyset *keys, const struct header *header, const struct segments *s,
                const struct decoded *d, struct err *err)
{
    const struct key *key = keyset_find(keys, header->kid);
    if (!key && !header->kid.ptr)
        return bad_signature(err, "the header has no kid, and the key set has not exactly one key");
    if (!key)
        return bad_signature(err, "no key of the set has the token's kid");
    if (header->alg == JWA_NONE || header->alg != key_alg(key))
        return bad_signature(err, "the header's alg is not that of the key");
    if (!key_verify(key, s->signing_input, d->signature))
        return bad_signature(err, "the signature is not the key's over this token");
    return REASON_OK;
}

enum reason
token_verify(const struct token_rules *rules, const struct keyset *keys, struct slice token,
             struct identity **ret, struct err *err)
{
    struct err unread;
    struct segments s;
    struct decoded d;
    struct header header;
    if (!err)
        err = &unread;
    enum reason reason = read_form(token, &s, &d, err);
    if (reason != REASON_OK)
        return reason;
    json_auto_t *root = json_read(d.header, "header", CLAIMS_DEPTH_MAX, err);
    if (!root)
        return REASON_TOKEN_MALFORMED;
    reason = read_header(root, &header, err);
    if (reason == REASON_OK)
        reason = check_signature(keys, &header, &s, &d, err);
    if (reason == REASON_OK)
        reason = claims_read(rules, d.claims, ret, err);
    return reason;
}

/* -- around it -- */

static char *
json_text(struct slice bytes, const char *name, struct err *err)
{
    json_auto_t *root = json_read(bytes, name, CLAIMS_DEPTH_MAX, err);
    return root ? json_dumps(root, JSON_INDENT(2) | JSON_ENSURE_ASCII | JSON_ENCODE_ANY) : NULL;
}

enum reason
token_peek(const struct token_rules *rules, struct slice token, char **ret_header,
           char **ret_claims, struct identity **ret, struct err *err)
{
    struct err unread;
    struct segments s;
    struct decoded d;
    struct header header;
    *ret_header = *ret_claims = NULL;
    *ret = NULL;
    enum reason reason = read_form(token, &s, &d, err);
    if (reason != REASON_OK)
        return reason;
    *ret_claims =
        json_text(d.claims, "claims", &unread); /* claims_read says what is wrong with it */
    *ret_header = json_text(d.header, "header", err);
    if (!*ret_header)
        return REASON_TOKEN_MALFORMED;
    json_auto_t *root = json_read(d.header, "header", CLAIMS_DEPTH_MAX, err);
    reason = read_header(root, &header, err);
    if (reason == REASON_OK)
        reason = claims_read(rules, d.claims, ret, err);
    return reason;
}

enum reason
token_check_time(const struct token_rules *rules, const struct identity *id, int64_t now_s)
{
    if (id->exp + rules->leeway_s < now_s)
        return REASON_TOKEN_EXPIRED;
    if (id->nbf > now_s + rules->leeway_s || id->iat > now_s + rules->leeway_s)
        return REASON_TOKEN_NOT_YET_VALID;
    return REASON_OK;
}

bool
token_split(struct slice token, struct slice *ret_signing_input, struct slice *ret_signature)
{
    struct segments s;
    if (token.len > TOKEN_MAX || !split(token, &s))
        return false;
    *ret_signing_input = s.signing_input;
    *ret_signature = s.signature;
    return true;
}
