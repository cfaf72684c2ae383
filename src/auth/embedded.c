/* A policy that a token carries: claims -> the text of a policy document. The document is built
 * member by member, so that nothing passes that only a policy file may say (report mode, private
 * addresses). What it means is the policy compiler's affair; this file only holds what the operator
 * lets tokens ask for. */
#include "sallyport/auth/embedded.h"

#include <string.h>

#include "sallyport/base/mem.h"

#define REFUSE(err, ...) (err_invalid((err), __VA_ARGS__), REASON_TOKEN_CLAIMS)

static const char *const carried[] = {"networking", "mcp_servers", "package_managers"};
#define CARRIED_COUNT (sizeof carried / sizeof carried[0])

bool
embedded_is_present(const json_t *claims)
{
    for (size_t i = 0; i < CARRIED_COUNT; i++)
        if (json_object_get(claims, carried[i]))
            return true;
    return json_object_get(claims, "allowed_hosts") != NULL;
}

/* "*" in any form that a reader might take for every host: alone, behind a scheme, with a port. */
static bool
opens_everything(const char *entry)
{
    const char *scheme = strstr(entry, "://");
    const char *host = scheme ? scheme + 3 : entry;
    const char *star = strchr(host, '*');
    return star && (star != host || host[1] != '.' || strchr(host + 1, '*'));
}

static enum reason
check_hosts(const json_t *hosts, const char *where, enum embedded_policies allowed, struct err *err)
{
    if (!json_is_array(hosts))
        return REFUSE(err, "%s: expected an array of host entries", where);
    for (size_t i = 0; i < json_array_size(hosts); i++) {
        const char *entry = json_string_value(json_array_get(hosts, i));
        if (!entry)
            return REFUSE(err, "%s[%zu]: expected a string", where, i);
        if (allowed != EMBEDDED_ANY && opens_everything(entry))
            return REFUSE(err,
                          "%s[%zu]: a token may not open every host here "
                          "(auth.embedded_policies is \"limited\")",
                          where, i);
    }
    return REASON_OK;
}

static enum reason
check_type(const json_t *networking, enum embedded_policies allowed, struct err *err)
{
    const char *type = json_string_value(json_object_get(networking, "type"));
    if (type && strcmp(type, "limited") == 0)
        return REASON_OK;
    if (!type || strcmp(type, "unrestricted") != 0)
        return REFUSE(err, "networking.type: expected \"limited\" or \"unrestricted\"");
    if (allowed != EMBEDDED_ANY)
        return REFUSE(err, "networking.type: a token may not say \"unrestricted\" here "
                           "(auth.embedded_policies is \"limited\")");
    return REASON_OK;
}

static enum reason
check_networking(const json_t *networking, enum embedded_policies allowed, struct err *err)
{
    static const char *const members[] = {"type", "allowed_hosts", "allow_mcp_servers",
                                          "allow_package_managers"};
    if (!json_is_object(networking))
        return REFUSE(err, "networking: expected an object");
    size_t known = 0;
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        known += json_object_get(networking, members[i]) != NULL;
    if (known != json_object_size(networking))
        return REFUSE(err, "networking: expected only type, allowed_hosts, allow_mcp_servers and "
                           "allow_package_managers");
    enum reason reason = check_type(networking, allowed, err);
    const json_t *hosts = json_object_get(networking, "allowed_hosts");
    if (reason == REASON_OK && hosts)
        reason = check_hosts(hosts, "networking.allowed_hosts", allowed, err);
    return reason;
}

/* -- allowed_hosts alone -- */

/* "a.example.com, b.example.com": spaces around an entry are dropped, an empty entry is a mistake.
 * NULL then. */
static json_t *
split_hosts(struct slice text)
{
    json_t *hosts = json_array();
    struct slice rest = text;
    if (slice_trim_ows(text).len == 0)
        return hosts; /* no host at all: denies everything */
    while (rest.ptr) {
        struct slice entry = slice_trim_ows(slice_split(rest, ',', &rest));
        if (entry.len == 0) {
            json_decref(hosts);
            return NULL;
        }
        json_array_append_new(hosts, json_stringn(entry.ptr, entry.len));
    }
    return hosts;
}

