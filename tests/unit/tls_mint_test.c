/* Certificates of the inspection CA: what is in them, held against OpenSSL's strictest verification; hostile names, edges of
 * names and times, constraints, and CAs that must not be used. */
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "sallyport/base/mem.h"
#include "sallyport/tls/mint.h"
#include "unit/certs.h"
#include "unit/test.h"

#define NOW INT64_C(1800000000) /* 2027-01-15 */
#define DAY INT64_C(86400)

static struct ca *ca;
static char *ca_pem, *ca_key;
static EVP_PKEY *leaf_public;

static struct ca_options
options(int64_t days)
{
    return (struct ca_options){.now_s = NOW, .days = days};
}

static void
begin(void)
{
    struct err err = {0};
    char *private_pem, *public_pem;
    if (ca)
        return;
    struct ca_options o = options(30);
    if (ca_generate(&o, &ca_pem, &ca_key, &err) < 0 || leaf_key_generate(&private_pem, &public_pem, &err) < 0)
        abort();
    ca = ca_load(slice_str(ca_pem), slice_str(ca_key), NOW, &err);
    leaf_public = leaf_key_public(slice_str(public_pem), &err);
    if (!ca || !leaf_public)
        abort();
    free(private_pem);
    free(public_pem);
}

__attribute__((destructor)) static void
end(void)
{
    ca_free(ca);
    EVP_PKEY_free(leaf_public);
    free(ca_pem);
    free(ca_key);
}

static struct host
host_of(const char *text)
{
    struct host h = {0};
    if (!host_parse(slice_str(text), &h))
        printf("  not canonical: %s\n", text);
    return h;
}

static X509 *
mint_by(struct ca *by, const struct host *h, int64_t now)
{
    unsigned char *der = NULL;
    size_t len = 0;
    if (!ca_mint(by, h, leaf_public, now, &der, &len))
        return NULL;
    const unsigned char *at = der;
    X509 *cert = d2i_X509(NULL, &at, (long)len);
    CHECK(cert && at == der + len);
    free(der);
    return cert;
}

static X509 *
mint(const char *text)
{
    begin();
    struct host h = host_of(text);
    return mint_by(ca, &h, NOW);
}

static X509 *
cert_of(const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    BIO_free(bio);
    return cert;
}

/* As a strict client would: purpose, name, every rule of X509_STRICT. */
static int
verify(X509 *leaf, const char *root_pem, const char *name, bool ip, int64_t at)
{
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    X509 *root = cert_of(root_pem);
    X509_STORE_add_cert(store, root);
    X509_STORE_CTX_init(ctx, store, leaf, NULL);
    X509_VERIFY_PARAM *p = X509_STORE_CTX_get0_param(ctx);
    X509_VERIFY_PARAM_set_flags(p, X509_V_FLAG_X509_STRICT | X509_V_FLAG_CHECK_SS_SIGNATURE | X509_V_FLAG_POLICY_CHECK);
    X509_VERIFY_PARAM_set_purpose(p, X509_PURPOSE_SSL_SERVER);
    X509_VERIFY_PARAM_set_time(p, (time_t)at);
    X509_VERIFY_PARAM_set_auth_level(p, 2);
    X509_VERIFY_PARAM_set_hostflags(p, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    if (ip)
        X509_VERIFY_PARAM_set1_ip_asc(p, name);
    else
        X509_VERIFY_PARAM_set1_host(p, name, 0);
    int rc = X509_verify_cert(ctx) == 1 ? X509_V_OK : X509_STORE_CTX_get_error(ctx);
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    X509_free(root);
    return rc;
}

static bool
is_critical(X509 *cert, int nid)
{
    int at = X509_get_ext_by_NID(cert, nid, -1);
    /* exactly one */
    return at >= 0 && X509_get_ext_by_NID(cert, nid, at) < 0 && X509_EXTENSION_get_critical(X509_get_ext(cert, at));
}

static bool
is_there(X509 *cert, int nid)
{
    return X509_get_ext_by_NID(cert, nid, -1) >= 0;
}

static int64_t
seconds(const ASN1_TIME *t)
{
    struct tm tm = {0};
    return ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) : -1;
}

