/* HTTP/2 sessions, the two roles back to back: messages whole and in order however the bytes are split, flow control from end
 * to end with bounded memory, and every way to end a stream or a connection. */
#include "sallyport/http/h2.h"

#include "unit/h2peer.h"
#include "unit/test.h"

static struct peer *client, *server;

static void
setup(void)
{
    client = peer_new(H2_CLIENT);
    server = peer_new(H2_SERVER);
}

static void
teardown(void)
{
    CHECK(client->orphans == 0 && server->orphans == 0);
    peer_free(client);
    peer_free(server);
}

static void
write_pattern(struct h2_stream *stream, size_t len, unsigned seed)
{
    char *text = mem_alloc(len);
    for (size_t i = 0; i < len; i++)
        text[i] = (char)(i * 7 + seed + i / 251);
    CHECK(h2_stream_write(stream, slice_of(text, len)));
    free(text);
}

static bool
is_pattern(const struct buf *b, size_t len, unsigned seed)
{
    struct slice s = buf_slice(b);
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] != (char)(i * 7 + seed + i / 251))
            return false;
    return s.len == len;
}

static void
add(struct h2_head *h, const char *name, const char *value, bool sensitive)
{
    h2_head_add(h, slice_str(name), slice_str(value), sensitive);
}

/* ---- messages ---- */

static struct msg *
ask_with_everything(void)
{
    struct h2_head *h = make_request("POST", "/a?b=c", false), *t = h2_head_new();
    struct msg *m = msg_new(client);
    add(h, "Content-Type", "application/grpc", false);
    add(h, "te", "trailers", false);
    add(h, "x-key", "secret", true);
    add(h, "x-empty", "", false);
    add(h, "cookie", "a=1", false);
    add(h, "cookie", "b=2", false);
    m->stream = h2_submit_request(client->s, h, m);
    write_pattern(m->stream, 3000, 1);
    add(t, "x-checksum", "12", true);
    h2_stream_finish(m->stream, t);
    h2_head_free(h);
    h2_head_free(t);
    return m;
}

static void
answer_with_everything(struct msg *m)
{
    struct h2_head *hint = h2_head_new(), *h = h2_head_new(), *t = h2_head_new();
    hint->head.status = 103;
    add(hint, "link", "</a.css>; rel=preload", false);
    CHECK(h2_submit_response(m->stream, hint));
    h->head.status = 200;
    add(h, "content-type", "application/grpc", false);
    CHECK(h2_submit_response(m->stream, h));
    CHECK(!h2_submit_response(m->stream, h));
    write_pattern(m->stream, 40000, 9);
    add(t, "grpc-status", "0", false);
    add(t, "grpc-message", "fine", false);
    h2_stream_finish(m->stream, t);
    h2_head_free(hint);
    h2_head_free(h);
    h2_head_free(t);
}

static void
check_request_seen(const struct msg *m)
{
    const struct h2_head *h = m->head;
    CHECK(slice_is(h->head.method, "POST") && slice_is(h->path, "/a?b=c") && slice_is(h->scheme, "https"));
    CHECK(slice_is(h->authority, "example.com") && slice_is(h->head.target, "/a?b=c") && !h->protocol.ptr);
    CHECK(h->head.field_count == 6 && h->head.body == BODY_CHUNKED && !h->end && !h->too_large);
    CHECK(slice_is(field_of(h, "content-type"), "application/grpc") && slice_is(field_of(h, "te"), "trailers"));
    CHECK(slice_is(h->head.fields[2].name, "x-key") && h->sensitive[2] && !h->sensitive[0]);
    CHECK(slice_is(h->head.fields[4].value, "a=1") && slice_is(h->head.fields[5].value, "b=2"));
    CHECK(is_pattern(&m->data, 3000, 1) && m->ended && m->ends == 1);
    CHECK(m->trailers && slice_is(field_of(m->trailers, "x-checksum"), "12") && m->trailers->sensitive[0]);
}

