/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io.h - the seam: everything that waits or varies.
 *
 * Accept, connect, receive, send, timers, files, name resolution, the clock, random numbers go
 * through `struct io`. A worker has one; the simulator makes one for each simulated process. Nothing
 * above this header touches a socket, a file, a clock or a global.
 *
 *     one turn of the loop
 *     wait -> stamp the clock -> accepts, receives, timers, completions -> turn hooks -> stamp -> wait
 *
 * Receive and accept are streams: armed once, called many times, paused and resumed. Everything else
 * is one caller-owned struct io_op that completes exactly once, from the loop, never from inside the
 * call that submitted it.
 *
 *   I1  No callback runs inside a call into io (a send or close never calls back). They run from the
 *       loop, one at a time.
 *   I2  After io_stream_close() no callback of that stream runs. The struct itself must stay in
 *       memory until the callback that is running has returned: free it from a turn hook.
 *   I3  Bytes lent to recv() are valid until it returns. What it did not consume is kept by io and
 *       lent again, in front of what follows.
 *   I4  A stream at rest (nothing unconsumed) holds no buffer.
 *   I5  An op belongs to io from submit to done; its buffers too.
 *
 * Units: _ms, _us say so; sizes are bytes. Errors are negative err.h codes (negative errno included).
 */
#pragma once
#include "common/base/base.h"
#include "common/base/bytes.h"
#include "common/base/err.h"
#include "common/base/list.h"

#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <netinet/in.h>

struct io;
struct log;

/* ---- addresses ---------------------------------------------------------------------------- */

struct io_addr {
    socklen_t len; /* 0: not set */
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    };
};

#define IO_ADDR_TEXT_MAX 128
/* "127.0.0.1:22121", "[::1]:22121" or "/path"; writes a NUL; returns out. */
char *io_addr_text(const struct io_addr *addr, char out[IO_ADDR_TEXT_MAX]);
/* Numeric host only: no look-up, never blocks. ERR_INVALID. */
MUST_USE int io_addr_parse(const char *host, uint16_t port, struct io_addr *out);
/* ERR_INVALID when the path is too long for a unix socket. */
MUST_USE int io_addr_unix(const char *path, struct io_addr *out);
bool io_addr_equal(const struct io_addr *a, const struct io_addr *b);
bool io_addr_is_loopback(const struct io_addr *addr); /* unix sockets are */

/* ---- the loop ----------------------------------------------------------------------------- */

/* Stamps of the turn: one clock read after the wait, none for a request. Monotonic. */
uint64_t io_now_us(const struct io *io);
uint64_t io_now_ms(const struct io *io);
/* Reads the clock now: for the end of a turn, for long work. */
uint64_t io_clock_us(struct io *io);
/* CPU time of the thread that asks, since it began: a system call. */
uint64_t io_cpu_us(struct io *io);
/* Microseconds since the epoch. May jump. */
uint64_t io_wall_us(struct io *io);
uint64_t io_random64(struct io *io);
struct log *io_log(const struct io *io); /* may be NULL */

/* A hook runs at the end of every turn in which anything happened, in the order of registration. This
 * is where dirty connections are flushed and closed objects freed. Hooks may submit anything; streams
 * that they make readable or ops they submit are handled in a later turn. */
struct io_hook {
    struct list_node node;
    void (*run)(struct io_hook *hook);
};
void io_hook_add(struct io *io, struct io_hook *hook);
void io_hook_remove(struct io *io, struct io_hook *hook);
/* Makes sure that another turn runs without waiting. */
void io_wake(struct io *io);

/* Work that goes on in steps, so that turns stay short: until when a step that begins now may go on. `step_us` at most; less
 * when the steps of this turn have had their share together (steps_us of the backend's options), but never nothing, so that
 * each gets on. Ended by io_step_end(); one at a time. */
uint64_t io_step_begin(struct io *io, uint32_t step_us);
void io_step_end(struct io *io);

/* Runs until io_stop(). In the simulator the scheduler does this. */
void io_run(struct io *io);
void io_stop(struct io *io);

/* ---- timers ------------------------------------------------------------------------------- */

