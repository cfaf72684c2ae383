/* Comparing what happened with what the scenario says, and the invariants that hold in every one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fakes/play.h"
#include "sallyport/base/mem.h"

bool
match_bytes(struct slice pattern, struct slice bytes)
{
    static const char any[] = "{*}";
    bool first = true;
    for (;;) {
        const char *star = memmem(pattern.ptr, pattern.len, any, 3);
        size_t len = star ? (size_t)(star - pattern.ptr) : pattern.len;
        const char *at;
        if (first)
            at = bytes.len >= len && memcmp(bytes.ptr, pattern.ptr, len) == 0 ? bytes.ptr : NULL;
        else if (!star)
            at = bytes.len >= len && memcmp(bytes.ptr + bytes.len - len, pattern.ptr, len) == 0
                     ? bytes.ptr + bytes.len - len
                     : NULL;
        else
            at = memmem(bytes.ptr, bytes.len, pattern.ptr, len);
        if (!at)
            return false;
        if (!star)
            return at + len == bytes.ptr + bytes.len;
        bytes = slice_of(at + len, (size_t)(bytes.ptr + bytes.len - at) - len);
        pattern = slice_of(star + 3, pattern.len - len - 3);
        first = false;
    }
}

/* How a body is cut into chunks depends on how it arrived; what it says does not. */
char *
join_chunks(struct slice bytes, size_t *ret_len)
{
    const char *end = bytes.ptr + bytes.len,
               *head_end = memmem(bytes.ptr, bytes.len, "\r\n\r\n", 4), *p = bytes.ptr;
    struct buf data, out;
    unsigned long n = 1;
    buf_init(&data, bytes.len + 1);
    buf_init(&out, bytes.len + 64);
    if (head_end && memchr("GPH", bytes.ptr[0], 3)) {
        p = head_end + 4;
        buf_append(&out, bytes.ptr, (size_t)(p - bytes.ptr));
    }
    while (p < end && n > 0) {
        char *rest;
        n = strtoul(p, &rest, 16);
        if (rest == p || rest + 2 > end || (size_t)(end - rest) < n + 4)
            break;
        buf_append(&data, rest + 2, n);
        p = rest + 2 + n + 2;
    }
    if (buf_len(&data))
        buf_printf(&out, "%zx\r\n%.*s\r\n", buf_len(&data), SLICE_ARG(buf_slice(&data)));
    if (n == 0)
        buf_append_str(&out, "0\r\n\r\n");
    if (p < end)
        buf_append(&out, p, (size_t)(end - p));
    buf_done(&data);
    *ret_len = buf_len(&out);
    return out.data;
}

void
show_bytes(struct slice bytes, char *out, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < bytes.len && n + 8 < size; i++) {
        unsigned char c = (unsigned char)bytes.ptr[i];
        if (c == '\n')
            n += (size_t)snprintf(out + n, size - n, "\\n\n    ");
        else if (c == '\r')
            n += (size_t)snprintf(out + n, size - n, "\\r");
        else if (c >= 0x20 && c < 0x7f)
            out[n++] = (char)c;
        else
            n += (size_t)snprintf(out + n, size - n, "\\x%02x", c);
    }
    out[n] = '\0';
}

static void
value_text(const json_t *v, char *out, size_t size)
{
    out[0] = '\0';
    if (json_is_string(v))
        snprintf(out, size, "%s", json_string_value(v));
    else if (json_is_integer(v))
        snprintf(out, size, "%lld", (long long)json_integer_value(v));
    else if (json_is_boolean(v))
        snprintf(out, size, "%s", json_is_true(v) ? "true" : "false");
    else if (json_is_null(v))
        snprintf(out, size, "null");
    for (size_t i = 0; json_is_array(v) && i < json_array_size(v); i++) {
        char item[256];
        value_text(json_array_get(v, i), item, sizeof item);
        size_t n = strlen(out);
        snprintf(out + n, size - n, "%s%s", i ? "," : "", item);
    }
}

bool
match_member(const json_t *record, const char *word)
{
    char name[64], text[2048];
    if (word[0] == '-') {
        const json_t *v = json_object_get(record, word + 1);
        return !v || json_is_null(v);
    }
    const char *eq = strchr(word, '=');
    if (!eq || (size_t)(eq - word) >= sizeof name)
        return false;
    memcpy(name, word, (size_t)(eq - word));
    name[eq - word] = '\0';
    const json_t *v = json_object_get(record, name);
    if (!v)
        return false;
    value_text(v, text, sizeof text);
    return match_bytes(slice_str(eq + 1), slice_str(text));
}

