/* The arena: aligned, zeroed, reset keeps the first block; and lists, which live in such memory. */
#include "unit/test.h"

#include <stdint.h>

#include "sallyport/base/arena.h"
#include "sallyport/base/list.h"
#include "sallyport/base/mem.h"

TEST(allocations_are_aligned_and_zeroed)
{
    struct arena *a = arena_new(64);
    for (size_t size = 0; size < 5000; size += 37) {
        unsigned char *p = arena_alloc(a, size);
        CHECK((uintptr_t)p % _Alignof(max_align_t) == 0);
        for (size_t i = 0; i < size; i++)
            CHECK(p[i] == 0);
        memset(p, 0xff, size);
    }
    arena_reset(a);
    unsigned char *p = arena_alloc(a, 64);
    CHECK(p[0] == 0 && p[63] == 0);
    arena_free(a);
    arena_free(NULL);
}

TEST(the_first_block_serves_the_usual_case)
{
    struct arena *a = arena_new(256);
    char *first = arena_alloc(a, 100), *second = arena_alloc(a, 100);
    CHECK(second > first && second - first < 256);
    arena_reset(a);
    CHECK((char *)arena_alloc(a, 100) == first);
    arena_free(a);
}

/* Blocks of the usual size come back: what another arena left in them must not. */
TEST(blocks_that_are_used_again_are_zeroed_when_given_out)
{
    struct arena *arenas[100];
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < sizeof arenas / sizeof arenas[0]; i++) {
            arenas[i] = arena_new(i % 3 ? ARENA_USUAL : 512 * (1 + i % 7));
            unsigned char *p = arena_alloc(arenas[i], 512), *q = arena_alloc(arenas[i], ARENA_USUAL);
            for (size_t k = 0; k < 512; k++)
                CHECK(p[k] == 0 && q[k] == 0);
            memset(p, (int)i, 512);
            memset(q, (int)i, ARENA_USUAL);
        }
        for (size_t i = 0; i < sizeof arenas / sizeof arenas[0]; i++)
            arena_free(arenas[i]);
    }
}

TEST(copies_are_terminated)
{
    struct arena *a = arena_new(16);
    struct slice copy = arena_dup(a, slice_of("a\0b", 3));
    CHECK(copy.len == 3 && memcmp(copy.ptr, "a\0b", 4) == 0);
    CHECK_STR(arena_strdup(a, slice_of("hello", 4)), "hell");
    CHECK_STR(arena_printf(a, "%s-%d", "x", 12), "x-12");
    CHECK_STR(arena_strdup(a, slice_of(NULL, 0)), "");
    char *large = arena_alloc(a, 1000000);
    large[999999] = 1;
    arena_free(a);
}

struct item {
    struct list_node node;
    int number;
};

TEST(lists_keep_order_and_count)
{
    struct list l;
    struct item items[3] = {{.number = 0}, {.number = 1}, {.number = 2}};
    list_init(&l);
    CHECK(list_empty(&l) && list_first(&l) == NULL && list_last(&l) == NULL);
    list_append(&l, &items[1].node);
    list_append(&l, &items[2].node);
    list_prepend(&l, &items[0].node);
    int expected = 0;
    for (struct list_node *n = list_first(&l); n; n = list_next(&l, n))
        CHECK(list_entry(n, struct item, node)->number == expected++);
    CHECK(expected == 3 && l.count == 3);
    list_remove(&l, &items[1].node);
    CHECK(!list_linked(&items[1].node) && l.count == 2);
    CHECK(list_next(&l, &items[0].node) == &items[2].node);
    list_remove(&l, &items[0].node);
    list_remove(&l, &items[2].node);
    CHECK(list_empty(&l));
}

TEST(memory_helpers)
{
    cleanup_free char *text = mem_printf("%d", 5);
    char *moved = steal(&text);
    CHECK(text == NULL);
    CHECK_STR(moved, "5");
    mem_wipe(moved, 1);
    CHECK(moved[0] == 0);
    free(moved);
    unsigned *zeros = mem_array(10, sizeof *zeros);
    CHECK(zeros[9] == 0);
    free(zeros);
    free(mem_alloc(0));
}
