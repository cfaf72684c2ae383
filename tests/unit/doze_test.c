/* Connections that sleep: what comes back is what was laid away, its pages are the kernel's meanwhile, and the restless stay up. */
#include "sallyport/net/doze.h"

#include <sys/mman.h>

#include "sallyport/base/mem.h"
#include "sallyport/tls/context.h"
#include "unit/certs.h"
#include "unit/loopback.h"
#include "unit/tlspair.h"

#define MANY 200 /* more than one turn lays away */

static SSL_CTX *server, *client;
static struct test_cert ca, leaf;

static void
begin(void)
{
    struct err err;
    doze_setup();
    loop = loop_new();
    test_cert_make(&ca, NULL, NULL, 30);
    test_cert_make(&leaf, &ca, "DNS:gw.example.test", 30);
    server = tls_server_context(slice_str(leaf.cert_pem), slice_str(leaf.key_pem), slice_str(""), &err);
    client = tls_client_context(slice_str(ca.cert_pem), &err);
    CHECK(server && client);
}

static void
end(void)
{
    SSL_CTX_free(server);
    SSL_CTX_free(client);
    test_cert_done(&ca);
    test_cert_done(&leaf);
    loop_free(loop);
}

/* Asleep after so many sweeps without being asked for, at the latest; batches take some time of their own. */
static void
wait_sweeps(int count)
{
    run_loop_for(((int64_t)count + 1) * DOZE_SWEEP_MS + 100);
}

static int
pages_there(const SSL *ssl)
{
    unsigned char there[2] = {0};
    CHECK(mincore((void *)(uintptr_t)ssl, 8192, there) == 0);
    return (there[0] & 1) + (there[1] & 1);
}

static void
carry(struct doze *from, struct doze *to, const char *text)
{
    char got[64];
    int len = (int)strlen(text);
    CHECK(SSL_write(doze_ssl(from), text, len) == len);
    CHECK(SSL_read(doze_ssl(to), got, sizeof got) == len && memcmp(got, text, (size_t)len) == 0);
}

TEST(what_sleeps_has_no_pages_and_comes_back_as_it_was)
{
    struct doze c, s;
    begin();
    doze_init(&c, loop, client);
    doze_init(&s, loop, server);
    struct tls_pair pair = {.client = doze_ssl(&c), .server = doze_ssl(&s)};
    SSL_set1_host(pair.client, "gw.example.test");
    tls_pair_join(&pair);
    CHECK(tls_pair_shake(&pair));
    CHECK(pages_there(c.ssl) == 2);
    char *before = mem_alloc(8192);
    memcpy(before, c.ssl, 8192);
    wait_sweeps(1);
    CHECK(c.image && s.image && pages_there(c.ssl) == 0 && pages_there(s.ssl) == 0);
    CHECK(doze_ssl(&c) == pair.client && !c.image && s.image);
    CHECK(memcmp(before, c.ssl, 8192) == 0);
    free(before);
    carry(&c, &s, "to the server");
    carry(&s, &c, "to the client");
    /* New keys, asked for before both slept. */
    CHECK(SSL_key_update(doze_ssl(&c), SSL_KEY_UPDATE_REQUESTED) == 1);
    wait_sweeps(2);
    CHECK(c.image && s.image);
    carry(&c, &s, "to the server");
    carry(&s, &c, "to the client");
    CHECK(SSL_get_verify_result(doze_ssl(&c)) == X509_V_OK);
    doze_done(&c);
    doze_done(&s);
    end();
}

TEST(what_is_asked_for_stays_awake)
{
    struct doze d;
    begin();
    doze_init(&d, loop, client);
    for (int i = 0; i < 8; i++) {
        run_loop_for(DOZE_SWEEP_MS / 2);
        CHECK(!d.image);
        (void)doze_ssl(&d);
    }
    doze_done(&d);
    end();
}

TEST(short_sleeps_make_patient)
{
    struct doze d;
    begin();
    doze_init(&d, loop, client);
    wait_sweeps(1);
    CHECK(d.image);
    (void)doze_ssl(&d);
    CHECK(d.patience == 2);
    run_loop_for(2 * DOZE_SWEEP_MS - DOZE_SWEEP_MS / 2);
    CHECK(!d.image);
    wait_sweeps(1);
    CHECK(d.image);
    (void)doze_ssl(&d);
    CHECK(d.patience == 4);
    doze_done(&d);
    end();
}

TEST(many_sleep_wake_and_end_in_any_order)
{
    struct doze *all = mem_array(MANY, sizeof *all);
    begin();
    for (size_t i = 0; i < MANY; i++)
        doze_init(&all[i], loop, client);
    wait_sweeps(1);
    for (size_t i = 0; i < MANY; i++)
        CHECK(all[i].image);
    for (size_t i = 0; i < MANY; i += 3)
        CHECK(SSL_get_SSL_CTX(doze_ssl(&all[i])) == client);
    for (size_t i = 0; i < MANY; i += 2)
        doze_done(&all[i]);
    /* Places that were given back are taken again, and hold nothing of before. */
    for (size_t i = 0; i < MANY; i += 2)
        doze_init(&all[i], loop, server);
    for (size_t i = 0; i < MANY; i++)
        CHECK(SSL_get_SSL_CTX(doze_ssl(&all[i])) == (i % 2 ? client : server));
    wait_sweeps(3);
    for (size_t i = 0; i < MANY; i++) {
        CHECK(all[i].image);
        doze_done(&all[i]);
    }
    free(all);
    end();
}

static unsigned char secret[64];
static size_t secret_len;

static void
on_keylog(const SSL *ssl, const char *line)
{
    const char *hex = strrchr(line, ' ');
    (void)ssl;
    if (strncmp(line, "CLIENT_TRAFFIC_SECRET_0 ", 24) != 0 || !hex)
        return;
    for (secret_len = 0; hex[1 + 2 * secret_len] && secret_len < sizeof secret; secret_len++)
        sscanf(hex + 1 + 2 * secret_len, "%2hhx", &secret[secret_len]);
}

TEST(no_secret_is_left_in_the_place_of_a_connection_that_ended)
{
    struct doze c, s;
    begin();
    SSL_CTX_set_keylog_callback(client, on_keylog);
    doze_init(&c, loop, client);
    doze_init(&s, loop, server);
    struct tls_pair pair = {.client = doze_ssl(&c), .server = doze_ssl(&s)};
    SSL_set1_host(pair.client, "gw.example.test");
    tls_pair_join(&pair);
    CHECK(tls_pair_shake(&pair));
    const void *place = c.ssl;
    doze_done(&c);
    doze_done(&s);
    CHECK(secret_len > 0 && !memmem(place, 8192, secret, secret_len));
    end();
}
