/* The address guard: every range of the registries with its edges, what an address embeds, who may open what, and the
 * order of endpoints. */
#include "sallyport/policy/guard.h"

#include <arpa/inet.h>

#include "unit/policies.h"

static struct addr
addr(const char *text)
{
    struct addr a = {.family = 0};
    CHECK_THAT(addr_parse(slice_str(text), &a), "%s", text);
    return a;
}

static struct cidr
cidr(const char *text)
{
    struct cidr c = {.bits = 0};
    CHECK_THAT(cidr_parse(slice_str(text), &c), "%s", text);
    return c;
}

static struct target
target(const char *host, uint16_t port)
{
    struct target t = {.port = port};
    CHECK_THAT(host_parse(slice_str(host), &t.host), "%s", host);
    return t;
}

static enum reason
judge(const struct guard *g, const struct policy *p, const char *host, uint16_t port, const char *const *answers, size_t count)
{
    struct addr list[128];
    struct target t = target(host, port);
    struct endpoints *e = NULL;
    for (size_t i = 0; i < count; i++)
        list[i] = addr(answers[i]);
    enum reason r = guard_judge(g, p, &t, list, count, &e);
    CHECK((r == REASON_OK) == (e != NULL));
    endpoints_free(e);
    return r;
}

static bool
open_to(const struct guard *g, const char *answer)
{
    return judge(g, NULL, "a.example.com", 443, &answer, 1) == REASON_OK;
}

static struct guard *
guard_with(const char *const *allow, const char *const *deny)
{
    struct cidr a[8], d[8];
    struct guard_options o = {.allow_addresses = a, .deny_addresses = d};
    for (; allow && allow[o.allow_count]; o.allow_count++)
        a[o.allow_count] = cidr(allow[o.allow_count]);
    for (; deny && deny[o.deny_count]; o.deny_count++)
        d[o.deny_count] = cidr(deny[o.deny_count]);
    return guard_new(&o);
}

static void
check_edge(const json_t *line)
{
    struct addr a = addr(member(line, "address"));
    bool open = strcmp(member(line, "expect"), "allow") == 0;
    CHECK_THAT(guard_address_is_public(&a) == open, "%s: %s", member(line, "address"), member(line, "note"));
    CHECK_THAT((guard_address_name(&a) == NULL) == open, "%s", member(line, "address"));
}

TEST(edges_of_all_ranges)
{
    each_vector("tests/vectors/ssrf-edges.jsonl", check_edge);
}

static void
last_of(const struct cidr *c, struct addr *ret)
{
    size_t bits = c->base.family == AF_INET ? 32 : 128;
    *ret = c->base;
    for (size_t i = c->bits; i < bits; i++)
        ret->bytes[i / 8] |= (uint8_t)(0x80 >> (i % 8));
}

/* First, last and (for IPv4) mapped of each prefix of the list that the table was made from. */
static void
check_prefix(const json_t *line)
{
    struct cidr c = cidr(member(line, "prefix"));
    struct addr ends[2] = {c.base};
    last_of(&c, &ends[1]);
    for (size_t i = 0; i < 2; i++) {
        CHECK_THAT(!guard_address_is_public(&ends[i]), "%s", member(line, "prefix"));
        if (c.base.family != AF_INET)
            continue;
        struct addr mapped = {.family = AF_INET6, .bytes = {[10] = 0xff, [11] = 0xff}}, nat64 = {.family = AF_INET6, .bytes = {0, 0x64, 0xff, 0x9b}};
        memcpy(mapped.bytes + 12, ends[i].bytes, 4);
        memcpy(nat64.bytes + 12, ends[i].bytes, 4);
        CHECK_THAT(!guard_address_is_public(&mapped) && !guard_address_is_public(&nat64), "%s", member(line, "prefix"));
    }
}

TEST(every_prefix_in_every_dress)
{
    each_vector("tests/vectors/ssrf-prefixes.jsonl", check_prefix);
}

