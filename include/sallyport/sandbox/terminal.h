/* A terminal of the sandbox's own, and the copying between it and the caller's. */
#ifndef SALLYPORT_SANDBOX_TERMINAL_H
#define SALLYPORT_SANDBOX_TERMINAL_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <termios.h>

#define TERMINAL_BUFFER 8192

struct terminal {
    int master;       /* -1: none (yet) */
    int in, out;      /* the caller's; in is -1 when standard input is no terminal */
    bool raw;
    bool in_ended;
    struct termios before;
    char to_master[TERMINAL_BUFFER], to_out[TERMINAL_BUFFER];
    size_t to_master_len, to_out_len;
};

bool terminal_wanted(void); /* is one of 0, 1, 2 a terminal? */
void terminal_init(struct terminal *t);
void terminal_attach(struct terminal *t, int master); /* takes the descriptor; the caller's goes raw */
void terminal_resize(struct terminal *t);
/* Two rows for poll, and what to do after it. False: the master is gone. */
void terminal_poll(struct terminal *t, struct pollfd rows[3]);
void terminal_move(struct terminal *t, const struct pollfd rows[3]);
void terminal_finish(struct terminal *t); /* what is left of the output; the caller's as it was */

#endif
