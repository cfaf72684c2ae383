/* A connected byte stream on bare libevent events: readiness towards the owner, TCP or TLS underneath. The owner holds the
 * buffers; a stream holds none but what OpenSSL needs while a record is under way. A stream is freed at the end of the
 * turn, its descriptor is closed at once. It never calls its owner from inside a call that the owner makes.
 *
 * What the socket is asked for is computed in one place, stream_rearm. Reading is armed once and then left armed: the
 * owner's "no more for now" costs a system call only if bytes really arrive meanwhile. Writing is disarmed at once, as a
 * socket is nearly always writable. A read that gave less than was asked for has emptied the socket: none is tried again
 * before the loop says that there is more. */
#include "sallyport/net/stream.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include "sallyport/base/addr.h"
#include "sallyport/base/mem.h"

#define IOV_TOTAL 64           /* pieces taken of one call; the rest is the next call's */
#define TLS_RECORD 16384       /* payload of a record, RFC 8446 section 5.1 */
#define TLS_COPY_BELOW 4096    /* shorter pieces are gathered into one record */
#define FIRST_MAX (1024 * 1024) /* an owner's bug if it is more */

/* What TLS adds; plain streams have none of it. */
struct tls_side {
    SSL *ssl;
    char *first;               /* bytes read before TLS began; the BIO serves them before the socket's */
    size_t first_at, first_len;
    size_t blocked_len;        /* bytes of the SSL_write that must be repeated with at least as many; 0: none */
    bool handshaking;
    bool to_begin;             /* the client's first flight is still to be written */
    bool more;                 /* the last read ended before OpenSSL had no more: it may hold whole records */
    bool handshake_wants_write, read_wants_write, write_wants_read;
    bool ended;                /* close_notify was read */
    bool socket_ended;         /* the BIO has seen FIN */
    bool closing;              /* close_notify is still to be written */
};

/* What a stream waits for besides bytes; one that is idle without a deadline has none of it. */
struct waits {
    struct event *write_event; /* made when it is first needed: most streams never wait for room */
    struct deferred again;     /* the next event that no socket will announce */
    struct timer deadline;
    int64_t deadline_at_ms;    /* 0: none. The timer may run for an earlier time and is then started anew */
};

/* There are two of these a tunnel: what is in here is what an idle one costs. */
struct stream {
    struct loop *loop;
    stream_fn *on_event;
    void *owner;
    struct tls_side *tls;      /* NULL: plain */
    struct waits *waits;       /* NULL while there are none */
    struct event read_event;
    int fd;
    short armed;               /* EV_READ, EV_WRITE as libevent knows it */
    bool want_read : 1, want_write : 1;
    bool drained : 1;          /* the socket had no more; it says so itself when it has */
    bool in_event : 1;         /* inside the owner's callback: rearm once, after it */
    bool write_broken : 1;     /* writing failed; what the peer sent before can still be read */
    bool failed : 1, failure_told : 1;
    bool freed : 1;
};

static void on_socket_readable(evutil_socket_t fd, short what, void *arg);
static void on_socket_writable(evutil_socket_t fd, short what, void *arg);
static void on_again(void *arg);

/* --- waiting ----------------------------------------------------------------------------------------------------- */

/* Bytes, or the end, that can be had without the socket. */
static bool
stream_has_pending(const struct stream *s)
{
    const struct tls_side *t = s->tls;
    return t && (t->to_begin || t->first_at < t->first_len || t->ended || (t->more && SSL_has_pending(t->ssl)));
}

static short
stream_interest(const struct stream *s)
{
    const struct tls_side *t = s->tls;
    if (s->freed || s->failed)
        return 0;
    if (!t)
        return (short)((s->want_read ? EV_READ : 0) | (s->want_write && !s->write_broken ? EV_WRITE : 0));
    if (t->handshaking)
        return t->handshake_wants_write ? EV_WRITE : EV_READ;
    short need = 0;
    if (s->want_read)
        need |= t->read_wants_write ? EV_WRITE : EV_READ;
    if (s->want_write && !s->write_broken)
        need |= t->write_wants_read ? EV_READ : EV_WRITE;
    if (t->closing && !s->write_broken)
        need |= EV_WRITE;
    return need;
}

