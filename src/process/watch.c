/* inotify on folders. Only names are looked at here; reading is the caller's. */
#include "sallyport/process/watch.h"

#include <errno.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sallyport/base/mem.h"
#include "sallyport/base/slice.h"

#define ENTRIES_MAX 256
#define MASK (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CREATE | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

struct entry {
    char *folder;
    char *name; /* NULL: every *.json */
    int wd;     /* -1: the folder is not there */
};

struct watch {
    struct loop *loop;
    int fd;
    struct entry entries[ENTRIES_MAX];
    size_t count;
    struct timer quiet;
    int64_t since_ms; /* of the first change that was not told; 0: none */
    void (*on_change)(void *arg);
    void *arg;
};

static void
tell(void *arg)
{
    struct watch *w = arg;
    w->since_ms = 0;
    w->on_change(w->arg);
}

static void
note_change(struct watch *w)
{
    int64_t now = loop_now_ms(w->loop);
    if (w->since_ms == 0)
        w->since_ms = now;
    int64_t left = w->since_ms + WATCH_LONGEST_MS - now;
    timer_start(w->loop, &w->quiet, left < WATCH_QUIET_MS ? left : WATCH_QUIET_MS, tell, w);
}

/* A file that was just made is still empty: what it says comes with IN_CLOSE_WRITE. Links are whole at once. */
static bool
is_half_made(const struct entry *e, const struct inotify_event *event)
{
    struct stat st;
    if (!(event->mask & IN_CREATE))
        return false;
    cleanup_free char *path = mem_printf("%s/%s", e->folder, event->name);
    return lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1;
}

static bool
concerns(const struct entry *e, const struct inotify_event *event)
{
    if (event->wd != e->wd)
        return false;
    if (event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED))
        return true;
    if (event->len == 0 || is_half_made(e, event))
        return false;
    /* A mounted configuration map changes all its files by moving one link. */
    if (strcmp(event->name, "..data") == 0)
        return true;
    size_t len = strlen(event->name);
    if (e->name)
        return strcmp(event->name, e->name) == 0;
    return event->name[0] != '.' && len > 5 && strcmp(event->name + len - 5, ".json") == 0;
}

static void
on_event(struct watch *w, const struct inotify_event *event)
{
    bool ours = (event->mask & IN_Q_OVERFLOW) != 0;
    for (size_t i = 0; i < w->count; i++) {
        struct entry *e = &w->entries[i];
        ours |= concerns(e, event);
        if (event->wd == e->wd && (event->mask & (IN_IGNORED | IN_MOVE_SELF)))
            e->wd = -1;
    }
    if (ours)
        note_change(w);
}

static void
on_readable(void *arg)
{
    struct watch *w = arg;
    char buffer[8192] __attribute__((aligned(__alignof__(struct inotify_event))));
    for (ssize_t n; (n = read(w->fd, buffer, sizeof buffer)) > 0;)
        for (char *at = buffer; at < buffer + n;) {
            const struct inotify_event *event = (const void *)at;
            on_event(w, event);
            at += sizeof *event + event->len;
        }
}

void
watch_nudge(struct watch *w)
{
    note_change(w);
}

struct watch *
watch_new(struct loop *l, void (*on_change)(void *arg), void *arg)
{
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0)
        return NULL;
    struct watch *w = mem_zalloc(sizeof *w);
    w->loop = l;
    w->fd = fd;
    w->on_change = on_change;
    w->arg = arg;
    loop_on_readable(l, fd, on_readable, w);
    return w;
}

static void
start_entry(struct watch *w, struct entry *e)
{
    e->wd = inotify_add_watch(w->fd, e->folder, MASK);
}

void
watch_retry(struct watch *w)
{
    for (size_t i = 0; i < w->count; i++) {
        struct entry *e = &w->entries[i];
        if (e->wd >= 0)
            continue;
        start_entry(w, e);
        if (e->wd >= 0)
            note_change(w); /* it came into being */
    }
}

/* Takes folder and name over. */
static void
add(struct watch *w, char *folder, char *name)
{
    if (w->count == ENTRIES_MAX) {
        free(folder);
        free(name);
        return;
    }
    struct entry *e = &w->entries[w->count++];
    *e = (struct entry){.folder = folder, .name = name, .wd = -1};
    start_entry(w, e);
}

void
watch_file(struct watch *w, const char *path)
{
    if (!path)
        return;
    const char *slash = strrchr(path, '/');
    if (slash)
        add(w, mem_dup_slice(slice_of(path, slash == path ? 1 : (size_t)(slash - path))), mem_strdup(slash + 1));
    else
        add(w, mem_strdup("."), mem_strdup(path));
}

void
watch_folder(struct watch *w, const char *path)
{
    if (path)
        add(w, mem_strdup(path), NULL);
}

void
watch_clear(struct watch *w)
{
    for (size_t i = 0; i < w->count; i++) {
        if (w->entries[i].wd >= 0)
            inotify_rm_watch(w->fd, w->entries[i].wd); /* twice for a shared one: the second does nothing */
        free(w->entries[i].folder);
        free(w->entries[i].name);
    }
    w->count = 0;
}

void
watch_free(struct watch *w)
{
    if (!w)
        return;
    watch_clear(w);
    timer_stop(&w->quiet);
    close(w->fd);
    free(w);
}
