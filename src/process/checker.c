/* The checker: everything that a bundle holds compiles here, once, before anybody works by it. Makes the run's leaf key instead when
 * it is asked to. Confined as a worker is. Ends with its answer. */
#include <openssl/crypto.h>
#include <stdio.h>
#include <unistd.h>

#include "sallyport/base/buf.h"
#include "sallyport/base/clock.h"
#include "sallyport/base/diag.h"
#include "sallyport/base/mem.h"
#include "sallyport/net/channel.h"
#include "sallyport/net/loop.h"
#include "sallyport/process/bundle.h"
#include "sallyport/process/confine.h"
#include "sallyport/process/role.h"
#include "sallyport/proxy/snapshot.h"
#include "sallyport/tls/mint.h"

#define WARN_BEFORE_S (INT64_C(14) * 86400) /* time to hand a new CA to all sandboxes */
#define LEAF_KEY_MAX 4096
#define ALONE_MAX_S 90 /* more than the supervisor waits */

static int
compile(const struct bundle_view *v, uint64_t generation, struct err *err)
{
    struct guard_options own;
    bundle_own_addresses(bundle_view_blob(v, "own"), bundle_view_blob(v, "listening"), &own);
    struct snapshot *s = snapshot_new(&v->settings, v->blobs, v->blob_count, &own, true, generation, err);
    free((void *)own.own);
    free((void *)own.listeners);
    snapshot_unref(s);
    return s ? 0 : -1;
}

/* Says early what would be wrong with the CA's certificate. */
static int
check_ca(const struct bundle_view *v, struct err *err)
{
    struct ca_facts facts;
    struct slice pem = bundle_view_blob(v, "inspect-ca");
    cleanup_free char *path = mem_printf("%s/ca.pem", v->settings.ca_dir ? v->settings.ca_dir : ".");
    if (!pem.ptr)
        return 0;
    if (ca_describe(pem, &facts, err) < 0)
        return err_wrap(err, "inspect.ca: %s", path);
    int rc = 0;
    int64_t now_s = clock_wall_us() / 1000000;
    if (now_s >= facts.not_after_s)
        rc = err_invalid(err, "inspect.ca: %s: expired at %s", path, facts.not_after);
    else if (facts.not_after_s - now_s < WARN_BEFORE_S)
        diag(DIAG_WARNING, "inspect.ca: %s: expires at %s", path, facts.not_after);
    ca_facts_done(&facts);
    return rc;
}

static int
make_leaf_key(struct buf *out, struct err *err)
{
    char *private_pem, *public_pem;
    if (leaf_key_generate(&private_pem, &public_pem, err) < 0)
        return -1;
    buf_append(out, private_pem, strlen(private_pem) + 1);
    buf_append(out, public_pem, strlen(public_pem) + 1);
    mem_wipe(private_pem, strlen(private_pem));
    free(private_pem);
    free(public_pem);
    return out->overflow ? err_run(err, "a leaf key is too long") : 0;
}

/* What is compiled is the operator's, but need not be the work of somebody who may do what this user may: nothing but memory and the
 * channel is left before it is looked at. */
static int
check_all(const struct role_start *start, const struct bundle_view *v, struct buf *leaf, struct err *err)
{
    OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG, NULL); /* a file */
    if (confine(start, err) < 0)
        return -1;
    if (start->leaf)
        return make_leaf_key(leaf, err);
    return compile(v, start->generation, err) < 0 || check_ca(v, err) < 0 ? -1 : 0;
}

static int
answer(const struct role_start *start, struct channel *control)
{
    struct bundle_view *view;
    struct err err = {0};
    struct buf leaf;
    if (bundle_open(start->bundle, &view, &err) < 0)
        return role_fail_by(control, &err);
    buf_init(&leaf, LEAF_KEY_MAX);
    int rc = check_all(start, view, &leaf, &err);
    if (rc < 0)
        rc = role_fail_by(control, &err);
    else
        channel_send(control, CONTROL_CHECKED, buf_slice(&leaf), NULL, 0);
    buf_done(&leaf);
    bundle_close(view);
    return rc;
}

int
checker_main(int argc, char **argv)
{
    struct role_start start;
    struct err err = {0};
    if (role_begin(ROLE_CHECKER, argc, argv, &start, &err) < 0) {
        fprintf(stderr, "sallyport: %s\n", err.text);
        return err_exit_status(&err);
    }
    alarm(ALONE_MAX_S); /* who is to end it may be gone */
    struct loop *l = loop_new();
    struct channel *control = channel_new(l, start.control, NULL, NULL);
    int rc = answer(&start, control);
    channel_free(control);
    loop_free(l);
    return rc;
}
