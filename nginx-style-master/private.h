/* SPDX-License-Identifier: Apache-2.0 */
/*
 * private.h - the master's own structs. For the siblings in this folder only.
 */
#pragma once
#include "common/base/base.h"
#include "common/base/list.h"
#include "nginx-style-master/channel.h"
#include "nginx-style-master/listener.h"
#include "nginx-style-master/master.h"
#include "nginx-style-master/process.h"
#include "nginx-style-master/shm.h"
#include "nginx-style-master/worker.h"

#define MASTER_SETS_MAX        256u
#define MASTER_READY_MS        10000u
#define MASTER_DRAIN_MS        30000u
#define MASTER_WATCHDOG_MS     5000u
#define MASTER_STOP_MS         1000u /* between "leave" and SIGKILL */
#define MASTER_UPGRADE_MS      20000u
#define MASTER_BACKOFF_MAX_MS  5000u
#define MASTER_CRASHES_AT_ONCE 3u /* deaths in a row that are answered without a delay */

/* ---- generations (generation.c) ----------------------------------------------------------- */

struct generation;

/* A process of ours: a worker, or the stats process. */
struct child {
    struct generation *generation; /* borrows: its owner */
    pid_t pid;                     /* 0: not running */
    int channel;                   /* owns; -1 */
    uint32_t slot, index;
    bool is_stats;
    bool is_ready;
    bool is_leaving; /* told to drain or stop */
    bool is_over;    /* gone for good */
    uint32_t deaths; /* in a row */
    uint64_t forked_ms;
    uint64_t fork_at_ms;  /* to be forked again then; 0: not */
    uint64_t abort_at_ms; /* the watchdog struck: SIGKILL then; 0: not */
    struct lanes lanes, lanes_sent;
    bool has_lanes_sent;
};

/*
 *   STARTING --all ready--> SERVING --newer serves, WINCH, QUIT--> LEAVING --all gone--> freed
 *      '----- one died, or the time is over ----------------------->'
 */
enum generation_state { GENERATION_STARTING, GENERATION_SERVING, GENERATION_LEAVING };

struct generation {
    struct list_node node; /* in master.generations, oldest first */
    struct master *master; /* borrows */
    enum generation_state state;
    uint32_t id;
    struct master_config config; /* owns: given to release() at the end */
    struct privilege privilege;
    uint32_t workers;
    struct child *children; /* owns; [workers] */
    struct child stats;
    struct listener **bound; /* owns the array; [config.listeners_count], valid while forking */
    void *health;            /* owns */
    uint64_t ready_by_ms;    /* STARTING */
    uint64_t leave_by_ms;    /* LEAVING: then TERM, then KILL */
    bool is_killed;
};

/* ---- inheritance (upgrade.c) -------------------------------------------------------------- */

enum inherit_kind {
    INHERIT_parent,   /* channel to the old master; text: its pid */
    INHERIT_table,    /* the slots; text: name of the program */
    INHERIT_stats,    /* counters; text: layout */
    INHERIT_pass_rx,  /* hand-over sockets; text: slot */
    INHERIT_pass_tx,
    INHERIT_listener, /* text: address */
    INHERIT_guard,    /* text: address */
    INHERIT_KIND_MAX_,
};

#define INHERIT_TEXT_MAX    160u
#define INHERIT_ENTRIES_MAX 200000u

struct inherit_entry {
    enum inherit_kind kind;
    int fd;
    char text[INHERIT_TEXT_MAX];
};

struct inherit {
    struct inherit_entry *entries; /* owns */
    uint32_t count, cap;
};

void inherit_add(struct inherit *inherit, enum inherit_kind kind, int fd, const char *text);
/* The first of that kind; NULL: there is none. */
const struct inherit_entry *inherit_find(const struct inherit *inherit, enum inherit_kind kind);
void inherit_free(struct inherit *inherit, bool close_fds);
/* One line, with its newline; 0: does not fit. */
size_t inherit_line(const struct inherit_entry *entry, char *out, size_t cap);
/* The lines of a text, the first of which is the version line. ERR_INVALID and a text. */
MUST_USE int inherit_parse(struct bytes text, struct inherit *out, char *error);
/* Line by line without the version line; unknown kinds are skipped (their fd is set to -1 in none). */
MUST_USE int inherit_parse_line(struct bytes line, struct inherit_entry *out);
const char *inherit_version(void);

#define UPGRADE_WHY_MAX 1024u
struct upgrade {
    pid_t pid;   /* of the new binary; 0: none */
    int channel; /* owns; -1 */
    bool is_ready, is_heard;
    uint64_t ready_by_ms;
    uint64_t request_id; /* to answer; 0: a signal started it */
    pid_t requester;
    int err; /* it has failed, and is about to leave; 0: not */
    char why[UPGRADE_WHY_MAX];
};

/* ---- the master --------------------------------------------------------------------------- */

