/* OpenSSL's default provider, with less in it. OpenSSL 3.0 decodes the public key of a certificate, each
 * time that it parses one, by going through all algorithms, decoders and kinds of keys that its library
 * context has: 130 µs, of which the key itself takes a tenth. So inspection has a library context of its
 * own, whose one provider is the default one, asked through a function that leaves out what no handshake
 * of ours and no certificate in it has. What is left out is thereby refused, never accepted. */
#include "sallyport/tls/library.h"

#include <openssl/core_dispatch.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/provider.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

#define NAME "sallyport"
#define DISPATCH_MAX 16 /* of the default provider's own functions; it has five */
#define KEPT_MAX 16     /* algorithms of one operation, and the end of their list */

/* What TLS 1.2 and 1.3 with our cipher suites, tickets and certificates take. Names as the default
 * provider has them. */
struct kept {
    int operation;
    const char *names[KEPT_MAX];
    OSSL_ALGORITHM list[KEPT_MAX];
};

static struct kept kept[] = {
    {.operation = OSSL_OP_DIGEST,
     .names = {"SHA1", "SHA2-224", "SHA2-256", "SHA2-384", "SHA2-512"}},
    {.operation = OSSL_OP_CIPHER,
     .names = {"AES-128-GCM", "AES-256-GCM", "ChaCha20-Poly1305", "AES-256-CBC"}},
    {.operation = OSSL_OP_MAC, .names = {"HMAC"}},
    {.operation = OSSL_OP_KDF, .names = {"TLS13-KDF", "TLS1-PRF"}},
    {.operation = OSSL_OP_RAND, .names = {"CTR-DRBG", "SEED-SRC"}},
    {.operation = OSSL_OP_KEYMGMT,
     .names = {"RSA", "RSA-PSS", "EC", "ED25519", "ED448", "DSA", "X25519", "X448", "DH", "HMAC"}},
    {.operation = OSSL_OP_KEYEXCH, .names = {"ECDH", "X25519", "X448", "DH"}},
    {.operation = OSSL_OP_SIGNATURE, .names = {"RSA", "ECDSA", "ED25519", "ED448", "DSA", "HMAC"}},
    /* Of the keys that sign certificates, and from the form that certificates have them in. */
    {.operation = OSSL_OP_DECODER, .names = {"RSA", "RSA-PSS", "EC", "ED25519", "ED448", "DSA"}},
};
#define KEPT_COUNT (sizeof kept / sizeof kept[0])

static struct {
    bool tried;
    OSSL_LIB_CTX *library;
    OSSL_PROVIDER *whole; /* OpenSSL's default library context has it */
    OSSL_DISPATCH dispatch[DISPATCH_MAX];
} lean;

/* ---- what is kept ---- */

/* An algorithm has several names, as "EC:id-ecPublicKey:1.2.840.10045.2.1". */
static bool
has_name(const OSSL_ALGORITHM *a, const char *name)
{
    size_t len = strlen(name);
    for (const char *at = a->algorithm_names; at; at = strchr(at, ':'), at = at ? at + 1 : NULL)
        if (strcspn(at, ":") == len && strncasecmp(at, name, len) == 0)
            return true;
    return false;
}

static bool
is_kept(const struct kept *k, const OSSL_ALGORITHM *a)
{
    if (k->operation == OSSL_OP_DECODER &&
        !strstr(a->property_definition, "structure=SubjectPublicKeyInfo"))
        return false;
    for (const char *const *name = k->names; *name; name++)
        if (has_name(a, *name))
            return true;
    return false;
}

/* False: this OpenSSL has another set of them than the one that the table was made for. */
static bool
fill(struct kept *k, const OSSL_ALGORITHM *all)
{
    size_t expected = 0, count = 0;
    while (k->names[expected])
        expected++;
    for (; all && all->algorithm_names; all++)
        if (is_kept(k, all)) {
            if (count == expected)
                return false;
            k->list[count++] = *all;
        }
    return count == expected;
}

/* ---- the provider ---- */

static const OSSL_ALGORITHM *
query(void *provctx, int operation, int *no_cache)
{
    (void)provctx;
    *no_cache = 0;
    for (size_t i = 0; i < KEPT_COUNT; i++)
        if (kept[i].operation == operation)
            return kept[i].list;
    return NULL;
}

/* The functions are the default provider's, and work on its context; its end is not ours to bring
 * about. */
