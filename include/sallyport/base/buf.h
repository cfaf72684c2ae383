/* A growing byte buffer with a hard cap: what does not fit is refused, never cut. */
#ifndef SALLYPORT_BASE_BUF_H
#define SALLYPORT_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sallyport/base/slice.h"

struct buf {
    char *data;     /* heap, NULL while empty and never used */
    size_t start;   /* first unread byte */
    size_t end;     /* behind the last byte */
    size_t size;    /* allocated */
    size_t cap;     /* most unread bytes it may hold */
    bool overflow;  /* an append was refused; stays set until buf_clear */
};

void buf_init(struct buf *b, size_t cap);
void buf_done(struct buf *b); /* frees; usable again after buf_init */
void buf_clear(struct buf *b); /* drops the bytes, keeps the memory */
void buf_release(struct buf *b); /* drops the memory too when no byte is held (idle connections cost nothing) */
static inline size_t buf_len(const struct buf *b) { return b->end - b->start; }
static inline struct slice buf_slice(const struct buf *b) { return slice_of(b->data ? b->data + b->start : "", b->end - b->start); }
static inline size_t buf_room(const struct buf *b) { return b->end - b->start < b->cap ? b->cap - (b->end - b->start) : 0; }
/* Room for `len` bytes to be written at the returned place, then buf_commit(b, n <= len). NULL past the cap. */
char *buf_reserve(struct buf *b, size_t len);
void buf_commit(struct buf *b, size_t len);
void buf_consume(struct buf *b, size_t len); /* drops from the front; len <= buf_len */
/* False, and nothing appended, when the cap would be passed. */
static inline bool
buf_append(struct buf *b, const void *data, size_t len)
{
    if (len == 0)
        return true;
    bool fits = len <= b->size - b->end && len <= buf_room(b);
    char *at = fits ? b->data + b->end : buf_reserve(b, len);
    if (!at)
        return false;
    memcpy(at, data, len);
    b->end += len;
    return true;
}
static inline bool buf_append_slice(struct buf *b, struct slice s) { return buf_append(b, s.ptr, s.len); }
static inline bool buf_append_str(struct buf *b, const char *text) { return buf_append(b, text, strlen(text)); }
bool buf_append_uint(struct buf *b, uint64_t value); /* decimal */
bool buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
