/* A worker: one loop, one proxy, and nothing else. After start it has no files, no exec and few system calls; everything that
 * it runs by comes as a sealed bundle from the supervisor. */
#include <malloc.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "sallyport/base/diag.h"
#include "sallyport/base/mem.h"
#include "sallyport/net/channel.h"
#include "sallyport/net/doze.h"
#include "sallyport/net/loop.h"
#include "sallyport/net/splice.h"
#include "sallyport/process/bundle.h"
#include "sallyport/process/confine.h"
#include "sallyport/process/role.h"
#include "sallyport/proxy/journal.h"
#include "sallyport/proxy/keeperlink.h"
#include "sallyport/proxy/proxy.h"
#include "sallyport/proxy/snapshot.h"

/* Descriptors kept for everything that is not a connection: loop, channels, listeners, resolvers; and the pipes. */
#define SPARE_FDS ((size_t)128 + 2 * SPLICE_PIPES_MAX)
/* An end that the recorder's queue does not take is not waited for longer than this. */
#define END_MS 2000

struct worker {
    struct loop *loop;
    struct role_start start;
    struct channel *control;
    struct shared *shared;
    struct journal *journal;
    struct proxy *proxy;
    struct timer end;
    int64_t end_by_ms;
    bool ending;
};

/* The view must live as long as the snapshot that was made of it. */
static void
on_snapshot_gone(void *arg)
{
    bundle_close(arg);
}

static struct snapshot *
make_snapshot(struct bundle_view *view, uint64_t generation, struct err *err)
{
    struct guard_options own;
    bundle_own_addresses(bundle_view_blob(view, "own"), bundle_view_blob(view, "listening"), &own);
    struct snapshot *s = snapshot_new(&view->settings, view->blobs, view->blob_count, &own, false, generation, err);
    free((void *)own.own);
    free((void *)own.listeners);
    if (s)
        snapshot_on_free(s, on_snapshot_gone, view);
    else
        bundle_close(view);
    return s;
}

static size_t
connections_max(const struct settings *s)
{
    struct rlimit files;
    size_t possible = 1024;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur != RLIM_INFINITY)
        possible = (size_t)files.rlim_cur;
    /* Each client may have an upstream connection beside its own. */
    possible = possible > 2 * SPARE_FDS ? (possible - SPARE_FDS) / 2 : possible / 4 + 1;
    return s->connections > 0 && (size_t)s->connections < possible ? (size_t)s->connections : possible;
}

/* ---- the end ---- */

static void
end_when_flushed(void *arg)
{
    struct worker *w = arg;
    if (journal_flushed(w->journal) || loop_now_ms(w->loop) >= w->end_by_ms)
        loop_stop(w->loop);
    else
        timer_start(w->loop, &w->end, 1, end_when_flushed, w);
}

/* The exchanges end with their records, which leave at the end of the turn; then so do we. */
static void
begin_end(struct worker *w)
{
    if (w->ending)
        return;
    w->ending = true;
    w->end_by_ms = loop_now_ms(w->loop) + END_MS;
    proxy_stop(w->proxy);
    timer_start(w->loop, &w->end, 0, end_when_flushed, w);
}

static void
on_idle(void *arg)
{
    struct worker *w = arg;
    channel_send(w->control, CONTROL_IDLE, slice_of("", 0), NULL, 0);
}

/* ---- what the supervisor says ---- */

static void
on_bundle(struct worker *w, struct frame *frame)
{
    struct control_bundle told;
    struct bundle_view *view;
    struct err err = {0};
    memcpy(&told, frame->payload.ptr, sizeof told);
    int fd = frame->fds[0];
    frame->fds[0] = -1;
    struct snapshot *s = bundle_open(fd, &view, &err) < 0 ? NULL : make_snapshot(view, told.generation, &err);
    if (!s) {
        diag(DIAG_ALARM, "the new configuration cannot be used, the old one stays: %s", err.text);
        return;
    }
    proxy_set_snapshot(w->proxy, s);
    snapshot_unref(s);
}

