/* Heads. Held here: one verdict however the bytes are split; and what has been passed on is read,
 * by the same parser, as the message that came in. The first byte chooses request or response, the
 * second where to split. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

#include "sallyport/base/arena.h"
#include "sallyport/http/fields.h"
#include "sallyport/http/head.h"

#define CAP 8192
#define OUT_CAP 32768

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct forward_options plain = {.via_pseudonym = "sallyport", .keep_upgrade = true};

/* Scans with a first piece of `first` bytes, then `step` more each time. */
static enum head_scan_status
scan_in_steps(struct head_scan *scan, struct slice bytes, size_t first, size_t step)
{
    enum head_scan_status status = HEAD_SCAN_MORE;
    for (size_t n = first < bytes.len ? first : bytes.len; status == HEAD_SCAN_MORE;
         n = n + step < bytes.len ? n + step : bytes.len) {
        char *copy = malloc(n + 1); /* in memory of its own, so that no look-ahead goes unseen */
        memcpy(copy, bytes.ptr, n);
        status = head_scan(scan, slice_of(copy, n), CAP);
        free(copy);
        if (n == bytes.len)
            break;
    }
    return status;
}

static enum head_scan_status
scan_all_ways(struct head_scan *whole, struct slice bytes, size_t seed)
{
    struct head_scan split = *whole;
    enum head_scan_status status = head_scan(whole, bytes, CAP);
    enum head_scan_status again = scan_in_steps(&split, bytes, seed, 1 + seed % 7);
    assert(status == again && whole->start == split.start && whole->end == split.end &&
           whole->lines == split.lines);
    return status;
}

static struct slice
reread(struct slice out, bool response)
{
    struct head_scan scan = {.response = response};
    assert(head_scan(&scan, out, OUT_CAP) == HEAD_SCAN_COMPLETE && scan.start == 0 &&
           scan.end == out.len);
    return out;
}

static void
check_one_host(const struct head *head, const struct target *target)
{
    size_t count;
    struct slice host = head_field(head, "Host", &count);
    assert(count == 1 && target_check_host_field(target, host) == REASON_OK);
}

static void
check_request(struct arena *arena, struct slice bytes)
{
    struct head head, again;
    struct target target;
    struct slice path;
    struct buf out;
    if (head_parse_request(arena, bytes, &head) != REASON_OK)
        return;
    assert(head.method.len && head.method.len <= HEAD_METHOD_MAX &&
           head.field_count <= HEAD_FIELDS_MAX);
    /* What is written has two fields that may not have been there. */
    if (target_from_uri(head.target, &target, &path) != REASON_OK ||
        head.field_count > HEAD_FIELDS_MAX - 5)
        return;
    if (slice_is(head.method, "CONNECT"))
        return;
    struct forward_options o = plain;
    o.body = head.body;
    o.content_length = head.content_length;
    buf_init(&out, OUT_CAP);
    assert(fields_write_request(&out, &head, &target, path, &o));
    assert(head_parse_request(arena, reread(buf_slice(&out), false), &again) == REASON_OK);
    assert(slice_equal(head.method, again.method) && again.minor == 1);
    assert(slice_equal(again.target, path) ||
           (slice_is(head.method, "OPTIONS") && slice_is(again.target, "*")));
    assert(again.body == head.body && again.content_length == head.content_length);
    assert(again.expect_continue == head.expect_continue &&
           again.upgrade_websocket == head.upgrade_websocket);
    check_one_host(&again, &target);
    for (size_t i = 0; i < again.field_count; i++)
        assert(again.fields[i].name.len < 6 ||
               !slice_equal_nocase(slice_of(again.fields[i].name.ptr, 6), slice_str("Proxy-")));
    buf_done(&out);
}

static void
check_response(struct arena *arena, struct slice bytes, struct slice method)
{
    struct head head, again;
    struct buf out;
    if (head_parse_response(arena, bytes, method, &head) != REASON_OK)
        return;
    assert(head.status >= 100 && head.status <= 599);
    if (head.field_count > HEAD_FIELDS_MAX - 5 || head.status == 407)
        return;
    struct forward_options o = plain;
    o.body = head.body;
    o.content_length = head.content_length;
    buf_init(&out, OUT_CAP);
    assert(fields_write_response(&out, &head, &o));
    assert(head_parse_response(arena, reread(buf_slice(&out), true), method, &again) == REASON_OK);
    assert(again.status == head.status && again.body == head.body &&
           again.content_length == head.content_length);
    buf_done(&out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const methods[] = {"GET", "HEAD", "CONNECT", "POST"};
    if (size < 2)
        return 0;
    struct slice bytes = slice_of(data + 2, size - 2);
    struct head_scan scan = {.response = data[0] & 1};
    if (scan_all_ways(&scan, bytes, data[1]) != HEAD_SCAN_COMPLETE)
        return 0;
    struct slice head = slice_of(bytes.ptr + scan.start, scan.end - scan.start);
    struct arena *arena = arena_new(4096);
    if (scan.response)
        check_response(arena, head, slice_str(methods[data[0] >> 1 & 3]));
    else
        check_request(arena, head);
    arena_free(arena);
    return 0;
}
