/* The chain and its verification: every way in which somebody may change a log shows, with its
 * place and kind. */
#include "unit/test.h"

#include <openssl/evp.h>
#include <openssl/pem.h>

#include "sallyport/base/digest.h"
#include "sallyport/base/mem.h"
#include "sallyport/record/chain.h"
#include "sallyport/record/record.h"
#include "sallyport/record/verify.h"

#define LINES 12
#define TS "\"ts\":\"2026-11-20T18:08:24.471461Z\""

/* A log of LINES records, cut into lines; `order` says which are given to the verifier. */
struct log {
    struct buf text;
    struct slice lines[2100];
    size_t count;
    struct chain chain;
};

static void
log_init(struct log *l)
{
    *l = (struct log){0};
    buf_init(&l->text, 64u << 20);
    chain_init(&l->chain);
}

static void
log_split(struct log *l)
{
    struct slice rest = buf_slice(&l->text);
    l->count = 0;
    while (rest.len > 0)
        l->lines[l->count++] = slice_split(rest, '\n', &rest);
}

static void
log_add(struct log *l, const struct record *r)
{
    struct buf b;
    buf_init(&b, RECORD_LINE_MAX);
    CHECK(record_draft(&b, RECORD_JSONL, r));
    CHECK(chain_append(&l->chain, &l->text, buf_slice(&b)));
    buf_done(&b);
}

static void
log_fill(struct log *l, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char host[48];
        snprintf(host, sizeof host, "h%zu.example.com", i);
        struct record r = {
            .event = i == 0 ? RECORD_START : RECORD_DECISION, .host = slice_str(host), .port = 443};
        log_add(l, &r);
    }
    log_split(l);
}

static struct verify_result
check_order(const struct log *l, const int *order, size_t count,
            const struct verify_options *options)
{
    static const struct verify_options none;
    struct verify_result result;
    struct verify *v = verify_new(options ? options : &none);
    verify_file(v, "log");
    for (size_t i = 0; i < count; i++)
        verify_line(v, l->lines[order[i]], true);
    verify_finish(v, &result);
    verify_free(v);
    return result;
}

static struct verify_result
check_all(const struct log *l, const struct verify_options *options)
{
    static int order[2100];
    for (size_t i = 0; i < l->count; i++)
        order[i] = (int)i;
    return check_order(l, order, l->count, options);
}

/* A copy of a line whose hash is that of its bytes again, as somebody without a key can make it. */
static struct slice
rehash(struct slice line, char *room)
{
    char hash[SHA256_HEX_SIZE];
    memcpy(room, line.ptr, line.len);
    size_t before = line.len - 75; /* `,"hash":"` 64 digits `"}` */
    room[before] = '}';
    sha256_hex(slice_of(room, before + 1), hash);
    memcpy(room, line.ptr, line.len);
    memcpy(room + line.len - 66, hash, 64);
    return slice_of(room, line.len);
}

TEST(a_line_is_as_documented)
{
    struct chain c;
    struct buf b;
    chain_init(&c);
    buf_init(&b, 10000);
    CHECK(chain_append(&c, &b, slice_str(TS ",\"event\":\"stop\"")));
    char before[1000], hash[SHA256_HEX_SIZE], expected[2000], zeros[65];
    memset(zeros, '0', 64);
    zeros[64] = '\0';
    snprintf(before, sizeof before, "{" TS ",\"seq\":1,\"event\":\"stop\",\"prev\":\"%s\"}", zeros);
    sha256_hex(slice_str(before), hash);
    before[strlen(before) - 1] = '\0';
    snprintf(expected, sizeof expected, "%s,\"hash\":\"%s\"}\n", before, hash);
    CHECK(slice_is(buf_slice(&b), expected));
    CHECK(c.next_seq == 2);
    CHECK_STR(c.prev, hash);
    buf_done(&b);
}

