/* The claims of a verified token, typed: every claim that is used is checked for type, range and
 * characters here, once, so that whoever reads an identity need not. What is of the wrong type
 * refuses the token, even where it is optional: an issuer that writes `exp: "never"` means
 * something that we do not. Pure; knows no clock and opens nothing. */
#include "sallyport/auth/claims.h"

#include "sallyport/auth/embedded.h"
#include "sallyport/base/encoding.h"
#include "sallyport/base/json.h"
#include "sallyport/base/mem.h"

struct reader {
    const struct token_rules *rules;
    const json_t *claims;
    struct identity *id; /* being filled in */
    struct err *err;
};

#define REFUSE(r, ...) (err_invalid((r)->err, __VA_ARGS__), REASON_TOKEN_CLAIMS)

/* -- characters -- */

static bool
is_letter_or_digit(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool
claims_sub_is_valid(struct slice sub)
{
    for (size_t i = 0; i < sub.len; i++)
        if (!is_letter_or_digit(sub.ptr[i]) && sub.ptr[i] != '_' && sub.ptr[i] != '-')
            return false;
    return sub.len >= 1 && sub.len <= CLAIMS_SUB_MAX;
}

bool
claims_jti_is_valid(struct slice jti)
{
    for (size_t i = 0; i < jti.len; i++)
        if (jti.ptr[i] < 0x20 || jti.ptr[i] > 0x7e)
            return false;
    return jti.len >= 1 && jti.len <= CLAIMS_TEXT_MAX;
}

bool
claims_policy_name_is_valid(struct slice name)
{
    for (size_t i = 0; i < name.len; i++)
        if (!is_letter_or_digit(name.ptr[i]) && name.ptr[i] != '.' && name.ptr[i] != '_' &&
            name.ptr[i] != '-')
            return false;
    return name.len >= 1 && name.len <= CLAIMS_SUB_MAX && name.ptr[0] != '.';
}

/* Any script, but nothing that moves a cursor or ends a line: C0, DEL and, in UTF-8, C1. */
static bool
text_is_valid(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c < 0x20 || c == 0x7f)
            return false;
        if (c == 0xc2 && i + 1 < s.len && (unsigned char)s.ptr[i + 1] < 0xa0)
            return false;
    }
    return s.len >= 1 && s.len <= CLAIMS_TEXT_MAX;
}

/* -- single claims -- */

static struct slice
string_slice(const json_t *value)
{
    return slice_of(json_string_value(value), json_string_length(value));
}

static enum reason
read_time(struct reader *r, const char *name, bool required, int64_t *ret)
{
    const json_t *value = json_object_get(r->claims, name);
    if (!value)
        return required ? REFUSE(r, "%s is missing", name) : REASON_OK;
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) > CLAIMS_INT_MAX)
        return REFUSE(r, "%s: expected an integer (seconds since 1970) from 0 to 2^53 - 1", name);
    *ret = json_integer_value(value);
    return REASON_OK;
}

static enum reason
read_times(struct reader *r)
{
    struct identity *id = r->id;
    enum reason reason = read_time(r, "iat", true, &id->iat);
    if (reason == REASON_OK)
        reason = read_time(r, "exp", true, &id->exp);
    if (reason == REASON_OK)
        reason = read_time(r, "nbf", false, &id->nbf);
    if (reason != REASON_OK)
        return reason;
    if (id->exp <= id->iat)
        return REFUSE(r, "exp is not after iat");
    if (id->nbf > id->exp)
        return REFUSE(r, "nbf is after exp: the token is never valid");
    if (id->exp - id->iat > r->rules->max_lifetime_s)
        return REFUSE(r, "exp is %lld s after iat, at most %lld are accepted (max_lifetime_s)",
                      (long long)(id->exp - id->iat), (long long)r->rules->max_lifetime_s);
    return REASON_OK;
}

static enum reason
read_subject(struct reader *r)
{
    const json_t *sub = json_object_get(r->claims, "sub");
    const json_t *container = json_object_get(r->claims, "container_id");
    const char *name = sub ? "sub" : "container_id";
    if (!sub && !container)
        return REFUSE(r, "sub is missing");
    if (sub && container && !json_equal(sub, container))
        return REFUSE(r, "sub and container_id name different sandboxes");
    const json_t *value = sub ? sub : container;
    if (!json_is_string(value) || !claims_sub_is_valid(string_slice(value)))
        return REFUSE(r, "%s: expected a string of 1 to %d of A-Z a-z 0-9 _ -", name,
                      CLAIMS_SUB_MAX);
    r->id->sub = mem_dup_slice(string_slice(value));
    return REASON_OK;
}

static enum reason
read_issuer(struct reader *r)
{
    const json_t *iss = json_object_get(r->claims, "iss");
    const char *wanted = r->rules->issuer;
    if (iss && !json_is_string(iss))
        return REFUSE(r, "iss: expected a string");
    if (!wanted || (iss && slice_is(string_slice(iss), wanted)))
        return REASON_OK;
    err_invalid(r->err, iss ? "iss is not \"%s\"" : "iss is missing, expected \"%s\"", wanted);
    return REASON_TOKEN_ISSUER;
}

