/* Plays a script step by step: after each step the world comes to rest, so that what is expected
 * next has happened. */
#include "fakes/play.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sallyport/base/mem.h"
#include "sallyport/proxy/journal.h"
#include "sallyport/proxy/proxy.h"
#include "sallyport/proxy/shared.h"

#define LISTENER_FD 900000
#define CONNECTIONS_MAX 4096
#define AFTERMATH_MS 5000 /* longer than the proxy lingers on anything */

struct play {
    const struct script *script;
    struct staged *staged;
    struct variant variant;
    struct outcome *out;
    struct loop *loop;
    struct journal *journal;
    struct shared *shared;
    struct proxy *proxy;
    size_t generation;
    size_t record_cursor, effect_cursor; /* effects spoken of */
    bool drained;
    const struct step *step;
};

static bool __attribute__((format(printf, 2, 3))) wrong(struct play *p, const char *fmt, ...)
{
    va_list ap;
    if (!p->out->ok)
        return false;
    p->out->ok = false;
    p->out->line = p->step ? p->step->line : 0;
    va_start(ap, fmt);
    vsnprintf(p->out->text, sizeof p->out->text, fmt, ap);
    va_end(ap);
    return false;
}

/* ---- arrivals ---- */

static void
arrive(struct wire *w, const char *bytes, size_t len)
{
    if (len == 0)
        return;
    buf_append(&w->to_product, bytes, len);
    world_settle();
}

static void
send_bytes(struct play *p, struct wire *w, const char *bytes, size_t len)
{
    size_t *sent = w->upstream ? &p->out->upstream_bytes : &p->out->client_bytes;
    int64_t split = w->upstream ? p->variant.upstream_split : p->variant.client_split;
    size_t before = *sent, at = len;
    *sent += len;
    if (split > (int64_t)before && split < (int64_t)(before + len))
        at = (size_t)split - before;
    if (!p->variant.bytewise) {
        arrive(w, bytes, at);
        arrive(w, bytes + at, len - at);
        return;
    }
    size_t run = len > 8192 ? 61 : 1; /* long bodies in odd runs, or a play takes seconds */
    for (size_t i = 0; i < len; i += run)
        arrive(w, bytes + i, len - i < run ? len - i : run);
}

/* ---- steps ---- */

static bool
do_connect(struct play *p, const struct step *s)
{
    struct addr from;
    addr_parse(slice_str("198.51.100.9"), &from);
    uint16_t port = (uint16_t)(40000 + world.client_count);
    const char *listener = NULL;
    for (size_t i = 0; i < s->word_count; i++) {
        if (strcmp(s->words[i], "from") == 0 && i + 1 < s->word_count) {
            if (!addr_parse(slice_str(s->words[++i]), &from))
                return wrong(p, "%s is no address", s->words[i]);
        } else if (i > 0) {
            listener = s->words[i];
        }
    }
    struct wire *w = wire_new(false, &from, port);
    if (s->word_count == 0 || strcmp(w->name, s->words[0]) != 0)
        return wrong(p, "the next client is %s", w->name);
    const struct settings *set = &p->staged->settings[0];
    for (size_t i = 0; i < set->listener_count; i++)
        if (!listener || strcmp(set->listeners[i].name, listener) == 0) {
            world_connect(LISTENER_FD + (int)i, w);
            return true;
        }
    return wrong(p, "no listener %s", listener);
}

static bool
do_dns(struct play *p, const struct step *s)
{
    struct answers a = {0};
    enum dns_kind kind = DNS_ANSWER;
    uint32_t ttl = 0;
    for (size_t i = 1; i < s->word_count; i++) {
        if (strcmp(s->words[i], "fail") == 0)
            kind = DNS_FAIL;
        else if (strcmp(s->words[i], "hold") == 0)
            kind = DNS_HOLD;
        else if (strncmp(s->words[i], "ttl=", 4) == 0)
            ttl = (uint32_t)strtoul(s->words[i] + 4, NULL, 10);
        else if (strncmp(s->words[i], "count=", 6) == 0)
            for (unsigned long n = strtoul(s->words[i] + 6, NULL, 10), k = 0;
                 k < n && a.count < RESOLVE_ANSWERS_MAX; k++)
                a.addrs[a.count++] = (struct addr){AF_INET, {93, 184, 216, (uint8_t)(k + 1)}};
        else if (a.count == RESOLVE_ANSWERS_MAX ||
                 !addr_parse(slice_str(s->words[i]), &a.addrs[a.count++]))
            return wrong(p, "%s is no address", s->words[i]);
    }
    world_dns(s->words[0], kind, &a, ttl);
    return true;
}

