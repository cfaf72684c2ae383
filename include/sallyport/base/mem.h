/* Heap memory. Out of memory aborts: the caps in `limits` make it a sizing error, never an input error. */
#ifndef SALLYPORT_BASE_MEM_H
#define SALLYPORT_BASE_MEM_H

#include <stddef.h>
#include <stdlib.h>

#include "sallyport/base/slice.h"

void *mem_alloc(size_t size) __attribute__((malloc, returns_nonnull));                  /* uninitialised */
void *mem_zalloc(size_t size) __attribute__((malloc, returns_nonnull));                 /* zeroed */
void *mem_array(size_t count, size_t size) __attribute__((malloc, returns_nonnull));    /* zeroed, overflow aborts */
void *mem_realloc(void *ptr, size_t size) __attribute__((returns_nonnull));
char *mem_strdup(const char *text) __attribute__((malloc, returns_nonnull));
char *mem_dup_slice(struct slice s) __attribute__((malloc, returns_nonnull));           /* NUL-terminated copy */
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2), malloc, returns_nonnull));
/* Overwrites secrets in a way that the compiler does not remove. */
void mem_wipe(void *ptr, size_t len);

/* `cleanup_free char *p = …;` frees at the end of scope; steal(&p) hands it on. */
void mem_free_pointer(void *pointer_to_pointer);
#define cleanup_free __attribute__((cleanup(mem_free_pointer)))
#define steal(pp)                                                                                  \
    __extension__({                                                                                \
        __typeof__(*(pp)) stolen_ = *(pp);                                                         \
        *(pp) = NULL;                                                                              \
        stolen_;                                                                                   \
    })

#endif
