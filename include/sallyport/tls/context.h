/* OpenSSL contexts: TLS listeners of the proxy itself, its way to a parent, and both sides of inspection. */
#ifndef SALLYPORT_TLS_CONTEXT_H
#define SALLYPORT_TLS_CONTEXT_H

#include <openssl/ssl.h>

#include "sallyport/base/err.h"
#include "sallyport/base/slice.h"

/* Server side: TLS 1.2 at least, no renegotiation, no compression, no 0-RTT; client_ca (PEM) may be empty: no client
 * certificates; with it one is required and verified. PEM texts, not paths: a worker has no files. */
SSL_CTX *tls_server_context(struct slice cert_pem, struct slice key_pem, struct slice client_ca_pem, struct err *err);
/* Client side, for a parent proxy: verification on, against ca_pem or (empty) the system's roots. */
SSL_CTX *tls_client_context(struct slice ca_pem, struct err *err);
/* For inspection. Server side: tickets, but neither certificate, ALPN nor session context: those are a connection's own. */
SSL_CTX *tls_inspect_context(struct err *err);
/* Client side: as tls_client_context, roots_pem required; keys and signatures of at least 112 bits. */
SSL_CTX *tls_upstream_context(struct slice roots_pem, struct err *err);
/* The file that holds the system's roots, or NULL when none of the usual ones is there. */
const char *tls_system_roots(void);
/* base64url SHA-256 of the peer's certificate into text[44]; false without one (RFC 8705 section 3.1). */
int tls_peer_x5t(SSL *ssl, char text[44]);

#endif
