/* Places for OpenSSL's connection objects, and their sleep. A place is whole pages: what sleeps has left them to the kernel, and
 * lies on the heap as a map of which words are not zero, and those words. Nothing here knows what the object is made of. */
#include "sallyport/net/doze.h"

#include <openssl/crypto.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sallyport/base/mem.h"

#define PLACE_SIZE 8192      /* 7,608 bytes are taken of it (OpenSSL 3.0); a larger object gets none */
#define PLACE_MIN 4096       /* a smaller one is not worth it */
#define PLACES_MAX 262144    /* 2 GiB of addresses: a worker's descriptors end first */
#define PLACES_STEP 64       /* made usable at once */
#define PLACES_WARM 256      /* free ones that keep their pages for the next connection */
#define BATCH 64             /* laid away in one turn, some 5 us each: others are waiting */
#define BATCH_PAUSE_MS 2
/* To sleep and wake costs some 12 us for each side. Who wakes so soon has more patience from then on, so that one who is asked
 * for now and then comes to stay awake. */
#define SHORT_MS (DOZE_PATIENCE_MAX * DOZE_SWEEP_MS / 2)
#define WORDS (PLACE_SIZE / sizeof(uint64_t))

struct doze_image {
    int64_t since_ms;
    uint64_t present[WORDS / 64];
    uint64_t words[];
};

/* One a process, for life. */
static struct {
    char *start;             /* NULL: none sleeps */
    size_t usable, used;     /* places from the start */
    uint32_t *free;          /* those of them that were given back */
    size_t free_count, free_size;
    bool wanted;             /* the next large block is a connection's object */
    struct loop *loop;
    struct list awake;
    struct timer sweep;
    bool sweeping, parity;   /* of a sweep under way: what it has looked at has its parity, and stands behind the rest */
} places;

static void on_sweep(void *arg);

/* ---- places ---- */

static bool
is_place(const void *ptr)
{
    return places.start && (uintptr_t)ptr - (uintptr_t)places.start < (size_t)PLACES_MAX * PLACE_SIZE;
}

static void *
place_take(void)
{
    if (places.free_count)
        return places.start + (size_t)places.free[--places.free_count] * PLACE_SIZE;
    if (places.used == places.usable) {
        if (places.usable == PLACES_MAX ||
            mprotect(places.start + places.usable * PLACE_SIZE, (size_t)PLACES_STEP * PLACE_SIZE, PROT_READ | PROT_WRITE) < 0)
            return NULL;
        places.usable += PLACES_STEP;
    }
    return places.start + places.used++ * PLACE_SIZE;
}

/* Gives its pages to the kernel; it is all zeros then. False (locked memory, say): it is as it was. */
static bool
place_empty(void *place)
{
    return madvise(place, PLACE_SIZE, MADV_DONTNEED) == 0;
}

static void
place_give(void *place)
{
    if (places.free_count == places.free_size) {
        places.free_size = places.free_size ? places.free_size * 2 : PLACES_STEP;
        places.free = mem_realloc(places.free, places.free_size * sizeof *places.free);
    }
    /* The secrets of the connection's keys are in it, which SSL_free leaves. */
    if (places.free_count < PLACES_WARM || !place_empty(place))
        mem_wipe(place, PLACE_SIZE);
    places.free[places.free_count++] = (uint32_t)((size_t)((char *)place - places.start) / PLACE_SIZE);
}

/* ---- OpenSSL's memory ---- */

/* Resizing stays OpenSSL's own, which is realloc: no object in a place is resized. */

static void *
take_memory(size_t size, const char *file, int line)
{
    (void)file;
    (void)line;
    if (places.wanted && size >= PLACE_MIN && size <= PLACE_SIZE) {
        places.wanted = false;
        void *place = place_take();
        if (place)
            return place;
    }
    return size ? malloc(size) : NULL;
}

static void
give_memory(void *ptr, const char *file, int line)
{
    (void)file;
    (void)line;
    if (!ptr) /* most are, when OpenSSL empties its error queue */
        return;
    if (is_place(ptr))
        place_give(ptr);
    else
        free(ptr);
}

