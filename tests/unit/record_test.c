/* Records: the documented members in their order, one printable line of JSON whatever a client
 * sends. */
#include "unit/test.h"

#include <jansson.h>

#include "sallyport/base/digest.h"
#include "sallyport/base/json.h"
#include "sallyport/record/record.h"

#define T(text) slice_str(text)

static char draft_text[RECORD_LINE_MAX + 1];

static const char *
draft(enum record_format format, const struct record *r)
{
    struct buf b;
    buf_init(&b, RECORD_LINE_MAX);
    CHECK(record_draft(&b, format, r));
    struct slice s = buf_slice(&b);
    memcpy(draft_text, s.ptr, s.len);
    draft_text[s.len] = '\0';
    buf_done(&b);
    return draft_text;
}

static json_t *
draft_json(enum record_format format, const struct record *r)
{
    static char object[RECORD_LINE_MAX + 3];
    struct err err = {0};
    snprintf(object, sizeof object, "{%s}", draft(format, r));
    json_t *value = json_read_record(slice_str(object), "draft", 8, &err);
    CHECK_THAT(value != NULL, "%s", err.text);
    return value;
}

static struct record
decision(const struct addr *address)
{
    return (struct record){
        .event = RECORD_DECISION,
        .wall_us = 1795198104471461,
        .id = T("01J"),
        .sandbox = T("sbx-1"),
        .session = T("s1"),
        .org = T("o1"),
        .jti = T("j1"),
        .policy = T("code-review"),
        .policy_sha256 = T("ab"),
        .client = T("10.0.0.7:51234"),
        .listener = T("main"),
        .entry = T("connect"),
        .method = T("CONNECT"),
        .scheme = T("https"),
        .host = T("api.example.com"),
        .port = 443,
        .allow = true,
        .reason = REASON_OK,
        .rule = T("allowed_hosts[2]"),
        .source = T("policy"),
        .addresses = address,
        .address_count = address ? 1 : 0,
    };
}

TEST(a_decision_reads_as_documented)
{
    struct addr a;
    addr_parse(T("192.0.2.6"), &a);
    struct record r = decision(&a);
    CHECK_STR(draft(RECORD_JSONL, &r), "\"ts\":\"2026-11-20T18:08:24.471461Z\",\"event\":"
                                       "\"decision\",\"id\":\"01J\",\"sandbox\":\"sbx-1\","
                                       "\"session\":\"s1\",\"org\":\"o1\",\"jti\":\"j1\","
                                       "\"policy\":\"code-review\",\"policy_sha256\":\"ab\","
                                       "\"client\":\"10.0.0.7:51234\",\"listener\":\"main\","
                                       "\"entry\":\"connect\",\"method\":\"CONNECT\","
                                       "\"scheme\":\"https\",\"host\":\"api.example.com\",\"port\":"
                                       "443,\"path\":null,\"decision\":\"allow\","
                                       "\"reason\":\"ok\",\"rule\":\"allowed_hosts[2]\",\"source\":"
                                       "\"policy\",\"addresses\":[\"192.0.2.6\"],"
                                       "\"inspect\":false");
    CHECK(draft_text[RECORD_TS_LEN] == ',' && draft_text[RECORD_TS_LEN - 1] == '"');
    r.allow = false;
    r.would_deny = r.inspect = true;
    r.parent = T("01H");
    draft(RECORD_JSONL, &r);
    CHECK(strstr(draft_text, "\"decision\":\"deny\",\"would\":\"deny\"") &&
          strstr(draft_text, "\"inspect\":true"));
    CHECK(strstr(draft_text, "\"id\":\"01J\",\"parent\":\"01H\",\"sandbox\""));
}

