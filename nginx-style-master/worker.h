/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker.h - what a worker (and the stats process) may ask of the library, and what it is told.
 *
 *     int worker_main(struct worker *w)
 *         make the loop; worker_handler_set(w, &handler, arg)
 *         watch worker_channel_fd(w) for reading; when readable call worker_channel_ready(w)
 *         every second or oftener, and at the end of long turns: worker_heartbeat(w)
 *         worker_ready(w); run the loop until stop() or the end of the drain; return the exit code
 *
 * The channel descriptor is an epoll of everything the library listens to: the master's messages,
 * the hand-over socket, the process's own signals. No signal handler of the program is needed: TERM
 * becomes stop(), QUIT becomes drain(), PIPE is ignored.
 *
 * All callbacks run from worker_channel_ready(), except the first accept() calls, which may. Accepting
 * starts only when the master says so, that is after worker_ready().
 *
 *   I1  A listener is accepted from only between accept(on) and accept(off).
 *   I2  A descriptor given to worker_pass() belongs to the library when 0 is returned, else still to
 *       the caller. A descriptor got in passed() belongs to the callee.
 *   I3  The worker's counters segment has one writer. After a crash its successor goes on with the
 *       same segment: counters go on rising, gauges must be zeroed by it (worker_is_respawn()).
 */
#pragma once
#include "common/base/base.h"
#include "common/base/bytes.h"
#include "common/base/err.h"
#include "common/base/log.h"

#include <sys/types.h>

struct worker;

#define WORKER_PASS_FDS_MAX  64u
#define WORKER_PASS_BLOB_MAX (72u << 10) /* 64 KiB of input and a header */
#define WORKER_TEXT_MAX      (32u << 10) /* of set(), apply() and replies */

/* One socket. An address with `accept: reuseport` has one for each worker; most of the time a worker
 * accepts from its own, but it may be told to take a sibling's as well. */
struct worker_listener {
    const char *name; /* "127.0.0.1:22121", "[::1]:1", "/run/x.sock", "@abstract" */
    uint32_t tag;     /* of struct master_listener */
    int fd;           /* the library's: never close it. Non-blocking */
    bool is_shared;   /* others accept from the same socket: use EPOLLEXCLUSIVE */
    bool is_mutex;    /* `accept: mutex`: only while worker_mutex_try() holds */
    bool is_unix;
    bool is_accepting; /* what the last accept() said */
    void *arg;         /* the worker's own, NULL at first */
};

enum worker_pass_kind {
    WORKER_PASS_ACCEPTED, /* just accepted, nothing was read: the blob is empty */
    WORKER_PASS_CLIENT,   /* a client with a past: the blob tells */
    WORKER_PASS_CLAIM,    /* a successor asks for what only one can have: fds[0] is a socket to it. The blob
                           * says what: in a dead worker's place somebody else may read it */
};

struct worker_passed {
    enum worker_pass_kind kind;
    int fds[WORKER_PASS_FDS_MAX]; /* [0] the client's; others as the blob says. The callee owns them */
    uint32_t fds_count;
    struct worker_listener *listener; /* where it was accepted (any of the address's sockets), or NULL:
                                       * that address is no longer configured */
    const char *listener_name;        /* lent */
    struct bytes blob;                /* lent. From a process of another version: do not trust it */
    uint32_t from_generation;
    uint8_t hops; /* how often it has been passed on; worker_pass() refuses at WORKER_HOPS_MAX */
};
#define WORKER_HOPS_MAX 8u

enum worker_request {
    WORKER_REQUEST_RELOAD, /* answered when the new generation serves, or with the error */
    WORKER_REQUEST_REOPEN,
    WORKER_REQUEST_UPGRADE, /* text: another binary, or empty; answered when it is ready, or failed */
    WORKER_REQUEST_LOG_LEVEL, /* text: "0".."11", "+" or "-" */
    WORKER_REQUEST_SET,       /* text: passed to set() of all workers, also of those to come */
    WORKER_REQUEST_QUIT,
    WORKER_REQUEST_STOP,
    WORKER_REQUEST_MAX_, /* no request */
};

