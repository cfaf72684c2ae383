/* `sallyport log summary`: totals of a decision log per host, sandbox and reason. Memory is bounded
 * by the number of names told apart, not by the log. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sallyport/base/map.h"
#include "sallyport/base/mem.h"
#include "sallyport/cmd/cmd.h"
#include "sallyport/cmd/log.h"

#define TALLIES_MAX 100000 /* names told apart; the rest count as one */
#define SHOWN_DEFAULT 20

struct tally {
    struct slice name; /* owned; ptr NULL for the total */
    uint64_t allowed, denied, challenged, failed, bytes_up, bytes_down;
};

struct summary {
    struct map *hosts, *sandboxes, *reasons;
    struct tally total;
    uint64_t records, unreadable;
    char first_ts[32], last_ts[32];
};

static struct tally *
tally_of(struct map *m, struct slice name)
{
    if (name.len == 0)
        name = slice_str("(none)");
    struct tally *t = map_get(m, name);
    if (!t && map_count(m) >= TALLIES_MAX) {
        name = slice_str("(others)");
        t = map_get(m, name);
    }
    if (!t) {
        t = mem_zalloc(sizeof *t);
        t->name = slice_of(mem_dup_slice(name), name.len);
        map_put(m, name, t);
    }
    return t;
}

static void
tally_add(struct tally *to, const struct tally *t)
{
    to->allowed += t->allowed;
    to->denied += t->denied;
    to->challenged += t->challenged;
    to->failed += t->failed;
    to->bytes_up += t->bytes_up;
    to->bytes_down += t->bytes_down;
}

/* What one record adds. A tunnel refused after its 200 has an allow and, in its close record, a
 * denial: both count. */
static struct tally
tally_record(const struct log_seen *s)
{
    struct tally t = {0};
    struct slice reason = log_seen_text(s, "reason");
    if (log_seen_is(s, "event", "challenge"))
        t.challenged = 1;
    else if (log_seen_is(s, "event", "repeated") && slice_is(reason, "token_missing"))
        t.challenged = log_seen_number(s, "count");
    else if (log_seen_is(s, "event", "repeated"))
        t.denied = log_seen_number(s, "count");
    else if (log_seen_is(s, "decision", "deny"))
        t.denied = 1;
    else if (log_seen_is(s, "event", "decision") && log_seen_is(s, "decision", "allow"))
        t.allowed = 1;
    else if (log_seen_is(s, "event", "close") && log_seen_is(s, "cause", "refused"))
        t = (struct tally){0}; /* its decision record has counted */
    else if (log_seen_is(s, "event", "close") && reason.ptr && !slice_is(reason, "ok"))
        t.failed = 1;
    if (log_seen_is(s, "event", "close")) {
        t.bytes_up = log_seen_number(s, "bytes_up");
        t.bytes_down = log_seen_number(s, "bytes_down");
    }
    return t;
}

static void
note_time(struct summary *sum, const struct log_seen *s)
{
    const char *ts = json_string_value(json_object_get(s->root, "ts"));
    if (!ts)
        return;
    if (!sum->first_ts[0])
        snprintf(sum->first_ts, sizeof sum->first_ts, "%s", ts);
    snprintf(sum->last_ts, sizeof sum->last_ts, "%s", ts);
}

static void
on_summary_line(void *ctx, struct slice line, bool whole)
{
    struct summary *sum = ctx;
    struct log_seen s = {0};
    if (whole && log_seen_read(&s, line)) {
        struct tally t = tally_record(&s);
        bool counts = t.allowed || t.denied || t.challenged || t.failed;
        sum->records++;
        note_time(sum, &s);
        tally_add(&sum->total, &t);
        if (counts || t.bytes_up || t.bytes_down) {
            tally_add(tally_of(sum->hosts, log_seen_text(&s, "host")), &t);
            tally_add(tally_of(sum->sandboxes, log_seen_text(&s, "sandbox")), &t);
        }
        if (counts)
            tally_add(tally_of(sum->reasons, log_seen_text(&s, "reason")), &t);
    } else {
        sum->unreadable++;
    }
    json_decref(s.root);
}

struct sorted {
    struct tally **items;
    size_t count;
};

static void
collect(void *ctx, struct slice key, void *value)
{
    struct sorted *s = ctx;
    (void)key;
    s->items[s->count++] = value;
}

static uint64_t
tally_weight(const struct tally *t)
{
    return t->allowed + t->denied + t->challenged + t->failed;
}

static int
compare_tallies(const void *a, const void *b)
{
    const struct tally *left = *(struct tally *const *)a, *right = *(struct tally *const *)b;
    uint64_t left_weight = tally_weight(left), right_weight = tally_weight(right);
    if (left_weight != right_weight)
        return left_weight > right_weight ? -1 : 1;
    size_t common = left->name.len < right->name.len ? left->name.len : right->name.len;
    int order = memcmp(left->name.ptr, right->name.ptr, common);
    if (order != 0)
        return order;
    return left->name.len < right->name.len ? -1 : left->name.len > right->name.len;
}

