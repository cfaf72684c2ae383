/* Proxy-Authorization: which bytes are the token, and which fields are none. */
#include "unit/test.h"

#include "sallyport/auth/credential.h"
#include "sallyport/base/encoding.h"
#include "sallyport/base/mem.h"

static enum reason
read_fields(struct arena *arena, struct field *fields, size_t count, struct slice *ret)
{
    struct head head = {.fields = fields, .field_count = count};
    *ret = slice_of(NULL, 0);
    return credential_read(arena, &head, ret);
}

static struct field
field(const char *name, const char *value)
{
    return (struct field){slice_str(name), slice_str(value)};
}

static enum reason
read_value(const char *value, char *ret_token, size_t size)
{
    struct arena *arena = arena_new(1024);
    struct field f = field("proxy-authorization", value);
    struct slice token;
    enum reason reason = read_fields(arena, &f, 1, &token);
    snprintf(ret_token, size, "%.*s", token.ptr ? (int)token.len : 0, token.ptr ? token.ptr : "");
    arena_free(arena);
    return reason;
}

static char *
basic(const void *plain, size_t len)
{
    char *text = mem_alloc((len + 2) / 3 * 4 + 8);
    memcpy(text, "Basic ", 6);
    base64_encode(slice_of(plain, len), text + 6);
    return text;
}

