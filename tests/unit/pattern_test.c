/* Path patterns and the path that they are matched against. */
#include "sallyport/policy/pattern.h"

#include "unit/policies.h"

static enum pattern_result
match(const char *pattern, const char *path)
{
    struct err err = {.kind = ERR_NONE};
    struct pattern *p = pattern_compile(slice_str(pattern), &err);
    CHECK_THAT(p, "%s: %s", pattern, err.text);
    enum pattern_result r = p ? pattern_match(p, slice_str(path)) : PATTERN_EXCEEDED;
    pattern_free(p);
    return r;
}

static void
check_matching(void)
{
    CHECK(match("^/a/", "/a/b") == PATTERN_YES);
    CHECK(match("^/a/", "/b/a/") == PATTERN_NO);
    CHECK(match("^/a$", "/a") == PATTERN_YES);
    CHECK(match("^/a$", "/a\n") == PATTERN_NO); /* $ is the very end */
    CHECK(match("^/(x|y)/\\1$", "/x/x") == PATTERN_YES);
    CHECK(match("^/\\xff$", "/\xff") == PATTERN_YES);
    CHECK(match("^/(a+)+$", "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!") == PATTERN_EXCEEDED);
    CHECK(match("^/(.*)*x$", "/yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy") != PATTERN_YES);
}

TEST(matches_and_limits_with_jit)
{
    check_matching();
}

TEST(matches_and_limits_without_jit)
{
    pattern_set_jit(false);
    check_matching();
    pattern_set_jit(true);
}

static void
check_whole(bool jit)
{
    static const struct { const char *pattern, *path; enum pattern_result wanted; } rows[] = {
        {"/a", "/a", PATTERN_YES}, {"/a", "/ab", PATTERN_NO}, {"/a", "/x/a", PATTERN_NO}, {"/a|/b", "/b", PATTERN_YES}, {"/a|/b", "/bc", PATTERN_NO},
        {"/a|/b", "/x/b", PATTERN_NO}, {"/a|b", "/ab", PATTERN_NO}, {"/a.*", "/abc", PATTERN_YES}, {"/a\\K", "/ab", PATTERN_NO}, {"/a$", "/a", PATTERN_YES},
        {"/(a+)+", "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", PATTERN_EXCEEDED}, {"/(?!x/).*", "/x/y", PATTERN_NO}, {"/(?!x/).*", "/xy", PATTERN_YES},
    };
    pattern_set_jit(jit);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct err err = {.kind = ERR_NONE};
        struct pattern *p = pattern_compile_whole(slice_str(rows[i].pattern), &err);
        CHECK_THAT(p, "%s: %s", rows[i].pattern, err.text);
        for (int again = 0; p && again < 2; again++)
            CHECK_THAT(pattern_match(p, slice_str(rows[i].path)) == rows[i].wanted, "%s on %s", rows[i].pattern, rows[i].path);
        pattern_free(p);
    }
    pattern_set_jit(true);
}

TEST(whole_patterns_match_nothing_less)
{
    check_whole(true);
    check_whole(false);
}

TEST(a_huge_subject_ends)
{
    char *path = malloc(60000);
    memset(path, 'a', 59999);
    path[0] = '/';
    path[59999] = '\0';
    CHECK(match("^/(a*)*b$", path) != PATTERN_YES);
    CHECK(match("^/(?:a|b)+$", path) != PATTERN_NO);
    free(path);
}

TEST(patterns_that_do_not_compile)
{
    static const char *const bad[] = {"", "(", "[a", "a{2,1}", "\\C", "(*UTF)a", "(?C1)a\\", "(?<n>a)(?<n>b)"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct err err = {.kind = ERR_NONE};
        struct pattern *p = pattern_compile(slice_str(bad[i]), &err);
        CHECK_THAT(!p && err.kind == ERR_INVALID && err.text[0], "%s", bad[i]);
        pattern_free(p);
    }
    char deep[256] = "";
    for (size_t i = 0; i < 100; i++)
        strcat(deep, "(");
    struct err err = {.kind = ERR_NONE};
    CHECK(!pattern_compile(slice_str(deep), &err));
    char *longest = malloc(PATTERN_TEXT_MAX + 2);
    memset(longest, 'a', PATTERN_TEXT_MAX + 1);
    CHECK(!pattern_compile(slice_of(longest, PATTERN_TEXT_MAX + 1), &err));
    struct pattern *p = pattern_compile(slice_of(longest, PATTERN_TEXT_MAX), &err);
    CHECK(p);
    pattern_free(p);
    free(longest);
}

static void
check_path(const char *path, const char *wanted)
{
    char out[4096];
    size_t len = 0;
    bool good = path_normalise(slice_str(path), out, &len);
    CHECK_THAT(good == (wanted != NULL), "%s: %s", path, good ? out : "refused");
    if (good && wanted) {
        CHECK_THAT(strcmp(out, wanted) == 0, "%s: \"%s\" is not \"%s\"", path, out, wanted);
        CHECK(len == strlen(out));
    }
}

