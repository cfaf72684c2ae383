/* Targets. Held here: a canonical form is its own canonical form, is made of nothing but what
 * CONTRACT's names and literals are made of, and agrees with itself as a Host field. */
#include <arpa/inet.h>
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "sallyport/http/target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check_name(const struct host *h)
{
    const char *last = strrchr(h->text, '.');
    unsigned char ignored[4];
    assert(h->len > 0 && h->len <= HOST_MAX);
    for (size_t i = 0; i < h->len; i++)
        assert((h->text[i] >= 'a' && h->text[i] <= 'z') ||
               (h->text[i] >= '0' && h->text[i] <= '9') || strchr("-_.", h->text[i]));
    last = last ? last + 1 : h->text;
    assert(*last >= 'a' && *last <= 'z');
    assert(!strstr(h->text, "..") && h->text[0] != '.');
    assert(inet_aton(h->text, (void *)ignored) == 0); /* no resolver can take it for an address */
}

static void
check_host(const struct host *h)
{
    struct host again;
    assert(strlen(h->text) == h->len);
    assert(host_parse(host_slice(h), &again) && host_equal(h, &again) && again.kind == h->kind);
    switch (h->kind) {
    case HOST_NONE:
        assert(false);
        break;
    case HOST_NAME:
        check_name(h);
        host_alabels_ok(host_slice(h));
        break;
    case HOST_IPV4:
        assert(h->literal.family == AF_INET && addr_equal(&h->literal, &again.literal));
        break;
    case HOST_IPV6:
        assert(h->literal.family == AF_INET6 && addr_equal(&h->literal, &again.literal));
        assert(h->text[0] == '[' && h->text[h->len - 1] == ']' && !strchr(h->text, '%'));
        break;
    }
}

static void
check_target(const struct target *t)
{
    char text[TARGET_TEXT_SIZE];
    struct target again;
    assert(t->port != 0);
    check_host(&t->host);
    target_format(t, text);
    assert(target_from_authority(slice_str(text), &again) == REASON_OK);
    assert(host_equal(&t->host, &again.host) && t->port == again.port);
    assert(target_check_host_field(t, slice_str(text)) == REASON_OK);
}

static void
check_uri(const struct target *t, struct slice path)
{
    char text[TARGET_TEXT_SIZE];
    static char uri[1 << 17];
    struct target again;
    struct slice again_path;
    assert(t->scheme == SCHEME_HTTP && path_is_wellformed(path));
    target_format(t, text);
    int n = snprintf(uri, sizeof(uri), "http://%s%.*s", text, SLICE_ARG(path));
    assert(target_from_uri(slice_of(uri, (size_t)n), &again, &again_path) == REASON_OK);
    assert(host_equal(&t->host, &again.host) && t->port == again.port &&
           slice_equal(path, again_path));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = slice_of(data, size), path;
    struct target t;
    char ascii[HOST_TEXT_SIZE];
    struct host h;
    if (size > 1 << 16)
        return 0;
    if (target_from_authority(in, &t) == REASON_OK)
        check_target(&t);
    if (target_from_uri(in, &t, &path) == REASON_OK) {
        check_target(&t);
        check_uri(&t, path);
    }
    if (host_parse(in, &h))
        check_host(&h);
    if (host_to_ascii(in, ascii))
        assert(host_parse(slice_str(ascii), &h) && h.kind == HOST_NAME);
    path_is_wellformed(in);
    return 0;
}