static void
check_answer_seen(const struct msg *m)
{
    CHECK(m->interim && m->interim->head.status == 103 && m->interim->head.field_count == 1);
    CHECK(m->head && m->head->head.status == 200 && slice_is(field_of(m->head, "content-type"), "application/grpc"));
    CHECK(is_pattern(&m->data, 40000, 9) && m->ends == 1 && m->closed && m->code == H2_NO_ERROR);
    CHECK(m->trailers && m->trailers->head.field_count == 2 && slice_is(field_of(m->trailers, "grpc-status"), "0"));
    CHECK(m->sent == 3000);
}

static void
exchange_in_steps(size_t step)
{
    setup();
    struct msg *m = ask_with_everything();
    while (peer_push(client, server, step) || peer_push(server, client, step))
        if (server->count == 1 && server->msgs[0].ended && server->msgs[0].stream && !server->msgs[0].sent)
            if (!client->msgs[0].interim)
                answer_with_everything(&server->msgs[0]);
    CHECK_THAT(server->count == 1, "step %zu", step);
    if (server->count == 1 && m->head) {
        check_request_seen(&server->msgs[0]);
        check_answer_seen(m);
        CHECK(server->msgs[0].closed && server->msgs[0].sent == 40000);
    } else {
        CHECK_THAT(false, "step %zu: no answer", step);
    }
    CHECK(h2_session_streams(client->s) == 0 && h2_session_streams(server->s) == 0);
    CHECK(!h2_session_fault(client->s) && !h2_session_fault(server->s));
    teardown();
}

TEST(messages_pass_whole_in_every_step)
{
    for (size_t step = 1; step <= 40; step++)
        exchange_in_steps(step);
    exchange_in_steps(1000);
    exchange_in_steps(RAW_MAX);
}

/* The client's first bytes cut in two at every place. */
TEST(every_split_gives_the_same)
{
    struct buf in;
    buf_init(&in, RAW_MAX);
    put_preface(&in);
    put_request(&in, 1, 0);
    put_frame(&in, DATA, PADDED, 1, "\003hello\0\0\0", 9);
    put_frame(&in, DATA, END_STREAM, 1, "world", 5);
    put_request(&in, 3, END_STREAM);
    struct slice all = buf_slice(&in);
    for (size_t at = 0; at <= all.len; at++) {
        struct peer *p = peer_new(H2_SERVER);
        CHECK(peer_feed(p, slice_of(all.ptr, at), RAW_MAX) && peer_feed(p, slice_of(all.ptr + at, all.len - at), RAW_MAX));
        CHECK_THAT(p->count == 2 && p->msgs[0].ended && p->msgs[1].head && p->msgs[1].head->end &&
                       slice_is(buf_slice(&p->msgs[0].data), "helloworld"),
                   "cut at %zu", at);
        peer_free(p);
    }
    buf_done(&in);
}

TEST(messages_without_bodies_end_at_once)
{
    setup();
    struct msg *m = send_request(client, "HEAD", "/", true);
    peers_talk(client, server, RAW_MAX);
    CHECK(server->count == 1 && server->msgs[0].head->end && server->msgs[0].head->head.body == BODY_NONE);
    struct h2_head *h = h2_head_new();
    h->head.status = 200;
    h->end = true;
    add(h, "content-length", "12345", false); /* of the body that GET would have */
    CHECK(h2_submit_response(server->msgs[0].stream, h));
    h2_head_free(h);
    peers_talk(client, server, RAW_MAX);
    CHECK(m->closed && m->code == 0 && m->head->end && slice_is(field_of(m->head, "content-length"), "12345"));
    teardown();
}

/* A gRPC error is one block that ends the stream. */
TEST(an_answer_of_trailers_alone)
{
    setup();
    struct msg *m = send_request(client, "POST", "/s/m", false);
    peers_talk(client, server, RAW_MAX);
    struct h2_head *h = h2_head_new();
    h->head.status = 200;
    h->end = true;
    add(h, "grpc-status", "12", false);
    h2_submit_response(server->msgs[0].stream, h);
    h2_head_free(h);
    peers_talk(client, server, RAW_MAX);
    CHECK(m->head && m->head->end && !m->closed);
    h2_stream_finish(m->stream, NULL);
    peers_talk(client, server, RAW_MAX);
    CHECK(m->closed && server->msgs[0].closed && m->code == 0);
    teardown();
}

