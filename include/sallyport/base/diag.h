/* Diagnostics on standard error for operators: one line, `sallyport[ROLE]: LEVEL: …`. Never a secret, never raw input. */
#ifndef SALLYPORT_BASE_DIAG_H
#define SALLYPORT_BASE_DIAG_H

enum diag_level { DIAG_ALARM, DIAG_WARNING, DIAG_NOTICE, DIAG_DEBUG };

void diag_set_role(const char *role); /* static string; "" for commands */
void diag_set_level(enum diag_level level); /* default DIAG_NOTICE; SALLYPORT_DEBUG=1 gives DIAG_DEBUG */
/* Control bytes in the result are escaped; long lines are cut. */
void diag(enum diag_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