TEST(drafts_that_could_break_the_chain_are_refused)
{
    static const char *const bad[] = {
        "",
        "\"ts\":\"x\"",
        "\"event\":\"stop\"" TS,
        TS ",\"event\":\"a\nb\"",
        TS ",\"event\":\"\xc3\xa4\"",
        TS ",\"event\":\"a\"}\n{\"b\":1",
        TS ",\"event\":\"open",
        TS ",\"event\":\"open\\",
        TS ",\"a\":{",
        TS ",\"a\":[}",
        TS ",\"a\":1}",
        TS ",\"a\":1}{",
        TS ",\"seq\":9",
        TS ",\"prev\":\"0\"",
        TS ",\"a\":1,\"hash\":\"0\"",
        TS ",\"a\":{\"seq\":1}",
        /* What follows the time must not go on with the number that is put there. */
        TS "99,\"event\":\"stop\"",
        TS " ,\"event\":\"stop\"",
        TS ":1",
        TS,
        /* Other spellings of the chain's members. */
        TS ",\"seq\" :9",
        TS ",\"s\\u0065q\":9",
        TS ",\"a\":1,\"ts\":\"2026-11-20T18:08:24.471461Z\"",
        /* A time that is more than one string. */
        "\"ts\":\"\",\"event\":\"stop\",\"a\":\"012Z\",\"b\":1",
        "\"ts\":\"2026-11-20T18:08:24.47146xZ\",\"a\":1",
    };
    struct chain c;
    struct buf b;
    chain_init(&c);
    buf_init(&b, 100000);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        bool mixed = strcmp(bad[i], TS ",\"a\":[}") ==
                     0; /* brackets are counted, not paired: still one line */
        CHECK_THAT(mixed || !chain_append(&c, &b, slice_str(bad[i])), "%s", bad[i]);
    }
    CHECK(!chain_append(&c, &b, slice_of(TS ",\"a\":\"\0\"", sizeof TS + 7)));
    CHECK(c.next_seq == 1 && buf_len(&b) == 0);
    CHECK(chain_append(&c, &b, slice_str(TS ",\"a\":\"}]{ \\\"seq\\\":1\"")));
    static char large[RECORD_LINE_MAX];
    snprintf(large, sizeof large, TS ",\"a\":\"%032000d\"", 1);
    CHECK(chain_append(&c, &b, slice_str(large)));
    snprintf(large, sizeof large, TS ",\"a\":\"%032600d\"", 1);
    CHECK(!chain_append(&c, &b, slice_str(large)));
    buf_done(&b);
    buf_init(&b, 100);
    CHECK(!chain_append(&c, &b, slice_str(TS ",\"event\":\"stop\"")) && c.next_seq == 3 &&
          buf_len(&b) == 0);
    buf_done(&b);
}

/* The rule of chain_members_are_sound, read slowly: a character after the other, and nothing clever. */
static bool
is_sound_read_slowly(const char *s, size_t len, unsigned *ret_events)
{
    int depth = 0;
    *ret_events = 0;
    for (size_t i = 0; i < len; i++)
        if (s[i] < 0x20 || s[i] > 0x7e)
            return false;
    for (size_t i = 0; i < len; i++) {
        depth += s[i] == '{' || s[i] == '[';
        depth -= s[i] == '}' || s[i] == ']';
        if (depth < 0)
            return false;
        if (!strchr("{}[]\"+-.0123456789,: Eaeflnrstu", s[i]))
            return false;
        if (s[i] != '"')
            continue;
        size_t begin = i + 1, colon;
        bool escaped = false;
        for (i++; i < len && s[i] != '"'; i++)
            if (s[i] == '\\') {
                escaped = true;
                i++;
            }
        if (i >= len)
            return false;
        for (colon = i + 1; colon < len && s[colon] == ' '; colon++)
            ;
        if (colon == len || s[colon] != ':')
            continue;
        char name[16] = "";
        if (i - begin < sizeof name)
            memcpy(name, s + begin, i - begin);
        if (escaped || colon != i + 1 || !strcmp(name, "ts") || !strcmp(name, "seq") || !strcmp(name, "prev") || !strcmp(name, "hash"))
            return false;
        *ret_events += !strcmp(name, "event");
    }
    return depth == 0;
}

