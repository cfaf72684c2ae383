/* The server's side of DNS (RFC 1035): reading one query and writing its answer. Pure functions over bytes. */
#ifndef SALLYPORT_NET_DNS_QUERY_H
#define SALLYPORT_NET_DNS_QUERY_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/addr.h"
#include "sallyport/base/buf.h"

#define DNS_NAME_TEXT 256
#define DNS_TYPE_A 1
#define DNS_TYPE_AAAA 28

enum dns_rcode { DNS_NOERROR = 0, DNS_FORMERR = 1, DNS_SERVFAIL = 2, DNS_NXDOMAIN = 3, DNS_NOTIMP = 4, DNS_REFUSED = 5 };

struct dns_query {
    uint16_t id, type, class_;
    bool recursion_desired;
    char name[DNS_NAME_TEXT];     /* dotted, as asked, without the root dot; bytes that are no host name's make it unreadable */
    unsigned char question[DNS_NAME_TEXT + 8]; /* as asked, for the answer */
    size_t question_len;
};

/* DNS_NOERROR: *ret is filled. DNS_FORMERR, DNS_NOTIMP: say so in an answer. -1: not a query, to be dropped. */
int dns_query_read(struct slice msg, struct dns_query *ret);
/* An answer with at most one address; NULL: none (NODATA with DNS_NOERROR). */
bool dns_reply_write(struct buf *out, const struct dns_query *q, enum dns_rcode rcode, const struct addr *address, uint32_t ttl_s);

#endif