struct io_timer {
    void (*fire)(struct io_timer *timer);
    void *arg;
    struct io *io;       /* NULL while not running */
    uint64_t private_[8];
};
/* One shot. Restarting a running timer moves it. `fire` and `arg` are set by the caller before. */
void io_timer_start(struct io *io, struct io_timer *timer, uint64_t delay_ms);
void io_timer_stop(struct io_timer *timer); /* also when not running */
static inline bool io_timer_is_running(const struct io_timer *timer)
{
    return timer->io != NULL;
}

/* ---- byte streams ------------------------------------------------------------------------- */

struct io_stream;

struct io_stream_handler {
    /* Lends all unconsumed bytes; returns how many are consumed (<= data.len). May set stream->need.
     * May close the stream (then the return value does not matter). */
    size_t (*recv)(struct io_stream *stream, struct bytes data);
    /* The peer will send no more (ERR_EOF: an orderly half-close; sending may go on), or the
     * connection is broken (any other error). Receiving is over; called once. `rest` is what recv()
     * left unconsumed. Close when ready. */
    void (*closed)(struct io_stream *stream, int err, struct bytes rest);
    /* After a short io_stream_send(): there is room again. */
    void (*writable)(struct io_stream *stream);
    /* The end of io_stream_connect(). err != 0: the stream is closed by io already. NULL if unused. */
    void (*connected)(struct io_stream *stream, int err);
    /* A hint, NULL if unused: recv() of these bytes (and maybe more) comes soon, after that of other streams. For
     * asking for memory that it will need; must change nothing. The simulator has no such foresight. */
    void (*ahead)(struct io_stream *stream, struct bytes data);
};

struct io_stream {
    const struct io_stream_handler *handler;
    struct io *io; /* NULL while closed */
    int fd;        /* the simulator gives its own numbers */
    uint8_t state_, recv_paused_, want_write_, eof_;
    /* recv() is not called before this many bytes are there (0: any). Reset to 0 before each call. A
     * parser that knows the size of the frame sets it, so that a slow sender costs no rescans. */
    uint32_t need;
    uint32_t rest_off_, rest_len_, rest_cap_;
    char *rest_; /* owns: the unconsumed bytes are [rest_off_, rest_off_ + rest_len_) */
    uint64_t private_[3];
};

static inline bool io_stream_is_open(const struct io_stream *stream)
{
    return stream->io != NULL;
}

/* Bytes of memory for what recv() has left. */
static inline uint32_t io_stream_kept(const struct io_stream *stream)
{
    return stream->rest_cap_;
}

/* Bytes received that its user has not taken, also while it waits for more of them. */
static inline uint32_t io_stream_received(const struct io_stream *stream)
{
    return stream->rest_len_;
}

/* How the kernel should treat the socket. */
struct io_stream_options {
    bool nodelay;                 /* TCP_NODELAY; ignored on unix sockets */
    bool keepalive;
    uint32_t user_timeout_ms;     /* TCP_USER_TIMEOUT; 0: the system's */
};

/* Takes over a connected, accepted descriptor (the callee owns it also on error). The stream starts
 * paused: arm it with io_stream_resume(). `rest` (may be empty) is copied and lent before what the
 * socket brings: for connections handed over from another process. */
MUST_USE int io_stream_open(struct io *io, struct io_stream *stream,
                            const struct io_stream_handler *handler, int fd,
                            const struct io_stream_options *options, struct bytes rest);
/* Starts to connect; connected() tells. Errors at once: -errno of socket(), then nothing is open. As
 * above the stream starts paused; it may be resumed at once. A send before connected() takes 0 bytes. */
MUST_USE int io_stream_connect(struct io *io, struct io_stream *stream,
                               const struct io_stream_handler *handler, const struct io_addr *addr,
                               const struct io_stream_options *options);
/* Also lends what is kept, in this or the next turn. In its own recv(), behind a pause: in the next one, after what other
 * streams have got by then, and receives no more before. */
void io_stream_resume(struct io_stream *stream);
void io_stream_pause(struct io_stream *stream);
bool io_stream_is_paused(const struct io_stream *stream);

/* Sends what fits now, from `count` slices, without copying and without blocking. Returns how many
 * bytes went (0 is possible); when fewer than all, writable() is called once there is room. A negative
 * error: the connection is broken; closed() will NOT be called for it. */
MUST_USE ssize_t io_stream_send(struct io_stream *stream, const struct iovec *slices, int count);

