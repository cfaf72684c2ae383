/* The DNS responder of a sandbox. A name is answered when the policy opens it on some port that a listener serves; the answer
 * is a synthetic address. Everything else does not exist, and that is recorded. Queries never go anywhere. */
#include "sallyport/proxy/responder.h"

#include "sallyport/base/mem.h"
#include "sallyport/base/random.h"
#include "sallyport/net/dgram.h"
#include "sallyport/net/dns_query.h"
#include "sallyport/net/stream.h"
#include "sallyport/proxy/names.h"

#define TTL_S 30
#define REPLY_MAX 1024
#define TCP_MESSAGE_MAX 512
#define TCP_IDLE_MS 5000

/* ---- the answer ---- */

static bool
opens_port(const struct policy *policy, const struct host *host, uint16_t port, struct verdict *ret)
{
    struct target t = {.scheme = SCHEME_NONE, .host = *host, .port = port};
    struct question q = {.target = &t};
    policy_decide(policy, &q, ret);
    return ret->action != ACTION_DENY;
}

/* On the ports that programs are likely to use: those of the configuration and what the policy names itself. */
static bool
name_is_open(struct port *port, const struct policy *policy, const struct host *host, struct verdict *ret)
{
    const struct settings *s = snapshot_settings(port->proxy->snapshot);
    const uint16_t *lists[] = {s->default_ports, s->tls_ports, s->plain_ports};
    size_t counts[] = {s->default_port_count, s->tls_port_count, s->plain_port_count};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        for (size_t k = 0; k < counts[i]; k++)
            if (opens_port(policy, host, lists[i][k], ret))
                return true;
    /* Open, though on another port: the connection will be judged by that port. */
    return ret->reason == REASON_PORT_NOT_ALLOWED;
}

static void
record_refusal(struct port *port, const struct identity *who, const struct policy *policy, struct slice name, const struct verdict *v)
{
    struct proxy *p = port->proxy;
    char id[ULID_TEXT_SIZE];
    random_ulid(loop_wall_us(p->loop) / 1000, id);
    struct record r = {
        .event = RECORD_DECISION,
        .wall_us = loop_wall_us(p->loop),
        .id = slice_str(id),
        .listener = slice_str(port->name),
        .entry = slice_str("dns"),
        .host = name,
        .reason = v->reason,
        .rule = v->rule[0] ? slice_str(v->rule) : slice_of(NULL, 0),
    };
    if (who)
        r.sandbox = slice_str(who->sub);
    if (policy) {
        r.policy = slice_str(policy_name(policy));
        r.policy_sha256 = slice_str(policy_sha256(policy));
    }
    shared_count_request(p->shared, false, v->reason);
    journal_add(p->journal, &r, true);
}

/* NOERROR with its address (of a family that has none: none) when the name may be known in this sandbox. */
static enum dns_rcode
judge(struct port *port, const struct dns_query *q, struct addr *ret)
{
    struct host host;
    struct verdict v = {.reason = REASON_REQUEST_MALFORMED};
    const struct policy *policy = NULL;
    struct identity *who = port_identity(port);
    enum reason r = who ? snapshot_policy(port->proxy->snapshot, who, &policy) : REASON_TOKEN_MISSING;
    enum dns_rcode rcode = DNS_NXDOMAIN;
    if (r != REASON_OK)
        v.reason = r;
    else if (host_parse(slice_str(q->name), &host) && host.kind == HOST_NAME && name_is_open(port, policy, &host, &v))
        rcode = DNS_NOERROR;
    if (rcode == DNS_NOERROR && (q->type == DNS_TYPE_A || q->type == DNS_TYPE_AAAA))
        *ret = names_address(port->proxy->names, who->sub, &host, q->type == DNS_TYPE_A ? AF_INET : AF_INET6);
    else if (rcode != DNS_NOERROR)
        record_refusal(port, who, policy, slice_str(q->name), &v);
    identity_unref(who);
    return rcode;
}

/* False: no answer at all. */
static bool
answer(struct port *port, struct slice message, struct buf *out)
{
    struct dns_query q;
    struct addr address = {0};
    int read = dns_query_read(message, &q);
    if (read < 0)
        return false;
    if (read != DNS_NOERROR)
        return dns_reply_write(out, &q, (enum dns_rcode)read, NULL, 0);
    enum dns_rcode rcode = judge(port, &q, &address);
    return dns_reply_write(out, &q, rcode, address.family ? &address : NULL, TTL_S);
}

