/* The recorder: the only process with the decision log open. Takes batches of drafts from the workers, makes them lines of
 * one chain, writes a turn's lines at once, and acknowledges what is kept. Believes a worker nothing but that it wants this
 * reported; parses no JSON. */
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sallyport/base/clock.h"
#include "sallyport/base/diag.h"
#include "sallyport/base/encoding.h"
#include "sallyport/base/map.h"
#include "sallyport/base/mem.h"
#include "sallyport/base/random.h"
#include "sallyport/net/channel.h"
#include "sallyport/net/loop.h"
#include "sallyport/process/bundle.h"
#include "sallyport/process/confine.h"
#include "sallyport/process/fold.h"
#include "sallyport/process/logwriter.h"
#include "sallyport/process/role.h"
#include "sallyport/record/checkpoint.h"
#include "sallyport/record/frame.h"

#define TICK_MS 1000
/* How much of the log's end is looked at for duplicates: what all workers may have had unacknowledged, as lines. */
#define TAIL_PER_WORKER (3ull * JOURNAL_UNACKED_MAX)
#define TAIL_MAX (64ull << 20)
#define ROTATE_RETRY_MS 60000
#define COMPLAINTS_MAX 10 /* about one worker */

struct held {
    struct list_node node;
    size_t len;
    char bytes[];
};

/* One worker's slot: the channel of the worker that runs there. It outlives the recorder, not the worker. */
struct slot {
    struct recorder *recorder;
    struct channel *channel;
    uint64_t id;             /* of the channel */
    unsigned number;
    bool over;               /* nothing more is taken from it: the worker is gone, or lied */
    bool told_over;          /* the supervisor has heard it */
    bool taken_due;          /* the supervisor is to hear that it was taken up, when all before it is written */
    uint64_t epoch, taken;   /* of the last batch that was taken */
    bool ack_due;
    uint64_t await_nonce;    /* not 0: waiting for SYNC; batches before it are held */
    bool resync_due;         /* RESYNC is to be sent */
    bool lost;               /* a batch found no room: all is asked for again when there is */
    uint64_t resend_last;    /* batches up to here are compared with the log's end */
    unsigned complaints;     /* said about this worker */
    struct list held;
    size_t held_bytes;
};

struct recorder {
    struct loop *loop;
    struct role_start start;
    struct channel *control;
    struct shared *shared;
    struct bundle_view *view;
    struct log_writer log;
    struct fold_table *fold;
    struct checkpoint_key *key;
    struct slot slots[SHARED_WORKERS_MAX];
    unsigned slot_count, syncing; /* slots that wait for SYNC or take what was sent again */
    struct map *tail;        /* digests of the log's end while something is sent again; NULL otherwise */
    struct timer tick;
    struct buf draft;
    char boot[33];
    bool sync_due;           /* some batch wants to be on disk */
    bool waiting_file, told_unavailable, stopping, supervisor_gone;
    int64_t rotate_after_ms;
    uint64_t since_checkpoint;
    int64_t checkpoint_ms;
};

static enum record_format
format(const struct recorder *r)
{
    return r->view->settings.record_format;
}

/* ---- its own records ---- */

static bool
add_own(struct recorder *r, const struct record *record)
{
    bool room;
    buf_clear(&r->draft);
    if (!record_draft(&r->draft, format(r), record))
        return false;
    return logwriter_add(&r->log, buf_slice(&r->draft), &room);
}

static void
add_event(struct recorder *r, enum record_event event, const char *cause, struct slice extra)
{
    struct record record = {.event = event, .wall_us = loop_wall_us(r->loop), .extra = extra};
    if (cause)
        record.cause = slice_str(cause);
    if (!add_own(r, &record))
        diag(DIAG_ALARM, "a %s record could not be written", record_event_text(event));
}

/* The first record of a start and of a file: who goes on, and from where. */
static void
add_start(struct recorder *r, int torn)
{
    char extra[256];
    int n = snprintf(extra, sizeof extra, "\"boot\":\"%s\",\"last_hash\":\"%s\"", r->boot, r->log.chain.prev);
    if (torn > 0)
        n += snprintf(extra + n, sizeof extra - (size_t)n, ",\"torn_bytes\":%d", torn);
    add_event(r, RECORD_START, NULL, slice_of(extra, (size_t)n));
}

