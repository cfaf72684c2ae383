/* The proxy's own replies: well-formed, self-explaining, and telling nothing that the client did
 * not know. */
#include "unit/test.h"

#include <jansson.h>

#include "sallyport/base/arena.h"
#include "sallyport/http/head.h"
#include "sallyport/http/status.h"

/* A reply, and its head as our own parser reads it. */
struct reply {
    struct buf out;
    struct arena *arena;
    struct head head;
    json_t *body;
};

static void
reply_done(struct reply *r)
{
    json_decref(r->body);
    arena_free(r->arena);
    buf_done(&r->out);
}

static void
reply_make(struct reply *r, const struct reply_facts *facts)
{
    struct head_scan scan = {.response = true};
    *r = (struct reply){.arena = arena_new(4096)};
    buf_init(&r->out, 16384);
    CHECK(reply_write(&r->out, facts));
    struct slice all = buf_slice(&r->out);
    CHECK(head_scan(&scan, all, 16384) == HEAD_SCAN_COMPLETE);
    CHECK(head_parse_response(r->arena, slice_of(all.ptr, scan.end),
                              slice_str(facts->head_request ? "HEAD" : "GET"),
                              &r->head) == REASON_OK);
    struct slice body = slice_of(all.ptr + scan.end, all.len - scan.end);
    CHECK(facts->head_request ? body.len == 0 : body.len == r->head.content_length && body.len > 0);
    for (size_t i = 0; i < all.len; i++)
        CHECK((all.ptr[i] >= 0x20 && all.ptr[i] < 0x7f) || all.ptr[i] == '\r' ||
              all.ptr[i] == '\n');
    if (!facts->head_request) {
        r->body = json_loadb(body.ptr, body.len, JSON_REJECT_DUPLICATES, NULL);
        CHECK(json_is_object(r->body));
    }
}

static const char *
field(const struct reply *r, const char *name, size_t want_count)
{
    size_t count;
    struct slice v = head_field(&r->head, name, &count);
    CHECK_THAT(count == want_count, "%s: %zu", name, count);
    return arena_strdup(r->arena, v);
}

static const char *
member(const struct reply *r, const char *name)
{
    const char *text = json_string_value(json_object_get(r->body, name));
    return text ? text : "";
}

static struct target
target_of(const char *authority)
{
    struct target t = {0};
    CHECK(target_from_authority(slice_str(authority), &t) == REASON_OK);
    return t;
}

TEST(a_refusal)
{
    struct target t = target_of("two.test:8443");
    struct reply r;
    reply_make(&r, &(struct reply_facts){.reason = REASON_HOST_BLOCKED,
                                         .target = &t,
                                         .rule = "blocked_hosts[0]",
                                         .instance = "01ABC"});
    CHECK(slice_starts_with(buf_slice(&r.out), "HTTP/1.1 403 Egress denied: host_blocked\r\n"));
    CHECK_STR(field(&r, "x-deny-reason", 1), "host_blocked");
    CHECK_STR(field(&r, "Proxy-Status", 1),
              "sallyport; error=http_request_denied; reason=not-on-allowlist");
    CHECK_STR(field(&r, "content-type", 1), "application/problem+json");
    field(&r, "content-length", 1);
    field(&r, "Connection", 0);
    CHECK_STR(member(&r, "type"), "urn:sallyport:reason:host_blocked");
    CHECK_STR(member(&r, "instance"), "01ABC");
    CHECK_STR(member(&r, "host"), "two.test");
    CHECK_STR(member(&r, "reason"), "host_blocked");
    CHECK_STR(member(&r, "rule"), "blocked_hosts[0]");
    CHECK(json_integer_value(json_object_get(r.body, "port")) == 8443 &&
          json_integer_value(json_object_get(r.body, "status")) == 403);
    CHECK(strlen(member(&r, "title")) > 5);
    CHECK(strstr(member(&r, "detail"), "two.test:8443") &&
          strstr(member(&r, "detail"), "blocked_hosts[0]"));
    CHECK(strstr(member(&r, "detail"), reason_advice(REASON_HOST_BLOCKED)) &&
          strstr(member(&r, "detail"), reason_meaning(REASON_HOST_BLOCKED)));
    CHECK(json_object_size(r.body) == 9);
    reply_done(&r);
}

