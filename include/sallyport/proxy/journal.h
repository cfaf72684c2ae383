/* A worker's side of the recorder: batches drafts of a loop turn into frames, keeps what is not acknowledged, and wakes
 * those who wait. No record, no egress. */
#ifndef SALLYPORT_PROXY_JOURNAL_H
#define SALLYPORT_PROXY_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/list.h"
#include "sallyport/net/loop.h"
#include "sallyport/record/record.h"

struct journal;

enum durability { DURABILITY_BUFFERED = 1, DURABILITY_WRITTEN, DURABILITY_SYNCED };

#define JOURNAL_UNACKED_MAX (4u << 20) /* bytes of drafts that may wait for the recorder; past it, records are refused */
/* How long a record for which nobody waits (of an end, of a refusal) may wait for a frame that leaves anyway, or for others of
 * its kind: each frame wakes two processes. */
#define JOURNAL_HOLD_MS 5

struct journal *journal_new(struct loop *l, int channel_fd, enum durability durability, enum record_format format);
void journal_free(struct journal *j);
void journal_set(struct journal *j, enum durability durability, enum record_format format); /* reload */
/* Can a record be taken now? False: requests get record_unavailable. */
bool journal_available(const struct journal *j);
/* Has the recorder's queue everything? A worker that ends waits for it. */
bool journal_flushed(const struct journal *j);
/* Takes the record; returns its ticket, or 0 when it cannot be kept. fold: refusals and challenges only. */
uint64_t journal_add(struct journal *j, const struct record *r, bool fold);
/* on_lost is called for each record that journal_add could not take. How many they were is also said, as an alarm, when
 * records can be taken again: the log itself does not show the gap, as they never had a number. */
void journal_on_lost(struct journal *j, void (*on_lost)(void *arg), void *arg);

/* on_done(owner, kept) comes from the loop, once, never after cancel. `handed`: the recorder's queue has it, which is
 * when a lookup or a SYN may leave. Else: it is kept as durability says, which is when a byte may leave. */
struct journal_wait {
    struct list_node node;
    struct list *list; /* the one it is in, NULL when it is not waiting */
    uint64_t ticket;
    bool handed;
    void (*on_done)(void *owner, bool kept);
    void *owner;
};
void journal_wait(struct journal *j, struct journal_wait *w, uint64_t ticket, bool handed, void (*on_done)(void *, bool), void *owner);
void journal_cancel(struct journal_wait *w); /* fine when it is not waiting */

#endif