static void
add_checkpoint(struct recorder *r)
{
    struct buf members;
    uint64_t head = r->log.chain.next_seq - 1;
    char hash[SHA256_HEX_SIZE];
    memcpy(hash, r->log.chain.prev, sizeof hash);
    buf_init(&members, 4096);
    if (checkpoint_members(r->key, &r->log.chain, &members)) {
        add_event(r, RECORD_CHECKPOINT, NULL, buf_slice(&members));
        shared_set_checkpoint(r->shared, head, hash);
        diag(DIAG_NOTICE, "checkpoint %" PRIu64 ":%s", head, hash);
    }
    buf_done(&members);
    r->since_checkpoint = 0;
    r->checkpoint_ms = loop_now_ms(r->loop);
}

static void
add_repeated(void *ctx, const struct fold_entry *e)
{
    struct recorder *r = ctx;
    char first[CLOCK_TEXT_SIZE], last[CLOCK_TEXT_SIZE];
    clock_format_utc(e->first_us, first);
    clock_format_utc(e->last_us, last);
    cleanup_free char *extra = mem_printf("\"of\":\"%s\",%.*s%s\"count\":%" PRIu64 ",\"first\":\"%s\",\"last\":\"%s\"",
                                          e == &r->fold->common ? "any" : record_event_text((enum record_event)e->event),
                                          (int)e->key_len, e->key, e->key_len ? "," : "", e->folded, first, last);
    add_event(r, RECORD_REPEATED, NULL, slice_str(extra));
    r->since_checkpoint++;
}

/* ---- drafts of workers ---- */

/* A worker that was taken over must not fill the operator's journal either. */
static void
complain(struct slot *s, const char *what)
{
    if (s->complaints++ < COMPLAINTS_MAX)
        diag(DIAG_ALARM, "worker %u sent %s", s->number, what);
}

static bool
seen_before(struct recorder *r, struct slice draft)
{
    unsigned char digest[SHA256_SIZE];
    sha256(draft, digest);
    return map_get(r->tail, slice_of(digest, sizeof digest)) != NULL;
}

static void
take_item(struct recorder *r, struct slot *s, const struct record_item *item, bool compare)
{
    if (!record_item_is_true(item)) {
        complain(s, "something that is no record of its own; it was left out");
        return;
    }
    if (compare && r->tail && seen_before(r, item->draft))
        return;
    if (item->fold && !fold_note(r->fold, item->event, item->key, loop_wall_us(r->loop)))
        return;
    if (!logwriter_add_sound(&r->log, item->draft)) {
        complain(s, "a record that is too long; it was left out");
        return;
    }
    if (++r->since_checkpoint >= CHECKPOINT_RECORDS)
        add_checkpoint(r);
}

/* All of a batch or nothing of it, so that a number acknowledges it. The room is looked at first: a frame's lines are at most
 * the frame and what the chain adds to each of its records. */
static bool
has_room(const struct recorder *r, struct slice frame)
{
    return buf_room(&r->log.pending) > 4 * frame.len + (size_t)4 * RECORD_LINE_MAX;
}

static void
slot_settled(struct recorder *r)
{
    if (r->syncing > 0 && --r->syncing == 0 && r->tail) {
        map_free(r->tail, NULL);
        r->tail = NULL;
    }
}

static void slot_over(struct slot *s);

/* Nothing that it sends can be believed from here on: its worker is ended, and a fresh one gets a fresh channel. */
static void
end_for_a_lie(struct slot *s, const char *what)
{
    complain(s, what);
    shutdown(channel_fd(s->channel), SHUT_RDWR);
    slot_over(s);
}

