/* Counting what repeats. Cost of a refusal: one digest and sixteen places to look at, whatever is in the table. */
#include "sallyport/process/fold.h"

#include <string.h>

#include "sallyport/base/digest.h"

#define PLACES 16 /* where a key may lie */

static struct fold_entry *
find(struct fold_table *t, const unsigned char digest[16], struct fold_entry **ret_free)
{
    uint64_t at;
    memcpy(&at, digest, sizeof at);
    *ret_free = NULL;
    for (unsigned i = 0; i < PLACES; i++) {
        struct fold_entry *e = &t->entries[(at + i) % FOLD_KEYS_MAX];
        if (e->begun_us == 0) {
            if (!*ret_free)
                *ret_free = e;
        } else if (memcmp(e->digest, digest, sizeof e->digest) == 0) {
            return e;
        }
    }
    return NULL;
}

static struct fold_entry *
begin(struct fold_entry *e, const unsigned char digest[16], enum record_event event, struct slice key, int64_t wall_us)
{
    *e = (struct fold_entry){.event = event};
    memcpy(e->digest, digest, sizeof e->digest);
    if (key.len <= FOLD_KEY_TEXT_MAX) {
        memcpy(e->key, key.ptr, key.len);
        e->key_len = (uint32_t)key.len;
    }
    e->begun_us = wall_us > 0 ? wall_us : 1;
    return e;
}

static void
count(struct fold_entry *e, int64_t wall_us)
{
    if (e->folded++ == 0)
        e->first_us = wall_us;
    e->last_us = wall_us;
}

bool
fold_note(struct fold_table *t, enum record_event event, struct slice key, int64_t wall_us)
{
    unsigned char digest[SHA256_SIZE];
    unsigned char kind = (unsigned char)event;
    struct fold_entry *place;
    sha256_two(slice_of(&kind, 1), key, digest);
    struct fold_entry *e = find(t, digest, &place);
    if (!e && !place && event == RECORD_CLOSE)
        return false;
    if (!e && !place) {
        if (t->common.begun_us == 0)
            begin(&t->common, digest, event, slice_of("", 0), wall_us);
        count(&t->common, wall_us);
        return false;
    }
    if (!e)
        e = begin(place, digest, event, key, wall_us);
    if (e->seen < FOLD_SINGLY) {
        e->seen++;
        return true;
    }
    count(e, wall_us);
    return false;
}

static void
expire(struct fold_entry *e, int64_t wall_us, bool all, void (*visit)(void *, const struct fold_entry *), void *ctx)
{
    if (e->begun_us == 0 || (!all && wall_us - e->begun_us < FOLD_WINDOW_US))
        return;
    /* The table may come from a recorder that died in the middle of it. */
    if (e->key_len > FOLD_KEY_TEXT_MAX)
        e->key_len = 0;
    /* The close record of a refusal says nothing that its decision did not: it is left out with it, and not counted again. */
    if (e->folded && e->event != RECORD_CLOSE)
        visit(ctx, e);
    e->begun_us = 0;
}

void
fold_expire(struct fold_table *t, int64_t wall_us, bool all, void (*visit)(void *ctx, const struct fold_entry *e), void *ctx)
{
    for (size_t i = 0; i < FOLD_KEYS_MAX; i++)
        expire(&t->entries[i], wall_us, all, visit, ctx);
    expire(&t->common, wall_us, all, visit, ctx);
}
