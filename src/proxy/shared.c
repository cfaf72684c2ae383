/* The mapping that all processes share: counters, recent refusals, budgets. A worker that was taken over can write anything
 * here, so nothing here decides but limits, nothing is followed as a pointer, and every index is checked where it is used. */
#include "sallyport/proxy/shared.h"

#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "sallyport/base/random.h"

#define PROBES 32                /* slots looked at for one sandbox */
#define ID_FREE 0u
#define ID_BUSY 1u               /* being claimed */
#define IDLE_RECLAIM_S 60        /* a sandbox without tunnels and spent bytes is forgotten after this, if room is needed */
#define SPENT_RECLAIM_S 86400    /* one that has spent bytes: as long as a token lives by default */
#define LEAF_COST_US (1000000 / SHARED_LEAVES_PER_S)
#define ADDRESSES 4096           /* slots of failed verifications */
#define ADDRESS_PROBES 8
#define DENIAL_WORDS ((sizeof(struct denial) + 7) / 8)

struct sandbox_slot {
    _Atomic uint64_t id;
    _Atomic uint64_t used_s;
    _Atomic uint64_t requests;   /* minute in the upper half, count in the lower */
    _Atomic uint64_t bytes_up;
    _Atomic int64_t leaves_paid_us; /* the time at which all leaves so far are paid for, one each LEAF_COST_US */
    _Atomic int64_t tunnels;
};

struct address_slot {
    _Atomic uint64_t id;
    _Atomic uint64_t failed;     /* as requests */
};

/* A slot is whole when its sequence is even and the same before and after reading. */
struct denial_slot {
    _Atomic uint64_t sequence;
    _Atomic uint64_t words[DENIAL_WORDS];
};

struct shared {
    uint64_t key[2];             /* of the hash, written once */
    _Atomic uint64_t counters[COUNTER_COUNT];
    _Atomic uint64_t requests[2][REASON_COUNT];
    _Atomic uint64_t buckets[HISTOGRAM_COUNT][SHARED_BUCKETS + 1];
    _Atomic uint64_t sums[HISTOGRAM_COUNT];
    _Atomic uint64_t checkpoint[1 + 8]; /* number, then the hash's 64 characters; number is written last */
    _Atomic uint64_t denial_next;
    struct denial_slot denials[SHARED_DENIALS];
    struct address_slot addresses[ADDRESSES];
    struct sandbox_slot sandboxes[SHARED_SANDBOXES];
    /* Open tunnels by worker and slot: a row a worker, so that workers that are not there cost no memory. */
    _Atomic uint32_t by_worker[SHARED_WORKERS_MAX][SHARED_SANDBOXES];
};

static const int64_t bounds[SHARED_BUCKETS] = {100,   250,    500,    1000,   2500,    5000,    10000,   25000,
                                               50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000};