TEST(members_are_judged_as_the_rule_reads)
{
    static const char *const pieces[] = {
        "\"", "\"", "\"", "\\", ":", ":", " ", ",", "{", "}", "[", "]", "\"ts\":", "\"seq\":", "\"prev\":", "\"hash\":", "\"event\":", "\"events\":",
        "\"even\":", ",\"host\":\"", "\"t\\u0073\":", "true", "null", "2026", "event", "false", "-1.5e+3", "x", "a text of some length", "0123456", "01234567",
        "\\\"", "\\\\", "\x7f", "\x1f", "\xc3", "\n",
    };
    uint64_t state = 41;
    unsigned sound = 0, events, expected;
    for (int n = 0; n < 300000; n++) {
        char text[256];
        size_t len = 0;
        state = state * 6364136223846793005u + 1442695040888963407u;
        /* Most without the last four, which spoil any text. */
        size_t kinds = sizeof pieces / sizeof pieces[0] - ((state >> 40) % 8 ? 4 : 0);
        for (unsigned left = 1 + (unsigned)(state >> 33) % 12; left > 0; left--) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            const char *piece = pieces[(state >> 33) % kinds];
            memcpy(text + len, piece, strlen(piece));
            len += strlen(piece);
        }
        char *exact = mem_alloc(len); /* so that a look behind the end is seen */
        memcpy(exact, text, len);
        bool fine = is_sound_read_slowly(exact, len, &expected);
        CHECK_THAT(chain_members_are_sound(slice_of(exact, len), &events) == fine && (!fine || events == expected), "%.*s", (int)len, text);
        sound += fine;
        free(exact);
    }
    CHECK(sound > 10000);
}

TEST(an_intact_log)
{
    struct log l;
    log_init(&l);
    log_fill(&l, LINES);
    struct verify_result r = check_all(&l, NULL);
    CHECK_THAT(r.kind == VERIFY_INTACT, "%s", r.text);
    CHECK(r.records == LINES && r.first_seq == 1 && r.last_seq == LINES && r.starts == 1 &&
          !r.head_checked);
    CHECK_STR(r.last_hash, l.chain.prev);
    buf_done(&l.text);
}

TEST(every_changed_byte_shows)
{
    struct log l;
    log_init(&l);
    log_fill(&l, 3);
    char *middle = (char *)(uintptr_t)l.lines[1].ptr;
    for (size_t i = 0; i < l.lines[1].len; i++) {
        for (int bit = 0; bit < 8; bit += 3) {
            middle[i] = (char)(middle[i] ^ (1 << bit));
            struct verify_result r = check_all(&l, NULL);
            CHECK_THAT(r.kind == VERIFY_EDIT && r.at.line == 2, "byte %zu: %s line %d", i,
                       verify_kind_text(r.kind), (int)r.at.line);
            middle[i] = (char)(middle[i] ^ (1 << bit));
        }
    }
    CHECK(check_all(&l, NULL).kind == VERIFY_INTACT);
    buf_done(&l.text);
}

TEST(every_cut_of_a_line_shows)
{
    struct log l;
    log_init(&l);
    log_fill(&l, 3);
    struct slice whole = l.lines[1];
    for (size_t n = 0; n < whole.len; n++) {
        l.lines[1] = slice_of(whole.ptr, n);
        struct verify_result r = check_all(&l, NULL);
        CHECK(r.kind == VERIFY_EDIT && r.at.line == 2 && r.at.seq == 2);
    }
    buf_done(&l.text);
}

TEST(an_edit_hashed_anew_shows_at_the_next)
{
    struct log l;
    char room[2000];
    log_init(&l);
    log_fill(&l, LINES);
    char edited[2000];
    memcpy(edited, l.lines[4].ptr, l.lines[4].len);
    char *host = memmem(edited, l.lines[4].len, "h4.example.com", 14);
    CHECK(host != NULL);
    host[1] = '9';
    l.lines[4] = rehash(slice_of(edited, l.lines[4].len), room);
    struct verify_result r = check_all(&l, NULL);
    CHECK(r.kind == VERIFY_EDIT && r.at.line == 6 && r.at.seq == 6 &&
          strstr(r.text, "hashed anew"));
    buf_done(&l.text);
}

TEST(every_removal_shows)
{
    struct log l;
    log_init(&l);
    log_fill(&l, LINES);
    for (int from = 1; from < LINES - 1; from++) {
        for (int to = from + 1; to < LINES; to++) {
            int order[LINES];
            size_t count = 0;
            for (int i = 0; i < LINES; i++) {
                if (i < from || i >= to)
                    order[count++] = i;
            }
            struct verify_result r = check_order(&l, order, count, NULL);
            CHECK_THAT(r.kind == VERIFY_REMOVAL && r.at.line == (uint64_t)from + 1 &&
                           r.at.seq == (uint64_t)to + 1,
                       "%d to %d: %s", from, to, verify_kind_text(r.kind));
        }
    }
    buf_done(&l.text);
}

