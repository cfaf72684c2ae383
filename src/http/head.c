/* Heads of HTTP/1.x: the strict byte check (scan.c), then llhttp over the whole head, then what RFC
 * 9112 says about the fields together. Three readers see every head, and where two of them disagree
 * about it (how many fields there are, how the body is framed) it is refused: a head that can be
 * read in two ways is what request smuggling is made of. Nothing is repaired here, and nothing is
 * copied: the slices point into the caller's bytes. */
#include "sallyport/http/head.h"

#include <llhttp.h>

#include "sallyport/http/chars.h"
#include "sallyport/http/websocket.h"

#define CONTENT_LENGTH_MAX 0x7fffffffffffffffULL
/* Members of all Connection fields together. Each is compared with each field when a head is passed
 * on. */
#define CONNECTION_MEMBERS_MAX 64

/* What llhttp's callbacks fill. */
struct reading {
    struct head *head;
    size_t capacity;  /* of head->fields: the lines that the scan counted */
    bool value_begun; /* the last field has its value, so the next name begins another field */
    bool ended;       /* on_headers_complete has been called */
};

/* llhttp gives a span in one piece or in several that touch each other. */
static int
extend(struct slice *s, const char *at, size_t len)
{
    if (!s->ptr)
        *s = slice_of(at, len);
    else if (s->ptr + s->len == at)
        s->len += len;
    else
        return -1;
    return 0;
}

static int
on_url(llhttp_t *parser, const char *at, size_t len)
{
    struct reading *r = parser->data;
    return extend(&r->head->target, at, len);
}

static int
on_status(llhttp_t *parser, const char *at, size_t len)
{
    struct reading *r = parser->data;
    return extend(&r->head->phrase, at, len);
}

static int
on_header_field(llhttp_t *parser, const char *at, size_t len)
{
    struct reading *r = parser->data;
    struct head *head = r->head;
    if (head->field_count == 0 || r->value_begun) {
        if (head->field_count == r->capacity)
            return -1;
        head->field_count++;
        r->value_begun = false;
    }
    return extend(&head->fields[head->field_count - 1].name, at, len);
}

static int
on_header_value(llhttp_t *parser, const char *at, size_t len)
{
    struct reading *r = parser->data;
    r->value_begun = true;
    return extend(&r->head->fields[r->head->field_count - 1].value, at, len);
}

static int
on_header_value_complete(llhttp_t *parser)
{
    struct reading *r = parser->data;
    r->value_begun = true;
    return 0;
}

/* Stops llhttp behind the head: bodies are not its business here. */
static int
on_headers_complete(llhttp_t *parser)
{
    struct reading *r = parser->data;
    r->ended = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_status = on_status,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_header_value_complete = on_header_value_complete,
    .on_headers_complete = on_headers_complete,
};

/* Has llhttp come to the end of the head, exactly there, and found as many fields as the scan? */
static bool
reading_done(llhttp_t *parser, struct reading *r, struct slice head)
{
    if (!r->ended || llhttp_get_errno(parser) != HPE_PAUSED || r->head->field_count != r->capacity)
        return false;
    const char *at = llhttp_get_error_pos(parser), *end = head.ptr + head.len;
    /* It pauses on the last byte or behind it. */
    if (at != end && at != end - 1)
        return false;
    for (size_t i = 0; i < r->head->field_count; i++)
        r->head->fields[i].value = slice_trim_ows(r->head->fields[i].value);
    return true;
}

/* The methods that llhttp is told as they are. It knows some thirty more and refuses all others,
 * but which methods are forwarded is the policy's to say; so it gets POST in their place, which it
 * treats as it treats them: no special form of the target, a body when the fields say so. */
static bool
is_standard_method(struct slice method)
{
    static const struct slice names[] = {
        SLICE_LITERAL("GET"),   SLICE_LITERAL("HEAD"),   SLICE_LITERAL("POST"),    SLICE_LITERAL("PUT"),
        SLICE_LITERAL("PATCH"), SLICE_LITERAL("DELETE"), SLICE_LITERAL("OPTIONS"), SLICE_LITERAL("CONNECT")};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (slice_equal(method, names[i]))
            return true;
    return false;
}

enum reason
method_check(struct slice method)
{
    if (is_standard_method(method))
        return REASON_OK;
    if (slice_equal_nocase(method, slice_str("TRACE")) ||
        slice_equal_nocase(method, slice_str("TRACK")))
        return REASON_METHOD_UNSUPPORTED;
    return REASON_METHOD_UNKNOWN;
}

