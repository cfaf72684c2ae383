/* TLS towards the servers behind inspected tunnels: always verified, by name or address, TLS 1.2 at least; sessions resumed
 * within one sandbox policy, host and port only; and what went wrong, in words. */
#ifndef SALLYPORT_TLS_UPSTREAM_H
#define SALLYPORT_TLS_UPSTREAM_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sallyport/base/digest.h"
#include "sallyport/base/err.h"
#include "sallyport/base/slice.h"
#include "sallyport/http/target.h"

#define UPSTREAM_SESSIONS_MAX 2048      /* kept sessions; each holds the peer's chain */
#define UPSTREAM_SESSIONS_OF_ONE 32     /* for one host, port and partition: connections that begin at once */
#define UPSTREAM_SESSION_AGE_S 3600     /* since certificates were verified; then they are looked at again */
#define UPSTREAM_ALPN_SIZE 32           /* one name with NUL, as struct hello has them */

struct upstream_tls; /* counted references */

/* roots_pem: the certificates to trust (the settings' file, or the system's as the supervisor read them). */
struct upstream_tls *upstream_tls_new(struct slice roots_pem, struct err *err);
void upstream_tls_unref(struct upstream_tls *u); /* connections under way keep it; NULL is fine */
SSL_CTX *upstream_tls_context(struct upstream_tls *u);

/* The name for stream_connect_tls: a literal without brackets. Returns text. */
const char *upstream_tls_name(const struct host *h, char text[HOST_TEXT_SIZE]);
/* Right after stream_connect_tls(s, upstream_tls_context(u), upstream_tls_name(…)), before the loop turns: ALPN (in the
 * client's order; none when count is 0) and a session to resume. `partition` says who may share sessions (the sandbox policy's digest).
 * False: fail. */
bool upstream_tls_prepare(struct upstream_tls *u, SSL *ssl, const struct host *host, uint16_t port, struct slice partition,
                          const char (*alpn)[UPSTREAM_ALPN_SIZE], size_t alpn_count);

#define UPSTREAM_DETAIL_SIZE 128

/* Why a handshake failed (reason upstream_tls). Ask before the stream is freed. */
struct upstream_fault {
    bool certificate;                  /* Proxy-Status tls_certificate_error; else tls_protocol_error */
    char detail[UPSTREAM_DETAIL_SIZE]; /* "the server's certificate has expired": one clause, no address, no foreign text */
};
void upstream_tls_explain(SSL *ssl, struct upstream_fault *ret);
/* The same for a connection that broke later: true where an alert of the server's ended it. A server of TLS 1.3 judges the client's half of the handshake
 * when the client believes it done (RFC 8446 section 4.4.2.4: certificate_required). */
bool upstream_tls_refused_late(SSL *ssl, struct upstream_fault *ret);

/* What was agreed, for records and the mirrored handshake; after STREAM_SECURED. */
struct upstream_agreed {
    char alpn[UPSTREAM_ALPN_SIZE];       /* "" when none was chosen */
    const char *version;                 /* "TLSv1.3" */
    char certificate[SHA256_HEX_SIZE];   /* SHA-256 of the peer's certificate, lower-case hex */
    char issuer[256];                    /* its issuer's name, RFC 2253, printable ASCII, cut where too long */
    bool resumed;
};
void upstream_tls_agreed(SSL *ssl, struct upstream_agreed *ret);

#endif
