/* Host entries: what is one and what is refused, and the match structure over them. */
#include "sallyport/policy/hosts.h"

#include "unit/policies.h"

static struct host_entry
entry(const char *text)
{
    struct host_entry e = {.port = 0};
    char why[ENTRY_WHY_SIZE] = "";
    CHECK_THAT(host_entry_parse(slice_str(text), &e, why), "%s: %s", text, why);
    return e;
}

static enum hosts_result
find(const struct hosts *h, const char *host, uint16_t port, bool bare_open, enum hosts_scope scope, uint32_t *index)
{
    struct host parsed;
    struct host_key key;
    CHECK_THAT(host_parse(slice_str(host), &parsed), "%s", host);
    host_key_init(&key, &parsed);
    *index = HOSTS_NO_INDEX;
    return hosts_find(h, &key, port, bare_open, scope, index);
}

static void
add(struct hosts *h, const char *text, uint32_t index)
{
    struct host_entry e = entry(text);
    CHECK_THAT(hosts_add(h, &e, index) == HOSTS_NO_INDEX, "%s", text);
}

static void
check_vector(const json_t *line)
{
    const json_t *entry_text = json_object_get(line, "entry");
    struct slice text = slice_of(json_string_value(entry_text), json_string_length(entry_text));
    const char *wanted = member(line, "expect");
    struct host_entry e;
    char why[ENTRY_WHY_SIZE] = "";
    bool parsed = host_entry_parse(text, &e, why);
    bool loads = parsed && (e.host.kind == HOST_NAME || guard_address_is_public(&e.host.literal) || strcmp(wanted, "refuse-to-load") != 0);
    CHECK_THAT(loads == (strcmp(wanted, "refuse-to-load") != 0), "%s \"%s\" (%s): %s", member(line, "id"), text.ptr, member(line, "why"), why);
    CHECK_THAT(parsed || why[0], "%s has no explanation", member(line, "id"));
}

TEST(entries_of_the_vectors)
{
    each_vector("tests/vectors/policy-entries.jsonl", check_vector);
}

TEST(an_entry_is_canonical)
{
    struct host_entry e = entry("*.WILD.Example.com.:8443");
    CHECK(e.suffix && e.port == 8443 && !e.url);
    CHECK_STR(e.host.text, "wild.example.com");
    char text[ENTRY_TEXT_SIZE];
    host_entry_format(&e, text);
    CHECK_STR(text, "*.wild.example.com:8443");
    e = entry("https://foo.example.com/");
    CHECK(e.url && e.port == 443);
    e = entry("http://foo.example.com");
    CHECK(e.url && e.port == 80);
    e = entry("[2001:DB8:0::7]:443");
    CHECK_STR(e.host.text, "[2001:db8::7]");
}

TEST(a_unicode_entry_names_its_alabel)
{
    struct host_entry e;
    char why[ENTRY_WHY_SIZE];
    CHECK(!host_entry_parse(slice_str("b\xc3\xbc" "cher.example.com"), &e, why));
    CHECK_THAT(strstr(why, "xn--bcher-kva.example.com"), "%s", why);
    CHECK(!host_entry_parse(slice_of("foo.example.com\0.evil.example", 29), &e, why));
    CHECK(!host_entry_parse(slice_of("foo.example.com\0", 16), &e, why));
}

TEST(a_wildcard_matches_below_and_never_itself)
{
    struct hosts *h = hosts_new();
    uint32_t i;
    add(h, "*.example.org", 0);
    hosts_seal(h);
    CHECK(find(h, "a.example.org", 443, true, HOSTS_ANY, &i) == HOSTS_MATCH && i == 0);
    CHECK(find(h, "a.b.c.example.org", 443, true, HOSTS_ANY, &i) == HOSTS_MATCH);
    CHECK(find(h, "example.org", 443, true, HOSTS_ANY, &i) == HOSTS_NONE);
    CHECK(find(h, "badexample.org", 443, true, HOSTS_ANY, &i) == HOSTS_NONE);
    CHECK(find(h, "example.org.evil.net", 443, true, HOSTS_ANY, &i) == HOSTS_NONE);
    CHECK(find(h, "org", 443, true, HOSTS_ANY, &i) == HOSTS_NONE);
    CHECK(find(h, "a.example.org", 443, true, HOSTS_EXACT_ONLY, &i) == HOSTS_NONE);
    hosts_free(h);
}

