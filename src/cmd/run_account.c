/* The account of a run: its records added up by host, ways around that were tried, and the policy lines that would have let
 * through what was refused. Names in records come from the sandbox: nothing unprintable is printed. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sallyport/base/map.h"
#include "sallyport/base/mem.h"
#include "sallyport/cmd/log.h"
#include "sallyport/cmd/run.h"

#define ROWS_MAX 1000 /* told apart; the rest count as one */
#define REFUSED_MAX 100000
#define SHOWN 20      /* of a kind on a terminal; JSON has all */

struct row {
    char *name;               /* "host:port", or "udp 192.0.2.1:53" of a way around */
    char *host, *reason;      /* heap, or NULL; reason of the last refusal */
    uint64_t port, allowed, denied, failed, bypass, bytes_up, bytes_down;
};

struct account {
    struct map *rows;
    struct map *refused;      /* ids whose refusal is counted: their close records add no failure */
    struct row **order;       /* as they came */
    size_t count;
    struct row total;
    const char *sandbox;      /* only its records, where the log is shared */
};

static char *
text_of(const struct log_seen *s, const char *name)
{
    struct slice text = log_seen_text(s, name);
    return text.ptr ? mem_dup_slice(slice_of(text.ptr, strnlen(text.ptr, text.len))) : NULL;
}

static struct row *
row_of(struct account *a, const char *name)
{
    struct row *row = map_get(a->rows, slice_str(name));
    if (row)
        return row;
    if (a->count >= ROWS_MAX)
        name = "(others)";
    row = map_get(a->rows, slice_str(name));
    if (row)
        return row;
    row = mem_zalloc(sizeof *row);
    row->name = mem_strdup(name);
    map_put(a->rows, slice_str(name), row);
    a->order = mem_realloc(a->order, (a->count + 1) * sizeof(struct row *));
    a->order[a->count++] = row;
    return row;
}

/* What one record says, as numbers of a row. */
static struct row
measure(const struct log_seen *s)
{
    struct row m = {0};
    uint64_t times = log_seen_is(s, "event", "repeated") ? log_seen_number(s, "count") : 1;
    bool closes = log_seen_is(s, "event", "close");
    struct slice reason = log_seen_text(s, "reason");
    if (log_seen_is(s, "event", "bypass") || (log_seen_is(s, "event", "repeated") && log_seen_text(s, "protocol").ptr))
        m.bypass = times;
    else if (log_seen_is(s, "decision", "deny") || (log_seen_is(s, "event", "repeated") && !slice_is(reason, "token_missing")))
        m.denied = times;
    else if (log_seen_is(s, "event", "decision") && log_seen_is(s, "decision", "allow"))
        m.allowed = 1;
    else if (closes && reason.ptr && !slice_is(reason, "ok") && !log_seen_is(s, "cause", "refused"))
        m.failed = 1; /* a refused one has counted with its decision */
    if (closes) {
        m.bytes_up = log_seen_number(s, "bytes_up");
        m.bytes_down = log_seen_number(s, "bytes_down");
    }
    return m;
}

static void
add(struct row *to, const struct row *m)
{
    to->allowed += m->allowed;
    to->denied += m->denied;
    to->failed += m->failed;
    to->bypass += m->bypass;
    to->bytes_up += m->bytes_up;
    to->bytes_down += m->bytes_down;
}

static char *
name_of(const struct log_seen *s, const struct row *m, const char *host, uint64_t port)
{
    cleanup_free char *protocol = m->bypass ? text_of(s, "protocol") : NULL;
    const char *open = strchr(host, ':') ? "[" : "", *close = *open ? "]" : "";
    cleanup_free char *tail = port ? mem_printf(":%" PRIu64, port) : mem_strdup("");
    return mem_printf("%s%s%s%s%s%s", protocol ? protocol : "", protocol ? " " : "", open, host, close, tail);
}

