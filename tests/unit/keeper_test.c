/* The keeper: its frames as bytes, what a policy lets it mint, the worker's link to it, and the whole process against workers
 * that lie, ask for what their policy does not inspect, or ask too much. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sallyport/auth/mint.h"
#include "sallyport/base/encoding.h"
#include "sallyport/policy/inspect.h"
#include "sallyport/process/bundle.h"
#include "sallyport/process/control.h"
#include "sallyport/process/role.h"
#include "sallyport/proxy/keeperlink.h"
#include "sallyport/tls/leafwire.h"
#include "sallyport/tls/mint.h"
#include "unit/policies.h"
#include "unit/test.h"

#include "sallyport/base/clock.h"

static struct host
host_of(const char *text)
{
    struct host h = {0};
    CHECK_THAT(host_parse(slice_str(text), &h), "%s", text);
    return h;
}

/* ---- frames ---- */

static size_t
write_question(char *out, size_t size, const struct leaf_question *q)
{
    struct buf b;
    buf_init(&b, LEAF_QUESTION_MAX);
    CHECK(leaf_question_write(&b, q) && buf_len(&b) <= size);
    size_t len = buf_len(&b);
    memcpy(out, buf_slice(&b).ptr, len);
    buf_done(&b);
    return len;
}

static struct leaf_question
some_question(void)
{
    struct leaf_question q = {.id = 0x01020304, .policy = slice_str("code-review"), .host = host_of("www.example.com"), .port = 8443,
                              .token = slice_str("a.b.c")};
    memset(q.policy_sha256, 0xab, sizeof q.policy_sha256);
    return q;
}

TEST(questions_come_back_as_they_were)
{
    static const char *const hosts[] = {"a", "www.example.com", "192.0.2.1", "[2001:db8::1]"};
    for (size_t i = 0; i < 4; i++) {
        char bytes[LEAF_QUESTION_MAX];
        struct leaf_question q = some_question(), got;
        q.host = host_of(hosts[i]);
        size_t len = write_question(bytes, sizeof bytes, &q);
        CHECK(leaf_question_read(slice_of(bytes, len), &got));
        CHECK(got.id == q.id && got.port == 8443 && host_equal(&got.host, &q.host) && slice_is(got.policy, "code-review"));
        CHECK(slice_is(got.token, "a.b.c") && memcmp(got.policy_sha256, q.policy_sha256, SHA256_SIZE) == 0);
        for (size_t cut = 0; cut < len; cut++)
            CHECK_THAT(!leaf_question_read(slice_of(bytes, cut), &got), "cut at %zu", cut);
        bytes[len] = 'x';
        CHECK(!leaf_question_read(slice_of(bytes, len + 1), &got));
    }
}

TEST(hosts_in_another_form_are_no_questions)
{
    static const char *const hosts[] = {"WWW.example.com", "www.example.com.", "*.example.com", "", "a b", "a,DNS:b.example", "example..com",
                                        "192.0.2.01", "2001:db8::1", "[2001:DB8::1]", "0x7f.1", "www.example.com\n", "-a.example"};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        char bytes[LEAF_QUESTION_MAX];
        struct leaf_question q = some_question(), got;
        q.host = (struct host){.kind = HOST_NAME, .len = (uint8_t)strlen(hosts[i])};
        strcpy(q.host.text, hosts[i]);
        size_t len = write_question(bytes, sizeof bytes, &q);
        CHECK_THAT(!leaf_question_read(slice_of(bytes, len), &got), "\"%s\"", hosts[i]);
    }
}

TEST(questions_have_limits)
{
    struct buf b;
    char big[LEAF_TOKEN_MAX + 2];
    memset(big, 'x', sizeof big);
    struct leaf_question q = some_question();
    buf_init(&b, LEAF_QUESTION_MAX);
    q.token = slice_of(big, LEAF_TOKEN_MAX);
    CHECK(leaf_question_write(&b, &q));
    buf_clear(&b);
    q.token.len++;
    CHECK(!leaf_question_write(&b, &q) && buf_len(&b) == 0);
    q = some_question();
    q.policy = slice_of(big, LEAF_POLICY_NAME_MAX + 1);
    CHECK(!leaf_question_write(&b, &q) && buf_len(&b) == 0);
    q = some_question();
    q.host.kind = HOST_NONE;
    CHECK(!leaf_question_write(&b, &q));
    buf_done(&b);
    char bytes[LEAF_QUESTION_MAX];
    q = some_question();
    q.port = 0;
    struct leaf_question got;
    CHECK(!leaf_question_read(slice_of(bytes, write_question(bytes, sizeof bytes, &q)), &got));
}

