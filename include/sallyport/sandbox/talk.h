/* The words between the launcher and the sandbox's first process, over a SOCK_SEQPACKET pair that ends with either of them. */
#ifndef SALLYPORT_SANDBOX_TALK_H
#define SALLYPORT_SANDBOX_TALK_H

#include <stdint.h>
#include <sys/types.h>

#include "sallyport/base/err.h"
#include "sallyport/sandbox/sockets.h"

enum say {
    SAY_NOTHING = 0,
    SAY_GO,       /* launcher: your ids are mapped, your limits are laid */
    SAY_FILTER,   /* launcher: the program of the system call filter */
    SAY_SOCKETS,  /* inside: the sockets for the gate; their names in the text, a line each */
    SAY_TERMINAL, /* inside: the master of your terminal */
    SAY_STARTED,  /* inside: CMD is about to run */
    SAY_FAILED,   /* inside: why it cannot be made; the first byte is enum err_kind */
};

#define SAY_TEXT_MAX 32768 /* the longest program that the kernel takes */

struct said {
    enum say what;
    char text[SAY_TEXT_MAX + 1];
    size_t text_len;
    int fds[GATE_SOCKETS_MAX + 2]; /* owned by the receiver */
    size_t fd_count;
};

/* 0, or -1 with errno. */
int say(int fd, enum say what, const char *text, size_t text_len, const int *fds, size_t fd_count);
/* 1: said; 0: the other side is gone; -1 with errno (EAGAIN with flags MSG_DONTWAIT). */
int hear(int fd, struct said *ret, int flags);

#endif
