/* Fuzz target: the ClientHello reader. Beyond not crashing: what is complete is incomplete when a byte of it is missing,
 * what follows it changes nothing, and nothing refused early is accepted later. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sallyport/tls/hello.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum hello_status
read_copy(const uint8_t *data, size_t size, struct hello *ret)
{
    char *copy = malloc(size ? size : 1); /* its own block: a byte read too far is seen */
    memcpy(copy, data, size);
    enum hello_status status = hello_read(slice_of(copy, size), ret);
    free(copy);
    return status;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hello whole = {0}, part = {0};
    enum hello_status status = read_copy(data, size, &whole);
    if (status == HELLO_COMPLETE) {
        assert(whole.length <= size && whole.length <= HELLO_MAX);
        assert(strlen(whole.sni) < sizeof whole.sni && whole.has_sni == (whole.sni[0] != '\0'));
        assert(whole.alpn_count <= 8);
        assert(read_copy(data, whole.length, &part) == HELLO_COMPLETE && memcmp(&whole, &part, sizeof whole) == 0);
        assert(read_copy(data, whole.length - 1, &part) == HELLO_MORE);
    }
    enum hello_status half = read_copy(data, size / 2, &part);
    assert((half != HELLO_MALFORMED && half != HELLO_NOT_TLS) || status == half);
    return 0;
}
