/* The values that the proxy runs by: what process/config reads from the configuration file, plain and typed. */
#ifndef SALLYPORT_PROXY_SETTINGS_H
#define SALLYPORT_PROXY_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/auth/token.h"
#include "sallyport/base/addr.h"
#include "sallyport/policy/context.h"
#include "sallyport/proxy/journal.h"

struct text_list { char **items; size_t count; };     /* items is NULL-terminated */
struct cidr_list { struct cidr *items; size_t count; };

struct host_override { char *host; struct addr *addrs; size_t count; }; /* upstream.hosts */

/* WATCH: a packet socket that sees what a sandbox tried to send past the proxy. */
enum listener_kind { LISTENER_PROXY = 0, LISTENER_TRANSPARENT, LISTENER_DNS, LISTENER_WATCH };

struct listener_settings {
    char *name;
    char *address;          /* "0.0.0.0:3128", or NULL with fd_name */
    char *fd_name;          /* LISTEN_FDNAMES entry */
    enum listener_kind kind;
    bool proxy_protocol;
    char *tls_cert, *tls_key, *tls_client_ca; /* paths; NULL without TLS */
    char *token_file;       /* NULL: clients bring their own */
    char *token_fd;         /* name in LISTEN_FDNAMES */
};

struct settings {
    struct listener_settings *listeners;
    size_t listener_count;
    int64_t workers;        /* 0: one a core */
    char *user;
    /* auth */
    char *keys_path, *issuer, *audience, *revoked_path;
    int64_t leeway_s, max_lifetime_s;
    enum embedded_policies embedded;
    bool allow_hmac;
    /* policy */
    char *policies_dir;     /* NULL with policy_file */
    char *policy_file;      /* --policy FILE: one policy for everybody */
    char *default_policy;
    char *registries_path;
    struct text_list platform_hosts, blocked_hosts;
    uint16_t default_ports[64], tls_ports[64], plain_ports[64];
    size_t default_port_count, tls_port_count, plain_port_count;
    /* inspect */
    enum inspect_mode inspect;
    char *ca_dir;
    struct text_list passthrough;
    bool ech_refuse, deny_in_tunnel;
    /* upstream */
    char *upstream_ca_file;
    struct host_override *overrides;
    size_t override_count;
    struct text_list dns_servers; /* "address[:port]" */
    struct cidr_list allow_addresses, deny_addresses, delegable_addresses;
    int64_t dns_timeout_ms, connect_timeout_ms;
    char *parent_url, *parent_token_file;
    /* record */
    char *record_path;
    enum record_format record_format;
    enum durability durability;
    int64_t rotate_bytes, reserve_bytes;
    char *checkpoint_key_path;
    bool record_query;
    /* admin */
    char *admin_socket, *admin_address;
    char *vault, *shared_state;
    /* limits */
    int64_t head_bytes, head_timeout_ms, idle_timeout_ms, tunnels_per_sandbox, connections;
    int64_t lifetime_ms, head_fields, body_drain_bytes;
};

#endif
