/* The environment of a sandboxed program, as a table: what the caller's environment passes on, what points programs at the
 * proxy and at the CA bundle, and how each is joined with what the user had set. A row is a variable that some client was
 * tried with. What is not here stays outside: a caller's environment is full of credentials. */
#include "sallyport/sandbox/environment.h"

#include <string.h>
#include <unistd.h>

#include "sallyport/base/mem.h"
#include "sallyport/sandbox/trust.h"

#define VARIABLES_MAX 256

enum merge {
    PASS = 1, /* the caller's value, if there is one */
    SET,      /* ours, whatever the caller's is: another value would only lead nowhere */
    APPEND,   /* ours behind the caller's, a space between */
};

enum when { ALWAYS = 1, PROXY, TRUST, EITHER };

struct row {
    const char *name;  /* "LC_*": every name that begins so */
    enum merge merge;
    enum when when;
    const char *value; /* %P the proxy's URL, %B the bundle, %J Java's options, %I the sandbox */
};

#define JAVA_PROXY                                                                                                     \
    "-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=3128 -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=3128 "              \
    "-Dhttp.nonProxyHosts=localhost|127.*|[::1] -Djdk.http.auth.tunneling.disabledSchemes="
#define JAVA_TRUST "-Djavax.net.ssl.trustStore=" INSIDE_JAVA_STORE " -Djavax.net.ssl.trustStoreType=JKS"
#define LOOPBACK "localhost,127.0.0.1,::1"

static const struct row rows[] = {
    {"PATH", PASS, ALWAYS, "/usr/local/bin:/usr/bin:/bin"},
    {"TERM", PASS, ALWAYS, NULL},
    {"COLORTERM", PASS, ALWAYS, NULL},
    {"NO_COLOR", PASS, ALWAYS, NULL},
    {"FORCE_COLOR", PASS, ALWAYS, NULL},
    {"LANG", PASS, ALWAYS, NULL},
    {"LANGUAGE", PASS, ALWAYS, NULL},
    {"LC_*", PASS, ALWAYS, NULL},
    {"TZ", PASS, ALWAYS, NULL},
    {"CI", PASS, ALWAYS, NULL},
    {"HOME", SET, ALWAYS, SANDBOX_HOME},
    {"USER", SET, ALWAYS, "sandbox"},
    {"LOGNAME", SET, ALWAYS, "sandbox"},
    {"SHELL", SET, ALWAYS, "/bin/sh"},
    {"TMPDIR", SET, ALWAYS, "/tmp"},
    {"SALLYPORT_SANDBOX", SET, ALWAYS, "%I"},
    /* curl, git and most others; wget and apt read the lower case, Go and Ruby's http the upper. ALL_PROXY stays unset: some
     * would send every scheme through it. */
    {"HTTP_PROXY", SET, PROXY, "%P"},
    {"http_proxy", SET, PROXY, "%P"},
    {"HTTPS_PROXY", SET, PROXY, "%P"},
    {"https_proxy", SET, PROXY, "%P"},
    {"NO_PROXY", SET, PROXY, LOOPBACK},
    {"no_proxy", SET, PROXY, LOOPBACK},
    /* Node: fetch and http(s) look at the variables only when told to. */
    {"NODE_USE_ENV_PROXY", SET, PROXY, "1"},
    {"npm_config_proxy", SET, PROXY, "%P"},
    {"npm_config_https_proxy", SET, PROXY, "%P"},
    {"npm_config_noproxy", SET, PROXY, LOOPBACK},
    {"YARN_HTTP_PROXY", SET, PROXY, "%P"},
    {"YARN_HTTPS_PROXY", SET, PROXY, "%P"},
    {"GLOBAL_AGENT_HTTP_PROXY", SET, PROXY, "%P"},
    {"GLOBAL_AGENT_HTTPS_PROXY", SET, PROXY, "%P"},
    {"ELECTRON_GET_USE_PROXY", SET, PROXY, "1"},
    {"grpc_proxy", SET, PROXY, "%P"},
    {"CLOUDSDK_PROXY_TYPE", SET, PROXY, "http"},
    {"CLOUDSDK_PROXY_ADDRESS", SET, PROXY, "127.0.0.1"},
    {"CLOUDSDK_PROXY_PORT", SET, PROXY, "3128"},
    {"JAVA_TOOL_OPTIONS", APPEND, EITHER, "%J"},
    /* One bundle, the system's roots and the CA: it may replace as well as add. */
    {"SSL_CERT_FILE", SET, TRUST, "%B"},
    {"CURL_CA_BUNDLE", SET, TRUST, "%B"},
    {"REQUESTS_CA_BUNDLE", SET, TRUST, "%B"},
    {"PIP_CERT", SET, TRUST, "%B"},
    {"NODE_EXTRA_CA_CERTS", SET, TRUST, "%B"},
    {"DENO_CERT", SET, TRUST, "%B"},
    {"CARGO_HTTP_CAINFO", SET, TRUST, "%B"},
    {"GIT_SSL_CAINFO", SET, TRUST, "%B"},
    {"BUNDLE_SSL_CA_CERT", SET, TRUST, "%B"},
    {"COMPOSER_CAFILE", SET, TRUST, "%B"},
    {"YARN_HTTPS_CA_FILE_PATH", SET, TRUST, "%B"},
    {"AWS_CA_BUNDLE", SET, TRUST, "%B"},
    {"HEX_CACERTS_PATH", SET, TRUST, "%B"},
    {"NIX_SSL_CERT_FILE", SET, TRUST, "%B"},
    {"CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", SET, TRUST, "%B"},
};

struct making {
    const struct environment_in *in;
    char **list;
    size_t count;
};