TEST(connect_is_delivered_as_such)
{
    setup();
    struct msg *m = msg_new(client);
    struct h2_head *h = h2_head_new();
    h->head.method = slice_str("CONNECT");
    h->authority = slice_str("example.com:443");
    m->stream = h2_submit_request(client->s, h, m);
    peers_talk(client, server, RAW_MAX);
    CHECK(server->count == 1 && slice_is(server->msgs[0].head->head.method, "CONNECT") &&
          slice_is(server->msgs[0].head->head.target, "example.com:443") && !server->msgs[0].head->protocol.ptr);
    h->protocol = slice_str("websocket");
    h->scheme = slice_str("https");
    h->path = slice_str("/chat");
    CHECK(!h2_session_takes_protocol(client->s) && !h2_submit_request(client->s, h, m));
    h2_head_free(h);
    teardown();
}

TEST(extended_connect_where_it_is_offered)
{
    struct h2_limits limits = H2_LIMITS_DEFAULT;
    limits.connect_protocol = true;
    client = peer_new(H2_CLIENT);
    server = peer_with(H2_SERVER, &limits);
    peers_talk(client, server, RAW_MAX);
    CHECK(h2_session_takes_protocol(client->s));
    struct h2_head *h = make_request("CONNECT", "/chat", false);
    struct msg *m = msg_new(client);
    h->protocol = slice_str("websocket");
    m->stream = h2_submit_request(client->s, h, m);
    h2_head_free(h);
    peers_talk(client, server, RAW_MAX);
    CHECK(server->count == 1 && slice_is(server->msgs[0].head->protocol, "websocket") &&
          slice_is(server->msgs[0].head->path, "/chat"));
    send_status(server->msgs[0].stream, 200, false);
    write_pattern(server->msgs[0].stream, 10, 0);
    write_pattern(m->stream, 20, 0);
    peers_talk(client, server, RAW_MAX);
    CHECK(is_pattern(&m->data, 10, 0) && is_pattern(&server->msgs[0].data, 20, 0));
    teardown();
}

TEST(heads_that_are_too_large)
{
    setup();
    for (int i = 0; i < 2; i++) {
        struct h2_head *h = make_request("GET", "/", true);
        char *big = mem_alloc(1000);
        memset(big, 'x', 1000);
        for (int n = 0; n < (i ? 101 : 70); n++)
            h2_head_add(h, slice_str("x-field"), slice_of(big, i ? 1 : 1000), false);
        struct msg *m = msg_new(client);
        m->stream = h2_submit_request(client->s, h, m);
        h2_head_free(h);
        free(big);
        peers_talk(client, server, 1000);
        CHECK(server->count == (size_t)i + 1 && server->msgs[i].head->too_large);
        CHECK(server->msgs[i].head->head.field_count <= 100);
        send_status(server->msgs[i].stream, 431, true);
        peers_talk(client, server, RAW_MAX);
        CHECK(m->head && m->head->head.status == 431 && m->closed);
    }
    CHECK(!h2_session_fault(server->s));
    teardown();
}

TEST(a_hundred_fields_and_64_kib_pass)
{
    setup();
    struct h2_head *h = make_request("GET", "/", true);
    char big[600];
    memset(big, 'x', sizeof big);
    for (int n = 0; n < 100; n++)
        h2_head_add(h, slice_str("x-field"), slice_of(big, sizeof big), true);
    struct msg *m = msg_new(client);
    m->stream = h2_submit_request(client->s, h, m);
    h2_head_free(h);
    peers_talk(client, server, 100);
    CHECK(server->count == 1 && !server->msgs[0].head->too_large && server->msgs[0].head->head.field_count == 100);
    teardown();
}

