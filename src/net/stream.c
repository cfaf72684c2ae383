/* A connected byte stream on bare readiness: events towards the owner, TCP or TLS underneath. The owner holds the buffers; a
 * stream holds none but what OpenSSL needs while a record is under way. A stream is freed at the end of the turn, its
 * descriptor is closed at once. It never calls its owner from inside a call that the owner makes.
 *
 * The poller tells edges, and the stream remembers them: `drained` and `blocked` are what the socket last said, and what the
 * owner wants is held against them in one place, stream_is_due. Wanting and no longer wanting cost no system call. A read that
 * gave less than was asked for has emptied the socket: none is tried again before an edge says that there is more. */
#include "sallyport/net/stream.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include "sallyport/base/addr.h"
#include "sallyport/base/mem.h"
#include "sallyport/net/doze.h"
#include "sallyport/net/poller.h"

#define IOV_TOTAL 64           /* pieces taken of one call; the rest is the next call's */
#define TLS_RECORD 16384       /* payload of a record, RFC 8446 section 5.1 */
#define TLS_COPY_BELOW 4096    /* shorter pieces are gathered into one record */
#define FIRST_MAX (1024 * 1024) /* an owner's bug if it is more */

/* What TLS adds; plain streams have none of it. */
struct tls_side {
    struct doze doze;          /* OpenSSL's object: by tls_ssl */
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

/* Only while there is one. */
struct deadline {
    struct timer timer;
    int64_t at_ms;             /* the timer may run for an earlier time and is then started anew */
};

/* There are two of these a tunnel: what is in here is what an idle one costs. */
struct stream {
    struct source source;      /* of edges, and of turns for what no edge will announce */
    struct loop *loop;
    stream_fn *on_event;
    void *owner;
    struct tls_side *tls;      /* NULL: plain */
    struct deadline *deadline; /* NULL: none */
    int fd;
    bool want_read : 1, want_write : 1;
    bool registered : 1;       /* with the poller, from the first time that anything was wanted */
    bool hears_out : 1;        /* it also tells of room: from the first write that found none */
    bool drained : 1;          /* there was no more to read; an edge says when there is */
    bool blocked : 1;          /* there was no room to write; an edge says when there is */
    bool urged : 1;            /* urgent data came: splice stops in front of it for good */
    bool peer_ended : 1;       /* an end is behind what can be read, so a short read empties nothing */
    bool in_event : 1;         /* inside the owner's callback: settle once, after it */
    bool write_broken : 1;     /* writing failed; what the peer sent before can still be read */
    bool failed : 1, failure_told : 1;
    bool freed : 1;
};

/* What SSL_get_error goes by must be empty before a call. It nearly always is, and to see that costs a tenth of emptying it. */
static void
clear_errors(void)
{
    if (ERR_peek_error() != 0)
        ERR_clear_error();
}

/* Good until the turn ends: while nobody asks for it, it may be laid away. */
static SSL *
tls_ssl(struct tls_side *t)
{
    return doze_ssl(&t->doze);
}

/* --- waiting ----------------------------------------------------------------------------------------------------- */

/* Bytes, or the end, that can be had without the socket. */
static bool
stream_has_pending(const struct stream *s)
{
    struct tls_side *t = s->tls;
    return t && (t->first_at < t->first_len || t->ended || (t->more && SSL_has_pending(tls_ssl(t))));
}

static bool
stream_can_read(const struct stream *s)
{
    bool by_writing = s->tls && s->tls->read_wants_write;
    return stream_has_pending(s) || (by_writing ? !s->blocked : !s->drained);
}

static bool
stream_can_write(const struct stream *s)
{
    bool by_reading = s->tls && s->tls->write_wants_read;
    return !s->write_broken && (by_reading ? !s->drained : !s->blocked);
}

static bool
stream_can_shake_hands(const struct stream *s)
{
    const struct tls_side *t = s->tls;
    if (t->handshake_wants_write)
        return !s->blocked;
    return t->to_begin || t->first_at < t->first_len || !s->drained;
}

static bool
stream_can_close_tls(const struct stream *s)
{
    return s->tls && s->tls->closing && !s->blocked && !s->write_broken;
}

/* A broken write side is told when reading will not tell it. */
static bool
stream_has_failure(const struct stream *s)
{
    return (s->failed || (s->write_broken && !s->want_read)) && !s->failure_told;
}

/* Is there something to do that no edge will announce? */
static bool
stream_is_due(const struct stream *s)
{
    if (stream_has_failure(s))
        return s->on_event != NULL;
    if (s->failed)
        return false;
    if (s->tls && s->tls->handshaking)
        return stream_can_shake_hands(s);
    bool event = (s->want_read && stream_can_read(s)) || (s->want_write && stream_can_write(s));
    return (event && s->on_event) || stream_can_close_tls(s);
}

/* What is there already is told as an edge, so nothing is known of the socket's bytes before. */
static void
stream_register(struct stream *s)
{
    s->registered = s->drained = true;
    s->hears_out = s->blocked;
    poller_add(loop_poller(s->loop), &s->source, s->fd, s->blocked);
}

/* After anything that may have changed what is waited for. */
static void
stream_settle(struct stream *s)
{
    if (s->freed || s->in_event)
        return;
    bool waits = s->want_read || s->want_write || (s->tls && (s->tls->handshaking || s->tls->closing));
    if (waits && !s->registered) {
        stream_register(s);
    } else if (s->blocked && !s->hears_out && s->registered) {
        s->hears_out = true;
        poller_add_out(loop_poller(s->loop), &s->source, s->fd);
    }
    if (stream_is_due(s))
        poller_again(loop_poller(s->loop), &s->source);
    else
        poller_not_again(loop_poller(s->loop), &s->source);
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
    stream_settle(s);
    return STREAM_ERROR;
}

/* A server may answer, or refuse, and close before it has read everything: what it said is still there to be read. */
static enum stream_io
stream_break_writing(struct stream *s)
{
    s->write_broken = true;
    stream_settle(s);
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
    bool none_left = n < 0 ? errno == EAGAIN : n > 0 && (size_t)n < size && !s->peer_ended;
    s->drained = none_left && s->registered; /* else nobody would say that there is more */
    return n;
}

static ssize_t
socket_write(struct stream *s, const struct iovec *iov, int count)
{
    struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
    size_t size = 0;
    ssize_t n;
    for (int i = 0; i < count; i++)
        size += iov[i].iov_len;
    do
        n = count == 1 ? send(s->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL) : sendmsg(s->fd, &msg, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    /* The kernel promises an edge after EAGAIN and after a short write, not after ENOBUFS. */
    s->blocked = n < 0 ? errno == EAGAIN : (size_t)n < size;
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
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len > 0 ? (size_t)len : 0};
    BIO_clear_retry_flags(bio);
    ssize_t n = socket_write(s, &iov, 1);
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

static void
drop_first(struct tls_side *t)
{
    if (t->first)
        mem_wipe(t->first, t->first_len);
    free(steal(&t->first));
    t->first_at = t->first_len = 0;
}

/* Files the result of an SSL call away; STREAM_ERROR has failed the stream. */
static enum stream_io
tls_result(struct stream *s, int ret, bool *wants_other, int other)
{
    int e = SSL_get_error(tls_ssl(s->tls), ret);
    if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE) {
        *wants_other = e == other;
        return STREAM_AGAIN;
    }
    if (e == SSL_ERROR_ZERO_RETURN) {
        s->tls->ended = true;
        return STREAM_EOF;
    }
    /* Also FIN without close_notify: an end that anybody on the way can forge is not an orderly one. */
    clear_errors();
    return stream_fail(s);
}

static void
tls_shutdown_step(struct stream *s)
{
    struct tls_side *t = s->tls;
    bool ignored = false;
    clear_errors();
    int n = SSL_shutdown(tls_ssl(t));
    if (n < 0) {
        enum stream_io io = tls_result(s, n, &ignored, SSL_ERROR_WANT_READ);
        t->closing = io == STREAM_AGAIN;
        if (io != STREAM_EOF)
            return;
    }
    t->closing = false;
    shutdown(s->fd, SHUT_WR);
}

/* What records were read into and written from. OpenSSL before 3.0.14 may still use it afterwards (CVE-2024-4741). */
static void
tls_free_buffers(SSL *ssl)
{
    if (OpenSSL_version_num() >= 0x300000e0L)
        SSL_free_buffers(ssl);
}

/* Only the handshake needed it, and SSL_free would be the next to free it: an ephemeral key has no business in memory for as
 * long as the connection lives. The object stays, without a key in it. */
static void
empty_key(EVP_PKEY *key)
{
    EVP_PKEY_set_type(key, EVP_PKEY_X25519);
    EVP_PKEY_free(key);
}

static void
tls_forget_handshake(struct tls_side *t)
{
    EVP_PKEY *key = NULL;
    SSL *ssl = tls_ssl(t);
    tls_free_buffers(ssl);
    if (SSL_get_tmp_key(ssl, &key))
        empty_key(key);
    if (SSL_get_peer_tmp_key(ssl, &key))
        empty_key(key);
    if (t->first_at == t->first_len)
        drop_first(t);
}

static void
tls_handshake_step(struct stream *s)
{
    struct tls_side *t = s->tls;
    t->to_begin = false;
    clear_errors();
    int n = SSL_do_handshake(tls_ssl(t));
    if (n != 1) {
        if (tls_result(s, n, &t->handshake_wants_write, SSL_ERROR_WANT_WRITE) == STREAM_EOF)
            stream_fail(s);
        return;
    }
    t->handshaking = false;
    t->more = true;
    tls_forget_handshake(t);
    stream_emit(s, STREAM_SECURED);
}

static void
stream_begin_tls(struct stream *s, SSL_CTX *context, struct slice first)
{
    assert(!s->tls && first.len <= FIRST_MAX);
    struct tls_side *t = mem_zalloc(sizeof *t);
    BIO *bio = BIO_new(stream_bio_method());
    if (!bio)
        abort();
    doze_init(&t->doze, s->loop, context);
    if (first.len > 0) {
        t->first = mem_alloc(first.len);
        memcpy(t->first, first.ptr, first.len);
        t->first_len = first.len;
    }
    t->handshaking = true;
    s->tls = t;
    BIO_set_data(bio, s);
    BIO_set_init(bio, 1);
    SSL *ssl = tls_ssl(t);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_read_ahead(ssl, 1); /* all that has come by one call, not header and record by two each */
    SSL_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                             SSL_MODE_RELEASE_BUFFERS);
}

