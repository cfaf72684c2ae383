/* Files: caps, permissions, what is no regular file, replacement that leaves the old or the new. */
#include "unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sallyport/base/diag.h"
#include "sallyport/base/file.h"
#include "sallyport/base/mem.h"

static char *folder;

__attribute__((constructor)) static void
make_folder(void)
{
    static char name[] = "/tmp/sallyport-file-XXXXXX";
    folder = mkdtemp(name);
}

__attribute__((destructor)) static void
drop_folder(void)
{
    static const char *const names[] = {"a", "fifo", "link", "secret", "dir"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        remove(path);
    }
    rmdir(folder);
}

static const char *
in_folder(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

TEST(replace_and_read)
{
    struct err err = {0};
    char *text = NULL;
    size_t len = 0;
    struct stat st;
    CHECK(file_replace(in_folder("a"), slice_str("one"), 0640, &err) == 0);
    CHECK(file_replace(in_folder("a"), slice_of("t\0wo", 4), 0644, &err) == 0);
    CHECK(stat(in_folder("a"), &st) == 0 && (st.st_mode & 07777) == 0644);
    CHECK(file_read(in_folder("a"), 4, FILE_NOT_WRITABLE_BY_OTHERS, &text, &len, &err) == 0);
    CHECK(len == 4 && memcmp(text, "t\0wo", 5) == 0);
    free(text);
    CHECK(file_read(in_folder("a"), 3, FILE_ANY, &text, &len, &err) == -1);
    CHECK(err.kind == ERR_INVALID && strstr(err.text, "larger than 3"));
}

TEST(large_files_come_whole)
{
    struct err err = {0};
    char *text = NULL, *big = mem_alloc(100000);
    size_t len = 0;
    for (size_t i = 0; i < 100000; i++)
        big[i] = (char)(i * 7);
    CHECK(file_replace(in_folder("a"), slice_of(big, 100000), 0600, &err) == 0);
    CHECK(file_read(in_folder("a"), 100000, FILE_PRIVATE, &text, &len, &err) == 0);
    CHECK(len == 100000 && memcmp(text, big, len) == 0);
    free(text);
    int fd = open(in_folder("a"), O_RDONLY);
    CHECK(file_read_fd(fd, "a", 99999, &text, &len, &err) == -1 && err.kind == ERR_INVALID);
    close(fd);
    free(big);
}

TEST(permissions)
{
    struct err err = {0};
    char *text;
    size_t len;
    CHECK(file_replace(in_folder("a"), slice_str("x"), 0664, &err) == 0);
    CHECK(file_read(in_folder("a"), 10, FILE_NOT_WRITABLE_BY_OTHERS, &text, &len, &err) == -1 &&
          strstr(err.text, "0664"));
    CHECK(chmod(in_folder("a"), 0640) == 0);
    CHECK(file_read(in_folder("a"), 10, FILE_PRIVATE, &text, &len, &err) == -1 &&
          err.kind == ERR_INVALID);
    CHECK(chmod(in_folder("a"), 0400) == 0);
    CHECK(file_read(in_folder("a"), 10, FILE_PRIVATE | FILE_NOT_WRITABLE_BY_OTHERS, &text, &len,
                    &err) == 0);
    free(text);
}

TEST(only_regular_files)
{
    struct err err = {0};
    char *text;
    size_t len;
    CHECK(mkfifo(in_folder("fifo"), 0600) == 0);
    CHECK(file_read(in_folder("fifo"), 10, FILE_ANY, &text, &len, &err) == -1 &&
          strstr(err.text, "regular"));
    CHECK(mkdir(in_folder("dir"), 0700) == 0);
    CHECK(file_read(in_folder("dir"), 10, FILE_ANY, &text, &len, &err) == -1 &&
          strstr(err.text, "regular"));
    CHECK(file_read("/dev/null", 10, FILE_ANY, &text, &len, &err) == -1);
    CHECK(file_read(in_folder("none"), 10, FILE_ANY, &text, &len, &err) == -1 &&
          err_exit_status(&err) == 2);
    CHECK(strstr(err.text, "No such file"));
}

TEST(private_files_are_made_once)
{
    struct err err = {0};
    struct stat st;
    CHECK(file_create_private(in_folder("secret"), slice_str("s"), &err) == 0);
    CHECK(stat(in_folder("secret"), &st) == 0 && (st.st_mode & 07777) == 0600);
    CHECK(file_create_private(in_folder("secret"), slice_str("t"), &err) == -1);
    char target[256];
    snprintf(target, sizeof target, "%s/elsewhere", folder);
    CHECK(symlink(target, in_folder("link")) == 0);
    CHECK(file_create_private(in_folder("link"), slice_str("t"), &err) == -1);
    CHECK(access(target, F_OK) != 0);
}

TEST(replace_leaves_nothing_on_failure)
{
    struct err err = {0};
    CHECK(file_replace(in_folder("none/x"), slice_str("t"), 0600, &err) == -1 &&
          err.kind == ERR_INVALID);
    CHECK(file_replace(in_folder("dir"), slice_str("t"), 0600, &err) == -1);
    char beside[300];
    snprintf(beside, sizeof beside, "%s.new-%ld", in_folder("dir"), (long)getpid());
    CHECK(access(beside, F_OK) != 0);
}

TEST(errors_wrap)
{
    struct err err = {0};
    errno = EADDRINUSE;
    CHECK(err_errno(&err, "cannot bind %s", "x") == -1 && err_exit_status(&err) == 3);
    CHECK(err_wrap(&err, "listener %s", "main") == -1);
    CHECK_STR(err.text, "listener main: cannot bind x: Address already in use");
    CHECK(err_invalid(&err, "bad %d", 5) == -1 && err_exit_status(&err) == 2);
    char longer[3000];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    CHECK(err_wrap(&err, "%s", longer) == -1 && strlen(err.text) == ERR_TEXT_MAX - 1);
}

/* What a call writes to standard error. */
static size_t
capture(char *out, size_t size, void (*fn)(void))
{
    int fds[2], kept = dup(STDERR_FILENO);
    CHECK(pipe(fds) == 0);
    dup2(fds[1], STDERR_FILENO);
    fn();
    dup2(kept, STDERR_FILENO);
    close(kept);
    close(fds[1]);
    ssize_t got = read(fds[0], out, size - 1);
    close(fds[0]);
    out[got > 0 ? got : 0] = '\0';
    return got > 0 ? (size_t)got : 0;
}

static void
say_hostile(void)
{
    diag(DIAG_WARNING, "name %s", "a\nb\033[2J\xff");
    diag(DIAG_DEBUG, "not shown");
}

static void
say_long(void)
{
    char longer[5000];
    memset(longer, '\1', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    diag_set_role("worker 1");
    diag(DIAG_ALARM, "%s", longer);
    diag_set_role("");
}

TEST(diagnostics_are_one_printable_line)
{
    char out[8192];
    capture(out, sizeof out, say_hostile);
    CHECK_STR(out, "sallyport: warning: name a\\x0ab\\x1b[2J\\xff\n");
    size_t len = capture(out, sizeof out, say_long);
    CHECK(len < 4096 && out[len - 1] == '\n' && strchr(out, '\n') == out + len - 1);
    CHECK(strncmp(out, "sallyport[worker 1]: alarm: \\x01", 32) == 0);
}
