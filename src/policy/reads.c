/* The grammar of what reads a registry. A body carries data out to the registry's operator, so only entries that need one
 * take one, of a stated length and type; what could be read in two ways is no read. Immutable after parsing. */
#include "sallyport/policy/reads.h"

#include <stdio.h>
#include <string.h>

#include "sallyport/base/mem.h"
#include "sallyport/policy/pattern.h"

#define PATH_SEEN_MAX 65536 /* a longer path is no read: no head is that large with the default limits */

enum { READ_GET = 1, READ_HEAD = 2, READ_POST = 4 };
static const char *const method_names[] = {"GET", "HEAD", "POST", NULL};

struct read {
    unsigned methods;
    struct pattern *path, *query; /* query NULL: any, and none with a body */
    bool has_body;
    uint64_t body_max;
    char *types[READ_TYPES_MAX];
    size_t type_count;            /* 0: any */
};

struct reads {
    struct read *items;
    size_t count;
};

/* ---- reading the file ---- */

static int
read_methods(struct read *r, const struct json_at *at, struct err *err)
{
    if (!at->value || json_array_size(at->value) == 0)
        return json_fail(at, err, "expected methods that read, [\"GET\", \"HEAD\"] or [\"POST\"]");
    if (json_want_array(at, err) < 0)
        return -1;
    for (size_t i = 0; i < json_array_size(at->value); i++) {
        struct json_at element = json_element(at, i);
        const char *text = NULL;
        size_t m = 0;
        if (json_get_string(&element, &text, err) < 0)
            return -1;
        while (method_names[m] && (!text || strcmp(text, method_names[m]) != 0))
            m++;
        if (!method_names[m])
            return json_fail(&element, err, "is no method that reads; expected GET, HEAD or POST");
        r->methods |= 1u << m;
    }
    return 0;
}

static int
read_pattern(struct pattern **ret, const struct json_at *at, struct err *err)
{
    const char *text = NULL;
    struct err fault = {.kind = ERR_NONE};
    if (json_get_string(at, &text, err) < 0)
        return -1;
    if (!text)
        return json_fail(at, err, "expected a pattern");
    *ret = pattern_compile_whole(slice_str(text), &fault);
    return *ret ? 0 : json_fail(at, err, "%s", fault.text);
}

static int
read_path(struct read *r, const struct json_at *at, struct err *err)
{
    const char *text = NULL;
    if (json_get_string(at, &text, err) < 0)
        return -1;
    if (!text || text[0] != '/')
        return json_fail(at, err, "expected a pattern of the whole path, which begins with /");
    return read_pattern(&r->path, at, err);
}

static bool
is_media_type(const char *text)
{
    const char *slash = strchr(text, '/');
    size_t len = strlen(text);
    return slash && slash > text && slash[1] && !strchr(slash + 1, '/') && len < 100 && strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789.+-_/") == len;
}

static int
read_types(struct read *r, const struct json_at *at, struct err *err)
{
    if (!at->value)
        return 0;
    if (json_want_array(at, err) < 0)
        return -1;
    if (json_array_size(at->value) == 0 || json_array_size(at->value) > READ_TYPES_MAX)
        return json_fail(at, err, "expected 1 to %d media types", READ_TYPES_MAX);
    for (size_t i = 0; i < json_array_size(at->value); i++) {
        struct json_at element = json_element(at, i);
        const char *text = NULL;
        if (json_get_string(&element, &text, err) < 0)
            return -1;
        if (!text || !is_media_type(text))
            return json_fail(&element, err, "expected a media type in lower case, \"application/json\"");
        r->types[r->type_count++] = mem_strdup(text);
    }
    return 0;
}

static int
read_body(struct read *r, const struct json_at *at, struct err *err)
{
    static const char *const members[] = {"max_bytes", "types", NULL};
    struct json_at max = json_member(at, "max_bytes"), types = json_member(at, "types");
    int64_t bytes = READ_BODY_USUAL;
    bool posts = r->methods == READ_POST;
    if (!at->value)
        return posts ? json_fail(at, err, "is missing: a POST without one reads nothing") : 0;
    if (!posts)
        return json_fail(at, err, "only POST has a body to read with (RFC 9110 section 9.3.1); list POST by itself");
    if (json_want_object(at, err) < 0 || json_only_members(at, members, err) < 0 ||
        json_get_int(&max, 1, READ_BODY_MAX, &bytes, err) < 0)
        return -1;
    r->has_body = true;
    r->body_max = (uint64_t)bytes;
    return read_types(r, &types, err);
}

static int
read_entry(struct read *r, const struct json_at *at, struct err *err)
{
    static const char *const members[] = {"methods", "path", "query", "body", "for", NULL};
    struct json_at methods = json_member(at, "methods"), path = json_member(at, "path");
    struct json_at query = json_member(at, "query"), body = json_member(at, "body"), use = json_member(at, "for");
    const char *text = NULL;

    if (json_want_object(at, err) < 0 || json_only_members(at, members, err) < 0 || json_get_string(&use, &text, err) < 0 ||
        read_methods(r, &methods, err) < 0 || read_path(r, &path, err) < 0)
        return -1;
    if ((r->methods & READ_POST) && r->methods != READ_POST)
        return json_fail(&methods, err, "POST has a body and the others have none; list it by itself");
    if (query.value && read_pattern(&r->query, &query, err) < 0)
        return -1;
    return read_body(r, &body, err);
}

