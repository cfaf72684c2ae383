/* The supervisor's side of a check: a child that lives as long as the check gets the bundle, compiles all of it, and answers. Keys
 * are parsed and policies compiled there, so that the supervisor neither holds nor links what that takes. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sallyport/base/mem.h"
#include "sallyport/process/core.h"
#include "sallyport/process/spawn.h"

/* 100,000 policies take 3 s to compile. Whoever needs so long hangs, and the supervisor with it. */
#define CHECK_MAX_MS 60000
#define END_MAX_MS 2000 /* from its last word to its end */

struct answer {
    struct supervisor *supervisor;
    struct timer limit;
    pid_t checker;
    struct err *err;
    bool wants_key, told, sound;
};

/* Two texts, each with its NUL. */
static bool
take_leaf_key(struct supervisor *s, struct slice payload)
{
    const char *middle = payload.len ? memchr(payload.ptr, '\0', payload.len) : NULL;
    if (!middle || payload.ptr[payload.len - 1] != '\0' || middle == payload.ptr + payload.len - 1)
        return false;
    s->leaf_private = mem_strdup(payload.ptr);
    s->leaf_public = mem_strdup(middle + 1);
    return true;
}

static void
take_answer(struct answer *a, const struct frame *frame)
{
    if (a->told || !control_allowed(ROLE_CHECKER, frame))
        return;
    a->told = true;
    if (frame->type == CONTROL_FAILED)
        *a->err = control_failure(frame->payload);
    else
        a->sound = a->wants_key ? take_leaf_key(a->supervisor, frame->payload) : frame->payload.len == 0;
    if (frame->type != CONTROL_FAILED && !a->sound)
        err_run(a->err, "the configuration could not be checked: the checker's answer is none");
}

static void
on_checker(void *owner, enum channel_event event, struct frame *frame)
{
    struct answer *a = owner;
    if (event == CHANNEL_FRAME)
        take_answer(a, frame);
    else if (event == CHANNEL_CLOSED)
        loop_stop(a->supervisor->check_loop);
}

/* Its channel ends with it, and with that the wait. */
static void
on_limit(void *arg)
{
    struct answer *a = arg;
    kill(a->checker, SIGKILL);
}

static pid_t
start(struct supervisor *s, const struct loaded *l, int bundle, int control, bool wants_key, struct err *err)
{
    struct spawn sp;
    spawn_init(&sp, s->worker_program, role_name(ROLE_CHECKER));
    spawn_fd(&sp, "--control", control);
    spawn_fd(&sp, "--bundle", bundle);
    spawn_number(&sp, "--generation", (long)l->generation);
    spawn_user(&sp, s->uid, s->gid);
    spawn_number(&sp, "--leaf", wants_key);
    pid_t pid = spawn_run(&sp, err);
    spawn_done(&sp);
    return pid;
}

/* Nothing else is looked at until the answer is there: what runs goes on as it was. The loop is kept: one that cannot be made when
 * descriptors are short ends the process (libevent), and with it the gate. */
static void
hear(struct answer *a, int control)
{
    struct supervisor *s = a->supervisor;
    if (!s->check_loop)
        s->check_loop = loop_new();
    struct channel *c = channel_new(s->check_loop, control, on_checker, a);
    timer_start(s->check_loop, &a->limit, CHECK_MAX_MS, on_limit, a);
    loop_run(s->check_loop);
    timer_stop(&a->limit);
    channel_free(c);
}

/* Whoever has closed its channel has nothing left to do; it is not waited for if it stays all the same. */
static void
reap(pid_t checker)
{
    struct pollfd end = {(int)syscall(SYS_pidfd_open, checker, 0), POLLIN, 0};
    int status;
    if (end.fd < 0 || poll(&end, 1, END_MAX_MS) != 1)
        kill(checker, SIGKILL);
    if (end.fd >= 0)
        close(end.fd);
    while (waitpid(checker, &status, 0) < 0 && errno == EINTR)
        ;
}

static int
check(struct supervisor *s, const struct loaded *l, int bundle, bool wants_key, struct err *err)
{
    struct answer a = {.supervisor = s, .err = err, .wants_key = wants_key};
    int pair[2];
    if (channel_pair(pair) < 0)
        return err_errno(err, "a channel to the checker");
    a.checker = start(s, l, bundle, pair[1], wants_key, err);
    close(pair[1]);
    if (a.checker < 0) {
        close(pair[0]);
        return -1;
    }
    hear(&a, pair[0]);
    reap(a.checker);
    if (!a.told)
        return err_run(err, "the configuration could not be checked: the checker ended, or was ended after %d s, before it answered",
                       CHECK_MAX_MS / 1000);
    return a.sound ? 0 : -1;
}

int
check_bundle(struct supervisor *s, const struct loaded *l, struct err *err)
{
    /* The keeper's part has all that is compiled, and of the secrets those that verify tokens alone. */
    int bundle = bundle_seal(&l->bundle, FOR_KEEPER, true, err);
    if (bundle < 0)
        return -1;
    int rc = check(s, l, bundle, false, err);
    /* By a child that has looked at no policy: whoever breaks the other one is not to know the key, nor to choose it. */
    if (rc == 0 && l->settings.inspect != INSPECT_OFF && !s->leaf_private)
        rc = check(s, l, bundle, true, err);
    close(bundle);
    return rc;
}