static bool
is_star(const json_t *value)
{
    const char *text = json_string_value(value);
    return text && strcmp(text, "*") == 0;
}

static enum reason
networking_from_hosts(const json_t *claim, enum embedded_policies allowed, json_t **ret,
                      struct err *err)
{
    bool everything =
        is_star(claim) || (json_array_size(claim) == 1 && is_star(json_array_get(claim, 0)));
    if (everything && allowed != EMBEDDED_ANY)
        return REFUSE(err, "allowed_hosts: a token may not open every host here "
                           "(auth.embedded_policies is \"limited\")");
    if (everything) {
        *ret = json_pack("{s:s}", "type", "unrestricted");
        return REASON_OK;
    }
    json_auto_t *hosts =
        json_is_string(claim)
            ? split_hosts(slice_of(json_string_value(claim), json_string_length(claim)))
            : json_deep_copy(claim);
    if (!hosts)
        return REFUSE(err, "allowed_hosts: has an empty entry between commas");
    enum reason reason = check_hosts(hosts, "allowed_hosts", allowed, err);
    if (reason == REASON_OK)
        *ret = json_pack("{s:s, s:O}", "type", "limited", "allowed_hosts", hosts);
    return reason;
}

/* -- the document -- */

/* Members of a policy that narrow it. A token cannot carry them; to leave them out silently would
 * give the sandbox more than its issuer meant. */
static enum reason
check_not_narrowed(const json_t *claims, struct err *err)
{
    static const char *const narrowing[] = {"rules", "blocked_hosts", "limits", "inspect"};
    for (size_t i = 0; i < sizeof narrowing / sizeof narrowing[0]; i++)
        if (json_object_get(claims, narrowing[i]))
            return REFUSE(err,
                          "%s: a policy in a token cannot hold it, put it into a policy file and "
                          "name that in policy",
                          narrowing[i]);
    return REASON_OK;
}

static enum reason
read_networking(const json_t *claims, enum embedded_policies allowed, json_t **ret, struct err *err)
{
    const json_t *hosts = json_object_get(claims, "allowed_hosts");
    const json_t *networking = json_object_get(claims, "networking");
    if (hosts) {
        for (size_t i = 0; i < CARRIED_COUNT; i++)
            if (json_object_get(claims, carried[i]))
                return REFUSE(err, "allowed_hosts: stands beside %s, expected it inside networking",
                              carried[i]);
        return networking_from_hosts(hosts, allowed, ret, err);
    }
    if (!networking) { /* servers or registries that nothing opens: denies everything */
        *ret = json_pack("{s:s}", "type", "limited");
        return REASON_OK;
    }
    enum reason reason = check_networking(networking, allowed, err);
    if (reason == REASON_OK)
        *ret = json_deep_copy(networking);
    return reason;
}

static enum reason
build_document(const json_t *claims, json_t *networking, char **ret, struct err *err)
{
    json_auto_t *document = json_pack("{s:i, s:O}", "version", 1, "networking", networking);
    for (size_t i = 1; i < CARRIED_COUNT; i++) {
        json_t *value = json_object_get(claims, carried[i]);
        if (value && !json_is_array(value))
            return REFUSE(err, "%s: expected an array", carried[i]);
        if (value)
            json_object_set(document, carried[i], value);
    }
    *ret = json_dumps(document, JSON_COMPACT | JSON_SORT_KEYS);
    return *ret ? REASON_OK : REFUSE(err, "the policy in the token cannot be written as JSON");
}

enum reason
embedded_read(const json_t *claims, enum embedded_policies allowed, char **ret, struct err *err)
{
    json_auto_t *networking = NULL;
    if (allowed != EMBEDDED_LIMITED && allowed != EMBEDDED_ANY)
        return REFUSE(err, "the token carries a policy, which is not accepted here "
                           "(auth.embedded_policies is \"off\")");
    enum reason reason = check_not_narrowed(claims, err);
    if (reason == REASON_OK)
        reason = read_networking(claims, allowed, &networking, err);
    if (reason == REASON_OK)
        reason = build_document(claims, networking, ret, err);
    return reason;
}
