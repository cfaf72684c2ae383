/* Frames between workers and the keeper, either way. Held here: what is read as a question or an answer writes back to the
 * same bytes, and a question's host is one that a certificate may name. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "sallyport/tls/leafwire.h"
#include "sallyport/tls/mint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_host(const struct host *h)
{
    assert(h->kind != HOST_NONE && h->len > 0 && strlen(h->text) == h->len);
    for (size_t i = 0; i < h->len; i++)
        assert(!strchr("*,/\\ \t\r\n", h->text[i]) && (unsigned char)h->text[i] < 0x7f);
}

static void
try_question(struct slice frame)
{
    struct leaf_question q;
    struct buf b;
    if (!leaf_question_read(frame, &q))
        return;
    check_host(&q.host);
    assert(q.port != 0 && q.policy.len <= LEAF_POLICY_NAME_MAX && q.token.len <= LEAF_TOKEN_MAX);
    buf_init(&b, LEAF_QUESTION_MAX);
    assert(leaf_question_write(&b, &q) && slice_equal(buf_slice(&b), frame));
    buf_done(&b);
}

static void
try_answer(struct slice frame)
{
    struct leaf_answer a;
    struct buf b;
    if (!leaf_answer_read(frame, &a))
        return;
    assert((a.status == LEAF_STATUS_MINTED) == (a.der.len > 0));
    buf_init(&b, LEAF_DER_MAX + 64);
    assert(leaf_answer_write(&b, &a) && slice_equal(buf_slice(&b), frame));
    buf_done(&b);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice frame = slice_of((const char *)data, size);
    try_question(frame);
    try_answer(frame);
    return 0;
}
