/* Reading /proc/PID for the supervisor's metrics. The numbers are the kernel's; nothing here comes from a client. */
#include "sallyport/process/usage.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sallyport/base/slice.h"

static void
add_stat(pid_t pid, struct usage *sum)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return;
    text[n] = '\0';
    /* Field 2 is the name in brackets, which may hold anything; 14, 15 and 24 are utime, stime and rss (proc(5)). */
    const char *at = strrchr(text, ')');
    struct slice rest = at ? slice_str(at + 1) : slice_str("");
    uint64_t ticks = 0, pages = 0;
    for (int field = 2; rest.ptr && field <= 24; field++) {
        unsigned long long value = 0;
        struct slice word = slice_split(rest, ' ', &rest);
        if (!slice_parse_uint(word, UINT64_MAX, &value))
            continue;
        if (field == 14 || field == 15)
            ticks += value;
        else if (field == 24)
            pages = value;
    }
    sum->cpu_ms += ticks * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
    sum->rss_bytes += pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void
add_fds(pid_t pid, struct usage *sum)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    if (!dir)
        return; /* processes that gave up their privileges are open to root only */
    for (struct dirent *e = readdir(dir); e; e = readdir(dir))
        sum->open_fds += e->d_name[0] != '.';
    closedir(dir);
}

void
usage_add(pid_t pid, struct usage *sum)
{
    add_stat(pid, sum);
    add_fds(pid, sum);
}
