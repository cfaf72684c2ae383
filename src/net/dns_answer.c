/* Reading a DNS answer (RFC 1035 section 4, RFC 3596): bytes in, addresses out. The message comes from whoever could send
 * it; nothing in it is believed before it was held to the question and to the message's own length. Opens nothing, asks
 * nobody. What is ambiguous is no answer. */
#include <arpa/inet.h>
#include <string.h>

#include "sallyport/net/resolve.h"
#include "sallyport/net/resolve_ares.h"

#define HEADER_LEN 12
#define NAME_MAX_WIRE 255   /* RFC 1035 section 2.3.4 */
#define JUMPS_MAX 64        /* pointers of one name; half of what a name of the most labels could use */
#define CHAIN_MAX 16        /* CNAMEs followed */
/* Records looked at in one message. 70 addresses must be seen to be too many; a message of thousands is an attack on
 * whoever walks it once for each link of a chain. */
#define RECORDS_MAX 512
#define TTL_MAX 3600        /* an hour: longer ones are cut, so that a change of address arrives the same day */
#define TTL_NEGATIVE_MAX 60 /* "no such name" is often put right within minutes */

enum { TYPE_CNAME = 5, TYPE_SOA = 6, TYPE_OPT = 41, CLASS_IN = 1 };

/* A name in wire form, uncompressed and in lower case: comparing is memcmp, and a dot inside a label stays one. */
struct wire_name {
    size_t len;
    unsigned char bytes[NAME_MAX_WIRE];
};

struct record {
    size_t name_at;      /* where its owner's name begins */
    size_t data_at;
    uint16_t type, class, data_len;
    uint32_t ttl;
};

struct message {
    const unsigned char *bytes;
    size_t len;
    size_t at;           /* the cursor; never behind len */
    unsigned rcode;
    struct record answers[RECORDS_MAX];
    size_t answer_count;
    bool has_soa;
    struct record soa;
};

/* --- names ------------------------------------------------------------------------------------------------------- */

static unsigned char
lower(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? (unsigned char)(c + ('a' - 'A')) : c;
}

/* Expands the name at `at`; *ret_next is behind it. A pointer must lead before the label run that holds it (which RFC 1035
 * section 4.1.4 says: "a prior occurrence"), so that no chain of them can come back. */
static bool
name_expand(const unsigned char *msg, size_t len, size_t at, struct wire_name *ret, size_t *ret_next)
{
    size_t run = at, next = 0;
    int jumps = 0;
    ret->len = 0;
    for (;;) {
        if (at >= len)
            return false;
        unsigned char n = msg[at];
        if (n >= 0xc0) {
            if (len - at < 2)
                return false;
            size_t target = (size_t)(n & 0x3f) << 8 | msg[at + 1];
            if (jumps == 0)
                next = at + 2;
            if (target >= run || ++jumps > JUMPS_MAX)
                return false;
            at = run = target;
            continue;
        }
        /* 0x40 and 0x80 are label types that nobody uses. */
        if (n > 63 || len - at < (size_t)n + 1 || ret->len + n + 1 > sizeof ret->bytes)
            return false;
        ret->bytes[ret->len++] = n;
        for (size_t i = 1; i <= n; i++)
            ret->bytes[ret->len++] = lower(msg[at + i]);
        at += (size_t)n + 1;
        if (n == 0)
            break;
    }
    *ret_next = jumps > 0 ? next : at;
    return true;
}

static bool
name_from_text(const char *text, struct wire_name *ret)
{
    ret->len = 0;
    while (*text) {
        size_t n = strcspn(text, ".");
        if (n == 0 || n > 63 || ret->len + n + 2 > sizeof ret->bytes)
            return false;
        ret->bytes[ret->len++] = (unsigned char)n;
        for (size_t i = 0; i < n; i++)
            ret->bytes[ret->len++] = lower((unsigned char)text[i]);
        text += n;
        if (*text == '.' && *++text == '\0')
            return false; /* canonical names have no trailing dot */
    }
    ret->bytes[ret->len++] = 0;
    return ret->len > 1;
}