/* The same for several streams, each in it once: one system call where there can be one for all. */
struct io_send {
    struct io_stream *stream;
    const struct iovec *slices; /* borrows */
    int count;
    ssize_t sent;               /* out: as io_stream_send() returns */
};
void io_streams_send(struct io *io, struct io_send *sends, unsigned count);
/* No more sends; the peer sees EOF after what was sent. */
void io_stream_shutdown(struct io_stream *stream);
/* Forgets the stream: no callback after this. Unsent kernel bytes still go out. Idempotent. */
void io_stream_close(struct io_stream *stream);
/* As close, but the peer gets RST. */
void io_stream_abort(struct io_stream *stream);
/* Gives the descriptor and the unconsumed bytes to the caller (who mem_free()s *rest_data, may be
 * NULL) and forgets the stream. Inside recv() all the bytes that it was lent count as unconsumed.
 * -1: no memory for them; the stream is closed then. */
int io_stream_detach(struct io_stream *stream, char **rest_data, size_t *rest_len);
/* The peer's address and our own; len 0 when unknown. */
void io_stream_peer(const struct io_stream *stream, struct io_addr *out);
void io_stream_local(const struct io_stream *stream, struct io_addr *out);

/* ---- listeners ---------------------------------------------------------------------------- */

/* The descriptor is the caller's (the master made it); io only accepts from it. */
struct io_listener {
    /* The callee owns fd. */
    void (*accepted)(struct io_listener *listener, int fd, const struct io_addr *peer);
    void *arg;
    struct io *io; /* NULL while stopped */
    int fd;
    uint8_t is_exclusive; /* several processes share the socket: EPOLLEXCLUSIVE where possible */
    uint64_t private_[10];
};
/* accept4() until EAGAIN, at most 64 a turn. On EMFILE/ENFILE it pauses for 100 ms by itself. */
void io_listener_start(struct io *io, struct io_listener *listener, int fd);
void io_listener_stop(struct io_listener *listener); /* does not close fd; also when stopped */

/* ---- descriptors of other kinds (channels to the master) ------------------------------------ */

struct io_watch {
    void (*ready)(struct io_watch *watch, bool readable, bool writable);
    void *arg;
    struct io *io;
    int fd;
    uint64_t private_[7];
};
void io_watch_start(struct io *io, struct io_watch *watch, int fd, bool read, bool write);
void io_watch_stop(struct io_watch *watch);

/* ---- operations that complete once -------------------------------------------------------- */

/* Zeroed by the caller before the first use; may be used again once done() runs. */
struct io_op {
    void (*done)(struct io_op *op); /* set by the caller */
    void *arg;                      /* the caller's */
    ssize_t result;                 /* >= 0, or a negative error */
    struct list_node node_;
    uint64_t private_[12];
};

/* This turn is followed by a wait for operations on files alone, until one ends, `us` microseconds at most: what streams
 * receive meanwhile is gathered for one turn. `is_turn`: after it there is a turn in any case. Of several that
 * ask the shortest counts. For callers whose streams can do nothing useful before. False: it cannot be done here, nothing
 * follows. */
bool io_linger(struct io *io, uint32_t us, bool is_turn);

/* What was asked of files so far goes to the kernel now, not behind the turn's hooks: for who counts what a turn takes. Nothing where
 * a wait follows, which does it. */
void io_submit(struct io *io);

/* Whoever else wants this core may have it at the end of this turn, if it was ours for a quarter of a millisecond. For work
 * that goes on turn after turn without a wait: a client on the same core would get to it only when the scheduler takes it
 * away, milliseconds later. */
void io_yield(struct io *io);

/* Names: runs getaddrinfo() off the loop. result = count of addresses in `addrs` (room for addr_max).
 * host and service are copied. */
struct io_resolve {
    struct io_op op;
    struct io *io;         /* NULL while no look-up runs */
    struct io_addr *addrs; /* borrows until done */
    uint32_t addr_max;
    char host[256];
    uint16_t port;
};
void io_resolve_submit(struct io *io, struct io_resolve *resolve);
/* done() will not be called; the op may be reused only after *canceled* says so: the op is detached,
 * and its struct may be freed at once. */
void io_resolve_cancel(struct io_resolve *resolve);

