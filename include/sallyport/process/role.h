/* A child's start: its descriptors by number, and the bundle that it runs by. */
#ifndef SALLYPORT_PROCESS_ROLE_H
#define SALLYPORT_PROCESS_ROLE_H

#include <stdbool.h>
#include <sys/types.h>

#include "sallyport/base/err.h"
#include "sallyport/net/channel.h"
#include "sallyport/process/control.h"
#include "sallyport/proxy/shared.h"

#define ROLE_SOCKETS_MAX 64

struct role_socket {
    char *name;
    int fd;
    bool shared; /* other processes accept on it too */
};

struct role_start {
    enum role role;
    int slot;                 /* of a worker */
    int control, shared, bundle;
    int uid, gid;             /* to become; -1: stay */
    uint64_t generation;
    int records[SHARED_WORKERS_MAX]; /* a worker has one, the recorder one a slot */
    int record_count;
    int left[SHARED_WORKERS_MAX];    /* the recorder's: channels of workers that have ended */
    int left_count;
    int keepers[SHARED_WORKERS_MAX]; /* a worker has one, the keeper one a slot */
    int keeper_count;
    int ca_key;               /* the keeper's; -1: none */
    int file, file_before;    /* the recorder's; -1: none */
    int fold;                 /* the recorder's table of repeated refusals, which outlives it */
    int torn;                 /* bytes of a torn line that were set aside */
    int owner;                /* user id of the supervisor: who may use the admin socket beside root */
    int leaf;                 /* 1: the checker is to make the run's leaf key */
    int again;                /* 1: a recorder was here before, workers may have things to send again */
    struct role_socket sockets[ROLE_SOCKETS_MAX];
    int socket_count;
};

/* Reads the command line that spawn made and sets the process up (name, diagnostics, shared mapping). Refuses to be started
 * by hand: the descriptors must be there and be what they should be. */
int role_begin(enum role role, int argc, char **argv, struct role_start *ret, struct err *err);
/* Tells the supervisor why this child cannot run, and returns the exit status for it. */
int role_fail(const struct role_start *start, const struct err *err);
int role_fail_by(struct channel *control, const struct err *err); /* the same, by a channel that there is already */

int worker_main(int argc, char **argv);
int recorder_main(int argc, char **argv);
int admin_main(int argc, char **argv);
int checker_main(int argc, char **argv);
int keeper_main(int argc, char **argv);

#endif