/* The one SAN, as text; "" when there is not exactly one. */
static const char *
only_san(X509 *cert)
{
    static char text[512];
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    text[0] = '\0';
    if (names && sk_GENERAL_NAME_num(names) == 1) {
        int type;
        const ASN1_STRING *s = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, 0), &type);
        if (type == GEN_DNS)
            snprintf(text, sizeof text, "DNS:%.*s", ASN1_STRING_length(s), (const char *)ASN1_STRING_get0_data(s));
        else if (type == GEN_IPADD)
            snprintf(text, sizeof text, "IP:%d bytes", ASN1_STRING_length(s));
    }
    GENERAL_NAMES_free(names);
    return text;
}

TEST(strict_clients_accept_a_leaf)
{
    static const struct { const char *host, *name; bool ip; } rows[] = {
        {"www.example.com", "www.example.com", false}, {"a", "a", false},          {"xn--bcher-kva.example", "xn--bcher-kva.example", false},
        {"under_score.example.net", "under_score.example.net", false},             {"192.0.2.7", "192.0.2.7", true},
        {"[2001:db8::1]", "2001:db8::1", true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        X509 *leaf = mint(rows[i].host);
        CHECK_THAT(leaf && verify(leaf, ca_pem, rows[i].name, rows[i].ip, NOW) == X509_V_OK, "%s", rows[i].host);
        CHECK_THAT(leaf && verify(leaf, ca_pem, "other.example.com", false, NOW) == X509_V_ERR_HOSTNAME_MISMATCH, "%s", rows[i].host);
        X509_free(leaf);
    }
}

TEST(a_leaf_has_what_it_must_and_no_more)
{
    X509 *leaf = mint("www.example.com");
    X509 *root = cert_of(ca_pem);
    CHECK(X509_get_version(leaf) == X509_VERSION_3);
    CHECK(X509_get_ext_count(leaf) == 6);
    CHECK(is_critical(leaf, NID_basic_constraints) && is_critical(leaf, NID_key_usage));
    CHECK(is_there(leaf, NID_ext_key_usage) && is_there(leaf, NID_subject_key_identifier) && is_there(leaf, NID_authority_key_identifier));
    CHECK(X509_check_ca(leaf) == 0);
    CHECK(X509_get_key_usage(leaf) == KU_DIGITAL_SIGNATURE && X509_get_extended_key_usage(leaf) == XKU_SSL_SERVER);
    CHECK(ASN1_OCTET_STRING_cmp(X509_get0_authority_key_id(leaf), X509_get0_subject_key_id(root)) == 0);
    CHECK(EVP_PKEY_eq(X509_get0_pubkey(leaf), leaf_public) == 1);
    CHECK(X509_NAME_cmp(X509_get_issuer_name(leaf), X509_get_subject_name(root)) == 0);
    CHECK_STR(only_san(leaf), "DNS:www.example.com");
    CHECK(!is_critical(leaf, NID_subject_alt_name));
    X509_free(leaf);
    X509_free(root);
}

TEST(serials_are_positive_long_and_never_the_same)
{
    char last[64] = "";
    for (int i = 0; i < 200; i++) {
        X509 *leaf = mint("www.example.com");
        const ASN1_INTEGER *serial = X509_get0_serialNumber(leaf);
        char *hex = i2s_ASN1_INTEGER(NULL, serial);
        CHECK(serial->type == V_ASN1_INTEGER && serial->length == 16 && !(serial->data[0] & 0x80));
        CHECK(strcmp(hex, last) != 0);
        snprintf(last, sizeof last, "%s", hex);
        OPENSSL_free(hex);
        X509_free(leaf);
    }
}

TEST(a_name_of_64_bytes_is_a_cn_and_one_of_65_is_not)
{
    char name[80] = "";
    memset(name, 'a', 52);
    strcpy(name + 52, ".example.com"); /* 64 */
    X509 *fits = mint(name);
    CHECK(strlen(name) == 64 && X509_NAME_entry_count(X509_get_subject_name(fits)) == 1 && !is_critical(fits, NID_subject_alt_name));
    CHECK(verify(fits, ca_pem, name, false, NOW) == X509_V_OK);
    X509_free(fits);
    memset(name, 'a', 53);
    strcpy(name + 53, ".example.com");
    X509 *over = mint(name);
    CHECK(strlen(name) == 65 && X509_NAME_entry_count(X509_get_subject_name(over)) == 0 && is_critical(over, NID_subject_alt_name));
    CHECK(verify(over, ca_pem, name, false, NOW) == X509_V_OK);
    X509_free(over);
}

TEST(the_longest_name_is_minted)
{
    char name[HOST_MAX + 1];
    for (int i = 0; i < HOST_MAX; i++)
        name[i] = i % 62 == 61 ? '.' : 'b';
    name[HOST_MAX] = '\0';
    X509 *leaf = mint(name);
    CHECK(leaf && verify(leaf, ca_pem, name, false, NOW) == X509_V_OK);
    X509_free(leaf);
}

/* Names come in as struct host only. One that was not made by host_parse still cannot become two names or a wildcard. */
TEST(a_name_is_one_name_whatever_it_holds)
{
    static const char *const hostile[] = {"a.example,DNS:b.example", "a.example\nDNS:b.example", "DNS:b.example", "a.example, IP:127.0.0.1"};
    begin();
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        struct host parsed;
        CHECK_THAT(!host_parse(slice_str(hostile[i]), &parsed), "%s", hostile[i]);
        struct host forged = {.kind = HOST_NAME, .len = (uint8_t)strlen(hostile[i])};
        strcpy(forged.text, hostile[i]);
        X509 *leaf = mint_by(ca, &forged, NOW);
        char expected[128];
        snprintf(expected, sizeof expected, "DNS:%s", hostile[i]);
        if (leaf)
            CHECK_STR(only_san(leaf), expected);
        X509_free(leaf);
    }
    struct host none = {0}, wildcard;
    CHECK(!mint_by(ca, &none, NOW));
    CHECK(!host_parse(slice_str("*.example.com"), &wildcard));
}

