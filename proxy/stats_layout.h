/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats_layout.h - what a worker of the proxy keeps in its shared segment, and how others read it.
 *
 *   group "process"  ""    ""        what the worker counts for itself, and the areas
 *   group "pool"     pool  ""        POOL_COUNTERs, waiting times
 *   group "server"   pool  server    SERVER_COUNTERs, the servers' answering times
 *   group "command"  pool  command   made when the command is first seen: errors, misses, times
 *
 * Areas (slow log, hot keys, big keys, clients) are structures with a sequence lock: the one writer makes
 * the sequence odd, changes, makes it even; a reader copies and looks whether it stayed even and the
 * same. Names are text in them, cut at STATS_TEXT_MAX: readers may have another configuration.
 */
#pragma once
#include "common/base/bytes.h"
#include "common/stats/segment.h"
#include "proxy/conf.h"
#include "proxy/counters.h"

#define STATS_TEXT_MAX      64u
#define STATS_KEY_MAX       128u /* of a key; longer ones are cut */
#define STATS_SEGMENT_MAX   (16u << 20)
#define STATS_SLOWLOG_MAX   4096u
#define STATS_HOTKEYS_MAX   1024u
#define STATS_BIGKEYS_MAX   64u
#define STATS_CLIENTS_MAX   1024u
#define STATS_DYNAMIC_MAX   512u /* commands of all pools, and servers found by discovery */

/* ---- areas ------------------------------------------------------------------------------------ */

struct stats_key {
    uint32_t len; /* of the whole key; STATS_KEY_MAX of it are here at most */
    char data[STATS_KEY_MAX];
};

struct stats_slow {
    uint64_t sequence; /* of the entry: 2 x (its number + 1); odd: being written */
    uint64_t at_us;    /* epoch */
    uint64_t total_us; /* from its last byte to the last byte of its reply */
    uint64_t queue_us, backend_us; /* waited for a connection; for the server */
    uint64_t client_id;
    uint32_t reply_bytes;
    uint32_t is_failed; /* answered with an error of the proxy's: a time-out ... */
    struct stats_key key;
    char command[32];
    char pool[STATS_TEXT_MAX], server[STATS_TEXT_MAX], client[STATS_TEXT_MAX];
};

struct stats_slowlog {
    uint64_t count; /* ever; the newest is (count - 1) % entries_max */
    uint64_t entries_max;
    struct stats_slow entries[];
};

struct stats_hot {
    uint64_t hash;  /* 0: free */
    uint64_t count; /* of samples, fading: halved once a minute */
    uint64_t error; /* how much of it may be another key's */
    struct stats_key key;
    char pool[STATS_TEXT_MAX];
};

struct stats_hotkeys {
    uint64_t sequence;
    uint64_t sample;  /* one request in so many was looked at */
    uint64_t total;   /* samples, fading as the counts */
    uint64_t faded_s; /* when it was halved last, monotonic */
    uint64_t entries_max;
    struct stats_hot entries[];
};

struct stats_big {
    uint64_t hash; /* 0: free */
    uint64_t size; /* the largest seen */
    uint64_t at_us; /* epoch, the last time */
    uint64_t count;
    struct stats_key key;
    char command[32];
    char pool[STATS_TEXT_MAX], server[STATS_TEXT_MAX];
};

struct stats_bigkeys {
    uint64_t sequence;
    uint64_t entries_max;
    struct stats_big entries[STATS_BIGKEYS_MAX];
};

struct stats_client {
    uint64_t id;
    uint64_t inflight;
    uint64_t output_bytes; /* replies that it has not taken */
    uint32_t idle_s;
    uint32_t db;
    uint32_t flags; /* enum stats_client_flags */
    char dialect[16];
    char name[STATS_TEXT_MAX];
    char address[STATS_TEXT_MAX];
    char pool[STATS_TEXT_MAX];
};
enum stats_client_flags {
    STATS_CLIENT_PRIVATE = 1, /* has a connection to a server of its own */
    STATS_CLIENT_PAUSED = 2,
    STATS_CLIENT_CLOSING = 4,
};

/* Written once a second while somebody asks (struct health_area, clients_wanted_ms). */
struct stats_clients {
    uint64_t sequence;
    uint64_t at_ms; /* monotonic; 0: never written */
    uint64_t total; /* clients; entries hold the first of them */
    uint64_t count;
    uint64_t entries_max;
    struct stats_client entries[];
};

/* ---- sequence locks ---------------------------------------------------------------------------- */

static inline void stats_write_begin(uint64_t *sequence)
{
    __atomic_store_n(sequence, (*sequence + 1) | 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

static inline void stats_write_end(uint64_t *sequence)
{
    __atomic_store_n(sequence, (*sequence | 1) + 1, __ATOMIC_RELEASE);
}

/* Copies `size` bytes of a structure that starts with its sequence. False: the writer was at it, each time. */
bool stats_read_locked(const void *from, void *out, size_t size);

/* ---- schemas ----------------------------------------------------------------------------------- */

enum process_counter {
    PROCESS_clients,
    PROCESS_memory_bytes,
    PROCESS_COUNTER_COUNT,
};

/* Of the cells of a group "command". */
struct stats_command {
    uint64_t errors; /* error replies */
    uint64_t misses; /* replies that say that the key is not there */
    struct histogram latency;
};

struct stats_schemas {
    stats_schema_id process, pool, server, command;
    /* Offsets of what lies behind the counters, in cells; 0: left out, the segment is full. */
    uint32_t pool_client_queue, pool_upstream_queue, server_latency;
    uint32_t slowlog, hotkeys, bigkeys, clients;
    bool has_commands;
};

/* How the memory is used; the same for everyone who has the same configuration. */
struct stats_plan {
    size_t size;
    uint32_t slowlog_entries, hotkeys_entries, clients_entries, dynamic_groups;
    bool has_server_histograms, has_pool_histograms, has_commands;
};

/* Histograms are left out where a configuration is too large for them: first the servers', then the
 * commands', then the pools'. ERR_FULL: even the counters are too many for STATS_SEGMENT_MAX. */
MUST_USE int stats_plan(const struct conf *conf, struct stats_plan *out);
/* For a proxy whose segment nobody else reads (tests): as little as works. */
void stats_plan_private(const struct conf *conf, struct stats_plan *out);
/* Adds the schemas. Memory of plan->size has room for them. */
void stats_schemas_add(struct stats_segment *segment, const struct stats_plan *plan,
                       struct stats_schemas *out);

/* Walks the areas of a segment of any version: a worker's has one, the base one for each size that
 * there was. NULL: no more. What is larger than the segment says is left out. */
const struct stats_slowlog *stats_next_slowlog(struct stats_cursor *cursor);
const struct stats_hotkeys *stats_next_hotkeys(struct stats_cursor *cursor);
const struct stats_bigkeys *stats_next_bigkeys(struct stats_cursor *cursor);
const struct stats_clients *stats_next_clients(struct stats_cursor *cursor);
/* Adds what is in a retired worker's areas (slow log, big keys) to the base's, which has its groups already. */
void stats_fold_areas(void *base, size_t base_size, const void *from, size_t from_size);

void stats_text_set(char *out, size_t size, struct bytes text);
void stats_key_set(struct stats_key *out, struct bytes key);
