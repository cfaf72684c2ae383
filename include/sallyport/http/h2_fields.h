/* Header blocks of HTTP/2 (RFC 9113 section 8): what may stand in one, checked field by field and as a whole. Malformed is
 * refused, never repaired. Plain functions over bytes; HPACK and frames are h2.c's. */
#ifndef SALLYPORT_HTTP_H2_FIELDS_H
#define SALLYPORT_HTTP_H2_FIELDS_H

#include "sallyport/http/head.h"

/* One block. Owns its bytes. */
struct h2_head {
    /* As in HTTP/1, so that the same pipeline judges it: method, target (:path; of a CONNECT: :authority), status, fields
     * (regular ones, in order), body, content_length. */
    struct head head;
    struct slice scheme, authority, path, protocol; /* pseudo-header fields; ptr NULL where absent */
    bool *sensitive;         /* per field: never to be indexed (RFC 7541 section 7.1.3) */
    bool end;                /* nothing follows: END_STREAM */
    bool too_large;          /* over the limits: what is here is a part of it, only good for a refusal (431) */
    size_t size;             /* as MAX_HEADER_LIST_SIZE counts: names, values, 32 a field */
    size_t capacity;         /* of head.fields */
    bool regular_seen;
    struct arena *arena;
};

enum h2_block { H2_BLOCK_REQUEST = 1, H2_BLOCK_RESPONSE, H2_BLOCK_TRAILERS };

struct h2_head *h2_head_new(void);
void h2_head_free(struct h2_head *h); /* NULL is fine */
/* For writing: copies the bytes; the name is made lower-case. */
void h2_head_add(struct h2_head *h, struct slice name, struct slice value, bool sensitive);
struct slice h2_head_dup(struct h2_head *h, struct slice s);

/* For reading: one decoded field. False: malformed. What passes `fields_max` or `bytes_max` is not kept and sets too_large;
 * size goes on counting. */
bool h2_head_read(struct h2_head *h, enum h2_block block, struct slice name, struct slice value, bool sensitive,
                  size_t fields_max, size_t bytes_max);
/* The whole block, when it has ended: what must be there, what excludes what, :authority and Host. False: malformed. */
bool h2_head_judge(struct h2_head *h, enum h2_block block);

/* A name that HTTP/2 has no use for, connection-specific (RFC 9113 section 8.2.2): malformed when it comes in. */
bool h2_field_is_connection(struct slice name);

#endif
