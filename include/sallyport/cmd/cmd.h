/* The sub-commands: one file each, one row each in cmd/main.c. argv[0] is the sub-command's name; the result is the exit
 * status (CONTRACT section 1: 0 yes, 1 no, 2 bad usage or input, 3 could not run). */
#ifndef SALLYPORT_CMD_CMD_H
#define SALLYPORT_CMD_CMD_H

#include <stdbool.h>
#include <stdio.h>

#include "sallyport/base/err.h"

struct command {
    const char *name;
    int (*fn)(int argc, char **argv);
    const char *help; /* one line */
};

int cmd_serve(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_policy(int argc, char **argv);
int cmd_token(int argc, char **argv);
int cmd_ca(int argc, char **argv);
int cmd_log(int argc, char **argv);
int cmd_fence(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_version(int argc, char **argv);

/* Options shared by the commands: a table instead of a switch. */
enum option_kind { OPTION_FLAG, OPTION_TEXT, OPTION_REPEATED };
struct option_row {
    const char *name;         /* "--policy" */
    enum option_kind kind;
    void *dest;               /* bool *, const char ** or struct option_list * */
    const char *argument;     /* "FILE", for the help */
    const char *help;
};
struct option_list { const char *items[1024]; size_t count; };
/* Takes options out of argv (also "--name=value"; "--" ends them); what remains is *argc and argv. 0, or -1 with err (unknown
 * option: names the nearest known one). rows end with a name of NULL. */
int options_parse(const struct option_row *rows, int *argc, char **argv, struct err *err);
void options_help(FILE *out, const char *usage, const struct option_row *rows);
/* Prints "sallyport: …" on standard error and returns the exit status. */
int cmd_fail(const struct err *err);
int cmd_usage(const char *usage); /* 2 */
/* The installed data file (registries.json, safety-blocklist.json): ./policies/NAME, beside the binary's ../policies or
 * ../share/sallyport/policies, from libexec too. Heap, or NULL when there is none. */
char *data_file(const char *name);

#endif
