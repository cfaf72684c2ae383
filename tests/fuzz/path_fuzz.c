/* Paths. Held here: a normal form begins with a slash, has no dot or empty segment, no control byte, no backslash and no escape
 * left in it, is not longer than the path, and is its own normal form. The form for registries keeps escaped slashes and no other
 * percent sign, and is the same where there are none. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sallyport/policy/decide.h"
#include "sallyport/policy/pattern.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct pattern *pattern;
    struct err err;
    size_t len, again_len;
    if (!pattern)
        pattern = pattern_compile(slice_str("^/(a+)+(/b*)*$"), &err);
    char *out = malloc(size + 1), *again = malloc(size + 1);
    if (path_normalise(slice_of(data, size), out, &len)) {
        assert(len >= 1 && len <= size && out[0] == '/' && out[len] == '\0' && strlen(out) == len);
        assert(!strstr(out, "//") && !strstr(out, "/./") && !strstr(out, "/../") && !strchr(out, '\\'));
        assert(!(len >= 3 && strcmp(out + len - 3, "/..") == 0) && !(len >= 2 && strcmp(out + len - 2, "/.") == 0));
        for (size_t i = 0; i < len; i++)
            assert((unsigned char)out[i] >= 0x20 && out[i] != 0x7f);
        if (!strpbrk(out, "%?#")) {
            assert(path_normalise(slice_of(out, len), again, &again_len));
            assert(again_len == len && memcmp(out, again, len) == 0);
        }
        (void)pattern_match(pattern, slice_of(out, len));
    }
    if (path_normalise_marked(slice_of(data, size), again, &again_len)) {
        assert(again_len >= 1 && again_len <= size && again[0] == '/' && again[again_len] == '\0');
        for (const char *p = again; (p = strchr(p, '%')); p++)
            assert(strncmp(p, "%2F", 3) == 0);
        assert(!strstr(again, "/../") && !strstr(again, "%2F..%2F") && !strstr(again, "/..%2F") && !strstr(again, "%2F../"));
        if (!strchr(again, '%'))
            assert(path_normalise(slice_of(data, size), out, &len) && len == again_len && memcmp(out, again, len) == 0);
    }
    free(out);
    free(again);
    return 0;
}
