/* The dated data files: hosts of package managers (policies/registries.json) and the safety blocklist
 * (policies/safety-blocklist.json). Hosts are grouped: a domain, and the labels in front of it ("@" the domain itself). */
#ifndef SALLYPORT_POLICY_REGISTRIES_H
#define SALLYPORT_POLICY_REGISTRIES_H

#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/err.h"
#include "sallyport/policy/hosts.h"
#include "sallyport/policy/reads.h"

#define MANAGERS_MAX 128

/* A set of managers: one bit each. */
struct manager_set { uint64_t bits[MANAGERS_MAX / 64]; };

struct registries;

struct registries *registries_parse(struct slice json, const char *name, struct err *err);
void registries_free(struct registries *r); /* NULL is fine */
const char *registries_date(const struct registries *r);
size_t registries_count(const struct registries *r);
const char *registries_name(const struct registries *r, size_t manager);
/* By name or alias; -1 when there is none. *ret_nearest is then a name that is near, or NULL. */
int registries_find(const struct registries *r, const char *name, const char **ret_nearest);
void manager_set_add(struct manager_set *s, size_t manager);
bool manager_set_has(const struct manager_set *s, size_t manager);
/* All that "allow_package_managers" opens when no managers are named: less those that must be named (code forges and the like). */
void registries_all(const struct registries *r, struct manager_set *ret);
/* The first manager of `wanted` that needs the host: HOSTS_MATCH and its number; HOSTS_PORT_CLOSED on other ports. */
enum hosts_result registries_match(const struct registries *r, const struct manager_set *wanted, const struct host_key *key, uint16_t port, size_t *ret_manager);
/* Does the request read what the managers of `wanted` need? *ret_manager, with ret->allowed, is one that needs it. */
void registries_ask(const struct registries *r, const struct manager_set *wanted, const struct host_key *key, const struct question *question, size_t *ret_manager, struct read_answer *ret);
/* What reads this host for the manager, in a few words. */
void registries_describe(const struct registries *r, size_t manager, const struct host_entry *e, char *text, size_t size);
/* Visits each host of the manager with the ports that it has (port 0: 443 alone). */
void registries_each(const struct registries *r, size_t manager, void (*visit)(void *ctx, const struct host_entry *e, bool plain_http), void *ctx);

/* What lint knows about hosts, from the same file: why a host on this list is risky, or NULL. */
enum risk { RISK_WRITE_CHANNEL = 0, RISK_SHARED_CDN, RISK_SHARED_TENANTS, RISK_COUNT };
const char *registries_risk(const struct registries *r, const struct host_entry *e, enum risk risk);

struct blocklist;
struct blocklist *blocklist_parse(struct slice json, const char *name, struct err *err);
void blocklist_free(struct blocklist *b); /* NULL is fine */
const char *blocklist_date(const struct blocklist *b);
size_t blocklist_count(const struct blocklist *b);
/* The category of a blocked host, or NULL. */
const char *blocklist_match(const struct blocklist *b, const struct host_key *key);

#endif
