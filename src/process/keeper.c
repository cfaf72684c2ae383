/* The keeper: holds the inspection CA's key and answers one question, "a leaf for this host under this policy", after judging
 * by itself with the same snapshot and the same pure functions as the workers. Believes no worker: a host that the named policy
 * does not inspect gets nothing, and no worker gets more than its rate. No network, no files, no exec. */
#include <openssl/evp.h>
#include <stdio.h>
#include <unistd.h>

#include "sallyport/base/diag.h"
#include "sallyport/base/encoding.h"
#include "sallyport/base/file.h"
#include "sallyport/base/mem.h"
#include "sallyport/policy/inspect.h"
#include "sallyport/process/bundle.h"
#include "sallyport/process/confine.h"
#include "sallyport/process/role.h"
#include "sallyport/proxy/snapshot.h"
#include "sallyport/tls/leafwire.h"
#include "sallyport/tls/mint.h"

/* Leaves a second that one worker may ask for, and how many at once: far above what its cache lets through, far below what
 * a taken one would need to name the world. */
#define RATE_PER_S 500
#define RATE_BURST INT64_C(4000)
/* Exchanges that began before a reload ask by the old policy for as long as a handshake may take. */
#define OLD_SNAPSHOT_MS 60000

struct keeper;

/* A worker's slot. The channel is that of the worker that runs there; the rate is the slot's, whoever runs there. */
struct door {
    struct keeper *keeper;
    unsigned worker;
    struct channel *channel; /* NULL: that one has ended */
    int64_t tokens_ms, at_ms; /* bucket, in milliseconds of the rate: one leaf costs 1000 / RATE_PER_S */
    bool told;                /* that it asks too much; again when it has asked nothing for a while */
    bool told_odd;            /* that it says what no worker says: once, since one who is taken over would fill the log */
};

struct keeper {
    struct loop *loop;
    struct role_start start;
    struct channel *control;
    struct shared *shared;
    struct snapshot *snapshot, *before; /* before: NULL a while after a reload */
    struct timer forget_before;
    struct ca *ca;
    EVP_PKEY *leaf_public;
    struct door doors[SHARED_WORKERS_MAX];
};

/* ---- who asks, and may it ---- */

#define LEAF_COST_MS (1000 / RATE_PER_S)

static bool
spend(struct door *d)
{
    int64_t now = loop_now_ms(d->keeper->loop);
    d->tokens_ms += now - d->at_ms;
    d->at_ms = now;
    if (d->tokens_ms > RATE_BURST * LEAF_COST_MS) {
        d->tokens_ms = RATE_BURST * LEAF_COST_MS;
        d->told = false;
    }
    if (d->tokens_ms < LEAF_COST_MS)
        return false;
    d->tokens_ms -= LEAF_COST_MS;
    return true;
}

/* A token's own policy: signature, time and revocation are checked here again. Where it is bound to is the worker's to
 * know, so that part of the check is given what the token itself says. */
static const struct policy *
policy_of_token(struct keeper *k, struct snapshot *s, struct slice token)
{
    struct identity *claimed = NULL, *id = NULL;
    struct presentation from = {0};
    const struct policy *p = NULL;
    char *header = NULL, *claims = NULL;
    bool cached;
    struct err err = {0};
    enum reason reason = token_peek(snapshot_token_rules(s), token, &header, &claims, &claimed, &err);
    if (reason == REASON_OK && claimed) {
        from.listener = claimed->binding_listener;
        from.client = claimed->binding_address.base;
        from.certificate_x5t = claimed->binding_x5t;
        reason = verifier_check(snapshot_verifier(s), token, &from, loop_wall_us(k->loop) / 1000000, &id, &cached);
    }
    if (reason == REASON_OK && id && snapshot_policy(s, id, &p) != REASON_OK)
        p = NULL;
    identity_unref(claimed);
    identity_unref(id); /* policies are the snapshot's */
    free(header);
    free(claims);
    return p;
}

static bool
has_digest(const struct policy *p, const unsigned char sha256[SHA256_SIZE])
{
    char hex[SHA256_HEX_SIZE];
    hex_encode(sha256, SHA256_SIZE, hex);
    return p && strcmp(policy_sha256(p), hex) == 0;
}

