/* The decisions of old records, as `policy replay` and `policy suggest` read them. Whoever sent what is in a record may have
 * been hostile: nothing here trusts a member to be there, to be of its type or to be short. */
#include <stdlib.h>
#include <string.h>

#include "sallyport/base/mem.h"
#include "sallyport/cmd/log.h"
#include "sallyport/cmd/policy.h"

struct reading {
    const char *sandbox, *file;
    old_decision_fn *fn;
    void *ctx;
    uint64_t line, torn, handed;
    const char *bad_file; /* the first line that is no record */
    uint64_t bad_line;
};

static enum entry
entry_of(struct slice word)
{
    static const struct {
        const char *word;
        enum entry entry;
    } words[] = {
        {"connect", ENTRY_TUNNEL}, {"transparent", ENTRY_TUNNEL}, {"forward", ENTRY_FORWARD},
        {"inspected", ENTRY_INSPECTED}, {"dns", ENTRY_DNS},
    };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (slice_is(word, words[i].word))
            return words[i].entry;
    }
    return ENTRY_OTHER;
}

static bool
is_true(const struct log_seen *s, const char *name)
{
    return json_is_true(json_object_get(s->members, name));
}

/* False: the record says neither allow nor deny. */
static bool
fill_decision(const struct log_seen *s, bool repeated, struct old_decision *d)
{
    uint64_t port = log_seen_number(s, "port");
    *d = (struct old_decision){
        .repeated = repeated,
        .allow = !repeated && log_seen_is(s, "decision", "allow"),
        .inspect = is_true(s, "inspect"),
        .cut = is_true(s, "host_truncated") || is_true(s, "method_truncated") || is_true(s, "path_truncated"),
        .entry = entry_of(log_seen_text(s, "entry")),
        .reason = reason_from_text(log_seen_text(s, "reason")),
        .host = log_seen_text(s, "host"),
        .method = log_seen_text(s, "method"),
        .path = log_seen_text(s, "path"),
        .rule = log_seen_text(s, "rule"),
        .source = log_seen_text(s, "source"),
        .port = port <= UINT16_MAX ? (uint16_t)port : 0,
        .addresses = json_object_get(s->members, "addresses"),
        .count = repeated ? log_seen_number(s, "count") : 1,
    };
    return repeated || d->allow || log_seen_is(s, "decision", "deny");
}

/* False: no record. */
static bool
take_line(struct reading *r, struct slice line)
{
    struct log_seen s = {0};
    struct old_decision d;
    bool good = log_seen_read(&s, line), repeated = good && log_seen_is(&s, "event", "repeated");
    if (good && (repeated || log_seen_is(&s, "event", "decision")) && (!r->sandbox || log_seen_is(&s, "sandbox", r->sandbox))) {
        good = fill_decision(&s, repeated, &d);
        if (good) {
            r->handed++;
            r->fn(r->ctx, &d);
        }
    }
    json_decref(s.root);
    return good;
}

static void
on_record_line(void *ctx, struct slice line, bool whole)
{
    struct reading *r = ctx;
    r->line++;
    if (!whole) {
        r->torn++;
    } else if (!r->bad_file && !take_line(r, line)) {
        r->bad_file = r->file;
        r->bad_line = r->line;
    }
}

static int
read_files(struct reading *r, const struct log_files *files, struct err *err)
{
    for (size_t i = 0; i < files->count && !r->bad_file; i++) {
        r->file = files->names[i];
        r->line = 0;
        if (log_each_line(r->file, on_record_line, r, err) != 0)
            return -1;
    }
    if (r->bad_file)
        return err_invalid(err, "%s:%llu: no decision record; expected a line of JSON as the gate writes it (`sallyport log verify` says more)",
                           r->bad_file, (unsigned long long)r->bad_line);
    if (r->sandbox && r->handed == 0)
        return err_invalid(err, "no decision of a sandbox \"%.128s\" is in these records", r->sandbox);
    return 0;
}

int
old_decisions_each(int argc, char **argv, const char *sandbox, old_decision_fn *fn, void *ctx, uint64_t *ret_torn, struct err *err)
{
    struct reading r = {.sandbox = sandbox, .fn = fn, .ctx = ctx};
    struct log_files *files = mem_zalloc(sizeof *files);
    int result = log_files_find(files, argc, argv, err);
    if (result == 0)
        result = read_files(&r, files, err);
    log_files_done(files);
    free(files);
    *ret_torn = r.torn;
    return result;
}
