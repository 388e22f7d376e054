/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_ev_private.h - the parts of io_ev know each other through this.
 *
 *   io_ev.c         the loop: turns, stamps, wake, timers, ops that complete without waiting
 *   io_ev_stream.c  byte streams
 *   io_ev_rest.c    what their recv() left
 *   io_ev_socket.c  listeners and watches
 *   io_ev_name.c    names, on two threads
 *   io_ev_file.c    files: what goes to the ring, what to threads
 *   io_ev_shared.c  memory that outlives the process
 *   io_uring.c      the ring of files
 *   socket_ring.c   that of sockets
 *   threads.c       the pool
 */
#pragma once
#include "common/base/log.h"
#include "common/io/io_ev.h"
#include "common/io/io_private.h"
#include "common/io/socket_ring.h"
#include "common/io/threads.h"

/* libev's own ev_io_init casts callbacks in ways that old compilers needed. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wstrict-aliasing"
#include <ev.h>
#pragma GCC diagnostic pop

#include <sys/epoll.h>

#define IO_EV_STREAM_EVENTS 512
/* Their memory is still in the cache when their turn comes; 192 bytes more, that not all begin in the same lines of it. */
#define IO_EV_AHEAD_STREAMS 32
#define IO_EV_AHEAD_ROOM    ((4u << 10) + 192)
_Static_assert(IO_EV_AHEAD_STREAMS <= SOCKET_RING_MAX, "they are received together");

struct io_ev_slot;
struct uring;

struct io_ev {
    struct io io; /* first */
    struct ev_loop *loop;
    int poll_fd; /* libev's epoll descriptor (borrows), -1 when it could not be told */
    bool is_running, is_stopping;
    ev_prepare before_wait;
    ev_check after_wait;
    ev_idle no_wait; /* active: the next wait is none */

    /* The set of the streams, and whose the descriptors in it are. */
    int stream_fd;      /* owns; -1: none yet */
    ev_io stream_watcher;
    struct io_ev_slot *slots; /* owns; [slot_count] by descriptor */
    uint32_t slot_count;
    struct epoll_event stream_events[IO_EV_STREAM_EVENTS];
    int stream_event_at, stream_event_count; /* from `at` on they are for the next turn */
    uint32_t streams_us;                     /* as in the options */
    uint64_t streams_until_us;               /* this turn's; 0: it has not begun to serve them */
    bool is_late; /* what had waited for this turn has taken all of streams_us */

    struct socket_ring *sockets; /* owns; NULL: each call is made by itself */

    /* What was received ahead, for streams whose turn is about to come. */
    struct io_ev_ahead {
        struct io_stream *stream; /* borrows; NULL: nothing */
        size_t len;
    } ahead[IO_EV_AHEAD_STREAMS];
    char *ahead_data; /* owns; IO_EV_AHEAD_ROOM for each; NULL until it is needed */

    struct list stream_late; /* streams that a turn had no time for; they come first in the next */
    struct list stream_todo; /* streams that have something to do in the next turn */
    struct list op_todo;     /* ops that are done and wait for the next turn */

    /* The stream whose callback runs; NULL once that has closed it. */
    struct io_stream *stream_current;
    struct bytes lent; /* what recv() has been lent, while it runs */
    char *recv_data;   /* owns */
    size_t recv_size;

    struct io_listener *listener_current; /* as stream_current */
    struct list listener_paused;
    ev_timer listener_pause;
    struct log_limit accept_log;

    struct io_threads *name_threads; /* owns; made with the first look-up */
    ev_async name_done;

    enum io_file_backend files;
    struct io_threads *file_threads; /* owns; made with the first job */
    ev_async file_done;
    struct uring *uring; /* owns; NULL when files run on threads */
    uint32_t linger_us;  /* of this turn's end */
    bool linger_is_turn;
    bool yields;         /* at this turn's end */
    uint64_t yielded_us; /* when it had the core again, the last time */
    struct list file_list; /* owns: all that are open */
    int dir_fd;

    uint64_t random[64];
    unsigned random_left;
};

static inline struct io_ev *io_ev_of(struct io *io)
{
    return CONTAINER_OF(io, struct io_ev, io);
}

