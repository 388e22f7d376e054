/* SPDX-License-Identifier: Apache-2.0 */
/*
 * proxy_private.h - the structs of the proxy core, for the files of this folder only.
 */
#pragma once
#include "common/base/buffer.h"
#include "common/base/error.h"
#include "common/base/list.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/command/command.h"
#include "common/proto/memcache.h"
#include "common/proto/resp.h"
#include "common/ring/ring.h"
#include "proxy/counters.h"
#include "common/base/outbuf.h"
#include "proxy/proxy.h"
#include "proxy/stats_layout.h"

#include <stdarg.h>
#include <stdio.h>

struct client;
struct discovery;
struct fanout;
struct pool;
struct request;
struct server;
struct session;
struct upload;
struct upstream;

/* ---- request ------------------------------------------------------------------------------ */

enum request_kind {
    REQUEST_CLIENT,   /* its reply goes to the client as it is */
    REQUEST_PART,     /* one piece of a split request: its reply goes to the fanout */
    REQUEST_INTERNAL, /* the proxy's own: its reply goes to a function */
};

/* Bytes of the request kept in the struct: enough for the usual read. Longer ones go to the heap. */
#define REQUEST_WIRE_INLINE 72

typedef void (*request_internal_fn)(struct request *request, enum error_id error, struct bytes reply);

struct request {
    struct queue_node client_node;   /* in client->requests */
    struct queue_node upstream_node; /* in upstream->inflight */
    struct client *client;           /* borrows; NULL: nobody waits for it any more */
    struct upstream *upstream;       /* borrows; NULL: not in flight */
    union {
        struct fanout *fanout;       /* REQUEST_PART, borrows; REQUEST_CLIENT that was split: owns */
        request_internal_fn internal_done; /* REQUEST_INTERNAL */
    };
    void *internal_arg;
    struct outbuf reply;   /* REQUEST_CLIENT: what came before its turn */
    struct buffer *whole;  /* owns; a reply that must be complete before it is looked at */
    uint64_t start_us;     /* when its last byte was read */
    uint64_t sent_us;      /* when it was given to a ready upstream: the reply timeout runs from here */
    uint64_t wire_end;     /* upstream->queued_total behind its last byte */
    uint32_t part_index;   /* REQUEST_PART; REQUEST_CLIENT: its share of client->inflight_keys */
    uint32_t reply_bytes;
    uint32_t bin_opaque;   /* memcache binary: what the reply must echo */
    uint8_t bin_opcode;    /* and the opcode that the client knows it by */
    uint16_t command;      /* command_id, or mc_verb for memcache dialects */
    uint8_t kind;          /* enum request_kind */
    uint8_t dialect;
    uint8_t mc_kind;       /* enum mc_kind of the expected reply */
    uint8_t retry_count;
    uint8_t hop_count;     /* redirects followed */
    uint8_t try_count;     /* times it was parked */
    bool is_done : 1;       /* its reply is complete */
    bool is_started : 1;    /* a part of its reply has been passed on to the client */
    bool is_idempotent : 1; /* may be sent again */
    bool is_split : 1;      /* owns a fanout */
    bool is_tombstone : 1;  /* its reply will be dropped */
    bool is_awaited : 1;    /* internal_arg points to the pointer to this request of who will answer it:
                               it is zeroed when the request goes before that */
    bool is_silent : 1;     /* noreply: it has its place in the order, its reply is dropped */
    bool closes : 1;        /* the connection closes behind its reply */
    bool is_asking : 1;     /* ASKING goes before it */
    bool is_quiet : 1;      /* memcache: a reply of the quiet kind is dropped */
    bool wire_is_heap : 1;
    uint32_t wire_len;       /* 0: not kept */
    uint16_t key_off, key_len; /* first key within the wire; key_len 0: none or not kept */
    uint64_t key_hash;
    union {
        char wire[REQUEST_WIRE_INLINE];
        char *wire_heap; /* owns */
    };
};

/* ---- fanout: one request split over servers ------------------------------------------------ */

