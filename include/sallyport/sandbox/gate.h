/* The proxy beside the sandbox: `sallyport serve` with the sandbox's sockets, started and stopped by the launcher. */
#ifndef SALLYPORT_SANDBOX_GATE_H
#define SALLYPORT_SANDBOX_GATE_H

#include <stdbool.h>
#include <sys/types.h>

#include "sallyport/base/err.h"
#include "sallyport/sandbox/options.h"
#include "sallyport/sandbox/sockets.h"

struct gate {
    pid_t pid;    /* 0: not running */
    int notify;   /* where it says READY=1 */
    bool ready;
    char notify_path[108];
};

int gate_start(struct gate *g, const struct sandbox_options *o, const struct gate_sockets *sockets, struct err *err);
void gate_hear(struct gate *g); /* the notify socket is readable */
/* What it wrote on standard error, its last line: for an error. */
void gate_last_words(const struct sandbox_options *o, char *text, size_t size);

#endif
