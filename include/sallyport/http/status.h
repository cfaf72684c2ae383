/* The proxy's own replies: from a reason to bytes (CONTRACT section 5). */
#ifndef SALLYPORT_HTTP_STATUS_H
#define SALLYPORT_HTTP_STATUS_H

#include <stdbool.h>

#include "sallyport/base/buf.h"
#include "sallyport/base/reason.h"
#include "sallyport/http/target.h"

struct reply_facts {
    enum reason reason;
    const struct target *target;  /* NULL when none was made out */
    const char *rule;             /* which rule refused, e.g. "blocked_hosts[0]"; NULL */
    const char *instance;         /* exchange id; NULL */
    const char *detail;           /* more than reason_meaning can say (never addresses or other hosts); NULL */
    bool head_request;            /* no body */
    bool close;                   /* "Connection: close" */
    uint32_t retry_after_s;       /* for 429 and 503; 0: none */
};

/* Status line with "Egress denied: …"/"Egress failed: …", x-deny-reason, Proxy-Status, problem+json body with a length. */
bool reply_write(struct buf *out, const struct reply_facts *facts);
const char *status_phrase(int status); /* standard phrase, "Unknown" otherwise */

#endif