static enum reason
read_audience(struct reader *r)
{
    const json_t *aud = json_object_get(r->claims, "aud");
    const char *wanted = r->rules->audience;
    bool named = json_is_string(aud) && wanted && slice_is(string_slice(aud), wanted);
    if (aud && !json_is_string(aud) && !json_is_array(aud))
        return REFUSE(r, "aud: expected a string or an array of strings");
    for (size_t i = 0; i < json_array_size(aud); i++) { /* 0 unless it is an array */
        const json_t *one = json_array_get(aud, i);
        if (!json_is_string(one))
            return REFUSE(r, "aud[%zu]: expected a string", i);
        named = named || (wanted && slice_is(string_slice(one), wanted));
    }
    if (!wanted || named)
        return REASON_OK;
    err_invalid(r->err, aud ? "aud does not name \"%s\"" : "aud is missing, expected \"%s\"",
                wanted);
    return REASON_TOKEN_AUDIENCE;
}

/* -- claims for records and vaults -- */

static enum reason
read_text(struct reader *r, const char *name, char **ret)
{
    const json_t *value = json_object_get(r->claims, name);
    if (!value)
        return REASON_OK;
    if (!json_is_string(value) || !text_is_valid(string_slice(value)))
        return REFUSE(r, "%s: expected a string of 1 to %d bytes without control characters", name,
                      CLAIMS_TEXT_MAX);
    *ret = mem_dup_slice(string_slice(value));
    return REASON_OK;
}

static enum reason
read_jti(struct reader *r)
{
    const json_t *jti = json_object_get(r->claims, "jti");
    if (!jti)
        return REASON_OK;
    if (!json_is_string(jti) || !claims_jti_is_valid(string_slice(jti)))
        return REFUSE(r, "jti: expected a string of 1 to %d printable ASCII bytes",
                      CLAIMS_TEXT_MAX);
    r->id->jti = mem_dup_slice(string_slice(jti));
    return REASON_OK;
}

static enum reason
read_org(struct reader *r)
{
    const json_t *org = json_object_get(r->claims, "org");
    const json_t *uuid = json_object_get(r->claims, "organization_uuid");
    if (org && uuid && !json_equal(org, uuid))
        return REFUSE(r, "org and organization_uuid name different organizations");
    return read_text(r, org ? "org" : "organization_uuid", &r->id->org);
}

static enum reason
read_names(struct reader *r)
{
    enum reason reason = read_jti(r);
    if (reason == REASON_OK)
        reason = read_text(r, "session_id", &r->id->session);
    if (reason == REASON_OK)
        reason = read_org(r);
    if (reason == REASON_OK)
        reason = read_text(r, "user", &r->id->user);
    return reason;
}

static enum reason
read_vaults(struct reader *r)
{
    const json_t *ids = json_object_get(r->claims, "vault_ids");
    if (!ids)
        return REASON_OK;
    size_t count = json_array_size(ids);
    if (!json_is_array(ids) || count > CLAIMS_VAULTS_MAX)
        return REFUSE(r, "vault_ids: expected an array of at most %d strings", CLAIMS_VAULTS_MAX);
    r->id->vault_ids = mem_array(count + 1, sizeof *r->id->vault_ids);
    for (size_t i = 0; i < count; i++) {
        const json_t *one = json_array_get(ids, i);
        if (!json_is_string(one) || !claims_jti_is_valid(string_slice(one)))
            return REFUSE(r, "vault_ids[%zu]: expected a string of 1 to %d printable ASCII bytes",
                          i, CLAIMS_TEXT_MAX);
        r->id->vault_ids[i] = mem_dup_slice(string_slice(one));
    }
    return REASON_OK;
}

/* -- policy -- */

static enum reason
read_policy_digest(struct reader *r)
{
    const json_t *value = json_object_get(r->claims, "policy_sha256");
    unsigned char digest[SHA256_SIZE];
    if (!value)
        return REASON_OK;
    if (!json_is_string(value) || !hex_decode(string_slice(value), digest, sizeof digest))
        return REFUSE(r, "policy_sha256: expected 64 lower-case hex digits");
    memcpy(r->id->policy_sha256, json_string_value(value), SHA256_HEX_SIZE);
    return REASON_OK;
}

