/* The supervisor's children: starting, watching, starting again. A child that ends without having been told to is a crash;
 * its descriptors stay here, so the next one goes on where it was. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sallyport/base/diag.h"
#include "sallyport/base/mem.h"
#include "sallyport/process/core.h"
#include "sallyport/process/spawn.h"

#define CRASHES_PER_MINUTE 5
#define BACKOFF_MAX_MS 30000

size_t
bundle_kind(enum role role)
{
    return role == ROLE_WORKER ? 0 : role == ROLE_RECORDER ? 1 : role == ROLE_ADMIN ? 2 : 3;
}

struct child *
child_add(struct supervisor *s, enum role role, unsigned slot)
{
    struct child *c = &s->children[s->child_count++];
    *c = (struct child){.supervisor = s, .role = role, .slot = slot, .wanted = true};
    return c;
}

void
children_prepare(struct supervisor *s)
{
    child_add(s, ROLE_RECORDER, 0);
    /* Before the workers, so that it hears of a new bundle first. */
    child_add(s, ROLE_KEEPER, 0)->wanted = s->running.ca_key >= 0;
    for (unsigned i = 0; i < s->worker_count; i++)
        child_add(s, ROLE_WORKER, i);
    doors_watch(s);
}

struct child *
child_of(struct supervisor *s, enum role role)
{
    for (size_t i = 0; i < s->child_count; i++)
        if (s->children[i].role == role)
            return &s->children[i];
    return NULL;
}

/* ---- what a child gets ---- */

static void
give_worker(struct supervisor *s, const struct child *c, struct spawn *sp)
{
    spawn_number(sp, "--slot", (long)c->slot);
    spawn_fd(sp, "--record", s->record_channels[c->slot].worker);
    spawn_fd(sp, "--leaves", s->keeper_channels[c->slot].worker);
    for (size_t i = 0; i < s->sockets.count; i++) {
        const struct socket_row *row = &s->sockets.rows[i];
        spawn_named_fd(sp, "--socket", row->name, row->fds[row->shared ? 0 : c->slot], row->shared ? ":shared" : "");
    }
}

/* Returns the descriptor to close after the start, or -1. */
static int
give_recorder(struct supervisor *s, const struct child *c, struct spawn *sp)
{
    int before = recordfile_before(s->record.path);
    spawn_fd(sp, "--file", s->record.fd);
    spawn_fd(sp, "--fold", s->fold_fd);
    spawn_number(sp, "--torn", (long)s->record.torn_bytes);
    spawn_number(sp, "--again", c->starts > 0);
    if (before >= 0)
        spawn_fd(sp, "--file-before", before);
    for (size_t i = 0; i < s->worker_count; i++)
        spawn_fd(sp, "--record", s->record_channels[i].recorder);
    for (size_t i = 0; i < s->worker_count; i++)
        if (s->record_channels[i].left >= 0)
            spawn_fd(sp, "--left", s->record_channels[i].left);
    return before;
}

static void
give_admin(struct supervisor *s, struct spawn *sp)
{
    spawn_number(sp, "--owner", (long)geteuid());
    if (s->admin_socket >= 0)
        spawn_named_fd(sp, "--socket", "unix", s->admin_socket, "");
    if (s->admin_tcp >= 0)
        spawn_named_fd(sp, "--socket", "tcp", s->admin_tcp, "");
}

static void
give_keeper(struct supervisor *s, struct spawn *sp)
{
    spawn_fd(sp, "--ca-key", s->running.ca_key);
    for (size_t i = 0; i < s->worker_count; i++)
        spawn_fd(sp, "--leaves", s->keeper_channels[i].keeper);
}

static int
program_of(const struct supervisor *s, enum role role)
{
    return role == ROLE_RECORDER ? s->recorder_program : role == ROLE_KEEPER ? s->keeper_program : s->worker_program;
}