static void
take_batch(struct recorder *r, struct slot *s, struct slice frame)
{
    struct record_batch batch;
    struct record_item item;
    struct slice items;
    if (!record_batch_check(frame, &batch, &items)) {
        end_for_a_lie(s, "a batch that is none");
        return;
    }
    if (s->lost || !has_room(r, frame)) {
        s->lost = true;
        return;
    }
    if (batch.epoch != s->epoch && s->resend_last) {
        /* The worker that was sending again is no more. */
        s->resend_last = 0;
        slot_settled(r);
    }
    s->epoch = batch.epoch;
    s->taken = batch.number;
    while (record_item_next(&items, &item))
        take_item(r, s, &item, batch.number <= s->resend_last);
    r->sync_due |= batch.durability == DURABILITY_SYNCED;
    s->ack_due = true;
}

/* ---- sending again ---- */

static void
ask_again(struct recorder *r, struct slot *s)
{
    if (s->await_nonce == 0 && s->resend_last == 0)
        r->syncing++;
    random_bytes(&s->await_nonce, sizeof s->await_nonce);
    s->await_nonce |= 1; /* 0 is "not waiting" */
    s->resync_due = !channel_send(s->channel, RECORD_FRAME_RESYNC, slice_of(&s->await_nonce, sizeof s->await_nonce), NULL, 0);
    s->lost = false;
}

/* A worker keeps no more than this unacknowledged, so an honest one never sends more before it answers. */
static void
hold_batch(struct slot *s, struct slice frame)
{
    if (frame.len > JOURNAL_UNACKED_MAX - s->held_bytes) {
        end_for_a_lie(s, "more than may be unacknowledged, without an answer to what it was asked");
        return;
    }
    s->held_bytes += frame.len;
    struct held *h = mem_alloc(sizeof *h + frame.len);
    *h = (struct held){.len = frame.len};
    memcpy(h->bytes, frame.ptr, frame.len);
    list_append(&s->held, &h->node);
}

/* What came before SYNC: a worker that lives sends it again (living), so only what a dead one left is taken. */
static void
release_held(struct recorder *r, struct slot *s, bool living, uint64_t living_epoch)
{
    while (!list_empty(&s->held)) {
        struct held *h = list_entry(list_first(&s->held), struct held, node);
        struct slice frame = slice_of(h->bytes, h->len), items;
        struct record_batch batch;
        list_remove(&s->held, &h->node);
        s->held_bytes -= h->len;
        if (record_batch_check(frame, &batch, &items) && (!living || batch.epoch != living_epoch)) {
            s->resend_last = batch.number;
            s->epoch = batch.epoch;
            take_batch(r, s, frame);
        }
        free(h);
    }
}

static void
on_sync(struct recorder *r, struct slot *s, struct slice payload)
{
    struct record_sync sync;
    if (payload.len != sizeof sync)
        return;
    memcpy(&sync, payload.ptr, sizeof sync);
    if (s->await_nonce == 0 || sync.nonce != s->await_nonce)
        return;
    release_held(r, s, true, sync.epoch);
    s->await_nonce = 0;
    s->epoch = sync.epoch;
    s->resend_last = sync.last >= sync.first ? sync.last : 0;
    s->taken = 0;
    s->ack_due = false;
    if (s->resend_last == 0)
        slot_settled(r);
}

static void
tell_over(struct slot *s)
{
    struct control_channel which = {s->number, s->id};
    if (s->over && !s->told_over)
        s->told_over = channel_send(s->recorder->control, CONTROL_CHANNEL_ENDED, slice_of(&which, sizeof which), NULL, 0);
}

/* What it had sent before is still taken. */
static void
slot_over(struct slot *s)
{
    struct recorder *r = s->recorder;
    bool counted = s->await_nonce != 0 || s->resend_last != 0;
    if (s->over)
        return;
    s->over = true;
    release_held(r, s, false, 0);
    s->await_nonce = s->resend_last = 0;
    s->ack_due = s->resync_due = s->lost = false;
    if (counted)
        slot_settled(r);
    tell_over(s);
}

static void
on_batch(struct recorder *r, struct slot *s, struct slice payload)
{
    struct record_batch batch;
    struct slice items;
    if (s->await_nonce) {
        if (record_batch_check(payload, &batch, &items))
            hold_batch(s, payload);
        else
            end_for_a_lie(s, "a batch that is none");
        return;
    }
    take_batch(r, s, payload);
    if (s->resend_last && s->taken >= s->resend_last) {
        s->resend_last = 0;
        slot_settled(r);
    }
}

