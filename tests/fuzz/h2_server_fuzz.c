/* Bytes of a hostile client to a session in the server's role, in pieces that the first byte chooses. Held here: what is told
 * is a message; no stream holds more than its window; and what is passed on to another session is read there as the same. */
#include <assert.h>
#include <stdint.h>

#include "unit/h2peer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct peer *relay, *far;

static void
check_same(const struct h2_head *a, const struct h2_head *b)
{
    assert(slice_equal(a->head.method, b->head.method) && slice_equal(a->path, b->path) && slice_equal(a->scheme, b->scheme));
    assert(slice_equal(a->authority, b->authority) && a->head.field_count == b->head.field_count && a->end == b->end);
    for (size_t i = 0; i < a->head.field_count; i++) {
        assert(slice_equal(a->head.fields[i].name, b->head.fields[i].name));
        assert(slice_equal(a->head.fields[i].value, b->head.fields[i].value));
        assert(!a->sensitive[i] || b->sensitive[i]);
    }
}

/* On to the next server, which must not find anything wrong with it. */
static void
pass_on(const struct h2_head *head)
{
    if (relay->count > 20)
        return;
    struct msg *m = msg_new(relay);
    m->stream = h2_submit_request(relay->s, head, m);
    if (!m->stream) {
        assert(head->protocol.len);
        return;
    }
    peers_talk(relay, far, RAW_MAX);
    assert(far->malformed == 0 && !h2_session_fault(relay->s) && !h2_session_fault(far->s));
    check_same(head, far->msgs[far->count - 1].head);
    if (far->msgs[far->count - 1].stream)
        send_status(far->msgs[far->count - 1].stream, 204, true);
    peers_talk(relay, far, RAW_MAX);
}

static void
on_head(void *owner, struct h2_stream *stream, struct h2_head *head)
{
    struct peer *p = owner;
    if (p->count >= MSGS_MAX - 1) {
        h2_head_free(head);
        h2_stream_reset(stream, H2_REFUSED_STREAM);
        return;
    }
    peer_on_head(owner, stream, head);
    if (head->too_large) {
        send_status(stream, 431, true);
        return;
    }
    assert(head->head.method.len && head->authority.len);
    assert(head->path.len ? head->path.ptr[0] == '/' || head->path.ptr[0] == '*' : slice_is(head->head.method, "CONNECT"));
    for (size_t i = 0; i < head->head.field_count; i++)
        assert(head->head.fields[i].name.len && !h2_field_is_connection(head->head.fields[i].name));
    pass_on(head);
    send_status(stream, 200, p->count % 3 == 0);
    if (p->count % 3 == 1)
        h2_stream_write(stream, slice_str("some bytes of an answer"));
    if (p->count % 5 == 1)
        h2_stream_discard(stream);
}

static void
on_data(void *owner, struct h2_stream *stream, struct slice data)
{
    peer_on_data(owner, stream, data);
    struct msg *m = h2_stream_owner(stream);
    assert(m && !m->ended && m->unconsumed <= 65535);
}

static void
on_end(void *owner, struct h2_stream *stream, struct h2_head *trailers)
{
    peer_on_end(owner, stream, trailers);
    h2_stream_finish(stream, trailers);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct h2_callbacks callbacks = {on_head, on_data, on_end, peer_on_sent, peer_on_closed, peer_on_malformed, peer_on_goaway, NULL};
    if (size < 1)
        return 0;
    struct h2_limits limits = H2_LIMITS_DEFAULT;
    limits.connect_protocol = (data[0] & 0x40) != 0;
    struct peer *p = peer_with(H2_SERVER, &limits);
    h2_session_free(p->s);
    p->s = h2_session_new(H2_SERVER, &limits, &callbacks, p, p->now_ms);
    p->hold = (data[0] & 0x80) != 0;
    relay = peer_new(H2_CLIENT);
    far = peer_new(H2_SERVER);
    peers_talk(relay, far, RAW_MAX);
    peer_feed(p, slice_str(PREFACE), RAW_MAX);
    bool ok = peer_feed(p, slice_of(data + 1, size - 1), 1u + (data[0] & 0x3f) * 7u);
    assert(ok || (h2_session_fault(p->s) && h2_session_over(p->s)));
    assert(h2_session_streams(p->s) <= 256 && p->orphans == 0);
    peer_free(p);
    peer_free(relay);
    peer_free(far);
    return 0;
}
