/* Body framing (RFC 9112 section 6 and 7): how far the message goes, byte-exactly. Chunked bodies are decoded (llhttp
 * behind a strict check of the framing lines) and re-framed by the writer, never copied: extensions and request
 * trailers do not pass. */
#ifndef SALLYPORT_HTTP_BODY_H
#define SALLYPORT_HTTP_BODY_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/buf.h"
#include "sallyport/base/slice.h"
#include "sallyport/http/head.h"

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
uint64_t body_data_bytes(const struct body_reader *r); /* of data so far */
/* Trailer fields of a response, raw and checked ("name: value" CRLF each), after BODY_END; empty otherwise. */
struct slice body_trailers(const struct body_reader *r);

/* Writing: appends data re-framed for the kind; false when the buffer's cap would be passed. */
bool body_write(struct buf *out, enum body_kind kind, struct slice data);
bool body_write_end(struct buf *out, enum body_kind kind, struct slice trailers); /* "0\r\n" trailers "\r\n" for chunked */
#define BODY_CHUNK_OVERHEAD 20 /* most bytes that body_write adds to one run of data */

#endif