TEST(every_reason_has_a_reply)
{
    for (int i = 0; i < REASON_COUNT; i++) {
        enum reason reason = (enum reason)i;
        bool ours = reason == REASON_UNDECIDED || reason == REASON_OK;
        const char *text = ours ? "internal" : reason_text(reason);
        int status = ours ? 500 : reason_status(reason) ? reason_status(reason) : 403;
        char line[128];
        struct reply r;
        reply_make(&r, &(struct reply_facts){.reason = reason, .retry_after_s = 7});
        snprintf(line, sizeof(line), "HTTP/1.1 %d Egress %s: %s\r\n", status,
                 status < 500 ? "denied" : "failed", text);
        CHECK_THAT(slice_starts_with(buf_slice(&r.out), line), "%s", line);
        CHECK_STR(field(&r, "x-deny-reason", 1), text);
        CHECK_STR(member(&r, "reason"), text);
        CHECK(json_is_null(json_object_get(r.body, "host")) &&
              json_is_null(json_object_get(r.body, "port")));
        CHECK(json_is_null(json_object_get(r.body, "rule")) &&
              json_is_null(json_object_get(r.body, "instance")));
        CHECK(strncmp(field(&r, "Proxy-Status", 1), "sallyport; error=", 17) == 0);
        field(&r, "Proxy-Authenticate", status == 407 ? 2 : 0);
        field(&r, "Retry-After", status == 429 || status == 503 ? 1 : 0);
        field(&r, "Allow", status == 405 ? 1 : 0);
        field(&r, "Connection",
              status == 400 || status == 407 || status == 408 || status == 413 || status == 417 ||
                  status == 431 || status == 501);
        reply_done(&r);
    }
}

TEST(a_challenge_names_both_schemes)
{
    struct reply r;
    reply_make(&r, &(struct reply_facts){.reason = REASON_TOKEN_MISSING});
    struct slice all = buf_slice(&r.out);
    CHECK(memmem(all.ptr, all.len, "\r\nProxy-Authenticate: Basic realm=\"sallyport\"\r\n", 47));
    CHECK(memmem(all.ptr, all.len, "\r\nProxy-Authenticate: Bearer\r\n", 30));
    CHECK_STR(field(&r, "Connection", 1), "close");
    CHECK(!r.head.persistent);
    reply_done(&r);
}

TEST(head_gets_no_body_and_the_same_length)
{
    struct reply get, head;
    reply_make(&get, &(struct reply_facts){.reason = REASON_HOST_NOT_ALLOWED});
    reply_make(&head,
               &(struct reply_facts){.reason = REASON_HOST_NOT_ALLOWED, .head_request = true});
    CHECK_STR(field(&head, "content-length", 1), field(&get, "content-length", 1));
    reply_done(&get);
    reply_done(&head);
}

TEST(close_and_retry)
{
    struct reply r;
    reply_make(&r, &(struct reply_facts){
                       .reason = REASON_LIMIT_TUNNELS, .close = true, .retry_after_s = 60});
    CHECK_STR(field(&r, "Connection", 1), "close");
    CHECK_STR(field(&r, "Retry-After", 1), "60");
    reply_done(&r);
    reply_make(&r, &(struct reply_facts){.reason = REASON_HOST_NOT_ALLOWED, .retry_after_s = 60});
    field(&r, "Retry-After", 0);
    CHECK(r.head.persistent);
    reply_done(&r);
}

TEST(texts_cannot_break_out)
{
    static const char evil[] = "x\r\nSet-Cookie: a=b\r\n\r\n\"},{\"a\":\"\\\x01\xff<script>";
    struct reply r;
    reply_make(
        &r, &(struct reply_facts){
                .reason = REASON_PATH_NOT_ALLOWED, .rule = evil, .instance = evil, .detail = evil});
    field(&r, "Set-Cookie", 0);
    CHECK(json_object_size(r.body) == 9);
    CHECK(strncmp(member(&r, "rule"), "x\r\nSet-Cookie", 13) == 0);
    reply_done(&r);
}

TEST(long_texts_are_cut_not_refused)
{
    static char longer[100000];
    memset(longer, 1, sizeof(longer) - 1); /* each byte takes six when escaped */
    struct target t =
        target_of("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.test:65535");
    struct reply r;
    reply_make(&r, &(struct reply_facts){.reason = REASON_HOST_NOT_ALLOWED,
                                         .target = &t,
                                         .rule = longer,
                                         .instance = longer,
                                         .detail = longer});
    reply_done(&r);
}

TEST(half_a_reply_is_never_written)
{
    struct reply_facts facts = {.reason = REASON_INTERNAL};
    struct buf out;
    size_t full;
    buf_init(&out, 16384);
    CHECK(reply_write(&out, &facts));
    full = buf_len(&out);
    buf_done(&out);
    for (size_t cap = 0; cap < full; cap += 13) {
        buf_init(&out, cap);
        CHECK(!reply_write(&out, &facts) && buf_len(&out) == 0);
        buf_done(&out);
    }
}

TEST(phrases)
{
    CHECK_STR(status_phrase(200), "OK");
    CHECK_STR(status_phrase(407), "Proxy Authentication Required");
    CHECK_STR(status_phrase(299), "Unknown");
    for (int i = 0; i < REASON_COUNT; i++)
        CHECK(reason_status((enum reason)i) == 0 ||
              strcmp(status_phrase(reason_status((enum reason)i)), "Unknown") != 0);
}
