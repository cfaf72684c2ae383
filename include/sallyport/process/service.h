/* What a service manager passes in and wants to hear: LISTEN_FDS (sd_listen_fds(3)) and NOTIFY_SOCKET (sd_notify(3)). */
#ifndef SALLYPORT_PROCESS_SERVICE_H
#define SALLYPORT_PROCESS_SERVICE_H

#include <stddef.h>

#include "sallyport/base/err.h"

#define PASSED_FDS_MAX 64

struct passed_fd { char *name; int fd; };
struct passed_fds { struct passed_fd items[PASSED_FDS_MAX]; size_t count; };

/* Reads and clears LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES; marks the descriptors close-on-exec. Not for us: none. */
int service_passed_fds(struct passed_fds *ret, struct err *err);
/* Several descriptors may have one name: the nth of them (from 0), or -1. */
int service_passed_fd(const struct passed_fds *p, const char *name, size_t nth);
void service_forget(struct passed_fds *p); /* closes nothing */
/* "READY=1" and the like; without NOTIFY_SOCKET nothing. The variable is read once and removed from the environment. */
void service_notify(const char *state);

#endif
