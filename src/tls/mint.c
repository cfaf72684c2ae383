/* Certificates of the inspection CA. Names go in as GENERAL_NAME objects made of the canonical host: a certificate text such
 * as "DNS:%s" would let a name forge others. No clock and no file here; the CA's key lives in struct ca and nowhere else. */
#include "sallyport/tls/mint.h"

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>

#include "sallyport/base/encoding.h"
#include "sallyport/base/mem.h"
#include "sallyport/base/random.h"
#include "sallyport/tls/library.h"

#define SERIAL_BYTES 16 /* 127 bits: the highest stays clear, so that the number is positive (RFC 5280 section 4.1.2.2) */
#define SKI_BYTES 20    /* the left 160 bits of SHA-256 over the key's bits (RFC 7093 section 2) */
#define CN_MAX 64       /* ub-common-name, RFC 5280 appendix A.1 */

struct ca {
    X509 *cert;
    EVP_PKEY *key;
    int64_t not_before, not_after;
    X509 *form;              /* a leaf without a host, filled in anew for each; NULL until there is one */
    EVP_PKEY *form_key;      /* whose it is */
};

static int
err_crypto(struct err *err, const char *what)
{
    unsigned long code = ERR_peek_last_error();
    const char *why = code ? ERR_reason_error_string(code) : NULL;
    ERR_clear_error();
    return err_invalid(err, "%s%s%s", what, why ? ": " : "", why ? why : "");
}

static BIO *
pem_open(struct slice pem)
{
    if (pem.len == 0 || pem.len > CA_PEM_MAX)
        return NULL;
    return BIO_new_mem_buf(pem.ptr, (int)pem.len);
}

static char *
bio_text(BIO *bio)
{
    char *data = NULL;
    long len = BIO_get_mem_data(bio, &data);
    char *text = len > 0 ? mem_dup_slice(slice_of(data, (size_t)len)) : NULL;
    if (data && len > 0)
        mem_wipe(data, (size_t)len);
    BIO_free(bio);
    return text;
}

static char *
cert_text(X509 *cert)
{
    BIO *bio = BIO_new(BIO_s_mem());
    if (!bio || PEM_write_bio_X509(bio, cert) != 1)
        abort();
    return bio_text(bio);
}

static char *
private_text(EVP_PKEY *key)
{
    BIO *bio = BIO_new(BIO_s_mem());
    if (!bio || PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1)
        abort();
    return bio_text(bio);
}

/* ---- parts of a certificate; all return 1 when it took them ---- */

static int
set_serial(X509 *cert)
{
    unsigned char bytes[SERIAL_BYTES];
    do {
        random_bytes(bytes, sizeof bytes);
        bytes[0] &= 0x7f;
    } while (bytes[0] == 0); /* all of one length, and never zero */
    BIGNUM *n = BN_bin2bn(bytes, sizeof bytes, NULL);
    int ok = n && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert)) != NULL;
    BN_free(n);
    return ok;
}

static int
set_times(X509 *cert, int64_t from_s, int64_t to_s)
{
    return ASN1_TIME_set(X509_getm_notBefore(cert), (time_t)from_s) && ASN1_TIME_set(X509_getm_notAfter(cert), (time_t)to_s);
}

static int
add_extension(X509 *cert, int nid, void *value, bool critical)
{
    return value && X509_add1_ext_i2d(cert, nid, value, critical, X509V3_ADD_DEFAULT) == 1;
}

static int
add_basic_constraints(X509 *cert, bool ca)
{
    BASIC_CONSTRAINTS *bc = BASIC_CONSTRAINTS_new();
    if (!bc)
        return 0;
    bc->ca = ca ? 0xff : 0;
    if (ca)
        bc->pathlen = ASN1_INTEGER_new(); /* zero: it signs leaves and no further CA */
    int ok = (!ca || (bc->pathlen && ASN1_INTEGER_set(bc->pathlen, 0))) && add_extension(cert, NID_basic_constraints, bc, true);
    BASIC_CONSTRAINTS_free(bc);
    return ok;
}

/* Bit numbers of RFC 5280 section 4.2.1.3. */
enum { USAGE_DIGITAL_SIGNATURE = 0, USAGE_CERT_SIGN = 5, USAGE_CRL_SIGN = 6 };