TEST(every_move_is_a_reordering)
{
    struct log l;
    log_init(&l);
    log_fill(&l, LINES);
    for (int from = 0; from < LINES; from++) {
        for (int to = 0; to < LINES; to++) {
            int order[LINES];
            if (from == to || (from == 0 && to == LINES - 1))
                continue;
            for (int i = 0; i < LINES; i++)
                order[i] = i;
            int moved = order[from];
            memmove(order + from, order + from + 1, sizeof(int) * (size_t)(LINES - 1 - from));
            memmove(order + to + 1, order + to, sizeof(int) * (size_t)(LINES - 1 - to));
            order[to] = moved;
            struct verify_result r = check_order(&l, order, LINES, NULL);
            CHECK_THAT(r.kind == VERIFY_REORDERING, "%d to %d: %s: %s", from, to,
                       verify_kind_text(r.kind), r.text);
        }
    }
    buf_done(&l.text);
}

TEST(insertions_show)
{
    struct log l;
    log_init(&l);
    log_fill(&l, LINES);
    const int twice[] = {0, 1, 2, 3, 2, 4, 5};
    struct verify_result r = check_order(&l, twice, 7, NULL);
    CHECK(r.kind == VERIFY_INSERTION && r.at.line == 5 && r.at.seq == 3);
    l.lines[LINES] = slice_str("# not a record");
    const int alien[] = {0, 1, LINES, 2, 3};
    r = check_order(&l, alien, 5, NULL);
    CHECK(r.kind == VERIFY_INSERTION && r.at.line == 3 && r.at.seq == 3);
    const int replaced[] = {0, 1, LINES, 3};
    r = check_order(&l, replaced, 4, NULL);
    CHECK(r.kind == VERIFY_EDIT && r.at.line == 3 && r.at.seq == 3);
    const int first[] = {LINES, 0, 1};
    r = check_order(&l, first, 3, NULL);
    CHECK(r.kind == VERIFY_INSERTION && r.at.line == 1);
    buf_done(&l.text);
}

TEST(a_cut_tail_shows_only_against_a_head)
{
    struct log l;
    log_init(&l);
    log_fill(&l, LINES);
    struct verify_options o = {.has_head = true, .head_seq = LINES};
    memcpy(o.head_hash, l.chain.prev, sizeof o.head_hash);
    struct verify_result r = check_all(&l, &o);
    CHECK(r.kind == VERIFY_INTACT && r.head_checked);
    const int cut[] = {0, 1, 2, 3, 4};
    CHECK(check_order(&l, cut, 5, NULL).kind == VERIFY_INTACT);
    r = check_order(&l, cut, 5, &o);
    CHECK(r.kind == VERIFY_HEAD && strstr(r.text, "tail was cut") && r.last_seq == 5);
    CHECK(check_order(&l, cut, 0, &o).kind == VERIFY_HEAD);
    o.head_hash[0] = o.head_hash[0] == 'a' ? 'b' : 'a';
    r = check_all(&l, &o);
    CHECK(r.kind == VERIFY_HEAD && r.at.line == LINES);
    o.head_seq = 2;
    const int late[] = {4, 5, 6};
    r = check_order(&l, late, 3, &o);
    CHECK(r.kind == VERIFY_HEAD && strstr(r.text, "before the first"));
    buf_done(&l.text);
}

TEST(a_head_in_the_middle_is_met)
{
    struct log l;
    uint64_t seq;
    char prev[SHA256_HEX_SIZE];
    struct verify_options o = {.has_head = true};
    log_init(&l);
    log_fill(&l, LINES);
    CHECK(chain_read_line(l.lines[3], &seq, prev, o.head_hash));
    o.head_seq = seq;
    CHECK(check_all(&l, &o).head_checked && check_all(&l, &o).kind == VERIFY_INTACT);
    buf_done(&l.text);
}

