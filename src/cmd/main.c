/* `sallyport COMMAND …`: `serve` is here, as the supervisor needs little; whatever else is asked for is sallyport-tool's, which has
 * OpenSSL, tokens and policies, and this process is replaced by it. */
#include <stdio.h>
#include <string.h>

#include "sallyport/cmd/cmd.h"
#include "sallyport/cmd/helper.h"

#define RUN_NOT_MADE 125 /* by which `run` says that there was no sandbox, and no command in it */

int
main(int argc, char **argv)
{
    struct err err = {0};
    if (argc < 2) {
        fprintf(stderr, "sallyport: a command is expected; --help lists them\n");
        return 2;
    }
    if (strcmp(argv[1], "serve") == 0)
        return cmd_serve(argc - 1, argv + 1);
    helper_exec("sallyport-tool", argc - 1, argv + 1, &err);
    int status = cmd_fail(&err);
    return strcmp(argv[1], "run") == 0 ? RUN_NOT_MADE : status;
}
