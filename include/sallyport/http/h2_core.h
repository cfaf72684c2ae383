/* What a session and its streams consist of: shared by src/http/h2*.c, and nobody else's business. */
#ifndef SALLYPORT_HTTP_H2_CORE_H
#define SALLYPORT_HTTP_H2_CORE_H

#include "sallyport/base/list.h"
#include "sallyport/http/h2.h"
#include "sallyport/http/h2_limits.h"

#define H2_WINDOW_FIRST 65535 /* RFC 9113 section 6.9.2: what a stream has without a word */
#define H2_FAULT_SIZE 96
#define H2_GAPS_MAX 8
#define H2_RESETS_KEPT 256    /* twice the streams that a client may have open */

/* Ids that the peer passed over: they are closed for good (RFC 9113 section 5.1.1). */
struct h2_gap {
    int32_t first, last;
};

struct h2_session {
    enum h2_role role;
    struct h2_limits limits;
    struct h2_callbacks on;
    void *owner;
    struct nghttp2_session *ng;
    struct h2_meter meter;
    int64_t now_ms;          /* as last told */
    struct list streams;
    struct list sent;        /* streams with sent_count to be told */
    size_t grown;            /* of limits.window_growth */
    unsigned lingering;      /* streams */
    struct slice chunk;      /* given by nghttp2 and not yet written; valid until it is asked again */
    struct h2_gap gaps[H2_GAPS_MAX]; /* the last ones */
    size_t gap_count;
    int32_t newest;          /* the highest id that the peer opened */
    int32_t newest_at_tick;
    bool resting;            /* as the tick found it; false between ticks */
    int32_t resets[H2_RESETS_KEPT]; /* the last streams that we reset: what crosses that is no fault */
    size_t reset_count;
    int64_t settings_ms;     /* when our last SETTINGS were submitted */
    bool settings_acked;
    uint32_t streams_wanted; /* as a server: that limits.streams is to become */
    bool draining;
    uint32_t fault_code;
    char fault[H2_FAULT_SIZE]; /* "" while nothing is wrong */
};

struct h2_stream {
    struct list_node node, sent_node;
    struct h2_session *session;
    int32_t id;
    void *owner;
    bool told;               /* the owner knows of it: on_closed is due */
    bool counted;            /* a fault of this stream was counted */
    bool reset_by_owner;
    bool not_sent;           /* a request that never left */
    struct h2_head *reading; /* the block that is coming in */
    bool head_seen;          /* the final head came: what follows are trailers */
    bool remote_ended, local_ended;
    bool discard;
    int64_t linger_until_ms; /* our answer has ended, what comes is thrown away; 0: not so */
    size_t lingered;         /* bytes of that */
    size_t held;             /* given by on_data, not consumed; of a discarded stream what came without credit for more */
    size_t window;           /* the stream's, as the peer may use it */
    size_t passed;           /* consumed since the window grew */
    struct buf out;
    bool answered;           /* a final response was submitted, or the request */
    bool finished;           /* what is in `out` is the rest */
    bool deferred;           /* nghttp2 waits for h2_stream_write */
    struct h2_head *trailers;
    size_t sent_count;
};

void h2_stream_free(struct h2_stream *stream);
/* Bytes of a discarded stream. */
void h2_stream_throw_away(struct h2_stream *stream, size_t n);
/* Nothing more is waited for. */
void h2_stream_cut_off(struct h2_stream *stream);
struct h2_stream *h2_stream_new(struct h2_session *s, int32_t id, void *owner);
/* Both sides may have ended now: the rest of a message that nobody wants is cut off. */
void h2_stream_end_local(struct h2_stream *stream);

#endif
