/* A TLS 1.3 ClientHello as bytes (RFC 8446 section 4.1.2), made by hand so that it is the same in
 * every run. */
#include <stdlib.h>
#include <string.h>

#include "fakes/script.h"
#include "sallyport/base/buf.h"
#include "sallyport/base/mem.h"

#define HELLO_BYTES_MAX 65536

static void
put(struct buf *b, unsigned value, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--) {
        char c = (char)(value >> (8 * i));
        buf_append(b, &c, 1);
    }
}

static void
put_extension(struct buf *b, unsigned type, const void *data, size_t len)
{
    put(b, type, 2);
    put(b, (unsigned)len, 2);
    buf_append(b, data, len);
}

static void
put_server_name(struct buf *b, const char *name)
{
    struct buf e;
    buf_init(&e, 1024);
    unsigned len = (unsigned)strlen(name);
    put(&e, len + 3, 2);
    put(&e, 0, 1);
    put(&e, len, 2);
    buf_append(&e, name, len);
    put_extension(b, 0, e.data, buf_len(&e));
    buf_done(&e);
}

static void
put_extensions(struct buf *b, const char *name, const char *option)
{
    static const char versions[] = {2, 3, 4}, groups[] = {0, 2, 0, 0x1d},
                      alpn[] = {0, 3, 2, 'h', '2'};
    static const char filler[6000];
    if (name)
        put_server_name(b, name);
    put_extension(b, 43, versions, sizeof versions);
    put_extension(b, 10, groups, sizeof groups);
    put_extension(b, 16, alpn, sizeof alpn);
    if (option && strcmp(option, "ech") == 0)
        put_extension(b, 0xfe0d, filler, 120);
    if (option && strcmp(option, "long") == 0) /* a key share of this size spans several segments */
        put_extension(b, 51, filler, sizeof filler);
}

char *
hello_build(const char *name, const char *option, size_t *ret_len)
{
    struct buf ext, body, out;
    char random[32];
    memset(random, 0x5a, sizeof random);
    buf_init(&ext, HELLO_BYTES_MAX);
    buf_init(&body, HELLO_BYTES_MAX);
    buf_init(&out, HELLO_BYTES_MAX);
    put_extensions(&ext, name, option);
    put(&body, 0x0303, 2);
    buf_append(&body, random, sizeof random);
    put(&body, 0, 1); /* no session id */
    put(&body, 2, 2); /* one cipher suite: TLS_AES_128_GCM_SHA256 */
    put(&body, 0x1301, 2);
    put(&body, 0x0100, 2); /* compression: null */
    put(&body, (unsigned)buf_len(&ext), 2);
    buf_append(&body, ext.data, buf_len(&ext));
    put(&out, 0x16, 1); /* handshake record */
    put(&out, 0x0301, 2);
    put(&out, (unsigned)buf_len(&body) + 4, 2);
    put(&out, 1, 1); /* client_hello */
    put(&out, (unsigned)buf_len(&body), 3);
    buf_append(&out, body.data, buf_len(&body));
    buf_done(&ext);
    buf_done(&body);
    *ret_len = buf_len(&out);
    return out.data;
}
