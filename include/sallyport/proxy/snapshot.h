/* Everything a decision depends on, compiled from one sealed bundle: keys, revocations, policies, guard and settings.
 * Immutable, counted references: an exchange keeps the snapshot that it started with (invariant 8). */
#ifndef SALLYPORT_PROXY_SNAPSHOT_H
#define SALLYPORT_PROXY_SNAPSHOT_H

#include "sallyport/auth/verify.h"
#include "sallyport/base/err.h"
#include "sallyport/policy/decide.h"
#include "sallyport/policy/guard.h"
#include "sallyport/proxy/settings.h"

struct snapshot;

/* A named text of the bundle; memory is the caller's (the mapped memfd) and outlives the snapshot. */
struct blob { struct slice name, bytes; };

/* Blob names: "registries", "blocklist", "keys", "revoked", "resolv", "upstream-ca", "parent-token",
 * "listener-token/NAME", "tls-cert/NAME", "tls-key/NAME", "tls-client-ca/NAME", "policy/NAME" and "policy-file/NAME" (its path, for errors).
 * A policy is compiled when it is first asked for, or all at once with check_all (the supervisor does, before anybody uses it). */
struct snapshot *snapshot_new(const struct settings *settings, const struct blob *blobs, size_t count, const struct guard_options *own, bool check_all, uint64_t generation, struct err *err);
struct snapshot *snapshot_ref(struct snapshot *s);
void snapshot_unref(struct snapshot *s);
/* fn(arg) when the last reference is gone: whoever mapped the bundle unmaps it then. */
void snapshot_on_free(struct snapshot *s, void (*fn)(void *arg), void *arg);
const struct settings *snapshot_settings(const struct snapshot *s);
const struct token_rules *snapshot_token_rules(const struct snapshot *s);
struct verifier *snapshot_verifier(struct snapshot *s); /* one of its own: a reload drops the cache of signatures */
const struct guard *snapshot_guard(const struct snapshot *s);
uint64_t snapshot_generation(const struct snapshot *s);
struct slice snapshot_blob(const struct snapshot *s, const char *name); /* ptr NULL when absent */
/* The policy that an identity is judged by: named, embedded (compiled once per digest, cached) or default.
 * REASON_OK and a borrowed policy (one that is kept beyond the call needs policy_ref), REASON_POLICY_UNKNOWN or REASON_TOKEN_CLAIMS. */
enum reason snapshot_policy(struct snapshot *s, const struct identity *id, const struct policy **ret);
const struct policy *snapshot_named_policy(struct snapshot *s, struct slice name); /* NULL when absent */
/* upstream.hosts: NULL when the host is not overridden. */
const struct host_override *snapshot_override(const struct snapshot *s, const struct host *host);

#endif
