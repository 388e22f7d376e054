/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated network, through struct io: bytes, ends of connections, partitions. */
#include "tests/unit/common/io/io_sim_test.h"

/* ---- bytes -------------------------------------------------------------------------------- */

/* However the network cuts the bytes and however the server consumes them, the same comes back. */
static void test_echo_survives_any_segmentation(void **state)
{
    static const uint32_t segments[] = {1, 2, 7, 100, 1460, 65536};
    static const uint32_t buffers[] = {1, 30, 4096, 1 << 18};
    static const size_t steps[] = {0, 1, 13, 1000};
    const size_t len = 3000;
    char *text = text_create(len);

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(segments) * ARRAY_COUNT(buffers) * ARRAY_COUNT(steps); i++) {
        uint32_t buffer = buffers[i / ARRAY_COUNT(segments) % ARRAY_COUNT(buffers)];
        struct sim_options options;
        struct sim *sim;
        struct echo echo;
        struct client client = {.out = text, .out_len = len};
        struct io_addr addr = address(7000);

        sim_options_calm(&options);
        options.net.segment_min = 1;
        options.net.segment_max = segments[i % ARRAY_COUNT(segments)];
        options.net.send_buffer_min = options.net.send_buffer_max = buffer;
        options.net.recv_buffer_min = options.net.recv_buffer_max = buffer;
        sim = sim_create(i + 1, &options);
        echo_start(&echo, sim, &addr);
        echo.step = steps[i / ARRAY_COUNT(segments) / ARRAY_COUNT(buffers)];
        client_connect(&client, sim_node_create(sim, "client"), &addr, NULL);
        if (echo.step == 0) {
            assert_true(sim_run_while_not(sim, &client.is_over, 1000 * SECOND));
            assert_int_equal(client.in_len, len);
        } else { /* what recv() leaves is lent again only with new bytes */
            assert_true(sim_run_idle(sim, 1000 * SECOND));
            assert_true(client.in_len > 0);
        }
        assert_int_equal(client.sent, len);
        assert_memory_equal(client.in, text, client.in_len);
        client_free(&client);
        assert_true(sim_run_idle(sim, 10 * SECOND));
        assert_true(list_is_empty(&echo.clients));
        echo_free(&echo);
        sim_destroy(&sim);
    }
    mem_free(text);
}

/* A peer that does not read: the send is short, and writable() comes when it reads again. */
static void test_short_send_is_followed_by_writable(void **state)
{
    struct sim_options options;
    struct sim *sim;
    struct sim_node *a, *b;
    struct client sender = {0}, receiver = {0};
    char *text = text_create(20000);
    int fds[2];

    (void)state;
    sim_options_calm(&options);
    options.net.send_buffer_min = options.net.send_buffer_max = 1000;
    options.net.recv_buffer_min = options.net.recv_buffer_max = 2000;
    sim = sim_create(1, &options);
    a = sim_node_create(sim, "a");
    b = sim_node_create(sim, "b");
    assert_int_equal(sim_socketpair(a, b, fds), 0);
    assert_int_equal(io_stream_open(sim_node_io(a), &sender.stream, &client_handler, fds[0], NULL,
                                    BYTES_EMPTY), 0);
    assert_int_equal(io_stream_open(sim_node_io(b), &receiver.stream, &client_handler, fds[1], NULL,
                                    BYTES_EMPTY), 0);
    sender.out = text;
    sender.out_len = 20000;
    client_send(&sender);
    assert_int_equal(sender.sent, 1000);
    assert_int_equal(sender.writables, 0); /* never from inside the call */
    sim_run_for(sim, SECOND);
    assert_int_equal(sender.sent, 3000); /* both buffers are full */
    io_stream_resume(&receiver.stream);
    assert_true(sim_run_idle(sim, SECOND));
    assert_int_equal(sender.sent, 20000);
    assert_true(sender.writables >= 17);
    assert_int_equal(receiver.in_len, 20000);
    assert_memory_equal(receiver.in, text, 20000);
    client_free(&sender);
    assert_true(sim_run_idle(sim, SECOND));
    assert_int_equal(receiver.closed, 1);
    assert_int_equal(receiver.closed_err, ERR_EOF);
    client_free(&receiver);
    assert_int_equal(sim_fd_count(sim, NULL), 0);
    sim_destroy(&sim);
    mem_free(text);
}

