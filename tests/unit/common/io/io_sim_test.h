/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_sim_test.h - what the tests of the simulator send through it: an echo server, a client that
 * notes what it sees, two ends that are connected already.
 */
#pragma once
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

static inline void echo_client_free(struct echo_client *client)
{
    io_stream_close(&client->stream);
    list_remove(&client->node);
    mem_free(client->out);
    mem_free(client);
}

static inline void echo_flush(struct echo_client *client)
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

static inline size_t echo_recv(struct io_stream *stream, struct bytes data)
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

static inline void echo_closed(struct io_stream *stream, int err, struct bytes rest)
{
    struct echo_client *client = CONTAINER_OF(stream, struct echo_client, stream);

    (void)rest;
    client->echo->closed++;
    client->is_ended = true;
    if (err != ERR_EOF || client->out_len == 0)
        echo_client_free(client);
}

static inline void echo_writable(struct io_stream *stream)
{
    struct echo_client *client = CONTAINER_OF(stream, struct echo_client, stream);

    echo_flush(client);
    if (client->is_ended && client->out_len == 0)
        echo_client_free(client);
}

static const struct io_stream_handler echo_handler = {
    .recv = echo_recv, .closed = echo_closed, .writable = echo_writable};

static inline void echo_accepted(struct io_listener *listener, int fd, const struct io_addr *peer)
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

static inline void echo_listen(struct echo *echo, int fd)
{
    echo->listener = (struct io_listener){.accepted = echo_accepted, .arg = echo};
    io_listener_start(sim_node_io(echo->node), &echo->listener, fd);
}

static inline int echo_start(struct echo *echo, struct sim *sim, const struct io_addr *addr)
{
    int fd;

    *echo = (struct echo){.node = sim_node_create(sim, "echo")};
    list_init(&echo->clients);
    assert_int_equal(sim_listen(echo->node, addr, &fd), 0);
    echo_listen(echo, fd);
    return fd;
}

/* After a kill: the memory of the process. */
static inline void echo_free(struct echo *echo)
{
    struct list_node *node;

    while ((node = list_first(&echo->clients)) != NULL)
        echo_client_free(CONTAINER_OF(node, struct echo_client, node));
    io_listener_stop(&echo->listener);
}

static inline struct io_addr address(uint16_t port)
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

static inline void client_send(struct client *client)
{
    struct iovec slice;
    ssize_t sent;

    if (client->sent == client->out_len)
        return;
    slice = (struct iovec){.iov_base = (void *)(uintptr_t)(client->out + client->sent),
                           .iov_len = client->out_len - client->sent};
    sent = io_stream_send(&client->stream, &slice, 1);
    if (sent < 0) {
        client->closed_err = (int)sent;
        client->is_over = true;
        return;
    }
    client->sent += (size_t)sent;
}

static inline size_t client_recv(struct io_stream *stream, struct bytes data)
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

static inline void client_closed(struct io_stream *stream, int err, struct bytes rest)
{
    struct client *client = CONTAINER_OF(stream, struct client, stream);

    client->closed++;
    client->closed_err = err;
    client->rest_len = rest.len;
    client->is_over = true;
}

static inline void client_writable(struct io_stream *stream)
{
    struct client *client = CONTAINER_OF(stream, struct client, stream);

    client->writables++;
    client_send(client);
}

static inline void client_connected(struct io_stream *stream, int err)
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

static inline void client_connect(struct client *client, struct sim_node *node,
                                  const struct io_addr *addr,
                                  const struct io_stream_options *options)
{
    assert_int_equal(
        io_stream_connect(sim_node_io(node), &client->stream, &client_handler, addr, options), 0);
}

static inline void client_free(struct client *client)
{
    io_stream_close(&client->stream);
    mem_free(client->in);
    *client = (struct client){0};
}

static inline char *text_create(size_t len)
{
    char *text = must_alloc(len);

    for (size_t i = 0; i < len; i++)
        text[i] = (char)('a' + (i * 31 + i / 977) % 26);
    return text;
}

/* ---- two connected ends --------------------------------------------------------------------- */

struct pair {
    struct sim *sim;
    struct sim_node *a, *b;
    struct client near, far; /* near sends, far is looked at */
};

static inline void pair_start(struct pair *pair, const struct sim_options *options)
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

static inline void pair_send(struct pair *pair, const char *text)
{
    struct iovec slice = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};

    assert_int_equal(io_stream_send(&pair->near.stream, &slice, 1), slice.iov_len);
    assert_true(sim_run_idle(pair->sim, SECOND));
}

static inline void pair_end(struct pair *pair)
{
    client_free(&pair->near);
    client_free(&pair->far);
    sim_destroy(&pair->sim);
}