void
stream_accept_tls(struct stream *s, SSL_CTX *context, struct slice first)
{
    stream_begin_tls(s, context, first);
    SSL_set_accept_state(tls_ssl(s->tls));
    stream_settle(s);
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
    SSL_set_connect_state(tls_ssl(s->tls));
    s->tls->to_begin = true; /* at the end of this turn: what is connected can be written to */
    if (!tls_expect_name(tls_ssl(s->tls), server_name))
        stream_fail(s);
    stream_settle(s);
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
        clear_errors();
        int ret = SSL_read_ex(tls_ssl(t), (char *)data + total, size - total, &n);
        t->read_wants_write = false;
        if (ret == 1)
            total += n;
        else
            io = tls_result(s, ret, &t->read_wants_write, SSL_ERROR_WANT_WRITE);
    }
    t->more = io == STREAM_DONE;
    /* The reading of a session ticket sets up a buffer for writing that only the next write would release. */
    if (io == STREAM_AGAIN)
        tls_free_buffers(tls_ssl(t));
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
        clear_errors();
        int ret = SSL_write_ex(tls_ssl(t), piece.ptr, piece.len, &n);
        t->write_wants_read = false;
        t->blocked_len = 0;
        if (ret != 1 && SSL_get_error(tls_ssl(t), ret) == SSL_ERROR_SYSCALL) {
            clear_errors();
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
    SSL_set_shutdown(tls_ssl(t), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    doze_done(&t->doze);
    drop_first(t);
    free(t);
}

/* --- events ------------------------------------------------------------------------------------------------------ */

/* In the loop: tells the owner what can be told now. */
static void
stream_tend(struct stream *s)
{
    struct tls_side *t = s->tls;
    if (stream_has_failure(s)) {
        s->failure_told = true;
        stream_emit(s, STREAM_FAILED);
    } else if (t && t->handshaking) {
        if (!s->failed && stream_can_shake_hands(s))
            tls_handshake_step(s);
    } else if (!s->failed) {
        if (stream_can_close_tls(s))
            tls_shutdown_step(s);
        if (s->want_read && !s->failed && stream_can_read(s))
            stream_emit(s, STREAM_READABLE);
        /* The owner may have freed the stream, or begun TLS on it. */
        bool begun = s->tls && s->tls->handshaking;
        if (s->want_write && !s->failed && !s->freed && !begun && stream_can_write(s))
            stream_emit(s, STREAM_WRITABLE);
    }
    stream_settle(s);
}

static void
on_source(struct source *source, unsigned edges)
{
    struct stream *s = list_entry(source, struct stream, source);
    s->drained &= !(edges & EDGE_IN);
    s->blocked &= !(edges & EDGE_OUT);
    s->peer_ended |= (edges & EDGE_END) != 0;
    s->urged |= (edges & EDGE_URGENT) != 0;
    stream_tend(s);
}

static void
stream_clear_deadline(struct stream *s)
{
    if (!s->deadline)
        return;
    timer_stop(&s->deadline->timer);
    free(steal(&s->deadline));
}

static void
on_deadline(void *arg)
{
    struct stream *s = arg;
    int64_t left = s->deadline->at_ms - loop_now_ms(s->loop);
    if (left > 0) { /* it was moved while the timer ran */
        timer_start(s->loop, &s->deadline->timer, left, on_deadline, s);
        return;
    }
    stream_clear_deadline(s);
    stream_emit(s, STREAM_TIMEOUT);
    stream_settle(s);
}

/* --- life -------------------------------------------------------------------------------------------------------- */

struct stream *
stream_new(struct loop *loop, int fd, stream_fn *on_event, void *owner)
{
    struct stream *s = mem_zalloc(sizeof *s);
    s->source.fn = on_source;
    s->loop = loop;
    s->fd = fd;
    s->on_event = on_event;
    s->owner = owner;
    return s;
}

struct stream *
stream_new_connecting(struct loop *loop, int fd, stream_fn *on_event, void *owner)
{
    struct stream *s = stream_new(loop, fd, on_event, owner);
    s->blocked = true;
    stream_want(s, false, true);
    return s;
}

void
stream_distrust_short_reads(struct stream *s)
{
    s->peer_ended = true;
}

void
stream_free(struct stream *s)
{
    if (!s || s->freed)
        return;
    s->freed = true;
    s->on_event = NULL;
    if (s->registered)
        poller_forget(loop_poller(s->loop), &s->source);
    else
        poller_not_again(loop_poller(s->loop), &s->source);
    stream_clear_deadline(s);
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
    stream_settle(s); /* what nobody was there to hear */
}

void
stream_want(struct stream *s, bool readable, bool writable)
{
    s->want_read = readable;
    s->want_write = writable;
    stream_settle(s);
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
    ssize_t n = socket_write(s, iov, count);
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
    stream_settle(s); /* there may be more; and what TLS waits for may have turned round */
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
    stream_settle(s);
    return io;
}

enum stream_io
stream_write_slice(struct stream *s, struct slice data, size_t *ret_len)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data.ptr, .iov_len = data.len};
    return stream_write(s, &iov, 1, ret_len);
}

