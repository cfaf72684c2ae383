/* The operator's side of every policy, parsed once and shared by reference: ports, platform and blocked hosts, the dated
 * data files, the ceiling of inspection, opened ranges. Owns copies of all it is given; opens no file. */
#include "sallyport/policy/context.h"

#include <stdlib.h>

#include "sallyport/base/mem.h"
#include "sallyport/policy/guard.h"
#include "sallyport/policy/model.h"

static int
copy_ports(struct port_set *set, const uint16_t *ports, size_t count, const uint16_t *fallback, size_t fallback_count,
           struct err *err)
{
    if (!ports) {
        ports = fallback;
        count = fallback_count;
    }
    for (size_t i = 0; i < count; i++) {
        if (ports[i] == 0)
            return err_invalid(err, "ports: 0 is no port; expected 1 to 65535");
        port_set_add(set, ports[i]);
    }
    return 0;
}

static int
read_list(struct hosts **ret, const char *what, const char *const *list, struct err *err)
{
    char why[ENTRY_WHY_SIZE];
    struct host_entry e;

    *ret = hosts_new();
    for (size_t i = 0; list && list[i]; i++) {
        if (i == CONTEXT_HOSTS_MAX)
            return err_invalid(err, "%s: more than %d entries", what, CONTEXT_HOSTS_MAX);
        if (!host_entry_parse(slice_str(list[i]), &e, why))
            return err_invalid(err, "%s[%zu]: the entry %s", what, i, why);
        hosts_add(*ret, &e, (uint32_t)i);
    }
    hosts_seal(*ret);
    return 0;
}

/* The keys of upstream.hosts: exact hosts without port, and single labels are fine, as they are no policy. */
static int
read_overrides(struct hosts **ret, const char *const *list, struct err *err)
{
    struct host_entry e = {.suffix = false};
    *ret = hosts_new();
    for (size_t i = 0; list && list[i]; i++) {
        if (!host_parse(slice_str(list[i]), &e.host))
            return err_invalid(err, "upstream.hosts: a name of it is no host");
        hosts_add(*ret, &e, (uint32_t)i);
    }
    hosts_seal(*ret);
    return 0;
}

static void
copy_cidrs(struct cidr **ret, size_t *ret_count, const struct cidr *list, size_t count)
{
    if (count == 0)
        return;
    *ret = mem_array(count, sizeof **ret);
    memcpy(*ret, list, count * sizeof **ret);
    *ret_count = count;
}

struct check_ctx {
    const struct policy_context *c;
    struct err *err;
    bool bad;
};

static void
check_platform_entry(void *ctx, const struct host_entry *e, uint32_t index)
{
    struct check_ctx *x = ctx;
    if (x->bad || e->host.kind == HOST_NAME || context_literal_may_load(x->c, &e->host))
        return;
    x->bad = true;
    err_invalid(x->err, "platform_hosts[%u]: %s is %s; open it in upstream.allow_addresses first", index, e->host.text,
                guard_address_name(&e->host.literal));
}

static int
fill(struct policy_context *c, const struct policy_context_options *o, struct err *err)
{
    static const uint16_t usual[] = {80, 443}, tls[] = {443}, plain[] = {80};

    c->inspect = o->inspect;
    c->has_parent = o->has_parent;
    copy_cidrs(&c->allow, &c->allow_count, o->allow_addresses, o->allow_address_count);
    copy_cidrs(&c->delegable, &c->delegable_count, o->delegable_addresses, o->delegable_address_count);
    if (copy_ports(&c->default_ports, o->default_ports, o->default_port_count, usual, 2, err) < 0 ||
        copy_ports(&c->tls_ports, o->tls_ports, o->tls_port_count, tls, 1, err) < 0 ||
        copy_ports(&c->plain_ports, o->plain_ports, o->plain_port_count, plain, 1, err) < 0 ||
        read_list(&c->platform, "platform_hosts", o->platform_hosts, err) < 0 ||
        read_list(&c->blocked, "blocked_hosts", o->blocked_hosts, err) < 0 ||
        read_list(&c->passthrough, "inspect.passthrough", o->passthrough, err) < 0 ||
        read_overrides(&c->overrides, o->override_hosts, err) < 0)
        return -1;
    if (o->registries_json.len > 0 && !(c->registries = registries_parse(o->registries_json, "registries.json", err)))
        return -1;
    if (o->blocklist_json.len > 0 && !(c->blocklist = blocklist_parse(o->blocklist_json, "safety-blocklist.json", err)))
        return -1;
    struct check_ctx x = {c, err, false};
    hosts_each(c->platform, check_platform_entry, &x);
    return x.bad ? -1 : 0;
}

struct policy_context *
policy_context_new(const struct policy_context_options *o, struct err *err)
{
    struct policy_context *c = mem_zalloc(sizeof *c);
    c->refs = 1;
    if (fill(c, o, err) < 0) {
        policy_context_unref(c);
        return NULL;
    }
    return c;
}

struct policy_context *
policy_context_ref(struct policy_context *c)
{
    c->refs++;
    return c;
}

void
policy_context_unref(struct policy_context *c)
{
    if (!c || --c->refs > 0)
        return;
    hosts_free(c->platform);
    hosts_free(c->blocked);
    hosts_free(c->passthrough);
    hosts_free(c->overrides);
    registries_free(c->registries);
    blocklist_free(c->blocklist);
    free(c->allow);
    free(c->delegable);
    free(c);
}

const struct registries *
policy_context_registries(const struct policy_context *c)
{
    return c->registries;
}

bool
context_literal_may_load(const struct policy_context *c, const struct host *literal)
{
    return guard_address_is_opened(&literal->literal, c->allow, c->allow_count) ||
           guard_address_is_opened(&literal->literal, c->delegable, c->delegable_count);
}

enum scheme
context_tunnel_scheme(const struct policy_context *c, uint16_t port)
{
    if (port_set_has(&c->tls_ports, port))
        return SCHEME_HTTPS;
    return port_set_has(&c->plain_ports, port) ? SCHEME_HTTP : SCHEME_NONE;
}
