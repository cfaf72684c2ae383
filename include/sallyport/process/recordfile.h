/* The record file as the supervisor sees it: opening, locking, setting a torn end aside, renaming. What is in it is the
 * recorder's business. Names: record/verify.h. */
#ifndef SALLYPORT_PROCESS_RECORDFILE_H
#define SALLYPORT_PROCESS_RECORDFILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "sallyport/base/err.h"
#include "sallyport/process/control.h"

struct record_file {
    char *path;
    int fd;              /* O_APPEND, locked; the lock belongs to the open file, which all recorders inherit */
    dev_t dev;
    ino_t ino;
    uint64_t torn_bytes; /* set aside when it was opened */
};

int recordfile_open(const char *path, struct record_file *ret, struct err *err);
void recordfile_close(struct record_file *f);
/* After a recorder was killed: what it left half written goes aside. */
int recordfile_mend(struct record_file *f, struct err *err);
/* The newest rotated file, for the chain's head when the file itself is empty; -1 when there is none. */
int recordfile_before(const char *path);
/* Does the path still lead to the open file? */
bool recordfile_in_place(const struct record_file *f);
/* Puts the present file out of the way (rotated: under its number; tampered with: beside) and opens a new one. */
int recordfile_replace(struct record_file *f, enum want_file why, uint64_t first_seq, struct err *err);

#endif
