/* Bytes of a hostile server to a session in the client's role that has asked three things. Held here: each answer is a
 * message, is told once and ends once; and passed on to a client it is read there as the same. */
#include <assert.h>
#include <stdint.h>

#include "unit/h2peer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct peer *client, *near;

static void
check_same(const struct h2_head *a, const struct h2_head *b)
{
    assert(a->head.status == b->head.status && a->head.field_count == b->head.field_count);
    for (size_t i = 0; i < a->head.field_count; i++) {
        assert(slice_equal(a->head.fields[i].name, b->head.fields[i].name));
        assert(slice_equal(a->head.fields[i].value, b->head.fields[i].value));
    }
}

/* The answer goes back to a client of ours, as a head alone. */
static void
pass_on(const struct h2_head *head)
{
    size_t lengths;
    head_field(&head->head, "content-length", &lengths);
    if (client->count > 20 || head->head.status < 200)
        return;
    struct msg *m = send_request(client, "HEAD", "/", true);
    peers_talk(client, near, RAW_MAX);
    struct h2_head copy = *head;
    copy.end = true;
    assert(h2_submit_response(near->msgs[near->count - 1].stream, &copy));
    peers_talk(client, near, RAW_MAX);
    assert(!h2_session_fault(client->s) && !h2_session_fault(near->s) && m->closed);
    if (m->code == H2_NO_ERROR)
        check_same(head, m->head);
    else /* what no body goes with: the library is stricter with lengths than the first reading could be */
        assert(lengths);
}

static void
on_head(void *owner, struct h2_stream *stream, struct h2_head *head)
{
    struct msg *m = h2_stream_owner(stream);
    assert(m && !m->head && head->head.status >= 100 && head->head.status != 101 && !head->too_large);
    peer_on_head(owner, stream, head);
    for (size_t i = 0; i < head->head.field_count; i++)
        assert(head->head.fields[i].name.len && !h2_field_is_connection(head->head.fields[i].name));
    pass_on(head);
}

static void
on_data(void *owner, struct h2_stream *stream, struct slice data)
{
    struct msg *m = h2_stream_owner(stream);
    assert(m && m->head && !m->ended);
    peer_on_data(owner, stream, data);
}

static void
on_end(void *owner, struct h2_stream *stream, struct h2_head *trailers)
{
    struct msg *m = h2_stream_owner(stream);
    assert(m && m->head && !m->ended);
    peer_on_end(owner, stream, trailers);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct h2_callbacks callbacks = {on_head, on_data, on_end, peer_on_sent, peer_on_closed, peer_on_malformed, peer_on_goaway, NULL};
    if (size < 1)
        return 0;
    struct h2_limits limits = H2_LIMITS_DEFAULT;
    struct peer *p = peer_with(H2_CLIENT, &limits);
    h2_session_free(p->s);
    p->s = h2_session_new(H2_CLIENT, &limits, &callbacks, p, p->now_ms);
    p->hold = (data[0] & 0x80) != 0;
    client = peer_new(H2_CLIENT);
    near = peer_new(H2_SERVER);
    send_request(p, "GET", "/", true);
    send_request(p, "HEAD", "/", true);
    struct msg *post = send_request(p, "POST", "/", false);
    h2_stream_write(post->stream, slice_str("a body that goes on"));
    h2_session_output(p->s, &p->out);
    bool ok = peer_feed(p, slice_of(data + 1, size - 1), 1u + (data[0] & 0x3f) * 7u);
    assert(ok || (h2_session_fault(p->s) && h2_session_over(p->s)));
    assert(p->count == 3 && p->malformed == 0 && p->orphans == 0 && h2_session_streams(p->s) <= 3);
    peer_free(p);
    peer_free(client);
    peer_free(near);
    return 0;
}
