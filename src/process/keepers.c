/* The supervisor's side of the keeper: finds its binary, opens the CA's key without reading it, and starts, replaces or ends the
 * process as inspection is switched. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sallyport/base/diag.h"
#include "sallyport/base/mem.h"
#include "sallyport/process/core.h"
#include "sallyport/process/spawn.h"

#define PROGRAM "sallyport-keeper"

/* ---- the channels of workers ---- */

int
keeper_channels_open(struct supervisor *s, struct err *err)
{
    for (unsigned i = 0; i < s->worker_count; i++)
        if (keeper_channel(s, i, err) < 0)
            return -1;
    return 0;
}

int
keeper_channel(struct supervisor *s, unsigned slot, struct err *err)
{
    struct keeper_channel *c = &s->keeper_channels[slot];
    int pair[2];
    if (c->worker >= 0)
        return 0; /* a start that failed has not used it */
    if (channel_pair(pair) < 0)
        return err_errno(err, "a channel to the keeper");
    if (c->keeper >= 0)
        close(c->keeper);
    *c = (struct keeper_channel){.worker = pair[0], .keeper = pair[1], .given = false};
    return 0;
}

static void
give(struct supervisor *s, unsigned slot)
{
    struct keeper_channel *c = &s->keeper_channels[slot];
    struct child *to = child_of(s, ROLE_KEEPER);
    struct control_channel told = {slot, channel_id(c->keeper)};
    if (!c->given && to && to->control)
        c->given = channel_send(to->control, CONTROL_CHANNEL, slice_of(&told, sizeof told), &c->keeper, 1);
}

void
keeper_channel_given(struct supervisor *s, unsigned slot)
{
    struct keeper_channel *c = &s->keeper_channels[slot];
    close(c->worker);
    c->worker = -1;
    give(s, slot);
}

/* Whoever else holds the worker's end by now holds nothing. */
void
keeper_channel_cut(struct supervisor *s, unsigned slot)
{
    shutdown(s->keeper_channels[slot].keeper, SHUT_RDWR);
}

void
keeper_started(struct supervisor *s)
{
    for (size_t i = 0; i < s->worker_count; i++)
        s->keeper_channels[i].given = true;
}

void
keeper_check(struct supervisor *s)
{
    for (unsigned i = 0; i < s->worker_count; i++)
        if (s->keeper_channels[i].worker < 0)
            give(s, i);
}

/* ---- the CA's key ---- */

static int
check_private(int fd, const char *path, struct stat *ret, struct err *err)
{
    if (fstat(fd, ret) < 0)
        return err_errno(err, "inspect.ca: %s", path);
    if (!S_ISREG(ret->st_mode))
        return err_invalid(err, "inspect.ca: %s: is no regular file", path);
    if (ret->st_mode & 077)
        return err_invalid(err, "inspect.ca: %s: others may read or write it (mode %03o); expected 0600", path, ret->st_mode & 0777);
    return 0;
}

static int
open_key(struct loaded *l, struct err *err)
{
    struct stat st;
    cleanup_free char *path = mem_printf("%s/ca.key", l->settings.ca_dir ? l->settings.ca_dir : ".");
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_errno(err, "inspect.ca: %s (`sallyport ca init --dir DIR` makes one)", path);
    if (check_private(fd, path, &st, err) < 0) {
        close(fd);
        return -1;
    }
    snprintf(l->ca_key_id, sizeof l->ca_key_id, "%llu %llu %lld %lld.%09ld", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino,
             (long long)st.st_size, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    l->ca_key = fd;
    return 0;
}

int
keeper_open(struct supervisor *s, struct loaded *l, struct err *err)
{
    if (l->settings.inspect == INSPECT_OFF)
        return 0;
    if (s->keeper_program < 0 && (s->keeper_program = spawn_program(PROGRAM, err)) < 0)
        return err_wrap(err, "inspect.mode");
    return open_key(l, err);
}

bool
keeper_same_ca(const struct loaded *a, const struct loaded *b)
{
    const char *one = bundle_text(&a->bundle, "inspect-ca"), *two = bundle_text(&b->bundle, "inspect-ca");
    return strcmp(a->ca_key_id, b->ca_key_id) == 0 && strcmp(one ? one : "", two ? two : "") == 0;
}

void
keeper_watch(struct supervisor *s)
{
    const struct settings *set = &s->running.settings;
    if (set->inspect == INSPECT_OFF)
        return;
    cleanup_free char *cert = mem_printf("%s/ca.pem", set->ca_dir ? set->ca_dir : ".");
    cleanup_free char *key = mem_printf("%s/ca.key", set->ca_dir ? set->ca_dir : ".");
    watch_file(s->watch, cert);
    watch_file(s->watch, key);
}

/* ---- the process ---- */

/* A keeper holds nothing that would be lost, and what it has not answered waits in its channels: killing it is fine. */
void
keeper_follow(struct supervisor *s, const struct loaded *before)
{
    struct child *c = child_of(s, ROLE_KEEPER);
    bool on = s->running.ca_key >= 0;
    struct err err = {0};
    if (!on) {
        child_stop(c);
        return;
    }
    c->wanted = true;
    if (c->pid && !keeper_same_ca(before, &s->running)) {
        c->replaced = true;
        kill(c->pid, SIGKILL);
    } else if (!c->pid && !timer_running(&c->restart) && child_start(c, &err) < 0) {
        diag(DIAG_ALARM, "the keeper cannot be started: %s", err.text);
    }
}

void
keeper_close(struct supervisor *s)
{
    if (s->leaf_private)
        mem_wipe(s->leaf_private, strlen(s->leaf_private));
    free(s->leaf_private);
    free(s->leaf_public);
    for (size_t i = 0; i < s->worker_count; i++) {
        if (s->keeper_channels[i].worker >= 0)
            close(s->keeper_channels[i].worker);
        if (s->keeper_channels[i].keeper >= 0)
            close(s->keeper_channels[i].keeper);
    }
}