static void
add_record(struct account *a, const struct log_seen *s)
{
    cleanup_free char *host = text_of(s, "host");
    struct row m = measure(s);
    struct slice id = log_seen_text(s, "id");
    if (m.denied && id.ptr && map_count(a->refused) < REFUSED_MAX)
        map_put(a->refused, id, a);
    else if (m.failed && id.ptr && map_remove(a->refused, id))
        m.failed = 0;
    /* Refusals of too many hosts to be told apart are counted together, without a name. */
    bool together = log_seen_is(s, "event", "repeated") && !log_seen_text(s, "sandbox").ptr;
    if (a->sandbox && !together && !log_seen_is(s, "sandbox", a->sandbox))
        return;
    if (!m.allowed && !m.denied && !m.failed && !m.bypass && !log_seen_is(s, "event", "close"))
        return;
    add(&a->total, &m);
    if (!host)
        host = mem_strdup("(no host)");
    uint64_t port = log_seen_number(s, "port");
    cleanup_free char *name = name_of(s, &m, host, port);
    struct row *row = row_of(a, name);
    add(row, &m);
    row->port = port;
    if (!row->host)
        row->host = steal(&host);
    if (m.denied || m.failed) {
        free(row->reason);
        row->reason = text_of(s, "reason");
    }
}

static void
on_line(void *ctx, struct slice line, bool whole)
{
    struct log_seen s;
    if (whole && log_seen_read(&s, line))
        add_record(ctx, &s);
    json_decref(s.root);
}

/* The log may be older than this run, and be gone. */
static void
read_log(struct account *a, const struct run *r)
{
    struct err err = {0};
    struct log_lines l;
    struct slice line;
    if (!r->record || access(r->record, R_OK) < 0 || log_lines_open(&l, r->record, &err) < 0)
        return;
    if (r->record_start && lseek(l.fd, r->record_start, SEEK_SET) < 0)
        lseek(l.fd, 0, SEEK_SET);
    do
        while (log_lines_take(&l, &line))
            on_line(a, line, true);
    while (log_lines_fill(&l) > 0);
    log_lines_close(&l);
}

/* The entry that would have opened it, heap, or NULL: an address guard's or a token's refusal is no policy's to lift. */
static char *
remedy(const struct row *row)
{
    if (!row->denied || !row->reason || !row->host)
        return NULL;
    bool usual = row->port == 80 || row->port == 443 || row->port == 0;
    if (strcmp(row->reason, "host_not_allowed") == 0)
        return usual ? mem_strdup(row->host) : mem_printf("%s:%" PRIu64, row->host, row->port);
    if (strcmp(row->reason, "port_not_allowed") == 0)
        return mem_printf("%s:%" PRIu64, row->host, row->port);
    return NULL;
}

/* ---- as JSON ---- */

static json_t *
row_json(const struct row *row)
{
    json_t *o = json_pack("{s:s}", "name", row->name);
    if (row->host)
        json_object_set_new(o, "host", json_string(row->host));
    if (row->port)
        json_object_set_new(o, "port", log_json_count(row->port));
    if (row->bypass) {
        json_object_set_new(o, "attempts", log_json_count(row->bypass));
        return o;
    }
    json_object_set_new(o, "allowed", log_json_count(row->allowed));
    json_object_set_new(o, "denied", log_json_count(row->denied));
    json_object_set_new(o, "failed", log_json_count(row->failed));
    json_object_set_new(o, "bytes_up", log_json_count(row->bytes_up));
    json_object_set_new(o, "bytes_down", log_json_count(row->bytes_down));
    if (row->reason)
        json_object_set_new(o, "reason", json_string(row->reason));
    return o;
}

static json_t *
suggestions(const struct account *a)
{
    json_t *list = json_array();
    for (size_t i = 0; i < a->count; i++) {
        cleanup_free char *entry = remedy(a->order[i]);
        bool known = false;
        for (size_t k = 0; entry && k < json_array_size(list); k++)
            known |= strcmp(json_string_value(json_array_get(list, k)), entry) == 0;
        json_t *text = entry && !known ? json_string(entry) : NULL; /* NULL for what is no UTF-8 */
        if (text)
            json_array_append_new(list, text);
    }
    return list;
}