static int
add_key_usage(X509 *cert, int bit, int other)
{
    ASN1_BIT_STRING *bits = ASN1_BIT_STRING_new();
    int ok = bits && ASN1_BIT_STRING_set_bit(bits, bit, 1) && ASN1_BIT_STRING_set_bit(bits, other, 1) &&
             add_extension(cert, NID_key_usage, bits, true);
    ASN1_BIT_STRING_free(bits);
    return ok;
}

static int
add_server_auth(X509 *cert)
{
    EXTENDED_KEY_USAGE *eku = sk_ASN1_OBJECT_new_null();
    int ok = eku && sk_ASN1_OBJECT_push(eku, OBJ_nid2obj(NID_server_auth)) > 0 && add_extension(cert, NID_ext_key_usage, eku, false);
    sk_ASN1_OBJECT_pop_free(eku, ASN1_OBJECT_free);
    return ok;
}

static bool
key_id(X509 *cert, unsigned char out[SHA256_SIZE])
{
    const ASN1_BIT_STRING *bits = X509_get0_pubkey_bitstr(cert);
    if (!bits || bits->length <= 0)
        return false;
    sha256(slice_of((const char *)bits->data, (size_t)bits->length), out);
    return true;
}

static int
add_subject_key_id(X509 *cert)
{
    unsigned char digest[SHA256_SIZE];
    ASN1_OCTET_STRING *id = ASN1_OCTET_STRING_new();
    int ok = id && key_id(cert, digest) && ASN1_OCTET_STRING_set(id, digest, SKI_BYTES) &&
             add_extension(cert, NID_subject_key_identifier, id, false);
    ASN1_OCTET_STRING_free(id);
    return ok;
}

static int
add_authority_key_id(X509 *cert, X509 *issuer)
{
    const ASN1_OCTET_STRING *ski = X509_get0_subject_key_id(issuer);
    AUTHORITY_KEYID *aki = AUTHORITY_KEYID_new();
    if (aki && ski)
        aki->keyid = ASN1_OCTET_STRING_dup(ski);
    int ok = aki && aki->keyid && add_extension(cert, NID_authority_key_identifier, aki, false);
    AUTHORITY_KEYID_free(aki);
    return ok;
}

static int
add_name_entry(X509_NAME *name, int nid, const char *text)
{
    return X509_NAME_add_entry_by_NID(name, nid, MBSTRING_UTF8, (const unsigned char *)text, -1, -1, 0);
}

static GENERAL_NAME *
general_dns(const char *text, size_t len)
{
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_IA5STRING *value = ASN1_IA5STRING_new();
    if (!name || !value || !ASN1_STRING_set(value, text, (int)len))
        abort();
    GENERAL_NAME_set0_value(name, GEN_DNS, value);
    return name;
}

/* bytes: 4 or 16; twice that with a mask behind them, in name constraints. */
static GENERAL_NAME *
general_ip(const unsigned char *bytes, size_t len)
{
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();
    if (!name || !value || !ASN1_OCTET_STRING_set(value, bytes, (int)len))
        abort();
    GENERAL_NAME_set0_value(name, GEN_IPADD, value);
    return name;
}

static GENERAL_NAME *
general_host(const struct host *h)
{
    switch (h->kind) {
    case HOST_NONE:
        break;
    case HOST_NAME:
        return general_dns(h->text, h->len);
    case HOST_IPV4:
        return general_ip(h->literal.bytes, 4);
    case HOST_IPV6:
        return general_ip(h->literal.bytes, 16);
    }
    return NULL;
}

static int
add_alternative_name(X509 *cert, const struct host *h, bool critical)
{
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    GENERAL_NAME *name = general_host(h);
    int ok = names && name && sk_GENERAL_NAME_push(names, name) > 0;
    if (!ok)
        GENERAL_NAME_free(name);
    ok = ok && add_extension(cert, NID_subject_alt_name, names, critical);
    GENERAL_NAMES_free(names);
    return ok;
}

static int
sign(X509 *cert, EVP_PKEY *key)
{
    bool own_digest = EVP_PKEY_is_a(key, "ED25519") || EVP_PKEY_is_a(key, "ED448");
    return X509_sign(cert, key, own_digest ? NULL : EVP_sha256()) > 0;
}

/* ---- making a CA ---- */

static int
push_subtree(STACK_OF(GENERAL_SUBTREE) **list, GENERAL_NAME *base)
{
    GENERAL_SUBTREE *tree = GENERAL_SUBTREE_new();
    if (!*list)
        *list = sk_GENERAL_SUBTREE_new_null();
    if (!tree || !*list)
        abort();
    GENERAL_NAME_free(tree->base);
    tree->base = base;
    return sk_GENERAL_SUBTREE_push(*list, tree) > 0;
}

