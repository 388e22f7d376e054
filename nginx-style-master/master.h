/* SPDX-License-Identifier: Apache-2.0 */
/*
 * master.h - processes, nothing of caches: a master that forks, watches and replaces workers.
 *
 * A program fills in a struct master_program and calls master_run() from main(). The master asks the
 * program for its configuration (at start, and again at each HUP), binds the listeners, maps the
 * shared memory, forks the workers and one stats process, and then waits for signals and children. It
 * parses no traffic. What a worker sees is in worker.h.
 *
 *     main() -> options, conf_load() for -t -> master_run(&program)
 *                  configure()  in the master: plain data, or an error text
 *                  worker_main() in each worker, stats_main() in the stats process: never return to
 *                                main(); what they return is the exit code of the process
 *
 * Signals: TERM INT stop now · QUIT drain and stop · HUP reload and reopen the log · USR1 reopen ·
 * USR2 upgrade the binary · WINCH drain the workers, stay (OVERLAP only; never a terminal's) · TTIN TTOU log level up, down.
 */
#pragma once
#include "common/base/base.h"
#include "common/base/err.h"
#include "common/base/log.h"

#include <sys/types.h>

struct worker;

#define MASTER_WORKERS_MAX     128u
#define MASTER_GENERATIONS_MAX 3u /* alive at once under one master */
#define MASTER_ERROR_SIZE      1024u

/* Exit codes of workers. Anything else (a signal too) is a crash: forked again. */
enum master_exit {
    MASTER_EXIT_DONE = 0,        /* told to leave, has left. Untold: forked again */
    MASTER_EXIT_FATAL = 2,       /* do not fork again: it would not help */
    MASTER_EXIT_DISK = 70,       /* the disk failed: do not fork again */
};

enum master_accept {
    MASTER_ACCEPT_REUSEPORT, /* a socket for each worker; the kernel spreads connections */
    MASTER_ACCEPT_EXCLUSIVE, /* one socket, all workers wait for it with EPOLLEXCLUSIVE */
    MASTER_ACCEPT_MUTEX,     /* one socket, worker_mutex_try() decides who waits */
};                           /* unix sockets are always one socket, shared */

enum master_for {
    MASTER_FOR_WORKERS, /* every worker serves the address */
    MASTER_FOR_WORKER,  /* only worker number `only_worker` does (a shard's port) */
    MASTER_FOR_STATS,   /* the stats process does */
};

/* An address that shall be listened on. `path`, or `host` and `port`. */
struct master_listener {
    const char *path; /* unix socket; "@name": abstract. NULL: TCP */
    const char *host; /* "" or NULL: every IPv4 address; names are looked up (IPv4 first) */
    uint16_t port;
    mode_t mode;      /* of the unix socket, set exactly; 0: 0666 */
    uint32_t backlog; /* 0: the system's */
    enum master_accept accept;
    enum master_for for_whom;
    uint32_t only_worker; /* MASTER_FOR_WORKER */
    uint32_t tag;         /* the program's own, e.g. the index of its pool; see worker_listener */
};

enum master_replace {
    /* HUP: a new generation starts; when all of it is ready it accepts, and the old one drains. */
    MASTER_REPLACE_OVERLAP,
    /* HUP: the workers stay and get `settings` through worker_handler.apply(): for programs whose
     * directories have one writer. USR2: the new workers claim the directories from the old ones
     * (worker_predecessor(), WORKER_PASS_CLAIM) before they are ready; when the new master serves, the
     * old one quits by itself. */
    MASTER_REPLACE_IN_PLACE,
};

