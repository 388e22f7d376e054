/* SPDX-License-Identifier: Apache-2.0 */
/*
 * world.h - clients, one struct proxy (or two, while the one hands its clients to the other), model
 * servers, all in one simulated world. One seed decides everything.
 *
 *     client  --script-->  proxy  --strict parser, op_check()-->  model server
 *        ^                                                             |
 *        '-- must be exactly model_reply(what was asked), or an error -'
 *
 * The oracle. Each key that a script sends carries a token "k<client>.<op>.<n>" that is never used again, and
 * a model server's answer is a pure function of the request (verb, arguments, dialect, database). So:
 *
 *   S1  A client knows every byte of every reply beforehand. What it gets is that, in order, once; where
 *       faults are injected also one of the error lines of error.def, or the end of the connection.
 *       Nothing follows a reply that was cut.
 *   S2  A server parses strictly what it gets; each request must be one that the owner of the token has
 *       sent, argument by argument. A change is seen at most once, a read at most twice (one retry).
 *   S3  When all clients are gone, nothing is in flight and every gauge is back at zero; destroying the
 *       proxy asserts that every pooled object came back.
 *   S4  The same seed gives the same trace, another cut of the same streams the same replies.
 *
 * A server that was told to break the protocol (extra bytes, replies nobody asked for) taints its
 * connection: replies of tainted connections may meet the wrong request of the same connection where the
 * protocol has no means to tell (RESP, one-line memcache replies), but no other.
 */
#pragma once
#include "common/base/buffer.h"
#include "common/base/list.h"
#include "common/io/io_sim.h"
#include "proxy/conf.h"
#include "proxy/proxy.h"
#include "proxy/stats_layout.h"

#define WORLD_BACKENDS_MAX 8
#define WORLD_CLIENTS_MAX  64
#define WORLD_OPS_MAX      512 /* of a client */
#define WORLD_TEXT_MAX     512
#define WORLD_DEATHS_MAX   16u

/* ---- chance: streams of their own, so that the simulator's faults do not move the scripts ----- */

struct rng {
    uint64_t state;
};
uint64_t rng_next(struct rng *rng);
uint64_t rng_below(struct rng *rng, uint64_t bound);
bool rng_chance(struct rng *rng, uint32_t per_mille);
uint64_t hash_bytes(uint64_t seed, struct bytes bytes);

/* ---- what a seed chooses ------------------------------------------------------------------- */

struct world_profile {
    bool is_faulty;    /* errors and closes are allowed answers */
    bool is_redis, has_resp3, has_binary, has_malformed;
    bool is_hostile;   /* servers break the protocol */
    bool is_eager;     /* fanouts of big values, deep pipelines */
    bool has_handover;
    bool is_traced;
    uint32_t backends, clients, ops, depth;
    uint32_t timeout_ms; /* 0: none */
    uint32_t server_connections;
    bool auto_eject;
    uint32_t value_size_max;
    /* Per mille, of each reply: */
    uint32_t hang, late, split, reset, close, partial, duplicate, extra, wrong_key, early;
    uint32_t deaths;    /* a server goes away for a while, so many times */
    uint32_t slow_read; /* per mille of receives: a server stops reading for a while */
    uint32_t abort, half_close, slow_client; /* per mille of clients */
    uint32_t segment_max; /* of the network; 0: whole */
    uint32_t buffer_size; /* of sockets; 0: large */
    bool is_driven;       /* clients send when client_step() says so */
    bool draws_net;       /* the network's faults are drawn, too */
};
void world_profile_draw(uint64_t seed, struct world_profile *out);

/* ---- operations ------------------------------------------------------------------------------ */

enum op_flags {
    OP_FORWARD = 1,    /* one server sees it, as meant */
    OP_SPLIT = 2,      /* several do: groups of `step` arguments behind the `head` */
    OP_LOCAL = 4,      /* none does */
    OP_READ = 8,       /* may be sent again */
    OP_CLOSES = 16,    /* the proxy closes behind the reply */
    OP_ANY_VALUE = 32, /* the reply is some RESP value */
    OP_LINE_PREFIX = 64, /* only the beginning of the reply's line is known */
    OP_QUIET = 128,    /* `expect` empty: nothing comes, but an error might */
    OP_NEVER_FAILS = 256, /* local: no error line can come instead */
    OP_BINARY = 512,
    OP_HELLO = 1024,   /* waits for its reply before the next is made */
    OP_HUSHES = 2048,  /* meta with q: the proxy leaves out a reply that model_meta_is_quiet() */
};
#define OP_ARGS_MAX 64

struct op {
    struct buffer wire, expect;
    struct buffer args; /* owns what argv points into */
    uint32_t arg_off[OP_ARGS_MAX], arg_len[OP_ARGS_MAX];
    uint32_t argc, head, step, flags;
    uint32_t opaque;
    uint8_t seen[OP_ARGS_MAX];
    const char *name;
};
static inline struct bytes op_arg(const struct op *op, uint32_t i)
{
    return bytes_of(op->args.data + op->arg_off[i], op->arg_len[i]);
}

/* The token of a key; false: it has none. */
bool token_parse(struct bytes key, uint32_t *client, uint32_t *op);

