/* Fuzz target: the reader of DNS answers. The first byte chooses the question, the rest is the message. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sallyport/net/resolve.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct dns_answer answer;
    int type = data[0] & 1 ? 28 : 1;
    const char *name = data[0] & 2 ? "a.example.test" : "www.example.test";
    unsigned char *copy = malloc(size); /* its own block: a byte read too far is seen */
    memcpy(copy, data + 1, size - 1);
    unsigned char *msg = realloc(copy, size > 1 ? size - 1 : 1);
    if (dns_answer_parse(msg, size - 1, name, type, &answer)) {
        assert(answer.answers.count <= RESOLVE_ANSWERS_MAX && answer.ttl_s <= 3600);
        assert(answer.negative == (answer.answers.count == 0));
        for (size_t i = 0; i < answer.answers.count; i++)
            assert(answer.answers.addrs[i].family == (type == 1 ? AF_INET : AF_INET6));
        /* An answer to this question is none to the other. */
        assert(!dns_answer_parse(msg, size - 1, name, type == 1 ? 28 : 1, &answer));
        assert(!dns_answer_parse(msg, size - 2, name, type, &answer));
    }
    free(msg);
    return 0;
}
