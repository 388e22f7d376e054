/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulator itself: what it promises to the tests that stand on it.
 */
#include "tests/unit/test.h"

#include "common/base/mem.h"
#include "common/io/io_sim.h"

#define SECOND 1000000u

/* ---- an echo server ----------------------------------------------------------------------- */

struct echo;

struct echo_client {
    struct io_stream stream;
    struct echo *echo;
    struct list_node node;
    char *out; /* owns: not sent yet */
    size_t out_len;
    bool is_ended;
};

struct echo {
    struct sim_node *node;
    struct io_listener listener;
    struct list clients;
    size_t step; /* consume at most so much at once; 0: all */
    int accepted, closed;
};

static void echo_client_free(struct echo_client *client)
{
    io_stream_close(&client->stream);
    list_remove(&client->node);
    mem_free(client->out);
    mem_free(client);
}

static void echo_flush(struct echo_client *client)
{
    struct iovec slice = {.iov_base = client->out, .iov_len = client->out_len};
    ssize_t sent;

    if (client->out_len == 0)
        return;
    sent = io_stream_send(&client->stream, &slice, 1);
    if (sent < 0) {
        client->out_len = 0;
        client->is_ended = true;
        return;
    }
    memmove(client->out, client->out + sent, client->out_len - (size_t)sent);
    client->out_len -= (size_t)sent;
}

static size_t echo_recv(struct io_stream *stream, struct bytes data)
{
    struct echo_client *client = CONTAINER_OF(stream, struct echo_client, stream);
    size_t len = client->echo->step == 0 ? data.len : MIN(client->echo->step, data.len);

    client->out = must_realloc(client->out, client->out_len + len);
    memcpy(client->out + client->out_len, data.data, len);
    client->out_len += len;
    echo_flush(client);
    if (client->is_ended)
        echo_client_free(client);
    return len;
}

static void echo_closed(struct io_stream *stream, int err, struct bytes rest)
{
    struct echo_client *client = CONTAINER_OF(stream, struct echo_client, stream);

    (void)rest;
    client->echo->closed++;
    client->is_ended = true;
    if (err != ERR_EOF || client->out_len == 0)
        echo_client_free(client);
}

static void echo_writable(struct io_stream *stream)
{
    struct echo_client *client = CONTAINER_OF(stream, struct echo_client, stream);

    echo_flush(client);
    if (client->is_ended && client->out_len == 0)
        echo_client_free(client);
}

static const struct io_stream_handler echo_handler = {
    .recv = echo_recv, .closed = echo_closed, .writable = echo_writable};

static void echo_accepted(struct io_listener *listener, int fd, const struct io_addr *peer)
{
    struct echo *echo = listener->arg;
    struct echo_client *client = must_zalloc(sizeof(*client));

    assert_true(peer->len > 0);
    client->echo = echo;
    echo->accepted++;
    assert_int_equal(
        io_stream_open(listener->io, &client->stream, &echo_handler, fd, NULL, BYTES_EMPTY), 0);
    list_push_back(&echo->clients, &client->node);
    io_stream_resume(&client->stream);
}

static void echo_listen(struct echo *echo, int fd)
{
    echo->listener = (struct io_listener){.accepted = echo_accepted, .arg = echo};
    io_listener_start(sim_node_io(echo->node), &echo->listener, fd);
}

static int echo_start(struct echo *echo, struct sim *sim, const struct io_addr *addr)
{
    int fd;

    *echo = (struct echo){.node = sim_node_create(sim, "echo")};
    list_init(&echo->clients);
    assert_int_equal(sim_listen(echo->node, addr, &fd), 0);
    echo_listen(echo, fd);
    return fd;
}

/* After a kill: the memory of the process. */
static void echo_free(struct echo *echo)
{
    struct list_node *node;

    while ((node = list_first(&echo->clients)) != NULL)
        echo_client_free(CONTAINER_OF(node, struct echo_client, node));
    io_listener_stop(&echo->listener);
}

static struct io_addr address(uint16_t port)
{
    struct io_addr addr;

    assert_int_equal(io_addr_parse("127.0.0.1", port, &addr), 0);
    return addr;
}

/* ---- a client that sends a text and collects what comes ------------------------------------ */

