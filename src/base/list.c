/* Intrusive doubly linked list with a count. Owns no node. */
#include "sallyport/base/list.h"

#include <assert.h>

static void
link_between(struct list *l, struct list_node *n, struct list_node *prev, struct list_node *next)
{
    assert(!list_linked(n));
    n->prev = prev;
    n->next = next;
    prev->next = n;
    next->prev = n;
    l->count++;
}

void
list_append(struct list *l, struct list_node *n)
{
    link_between(l, n, l->head.prev, &l->head);
}

void
list_prepend(struct list *l, struct list_node *n)
{
    link_between(l, n, &l->head, l->head.next);
}

void
list_remove(struct list *l, struct list_node *n)
{
    assert(list_linked(n) && l->count > 0);
    n->prev->next = n->next;
    n->next->prev = n->prev;
    n->prev = n->next = NULL;
    l->count--;
}
