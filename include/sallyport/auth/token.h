/* Strict reading and verification of a JWT (RFC 7519, 7515, 8725) into an identity. CONTRACT section 4. */
#ifndef SALLYPORT_AUTH_TOKEN_H
#define SALLYPORT_AUTH_TOKEN_H

#include "sallyport/auth/identity.h"
#include "sallyport/auth/keyset.h"
#include "sallyport/base/reason.h"

enum embedded_policies { EMBEDDED_OFF = 0, EMBEDDED_LIMITED, EMBEDDED_ANY };

struct token_rules {
    const char *issuer;    /* NULL: any */
    const char *audience;  /* NULL: any */
    int64_t leeway_s, max_lifetime_s;
    enum embedded_policies embedded;
};

/* Form, key, signature, claims, in that order; no time but the claims' own relations (exp > iat, lifetime). On REASON_OK *ret is a new
 * reference. err (may be NULL) gets the sentence that `token show` prints. */
enum reason token_verify(const struct token_rules *rules, const struct keyset *keys, struct slice token, struct identity **ret, struct err *err);
/* What a token says without anybody having looked at its signature: for `token show`, never for a decision. *ret_header and
 * *ret_claims are JSON texts (heap, NULL where unreadable); *ret is a new reference where the claims are acceptable,
 * else NULL with the reason and err. */
enum reason token_peek(const struct token_rules *rules, struct slice token, char **ret_header, char **ret_claims, struct identity **ret, struct err *err);
/* Checks against the time: expired, not yet valid (nbf and iat), with leeway. */
enum reason token_check_time(const struct token_rules *rules, const struct identity *id, int64_t now_s);
/* The signing input of a token that has three segments, and its signature, both as sent; false otherwise. For caches only. */
bool token_split(struct slice token, struct slice *ret_signing_input, struct slice *ret_signature);

#endif