int
shared_create(void)
{
    int fd = memfd_create("sallyport-shared", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -1;
    if (ftruncate(fd, sizeof(struct shared)) < 0) {
        close(fd);
        return -1;
    }
    uint64_t key[2];
    random_bytes(key, sizeof key);
    struct shared *s = shared_map(fd, true);
    if (!s) {
        close(fd);
        return -1;
    }
    memcpy(s->key, key, sizeof key);
    shared_unmap(s);
    return fd;
}

struct shared *
shared_map(int fd, bool writable)
{
    int prot = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    void *p = mmap(NULL, sizeof(struct shared), prot, MAP_SHARED, fd, 0);
    return p == MAP_FAILED ? NULL : p;
}

void
shared_unmap(struct shared *s)
{
    if (s)
        munmap(s, sizeof *s);
}

void
shared_add(struct shared *s, enum counter c, uint64_t n)
{
    atomic_fetch_add_explicit(&s->counters[c], n, memory_order_relaxed);
}

void
shared_set(struct shared *s, enum counter c, uint64_t n)
{
    atomic_store_explicit(&s->counters[c], n, memory_order_relaxed);
}

uint64_t
shared_get(const struct shared *s, enum counter c)
{
    return atomic_load_explicit(&s->counters[c], memory_order_relaxed);
}

void
shared_count_request(struct shared *s, bool allow, enum reason r)
{
    if ((unsigned)r < REASON_COUNT)
        atomic_fetch_add_explicit(&s->requests[allow][r], 1, memory_order_relaxed);
}

uint64_t
shared_requests(const struct shared *s, bool allow, enum reason r)
{
    return (unsigned)r < REASON_COUNT ? atomic_load_explicit(&s->requests[allow][r], memory_order_relaxed) : 0;
}

void
shared_observe(struct shared *s, enum histogram h, int64_t us)
{
    size_t i = 0;
    if (us < 0)
        us = 0;
    while (i < SHARED_BUCKETS && us > bounds[i])
        i++;
    atomic_fetch_add_explicit(&s->buckets[h][i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->sums[h], (uint64_t)us, memory_order_relaxed);
}

const int64_t *
shared_bounds(void)
{
    return bounds;
}

void
shared_histogram(const struct shared *s, enum histogram h, uint64_t counts[SHARED_BUCKETS + 1], uint64_t *ret_sum_us, uint64_t *ret_count)
{
    uint64_t total = 0;
    for (size_t i = 0; i <= SHARED_BUCKETS; i++)
        total += counts[i] = atomic_load_explicit(&s->buckets[h][i], memory_order_relaxed);
    *ret_sum_us = atomic_load_explicit(&s->sums[h], memory_order_relaxed);
    *ret_count = total;
}

void
shared_set_checkpoint(struct shared *s, uint64_t seq, const char *hash)
{
    uint64_t words[8];
    memcpy(words, hash, sizeof words);
    atomic_store(&s->checkpoint[0], 0);
    for (size_t i = 0; i < 8; i++)
        atomic_store(&s->checkpoint[1 + i], words[i]);
    atomic_store(&s->checkpoint[0], seq);
}

uint64_t
shared_checkpoint(const struct shared *s, char ret_hash[65])
{
    uint64_t words[8], seq = atomic_load(&s->checkpoint[0]);
    for (size_t i = 0; i < 8; i++)
        words[i] = atomic_load(&s->checkpoint[1 + i]);
    memcpy(ret_hash, words, sizeof words);
    ret_hash[64] = '\0';
    if (atomic_load(&s->checkpoint[0]) != seq || strspn(ret_hash, "0123456789abcdef") != 64)
        return 0;
    return seq;
}

/* ---- recent refusals ---- */

void
shared_denial(struct shared *s, const struct denial *d)
{
    uint64_t words[DENIAL_WORDS] = {0};
    memcpy(words, d, sizeof *d);
    uint64_t n = atomic_fetch_add_explicit(&s->denial_next, 1, memory_order_relaxed);
    struct denial_slot *slot = &s->denials[n % SHARED_DENIALS];
    atomic_store_explicit(&slot->sequence, 2 * n + 1, memory_order_release);
    atomic_thread_fence(memory_order_release);
    for (size_t i = 0; i < DENIAL_WORDS; i++)
        atomic_store_explicit(&slot->words[i], words[i], memory_order_relaxed);
    atomic_store_explicit(&slot->sequence, 2 * n + 2, memory_order_release);
}

static bool
read_denial(const struct denial_slot *slot, uint64_t n, struct denial *ret)
{
    uint64_t words[DENIAL_WORDS];
    if (atomic_load_explicit(&slot->sequence, memory_order_acquire) != 2 * n + 2)
        return false;
    for (size_t i = 0; i < DENIAL_WORDS; i++)
        words[i] = atomic_load_explicit(&slot->words[i], memory_order_relaxed);
    atomic_thread_fence(memory_order_acquire);
    if (atomic_load_explicit(&slot->sequence, memory_order_relaxed) != 2 * n + 2)
        return false;
    memcpy(ret, words, sizeof *ret);
    ret->sandbox[sizeof ret->sandbox - 1] = '\0';
    ret->host[sizeof ret->host - 1] = '\0';
    ret->policy[sizeof ret->policy - 1] = '\0';
    return true;
}

size_t
shared_denials(const struct shared *s, struct denial *out, size_t max)
{
    uint64_t next = atomic_load_explicit(&s->denial_next, memory_order_acquire);
    uint64_t have = next < SHARED_DENIALS ? next : SHARED_DENIALS;
    uint64_t first = next - (have < max ? have : max);
    size_t count = 0;
    for (uint64_t n = first; n < next; n++)
        count += read_denial(&s->denials[n % SHARED_DENIALS], n, &out[count]);
    return count;
}

/* ---- the keyed hash: SipHash-2-4 (Aumasson and Bernstein, 2012) ---- */

#define ROTATE(x, b) (((x) << (b)) | ((x) >> (64 - (b))))

static void
sip_round(uint64_t v[4])
{
    v[0] += v[1], v[1] = ROTATE(v[1], 13) ^ v[0], v[0] = ROTATE(v[0], 32);
    v[2] += v[3], v[3] = ROTATE(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = ROTATE(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = ROTATE(v[1], 17) ^ v[2], v[2] = ROTATE(v[2], 32);
}

static uint64_t
hash_id(const struct shared *s, struct slice name)
{
    uint64_t v[4] = {s->key[0] ^ 0x736f6d6570736575u, s->key[1] ^ 0x646f72616e646f6du, s->key[0] ^ 0x6c7967656e657261u,
                     s->key[1] ^ 0x7465646279746573u};
    for (size_t at = 0; at <= name.len; at += 8) {
        uint64_t m = 0;
        size_t rest = name.len - at;
        for (size_t i = 0; i < 8 && i < rest; i++)
            m |= (uint64_t)(unsigned char)name.ptr[at + i] << (8 * i);
        if (rest < 8)
            m |= (uint64_t)name.len << 56;
        v[3] ^= m;
        sip_round(v);
        sip_round(v);
        v[0] ^= m;
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++)
        sip_round(v);
    uint64_t id = v[0] ^ v[1] ^ v[2] ^ v[3];
    return id > ID_BUSY ? id : id + 2;
}

/* ---- budgets ---- */

static struct sandbox_slot *
find_slot(struct shared *s, uint64_t id)
{
    for (unsigned i = 0; i < PROBES; i++) {
        struct sandbox_slot *slot = &s->sandboxes[(id + i) % SHARED_SANDBOXES];
        if (atomic_load_explicit(&slot->id, memory_order_acquire) == id)
            return slot;
    }
    return NULL;
}

static bool
may_reclaim(const struct sandbox_slot *slot, uint64_t now_s)
{
    uint64_t used = atomic_load_explicit(&slot->used_s, memory_order_relaxed);
    uint64_t idle = now_s > used ? now_s - used : 0;
    uint64_t needed = atomic_load_explicit(&slot->bytes_up, memory_order_relaxed) ? SPENT_RECLAIM_S : IDLE_RECLAIM_S;
    return idle >= needed && atomic_load_explicit(&slot->tunnels, memory_order_relaxed) <= 0;
}

static _Atomic uint32_t *
tunnels_of_worker(struct shared *s, const struct sandbox_slot *slot, unsigned worker)
{
    return &s->by_worker[worker][slot - s->sandboxes];
}

static bool
claim(struct shared *s, struct sandbox_slot *slot, uint64_t from, uint64_t id, uint64_t now_s)
{
    if (!atomic_compare_exchange_strong(&slot->id, &from, ID_BUSY))
        return false;
    atomic_store(&slot->used_s, now_s);
    atomic_store(&slot->requests, 0);
    atomic_store(&slot->bytes_up, 0);
    atomic_store(&slot->leaves_paid_us, 0);
    atomic_store(&slot->tunnels, 0);
    for (unsigned w = 0; w < SHARED_WORKERS_MAX && from != ID_FREE; w++) /* a slot that was never used has none */
        atomic_store(tunnels_of_worker(s, slot, w), 0);
    atomic_store_explicit(&slot->id, id, memory_order_release);
    return true;
}

/* Finds or makes the sandbox's slot; NULL when no slot within reach is free or forgotten. */
static struct sandbox_slot *
take_slot(struct shared *s, uint64_t id, uint64_t now_s)
{
    for (int attempt = 0; attempt < 4; attempt++) {
        struct sandbox_slot *slot = find_slot(s, id);
        if (slot)
            return slot;
        for (unsigned i = 0; i < PROBES && !slot; i++) {
            struct sandbox_slot *candidate = &s->sandboxes[(id + i) % SHARED_SANDBOXES];
            uint64_t holder = atomic_load(&candidate->id);
            if (holder == ID_FREE || (holder != ID_BUSY && may_reclaim(candidate, now_s)))
                slot = candidate;
        }
        if (!slot)
            return NULL;
        if (claim(s, slot, atomic_load(&slot->id), id, now_s))
            return slot;
    }
    return NULL;
}

static uint64_t
count_in_minute(_Atomic uint64_t *word, uint64_t minute)
{
    uint64_t old = atomic_load_explicit(word, memory_order_relaxed), new;
    do {
        uint64_t count = old >> 32 == (minute & 0xffffffffu) ? old & 0xffffffffu : 0;
        new = (minute << 32) | (count < 0xffffffffu ? count + 1 : count);
    } while (!atomic_compare_exchange_weak(word, &old, new));
    return new & 0xffffffffu;
}

enum reason
shared_begin_request(struct shared *s, struct slice sandbox, const struct budget_limits *l, int64_t wall_s)
{
    if (l->requests_per_minute <= 0)
        return REASON_OK;
    struct sandbox_slot *slot = take_slot(s, hash_id(s, sandbox), (uint64_t)wall_s);
    if (!slot)
        return REASON_LIMIT_REQUESTS;
    atomic_store_explicit(&slot->used_s, (uint64_t)wall_s, memory_order_relaxed);
    uint64_t count = count_in_minute(&slot->requests, (uint64_t)wall_s / 60);
    return count <= (uint64_t)l->requests_per_minute ? REASON_OK : REASON_LIMIT_REQUESTS;
}

static uint64_t
now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec;
}

enum reason
shared_open_tunnel(struct shared *s, unsigned worker, struct slice sandbox, const struct budget_limits *l)
{
    uint64_t now = now_s();
    struct sandbox_slot *slot = worker < SHARED_WORKERS_MAX ? take_slot(s, hash_id(s, sandbox), now) : NULL;
    if (!slot)
        return l->tunnels > 0 ? REASON_LIMIT_TUNNELS : REASON_OK;
    atomic_store_explicit(&slot->used_s, now, memory_order_relaxed);
    int64_t open = atomic_fetch_add(&slot->tunnels, 1) + 1;
    if (l->tunnels > 0 && open > l->tunnels) {
        atomic_fetch_sub(&slot->tunnels, 1);
        return REASON_LIMIT_TUNNELS;
    }
    atomic_fetch_add(tunnels_of_worker(s, slot, worker), 1);
    return REASON_OK;
}

void
shared_close_tunnel(struct shared *s, unsigned worker, struct slice sandbox)
{
    struct sandbox_slot *slot = worker < SHARED_WORKERS_MAX ? find_slot(s, hash_id(s, sandbox)) : NULL;
    if (!slot)
        return;
    /* A tunnel that was let through without a slot has nothing to take back. */
    _Atomic uint32_t *count = tunnels_of_worker(s, slot, worker);
    uint32_t mine = atomic_load(count);
    do {
        if (mine == 0)
            return;
    } while (!atomic_compare_exchange_weak(count, &mine, mine - 1));
    atomic_fetch_sub(&slot->tunnels, 1);
    atomic_store_explicit(&slot->used_s, now_s(), memory_order_relaxed);
}

bool
shared_spend_bytes(struct shared *s, struct slice sandbox, const struct budget_limits *l, uint64_t n)
{
    if (l->bytes_up <= 0)
        return true;
    struct sandbox_slot *slot = take_slot(s, hash_id(s, sandbox), now_s());
    if (!slot)
        return false;
    uint64_t spent = atomic_fetch_add(&slot->bytes_up, n) + n;
    return n ? spent <= (uint64_t)l->bytes_up : spent < (uint64_t)l->bytes_up;
}

/* Workers read the clock once a turn, so that one of them asks by a time that is a little before what another has written.
 * A time that is much further away than any debt reaches was written before the clock was set back. */
#define CLOCKS_APART_US INT64_C(10000000)

static int64_t
leaf_debt_us(int64_t paid_us, int64_t wall_us)
{
    int64_t debt = paid_us - wall_us;
    return debt > 0 && debt <= SHARED_LEAVES_BURST * LEAF_COST_US + CLOCKS_APART_US ? debt : 0;
}

static bool
has_leaf_left(int64_t debt_us)
{
    return debt_us + LEAF_COST_US <= SHARED_LEAVES_BURST * LEAF_COST_US;
}

bool
shared_take_leaf(struct shared *s, struct slice sandbox, int64_t wall_us)
{
    uint64_t now = (uint64_t)(wall_us / 1000000);
    struct sandbox_slot *slot = take_slot(s, hash_id(s, sandbox), now);
    if (!slot)
        return false;
    atomic_store_explicit(&slot->used_s, now, memory_order_relaxed);
    int64_t paid = atomic_load_explicit(&slot->leaves_paid_us, memory_order_relaxed), debt;
    do {
        debt = leaf_debt_us(paid, wall_us);
        if (!has_leaf_left(debt))
            return false;
    } while (!atomic_compare_exchange_weak(&slot->leaves_paid_us, &paid, wall_us + debt + LEAF_COST_US));
    return true;
}

bool
shared_leaves_left(struct shared *s, struct slice sandbox, int64_t wall_us)
{
    const struct sandbox_slot *slot = find_slot(s, hash_id(s, sandbox));
    return !slot || has_leaf_left(leaf_debt_us(atomic_load_explicit(&slot->leaves_paid_us, memory_order_relaxed), wall_us));
}

void
shared_worker_gone(struct shared *s, unsigned worker)
{
    if (worker >= SHARED_WORKERS_MAX)
        return;
    uint64_t lost = 0;
    for (size_t i = 0; i < SHARED_SANDBOXES; i++) {
        if (atomic_load_explicit(&s->by_worker[worker][i], memory_order_relaxed) == 0)
            continue; /* nearly all: their slots are not even looked at, which would cost memory */
        uint32_t mine = atomic_exchange(&s->by_worker[worker][i], 0);
        atomic_fetch_sub(&s->sandboxes[i].tunnels, mine);
        lost += mine;
    }
    shared_add(s, COUNTER_TUNNELS_CLOSED, lost);
}

/* ---- failed verifications by client address ---- */

static uint64_t
failed_in_minute(const struct address_slot *slot, uint64_t minute)
{
    uint64_t word = atomic_load_explicit(&slot->failed, memory_order_relaxed);
    return word >> 32 == (minute & 0xffffffffu) ? word & 0xffffffffu : 0;
}

static struct address_slot *
find_address(struct shared *s, uint64_t id)
{
    for (unsigned i = 0; i < ADDRESS_PROBES; i++) {
        struct address_slot *slot = &s->addresses[(id + i) % ADDRESSES];
        if (atomic_load_explicit(&slot->id, memory_order_acquire) == id)
            return slot;
    }
    return NULL;
}

/* When all slots within reach are taken, the address with the fewest failures this minute is forgotten: a guesser with
 * many addresses must not lock others out. */
static struct address_slot *
take_address(struct shared *s, uint64_t id, uint64_t minute)
{
    struct address_slot *best = find_address(s, id);
    if (best)
        return best;
    for (unsigned i = 0; i < ADDRESS_PROBES; i++) {
        struct address_slot *slot = &s->addresses[(id + i) % ADDRESSES];
        if (!best || failed_in_minute(slot, minute) < failed_in_minute(best, minute))
            best = slot;
    }
    atomic_store(&best->failed, 0);
    atomic_store_explicit(&best->id, id, memory_order_release);
    return best;
}

void
shared_note_failed_token(struct shared *s, struct slice client, int64_t wall_s)
{
    uint64_t minute = (uint64_t)wall_s / 60;
    count_in_minute(&take_address(s, hash_id(s, client), minute)->failed, minute);
}

bool
shared_failed_tokens_limited(struct shared *s, struct slice client, int64_t wall_s)
{
    const struct address_slot *slot = find_address(s, hash_id(s, client));
    return slot && failed_in_minute(slot, (uint64_t)wall_s / 60) >= SHARED_FAILED_TOKENS_PER_MINUTE;
}
