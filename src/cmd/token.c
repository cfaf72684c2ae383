/* `sallyport token`: keys, tokens and the revocation list, for operators. The only command that
 * holds private keys; it reads them from files that nobody else can read, never prints them, and
 * wipes them. Judging is auth/token's and auth/verify's: `show` says what the gate would say, by
 * the same code. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sallyport/auth/claims.h"
#include "sallyport/auth/credential.h"
#include "sallyport/auth/mint.h"
#include "sallyport/auth/verify.h"
#include "sallyport/base/buf.h"
#include "sallyport/base/clock.h"
#include "sallyport/base/file.h"
#include "sallyport/base/json.h"
#include "sallyport/base/mem.h"
#include "sallyport/base/random.h"
#include "sallyport/cmd/cmd.h"

#define KEY_FILE_MAX 65536u
#define JWKS_FILE_MAX (1u << 20)
#define REVOKED_FILE_MAX (128u << 20)
#define TOKEN_INPUT_MAX                                                                            \
    (16u << 20) /* longer than any token, so that a long one is refused as such */
#define TTL_DEFAULT_S 3600
#define YEAR_9999_S 253402300799 /* the last second that RFC 3339 can write */

/* What the gate takes when its configuration says nothing else. */
static const struct token_rules default_rules = {
    .leeway_s = 30, .max_lifetime_s = 86400, .embedded = EMBEDDED_LIMITED};

static int64_t
now_s(void)
{
    return clock_wall_us() / 1000000;
}

/* -- files -- */

/* Two commands that extend one file at a time would lose one of the two additions, and a lost
 * revocation is access: they take turns by a lock on the directory, which needs no file of its own.
 * The lock ends with the process. */
static int
lock_beside(const char *path, struct err *err)
{
    cleanup_free char *copy = mem_strdup(path);
    const char *dir = dirname(copy);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        bool wrong_path = errno == ENOENT || errno == ENOTDIR;
        err_errno(err, "%s: cannot open", dir);
        err->kind = wrong_path ? ERR_INVALID : err->kind;
        return -1;
    }
    if (flock(fd, LOCK_EX) == 0)
        return 0;
    close(fd);
    return err_errno(err, "%s: cannot lock", dir);
}

/* The text of a file, "" when there is none yet; *mode is kept as it is then. */
static int
read_if_there(const char *path, size_t max, char **ret, size_t *ret_len, mode_t *mode,
              struct err *err)
{
    struct stat st;
    if (stat(path, &st) != 0 && errno == ENOENT) {
        *ret = mem_strdup("");
        *ret_len = 0;
        return 0;
    }
    if (file_read(path, max, FILE_ANY, ret, ret_len, err))
        return -1;
    *mode = st.st_mode & 0777;
    return 0;
}

static int
need(const char *value, const char *option, const char *what, struct err *err)
{
    if (value)
        return 0;
    err_invalid(err, "%s is required: %s", option, what);
    return -1;
}

static int
no_more(int argc, char **argv, struct err *err)
{
    return argc > 1 ? err_invalid(err, "unexpected argument \"%s\"", argv[1]) : 0;
}

/* -- keygen -- */

struct keygen {
    const char *alg, *kid, *private_path, *jwks_path;
};

/* The private file first and exclusively: were the set extended first and the file refused, the
 * gate would trust a key that nobody has. When the set then cannot be written, the file is taken
 * back. */
static int
write_pair(const struct keygen *o, const char *private_text, const char *jwks, mode_t mode,
           struct err *err)
{
    if (file_create_private(o->private_path, slice_str(private_text), err))
        return -1;
    if (file_replace(o->jwks_path, slice_str(jwks), mode, err) == 0)
        return 0;
    unlink(o->private_path);
    return -1;
}

static int
make_pair(const struct keygen *o, enum jwa alg, struct err *err)
{
    cleanup_free char *jwk = NULL;
    cleanup_free char *old = NULL;
    cleanup_free char *jwks = NULL;
    char *private_text = NULL;
    size_t old_len;
    mode_t mode = 0644;
    if (lock_beside(o->jwks_path, err) ||
        read_if_there(o->jwks_path, JWKS_FILE_MAX, &old, &old_len, &mode, err))
        return -1;
    if (mint_key(alg, o->kid, &private_text, &jwk, err))
        return -1;
    int rc = mint_jwks_add(old, jwk, &jwks, err);
    if (rc)
        err_wrap(err, "%s", o->jwks_path);
    else
        rc = write_pair(o, private_text, jwks, alg == JWA_HS256 ? 0600 : mode, err);
    mem_wipe(private_text, strlen(private_text));
    free(private_text);
    return rc;
}