/* ---- UDP ---- */

static void
on_packet(void *owner, const struct packet *packet)
{
    struct port *port = owner;
    struct buf out;
    buf_init(&out, REPLY_MAX);
    if (answer(port, packet->data, &out))
        dgram_reply(port->dgram, packet, buf_slice(&out));
    buf_done(&out);
}

void
responder_listen_udp(struct port *port, int fd)
{
    port->dgram = dgram_new(port->proxy->loop, fd, on_packet, port);
}

/* ---- TCP: messages with their length in front ---- */

struct dns_connection {
    struct list_node node; /* in proxy.dns */
    struct port *port;
    struct stream *stream;
    struct buf in, out;
};

static void
free_memory(void *ptr)
{
    struct dns_connection *d = ptr;
    buf_done(&d->in);
    buf_done(&d->out);
    free(d);
}

void
responder_close_all(struct proxy *p)
{
    while (!list_empty(&p->dns))
        responder_close(list_entry(list_first(&p->dns), struct dns_connection, node));
}

void
responder_close(struct dns_connection *d)
{
    struct proxy *p = d->port->proxy;
    stream_free(steal(&d->stream));
    list_remove(&p->dns, &d->node);
    loop_free_later(p->loop, d, free_memory);
    proxy_settle(p); /* it was counted, like a client */
}

/* Answers every whole message; false when the connection has ended. */
static bool
answer_messages(struct dns_connection *d)
{
    while (buf_len(&d->in) >= 2 && buf_room(&d->out) >= REPLY_MAX) {
        const unsigned char *p = (const unsigned char *)buf_slice(&d->in).ptr;
        size_t len = (size_t)(p[0] << 8 | p[1]);
        struct buf reply;
        if (len > TCP_MESSAGE_MAX) {
            responder_close(d);
            return false;
        }
        if (buf_len(&d->in) < 2 + len)
            return true;
        buf_init(&reply, REPLY_MAX);
        if (answer(d->port, slice_of(p + 2, len), &reply)) {
            char prefix[2] = {(char)(buf_len(&reply) >> 8), (char)buf_len(&reply)};
            buf_append(&d->out, prefix, sizeof prefix);
            buf_append_slice(&d->out, buf_slice(&reply));
        }
        buf_done(&reply);
        buf_consume(&d->in, 2 + len);
    }
    return true;
}

static bool
flush(struct dns_connection *d)
{
    while (buf_len(&d->out)) {
        size_t sent = 0;
        enum stream_io io = stream_write_slice(d->stream, buf_slice(&d->out), &sent);
        if (io == STREAM_AGAIN)
            break;
        if (io != STREAM_DONE) {
            responder_close(d);
            return false;
        }
        buf_consume(&d->out, sent);
    }
    stream_want(d->stream, buf_len(&d->out) == 0, buf_len(&d->out) > 0);
    return true;
}

static void
on_stream(void *owner, enum stream_event event)
{
    struct dns_connection *d = owner;
    size_t got = 0, room = buf_room(&d->in);
    if (event == STREAM_FAILED || event == STREAM_TIMEOUT) {
        responder_close(d);
        return;
    }
    if (event == STREAM_READABLE && room) {
        enum stream_io io = stream_read(d->stream, buf_reserve(&d->in, room), room, &got);
        if (io == STREAM_EOF || io == STREAM_ERROR) {
            responder_close(d);
            return;
        }
        buf_commit(&d->in, got);
    }
    stream_set_deadline(d->stream, loop_now_ms(d->port->proxy->loop) + TCP_IDLE_MS);
    if (answer_messages(d))
        flush(d);
}

void
responder_accept_tcp(struct port *port, int fd)
{
    struct dns_connection *d = mem_zalloc(sizeof *d);
    d->port = port;
    d->stream = stream_new(port->proxy->loop, fd, on_stream, d);
    buf_init(&d->in, 2 + TCP_MESSAGE_MAX);
    buf_init(&d->out, 4 * REPLY_MAX);
    list_append(&port->proxy->dns, &d->node);
    stream_set_deadline(d->stream, loop_now_ms(port->proxy->loop) + TCP_IDLE_MS);
    stream_want(d->stream, true, false);
}
