/* The recorder's binary: one role and nothing else. Of OpenSSL it has the hash and a key's signature; no TLS, no HTTP, no tokens, no
 * policies. */
#include <stdio.h>
#include <string.h>

#include "sallyport/process/role.h"

int
main(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "recorder") != 0) {
        fprintf(stderr, "sallyport-recorder: is started by `sallyport serve` alone\n");
        return 2;
    }
    return recorder_main(argc - 1, argv + 1);
}