/* One CA mints for one host after the other, and for several keys: each leaf is what a CA would make that never made another. */
TEST(a_leaf_has_nothing_of_the_one_before)
{
    static const char *const hosts[] = {"a.example.com", "a-name-that-is-longer-than-the-64-bytes-of-a-common-name.example.com", "[2001:db8::1]",
                                        "b.example.com", "192.0.2.7", "a.example.com"};
    char *private_pem, *public_pem;
    struct err err = {0};
    begin();
    leaf_key_generate(&private_pem, &public_pem, &err);
    EVP_PKEY *own = leaf_public, *other = leaf_key_public(slice_str(public_pem), &err);
    X509 *issuer = cert_of(ca_pem);
    struct ca *used = ca_load(slice_str(ca_pem), slice_str(ca_key), NOW, &err);
    for (size_t i = 0; i < 2 * sizeof hosts / sizeof hosts[0]; i++) {
        struct host h = host_of(hosts[i / 2]);
        leaf_public = i % 3 ? own : other;
        struct ca *fresh = ca_load(slice_str(ca_pem), slice_str(ca_key), NOW, &err);
        X509 *a = mint_by(used, &h, NOW + (int64_t)i), *b = mint_by(fresh, &h, NOW + (int64_t)i);
        CHECK_THAT(X509_NAME_cmp(X509_get_subject_name(a), X509_get_subject_name(b)) == 0, "%s", hosts[i / 2]);
        CHECK(X509_verify(a, X509_get0_pubkey(issuer)) == 1 && EVP_PKEY_eq(X509_get0_pubkey(a), leaf_public) == 1);
        CHECK(ASN1_TIME_compare(X509_get0_notAfter(a), X509_get0_notAfter(b)) == 0 && X509_get_ext_count(a) == X509_get_ext_count(b));
        for (int k = 0; k < X509_get_ext_count(b); k++) {
            X509_EXTENSION *there = X509_get_ext(b, k);
            int at = X509_get_ext_by_OBJ(a, X509_EXTENSION_get_object(there), -1);
            CHECK(at >= 0 && X509_EXTENSION_get_critical(X509_get_ext(a, at)) == X509_EXTENSION_get_critical(there));
            CHECK(at >= 0 && ASN1_OCTET_STRING_cmp(X509_EXTENSION_get_data(X509_get_ext(a, at)), X509_EXTENSION_get_data(there)) == 0);
        }
        X509_free(a);
        X509_free(b);
        ca_free(fresh);
    }
    leaf_public = own;
    X509_free(issuer);
    ca_free(used);
    EVP_PKEY_free(other);
    free(private_pem);
    free(public_pem);
}

