/* --memory, --cpus and --pids: a control group of the sandbox's own (v2 where delegated, v1), or rlimits. */
#ifndef SALLYPORT_SANDBOX_LIMITS_H
#define SALLYPORT_SANDBOX_LIMITS_H

#include <stdbool.h>
#include <sys/types.h>

#include "sallyport/base/err.h"
#include "sallyport/sandbox/options.h"

#define LIMIT_GROUPS_MAX 3

struct limits {
    char *groups[LIMIT_GROUPS_MAX]; /* folders that are ours */
    size_t count;
    bool rlimits; /* best effort: limits_inside lays them */
};

bool limits_wanted(const struct sandbox_options *o);
/* Makes the groups. With best_effort and none to be had: rlimits, and *ret says so. */
int limits_make(const struct sandbox_options *o, struct limits *ret, struct err *err);
int limits_join(const struct limits *l, pid_t pid, struct err *err);
int limits_inside(const struct sandbox_options *o, const struct limits *l, struct err *err);
/* When all processes are gone. */
void limits_remove(struct limits *l);
/* Groups that a launcher left which was killed. */
void limits_sweep(void);

#endif
