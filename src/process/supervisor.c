/* `sallyport serve`: set up, then a loop that is told things (signals, files, children) and acts by its phase. The request
 * path never comes through here. */
#include "sallyport/process/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "sallyport/base/clock.h"
#include "sallyport/base/diag.h"
#include "sallyport/base/file.h"
#include "sallyport/base/mem.h"
#include "sallyport/process/core.h"
#include "sallyport/process/spawn.h"
#include "sallyport/process/usage.h"

#define HOUSEKEEPING_MS 5000
#define END_MS 5000         /* a child that was told to end and has not by then is killed */
#define TOKEN_FD_MAX 32768  /* bytes read from a token_fd */

/* ---- phases ---- */

static bool
is_ready(const struct child *c)
{
    return c->ready || !c->wanted; /* keeper and admin are there when something needs them */
}

static bool
is_gone(const struct child *c)
{
    return c->pid == 0;
}

static bool
is_idle_or_gone(const struct child *c)
{
    return c->idle || c->pid == 0;
}

static void
tell_admin(struct supervisor *s)
{
    struct child *c = child_of(s, ROLE_ADMIN);
    struct control_state state = {s->phase == PHASE_SERVING, s->phase > PHASE_SERVING};
    if (c && c->control)
        channel_send(c->control, CONTROL_STATE, slice_of(&state, sizeof state), NULL, 0);
}

static void
on_end_deadline(void *arg)
{
    struct supervisor *s = arg;
    diag(DIAG_WARNING, "some process does not end and is killed");
    for (size_t i = 0; i < s->child_count; i++) {
        struct child *c = &s->children[i];
        if (c->pid && !c->wanted)
            kill(c->pid, SIGKILL);
    }
}

/* Workers are gone, so no more records come: the recorder closes the log. */
static void
stop_the_rest(struct supervisor *s)
{
    s->phase = PHASE_LAST;
    for (size_t i = 0; i < s->child_count; i++)
        if (s->children[i].role != ROLE_WORKER)
            child_stop(&s->children[i]);
    timer_start(s->loop, &s->deadline, END_MS, on_end_deadline, s);
    supervisor_on_gone(s);
}

static void
stop_workers(struct supervisor *s)
{
    s->phase = PHASE_STOPPING;
    for (size_t i = 0; i < s->child_count; i++)
        if (s->children[i].role == ROLE_WORKER)
            child_stop(&s->children[i]);
    timer_start(s->loop, &s->deadline, END_MS, on_end_deadline, s);
    supervisor_on_gone(s);
}

static void
on_drain_deadline(void *arg)
{
    struct supervisor *s = arg;
    diag(DIAG_WARNING, "the time to drain is over; what is open is cut");
    stop_workers(s);
}

static void
begin_drain(struct supervisor *s)
{
    s->phase = PHASE_DRAINING;
    service_notify("STOPPING=1");
    diag(DIAG_NOTICE, "draining for at most %lld s", (long long)s->options->drain_s);
    for (size_t i = 0; i < s->child_count; i++)
        if (s->children[i].role == ROLE_WORKER) {
            s->children[i].wanted = false;
            timer_stop(&s->children[i].restart);
        }
    sockets_close(&s->sockets);
    children_tell(s, ROLE_WORKER, CONTROL_DRAIN);
    tell_admin(s);
    timer_start(s->loop, &s->deadline, s->options->drain_s * 1000, on_drain_deadline, s);
    supervisor_on_idle(s);
}

/* For the admin process to tell; nobody else asks. */
static void
note_usage(struct supervisor *s)
{
    const struct child *admin = child_of(s, ROLE_ADMIN);
    if (!admin || !admin->pid)
        return;
    struct usage sum = {0};
    usage_add(getpid(), &sum);
    for (size_t i = 0; i < s->child_count; i++)
        if (s->children[i].pid)
            usage_add(s->children[i].pid, &sum);
    shared_set(s->shared, COUNTER_CPU_MS, sum.cpu_ms);
    shared_set(s->shared, COUNTER_RSS_BYTES, sum.rss_bytes);
    shared_set(s->shared, COUNTER_OPEN_FDS, sum.open_fds);
}