static pid_t
spawn_child(struct supervisor *s, struct child *c, int control, struct err *err)
{
    struct spawn sp;
    int extra = -1;
    spawn_init(&sp, program_of(s, c->role), role_name(c->role));
    spawn_fd(&sp, "--control", control);
    spawn_fd(&sp, "--shared", s->shared_fd);
    spawn_fd(&sp, "--bundle", s->running.fds[bundle_kind(c->role)]);
    spawn_number(&sp, "--generation", (long)s->running.generation);
    spawn_user(&sp, s->uid, s->gid);
    if (c->role == ROLE_WORKER)
        give_worker(s, c, &sp);
    else if (c->role == ROLE_RECORDER)
        extra = give_recorder(s, c, &sp);
    else if (c->role == ROLE_KEEPER)
        give_keeper(s, &sp);
    else
        give_admin(s, &sp);
    pid_t pid = spawn_run(&sp, err);
    spawn_done(&sp);
    if (extra >= 0)
        close(extra);
    return pid;
}

/* ---- what a child says ---- */

/* A log whose last line is none of ours is put aside: with it no recorder could go on. At the first start it is an error
 * that the operator sees instead. */
static void
put_log_aside(struct supervisor *s)
{
    struct err err = {0};
    if (recordfile_replace(&s->record, WANT_TAMPERED, 0, &err) < 0)
        diag(DIAG_ALARM, "%s", err.text);
    else
        diag(DIAG_ALARM, "%s is put aside; the chain begins again", s->record.path);
}

static void
on_failed(struct child *c, struct slice payload)
{
    struct err err = control_failure(payload);
    supervisor_fail(c->supervisor, &err);
    if (c->role == ROLE_RECORDER && c->supervisor->phase != PHASE_STARTING && !c->supervisor->failed && err.kind == ERR_INVALID)
        put_log_aside(c->supervisor);
}

static void
on_frame(struct child *c, const struct frame *frame)
{
    struct supervisor *s = c->supervisor;
    if (!control_allowed(c->role, frame)) {
        diag(DIAG_ALARM, "the %s said what it may not say, and is ended", role_name(c->role));
        kill(c->pid, SIGKILL);
    } else if (frame->type == CONTROL_READY) {
        c->ready = true;
        supervisor_on_ready(s);
    } else if (frame->type == CONTROL_IDLE) {
        c->idle = true;
        supervisor_on_idle(s);
    } else if (frame->type == CONTROL_FAILED) {
        on_failed(c, frame->payload);
    } else if (frame->type == CONTROL_WANT_FILE) {
        records_on_want(s, frame);
    } else if (frame->type == CONTROL_CHANNEL_TAKEN) {
        records_on_taken(s, frame);
    } else if (frame->type == CONTROL_CHANNEL_ENDED) {
        records_on_ended(s, frame);
    }
}

static void
on_channel(void *owner, enum channel_event event, struct frame *frame)
{
    /* A closed channel is followed by SIGCHLD, which says how it ended. */
    if (event == CHANNEL_FRAME)
        on_frame(owner, frame);
}

/* ---- start, end, start again ---- */

int
child_start(struct child *c, struct err *err)
{
    struct supervisor *s = c->supervisor;
    int pair[2];
    if (c->role == ROLE_RECORDER && c->starts > 0 && recordfile_mend(&s->record, err) < 0)
        return -1;
    if (c->role == ROLE_WORKER && (records_channel(s, c->slot, err) < 0 || keeper_channel(s, c->slot, err) < 0))
        return -1;
    if (channel_pair(pair) < 0)
        return err_errno(err, "a channel to the %s", role_name(c->role));
    c->pid = spawn_child(s, c, pair[1], err);
    close(pair[1]);
    if (c->pid < 0) {
        c->pid = 0;
        close(pair[0]);
        return -1;
    }
    c->control = channel_new(s->loop, pair[0], on_channel, c);
    c->ready = c->idle = false;
    c->starts++;
    if (c->role == ROLE_WORKER) {
        records_channel_given(s, c->slot);
        keeper_channel_given(s, c->slot);
        shared_add(s->shared, COUNTER_WORKER_STARTS, 1);
    } else if (c->role == ROLE_RECORDER) {
        records_recorder_started(s);
    } else if (c->role == ROLE_KEEPER) {
        keeper_started(s);
    }
    return 0;
}

void
child_stop(struct child *c)
{
    c->wanted = false;
    timer_stop(&c->restart);
    if (c->control)
        channel_send(c->control, CONTROL_STOP, slice_of("", 0), NULL, 0);
}

