/* Which tunnels are inspected: what policy_decide says of the tunnel, and for refusals whether its inside may be seen. Pure. */
#include "sallyport/policy/inspect.h"

#include "sallyport/policy/decide.h"
#include "sallyport/policy/model.h"

static bool
passes_through(const struct policy *p, const struct host *host, uint16_t port)
{
    uint32_t index;
    struct host_key key;
    host_key_init(&key, host);
    return hosts_find(p->passthrough, &key, port, true, HOSTS_ANY, &index) == HOSTS_MATCH ||
           hosts_find(p->context->passthrough, &key, port, true, HOSTS_ANY, &index) == HOSTS_MATCH;
}

bool
policy_inspects(const struct policy *p, const struct host *host, uint16_t port, bool refusals)
{
    struct target target = {.scheme = SCHEME_NONE, .host = *host, .port = port};
    struct question question = {.target = &target};
    struct verdict verdict;
    if (p->inspect == INSPECT_OFF || port == 0 || context_tunnel_scheme(p->context, port) == SCHEME_HTTP || passes_through(p, host, port))
        return false;
    policy_decide(p, &question, &verdict);
    return verdict.action == ACTION_INSPECT || (refusals && verdict.action == ACTION_DENY);
}
