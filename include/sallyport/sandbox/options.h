/* What the launcher is told: `sallyport-run launch OPTIONS -- CMD…`, the way `sallyport run` calls it. All texts are borrowed
 * from argv. */
#ifndef SALLYPORT_SANDBOX_OPTIONS_H
#define SALLYPORT_SANDBOX_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sallyport/base/err.h"

#define SANDBOX_LIST_MAX 64
#define SANDBOX_PORTS_MAX 32
#define SANDBOX_PROXY_PORT 3128
#define SANDBOX_HOME "/home/sandbox"

struct text_items { const char *items[SANDBOX_LIST_MAX]; size_t count; };

struct sandbox_options {
    const char *id;             /* [A-Za-z0-9_-]: names the control group and the host */
    const char *run_dir;        /* private to this run; removed by whoever ends last */
    const char *gate;           /* the binary that serves */
    int wait_fd;                /* CMD and gate wait for a byte from it; its end without one calls it all off. 0: none */
    struct text_items gate_args; /* behind `serve` */
    bool transparent;
    uint16_t ports[SANDBOX_PORTS_MAX]; /* transparent, beside 80 and 443 */
    size_t port_count;
    const char *workdir, *rootfs;
    struct text_items binds, binds_ro;
    struct text_items hides;    /* files that stay outside even where a named directory holds them */
    uint64_t memory_bytes;      /* 0: no limit */
    uint64_t cpu_milli;         /* thousandths of a processor */
    uint64_t pids;
    int64_t timeout_s;
    bool best_effort;           /* limits by rlimits where there is no control group */
    struct text_items env;      /* NAME=VALUE, or NAME: the caller's own */
    bool no_proxy_env;
    const char *credential_file; /* "user:password" for the proxy URL; NULL: nothing in it */
    const char *ca_bundle;      /* copied inside, with the variables that point at it */
    char **command;
};

/* 0, or -1 with err (ERR_INVALID). */
int sandbox_options_parse(int argc, char **argv, struct sandbox_options *ret, struct err *err);
/* "512M", "2G", "1048576": bytes. "1.5": thousandths. False: neither. */
bool parse_size(const char *text, uint64_t *ret);
bool parse_milli(const char *text, uint64_t *ret);

#endif
