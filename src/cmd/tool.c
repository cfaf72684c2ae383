/* sallyport-tool: a table of every command but `serve`, which `sallyport` has itself (cmd/main.c). */
#include <stdio.h>
#include <string.h>

#include "sallyport/base/json.h"
#include "sallyport/cmd/cmd.h"
#include "sallyport/cmd/devkey.h"

static const struct command commands[] = {
    {"serve", NULL, "run the proxy in the foreground"},
    {"run", cmd_run, "run a program in a sandbox that can leave only through the proxy"},
    {"check", cmd_check, "what a policy does with each target, and why"},
    {"policy", cmd_policy, "lint, scope, diff, suggest, replay: look at a policy, or at records by one"},
    {"token", cmd_token, "keygen, mint, show, revoke"},
    {"ca", cmd_ca, "init, show, bundle: the inspection CA"},
    {"log", cmd_log, "verify, summary, follow: read the decision log"},
    {"fence", cmd_fence, "install, show, remove: nftables rules for a pod or VM"},
    {"doctor", cmd_doctor, "inside a sandbox: try the ways out, look at proxy and trust settings"},
    {"version", cmd_version, "name, version, libraries"},
};
#define COMMAND_COUNT (sizeof commands / sizeof commands[0])

static void
help(FILE *out)
{
    fprintf(out, "usage: sallyport COMMAND [OPTIONS]\n\nA forward proxy that lets a sandbox out only as its token and policy say.\n\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        fprintf(out, "  %-10s%s\n", commands[i].name, commands[i].help);
    fprintf(out, "\n`sallyport COMMAND --help` says more.\n");
}

static int
unknown(const char *word)
{
    const char *names[COMMAND_COUNT + 1];
    struct err err = {0};
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        names[i] = commands[i].name;
    names[COMMAND_COUNT] = NULL;
    const char *near = nearest_word(word, names);
    err_invalid(&err, "unknown command %.80s; %s%s", word, near ? "did you mean " : "--help lists the commands", near ? near : "");
    return cmd_fail(&err);
}

int
main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "sallyport: a command is expected; --help lists them\n");
        return 2;
    }
    const char *word = argv[1];
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
        help(stdout);
        return 0;
    }
    if (strcmp(word, "--version") == 0)
        word = "version";
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        if (commands[i].fn && strcmp(commands[i].name, word) == 0)
            return commands[i].fn(argc - 1, argv + 1);
    if (strcmp(word, "dev-key") == 0) /* for `serve --dev` alone */
        return dev_key_main(argc - 1, argv + 1);
    return unknown(word);
}
