/* Finds and starts the helper binaries. Only fixed places are looked at: the search path and the
 * working directory belong to whoever calls, and the helper may run as root. */
#include "sallyport/cmd/helper.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "sallyport/base/mem.h"

/* The folder of the running binary, or NULL. */
static char *
own_folder(void)
{
    char path[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", path, sizeof path);
    if (len <= 0 || (size_t)len == sizeof path)
        return NULL;
    const char *slash = memrchr(path, '/', (size_t)len);
    return slash ? mem_dup_slice(slice_of(path, (size_t)(slash - path))) : NULL;
}

/* Is this binary in libexec/sallyport? From anywhere else ../../bin is somebody else's. */
static bool
in_libexec(const char *folder)
{
    static const char end[] = "/libexec/sallyport";
    size_t len = folder ? strlen(folder) : 0;
    return len >= sizeof end - 1 && strcmp(folder + len - (sizeof end - 1), end) == 0;
}

char *
helper_path(const char *name, struct err *err)
{
    cleanup_free char *folder = own_folder();
    char *tries[] = {
        folder ? mem_printf("%s/%s", folder, name) : NULL,
        folder ? mem_printf("%s/../libexec/sallyport/%s", folder, name) : NULL,
        in_libexec(folder) ? mem_printf("%s/../../bin/%s", folder, name) : NULL,
        mem_printf("%s/libexec/sallyport/%s", SALLYPORT_PREFIX, name),
    };
    char *found = NULL;
    for (size_t i = 0; i < sizeof tries / sizeof tries[0]; i++) {
        if (!found && tries[i] && access(tries[i], X_OK) == 0)
            found = steal(&tries[i]);
        free(tries[i]);
    }
    if (!found)
        err_run(err,
                "%s is not installed: it is expected beside sallyport or in %s/libexec/sallyport",
                name, SALLYPORT_PREFIX);
    return found;
}

int
helper_exec(const char *name, int argc, char **argv, struct err *err)
{
    cleanup_free char *path = helper_path(name, err);
    if (!path)
        return -1;
    char **args = mem_array((size_t)argc + 2, sizeof *args);
    args[0] = path;
    memcpy(args + 1, argv, (size_t)argc * sizeof *args);
    execv(path, args);
    int saved = errno;
    free(args);
    errno = saved;
    return err_errno(err, "%s cannot be started", path);
}
