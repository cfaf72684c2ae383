/* Asking sallyport-tool for the key and the token of `serve --dev`. */
#include "sallyport/cmd/devkey.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sallyport/base/file.h"
#include "sallyport/base/mem.h"
#include "sallyport/process/spawn.h"

#define ANSWER_MAX 16384

static pid_t
start(int program, int out, const char *audience, const char *issuer, struct err *err)
{
    struct spawn sp;
    spawn_init(&sp, program, "dev-key");
    spawn_fd(&sp, "--to", out);
    spawn_text(&sp, "--audience", audience);
    if (issuer)
        spawn_text(&sp, "--issuer", issuer);
    pid_t pid = spawn_run(&sp, err);
    spawn_done(&sp);
    return pid;
}

/* Two texts, each with its NUL. */
static int
take(const char *text, size_t len, char **ret_jwks, char **ret_token, struct err *err)
{
    const char *middle = memchr(text, '\0', len);
    if (!middle || text[len - 1] != '\0' || middle == text + len - 1)
        return err_run(err, "--dev: no key could be made");
    *ret_jwks = mem_strdup(text);
    *ret_token = mem_strdup(middle + 1);
    return 0;
}

static int
ask(int program, const char *audience, const char *issuer, char **ret_jwks, char **ret_token, struct err *err)
{
    int ends[2], status;
    char *text;
    size_t len;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_errno(err, "--dev: a pipe");
    pid_t pid = start(program, ends[1], audience, issuer, err);
    close(ends[1]);
    int rc = pid < 0 ? -1 : file_read_fd(ends[0], "--dev", ANSWER_MAX, &text, &len, err);
    close(ends[0]);
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (rc < 0)
        return -1;
    rc = take(text, len, ret_jwks, ret_token, err);
    mem_wipe(text, len);
    free(text);
    return rc;
}

int
dev_key_make(const char *audience, const char *issuer, char **ret_jwks, char **ret_token, struct err *err)
{
    int program = spawn_program("sallyport-tool", err);
    if (program < 0)
        return -1;
    int rc = ask(program, audience, issuer, ret_jwks, ret_token, err);
    close(program);
    return rc;
}
