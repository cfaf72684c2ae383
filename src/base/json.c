/* Strict JSON reading over jansson: the depth is checked before jansson recurses, duplicates are
 * refused, and a typed getter's error says file, path and what was expected. Writes no JSON. */
#include "sallyport/base/json.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "sallyport/base/random.h"

#define PATH_MAX_TEXT 256 /* of a JSON path in an error */
#define NAME_MAX_TEXT 64  /* of one member name in an error */
#define WORD_MAX 48       /* the longest word that is compared with known ones */

/* jansson keys its hash tables by itself only through /dev/urandom, which a confined process does
 * not have. */
static void
seed_once(void)
{
    static bool seeded;
    size_t seed;
    if (seeded)
        return;
    seeded = true;
    random_bytes(&seed, sizeof seed);
    json_object_seed(seed ? seed : 1); /* 0 would mean "choose yourself" */
}

/* Brackets outside strings. Where the text is no JSON the count may be off; jansson refuses it
 * then. */
static bool
depth_within(struct slice text, int max_depth)
{
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            if (++depth > max_depth)
                return false;
        } else if (c == ']' || c == '}') {
            depth--;
        }
    }
    return true;
}

/* Bytes of the input inside an error: printable or a question mark. */
static void
make_printable(char *text)
{
    for (; *text; text++) {
        if (*text < 0x20 || *text > 0x7e)
            *text = '?';
    }
}

static json_t *
read_flags(struct slice text, const char *name, int max_depth, size_t flags, struct err *err)
{
    json_error_t fault;
    seed_once();
    if (text.len >= 3 && memcmp(text.ptr, "\xef\xbb\xbf", 3) == 0) {
        err_invalid(err, "%s: line 1 column 1: begins with a byte order mark; expected JSON", name);
        return NULL;
    }
    /* jansson passes over a NUL behind a number: what stands after it would be read as if it were not there. */
    if (slice_has_byte(text, '\0')) {
        err_invalid(err, "%s: holds a NUL byte; expected JSON", name);
        return NULL;
    }
    if (!depth_within(text, max_depth)) {
        err_invalid(err, "%s: arrays and objects are nested deeper than %d", name, max_depth);
        return NULL;
    }
    json_t *value = json_loadb(text.len ? text.ptr : "", text.len, flags, &fault);
    if (!value) {
        make_printable(fault.text);
        err_invalid(err, "%s: line %d column %d: %s", name, fault.line, fault.column, fault.text);
    }
    return value;
}

json_t *
json_read(struct slice text, const char *name, int max_depth, struct err *err)
{
    return read_flags(text, name, max_depth, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, err);
}

json_t *
json_read_record(struct slice text, const char *name, int max_depth, struct err *err)
{
    return read_flags(text, name, max_depth, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, err);
}

struct json_at
json_root(const json_t *value, const char *file)
{
    return (struct json_at){.value = value, .file = file};
}

struct json_at
json_member(const struct json_at *object, const char *name)
{
    return (struct json_at){
        .value = json_object_get(object->value, name), .name = name, .parent = object};
}

struct json_at
json_element(const struct json_at *array, size_t index)
{
    return (struct json_at){
        .value = json_array_get(array->value, index), .index = index, .parent = array};
}

/* Appends ".name" or "[3]" from the root down; what does not fit is left out. */
static size_t
write_path(const struct json_at *at, char *text, size_t size)
{
    if (!at->parent) {
        text[0] = '\0';
        return 0;
    }
    size_t len = write_path(at->parent, text, size);
    int more = at->name ? snprintf(text + len, size - len, "%s%.*s", len ? "." : "", NAME_MAX_TEXT,
                                   at->name)
                        : snprintf(text + len, size - len, "[%zu]", at->index);
    len += more > 0 ? (size_t)more : 0;
    return len < size ? len : size - 1;
}

static const char *
file_of(const struct json_at *at)
{
    while (at->parent)
        at = at->parent;
    return at->file ? at->file : "JSON";
}

int
json_fail(const struct json_at *at, struct err *err, const char *fmt, ...)
{
    char path[PATH_MAX_TEXT];
    va_list args;
    write_path(at, path, sizeof path);
    make_printable(path);
    int len =
        snprintf(err->text, sizeof err->text, "%s: %s%s", file_of(at), path, path[0] ? ": " : "");
    size_t used = len > 0 && (size_t)len < sizeof err->text ? (size_t)len : sizeof err->text - 1;
    va_start(args, fmt);
    vsnprintf(err->text + used, sizeof err->text - used, fmt, args);
    va_end(args);
    err->kind = ERR_INVALID;
    return -1;
}

