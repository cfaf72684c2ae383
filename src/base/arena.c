/* A region freed as a whole. Blocks are chained, newest first; the oldest holds the struct itself,
 * so that the usual exchange costs one allocation. Single allocations are never freed. */
#include "sallyport/base/arena.h"

#include <stdalign.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "sallyport/base/mem.h"
#include "sallyport/base/sanitized.h"

#define ARENA_ALIGN alignof(max_align_t)
#define ARENA_BLOCK_MIN 2048 /* later blocks: a few headers or a path; doubled as the arena grows  \
                              */
#define ARENA_BLOCK_MAX 65536
/* First blocks of the usual size come and go with every exchange, and malloc is slow with blocks of
 * that size: so many are kept. None in a sanitizer's build, which is to find what is used behind
 * its end. */
#define SPARES_MAX (SANITIZED ? 0 : 32)

struct block {
    struct block *older;
    size_t used; /* of data */
    size_t size; /* of data */
    alignas(max_align_t) unsigned char data[];
};

struct arena {
    struct block *newest;
    struct block *first;
    size_t next_size; /* of the block to be made next */
};

/* Not cleared: arena_alloc clears what it gives out. */
static _Thread_local struct block *spares; /* by `older` */
static _Thread_local unsigned spare_count;

static size_t
round_up(size_t size)
{
    size_t rounded;
    if (__builtin_add_overflow(size, ARENA_ALIGN - 1, &rounded))
        abort(); /* sizes are capped long before */
    return rounded & ~(ARENA_ALIGN - 1);
}

/* What an arena of ARENA_USUAL takes in its first block. */
static bool
is_usual(const struct block *b)
{
    return b->size == round_up(sizeof(struct arena)) + round_up(ARENA_USUAL);
}

static struct block *
block_new(size_t size, struct block *older)
{
    size_t total;
    if (__builtin_add_overflow(sizeof(struct block), size, &total))
        abort();
    struct block *b = mem_alloc(total);
    b->older = older;
    b->used = 0;
    b->size = size;
    return b;
}

static struct block *
first_block_new(size_t size)
{
    struct block *b = spares;
    if (!b || b->size != size)
        return block_new(size, NULL);
    spares = b->older;
    spare_count--;
    b->older = NULL;
    return b;
}

static void
first_block_free(struct block *b)
{
    if (!is_usual(b) || spare_count == SPARES_MAX) {
        free(b);
        return;
    }
    b->older = spares;
    spares = b;
    spare_count++;
}

struct arena *
arena_new(size_t first_size)
{
    size_t own = round_up(sizeof(struct arena));
    struct block *b = first_block_new(own + round_up(first_size));
    struct arena *arena = (struct arena *)(void *)b->data;
    b->used = own;
    *arena = (struct arena){.newest = b, .first = b, .next_size = ARENA_BLOCK_MIN};
    return arena;
}

void
arena_reset(struct arena *arena)
{
    while (arena->newest != arena->first) {
        struct block *b = arena->newest;
        arena->newest = b->older;
        free(b);
    }
    arena->first->used = round_up(sizeof(struct arena));
    arena->next_size = ARENA_BLOCK_MIN;
}

void
arena_free(struct arena *arena)
{
    if (!arena)
        return;
    arena_reset(arena);
    first_block_free(arena->first); /* and with it the arena */
}

static void
add_block(struct arena *arena, size_t need)
{
    size_t size = arena->next_size > need ? arena->next_size : need;
    arena->newest = block_new(size, arena->newest);
    if (arena->next_size < ARENA_BLOCK_MAX)
        arena->next_size *= 2;
}

void *
arena_alloc(struct arena *arena, size_t size)
{
    size_t need = round_up(size ? size : 1);
    if (arena->newest->size - arena->newest->used < need)
        add_block(arena, need);
    void *p = arena->newest->data + arena->newest->used;
    arena->newest->used += need;
    return memset(p, 0, need);
}

struct slice
arena_dup(struct arena *arena, struct slice s)
{
    return slice_of(arena_strdup(arena, s), s.len);
}

char *
arena_strdup(struct arena *arena, struct slice s)
{
    if (s.len == SIZE_MAX)
        abort();
    char *copy = arena_alloc(arena, s.len + 1);
    if (s.len > 0)
        memcpy(copy, s.ptr, s.len);
    return copy;
}

char *
arena_printf(struct arena *arena, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (len < 0)
        abort();
    char *text = arena_alloc(arena, (size_t)len + 1);
    va_start(args, fmt);
    vsnprintf(text, (size_t)len + 1, fmt, args);
    va_end(args);
    return text;
}
