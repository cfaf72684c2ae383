/* The recorder's end of a journal's channel: takes batches, puts each record on the list of
 * effects, acknowledges as it is told to. The other users of channels (supervisor, worker) are not
 * played. */
#include <stdlib.h>
#include <string.h>

#include "fakes/world.h"
#include "sallyport/base/mem.h"
#include "sallyport/net/channel.h"
#include "sallyport/record/frame.h"

struct channel {
    struct pollee pollee;
    channel_fn *on_event;
    void *owner;
    bool want_writable;
};

static struct recorder {
    enum recorder_kind kind;
    struct channel *journal;
    uint64_t epoch, taken, acked; /* numbers of batches */
    uint64_t tickets, acked_tickets;
    bool say_state, say_resync, say_gone;
} recorder;

void
recorder_reset(void)
{
    memset(&recorder, 0, sizeof recorder);
}

void
world_recorder(enum recorder_kind kind)
{
    bool was_broken = recorder.kind == RECORDER_BROKEN;
    recorder.kind = kind;
    recorder.say_state = kind == RECORDER_BROKEN || was_broken;
    recorder.say_gone = kind == RECORDER_GONE;
    if (kind == RECORDER_RESTART) {
        recorder.say_resync = true;
        recorder.kind = RECORDER_OK;
    }
}

static void
say(struct channel *c, uint16_t type, const void *data, size_t len)
{
    struct frame f = {.type = type, .payload = slice_of(data, len)};
    c->on_event(c->owner, CHANNEL_FRAME, &f);
}

static bool
acknowledge(struct channel *c)
{
    if (recorder.kind != RECORDER_OK || recorder.acked >= recorder.taken)
        return false;
    recorder.acked = recorder.taken;
    recorder.acked_tickets = recorder.tickets;
    effect_add(EFFECT_KEPT, "", recorder.acked_tickets, NULL);
    struct record_ack ack = {recorder.epoch, recorder.acked};
    say(c, RECORD_FRAME_ACK, &ack, sizeof ack);
    return true;
}

static bool
say_news(struct channel *c)
{
    uint64_t nonce = 7;
    char fine = recorder.kind != RECORDER_BROKEN;
    if (recorder.say_gone) {
        recorder.say_gone = false;
        c->on_event(c->owner, CHANNEL_CLOSED, NULL);
        return true;
    }
    if (recorder.say_state) {
        recorder.say_state = false;
        say(c, RECORD_FRAME_STATE, &fine, 1);
        return true;
    }
    if (recorder.say_resync) {
        recorder.say_resync = false;
        recorder.taken = recorder.acked;
        say(c, RECORD_FRAME_RESYNC, &nonce, sizeof nonce);
        return true;
    }
    return false;
}

static bool
fire_channel(void *object)
{
    struct channel *c = object;
    bool any = say_news(c);
    if (c->pollee.dead)
        return true;
    any |= acknowledge(c);
    if (!c->pollee.dead && c->want_writable && recorder.kind != RECORDER_FULL &&
        recorder.kind != RECORDER_GONE) {
        c->on_event(c->owner, CHANNEL_WRITABLE, NULL);
        any = true;
    }
    return any;
}

/* A batch that is sent again after a restart was seen before: its records are not counted twice
 * here, as the real recorder does not write them twice. */
static void
take_batch(struct slice payload)
{
    struct record_batch batch;
    struct slice items;
    struct record_item item;
    if (!record_batch_check(payload, &batch, &items)) {
        world_fault("the journal sent a batch that record_batch_check refuses");
        return;
    }
    recorder.epoch = batch.epoch;
    recorder.taken = batch.number;
    while (record_item_next(&items, &item)) {
        bool again = false;
        cleanup_free char *json = mem_printf("{%.*s}", SLICE_ARG(item.draft));
        for (size_t i = 0; i < world.effect_count && !again; i++)
            again = world.effects[i].kind == EFFECT_RECORD &&
                    strcmp(world.effects[i].text, json) == 0 &&
                    recorder.acked_tickets < world.effects[i].ticket;
        if (!again)
            effect_add(EFFECT_RECORD, json, ++recorder.tickets, NULL);
    }
}

struct channel *
channel_new(struct loop *l, int fd, channel_fn *on_event, void *owner)
{
    (void)l;
    struct channel *c = mem_zalloc(sizeof *c);
    c->on_event = on_event;
    c->owner = owner;
    if (fd == WORLD_RECORDER_FD)
        recorder.journal = c;
    pollee_add(&c->pollee, fire_channel, c);
    return c;
}

void
channel_free(struct channel *c)
{
    if (c)
        pollee_drop(&c->pollee, free);
}

bool
channel_send(struct channel *c, uint16_t type, struct slice payload, const int *fds, int fd_count)
{
    (void)fds, (void)fd_count;
    if (c != recorder.journal || recorder.kind == RECORDER_FULL || recorder.kind == RECORDER_GONE)
        return false;
    if (type == RECORD_FRAME_BATCH)
        take_batch(payload);
    return true;
}

void
channel_want_writable(struct channel *c, bool want)
{
    c->want_writable = want;
}

int
channel_fd(const struct channel *c)
{
    (void)c;
    return WORLD_RECORDER_FD;
}

/* Processes are not played: who restarts them never asks. */
void
channel_drain(struct channel *c)
{
    (void)c;
}

uint64_t
channel_id(int fd)
{
    return (uint64_t)(unsigned)fd;
}

int
channel_pair(int fds[2])
{
    fds[0] = fds[1] = -1;
    return -1;
}