/* Opened with its range: metadata stays closed, the rest of the range opens. With its own entry it opens. */
static void
check_metadata(const json_t *line)
{
    const char *prefix = member(line, "prefix");
    char text[64];
    snprintf(text, sizeof text, "%.*s", (int)strcspn(prefix, "/"), prefix);
    const char *const everything[] = {"0.0.0.0/0", "::/0", NULL}, *const itself[] = {prefix, NULL};
    struct guard *wide = guard_with(everything, NULL), *exact = guard_with(itself, NULL);
    bool metadata = json_is_true(json_object_get(line, "metadata"));
    if (metadata) {
        CHECK_THAT(!open_to(wide, text), "%s", text);
        CHECK_THAT(open_to(exact, text), "%s", text);
    }
    guard_unref(wide);
    guard_unref(exact);
}

TEST(metadata_needs_its_own_entry)
{
    each_vector("tests/vectors/ssrf-prefixes.jsonl", check_metadata);
}

TEST(ranges_open_and_denials_win)
{
    const char *const allow[] = {"10.0.0.0/8", "127.0.0.0/8", "fd00::/8", "64:ff9b::/96", NULL}, *const deny[] = {"10.9.0.0/16", "8.8.8.8", NULL};
    struct guard *g = guard_with(allow, deny);
    CHECK(open_to(g, "10.1.2.3") && open_to(g, "127.0.0.2") && open_to(g, "fd00::1") && open_to(g, "::ffff:10.1.2.3"));
    CHECK(!open_to(g, "10.9.1.1") && !open_to(g, "::ffff:10.9.1.1") && !open_to(g, "8.8.8.8") && !open_to(g, "::ffff:8.8.8.8"));
    CHECK(!open_to(g, "192.168.0.1") && !open_to(g, "172.16.0.1") && !open_to(g, "::1"));
    /* An opened NAT64 prefix leads to public IPv4 and to opened ranges, and nowhere else. */
    CHECK(open_to(g, "64:ff9b::101:101") && open_to(g, "64:ff9b::a01:203"));
    CHECK(!open_to(g, "64:ff9b::c0a8:1") && !open_to(g, "64:ff9b::a9fe:a9fe") && !open_to(g, "64:ff9b::808:808") && !open_to(g, "64:ff9b::a09:101"));
    CHECK(!open_to(g, "0.0.0.0") && !open_to(g, "::"));
    guard_unref(g);
    const char *const everything[] = {"0.0.0.0/0", "::/0", "0.0.0.0", "::", NULL};
    g = guard_with(everything, NULL);
    CHECK(!open_to(g, "0.0.0.0") && !open_to(g, "::") && !open_to(g, "::ffff:0.0.0.0")); /* connects to this host */
    CHECK(!open_to(g, "2002:a9fe:a9fe::1") && !open_to(g, "::a9fe:a9fe") && !open_to(g, "2600::5efe:169.254.169.254"));
    guard_unref(g);
}

TEST(own_addresses_need_their_own_entry)
{
    struct addr own[] = {addr("127.0.0.1"), addr("::1"), addr("203.0.114.9"), addr("10.0.0.5"), addr("2600::53")};
    struct cidr ranges[] = {cidr("127.0.0.0/8"), cidr("10.0.0.0/8")}, exact[] = {cidr("127.0.0.1"), cidr("10.0.0.5/32")};
    struct guard_options o = {.own = own, .own_count = 5, .allow_addresses = ranges, .allow_count = 2};
    struct guard *g = guard_new(&o);
    CHECK(!open_to(g, "127.0.0.1") && !open_to(g, "::1") && !open_to(g, "203.0.114.9") && !open_to(g, "10.0.0.5") && !open_to(g, "2600::53"));
    CHECK(!open_to(g, "::ffff:127.0.0.1") && !open_to(g, "::ffff:203.0.114.9"));
    CHECK(open_to(g, "127.0.0.2") && open_to(g, "10.0.0.6") && open_to(g, "203.0.114.10"));
    CHECK(guard_explain(g, NULL, NULL, &own[2]));
    guard_unref(g);
    o.allow_addresses = exact;
    g = guard_new(&o);
    CHECK(open_to(g, "127.0.0.1") && open_to(g, "10.0.0.5") && open_to(g, "::ffff:127.0.0.1"));
    CHECK(!open_to(g, "127.0.0.2") && !open_to(g, "203.0.114.9"));
    guard_unref(g);
}

