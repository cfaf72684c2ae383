/* The proxy's own replies. Everything said comes from the one list of reasons and from facts that
 * the client has sent itself or that name the rule; addresses and other hosts of the policy never
 * get here. Header fields hold fixed text and numbers alone, all else stands escaped in the JSON
 * body, so that no input can make up a field. */
#include "sallyport/http/status.h"

#include <stdio.h>

#include "sallyport/base/encoding.h"

#define SENTENCE_SIZE 2048
#define FACT_MAX 512 /* bytes of rule, instance or detail: ours, but made of policy texts */
/* The sentence and two facts with every byte escaped (six for one), and the fixed texts. */
#define BODY_SIZE_MAX (6 * (SENTENCE_SIZE + 2 * FACT_MAX) + 2048)
#define REPLY_SIZE_MAX (BODY_SIZE_MAX + 2048)

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

/* What was refused, by which rule, why, and what to do: for a person, or for an agent that reads
 * its tool's output. */
static void
write_sentence(char text[SENTENCE_SIZE], const struct reply_facts *facts, enum reason reason,
               bool denied)
{
    char target[TARGET_TEXT_SIZE] = "";
    bool has_rule = facts->rule && facts->rule[0], has_detail = facts->detail && facts->detail[0];
    if (facts->target)
        target_format(facts->target, target);
    snprintf(text, SENTENCE_SIZE, "%s%s %s%s%.*s: %s%s%.*s. What to do: %s.",
             facts->target ? "Egress to " : "This request", target,
             denied ? "was refused" : "failed", has_rule ? " by rule " : "", FACT_MAX,
             has_rule ? facts->rule : "", reason_meaning(reason), has_detail ? "; " : "", FACT_MAX,
             has_detail ? facts->detail : "", reason_advice(reason));
}

static bool
append_member(struct buf *b, const char *name, const char *text, size_t max_len)
{
    if (!buf_printf(b, ",\"%s\":", name))
        return false;
    if (!text || !text[0])
        return buf_append_str(b, "null");
    json_append_string(b, slice_str(text),
                       max_len); /* cut rather than refused; overflow shows on the buffer */
    return !b->overflow;
}

static bool
append_target(struct buf *b, const struct target *target)
{
    char host[HOST_TEXT_SIZE];
    if (!target)
        return buf_append_str(b, ",\"host\":null,\"port\":null");
    snprintf(host, sizeof(host), "%.*s", (int)target->host.len, target->host.text);
    return append_member(b, "host", host, sizeof(host)) &&
           buf_printf(b, ",\"port\":%u", target->port);
}

/* problem+json (RFC 9457). */
static bool
write_body(struct buf *b, const struct reply_facts *facts, enum reason reason, int status)
{
    char sentence[SENTENCE_SIZE];
    write_sentence(sentence, facts, reason, status < 500);
    return buf_printf(b, "{\"type\":\"urn:sallyport:reason:%s\"", reason_text(reason)) &&
           append_member(b, "title", reason_meaning(reason), FACT_MAX) &&
           buf_printf(b, ",\"status\":%d", status) &&
           append_member(b, "detail", sentence, SENTENCE_SIZE) &&
           append_member(b, "instance", facts->instance, FACT_MAX) &&
           append_target(b, facts->target) &&
           append_member(b, "reason", reason_text(reason), FACT_MAX) &&
           append_member(b, "rule", facts->rule, FACT_MAX) && buf_append_str(b, "}\n");
}

static bool
write_status_line(struct buf *b, enum reason reason, int status)
{
    const char *kind = status >= 500 ? "failed" : "denied";
    const char *why = reason_proxy_reason(reason);
    return buf_printf(b, "HTTP/1.1 %d Egress %s: %s\r\nx-deny-reason: %s\r\n", status, kind,
                      reason_text(reason), reason_text(reason)) &&
           buf_printf(b, "Proxy-Status: sallyport; error=%s%s%s\r\n", reason_proxy_error(reason),
                      why ? "; reason=" : "", why ? why : "");
}

/* Fields that belong to a status (RFC 9110 sections 11.7.1, 10.2.1 and 10.2.3). */
static bool
write_status_fields(struct buf *b, int status, uint32_t retry_after_s)
{
    if (status == 407)
        return buf_append_str(
            b, "Proxy-Authenticate: Basic realm=\"sallyport\"\r\nProxy-Authenticate: Bearer\r\n");
    if (status == 405)
        return buf_append_str(b,
                              "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, CONNECT\r\n");
    if ((status == 429 || status == 503) && retry_after_s)
        return buf_printf(b, "Retry-After: %u\r\n", retry_after_s);
    return true;
}

static bool
write_reply(struct buf *reply, struct slice body, const struct reply_facts *facts,
            enum reason reason, int status)
{
    bool close = facts->close || must_close(status);
    return write_status_line(reply, reason, status) &&
           write_status_fields(reply, status, facts->retry_after_s) &&
           buf_printf(reply, "content-type: application/problem+json\r\ncontent-length: %zu\r\n",
                      body.len) &&
           buf_printf(reply, "cache-control: no-store\r\n%s\r\n",
                      close ? "Connection: close\r\n" : "") &&
           (facts->head_request || buf_append_slice(reply, body));
}

bool
reply_write(struct buf *out, const struct reply_facts *facts)
{
    enum reason reason = reply_reason(facts);
    int status = reply_status(reason);
    struct buf body, reply;
    buf_init(&body, BODY_SIZE_MAX);
    buf_init(&reply, REPLY_SIZE_MAX);
    /* Put together first and appended as a whole: half a reply would be read together with the next
     * one. */
    bool ok = write_body(&body, facts, reason, status) &&
              write_reply(&reply, buf_slice(&body), facts, reason, status) &&
              buf_append_slice(out, buf_slice(&reply));
    buf_done(&body);
    buf_done(&reply);
    return ok;
}
