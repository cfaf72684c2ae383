/* Verification keys: a JWKS (RFC 7517), parsed once into EVP_PKEYs. Immutable after loading; shared by reference. */
#ifndef SALLYPORT_AUTH_KEYSET_H
#define SALLYPORT_AUTH_KEYSET_H

#include <stdbool.h>

#include "sallyport/base/err.h"
#include "sallyport/base/slice.h"

#define KEYSET_MAX_KEYS 64
#define KEYSET_KID_MAX 256 /* bytes */

enum jwa { JWA_NONE = 0, JWA_ES256, JWA_ES384, JWA_RS256, JWA_EDDSA, JWA_HS256 };

struct keyset;
struct key;

const char *jwa_name(enum jwa alg);              /* "ES256" */
enum jwa jwa_from_name(struct slice name);       /* exact case; JWA_NONE otherwise */

/* Errors: no keys, a private member where public is expected, wrong curve, RSA under 2048 bits, HMAC without allow_hmac
 * or under 32 bytes, two keys with one kid, an unknown alg or kty. `name` is for errors. */
struct keyset *keyset_parse(struct slice jwks, const char *name, bool allow_hmac, struct err *err);
struct keyset *keyset_ref(struct keyset *ks);
void keyset_unref(struct keyset *ks);
bool keyset_has_hmac(const struct keyset *ks);
size_t keyset_count(const struct keyset *ks);
/* By kid; an empty kid (ptr NULL) matches only when the set has exactly one key. NULL: no key. */
const struct key *keyset_find(const struct keyset *ks, struct slice kid);
enum jwa key_alg(const struct key *key);
/* True when sig (JWS form: r||s for ECDSA, RFC 7518 section 3.4) is key's signature over input. */
bool key_verify(const struct key *key, struct slice input, struct slice sig);
/* OpenSSL's key (EVP_PKEY), borrowed; NULL for HMAC. For mint only. */
struct evp_pkey_st *key_public(const struct key *key);

#endif
