/* What a policy says that its author may not have meant. Findings never change a decision. */
#ifndef SALLYPORT_POLICY_LINT_H
#define SALLYPORT_POLICY_LINT_H

#include <stdbool.h>
#include <stddef.h>

#include "sallyport/policy/policy.h"

#define LINT_FINDINGS_MAX 10000
#define LINT_TEXT_SIZE 512

enum lint_level { LINT_NOTE = 0, LINT_WARNING };

struct finding {
    enum lint_level level;
    const char *code;            /* "wildcard-shared", for filters */
    char where[96];              /* "networking.allowed_hosts[2]" */
    char text[LINT_TEXT_SIZE];
};

struct findings {
    struct finding *items;
    size_t count;
    size_t left_out;             /* beyond LINT_FINDINGS_MAX */
};

struct lint_options {
    bool has_parent;             /* upstream.parent is configured */
};

struct findings *policy_lint(const struct policy *p, const struct lint_options *o); /* heap; o may be NULL */
size_t findings_warnings(const struct findings *f);
void findings_free(struct findings *f);

#endif
