/* One HTTP/2 connection, either side of it: bytes in, bytes out, events. No sockets, no clock (times are arguments). The only
 * module with nghttp2. Everything that a peer can make us keep or do has a cap in struct h2_limits or in h2_limits.h.
 *
 * Callbacks come from h2_session_feed, h2_session_output and h2_session_tick. They may call anything but these three and
 * h2_session_free. */
#ifndef SALLYPORT_HTTP_H2_H
#define SALLYPORT_HTTP_H2_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/buf.h"
#include "sallyport/base/slice.h"
#include "sallyport/http/h2_fields.h"

struct h2_session;
struct h2_stream; /* the session's; lives until on_closed or h2_stream_reset */

enum h2_role { H2_SERVER = 1, H2_CLIENT };

/* Error codes (RFC 9113 section 7) that owners use by name. */
enum h2_code {
    H2_NO_ERROR = 0x0,
    H2_PROTOCOL_ERROR = 0x1,
    H2_INTERNAL_ERROR = 0x2,
    H2_FLOW_CONTROL_ERROR = 0x3,
    H2_SETTINGS_TIMEOUT = 0x4,
    H2_STREAM_CLOSED = 0x5,
    H2_FRAME_SIZE_ERROR = 0x6,
    H2_REFUSED_STREAM = 0x7,
    H2_CANCEL = 0x8,
    H2_COMPRESSION_ERROR = 0x9,
    H2_CONNECT_ERROR = 0xa,
    H2_ENHANCE_YOUR_CALM = 0xb,
    H2_INADEQUATE_SECURITY = 0xc,
    H2_HTTP_1_1_REQUIRED = 0xd,
};

struct h2_limits {
    uint32_t streams;            /* that the peer may have open at once; as a client: that we open */
    uint32_t header_bytes;       /* decoded header list, 32 a field included (MAX_HEADER_LIST_SIZE) */
    uint32_t header_fields;      /* fields of one block */
    uint32_t window_max;         /* bytes of one stream that may wait here; streams begin with 65,535 and grow while they are read */
    uint32_t window_growth;      /* of all streams of a session together, beyond the 65,535 that each has */
    uint32_t settings_timeout_ms; /* until our SETTINGS are acknowledged; also how long the preface may take */
    bool connect_protocol;       /* as a server: take extended CONNECT (RFC 8441); otherwise :protocol is malformed */
};
/* A session holds at most streams * 65,535 + window_growth bytes each way: 16 MiB. */
#define H2_LIMITS_DEFAULT                                                                                              \
    ((struct h2_limits){.streams = 128,                                                                                \
                        .header_bytes = 65536,                                                                         \
                        .header_fields = 100,                                                                          \
                        .window_max = 1 << 20,                                                                         \
                        .window_growth = 8 << 20,                                                                      \
                        .settings_timeout_ms = 10000})

/* A message that nobody wants any more is heard out so far, behind the end of our answer: a client that is busy sending would not
 * read an answer that a reset follows. Then, or where more streams than these linger, the rest is cut off. */
#define H2_LINGER_BYTES (256u << 10)
#define H2_LINGER_MS 2000
#define H2_LINGER_STREAMS 16

struct h2_callbacks {
    /* A request (server) or a response, interim ones too (client). `head` is the callee's: h2_head_free. As a server, say who
     * owns the stream with h2_stream_set_owner. A request with too_large wants a refusal. */
    void (*on_head)(void *owner, struct h2_stream *s, struct h2_head *head);
    /* Data that counts against the stream's window until h2_stream_consume. */
    void (*on_data)(void *owner, struct h2_stream *s, struct slice data);
    /* The message is complete; not after a head with `end`. trailers (the callee's) or NULL. */
    void (*on_end)(void *owner, struct h2_stream *s, struct h2_head *trailers);
    /* n bytes of what h2_stream_write took have gone into frames. */
    void (*on_sent)(void *owner, struct h2_stream *s, size_t n);
    /* The stream is over and must not be used afterwards. H2_NO_ERROR: both sides ended, or the peer wants no more. */
    void (*on_closed)(void *owner, struct h2_stream *s, uint32_t code);
    /* Server: a request that no on_head tells about, because it is malformed; the peer gets a reset. */
    void (*on_malformed)(void *owner);
    /* The peer goes: streams of ours above last_id were not looked at (they are closed with H2_REFUSED_STREAM). May come twice. */
    void (*on_goaway)(void *owner, int32_t last_id, uint32_t code);
    /* SETTINGS of the peer are in force (NULL: nobody wants to know). */
    void (*on_settings)(void *owner);
};

