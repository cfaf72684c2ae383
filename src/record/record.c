/* One event to one draft line of JSON. Every request passes here at least twice, so that members
 * are put by hand into a fixed scratch line; whatever bytes a client sends, what comes out is
 * printable ASCII without a raw quote. Opens nothing, keeps nothing between calls. No token, header
 * value or body is ever among its inputs. */
#include "sallyport/record/record.h"

#include <string.h>

#include "sallyport/base/clock.h"
#include "sallyport/base/encoding.h"

/* `{`, `,"seq":18446744073709551615`, prev, hash, `}` and newline are put around a draft by the
 * chain. */
#define CHAIN_OVERHEAD 256
#define DRAFT_MAX (RECORD_LINE_MAX - CHAIN_OVERHEAD)
/* A record of nothing but escapes is written again with texts cut here: 25 of them with 6 bytes a
 * byte always fit, so that no input is too hostile to be recorded. */
#define FIELD_MAX_TIGHT 96
#define ADDRESSES_MAX 64 /* as many as the resolver accepts for one name */
#define OCSF_VERSION "1.3.0"
#define OCSF_CLASS 4002 /* HTTP Activity, category 4 (Network Activity) */

struct writer {
    char *at;
    char *end;
    size_t field_max;
    bool full;
};

#define PUT(w, literal) put(w, literal, sizeof literal - 1)
/* What a text that is not set becomes. */
enum absent { LEAVE_OUT, WRITE_NULL };

static void
put(struct writer *w, const char *bytes, size_t len)
{
    if ((size_t)(w->end - w->at) < len) {
        w->full = true;
        return;
    }
    memcpy(w->at, bytes, len);
    w->at += len;
}

static void
put_uint(struct writer *w, uint64_t value)
{
    char digits[DECIMAL_MAX];
    put(w, digits, decimal_encode(value, digits));
}

