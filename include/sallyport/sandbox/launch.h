/* `sallyport-run launch`: makes one sandbox, waits for its end, leaves nothing. */
#ifndef SALLYPORT_SANDBOX_LAUNCH_H
#define SALLYPORT_SANDBOX_LAUNCH_H

#include "sallyport/sandbox/options.h"

#define STATUS_NO_SANDBOX 125 /* the sandbox could not be made */

/* argc and argv are main's own: they are wiped inside, where a sandboxed program could read them. */
int launch_main(int argc, char **argv);
/* Removes a run directory and what it holds. */
void remove_run_dir(const char *path);

#endif
