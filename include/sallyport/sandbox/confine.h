/* Giving up: capabilities, privileges, and the system calls that a sandboxed program has no use for. */
#ifndef SALLYPORT_SANDBOX_CONFINE_H
#define SALLYPORT_SANDBOX_CONFINE_H

#include "sallyport/base/err.h"
#include "sallyport/base/slice.h"
#include "sallyport/sandbox/place.h"

/* Becomes place's user (root's way), without any capability and without a way to get one. Irrevocable. */
int drop_privileges(const struct place *p, struct err *err);
/* The filter as a program of the kernel's: compiled by the launcher (libseccomp takes its time, and there is some while the
 * tree is made), loaded inside, last. *ret is heap. */
int call_filter_make(char **ret, size_t *ret_len, struct err *err);
int call_filter_load(struct slice program, struct err *err);

#endif