/* ---- rest, need, pause -------------------------------------------------------------------- */

static void test_rest_is_lent_again_before_what_follows(void **state)
{
    struct pair pair;

    (void)state;
    pair_start(&pair, NULL);
    pair.far.keeps = true;
    pair_send(&pair, "abc");
    pair_send(&pair, "def");
    assert_int_equal(pair.far.rest_len, 6);
    assert_int_equal(pair.far.recvs, 2);
    io_stream_pause(&pair.far.stream);
    pair_send(&pair, "ghi");
    assert_int_equal(pair.far.recvs, 2);
    pair.far.keeps = false;
    io_stream_resume(&pair.far.stream);
    assert_int_equal(pair.far.in_len, 0); /* not from inside the call */
    assert_true(sim_run_idle(pair.sim, SECOND));
    assert_int_equal(pair.far.in_len, 9);
    assert_memory_equal(pair.far.in, "abcdefghi", 9);
    assert_null(pair.far.stream.rest_); /* at rest it holds nothing */
    pair_end(&pair);
}

/* resume() alone, without new bytes, lends what is kept. */
static void test_resume_lends_what_is_kept(void **state)
{
    struct pair pair;

    (void)state;
    pair_start(&pair, NULL);
    pair.far.keeps = true;
    pair_send(&pair, "abc");
    io_stream_pause(&pair.far.stream);
    pair.far.keeps = false;
    io_stream_resume(&pair.far.stream);
    assert_true(sim_run_idle(pair.sim, SECOND));
    assert_int_equal(pair.far.in_len, 3);
    pair_end(&pair);
}

static void test_need_holds_recv_back(void **state)
{
    struct pair pair;

    (void)state;
    pair_start(&pair, NULL);
    pair.far.stream.need = pair.far.need = 5;
    pair_send(&pair, "ab");
    pair_send(&pair, "cd");
    assert_int_equal(pair.far.recvs, 0);
    pair_send(&pair, "efg");
    assert_int_equal(pair.far.recvs, 1);
    assert_int_equal(pair.far.in_len, 7);
    pair.far.stream.need = pair.far.need = 100;
    pair_send(&pair, "xyz");
    io_stream_shutdown(&pair.near.stream);
    assert_true(sim_run_idle(pair.sim, SECOND));
    assert_int_equal(pair.far.recvs, 1);
    assert_int_equal(pair.far.closed_err, ERR_EOF);
    assert_int_equal(pair.far.rest_len, 3); /* closed() is shown what recv() was not */
    pair_end(&pair);
}

/* A half-closed peer still gets what we send. */
static void test_half_close_leaves_the_other_way_open(void **state)
{
    struct pair pair;
    struct iovec slice = {.iov_base = (void *)(uintptr_t) "late", .iov_len = 4};

    (void)state;
    pair_start(&pair, NULL);
    io_stream_shutdown(&pair.near.stream);
    assert_true(sim_run_idle(pair.sim, SECOND));
    assert_int_equal(pair.far.closed_err, ERR_EOF);
    assert_int_equal(io_stream_send(&pair.far.stream, &slice, 1), 4);
    assert_true(sim_run_idle(pair.sim, SECOND));
    assert_int_equal(pair.near.in_len, 4);
    assert_int_equal(pair.near.closed, 0);
    pair_end(&pair);
}