TEST(answers_come_back_or_are_none)
{
    for (int status = 0; status < 256; status++) {
        struct leaf_answer a = {7, (enum leaf_status)status, status == LEAF_STATUS_MINTED ? slice_str("DER") : slice_of("", 0)}, got;
        struct buf b;
        buf_init(&b, 8192);
        CHECK(leaf_answer_write(&b, &a));
        bool fine = leaf_answer_read(buf_slice(&b), &got);
        CHECK_THAT(fine == (status > LEAF_STATUS_NONE && status <= LEAF_STATUS_FAILED), "status %d", status);
        CHECK(!fine || (got.id == 7 && (int)got.status == status && slice_equal(got.der, a.der)));
        CHECK(!leaf_answer_read(slice_of(buf_slice(&b).ptr, 4), &got));
        if (fine && status != LEAF_STATUS_MINTED) { /* only a certificate has bytes behind it */
            buf_append_str(&b, "x");
            CHECK(!leaf_answer_read(buf_slice(&b), &got));
        }
        buf_done(&b);
    }
}

/* ---- policy_inspects ---- */

static struct policy *
compile_inspecting(enum inspect_mode mode, const char *json)
{
    static const char *const through[] = {"bank.example.com", NULL};
    struct policy_context_options o = {.registries_json = slice_of("", 0), .blocklist_json = slice_of("", 0), .inspect = mode, .passthrough = through};
    return compile_in(context_with(&o), json, POLICY_FILE, NULL);
}

#define LIMITED "{\"version\":1,\"networking\":{\"type\":\"limited\",\"allowed_hosts\":[\"*.example.com\",\"plain.example.com:80\"]}"

