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

void
random_ulid(int64_t wall_ms, char text[ULID_TEXT_SIZE])
{
    static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    uint64_t time = (uint64_t)wall_ms & 0xffffffffffff;
    for (int i = 9; i >= 0; i--, time >>= 5)
        text[i] = digits[time & 31];
    unsigned char noise[10];
    take_pooled(noise, sizeof noise);
    for (int half = 0; half < 2; half++) {
        uint64_t bits = 0;
        for (int i = 0; i < 5; i++)
            bits = bits << 8 | noise[half * 5 + i];
        for (int i = 7; i >= 0; i--, bits >>= 5)
            text[10 + half * 8 + i] = digits[bits & 31];
    }
    text[ULID_TEXT_SIZE - 1] = '\0';
}