/* Files. Paths are relative to the directory that the io was created with, or absolute. A file is a
 * small handle that io owns. Reads and writes of full length (result is `size`) or an error: short
 * ones are continued inside; a read that meets the end of the file before is ERR_EOF. Closing a file
 * is allowed while ops are under way: it takes effect after them. Concurrent ops on one file have no order among each other: a flush covers exactly the writes
 * whose done() ran before it was submitted. */
struct io_file;
enum io_file_flags {
    IO_FILE_READ = 1, IO_FILE_WRITE = 2, IO_FILE_CREATE = 4, IO_FILE_EXCLUSIVE = 8,
    IO_FILE_TRUNCATE = 16, IO_FILE_DIRECT = 32, IO_FILE_APPEND = 64,
};
/* IO_FILE_DIRECT is dropped where the file system does not know it. */
void io_file_open(struct io *io, struct io_op *op, const char *path, int flags,
                  struct io_file **out); /* result 0; *out owned by the caller */
void io_file_close(struct io_file *file);
void io_file_read(struct io_file *file, struct io_op *op, void *data, size_t size, uint64_t off);
void io_file_write(struct io_file *file, struct io_op *op, const void *data, size_t size, uint64_t off);
/* The same, and once done() says so this write is durable (RWF_DSYNC). It says nothing of any other. */
void io_file_write_durable(struct io_file *file, struct io_op *op, const void *data, size_t size, uint64_t off);
void io_file_datasync(struct io_file *file, struct io_op *op);
void io_file_allocate(struct io_file *file, struct io_op *op, uint64_t off, uint64_t size);
void io_file_truncate(struct io_file *file, struct io_op *op, uint64_t size);
void io_file_size(struct io_file *file, struct io_op *op); /* result */
void io_file_links(struct io_file *file, struct io_op *op); /* result: how many names it has */
/* result: bytes that its file system has left for files of ours; of one that does not say, ERR_UNSUPPORTED. */
void io_file_space(struct io_file *file, struct io_op *op);
/* The file is this handle's alone until it is closed, or its process has died and all that it had submitted has ended.
 * -EWOULDBLOCK: another one's. */
void io_file_lock(struct io_file *file, struct io_op *op);
void io_rename(struct io *io, struct io_op *op, const char *from, const char *to);
void io_unlink(struct io *io, struct io_op *op, const char *path);
void io_link(struct io *io, struct io_op *op, const char *from, const char *to);
void io_mkdir(struct io *io, struct io_op *op, const char *path);
/* Makes creations, renames and unlinks in the directory durable. */
void io_dirsync(struct io *io, struct io_op *op, const char *path);
/* Calls each(arg, name) for every entry but . and .., from the loop, before done(). */
void io_list(struct io *io, struct io_op *op, const char *path,
             void (*each)(void *arg, const char *name), void *each_arg);

/* ---- memory that is there --------------------------------------------------------------------- */

/* Writes a zero into every page of memory that nobody uses meanwhile, off the loop: the first touch of memory can take the
 * system milliseconds. result: microseconds of processor time that it took; ERR_UNSUPPORTED: nothing was touched. */
void io_touch(struct io *io, struct io_op *op, void *memory, size_t size);

/* ---- memory that outlives the process ------------------------------------------------------- */

/* Maps a file of shared memory, of ours alone (0600), made and zeroed if there is none of this size. It survives the
 * death of every process, not of the host. A multiple of 4096 bytes. For the start: it may block.
 * Errors: ERR_EXISTS: what has the name is another user's, or open to others, or no file: it is left alone; -errno. */
MUST_USE int io_shared_map(struct io *io, const char *path, size_t size, void **addr,
                           bool *existed);
/* The size of what is there: io_shared_map() would find it, if it is a multiple of 4096. Errors: -ENOENT: nothing is, or it
 * is empty; as it has. */
MUST_USE int io_shared_size(struct io *io, const char *path, size_t *size);
/* After ERR_EXISTS: what is there, and what is wanted, in words. */
void io_shared_why(struct io *io, const char *path, char *out, size_t size);
void io_shared_unmap(struct io *io, void *addr, size_t size);
/* The next map finds none. What is mapped stays valid until it is unmapped. Errors: -errno. */
int io_shared_remove(struct io *io, const char *path);
/* Another one after each start of the host. */
MUST_USE int io_boot_id(struct io *io, unsigned char out[16]);