struct reads *
reads_parse(const struct json_at *list, struct err *err)
{
    size_t count = json_array_size(list->value); /* 0 of what is no list */
    if (count == 0 || count > READS_MAX) {
        json_fail(list, err, "expected a list of 1 to %d requests that read", READS_MAX);
        return NULL;
    }
    struct reads *r = mem_zalloc(sizeof *r);
    r->items = mem_array(count, sizeof *r->items);
    for (size_t i = 0; i < count; i++) {
        struct json_at element = json_element(list, i);
        if (read_entry(&r->items[r->count++], &element, err) < 0) {
            reads_free(r);
            return NULL;
        }
    }
    return r;
}

void
reads_free(struct reads *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->count; i++) {
        pattern_free(r->items[i].path);
        pattern_free(r->items[i].query);
        for (size_t k = 0; k < r->items[i].type_count; k++)
            free(r->items[i].types[k]);
    }
    free(r->items);
    free(r);
}

/* ---- asking ---- */

void
read_request_init(struct read_request *q, const struct question *question)
{
    static char text[PATH_SEEN_MAX]; /* one thread a process */
    size_t len;
    *q = (struct read_request){.question = question};
    if (!question->path.ptr || question->path.len >= sizeof text)
        return;
    struct slice sent = slice_split(question->path, '?', &q->query);
    if (!path_normalise_marked(question->path, text, &len))
        return;
    q->path = slice_of(text, len);
    q->plain = slice_equal(sent, q->path) && !slice_has_byte(sent, '%');
}

static unsigned
method_bit(struct slice method)
{
    for (size_t i = 0; method_names[i]; i++) {
        if (slice_is(method, method_names[i]))
            return 1u << i;
    }
    return 0;
}

/* A pattern that passes its limits has not matched. */
static bool
takes_path(const struct read *r, const struct read_request *q)
{
    if (!q->path.ptr || (r->has_body && !q->plain) || pattern_match(r->path, q->path) != PATTERN_YES)
        return false;
    if (!r->query)
        return !r->has_body || !q->query.ptr;
    return pattern_match(r->query, q->query.ptr ? q->query : slice_str("")) == PATTERN_YES;
}

static bool
takes_type(const struct read *r, struct slice sent)
{
    struct slice parameters, type = slice_trim_ows(slice_split(sent, ';', &parameters));
    for (size_t i = 0; i < r->type_count; i++) {
        if (sent.ptr && slice_equal_nocase(type, slice_str(r->types[i])))
            return true;
    }
    return r->type_count == 0;
}

/* By kind, not by length. The body of a GET that HTTP/2 leaves open is held to its first byte later. */
static bool
takes_body(const struct read *r, const struct question *q)
{
    if (q->upgrades)
        return false;
    if (!r->has_body)
        return q->body != QUESTION_BODY_SENT;
    return q->body == QUESTION_BODY_NONE || takes_type(r, q->content_type);
}

static void
ask_one(const struct read *r, const struct read_request *q, struct read_answer *ret)
{
    const struct question *asked = q->question;
    bool method = r->methods & method_bit(asked->method);
    bool path = asked->path.ptr ? takes_path(r, q) : !r->has_body; /* not visible: a comparison of policies asks so */
    bool body = takes_body(r, asked);
    bool fits = asked->body != QUESTION_BODY_SENT || asked->body_len == BODY_ANY_LENGTH || asked->body_len <= r->body_max;
    ret->knows_method |= method;
    ret->knows_path |= path;
    ret->too_large |= method && path && body && !fits;
    if (!method || !path || !body || !fits)
        return;
    ret->allowed = true;
    ret->body_max = r->body_max;
}

/* Whatever the path is: what is read where nobody has written down more. */
static void
ask_usual(const struct read_request *q, struct read_answer *ret)
{
    const struct question *asked = q->question;
    ret->knows_path = true;
    if (!(method_bit(asked->method) & (READ_GET | READ_HEAD)))
        return;
    ret->knows_method = true;
    if (asked->body == QUESTION_BODY_SENT || asked->upgrades)
        return;
    ret->allowed = true;
    ret->body_max = 0;
}

void
reads_ask(const struct reads *r, const struct read_request *q, struct read_answer *ret)
{
    if (!r) {
        ask_usual(q, ret);
        return;
    }
    for (size_t i = 0; i < r->count && !ret->allowed; i++)
        ask_one(&r->items[i], q, ret);
}

void
reads_describe(const struct reads *r, char *text, size_t size)
{
    size_t looks = 0, posts = 0;
    uint64_t most = 0;
    for (size_t i = 0; r && i < r->count; i++) {
        looks += !r->items[i].has_body;
        posts += r->items[i].has_body;
        most = r->items[i].body_max > most ? r->items[i].body_max : most;
    }
    int len = snprintf(text, size, looks || !r ? "GET,HEAD" : "");
    if (looks && len > 0 && (size_t)len < size)
        len += snprintf(text + len, size - (size_t)len, " of %zu path pattern%s", looks, looks == 1 ? "" : "s");
    if (posts && len >= 0 && (size_t)len < size)
        snprintf(text + len, size - (size_t)len, "%sPOST of %zu with at most %llu bytes", len ? "; " : "", posts, (unsigned long long)most);
}