static bool
wrap(const OSSL_DISPATCH *whole, void *provctx)
{
    OSSL_FUNC_provider_query_operation_fn *whole_query = NULL;
    size_t count = 0;
    int no_cache;
    bool fine = true;
    for (; whole->function_id; whole++) {
        OSSL_DISPATCH function = *whole;
        if (function.function_id == OSSL_FUNC_PROVIDER_TEARDOWN)
            continue;
        if (function.function_id == OSSL_FUNC_PROVIDER_QUERY_OPERATION) {
            whole_query = OSSL_FUNC_provider_query_operation(whole);
            function.function = (void (*)(void))query;
        }
        if (count == DISPATCH_MAX - 1)
            return false;
        lean.dispatch[count++] = function;
    }
    for (size_t i = 0; whole_query && i < KEPT_COUNT; i++)
        fine = fill(&kept[i], whole_query(provctx, kept[i].operation, &no_cache)) && fine;
    return whole_query && fine;
}

static int
start(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out,
      void **provctx)
{
    (void)handle;
    (void)in;
    *provctx = OSSL_PROVIDER_get0_provider_ctx(lean.whole);
    *out = lean.dispatch;
    return 1;
}

/* ---- the library context ---- */

static int
count_others(OSSL_PROVIDER *provider, void *others)
{
    if (strcmp(OSSL_PROVIDER_get0_name(provider), "default") != 0)
        ++*(int *)others;
    return 1;
}

/* False: openssl.cnf says that algorithms come from elsewhere, or only those that have been
 * validated. */
static bool
default_is_all(void)
{
    int others = 0;
    return OSSL_PROVIDER_available(NULL, "default") == 1 &&
           OSSL_PROVIDER_do_all(NULL, count_others, &others) == 1 && others == 0 &&
           EVP_default_properties_is_fips_enabled(NULL) != 1;
}

static OSSL_LIB_CTX *
make_library(void)
{
    if (OPENSSL_version_major() != 3 || OPENSSL_version_minor() > 1)
        return NULL; /* 3.2 keeps what it sets up for decoding */
    if (!default_is_all() || !(lean.whole = OSSL_PROVIDER_load(NULL, "default")))
        return NULL;
    if (!wrap(OSSL_PROVIDER_get0_dispatch(lean.whole), OSSL_PROVIDER_get0_provider_ctx(lean.whole)))
        return NULL;
    OSSL_LIB_CTX *library = OSSL_LIB_CTX_new();
    if (library && OSSL_PROVIDER_add_builtin(library, NAME, start) == 1 &&
        OSSL_PROVIDER_load(library, NAME))
        return library;
    OSSL_LIB_CTX_free(library);
    return NULL;
}

OSSL_LIB_CTX *
tls_library(void)
{
    if (!lean.tried) {
        lean.tried = true;
        lean.library = make_library();
        ERR_clear_error();
    }
    return lean.library;
}

/* ---- certificates and keys ---- */

int
tls_no_passphrase(char *buf, int size, int writing, void *arg)
{
    (void)buf;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}

X509 *
tls_read_der(struct slice der)
{
    const unsigned char *at = (const unsigned char *)der.ptr;
    X509 *cert = der.len && der.len < INT32_MAX ? X509_new_ex(tls_library(), NULL) : NULL;
    /* Where it fails it has freed the certificate and says so. */
    if (cert && d2i_X509(&cert, &at, (long)der.len) &&
        at == (const unsigned char *)der.ptr + der.len)
        return cert;
    X509_free(cert);
    return NULL;
}

X509 *
tls_read_pem(BIO *bio)
{
    X509 *cert = X509_new_ex(tls_library(), NULL);
    if (cert && PEM_read_bio_X509(bio, &cert, tls_no_passphrase, NULL))
        return cert;
    X509_free(cert);
    return NULL;
}

static void
wipe(OSSL_PARAM *numbers)
{
    for (OSSL_PARAM *p = numbers; p && p->key; p++)
        if (p->data)
            OPENSSL_cleanse(p->data, p->data_size);
    OSSL_PARAM_free(numbers);
}

/* Read with all decoders that there are, and then handed over as numbers. */
EVP_PKEY *
tls_read_private_pem(struct slice pem)
{
    BIO *bio = pem.len && pem.len < INT32_MAX ? BIO_new_mem_buf(pem.ptr, (int)pem.len) : NULL;
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, tls_no_passphrase, NULL) : NULL,
             *ours = NULL;
    OSSL_PARAM *numbers = NULL;
    BIO_free(bio);
    if (!key || !tls_library())
        return key;
    EVP_PKEY_CTX *ctx =
        EVP_PKEY_CTX_new_from_name(tls_library(), EVP_PKEY_get0_type_name(key), NULL);
    if (ctx && EVP_PKEY_todata(key, EVP_PKEY_KEYPAIR, &numbers) == 1 &&
        EVP_PKEY_fromdata_init(ctx) == 1)
        (void)EVP_PKEY_fromdata(ctx, &ours, EVP_PKEY_KEYPAIR, numbers);
    wipe(numbers);
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(key);
    return ours;
}
