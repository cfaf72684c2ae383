/* A region that is freed as a whole: one per exchange. The first block holds the struct itself. Not thread-safe. */
#ifndef SALLYPORT_BASE_ARENA_H
#define SALLYPORT_BASE_ARENA_H

#include <stddef.h>

#include "sallyport/base/slice.h"

struct arena;

/* first_size: bytes of the first block, chosen so that the usual case needs no second one. Blocks for ARENA_USUAL are kept for
 * the next arena of that size. */
#define ARENA_USUAL 4096
struct arena *arena_new(size_t first_size);
void arena_free(struct arena *arena); /* NULL is fine */
void arena_reset(struct arena *arena); /* frees all but the first block */
/* Aligned for any type; never NULL; zeroed. */
void *arena_alloc(struct arena *arena, size_t size);
struct slice arena_dup(struct arena *arena, struct slice s); /* copy with a NUL behind it (not counted in len) */
char *arena_strdup(struct arena *arena, struct slice s);
char *arena_printf(struct arena *arena, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