static int
token_keygen(int argc, char **argv)
{
    static const char usage[] =
        "sallyport token keygen --alg ALG --kid K --private FILE --jwks FILE";
    struct keygen o = {0};
    bool help = false;
    struct err err = {0};
    const struct option_row rows[] = {
        {"--alg", OPTION_TEXT, &o.alg, "ALG", "ES256 (default), ES384, EdDSA, RS256 or HS256"},
        {"--kid", OPTION_TEXT, &o.kid, "K", "the key's name, which tokens carry"},
        {"--private", OPTION_TEXT, &o.private_path, "FILE",
         "where the private key goes (new, mode 0600)"},
        {"--jwks", OPTION_TEXT, &o.jwks_path, "FILE",
         "the key set that its public half is added to"},
        {"--help", OPTION_FLAG, &help, NULL, "this text"},
        {0},
    };
    if (options_parse(rows, &argc, argv, &err))
        return cmd_fail(&err);
    if (help) {
        options_help(stdout, usage, rows);
        return 0;
    }
    if (!o.alg)
        o.alg = "ES256";
    enum jwa alg = jwa_from_name(slice_str(o.alg));
    if (no_more(argc, argv, &err) || need(o.kid, "--kid", "a name for the key", &err) ||
        need(o.private_path, "--private", "a file for the private key", &err) ||
        need(o.jwks_path, "--jwks", "the key set to extend", &err))
        return cmd_fail(&err);
    if (alg == JWA_NONE)
        err_invalid(&err,
                    "--alg: unknown algorithm \"%s\", expected ES256, ES384, EdDSA, RS256 or HS256",
                    o.alg);
    else if (make_pair(&o, alg, &err) == 0)
        return printf("%s: private key (%s), mode 0600\n%s: has its %s as kid %s\n", o.private_path,
                      o.alg, o.jwks_path, alg == JWA_HS256 ? "secret, too," : "public half",
                      o.kid) < 0;
    return cmd_fail(&err);
}

/* -- mint -- */

struct mint {
    const char *key_path, *kid, *sub, *policy, *aud, *iss, *ttl, *jti;
    struct option_list claims;
};

/* NAME=JSON. What a flag has said already is not said again: which of the two would count? */
static int
add_claim(json_t *claims, const char *text, struct err *err)
{
    struct slice json;
    struct slice name = slice_split(slice_str(text), '=', &json);
    if (!json.ptr || name.len == 0)
        return err_invalid(err, "--claim \"%s\": expected NAME=JSON", text);
    cleanup_free char *key = mem_dup_slice(name);
    json_t *value = json_read(json, "value", CLAIMS_DEPTH_MAX, err);
    if (!value)
        return err_wrap(err, "--claim %s (texts stand in double quotes)", key);
    if (json_object_get(claims, key)) {
        json_decref(value);
        return err_invalid(err, "--claim %s: the claim is given twice", key);
    }
    if (json_object_set_new(claims, key, value))
        return err_invalid(err, "--claim: the name is not UTF-8");
    return 0;
}

static int
set_text(json_t *claims, const char *name, const char *value, struct err *err)
{
    if (value && json_object_set_new(claims, name, json_string(value)))
        return err_invalid(err, "--%s: expected UTF-8", name);
    return 0;
}

static int
check_mint(const struct mint *o, struct err *err)
{
    if (need(o->key_path, "--key", "the private key's file", err) ||
        need(o->kid, "--kid", "the key's name in the gate's key set", err) ||
        need(o->sub, "--sub", "the sandbox that the token is for", err))
        return -1;
    if (!claims_sub_is_valid(slice_str(o->sub)))
        return err_invalid(err, "--sub: expected 1 to %d of A-Z a-z 0-9 _ -", CLAIMS_SUB_MAX);
    if (o->policy && !claims_policy_name_is_valid(slice_str(o->policy)))
        return err_invalid(
            err,
            "--policy: expected a policy's name (A-Z a-z 0-9 . _ -, no dot in front), not a path");
    if (o->jti && !claims_jti_is_valid(slice_str(o->jti)))
        return err_invalid(err, "--jti: expected 1 to %d printable ASCII bytes", CLAIMS_TEXT_MAX);
    return 0;
}