static struct waits *
stream_waits(struct stream *s)
{
    if (!s->waits)
        s->waits = mem_zalloc(sizeof *s->waits);
    return s->waits;
}

static void
waits_free(struct loop *l, struct waits *w)
{
    if (!w)
        return;
    if (w->write_event)
        event_free(w->write_event);
    loop_cancel(l, &w->again);
    timer_stop(&w->deadline);
    free(w);
}

static struct event *
stream_write_event(struct stream *s)
{
    struct waits *w = stream_waits(s);
    if (!w->write_event)
        w->write_event = event_new(loop_base(s->loop), s->fd, EV_WRITE | EV_PERSIST, on_socket_writable, s);
    if (!w->write_event)
        abort();
    return w->write_event;
}

static void
stream_arm(struct stream *s, short which, bool on)
{
    struct event *e = which == EV_READ ? &s->read_event : stream_write_event(s);
    if (on) {
        if (event_add(e, NULL) != 0)
            abort();
        s->armed |= which;
    } else {
        event_del(e);
        s->armed &= (short)~which;
    }
}

/* Brings what libevent waits for into line with what the stream waits for. `unwanted` has what has just fired without being
 * waited for: reading that nobody wants is disarmed only then. */
static void
stream_rearm(struct stream *s, short unwanted)
{
    if (s->freed || s->in_event)
        return;
    short need = stream_interest(s);
    if ((need & EV_READ) && !(s->armed & EV_READ))
        stream_arm(s, EV_READ, true);
    else if (!(need & EV_READ) && (s->armed & EV_READ) && ((unwanted & EV_READ) || s->failed))
        stream_arm(s, EV_READ, false);
    if (((need ^ s->armed) & EV_WRITE) != 0)
        stream_arm(s, EV_WRITE, (need & EV_WRITE) != 0);
    /* A broken write side is told when reading will not tell it. */
    bool failure = (s->failed || (s->write_broken && !s->want_read)) && !s->failure_told && s->on_event;
    /* Bytes that are here already, and that no socket will announce. */
    bool pending = !s->failed && stream_has_pending(s) && (s->want_read || s->tls->handshaking);
    if ((failure || pending) && !list_linked(&stream_waits(s)->again.node))
        loop_defer(s->loop, &s->waits->again, on_again, s);
}

static void
stream_emit(struct stream *s, enum stream_event event)
{
    if (s->freed || !s->on_event)
        return;
    s->in_event = true;
    s->on_event(s->owner, event);
    s->in_event = false;
}

/* Remembers the failure; the owner hears of it once, from the loop, unless it frees the stream first. */
static enum stream_io
stream_fail(struct stream *s)
{
    s->failed = true;
    stream_rearm(s, 0);
    return STREAM_ERROR;
}

/* A server may answer, or refuse, and close before it has read everything: what it said is still there to be read. */
static enum stream_io
stream_break_writing(struct stream *s)
{
    s->write_broken = true;
    stream_rearm(s, 0);
    return STREAM_ERROR;
}

/* --- the socket -------------------------------------------------------------------------------------------------- */

/* As recv, without interruptions, and without a system call where it would say EAGAIN. */
static ssize_t
socket_read(struct stream *s, void *data, size_t size)
{
    ssize_t n;
    if (s->drained) {
        errno = EAGAIN;
        return -1;
    }
    do
        n = recv(s->fd, data, size, 0);
    while (n < 0 && errno == EINTR);
    s->drained = n < 0 ? errno == EAGAIN : n > 0 && (size_t)n < size;
    return n;
}

/* --- TLS: a BIO over the descriptor, with the bytes that came first in front -------------------------------------- */

static int
bio_read(BIO *bio, char *out, int size)
{
    struct stream *s = BIO_get_data(bio);
    struct tls_side *t = s->tls;
    BIO_clear_retry_flags(bio);
    if (size <= 0)
        return 0;
    if (t->first_at < t->first_len) {
        size_t n = t->first_len - t->first_at;
        if (n > (size_t)size)
            n = (size_t)size;
        memcpy(out, t->first + t->first_at, n);
        t->first_at += n;
        return (int)n;
    }
    ssize_t n = socket_read(s, out, (size_t)size);
    if (n < 0 && errno == EAGAIN)
        BIO_set_retry_read(bio);
    if (n == 0)
        t->socket_ended = true;
    return (int)n;
}