static ssize_t
move(int from, int to, size_t len)
{
    ssize_t n;
    do
        n = splice(from, NULL, to, NULL, len, SPLICE_F_NONBLOCK);
    while (n < 0 && errno == EINTR);
    return n;
}

/* A short move may have filled the pipe's slots instead of emptying the socket, so only EAGAIN says that there was no more. (At urgent
 * data it says so with more behind it, for good: stream_can_splice_in.) */
ssize_t
stream_splice_in(struct stream *s, int pipe, size_t max)
{
    ssize_t n = -1;
    errno = EAGAIN;
    if (!s->drained)
        n = move(s->fd, pipe, max);
    s->drained = n < 0 && errno == EAGAIN && s->registered;
    stream_settle(s);
    return n;
}

ssize_t
stream_splice_out(struct stream *s, int pipe, size_t len)
{
    ssize_t n = move(pipe, s->fd, len);
    s->blocked = n < 0 && errno == EAGAIN; /* a signal cuts it short too, where there is room: no edge would come */
    stream_settle(s);
    return n;
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
    stream_settle(s);
}

int
stream_connect_error(struct stream *s)
{
    int error = 0;
    socklen_t len = sizeof error;
    /* A connect that has failed is told with an end: one without has no error to be asked for. */
    if (!s->peer_ended)
        return 0;
    return getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 ? error : errno;
}

SSL *
stream_tls(struct stream *s)
{
    return s->tls ? tls_ssl(s->tls) : NULL;
}

int
stream_raw_fd(struct stream *s)
{
    return s->tls ? -1 : s->fd;
}

bool
stream_can_splice_in(const struct stream *s)
{
    return !s->tls && !s->urged;
}

/* --- deadline, options ------------------------------------------------------------------------------------- */

/* Moving a deadline further away, which every byte of a tunnel does, costs a store: the timer that runs is left to fire
 * early and is then started for the rest. */
void
stream_set_deadline(struct stream *s, int64_t at_ms)
{
    if (at_ms == 0) {
        stream_clear_deadline(s);
        return;
    }
    bool runs = s->deadline != NULL;
    if (!runs)
        s->deadline = mem_zalloc(sizeof *s->deadline);
    struct deadline *d = s->deadline;
    int64_t before = d->at_ms;
    d->at_ms = at_ms;
    if (!runs || at_ms < before)
        timer_start(s->loop, &d->timer, at_ms - loop_now_ms(s->loop), on_deadline, s);
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