/* iat, exp and jti where no --claim has said them. */
static int
add_defaults(const struct mint *o, json_t *claims, struct err *err)
{
    int64_t ttl = TTL_DEFAULT_S, now = now_s();
    char jti[ULID_TEXT_SIZE];
    if (o->ttl && (!clock_parse_duration(o->ttl, &ttl) || ttl < 1))
        return err_invalid(err, "--ttl \"%s\": expected a time such as 90s, 15m, 1h or 7d", o->ttl);
    if (o->ttl && json_object_get(claims, "exp"))
        return err_invalid(err, "--ttl and --claim exp exclude each other");
    if (!json_object_get(claims, "iat"))
        json_object_set_new(claims, "iat", json_integer(now));
    if (!json_object_get(claims, "exp"))
        json_object_set_new(claims, "exp", json_integer(now + ttl));
    random_ulid(now * 1000, jti);
    if (!json_object_get(claims, "jti"))
        json_object_set_new(claims, "jti", json_string(jti));
    return 0;
}

static json_t *
build_claims(const struct mint *o, struct err *err)
{
    json_t *claims = json_object();
    int rc = set_text(claims, "sub", o->sub, err) || set_text(claims, "policy", o->policy, err) ||
             set_text(claims, "aud", o->aud, err) || set_text(claims, "iss", o->iss, err) ||
             set_text(claims, "jti", o->jti, err);
    for (size_t i = 0; rc == 0 && i < o->claims.count; i++)
        rc = add_claim(claims, o->claims.items[i], err);
    if (rc == 0)
        rc = add_defaults(o, claims, err);
    if (rc == 0)
        return claims;
    json_decref(claims);
    return NULL;
}

/* Whoever mints by hand wants to know now, not by a 407. No error: the gate's configuration may
 * differ from its defaults, and tokens that must be refused are minted for tests. */
static void
warn_if_refused(const char *claims)
{
    struct token_rules rules = default_rules;
    struct identity *id = NULL;
    struct err why = {0};
    if (claims_read(&rules, slice_str(claims), &id, &why) != REASON_OK)
        fprintf(stderr, "sallyport: warning: a gate with default settings refuses this token: %s\n",
                why.text);
    identity_unref(id);
}

static int
print_token(const struct mint *o, struct err *err)
{
    json_auto_t *claims = build_claims(o, err);
    if (!claims)
        return -1;
    cleanup_free char *text = json_dumps(claims, JSON_COMPACT);
    cleanup_free char *token = NULL;
    char *key = NULL;
    size_t key_len;
    if (file_read(o->key_path, KEY_FILE_MAX, FILE_PRIVATE, &key, &key_len, err))
        return -1;
    int rc = mint_token(slice_of(key, key_len), o->kid, text, &token, err);
    mem_wipe(key, key_len);
    free(key);
    if (rc)
        return err_wrap(err, "%s", o->key_path);
    warn_if_refused(text);
    return puts(token) < 0 || fflush(stdout) ? err_errno(err, "standard output") : 0;
}

static int
token_mint(int argc, char **argv)
{
    static const char usage[] = "sallyport token mint --key FILE --kid K --sub S [options]";
    struct mint o = {0};
    bool help = false;
    struct err err = {0};
    const struct option_row rows[] = {
        {"--key", OPTION_TEXT, &o.key_path, "FILE", "the private key that signs"},
        {"--kid", OPTION_TEXT, &o.kid, "K", "its name in the gate's key set"},
        {"--sub", OPTION_TEXT, &o.sub, "S", "the sandbox"},
        {"--policy", OPTION_TEXT, &o.policy, "NAME", "the policy that holds for it"},
        {"--aud", OPTION_TEXT, &o.aud, "A", "the audience (the gate's auth.audience)"},
        {"--iss", OPTION_TEXT, &o.iss, "I", "the issuer (the gate's auth.issuer)"},
        {"--ttl", OPTION_TEXT, &o.ttl, "TIME", "how long it holds: 90s, 15m, 1h (default), 7d"},
        {"--jti", OPTION_TEXT, &o.jti, "J",
         "the token's id, for revocation and records (default: a new one)"},
        {"--claim", OPTION_REPEATED, &o.claims, "NAME=JSON", "any other claim; repeatable"},
        {"--help", OPTION_FLAG, &help, NULL, "this text"},
        {0},
    };
    if (options_parse(rows, &argc, argv, &err))
        return cmd_fail(&err);
    if (help) {
        options_help(stdout, usage, rows);
        return 0;
    }
    if (no_more(argc, argv, &err) || check_mint(&o, &err) || print_token(&o, &err))
        return cmd_fail(&err);
    return 0;
}

