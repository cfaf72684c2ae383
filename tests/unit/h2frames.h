/* HTTP/2 by hand, for tests: frames and header blocks written byte by byte (no library of ours or others' in between), and
 * what a session wrote taken apart again. */
#ifndef TESTS_UNIT_H2FRAMES_H
#define TESTS_UNIT_H2FRAMES_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sallyport/base/buf.h"

enum { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8, WITH_PRIORITY = 0x20 };

#define RAW_MAX (64u << 20)
#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

static inline void
put_frame(struct buf *b, unsigned type, unsigned flags, uint32_t id, const void *payload, size_t len)
{
    const unsigned char h[9] = {(unsigned char)(len >> 16), (unsigned char)(len >> 8), (unsigned char)len,
                                (unsigned char)type,        (unsigned char)flags,      (unsigned char)(id >> 24),
                                (unsigned char)(id >> 16),  (unsigned char)(id >> 8),  (unsigned char)id};
    buf_append(b, h, sizeof h);
    buf_append(b, payload, len);
}

static inline void
put_u32(struct buf *b, unsigned type, uint32_t id, uint32_t value)
{
    const unsigned char p[4] = {(unsigned char)(value >> 24), (unsigned char)(value >> 16), (unsigned char)(value >> 8),
                                (unsigned char)value};
    put_frame(b, type, 0, id, p, sizeof p);
}

/* A string or integer length of HPACK with a prefix of 7 bits. */
static inline void
put_length(struct buf *b, size_t n)
{
    unsigned char c = n < 127 ? (unsigned char)n : 127;
    buf_append(b, &c, 1);
    if (n < 127)
        return;
    for (n -= 127; n >= 128; n >>= 7) {
        c = (unsigned char)(n | 0x80);
        buf_append(b, &c, 1);
    }
    c = (unsigned char)n;
    buf_append(b, &c, 1);
}

/* A literal without indexing and without Huffman; how: 0x00 plain, 0x10 never indexed, 0x40 indexed. */
static inline void
put_literal(struct buf *b, unsigned how, const void *name, size_t name_len, const void *value, size_t value_len)
{
    unsigned char c = (unsigned char)how;
    buf_append(b, &c, 1);
    put_length(b, name_len);
    buf_append(b, name, name_len);
    put_length(b, value_len);
    buf_append(b, value, value_len);
}

static inline void
put_field(struct buf *b, const char *name, const char *value)
{
    put_literal(b, 0, name, strlen(name), value, strlen(value));
}

static inline void
put_get(struct buf *block, const char *authority, const char *path)
{
    put_field(block, ":method", "GET");
    put_field(block, ":scheme", "https");
    put_field(block, ":authority", authority);
    put_field(block, ":path", path);
}

static inline void
put_headers(struct buf *b, unsigned flags, uint32_t id, const struct buf *block)
{
    put_frame(b, HEADERS, flags, id, buf_slice(block).ptr, buf_len(block));
}

/* A whole GET on that stream. */
static inline void
put_request(struct buf *b, uint32_t id, unsigned flags)
{
    struct buf block;
    buf_init(&block, RAW_MAX);
    put_get(&block, "example.com", "/");
    put_headers(b, flags | END_HEADERS, id, &block);
    buf_done(&block);
}

/* What a client says first. */
static inline void
put_preface(struct buf *b)
{
    buf_append_str(b, PREFACE);
    put_frame(b, SETTINGS, 0, 0, "", 0);
}

/* One frame of a session's output; payload points into it. */
struct frame {
    unsigned type, flags;
    uint32_t id;
    struct slice payload;
};

static inline uint32_t
read_u32(const char *p)
{
    const unsigned char *u = (const unsigned char *)p;
    return (uint32_t)u[0] << 24 | (uint32_t)u[1] << 16 | (uint32_t)u[2] << 8 | u[3];
}

/* Takes the next frame from *bytes (behind a preface, if there is one); false at the end. */
static inline bool
next_frame(struct slice *bytes, struct frame *ret)
{
    if (slice_starts_with(*bytes, PREFACE))
        *bytes = slice_of(bytes->ptr + 24, bytes->len - 24);
    if (bytes->len < 9)
        return false;
    size_t len = read_u32(bytes->ptr) >> 8;
    if (bytes->len < 9 + len)
        return false;
    *ret = (struct frame){(unsigned char)bytes->ptr[3], (unsigned char)bytes->ptr[4], read_u32(bytes->ptr + 5) & 0x7fffffff,
                          slice_of(bytes->ptr + 9, len)};
    *bytes = slice_of(bytes->ptr + 9 + len, bytes->len - 9 - len);
    return true;
}

/* How many frames of that type (on that stream; 0: on any), and the code of the last RST_STREAM or GOAWAY among them. */
static inline unsigned
count_frames(struct slice bytes, unsigned type, uint32_t id, uint32_t *ret_code)
{
    unsigned n = 0;
    struct frame f;
    while (next_frame(&bytes, &f)) {
        if (f.type != type || (id && f.id != id))
            continue;
        n++;
        if (ret_code && type == RST_STREAM && f.payload.len == 4)
            *ret_code = read_u32(f.payload.ptr);
        if (ret_code && type == GOAWAY && f.payload.len >= 8)
            *ret_code = read_u32(f.payload.ptr + 4);
    }
    return n;
}

#endif