TEST(an_exact_name_is_no_suffix)
{
    struct hosts *h = hosts_new();
    uint32_t i;
    add(h, "example.org", 7);
    CHECK(find(h, "example.org", 443, true, HOSTS_ANY, &i) == HOSTS_MATCH && i == 7);
    CHECK(find(h, "www.example.org", 443, true, HOSTS_ANY, &i) == HOSTS_NONE);
    hosts_free(h);
}

TEST(ports_and_the_most_specific_entry)
{
    struct hosts *h = hosts_new();
    uint32_t i;
    add(h, "*.example.org", 0);
    add(h, "db.example.org:5432", 1);
    add(h, "db.example.org", 2);
    add(h, "only.example.net:8443", 3);
    CHECK(find(h, "db.example.org", 5432, false, HOSTS_ANY, &i) == HOSTS_MATCH && i == 1);
    CHECK(find(h, "db.example.org", 443, true, HOSTS_ANY, &i) == HOSTS_MATCH && i == 2);
    CHECK(find(h, "db.example.org", 22, false, HOSTS_ANY, &i) == HOSTS_PORT_CLOSED);
    CHECK(find(h, "x.db.example.org", 443, true, HOSTS_ANY, &i) == HOSTS_MATCH && i == 0);
    CHECK(find(h, "only.example.net", 443, true, HOSTS_ANY, &i) == HOSTS_PORT_CLOSED);
    CHECK(find(h, "only.example.net", 8443, false, HOSTS_ANY, &i) == HOSTS_MATCH && i == 3);
    hosts_free(h);
}

/* The exact name has another port only, the wildcard above opens this one: open. */
TEST(a_closed_port_of_one_entry_does_not_hide_another)
{
    struct hosts *h = hosts_new();
    uint32_t i;
    add(h, "a.example.org:8443", 0);
    add(h, "*.example.org", 1);
    CHECK(find(h, "a.example.org", 443, true, HOSTS_ANY, &i) == HOSTS_MATCH && i == 1);
    hosts_free(h);
}

TEST(an_entry_again_keeps_its_first_index)
{
    struct hosts *h = hosts_new();
    struct host_entry e = entry("a.example.org:8443");
    CHECK(hosts_add(h, &e, 4) == HOSTS_NO_INDEX);
    CHECK(hosts_add(h, &e, 9) == 4);
    CHECK(hosts_count(h) == 1);
    hosts_free(h);
}

TEST(literals_match_as_values_and_only_literally)
{
    struct hosts *h = hosts_new();
    uint32_t i;
    add(h, "192.0.2.7", 0);
    add(h, "[2001:db8::7]", 1);
    add(h, "*.example.org", 2);
    CHECK(find(h, "[2001:0DB8:0:0::7]", 443, true, HOSTS_ANY, &i) == HOSTS_MATCH && i == 1);
    CHECK(find(h, "192.0.2.7", 443, true, HOSTS_ANY, &i) == HOSTS_MATCH && i == 0);
    CHECK(find(h, "192.0.2.70", 443, true, HOSTS_ANY, &i) == HOSTS_NONE);
    CHECK(find(h, "[::ffff:192.0.2.7]", 443, true, HOSTS_ANY, &i) == HOSTS_NONE);
    hosts_free(h);
}

TEST(the_longest_name_of_the_most_labels)
{
    struct hosts *h = hosts_new();
    char name[HOST_MAX + 1] = "";
    uint32_t i;
    add(h, "*.a.b", 0);
    for (size_t k = 0; k < 125; k++)
        strcat(name, "x.");
    strcat(name, "a.b"); /* 253 bytes, 127 labels */
    CHECK(strlen(name) == HOST_MAX);
    CHECK(find(h, name, 443, true, HOSTS_ANY, &i) == HOSTS_MATCH);
    hosts_free(h);
}

