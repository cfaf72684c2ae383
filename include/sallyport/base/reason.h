/* The one closed list of the data path: why a request was refused or failed. Parser, tokens, policy, guard, dial and
 * TLS all speak it; replies, records, metrics and docs/REASONS.md are generated from it (CONTRACT section 5). */
#ifndef SALLYPORT_BASE_REASON_H
#define SALLYPORT_BASE_REASON_H

#include "sallyport/base/slice.h"

/* X(symbol, text, HTTP status, Proxy-Status error (RFC 9209), Proxy-Status reason or NULL, meaning, what to do) */
#include "sallyport/base/reason_list.h"

enum reason {
    REASON_UNDECIDED = 0, /* zero is never "ok": a forgotten verdict is a refusal (reply as REASON_INTERNAL) */
    REASON_OK,
#define X(symbol, ...) REASON_##symbol,
    REASON_LIST(X)
#undef X
    REASON_COUNT
};

const char *reason_text(enum reason r);          /* "host_not_allowed"; "ok" */
int reason_status(enum reason r);                /* 403; 0 where no reply is possible (tunnels) */
const char *reason_proxy_error(enum reason r);   /* "http_request_denied" */
const char *reason_proxy_reason(enum reason r);  /* "not-on-allowlist", or NULL */
const char *reason_meaning(enum reason r);       /* one line for people */
const char *reason_advice(enum reason r);        /* what to do about it */
enum reason reason_from_text(struct slice text); /* REASON_UNDECIDED when unknown */
bool reason_is_denial(enum reason r);            /* refused by a judgement, as opposed to failed */

#endif
