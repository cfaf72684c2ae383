/* What the parts of the supervisor share. Only src/process/{supervisor,children,reload,records}.c include this. */
#ifndef SALLYPORT_PROCESS_CORE_H
#define SALLYPORT_PROCESS_CORE_H

#include <sys/types.h>

#include "sallyport/base/digest.h"
#include "sallyport/net/channel.h"
#include "sallyport/net/loop.h"
#include "sallyport/process/bundle.h"
#include "sallyport/process/control.h"
#include "sallyport/process/recordfile.h"
#include "sallyport/process/service.h"
#include "sallyport/process/sockets.h"
#include "sallyport/process/supervisor.h"
#include "sallyport/process/watch.h"
#include "sallyport/proxy/shared.h"

#define CHILDREN_MAX (SHARED_WORKERS_MAX + 2)
#define BUNDLE_KINDS 3 /* worker, recorder, admin */

struct supervisor;

struct child {
    struct supervisor *supervisor;
    enum role role;
    unsigned slot;           /* of a worker */
    pid_t pid;               /* 0: not running */
    struct channel *control; /* NULL: not running */
    bool ready, idle;
    bool wanted;             /* is started again when it ends */
    unsigned starts;
    int64_t backoff_ms;
    struct timer restart;
};

/* A configuration that has been read and checked, sealed for each kind of reader. */
struct loaded {
    json_t *config;          /* whole: file and command line */
    char *base;              /* what its paths stand on */
    struct settings settings;
    uint64_t generation;
    int fds[BUNDLE_KINDS];
    unsigned char digests[BUNDLE_KINDS][SHA256_SIZE];
    size_t policies;
    char *revoked;           /* the list's text, to see what is new in the next one */
};

enum phase { PHASE_STARTING = 0, PHASE_SERVING, PHASE_DRAINING, PHASE_STOPPING, PHASE_LAST /* recorder and admin end */ };

struct supervisor {
    const struct serve_options *options;
    struct loop *loop;
    enum phase phase;
    struct err *failure;     /* of the start */
    bool failed;
    struct passed_fds passed;
    char *token_texts[PASSED_FDS_MAX + 1]; /* what token_fd descriptors held, in step with token_names */
    const char *token_names[PASSED_FDS_MAX + 1];
    struct loaded running;
    struct sockets sockets;
    struct record_file record;
    int record_channels[SHARED_WORKERS_MAX][2]; /* worker's end, recorder's end; both stay open here */
    int shared_fd, fold_fd;
    struct shared *shared;
    int uid, gid;
    struct child children[CHILDREN_MAX];
    size_t child_count, worker_count;
    int admin_socket, admin_tcp; /* -1: none */
    char *admin_socket_path;
    struct watch *watch;
    struct timer deadline, housekeeping;
    int64_t crashes_ms[6];   /* the last worker crashes */
    unsigned crash_count;
    char *own;               /* addresses of this host, as last told */
};

/* children.c */
void children_prepare(struct supervisor *s);   /* the table */
int child_start(struct child *c, struct err *err);
void child_stop(struct child *c);               /* tells it to end now */
void children_reap(struct supervisor *s);       /* after SIGCHLD */
bool children_all(const struct supervisor *s, enum role role, bool (*is)(const struct child *c));
void children_tell(struct supervisor *s, enum role role, enum control what); /* ROLE_NONE: all */
void children_kill(struct supervisor *s);
struct child *child_of(struct supervisor *s, enum role role);

/* supervisor.c: what the children tell of. */
void supervisor_on_ready(struct supervisor *s);
void supervisor_on_idle(struct supervisor *s);
void supervisor_on_gone(struct supervisor *s);  /* some child ended */
void supervisor_fail(struct supervisor *s, const struct err *err);

/* reload.c */
int load_settings(struct supervisor *s, struct loaded *ret, struct err *err);
int load_bundle(struct supervisor *s, struct loaded *l, struct err *err);
void loaded_free(struct loaded *l);
void reload(struct supervisor *s, const char *why);
void watch_files(struct supervisor *s);
char *own_addresses(const struct settings *settings);
size_t bundle_kind(enum role role);

/* records.c */
int records_open(struct supervisor *s, struct err *err);
void records_on_want(struct supervisor *s, const struct frame *frame);
void records_event(struct supervisor *s, uint16_t event, const char *members);
void records_revoked(struct supervisor *s, const char *before, const char *after);
void records_check(struct supervisor *s);

#endif
