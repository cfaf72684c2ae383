/* The client side of inspection against servers of every bad kind: what each handshake fails with, in words; stapled OCSP; and
 * sessions that stay with their partition, host and port. */
#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <time.h>
#include <unistd.h>

#include "sallyport/base/mem.h"
#include "sallyport/tls/upstream.h"
#include "unit/test.h"
#include "unit/tlspair.h"

/* ---- certificates ---- */

struct made {
    X509 *cert;
    EVP_PKEY *key;
};

struct recipe {
    const char *cn, *alt, *constraints;
    int from_days, to_days; /* both 0: -1 to 30 */
    int to_s;               /* not 0: seconds from now, in place of days */
    int rsa_bits;           /* 0: P-256 */
    bool sha1, ca, must_staple, client_only;
};

static void
extend(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    if (!e || X509_add_ext(cert, e, -1) != 1)
        abort();
    X509_EXTENSION_free(e);
}

static struct made
make(const struct recipe *r, const struct made *issuer)
{
    static long serial = 1;
    struct made m = {X509_new(), r->rsa_bits ? EVP_RSA_gen((unsigned)r->rsa_bits) : EVP_EC_gen("P-256")};
    X509 *parent = issuer ? issuer->cert : m.cert;
    bool usual = !r->from_days && !r->to_days;
    X509_set_version(m.cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(m.cert), serial++);
    X509_gmtime_adj(X509_getm_notBefore(m.cert), 86400L * (usual ? -1 : r->from_days));
    X509_gmtime_adj(X509_getm_notAfter(m.cert), r->to_s ? r->to_s : 86400L * (usual ? 30 : r->to_days));
    X509_NAME_add_entry_by_txt(X509_get_subject_name(m.cert), "CN", MBSTRING_ASC, (const unsigned char *)r->cn, -1, -1, 0);
    X509_set_issuer_name(m.cert, X509_get_subject_name(parent));
    X509_set_pubkey(m.cert, m.key);
    extend(m.cert, parent, NID_basic_constraints, r->ca ? "critical,CA:TRUE" : "critical,CA:FALSE");
    extend(m.cert, parent, NID_subject_key_identifier, "hash");
    if (issuer)
        extend(m.cert, parent, NID_authority_key_identifier, "keyid");
    if (r->alt)
        extend(m.cert, parent, NID_subject_alt_name, r->alt);
    if (r->constraints)
        extend(m.cert, parent, NID_name_constraints, r->constraints);
    if (r->must_staple)
        extend(m.cert, parent, NID_tlsfeature, "status_request");
    if (r->client_only)
        extend(m.cert, parent, NID_ext_key_usage, "clientAuth");
    if (X509_sign(m.cert, issuer ? issuer->key : m.key, r->sha1 ? EVP_sha1() : EVP_sha256()) == 0)
        abort();
    return m;
}

static void
drop(struct made *m)
{
    X509_free(m->cert);
    EVP_PKEY_free(m->key);
}

static char *
pem_of(X509 *cert)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *data;
    PEM_write_bio_X509(bio, cert);
    char *text = mem_dup_slice(slice_of(data, (size_t)BIO_get_mem_data(bio, &data)));
    BIO_free(bio);
    return text;
}

/* ---- the world ---- */

static struct made root, intermediate;
static struct upstream_tls *upstream;

static void
end(void)
{
    upstream_tls_unref(upstream);
    drop(&root);
    drop(&intermediate);
}

static void
begin(void)
{
    struct err err = {0};
    if (upstream)
        return;
    root = make(&(struct recipe){.cn = "test root", .ca = true}, NULL);
    intermediate = make(&(struct recipe){.cn = "test intermediate", .ca = true}, &root);
    BIO *bio = BIO_new(BIO_s_mem());
    char *data;
    PEM_write_bio_X509(bio, root.cert);
    long len = BIO_get_mem_data(bio, &data);
    upstream = upstream_tls_new(slice_of(data, (size_t)len), &err);
    CHECK_THAT(upstream != NULL, "%s", err.text);
    BIO_free(bio);
    atexit(end); /* before OpenSSL's own end, which it has asked for already */
}

