/* A worker's proxy as a whole: listeners, the present snapshot, the tick that ends what may not live on, draining. */
#include "sallyport/proxy/proxy.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sallyport/base/diag.h"
#include "sallyport/base/mem.h"
#include "sallyport/proxy/client.h"
#include "sallyport/proxy/core.h"
#include "sallyport/proxy/exchange.h"
#include "sallyport/net/dgram.h"
#include "sallyport/net/splice.h"
#include "sallyport/proxy/keeperlink.h"
#include "sallyport/proxy/names.h"
#include "sallyport/proxy/pool.h"
#include "sallyport/proxy/responder.h"
#include "sallyport/proxy/watch.h"
#include "sallyport/tls/context.h"

#define DNS_SERVERS_MAX 8
#define DNS_PORT 53
#define CLOCK_JUMP_MS 100 /* in one tick; adjusting the clock is slower, and a busy turn hardly takes that long */

struct old_resolver {
    struct list_node node;
    struct resolver *resolver;
};

/* "address[:port]" of the settings, one a line, or the nameserver lines of resolv.conf as the supervisor read it. */
static char *
server_texts(const struct snapshot *s)
{
    const struct settings *set = snapshot_settings(s);
    struct buf b;
    buf_init(&b, 65536);
    for (size_t i = 0; i < set->dns_servers.count; i++)
        buf_printf(&b, "%s\n", set->dns_servers.items[i]);
    struct slice rest = snapshot_blob(s, "resolv");
    while (set->dns_servers.count == 0 && rest.ptr && rest.len) {
        struct slice line = slice_trim_ows(slice_split(rest, '\n', &rest));
        struct slice value, word;
        line = slice_trim_ows(line);
        word = slice_split(line, ' ', &value);
        if (!value.ptr)
            word = slice_split(line, '\t', &value);
        if (slice_is(word, "nameserver") && value.ptr)
            buf_printf(&b, "%.*s\n", SLICE_ARG(slice_trim_ows(value)));
    }
    char *text = mem_dup_slice(buf_slice(&b));
    buf_done(&b);
    return text;
}

static bool
parse_server(struct slice text, struct sockaddr_storage *ret)
{
    socklen_t len;
    struct addr a;
    if (addr_parse(text, &a)) {
        addr_to_sockaddr(&a, DNS_PORT, ret);
        return true;
    }
    return sockaddr_parse(text, DNS_PORT, ret, &len);
}

static void
replace_resolver(struct proxy *p)
{
    char *texts = server_texts(p->snapshot);
    if (p->resolver && strcmp(texts, p->resolver_servers) == 0) {
        free(texts);
        return;
    }
    if (p->resolver) {
        struct old_resolver *old = mem_zalloc(sizeof *old);
        old->resolver = p->resolver;
        list_append(&p->old_resolvers, &old->node);
    }
    struct sockaddr_storage servers[DNS_SERVERS_MAX];
    size_t count = 0;
    struct slice rest = slice_str(texts);
    while (rest.ptr && rest.len && count < DNS_SERVERS_MAX)
        count += parse_server(slice_split(rest, '\n', &rest), &servers[count]);
    struct resolver_options o = {.servers = servers, .server_count = count, .timeout_ms = (int)snapshot_settings(p->snapshot)->dns_timeout_ms};
    p->resolver = resolver_new(p->loop, &o);
    free(p->resolver_servers);
    p->resolver_servers = texts;
}

/* ---- the wheel: live exchanges by when they are looked at ---- */

void
proxy_file(struct proxy *p, struct exchange *x, int64_t due_ms)
{
    int64_t tick = due_ms / PROXY_TICK_MS + 1, first = p->wheel_tick + 1, last = p->wheel_tick + PROXY_WHEEL - 1;
    tick = tick < first ? first : tick > last ? last : tick;
    uint8_t slot = (uint8_t)(tick % PROXY_WHEEL);
    if (list_linked(&x->node) && x->wheel_slot == slot)
        return;
    if (list_linked(&x->node))
        proxy_unfile(p, x);
    x->wheel_slot = slot;
    list_append(&p->wheel[slot], &x->node);
    p->exchanges++;
}

void
proxy_unfile(struct proxy *p, struct exchange *x)
{
    list_remove(&p->wheel[x->wheel_slot], &x->node);
    p->exchanges--;
}

