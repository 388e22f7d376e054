/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_sim_private.h - what the files of the simulator share.
 *
 *     io_sim.c         time, events, chance, nodes, turns, timers, hooks
 *     io_sim_net.c, io_sim_connect.c   the kernels' sockets (io_sim_net_private.h)
 *     io_sim_stream.c  streams and listeners of struct io over those sockets
 *     io_sim_op.c      jobs: operations that complete once; names; files
 *     io_sim_disk.c, io_sim_file.c, io_sim_fault.c   the disk (io_sim_disk_private.h)
 *     io_sim_shared.c  memory that outlives a process
 *     io_sim_options.c the knobs
 *
 * A socket is the kernel's and outlives its stream; a process is one life of a node.
 */
#pragma once
#include "common/base/mem.h"
#include "common/io/io_private.h"
#include "common/io/io_sim.h"

#define SIM_FD_BASE   1000
#define SIM_NEVER     UINT64_MAX
#define SIM_TURN_MIN_US 1

/* ---- chance and order --------------------------------------------------------------------- */

struct sim_prng {
    uint64_t s[4];
};
void sim_prng_seed(struct sim_prng *prng, uint64_t seed, uint64_t purpose);
uint64_t sim_prng_next(struct sim_prng *prng);

/* An intrusive binary heap. The keys differ always (seq), so the order is total. */
struct sim_key {
    uint64_t at, tie, seq;
    size_t place; /* 1-based; 0: in no heap */
};
struct sim_heap {
    struct sim_key **items;
    size_t count, cap;
};
void sim_heap_push(struct sim_heap *heap, struct sim_key *key);
void sim_heap_remove(struct sim_heap *heap, struct sim_key *key);
struct sim_key *sim_heap_first(const struct sim_heap *heap);
void sim_heap_deinit(struct sim_heap *heap);

enum sim_event_kind {
    SIM_EVENT_TURN, SIM_EVENT_ALARM, SIM_EVENT_CALL, SIM_EVENT_HANDSHAKE, SIM_EVENT_SEGMENT,
    SIM_EVENT_ACK, SIM_EVENT_DEAD, SIM_EVENT_JOB,
};

struct sim_event {
    struct sim_key key;
    void (*fire)(struct sim_event *event);
    uint8_t kind;
    uint64_t id; /* for the trace */
    const struct sim_node *node; /* for the trace; may be NULL */
};
void sim_event_start(struct sim *sim, struct sim_event *event, uint64_t at_us); /* or moves it */
void sim_event_stop(struct sim *sim, struct sim_event *event);
static inline bool sim_event_is_armed(const struct sim_event *event)
{
    return event->key.place != 0;
}

/* Bytes in a row: appended at the end, taken from the front. Holds no memory while empty. */
struct sim_buffer {
    char *data;
    size_t off, len, cap;
};
void sim_buffer_append(struct sim_buffer *buffer, const void *data, size_t len);
void sim_buffer_skip(struct sim_buffer *buffer, size_t len);
void sim_buffer_clear(struct sim_buffer *buffer);
static inline char *sim_buffer_at(const struct sim_buffer *buffer)
{
    return buffer->data + buffer->off;
}

/* ---- nodes and processes ------------------------------------------------------------------ */

struct sim_disk;
struct sim_socket;

struct sim_clock {
    uint64_t base_true_us, base_us; /* the clock showed base_us at base_true_us */
    int32_t rate_ppm;
    int64_t wall_us; /* wall = clock + this */
};

struct sim_node {
    struct sim *sim;
    uint32_t id;
    char name[48];
    bool is_up, is_paused;     /* is_up: the host; false after a power cut */
    struct sim_process *process; /* the last one; never NULL */
    struct list processes;     /* owns */
    struct sim_clock clock;
    struct log *log;           /* borrows */
    struct sim_disk *disk;     /* owns */
    struct list shared;        /* owns: memory that outlives processes */
    size_t shared_max;         /* of one of them that is made now; 0: no bound */
    uint32_t life_count, boot_count;
};

struct sim_process {
    struct io io; /* first */
    struct sim_node *node;
    struct list_node node_;
    bool is_dead, is_stopped, in_turn, is_turn_wanted;
    uint64_t elapsed_us; /* what the callbacks of this turn took */
    uint64_t busy_until_us;
    struct sim_heap timers;    /* by the node's clock */
    struct sim_event turn, alarm;
    uint64_t alarm_deadline_us;
    struct list ready;    /* of sockets: ready_ */
    struct list turning;  /* of sockets: ready_, in this turn */
    struct list sockets;  /* of sockets: owner_ */
    uint32_t fd_count;
    struct list jobs;     /* on their way: process_ */
    struct list done;     /* of jobs: process_ */
    size_t done_count;
    struct list watches;  /* of struct sim_watch */
    struct list files;    /* owns: open ones; after the end, those that are not closed yet */
    struct sim_prng random;
};

