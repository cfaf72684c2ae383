/* Proxy-Authorization (RFC 9110 section 11.7.2) to token: which bytes of a head are the credential.
 * Says nothing about whether they are a good token. Owned by the exchange; keeps nothing, copies
 * only where base64 must be decoded. */
#include "sallyport/auth/credential.h"

#include "sallyport/base/encoding.h"
#include "sallyport/base/octets.h"

/* A decoded user name and prefix beside the longest token still fit; the head's own cap is of this
 * size, too. */
#define CREDENTIAL_FIELD_MAX 32768

static bool
has_control_byte(struct slice s)
{
    size_t i = 0;
    for (; s.len - i >= OCTETS; i += OCTETS) {
        octets c = octets_at(s.ptr + i);
        if (octets_first((c < 0x20) | (c == 0x7f)) < OCTETS)
            return true;
    }
    for (; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c < 0x20 || c == 0x7f)
            return true;
    }
    return false;
}

static enum reason
accept_token(struct slice token, struct slice *ret_token)
{
    if (token.len == 0 || token.len > TOKEN_MAX || has_control_byte(token) ||
        slice_has_byte(token, ' '))
        return REASON_TOKEN_MALFORMED;
    *ret_token = token;
    return REASON_OK;
}

/* RFC 7617: the user name ends at the first colon, the rest is the password. */
static enum reason
read_basic(struct arena *arena, struct slice encoded, struct slice *ret_token)
{
    unsigned char *plain = arena_alloc(arena, encoded.len * 3 / 4 + 1);
    size_t len;
    if (!base64_decode(encoded, plain, &len))
        return REASON_TOKEN_MALFORMED;
    struct slice password;
    struct slice user = slice_split(slice_of(plain, len), ':', &password);
    if (!password.ptr || has_control_byte(user))
        return REASON_TOKEN_MALFORMED;
    if (slice_starts_with(password, "jwt_"))
        password = slice_of(password.ptr + 4, password.len - 4);
    return accept_token(password, ret_token);
}

enum reason
credential_read(struct arena *arena, const struct head *head, struct slice *ret_token)
{
    size_t count;
    struct slice value = head_field(head, "Proxy-Authorization", &count);
    if (count == 0)
        return REASON_TOKEN_MISSING;
    /* Two credentials are two opinions about who is asking: neither is believed. */
    if (count > 1 || value.len > CREDENTIAL_FIELD_MAX)
        return REASON_TOKEN_MALFORMED;
    struct slice rest;
    struct slice scheme = slice_split(value, ' ', &rest);
    while (rest.len > 0 && rest.ptr[0] == ' ') /* 1*SP (RFC 9110 section 11.4) */
        rest = slice_of(rest.ptr + 1, rest.len - 1);
    if (rest.len == 0)
        return REASON_TOKEN_MALFORMED;
    if (slice_equal_nocase(scheme, slice_str("Basic")))
        return read_basic(arena, rest, ret_token);
    if (slice_equal_nocase(scheme, slice_str("Bearer")))
        return accept_token(rest, ret_token);
    return REASON_TOKEN_MALFORMED;
}
