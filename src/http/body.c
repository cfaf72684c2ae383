/* Body framing. A chunked body is decoded here by the grammar of RFC 9112 section 7.1 and nothing
 * wider, one byte of framing after the other, so that splits do not matter; data is handed on where
 * it lies. llhttp is not used for this: to know which bytes are framing, a strict check in front of
 * it must itself decode every size and count every byte of data, so it is the decoder, and llhttp
 * (which takes LF alone, white space and other things) would be a second one to disagree with. The
 * tests hold this reader against llhttp: what is read here, llhttp reads likewise. Never sees a
 * socket. */
#include "sallyport/http/body.h"

#include "sallyport/base/mem.h"
#include "sallyport/http/chars.h"
#include "sallyport/http/fields.h"

#define SIZE_DIGITS_MAX 16 /* of a chunk size, leading zeros included */
#define LENGTH_MAX 0x7fffffffffffffffULL

/* What the next byte of a chunked body is. */
enum chunk_state {
    AT_SIZE, /* the first digit of a size */
    IN_SIZE,
    AT_EXT_NAME, /* behind ";" */
    IN_EXT_NAME,
    AT_EXT_VALUE, /* behind "=" */
    IN_EXT_TOKEN,
    IN_EXT_QUOTED,
    IN_EXT_ESCAPE, /* behind "\" inside quotes */
    AFTER_EXT_QUOTED,
    AT_SIZE_LF,
    IN_DATA,
    AT_DATA_CR,
    AT_DATA_LF,
    AT_TRAILER, /* the first byte of a trailer line, or of the empty line */
    IN_TRAILER_NAME,
    IN_TRAILER_VALUE,
    AT_TRAILER_LF,
    AT_LAST_LF,
    CHUNKS_ENDED,
    CHUNKS_BROKEN,
};

struct body_reader {
    enum body_kind kind;
    enum body_status status; /* BODY_MORE until the body has ended one way or the other */
    enum reason fault;
    uint64_t left; /* of content_length, or of the chunk */
    uint64_t data_bytes;
    enum chunk_state state;
    uint8_t size_digits;
    uint16_t trailer_count;
    size_t extras;     /* bytes of extensions and trailers so far */
    size_t line_start; /* where in trailers the line begins that is being read */
    size_t name_len;   /* of the name in it */
    struct buf trailers;
};

struct body_reader *
body_reader_new(enum body_kind kind, uint64_t content_length)
{
    struct body_reader *r = mem_zalloc(sizeof(*r));
    r->kind = kind;
    r->status = BODY_MORE;
    r->fault = REASON_REQUEST_MALFORMED;
    r->left = kind == BODY_LENGTH ? content_length : 0;
    if (kind == BODY_NONE || (kind == BODY_LENGTH && content_length == 0))
        r->status = BODY_END;
    buf_init(&r->trailers, BODY_EXTRAS_MAX);
    return r;
}

void
body_reader_free(struct body_reader *r)
{
    if (!r)
        return;
    buf_done(&r->trailers);
    free(r);
}

static enum chunk_state
broken(struct body_reader *r, enum reason fault)
{
    r->fault = fault;
    return CHUNKS_BROKEN;
}

static enum chunk_state
malformed(struct body_reader *r)
{
    return broken(r, REASON_REQUEST_MALFORMED);
}

/* Digits are counted and the value is capped as they come, so nothing can overflow. */
static enum chunk_state
step_size(struct body_reader *r, char c)
{
    if (char_is(c, CHAR_HEX)) {
        if (r->size_digits == SIZE_DIGITS_MAX)
            return broken(r, REASON_BODY_TOO_LARGE);
        r->left = r->left << 4 | char_hex_value(c);
        r->size_digits++;
        if (r->left > BODY_CHUNK_MAX || r->left > LENGTH_MAX - r->data_bytes)
            return broken(r, REASON_BODY_TOO_LARGE);
        return IN_SIZE;
    }
    if (r->size_digits == 0)
        return malformed(r);
    return c == '\r' ? AT_SIZE_LF : c == ';' ? AT_EXT_NAME : malformed(r);
}

/* chunk-ext without the "bad" white space that RFC 9112 section 7.1.1 lets senders put round ";"
 * and "=": nobody sends it, and readers differ over where it may stand. */