static void
put_int(struct writer *w, int64_t value)
{
    if (value < 0)
        PUT(w, "-");
    put_uint(w, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

/* The text behind its opening quote, run by run, and the closing one; true when it was cut. */
static bool
put_string_rest(struct writer *w, struct slice s)
{
    bool cut = s.len > w->field_max;
    if (cut)
        s.len = w->field_max;
    while (s.len) {
        size_t plain = json_plain_run(s);
        put(w, s.ptr, plain);
        if (plain == s.len)
            break;
        char escape[JSON_ESCAPE_MAX];
        put(w, escape, json_escape((unsigned char)s.ptr[plain], escape));
        s = slice_of(s.ptr + plain + 1, s.len - plain - 1);
    }
    PUT(w, "\"");
    return cut;
}

/* key is `,"name":"`. Inline: the compiler knows its length, and writes it without a call. */
static inline void
put_text(struct writer *w, const char *key, size_t key_len, struct slice s, enum absent absent)
{
    if (!s.ptr) {
        if (absent == WRITE_NULL) {
            put(w, key, key_len - 1);
            PUT(w, "null");
        }
        return;
    }
    put(w, key, key_len);
    if (put_string_rest(w, s)) {
        put(w, key, key_len - 3);
        PUT(w, "_truncated\":true");
    }
}

#define TEXT(w, name, value, absent) put_text(w, ",\"" name "\":\"", sizeof name + 4, value, absent)
#define NUMBER(w, name, value) (PUT(w, ",\"" name "\":"), put_uint(w, value))

static void
put_addresses(struct writer *w, const struct record *r)
{
    size_t count = r->address_count < ADDRESSES_MAX ? r->address_count : ADDRESSES_MAX;
    PUT(w, ",\"addresses\":[");
    for (size_t i = 0; i < count; i++) {
        char text[ADDR_TEXT_SIZE];
        addr_format(&r->addresses[i], text);
        if (i > 0)
            PUT(w, ",");
        PUT(w, "\"");
        put(w, text, strlen(text));
        PUT(w, "\"");
    }
    PUT(w, "]");
    if (count < r->address_count)
        PUT(w, ",\"addresses_truncated\":true");
}

static void
put_port(struct writer *w, const struct record *r, enum absent absent)
{
    if (r->port)
        NUMBER(w, "port", r->port);
    else if (absent == WRITE_NULL)
        PUT(w, ",\"port\":null");
}

static void
put_verdict(struct writer *w, const struct record *r)
{
    if (r->event == RECORD_DECISION || r->has_decision) {
        if (r->allow)
            PUT(w, ",\"decision\":\"allow\"");
        else
            PUT(w, ",\"decision\":\"deny\"");
        if (r->would_deny)
            PUT(w, ",\"would\":\"deny\"");
    }
    if (r->reason != REASON_UNDECIDED)
        TEXT(w, "reason", slice_str(reason_text(r->reason)), LEAVE_OUT);
}

static void
put_outcome(struct writer *w, const struct record *r)
{
    enum absent absent = r->event == RECORD_CLOSE ? WRITE_NULL : LEAVE_OUT;
    TEXT(w, "address", r->address, absent);
    if (r->status)
        NUMBER(w, "status", r->status);
    TEXT(w, "sni", r->sni, absent);
    if (r->event == RECORD_CLOSE) {
        NUMBER(w, "bytes_up", r->bytes_up);
        NUMBER(w, "bytes_down", r->bytes_down);
        PUT(w, ",\"duration_ms\":");
        put_int(w, r->duration_ms);
    }
    TEXT(w, "cause", r->cause, absent);
}

/* The members of our own, in the order of the documentation, each with a comma in front; the caller
 * takes the first comma off where an object begins. */
static void
put_members(struct writer *w, const struct record *r)
{
    enum absent decision = r->event == RECORD_DECISION ? WRITE_NULL : LEAVE_OUT;
    enum absent either = r->event == RECORD_CLOSE ? WRITE_NULL : decision;
    const char *event = record_event_text(r->event);
    PUT(w, ",\"event\":\"");
    put(w, event, strlen(event));
    PUT(w, "\"");
    TEXT(w, "id", r->id, LEAVE_OUT);
    TEXT(w, "parent", r->parent, LEAVE_OUT);
    TEXT(w, "sandbox", r->sandbox, either);
    TEXT(w, "session", r->session, decision);
    TEXT(w, "org", r->org, decision);
    TEXT(w, "jti", r->jti, decision);
    TEXT(w, "policy", r->policy, decision);
    TEXT(w, "policy_sha256", r->policy_sha256, decision);
    TEXT(w, "client", r->client, decision);
    TEXT(w, "listener", r->listener, decision);
    TEXT(w, "entry", r->entry, decision);
    TEXT(w, "method", r->method, decision);
    TEXT(w, "scheme", r->scheme, decision);
    TEXT(w, "host", r->host, either);
    put_port(w, r, either);
    TEXT(w, "path", r->path, decision);
    put_verdict(w, r);
    TEXT(w, "rule", r->rule, decision);
    TEXT(w, "source", r->source, decision);
    if (r->event == RECORD_DECISION || r->address_count > 0)
        put_addresses(w, r);
    if (r->event == RECORD_DECISION || r->inspect)
        put(w, r->inspect ? ",\"inspect\":true" : ",\"inspect\":false", r->inspect ? 15 : 16);
    put_outcome(w, r);
    if (r->extra.len > 0) {
        PUT(w, ",");
        put(w, r->extra.ptr, r->extra.len);
    }
}

/* OCSF activity_id of HTTP Activity. */
static unsigned
ocsf_activity(struct slice method)
{
    static const char *const names[] = {"CONNECT", "DELETE", "GET", "HEAD",
                                        "OPTIONS", "POST",   "PUT", "TRACE"};
    if (!method.ptr)
        return 0; /* unknown */
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (slice_is(method, names[i]))
            return i + 1;
    }
    return 99; /* other */
}

/* An object whose members all may be absent: `"name":{…}`. The first member's comma becomes the
 * brace. */
static char *
open_object(struct writer *w, const char *key, size_t key_len)
{
    put(w, key, key_len);
    return w->at;
}

static void
close_object(struct writer *w, char *first)
{
    if (w->at == first)
        PUT(w, "{");
    else if (!w->full)
        *first = '{';
    PUT(w, "}");
}

#define OPEN(w, name) open_object(w, ",\"" name "\":", sizeof name + 3)

/* "10.0.0.7:51234" or "[::1]:80" to its two halves; anything else is a name without a port. */
static struct slice
split_client(struct slice client, struct slice *ret_port)
{
    *ret_port = slice_of(NULL, 0);
    for (size_t i = client.len; i-- > 0;) {
        if (client.ptr[i] == ']')
            break;
        if (client.ptr[i] == ':') {
            *ret_port = slice_of(client.ptr + i + 1, client.len - i - 1);
            client.len = i;
            break;
        }
    }
    if (client.len >= 2 && client.ptr[0] == '[' && client.ptr[client.len - 1] == ']')
        client = slice_of(client.ptr + 1, client.len - 2);
    return client;
}

static void
put_ocsf_endpoints(struct writer *w, const struct record *r)
{
    struct slice port_text, ip = r->client.ptr ? split_client(r->client, &port_text) : r->client;
    unsigned long long port;
    char *src = OPEN(w, "src_endpoint");
    TEXT(w, "ip", ip, LEAVE_OUT);
    if (ip.ptr && slice_parse_uint(port_text, 65535, &port))
        NUMBER(w, "port", port);
    close_object(w, src);
    char *dst = OPEN(w, "dst_endpoint");
    TEXT(w, "hostname", r->host, LEAVE_OUT);
    TEXT(w, "ip", r->address, LEAVE_OUT);
    put_port(w, r, LEAVE_OUT);
    close_object(w, dst);
}

static void
put_ocsf_request(struct writer *w, const struct record *r)
{
    char *request = OPEN(w, "http_request");
    TEXT(w, "uid", r->id, LEAVE_OUT);
    TEXT(w, "http_method", r->method, LEAVE_OUT);
    char *url = OPEN(w, "url");
    TEXT(w, "scheme", r->scheme, LEAVE_OUT);
    TEXT(w, "hostname", r->host, LEAVE_OUT);
    put_port(w, r, LEAVE_OUT);
    TEXT(w, "path", r->path, LEAVE_OUT);
    close_object(w, url);
    close_object(w, request);
    if (r->status) {
        PUT(w, ",\"http_response\":{\"code\":");
        put_uint(w, r->status);
        PUT(w, "}");
    }
    if (r->sandbox.ptr) {
        PUT(w, ",\"actor\":{");
        char *user = open_object(w, "\"user\":", 7);
        TEXT(w, "uid", r->sandbox, LEAVE_OUT);
        close_object(w, user);
        PUT(w, "}");
    }
}

static void
put_ocsf(struct writer *w, const struct record *r)
{
    unsigned activity = ocsf_activity(r->method);
    bool judged = r->event == RECORD_DECISION || r->has_decision;
    NUMBER(w, "activity_id", activity);
    PUT(w, ",\"category_uid\":4,\"class_uid\":4002");
    NUMBER(w, "type_uid", OCSF_CLASS * 100u + activity);
    PUT(w, ",\"time\":");
    put_int(w, r->wall_us / 1000);
    put(w, judged && !r->allow ? ",\"severity_id\":2" : ",\"severity_id\":1", 16);
    PUT(w, ",\"metadata\":{\"version\":\"" OCSF_VERSION
           "\",\"product\":{\"name\":\"sallyport\",\"vendor_name\":\"sallyport\","
           "\"version\":\"" SALLYPORT_VERSION "\"}}");
    if (judged && r->allow)
        PUT(w, ",\"disposition_id\":1,\"disposition\":\"Allowed\",\"status_id\":1");
    else if (judged)
        PUT(w, ",\"disposition_id\":2,\"disposition\":\"Blocked\",\"status_id\":2");
    if (r->reason != REASON_UNDECIDED)
        TEXT(w, "status_code", slice_str(reason_text(r->reason)), LEAVE_OUT);
    put_ocsf_request(w, r);
    put_ocsf_endpoints(w, r);
    char *unmapped = OPEN(w, "unmapped");
    put_members(w, r);
    close_object(w, unmapped);
}

static bool
is_printable(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < 0x20 || s.ptr[i] > 0x7e)
            return false;
    }
    return true;
}

