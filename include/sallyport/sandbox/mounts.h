/* The file tree of a sandbox: a new root that holds what programs need, read-only, and the directories that were named. */
#ifndef SALLYPORT_SANDBOX_MOUNTS_H
#define SALLYPORT_SANDBOX_MOUNTS_H

#include "sallyport/base/err.h"
#include "sallyport/sandbox/options.h"
#include "sallyport/sandbox/place.h"

struct tree_wish {
    const struct sandbox_options *options;
    const struct place *place;
    const char *ca_bundle; /* its text, or NULL */
};

/* Makes it the root of the calling process, whose mount namespace is its own. *ret_workdir: where CMD starts (heap). */
int mounts_make(const struct tree_wish *wish, char **ret_workdir, struct err *err);
/* A directory by name with no symbolic link on the way: a descriptor for mounting (O_PATH), or -1 with err. */
int open_directory(const char *path, struct err *err);

#endif
