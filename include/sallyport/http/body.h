/* Body framing (RFC 9112 section 6 and 7): how far the message goes, byte-exactly. Chunked bodies are decoded by the
 * strict grammar and re-framed by the writer, never copied: extensions and request trailers do not pass. */
#ifndef SALLYPORT_HTTP_BODY_H
#define SALLYPORT_HTTP_BODY_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/buf.h"
#include "sallyport/base/slice.h"
#include "sallyport/http/head.h"

#define BODY_CHUNK_MAX (1ULL << 40)  /* bytes of one chunk: far over what anybody sends, far under any overflow */
#define BODY_EXTRAS_MAX 32768        /* bytes of chunk extensions and trailers of one body together */
#define BODY_TRAILERS_MAX 100        /* trailer fields */

struct body_reader;

enum body_status {
    BODY_MALFORMED = 0,
    BODY_MORE, /* give more input */
    BODY_END,  /* the message ended; what was not consumed belongs to the next one */
};

/* kind and length as head_parse_* found them. */
struct body_reader *body_reader_new(enum body_kind kind, uint64_t content_length);
void body_reader_free(struct body_reader *r);
/* Reads from `in`: *ret_used bytes were framing or data, and the data among them (at most one run a call) is *ret_data, pointing into `in`.
 * Call again with the rest until BODY_MORE with everything used. A body of kind BODY_NONE is at once BODY_END. */
enum body_status body_read(struct body_reader *r, struct slice in, size_t *ret_used, struct slice *ret_data);
/* At end of input: BODY_END for BODY_TO_EOF, else BODY_MALFORMED (the message is incomplete). */
enum body_status body_read_eof(struct body_reader *r);
/* After BODY_MALFORMED: REASON_BODY_TOO_LARGE when a cap above was passed, else REASON_REQUEST_MALFORMED. */
enum reason body_fault(const struct body_reader *r);
uint64_t body_data_bytes(const struct body_reader *r); /* of data so far */
/* Trailer fields of a response, checked ("name: value" CRLF each), after BODY_END; empty otherwise. Those that a response
 * head would not have passed either (fields_pass_response) are left out. */
struct slice body_trailers(const struct body_reader *r);

/* Writing: appends data re-framed for the kind; false when the buffer's cap would be passed. */
bool body_write(struct buf *out, enum body_kind kind, struct slice data);
bool body_write_end(struct buf *out, enum body_kind kind, struct slice trailers); /* "0\r\n" trailers "\r\n" for chunked */
#define BODY_CHUNK_OVERHEAD 20 /* most bytes that body_write adds to one run of data */

#endif