static const struct policy *
find_policy(struct keeper *k, struct snapshot *s, const struct leaf_question *q)
{
    if (!s)
        return NULL;
    const struct policy *p = q->policy.len ? snapshot_named_policy(s, q->policy) : NULL;
    if (!has_digest(p, q->policy_sha256) && q->token.len)
        p = policy_of_token(k, s, q->token);
    return has_digest(p, q->policy_sha256) ? p : NULL;
}

/* By the snapshot that knows the policy; the operator's passthrough of today holds in any case. */
static enum leaf_status
judge(struct keeper *k, const struct leaf_question *q)
{
    struct snapshot *s = k->snapshot;
    const struct policy *p = find_policy(k, s, q);
    if (!p) {
        s = k->before;
        p = find_policy(k, s, q);
    }
    if (!p)
        return LEAF_STATUS_UNKNOWN_POLICY;
    bool refusals = snapshot_settings(s)->deny_in_tunnel;
    return policy_inspects(p, &q->host, q->port, refusals) ? LEAF_STATUS_MINTED : LEAF_STATUS_REFUSED;
}

/* ---- answering ---- */

static void
answer(struct door *d, const struct leaf_answer *a)
{
    struct buf b;
    buf_init(&b, LEAF_DER_MAX + 64);
    /* A worker that does not read its answers loses them; it asks again when somebody still waits. */
    if (leaf_answer_write(&b, a))
        (void)channel_send(d->channel, LEAF_FRAME_ANSWER, buf_slice(&b), NULL, 0);
    buf_done(&b);
}

static void
on_question(struct door *d, const struct leaf_question *q)
{
    struct keeper *k = d->keeper;
    struct leaf_answer a = {.id = q->id, .status = LEAF_STATUS_BUSY, .der = slice_of("", 0)};
    unsigned char *der = NULL;
    size_t len = 0;
    if (spend(d)) {
        a.status = judge(k, q);
    } else if (!d->told) {
        d->told = true;
        diag(DIAG_ALARM, "worker %u asks for more than %d certificates a second; it gets no more for now", d->worker, RATE_PER_S);
    }
    if (a.status == LEAF_STATUS_MINTED && !ca_mint(k->ca, &q->host, k->leaf_public, loop_wall_us(k->loop) / 1000000, &der, &len))
        a.status = LEAF_STATUS_FAILED;
    if (a.status == LEAF_STATUS_MINTED) {
        a.der = slice_of((const char *)der, len);
        shared_add(k->shared, COUNTER_CERTIFICATES, 1);
    }
    answer(d, &a);
    free(der);
}

static void
on_worker(void *owner, enum channel_event event, struct frame *frame)
{
    struct door *d = owner;
    struct leaf_question q;
    if (event == CHANNEL_CLOSED) {
        channel_free(steal(&d->channel));
        return;
    }
    if (event != CHANNEL_FRAME)
        return;
    if (frame->type == LEAF_FRAME_QUESTION && frame->fd_count == 0 && leaf_question_read(frame->payload, &q)) {
        on_question(d, &q);
    } else if (!d->told_odd) {
        d->told_odd = true;
        diag(DIAG_ALARM, "worker %u asks what no worker asks; such questions are not answered", d->worker);
    }
}

/* ---- what the supervisor says ---- */

static void
on_snapshot_gone(void *arg)
{
    bundle_close(arg);
}

static struct snapshot *
make_snapshot(int fd, uint64_t generation, struct bundle_view **ret_view, struct err *err)
{
    struct bundle_view *view;
    if (bundle_open(fd, &view, err) < 0)
        return NULL;
    struct snapshot *s = snapshot_new(&view->settings, view->blobs, view->blob_count, NULL, false, generation, err);
    if (s)
        snapshot_on_free(s, on_snapshot_gone, view);
    else
        bundle_close(view);
    *ret_view = view;
    return s;
}

static void
forget_before(void *arg)
{
    struct keeper *k = arg;
    snapshot_unref(k->before);
    k->before = NULL;
}

/* The CA stays: with another one the supervisor starts another keeper. */
static void
on_bundle(struct keeper *k, struct frame *frame)
{
    struct control_bundle told;
    struct bundle_view *view;
    struct err err = {0};
    memcpy(&told, frame->payload.ptr, sizeof told);
    int fd = frame->fds[0];
    frame->fds[0] = -1;
    struct snapshot *s = make_snapshot(fd, told.generation, &view, &err);
    if (!s) {
        diag(DIAG_ALARM, "the new configuration cannot be used, the old one stays: %s", err.text);
        return;
    }
    forget_before(k);
    k->before = k->snapshot;
    k->snapshot = s;
    timer_start(k->loop, &k->forget_before, OLD_SNAPSHOT_MS, forget_before, k);
}

