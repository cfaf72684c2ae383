/* What a sandbox finds in /etc: files of the host that hold no secret, and small ones of its own. */
#ifndef SALLYPORT_SANDBOX_ETC_H
#define SALLYPORT_SANDBOX_ETC_H

#include "sallyport/base/err.h"
#include "sallyport/sandbox/options.h"
#include "sallyport/sandbox/place.h"

/* Patterns (glob(7)) of what is shown of the host's, NULL-terminated. */
extern const char *const etc_shown[];

/* Writes the sandbox's own files, in the new root, which must be the process's already. An image keeps its accounts. */
int etc_write(const struct sandbox_options *o, const struct place *p, const char *ca_bundle, struct err *err);

#endif