static int
bio_write(BIO *bio, const char *data, int len)
{
    struct stream *s = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    ssize_t n;
    do
        n = send(s->fd, data, len > 0 ? (size_t)len : 0, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == ENOBUFS))
        BIO_set_retry_write(bio);
    return (int)n;
}

static long
bio_ctrl(BIO *bio, int command, long num, void *ptr)
{
    struct stream *s = BIO_get_data(bio);
    (void)num;
    (void)ptr;
    if (command == BIO_CTRL_FLUSH)
        return 1;
    if (command == BIO_CTRL_EOF)
        return s && s->tls && s->tls->socket_ended;
    return 0;
}

static BIO_METHOD *
stream_bio_method(void)
{
    static BIO_METHOD *method; /* one a process, for life */
    if (method)
        return method;
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "stream");
    if (!method || !BIO_meth_set_read(method, bio_read) || !BIO_meth_set_write(method, bio_write) ||
        !BIO_meth_set_ctrl(method, bio_ctrl))
        abort();
    return method;
}

/* Files the result of an SSL call away; STREAM_ERROR has failed the stream. */
static enum stream_io
tls_result(struct stream *s, int ret, bool *wants_other, int other)
{
    int e = SSL_get_error(s->tls->ssl, ret);
    if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE) {
        *wants_other = e == other;
        return STREAM_AGAIN;
    }
    if (e == SSL_ERROR_ZERO_RETURN) {
        s->tls->ended = true;
        return STREAM_EOF;
    }
    /* Also FIN without close_notify: an end that anybody on the way can forge is not an orderly one. */
    ERR_clear_error();
    return stream_fail(s);
}

static void
tls_shutdown_step(struct stream *s)
{
    struct tls_side *t = s->tls;
    bool ignored = false;
    ERR_clear_error();
    int n = SSL_shutdown(t->ssl);
    if (n < 0) {
        enum stream_io io = tls_result(s, n, &ignored, SSL_ERROR_WANT_READ);
        t->closing = io == STREAM_AGAIN;
        if (io != STREAM_EOF)
            return;
    }
    t->closing = false;
    shutdown(s->fd, SHUT_WR);
}

static void
tls_handshake_step(struct stream *s)
{
    struct tls_side *t = s->tls;
    t->to_begin = false;
    ERR_clear_error();
    int n = SSL_do_handshake(t->ssl);
    if (n != 1) {
        if (tls_result(s, n, &t->handshake_wants_write, SSL_ERROR_WANT_WRITE) == STREAM_EOF)
            stream_fail(s);
        return;
    }
    t->handshaking = false;
    t->more = true;
    SSL_free_buffers(t->ssl);
    stream_emit(s, STREAM_SECURED);
}

static void
stream_begin_tls(struct stream *s, SSL_CTX *context, struct slice first)
{
    assert(!s->tls && first.len <= FIRST_MAX);
    struct tls_side *t = mem_zalloc(sizeof *t);
    BIO *bio = BIO_new(stream_bio_method());
    t->ssl = SSL_new(context);
    if (!t->ssl || !bio)
        abort();
    if (first.len > 0) {
        t->first = mem_alloc(first.len);
        memcpy(t->first, first.ptr, first.len);
        t->first_len = first.len;
    }
    t->handshaking = true;
    s->tls = t;
    BIO_set_data(bio, s);
    BIO_set_init(bio, 1);
    SSL_set_bio(t->ssl, bio, bio);
    SSL_set_read_ahead(t->ssl, 1); /* all that has come by one call, not header and record by two each */
    SSL_set_mode(t->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                             SSL_MODE_RELEASE_BUFFERS);
}

void
stream_accept_tls(struct stream *s, SSL_CTX *context, struct slice first)
{
    stream_begin_tls(s, context, first);
    SSL_set_accept_state(s->tls->ssl);
    stream_rearm(s, 0);
}

/* The name that is sent is the name that the certificate must bear; a literal is sent to nobody (RFC 6066 section 3) but
 * must be in the certificate all the same. */
