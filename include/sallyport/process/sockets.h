/* Listening sockets, opened and kept by the supervisor: one for each worker slot (SO_REUSEPORT), so that a restarted worker
 * inherits the queue of the dead one; sockets passed in by a service manager are shared by all workers. */
#ifndef SALLYPORT_PROCESS_SOCKETS_H
#define SALLYPORT_PROCESS_SOCKETS_H

#include <sys/socket.h>

#include "sallyport/base/err.h"
#include "sallyport/process/config.h"
#include "sallyport/process/service.h"
#include "sallyport/proxy/shared.h"

#define SOCKETS_MAX 64 /* at least CONFIG_LISTENERS_MAX: passed ones may be several a listener */

struct socket_row {
    char *name;
    bool shared;             /* one socket for all slots */
    bool listens;            /* not so: datagrams, packets */
    int fds[SHARED_WORKERS_MAX];
    size_t count;            /* slots, or 1 */
    struct sockaddr_storage address; /* as bound */
};

struct sockets {
    struct socket_row rows[SOCKETS_MAX];
    size_t count;
};

int sockets_open(const struct settings *s, size_t slots, const struct passed_fds *passed, struct sockets *ret, struct err *err);
void sockets_close(struct sockets *s);
/* After a worker's crash: one that was taken over may have shut its door for the next, too (shutdown(2) is the socket's, not
 * the process's). What no longer listens is opened anew at its address; a passed one cannot be, which is an alarm. Returns
 * how many are still shut. */
size_t sockets_mend(struct sockets *s, size_t slot);
/* The bound addresses, a line each (heap). */
char *sockets_text(const struct sockets *s);
/* A listening socket of the admin process. The unix one is 0600 and replaces one that nobody listens on. */
int socket_open_tcp(const char *address, const char *setting, struct err *err);
int socket_open_unix(const char *path, struct err *err);

#endif