static int
give_staple(SSL *ssl, void *arg)
{
    struct slice *staple = arg;
    unsigned char *copy = OPENSSL_memdup(staple->ptr, staple->len);
    SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)staple->len);
    return SSL_TLSEXT_ERR_OK;
}

static int
select_first(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in, unsigned in_len, void *arg)
{
    (void)ssl;
    (void)arg;
    (void)in_len;
    *out_len = in[0];
    *out = in + 1;
    return SSL_TLSEXT_ERR_OK;
}

static SSL_CTX *
server_context(const struct made *m)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_security_level(ctx, 0);
    if (SSL_CTX_use_certificate(ctx, m->cert) != 1 || SSL_CTX_use_PrivateKey(ctx, m->key) != 1)
        abort();
    SSL_CTX_set_alpn_select_cb(ctx, select_first, NULL);
    SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"s", 1);
    return ctx;
}

struct way {
    const char *host, *partition;
    uint16_t port;
    const char (*alpn)[UPSTREAM_ALPN_SIZE];
    size_t alpn_count;
};

/* As the stream does it, then prepare. */
static SSL *
client_of(struct upstream_tls *u, const struct way *w)
{
    SSL *ssl = SSL_new(upstream_tls_context(u));
    struct host h;
    char name[HOST_TEXT_SIZE];
    if (!host_parse(slice_str(w->host), &h))
        abort();
    upstream_tls_name(&h, name);
    if (h.kind == HOST_NAME) {
        SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        SSL_set_tlsext_host_name(ssl, name);
        SSL_set1_host(ssl, name);
    } else if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) != 1) {
        abort();
    }
    CHECK(upstream_tls_prepare(u, ssl, &h, w->port ? w->port : 443, slice_str(w->partition ? w->partition : "p"), w->alpn, w->alpn_count));
    return ssl;
}

static int
shake(SSL_CTX *server, const struct way *w, struct tls_pair *p)
{
    *p = (struct tls_pair){client_of(upstream, w), SSL_new(server)};
    tls_pair_join(p);
    int ok = tls_pair_shake(p);
    ERR_clear_error(); /* as the stream does */
    return ok;
}

/* Handshakes with a server that has this context; "" when it succeeds. */
static const char *
outcome(SSL_CTX *server, const char *host, bool *ret_certificate)
{
    static struct upstream_fault fault;
    struct tls_pair p;
    fault = (struct upstream_fault){0};
    if (!shake(server, &(struct way){.host = host}, &p))
        upstream_tls_explain(p.client, &fault);
    *ret_certificate = fault.certificate;
    tls_pair_done(&p);
    return fault.detail;
}

static void
check_cert(const struct recipe *r, const struct made *issuer, X509 *chain, const char *host, const char *expected)
{
    bool certificate;
    struct made m = make(r, issuer);
    SSL_CTX *server = server_context(&m);
    if (chain)
        SSL_CTX_add1_chain_cert(server, chain);
    const char *got = outcome(server, host, &certificate);
    CHECK_THAT(expected[0] ? strstr(got, expected) != NULL && certificate : !got[0], "%s at %s: \"%s\", expected \"%s\"", r->alt ? r->alt : r->cn, host, got, expected);
    SSL_CTX_free(server);
    drop(&m);
}

/* ---- the matrix ---- */

