/* Giving up: capabilities, privileges, and the system calls that a sandboxed program has no use for. */
#ifndef SALLYPORT_SANDBOX_CONFINE_H
#define SALLYPORT_SANDBOX_CONFINE_H

#include "sallyport/base/err.h"
#include "sallyport/sandbox/place.h"

/* Becomes place's user (root's way), without any capability and without a way to get one. Irrevocable. */
int drop_privileges(const struct place *p, struct err *err);
/* The filter, made in advance (libseccomp takes its time) and loaded last. NULL with err. */
struct call_filter;
struct call_filter *call_filter_make(struct err *err);
int call_filter_load(const struct call_filter *f, struct err *err);

#endif
