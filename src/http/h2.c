/* HTTP/2 sessions over nghttp2, which knows frames, HPACK and the state of streams. What is ours here: which messages are
 * good (h2_fields.c), what a peer may cost (h2_limits.c), and flow control that reaches from end to end. The connection's
 * window is given back at once and a stream's only when its data was passed on, so that a slow reader
 * stops its own stream and no other, and what waits in memory is bounded by the streams' windows. */
#include "sallyport/http/h2.h"

#include <assert.h>
#include <nghttp2/nghttp2.h>

#include "sallyport/base/mem.h"
#include "sallyport/http/h2_core.h"

#define CONNECTION_WINDOW (8 << 20)   /* in flight, never held: any path's bandwidth times its delay */
#define QUEUE_MAX 512                 /* frames that wait because the peer does not read */
#define ACKS_MAX 256                  /* of these, answers to PING and SETTINGS */
#define HEADER_BOMB 4                 /* times the header list's limit: no longer a mistake */

/* ---- faults ---- */

static void
set_fault(struct h2_session *s, uint32_t code, const char *text, size_t len)
{
    size_t n = len < sizeof s->fault - 1 ? len : sizeof s->fault - 1;
    for (size_t i = 0; i < n; i++)
        s->fault[i] = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?';
    s->fault[n] = '\0';
    s->fault_code = code;
}

void
h2_session_terminate(struct h2_session *s, uint32_t code, const char *why)
{
    if (s->fault[0])
        return;
    set_fault(s, code, why, strlen(why));
    nghttp2_session_terminate_session(s->ng, code);
}

/* fault: of the meter, NULL when all is well. */
static bool
calm(struct h2_session *s, const char *fault)
{
    if (fault)
        h2_session_terminate(s, H2_ENHANCE_YOUR_CALM, fault);
    return s->fault[0] == '\0';
}

static void
count_fault(struct h2_session *s, struct h2_stream *stream)
{
    if (stream && stream->counted)
        return;
    if (stream)
        stream->counted = true;
    calm(s, h2_meter_count(&s->meter, H2_KIND_FAULT, s->now_ms));
}

/* ---- streams ---- */

struct h2_stream *
h2_stream_new(struct h2_session *s, int32_t id, void *owner)
{
    struct h2_stream *stream = mem_zalloc(sizeof *stream);
    stream->session = s;
    stream->id = id;
    stream->owner = owner;
    stream->window = H2_WINDOW_FIRST;
    buf_init(&stream->out, s->limits.window_max);
    list_append(&s->streams, &stream->node);
    return stream;
}

void
h2_stream_free(struct h2_stream *stream)
{
    struct h2_session *s = stream->session;
    s->grown -= stream->window - H2_WINDOW_FIRST;
    s->lingering -= stream->linger_until_ms != 0;
    list_remove(&s->streams, &stream->node);
    if (list_linked(&stream->sent_node))
        list_remove(&s->sent, &stream->sent_node);
    h2_head_free(stream->reading);
    h2_head_free(stream->trailers);
    buf_done(&stream->out);
    free(stream);
}

static struct h2_stream *
stream_find(const struct h2_session *s, int32_t id)
{
    return id ? nghttp2_session_get_stream_user_data(s->ng, id) : NULL;
}

/* May the owner still hear of it? */
static bool
is_live(const struct h2_stream *stream)
{
    return stream && stream->told && !stream->reset_by_owner && !stream->session->fault[0];
}

static void
tell_malformed(struct h2_session *s, struct h2_stream *stream)
{
    if (s->role == H2_SERVER && stream && !stream->told && !s->fault[0]) {
        stream->told = stream->reset_by_owner = true;
        s->on.on_malformed(s->owner);
    }
}

/* The peer's message is not good; its stream ends here. */
static void
refuse_stream(struct h2_session *s, struct h2_stream *stream)
{
    h2_head_free(steal(&stream->reading));
    count_fault(s, stream);
    nghttp2_submit_rst_stream(s->ng, NGHTTP2_FLAG_NONE, stream->id, H2_PROTOCOL_ERROR);
    tell_malformed(s, stream);
}

/* ---- how many streams the peer may have ---- */