TEST(only_what_is_inspected_is)
{
    static const struct { enum inspect_mode mode; const char *more, *host; uint16_t port; bool plain, refusals; } rows[] = {
        {INSPECT_ALL, "", "www.example.com", 443, true, true},
        {INSPECT_ALL, "", "bank.example.com", 443, false, false},      /* the operator's passthrough */
        {INSPECT_ALL, "", "plain.example.com", 80, false, false},      /* no TLS there */
        {INSPECT_ALL, "", "www.example.org", 443, false, true},        /* refused */
        {INSPECT_ALL, "", "www.example.com", 0, false, false},
        {INSPECT_ALL, ",\"inspect\":{\"mode\":\"off\"}", "www.example.com", 443, false, false},
        {INSPECT_ALL, ",\"inspect\":{\"passthrough\":[\"www.example.com\"]}", "www.example.com", 443, false, false},
        {INSPECT_LISTED, ",\"inspect\":{\"hosts\":[\"api.example.com\"]}", "api.example.com", 443, true, true},
        {INSPECT_LISTED, ",\"inspect\":{\"hosts\":[\"api.example.com\"]}", "www.example.com", 443, false, false},
        {INSPECT_LISTED, ",\"rules\":[{\"host\":\"r.example.org\",\"path\":\"^/a\",\"action\":\"allow\"}]", "r.example.org", 443, true, true},
        {INSPECT_LISTED, ",\"blocked_hosts\":[\"b.example.com\"]", "b.example.com", 443, false, true},
        {INSPECT_OFF, "", "www.example.com", 443, false, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char json[512];
        snprintf(json, sizeof json, LIMITED "%s}", rows[i].more);
        struct policy *p = compile_inspecting(rows[i].mode, json);
        struct host h = host_of(rows[i].host);
        CHECK_THAT(policy_inspects(p, &h, rows[i].port, false) == rows[i].plain, "row %zu", i);
        CHECK_THAT(policy_inspects(p, &h, rows[i].port, true) == rows[i].refusals, "row %zu, refusals", i);
        policy_unref(p);
    }
}

/* ---- the worker's link ---- */

struct link_world {
    struct loop *loop;
    struct channel *keeper;
    int questions, told;
    enum reason reason;
    uint32_t last_id;
};

static void
on_question(void *owner, enum channel_event event, struct frame *frame)
{
    struct link_world *w = owner;
    struct leaf_question q;
    if (event != CHANNEL_FRAME || frame->type != LEAF_FRAME_QUESTION || !leaf_question_read(frame->payload, &q))
        return;
    w->questions++;
    w->last_id = q.id;
    loop_stop(w->loop);
}

static void
on_leaf(void *owner, enum reason reason, struct leaf *leaf)
{
    struct link_world *w = owner;
    w->told++;
    w->reason = reason;
    leaf_unref(leaf);
    loop_stop(w->loop);
}

static struct snapshot *
snapshot_of(const struct settings *s, const struct blob *blobs, size_t count)
{
    struct err err = {0};
    struct snapshot *snapshot = snapshot_new(s, blobs, count, NULL, false, 1, &err);
    CHECK_THAT(snapshot != NULL, "%s", err.text);
    return snapshot;
}

TEST(a_link_asks_and_is_answered)
{
    struct err err = {0};
    char *ca_pem, *ca_key, *leaf_private, *leaf_public, *jwks = NULL, *key_pem, *jwk;
    struct ca_options o = {.now_s = (int64_t)time(NULL), .days = 3};
    CHECK(ca_generate(&o, &ca_pem, &ca_key, &err) == 0 && leaf_key_generate(&leaf_private, &leaf_public, &err) == 0);
    CHECK(mint_key(JWA_ES256, "k", &key_pem, &jwk, &err) == 0 && mint_jwks_add(NULL, jwk, &jwks, &err) == 0);
    struct blob blobs[] = {{slice_str("keys"), slice_str(jwks)}, {slice_str("leaf-key"), slice_str(leaf_private)},
                           {slice_str("inspect-ca"), slice_str(ca_pem)}, {slice_str("system-roots"), slice_str(ca_pem)}};
    struct settings on = {.inspect = INSPECT_ALL}, off = {.inspect = INSPECT_OFF};
    struct snapshot *with = snapshot_of(&on, blobs, 4), *without = snapshot_of(&off, blobs, 4), *broken = snapshot_of(&on, blobs, 2);
    struct link_world w = {.loop = loop_new()};
    int pair[2];
    CHECK(channel_pair(pair) == 0);
    w.keeper = channel_new(w.loop, pair[1], on_question, &w);
    struct keeper_link *link = keeper_link_new(w.loop, pair[0]);
    CHECK(!keeper_link_leaves(link) && !keeper_link_upstream(link));
    CHECK(keeper_link_set(link, without, &err) == 0 && !keeper_link_leaves(link));
    CHECK_THAT(keeper_link_set(link, with, &err) == 0, "%s", err.text);
    struct leaf_store *leaves = keeper_link_leaves(link);
    struct upstream_tls *upstream = keeper_link_upstream(link);
    CHECK(leaves && upstream);
    CHECK(keeper_link_set(link, with, &err) == 0 && keeper_link_leaves(link) == leaves && keeper_link_upstream(link) == upstream);

    struct host h = host_of("www.example.com");
    char digest[SHA256_HEX_SIZE];
    sha256_hex(slice_str("p"), digest);
    struct leaf_ask ask = {.policy = "p", .policy_sha256 = digest, .host = &h, .port = 443, .token = slice_of("", 0)};
    struct leaf_wait *wait;
    CHECK(!leaf_get(leaves, &ask, o.now_s, on_leaf, &w, &wait) && wait);
    loop_run(w.loop);
    CHECK(w.questions == 1);
    channel_send(w.keeper, LEAF_FRAME_STARTED, slice_of("", 0), NULL, 0);
    loop_run(w.loop);
    CHECK(w.questions == 2 && w.told == 0);
    struct buf b;
    buf_init(&b, 64);
    leaf_answer_write(&b, &(struct leaf_answer){w.last_id, LEAF_STATUS_REFUSED, slice_of("", 0)});
    channel_send(w.keeper, LEAF_FRAME_ANSWER, buf_slice(&b), NULL, 0);
    channel_send(w.keeper, 99, buf_slice(&b), NULL, 0);
    buf_done(&b);
    loop_run(w.loop);
    CHECK(w.told == 1 && w.reason == REASON_INTERNAL);

    CHECK(!leaf_get(leaves, &ask, o.now_s, on_leaf, &w, &wait) && wait);
    CHECK(keeper_link_set(link, broken, &err) < 0 && !keeper_link_leaves(link) && w.told == 2);
    CHECK(keeper_link_set(link, with, &err) == 0 && keeper_link_leaves(link));
    keeper_link_free(link);
    channel_free(w.keeper);
    snapshot_unref(with);
    snapshot_unref(without);
    snapshot_unref(broken);
    loop_free(w.loop);
    char *all[] = {ca_pem, ca_key, leaf_private, leaf_public, jwks, key_pem, jwk};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

/* ---- the process ---- */

struct stage {
    char *ca_pem, *ca_key, *leaf_private, *leaf_public, *jwks, *key_pem, *jwk;
    EVP_PKEY *leaf_key;
    int control, shared, ca_fd;
    int workers[2], ends[2], kept;
    pid_t pid;
    char digest[SHA256_HEX_SIZE], other_digest[SHA256_HEX_SIZE];
    char frame[CHANNEL_FRAME_MAX + 64];
};

struct wire_head { uint16_t type, fds; uint32_t len; };

#define POLICY LIMITED "}"
#define OTHER_POLICY "{\"version\":1,\"networking\":{\"type\":\"limited\",\"allowed_hosts\":[\"www.example.org\"]},\"inspect\":{\"mode\":\"off\"}}"

static int
sealed(const struct stage *s, bool deny_in_tunnel, bool with_other)
{
    struct bundle b = {0};
    struct err err = {0};
    cleanup_free char *config = mem_printf("{\"inspect\":{\"mode\":\"all\",\"passthrough\":[\"bank.example.com\"],\"deny_in_tunnel\":%s}}", deny_in_tunnel ? "true" : "false");
    const struct { const char *name, *text; } blobs[] = {
        {"config", config}, {"keys", s->jwks}, {"leaf-public", s->leaf_public}, {"inspect-ca", s->ca_pem}, {"policy/main", POLICY},
        {with_other ? "policy/other" : "policy/unused", OTHER_POLICY}};
    for (size_t i = 0; i < sizeof blobs / sizeof blobs[0]; i++)
        bundle_add(&b, blobs[i].name, blobs[i].text, strlen(blobs[i].text), FOR_KEEPER);
    int fd = bundle_seal(&b, FOR_KEEPER, false, &err);
    bundle_done(&b);
    return fd;
}

static int
file_of(const char *text)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    return fd;
}

static void
start(struct stage *s, int bundle)
{
    int control[2];
    CHECK(channel_pair(control) == 0);
    fflush(NULL);
    s->pid = fork();
    if (s->pid == 0) {
        char numbers[6][16];
        int values[] = {control[1], dup(s->shared), bundle, dup(s->ca_fd), dup(s->ends[0]), dup(s->ends[1])};
        for (int i = 0; i < 6; i++)
            snprintf(numbers[i], sizeof numbers[i], "%d", values[i]);
        char *argv[] = {(char[]){"keeper"}, (char[]){"--control"}, numbers[0], (char[]){"--shared"}, numbers[1], (char[]){"--bundle"}, numbers[2],
                        (char[]){"--ca-key"}, numbers[3], (char[]){"--leaves"}, numbers[4], (char[]){"--leaves"}, numbers[5], NULL};
        _exit(keeper_main(13, argv));
    }
    close(control[1]);
    close(bundle);
    s->control = control[0];
}

/* The next frame's payload, or ptr NULL after 5 s. */
static struct slice
receive(struct stage *s, int fd, uint16_t *ret_type)
{
    struct pollfd p = {fd, POLLIN, 0};
    struct wire_head head;
    if (poll(&p, 1, 5000) != 1)
        return slice_of(NULL, 0);
    ssize_t n = recv(fd, s->frame, sizeof s->frame, 0);
    if (n < (ssize_t)sizeof head)
        return slice_of(NULL, 0);
    memcpy(&head, s->frame, sizeof head);
    *ret_type = head.type;
    return slice_of(s->frame + sizeof head, (size_t)n - sizeof head);
}

static void
transmit(int fd, uint16_t type, const void *payload, size_t len)
{
    static char frame[CHANNEL_FRAME_MAX + 64];
    struct wire_head head = {type, 0, (uint32_t)len};
    memcpy(frame, &head, sizeof head);
    memcpy(frame + sizeof head, payload, len);
    struct pollfd p = {fd, POLLOUT, 0};
    poll(&p, 1, 5000);
    CHECK(send(fd, frame, sizeof head + len, MSG_NOSIGNAL) == (ssize_t)(sizeof head + len));
}

static void
begin(struct stage *s)
{
    struct err err = {0};
    *s = (struct stage){0};
    struct ca_options o = {.now_s = (int64_t)time(NULL), .days = 3};
    CHECK(ca_generate(&o, &s->ca_pem, &s->ca_key, &err) == 0 && leaf_key_generate(&s->leaf_private, &s->leaf_public, &err) == 0);
    CHECK(mint_key(JWA_ES256, "k", &s->key_pem, &s->jwk, &err) == 0 && mint_jwks_add(NULL, s->jwk, &s->jwks, &err) == 0);
    s->leaf_key = leaf_key_public(slice_str(s->leaf_public), &err);
    s->shared = shared_create();
    s->ca_fd = file_of(s->ca_key);
    for (int i = 0; i < 2; i++) {
        int pair[2];
        CHECK(channel_pair(pair) == 0);
        s->workers[i] = pair[0];
        s->ends[i] = pair[1];
    }
    sha256_hex(slice_str(POLICY), s->digest);
    sha256_hex(slice_str(OTHER_POLICY), s->other_digest);
}

static void
await_ready(struct stage *s)
{
    uint16_t type = 0;
    struct slice payload = receive(s, s->control, &type);
    CHECK_THAT(type == CONTROL_READY, "%.*s", (int)payload.len, payload.ptr ? payload.ptr : "");
    for (int i = 0; i < 2; i++) {
        type = 0;
        receive(s, s->workers[i], &type);
        CHECK(type == LEAF_FRAME_STARTED);
    }
}

static void
stop(struct stage *s)
{
    int status = -1;
    transmit(s->control, CONTROL_STOP, "", 0);
    CHECK(waitpid(s->pid, &status, 0) == s->pid);
    close(s->control);
    CHECK_THAT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
}

static void
end(struct stage *s)
{
    char *all[] = {s->ca_pem, s->ca_key, s->leaf_private, s->leaf_public, s->jwks, s->key_pem, s->jwk};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    EVP_PKEY_free(s->leaf_key);
    close(s->shared);
    close(s->ca_fd);
    for (int i = 0; i < 2; i++) {
        close(s->workers[i]);
        close(s->ends[i]);
    }
}

static void
ask_as(struct stage *s, int worker, uint32_t id, const char *policy, const char *digest, const char *host, uint16_t port, const char *token)
{
    char bytes[LEAF_QUESTION_MAX];
    struct leaf_question q = {.id = id, .policy = slice_str(policy), .host = host_of(host), .port = port, .token = slice_str(token)};
    CHECK(hex_decode(slice_str(digest), q.policy_sha256, SHA256_SIZE));
    transmit(s->workers[worker], LEAF_FRAME_QUESTION, bytes, write_question(bytes, sizeof bytes, &q));
}

static enum leaf_status
answered(struct stage *s, int worker, uint32_t id, const char *host)
{
    uint16_t type = 0;
    struct leaf_answer a = {0};
    struct slice payload = receive(s, s->workers[worker], &type);
    if (!payload.ptr || type != LEAF_FRAME_ANSWER || !leaf_answer_read(payload, &a) || a.id != id)
        return LEAF_STATUS_NONE;
    if (a.status == LEAF_STATUS_MINTED) {
        const unsigned char *at = (const unsigned char *)a.der.ptr;
        X509 *cert = d2i_X509(NULL, &at, (long)a.der.len);
        CHECK(cert && EVP_PKEY_eq(X509_get0_pubkey(cert), s->leaf_key) == 1);
        CHECK(cert && X509_check_host(cert, host, 0, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, NULL) == 1);
        X509_free(cert);
    }
    return a.status;
}

static enum leaf_status
try(struct stage *s, const char *policy, const char *digest, const char *host, uint16_t port, const char *token)
{
    static uint32_t id = 100;
    ask_as(s, 0, ++id, policy, digest, host, port, token);
    return answered(s, 0, id, host);
}

TEST(a_keeper_mints_what_the_policy_inspects_and_nothing_else)
{
    static struct stage s;
    begin(&s);
    start(&s, sealed(&s, false, true));
    await_ready(&s);
    CHECK(try(&s, "main", s.digest, "www.example.com", 443, "") == LEAF_STATUS_MINTED);
    CHECK(try(&s, "main", s.digest, "www.example.org", 443, "") == LEAF_STATUS_REFUSED);
    CHECK(try(&s, "main", s.digest, "bank.example.com", 443, "") == LEAF_STATUS_REFUSED);
    CHECK(try(&s, "main", s.digest, "www.example.com", 9999, "") == LEAF_STATUS_REFUSED);
    CHECK(try(&s, "other", s.other_digest, "www.example.org", 443, "") == LEAF_STATUS_REFUSED);
    CHECK(try(&s, "other", s.digest, "www.example.com", 443, "") == LEAF_STATUS_UNKNOWN_POLICY);
    CHECK(try(&s, "main", s.other_digest, "www.example.com", 443, "") == LEAF_STATUS_UNKNOWN_POLICY);
    CHECK(try(&s, "", s.digest, "www.example.com", 443, "") == LEAF_STATUS_UNKNOWN_POLICY);
    CHECK(try(&s, "nobody", s.digest, "www.example.com", 443, "") == LEAF_STATUS_UNKNOWN_POLICY);
    CHECK(try(&s, "main", s.digest, "www.example.com", 443, "garbage") == LEAF_STATUS_MINTED); /* named: the token is not looked at */
    stop(&s);
    end(&s);
}

TEST(refusals_in_the_tunnel_have_leaves_too_but_passthrough_never)
{
    static struct stage s;
    begin(&s);
    start(&s, sealed(&s, true, true));
    await_ready(&s);
    CHECK(try(&s, "main", s.digest, "www.example.org", 443, "") == LEAF_STATUS_MINTED);
    CHECK(try(&s, "main", s.digest, "bank.example.com", 443, "") == LEAF_STATUS_REFUSED);
    CHECK(try(&s, "other", s.other_digest, "www.example.com", 443, "") == LEAF_STATUS_REFUSED);
    stop(&s);
    end(&s);
}

static char *
token_with(const struct stage *s, const char *key_pem, const char *more, int64_t shift)
{
    struct err err = {0};
    char *token = NULL;
    int64_t now = (int64_t)time(NULL) + shift;
    cleanup_free char *claims = mem_printf("{\"sub\":\"sbx\",\"aud\":\"sallyport\",\"iat\":%lld,\"exp\":%lld%s}", (long long)now, (long long)now + 600, more);
    (void)s;
    CHECK_THAT(mint_token(slice_str(key_pem), "k", claims, &token, &err) == 0, "%s", err.text);
    return token;
}

/* The digest of what the token's claims make as a policy, as a worker would have it. */
static void
embedded_digest(const struct stage *s, const char *token, char digest[SHA256_HEX_SIZE])
{
    struct err err = {0};
    struct identity *id = NULL;
    struct token_rules rules = {.audience = "sallyport", .leeway_s = 30, .max_lifetime_s = 86400, .embedded = EMBEDDED_LIMITED};
    struct keyset *keys = keyset_parse(slice_str(s->jwks), "k", false, &err);
    CHECK_THAT(token_verify(&rules, keys, slice_str(token), &id, &err) == REASON_OK, "%s", err.text);
    sha256_hex(slice_str(id && id->embedded_policy ? id->embedded_policy : ""), digest);
    identity_unref(id);
    keyset_unref(keys);
}

TEST(a_tokens_own_policy_counts_when_the_token_holds)
{
    static struct stage s;
    char digest[SHA256_HEX_SIZE], *other_pem, *other_jwk;
    struct err err = {0};
    const char *more = ",\"networking\":{\"type\":\"limited\",\"allowed_hosts\":[\"t.example.net\"]}";
    begin(&s);
    start(&s, sealed(&s, false, true));
    await_ready(&s);
    CHECK(mint_key(JWA_ES256, "k", &other_pem, &other_jwk, &err) == 0);
    char *good = token_with(&s, s.key_pem, more, 0), *forged = token_with(&s, other_pem, more, 0), *old = token_with(&s, s.key_pem, more, -3600);
    cleanup_free char *bound_more = mem_printf("%s,\"cnf\":{\"address\":\"10.0.0.0/8\"}", more);
    char *bound = token_with(&s, s.key_pem, bound_more, 0);
    embedded_digest(&s, good, digest);
    CHECK(try(&s, "embedded", digest, "t.example.net", 443, good) == LEAF_STATUS_MINTED);
    CHECK(try(&s, "embedded", digest, "t.example.net", 443, bound) == LEAF_STATUS_MINTED);
    CHECK(try(&s, "embedded", digest, "www.example.com", 443, good) == LEAF_STATUS_REFUSED);
    CHECK(try(&s, "embedded", digest, "t.example.net", 443, forged) == LEAF_STATUS_UNKNOWN_POLICY);
    CHECK(try(&s, "embedded", digest, "t.example.net", 443, old) == LEAF_STATUS_UNKNOWN_POLICY);
    CHECK(try(&s, "embedded", digest, "t.example.net", 443, "") == LEAF_STATUS_UNKNOWN_POLICY);
    CHECK(try(&s, "embedded", s.digest, "t.example.net", 443, good) == LEAF_STATUS_UNKNOWN_POLICY);
    char *all[] = {good, forged, old, bound, other_pem, other_jwk};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    stop(&s);
    end(&s);
}

static void
hand_bundle(struct stage *s, int fd)
{
    struct wire_head head = {CONTROL_BUNDLE, 1, sizeof(struct control_bundle)};
    struct control_bundle told = {2};
    struct iovec iov[2] = {{&head, sizeof head}, {&told, sizeof told}};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    CHECK(sendmsg(s->control, &msg, 0) > 0);
    close(fd);
}

TEST(a_reload_is_followed_and_the_policy_before_it_still_known)
{
    static struct stage s;
    begin(&s);
    start(&s, sealed(&s, false, true));
    await_ready(&s);
    CHECK(try(&s, "other", s.other_digest, "www.example.org", 443, "") == LEAF_STATUS_REFUSED);
    hand_bundle(&s, sealed(&s, true, false));
    /* The control channel may be read after the worker's: until then the old answer is right. */
    enum leaf_status got = LEAF_STATUS_REFUSED;
    for (int i = 0; i < 100 && got == LEAF_STATUS_REFUSED; i++)
        got = try(&s, "main", s.digest, "www.example.org", 443, "");
    CHECK(got == LEAF_STATUS_MINTED);
    CHECK(try(&s, "other", s.other_digest, "www.example.org", 443, "") == LEAF_STATUS_REFUSED); /* and not unknown */
    hand_bundle(&s, file_of("none"));
    CHECK(try(&s, "main", s.digest, "www.example.com", 443, "") == LEAF_STATUS_MINTED);
    stop(&s);
    end(&s);
}

TEST(who_asks_too_much_gets_no_more_and_hurts_nobody_else)
{
    static struct stage s;
    int minted = 0, busy = 0, got = 0;
    begin(&s);
    start(&s, sealed(&s, false, true));
    await_ready(&s);
    int64_t began_ms = clock_mono_ms();
    for (uint32_t i = 0; i < 5000; i++) {
        ask_as(&s, 0, i, "main", s.digest, "www.example.com", 443, "");
        struct pollfd p = {s.workers[0], POLLIN, 0};
        while (got <= (int)i && (i == 4999 || poll(&p, 1, 0) == 1)) {
            enum leaf_status status = answered(&s, 0, (uint32_t)got++, "www.example.com");
            minted += status == LEAF_STATUS_MINTED;
            busy += status == LEAF_STATUS_BUSY;
        }
    }
    /* A burst of 4,000 and 500 a second, however long this machine takes for it. */
    int most = 4001 + (int)((clock_mono_ms() - began_ms + 100) / 2);
    CHECK_THAT(minted >= 4000 && minted <= most && minted + busy == 5000, "%d minted (at most %d), %d busy", minted, most, busy);
    ask_as(&s, 1, 7, "main", s.digest, "www.example.com", 443, "");
    CHECK(answered(&s, 1, 7, "www.example.com") == LEAF_STATUS_MINTED);
    struct shared *counters = shared_map(s.shared, false);
    CHECK(shared_get(counters, COUNTER_CERTIFICATES) == (uint64_t)minted + 1);
    shared_unmap(counters);
    stop(&s);
    end(&s);
}

TEST(what_is_no_question_gets_no_answer)
{
    static struct stage s;
    begin(&s);
    start(&s, sealed(&s, false, true));
    await_ready(&s);
    transmit(s.workers[0], LEAF_FRAME_QUESTION, "", 0);
    transmit(s.workers[0], LEAF_FRAME_QUESTION, "garbage that is longer than the head of a question has", 52);
    transmit(s.workers[0], LEAF_FRAME_ANSWER, "\0\0\0\1\1x", 6);
    transmit(s.workers[0], 4711, "x", 1);
    CHECK(try(&s, "main", s.digest, "www.example.com", 443, "") == LEAF_STATUS_MINTED);
    stop(&s);
    end(&s);
}

/* As the supervisor does when a worker is started again. */
static void
renew_channel(struct stage *s, int worker, bool told_first)
{
    int pair[2];
    struct pollfd p = {s->control, POLLOUT, 0};
    CHECK(channel_pair(pair) == 0);
    if (!told_first)
        shutdown(s->ends[worker], SHUT_RDWR);
    close(s->ends[worker]);
    s->ends[worker] = pair[1];
    struct { struct wire_head head; struct control_channel told; } frame = {{CONTROL_CHANNEL, 1, sizeof frame.told}, {(uint64_t)worker, channel_id(pair[1])}};
    union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } space = {{0}};
    struct iovec iov = {&frame, sizeof frame};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = space.bytes, .msg_controllen = sizeof space.bytes};
    *CMSG_FIRSTHDR(&m) = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &pair[1], sizeof(int));
    poll(&p, 1, 5000);
    CHECK(sendmsg(s->control, &m, MSG_NOSIGNAL) == (ssize_t)sizeof frame);
    s->kept = s->workers[worker]; /* what a worker that was taken might have passed on */
    s->workers[worker] = pair[0];
}