TEST(the_beginning)
{
    struct log l;
    char room[2000], text[2000];
    log_init(&l);
    log_fill(&l, LINES);
    const int late[] = {4, 5, 6};
    struct verify_result r = check_order(&l, late, 3, NULL);
    CHECK(r.kind == VERIFY_INTACT && r.first_seq == 5 && r.last_seq == 7);
    memcpy(text, l.lines[0].ptr, l.lines[0].len);
    memset(text + l.lines[0].len - 75 - 65, 'a', 64); /* the first record claims one before it */
    l.lines[0] = rehash(slice_of(text, l.lines[0].len), room);
    CHECK(check_all(&l, NULL).kind == VERIFY_EDIT);
    CHECK(check_order(&l, late, 0, NULL).kind == VERIFY_INTACT);
    buf_done(&l.text);
}

TEST(rotations_and_torn_lines)
{
    struct log l;
    struct verify_result r;
    struct verify_options none = {0};
    log_init(&l);
    log_fill(&l, LINES);
    struct verify *v = verify_new(&none);
    verify_file(v, "log.000000000001");
    for (int i = 0; i < 5; i++)
        verify_line(v, l.lines[i], true);
    verify_line(v, slice_of(l.lines[5].ptr, 40), false);
    verify_file(v, "log");
    for (int i = 5; i < LINES; i++)
        verify_line(v, l.lines[i], true);
    verify_finish(v, &r);
    verify_free(v);
    CHECK_THAT(r.kind == VERIFY_INTACT, "%s", r.text);
    CHECK(r.files == 2 && r.torn == 1 && r.torn_at.line == 6 && r.records == LINES);
    CHECK_STR(r.torn_at.file, "log.000000000001");

    v = verify_new(&none);
    verify_file(v, "log");
    for (int i = 5; i < LINES; i++)
        verify_line(v, l.lines[i], true);
    verify_file(v, "log.000000000001");
    for (int i = 0; i < 5; i++)
        verify_line(v, l.lines[i], true);
    verify_finish(v, &r);
    verify_free(v);
    CHECK(r.kind == VERIFY_REORDERING && r.at.line == 1 && strstr(r.text, "order"));
    CHECK_STR(r.at.file, "log.000000000001");
    buf_done(&l.text);
}

TEST(a_missing_file_is_a_removal)
{
    struct log l;
    log_init(&l);
    log_fill(&l, LINES);
    const int order[] = {0, 1, 2, 7, 8, 9};
    struct verify_result r = check_order(&l, order, 6, NULL);
    CHECK(r.kind == VERIFY_REMOVAL && r.at.seq == 8 && strstr(r.text, "4 missing"));
    buf_done(&l.text);
}

TEST(names_of_rotated_files)
{
    uint64_t seq = 0;
    char *name = log_rotated_name("/var/log/d.jsonl", 42);
    CHECK_STR(name, "/var/log/d.jsonl.000000000042");
    CHECK(log_is_rotated_name("d.jsonl", name + 9, &seq) && seq == 42);
    free(name);
    name = log_rotated_name("d", 1234567890123456);
    CHECK(log_is_rotated_name("d", name, &seq) && seq == 1234567890123456);
    free(name);
    static const char *const bad[] = {"d",
                                      "d.",
                                      "d.1",
                                      "d.00000000004x",
                                      "d.0000000000042",
                                      "dx.000000000042",
                                      "d.000000000000",
                                      "d.torn-000000000042",
                                      "d.000000000042.gz"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_THAT(!log_is_rotated_name("d", bad[i], &seq), "%s", bad[i]);
    name = log_torn_name("d", 7);
    CHECK_STR(name, "d.torn-000000000007");
    CHECK(!log_is_rotated_name("d", name, &seq));
    free(name);
}

/* ---- Checkpoints ---- */

static struct slice
make_pem(int type, bool private_half, struct buf *out)
{
    EVP_PKEY *pkey = type == EVP_PKEY_ED25519 ? EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")
                                              : EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
    BIO *bio = BIO_new(BIO_s_mem());
    char *text;
    if (private_half)
        PEM_write_bio_PKCS8PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL);
    else
        PEM_write_bio_PUBKEY(bio, pkey);
    long len = BIO_get_mem_data(bio, &text);
    buf_append(out, text, (size_t)len);
    BIO_free(bio);
    EVP_PKEY_free(pkey);
    return buf_slice(out);
}

