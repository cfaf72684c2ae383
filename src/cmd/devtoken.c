/* The key of `serve --dev`, which is in no file, and a day's token by it. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sallyport/auth/mint.h"
#include "sallyport/base/clock.h"
#include "sallyport/base/mem.h"
#include "sallyport/cmd/cmd.h"
#include "sallyport/cmd/devkey.h"

#define DEV_KID "dev"
#define DEV_TTL_S 86400

static char *
claims_of(const char *audience, const char *issuer)
{
    int64_t now = clock_wall_us() / 1000000;
    json_t *claims = json_pack("{s:s, s:s, s:I, s:I}", "sub", "sandbox", "aud", audience, "iat", (json_int_t)now, "exp", (json_int_t)now + DEV_TTL_S);
    if (issuer)
        json_object_set_new(claims, "iss", json_string(issuer));
    char *text = json_dumps(claims, JSON_COMPACT);
    json_decref(claims);
    return text;
}

static int
make(const char *audience, const char *issuer, char **ret_jwks, char **ret_token, struct err *err)
{
    char *pem = NULL, *jwk = NULL;
    if (mint_key(JWA_ES256, DEV_KID, &pem, &jwk, err) < 0)
        return -1;
    cleanup_free char *claims = claims_of(audience, issuer);
    int rc = mint_jwks_add(NULL, jwk, ret_jwks, err);
    if (rc == 0)
        rc = mint_token(slice_str(pem), DEV_KID, claims, ret_token, err);
    mem_wipe(pem, strlen(pem));
    free(pem);
    free(jwk);
    return rc;
}

static bool
write_text(int fd, const char *text)
{
    size_t len = strlen(text) + 1;
    return write(fd, text, len) == (ssize_t)len;
}

int
dev_key_main(int argc, char **argv)
{
    const char *to = NULL, *audience = NULL, *issuer = NULL;
    const struct option_row rows[] = {{"--to", OPTION_TEXT, &to, "FD", NULL},
                                      {"--audience", OPTION_TEXT, &audience, "A", NULL},
                                      {"--issuer", OPTION_TEXT, &issuer, "I", NULL},
                                      {0}};
    char *jwks = NULL, *token = NULL;
    unsigned long long fd;
    struct err err = {0};
    if (options_parse(rows, &argc, argv, &err) < 0)
        return cmd_fail(&err);
    if (!to || !audience || !slice_parse_uint(slice_str(to), 1024, &fd) || fd < 3)
        return cmd_usage("sallyport serve --dev");
    if (make(audience, issuer, &jwks, &token, &err) < 0)
        return cmd_fail(&err);
    bool sent = write_text((int)fd, jwks) && write_text((int)fd, token);
    free(jwks);
    free(token);
    return sent ? 0 : 3;
}
