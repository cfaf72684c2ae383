/* The network of a sandbox by rtnetlink(7): loopback up, and every destination local. No tool is called. */
#ifndef SALLYPORT_SANDBOX_NETLINK_H
#define SALLYPORT_SANDBOX_NETLINK_H

#include <stdbool.h>
#include <stddef.h>

#include "sallyport/base/err.h"

#define NETLINK_ROUTES_SIZE 512

/* One datagram of requests: `lo` up, `local 0.0.0.0/0 dev lo` and, with ipv6, `local ::/0 dev lo`. Returns its length;
 * *ret_requests is how many answers will come. */
size_t netlink_build(int loopback, bool ipv6, unsigned char out[NETLINK_ROUTES_SIZE], size_t *ret_requests);
/* Does it in the present network namespace. A kernel without IPv6 is fine: *ret_ipv6. */
int netlink_set_up(bool *ret_ipv6, struct err *err);

#endif
