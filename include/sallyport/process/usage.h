/* What our processes use, from /proc. */
#ifndef SALLYPORT_PROCESS_USAGE_H
#define SALLYPORT_PROCESS_USAGE_H

#include <stdint.h>
#include <sys/types.h>

struct usage { uint64_t cpu_ms, rss_bytes, open_fds; };

/* Adds those of one process; what cannot be read adds nothing. */
void usage_add(pid_t pid, struct usage *sum);

#endif
