/* DNS questions over c-ares: its retries, its turn of servers and its TCP fallback, nothing of its hosts file, its sorting
 * or its parsing. Only files of net/resolve use it.
 *
 * The message is made here and not by ares_query, because c-ares 1.18 seeds its query ids from /dev/urandom and falls back
 * to rand() where that cannot be opened, which is the case in a worker that has no file system: an attacker who cannot see
 * the query could then predict the id. Ours come from getrandom(2).
 *
 * Channels are changed after a number of questions or seconds: c-ares keeps one UDP socket a server and channel for as long
 * as questions are under way, so under load the source port, the other thing to be guessed, would stay the same for ever. */
#include "sallyport/net/resolve_ares.h"

#include <ares.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "sallyport/base/mem.h"
#include "sallyport/base/random.h"

#define CHANNEL_QUESTIONS 64
#define CHANNEL_AGE_MS 10000
#define SERVERS_MAX 8
#define TRIES 3
#define UDP_SIZE 1232  /* what passes everywhere without fragments (DNS flag day 2020) */
#define QUESTION_MAX (12 + 255 + 4 + 11)

struct asker {
    struct loop *loop;
    struct ares_addr_port_node servers[SERVERS_MAX];
    size_t server_count;
    int try_ms;                  /* wait of a first try */
    struct dns_channel *current; /* takes new questions; NULL before the first */
    struct list channels;        /* all, the current one too */
};

struct dns_channel {
    struct list_node node;       /* of asker.channels */
    struct asker *asker;
    ares_channel ares;
    struct list sockets;
    struct list questions;
    struct timer timeout;
    struct deferred dispose;
    unsigned asked;
    int64_t born_ms;
    bool in_ares;                /* c-ares is on the stack */
};

struct dns_socket {
    struct list_node node;
    struct dns_channel *channel;
    ares_socket_t fd;
    struct event *event;
};

struct question {
    struct list_node node;       /* of dns_channel.questions */
    struct dns_channel *channel;
    question_fn *on_answer;      /* NULL: cancelled, c-ares has yet to end it */
    void *owner;
    bool *ended;                 /* set when it ends inside question_start; NULL afterwards */
};

/* --- channels ---------------------------------------------------------------------------------------------------- */

static void
channel_schedule(struct dns_channel *c);

/* Runs c-ares for a socket (or for its clock alone), then sets the clock anew. */
static void
channel_process(struct dns_channel *c, ares_socket_t readable, ares_socket_t writable)
{
    c->in_ares = true;
    ares_process_fd(c->ares, readable, writable);
    c->in_ares = false;
    channel_schedule(c);
}