TEST(a_close_reads_as_documented)
{
    struct record r = {
        .event = RECORD_CLOSE,
        .wall_us = 0,
        .id = T("01J"),
        .sandbox = T("sbx-1"),
        .host = T("api.example.com"),
        .port = 443,
        .address = T("192.0.2.6"),
        .status = 200,
        .sni = T("api.example.com"),
        .bytes_up = 812,
        .bytes_down = UINT64_MAX,
        .duration_ms = 941,
        .cause = T("client_closed"),
    };
    CHECK_STR(draft(RECORD_JSONL, &r),
              "\"ts\":\"1970-01-01T00:00:00.000000Z\",\"event\":\"close\",\"id\":\"01J\","
              "\"sandbox\":\"sbx-1\","
              "\"host\":\"api.example.com\",\"port\":443,\"address\":\"192.0.2.6\",\"status\":200,"
              "\"sni\":\"api.example.com\",\"bytes_up\":812,\"bytes_down\":18446744073709551615,"
              "\"duration_ms\":941,"
              "\"cause\":\"client_closed\"");
    r.has_decision = true;
    r.reason = REASON_SNI_MISMATCH;
    r.sni = slice_of(NULL, 0);
    r.duration_ms = INT64_MIN;
    draft(RECORD_JSONL, &r);
    CHECK(strstr(draft_text, "\"decision\":\"deny\",\"reason\":\"sni_mismatch\""));
    CHECK(strstr(draft_text, "\"sni\":null") && strstr(draft_text, "-9223372036854775808"));
}

TEST(a_forgotten_verdict_is_a_denial)
{
    struct record r = {.event = RECORD_DECISION};
    draft(RECORD_JSONL, &r);
    CHECK(strstr(draft_text, "\"decision\":\"deny\"") && !strstr(draft_text, "\"reason\""));
    CHECK(strstr(draft_text, "\"sandbox\":null") && strstr(draft_text, "\"port\":null"));
    CHECK(strstr(draft_text, "\"addresses\":[]"));
}

TEST(other_events_carry_only_what_is_set)
{
    struct record r = {.event = RECORD_RELOAD, .extra = T("\"generation\":3")};
    CHECK_STR(draft(RECORD_JSONL, &r),
              "\"ts\":\"1970-01-01T00:00:00.000000Z\",\"event\":\"reload\",\"generation\":3");
    struct record none = {0};
    struct buf b;
    buf_init(&b, 1000);
    CHECK(!record_draft(&b, RECORD_JSONL, &none));
    r.extra = T("\"a\":\"\n\"");
    CHECK(!record_draft(&b, RECORD_JSONL, &r));
    r.extra = T("\"a\":\"\xc3\xa4\"");
    CHECK(!record_draft(&b, RECORD_JSONL, &r));
    CHECK(buf_len(&b) == 0);
    buf_done(&b);
}

TEST(every_byte_stays_on_one_printable_line)
{
    char all[256];
    for (int i = 0; i < 256; i++)
        all[i] = (char)i;
    struct record r = decision(NULL);
    r.host = r.path = r.method = r.sandbox = slice_of(all, sizeof all);
    for (int format = RECORD_JSONL; format <= RECORD_OCSF; format++) {
        json_t *value = draft_json((enum record_format)format, &r);
        for (const char *p = draft_text; *p; p++)
            CHECK(*p >= 0x20 && *p <= 0x7e);
        json_decref(value);
    }
    CHECK(strstr(draft_text, "\\u000a") && strstr(draft_text, "\\u00ff") &&
          !strstr(draft_text, "\\u007e"));
}

TEST(injection_stays_inside_its_string)
{
    struct record r = decision(NULL);
    r.host = T("x\",\"decision\":\"allow\",\"a\":\"\\");
    r.path = T("\\\",\"hash\":\"0\"}\n{\"ts\":\"forged\"");
    r.allow = false;
    json_t *value = draft_json(RECORD_JSONL, &r);
    CHECK_STR(json_string_value(json_object_get(value, "decision")), "deny");
    CHECK_STR(json_string_value(json_object_get(value, "host")),
              "x\",\"decision\":\"allow\",\"a\":\"\\");
    CHECK_STR(json_string_value(json_object_get(value, "path")),
              "\\\",\"hash\":\"0\"}\n{\"ts\":\"forged\"");
    json_decref(value);
}

