/* Opening listening sockets. Nothing is accepted here. */
#include "sallyport/process/sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "sallyport/base/addr.h"
#include "sallyport/base/diag.h"
#include "sallyport/base/mem.h"

#define BACKLOG 4096 /* the kernel's net.core.somaxconn is the lower bound of the two */

static int
bind_one(const struct sockaddr_storage *sa, socklen_t len, bool reuse_port)
{
    int on = 1, fd = socket(sa->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    /* An IPv6 wildcard means IPv6 alone: who wants both writes both, and sees both in the configuration. */
    bool fine = setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
                (!reuse_port || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0) &&
                (sa->ss_family != AF_INET6 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) == 0) &&
                bind(fd, (const struct sockaddr *)sa, len) == 0;
    if (!fine) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static int
listen_one(int fd)
{
    if (fd >= 0 && listen(fd, BACKLOG) < 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

/* SO_REUSEPORT would let us in beside another program of the same user, so one socket without it goes first and tells.
 * It also chooses the port when 0 is asked for. */
static int
probe(struct sockaddr_storage *sa, socklen_t len)
{
    int fd = listen_one(bind_one(sa, len, false));
    if (fd < 0)
        return -1;
    getsockname(fd, (struct sockaddr *)sa, &len);
    close(fd);
    return 0;
}

static int
open_row(const struct listener_settings *l, size_t slots, struct socket_row *row, struct err *err)
{
    socklen_t len;
    if (!sockaddr_parse(slice_str(l->address), 0, &row->address, &len))
        return err_invalid(err, "listen: %s: \"%s\" is no address:port", l->name, l->address);
    bool many = slots > 1;
    if (many && probe(&row->address, len) < 0)
        return err_errno(err, "listen: %s: %s", l->name, l->address);
    while (row->count < slots) {
        int fd = listen_one(bind_one(&row->address, len, many));
        if (fd < 0)
            return err_errno(err, "listen: %s: %s", l->name, l->address);
        row->fds[row->count++] = fd;
    }
    row->listens = true;
    getsockname(row->fds[0], (struct sockaddr *)&row->address, &len);
    return 0;
}

static int
take_passed(const struct listener_settings *l, int fd, struct socket_row *row, struct err *err)
{
    int listening = 0;
    socklen_t len = sizeof listening;
    /* Queries over UDP and watched packets come on sockets that do not listen. */
    bool datagrams = l->kind == LISTENER_DNS || l->kind == LISTENER_WATCH;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0 || (!listening && !datagrams))
        return err_invalid(err, "listen: %s: \"%s\" is not a listening socket", l->name, l->fd_name);
    row->fds[0] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (row->fds[0] < 0)
        return err_errno(err, "listen: %s", l->name);
    fcntl(row->fds[0], F_SETFL, fcntl(row->fds[0], F_GETFL) | O_NONBLOCK);
    row->count = 1;
    row->shared = true;
    row->listens = listening != 0;
    len = sizeof row->address;
    getsockname(row->fds[0], (struct sockaddr *)&row->address, &len);
    return 0;
}

static struct socket_row *
add_row(struct sockets *ret, const struct listener_settings *l)
{
    if (ret->count == SOCKETS_MAX)
        return NULL;
    struct socket_row *row = &ret->rows[ret->count++];
    row->name = mem_strdup(l->name);
    return row;
}

/* One listener may have several sockets: all that were passed under its name (a port each, or UDP and TCP). */
static int
take_all_passed(const struct listener_settings *l, const struct passed_fds *passed, struct sockets *ret, struct err *err)
{
    int fd = service_passed_fd(passed, l->fd_name, 0);
    if (fd < 0)
        return err_invalid(err, "listen: %s: no socket named \"%s\" was passed (LISTEN_FDNAMES)", l->name, l->fd_name);
    for (size_t nth = 1; fd >= 0; fd = service_passed_fd(passed, l->fd_name, nth++)) {
        struct socket_row *row = add_row(ret, l);
        if (!row)
            return err_invalid(err, "listen: %s: more than %d sockets", l->name, SOCKETS_MAX);
        if (take_passed(l, fd, row, err) < 0)
            return -1;
    }
    return 0;
}

int
sockets_open(const struct settings *s, size_t slots, const struct passed_fds *passed, struct sockets *ret, struct err *err)
{
    *ret = (struct sockets){0};
    for (size_t i = 0; i < s->listener_count; i++) {
        const struct listener_settings *l = &s->listeners[i];
        struct socket_row *row = l->address ? add_row(ret, l) : NULL;
        if ((row ? open_row(l, slots, row, err) : take_all_passed(l, passed, ret, err)) < 0) {
            sockets_close(ret);
            return -1;
        }
    }
    return 0;
}

void
sockets_close(struct sockets *s)
{
    for (size_t i = 0; i < s->count; i++) {
        for (size_t k = 0; k < s->rows[i].count; k++)
            if (s->rows[i].fds[k] >= 0)
                close(s->rows[i].fds[k]);
        free(s->rows[i].name);
    }
    *s = (struct sockets){0};
}

/* ---- after a crash ---- */

static bool
still_listens(int fd)
{
    int listening = 0;
    socklen_t len = sizeof listening;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) == 0 && listening;
}

/* The old one goes first, as it may still hold the port. */
static bool
open_anew(struct socket_row *row, size_t slot)
{
    socklen_t len = row->address.ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    if (row->fds[slot] >= 0)
        close(row->fds[slot]);
    row->fds[slot] = listen_one(bind_one(&row->address, len, row->count > 1));
    return row->fds[slot] >= 0;
}

size_t
sockets_mend(struct sockets *s, size_t slot)
{
    size_t shut = 0;
    for (size_t i = 0; i < s->count; i++) {
        struct socket_row *row = &s->rows[i];
        size_t at = row->shared ? 0 : slot;
        if (!row->listens || at >= row->count || still_listens(row->fds[at]))
            continue;
        if (row->shared) {
            diag(DIAG_ALARM, "listen: %s: the socket that was passed in does not listen any more; its owner must open it again", row->name);
            shut++;
        } else if (open_anew(row, at)) {
            diag(DIAG_ALARM, "listen: %s: worker %zu left a socket that does not listen; it is opened anew", row->name, slot);
        } else {
            diag(DIAG_ALARM, "listen: %s: worker %zu left a socket that does not listen, and it cannot be opened anew: %s", row->name, slot,
                 strerror(errno));
            shut++;
        }
    }
    return shut;
}

/* Sockets of a sandbox's network namespace are at addresses of that namespace, not of this host. */
static bool
is_of_this_network(int fd)
{
#ifdef SO_NETNS_COOKIE
    uint64_t theirs = 0, ours = 0;
    socklen_t len = sizeof theirs;
    int here = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool known = here >= 0 && getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &theirs, &len) == 0 &&
                 getsockopt(here, SOL_SOCKET, SO_NETNS_COOKIE, &ours, &len) == 0;
    if (here >= 0)
        close(here);
    return !known || theirs == ours;
#else
    (void)fd;
    return true;
#endif
}

