/* The recorder's hold on the file: finished lines go in whole or not at all, in one write for a turn, and what the disk does
 * not take is kept and tried again. No channels here: process/recorder.c feeds it. */
#ifndef SALLYPORT_PROCESS_LOGWRITER_H
#define SALLYPORT_PROCESS_LOGWRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/buf.h"
#include "sallyport/base/err.h"
#include "sallyport/process/control.h"
#include "sallyport/record/chain.h"

/* Lines that may wait for the disk. */
#define LOGWRITER_PENDING_MAX (16u << 20)

struct log_writer {
    int fd;              /* O_APPEND; -1: none */
    uint64_t size;       /* of the file, all of it ours */
    uint64_t reserved;   /* file size up to which the disk has promised room */
    uint64_t reserve_bytes;
    uint64_t first_seq;  /* of the file */
    uint64_t cut_to;     /* with torn: where the file must be cut before anything else is written */
    bool torn;
    bool failing;        /* the last write did not go through */
    bool low;            /* the reserve could not be had: only what closes should still come */
    struct buf pending;  /* finished lines, not written */
    struct chain chain;
};

void logwriter_init(struct log_writer *w);
/* Takes fd over and finds the chain's head in its last line, or in that of `before` (-1: none) when it is empty. */
int logwriter_open(struct log_writer *w, int fd, int before, struct err *err);
/* A fresh, empty file: the chain goes on. Takes fd over. */
void logwriter_switch(struct log_writer *w, int fd);
/* Appends a draft to what is pending. False: the draft is none, or no room is left (ret_room says which). */
bool logwriter_add(struct log_writer *w, struct slice draft, bool *ret_room);
bool logwriter_add_sound(struct log_writer *w, struct slice draft); /* one that chain_draft_is_sound has passed */
/* Writes what is pending. False: failing, with errno of the reason; it stays pending. */
bool logwriter_flush(struct log_writer *w);
bool logwriter_sync(struct log_writer *w);
/* Is the file still ours alone and linked? */
enum want_file logwriter_check(const struct log_writer *w);
/* Keeps the reserve ahead of the end. False when the disk has no room for it. */
bool logwriter_reserve(struct log_writer *w);
void logwriter_done(struct log_writer *w);

/* Calls visit for each whole line of the last `max` bytes of the file, oldest first. */
void log_each_tail_line(int fd, uint64_t max, void (*visit)(void *ctx, struct slice line), void *ctx);

#endif