struct client {
    struct io_stream stream;
    const char *out; /* borrows */
    size_t out_len, sent;
    char *in; /* owns */
    size_t in_len;
    int connect_err, closed_err;
    int connected, closed, writables, recvs;
    bool is_over; /* closed, refused, or everything is back */
    bool keeps;   /* consume nothing */
    uint32_t need; /* ask for so much each time */
    size_t rest_len;
};

static void client_send(struct client *client)
{
    struct iovec slice = {.iov_base = (void *)(uintptr_t)(client->out + client->sent),
                          .iov_len = client->out_len - client->sent};
    ssize_t sent;

    if (slice.iov_len == 0)
        return;
    sent = io_stream_send(&client->stream, &slice, 1);
    if (sent < 0) {
        client->closed_err = (int)sent;
        client->is_over = true;
        return;
    }
    client->sent += (size_t)sent;
}

static size_t client_recv(struct io_stream *stream, struct bytes data)
{
    struct client *client = CONTAINER_OF(stream, struct client, stream);

    client->recvs++;
    assert_true(data.len > 0 && data.len >= client->need);
    assert_int_equal(stream->need, 0);
    if (client->keeps) {
        client->rest_len = data.len;
        return 0;
    }
    client->in = must_realloc(client->in, client->in_len + data.len);
    memcpy(client->in + client->in_len, data.data, data.len);
    client->in_len += data.len;
    client->is_over |= client->out_len > 0 && client->in_len == client->out_len;
    return data.len;
}

static void client_closed(struct io_stream *stream, int err, struct bytes rest)
{
    struct client *client = CONTAINER_OF(stream, struct client, stream);

    client->closed++;
    client->closed_err = err;
    client->rest_len = rest.len;
    client->is_over = true;
}

static void client_writable(struct io_stream *stream)
{
    struct client *client = CONTAINER_OF(stream, struct client, stream);

    client->writables++;
    client_send(client);
}

static void client_connected(struct io_stream *stream, int err)
{
    struct client *client = CONTAINER_OF(stream, struct client, stream);

    client->connected++;
    client->connect_err = err;
    if (err != 0) {
        assert_false(io_stream_is_open(stream));
        client->is_over = true;
        return;
    }
    io_stream_resume(stream);
    client_send(client);
}

static const struct io_stream_handler client_handler = {.recv = client_recv,
                                                        .closed = client_closed,
                                                        .writable = client_writable,
                                                        .connected = client_connected};

static void client_connect(struct client *client, struct sim_node *node, const struct io_addr *addr,
                           const struct io_stream_options *options)
{
    assert_int_equal(
        io_stream_connect(sim_node_io(node), &client->stream, &client_handler, addr, options), 0);
}

static void client_free(struct client *client)
{
    io_stream_close(&client->stream);
    mem_free(client->in);
    *client = (struct client){0};
}

static char *text_create(size_t len)
{
    char *text = must_alloc(len);

    for (size_t i = 0; i < len; i++)
        text[i] = (char)('a' + (i * 31 + i / 977) % 26);
    return text;
}

/* ---- determinism -------------------------------------------------------------------------- */

/* A run of several clients with all faults that the seed draws; returns the hash of its trace. */
static uint64_t swarm_run(uint64_t seed, uint64_t option_seed)
{
    struct sim_options options;
    struct sim *sim;
    struct echo echo;
    struct sim_node *nodes[4];
    struct client clients[4] = {0};
    struct io_addr addr = address(7000);
    char *text = text_create(6000);
    uint64_t hash;

    sim_options_draw(&options, option_seed);
    sim = sim_create(seed, &options);
    echo_start(&echo, sim, &addr);
    for (size_t i = 0; i < ARRAY_COUNT(nodes); i++) {
        nodes[i] = sim_node_create(sim, "client");
        clients[i].out = text;
        clients[i].out_len = 1 + sim_random_below(sim, SIM_RANDOM_WORKLOAD, 6000);
        client_connect(&clients[i], nodes[i], &addr, NULL);
    }
    sim_run_for(sim, SECOND / 20);
    sim_net_cut(nodes[0], echo.node);
    sim_node_pause(nodes[1]);
    sim_run_for(sim, SECOND);
    sim_net_heal_all(sim);
    sim_node_resume(nodes[1]);
    sim_node_power_cut(nodes[2]);
    sim_run_for(sim, 20 * SECOND);
    for (size_t i = 0; i < ARRAY_COUNT(nodes); i++) {
        /* Whatever happens, the bytes are the right ones, in order. */
        assert_true(clients[i].in_len <= clients[i].out_len);
        if (clients[i].in_len > 0)
            assert_memory_equal(clients[i].in, text, clients[i].in_len);
        client_free(&clients[i]);
    }
    sim_run_for(sim, 200 * SECOND);
    echo_free(&echo);
    hash = sim_trace_hash(sim);
    sim_destroy(&sim);
    mem_free(text);
    return hash;
}

