/* The configuration table and its reader. A new setting is a row here, a member in proxy/settings.h, and nothing else.
 * Owned by the supervisor; the other roles read the same text again from the sealed bundle. Opens no file. */
#include "sallyport/process/config.h"

#include <limits.h>
#include <stddef.h>

#include "sallyport/base/mem.h"
#include "sallyport/http/target.h"
#include "sallyport/proxy/shared.h"

enum config_type {
    CONFIG_TEXT = 1,   /* string or null */
    CONFIG_PATH,       /* string or null, made to stand on the file's folder */
    CONFIG_NAME,       /* string or null, by config_name_ok */
    CONFIG_BOOL,
    CONFIG_INT,
    CONFIG_WORD,       /* one of words; the enum's value is the index */
    CONFIG_TEXTS,      /* array of strings */
    CONFIG_CIDRS,
    CONFIG_ADDRESSES,  /* array of "address[:port]" */
    CONFIG_PORTS,
    CONFIG_OVERRIDES,  /* upstream.hosts */
    CONFIG_LISTENERS,
    CONFIG_LATER,      /* null, until there is more */
};

#define NO_RELOAD 1u /* only a restart changes it */
#define FLAG_ONLY 2u /* set by the command line, unknown in a file */

struct config_row {
    const char *path;
    enum config_type type;
    size_t offset;
    size_t count_offset;      /* CONFIG_PORTS */
    const char *fallback;     /* as JSON */
    unsigned flags;
    int64_t min, max;         /* CONFIG_INT */
    const char *const *words; /* CONFIG_WORD, NULL-terminated */
    const char *doc;
};

static const char *const embedded_words[] = {"off", "limited", "any", NULL};
static const char *const inspect_words[] = {"off", "listed", "all", NULL};
static const char *const ech_words[] = {"outer", "refuse", NULL};
static const char *const format_words[] = {"jsonl", "ocsf", NULL};
/* Durability begins at 1: zero is nobody's. */
static const char *const durability_words[] = {"", "buffered", "written", "synced", NULL};
static const char *const kind_words[] = {"proxy", "transparent", "dns", "watch", NULL};

#define AT(member) .offset = offsetof(struct settings, member)
#define WHOLE_NUMBER (INT64_C(1) << 53)