TEST(streams_past_the_limit_wait_or_are_refused)
{
    struct h2_limits wide = H2_LIMITS_DEFAULT;
    wide.streams = 200;
    client = peer_with(H2_CLIENT, &wide);
    server = peer_new(H2_SERVER);
    peers_talk(client, server, RAW_MAX);
    for (int i = 0; i < 200; i++)
        CHECK(send_request(client, "GET", "/", true)->stream);
    CHECK(!send_request(client, "GET", "/", true)->stream);
    client->count--;
    peers_talk(client, server, RAW_MAX);
    CHECK(server->count == 128); /* the rest waits in our client */
    for (size_t i = 0; i < 128; i++)
        CHECK(send_status(server->msgs[i].stream, 204, true));
    peers_talk(client, server, RAW_MAX);
    CHECK(server->count == 200 && client->msgs[0].closed && !h2_session_fault(server->s));
    teardown();
}

/* ---- flow control ---- */

/* A server that reads nothing: what it holds is the stream's window, and neighbours go on. */
TEST(a_slow_reader_stops_its_stream_alone)
{
    setup();
    server->hold = true;
    struct msg *slow = send_request(client, "POST", "/slow", false);
    write_pattern(slow->stream, 1 << 20, 3);
    CHECK(h2_stream_room(slow->stream) == 0 && !h2_stream_write(slow->stream, slice_str("x")));
    h2_stream_finish(slow->stream, NULL);
    peers_talk(client, server, RAW_MAX);
    CHECK(buf_len(&server->msgs[0].data) == 65535 && slow->sent == 65535 && !server->msgs[0].ended);
    server->hold = false;
    for (int i = 1; i < 40; i++) {
        struct msg *m = send_request(client, "POST", "/fast", false);
        write_pattern(m->stream, 1 << 20, (unsigned)i);
        h2_stream_finish(m->stream, NULL);
        peers_talk(client, server, RAW_MAX);
        CHECK(server->msgs[i].ended && is_pattern(&server->msgs[i].data, 1 << 20, (unsigned)i));
        send_status(server->msgs[i].stream, 204, true);
    }
    CHECK(buf_len(&server->msgs[0].data) == 65535);
    h2_stream_consume(server->msgs[0].stream, 65535);
    server->msgs[0].unconsumed = 0;
    peers_talk(client, server, RAW_MAX);
    CHECK(server->msgs[0].ended && is_pattern(&server->msgs[0].data, 1 << 20, 3));
    teardown();
}

/* 128 streams that nobody reads, each with a megabyte to send: each window, and not one byte more. */
TEST(memory_is_bounded_by_the_windows)
{
    setup();
    server->hold = true;
    for (unsigned i = 0; i < 128; i++) {
        struct msg *m = send_request(client, "POST", "/", false);
        write_pattern(m->stream, 100000, i);
    }
    peers_talk(client, server, RAW_MAX);
    size_t held = 0;
    for (size_t i = 0; i < server->count; i++)
        held += buf_len(&server->msgs[i].data);
    CHECK_THAT(server->count == 128 && held == 128 * 65535, "%zu bytes of %zu streams", held, server->count);
    for (size_t i = 0; i < server->count; i++)
        h2_stream_consume(server->msgs[i].stream, 65535);
    peers_talk(client, server, RAW_MAX);
    CHECK(buf_len(&server->msgs[127].data) == 100000);
    teardown();
}

/* Streams that are read at once get larger windows, up to the limits of one and of all. */
TEST(windows_grow_while_they_are_read)
{
    setup();
    struct msg *m[16];
    for (unsigned i = 0; i < 16; i++)
        m[i] = send_request(client, "POST", "/", false);
    for (unsigned round = 0; round < 6; round++)
        for (unsigned i = 0; i < 16; i++) {
            write_pattern(m[i]->stream, 1 << 20, i);
            peers_talk(client, server, RAW_MAX);
        }
    server->hold = true;
    size_t held = 0;
    for (unsigned i = 0; i < 16; i++) {
        write_pattern(m[i]->stream, 1 << 20, i);
        peers_talk(client, server, RAW_MAX);
        held += server->msgs[i].unconsumed;
        CHECK(server->msgs[i].unconsumed <= 1 << 20);
    }
    CHECK_THAT(held > (8 << 20) && held <= (8 << 20) + 16 * 65535, "%zu held", held);
    CHECK(server->msgs[0].unconsumed > (1 << 20) - 70000);
    teardown();
}

/* A relay consumes on one side what on_sent tells on the other: what waits in between never passes the stream's window
 * (which grew once, while the far side still had one of its own to fill). */