/* ---- io_ev.c ---- */
void io_ev_wake(struct io *io);
/* done() runs in the next turn. */
void io_ev_complete_later(struct io_ev *ev, struct io_op *op, ssize_t result);
/* Takes `fd` out of the epoll set although it stays open: in another process, or with our caller. */
void io_ev_poll_forget(struct io_ev *ev, int fd);
int io_ev_socket_nonblocking(int fd);

/* ---- io_ev_stream.c ---- */
MUST_USE int io_ev_stream_init(struct io_ev *ev);
void io_ev_stream_deinit(struct io_ev *ev);
void io_ev_stream_todo(struct io_ev *ev); /* what had to wait for this turn */
int io_ev_stream_open(struct io *io, struct io_stream *stream, int fd,
                      const struct io_stream_options *options, struct bytes rest);
int io_ev_stream_connect(struct io *io, struct io_stream *stream, const struct io_addr *addr,
                         const struct io_stream_options *options);
void io_ev_stream_resume(struct io *io, struct io_stream *stream);
void io_ev_stream_pause(struct io *io, struct io_stream *stream);
ssize_t io_ev_stream_send(struct io *io, struct io_stream *stream, const struct iovec *slices,
                          int count);
void io_ev_streams_send(struct io *io, struct io_send *sends, unsigned count);
void io_ev_stream_shutdown(struct io *io, struct io_stream *stream);
void io_ev_stream_close(struct io *io, struct io_stream *stream, bool is_abort);
int io_ev_stream_detach(struct io *io, struct io_stream *stream, char **rest, size_t *rest_len);
void io_ev_stream_peer(struct io *io, const struct io_stream *stream, struct io_addr *out);
void io_ev_stream_local(struct io *io, const struct io_stream *stream, struct io_addr *out);

/* ---- io_ev_socket.c ---- */
void io_ev_socket_init(struct io_ev *ev);
void io_ev_socket_deinit(struct io_ev *ev);
void io_ev_listener_start(struct io *io, struct io_listener *listener, int fd);
void io_ev_listener_stop(struct io *io, struct io_listener *listener);
void io_ev_watch_start(struct io *io, struct io_watch *watch, int fd, bool read, bool write);
void io_ev_watch_stop(struct io *io, struct io_watch *watch);

/* ---- io_ev_name.c ---- */
void io_ev_name_init(struct io_ev *ev);
MUST_USE int io_ev_name_start_threads(struct io_ev *ev);
void io_ev_name_deinit(struct io_ev *ev);
void io_ev_resolve_submit(struct io *io, struct io_resolve *resolve);
void io_ev_resolve_cancel(struct io *io, struct io_resolve *resolve);

/* ---- io_ev_shared.c ---- */
int io_ev_shared_map(struct io *io, const char *path, size_t size, void **addr, bool *existed);
int io_ev_shared_size(struct io *io, const char *path, size_t *size);
void io_ev_shared_why(struct io *io, const char *path, char *out, size_t size);
void io_ev_shared_unmap(struct io *io, void *addr, size_t size);
int io_ev_shared_remove(struct io *io, const char *path);
int io_ev_boot_id(struct io *io, unsigned char out[16]);

/* ---- io_ev_file.c ---- */
MUST_USE int io_ev_file_init(struct io_ev *ev, const struct io_ev_options *options);
void io_ev_file_deinit(struct io_ev *ev);
void io_ev_file_todo(struct io_ev *ev); /* as io_ev_stream_todo() */
void io_ev_file_before_wait(struct io_ev *ev);
void io_ev_file_submit_now(struct io *io);
bool io_ev_file_can_linger(const struct io_ev *ev);
void io_ev_file_open(struct io *io, struct io_op *op, const char *path, int flags,
                     struct io_file **out);
void io_ev_file_close(struct io *io, struct io_file *file);
void io_ev_file_submit(struct io *io, struct io_file *file, struct io_op *op, enum io_file_op kind,
                       void *data, size_t size, uint64_t off);
void io_ev_path_submit(struct io *io, struct io_op *op, enum io_path_op kind, const char *from,
                       const char *to);
void io_ev_touch(struct io *io, struct io_op *op, void *memory, size_t size);
void io_ev_list_submit(struct io *io, struct io_op *op, const char *path,
                       void (*each)(void *arg, const char *name), void *each_arg);
