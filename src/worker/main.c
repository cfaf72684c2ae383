/* The binary of those who work with tokens and policies: workers, the admin process, and the checker. None of the commands is in
 * it, nor what mints a token. */
#include <stdio.h>
#include <string.h>

#include "sallyport/process/role.h"

static const struct {
    const char *name;
    int (*fn)(int argc, char **argv);
} roles[] = {
    {"worker", worker_main},
    {"admin", admin_main},
    {"checker", checker_main},
};

int
main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < sizeof roles / sizeof roles[0]; i++)
        if (strcmp(roles[i].name, argv[1]) == 0)
            return roles[i].fn(argc - 1, argv + 1);
    fprintf(stderr, "sallyport-worker: is started by `sallyport serve` alone\n");
    return 2;
}