TEST(a_relay_is_paced_by_its_far_side)
{
    setup();
    struct peer *up = peer_new(H2_CLIENT), *origin = peer_new(H2_SERVER);
    server->hold = origin->hold = true;
    struct msg *from = send_request(client, "PUT", "/", false), *to = send_request(up, "PUT", "/", false);
    write_pattern(from->stream, 1 << 20, 5);
    h2_stream_finish(from->stream, NULL);
    size_t passed = 0, consumed = 0;
    for (int round = 0; round < 3000 && (server->count == 0 || !server->msgs[0].ended || passed < 1 << 20); round++) {
        peers_talk(client, server, RAW_MAX);
        struct buf *in = &server->msgs[0].data;
        CHECK(h2_stream_write(to->stream, slice_of(in->data + passed, buf_len(in) - passed)));
        passed = buf_len(in);
        peers_talk(up, origin, RAW_MAX);
        CHECK(passed - to->sent <= 2 * 65535);
        h2_stream_consume(server->msgs[0].stream, to->sent - consumed);
        consumed = to->sent;
        struct msg *o = &origin->msgs[0];
        size_t n = o->unconsumed < 5000 ? o->unconsumed : 5000;
        h2_stream_consume(o->stream, n);
        o->unconsumed -= n;
    }
    h2_stream_finish(to->stream, NULL);
    origin->hold = false;
    h2_stream_consume(origin->msgs[0].stream, origin->msgs[0].unconsumed);
    peers_talk(up, origin, RAW_MAX);
    CHECK(origin->msgs[0].ended && is_pattern(&origin->msgs[0].data, 1 << 20, 5));
    peer_free(up);
    peer_free(origin);
    teardown();
}

/* Output comes in whatever pieces the caller has room for. */
TEST(output_waits_for_room)
{
    setup();
    struct msg *m = send_request(client, "POST", "/", false);
    write_pattern(m->stream, 60000, 2);
    h2_stream_finish(m->stream, NULL);
    struct buf small;
    buf_init(&small, 100);
    bool more = true;
    while (more) {
        more = h2_session_output(client->s, &small);
        CHECK(peer_feed(server, buf_slice(&small), 33));
        buf_clear(&small);
        CHECK(h2_session_feed(client->s, buf_slice(&server->out), 0));
        buf_clear(&server->out);
    }
    CHECK(server->msgs[0].ended && is_pattern(&server->msgs[0].data, 60000, 2));
    buf_done(&small);
    teardown();
}

/* ---- ends ---- */

TEST(resets_carry_their_code_both_ways)
{
    setup();
    struct msg *a = send_request(client, "POST", "/", false), *b = send_request(client, "POST", "/", false);
    peers_talk(client, server, RAW_MAX);
    h2_stream_reset(a->stream, H2_CANCEL);
    h2_stream_reset(server->msgs[1].stream, H2_REFUSED_STREAM);
    server->msgs[1].stream = NULL;
    CHECK(h2_stream_write(b->stream, slice_str("late")));
    peers_talk(client, server, RAW_MAX);
    CHECK(server->msgs[0].closed && server->msgs[0].code == H2_CANCEL && !a->closed);
    CHECK(b->closed && b->code == H2_REFUSED_STREAM && !server->msgs[1].closed);
    CHECK(h2_session_streams(client->s) == 0 && h2_session_streams(server->s) == 0);
    teardown();
}

TEST(no_event_after_a_reset)
{
    setup();
    server->reset_at_head = true;
    struct msg *m = send_request(client, "POST", "/", false);
    write_pattern(m->stream, 5000, 0);
    h2_stream_finish(m->stream, NULL);
    peers_talk(client, server, RAW_MAX);
    CHECK(server->count == 1 && buf_len(&server->msgs[0].data) == 0 && server->msgs[0].ends == 0);
    CHECK(m->closed && m->code == H2_CANCEL);
    teardown();
}

static void
refuse(struct msg *m)
{
    send_status(m->stream, 403, false);
    CHECK(h2_stream_write(m->stream, slice_str("no")));
    h2_stream_discard(m->stream);
    h2_stream_finish(m->stream, NULL);
}