void
doze_setup(void)
{
    size_t size = (size_t)PLACES_MAX * PLACE_SIZE;
    /* Where pages are larger than a place, its neighbours would be emptied with it. */
    long page = sysconf(_SC_PAGESIZE);
    if (page <= 0 || PLACE_SIZE % page != 0)
        return;
    if (places.start || CRYPTO_set_mem_functions(take_memory, NULL, give_memory) != 1)
        return;
    void *start = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED)
        return;
    (void)madvise(start, size, MADV_NOHUGEPAGE); /* a page that is given back would cost the whole huge one */
    places.start = start;
    list_init(&places.awake);
}

/* ---- sleep ---- */

static void
lay_away(struct doze *d)
{
    const uint64_t *from = (const uint64_t *)(const void *)d->ssl;
    struct doze_image map = {.since_ms = loop_now_ms(places.loop)};
    uint64_t words[WORDS];
    size_t count = 0;
    for (size_t i = 0; i < WORDS; i++)
        if (from[i]) {
            map.present[i / 64] |= UINT64_C(1) << i % 64;
            words[count++] = from[i];
        }
    if (place_empty(d->ssl)) {
        d->image = mem_alloc(sizeof map + count * sizeof *words);
        *d->image = map;
        memcpy(d->image->words, words, count * sizeof *words);
    }
    mem_wipe(words, count * sizeof *words); /* keys are among them */
}

static void
bring_back(struct doze *d)
{
    struct doze_image *image = steal(&d->image);
    uint64_t *to = (uint64_t *)(void *)d->ssl, *next = image->words;
    for (size_t i = 0; i < WORDS / 64; i++)
        for (uint64_t left = image->present[i]; left; left &= left - 1)
            to[i * 64 + (size_t)__builtin_ctzll(left)] = *next++;
    bool too_soon = loop_now_ms(places.loop) - image->since_ms < SHORT_MS;
    d->patience = too_soon && d->patience < DOZE_PATIENCE_MAX ? (uint8_t)(d->patience * 2) : too_soon ? d->patience : 1;
    mem_wipe(image->words, (size_t)((char *)next - (char *)image->words));
    free(image);
}

static void
stay_awake(struct doze *d)
{
    d->parity = places.parity;
    list_append(&places.awake, &d->node);
    if (!timer_running(&places.sweep))
        timer_start(places.loop, &places.sweep, DOZE_SWEEP_MS, on_sweep, NULL);
}

/* The next that this sweep has not looked at; NULL: none is left. */
static struct doze *
next_to_look_at(void)
{
    struct list_node *n = list_first(&places.awake);
    struct doze *d = n ? list_entry(n, struct doze, node) : NULL;
    return d && d->parity != places.parity ? d : NULL;
}

/* Every awake one is looked at once: it has been asked for lately, or it goes to sleep. */
static void
on_sweep(void *arg)
{
    struct doze *d;
    (void)arg;
    if (!places.sweeping)
        places.parity = !places.parity;
    for (size_t laid = 0; laid < BATCH && (d = next_to_look_at());) {
        list_remove(&places.awake, &d->node);
        d->still = d->stirred ? 0 : (uint8_t)(d->still + 1);
        d->stirred = false;
        if (d->still < d->patience) {
            stay_awake(d);
        } else {
            lay_away(d);
            laid++;
        }
    }
    places.sweeping = next_to_look_at() != NULL;
    if (list_empty(&places.awake))
        timer_stop(&places.sweep);
    else
        timer_start(places.loop, &places.sweep, places.sweeping ? BATCH_PAUSE_MS : DOZE_SWEEP_MS, on_sweep, NULL);
}

/* ---- for the owner ---- */

void
doze_init(struct doze *d, struct loop *l, SSL_CTX *context)
{
    *d = (struct doze){.stirred = true, .patience = 1};
    places.wanted = places.start != NULL;
    d->ssl = SSL_new(context);
    places.wanted = false;
    if (!d->ssl)
        abort();
    bool has_place = is_place(d->ssl) && ((uintptr_t)d->ssl - (uintptr_t)places.start) % PLACE_SIZE == 0;
    if (!has_place)
        return;
    places.loop = l;
    stay_awake(d);
}

SSL *
doze_wake(struct doze *d)
{
    bring_back(d);
    stay_awake(d);
    return d->ssl;
}

void
doze_done(struct doze *d)
{
    if (d->image)
        bring_back(d);
    else if (list_linked(&d->node))
        list_remove(&places.awake, &d->node);
    SSL_free(d->ssl);
    if (places.start && list_empty(&places.awake))
        timer_stop(&places.sweep);
}
