/* A worker's side of the recorder. Drafts of a turn are one frame; frames stay until they are acknowledged, so that a
 * recorder that was restarted gets again what it may have lost. Never writes a file itself. */
#include "sallyport/proxy/journal.h"

#include "sallyport/base/diag.h"
#include "sallyport/base/mem.h"
#include "sallyport/base/random.h"
#include "sallyport/net/channel.h"
#include "sallyport/record/frame.h"

/* New requests are refused when half of the room is taken: the other half is for the records of what is open already. */
#define AVAILABLE_MAX (JOURNAL_UNACKED_MAX / 2)
/* A recorder that has not acknowledged anything for so long does not keep records, whatever it said last. */
#define STALL_MS 5000
/* The recorder adds the number and two hashes to a draft, and the line must still fit. */
#define DRAFT_MAX (RECORD_LINE_MAX - 256)

struct batch {
    struct list_node node;
    uint64_t number, last_ticket;
    int64_t made_ms;
    bool sent;
    size_t len;
    char bytes[];
};

struct journal {
    struct loop *loop;
    struct channel *channel;
    enum durability durability;
    enum record_format format;
    uint64_t epoch, next_number;
    uint64_t last_ticket;   /* given out */
    uint64_t sealed;        /* tickets up to which are in batches */
    uint64_t handed, kept;  /* tickets up to which that is so */
    struct buf open;        /* the frame of this turn, and what nobody waits for of those before it */
    bool hurry;             /* it must leave at the turn's end */
    struct buf draft, key;  /* scratch */
    struct list batches;    /* not acknowledged, in order; those not sent are behind those sent */
    size_t unacked;         /* bytes in batches and open */
    struct list_node *next_unsent; /* in batches; NULL: all are handed over */
    struct record_sync sync; /* to be said before anything else, when nonce is not 0 */
    bool recorder_fine, stalled, closed;
    struct list wait_handed, wait_kept, wait_refused, wait_ready;
    struct timer stall, hold;
    uint64_t lost;          /* records not taken since that was last said */
    void (*on_lost)(void *arg);
    void *on_lost_arg;
};

static bool
usable(const struct journal *j)
{
    return j->recorder_fine && !j->stalled && !j->closed;
}

bool
journal_available(const struct journal *j)
{
    return usable(j) && j->unacked < AVAILABLE_MAX;
}

bool
journal_flushed(const struct journal *j)
{
    return j->closed || (!j->next_unsent && buf_len(&j->open) == 0);
}

/* ---- waiting ---- */

static void
put_wait(struct list *list, struct journal_wait *w)
{
    list_append(list, &w->node);
    w->list = list;
}

void
journal_cancel(struct journal_wait *w)
{
    if (!w->list)
        return;
    list_remove(w->list, &w->node);
    w->list = NULL;
}

void
journal_wait(struct journal *j, struct journal_wait *w, uint64_t ticket, bool handed, void (*on_done)(void *, bool), void *owner)
{
    journal_cancel(w);
    w->ticket = ticket;
    w->handed = handed || j->durability == DURABILITY_BUFFERED;
    w->on_done = on_done;
    w->owner = owner;
    if (ticket == 0 || !usable(j)) {
        put_wait(&j->wait_refused, w);
    } else if (ticket <= (w->handed ? j->handed : j->kept)) {
        put_wait(&j->wait_ready, w);
    } else {
        put_wait(w->handed ? &j->wait_handed : &j->wait_kept, w);
        j->hurry |= ticket > j->sealed;
    }
}

static void
refuse_waits(struct journal *j, struct list *list)
{
    while (!list_empty(list)) {
        struct journal_wait *w = list_entry(list_first(list), struct journal_wait, node);
        journal_cancel(w);
        put_wait(&j->wait_refused, w);
    }
}

static void
become_unusable(struct journal *j)
{
    refuse_waits(j, &j->wait_handed);
    refuse_waits(j, &j->wait_kept);
}

/* Tickets of a list grow, as they are waited for when they are given out; one that does not is woken a little later. */
static bool
wake_list(struct list *list, uint64_t upto, bool kept)
{
    bool any = false;
    for (struct list_node *n = list_first(list); n; n = list_first(list)) {
        struct journal_wait *w = list_entry(n, struct journal_wait, node);
        if (w->ticket > upto)
            break;
        journal_cancel(w);
        w->on_done(w->owner, kept);
        any = true;
    }
    return any;
}

/* ---- batches ---- */

