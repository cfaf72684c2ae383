/* What a compiled policy and its context are made of; for the modules of this layer alone. Everything here is immutable
 * once policy_compile or policy_context_new has returned. */
#ifndef SALLYPORT_POLICY_MODEL_H
#define SALLYPORT_POLICY_MODEL_H

#include "sallyport/policy/hosts.h"
#include "sallyport/policy/pattern.h"
#include "sallyport/policy/policy.h"
#include "sallyport/policy/registries.h"

#define RULES_MAX 10000
#define METHODS_MAX 32          /* of one rule; also distinct ones of a policy beyond the standard ones */
#define METHOD_LEN_MAX 32
#define MCP_SERVERS_MAX 1000
#define TOOLS_MAX 10000         /* of one list */
#define PRIVATE_MAX 1000
#define PRIVATE_CIDRS_MAX 64
#define CONTEXT_HOSTS_MAX 1000000
#define NO_NEXT UINT32_MAX

struct bulk;
struct port_set { uint64_t bits[65536 / 64]; };

struct policy_context {
    unsigned refs;
    struct port_set default_ports, tls_ports, plain_ports;
    struct hosts *platform, *blocked, *passthrough, *overrides;
    struct registries *registries; /* NULL: none */
    struct blocklist *blocklist;   /* NULL: none */
    enum inspect_mode inspect;
    bool has_parent;
    struct cidr *allow, *delegable;
    size_t allow_count, delegable_count;
};

struct rule {
    char *id;                /* NULL without one */
    struct host_entry host;
    enum scheme scheme;      /* NONE: any */
    bool allow;
    char **methods;          /* NULL-terminated; NULL: any */
    char *path_text;
    struct pattern *path;    /* NULL: any */
    uint32_t next;           /* the next rule with the same host entry */
};

enum mcp_default { MCP_ASK = 0, MCP_ALLOW, MCP_DENY };

struct mcp_server {
    char *name;
    struct target target;
    char *path;              /* prefix without a slash at the end; "" for all */
    char **allowed_tools, **approved_tools, **denied_tools; /* NULL-terminated, or NULL when not given */
    enum mcp_default fallback;
    uint32_t next;           /* the next server with the same host and port */
};

struct private_range {
    struct host_entry host;
    struct cidr *cidrs;
    size_t count;
    uint32_t next;
};

struct policy {
    unsigned refs;
    char *name, *file;
    char sha256[SHA256_HEX_SIZE];
    struct policy_context *context;
    bool report, unrestricted, to_parent, has_networking;
    struct hosts *blocked, *allowed;
    struct rule *rules;
    size_t rule_count;
    struct hosts *rule_hosts;           /* entry -> first rule that has it */
    char *methods[METHODS_MAX];         /* that rules name */
    size_t method_count;
    bool mcp_on;                        /* allow_mcp_servers */
    struct mcp_server *servers;
    size_t server_count;
    struct hosts *server_hosts;
    bool managers_on;                   /* allow_package_managers */
    bool managers_named;                /* package_managers is given */
    struct manager_set managers;
    bool managers_write;                /* "package_access": "write" */
    struct private_range *privates;
    size_t private_count;
    struct hosts *private_hosts;
    enum inspect_mode inspect;          /* in force: never above the operator's */
    struct hosts *inspect_hosts, *passthrough;
    struct policy_limits limits;
    const struct bulk *bulk;            /* while the document is read; NULL afterwards */
};

static inline bool
port_set_has(const struct port_set *s, uint16_t port)
{
    return s->bits[port / 64] >> (port % 64) & 1;
}

static inline void
port_set_add(struct port_set *s, uint16_t port)
{
    s->bits[port / 64] |= UINT64_C(1) << (port % 64);
}

/* May an entry that is this literal load, by what the operator has opened? */
bool context_literal_may_load(const struct policy_context *c, const struct host *literal);
/* What a tunnel to this port must carry: HTTPS, HTTP, or NONE where it is opaque. */
enum scheme context_tunnel_scheme(const struct policy_context *c, uint16_t port);
/* Does a rule need to see the request (methods, path)? */
static inline bool rule_needs_sight(const struct rule *r) { return r->methods || r->path; }
static inline bool server_has_tools(const struct mcp_server *s) { return s->allowed_tools || s->approved_tools || s->denied_tools; }
/* `policy_unref`'s helper, here because the reader also frees half-made policies. */
void policy_destroy(struct policy *p);

#endif
