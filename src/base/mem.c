/* Heap memory that is never NULL: running out of it aborts the process, which its supervisor then
 * replaces. Sizes that come from a peer are capped before they get here. */
#include "sallyport/base/mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void die_of_memory(void) __attribute__((noreturn, cold));

static void
die_of_memory(void)
{
    /* No formatting: that could need memory. */
    static const char text[] = "sallyport: alarm: out of memory\n";
    ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
    (void)ignored;
    abort();
}

void *
mem_alloc(size_t size)
{
    void *p = malloc(size ? size : 1);
    if (!p)
        die_of_memory();
    return p;
}

/* glibc's calloc looks for memory where its malloc only goes when it has none of that size at hand; of large blocks it knows
 * which come from the kernel as zeros. */
#define SMALL 1024

void *
mem_zalloc(size_t size)
{
    if (size <= SMALL)
        return memset(mem_alloc(size), 0, size);
    void *p = calloc(1, size);
    if (!p)
        die_of_memory();
    return p;
}

void *
mem_array(size_t count, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(count, size, &total))
        die_of_memory();
    return mem_zalloc(total);
}

void *
mem_realloc(void *ptr, size_t size)
{
    void *p = realloc(ptr, size ? size : 1);
    if (!p)
        die_of_memory();
    return p;
}

char *
mem_dup_slice(struct slice s)
{
    if (s.len == SIZE_MAX)
        die_of_memory();
    char *copy = mem_alloc(s.len + 1);
    if (s.len > 0)
        memcpy(copy, s.ptr, s.len);
    copy[s.len] = '\0';
    return copy;
}

char *
mem_strdup(const char *text)
{
    return mem_dup_slice(slice_str(text));
}

char *
mem_printf(const char *fmt, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, fmt);
    int len = vasprintf(&text, fmt, args);
    va_end(args);
    if (len < 0)
        die_of_memory();
    return text;
}

void
mem_wipe(void *ptr, size_t len)
{
    if (len > 0)
        explicit_bzero(ptr, len);
}

void
mem_free_pointer(void *pointer_to_pointer)
{
    /* Read as bytes: the pointer behind it may be of any type. */
    void *p;
    memcpy(&p, pointer_to_pointer, sizeof p);
    free(p);
}
