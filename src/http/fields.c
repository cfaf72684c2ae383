/* What changes in a head when it is passed on. Hop-by-hop fields end here, in both directions; the
 * framing fields, Host, Via and Connection are written anew from what was understood, never copied
 * from what was sent, so that the next server reads the message as we did. All other fields pass
 * byte for byte and in order. */
#include "sallyport/http/fields.h"

#include "sallyport/http/chars.h"
#include "sallyport/http/status.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static bool
name_in(struct slice name, const struct slice *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (slice_equal_nocase(name, names[i]))
            return true;
    return false;
}

static bool
name_begins(struct slice name, struct slice prefix)
{
    return name.len >= prefix.len && slice_equal_nocase(slice_of(name.ptr, prefix.len), prefix);
}

/* Never copied in either direction: for this hop alone, or written anew. A bare `Proxy` field would
 * become HTTP_PROXY in the environment of a CGI program. */
static bool
is_per_hop(struct slice name)
{
    static const struct slice names[] = {
        SLICE_LITERAL("Connection"), SLICE_LITERAL("Keep-Alive"), SLICE_LITERAL("TE"),
        SLICE_LITERAL("Transfer-Encoding"), SLICE_LITERAL("Upgrade"),
        SLICE_LITERAL("HTTP2-Settings"), SLICE_LITERAL("Content-Length"), SLICE_LITERAL("Via"),
        SLICE_LITERAL("Proxy")};
    return name_in(name, names, COUNT(names)) || name_begins(name, slice_str("Proxy-")) ||
           name_begins(name, slice_str("Proxy_"));
}

/* What Connection cannot take away: the message would lose its meaning or its credentials, and the
 * two ends would no longer have spoken of the same message. */
static bool
is_protected(struct slice name)
{
    static const struct slice names[] = {
        SLICE_LITERAL("Host"), SLICE_LITERAL("Authorization"), SLICE_LITERAL("Cookie"),
        SLICE_LITERAL("Set-Cookie"), SLICE_LITERAL("WWW-Authenticate"),
        SLICE_LITERAL("Content-Type"), SLICE_LITERAL("Content-Encoding"),
        SLICE_LITERAL("Content-Range"), SLICE_LITERAL("Range"), SLICE_LITERAL("Cache-Control"),
        SLICE_LITERAL("Location"), SLICE_LITERAL("Expect")};
    return name_in(name, names, COUNT(names)) || name_begins(name, slice_str("Sec-WebSocket-"));
}

static bool
is_nominated(const struct head *head, struct slice name)
{
    for (size_t i = 0; i < head->field_count; i++) {
        struct slice member, list = head->fields[i].value;
        if (!slice_equal_nocase(head->fields[i].name, slice_str("Connection")))
            continue;
        while (field_list_next(&list, &member))
            if (slice_equal_nocase(member, name))
                return true;
    }
    return false;
}

static bool
is_method_override(struct slice name)
{
    static const struct slice names[] = {
        SLICE_LITERAL("X-HTTP-Method-Override"), SLICE_LITERAL("X-HTTP-Method"),
        SLICE_LITERAL("X-Method-Override")};
    return name_in(name, names, COUNT(names));
}

bool
fields_pass_request(struct slice name, bool drop_method_override)
{
    /* Trailers of requests are dropped, so announcing them would be untrue. */
    static const struct slice names[] = {
        SLICE_LITERAL("Host"), SLICE_LITERAL("Expect"), SLICE_LITERAL("Trailer")};
    if (is_per_hop(name) || name_in(name, names, COUNT(names)))
        return false;
    return !drop_method_override || !is_method_override(name);
}

static bool
passes_request(const struct head *head, struct slice name, const struct forward_options *o)
{
    return fields_pass_request(name, o->drop_method_override) &&
           (is_protected(name) || !is_nominated(head, name));
}

bool
fields_pass_response(struct slice name)
{
    static const struct slice names[] = {
        SLICE_LITERAL("Alt-Svc"), SLICE_LITERAL("Alt-Used"), SLICE_LITERAL("x-deny-reason")};
    return !is_per_hop(name) && !name_in(name, names, COUNT(names));
}

static bool
append_field(struct buf *out, const char *name, struct slice value)
{
    return buf_append_str(out, name) && buf_append_str(out, ": ") && buf_append_slice(out, value) &&
           buf_append_str(out, "\r\n");
}

static bool
copy_field(struct buf *out, const struct field *f)
{
    return buf_append_slice(out, f->name) && buf_append_str(out, ": ") &&
           buf_append_slice(out, f->value) && buf_append_str(out, "\r\n");
}

/* One Via for the whole way so far (RFC 9110 section 7.6.3): what came, and this hop. */
static bool
write_via(struct buf *out, const struct head *head, const char *pseudonym)
{
    bool ok = buf_append_str(out, "Via: ");
    for (size_t i = 0; ok && i < head->field_count; i++) {
        const struct field *f = &head->fields[i];
        if (f->value.len && slice_equal_nocase(f->name, slice_str("Via")) &&
            !is_nominated(head, f->name))
            ok = buf_append_slice(out, f->value) && buf_append_str(out, ", ");
    }
    return ok && buf_append_str(out, "1.") && buf_append_uint(out, head->minor) && buf_append_str(out, " ") &&
           buf_append_str(out, pseudonym) && buf_append_str(out, "\r\n");
}

