/* The socket that sees what the proxy does not: attempts to reach what has no listener, on the sandbox's loopback. A classic
 * packet filter passes first packets only, so that a busy tunnel costs its reader nothing. */
#ifndef SALLYPORT_SANDBOX_WATCH_H
#define SALLYPORT_SANDBOX_WATCH_H

#include <linux/filter.h>
#include <stddef.h>
#include <stdint.h>

#include "sallyport/base/err.h"

#define WATCH_PROGRAM_MAX 160
#define WATCH_BYTES 96 /* of a packet, from its network header on */

/* tcp and udp: the ports that have a listener at every address. Returns the number of instructions. The packet begins with its
 * network header (a SOCK_DGRAM packet socket). */
size_t watch_program(const uint16_t *tcp, size_t tcp_count, const uint16_t *udp, size_t udp_count,
                     struct sock_filter out[WATCH_PROGRAM_MAX]);
int watch_open(const uint16_t *tcp, size_t tcp_count, const uint16_t *udp, size_t udp_count, struct err *err);

#endif