static const struct config_row rows[] = {
    {"listen", CONFIG_LISTENERS, AT(listeners), .fallback = "[]", .flags = NO_RELOAD,
     .doc = "where clients come in: name, address or fd, kind, tls, proxy_protocol, token_file"},
    {"workers", CONFIG_INT, AT(workers), .fallback = "0", .flags = NO_RELOAD, .max = SHARED_WORKERS_MAX,
     .doc = "worker processes; 0 is one a core"},
    {"user", CONFIG_TEXT, AT(user), .fallback = "\"nobody\"", .flags = NO_RELOAD,
     .doc = "who the other processes become when started as root; null stays"},
    {"auth.keys", CONFIG_PATH, AT(keys_path), .fallback = "\"certs/jwks.json\"", .doc = "JWKS of the issuers' public keys"},
    {"auth.issuer", CONFIG_TEXT, AT(issuer), .fallback = "null", .doc = "the iss that tokens must have; null: any"},
    {"auth.audience", CONFIG_TEXT, AT(audience), .fallback = "\"sallyport\"", .doc = "the aud that tokens must have; null: any"},
    {"auth.leeway_s", CONFIG_INT, AT(leeway_s), .fallback = "30", .max = 3600, .doc = "clock difference that is forgiven"},
    {"auth.max_lifetime_s", CONFIG_INT, AT(max_lifetime_s), .fallback = "86400", .min = 1, .max = WHOLE_NUMBER,
     .doc = "longest exp - iat of a token"},
    {"auth.revoked", CONFIG_PATH, AT(revoked_path), .fallback = "\"revoked.json\"",
     .doc = "revocation list; null or no such file: empty"},
    {"auth.embedded_policies", CONFIG_WORD, AT(embedded), .fallback = "\"limited\"", .words = embedded_words,
     .doc = "what policies tokens may carry themselves"},
    {"auth.allow_hmac", CONFIG_BOOL, AT(allow_hmac), .fallback = "false", .doc = "accept HS256 keys in auth.keys"},
    {"policies", CONFIG_PATH, AT(policies_dir), .fallback = "\"policies\"", .doc = "folder of policies, NAME.json each"},
    {"policy_file", CONFIG_PATH, AT(policy_file), .fallback = "null", .flags = FLAG_ONLY, .doc = "one policy for everybody"},
    {"default_policy", CONFIG_NAME, AT(default_policy), .fallback = "null", .doc = "for tokens that name and carry none"},
    {"registries", CONFIG_PATH, AT(registries_path), .fallback = "\"policies/registries.json\"", .doc = "hosts of package managers, and what reads them"},
    {"platform_hosts", CONFIG_TEXTS, AT(platform_hosts), .fallback = "[]", .doc = "host entries that every limited policy opens"},
    {"blocked_hosts", CONFIG_TEXTS, AT(blocked_hosts), .fallback = "[]", .doc = "host entries that no policy opens"},
    {"default_ports", CONFIG_PORTS, AT(default_ports), offsetof(struct settings, default_port_count), .fallback = "[80, 443]",
     .doc = "what an entry without a port opens"},
    {"tls_ports", CONFIG_PORTS, AT(tls_ports), offsetof(struct settings, tls_port_count), .fallback = "[443]",
     .doc = "tunnels here must begin with a TLS hello"},
    {"plain_ports", CONFIG_PORTS, AT(plain_ports), offsetof(struct settings, plain_port_count), .fallback = "[80]",
     .doc = "tunnels here must begin with an HTTP request"},
    {"inspect.mode", CONFIG_WORD, AT(inspect), .fallback = "\"off\"", .words = inspect_words, .doc = "the ceiling of inspection"},
    {"inspect.ca", CONFIG_PATH, AT(ca_dir), .fallback = "\"certs/ca\"", .doc = "folder of the inspection CA"},
    {"inspect.passthrough", CONFIG_TEXTS, AT(passthrough), .fallback = "[]", .doc = "host entries that are never inspected"},
    {"inspect.ech", CONFIG_WORD, AT(ech_refuse), .fallback = "\"outer\"", .words = ech_words,
     .doc = "encrypted hellos: compare the outer name, or refuse"},
    {"inspect.deny_in_tunnel", CONFIG_BOOL, AT(deny_in_tunnel), .fallback = "false", .doc = "say refusals inside an inspected tunnel"},
    {"upstream.ca_file", CONFIG_PATH, AT(upstream_ca_file), .fallback = "null", .doc = "roots for upstream TLS; null: the system's"},
    {"upstream.hosts", CONFIG_OVERRIDES, AT(overrides), .fallback = "{}", .doc = "addresses of names, instead of DNS"},
    {"upstream.dns_servers", CONFIG_ADDRESSES, AT(dns_servers), .fallback = "[]", .doc = "address[:port]; empty: those of resolv.conf"},
    {"upstream.allow_addresses", CONFIG_CIDRS, AT(allow_addresses), .fallback = "[]", .doc = "opened past the address guard"},
    {"upstream.deny_addresses", CONFIG_CIDRS, AT(deny_addresses), .fallback = "[]", .doc = "closed whatever opens them"},
    {"upstream.delegable_addresses", CONFIG_CIDRS, AT(delegable_addresses), .fallback = "[]",
     .doc = "what private_addresses of a policy may open"},
    {"upstream.dns_timeout_ms", CONFIG_INT, AT(dns_timeout_ms), .fallback = "2000", .min = 10, .max = 60000, .doc = "for a whole lookup"},
    {"upstream.connect_timeout_ms", CONFIG_INT, AT(connect_timeout_ms), .fallback = "10000", .min = 10, .max = 300000,
     .doc = "for all attempts to connect"},
    {"upstream.parent", CONFIG_TEXT, AT(parent_url), .fallback = "null", .doc = "URL of a proxy that everything goes through"},
    {"upstream.parent_token_file", CONFIG_PATH, AT(parent_token_file), .fallback = "null", .doc = "the credential for it"},
    {"record.path", CONFIG_PATH, AT(record_path), .fallback = "\"decisions.jsonl\"", .flags = NO_RELOAD, .doc = "the decision log"},
    {"record.format", CONFIG_WORD, AT(record_format), .fallback = "\"jsonl\"", .words = format_words, .doc = "form of its lines"},
    {"record.durability", CONFIG_WORD, AT(durability), .fallback = "\"written\"", .words = durability_words,
     .doc = "what must have happened to a record before a byte goes upstream"},
    {"record.rotate_bytes", CONFIG_INT, AT(rotate_bytes), .fallback = "0", .max = WHOLE_NUMBER, .doc = "size of a file; 0: never rotate"},
    {"record.reserve_bytes", CONFIG_INT, AT(reserve_bytes), .fallback = "65536", .max = 1 << 30,
     .doc = "disk space kept for the records that close what is open"},
    {"record.checkpoint_key", CONFIG_PATH, AT(checkpoint_key_path), .fallback = "null", .doc = "Ed25519 private key (PEM) that signs checkpoints"},
    {"record.query", CONFIG_BOOL, AT(record_query), .fallback = "false", .doc = "write the query part of paths too"},
    {"admin.socket", CONFIG_PATH, AT(admin_socket), .fallback = "\"sallyport.sock\"", .doc = "unix socket with everything; null: none"},
    {"admin.address", CONFIG_TEXT, AT(admin_address), .fallback = "null", .doc = "address:port with health and metrics only"},
    {"vault", CONFIG_LATER, AT(vault), .fallback = "null", .doc = "credential vault"},
    {"shared_state", CONFIG_LATER, AT(shared_state), .fallback = "null", .doc = "state shared between hosts"},
    {"limits.head_bytes", CONFIG_INT, AT(head_bytes), .fallback = "32768", .min = 1024, .max = 1 << 20, .doc = "a request's head"},
    {"limits.head_timeout_ms", CONFIG_INT, AT(head_timeout_ms), .fallback = "10000", .min = 10, .max = 600000, .doc = "for a head to arrive"},
    {"limits.idle_timeout_ms", CONFIG_INT, AT(idle_timeout_ms), .fallback = "300000", .min = 10, .max = WHOLE_NUMBER,
     .doc = "without a byte either way"},
    {"limits.tunnels_per_sandbox", CONFIG_INT, AT(tunnels_per_sandbox), .fallback = "1024", .min = 1, .max = 1 << 20, .doc = "at once"},
    {"limits.connections", CONFIG_INT, AT(connections), .fallback = "0", .max = 1 << 22, .doc = "clients at once; 0: as the file limit allows"},
    {"limits.lifetime_ms", CONFIG_INT, AT(lifetime_ms), .fallback = "86400000", .min = 10, .max = WHOLE_NUMBER, .doc = "of one tunnel"},
    {"limits.head_fields", CONFIG_INT, AT(head_fields), .fallback = "100", .min = 1, .max = 100, .doc = "fields of a head"},
    {"limits.body_drain_bytes", CONFIG_INT, AT(body_drain_bytes), .fallback = "65536", .max = 1 << 24,
     .doc = "read of a refused body to keep the connection"},
};
#define ROW_COUNT (sizeof rows / sizeof rows[0])