static const char *
type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number with a fraction or exponent";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        return "null";
    }
    return "something else";
}

static int
fail_type(const struct json_at *at, const char *expected, struct err *err)
{
    return json_fail(at, err, "expected %s, found %s", expected, type_name(at->value));
}

static bool
is_known(const char *name, const char *const *names)
{
    for (; *names; names++) {
        if (strcmp(name, *names) == 0)
            return true;
    }
    return false;
}

int
json_only_members(const struct json_at *object, const char *const *names, struct err *err)
{
    json_t *value = (json_t *)(uintptr_t)object->value; /* jansson's iterators are not const */
    for (void *i = json_object_iter(value); i; i = json_object_iter_next(value, i)) {
        const char *name = json_object_iter_key(i);
        if (is_known(name, names))
            continue;
        char shown[NAME_MAX_TEXT + 1];
        snprintf(shown, sizeof shown, "%s", name);
        make_printable(shown);
        const char *near = nearest_word(name, names);
        if (near)
            return json_fail(object, err, "unknown key \"%s\"; did you mean \"%s\"?", shown, near);
        return json_fail(object, err, "unknown key \"%s\"", shown);
    }
    return 0;
}

int
json_get_string(const struct json_at *at, const char **ret, struct err *err)
{
    if (!at->value || json_is_null(at->value))
        return 0;
    if (!json_is_string(at->value))
        return fail_type(at, "a string", err);
    const char *text = json_string_value(at->value);
    if (strlen(text) != json_string_length(at->value))
        return json_fail(at, err, "expected a string without NUL");
    *ret = text;
    return 0;
}

int
json_get_bool(const struct json_at *at, bool *ret, struct err *err)
{
    if (!at->value)
        return 0;
    if (!json_is_boolean(at->value))
        return fail_type(at, "true or false", err);
    *ret = json_is_true(at->value);
    return 0;
}

int
json_get_int(const struct json_at *at, int64_t min, int64_t max, int64_t *ret, struct err *err)
{
    if (!at->value)
        return 0;
    if (!json_is_integer(at->value))
        return fail_type(at, "an integer", err);
    int64_t value = json_integer_value(at->value);
    if (value < min || value > max)
        return json_fail(at, err, "expected an integer from %lld to %lld, found %lld",
                         (long long)min, (long long)max, (long long)value);
    *ret = value;
    return 0;
}

int
json_want_object(const struct json_at *at, struct err *err)
{
    if (!at->value || (json_is_null(at->value) && at->parent) || json_is_object(at->value))
        return 0;
    return fail_type(at, "an object", err);
}

int
json_want_array(const struct json_at *at, struct err *err)
{
    if (!at->value || json_is_array(at->value))
        return 0;
    return fail_type(at, "an array", err);
}

/* Edit distance with neighbours swapped counted as one (the usual slips of typing). Both at most
 * WORD_MAX long. */
static size_t
edit_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t rows[3][WORD_MAX + 1];
    size_t *before = rows[0], *last = rows[1], *row = rows[2];
    for (size_t j = 0; j <= b_len; j++)
        last[j] = before[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t best = last[j - 1] + (a[i - 1] != b[j - 1]);
            best = last[j] + 1 < best ? last[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            row[j] = best;
        }
        size_t *oldest = before;
        before = last;
        last = row;
        row = oldest;
    }
    return last[b_len];
}

const char *
nearest_word(const char *word, const char *const *names)
{
    size_t len = strlen(word), best = SIZE_MAX;
    const char *near = NULL;
    if (len == 0 || len > WORD_MAX)
        return NULL;
    for (; *names; names++) {
        size_t name_len = strlen(*names);
        if (name_len > WORD_MAX)
            continue;
        size_t distance = edit_distance(word, len, *names, name_len);
        if (distance < best) {
            best = distance;
            near = *names;
        }
    }
    /* A quarter of the word wrong, and one more, is a slip; beyond that it is another word. */
    return best <= (len < 4 ? 1 : 1 + len / 4) ? near : NULL;
}