/* Our preface and SETTINGS wait in the output at once. */
struct h2_session *h2_session_new(enum h2_role role, const struct h2_limits *limits, const struct h2_callbacks *callbacks,
                                  void *owner, int64_t now_ms);
void h2_session_free(struct h2_session *s); /* no callback; NULL is fine */
/* Bytes of the peer. False: the connection is at fault; nothing more is read, and the output ends with a GOAWAY. */
bool h2_session_feed(struct h2_session *s, struct slice bytes, int64_t now_ms);
/* Appends what is to be written, as far as there is room. True: there is more than fitted. */
bool h2_session_output(struct h2_session *s, struct buf *out);
/* The deadlines: of settings, of streams that linger. False as h2_session_feed. */
bool h2_session_tick(struct h2_session *s, int64_t now_ms);
/* Should more be read? Not while answers to what was read wait in heaps: the peer does not read them. */
bool h2_session_reading(const struct h2_session *s);
/* All is said, both ways or by a fault: when the output is written the connection can be closed. */
bool h2_session_over(const struct h2_session *s);
/* Why it was ended by this side, in words; NULL while nothing is wrong. Complete after h2_session_output. */
const char *h2_session_fault(const struct h2_session *s);
uint32_t h2_session_fault_code(const struct h2_session *s);
size_t h2_session_streams(const struct h2_session *s);
/* The name of a code ("PROTOCOL_ERROR"), or "an unknown error". */
const char *h2_code_text(uint32_t code);
/* How many streams the peer lets us open at once (its SETTINGS_MAX_CONCURRENT_STREAMS); known after on_settings. */
uint32_t h2_session_peer_streams(const struct h2_session *s);
/* Server: how many the peer may have open. Fewer are announced when a tick finds that none is, and none was since the last one; what
 * crosses that on the way is closed with H2_REFUSED_STREAM. */
void h2_session_set_streams(struct h2_session *s, uint32_t streams);

/* Server: says that no new stream is wanted; those under way, and those that cross this on the way, are served.
 * Client: nothing is sent; no new request is taken. */
void h2_session_drain(struct h2_session *s);
/* GOAWAY with that code; streams under way go on to their end. */
void h2_session_goaway(struct h2_session *s, uint32_t code);
/* GOAWAY and the end: no stream is served further. `why`: static text. */
void h2_session_terminate(struct h2_session *s, uint32_t code, const char *why);

/* Client: can a request be begun? Not after GOAWAY, drain, or with all ids used up. */
bool h2_session_takes_requests(const struct h2_session *s);
/* Client: may :protocol be sent (the peer's SETTINGS_ENABLE_CONNECT_PROTOCOL)? */
bool h2_session_takes_protocol(const struct h2_session *s);
/* NULL: not now (above, or limits.streams are open). Requests past the peer's own limit wait in the session. Everything is
 * copied from head. head->end: there is no body. */
struct h2_stream *h2_submit_request(struct h2_session *s, const struct h2_head *head, void *owner);
/* Server: an interim response (status 1xx), or the final one, once. False: not possible any more. */
bool h2_submit_response(struct h2_stream *s, const struct h2_head *head);

void h2_stream_set_owner(struct h2_stream *s, void *owner);
void *h2_stream_owner(const struct h2_stream *s);
int32_t h2_stream_id(const struct h2_stream *s);
/* Body bytes; they are held until the peer's windows let them go. False, and nothing taken, where they pass the room. What
 * came through one stream's window fits another's buffer, so that a relay consumes there what on_sent tells here. */
bool h2_stream_write(struct h2_stream *s, struct slice data);
size_t h2_stream_room(const struct h2_stream *s);
/* The body is complete; trailers (copied; h2_head_add) or NULL. Not after a head with `end`. */
void h2_stream_finish(struct h2_stream *s, const struct h2_head *trailers);
/* Of what on_data gave, n bytes are passed on: the peer may send as many again. */
void h2_stream_consume(struct h2_stream *s, size_t n);
/* Nothing more of this message is wanted: what comes is thrown away. As a server, a peer that is still sending when our answer
 * has ended is heard out (H2_LINGER_*), and then gets RST_STREAM with H2_NO_ERROR (RFC 9113 section 8.1); as a client reset the
 * stream instead, or let it end. */
void h2_stream_discard(struct h2_stream *s);
/* RST_STREAM; no event of this stream afterwards, and `s` must not be used again. */
void h2_stream_reset(struct h2_stream *s, uint32_t code);

#endif
