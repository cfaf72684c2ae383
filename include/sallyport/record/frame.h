/* What workers and the recorder say to each other: batches of drafts, acknowledgements, resending. Pure encoding and
 * decoding; both ends are processes of one start on one machine, so numbers are in native order. A worker may be anybody's
 * by now: the recorder takes nothing from a frame that record_batch_check has not passed. */
#ifndef SALLYPORT_RECORD_FRAME_H
#define SALLYPORT_RECORD_FRAME_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/buf.h"
#include "sallyport/base/slice.h"
#include "sallyport/record/record.h"

#define RECORD_KEY_MAX 20480 /* bytes of a fold key: three long fields, all of them escapes */

enum record_frame {
    RECORD_FRAME_NONE = 0,
    RECORD_FRAME_BATCH,  /* worker -> recorder */
    RECORD_FRAME_SYNC,   /* worker -> recorder: answer to RESYNC, before the batches that are sent again */
    RECORD_FRAME_ACK,    /* recorder -> worker: kept up to this number */
    RECORD_FRAME_RESYNC, /* recorder -> worker: send again what is not acknowledged */
    RECORD_FRAME_STATE,  /* recorder -> worker: can records be kept? */
};

struct record_batch {
    uint64_t epoch;     /* of this incarnation of the worker: acknowledgements of an earlier one are not its own */
    uint64_t number;    /* 1, 2, … */
    uint8_t durability; /* enum durability of the proxy layer: 1 buffered, 2 written, 3 synced */
};

struct record_item {
    bool fold;
    enum record_event event;
    struct slice key;   /* empty unless fold */
    struct slice draft;
};

struct record_sync { uint64_t nonce, epoch, first, last; /* numbers that follow again; last < first: none */ };
struct record_ack { uint64_t epoch, number; };

/* False when the buffer's cap would be passed; nothing is appended then. */
bool record_batch_begin(struct buf *out, const struct record_batch *batch);
bool record_batch_add(struct buf *out, const struct record_item *item);
size_t record_item_size(const struct record_item *item);
/* The whole frame is well-formed and holds events that a worker may report. The drafts' own bytes are record_item_is_true's to judge. */
bool record_batch_check(struct slice frame, struct record_batch *ret, struct slice *ret_items);
/* Takes the next item from the front of items that record_batch_check passed; false at the end. */
bool record_item_next(struct slice *items, struct record_item *ret);
/* Is the draft one record, sound (as chain_append_sound asks), of the event that the item names and of no other, and the key
 * sound too? What is not may be a claim to be somebody else's record (a stop, a checkpoint) and is left out. */
bool record_item_is_true(const struct record_item *item);
/* The draft inside a finished line (less seq, prev and hash): what a recorder that restarts knows duplicates by. False: no
 * finished line. The parts follow each other in the draft. */
bool record_line_draft(struct slice line, struct slice *ret_ts, struct slice *ret_rest);

#endif