/* Length of the draft in scratch, or 0 when it does not fit. */
static size_t
write_draft(char *scratch, enum record_format format, const struct record *r, size_t field_max)
{
    char ts[CLOCK_TEXT_SIZE];
    struct writer w = {.at = scratch, .end = scratch + DRAFT_MAX, .field_max = field_max};
    clock_format_utc(r->wall_us, ts);
    PUT(&w, "\"ts\":\"");
    put(&w, ts, CLOCK_TEXT_SIZE - 1);
    PUT(&w, "\"");
    switch (format) {
    case RECORD_JSONL:
        put_members(&w, r);
        break;
    case RECORD_OCSF:
        put_ocsf(&w, r);
        break;
    }
    return w.full ? 0 : (size_t)(w.at - scratch);
}

bool
record_draft(struct buf *out, enum record_format format, const struct record *r)
{
    static char scratch[DRAFT_MAX]; /* one thread a process; what is thread-local is written at every start */
    if (r->event == RECORD_NONE || !is_printable(r->extra))
        return false;
    size_t len = write_draft(scratch, format, r, RECORD_FIELD_MAX);
    if (len == 0)
        len = write_draft(scratch, format, r, FIELD_MAX_TIGHT);
    return len > 0 && buf_append(out, scratch, len);
}

