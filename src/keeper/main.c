/* The keeper's binary: one role and nothing else. Parses no HTTP, no TLS and nothing of a client but a token; links neither the
 * resolver nor the proxy. */
#include <stdio.h>
#include <string.h>

#include "sallyport/process/role.h"

int
main(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "keeper") != 0) {
        fprintf(stderr, "sallyport-keeper: is started by `sallyport serve` alone\n");
        return 2;
    }
    return keeper_main(argc - 1, argv + 1);
}
