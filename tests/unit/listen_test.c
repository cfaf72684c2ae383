/* Accepting: batches, pauses, and running out of descriptors, where clients keep their place. */
#include "sallyport/net/listen.h"

#include <errno.h>
#include <sys/resource.h>

#include "unit/loopback.h"

static struct listener *listener;
static int accepted[256], accepted_count, stop_at;
static bool pause_inside, free_inside;

static void
on_accept(void *owner, int fd, const struct sockaddr *from)
{
    (void)owner;
    CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) && fcntl(fd, F_GETFD) == FD_CLOEXEC);
    struct sockaddr_storage peer = {0};
    socklen_t len = sizeof peer;
    if (getpeername(fd, (struct sockaddr *)&peer, &len) == 0) /* a client that is gone again has none */
        CHECK(memcmp(from, &peer, len) == 0);
    accepted[accepted_count++] = fd;
    if (pause_inside)
        listener_pause(listener);
    if (free_inside) {
        listener_free(listener);
        listener = NULL;
    }
    if (accepted_count >= stop_at)
        loop_stop(loop);
}

static uint16_t
begin(bool exclusive)
{
    uint16_t port;
    loop = loop_new();
    accepted_count = 0;
    stop_at = 1;
    pause_inside = free_inside = false;
    listener = listener_new(loop, listen_on_loopback(&port, 200), exclusive, on_accept, NULL);
    return port;
}

static void
end(int *clients, int count)
{
    for (int i = 0; i < count; i++)
        close(clients[i]);
    for (int i = 0; i < accepted_count; i++)
        close(accepted[i]);
    listener_free(listener);
    loop_free(loop);
}

TEST(everybody_who_waits_is_accepted)
{
    int before = open_descriptors();
    for (int exclusive = 0; exclusive < 2; exclusive++) {
        int clients[100];
        uint16_t port = begin(exclusive != 0);
        for (int i = 0; i < 100; i++)
            clients[i] = connect_to_loopback(port);
        stop_at = 100;
        run_loop(5000);
        CHECK(accepted_count == 100);
        end(clients, 100);
    }
    CHECK(open_descriptors() == before);
}

TEST(pauses_are_counted_and_keep_the_queue)
{
    uint16_t port = begin(false);
    listener_pause(listener);
    listener_pause(listener);
    int client = connect_to_loopback(port);
    run_loop_for(20);
    CHECK(accepted_count == 0);
    listener_resume(listener);
    run_loop_for(20);
    CHECK(accepted_count == 0);
    listener_resume(listener);
    run_loop(2000);
    CHECK(accepted_count == 1 && !listener_starved(listener));
    end(&client, 1);
}

TEST(a_pause_inside_ends_the_batch)
{
    int clients[3];
    uint16_t port = begin(false);
    pause_inside = true;
    for (int i = 0; i < 3; i++)
        clients[i] = connect_to_loopback(port);
    run_loop(2000);
    run_loop_for(20);
    CHECK(accepted_count == 1);
    end(clients, 3);
}

TEST(a_listener_may_be_freed_inside)
{
    int before = open_descriptors(), clients[3];
    uint16_t port = begin(false);
    free_inside = true;
    for (int i = 0; i < 3; i++)
        clients[i] = connect_to_loopback(port);
    run_loop(2000);
    CHECK(accepted_count == 1);
    end(clients, 3);
    CHECK(open_descriptors() == before);
}

TEST(without_descriptors_it_waits_and_goes_on)
{
    struct rlimit was, none;
    int clients[3], spare[1100], spare_count = 0;
    uint16_t port = begin(false);
    for (int i = 0; i < 3; i++)
        clients[i] = connect_to_loopback(port);
    getrlimit(RLIMIT_NOFILE, &was);
    none = was;
    none.rlim_cur = 1024;
    setrlimit(RLIMIT_NOFILE, &none);
    while (spare_count < 1100 && (spare[spare_count] = dup(0)) >= 0)
        spare_count++;
    CHECK(errno == EMFILE);
    run_loop_for(30);
    CHECK(accepted_count == 0 && listener_starved(listener));
    listener_pause(listener); /* the two reasons do not get in each other's way */
    listener_resume(listener);
    run_loop_for(30);
    CHECK(accepted_count == 0);
    while (spare_count > 0)
        close(spare[--spare_count]);
    stop_at = 3;
    run_loop(5000);
    CHECK(accepted_count == 3 && !listener_starved(listener));
    setrlimit(RLIMIT_NOFILE, &was);
    end(clients, 3);
}

TEST(a_socket_that_somebody_else_emptied_is_harmless)
{
    uint16_t port;
    loop = loop_new();
    accepted_count = 0;
    stop_at = 1;
    int fd = listen_on_loopback(&port, 10), copy = dup(fd);
    listener = listener_new(loop, fd, true, on_accept, NULL);
    int client = connect_to_loopback(port);
    usleep(5000);
    int taken = accept(copy, NULL, NULL);
    CHECK(taken >= 0);
    run_loop_for(20);
    CHECK(accepted_count == 0);
    int second = connect_to_loopback(port);
    run_loop(2000);
    CHECK(accepted_count == 1);
    close(taken);
    close(copy);
    close(second);
    end(&client, 1);
}

TEST(a_socket_that_no_longer_listens_does_not_spin)
{
    uint16_t port;
    loop = loop_new();
    accepted_count = 0;
    int fd = listen_on_loopback(&port, 10);
    listener = listener_new(loop, fd, false, on_accept, NULL);
    shutdown(fd, SHUT_RDWR);
    run_loop_for(30);
    CHECK(accepted_count == 0 && !listener_starved(listener));
    end(NULL, 0); /* while it rests: the timer goes too */
}
