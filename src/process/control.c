/* Who may say what between the supervisor and its children: one table, and its driver. */
#include "sallyport/process/control.h"

#include <stdio.h>

#define SUPERVISOR (1u << ROLE_SUPERVISOR)
#define RECORDER (1u << ROLE_RECORDER)
#define WORKER (1u << ROLE_WORKER)
#define ADMIN (1u << ROLE_ADMIN)
#define KEEPER (1u << ROLE_KEEPER)
#define CHECKER (1u << ROLE_CHECKER)

static const struct {
    enum control type;
    unsigned from;
    size_t min, max;
    int fds_min, fds_max;
} table[] = {
    {CONTROL_READY, RECORDER | WORKER | ADMIN | KEEPER, 0, 0, 0, 0},
    {CONTROL_FAILED, RECORDER | WORKER | ADMIN | KEEPER | CHECKER, 1, ERR_TEXT_MAX, 0, 0},
    {CONTROL_CHECKED, CHECKER, 0, 4096, 0, 0},
    {CONTROL_BUNDLE, SUPERVISOR, sizeof(struct control_bundle), sizeof(struct control_bundle), 1, 1},
    {CONTROL_DRAIN, SUPERVISOR, 0, 0, 0, 0},
    {CONTROL_IDLE, WORKER, 0, 0, 0, 0},
    {CONTROL_STOP, SUPERVISOR, 0, 0, 0, 0},
    {CONTROL_EVENT, SUPERVISOR, 2, 4096, 0, 0},
    {CONTROL_WANT_FILE, RECORDER, sizeof(struct control_want_file), sizeof(struct control_want_file), 0, 0},
    {CONTROL_FILE, SUPERVISOR, 0, 0, 0, 1},
    {CONTROL_CHANNEL, SUPERVISOR, sizeof(struct control_channel), sizeof(struct control_channel), 1, 1},
    {CONTROL_CHANNEL_TAKEN, RECORDER, sizeof(struct control_channel), sizeof(struct control_channel), 0, 0},
    {CONTROL_CHANNEL_ENDED, RECORDER, sizeof(struct control_channel), sizeof(struct control_channel), 0, 0},
    {CONTROL_STATE, SUPERVISOR, sizeof(struct control_state), sizeof(struct control_state), 0, 0},
};

bool
control_allowed(enum role from, const struct frame *frame)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].type == frame->type)
            return (table[i].from & (1u << from)) && frame->payload.len >= table[i].min && frame->payload.len <= table[i].max &&
                   frame->fd_count >= table[i].fds_min && frame->fd_count <= table[i].fds_max;
    return false;
}

struct err
control_failure(struct slice payload)
{
    struct err err = {.kind = payload.ptr[0] == ERR_INVALID ? ERR_INVALID : ERR_RUN};
    snprintf(err.text, sizeof err.text, "%.*s", (int)payload.len - 1, payload.ptr + 1);
    return err;
}

const char *
role_name(enum role r)
{
    switch (r) {
    case ROLE_NONE:
        break;
    case ROLE_SUPERVISOR:
        return "supervisor";
    case ROLE_RECORDER:
        return "recorder";
    case ROLE_WORKER:
        return "worker";
    case ROLE_ADMIN:
        return "admin";
    case ROLE_KEEPER:
        return "keeper";
    case ROLE_CHECKER:
        return "checker";
    }
    return "nobody";
}
