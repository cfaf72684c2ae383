/* The steps of the pipeline that wait for nothing, in their order. Each fills in its part of the exchange or says why not. */
#ifndef SALLYPORT_PROXY_REQUEST_H
#define SALLYPORT_PROXY_REQUEST_H

#include "sallyport/proxy/exchange.h"

/* The target as sent of a head that could not be read, for its record; ptr NULL when there is none to show. */
struct slice target_of_unread(struct slice head);
enum reason read_request(struct exchange *x, struct slice head);   /* bytes -> x->head, x->kind */
enum reason make_out_target(struct exchange *x);                   /* -> x->target, x->path; holds Host to it */
enum reason make_out_inner_target(struct exchange *x);             /* the same inside an inspected tunnel */
enum reason read_call(struct exchange *x, const struct h2_head *head); /* the same from a block of HTTP/2 -> x->head, x->path */
void question_of(const struct exchange *x, struct question *ret);   /* what the policy is asked; while x->ask is there */
enum reason judge_content(struct exchange *x, uint64_t more);      /* bytes of the request's content have come */
enum reason decide(struct exchange *x);                            /* the policy's verdict -> x->verdict, x->inspect */
enum reason admit(struct exchange *x);                             /* records, budgets, draining */

#endif
