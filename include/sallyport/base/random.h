/* Randomness from getrandom(2); failure aborts (no constant key or id is ever made). */
#ifndef SALLYPORT_BASE_RANDOM_H
#define SALLYPORT_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

void random_bytes(void *out, size_t len);

/* 48 bits of milliseconds and 80 random ones (ULID specification); as text 26 characters of Crockford base32. */
#define ULID_TEXT_SIZE 27
struct ulid {
    unsigned char bytes[16];
};
struct ulid ulid_new(int64_t wall_ms);
void ulid_format(const struct ulid *u, char text[ULID_TEXT_SIZE]);
void random_ulid(int64_t wall_ms, char text[ULID_TEXT_SIZE]); /* both */

#endif
