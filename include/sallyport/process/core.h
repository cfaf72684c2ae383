/* What the parts of the supervisor share. Only src/process/{supervisor,children,reload,records,keepers}.c include this. */
#ifndef SALLYPORT_PROCESS_CORE_H
#define SALLYPORT_PROCESS_CORE_H

#include <sys/types.h>

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

#define CHILDREN_MAX (SHARED_WORKERS_MAX + 3)
#define BUNDLE_KINDS 4 /* worker, recorder, admin, keeper */

struct supervisor;

struct child {
    struct supervisor *supervisor;
    enum role role;
    unsigned slot;           /* of a worker */
    pid_t pid;               /* 0: not running */
    struct channel *control; /* NULL: not running */
    bool ready, idle;
    bool wanted;             /* is started again when it ends */
    bool replaced;           /* was ended to be started with something new */
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
    int fds[BUNDLE_KINDS];   /* -1: nobody reads it */
    int ca_key;              /* the inspection CA's, open and unread; -1: no inspection */
    char ca_key_id[128];     /* changes with the file of the key */
    size_t policies;
    struct bundle bundle;    /* what was read, to see what is new in the next one */
};

#define LOADED_NOTHING .fds = {-1, -1, -1, -1}, .ca_key = -1

/* Each start of a worker has a channel of records of its own: what one does to its channel ends with it. The recorder's ends
 * stay open here, so that a recorder that is started again finds what lies in them. */
struct record_channel {
    int worker;          /* the end for the worker that starts next; -1: it has been given */
    int recorder;        /* of the worker that runs, or starts next */
    int left;            /* of the worker before, until the recorder has written what it held; -1: none */
    bool given;          /* the running recorder has `recorder` */
};

/* Likewise each start of a worker has a channel to the keeper of its own, and what passes it on passes on nothing: it is cut when
 * the worker has ended. */
struct keeper_channel {
    int worker;          /* the end for the worker that starts next; -1: it has been given */
    int keeper;
    bool given;          /* the running keeper has `keeper` */
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
    struct record_channel record_channels[SHARED_WORKERS_MAX];
    struct keeper_channel keeper_channels[SHARED_WORKERS_MAX];
    int worker_program, recorder_program; /* binaries of the children: the first is the admin process's and the checker's too */
    int keeper_program;      /* -1: there was none at the start */
    struct loop *check_loop; /* check.c's */
    char *leaf_private, *leaf_public; /* the run's leaf key (PEM); NULL before inspection is first switched on */
    int shared_fd, fold_fd;
    struct shared *shared;
    int uid, gid;
    struct child children[CHILDREN_MAX];
    size_t child_count, worker_count;
    int admin_socket, admin_tcp; /* -1: none */
    char *admin_socket_path, *admin_address;
    struct knock admin_knocks[2]; /* while there is no admin process: the first visitor starts it */
    struct watch *watch;
    struct timer deadline, housekeeping;
    int64_t crashes_ms[6];   /* the last worker crashes */
    unsigned crash_count;
    char *own;               /* addresses of this host, as last told */
};

/* children.c */
void children_prepare(struct supervisor *s);   /* the table */
struct child *child_add(struct supervisor *s, enum role role, unsigned slot);
int child_start(struct child *c, struct err *err);
void child_want(struct child *c);               /* starts it, again and again until it can be, and when it ends */
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
const char *bundle_text(const struct bundle *b, const char *name); /* an item's bytes, with a NUL behind them; NULL: there is none */
char *own_addresses(const struct settings *settings);
size_t bundle_kind(enum role role);

/* check.c: has a child compile all that l names, and make the run's leaf key when inspection wants one and there is none yet */
int check_bundle(struct supervisor *s, const struct loaded *l, struct err *err);

/* doors.c: the admin process's sockets, and its start when somebody knocks there */
int doors_open(struct supervisor *s, struct err *err);
void doors_close(struct supervisor *s);
void doors_watch(struct supervisor *s);
/* After a reload: other sockets, or none, when the settings say so. */
void doors_follow(struct supervisor *s);

/* keepers.c */
int keeper_channels_open(struct supervisor *s, struct err *err);
int keeper_channel(struct supervisor *s, unsigned slot, struct err *err); /* a worker is about to start */
void keeper_channel_given(struct supervisor *s, unsigned slot);           /* and has */
void keeper_channel_cut(struct supervisor *s, unsigned slot);             /* and has ended */
void keeper_started(struct supervisor *s);                                /* with all ends */
void keeper_check(struct supervisor *s);                                  /* now and then: what could not be handed in before */
int keeper_open(struct supervisor *s, struct loaded *l, struct err *err); /* what a keeper and its workers need; nothing when inspection is off */
bool keeper_same_ca(const struct loaded *a, const struct loaded *b);
void keeper_follow(struct supervisor *s, const struct loaded *before);    /* starts, replaces or ends it */
void keeper_watch(struct supervisor *s);
void keeper_close(struct supervisor *s);

/* records.c */
int records_open(struct supervisor *s, struct err *err);
int records_channel(struct supervisor *s, unsigned slot, struct err *err); /* a worker is about to start */
void records_channel_given(struct supervisor *s, unsigned slot);           /* and has */
void records_recorder_started(struct supervisor *s);                       /* with all ends */
void records_on_taken(struct supervisor *s, const struct frame *frame);
void records_on_ended(struct supervisor *s, const struct frame *frame);
void records_close(struct supervisor *s);
void records_on_want(struct supervisor *s, const struct frame *frame);
void records_event(struct supervisor *s, uint16_t event, const char *members);
void records_revoked(struct supervisor *s, const char *before, const char *after);
void records_check(struct supervisor *s);

#endif
