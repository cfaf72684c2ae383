/* The inspection CA: made, loaded, and used to sign a leaf certificate for one canonical host. Pure: bytes in, bytes out, time
 * as an argument. Used by the keeper and by `sallyport ca`; a worker never has a struct ca. */
#ifndef SALLYPORT_TLS_MINT_H
#define SALLYPORT_TLS_MINT_H

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sallyport/base/addr.h"
#include "sallyport/base/clock.h"
#include "sallyport/base/digest.h"
#include "sallyport/base/err.h"
#include "sallyport/base/slice.h"
#include "sallyport/http/target.h"

#define LEAF_LIFETIME_S (INT64_C(7) * 86400)  /* at most; never beyond the CA's own end */
#define LEAF_BACKDATE_S 86400        /* clocks of sandboxes run late */
#define LEAF_DER_MAX 4096            /* of one leaf; a usual one has about 500 bytes */
#define CA_DAYS_DEFAULT 730
#define CA_DAYS_MAX 7300
#define CA_CONSTRAINTS_MAX 64
#define CA_PEM_MAX 65536

/* What a name-constrained CA may sign for: a name with all below it, or a range of addresses. */
struct ca_constraint {
    struct host name;   /* HOST_NAME, else HOST_NONE with `range` */
    struct cidr range;
};

struct ca_options {
    const struct ca_constraint *constraints; /* none: unconstrained */
    size_t constraint_count;
    int64_t now_s, days;
};

/* A new P-256 key and its self-signed certificate, as PEM texts (heap; wipe the key's). */
int ca_generate(const struct ca_options *o, char **ret_cert_pem, char **ret_key_pem, struct err *err);

struct ca;

/* The first certificate of cert_pem is the CA's. Refuses a key that is not its own, what is no CA or may not sign, and what
 * is not valid at now_s. */
struct ca *ca_load(struct slice cert_pem, struct slice key_pem, int64_t now_s, struct err *err);
void ca_free(struct ca *ca); /* NULL is fine */
int64_t ca_not_after(const struct ca *ca); /* seconds since 1970 */
/* The leaf for this host, signed, as DER (heap). False: the host is none, or the CA has expired. */
bool ca_mint(struct ca *ca, const struct host *host, EVP_PKEY *leaf_public, int64_t now_s, unsigned char **ret_der, size_t *ret_len);

/* What `ca show` says, of the certificate alone. */
struct ca_facts {
    char subject[256], key[32], serial[64], not_before[CLOCK_TEXT_SIZE], not_after[CLOCK_TEXT_SIZE];
    char sha256[SHA256_HEX_SIZE], ski[2 * 32 + 1];
    int64_t not_before_s, not_after_s;
    char *constraints;  /* heap: permitted names and ranges, a line each, or "" */
};
int ca_describe(struct slice cert_pem, struct ca_facts *ret, struct err *err);
void ca_facts_done(struct ca_facts *f);

/* The run's leaf key: a new P-256 pair as PEM texts (heap; wipe the private one). */
int leaf_key_generate(char **ret_private_pem, char **ret_public_pem, struct err *err);
EVP_PKEY *leaf_key_public(struct slice public_pem, struct err *err); /* EVP_PKEY_free */

#endif