static enum reason
judge_port(const struct guard *g, const char *answer, uint16_t port)
{
    return judge(g, NULL, "a.example.com", port, &answer, 1);
}

TEST(own_listeners_are_never_dialled)
{
    struct sockaddr_storage sockets[4];
    socklen_t len;
    struct addr own[] = {addr("127.0.0.1"), addr("10.0.0.5")};
    struct cidr all[] = {cidr("127.0.0.1"), cidr("127.0.0.0/8"), cidr("10.0.0.5"), cidr("10.0.0.6"), cidr("64:ff9b::/96")};
    CHECK(sockaddr_parse(slice_str("127.0.0.1:3128"), 0, &sockets[0], &len) && sockaddr_parse(slice_str("0.0.0.0:3129"), 0, &sockets[1], &len) &&
          sockaddr_parse(slice_str("[::]:3130"), 0, &sockets[2], &len));
    memset(&sockets[3], 0, sizeof sockets[3]);
    sockets[3].ss_family = AF_UNIX;
    struct guard_options o = {.own = own, .own_count = 2, .allow_addresses = all, .allow_count = 5, .listeners = sockets, .listener_count = 4};
    struct guard *g = guard_new(&o);
    CHECK(judge_port(g, "127.0.0.1", 3128) == REASON_ADDRESS_NOT_ALLOWED);
    CHECK(judge_port(g, "::ffff:127.0.0.1", 3128) == REASON_ADDRESS_NOT_ALLOWED);
    CHECK(judge_port(g, "64:ff9b::7f00:1", 3128) == REASON_ADDRESS_NOT_ALLOWED);
    CHECK(judge_port(g, "127.0.0.1", 443) == REASON_OK);
    CHECK(judge_port(g, "127.0.0.2", 3128) == REASON_OK);
    static const uint16_t wildcards[] = {3129, 3130};
    for (size_t i = 0; i < 2; i++) {
        CHECK(judge_port(g, "127.0.0.1", wildcards[i]) == REASON_ADDRESS_NOT_ALLOWED);
        CHECK(judge_port(g, "127.0.0.2", wildcards[i]) == REASON_ADDRESS_NOT_ALLOWED);
        CHECK(judge_port(g, "10.0.0.5", wildcards[i]) == REASON_ADDRESS_NOT_ALLOWED);
        CHECK(judge_port(g, "10.0.0.6", wildcards[i]) == REASON_OK);
    }
    guard_unref(g);
}

TEST(one_forbidden_answer_refuses_the_name)
{
    static const char *const mixed[] = {"8.8.8.8", "2606:4700::1", "10.0.0.1"}, *const good[] = {"8.8.8.8", "2606:4700::1"};
    struct guard *g = guard_with(NULL, NULL);
    CHECK(judge(g, NULL, "a.example.com", 443, mixed, 3) == REASON_ADDRESS_NOT_ALLOWED);
    CHECK(judge(g, NULL, "a.example.com", 443, good, 2) == REASON_OK);
    CHECK(judge(g, NULL, "a.example.com", 443, good, 0) == REASON_DNS_FAILURE);
    const char *many[GUARD_ANSWERS_MAX + 1];
    for (size_t i = 0; i < GUARD_ANSWERS_MAX + 1; i++)
        many[i] = "8.8.8.8";
    CHECK(judge(g, NULL, "a.example.com", 443, many, GUARD_ANSWERS_MAX) == REASON_OK);
    CHECK(judge(g, NULL, "a.example.com", 443, many, GUARD_ANSWERS_MAX + 1) == REASON_ADDRESS_NOT_ALLOWED);
    struct addr odd = {.family = AF_UNIX};
    struct target t = target("a.example.com", 443);
    struct endpoints *e = NULL;
    CHECK(guard_judge(g, NULL, &t, &odd, 1, &e) == REASON_ADDRESS_NOT_ALLOWED && !e);
    t.port = 0;
    odd = addr("8.8.8.8");
    CHECK(guard_judge(g, NULL, &t, &odd, 1, &e) == REASON_ADDRESS_NOT_ALLOWED && !e);
    guard_unref(g);
}

