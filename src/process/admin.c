/* The admin process: a small HTTP server for the operator, never for clients. One request a connection, GET and HEAD only,
 * everything capped. On the unix socket the peer must be the operator or root. */
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sallyport/base/arena.h"
#include "sallyport/base/diag.h"
#include "sallyport/base/mem.h"
#include "sallyport/http/head.h"
#include "sallyport/http/status.h"
#include "sallyport/net/listen.h"
#include "sallyport/net/loop.h"
#include "sallyport/net/stream.h"
#include "sallyport/process/adminpage.h"
#include "sallyport/process/bundle.h"
#include "sallyport/process/confine.h"
#include "sallyport/process/role.h"

#define CONNECTIONS_MAX 64
#define HEAD_MAX 8192
#define TIMEOUT_MS 10000 /* for a whole exchange */

struct door {
    struct admin *admin;
    struct listener *listener;
    bool is_unix;
};

struct admin {
    struct loop *loop;
    struct role_start start;
    struct channel *control;
    struct shared *shared;
    struct admin_view view;
    struct list connections;
    struct door doors[ROLE_SOCKETS_MAX];
    int door_count;          /* open ones */
};

struct connection {
    struct list_node node;
    struct admin *admin;
    struct stream *stream;
    bool everything;
    struct head_scan scan;
    struct buf in, out;
};

static void
free_connection(struct connection *c)
{
    list_remove(&c->admin->connections, &c->node);
    stream_free(c->stream);
    buf_done(&c->in);
    buf_done(&c->out);
    loop_free_later(c->admin->loop, c, free);
}

static void
write_out(struct connection *c)
{
    size_t n;
    while (buf_len(&c->out)) {
        enum stream_io io = stream_write_slice(c->stream, buf_slice(&c->out), &n);
        if (io == STREAM_AGAIN) {
            stream_want(c->stream, false, true);
            return;
        }
        if (io != STREAM_DONE)
            break;
        buf_consume(&c->out, n);
    }
    stream_shutdown_write(c->stream);
    free_connection(c);
}

static void
answer(struct connection *c, const struct admin_reply *reply, bool head_only)
{
    struct slice body = buf_slice(&reply->body);
    buf_printf(&c->out, "HTTP/1.1 %d %s\r\ncontent-type: %s\r\ncontent-length: %zu\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\n"
               "connection: close\r\n\r\n", reply->status, status_phrase(reply->status), reply->type, body.len);
    if (!head_only)
        buf_append_slice(&c->out, body);
    write_out(c);
}

static void
answer_plain(struct connection *c, int status)
{
    struct admin_reply reply = {.status = status, .type = "text/plain; charset=utf-8"};
    buf_init(&reply.body, 256);
    buf_printf(&reply.body, "%s\n", status_phrase(status));
    answer(c, &reply, false);
    buf_done(&reply.body);
}

static void
answer_page(struct connection *c, const struct head *head)
{
    struct slice query, path = slice_split(head->target, '?', &query);
    struct admin_reply reply = {0};
    bool head_only = slice_is(head->method, "HEAD");
    if (!head_only && !slice_is(head->method, "GET")) {
        answer_plain(c, 405);
        return;
    }
    buf_init(&reply.body, ADMIN_PAGE_MAX);
    if (admin_page(&c->admin->view, path, c->everything, &reply))
        answer(c, &reply, head_only);
    else
        answer_plain(c, 404);
    buf_done(&reply.body);
}

static void
on_head(struct connection *c)
{
    struct slice bytes = buf_slice(&c->in);
    struct arena *arena = arena_new(4096);
    struct head head;
    if (head_parse_request(arena, slice_of(bytes.ptr + c->scan.start, c->scan.end - c->scan.start), &head) == REASON_OK)
        answer_page(c, &head);
    else
        answer_plain(c, 400);
    arena_free(arena);
}

static void
read_in(struct connection *c)
{
    size_t n, room = buf_room(&c->in);
    char *at = room ? buf_reserve(&c->in, room) : NULL;
    enum stream_io io = at ? stream_read(c->stream, at, room, &n) : STREAM_ERROR;
    if (io == STREAM_AGAIN)
        return;
    if (io != STREAM_DONE) {
        free_connection(c);
        return;
    }
    buf_commit(&c->in, n);
    switch (head_scan(&c->scan, buf_slice(&c->in), HEAD_MAX)) {
    case HEAD_SCAN_MORE:
        return;
    case HEAD_SCAN_COMPLETE:
        on_head(c);
        return;
    case HEAD_SCAN_TOO_LARGE:
        answer_plain(c, 431);
        return;
    case HEAD_SCAN_MALFORMED:
        answer_plain(c, 400);
        return;
    }
}

static void
on_stream(void *owner, enum stream_event event)
{
    struct connection *c = owner;
    switch (event) {
    case STREAM_READABLE:
        read_in(c);
        return;
    case STREAM_WRITABLE:
        write_out(c);
        return;
    case STREAM_SECURED:
    case STREAM_FAILED:
    case STREAM_TIMEOUT:
        free_connection(c);
        return;
    }
}

