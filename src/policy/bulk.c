/* Cutting long lists of hosts out of a document. It understands just enough JSON to find a list of plain strings behind a
 * known key and takes it only when all of it is that; whatever is odd stays where it is, for the JSON reader to judge. */
#include "sallyport/policy/bulk.h"

#include <stdio.h>

#include "sallyport/base/encoding.h"
#include "sallyport/base/mem.h"
#include "sallyport/base/random.h"

static const char *const keys[] = {"allowed_hosts", "blocked_hosts", "hosts", "passthrough"};
#define KEY_COUNT (sizeof keys / sizeof keys[0])
#define MARK_MAX 64 /* bytes of {"KEY":N} */

static const char *
skip_blanks(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r'))
        p++;
    return p;
}

/* p behind the quote that opens; the quote that closes, or NULL. *ret_plain: printable ASCII without escapes. */
static const char *
string_end(const char *p, const char *end, bool *ret_plain)
{
    *ret_plain = true;
    for (; p < end && *p != '"'; p++) {
        *ret_plain &= *p >= 0x20 && *p <= 0x7e && *p != '\\';
        if (*p == '\\' && ++p == end)
            return NULL;
    }
    return p < end ? p : NULL;
}

/* p behind the bracket that opens; the bracket that closes, or NULL when it is no list of plain strings. */
static const char *
list_end(const char *p, const char *end, size_t *ret_count, size_t *ret_lines)
{
    size_t count = 0, lines = 0;
    for (;;) {
        bool plain;
        const char *start = p;
        p = skip_blanks(p, end);
        if (p == end || *p != '"' || !(p = string_end(p + 1, end, &plain)) || !plain)
            return NULL;
        p = skip_blanks(p + 1, end);
        count++;
        for (const char *q = start; (q = memchr(q, '\n', (size_t)(p - q))); q++)
            lines++;
        if (p == end || (*p != ',' && *p != ']'))
            return NULL;
        if (*p++ == ']')
            break;
    }
    *ret_count = count;
    *ret_lines = lines;
    return p - 1;
}

static bool
is_key(struct slice s)
{
    for (size_t i = 0; i < KEY_COUNT; i++) {
        if (slice_is(s, keys[i]))
            return true;
    }
    return false;
}

static void
append(struct bulk *b, size_t *size, const char *from, size_t len)
{
    if (*size - b->len < len) {
        *size = (b->len + len) * 2;
        b->text = mem_realloc(b->text, *size);
    }
    memcpy(b->text + b->len, from, len);
    b->len += len;
}

/* The mark, and as many line ends as the list had, so that errors behind it name the right line. */
static void
append_mark(struct bulk *b, size_t *size, size_t lines)
{
    char mark[MARK_MAX];
    int n = snprintf(mark, sizeof mark, "{\"%s\":%zu}", b->key, b->count);
    append(b, size, mark, (size_t)n);
    while (lines-- > 0)
        append(b, size, "\n", 1);
}

struct cutting {
    struct bulk *b;
    size_t size, min_entries;
    const char *done; /* what stands before it has been copied or cut */
    const char *end;
};

/* Behind a known key, which ended at `quote`: when a long plain list follows, it is cut. Returns where to go on. */
static const char *
cut_list(struct cutting *c, const char *quote)
{
    struct bulk *b = c->b;
    const char *end = c->end;
    size_t count, lines;
    const char *p = skip_blanks(quote + 1, end);
    if (p == end || *p != ':' || b->count == BULK_LISTS_MAX)
        return quote + 1;
    p = skip_blanks(p + 1, end);
    if (p == end || *p != '[')
        return quote + 1;
    const char *list = p + 1, *close = list_end(list, end, &count, &lines);
    if (!close || count < c->min_entries)
        return quote + 1;
    append(b, &c->size, c->done, (size_t)(list - c->done));
    append_mark(b, &c->size, lines);
    b->lists[b->count++] = slice_of(list, (size_t)(close - list));
    c->done = close;
    return close;
}

void
bulk_cut(struct slice json, size_t min_entries, struct bulk *ret)
{
    const char *end = json.ptr + json.len, *p = json.ptr;
    struct cutting c = {.b = ret, .min_entries = min_entries, .done = json.ptr, .end = end};
    unsigned char random[16];
    bool plain;

    *ret = (struct bulk){.text = NULL};
    if (json.len < min_entries * 3) /* an entry is two quotes and a comma at least */
        return;
    random_bytes(random, sizeof random);
    hex_encode(random, sizeof random, ret->key);
    while (p < end && (p = memchr(p, '"', (size_t)(end - p)))) {
        const char *quote = string_end(p + 1, end, &plain);
        if (!quote)
            break;
        p = plain && is_key(slice_of(p + 1, (size_t)(quote - p - 1))) ? cut_list(&c, quote) : quote + 1;
    }
    if (ret->count > 0)
        append(ret, &c.size, c.done, (size_t)(end - c.done));
}

void
bulk_done(struct bulk *b)
{
    free(b->text);
    b->text = NULL;
}

bool
bulk_find(const struct bulk *b, const json_t *array, struct slice *ret_list)
{
    if (!b || b->count == 0 || json_array_size(array) != 1)
        return false;
    const json_t *mark = json_object_get(json_array_get(array, 0), b->key);
    if (!json_is_integer(mark) || json_integer_value(mark) >= (json_int_t)b->count)
        return false;
    *ret_list = b->lists[json_integer_value(mark)];
    return true;
}

bool
bulk_next(struct slice *list, struct slice *ret_entry)
{
    const char *end = list->ptr + list->len, *open = list->len ? memchr(list->ptr, '"', list->len) : NULL;
    if (!open)
        return false;
    const char *close = memchr(open + 1, '"', (size_t)(end - open - 1)); /* plain strings: no escapes */
    *ret_entry = slice_of(open + 1, (size_t)(close - open - 1));
    *list = slice_of(close + 1, (size_t)(end - close - 1));
    return true;
}
