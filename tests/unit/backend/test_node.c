/* SPDX-License-Identifier: Apache-2.0 */
/* A shard over the simulated network and disk: when replies leave, and what happens to clients around them. */
#include "tests/unit/common/io/io_sim_test.h"

#include "backend/node.h"

#define PORT     7000
#define FLUSH_US 50000u

struct world {
    struct sim *sim;
    struct sim_node *host, *other;
    struct node *node;
    struct io_listener listener;
    struct io_addr addr;
    bool is_open, is_closed;
    int err;
};

static void world_opened(void *arg, int err)
{
    struct world *w = arg;

    w->is_open = true;
    w->err = err;
}

static void world_closed(void *arg, int err)
{
    struct world *w = arg;

    w->is_closed = true;
    w->err = err;
}

static void world_accepted(struct io_listener *listener, int fd, const struct io_addr *peer)
{
    node_accept(((struct world *)listener->arg)->node, fd, peer);
}

/* A disk whose flushes take their time. */
static void world_start(struct world *w, enum store_fsync fsync)
{
    struct node_options options = {.arg = w, .opened = world_opened};
    struct sim_options sim_options;
    int fd;

    *w = (struct world){0};
    sim_options_calm(&sim_options);
    sim_options.disk.flush_min_us = FLUSH_US;
    sim_options.disk.flush_mean_us = FLUSH_US;
    w->sim = sim_create(11, &sim_options);
    w->host = sim_node_create(w->sim, "host");
    w->other = sim_node_create(w->sim, "other");
    options.io = sim_node_io(w->host);
    options.store.dir = "shard-0";
    options.store.shard_count = 1;
    options.store.fsync = fsync;
    options.store.ring_path = "/dev/shm/ring";
    options.store.segment_size = 1u << 20;
    options.engine.clients_max = 100;
    assert_int_equal(node_create(&options, &w->node), 0);
    assert_true(sim_run_while_not(w->sim, &w->is_open, 60 * SECOND));
    assert_int_equal(w->err, 0);
    w->addr = address(PORT);
    assert_int_equal(sim_listen(w->host, &w->addr, &fd), 0);
    w->listener = (struct io_listener){.accepted = world_accepted, .arg = w};
    io_listener_start(sim_node_io(w->host), &w->listener, fd);
}

static void world_end(struct world *w)
{
    node_close(w->node, world_closed, w);
    assert_true(sim_run_while_not(w->sim, &w->is_closed, 60 * SECOND));
    assert_int_equal(w->err, 0);
    assert_int_equal(node_client_count(w->node), 0);
    node_destroy(&w->node);
    io_listener_stop(&w->listener);
    sim_destroy(&w->sim);
}

static void join(struct world *w, struct client *client)
{
    *client = (struct client){0};
    client_connect(client, w->other, &w->addr, NULL);
    sim_run_for(w->sim, 5000);
    assert_int_equal(client->connected, 1);
}

static void say(struct client *client, const char *text)
{
    struct iovec slice = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};

    assert_int_equal(io_stream_send(&client->stream, &slice, 1), slice.iov_len);
}

static void hears(struct client *client, const char *text)
{
    assert_int_equal(client->in_len, strlen(text));
    assert_memory_equal(client->in, text, client->in_len);
    client->in_len = 0;
}

/* fsync always: the reply waits for the flush; so does whoever reads what is not durable yet, and nobody else. */
static void test_replies_wait_for_the_flush(void **state)
{
    struct client writer, reader, stranger;
    struct world w;

    (void)state;
    world_start(&w, STORE_FSYNC_ALWAYS);
    join(&w, &writer);
    join(&w, &reader);
    join(&w, &stranger);
    say(&writer, "SET a 1\r\n");
    sim_run_for(w.sim, 5000);
    say(&reader, "GET a\r\n");
    say(&stranger, "PING\r\n");
    sim_run_for(w.sim, 10000);
    hears(&writer, "");
    hears(&reader, "");
    hears(&stranger, "+PONG\r\n");
    sim_run_for(w.sim, SECOND);
    hears(&writer, "+OK\r\n");
    hears(&reader, "$1\r\n1\r\n");
    client_free(&writer);
    client_free(&reader);
    client_free(&stranger);
    world_end(&w);
}

