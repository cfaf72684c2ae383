/* The revocation list: who is on it, until when, and that a broken one says where it is broken. */
#include "unit/test.h"

#include "sallyport/auth/revocation.h"
#include "sallyport/base/mem.h"

static struct revocations *
parse(const char *text, struct err *err)
{
    *err = (struct err){0};
    return revocations_parse(slice_str(text), "revoked.json", err);
}

static bool
is_out(const char *list, const char *jti, const char *sub, int64_t now)
{
    struct err err;
    struct revocations *r = parse(list, &err);
    CHECK_THAT(r, "%s: %s", list, err.text);
    if (!r)
        return false;
    struct identity id = {.jti = (char *)(uintptr_t)jti, .sub = (char *)(uintptr_t)sub};
    bool out = revocations_has(r, &id, now);
    revocations_unref(r);
    return out;
}

TEST(by_jti_or_sub)
{
    static const char list[] = "[{\"jti\":\"t-1\"},{\"sub\":\"sb-1\"}]";
    CHECK(is_out(list, "t-1", "x", 0));
    CHECK(is_out(list, "x", "sb-1", 0));
    CHECK(is_out(list, NULL, "sb-1", 0));
    CHECK(!is_out(list, NULL, "t-1", 0));
    CHECK(!is_out(list, "sb-1", "x", 0));
    CHECK(!is_out(list, "t-", "sb-", 0));
    CHECK(!is_out("", "t-1", "sb-1", 0));
    CHECK(!is_out("[]", "t-1", "sb-1", 0));
}

TEST(until)
{
    static const char list[] = "[{\"jti\":\"t-1\",\"until\":100}]";
    CHECK(is_out(list, "t-1", "x", 0));
    CHECK(is_out(list, "t-1", "x", 100));
    CHECK(!is_out(list, "t-1", "x", 101));
    /* Said twice, the longer counts, in either order. */
    CHECK(is_out("[{\"sub\":\"s\",\"until\":100},{\"sub\":\"s\"}]", NULL, "s", 1000));
    CHECK(is_out("[{\"sub\":\"s\"},{\"sub\":\"s\",\"until\":100}]", NULL, "s", 1000));
    CHECK(is_out("[{\"sub\":\"s\",\"until\":5},{\"sub\":\"s\",\"until\":100}]", NULL, "s", 50));
    CHECK(is_out("[{\"sub\":\"s\",\"until\":100},{\"sub\":\"s\",\"until\":5}]", NULL, "s", 50));
    CHECK(is_out("[{\"sub\":\"s\",\"until\":9007199254740991}]", NULL, "s", 1800000000));
}

TEST(broken_lists_say_where)
{
    static const struct { const char *text, *error; } rows[] = {
        {" ", "line"}, {"{}", "expected an array"}, {"[", "line"}, {"[1]", "[0]: expected an object"}, {"[null]", "[0]"}, {"[{}]", "[0]: expected exactly one of"},
        {"[{\"jti\":\"a\",\"sub\":\"b\"}]", "[0]: expected exactly one of"}, {"[{\"jti\":7}]", "[0].jti: expected a string"},
        {"[{\"sub\":\"a b\"}]", "[0].sub: expected 1 to 128"}, {"[{\"sub\":\"\"}]", "[0].sub: expected 1 to 128"}, {"[{\"jti\":\"\"}]", "[0].jti: expected 1 to 256"},
        {"[{\"jti\":\"a\\n\"}]", "[0].jti: expected 1 to 256"}, {"[{\"jti\":\"a\"},{\"jit\":\"b\"}]", "[1]: unknown key \"jit\"; did you mean \"jti\""},
        {"[{\"jti\":\"a\",\"until\":\"tomorrow\"}]", "[0].until: expected an integer"}, {"[{\"jti\":\"a\",\"until\":-1}]", "[0].until: expected an integer"},
        {"[{\"jti\":\"a\",\"until\":1.5}]", "[0].until"}, {"[{\"jti\":\"a\",\"until\":null}]", "[0].until"}, {"[{\"jti\":\"a\",\"jti\":\"b\"}]", "duplicate"},
        {"[[[[[]]]]]", "nested"}, {"[{\"jti\":\"a\\u0000b\"}]", "line"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct err err;
        struct revocations *r = parse(rows[i].text, &err);
        CHECK_THAT(!r, "%s loads", rows[i].text);
        CHECK_THAT(strstr(err.text, rows[i].error), "%s: \"%s\" is not in \"%s\"", rows[i].text, rows[i].error, err.text);
        CHECK_THAT(strncmp(err.text, "revoked.json: ", 14) == 0, "no file in \"%s\"", err.text);
        revocations_unref(r);
    }
}

TEST(every_prefix_of_a_list_but_the_empty_one_is_refused)
{
    static const char list[] = "[{\"jti\":\"t-1\",\"until\":100},{\"sub\":\"s\"}]";
    for (size_t len = 1; len < strlen(list); len++) {
        struct err err = {0};
        struct revocations *r = revocations_parse(slice_of(list, len), "revoked.json", &err);
        CHECK_THAT(!r, "%zu bytes load", len);
        revocations_unref(r);
    }
}

TEST(references_are_counted)
{
    struct err err;
    struct revocations *r = parse("[{\"sub\":\"s\"}]", &err);
    struct identity id = {.sub = (char *)(uintptr_t)"s"};
    CHECK(revocations_ref(r) == r);
    revocations_unref(r);
    CHECK(revocations_has(r, &id, 0));
    revocations_unref(r);
    revocations_unref(NULL);
}
