/* The frames between a worker and the keeper, as bytes: numbers big-endian, every length checked, nothing left over. Pure.
 * Neither side believes the other's: what has another form is no frame. */
#ifndef SALLYPORT_TLS_LEAFWIRE_H
#define SALLYPORT_TLS_LEAFWIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/buf.h"
#include "sallyport/base/digest.h"
#include "sallyport/base/slice.h"
#include "sallyport/http/target.h"

#define LEAF_POLICY_NAME_MAX 128
#define LEAF_TOKEN_MAX 16384
#define LEAF_QUESTION_MAX (44 + LEAF_POLICY_NAME_MAX + HOST_TEXT_SIZE + LEAF_TOKEN_MAX)

/* Types of the channel's frames. */
enum leaf_frame {
    LEAF_FRAME_NONE = 0,
    LEAF_FRAME_QUESTION, /* worker -> keeper */
    LEAF_FRAME_ANSWER,   /* keeper -> worker */
    LEAF_FRAME_STARTED,  /* keeper -> worker: I am new, ask again what is unanswered; empty */
};

struct leaf_question {
    uint32_t id;                       /* the worker's, comes back in the answer */
    struct slice policy;               /* its name */
    unsigned char policy_sha256[SHA256_SIZE];
    struct host host;                  /* canonical */
    uint16_t port;
    struct slice token;                /* empty, or the token whose own policy is meant */
};

enum leaf_status { LEAF_STATUS_NONE = 0, LEAF_STATUS_MINTED, LEAF_STATUS_REFUSED, LEAF_STATUS_UNKNOWN_POLICY, LEAF_STATUS_BUSY, LEAF_STATUS_FAILED };

struct leaf_answer {
    uint32_t id;
    enum leaf_status status;
    struct slice der;                  /* with MINTED, else empty */
};

/* False: too long for the frame; nothing appended. */
bool leaf_question_write(struct buf *b, const struct leaf_question *q);
/* Slices point into frame. The host must be in canonical form as it stands. */
bool leaf_question_read(struct slice frame, struct leaf_question *ret);
bool leaf_answer_write(struct buf *b, const struct leaf_answer *a);
bool leaf_answer_read(struct slice frame, struct leaf_answer *ret);

#endif
