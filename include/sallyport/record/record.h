/* Decision records: one event -> one line of JSON, however hostile its input. CONTRACT section 6. A worker writes a
 * draft; the recorder completes it with seq, prev and hash. */
#ifndef SALLYPORT_RECORD_RECORD_H
#define SALLYPORT_RECORD_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/addr.h"
#include "sallyport/base/buf.h"
#include "sallyport/base/reason.h"
#include "sallyport/base/slice.h"

enum record_event {
    RECORD_NONE = 0, RECORD_RESOLVE, RECORD_DECISION, RECORD_CLOSE, RECORD_CHALLENGE, RECORD_REPEATED, RECORD_RELOAD,
    RECORD_REVOKE, RECORD_START, RECORD_STOP, RECORD_BYPASS, RECORD_CHECKPOINT,
};
enum record_format { RECORD_JSONL = 0, RECORD_OCSF };

#define RECORD_FIELD_MAX 1024   /* bytes of one text before it is cut and flagged `…_truncated` */
#define RECORD_LINE_MAX 32768   /* a finished line, all escapes included */

/* Text members are written only when set (ptr NULL: left out; the members of the contract's example that may be null
 * are written as null in decision and close records). */
struct record {
    enum record_event event;
    int64_t wall_us;
    struct slice id, parent, sandbox, session, org, jti, policy, policy_sha256;
    struct slice client, listener, entry;       /* entry: connect, forward, inspected, transparent, dns */
    struct slice method, scheme, host, path;    /* host canonical, or raw input where there is no canonical form */
    uint16_t port;
    bool allow;                                 /* decision: "allow" or "deny" */
    bool has_decision;                          /* close records of tunnels refused after the 200 */
    bool would_deny;
    enum reason reason;                         /* REASON_UNDECIDED: left out */
    struct slice rule, source;
    const struct addr *addresses;
    size_t address_count;
    bool inspect;
    /* close */
    struct slice address, sni, cause;
    uint16_t status;                            /* 0: left out */
    uint64_t bytes_up, bytes_down;
    int64_t duration_ms;
    /* anything else, as ready JSON members without braces ("\"count\":12,…"); printable ASCII */
    struct slice extra;
};

/* The draft: `"ts":"…"` then `,"event":…` and so on, without braces, seq, prev and hash. False: over the cap. */
bool record_draft(struct buf *out, enum record_format format, const struct record *r);
#define RECORD_TS_LEN 34 /* bytes of `"ts":"2026-11-20T18:08:24.471461Z"` */
/* What makes two refusals "the same" (CONTRACT section 6, repeated): members sandbox or client, reason and host, ready to be
 * put into the `repeated` record. */
bool record_fold_key(struct buf *out, const struct record *r);
const char *record_event_text(enum record_event e);
/* The event of a draft in either format; RECORD_NONE when it is none. What a worker may not say (start, stop, checkpoint,
 * reload, revoke) the recorder refuses by this. */
enum record_event record_draft_event(struct slice draft);
enum record_event record_line_event(struct slice line); /* of a finished line */

#endif