static void
print_json(const struct account *a, const struct run *r, int status)
{
    json_t *o = json_object(), *hosts = json_array(), *bypass = json_array();
    json_object_set_new(o, "sandbox", json_string(r->sandbox));
    json_object_set_new(o, "status", json_integer(status));
    json_object_set_new(o, "allowed", log_json_count(a->total.allowed));
    json_object_set_new(o, "denied", log_json_count(a->total.denied));
    json_object_set_new(o, "failed", log_json_count(a->total.failed));
    json_object_set_new(o, "bytes_up", log_json_count(a->total.bytes_up));
    json_object_set_new(o, "bytes_down", log_json_count(a->total.bytes_down));
    for (size_t i = 0; i < a->count; i++)
        json_array_append_new(a->order[i]->bypass ? bypass : hosts, row_json(a->order[i]));
    json_object_set_new(o, "hosts", hosts);
    json_object_set_new(o, "bypass_attempts", log_json_count(a->total.bypass));
    json_object_set_new(o, "bypass", bypass);
    json_object_set_new(o, "would_allow", json_pack("{s:o}", "allowed_hosts", suggestions(a)));
    json_dumpf(o, stderr, JSON_COMPACT | JSON_ENSURE_ASCII);
    fputc('\n', stderr);
    json_decref(o);
}

/* ---- as text ---- */

static void
print_name(const char *text)
{
    for (; *text; text++)
        fputc((unsigned char)*text >= 0x20 && *text < 0x7f ? *text : '?', stderr);
}

static void
print_row(const struct row *row)
{
    fputs(row->bypass ? "  went around: " : "  ", stderr);
    print_name(row->name);
    if (row->bypass)
        fprintf(stderr, ", refused %" PRIu64 " times", row->bypass);
    if (row->allowed)
        fprintf(stderr, ": %" PRIu64 " allowed, %" PRIu64 " bytes up, %" PRIu64 " down", row->allowed, row->bytes_up, row->bytes_down);
    if (row->denied)
        fprintf(stderr, "%s %" PRIu64 " denied", row->allowed ? "," : ":", row->denied);
    if (row->failed)
        fprintf(stderr, "%s %" PRIu64 " failed", row->allowed || row->denied ? "," : ":", row->failed);
    if ((row->denied || row->failed) && row->reason) {
        fputs(" (", stderr);
        print_name(row->reason);
        fputc(')', stderr);
    }
    fputc('\n', stderr);
}

static void
print_text(const struct account *a)
{
    const struct row *t = &a->total;
    fprintf(stderr, "sallyport: %" PRIu64 " allowed, %" PRIu64 " denied, %" PRIu64 " failed; %" PRIu64 " bytes up, %" PRIu64 " down", t->allowed,
            t->denied, t->failed, t->bytes_up, t->bytes_down);
    if (t->bypass)
        fprintf(stderr, "; %" PRIu64 " attempts to go around", t->bypass);
    fputc('\n', stderr);
    for (size_t i = 0; i < a->count && i < SHOWN; i++)
        print_row(a->order[i]);
    if (a->count > SHOWN)
        fprintf(stderr, "  and %zu more (--json has all)\n", a->count - SHOWN);
    json_auto_t *list = suggestions(a);
    char *text = json_array_size(list) ? json_dumps(list, JSON_ENSURE_ASCII) : NULL;
    if (text)
        fprintf(stderr, "  a policy with this would have allowed: \"allowed_hosts\": %s\n", text);
    free(text);
}

static void
free_row(void *value)
{
    struct row *row = value;
    free(row->name);
    free(row->host);
    free(row->reason);
    free(row);
}

void
run_account(const struct run *r, int status)
{
    /* With a token of somebody else's making we do not know its sub; then the log is read from where it stood. */
    struct account a = {.rows = map_new(), .refused = map_new(), .sandbox = r->key_pem ? r->sandbox : NULL};
    read_log(&a, r);
    if (r->o.json)
        print_json(&a, r, status);
    else
        print_text(&a);
    free(a.order);
    map_free(a.refused, NULL);
    map_free(a.rows, free_row);
}
