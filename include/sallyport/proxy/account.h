/* An exchange's records and counters: what is said about it, in one place. */
#ifndef SALLYPORT_PROXY_ACCOUNT_H
#define SALLYPORT_PROXY_ACCOUNT_H

#include "sallyport/proxy/exchange.h"

/* All return the record's ticket, 0 when it could not be taken. */
uint64_t account_resolve(struct exchange *x);
uint64_t account_decision(struct exchange *x, enum reason reason);
uint64_t account_close(struct exchange *x, const char *cause); /* static text */

#endif
