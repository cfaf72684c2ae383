/* The layout of a packed bundle: head, entries, then names and bytes. Only process/bundle.c and process/bundleview.c. */
#ifndef SALLYPORT_PROCESS_BUNDLEPACK_H
#define SALLYPORT_PROCESS_BUNDLEPACK_H

#include <stdint.h>

#define PACK_MAGIC UINT64_C(0x3154524f50594c53)
#define PACK_SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

struct pack_head { uint64_t magic, count, size; };
struct pack_entry { uint64_t name_at, name_len, at, len; };

#endif