TEST(schemes)
{
    static const struct { const char *value, *token; } rows[] = {
        {"Bearer a.b.c", "a.b.c"}, {"bearer a.b.c", "a.b.c"}, {"BEARER   a.b.c", "a.b.c"}, {"Bearer jwt_a.b.c", "jwt_a.b.c"},
        {"Basic dTphLmIuYw==", "a.b.c"}, {"basic dTphLmIuYw==", "a.b.c"}, {"Basic dTphLmIuYw", "a.b.c"},
        {"", NULL}, {"Basic", NULL}, {"Bearer", NULL}, {"Bearer ", NULL}, {"Basic ", NULL}, {"a.b.c", NULL}, {"Negotiate abc", NULL}, {"Digest a=b", NULL},
        {"Bearera.b.c", NULL}, {"Bearer\ta.b.c", NULL}, {"Bearer a.b.c d", NULL}, {"Bearer a.b.c, Basic dTphLmIuYw==", NULL}, {"Bearer a.b\x01", NULL},
        {"Basic dTphLmIuYw== x", NULL}, {"Basic dTphLmIuYx==", NULL}, {"Basic dTphLmIuYw=", NULL}, {"Basic dTph LmIuYw==", NULL}, {"Basic =", NULL},
        {"Basic !!!!", NULL}, {"Basic dTphLmIuYw==\n", NULL}, {"Basic Bearer", NULL}, {" Bearer a", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char token[64];
        enum reason got = read_value(rows[i].value, token, sizeof token);
        CHECK_THAT(got == (rows[i].token ? REASON_OK : REASON_TOKEN_MALFORMED), "\"%s\": %s", rows[i].value, reason_text(got));
        CHECK_THAT(strcmp(token, rows[i].token ? rows[i].token : "") == 0, "\"%s\": \"%s\"", rows[i].value, token);
    }
}

/* A byte that no token has, in each place: control bytes, SP and DEL are refused wherever they stand, others never are. */
TEST(every_byte_in_every_place)
{
    for (size_t len = 1; len < 26; len++) {
        char value[64] = "Bearer ", token[64];
        memset(value + 7, 'a', len);
        for (size_t at = 0; at < len; at++) {
            for (int c = 1; c < 256; c++) {
                bool fine = c > 0x20 && c != 0x7f;
                /* More SP before the token is none of it, SP alone is no token. */
                bool skipped = c == ' ' && at == 0 && len > 1;
                value[7 + at] = (char)c;
                CHECK_THAT((read_value(value, token, sizeof token) == REASON_OK) == (fine || skipped), "byte %02x at %zu of %zu", (unsigned)c, at, len);
            }
            value[7 + at] = 'a';
        }
    }
}

/* The user name in front of a password is read by the same rule, but for SP. */
TEST(every_byte_in_a_user_name)
{
    for (size_t at = 0; at < 19; at++) {
        for (int c = 0; c < 256; c++) {
            char plain[] = "uuuuuuuuuuuuuuuuuuu:a.b.c", token[64];
            plain[at] = (char)c;
            char *value = basic(plain, sizeof plain - 1);
            bool fine = c >= 0x20 && c != 0x7f;
            bool colon = c == ':' && at < 19; /* the token begins earlier, and has no rule against colons */
            CHECK_THAT((read_value(value, token, sizeof token) == REASON_OK) == (fine || colon), "byte %02x at %zu", (unsigned)c, at);
            free(value);
        }
    }
}

TEST(passwords)
{
    static const struct { const char *plain; size_t len; const char *token; } rows[] = {
        {"u:a.b.c", 7, "a.b.c"}, {":a.b.c", 6, "a.b.c"}, {"sandbox:jwt_a.b.c", 17, "a.b.c"}, {"u:jwt_jwt_a", 11, "jwt_a"}, {"u:v:w", 5, "v:w"},
        {"J\xc3\xb6rg:t", 7, "t"},
        {"u", 1, NULL}, {"", 0, NULL}, {":", 1, NULL}, {"u:", 2, NULL}, {"u:jwt_", 6, NULL}, {"u:a b", 5, NULL}, {"u:a\0b", 5, NULL}, {"u\0:a", 4, NULL},
        {"u\n:a", 4, NULL}, {"u:a\n", 4, NULL}, {"u:a\x7f", 4, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char token[64], *value = basic(rows[i].plain, rows[i].len);
        enum reason got = read_value(value, token, sizeof token);
        CHECK_THAT(got == (rows[i].token ? REASON_OK : REASON_TOKEN_MALFORMED), "%s (%s): %s", rows[i].plain, value, reason_text(got));
        CHECK_THAT(strcmp(token, rows[i].token ? rows[i].token : "") == 0, "%s: \"%s\"", value, token);
        free(value);
    }
}

TEST(one_field_exactly)
{
    struct arena *arena = arena_new(1024);
    struct slice token;
    struct field none[] = {field("Host", "example.com"), field("Authorization", "Bearer a.b.c"), field("X-Proxy-Authorization", "Bearer a.b.c")};
    CHECK(read_fields(arena, none, 3, &token) == REASON_TOKEN_MISSING && !token.ptr);
    CHECK(read_fields(arena, none, 0, &token) == REASON_TOKEN_MISSING);
    struct field two[] = {field("Proxy-Authorization", "Bearer a.b.c"), field("Host", "example.com"), field("proxy-AUTHORIZATION", "Bearer a.b.c")};
    CHECK(read_fields(arena, two, 3, &token) == REASON_TOKEN_MALFORMED && !token.ptr); /* even where they agree */
    CHECK(read_fields(arena, two, 2, &token) == REASON_OK && slice_is(token, "a.b.c"));
    arena_free(arena);
}

TEST(sizes)
{
    for (size_t len = TOKEN_MAX - 1; len <= TOKEN_MAX + 1; len++) {
        struct arena *arena = arena_new(1024);
        struct slice token;
        char *plain = mem_alloc(len + 7), *bearer = mem_alloc(len + 8);
        memcpy(plain, "u:jwt_", 6);
        memset(plain + 6, 'A', len);
        char *value = basic(plain, len + 6);
        struct field f = field("Proxy-Authorization", value);
        CHECK((read_fields(arena, &f, 1, &token) == REASON_OK) == (len <= TOKEN_MAX));
        CHECK(!token.ptr || token.len == len);
        memcpy(bearer, "Bearer ", 7);
        memset(bearer + 7, 'A', len);
        bearer[len + 7] = 0;
        f = field("Proxy-Authorization", bearer);
        CHECK((read_fields(arena, &f, 1, &token) == REASON_OK) == (len <= TOKEN_MAX));
        free(plain);
        free(bearer);
        free(value);
        arena_free(arena);
    }
    char *huge = mem_alloc(1000001);
    memset(huge, 'A', 1000000);
    memcpy(huge, "Basic ", 6);
    huge[1000000] = 0;
    char token[8];
    CHECK(read_value(huge, token, sizeof token) == REASON_TOKEN_MALFORMED);
    free(huge);
}