TEST(long_texts_are_cut_and_flagged)
{
    static char longer[5000];
    memset(longer, 'a', sizeof longer);
    struct record r = decision(NULL);
    r.path = slice_of(longer, RECORD_FIELD_MAX);
    draft(RECORD_JSONL, &r);
    CHECK(!strstr(draft_text, "truncated"));
    r.path = slice_of(longer, RECORD_FIELD_MAX + 1);
    json_t *value = draft_json(RECORD_JSONL, &r);
    CHECK(json_is_true(json_object_get(value, "path_truncated")));
    CHECK(json_string_length(json_object_get(value, "path")) == RECORD_FIELD_MAX);
    json_decref(value);
}

/* Nothing that a client sends makes a record impossible: that would be a way to act unseen. */
TEST(the_worst_record_still_fits)
{
    static char worst[100000];
    struct addr many[200];
    memset(worst, '\1', sizeof worst);
    for (size_t i = 0; i < 200; i++)
        addr_parse(T("2001:db8:1111:2222:3333:4444:5555:6666"), &many[i]);
    struct slice w = slice_of(worst, sizeof worst);
    struct record r = {
        .event = RECORD_CLOSE,
        .id = w,
        .parent = w,
        .sandbox = w,
        .session = w,
        .org = w,
        .jti = w,
        .policy = w,
        .policy_sha256 = w,
        .client = w,
        .listener = w,
        .entry = w,
        .method = w,
        .scheme = w,
        .host = w,
        .path = w,
        .port = 65535,
        .has_decision = true,
        .would_deny = true,
        .reason = REASON_ADDRESS_NOT_ALLOWED,
        .rule = w,
        .source = w,
        .addresses = many,
        .address_count = 200,
        .inspect = true,
        .address = w,
        .sni = w,
        .cause = w,
        .status = 999,
        .bytes_up = INT64_MAX,
        .bytes_down = INT64_MAX,
        .duration_ms = INT64_MIN,
    };
    for (int format = RECORD_JSONL; format <= RECORD_OCSF; format++) {
        json_t *value = draft_json((enum record_format)format, &r);
        CHECK(strlen(draft_text) < RECORD_LINE_MAX - 250);
        CHECK(strstr(draft_text, "\"addresses_truncated\":true"));
        json_decref(value);
    }
    static char extra[RECORD_LINE_MAX];
    memset(extra, 'x', sizeof extra);
    struct buf b;
    buf_init(&b, 1 << 20);
    r = (struct record){.event = RECORD_STOP, .extra = slice_of(extra, sizeof extra)};
    CHECK(!record_draft(&b, RECORD_JSONL, &r) && buf_len(&b) == 0);
    buf_done(&b);
}

TEST(a_full_buffer_takes_nothing)
{
    struct record r = decision(NULL);
    size_t len = strlen(draft(RECORD_JSONL, &r));
    struct buf b;
    buf_init(&b, len + 1);
    CHECK(buf_append_str(&b, "12"));
    CHECK(!record_draft(&b, RECORD_JSONL, &r) && buf_len(&b) == 2 && b.overflow);
    buf_consume(&b, 1);
    CHECK(record_draft(&b, RECORD_JSONL, &r) && buf_len(&b) == len + 1);
    buf_done(&b);
}

static json_int_t
number(const json_t *o, const char *name)
{
    return json_integer_value(json_object_get(o, name));
}