static void
seal_open(struct journal *j)
{
    if (buf_len(&j->open) == 0)
        return;
    struct batch *b = mem_alloc(sizeof *b + buf_len(&j->open));
    *b = (struct batch){.number = j->next_number++, .last_ticket = j->last_ticket, .made_ms = loop_now_ms(j->loop), .len = buf_len(&j->open)};
    memcpy(b->bytes, buf_slice(&j->open).ptr, b->len);
    list_append(&j->batches, &b->node);
    if (!j->next_unsent)
        j->next_unsent = &b->node;
    buf_clear(&j->open);
    j->sealed = j->last_ticket;
    j->hurry = false;
}

static bool
send_sync(struct journal *j)
{
    if (j->sync.nonce == 0)
        return true;
    if (!channel_send(j->channel, RECORD_FRAME_SYNC, slice_of(&j->sync, sizeof j->sync), NULL, 0))
        return false;
    j->sync.nonce = 0;
    return true;
}

static bool
send_batch(struct journal *j, struct batch *b)
{
    if (!channel_send(j->channel, RECORD_FRAME_BATCH, slice_of(b->bytes, b->len), NULL, 0))
        return false;
    b->sent = true;
    if (b->last_ticket > j->handed)
        j->handed = b->last_ticket;
    return true;
}

static void
flush(struct journal *j)
{
    seal_open(j);
    if (j->closed)
        return;
    bool room = send_sync(j);
    while (room && j->next_unsent) {
        struct batch *b = list_entry(j->next_unsent, struct batch, node);
        room = send_batch(j, b);
        if (room)
            j->next_unsent = list_next(&j->batches, &b->node);
    }
    channel_want_writable(j->channel, !room);
}

static void
on_stall_check(void *arg)
{
    struct journal *j = arg;
    struct list_node *n = list_first(&j->batches);
    if (!n)
        return;
    if (loop_now_ms(j->loop) - list_entry(n, struct batch, node)->made_ms >= STALL_MS && !j->stalled) {
        j->stalled = true;
        become_unusable(j);
    }
    timer_start(j->loop, &j->stall, 1000, on_stall_check, j);
}

static void
on_held(void *arg)
{
    struct journal *j = arg;
    j->hurry = true; /* the turn's end sends */
}

/* What a turn wrote leaves in one frame, and those who wait for no more than that go on in the same turn. */
static void
on_turn_end(void *arg)
{
    struct journal *j = arg;
    bool woke;
    do {
        if (j->hurry || j->sync.nonce || j->next_unsent)
            flush(j);
        woke = wake_list(&j->wait_refused, UINT64_MAX, false);
        woke |= wake_list(&j->wait_ready, UINT64_MAX, true);
        woke |= wake_list(&j->wait_handed, j->handed, true);
        woke |= wake_list(&j->wait_kept, j->kept, true);
    } while (woke);
    if (buf_len(&j->open) && !timer_running(&j->hold))
        timer_start(j->loop, &j->hold, JOURNAL_HOLD_MS, on_held, j);
    if (!list_empty(&j->batches) && !timer_running(&j->stall))
        timer_start(j->loop, &j->stall, 1000, on_stall_check, j);
}

/* ---- what the recorder says ---- */

static void
say_lost(struct journal *j)
{
    if (j->lost == 0 || !journal_available(j))
        return;
    diag(DIAG_ALARM, "records are taken again; %llu could not be, and are missing from the decision log", (unsigned long long)j->lost);
    j->lost = 0;
}

static void
on_ack(struct journal *j, struct slice payload)
{
    struct record_ack ack;
    if (payload.len != sizeof ack)
        return;
    memcpy(&ack, payload.ptr, sizeof ack);
    if (ack.epoch != j->epoch)
        return;
    for (struct list_node *n = list_first(&j->batches); n; n = list_first(&j->batches)) {
        struct batch *b = list_entry(n, struct batch, node);
        if (b->number > ack.number || !b->sent)
            break;
        j->kept = b->last_ticket;
        j->unacked -= b->len;
        list_remove(&j->batches, &b->node);
        free(b);
        j->stalled = false;
    }
    say_lost(j);
}

static void
on_resync(struct journal *j, struct slice payload)
{
    uint64_t nonce;
    if (payload.len != sizeof nonce)
        return;
    memcpy(&nonce, payload.ptr, sizeof nonce);
    seal_open(j);
    j->sync = (struct record_sync){.nonce = nonce, .epoch = j->epoch, .first = j->next_number, .last = j->next_number - 1};
    struct list_node *first = list_first(&j->batches);
    if (first)
        j->sync.first = list_entry(first, struct batch, node)->number;
    for (struct list_node *n = first; n; n = list_next(&j->batches, n))
        list_entry(n, struct batch, node)->sent = false;
    j->next_unsent = first;
}