/* The socket's mode says the same; a mode can be changed. */
static bool
peer_may(const struct admin *a, int fd)
{
    struct ucred peer;
    socklen_t len = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
        return false;
    return peer.uid == 0 || (int)peer.uid == a->start.owner;
}

static void
on_accept(void *owner, int fd, const struct sockaddr *from)
{
    const struct door *door = owner;
    struct admin *a = door->admin;
    (void)from;
    if (a->connections.count >= CONNECTIONS_MAX || (door->is_unix && !peer_may(a, fd))) {
        close(fd);
        return;
    }
    struct connection *c = mem_zalloc(sizeof *c);
    c->admin = a;
    c->everything = door->is_unix;
    buf_init(&c->in, HEAD_MAX + 1);
    buf_init(&c->out, ADMIN_PAGE_MAX + HEAD_MAX);
    list_append(&a->connections, &c->node);
    c->stream = stream_new(a->loop, fd, on_stream, c);
    stream_set_deadline(c->stream, loop_now_ms(a->loop) + TIMEOUT_MS);
    stream_want(c->stream, true, false);
}

/* ---- what it shows ---- */

static void
on_snapshot_gone(void *arg)
{
    bundle_close(arg);
}

/* Without keys (they may sign, and are the workers' alone then) there is no snapshot, and policies are not shown. */
static void
use_bundle(struct admin *a, int fd, uint64_t generation)
{
    struct bundle_view *view;
    struct err err = {0};
    if (bundle_open(fd, &view, &err) < 0) {
        diag(DIAG_ALARM, "%s", err.text);
        return;
    }
    struct snapshot *s = NULL;
    if (bundle_view_blob(view, "keys").ptr)
        s = snapshot_new(&view->settings, view->blobs, view->blob_count, NULL, false, generation, &err);
    if (s)
        snapshot_on_free(s, on_snapshot_gone, view);
    else
        bundle_close(view);
    snapshot_unref(a->view.snapshot);
    a->view.snapshot = s;
    a->view.generation = generation;
}

/* When the first word of the gate's state is here, so that nobody is told another. */
static void
open_doors(struct admin *a)
{
    for (; a->door_count < a->start.socket_count; a->door_count++) {
        const struct role_socket *socket = &a->start.sockets[a->door_count];
        struct door *door = &a->doors[a->door_count];
        *door = (struct door){.admin = a, .is_unix = strcmp(socket->name, "unix") == 0};
        door->listener = listener_new(a->loop, socket->fd, false, on_accept, door);
    }
}

static void
on_control(void *owner, enum channel_event event, struct frame *frame)
{
    struct admin *a = owner;
    if (event == CHANNEL_CLOSED) {
        loop_stop(a->loop);
        return;
    }
    if (event != CHANNEL_FRAME || !control_allowed(ROLE_SUPERVISOR, frame))
        return;
    if (frame->type == CONTROL_STATE) {
        memcpy(&a->view.state, frame->payload.ptr, sizeof a->view.state);
        open_doors(a);
    } else if (frame->type == CONTROL_STOP) {
        loop_stop(a->loop);
    } else if (frame->type == CONTROL_BUNDLE) {
        struct control_bundle told;
        memcpy(&told, frame->payload.ptr, sizeof told);
        use_bundle(a, frame->fds[0], told.generation);
        frame->fds[0] = -1;
    }
}

static void
tear_down(struct admin *a)
{
    while (!list_empty(&a->connections))
        free_connection(list_entry(list_first(&a->connections), struct connection, node));
    for (int i = 0; i < a->door_count; i++)
        listener_free(a->doors[i].listener);
    for (int i = 0; i < a->start.socket_count; i++)
        free(a->start.sockets[i].name);
    channel_free(a->control);
    snapshot_unref(a->view.snapshot);
    loop_free(a->loop);
    shared_unmap(a->shared);
}

int
admin_main(int argc, char **argv)
{
    static struct admin a;
    struct err err = {0};
    if (role_begin(ROLE_ADMIN, argc, argv, &a.start, &err) < 0) {
        fprintf(stderr, "sallyport: %s\n", err.text);
        return err_exit_status(&err);
    }
    list_init(&a.connections);
    a.loop = loop_new();
    a.shared = shared_map(a.start.shared, false);
    if (!a.shared) {
        err_errno(&err, "mapping shared memory");
        return role_fail(&a.start, &err);
    }
    close(a.start.shared);
    a.view.shared = a.shared;
    use_bundle(&a, a.start.bundle, a.start.generation);
    if (confine(&a.start, &err) < 0)
        return role_fail(&a.start, &err);
    a.control = channel_new(a.loop, a.start.control, on_control, &a);
    channel_send(a.control, CONTROL_READY, slice_of("", 0), NULL, 0);
    loop_run(a.loop);
    tear_down(&a);
    return 0;
}
