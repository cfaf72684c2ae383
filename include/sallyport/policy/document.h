/* Reading parts of a policy document, shared by its two readers; for this layer alone. */
#ifndef SALLYPORT_POLICY_DOCUMENT_H
#define SALLYPORT_POLICY_DOCUMENT_H

#include "sallyport/base/json.h"
#include "sallyport/policy/model.h"

/* An entry that only names hosts (blocked, passthrough, private), or one that opens them: a literal in a forbidden range
 * loads there only where the operator has opened it. */
enum entry_use { ENTRY_NAMES = 0, ENTRY_OPENS };

int document_entry(const struct policy_context *c, const struct json_at *at, enum entry_use use, struct host_entry *ret, struct err *err);
/* A list of host entries into *ret (new, sealed); absent: an empty one. */
int document_hosts(const struct policy *p, const struct json_at *at, enum entry_use use, struct hosts **ret, struct err *err);
/* A list of strings, NULL-terminated copies; absent leaves *ret NULL. */
int document_texts(const struct json_at *at, size_t max, char ***ret, struct err *err);
/* One of words (NULL-terminated); absent leaves *ret alone; the error names the nearest. */
int document_word(const struct json_at *at, const char *const *words, int *ret, struct err *err);

int document_rules(struct policy *p, const struct json_at *at, struct err *err);
int document_servers(struct policy *p, const struct json_at *at, enum mcp_default fallback, struct err *err);
int document_privates(struct policy *p, const struct json_at *at, struct err *err);
/* What can only be judged when all is read: rules and tool lists against inspection. */
int document_check_sight(const struct policy *p, const struct json_at *root, struct err *err);

#endif