static void
on_state(struct journal *j, struct slice payload)
{
    if (payload.len != 1)
        return;
    j->recorder_fine = payload.ptr[0] == 1;
    if (!j->recorder_fine)
        become_unusable(j);
}

static void
on_channel(void *owner, enum channel_event event, struct frame *frame)
{
    struct journal *j = owner;
    switch (event) {
    case CHANNEL_FRAME:
        if (frame->type == RECORD_FRAME_ACK)
            on_ack(j, frame->payload);
        else if (frame->type == RECORD_FRAME_RESYNC)
            on_resync(j, frame->payload);
        else if (frame->type == RECORD_FRAME_STATE)
            on_state(j, frame->payload);
        return;
    case CHANNEL_WRITABLE:
        channel_want_writable(j->channel, false); /* the turn's end sends */
        return;
    case CHANNEL_CLOSED:
        j->closed = true;
        become_unusable(j);
        return;
    }
}

/* ---- taking records ---- */

static uint64_t
take(struct journal *j, const struct record_item *item)
{
    size_t size = record_item_size(item);
    if (j->unacked + size > JOURNAL_UNACKED_MAX)
        return 0;
    if (buf_len(&j->open) && buf_room(&j->open) < size)
        seal_open(j);
    size_t before = buf_len(&j->open);
    struct record_batch head = {j->epoch, j->next_number, (uint8_t)j->durability};
    if ((before == 0 && !record_batch_begin(&j->open, &head)) || !record_batch_add(&j->open, item)) {
        if (before == 0)
            buf_clear(&j->open);
        return 0;
    }
    j->unacked += buf_len(&j->open) - before;
    return ++j->last_ticket;
}

static uint64_t
add(struct journal *j, const struct record *r, bool fold)
{
    buf_clear(&j->draft);
    buf_clear(&j->key);
    if (j->closed || !record_draft(&j->draft, j->format, r) || (fold && !record_fold_key(&j->key, r)))
        return 0;
    struct record_item item = {.fold = fold, .event = r->event, .key = buf_slice(&j->key), .draft = buf_slice(&j->draft)};
    uint64_t ticket = take(j, &item);
    j->hurry |= r->allow; /* it will be waited for */
    return ticket;
}

uint64_t
journal_add(struct journal *j, const struct record *r, bool fold)
{
    uint64_t ticket = add(j, r, fold);
    if (ticket == 0) {
        j->lost++;
        if (j->on_lost)
            j->on_lost(j->on_lost_arg);
    }
    return ticket;
}

void
journal_on_lost(struct journal *j, void (*on_lost)(void *arg), void *arg)
{
    j->on_lost = on_lost;
    j->on_lost_arg = arg;
}

void
journal_set(struct journal *j, enum durability durability, enum record_format format)
{
    if (j->durability == durability && j->format == format)
        return;
    seal_open(j);
    j->durability = durability;
    j->format = format;
}

struct journal *
journal_new(struct loop *l, int channel_fd, enum durability durability, enum record_format format)
{
    struct journal *j = mem_zalloc(sizeof *j);
    j->loop = l;
    j->durability = durability;
    j->format = format;
    random_bytes(&j->epoch, sizeof j->epoch);
    j->next_number = 1;
    j->recorder_fine = true;
    buf_init(&j->open, CHANNEL_FRAME_MAX);
    buf_init(&j->draft, DRAFT_MAX);
    buf_init(&j->key, RECORD_KEY_MAX);
    list_init(&j->batches);
    list_init(&j->wait_handed);
    list_init(&j->wait_kept);
    list_init(&j->wait_refused);
    list_init(&j->wait_ready);
    j->channel = channel_new(l, channel_fd, on_channel, j);
    loop_on_turn_end(l, on_turn_end, j);
    return j;
}

/* Only behind the loop's last turn: the loop keeps the hook for life. */
void
journal_free(struct journal *j)
{
    if (!j)
        return;
    timer_stop(&j->stall);
    timer_stop(&j->hold);
    channel_free(j->channel);
    while (!list_empty(&j->batches)) {
        struct batch *b = list_entry(list_first(&j->batches), struct batch, node);
        list_remove(&j->batches, &b->node);
        free(b);
    }
    buf_done(&j->open);
    buf_done(&j->draft);
    buf_done(&j->key);
    free(j);
}
