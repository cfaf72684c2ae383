/* The one mapping that all processes share: counters for /metrics, the ring behind /denials, and per-sandbox budgets that
 * must hold across workers. Atomics only; no pointers. Created by the supervisor as a memfd. */
#ifndef SALLYPORT_PROXY_SHARED_H
#define SALLYPORT_PROXY_SHARED_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "sallyport/base/reason.h"
#include "sallyport/base/slice.h"

#define SHARED_WORKERS_MAX 64
#define SHARED_SANDBOXES 262144 /* slots of the budget table; 40 bytes each, and 4 for each worker, of those that are used */
#define SHARED_DENIALS 256

struct shared;

int shared_create(void);                 /* a memfd of the right size, or -1 with errno */
struct shared *shared_map(int fd, bool writable); /* NULL with errno */
void shared_unmap(struct shared *s);

enum counter {
    COUNTER_TUNNELS_OPENED, COUNTER_TUNNELS_CLOSED, COUNTER_BYTES_UP, COUNTER_BYTES_DOWN, COUNTER_TOKENS_VERIFIED,
    COUNTER_TOKENS_CACHED, COUNTER_TOKENS_FAILED, COUNTER_DNS_OK, COUNTER_DNS_CACHED, COUNTER_DNS_FAILED, COUNTER_RECORDS,
    COUNTER_ACCEPTED, COUNTER_WORKER_STARTS, COUNTER_WORKER_CRASHES, COUNTER_RELOADS, COUNTER_RELOADS_FAILED, COUNTER_POLICY_GENERATION,
    COUNTER_CERTIFICATES, /* minted by the keeper */
    COUNTER_RECORDS_LOST, /* that no journal had room for */
    /* of all processes, as the supervisor sees them every few seconds */
    COUNTER_CPU_MS, COUNTER_RSS_BYTES, COUNTER_OPEN_FDS, COUNTER_MAX_FDS, COUNTER_START_S,
    COUNTER_COUNT
};
enum histogram { HISTOGRAM_CONNECT = 0, HISTOGRAM_DECISION, HISTOGRAM_COUNT };

void shared_add(struct shared *s, enum counter c, uint64_t n);
void shared_set(struct shared *s, enum counter c, uint64_t n);
uint64_t shared_get(const struct shared *s, enum counter c);
void shared_count_request(struct shared *s, bool allow, enum reason r);
uint64_t shared_requests(const struct shared *s, bool allow, enum reason r);
void shared_observe(struct shared *s, enum histogram h, int64_t us);
#define SHARED_BUCKETS 16
/* Upper bounds in microseconds of the buckets, and their counts and sum. */
const int64_t *shared_bounds(void);
void shared_histogram(const struct shared *s, enum histogram h, uint64_t counts[SHARED_BUCKETS + 1], uint64_t *ret_sum_us, uint64_t *ret_count);

/* The last checkpoint of the record chain, for /metrics. */
void shared_set_checkpoint(struct shared *s, uint64_t seq, const char *hash);
uint64_t shared_checkpoint(const struct shared *s, char ret_hash[65]); /* 0: none yet */

/* Recent refusals: fixed-size text, newest last. */
struct denial { int64_t wall_us; uint16_t port; uint16_t reason; char sandbox[64]; char host[160]; char policy[64]; };
void shared_denial(struct shared *s, const struct denial *d);
size_t shared_denials(const struct shared *s, struct denial *out, size_t max);

/* Budgets of one sandbox, by name, over all workers. Slots are found by a keyed hash; when the table is full the answer is false
 * (limit), never unlimited. A worker's tunnels are taken back when it dies (shared_worker_gone). */
struct budget_limits { int64_t tunnels, requests_per_minute, bytes_up; }; /* 0: none */
enum reason shared_begin_request(struct shared *s, struct slice sandbox, const struct budget_limits *l, int64_t wall_s);
enum reason shared_open_tunnel(struct shared *s, unsigned worker, struct slice sandbox, const struct budget_limits *l);
void shared_close_tunnel(struct shared *s, unsigned worker, struct slice sandbox);
/* False when bytes_up is now used up. */
bool shared_spend_bytes(struct shared *s, struct slice sandbox, const struct budget_limits *l, uint64_t n);
void shared_worker_gone(struct shared *s, unsigned worker);
/* Leaves that the keeper signs, for all sandboxes of a worker at its own rate: one sandbox gets a part of it, enough for a crawl
 * of a thousand hosts. False: its share is spent. _left only looks, so that a tunnel can be refused while there is still somebody to say so to. */
#define SHARED_LEAVES_PER_S 50
#define SHARED_LEAVES_BURST 1500
bool shared_take_leaf(struct shared *s, struct slice sandbox, int64_t wall_us);
bool shared_leaves_left(struct shared *s, struct slice sandbox, int64_t wall_us);
/* Failed signature checks by client address, over all workers. An address that has had SHARED_FAILED_TOKENS_PER_MINUTE of
 * them is limited until the minute is over, so that guessing costs the guesser and not the gate. */
#define SHARED_FAILED_TOKENS_PER_MINUTE 600
void shared_note_failed_token(struct shared *s, struct slice client, int64_t wall_s);
bool shared_failed_tokens_limited(struct shared *s, struct slice client, int64_t wall_s);

#endif