/* Callbacks may be NULL where nothing is to be done. */
struct worker_handler {
    /* Start or stop to accept. */
    void (*accept)(struct worker *worker, struct worker_listener *listener, bool on);
    /* Leave now: within stop_timeout_ms (a second), then SIGKILL. */
    void (*stop)(struct worker *worker);
    /* accept(off) was called for every listener, their descriptors are gone after this returns. Pass
     * idle clients on (worker_pick_successor()), finish what is in flight, leave within timeout_ms. The
     * stats process stays for the replies to what it asked. */
    void (*drain)(struct worker *worker, uint32_t timeout_ms);
    /* A generation newer than ours serves from now on, or the successor may have changed: clients
     * that could not be passed on before may find a taker. */
    void (*successor)(struct worker *worker);
    /* The program's log has been reopened already; other files are the program's business. */
    void (*reopen)(struct worker *worker);
    void (*log_level)(struct worker *worker, int level); /* already set */
    /* `weirctl set`: a text the stats process sent, e.g. "pool.alpha.timeout 300". Lent. Forked again, any
     * process is told what was set before; the latest text of each first word. */
    void (*set)(struct worker *worker, const char *text);
    /* MASTER_REPLACE_IN_PLACE: the new settings, checked by configure(). Lent. */
    void (*apply)(struct worker *worker, const char *settings);
    void (*passed)(struct worker *worker, const struct worker_passed *passed);
    /* The master died. A proxy goes on: it now accepts from every socket, and a new master will find
     * it. A program whose data has one writer leaves. The stats process may go on until there is a
     * new one (worker_living_master()), which does not know of it. */
    void (*master_gone)(struct worker *worker);

    /* Stats process only. */
    void (*retired)(struct worker *worker, uint32_t slot); /* see worker_stats_fold() */
    void (*reply)(struct worker *worker, uint64_t id, int err, const char *text);
};

/* ---- who am I ----------------------------------------------------------------------------- */

uint32_t worker_index(const struct worker *worker); /* 0.. within the generation; stats process: 0 */
uint32_t worker_count(const struct worker *worker); /* of the generation */
uint32_t worker_slot(const struct worker *worker);  /* unique among all living workers */
uint32_t worker_generation(const struct worker *worker); /* rises with each reload and upgrade */
bool worker_is_stats(const struct worker *worker);
bool worker_is_respawn(const struct worker *worker); /* a predecessor in this place crashed */
bool worker_is_draining(const struct worker *worker);
bool worker_has_master(const struct worker *worker);
struct log *worker_log(const struct worker *worker);
void *worker_config_arg(const struct worker *worker);  /* of struct master_config */
void *worker_program_arg(const struct worker *worker); /* of struct master_program */
void *worker_health(const struct worker *worker, size_t *size);
void *worker_stats(const struct worker *worker, size_t *size); /* own counters segment; stats: NULL */

/* Every socket of every address, in the order of the configuration. Stable for the process's life. */
struct worker_listener *worker_listeners(struct worker *worker, uint32_t *count);

/* ---- life --------------------------------------------------------------------------------- */

void worker_handler_set(struct worker *worker, const struct worker_handler *handler, void *arg);
void *worker_arg(const struct worker *worker); /* the `arg` of worker_handler_set() */

int worker_channel_fd(const struct worker *worker);
void worker_channel_ready(struct worker *worker);
/* Initialised; accept() follows when the whole generation is. */
void worker_ready(struct worker *worker);
void worker_heartbeat(struct worker *worker); /* a store; cheap enough for every turn */
/* Allow-list of system calls and paths, for good; call it when threads and files are open. ERR_UNSUPPORTED:
 * the kernel has neither, or it is off by configuration. */
MUST_USE int worker_sandbox(struct worker *worker);
/* The same for a program that writes files, in two steps: first, while there is only one thread, the folders in
 * which it may make, write and remove files; then, when its rings and threads are there, the calls (those on files
 * among them). */
MUST_USE int worker_sandbox_folders(struct worker *worker, const char *const *folders, size_t count);
MUST_USE int worker_sandbox_calls(struct worker *worker);

/* ---- load and passing on ------------------------------------------------------------------ */

#define WORKER_SLOT_NONE  UINT32_MAX
#define WORKER_SLOT_LATER (UINT32_MAX - 1)