void
supervisor_on_ready(struct supervisor *s)
{
    note_usage(s);
    tell_admin(s);
    if (s->phase != PHASE_STARTING || !children_all(s, ROLE_NONE, is_ready))
        return;
    s->phase = PHASE_SERVING;
    tell_admin(s);
    malloc_trim(0); /* reading the configuration took more than stays */
    service_notify("READY=1");
    cleanup_free char *listening = sockets_text(&s->sockets);
    diag(DIAG_NOTICE, "serving with %zu worker%s, %zu polic%s", s->worker_count, s->worker_count == 1 ? "" : "s", s->running.policies,
         s->running.policies == 1 ? "y" : "ies");
    if (s->options->on_ready)
        s->options->on_ready(s->options->arg, listening);
}

void
supervisor_on_idle(struct supervisor *s)
{
    if (s->phase == PHASE_DRAINING && children_all(s, ROLE_WORKER, is_idle_or_gone))
        stop_workers(s);
}

void
supervisor_on_gone(struct supervisor *s)
{
    supervisor_on_idle(s);
    if (s->phase == PHASE_STOPPING && children_all(s, ROLE_WORKER, is_gone))
        stop_the_rest(s);
    else if (s->phase == PHASE_LAST && children_all(s, ROLE_NONE, is_gone))
        loop_stop(s->loop);
}

void
supervisor_fail(struct supervisor *s, const struct err *err)
{
    if (s->phase != PHASE_STARTING) {
        diag(DIAG_ALARM, "%s", err->text);
        return;
    }
    if (!s->failed)
        *s->failure = *err;
    s->failed = true;
    children_kill(s);
    s->phase = PHASE_LAST;
    supervisor_on_gone(s);
}

/* ---- what it is told ---- */

/* sd_notify(3): a reload is dated, so that its READY is told from an earlier one. */
static void
notify_reloading(void)
{
    char text[64];
    snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)clock_mono_us());
    service_notify(text);
}

static void
on_signal(void *arg, int signo)
{
    struct supervisor *s = arg;
    if (signo == SIGCHLD) {
        children_reap(s);
    } else if (signo == SIGHUP) {
        if (s->phase != PHASE_SERVING)
            return;
        notify_reloading();
        reload(s, "signal");
        service_notify("READY=1");
    } else if (s->phase == PHASE_SERVING) {
        begin_drain(s);
    } else if (s->phase == PHASE_STARTING || s->phase == PHASE_DRAINING) {
        stop_workers(s);
    }
}

static void
on_files(void *arg)
{
    struct supervisor *s = arg;
    if (s->phase == PHASE_SERVING)
        reload(s, "files");
}

static void
on_housekeeping(void *arg)
{
    struct supervisor *s = arg;
    note_usage(s);
    timer_start(s->loop, &s->housekeeping, HOUSEKEEPING_MS, on_housekeeping, s);
    if (s->phase != PHASE_SERVING)
        return;
    watch_retry(s->watch);
    records_check(s);
    keeper_check(s);
    cleanup_free char *own = own_addresses(&s->running.settings);
    if (strcmp(own, s->own) != 0)
        reload(s, "addresses of this host");
}

/* ---- setting up ---- */

/* Each tunnel is two descriptors; what the hard limit allows is ours to use. */
static void
raise_file_limit(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur == files.rlim_max)
        return;
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

static size_t
count_workers(const struct settings *set)
{
    cpu_set_t cpus;
    size_t n = (size_t)set->workers;
    if (n == 0)
        n = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? (size_t)CPU_COUNT(&cpus) : 1;
    return n < SHARED_WORKERS_MAX ? n : SHARED_WORKERS_MAX;
}

static int
find_user(struct supervisor *s, struct err *err)
{
    const char *name = s->running.settings.user;
    s->uid = s->gid = -1;
    if (geteuid() != 0)
        return 0;
    if (!name) {
        diag(DIAG_WARNING, "user is null: the workers stay root");
        return 0;
    }
    errno = 0;
    const struct passwd *pw = getpwnam(name);
    if (!pw)
        return err_invalid(err, "user: there is no user \"%s\" here", name);
    s->uid = (int)pw->pw_uid;
    s->gid = (int)pw->pw_gid;
    return 0;
}

/* token_fd: read once, while it can be. */
static int
read_passed_tokens(struct supervisor *s, struct err *err)
{
    size_t count = 0;
    const struct settings *set = &s->running.settings;
    for (size_t i = 0; i < set->listener_count; i++) {
        char *text;
        size_t len;
        const char *name = set->listeners[i].token_fd;
        int fd = name ? service_passed_fd(&s->passed, name, 0) : -1;
        if (fd < 0)
            continue;
        if (file_read_fd(fd, name, TOKEN_FD_MAX, &text, &len, err) < 0)
            return err_wrap(err, "listen: token_fd");
        while (len && (text[len - 1] == '\n' || text[len - 1] == '\r'))
            text[--len] = '\0';
        s->token_names[count] = name;
        s->token_texts[count++] = text;
    }
    return 0;
}