static bool
tls_expect_name(SSL *ssl, const char *name)
{
    struct addr literal;
    if (!name)
        return SSL_get_verify_mode(ssl) == SSL_VERIFY_NONE; /* verified against no name at all: never */
    if (addr_parse(slice_str(name), &literal))
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1;
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set_tlsext_host_name(ssl, name) == 1 && SSL_set1_host(ssl, name) == 1;
}

void
stream_connect_tls(struct stream *s, SSL_CTX *context, const char *server_name)
{
    stream_begin_tls(s, context, slice_of(NULL, 0));
    SSL_set_connect_state(s->tls->ssl);
    s->tls->to_begin = true; /* at the end of this turn: what is connected can be written to */
    if (!tls_expect_name(s->tls->ssl, server_name))
        stream_fail(s);
    stream_rearm(s, 0);
}

static enum stream_io
tls_read(struct stream *s, void *data, size_t size, size_t *ret_len)
{
    struct tls_side *t = s->tls;
    if (t->handshaking)
        return STREAM_AGAIN;
    if (t->ended)
        return STREAM_EOF;
    size_t total = 0;
    enum stream_io io = STREAM_DONE;
    /* A record at a time is what OpenSSL gives; the owner's buffer may hold several. */
    while (total < size && io == STREAM_DONE) {
        size_t n = 0;
        ERR_clear_error();
        int ret = SSL_read_ex(t->ssl, (char *)data + total, size - total, &n);
        t->read_wants_write = false;
        if (ret == 1)
            total += n;
        else
            io = tls_result(s, ret, &t->read_wants_write, SSL_ERROR_WANT_WRITE);
    }
    t->more = io == STREAM_DONE;
    /* The reading of a session ticket sets up a buffer for writing that only the next write would release. */
    if (io == STREAM_AGAIN)
        SSL_free_buffers(t->ssl);
    if (total == 0)
        return io;
    *ret_len = total; /* an end or a failure is seen by the next read */
    return STREAM_DONE;
}

/* The next bytes for one record: a long piece as it is, short ones copied together. */
static struct slice
tls_next_piece(const struct tls_side *t, const struct iovec *iov, int count, size_t skip)
{
    static char gathered[TLS_RECORD]; /* one thread, and used up before the call returns */
    size_t enough = t->blocked_len > TLS_COPY_BELOW ? t->blocked_len : TLS_COPY_BELOW;
    size_t have = 0;
    for (int i = 0; i < count && have < sizeof gathered; i++) {
        size_t len = iov[i].iov_len;
        if (skip >= len) {
            skip -= len;
            continue;
        }
        const char *from = (const char *)iov[i].iov_base + skip;
        len -= skip;
        skip = 0;
        if (have == 0 && (len >= enough || i == count - 1))
            return slice_of(from, len);
        if (len > sizeof gathered - have)
            len = sizeof gathered - have;
        memcpy(gathered + have, from, len);
        have += len;
    }
    return slice_of(gathered, have);
}

static enum stream_io
tls_write(struct stream *s, const struct iovec *iov, int count, size_t *ret_len)
{
    struct tls_side *t = s->tls;
    if (t->handshaking)
        return STREAM_AGAIN;
    size_t total = 0;
    enum stream_io io = STREAM_DONE;
    for (;;) {
        struct slice piece = tls_next_piece(t, iov, count, total);
        if (piece.len == 0)
            break;
        size_t n = 0;
        ERR_clear_error();
        int ret = SSL_write_ex(t->ssl, piece.ptr, piece.len, &n);
        t->write_wants_read = false;
        t->blocked_len = 0;
        if (ret != 1 && SSL_get_error(t->ssl, ret) == SSL_ERROR_SYSCALL) {
            ERR_clear_error();
            io = stream_break_writing(s);
            break;
        }
        if (ret != 1) {
            io = tls_result(s, ret, &t->write_wants_read, SSL_ERROR_WANT_READ);
            if (io == STREAM_AGAIN)
                t->blocked_len = piece.len < TLS_RECORD ? piece.len : TLS_RECORD;
            break;
        }
        total += n;
    }
    if (total > 0 || io == STREAM_DONE) {
        *ret_len = total;
        return STREAM_DONE;
    }
    return io == STREAM_EOF ? stream_fail(s) : io;
}

