/* `serve --dev`: a key of this run alone and a token by it. sallyport-tool makes them, as `sallyport` itself links no OpenSSL. */
#ifndef SALLYPORT_CMD_DEVKEY_H
#define SALLYPORT_CMD_DEVKEY_H

#include "sallyport/base/err.h"

/* Both heap. issuer may be NULL. */
int dev_key_make(const char *audience, const char *issuer, char **ret_jwks, char **ret_token, struct err *err);
/* The other side: writes both to the descriptor that it is given. */
int dev_key_main(int argc, char **argv);

#endif
