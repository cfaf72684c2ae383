/* The environment table: what passes, what is ours, how the two are joined. */
#include "unit/test.h"

#include "sallyport/sandbox/environment.h"

static const char *caller[] = {"PATH=/opt/tool:/usr/bin", "HOME=/srv/caller", "AWS_SECRET_ACCESS_KEY=s3cret", "LC_ALL=C.UTF-8", "LC_=odd",
                         "TERM=dumb", "HTTPS_PROXY=http://user:password@corp.example:1", "NO_PROXY=*", "JAVA_TOOL_OPTIONS=-Xmx1g",
                         "ALL_PROXY=socks5h://corp.example", "EMPTY=", "SSL_CERT_FILE=/srv/caller/ca.pem", "noequals", NULL};

static const char *
get(char **env, const char *name)
{
    size_t len = strlen(name);
    const char *found = NULL;
    for (; env && *env; env++)
        if (strncmp(*env, name, len) == 0 && (*env)[len] == '=') {
            CHECK_THAT(!found, "%s stands twice", name);
            found = *env + len + 1;
        }
    return found;
}

static char **
make(struct text_items *wanted, const char *credential, const char *bundle, bool proxy)
{
    static struct err err;
    struct environment_in in = {(char **)(uintptr_t)caller, wanted, credential, "sbx-1", bundle, proxy};
    err = (struct err){0};
    return environment_make(&in, &err);
}

TEST(nothing_of_the_callers_passes_but_what_is_listed)
{
    char **env = make(NULL, NULL, NULL, true);
    CHECK(!get(env, "AWS_SECRET_ACCESS_KEY"));
    CHECK(!get(env, "ALL_PROXY"));
    CHECK(!get(env, "EMPTY"));
    CHECK(!get(env, "SSL_CERT_FILE"));
    CHECK_STR(get(env, "PATH"), "/opt/tool:/usr/bin");
    CHECK_STR(get(env, "LC_ALL"), "C.UTF-8");
    CHECK_STR(get(env, "TERM"), "dumb");
    CHECK_STR(get(env, "HOME"), SANDBOX_HOME);
    CHECK_STR(get(env, "SALLYPORT_SANDBOX"), "sbx-1");
    for (char **e = env; *e; e++)
        CHECK_THAT(!strstr(*e, "s3cret") && !strstr(*e, "corp.example"), "%s", *e);
    environment_free(env);
}

TEST(proxy_variables_stand_in_both_cases)
{
    static const char *const names[] = {"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "YARN_HTTP_PROXY", "npm_config_proxy"};
    char **env = make(NULL, NULL, NULL, true);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        CHECK_THAT(get(env, names[i]), "%s", names[i]);
        CHECK_STR(get(env, names[i]), "http://127.0.0.1:3128");
    }
    CHECK_STR(get(env, "NO_PROXY"), "localhost,127.0.0.1,::1");
    CHECK_STR(get(env, "no_proxy"), get(env, "NO_PROXY"));
    CHECK_STR(get(env, "NODE_USE_ENV_PROXY"), "1");
    environment_free(env);
    env = make(NULL, NULL, NULL, false);
    CHECK(!get(env, "HTTPS_PROXY") && !get(env, "JAVA_TOOL_OPTIONS") && !get(env, "NO_PROXY"));
    environment_free(env);
}

TEST(java_options_join_the_users)
{
    char **env = make(NULL, NULL, NULL, true);
    CHECK(strncmp(get(env, "JAVA_TOOL_OPTIONS"), "-Xmx1g -Dhttp.proxyHost=127.0.0.1 ", 34) == 0);
    environment_free(env);
    struct text_items wanted = {{"JAVA_TOOL_OPTIONS=-Da=b"}, 1};
    env = make(&wanted, NULL, NULL, true);
    CHECK(strncmp(get(env, "JAVA_TOOL_OPTIONS"), "-Da=b -Dhttp.proxyHost", 22) == 0);
    environment_free(env);
}

TEST(the_exposed_token_stands_in_the_url)
{
    char **env = make(NULL, "sbx-1:jwt_abc", NULL, true);
    CHECK_STR(get(env, "https_proxy"), "http://sbx-1:jwt_abc@127.0.0.1:3128");
    environment_free(env);
}

TEST(one_bundle_for_everybody)
{
    static const char *const names[] = {"SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO",
                                        "PIP_CERT", "CARGO_HTTP_CAINFO", "AWS_CA_BUNDLE", "DENO_CERT", "BUNDLE_SSL_CA_CERT"};
    char **env = make(NULL, NULL, "/etc/x.pem", true);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        CHECK_STR(get(env, names[i]) ? get(env, names[i]) : "(none)", "/etc/x.pem");
    environment_free(env);
}

TEST(what_is_asked_for_by_name_passes)
{
    struct text_items wanted = {{"AWS_SECRET_ACCESS_KEY", "NEW=va=lue", "NOT_THERE", "EMPTY", "TERM=xterm"}, 5};
    char **env = make(&wanted, NULL, NULL, true);
    CHECK_STR(get(env, "AWS_SECRET_ACCESS_KEY"), "s3cret");
    CHECK_STR(get(env, "NEW"), "va=lue");
    CHECK_STR(get(env, "EMPTY"), "");
    CHECK_STR(get(env, "TERM"), "xterm");
    CHECK(!get(env, "NOT_THERE"));
    environment_free(env);
}

TEST(a_name_that_is_none_is_an_error)
{
    static const char *const bad[] = {"", "=x", "1A=x", "A B=x", "A-B", "A\nB=x"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct text_items wanted = {{bad[i]}, 1};
        char **env = make(&wanted, NULL, NULL, true);
        CHECK_THAT(!env, "\"%s\"", bad[i]);
        environment_free(env);
    }
}