struct fanout_part {
    struct request *request; /* NULL once it is done */
    struct buffer reply;     /* the raw reply (memcache get: items without END) */
    struct server *server;
    uint32_t key_count;
    uint32_t item_cursor; /* memcache: the next key of the part that an item may have; cluster: the first */
    uint32_t last_item;   /* memcache: the last key of the part so far */
    uint32_t walk;        /* merge: offset of the next element */
    uint32_t *lens;       /* SPLIT_ORDER: where the lengths of the reply's elements go; NULL: nowhere */
    bool knows_lens;      /* they are there */
    /* While the request is being written: */
    uint32_t wire_len;         /* bytes of its keys (and values) */
    struct upstream *upstream; /* borrows */
    char *room;                /* where they go in the upstream's buffer; NULL: append them */
};

/* A key of a memcache get, and where its item is. Of a cluster's split request only `next`. */
struct fanout_item {
    const char *key;   /* in fanout->key_text */
    uint32_t key_len;
    uint32_t off, len; /* in the part's reply; len 0: a miss */
    uint32_t next;     /* key of the same part; UINT32_MAX ends */
};

struct fanout {
    struct request *parent; /* the slot in the client's queue; NULL: the client is gone */
    struct pool *pool;
    uint32_t part_count, pending_count;
    uint32_t key_count;
    uint8_t route;   /* enum command_route; memcache get: ROUTE_SPLIT_ORDER */
    uint8_t dialect;
    bool ignores_errors;
    enum error_id error;      /* the first failure */
    struct buffer error_text; /* or the first error reply */
    uint64_t scan_cursor_node;
    uint32_t held_bytes;       /* in the parts' replies; counted in the client's, too */
    struct fanout_part *parts; /* all of these within its own memory */
    uint32_t *owners;          /* [key_count]: the key's part */
    uint32_t *lens;            /* [key_count], Redis only: of the parts' elements, part by part */
    struct fanout_item *items; /* [key_count], memcache get and cluster only */
    char *key_text;            /* memcache get: a copy of the keys, to know the answers by */
};

/* ---- upstream: one connection to a server --------------------------------------------------- */

/* What a connection sends at the end of a turn. Several are begun, sent together, and then told one by one. */
#define SEND_SLICES 32
struct send {
    union {
        struct client *client;
        struct upstream *upstream;
    };
    struct iovec slices[SEND_SLICES];
    int count;
    size_t total; /* of the slices */
};

enum upstream_state {
    UPSTREAM_RESOLVING,
    UPSTREAM_CONNECTING,
    UPSTREAM_HANDSHAKE,
    UPSTREAM_READY,
    UPSTREAM_CLOSED,
};

struct upstream {
    struct io_stream stream;
    struct list_node server_node; /* in server->upstreams */
    struct list_node busy_node;   /* in proxy->busy while requests are in flight or it is not ready */
    struct upstream *dirty_next;
    struct upstream *dead_next;
    struct server *server;
    struct queue inflight; /* requests in the order of their bytes; tombstones included */
    struct outbuf out;
    uint64_t queued_total; /* bytes ever put to out */
    uint64_t last_end;     /* of the last request, in the same count */
    uint64_t done_end;     /* of the last request that was answered */
    struct {
        uint64_t in, in_bytes, out, out_bytes;
    } gauges; /* its part of the server's */
    uint64_t deadline_ms;  /* of connect or handshake; 0: none */
    uint64_t idle_since_ms;
    uint32_t inflight_count, tombstone_count;
    uint32_t slot;          /* index among the server's connections of its kind */
    uint8_t state;          /* enum upstream_state */
    uint8_t dialect, db;
    uint8_t handshake_left; /* replies to come before it is ready */
    uint8_t move_count;     /* connections before it that were lost without a reply */
    bool is_out_of_memory;
    bool is_patient; /* private: no reply timeout, the command may wait */
    bool is_pubsub;
    struct client *uploader; /* borrows; a value streams through it */
    bool is_private, is_dirty, is_probe, is_blocked; /* blocked: the kernel took less than we had */
    bool seen_reply;        /* a byte of the head's reply has been read */
    struct session *session; /* is_private: who gets the bytes; NULL while idle */
    union {
        struct resp_reply_parser resp;
        struct mc_reply_parser text;
        struct { uint32_t need; uint32_t body_left; } binary;
    } parser;
};

