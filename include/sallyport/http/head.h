/* Request and response heads of HTTP/1.x (RFC 9112), over llhttp behind a strict byte check. Ambiguity is refused,
 * never repaired. Plain functions over bytes: no sockets, no time. */
#ifndef SALLYPORT_HTTP_HEAD_H
#define SALLYPORT_HTTP_HEAD_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/arena.h"
#include "sallyport/base/reason.h"
#include "sallyport/base/slice.h"

#define HEAD_FIELDS_MAX 100
#define HEAD_METHOD_MAX 32

struct field {
    struct slice name;  /* as sent */
    struct slice value; /* without the white space around it */
};

enum body_kind {
    BODY_NONE = 0,
    BODY_LENGTH,  /* content_length bytes follow */
    BODY_CHUNKED,
    BODY_TO_EOF,  /* responses only */
};

struct head {
    struct slice method;         /* requests */
    struct slice target;         /* requests: as sent */
    uint16_t status;             /* responses */
    struct slice phrase;         /* responses */
    uint8_t minor;               /* HTTP/1.minor: 0 or 1 */
    struct field *fields;        /* in the order sent */
    size_t field_count;
    enum body_kind body;
    uint64_t content_length;     /* with BODY_LENGTH */
    bool persistent;             /* the connection may be kept after this message (RFC 9112 section 9.3) */
    bool expect_continue;        /* Expect: 100-continue */
    bool upgrade_websocket;      /* a well-formed request to upgrade to WebSocket (RFC 6455 section 4.1) */
};

/* Finds the end of a head while it arrives, however it is split: feed all bytes so far each time. Refuses at the first
 * byte that no head can hold there (bare CR or LF, NUL, control bytes, obs-fold), so that waiting never helps. One
 * CRLF before a request line is skipped (RFC 9112 section 2.2), a second one is malformed. */
enum head_scan_status { HEAD_SCAN_MALFORMED = 0, HEAD_SCAN_MORE, HEAD_SCAN_COMPLETE, HEAD_SCAN_TOO_LARGE };
struct head_scan {
    size_t pos;       /* bytes looked at */
    size_t start;     /* where the head begins (2 behind a skipped CRLF) */
    size_t end;       /* when complete: the head is bytes[start, end) with the empty line */
    uint8_t state;
    uint16_t lines;
    bool response;    /* set before the first call for responses */
};
enum head_scan_status head_scan(struct head_scan *scan, struct slice bytes, size_t cap);

/* Parses one complete head (as head_scan delimits it). Slices point into `head`, which must outlive *ret; the fields
 * array is the arena's. Checks all of RFC 9112 that concerns framing: one Host, one Content-Length, Transfer-Encoding
 * exactly `chunked` and alone, no body framing on CONNECT, one Expect, known version. Errors are REASON_REQUEST_MALFORMED,
 * REASON_CODING_UNSUPPORTED, REASON_EXPECTATION_UNKNOWN or REASON_REQUEST_TOO_LARGE. Method and target are syntax-checked only. */
enum reason head_parse_request(struct arena *arena, struct slice head, struct head *ret);
/* For an answer to a request with that method (framing depends on it: HEAD, CONNECT). Errors are REASON_UPSTREAM_CLOSED. */
enum reason head_parse_response(struct arena *arena, struct slice head, struct slice request_method, struct head *ret);

/* How a method stands before any policy is asked: REASON_OK for GET HEAD POST PUT PATCH DELETE OPTIONS CONNECT,
 * REASON_METHOD_UNSUPPORTED for TRACE and TRACK in any case (no policy opens these), REASON_METHOD_UNKNOWN for every
 * other one (the policy may know it: policy_knows_method). */
enum reason method_check(struct slice method);

/* The value of the only field of that name; *ret_count says how many there are (the first is returned). */
struct slice head_field_named(const struct head *head, struct slice name, size_t *ret_count);
static inline struct slice
head_field(const struct head *head, const char *name, size_t *ret_count)
{
    return head_field_named(head, slice_str(name), ret_count);
}
bool head_has_token(const struct head *head, const char *name, const char *token); /* in a comma-separated list */
/* The next member of a comma-separated list without the white space around it; false at the end. *list is what is left.
 * Empty members are skipped (RFC 9110 section 5.6.1.2). */
bool field_list_next(struct slice *list, struct slice *ret_member);

#endif
