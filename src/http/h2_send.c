/* The sending half of an HTTP/2 session: messages into frames, bodies at the pace of the peer's windows, and what a stream's
 * owner may do to it. */
#include <assert.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>

#include "sallyport/base/mem.h"
#include "sallyport/http/h2_core.h"

static nghttp2_nv
pair(struct slice name, struct slice value, bool sensitive)
{
    return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name.ptr,
                        .value = (uint8_t *)(uintptr_t)value.ptr,
                        .namelen = name.len,
                        .valuelen = value.len,
                        .flags = sensitive ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE};
}

/* Credentials are not to be guessed at by the size of what shares a table with them (RFC 7541 section 7.1). */
static bool
is_secret(struct slice name)
{
    return slice_is(name, "authorization") || slice_is(name, "proxy-authorization");
}

/* The list for the library; the caller frees it. status: of a response, else empty. */
static nghttp2_nv *
list_fields(const struct h2_head *h, const char *status, size_t *ret_count)
{
    const struct {
        const char *name;
        struct slice value;
    } pseudo[] = {{":status", slice_str(status)},      {":method", h->head.method},
                  {":protocol", h->protocol},          {":scheme", h->scheme},
                  {":authority", h->authority},        {":path", h->path}};
    nghttp2_nv *nv = mem_array(h->head.field_count + 6, sizeof *nv);
    size_t n = 0;
    for (size_t i = 0; i < sizeof pseudo / sizeof pseudo[0]; i++)
        if (pseudo[i].value.len && (*status != '\0') == (i == 0))
            nv[n++] = pair(slice_str(pseudo[i].name), pseudo[i].value, false);
    for (size_t i = 0; i < h->head.field_count; i++) {
        const struct field *f = &h->head.fields[i];
        nv[n++] = pair(f->name, f->value, h->sensitive[i] || is_secret(f->name));
    }
    *ret_count = n;
    return nv;
}

/* Copied, because they leave when the body has. */
static struct h2_head *
copy_trailers(const struct h2_head *from)
{
    if (!from || from->head.field_count == 0)
        return NULL;
    struct h2_head *copy = h2_head_new();
    for (size_t i = 0; i < from->head.field_count; i++)
        h2_head_add(copy, from->head.fields[i].name, from->head.fields[i].value,
                    from->sensitive[i]);
    return copy;
}

static void
submit_trailers(struct h2_stream *stream)
{
    size_t count;
    cleanup_free nghttp2_nv *nv = list_fields(stream->trailers, "", &count);
    nghttp2_submit_trailer(stream->session->ng, stream->id, nv, count);
}

static ssize_t
read_body(nghttp2_session *ng, int32_t id, uint8_t *data, size_t size, uint32_t *flags,
          nghttp2_data_source *source, void *user)
{
    struct h2_session *s = user;
    struct h2_stream *stream = source->ptr;
    size_t n = buf_len(&stream->out) < size ? buf_len(&stream->out) : size;
    (void)ng, (void)id;
    if (n == 0 && !stream->finished) {
        stream->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    if (n)
        memcpy(data, buf_slice(&stream->out).ptr, n);
    buf_consume(&stream->out, n);
    buf_release(&stream->out);
    stream->sent_count += n;
    if (n && !list_linked(&stream->sent_node))
        list_append(&s->sent, &stream->sent_node);
    if (stream->finished && buf_len(&stream->out) == 0) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (stream->trailers) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            submit_trailers(stream);
        }
    }
    return (ssize_t)n;
}

bool
h2_session_takes_requests(const struct h2_session *s)
{
    return s->role == H2_CLIENT && !s->draining && !s->fault[0] &&
           s->streams.count < s->limits.streams && nghttp2_session_check_request_allowed(s->ng);
}

bool
h2_session_takes_protocol(const struct h2_session *s)
{
    return nghttp2_session_get_remote_settings(s->ng, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) ==
           1;
}

struct h2_stream *
h2_submit_request(struct h2_session *s, const struct h2_head *head, void *owner)
{
    if (!h2_session_takes_requests(s) || (head->protocol.len && !h2_session_takes_protocol(s)))
        return NULL;
    size_t count;
    struct h2_stream *stream = h2_stream_new(s, 0, owner);
    nghttp2_data_provider body = {.source.ptr = stream, .read_callback = read_body};
    cleanup_free nghttp2_nv *nv = list_fields(head, "", &count);
    int32_t id = nghttp2_submit_request(s->ng, NULL, nv, count, head->end ? NULL : &body, stream);
    if (id < 0) {
        h2_stream_free(stream);
        return NULL;
    }
    stream->id = id;
    stream->told = stream->answered = true;
    stream->finished = head->end;
    return stream;
}