/* ---- server and pool ------------------------------------------------------------------------ */

#define SERVER_ADDRS_MAX 8

struct server {
    struct pool *pool;
    const struct conf_server *conf; /* NULL: found by discovery */
    char *name;                     /* owns; for logs and stats */
    uint32_t index;
    uint64_t *counters;             /* borrows, of the segment */
    struct histogram *latency;      /* borrows, of the segment or the spare one */
    struct health_slot *health;     /* borrows */
    struct list upstreams;          /* all of them */
    struct upstream **shared;       /* owns; [DIALECT_COUNT * server_connections], the pool's db */
    struct io_addr addrs[SERVER_ADDRS_MAX];
    uint32_t addr_count, addr_next;
    bool needs_resolve, is_resolving;
    bool is_gone;     /* takes no keys: a seed, a sentinel, a replica, one that left */
    bool is_sentinel; /* a sentinel of a pool of sentinels */
    struct io_resolve *resolve;     /* owns; while a look-up runs */
    char *host;                     /* owns; the name to look up, or NULL */
    uint16_t port;
    uint64_t connect_after_ms;      /* no attempt before: back-off */
    uint32_t connect_backoff_ms;
    enum error_id last_error;       /* what connecting ended with */
    struct io_addr *resolve_addrs;  /* owns */
    struct io_timer probe_timer;
    struct upstream *probe;
    bool is_probing, stands_in;
    uint32_t split_part; /* scratch: its part in the request that is being split just now */
};

struct pool {
    struct proxy *proxy;
    const struct conf_pool *conf;
    uint32_t index;
    uint64_t *counters; /* borrows, of the segment; as the next two */
    struct histogram *client_queue, *upstream_queue;
    struct stats_command **commands; /* owns; borrows what it points to. By observe_command_index() */
    struct server *servers; /* owns; room for server_cap: they never move */
    uint32_t server_count, server_cap;
    struct ring *ring;     /* owns */
    uint32_t *ring_map;    /* owns; ring index -> server index (spares standing in) */
    uint64_t health_version;
    struct list clients;
    uint32_t client_count;
    uint32_t *shared_clients;  /* borrows: client_count where the other workers see it */
    struct bytes auth;         /* clients and servers; len 0: none */
    uint8_t *denied;           /* owns; by command id */
    uint8_t *mc_denied;        /* owns; by verb */
    bool speaks_redis, speaks_memcache;
    bool servers_take_noreply;
    int8_t resp3_support;      /* of the servers: -1 unknown, 0 no, 1 yes */
    double retry_budget;       /* reads that may be sent again; refilled by successes */
    struct discovery *discovery; /* owns; NULL: the configuration says who the members are */
    uint64_t rotor;            /* ROUTE_ANY */
    bool is_random;            /* distribution random */
};

/* ---- client ----------------------------------------------------------------------------------- */

enum client_pause {
    PAUSE_PIPELINE = 1 << 0, /* too many unanswered requests */
    PAUSE_OUTPUT = 1 << 1,   /* does not read its replies */
    PAUSE_BARRIER = 1 << 2,  /* the next request waits until all before it are answered */
    PAUSE_SESSION = 1 << 3,  /* blocked or uploading through a private upstream */
    PAUSE_CLOSING = 1 << 4,  /* nothing more is read */
    PAUSE_DRAIN = 1 << 5,    /* goes to another worker once what is in flight is answered */
    PAUSE_DISCOVERY = 1 << 6, /* the pool's members are not known yet */
};

struct client {
    struct io_stream stream;
    struct list_node node; /* in pool->clients */
    struct client *dirty_next;
    struct client *dead_next;
    struct pool *pool;
    struct queue requests; /* in order; the head is the next to be answered */
    struct outbuf out;
    union {
        struct resp_parser resp;
        struct mc_parser text;
    } parser;
    struct session *session; /* owns; NULL for most: names, MULTI, subscriptions, private upstreams */
    struct upload *upload;   /* owns; NULL but while a big value streams */
    uint64_t id;
    uint32_t request_count;  /* in the queue */
    uint32_t last_active_s;  /* of the proxy's clock */
    uint32_t held_bytes;     /* in replies that wait for their turn */
    uint32_t inflight_keys;  /* of requests with many keys: each may bring a large reply */
    uint8_t dialect;         /* of the last request; starts as the pool's */
    uint8_t db;
    uint8_t pause;           /* enum client_pause */
    bool is_dirty, is_authenticated, is_eof, is_closing, is_dead, is_reading;
    bool protocol_known;
};

