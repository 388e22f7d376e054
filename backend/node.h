/* SPDX-License-Identifier: Apache-2.0 */
/*
 * node.h - one shard of the storage node as it stands between a loop and a directory: store, engine, commit,
 * clients. A struct that can be made many times in one process.
 *
 *     recv ──> client: parse ──> engine_execute() / mc_..._execute() ──> store, session->out
 *     end of the turn:  engine_turn_end ── store_turn_end (the frame is sealed) ── commit_advance
 *                       ── each dirty client is flushed once, as far as its replies are committed ── the dead are freed
 */
#pragma once
#include "backend/cmd/engine.h"
#include "backend/repl/commit.h"
#include "backend/store/store.h"
#include "common/base/log.h"
#include "common/io/io.h"

struct node;

/* Strings are borrowed as long as the node lives. */
struct node_options {
    struct io *io;
    struct log *log;
    struct store_options store;   /* io, types and hooks are filled in by the node */
    struct engine_options engine; /* io, log, store, shards, memory and fsync are */
    void *arg;
    /* It serves (err 0), or not: the reason of store_create(); then destroy it. From the loop. */
    void (*opened)(void *arg, int err);
};

MUST_USE int node_create(const struct node_options *options, struct node **out);
/* Closes all clients, then the store with a checkpoint; done() may be called at once. Also while it opens. */
void node_close(struct node *node, void (*done)(void *arg, int err), void *arg);
/* After done(), or when it could not be opened. */
void node_destroy(struct node **node);

/* A client on its way to another process: its descriptor, and what the other one has to know. */
struct node_move {
    struct list_node node;
    int fd;              /* owns; -1: given away */
    struct buffer state; /* client_move.c */
};
/* A checkpoint while all goes on, so that there is little left to write when it is closed. */
void node_prepare(struct node *node);
bool node_is_prepared(const struct node *node);
/* As node_close(), but the clients stay open: those that can go, in the order in which they came, are appended to
 * `moves`. Nobody is executed for any more; what is under way is finished, for NODE_PARK_MS at most, and NODE_PARK_HELD_MS
 * more for answers that wait for the disk. Who is not at rest by then is closed, and MONITOR's clients are; who does not
 * read its replies takes them with it. */
#define NODE_PARK_MS      1000u
#define NODE_PARK_HELD_MS 10000u
void node_park(struct node *node, struct list *moves, void (*done)(void *arg, int err), void *arg);
/* Goes on with such a client; one that is closing closes it. The descriptor is the node's, but for a node that has closed
 * already; the state the caller's. */
void node_take(struct node *node, struct node_move *move);

/* What CONFIG GET shows: a copy, and to go on with it in another node of ours. */
struct settings *node_settings_copy(const struct node *node);
void node_settings_set(struct node *node, struct settings **settings); /* takes it */

/* Owns fd. Only after opened(). */
void node_accept(struct node *node, int fd, const struct io_addr *peer);
/* No new clients; those there are closed as soon as they have all their answers, at the latest by node_close(). */
void node_drain(struct node *node);
/* While it drains: nobody is left. */
bool node_is_drained(const struct node *node);
/* One line, "maxmemory 1000000": a setting of CONFIG SET. */
void node_apply(struct node *node, struct bytes setting);
uint64_t node_key_count(const struct node *node);
uint32_t node_client_count(const struct node *node);

/* Turns of the loop: from the end of a wait until everything of the turn is done, replies sent. */
struct node_turns {
    uint64_t count, long_count; /* long: over a millisecond */
    uint64_t us_max;
    uint64_t cpu_long_count, cpu_us_max; /* by the CPU time, or up to 250 us more, never over the above */
};
const struct node_turns *node_turns(const struct node *node);
struct engine *node_engine(struct node *node); /* NULL until opened */
struct store *node_store(struct node *node);