/* Two runs of one seed are equal; two seeds are not. */
static void test_seed_decides_everything(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        uint64_t hash = swarm_run(seed, seed);

        assert_true(hash == swarm_run(seed, seed));
        assert_true(hash != swarm_run(seed + 1000, seed));
    }
}

static void test_random_streams_do_not_disturb_each_other(void **state)
{
    struct sim *a = sim_create(5, NULL), *b = sim_create(5, NULL);

    (void)state;
    for (int i = 0; i < 10; i++)
        MAYBE(sim_random(a, SIM_RANDOM_NET));
    assert_true(sim_random(a, SIM_RANDOM_WORKLOAD) == sim_random(b, SIM_RANDOM_WORKLOAD));
    assert_true(sim_random(a, SIM_RANDOM_DISK) != sim_random(a, SIM_RANDOM_CLOCK));
    sim_destroy(&a);
    sim_destroy(&b);
}

static void test_random_of_an_io_is_its_own(void **state)
{
    struct sim *sim = sim_create(5, NULL);
    struct sim_node *a = sim_node_create(sim, "a"), *b = sim_node_create(sim, "b");
    uint64_t first = io_random64(sim_node_io(a));

    (void)state;
    assert_true(first != io_random64(sim_node_io(b)));
    sim_node_kill(a);
    assert_true(first != io_random64(sim_node_start(a)));
    sim_destroy(&sim);
}

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

struct pair {
    struct sim *sim;
    struct sim_node *a, *b;
    struct client near, far; /* near sends, far is looked at */
};

static void pair_start(struct pair *pair, const struct sim_options *options)
{
    int fds[2];

    *pair = (struct pair){.sim = sim_create(3, options)};
    pair->a = sim_node_create(pair->sim, "a");
    pair->b = sim_node_create(pair->sim, "b");
    assert_int_equal(sim_socketpair(pair->a, pair->b, fds), 0);
    assert_int_equal(io_stream_open(sim_node_io(pair->a), &pair->near.stream, &client_handler,
                                    fds[0], NULL, BYTES_EMPTY), 0);
    assert_int_equal(io_stream_open(sim_node_io(pair->b), &pair->far.stream, &client_handler,
                                    fds[1], NULL, BYTES_EMPTY), 0);
    io_stream_resume(&pair->near.stream);
    io_stream_resume(&pair->far.stream);
}

static void pair_send(struct pair *pair, const char *text)
{
    struct iovec slice = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};

    assert_int_equal(io_stream_send(&pair->near.stream, &slice, 1), slice.iov_len);
    assert_true(sim_run_idle(pair->sim, SECOND));
}

static void pair_end(struct pair *pair)
{
    client_free(&pair->near);
    client_free(&pair->far);
    sim_destroy(&pair->sim);
}

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

/* ---- life and death of processes ---------------------------------------------------------- */

static void timer_never(struct io_timer *timer)
{
    (void)timer;
    fail();
}

static void test_kill_resets_and_forgets(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *node = sim_node_create(sim, "a");
    struct echo echo;
    struct client client = {.out = "hello", .out_len = 5};
    struct io_addr addr = address(7000);
    struct io_timer timer = {.fire = timer_never};
    struct io *dead;

    (void)state;
    echo_start(&echo, sim, &addr);
    client_connect(&client, node, &addr, NULL);
    assert_true(sim_run_idle(sim, SECOND));
    assert_int_equal(client.in_len, 5);
    dead = sim_node_io(echo.node);
    io_timer_start(dead, &timer, 5);
    sim_node_kill(echo.node);
    assert_false(sim_node_is_running(echo.node));
    assert_false(io_timer_is_running(&timer));
    assert_null(echo.listener.io);
    assert_int_equal(sim_fd_count(sim, echo.node), 0);
    echo_free(&echo);
    io_timer_start(dead, &timer, 5); /* a dead io takes nothing */
    assert_false(io_timer_is_running(&timer));
    assert_true(sim_run_idle(sim, SECOND));
    assert_int_equal(client.closed_err, -ECONNRESET);
    client_free(&client);
    client_connect(&client, node, &addr, NULL);
    assert_true(sim_run_idle(sim, SECOND));
    assert_int_equal(client.connect_err, -ECONNREFUSED);
    assert_int_equal(sim_listen(echo.node, &addr, &(int){0}), -ENETDOWN);
    assert_ptr_not_equal(sim_node_start(echo.node), dead);
    sim_destroy(&sim);
}