/* ---- what is measured: observe.h ------------------------------------------------------------------ */

struct observe {
    uint64_t slow_us;      /* UINT64_MAX: no slow log */
    uint64_t big_size;     /* UINT64_MAX: no big keys */
    uint32_t sample;       /* one key in so many; 0: none */
    uint32_t sample_left;
    uint64_t random;
    struct stats_segment segment;
    struct stats_schemas schemas;
    void *owned;           /* owns; the segment, where nobody shares it */
    uint64_t *process;     /* cells by enum process_counter */
    struct stats_slowlog *slowlog;
    struct stats_hotkeys *hotkeys;
    struct stats_bigkeys *bigkeys;
    struct stats_clients *clients;
    uint64_t *spare;       /* owns; cells for what found no room in the segment */
    struct log_limit address_limit;
};

/* ---- the worker -------------------------------------------------------------------------------- */

struct proxy {
    struct io *io;
    struct conf *conf; /* borrows; only proxy_set() writes to it */
    struct pool *pools; /* owns */
    uint32_t pool_count;
    uint32_t worker_index;
    int worker_pid;
    struct chunk_pools chunks;
    struct mem_pool requests, clients, upstreams;
    struct resp_args args;
    struct mc_keys mc_keys;
    struct proto_limits limits, mc_limits;
    struct client *dirty_clients, *dead_clients;
    struct upstream *dirty_upstreams, *dead_upstreams;
    struct list busy; /* upstreams */
    struct io_hook flush_hook;
    struct io_timer tick, housekeeping, drain_timer;
    struct health_area *health;
    struct buffer scratch;  /* a re-composed request, until it is submitted */
    struct buffer scratch2; /* a composed local reply */
    bool owns_health, is_draining, wants_trim;
    struct observe observe;
    uint32_t client_count;
    uint64_t next_client_id;
    uint64_t memory_peak, start_wall_us;
    uint64_t total_connections;
    void (*drained)(void *arg);
    int (*pass)(void *arg, uint32_t pool_index, const int *fds, uint32_t fds_count, struct bytes blob);
    void *owner_arg;
    const char *volatile *note; /* of proxy_options; never NULL */
    const char *volatile note_unread;
    struct log_limit log_limit;
};

static inline struct log *proxy_log(const struct proxy *proxy)
{
    return io_log(proxy->io);
}

static inline bool dialect_is_resp(uint8_t dialect)
{
    return dialect == DIALECT_RESP2 || dialect == DIALECT_RESP3;
}

static inline struct bytes error_bytes(enum error_id id, uint8_t dialect)
{
    const struct error_info *info = error_info(id);

    return dialect_is_resp(dialect) ? info->redis : info->memcache;
}

/* ---- request.c ----------------------------------------------------------------------------------- */

/* NULL: out of memory. With a client, a REQUEST_CLIENT is put to the end of its queue. */
struct request *request_create(struct proxy *proxy, struct client *client, enum request_kind kind);
/* Keeps a copy of the bytes (for retries, redirects, verification). false: out of memory. */
bool request_keep_wire(struct request *request, struct bytes wire);
static inline struct bytes request_wire(const struct request *request)
{
    return bytes_of(request->wire_is_heap ? request->wire_heap : request->wire, request->wire_len);
}
/* A piece of the reply; more follows. */
void request_deliver(struct request *request, struct bytes part);
/* The last piece. The request is gone after this call, or waits in its client's queue. It is off its
 * upstream's queue already. */
