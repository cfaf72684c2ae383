/* Does a policy have the inside of a tunnel looked at? Asked by the keeper before it mints, and answered by the same order
 * as every decision. */
#ifndef SALLYPORT_POLICY_INSPECT_H
#define SALLYPORT_POLICY_INSPECT_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/http/target.h"
#include "sallyport/policy/policy.h"

/* refusals: also where the policy refuses the host and the refusal is to be said inside the tunnel (inspect.deny_in_tunnel).
 * Never for passthrough, nor where the policy does not inspect at all. */
bool policy_inspects(const struct policy *p, const struct host *host, uint16_t port, bool refusals);

#endif