TEST(an_address_is_an_address_and_no_name)
{
    X509 *v4 = mint("192.0.2.7"), *v6 = mint("[2001:db8::1]");
    CHECK_STR(only_san(v4), "IP:4 bytes");
    CHECK_STR(only_san(v6), "IP:16 bytes");
    CHECK(verify(v4, ca_pem, "192.0.2.8", true, NOW) == X509_V_ERR_IP_ADDRESS_MISMATCH);
    char cn[64];
    X509_NAME_get_text_by_NID(X509_get_subject_name(v6), NID_commonName, cn, sizeof cn);
    CHECK_STR(cn, "2001:db8::1");
    X509_free(v4);
    X509_free(v6);
}

TEST(a_leaf_lives_a_week_and_never_longer_than_its_ca)
{
    struct host h = host_of("www.example.com");
    X509 *leaf = mint("www.example.com");
    CHECK(seconds(X509_get0_notBefore(leaf)) == NOW - DAY);
    CHECK(seconds(X509_get0_notAfter(leaf)) == NOW + 7 * DAY);
    X509_free(leaf);
    leaf = mint_by(ca, &h, NOW + 28 * DAY);
    CHECK(leaf && seconds(X509_get0_notAfter(leaf)) == ca_not_after(ca) && ca_not_after(ca) == NOW + 30 * DAY);
    CHECK(leaf && verify(leaf, ca_pem, "www.example.com", false, NOW + 28 * DAY) == X509_V_OK);
    X509_free(leaf);
    CHECK(!mint_by(ca, &h, NOW + 30 * DAY));
    CHECK(!mint_by(ca, &h, NOW - 2 * DAY));
    leaf = mint_by(ca, &h, NOW - DAY + 60); /* not before its CA either */
    CHECK(leaf && seconds(X509_get0_notBefore(leaf)) == NOW - DAY);
    X509_free(leaf);
}

TEST(a_ca_is_what_strict_clients_demand)
{
    begin();
    X509 *root = cert_of(ca_pem);
    CHECK(X509_check_ca(root) == 1 && X509_get_pathlen(root) == 0 && X509_get_ext_count(root) == 3);
    CHECK(is_critical(root, NID_basic_constraints) && is_critical(root, NID_key_usage) && is_there(root, NID_subject_key_identifier));
    CHECK(X509_get_key_usage(root) == (KU_KEY_CERT_SIGN | KU_CRL_SIGN));
    CHECK(!is_there(root, NID_ext_key_usage) && !is_there(root, NID_certificate_policies) && !is_there(root, NID_subject_alt_name));
    CHECK(X509_get0_serialNumber(root)->type == V_ASN1_INTEGER);
    char *other_pem, *other_key;
    struct err err = {0};
    struct ca_options o = options(30);
    CHECK(ca_generate(&o, &other_pem, &other_key, &err) == 0);
    X509 *other = cert_of(other_pem);
    CHECK(X509_NAME_cmp(X509_get_subject_name(root), X509_get_subject_name(other)) != 0);
    CHECK(!ca_load(slice_str(ca_pem), slice_str(other_key), NOW, &err) && strstr(err.text, "does not belong"));
    X509_free(other);
    X509_free(root);
    free(other_pem);
    free(other_key);
}

