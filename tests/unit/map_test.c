/* The map against a plain array of the same content, through growth, removal and refilling. */
#include "unit/test.h"

#include <stdint.h>

#include "sallyport/base/map.h"

#define KEYS 3000

static struct slice
key_of(int i, char text[32])
{
    return slice_of(text, (size_t)snprintf(text, 32, "key-%d", i));
}

static void
count_visit(void *ctx, struct slice key, void *value)
{
    size_t *seen = ctx;
    CHECK(key.len > 4 && value != NULL);
    (*seen)++;
}

TEST(agrees_with_an_array)
{
    static int values[KEYS];
    static bool present[KEYS];
    struct map *m = map_new();
    char text[32];
    unsigned state = 12345;
    size_t count = 0;
    for (int step = 0; step < 60000; step++) {
        state = state * 1103515245u + 12345u;
        int i = (int)(state >> 8) % KEYS;
        bool put = (state >> 28) < (step % 20000 < 10000 ? 11u : 5u);
        void *before =
            put ? map_put(m, key_of(i, text), &values[i]) : map_remove(m, key_of(i, text));
        CHECK(before == (present[i] ? &values[i] : NULL));
        count += (size_t)(put && !present[i]);
        count -= (size_t)(!put && present[i]);
        present[i] = put;
    }
    for (int i = 0; i < KEYS; i++)
        CHECK(map_get(m, key_of(i, text)) == (present[i] ? &values[i] : NULL));
    CHECK(map_count(m) == count);
    size_t seen = 0;
    map_each(m, count_visit, &seen);
    CHECK(seen == count);
    map_free(m, NULL);
}

TEST(keys_are_bytes_and_copied)
{
    struct map *m = map_new();
    char key[4] = {'a', '\0', 'b', 'c'};
    int one = 1, two = 2, empty = 3;
    CHECK(map_put(m, slice_of(key, 4), &one) == NULL);
    CHECK(map_put(m, slice_of("a", 1), &two) == NULL);
    CHECK(map_put(m, slice_of(NULL, 0), &empty) == NULL);
    key[0] = 'z';
    CHECK(map_get(m, slice_of("a\0bc", 4)) == &one);
    CHECK(map_get(m, slice_of(key, 4)) == NULL);
    CHECK(map_get(m, slice_str("a")) == &two);
    CHECK(map_get(m, slice_str("")) == &empty);
    CHECK(map_put(m, slice_str("a"), &one) == &two);
    CHECK(map_count(m) == 3);
    struct slice own = map_key(m, slice_of("a\0bc", 4));
    CHECK(slice_equal(own, slice_of("a\0bc", 4)) && own.ptr != key);
    CHECK(map_key(m, slice_of(key, 4)).ptr == NULL);
    CHECK(map_remove(m, own) == &one && map_key(m, slice_of("a\0bc", 4)).ptr == NULL);
    map_free(m, NULL);
}

TEST(an_empty_map)
{
    struct map *m = map_new();
    CHECK(map_get(m, slice_str("a")) == NULL);
    CHECK(map_remove(m, slice_str("a")) == NULL);
    CHECK(map_count(m) == 0);
    map_free(m, NULL);
    map_free(NULL, NULL);
}

TEST(values_are_freed_on_request)
{
    struct map *m = map_new();
    char text[32];
    for (int i = 0; i < 100; i++)
        map_put(m, key_of(i, text), malloc(8));
    free(map_remove(m, key_of(5, text)));
    map_free(m, free); /* the leak check counts */
}
