/* How a sandbox is made here: which namespaces, and who its processes are. Decided once by what the caller may do. */
#ifndef SALLYPORT_SANDBOX_PLACE_H
#define SALLYPORT_SANDBOX_PLACE_H

#include <stdbool.h>
#include <sys/types.h>

#include "sallyport/base/err.h"
#include "sallyport/sandbox/options.h"

#define INSIDE_UID 1000 /* in a user namespace */

struct place {
    bool user_namespace;   /* false: root's way, real namespaces and a uid of its own */
    uid_t uid;             /* inside */
    gid_t gid;
    int idmap;             /* root's way: a user namespace that shows root's files as the sandbox's own; -1: none */
    char idmap_why[128];   /* why not */
};

int place_choose(const struct sandbox_options *o, struct place *ret, struct err *err);
/* Clones into the namespaces. Returns as fork(2); -1 with err, which names the kernel setting that stands in the way. */
pid_t place_clone(const struct place *p, struct err *err);
/* Maps the ids of the cloned process (user namespace only). */
int place_map_ids(const struct place *p, pid_t pid, struct err *err);
/* Puts the kernel setting that stands in the way behind the error; certain: where none is found, says what else it may be. */
void place_explain(const struct place *p, bool certain, struct err *err);

#endif
