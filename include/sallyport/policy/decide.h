/* The decision: pure, no waiting, no allocation. CONTRACT section 3, "Order". */
#ifndef SALLYPORT_POLICY_DECIDE_H
#define SALLYPORT_POLICY_DECIDE_H

#include <stdbool.h>

#include "sallyport/base/reason.h"
#include "sallyport/http/target.h"
#include "sallyport/policy/policy.h"

/* Is there content behind the head? OPEN: the stream has not ended (HTTP/2), and there may be none. */
enum question_body { QUESTION_BODY_NONE = 0, QUESTION_BODY_OPEN, QUESTION_BODY_SENT };
#define BODY_ANY_LENGTH UINT64_MAX

struct question {
    const struct target *target; /* scheme: HTTP for a plain request, NONE for a tunnel, HTTPS inside an inspected one */
    struct slice method;         /* ptr NULL: not visible (a tunnel) */
    struct slice path;           /* path and query as sent; ptr NULL: not visible */
    enum question_body body;
    uint64_t body_len;           /* of QUESTION_BODY_SENT; BODY_ANY_LENGTH where only its end will tell */
    struct slice content_type;   /* with a body; ptr NULL: none was sent */
    bool upgrades;               /* asks for WebSocket, behind which bytes pass unseen */
};

enum action { ACTION_DENY = 0, ACTION_ALLOW, ACTION_INSPECT /* the tunnel opens for inspection only */ };
enum source { SOURCE_NONE = 0, SOURCE_POLICY, SOURCE_OPERATOR, SOURCE_REGISTRIES, SOURCE_MCP, SOURCE_BLOCKLIST, SOURCE_BUILTIN, SOURCE_PARENT };

#define RULE_TEXT_SIZE 96

struct verdict {
    enum action action;
    enum reason reason;          /* REASON_OK with ALLOW and INSPECT */
    enum source source;
    char rule[RULE_TEXT_SIZE];   /* "allowed_hosts[2]", "rules[0] read-acme", "package_managers.npm"; "" when none matched */
    uint64_t body_max;           /* of an allowed request: bytes of content that may follow; BODY_ANY_LENGTH */
    bool would_deny;             /* report mode: let through, but the order says otherwise */
    enum reason would_reason;
};

void policy_decide(const struct policy *policy, const struct question *question, struct verdict *ret);
const char *source_text(enum source s);
/* Does some rule of the policy name this method (so that it is forwarded at all)? For methods beyond the standard ones. */
bool policy_knows_method(const struct policy *policy, struct slice method);
/* Path normalisation for matching (dot segments, percent-encoding resolved once). False: still looks like a traversal
 * or is otherwise ambiguous. out has path.len + 1 bytes. */
bool path_normalise(struct slice path, char *out, size_t *ret_len);
/* The same for registries, where an escaped slash is usual inside of names: it stays, as %2F. False where reading it as a
 * slash would name something else than reading it as a character of a name, and for every other percent sign that is left. */
bool path_normalise_marked(struct slice path, char *out, size_t *ret_len);

#endif