static void
on_slot(void *owner, enum channel_event event, struct frame *frame)
{
    struct slot *s = owner;
    switch (event) {
    case CHANNEL_FRAME:
        if (s->over)
            return;
        if (frame->type == RECORD_FRAME_BATCH)
            on_batch(s->recorder, s, frame->payload);
        else if (frame->type == RECORD_FRAME_SYNC)
            on_sync(s->recorder, s, frame->payload);
        return;
    case CHANNEL_WRITABLE:
        channel_want_writable(s->channel, false); /* the turn's end sends */
        return;
    case CHANNEL_CLOSED:
        slot_over(s);
        return;
    }
}

/* ---- the end of a turn: write, acknowledge, ask ---- */

static void
tell_state(struct recorder *r, bool available)
{
    char byte = available ? 1 : 0;
    for (unsigned i = 0; i < r->slot_count; i++)
        channel_send(r->slots[i].channel, RECORD_FRAME_STATE, slice_of(&byte, 1), NULL, 0);
}

static void
become_available(struct recorder *r, bool available, const char *why)
{
    if (available == !r->told_unavailable)
        return;
    r->told_unavailable = !available;
    if (available)
        diag(DIAG_NOTICE, "records are kept again");
    else
        diag(DIAG_ALARM, "records cannot be kept, new requests are refused: %s", why);
    tell_state(r, available);
}

static void
tell_taken(struct slot *s)
{
    struct control_channel which = {s->number, s->id};
    if (s->taken_due)
        s->taken_due = !channel_send(s->recorder->control, CONTROL_CHANNEL_TAKEN, slice_of(&which, sizeof which), NULL, 0);
}

static void
send_acks(struct recorder *r)
{
    for (unsigned i = 0; i < r->slot_count; i++) {
        struct slot *s = &r->slots[i];
        struct record_ack ack = {s->epoch, s->taken};
        tell_taken(s);
        if (s->over)
            continue;
        if (s->ack_due)
            s->ack_due = !channel_send(s->channel, RECORD_FRAME_ACK, slice_of(&ack, sizeof ack), NULL, 0);
        if (!s->ack_due && (s->lost || s->resync_due))
            ask_again(r, s);
        if (s->ack_due || s->resync_due)
            channel_want_writable(s->channel, true);
    }
}

static void
want_file(struct recorder *r, enum want_file why)
{
    struct control_want_file want = {why, r->log.first_seq};
    /* The new file's first record: whatever comes while we wait has its number behind it. */
    add_start(r, 0);
    r->waiting_file = channel_send(r->control, CONTROL_WANT_FILE, slice_of(&want, sizeof want), NULL, 0);
}

static void
rotate_if_due(struct recorder *r)
{
    int64_t limit = r->view->settings.rotate_bytes, now = loop_now_ms(r->loop);
    if (limit <= 0 || r->log.size < (uint64_t)limit || now < r->rotate_after_ms || r->waiting_file || r->stopping)
        return;
    add_event(r, RECORD_STOP, "rotated", slice_of("", 0));
    if (logwriter_flush(&r->log))
        want_file(r, WANT_ROTATED);
}

static void
on_turn_end(void *arg)
{
    struct recorder *r = arg;
    if (r->waiting_file)
        return;
    bool had = buf_len(&r->log.pending) > 0;
    if (had && !r->log.failing && !logwriter_flush(&r->log))
        become_available(r, false, strerror(errno));
    if (r->log.failing)
        return;
    if (r->sync_due && !logwriter_sync(&r->log)) {
        r->log.failing = true;
        become_available(r, false, strerror(errno));
        return;
    }
    r->sync_due = false;
    if (had && !logwriter_reserve(&r->log))
        become_available(r, false, "the disk has no room for the reserve");
    send_acks(r);
    rotate_if_due(r);
}

/* ---- once a second ---- */

