/* `sallyport version`: name, version, and the libraries as they are loaded now, which need not be
 * those of the build. Each library's header belongs to one folder, so that what a library says of
 * itself is asked through the dynamic linker; one that is not linked is not listed. */
#include <dlfcn.h>
#include <jansson.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "sallyport/cmd/cmd.h"

#define USAGE "sallyport version [--json]"
#define VERSION_SIZE 64
#define PCRE2_VERSION 11 /* PCRE2_CONFIG_VERSION */

/* Writes the version; false when the library does not say. */
typedef bool version_fn(void *symbol, char text[VERSION_SIZE]);

static bool
copy_text(const char *version, char text[VERSION_SIZE])
{
    if (!version)
        return false;
    snprintf(text, VERSION_SIZE, "%s", version);
    return true;
}

static bool
ask_plain(void *symbol, char text[VERSION_SIZE])
{
    const char *(*ask)(void) = (const char *(*)(void))symbol;
    return copy_text(ask(), text);
}

/* ares_version(int *) and idn2_check_version(const char *) take a pointer that may be NULL. */
static bool
ask_with_null(void *symbol, char text[VERSION_SIZE])
{
    const char *(*ask)(void *) = (const char *(*)(void *))symbol;
    return copy_text(ask(NULL), text);
}

static bool
ask_pcre2(void *symbol, char text[VERSION_SIZE])
{
    int (*ask)(unsigned, void *) = (int (*)(unsigned, void *))symbol;
    char version[VERSION_SIZE]; /* "10.42 2022-12-11" */
    if (ask(PCRE2_VERSION, NULL) > (int)sizeof version || ask(PCRE2_VERSION, version) < 0)
        return false;
    version[strcspn(version, " ")] = '\0';
    return copy_text(version, text);
}

static bool
ask_seccomp(void *symbol, char text[VERSION_SIZE])
{
    const unsigned *(*ask)(void) = (const unsigned *(*)(void))symbol;
    const unsigned *numbers = ask();
    if (!numbers)
        return false;
    snprintf(text, VERSION_SIZE, "%u.%u.%u", numbers[0], numbers[1], numbers[2]);
    return true;
}

/* A library that does not know its own version: that of its file. */
static bool
ask_file(void *symbol, char text[VERSION_SIZE])
{
    Dl_info info;
    char path[PATH_MAX];
    if (!dladdr(symbol, &info) || !info.dli_fname || !realpath(info.dli_fname, path))
        return false;
    const char *suffix = strstr(path, ".so.");
    return copy_text(suffix ? suffix + 1 : NULL, text);
}

static const struct library {
    const char *name;
    const char *symbol;
    version_fn *version;
} libraries[] = {
    {"openssl", "OpenSSL_version_num", NULL}, /* asked through its own header */
    {"jansson", "jansson_version_str", ask_plain},    {"libevent", "event_get_version", ask_plain},
    {"c-ares", "ares_version", ask_with_null},        {"pcre2", "pcre2_config_8", ask_pcre2},
    {"libidn2", "idn2_check_version", ask_with_null}, {"libpsl", "psl_get_version", ask_plain},
    {"libseccomp", "seccomp_version", ask_seccomp},   {"libjwt", "jwt_new", ask_file},
};

static bool
library_version(const struct library *l, char text[VERSION_SIZE])
{
    if (!l->version)
        return copy_text(OpenSSL_version(OPENSSL_VERSION_STRING), text);
    void *symbol = dlsym(RTLD_DEFAULT, l->symbol);
    return symbol && l->version(symbol, text);
}

static void
print_json(void)
{
    json_t *loaded = json_object();
    for (size_t i = 0; i < sizeof libraries / sizeof libraries[0]; i++) {
        char version[VERSION_SIZE];
        if (library_version(&libraries[i], version))
            json_object_set_new(loaded, libraries[i].name, json_string(version));
    }
    json_t *all = json_pack("{s:s, s:s, s:o}", "name", "sallyport", "version", SALLYPORT_VERSION,
                            "libraries", loaded);
    json_dumpf(all, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(all);
}

static void
print_text(void)
{
    printf("sallyport %s\n", SALLYPORT_VERSION);
    for (size_t i = 0; i < sizeof libraries / sizeof libraries[0]; i++) {
        char version[VERSION_SIZE];
        if (library_version(&libraries[i], version))
            printf("  %-10s %s\n", libraries[i].name, version);
    }
}

int
cmd_version(int argc, char **argv)
{
    bool json = false, help = false;
    struct err err = {0};
    const struct option_row rows[] = {
        {"--json", OPTION_FLAG, &json, NULL, "as one JSON object"},
        {"--help", OPTION_FLAG, &help, NULL, "this text"},
        {0},
    };
    if (options_parse(rows, &argc, argv, &err) != 0)
        return cmd_fail(&err);
    if (help) {
        options_help(stdout, USAGE, rows);
        return 0;
    }
    if (argc > 1)
        return cmd_usage(USAGE);
    if (json)
        print_json();
    else
        print_text();
    return 0;
}
