/* Which host a transparent connection means: the name of its synthetic address, else SNI or Host, else the literal. The
 * original address itself is recorded and never dialled for a name. What the name is good for, exchange.c decides. */
#include "sallyport/proxy/transparent.h"

#include <sys/socket.h>

#include "sallyport/base/arena.h"
#include "sallyport/proxy/exchange.h"
#include "sallyport/proxy/names.h"
#include "sallyport/tls/hello.h"

#define SPEAK_MS 1000 /* on ports where the server may speak first, how long the client's first bytes are waited for */

struct slice
transparent_alert(void)
{
    /* level fatal (2), access_denied (49), in a record of TLS 1.2 */
    static const char alert[] = {21, 3, 3, 0, 2, 2, 49};
    return slice_of(alert, sizeof alert);
}

static bool
is_tls_port(const struct client *c)
{
    const struct settings *s = snapshot_settings(c->proxy->snapshot);
    return has_port(s->tls_ports, s->tls_port_count, c->original_port);
}

static bool
is_plain_port(const struct client *c)
{
    const struct settings *s = snapshot_settings(c->proxy->snapshot);
    return has_port(s->plain_ports, s->plain_port_count, c->original_port);
}

static void
start(struct client *c, const struct host *host, enum reason reason)
{
    struct target t = {.scheme = SCHEME_NONE, .port = c->original_port};
    if (host)
        t.host = *host;
    exchange_start_transparent(c, host ? &t : NULL, reason);
}

/* The address as a host, where no name is to be had. */
static void
start_literal(struct client *c, enum reason reason)
{
    char text[ADDR_TEXT_SIZE], bracketed[ADDR_TEXT_SIZE + 2];
    struct host host;
    addr_format(&c->original, text);
    snprintf(bracketed, sizeof bracketed, c->original.family == AF_INET6 ? "[%s]" : "%s", text);
    start(c, host_parse(slice_str(bracketed), &host) ? &host : NULL, reason);
}

/* The name that this sandbox was told the address for. */
static const struct host *
name_of_address(struct client *c)
{
    struct identity *who = c->proxy->names && names_is_synthetic(&c->original) ? port_identity(c->port) : NULL;
    const struct host *named = who ? names_find(c->proxy->names, who->sub, &c->original) : NULL;
    identity_unref(who);
    return named;
}

void
transparent_begin(struct client *c)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof ss;
    if (getsockname(stream_raw_fd(c->stream), (struct sockaddr *)&ss, &len) < 0 ||
        !addr_from_sockaddr((struct sockaddr *)&ss, &c->original, &c->original_port)) {
        client_free(c);
        return;
    }
    const struct host *named = name_of_address(c);
    /* Where the client speaks first, the tunnel holds what it says to the name. Elsewhere the name is enough. */
    if (named) {
        start(c, named, REASON_OK);
        return;
    }
    bool client_first = is_tls_port(c) || is_plain_port(c);
    int64_t wait_ms = client_first ? snapshot_settings(c->proxy->snapshot)->head_timeout_ms : SPEAK_MS;
    stream_set_deadline(c->stream, loop_now_ms(c->proxy->loop) + wait_ms);
    stream_want(c->stream, true, false);
}

/* True when the Host of a plain request has named the target (or made clear that none will). */
static bool
name_by_host(struct client *c)
{
    struct slice bytes = buf_slice(&c->in);
    struct head_scan scan = {0};
    struct head head;
    struct target t;
    char authority[HOST_TEXT_SIZE + 8];
    size_t count = 0;
    enum head_scan_status status = head_scan(&scan, bytes, (size_t)snapshot_settings(c->proxy->snapshot)->head_bytes);
    if (status == HEAD_SCAN_MORE && !c->eof && buf_room(&c->in))
        return false;
    struct arena *arena = arena_new(ARENA_USUAL);
    enum reason r = status == HEAD_SCAN_COMPLETE
                        ? head_parse_request(arena, slice_of(bytes.ptr + scan.start, scan.end - scan.start), &head)
                        : REASON_REQUEST_MALFORMED;
    struct slice host = r == REASON_OK ? head_field(&head, "Host", &count) : slice_of(NULL, 0);
    struct host plain;
    if (r != REASON_OK)
        start_literal(c, is_plain_port(c) ? r : REASON_OK);
    else if (count == 0)
        start_literal(c, REASON_OK);
    else if (host_parse(host, &plain))
        start(c, &plain, REASON_OK);
    else if (host.len < HOST_TEXT_SIZE && snprintf(authority, sizeof authority, "%.*s", SLICE_ARG(host)) > 0 &&
             target_from_authority(slice_str(authority), &t) == REASON_OK)
        start(c, &t.host, t.port == c->original_port ? REASON_OK : REASON_HOST_MISMATCH);
    else
        start_literal(c, REASON_REQUEST_MALFORMED);
    arena_free(arena);
    return true;
}

static bool
name_by_hello(struct client *c)
{
    struct hello hello;
    struct host host;
    switch (hello_read(buf_slice(&c->in), &hello)) {
    case HELLO_MORE:
        if (!c->eof && buf_room(&c->in))
            return false;
        start_literal(c, is_tls_port(c) ? REASON_NOT_TLS : REASON_OK);
        return true;
    case HELLO_MALFORMED:
        start_literal(c, REASON_NOT_TLS);
        return true;
    case HELLO_NOT_TLS:
        if (!is_tls_port(c))
            return name_by_host(c);
        start_literal(c, REASON_NOT_TLS);
        return true;
    case HELLO_COMPLETE:
        break;
    }
    if (!hello.has_sni)
        start_literal(c, REASON_OK);
    else if (host_parse(slice_str(hello.sni), &host))
        start(c, &host, REASON_OK);
    else
        start_literal(c, REASON_SNI_MISMATCH);
    return true;
}

void
transparent_continue(struct client *c, bool timeout)
{
    bool empty = buf_len(&c->in) == 0;
    if (empty && (c->eof || timeout)) {
        if (is_tls_port(c) || is_plain_port(c))
            client_free(c); /* it had nothing to say where it should have spoken first */
        else
            start_literal(c, REASON_OK);
    } else if (timeout) {
        start_literal(c, is_tls_port(c) ? REASON_NOT_TLS : REASON_REQUEST_TIMEOUT);
    } else if (!empty) {
        (void)(is_plain_port(c) ? name_by_host(c) : name_by_hello(c));
    }
}
