/* The checker: everything that a bundle holds compiles here, once, before anybody works by it. Makes the run's leaf key too when it
 * is asked to. Ends with its answer. */
#include <stdio.h>
#include <unistd.h>

#include "sallyport/base/buf.h"
#include "sallyport/base/clock.h"
#include "sallyport/base/diag.h"
#include "sallyport/base/mem.h"
#include "sallyport/net/channel.h"
#include "sallyport/net/loop.h"
#include "sallyport/process/bundle.h"
#include "sallyport/process/role.h"
#include "sallyport/proxy/snapshot.h"
#include "sallyport/tls/mint.h"

#define WARN_BEFORE_S (INT64_C(14) * 86400) /* time to hand a new CA to all sandboxes */
#define LEAF_KEY_MAX 4096

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

static int
answer(int control, struct slice payload, struct err *err)
{
    struct loop *l = loop_new();
    struct channel *c = channel_new(l, control, NULL, NULL);
    bool sent = channel_send(c, CONTROL_CHECKED, payload, NULL, 0);
    channel_free(c);
    loop_free(l);
    return sent ? 0 : err_run(err, "the supervisor is gone");
}

int
checker_main(int argc, char **argv)
{
    struct role_start start;
    struct bundle_view *view;
    struct err err = {0};
    struct buf leaf;
    if (role_begin(ROLE_CHECKER, argc, argv, &start, &err) < 0) {
        fprintf(stderr, "sallyport: %s\n", err.text);
        return err_exit_status(&err);
    }
    if (bundle_open(start.bundle, &view, &err) < 0)
        return role_fail(&start, &err);
    buf_init(&leaf, LEAF_KEY_MAX);
    int rc = compile(view, start.generation, &err);
    if (rc == 0)
        rc = check_ca(view, &err);
    if (rc == 0 && start.leaf)
        rc = make_leaf_key(&leaf, &err);
    rc = rc < 0 ? role_fail(&start, &err) : answer(start.control, buf_slice(&leaf), &err);
    buf_done(&leaf);
    bundle_close(view);
    return rc;
}