TEST(good_servers_pass)
{
    begin();
    check_cert(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test"}, &root, NULL, "www.example.test", "");
    check_cert(&(struct recipe){.cn = "x", .alt = "DNS:*.example.test"}, &root, NULL, "www.example.test", "");
    check_cert(&(struct recipe){.cn = "x", .alt = "IP:192.0.2.7"}, &root, NULL, "192.0.2.7", "");
    check_cert(&(struct recipe){.cn = "x", .alt = "IP:2001:db8::7"}, &root, NULL, "[2001:db8::7]", "");
    check_cert(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test"}, &intermediate, intermediate.cert, "www.example.test", "");
    check_cert(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test", .rsa_bits = 2048}, &root, NULL, "www.example.test", "");
}

TEST(bad_certificates_are_told_apart)
{
    struct made stranger, narrow, weak_ca;
    begin();
    stranger = make(&(struct recipe){.cn = "stranger", .ca = true}, NULL);
    narrow = make(&(struct recipe){.cn = "narrow", .ca = true, .constraints = "critical,permitted;DNS:example.org"}, &root);
    weak_ca = make(&(struct recipe){.cn = "weak", .ca = true, .rsa_bits = 1024}, &root);
    const char *name = "www.example.test";
    check_cert(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test", .from_days = -9, .to_days = -1}, &root, NULL, name, "has expired");
    check_cert(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test", .from_days = 2, .to_days = 9}, &root, NULL, name, "not yet valid");
    check_cert(&(struct recipe){.cn = "x", .alt = "DNS:other.example.test"}, &root, NULL, name, "another host");
    check_cert(&(struct recipe){.cn = "www.example.test"}, &root, NULL, name, "another host"); /* CN only */
    check_cert(&(struct recipe){.cn = "x", .alt = "DNS:*.example.test"}, &root, NULL, "a.b.example.test", "another host");
    check_cert(&(struct recipe){.cn = "x", .alt = "DNS:*.example.test"}, &root, NULL, "example.test", "another host");
    check_cert(&(struct recipe){.cn = "x", .alt = "DNS:w*.example.test"}, &root, NULL, name, "another host");
    check_cert(&(struct recipe){.cn = "x", .alt = "DNS:192.0.2.7"}, &root, NULL, "192.0.2.7", "not for this address");
    check_cert(&(struct recipe){.cn = "x", .alt = "IP:192.0.2.8"}, &root, NULL, "192.0.2.7", "not for this address");
    check_cert(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test"}, NULL, NULL, name, "self-signed");
    check_cert(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test"}, &stranger, stranger.cert, name, "not trusted");
    check_cert(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test"}, &stranger, NULL, name, "unknown");
    check_cert(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test"}, &intermediate, NULL, name, "intermediate certificate is missing");
    check_cert(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test"}, &narrow, narrow.cert, name, "name constraints");
    check_cert(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test", .rsa_bits = 1024}, &root, NULL, name, "too weak");
    check_cert(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test"}, &weak_ca, weak_ca.cert, name, "too weak");
    check_cert(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test", .sha1 = true}, &root, NULL, name, "weak digest");
    check_cert(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test", .client_only = true}, &root, NULL, name, "not for servers");
    drop(&stranger);
    drop(&narrow);
    drop(&weak_ca);
}

static void
check_protocol(SSL_CTX *server, const char *expected)
{
    bool certificate;
    const char *got = outcome(server, "www.example.test", &certificate);
    CHECK_THAT(strstr(got, expected) && !certificate, "\"%s\", expected \"%s\"", got, expected);
}

static int
refuse_all(int ok, X509_STORE_CTX *ctx)
{
    (void)ok;
    (void)ctx;
    return 0;
}

TEST(protocol_failures_are_no_certificate_failures)
{
    begin();
    struct made m = make(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test"}, &root);
    SSL_CTX *old = server_context(&m), *null = server_context(&m), *mutual = server_context(&m);
    SSL_CTX_set_max_proto_version(old, TLS1_1_VERSION);
    check_protocol(old, "TLS 1.2 or later");
    SSL_CTX_set_max_proto_version(null, TLS1_2_VERSION);
    SSL_CTX_set_cipher_list(null, "eNULL:@SECLEVEL=0");
    check_protocol(null, "no common cipher suite");
    SSL_CTX_set_verify(mutual, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, refuse_all);
    SSL_CTX_set_max_proto_version(mutual, TLS1_2_VERSION);
    check_protocol(mutual, "client certificate");
    SSL_CTX_free(old);
    SSL_CTX_free(null);
    SSL_CTX_free(mutual);
    drop(&m);
}

static void
answer_with(const char *bytes, size_t len, const char *expected)
{
    struct upstream_fault fault = {0};
    BIO *ours, *theirs;
    begin();
    SSL *ssl = client_of(upstream, &(struct way){.host = "www.example.test"});
    if (BIO_new_bio_pair(&ours, 1 << 16, &theirs, 1 << 16) != 1)
        abort();
    SSL_set_bio(ssl, ours, ours);
    SSL_set_connect_state(ssl);
    (void)SSL_do_handshake(ssl);
    if (len)
        BIO_write(theirs, bytes, (int)len);
    BIO_shutdown_wr(theirs);
    (void)SSL_do_handshake(ssl);
    ERR_clear_error();
    upstream_tls_explain(ssl, &fault);
    CHECK_THAT(strstr(fault.detail, expected) && !fault.certificate, "\"%s\", expected \"%s\"", fault.detail, expected);
    SSL_free(ssl);
    BIO_free(theirs);
}

TEST(what_is_no_tls_is_said)
{
    answer_with("HTTP/1.1 400 Bad Request\r\n\r\n", 28, "does not speak TLS");
    answer_with("220 mail.example.test ESMTP\r\n", 29, "does not speak TLS");
    answer_with("", 0, "closed the connection");
    answer_with("\x15\x03\x03\x00\x02\x02\x28", 7, "refused the handshake");
    answer_with("\x15\x03\x03\x00\x02\x02\x46", 7, "TLS 1.2 or later");
    answer_with("\x15\x03\x03\x00\x02\x02\x70", 7, "host name");
    answer_with("\x15\x03\x03\x00\x02\x02\x78", 7, "ALPN");
}

TEST(nothing_can_be_explained_without_a_connection)
{
    struct upstream_fault fault = {0};
    upstream_tls_explain(NULL, &fault);
    CHECK(fault.detail[0] && !fault.certificate);
}

/* ---- stapled OCSP ---- */

enum staple_kind { GOOD, REVOKED, STALE, ABOUT_ANOTHER, BY_STRANGER, TRY_LATER, GARBAGE };

static struct slice
staple_of(enum staple_kind kind, const struct made *m, const struct made *issuer, const struct made *stranger)
{
    unsigned char *der = NULL;
    OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
    X509 *about = kind == ABOUT_ANOTHER ? stranger->cert : m->cert;
    OCSP_CERTID *id = OCSP_cert_to_id(EVP_sha256(), about, issuer->cert);
    long shift = kind == STALE ? -30 * 86400 : 0;
    ASN1_TIME *now = X509_gmtime_adj(NULL, shift - 60), *next = X509_gmtime_adj(NULL, shift + 86400);
    OCSP_basic_add1_status(basic, id, kind == REVOKED ? V_OCSP_CERTSTATUS_REVOKED : V_OCSP_CERTSTATUS_GOOD,
                           OCSP_REVOKED_STATUS_KEYCOMPROMISE, kind == REVOKED ? now : NULL, now, next);
    const struct made *signer = kind == BY_STRANGER ? stranger : issuer;
    if (OCSP_basic_sign(basic, signer->cert, signer->key, EVP_sha256(), NULL, 0) != 1)
        abort();
    OCSP_RESPONSE *response = OCSP_response_create(kind == TRY_LATER ? OCSP_RESPONSE_STATUS_TRYLATER : OCSP_RESPONSE_STATUS_SUCCESSFUL,
                                                   kind == TRY_LATER ? NULL : basic);
    int len = i2d_OCSP_RESPONSE(response, &der);
    struct slice copy = slice_of(mem_dup_slice(slice_of((const char *)der, (size_t)len)), (size_t)len);
    if (kind == GARBAGE)
        memset((char *)(uintptr_t)copy.ptr, 'x', copy.len);
    OPENSSL_free(der);
    OCSP_RESPONSE_free(response);
    OCSP_CERTID_free(id);
    OCSP_BASICRESP_free(basic);
    ASN1_TIME_free(now);
    ASN1_TIME_free(next);
    return copy;
}

static const char *
stapled(enum staple_kind kind, bool must, int version)
{
    static char text[UPSTREAM_DETAIL_SIZE];
    bool certificate;
    struct made stranger = make(&(struct recipe){.cn = "stranger", .ca = true}, NULL);
    struct made m = make(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test", .must_staple = must}, &root);
    struct slice staple = staple_of(kind, &m, &root, &stranger);
    SSL_CTX *server = server_context(&m);
    SSL_CTX_set_max_proto_version(server, version);
    SSL_CTX_set_tlsext_status_cb(server, give_staple);
    SSL_CTX_set_tlsext_status_arg(server, &staple);
    snprintf(text, sizeof text, "%s", outcome(server, "www.example.test", &certificate));
    CHECK(!text[0] || certificate);
    free((char *)(uintptr_t)staple.ptr);
    SSL_CTX_free(server);
    drop(&m);
    drop(&stranger);
    return text;
}

TEST(a_staple_that_says_revoked_ends_it)
{
    begin();
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        CHECK(strstr(stapled(REVOKED, false, version), "is revoked"));
        CHECK(strstr(stapled(REVOKED, true, version), "is revoked"));
        CHECK_STR(stapled(GOOD, false, version), "");
        CHECK_STR(stapled(GOOD, true, version), "");
    }
}

TEST(must_staple_wants_a_staple_that_holds)
{
    static const enum staple_kind kinds[] = {STALE, ABOUT_ANOTHER, BY_STRANGER, TRY_LATER, GARBAGE};
    begin();
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        CHECK_THAT(strstr(stapled(kinds[i], true, TLS1_3_VERSION), "must-staple") != NULL, "kind %d", (int)kinds[i]);
        CHECK_THAT(!stapled(kinds[i], false, TLS1_3_VERSION)[0], "kind %d", (int)kinds[i]);
    }
    check_cert(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test", .must_staple = true}, &root, NULL, "www.example.test", "must-staple");
}

/* ---- signatures that were checked before ---- */

/* Of one chain everything but the signatures is judged each time; of another one, however alike, these too. */
TEST(a_chain_that_was_seen_before_is_judged_all_the_same)
{
    begin();
    struct recipe r = {.cn = "x", .alt = "DNS:www.example.test"};
    struct made m = make(&r, &intermediate);
    SSL_CTX *server = server_context(&m);
    SSL_CTX_add1_chain_cert(server, intermediate.cert);
    for (int again = 0; again < 3; again++) {
        struct tls_pair p;
        struct upstream_fault fault;
        CHECK(shake(server, &(struct way){.host = "www.example.test", .partition = again ? "b" : "a", .port = (uint16_t)(1000 + again)}, &p));
        CHECK(!SSL_session_reused(p.client) && sk_X509_num(SSL_get0_verified_chain(p.client)) == 3);
        tls_pair_done(&p);
        CHECK(!shake(server, &(struct way){.host = "other.example.test", .port = (uint16_t)(1000 + again)}, &p));
        upstream_tls_explain(p.client, &fault);
        CHECK_STR(fault.detail, "the server's certificate is for another host");
        tls_pair_done(&p);
    }
    SSL_CTX_free(server);
    drop(&m);
}

TEST(a_signature_that_is_wrong_is_wrong_beside_one_that_was_right)
{
    begin();
    struct recipe r = {.cn = "x", .alt = "DNS:www.example.test"};
    struct made good = make(&r, &root), stranger = make(&(struct recipe){.cn = "test root", .ca = true}, NULL);
    struct tls_pair p;
    SSL_CTX *server = server_context(&good);
    CHECK(shake(server, &(struct way){.host = "www.example.test", .partition = "wrong"}, &p));
    tls_pair_done(&p);
    SSL_CTX_free(server);
    /* The same certificate, signed anew by a key that is not the root's. */
    struct made bad = {X509_dup(good.cert), good.key};
    CHECK(X509_sign(bad.cert, stranger.key, EVP_sha256()) > 0);
    for (int again = 0; again < 2; again++) {
        struct upstream_fault fault;
        server = server_context(&bad);
        CHECK(!shake(server, &(struct way){.host = "www.example.test", .partition = "wrong", .port = (uint16_t)(1000 + again)}, &p));
        upstream_tls_explain(p.client, &fault);
        CHECK_STR(fault.detail, "a signature in the server's certificate chain is wrong");
        tls_pair_done(&p);
        SSL_CTX_free(server);
    }
    X509_free(bad.cert);
    drop(&good);
    drop(&stranger);
}

TEST(a_chain_that_was_seen_before_expires)
{
    begin();
    struct made m = make(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test", .to_s = 2}, &root);
    SSL_CTX *server = server_context(&m);
    struct tls_pair p;
    struct upstream_fault fault;
    CHECK(shake(server, &(struct way){.host = "www.example.test", .partition = "first"}, &p));
    tls_pair_done(&p);
    sleep(3);
    CHECK(!shake(server, &(struct way){.host = "www.example.test", .partition = "second"}, &p));
    upstream_tls_explain(p.client, &fault);
    CHECK_STR(fault.detail, "the server's certificate, or one above it, has expired");
    tls_pair_done(&p);
    SSL_CTX_free(server);
    drop(&m);
}

/* ---- sessions, ALPN, what was agreed ---- */

static void
check_resumption(int version)
{
    static const struct { const char *host, *partition; uint16_t port; bool resumed; } rows[] = {
        {"www.example.test", "policy-a", 443, true},  {"www.example.test", "policy-b", 443, false}, {"other.example.test", "policy-a", 443, false},
        {"www.example.test", "policy-a", 8443, false}, {"www.example.test", "policy-a", 443, true},
    };
    struct made m = make(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test,DNS:other.example.test"}, &root);
    SSL_CTX *server = server_context(&m);
    char *roots = pem_of(root.cert);
    struct err err = {0};
    struct tls_pair p;
    upstream_tls_unref(upstream);
    upstream = upstream_tls_new(slice_str(roots), &err);
    free(roots);
    SSL_CTX_set_max_proto_version(server, version);
    CHECK(shake(server, &(struct way){.host = "www.example.test", .partition = "policy-a"}, &p) && !SSL_session_reused(p.client));
    tls_pair_done(&p);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct upstream_agreed agreed;
        CHECK(shake(server, &(struct way){.host = rows[i].host, .partition = rows[i].partition, .port = rows[i].port}, &p));
        upstream_tls_agreed(p.client, &agreed);
        CHECK_THAT(agreed.resumed == rows[i].resumed, "row %zu", i);
        CHECK(strlen(agreed.certificate) == 64);
        tls_pair_done(&p);
    }
    SSL_CTX_free(server);
    drop(&m);
}

TEST(sessions_stay_with_partition_host_and_port)
{
    begin();
    check_resumption(TLS1_3_VERSION);
    check_resumption(TLS1_2_VERSION);
}

/* A client that opens several at once resumes with each, as far as there are tickets, and with none twice. */
TEST(connections_at_once_resume_with_a_ticket_each)
{
    struct tls_pair p[4];
    struct way w = {.host = "www.example.test", .partition = "at once"};
    static const int resumed[] = {1, 1, 0};
    begin();
    struct made m = make(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test"}, &root);
    SSL_CTX *server = server_context(&m); /* gives two tickets */
    CHECK(shake(server, &w, &p[3]));
    for (size_t i = 0; i < 3; i++) {
        p[i] = (struct tls_pair){client_of(upstream, &w), SSL_new(server)};
        tls_pair_join(&p[i]);
    }
    for (size_t i = 0; i < 3; i++) {
        CHECK(tls_pair_shake(&p[i]));
        CHECK_THAT(SSL_session_reused(p[i].client) == resumed[i], "connection %zu", i);
    }
    for (size_t i = 0; i < 4; i++)
        tls_pair_done(&p[i]);
    SSL_CTX_free(server);
    drop(&m);
}

/* Whoever resumes is shown no certificate: what was verified ends when the certificate does, however new the ticket. */
TEST(no_session_outlives_the_certificate)
{
    struct tls_pair p;
    struct way w = {.host = "www.example.test", .partition = "short"};
    struct upstream_fault fault;
    begin();
    struct made m = make(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test", .to_s = 3}, &root);
    SSL_CTX *server = server_context(&m);
    CHECK(shake(server, &w, &p) && !SSL_session_reused(p.client));
    tls_pair_done(&p);
    CHECK(shake(server, &w, &p) && SSL_session_reused(p.client));
    tls_pair_done(&p);
    struct timespec wait = {.tv_sec = 4};
    nanosleep(&wait, NULL);
    CHECK(!shake(server, &w, &p));
    upstream_tls_explain(p.client, &fault);
    CHECK_THAT(fault.certificate && strstr(fault.detail, "expired"), "%s", fault.detail);
    tls_pair_done(&p);
    SSL_CTX_free(server);
    drop(&m);
}

TEST(other_roots_forget_all_sessions)
{
    struct err err = {0};
    struct tls_pair p;
    begin();
    struct made m = make(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test"}, &root);
    struct made stranger = make(&(struct recipe){.cn = "stranger", .ca = true}, NULL);
    SSL_CTX *server = server_context(&m);
    CHECK(shake(server, &(struct way){.host = "www.example.test"}, &p));
    tls_pair_done(&p);
    struct upstream_tls *before = upstream;
    char *roots = pem_of(stranger.cert);
    upstream = upstream_tls_new(slice_str(roots), &err);
    CHECK(!shake(server, &(struct way){.host = "www.example.test"}, &p));
    tls_pair_done(&p);
    upstream_tls_unref(upstream);
    upstream = before;
    free(roots);
    SSL_CTX_free(server);
    drop(&m);
    drop(&stranger);
}

TEST(alpn_is_offered_in_order_and_told)
{
    static const char both[2][UPSTREAM_ALPN_SIZE] = {"h2", "http/1.1"}, one[1][UPSTREAM_ALPN_SIZE] = {"http/1.1"};
    static const char empty[1][UPSTREAM_ALPN_SIZE] = {""};
    struct upstream_agreed agreed;
    struct tls_pair p;
    begin();
    struct made m = make(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test"}, &intermediate);
    SSL_CTX *server = server_context(&m);
    SSL_CTX_add1_chain_cert(server, intermediate.cert);
    CHECK(shake(server, &(struct way){.host = "www.example.test", .partition = "alpn", .alpn = both, .alpn_count = 2}, &p));
    upstream_tls_agreed(p.client, &agreed);
    CHECK_STR(agreed.alpn, "h2");
    CHECK_STR(agreed.version, "TLSv1.3");
    CHECK_STR(agreed.issuer, "CN=test intermediate");
    tls_pair_done(&p);
    CHECK(shake(server, &(struct way){.host = "www.example.test", .partition = "alpn", .alpn = one, .alpn_count = 1}, &p));
    upstream_tls_agreed(p.client, &agreed);
    CHECK_STR(agreed.alpn, "http/1.1");
    tls_pair_done(&p);
    CHECK(shake(server, &(struct way){.host = "www.example.test", .partition = "alpn"}, &p));
    upstream_tls_agreed(p.client, &agreed);
    CHECK_STR(agreed.alpn, "");
    tls_pair_done(&p);
    struct host h;
    SSL *ssl = SSL_new(upstream_tls_context(upstream));
    CHECK(host_parse(slice_str("www.example.test"), &h) && !upstream_tls_prepare(upstream, ssl, &h, 443, slice_str("p"), empty, 1));
    SSL_free(ssl);
    SSL_CTX_free(server);
    drop(&m);
}

TEST(names_go_out_and_literals_do_not)
{
    struct tls_pair p;
    begin();
    struct made m = make(&(struct recipe){.cn = "x", .alt = "DNS:www.example.test,IP:192.0.2.7"}, &root);
    SSL_CTX *server = server_context(&m);
    CHECK(shake(server, &(struct way){.host = "www.example.test", .partition = "sni"}, &p));
    CHECK_STR(SSL_get_servername(p.server, TLSEXT_NAMETYPE_host_name), "www.example.test");
    tls_pair_done(&p);
    CHECK(shake(server, &(struct way){.host = "192.0.2.7", .partition = "sni"}, &p));
    CHECK(!SSL_get_servername(p.server, TLSEXT_NAMETYPE_host_name));
    tls_pair_done(&p);
    SSL_CTX_free(server);
    drop(&m);
}

TEST(a_context_lives_as_long_as_its_connections)
{
    struct err err = {0};
    begin();
    char *roots = pem_of(root.cert);
    struct upstream_tls *u = upstream_tls_new(slice_str(roots), &err);
    SSL *ssl = client_of(u, &(struct way){.host = "www.example.test"});
    upstream_tls_unref(u);
    SSL_free(ssl);
    CHECK(!upstream_tls_new(slice_str(""), &err) && !upstream_tls_new(slice_str("x"), &err));
    free(roots);
}