static size_t
resets_of_server(void)
{
    uint32_t code;
    h2_session_output(server->s, &server->out);
    return count_frames(buf_slice(&server->out), RST_STREAM, 0, &code);
}

/* An answer before the request has ended: what still comes is thrown away, so that a client that is busy sending gets to read. */
TEST(a_refusal_hears_the_body_out)
{
    setup();
    struct msg *m = send_request(client, "POST", "/", false);
    write_pattern(m->stream, 200000, 0);
    h2_stream_finish(m->stream, NULL);
    server->hold = true;
    peers_talk(client, server, RAW_MAX);
    refuse(&server->msgs[0]);
    CHECK(resets_of_server() == 0);
    peers_talk(client, server, RAW_MAX);
    CHECK(m->head && m->head->head.status == 403 && slice_is(buf_slice(&m->data), "no") && m->ends == 1);
    CHECK(m->sent > 150000); /* the last piece ends the stream before it is told */
    CHECK(m->closed && m->code == H2_NO_ERROR && server->msgs[0].closed && server->msgs[0].code == H2_NO_ERROR);
    CHECK(buf_len(&server->msgs[0].data) == 65535 && server->msgs[0].ends == 0 && h2_session_streams(server->s) == 0);
    teardown();
}

TEST(a_refusal_does_not_wait_for_ever)
{
    setup();
    struct msg *m = send_request(client, "POST", "/", false);
    peers_talk(client, server, RAW_MAX);
    refuse(&server->msgs[0]);
    peers_talk(client, server, RAW_MAX);
    CHECK(m->ends == 1 && !m->closed && h2_session_tick(server->s, server->now_ms + H2_LINGER_MS - 1) && resets_of_server() == 0);
    CHECK(h2_session_tick(server->s, server->now_ms + H2_LINGER_MS) && resets_of_server() == 1);
    peers_talk(client, server, RAW_MAX);
    CHECK(m->closed && m->code == H2_NO_ERROR && server->msgs[0].closed);
    teardown();
}

TEST(only_some_refusals_wait_at_once)
{
    setup();
    for (int i = 0; i < H2_LINGER_STREAMS + 5; i++)
        send_request(client, "POST", "/", false);
    peers_talk(client, server, RAW_MAX);
    for (int i = 0; i < H2_LINGER_STREAMS + 5; i++)
        refuse(&server->msgs[i]);
    CHECK(resets_of_server() == 5 && h2_session_streams(server->s) == H2_LINGER_STREAMS);
    peers_talk(client, server, RAW_MAX);
    for (int i = 0; i < H2_LINGER_STREAMS; i++)
        h2_stream_finish(client->msgs[i].stream, NULL);
    peers_talk(client, server, RAW_MAX);
    CHECK(h2_session_streams(server->s) == 0);
    send_request(client, "POST", "/", false);
    peers_talk(client, server, RAW_MAX);
    refuse(&server->msgs[H2_LINGER_STREAMS + 5]);
    CHECK(resets_of_server() == 0);
    teardown();
}

TEST(a_refusal_does_not_read_a_large_body)
{
    setup();
    struct msg *m = send_request(client, "POST", "/", false);
    write_pattern(m->stream, 1 << 20, 0);
    server->hold = true;
    peers_talk(client, server, RAW_MAX);
    refuse(&server->msgs[0]);
    peers_talk(client, server, RAW_MAX);
    CHECK(m->head && m->head->head.status == 403 && slice_is(buf_slice(&m->data), "no") && m->ends == 1);
    CHECK(m->closed && m->code == H2_NO_ERROR && server->msgs[0].closed);
    CHECK(buf_len(&server->msgs[0].data) == 65535 && !h2_session_fault(server->s));
    CHECK(m->sent > H2_LINGER_BYTES && m->sent <= H2_LINGER_BYTES + 2 * 65535);
    teardown();
}

/* ---- how many streams ---- */