static bool
match_record_line(const char *json, const char *line)
{
    char copy[1024], event[64];
    snprintf(copy, sizeof copy, "%s", line);
    json_t *record = json_loads(json, JSON_ALLOW_NUL, NULL);
    char *save, *word = strtok_r(copy, " ", &save);
    bool ok = record && word;
    if (ok) {
        snprintf(event, sizeof event, "event=%s", word);
        ok = match_member(record, event);
    }
    while (ok && (word = strtok_r(NULL, " ", &save)) != NULL)
        ok = match_member(record, word);
    json_decref(record);
    return ok;
}

bool
match_effect(const struct effect *e, const char *line)
{
    static const struct {
        enum effect_kind kind;
        const char *word;
    } words[] = {
        {EFFECT_QUERY, "query "},
        {EFFECT_DIAL, "dial "},
        {EFFECT_UPSTREAM, "upstream "},
        {EFFECT_CLIENT, "client "},
    };
    if (strncmp(line, "record ", 7) == 0)
        return e->kind == EFFECT_RECORD && match_record_line(e->text, line + 7);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strncmp(line, words[i].word, strlen(words[i].word)) == 0)
            return e->kind == words[i].kind && strcmp(e->text, line + strlen(words[i].word)) == 0;
    return false;
}

/* ---- the proxy's own reply ---- */

static bool
field_value(const char *head, const char *name, char *out, size_t size)
{
    size_t len = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line && line[2]; line = strstr(line + 2, "\r\n"))
        if (strncasecmp(line + 2, name, len) == 0 && line[2 + len] == ':') {
            const char *value = line + 3 + len + strspn(line + 3 + len, " ");
            snprintf(out, size, "%.*s", (int)strcspn(value, "\r"), value);
            return true;
        }
    return false;
}

static bool
body_in_order(const char *body, int status, const char *reason)
{
    json_t *v = json_loads(body, 0, NULL);
    const char *said = json_string_value(json_object_get(v, "reason"));
    bool ok = said && strcmp(said, reason) == 0 &&
              json_integer_value(json_object_get(v, "status")) == status &&
              json_string_length(json_object_get(v, "detail")) > 0;
    json_decref(v);
    return ok;
}

void
check_reply(struct slice reply, int status, const char *reason, bool body, char *wrong, size_t size)
{
    char *text = mem_dup_slice(reply), line[256], value[512];
    char *end = strstr(text, "\r\n\r\n");
    snprintf(line, sizeof line, "HTTP/1.1 %d Egress %s: %s\r\n", status,
             status < 500 ? "denied" : "failed", reason);
    wrong[0] = '\0';
    if (strncmp(text, line, strlen(line)) != 0)
        snprintf(wrong, size, "the status line is not \"%.*s\"", (int)strcspn(line, "\r"), line);
    else if (!end || strlen(text) != reply.len)
        snprintf(wrong, size, "the head does not end, or there is a NUL");
    else if (!field_value(text, "x-deny-reason", value, sizeof value) || strcmp(value, reason) != 0)
        snprintf(wrong, size, "x-deny-reason is not %s", reason);
    else if (!field_value(text, "proxy-status", value, sizeof value) ||
             strncmp(value, "sallyport; error=", 17) != 0)
        snprintf(wrong, size, "Proxy-Status is missing");
    else if (!field_value(text, "content-type", value, sizeof value) ||
             strcmp(value, "application/problem+json") != 0)
        snprintf(wrong, size, "the content type is not application/problem+json");
    else if (!field_value(text, "content-length", value, sizeof value) ||
             (body && strtoul(value, NULL, 10) != strlen(end + 4)))
        snprintf(wrong, size, "Content-Length is not the length of the body");
    else if (status == 407 && (!strstr(text, "Basic realm=\"sallyport\"") ||
                               !strcasestr(text, "\r\nproxy-authenticate: Bearer")))
        snprintf(wrong, size, "407 without both challenges");
    else if (body && !body_in_order(end + 4, status, reason))
        snprintf(wrong, size, "the body does not say status, reason and detail");
    else if (!body && end[4])
        snprintf(wrong, size, "there is a body");
    free(text);
}

/* ---- invariants ---- */

#define RECORDS_MAX 1024

struct seen {
    json_t *record;
    const char *id;
    bool decision, allow, close;
    uint64_t ticket;
};

struct ledger {
    struct seen seen[RECORDS_MAX];
    size_t count;
    uint64_t kept;
    char *wrong;
    size_t size;
};