/* The descriptor and the unconsumed bytes go to another process. */
static void test_detach_and_open_with_rest(void **state)
{
    struct pair pair;
    struct sim_node *c;
    char *rest;
    size_t rest_len;
    int fd;

    (void)state;
    pair_start(&pair, NULL);
    pair.far.keeps = true;
    pair_send(&pair, "abc");
    fd = io_stream_detach(&pair.far.stream, &rest, &rest_len);
    assert_false(io_stream_is_open(&pair.far.stream));
    assert_int_equal(rest_len, 3);
    pair_send(&pair, "def");
    c = sim_node_create(pair.sim, "c");
    sim_fd_move(pair.sim, fd, c);
    pair.far.keeps = false;
    assert_int_equal(io_stream_open(sim_node_io(c), &pair.far.stream, &client_handler, fd, NULL,
                                    bytes_of(rest, rest_len)), 0);
    mem_free(rest);
    assert_true(sim_run_idle(pair.sim, SECOND));
    assert_int_equal(pair.far.in_len, 0); /* it starts paused */
    io_stream_resume(&pair.far.stream);
    assert_true(sim_run_idle(pair.sim, SECOND));
    assert_int_equal(pair.far.in_len, 6);
    assert_memory_equal(pair.far.in, "abcdef", 6);
    pair_end(&pair);
}

/* ---- ends --------------------------------------------------------------------------------- */

static void test_abort_is_a_reset_for_the_peer(void **state)
{
    struct pair pair;

    (void)state;
    pair_start(&pair, NULL);
    io_stream_abort(&pair.near.stream);
    assert_true(sim_run_idle(pair.sim, SECOND));
    assert_int_equal(pair.far.closed, 1);
    assert_int_equal(pair.far.closed_err, -ECONNRESET);
    pair_end(&pair);
}

/* What was on its way arrives in part, then RST: never a wrong byte. */
static void test_abort_loses_the_end_of_what_was_sent(void **state)
{
    char *text = text_create(50000);
    bool was_partial = false;

    (void)state;
    for (uint32_t i = 0; i < 50; i++) {
        struct sim_options options;
        struct pair pair;
        struct iovec slice = {.iov_base = text, .iov_len = 50};

        sim_options_calm(&options);
        options.net.segment_min = 1;
        options.net.delay_mean_us = i * 10;
        pair_start(&pair, &options);
        for (int k = 0; k < 1000; k++) {
            slice.iov_base = text + 50 * k;
            assert_int_equal(io_stream_send(&pair.near.stream, &slice, 1), 50);
            if (k % 10 == 0)
                sim_run_for(pair.sim, 1);
        }
        io_stream_abort(&pair.near.stream);
        assert_true(sim_run_idle(pair.sim, SECOND));
        assert_int_equal(pair.far.closed_err, -ECONNRESET);
        assert_true(pair.far.in_len <= 50000);
        if (pair.far.in_len > 0)
            assert_memory_equal(pair.far.in, text, pair.far.in_len);
        was_partial |= pair.far.in_len > 0 && pair.far.in_len < 50000;
        pair_end(&pair);
    }
    assert_true(was_partial);
    mem_free(text);
}

/* The peer's buffer is full and it does not read; it finds out when it sends. */
static void test_abort_reaches_a_peer_that_does_not_read(void **state)
{
    char *text = text_create(20000);
    struct sim_options options;
    struct pair pair;
    struct iovec slice = {.iov_base = text, .iov_len = 20000};

    (void)state;
    sim_options_calm(&options);
    options.net.send_buffer_min = options.net.send_buffer_max = 2000;
    options.net.recv_buffer_min = options.net.recv_buffer_max = 1000;
    pair_start(&pair, &options);
    io_stream_pause(&pair.far.stream);
    for (int i = 0; i < 5; i++) {
        MAYBE(io_stream_send(&pair.near.stream, &slice, 1) >= 0);
        sim_run_for(pair.sim, SECOND);
    }
    io_stream_abort(&pair.near.stream);
    assert_true(sim_run_idle(pair.sim, SECOND));
    assert_int_equal(pair.far.closed, 0);
    assert_true(io_stream_send(&pair.far.stream, &slice, 1) < 0);
    pair_end(&pair);
    mem_free(text);
}