/* A socket that the master holds keeps the connections that come while no worker lives. */
static void test_kept_listener_survives_the_worker(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *node = sim_node_create(sim, "a");
    struct echo echo;
    struct client client = {.out = "hello", .out_len = 5};
    struct io_addr addr = address(7000);
    int fd = echo_start(&echo, sim, &addr);

    (void)state;
    sim_listen_keep(sim, fd);
    sim_node_kill(echo.node);
    client_connect(&client, node, &addr, NULL);
    sim_run_for(sim, SECOND);
    assert_int_equal(client.connected, 1);
    assert_int_equal(client.in_len, 0);
    sim_node_start(echo.node);
    echo_listen(&echo, fd);
    assert_true(sim_run_while_not(sim, &client.is_over, SECOND));
    assert_int_equal(client.in_len, 5);
    client_free(&client);
    assert_true(sim_run_idle(sim, SECOND));
    echo_free(&echo);
    sim_destroy(&sim);
}

/* The host is gone without a word; when it is back, it knows nothing of the connection. */
static void test_power_cut_is_silent(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *node = sim_node_create(sim, "a");
    struct echo echo;
    struct client client = {.out = "hello", .out_len = 5}, second = {0};
    struct io_addr addr;

    (void)state;
    assert_int_equal(io_addr_parse("127.0.1.2", 7000, &addr), 0);
    echo_start(&echo, sim, &addr);
    client_connect(&client, node, &addr, NULL);
    assert_true(sim_run_idle(sim, SECOND));
    sim_node_power_cut(echo.node);
    echo_free(&echo);
    client.out_len = 6;
    client.out = "hello!";
    client_send(&client);
    client_connect(&second, node, &addr, NULL);
    sim_run_for(sim, 60 * SECOND);
    assert_int_equal(client.closed, 0);
    assert_int_equal(second.connected, 0);
    sim_node_start(echo.node);
    sim_run_for(sim, 60 * SECOND);
    assert_int_equal(client.closed_err, -ECONNRESET);
    assert_int_equal(second.connect_err, -ECONNREFUSED);
    client_free(&client);
    sim_destroy(&sim);
}

/* Killed inside of its own callback: no callback after it. */
static struct sim_node *suicide_node;

static size_t suicide_recv(struct io_stream *stream, struct bytes data)
{
    (void)stream;
    sim_node_kill(suicide_node);
    return data.len;
}

static void suicide_closed(struct io_stream *stream, int err, struct bytes rest)
{
    (void)stream, (void)err, (void)rest;
    fail();
}

static void test_kill_from_inside_a_callback(void **state)
{
    static const struct io_stream_handler handler = {.recv = suicide_recv,
                                                     .closed = suicide_closed};
    struct pair pair;

    (void)state;
    pair_start(&pair, NULL);
    suicide_node = pair.b;
    pair.far.stream.handler = &handler;
    pair_send(&pair, "x");
    assert_false(io_stream_is_open(&pair.far.stream));
    assert_int_equal(pair.near.closed, 1);
    pair_end(&pair);
}

/* ---- timers, turns, clocks ---------------------------------------------------------------- */

static int timer_order[8];
static int timer_count;
static uint64_t timer_stamps[8];

static void timer_note(struct io_timer *timer)
{
    assert_false(io_timer_is_running(timer));
    timer_stamps[timer_count] = io_now_us(timer->arg);
    timer_order[timer_count++] = (int)timer->private_[7];
}

static void timer_set(struct io *io, struct io_timer *timer, int number, uint64_t delay_ms)
{
    timer->fire = timer_note;
    timer->arg = io;
    timer->private_[7] = (uint64_t)number;
    io_timer_start(io, timer, delay_ms);
}

