/* Intrusive doubly linked list. A zeroed node is in no list. */
#ifndef SALLYPORT_BASE_LIST_H
#define SALLYPORT_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list_node {
    struct list_node *prev, *next;
};
struct list {
    struct list_node head;
    size_t count;
};

#define list_entry(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

static inline void list_init(struct list *l) { l->head.prev = l->head.next = &l->head; l->count = 0; }
static inline bool list_empty(const struct list *l) { return l->count == 0; }
static inline bool list_linked(const struct list_node *n) { return n->next != NULL; }
static inline struct list_node *list_first(const struct list *l) { return l->count ? l->head.next : NULL; }
static inline struct list_node *list_last(const struct list *l) { return l->count ? l->head.prev : NULL; }
static inline struct list_node *list_next(const struct list *l, const struct list_node *n) { return n->next == &l->head ? NULL : n->next; }
void list_append(struct list *l, struct list_node *n);
void list_prepend(struct list *l, struct list_node *n);
void list_remove(struct list *l, struct list_node *n); /* n must be in l */

#endif