TEST(the_number_of_streams_can_be_changed)
{
    setup();
    peers_talk(client, server, RAW_MAX);
    CHECK(client->settings == 1 && h2_session_peer_streams(client->s) == 128);
    h2_session_set_streams(server->s, 2);
    CHECK(h2_session_tick(server->s, server->now_ms));
    peers_talk(client, server, RAW_MAX);
    CHECK(client->settings == 2 && h2_session_peer_streams(client->s) == 2);
    for (int i = 0; i < 5; i++)
        send_request(client, "GET", "/", true);
    peers_talk(client, server, RAW_MAX);
    CHECK(server->count == 2 && !client->msgs[2].closed);
    h2_session_set_streams(server->s, 100);
    peers_talk(client, server, RAW_MAX);
    CHECK(server->count == 5 && client->settings == 3);
    h2_session_set_streams(server->s, 100);
    peers_talk(client, server, RAW_MAX);
    CHECK(client->settings == 3);
    teardown();
}

TEST(a_smaller_number_waits_for_a_rest)
{
    setup();
    for (int i = 0; i < 5; i++)
        send_request(client, "GET", "/", true);
    peers_talk(client, server, RAW_MAX);
    h2_session_set_streams(server->s, 2);
    peers_talk(client, server, RAW_MAX);
    CHECK(server->count == 5 && client->settings == 1);
    for (int i = 0; i < 5; i++)
        send_status(server->msgs[i].stream, 204, true);
    CHECK(h2_session_tick(server->s, server->now_ms)); /* they were open just now */
    peers_talk(client, server, RAW_MAX);
    CHECK(client->settings == 1);
    CHECK(h2_session_tick(server->s, server->now_ms));
    peers_talk(client, server, RAW_MAX);
    CHECK(client->settings == 2 && h2_session_peer_streams(client->s) == 2);
    for (int i = 0; i < 5; i++)
        CHECK(client->msgs[i].closed && client->msgs[i].code == 0);
    teardown();
}

/* What crosses the new number on its way is refused, and may be sent again. */
TEST(streams_that_cross_a_smaller_number_are_refused)
{
    setup();
    peers_talk(client, server, RAW_MAX);
    for (int i = 0; i < 4; i++)
        send_request(client, "GET", "/", true);
    h2_session_output(client->s, &client->out);
    h2_session_set_streams(server->s, 1);
    CHECK(h2_session_tick(server->s, server->now_ms));
    peers_talk(client, server, RAW_MAX);
    CHECK(server->count == 1 && !client->msgs[0].closed && !h2_session_fault(server->s) && server->malformed == 0);
    for (int i = 1; i < 4; i++)
        CHECK(client->msgs[i].closed && client->msgs[i].code == H2_REFUSED_STREAM);
    teardown();
}

/* One announcement waits for the acknowledgement of the one before: a peer that gives none makes nothing pile up. */
TEST(announcements_wait_for_their_acknowledgement)
{
    setup();
    peers_talk(client, server, RAW_MAX);
    buf_clear(&server->out);
    for (uint32_t n = 1; n < 1000; n++)
        h2_session_set_streams(server->s, 128 + n);
    h2_session_output(server->s, &server->out);
    CHECK(count_frames(buf_slice(&server->out), SETTINGS, 0, NULL) == 1);
    CHECK(!h2_session_tick(server->s, server->now_ms + 20000) && h2_session_fault_code(server->s) == H2_SETTINGS_TIMEOUT);
    teardown();
    setup();
    peers_talk(client, server, RAW_MAX);
    h2_session_set_streams(server->s, 129);
    h2_session_set_streams(server->s, 130);
    h2_session_set_streams(server->s, 150);
    peers_talk(client, server, RAW_MAX);
    CHECK(h2_session_peer_streams(client->s) == 150 && client->settings == 3);
    CHECK(h2_session_tick(server->s, server->now_ms + 20000));
    teardown();
}

