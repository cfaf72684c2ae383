/* The sockets that the sandbox's namespace gives to the gate: made inside, served outside. */
#ifndef SALLYPORT_SANDBOX_SOCKETS_H
#define SALLYPORT_SANDBOX_SOCKETS_H

#include <stdbool.h>
#include <stddef.h>

#include "sallyport/base/err.h"
#include "sallyport/sandbox/options.h"

#define GATE_SOCKETS_MAX (SANDBOX_PORTS_MAX + 8)

struct gate_sockets {
    int fds[GATE_SOCKETS_MAX];
    const char *names[GATE_SOCKETS_MAX]; /* LISTEN_FDNAMES; static */
    size_t count;
};

int gate_sockets_open(const struct sandbox_options *o, bool ipv6, struct gate_sockets *ret, struct err *err);
void gate_sockets_close(struct gate_sockets *s);
/* The same for whoever holds them last. Closing a packet socket waits for the kernel (a grace period, about 10 ms); one that
 * lies in a queue which only it leads to is closed by the kernel's collector, at once and behind our back. */
void gate_sockets_leave(struct gate_sockets *s);

#endif
