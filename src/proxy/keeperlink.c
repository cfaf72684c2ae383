/* What a worker inspects with, kept in step with the snapshots: leaves that come from the keeper over a channel, and the TLS
 * context for upstreams. Owns the channel; lets nothing but answers in. */
#include "sallyport/proxy/keeperlink.h"

#include <unistd.h>

#include "sallyport/base/digest.h"
#include "sallyport/base/mem.h"
#include "sallyport/net/channel.h"
#include "sallyport/tls/leafwire.h"

struct keeper_link {
    struct loop *loop;
    struct channel *channel; /* NULL: none, or it was closed */
    struct leaf_store *leaves;
    struct upstream_tls *upstream;
    unsigned char leaves_from[SHA256_SIZE], upstream_from[SHA256_SIZE]; /* what they were made of */
};

static void
on_channel(void *owner, enum channel_event event, struct frame *frame)
{
    struct keeper_link *k = owner;
    if (event == CHANNEL_CLOSED) { /* the supervisor is gone too: it holds the other end */
        channel_free(k->channel);
        k->channel = NULL;
        return;
    }
    if (event != CHANNEL_FRAME || !k->leaves)
        return;
    if (frame->type == LEAF_FRAME_ANSWER)
        (void)leaf_store_answer(k->leaves, frame->payload); /* unasked, or nobody waits any more */
    else if (frame->type == LEAF_FRAME_STARTED && frame->payload.len == 0)
        leaf_store_again(k->leaves);
}

static bool
send_question(void *arg, struct slice frame)
{
    struct keeper_link *k = arg;
    return k->channel && channel_send(k->channel, LEAF_FRAME_QUESTION, frame, NULL, 0);
}

struct keeper_link *
keeper_link_new(struct loop *l, int fd)
{
    struct keeper_link *k = mem_zalloc(sizeof *k);
    k->loop = l;
    if (fd >= 0)
        k->channel = channel_new(l, fd, on_channel, k);
    return k;
}

static void
drop_leaves(struct keeper_link *k)
{
    struct leaf_store *old = k->leaves;
    k->leaves = NULL;
    leaf_store_free(old); /* tells who waits */
}

static void
drop_upstream(struct keeper_link *k)
{
    upstream_tls_unref(k->upstream);
    k->upstream = NULL;
}

void
keeper_link_free(struct keeper_link *k)
{
    if (!k)
        return;
    drop_leaves(k);
    drop_upstream(k);
    channel_free(k->channel);
    free(k);
}

static struct slice
blob(const struct snapshot *s, const char *name)
{
    struct slice bytes = snapshot_blob(s, name);
    return bytes.ptr ? bytes : slice_of("", 0);
}

static int
set_leaves(struct keeper_link *k, const struct snapshot *s, struct err *err)
{
    unsigned char from[SHA256_SIZE];
    struct leaf_store_options o = {.key_pem = blob(s, "leaf-key"), .ca_pem = blob(s, "inspect-ca"), .send = send_question, .arg = k};
    sha256_two(o.key_pem, o.ca_pem, from);
    if (k->leaves && memcmp(from, k->leaves_from, sizeof from) == 0)
        return 0;
    drop_leaves(k);
    k->leaves = leaf_store_new(&o, err);
    memcpy(k->leaves_from, from, sizeof from);
    return k->leaves ? 0 : -1;
}

static int
set_upstream(struct keeper_link *k, const struct snapshot *s, struct err *err)
{
    unsigned char from[SHA256_SIZE];
    struct slice own = blob(s, "upstream-ca"), roots = own.len ? own : blob(s, "system-roots");
    sha256(roots, from);
    if (k->upstream && memcmp(from, k->upstream_from, sizeof from) == 0)
        return 0;
    drop_upstream(k);
    k->upstream = upstream_tls_new(roots, err);
    memcpy(k->upstream_from, from, sizeof from);
    return k->upstream ? 0 : err_wrap(err, "upstream.ca_file");
}

int
keeper_link_set(struct keeper_link *k, const struct snapshot *s, struct err *err)
{
    bool off = snapshot_settings(s)->inspect == INSPECT_OFF;
    if (!off && set_leaves(k, s, err) == 0 && set_upstream(k, s, err) == 0)
        return 0;
    drop_leaves(k);
    drop_upstream(k);
    return off ? 0 : err_wrap(err, "inspection");
}

struct leaf_store *
keeper_link_leaves(struct keeper_link *k)
{
    return k->channel ? k->leaves : NULL;
}

struct upstream_tls *
keeper_link_upstream(struct keeper_link *k)
{
    return k->upstream;
}