bool
config_name_ok(struct slice name)
{
    if (name.len == 0 || name.len > 128 || name.ptr[0] == '.')
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
        if (!fine)
            return false;
    }
    return true;
}

void
config_set(json_t *root, const char *path, json_t *value)
{
    struct slice rest, first = slice_split(slice_str(path), '.', &rest);
    if (!rest.ptr) {
        json_object_set_new(root, path, value);
        return;
    }
    cleanup_free char *name = mem_dup_slice(first);
    json_t *section = json_object_get(root, name);
    if (!json_is_object(section)) {
        section = json_object();
        json_object_set_new(root, name, section);
    }
    json_object_set_new(section, rest.ptr, value);
}

/* ---- one reader a type; each writes its member, or returns -1 with err ---- */

struct reading {
    struct settings *out;
    const char *base;
};

static char *
standing_on(const char *base, const char *path)
{
    if (path[0] == '/' || !base || !base[0] || strcmp(base, ".") == 0)
        return mem_strdup(path);
    return mem_printf("%s/%s", base, path);
}

static int
read_text(const struct json_at *at, bool is_path, const char *base, char **ret, struct err *err)
{
    const char *text = NULL;
    if (json_get_string(at, &text, err) < 0)
        return -1;
    if (text && !*text)
        return json_fail(at, err, "is empty; leave it out or write null");
    free(*ret);
    *ret = !text ? NULL : is_path ? standing_on(base, text) : mem_strdup(text);
    return 0;
}

