/* A kernel with larger pages than ours, played: one that sleeps must not take its neighbours' memory with it. A program of its own, as
 * it stands between the test and two calls of the C library. */
#include "sallyport/net/doze.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "sallyport/tls/context.h"
#include "unit/certs.h"
#include "unit/loopback.h"

#define PAGE ((size_t)16384)
#define COUNT 4

/* As the kernel does it: the address must be aligned, the length is rounded up to whole pages. */
int
madvise(void *at, size_t len, int advice)
{
    if ((uintptr_t)at % PAGE) {
        errno = EINVAL;
        return -1;
    }
    return (int)syscall(SYS_madvise, at, (len + PAGE - 1) / PAGE * PAGE, advice);
}

long __sysconf(int name);

long
sysconf(int name)
{
    return name == _SC_PAGESIZE ? (long)PAGE : __sysconf(name);
}

TEST(on_larger_pages_nobody_loses_what_is_his)
{
    struct doze d[COUNT];
    struct test_cert ca;
    struct err err;
    doze_setup();
    loop = loop_new();
    test_cert_make(&ca, NULL, NULL, 30);
    SSL_CTX *client = tls_client_context(slice_str(ca.cert_pem), &err);
    for (int i = 0; i < COUNT; i++)
        doze_init(&d[i], loop, client);
    for (int k = 0; k < 4; k++) {
        run_loop_for(DOZE_SWEEP_MS / 2);
        for (int i = 1; i < COUNT; i++) /* the first is left to sleep */
            CHECK(SSL_get_SSL_CTX(doze_ssl(&d[i])) == client);
    }
    for (int i = 0; i < COUNT; i++)
        doze_done(&d[i]);
    SSL_CTX_free(client);
    test_cert_done(&ca);
    loop_free(loop);
}
