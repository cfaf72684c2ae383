/* Making keys and tokens for operators and tests (the only module with libjwt). Never linked into a worker's path. */
#ifndef SALLYPORT_AUTH_MINT_H
#define SALLYPORT_AUTH_MINT_H

#include "sallyport/auth/keyset.h"
#include "sallyport/base/err.h"

/* A new private key as PEM (PKCS#8) and its public half as one JWK object (heap, NUL-terminated; wipe the PEM). */
int mint_key(enum jwa alg, const char *kid, char **ret_private_pem, char **ret_jwk, struct err *err);
/* Adds the JWK to a JWKS text (NULL or empty: a new set); a key with the same kid is an error. */
int mint_jwks_add(const char *jwks, const char *jwk, char **ret_jwks, struct err *err);
/* claims_json: the whole claims object. The alg comes from the key. Returns the token (heap). */
int mint_token(struct slice private_pem, const char *kid, const char *claims_json, char **ret_token, struct err *err);
/* libjwt's opinion, for tests and `token show`: does it decode, and verify with this public key (PEM)? */
int mint_second_opinion(const char *token, struct slice public_pem, struct err *err);
/* The public half of a key of a JWKS as PEM (heap). */
int mint_public_pem(struct slice jwks, const char *kid, char **ret_pem, struct err *err);

#endif
