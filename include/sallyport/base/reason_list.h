/* Rows of base/reason.h. To add a reason, add a row: nothing else lists them. */
#ifndef SALLYPORT_BASE_REASON_LIST_H
#define SALLYPORT_BASE_REASON_LIST_H

#define REASON_LIST(X)                                                                             \
    X(TOKEN_MISSING, "token_missing", 407, "http_request_error", "identity-unknown",               \
      "the request carries no token",                                                              \
      "send the sandbox's token in Proxy-Authorization (user and token in the proxy URL)")         \
    X(TOKEN_MALFORMED, "token_malformed", 407, "http_request_denied", "identity-unknown",          \
      "the credential is not a well-formed token", "check that the token arrived whole and unaltered") \
    X(TOKEN_SIGNATURE, "token_signature", 407, "http_request_denied", "identity-unknown",          \
      "no configured key verifies the token's signature",                                          \
      "check that the issuer's public key is in auth.keys under the token's kid")                  \
    X(TOKEN_CLAIMS, "token_claims", 407, "http_request_denied", "identity-unknown",                \
      "a claim is missing, of the wrong type or not acceptable here",                              \
      "look at the token with `sallyport token show`")                                             \
    X(TOKEN_EXPIRED, "token_expired", 407, "http_request_denied", "identity-unknown",              \
      "the token's time is over", "get a fresh token")                                             \
    X(TOKEN_NOT_YET_VALID, "token_not_yet_valid", 407, "http_request_denied", "identity-unknown",  \
      "the token is not valid yet", "check the clocks of the issuer and of this machine")          \
    X(TOKEN_AUDIENCE, "token_audience", 407, "http_request_denied", "identity-unknown",            \
      "the token was issued for another audience", "compare aud with auth.audience")               \
    X(TOKEN_ISSUER, "token_issuer", 407, "http_request_denied", "identity-unknown",                \
      "the token comes from another issuer", "compare iss with auth.issuer")                       \
    X(TOKEN_REVOKED, "token_revoked", 407, "http_request_denied", "identity-unknown",              \
      "the token or its sandbox was revoked", "get a fresh token if the sandbox may go on")        \
    X(TOKEN_BINDING, "token_binding", 407, "http_request_denied", "identity-unknown",              \
      "the token is bound to another sandbox, address or certificate",                             \
      "use each token only where it was issued for")                                               \
    X(POLICY_UNKNOWN, "policy_unknown", 403, "http_request_denied", "policy-unavailable",          \
      "the policy that the token names is missing, unreadable or has another digest",              \
      "put the policy into the policies directory or name one that is there")                      \
    X(HOST_NOT_ALLOWED, "host_not_allowed", 403, "http_request_denied", "not-on-allowlist",        \
      "the policy does not open this host",                                                        \
      "add the host to networking.allowed_hosts if the sandbox needs it")                          \
    X(PORT_NOT_ALLOWED, "port_not_allowed", 403, "http_request_denied", "port-not-allowed",        \
      "the policy opens this host, but not on this port", "add an entry host:port if the sandbox needs it") \
    X(HOST_BLOCKED, "host_blocked", 403, "http_request_denied", "not-on-allowlist",                \
      "the host is on a list of blocked hosts", "a blocked host stays blocked whatever else allows it") \
    X(METHOD_NOT_ALLOWED, "method_not_allowed", 403, "http_request_denied", "not-on-allowlist",    \
      "the policy does not allow this method here", "use an allowed method or add a rule")         \
    X(PATH_NOT_ALLOWED, "path_not_allowed", 403, "http_request_denied", "not-on-allowlist",        \
      "the policy does not allow this path here", "add a rule for the path if the sandbox needs it") \
    X(TOOL_NOT_ALLOWED, "tool_not_allowed", 403, "http_request_denied", "not-on-allowlist",        \
      "the policy does not allow this MCP tool", "add it to allowed_tools if the sandbox needs it") \
    X(TOOL_NOT_APPROVED, "tool_not_approved", 403, "http_request_denied", "not-on-allowlist",      \
      "the MCP tool needs an approval that was not given", "ask the person who approves")          \
    X(ADDRESS_NOT_ALLOWED, "address_not_allowed", 403, "destination_ip_prohibited", "resolved-address-denied", \
      "the name leads to an address that is never dialled (private, local, metadata, reserved)",   \
      "if it is meant, the operator opens it with upstream.allow_addresses or private_addresses")  \
    X(SNI_MISMATCH, "sni_mismatch", 0, "http_request_denied", "authority-mismatch",                \
      "the TLS server name is not the host of the CONNECT", "connect to the host that you mean")   \
    X(SNI_MISSING, "sni_missing", 0, "http_request_denied", "authority-mismatch",                  \
      "the TLS hello names no server", "use a TLS client that sends SNI")                          \
    X(ECH_REFUSED, "ech_refused", 0, "http_request_denied", "authority-mismatch",                  \
      "encrypted client hello is refused here", "switch ECH off in the client")                    \
    X(NOT_TLS, "not_tls", 0, "http_request_denied", "protocol-mismatch",                           \
      "the tunnel to a TLS port does not begin with a TLS hello",                                  \
      "speak TLS on this port; the operator lists TLS ports in tls_ports")                         \
    X(HOST_MISMATCH, "host_mismatch", 421, "http_request_error", "authority-mismatch",             \
      "Host or :authority differs from the target of the request", "send one and the same host in both") \
    X(REQUEST_MALFORMED, "request_malformed", 400, "http_request_error", "malformed-request",      \
      "the request is not unambiguous HTTP (RFC 9112) for a proxy", "check how the client was pointed at the proxy") \
    X(METHOD_UNSUPPORTED, "method_not_allowed", 405, "http_request_denied", "not-on-allowlist",    \
      "the method is never forwarded (TRACE, TRACK)", "use another method")                        \
    X(METHOD_UNKNOWN, "method_not_allowed", 501, "http_request_denied", "not-on-allowlist",        \
      "the method is not one that this proxy forwards", "add the method to a rule of the policy if the sandbox needs it") \
    X(CODING_UNSUPPORTED, "request_malformed", 501, "http_request_error", "malformed-request",     \
      "the transfer coding is not exactly `chunked`", "send the body chunked or with a length")    \
    X(EXPECTATION_UNKNOWN, "request_malformed", 417, "http_request_error", "malformed-request",    \
      "the expectation is not exactly `100-continue`", "leave the Expect field out")               \
    X(REQUEST_TOO_LARGE, "request_too_large", 431, "http_request_error", "head-too-large",         \
      "the head of the request is larger than limits.head_bytes or has too many fields", "send less") \
    X(BODY_TOO_LARGE, "request_too_large", 413, "http_request_error", "head-too-large",            \
      "the body, or its framing, is larger than is accepted here", "send less")                                \
    X(REQUEST_TIMEOUT, "request_timeout", 408, "http_request_error", NULL,                         \
      "the head of the request did not arrive in time", "send the request at once")                \
    X(DNS_FAILURE, "dns_failure", 502, "dns_error", "resolve-failed",                              \
      "the name could not be resolved", "check the name and the resolvers (upstream.dns_servers)") \
    X(UPSTREAM_REFUSED, "upstream_refused", 502, "connection_refused", "dial-failed",              \
      "the server refused the connection", "check that the server is up on this port")             \
    X(UPSTREAM_UNREACHABLE, "upstream_unreachable", 502, "destination_ip_unroutable", "dial-failed", \
      "there is no route to the server", "check the network of this machine")                      \
    X(UPSTREAM_CLOSED, "upstream_closed", 502, "connection_terminated", "dial-failed",             \
      "the server closed the connection or answered with something that is not HTTP", "try again; look at the server's log") \
    X(UPSTREAM_TIMEOUT, "upstream_timeout", 504, "connection_timeout", "dial-failed",              \
      "the server did not answer in time", "check the server and upstream.connect_timeout_ms")     \
    X(UPSTREAM_TLS, "upstream_tls", 502, "tls_certificate_error", "tls-failed",                    \
      "the server's certificate or TLS is not acceptable", "check the certificate and upstream.ca_file") \
    X(LIMIT_TUNNELS, "limit_tunnels", 429, "connection_limit_reached", "busy",                     \
      "the sandbox has as many tunnels open as it may", "close some, or raise limits.tunnels")     \
    X(LIMIT_REQUESTS, "limit_requests", 429, "connection_limit_reached", "busy",                   \
      "the sandbox has made as many requests a minute, or opened as many hosts that were never inspected, as it may", \
      "wait, or raise limits.requests_per_minute") \
    X(LIMIT_BYTES, "limit_bytes", 429, "connection_limit_reached", "busy",                         \
      "the sandbox has sent as many bytes as it may", "raise limits.bytes_up if that is meant")    \
    X(OVERLOADED, "overloaded", 503, "proxy_internal_error", "busy",                               \
      "the proxy has no room for another connection", "try again; raise the file limit or limits.connections") \
    X(RECORD_UNAVAILABLE, "record_unavailable", 503, "proxy_internal_error", "busy",               \
      "the decision cannot be recorded, so nothing leaves", "free the disk of record.path")        \
    X(CREDENTIAL_UNAVAILABLE, "credential_unavailable", 503, "proxy_internal_error", "busy",       \
      "the credential for this request cannot be had", "look at the vault")                        \
    X(SHUTTING_DOWN, "shutting_down", 503, "proxy_internal_error", "busy",                         \
      "the proxy is draining", "try again on another instance")                                    \
    X(INTERNAL, "internal", 500, "proxy_internal_error", NULL,                                     \
      "the proxy failed", "look at its diagnostics and report it")

#endif