static void
on_control(void *owner, enum channel_event event, struct frame *frame)
{
    struct worker *w = owner;
    if (event == CHANNEL_CLOSED) {
        begin_end(w); /* without a supervisor there is nobody to answer to */
        return;
    }
    if (event != CHANNEL_FRAME || !control_allowed(ROLE_SUPERVISOR, frame))
        return;
    if (frame->type == CONTROL_BUNDLE)
        on_bundle(w, frame);
    else if (frame->type == CONTROL_DRAIN)
        proxy_drain(w->proxy, on_idle, w);
    else if (frame->type == CONTROL_STOP)
        begin_end(w);
}

/* ---- start ---- */

static int
listen_all(struct worker *w, struct err *err)
{
    for (int i = 0; i < w->start.socket_count; i++) {
        struct role_socket *s = &w->start.sockets[i];
        if (proxy_listen(w->proxy, s->name, s->fd, s->shared, err) < 0)
            return -1;
        free(s->name);
    }
    return 0;
}

/* OpenSSL reads its configuration while there are files. It would also set up the texts of all its errors, which nobody reads here:
 * what we say of a failure is our own. */
static void
warm_up(void)
{
    OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG | OPENSSL_INIT_NO_LOAD_CRYPTO_STRINGS, NULL);
}

static void
on_lost(void *arg)
{
    struct worker *w = arg;
    shared_add(w->shared, COUNTER_RECORDS_LOST, 1);
}

static int
set_up(struct worker *w, struct err *err)
{
    struct bundle_view *view;
    if (w->start.record_count != 1 || w->start.slot < 0)
        return err_invalid(err, "worker: a slot and one record channel are expected");
    w->shared = shared_map(w->start.shared, true);
    if (!w->shared)
        return err_errno(err, "mapping shared memory");
    close(w->start.shared);
    if (bundle_open(w->start.bundle, &view, err) < 0)
        return -1;
    struct snapshot *s = make_snapshot(view, w->start.generation, err);
    if (!s)
        return -1;
    const struct settings *set = snapshot_settings(s);
    w->journal = journal_new(w->loop, w->start.records[0], set->durability, set->record_format);
    journal_on_lost(w->journal, on_lost, w);
    struct proxy_options o = {.loop = w->loop, .snapshot = s, .journal = w->journal, .shared = w->shared,
                              .worker = (unsigned)w->start.slot, .connections_max = connections_max(set),
                              .keeper = keeper_link_new(w->loop, w->start.keeper_count ? w->start.keepers[0] : -1)};
    w->proxy = proxy_new(&o);
    snapshot_unref(s);
    return 0;
}

static void
tear_down(struct worker *w)
{
    timer_stop(&w->end);
    proxy_free(w->proxy);
    channel_free(w->control);
    journal_free(w->journal);
    loop_free(w->loop);
    shared_unmap(w->shared);
}

int
worker_main(int argc, char **argv)
{
    static struct worker w;
    struct err err = {0};
    doze_setup(); /* before OpenSSL is used */
    if (role_begin(ROLE_WORKER, argc, argv, &w.start, &err) < 0) {
        fprintf(stderr, "sallyport: %s\n", err.text);
        return err_exit_status(&err);
    }
    warm_up();
    w.loop = loop_new();
    /* Nothing of a client is looked at before the process is confined. */
    if (set_up(&w, &err) < 0 || confine(&w.start, &err) < 0 || listen_all(&w, &err) < 0)
        return role_fail(&w.start, &err);
    w.control = channel_new(w.loop, w.start.control, on_control, &w);
    channel_send(w.control, CONTROL_READY, slice_of("", 0), NULL, 0);
    malloc_trim(0); /* reading the settings and making the filter took more than stays */
    loop_run(w.loop);
    tear_down(&w);
    return 0;
}
