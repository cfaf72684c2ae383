/* The proxy's own replies. Everything said comes from the one list of reasons and from facts that
 * the client has sent itself or that name the rule; addresses and other hosts of the policy never
 * get here. Header fields hold fixed text and numbers alone, all else stands escaped in the JSON
 * body, so that no input can make up a field. */
#include "sallyport/http/status.h"

#include "sallyport/base/encoding.h"

#define FACT_MAX 512 /* bytes of rule, instance or detail: ours, but made of policy texts */
/* The rule twice, detail and instance with every byte escaped, and the fixed texts. */
#define BODY_SIZE_MAX (4 * FACT_MAX * JSON_ESCAPE_MAX + 4096)
#define HEAD_SIZE_MAX 2048
#define USUAL_SIZE 1024 /* had at once, so that no usual reply grows step by step */

static const struct {
    int status;
    const char *phrase;
} phrases[] = {
    {100, "Continue"},
    {101, "Switching Protocols"},
    {103, "Early Hints"},
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {206, "Partial Content"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {407, "Proxy Authentication Required"},
    {408, "Request Timeout"},
    {413, "Content Too Large"},
    {417, "Expectation Failed"},
    {421, "Misdirected Request"},
    {426, "Upgrade Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
};

const char *
status_phrase(int status)
{
    for (size_t i = 0; i < sizeof(phrases) / sizeof(phrases[0]); i++)
        if (phrases[i].status == status)
            return phrases[i].phrase;
    return "Unknown";
}

/* A reply is always an error: a forgotten verdict or an "ok" that ends up here is a failure of
 * ours. */
static enum reason
reply_reason(const struct reply_facts *facts)
{
    return facts->reason == REASON_UNDECIDED || facts->reason == REASON_OK ? REASON_INTERNAL
                                                                           : facts->reason;
}

/* Reasons that end a tunnel have no status; inside an inspected one they can still be said. */
static int
reply_status(enum reason reason)
{
    int status = reason_status(reason);
    return status ? status : 403;
}

/* After these nothing on the connection can be trusted, or must be parsed, any more (CONTRACT
 * section 5). */
static bool
must_close(int status)
{
    return status == 400 || status == 407 || status == 408 || status == 413 || status == 417 ||
           status == 431 || status == 501;
}

static void
say(struct buf *b, const char *text)
{
    buf_append_str(b, text);
}

static void
say_uint(struct buf *b, uint64_t value)
{
    buf_append_uint(b, value);
}

/* Inside a JSON string; cut rather than refused. */
static void
quote(struct buf *b, const char *text)
{
    json_append_text(b, slice_str(text), FACT_MAX);
}

/* What was refused, by which rule, why, and what to do: for a person, or for an agent that reads
 * its tool's output. */
static void
write_sentence(struct buf *b, const struct reply_facts *facts, enum reason reason, bool denied)
{
    say(b, facts->target ? "Egress to " : "This request");
    if (facts->target) {
        buf_append_slice(b, host_slice(&facts->target->host));
        say(b, ":");
        say_uint(b, facts->target->port);
    }
    say(b, denied ? " was refused" : " failed");
    if (facts->rule && facts->rule[0]) {
        say(b, " by rule ");
        quote(b, facts->rule);
    }
    say(b, ": ");
    quote(b, reason_meaning(reason));
    if (facts->detail && facts->detail[0]) {
        say(b, "; ");
        quote(b, facts->detail);
    }
    say(b, ". What to do: ");
    quote(b, reason_advice(reason));
    say(b, ".");
}

/* A member's value, behind its colon. */
static void
write_value(struct buf *b, const char *text)
{
    if (text && text[0])
        json_append_string(b, slice_str(text), FACT_MAX);
    else
        say(b, "null");
}

static void
write_target(struct buf *b, const struct target *target)
{
    if (!target) {
        say(b, ",\"host\":null,\"port\":null");
        return;
    }
    say(b, ",\"host\":");
    json_append_string(b, host_slice(&target->host), HOST_TEXT_SIZE);
    say(b, ",\"port\":");
    say_uint(b, target->port);
}

/* problem+json (RFC 9457). */
static void
write_body(struct buf *b, const struct reply_facts *facts, enum reason reason, int status)
{
    say(b, "{\"type\":\"urn:sallyport:reason:");
    say(b, reason_text(reason));
    say(b, "\",\"title\":");
    write_value(b, reason_meaning(reason));
    say(b, ",\"status\":");
    say_uint(b, (unsigned)status);
    say(b, ",\"detail\":\"");
    write_sentence(b, facts, reason, status < 500);
    say(b, "\",\"instance\":");
    write_value(b, facts->instance);
    write_target(b, facts->target);
    say(b, ",\"reason\":");
    write_value(b, reason_text(reason));
    say(b, ",\"rule\":");
    write_value(b, facts->rule);
    say(b, "}\n");
}

static void
write_status_line(struct buf *b, enum reason reason, int status)
{
    const char *why = reason_proxy_reason(reason);
    say(b, "HTTP/1.1 ");
    say_uint(b, (unsigned)status);
    say(b, status >= 500 ? " Egress failed: " : " Egress denied: ");
    say(b, reason_text(reason));
    say(b, "\r\nx-deny-reason: ");
    say(b, reason_text(reason));
    say(b, "\r\nProxy-Status: sallyport; error=");
    say(b, reason_proxy_error(reason));
    if (why) {
        say(b, "; reason=");
        say(b, why);
    }
    say(b, "\r\n");
}

/* Fields that belong to a status (RFC 9110 sections 11.7.1, 10.2.1 and 10.2.3). */
static void
write_status_fields(struct buf *b, int status, uint32_t retry_after_s)
{
    if (status == 407)
        say(b, "Proxy-Authenticate: Basic realm=\"sallyport\"\r\nProxy-Authenticate: Bearer\r\n");
    if (status == 405)
        say(b, "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, CONNECT\r\n");
    if ((status == 429 || status == 503) && retry_after_s) {
        say(b, "Retry-After: ");
        say_uint(b, retry_after_s);
        say(b, "\r\n");
    }
}

static void
write_head(struct buf *b, const struct reply_facts *facts, enum reason reason, int status, size_t body_len)
{
    write_status_line(b, reason, status);
    write_status_fields(b, status, facts->retry_after_s);
    say(b, "content-type: application/problem+json\r\ncontent-length: ");
    say_uint(b, body_len);
    say(b, "\r\ncache-control: no-store\r\n");
    if (facts->close || must_close(status))
        say(b, "Connection: close\r\n");
    say(b, "\r\n");
}

bool
reply_write(struct buf *out, const struct reply_facts *facts)
{
    enum reason reason = reply_reason(facts);
    int status = reply_status(reason);
    struct buf head, body;
    buf_init(&head, HEAD_SIZE_MAX);
    buf_init(&body, BODY_SIZE_MAX);
    buf_reserve(&head, USUAL_SIZE);
    buf_reserve(&body, USUAL_SIZE);
    write_body(&body, facts, reason, status);
    write_head(&head, facts, reason, status, buf_len(&body));
    if (facts->head_request)
        buf_clear(&body);
    /* As a whole or not at all: half a reply would be read together with the next one. */
    bool fits = !head.overflow && !body.overflow && buf_len(&head) + buf_len(&body) <= buf_room(out);
    if (fits)
        fits = buf_append_slice(out, buf_slice(&head)) && buf_append_slice(out, buf_slice(&body));
    buf_done(&head);
    buf_done(&body);
    return fits;
}
