/* OpenSSL verifies a chain in steps, of which the last checks signatures, whether each issuer may
 * sign, and times. Here that step is put before a memory of chains that passed it, by their bytes:
 * what it looks at besides them is the time, which is looked at here as well. Who is not
 * remembered, or not valid now, goes OpenSSL's own way, and is refused with OpenSSL's own words. */
#include "sallyport/tls/signatures.h"

#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "sallyport/base/digest.h"
#include "sallyport/base/list.h"
#include "sallyport/base/map.h"
#include "sallyport/base/mem.h"

#define CHAIN_MAX 8 /* certificates; what is longer is rare, and checked each time */
/* Verifications for another time than now. */
#define OTHER_TIME (X509_V_FLAG_USE_CHECK_TIME | X509_V_FLAG_NO_CHECK_TIME)

struct passed {
    struct list_node node; /* in signatures.recent */
    unsigned char key[SHA256_SIZE];
};

struct signatures {
    X509_STORE_CTX_verify_fn check; /* OpenSSL's */
    struct map *passed;             /* key -> struct passed */
    struct list recent;             /* the one that was met longest ago first */
};

static void
free_signatures(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int index, long argl, void *argp)
{
    struct signatures *s = ptr;
    (void)parent;
    (void)ad;
    (void)index;
    (void)argl;
    (void)argp;
    if (!s)
        return;
    map_free(s->passed, free);
    free(s);
}

static int
store_index(void)
{
    static int index = -1;
    if (index < 0)
        index = X509_STORE_get_ex_new_index(0, NULL, NULL, NULL, free_signatures);
    if (index < 0)
        abort();
    return index;
}

/* All bytes of the chain, root included, and what else of the verification the step goes by. False:
 * a chain that is not remembered. */
static bool
chain_key(X509_STORE_CTX *ctx, unsigned char key[SHA256_SIZE])
{
    STACK_OF(X509) *chain = X509_STORE_CTX_get0_chain(ctx);
    unsigned long flags = X509_VERIFY_PARAM_get_flags(X509_STORE_CTX_get0_param(ctx));
    if (!chain || sk_X509_num(chain) > CHAIN_MAX || (flags & OTHER_TIME))
        return false;
    sha256(slice_of((const char *)&flags, sizeof flags), key);
    for (int i = 0; i < sk_X509_num(chain); i++) {
        unsigned char *der = NULL, before[SHA256_SIZE];
        int len = i2d_X509(sk_X509_value(chain, i), &der);
        if (len <= 0)
            return false;
        memcpy(before, key, sizeof before);
        sha256_two(slice_of((const char *)before, sizeof before),
                   slice_of((const char *)der, (size_t)len), key);
        OPENSSL_free(der);
    }
    return true;
}

static bool
valid_now(X509_STORE_CTX *ctx)
{
    STACK_OF(X509) *chain = X509_STORE_CTX_get0_chain(ctx);
    for (int i = 0; i < sk_X509_num(chain); i++) {
        const X509 *cert = sk_X509_value(chain, i);
        /* Zero is a time that cannot be read. */
        if (X509_cmp_current_time(X509_get0_notBefore(cert)) >= 0 ||
            X509_cmp_current_time(X509_get0_notAfter(cert)) <= 0)
            return false;
    }
    return true;
}

static bool
has_passed(struct signatures *s, const unsigned char key[SHA256_SIZE])
{
    struct passed *p = map_get(s->passed, slice_of((const char *)key, SHA256_SIZE));
    if (!p)
        return false;
    list_remove(&s->recent, &p->node);
    list_append(&s->recent, &p->node);
    return true;
}

static void
remember(struct signatures *s, const unsigned char key[SHA256_SIZE])
{
    struct passed *p = mem_zalloc(sizeof *p);
    memcpy(p->key, key, SHA256_SIZE);
    list_append(&s->recent, &p->node);
    map_put(s->passed, slice_of((const char *)key, SHA256_SIZE), p);
    if (s->recent.count <= SIGNATURES_MAX)
        return;
    p = list_entry(list_first(&s->recent), struct passed, node);
    list_remove(&s->recent, &p->node);
    map_remove(s->passed, slice_of((const char *)p->key, SHA256_SIZE));
    free(p);
}

static int
check(X509_STORE_CTX *ctx)
{
    struct signatures *s = X509_STORE_get_ex_data(X509_STORE_CTX_get0_store(ctx), store_index());
    unsigned char key[SHA256_SIZE];
    bool keyed = chain_key(ctx, key), known = keyed && has_passed(s, key);
    if (known && valid_now(ctx))
        return 1;
    int fine = s->check(ctx);
    if (keyed && !known && fine == 1 && X509_STORE_CTX_get_error(ctx) == X509_V_OK)
        remember(s, key);
    return fine;
}

/* The step as OpenSSL has it, which it gives to nobody but a verification that begins. */
static X509_STORE_CTX_verify_fn
usual_check(X509_STORE *store)
{
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    X509_STORE_CTX_verify_fn usual = ctx && X509_STORE_CTX_init(ctx, store, NULL, NULL) == 1
                                         ? X509_STORE_CTX_get_verify(ctx)
                                         : NULL;
    X509_STORE_CTX_free(ctx);
    return usual;
}

bool
signatures_remember(X509_STORE *store)
{
    X509_STORE_CTX_verify_fn usual = usual_check(store);
    if (!usual || usual == check)
        return usual == check;
    struct signatures *s = mem_zalloc(sizeof *s);
    s->check = usual;
    s->passed = map_new();
    list_init(&s->recent);
    if (X509_STORE_set_ex_data(store, store_index(), s) != 1) {
        map_free(s->passed, NULL);
        free(s);
        return false;
    }
    X509_STORE_set_verify(store, check);
    return true;
}