/* -- show -- */

struct show {
    const char *keys_path, *audience, *issuer;
    bool json;
};

#define NOT_CHECKED "not checked"

/* Everything that is known about one token. */
struct findings {
    enum reason reason;    /* what the gate would say */
    struct err why;        /* the sentence to it; empty where there is none */
    char *header, *claims; /* JSON texts, NULL where unreadable */
    struct identity *id;   /* NULL where the claims are refused */
    const char *signature; /* "good", "bad", "not checked" */
    const char *libjwt;    /* "accepts", "refuses", "no opinion" */
    int64_t now;
};

static void
findings_done(struct findings *f)
{
    free(f->header);
    free(f->claims);
    identity_unref(f->id);
}

/* The kid of a header that was read already; NULL when it has none. Heap. */
static char *
kid_of(const struct findings *f)
{
    struct err err;
    json_auto_t *header =
        f->header ? json_read(slice_str(f->header), "header", CLAIMS_DEPTH_MAX, &err) : NULL;
    const char *kid = json_string_value(json_object_get(header, "kid"));
    return kid ? mem_strdup(kid) : NULL;
}

/* libjwt has no EdDSA, and for HMAC its answer would be about the same function of the same
 * library. */
static const char *
second_opinion(const struct findings *f, const char *jwks, const char *token)
{
    struct err err;
    cleanup_free char *kid = kid_of(f);
    cleanup_free char *pem = NULL;
    if (mint_public_pem(slice_str(jwks), kid, &pem, &err) || strstr(f->header, "\"EdDSA\""))
        return "no opinion";
    return mint_second_opinion(token, slice_str(pem), &err) ? "refuses" : "accepts";
}

static int
check_with_keys(const struct show *o, const struct token_rules *rules, struct slice token,
                struct findings *f, struct err *err)
{
    cleanup_free char *jwks = NULL;
    size_t len;
    if (file_read(o->keys_path, JWKS_FILE_MAX, FILE_ANY, &jwks, &len, err))
        return -1;
    struct keyset *keys = keyset_parse(slice_of(jwks, len), o->keys_path, true, err);
    if (!keys)
        return -1;
    struct identity *verified = NULL;
    f->reason = token_verify(rules, keys, token, &verified, &f->why);
    identity_unref(verified);
    keyset_unref(keys);
    if (f->reason == REASON_TOKEN_SIGNATURE)
        f->signature = "bad";
    else if (f->reason !=
             REASON_TOKEN_MALFORMED) /* claims are looked at behind a good signature only */
        f->signature = "good";
    if (f->header)
        f->libjwt = second_opinion(f, jwks, token.ptr); /* a whole token: it holds no NUL */
    return 0;
}

static int
examine(const struct show *o, struct slice token, struct findings *f, struct err *err)
{
    struct token_rules rules = default_rules;
    struct err ignored = {0};
    rules.audience = o->audience;
    rules.issuer = o->issuer;
    rules.embedded =
        EMBEDDED_ANY; /* what a token may carry is the gate's setting, which is not known here */
    f->now = now_s();
    f->signature = NOT_CHECKED;
    f->libjwt = "no opinion";
    f->reason = token_peek(&rules, token, &f->header, &f->claims, &f->id, &f->why);
    if (o->keys_path && check_with_keys(o, &rules, token, f, err))
        return -1;
    if (f->reason == REASON_OK) {
        f->why = ignored;
        f->reason = token_check_time(&rules, f->id, f->now);
    }
    return 0;
}

static void
print_time(const char *what, int64_t at, int64_t now)
{
    char text[CLOCK_TEXT_SIZE];
    int64_t away = at > now ? at - now : now - at;
    if (at > YEAR_9999_S) {
        printf("%s second %lld", what, (long long)at);
        return;
    }
    clock_format_utc(at * 1000000, text);
    printf("%s %.19sZ (%s", what, text, at > now ? "in " : "");
    if (away >= 86400)
        printf("%lld d ", (long long)(away / 86400));
    if (away >= 3600)
        printf("%lld h ", (long long)(away / 3600 % 24));
    printf("%lld min %lld s%s)", (long long)(away / 60 % 60), (long long)(away % 60),
           at > now ? "" : " ago");
}