static enum chunk_state
step_extension(struct body_reader *r, char c)
{
    enum chunk_state at = r->state;
    if (at == IN_EXT_ESCAPE)
        return char_is(c, CHAR_VALUE) ? IN_EXT_QUOTED : malformed(r);
    if (at == IN_EXT_QUOTED) {
        if (c == '"')
            return AFTER_EXT_QUOTED;
        return c == '\\' ? IN_EXT_ESCAPE : char_is(c, CHAR_QUOTED) ? IN_EXT_QUOTED : malformed(r);
    }
    if (at == AT_EXT_VALUE && c == '"')
        return IN_EXT_QUOTED;
    if (at != AFTER_EXT_QUOTED && char_is(c, CHAR_TOKEN))
        return at == AT_EXT_NAME || at == IN_EXT_NAME ? IN_EXT_NAME : IN_EXT_TOKEN;
    if (at == AT_EXT_NAME || at == AT_EXT_VALUE)
        return malformed(r);
    if (at == IN_EXT_NAME && c == '=')
        return AT_EXT_VALUE;
    return c == '\r' ? AT_SIZE_LF : c == ';' ? AT_EXT_NAME : malformed(r);
}

static enum chunk_state
begin_chunk(struct body_reader *r)
{
    r->size_digits = 0;
    r->left = 0;
    return AT_SIZE;
}

/* Fields that say how far a message goes or where it goes may not come behind it (RFC 9110
 * section 6.5.1). */
