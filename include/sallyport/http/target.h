/* The canonical target: scheme, host and port, computed once from what the client sent and used everywhere after
 * (policy, DNS, dial, SNI, Host, records). CONTRACT section 3, "Host entries". The only module with libidn2. */
#ifndef SALLYPORT_HTTP_TARGET_H
#define SALLYPORT_HTTP_TARGET_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/addr.h"
#include "sallyport/base/reason.h"
#include "sallyport/base/slice.h"

#define HOST_MAX 253
#define HOST_TEXT_SIZE (HOST_MAX + 3)              /* brackets of an IPv6 literal and NUL */
#define TARGET_TEXT_SIZE (HOST_TEXT_SIZE + 6)      /* ":65535" */

enum scheme { SCHEME_NONE = 0, SCHEME_HTTP, SCHEME_HTTPS }; /* NONE: a tunnel, whose inside is not known */
enum host_kind { HOST_NONE = 0, HOST_NAME, HOST_IPV4, HOST_IPV6 };

struct host {
    enum host_kind kind;
    uint8_t len;                 /* of text */
    char text[HOST_TEXT_SIZE];   /* canonical: lower case, no trailing dot; IPv6 in brackets as inet_ntop writes it */
    struct addr literal;         /* for the two IP kinds */
};

struct target {
    enum scheme scheme;
    struct host host;
    uint16_t port; /* never 0 */
};

/* One host, without port: a name or an IPv4 literal, or an IPv6 literal in brackets. False: it has no canonical form. */
bool host_parse(struct slice text, struct host *ret);
bool host_equal(const struct host *a, const struct host *b);
/* CONNECT's authority-form, "host:port" with both parts (RFC 9112 section 3.2.3). */
enum reason target_from_authority(struct slice authority, struct target *ret);
/* absolute-form of http:// only (RFC 9112 section 3.2.2); *ret_path is path and query as sent, "/" when empty. Userinfo,
 * fragments and bytes outside RFC 3986 are malformed. */
enum reason target_from_uri(struct slice uri, struct target *ret, struct slice *ret_path);
/* Host (RFC 9110 section 7.2): malformed, or REASON_HOST_MISMATCH when it names another host or port. Without a port the
 * scheme's default is meant; with SCHEME_NONE (CONNECT) an absent port means the target's. */
enum reason target_check_host_field(const struct target *target, struct slice value);
/* path as in *ret_path; false for bytes or percent-escapes that RFC 3986 does not allow. */
bool path_is_wellformed(struct slice path);

/* A target in as many bytes as its host has, for what lives long. Heap; free() frees it. */
struct target_packed {
    uint16_t port;
    uint8_t scheme, kind, len; /* of target; len: of text */
    char text[];
};
struct target_packed *target_pack(const struct target *t);
void target_unpack(const struct target_packed *p, struct target *ret);

void target_format(const struct target *t, char text[TARGET_TEXT_SIZE]); /* "host:port" */
struct slice host_slice(const struct host *h);

/* For policy files: the A-label form of a name with U-labels (IDNA2008, libidn2), for the error that prints it.
 * False when it has none. out has HOST_TEXT_SIZE bytes. */
bool host_to_ascii(struct slice utf8, char *out);
/* A name whose xn-- labels all decode to something that is not ASCII; names without xn-- labels are fine. */
bool host_alabels_ok(struct slice canonical);

#endif