/* A server that resets at once: connected() comes first all the same. */
static void abort_accepted(struct io_listener *listener, int fd, const struct io_addr *peer)
{
    struct io_stream stream;

    (void)peer;
    assert_int_equal(
        io_stream_open(listener->io, &stream, &echo_handler, fd, NULL, BYTES_EMPTY), 0);
    io_stream_abort(&stream);
}

static void test_connected_comes_before_the_reset(void **state)
{
    struct sim_options options;
    struct io_addr addr = address(7000);

    (void)state;
    sim_options_calm(&options);
    options.net.delay_mean_us = 10000;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct sim *sim = sim_create(seed, &options);
        struct echo echo;
        struct client client = {0};

        echo_start(&echo, sim, &addr);
        echo.listener.accepted = abort_accepted;
        client_connect(&client, sim_node_create(sim, "c"), &addr, NULL);
        assert_true(sim_run_idle(sim, 10 * SECOND));
        assert_int_equal(client.connected, 1);
        assert_int_equal(client.connect_err, 0);
        assert_int_equal(client.closed_err, -ECONNRESET);
        client_free(&client);
        echo_free(&echo);
        sim_destroy(&sim);
    }
}

static void test_reset_reaches_both_ends_once(void **state)
{
    struct pair pair;
    struct iovec slice = {.iov_base = (void *)(uintptr_t) "x", .iov_len = 1};

    (void)state;
    pair_start(&pair, NULL);
    sim_stream_reset(&pair.near.stream);
    assert_true(sim_run_idle(pair.sim, SECOND));
    assert_int_equal(pair.far.closed, 1);
    assert_int_equal(pair.near.closed, 1);
    assert_int_equal(pair.near.closed_err, -ECONNRESET);
    assert_true(io_stream_send(&pair.near.stream, &slice, 1) < 0);
    assert_true(sim_run_idle(pair.sim, SECOND));
    assert_int_equal(pair.near.closed, 1);
    pair_end(&pair);
}

/* A send that meets a reset tells the error; closed() is not called for it. */
static void test_error_of_send_is_told_once(void **state)
{
    struct pair pair;
    struct iovec slice = {.iov_base = (void *)(uintptr_t) "x", .iov_len = 1};

    (void)state;
    pair_start(&pair, NULL);
    sim_stream_reset(&pair.near.stream);
    assert_int_equal(io_stream_send(&pair.near.stream, &slice, 1), -ECONNRESET);
    assert_true(sim_run_idle(pair.sim, SECOND));
    assert_int_equal(pair.near.closed, 0);
    pair_end(&pair);
}

/* RST at each byte of a message: what arrives is exactly that prefix, or less. */
static void test_reset_at_any_byte(void **state)
{
    (void)state;
    for (uint64_t cut = 0; cut <= 8; cut++) {
        struct pair pair;
        struct iovec slice = {.iov_base = (void *)(uintptr_t) "12345678", .iov_len = 8};

        pair_start(&pair, NULL);
        sim_stream_reset_after(&pair.far.stream, cut);
        MAYBE(io_stream_send(&pair.near.stream, &slice, 1) == 8);
        /* What is lost of it counts as sent; behind a reset nothing is. */
        assert_int_equal(sim_stream_peer_sent(&pair.far.stream), cut == 0 ? 0 : 8);
        assert_true(sim_run_idle(pair.sim, SECOND));
        assert_int_equal(pair.far.closed_err, -ECONNRESET);
        assert_true(pair.far.in_len <= cut);
        pair_end(&pair);
    }
}

