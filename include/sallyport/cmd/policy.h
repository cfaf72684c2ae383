/* What the verbs of `sallyport policy` share: the options, and the decisions of old records as replay and suggest read them. */
#ifndef SALLYPORT_CMD_POLICY_H
#define SALLYPORT_CMD_POLICY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/err.h"
#include "sallyport/base/reason.h"
#include "sallyport/base/slice.h"
#include "sallyport/cmd/policies.h"

struct policy_options {
    const char *config, *policy, *base, *sandbox, *wildcard;
    bool json, help, strict, denied;
};

/* How a request came; what a record of it holds follows from it. */
enum entry { ENTRY_OTHER = 0, ENTRY_TUNNEL /* connect, transparent */, ENTRY_FORWARD, ENTRY_INSPECTED, ENTRY_DNS };

/* A decision record, or `repeated`: refusals that were folded into one. Texts are the record's (any byte; ptr NULL: absent). */
struct old_decision {
    bool repeated, allow, inspect;
    bool cut;                 /* host, method or path is longer than a record holds */
    enum entry entry;
    enum reason reason;       /* UNDECIDED: a word that is not ours */
    struct slice host, method, path, rule, source;
    uint16_t port;            /* 0: the record holds none */
    const json_t *addresses;  /* array, or NULL */
    uint64_t count;           /* 1; of `repeated` as many as it stands for */
};
typedef void old_decision_fn(void *ctx, const struct old_decision *d);

/* Reads the files of a log (one name stands for its rotated files too) and hands over their decisions in order; of one sandbox
 * alone when it is given. -1 with err: no such file, a line that is no record, or nothing of that sandbox. *ret_torn counts last
 * lines without a newline, which are no records. */
int old_decisions_each(int argc, char **argv, const char *sandbox, old_decision_fn *fn, void *ctx, uint64_t *ret_torn, struct err *err);

/* The verbs; each prints and returns the exit status, or -1 with err. */
int policy_replay(struct desk *d, int argc, char **argv, const struct policy_options *o, struct err *err);
int policy_suggest(struct desk *d, int argc, char **argv, const struct policy_options *o, struct err *err);

#endif