static bool
do_dials(struct play *p, const struct step *s)
{
    static const struct {
        const char *word;
        enum connect_kind kind;
    } words[] = {
        {"ok", CONNECT_OK},
        {"refused", CONNECT_REFUSED},
        {"unreachable", CONNECT_UNREACHABLE},
        {"timeout", CONNECT_TIMEOUT},
        {"hold", CONNECT_HOLD},
    };
    struct addr a;
    struct sockaddr_storage sa;
    socklen_t len;
    uint16_t port = 0;
    int64_t after = 0;
    if (s->word_count < 2)
        return wrong(p, "dial ADDRESS[:PORT] ok|refused|unreachable|timeout|hold [after=MS]");
    if (!addr_parse(slice_str(s->words[0]), &a) &&
        !(sockaddr_parse(slice_str(s->words[0]), 0, &sa, &len) &&
          addr_from_sockaddr((struct sockaddr *)&sa, &a, &port)))
        return wrong(p, "%s is no address", s->words[0]);
    if (s->word_count > 2)
        sscanf(s->words[2], "after=%" SCNd64, &after);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(words[i].word, s->words[1]) == 0) {
            world_connects(&a, port, words[i].kind, after);
            return true;
        }
    return wrong(p, "unknown end of a connect: %s", s->words[1]);
}

static bool
do_recorder(struct play *p, const struct step *s)
{
    static const struct {
        const char *word;
        enum recorder_kind kind;
    } words[] = {
        {"ok", RECORDER_OK},         {"hold", RECORDER_HOLD}, {"full", RECORDER_FULL},
        {"broken", RECORDER_BROKEN}, {"gone", RECORDER_GONE}, {"restart", RECORDER_RESTART},
    };
    for (size_t i = 0; s->word_count && i < sizeof words / sizeof words[0]; i++)
        if (strcmp(words[i].word, s->words[0]) == 0) {
            world_recorder(words[i].kind);
            return true;
        }
    return wrong(p, "recorder ok|hold|full|broken|gone|restart");
}

static bool
do_expect(struct play *p, const struct step *s, struct wire *w)
{
    char want[1600], got[1600];
    struct slice bytes = buf_slice(&w->from_product);
    cleanup_free char *joined = NULL;
    if (s->word_count && strcmp(s->words[0], "joined") == 0 && bytes.len) {
        joined = join_chunks(bytes, &bytes.len);
        bytes.ptr = joined;
    }
    if (!match_bytes(slice_of(s->bytes, s->len), bytes)) {
        show_bytes(slice_of(s->bytes, s->len), want, sizeof want);
        show_bytes(bytes, got, sizeof got);
        return wrong(p, "%s was to get\n    %s\n  and got\n    %s", w->name, want, got);
    }
    buf_clear(&w->from_product);
    return true;
}

static bool
do_refused(struct play *p, const struct step *s, struct wire *w)
{
    char why[512], got[1600];
    bool body = s->word_count < 3 || strcmp(s->words[2], "nobody") != 0;
    if (s->word_count < 2)
        return wrong(p, "refused STATUS REASON");
    check_reply(buf_slice(&w->from_product), atoi(s->words[0]), s->words[1], body, why, sizeof why);
    if (why[0]) {
        show_bytes(buf_slice(&w->from_product), got, sizeof got);
        return wrong(p, "%s was to be refused, but %s:\n    %s", w->name, why, got);
    }
    buf_clear(&w->from_product);
    if (!w->fin_out)
        return wrong(p, "the connection stays open behind a refusal");
    return true;
}

static bool
do_state(struct play *p, const struct step *s, struct wire *w)
{
    char got[800];
    bool silent = buf_len(&w->from_product) == 0, fine = false;
    switch ((int)s->kind) {
    case STEP_CLOSED:
        fine = (silent || w->upstream) && w->closed;
        break;
    case STEP_CUT:
        fine = w->closed && w->reset;
        break;
    case STEP_EOF:
        fine = silent && w->fin_out && !w->closed;
        break;
    case STEP_OPEN:
        fine = silent && !w->fin_out;
        break;
    case STEP_SILENT:
        fine = silent;
        break;
    case STEP_COUNT:
        fine = (int64_t)buf_len(&w->from_product) == s->number;
        buf_clear(&w->from_product);
        break;
    }
    if (fine)
        return true;
    show_bytes(buf_slice(&w->from_product), got, sizeof got);
    return wrong(p, "%s is %s%s with %zu bytes unread%s%s", w->name,
                 w->closed    ? "closed"
                 : w->fin_out ? "half-closed"
                              : "open",
                 w->reset ? " (reset)" : "", buf_len(&w->from_product), silent ? "" : ":\n    ",
                 got);
}