static struct checkpoint_key *
make_key(void)
{
    struct buf pem;
    struct err err = {0};
    buf_init(&pem, 4096);
    struct checkpoint_key *k =
        checkpoint_key_private(make_pem(EVP_PKEY_ED25519, true, &pem), "k.pem", &err);
    CHECK_THAT(k != NULL, "%s", err.text);
    buf_done(&pem);
    return k;
}

static void
add_checkpoint(struct log *l, const struct checkpoint_key *k)
{
    struct buf members;
    buf_init(&members, 1000);
    CHECK(checkpoint_members(k, &l->chain, &members));
    struct record r = {.event = RECORD_CHECKPOINT, .extra = buf_slice(&members)};
    log_add(l, &r);
    buf_done(&members);
    log_split(l);
}

TEST(signed_checkpoints_vouch)
{
    struct log l;
    struct checkpoint_key *k = make_key(), *other = make_key();
    log_init(&l);
    log_fill(&l, 5);
    add_checkpoint(&l, k);
    log_fill(&l, 3);
    struct verify_options o = {.key = k};
    struct verify_result r = check_all(&l, &o);
    CHECK_THAT(r.kind == VERIFY_INTACT, "%s", r.text);
    CHECK(r.checkpoints == 1 && r.vouched_seq == 5 && r.last_seq == 9);
    o.key = other;
    r = check_all(&l, &o);
    CHECK(r.kind == VERIFY_CHECKPOINT && r.at.line == 6 && r.at.seq == 6);
    r = check_all(&l, NULL);
    CHECK(r.kind == VERIFY_INTACT && r.checkpoints == 1 && r.vouched_seq == 0);
    checkpoint_key_free(k);
    checkpoint_key_free(other);
    buf_done(&l.text);
}

/* Somebody without the key edits a record and chains everything behind it anew. */
TEST(a_log_chained_anew_shows_at_the_checkpoint)
{
    struct log l, forged;
    struct checkpoint_key *k = make_key();
    log_init(&l);
    log_fill(&l, 5);
    add_checkpoint(&l, k);
    log_init(&forged);
    for (size_t i = 0; i < l.count; i++) {
        /* The draft is what stands between seq and prev, with the time in front. */
        char draft[2000];
        const char *line = l.lines[i].ptr, *behind = memchr(line + 1 + RECORD_TS_LEN + 1, ',', 100);
        size_t tail = l.lines[i].len - (size_t)(behind - line) - 75 - 74;
        snprintf(draft, sizeof draft, "%.*s%.*s", RECORD_TS_LEN, line + 1, (int)tail, behind);
        if (i == 2)
            memcpy(strstr(draft, "h2.example"), "h9", 2);
        CHECK(chain_append(&forged.chain, &forged.text, slice_str(draft)));
    }
    log_split(&forged);
    struct verify_options o = {.key = k};
    CHECK(check_all(&l, &o).kind == VERIFY_INTACT);
    struct verify_result r = check_all(&forged, &o);
    CHECK_THAT(r.kind == VERIFY_CHECKPOINT && r.at.seq == 6, "%s", r.text);
    CHECK(check_all(&forged, NULL).kind == VERIFY_CHECKPOINT);
    /* Without the checkpoint the forgery holds, and nothing vouches for it. */
    forged.count = 5;
    r = check_all(&forged, &o);
    CHECK(r.kind == VERIFY_INTACT && r.vouched_seq == 0);
    checkpoint_key_free(k);
    buf_done(&l.text);
    buf_done(&forged.text);
}

TEST(a_long_log_without_checkpoints_is_a_fault_where_a_key_is_given)
{
    static struct log l;
    struct checkpoint_key *k = make_key();
    struct verify_options o = {.key = k};
    log_init(&l);
    log_fill(&l, 2 * CHECKPOINT_RECORDS);
    CHECK(check_all(&l, &o).kind == VERIFY_INTACT);
    log_fill(&l, 1);
    CHECK(check_all(&l, &o).kind == VERIFY_CHECKPOINT);
    CHECK(check_all(&l, NULL).kind == VERIFY_INTACT);
    add_checkpoint(&l, k);
    CHECK(check_all(&l, &o).kind == VERIFY_INTACT);
    checkpoint_key_free(k);
    buf_done(&l.text);
}