/* What configure() fills in. Everything pointed at lives until release(). Zeroes are defaults. */
struct master_config {
    const struct master_listener *listeners;
    uint32_t listeners_count;
    uint32_t workers; /* 0: one for each core this process may run on */
    enum master_replace replace;
    bool cpu_affinity_auto;
    const uint32_t *cpus; /* else: worker i runs on cpus[i % cpus_count] */
    uint32_t cpus_count;  /* 0: anywhere */
    const char *user;     /* of workers and stats process, after the listeners are bound; NULL: stay */
    const char *group;    /* NULL: the user's own */
    uint64_t rlimit_nofile;     /* 0: raise the soft limit to the hard one */
    uint32_t drain_timeout_ms;  /* 0: 30,000 */
    uint32_t stop_timeout_ms;   /* after STOP, or a drain's end, a worker that has not left gets SIGKILL; 0: 1,000 */
    uint32_t ready_timeout_ms;  /* a new generation that is not ready by then is given up; 0: 10,000 */
    uint32_t watchdog_ms;       /* a worker without heartbeat for so long gets SIGABRT; 0: 5,000;
                                 * UINT32_MAX: never */
    size_t stats_size;          /* of a worker's counters segment, at most program.stats_size_max */
    size_t health_size;         /* of the area that the workers of the generation share */
    bool no_sandbox;            /* leave seccomp and Landlock off: worker_sandbox() does nothing */
    const char *settings;       /* IN_PLACE: handed to apply(); at most 32 KiB */
    void *arg;                  /* the program's own; worker_config_arg() */
};

struct master_program {
    const char *name;    /* "weir-proxy": process titles "weir-proxy: worker 3" */
    const char *version; /* for crash reports and upgrades */
    int argc;            /* main()'s */
    char **argv;
    struct log *log; /* borrows. The library reopens it, sets its level and its name in each process */
    const char *pid_file; /* NULL: none. Relative paths are those of the start */
    bool daemonize;       /* double fork, chdir("/"), umask 0; not when upgraded from a running master */
    const char *upgrade_binary; /* what USR2 executes; NULL: argv[0], looked up again */
    void *arg;                  /* given to the callbacks below */

    /* Address space, not memory, is reserved up to stats_size_max for each worker's counters, as the
     * configuration may grow. An upgraded binary of the same layout takes segments and base over; with
     * another layout the totals start again from its own. */
    const char *stats_layout; /* one word, <= 63 bytes, e.g. "weir-proxy-1"; NULL: "none" */
    size_t stats_size_max;    /* 0: 16 MiB */

    /* Runs in the master, at start and at HUP. 0 and *out, or negative with a text (no newline; one
     * line a fault) in `error`. Must not change anything that the running configuration uses. */
    int (*configure)(void *arg, struct master_config *out, char error[MASTER_ERROR_SIZE]);
    /* MASTER_REPLACE_IN_PLACE, HUP: whether running workers can go from one to the other; negative with a text else.
     * NULL: always. A worker that is forked again gets the newer one, so that it must fit the others. */
    int (*may_change)(void *arg, const struct master_config *from, const struct master_config *to,
                      char error[MASTER_ERROR_SIZE]);
    /* The last process that used it in the master is gone. NULL: nothing to free. */
    void (*release)(void *arg, struct master_config *config);
    /* Fills a new generation's health area, zeroed, from the running one's (old NULL at start), before
     * its workers are forked. Both may be written to by workers meanwhile. NULL: stays zero. */
    void (*health_init)(void *arg, const struct master_config *config, void *health,
                        const struct master_config *old_config, const void *old_health);
    /* A worker's life; returns its exit code. Must call worker_ready(). */
    int (*worker_main)(struct worker *worker);
    /* The stats process's life; NULL: there is none. Runs under the newest configuration: it is
     * replaced after each reload. */
    int (*stats_main)(struct worker *worker);
};

/* Returns the exit code for main(): 0 after an ordered stop, 1 when the start failed (the reason is in
 * the log and on stderr). In children it does not return. */
MUST_USE int master_run(const struct master_program *program);

/* For -t: what a start with that configuration would refuse, as far as it can be known without doing anything. NULL: no such
 * file. 0, or negative with a text. */
MUST_USE int master_check(const struct master_config *config, const char *log_file, const char *pid_file,
                          char error[MASTER_ERROR_SIZE]);

/* How many cores this process may use: `workers: auto`. */
uint32_t master_cpu_count(void);

/* The first thing in main(), before getopt(): copies argv and environ away, so that process titles can
 * be written over their place. Pointers into the old argv would see them change. Without this call
 * processes have no titles. */
void master_title_setup(int argc, char **argv);
