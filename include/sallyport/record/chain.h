/* The hash chain over finished lines, and its verification. */
#ifndef SALLYPORT_RECORD_CHAIN_H
#define SALLYPORT_RECORD_CHAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/buf.h"
#include "sallyport/base/digest.h"
#include "sallyport/base/err.h"

struct chain {
    uint64_t next_seq;                 /* of the next record; the first is 1 */
    char prev[SHA256_HEX_SIZE];        /* hash of the last record; 64 zeros at first */
};

void chain_init(struct chain *c);
/* Printable, strings closed, nothing between them but what JSON has there, brackets closed and never below their own level, and
 * no member that is the chain's (in any spelling): what may stand inside a line. That it is JSON in every detail is its author's business. ret_events: how many
 * members are named "event". */
bool chain_members_are_sound(struct slice members, unsigned *ret_events);
/* A whole draft: a time to the letter, a comma, and sound members. */
bool chain_draft_is_sound(struct slice draft, unsigned *ret_events);
/* Completes a draft to a line with newline: `{"ts":…,"seq":N,…,"prev":"…","hash":"…"}`. Advances the chain. False: it is not
 * sound, or its line would be too long. */
bool chain_append(struct chain *c, struct buf *out, struct slice draft);
bool chain_append_sound(struct chain *c, struct buf *out, struct slice draft); /* one that chain_draft_is_sound has passed */

/* Verification, line by line (without newline). */
enum chain_fault { CHAIN_OK = 0, CHAIN_NOT_A_RECORD, CHAIN_HASH, CHAIN_PREV, CHAIN_SEQ, CHAIN_CHECKPOINT };
enum chain_fault chain_check_line(struct chain *c, struct slice line, bool first_of_all);
const char *chain_fault_text(enum chain_fault f);
/* Reads seq and hash of a finished line; false when it is none. */
bool chain_read_line(struct slice line, uint64_t *ret_seq, char ret_prev[SHA256_HEX_SIZE], char ret_hash[SHA256_HEX_SIZE]);

#endif
