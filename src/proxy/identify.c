/* From a request to who asks and by which policy: the client's token, the listener's, or what the tunnel around it has shown.
 * Reads nothing but the head; waits for nothing. */
#include "sallyport/proxy/identify.h"

#include "sallyport/auth/credential.h"
#include "sallyport/proxy/inspect.h"

/* The token of a listener that has one is the identity of every request there; a client's own must be of the same sandbox. */
enum reason
identify_by_listener(struct exchange *x, struct slice own, int64_t now_s)
{
    struct verifier *v = snapshot_verifier(x->snapshot);
    struct slice token = port_token(x->port, x->snapshot);
    struct presentation from = exchange_presentation(x);
    bool cached;
    if (!token.ptr)
        return REASON_TOKEN_MISSING;
    enum reason r = verifier_check(v, token, &from, now_s, &x->identity, &cached);
    if (r != REASON_OK || !own.ptr)
        return r;
    struct identity *theirs = NULL;
    r = verifier_check(v, own, &from, now_s, &theirs, &cached);
    if (r == REASON_OK && strcmp(theirs->sub, x->identity->sub) != 0)
        r = REASON_TOKEN_BINDING;
    identity_unref(theirs);
    return r;
}

static struct slice
client_ip(const struct exchange *x)
{
    return slice_of(x->peer.bytes, x->peer.family ? sizeof x->peer.bytes : 0);
}

static enum reason
identify_by_credential(struct exchange *x, struct slice token, int64_t now_s)
{
    struct shared *shared = x->proxy->shared;
    struct presentation from = exchange_presentation(x);
    bool cached = false;
    /* Many sandboxes may share an address: those whose token is known are not held up by somebody who guesses. */
    if (shared_failed_tokens_limited(shared, client_ip(x), now_s) && !verifier_knows(snapshot_verifier(x->snapshot), token))
        return REASON_LIMIT_REQUESTS;
    enum reason r = verifier_check(snapshot_verifier(x->snapshot), token, &from, now_s, &x->identity, &cached);
    if (r == REASON_TOKEN_SIGNATURE)
        shared_note_failed_token(shared, client_ip(x), now_s);
    shared_add(shared, r != REASON_OK ? COUNTER_TOKENS_FAILED : cached ? COUNTER_TOKENS_CACHED : COUNTER_TOKENS_VERIFIED, 1);
    return r;
}

enum reason
identify_policy(struct exchange *x)
{
    const struct policy *p = NULL;
    enum reason r = snapshot_policy(x->snapshot, x->identity, &p);
    if (r == REASON_OK)
        x->policy = policy_ref((struct policy *)(uintptr_t)p);
    return r;
}

enum reason
identify(struct exchange *x)
{
    int64_t now_s = loop_wall_us(x->proxy->loop) / 1000000;
    bool by_listener = x->port->settings->token_file || x->port->settings->token_fd;
    struct slice token = {0};
    enum reason r = credential_read(x->ask->arena, &x->ask->head, &token);
    if (r != REASON_OK && !(by_listener && r == REASON_TOKEN_MISSING))
        return r;
    x->ask->token = token;
    r = by_listener ? identify_by_listener(x, token, now_s) : identify_by_credential(x, token, now_s);
    if (r != REASON_OK)
        return r;
    return identify_policy(x);
}

/* The tunnel has said who asks; that is still true, or not. */
enum reason
identify_by_tunnel(struct exchange *x)
{
    struct exchange *tunnel = inspect_tunnel(x->inside);
    struct presentation from = exchange_presentation(x);
    x->identity = identity_ref(tunnel->identity);
    exchange_target(tunnel, &x->ask->target);
    x->ask->target.scheme = SCHEME_HTTPS;
    x->has_target = true;
    x->address = tunnel->address;
    enum reason r = verifier_recheck(snapshot_verifier(x->snapshot), x->identity, &from, loop_wall_us(x->proxy->loop) / 1000000);
    return r == REASON_OK ? identify_policy(x) : r;
}