/* One announcement at a time: a peer that does not acknowledge it runs into the deadline. A smaller number waits for a rest, since
 * the library refuses what passes it from then on, and a peer that is busy would not know yet. */
static void
announce_streams(struct h2_session *s)
{
    const nghttp2_settings_entry iv = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, s->streams_wanted};
    if (!s->settings_acked || s->streams_wanted == s->limits.streams || s->fault[0])
        return;
    if (s->streams_wanted < s->limits.streams && !s->resting)
        return;
    if (nghttp2_submit_settings(s->ng, NGHTTP2_FLAG_NONE, &iv, 1) != 0)
        abort();
    s->limits.streams = s->streams_wanted;
    s->settings_acked = false;
    s->settings_ms = s->now_ms;
}

/* ---- stream ids ---- */

static bool
is_passed_over(const struct h2_session *s, int32_t id)
{
    for (size_t i = 0; i < s->gap_count; i++)
        if (id >= s->gaps[i].first && id <= s->gaps[i].last)
            return true;
    return false;
}

static void
note_id(struct h2_session *s, int32_t id)
{
    int32_t expected = s->newest ? s->newest + 2 : 1;
    if (id > expected) {
        if (s->gap_count == H2_GAPS_MAX) {
            memmove(&s->gaps[0], &s->gaps[1], sizeof s->gaps - sizeof s->gaps[0]);
            s->gap_count--;
        }
        s->gaps[s->gap_count++] = (struct h2_gap){expected, id - 2};
    }
    s->newest = id;
}

/* ---- requests on closed streams ---- */

static void
note_reset(struct h2_session *s, int32_t id)
{
    s->resets[s->reset_count++ % H2_RESETS_KEPT] = id;
}

static bool
was_reset(const struct h2_session *s, int32_t id)
{
    size_t kept = s->reset_count < H2_RESETS_KEPT ? s->reset_count : H2_RESETS_KEPT;
    for (size_t i = 0; i < kept; i++)
        if (s->resets[i] == id)
            return true;
    return false;
}

/* The library forgets a stream when it is closed, and throws away what comes for it. For DATA RFC 9113 section 5.1 leaves that open; a
 * client that begins a closed stream again is told, once. */
static void
check_closed(struct h2_session *s, int32_t id)
{
    bool begun = s->role == H2_SERVER && (id & 1) && id <= s->newest && !is_passed_over(s, id);
    if (!begun || stream_find(s, id) || was_reset(s, id))
        return;
    count_fault(s, NULL);
    nghttp2_submit_rst_stream(s->ng, NGHTTP2_FLAG_NONE, id, H2_STREAM_CLOSED);
}

/* Where the library is milder than RFC 9113: sections 5.1.1 and 6.3. */
static int
on_begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *user)
{
    struct h2_session *s = user;
    (void)ng;
    if (hd->type == NGHTTP2_PRIORITY && hd->stream_id == 0)
        h2_session_terminate(s, H2_PROTOCOL_ERROR, "PRIORITY: stream_id == 0");
    if (hd->type == NGHTTP2_HEADERS && s->role == H2_SERVER && is_passed_over(s, hd->stream_id))
        h2_session_terminate(s, H2_PROTOCOL_ERROR, "HEADERS: stream_id goes back");
    if (hd->type == NGHTTP2_HEADERS)
        check_closed(s, hd->stream_id);
    return 0;
}

/* ---- header blocks ---- */

static enum h2_block
block_kind(const struct h2_stream *stream)
{
    if (stream->head_seen)
        return H2_BLOCK_TRAILERS;
    return stream->session->role == H2_SERVER ? H2_BLOCK_REQUEST : H2_BLOCK_RESPONSE;
}

static int
on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
    struct h2_session *s = user;
    struct h2_stream *stream = stream_find(s, frame->hd.stream_id);
    if (frame->hd.type != NGHTTP2_HEADERS) /* a push, before our word against it has arrived */
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (!stream && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        note_id(s, frame->hd.stream_id);
        stream = h2_stream_new(s, frame->hd.stream_id, NULL);
        nghttp2_session_set_stream_user_data(ng, stream->id, stream);
        /* Streams share the connection evenly; how the client weighs them is not asked. */
        nghttp2_session_change_extpri_stream_priority(
            ng, stream->id,
            &(nghttp2_extpri){.urgency = NGHTTP2_EXTPRI_DEFAULT_URGENCY, .inc = 1}, 1);
    }
    if (stream) {
        h2_head_free(stream->reading);
        stream->reading = h2_head_new();
    }
    return 0;
}