/* io_sim_disk.c */
struct sim_disk *sim_disk_create(struct sim_node *node);
void sim_disk_destroy(struct sim_disk **disk);
void sim_disk_crash(struct sim_disk *disk);

static inline struct sim_process *sim_process_of(const struct io *io)
{
    return (struct sim_process *)(uintptr_t)io;
}

uint64_t sim_clock_us(const struct sim_node *node, uint64_t true_us);
/* A turn is due. */
void sim_process_wake(struct sim_process *process);
/* The true time inside of a turn, with what its callbacks took. */
uint64_t sim_process_true_us(const struct sim_process *process);
/* Bookkeeping after each callback. */
void sim_process_called(struct sim_process *process, const char *what, uint64_t id, uint64_t value);
void sim_timer_start(struct io *io, struct io_timer *timer, uint64_t delay_ms);
void sim_timer_stop(struct io *io, struct io_timer *timer);
extern const struct io_vtable sim_vtable;

/* ---- the world ---------------------------------------------------------------------------- */

struct sim_pair { /* of nodes: from, to */
    uint32_t slow_us;
    bool is_cut;
};

struct sim_name;

struct sim {
    struct sim_options options;
    uint64_t seed, now_us, seq, trace_hash, event_count;
    struct sim_prng random[SIM_RANDOM_COUNT];
    struct sim_heap events;
    uint64_t work_count; /* events that are on their way: not timers, not calls of the driver */
    sim_trace_fn trace_fn;
    void *trace_arg;
    struct sim_node *nodes[SIM_NODES_MAX]; /* owns */
    uint32_t node_count;
    struct sim_pair *pairs; /* owns: SIM_NODES_MAX squared, allocated when first used */
    struct sim_socket **fds; /* owns; by fd - SIM_FD_BASE */
    uint32_t fd_cap, fd_next, fd_open;
    struct list listeners; /* of sockets: listen_ */
    struct list conns;     /* owns */
    uint64_t conn_next;
    uint32_t port_next;
    struct sim_name **names; /* owns */
    uint32_t name_count;
    struct list jobs; /* owns: all that are on their way */
    uint64_t job_next;
    bool is_stepping;
    struct sim_socket *current; /* its callback runs; NULL once that has closed it */
    struct bytes lent;          /* what that recv() was lent */
    struct sim_stats stats;
};

static inline uint64_t sim_mix(uint64_t hash, uint64_t value)
{
    hash ^= value + 0x9e3779b97f4a7c15u + (hash << 6) + (hash >> 2);
    hash *= 0xff51afd7ed558ccdu;
    return hash ^ (hash >> 32);
}
uint64_t sim_hash_bytes(const void *data, size_t len);
void sim_trace(struct sim *sim, const struct sim_node *node, const char *what, uint64_t id,
               uint64_t value);
/* min + an exponential around mean, capped at 16 means. */
uint64_t sim_draw_delay(struct sim *sim, enum sim_random_stream stream, uint64_t min_us,
                        uint64_t mean_us);
struct sim_pair *sim_pair(struct sim *sim, const struct sim_node *from, const struct sim_node *to);

/* ---- sockets ------------------------------------------------------------------------------ */

enum sim_socket_kind { SIM_SOCKET_STREAM, SIM_SOCKET_LISTENER };
enum sim_connect { SIM_CONNECT_NONE, SIM_CONNECT_GOING, SIM_CONNECT_ENDED };

struct sim_conn;

struct sim_socket {
    struct sim *sim;
    struct sim_node *node;
    struct sim_process *process; /* whose descriptor it is; NULL in a backlog or kept */
    int fd;                      /* -1 in a backlog */
    uint8_t kind, connect;
    int connect_err;
    int err; /* pending error of the connection; stays */
    struct list_node owner_, ready_, listen_;
    struct io_addr local, peer;
    /* A stream's. */
    struct sim_conn *conn;
    uint8_t side;
    struct io_stream *stream; /* borrows; NULL while nobody's */
    bool is_rest_due;         /* resume() has to lend what is kept */
    uint32_t user_timeout_ms;
    /* A listener's. */
    struct list backlog; /* of sockets: listen_ */
    uint32_t backlog_count;
    struct io_listener *listener; /* borrows */
    struct io_timer accept_pause; /* after -EMFILE */
    bool is_kept;
};

int sim_socket_connect(struct sim_process *process, const struct io_addr *addr,
                       struct sim_socket **out);
