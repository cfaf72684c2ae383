/* What one HTTP/2 peer may do to us before the connection ends: a reader of frame headers that counts what costs much and
 * brings nothing (resets, pings, settings, empty frames …) in windows of ten seconds. Knows no stream and no field. */
#ifndef SALLYPORT_HTTP_H2_LIMITS_H
#define SALLYPORT_HTTP_H2_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/slice.h"

#define H2_METER_WINDOW_MS 10000
#define H2_CONTINUATIONS_MAX 8 /* a header block: 9 frames of 16 KiB are over twice the largest header list */

/* Rows: kind, most in one window, further ones that each frame of use (data or headers, either way) pays for, fault. A gRPC
 * peer measures its window by a ping for each burst of data, and a reader of bulk sends two window updates a frame. */
#define H2_KINDS(X)                                                                                                    \
    X(RESET, 1000, 1, "reset flood")                                                                                   \
    X(RESET_EARLY, 100, 0, "rapid reset")      /* of a request that was not answered yet */                            \
    X(FAULT, 50, 0, "too many stream errors")  /* frames that make us reset a stream */                                \
    X(PING, 64, 1, "ping flood")                                                                                       \
    X(SETTINGS, 16, 0, "settings flood")                                                                               \
    X(PRIORITY, 512, 1, "priority flood")                                                                              \
    X(EMPTY, 64, 0, "empty frames flood")                                                                              \
    X(WINDOW, 512, 4, "window update flood")                                                                           \
    X(OTHER, 128, 0, "unknown frames flood")   /* extensions, repeated GOAWAY */

enum h2_kind {
#define X(kind, ...) H2_KIND_##kind,
    H2_KINDS(X)
#undef X
        H2_KIND_COUNT
};

struct h2_meter {
    int64_t since_ms;                 /* when the window began */
    uint32_t spent[H2_KIND_COUNT];
    uint64_t earned;                  /* frames of use in this window */
    uint32_t block_max;               /* compressed bytes of one header block */
    uint32_t block;                   /* of the one under way */
    uint32_t continuations;
    uint32_t skip;                    /* bytes of the preface or of a payload still to come */
    uint8_t header[9];                /* of the next frame, as far as it came */
    uint8_t header_len;
};

/* preface: the 24 bytes that a client sends first come before the first frame. */
void h2_meter_init(struct h2_meter *m, bool preface, uint32_t block_max, int64_t now_ms);
/* Looks at bytes of the peer in order, however they are split. NULL, or which budget is spent (static text). */
const char *h2_meter_scan(struct h2_meter *m, struct slice bytes, int64_t now_ms);
/* One more of what only the session can see. */
const char *h2_meter_count(struct h2_meter *m, enum h2_kind kind, int64_t now_ms);
void h2_meter_earn(struct h2_meter *m); /* a frame of use was sent */

#endif