char *
sockets_text(const struct sockets *s)
{
    char *text = mem_strdup("");
    for (size_t i = 0; i < s->count; i++) {
        char one[SOCKADDR_TEXT_SIZE];
        if (s->rows[i].address.ss_family != AF_INET && s->rows[i].address.ss_family != AF_INET6)
            continue;
        if (s->rows[i].shared && !is_of_this_network(s->rows[i].fds[0]))
            continue;
        sockaddr_format((const struct sockaddr *)&s->rows[i].address, one);
        char *more = mem_printf("%s%s\n", text, one);
        free(text);
        text = more;
    }
    return text;
}

int
socket_open_tcp(const char *address, const char *setting, struct err *err)
{
    struct sockaddr_storage sa;
    socklen_t len;
    if (!sockaddr_parse(slice_str(address), 0, &sa, &len))
        return err_invalid(err, "%s: \"%s\" is no address:port", setting, address);
    int fd = listen_one(bind_one(&sa, len, false));
    return fd >= 0 ? fd : err_errno(err, "%s: %s", setting, address);
}

/* A socket file that nobody answers on is left over from a run that was killed. */
static bool
is_stale(const struct sockaddr_un *to)
{
    struct stat st;
    if (lstat(to->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool refused = fd >= 0 && connect(fd, (const struct sockaddr *)to, sizeof *to) < 0 && errno == ECONNREFUSED;
    if (fd >= 0)
        close(fd);
    return refused;
}

int
socket_open_unix(const char *path, struct err *err)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof to.sun_path)
        return err_invalid(err, "admin.socket: %s: a path of at most %zu bytes is expected", path, sizeof to.sun_path - 1);
    memcpy(to.sun_path, path, strlen(path) + 1);
    if (is_stale(&to))
        unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_errno(err, "admin.socket");
    mode_t before = umask(0177);
    int rc = bind(fd, (struct sockaddr *)&to, sizeof to);
    umask(before);
    if (rc < 0 || listen(fd, 64) < 0) {
        err_errno(err, "admin.socket: %s", path);
        close(fd);
        return -1;
    }
    return fd;
}