void request_finish(struct request *request, struct bytes part);
void request_fail(struct request *request, enum error_id error);
/* `server`: for the slow log, where the request is on no upstream any more. */
void request_fail_at(struct request *request, struct server *server, enum error_id error);
/* The reply of a split request; takes the bytes. */
void request_finish_merged(struct request *request, struct outbuf *merged);
/* The same with a copy of the bytes. */
void request_finish_bytes(struct request *request, struct bytes reply);
/* Nobody waits for it: if in flight it becomes a tombstone, else it is freed. It is off its client's
 * queue already. */
void request_abandon(struct request *request);
void request_free(struct proxy *proxy, struct request *request);

/* ---- client.c -------------------------------------------------------------------------------------- */

struct client *client_create(struct pool *pool, int fd, const struct io_addr *peer, struct bytes rest);
/* For one that is new: a client with a past is never too many. */
void client_check_limits(struct client *client);
void client_mark_dirty(struct client *client);
/* The request that was just dispatched has so many keys: a few of those are in flight at a time. */
void client_weigh(struct client *client, uint32_t key_count);
/* The end of a turn. False: there is nothing to send. */
bool client_flush_begin(struct client *client, struct send *send);
/* `sent` is io_stream_send()'s word on the slices; goes on by itself if they were not all. False: it is dead. */
bool client_flush_sent(struct send *send, ssize_t sent);
/* What has been sent, or has not to be, makes room and lets it go. False: it is dead. */
bool client_flush_end(struct client *client);
/* Answers that were waiting for their turn go out; reading goes on where it may. */
void client_advance(struct client *client);
/* A complete local reply, in its place in the order. */
void client_reply(struct client *client, struct bytes reply);
void client_reply_error(struct client *client, enum error_id error);
/* "-ERR text\r\n" or its memcache like; control bytes in the text are blanked. */
void client_reply_text_error(struct client *client, const char *format, ...) PRINTF_LIKE(2, 3);
/* No more reads; closes when everything is answered and sent. */
void client_close_after_replies(struct client *client);
/* A reply ended in the middle: what was answered before it and what there is of it goes out, then the
 * connection ends. All that was in flight is abandoned. */
void client_break_off(struct client *client);
/* Now, with whatever is in flight abandoned. */
void client_close(struct client *client);
void client_pause(struct client *client, enum client_pause reason);
void client_unpause(struct client *client, enum client_pause reason);
void client_free(struct client *client); /* from the hook only */
/* Whether something of this client is unanswered. */
static inline bool client_has_inflight(const struct client *client)
{
    return client->request_count > 0;
}

/* ---- redis_request.c, mc_request.c: parse and dispatch one request ----------------------------------- */

/* Returns the bytes consumed; 0: needs more (stream.need is set), or the client is paused or dead. */
size_t client_handle_redis(struct client *client, struct bytes data);
size_t client_handle_memcache(struct client *client, struct bytes data);
size_t client_handle_binary(struct client *client, struct bytes data);
/* Whether the reply is one that a quiet request suppresses. */
bool memcache_reply_is_quiet(const struct request *request, struct bytes line);
bool memcache_binary_is_quiet(const struct request *request, const struct mc_bin_header *header);
/* What a get's sub-requests begin with: "get", "gat 100". */
struct mc_verb_text {
    char text[32];
    size_t len;
};
void memcache_get_head(const struct mc_request *request, struct mc_verb_text *out);
/* A client's request has failed: what it is told, in its dialect. The binary protocol's needs room. */
struct error_room {
    char text[MC_BIN_HEADER + 128];
};
struct bytes request_error_bytes(const struct request *request, enum error_id error, struct error_room *room);
bool memcache_is_error_line(struct bytes reply);
bool memcache_merge_all(struct fanout *fanout, struct outbuf *out);
bool redis_merge_info(struct fanout *fanout, struct outbuf *out);
/* Commands that change what later ones mean: they wait until all before them are answered. */
bool redis_local_is_barrier(const struct command *command, const struct resp_request *request);
void redis_forward(struct client *client, struct server *server, const struct command *command,
                   struct bytes key, struct bytes frame);
/* TLS and HTTP get an answer of their own; true: it is one of them. */
bool client_refuse_foreign(struct client *client, struct bytes data);
/* redis_local.c: ROUTE_LOCAL. */
void redis_local(struct client *client, const struct command *command,
                 const struct resp_request *request);