static enum reason
read_policy(struct reader *r)
{
    const json_t *name = json_object_get(r->claims, "policy");
    bool embedded = embedded_is_present(r->claims);
    if (name && embedded)
        return REFUSE(r, "the token both names and carries a policy, expected one of them");
    if (name && (!json_is_string(name) || !claims_policy_name_is_valid(string_slice(name))))
        return REFUSE(r,
                      "policy: expected the name of a policy (1 to %d of A-Z a-z 0-9 . _ -, no dot "
                      "in front)",
                      CLAIMS_SUB_MAX);
    if (name)
        r->id->policy_name = mem_dup_slice(string_slice(name));
    enum reason reason = read_policy_digest(r);
    if (reason != REASON_OK || !embedded)
        return reason;
    if (*r->id->policy_sha256)
        return REFUSE(
            r, "policy_sha256 is the digest of a policy file, but the token carries its policy");
    return embedded_read(r->claims, r->rules->embedded, &r->id->embedded_policy, r->err);
}

/* -- binding (cnf, RFC 7800) -- */

static enum reason
bind_listener(struct reader *r, const json_t *value)
{
    if (!json_is_string(value) || !claims_jti_is_valid(string_slice(value)))
        return REFUSE(r, "cnf.listener: expected the name of a listener");
    r->id->binding = BINDING_LISTENER;
    r->id->binding_listener = mem_dup_slice(string_slice(value));
    return REASON_OK;
}

static enum reason
bind_address(struct reader *r, const json_t *value)
{
    if (!json_is_string(value) || !cidr_parse(string_slice(value), &r->id->binding_address))
        return REFUSE(r,
                      "cnf.address: expected an address or a prefix without host bits, 10.0.0.0/8 "
                      "for instance");
    r->id->binding = BINDING_ADDRESS;
    return REASON_OK;
}

static enum reason
bind_certificate(struct reader *r, const json_t *value)
{
    unsigned char digest[64];
    size_t len = 0;
    struct slice text = json_is_string(value) ? string_slice(value) : slice_of("", 0);
    if (text.len != sizeof r->id->binding_x5t - 1 || !base64url_decode(text, digest, &len) ||
        len != SHA256_SIZE)
        return REFUSE(r, "cnf.x5t#S256: expected the base64url of a SHA-256 (43 characters)");
    memcpy(r->id->binding_x5t, text.ptr, text.len);
    r->id->binding = BINDING_CERTIFICATE;
    return REASON_OK;
}

static enum reason
read_binding(struct reader *r)
{
    static const struct {
        const char *name;
        enum reason (*read)(struct reader *r, const json_t *value);
    } rows[] = {
        {"listener", bind_listener},
        {"address", bind_address},
        {"x5t#S256", bind_certificate},
    };
    const json_t *cnf = json_object_get(r->claims, "cnf");
    if (!cnf)
        return REASON_OK;
    /* A confirmation that we cannot check is one that does not hold. */
    for (size_t i = 0; json_object_size(cnf) == 1 && i < sizeof rows / sizeof rows[0]; i++) {
        const json_t *value = json_object_get(cnf, rows[i].name);
        if (value)
            return rows[i].read(r, value);
    }
    return REFUSE(r, "cnf: expected an object with exactly one of listener, address and x5t#S256");
}

/* -- all of them -- */

/* How many values the tree holds, counted no further than the cap. Depth is bounded by the reader.
 */
static size_t
count_values(const json_t *value, size_t cap)
{
    size_t n = 1, i;
    const char *key;
    json_t *child;
    if (json_is_object(value)) {
        json_object_foreach((json_t *)(uintptr_t)value, key, child)
        {
            if (n > cap)
                break;
            n += count_values(child, cap - n);
        }
        return n;
    }
    json_array_foreach(value, i, child)
    {
        if (n > cap)
            break;
        n += count_values(child, cap - n);
    }
    return n;
}

static enum reason
read_all(struct reader *r)
{
    static enum reason (*const steps[])(struct reader * r) = {
        read_subject, read_times,  read_issuer, read_audience,
        read_names,   read_policy, read_vaults, read_binding,
    };
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        enum reason reason = steps[i](r);
        if (reason != REASON_OK)
            return reason;
    }
    return REASON_OK;
}

enum reason
claims_read(const struct token_rules *rules, struct slice json, struct identity **ret,
            struct err *err)
{
    /* jansson skips a NUL behind a number; readers of C strings end there. One text, one token. */
    if (slice_has_byte(json, '\0')) {
        err_invalid(err, "claims: hold a NUL byte");
        return REASON_TOKEN_MALFORMED;
    }
    json_auto_t *claims = json_read(json, "claims", CLAIMS_DEPTH_MAX, err);
    if (!claims)
        return REASON_TOKEN_MALFORMED;
    struct reader r = {rules, claims, NULL, err};
    if (!json_is_object(claims))
        return REFUSE(&r, "the claims are not a JSON object");
    if (count_values(claims, CLAIMS_VALUES_MAX) > CLAIMS_VALUES_MAX)
        return REFUSE(&r, "the claims hold more than %d values", CLAIMS_VALUES_MAX);
    r.id = identity_new();
    enum reason reason = read_all(&r);
    if (reason != REASON_OK) {
        identity_unref(r.id);
        return reason;
    }
    *ret = r.id;
    return REASON_OK;
}