/* How many clients this worker has. */
void worker_load_set(struct worker *worker, uint32_t load);
/* Who should have a connection that this worker just accepted: its own slot, or, when it is more than
 * an eighth above the least loaded of its generation, that one's. */
uint32_t worker_pick_for_accept(struct worker *worker);
/* Who should have our clients: the least loaded serving worker of the newest generation, of this
 * master or of one that follows or precedes it. WORKER_SLOT_NONE: nobody; unless we drain, only a
 * generation newer than ours counts. WORKER_SLOT_LATER: nobody yet, but one is being started. */
uint32_t worker_pick_successor(struct worker *worker);
/* Who serves (or drains) our index in the newest generation before ours: of whom an upgraded binary's worker claims what has one
 * owner. WORKER_SLOT_NONE: nobody; WORKER_SLOT_LATER: it is just being started. */
uint32_t worker_predecessor(const struct worker *worker);
/* Sends a connection to another worker, past the master. ERR_AGAIN: its socket is full, keep the client
 * and try later; ERR_NOT_FOUND: it is gone, pick again; ERR_FULL: passed on too often; ERR_INVALID:
 * the blob is too long. `hops` is 0 for a client of our own, else what came in. */
MUST_USE int worker_pass(struct worker *worker, uint32_t slot, enum worker_pass_kind kind,
                         const struct worker_listener *listener, const int *fds,
                         uint32_t fds_count, struct bytes blob, uint8_t hops);
/* `accept: mutex`. Held until released; of a dead holder it is taken. */
bool worker_mutex_try(struct worker *worker);
void worker_mutex_release(struct worker *worker);

/* ---- for the stats process ---------------------------------------------------------------- */

enum worker_state {
    WORKER_STATE_FREE,     /* nobody */
    WORKER_STATE_STARTING,
    WORKER_STATE_SERVING,
    WORKER_STATE_DRAINING,
    WORKER_STATE_GONE,     /* dead, to be forked again */
    WORKER_STATE_RETIRED,  /* gone for good; its counters wait to be folded */
};

struct worker_info {
    enum worker_state state;
    pid_t pid, master_pid;
    uint32_t generation, index;
    uint32_t load;
    uint32_t respawns;
    uint64_t started_s;    /* epoch */
    uint64_t heartbeat_age_ms;
    bool is_newest;        /* of the newest serving generation */
    const void *stats;     /* live counters; NULL: of another layout */
    size_t stats_size;
};
uint32_t worker_slots_count(const struct worker *worker);
/* False when the slot is free. */
bool worker_slot_info(const struct worker *worker, uint32_t slot, struct worker_info *out);

struct worker_master_info {
    pid_t pid;
    uint64_t started_s;
    uint64_t reloads, reloads_failed, upgrades, upgrades_failed, respawns, crashes;
    uint64_t reloaded_s; /* when the last good reload was; 0: never */
    uint32_t generation; /* newest serving */
    uint32_t workers;
    int log_level;
};
/* Some master that shares our table and lives: ours, an upgrade's, a new one. 0: none. */
pid_t worker_living_master(const struct worker *worker);
void worker_master_info(const struct worker *worker, struct worker_master_info *out);

/* Totals = base + every slot that is not free. The base is shared memory of stats_size_max bytes that
 * outlives every process of the program and is inherited by an upgraded binary of the same layout; it
 * starts as zeroes. Valid until the next worker_stats_fold(). */
const void *worker_stats_base(const struct worker *worker, size_t *size);
/* Folds a retired slot's segment into the base, once, even if this process is killed in the middle:
 * `fold` works on a copy that becomes the base afterwards; then the slot is free. False: the slot is
 * not retired, or another process is folding. Call it from retired(), and for every slot in state
 * RETIRED at start and about once a second. */
bool worker_stats_fold(struct worker *worker, uint32_t slot,
                       void (*fold)(void *arg, void *base, size_t base_size, const void *stats,
                                    size_t stats_size),
                       void *arg);

/* Asks the master; reply() brings the answer under the id returned in *id. ERR_AGAIN, ERR_INVALID
 * (text too long), ERR_EOF (no master). From a worker, not the stats process, the master heeds STOP alone. */
MUST_USE int worker_request(struct worker *worker, enum worker_request request, const char *text,
                            uint64_t *id);
