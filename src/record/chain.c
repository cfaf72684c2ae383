/* The hash chain: a draft becomes a line that carries its number, the hash of the line before and
 * its own hash, so that an edit, a removal or a reordering breaks it at a place that can be named.
 * Drafts come from processes that may be taken over: what could break a line or claim a place in
 * the chain is refused here. Opens nothing. */
#include "sallyport/record/chain.h"

#include <string.h>

#include "sallyport/base/encoding.h"
#include "sallyport/base/octets.h"
#include "sallyport/record/record.h"

#define HEX_LEN (SHA256_HEX_SIZE - 1)
#define PREV_KEY ",\"prev\":\""
#define HASH_KEY ",\"hash\":\""
#define SEQ_KEY ",\"seq\":"
/* `,"hash":"…"` */
#define HASH_MEMBER_LEN (sizeof HASH_KEY - 1 + HEX_LEN + 1)
#define PREV_MEMBER_LEN (sizeof PREV_KEY - 1 + HEX_LEN + 1)
#define SEQ_MAX (UINT64_MAX - 1)

void
chain_init(struct chain *c)
{
    c->next_seq = 1;
    memset(c->prev, '0', HEX_LEN);
    c->prev[HEX_LEN] = '\0';
}

static bool
at_least(struct slice s, size_t at, const char *text)
{
    return slice_starts_with(slice_of(s.ptr + at, s.len - at), text);
}

/* A time, character for character: a quote inside would end the string and begin another member. */
static bool
has_ts(struct slice s)
{
    static const char form[] = "\"ts\":\"0000-00-00T00:00:00.000000Z\"";
    _Static_assert(sizeof form - 1 == RECORD_TS_LEN, "the form is that of a time");
    if (s.len < RECORD_TS_LEN)
        return false;
    for (size_t i = 0; i < RECORD_TS_LEN; i += OCTETS) {
        size_t at = i + OCTETS <= RECORD_TS_LEN ? i : RECORD_TS_LEN - OCTETS; /* the last eight overlap */
        octets c = octets_at(s.ptr + at), f = octets_at(form + at);
        if (octets_first(((f == '0') & octets_outside(c, '0', '9')) | ((f != '0') & (c != f))) < OCTETS)
            return false;
    }
    return true;
}

#define IS(name, text) ((name).len == sizeof(text) - 1 && memcmp((name).ptr, text, sizeof(text) - 1) == 0)

/* The chain's own member names; elsewhere in a line they would contradict it. */
static bool
is_chain_key(struct slice name)
{
    return IS(name, "\"ts\"") || IS(name, "\"seq\"") || IS(name, "\"prev\"") || IS(name, "\"hash\"");
}

/* What may stand between strings: numbers, literals, commas and colons. Words that only a reader who lost count of the quotes
 * would take for a member's name have letters that no literal has. */
static const bool in_gap[256] = {
    [' '] = true, ['+' ... '.'] = true, ['0' ... ':'] = true, ['E'] = true, ['a'] = true,
    ['e' ... 'f'] = true, ['l'] = true, ['n'] = true, ['r' ... 'u'] = true,
};

static size_t
skip_gap(struct slice s, size_t i)
{
    while (i < s.len && in_gap[(unsigned char)s.ptr[i]])
        i++;
    return i;
}

static bool
is_printable(char c)
{
    return c >= 0x20 && c <= 0x7e;
}

/* Past the closing quote of the string that opens at i, or 0: it has none, or holds what is not printable. */
static size_t
skip_string(struct slice s, size_t i, bool *ret_escaped)
{
    *ret_escaped = false;
    for (i++; (i += json_plain_run(slice_of(s.ptr + i, s.len - i))) < s.len; i += 2) {
        if (s.ptr[i] == '"')
            return i + 1;
        if (s.ptr[i] != '\\' || i + 1 == s.len || !is_printable(s.ptr[i + 1]))
            return 0;
        *ret_escaped = true;
    }
    return 0;
}

