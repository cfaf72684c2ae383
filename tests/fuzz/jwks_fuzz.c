/* Key sets and revocation lists: operators' files, but read by the same reload that must never take the gate down. */
#include <stdio.h>

#include "sallyport/auth/keyset.h"
#include "sallyport/auth/mint.h"
#include "sallyport/auth/revocation.h"
#include "sallyport/base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HOLD(cond)                                                                                                     \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                                                 \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static void
try_keys(struct slice text, bool allow_hmac)
{
    static const char zeros[1024];
    struct err err = {0};
    struct keyset *ks = keyset_parse(text, "fuzz", allow_hmac, &err);
    HOLD(ks || (err.kind == ERR_INVALID && strncmp(err.text, "fuzz: ", 6) == 0));
    if (!ks)
        return;
    HOLD(keyset_count(ks) >= 1 && keyset_count(ks) <= KEYSET_MAX_KEYS);
    HOLD(allow_hmac || !keyset_has_hmac(ks));
    const struct key *only = keyset_find(ks, slice_of(NULL, 0));
    HOLD(!only == (keyset_count(ks) > 1));
    for (size_t len = 0; only && len <= 96; len += 32) {
        HOLD(key_alg(only) != JWA_NONE);
        /* Zeros verify under no key but Ed25519's of small order, which only its owner can publish. */
        HOLD(key_alg(only) == JWA_EDDSA || !key_verify(only, slice_str("a.b"), slice_of(zeros, len)));
    }
    keyset_unref(ks);
}

static void
try_revocations(struct slice text)
{
    struct err err = {0};
    struct revocations *r = revocations_parse(text, "fuzz", &err);
    HOLD(r || (err.kind == ERR_INVALID && strncmp(err.text, "fuzz: ", 6) == 0));
    struct identity *id = identity_new();
    id->sub = mem_strdup("sb-1");
    if (r)
        revocations_has(r, id, 1000000);
    identity_unref(id);
    revocations_unref(r);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice text = slice_of(data, size);
    try_keys(text, false);
    try_keys(text, true);
    try_revocations(text);
    return 0;
}