/* RFC 8305 section 4, and what is dialled is what was judged: the IPv4 form of a mapped answer, each address once. */
TEST(endpoints_are_interleaved_canonical_and_distinct)
{
    static const char *const answers[] = {"8.8.8.8", "8.8.4.4", "2606:4700::1", "::ffff:1.1.1.1", "2606:4700::2", "1.1.1.1", "2606:4700::3", "2606:4700::4"};
    static const char *const wanted[] = {"2606:4700::1", "8.8.8.8", "2606:4700::2", "8.8.4.4", "2606:4700::3", "1.1.1.1", "2606:4700::4"};
    struct guard *g = guard_with(NULL, NULL);
    struct addr list[8];
    struct target t = target("a.example.com", 8443);
    struct endpoints *e = NULL;
    for (size_t i = 0; i < 8; i++)
        list[i] = addr(answers[i]);
    CHECK(guard_judge(g, NULL, &t, list, 8, &e) == REASON_OK);
    CHECK(endpoints_count(e) == 7 && !endpoints_at(e, 7));
    for (size_t i = 0; i < 7; i++) {
        char text[SOCKADDR_TEXT_SIZE], full[SOCKADDR_TEXT_SIZE];
        socklen_t len;
        const struct sockaddr *sa = endpoint_sockaddr(endpoints_at(e, i), &len);
        sockaddr_format(sa, text);
        snprintf(full, sizeof full, strchr(wanted[i], ':') ? "[%s]:8443" : "%s:8443", wanted[i]);
        CHECK_STR(text, full);
        CHECK(len == (sa->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)));
        struct addr a = endpoint_addr(endpoints_at(e, i)), b = addr(wanted[i]);
        CHECK(addr_equal(&a, &b));
    }
    endpoints_free(e);
    endpoints_free(NULL);
    guard_unref(g);
}

static struct policy *
private_policy(const char *host, const char *addresses, const struct cidr *delegable, size_t count)
{
    char text[512];
    struct policy_context_options o = {.delegable_addresses = delegable, .delegable_address_count = count};
    snprintf(text, sizeof text, "{\"private_addresses\": [{\"host\": \"%s\", \"addresses\": [%s]}]}", host, addresses);
    return compile_in(context_with(&o), text, POLICY_FILE, NULL);
}