TEST(a_server_that_goes_finishes_what_it_began)
{
    setup();
    struct msg *a = send_request(client, "GET", "/", true);
    peers_talk(client, server, RAW_MAX);
    h2_session_drain(server->s);
    struct msg *b = send_request(client, "GET", "/crossing", true);
    peer_push(client, server, RAW_MAX);
    peers_talk(client, server, RAW_MAX);
    CHECK(client->goaways == 1 && client->goaway_last == 0x7fffffff && client->goaway_code == 0 && server->count == 2);
    CHECK(!h2_session_takes_requests(client->s) && !send_request(client, "GET", "/late", true)->stream);
    h2_session_goaway(server->s, H2_NO_ERROR);
    peers_talk(client, server, RAW_MAX);
    CHECK(client->goaways == 2 && client->goaway_last == 3 && !h2_session_over(server->s));
    send_status(server->msgs[0].stream, 204, true);
    send_status(server->msgs[1].stream, 204, true);
    peers_talk(client, server, RAW_MAX);
    CHECK(a->closed && a->code == 0 && b->closed && b->code == 0);
    CHECK(h2_session_over(server->s) && h2_session_over(client->s) && !h2_session_fault(server->s));
    teardown();
}

/* Streams above the last one that the peer looked at can be tried elsewhere. */
TEST(requests_that_crossed_a_goaway_are_refused)
{
    setup();
    struct msg *a = send_request(client, "GET", "/", true);
    peers_talk(client, server, RAW_MAX);
    h2_session_goaway(server->s, H2_NO_ERROR);
    struct msg *b = send_request(client, "GET", "/", true);
    h2_session_output(client->s, &client->out); /* b is under way when the GOAWAY arrives */
    struct msg *c = send_request(client, "GET", "/", true); /* and c is not */
    peer_push(server, client, RAW_MAX);
    peers_talk(client, server, RAW_MAX);
    CHECK(b->closed && b->code == H2_REFUSED_STREAM && !a->closed && server->count == 1);
    CHECK(c->closed && c->code == H2_REFUSED_STREAM);
    send_status(server->msgs[0].stream, 204, true);
    peers_talk(client, server, RAW_MAX);
    CHECK(a->closed && a->code == 0);
    teardown();
}

TEST(terminate_says_why_and_ends)
{
    setup();
    struct msg *m = send_request(client, "GET", "/", true);
    peers_talk(client, server, RAW_MAX);
    h2_session_terminate(server->s, H2_INTERNAL_ERROR, "because");
    CHECK(!h2_session_over(server->s) && !h2_session_feed(server->s, slice_str("x"), 0));
    peers_talk(server, client, RAW_MAX);
    CHECK(h2_session_over(server->s) && strcmp(h2_session_fault(server->s), "because") == 0);
    CHECK(client->goaways == 1 && client->goaway_code == H2_INTERNAL_ERROR && !m->ended);
    teardown();
}

TEST(settings_must_be_acknowledged_in_time)
{
    struct peer *p = peer_new(H2_SERVER), *q = peer_new(H2_SERVER);
    struct buf in;
    buf_init(&in, RAW_MAX);
    put_preface(&in);
    CHECK(peer_feed(p, buf_slice(&in), RAW_MAX) && h2_session_tick(p->s, 11000) && !h2_session_tick(p->s, 11001));
    h2_session_output(p->s, &p->out);
    uint32_t code = 0;
    CHECK(count_frames(buf_slice(&p->out), GOAWAY, 0, &code) == 1 && code == H2_SETTINGS_TIMEOUT);
    put_frame(&in, SETTINGS, ACK, 0, "", 0);
    CHECK(peer_feed(q, buf_slice(&in), RAW_MAX) && h2_session_tick(q->s, 1 << 20));
    buf_done(&in);
    peer_free(p);
    peer_free(q);
}

/* Freed with everything under way: sanitizers watch. */
TEST(a_session_can_be_freed_at_any_time)
{
    for (size_t bytes = 0; bytes < 700; bytes += 13) {
        setup();
        client->hold = server->hold = true;
        ask_with_everything();
        h2_session_output(client->s, &client->out);
        struct slice all = buf_slice(&client->out);
        peer_feed(server, slice_of(all.ptr, bytes < all.len ? bytes : all.len), RAW_MAX);
        if (server->count && server->msgs[0].stream) {
            send_status(server->msgs[0].stream, 200, false);
            write_pattern(server->msgs[0].stream, 100, 0);
        }
        h2_session_output(server->s, &server->out);
        teardown();
    }
}
