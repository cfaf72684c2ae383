/* The claims of a token whose signature was verified (RFC 7519 section 4), typed: JSON text -> identity. */
#ifndef SALLYPORT_AUTH_CLAIMS_H
#define SALLYPORT_AUTH_CLAIMS_H

#include "sallyport/auth/token.h"

#define CLAIMS_INT_MAX ((INT64_C(1) << 53) - 1) /* what every JSON reader represents exactly (RFC 7493 section 2.2) */
#define CLAIMS_DEPTH_MAX 8
#define CLAIMS_VALUES_MAX 1024  /* JSON values in one claims set: bounds the work of a token that is all commas */
#define CLAIMS_SUB_MAX 128
#define CLAIMS_TEXT_MAX 256     /* jti, session_id, org, user */
#define CLAIMS_VAULTS_MAX 64

/* On REASON_OK *ret is a new reference. Else the reason, and err says which claim and what was
 * expected; err never holds bytes of the token that are not printable. REASON_TOKEN_MALFORMED when it is not JSON. */
enum reason claims_read(const struct token_rules *rules, struct slice json, struct identity **ret, struct err *err);

bool claims_sub_is_valid(struct slice sub);         /* [A-Za-z0-9_-]{1,128} */
bool claims_jti_is_valid(struct slice jti);         /* 1 to 256 printable ASCII bytes */
bool claims_policy_name_is_valid(struct slice name); /* [A-Za-z0-9._-]{1,128}, no dot in front: never a path */

#endif