static void
start_again(void *arg)
{
    struct child *c = arg;
    struct err err = {0};
    if (!c->wanted || c->pid)
        return;
    if (child_start(c, &err) < 0) {
        diag(DIAG_ALARM, "the %s cannot be started: %s", role_name(c->role), err.text);
        timer_start(c->supervisor->loop, &c->restart, 1000, start_again, c);
    }
}

void
child_want(struct child *c)
{
    c->wanted = true;
    start_again(c);
}

/* More than five in a minute are not chance. */
static bool
crashes_too_often(struct supervisor *s)
{
    const unsigned kept = sizeof s->crashes_ms / sizeof s->crashes_ms[0];
    int64_t now = loop_now_ms(s->loop);
    s->crashes_ms[s->crash_count++ % kept] = now;
    /* The oldest of the last six; with fewer there is none. */
    return s->crash_count > CRASHES_PER_MINUTE && now - s->crashes_ms[s->crash_count % kept] < 60000;
}

static void
schedule_restart(struct child *c)
{
    struct supervisor *s = c->supervisor;
    if (crashes_too_often(s)) {
        c->backoff_ms = c->backoff_ms ? c->backoff_ms * 2 : 1000;
        if (c->backoff_ms > BACKOFF_MAX_MS)
            c->backoff_ms = BACKOFF_MAX_MS;
        diag(DIAG_ALARM, "more than %d crashes in a minute; the %s is started again in %lld s", CRASHES_PER_MINUTE, role_name(c->role),
             (long long)c->backoff_ms / 1000);
    } else {
        c->backoff_ms = 0;
    }
    timer_start(s->loop, &c->restart, c->backoff_ms, start_again, c);
}

static void
describe_end(const struct child *c, int status)
{
    if (WIFSIGNALED(status))
        diag(DIAG_ALARM, "%s %u ended by signal %d (%s)", role_name(c->role), c->slot, WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        diag(DIAG_ALARM, "%s %u ended with status %d", role_name(c->role), c->slot, WEXITSTATUS(status));
}

static void
on_end(struct child *c, int status)
{
    struct supervisor *s = c->supervisor;
    c->pid = 0;
    c->ready = false;
    channel_free(c->control);
    c->control = NULL;
    if (c->role == ROLE_WORKER) {
        shared_worker_gone(s->shared, c->slot);
        keeper_channel_cut(s, c->slot);
    }
    if (!c->wanted && c->role == ROLE_ADMIN && s->phase == PHASE_SERVING) {
        doors_follow(s); /* it was ended to come back with other sockets */
    } else if (c->wanted && c->replaced) {
        c->replaced = false;
        start_again(c);
    } else if (c->wanted) {
        describe_end(c, status);
        if (c->role == ROLE_WORKER) {
            shared_add(s->shared, COUNTER_WORKER_CRASHES, 1);
            sockets_mend(&s->sockets, c->slot);
        }
        if (s->phase == PHASE_STARTING) {
            struct err err = {0};
            err_run(&err, "the %s ended while starting", role_name(c->role));
            supervisor_fail(s, &err);
        } else {
            schedule_restart(c);
        }
    }
    supervisor_on_gone(s);
}

void
children_reap(struct supervisor *s)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        for (size_t i = 0; i < s->child_count; i++)
            if (s->children[i].pid == pid)
                on_end(&s->children[i], status);
}

bool
children_all(const struct supervisor *s, enum role role, bool (*is)(const struct child *c))
{
    for (size_t i = 0; i < s->child_count; i++)
        if ((role == ROLE_NONE || s->children[i].role == role) && !is(&s->children[i]))
            return false;
    return true;
}

void
children_tell(struct supervisor *s, enum role role, enum control what)
{
    for (size_t i = 0; i < s->child_count; i++) {
        struct child *c = &s->children[i];
        if (c->control && (role == ROLE_NONE || c->role == role))
            channel_send(c->control, (uint16_t)what, slice_of("", 0), NULL, 0);
    }
}

void
children_kill(struct supervisor *s)
{
    for (size_t i = 0; i < s->child_count; i++) {
        struct child *c = &s->children[i];
        c->wanted = false;
        timer_stop(&c->restart);
        if (c->pid)
            kill(c->pid, SIGKILL);
    }
}
