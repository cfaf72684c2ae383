/* The binaries that belong together: finding one, and becoming it. */
#ifndef SALLYPORT_CMD_HELPER_H
#define SALLYPORT_CMD_HELPER_H

#include "sallyport/base/err.h"

/* Its path (heap): beside the running binary, in its ../libexec/sallyport (or, from there, in bin), or in the installation's. NULL
 * with err (ERR_RUN) when it is in none of them. */
char *helper_path(const char *name, struct err *err);
/* argv[0] is what it is to do. Returns only when it could not be started: -1 with err. */
int helper_exec(const char *name, int argc, char **argv, struct err *err);

#endif
