/* The settings part of `sallyport doctor`: whether the runtimes in this sandbox know the proxy and
 * trust its CA. What is wrong here is no way out: programs fail, or are refused. Values are shown
 * without what could be a credential. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sallyport/base/addr.h"
#include "sallyport/base/file.h"
#include "sallyport/base/mem.h"
#include "sallyport/cmd/doctor.h"

#define GROUP "settings"
#define CONNECT_MS 500
#define BUNDLE_MAX (16u << 20)
#define CERTIFICATES_MAX 4096

static const char *
value_of(const char *variable)
{
    const char *v = getenv(variable);
    return v && *v ? v : NULL;
}

/* ---- the proxy ---- */

static const char *const proxy_variables[] = {"HTTP_PROXY",  "http_proxy",      "HTTPS_PROXY",
                                              "https_proxy", "YARN_HTTP_PROXY", "YARN_HTTPS_PROXY"};
#define PROXY_VARIABLE_COUNT (sizeof proxy_variables / sizeof proxy_variables[0])
#define PLAIN_PROXY_VARIABLES 4 /* the others are aliases of them for one tool */

/* "http://user:pass@host:port/": what stands between '@' and the path. *ret_secret: a credential is
 * in it. */
static struct slice
authority_of(const char *url, bool *ret_secret)
{
    const char *start = strstr(url, "://");
    start = start ? start + 3 : url;
    struct slice authority = slice_of(start, strcspn(start, "/?#"));
    const char *at = memrchr(authority.ptr, '@', authority.len);
    *ret_secret = at != NULL;
    return at ? slice_of(at + 1, authority.len - (size_t)(at + 1 - authority.ptr)) : authority;
}

static int
connect_within(const struct sockaddr_storage *sa, socklen_t len)
{
    int fd = socket(sa->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error = 0;
    socklen_t error_len = sizeof error;
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    if (fd < 0)
        return errno;
    if (connect(fd, (const struct sockaddr *)sa, len) < 0)
        error = errno;
    if (error == EINPROGRESS) {
        error = ETIMEDOUT;
        if (poll(&p, 1, CONNECT_MS) == 1 &&
            getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_len) < 0)
            error = errno;
    }
    close(fd);
    return error;
}

static void
try_proxy(struct doctor *d, const char *url)
{
    bool secret;
    struct slice authority = authority_of(url, &secret);
    struct sockaddr_storage sa;
    socklen_t len;
    char local[32];
    if (slice_starts_with(authority, "localhost:") && authority.len < sizeof local) {
        snprintf(local, sizeof local, "127.0.0.1:%.*s", (int)(authority.len - 10),
                 authority.ptr + 10);
        authority = slice_str(local);
    }
    if (!sockaddr_parse(authority, 0, &sa, &len)) {
        doctor_add(d, GROUP, "proxy", DOCTOR_WARN,
                   "an address instead of a name: in here no name should resolve",
                   "%.*s is not tried", SLICE_ARG(authority));
        return;
    }
    int error = connect_within(&sa, len);
    doctor_add(d, GROUP, "proxy", error ? DOCTOR_WARN : DOCTOR_PASS,
               "start the proxy, or correct the variables", "%.*s: %s", SLICE_ARG(authority),
               error ? strerror(error) : "answers");
    if (secret)
        doctor_add(d, GROUP, "proxy credential", DOCTOR_WARN,
                   "keep the token outside (sallyport run without --expose-token)",
                   "stands in the proxy URL, where every program can read it");
}

static void
append_word(char *list, size_t size, const char *word)
{
    size_t len = strlen(list);
    snprintf(list + len, size - len, "%s%s", len ? " " : "", word);
}

static void
judge_proxy(struct doctor *d)
{
    char missing[DOCTOR_FOUND_SIZE] = "", other[DOCTOR_FOUND_SIZE] = "";
    const char *first = NULL;
    size_t set = 0;
    for (size_t i = 0; i < PROXY_VARIABLE_COUNT; i++) {
        const char *v = value_of(proxy_variables[i]);
        set += v && i < PLAIN_PROXY_VARIABLES;
        first = first ? first : v;
        if (!v)
            append_word(missing, sizeof missing, proxy_variables[i]);
        else if (strcmp(v, first) != 0)
            append_word(other, sizeof other, proxy_variables[i]);
    }
    if (set == 0) {
        doctor_add(d, GROUP, "proxy variables", d->transparent ? DOCTOR_PASS : DOCTOR_WARN,
                   "set HTTP_PROXY and HTTPS_PROXY in both cases",
                   d->transparent ? "none, and none is needed: connections are answered by the gate"
                                  : "none: programs go direct, and are refused");
        return;
    }
    doctor_add(d, GROUP, "proxy variables", *missing ? DOCTOR_WARN : DOCTOR_PASS,
               "set all: each runtime reads others, some only in lower case", "%s%s",
               *missing ? "missing: " : "all are set", missing);
    if (*other)
        doctor_add(d, GROUP, "proxy variables agree", DOCTOR_WARN, "one value for all",
                   "different: %s", other);
    try_proxy(d, first);
}