static size_t
name_length(const char *entry)
{
    return strcspn(entry, "=");
}

static bool
same_name(const char *entry, const char *name, size_t len)
{
    return strncmp(entry, name, len) == 0 && entry[len] == '=';
}

static const char *
value_in(char **list, const char *name, size_t len)
{
    for (; list && *list; list++)
        if (same_name(*list, name, len))
            return *list + len + 1;
    return NULL;
}

/* Takes over entry; a variable stands once. */
static void
put(struct making *m, char *entry)
{
    size_t len = name_length(entry);
    for (size_t i = 0; i < m->count; i++)
        if (same_name(m->list[i], entry, len)) {
            free(m->list[i]);
            m->list[i] = entry;
            return;
        }
    if (m->count < VARIABLES_MAX)
        m->list[m->count++] = entry;
    else
        free(entry);
}

static char *
expand(const struct environment_in *in, const char *value)
{
    if (strcmp(value, "%P") == 0)
        return mem_printf("http://%s%s127.0.0.1:%d", in->credential ? in->credential : "", in->credential ? "@" : "",
                          SANDBOX_PROXY_PORT);
    if (strcmp(value, "%B") == 0)
        return mem_strdup(in->ca_bundle);
    if (strcmp(value, "%J") == 0)
        return mem_printf("%s%s%s", in->proxy ? JAVA_PROXY : "", in->proxy && in->ca_bundle ? " " : "", in->ca_bundle ? JAVA_TRUST : "");
    return mem_strdup(strcmp(value, "%I") == 0 ? in->id : value);
}

static void
pass_prefix(struct making *m, const char *prefix, size_t len)
{
    for (char **e = m->in->caller; e && *e; e++)
        if (strncmp(*e, prefix, len) == 0 && strchr(*e, '='))
            put(m, mem_strdup(*e));
}

static void
add_row(struct making *m, const struct row *row)
{
    size_t len = strlen(row->name);
    const char *had = value_in(m->in->caller, row->name, len);
    if (row->merge == PASS && row->name[len - 1] == '*') {
        pass_prefix(m, row->name, len - 1);
        return;
    }
    if (row->merge == PASS && !row->value && !had)
        return;
    cleanup_free char *ours = row->value ? expand(m->in, row->value) : NULL;
    if (row->merge == PASS)
        put(m, mem_printf("%s=%s", row->name, had && *had ? had : ours ? ours : ""));
    else if (row->merge == APPEND && had && *had)
        put(m, mem_printf("%s=%s %s", row->name, had, ours));
    else
        put(m, mem_printf("%s=%s", row->name, ours));
}

static bool
is_wanted(const struct environment_in *in, enum when when)
{
    switch (when) {
    case ALWAYS:
        return true;
    case PROXY:
        return in->proxy;
    case TRUST:
        return in->ca_bundle != NULL;
    case EITHER:
        return in->proxy || in->ca_bundle;
    }
    return false;
}

static bool
name_ok(const char *name, size_t len)
{
    if (len == 0 || (name[0] >= '0' && name[0] <= '9'))
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'))
            return false;
    }
    return true;
}

static const struct row *
find_row(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strncmp(rows[i].name, name, len) == 0 && rows[i].name[len] == '\0')
            return &rows[i];
    return NULL;
}

/* What --env says of the variable, else the caller's value, else NULL. */
static const char *
value_before(const struct environment_in *in, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = in->wanted ? in->wanted->count : 0; i-- > 0;)
        if (same_name(in->wanted->items[i], name, len))
            return in->wanted->items[i] + len + 1;
    return value_in(in->caller, name, len);
}

static bool
is_bundle_row(const struct row *row)
{
    return row->value && strcmp(row->value, "%B") == 0;
}

const char *
environment_trust_file(const struct environment_in *in, size_t *i)
{
    for (; *i < sizeof rows / sizeof rows[0]; ++*i) {
        const char *value = is_bundle_row(&rows[*i]) ? value_before(in, rows[*i].name) : NULL;
        if (value && *value)
            return value;
    }
    return NULL;
}

/* What was asked for by name goes over the table, but joins what programs need to find the proxy. A trust file that could be
 * read here is in the bundle; any other may lie inside, where only the user knows it. */
static int
add_wanted(struct making *m, const char *text, struct err *err)
{
    size_t len = name_length(text);
    if (!name_ok(text, len))
        return err_invalid(err, "--env: NAME=VALUE or NAME is expected");
    const char *value = text[len] == '=' ? text + len + 1 : value_in(m->in->caller, text, len);
    if (!value)
        return 0; /* NAME alone, and the caller has none */
    const struct row *row = find_row(text, len);
    if (row && row->merge == APPEND && is_wanted(m->in, row->when)) {
        cleanup_free char *ours = expand(m->in, row->value);
        put(m, mem_printf("%.*s=%s %s", (int)len, text, value, ours));
        return 0;
    }
    if (row && is_bundle_row(row) && is_wanted(m->in, row->when) && access(value, R_OK) == 0)
        return 0;
    put(m, mem_printf("%.*s=%s", (int)len, text, value));
    return 0;
}

char **
environment_make(const struct environment_in *in, struct err *err)
{
    struct making m = {in, mem_array(VARIABLES_MAX + 1, sizeof(char *)), 0};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (is_wanted(in, rows[i].when))
            add_row(&m, &rows[i]);
    for (size_t i = 0; in->wanted && i < in->wanted->count; i++)
        if (add_wanted(&m, in->wanted->items[i], err) < 0) {
            environment_free(m.list);
            return NULL;
        }
    return m.list;
}

void
environment_free(char **env)
{
    for (char **e = env; e && *e; e++)
        free(*e);
    free(env);
}