static void
tls_free(struct tls_side *t)
{
    if (!t)
        return;
    /* A connection that ends without goodbyes would take its session with it: nobody could resume it. */
    SSL_set_shutdown(t->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(t->ssl);
    if (t->first)
        mem_wipe(t->first, t->first_len);
    free(t->first);
    free(t);
}

/* --- events ------------------------------------------------------------------------------------------------------ */

static void
stream_fired(struct stream *s, short fired)
{
    struct tls_side *t = s->tls;
    short unwanted = fired & (short)~stream_interest(s);
    if (fired & EV_READ)
        s->drained = false;
    if (t && t->handshaking) {
        tls_handshake_step(s);
        stream_rearm(s, unwanted);
        return;
    }
    if (t && t->closing && (fired & EV_WRITE))
        tls_shutdown_step(s);
    short read_on = t && t->read_wants_write ? EV_WRITE : EV_READ;
    short write_on = t && t->write_wants_read ? EV_READ : EV_WRITE;
    if (s->want_read && !s->failed && (fired & read_on))
        stream_emit(s, STREAM_READABLE);
    /* The owner may have freed the stream, or begun TLS on it. */
    bool begun = s->tls && s->tls->handshaking;
    if (s->want_write && !s->failed && !s->freed && !begun && (fired & write_on))
        stream_emit(s, STREAM_WRITABLE);
    stream_rearm(s, unwanted);
}

static void
on_socket_readable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    stream_fired(arg, EV_READ);
}

static void
on_socket_writable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    stream_fired(arg, EV_WRITE);
}

/* What no socket will announce: a failure, a handshake whose first bytes are here already, bytes already decrypted. */
static void
on_again(void *arg)
{
    struct stream *s = arg;
    if (s->failed || (s->write_broken && !s->want_read)) {
        bool told = s->failure_told;
        s->failure_told = true;
        if (!told)
            stream_emit(s, STREAM_FAILED);
    } else if (s->tls && s->tls->handshaking) {
        tls_handshake_step(s);
    } else if (s->want_read && stream_has_pending(s)) {
        stream_emit(s, STREAM_READABLE);
    }
    stream_rearm(s, 0);
}

static void
on_deadline(void *arg)
{
    struct stream *s = arg;
    int64_t left = s->waits->deadline_at_ms - loop_now_ms(s->loop);
    if (left > 0) { /* it was moved while the timer ran */
        timer_start(s->loop, &s->waits->deadline, left, on_deadline, s);
        return;
    }
    s->waits->deadline_at_ms = 0;
    stream_emit(s, STREAM_TIMEOUT);
    stream_rearm(s, 0);
}

/* --- life -------------------------------------------------------------------------------------------------------- */

struct stream *
stream_new(struct loop *loop, int fd, stream_fn *on_event, void *owner)
{
    struct stream *s = mem_zalloc(sizeof *s);
    s->loop = loop;
    s->fd = fd;
    s->on_event = on_event;
    s->owner = owner;
    if (event_assign(&s->read_event, loop_base(loop), fd, EV_READ | EV_PERSIST, on_socket_readable, s) != 0)
        abort();
    return s;
}

void
stream_free(struct stream *s)
{
    if (!s || s->freed)
        return;
    s->freed = true;
    s->on_event = NULL;
    event_del(&s->read_event);
    waits_free(s->loop, s->waits);
    s->waits = NULL;
    tls_free(s->tls);
    s->tls = NULL;
    close(s->fd);
    s->fd = -1;
    loop_free_later(s->loop, s, free);
}

void
stream_reset(struct stream *s)
{
    if (!s || s->freed)
        return;
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    stream_free(s);
}

void
stream_set_owner(struct stream *s, stream_fn *on_event, void *owner)
{
    s->on_event = on_event;
    s->owner = owner;
    stream_rearm(s, 0); /* what nobody was there to hear */
}

void
stream_want(struct stream *s, bool readable, bool writable)
{
    s->want_read = readable;
    s->want_write = writable;
    stream_rearm(s, 0);
}

/* --- bytes ------------------------------------------------------------------------------------------------------- */