static int
make_shared(struct supervisor *s, struct err *err)
{
    s->shared_fd = shared_create();
    s->shared = s->shared_fd >= 0 ? shared_map(s->shared_fd, true) : NULL;
    if (!s->shared)
        return err_errno(err, "shared memory");
    struct rlimit files;
    shared_set(s->shared, COUNTER_START_S, (uint64_t)(clock_wall_us() / 1000000));
    if (getrlimit(RLIMIT_NOFILE, &files) == 0)
        shared_set(s->shared, COUNTER_MAX_FDS, files.rlim_cur);
    return 0;
}

static int
find_programs(struct supervisor *s, struct err *err)
{
    s->worker_program = spawn_program("sallyport-worker", err);
    s->recorder_program = s->worker_program < 0 ? -1 : spawn_program("sallyport-recorder", err);
    /* Of the same version as the others, though it may be needed only after an upgrade of the files; or not at all. */
    struct err unneeded = {0};
    s->keeper_program = spawn_program("sallyport-keeper", &unneeded);
    return s->recorder_program < 0 ? -1 : 0;
}

static int
set_up(struct supervisor *s, struct err *err)
{
    raise_file_limit();
    if (find_programs(s, err) < 0 || service_passed_fds(&s->passed, err) < 0 || load_settings(s, &s->running, err) < 0 || find_user(s, err) < 0 ||
        read_passed_tokens(s, err) < 0)
        return -1;
    s->worker_count = count_workers(&s->running.settings);
    if (make_shared(s, err) < 0 || sockets_open(&s->running.settings, s->worker_count, &s->passed, &s->sockets, err) < 0 ||
        keeper_channels_open(s, err) < 0)
        return -1;
    /* Watched before they are read: a file that changes meanwhile is noticed. */
    s->watch = watch_new(s->loop, on_files, s);
    if (!s->watch)
        return err_errno(err, "inotify");
    watch_files(s);
    if (load_bundle(s, &s->running, err) < 0 || records_open(s, err) < 0 || doors_open(s, err) < 0)
        return -1;
    shared_set(s->shared, COUNTER_POLICY_GENERATION, s->running.generation);
    return 0;
}

static int
start_children(struct supervisor *s, struct err *err)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGCHLD};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        loop_on_signal(s->loop, signals[i], on_signal, s);
    children_prepare(s);
    for (size_t i = 0; i < s->child_count; i++)
        if (s->children[i].wanted && child_start(&s->children[i], err) < 0) {
            children_kill(s);
            return -1;
        }
    timer_start(s->loop, &s->housekeeping, HOUSEKEEPING_MS, on_housekeeping, s);
    return 0;
}

static void
tear_down(struct supervisor *s)
{
    timer_stop(&s->deadline);
    timer_stop(&s->housekeeping);
    for (size_t i = 0; i < s->child_count; i++) {
        timer_stop(&s->children[i].restart);
        channel_free(s->children[i].control);
    }
    doors_close(s);
    watch_free(s->watch);
    sockets_close(&s->sockets);
    records_close(s);
    recordfile_close(&s->record);
    loaded_free(&s->running);
    shared_unmap(s->shared);
    for (size_t i = 0; s->token_texts[i]; i++) {
        mem_wipe(s->token_texts[i], strlen(s->token_texts[i]));
        free(s->token_texts[i]);
    }
    service_forget(&s->passed);
    free(s->own);
    keeper_close(s);
    loop_free(s->check_loop);
    loop_free(s->loop);
}

int
supervisor_run(const struct serve_options *options, struct err *err)
{
    static struct supervisor s;
    s = (struct supervisor){.options = options, .failure = err, .running = {LOADED_NOTHING}, .record.fd = -1, .shared_fd = -1, .fold_fd = -1,
                            .worker_program = -1, .recorder_program = -1, .keeper_program = -1, .keeper_channels = {[0 ... SHARED_WORKERS_MAX - 1] = {-1, -1, false}},
                            .admin_socket = -1, .admin_tcp = -1, .uid = -1, .gid = -1};
    diag_set_role("supervisor");
    s.loop = loop_new();
    int rc = set_up(&s, err);
    if (rc == 0)
        rc = start_children(&s, err);
    if (rc == 0) {
        loop_run(s.loop);
        rc = s.failed ? -1 : 0;
    }
    tear_down(&s);
    return rc;
}
