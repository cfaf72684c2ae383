/* Header blocks of HTTP/2, by the same classes of bytes as heads of HTTP/1, so that a message means one thing on both. The
 * library that decodes HPACK has checks of its own; where either of the two refuses, the stream is refused. */
#include "sallyport/http/h2_fields.h"

#include "sallyport/http/chars.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define FIELD_OVERHEAD 32 /* RFC 9113 section 6.5.2 */
#define CONTENT_LENGTH_MAX 0x7fffffffffffffffULL
#define FIELDS_FIRST 16 /* most requests have fewer */

struct h2_head *
h2_head_new(void)
{
    struct arena *arena = arena_new(2048);
    struct h2_head *h = arena_alloc(arena, sizeof *h);
    h->arena = arena;
    h->head.minor = 1;
    return h;
}

void
h2_head_free(struct h2_head *h)
{
    if (h)
        arena_free(h->arena);
}

struct slice
h2_head_dup(struct h2_head *h, struct slice s)
{
    return arena_dup(h->arena, s);
}

/* The arrays double; the old ones stay in the arena, which the cap on fields bounds. */
static void
make_room(struct h2_head *h)
{
    size_t n = h->head.field_count;
    if (n < h->capacity)
        return;
    size_t capacity = h->capacity ? h->capacity * 2 : FIELDS_FIRST;
    struct field *fields = arena_alloc(h->arena, capacity * sizeof *fields);
    bool *sensitive = arena_alloc(h->arena, capacity * sizeof *sensitive);
    if (n) {
        memcpy(fields, h->head.fields, n * sizeof *fields);
        memcpy(sensitive, h->sensitive, n * sizeof *sensitive);
    }
    h->head.fields = fields;
    h->sensitive = sensitive;
    h->capacity = capacity;
}

static void
keep(struct h2_head *h, struct slice name, struct slice value, bool sensitive)
{
    make_room(h);
    h->head.fields[h->head.field_count] =
        (struct field){arena_dup(h->arena, name), arena_dup(h->arena, value)};
    h->sensitive[h->head.field_count++] = sensitive;
}

void
h2_head_add(struct h2_head *h, struct slice name, struct slice value, bool sensitive)
{
    keep(h, name, value, sensitive);
    char *text = (char *)(uintptr_t)h->head.fields[h->head.field_count - 1].name.ptr;
    for (size_t i = 0; i < name.len; i++)
        if (text[i] >= 'A' && text[i] <= 'Z')
            text[i] = (char)(text[i] | 0x20);
}

/* ---- one field ---- */

static bool
name_in(struct slice name, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (slice_is(name, names[i]))
            return true;
    return false;
}

bool
h2_field_is_connection(struct slice name)
{
    static const char *const names[] = {"connection", "proxy-connection", "keep-alive",
                                        "transfer-encoding", "upgrade"};
    return name_in(name, names, COUNT(names));
}

/* `content_length` and the like: to a CGI-style server behind the next one they are the real ones. */
static bool
is_disguised(struct slice name)
{
    static const char *const names[] = {"transfer-encoding", "content-length",
                                        "proxy-authorization"};
    char plain[sizeof "proxy-authorization"];
    if (!slice_has_byte(name, '_') || name.len >= sizeof plain)
        return false;
    for (size_t i = 0; i < name.len; i++)
        plain[i] = name.ptr[i] == '_' ? '-' : name.ptr[i];
    return name_in(slice_of(plain, name.len), names, COUNT(names));
}

static bool
is_lower_token(struct slice name)
{
    for (size_t i = 0; i < name.len; i++)
        if (!char_is(name.ptr[i], CHAR_TOKEN) || (name.ptr[i] >= 'A' && name.ptr[i] <= 'Z'))
            return false;
    return name.len > 0;
}

/* RFC 9113 section 8.2.1: no control byte but HTAB, no white space at the ends. */
static bool
is_value(struct slice value)
{
    if (value.len == 0)
        return true;
    return chars_all(value, CHAR_VALUE) && slice_trim_ows(value).len == value.len;
}

static bool
read_length(struct h2_head *h, struct slice value)
{
    unsigned long long n;
    if (h->head.body == BODY_LENGTH || !slice_parse_uint(value, CONTENT_LENGTH_MAX, &n))
        return false;
    h->head.body = BODY_LENGTH;
    h->head.content_length = n;
    return true;
}

static bool
check_regular(struct h2_head *h, enum h2_block block, struct slice name, struct slice value)
{
    /* What decides about framing and routing has its place in the head alone (RFC 9110 section 6.5.1). */
    static const char *const not_in_trailers[] = {"content-length", "host", "te", "trailer",
                                                  "proxy-authorization"};
    if (!is_lower_token(name) || !is_value(value) || h2_field_is_connection(name) ||
        is_disguised(name))
        return false;
    if (block == H2_BLOCK_TRAILERS)
        return !name_in(name, not_in_trailers, COUNT(not_in_trailers));
    if (slice_is(name, "te"))
        return block == H2_BLOCK_REQUEST && slice_is(value, "trailers");
    if (slice_is(name, "content-length"))
        return read_length(h, value);
    return true;
}

