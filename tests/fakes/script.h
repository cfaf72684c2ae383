/* A scenario file, read once and played many times. The grammar is in docs of the test:
 * tests/scenarios/README.md. */
#ifndef TESTS_FAKES_SCRIPT_H
#define TESTS_FAKES_SCRIPT_H

#include <jansson.h>
#include <stddef.h>

#include "fakes/world.h"
#include "sallyport/base/slice.h"

enum step_kind {
    STEP_CONNECT = 1, /* client c1 [LISTENER] [from ADDRESS:PORT] */
    STEP_SEND,        /* c1 > … */
    STEP_EXPECT,      /* c1 < … */
    STEP_FIN,
    STEP_RESET,
    STEP_WINDOW,
    STEP_REFUSED, /* c1 refused STATUS REASON: the proxy's own reply, whole, and its end */
    STEP_CLOSED,
    STEP_OPEN,
    STEP_SILENT,
    STEP_CUT,
    STEP_EOF,
    STEP_COUNT,
    STEP_DNS,
    STEP_DIALS,
    STEP_RECORDER,
    STEP_WAIT,
    STEP_SLEEP,   /* the wall clock goes on without the other */
    STEP_RECORD,  /* the next record not spoken of yet */
    STEP_QUIET,   /* no record that was not spoken of */
    STEP_NONE,    /* none query | dial | upstream: since the beginning */
    STEP_EFFECTS, /* the whole list of effects since the last such step */
    STEP_RELOAD,
    STEP_DRAIN,
    STEP_DRAINED,
    STEP_STOP,
};

#define STEP_WORDS_MAX 24

struct step {
    enum step_kind kind;
    int line;
    char wire[32];
    char *bytes; /* SEND: the bytes; EXPECT: the pattern, `{*}` any run of bytes */
    size_t len;
    char *words[STEP_WORDS_MAX]; /* further words of the line, or the lines of an `effects` block */
    size_t word_count;
    int64_t number; /* WAIT: ms; WINDOW: bytes; RELOAD: which generation of the documents */
};

#define GENERATIONS_MAX 4
#define POLICIES_MAX 16
#define STEPS_MAX 512

struct document {
    char *name, *text;
};

/* The configuration and policies in force from one `reload` to the next. */
struct generation {
    char *settings; /* JSON of CONTRACT section 2, put over the runner's defaults; NULL: those alone
                     */
    struct document policies[POLICIES_MAX];
    size_t policy_count;
    char *revoked;
    char *listener_token; /* of the listener "main"; NULL */
};

struct script {
    const char *path;
    char name[64];
    struct generation generations[GENERATIONS_MAX];
    size_t generation_count;
    struct step steps[STEPS_MAX];
    size_t step_count;
    size_t connections_max;
    bool whole; /* `whole`: not replayed split (sizes or times of the arrival are the point) */
    bool expect_spin;
};

/* Exits with status 2 and file:line on a syntax error: a scenario that cannot be read is a broken
 * test. */
struct script *script_read(const char *path);
void script_free(struct script *s);

/* The runner's: a token for a claims object; heap. Strings beginning with "now" stand for seconds
 * of the world's start. */
char *tokens_mint(const char *claims_json, const char *kid);
/* A TLS ClientHello with that server name (NULL: none), heap. Options: "ech", "long". */
char *hello_build(const char *name, const char *option, size_t *ret_len);

#endif
