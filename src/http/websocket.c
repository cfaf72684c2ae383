/* WebSocket's opening handshake: a 101 passes only when it answers the request that was sent. */
#include "sallyport/http/websocket.h"

#include <openssl/evp.h>

#include "sallyport/base/encoding.h"

/* RFC 6455 section 1.3: the key as sent, and this text, under SHA-1, in base64. */
#define ACCEPT_GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#define KEY_LEN 24
#define SHA1_LEN 20

static bool
expected_accept(struct slice key, char text[SHA1_LEN * 2])
{
    char input[KEY_LEN + sizeof ACCEPT_GUID];
    unsigned char digest[SHA1_LEN];
    if (key.len != KEY_LEN)
        return false;
    memcpy(input, key.ptr, KEY_LEN);
    memcpy(input + KEY_LEN, ACCEPT_GUID, sizeof ACCEPT_GUID);
    if (EVP_Digest(input, KEY_LEN + sizeof ACCEPT_GUID - 1, digest, NULL, EVP_sha1(), NULL) != 1)
        return false;
    base64_encode(slice_of(digest, sizeof digest), text);
    return true;
}

bool
websocket_accepted(const struct head *request, const struct head *response)
{
    size_t keys = 0, accepts = 0;
    struct slice key = head_field(request, "Sec-WebSocket-Key", &keys);
    struct slice accept = head_field(response, "Sec-WebSocket-Accept", &accepts);
    char expected[SHA1_LEN * 2];
    return request->upgrade_websocket && response->status == 101 && keys == 1 && accepts == 1 &&
           head_has_token(response, "Upgrade", "websocket") && head_has_token(response, "Connection", "upgrade") &&
           expected_accept(key, expected) && slice_is(accept, expected);
}