static struct exchange *
first_exchange(const struct proxy *p)
{
    for (size_t i = 0; p->exchanges && i < PROXY_WHEEL; i++)
        if (!list_empty(&p->wheel[i]))
            return list_entry(list_first(&p->wheel[i]), struct exchange, node);
    return NULL;
}

/* Looks again at what is filed for up to `ticks` from now on. One that ends may take others with it (a tunnel its request, a
 * request its tunnel), so no list is walked while it changes; what has ended stays readable until the turn does. */
static void
recheck(struct proxy *p, int64_t ticks, bool snapshot_changed)
{
    size_t count = 0, size = 0;
    struct exchange **due = NULL;
    ticks = ticks < PROXY_WHEEL ? ticks : PROXY_WHEEL;
    for (int64_t tick = p->wheel_tick + 1; tick <= p->wheel_tick + ticks; tick++) {
        const struct list *slot = &p->wheel[tick % PROXY_WHEEL];
        if (count + slot->count > size) {
            size = (count + slot->count) * 2;
            due = mem_realloc(due, size * sizeof *due);
        }
        for (struct list_node *n = list_first(slot); n; n = list_next(slot, n))
            due[count++] = list_entry(n, struct exchange, node);
    }
    p->wheel_tick = loop_now_ms(p->loop) / PROXY_TICK_MS;
    for (size_t i = 0; i < count; i++)
        exchange_recheck(due[i], snapshot_changed);
    free(due);
}

/* Tokens end by the wall clock. Where that was set, or the machine slept, nothing that was reckoned holds. */
static bool
wall_clock_jumped(struct proxy *p)
{
    int64_t ahead_ms = loop_wall_us(p->loop) / 1000 - loop_now_ms(p->loop), before_ms = p->wall_ahead_ms;
    p->wall_ahead_ms = ahead_ms;
    return ahead_ms > before_ms + CLOCK_JUMP_MS || ahead_ms < before_ms - CLOCK_JUMP_MS;
}

static void on_tick(void *arg);

/* A tick comes with each PROXY_TICK_MS of the clock: that is what bounds "within a second". */
static void
await_tick(struct proxy *p)
{
    timer_start(p->loop, &p->tick, PROXY_TICK_MS - loop_now_ms(p->loop) % PROXY_TICK_MS, on_tick, p);
}

static void
on_tick(void *arg)
{
    struct proxy *p = arg;
    int64_t passed = loop_now_ms(p->loop) / PROXY_TICK_MS - p->wheel_tick;
    recheck(p, wall_clock_jumped(p) ? PROXY_WHEEL : passed, false);
    await_tick(p);
}

/* Trust towards upstreams and a parent proxy. Without it what goes there fails (upstream_tls) and nothing else does. */
static void
replace_trust(struct proxy *p)
{
    const struct settings *set = snapshot_settings(p->snapshot);
    struct slice roots = snapshot_blob(p->snapshot, "upstream-ca");
    struct err err = {0};
    SSL_CTX_free(p->parent_tls);
    p->parent_tls = NULL;
    if (p->keeper && keeper_link_set(p->keeper, p->snapshot, &err) < 0)
        diag(DIAG_ALARM, "what is to be inspected is refused: %s", err.text);
    if (!roots.ptr)
        roots = snapshot_blob(p->snapshot, "system-roots");
    if (!set->parent_url || !slice_starts_with(slice_str(set->parent_url), "https://"))
        return;
    p->parent_tls = tls_client_context(roots.ptr ? roots : slice_of("", 0), &err);
    if (!p->parent_tls)
        diag(DIAG_ALARM, "TLS towards the parent proxy is not possible: %s", err.text);
}

struct proxy *
proxy_new(const struct proxy_options *o)
{
    struct proxy *p = mem_zalloc(sizeof *p);
    p->loop = o->loop;
    p->snapshot = snapshot_ref(o->snapshot);
    p->journal = o->journal;
    p->shared = o->shared;
    p->worker = o->worker;
    p->keeper = o->keeper;
    p->connections_max = o->connections_max;
    p->scratch = mem_alloc(PROXY_SCRATCH);
    p->splicer = splicer_new();
    list_init(&p->old_resolvers);
    list_init(&p->ports);
    list_init(&p->clients);
    for (size_t i = 0; i < PROXY_WHEEL; i++)
        list_init(&p->wheel[i]);
    p->wheel_tick = loop_now_ms(p->loop) / PROXY_TICK_MS;
    list_init(&p->dns);
    p->pool = pool_new(p->loop);
    replace_resolver(p);
    replace_trust(p);
    (void)wall_clock_jumped(p);
    await_tick(p);
    return p;
}

