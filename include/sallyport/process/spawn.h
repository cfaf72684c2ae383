/* Starting a child: fork and exec of its binary with a role and descriptors by number, so that every start has a fresh address
 * layout. */
#ifndef SALLYPORT_PROCESS_SPAWN_H
#define SALLYPORT_PROCESS_SPAWN_H

#include <sys/types.h>

#include "sallyport/base/err.h"

#define SPAWN_ARGS_MAX 320
#define SPAWN_FDS_MAX 160

struct spawn {
    char *args[SPAWN_ARGS_MAX + 1];
    int arg_count;
    int fds[SPAWN_FDS_MAX]; /* become 3, 4, … in the child; borrowed */
    int fd_count;
    int program;            /* the binary to become, as a descriptor; borrowed */
};

/* Opens a binary that came with this one: beside it, or in the libexec folder beside its own. Whoever keeps the descriptor starts
 * the same one each time, whatever is installed meanwhile. -1 with err. */
int spawn_program(const char *name, struct err *err);

void spawn_init(struct spawn *s, int program, const char *role);
void spawn_done(struct spawn *s);
void spawn_text(struct spawn *s, const char *option, const char *value);
void spawn_number(struct spawn *s, const char *option, long value);
void spawn_fd(struct spawn *s, const char *option, int fd);
void spawn_user(struct spawn *s, int uid, int gid); /* to become; uid -1: nobody else */
/* "--listen NAME=FD" or "NAME=FD:shared" */
void spawn_named_fd(struct spawn *s, const char *option, const char *name, int fd, const char *suffix);
/* -1 with err when fork failed; an exec that fails ends the child with status 127. */
pid_t spawn_run(struct spawn *s, struct err *err);

#endif
