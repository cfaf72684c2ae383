/* The issuer of the scenarios: two keys made when the program starts ("k1", known to the proxy, and
 * "k2", which is not), and tokens by the product's own mint. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fakes/play.h"
#include "sallyport/auth/mint.h"
#include "sallyport/base/mem.h"

#define WORLD_START_S (WORLD_START_US / 1000000)

static char *private_pem[2], *jwks;

static void __attribute__((noreturn)) fatal(const struct err *err)
{
    fprintf(stderr, "scenario: %s\n", err->text);
    exit(2);
}

void
tokens_init(void)
{
    struct err err = {0};
    char *jwk[2];
    if (mint_key(JWA_ES256, "k1", &private_pem[0], &jwk[0], &err) < 0 ||
        mint_key(JWA_ES256, "k2", &private_pem[1], &jwk[1], &err) < 0 ||
        mint_jwks_add(NULL, jwk[0], &jwks, &err) < 0)
        fatal(&err);
    free(jwk[0]);
    free(jwk[1]);
}

void
tokens_done(void)
{
    free(private_pem[0]);
    free(private_pem[1]);
    free(jwks);
}

const char *
tokens_jwks(void)
{
    return jwks;
}

/* "now", "now+60", "now-60" become seconds. */
static void
resolve_times(json_t *claims)
{
    const char *name;
    json_t *value;
    void *next;
    json_object_foreach_safe(claims, next, name, value)
    {
        const char *text = json_string_value(value);
        if (text && strncmp(text, "now", 3) == 0 && (!text[3] || text[3] == '+' || text[3] == '-'))
            json_object_set_new(claims, name,
                                json_integer(WORLD_START_S + strtoll(text + 3, NULL, 10)));
    }
}

static void
set_default(json_t *claims, const char *name, int64_t value)
{
    if (!json_object_get(claims, name))
        json_object_set_new(claims, name, json_integer(value));
}

char *
tokens_mint(const char *claims_json, const char *kid)
{
    struct err err = {0};
    char *token;
    json_t *claims = json_loads(claims_json, 0, NULL);
    resolve_times(claims);
    set_default(claims, "iat", WORLD_START_S);
    set_default(claims, "exp", WORLD_START_S + 3600);
    char *text = json_dumps(claims, JSON_COMPACT);
    int key = strcmp(kid, "k2") == 0 || strcmp(kid, "forged") == 0;
    /* "forged": the name of a known key over somebody else's signature. */
    if (mint_token(slice_str(private_pem[key]), key && strcmp(kid, "forged") == 0 ? "k1" : kid,
                   text, &token, &err) < 0)
        fatal(&err);
    json_decref(claims);
    free(text);
    return token;
}
