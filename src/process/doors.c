/* The sockets of the admin process: opened at start, and again when a reload names others. The process is started by the
 * first who connects to one of them: many gates are never asked. It is confined, so with other sockets it is ended and
 * started anew. */
#include <unistd.h>

#include "sallyport/base/diag.h"
#include "sallyport/base/mem.h"
#include "sallyport/process/core.h"

int
doors_open(struct supervisor *s, struct err *err)
{
    const struct settings *set = &s->running.settings;
    if (set->admin_socket) {
        s->admin_socket = socket_open_unix(set->admin_socket, err);
        if (s->admin_socket < 0)
            return -1;
        s->admin_socket_path = mem_strdup(set->admin_socket);
    }
    if (set->admin_address) {
        s->admin_tcp = socket_open_tcp(set->admin_address, "admin.address", err);
        if (s->admin_tcp < 0)
            return -1;
        s->admin_address = mem_strdup(set->admin_address);
    }
    return 0;
}

static void
on_knock(void *arg)
{
    struct supervisor *s = arg;
    struct child *c = child_of(s, ROLE_ADMIN);
    knock_stop(&s->admin_knocks[0]);
    knock_stop(&s->admin_knocks[1]);
    if (s->phase <= PHASE_DRAINING)
        child_want(c);
}

void
doors_watch(struct supervisor *s)
{
    if (!child_of(s, ROLE_ADMIN))
        child_add(s, ROLE_ADMIN, 0)->wanted = false;
    if (s->admin_socket >= 0)
        knock_wait(s->loop, &s->admin_knocks[0], s->admin_socket, on_knock, s);
    if (s->admin_tcp >= 0)
        knock_wait(s->loop, &s->admin_knocks[1], s->admin_tcp, on_knock, s);
}

void
doors_close(struct supervisor *s)
{
    knock_stop(&s->admin_knocks[0]);
    knock_stop(&s->admin_knocks[1]);
    if (s->admin_socket_path)
        unlink(s->admin_socket_path);
    if (s->admin_socket >= 0)
        close(s->admin_socket);
    if (s->admin_tcp >= 0)
        close(s->admin_tcp);
    free(s->admin_socket_path);
    free(s->admin_address);
    s->admin_socket = s->admin_tcp = -1;
    s->admin_socket_path = s->admin_address = NULL;
}

static bool
same_text(const char *a, const char *b)
{
    return (!a && !b) || (a && b && strcmp(a, b) == 0);
}

static void
open_anew(struct supervisor *s)
{
    struct err err = {0};
    doors_close(s);
    if (doors_open(s, &err) < 0) {
        diag(DIAG_ALARM, "the admin endpoint: %s", err.text);
        doors_close(s);
    }
    doors_watch(s);
}

void
doors_follow(struct supervisor *s)
{
    const struct settings *set = &s->running.settings;
    struct child *c = child_of(s, ROLE_ADMIN);
    if (same_text(set->admin_socket, s->admin_socket_path) && same_text(set->admin_address, s->admin_address))
        return;
    if (c && c->pid)
        child_stop(c); /* its end comes back here */
    else
        open_anew(s);
}