static void test_connect_to_nobody_is_refused(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *node = sim_node_create(sim, "a");
    struct client client = {0};
    struct io_addr addr = address(1);

    (void)state;
    client_connect(&client, node, &addr, NULL);
    assert_int_equal(client.connected, 0);
    assert_true(sim_run_while_not(sim, &client.is_over, SECOND));
    assert_int_equal(client.connect_err, -ECONNREFUSED);
    assert_int_equal(sim_fd_count(sim, NULL), 0);
    sim_destroy(&sim);
}

static void test_connect_over_a_cut_times_out(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *node = sim_node_create(sim, "a");
    struct echo echo;
    struct client client = {0};
    struct io_addr addr = address(7000);

    (void)state;
    echo_start(&echo, sim, &addr);
    sim_net_cut(echo.node, node); /* the answer is what is lost */
    client_connect(&client, node, &addr, NULL);
    sim_run_for(sim, 126 * SECOND);
    assert_int_equal(client.connected, 0);
    sim_run_for(sim, 2 * SECOND);
    assert_int_equal(client.connect_err, -ETIMEDOUT);
    echo_free(&echo);
    sim_destroy(&sim);
}

static void test_a_full_backlog_delays_the_connect(void **state)
{
    struct sim_options options;
    struct sim *sim;
    struct sim_node *node;
    struct io_addr addr = address(7000);
    struct client clients[3] = {0};
    struct echo echo;
    int fd;

    (void)state;
    sim_options_calm(&options);
    options.net.backlog = 2;
    sim = sim_create(1, &options);
    node = sim_node_create(sim, "a");
    fd = echo_start(&echo, sim, &addr);
    io_listener_stop(&echo.listener);
    for (int i = 0; i < 3; i++)
        client_connect(&clients[i], node, &addr, NULL);
    sim_run_for(sim, SECOND / 2);
    assert_int_equal(clients[0].connected + clients[1].connected + clients[2].connected, 2);
    echo_listen(&echo, fd);
    sim_run_for(sim, 5 * SECOND);
    assert_int_equal(clients[0].connected + clients[1].connected + clients[2].connected, 3);
    assert_int_equal(echo.accepted, 3);
    for (int i = 0; i < 3; i++)
        client_free(&clients[i]);
    sim_run_for(sim, SECOND);
    echo_free(&echo);
    sim_destroy(&sim);
}

/* Out of descriptors the listener pauses by itself and goes on when there are some. */
static void test_accept_waits_for_descriptors(void **state)
{
    struct sim_options options;
    struct sim *sim;
    struct io_addr addr = address(7000);
    struct client clients[3] = {0};
    struct echo echo;

    (void)state;
    sim_options_calm(&options);
    options.net.fd_max = 3; /* the listener and two more */
    sim = sim_create(1, &options);
    echo_start(&echo, sim, &addr);
    for (int i = 0; i < 3; i++)
        client_connect(&clients[i], sim_node_create(sim, "c"), &addr, NULL);
    sim_run_for(sim, SECOND);
    assert_int_equal(echo.accepted, 2);
    client_free(&clients[0]);
    client_free(&clients[1]);
    sim_run_for(sim, SECOND);
    assert_int_equal(echo.accepted, 3);
    client_free(&clients[2]);
    sim_run_for(sim, SECOND);
    echo_free(&echo);
    sim_destroy(&sim);
}

static void test_unix_sockets(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *node = sim_node_create(sim, "a");
    struct echo echo;
    struct client client = {.out = "hello", .out_len = 5}, lost = {0};
    struct io_addr addr, other;
    int fd;

    (void)state;
    assert_int_equal(io_addr_unix("/run/x", &addr), 0);
    assert_int_equal(io_addr_unix("/run/y", &other), 0);
    echo_start(&echo, sim, &addr);
    assert_int_equal(sim_listen(node, &addr, &fd), -EADDRINUSE);
    client_connect(&client, node, &addr, NULL);
    client_connect(&lost, node, &other, NULL);
    assert_true(sim_run_idle(sim, SECOND));
    assert_int_equal(client.in_len, 5);
    assert_int_equal(lost.connect_err, -ECONNREFUSED);
    client_free(&client);
    assert_true(sim_run_idle(sim, SECOND));
    echo_free(&echo);
    sim_destroy(&sim);
}