/* Past the string at i and, when it is a member's name, judged as one; 0: not fine. A name that is written with escapes, or
 * stands apart from its colon, is another way to say one that is refused. */
static size_t
pass_string(struct slice s, size_t i, unsigned *events)
{
    bool escaped;
    size_t end = skip_string(s, i, &escaped), colon = end;
    if (end == 0)
        return 0;
    while (colon < s.len && s.ptr[colon] == ' ')
        colon++;
    if (colon == s.len || s.ptr[colon] != ':')
        return end;
    struct slice name = slice_of(s.ptr + i, end - i);
    if (escaped || colon != end || is_chain_key(name))
        return 0;
    *events += IS(name, "\"event\"");
    return end;
}

bool
chain_members_are_sound(struct slice members, unsigned *ret_events)
{
    int depth = 0;
    *ret_events = 0;
    for (size_t i = 0; (i = skip_gap(members, i)) < members.len;) {
        char c = members.ptr[i];
        if (c == '"') {
            if ((i = pass_string(members, i, ret_events)) == 0)
                return false;
            continue;
        }
        bool opens = c == '{' || c == '[', closes = c == '}' || c == ']';
        if ((!opens && !closes) || (closes && depth == 0))
            return false;
        depth += opens ? 1 : -1;
        i++;
    }
    return depth == 0;
}

/* The time, then a comma: the number goes between the two, and must end there. */
bool
chain_draft_is_sound(struct slice draft, unsigned *ret_events)
{
    return draft.len <= RECORD_LINE_MAX && has_ts(draft) && draft.len > RECORD_TS_LEN &&
           draft.ptr[RECORD_TS_LEN] == ',' &&
           chain_members_are_sound(slice_of(draft.ptr + RECORD_TS_LEN, draft.len - RECORD_TS_LEN),
                                   ret_events);
}

/* Hash of the line as it reads without `,"hash":"…"`. */
static void
line_hash(struct slice before_hash, char out[SHA256_HEX_SIZE])
{
    unsigned char digest[SHA256_SIZE];
    sha256_two(before_hash, slice_of("}", 1), digest);
    hex_encode(digest, sizeof digest, out);
}

bool
chain_append(struct chain *c, struct buf *out, struct slice draft)
{
    unsigned events;
    return chain_draft_is_sound(draft, &events) && chain_append_sound(c, out, draft);
}

bool
chain_append_sound(struct chain *c, struct buf *out, struct slice draft)
{
    char seq[DECIMAL_MAX], hash[SHA256_HEX_SIZE];
    if (c->next_seq > SEQ_MAX)
        return false;
    size_t seq_len = decimal_encode(c->next_seq, seq);
    size_t len = 1 + draft.len + sizeof SEQ_KEY - 1 + seq_len + PREV_MEMBER_LEN + HASH_MEMBER_LEN + 1;
    if (len > RECORD_LINE_MAX)
        return false;
    char *line = buf_reserve(out, len + 1), *at = line;
    if (!line)
        return false;
    *at++ = '{';
    at = mempcpy(at, draft.ptr, RECORD_TS_LEN);
    at = mempcpy(at, SEQ_KEY, sizeof SEQ_KEY - 1);
    at = mempcpy(at, seq, seq_len);
    at = mempcpy(at, draft.ptr + RECORD_TS_LEN, draft.len - RECORD_TS_LEN);
    at = mempcpy(at, PREV_KEY, sizeof PREV_KEY - 1);
    at = mempcpy(at, c->prev, HEX_LEN);
    *at++ = '"';
    line_hash(slice_of(line, (size_t)(at - line)), hash);
    at = mempcpy(at, HASH_KEY, sizeof HASH_KEY - 1);
    at = mempcpy(at, hash, HEX_LEN);
    memcpy(at, "\"}\n", 3);
    buf_commit(out, len + 1);
    memcpy(c->prev, hash, sizeof hash);
    c->next_seq++;
    return true;
}