/* ---- route.c ------------------------------------------------------------------------------------------ */

/* The server that holds the key now; NULL: none does. */
struct server *route_key(struct pool *pool, struct bytes key);
/* The same for `count` keys, every `step`th of `keys`: indexes into pool->servers. false: one has none.
 * Not for pools with discovery or at random. */
bool route_each(struct pool *pool, const struct bytes *keys, uint32_t step, uint32_t count,
                uint32_t *servers);
/* Some live server. */
struct server *route_any(struct pool *pool);
/* The one server of all keys; *error says why there is none. */
struct server *route_keys(struct pool *pool, const struct resp_request *request,
                          const struct command_keys *keys, enum error_id *error);
void pool_refresh_ring(struct pool *pool);

/* ---- upstream.c ------------------------------------------------------------------------------------------ */

/* The shared connection that this client's requests to the server travel on; connects on demand. NULL:
 * *error says why. */
struct upstream *upstream_get(struct server *server, struct client *client, uint8_t dialect,
                              uint8_t db, enum error_id *error);
struct upstream *upstream_open(struct server *server, uint8_t dialect, uint8_t db, bool is_private,
                               enum error_id *error);
/* Puts the request at the end of the queue. Its bytes are appended by upstream_write() between
 * upstream_begin() and upstream_end(), which may retire the connection (out of memory): the request has
 * failed then, and may be gone. */
void upstream_begin(struct upstream *upstream, struct request *request);
void upstream_write(struct upstream *upstream, const void *data, size_t size);
/* Room for `size` bytes in one piece, to be written before upstream_commit() and anything else; NULL: take
 * upstream_write(). */
char *upstream_reserve(struct upstream *upstream, size_t size);
void upstream_commit(struct upstream *upstream, size_t size);
void upstream_end(struct upstream *upstream, struct request *request);
void upstream_submit(struct upstream *upstream, struct request *request, struct bytes frame);
/* A private connection that another worker made, ready to be used; fd is ours also on failure. */
struct upstream *upstream_adopt(struct server *server, uint8_t dialect, uint8_t db, int fd);
/* The stream was detached, and its descriptor comes back. */
bool upstream_reopen(struct upstream *upstream, int fd);
void upstream_mark_dirty(struct upstream *upstream);
/* The end of a turn. False: it has nothing to send, and is done with. */
bool upstream_flush_begin(struct upstream *upstream, struct send *send);
/* `sent` is io_stream_send()'s word on the slices. Of several that were sent together all are counted before the first
 * is told: where one connection has failed, what others have sent must not count as unsent, or it is sent twice. */
void upstream_flush_count(struct send *send, ssize_t sent);
void upstream_flush_sent(struct send *send, ssize_t sent);
void upstream_resolved(struct upstream *upstream, enum error_id error);
/* Takes the head off the queue: its reply is complete. */
struct request *upstream_take_head(struct upstream *upstream);
/* upstream_reply.c: the stream's recv(). */
size_t upstream_recv(struct io_stream *stream, struct bytes data);
/* Brings the server's gauges up to date. */
void upstream_gauges(struct upstream *upstream, bool is_exact);
/* The handshake is over: what was queued goes out. */
void upstream_ready(struct upstream *upstream);

static inline struct upstream *upstream_of(struct io_stream *stream)
{
    return CONTAINER_OF(stream, struct upstream, stream);
}

static inline struct proxy *upstream_proxy(const struct upstream *upstream)
{
    return upstream->server->pool->proxy;
}

static inline struct request *upstream_head(const struct upstream *upstream)
{
    return upstream->inflight.first == NULL
               ? NULL
               : CONTAINER_OF(upstream->inflight.first, struct request, upstream_node);
}
/* Closes; every request in flight fails with `error` or is sent again where that is allowed. */
void upstream_retire(struct upstream *upstream, enum error_id error, const char *why);
void upstream_free(struct proxy *proxy, struct upstream *upstream); /* from the hook only */
/* Time-outs of everything on it. */
void upstream_tick(struct upstream *upstream, uint64_t now_ms);

/* ---- server.c ---------------------------------------------------------------------------------------------- */

