/* The environment of a sandboxed program: a table. What is not in it, and not asked for by name, stays outside. */
#ifndef SALLYPORT_SANDBOX_ENVIRONMENT_H
#define SALLYPORT_SANDBOX_ENVIRONMENT_H

#include <stdbool.h>
#include <stddef.h>

#include "sallyport/base/err.h"
#include "sallyport/sandbox/options.h"

struct environment_in {
    char **caller;           /* NAME=VALUE, NULL-terminated */
    const struct text_items *wanted; /* of --env */
    const char *credential;  /* "user:password", already fit for a URL, or NULL */
    const char *id;
    const char *ca_bundle;   /* its path inside, or NULL */
    bool proxy;              /* set the variables that point at the proxy */
};

/* The files that trust variables had named before, of --env and the caller's: the next from row *i on, or NULL. */
const char *environment_trust_file(const struct environment_in *in, size_t *i);
/* A NULL-terminated array of heap texts; free with environment_free. NULL with err: an --env that is none. */
char **environment_make(const struct environment_in *in, struct err *err);
void environment_free(char **env);

#endif
