/* What reads a registry and writes nothing: the grammar of its read endpoints in the dated data file (registries.json,
 * "reads"). A request is a read when one of the group's entries takes its method, its whole path, its query and its body. */
#ifndef SALLYPORT_POLICY_READS_H
#define SALLYPORT_POLICY_READS_H

#include "sallyport/base/json.h"
#include "sallyport/policy/decide.h"

#define READS_MAX 64                   /* entries of one group */
#define READ_TYPES_MAX 8               /* media types of one body */
#define READ_BODY_USUAL (1u << 20)     /* bytes of a body that has no limit of its own */
#define READ_BODY_MAX (16u << 20)      /* what "max_bytes" may say */

/* A question with its path in the form that patterns are held to. */
struct read_request {
    const struct question *question;
    struct slice path;  /* ptr NULL: not visible, or without a single reading */
    struct slice query; /* as sent; ptr NULL: none */
    bool plain;         /* the path was sent in that very form, without any escape */
};

/* What the entries that were asked say together. */
struct read_answer {
    bool allowed;
    uint64_t body_max;                      /* with `allowed` */
    bool knows_method, knows_path, too_large; /* what some entry takes; too_large: all but the length of the body */
};

struct reads;

/* The list of entries: [{"methods": […], "path": …, "query": …, "body": {…}}]. */
struct reads *reads_parse(const struct json_at *list, struct err *err);
void reads_free(struct reads *r); /* NULL is fine */
void read_request_init(struct read_request *q, const struct question *question);
/* Adds to *ret what this group says; NULL is a registry without a grammar: GET and HEAD without a body. */
void reads_ask(const struct reads *r, const struct read_request *q, struct read_answer *ret);
/* "GET,HEAD in 4 forms; POST in 1, with at most 1048576 bytes". */
void reads_describe(const struct reads *r, char *text, size_t size);

#endif