/* `name` of a server that discovery found (conf NULL), else NULL. */
int server_init(struct server *server, struct pool *pool, const struct conf_server *conf,
                const char *name, uint32_t index, struct health_slot *health);
int server_set_address(struct server *server, const struct conf_address *address);
void server_deinit(struct server *server);
void server_failed(struct server *server, enum error_id error);
void server_succeeded(struct server *server);
bool server_is_ejected(const struct server *server);
/* Addresses are wanted; upstreams in UPSTREAM_RESOLVING go on when they are there. */
void server_resolve(struct server *server);
void server_tick(struct server *server, uint64_t now_ms);

/* ---- fanout.c ------------------------------------------------------------------------------------------------ */

void fanout_redis_split(struct client *client, const struct command *command,
                        const struct resp_request *request, struct bytes frame);
void fanout_redis_all(struct client *client, const struct command *command,
                      const struct resp_request *request, struct bytes frame);
void fanout_redis_scan(struct client *client, const struct command *command,
                       const struct resp_request *request);
void fanout_memcache_get(struct client *client, const struct mc_request *request);
/* `line`: the canonical request. */
void fanout_memcache_all(struct client *client, const struct mc_request *request, struct bytes line);
void fanout_binary_all(struct client *client, const struct mc_bin_request *request, struct bytes frame);
void fanout_part_deliver(struct request *part, struct bytes bytes);
void fanout_part_done(struct request *part, enum error_id error);
void fanout_redis_info(struct client *client, unsigned sections, struct bytes frame);
/* The whole reply to a part, with the lengths of its elements noted. Returns its length; 0: it is for
 * resp_reply_scan(). */
size_t fanout_part_bulks(struct request *part, struct bytes data);
/* Takes what whole items there are at the start of `data`; returns their length. */
size_t fanout_part_items(struct request *part, struct mc_reply_parser *parser, struct bytes data);
/* memcache get: an item's line has come, which ends line_end bytes into what is delivered next; false:
 * nobody asked for its key. */
bool fanout_part_item(struct request *part, struct bytes key, size_t line_end, size_t line_len,
                      uint64_t data_len);
void fanout_abandon(struct fanout *fanout);
/* fanout_merge.c: false: fanout->error says why, or a part is not what was asked for. */
bool fanout_merge(struct fanout *fanout, struct outbuf *out);
/* What SCAN's cursors are multiples of; the first node from this one on that takes keys. */
uint32_t scan_node_count(const struct pool *pool);
uint32_t scan_node_from(const struct pool *pool, uint32_t node);

/* For fanout_slots.c. `item_count`: as key_count, or 0 where keys need no items. NULL: out of memory. */
struct fanout *fanout_create(struct client *client, enum command_route route, uint32_t part_max,
                             uint32_t key_count, uint32_t item_count, size_t text_size);
/* The part's request, and where it will go; NULL: the part has failed. */
struct request *fanout_part_create(struct fanout *fanout, uint32_t index, struct client *client,
                                   struct upstream **out);
/* All parts were submitted (or failed to be). The guard (pending_count 1) held the fanout open until now. */
void fanout_submitted(struct fanout *fanout);
void fanout_redis_split_slots(struct client *client, const struct command *command,
                              const struct resp_request *request, struct bytes frame);

/* ---- session.c: what only some clients have ------------------------------------------------------------------ */

void session_destroy(struct client *client); /* NULL session is fine */
/* Its database or dialect changed: a private connection that it still has is of the old one. A reply that
 * timed out may be due on it, so it is not idle for long. */
void session_switched(struct client *client);
void session_reset(struct client *client);   /* RESET: as after connecting; answers */
enum session_verdict {
    SESSION_PASS, /* handle it as usual */
    SESSION_DONE, /* handled */
    SESSION_WAIT, /* not yet: the client was paused; the same bytes come again */
};
/* Requests of ROUTE_PRIVATE, and every request of a client that has a session. */
enum session_verdict session_handle(struct client *client, const struct command *command,
                                    const struct resp_request *request, struct bytes frame);