TEST(ocsf_is_http_activity)
{
    struct addr a;
    addr_parse(T("192.0.2.6"), &a);
    struct record r = decision(&a);
    r.method = T("GET");
    r.path = T("/x");
    json_t *o = draft_json(RECORD_OCSF, &r);
    CHECK(number(o, "class_uid") == 4002 && number(o, "category_uid") == 4 &&
          number(o, "activity_id") == 3);
    CHECK(number(o, "type_uid") == 400203 && number(o, "time") == 1795198104471 &&
          number(o, "severity_id") == 1);
    CHECK_STR(json_string_value(json_object_get(o, "disposition")), "Allowed");
    CHECK_STR(json_string_value(json_object_get(o, "status_code")), "ok");
    const json_t *src = json_object_get(o, "src_endpoint"),
                 *dst = json_object_get(o, "dst_endpoint");
    CHECK_STR(json_string_value(json_object_get(src, "ip")), "10.0.0.7");
    CHECK(number(src, "port") == 51234 && number(dst, "port") == 443);
    CHECK_STR(json_string_value(json_object_get(dst, "hostname")), "api.example.com");
    const json_t *request = json_object_get(o, "http_request");
    CHECK_STR(json_string_value(json_object_get(request, "http_method")), "GET");
    CHECK_STR(json_string_value(json_object_get(json_object_get(request, "url"), "path")), "/x");
    const json_t *user = json_object_get(json_object_get(o, "actor"), "user");
    CHECK_STR(json_string_value(json_object_get(user, "uid")), "sbx-1");
    const json_t *own = json_object_get(o, "unmapped");
    CHECK_STR(json_string_value(json_object_get(own, "event")), "decision");
    CHECK_STR(json_string_value(json_object_get(own, "rule")), "allowed_hosts[2]");
    CHECK(json_is_string(json_object_get(json_object_get(o, "metadata"), "version")));
    json_decref(o);
    struct record bare = {.event = RECORD_STOP};
    o = draft_json(RECORD_OCSF, &bare);
    CHECK(number(o, "activity_id") == 0 && json_is_object(json_object_get(o, "src_endpoint")));
    json_decref(o);
}

TEST(clients_are_split_at_the_port)
{
    static const char *const in[] = {"[2001:db8::1]:80", "unix", "10.0.0.1", "[::1]"};
    static const char *const ip[] = {"2001:db8::1", "unix", "10.0.0.1", "::1"};
    for (size_t i = 0; i < 4; i++) {
        struct record r = {.event = RECORD_DECISION, .client = T(in[i])};
        json_t *o = draft_json(RECORD_OCSF, &r);
        CHECK_STR(json_string_value(json_object_get(json_object_get(o, "src_endpoint"), "ip")),
                  ip[i]);
        json_decref(o);
    }
}

static void
fold_key(const struct record *r, char *out, size_t size)
{
    struct buf b;
    buf_init(&b, 65536);
    CHECK(record_fold_key(&b, r));
    snprintf(out, size, "%.*s", SLICE_ARG(buf_slice(&b)));
    buf_done(&b);
}

TEST(fold_keys)
{
    char key[4096], other[4096];
    struct record r = decision(NULL);
    r.reason = REASON_HOST_NOT_ALLOWED;
    fold_key(&r, key, sizeof key);
    CHECK_STR(key,
              "\"sandbox\":\"sbx-1\",\"reason\":\"host_not_allowed\",\"host\":\"api.example.com\"");
    r.client = T("10.0.0.8:1");
    fold_key(&r, other, sizeof other);
    CHECK_STR(key, other);
    r.sandbox = r.host = slice_of(NULL, 0);
    fold_key(&r, key, sizeof key);
    CHECK_STR(key, "\"client\":\"10.0.0.8\",\"reason\":\"host_not_allowed\",\"host\":null");
    r.client = T("10.0.0.8:2");
    fold_key(&r, other, sizeof other);
    CHECK_STR(key, other);
}

/* Numbers that are the same on every machine (Knuth's MMIX). */
static unsigned
next_number(uint64_t *state, unsigned below)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(*state >> 33) % below;
}

