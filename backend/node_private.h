/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include "backend/cmd/settings.h"
#include "backend/node.h"
#include "common/proto/memcache.h"
#include "common/proto/resp.h"

struct client;

/* Keys of requests to come whose buckets were asked for, their entries not yet. */
#define AHEAD_KEYS 8u /* a power of two */
struct ahead_keys {
    uint64_t hashes[AHEAD_KEYS]; /* the oldest `count` before next */
    unsigned next, count;
};

struct node {
    struct io *io;
    struct log *log;
    struct store *store;
    struct engine *engine;
    struct commit commit;
    uint8_t fsync;          /* what commit goes by */
    struct node_options options;
    struct io_hook hook;
    struct io_timer second;
    struct node_turns turns;
    uint64_t cpu_us, cpu_at_us; /* the CPU's clock as it was seen last, and when */
    struct mem_pool clients;
    struct ahead_keys ahead;
    struct resp_args args;  /* of the request at hand */
    struct mc_keys mc_keys;
    struct list dirty;  /* clients with output or an end to come */
    struct list unsent; /* ... in the next turn */
    uint32_t send_cost; /* of one of them, lately, in parts of a microsecond */
    struct list held;   /* clients whose output waits for the commit mark */
    bool is_advanced;   /* the turn's end has looked at the marks, and goes on */
    bool is_prompt;     /* in this turn a client was sent what had not waited for the mark */
    struct list runs;   /* clients whose peer has closed its side, with requests left */
    struct list dead;   /* freed at the end of the turn */
    struct log_limit bad_input, refused, refusals; /* bounds on lines that clients cause */
    uint64_t evict_again_us; /* not before then: it is a walk over all clients */
    int refusal;                                   /* why writes are refused, as was last said; 0: they are not */
    int open_err;
    bool is_open, is_draining, is_closing, is_store_closing;
    uint64_t prepare_from; /* checkpoints that were before node_prepare() */
    struct io_timer park_timer;
    uint64_t park_until_ms;
    struct list *moves; /* borrows; while clients are parked */
    void (*close_done)(void *arg, int err);
    void *close_arg;
};

/* ---- client_memory.c ---- */

/* Each second: what all of them have sent and is not executed. */
void clients_look(struct node *node);
/* Each turn, when its replies have been sent and those that it has closed are gone. True: it has closed more. */
bool clients_account(struct node *node);

/* ---- client.c ---- */

struct client *client_create(struct node *node, int fd, const struct io_addr *peer);
void client_mark_dirty(struct client *client);
/* What a client sends at the end of a turn, in two steps, so that several are sent together. */
#define CLIENT_SEND_SLICES 32
struct client_send {
    struct client *client;
    size_t now, later; /* bytes that go in this turn, and in those to come */
    size_t total;      /* of the slices */
    int count;
    struct iovec slices[CLIENT_SEND_SLICES];
};
/* False: it has nothing to send, and is done with. */
bool client_flush_begin(struct client *client, struct client_send *send);
/* `sent` is io_stream_send()'s word on the slices. Goes on by itself if they were not all. */
void client_flush_sent(struct client_send *send, ssize_t sent);
/* Both. */
void client_flush(struct client *client);
void client_run_rest(struct client *client);
void client_close(struct client *client);
/* What it has sent and is not executed, for engine->inputs_bytes. */
void client_inputs_count(struct client *client);
uint64_t client_bytes(const struct client *client); /* that, and its replies; 0 of one that is closed */
void client_free(struct client *client);
/* Once a second: idle? Too much output for too long? */
void client_tick(struct client *client);
/* Close it when it has no request in work and no reply under way. */
void client_drain(struct client *client);
struct client *client_of_session(struct session *session);
struct client *client_of_turn_node(struct list_node *node);  /* of held, runs, dead */
struct client *client_of_dirty_node(struct list_node *node);
struct io_stream *client_stream(struct client *client);
size_t client_size(void);

/* Stops it where it can go on in another process. */
enum client_rest {
    CLIENT_RESTS,
    CLIENT_SENDS,   /* only has output left that may leave */
    CLIENT_HOLDS,   /* has answers that are not committed yet */
    CLIENT_GOES_ON, /* is in the middle of what cannot begin anew */
};
enum client_rest client_park(struct client *client);
/* It goes: its descriptor and state. False: it cannot, and stays. */
bool client_leave(struct client *client, struct node_move *out);
/* The other end of client_leave(). Owns fd. */
void client_take(struct node *node, int fd, struct bytes state);

/* ---- client_move.c: the state as bytes ---- */

/* Little endian: the head below, then name, library's name and version, commands (cmd/move.h), unsent
 * output, input. Valid if and
 * only if magic and version are right, the lengths add up and every field is in its range. */
struct client_move {
    uint8_t protocol, resp, db, reply_mode, flags, move_flags;
    uint32_t watched_existing;
    uint64_t id, created_ms, swallow;
    struct bytes name, lib_name, lib_version, commands, output, input;
};
void client_move_encode(const struct session *session, uint64_t swallow, struct bytes input, struct buffer *out);
bool client_move_decode(struct bytes state, struct client_move *out);
/* Before and after the commands are run. False: no memory. */
bool client_move_restore(struct session *session, const struct client_move *move);
bool client_move_finish(struct session *session, const struct client_move *move);

/* ---- client_auth.c ---- */

/* memcache's ways to give the password; both answer. False: the request is to be executed. */
bool client_auth_text(struct session *session, const struct mc_request *request);
bool client_auth_binary(struct session *session, const struct mc_bin_request *request);