/* Before anything is looked at: true: the same bytes come again. `have`: how many are there. */
bool session_must_wait(struct client *client, const struct resp_request *request, size_t have);
/* session_move.c: to another worker. Whether the client may go now, with what it has. */
bool session_may_leave(const struct client *client);
/* Takes the session's upstreams off their streams, adds their descriptors to fds (room for 3 more) and what
 * the other side must know to out. */
void session_pack(struct client *client, struct buffer *out, int *fds, uint32_t *fds_count);
/* It did not go: the upstreams get their descriptors back. */
void session_unpack(struct client *client, const int *fds);
/* It went. */
void session_left(struct client *client);
/* The other side; the descriptors are ours. false: the blob is bad, or a server is not known here. */
bool session_decode(struct client *client, struct bytes session, const int *fds, uint32_t fds_count);
/* A request was refused (unknown, wrong arity ...): a transaction remembers it. */
void session_refused(struct client *client);
/* A command was consumed: CLIENT REPLY SKIP counts them. */
void session_command_done(struct client *client);
bool session_is_mute(const struct client *client);
bool session_is_blocked(const struct client *client);
/* It has patterns, and a server that was away when they were subscribed is back: who is closed subscribes
 * again, who is not misses what is published there. */
bool session_misses_messages(const struct client *client);
/* The one request on the session's private upstream goes to another server. false: it stays. */
bool session_move(struct session *session, struct request *head, struct server *server, bool is_asking);
/* A reply was completed. */
void session_replied(struct client *client);
/* Bytes of a private upstream; returns how many were consumed. */
size_t session_upstream_recv(struct upstream *upstream, struct bytes data);
/* A private upstream is gone. */
void session_upstream_gone(struct upstream *upstream, enum error_id error);

/* A clean private connection: an idle one, or a new one. */
struct upstream *private_upstream_get(struct server *server, uint8_t dialect, uint8_t db,
                                      enum error_id *error);

/* ---- upload.c: requests with a big value ---------------------------------------------------------------------- */

#define UPLOAD_SIZE_MIN (64u << 10)

/* Both return true when the request was taken on; *consumed (0: the client was paused) bytes are its. */
bool upload_start_redis(struct client *client, const struct command *command,
                        const struct resp_request *request, struct bytes data, size_t *consumed);
bool upload_start_memcache(struct client *client, const struct mc_request *mc, struct bytes line,
                           size_t *consumed);
size_t upload_recv(struct client *client, struct bytes data);
void upload_abort(struct client *client);
void upload_flushed(struct upstream *upstream);
void upload_upstream_gone(struct upstream *upstream);

/* ---- discovery.c: pools whose members are found out ------------------------------------------------------------ */

/* Room for servers that a pool of this configuration needs. */
uint32_t discovery_server_cap(const struct conf_pool *conf);
int discovery_create(struct pool *pool);
/* In two steps, around the end of the servers. NULL pool->discovery is fine. */
void discovery_destroy(struct pool *pool);
void discovery_free(struct pool *pool);
/* The server of a key in a pool with discovery; NULL: discovery_route_error() says why. */
struct server *discovery_route(struct pool *pool, struct bytes key);
enum error_id discovery_route_error(const struct pool *pool);
/* The members are not known yet: the client was paused, the same bytes come again. */
bool discovery_must_wait(struct client *client, const struct command *command);
/* A whole error reply to the head of the upstream's queue: true if the request goes elsewhere now, or has
 * failed (the head is off the queue, and the upstream may be closed). */
bool discovery_redirect(struct upstream *upstream, struct request *head, struct bytes reply);
/* The server that a MOVED which nobody can follow names, noted in the map; NULL: it is none. */
struct server *discovery_moved(struct pool *pool, struct bytes reply);
/* A connection broke or could not be made. */
void discovery_server_failed(struct server *server);
/* A message on a connection of our own. */
void discovery_pushed(struct upstream *upstream, struct bytes message);
/* A private upstream is closed. */
void discovery_upstream_gone(struct upstream *upstream);

/* ---- proxy.c -------------------------------------------------------------------------------------------------- */

void proxy_tick_start(struct proxy *proxy);
void proxy_client_gone(struct proxy *proxy);
void proxy_refuse(struct proxy *proxy, int fd);
/* drain.c: passes an idle client on, or closes it. */
void drain_client(struct client *client);
