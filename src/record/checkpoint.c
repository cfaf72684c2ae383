/* Signed heads of the chain. Keys come as PEM text from whoever opened the file; a private key
 * stays inside OpenSSL's object and is never printed. Ed25519 only: one algorithm, nothing to
 * negotiate. */
#include "sallyport/record/checkpoint.h"

#include <inttypes.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>

#include "sallyport/base/encoding.h"
#include "sallyport/base/json.h"
#include "sallyport/base/mem.h"
#include "sallyport/record/record.h"

#define RAW_KEY_SIZE 32   /* RFC 8032 section 5.1.5 */
#define SIGNATURE_SIZE 64 /* RFC 8032 section 5.1.6 */
#define SIGNATURE_TEXT ((SIGNATURE_SIZE + 2) / 3 * 4 + 1)
#define KEY_ID_SIZE 17 /* 16 hex digits and NUL */
#define HEAD_TEXT_MAX (20 + 1 + SHA256_HEX_SIZE)
#define DEPTH_MAX 8 /* of a record; OCSF's own nesting is 4 */

struct one_key {
    EVP_PKEY *pkey;
    char id[KEY_ID_SIZE];
};

struct checkpoint_key {
    struct one_key keys[CHECKPOINT_KEYS_MAX];
    size_t count;
};

static int
add_key(struct checkpoint_key *k, EVP_PKEY *pkey, const char *name, struct err *err)
{
    unsigned char raw[RAW_KEY_SIZE];
    char hex[SHA256_HEX_SIZE];
    size_t len = sizeof raw;
    if (EVP_PKEY_get_id(pkey) != EVP_PKEY_ED25519)
        return err_invalid(
            err, "%s: is not an Ed25519 key; `openssl genpkey -algorithm ed25519` makes one", name);
    if (EVP_PKEY_get_raw_public_key(pkey, raw, &len) != 1 || len != sizeof raw)
        return err_invalid(err, "%s: the public half of the key cannot be read", name);
    if (k->count == CHECKPOINT_KEYS_MAX)
        return err_invalid(err, "%s: holds more than %d keys", name, CHECKPOINT_KEYS_MAX);
    struct one_key *key = &k->keys[k->count++];
    sha256_hex(slice_of(raw, sizeof raw), hex);
    memcpy(key->id, hex, KEY_ID_SIZE - 1);
    key->id[KEY_ID_SIZE - 1] = '\0';
    key->pkey = pkey;
    return 0;
}

/* The key in one PEM block, or NULL when it is neither wanted form. */
static EVP_PKEY *
read_block(const char *type, const unsigned char *der, long len, bool private_only)
{
    const unsigned char *at = der;
    if (strcmp(type, PEM_STRING_PKCS8INF) == 0)
        return d2i_AutoPrivateKey(NULL, &at, len);
    if (!private_only && strcmp(type, PEM_STRING_PUBLIC) == 0)
        return d2i_PUBKEY(NULL, &at, len);
    return NULL;
}

static int
read_keys(struct checkpoint_key *k, BIO *bio, const char *name, bool private_only, struct err *err)
{
    char *type = NULL, *header = NULL;
    unsigned char *der = NULL;
    long len = 0;
    int result = 0;
    while (result == 0 && PEM_read_bio(bio, &type, &header, &der, &len) == 1) {
        EVP_PKEY *pkey = read_block(type, der, len, private_only);
        if (!pkey)
            result = err_invalid(err, "%s: expected a PEM block of %s, found another", name,
                                 private_only ? "an unencrypted private key" : "a public key");
        else if ((result = add_key(k, pkey, name, err)) != 0)
            EVP_PKEY_free(pkey);
        OPENSSL_free(type);
        OPENSSL_free(header);
        OPENSSL_clear_free(der, (size_t)len);
    }
    ERR_clear_error();
    if (result == 0 && k->count == 0)
        return err_invalid(err, "%s: holds no PEM key", name);
    if (result == 0 && private_only && k->count != 1)
        return err_invalid(err, "%s: expected one private key, found %zu", name, k->count);
    return result;
}

static struct checkpoint_key *
key_from_pem(struct slice pem, const char *name, bool private_only, struct err *err)
{
    if (pem.len > INT32_MAX) {
        err_invalid(err, "%s: is too long for a key", name);
        return NULL;
    }
    BIO *bio = BIO_new_mem_buf(pem.len ? pem.ptr : "", (int)pem.len);
    struct checkpoint_key *k = mem_zalloc(sizeof *k);
    int result = bio ? read_keys(k, bio, name, private_only, err)
                     : err_run(err, "%s: no memory for the key", name);
    BIO_free(bio);
    if (result == 0)
        return k;
    checkpoint_key_free(k);
    return NULL;
}

