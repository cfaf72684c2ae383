/* Hash map from byte strings to pointers; keys are copied, values belong to the caller. The hash is keyed per
 * process (SipHash), so that nobody who chooses names can choose collisions. */
#ifndef SALLYPORT_BASE_MAP_H
#define SALLYPORT_BASE_MAP_H

#include <stddef.h>

#include "sallyport/base/slice.h"

struct map;

struct map *map_new(void);
/* free_value may be NULL. */
void map_free(struct map *m, void (*free_value)(void *));
void *map_get(const struct map *m, struct slice key); /* NULL when absent */
/* The map's own copy of a key that it has, good until that is removed; ptr NULL when absent. */
struct slice map_key(const struct map *m, struct slice key);
void *map_put(struct map *m, struct slice key, void *value); /* value != NULL; returns what was there before, or NULL */
void *map_remove(struct map *m, struct slice key); /* returns what was there, or NULL */
size_t map_count(const struct map *m);
/* Visits every entry in no particular order; the visitor may not change the map. */
void map_each(const struct map *m, void (*visit)(void *ctx, struct slice key, void *value), void *ctx);

#endif