static GENERAL_NAME *
general_range(const struct cidr *range)
{
    unsigned char bytes[32] = {0};
    size_t len = range->base.family == AF_INET ? 4 : 16;
    memcpy(bytes, range->base.bytes, len);
    for (size_t i = 0; i < range->bits; i++)
        bytes[len + i / 8] |= (unsigned char)(0x80 >> i % 8);
    return general_ip(bytes, 2 * len);
}

/* A kind of name that no subtree speaks of is not constrained at all (RFC 5280 section 4.2.1.10): kinds that were not
 * asked for are excluded whole. */
static int
exclude_the_rest(NAME_CONSTRAINTS *nc, bool names, bool v4, bool v6)
{
    static const struct cidr all_v4 = {.base = {.family = AF_INET}}, all_v6 = {.base = {.family = AF_INET6}};
    return (names || push_subtree(&nc->excludedSubtrees, general_dns("", 0))) &&
           (v4 || push_subtree(&nc->excludedSubtrees, general_range(&all_v4))) &&
           (v6 || push_subtree(&nc->excludedSubtrees, general_range(&all_v6)));
}

static int
add_name_constraints(X509 *cert, const struct ca_options *o)
{
    NAME_CONSTRAINTS *nc = NAME_CONSTRAINTS_new();
    bool names = false, v4 = false, v6 = false;
    int ok = nc != NULL;
    for (size_t i = 0; ok && i < o->constraint_count; i++) {
        const struct ca_constraint *c = &o->constraints[i];
        bool is_name = c->name.kind == HOST_NAME;
        names |= is_name;
        v4 |= !is_name && c->range.base.family == AF_INET;
        v6 |= !is_name && c->range.base.family == AF_INET6;
        ok = push_subtree(&nc->permittedSubtrees, is_name ? general_dns(c->name.text, c->name.len) : general_range(&c->range));
    }
    ok = ok && exclude_the_rest(nc, names, v4, v6) && add_extension(cert, NID_name_constraints, nc, true);
    NAME_CONSTRAINTS_free(nc);
    return ok;
}

/* A name of its own for each key: two CAs of one name in a trust store are taken for one another. */
static int
name_ca(X509 *cert)
{
    unsigned char digest[SHA256_SIZE];
    char hex[SHA256_HEX_SIZE], common[64];
    if (!key_id(cert, digest))
        return 0;
    hex_encode(digest, sizeof digest, hex);
    snprintf(common, sizeof common, "sallyport inspection CA %.16s", hex);
    X509_NAME *name = X509_get_subject_name(cert);
    return add_name_entry(name, NID_organizationName, "sallyport") && add_name_entry(name, NID_commonName, common) &&
           X509_set_issuer_name(cert, name);
}

static X509 *
make_ca(const struct ca_options *o, EVP_PKEY *key)
{
    X509 *cert = X509_new();
    bool ok = cert && X509_set_version(cert, X509_VERSION_3) && set_serial(cert) &&
              set_times(cert, o->now_s - LEAF_BACKDATE_S, o->now_s + o->days * 86400) && X509_set_pubkey(cert, key) && name_ca(cert) &&
              add_basic_constraints(cert, true) && add_key_usage(cert, USAGE_CERT_SIGN, USAGE_CRL_SIGN) && add_subject_key_id(cert) &&
              (o->constraint_count == 0 || add_name_constraints(cert, o)) && sign(cert, key);
    if (!ok) {
        X509_free(cert);
        return NULL;
    }
    return cert;
}

int
ca_generate(const struct ca_options *o, char **ret_cert_pem, char **ret_key_pem, struct err *err)
{
    if (o->days < 1 || o->days > CA_DAYS_MAX || o->constraint_count > CA_CONSTRAINTS_MAX)
        return err_invalid(err, "a CA of 1 to %d days and at most %d constraints is expected", CA_DAYS_MAX, CA_CONSTRAINTS_MAX);
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = key ? make_ca(o, key) : NULL;
    if (cert) {
        *ret_cert_pem = cert_text(cert);
        *ret_key_pem = private_text(key);
    }
    X509_free(cert);
    EVP_PKEY_free(key);
    return cert ? 0 : err_crypto(err, "the CA cannot be made");
}