static void test_addresses_of_both_ends(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *node = sim_node_create(sim, "a");
    struct echo echo;
    struct client client = {0};
    struct io_addr addr, local, peer, server_peer, any;

    (void)state;
    assert_int_equal(io_addr_parse("0.0.0.0", 7000, &any), 0);
    echo_start(&echo, sim, &any);
    sim_node_addr(echo.node, 7000, &addr); /* found by its host's address */
    client_connect(&client, node, &addr, NULL);
    assert_true(sim_run_idle(sim, SECOND));
    assert_int_equal(client.connect_err, 0);
    assert_int_equal(echo.accepted, 1);
    io_stream_peer(&client.stream, &peer);
    io_stream_local(&client.stream, &local);
    assert_true(io_addr_equal(&peer, &addr));
    io_stream_peer(&CONTAINER_OF(list_first(&echo.clients), struct echo_client, node)->stream,
                   &server_peer);
    assert_true(io_addr_equal(&server_peer, &local));
    client_free(&client);
    assert_true(sim_run_idle(sim, SECOND));
    echo_free(&echo);
    sim_destroy(&sim);
}

/* 127.0.0.1 leads to whoever listens on every address, if nobody nearer does. */
static void test_a_wildcard_is_reached_over_loopback(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct echo echo;
    struct client client = {.out = "hello", .out_len = 5};
    struct io_addr any, addr = address(7000);

    (void)state;
    assert_int_equal(io_addr_parse("0.0.0.0", 7000, &any), 0);
    echo_start(&echo, sim, &any);
    client_connect(&client, sim_node_create(sim, "a"), &addr, NULL);
    assert_true(sim_run_while_not(sim, &client.is_over, SECOND));
    assert_int_equal(client.in_len, 5);
    client_free(&client);
    assert_true(sim_run_idle(sim, SECOND));
    echo_free(&echo);
    sim_destroy(&sim);
}

/* Bytes of a connection that its sender has closed arrive after those of the next one. */
static void test_a_dead_connection_may_speak_later(void **state)
{
    struct pair pair;
    struct client near = {0}, far = {0};
    struct iovec slice = {.iov_base = (void *)(uintptr_t) "old", .iov_len = 3};
    int fds[2];

    (void)state;
    pair_start(&pair, NULL);
    sim_net_slow(pair.a, pair.b, 2 * SECOND);
    assert_int_equal(io_stream_send(&pair.near.stream, &slice, 1), 3);
    io_stream_close(&pair.near.stream);
    sim_net_slow(pair.a, pair.b, 0);
    assert_int_equal(sim_socketpair(pair.a, pair.b, fds), 0);
    assert_int_equal(io_stream_open(sim_node_io(pair.a), &near.stream, &client_handler, fds[0],
                                    NULL, BYTES_EMPTY), 0);
    assert_int_equal(io_stream_open(sim_node_io(pair.b), &far.stream, &client_handler, fds[1],
                                    NULL, BYTES_EMPTY), 0);
    io_stream_resume(&far.stream);
    slice.iov_base = (void *)(uintptr_t) "new";
    assert_int_equal(io_stream_send(&near.stream, &slice, 1), 3);
    sim_run_for(pair.sim, SECOND);
    assert_int_equal(far.in_len, 3);
    assert_int_equal(pair.far.in_len, 0);
    sim_run_for(pair.sim, 2 * SECOND);
    assert_int_equal(pair.far.in_len, 3);
    assert_int_equal(pair.far.closed_err, ERR_EOF);
    client_free(&near);
    client_free(&far);
    pair_end(&pair);
}

/* ---- partitions --------------------------------------------------------------------------- */