/* A worker that was started again, or started after this keeper. */
static void
on_new_channel(struct keeper *k, struct frame *frame)
{
    struct control_channel told;
    memcpy(&told, frame->payload.ptr, sizeof told);
    if (told.slot >= (unsigned)k->start.keeper_count)
        return;
    struct door *d = &k->doors[told.slot];
    channel_free(d->channel);
    d->channel = channel_new(k->loop, frame->fds[0], on_worker, d);
    d->told_odd = false;
    frame->fds[0] = -1;
}

static void
on_control(void *owner, enum channel_event event, struct frame *frame)
{
    struct keeper *k = owner;
    if (event == CHANNEL_CLOSED)
        loop_stop(k->loop);
    if (event != CHANNEL_FRAME || !control_allowed(ROLE_SUPERVISOR, frame))
        return;
    if (frame->type == CONTROL_BUNDLE)
        on_bundle(k, frame);
    else if (frame->type == CONTROL_CHANNEL)
        on_new_channel(k, frame);
    else if (frame->type == CONTROL_STOP)
        loop_stop(k->loop);
}

/* ---- start ---- */

/* The descriptor is shared with keepers before and after this one, its place in the file too. */
static int
load_ca(struct keeper *k, struct slice cert_pem, struct err *err)
{
    char *pem;
    size_t len;
    if (k->start.ca_key < 3 || lseek(k->start.ca_key, 0, SEEK_SET) < 0)
        return err_errno(err, "inspect.ca: ca.key");
    if (file_read_fd(k->start.ca_key, "inspect.ca: ca.key", CA_PEM_MAX, &pem, &len, err) < 0)
        return -1;
    close(k->start.ca_key);
    k->ca = ca_load(cert_pem, slice_of(pem, len), loop_wall_us(k->loop) / 1000000, err);
    mem_wipe(pem, len);
    free(pem);
    return k->ca ? 0 : err_wrap(err, "inspect.ca");
}

static int
set_up(struct keeper *k, struct err *err)
{
    struct bundle_view *view;
    k->shared = shared_map(k->start.shared, true);
    if (!k->shared)
        return err_errno(err, "mapping shared memory");
    close(k->start.shared);
    k->snapshot = make_snapshot(k->start.bundle, k->start.generation, &view, err);
    if (!k->snapshot)
        return -1;
    k->leaf_public = leaf_key_public(snapshot_blob(k->snapshot, "leaf-public"), err);
    return k->leaf_public ? load_ca(k, snapshot_blob(k->snapshot, "inspect-ca"), err) : -1;
}

static void
open_doors(struct keeper *k)
{
    for (int i = 0; i < k->start.keeper_count; i++) {
        struct door *d = &k->doors[i];
        *d = (struct door){.keeper = k, .worker = (unsigned)i, .tokens_ms = RATE_BURST * LEAF_COST_MS, .at_ms = loop_now_ms(k->loop)};
        d->channel = channel_new(k->loop, k->start.keepers[i], on_worker, d);
        channel_send(d->channel, LEAF_FRAME_STARTED, slice_of("", 0), NULL, 0);
    }
}

static void
tear_down(struct keeper *k)
{
    timer_stop(&k->forget_before);
    for (int i = 0; i < k->start.keeper_count; i++)
        channel_free(k->doors[i].channel);
    channel_free(k->control);
    snapshot_unref(k->before);
    snapshot_unref(k->snapshot);
    EVP_PKEY_free(k->leaf_public);
    ca_free(k->ca);
    loop_free(k->loop);
    shared_unmap(k->shared);
}

int
keeper_main(int argc, char **argv)
{
    static struct keeper k;
    struct err err = {0};
    if (role_begin(ROLE_KEEPER, argc, argv, &k.start, &err) < 0) {
        fprintf(stderr, "sallyport-keeper: %s\n", err.text);
        return err_exit_status(&err);
    }
    k.loop = loop_new();
    if (set_up(&k, &err) < 0 || confine(&k.start, &err) < 0)
        return role_fail(&k.start, &err);
    open_doors(&k);
    k.control = channel_new(k.loop, k.start.control, on_control, &k);
    channel_send(k.control, CONTROL_READY, slice_of("", 0), NULL, 0);
    loop_run(k.loop);
    tear_down(&k);
    return 0;
}
