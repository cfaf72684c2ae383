/* The sandbox's first process (PID 1 of its namespace): makes the network, the file tree and the terminal, gives everything up,
 * starts CMD, and reaps. */
#ifndef SALLYPORT_SANDBOX_INSIDE_H
#define SALLYPORT_SANDBOX_INSIDE_H

#include "sallyport/sandbox/confine.h"
#include "sallyport/sandbox/limits.h"
#include "sallyport/sandbox/options.h"
#include "sallyport/sandbox/place.h"

struct inside {
    const struct sandbox_options *options;
    const struct place *place;
    const struct limits *limits;
    char **env;            /* CMD's */
    const char *ca_bundle; /* text */
    int control;
    char *words;           /* where the launcher's arguments and environment lie: everybody inside could read them */
    size_t words_len;
    bool terminal;         /* a standard descriptor is a terminal: CMD gets one of its own */
};

/* Runs in the cloned process; never returns. */
void inside_main(const struct inside *in) __attribute__((noreturn));

#endif