static void
on_channel_timeout(void *arg)
{
    channel_process(arg, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

static void
on_socket(evutil_socket_t fd, short what, void *arg)
{
    struct dns_socket *s = arg;
    channel_process(s->channel, what & EV_READ ? fd : ARES_SOCKET_BAD, what & EV_WRITE ? fd : ARES_SOCKET_BAD);
}

static void
socket_free(struct dns_channel *c, struct dns_socket *s)
{
    list_remove(&c->sockets, &s->node);
    event_free(s->event);
    free(s);
}

static struct dns_socket *
socket_find(struct dns_channel *c, ares_socket_t fd)
{
    for (struct list_node *n = list_first(&c->sockets); n; n = list_next(&c->sockets, n)) {
        struct dns_socket *s = list_entry(n, struct dns_socket, node);
        if (s->fd == fd)
            return s;
    }
    return NULL;
}

/* c-ares says what it waits for; neither means that it is about to close the descriptor. */
static void
on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct dns_channel *c = arg;
    struct dns_socket *s = socket_find(c, fd);
    short what = (short)((readable ? EV_READ : 0) | (writable ? EV_WRITE : 0));
    if (s)
        socket_free(c, s);
    if (what == 0)
        return;
    s = mem_zalloc(sizeof *s);
    s->channel = c;
    s->fd = fd;
    s->event = event_new(loop_base(c->asker->loop), fd, (short)(what | EV_PERSIST), on_socket, s);
    if (!s->event || event_add(s->event, NULL) != 0)
        abort();
    list_append(&c->sockets, &s->node);
}

/* Everything is given, also what is not used: a channel with a gap in its options reads resolv.conf, nsswitch.conf and
 * host.conf to fill it. */
static bool
channel_open(struct dns_channel *c)
{
    struct in_addr placeholder = {htonl(INADDR_LOOPBACK)}; /* replaced below; ares_options cannot say IPv6 or ports */
    char lookups[] = "b";
    struct ares_options o = {
        .flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_EDNS,
        .timeout = c->asker->try_ms,
        .tries = TRIES,
        .ndots = 0,
        .servers = &placeholder,
        .nservers = 1,
        .lookups = lookups,
        .ednspsz = UDP_SIZE,
        .sock_state_cb = on_socket_state,
        .sock_state_cb_data = c,
    };
    int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_NDOTS | ARES_OPT_SERVERS |
               ARES_OPT_DOMAINS | ARES_OPT_LOOKUPS | ARES_OPT_SORTLIST | ARES_OPT_EDNSPSZ | ARES_OPT_SOCK_STATE_CB;
    if (ares_init_options(&c->ares, &o, mask) != ARES_SUCCESS)
        return false;
    if (ares_set_servers_ports(c->ares, c->asker->servers) == ARES_SUCCESS)
        return true;
    ares_destroy(c->ares);
    return false;
}

static struct dns_channel *
channel_new(struct asker *a)
{
    struct dns_channel *c = mem_zalloc(sizeof *c);
    c->asker = a;
    c->born_ms = loop_now_ms(a->loop);
    list_init(&c->sockets);
    list_init(&c->questions);
    if (!channel_open(c)) {
        free(c);
        return NULL;
    }
    list_append(&a->channels, &c->node);
    return c;
}

static void
channel_destroy(void *arg)
{
    struct dns_channel *c = arg;
    loop_cancel(c->asker->loop, &c->dispose);
    timer_stop(&c->timeout);
    ares_destroy(c->ares); /* ends the questions that are left, and closes the sockets through on_socket_state */
    while (!list_empty(&c->sockets))
        socket_free(c, list_entry(list_first(&c->sockets), struct dns_socket, node));
    list_remove(&c->asker->channels, &c->node);
    free(c);
}

/* A channel that takes no more questions and has none left goes, but never while c-ares is on the stack. */
static void
channel_retire_if_idle(struct dns_channel *c)
{
    if (c != c->asker->current && list_empty(&c->questions) && !list_linked(&c->dispose.node))
        loop_defer(c->asker->loop, &c->dispose, channel_destroy, c);
}

static void
channel_schedule(struct dns_channel *c)
{
    struct timeval tv;
    if (!ares_timeout(c->ares, NULL, &tv)) {
        timer_stop(&c->timeout);
        return;
    }
    int64_t ms = (int64_t)tv.tv_sec * 1000 + (tv.tv_usec + 999) / 1000;
    timer_start(c->asker->loop, &c->timeout, ms, on_channel_timeout, c);
}

static struct dns_channel *
asker_channel(struct asker *a)
{
    struct dns_channel *c = a->current;
    if (c && c->asked < CHANNEL_QUESTIONS && loop_now_ms(a->loop) - c->born_ms < CHANNEL_AGE_MS)
        return c;
    a->current = channel_new(a);
    if (c)
        channel_retire_if_idle(c);
    return a->current;
}

/* --- questions --------------------------------------------------------------------------------------------------- */

/* RFC 1035 section 4.1, with an OPT record (RFC 6891 section 6.1.2) that c-ares knows how to take off again for servers
 * that do not understand it. Returns the length; 0: the name does not fit. */
static size_t
question_message(const char *name, int type, unsigned char out[QUESTION_MAX])
{
    size_t at = 12;
    memset(out, 0, QUESTION_MAX);
    random_bytes(out, 2);
    out[2] = 0x01; /* recursion desired */
    out[5] = 1;    /* one question */
    out[11] = 1;   /* one additional record */
    while (*name) {
        size_t n = strcspn(name, ".");
        if (n == 0 || n > 63 || at + n + 1 > 12 + 254)
            return 0;
        out[at++] = (unsigned char)n;
        memcpy(out + at, name, n);
        at += n;
        name += n;
        name += *name == '.';
    }
    at++; /* the root */
    out[at + 1] = (unsigned char)type;
    out[at + 3] = 1; /* IN */
    at += 4;
    out[at + 2] = 41; /* OPT of the root; its class is the size of answers that we take */
    out[at + 3] = UDP_SIZE >> 8;
    out[at + 4] = UDP_SIZE & 0xff;
    return at + 11;
}

static void
on_ares_answer(void *arg, int status, int timeouts, unsigned char *msg, int len)
{
    struct question *q = arg;
    struct dns_channel *c = q->channel;
    (void)timeouts;
    list_remove(&c->questions, &q->node);
    if (q->ended)
        *q->ended = true;
    bool answered = status == ARES_SUCCESS && msg && len > 0;
    if (q->on_answer)
        q->on_answer(q->owner, answered ? msg : NULL, answered ? (size_t)len : 0);
    free(q);
    if (status != ARES_EDESTRUCTION)
        channel_retire_if_idle(c);
}

struct question *
question_start(struct asker *a, const char *name, int type, question_fn *on_answer, void *owner)
{
    unsigned char msg[QUESTION_MAX];
    size_t len = question_message(name, type, msg);
    struct dns_channel *c = a->server_count > 0 && len > 0 ? asker_channel(a) : NULL;
    if (!c)
        return NULL;
    struct question *q = mem_zalloc(sizeof *q);
    q->channel = c;
    q->owner = owner;
    list_append(&c->questions, &q->node);
    c->asked++;
    /* Without on_answer for now: what fails inside ares_send ends there and then, and frees q. */
    bool ended = false;
    q->ended = &ended;
    ares_send(c->ares, msg, (int)len, on_ares_answer, q);
    if (ended)
        return NULL;
    q->ended = NULL;
    q->on_answer = on_answer;
    if (!c->in_ares)
        channel_schedule(c);
    return q;
}

void
question_cancel(struct question *q)
{
    if (q)
        q->on_answer = NULL;
}

/* --- life -------------------------------------------------------------------------------------------------------- */

static void
add_server(struct asker *a, const struct sockaddr_storage *sa)
{
    struct addr address;
    uint16_t port;
    if (a->server_count == SERVERS_MAX || !addr_from_sockaddr((const struct sockaddr *)sa, &address, &port))
        return;
    struct ares_addr_port_node *node = &a->servers[a->server_count];
    *node = (struct ares_addr_port_node){.family = address.family, .udp_port = port ? port : 53};
    node->tcp_port = node->udp_port;
    memcpy(&node->addr, address.bytes, address.family == AF_INET ? 4 : 16);
    if (a->server_count > 0)
        a->servers[a->server_count - 1].next = node;
    a->server_count++;
}

struct asker *
asker_new(struct loop *l, const struct sockaddr_storage *servers, size_t count, int timeout_ms)
{
    static bool ready;
    if (!ready && ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS)
        abort();
    ready = true;
    struct asker *a = mem_zalloc(sizeof *a);
    a->loop = l;
    list_init(&a->channels);
    for (size_t i = 0; i < count; i++)
        add_server(a, &servers[i]);
    /* c-ares doubles the wait after each round of servers: t for each of n, then 2t for each. With t a share of n + 2, one
     * repetition to the first server still falls into the time of the whole lookup. */
    a->try_ms = timeout_ms / ((int)a->server_count + 2);
    if (a->try_ms < 50)
        a->try_ms = 50;
    return a;
}

void
asker_free(struct asker *a)
{
    if (!a)
        return;
    while (!list_empty(&a->channels)) {
        struct dns_channel *c = list_entry(list_first(&a->channels), struct dns_channel, node);
        for (struct list_node *n = list_first(&c->questions); n; n = list_next(&c->questions, n))
            list_entry(n, struct question, node)->on_answer = NULL;
        channel_destroy(c);
    }
    free(a);
}
