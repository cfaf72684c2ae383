/* Watching files by their folders (inotify), so that a file that is replaced, made or removed is seen too. One callback when
 * it has been quiet for a moment. */
#ifndef SALLYPORT_PROCESS_WATCH_H
#define SALLYPORT_PROCESS_WATCH_H

#include "sallyport/net/loop.h"

struct watch;

#define WATCH_QUIET_MS 100
#define WATCH_LONGEST_MS 1000 /* a folder that never is quiet does not keep a revocation back */

struct watch *watch_new(struct loop *l, void (*on_change)(void *arg), void *arg); /* NULL with errno */
void watch_free(struct watch *w);
/* Forgets what was watched. */
void watch_clear(struct watch *w);
/* One file, also while it does not exist yet. NULL is fine. */
void watch_file(struct watch *w, const char *path);
/* All *.json of a folder. NULL is fine. */
void watch_folder(struct watch *w, const char *path);
/* As if something had changed: between two sets of watches a change is not seen. */
void watch_nudge(struct watch *w);
/* Tries again what could not be watched, because it was not there. */
void watch_retry(struct watch *w);

#endif
