/* Strict JSON: what is refused, how errors name the place, and that large lists load fast. */
#include "unit/test.h"

#include <time.h>

#include "sallyport/base/json.h"
#include "sallyport/base/mem.h"

#define S(literal) slice_of(literal, sizeof literal - 1)

static bool
accepts(struct slice text, int depth)
{
    struct err err = {0};
    json_t *value = json_read(text, "t.json", depth, &err);
    CHECK(value || (err.kind == ERR_INVALID && strncmp(err.text, "t.json: ", 8) == 0));
    for (const char *p = err.text; *p; p++)
        CHECK(*p >= 0x20 && *p <= 0x7e);
    bool ok = value != NULL;
    json_decref(value);
    return ok;
}

TEST(refuses_what_is_not_strict)
{
    const struct slice bad[] = {
        S(""),
        S(" "),
        S("{"),
        S("{}x"),
        S("{} {}"),
        S("{}\0"),
        S("\xef\xbb\xbf{}"),
        S("\xff\xfe{}"),
        S("{\"a\":1,\"a\":2}"),
        S("{\"a\":{\"b\":1,\"b\":1}}"),
        S("{\"a\":1,\"\\u0061\":2}"),
        S("{\"a\\u0000b\":1}"),
        S("[\"\\u0000\"]"),
        S("[\"a\0b\"]"),
        S("[\"\\ud800\"]"),
        S("[\"\\udc00\"]"),
        S("[\"\\ud800\\u0041\"]"),
        S("[\"\xc0\x80\"]"),
        S("[\"\xed\xa0\x80\"]"),
        S("[\"\xff\"]"),
        S("[\"\xf4\x90\x80\x80\"]"),
        S("[1,]"),
        S("[01]"),
        S("[+1]"),
        S("[.5]"),
        S("[1.]"),
        S("[NaN]"),
        S("[Infinity]"),
        S("[0x1]"),
        S("[-]"),
        S("['a']"),
        S("{a:1}"),
        S("[1]//c"),
        S("[1/*c*/]"),
        S("[\"a\nb\"]"),
        S("[\"\t\"]"),
        S("[\"\\x\"]"),
        S("[9223372036854775808]"),
        S("[1e999]"),
        S("[tru]"),
        S("[True]"),
        S("\"a"),
        S("[\"\\"),
        S("]"),
        S("}{"),
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_THAT(!accepts(bad[i], 8), "case %zu", i);
    CHECK(accepts(S(" {\"a\":[1,-0,1.5e3,true,null,\"\\ud83d\\ude00\\n\"]} \n"), 8));
    CHECK(accepts(S("5"), 8)); /* callers ask for the type that they want */
}

TEST(cut_anywhere_is_refused)
{
    static const char text[] = "{\"a\":[1,{\"b\":\"\\u00e4\\\"]}\"},null],\"c\":{}}";
    for (size_t i = 0; i < sizeof text - 1; i++)
        CHECK_THAT(!accepts(slice_of(text, i), 8), "cut at %zu", i);
    CHECK(accepts(slice_of(text, sizeof text - 1), 8));
}

TEST(depth_is_capped_before_recursion)
{
    CHECK(accepts(S("[[[[]]]]"), 4));
    CHECK(!accepts(S("[[[[[]]]]]"), 4));
    CHECK(accepts(S("[\"[[[[[[[[[[{{{{\\\"[[[[[\"]"), 1));
    CHECK(accepts(S("[[],[],[],{},[]]"), 2));
    CHECK(!accepts(S("{\"a\":{\"b\":{}}}"), 2));
    size_t len = 20u << 20;
    char *deep = mem_alloc(len);
    memset(deep, '[', len);
    CHECK(!accepts(slice_of(deep, len), 8));
    free(deep);
}

TEST(large_lists_load_fast)
{
    char *text = mem_alloc(100000 * 32);
    size_t len = 0;
    text[len++] = '[';
    for (int i = 0; i < 100000; i++)
        len += (size_t)sprintf(text + len, "%s\"host-%d.example.com\"", i ? "," : "", i);
    text[len++] = ']';
    struct err err;
    clock_t before = clock();
    json_t *value = json_read(slice_of(text, len), "big", 4, &err);
    struct json_at root = json_root(value, "big");
    size_t total = 0;
    for (size_t i = 0; i < json_array_size(value); i++) {
        struct json_at at = json_element(&root, i);
        const char *host = NULL;
        CHECK(json_get_string(&at, &host, &err) == 0);
        total += strlen(host) > 0;
    }
    CHECK(total == 100000);
    CHECK_THAT(clock() - before < 2 * CLOCKS_PER_SEC, "%ld ms",
               (long)((clock() - before) * 1000 / CLOCKS_PER_SEC));
    json_decref(value);
    free(text);
}

static json_t *
parse(const char *text)
{
    struct err err = {0};
    json_t *value = json_read(slice_str(text), "p.json", 16, &err);
    CHECK_THAT(value != NULL, "%s", err.text);
    return value;
}

TEST(errors_name_the_place)
{
    json_t *value = parse("{\"networking\":{\"allowed_hosts\":[\"a\",\"b\",7]}}");
    struct err err = {0};
    struct json_at root = json_root(value, "p.json"), net = json_member(&root, "networking");
    struct json_at hosts = json_member(&net, "allowed_hosts"), third = json_element(&hosts, 2);
    const char *text = NULL;
    CHECK(json_get_string(&third, &text, &err) == -1 && text == NULL);
    CHECK_STR(err.text, "p.json: networking.allowed_hosts[2]: expected a string, found an integer");
    CHECK(err_exit_status(&err) == 2);
    CHECK(json_want_object(&hosts, &err) == -1);
    CHECK_STR(err.text, "p.json: networking.allowed_hosts: expected an object, found an array");
    CHECK(json_fail(&root, &err, "nothing %d", 5) == -1);
    CHECK_STR(err.text, "p.json: nothing 5");
    json_decref(value);
}

TEST(unknown_keys_name_the_nearest)
{
    static const char *const names[] = {"allowed_hosts", "type", "mode", NULL};
    static const char *const in[] = {"{\"alowed_hosts\":1}", "{\"allowed_hosst\":1}",
                                     "{\"tpye\":1}", "{\"zebra\":1}", "{\"x\\u001b[2J\":1}"};
    static const char *const near[] = {"allowed_hosts", "allowed_hosts", "type", NULL, NULL};
    for (size_t i = 0; i < sizeof in / sizeof in[0]; i++) {
        json_t *value = parse(in[i]);
        struct json_at root = json_root(value, "p.json");
        struct err err = {0};
        CHECK(json_only_members(&root, names, &err) == -1);
        CHECK_THAT(near[i] ? strstr(err.text, near[i]) != NULL : strstr(err.text, "mean") == NULL,
                   "%s", err.text);
        CHECK(!strchr(err.text, '\033'));
        json_decref(value);
    }
    json_t *value = parse("{\"mode\":1,\"type\":2}");
    struct json_at root = json_root(value, "p.json");
    struct err err = {0};
    CHECK(json_only_members(&root, names, &err) == 0);
    json_decref(value);
}

TEST(typed_getters)
{
    json_t *value =
        parse("{\"s\":\"x\",\"b\":true,\"i\":5,\"r\":5.0,\"n\":null,\"o\":{},\"a\":[]}");
    struct json_at root = json_root(value, "p.json");
    struct json_at s = json_member(&root, "s"), b = json_member(&root, "b"),
                   i = json_member(&root, "i");
    struct json_at r = json_member(&root, "r"), n = json_member(&root, "n"),
                   none = json_member(&root, "none");
    const char *text = "before";
    bool flag = false;
    int64_t number = 9;
    struct err err = {0};
    CHECK(json_get_string(&s, &text, &err) == 0 && strcmp(text, "x") == 0);
    CHECK(json_get_string(&n, &text, &err) == 0 && strcmp(text, "x") == 0);
    CHECK(json_get_string(&none, &text, &err) == 0 && strcmp(text, "x") == 0);
    CHECK(json_get_bool(&b, &flag, &err) == 0 && flag);
    CHECK(json_get_bool(&i, &flag, &err) == -1);
    CHECK(json_get_bool(&n, &flag, &err) == -1);
    CHECK(json_get_int(&i, 1, 5, &number, &err) == 0 && number == 5);
    CHECK(json_get_int(&i, 6, 9, &number, &err) == -1 && strstr(err.text, "from 6 to 9"));
    CHECK(json_get_int(&r, 0, 9, &number, &err) == -1 && number == 5);
    CHECK(json_get_int(&none, 6, 9, &number, &err) == 0 && number == 5);
    CHECK(json_want_object(&n, &err) == 0 && json_want_object(&none, &err) == 0);
    CHECK(json_want_array(&n, &err) == -1 && json_want_object(&s, &err) == -1);
    struct json_at below = json_member(&s, "deeper");
    CHECK(below.value == NULL);
    json_decref(value);
    value = parse("null");
    root = json_root(value, "p.json");
    CHECK(json_want_object(&root, &err) == -1);
    json_decref(value);
}

TEST(nearest)
{
    static const char *const names[] = {"--policy", "--policies", "--keys", NULL};
    CHECK_STR(nearest_word("--polcy", names), "--policy");
    CHECK_STR(nearest_word("--key", names), "--keys");
    CHECK(nearest_word("--unrelated-thing", names) == NULL);
    CHECK(nearest_word("", names) == NULL);
    char longer[500];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    CHECK(nearest_word(longer, names) == NULL);
}

TEST(records_may_hold_nul)
{
    struct err err;
    json_t *value = json_read_record(S("{\"host\":\"a\\u0000b\"}"), "r", 8, &err);
    CHECK(value != NULL && json_string_length(json_object_get(value, "host")) == 3);
    json_decref(value);
    CHECK(!json_read_record(S("{\"a\\u0000\":1}"), "r", 8, &err));
    CHECK(!json_read_record(S("{\"a\":1,\"a\":1}"), "r", 8, &err));
    CHECK(!json_read_record(S("5"), "r", 8, &err));
}

TEST(a_raw_nul_is_refused_wherever_it_stands)
{
    static const char *const texts[] = {"{\"a\":1\0}", "[1,2\0]", "\0[]", "[]\0", "{\"a\0\":1}"};
    static const size_t lens[] = {8, 6, 3, 3, 8};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct err err = {0};
        json_t *value = json_read(slice_of(texts[i], lens[i]), "nul.json", 8, &err);
        CHECK_THAT(!value && err.kind == ERR_INVALID, "case %zu", i);
        json_decref(value);
        value = json_read_record(slice_of(texts[i], lens[i]), "nul.json", 8, &err);
        CHECK_THAT(!value, "record case %zu", i);
        json_decref(value);
    }
}