static void test_timers_fire_in_order(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct io *io = sim_node_io(sim_node_create(sim, "a"));
    struct io_timer timers[5] = {0};
    uint64_t start_us = io_now_us(io);

    (void)state;
    timer_count = 0;
    timer_set(io, &timers[0], 0, 30);
    timer_set(io, &timers[1], 1, 10);
    timer_set(io, &timers[2], 2, 20);
    timer_set(io, &timers[3], 3, 5);
    timer_set(io, &timers[4], 4, 1);
    timer_set(io, &timers[4], 4, 40); /* moves */
    io_timer_stop(&timers[3]);
    io_timer_stop(&timers[3]);
    sim_run_for(sim, SECOND);
    assert_int_equal(timer_count, 4);
    assert_int_equal(timer_order[0], 1);
    assert_int_equal(timer_order[1], 2);
    assert_int_equal(timer_order[2], 0);
    assert_int_equal(timer_order[3], 4);
    for (int i = 0; i < 4; i++) {
        assert_true(timer_stamps[i] >= start_us + 10000 * (uint64_t)(i + 1));
        assert_true(timer_stamps[i] < start_us + 10000 * (uint64_t)(i + 1) + 1000);
    }
    sim_destroy(&sim);
}

/* A stopped process finds all its timers late, in order. */
static void test_pause_bursts_late_timers(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *node = sim_node_create(sim, "a");
    struct io *io = sim_node_io(node);
    struct io_timer timers[3] = {0};

    (void)state;
    timer_count = 0;
    for (int i = 0; i < 3; i++)
        timer_set(io, &timers[i], i, 10 + (uint64_t)i);
    sim_node_pause(node);
    sim_run_for(sim, SECOND);
    assert_int_equal(timer_count, 0);
    sim_node_resume(node);
    sim_run_for(sim, SECOND / 100);
    assert_int_equal(timer_count, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(timer_order[i], i);
    assert_true(timer_stamps[0] == timer_stamps[2]); /* one turn */
    sim_destroy(&sim);
}

/* The kernel of a stopped process takes what fits; the process sees it when it goes on. */
static void test_pause_lets_the_kernel_receive(void **state)
{
    struct pair pair;

    (void)state;
    pair_start(&pair, NULL);
    sim_node_pause(pair.b);
    pair_send(&pair, "abc");
    sim_run_for(pair.sim, SECOND);
    assert_int_equal(pair.far.in_len, 0);
    sim_node_resume(pair.b);
    assert_true(sim_run_idle(pair.sim, SECOND));
    assert_int_equal(pair.far.in_len, 3);
    pair_end(&pair);
}

struct hook_note {
    struct io_hook hook;
    struct io *io;
    struct io_hook *removes;
    int runs, wakes;
};

static void hook_run(struct io_hook *hook)
{
    struct hook_note *note = CONTAINER_OF(hook, struct hook_note, hook);

    note->runs++;
    if (note->removes != NULL)
        io_hook_remove(note->io, note->removes);
    if (note->wakes > 0) {
        note->wakes--;
        io_wake(note->io);
    }
}

static void test_hooks_end_each_turn(void **state)
{
    struct pair pair;
    struct io *io;
    struct hook_note first = {.hook.run = hook_run}, second = {.hook.run = hook_run};

    (void)state;
    pair_start(&pair, NULL);
    assert_true(sim_run_idle(pair.sim, SECOND));
    io = sim_node_io(pair.b);
    first.io = second.io = io;
    io_hook_add(io, &first.hook);
    io_hook_add(io, &second.hook);
    pair_send(&pair, "abc");
    assert_int_equal(first.runs, 1);
    assert_int_equal(second.runs, 1);
    assert_true(sim_run_idle(pair.sim, SECOND));
    assert_int_equal(first.runs, 1); /* nothing happened, no turn */
    first.wakes = 2;
    io_wake(io);
    assert_true(sim_run_idle(pair.sim, SECOND));
    assert_int_equal(first.runs, 4);
    first.removes = &second.hook;
    io_wake(io);
    assert_true(sim_run_idle(pair.sim, SECOND));
    assert_int_equal(first.runs, 5);
    assert_int_equal(second.runs, 4);
    io_hook_remove(io, &first.hook);
    pair_end(&pair);
}

static void test_clocks_drift_and_jump(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *fast = sim_node_create(sim, "fast"), *slow = sim_node_create(sim, "slow");
    struct io_timer timer = {0};
    uint64_t fast_us = io_now_us(sim_node_io(fast)), slow_us = io_now_us(sim_node_io(slow));
    uint64_t wall_us = io_wall_us(sim_node_io(slow)), before_us;

    (void)state;
    sim_node_clock_rate(fast, 50000);
    sim_node_clock_rate(slow, -50000);
    sim_run_for(sim, 100 * SECOND);
    assert_int_equal(io_now_us(sim_node_io(fast)) - fast_us, 105 * SECOND);
    assert_int_equal(io_now_us(sim_node_io(slow)) - slow_us, 95 * SECOND);
    sim_node_wall_jump(slow, -3600 * (int64_t)SECOND);
    assert_int_equal(io_wall_us(sim_node_io(slow)) - wall_us,
                     (95 - 3600) * (int64_t)SECOND);
    timer_count = 0;
    timer_set(sim_node_io(slow), &timer, 0, 9500);
    before_us = sim_now_us(sim);
    sim_run_until(sim, before_us + 10 * SECOND - 1);
    assert_int_equal(timer_count, 0); /* by the node's clock */
    sim_run_for(sim, SECOND / 100);
    assert_int_equal(timer_count, 1);
    sim_destroy(&sim);
}

static void test_stamps_stand_still_in_a_turn(void **state)
{
    struct sim_options options;
    struct sim *sim;
    struct io *io;
    struct io_timer timers[3] = {0};
    uint64_t clock_us;

    (void)state;
    sim_options_calm(&options);
    options.loop.callback_us_max = 1000;
    sim = sim_create(1, &options);
    io = sim_node_io(sim_node_create(sim, "a"));
    timer_count = 0;
    for (int i = 0; i < 3; i++)
        timer_set(io, &timers[i], i, 10);
    sim_run_for(sim, SECOND);
    assert_true(timer_stamps[0] == timer_stamps[2]);
    clock_us = io_clock_us(io);
    assert_true(clock_us == io_now_us(io)); /* outside of a turn: fresh */
    sim_destroy(&sim);
}

/* ---- names -------------------------------------------------------------------------------- */

static ssize_t resolve_result;
static int resolve_count;

static void resolve_done(struct io_op *op)
{
    resolve_result = op->result;
    resolve_count++;
}

static ssize_t resolve_run(struct sim *sim, struct io *io, const char *host, struct io_addr *addrs)
{
    struct io_resolve resolve = {.op.done = resolve_done, .addrs = addrs, .addr_max = 2, .port = 9};

    strncpy(resolve.host, host, sizeof(resolve.host) - 1);
    resolve_count = 0;
    io_resolve_submit(io, &resolve);
    assert_int_equal(resolve_count, 0);
    assert_true(sim_run_idle(sim, 60 * SECOND));
    assert_int_equal(resolve_count, 1);
    assert_null(resolve.io);
    return resolve_result;
}

static void test_names_come_from_the_table(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct io *io = sim_node_io(sim_node_create(sim, "a"));
    struct io_addr addrs[3] = {address(1), address(2), address(3)}, got[2];
    struct io_addr expected = address(9);
    struct io_resolve canceled = {.op.done = resolve_done, .addrs = got, .addr_max = 2,
                                  .host = "one"};

    (void)state;
    sim_name_set(sim, "one", addrs, 1, 0, 0);
    sim_name_set(sim, "three", addrs, 3, 0, 5 * SECOND);
    sim_name_set(sim, "broken", NULL, 0, ERR_AGAIN, 0);
    assert_int_equal(resolve_run(sim, io, "one", got), 1);
    assert_true(io_addr_equal(&got[0], &expected));
    assert_int_equal(resolve_run(sim, io, "three", got), 2);
    assert_int_equal(resolve_run(sim, io, "broken", got), ERR_AGAIN);
    assert_int_equal(resolve_run(sim, io, "unknown", got), ERR_NOT_FOUND);
    assert_int_equal(resolve_run(sim, io, "127.0.0.1", got), 1);
    sim_name_set(sim, "one", NULL, 0, -ETIMEDOUT, 0);
    assert_int_equal(resolve_run(sim, io, "one", got), -ETIMEDOUT);
    resolve_count = 0;
    io_resolve_submit(io, &canceled);
    io_resolve_cancel(&canceled);
    memset(&canceled, 0xff, sizeof(canceled));
    assert_true(sim_run_idle(sim, SECOND));
    assert_int_equal(resolve_count, 0);
    sim_destroy(&sim);
}

/* ---- watches, calls ----------------------------------------------------------------------- */

static int watch_seen;

static void watch_ready(struct io_watch *watch, bool readable, bool writable)
{
    watch_seen += readable + 10 * writable;
    io_watch_stop(watch);
}

static void call_kill(void *arg)
{
    sim_node_kill(arg);
}

static void test_the_driver_calls_and_fires_watches(void **state)
{
    struct sim *sim = sim_create(1, NULL);
    struct sim_node *node = sim_node_create(sim, "a");
    struct io_watch watch = {.ready = watch_ready}, second = {.ready = watch_ready};

    (void)state;
    watch_seen = 0;
    io_watch_start(sim_node_io(node), &watch, 5, true, false);
    io_watch_start(sim_node_io(node), &second, 6, true, false);
    sim_watch_fire(&watch, true, false);
    assert_true(sim_run_idle(sim, SECOND));
    assert_int_equal(watch_seen, 1);
    sim_call_at(sim, 10 * SECOND, call_kill, node);
    sim_call_at(sim, 1000 * SECOND, call_kill, node); /* never comes */
    sim_run_until(sim, 9 * SECOND);
    assert_true(sim_node_is_running(node));
    sim_run_until(sim, 10 * SECOND);
    assert_false(sim_node_is_running(node));
    assert_null(second.io);
    sim_destroy(&sim);
}

/* ---- swarm -------------------------------------------------------------------------------- */

/* Whatever is drawn: the bytes are right, the world ends, nothing is left (the sanitizer looks). */
static void test_swarm_of_seeds(void **state)
{
    (void)state;
    for (uint64_t seed = 100; seed < 200; seed++)
        MAYBE(swarm_run(seed, seed));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seed_decides_everything),
        cmocka_unit_test(test_random_streams_do_not_disturb_each_other),
        cmocka_unit_test(test_random_of_an_io_is_its_own),
        cmocka_unit_test(test_echo_survives_any_segmentation),
        cmocka_unit_test(test_short_send_is_followed_by_writable),
        cmocka_unit_test(test_rest_is_lent_again_before_what_follows),
        cmocka_unit_test(test_resume_lends_what_is_kept),
        cmocka_unit_test(test_need_holds_recv_back),
        cmocka_unit_test(test_half_close_leaves_the_other_way_open),
        cmocka_unit_test(test_detach_and_open_with_rest),
        cmocka_unit_test(test_abort_is_a_reset_for_the_peer),
        cmocka_unit_test(test_reset_reaches_both_ends_once),
        cmocka_unit_test(test_error_of_send_is_told_once),
        cmocka_unit_test(test_reset_at_any_byte),
        cmocka_unit_test(test_connect_to_nobody_is_refused),
        cmocka_unit_test(test_connect_over_a_cut_times_out),
        cmocka_unit_test(test_a_full_backlog_delays_the_connect),
        cmocka_unit_test(test_accept_waits_for_descriptors),
        cmocka_unit_test(test_unix_sockets),
        cmocka_unit_test(test_addresses_of_both_ends),
        cmocka_unit_test(test_cut_is_directed_and_loses_nothing),
        cmocka_unit_test(test_user_timeout_ends_a_half_open_connection),
        cmocka_unit_test(test_kill_resets_and_forgets),
        cmocka_unit_test(test_kept_listener_survives_the_worker),
        cmocka_unit_test(test_power_cut_is_silent),
        cmocka_unit_test(test_kill_from_inside_a_callback),
        cmocka_unit_test(test_timers_fire_in_order),
        cmocka_unit_test(test_pause_bursts_late_timers),
        cmocka_unit_test(test_pause_lets_the_kernel_receive),
        cmocka_unit_test(test_hooks_end_each_turn),
        cmocka_unit_test(test_clocks_drift_and_jump),
        cmocka_unit_test(test_stamps_stand_still_in_a_turn),
        cmocka_unit_test(test_names_come_from_the_table),
        cmocka_unit_test(test_the_driver_calls_and_fires_watches),
        cmocka_unit_test(test_swarm_of_seeds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