/* Only loopback may go round the proxy; anything else there is refused by the sandbox, and programs
 * fail. */
static bool
is_loopback_entry(struct slice entry)
{
    struct addr a;
    struct cidr c;
    if (slice_is(entry, "localhost") || slice_is(entry, ".localhost") || slice_is(entry, "::1") ||
        slice_is(entry, "[::1]"))
        return true;
    if (addr_parse(entry, &a))
        return a.family == AF_INET && a.bytes[0] == 127;
    return cidr_parse(entry, &c) && c.base.family == AF_INET && c.base.bytes[0] == 127 &&
           c.bits >= 8;
}

static void
judge_no_proxy(struct doctor *d, const char *variable)
{
    char wide[DOCTOR_FOUND_SIZE] = "";
    const char *v = value_of(variable);
    struct slice rest = slice_str(v ? v : ""), entry;
    if (!v)
        return;
    while (rest.ptr) {
        char word[64];
        entry = slice_trim_ows(slice_split(rest, ',', &rest));
        if (entry.len == 0 || is_loopback_entry(entry))
            continue;
        snprintf(word, sizeof word, "%.*s", (int)(entry.len < 60 ? entry.len : 60), entry.ptr);
        append_word(wide, sizeof wide, word);
    }
    doctor_add(d, GROUP, variable, *wide ? DOCTOR_WARN : DOCTOR_PASS,
               "loopback alone: localhost,127.0.0.1,::1", "%s%s",
               *wide ? "goes round the proxy for: " : "loopback alone", wide);
}

static void
judge_runtimes(struct doctor *d)
{
    const char *node = value_of("NODE_USE_ENV_PROXY"), *java = value_of("JAVA_TOOL_OPTIONS");
    if (value_of("ALL_PROXY") || value_of("all_proxy"))
        doctor_add(d, GROUP, "ALL_PROXY", DOCTOR_WARN,
                   "leave it unset: some programs send every protocol there, others ignore it",
                   "is set");
    if (!value_of("HTTPS_PROXY"))
        return;
    doctor_add(d, GROUP, "Node", node ? DOCTOR_PASS : DOCTOR_WARN,
               "NODE_USE_ENV_PROXY=1: fetch ignores the proxy variables without it", "%s",
               node ? "NODE_USE_ENV_PROXY is set" : "NODE_USE_ENV_PROXY is not set");
    bool knows = java && strstr(java, "-Dhttps.proxyHost=") && strstr(java, "-Dhttp.proxyHost=");
    doctor_add(d, GROUP, "Java", knows ? DOCTOR_PASS : DOCTOR_WARN,
               "JAVA_TOOL_OPTIONS=\"-Dhttp.proxyHost=… -Dhttp.proxyPort=… -Dhttps.proxyHost=… "
               "-Dhttps.proxyPort=…\"",
               "%s",
               knows ? "JAVA_TOOL_OPTIONS names the proxy"
                     : "JAVA_TOOL_OPTIONS names no proxy; Java reads no proxy variables");
}

/* ---- trust ---- */

static const char *const trust_variables[] = {
    "SSL_CERT_FILE",       "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT",
    "NODE_EXTRA_CA_CERTS", "DENO_CERT",      "CARGO_HTTP_CAINFO",  "GIT_SSL_CAINFO",
    "BUNDLE_SSL_CA_CERT",  "AWS_CA_BUNDLE",
};
#define TRUST_VARIABLE_COUNT (sizeof trust_variables / sizeof trust_variables[0])

static X509 *
read_certificate(const char *path)
{
    BIO *in = BIO_new_file(path, "r");
    X509 *x = in ? PEM_read_bio_X509(in, NULL, NULL, NULL) : NULL;
    BIO_free(in);
    ERR_clear_error();
    return x;
}

/* How many certificates the file has; *ret_found when ca (may be NULL) is one of them. */
static size_t
read_bundle(const char *text, size_t len, X509 *ca, bool *ret_found)
{
    BIO *in = BIO_new_mem_buf(text, (int)len);
    size_t count = 0;
    *ret_found = false;
    for (X509 *x; in && count < CERTIFICATES_MAX && (x = PEM_read_bio_X509(in, NULL, NULL, NULL));
         count++) {
        *ret_found |= ca && X509_cmp(x, ca) == 0;
        X509_free(x);
    }
    BIO_free(in);
    ERR_clear_error();
    return count;
}