static bool
name_equal(const struct wire_name *a, const struct wire_name *b)
{
    return a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0;
}

/* Is `name` at or below `zone`? Only at a label's border. */
static bool
name_is_within(const struct wire_name *name, const struct wire_name *zone)
{
    for (size_t at = 0; at < name->len; at += (size_t)name->bytes[at] + 1) {
        size_t rest = name->len - at;
        if (rest == zone->len)
            return memcmp(name->bytes + at, zone->bytes, rest) == 0;
        if (rest < zone->len || name->bytes[at] == 0)
            return false;
    }
    return false;
}

/* --- the message ------------------------------------------------------------------------------------------------- */

static uint16_t
read_u16(const unsigned char *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t
read_u32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* The one question, which must be ours to the letter. */
static bool
read_question(struct message *m, const struct wire_name *name, int type)
{
    struct wire_name asked;
    if (!name_expand(m->bytes, m->len, m->at, &asked, &m->at) || m->len - m->at < 4)
        return false;
    bool ours = name_equal(&asked, name) && read_u16(m->bytes + m->at) == type &&
                read_u16(m->bytes + m->at + 2) == CLASS_IN;
    m->at += 4;
    return ours;
}

static bool
read_record(struct message *m, struct record *ret, struct wire_name *ret_name)
{
    ret->name_at = m->at;
    if (!name_expand(m->bytes, m->len, m->at, ret_name, &m->at) || m->len - m->at < 10)
        return false;
    const unsigned char *p = m->bytes + m->at;
    ret->type = read_u16(p);
    ret->class = read_u16(p + 2);
    ret->ttl = read_u32(p + 4);
    if (ret->ttl > INT32_MAX)
        ret->ttl = 0; /* RFC 2181 section 8 */
    ret->data_len = read_u16(p + 8);
    ret->data_at = m->at + 10;
    if (ret->data_len > m->len - ret->data_at)
        return false;
    m->at = ret->data_at + ret->data_len;
    return true;
}

/* All three sections, to the last byte: a count that promises more or less than there is makes the message a lie. */
static bool
read_sections(struct message *m)
{
    size_t answers = read_u16(m->bytes + 6), authority = read_u16(m->bytes + 8);
    size_t total = answers + authority + read_u16(m->bytes + 10);
    if (total > RECORDS_MAX)
        return false;
    for (size_t i = 0; i < total; i++) {
        struct record r;
        struct wire_name name;
        if (!read_record(m, &r, &name))
            return false;
        if (i < answers) {
            m->answers[m->answer_count++] = r;
        } else if (i < answers + authority && r.type == TYPE_SOA && r.class == CLASS_IN && !m->has_soa) {
            m->has_soa = true;
            m->soa = r;
        } else if (i >= answers + authority && r.type == TYPE_OPT && read_u32(m->bytes + r.data_at - 6) >> 24 != 0) {
            return false; /* the upper bits of an extended RCODE (RFC 6891 section 6.1.3): a failure after all */
        }
    }
    return m->at == m->len;
}

static bool
read_message(struct message *m, const struct wire_name *name, int type)
{
    if (m->len < HEADER_LEN || read_u16(m->bytes + 4) != 1)
        return false;
    unsigned flags = read_u16(m->bytes + 2);
    /* A response (0x8000), opcode QUERY (0x7800), not truncated (0x0200). */
    if ((flags & 0x8000) == 0 || (flags & 0x7a00) != 0)
        return false;
    m->rcode = flags & 0xf;
    if (m->rcode != 0 && m->rcode != 3)
        return false;
    m->at = HEADER_LEN;
    return read_question(m, name, type) && read_sections(m);
}

/* --- from records to addresses ----------------------------------------------------------------------------------- */

static bool
add_address(const struct message *m, const struct record *r, int type, struct answers *ret)
{
    size_t size = type == DNS_TYPE_A ? 4 : 16;
    if (r->data_len != size)
        return false;
    if (ret->count == RESOLVE_ANSWERS_MAX)
        return true; /* too many are too many; the guard sees 65 and refuses */
    struct addr *a = &ret->addrs[ret->count++];
    *a = (struct addr){.family = type == DNS_TYPE_A ? AF_INET : AF_INET6};
    memcpy(a->bytes, m->bytes + r->data_at, size);
    return true;
}

struct link {
    bool is_alias;
    struct wire_name target;
};

/* Everything the message says about one name: addresses, or where else to look. Both, or two different places, are
 * ambiguous (RFC 1034 section 3.6.2). */
static bool
read_link(const struct message *m, const struct wire_name *name, int type, struct dns_answer *ret, struct link *link)
{
    link->is_alias = false;
    for (size_t i = 0; i < m->answer_count; i++) {
        const struct record *r = &m->answers[i];
        struct wire_name owner, target;
        size_t end;
        if (r->class != CLASS_IN || (r->type != type && r->type != TYPE_CNAME) ||
            !name_expand(m->bytes, m->len, r->name_at, &owner, &end) || !name_equal(&owner, name))
            continue;
        if (r->ttl < ret->ttl_s)
            ret->ttl_s = r->ttl;
        if (r->type == type) {
            if (!add_address(m, r, type, &ret->answers))
                return false;
            continue;
        }
        if (!name_expand(m->bytes, m->len, r->data_at, &target, &end) || end != r->data_at + r->data_len)
            return false;
        if (link->is_alias && !name_equal(&link->target, &target))
            return false;
        link->is_alias = true;
        link->target = target;
    }
    return !(link->is_alias && ret->answers.count > 0);
}

/* How long "there is none" holds (RFC 2308 section 5): the SOA's, if there is one that may speak for the name. */
static bool
negative_ttl(const struct message *m, const struct wire_name *name, uint32_t *ret_ttl)
{
    struct wire_name zone, ignored;
    size_t at, end = m->soa.data_at + m->soa.data_len;
    *ret_ttl = 0;
    if (!m->has_soa)
        return true;
    if (!name_expand(m->bytes, m->len, m->soa.name_at, &zone, &at) ||
        !name_expand(m->bytes, m->len, m->soa.data_at, &ignored, &at) ||
        !name_expand(m->bytes, m->len, at, &ignored, &at) || at > end || end - at != 20)
        return false;
    uint32_t minimum = read_u32(m->bytes + end - 4);
    if (minimum > INT32_MAX)
        minimum = 0;
    if (name_is_within(name, &zone))
        *ret_ttl = minimum < m->soa.ttl ? minimum : m->soa.ttl;
    return true;
}

static bool
read_chain(const struct message *m, struct wire_name name, int type, struct dns_answer *ret)
{
    struct link link;
    for (int hops = 0;; hops++) {
        if (!read_link(m, &name, type, ret, &link))
            return false;
        if (!link.is_alias)
            break;
        if (hops == CHAIN_MAX)
            return false;
        name = link.target;
    }
    if (ret->answers.count > 0)
        return m->rcode == 0; /* "no such name", and its addresses */
    uint32_t ttl;
    if (!negative_ttl(m, &name, &ttl))
        return false;
    if (ttl > TTL_NEGATIVE_MAX)
        ttl = TTL_NEGATIVE_MAX;
    if (ttl < ret->ttl_s)
        ret->ttl_s = ttl;
    ret->negative = true;
    return true;
}

bool
dns_answer_parse(const unsigned char *msg, size_t len, const char *name, int type, struct dns_answer *ret)
{
    struct wire_name asked;
    struct message m = {.bytes = msg, .len = len};
    struct dns_answer answer = {.ttl_s = TTL_MAX};
    if ((type != DNS_TYPE_A && type != DNS_TYPE_AAAA) || !name_from_text(name, &asked))
        return false;
    if (!read_message(&m, &asked, type) || !read_chain(&m, asked, type, &answer))
        return false;
    *ret = answer;
    return true;
}
