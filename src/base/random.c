/* Randomness from getrandom(2). No fallback: a key or an id that could be guessed is worse than
 * none. */
#include "sallyport/base/random.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

void
random_bytes(void *out, size_t len)
{
    unsigned char *at = out;
    while (len > 0) {
        ssize_t got = getrandom(at, len, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            abort();
        at += got;
        len -= (size_t)got;
    }
}

/* An id a request: 80 bits each time would be a system call each time, so they are drawn in blocks.
 */
static void
take_pooled(unsigned char *out, size_t len)
{
    static _Thread_local unsigned char pool[640];
    static _Thread_local size_t left;
    if (left < len) {
        random_bytes(pool, sizeof pool);
        left = sizeof pool;
    }
    left -= len;
    for (size_t i = 0; i < len; i++) {
        out[i] = pool[left + i];
        pool[left + i] = 0;
    }
}

struct ulid
ulid_new(int64_t wall_ms)
{
    struct ulid u;
    for (int i = 0; i < 6; i++)
        u.bytes[i] = (unsigned char)((uint64_t)wall_ms >> (40 - 8 * i));
    take_pooled(u.bytes + 6, 10);
    return u;
}

/* Writes the lowest 5 * `count` bits of the number in big-endian `bytes`. */
static void
put_digits(const unsigned char *bytes, size_t len, char *out, int count)
{
    static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    uint64_t bits = 0;
    for (size_t i = 0; i < len; i++)
        bits = bits << 8 | bytes[i];
    for (int i = count - 1; i >= 0; i--, bits >>= 5)
        out[i] = digits[bits & 31];
}

void
ulid_format(const struct ulid *u, char text[ULID_TEXT_SIZE])
{
    put_digits(u->bytes, 6, text, 10);
    put_digits(u->bytes + 6, 5, text + 10, 8);
    put_digits(u->bytes + 11, 5, text + 18, 8);
    text[ULID_TEXT_SIZE - 1] = '\0';
}

void
random_ulid(int64_t wall_ms, char text[ULID_TEXT_SIZE])
{
    struct ulid u = ulid_new(wall_ms);
    ulid_format(&u, text);
}
