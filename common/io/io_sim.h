/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_sim.h - a whole world in one process: network, clocks, names and disks, decided by one seed.
 *
 *     sim ─┬─ node "proxy"  ── process 1 (killed), process 2 ── struct io
 *          ├─ node "server" ── process 1 ── struct io, disk
 *          └─ node "client" ── process 1 ── struct io         (the test driver is a node, too)
 *
 * A node is a host with one process on it. Its kernel (socket buffers, names, disk) goes on while
 * the process is paused or dead; the process runs in turns, as io.h says. Nothing happens but in
 * sim_step(): it takes the earliest event of the world, ordered by (time, random tie-break,
 * sequence).
 *
 *   W1  One seed and the same calls give the same run: sim_trace_hash() proves it. There is no wall
 *       clock, no address of memory, no uninitialised byte in any decision.
 *   W2  Every kind of chance has its own stream of random numbers, so that a draw more in the one
 *       does not change the others.
 *   W3  Every turn takes at least a microsecond of the world's time: sim_run_until() ends.
 *   W4  What a process did before it was killed goes on in the kernel (bytes on their way, writes
 *       that were submitted), but calls nobody back.
 *
 * The disks have a header of their own, io_sim_disk.h. Not simulated: what is behind a descriptor
 * of io_watch (see sim_watch_fire()), TCP keepalive, IPv6 scopes.
 */
#pragma once
#include "common/base/list.h"
#include "common/io/io.h"

struct sim;
struct sim_node;

enum sim_random_stream {
    SIM_RANDOM_WORKLOAD, /* for the test driver */
    SIM_RANDOM_NET,
    SIM_RANDOM_DISK,
    SIM_RANDOM_CLOCK,
    SIM_RANDOM_CRASH,
    SIM_RANDOM_CORE, /* tie-breaks, order inside a turn */
    SIM_RANDOM_COUNT,
};

#define SIM_NODES_MAX 128
#define SIM_FDS_MAX   262144
#define SIM_NAMES_MAX 1024

/* What chance may do. Times are true time, in microseconds; _ppm is a chance in a million. */
struct sim_options {
    struct {
        uint32_t segment_min, segment_max; /* bytes that arrive at once; drawn log-uniformly */
        uint32_t delay_min_us, delay_mean_us; /* one way: min + exponential; drawn for each send */
        uint32_t gap_us_max;               /* between the segments of one send */
        uint32_t spike_ppm, spike_us;      /* a lost packet: that much later */
        uint32_t send_buffer_min, send_buffer_max; /* drawn for each end of a connection */
        uint32_t recv_buffer_min, recv_buffer_max;
        uint32_t rst_ppm;      /* of a segment: the connection is reset instead */
        uint32_t refuse_ppm;   /* of a connect: refused though somebody listens */
        uint32_t syn_loss_ppm; /* of a connect attempt: tried again after 1 s, 2 s, 4 s ... */
        uint32_t connect_timeout_us; /* then -ETIMEDOUT */
        uint32_t retry_us;           /* a cut that heals is noticed so much later, at most */
        uint32_t dead_us; /* without progress on an unreachable peer: -ETIMEDOUT. 0: never */
        uint32_t backlog; /* of every listener */
        uint32_t kill_fin_ppm; /* of a killed process's connections: they end with FIN, not RST */
        uint32_t fd_max;       /* of a process; more is -EMFILE */
    } net;
    struct {
        uint32_t wait_us_max;     /* from an event to the turn that sees it */
        uint32_t callback_us_max; /* what a callback costs */
        uint32_t look_us_max;     /* what it costs up to each look at the clock that it makes */
        uint32_t timer_late_us_max;
        uint32_t recv_size;       /* of the buffer that is lent */
    } loop;
    struct {
        uint64_t wall_start_us;  /* since the epoch */
        uint32_t offset_us_max;  /* of a node's monotonic clock */
        uint32_t wall_error_us_max;
        uint32_t rate_ppm_max;   /* drift, either way */
    } clock;
    struct {
        uint64_t capacity;                  /* bytes of a node's disk */
        uint32_t latency_min_us, latency_mean_us;
        uint32_t flush_min_us, flush_mean_us;
        uint32_t stall_ppm, stall_us;       /* of an operation */
        uint32_t read_error_ppm, write_error_ppm, flush_error_ppm; /* -EIO */
        uint32_t pending_max; /* bytes not yet flushed; above, the oldest are written back */
        /* What a power cut leaves of a sector (512 bytes) that was written and not flushed. */
        uint32_t crash_old, crash_new, crash_zero, crash_garbage; /* weights */
        bool crash_names_in_order; /* true: a journal (a prefix survives); false: any subset */
    } disk;
};