static int
read_name(const struct json_at *at, char **ret, struct err *err)
{
    if (read_text(at, false, NULL, ret, err) < 0)
        return -1;
    if (*ret && !config_name_ok(slice_str(*ret)))
        return json_fail(at, err, "\"%s\" is no name: letters, digits, '.', '_' and '-' are expected", *ret);
    return 0;
}

static int
read_word(const struct json_at *at, const char *const *words, size_t *ret, struct err *err)
{
    const char *text = NULL;
    if (json_get_string(at, &text, err) < 0)
        return -1;
    for (size_t i = 0; text && *text && words[i]; i++)
        if (strcmp(words[i], text) == 0) {
            *ret = i;
            return 0;
        }
    char list[128] = "";
    for (size_t i = 0; words[i]; i++)
        if (*words[i])
            snprintf(list + strlen(list), sizeof list - strlen(list), "%s\"%s\"", list[0] ? ", " : "", words[i]);
    return json_fail(at, err, "is not one of %s", list);
}

static int
store_word(const struct config_row *row, void *place, const struct json_at *at, struct err *err)
{
    size_t value = 0;
    if (read_word(at, row->words, &value, err) < 0)
        return -1;
    /* The one word that is kept as a yes or no. */
    if (row->words == ech_words)
        *(bool *)place = value == 1;
    else
        *(unsigned *)place = (unsigned)value;
    return 0;
}
_Static_assert(sizeof(enum inspect_mode) == sizeof(unsigned), "words are stored as unsigned");
_Static_assert(sizeof(enum embedded_policies) == sizeof(unsigned), "words are stored as unsigned");
_Static_assert(sizeof(enum durability) == sizeof(unsigned), "words are stored as unsigned");
_Static_assert(sizeof(enum record_format) == sizeof(unsigned), "words are stored as unsigned");

static void
free_texts(struct text_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
    *list = (struct text_list){0};
}

static int
read_texts(const struct json_at *at, struct text_list *ret, struct err *err)
{
    if (json_want_array(at, err) < 0)
        return -1;
    size_t count = json_array_size(at->value);
    ret->items = mem_array(count + 1, sizeof *ret->items);
    for (size_t i = 0; i < count; i++) {
        struct json_at item = json_element(at, i);
        const char *text = NULL;
        if (json_get_string(&item, &text, err) < 0)
            return -1;
        if (!text)
            return json_fail(&item, err, "a string is expected");
        ret->items[ret->count++] = mem_strdup(text);
    }
    return 0;
}

static int
read_addresses(const struct json_at *at, struct text_list *ret, struct err *err)
{
    if (read_texts(at, ret, err) < 0)
        return -1;
    for (size_t i = 0; i < ret->count; i++) {
        struct sockaddr_storage sa;
        socklen_t len;
        struct json_at item = json_element(at, i);
        if (!sockaddr_parse(slice_str(ret->items[i]), 53, &sa, &len))
            return json_fail(&item, err, "\"%s\" is no address[:port]", ret->items[i]);
    }
    return 0;
}