static bool
write_framing(struct buf *out, const struct forward_options *o)
{
    switch (o->body) {
    case BODY_NONE:
    case BODY_TO_EOF:
        return true;
    case BODY_LENGTH:
        return buf_append_str(out, "Content-Length: ") && buf_append_uint(out, o->content_length) &&
               buf_append_str(out, "\r\n");
    case BODY_CHUNKED:
        return buf_append_str(out, "Transfer-Encoding: chunked\r\n");
    }
    return false;
}

static bool
write_connection(struct buf *out, bool upgrade, bool close)
{
    if (upgrade)
        return buf_append_str(out, "Connection: Upgrade\r\nUpgrade: websocket\r\n");
    return !close || buf_append_str(out, "Connection: close\r\n");
}

static bool
write_authority(struct buf *out, const struct target *target)
{
    bool implied = (target->scheme == SCHEME_HTTP && target->port == 80) ||
                   (target->scheme == SCHEME_HTTPS && target->port == 443);
    return buf_append_slice(out, host_slice(&target->host)) &&
           (implied || (buf_append_str(out, ":") && buf_append_uint(out, target->port)));
}

/* OPTIONS for the server as a whole came as an absolute-form without a path; it must leave as `*`
 * (RFC 9112 section 3.2.4) and go to a parent as it came. The caller may have made the path `*`
 * already. */
static bool
is_server_options(const struct head *head, struct slice path)
{
    struct slice t = head->target;
    if (!slice_is(head->method, "OPTIONS"))
        return false;
    return slice_is(path, "*") ||
           (slice_is(path, "/") && t.len && t.ptr[0] != '/' && t.ptr[t.len - 1] != '/');
}

static bool
write_request_line(struct buf *out, const struct head *head, const struct target *target,
                   struct slice path, bool absolute)
{
    bool server = is_server_options(head, path);
    bool ok = buf_append_slice(out, head->method) && buf_append_str(out, " ");
    if (absolute) {
        ok = ok && buf_append_str(out, target->scheme == SCHEME_HTTPS ? "https://" : "http://") &&
             write_authority(out, target);
        return ok && (server || buf_append_slice(out, path)) &&
               buf_append_str(out, " HTTP/1.1\r\n");
    }
    return ok && buf_append_slice(out, server ? slice_str("*") : path) &&
           buf_append_str(out, " HTTP/1.1\r\n");
}

/* Half a head must never be sent: what was appended goes again. */
static bool
finish(struct buf *out, size_t len_before, bool ok)
{
    if (!ok)
        out->end = out->start + len_before;
    return ok;
}

static bool
write_request(struct buf *out, const struct head *head, const struct target *target,
              struct slice path, const struct forward_options *o)
{
    bool ok = write_request_line(out, head, target, path, o->absolute) &&
              buf_append_str(out, "Host: ") && write_authority(out, target) &&
              buf_append_str(out, "\r\n");
    for (size_t i = 0; ok && i < head->field_count; i++)
        if (passes_request(head, head->fields[i].name, o))
            ok = copy_field(out, &head->fields[i]);
    if (ok && head->expect_continue)
        ok = buf_append_str(out, "Expect: 100-continue\r\n");
    if (ok && o->parent_authorization.len)
        ok = append_field(out, "Proxy-Authorization", o->parent_authorization);
    return ok && write_framing(out, o) && write_via(out, head, o->via_pseudonym) &&
           write_connection(out, o->keep_upgrade && head->upgrade_websocket, o->close) &&
           buf_append_str(out, "\r\n");
}

bool
fields_write_request(struct buf *out, const struct head *head, const struct target *target,
                     struct slice path, const struct forward_options *o)
{
    size_t before = buf_len(out);
    return finish(out, before, write_request(out, head, target, path, o));
}

/* An answer to HEAD and a 304 may say how long the body would have been (RFC 9110 section 8.6).
 * head_parse_response has seen to it that there is one such field at most and that it is a number.
 */
static bool
write_absent_length(struct buf *out, const struct head *head, const struct forward_options *o)
{
    size_t count;
    struct slice length = head_field(head, "Content-Length", &count);
    if (o->body != BODY_NONE || count != 1 || head->status < 200 || head->status == 204)
        return true;
    return append_field(out, "Content-Length", length);
}

static bool
write_status_line(struct buf *out, const struct head *head)
{
    /* Three digits: head_parse_response lets no other status through. */
    return buf_append_str(out, "HTTP/1.1 ") && buf_append_uint(out, head->status) && buf_append_str(out, " ") &&
           buf_append_slice(out, head->phrase) && buf_append_str(out, "\r\n");
}

static bool
write_response(struct buf *out, const struct head *head, const struct forward_options *o)
{
    bool ok = write_status_line(out, head);
    for (size_t i = 0; ok && i < head->field_count; i++) {
        struct slice name = head->fields[i].name;
        if (slice_equal_nocase(name, slice_str("Trailer")) && o->body != BODY_CHUNKED)
            continue;
        if (fields_pass_response(name) && (is_protected(name) || !is_nominated(head, name)))
            ok = copy_field(out, &head->fields[i]);
    }
    return ok && write_framing(out, o) && write_absent_length(out, head, o) &&
           write_via(out, head, o->via_pseudonym) &&
           write_connection(out, o->keep_upgrade && head->status == 101,
                            o->close || o->body == BODY_TO_EOF) &&
           buf_append_str(out, "\r\n");
}

bool
fields_write_response(struct buf *out, const struct head *head, const struct forward_options *o)
{
    size_t before = buf_len(out);
    if (head->status == 407)
        return false;
    return finish(out, before, write_response(out, head, o));
}