static bool
find_record(struct play *p)
{
    while (p->record_cursor < world.effect_count &&
           world.effects[p->record_cursor].kind != EFFECT_RECORD)
        p->record_cursor++;
    return p->record_cursor < world.effect_count;
}

static bool
do_record(struct play *p, const struct step *s)
{
    /* A record for which nobody waits may stay in the worker for a moment. */
    if (!find_record(p) && (!world_advance(JOURNAL_HOLD_MS) || !find_record(p)))
        return wrong(p, "no further record");
    const char *text = world.effects[p->record_cursor++].text;
    json_t *record = json_loads(text, JSON_ALLOW_NUL, NULL);
    char event[64];
    snprintf(event, sizeof event, "event=%s", s->words[0]);
    bool ok = match_member(record, event);
    if (!ok)
        wrong(p, "the next record is no %s: %s", s->words[0], text);
    for (size_t i = 1; ok && i < s->word_count; i++)
        if (!match_member(record, s->words[i]))
            ok = wrong(p, "the record has not %s: %s", s->words[i], text);
    json_decref(record);
    return ok;
}

static bool
do_quiet(struct play *p)
{
    if (!world_advance(JOURNAL_HOLD_MS))
        return false;
    for (size_t i = p->record_cursor; i < world.effect_count; i++)
        if (world.effects[i].kind == EFFECT_RECORD)
            return wrong(p, "a record that was not spoken of: %s", world.effects[i].text);
    return true;
}

static bool
do_none(struct play *p, const struct step *s)
{
    for (size_t k = 0; k < s->word_count; k++) {
        enum effect_kind kind = strcmp(s->words[k], "query") == 0  ? EFFECT_QUERY
                                : strcmp(s->words[k], "dial") == 0 ? EFFECT_DIAL
                                                                   : EFFECT_UPSTREAM;
        for (size_t i = 0; i < world.effect_count; i++)
            if (world.effects[i].kind == kind)
                return wrong(p, "there was a %s: %s", s->words[k], world.effects[i].text);
    }
    return true;
}

static const char *
effect_name(enum effect_kind kind)
{
    static const char *const names[] = {"",     "record",   "kept",  "query",
                                        "dial", "upstream", "client"};
    return names[kind];
}

static bool
find_effect(struct play *p)
{
    while (p->effect_cursor < world.effect_count &&
           world.effects[p->effect_cursor].kind == EFFECT_KEPT)
        p->effect_cursor++;
    return p->effect_cursor < world.effect_count;
}

static bool
do_effects(struct play *p, const struct step *s)
{
    for (size_t k = 0; k < s->word_count; k++) {
        if (!find_effect(p) && (!world_advance(JOURNAL_HOLD_MS) || !find_effect(p)))
            return wrong(p, "\"%s\" did not happen", s->words[k]);
        const struct effect *e = &world.effects[p->effect_cursor++];
        if (!match_effect(e, s->words[k]))
            return wrong(p, "\"%s\" was to happen next, but it was %s %s", s->words[k],
                         effect_name(e->kind), e->text);
    }
    for (; p->effect_cursor < world.effect_count; p->effect_cursor++)
        if (world.effects[p->effect_cursor].kind != EFFECT_KEPT)
            return wrong(p, "further: %s %s", effect_name(world.effects[p->effect_cursor].kind),
                         world.effects[p->effect_cursor].text);
    return true;
}

static bool
do_reload(struct play *p)
{
    if (p->generation + 1 >= p->staged->count)
        return wrong(p, "there is no further generation");
    proxy_set_snapshot(p->proxy, p->staged->snapshots[++p->generation]);
    return true;
}

static void
on_drained(void *arg)
{
    ((struct play *)arg)->drained = true;
}

static bool
do_wire_step(struct play *p, const struct step *s)
{
    struct wire *w = wire_find(s->wire);
    if (!w)
        return wrong(p, "there is no %s", s->wire);
    switch ((int)s->kind) {
    case STEP_SEND:
        send_bytes(p, w, s->bytes, s->len);
        return true;
    case STEP_EXPECT:
        return do_expect(p, s, w);
    case STEP_FIN:
        w->fin_in = true;
        return true;
    case STEP_RESET:
        w->rst_in = true;
        return true;
    case STEP_WINDOW:
        w->window = s->number < 0 ? SIZE_MAX : (size_t)s->number;
        return true;
    case STEP_REFUSED:
        return do_refused(p, s, w);
    default:
        return do_state(p, s, w);
    }
}