static void
retry_write(struct recorder *r)
{
    if (r->log.failing && !logwriter_flush(&r->log)) {
        tell_state(r, false); /* a worker that started meanwhile has not heard it */
        return;
    }
    if (r->told_unavailable && logwriter_reserve(&r->log))
        become_available(r, true, NULL);
}

static void
check_file(struct recorder *r)
{
    enum want_file why = logwriter_check(&r->log);
    if (why == WANT_NONE)
        return;
    become_available(r, false, why == WANT_LOST ? "the file was removed" : "somebody else wrote to or cut the file");
    want_file(r, why);
}

static void
on_tick(void *arg)
{
    struct recorder *r = arg;
    int64_t now = loop_now_ms(r->loop);
    timer_start(r->loop, &r->tick, TICK_MS, on_tick, r);
    fold_expire(r->fold, loop_wall_us(r->loop), false, add_repeated, r);
    if (r->since_checkpoint && now - r->checkpoint_ms >= CHECKPOINT_INTERVAL_MS)
        add_checkpoint(r);
    if (r->waiting_file)
        return;
    for (unsigned i = 0; i < r->slot_count; i++)
        tell_over(&r->slots[i]);
    retry_write(r);
    check_file(r);
}

/* ---- what the supervisor says ---- */

static void
load_key(struct recorder *r)
{
    struct err err = {0};
    struct slice pem = bundle_view_blob(r->view, "checkpoint-key");
    struct checkpoint_key *key = pem.ptr ? checkpoint_key_private(pem, r->view->settings.checkpoint_key_path, &err) : NULL;
    if (pem.ptr && !key) {
        diag(DIAG_ALARM, "record.checkpoint_key: %s; the old key stays", err.text);
        return;
    }
    checkpoint_key_free(r->key);
    r->key = key;
}

static void
use_settings(struct recorder *r)
{
    r->log.reserve_bytes = (uint64_t)r->view->settings.reserve_bytes;
    load_key(r);
}

static void
on_bundle(struct recorder *r, struct frame *frame)
{
    struct err err = {0};
    struct bundle_view *view;
    int fd = frame->fds[0];
    frame->fds[0] = -1;
    if (bundle_open(fd, &view, &err) < 0) {
        diag(DIAG_ALARM, "%s", err.text);
        return;
    }
    bundle_close(r->view);
    r->view = view;
    use_settings(r);
}

static void
on_file(struct recorder *r, struct frame *frame)
{
    bool asked = r->waiting_file;
    r->waiting_file = false;
    if (frame->fd_count == 0) {
        r->rotate_after_ms = loop_now_ms(r->loop) + ROTATE_RETRY_MS;
        return;
    }
    if (!asked) {
        /* Somebody moved the file away; it ends where it is now. */
        add_event(r, RECORD_STOP, "moved", slice_of("", 0));
        logwriter_flush(&r->log);
        add_start(r, 0);
    }
    logwriter_switch(&r->log, frame->fds[0]);
    frame->fds[0] = -1;
    r->rotate_after_ms = 0;
}

static void
on_event(struct recorder *r, struct slice payload)
{
    uint16_t event;
    memcpy(&event, payload.ptr, sizeof event);
    add_event(r, (enum record_event)event, NULL, slice_of(payload.ptr + sizeof event, payload.len - sizeof event));
    r->since_checkpoint++;
}

/* ---- channels of workers that start ---- */

static void
slot_open(struct recorder *r, struct slot *s, unsigned number, int fd)
{
    *s = (struct slot){.recorder = r, .number = number, .id = channel_id(fd)};
    list_init(&s->held);
    s->channel = channel_new(r->loop, fd, on_slot, s);
}

/* The worker at the other end is gone: what lies in the queue is all that comes. */
static void
slot_close(struct slot *s)
{
    s->told_over = true; /* whoever hands in the next one knows */
    channel_drain(s->channel);
    slot_over(s);
    channel_free(s->channel);
    s->channel = NULL;
}

