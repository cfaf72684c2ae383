/* A policy that a token carries in its claims instead of naming one: claims -> policy document. */
#ifndef SALLYPORT_AUTH_EMBEDDED_H
#define SALLYPORT_AUTH_EMBEDDED_H

#include <jansson.h>

#include "sallyport/auth/token.h"

bool embedded_is_present(const json_t *claims);
/* *ret: the text of a policy document (heap). It holds `networking`, `mcp_servers` and `package_managers` and nothing else that a token
 * might say. REASON_TOKEN_CLAIMS, with err, when `allowed` does not cover it or it is not one. The document itself is judged when it is
 * compiled. */
enum reason embedded_read(const json_t *claims, enum embedded_policies allowed, char **ret, struct err *err);

#endif
