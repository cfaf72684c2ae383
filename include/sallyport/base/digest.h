/* SHA-256 (FIPS 180-4) by OpenSSL's EVP. */
#ifndef SALLYPORT_BASE_DIGEST_H
#define SALLYPORT_BASE_DIGEST_H

#include <stddef.h>

#include "sallyport/base/slice.h"

#define SHA256_SIZE 32
#define SHA256_HEX_SIZE 65 /* with NUL */

void sha256(struct slice data, unsigned char out[SHA256_SIZE]);
void sha256_two(struct slice a, struct slice b, unsigned char out[SHA256_SIZE]); /* of a followed by b */
void sha256_hex(struct slice data, char out[SHA256_HEX_SIZE]);

#endif
