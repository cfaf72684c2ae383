/* The supervisor: `sallyport serve` in the foreground. Reads files, opens sockets, starts, restarts, reloads and drains the
 * others; parses nothing that comes from the network. */
#ifndef SALLYPORT_PROCESS_SUPERVISOR_H
#define SALLYPORT_PROCESS_SUPERVISOR_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/err.h"

struct serve_options {
    const char *config_file;  /* NULL: the command line alone */
    const json_t *flags;      /* {"auth.keys": …}: set over the file's members */
    const char *keys_jwks;    /* --dev: instead of auth.keys */
    const char *policy;       /* --dev: a policy text instead of files */
    int64_t drain_s;
    void (*on_ready)(void *arg, const char *listening); /* when all workers serve; the bound addresses, a line each */
    void *arg;
};

/* Runs until it has been told to end. 0, or -1 with err for what kept it from starting. */
int supervisor_run(const struct serve_options *options, struct err *err);

#endif