bool
h2_submit_response(struct h2_stream *stream, const struct h2_head *head)
{
    struct h2_session *s = stream->session;
    size_t count;
    char status[8];
    if (stream->answered || stream->reset_by_owner || s->fault[0])
        return false;
    snprintf(status, sizeof status, "%03u", head->head.status);
    nghttp2_data_provider body = {.source.ptr = stream, .read_callback = read_body};
    cleanup_free nghttp2_nv *nv = list_fields(head, status, &count);
    if (head->head.status < 200)
        return nghttp2_submit_headers(s->ng, NGHTTP2_FLAG_NONE, stream->id, NULL, nv, count,
                                      NULL) == 0;
    stream->answered = true;
    stream->finished = head->end;
    return nghttp2_submit_response(s->ng, stream->id, nv, count, head->end ? NULL : &body) == 0;
}

void
h2_stream_set_owner(struct h2_stream *stream, void *owner)
{
    stream->owner = owner;
}

void *
h2_stream_owner(const struct h2_stream *stream)
{
    return stream->owner;
}

int32_t
h2_stream_id(const struct h2_stream *stream)
{
    return stream->id;
}

static void
resume(struct h2_stream *stream)
{
    if (!stream->deferred)
        return;
    stream->deferred = false;
    nghttp2_session_resume_data(stream->session->ng, stream->id);
}

size_t
h2_stream_room(const struct h2_stream *stream)
{
    return stream->finished ? 0 : buf_room(&stream->out);
}

bool
h2_stream_write(struct h2_stream *stream, struct slice data)
{
    if (data.len > h2_stream_room(stream))
        return false;
    buf_append_slice(&stream->out, data);
    resume(stream);
    return true;
}

void
h2_stream_finish(struct h2_stream *stream, const struct h2_head *trailers)
{
    if (stream->finished)
        return;
    stream->finished = true;
    stream->trailers = copy_trailers(trailers);
    resume(stream);
}

void
h2_stream_cut_off(struct h2_stream *stream)
{
    struct h2_session *s = stream->session;
    s->lingering -= stream->linger_until_ms != 0;
    stream->linger_until_ms = 0;
    stream->counted = true;
    nghttp2_submit_rst_stream(s->ng, NGHTTP2_FLAG_NONE, stream->id, H2_NO_ERROR);
}

static void
linger(struct h2_stream *stream)
{
    struct h2_session *s = stream->session;
    if (s->lingering >= H2_LINGER_STREAMS) {
        h2_stream_cut_off(stream);
        return;
    }
    s->lingering++;
    stream->linger_until_ms = s->now_ms + H2_LINGER_MS;
    nghttp2_session_consume_stream(s->ng, stream->id, stream->held);
}

void
h2_stream_throw_away(struct h2_stream *stream, size_t n)
{
    if (!stream->linger_until_ms) {
        stream->held += n;
        return;
    }
    stream->lingered += n;
    if (stream->lingered > H2_LINGER_BYTES)
        h2_stream_cut_off(stream);
    else
        nghttp2_session_consume_stream(stream->session->ng, stream->id, n);
}

void
h2_stream_end_local(struct h2_stream *stream)
{
    stream->local_ended = true;
    if (stream->session->role == H2_SERVER && stream->discard && !stream->remote_ended)
        linger(stream);
}

/* A stream that is read as fast as it comes has too small a window for its path. */
static void
maybe_grow(struct h2_stream *stream)
{
    struct h2_session *s = stream->session;
    size_t more = stream->window;
    if (stream->held > 0 || stream->passed < stream->window || stream->remote_ended)
        return;
    if (stream->window + more > s->limits.window_max)
        more = s->limits.window_max - stream->window;
    if (more == 0 || s->grown + more > s->limits.window_growth)
        return;
    if (nghttp2_session_set_local_window_size(s->ng, NGHTTP2_FLAG_NONE, stream->id,
                                              (int32_t)(stream->window + more)) != 0)
        return;
    stream->window += more;
    stream->passed = 0;
    s->grown += more;
}

void
h2_stream_consume(struct h2_stream *stream, size_t n)
{
    if (stream->discard) /* not asked for any more */
        return;
    assert(n <= stream->held);
    stream->held -= n;
    stream->passed += n;
    nghttp2_session_consume_stream(stream->session->ng, stream->id, n);
    maybe_grow(stream);
}

void
h2_stream_discard(struct h2_stream *stream)
{
    if (stream->discard)
        return;
    stream->discard = true;
    if (stream->local_ended)
        h2_stream_end_local(stream);
}

void
h2_stream_reset(struct h2_stream *stream, uint32_t code)
{
    stream->reset_by_owner = true;
    stream->owner = NULL;
    nghttp2_submit_rst_stream(stream->session->ng, NGHTTP2_FLAG_NONE, stream->id, code);
}
