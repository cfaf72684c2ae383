/* Checkpoints: the recorder signs the head of the chain (Ed25519, RFC 8032), so that whoever can write the log but does
 * not hold the key cannot chain it anew. A checkpoint record at number N names the record before it, N-1 and its hash.
 * The key is a PEM text (`openssl genpkey -algorithm ed25519`); this layer opens no file. */
#ifndef SALLYPORT_RECORD_CHECKPOINT_H
#define SALLYPORT_RECORD_CHECKPOINT_H

#include <stdbool.h>

#include "sallyport/base/buf.h"
#include "sallyport/base/err.h"
#include "sallyport/record/chain.h"

#define CHECKPOINT_RECORDS 1000        /* a checkpoint at the latest after so many records, */
#define CHECKPOINT_INTERVAL_MS 10000   /* or so much time with a record in it */
#define CHECKPOINT_KEYS_MAX 8          /* public keys in one file: those before a rotation verify the older records */

struct checkpoint_key;

/* For the recorder: one PEM private key. name is for errors. NULL with err. */
struct checkpoint_key *checkpoint_key_private(struct slice pem, const char *name, struct err *err);
/* For verification: one to CHECKPOINT_KEYS_MAX PEM blocks, public keys or the private one. NULL with err. */
struct checkpoint_key *checkpoint_key_public(struct slice pem, const char *name, struct err *err);
void checkpoint_key_free(struct checkpoint_key *k); /* NULL is fine; wipes */
/* PEM of the (first) public key, to be kept where the log is verified. */
bool checkpoint_key_write_public(const struct checkpoint_key *k, struct buf *out);

/* `"head":"SEQ:HASH","key":"…","signature":"…"`: ready for struct record's extra in a RECORD_CHECKPOINT, for the head that
 * c now has. `key` is the first 16 hex digits of SHA-256 over the raw public key, the signature base64url over the bytes
 * SEQ:HASH. False: the chain is empty, or no room. k NULL: only the head, unsigned. */
bool checkpoint_members(const struct checkpoint_key *k, const struct chain *c, struct buf *out);

enum checkpoint_verdict {
    CHECKPOINT_BAD = 0,    /* not of this form, another head than the record before, or a false signature */
    CHECKPOINT_UNSIGNED,   /* right, and nobody signed it */
    CHECKPOINT_UNKNOWN,    /* right, and signed by a key that is not among k's */
    CHECKPOINT_GOOD,
};
/* line: a finished checkpoint record whose own seq and prev are those given. k NULL: signatures are not looked at. */
enum checkpoint_verdict checkpoint_check(const struct checkpoint_key *k, struct slice line, uint64_t seq, const char prev[SHA256_HEX_SIZE]);

#endif