static void
judge_bundle(struct doctor *d, const char *path)
{
    struct err err = {0};
    cleanup_free char *text = NULL;
    size_t len, count;
    bool found = false;
    if (file_read(path, BUNDLE_MAX, FILE_ANY, &text, &len, &err) < 0) {
        doctor_add(d, GROUP, "trust bundle", DOCTOR_WARN,
                   "a readable file: sallyport ca bundle makes one", "%s", err.text);
        return;
    }
    X509 *ca = d->ca_file ? read_certificate(d->ca_file) : NULL;
    count = read_bundle(text, len, ca, &found);
    if (d->ca_file && !ca)
        doctor_add(d, GROUP, "inspection CA", DOCTOR_WARN, "--ca takes a PEM certificate",
                   "%s cannot be read", d->ca_file);
    else if (d->ca_file)
        doctor_add(d, GROUP, "inspection CA", found ? DOCTOR_PASS : DOCTOR_WARN,
                   "sallyport ca bundle makes a file with both",
                   found ? "is in the bundle" : "is not in the bundle: inspected connections fail");
    X509_free(ca);
    doctor_add(d, GROUP, "trust bundle", count > 1 ? DOCTOR_PASS : DOCTOR_WARN,
               "system roots and the CA in one file: most runtimes read no other",
               "%s: %zu certificates", path, count);
}

static void
judge_trust(struct doctor *d)
{
    char missing[DOCTOR_FOUND_SIZE] = "", other[DOCTOR_FOUND_SIZE] = "";
    const char *first = NULL, *java = value_of("JAVA_TOOL_OPTIONS");
    for (size_t i = 0; i < TRUST_VARIABLE_COUNT; i++) {
        const char *v = value_of(trust_variables[i]);
        first = first ? first : v;
        if (!v)
            append_word(missing, sizeof missing, trust_variables[i]);
        else if (strcmp(v, first) != 0)
            append_word(other, sizeof other, trust_variables[i]);
    }
    if (!first) {
        doctor_add(d, GROUP, "trust variables", d->ca_file ? DOCTOR_WARN : DOCTOR_PASS,
                   "point them at the bundle of sallyport ca bundle",
                   "none is set: each runtime trusts its own roots%s",
                   d->ca_file ? ", not the CA" : "");
        return;
    }
    doctor_add(d, GROUP, "trust variables", *missing ? DOCTOR_WARN : DOCTOR_PASS,
               "set all: each runtime reads another", "%s%s",
               *missing ? "missing: " : "all are set", missing);
    if (*other)
        doctor_add(d, GROUP, "trust variables agree", DOCTOR_WARN, "one bundle for all",
                   "another file: %s", other);
    judge_bundle(d, first);
    if (java && !strstr(java, "javax.net.ssl.trustStore="))
        doctor_add(d, GROUP, "Java trust", DOCTOR_WARN,
                   "-Djavax.net.ssl.trustStore= of a p12 store with the CA",
                   "JAVA_TOOL_OPTIONS names no trust store");
}

/* ---- files that override the variables ---- */

static const struct {
    const char *path, *key;
} overriding[] = {
    {".npmrc", "cafile"},
    {".config/pip/pip.conf", "cert"},
    {".pip/pip.conf", "cert"},
    {".curlrc", "cacert"},
    {".wgetrc", "ca_certificate"},
    {".gitconfig", "sslCAInfo"},
    {".npmrc", "proxy"},
    {".config/pip/pip.conf", "proxy"},
    {".curlrc", "proxy"},
    {".gitconfig", "proxy"},
    {".gradle/gradle.properties", "trustStore"},
};

static void
judge_overrides(struct doctor *d)
{
    const char *home = value_of("HOME");
    for (size_t i = 0; home && i < sizeof overriding / sizeof overriding[0]; i++) {
        struct err err = {0};
        cleanup_free char *path = mem_printf("%s/%s", home, overriding[i].path);
        cleanup_free char *text = NULL;
        size_t len;
        if (file_read(path, 1u << 20, FILE_ANY, &text, &len, &err) == 0 &&
            strstr(text, overriding[i].key))
            doctor_add(d, GROUP, overriding[i].path, DOCTOR_WARN,
                       "take the line out, or have it say the same",
                       "sets %s, which overrides the variables", overriding[i].key);
    }
}

void
doctor_settings(struct doctor *d)
{
    judge_proxy(d);
    judge_no_proxy(d, "NO_PROXY");
    judge_no_proxy(d, "no_proxy");
    judge_runtimes(d);
    judge_trust(d);
    judge_overrides(d);
}