static bool
read_request(llhttp_t *parser, struct reading *r, struct slice head)
{
    struct slice rest, method = slice_split(head, ' ', &rest);
    struct slice given = is_standard_method(method) ? method : slice_str("POST");
    r->head->method = method;
    llhttp_init(parser, HTTP_REQUEST, &settings);
    parser->data = r;
    if (llhttp_execute(parser, given.ptr, given.len) != HPE_OK)
        return false;
    llhttp_execute(parser, head.ptr + method.len, head.len - method.len);
    return reading_done(parser, r, head) && r->head->target.len > 0;
}

static bool
read_response(llhttp_t *parser, struct reading *r, struct slice head)
{
    llhttp_init(parser, HTTP_RESPONSE, &settings);
    parser->data = r;
    llhttp_execute(parser, head.ptr, head.len);
    return reading_done(parser, r, head) && llhttp_get_status_code(parser) == r->head->status;
}

/* The scan again, over the whole: the callers have done it while the bytes came, but nothing below
 * is safe without it. */
static enum head_scan_status
check_bytes(struct slice head, bool response, size_t *ret_lines)
{
    struct head_scan scan = {.response = response};
    enum head_scan_status status = head_scan(&scan, head, head.len);
    if (status == HEAD_SCAN_COMPLETE && (scan.start != 0 || scan.end != head.len))
        return HEAD_SCAN_MALFORMED;
    *ret_lines = scan.lines;
    return status;
}

/* True when llhttp's idea of the framing is ours. */
static bool
framing_agrees(const llhttp_t *parser, size_t length_fields, uint64_t length, bool chunked)
{
    if (((parser->flags & F_CHUNKED) != 0) != chunked ||
        ((parser->flags & F_CONTENT_LENGTH) != 0) != (length_fields == 1))
        return false;
    return length_fields == 0 || parser->content_length == length;
}

struct slice
head_field_named(const struct head *head, struct slice name, size_t *ret_count)
{
    struct slice first = {NULL, 0};
    *ret_count = 0;
    for (size_t i = 0; i < head->field_count; i++)
        if (slice_equal_nocase(head->fields[i].name, name) && (*ret_count)++ == 0)
            first = head->fields[i].value;
    return first;
}

bool
field_list_next(struct slice *list, struct slice *ret_member)
{
    while (list->ptr) {
        struct slice rest, member = slice_trim_ows(slice_split(*list, ',', &rest));
        *list = rest;
        if (member.len) {
            *ret_member = member;
            return true;
        }
    }
    return false;
}

bool
head_has_token(const struct head *head, const char *name, const char *token)
{
    for (size_t i = 0; i < head->field_count; i++) {
        struct slice member, list = head->fields[i].value;
        if (!slice_equal_nocase(head->fields[i].name, slice_str(name)))
            continue;
        while (field_list_next(&list, &member))
            if (slice_equal_nocase(member, slice_str(token)))
                return true;
    }
    return false;
}

/* Fields in which a byte above 0x7f has no meaning, and in which some parsers strip or fold it. */
static bool
field_is_ascii_only(struct slice name)
{
    static const struct slice names[] = {
        SLICE_LITERAL("Host"),           SLICE_LITERAL("Transfer-Encoding"),
        SLICE_LITERAL("Content-Length"), SLICE_LITERAL("Proxy-Authorization"),
        SLICE_LITERAL("Connection"),     SLICE_LITERAL("Expect"),
        SLICE_LITERAL("Upgrade"),        SLICE_LITERAL("Sec-WebSocket-Key")};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (slice_equal_nocase(name, names[i]))
            return true;
    return false;
}

/* `Content_Length` and the like: to a CGI-style server (RFC 3875 section 4.1.18) they are the same
 * as with hyphens. */
static bool
field_is_disguised(struct slice name)
{
    static const char *const names[] = {"Transfer-Encoding", "Content-Length",
                                        "Proxy-Authorization"};
    if (!slice_has_byte(name, '_'))
        return false;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct slice real = slice_str(names[i]);
        size_t at = 0;
        while (at < name.len && at < real.len &&
               ((name.ptr[at] | 0x20) == (real.ptr[at] | 0x20) ||
                (name.ptr[at] == '_' && real.ptr[at] == '-')))
            at++;
        if (at == name.len && at == real.len)
            return true;
    }
    return false;
}

/* Connection is a list of field names and options (RFC 9110 section 7.6.1); what is no token could
 * be read as either. */
static bool
connection_is_list(struct slice value, size_t *members)
{
    struct slice member;
    while (field_list_next(&value, &member))
        if (!chars_all(member, CHAR_TOKEN) || ++*members > CONNECTION_MEMBERS_MAX)
            return false;
    return true;
}