/* The value of a member that must stand at `at`: key, 64 digits, quote. */
static bool
read_hex_member(struct slice line, size_t at, const char *key, char ret[SHA256_HEX_SIZE])
{
    unsigned char ignored[SHA256_SIZE];
    size_t key_len = strlen(key);
    if (!at_least(line, at, key) || line.ptr[at + key_len + HEX_LEN] != '"')
        return false;
    struct slice hex = slice_of(line.ptr + at + key_len, HEX_LEN);
    if (!hex_decode(hex, ignored, sizeof ignored))
        return false;
    memcpy(ret, hex.ptr, HEX_LEN);
    ret[HEX_LEN] = '\0';
    return true;
}

bool
chain_read_line(struct slice line, uint64_t *ret_seq, char ret_prev[SHA256_HEX_SIZE],
                char ret_hash[SHA256_HEX_SIZE])
{
    char prev[SHA256_HEX_SIZE], hash[SHA256_HEX_SIZE];
    size_t seq_at = 1 + RECORD_TS_LEN + sizeof SEQ_KEY - 1, digits = 0;
    unsigned long long seq;
    if (line.len < seq_at + 1 + PREV_MEMBER_LEN + HASH_MEMBER_LEN + 1 || line.len > RECORD_LINE_MAX)
        return false;
    if (line.ptr[0] != '{' || line.ptr[line.len - 1] != '}' ||
        !has_ts(slice_of(line.ptr + 1, line.len - 1)) ||
        !at_least(line, 1 + RECORD_TS_LEN, SEQ_KEY))
        return false;
    while (line.ptr[seq_at + digits] >= '0' && line.ptr[seq_at + digits] <= '9')
        digits++; /* ends at the latest at the closing brace */
    if (!slice_parse_uint(slice_of(line.ptr + seq_at, digits), SEQ_MAX, &seq) || seq == 0 ||
        line.ptr[seq_at + digits] != ',')
        return false;
    size_t hash_at = line.len - 1 - HASH_MEMBER_LEN, prev_at = hash_at - PREV_MEMBER_LEN;
    if (!read_hex_member(line, prev_at, PREV_KEY, prev) ||
        !read_hex_member(line, hash_at, HASH_KEY, hash))
        return false;
    *ret_seq = seq;
    memcpy(ret_prev, prev, sizeof prev);
    memcpy(ret_hash, hash, sizeof hash);
    return true;
}

static bool
is_zeros(const char *hex)
{
    return strspn(hex, "0") == HEX_LEN;
}

enum chain_fault
chain_check_line(struct chain *c, struct slice line, bool first_of_all)
{
    uint64_t seq;
    char prev[SHA256_HEX_SIZE], hash[SHA256_HEX_SIZE], computed[SHA256_HEX_SIZE];
    if (!chain_read_line(line, &seq, prev, hash))
        return CHAIN_NOT_A_RECORD;
    line_hash(slice_of(line.ptr, line.len - 1 - HASH_MEMBER_LEN), computed);
    if (strcmp(hash, computed) != 0)
        return CHAIN_HASH;
    if (first_of_all) {
        if ((seq == 1) != is_zeros(prev))
            return CHAIN_PREV;
    } else if (seq != c->next_seq) {
        return CHAIN_SEQ;
    } else if (strcmp(prev, c->prev) != 0) {
        return CHAIN_PREV;
    }
    c->next_seq = seq + 1;
    memcpy(c->prev, hash, sizeof hash);
    return CHAIN_OK;
}

const char *
chain_fault_text(enum chain_fault f)
{
    switch (f) {
    case CHAIN_OK:
        return "the chain holds";
    case CHAIN_NOT_A_RECORD:
        return "the line is not a record";
    case CHAIN_HASH:
        return "the record's hash is not that of its bytes";
    case CHAIN_PREV:
        return "the record does not carry the hash of the one before";
    case CHAIN_SEQ:
        return "the record's number does not follow the one before";
    case CHAIN_CHECKPOINT:
        return "the checkpoint is not a true signature of the record before";
    }
    return "unknown fault";
}
