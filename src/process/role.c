/* What all children do first. They are made by spawn.c only; a person who tries gets told so. */
#include "sallyport/process/role.h"

#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sallyport/base/diag.h"
#include "sallyport/base/mem.h"

static bool
read_number(const char *text, int *ret)
{
    unsigned long long n;
    if (!slice_parse_uint(slice_str(text), 0x7fffffff, &n))
        return false;
    *ret = (int)n;
    return true;
}

/* NAME=FD or NAME=FD:shared */
static bool
read_socket(struct role_start *r, const char *text)
{
    const char *equals = strrchr(text, '=');
    if (!equals || r->socket_count == ROLE_SOCKETS_MAX)
        return false;
    struct slice rest, number = slice_split(slice_str(equals + 1), ':', &rest);
    cleanup_free char *digits = mem_dup_slice(number);
    struct role_socket *s = &r->sockets[r->socket_count];
    if (!read_number(digits, &s->fd))
        return false;
    s->name = mem_dup_slice(slice_of(text, (size_t)(equals - text)));
    s->shared = rest.ptr && slice_is(rest, "shared");
    r->socket_count++;
    return true;
}

static bool
read_option(struct role_start *r, const char *name, const char *value)
{
    int n;
    if (strcmp(name, "--socket") == 0)
        return read_socket(r, value);
    if (!read_number(value, &n))
        return false;
    if (strcmp(name, "--record") == 0) {
        if (r->record_count == SHARED_WORKERS_MAX)
            return false;
        r->records[r->record_count++] = n;
        return true;
    }
    if (strcmp(name, "--left") == 0) {
        if (r->left_count == SHARED_WORKERS_MAX)
            return false;
        r->left[r->left_count++] = n;
        return true;
    }
    if (strcmp(name, "--leaves") == 0) {
        if (r->keeper_count == SHARED_WORKERS_MAX)
            return false;
        r->keepers[r->keeper_count++] = n;
        return true;
    }
    if (strcmp(name, "--generation") == 0) {
        r->generation = (uint64_t)n;
        return true;
    }
    const struct { const char *name; int *place; } numbers[] = {
        {"--slot", &r->slot}, {"--control", &r->control}, {"--shared", &r->shared}, {"--bundle", &r->bundle}, {"--uid", &r->uid},
        {"--gid", &r->gid},   {"--file", &r->file},       {"--file-before", &r->file_before}, {"--fold", &r->fold},
        {"--torn", &r->torn}, {"--again", &r->again}, {"--leaf", &r->leaf}, {"--owner", &r->owner}, {"--ca-key", &r->ca_key},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (strcmp(numbers[i].name, name) == 0) {
            *numbers[i].place = n;
            return true;
        }
    return false;
}

static bool
is_channel(int fd)
{
    int type = 0;
    socklen_t len = sizeof type;
    return fd >= 3 && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_SEQPACKET;
}

static int
read_start(struct role_start *r, int argc, char **argv, struct err *err)
{
    const char *name = role_name(r->role);
    bool fine = argc % 2 == 1;
    for (int i = 1; fine && i + 1 < argc; i += 2)
        fine = read_option(r, argv[i], argv[i + 1]);
    /* A checker works for nobody yet: the counters and budgets of those who do are not its own. */
    if (!fine || !is_channel(r->control) || (r->shared < 3) != (r->role == ROLE_CHECKER) || r->bundle < 3)
        return err_invalid(err, "%s: this role is started by `sallyport serve` alone", name);
    return 0;
}

int
role_begin(enum role role, int argc, char **argv, struct role_start *ret, struct err *err)
{
    static char title[32];
    *ret = (struct role_start){.role = role, .slot = -1, .control = -1, .shared = -1, .bundle = -1, .uid = -1, .gid = -1, .file = -1,
                               .file_before = -1, .fold = -1, .owner = -1, .ca_key = -1};
    if (read_start(ret, argc, argv, err) < 0)
        return -1;
    if (role == ROLE_WORKER)
        snprintf(title, sizeof title, "worker %d", ret->slot);
    else
        snprintf(title, sizeof title, "%s", role_name(role));
    diag_set_role(title);
    prctl(PR_SET_NAME, "sallyport");
    return 0;
}

int
role_fail_by(struct channel *control, const struct err *err)
{
    char payload[1 + ERR_TEXT_MAX];
    payload[0] = (char)err->kind;
    size_t len = strnlen(err->text, ERR_TEXT_MAX - 1);
    memcpy(payload + 1, err->text, len);
    channel_send(control, CONTROL_FAILED, slice_of(payload, 1 + len), NULL, 0);
    return err_exit_status(err);
}

int
role_fail(const struct role_start *start, const struct err *err)
{
    struct loop *l = loop_new();
    struct channel *c = channel_new(l, start->control, NULL, NULL);
    int status = role_fail_by(c, err);
    channel_free(c);
    loop_free(l);
    return status;
}