struct master {
    const struct master_program *program; /* borrows */
    struct log *log;                      /* borrows */
    struct shm shm;
    struct shm_master *self; /* in shm */
    int *pass_rx, *pass_tx;  /* own; [slots_count] */
    struct listener_set listeners;
    struct list generations;
    struct generation *serving, *starting; /* borrow; may be NULL */
    int signal_fd;
    int parent_channel; /* to the master that executed us; -1 */
    int notify_fd;      /* to the process that waits for the daemon to serve; -1 */
    char *pid_path, *pid_path_old; /* own; absolute */
    char *binary;                  /* owns: absolute or to be looked up in PATH */
    int cwd_fd;                    /* the directory of the start */
    bool is_inherited;             /* came to life by an upgrade */
    bool is_stopping, is_quitting, is_reload_due;
    int exit_code;
    uint64_t reload_request_id;
    pid_t reload_requester;
    uint64_t tick_at_ms, tick_last_ms;
    char **sets; /* own */
    uint32_t sets_count;
    struct upgrade upgrade;
    uint64_t *foreign_told_ms; /* owns; [slots_count]: orphans, when they were told to leave */
    char *text;                /* owns: room for a channel's text */
    char *packet;              /* owns: room for a hand-over */
};

/* generation.c */
/* Takes `config` over on success. The master's listeners are bound to it already. */
struct generation *generation_create(struct master *master, const struct master_config *config,
                                     const struct privilege *privilege, uint32_t workers,
                                     struct listener **bound);
MUST_USE int generation_start(struct generation *generation, char *error);
void generation_leave(struct generation *generation, bool at_once);
void generation_kill(struct generation *generation);
bool generation_is_ready(const struct generation *generation);
bool generation_has_workers(const struct generation *generation);
bool generation_is_gone(const struct generation *generation);
void generation_serve(struct generation *generation);
void generation_destroy(struct generation *generation);
void generation_assign_lanes(struct generation *generation);
void generation_tick(struct generation *generation, uint64_t now_ms, bool is_late);
/* When the generation wants to be ticked; UINT64_MAX: never. */
uint64_t generation_deadline(const struct generation *generation);
void generation_stats_accept(struct generation *generation, bool on);

struct child *child_by_pid(struct master *master, pid_t pid);
void child_died(struct child *child, int status);
void child_tell(struct child *child, enum channel_type type, uint32_t value, const char *text,
                int fd);

/* worker.c: never returns. */
NORETURN void worker_run(struct master *master, struct child *child, int channel);

/* master.c */
void master_quit(struct master *master); /* drains, then stops */
uint32_t master_timeout(uint32_t configured, uint32_t standard);
void master_slot_retired(struct master *master, uint32_t slot);
void master_log_lines(struct master *master, const char *what, const char *text);
/* Answers a request of the stats process, and clears *id. */
void master_reply(struct master *master, pid_t requester, uint64_t *id, int err, const char *text);
/* Relative paths mean the directory of the start, also after chdir("/"). */
void master_enter_start_dir(struct master *master);
void master_leave_start_dir(struct master *master);

/* reload.c */
/* Of a configuration alone, by a master that runs or by none. */
MUST_USE int reload_config_check(const struct master_config *config, struct privilege *privilege, uint32_t *workers,
                                 char *error);
/* Asks the program. On success the configuration is the caller's. */
MUST_USE int reload_config_get(struct master *master, struct master_config *config,
                               struct privilege *privilege, uint32_t *workers, char *error);
/* Binds and forks. The configuration is the callee's, also on errors. */
MUST_USE int reload_generation_begin(struct master *master, struct master_config *config,
                                     const struct privilege *privilege, uint32_t workers,
                                     char *error);
void reload_begin(struct master *master);
/* Has the generation that starts become ready, or failed? */
void reload_check(struct master *master);
void reload_abort(struct master *master);
void master_sets_forget(struct master *master);

/* orphan.c */
void orphans_tick(struct master *master, uint64_t now_ms);
bool orphans_live(const struct master *master);
/* Moves what waits in a slot's hand-over socket to somebody who serves. */
void master_reroute(struct master *master, uint32_t slot);

/* upgrade.c */
MUST_USE int upgrade_start(struct master *master, const char *binary, char *error);
void upgrade_event(struct master *master); /* its channel is readable */
void upgrade_died(struct master *master, int status);
void upgrade_tick(struct master *master, uint64_t now_ms);
/* The master is about to exit. */
void upgrade_leave(struct master *master);
/* The new master's, while it starts: workers that take data over need as long as there is data. */
void upgrade_beat(struct master *master);
/* Everything that a successor needs. The descriptors stay ours. */
void upgrade_collect(struct master *master, struct inherit *out);
/* From the environment; 0 with count 0 when there is none. */
MUST_USE int upgrade_inherited(struct inherit *out, char *error);

/* takeover.c */
/* The answer on a guard while a master lives. */
void takeover_answer_live(int guard_fd, pid_t master_pid);
/* An orphan's: hands out everything. True: somebody took it. */
bool takeover_answer_orphan(int guard_fd, uint32_t owner_uid, const struct inherit *inherit);
/* Looks for a predecessor behind one address. 0: nobody, or *out is filled. -EADDRINUSE: a living
 * master, *pid. ERR_TIMEOUT: somebody who does not answer. */
MUST_USE int takeover_probe(const char *name, struct inherit *out, pid_t *pid);