static void
print_binding(const struct identity *id)
{
    char address[ADDR_TEXT_SIZE];
    switch (id->binding) {
    case BINDING_NONE:
        puts("It is bound to no place: whoever has it can use it wherever the gate listens.");
        return;
    case BINDING_LISTENER:
        printf("It works only on the listener \"%s\".\n", id->binding_listener);
        return;
    case BINDING_ADDRESS:
        addr_format(&id->binding_address.base, address);
        printf("It works only for clients in %s/%d.\n", address, id->binding_address.bits);
        return;
    case BINDING_CERTIFICATE:
        printf("It works only with the client certificate whose SHA-256 is %s.\n", id->binding_x5t);
        return;
    }
}

static void
print_policy(const struct identity *id)
{
    if (id->policy_name)
        printf("Its policy is %s%s%s.\n", id->policy_name,
               *id->policy_sha256 ? ", whose file must have the SHA-256 " : "", id->policy_sha256);
    else if (id->embedded_policy)
        printf("It carries its policy: %s\n", id->embedded_policy);
    else
        puts("It names no policy: the gate's default_policy holds, or it is refused where there is "
             "none.");
}

/* Only what was checked to be printable ASCII; the rest is in the claims above, escaped. */
static void
print_identity(const struct findings *f)
{
    const struct identity *id = f->id;
    printf("It names the sandbox %s%s%s.\n", id->sub,
           id->jti ? "; the token's id is " : " and has no id (jti)", id->jti ? id->jti : "");
    print_time("It was issued", id->iat, f->now);
    if (id->nbf)
        print_time(", holds from", id->nbf, f->now);
    print_time(" and expires", id->exp, f->now);
    puts(".");
    print_policy(id);
    print_binding(id);
}

static void
print_verdict(const struct show *o, const struct findings *f)
{
    if (f->reason != REASON_OK) {
        printf("REFUSED %s: %s", reason_text(f->reason), reason_meaning(f->reason));
        printf("%s%s.\nWhat to do: %s.\n", f->why.text[0] ? ": " : "", f->why.text,
               reason_advice(f->reason));
        return;
    }
    if (!o->keys_path)
        puts("The signature was not checked: give --keys JWKS to know whether the gate would "
             "accept the token.");
    else
        puts("ACCEPTED: the gate would take this token, unless it is revoked.");
    if (!o->audience || !o->issuer)
        printf("Not compared: %s%s%s.\n", o->audience ? "" : "aud (--audience)",
               !o->audience && !o->issuer ? ", " : "", o->issuer ? "" : "iss (--issuer)");
}

static void
print_findings(const struct show *o, const struct findings *f)
{
    printf("header: %s\nclaims: %s\n", f->header ? f->header : "unreadable",
           f->claims ? f->claims : "unreadable");
    if (o->keys_path)
        printf("The signature is %s by the keys of %s (libjwt: %s).\n", f->signature, o->keys_path,
               f->libjwt);
    if (f->id)
        print_identity(f);
    print_verdict(o, f);
}

static json_t *
json_or_null(const char *text)
{
    struct err err;
    json_t *value = text ? json_read(slice_str(text), "segment", CLAIMS_DEPTH_MAX, &err) : NULL;
    return value ? value : json_null();
}

/* Without keys nothing was verified: neither yes nor no. */
static json_t *
accepted(const struct findings *f)
{
    if (f->reason == REASON_OK && strcmp(f->signature, NOT_CHECKED) == 0)
        return json_null();
    return json_boolean(f->reason == REASON_OK);
}