static int
read_cidrs(const struct json_at *at, struct cidr_list *ret, struct err *err)
{
    if (json_want_array(at, err) < 0)
        return -1;
    size_t count = json_array_size(at->value);
    ret->items = mem_array(count + 1, sizeof *ret->items);
    for (size_t i = 0; i < count; i++) {
        struct json_at item = json_element(at, i);
        const char *text = NULL;
        if (json_get_string(&item, &text, err) < 0)
            return -1;
        if (!text || !cidr_parse(slice_str(text), &ret->items[ret->count]))
            return json_fail(&item, err, "\"%s\" is no address range such as \"10.0.0.0/8\" (no host bits set)", text ? text : "null");
        ret->count++;
    }
    return 0;
}

static int
read_ports(const struct json_at *at, uint16_t *ports, size_t *ret_count, struct err *err)
{
    const size_t room = sizeof((struct settings *)0)->default_ports / sizeof(uint16_t);
    if (json_want_array(at, err) < 0)
        return -1;
    size_t count = json_array_size(at->value);
    if (count > room)
        return json_fail(at, err, "has %zu ports; at most %zu are expected", count, room);
    for (size_t i = 0; i < count; i++) {
        struct json_at item = json_element(at, i);
        int64_t port = 0;
        if (json_get_int(&item, 1, 65535, &port, err) < 0)
            return -1;
        ports[i] = (uint16_t)port;
    }
    *ret_count = count;
    return 0;
}

static int
read_override(const struct json_at *at, struct host_override *o, struct err *err)
{
    struct host host;
    if (!host_parse(slice_str(at->name), &host) || host.kind != HOST_NAME)
        return json_fail(at, err, "\"%s\" is no host name", at->name);
    o->host = mem_strdup(host.text);
    if (json_want_array(at, err) < 0)
        return -1;
    size_t count = json_array_size(at->value);
    o->addrs = mem_array(count + 1, sizeof *o->addrs);
    for (size_t i = 0; i < count; i++) {
        struct json_at item = json_element(at, i);
        const char *text = NULL;
        if (json_get_string(&item, &text, err) < 0)
            return -1;
        if (!text || !addr_parse(slice_str(text), &o->addrs[o->count]))
            return json_fail(&item, err, "\"%s\" is no IP address", text ? text : "null");
        o->count++;
    }
    return count ? 0 : json_fail(at, err, "at least one address is expected");
}

static int
read_overrides(const struct json_at *at, struct settings *out, struct err *err)
{
    if (json_want_object(at, err) < 0)
        return -1;
    out->overrides = mem_array(json_object_size(at->value) + 1, sizeof *out->overrides);
    json_t *object = (json_t *)at->value;
    for (void *i = json_object_iter(object); i; i = json_object_iter_next(object, i)) {
        struct json_at item = json_member(at, json_object_iter_key(i));
        if (read_override(&item, &out->overrides[out->override_count++], err) < 0)
            return -1;
    }
    return 0;
}

/* ---- listeners ---- */

static int
read_listener_tls(const struct json_at *at, const char *base, struct listener_settings *l, struct err *err)
{
    static const char *const known[] = {"cert", "key", "client_ca", NULL};
    if (!at->value || json_is_null(at->value))
        return 0;
    if (json_want_object(at, err) < 0 || json_only_members(at, known, err) < 0)
        return -1;
    struct json_at cert = json_member(at, "cert"), key = json_member(at, "key"), ca = json_member(at, "client_ca");
    if (read_text(&cert, true, base, &l->tls_cert, err) < 0 || read_text(&key, true, base, &l->tls_key, err) < 0 ||
        read_text(&ca, true, base, &l->tls_client_ca, err) < 0)
        return -1;
    if (!l->tls_cert || !l->tls_key)
        return json_fail(at, err, "cert and key are both expected");
    return 0;
}

