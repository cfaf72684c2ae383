/* SHA-256 by OpenSSL's EVP. The algorithm is fetched once and the context kept: fetching costs more
 * than hashing the few hundred bytes of a token or a record. */
#include "sallyport/base/digest.h"

#include <openssl/evp.h>
#include <stdlib.h>

#include "sallyport/base/encoding.h"

static EVP_MD_CTX *
begin(void)
{
    static _Thread_local EVP_MD_CTX *ctx;
    static _Thread_local EVP_MD *md;
    if (!ctx) {
        ctx = EVP_MD_CTX_new();
        md = EVP_MD_fetch(NULL, "SHA256", NULL);
    }
    /* Without SHA-256 nothing can be verified or recorded: no way to go on safely. */
    if (!ctx || !md || EVP_DigestInit_ex2(ctx, md, NULL) != 1)
        abort();
    return ctx;
}

void
sha256_two(struct slice a, struct slice b, unsigned char out[SHA256_SIZE])
{
    EVP_MD_CTX *ctx = begin();
    if (EVP_DigestUpdate(ctx, a.ptr, a.len) != 1 || EVP_DigestUpdate(ctx, b.ptr, b.len) != 1 ||
        EVP_DigestFinal_ex(ctx, out, NULL) != 1)
        abort();
}

void
sha256(struct slice data, unsigned char out[SHA256_SIZE])
{
    sha256_two(data, slice_of("", 0), out);
}

void
sha256_hex(struct slice data, char out[SHA256_HEX_SIZE])
{
    unsigned char digest[SHA256_SIZE];
    sha256(data, digest);
    hex_encode(digest, sizeof digest, out);
}