static void
print_json(const struct findings *f)
{
    json_auto_t *root = json_pack(
        "{s:o, s:s, s:s, s:s, s:s, s:s, s:o, s:o}", "accepted", accepted(f), "reason",
        reason_text(f->reason), "detail", f->why.text, "advice",
        f->reason == REASON_OK ? "" : reason_advice(f->reason), "signature", f->signature, "libjwt",
        f->libjwt, "header", json_or_null(f->header), "claims", json_or_null(f->claims));
    if (f->id)
        json_object_set_new(root, "expires_in_s", json_integer(f->id->exp - f->now));
    json_dumpf(root, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
    putchar('\n');
}

/* The argument, or standard input for "-". One line end goes (echo and editors put it there) and
 * one prefix, as in a password; everything else is the token's, for the gate would see it, too. */
static int
read_token(const char *argument, char **ret, size_t *ret_len, struct err *err)
{
    cleanup_free char *text = NULL;
    size_t len;
    if (strcmp(argument, "-") == 0) {
        if (file_read_fd(STDIN_FILENO, "standard input", TOKEN_INPUT_MAX, &text, &len, err))
            return -1;
        len -= len > 0 && text[len - 1] == '\n';
        len -= len > 0 && text[len - 1] == '\r';
    } else {
        text = mem_strdup(argument);
        len = strlen(text);
    }
    size_t skip = slice_starts_with(slice_of(text, len), "jwt_") ? 4 : 0;
    *ret = mem_dup_slice(slice_of(text + skip, len - skip));
    *ret_len = len - skip;
    return 0;
}

static int
show_token(const struct show *o, const char *argument)
{
    cleanup_free char *text = NULL;
    size_t len;
    struct err err = {0};
    struct findings f = {0};
    if (read_token(argument, &text, &len, &err))
        return cmd_fail(&err);
    int rc = examine(o, slice_of(text, len), &f, &err);
    if (rc == 0 && o->json)
        print_json(&f);
    else if (rc == 0)
        print_findings(o, &f);
    findings_done(&f);
    return rc ? cmd_fail(&err) : f.reason != REASON_OK;
}

static int
token_show(int argc, char **argv)
{
    static const char usage[] =
        "sallyport token show [--keys JWKS] TOKEN\n"
        "TOKEN - is read from standard input, where other users do not see it.";
    struct show o = {0};
    bool help = false;
    struct err err = {0};
    const struct option_row rows[] = {
        {"--keys", OPTION_TEXT, &o.keys_path, "JWKS", "the key set to verify with"},
        {"--audience", OPTION_TEXT, &o.audience, "A", "what aud must name"},
        {"--issuer", OPTION_TEXT, &o.issuer, "I", "what iss must be"},
        {"--json", OPTION_FLAG, &o.json, NULL, "print JSON"},
        {"--help", OPTION_FLAG, &help, NULL, "this text"},
        {0},
    };
    if (options_parse(rows, &argc, argv, &err))
        return cmd_fail(&err);
    if (help) {
        options_help(stdout, usage, rows);
        return 0;
    }
    if (argc != 2) {
        err_invalid(&err, "expected one TOKEN (or - for standard input), got %d", argc - 1);
        return cmd_fail(&err);
    }
    return show_token(&o, argv[1]);
}

/* -- revoke -- */

struct revoke {
    const char *path, *jti, *sub, *until;
};

/* Seconds since 1970, or "+1h" from now. */
static int
parse_until(const char *text, int64_t *ret, struct err *err)
{
    unsigned long long number;
    int64_t duration;
    if (text[0] == '+' && clock_parse_duration(text + 1, &duration))
        *ret = now_s() + duration;
    else if (slice_parse_uint(slice_str(text), CLAIMS_INT_MAX, &number))
        *ret = (int64_t)number;
    else
        return err_invalid(err, "--until \"%s\": expected seconds since 1970, or +1h, +7d from now",
                           text);
    if (*ret < now_s())
        return err_invalid(err, "--until \"%s\": is past already, the entry would do nothing",
                           text);
    return 0;
}

/* One entry a line, so that the file can be read and compared. */
static char *
write_list(const json_t *list)
{
    struct buf out;
    size_t i;
    json_t *entry;
    buf_init(&out, REVOKED_FILE_MAX);
    buf_append_str(&out, "[");
    json_array_foreach(list, i, entry)
    {
        cleanup_free char *line = json_dumps(entry, JSON_COMPACT);
        buf_append_str(&out, i ? ",\n " : "\n ");
        buf_append_str(&out, line);
    }
    buf_append_str(&out, "\n]\n");
    char *text = out.overflow ? NULL : mem_dup_slice(buf_slice(&out));
    buf_done(&out);
    return text;
}

static int
add_entry(const struct revoke *o, struct slice old, char **ret, struct err *err)
{
    int64_t until = 0;
    if (o->until && parse_until(o->until, &until, err))
        return -1;
    json_auto_t *list = old.len ? json_read(old, o->path, CLAIMS_DEPTH_MAX, err) : json_array();
    if (!list)
        return -1;
    json_t *entry = json_pack("{s:s}", o->jti ? "jti" : "sub", o->jti ? o->jti : o->sub);
    if (!entry)
        return err_invalid(err, "--%s: expected printable ASCII", o->jti ? "jti" : "sub");
    if (o->until)
        json_object_set_new(entry, "until", json_integer(until));
    if (json_array_append_new(list, entry))
        return err_invalid(err, "%s: expected an array", o->path);
    *ret = write_list(list);
    return *ret ? 0
                : err_invalid(err, "%s: would be larger than %u bytes", o->path, REVOKED_FILE_MAX);
}

/* What is written was read by the gate's own reader first: a list that it refuses would leave the
 * old one in force. */
static int
revoke_one(const struct revoke *o, struct err *err)
{
    cleanup_free char *old = NULL;
    cleanup_free char *text = NULL;
    size_t old_len;
    mode_t mode = 0644;
    if (lock_beside(o->path, err) ||
        read_if_there(o->path, REVOKED_FILE_MAX, &old, &old_len, &mode, err) ||
        add_entry(o, slice_of(old, old_len), &text, err) || !text)
        return -1;
    struct revocations *check = revocations_parse(slice_str(text), o->path, err);
    if (!check)
        return -1;
    revocations_unref(check);
    return file_replace(o->path, slice_str(text), mode, err);
}

static int
token_revoke(int argc, char **argv)
{
    static const char usage[] = "sallyport token revoke --file FILE --jti J|--sub S [--until TIME]";
    struct revoke o = {0};
    bool help = false;
    struct err err = {0};
    const struct option_row rows[] = {
        {"--file", OPTION_TEXT, &o.path, "FILE", "the revocation list (the gate's auth.revoked)"},
        {"--jti", OPTION_TEXT, &o.jti, "J", "the token with this id"},
        {"--sub", OPTION_TEXT, &o.sub, "S", "every token of this sandbox"},
        {"--until", OPTION_TEXT, &o.until, "TIME",
         "seconds since 1970 or +1h; after it the entry no longer counts"},
        {"--help", OPTION_FLAG, &help, NULL, "this text"},
        {0},
    };
    if (options_parse(rows, &argc, argv, &err))
        return cmd_fail(&err);
    if (help) {
        options_help(stdout, usage, rows);
        return 0;
    }
    if (no_more(argc, argv, &err) || need(o.path, "--file", "the revocation list", &err))
        return cmd_fail(&err);
    if (!o.jti == !o.sub)
        err_invalid(&err, "expected exactly one of --jti and --sub");
    else if (o.sub && !claims_sub_is_valid(slice_str(o.sub)))
        err_invalid(&err, "--sub: expected 1 to %d of A-Z a-z 0-9 _ -", CLAIMS_SUB_MAX);
    else if (o.jti && !claims_jti_is_valid(slice_str(o.jti)))
        err_invalid(&err, "--jti: expected 1 to %d printable ASCII bytes", CLAIMS_TEXT_MAX);
    else if (revoke_one(&o, &err) == 0)
        return printf("%s: %s %s is revoked\n", o.path, o.jti ? "token" : "sandbox",
                      o.jti ? o.jti : o.sub) < 0;
    return cmd_fail(&err);
}

/* -- the command -- */

int
cmd_token(int argc, char **argv)
{
    static const struct command commands[] = {
        {"keygen", token_keygen, "make a key and add its public half to a key set"},
        {"mint", token_mint, "sign a token"},
        {"show", token_show, "decode, verify and explain a token"},
        {"revoke", token_revoke, "add a token or a sandbox to the revocation list"},
    };
    bool help = argc > 1 && strcmp(argv[1], "--help") == 0;
    for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].fn(argc - 1, argv + 1);
    if (!help)
        return cmd_usage(
            "sallyport token keygen|mint|show|revoke [options] (--help after each tells more)");
    puts("usage: sallyport token COMMAND [options]\n");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        printf("  %-8s %s\n", commands[i].name, commands[i].help);
    puts("\n`sallyport token COMMAND --help` lists the options.");
    return 0;
}