static const char *
member(const json_t *record, const char *name)
{
    const char *s = json_string_value(json_object_get(record, name));
    return s ? s : "";
}

static void
enter_record(struct ledger *l, const struct effect *e)
{
    json_t *r = json_loads(e->text, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    if (!r || l->count == RECORDS_MAX) {
        snprintf(l->wrong, l->size, "a record is not JSON: %.200s", e->text);
        json_decref(r);
        return;
    }
    struct seen *s = &l->seen[l->count++];
    const char *event = member(r, "event");
    *s = (struct seen){.record = r, .id = member(r, "id"), .ticket = e->ticket};
    s->decision = strcmp(event, "decision") == 0;
    s->close = strcmp(event, "close") == 0;
    s->allow = s->decision && strcmp(member(r, "decision"), "allow") == 0;
    for (const char *p = e->text; *p; p++)
        if (*p < 0x20 || *p > 0x7e)
            snprintf(l->wrong, l->size, "a record has a byte outside printable ASCII: %.200s",
                     e->text);
    if (strstr(e->text, "eyJ"))
        snprintf(l->wrong, l->size, "a record holds a token: %.200s", e->text);
}

static bool
names_address(const json_t *record, const struct addr *a)
{
    char text[ADDR_TEXT_SIZE];
    const json_t *list = json_object_get(record, "addresses");
    addr_format(a, text);
    for (size_t i = 0; i < json_array_size(list); i++)
        if (strcmp(json_string_value(json_array_get(list, i)), text) == 0)
            return true;
    return false;
}

static void
check_query(struct ledger *l, const char *name)
{
    for (size_t i = 0; i < l->count; i++)
        if (strcmp(member(l->seen[i].record, "event"), "resolve") == 0 &&
            strcmp(member(l->seen[i].record, "host"), name) == 0)
            return;
    snprintf(l->wrong, l->size, "a query for %s left before its resolve record was handed over",
             name);
}

static void
check_dial(struct ledger *l, const struct effect *e, bool upstream)
{
    const struct seen *s = NULL;
    for (size_t i = 0; i < l->count && !s; i++)
        if (l->seen[i].allow && names_address(l->seen[i].record, &e->addr))
            s = &l->seen[i];
    if (!s)
        snprintf(l->wrong, l->size,
                 "%s %s without a decision record before it that allows the address",
                 upstream ? "bytes to" : "a dial to", e->text);
    else if (upstream && s->ticket > l->kept)
        snprintf(l->wrong, l->size, "a byte went to %s before the decision record was kept",
                 e->text);
}

static void
check_pairs(struct ledger *l)
{
    for (size_t i = 0; i < l->count; i++) {
        size_t decisions = 0, closes = 0;
        if (!l->seen[i].decision && !l->seen[i].close)
            continue;
        for (size_t k = 0; k < l->count; k++)
            if (strcmp(l->seen[k].id, l->seen[i].id) == 0) {
                decisions += l->seen[k].decision;
                closes += l->seen[k].close;
            }
        /* Who leaves while a name is looked up leaves before the decision. */
        const char *cause = member(l->seen[i].record, "cause");
        bool left = strcmp(cause, "client_aborted") == 0 || strcmp(cause, "shutdown") == 0;
        if ((decisions != 1 && !(left && decisions == 0)) || closes > 1 ||
            (l->seen[i].allow && closes != 1))
            snprintf(l->wrong, l->size, "exchange %s has %zu decision and %zu close records",
                     l->seen[i].id, decisions, closes);
    }
}

void
check_effects(const struct staged *st, char *wrong, size_t size)
{
    struct ledger l = {.wrong = wrong, .size = size};
    for (size_t i = 0; i < world.effect_count && !wrong[0]; i++) {
        const struct effect *e = &world.effects[i];
        switch (e->kind) {
        case EFFECT_RECORD:
            enter_record(&l, e);
            break;
        case EFFECT_KEPT:
            l.kept = e->ticket;
            break;
        case EFFECT_QUERY:
            check_query(&l, e->text);
            break;
        case EFFECT_DIAL:
            if (!st->chained)
                check_dial(&l, e, false);
            break;
        case EFFECT_UPSTREAM:
            if (!st->chained && !st->buffered)
                check_dial(&l, e, true);
            break;
        case EFFECT_CLIENT:
            break;
        }
    }
    if (!wrong[0])
        check_pairs(&l);
    for (size_t i = 0; i < l.count; i++)
        json_decref(l.seen[i].record);
}