int
leaf_key_generate(char **ret_private_pem, char **ret_public_pem, struct err *err)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    BIO *bio = BIO_new(BIO_s_mem());
    if (!key || !bio || PEM_write_bio_PUBKEY(bio, key) != 1) {
        EVP_PKEY_free(key);
        BIO_free(bio);
        return err_crypto(err, "the leaf key cannot be made");
    }
    *ret_private_pem = private_text(key);
    *ret_public_pem = bio_text(bio);
    EVP_PKEY_free(key);
    return 0;
}

EVP_PKEY *
leaf_key_public(struct slice public_pem, struct err *err)
{
    BIO *bio = pem_open(public_pem);
    EVP_PKEY *key = bio ? PEM_read_bio_PUBKEY(bio, NULL, tls_no_passphrase, NULL) : NULL;
    BIO_free(bio);
    if (!key)
        err_crypto(err, "the public leaf key cannot be read");
    return key;
}

/* ---- loading a CA ---- */

static void
drop_form(struct ca *ca)
{
    X509_free(ca->form);
    EVP_PKEY_free(ca->form_key);
    ca->form = NULL;
    ca->form_key = NULL;
}


static bool
asn1_seconds(const ASN1_TIME *t, int64_t *ret)
{
    struct tm tm = {0};
    if (ASN1_TIME_to_tm(t, &tm) != 1)
        return false;
    *ret = (int64_t)timegm(&tm);
    return true;
}

static X509 *
read_cert(struct slice pem)
{
    BIO *bio = pem_open(pem);
    X509 *cert = bio ? PEM_read_bio_X509(bio, NULL, tls_no_passphrase, NULL) : NULL;
    BIO_free(bio);
    return cert;
}

static int
check_is_ca(X509 *cert, struct err *err)
{
    if (X509_check_ca(cert) != 1)
        return err_invalid(err, "the certificate is none of a CA (basicConstraints CA:TRUE and keyCertSign are expected)");
    if (!(X509_get_extension_flags(cert) & EXFLAG_KUSAGE) || !(X509_get_key_usage(cert) & KU_KEY_CERT_SIGN))
        return err_invalid(err, "the CA's key usage does not say that it may sign certificates (keyCertSign)");
    if (!X509_get0_subject_key_id(cert))
        return err_invalid(err, "the CA has no subject key identifier, which strict clients look for");
    return 0;
}

static int
check_times(const struct ca *ca, int64_t now_s, struct err *err)
{
    char text[CLOCK_TEXT_SIZE];
    if (now_s >= ca->not_after) {
        clock_format_utc(ca->not_after * 1000000, text);
        return err_invalid(err, "the CA expired at %s; make a new one", text);
    }
    if (now_s < ca->not_before) {
        clock_format_utc(ca->not_before * 1000000, text);
        return err_invalid(err, "the CA is not valid before %s", text);
    }
    return 0;
}

static int
check_strength(const EVP_PKEY *key, struct err *err)
{
    int bits = EVP_PKEY_get_security_bits(key);
    /* RSA-2048 counts as 112. */
    return bits < 112 ? err_invalid(err, "the CA's key is too weak: P-256, or RSA of 2048 bits, is the least") : 0;
}

static int
load_key(struct ca *ca, struct slice pem, struct err *err)
{
    BIO *bio = pem_open(pem);
    if (!bio)
        return err_invalid(err, "the CA's private key is empty or too large; expected PEM");
    ca->key = PEM_read_bio_PrivateKey(bio, NULL, tls_no_passphrase, NULL);
    BIO_free(bio);
    if (!ca->key)
        return err_crypto(err, "the CA's private key cannot be read; expected PEM without a passphrase");
    if (X509_check_private_key(ca->cert, ca->key) != 1) {
        ERR_clear_error();
        return err_invalid(err, "the private key does not belong to the CA's certificate");
    }
    return check_strength(ca->key, err);
}

static int
load_cert(struct ca *ca, struct slice pem, struct err *err)
{
    ca->cert = read_cert(pem);
    if (!ca->cert)
        return err_crypto(err, "the CA's certificate cannot be read; expected PEM");
    if (!asn1_seconds(X509_get0_notBefore(ca->cert), &ca->not_before) || !asn1_seconds(X509_get0_notAfter(ca->cert), &ca->not_after))
        return err_invalid(err, "the CA's validity cannot be read");
    return check_is_ca(ca->cert, err);
}

