/* Synthetic addresses of a sandbox: what its DNS is told instead of real ones, so that a later connection to such an address
 * says which name was meant. Addresses lead nowhere but to this proxy. */
#ifndef SALLYPORT_PROXY_NAMES_H
#define SALLYPORT_PROXY_NAMES_H

#include "sallyport/http/target.h"

#define NAMES_MAX 2047 /* of a worker; the least recently used name goes first */

struct names;

/* Each worker has a table and a range of addresses of its own: what another one gave out is known as such, and is nobody's. */
struct names *names_new(unsigned worker);
void names_free(struct names *n);
/* The address of the name for that sandbox, a new one when it has none: in 198.18.0.0/15 (RFC 2544) or a ULA prefix (RFC 4193). */
struct addr names_address(struct names *n, const char *sandbox, const struct host *name, int family);
/* Borrowed until the next names_address; NULL when no name of that sandbox has the address. */
const struct host *names_find(struct names *n, const char *sandbox, const struct addr *a);
bool names_is_synthetic(const struct addr *a);

#endif