/* A cut in one direction stops that one only; healed, everything comes, late and in order. */
static void test_cut_is_directed_and_loses_nothing(void **state)
{
    struct pair pair;
    struct iovec slice = {.iov_base = (void *)(uintptr_t) "pong", .iov_len = 4};

    (void)state;
    pair_start(&pair, NULL);
    sim_net_cut(pair.a, pair.b);
    assert_true(sim_net_is_cut(pair.a, pair.b));
    assert_false(sim_net_is_cut(pair.b, pair.a));
    pair_send(&pair, "ping");
    sim_run_for(pair.sim, 10 * SECOND);
    assert_int_equal(pair.far.in_len, 0);
    assert_int_equal(io_stream_send(&pair.far.stream, &slice, 1), 4);
    sim_run_for(pair.sim, SECOND);
    assert_int_equal(pair.near.in_len, 4);
    sim_net_heal(pair.a, pair.b);
    sim_run_for(pair.sim, SECOND);
    assert_int_equal(pair.far.in_len, 4);
    assert_int_equal(pair.far.closed + pair.near.closed, 0);
    pair_end(&pair);
}

/* Nobody answers: TCP_USER_TIMEOUT ends it for the sender; the other end knows nothing. */
static void test_user_timeout_ends_a_half_open_connection(void **state)
{
    const struct io_stream_options options = {.user_timeout_ms = 3000};
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *node = sim_node_create(sim, "a");
    struct echo echo;
    struct client client = {0};
    struct io_addr addr = address(7000);

    (void)state;
    echo_start(&echo, sim, &addr);
    client_connect(&client, node, &addr, &options);
    assert_true(sim_run_idle(sim, SECOND));
    sim_stream_blackhole(&client.stream);
    sim_run_for(sim, 10 * SECOND);
    assert_int_equal(client.closed, 0); /* nothing was sent: nothing is known */
    client.out = "x";
    client.out_len = 1;
    client_send(&client);
    sim_run_for(sim, 2 * SECOND);
    assert_int_equal(client.closed, 0);
    sim_run_for(sim, 2 * SECOND);
    assert_int_equal(client.closed_err, -ETIMEDOUT);
    assert_int_equal(echo.closed, 0);
    client_free(&client);
    echo_free(&echo);
    sim_destroy(&sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo_survives_any_segmentation),
        cmocka_unit_test(test_short_send_is_followed_by_writable),
        cmocka_unit_test(test_rest_is_lent_again_before_what_follows),
        cmocka_unit_test(test_resume_lends_what_is_kept),
        cmocka_unit_test(test_need_holds_recv_back),
        cmocka_unit_test(test_half_close_leaves_the_other_way_open),
        cmocka_unit_test(test_detach_and_open_with_rest),
        cmocka_unit_test(test_abort_is_a_reset_for_the_peer),
        cmocka_unit_test(test_abort_loses_the_end_of_what_was_sent),
        cmocka_unit_test(test_abort_reaches_a_peer_that_does_not_read),
        cmocka_unit_test(test_connected_comes_before_the_reset),
        cmocka_unit_test(test_reset_reaches_both_ends_once),
        cmocka_unit_test(test_error_of_send_is_told_once),
        cmocka_unit_test(test_reset_at_any_byte),
        cmocka_unit_test(test_connect_to_nobody_is_refused),
        cmocka_unit_test(test_connect_over_a_cut_times_out),
        cmocka_unit_test(test_a_full_backlog_delays_the_connect),
        cmocka_unit_test(test_accept_waits_for_descriptors),
        cmocka_unit_test(test_unix_sockets),
        cmocka_unit_test(test_addresses_of_both_ends),
        cmocka_unit_test(test_a_wildcard_is_reached_over_loopback),
        cmocka_unit_test(test_a_dead_connection_may_speak_later),
        cmocka_unit_test(test_cut_is_directed_and_loses_nothing),
        cmocka_unit_test(test_user_timeout_ends_a_half_open_connection),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
