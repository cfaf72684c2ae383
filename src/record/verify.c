/* Verification of a whole log. The chain check finds that a line is wrong; what was done (edit,
 * removal, reordering) is judged from the numbers, and for a gap only at the end: records that turn
 * up later were moved, not removed. The first fault is kept, the lines behind it only help to name
 * it. Streams: nothing grows with the log. */
#include "sallyport/record/verify.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "sallyport/base/encoding.h"
#include "sallyport/base/mem.h"
#include "sallyport/record/record.h"

/* With a key, so many records without a checkpoint can only mean that checkpoints were taken out:
 * twice what the recorder lets pass. */
#define UNVOUCHED_MAX (2 * CHECKPOINT_RECORDS)
#define ROTATED_DIGITS 12

struct verify {
    struct verify_options options;
    struct verify_result result;
    struct chain chain;
    const char *file;
    uint64_t line;
    bool begun; /* a record was accepted */
    bool alien; /* the fault is a line that is no record, and the next record says how it came there
                 */
    uint64_t gap_from, gap_to; /* after a gap was found: the numbers that are missing, [from, to) */
};

char *
log_rotated_name(const char *path, uint64_t first_seq)
{
    return mem_printf("%s.%0*" PRIu64, path, ROTATED_DIGITS, first_seq);
}

char *
log_torn_name(const char *path, uint64_t next_seq)
{
    return mem_printf("%s.torn-%0*" PRIu64, path, ROTATED_DIGITS, next_seq);
}

bool
log_is_rotated_name(const char *base, const char *name, uint64_t *ret_seq)
{
    size_t base_len = strlen(base);
    uint64_t seq = 0;
    if (strncmp(name, base, base_len) != 0 || name[base_len] != '.')
        return false;
    const char *digits = name + base_len + 1;
    size_t count = strlen(digits);
    if (count < ROTATED_DIGITS || count > 19 || (count > ROTATED_DIGITS && digits[0] == '0'))
        return false;
    for (; *digits; digits++) {
        if (*digits < '0' || *digits > '9')
            return false;
        seq = seq * 10 + (uint64_t)(*digits - '0');
    }
    *ret_seq = seq;
    return seq > 0;
}

struct verify *
verify_new(const struct verify_options *options)
{
    struct verify *v = mem_zalloc(sizeof *v);
    v->options = *options;
    chain_init(&v->chain);
    return v;
}

void
verify_free(struct verify *v)
{
    free(v);
}

void
verify_file(struct verify *v, const char *name)
{
    v->file = name;
    v->line = 0;
    v->result.files++;
}