static void
free_port(struct port *port)
{
    listener_free(port->listener);
    dgram_free(port->dgram);
    SSL_CTX_free(port->tls);
    free(port->name);
    free(port);
}

void
proxy_free(struct proxy *p)
{
    if (!p)
        return;
    proxy_stop(p);
    timer_stop(&p->tick);
    loop_cancel(p->loop, &p->idle_check);
    while (!list_empty(&p->ports)) {
        struct port *port = list_entry(list_first(&p->ports), struct port, node);
        list_remove(&p->ports, &port->node);
        free_port(port);
    }
    names_free(p->names);
    SSL_CTX_free(p->parent_tls);
    keeper_link_free(p->keeper);
    pool_free(p->pool);
    resolver_free(p->resolver);
    while (!list_empty(&p->old_resolvers)) {
        struct old_resolver *old = list_entry(list_first(&p->old_resolvers), struct old_resolver, node);
        list_remove(&p->old_resolvers, &old->node);
        resolver_free(old->resolver);
        free(old);
    }
    snapshot_unref(p->snapshot);
    free(p->resolver_servers);
    splicer_free(p->splicer);
    free(p->scratch);
    free(p);
}

static const struct listener_settings *
listener_named(const struct snapshot *s, const char *name)
{
    const struct settings *set = snapshot_settings(s);
    for (size_t i = 0; i < set->listener_count; i++)
        if (strcmp(set->listeners[i].name, name) == 0)
            return &set->listeners[i];
    return NULL;
}

bool
has_port(const uint16_t *ports, size_t n, uint16_t port)
{
    for (size_t i = 0; i < n; i++)
        if (ports[i] == port)
            return true;
    return false;
}

size_t
proxy_connections(const struct proxy *p)
{
    return p->clients.count + p->dns.count + p->tunnels;
}

static void
pause_ports(struct proxy *p, bool pause)
{
    for (struct list_node *n = list_first(&p->ports); n; n = list_next(&p->ports, n)) {
        struct port *port = list_entry(n, struct port, node);
        if (!port->listener || port->paused == pause)
            continue;
        port->paused = pause;
        if (pause)
            listener_pause(port->listener);
        else
            listener_resume(port->listener);
    }
}

static void
on_accept(void *owner, int fd, const struct sockaddr *from)
{
    struct port *port = owner;
    struct proxy *p = port->proxy;
    shared_add(p->shared, COUNTER_ACCEPTED, 1);
    if (port->settings->kind == LISTENER_DNS)
        responder_accept_tcp(port, fd);
    else
        client_accept(port, fd, from);
    if (p->connections_max && proxy_connections(p) >= p->connections_max)
        pause_ports(p, true);
}

static struct slice
port_blob(const struct snapshot *s, const char *kind, const char *name)
{
    cleanup_free char *key = mem_printf("%s/%s", kind, name);
    struct slice bytes = snapshot_blob(s, key);
    return bytes.ptr ? bytes : slice_of("", 0);
}

static int
load_port_tls(struct port *port, struct err *err)
{
    const struct snapshot *s = port->proxy->snapshot;
    if (!port->settings->tls_cert)
        return 0;
    port->tls = tls_server_context(port_blob(s, "tls-cert", port->name), port_blob(s, "tls-key", port->name),
                                   port_blob(s, "tls-client-ca", port->name), err);
    return port->tls ? 0 : err_wrap(err, "listener %s", port->name);
}

/* What the socket is tells apart the two forms of DNS: queries over UDP come as datagrams. */
static void
attach(struct port *port, int fd, bool exclusive)
{
    struct proxy *p = port->proxy;
    int type = SOCK_STREAM;
    socklen_t len = sizeof type;
    (void)getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len);
    if (port->settings->kind == LISTENER_DNS && !p->names)
        p->names = names_new(p->worker);
    if (port->settings->kind == LISTENER_WATCH)
        watch_listen(port, fd);
    else if (port->settings->kind == LISTENER_DNS && type == SOCK_DGRAM)
        responder_listen_udp(port, fd);
    else
        port->listener = listener_new(p->loop, fd, exclusive, on_accept, port);
}

