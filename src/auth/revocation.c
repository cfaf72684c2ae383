/* The revocation list: who is out although the signature is good. By jti or sub, never by token
 * bytes, which their holder can change without breaking the signature. Owned by the snapshot; reads
 * no file and knows no clock. */
#include "sallyport/auth/revocation.h"

#include "sallyport/auth/claims.h"
#include "sallyport/base/json.h"
#include "sallyport/base/map.h"
#include "sallyport/base/mem.h"

struct revocations {
    unsigned refs;
    struct map *by_jti, *by_sub; /* to the int64_t until which the entry counts */
};

static void
put_entry(struct map *m, const char *key, int64_t until)
{
    int64_t *known = map_get(m, slice_str(key));
    if (known) { /* said twice: the longer one counts */
        if (*known < until)
            *known = until;
        return;
    }
    int64_t *value = mem_alloc(sizeof *value);
    *value = until;
    map_put(m, slice_str(key), value);
}

/* An entry that no token can match is a mistyped one, and its author believes somebody to be out.
 */
static int
check_name(const struct json_at *at, const char *text, bool is_sub, struct err *err)
{
    if (is_sub && !claims_sub_is_valid(slice_str(text)))
        return json_fail(at, err, "expected 1 to 128 of A-Z a-z 0-9 _ -, as a token's sub");
    if (!is_sub && !claims_jti_is_valid(slice_str(text)))
        return json_fail(at, err, "expected 1 to 256 printable ASCII bytes, as a token's jti");
    return 0;
}

static int
read_entry(struct revocations *r, const struct json_at *at, struct err *err)
{
    static const char *const members[] = {"jti", "sub", "until", NULL};
    if (json_want_object(at, err) || json_only_members(at, members, err))
        return -1;
    struct json_at jti_at = json_member(at, "jti"), sub_at = json_member(at, "sub");
    struct json_at until_at = json_member(at, "until");
    const char *jti = NULL, *sub = NULL;
    int64_t until = INT64_MAX;
    if (json_get_string(&jti_at, &jti, err) || json_get_string(&sub_at, &sub, err) ||
        json_get_int(&until_at, 0, CLAIMS_INT_MAX, &until, err))
        return -1;
    if (!jti == !sub)
        return json_fail(at, err, "expected exactly one of \"jti\" and \"sub\"");
    if (check_name(sub ? &sub_at : &jti_at, sub ? sub : jti, sub != NULL, err))
        return -1;
    put_entry(sub ? r->by_sub : r->by_jti, sub ? sub : jti, until);
    return 0;
}

static int
read_list(struct revocations *r, struct slice text, const char *name, struct err *err)
{
    json_auto_t *root = json_read(text, name, 4, err);
    if (!root)
        return -1;
    struct json_at at = json_root(root, name);
    if (json_want_array(&at, err))
        return -1;
    size_t count = json_array_size(root);
    if (count > REVOCATIONS_MAX)
        return json_fail(&at, err, "has %zu entries, at most %d are read", count, REVOCATIONS_MAX);
    for (size_t i = 0; i < count; i++) {
        struct json_at entry = json_element(&at, i);
        if (read_entry(r, &entry, err))
            return -1;
    }
    return 0;
}

struct revocations *
revocations_parse(struct slice json, const char *name, struct err *err)
{
    struct revocations *r = mem_zalloc(sizeof *r);
    r->refs = 1;
    r->by_jti = map_new();
    r->by_sub = map_new();
    if (json.len > 0 && read_list(r, json, name, err)) {
        revocations_unref(r);
        return NULL;
    }
    return r;
}

struct revocations *
revocations_ref(struct revocations *r)
{
    r->refs++;
    return r;
}

void
revocations_unref(struct revocations *r)
{
    if (!r || --r->refs > 0)
        return;
    map_free(r->by_jti, free);
    map_free(r->by_sub, free);
    free(r);
}

static bool
entry_counts(const struct map *m, const char *key, int64_t now_s)
{
    const int64_t *until = key ? map_get(m, slice_str(key)) : NULL;
    return until && now_s <= *until;
}

bool
revocations_has(const struct revocations *r, const struct identity *id, int64_t now_s)
{
    return entry_counts(r->by_jti, id->jti, now_s) || entry_counts(r->by_sub, id->sub, now_s);
}
