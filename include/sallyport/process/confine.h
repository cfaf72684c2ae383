/* Giving up what a child does not need once it has started: user and groups, capabilities, files, exec, most system calls.
 * The only module with libseccomp. */
#ifndef SALLYPORT_PROCESS_CONFINE_H
#define SALLYPORT_PROCESS_CONFINE_H

#include "sallyport/base/err.h"
#include "sallyport/process/role.h"

/* For the rest of the process's life. A kernel without Landlock is a warning; a filter that cannot be loaded or a user that
 * cannot be left is an error. Only one thread may run. In builds with sanitizers, whose own work needs files and threads,
 * files stay readable and the filter only forbids what must never happen (exec, ptrace of others, mounts …). */
int confine(const struct role_start *start, struct err *err);

#endif
