/* The check of every request: token -> identity, with a cache of verified signatures in front. A hit still checks
 * time, revocation and binding. One per worker and snapshot; not thread-safe. */
#ifndef SALLYPORT_AUTH_VERIFY_H
#define SALLYPORT_AUTH_VERIFY_H

#include "sallyport/auth/revocation.h"
#include "sallyport/auth/token.h"

struct verifier;

/* Where a request came from, for cnf. */
struct presentation {
    const char *listener;          /* name of the listener that accepted it */
    struct addr client;            /* family 0 for unix sockets */
    const char *certificate_x5t;   /* base64url SHA-256 of the client certificate, NULL without one */
};

#define VERIFIER_CACHE_MAX 131072 /* entries; the oldest unused goes first */

/* Keeps references to keys and revocations; rules are copied (strings too). */
struct verifier *verifier_new(const struct token_rules *rules, struct keyset *keys, struct revocations *revoked);
void verifier_free(struct verifier *v);
/* On REASON_OK *ret is a new reference. *ret_cached says whether the signature was found in the cache. */
enum reason verifier_check(struct verifier *v, struct slice token, const struct presentation *from, int64_t now_s, struct identity **ret, bool *ret_cached);
/* Is this very token's signature in the cache? Then checking it costs no signature. */
bool verifier_knows(struct verifier *v, struct slice token);
/* For identities that are in use (live tunnels, a listener's token): time, revocation and binding only. */
enum reason verifier_recheck(const struct verifier *v, const struct identity *id, const struct presentation *from, int64_t now_s);
/* The last second in which verifier_recheck can say of it what it says now, when that is REASON_OK. */
int64_t verifier_good_until(const struct verifier *v, const struct identity *id);

#endif
