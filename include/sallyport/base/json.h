/* Reading JSON (RFC 8259) by jansson, strictly: no duplicate members, no NUL, a depth cap, and errors that carry the
 * file and the JSON path ("policy.json: networking.allowed_hosts[2]: …"). */
#ifndef SALLYPORT_BASE_JSON_H
#define SALLYPORT_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/err.h"
#include "sallyport/base/slice.h"

/* New reference, or NULL with err set (line and column in it). max_depth counts nested arrays and objects. */
json_t *json_read(struct slice text, const char *name, int max_depth, struct err *err);
/* The same, but \u0000 may stand in string values: decision records, which hold what clients sent. Such strings are read with
 * their length (json_string_length). */
json_t *json_read_record(struct slice text, const char *name, int max_depth, struct err *err);

/* A value and where it stands, for errors. */
struct json_at {
    const json_t *value;           /* borrowed; NULL when the member is absent */
    const char *name;              /* member name; NULL for an array element or the root */
    size_t index;                  /* of an array element */
    const struct json_at *parent;  /* NULL for the root */
    const char *file;              /* for the root */
};

struct json_at json_root(const json_t *value, const char *file);
struct json_at json_member(const struct json_at *object, const char *name); /* value NULL when absent */
struct json_at json_element(const struct json_at *array, size_t index);
/* Every member of the object must be in names (NULL-terminated); the error names the nearest known key. */
int json_only_members(const struct json_at *object, const char *const *names, struct err *err);
/* Writes "FILE: a.b[3]: " and the message. Returns -1. */
int json_fail(const struct json_at *at, struct err *err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Typed getters: an absent member (value NULL) leaves *ret alone and is 0; the wrong type is an error that says which
 * was expected. null counts as absent for strings and objects. */
int json_get_string(const struct json_at *at, const char **ret, struct err *err); /* borrowed; no NUL inside */
int json_get_bool(const struct json_at *at, bool *ret, struct err *err);
int json_get_int(const struct json_at *at, int64_t min, int64_t max, int64_t *ret, struct err *err);
int json_want_object(const struct json_at *at, struct err *err);
int json_want_array(const struct json_at *at, struct err *err);
/* The nearest of names to word by edit distance, or NULL when none is near. */
const char *nearest_word(const char *word, const char *const *names);

#endif
