/* Copying between the caller's terminal and the sandbox's. The sandbox never holds the caller's: what it writes there arrives
 * as bytes, and it cannot type into it. */
#include "sallyport/sandbox/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

bool
terminal_wanted(void)
{
    return isatty(0) || isatty(1) || isatty(2);
}

void
terminal_init(struct terminal *t)
{
    *t = (struct terminal){.master = -1, .in = isatty(0) ? 0 : -1, .out = isatty(1) ? 1 : isatty(2) ? 2 : 0};
}

void
terminal_resize(struct terminal *t)
{
    struct winsize size;
    if (t->master >= 0 && ioctl(t->out, TIOCGWINSZ, &size) == 0)
        ioctl(t->master, TIOCSWINSZ, &size);
}

void
terminal_attach(struct terminal *t, int master)
{
    struct termios raw;
    t->master = master;
    fcntl(master, F_SETFL, fcntl(master, F_GETFL) | O_NONBLOCK);
    if (t->in >= 0 && tcgetattr(t->in, &t->before) == 0) {
        /* The new terminal begins as the old one is, which then hands every key on as it is. */
        tcsetattr(master, TCSANOW, &t->before);
        raw = t->before;
        cfmakeraw(&raw);
        t->raw = tcsetattr(t->in, TCSADRAIN, &raw) == 0;
    }
    terminal_resize(t);
}

void
terminal_poll(struct terminal *t, struct pollfd rows[3])
{
    bool there = t->master >= 0;
    rows[0] = (struct pollfd){.fd = there && !t->in_ended && t->to_master_len < TERMINAL_BUFFER ? t->in : -1, .events = POLLIN};
    rows[1] = (struct pollfd){.fd = t->master};
    if (t->to_out_len < TERMINAL_BUFFER)
        rows[1].events |= POLLIN;
    if (t->to_master_len)
        rows[1].events |= POLLOUT;
    rows[2] = (struct pollfd){.fd = t->to_out_len ? t->out : -1, .events = POLLOUT};
}

/* Bytes read into the buffer; 0 when there are none now, -1 at the end. */
static ssize_t
fill(int fd, char *buffer, size_t *len)
{
    ssize_t got = read(fd, buffer + *len, TERMINAL_BUFFER - *len);
    if (got > 0)
        *len += (size_t)got;
    return got > 0 ? got : got < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

static void
drain(int fd, char *buffer, size_t *len)
{
    ssize_t put = write(fd, buffer, *len);
    if (put < 0 && errno != EAGAIN && errno != EINTR)
        put = (ssize_t)*len; /* nobody listens any more */
    if (put <= 0)
        return;
    memmove(buffer, buffer + put, *len - (size_t)put);
    *len -= (size_t)put;
}

static void
lose_master(struct terminal *t)
{
    close(t->master);
    t->master = -1;
    t->to_master_len = 0;
}

void
terminal_move(struct terminal *t, const struct pollfd rows[3])
{
    if (rows[0].revents && fill(t->in, t->to_master, &t->to_master_len) < 0)
        t->in_ended = true;
    if ((rows[1].revents & POLLOUT) && t->to_master_len)
        drain(t->master, t->to_master, &t->to_master_len);
    /* A master whose slave was closed by everybody says EIO. */
    if ((rows[1].revents & (POLLIN | POLLHUP | POLLERR)) && t->to_out_len < TERMINAL_BUFFER &&
        fill(t->master, t->to_out, &t->to_out_len) < 0)
        lose_master(t);
    if (t->to_out_len)
        drain(t->out, t->to_out, &t->to_out_len);
}

void
terminal_finish(struct terminal *t)
{
    while (t->master >= 0) {
        if (t->to_out_len == 0 && fill(t->master, t->to_out, &t->to_out_len) <= 0)
            lose_master(t);
        if (t->to_out_len)
            drain(t->out, t->to_out, &t->to_out_len);
    }
    if (t->raw)
        tcsetattr(t->in, TCSADRAIN, &t->before);
    t->raw = false;
}
