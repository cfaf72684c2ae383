/* The trust file of a sandbox under inspection. The user's own roots are joined with the bundle, so that every variable can point at
 * one file and nothing that worked before is lost. Only what stands between the marks of a certificate is copied: a file that holds
 * a key as well gives no key away. */
#include "sallyport/sandbox/trust.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sallyport/base/buf.h"
#include "sallyport/base/encoding.h"
#include "sallyport/base/file.h"
#include "sallyport/base/mem.h"

#define BEGIN_MARK "-----BEGIN CERTIFICATE-----"
#define END_MARK "-----END CERTIFICATE-----"

const char *const trust_stores[] = {
    "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", NULL,
};

static bool
holds(const struct buf *b, const char *text, size_t len)
{
    struct slice s = buf_slice(b);
    return memmem(s.ptr, s.len, text, len) != NULL;
}

/* False: the whole has become too large. */
static bool
add_certificates(struct buf *b, const char *text)
{
    for (const char *begin = text; (begin = strstr(begin, BEGIN_MARK));) {
        const char *end = strstr(begin, END_MARK);
        if (!end)
            return true;
        end += strlen(END_MARK);
        size_t len = (size_t)(end - begin);
        if (!holds(b, begin, len) && (!buf_append(b, begin, len) || !buf_append_str(b, "\n")))
            return false;
        begin = end;
    }
    return true;
}

static int
join(struct buf *b, const char *path, struct err *err)
{
    cleanup_free char *text = NULL;
    size_t len;
    struct err ignored = {0};
    if (file_read(path, TRUST_BUNDLE_MAX, FILE_ANY, &text, &len, &ignored) < 0)
        return 0;
    /* Most often it is the system's own file: one look instead of one for each certificate. */
    if (holds(b, text, len) || add_certificates(b, text))
        return 0;
    return err_invalid(err, "%s: with its certificates the bundle has more than %u bytes", path, TRUST_BUNDLE_MAX);
}

int
trust_read(const char *bundle, const struct environment_in *in, char **ret, struct err *err)
{
    cleanup_free char *text = NULL;
    size_t len;
    struct buf b;
    if (file_read(bundle, TRUST_BUNDLE_MAX, FILE_ANY, &text, &len, err) < 0)
        return -1;
    buf_init(&b, TRUST_BUNDLE_MAX);
    int rc = buf_append(&b, text, len) && buf_append_str(&b, "\n") ? 0 : err_invalid(err, "%s: is too large", bundle);
    const char *path, *before = "";
    for (size_t i = 0; rc == 0 && (path = environment_trust_file(in, &i)); i++) {
        if (strcmp(path, before) != 0) /* the same one in a row of variables */
            rc = join(&b, path, err);
        before = path;
    }
    if (rc == 0)
        *ret = mem_dup_slice(buf_slice(&b));
    buf_done(&b);
    return rc;
}

/* ---- Java's format ("JKS", version 2): big-endian numbers, texts with their length before them ---- */

static bool
put_number(struct buf *b, uint64_t number, int bytes)
{
    unsigned char out[8];
    for (int i = 0; i < bytes; i++)
        out[i] = (unsigned char)(number >> (8 * (bytes - 1 - i)));
    return buf_append(b, out, (size_t)bytes);
}

static bool
put_text(struct buf *b, const char *text)
{
    return put_number(b, strlen(text), 2) && buf_append_str(b, text);
}

/* The bytes between two marks, which are base64 in lines. */
static bool
decode(const char *text, size_t len, unsigned char *out, size_t *ret_len)
{
    cleanup_free char *plain = mem_array(len + 1, 1);
    size_t count = 0;
    for (size_t i = 0; i < len; i++)
        if (text[i] != '\n' && text[i] != '\r')
            plain[count++] = text[i];
    return base64_decode(slice_of(plain, count), out, ret_len);
}

static bool
put_certificate(struct buf *b, unsigned number, const unsigned char *der, size_t len)
{
    char alias[32];
    snprintf(alias, sizeof alias, "root-%u", number);
    return put_number(b, 2, 4) && put_text(b, alias) && put_number(b, 0, 8) && put_text(b, "X.509") && put_number(b, len, 4) &&
           buf_append(b, der, len);
}

bool
trust_java_store(const char *bundle, struct buf *out)
{
    static const unsigned char no_digest[20]; /* it is for stores with a password, which is how Java reads one without */
    struct buf entries;
    unsigned count = 0;
    bool fine = true;
    buf_init(&entries, TRUST_BUNDLE_MAX);
    for (const char *at = bundle; fine && (at = strstr(at, BEGIN_MARK));) {
        const char *begin = at + strlen(BEGIN_MARK), *end = strstr(begin, END_MARK);
        if (!end)
            break;
        size_t len = (size_t)(end - begin), der_len;
        cleanup_free unsigned char *der = mem_array(len + 1, 1);
        if (decode(begin, len, der, &der_len))
            fine = put_certificate(&entries, ++count, der, der_len);
        at = end;
    }
    fine = fine && put_number(out, 0xfeedfeed, 4) && put_number(out, 2, 4) && put_number(out, count, 4) &&
           buf_append_slice(out, buf_slice(&entries)) && buf_append(out, no_digest, sizeof no_digest);
    buf_done(&entries);
    return fine;
}
