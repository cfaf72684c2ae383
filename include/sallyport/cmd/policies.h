/* What the commands about policies share: the operator's side (configuration and data files) as the proxy would have it, and
 * policies read from files or named by a token. */
#ifndef SALLYPORT_CMD_POLICIES_H
#define SALLYPORT_CMD_POLICIES_H

#include "sallyport/base/err.h"
#include "sallyport/policy/guard.h"
#include "sallyport/policy/policy.h"
#include "sallyport/proxy/settings.h"

struct desk {
    struct settings settings; /* defaults without --config */
    char *config_file;        /* NULL without --config */
    struct policy_context *context;
    struct guard *guard;      /* knows no own addresses and listeners: those belong to a running proxy */
};

int desk_open(struct desk *d, const char *config_file, struct err *err);
void desk_close(struct desk *d);
/* A policy file as `serve` reads it. */
struct policy *desk_policy_file(struct desk *d, const char *path, struct err *err);
/* NAME.json of a directory. */
struct policy *desk_policy_named(struct desk *d, const char *dir, const char *name, struct err *err);
/* The policy that a token brings: verified with the JWKS file, then named (in dir), embedded or the configuration's default.
 * *ret_claim is what `check` says about the token (heap). When the token is refused the reason is returned, else REASON_OK;
 * REASON_UNDECIDED with err: bad input. */
enum reason desk_policy_of_token(struct desk *d, const char *token_file, const char *jwks_file, const char *dir, struct policy **ret, char **ret_claim, struct err *err);

#endif
