/* A growing byte buffer with a hard cap. Bytes are read from the front and written at the back;
 * memory is had on the first write and may be given back while no byte is held. What does not fit
 * is refused, never cut. */
#include "sallyport/base/buf.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "sallyport/base/encoding.h"
#include "sallyport/base/mem.h"

#define BUF_SIZE_MIN 128 /* what a connection has said that says little */

void
buf_init(struct buf *b, size_t cap)
{
    *b = (struct buf){.cap = cap};
}

void
buf_done(struct buf *b)
{
    free(b->data);
    *b = (struct buf){.cap = b->cap};
}

void
buf_clear(struct buf *b)
{
    b->start = b->end = 0;
    b->overflow = false;
}

void
buf_release(struct buf *b)
{
    if (b->start != b->end)
        return;
    free(b->data);
    b->data = NULL;
    b->start = b->end = b->size = 0;
}

/* The bytes move to the front first: what was consumed is room again. */
static void
make_room(struct buf *b, size_t len)
{
    size_t used = buf_len(b);
    if (b->start > 0) {
        if (used > 0)
            memmove(b->data, b->data + b->start, used);
        b->start = 0;
        b->end = used;
    }
    if (b->size - used >= len)
        return;
    size_t size = b->size ? b->size : BUF_SIZE_MIN;
    while (size < used + len)
        size = size > b->cap / 2 ? b->cap : size * 2;
    b->data = mem_realloc(b->data, size);
    b->size = size;
}

char *
buf_reserve(struct buf *b, size_t len)
{
    if (len > buf_room(b)) {
        b->overflow = true;
        return NULL;
    }
    if (!b->data || b->size - b->end < len)
        make_room(b, len);
    return b->data + b->end;
}

void
buf_commit(struct buf *b, size_t len)
{
    assert(len <= b->size - b->end && len <= buf_room(b));
    b->end += len;
}

void
buf_consume(struct buf *b, size_t len)
{
    assert(len <= buf_len(b));
    b->start += len;
    if (b->start == b->end)
        b->start = b->end = 0;
}

bool
buf_append_uint(struct buf *b, uint64_t value)
{
    char digits[DECIMAL_MAX];
    return buf_append(b, digits, decimal_encode(value, digits));
}

bool
buf_printf(struct buf *b, const char *fmt, ...)
{
    char stack[512];
    va_list args;
    va_start(args, fmt);
    int len = vsnprintf(stack, sizeof stack, fmt, args);
    va_end(args);
    assert(len >= 0);
    if ((size_t)len < sizeof stack)
        return buf_append(b, stack, (size_t)len);
    if ((size_t)len > buf_room(b)) {
        b->overflow = true;
        return false;
    }
    /* Not into the buffer itself: the terminator needs a byte that the cap does not count. */
    char *text = mem_alloc((size_t)len + 1);
    va_start(args, fmt);
    vsnprintf(text, (size_t)len + 1, fmt, args);
    va_end(args);
    bool fits = buf_append(b, text, (size_t)len);
    free(text);
    return fits;
}