int
proxy_listen(struct proxy *p, const char *name, int fd, bool exclusive, struct err *err)
{
    const struct listener_settings *set = listener_named(p->snapshot, name);
    if (!set)
        return err_invalid(err, "listener %s is not in the configuration", name);
    struct port *port = mem_zalloc(sizeof *port);
    port->proxy = p;
    port->settings = set;
    port->name = mem_strdup(name);
    if (load_port_tls(port, err) < 0) {
        free_port(port);
        return -1;
    }
    list_append(&p->ports, &port->node);
    attach(port, fd, exclusive);
    return 0;
}

struct slice
port_token(const struct port *port, const struct snapshot *s)
{
    cleanup_free char *key = mem_printf("listener-token/%s", port->name);
    struct slice token = slice_trim_ows(snapshot_blob(s, key));
    while (token.len && (token.ptr[token.len - 1] == '\n' || token.ptr[token.len - 1] == '\r'))
        token.len--;
    return token;
}

struct identity *
port_identity(struct port *port)
{
    struct proxy *p = port->proxy;
    struct slice token = port_token(port, p->snapshot);
    struct presentation from = {.listener = port->name};
    struct identity *id = NULL;
    bool cached;
    if (token.ptr)
        (void)verifier_check(snapshot_verifier(p->snapshot), token, &from, loop_wall_us(p->loop) / 1000000, &id, &cached);
    return id;
}

void
proxy_set_snapshot(struct proxy *p, struct snapshot *snapshot)
{
    struct snapshot *old = p->snapshot;
    p->snapshot = snapshot_ref(snapshot);
    for (struct list_node *n = list_first(&p->ports); n; n = list_next(&p->ports, n)) {
        struct port *port = list_entry(n, struct port, node);
        const struct listener_settings *set = listener_named(snapshot, port->name);
        struct err err = {0};
        SSL_CTX *before = port->tls;
        port->settings = set ? set : port->settings;
        port->tls = NULL;
        if (load_port_tls(port, &err) < 0) {
            diag(DIAG_ALARM, "the certificate of a listener cannot be used, the old one stays: %s", err.text);
            port->tls = before;
        } else {
            SSL_CTX_free(before);
        }
    }
    replace_resolver(p);
    replace_trust(p);
    pool_flush(p->pool);
    journal_set(p->journal, snapshot_settings(snapshot)->durability, snapshot_settings(snapshot)->record_format);
    recheck(p, PROXY_WHEEL, true);
    snapshot_unref(old);
}

size_t
proxy_exchanges(const struct proxy *p)
{
    return p->exchanges;
}

static void
check_idle(void *arg)
{
    struct proxy *p = arg;
    if (p->draining && p->on_idle && p->exchanges == 0 && list_empty(&p->clients)) {
        void (*on_idle)(void *) = p->on_idle;
        p->on_idle = NULL;
        on_idle(p->on_idle_arg);
    }
}

void
proxy_settle(struct proxy *p)
{
    if (!p->connections_max || proxy_connections(p) < p->connections_max)
        pause_ports(p, false);
    if (p->draining && p->on_idle) {
        loop_cancel(p->loop, &p->idle_check);
        loop_defer(p->loop, &p->idle_check, check_idle, p);
    }
}

/* Connections that wait for a head with nothing in hand have nothing to lose. */
static void
close_idle_clients(struct proxy *p)
{
    struct list_node *next;
    for (struct list_node *n = list_first(&p->clients); n; n = next) {
        next = list_next(&p->clients, n);
        struct client *c = list_entry(n, struct client, node);
        if (c->state == CLIENT_READ_HEAD && c->requests > 0 && buf_len(&c->in) == 0)
            client_free(c);
    }
}

void
proxy_drain(struct proxy *p, void (*on_idle)(void *arg), void *arg)
{
    p->draining = true;
    p->on_idle = on_idle;
    p->on_idle_arg = arg;
    for (struct list_node *n = list_first(&p->ports); n; n = list_next(&p->ports, n)) {
        struct port *port = list_entry(n, struct port, node);
        listener_free(steal(&port->listener));
    }
    close_idle_clients(p);
    pool_flush(p->pool);
    proxy_settle(p);
}

void
proxy_stop(struct proxy *p)
{
    p->draining = true;
    responder_close_all(p);
    for (struct exchange *x; (x = first_exchange(p));) {
        struct client *c = x->client;
        exchange_finish(x, "shutdown");
        if (c)
            client_free(c);
    }
    while (!list_empty(&p->clients))
        client_free(list_entry(list_first(&p->clients), struct client, node));
}
