/* The words between the supervisor and its children, and who may say which. A child may have been taken over: what is not
 * in the table is not heard. */
#ifndef SALLYPORT_PROCESS_CONTROL_H
#define SALLYPORT_PROCESS_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/err.h"
#include "sallyport/net/channel.h"

enum role { ROLE_NONE = 0, ROLE_SUPERVISOR, ROLE_RECORDER, ROLE_WORKER, ROLE_ADMIN, ROLE_KEEPER, ROLE_CHECKER };

enum control {
    CONTROL_NONE = 0,
    CONTROL_READY,    /* child: serving */
    CONTROL_FAILED,   /* child: could not start; a byte of enum err_kind and a sentence */
    CONTROL_BUNDLE,   /* supervisor: a new sealed bundle (one descriptor); struct control_bundle */
    CONTROL_DRAIN,    /* supervisor -> worker: no new work */
    CONTROL_IDLE,     /* worker: drained */
    CONTROL_STOP,     /* supervisor: end now */
    CONTROL_EVENT,    /* supervisor -> recorder: a record of its own; two bytes of enum record_event and JSON members */
    CONTROL_WANT_FILE, /* recorder: a fresh record file; struct control_want_file */
    CONTROL_FILE,     /* supervisor -> recorder: here it is (one descriptor), or none is to be had */
    CONTROL_STATE,    /* supervisor -> admin: struct control_state */
    CONTROL_CHANNEL,  /* supervisor -> recorder, keeper: the channel of a worker that starts (one descriptor); struct control_channel */
    CONTROL_CHANNEL_TAKEN, /* recorder: it is taken up, and what the one before held is written; struct control_channel */
    CONTROL_CHECKED,  /* checker: the configuration is sound; nothing, or the leaf key that was wanted: two PEM texts, each with its NUL */
    CONTROL_CHANNEL_ENDED, /* recorder: this one is over, so its worker is to end; struct control_channel */
};

enum want_file { WANT_NONE = 0, WANT_ROTATED, WANT_LOST /* removed or replaced */, WANT_TAMPERED /* cut or written by others */ };

struct control_bundle { uint64_t generation; };
struct control_want_file { uint64_t why, first_seq; };
struct control_channel { uint64_t slot, id /* channel_id */; };
struct control_state { uint8_t ready, draining; };

struct err control_failure(struct slice payload); /* of CONTROL_FAILED */
const char *role_name(enum role r);
/* May `from` send this frame? Type, length and number of descriptors. */
bool control_allowed(enum role from, const struct frame *frame);

#endif
