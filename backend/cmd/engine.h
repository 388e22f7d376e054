/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine.h - what the commands of one shard share: store, sessions, settings, tables of watchers, waiters and
 * subscribers, counters. A struct that can be made many times in one process.
 */
#pragma once
#include "backend/cmd/session.h"
#include "common/base/list.h"
#include "common/command/command.h"
#include "common/io/io.h"

struct log;
struct watch_table;   /* cmd/transaction.c: (db, key) -> sessions that WATCH it */
struct blocked_table; /* cmd/blocking.c: (db, key) -> sessions that wait for it, first come first served */
struct pubsub_table;  /* cmd/pubsub.c: channels and patterns -> sessions */
struct slow_log;      /* cmd/slowlog.c */
struct settings;      /* cmd/settings.c: CONFIG GET and SET */
struct latency;       /* cmd/latency.c */
struct mc;            /* cmd/mc_store.c: what memcache's commands keep */

struct engine_counters {
    uint64_t connections, connections_rejected, connections_evicted, commands, errors;
    uint64_t keyspace_hits, keyspace_misses, bytes_in, bytes_out;
    uint64_t expired; /* keys whose end was told of */
    uint64_t parked_cold, parked_log, slow;
    uint64_t auth_errors; /* of any protocol */
    struct { uint64_t calls, usec, rejected, failed; } per_command[COMMAND_COUNT];
    struct {
        uint64_t get, set, touch, flush, get_hits, get_misses, get_expired, delete_hits, delete_misses;
        uint64_t incr_hits, incr_misses, decr_hits, decr_misses, cas_hits, cas_misses, cas_badval;
        uint64_t touch_hits, touch_misses, meta;
        uint64_t store_too_large, store_no_memory, auth, auth_errors;
    } mc;
};

#define ENGINE_ERROR_STATS_MAX 24

struct engine_options {
    struct io *io;
    struct log *log;
    struct store *store;
    uint32_t shard, shard_count;
    uint16_t port;
    const char *password;        /* NULL: none. Copied */
    bool needs_password;         /* others reach the port: it is not to be taken away */
    const char *config_file;     /* for INFO; NULL */
    uint8_t memcache_db;
    uint32_t clients_max;
    uint64_t clients_memory;       /* maxmemory-clients */
    uint64_t memory_max, disk_max; /* what the store was given, for CONFIG GET */
    enum store_fsync fsync;
    bool is_cache;               /* the first database evicts */
    const char *dir;             /* of the shard; NULL: not told */
    void (*stop)(void *arg);     /* SHUTDOWN: ends the process as SIGTERM does; NULL: refused */
    void *stop_arg;
};

enum engine_pause { ENGINE_PAUSE_NONE, ENGINE_PAUSE_WRITES, ENGINE_PAUSE_ALL };

struct engine {
    struct io *io;
    struct log *log;     /* borrows */
    struct store *store; /* borrows */
    struct list sessions;
    uint32_t session_count;
    uint64_t session_id_next;
    struct chunk_pools chunks; /* of every session's output */
    struct settings *settings;
    struct watch_table *watches;
    struct blocked_table *blocked;
    uint32_t blocked_count; /* sessions in it */
    struct pubsub_table *pubsub;
    struct slow_log *slow_log;
    struct latency *latency;
    struct mc *mc;
    struct engine_counters counters;
    struct engine_options options;
    uint64_t run_id[2];            /* random */
    uint64_t save_count, save_ms;  /* checkpoints seen, and when the last was */
    uint64_t memory_peak;
    uint64_t inputs_bytes; /* of what clients had sent when they were last looked at, and was not executed since; and keep */
    struct {
        uint64_t at_ms, commands, bytes_in, bytes_out, ops_per_s, in_per_s, out_per_s;
    } rate; /* between the last two times that INFO was asked */
    struct {
        char prefix[20];
        uint64_t count;
    } error_stats[ENGINE_ERROR_STATS_MAX];
    struct store_stats stats_base; /* as it was at CONFIG RESETSTAT */
    uint64_t now_ms;      /* the turn's wall clock, as store_now_ms() */
    uint64_t started_ms;
    uint64_t executing_since_us; /* of a command that is timed; 0: none */
    uint32_t timing_turn;        /* which of the fast ones are timed */
    uint32_t fetches_ahead;      /* under way for commands that have not begun */
    bool is_turn_open;           /* now_ms is set */
    bool has_ready_keys;         /* waiters are to be served */
    struct list parked;          /* sessions that wait for room in the log */
    struct list paused;          /* by CLIENT PAUSE, or for `exclusive` */
    struct io_timer pause_timer;
    uint64_t pause_until_ms;
    uint8_t pause;               /* enum engine_pause */
    struct session *exclusive;   /* in the middle of an EXEC that needs a cold value: nobody else may run */
    struct session orphan;       /* `exclusive` of a client that is gone; engine NULL: there is none */
    struct io_timer orphan_timer;
};

MUST_USE int engine_create(const struct engine_options *options, struct engine **out);
void engine_destroy(struct engine **engine); /* all sessions are gone */
/* Milliseconds of the epoch: the newest checkpoint, or the start. */
uint64_t engine_last_save_ms(struct engine *engine);
/* An error reply, without its '-': for INFO errorstats. */
void engine_error_note(struct engine *engine, const char *text);
/* The clocks of engine and store, anew. */
void engine_clock_read(struct engine *engine);
/* At the start of each turn's first command: one clock for the turn. */
void engine_turn_begin(struct engine *engine);
/* Memory of what clients have sent and not taken. */
uint64_t engine_clients_bytes(const struct engine *engine);
/* Before the frame is sealed: wakes who waits for keys that changed in this turn. */
void engine_turn_end(struct engine *engine);
/* CLIENT PAUSE and UNPAUSE (NONE). */
void engine_pause(struct engine *engine, enum engine_pause kind, uint64_t ms);
/* Whether a session's next command has to wait, by CLIENT PAUSE or for another's EXEC; then it is resumed later.
 * For the dialects that do not go through engine_execute(). */
bool engine_must_wait(struct session *session, bool writes);
/* What the store's hooks tell. (A store is made before its engine: who owns both passes them on.) */
void engine_changed(struct engine *engine, uint8_t db, struct bytes key, enum store_change_kind kind);
void engine_flushed(struct engine *engine, uint8_t db);
/* Between the first and the last command of an EXEC: the store must not be closed. */
static inline bool engine_is_in_exec(const struct engine *engine)
{
    return engine->exclusive != NULL;
}
/* After store_swap(). */
void engine_swapped(struct engine *engine, uint8_t a, uint8_t b);
void engine_state(struct engine *engine);