static int
read_listener_place(const struct json_at *at, struct listener_settings *l, struct err *err)
{
    struct json_at address = json_member(at, "address"), fd = json_member(at, "fd");
    if (read_text(&address, false, NULL, &l->address, err) < 0 || read_text(&fd, false, NULL, &l->fd_name, err) < 0)
        return -1;
    if (!l->address == !l->fd_name)
        return json_fail(at, err, "either address or fd is expected");
    struct sockaddr_storage sa;
    socklen_t len;
    if (l->address && !sockaddr_parse(slice_str(l->address), 0, &sa, &len))
        return json_fail(&address, err, "\"%s\" is no address:port", l->address);
    return 0;
}

static int
read_listener(const struct json_at *at, const char *base, struct listener_settings *l, struct err *err)
{
    static const char *const known[] = {"name", "address", "fd", "kind", "token_file", "token_fd", "tls", "proxy_protocol", NULL};
    if (json_want_object(at, err) < 0 || json_only_members(at, known, err) < 0)
        return -1;
    struct json_at name = json_member(at, "name"), kind = json_member(at, "kind"), token = json_member(at, "token_file");
    struct json_at token_fd = json_member(at, "token_fd"), tls = json_member(at, "tls"), pp = json_member(at, "proxy_protocol");
    size_t word = LISTENER_PROXY;
    if (read_name(&name, &l->name, err) < 0 || read_listener_place(at, l, err) < 0 ||
        (kind.value && read_word(&kind, kind_words, &word, err) < 0) || read_text(&token, true, base, &l->token_file, err) < 0 ||
        read_text(&token_fd, false, NULL, &l->token_fd, err) < 0 || read_listener_tls(&tls, base, l, err) < 0 ||
        json_get_bool(&pp, &l->proxy_protocol, err) < 0)
        return -1;
    l->kind = (enum listener_kind)word;
    if (l->token_file && l->token_fd)
        return json_fail(at, err, "either token_file or token_fd is expected");
    if (l->kind != LISTENER_PROXY && !l->token_file && !l->token_fd)
        return json_fail(at, err, "a \"%s\" listener needs token_file or token_fd: its clients cannot bring a token", kind_words[word]);
    return 0;
}

/* Listeners without a name are "main" (the first) and "listener-N" (counted from 1): cnf and records speak of names. */
static int
name_listeners(const struct json_at *at, struct settings *out, struct err *err)
{
    for (size_t i = 0; i < out->listener_count; i++) {
        struct listener_settings *l = &out->listeners[i];
        if (!l->name)
            l->name = i == 0 ? mem_strdup("main") : mem_printf("listener-%zu", i + 1);
    }
    for (size_t i = 0; i < out->listener_count; i++)
        for (size_t k = 0; k < i; k++)
            if (strcmp(out->listeners[i].name, out->listeners[k].name) == 0) {
                struct json_at item = json_element(at, i);
                return json_fail(&item, err, "a second listener named \"%s\"", out->listeners[i].name);
            }
    return 0;
}

static int
read_listeners(const struct json_at *at, const char *base, struct settings *out, struct err *err)
{
    if (json_want_array(at, err) < 0)
        return -1;
    size_t count = json_array_size(at->value);
    if (count > CONFIG_LISTENERS_MAX)
        return json_fail(at, err, "has %zu listeners; at most %d are expected", count, CONFIG_LISTENERS_MAX);
    out->listeners = mem_array(count + 1, sizeof *out->listeners);
    for (size_t i = 0; i < count; i++) {
        struct json_at item = json_element(at, i);
        if (read_listener(&item, base, &out->listeners[out->listener_count++], err) < 0)
            return -1;
    }
    return name_listeners(at, out, err);
}

/* ---- the driver ---- */

