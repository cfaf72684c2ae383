/* The revocation list: a JSON array of {"jti"|"sub": …, "until"?: seconds since 1970}. Immutable after loading. */
#ifndef SALLYPORT_AUTH_REVOCATION_H
#define SALLYPORT_AUTH_REVOCATION_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/auth/identity.h"
#include "sallyport/base/err.h"

#define REVOCATIONS_MAX 1000000 /* entries of one list */

struct revocations;
struct revocations *revocations_parse(struct slice json, const char *name, struct err *err); /* empty text: empty list */
struct revocations *revocations_ref(struct revocations *r);
void revocations_unref(struct revocations *r);
/* By jti or sub; an entry whose `until` has passed no longer counts. */
bool revocations_has(const struct revocations *r, const struct identity *id, int64_t now_s);

#endif
