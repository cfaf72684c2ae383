/* Long lists of hosts, read without a JSON value an entry: 100,000 entries would cost 15 MB and most of the loading time as
 * values. A list that is nothing but plain strings is cut out before the JSON reader sees the document, which gets a mark
 * that no document can forge in its place; every other list is left alone. */
#ifndef SALLYPORT_POLICY_BULK_H
#define SALLYPORT_POLICY_BULK_H

#include <jansson.h>
#include <stdbool.h>

#include "sallyport/base/slice.h"

#define BULK_LISTS_MAX 8
#define BULK_ENTRIES_MIN 1024 /* a shorter list is the JSON reader's */

struct bulk {
    char *text;      /* the document without the lists; NULL when nothing was cut */
    size_t len;
    char key[33];    /* random: names the marks */
    struct slice lists[BULK_LISTS_MAX]; /* between the brackets; bytes of the document */
    size_t count;
};

/* Cuts lists of at least min_entries. `json` must outlive what is returned. Free with bulk_done. */
void bulk_cut(struct slice json, size_t min_entries, struct bulk *ret);
void bulk_done(struct bulk *b);
/* Is this array a mark? Then *ret_list is its list. */
bool bulk_find(const struct bulk *b, const json_t *array, struct slice *ret_list);
/* The next entry, out of a list that bulk_find returned. */
bool bulk_next(struct slice *list, struct slice *ret_entry);

#endif
