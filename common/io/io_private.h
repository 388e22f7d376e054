/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_private.h - what the backends of io.h (io_ev, io_sim) share. Siblings only.
 *
 * A backend embeds `struct io` first and fills in one table of functions; io.c checks arguments,
 * dispatches, and runs the turn hooks. The words named `private_` and `state_` in the public structs
 * are the backend's, as long as the struct's `io` is set. A backend sets and clears `io` itself.
 *
 * The backend's duties in a turn: io_turn_stamp() after the wait, io_turn_mark() in every callback,
 * io_turn_end() before the next wait.
 */
#pragma once
#include "common/io/io.h"

enum io_file_op {
    IO_OP_READ, IO_OP_WRITE, IO_OP_WRITE_DURABLE, IO_OP_DATASYNC, IO_OP_ALLOCATE, IO_OP_TRUNCATE, IO_OP_SIZE, IO_OP_LINKS,
    IO_OP_SPACE, IO_OP_LOCK,
};
enum io_path_op { IO_OP_RENAME, IO_OP_UNLINK, IO_OP_LINK, IO_OP_MKDIR, IO_OP_DIRSYNC };

struct io_vtable {
    uint64_t (*clock_us)(struct io *io);
    uint64_t (*cpu_us)(struct io *io);
    uint64_t (*wall_us)(struct io *io);
    uint64_t (*random64)(struct io *io);
    void (*wake)(struct io *io);
    bool (*linger)(struct io *io, uint32_t us, bool is_turn);
    void (*submit)(struct io *io); /* may be NULL */
    void (*yield)(struct io *io);  /* may be NULL */
    void (*run)(struct io *io);
    void (*stop)(struct io *io);

    void (*timer_start)(struct io *io, struct io_timer *timer, uint64_t delay_ms);
    void (*timer_stop)(struct io *io, struct io_timer *timer);

    int (*stream_open)(struct io *io, struct io_stream *stream, int fd,
                       const struct io_stream_options *options, struct bytes rest);
    int (*stream_connect)(struct io *io, struct io_stream *stream, const struct io_addr *addr,
                          const struct io_stream_options *options);
    void (*stream_resume)(struct io *io, struct io_stream *stream);
    void (*stream_pause)(struct io *io, struct io_stream *stream);
    ssize_t (*stream_send)(struct io *io, struct io_stream *stream, const struct iovec *slices,
                           int count);
    /* NULL: one by one */
    void (*streams_send)(struct io *io, struct io_send *sends, unsigned count);
    void (*stream_shutdown)(struct io *io, struct io_stream *stream);
    void (*stream_close)(struct io *io, struct io_stream *stream, bool is_abort);
    int (*stream_detach)(struct io *io, struct io_stream *stream, char **rest, size_t *rest_len);
    void (*stream_peer)(struct io *io, const struct io_stream *stream, struct io_addr *out);
    void (*stream_local)(struct io *io, const struct io_stream *stream, struct io_addr *out);

    void (*listener_start)(struct io *io, struct io_listener *listener, int fd);
    void (*listener_stop)(struct io *io, struct io_listener *listener);
    void (*watch_start)(struct io *io, struct io_watch *watch, int fd, bool read, bool write);
    void (*watch_stop)(struct io *io, struct io_watch *watch);

    void (*resolve_submit)(struct io *io, struct io_resolve *resolve);
    void (*resolve_cancel)(struct io *io, struct io_resolve *resolve);

    void (*file_open)(struct io *io, struct io_op *op, const char *path, int flags,
                      struct io_file **out);
    void (*file_close)(struct io *io, struct io_file *file);
    /* `data` is read into or written from; what an op does not use is 0. */
    void (*file_submit)(struct io *io, struct io_file *file, struct io_op *op, enum io_file_op kind,
                        void *data, size_t size, uint64_t off);
    void (*path_submit)(struct io *io, struct io_op *op, enum io_path_op kind, const char *from,
                        const char *to);
    void (*list_submit)(struct io *io, struct io_op *op, const char *path,
                        void (*each)(void *arg, const char *name), void *each_arg);

    void (*touch)(struct io *io, struct io_op *op, void *memory, size_t size);

    int (*shared_map)(struct io *io, const char *path, size_t size, void **addr, bool *existed);
    int (*shared_size)(struct io *io, const char *path, size_t *size);
    void (*shared_why)(struct io *io, const char *path, char *out, size_t size);
    void (*shared_unmap)(struct io *io, void *addr, size_t size);
    int (*shared_remove)(struct io *io, const char *path);
    int (*boot_id)(struct io *io, unsigned char out[16]);
};

struct io {
    const struct io_vtable *vtable;
    uint64_t now_us;             /* the turn's stamp */
    uint64_t now_ms;
    struct list hooks;
    struct list_node *hook_next; /* while hooks run: so that a hook may remove any other */
    struct log *log;             /* borrows; may be NULL */
    bool has_happened;           /* something ran since the hooks did */
    uint32_t steps_us;           /* the share of the steps in a turn, together; 0: no bound */
    uint64_t steps_turn_us;      /* the stamp of the turn in which they took */
    uint64_t steps_used_us;      /* so long */
    uint64_t step_begun_us;      /* of the one under way */
    bool is_stepping;
};

/* A file of any backend begins with this. */
struct io_file {
    struct io *io;
};

void io_init(struct io *io, const struct io_vtable *vtable, struct log *log);

static inline void io_turn_stamp(struct io *io, uint64_t now_us)
{
    io->now_us = now_us;
    io->now_ms = now_us / 1000;
}

static inline void io_turn_mark(struct io *io)
{
    io->has_happened = true;
}

/* Runs the hooks if anything happened since they last ran. */
void io_turn_end(struct io *io);
