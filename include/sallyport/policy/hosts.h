/* Host entries and the match structure over them. A decision costs a few probes for each label of the name that is
 * asked about, however long the list is; 100,000 entries take a few MB: names in one text, slots in one table. */
#ifndef SALLYPORT_POLICY_HOSTS_H
#define SALLYPORT_POLICY_HOSTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sallyport/http/target.h"

/* One entry as written: `name`, `*.name`, either with `:port`, or the older `https://name` and `http://name`. */
struct host_entry {
    bool suffix;      /* "*.": any name below `host`, never `host` itself */
    bool url;         /* written with a scheme (lint says so) */
    uint16_t port;    /* 0: the default ports (a blocked entry: every port) */
    struct host host;
};

#define ENTRY_WHY_SIZE 512
#define ENTRY_TEXT_SIZE (TARGET_TEXT_SIZE + 2)

/* False: `why` says what is wrong and what to write instead, and *ret is not to be used. Refuses what CONTRACT section 3, "Host entries", refuses,
 * wildcards on an ICANN public suffix included (private-section suffixes load; lint warns). */
bool host_entry_parse(struct slice text, struct host_entry *ret, char why[ENTRY_WHY_SIZE]);
void host_entry_format(const struct host_entry *e, char text[ENTRY_TEXT_SIZE]);
/* Do the two match a common host and port? A port of 0 overlaps every port. */
bool host_entry_overlaps(const struct host_entry *a, const struct host_entry *b);
bool host_entry_covers(const struct host_entry *e, const struct host *host, uint16_t port);
/* Is `*.name` a wildcard over many tenants by the public suffix list's private section? */
bool host_is_private_suffix(const struct host *host);
/* Names below it belong to whoever registers them: by either section of the public suffix list, or by being a single label. */
bool host_is_public_suffix(const struct host *host);
/* A single label, or at or below a name that never means a public host (localhost, local, internal, …): the name that
 * makes it special, or NULL. */
const char *host_special(const struct host *host);

/* The hashes of a name and of all names above it, computed once for all the lists that a decision looks into. */
#define HOST_LABELS_MAX 128
struct host_key {
    const struct host *host;
    uint8_t count;                     /* 1 for a literal */
    uint8_t start[HOST_LABELS_MAX];    /* [0] is the whole name, [1] the name above it, … */
    uint32_t hash[HOST_LABELS_MAX];
};
void host_key_init(struct host_key *key, const struct host *host);

struct hosts;
#define HOSTS_NO_INDEX UINT32_MAX

struct hosts *hosts_new(void);
/* Room for `count` more entries, so that a long list is not moved while it grows. */
void hosts_reserve(struct hosts *h, size_t count);
void hosts_free(struct hosts *h); /* NULL is fine */
/* Adds the entry under the caller's index. When the same entry is there already, nothing changes and the index that it
 * has is returned (the caller may chain); else HOSTS_NO_INDEX. */
uint32_t hosts_add(struct hosts *h, const struct host_entry *e, uint32_t index);
void hosts_seal(struct hosts *h); /* gives back what the table does not need */
size_t hosts_count(const struct hosts *h); /* distinct entries */

enum hosts_result { HOSTS_NONE = 0, HOSTS_PORT_CLOSED /* the name is there, this port is not */, HOSTS_MATCH };
enum hosts_scope { HOSTS_ANY = 0, HOSTS_EXACT_ONLY };
/* bare_open: what an entry without port says about this port. The most specific entry wins. */
enum hosts_result hosts_find(const struct hosts *h, const struct host_key *key, uint16_t port, bool bare_open, enum hosts_scope scope, uint32_t *ret_index);
/* All entries that match, at most two for each label; most specific first. */
#define HOSTS_MATCHES_MAX (2 * HOST_LABELS_MAX)
size_t hosts_find_all(const struct hosts *h, const struct host_key *key, uint16_t port, bool bare_open, enum hosts_scope scope, uint32_t *ret_indexes, bool *ret_port_closed);
/* Visits entries in order of index. */
void hosts_each(const struct hosts *h, void (*visit)(void *ctx, const struct host_entry *e, uint32_t index), void *ctx);

#endif