static void
on_new_channel(struct recorder *r, struct frame *frame)
{
    struct control_channel told;
    char unavailable = 0;
    memcpy(&told, frame->payload.ptr, sizeof told);
    if (told.slot >= r->slot_count)
        return;
    struct slot *s = &r->slots[told.slot];
    int fd = frame->fds[0];
    frame->fds[0] = -1;
    slot_close(s);
    slot_open(r, s, (unsigned)told.slot, fd);
    s->taken_due = true;
    if (buf_len(&r->log.pending) == 0)
        tell_taken(s);
    if (r->told_unavailable)
        channel_send(s->channel, RECORD_FRAME_STATE, slice_of(&unavailable, 1), NULL, 0);
}

/* Of workers that ended before this recorder began: its predecessor may have written some of it. */
static void
take_left(struct recorder *r, int fd)
{
    static struct slot s;
    slot_open(r, &s, 0, fd);
    s.await_nonce = 1; /* held first, then compared as it is released */
    r->syncing++;
    slot_close(&s);
    logwriter_flush(&r->log);
}

static bool
something_queued(const struct recorder *r)
{
    struct pollfd fds[SHARED_WORKERS_MAX];
    for (unsigned i = 0; i < r->slot_count; i++)
        fds[i] = (struct pollfd){r->slots[i].over ? -1 : channel_fd(r->slots[i].channel), POLLIN, 0};
    return poll(fds, r->slot_count, 0) > 0;
}

/* The workers have ended; what they left in the queues is the last that comes. */
static void
finish(void *arg)
{
    struct recorder *r = arg;
    if (something_queued(r) && !r->supervisor_gone) {
        timer_start(r->loop, &r->tick, 1, finish, r);
        return;
    }
    fold_expire(r->fold, loop_wall_us(r->loop), true, add_repeated, r);
    if (r->since_checkpoint)
        add_checkpoint(r);
    add_event(r, RECORD_STOP, "shutdown", slice_of("", 0));
    if (!logwriter_flush(&r->log))
        diag(DIAG_ALARM, "the last %zu bytes of records could not be written: %s", buf_len(&r->log.pending), strerror(errno));
    logwriter_sync(&r->log);
    loop_stop(r->loop);
}

static void
on_control(void *owner, enum channel_event event, struct frame *frame)
{
    struct recorder *r = owner;
    if (event == CHANNEL_CLOSED) {
        r->supervisor_gone = true;
        finish(r);
        return;
    }
    if (event != CHANNEL_FRAME || !control_allowed(ROLE_SUPERVISOR, frame))
        return;
    if (frame->type == CONTROL_BUNDLE)
        on_bundle(r, frame);
    else if (frame->type == CONTROL_FILE)
        on_file(r, frame);
    else if (frame->type == CONTROL_EVENT)
        on_event(r, frame->payload);
    else if (frame->type == CONTROL_CHANNEL)
        on_new_channel(r, frame);
    else if (frame->type == CONTROL_STOP && !r->stopping) {
        r->stopping = true;
        timer_start(r->loop, &r->tick, 1, finish, r);
    }
}

/* ---- start ---- */

static void
remember_line(void *ctx, struct slice line)
{
    struct recorder *r = ctx;
    struct slice ts, rest;
    unsigned char digest[SHA256_SIZE];
    if (!record_line_draft(line, &ts, &rest))
        return;
    sha256_two(ts, rest, digest);
    map_put(r->tail, slice_of(digest, sizeof digest), r);
}

/* What was written and not acknowledged before the last recorder ended is in the end of the log. */
static void
remember_tail(struct recorder *r)
{
    uint64_t max = TAIL_PER_WORKER * r->slot_count;
    if (max > TAIL_MAX)
        max = TAIL_MAX;
    r->tail = map_new();
    if (r->start.file_before >= 0 && r->log.size < max)
        log_each_tail_line(r->start.file_before, max - r->log.size, remember_line, r);
    log_each_tail_line(r->log.fd, max, remember_line, r);
}

static void
open_slots(struct recorder *r)
{
    r->slot_count = (unsigned)r->start.record_count;
    for (unsigned i = 0; i < r->slot_count; i++) {
        slot_open(r, &r->slots[i], i, r->start.records[i]);
        r->slots[i].taken_due = r->start.left_count > 0;
    }
}