void sim_socket_close(struct sim_socket *socket); /* frees it */
void sim_socket_abort(struct sim_socket *socket); /* frees it */
void sim_socket_shutdown(struct sim_socket *socket);
ssize_t sim_socket_send(struct sim_socket *socket, const struct iovec *slices, int count);
/* Into `data`: bytes, 0 for EOF, -EAGAIN, or an error. */
ssize_t sim_socket_recv(struct sim_socket *socket, char *data, size_t size);
size_t sim_socket_available(const struct sim_socket *socket);
void sim_socket_drain(struct sim_socket *socket); /* throws away what has arrived */
bool sim_socket_is_readable(const struct sim_socket *socket);
bool sim_socket_is_writable(const struct sim_socket *socket);
/* The next of the backlog with a descriptor of the listener's process; -EAGAIN, -EMFILE. */
int sim_socket_accept(struct sim_socket *listener, struct sim_socket **out);
/* The process takes a descriptor over that nobody has (a kept listener). */
void sim_socket_adopt(struct sim_process *process, struct sim_socket *socket);
struct sim_socket *sim_socket_of_fd(const struct sim *sim, int fd);
void sim_socket_user_timeout(struct sim_socket *socket, uint32_t timeout_ms);
/* Puts it on its process's list of the ready, if its stream or listener waits for what is there. */
void sim_socket_notify(struct sim_socket *socket);
/* The end of a process; `is_silent`: of its host. */
void sim_net_process_ended(struct sim_process *process, bool is_silent);
void sim_net_node_up(struct sim_node *node);
void sim_net_deinit(struct sim *sim);

struct sim_watch {
    struct list_node node;
    struct io_watch *watch; /* borrows */
    bool readable, writable; /* due */
};

/* ---- io_sim_stream.c ---------------------------------------------------------------------- */

void sim_stream_turn(struct sim_socket *socket); /* one that is ready; may free it */
bool sim_stream_wants(const struct sim_socket *socket);
void sim_stream_forget(struct sim_socket *socket); /* its process is dead */
int sim_stream_open(struct io *io, struct io_stream *stream, int fd,
                    const struct io_stream_options *options, struct bytes rest);
int sim_stream_connect(struct io *io, struct io_stream *stream, const struct io_addr *addr,
                       const struct io_stream_options *options);
void sim_stream_resume(struct io *io, struct io_stream *stream);
void sim_stream_pause(struct io *io, struct io_stream *stream);
ssize_t sim_stream_send(struct io *io, struct io_stream *stream, const struct iovec *slices,
                        int count);
void sim_stream_shutdown(struct io *io, struct io_stream *stream);
void sim_stream_close(struct io *io, struct io_stream *stream, bool is_abort);
int sim_stream_detach(struct io *io, struct io_stream *stream, char **rest, size_t *rest_len);
void sim_stream_peer(struct io *io, const struct io_stream *stream, struct io_addr *out);
void sim_stream_local(struct io *io, const struct io_stream *stream, struct io_addr *out);
void sim_listener_start(struct io *io, struct io_listener *listener, int fd);
void sim_listener_stop(struct io *io, struct io_listener *listener);
void sim_watch_start(struct io *io, struct io_watch *watch, int fd, bool read, bool write);
void sim_watch_stop(struct io *io, struct io_watch *watch);
void sim_watch_turn(struct sim_process *process);
void sim_watch_forget(struct sim_process *process);

/* ---- io_sim_op.c -------------------------------------------------------------------------- */

void sim_op_done_turn(struct sim_process *process); /* the first that is done */
void sim_op_forget(struct sim_process *process);
void sim_op_host_ended(struct sim_node *node); /* what was on its way to the disk ends half-way */
void sim_op_deinit(struct sim *sim);
void sim_op_process_free(struct sim_process *process);
void sim_resolve_submit(struct io *io, struct io_resolve *resolve);
void sim_resolve_cancel(struct io *io, struct io_resolve *resolve);
void sim_file_open(struct io *io, struct io_op *op, const char *path, int flags,
                   struct io_file **out);
void sim_file_close(struct io *io, struct io_file *file);
void sim_file_submit(struct io *io, struct io_file *file, struct io_op *op, enum io_file_op kind,
                     void *data, size_t size, uint64_t off);
void sim_path_submit(struct io *io, struct io_op *op, enum io_path_op kind, const char *from,
                     const char *to);
void sim_touch(struct io *io, struct io_op *op, void *memory, size_t size);
void sim_list_submit(struct io *io, struct io_op *op, const char *path,
                     void (*each)(void *arg, const char *name), void *each_arg);

/* ---- io_sim_shared.c ---------------------------------------------------------------------- */

int sim_shared_map(struct io *io, const char *path, size_t size, void **addr, bool *existed);
int sim_shared_size(struct io *io, const char *path, size_t *size);
void sim_shared_why(struct io *io, const char *path, char *out, size_t size);
void sim_shared_unmap(struct io *io, void *addr, size_t size);
int sim_shared_remove(struct io *io, const char *path);
void sim_shared_host_ended(struct sim_node *node);
void sim_shared_free(struct sim_node *node);
int sim_boot_id(struct io *io, unsigned char out[16]);
uint64_t sim_random64(struct io *io); /* of the process */
