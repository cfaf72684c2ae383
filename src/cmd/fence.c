/* `sallyport fence`: the helper's, which reads the options itself. This process is replaced by it.
 */
#include "sallyport/cmd/cmd.h"
#include "sallyport/cmd/helper.h"

int
cmd_fence(int argc, char **argv)
{
    struct err err = {0};
    helper_exec("sallyport-run", argc, argv, &err);
    return cmd_fail(&err);
}
