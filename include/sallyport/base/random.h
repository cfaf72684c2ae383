/* Randomness from getrandom(2); failure aborts (no constant key or id is ever made). */
#ifndef SALLYPORT_BASE_RANDOM_H
#define SALLYPORT_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

void random_bytes(void *out, size_t len);

#define ULID_TEXT_SIZE 27
/* 26 characters of Crockford base32: 48 bits of milliseconds, 80 random bits (ULID specification). */
void random_ulid(int64_t wall_ms, char text[ULID_TEXT_SIZE]);

#endif
