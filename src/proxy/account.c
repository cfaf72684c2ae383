/* Records and counters of an exchange. What is said is decided here and nowhere else; how it is written is record/record.c's. */
#include "sallyport/proxy/account.h"

#include "sallyport/base/clock.h"
#include "sallyport/base/mem.h"
#include "sallyport/proxy/inspect.h"

#define ACCOUNT_RAW_MAX 512 /* bytes of a target that has no canonical form, as shown in a record */

static struct slice
text(const char *s)
{
    return s ? slice_str(s) : slice_of(NULL, 0);
}

static struct slice
entry_text(const struct exchange *x)
{
    switch (x->kind) {
    case EXCHANGE_FORWARD:
        return slice_str("forward");
    case EXCHANGE_TRANSPARENT:
        return slice_str("transparent");
    case EXCHANGE_INNER:
        return slice_str("inspected");
    case EXCHANGE_CONNECT:
    case EXCHANGE_UNKNOWN:
        break;
    }
    return slice_str("connect");
}

/* "http" and "https" as far as they are known; a tunnel is held to one of them by its port, or is opaque. */
static struct slice
scheme_text(const struct exchange *x)
{
    const struct settings *set = snapshot_settings(x->snapshot);
    if (!x->has_target)
        return text(NULL);
    if (x->kind == EXCHANGE_INNER)
        return slice_str("https");
    if (x->kind == EXCHANGE_FORWARD || has_port(set->plain_ports, set->plain_port_count, exchange_port(x)))
        return slice_str("http");
    return text(has_port(set->tls_ports, set->tls_port_count, exchange_port(x)) ? "https" : NULL);
}

static struct slice
path_text(const struct exchange *x)
{
    if (!x->ask || (x->kind != EXCHANGE_FORWARD && x->kind != EXCHANGE_INNER) || !x->ask->path.ptr)
        return text(NULL);
    struct slice rest;
    if (snapshot_settings(x->snapshot)->record_query)
        return x->ask->path;
    return slice_split(x->ask->path, '?', &rest);
}

/* What a record names and the exchange has in another form; lives as long as the record. */
struct names {
    char id[ULID_TEXT_SIZE], parent[ULID_TEXT_SIZE];
    char client[SOCKADDR_TEXT_SIZE];
};

static void
fill_identity(const struct exchange *x, struct names *names, struct record *r)
{
    ulid_format(&x->id, names->id);
    r->id = slice_str(names->id);
    if (x->inside) {
        ulid_format(&inspect_tunnel(x->inside)->id, names->parent);
        r->parent = slice_str(names->parent);
    }
    if (!x->identity)
        return;
    r->sandbox = text(x->identity->sub);
    r->session = text(x->identity->session);
    r->org = text(x->identity->org);
    r->jti = text(x->identity->jti);
    if (x->policy) {
        r->policy = text(policy_name(x->policy));
        r->policy_sha256 = text(policy_sha256(x->policy));
    } else {
        r->policy = text(x->identity->policy_name);
    }
}

/* A target that has no canonical form is shown as sent, but for what may be a secret: userinfo, query and fragment. Where
 * one of them ends is not certain in what is malformed; nothing is shown then. */
static struct slice
shown_raw(struct slice raw)
{
    size_t len = 0, begin = 0;
    while (len < raw.len && raw.ptr[len] != '?' && raw.ptr[len] != '#')
        len++;
    for (size_t i = 0; i < raw.len; i++)
        if (raw.ptr[i] == '@')
            begin = i + 1;
    if (begin > len)
        return slice_of(NULL, 0);
    len -= begin;
    return slice_of(raw.ptr + begin, len < ACCOUNT_RAW_MAX ? len : ACCOUNT_RAW_MAX);
}

static void
fill_client(const struct exchange *x, struct names *names, struct record *r)
{
    addr_format_with_port(&x->peer, x->peer_port, names->client);
    r->client = slice_str(names->client);
}

static void
fill_target(const struct exchange *x, struct record *r)
{
    if (x->has_target) {
        r->host = exchange_host(x);
        r->port = exchange_port(x);
    } else if (x->ask && x->ask->raw_target.ptr) {
        r->host = shown_raw(x->ask->raw_target);
    }
    r->scheme = scheme_text(x);
}

uint64_t
account_resolve(struct exchange *x)
{
    struct names names;
    struct record r = {.event = RECORD_RESOLVE, .wall_us = loop_wall_us(x->proxy->loop)};
    fill_identity(x, &names, &r);
    fill_target(x, &r);
    r.rule = text(x->ask->verdict.rule);
    return journal_add(x->proxy->journal, &r, false);
}

/* As much as has room, with a terminator. */
static void
copy_text(char *out, size_t size, struct slice s)
{
    size_t len = s.len < size ? s.len : size - 1;
    memcpy(out, s.ptr, len);
    out[len] = '\0';
}

