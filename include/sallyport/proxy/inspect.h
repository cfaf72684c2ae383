/* Inspection: TLS inside a tunnel is ended here and begun anew towards the upstream, and every request in it is an exchange of
 * its own, a child of the tunnel's. hello -> dial -> upstream handshake -> leaf -> client handshake -> requests. */
#ifndef SALLYPORT_PROXY_INSPECT_H
#define SALLYPORT_PROXY_INSPECT_H

#include "sallyport/proxy/exchange.h"

struct inspection;

/* Takes the client's stream (the 200 goes out first) and what it has sent already. `denied` is REASON_OK, or why every request
 * in the tunnel is to be refused (inspect.deny_in_tunnel): then nothing is dialled. */
void inspect_start(struct exchange *x, struct stream *client, struct buf *from_client, struct slice to_client, enum reason denied);
void inspect_free(struct inspection *i);

/* May the tunnel's sandbox have the leaf that it would need? Only looked at: it is paid for when the keeper is asked. */
bool inspect_has_leaf_room(const struct exchange *x);

/* For the requests inside. */
struct exchange *inspect_tunnel(struct inspection *i);           /* the tunnel's own exchange */
/* REASON_OK, or why no request can be served, with more about it in words (borrowed; NULL). */
enum reason inspect_fault(const struct inspection *i, const char **ret_detail);
/* REASON_OK, or why the tunnel was denied as a whole (inspect.deny_in_tunnel). */
enum reason inspect_denied(const struct inspection *i);
/* The upstream connection, lent for one request; NULL when it is gone. */
struct stream *inspect_borrow(struct inspection *i);
/* Gives it back, fit for another request. What is not given back is gone, and the client's connection ends with it. */
void inspect_return(struct inspection *i, struct stream *upstream);
bool inspect_was_used(const struct inspection *i);               /* a request has gone up before */
/* The upstream connection broke: was that the end of a handshake that seemed over, before any request was answered? Then
 * inspect_fault says so to this request and all that follow. Ask before the stream is freed. */
bool inspect_refused_late(struct inspection *i, struct stream *upstream);
/* Bytes of a request inside, for the tunnel's own record. */
void inspect_count(struct inspection *i, uint64_t up, uint64_t down);
/* What one side did wrong, for the tunnel's own record: a member's name, and words that are none of the peer's. */
void inspect_note_fault(struct inspection *i, const char *member, const char *text);
/* A request inside has ended, whatever way. */
void inspect_child_ended(struct inspection *i);
/* The connection inside has ended. */
void inspect_client_gone(struct inspection *i);
/* An upgraded request took the client's stream and the upstream: the tunnel lives on until that exchange ends. */
void inspect_detach(struct inspection *i);
/* JSON members about the TLS on both sides, for close records; empty before there is any. */
struct slice inspect_facts(const struct inspection *i);

#endif
