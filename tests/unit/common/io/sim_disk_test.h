/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_disk_test.h - one world, one node, and one op at a time on its disk.
 */
#pragma once
#include "tests/unit/test.h"

#include "common/io/io_sim_disk.h"

#define SECOND 1000000u
#define RW     (IO_FILE_READ | IO_FILE_WRITE)
#define SECTOR 512

struct world {
    struct sim *sim;
    struct sim_node *node;
    struct io *io;
};

struct call {
    struct io_op op;
    bool is_done;
};

static inline void call_done(struct io_op *op)
{
    CONTAINER_OF(op, struct call, op)->is_done = true;
}

static inline void world_start(struct world *world, uint64_t seed,
                               const struct sim_options *options)
{
    world->sim = sim_create(seed, options);
    world->node = sim_node_create(world->sim, "disk");
    world->io = sim_node_io(world->node);
}

static inline void world_end(struct world *world)
{
    sim_destroy(&world->sim);
}

static inline void world_power_cut(struct world *world)
{
    sim_node_power_cut(world->node);
    world->io = sim_node_start(world->node);
}

static inline ssize_t wait_for(struct world *world, struct call *call)
{
    assert_false(call->is_done); /* never from inside of the call */
    assert_true(sim_run_while_not(world->sim, &call->is_done, 1000 * (uint64_t)SECOND));
    return call->op.result;
}

#define CALL() {.op.done = call_done}

static inline ssize_t try_open(struct world *world, const char *path, int flags,
                               struct io_file **out)
{
    struct call call = CALL();

    io_file_open(world->io, &call.op, path, flags, out);
    return wait_for(world, &call);
}

static inline struct io_file *file_open(struct world *world, const char *path, int flags)
{
    struct io_file *file = NULL;

    assert_int_equal(try_open(world, path, flags, &file), 0);
    assert_non_null(file);
    return file;
}

static inline ssize_t file_write(struct world *world, struct io_file *file, const void *data,
                                 size_t size, uint64_t off)
{
    struct call call = CALL();

    io_file_write(file, &call.op, data, size, off);
    return wait_for(world, &call);
}

static inline ssize_t file_read(struct world *world, struct io_file *file, void *data, size_t size,
                                uint64_t off)
{
    struct call call = CALL();

    io_file_read(file, &call.op, data, size, off);
    return wait_for(world, &call);
}

static inline ssize_t file_sync(struct world *world, struct io_file *file)
{
    struct call call = CALL();

    io_file_datasync(file, &call.op);
    return wait_for(world, &call);
}

static inline ssize_t file_size(struct world *world, struct io_file *file)
{
    struct call call = CALL();

    io_file_size(file, &call.op);
    return wait_for(world, &call);
}

static inline ssize_t file_truncate(struct world *world, struct io_file *file, uint64_t size)
{
    struct call call = CALL();

    io_file_truncate(file, &call.op, size);
    return wait_for(world, &call);
}

static inline ssize_t file_allocate(struct world *world, struct io_file *file, uint64_t off,
                                    uint64_t size)
{
    struct call call = CALL();

    io_file_allocate(file, &call.op, off, size);
    return wait_for(world, &call);
}

enum path_call { RENAME, UNLINK, LINK, MKDIR, DIRSYNC };

static inline ssize_t path_call(struct world *world, enum path_call kind, const char *from,
                                const char *to)
{
    struct call call = CALL();

    switch (kind) {
    case RENAME:
        io_rename(world->io, &call.op, from, to);
        break;
    case UNLINK:
        io_unlink(world->io, &call.op, from);
        break;
    case LINK:
        io_link(world->io, &call.op, from, to);
        break;
    case MKDIR:
        io_mkdir(world->io, &call.op, from);
        break;
    case DIRSYNC:
        io_dirsync(world->io, &call.op, from);
        break;
    }
    return wait_for(world, &call);
}