static bool
do_step(struct play *p, const struct step *s)
{
    switch (s->kind) {
    case STEP_CONNECT:
        return do_connect(p, s);
    case STEP_DNS:
        return do_dns(p, s);
    case STEP_DIALS:
        return do_dials(p, s);
    case STEP_RECORDER:
        return do_recorder(p, s);
    case STEP_WAIT:
        return world_advance(s->number);
    case STEP_SLEEP:
        world.wall_us += s->number * 1000;
        return true;
    case STEP_RECORD:
        return do_record(p, s);
    case STEP_QUIET:
        return do_quiet(p);
    case STEP_NONE:
        return do_none(p, s);
    case STEP_EFFECTS:
        return do_effects(p, s);
    case STEP_RELOAD:
        return do_reload(p);
    case STEP_DRAIN:
        proxy_drain(p->proxy, on_drained, p);
        return true;
    case STEP_DRAINED:
        return p->drained || wrong(p, "the drain is not over");
    case STEP_STOP:
        proxy_stop(p->proxy);
        return true;
    case STEP_SEND:
    case STEP_EXPECT:
    case STEP_FIN:
    case STEP_RESET:
    case STEP_WINDOW:
    case STEP_REFUSED:
    case STEP_CLOSED:
    case STEP_OPEN:
    case STEP_SILENT:
    case STEP_CUT:
    case STEP_EOF:
    case STEP_COUNT:
        return do_wire_step(p, s);
    }
    return wrong(p, "unknown step");
}

/* ---- beginning and end ---- */

static bool
open_world(struct play *p)
{
    struct err err = {0};
    const struct settings *set = &p->staged->settings[0];
    world_reset();
    world.read_max = p->variant.read_max;
    world.fail_event = p->variant.fail_event;
    p->loop = loop_new();
    p->journal = journal_new(p->loop, WORLD_RECORDER_FD, set->durability, set->record_format);
    int fd = shared_create();
    p->shared = shared_map(fd, true);
    close(fd);
    struct proxy_options o = {
        .loop = p->loop,
        .snapshot = p->staged->snapshots[0],
        .journal = p->journal,
        .shared = p->shared,
        .connections_max =
            p->script->connections_max ? p->script->connections_max : CONNECTIONS_MAX,
    };
    p->proxy = proxy_new(&o);
    for (size_t i = 0; i < set->listener_count; i++)
        if (proxy_listen(p->proxy, set->listeners[i].name, LISTENER_FD + (int)i, false, &err) < 0)
            return wrong(p, "%s", err.text);
    return world_settle();
}

static void
tell_effects(void)
{
    for (size_t i = 0; i < world.effect_count; i++)
        printf("    %s %s\n", effect_name(world.effects[i].kind), world.effects[i].text);
}

/* Everybody leaves; then nothing may be left. The checks that hold in every play come last. */
static void
close_world(struct play *p)
{
    char why[1024] = "";
    p->step = NULL;
    world_recorder(RECORDER_OK);
    for (size_t i = 0; i < world.wire_count; i++) {
        world.wires[i]->window = SIZE_MAX;
        world.wires[i]->fin_in = true;
    }
    if (p->out->ok && !world_advance(AFTERMATH_MS))
        wrong(p, "%s", world.fault);
    proxy_stop(p->proxy);
    world_settle();
    if (p->out->ok)
        check_effects(p->staged, why, sizeof why);
    proxy_free(p->proxy);
    journal_free(p->journal);
    loop_free(p->loop);
    shared_unmap(p->shared);
    if (p->out->ok && world.live)
        wrong(p, "%zu streams, timers, lookups or dials are left", world.live);
    if (world.fault[0])
        wrong(p, "%s", world.fault);
    if (why[0])
        wrong(p, "%s", why);
    if (!p->out->ok && p->out->tell)
        tell_effects();
}

void
play_script(const struct script *s, struct staged *st, struct variant v, struct outcome *ret)
{
    struct play p = {.script = s, .staged = st, .variant = v, .out = ret};
    *ret = (struct outcome){.ok = true, .tell = ret->tell};
    bool fine = open_world(&p);
    for (size_t i = 0; fine && i < s->step_count; i++) {
        p.step = &s->steps[i];
        fine = do_step(&p, p.step) && world_settle();
        if (world.fault[0])
            fine = wrong(&p, "%s", world.fault);
    }
    close_world(&p);
}
