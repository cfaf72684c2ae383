/* Everything that is read from files, in one sealed memfd: the settings (as their JSON) and the blobs of proxy/snapshot.h.
 * The supervisor reads and packs; a child maps and believes nothing but what the seals promise. */
#ifndef SALLYPORT_PROCESS_BUNDLE_H
#define SALLYPORT_PROCESS_BUNDLE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <time.h>

#include "sallyport/base/err.h"
#include "sallyport/proxy/settings.h"
#include "sallyport/proxy/snapshot.h"

#define BUNDLE_FILES_MAX 1000000u     /* policies */
#define BUNDLE_BYTES_MAX (2ull << 30) /* all of it */

/* Who gets a blob: secrets go only where they are used. */
enum audience { FOR_WORKER = 1, FOR_RECORDER = 2, FOR_ADMIN = 4, FOR_KEEPER = 8, FOR_ALL = 15 };

/* What tells that a file is the one that was read before, without reading it. */
struct file_mark {
    struct timespec modified, changed;
    dev_t dev;
    ino_t ino;
    off_t size;
    bool trusted; /* it was quiet for a while when it was read */
};

struct bundle_item {
    char *name, *bytes;
    size_t len;
    unsigned audience;
    bool same;    /* as in the bundle before */
    struct file_mark mark; /* of a policy file */
};

struct bundle {
    struct bundle_item *items;
    size_t count, room;
    size_t bytes;
    size_t policies;
};

/* What is not in a file: --dev keys and policy, and descriptors that were inherited. */
struct bundle_extra {
    const char *keys_jwks;    /* instead of auth.keys; NULL: the file */
    const char *policy;       /* instead of policies; NULL: the files */
    const char *leaf_private, *leaf_public; /* the run's leaf key; NULL while there is no inspection */
    const struct bundle *before; /* the running one: policy files that have not changed are not read again; NULL: none */
    const char *own;          /* addresses of this host, a line each */
    const char *listening;    /* what is listened on, a line each */
    const char *const *token_names; /* token_fd -> text, in step, NULL-terminated */
    const char *const *token_texts;
};

/* Takes over nothing; copies. */
void bundle_add(struct bundle *b, const char *name, const void *bytes, size_t len, unsigned audience);
void bundle_done(struct bundle *b); /* wipes and frees */
/* Reads all files that the settings name. config is the whole configuration, base what its paths stand on. */
int bundle_collect(const json_t *config, const char *base, const struct settings *settings, const struct bundle_extra *extra,
                   struct bundle *ret, struct err *err);
/* The run's leaf key, made after the rest was collected. */
void bundle_add_leaf_key(struct bundle *b, const char *private_pem, const char *public_pem);
/* Nothing has come, gone or changed since `before`, the bundle that b was collected beside. */
bool bundle_same(const struct bundle *b, const struct bundle *before);
/* A sealed memfd of what the audience gets. -1 with err. news: without the policies that are the same as before, when all that
 * they are compiled with is the same too. */
int bundle_seal(const struct bundle *b, enum audience audience, bool news, struct err *err);

/* The other side. */
struct bundle_view {
    struct settings settings;
    struct blob *blobs;
    size_t blob_count;
    void *map;
    size_t size;
};
/* Maps fd (closed in any case), checks seals and every length, reads the settings again. */
int bundle_open(int fd, struct bundle_view **ret, struct err *err);
void bundle_close(struct bundle_view *v);
struct slice bundle_view_blob(const struct bundle_view *v, const char *name); /* ptr NULL when absent */
/* The guard's view of this host, from the blobs; the arrays are the caller's (free). */
void bundle_own_addresses(struct slice own, struct slice listening, struct guard_options *ret);

#endif
