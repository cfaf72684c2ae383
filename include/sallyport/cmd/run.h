/* What the parts of `sallyport run` share: the options, what is made for one run, and its account. */
#ifndef SALLYPORT_CMD_RUN_H
#define SALLYPORT_CMD_RUN_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "sallyport/base/err.h"
#include "sallyport/cmd/cmd.h"

#define RUN_HIDES_MAX 32

struct run_options {
    bool help, json, quiet, transparent, expose_token, no_proxy_env;
    const char *policy, *config, *token_file, *gateway, *gateway_ca, *work_item, *inspect;
    const char *workdir, *rootfs, *memory, *cpus, *pids, *timeout, *limits;
    struct option_list ports, binds, binds_ro, env;
};

/* One run: a private folder with the gate's configuration, key and tokens; nothing of it is ever inside. All heap. */
struct run {
    struct run_options o;
    char *sandbox;          /* the identity: sub of its tokens */
    char *session;          /* of a work item, or NULL */
    char *work_policy;      /* a policy that came with a work item: JSON text, or NULL */
    char *dir;
    int lock;               /* held in dir as long as we live */
    char *record;           /* the decision log */
    off_t record_start;     /* what stood there before us */
    char *audience, *issuer;
    int64_t token_ttl_s, token_since_s;
    json_t *config;         /* of --config, until the gate's is written from it */
    bool has_policy;        /* one for everybody is in the folder */
    char *policy_text;      /* that one */
    bool inspects;          /* the folder has a bundle that the sandbox trusts */
    char *key_pem;          /* ephemeral; never on disk */
    const char *hides[RUN_HIDES_MAX];
    size_t hide_count;
};

/* In two halves, so that the helper makes the sandbox while we make keys. First: what must stay outside, and the folder; then
 * all that is in it, the policy tried. What failed is taken away by run_remove. */
int run_begin(struct run *r, struct err *err);
int run_finish(struct run *r, struct err *err);
/* Ephemeral tokens anew when half of their time is over. 0 or -1 with err. */
int run_renew_tokens(struct run *r, struct err *err);
/* Seconds until the next renewal; -1: none. */
int64_t run_renewal_in(const struct run *r);
void run_remove(struct run *r);

/* Where inspection is asked for: its CA, unless the configuration names one, and the bundle, before the helper is started. */
int run_make_trust(struct run *r, struct err *err);

/* Where a run's folder may lie, best first. Returns how many. */
#define RUN_BASES_MAX 5
size_t run_bases(const char *ret[RUN_BASES_MAX]);
int run_lock(struct run *r, struct err *err);
/* Removes the folders of this user's runs that were killed. True: there was one, so that more may be left of it. */
bool run_sweep(void);

/* A work item (--work-item): JSON of who runs what under which policy. Secrets in it are read here and go no further. */
int run_read_work_item(struct run *r, struct err *err);

/* The account of a run, from its records, on standard error. */
void run_account(const struct run *r, int status);

#endif