bool
record_fold_key(struct buf *out, const struct record *r)
{
    char text[3 * (RECORD_FIELD_MAX * 6 + 32)];
    struct writer w = {.at = text, .end = text + sizeof text, .field_max = RECORD_FIELD_MAX};
    struct slice port; /* another port is the same client */
    if (r->sandbox.ptr)
        TEXT(&w, "sandbox", r->sandbox, LEAVE_OUT);
    else
        TEXT(&w, "client", r->client.ptr ? split_client(r->client, &port) : r->client, WRITE_NULL);
    TEXT(&w, "reason", slice_str(reason_text(r->reason)), LEAVE_OUT);
    TEXT(&w, "host", r->host, WRITE_NULL);
    /* Attempts to go around the gate are told apart by protocol, and from refused requests. */
    if (r->event == RECORD_BYPASS && r->extra.len && is_printable(r->extra))
        return !w.full && buf_append(out, text + 1, (size_t)(w.at - text) - 1) && buf_append_str(out, ",") && buf_append_slice(out, r->extra);
    /* Without the comma of the first member. */
    return !w.full && buf_append(out, text + 1, (size_t)(w.at - text) - 1);
}

static const char *const event_texts[] = {
    [RECORD_NONE] = "none",           [RECORD_RESOLVE] = "resolve",
    [RECORD_DECISION] = "decision",   [RECORD_CLOSE] = "close",
    [RECORD_CHALLENGE] = "challenge", [RECORD_REPEATED] = "repeated",
    [RECORD_RELOAD] = "reload",       [RECORD_REVOKE] = "revoke",
    [RECORD_START] = "start",         [RECORD_STOP] = "stop",
    [RECORD_BYPASS] = "bypass",       [RECORD_CHECKPOINT] = "checkpoint",
};
#define EVENT_COUNT (sizeof event_texts / sizeof event_texts[0])

const char *
record_event_text(enum record_event e)
{
    return (unsigned)e < EVENT_COUNT ? event_texts[e] : event_texts[RECORD_NONE];
}

/* rest begins behind the time. Raw quotes stand only where JSON puts them, so that these bytes
 * cannot be part of a client's text. */
static enum record_event
event_of(struct slice rest)
{
    static const char own[] = ",\"event\":\"", mapped[] = ",\"unmapped\":{\"event\":\"";
    size_t key_len = sizeof own - 1;
    const char *at = rest.ptr;
    if (!slice_starts_with(rest, own)) {
        at = memmem(rest.ptr, rest.len, mapped, sizeof mapped - 1);
        key_len = sizeof mapped - 1;
    }
    if (!at)
        return RECORD_NONE;
    at += key_len;
    struct slice behind,
        name = slice_split(slice_of(at, rest.len - (size_t)(at - rest.ptr)), '"', &behind);
    for (unsigned e = RECORD_NONE + 1; behind.ptr && e < EVENT_COUNT; e++) {
        if (slice_is(name, event_texts[e]))
            return (enum record_event)e;
    }
    return RECORD_NONE;
}

enum record_event
record_draft_event(struct slice draft)
{
    if (draft.len <= RECORD_TS_LEN)
        return RECORD_NONE;
    return event_of(slice_of(draft.ptr + RECORD_TS_LEN, draft.len - RECORD_TS_LEN));
}

enum record_event
record_line_event(struct slice line)
{
    static const char seq[] = ",\"seq\":";
    size_t at = 1 + RECORD_TS_LEN;
    if (line.len <= at || !slice_starts_with(slice_of(line.ptr + at, line.len - at), seq))
        return RECORD_NONE;
    at += sizeof seq - 1;
    while (at < line.len && line.ptr[at] >= '0' && line.ptr[at] <= '9')
        at++;
    return event_of(slice_of(line.ptr + at, line.len - at));
}