static void fail(struct verify *v, enum verify_kind kind, uint64_t seq, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Keeps the first fault only. */
static void
fail(struct verify *v, enum verify_kind kind, uint64_t seq, const char *fmt, ...)
{
    struct verify_result *r = &v->result;
    if (r->kind != VERIFY_INTACT)
        return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(r->text, sizeof r->text, fmt, args);
    va_end(args);
    r->kind = kind;
    r->at = (struct verify_place){v->file, v->line, seq};
}

/* A record whose own hash is right, with a number that is not the next. */
static void
judge_number(struct verify *v, uint64_t seq)
{
    uint64_t wanted = v->chain.next_seq;
    if (seq > wanted) {
        v->gap_from = wanted;
        v->gap_to = seq;
        fail(v, VERIFY_REMOVAL, seq,
             "expected record %" PRIu64 ", found %" PRIu64 ": %" PRIu64 " missing before it",
             wanted, seq, seq - wanted);
    } else if (seq < v->result.first_seq) {
        fail(v, VERIFY_REORDERING, seq,
             "expected record %" PRIu64 ", found %" PRIu64
             ", which is older than the first: are the files in order?",
             wanted, seq);
    } else {
        fail(v, VERIFY_INSERTION, seq,
             "expected record %" PRIu64 ", found %" PRIu64 ", which was there already", wanted,
             seq);
    }
}

static void
judge_prev(struct verify *v, uint64_t seq)
{
    if (!v->begun)
        fail(v, VERIFY_EDIT, seq, "record %" PRIu64 " %s", seq,
             seq == 1 ? "is the first and names one before it" : "names none before it");
    else
        fail(v, VERIFY_EDIT, seq,
             "record %" PRIu64 " does not carry the hash of record %" PRIu64
             " as it is here: one of the two was edited and hashed anew",
             seq, seq - 1);
}

static void
judge_fault(struct verify *v, enum chain_fault fault, struct slice line)
{
    uint64_t seq = v->chain.next_seq;
    char prev[SHA256_HEX_SIZE], hash[SHA256_HEX_SIZE];
    bool readable = chain_read_line(line, &seq, prev, hash);
    switch (fault) {
    case CHAIN_OK:
    case CHAIN_CHECKPOINT:
        break;
    case CHAIN_NOT_A_RECORD:
        v->alien = true;
        fail(v, VERIFY_EDIT, seq, "expected record %" PRIu64 ", found a line that is not a record",
             seq);
        break;
    case CHAIN_HASH:
        fail(v, VERIFY_EDIT, readable ? seq : 0,
             "the bytes of record %" PRIu64 " are not those that were hashed", seq);
        break;
    case CHAIN_PREV:
        judge_prev(v, seq);
        break;
    case CHAIN_SEQ:
        judge_number(v, seq);
        break;
    }
}

static void
judge_checkpoint(struct verify *v, struct slice line, uint64_t seq, const char *prev)
{
    struct verify_result *r = &v->result;
    switch (checkpoint_check(v->options.key, line, seq, prev)) {
    case CHECKPOINT_GOOD:
        r->checkpoints++;
        r->vouched_seq = seq - 1;
        return;
    case CHECKPOINT_UNSIGNED:
        if (!v->options.key)
            r->checkpoints++;
        return;
    case CHECKPOINT_UNKNOWN:
        if (v->options.key)
            fail(v, VERIFY_CHECKPOINT, seq,
                 "checkpoint %" PRIu64 " is signed by a key that was not given", seq);
        else
            r->checkpoints++;
        return;
    case CHECKPOINT_BAD:
        break;
    }
    fail(v, VERIFY_CHECKPOINT, seq,
         "checkpoint %" PRIu64 " is no true signature of record %" PRIu64 " as it is here", seq,
         seq - 1);
}

static void
check_head(struct verify *v, uint64_t seq, const char *hash)
{
    const struct verify_options *o = &v->options;
    if (!o->has_head || seq != o->head_seq)
        return;
    v->result.head_checked = true;
    if (strcmp(hash, o->head_hash) != 0)
        fail(v, VERIFY_HEAD, seq,
             "record %" PRIu64
             " has another hash than the head kept elsewhere: the log was chained anew",
             seq);
}

/* A record that the chain accepted. */
static void
take_record(struct verify *v, struct slice line)
{
    struct verify_result *r = &v->result;
    uint64_t seq = 0;
    char prev[SHA256_HEX_SIZE], hash[SHA256_HEX_SIZE];
    if (!chain_read_line(line, &seq, prev, hash))
        return;
    if (!v->begun)
        r->first_seq = seq;
    v->begun = true;
    r->records++;
    r->last_seq = seq;
    memcpy(r->last_hash, hash, sizeof hash);
    enum record_event event = record_line_event(line);
    if (event == RECORD_START)
        r->starts++;
    if (event == RECORD_CHECKPOINT)
        judge_checkpoint(v, line, seq, prev);
    check_head(v, seq, hash);
}

/* Behind a line that is no record: where the expected one follows all the same, the line was put
 * in. */
static void
look_behind_alien(struct verify *v, struct slice line)
{
    uint64_t seq;
    char prev[SHA256_HEX_SIZE], hash[SHA256_HEX_SIZE];
    if (!v->alien || !chain_read_line(line, &seq, prev, hash))
        return;
    v->alien = false;
    if (seq == v->chain.next_seq)
        v->result.kind = VERIFY_INSERTION;
}

/* Behind a gap: does what was missing turn up later? Then it was moved. */
static void
look_for_moved(struct verify *v, struct slice line)
{
    struct verify_result *r = &v->result;
    struct chain alone;
    uint64_t seq;
    char prev[SHA256_HEX_SIZE], hash[SHA256_HEX_SIZE];
    if (r->kind != VERIFY_REMOVAL || !chain_read_line(line, &seq, prev, hash) ||
        seq < v->gap_from || seq >= v->gap_to)
        return;
    chain_init(&alone);
    if (chain_check_line(&alone, line, true) != CHAIN_OK)
        return;
    r->kind = VERIFY_REORDERING;
    snprintf(r->text, sizeof r->text,
             "expected record %" PRIu64 ", found %" PRIu64 "; record %" PRIu64
             " stands at line %" PRIu64,
             v->gap_from, v->gap_to, seq, v->line);
}

void
verify_line(struct verify *v, struct slice line, bool whole)
{
    struct verify_result *r = &v->result;
    v->line++;
    if (!whole) {
        r->torn++;
        r->torn_at = (struct verify_place){v->file, v->line, v->chain.next_seq};
        return;
    }
    if (r->kind != VERIFY_INTACT) {
        look_behind_alien(v, line);
        look_for_moved(v, line);
        return;
    }
    enum chain_fault fault = chain_check_line(&v->chain, line, !v->begun);
    if (fault == CHAIN_OK)
        take_record(v, line);
    else
        judge_fault(v, fault, line);
}

static void
finish_head(struct verify *v)
{
    const struct verify_options *o = &v->options;
    struct verify_result *r = &v->result;
    if (!o->has_head || r->head_checked)
        return;
    if (o->head_seq > r->last_seq)
        fail(v, VERIFY_HEAD, r->last_seq,
             "the log ends at record %" PRIu64 ", the head kept elsewhere is %" PRIu64
             ": the tail was cut",
             r->last_seq, o->head_seq);
    else
        fail(v, VERIFY_HEAD, r->first_seq,
             "the head kept elsewhere is record %" PRIu64
             ", which is before the first here, %" PRIu64,
             o->head_seq, r->first_seq);
}

void
verify_finish(struct verify *v, struct verify_result *ret)
{
    struct verify_result *r = &v->result;
    if (v->options.key && r->records > 0) {
        uint64_t vouched = r->vouched_seq ? r->vouched_seq : r->first_seq - 1;
        if (r->last_seq - vouched > UNVOUCHED_MAX)
            fail(v, VERIFY_CHECKPOINT, r->last_seq,
                 "no checkpoint among the last %" PRIu64
                 " records; the recorder writes one every %d",
                 r->last_seq - vouched, CHECKPOINT_RECORDS);
    }
    finish_head(v);
    *ret = *r;
}

const char *
verify_kind_text(enum verify_kind k)
{
    switch (k) {
    case VERIFY_INTACT:
        return "intact";
    case VERIFY_EDIT:
        return "edit";
    case VERIFY_REMOVAL:
        return "removal";
    case VERIFY_REORDERING:
        return "reordering";
    case VERIFY_INSERTION:
        return "insertion";
    case VERIFY_CHECKPOINT:
        return "checkpoint";
    case VERIFY_HEAD:
        return "head";
    }
    return "unknown";
}
