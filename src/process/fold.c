/* Counting what repeats. Cost of a refusal: one digest and sixteen places to look at, whatever is in the table. */
#include "sallyport/process/fold.h"

#include <string.h>

#include "sallyport/base/digest.h"

#define PLACES 16 /* where a key may lie */

/* The index of the key's entry, or -1; *ret_free is a free place for it, or -1. */
static int
find(const struct fold_table *t, const unsigned char digest[16], int *ret_free)
{
    uint64_t hash;
    memcpy(&hash, digest, sizeof hash);
    *ret_free = -1;
    for (unsigned i = 0; i < PLACES; i++) {
        int at = (int)((hash + i) % FOLD_KEYS_MAX);
        if (t->begun_us[at] != 0 && memcmp(t->entries[at].digest, digest, sizeof t->entries[at].digest) == 0)
            return at;
        if (t->begun_us[at] == 0 && *ret_free < 0)
            *ret_free = at;
    }
    return -1;
}

static void
begin(struct fold_entry *e, int64_t *begun_us, const unsigned char digest[16], enum record_event event, struct slice key, int64_t wall_us)
{
    *e = (struct fold_entry){.event = event};
    memcpy(e->digest, digest, sizeof e->digest);
    if (key.len <= FOLD_KEY_TEXT_MAX) {
        memcpy(e->key, key.ptr, key.len);
        e->key_len = (uint32_t)key.len;
    }
    *begun_us = wall_us > 0 ? wall_us : 1;
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
    int place;
    sha256_two(slice_of(&kind, 1), key, digest);
    int at = find(t, digest, &place);
    if (at < 0 && place < 0 && event == RECORD_CLOSE)
        return false;
    if (at < 0 && place < 0) {
        if (t->common_begun_us == 0)
            begin(&t->common, &t->common_begun_us, digest, event, slice_of("", 0), wall_us);
        count(&t->common, wall_us);
        return false;
    }
    struct fold_entry *e = &t->entries[at < 0 ? place : at];
    if (at < 0)
        begin(e, &t->begun_us[place], digest, event, key, wall_us);
    if (e->seen < FOLD_SINGLY) {
        e->seen++;
        return true;
    }
    count(e, wall_us);
    return false;
}

static void
expire(struct fold_entry *e, int64_t *begun_us, int64_t wall_us, bool all, void (*visit)(void *, const struct fold_entry *), void *ctx)
{
    if (*begun_us == 0 || (!all && wall_us - *begun_us < FOLD_WINDOW_US))
        return;
    /* The table may come from a recorder that died in the middle of it. */
    if (e->key_len > FOLD_KEY_TEXT_MAX)
        e->key_len = 0;
    /* The close record of a refusal says nothing that its decision did not: it is left out with it, and not counted again. */
    if (e->folded && e->event != RECORD_CLOSE)
        visit(ctx, e);
    *begun_us = 0;
}

void
fold_expire(struct fold_table *t, int64_t wall_us, bool all, void (*visit)(void *ctx, const struct fold_entry *e), void *ctx)
{
    for (size_t i = 0; i < FOLD_KEYS_MAX; i++)
        expire(&t->entries[i], &t->begun_us[i], wall_us, all, visit, ctx);
    expire(&t->common, &t->common_begun_us, wall_us, all, visit, ctx);
}