static bool
trailer_is_forbidden(struct slice name)
{
    static const char *const names[] = {
        "Transfer-Encoding", "Content-Length", "Host",   "Connection",
        "Upgrade",           "Trailer",        "TE",     "Content-Encoding",
        "Content-Type",      "Content-Range",  "Expect", "Authorization"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (slice_equal_nocase(name, slice_str(names[i])))
            return true;
    return false;
}

static struct slice
trailer_name(const struct body_reader *r)
{
    return slice_of(r->trailers.data + r->trailers.start + r->line_start, r->name_len);
}

static enum chunk_state
end_trailer_name(struct body_reader *r)
{
    r->name_len = buf_len(&r->trailers) - r->line_start - 1;
    return trailer_is_forbidden(trailer_name(r)) ? malformed(r) : IN_TRAILER_VALUE;
}

/* Forgets the line when it is not one to pass on. */
static enum chunk_state
end_trailer(struct body_reader *r)
{
    if (!fields_pass_response(trailer_name(r)))
        r->trailers.end = r->trailers.start + r->line_start;
    r->line_start = buf_len(&r->trailers);
    return AT_TRAILER;
}

/* Field lines as in a head; each byte of them is kept. */
static enum chunk_state
step_trailer(struct body_reader *r, char c)
{
    if (r->state == AT_TRAILER && c == '\r')
        return AT_LAST_LF;
    if (!buf_append(&r->trailers, &c, 1))
        return broken(r, REASON_BODY_TOO_LARGE);
    if (r->state == AT_TRAILER) {
        if (!char_is(c, CHAR_TOKEN))
            return malformed(r);
        return ++r->trailer_count > BODY_TRAILERS_MAX ? broken(r, REASON_BODY_TOO_LARGE)
                                                      : IN_TRAILER_NAME;
    }
    if (r->state == IN_TRAILER_NAME) {
        if (c == ':')
            return end_trailer_name(r);
        return char_is(c, CHAR_TOKEN) ? IN_TRAILER_NAME : malformed(r);
    }
    if (r->state == IN_TRAILER_VALUE && c != '\r')
        return char_is(c, CHAR_VALUE) ? IN_TRAILER_VALUE : malformed(r);
    if (r->state == IN_TRAILER_VALUE)
        return AT_TRAILER_LF;
    return c == '\n' ? end_trailer(r) : malformed(r);
}

/* The state after one more byte of framing. */
static enum chunk_state
step(struct body_reader *r, char c)
{
    switch (r->state) {
    case AT_SIZE:
    case IN_SIZE:
        return step_size(r, c);
    case AT_EXT_NAME:
    case IN_EXT_NAME:
    case AT_EXT_VALUE:
    case IN_EXT_TOKEN:
    case IN_EXT_QUOTED:
    case IN_EXT_ESCAPE:
    case AFTER_EXT_QUOTED:
        return ++r->extras > BODY_EXTRAS_MAX ? broken(r, REASON_BODY_TOO_LARGE)
                                             : step_extension(r, c);
    case AT_SIZE_LF:
        return c != '\n' ? malformed(r) : r->left ? IN_DATA : AT_TRAILER;
    case AT_DATA_CR:
        return c == '\r' ? AT_DATA_LF : malformed(r);
    case AT_DATA_LF:
        return c == '\n' ? begin_chunk(r) : malformed(r);
    case AT_TRAILER:
    case IN_TRAILER_NAME:
    case IN_TRAILER_VALUE:
    case AT_TRAILER_LF:
        return ++r->extras > BODY_EXTRAS_MAX ? broken(r, REASON_BODY_TOO_LARGE)
                                             : step_trailer(r, c);
    case AT_LAST_LF:
        return c == '\n' ? CHUNKS_ENDED : malformed(r);
    case IN_DATA:
    case CHUNKS_ENDED:
    case CHUNKS_BROKEN:
        break;
    }
    return malformed(r);
}

/* Takes what of `in` is data, at most r->left. */
static size_t
take_data(struct body_reader *r, struct slice in, struct slice *ret_data)
{
    size_t n = in.len < r->left ? in.len : (size_t)r->left;
    *ret_data = slice_of(in.ptr, n);
    r->left -= n;
    r->data_bytes += n;
    return n;
}

static void
read_chunks(struct body_reader *r, struct slice in, size_t *ret_used, struct slice *ret_data)
{
    size_t used = 0;
    while (used < in.len && r->state != IN_DATA && r->state < CHUNKS_ENDED)
        r->state = step(r, in.ptr[used++]);
    if (r->state == IN_DATA && used < in.len) {
        used += take_data(r, slice_of(in.ptr + used, in.len - used), ret_data);
        if (r->left == 0)
            r->state = AT_DATA_CR;
    }
    if (r->state == CHUNKS_ENDED)
        r->status = BODY_END;
    if (r->state == CHUNKS_BROKEN)
        r->status = BODY_MALFORMED;
    *ret_used = used;
}

enum body_status
body_read(struct body_reader *r, struct slice in, size_t *ret_used, struct slice *ret_data)
{
    *ret_used = 0;
    *ret_data = slice_of(in.ptr, 0);
    if (r->status != BODY_MORE)
        return r->status;
    switch (r->kind) {
    case BODY_NONE:
        break;
    case BODY_LENGTH:
        *ret_used = take_data(r, in, ret_data);
        if (r->left == 0)
            r->status = BODY_END;
        break;
    case BODY_CHUNKED:
        read_chunks(r, in, ret_used, ret_data);
        break;
    case BODY_TO_EOF:
        *ret_used = in.len;
        *ret_data = in;
        r->data_bytes += in.len;
        break;
    }
    return r->status;
}

enum body_status
body_read_eof(struct body_reader *r)
{
    if (r->status == BODY_MORE)
        r->status = r->kind == BODY_TO_EOF ? BODY_END : BODY_MALFORMED;
    return r->status;
}

enum reason
body_fault(const struct body_reader *r)
{
    return r->fault;
}

uint64_t
body_data_bytes(const struct body_reader *r)
{
    return r->data_bytes;
}

struct slice
body_trailers(const struct body_reader *r)
{
    return r->status == BODY_END ? buf_slice(&r->trailers) : slice_of("", 0);
}

/* All or nothing: half a chunk would be worse than none. */
static bool
write_chunk(struct buf *out, struct slice data)
{
    if (data.len > SIZE_MAX - BODY_CHUNK_OVERHEAD || buf_room(out) < data.len + BODY_CHUNK_OVERHEAD)
        return false;
    return buf_printf(out, "%zx\r\n", data.len) && buf_append_slice(out, data) &&
           buf_append_str(out, "\r\n");
}

bool
body_write(struct buf *out, enum body_kind kind, struct slice data)
{
    if (data.len == 0)
        return true; /* an empty chunk would end the body */
    switch (kind) {
    case BODY_NONE:
        return false;
    case BODY_LENGTH:
    case BODY_TO_EOF:
        return buf_append_slice(out, data);
    case BODY_CHUNKED:
        return write_chunk(out, data);
    }
    return false;
}

bool
body_write_end(struct buf *out, enum body_kind kind, struct slice trailers)
{
    if (kind != BODY_CHUNKED)
        return true;
    if (trailers.len > SIZE_MAX - BODY_CHUNK_OVERHEAD ||
        buf_room(out) < trailers.len + sizeof("0\r\n\r\n") - 1)
        return false;
    return buf_append_str(out, "0\r\n") && buf_append_slice(out, trailers) &&
           buf_append_str(out, "\r\n");
}