struct visited { size_t count; uint32_t last; bool ordered; };

static void
on_entry(void *ctx, const struct host_entry *e, uint32_t index)
{
    struct visited *v = ctx;
    char text[ENTRY_TEXT_SIZE], wanted[64];
    host_entry_format(e, text);
    snprintf(wanted, sizeof wanted, "h%u.example.com", index);
    v->ordered &= v->count == 0 || index > v->last;
    CHECK_STR(text, wanted);
    v->last = index;
    v->count++;
}

TEST(ten_thousand_entries_all_there_and_nothing_else)
{
    struct hosts *h = hosts_new();
    struct visited v = {0, 0, true};
    char name[64];
    uint32_t index;
    for (uint32_t i = 0; i < 10000; i++) {
        snprintf(name, sizeof name, "h%u.example.com", i);
        add(h, name, i);
    }
    hosts_seal(h);
    for (uint32_t i = 0; i < 10000; i++) {
        snprintf(name, sizeof name, "h%u.example.com", i);
        CHECK(find(h, name, 443, true, HOSTS_ANY, &index) == HOSTS_MATCH && index == i);
        snprintf(name, sizeof name, "g%u.example.com", i);
        CHECK(find(h, name, 443, true, HOSTS_ANY, &index) == HOSTS_NONE);
    }
    hosts_each(h, on_entry, &v);
    CHECK(v.count == 10000 && v.ordered && hosts_count(h) == 10000);
    hosts_free(h);
}

TEST(every_port_of_one_host_is_found_at_once)
{
    struct hosts *h = hosts_new();
    struct host_entry e = entry("a.example.com");
    uint32_t index;
    for (unsigned port = 1; port < 65536; port++) {
        e.port = (uint16_t)port;
        hosts_add(h, &e, port);
    }
    for (unsigned port = 1; port < 65536; port += 97)
        CHECK(find(h, "a.example.com", (uint16_t)port, false, HOSTS_ANY, &index) == HOSTS_MATCH && index == port);
    hosts_free(h);
}

TEST(overlaps)
{
    static const struct { const char *a, *b; bool wanted; } rows[] = {
        {"a.example.com", "a.example.com", true}, {"a.example.com", "b.example.com", false},
        {"*.example.com", "a.example.com", true}, {"*.example.com", "example.com", false},
        {"*.example.com", "*.a.example.com", true}, {"*.a.example.com", "*.example.com", true},
        {"*.a.example.com", "*.b.example.com", false}, {"a.example.com:1", "a.example.com:2", false},
        {"a.example.com:1", "a.example.com", true}, {"*.example.com", "badexample.com", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct host_entry a = entry(rows[i].a), b = entry(rows[i].b);
        CHECK_THAT(host_entry_overlaps(&a, &b) == rows[i].wanted, "%s %s", rows[i].a, rows[i].b);
        CHECK_THAT(host_entry_overlaps(&b, &a) == rows[i].wanted, "%s %s", rows[i].b, rows[i].a);
    }
}

TEST(special_names)
{
    static const char *const special[] = {"localhost", "x.localhost", "printer.local", "metadata.google.internal", "1.0.0.127.in-addr.arpa", "x.alt", "x.onion", "a.test",
                                          "a.invalid", "router.home.arpa", "metadata.goog", "x.metadata.goog", "intranet"};
    static const char *const usual[] = {"example.com", "local.example.com", "localhost.example.com", "mylocal.com", "internal.example.org", "notmetadata.goog", "test.example"};
    struct host h;
    for (size_t i = 0; i < sizeof special / sizeof special[0]; i++)
        CHECK_THAT(host_parse(slice_str(special[i]), &h) && host_special(&h), "%s", special[i]);
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++)
        CHECK_THAT(host_parse(slice_str(usual[i]), &h) && !host_special(&h), "%s", usual[i]);
    CHECK(host_parse(slice_str("127.0.0.1"), &h) && !host_special(&h));
}
