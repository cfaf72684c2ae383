/* What a sandbox can send besides HTTP and TLS: DNS queries and packets, and what a balancer sends: the PROXY header. */
#include <stdint.h>
#include <stdlib.h>

#include "sallyport/net/dns_query.h"
#include "sallyport/proxy/preface.h"
#include "sallyport/proxy/watch.h"

static void
query(struct slice in)
{
    struct dns_query q;
    struct buf out;
    struct addr a = {.family = AF_INET, .bytes = {198, 18, 0, 1}};
    int r = dns_query_read(in, &q);
    if (r < 0)
        return;
    buf_init(&out, 1024);
    if (!dns_reply_write(&out, &q, (enum dns_rcode)r, r == DNS_NOERROR ? &a : NULL, 30))
        abort(); /* an answer to what was read always fits */
    /* An answer is no query. */
    if (dns_query_read(buf_slice(&out), &q) >= 0)
        abort();
    buf_done(&out);
}

static void
preface(struct slice in)
{
    struct addr client = {0};
    uint16_t port = 0;
    size_t used = 0;
    enum preface_status whole = preface_read(in, &client, &port, &used);
    if (whole == PREFACE_COMPLETE && (used > in.len || used > PREFACE_MAX))
        abort();
    /* One verdict however it comes: no shorter piece is complete, and none is malformed unless the whole is. */
    for (size_t n = 0; n < in.len && n < PREFACE_MAX; n++) {
        enum preface_status part = preface_read(slice_of(in.ptr, n), &client, &port, &used);
        if (part == PREFACE_MALFORMED && whole != PREFACE_MALFORMED)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct attempt attempt;
    struct slice in = slice_of(data, size);
    query(in);
    preface(in);
    (void)watch_read(in, &attempt);
    return 0;
}
