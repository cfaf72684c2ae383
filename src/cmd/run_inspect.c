/* Inspection for one run: who asks for it, a CA that nobody else has, and the bundle that the sandbox trusts. The CA's key lies in
 * the run's private folder for the keeper to read; only certificates go inside. A CA that the configuration names is used as it is. */
#include <stdio.h>
#include <string.h>

#include "sallyport/base/buf.h"
#include "sallyport/base/clock.h"
#include "sallyport/base/file.h"
#include "sallyport/base/json.h"
#include "sallyport/base/mem.h"
#include "sallyport/cmd/run.h"
#include "sallyport/process/config.h"
#include "sallyport/tls/context.h"
#include "sallyport/tls/mint.h"

#define ROOTS_MAX (8u << 20) /* a system's trust file; the usual one has 220 KB */
#define CA_DAYS 365          /* longer than any run; the key goes with it */

static const char *
text_at(const json_t *object, const char *section, const char *name)
{
    return json_string_value(json_object_get(json_object_get(object, section), name));
}

/* Where neither option nor configuration says anything, what the policy asks for is what the caller wants: the caller is the
 * operator. What is wrong with the policy is said where it is loaded. */
static void
follow_policy(struct run *r)
{
    struct err ignored = {0};
    if (!r->policy_text || !strstr(r->policy_text, "\"inspect\""))
        return;
    json_t *policy = json_read(slice_str(r->policy_text), "policy", CONFIG_DEPTH_MAX, &ignored);
    const char *mode = text_at(policy, "inspect", "mode");
    if (mode)
        config_set(r->config, "inspect.mode", json_string(mode));
    json_decref(policy);
}

static bool
is_wanted(struct run *r)
{
    if (r->o.inspect)
        config_set(r->config, "inspect.mode", json_string(r->o.inspect));
    else if (!text_at(r->config, "inspect", "mode"))
        follow_policy(r);
    const char *mode = text_at(r->config, "inspect", "mode");
    return mode && strcmp(mode, "off") != 0;
}

static int
make_ca(struct run *r, char **ret_cert, struct err *err)
{
    struct ca_options o = {.now_s = clock_wall_us() / 1000000, .days = CA_DAYS};
    char *cert = NULL, *key = NULL;
    if (ca_generate(&o, &cert, &key, err) < 0)
        return -1;
    cleanup_free char *cert_path = mem_printf("%s/ca.pem", r->dir), *key_path = mem_printf("%s/ca.key", r->dir);
    int rc = file_create_private(key_path, slice_str(key), err);
    if (rc == 0)
        rc = file_create_private(cert_path, slice_str(cert), err);
    mem_wipe(key, strlen(key));
    free(key);
    if (rc == 0)
        *ret_cert = steal(&cert);
    free(cert);
    config_set(r->config, "inspect.ca", json_string(r->dir));
    return rc;
}

static int
read_ca(const char *folder, char **ret_cert, struct err *err)
{
    size_t len;
    struct ca_facts facts;
    cleanup_free char *path = mem_printf("%s/ca.pem", folder);
    if (file_read(path, CA_PEM_MAX, FILE_ANY, ret_cert, &len, err) < 0)
        return err_wrap(err, "inspect.ca");
    if (ca_describe(slice_of(*ret_cert, len), &facts, err) < 0)
        return err_wrap(err, "inspect.ca: %s", path);
    ca_facts_done(&facts);
    return 0;
}

static int
write_bundle(struct run *r, const char *cert, struct err *err)
{
    cleanup_free char *roots = NULL, *path = mem_printf("%s/ca-bundle.pem", r->dir);
    size_t len;
    const char *system = tls_system_roots();
    if (!system)
        return err_run(err, "inspection: this system has no CA certificates in a usual place");
    if (file_read(system, ROOTS_MAX, FILE_ANY, &roots, &len, err) < 0)
        return -1;
    struct buf b;
    buf_init(&b, ROOTS_MAX + CA_PEM_MAX + 1);
    bool fine = buf_append(&b, roots, len) && buf_append_str(&b, "\n") && buf_append_str(&b, cert);
    int rc = fine ? file_create_private(path, buf_slice(&b), err) : err_invalid(err, "%s: is too large", system);
    buf_done(&b);
    return rc;
}

int
run_make_trust(struct run *r, struct err *err)
{
    char *cert = NULL;
    if (r->o.inspect && strcmp(r->o.inspect, "off") != 0 && strcmp(r->o.inspect, "listed") != 0 && strcmp(r->o.inspect, "all") != 0)
        return err_invalid(err, "--inspect: off, listed or all is expected");
    if (!is_wanted(r))
        return 0;
    const char *named = text_at(r->config, "inspect", "ca");
    int rc = named ? read_ca(named, &cert, err) : make_ca(r, &cert, err);
    if (rc == 0)
        rc = write_bundle(r, cert, err);
    r->inspects = rc == 0;
    free(cert);
    return rc;
}
