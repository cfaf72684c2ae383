/* The check of every request. The cache remembers that a signature was good, never that a token is:
 * time, revocation and binding are judged on each call. Keyed by the signing input, which was
 * canonical when it verified and so has one text, and a hit must carry the very signature that
 * verified; another signature over the same input (ECDSA has always two) is verified afresh. The
 * signature is kept as a digest: nobody can present what is found here. Refusals are not
 * remembered. One per worker and snapshot; a reload drops it whole, and retired keys with it. */
#include "sallyport/auth/verify.h"

#include <string.h>

#include "sallyport/base/digest.h"
#include "sallyport/base/list.h"
#include "sallyport/base/map.h"
#include "sallyport/base/mem.h"

/* Claims that are kept for all entries together: tokens with a policy inside are kilobytes. */
#define VERIFIER_CACHE_BYTES_MAX (128u << 20)

struct entry {
    struct list_node node; /* in verifier.recent: first is the least recently used */
    struct identity *id;
    struct slice input; /* the map's copy */
    unsigned char signature[SHA256_SIZE]; /* of the signature segment that verified */
    size_t weight;                        /* bytes, for the cap */
};

struct verifier {
    struct token_rules rules; /* issuer and audience are ours */
    struct keyset *keys;
    struct revocations *revoked;
    struct map *by_input; /* signing input -> struct entry */
    struct list recent;
    size_t weight; /* of all entries */
};

struct verifier *
verifier_new(const struct token_rules *rules, struct keyset *keys, struct revocations *revoked)
{
    struct verifier *v = mem_zalloc(sizeof *v);
    v->rules = *rules;
    v->rules.issuer = rules->issuer ? mem_strdup(rules->issuer) : NULL;
    v->rules.audience = rules->audience ? mem_strdup(rules->audience) : NULL;
    v->keys = keyset_ref(keys);
    v->revoked = revocations_ref(revoked);
    v->by_input = map_new();
    list_init(&v->recent);
    return v;
}

/* -- the cache -- */

static void
forget(struct verifier *v, struct entry *e)
{
    map_remove(v->by_input, e->input);
    list_remove(&v->recent, &e->node);
    v->weight -= e->weight;
    identity_unref(e->id);
    free(e);
}

static void
touch(struct verifier *v, struct entry *e)
{
    list_remove(&v->recent, &e->node);
    list_append(&v->recent, &e->node);
}

/* The parts of a token by which it is looked up. */
struct lookup {
    struct slice input;
    unsigned char signature[SHA256_SIZE];
};

static bool
lookup_of(struct slice token, struct lookup *ret)
{
    struct slice signature;
    if (!token_split(token, &ret->input, &signature))
        return false;
    sha256(signature, ret->signature);
    return true;
}

static void
remember(struct verifier *v, struct identity *id, const struct lookup *by)
{
    struct entry *known = map_get(v->by_input, by->input);
    if (known)
        forget(v, known);
    struct entry *e = mem_zalloc(sizeof *e);
    map_put(v->by_input, by->input, e);
    e->input = map_key(v->by_input, by->input);
    e->id = identity_ref(id);
    memcpy(e->signature, by->signature, SHA256_SIZE);
    e->weight = sizeof *e + sizeof *id + 2 * by->input.len; /* the input, and the claims read out of it */
    list_append(&v->recent, &e->node);
    v->weight += e->weight;
    while (v->recent.count > VERIFIER_CACHE_MAX || v->weight > VERIFIER_CACHE_BYTES_MAX)
        forget(v, list_entry(list_first(&v->recent), struct entry, node));
}

static struct entry *
look_up(struct verifier *v, const struct lookup *by)
{
    struct entry *e = map_get(v->by_input, by->input);
    return e && memcmp(e->signature, by->signature, SHA256_SIZE) == 0 ? e : NULL;
}

void
verifier_free(struct verifier *v)
{
    if (!v)
        return;
    while (!list_empty(&v->recent))
        forget(v, list_entry(list_first(&v->recent), struct entry, node));
    map_free(v->by_input, NULL);
    revocations_unref(v->revoked);
    keyset_unref(v->keys);
    free((char *)(uintptr_t)v->rules.issuer);
    free((char *)(uintptr_t)v->rules.audience);
    free(v);
}

/* -- the check -- */

static bool
binding_holds(const struct identity *id, const struct presentation *from)
{
    switch (id->binding) {
    case BINDING_NONE:
        return true;
    case BINDING_LISTENER:
        return from && from->listener && strcmp(from->listener, id->binding_listener) == 0;
    case BINDING_ADDRESS:
        return from && from->client.family && cidr_contains(&id->binding_address, &from->client);
    case BINDING_CERTIFICATE:
        return from && from->certificate_x5t && strcmp(from->certificate_x5t, id->binding_x5t) == 0;
    }
    return false;
}

enum reason
verifier_recheck(const struct verifier *v, const struct identity *id,
                 const struct presentation *from, int64_t now_s)
{
    enum reason reason = token_check_time(&v->rules, id, now_s);
    if (reason != REASON_OK)
        return reason;
    if (revocations_has(v->revoked, id, now_s))
        return REASON_TOKEN_REVOKED;
    return binding_holds(id, from) ? REASON_OK : REASON_TOKEN_BINDING;
}

/* Revocations only ever end with time; what else changes comes with a new snapshot. */
int64_t
verifier_good_until(const struct verifier *v, const struct identity *id)
{
    return id->exp + v->rules.leeway_s;
}

bool
verifier_knows(struct verifier *v, struct slice token)
{
    struct lookup by;
    return lookup_of(token, &by) && look_up(v, &by) != NULL;
}

enum reason
verifier_check(struct verifier *v, struct slice token, const struct presentation *from,
               int64_t now_s, struct identity **ret, bool *ret_cached)
{
    struct lookup by;
    struct identity *id;
    *ret_cached = false;
    if (!lookup_of(token, &by))
        return REASON_TOKEN_MALFORMED;
    struct entry *e = look_up(v, &by);
    if (e) {
        id = identity_ref(e->id);
        *ret_cached = true;
        touch(v, e);
    } else {
        enum reason reason = token_verify(&v->rules, v->keys, token, &id, NULL);
        if (reason != REASON_OK)
            return reason;
    }
    enum reason reason = verifier_recheck(v, id, from, now_s);
    if (reason == REASON_OK && !e)
        remember(v, id, &by);
    if (reason == REASON_TOKEN_EXPIRED && e)
        forget(v, e);
    if (reason == REASON_OK)
        *ret = id;
    else
        identity_unref(id);
    return reason;
}