static struct slice
hostile_text(uint64_t *state, char *store, size_t size)
{
    static const char sharp[] = "\"\\{}[]:,\0\x7f\x80\xff\n\r\t\x1f e";
    size_t len = next_number(state, 20) == 0 ? next_number(state, (unsigned)size) : next_number(state, 24);
    for (size_t i = 0; i < len; i++)
        store[i] = next_number(state, 3) == 0 ? sharp[next_number(state, sizeof sharp)] : (char)next_number(state, 256);
    return next_number(state, 8) == 0 ? slice_of(NULL, 0) : slice_of(store, len);
}

/* Ten thousand records of hostile texts come out byte for byte as they did when this digest was taken: the log's readers, the
 * chain and the recorder's judgement of drafts hang on every one of them. */
TEST(hostile_records_come_out_as_ever)
{
    static char store[20][3000];
    static const enum reason reasons[] = {REASON_UNDECIDED, REASON_OK, REASON_HOST_NOT_ALLOWED};
    uint64_t state = 20261121;
    struct addr addresses[3];
    struct buf all;
    char digest[SHA256_HEX_SIZE];
    buf_init(&all, 64u << 20);
    CHECK(addr_parse(T("192.0.2.7"), &addresses[0]) && addr_parse(T("2001:db8::1"), &addresses[1]) && addr_parse(T("::"), &addresses[2]));
    for (int n = 0; n < 10000; n++) {
        struct slice t[20];
        for (size_t i = 0; i < 20; i++)
            t[i] = hostile_text(&state, store[i], sizeof store[i]);
        struct record r = {
            .event = (enum record_event)(1 + next_number(&state, RECORD_CHECKPOINT)), .wall_us = (int64_t)next_number(&state, 1u << 31) * 1000003,
            .id = t[0], .parent = t[1], .sandbox = t[2], .session = t[3], .org = t[4], .jti = t[5], .policy = t[6], .policy_sha256 = t[7],
            .client = t[8], .listener = t[9], .entry = t[10], .method = t[11], .scheme = t[12], .host = t[13], .path = t[14],
            .port = (uint16_t)next_number(&state, 65536), .allow = next_number(&state, 2), .has_decision = next_number(&state, 2),
            .would_deny = next_number(&state, 2), .reason = reasons[next_number(&state, 3)], .rule = t[15], .source = t[16],
            .addresses = addresses, .address_count = next_number(&state, 4), .inspect = next_number(&state, 2), .address = t[17],
            .sni = t[18], .cause = t[19], .status = (uint16_t)next_number(&state, 600), .bytes_up = (uint64_t)next_number(&state, 1u << 31) << next_number(&state, 33),
            .bytes_down = next_number(&state, 1u << 31), .duration_ms = (int64_t)next_number(&state, 1u << 31) - 1000,
        };
        CHECK(record_draft(&all, RECORD_JSONL, &r));
        CHECK(record_fold_key(&all, &r));
    }
    sha256_hex(buf_slice(&all), digest);
    CHECK_STR(digest, "093822ed0b1bb12e4d58c5666a5876e3011bcfd9058f0150173a00f195972f58");
    buf_done(&all);
}

TEST(events_are_read_back)
{
    for (int e = RECORD_RESOLVE; e <= RECORD_CHECKPOINT; e++) {
        struct record r = {.event = (enum record_event)e,
                           .host = T(",\"unmapped\":{\"event\":\"start\"")};
        for (int format = RECORD_JSONL; format <= RECORD_OCSF; format++) {
            draft((enum record_format)format, &r);
            CHECK(record_draft_event(slice_str(draft_text)) == (enum record_event)e);
        }
    }
    CHECK(record_draft_event(slice_str("")) == RECORD_NONE);
    CHECK(record_draft_event(slice_str(
              "\"ts\":\"2026-11-20T18:08:24.471461Z\",\"event\":\"stopp\"")) == RECORD_NONE);
    CHECK(record_draft_event(slice_str("\"ts\":\"2026-11-20T18:08:24.471461Z\",\"event\":\"")) ==
          RECORD_NONE);
}
