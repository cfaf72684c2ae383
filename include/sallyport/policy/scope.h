/* Everything that a policy lets out, with where each entry comes from; and what changes between two policies. */
#ifndef SALLYPORT_POLICY_SCOPE_H
#define SALLYPORT_POLICY_SCOPE_H

#include <stdbool.h>

#include "sallyport/policy/decide.h"
#include "sallyport/policy/hosts.h"

#define SCOPE_PORTS_SIZE 128
#define SCOPE_DETAIL_SIZE 512

enum scope_effect { SCOPE_CLOSED = 0 /* written, but something else keeps it shut */, SCOPE_OPEN, SCOPE_DENY };

struct scope_row {
    enum scope_effect effect;
    char host[ENTRY_TEXT_SIZE];       /* "*.example.com"; "(every public host)" for an unrestricted policy */
    char ports[SCOPE_PORTS_SIZE];     /* "80,443"; "all" for blocked entries */
    enum source source;
    char where[RULE_TEXT_SIZE];       /* "allowed_hosts[2]" */
    char detail[SCOPE_DETAIL_SIZE];   /* "GET,HEAD ^/repos/", or why it is closed; "" */
};

/* Rows in the order in which a decision looks at them. */
void policy_scope(const struct policy *p, void (*visit)(void *ctx, const struct scope_row *row), void *ctx);

/* What the two policies decide differently, over every host, port and method that either of them names (a wildcard by a name
 * below it). `opened`: denied before, let out now. Returns the number of differences that open something. */
struct diff_row {
    bool opened;
    struct target target;
    bool below;                       /* stands for every name below the host */
    const char *method;               /* NULL: the tunnel */
    struct verdict before, after;
    /* A rule with methods or a path that only one of the two has: what it matches cannot be asked about, so an allow that
     * came or a deny that went counts as opening. "" for the rows above. */
    char rule[RULE_TEXT_SIZE];
};
size_t policy_diff(const struct policy *before, const struct policy *after, void (*visit)(void *ctx, const struct diff_row *row), void *ctx);

#endif
