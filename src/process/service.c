/* The service manager's side of the supervisor. No library: both protocols are a page long. */
#include "sallyport/process/service.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "sallyport/base/mem.h"
#include "sallyport/base/slice.h"

static void
forget_environment(void)
{
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDNAMES");
}

static bool
read_env_number(const char *name, unsigned long long max, unsigned long long *ret)
{
    const char *text = getenv(name);
    return text && slice_parse_uint(slice_str(text), max, ret);
}

int
service_passed_fds(struct passed_fds *ret, struct err *err)
{
    unsigned long long pid, count;
    *ret = (struct passed_fds){0};
    bool ours = read_env_number("LISTEN_PID", 0x7fffffff, &pid) && (pid_t)pid == getpid();
    bool counted = read_env_number("LISTEN_FDS", PASSED_FDS_MAX, &count);
    if (ours && !counted)
        return err_invalid(err, "LISTEN_FDS: a number up to %d is expected", PASSED_FDS_MAX);
    if (!ours) {
        forget_environment();
        return 0;
    }
    const char *names = getenv("LISTEN_FDNAMES");
    struct slice rest = slice_str(names ? names : "");
    for (size_t i = 0; i < count; i++) {
        struct slice name = rest.ptr && rest.len ? slice_split(rest, ':', &rest) : slice_str("unknown");
        ret->items[i] = (struct passed_fd){mem_dup_slice(name), 3 + (int)i};
        fcntl(3 + (int)i, F_SETFD, FD_CLOEXEC);
    }
    ret->count = (size_t)count;
    forget_environment();
    return 0;
}

int
service_passed_fd(const struct passed_fds *p, const char *name, size_t nth)
{
    for (size_t i = 0; i < p->count; i++)
        if (strcmp(p->items[i].name, name) == 0 && nth-- == 0)
            return p->items[i].fd;
    return -1;
}

void
service_forget(struct passed_fds *p)
{
    for (size_t i = 0; i < p->count; i++)
        free(p->items[i].name);
    *p = (struct passed_fds){0};
}

void
service_notify(const char *state)
{
    static struct sockaddr_un to;
    static socklen_t len;
    const char *path = getenv("NOTIFY_SOCKET");
    if (path && (path[0] == '/' || path[0] == '@') && strlen(path) < sizeof to.sun_path) {
        to.sun_family = AF_UNIX;
        memcpy(to.sun_path, path, strlen(path) + 1);
        len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
        if (path[0] == '@')
            to.sun_path[0] = '\0';
    }
    unsetenv("NOTIFY_SOCKET");
    if (len == 0)
        return;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)!sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&to, len);
    close(fd);
}