static int
on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
          const uint8_t *value, size_t value_len, uint8_t flags, void *user)
{
    struct h2_session *s = user;
    struct h2_stream *stream = stream_find(s, frame->hd.stream_id);
    (void)ng;
    if (!stream || !stream->reading)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    bool good = h2_head_read(stream->reading, block_kind(stream), slice_of(name, name_len),
                             slice_of(value, value_len), (flags & NGHTTP2_NV_FLAG_NO_INDEX) != 0,
                             s->limits.header_fields, s->limits.header_bytes);
    if (stream->reading->size > (size_t)s->limits.header_bytes * HEADER_BOMB) {
        calm(s, "header list bomb");
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    if (good)
        return 0;
    refuse_stream(s, stream);
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

/* Fields that the library would drop without a word. */
static int
on_invalid_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
                  size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                  void *user)
{
    struct h2_session *s = user;
    struct h2_stream *stream = stream_find(s, frame->hd.stream_id);
    (void)ng, (void)name, (void)name_len, (void)value, (void)value_len, (void)flags;
    if (stream)
        refuse_stream(s, stream);
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static void
tell_head(struct h2_session *s, struct h2_stream *stream, struct h2_head *head)
{
    stream->head_seen = s->role == H2_SERVER || head->head.status >= 200;
    if (s->role == H2_SERVER)
        stream->told = true;
    if (is_live(stream))
        s->on.on_head(s->owner, stream, head);
    else
        h2_head_free(head);
}

static void
tell_end(struct h2_session *s, struct h2_stream *stream, struct h2_head *trailers)
{
    if (is_live(stream) && !stream->discard)
        s->on.on_end(s->owner, stream, trailers);
    else
        h2_head_free(trailers);
}

static void
end_block(struct h2_session *s, struct h2_stream *stream, bool end)
{
    enum h2_block kind = block_kind(stream);
    struct h2_head *head = stream->reading;
    if (!head)
        return;
    head->end = end;
    stream->remote_ended = end;
    /* Somebody can be told that a request is too large; of other blocks a part is of no use. */
    bool usable = !head->too_large || kind == H2_BLOCK_REQUEST;
    if (!usable || !h2_head_judge(head, kind)) {
        refuse_stream(s, stream);
        return;
    }
    stream->reading = NULL;
    if (kind == H2_BLOCK_TRAILERS)
        tell_end(s, stream, head);
    else
        tell_head(s, stream, head);
}

/* ---- frames ---- */

static int
on_data_chunk(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *data, size_t len,
              void *user)
{
    struct h2_session *s = user;
    struct h2_stream *stream = stream_find(s, id);
    (void)flags;
    nghttp2_session_consume_connection(ng, len);
    if (!is_live(stream))
        return 0;
    if (stream->discard) {
        h2_stream_throw_away(stream, len);
        return 0;
    }
    stream->held += len;
    s->on.on_data(s->owner, stream, slice_of(data, len));
    return 0;
}

static void
on_data_frame(struct h2_session *s, struct h2_stream *stream, const nghttp2_frame *frame)
{
    bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    /* Nothing but padding: the meter took it for data. */
    if (!end && frame->hd.length > 0 && frame->hd.length <= frame->data.padlen)
        calm(s, h2_meter_count(&s->meter, H2_KIND_EMPTY, s->now_ms));
    if (!end || !stream)
        return;
    stream->remote_ended = true;
    tell_end(s, stream, NULL);
}

static void
on_settings(struct h2_session *s, bool ack)
{
    if (ack) {
        s->settings_acked = true;
        if (s->role == H2_SERVER)
            announce_streams(s);
    } else if (s->on.on_settings && !s->fault[0]) {
        s->on.on_settings(s->owner);
    }
}

static int
on_frame_recv(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
    struct h2_session *s = user;
    struct h2_stream *stream = stream_find(s, frame->hd.stream_id);
    (void)ng;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        if (stream)
            end_block(s, stream, (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0);
        break;
    case NGHTTP2_DATA:
        on_data_frame(s, stream, frame);
        break;
    case NGHTTP2_RST_STREAM:
        if (s->role == H2_SERVER && stream && !stream->answered)
            calm(s, h2_meter_count(&s->meter, H2_KIND_RESET_EARLY, s->now_ms));
        break;
    case NGHTTP2_SETTINGS:
        on_settings(s, (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0);
        break;
    case NGHTTP2_GOAWAY:
        if (!s->fault[0])
            s->on.on_goaway(s->owner, frame->goaway.last_stream_id, frame->goaway.error_code);
        break;
    default: /* a byte of the peer: counted by the meter, of no meaning here */
        break;
    }
    return 0;
}

/* The library found it wrong; it resets the stream or ends the connection by itself. */
static int
on_invalid_frame(nghttp2_session *ng, const nghttp2_frame *frame, int error, void *user)
{
    struct h2_session *s = user;
    struct h2_stream *stream = stream_find(s, frame->hd.stream_id);
    (void)ng, (void)error;
    count_fault(s, stream);
    if (frame->hd.type == NGHTTP2_HEADERS)
        tell_malformed(s, stream);
    return 0;
}

static void
on_goaway_sent(struct h2_session *s, const nghttp2_goaway *goaway)
{
    if (goaway->error_code == H2_NO_ERROR || s->fault[0])
        return;
    const char *text = (const char *)goaway->opaque_data;
    if (goaway->opaque_data_len)
        set_fault(s, goaway->error_code, text, goaway->opaque_data_len);
    else
        set_fault(s, goaway->error_code, "protocol error", sizeof "protocol error" - 1);
}

static int
on_frame_sent(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
    struct h2_session *s = user;
    struct h2_stream *stream = stream_find(s, frame->hd.stream_id);
    (void)ng;
    switch (frame->hd.type) {
    case NGHTTP2_DATA:
    case NGHTTP2_HEADERS:
        h2_meter_earn(&s->meter);
        if (stream && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
            h2_stream_end_local(stream);
        break;
    case NGHTTP2_RST_STREAM: /* for a fault that only shows here: lengths, windows */
        note_reset(s, frame->hd.stream_id);
        if (stream && !stream->reset_by_owner)
            count_fault(s, stream);
        break;
    case NGHTTP2_GOAWAY:
        on_goaway_sent(s, &frame->goaway);
        break;
    default:
        break;
    }
    return 0;
}

static int
on_frame_not_sent(nghttp2_session *ng, const nghttp2_frame *frame, int error, void *user)
{
    struct h2_session *s = user;
    struct h2_stream *stream = stream_find(s, frame->hd.stream_id);
    (void)ng, (void)error;
    if (stream && frame->hd.type == NGHTTP2_HEADERS && !stream->head_seen)
        stream->not_sent = true;
    return 0;
}

static int
on_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *user)
{
    struct h2_session *s = user;
    struct h2_stream *stream = stream_find(s, id);
    (void)ng;
    if (!stream)
        return 0;
    /* Also after a fault: the owner must not hold what is freed here. */
    if (stream->told && !stream->reset_by_owner)
        s->on.on_closed(s->owner, stream,
                        stream->not_sent && s->role == H2_CLIENT ? H2_REFUSED_STREAM : code);
    h2_stream_free(stream);
    return 0;
}

/* ---- sessions ---- */

static nghttp2_session_callbacks *
make_callbacks(void)
{
    nghttp2_session_callbacks *c;
    if (nghttp2_session_callbacks_new(&c) != 0)
        abort();
    nghttp2_session_callbacks_set_on_begin_frame_callback(c, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(c, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(c, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(c, on_invalid_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, on_data_chunk);
    nghttp2_session_callbacks_set_on_frame_recv_callback(c, on_frame_recv);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(c, on_invalid_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(c, on_frame_sent);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(c, on_frame_not_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(c, on_stream_close);
    return c;
}

static nghttp2_option *
make_options(const struct h2_limits *limits)
{
    nghttp2_option *o;
    if (nghttp2_option_new(&o) != 0)
        abort();
    nghttp2_option_set_no_auto_window_update(o, 1);
    nghttp2_option_set_no_closed_streams(o, 1);
    nghttp2_option_set_max_outbound_ack(o, ACKS_MAX);
    nghttp2_option_set_max_reserved_remote_streams(o, 0);
    /* What came in by the limits must go out, uncompressed if need be. */
    nghttp2_option_set_max_send_header_block_length(o, (size_t)limits->header_bytes * 4);
    return o;
}

static void
submit_settings(struct h2_session *s)
{
    const struct h2_limits *l = &s->limits;
    nghttp2_settings_entry iv[5];
    size_t n = 0;
    iv[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, l->header_bytes};
    if (s->role == H2_CLIENT) {
        iv[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_PUSH, 0};
    } else {
        iv[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, l->streams};
        iv[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1};
        if (l->connect_protocol)
            iv[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1};
    }
    if (nghttp2_submit_settings(s->ng, NGHTTP2_FLAG_NONE, iv, n) != 0 ||
        nghttp2_session_set_local_window_size(s->ng, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW) != 0)
        abort();
}

struct h2_session *
h2_session_new(enum h2_role role, const struct h2_limits *limits,
               const struct h2_callbacks *callbacks, void *owner, int64_t now_ms)
{
    struct h2_session *s = mem_zalloc(sizeof *s);
    assert(limits->window_max >= H2_WINDOW_FIRST);
    s->role = role;
    s->limits = *limits;
    s->on = *callbacks;
    s->owner = owner;
    s->now_ms = s->settings_ms = now_ms;
    s->streams_wanted = limits->streams;
    list_init(&s->streams);
    list_init(&s->sent);
    h2_meter_init(&s->meter, role == H2_SERVER, limits->header_bytes * 2, now_ms);
    nghttp2_session_callbacks *c = make_callbacks();
    nghttp2_option *o = make_options(limits);
    int rc = role == H2_SERVER ? nghttp2_session_server_new2(&s->ng, c, s, o)
                               : nghttp2_session_client_new2(&s->ng, c, s, o);
    nghttp2_session_callbacks_del(c);
    nghttp2_option_del(o);
    if (rc != 0)
        abort(); /* memory, as everywhere */
    submit_settings(s);
    return s;
}

void
h2_session_free(struct h2_session *s)
{
    if (!s)
        return;
    nghttp2_session_del(s->ng);
    while (!list_empty(&s->streams))
        h2_stream_free(list_entry(list_first(&s->streams), struct h2_stream, node));
    free(s);
}

/* What the library gives up at; faults that it answers with a GOAWAY of its own are none of these. */
static void
fail_feed(struct h2_session *s, int error)
{
    switch (error) {
    case NGHTTP2_ERR_NOMEM:
        abort();
    case NGHTTP2_ERR_BAD_CLIENT_MAGIC:
        h2_session_terminate(s, H2_PROTOCOL_ERROR, "no HTTP/2 preface");
        break;
    case NGHTTP2_ERR_FLOODED:
        h2_session_terminate(s, H2_ENHANCE_YOUR_CALM, "flood");
        break;
    case NGHTTP2_ERR_TOO_MANY_CONTINUATIONS:
        h2_session_terminate(s, H2_ENHANCE_YOUR_CALM, "continuation flood");
        break;
    default:
        h2_session_terminate(s, H2_INTERNAL_ERROR, nghttp2_strerror(error));
        break;
    }
}

bool
h2_session_feed(struct h2_session *s, struct slice bytes, int64_t now_ms)
{
    s->now_ms = now_ms;
    if (s->fault[0] || !calm(s, h2_meter_scan(&s->meter, bytes, now_ms)))
        return false;
    ssize_t n = nghttp2_session_mem_recv(s->ng, (const uint8_t *)bytes.ptr, bytes.len);
    if (n < 0)
        fail_feed(s, (int)n);
    return s->fault[0] == '\0';
}

/* Behind nghttp2's back-calls, where writing more is allowed. */
static void
tell_sent(struct h2_session *s)
{
    while (!list_empty(&s->sent)) {
        struct h2_stream *stream = list_entry(list_first(&s->sent), struct h2_stream, sent_node);
        size_t n = stream->sent_count;
        list_remove(&s->sent, &stream->sent_node);
        stream->sent_count = 0;
        if (is_live(stream))
            s->on.on_sent(s->owner, stream, n);
    }
}

/* The next bytes of the library's, into s->chunk. False: there are none now. */
static bool
next_chunk(struct h2_session *s)
{
    const uint8_t *data;
    ssize_t n = nghttp2_session_mem_send(s->ng, &data);
    if (n < 0) {
        fail_feed(s, (int)n);
        return false;
    }
    s->chunk = slice_of(data, (size_t)n);
    tell_sent(s);
    return n > 0;
}

bool
h2_session_output(struct h2_session *s, struct buf *out)
{
    while (s->chunk.len > 0 || (buf_room(out) > 0 && next_chunk(s))) {
        size_t n = s->chunk.len < buf_room(out) ? s->chunk.len : buf_room(out);
        if (n == 0)
            return true;
        buf_append(out, s->chunk.ptr, n);
        s->chunk = slice_of(s->chunk.ptr + n, s->chunk.len - n);
    }
    return buf_room(out) == 0 && nghttp2_session_want_write(s->ng);
}

static void
end_lingering(struct h2_session *s)
{
    for (struct list_node *n = list_first(&s->streams); s->lingering && n; n = list_next(&s->streams, n)) {
        struct h2_stream *stream = list_entry(n, struct h2_stream, node);
        if (stream->linger_until_ms && s->now_ms >= stream->linger_until_ms)
            h2_stream_cut_off(stream);
    }
}

/* Nothing is open, and nothing was opened since the last look. */
static void
look_for_rest(struct h2_session *s)
{
    s->resting = list_empty(&s->streams) && s->newest == s->newest_at_tick;
    s->newest_at_tick = s->newest;
    announce_streams(s);
    s->resting = false;
}

bool
h2_session_tick(struct h2_session *s, int64_t now_ms)
{
    s->now_ms = now_ms;
    end_lingering(s);
    if (s->role == H2_SERVER)
        look_for_rest(s);
    if (!s->settings_acked && now_ms - s->settings_ms > s->limits.settings_timeout_ms)
        h2_session_terminate(s, H2_SETTINGS_TIMEOUT, "settings were not acknowledged");
    return s->fault[0] == '\0';
}

bool
h2_session_reading(const struct h2_session *s)
{
    return nghttp2_session_get_outbound_queue_size(s->ng) < QUEUE_MAX;
}

bool
h2_session_over(const struct h2_session *s)
{
    return s->chunk.len == 0 && !nghttp2_session_want_write(s->ng) &&
           (s->fault[0] || !nghttp2_session_want_read(s->ng));
}

const char *
h2_session_fault(const struct h2_session *s)
{
    return s->fault[0] ? s->fault : NULL;
}

uint32_t
h2_session_fault_code(const struct h2_session *s)
{
    return s->fault_code;
}

uint32_t
h2_session_peer_streams(const struct h2_session *s)
{
    return nghttp2_session_get_remote_settings(s->ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
}

void
h2_session_set_streams(struct h2_session *s, uint32_t streams)
{
    assert(s->role == H2_SERVER);
    s->streams_wanted = streams;
    announce_streams(s);
}

const char *
h2_code_text(uint32_t code)
{
    const char *text = nghttp2_http2_strerror(code);
    return strcmp(text, "unknown") == 0 ? "an unknown error" : text;
}

size_t
h2_session_streams(const struct h2_session *s)
{
    return s->streams.count;
}

void
h2_session_drain(struct h2_session *s)
{
    if (!s->draining && s->role == H2_SERVER)
        nghttp2_submit_shutdown_notice(s->ng);
    s->draining = true;
}

void
h2_session_goaway(struct h2_session *s, uint32_t code)
{
    s->draining = true;
    nghttp2_submit_goaway(s->ng, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(s->ng),
                          code, NULL, 0);
}
