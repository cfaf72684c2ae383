/* The pages of the admin endpoint: from shared counters and the snapshot to text. No sockets. */
#ifndef SALLYPORT_PROCESS_ADMINPAGE_H
#define SALLYPORT_PROCESS_ADMINPAGE_H

#include <stdbool.h>

#include "sallyport/base/buf.h"
#include "sallyport/process/control.h"
#include "sallyport/proxy/shared.h"
#include "sallyport/proxy/snapshot.h"

#define ADMIN_PAGE_MAX (16u << 20)

struct admin_view {
    const struct shared *shared;
    struct snapshot *snapshot;      /* NULL: it may not be had here */
    struct control_state state;
    uint64_t generation;
};

struct admin_reply {
    int status;
    const char *type;
    struct buf body;
};

/* path without query. everything: the unix socket; else health and metrics only. False: there is no such page. */
bool admin_page(const struct admin_view *view, struct slice path, bool everything, struct admin_reply *reply);

#endif