static bool
set_once(struct h2_head *h, struct slice *at, struct slice value, enum char_class class)
{
    if (at->ptr || !chars_all(value, class))
        return false;
    *at = arena_dup(h->arena, value);
    return true;
}

static bool
read_status(struct h2_head *h, struct slice value)
{
    unsigned long long n;
    if (h->head.status || value.len != 3 || !slice_parse_uint(value, 599, &n) || n < 100)
        return false;
    h->head.status = (uint16_t)n;
    return n != 101; /* nothing is upgraded here (RFC 9113 section 8.6) */
}

static bool
read_pseudo(struct h2_head *h, enum h2_block block, struct slice name, struct slice value)
{
    if (h->regular_seen)
        return false;
    switch (block) {
    case H2_BLOCK_REQUEST:
        if (slice_is(name, ":method"))
            return value.len <= HEAD_METHOD_MAX &&
                   set_once(h, &h->head.method, value, CHAR_TOKEN);
        if (slice_is(name, ":scheme"))
            return set_once(h, &h->scheme, value, CHAR_TOKEN);
        if (slice_is(name, ":authority"))
            return set_once(h, &h->authority, value, CHAR_TARGET);
        if (slice_is(name, ":path"))
            return set_once(h, &h->path, value, CHAR_TARGET);
        return slice_is(name, ":protocol") && set_once(h, &h->protocol, value, CHAR_TOKEN);
    case H2_BLOCK_RESPONSE:
        return slice_is(name, ":status") && read_status(h, value);
    case H2_BLOCK_TRAILERS:
        return false;
    }
    return false;
}

bool
h2_head_read(struct h2_head *h, enum h2_block block, struct slice name, struct slice value,
             bool sensitive, size_t fields_max, size_t bytes_max)
{
    h->size += name.len + value.len + FIELD_OVERHEAD;
    if (h->size > bytes_max)
        h->too_large = true;
    if (name.len && name.ptr[0] == ':')
        return h->too_large || read_pseudo(h, block, name, value);
    h->regular_seen = true;
    if (h->head.field_count == fields_max)
        h->too_large = true;
    if (!check_regular(h, block, name, value))
        return false;
    if (!h->too_large)
        keep(h, name, value, sensitive);
    return true;
}

/* ---- the whole block ---- */

/* Both, where both are there, in the same words: which of them the next server goes by is not ours to guess. Without
 * :authority (a request that was HTTP/1 once) Host is it. */
static bool
judge_authority(struct h2_head *h)
{
    size_t count;
    struct slice host = head_field(&h->head, "host", &count);
    if (count > 1)
        return false;
    if (!h->authority.ptr)
        h->authority = host;
    else if (count && !slice_equal_nocase(host, h->authority))
        return false;
    return h->authority.len > 0 && chars_all(h->authority, CHAR_TARGET) &&
           !slice_has_byte(h->authority, '@') && !chars_has_obs_text(h->authority);
}

static bool
path_is_good(const struct h2_head *h)
{
    if (slice_is(h->path, "*"))
        return slice_is(h->head.method, "OPTIONS");
    return h->path.len && h->path.ptr[0] == '/' && !slice_has_byte(h->path, '#');
}

/* RFC 9113 section 8.3.1 and 8.5, RFC 8441 section 4. */
static bool
judge_request(struct h2_head *h)
{
    bool connect = slice_is(h->head.method, "CONNECT");
    if (!h->head.method.ptr || (h->protocol.ptr && !connect) || !judge_authority(h))
        return false;
    if (connect && !h->protocol.ptr) {
        h->head.target = h->authority;
        return !h->scheme.ptr && !h->path.ptr && h->head.body == BODY_NONE;
    }
    h->head.target = h->path;
    return h->scheme.ptr && path_is_good(h);
}

static bool
judge_body(struct h2_head *h)
{
    if (h->end && h->head.body == BODY_LENGTH && h->head.content_length > 0 && h->head.method.ptr)
        return false;
    if (h->end)
        h->head.body = BODY_NONE;
    else if (h->head.body == BODY_NONE)
        h->head.body = BODY_CHUNKED; /* of a length that only its end tells */
    return true;
}

bool
h2_head_judge(struct h2_head *h, enum h2_block block)
{
    if (h->too_large)
        return true;
    switch (block) {
    case H2_BLOCK_REQUEST:
        return judge_request(h) && judge_body(h);
    case H2_BLOCK_RESPONSE:
        if (h->head.status < 200 && (h->end || h->head.body == BODY_LENGTH))
            return false;
        return h->head.status != 0 && judge_body(h);
    case H2_BLOCK_TRAILERS:
        return h->end;
    }
    return false;
}
