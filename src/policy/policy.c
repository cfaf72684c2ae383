/* A compiled policy as others see it: references and what may be asked of it. The reading is document.c's, the judging
 * decide.c's. */
#include "sallyport/policy/policy.h"

#include <stdlib.h>

#include "sallyport/base/mem.h"
#include "sallyport/policy/model.h"

struct policy *
policy_deny_all(struct policy_context *context, const char *name)
{
    struct policy *p = mem_zalloc(sizeof *p);
    p->refs = 1;
    p->name = mem_strdup(name);
    p->file = mem_strdup("");
    sha256_hex(slice_of("", 0), p->sha256);
    p->context = policy_context_ref(context);
    p->inspect = context->inspect;
    return p;
}

struct policy *
policy_ref(struct policy *p)
{
    p->refs++;
    return p;
}

void
policy_unref(struct policy *p)
{
    if (p && --p->refs == 0)
        policy_destroy(p);
}

static void
free_texts(char **list)
{
    for (size_t i = 0; list && list[i]; i++)
        free(list[i]);
    free(list);
}

static void
free_rules(struct policy *p)
{
    for (size_t i = 0; i < p->rule_count; i++) {
        free(p->rules[i].id);
        free_texts(p->rules[i].methods);
        free(p->rules[i].path_text);
        pattern_free(p->rules[i].path);
    }
    free(p->rules);
    for (size_t i = 0; i < p->method_count; i++)
        free(p->methods[i]);
}

static void
free_servers(struct policy *p)
{
    for (size_t i = 0; i < p->server_count; i++) {
        free(p->servers[i].name);
        free(p->servers[i].path);
        free_texts(p->servers[i].allowed_tools);
        free_texts(p->servers[i].approved_tools);
        free_texts(p->servers[i].denied_tools);
    }
    free(p->servers);
}

void
policy_destroy(struct policy *p)
{
    struct hosts *tables[] = {p->blocked, p->allowed, p->rule_hosts, p->server_hosts, p->private_hosts, p->inspect_hosts, p->passthrough};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
        hosts_free(tables[i]);
    free_rules(p);
    free_servers(p);
    for (size_t i = 0; i < p->private_count; i++)
        free(p->privates[i].cidrs);
    free(p->privates);
    policy_context_unref(p->context);
    free(p->name);
    free(p->file);
    free(p);
}

const char *
policy_name(const struct policy *p)
{
    return p->name;
}

const char *
policy_sha256(const struct policy *p)
{
    return p->sha256;
}

const struct policy_limits *
policy_limits_of(const struct policy *p)
{
    return &p->limits;
}