static void
count_decision(struct exchange *x, enum reason reason)
{
    struct shared *shared = x->proxy->shared;
    shared_count_request(shared, reason == REASON_OK, reason);
    int64_t took_us = x->ask ? clock_mono_us() - x->ask->started_us : (loop_now_ms(x->proxy->loop) - x->started_ms) * 1000;
    shared_observe(shared, HISTOGRAM_DECISION, took_us);
    if (reason == REASON_OK)
        return;
    struct denial d = {.wall_us = loop_wall_us(x->proxy->loop), .reason = (uint16_t)reason};
    if (x->identity)
        copy_text(d.sandbox, sizeof d.sandbox, slice_str(x->identity->sub));
    if (x->policy)
        copy_text(d.policy, sizeof d.policy, slice_str(policy_name(x->policy)));
    if (x->has_target) {
        d.port = exchange_port(x);
        copy_text(d.host, sizeof d.host, exchange_host(x));
    }
    shared_denial(shared, &d);
}

/* The addresses that were judged and will be tried. */
static size_t
fill_addresses(const struct exchange *x, struct addr *addrs, size_t max)
{
    size_t n = 0;
    if (snapshot_settings(x->snapshot)->parent_url)
        return 0; /* names go to the parent unresolved; its own address says nothing about this request */
    if (x->ask->endpoints)
        for (; n < endpoints_count(x->ask->endpoints) && n < max; n++)
            addrs[n] = endpoint_addr(endpoints_at(x->ask->endpoints, n));
    else if (x->address.family)
        addrs[n++] = x->address;
    return n;
}

uint64_t
account_decision(struct exchange *x, enum reason reason)
{
    struct addr addrs[GUARD_ANSWERS_MAX];
    struct names names;
    bool challenge = reason == REASON_TOKEN_MISSING;
    struct record r = {
        .event = challenge ? RECORD_CHALLENGE : RECORD_DECISION,
        .wall_us = loop_wall_us(x->proxy->loop),
        .allow = reason == REASON_OK,
        .would_deny = reason == REASON_OK && x->ask->verdict.would_deny,
        .reason = reason,
        .listener = text(x->port->name),
        .entry = entry_text(x),
        .method = x->ask->head.method,
        .path = path_text(x),
        .rule = text(x->ask->verdict.rule[0] ? x->ask->verdict.rule : NULL),
        .source = text(x->ask->verdict.source ? source_text(x->ask->verdict.source) : NULL),
        .addresses = addrs,
        .inspect = x->inspect || x->inside,
    };
    char original[SOCKADDR_TEXT_SIZE + 32];
    if (x->kind == EXCHANGE_TRANSPARENT && x->client && x->client->original.family) {
        char at[SOCKADDR_TEXT_SIZE];
        addr_format_with_port(&x->client->original, x->client->original_port, at);
        snprintf(original, sizeof original, "\"original\":\"%s\"", at);
        r.extra = slice_str(original);
    }
    fill_identity(x, &names, &r);
    fill_client(x, &names, &r);
    fill_target(x, &r);
    if (reason == REASON_OK)
        r.address_count = fill_addresses(x, addrs, GUARD_ANSWERS_MAX);
    count_decision(x, reason);
    x->decided = true;
    shared_add(x->proxy->shared, COUNTER_RECORDS, 1);
    return journal_add(x->proxy->journal, &r, reason != REASON_OK);
}

static struct slice
sni_text(const struct exchange *x)
{
    if (!x->named)
        return text(NULL);
    return x->sni ? slice_str(x->sni) : exchange_host(x);
}

uint64_t
account_close(struct exchange *x, const char *cause)
{
    char address[ADDR_TEXT_SIZE] = "";
    struct names names;
    if (x->address.family)
        addr_format(&x->address, address);
    struct record r = {
        .event = RECORD_CLOSE,
        .wall_us = loop_wall_us(x->proxy->loop),
        .reason = x->reason == REASON_OK ? REASON_UNDECIDED : x->reason,
        .address = text(address[0] ? address : NULL),
        .sni = sni_text(x),
        .cause = slice_str(cause),
        .status = x->status,
        .bytes_up = x->bytes_up,
        .bytes_down = x->bytes_down,
        .duration_ms = loop_now_ms(x->proxy->loop) - x->started_ms,
        .has_decision = x->denied_in_tunnel,
    };
    /* The decision record said what this side made of it; the parent's verdict came later. */
    if (x->refused_by_parent && reason_is_denial(x->reason)) {
        r.has_decision = true;
        r.source = text(source_text(SOURCE_PARENT));
    }
    if (x->inspection)
        r.extra = inspect_facts(x->inspection);
    fill_identity(x, &names, &r);
    fill_client(x, &names, &r);
    fill_target(x, &r);
    if (x->denied_in_tunnel)
        count_decision(x, x->reason);
    shared_add(x->proxy->shared, COUNTER_RECORDS, 1);
    return journal_add(x->proxy->journal, &r, x->reason != REASON_OK && reason_is_denial(x->reason) && !x->denied_in_tunnel);
}
