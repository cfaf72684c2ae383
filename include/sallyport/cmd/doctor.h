/* `sallyport doctor`: what its parts share. Each part adds rows; cmd/doctor.c prints them. Nothing that doctor tries changes
 * anything: what could is asked in a form that fails after the permission was checked. */
#ifndef SALLYPORT_CMD_DOCTOR_H
#define SALLYPORT_CMD_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sallyport/cmd/cmd.h"

#define DOCTOR_ROWS_MAX 192
#define DOCTOR_NAME_SIZE 64
#define DOCTOR_FOUND_SIZE 200
#define DOCTOR_PROBES_MAX 16

enum doctor_verdict {
    DOCTOR_FAIL = 0, /* something can leave, or take the confinement off */
    DOCTOR_WARN,     /* no way out by itself */
    DOCTOR_PASS,
    DOCTOR_VERDICTS
};

struct doctor_row {
    const char *group;             /* static */
    const char *advice;            /* static: one line, what to do; shown where it did not pass */
    char name[DOCTOR_NAME_SIZE];   /* printable ASCII, as is found */
    char found[DOCTOR_FOUND_SIZE];
    enum doctor_verdict verdict;
};

struct doctor {
    struct option_list probes;     /* ADDR:PORT to try beside the built-in ones */
    bool has_proxy_uid;
    uint32_t proxy_uid;
    const char *ca_file;           /* NULL: which CA should be trusted is not known */
    bool transparent;              /* set by the network part: connections are answered on loopback */
    struct doctor_row rows[DOCTOR_ROWS_MAX];
    size_t row_count;
};

/* Copies; bytes that are not printable become '?'. Rows past the maximum are left out, which itself is a failed row. */
void doctor_add(struct doctor *d, const char *group, const char *name, enum doctor_verdict verdict, const char *advice, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));

void doctor_inherited(struct doctor *d); /* first: before anything else opens a descriptor */
int doctor_network(struct doctor *d, struct err *err); /* -1: a --probe that is no address and port; at most two seconds */
void doctor_sockets(struct doctor *d);   /* kinds of sockets, netlink, unix sockets of others */
void doctor_kernel(struct doctor *d);    /* user, capabilities, namespaces, filters, files */
void doctor_settings(struct doctor *d);  /* proxy and trust variables; after doctor_network */

/* Runs fn in a child, so that what it changes is gone with it. fn's result (0 to 125), or -1: killed or late. */
int doctor_in_child(int (*fn)(void *arg), void *arg);

#endif
