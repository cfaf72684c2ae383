/* Synthetic addresses of a sandbox: what its DNS is told instead of real ones, so that a later connection to such an address
 * says which name was meant. Addresses lead nowhere but to this proxy. */
#ifndef SALLYPORT_PROXY_NAMES_H
#define SALLYPORT_PROXY_NAMES_H

#include "sallyport/http/target.h"

#define NAMES_MAX 4096 /* the least recently used name goes first */

struct names;

struct names *names_new(void);
void names_free(struct names *n);
/* The address of the name, a new one when it has none: in 198.18.0.0/15 (RFC 2544) or a ULA prefix (RFC 4193). */
struct addr names_address(struct names *n, const struct host *name, int family);
/* Borrowed until the next names_address; NULL when no name has that address. */
const struct host *names_find(struct names *n, const struct addr *a);
bool names_is_synthetic(const struct addr *a);

#endif
