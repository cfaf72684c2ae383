/* Counted references of identities. Who an identity is, is decided in claims.c; nothing changes it
 * afterwards. */
#include "sallyport/auth/identity.h"

#include <assert.h>

#include "sallyport/base/mem.h"

struct identity *
identity_new(void)
{
    struct identity *id = mem_zalloc(sizeof *id);
    id->refs = 1;
    return id;
}

struct identity *
identity_ref(struct identity *id)
{
    assert(id->refs > 0);
    id->refs++;
    return id;
}

static void
identity_free(struct identity *id)
{
    for (char **v = id->vault_ids; v && *v; v++)
        free(*v);
    free(id->vault_ids);
    free(id->sub);
    free(id->jti);
    free(id->session);
    free(id->org);
    free(id->user);
    free(id->policy_name);
    free(id->embedded_policy);
    free(id->binding_listener);
    free(id);
}

void
identity_unref(struct identity *id)
{
    if (!id)
        return;
    assert(id->refs > 0);
    if (--id->refs == 0)
        identity_free(id);
}
