/* WebSocket upgrade: is the request one, and does the 101 belong to it? A 101 is the end of HTTP on
 * a connection, after which bytes pass unseen, so an upstream gets it only when the client asked
 * for exactly this. Frames are never read. */
#include "sallyport/http/websocket.h"

#include <openssl/evp.h>
#include <openssl/sha.h>

#include "sallyport/base/encoding.h"

#define KEY_TEXT_LEN 24 /* base64 of 16 bytes */
#define KEY_LEN 16
#define ACCEPT_TEXT_LEN 28 /* base64 of a SHA-1 */
/* RFC 6455 section 1.3; the SHA-1 over key and this proves that the peer speaks WebSocket, it
 * protects nothing. */
static const char accept_guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

static bool
only_field_is(const struct head *head, const char *name, const char *value)
{
    size_t count;
    struct slice v = head_field(head, name, &count);
    return count == 1 && slice_equal_nocase(v, slice_str(value));
}

static bool
read_key(const struct head *head, struct slice *ret)
{
    unsigned char key[KEY_TEXT_LEN];
    size_t count, len;
    struct slice v = head_field(head, "Sec-WebSocket-Key", &count);
    if (count != 1 || v.len != KEY_TEXT_LEN || !base64_decode(v, key, &len) || len != KEY_LEN)
        return false;
    *ret = v;
    return true;
}

bool
websocket_request_ok(const struct head *request)
{
    struct slice key;
    return slice_is(request->method, "GET") && request->minor == 1 && request->body == BODY_NONE &&
           head_has_token(request, "Connection", "upgrade") &&
           only_field_is(request, "Upgrade", "websocket") &&
           only_field_is(request, "Sec-WebSocket-Version", "13") && read_key(request, &key);
}

static bool
accept_matches(struct slice key, struct slice accept)
{
    char text[KEY_TEXT_LEN + sizeof(accept_guid) - 1];
    char want[ACCEPT_TEXT_LEN + 1];
    unsigned char digest[SHA_DIGEST_LENGTH];
    memcpy(text, key.ptr, KEY_TEXT_LEN);
    memcpy(text + KEY_TEXT_LEN, accept_guid, sizeof(accept_guid) - 1);
    if (!EVP_Digest(text, sizeof(text), digest, NULL, EVP_sha1(), NULL))
        return false;
    base64_encode(slice_of(digest, sizeof(digest)), want);
    return slice_is(accept, want);
}

/* Did the request offer this subprotocol? */
static bool
was_offered(const struct head *request, struct slice protocol)
{
    for (size_t i = 0; i < request->field_count; i++) {
        struct slice member, list = request->fields[i].value;
        if (!slice_equal_nocase(request->fields[i].name, slice_str("Sec-WebSocket-Protocol")))
            continue;
        while (field_list_next(&list, &member))
            if (slice_equal(member, protocol))
                return true;
    }
    return false;
}

bool
websocket_accepted(const struct head *request, const struct head *response)
{
    size_t accepts, protocols;
    struct slice key, accept = head_field(response, "Sec-WebSocket-Accept", &accepts);
    struct slice protocol = head_field(response, "Sec-WebSocket-Protocol", &protocols);
    return response->status == 101 && request->upgrade_websocket && read_key(request, &key) &&
           head_has_token(response, "Connection", "upgrade") &&
           only_field_is(response, "Upgrade", "websocket") && accepts == 1 &&
           accept_matches(key, accept) &&
           (protocols == 0 || (protocols == 1 && was_offered(request, protocol)));
}