TEST(private_addresses_open_what_is_delegated_for_their_host)
{
    struct cidr delegable[] = {cidr("10.2.1.0/24"), cidr("169.254.0.0/16"), cidr("169.254.169.254")};
    struct guard_options o = {.delegable_addresses = delegable, .delegable_count = 3};
    struct guard *g = guard_new(&o);
    struct policy *p = private_policy("*.db.example.com", "\"10.2.0.0/16\", \"169.254.169.254\", \"169.254.0.0/16\", \"192.168.0.0/16\"", delegable, 3);
    const char *inside = "10.2.1.7", *outside = "10.2.2.7", *undelegated = "192.168.0.1", *metadata = "169.254.169.254", *mapped = "::ffff:10.2.1.7", *link = "169.254.7.7";
    CHECK(judge(g, p, "a.db.example.com", 5432, &inside, 1) == REASON_OK);
    CHECK(judge(g, p, "a.db.example.com", 5432, &mapped, 1) == REASON_OK);
    CHECK(judge(g, p, "a.db.example.com", 5432, &link, 1) == REASON_OK);
    CHECK(judge(g, p, "db.example.com", 5432, &inside, 1) == REASON_ADDRESS_NOT_ALLOWED);
    CHECK(judge(g, p, "other.example.com", 5432, &inside, 1) == REASON_ADDRESS_NOT_ALLOWED);
    CHECK(judge(g, p, "a.db.example.com", 5432, &outside, 1) == REASON_ADDRESS_NOT_ALLOWED);
    CHECK(judge(g, p, "a.db.example.com", 5432, &undelegated, 1) == REASON_ADDRESS_NOT_ALLOWED);
    CHECK(judge(g, p, "a.db.example.com", 5432, &metadata, 1) == REASON_ADDRESS_NOT_ALLOWED);
    CHECK(judge(g, NULL, "a.db.example.com", 5432, &inside, 1) == REASON_ADDRESS_NOT_ALLOWED);
    policy_unref(p);
    guard_unref(g);
    /* Without a delegation nothing opens, whatever the policy says. */
    o.delegable_count = 0;
    g = guard_new(&o);
    p = private_policy("a.db.example.com", "\"0.0.0.0/0\"", NULL, 0);
    CHECK(judge(g, p, "a.db.example.com", 5432, &inside, 1) == REASON_ADDRESS_NOT_ALLOWED);
    policy_unref(p);
    guard_unref(g);
}

TEST(deny_beats_private_addresses)
{
    struct cidr delegable[] = {cidr("10.0.0.0/8")}, deny[] = {cidr("10.2.1.7")};
    struct guard_options o = {.delegable_addresses = delegable, .delegable_count = 1, .deny_addresses = deny, .deny_count = 1};
    struct guard *g = guard_new(&o);
    struct policy *p = private_policy("a.db.example.com", "\"10.2.0.0/16\"", delegable, 1);
    const char *denied = "10.2.1.7", *open = "10.2.1.8";
    CHECK(judge(g, p, "a.db.example.com", 5432, &denied, 1) == REASON_ADDRESS_NOT_ALLOWED);
    CHECK(judge(g, p, "a.db.example.com", 5432, &open, 1) == REASON_OK);
    policy_unref(p);
    guard_unref(g);
}

TEST(the_operators_own_endpoint_is_exempt)
{
    struct sockaddr_storage sa;
    socklen_t len, got;
    CHECK(sockaddr_parse(slice_str("10.0.0.1:3128"), 0, &sa, &len));
    struct endpoints *e = guard_operator_endpoint(&sa, len);
    CHECK(endpoints_count(e) == 1 && endpoint_sockaddr(endpoints_at(e, 0), &got) && got == len);
    endpoints_free(e);
}

TEST(explanations)
{
    struct guard *g = guard_with(NULL, NULL);
    static const struct { const char *address, *word; } rows[] = {
        {"10.0.0.1", "private use"}, {"127.0.0.1", "loopback"}, {"169.254.169.254", "metadata"}, {"255.255.255.255", "broadcast"}, {"::1", "loopback"}, {"4000::1", "2000::/3"},
        {"::ffff:10.0.0.1", "private use"}, {"2600::5efe:10.0.0.1", "private use"}, {"100.64.0.1", "shared"}, {"0.0.0.0", "unspecified"}, {"224.0.0.1", "multicast"}, {"ff02::1", "multicast"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct addr a = addr(rows[i].address);
        const char *why = guard_explain(g, NULL, NULL, &a);
        CHECK_THAT(why && strstr(why, rows[i].word), "%s: %s", rows[i].address, why ? why : "open");
    }
    struct addr open = addr("8.8.8.8");
    CHECK(!guard_explain(g, NULL, NULL, &open));
    guard_unref(guard_ref(g));
    guard_unref(g);
}