struct ca *
ca_load(struct slice cert_pem, struct slice key_pem, int64_t now_s, struct err *err)
{
    struct ca *ca = mem_zalloc(sizeof *ca);
    ERR_clear_error();
    if (load_cert(ca, cert_pem, err) < 0 || load_key(ca, key_pem, err) < 0 || check_times(ca, now_s, err) < 0) {
        ca_free(ca);
        return NULL;
    }
    return ca;
}

void
ca_free(struct ca *ca)
{
    if (!ca)
        return;
    drop_form(ca);
    X509_free(ca->cert);
    EVP_PKEY_free(ca->key);
    free(ca);
}

int64_t
ca_not_after(const struct ca *ca)
{
    return ca->not_after;
}

/* ---- minting ---- */

/* A name that does not fit into a CN is said in the SAN alone, which is critical then (RFC 5280 section 4.2.1.6). */
static int
name_leaf(X509 *cert, const struct host *h)
{
    char text[HOST_TEXT_SIZE];
    snprintf(text, sizeof text, "%.*s", h->kind == HOST_IPV6 ? h->len - 2 : h->len, h->kind == HOST_IPV6 ? h->text + 1 : h->text);
    bool fits = strlen(text) <= CN_MAX;
    return (!fits || add_name_entry(X509_get_subject_name(cert), NID_commonName, text)) && add_alternative_name(cert, h, !fits);
}

/* What all leaves of one key share. The key is encoded for it once: OpenSSL takes five times as long for that as for all the
 * rest of a leaf, signature included. */
static X509 *
make_form(const struct ca *ca, EVP_PKEY *leaf_public)
{
    X509 *cert = X509_new();
    bool ok = cert && X509_set_version(cert, X509_VERSION_3) && X509_set_issuer_name(cert, X509_get_subject_name(ca->cert)) &&
              X509_set_pubkey(cert, leaf_public) && add_basic_constraints(cert, false) &&
              add_key_usage(cert, USAGE_DIGITAL_SIGNATURE, USAGE_DIGITAL_SIGNATURE) && add_server_auth(cert) && add_subject_key_id(cert) &&
              add_authority_key_id(cert, ca->cert);
    if (!ok) {
        X509_free(cert);
        return NULL;
    }
    return cert;
}

static X509 *
form_for(struct ca *ca, EVP_PKEY *leaf_public)
{
    if (ca->form && ca->form_key == leaf_public)
        return ca->form;
    drop_form(ca);
    ca->form = make_form(ca, leaf_public);
    if (ca->form && EVP_PKEY_up_ref(leaf_public))
        ca->form_key = leaf_public;
    return ca->form;
}

/* Nothing of the host before this one stays in it. */
static int
clear_names(X509 *cert)
{
    X509_NAME *none = X509_NAME_new();
    int at = X509_get_ext_by_NID(cert, NID_subject_alt_name, -1);
    int ok = none && X509_set_subject_name(cert, none);
    X509_NAME_free(none);
    if (at >= 0)
        X509_EXTENSION_free(X509_delete_ext(cert, at));
    return ok;
}

static X509 *
make_leaf(struct ca *ca, const struct host *h, EVP_PKEY *leaf_public, int64_t now_s)
{
    int64_t from = now_s - LEAF_BACKDATE_S, to = now_s + LEAF_LIFETIME_S;
    if (from < ca->not_before)
        from = ca->not_before;
    if (to > ca->not_after)
        to = ca->not_after;
    X509 *cert = form_for(ca, leaf_public);
    bool ok = cert && set_serial(cert) && set_times(cert, from, to) && clear_names(cert) && name_leaf(cert, h) && sign(cert, ca->key);
    if (!ok)
        drop_form(ca);
    return ok ? cert : NULL;
}

bool
ca_mint(struct ca *ca, const struct host *host, EVP_PKEY *leaf_public, int64_t now_s, unsigned char **ret_der, size_t *ret_len)
{
    unsigned char *der = NULL;
    if (host->kind == HOST_NONE || host->len == 0 || now_s >= ca->not_after || now_s < ca->not_before)
        return false;
    X509 *cert = make_leaf(ca, host, leaf_public, now_s);
    int len = cert ? i2d_X509(cert, &der) : -1;
    ERR_clear_error();
    if (len <= 0 || len > LEAF_DER_MAX) {
        OPENSSL_free(der);
        return false;
    }
    *ret_der = mem_alloc((size_t)len);
    memcpy(*ret_der, der, (size_t)len);
    *ret_len = (size_t)len;
    OPENSSL_free(der);
    return true;
}