struct checkpoint_key *
checkpoint_key_private(struct slice pem, const char *name, struct err *err)
{
    return key_from_pem(pem, name, true, err);
}

struct checkpoint_key *
checkpoint_key_public(struct slice pem, const char *name, struct err *err)
{
    return key_from_pem(pem, name, false, err);
}

void
checkpoint_key_free(struct checkpoint_key *k)
{
    if (!k)
        return;
    for (size_t i = 0; i < k->count; i++)
        EVP_PKEY_free(k->keys[i].pkey); /* OpenSSL wipes the private half */
    free(k);
}

bool
checkpoint_key_write_public(const struct checkpoint_key *k, struct buf *out)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    bool ok = bio && PEM_write_bio_PUBKEY(bio, k->keys[0].pkey) == 1;
    long len = ok ? BIO_get_mem_data(bio, &text) : 0;
    ok = ok && len > 0 && buf_append(out, text, (size_t)len);
    BIO_free(bio);
    return ok;
}

static size_t
head_text(char text[HEAD_TEXT_MAX], uint64_t seq, const char *hash)
{
    return (size_t)snprintf(text, HEAD_TEXT_MAX, "%" PRIu64 ":%.64s", seq, hash);
}

static bool
sign(EVP_PKEY *pkey, struct slice text, char out[SIGNATURE_TEXT])
{
    unsigned char signature[SIGNATURE_SIZE];
    size_t len = sizeof signature;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok =
        ctx && EVP_DigestSignInit(ctx, NULL, NULL, NULL, pkey) == 1 &&
        EVP_DigestSign(ctx, signature, &len, (const unsigned char *)text.ptr, text.len) == 1 &&
        len == sizeof signature;
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    if (ok)
        base64url_encode(slice_of(signature, len), out);
    return ok;
}

static bool
signature_holds(EVP_PKEY *pkey, struct slice text, struct slice signature_text)
{
    unsigned char signature[SIGNATURE_SIZE];
    size_t len;
    if (signature_text.len != SIGNATURE_TEXT - 1 - 2 ||
        !base64url_decode(signature_text, signature, &len))
        return false;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, pkey) == 1 &&
              EVP_DigestVerify(ctx, signature, len, (const unsigned char *)text.ptr, text.len) == 1;
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    return ok;
}

bool
checkpoint_members(const struct checkpoint_key *k, const struct chain *c, struct buf *out)
{
    char head[HEAD_TEXT_MAX], signature[SIGNATURE_TEXT];
    if (c->next_seq <= 1)
        return false;
    size_t len = head_text(head, c->next_seq - 1, c->prev);
    if (!k)
        return buf_printf(out, "\"head\":\"%s\"", head);
    if (!sign(k->keys[0].pkey, slice_of(head, len), signature))
        return false;
    return buf_printf(out, "\"head\":\"%s\",\"key\":\"%s\",\"signature\":\"%s\"", head,
                      k->keys[0].id, signature);
}

static struct slice
text_of(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    if (!json_is_string(value))
        return slice_of(NULL, 0);
    return slice_of(json_string_value(value), json_string_length(value));
}

static enum checkpoint_verdict
check_members(const struct checkpoint_key *k, const json_t *members, struct slice head)
{
    struct slice key = text_of(members, "key"), signature = text_of(members, "signature");
    if (!slice_equal(text_of(members, "head"), head) || !key.ptr != !signature.ptr)
        return CHECKPOINT_BAD;
    if (!signature.ptr)
        return CHECKPOINT_UNSIGNED;
    for (size_t i = 0; k && i < k->count; i++) {
        if (slice_is(key, k->keys[i].id))
            return signature_holds(k->keys[i].pkey, head, signature) ? CHECKPOINT_GOOD
                                                                     : CHECKPOINT_BAD;
    }
    return CHECKPOINT_UNKNOWN;
}

enum checkpoint_verdict
checkpoint_check(const struct checkpoint_key *k, struct slice line, uint64_t seq,
                 const char prev[SHA256_HEX_SIZE])
{
    char head[HEAD_TEXT_MAX];
    struct err err;
    json_t *record = json_read_record(line, "checkpoint", DEPTH_MAX, &err);
    if (!record)
        return CHECKPOINT_BAD;
    size_t len = head_text(head, seq - 1, prev);
    const json_t *members = json_object_get(record, "unmapped"); /* as OCSF has it */
    enum checkpoint_verdict verdict =
        check_members(k, members ? members : record, slice_of(head, len));
    json_decref(record);
    return verdict;
}