TEST(unsigned_and_false_checkpoints)
{
    struct log l;
    struct checkpoint_key *k = make_key();
    struct verify_options o = {.key = k};
    log_init(&l);
    log_fill(&l, 5);
    add_checkpoint(&l, NULL);
    CHECK(check_all(&l, NULL).kind == VERIFY_INTACT && check_all(&l, NULL).checkpoints == 1);
    struct verify_result r = check_all(&l, &o);
    CHECK(r.kind == VERIFY_INTACT && r.vouched_seq == 0 && r.checkpoints == 0);
    static const char *const bad[] = {"\"a\":1", "\"head\":\"5:00\"", "\"head\":7",
                                      "\"head\":null,\"key\":\"x\""};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct record record = {.event = RECORD_CHECKPOINT, .extra = slice_str(bad[i])};
        struct buf kept;
        struct chain chain = l.chain;
        buf_init(&kept, 65536);
        buf_append_slice(&kept, buf_slice(&l.text));
        log_add(&l, &record);
        log_split(&l);
        r = check_all(&l, NULL);
        CHECK_THAT(r.kind == VERIFY_CHECKPOINT && r.at.seq == 7, "%s", bad[i]);
        buf_clear(&l.text);
        buf_append_slice(&l.text, buf_slice(&kept));
        l.chain = chain;
        buf_done(&kept);
    }
    struct chain empty;
    struct buf b;
    chain_init(&empty);
    buf_init(&b, 1000);
    CHECK(!checkpoint_members(k, &empty, &b));
    buf_done(&b);
    checkpoint_key_free(k);
    buf_done(&l.text);
}

TEST(checkpoints_in_ocsf)
{
    struct log l;
    struct checkpoint_key *k = make_key();
    struct buf members, draft;
    log_init(&l);
    log_fill(&l, 5);
    buf_init(&members, 1000);
    buf_init(&draft, RECORD_LINE_MAX);
    CHECK(checkpoint_members(k, &l.chain, &members));
    struct record r = {.event = RECORD_CHECKPOINT, .extra = buf_slice(&members)};
    CHECK(record_draft(&draft, RECORD_OCSF, &r) &&
          chain_append(&l.chain, &l.text, buf_slice(&draft)));
    log_split(&l);
    struct verify_options o = {.key = k};
    CHECK(check_all(&l, &o).vouched_seq == 5);
    buf_done(&members);
    buf_done(&draft);
    checkpoint_key_free(k);
    buf_done(&l.text);
}

TEST(keys_are_read_strictly)
{
    struct err err = {0};
    struct buf pem, public_pem;
    struct checkpoint_key *k;
    buf_init(&pem, 65536);
    buf_init(&public_pem, 65536);
    CHECK(!checkpoint_key_private(slice_str(""), "k", &err) &&
          !checkpoint_key_public(slice_str("x"), "k", &err));
    CHECK(!checkpoint_key_private(make_pem(EVP_PKEY_X25519, true, &pem), "k", &err) &&
          strstr(err.text, "Ed25519"));
    buf_clear(&pem);
    CHECK(!checkpoint_key_private(make_pem(EVP_PKEY_ED25519, false, &pem), "k", &err));
    k = checkpoint_key_public(buf_slice(&pem), "k", &err);
    CHECK(k != NULL);
    CHECK(checkpoint_key_write_public(k, &public_pem) &&
          slice_equal(buf_slice(&pem), buf_slice(&public_pem)));
    checkpoint_key_free(k);
    for (int i = 1; i < CHECKPOINT_KEYS_MAX; i++)
        make_pem(EVP_PKEY_ED25519, i % 2, &pem);
    k = checkpoint_key_public(buf_slice(&pem), "k", &err);
    CHECK(k != NULL);
    checkpoint_key_free(k);
    make_pem(EVP_PKEY_ED25519, false, &pem);
    CHECK(!checkpoint_key_public(buf_slice(&pem), "k", &err) && strstr(err.text, "more than"));
    buf_clear(&pem);
    make_pem(EVP_PKEY_ED25519, true, &pem);
    make_pem(EVP_PKEY_ED25519, true, &pem);
    CHECK(!checkpoint_key_private(buf_slice(&pem), "k", &err) &&
          strstr(err.text, "one private key"));
    buf_done(&pem);
    buf_done(&public_pem);
}