static bool
check_fields(const struct head *head)
{
    size_t members = 0;
    for (size_t i = 0; i < head->field_count; i++) {
        const struct field *f = &head->fields[i];
        if (field_is_disguised(f->name))
            return false;
        if (field_is_ascii_only(f->name) && chars_has_obs_text(f->value))
            return false;
        if (slice_equal_nocase(f->name, slice_str("Connection")) &&
            !connection_is_list(f->value, &members))
            return false;
    }
    return true;
}

/* RFC 9112 section 3.2. What the value means is target_check_host_field's business. */
static bool
check_host(const struct head *head)
{
    size_t count;
    struct slice host = head_field(head, "Host", &count);
    return count == 1 ? host.len > 0 : count == 0 && head->minor == 0;
}

/* Transfer-Encoding: is it `chunked` (REASON_OK), another coding that could be meant (501), or no
 * list of codings? */
static enum reason
check_coding(struct slice value)
{
    struct slice rest = value;
    bool chunked = false;
    if (slice_equal_nocase(value, slice_str("chunked")))
        return REASON_OK;
    if (value.len == 0)
        return REASON_REQUEST_MALFORMED;
    while (rest.ptr) {
        struct slice member = slice_trim_ows(slice_split(rest, ',', &rest));
        for (size_t i = 0; i < member.len; i++)
            if (!char_is(member.ptr[i], CHAR_LABEL) || member.ptr[i] == '_')
                return REASON_REQUEST_MALFORMED;
        if (member.len == 0 ||
            chunked) /* chunked is the last coding, once (RFC 9112 section 6.1) */
            return REASON_REQUEST_MALFORMED;
        chunked = slice_equal_nocase(member, slice_str("chunked"));
    }
    return REASON_CODING_UNSUPPORTED;
}

/* RFC 9112 section 6, as far as requests and responses have it in common: fills body and
 * content_length by the fields alone. Two fields of one name, both names at once, or anything but
 * digits: malformed. */
static enum reason
read_framing(const llhttp_t *parser, struct head *head)
{
    size_t codings, lengths;
    unsigned long long length = 0;
    struct slice coding = head_field(head, "Transfer-Encoding", &codings);
    struct slice length_text = head_field(head, "Content-Length", &lengths);
    if (codings + lengths > 1 || (codings && head->minor == 0))
        return REASON_REQUEST_MALFORMED;
    if (lengths && !slice_parse_uint(length_text, CONTENT_LENGTH_MAX, &length))
        return REASON_REQUEST_MALFORMED;
    if (codings) {
        enum reason reason = check_coding(coding);
        if (reason != REASON_OK)
            return reason;
    }
    if (!framing_agrees(parser, lengths, length, codings == 1))
        return REASON_REQUEST_MALFORMED;
    head->body = codings ? BODY_CHUNKED : lengths ? BODY_LENGTH : BODY_NONE;
    head->content_length = length;
    return REASON_OK;
}

/* RFC 9110 section 10.1.1. HTTP/1.0 has no 100 response, and without a body there is nothing to
 * wait for. */
static enum reason
read_expect(struct head *head)
{
    size_t count;
    struct slice expect = head_field(head, "Expect", &count);
    if (count == 0)
        return REASON_OK;
    if (count > 1 || !slice_equal_nocase(expect, slice_str("100-continue")))
        return REASON_EXPECTATION_UNKNOWN;
    head->expect_continue = head->minor == 1 && head->body != BODY_NONE;
    return REASON_OK;
}

/* A CONNECT has no body and upgrades to nothing but the tunnel (RFC 9110 section 9.3.6). */
static bool
check_connect(const struct head *head)
{
    size_t upgrades;
    if (!slice_is(head->method, "CONNECT"))
        return true;
    head_field(head, "Upgrade", &upgrades);
    return head->body == BODY_NONE && upgrades == 0;
}

static enum reason
judge_request(const llhttp_t *parser, struct head *head)
{
    if (!check_fields(head) || !check_host(head))
        return REASON_REQUEST_MALFORMED;
    enum reason reason = read_framing(parser, head);
    if (reason != REASON_OK)
        return reason == REASON_CODING_UNSUPPORTED && slice_is(head->method, "CONNECT")
                   ? REASON_REQUEST_MALFORMED
                   : reason;
    if (!check_connect(head))
        return REASON_REQUEST_MALFORMED;
    reason = read_expect(head);
    if (reason != REASON_OK)
        return reason;
    /* A proxy keeps no connection of an HTTP/1.0 client open (RFC 9112 section 9.3). */
    head->persistent = head->minor == 1 && !head_has_token(head, "Connection", "close");
    head->upgrade_websocket = websocket_request_ok(head);
    return REASON_OK;
}

