/* A session with somebody behind it who keeps what it is told, for tests of HTTP/2. */
#ifndef TESTS_UNIT_H2PEER_H
#define TESTS_UNIT_H2PEER_H

#include "sallyport/base/mem.h"
#include "sallyport/http/h2.h"
#include "unit/h2frames.h"

#define MSGS_MAX 300
#define OUT_CAP (32u << 20)

/* One stream as its owner saw it. */
struct msg {
    struct h2_stream *stream; /* NULL when closed */
    struct h2_head *head, *interim, *trailers;
    struct buf data;
    size_t unconsumed, sent;
    bool ended, closed;
    unsigned ends;
    uint32_t code;
};

struct peer {
    struct h2_session *s;
    enum h2_role role;
    struct buf out;
    struct msg msgs[MSGS_MAX];
    size_t count;
    unsigned malformed, goaways, settings, orphans; /* orphans: events of streams that nobody owns */
    uint32_t goaway_code;
    int32_t goaway_last;
    bool hold;          /* data is not consumed */
    bool reset_at_head; /* streams are reset as soon as they are told of */
    int64_t now_ms;
};

static inline struct msg *
msg_of(struct peer *p, struct h2_stream *stream)
{
    struct msg *m = h2_stream_owner(stream);
    if (!m)
        p->orphans++;
    return m;
}

static inline struct msg *
msg_new(struct peer *p)
{
    if (p->count == MSGS_MAX)
        abort();
    struct msg *m = &p->msgs[p->count++];
    buf_init(&m->data, RAW_MAX);
    return m;
}

static inline void
peer_on_head(void *owner, struct h2_stream *stream, struct h2_head *head)
{
    struct peer *p = owner;
    if (p->role == H2_SERVER) {
        struct msg *m = msg_new(p);
        m->stream = stream;
        h2_stream_set_owner(stream, m);
    }
    struct msg *m = msg_of(p, stream);
    if (head->head.status && head->head.status < 200) {
        h2_head_free(m->interim);
        m->interim = head;
        return;
    }
    m->head = head;
    m->ended = head->end;
    if (p->reset_at_head) {
        m->stream = NULL;
        h2_stream_reset(stream, H2_CANCEL);
    }
}

static inline void
peer_on_data(void *owner, struct h2_stream *stream, struct slice data)
{
    struct peer *p = owner;
    struct msg *m = msg_of(p, stream);
    buf_append_slice(&m->data, data);
    if (p->hold)
        m->unconsumed += data.len;
    else
        h2_stream_consume(stream, data.len);
}

static inline void
peer_on_end(void *owner, struct h2_stream *stream, struct h2_head *trailers)
{
    struct msg *m = msg_of(owner, stream);
    m->trailers = trailers;
    m->ended = true;
    m->ends++;
}

static inline void
peer_on_sent(void *owner, struct h2_stream *stream, size_t n)
{
    struct msg *m = msg_of(owner, stream);
    m->sent += n;
}

static inline void
peer_on_closed(void *owner, struct h2_stream *stream, uint32_t code)
{
    struct msg *m = msg_of(owner, stream);
    m->stream = NULL;
    m->closed = true;
    m->code = code;
}

static inline void
peer_on_malformed(void *owner)
{
    struct peer *p = owner;
    p->malformed++;
}

static inline void
peer_on_goaway(void *owner, int32_t last, uint32_t code)
{
    struct peer *p = owner;
    p->goaways++;
    p->goaway_last = last;
    p->goaway_code = code;
}

static inline void
peer_on_settings(void *owner)
{
    struct peer *p = owner;
    p->settings++;
}

static const struct h2_callbacks peer_callbacks = {peer_on_head,   peer_on_data,      peer_on_end,    peer_on_sent,
                                                   peer_on_closed, peer_on_malformed, peer_on_goaway, peer_on_settings};

static inline struct peer *
peer_with(enum h2_role role, const struct h2_limits *limits)
{
    struct peer *p = mem_zalloc(sizeof *p);
    p->role = role;
    p->now_ms = 1000;
    buf_init(&p->out, OUT_CAP);
    p->s = h2_session_new(role, limits, &peer_callbacks, p, p->now_ms);
    return p;
}

static inline struct peer *
peer_new(enum h2_role role)
{
    struct h2_limits limits = H2_LIMITS_DEFAULT;
    return peer_with(role, &limits);
}

static inline void
peer_free(struct peer *p)
{
    h2_session_free(p->s);
    for (size_t i = 0; i < p->count; i++) {
        h2_head_free(p->msgs[i].head);
        h2_head_free(p->msgs[i].interim);
        h2_head_free(p->msgs[i].trailers);
        buf_done(&p->msgs[i].data);
    }
    buf_done(&p->out);
    free(p);
}

/* Feeds bytes in pieces of `step`, each in memory of its own; false: refused. */
static inline bool
peer_feed(struct peer *p, struct slice bytes, size_t step)
{
    bool ok = true;
    for (size_t at = 0; ok && at < bytes.len; at += step) {
        size_t n = bytes.len - at < step ? bytes.len - at : step;
        char *copy = mem_alloc(n);
        memcpy(copy, bytes.ptr + at, n);
        ok = h2_session_feed(p->s, slice_of(copy, n), p->now_ms);
        free(copy);
    }
    h2_session_output(p->s, &p->out);
    return ok;
}

/* What `from` has to say goes to `to`, in pieces; true when something moved. */
static inline bool
peer_push(struct peer *from, struct peer *to, size_t step)
{
    h2_session_output(from->s, &from->out);
    if (buf_len(&from->out) == 0)
        return false;
    peer_feed(to, buf_slice(&from->out), step);
    buf_clear(&from->out);
    return true;
}

static inline void
peers_talk(struct peer *a, struct peer *b, size_t step)
{
    bool moved = true;
    while (moved) {
        moved = peer_push(a, b, step);
        moved = peer_push(b, a, step) || moved;
    }
}

static inline struct h2_head *
make_request(const char *method, const char *path, bool end)
{
    struct h2_head *h = h2_head_new();
    h->head.method = h2_head_dup(h, slice_str(method));
    h->scheme = slice_str("https");
    h->authority = slice_str("example.com");
    h->path = h2_head_dup(h, slice_str(path));
    h->end = end;
    return h;
}

static inline struct msg *
send_request(struct peer *p, const char *method, const char *path, bool end)
{
    struct h2_head *h = make_request(method, path, end);
    struct msg *m = msg_new(p);
    m->stream = h2_submit_request(p->s, h, m);
    h2_head_free(h);
    return m;
}

static inline bool
send_status(struct h2_stream *stream, uint16_t status, bool end)
{
    struct h2_head *h = h2_head_new();
    h->head.status = status;
    h->end = end;
    bool ok = h2_submit_response(stream, h);
    h2_head_free(h);
    return ok;
}

/* The value of a field, "" when absent. */
static inline struct slice
field_of(const struct h2_head *h, const char *name)
{
    size_t count;
    struct slice v = head_field(&h->head, name, &count);
    return count == 1 ? v : slice_str("");
}

#endif