/* ---- model.c: what servers answer --------------------------------------------------------------- */

struct model {
    bool is_resp3;
    uint32_t db;
    uint32_t value_size_max;
};
void model_redis(const struct model *model, const struct bytes *argv, uint32_t argc, struct buffer *out);
/* A request of the text protocol, as words, the data block last. */
void model_memcache(const struct model *model, const struct bytes *argv, uint32_t argc,
                    struct buffer *out);
/* Whether the meta request's reply is left out when it is quiet. */
bool model_meta_is_quiet(struct bytes verb, struct bytes reply);
void model_binary(const struct model *model, uint8_t opcode, uint32_t opaque, struct bytes extras,
                  struct bytes key, struct bytes value, struct buffer *out);
void binary_compose(struct buffer *out, uint8_t magic, uint8_t opcode, uint16_t status, uint32_t opaque,
                    uint64_t cas, struct bytes extras, struct bytes key, struct bytes value);

/* ---- the world ------------------------------------------------------------------------------------ */

struct backend;
struct sim_client;

struct world_marks {
    uint64_t replies, errors, timeouts, closes, handovers, retries, tainted, splits, kills, malformed,
        ejected, tombstones, doubts, cut, reasons_lost;
};

/* Something that happens at a time. */
struct plan {
    struct world *world;
    uint32_t index;
};

struct world {
    uint64_t seed;
    struct world_profile profile;
    struct sim *sim;
    struct rng rng;
    struct sim_node *proxy_node, *second_node, *client_node;
    struct io_listener listener;
    int listen_fd;
    struct conf *conf;
    struct proxy *proxies[2];
    void *stats[2]; /* owns */
    struct stats_plan stats_plan;
    bool drained[2];
    uint32_t active; /* of proxies: gets the new connections */
    struct backend *backends[WORLD_BACKENDS_MAX];
    struct sim_client *clients[WORLD_CLIENTS_MAX];
    uint32_t client_count;
    bool is_wild; /* raw bytes were sent: servers may see requests of no script */
    bool is_injected; /* servers sent raw bytes: a stray reply may be any */
    struct plan plans[WORLD_CLIENTS_MAX + WORLD_DEATHS_MAX + 1];
    struct list strays; /* replies of tainted connections */
    uint64_t moved_us; /* when a client last sent or got a byte */
    struct world_marks marks;
    struct log *log;
    bool has_failed;
    char why[WORLD_TEXT_MAX];
};

/* The profile is copied. */
struct world *world_create(uint64_t seed, const struct world_profile *profile);
void world_destroy(struct world **world);
/* Runs all scripts to their end, then until everything is quiet, and checks S3. */
void world_run(struct world *world);
/* Until nobody is there any more; part of world_run(). */
void world_finish(struct world *world);
void world_handover(struct world *world);
void world_fail(struct world *world, const char *format, ...) PRINTF_LIKE(2, 3);
/* What all clients read, in order. */
uint64_t world_replies_hash(const struct world *world);
/* A server saw this request; checks S2. `repeats`: how often a read may be seen. */
void world_check_request(struct world *world, const struct bytes *argv, uint32_t argc);
void world_add_stray(struct world *world, struct bytes reply);

/* ---- backend.c -------------------------------------------------------------------------------------- */

struct backend *backend_create(struct world *world, uint32_t index);
void backend_destroy(struct backend **backend);
void backend_die(struct backend *backend);
void backend_revive(struct backend *backend);
uint16_t backend_port(uint32_t index);
/* The fuzzer's: bytes as they are on a connection of it; it is tainted. */
void backend_inject(struct backend *backend, struct bytes bytes);
uint32_t backend_connections(const struct backend *backend);
uint32_t backend_tainted(const struct backend *backend);

/* ---- client.c, script.c ------------------------------------------------------------------------------ */

struct sim_client *client_start(struct world *world, uint32_t index);
void client_free_all(struct sim_client **client);
bool client_is_over(const struct sim_client *client);
struct op *client_op(struct sim_client *client, uint32_t index); /* NULL: not made */
uint64_t client_hash(const struct sim_client *client);
void client_describe(const struct sim_client *client, struct buffer *out);
void client_abort_now(struct sim_client *client);
/* The fuzzer's: sends these bytes; the client's replies are not checked from here on. */
void client_send_raw(struct sim_client *client, struct bytes bytes);
/* Sends the next operation of its script at once. */
void client_step(struct sim_client *client);
/* No more of them: closes, or shuts its side, when all is answered. */
void client_finish_script(struct sim_client *client, bool half_closes);

struct script {
    struct world *world;
    struct rng rng;
    uint32_t client, next;
    bool is_resp3, is_binary;
    uint32_t db;
    uint32_t multi_left; /* commands until EXEC */
    bool is_in_multi, needs_noop;
    uint32_t multi_id;
    struct buffer multi; /* what EXEC will answer */
    uint32_t multi_count;
    bool is_over;        /* nothing more may be sent */
};
void script_init(struct script *script, struct world *world, uint32_t client);
void script_deinit(struct script *script);
/* Makes the next operation. */
struct op *script_next(struct script *script);
void op_free(struct op **op);
