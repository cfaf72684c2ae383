/* The launcher's options: each value is taken exactly or refused. */
#include "unit/test.h"

#include "sallyport/sandbox/mounts.h"
#include "sallyport/sandbox/options.h"

#include <sys/stat.h>
#include <unistd.h>

static int
parse(const char *const *extra, struct sandbox_options *o, struct err *err)
{
    static const char *argv[64]; /* the options point into it */
    static const char *const first[] = {"launch", "--id", "a", "--run-dir", "/r", "--gate", "/g"};
    int argc = 7;
    memset(argv, 0, sizeof argv);
    memcpy(argv, first, sizeof first);
    for (; *extra; extra++)
        argv[argc++] = *extra;
    *err = (struct err){0};
    return sandbox_options_parse(argc, (char **)(uintptr_t)argv, o, err);
}

#define PARSE(...) parse((const char *const[]){__VA_ARGS__, NULL}, &o, &err)

TEST(sizes)
{
    static const struct { const char *text; uint64_t value; } good[] = {
        {"4096", 4096}, {"64k", 65536}, {"64K", 65536}, {"512M", 512u << 20}, {"2G", UINT64_C(2) << 30}, {"9007199254740992", UINT64_C(1) << 53}};
    static const char *const bad[] = {"", "M", "-1M", "1.5G", "0", "4095", "1T", "1 G", "0512M", "9007199254740993", "9999999999G", "12MM"};
    uint64_t value;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        CHECK_THAT(parse_size(good[i].text, &value) && value == good[i].value, "%s", good[i].text);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_THAT(!parse_size(bad[i], &value), "%s", bad[i]);
}

TEST(processors)
{
    static const struct { const char *text; uint64_t value; } good[] = {{"1", 1000}, {"1.5", 1500}, {"0.25", 250}, {"0.01", 10}, {"16.125", 16125}};
    static const char *const bad[] = {"", "0", "0.001", ".5", "1.", "1.2345", "1,5", "-1", "1e3", "5000", "1.5 "};
    uint64_t value;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        CHECK_THAT(parse_milli(good[i].text, &value) && value == good[i].value, "%s", good[i].text);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_THAT(!parse_milli(bad[i], &value), "%s", bad[i]);
}

TEST(a_whole_line)
{
    struct sandbox_options o;
    struct err err;
    CHECK(PARSE("--transparent", "--port", "8080", "--port", "8443", "--port", "8080", "--bind", "/a", "--bind", "/b", "--timeout", "90s", "--",
                "cmd", "--port", "x") == 0);
    CHECK(o.transparent && o.port_count == 2 && o.ports[0] == 8080 && o.ports[1] == 8443);
    CHECK(o.binds.count == 2 && o.timeout_s == 90);
    CHECK_STR(o.command[0], "cmd");
    CHECK_STR(o.command[1], "--port");
}

TEST(what_is_wrong_is_said)
{
    struct sandbox_options o;
    struct err err;
    CHECK(PARSE("--port", "80", "--", "c") < 0 && strstr(err.text, "--transparent"));
    CHECK(PARSE("--transparent", "--port", "0", "--", "c") < 0);
    CHECK(PARSE("--transparent", "--port", "65536", "--", "c") < 0);
    CHECK(PARSE("--transparent", "--port", "3128", "--", "c") < 0);
    CHECK(PARSE("--transparent", "--port", "53", "--", "c") < 0);
    CHECK(PARSE("--limits", "hard", "--", "c") < 0 && strstr(err.text, "best-effort"));
    CHECK(PARSE("--pids", "1", "--", "c") < 0);
    CHECK(PARSE("--timeout", "0", "--", "c") < 0);
    CHECK(PARSE("--timeout") < 0);
    CHECK(PARSE("--nothing", "--", "c") < 0);
    CHECK(PARSE("--") < 0);
    CHECK(PARSE("--id", "a/b", "--", "c") < 0);
    CHECK(PARSE("--id", "", "--", "c") < 0);
}

TEST(lists_have_an_end)
{
    const char *argv[16 + 2 * (SANDBOX_LIST_MAX + 1)] = {"launch", "--id", "a", "--run-dir", "/r", "--gate", "/g"};
    int argc = 7;
    struct sandbox_options o;
    struct err err = {0};
    for (int i = 0; i <= SANDBOX_LIST_MAX; i++) {
        argv[argc++] = "--bind";
        argv[argc++] = "/x";
    }
    argv[argc++] = "--";
    argv[argc++] = "c";
    CHECK(sandbox_options_parse(argc, (char **)(uintptr_t)argv, &o, &err) < 0);
}

TEST(a_directory_is_reached_without_links)
{
    char top[] = "/tmp/sallyport-dir-XXXXXX", path[128];
    struct err err = {0};
    CHECK(mkdtemp(top));
    snprintf(path, sizeof path, "%s/real", top);
    CHECK(mkdir(path, 0755) == 0);
    snprintf(path, sizeof path, "%s/link", top);
    CHECK(symlink("real", path) == 0);
    int fd = open_directory(path, &err);
    CHECK(fd < 0 && strstr(err.text, "symbolic link"));
    snprintf(path, sizeof path, "%s/link/..", top);
    CHECK(open_directory(path, &err) < 0);
    snprintf(path, sizeof path, "%s/./real/../real/", top);
    fd = open_directory(path, &err);
    CHECK(fd >= 0);
    close(fd);
    snprintf(path, sizeof path, "%s/real/none", top);
    CHECK(open_directory(path, &err) < 0);
    CHECK(open_directory("", &err) < 0);
    CHECK(open_directory("/dev/null", &err) < 0 && strstr(err.text, "not a directory"));
    snprintf(path, sizeof path, "%s/link", top);
    unlink(path);
    snprintf(path, sizeof path, "%s/real", top);
    rmdir(path);
    rmdir(top);
}