static struct sorted
sort_map(const struct map *m)
{
    struct sorted s = {mem_array(map_count(m) + 1, sizeof *s.items), 0};
    map_each(m, collect, &s);
    qsort(s.items, s.count, sizeof s.items[0], compare_tallies);
    return s;
}

static void
print_table(const char *title, const struct map *m, bool all)
{
    struct sorted s = sort_map(m);
    size_t shown = all || s.count <= SHOWN_DEFAULT ? s.count : SHOWN_DEFAULT;
    printf("\n%10s %10s %10s %10s %14s %14s  %s\n", "allowed", "denied", "challenged", "failed",
           "bytes up", "bytes down", title);
    for (size_t i = 0; i < shown; i++) {
        const struct tally *t = s.items[i];
        printf("%10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %14" PRIu64 " %14" PRIu64
               "  ",
               t->allowed, t->denied, t->challenged, t->failed, t->bytes_up, t->bytes_down);
        log_print_safely(t->name);
        putchar('\n');
    }
    if (shown < s.count)
        printf("%*s  and %zu more (--all)\n", 74, "", s.count - shown);
    free(s.items);
}

static json_t *
tally_json(const struct tally *t)
{
    json_t *o = json_object();
    if (t->name.ptr)
        json_object_set_new(o, "name", json_stringn(t->name.ptr, t->name.len));
    json_object_set_new(o, "allowed", log_json_count(t->allowed));
    json_object_set_new(o, "denied", log_json_count(t->denied));
    json_object_set_new(o, "challenged", log_json_count(t->challenged));
    json_object_set_new(o, "failed", log_json_count(t->failed));
    json_object_set_new(o, "bytes_up", log_json_count(t->bytes_up));
    json_object_set_new(o, "bytes_down", log_json_count(t->bytes_down));
    return o;
}

static json_t *
table_json(const struct map *m)
{
    struct sorted s = sort_map(m);
    json_t *array = json_array();
    for (size_t i = 0; i < s.count; i++)
        json_array_append_new(array, tally_json(s.items[i]));
    free(s.items);
    return array;
}

static void
summary_json(const struct summary *sum)
{
    json_t *o = json_object();
    json_object_set_new(o, "records", log_json_count(sum->records));
    json_object_set_new(o, "unreadable", log_json_count(sum->unreadable));
    json_object_set_new(o, "first", json_string(sum->first_ts));
    json_object_set_new(o, "last", json_string(sum->last_ts));
    json_object_set_new(o, "total", tally_json(&sum->total));
    json_object_set_new(o, "hosts", table_json(sum->hosts));
    json_object_set_new(o, "sandboxes", table_json(sum->sandboxes));
    json_object_set_new(o, "reasons", table_json(sum->reasons));
    log_print_json(o);
}

static void
summary_text(const struct summary *sum, bool all)
{
    const struct tally *t = &sum->total;
    printf("%" PRIu64 " records", sum->records);
    if (sum->records > 0) {
        printf(" from ");
        log_print_safely(slice_str(sum->first_ts));
        printf(" to ");
        log_print_safely(slice_str(sum->last_ts));
    }
    printf("\n%" PRIu64 " allowed, %" PRIu64 " denied, %" PRIu64 " challenged, %" PRIu64
           " failed, %" PRIu64 " bytes up, %" PRIu64 " bytes down\n",
           t->allowed, t->denied, t->challenged, t->failed, t->bytes_up, t->bytes_down);
    if (sum->unreadable > 0)
        printf("%" PRIu64 " lines are no records (`sallyport log verify` says more)\n",
               sum->unreadable);
    print_table("host", sum->hosts, all);
    print_table("sandbox", sum->sandboxes, all);
    print_table("reason", sum->reasons, all);
}

static void
tally_free(void *value)
{
    struct tally *t = value;
    free((char *)(uintptr_t)t->name.ptr);
    free(t);
}

int
log_summary(const struct log_options *o, const struct log_files *files, struct err *err)
{
    struct summary sum = {.hosts = map_new(), .sandboxes = map_new(), .reasons = map_new()};
    int result = 0;
    for (size_t i = 0; result == 0 && i < files->count; i++)
        result = log_each_line(files->names[i], on_summary_line, &sum, err);
    if (result == 0 && o->json)
        summary_json(&sum);
    else if (result == 0)
        summary_text(&sum, o->all);
    map_free(sum.hosts, tally_free);
    map_free(sum.sandboxes, tally_free);
    map_free(sum.reasons, tally_free);
    return result == 0 ? 0 : cmd_fail(err);
}
