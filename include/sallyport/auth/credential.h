/* Proxy-Authorization (RFC 9110 section 11.7.2): finds the token in a request head. */
#ifndef SALLYPORT_AUTH_CREDENTIAL_H
#define SALLYPORT_AUTH_CREDENTIAL_H

#include "sallyport/base/arena.h"
#include "sallyport/base/reason.h"
#include "sallyport/http/head.h"

#define TOKEN_MAX 16384 /* bytes (CONTRACT section 4) */

/* REASON_OK and the token (the arena's or the head's bytes); REASON_TOKEN_MISSING without the field;
 * REASON_TOKEN_MALFORMED for two fields, another scheme, bad base64, no password, over TOKEN_MAX.
 * Basic: any user name, the password is the token; a `jwt_` prefix of it is dropped. Or Bearer. */
enum reason credential_read(struct arena *arena, const struct head *head, struct slice *ret_token);

#endif