TEST(paths_are_resolved_once)
{
    static const struct { const char *path, *wanted; } rows[] = {
        {"/", "/"}, {"/a", "/a"}, {"/a/", "/a/"}, {"/a?b=../..", "/a"}, {"/?", "/"}, {"/a/.", "/a/"}, {"/a/./b", "/a/b"}, {"/a/b/..", "/a/"},
        {"/a/b/../c", "/a/c"}, {"/a/../b/../c", "/c"}, {"/a/..", "/"}, {"/%61", "/a"}, {"/%2e/a", "/a"}, {"/a/%2e%2e/b", "/b"}, {"/a/.%2E/b", "/b"},
        {"//a", "/a"}, {"/a//b", "/a/b"}, {"/a///", "/a/"}, {"/...", "/..."}, {"/a..b/..c", "/a..b/..c"}, {"/.a", "/.a"}, {"/a%20b", "/a b"}, {"/100%25", "/100%"},
        {"/%C3%BC", "/\xc3\xbc"}, {"/a;x=1/b", "/a;x=1/b"}, {"/a%3Fb", "/a?b"}, {"/a/;x=1", "/a/;x=1"}, {"/%ff", "/\xff"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check_path(rows[i].path, rows[i].wanted);
}

TEST(what_still_looks_like_a_traversal_is_refused)
{
    static const char *const bad[] = {"", "a", "*", "/..", "/../a", "/a/../../b", "/%2e%2e", "/a%2fb", "/a%2Fb", "/a%5cb", "/a\\b", "/a/..%5c", "/%252e", "/%2561", "/a%00",
                                      "/a%0ab", "/%", "/%4", "/%4g", "/%u002e", "/a/..;/b", "/a/.;x/b", "/a/..%3bx/b", "/a/.. /b", "/a/..%20/b", "/a//../b", "/a//b/../../c", "/a/;x/../../b", "/;x/..", "/a#b",
                                      "/%c0%ae", "/%c1%9c", "/%e0%80%af", "/%f0%80%80%af", "/a%7f", "/%25%32%65", "/a\x01"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        check_path(bad[i], NULL);
    char out[8];
    size_t len;
    CHECK(!path_normalise(slice_of("/a\0b", 4), out, &len));
}

/* Every path of a small alphabet: what comes out is its own normal form and holds no dot segment. */
TEST(a_normal_form_stays_what_it_is)
{
    static const char alphabet[] = "/.a%2e;";
    char path[8] = "/", out[9], again[9];
    for (unsigned long n = 0; n < 7ul * 7 * 7 * 7 * 7 * 7; n++) {
        size_t len, len2;
        unsigned long k = n;
        for (size_t i = 1; i < 7; i++, k /= 7)
            path[i] = alphabet[k % 7];
        if (!path_normalise(slice_of(path, 7), out, &len))
            continue;
        CHECK(len <= 7 && out[0] == '/' && !strstr(out, "/../") && !strstr(out, "/./") && !strstr(out, "//"));
        if (!strchr(out, '%'))
            CHECK_THAT(path_normalise(slice_of(out, len), again, &len2) && len2 == len && memcmp(out, again, len) == 0, "%.7s", path);
    }
}

/* ---- with escaped slashes ---- */

static void
check_marked(const char *path, const char *wanted)
{
    char out[4096];
    size_t len = 0;
    bool good = path_normalise_marked(slice_str(path), out, &len);
    CHECK_THAT(good == (wanted != NULL) && (!good || (strcmp(out, wanted) == 0 && len == strlen(wanted))), "%s: %s", path, good ? out : "refused");
}

TEST(escaped_slashes_stay_where_both_readings_agree)
{
    static const char *const bad[] = {"", "a", "/%2f", "/%2fa", "/a%2f", "/a%2f/b", "/a/%2fb", "/a%2f%2fb", "/a%2f..", "/..%2fa", "/a%2f.%2fb", "/a%2f%2e%2e%2fb",
                                      "/a%2fb/..", "/a%2fb/../c", "/a/../b%2fc", "/a/./b%2fc", "/a//b%2fc", "/a%252fb", "/a%25", "/100%25", "/a%2fb%2541", "/a%2f..;x",
                                      "/a%2f;x", "/a%2fb%5cc", "/a%2fb%00", "/a%2fb%", "/a%2fb#c", "/a%2f%c0%ae", "/a%2f.. ", "/a%2fb/.."};
    check_marked("/@a%2fb", "/@a%2Fb");
    check_marked("/@a%2Fb/c?d=%2f..", "/@a%2Fb/c");
    check_marked("/%40a%2fb%20c/", "/@a%2Fb c/");
    check_marked("/a%2fb%2Fc", "/a%2Fb%2Fc");
    check_marked("/a/./b//c", "/a/b/c");
    check_marked("/a/../b", "/b");
    check_marked("/a%2f...", "/a%2F...");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        check_marked(bad[i], NULL);
}

/* In place: escaped slashes become raw ones. */
static size_t
as_slashes(char *text, size_t len)
{
    size_t out = 0;
    for (size_t i = 0; i < len; i++) {
        bool slash = i + 2 < len && text[i] == '%' && text[i + 1] == '2' && (text[i + 2] | 0x20) == 'f';
        text[out++] = slash ? '/' : text[i];
        i += slash ? 2 : 0;
    }
    return out;
}

/* Every path of a small alphabet: read as slashes, what was sent and what came out are the same path. */
TEST(a_marked_path_has_one_meaning)
{
    static const char *const parts[] = {"/", ".", "a", "%2f", "%2e", ";", "%2F"};
    for (unsigned long n = 0; n < 7ul * 7 * 7 * 7 * 7 * 7; n++) {
        char path[32] = "/", out[32], plain[32];
        size_t len, plain_len;
        unsigned long k = n;
        for (size_t i = 0; i < 6; i++, k /= 7)
            strcat(path, parts[k % 7]);
        if (!path_normalise_marked(slice_str(path), out, &len))
            continue;
        size_t sent_len = as_slashes(path, strlen(path)), out_len = as_slashes(out, len);
        CHECK_THAT(path_normalise(slice_of(path, sent_len), plain, &plain_len) && plain_len == out_len && memcmp(plain, out, out_len) == 0, "%.*s", (int)sent_len, path);
    }
}
