/* Refusals that repeat: the first ten a minute of a kind are written singly, the rest are counted into one `repeated` record
 * (CONTRACT section 6), so that a flood neither fills the disk nor hides an allow. The table is plain memory without
 * pointers: it lies in a mapping that outlives the recorder, so that a killed one loses no count. */
#ifndef SALLYPORT_PROCESS_FOLD_H
#define SALLYPORT_PROCESS_FOLD_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/slice.h"
#include "sallyport/record/record.h"

#define FOLD_KEYS_MAX 4096
#define FOLD_SINGLY 10
#define FOLD_WINDOW_US INT64_C(60000000)
#define FOLD_KEY_TEXT_MAX 512

struct fold_entry {
    unsigned char digest[16];   /* of event and key */
    uint32_t seen, event;
    uint64_t folded;
    int64_t first_us, last_us;  /* of what was folded */
    uint32_t key_len;           /* 0: the key was too long to keep */
    char key[FOLD_KEY_TEXT_MAX];
};

/* When each began (0: free) stands apart, so that looking for what is over touches no entry that is free: most never are
 * anything else, and memory that nobody touches is none. */
struct fold_table {
    int64_t common_begun_us, begun_us[FOLD_KEYS_MAX];
    struct fold_entry common;   /* what found no place */
    struct fold_entry entries[FOLD_KEYS_MAX];
};

/* False: counted, and not to be written. */
bool fold_note(struct fold_table *t, enum record_event event, struct slice key, int64_t wall_us);
/* Calls visit for every entry whose minute is over (all: for every one) and that folded something, and frees them. */
void fold_expire(struct fold_table *t, int64_t wall_us, bool all, void (*visit)(void *ctx, const struct fold_entry *e), void *ctx);

#endif