static int
read_value(const struct config_row *row, const struct json_at *at, const struct reading *r, struct err *err)
{
    char *out = (char *)r->out;
    void *place = out + row->offset;
    switch (row->type) {
    case CONFIG_TEXT:
        return read_text(at, false, NULL, place, err);
    case CONFIG_PATH:
        return read_text(at, true, r->base, place, err);
    case CONFIG_NAME:
        return read_name(at, place, err);
    case CONFIG_BOOL:
        return json_get_bool(at, place, err);
    case CONFIG_INT:
        return json_get_int(at, row->min, row->max, place, err);
    case CONFIG_WORD:
        return store_word(row, place, at, err);
    case CONFIG_TEXTS:
        return read_texts(at, place, err);
    case CONFIG_ADDRESSES:
        return read_addresses(at, place, err);
    case CONFIG_CIDRS:
        return read_cidrs(at, place, err);
    case CONFIG_PORTS:
        return read_ports(at, place, (size_t *)(void *)(out + row->count_offset), err);
    case CONFIG_OVERRIDES:
        return read_overrides(at, r->out, err);
    case CONFIG_LISTENERS:
        return read_listeners(at, r->base, r->out, err);
    case CONFIG_LATER:
        return json_is_null(at->value) ? 0 : json_fail(at, err, "is not available in this version; leave it out or write null");
    }
    return -1;
}

static int
read_fallback(const struct config_row *row, const struct reading *r, struct err *err)
{
    json_t *value = json_loads(row->fallback, JSON_DECODE_ANY, NULL);
    struct json_at at = {.value = value, .name = row->path};
    struct reading here = {r->out, r->base};
    int rc = read_value(row, &at, &here, err);
    json_decref(value);
    return rc;
}

/* Names that may stand in the section ("" is the root), NULL-terminated. */
static void
known_names(const char *section, bool with_flags, char (*store)[64], const char **names)
{
    size_t count = 0;
    for (size_t i = 0; i < ROW_COUNT; i++) {
        struct slice rest, first = slice_split(slice_str(rows[i].path), '.', &rest);
        if ((rows[i].flags & FLAG_ONLY) && !with_flags)
            continue;
        if (*section && !(rest.ptr && slice_is(first, section)))
            continue;
        struct slice name = *section ? rest : first;
        if (count && slice_is(name, names[count - 1]))
            continue;
        snprintf(store[count], sizeof store[count], "%.*s", SLICE_ARG(name));
        names[count] = store[count];
        count++;
    }
    names[count] = NULL;
}

static int
check_names(const struct json_at *at, const char *section, bool with_flags, struct err *err)
{
    char store[ROW_COUNT][64];
    const char *names[ROW_COUNT + 1];
    if (json_want_object(at, err) < 0)
        return -1;
    known_names(section, with_flags, store, names);
    return json_only_members(at, names, err);
}

int
config_check_file(const json_t *root, const char *file, struct err *err)
{
    struct json_at at = json_root(root, file);
    return check_names(&at, "", false, err);
}

static int
read_row(const struct config_row *row, const struct json_at *root, const struct reading *r, struct err *err)
{
    struct slice rest, first = slice_split(slice_str(row->path), '.', &rest);
    cleanup_free char *name = mem_dup_slice(first);
    struct json_at section = json_member(root, name), value = section;
    if (rest.ptr) {
        if (!section.value)
            return read_fallback(row, r, err);
        if (check_names(&section, name, true, err) < 0)
            return -1;
        value = json_member(&section, rest.ptr);
    }
    return value.value ? read_value(row, &value, r, err) : read_fallback(row, r, err);
}

int
config_read(const json_t *root, const char *file, const char *base, struct settings *ret, struct err *err)
{
    struct settings out = {0};
    struct reading r = {&out, base};
    struct json_at at = json_root(root, file);
    int rc = check_names(&at, "", true, err);
    for (size_t i = 0; rc == 0 && i < ROW_COUNT; i++)
        rc = read_row(&rows[i], &at, &r, err);
    if (rc < 0) {
        settings_free(&out);
        return -1;
    }
    *ret = out;
    return 0;
}

