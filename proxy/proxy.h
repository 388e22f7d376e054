/* SPDX-License-Identifier: Apache-2.0 */
/*
 * proxy.h - one worker's proxy: clients in front, servers behind, everything between.
 *
 *   client (bytes) -> proto (parse in place) -> route (pool, key, server) -> upstream (FIFO, shared by
 *   all clients of the worker) -> reply -> request (in order) -> client
 *
 * A request is a small pooled struct in two FIFO queues, its client's and its upstream's:
 *
 *     client A  [1 GET] [4 SET]                  upstream X  [1 GET] [2 GET] [3 SET]
 *     client B  [2 GET] [3 SET]                  upstream Y  [4 SET]
 *
 * A reply at X belongs to the head of X's queue. It goes out at once if its request is the head of its
 * client's queue, else the request keeps it until it is.
 *
 *   P1  No byte of a reply reaches a client that did not ask for it. A request whose client is gone, or
 *       that timed out, keeps its place upstream as a tombstone: its reply is parsed and dropped.
 *   P2  Any doubt about the framing of an upstream retires that connection. Nothing is resynchronised.
 *   P3  Exactly one reply a request, in order, on each client connection.
 *   P4  A request is complete before its first byte goes to a shared upstream.
 *   P5  Two requests of one client to one server never travel on two connections at the same time.
 *
 * No sockets, clocks or globals here: everything comes through struct io.
 */
#pragma once
#include "common/io/io.h"
#include "proxy/conf.h"
#include "proxy/health.h"

struct proxy;

struct proxy_options {
    struct io *io;               /* borrows */
    struct conf *conf;           /* borrows; proxy_set() changes values in it */
    struct health_area *health;  /* borrows; NULL: a private one */
    void *stats;                 /* borrows; stats_plan()'s size of zeroed memory, NULL: private */
    uint32_t worker_index;
    int worker_pid; /* for INFO */
    uint64_t client_id_base;     /* ids of clients rise from here: unique among all workers */
    bool stats_are_old;          /* a predecessor crashed: its counters go on, its gauges do not */
    /* Called when the last client has gone after proxy_drain(); again, if another came meanwhile. */
    void (*drained)(void *arg);
    /* Gives a client to a newer worker: 0 - its descriptors are somebody else's now; an error - still
     * ours. NULL: there is none to give to. */
    int (*pass)(void *arg, uint32_t pool_index, const int *fds, uint32_t fds_count, struct bytes blob);
    void *arg;
    /* Where a crash report looks for the command in execution; a static text, or NULL. Borrows; NULL:
     * nobody looks. */
    const char *volatile *note;
};

uint32_t proxy_health_slots(const struct conf *conf);

MUST_USE int proxy_create(const struct proxy_options *options, struct proxy **out);
void proxy_destroy(struct proxy **proxy);

/* `weirctl set`: conf_live.h. What does not fit this configuration is left out. */
void proxy_set(struct proxy *proxy, struct bytes text);
/* Takes over an accepted descriptor. */
void proxy_accept(struct proxy *proxy, uint32_t pool_index, int fd, const struct io_addr *peer);
/* Takes over a client with a past; its descriptors are ours, also when the blob is bad. */
void proxy_take_over(struct proxy *proxy, uint32_t pool_index, const int *fds, uint32_t fds_count,
                     struct bytes blob);
/* Requests in flight are answered, idle clients are closed (or handed over, where a hook is set), new
 * requests of the others are answered until they are idle. */
void proxy_drain(struct proxy *proxy);
uint32_t proxy_client_count(const struct proxy *proxy);
