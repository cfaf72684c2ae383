/* The supervisor's side of the record file: handing it out, replacing it, and the records of its own (reload, revoke), which
 * the recorder writes. */
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sallyport/base/buf.h"
#include "sallyport/base/diag.h"
#include "sallyport/base/encoding.h"
#include "sallyport/base/json.h"
#include "sallyport/base/mem.h"
#include "sallyport/process/core.h"
#include "sallyport/process/fold.h"
#include "sallyport/record/record.h"

#define REVOKE_RECORDS_MAX 1000 /* of one reload */

int
records_open(struct supervisor *s, struct err *err)
{
    const char *path = s->running.settings.record_path;
    for (size_t i = 0; i < SHARED_WORKERS_MAX; i++)
        s->record_channels[i] = (struct record_channel){-1, -1, -1, false};
    if (!path)
        return err_invalid(err, "record.path: a file is expected: nothing leaves without a record");
    if (recordfile_open(path, &s->record, err) < 0)
        return -1;
    s->fold_fd = memfd_create("sallyport-fold", MFD_CLOEXEC);
    if (s->fold_fd < 0 || ftruncate(s->fold_fd, sizeof(struct fold_table)) < 0)
        return err_errno(err, "shared memory");
    for (unsigned i = 0; i < s->worker_count; i++)
        if (records_channel(s, i, err) < 0)
            return -1;
    return 0;
}

/* ---- the channels of records ---- */

static void
close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

int
records_channel(struct supervisor *s, unsigned slot, struct err *err)
{
    struct record_channel *c = &s->record_channels[slot];
    int pair[2];
    if (c->worker >= 0)
        return 0; /* a start that failed has not used it */
    if (c->left >= 0)
        return err_run(err, "the recorder has not yet written what the one before left");
    if (channel_pair(pair) < 0)
        return err_errno(err, "a channel of records");
    *c = (struct record_channel){.worker = pair[0], .recorder = pair[1], .left = c->recorder, .given = false};
    return 0;
}

static void
give(struct supervisor *s, unsigned slot)
{
    struct record_channel *c = &s->record_channels[slot];
    struct child *to = child_of(s, ROLE_RECORDER);
    struct control_channel told = {slot, channel_id(c->recorder)};
    if (!c->given && to && to->control)
        c->given = channel_send(to->control, CONTROL_CHANNEL, slice_of(&told, sizeof told), &c->recorder, 1);
}

/* Nobody else holds the worker's end: the channel ends with the worker. */
void
records_channel_given(struct supervisor *s, unsigned slot)
{
    close_end(&s->record_channels[slot].worker);
    give(s, slot);
}

void
records_recorder_started(struct supervisor *s)
{
    for (size_t i = 0; i < s->worker_count; i++)
        s->record_channels[i].given = true;
}

/* The present channel of a slot, if that is the one meant. */
static struct record_channel *
channel_meant(struct supervisor *s, const struct frame *frame, struct control_channel *ret)
{
    memcpy(ret, frame->payload.ptr, sizeof *ret);
    if (ret->slot >= s->worker_count)
        return NULL;
    struct record_channel *c = &s->record_channels[ret->slot];
    return channel_id(c->recorder) == ret->id ? c : NULL;
}

void
records_on_taken(struct supervisor *s, const struct frame *frame)
{
    struct control_channel told;
    struct record_channel *c = channel_meant(s, frame, &told);
    if (c)
        close_end(&c->left);
}

/* A worker that cannot report must not run: it is ended, and the next one has a channel of its own. */
void
records_on_ended(struct supervisor *s, const struct frame *frame)
{
    struct control_channel told;
    if (!channel_meant(s, frame, &told))
        return; /* of one that has ended since */
    for (size_t i = 0; i < s->child_count; i++) {
        struct child *c = &s->children[i];
        if (c->role != ROLE_WORKER || c->slot != told.slot || !c->pid || !c->wanted)
            continue;
        diag(DIAG_NOTICE, "the channel of records of worker %u is over, and so is the worker", c->slot);
        kill(c->pid, SIGKILL);
    }
}

