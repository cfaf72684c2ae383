/* Who is asking: the claims of a verified token. Immutable, counted references. */
#ifndef SALLYPORT_AUTH_IDENTITY_H
#define SALLYPORT_AUTH_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/addr.h"
#include "sallyport/base/digest.h"

enum binding_kind { BINDING_NONE = 0, BINDING_LISTENER, BINDING_ADDRESS, BINDING_CERTIFICATE };

struct identity {
    unsigned refs;
    char *sub;                   /* the sandbox; never NULL */
    char *jti, *session, *org, *user; /* NULL when absent */
    char **vault_ids;            /* NULL-terminated, or NULL */
    int64_t iat, exp, nbf;       /* seconds since 1970; nbf is 0 when absent */
    char *policy_name;           /* NULL when absent */
    char policy_sha256[SHA256_HEX_SIZE]; /* "" when absent */
    char *embedded_policy;       /* a policy document made of the token's claims, or NULL */
    enum binding_kind binding;
    char *binding_listener;      /* BINDING_LISTENER */
    struct cidr binding_address; /* BINDING_ADDRESS */
    char binding_x5t[44];        /* BINDING_CERTIFICATE: base64url of the SHA-256 */
};

struct identity *identity_new(void);
struct identity *identity_ref(struct identity *id);
void identity_unref(struct identity *id); /* NULL is fine */

#endif
