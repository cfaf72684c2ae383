/* `sallyport log` on real files, and options. The commands are not in the library: their sources
 * are taken in here. */
#include "unit/test.h"

#include <signal.h>
#include <sys/wait.h>

#include "../../src/cmd/log.c"
#include "../../src/cmd/log_follow.c"
#include "../../src/cmd/log_lines.c"
#include "../../src/cmd/log_summary.c"
#include "../../src/cmd/options.c"

static char folder[] = "/tmp/sallyport-log-XXXXXX";
static char output[1 << 20];

__attribute__((constructor)) static void
make_folder(void)
{
    if (!mkdtemp(folder))
        abort();
}

static void
empty_folder(void)
{
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (e->d_name[0] != '.')
            unlink(path);
    }
    if (dir)
        closedir(dir);
}

__attribute__((destructor)) static void
drop_folder(void)
{
    empty_folder();
    rmdir(folder);
}

static char *
at(const char *name)
{
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

/* Runs `log ARGS…`; standard output and error come to `output`. */
static int
run(const char *first, ...)
{
    char *argv[16] = {(char *)(uintptr_t) "log"};
    int argc = 1;
    va_list args;
    va_start(args, first);
    for (const char *a = first; a; a = va_arg(args, const char *))
        argv[argc++] = (char *)(uintptr_t)a;
    va_end(args);
    fflush(stdout);
    int kept = dup(STDOUT_FILENO), kept_err = dup(STDERR_FILENO);
    int fd = open(at(".out"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    int status = cmd_log(argc, argv);
    fflush(stdout);
    dup2(kept, STDOUT_FILENO);
    dup2(kept_err, STDERR_FILENO);
    close(kept);
    close(kept_err);
    ssize_t got = pread(fd, output, sizeof output - 1, 0);
    output[got > 0 ? got : 0] = '\0';
    close(fd);
    unlink(at(".out"));
    return status;
}

static struct chain chain;

static void
begin(void)
{
    empty_folder();
    chain_init(&chain);
}

static void
append(const char *name, const struct record *r)
{
    struct buf draft, line;
    buf_init(&draft, RECORD_LINE_MAX);
    buf_init(&line, RECORD_LINE_MAX + 1);
    CHECK(record_draft(&draft, RECORD_JSONL, r) && chain_append(&chain, &line, buf_slice(&draft)));
    int fd = open(at(name), O_WRONLY | O_CREAT | O_APPEND, 0600);
    CHECK(fd_write_all(fd, buf_slice(&line)) == 0);
    close(fd);
    buf_done(&draft);
    buf_done(&line);
}

static void
append_decisions(const char *name, int count, bool allow, const char *host)
{
    for (int i = 0; i < count; i++) {
        struct record r = {.event = RECORD_DECISION,
                           .sandbox = slice_str("sbx-1"),
                           .host = slice_str(host),
                           .port = 443,
                           .allow = allow,
                           .reason = allow ? REASON_OK : REASON_HOST_NOT_ALLOWED};
        append(name, &r);
    }
}

static void
append_raw(const char *name, const char *text)
{
    int fd = open(at(name), O_WRONLY | O_APPEND | O_CREAT, 0600);
    CHECK(fd_write_all(fd, slice_str(text)) == 0);
    close(fd);
}

TEST(verify_finds_rotated_files)
{
    begin();
    append_decisions("d.000000000001", 5, true, "a.example.com");
    append_decisions("d.000000000006", 3, true, "b.example.com");
    append_decisions("d", 4, true, "c.example.com");
    append_raw("d.torn-000000000009", "junk");
    append_raw("dx.000000000001", "junk\n");
    CHECK(run("verify", at("d"), NULL) == 0);
    CHECK_THAT(strstr(output, "intact: 12 records (1 to 12) in 3 files"), "%s", output);
    CHECK(strstr(output, "a cut tail shows only against a head kept elsewhere"));
    char head[200];
    snprintf(head, sizeof head, "12:%s", chain.prev);
    CHECK(strstr(output, head));
    CHECK(run("verify", "--head", head, at("d"), NULL) == 0 && !strstr(output, "cut tail"));
    CHECK(unlink(at("d")) == 0);
    CHECK(run("verify", at("d"), NULL) == 0 && strstr(output, "8 records"));
    CHECK(run("verify", "--head", head, at("d"), NULL) == 1 && strstr(output, "tail was cut"));
    CHECK(run("verify", at("d.000000000006"), at("d.000000000001"), NULL) == 1 &&
          strstr(output, "reordering"));
    CHECK(unlink(at("d.000000000001")) == 0);
    CHECK(run("verify", at("d"), NULL) == 0 && strstr(output, "begins at record 6"));
}

TEST(verify_says_one_of_a_kind)
{
    begin();
    struct record start = {.event = RECORD_START};
    append("d", &start);
    CHECK(run("verify", at("d"), NULL) == 0);
    CHECK_THAT(strstr(output, "intact: 1 record (1 to 1) in 1 file, 1 start, 0 checkpoints\n"), "%s", output);
}

TEST(verify_names_file_line_and_record)
{
    begin();
    append_decisions("d.000000000001", 5, true, "a.example.com");
    append_decisions("d", 1, true, "b.example.com");
    append_raw("d", "# hello\n");
    append_decisions("d", 1, true, "b.example.com");
    CHECK(run("verify", "--json", at("d"), NULL) == 1);
    CHECK_THAT(strstr(output, "\"kind\":\"insertion\"") && strstr(output, "\"line\":2,\"seq\":7"),
               "%s", output);
    CHECK(run("verify", at("d"), NULL) == 1 && strstr(output, "/d:2: insertion at record 7"));
}

TEST(verify_says_a_torn_line)
{
    begin();
    append_decisions("d", 3, true, "a.example.com");
    append_raw("d", "{\"ts\":\"20");
    CHECK(run("verify", at("d"), NULL) == 0 && strstr(output, "/d:4: the last line is torn"));
    append_raw("d", "\n");
    CHECK(run("verify", at("d"), NULL) == 1 && strstr(output, "not a record"));
}

TEST(verify_takes_endless_lines)
{
    begin();
    append_decisions("d", 2, true, "a.example.com");
    char *large = mem_alloc(3 * BLOCK_SIZE);
    memset(large, 'x', 3 * BLOCK_SIZE);
    large[3 * BLOCK_SIZE - 2] = '\n';
    large[3 * BLOCK_SIZE - 1] = '\0';
    append_raw("d", large);
    append_decisions("d", 2000, true, "a.example.com");
    CHECK(run("verify", "--json", at("d"), NULL) == 1 && strstr(output, "\"line\":3,\"seq\":3"));
    large[3 * BLOCK_SIZE - 2] = 'x';
    append_raw("d", large);
    CHECK(run("summary", "--json", at("d"), NULL) == 0 &&
          strstr(output, "\"records\":2002,\"unreadable\":2"));
    free(large);
}

TEST(verify_refuses_bad_input)
{
    begin();
    append_decisions("d", 2, true, "a.example.com");
    CHECK(run("verify", at("none"), NULL) == 2 && strstr(output, "No such file"));
    CHECK(run("verify", folder, NULL) == 2);
    CHECK(run("verify", "--head", "5", at("d"), NULL) == 2 && strstr(output, "SEQ:HASH"));
    CHECK(run("verify", "--head", "0:00", at("d"), NULL) == 2);
    CHECK(run("verify", "--key", at("d"), at("d"), NULL) == 2);
    CHECK(run("verify", NULL) == 2);
    CHECK(run("verfy", at("d"), NULL) == 2 && strstr(output, "did you mean verify"));
    CHECK(run("summary", "--head", "5", at("d"), NULL) == 2);
    CHECK(run("follow", at("d"), at("d"), NULL) == 2);
    CHECK(run("verify", "--jsn", at("d"), NULL) == 2 && strstr(output, "--json"));
    CHECK(run("--help", NULL) == 0 && strstr(output, "usage:"));
}

TEST(summary_counts)
{
    begin();
    append_decisions("d", 7, true, "a.example.com");
    append_decisions("d", 2, false, "b.example.com");
    struct record close = {.event = RECORD_CLOSE,
                           .sandbox = slice_str("sbx-1"),
                           .host = slice_str("a.example.com"),
                           .port = 443,
                           .has_decision = true,
                           .reason = REASON_SNI_MISMATCH,
                           .bytes_up = 10,
                           .bytes_down = 20};
    append("d", &close);
    close.has_decision = false;
    close.reason = REASON_UPSTREAM_REFUSED;
    append("d", &close);
    struct record repeated = {.event = RECORD_REPEATED,
                              .extra =
                                  slice_str("\"sandbox\":\"sbx-2\",\"reason\":\"host_not_allowed\","
                                            "\"host\":\"b.example.com\",\"count\":40")};
    append("d", &repeated);
    struct record challenge = {.event = RECORD_CHALLENGE, .reason = REASON_TOKEN_MISSING};
    append("d", &challenge);
    CHECK(run("summary", at("d"), NULL) == 0);
    CHECK_THAT(
        strstr(output, "7 allowed, 43 denied, 1 challenged, 1 failed, 20 bytes up, 40 bytes down"),
        "%s", output);
    CHECK(strstr(output, "sbx-2") && strstr(output, "sni_mismatch") && strstr(output, "(none)"));
    CHECK(run("summary", "--json", at("d"), NULL) == 0);
    CHECK(strstr(output, "\"name\":\"b.example.com\",\"allowed\":0,\"denied\":42"));
}

TEST(hostile_names_reach_no_terminal)
{
    begin();
    struct record r = {.event = RECORD_DECISION,
                       .host = slice_of("a\0\033[2J\xff\n", 8),
                       .sandbox = slice_str("\033]0;x\007"),
                       .reason = REASON_REQUEST_MALFORMED};
    append("d", &r);
    append_raw("d", "\033[31mnot a record\n");
    CHECK(run("summary", at("d"), NULL) == 0 && strstr(output, "a\\x00\\x1b[2J"));
    for (const char *p = output; *p; p++)
        CHECK(*p == '\n' || (*p >= 0x20 && *p <= 0x7e));
    CHECK(run("verify", at("d"), NULL) == 1 && !strchr(output, '\033'));
}

/* Reads what comes within two seconds until `wanted` is in it. */
static bool
comes(int fd, const char *wanted)
{
    static char got[65536];
    size_t len = 0;
    for (int i = 0; i < 100; i++) {
        ssize_t n = read(fd, got + len, sizeof got - len - 1);
        if (n > 0)
            len += (size_t)n;
        got[len] = '\0';
        if (strstr(got, wanted))
            return true;
        usleep(20000);
    }
    printf("  got: %s\n", got);
    return false;
}

TEST(follow_survives_rotation)
{
    begin();
    append_decisions("d", 15, true, "old.example.com");
    append_decisions("d", 1, true, "last.example.com");
    int fds[2];
    CHECK(pipe2(fds, O_NONBLOCK) == 0);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        char *argv[] = {(char *)(uintptr_t) "log", (char *)(uintptr_t) "follow", at("d"), NULL};
        dup2(fds[1], STDOUT_FILENO);
        _exit(cmd_log(3, argv));
    }
    CHECK(comes(fds[0], "decision allow ok sbx-1 last.example.com:443\n"));
    append_decisions("d", 1, false, "new.example.com");
    CHECK(comes(fds[0], "decision deny host_not_allowed sbx-1 new.example.com:443"));
    append_decisions("d", 1, true, "before.example.com");
    CHECK(rename(at("d"), at("d.000000000001")) == 0);
    append_decisions("d.000000000001", 1, true, "late.example.com");
    CHECK(comes(fds[0], "late.example.com"));
    append_decisions("d", 1, true, "after.example.com");
    CHECK(comes(fds[0], "after.example.com"));
    append_raw("d", "{\"torn");
    append_raw("d", " line\"}\n");
    CHECK(comes(fds[0], "{\"torn line\"}\n"));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(fds[0]);
    close(fds[1]);
}

/* ---- Options ---- */

static bool flag;
static const char *text;
static struct option_list list;
static const struct option_row rows[] = {
    {"--json", OPTION_FLAG, &flag, NULL, "as JSON"},
    {"--policy", OPTION_TEXT, &text, "FILE", "the policy"},
    {"--listen", OPTION_REPEATED, &list, "ADDR", "where"},
    {0},
};

static int
parse(struct err *err, int *argc, char **argv)
{
    flag = false;
    text = NULL;
    list.count = 0;
    for (*argc = 0; argv[*argc]; ++*argc)
        ;
    return options_parse(rows, argc, argv, err);
}

#define ARGS(...)                                                                                  \
    (char *[])                                                                                     \
    {                                                                                              \
        (char *)(uintptr_t) "x", __VA_ARGS__, NULL                                                 \
    }
#define A(s) (char *)(uintptr_t)(s)

TEST(options_are_taken_out)
{
    struct err err = {0};
    int argc;
    char **argv = ARGS(A("one"), A("--policy=p=q"), A("--json"), A("-"), A("--listen"), A("a"),
                       A("--listen=b"), A("--"), A("--json"), A("--"));
    CHECK(parse(&err, &argc, argv) == 0);
    CHECK(flag && strcmp(text, "p=q") == 0 && list.count == 2 && strcmp(list.items[1], "b") == 0);
    CHECK(argc == 5 && strcmp(argv[1], "one") == 0 && strcmp(argv[2], "-") == 0 &&
          strcmp(argv[3], "--json") == 0);
    CHECK(argv[5] == NULL);
}

TEST(options_refuse)
{
    struct err err = {0};
    int argc;
    CHECK(parse(&err, &argc, ARGS(A("--polcy"), A("p"))) == -1 &&
          strstr(err.text, "did you mean --policy") && err.kind == ERR_INVALID);
    CHECK(parse(&err, &argc, ARGS(A("--policy"))) == -1 && strstr(err.text, "needs a value"));
    CHECK(parse(&err, &argc, ARGS(A("--json=1"))) == -1 && strstr(err.text, "takes no value"));
    CHECK(parse(&err, &argc, ARGS(A("--policy=a"), A("--policy=b"))) == -1 &&
          strstr(err.text, "twice"));
    CHECK(parse(&err, &argc, ARGS(A("-x"))) == -1);
    CHECK(parse(&err, &argc, ARGS(A("--policy="))) == 0 && text[0] == '\0');
}