/* No faults, delays around 100 us, whole segments. */
void sim_options_calm(struct sim_options *out);
/* Swarm: each fault is on in half of the seeds, with a weight that is drawn too. */
void sim_options_draw(struct sim_options *out, uint64_t seed);

/* ---- the world ---------------------------------------------------------------------------- */

/* `options` NULL: calm. It is copied. */
struct sim *sim_create(uint64_t seed, const struct sim_options *options);
/* Kills what runs and frees everything, also files that were not closed. Their handles, and ios,
 * are invalid after it: what would close them is torn down before. */
void sim_destroy(struct sim **sim);
/* May be changed while the world runs; holds for what is drawn after. */
struct sim_options *sim_options(struct sim *sim);

uint64_t sim_now_us(const struct sim *sim); /* true time, starts at 0 */
uint64_t sim_random(struct sim *sim, enum sim_random_stream stream);
/* 0 <= result < bound; 0 when bound is 0. */
uint64_t sim_random_below(struct sim *sim, enum sim_random_stream stream, uint64_t bound);
/* Whether a thing with this chance in a million happens. */
bool sim_random_chance(struct sim *sim, enum sim_random_stream stream, uint32_t ppm);
uint64_t sim_trace_hash(const struct sim *sim);
uint64_t sim_event_count(const struct sim *sim);
/* One call for each event delivered, to print or compare. `node` may be "". NULL: off. */
typedef void (*sim_trace_fn)(void *arg, uint64_t now_us, const char *node, const char *what,
                             uint64_t id, uint64_t value);
void sim_trace_set(struct sim *sim, sim_trace_fn fn, void *arg);
/* Adds a fact of the driver's to the trace. */
void sim_trace_add(struct sim *sim, const char *what, uint64_t value);

/* One event; false: nothing is left to do. */
bool sim_step(struct sim *sim);
/* All events up to and at that time; the time is `until_us` then. */
void sim_run_until(struct sim *sim, uint64_t until_us);
void sim_run_for(struct sim *sim, uint64_t duration_us);
/* Until nothing is on its way (timers do not count), at most so long. Returns whether it is so. */
bool sim_run_idle(struct sim *sim, uint64_t duration_max_us);
/* Until *flag is true, at most so long. Returns *flag. */
bool sim_run_while_not(struct sim *sim, const bool *flag, uint64_t duration_max_us);
/* Calls the driver at a time, outside of any node's turn: for plans of faults. */
void sim_call_at(struct sim *sim, uint64_t at_us, void (*call)(void *arg), void *arg);

/* ---- nodes -------------------------------------------------------------------------------- */

/* A host with a running process. Its address is 127.0.1.n, n from 1. `name` is copied. */
struct sim_node *sim_node_create(struct sim *sim, const char *name);
/* Of the running process; of the last one when none runs: such an io refuses everything. */
struct io *sim_node_io(const struct sim_node *node);
const char *sim_node_name(const struct sim_node *node);
uint32_t sim_node_id(const struct sim_node *node); /* 1, 2 ... in the order of creation */
void sim_node_addr(const struct sim_node *node, uint16_t port, struct io_addr *out);
void sim_node_log_set(struct sim_node *node, struct log *log); /* borrows; for io_log() */

/* SIGKILL: streams, listeners, timers and operations are forgotten (their structs say so: io is
 * NULL), no callback runs, the peers see RST (or FIN, by option). Files keep what was written.
 * Call it before the memory of the process is freed. May be called from a callback of the node
 * itself. */
void sim_node_kill(struct sim_node *node);
/* The same, but the host is gone: peers see nothing at all, and the disk loses what was not
 * flushed. */
