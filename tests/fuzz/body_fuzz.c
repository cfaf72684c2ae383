/* Body framing. Held here: one outcome however the bytes are split; what is re-framed is read as
 * the same data; llhttp reads what is accepted likewise. The first byte chooses the kind, the
 * second the split, the third a length. */
#include <assert.h>
#include <llhttp.h>
#include <stdint.h>
#include <stdlib.h>

#include "sallyport/http/body.h"

#define DATA_CAP (1 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct outcome {
    enum body_status status;
    struct buf data, trailers;
    size_t used;
};

static void
outcome_done(struct outcome *o)
{
    buf_done(&o->data);
    buf_done(&o->trailers);
}

static void
read_pieces(enum body_kind kind, uint64_t length, struct slice in, size_t piece, struct outcome *o)
{
    struct body_reader *r = body_reader_new(kind, length);
    *o = (struct outcome){.status = BODY_MORE};
    buf_init(&o->data, DATA_CAP);
    buf_init(&o->trailers, DATA_CAP);
    while (o->used < in.len && o->status == BODY_MORE) {
        size_t end = o->used - o->used % piece + piece, used;
        struct slice run,
            part = slice_of(in.ptr + o->used, (end < in.len ? end : in.len) - o->used);
        o->status = body_read(r, part, &used, &run);
        assert(used <= part.len && run.len <= used && (used > 0 || o->status != BODY_MORE));
        assert(buf_append_slice(&o->data, run));
        o->used += used;
    }
    assert(body_data_bytes(r) == buf_len(&o->data));
    assert(buf_append_slice(&o->trailers, body_trailers(r)));
    body_reader_free(r);
}

static int
on_body(llhttp_t *parser, const char *at, size_t len)
{
    return buf_append(parser->data, at, len) ? 0 : -1;
}

static int
on_message_complete(llhttp_t *parser)
{
    (void)parser;
    return HPE_PAUSED;
}

/* llhttp 8 refuses some extensions that the grammar allows (";a=b;c", obs-text in quotes): with
 * extensions it need not read the body, but where it does, it must read the same. */
static void
check_llhttp(struct slice in, const struct outcome *o)
{
    static const llhttp_settings_t settings = {.on_body = on_body,
                                               .on_message_complete = on_message_complete};
    static const char head[] = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    llhttp_t parser;
    struct buf data;
    bool plain = !slice_has_byte(slice_of(in.ptr, o->used), ';');
    buf_init(&data, DATA_CAP);
    llhttp_init(&parser, HTTP_REQUEST, &settings);
    parser.data = &data;
    assert(llhttp_execute(&parser, head, sizeof(head) - 1) == HPE_OK);
    bool ended = llhttp_execute(&parser, in.ptr, o->used) == HPE_PAUSED;
    assert(ended || !plain);
    assert(!ended || slice_equal(buf_slice(&data), buf_slice(&o->data)));
    buf_done(&data);
}

static void
check_reframed(const struct outcome *o)
{
    struct buf out;
    struct outcome again;
    buf_init(&out, 2 * DATA_CAP);
    assert(body_write(&out, BODY_CHUNKED, buf_slice(&o->data)));
    assert(body_write_end(&out, BODY_CHUNKED, buf_slice(&o->trailers)));
    read_pieces(BODY_CHUNKED, 0, buf_slice(&out), DATA_CAP, &again);
    assert(again.status == BODY_END && again.used == buf_len(&out));
    assert(slice_equal(buf_slice(&again.data), buf_slice(&o->data)));
    assert(slice_equal(buf_slice(&again.trailers), buf_slice(&o->trailers)));
    outcome_done(&again);
    buf_done(&out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    enum body_kind kind = data[0] & 3 ? BODY_CHUNKED : (enum body_kind)(data[0] >> 2 & 3);
    struct slice in = slice_of(data + 3, size - 3);
    struct outcome whole, split;
    read_pieces(kind, data[2], in, in.len + 1, &whole);
    read_pieces(kind, data[2], in, 1 + data[1] % 16, &split);
    assert(whole.status == split.status &&
           slice_equal(buf_slice(&whole.data), buf_slice(&split.data)));
    assert(whole.status != BODY_END || whole.used == split.used);
    if (kind == BODY_CHUNKED && whole.status == BODY_END) {
        check_llhttp(in, &whole);
        check_reframed(&whole);
    }
    outcome_done(&whole);
    outcome_done(&split);
    return 0;
}
