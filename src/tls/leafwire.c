/* Questions for leaf certificates and their answers, as bytes. Pure; no allocation but the caller's buffer.
 * question: id 4, port 2, digest 32, name length 1, host length 1, token length 2, name, host, token
 * answer: id 4, status 1, DER */
#include "sallyport/tls/leafwire.h"

#include "sallyport/tls/mint.h"

#define QUESTION_HEAD 42
#define ANSWER_HEAD 5

static void
put(unsigned char *at, uint32_t value, size_t size)
{
    for (size_t i = 0; i < size; i++)
        at[i] = (unsigned char)(value >> 8 * (size - 1 - i));
}

static uint32_t
get(const char *at, size_t size)
{
    uint32_t value = 0;
    for (size_t i = 0; i < size; i++)
        value = value << 8 | (unsigned char)at[i];
    return value;
}

bool
leaf_question_write(struct buf *b, const struct leaf_question *q)
{
    unsigned char head[QUESTION_HEAD];
    size_t total = sizeof head + q->policy.len + q->host.len + q->token.len;
    if (q->policy.len > LEAF_POLICY_NAME_MAX || q->token.len > LEAF_TOKEN_MAX || q->host.kind == HOST_NONE || buf_room(b) < total)
        return false;
    put(head, q->id, 4);
    put(head + 4, q->port, 2);
    memcpy(head + 6, q->policy_sha256, SHA256_SIZE);
    put(head + 38, (uint32_t)q->policy.len, 1);
    put(head + 39, q->host.len, 1);
    put(head + 40, (uint32_t)q->token.len, 2);
    return buf_append(b, head, sizeof head) && buf_append_slice(b, q->policy) && buf_append_slice(b, host_slice(&q->host)) &&
           buf_append_slice(b, q->token);
}

/* Canonical is what reads back to itself: nothing else may become a certificate's name. */
static bool
read_host(struct slice text, struct host *ret)
{
    return host_parse(text, ret) && slice_equal(host_slice(ret), text);
}

bool
leaf_question_read(struct slice frame, struct leaf_question *ret)
{
    if (frame.len < QUESTION_HEAD)
        return false;
    struct leaf_question q = {.id = get(frame.ptr, 4), .port = (uint16_t)get(frame.ptr + 4, 2)};
    size_t name_len = get(frame.ptr + 38, 1), host_len = get(frame.ptr + 39, 1), token_len = get(frame.ptr + 40, 2);
    if (name_len > LEAF_POLICY_NAME_MAX || token_len > LEAF_TOKEN_MAX || q.port == 0 ||
        frame.len != QUESTION_HEAD + name_len + host_len + token_len)
        return false;
    memcpy(q.policy_sha256, frame.ptr + 6, SHA256_SIZE);
    q.policy = slice_of(frame.ptr + QUESTION_HEAD, name_len);
    q.token = slice_of(frame.ptr + QUESTION_HEAD + name_len + host_len, token_len);
    if (!read_host(slice_of(frame.ptr + QUESTION_HEAD + name_len, host_len), &q.host))
        return false;
    *ret = q;
    return true;
}

bool
leaf_answer_write(struct buf *b, const struct leaf_answer *a)
{
    unsigned char head[ANSWER_HEAD];
    if (a->der.len > LEAF_DER_MAX || buf_room(b) < sizeof head + a->der.len)
        return false;
    put(head, a->id, 4);
    put(head + 4, a->status, 1);
    return buf_append(b, head, sizeof head) && buf_append_slice(b, a->der);
}

bool
leaf_answer_read(struct slice frame, struct leaf_answer *ret)
{
    if (frame.len < ANSWER_HEAD || frame.len > ANSWER_HEAD + LEAF_DER_MAX)
        return false;
    uint32_t status = get(frame.ptr + 4, 1);
    struct slice der = slice_of(frame.ptr + ANSWER_HEAD, frame.len - ANSWER_HEAD);
    if (status == LEAF_STATUS_NONE || status > LEAF_STATUS_FAILED || (status == LEAF_STATUS_MINTED) != (der.len > 0))
        return false;
    *ret = (struct leaf_answer){get(frame.ptr, 4), (enum leaf_status)status, der};
    return true;
}
