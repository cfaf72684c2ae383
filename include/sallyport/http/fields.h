/* What a proxy removes and adds when it passes a head on (RFC 9110 section 7.6, RFC 9112 section 9.6). */
#ifndef SALLYPORT_HTTP_FIELDS_H
#define SALLYPORT_HTTP_FIELDS_H

#include <stdbool.h>

#include "sallyport/base/buf.h"
#include "sallyport/http/head.h"
#include "sallyport/http/target.h"

struct forward_options {
    const char *via_pseudonym;       /* "sallyport" */
    bool keep_upgrade;               /* pass Connection: upgrade and Upgrade: websocket */
    enum body_kind body;             /* how the body will be framed on the way out */
    uint64_t content_length;
    bool close;                      /* add Connection: close */
    bool absolute;                   /* absolute-form towards a parent proxy */
    bool drop_method_override;       /* the policy restricts methods here: X-HTTP-Method-Override and the like do not pass */
    struct slice parent_authorization; /* Proxy-Authorization for the parent; empty: none */
};

/* Writes the request head for the upstream: origin-form with `path`, one Host from the canonical target, no hop-by-hop
 * field (the standard ones and those Connection names, except framing, Host and credentials of the origin, which
 * Connection cannot take away), no Proxy-*, no Expect but 100-continue, one Via. False: over the buffer's cap. */
bool fields_write_request(struct buf *out, const struct head *head, const struct target *target, struct slice path, const struct forward_options *o);
/* Writes the response head for the client likewise; also drops Alt-Svc (it would lead the client round the proxy). False
 * also for a 407: the client would take it for ours and send its token again, to whoever asked. */
bool fields_write_response(struct buf *out, const struct head *head, const struct forward_options *o);

/* May a field of this name pass from a request to the upstream, Connection aside? Not: hop-by-hop fields, Proxy-*, Host,
 * Expect, Trailer; framing and Via are the writer's and no either. */
bool fields_pass_request(struct slice name, bool drop_method_override);
/* May a field of this name pass from a response to the client, Connection aside? Not: hop-by-hop fields, Proxy-*,
 * Alt-Svc, and the x-deny-reason that only the proxy itself may say. Framing and Via are the writer's and no either. */
bool fields_pass_response(struct slice name);

#endif
