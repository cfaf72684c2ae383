/* Verification of a whole decision log, line by line, over rotated files and restarts. Opens nothing: whoever calls it
 * reads the files and hands in the lines.
 *
 * How a log lies on disk: FILE is written; a rotation ends it with a `stop` record (cause "rotated"), renames it to
 * FILE.NNNNNNNNNNNN, the number of its first record in at least 12 digits (a sort by name gives the order), and begins a
 * new FILE with a `start` record. The chain (seq, prev) runs on through rotations and restarts. What follows the last
 * newline after a crash is no record: the recorder moves those bytes to FILE.torn-NNNNNNNNNNNN (the number that the record
 * would have had) and says so in the next `start` record ("torn_bytes"); until then it is said here. */
#ifndef SALLYPORT_RECORD_VERIFY_H
#define SALLYPORT_RECORD_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/digest.h"
#include "sallyport/record/chain.h"
#include "sallyport/record/checkpoint.h"

/* FILE.000000000042, heap. */
char *log_rotated_name(const char *path, uint64_t first_seq);
/* Is `name` a rotated file of `base` (both without folder)? Then its first number is *ret_seq. */
bool log_is_rotated_name(const char *base, const char *name, uint64_t *ret_seq);
char *log_torn_name(const char *path, uint64_t next_seq); /* heap */

enum verify_kind {
    VERIFY_INTACT = 0,
    VERIFY_EDIT,        /* a record's bytes are not those that were hashed, or the hash was made anew */
    VERIFY_REMOVAL,     /* records are missing */
    VERIFY_REORDERING,  /* records, or files, are not in their order */
    VERIFY_INSERTION,   /* a line that is no record, or a record a second time */
    VERIFY_CHECKPOINT,  /* a checkpoint is false: the records before it were chained anew */
    VERIFY_HEAD,        /* the log does not reach, or contradicts, the head kept elsewhere */
};

struct verify_options {
    const struct checkpoint_key *key; /* borrowed; NULL: checkpoints only need to name the right head */
    bool has_head;                    /* a head that was kept elsewhere */
    uint64_t head_seq;
    char head_hash[SHA256_HEX_SIZE];
};

struct verify_place {
    const char *file; /* as given to verify_file */
    uint64_t line;    /* from 1 */
    uint64_t seq;     /* of the record there; where it is none, the number that was expected */
};

struct verify_result {
    enum verify_kind kind;
    struct verify_place at;   /* the first fault */
    char text[512];           /* what is wrong there, in a sentence; printable ASCII */
    uint64_t records, files;
    uint64_t first_seq, last_seq; /* 0 without records */
    char last_hash[SHA256_HEX_SIZE]; /* the head of what was read: keep SEQ:HASH elsewhere */
    uint64_t checkpoints;     /* right ones; signed ones where a key was given */
    uint64_t vouched_seq;     /* the last record that a signed checkpoint covers; 0: none */
    uint64_t starts;          /* `start` records */
    uint64_t torn;            /* files whose last line has no newline */
    struct verify_place torn_at; /* the last of them */
    bool head_checked;        /* the head kept elsewhere was met; otherwise a cut tail would not show */
};

struct verify;

struct verify *verify_new(const struct verify_options *options);
void verify_free(struct verify *v); /* NULL is fine */
/* The next file, oldest first; the name outlives v. */
void verify_file(struct verify *v, const char *name);
/* One line without its newline; longer ones may be cut to RECORD_LINE_MAX + 1. whole: a newline followed. */
void verify_line(struct verify *v, struct slice line, bool whole);
void verify_finish(struct verify *v, struct verify_result *ret);
const char *verify_kind_text(enum verify_kind k); /* "intact", "edit", … */

#endif
