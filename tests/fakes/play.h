/* One play of one script, and the pieces that it is made of. */
#ifndef TESTS_FAKES_PLAY_H
#define TESTS_FAKES_PLAY_H

#include "fakes/script.h"
#include "fakes/world.h"
#include "sallyport/proxy/settings.h"
#include "sallyport/proxy/snapshot.h"

void tokens_init(void);
void tokens_done(void);
const char *tokens_jwks(void);

/* Settings and snapshots of a script's generations: made once, used by each play. */
struct staged {
    struct settings settings[GENERATIONS_MAX];
    struct snapshot *snapshots[GENERATIONS_MAX];
    size_t count;
    bool chained;  /* upstream.parent */
    bool buffered; /* durability is less than written */
};
int stage_build(struct staged *st, const struct script *s, struct err *err);
void stage_free(struct staged *st);

/* How the bytes arrive in this play. The verdict must not depend on it. */
struct variant {
    int64_t client_split,
        upstream_split; /* bytes of all that one side sends, in order; -1: not split there */
    bool bytewise;      /* each byte is an arrival of its own */
    size_t read_max;    /* bytes a read or write call moves; 0: all */
    bool fail_event;    /* resets are told as an event */
};
#define VARIANT_WHOLE ((struct variant){.client_split = -1, .upstream_split = -1})

struct outcome {
    bool ok;
    int line; /* of the step that failed */
    char text[4096];
    size_t client_bytes, upstream_bytes; /* sent by either side: what can be split */
    bool tell;                           /* in: print the effects of a play that fails */
};
void play_script(const struct script *s, struct staged *st, struct variant v, struct outcome *ret);

/* `{*}` in the pattern stands for any run of bytes. */
bool match_bytes(struct slice pattern, struct slice bytes);
/* The bytes with all chunks of a body (behind a head, where there is one) made into one; heap. */
char *join_chunks(struct slice bytes, size_t *ret_len);
/* Writes bytes so that a person can read them; at most size - 1. */
void show_bytes(struct slice bytes, char *out, size_t size);
/* A word "member=value" against a record: strings, numbers, booleans, null; arrays joined by
 * commas. "-member": absent or null. */
bool match_member(const json_t *record, const char *word);
/* "record EVENT member=value…", "query NAME", "dial ADDRESS:PORT", "upstream u1", "client c1" */
bool match_effect(const struct effect *e, const char *line);
/* The proxy's own reply, whole. Empty when it is in order, else what is wrong. */
void check_reply(struct slice reply, int status, const char *reason, bool body, char *wrong,
                 size_t size);
/* What must be so in every play, whatever it is about (the invariants of docs/ARCHITECTURE.md). */
void check_effects(const struct staged *st, char *wrong, size_t size);

#endif