TEST(a_worker_that_is_started_again_has_a_channel_of_its_own)
{
    struct stage s;
    begin(&s);
    start(&s, sealed(&s, false, true));
    await_ready(&s);
    for (int round = 0; round < 2; round++) {
        CHECK(try(&s, "main", s.digest, "www.example.com", 443, "") == LEAF_STATUS_MINTED);
        renew_channel(&s, 0, round == 1);
        CHECK(try(&s, "main", s.digest, "api.example.com", 443, "") == LEAF_STATUS_MINTED);
        char byte;
        CHECK(recv(s.kept, &byte, 1, MSG_DONTWAIT) == 0 && send(s.kept, &byte, 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
        close(s.kept);
    }
    ask_as(&s, 1, 7, "main", s.digest, "www.example.com", 443, "");
    CHECK(answered(&s, 1, 7, "www.example.com") == LEAF_STATUS_MINTED);
    stop(&s);
    end(&s);
}

TEST(a_new_channel_brings_no_new_rate)
{
    struct stage s;
    enum leaf_status status = LEAF_STATUS_NONE;
    begin(&s);
    start(&s, sealed(&s, false, true));
    await_ready(&s);
    for (int i = 0; i < 5000 && status != LEAF_STATUS_BUSY; i++)
        status = try(&s, "main", s.digest, "bank.example.com", 443, "");
    CHECK(status == LEAF_STATUS_BUSY);
    renew_channel(&s, 0, false);
    unsigned judged = 0;
    for (int i = 0; i < 500; i++)
        judged += try(&s, "main", s.digest, "bank.example.com", 443, "") != LEAF_STATUS_BUSY;
    CHECK_THAT(judged < 400, "%u", judged);
    close(s.kept);
    stop(&s);
    end(&s);
}

TEST(a_keeper_started_again_reads_the_same_key)
{
    static struct stage s;
    int status;
    begin(&s);
    for (int i = 0; i < 3; i++) {
        start(&s, sealed(&s, false, true));
        await_ready(&s);
        CHECK(try(&s, "main", s.digest, "www.example.com", 443, "") == LEAF_STATUS_MINTED);
        kill(s.pid, SIGKILL);
        CHECK(waitpid(s.pid, &status, 0) == s.pid);
        close(s.control);
    }
    end(&s);
}

TEST(a_key_of_another_ca_is_said_to_the_supervisor)
{
    static struct stage s;
    uint16_t type = 0;
    int status;
    begin(&s);
    close(s.ca_fd);
    s.ca_fd = file_of(s.key_pem);
    start(&s, sealed(&s, false, true));
    struct slice said = receive(&s, s.control, &type);
    CHECK(type == CONTROL_FAILED && said.len > 1 && said.ptr[0] == ERR_INVALID);
    CHECK_THAT(said.ptr && memmem(said.ptr, said.len, "does not belong", 15), "%.*s", (int)said.len, said.ptr);
    CHECK(waitpid(s.pid, &status, 0) == s.pid && WIFEXITED(status) && WEXITSTATUS(status) == 2);
    close(s.control);
    end(&s);
}