void
records_close(struct supervisor *s)
{
    for (size_t i = 0; s->fold_fd >= 0 && i < s->worker_count; i++) {
        close_end(&s->record_channels[i].worker);
        close_end(&s->record_channels[i].recorder);
        close_end(&s->record_channels[i].left);
    }
}

/* ---- the file ---- */

void
records_on_want(struct supervisor *s, const struct frame *frame)
{
    struct control_want_file want;
    struct err err = {0};
    struct child *c = child_of(s, ROLE_RECORDER);
    memcpy(&want, frame->payload.ptr, sizeof want);
    if (want.why == WANT_NONE || want.why > WANT_TAMPERED)
        return;
    if (want.why != WANT_ROTATED)
        diag(DIAG_ALARM, "%s: %s; a new file is begun", s->record.path,
             want.why == WANT_LOST ? "was removed" : "was written to or cut by somebody else, and is put aside");
    if (recordfile_replace(&s->record, (enum want_file)want.why, want.first_seq, &err) < 0) {
        diag(DIAG_ALARM, "the record file cannot be replaced: %s", err.text);
        channel_send(c->control, CONTROL_FILE, slice_of("", 0), NULL, 0);
        return;
    }
    channel_send(c->control, CONTROL_FILE, slice_of("", 0), &s->record.fd, 1);
}

/* Somebody moved the file away: what is written still goes there, but nobody would find it. */
void
records_check(struct supervisor *s)
{
    for (unsigned i = 0; i < s->worker_count; i++)
        if (s->record_channels[i].worker < 0)
            give(s, i); /* what the recorder's queue did not take */
    if (recordfile_in_place(&s->record))
        return;
    struct control_want_file lost = {WANT_LOST, 0};
    struct frame frame = {.type = CONTROL_WANT_FILE, .payload = slice_of(&lost, sizeof lost)};
    struct child *c = child_of(s, ROLE_RECORDER);
    if (c->control)
        records_on_want(s, &frame);
}

void
records_event(struct supervisor *s, uint16_t event, const char *members)
{
    struct child *c = child_of(s, ROLE_RECORDER);
    struct buf payload;
    if (!c || !c->control)
        return;
    buf_init(&payload, 4096);
    if (buf_append(&payload, &event, sizeof event) && buf_append_str(&payload, members))
        channel_send(c->control, CONTROL_EVENT, buf_slice(&payload), NULL, 0);
    buf_done(&payload);
}

static json_t *
read_list(const char *text)
{
    struct err err = {0};
    return text ? json_read(slice_str(text), "revoked", 8, &err) : NULL;
}

static bool
holds(const json_t *list, const json_t *entry)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_equal(json_array_get(list, i), entry))
            return true;
    return false;
}

static void
record_revocation(struct supervisor *s, const json_t *entry)
{
    static const char *const names[][2] = {{"jti", "jti"}, {"sub", "sandbox"}};
    struct buf members;
    buf_init(&members, 2048);
    for (size_t i = 0; i < 2; i++) {
        const char *text = json_string_value(json_object_get(entry, names[i][0]));
        if (text)
            buf_printf(&members, "%s\"%s\":", buf_len(&members) ? "," : "", names[i][1]), json_append_string(&members, slice_str(text), 256);
    }
    buf_append(&members, "", 1);
    if (!members.overflow && buf_len(&members) > 1)
        records_event(s, RECORD_REVOKE, buf_slice(&members).ptr);
    buf_done(&members);
}

void
records_revoked(struct supervisor *s, const char *before, const char *after)
{
    if (!after || (before && strcmp(before, after) == 0))
        return;
    json_t *old = read_list(before), *new = read_list(after);
    unsigned count = 0;
    for (size_t i = json_array_size(new); i-- > 0 && count < REVOKE_RECORDS_MAX;) {
        const json_t *entry = json_array_get(new, i);
        if (holds(old, entry))
            continue;
        record_revocation(s, entry);
        count++;
    }
    json_decref(old);
    json_decref(new);
}
