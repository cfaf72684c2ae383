/* `sallyport-run`: the helper that holds the namespace code. It is started by `sallyport`, not by hand, and links no HTTP,
 * TLS, JWT or event code. */
#include <stdio.h>
#include <string.h>

#include "sallyport/sandbox/fence.h"
#include "sallyport/sandbox/launch.h"
#include "sallyport/sandbox/limits.h"

/* After a launcher that was killed: what only it knew of. */
static int
sweep_main(int argc, char **argv)
{
    limits_sweep();
    if (argc > 1)
        remove_run_dir(argv[1]);
    return 0;
}

static const struct { const char *name; int (*fn)(int argc, char **argv); } verbs[] = {
    {"launch", launch_main},
    {"sweep", sweep_main},
    {"fence", fence_main},
};

int
main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < sizeof verbs / sizeof verbs[0]; i++)
        if (strcmp(argv[1], verbs[i].name) == 0)
            return verbs[i].fn(argc - 1, argv + 1);
    fprintf(stderr, "sallyport: sallyport-run is the helper of `sallyport run` and `sallyport fence`\n");
    return 2;
}