void sim_node_power_cut(struct sim_node *node);
/* Its shared memory is another user's: io_shared_map() refuses it. Or ours again. */
void sim_shared_foreign_set(struct sim_node *node, bool is_foreign);
/* Nothing larger can be mapped anew: -ENOSPC, and what was there of another size is gone. 0: there is room for all. */
void sim_shared_max_set(struct sim_node *node, size_t size);
/* A new process on the node (after a kill or a power cut), with a new io. */
struct io *sim_node_start(struct sim_node *node);
bool sim_node_is_running(const struct sim_node *node);
/* SIGSTOP and SIGCONT: no turn runs; the kernel goes on; timers come late in a burst. */
void sim_node_pause(struct sim_node *node);
void sim_node_resume(struct sim_node *node);

/* Clocks. The monotonic one keeps running evenly when its rate changes. */
void sim_node_clock_rate(struct sim_node *node, int32_t rate_ppm);
void sim_node_wall_jump(struct sim_node *node, int64_t jump_us);

/* ---- network ------------------------------------------------------------------------------ */

/* A listening descriptor for io_listener_start(). Ports of IPv4 and IPv6, paths of unix sockets are
 * the world's: every node reaches them. Port 0: one is chosen (see sim_fd_addr()). Several nodes
 * may listen on one address (reuseport): chance picks one. Errors: -EADDRINUSE (unix), -EMFILE. */
MUST_USE int sim_listen(struct sim_node *node, const struct io_addr *addr, int *fd);
/* The socket survives a kill (as if the master held it): connections wait in its backlog and the
 * next process starts a listener with the same number. */
void sim_listen_keep(struct sim *sim, int fd);
/* Two connected ends for io_stream_open(), without delay of a handshake. */
MUST_USE int sim_socketpair(struct sim_node *a, struct sim_node *b, int fds[2]);
void sim_fd_addr(const struct sim *sim, int fd, struct io_addr *out);
/* For descriptors that are in nobody's stream: accepted and refused, detached, listening. */
void sim_fd_close(struct sim *sim, int fd);
/* A detached or accepted descriptor goes to another process (SCM_RIGHTS). */
void sim_fd_move(struct sim *sim, int fd, struct sim_node *to);
/* Open descriptors: of one node, or of all (node NULL). */
uint32_t sim_fd_count(const struct sim *sim, const struct sim_node *node);

/* What `from` sends does not reach `to` (data, connects, acknowledgements). Healed: comes late. */
void sim_net_cut(struct sim_node *from, struct sim_node *to);
void sim_net_heal(struct sim_node *from, struct sim_node *to);
void sim_net_heal_all(struct sim *sim);
bool sim_net_is_cut(const struct sim_node *from, const struct sim_node *to);
/* More delay on this way, either direction its own; 0 ends it. */
void sim_net_slow(struct sim_node *from, struct sim_node *to, uint32_t delay_us);

/* Faults of one connection; `stream` is either end. */
void sim_stream_reset(struct io_stream *stream);     /* both ends see RST */
void sim_stream_blackhole(struct io_stream *stream); /* from now on nothing arrives: half-open */
/* The peer's next bytes are cut exactly there: `after` more bytes arrive here, then RST. */
void sim_stream_reset_after(struct io_stream *stream, uint64_t after);
/* Bytes that the peer has sent on this connection so far, whether they arrived, were read or were lost. */
uint64_t sim_stream_peer_sent(const struct io_stream *stream);

/* What io_resolve answers: addresses, or a negative err, after a delay. Replaces its entry. */
void sim_name_set(struct sim *sim, const char *host, const struct io_addr *addrs, uint32_t count,
                  int err, uint32_t delay_us);

/* Lets a watch of io_watch_start() be ready in the next turn. */
void sim_watch_fire(struct io_watch *watch, bool readable, bool writable);

/* ---- checks ------------------------------------------------------------------------------- */

struct sim_stats {
    uint64_t turns, callbacks, segments, segment_bytes, connects, accepts, resets, refusals;
    uint64_t file_ops, file_errors;
};
const struct sim_stats *sim_stats(const struct sim *sim);
