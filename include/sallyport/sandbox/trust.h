/* What a sandbox under inspection trusts: the bundle that the caller of the launcher made, and the certificates that the user's own
 * variables had named. Certificates alone: whatever else such a file holds stays outside. */
#ifndef SALLYPORT_SANDBOX_TRUST_H
#define SALLYPORT_SANDBOX_TRUST_H

#include "sallyport/base/buf.h"
#include "sallyport/base/err.h"
#include "sallyport/sandbox/environment.h"

#define INSIDE_CA_BUNDLE "/etc/sallyport/ca-bundle.pem"
#define INSIDE_JAVA_STORE "/etc/sallyport/ca-bundle.jks"
#define TRUST_BUNDLE_MAX (8u << 20)

/* The bundle's text with what the variables of in (the caller's and --env) name, each certificate once. *ret is heap. A file that
 * cannot be read here adds nothing. */
int trust_read(const char *bundle, const struct environment_in *in, char **ret, struct err *err);
/* The same certificates as a key store, for Java, which reads nothing else. Appends; false when the buffer's cap was passed. */
bool trust_java_store(const char *bundle, struct buf *out);
/* Where systems keep the file that programs trust which ask no variable: the bundle is laid over those that are there. */
extern const char *const trust_stores[]; /* NULL-terminated */

#endif