TEST(a_ca_that_must_not_sign_is_refused)
{
    begin();
    struct err err = {0};
    struct test_cert root = {0}, leaf = {0}, old = {0};
    test_cert_make(&root, NULL, NULL, 30);
    test_cert_make(&leaf, &root, "DNS:a.example", 30);
    test_cert_make(&old, NULL, NULL, -1);
    CHECK(!ca_load(slice_str(leaf.cert_pem), slice_str(leaf.key_pem), NOW, &err) && strstr(err.text, "none of a CA"));
    /* No key usage: it may be meant for anything. */
    CHECK(!ca_load(slice_str(root.cert_pem), slice_str(root.key_pem), NOW, &err) && strstr(err.text, "keyCertSign"));
    CHECK(!ca_load(slice_str(ca_pem), slice_str(ca_key), NOW + 31 * DAY, &err) && strstr(err.text, "expired"));
    CHECK(!ca_load(slice_str(ca_pem), slice_str(ca_key), NOW - 2 * DAY, &err) && strstr(err.text, "not valid before"));
    CHECK(!ca_load(slice_str(""), slice_str(ca_key), NOW, &err));
    CHECK(!ca_load(slice_str(ca_pem), slice_str(""), NOW, &err));
    CHECK(!ca_load(slice_str(ca_key), slice_str(ca_key), NOW, &err));
    CHECK(!ca_load(slice_str(ca_pem), slice_str("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), NOW, &err));
    test_cert_done(&root);
    test_cert_done(&leaf);
    test_cert_done(&old);
}

TEST(a_constrained_ca_is_good_for_nothing_else)
{
    begin();
    struct err err = {0};
    struct ca_constraint only[2] = {{.name = host_of("example.com")}, {.range = {.base = {.family = AF_INET, .bytes = {192, 0, 2, 0}}, .bits = 24}}};
    struct ca_options o = options(30);
    char *pem, *key;
    o.constraints = only;
    o.constraint_count = 2;
    CHECK(ca_generate(&o, &pem, &key, &err) == 0);
    struct ca *narrow = ca_load(slice_str(pem), slice_str(key), NOW, &err);
    X509 *root = cert_of(pem);
    CHECK(is_critical(root, NID_name_constraints));
    static const struct { const char *host, *name; bool ip; int expected; } rows[] = {
        {"example.com", "example.com", false, X509_V_OK},           {"a.b.example.com", "a.b.example.com", false, X509_V_OK},
        {"192.0.2.9", "192.0.2.9", true, X509_V_OK},                {"example.net", "example.net", false, X509_V_ERR_PERMITTED_VIOLATION},
        {"notexample.com", "notexample.com", false, X509_V_ERR_PERMITTED_VIOLATION},
        {"192.0.3.9", "192.0.3.9", true, X509_V_ERR_PERMITTED_VIOLATION},
        {"[2001:db8::1]", "2001:db8::1", true, X509_V_ERR_PERMITTED_VIOLATION},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct host h = host_of(rows[i].host);
        X509 *leaf = mint_by(narrow, &h, NOW);
        int got = verify(leaf, pem, rows[i].name, rows[i].ip, NOW);
        CHECK_THAT(got == rows[i].expected, "%s: %s", rows[i].host, X509_verify_cert_error_string(got));
        X509_free(leaf);
    }
    struct ca_facts f;
    CHECK(ca_describe(slice_str(pem), &f, &err) == 0);
    CHECK_STR(f.constraints, "example.com\n192.0.2.0/24\n");
    ca_facts_done(&f);
    X509_free(root);
    ca_free(narrow);
    mem_wipe(key, strlen(key));
    free(key);
    free(pem);
}

TEST(a_ca_is_described)
{
    begin();
    struct ca_facts f;
    struct err err = {0};
    CHECK(ca_describe(slice_str(ca_pem), &f, &err) == 0);
    CHECK(strncmp(f.subject, "CN=sallyport inspection CA ", 27) == 0 && strlen(f.sha256) == 64 && strlen(f.ski) == 40);
    CHECK_STR(f.key, "EC P-256");
    CHECK(f.not_before_s == NOW - DAY && f.not_after_s == NOW + 30 * DAY);
    CHECK_STR(f.constraints, "");
    ca_facts_done(&f);
    CHECK(ca_describe(slice_str("x"), &f, &err) < 0);
    CHECK(ca_describe(slice_str(""), &f, &err) < 0);
}

TEST(days_and_constraints_have_limits)
{
    struct err err = {0};
    char *pem, *key;
    struct ca_options o = options(0);
    CHECK(ca_generate(&o, &pem, &key, &err) < 0);
    o.days = CA_DAYS_MAX + 1;
    CHECK(ca_generate(&o, &pem, &key, &err) < 0);
}