int
config_check_available(const struct settings *s, const char *file, struct err *err)
{
    if (s->inspect != INSPECT_OFF && !s->ca_dir)
        return err_invalid(err, "%s: inspect.ca: a folder with ca.pem and ca.key is expected (`sallyport ca init --dir DIR` makes one)", file);
    if (s->listener_count == 0)
        return err_invalid(err, "%s: listen: at least one listener is expected", file);
    return 0;
}

static json_t *
member_at(const json_t *root, const char *path)
{
    struct slice rest, first = slice_split(slice_str(path), '.', &rest);
    cleanup_free char *name = mem_dup_slice(first);
    json_t *value = json_object_get(root, name);
    return rest.ptr ? json_object_get(value, rest.ptr) : value;
}

static void
remove_at(json_t *root, const char *path)
{
    struct slice rest, first = slice_split(slice_str(path), '.', &rest);
    cleanup_free char *name = mem_dup_slice(first);
    if (rest.ptr)
        json_object_del(json_object_get(root, name), rest.ptr);
    else
        json_object_del(root, name);
}

void
config_each_path(json_t *root, char *(*visit)(void *arg, const char *setting, const char *value), void *arg)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        const char *value = rows[i].type == CONFIG_PATH ? json_string_value(member_at(root, rows[i].path)) : NULL;
        cleanup_free char *other = value ? visit(arg, rows[i].path, value) : NULL;
        if (other)
            config_set(root, rows[i].path, json_string(other));
    }
}

void
config_keep_fixed(const json_t *running, json_t *next, char *text, size_t size)
{
    text[0] = '\0';
    for (size_t i = 0; i < ROW_COUNT; i++) {
        if (!(rows[i].flags & NO_RELOAD))
            continue;
        json_t *old = member_at(running, rows[i].path), *new = member_at(next, rows[i].path);
        if ((!old && !new) || (old && new && json_equal(old, new)))
            continue;
        size_t used = strlen(text);
        snprintf(text + used, size - used, "%s%s", used ? ", " : "", rows[i].path);
        if (old)
            config_set(next, rows[i].path, json_deep_copy(old));
        else
            remove_at(next, rows[i].path);
    }
}

static void
free_listener(struct listener_settings *l)
{
    free(l->name);
    free(l->address);
    free(l->fd_name);
    free(l->tls_cert);
    free(l->tls_key);
    free(l->tls_client_ca);
    free(l->token_file);
    free(l->token_fd);
}

static void
free_overrides(struct settings *s)
{
    for (size_t i = 0; i < s->override_count; i++) {
        free(s->overrides[i].host);
        free(s->overrides[i].addrs);
    }
    free(s->overrides);
}

void
settings_free(struct settings *s)
{
    for (size_t i = 0; i < s->listener_count; i++)
        free_listener(&s->listeners[i]);
    free(s->listeners);
    free_overrides(s);
    for (size_t i = 0; i < ROW_COUNT; i++) {
        void *place = (char *)s + rows[i].offset;
        switch (rows[i].type) {
        case CONFIG_TEXT:
        case CONFIG_PATH:
        case CONFIG_NAME:
            free(*(char **)place);
            break;
        case CONFIG_TEXTS:
        case CONFIG_ADDRESSES:
            free_texts(place);
            break;
        case CONFIG_CIDRS:
            free(((struct cidr_list *)place)->items);
            break;
        case CONFIG_BOOL:
        case CONFIG_INT:
        case CONFIG_WORD:
        case CONFIG_PORTS:
        case CONFIG_OVERRIDES:
        case CONFIG_LISTENERS:
        case CONFIG_LATER:
            break;
        }
    }
    *s = (struct settings){0};
}

void
config_print_table(FILE *out)
{
    for (size_t i = 0; i < ROW_COUNT; i++)
        if (!(rows[i].flags & FLAG_ONLY))
            fprintf(out, "| `%s` | `%s` | %s%s |\n", rows[i].path, rows[i].fallback, rows[i].doc,
                    rows[i].flags & NO_RELOAD ? " (restart)" : "");
}