static int
map_shared_memory(struct recorder *r, struct err *err)
{
    r->shared = shared_map(r->start.shared, true);
    void *fold = mmap(NULL, sizeof *r->fold, PROT_READ | PROT_WRITE, MAP_SHARED, r->start.fold, 0);
    if (!r->shared || fold == MAP_FAILED)
        return err_errno(err, "mapping shared memory");
    r->fold = fold;
    close(r->start.shared);
    close(r->start.fold);
    return 0;
}

/* Of OpenSSL a hash and one kind of signature are used, so that neither the texts of its errors nor the names of all its ciphers
 * and digests are set up. Its configuration is read while there are files; and the hash is there before the settings are read, so that
 * what stays lies below what goes. */
static void
set_up_crypto(void)
{
    OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG | OPENSSL_INIT_NO_LOAD_CRYPTO_STRINGS | OPENSSL_INIT_NO_ADD_ALL_CIPHERS |
                            OPENSSL_INIT_NO_ADD_ALL_DIGESTS, NULL);
    unsigned char digest[SHA256_SIZE];
    sha256(slice_of("", 0), digest);
}

static int
set_up(struct recorder *r, struct err *err)
{
    unsigned char boot[16];
    set_up_crypto();
    if (map_shared_memory(r, err) < 0 || bundle_open(r->start.bundle, &r->view, err) < 0)
        return -1;
    logwriter_init(&r->log);
    buf_init(&r->draft, RECORD_LINE_MAX);
    if (logwriter_open(&r->log, r->start.file, r->start.file_before, err) < 0)
        return err_wrap(err, "%s", r->view->settings.record_path);
    use_settings(r);
    if (bundle_view_blob(r->view, "checkpoint-key").ptr && !r->key)
        return err_invalid(err, "record.checkpoint_key: %s: is no Ed25519 private key (PEM)", r->view->settings.checkpoint_key_path);
    random_bytes(boot, sizeof boot);
    hex_encode(boot, sizeof boot, r->boot);
    return 0;
}

static void
begin(struct recorder *r)
{
    r->control = channel_new(r->loop, r->start.control, on_control, r);
    open_slots(r);
    if (r->start.again) {
        remember_tail(r);
        for (unsigned i = 0; i < r->slot_count; i++)
            ask_again(r, &r->slots[i]);
    }
    add_start(r, r->start.torn);
    for (int i = 0; i < r->start.left_count; i++)
        take_left(r, r->start.left[i]);
    r->checkpoint_ms = loop_now_ms(r->loop);
    loop_on_turn_end(r->loop, on_turn_end, r);
    timer_start(r->loop, &r->tick, TICK_MS, on_tick, r);
}

static void
tear_down(struct recorder *r)
{
    timer_stop(&r->tick);
    channel_free(r->control);
    for (unsigned i = 0; i < r->slot_count; i++) {
        while (!list_empty(&r->slots[i].held)) {
            struct held *h = list_entry(list_first(&r->slots[i].held), struct held, node);
            list_remove(&r->slots[i].held, &h->node);
            free(h);
        }
        channel_free(r->slots[i].channel);
    }
    map_free(r->tail, NULL);
    checkpoint_key_free(r->key);
    logwriter_done(&r->log);
    buf_done(&r->draft);
    bundle_close(r->view);
    shared_unmap(r->shared);
    munmap(r->fold, sizeof *r->fold);
    loop_free(r->loop);
}

int
recorder_main(int argc, char **argv)
{
    static struct recorder r;
    struct err err = {0};
    if (role_begin(ROLE_RECORDER, argc, argv, &r.start, &err) < 0) {
        fprintf(stderr, "sallyport: %s\n", err.text);
        return err_exit_status(&err);
    }
    r.loop = loop_new();
    if (set_up(&r, &err) < 0 || confine(&r.start, &err) < 0)
        return role_fail(&r.start, &err);
    begin(&r);
    channel_send(r.control, CONTROL_READY, slice_of("", 0), NULL, 0);
    malloc_trim(0); /* reading the settings and making the filter took more than stays */
    loop_run(r.loop);
    tear_down(&r);
    return 0;
}