/* ---- describing ---- */

static void
describe_subtree(BIO *out, const GENERAL_NAME *base)
{
    int type;
    const ASN1_STRING *value = GENERAL_NAME_get0_value(base, &type);
    if (type == GEN_DNS) {
        BIO_printf(out, "%.*s\n", ASN1_STRING_length(value), (const char *)ASN1_STRING_get0_data(value));
        return;
    }
    int len = type == GEN_IPADD ? ASN1_STRING_length(value) / 2 : 0;
    if (len != 4 && len != 16)
        return;
    const unsigned char *bytes = ASN1_STRING_get0_data(value);
    struct addr a = {.family = len == 4 ? AF_INET : AF_INET6};
    char text[ADDR_TEXT_SIZE];
    int bits = 0;
    memcpy(a.bytes, bytes, (size_t)len);
    addr_format(&a, text);
    while (bits < 8 * len && (bytes[len + bits / 8] >> (7 - bits % 8) & 1))
        bits++;
    BIO_printf(out, "%s/%d\n", text, bits);
}

static char *
describe_constraints(X509 *cert)
{
    NAME_CONSTRAINTS *nc = X509_get_ext_d2i(cert, NID_name_constraints, NULL, NULL);
    BIO *out = BIO_new(BIO_s_mem());
    for (int i = 0; nc && i < sk_GENERAL_SUBTREE_num(nc->permittedSubtrees); i++)
        describe_subtree(out, sk_GENERAL_SUBTREE_value(nc->permittedSubtrees, i)->base);
    NAME_CONSTRAINTS_free(nc);
    char *text = bio_text(out);
    return text ? text : mem_strdup("");
}

static void
describe_key(X509 *cert, char text[32])
{
    const EVP_PKEY *key = X509_get0_pubkey(cert);
    char group[20] = "";
    if (!key)
        snprintf(text, 32, "unknown");
    else if (EVP_PKEY_get_group_name(key, group, sizeof group, NULL) == 1)
        snprintf(text, 32, "EC %s", strcmp(group, "prime256v1") == 0 ? "P-256" : group);
    else
        snprintf(text, 32, "%.12s %d", EVP_PKEY_get0_type_name(key), EVP_PKEY_get_bits(key));
}

static void
describe_bytes(const ASN1_STRING *s, char *out, size_t size)
{
    size_t len = s ? (size_t)ASN1_STRING_length(s) : 0;
    if (len > (size - 1) / 2)
        len = (size - 1) / 2;
    hex_encode(s ? ASN1_STRING_get0_data(s) : (const unsigned char *)"", len, out);
}

static int
describe_name(X509 *cert, char *out, size_t size)
{
    BIO *bio = BIO_new(BIO_s_mem());
    X509_NAME_print_ex(bio, X509_get_subject_name(cert), 0, XN_FLAG_RFC2253);
    cleanup_free char *text = bio_text(bio);
    return snprintf(out, size, "%s", text ? text : "");
}

int
ca_describe(struct slice cert_pem, struct ca_facts *ret, struct err *err)
{
    struct ca_facts f = {0};
    unsigned char *der = NULL;
    ERR_clear_error();
    X509 *cert = read_cert(cert_pem);
    int len = cert ? i2d_X509(cert, &der) : -1;
    if (len <= 0 || !asn1_seconds(X509_get0_notBefore(cert), &f.not_before_s) || !asn1_seconds(X509_get0_notAfter(cert), &f.not_after_s)) {
        X509_free(cert);
        OPENSSL_free(der);
        return err_crypto(err, "the CA's certificate cannot be read; expected PEM");
    }
    sha256_hex(slice_of((const char *)der, (size_t)len), f.sha256);
    OPENSSL_free(der);
    describe_name(cert, f.subject, sizeof f.subject);
    describe_key(cert, f.key);
    describe_bytes(X509_get0_serialNumber(cert), f.serial, sizeof f.serial);
    describe_bytes(X509_get0_subject_key_id(cert), f.ski, sizeof f.ski);
    clock_format_utc(f.not_before_s * 1000000, f.not_before);
    clock_format_utc(f.not_after_s * 1000000, f.not_after);
    f.constraints = describe_constraints(cert);
    X509_free(cert);
    *ret = f;
    return 0;
}

void
ca_facts_done(struct ca_facts *f)
{
    free(f->constraints);
    f->constraints = NULL;
}
