/* The library context (OSSL_LIB_CTX) of inspection: OpenSSL as it is, without what no certificate
 * and no handshake needs. */
#ifndef SALLYPORT_TLS_LIBRARY_H
#define SALLYPORT_TLS_LIBRARY_H

#include <openssl/evp.h>
#include <openssl/x509.h>

#include "sallyport/base/slice.h"

/* Made when it is first asked for, and then the same until the process ends. NULL, OpenSSL's own,
 * where the machine's OpenSSL is configured to take its algorithms from elsewhere than the default
 * provider: that is the operator's choice. */
OSSL_LIB_CTX *tls_library(void);

/* For all that reads PEM (pem_password_cb): what has a passphrase cannot be read. OpenSSL would otherwise ask the terminal for one. */
int tls_no_passphrase(char *buf, int size, int writing, void *arg);
/* As OpenSSL's functions, with tls_library. Certificates that meet in a handshake are all to be of
 * it. NULL: as there. */
X509 *tls_read_der(struct slice der);             /* exactly one certificate */
X509 *tls_read_pem(BIO *bio);                     /* the next one */
EVP_PKEY *tls_read_private_pem(struct slice pem); /* without a passphrase */

#endif