static enum stream_io
plain_read(struct stream *s, void *data, size_t size, size_t *ret_len)
{
    ssize_t n = socket_read(s, data, size);
    if (n > 0) {
        *ret_len = (size_t)n;
        return STREAM_DONE;
    }
    if (n == 0)
        return STREAM_EOF;
    return errno == EAGAIN ? STREAM_AGAIN : stream_fail(s);
}

static enum stream_io
plain_write(struct stream *s, const struct iovec *iov, int count, size_t *ret_len)
{
    struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
    ssize_t n;
    do
        n = count == 1 ? send(s->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL) : sendmsg(s->fd, &msg, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n >= 0) {
        *ret_len = (size_t)n;
        return STREAM_DONE;
    }
    if (errno == EAGAIN || errno == ENOBUFS)
        return STREAM_AGAIN;
    return stream_break_writing(s);
}

enum stream_io
stream_read(struct stream *s, void *data, size_t size, size_t *ret_len)
{
    assert(size > 0);
    if (s->failed || s->freed)
        return STREAM_ERROR;
    enum stream_io io = s->tls ? tls_read(s, data, size, ret_len) : plain_read(s, data, size, ret_len);
    if (s->tls)
        stream_rearm(s, 0); /* what TLS waits for may have turned round */
    return io;
}

enum stream_io
stream_write(struct stream *s, const struct iovec *iov, int count, size_t *ret_len)
{
    if (s->failed || s->freed || s->write_broken)
        return STREAM_ERROR;
    if (count > IOV_TOTAL)
        count = IOV_TOTAL;
    enum stream_io io = s->tls ? tls_write(s, iov, count, ret_len) : plain_write(s, iov, count, ret_len);
    if (s->tls)
        stream_rearm(s, 0);
    return io;
}

enum stream_io
stream_write_slice(struct stream *s, struct slice data, size_t *ret_len)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data.ptr, .iov_len = data.len};
    return stream_write(s, &iov, 1, ret_len);
}

void
stream_shutdown_write(struct stream *s)
{
    if (s->failed || s->freed || s->write_broken)
        return;
    if (!s->tls || s->tls->handshaking) {
        shutdown(s->fd, SHUT_WR);
        return;
    }
    tls_shutdown_step(s);
    stream_rearm(s, 0);
}

SSL *
stream_tls(struct stream *s)
{
    return s->tls ? s->tls->ssl : NULL;
}

int
stream_raw_fd(struct stream *s)
{
    return s->tls ? -1 : s->fd;
}

/* --- deadline, options ------------------------------------------------------------------------------------- */

/* Without a deadline the waits go too, unless something else in them is under way. */
static void
stream_clear_deadline(struct stream *s)
{
    struct waits *w = s->waits;
    if (!w)
        return;
    w->deadline_at_ms = 0;
    timer_stop(&w->deadline);
    if ((s->armed & EV_WRITE) || list_linked(&w->again.node))
        return;
    waits_free(s->loop, w);
    s->waits = NULL;
}

/* Moving a deadline further away, which every byte of a tunnel does, costs a store: the timer that runs is left to fire
 * early and is then started for the rest. */
void
stream_set_deadline(struct stream *s, int64_t at_ms)
{
    if (at_ms == 0) {
        stream_clear_deadline(s);
        return;
    }
    struct waits *w = stream_waits(s);
    int64_t before = w->deadline_at_ms;
    w->deadline_at_ms = at_ms;
    if (timer_running(&w->deadline) && before != 0 && at_ms >= before)
        return;
    timer_start(s->loop, &w->deadline, at_ms - loop_now_ms(s->loop), on_deadline, s);
}

/* Fails on unix sockets and is not meant for them. */
void
stream_tune_listener(int fd)
{
    int on = 1, idle_s = 60, interval_s = 20, probes = 3, unacked_ms = 120000;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
    /* 60 s and three probes of 20 s: a peer that vanished is noticed after two minutes, with or without bytes unacked. */
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacked_ms, sizeof unacked_ms);
}

void
stream_tune(struct stream *s)
{
    stream_tune_listener(s->fd);
}

void
stream_no_delay(struct stream *s)
{
    int on = 1;
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}
