/* Which chains of certificates have had their signatures checked already: a signature that was
 * right stays right. */
#ifndef SALLYPORT_TLS_SIGNATURES_H
#define SALLYPORT_TLS_SIGNATURES_H

#include <openssl/x509_vfy.h>
#include <stdbool.h>

#define SIGNATURES_MAX                                                                             \
    1024 /* chains remembered by a store, 150 bytes each; the one that was met longest ago goes    \
            first */

/* From now on the store's verifications check the signatures of a chain, all its bytes the same,
 * once. Everything else that they check (the way to a root, times, names, purposes, constraints,
 * strength) they check each time. Goes with the store. False: not to be had; the store is as
 * before. */
bool signatures_remember(X509_STORE *store);

#endif