/* everysec: the log ring is enough. */
static void test_replies_do_not_wait_where_they_need_not(void **state)
{
    struct client writer;
    struct world w;

    (void)state;
    world_start(&w, STORE_FSYNC_EVERYSEC);
    join(&w, &writer);
    say(&writer, "SET a 1\r\n");
    sim_run_for(w.sim, 5000);
    hears(&writer, "+OK\r\n");
    client_free(&writer);
    world_end(&w);
}

/* One write behind the other, faster than the disk flushes: the first answers come while the stream goes on. */
static void test_a_stream_of_writes_does_not_starve(void **state)
{
    struct client writer;
    struct world w;

    (void)state;
    world_start(&w, STORE_FSYNC_ALWAYS);
    join(&w, &writer);
    for (int i = 0; i < 200; i++) {
        say(&writer, "INCR n\r\n");
        sim_run_for(w.sim, 5000);
        if (i == 100)
            assert_true(writer.in_len >= 50);
    }
    sim_run_for(w.sim, SECOND);
    assert_memory_equal(writer.in, ":1\r\n:2\r\n:3\r\n", 12);
    assert_memory_equal(writer.in + writer.in_len - 6, ":200\r\n", 6);
    client_free(&writer);
    world_end(&w);
}

/* Who waits keeps its bytes in front: what it sent behind is answered after it. */
static void test_what_follows_a_wait_waits(void **state)
{
    struct client waiter, pusher;
    struct world w;

    (void)state;
    world_start(&w, STORE_FSYNC_NO);
    join(&w, &waiter);
    join(&w, &pusher);
    say(&waiter, "BLPOP q 0\r\n");
    sim_run_for(w.sim, 5000);
    say(&waiter, "PING\r\n");
    sim_run_for(w.sim, 5000);
    hears(&waiter, "");
    say(&pusher, "RPUSH q x\r\nLLEN q\r\n");
    sim_run_for(w.sim, 5000);
    hears(&pusher, ":1\r\n:0\r\n");
    hears(&waiter, "*2\r\n$1\r\nq\r\n$1\r\nx\r\n+PONG\r\n");
    client_free(&waiter);
    client_free(&pusher);
    world_end(&w);
}

/* The end of a peer that waits gives its place away; the end of one that has asked is after its answers. */
static void test_ends_of_peers(void **state)
{
    struct client waiter, asker;
    struct world w;

    (void)state;
    world_start(&w, STORE_FSYNC_ALWAYS);
    join(&w, &waiter);
    join(&w, &asker);
    say(&waiter, "BLPOP q 0\r\n");
    sim_run_for(w.sim, 5000);
    assert_int_equal(node_engine(w.node)->counters.blocked_clients, 1);
    io_stream_shutdown(&waiter.stream);
    say(&asker, "SET a 1\r\nGET a\r\nGE");
    io_stream_shutdown(&asker.stream);
    sim_run_for(w.sim, 5000);
    assert_int_equal(node_engine(w.node)->counters.blocked_clients, 0);
    assert_int_equal(node_client_count(w.node), 1);
    sim_run_for(w.sim, SECOND);
    hears(&asker, "+OK\r\n$1\r\n1\r\n");
    assert_int_equal(asker.closed, 1);
    assert_int_equal(node_client_count(w.node), 0);
    client_free(&waiter);
    client_free(&asker);
    world_end(&w);
}

/* Draining: who has nothing under way goes at once, who waits for its reply after it. */
static void test_drain(void **state)
{
    struct client idle, writer;
    struct world w;

    (void)state;
    world_start(&w, STORE_FSYNC_ALWAYS);
    join(&w, &idle);
    join(&w, &writer);
    say(&writer, "SET a 1\r\n");
    sim_run_for(w.sim, 5000);
    node_drain(w.node);
    sim_run_for(w.sim, 5000);
    assert_int_equal(idle.closed, 1);
    assert_int_equal(writer.closed, 0);
    assert_false(node_is_drained(w.node));
    sim_run_for(w.sim, SECOND);
    hears(&writer, "+OK\r\n");
    assert_int_equal(writer.closed, 1);
    assert_true(node_is_drained(w.node));
    client_free(&idle);
    client_free(&writer);
    world_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replies_wait_for_the_flush),
        cmocka_unit_test(test_replies_do_not_wait_where_they_need_not),
        cmocka_unit_test(test_a_stream_of_writes_does_not_starve),
        cmocka_unit_test(test_what_follows_a_wait_waits),
        cmocka_unit_test(test_ends_of_peers),
        cmocka_unit_test(test_drain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
