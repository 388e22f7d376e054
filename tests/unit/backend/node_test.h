/* SPDX-License-Identifier: Apache-2.0 */
/*
 * node_test.h - a shard over the simulated network and disk, and clients of it.
 */
#pragma once
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
    enum store_fsync fsync;
    bool is_open, is_closed;
    int err;
};

static inline void world_opened(void *arg, int err)
{
    struct world *w = arg;

    w->is_open = true;
    w->err = err;
}

static inline void world_closed(void *arg, int err)
{
    struct world *w = arg;

    w->is_closed = true;
    w->err = err;
}

static inline void world_accepted(struct io_listener *listener, int fd, const struct io_addr *peer)
{
    node_accept(((struct world *)listener->arg)->node, fd, peer);
}

/* Over what is on the disk. */
static inline void world_open(struct world *w)
{
    struct node_options options = {.arg = w, .opened = world_opened};

    options.io = sim_node_io(w->host);
    options.store.dir = "shard-0";
    options.store.shard_count = 1;
    options.store.fsync = w->fsync;
    options.store.ring_path = "/dev/shm/ring";
    options.store.segment_size = 1u << 20;
    options.engine.clients_max = 100;
    w->is_open = false;
    assert_int_equal(node_create(&options, &w->node), 0);
    assert_true(sim_run_while_not(w->sim, &w->is_open, 60 * SECOND));
    assert_int_equal(w->err, 0);
}

/* A disk whose flushes take their time. look_us: as the simulator's look_us_max. */
static inline void world_start_slow(struct world *w, enum store_fsync fsync, uint32_t look_us)
{
    struct sim_options sim_options;
    int fd;

    *w = (struct world){.fsync = fsync};
    sim_options_calm(&sim_options);
    sim_options.disk.flush_min_us = FLUSH_US;
    sim_options.disk.flush_mean_us = FLUSH_US;
    sim_options.loop.look_us_max = look_us;
    w->sim = sim_create(11, &sim_options);
    w->host = sim_node_create(w->sim, "host");
    w->other = sim_node_create(w->sim, "other");
    world_open(w);
    w->addr = address(PORT);
    assert_int_equal(sim_listen(w->host, &w->addr, &fd), 0);
    w->listener = (struct io_listener){.accepted = world_accepted, .arg = w};
    io_listener_start(sim_node_io(w->host), &w->listener, fd);
}

static inline void world_start(struct world *w, enum store_fsync fsync)
{
    world_start_slow(w, fsync, 0);
}

/* err: what the close of its store says. */
static inline void world_end_with(struct world *w, int err)
{
    node_close(w->node, world_closed, w);
    assert_true(sim_run_while_not(w->sim, &w->is_closed, 60 * SECOND));
    assert_int_equal(w->err, err);
    assert_int_equal(node_client_count(w->node), 0);
    node_destroy(&w->node);
    io_listener_stop(&w->listener);
    sim_destroy(&w->sim);
}

static inline void world_end(struct world *w)
{
    world_end_with(w, 0);
}

static inline void join(struct world *w, struct client *client)
{
    *client = (struct client){0};
    client_connect(client, w->other, &w->addr, NULL);
    sim_run_for(w->sim, 5000);
    assert_int_equal(client->connected, 1);
}

static inline void say(struct client *client, const char *text)
{
    struct iovec slice = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};

    assert_int_equal(io_stream_send(&client->stream, &slice, 1), slice.iov_len);
}

static inline void hears(struct client *client, const char *text)
{
    assert_int_equal(client->in_len, strlen(text));
    assert_memory_equal(client->in, text, client->in_len);
    client->in_len = 0;
}
