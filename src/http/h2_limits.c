/* Counts what an HTTP/2 peer sends that costs us more than it: the floods (CVE-2019-9511 to 9518, CVE-2023-44487,
 * CVE-2025-8671, VU#421644) are all of frames that are small, valid and without use. It reads the nine
 * bytes before each payload and nothing else, ahead of the library that acts on them. */
#include "sallyport/http/h2_limits.h"

#define PREFACE_BYTES 24
#define HEADER_BYTES 9

enum frame_type {
    FRAME_DATA = 0,
    FRAME_HEADERS,
    FRAME_PRIORITY,
    FRAME_RST_STREAM,
    FRAME_SETTINGS,
    FRAME_PUSH_PROMISE,
    FRAME_PING,
    FRAME_GOAWAY,
    FRAME_WINDOW_UPDATE,
    FRAME_CONTINUATION,
};

#define FLAG_END_STREAM 0x1
#define FLAG_END_HEADERS 0x4

static const struct {
    uint32_t most, per_use;
    const char *fault;
} rows[H2_KIND_COUNT] = {
#define X(kind, most_, per_use_, fault_) {most_, per_use_, fault_},
    H2_KINDS(X)
#undef X
};

void
h2_meter_init(struct h2_meter *m, bool preface, uint32_t block_max, int64_t now_ms)
{
    *m = (struct h2_meter){
        .since_ms = now_ms, .block_max = block_max, .skip = preface ? PREFACE_BYTES : 0};
}

static void
turn_window(struct h2_meter *m, int64_t now_ms)
{
    if (now_ms - m->since_ms < H2_METER_WINDOW_MS)
        return;
    m->since_ms = now_ms;
    m->earned = 0;
    memset(m->spent, 0, sizeof m->spent);
}

const char *
h2_meter_count(struct h2_meter *m, enum h2_kind kind, int64_t now_ms)
{
    turn_window(m, now_ms);
    m->spent[kind]++;
    return m->spent[kind] > rows[kind].most + m->earned * rows[kind].per_use ? rows[kind].fault
                                                                             : NULL;
}

void
h2_meter_earn(struct h2_meter *m)
{
    m->earned++;
}

static const char *
begin_block(struct h2_meter *m, uint32_t len)
{
    m->block = len;
    m->continuations = 0;
    h2_meter_earn(m);
    return NULL;
}

static const char *
go_on_with_block(struct h2_meter *m, uint32_t len)
{
    m->block += len;
    m->continuations++;
    return m->continuations > H2_CONTINUATIONS_MAX || m->block > m->block_max ? "continuation flood"
                                                                              : NULL;
}

/* What is wrong in a frame (length, stream, order) is the library's to say; here it is only counted. */
static const char *
count_frame(struct h2_meter *m, uint8_t type, uint8_t flags, uint32_t len, int64_t now_ms)
{
    switch (type) {
    case FRAME_DATA:
        if (len == 0 && !(flags & FLAG_END_STREAM))
            return h2_meter_count(m, H2_KIND_EMPTY, now_ms);
        h2_meter_earn(m);
        return NULL;
    case FRAME_HEADERS:
        return begin_block(m, len);
    case FRAME_CONTINUATION:
        return go_on_with_block(m, len);
    case FRAME_PRIORITY:
        return h2_meter_count(m, H2_KIND_PRIORITY, now_ms);
    case FRAME_RST_STREAM:
        return h2_meter_count(m, H2_KIND_RESET, now_ms);
    case FRAME_SETTINGS:
        return h2_meter_count(m, H2_KIND_SETTINGS, now_ms);
    case FRAME_PING:
        return h2_meter_count(m, H2_KIND_PING, now_ms);
    case FRAME_WINDOW_UPDATE:
        return h2_meter_count(m, H2_KIND_WINDOW, now_ms);
    case FRAME_PUSH_PROMISE:
    case FRAME_GOAWAY:
    default: /* a byte of the peer, no enum of ours */
        return h2_meter_count(m, H2_KIND_OTHER, now_ms);
    }
}

static const char *
end_header(struct h2_meter *m, int64_t now_ms)
{
    uint32_t len = (uint32_t)m->header[0] << 16 | (uint32_t)m->header[1] << 8 | m->header[2];
    m->header_len = 0;
    m->skip = len;
    return count_frame(m, m->header[3], m->header[4], len, now_ms);
}

const char *
h2_meter_scan(struct h2_meter *m, struct slice bytes, int64_t now_ms)
{
    size_t at = 0;
    turn_window(m, now_ms);
    while (at < bytes.len) {
        size_t left = bytes.len - at;
        if (m->skip) {
            size_t n = left < m->skip ? left : m->skip;
            m->skip -= (uint32_t)n;
            at += n;
            continue;
        }
        m->header[m->header_len++] = (uint8_t)bytes.ptr[at++];
        if (m->header_len < HEADER_BYTES)
            continue;
        const char *fault = end_header(m, now_ms);
        if (fault)
            return fault;
    }
    return NULL;
}
