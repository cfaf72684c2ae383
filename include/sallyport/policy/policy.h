/* A compiled policy: from a document (JSON) to match structures whose cost does not grow with the lists. */
#ifndef SALLYPORT_POLICY_POLICY_H
#define SALLYPORT_POLICY_POLICY_H

#include <stdint.h>

#include "sallyport/base/digest.h"
#include "sallyport/policy/context.h"

#define POLICY_TEXT_MAX (64u << 20) /* bytes of one document */

struct policy; /* immutable, counted references */

enum policy_origin { POLICY_FILE = 0, POLICY_TOKEN }; /* a token's may not say "mode": "report" */

struct policy_limits {
    int64_t tunnels, bytes_up, requests_per_minute; /* 0: none of its own */
};

/* `name` is the policy's name in records, `file` is for errors. Warnings (heap, one line each, NULL-terminated array;
 * may be NULL) are what lint would say at load. */
struct policy *policy_compile(struct slice json, const char *name, const char *file, enum policy_origin origin, struct policy_context *context, struct err *err);
struct policy *policy_deny_all(struct policy_context *context, const char *name);
struct policy *policy_ref(struct policy *p);
void policy_unref(struct policy *p);
const char *policy_name(const struct policy *p);
const char *policy_sha256(const struct policy *p); /* lower-case hex of the document's bytes */
const struct policy_limits *policy_limits_of(const struct policy *p);

#endif