/* Where the parts that the scan has fixed in place stand. */
static uint8_t
minor_at(struct slice head, size_t at)
{
    return (uint8_t)(head.ptr[at] - '0');
}

enum reason
head_parse_request(struct arena *arena, struct slice bytes, struct head *ret)
{
    llhttp_t parser;
    struct head head = {.body = BODY_NONE};
    struct reading reading = {.head = &head};
    enum head_scan_status status = check_bytes(bytes, false, &reading.capacity);
    if (status != HEAD_SCAN_COMPLETE)
        return status == HEAD_SCAN_TOO_LARGE && reading.capacity > HEAD_FIELDS_MAX
                   ? REASON_REQUEST_TOO_LARGE
                   : REASON_REQUEST_MALFORMED;
    head.fields = arena_alloc(arena, (reading.capacity + 1) * sizeof(head.fields[0]));
    if (!read_request(&parser, &reading, bytes))
        return REASON_REQUEST_MALFORMED;
    /* "METHOD SP target SP HTTP/1.x": llhttp's target must be what stands between the two spaces.
     */
    size_t minor_pos = head.method.len + 1 + head.target.len + sizeof(" HTTP/1.") - 1;
    if (head.target.ptr != bytes.ptr + head.method.len + 1 || bytes.ptr[minor_pos + 1] != '\r')
        return REASON_REQUEST_MALFORMED;
    head.minor = minor_at(bytes, minor_pos);
    if (parser.http_major != 1 || parser.http_minor != head.minor)
        return REASON_REQUEST_MALFORMED;
    enum reason reason = judge_request(&parser, &head);
    if (reason == REASON_OK)
        *ret = head;
    return reason;
}

/* Answers that have no body whatever their fields say (RFC 9112 section 6.3, 1 and 2). */
static bool
answer_has_no_body(uint16_t status, struct slice method)
{
    if (status < 200 || status == 204 || status == 304 || slice_is(method, "HEAD"))
        return true;
    return slice_is(method, "CONNECT") && status < 300;
}

/* True where the fields announce a body that the status cannot have. A server that does so may send
 * it all the same, and the next answer on that connection would then be read out of it. */
static bool
announces_impossible_body(const struct head *head, enum body_kind announced, struct slice method)
{
    if (slice_is(method, "HEAD") && head->status >= 200 && head->status != 204)
        return false;
    return announced == BODY_CHUNKED || (announced == BODY_LENGTH && head->content_length > 0);
}

static bool
judge_response(const llhttp_t *parser, struct slice method, struct head *head)
{
    if (!check_fields(head) || read_framing(parser, head) != REASON_OK)
        return false;
    enum body_kind announced = head->body;
    bool close = head_has_token(head, "Connection", "close");
    head->persistent =
        head->minor == 1 ? !close : !close && head_has_token(head, "Connection", "keep-alive");
    if (answer_has_no_body(head->status, method)) {
        bool impossible = announces_impossible_body(head, announced, method);
        if (impossible && head->status < 200)
            return false;
        if (impossible || head->status == 101)
            head->persistent = false;
        head->body = BODY_NONE;
        head->content_length = 0;
    } else if (announced == BODY_NONE) {
        head->body = BODY_TO_EOF;
        head->persistent = false;
    }
    return true;
}

enum reason
head_parse_response(struct arena *arena, struct slice bytes, struct slice request_method,
                    struct head *ret)
{
    llhttp_t parser;
    struct head head = {.body = BODY_NONE};
    struct reading reading = {.head = &head};
    if (check_bytes(bytes, true, &reading.capacity) != HEAD_SCAN_COMPLETE)
        return REASON_UPSTREAM_CLOSED;
    head.fields = arena_alloc(arena, (reading.capacity + 1) * sizeof(head.fields[0]));
    /* "HTTP/1.x SP DDD": the scan has seen to it. */
    head.minor = minor_at(bytes, sizeof("HTTP/1.") - 1);
    const char *digits = bytes.ptr + sizeof("HTTP/1.x ") - 1;
    head.status = (uint16_t)((digits[0] - '0') * 100 + (digits[1] - '0') * 10 + (digits[2] - '0'));
    if (!read_response(&parser, &reading, bytes) || parser.http_major != 1 ||
        parser.http_minor != head.minor)
        return REASON_UPSTREAM_CLOSED;
    if (!judge_response(&parser, request_method, &head))
        return REASON_UPSTREAM_CLOSED;
    *ret = head;
    return REASON_OK;
}
