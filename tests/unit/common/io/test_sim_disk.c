/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated disk as a file system; what a power cut leaves of it: test_sim_disk_cut.c.
 */
#include "tests/unit/common/io/sim_disk_test.h"

#include "common/base/mem.h"

/* ---- as a file system does ----------------------------------------------------------------- */

static void test_write_read_size_truncate(void **state)
{
    struct world world;
    struct io_file *file;
    char data[64];

    (void)state;
    world_start(&world, 1, NULL);
    file = file_open(&world, "a", RW | IO_FILE_CREATE);
    assert_int_equal(file_size(&world, file), 0);
    assert_int_equal(file_write(&world, file, "hello", 5, 3), 5);
    assert_int_equal(file_size(&world, file), 8);
    assert_int_equal(file_read(&world, file, data, 8, 0), 8);
    assert_memory_equal(data, "\0\0\0hello", 8);
    assert_int_equal(file_read(&world, file, data, 9, 0), ERR_EOF);
    assert_int_equal(file_write(&world, file, "far", 3, 100000), 3);
    assert_int_equal(file_read(&world, file, data, 4, 50000), 4);
    assert_memory_equal(data, "\0\0\0\0", 4);
    assert_int_equal(file_truncate(&world, file, 5), 0);
    assert_int_equal(file_truncate(&world, file, 7), 0);
    assert_int_equal(file_read(&world, file, data, 7, 0), 7);
    assert_memory_equal(data, "\0\0\0he\0\0", 7); /* what was cut off does not come back */
    io_file_close(file);
    file = file_open(&world, "/./a", RW | IO_FILE_TRUNCATE);
    assert_int_equal(file_size(&world, file), 0);
    io_file_close(file);
    world_end(&world);
}

static void test_errors_are_the_systems(void **state)
{
    struct world world;
    struct io_file *file;
    char data[SECTOR] = {0};

    (void)state;
    world_start(&world, 1, NULL);
    assert_int_equal(try_open(&world, "a", RW, &file), -ENOENT);
    assert_int_equal(try_open(&world, "d/a", RW | IO_FILE_CREATE, &file), -ENOENT);
    assert_int_equal(path_call(&world, MKDIR, "d", NULL), 0);
    assert_int_equal(path_call(&world, MKDIR, "d", NULL), -EEXIST);
    assert_int_equal(try_open(&world, "d", RW, &file), -EISDIR);
    file = file_open(&world, "d/a", IO_FILE_WRITE | IO_FILE_CREATE);
    assert_int_equal(try_open(&world, "d/a", RW | IO_FILE_CREATE | IO_FILE_EXCLUSIVE, &file),
                     -EEXIST);
    assert_null(file);
    assert_int_equal(try_open(&world, "d/a/b", RW | IO_FILE_CREATE, &file), -ENOTDIR);
    file = file_open(&world, "d/a", IO_FILE_WRITE);
    assert_int_equal(file_read(&world, file, data, 1, 0), -EBADF);
    io_file_close(file);
    file = file_open(&world, "d/a", IO_FILE_READ);
    assert_int_equal(file_write(&world, file, data, 1, 0), -EBADF);
    io_file_close(file);
    file = file_open(&world, "d/a", RW | IO_FILE_DIRECT);
    assert_int_equal(file_write(&world, file, data, 100, 0), -EINVAL);
    io_file_close(file);
    assert_int_equal(path_call(&world, UNLINK, "nope", NULL), -ENOENT);
    assert_int_equal(path_call(&world, RENAME, "nope", "x"), -ENOENT);
    assert_int_equal(path_call(&world, DIRSYNC, "d/a", NULL), -ENOTDIR);
    world_end(&world);
}

struct listing {
    char text[256];
};

static void list_each(void *arg, const char *name)
{
    struct listing *listing = arg;
    size_t len = strlen(listing->text);

    assert_true(len + strlen(name) + 2 < sizeof(listing->text));
    memcpy(listing->text + len, name, strlen(name));
    listing->text[len + strlen(name)] = ' ';
}

static void test_names(void **state)
{
    struct world world;
    struct listing listing = {{0}};
    struct call call = CALL();
    struct io_file *file;
    char data[4];

    (void)state;
    world_start(&world, 1, NULL);
    sim_disk_mkdir(world.node, "/x/y");
    sim_disk_put(world.node, "x/one", BYTES("1"));
    sim_disk_put(world.node, "x/y/deep", BYTES("deep"));
    assert_int_equal(path_call(&world, LINK, "x/one", "x/two"), 0);
    assert_int_equal(path_call(&world, LINK, "x/one", "x/two"), -EEXIST);
    assert_int_equal(path_call(&world, RENAME, "x/one", "x/three"), 0);
    io_list(world.io, &call.op, "x", list_each, &listing);
    assert_int_equal(wait_for(&world, &call), 0);
    assert_int_equal(strlen(listing.text), strlen("two three y "));
    assert_non_null(strstr(listing.text, "two "));
    assert_non_null(strstr(listing.text, "three "));
    assert_non_null(strstr(listing.text, "y "));
    /* A file without a name lives while it is open. */
    file = file_open(&world, "x/two", IO_FILE_READ);
    assert_int_equal(path_call(&world, UNLINK, "x/two", NULL), 0);
    assert_int_equal(path_call(&world, UNLINK, "x/three", NULL), 0);
    assert_int_equal(file_read(&world, file, data, 1, 0), 1);
    assert_int_equal(data[0], '1');
    assert_int_equal(sim_disk_size(world.node, "x/two", false), -ENOENT);
    io_file_close(file);
    world_end(&world);
}

static void test_append_goes_to_the_end(void **state)
{
    struct world world;
    struct io_file *file;
    char data[6];

    (void)state;
    world_start(&world, 1, NULL);
    file = file_open(&world, "a", RW | IO_FILE_CREATE | IO_FILE_APPEND);
    assert_int_equal(file_write(&world, file, "abc", 3, 0), 3);
    assert_int_equal(file_write(&world, file, "def", 3, 0), 3);
    assert_int_equal(file_read(&world, file, data, 6, 0), 6);
    assert_memory_equal(data, "abcdef", 6);
    io_file_close(file);
    world_end(&world);
}

/* Closed while ops are under way: they complete. */
static void test_close_waits_for_ops(void **state)
{
    struct world world;
    struct io_file *file;
    struct call call = CALL();

    (void)state;
    world_start(&world, 1, NULL);
    file = file_open(&world, "a", RW | IO_FILE_CREATE);
    io_file_write(file, &call.op, "abc", 3, 0);
    io_file_close(file);
    assert_int_equal(wait_for(&world, &call), 3);
    assert_int_equal(sim_disk_size(world.node, "a", false), 3);
    world_end(&world);
}

/* ---- processes ----------------------------------------------------------------------------- */

/* kill -9 loses nothing that was written, not even what was only submitted. */
static void test_kill_keeps_what_was_written(void **state)
{
    struct world world;
    struct io_file *file, *other;
    struct call call = CALL(), opening = CALL();
    char *data = must_strdup("def"), got[6];

    (void)state;
    world_start(&world, 1, NULL);
    file = file_open(&world, "f", RW | IO_FILE_CREATE);
    assert_int_equal(file_write(&world, file, "abc", 3, 0), 3);
    io_file_write(file, &call.op, data, 3, 3);
    io_file_open(world.io, &opening.op, "g", RW | IO_FILE_CREATE, &other);
    sim_node_kill(world.node);
    mem_free(data); /* the process's memory is gone */
    io_file_close(file);
    assert_true(sim_run_idle(world.sim, SECOND));
    assert_false(call.is_done || opening.is_done);
    assert_int_equal(sim_disk_peek(world.node, "f", false, got, 6, 0), 6);
    assert_memory_equal(got, "abcdef", 6);
    assert_int_equal(sim_disk_size(world.node, "g", false), 0);
    world.io = sim_node_start(world.node);
    file = file_open(&world, "f", IO_FILE_READ);
    assert_int_equal(file_size(&world, file), 6);
    world_end(&world); /* open handles are freed with the world */
}

static void scribble(void *arg)
{
    struct world world;
    struct io_file *file;
    struct call call = CALL();
    char data[3] = "abc";

    (void)arg;
    world_start(&world, 1, NULL);
    file = file_open(&world, "f", RW | IO_FILE_CREATE);
    io_file_write(file, &call.op, data, 3, 0);
    data[1] = 'x';
    MAYBE(wait_for(&world, &call));
}

/* From submit to done the buffer is io's (io.h, I5). */
static void test_a_buffer_changed_under_way_is_a_bug(void **state)
{
    (void)state;
    assert_true(test_aborts(scribble, NULL));
}

/* ---- full, broken, damaged ----------------------------------------------------------------- */

static void test_a_full_disk(void **state)
{
    struct sim_options options;
    struct world world;
    struct io_file *file, *other;
    char data[4096];

    (void)state;
    sim_options_calm(&options);
    options.disk.capacity = 10 * 4096;
    memset(data, 'x', sizeof(data));
    world_start(&world, 1, &options);
    file = file_open(&world, "f", RW | IO_FILE_CREATE);
    other = file_open(&world, "g", RW | IO_FILE_CREATE);
    assert_int_equal(file_allocate(&world, file, 0, 8 * 4096), 0);
    assert_int_equal(file_size(&world, file), 8 * 4096);
    assert_int_equal(sim_disk_used(world.node), 8 * 4096);
    assert_int_equal(file_write(&world, other, data, sizeof(data), 0), sizeof(data));
    assert_int_equal(file_write(&world, other, data, sizeof(data), 4096), sizeof(data));
    assert_int_equal(file_write(&world, other, data, sizeof(data), 2 * 4096), -ENOSPC);
    assert_int_equal(file_write(&world, other, data, sizeof(data), 0), sizeof(data)); /* again */
    assert_int_equal(file_write(&world, file, data, sizeof(data), 7 * 4096), sizeof(data));
    assert_int_equal(file_allocate(&world, file, 0, 9 * 4096), -ENOSPC);
    assert_int_equal(path_call(&world, MKDIR, "d", NULL), -ENOSPC);
    assert_int_equal(path_call(&world, UNLINK, "f", NULL), 0);
    assert_int_equal(file_write(&world, other, data, sizeof(data), 2 * 4096), -ENOSPC);
    io_file_close(file); /* now the space is free */
    assert_int_equal(file_write(&world, other, data, sizeof(data), 2 * 4096), sizeof(data));
    assert_int_equal(sim_disk_used(world.node), 3 * 4096);
    assert_int_equal(file_truncate(&world, other, 1), 0);
    assert_int_equal(sim_disk_used(world.node), 4096);
    io_file_close(other);
    world_end(&world);
}

static void test_errors_on_order(void **state)
{
    struct world world;
    struct io_file *file, *other;
    char data[4];

    (void)state;
    world_start(&world, 1, NULL);
    sim_disk_put(world.node, "f", BYTES("data"));
    sim_disk_put(world.node, "g", BYTES("data"));
    file = file_open(&world, "f", RW);
    other = file_open(&world, "g", RW);
    sim_disk_fail(world.node, SIM_DISK_READ, "f", -EIO, 2);
    assert_int_equal(file_read(&world, other, data, 4, 0), 4);
    assert_int_equal(file_read(&world, file, data, 4, 0), -EIO);
    assert_int_equal(file_read(&world, file, data, 4, 0), -EIO);
    assert_int_equal(file_read(&world, file, data, 4, 0), 4);
    sim_disk_fail(world.node, SIM_DISK_RENAME, NULL, -ENOSPC, 1);
    assert_int_equal(path_call(&world, RENAME, "f", "h"), -ENOSPC);
    assert_int_equal(path_call(&world, RENAME, "f", "h"), 0);
    sim_disk_fail(world.node, SIM_DISK_WRITE, "h", -EIO, 1); /* by its name of now */
    assert_int_equal(file_write(&world, file, "x", 1, 0), -EIO);
    io_file_close(file);
    io_file_close(other);
    world_end(&world);
}

static void test_damage(void **state)
{
    struct world world;
    struct io_file *file;
    char data[4];

    (void)state;
    world_start(&world, 1, NULL);
    sim_disk_put(world.node, "f", BYTES("0123456789"));
    file = file_open(&world, "f", RW);
    sim_disk_flip_bit(world.node, "f", 2, 0);
    assert_int_equal(file_read(&world, file, data, 4, 0), 4);
    assert_memory_equal(data, "0133", 4);
    sim_disk_overwrite(world.node, "f", 0, BYTES("ZZ"));
    sim_disk_misdirect_read(world.node, "f", 6);
    assert_int_equal(file_read(&world, file, data, 4, 0), 4);
    assert_memory_equal(data, "6789", 4);
    assert_int_equal(file_read(&world, file, data, 4, 0), 4);
    assert_memory_equal(data, "ZZ33", 4);
    sim_disk_stale_mark(world.node, "f");
    sim_disk_misdirect_write(world.node, "f", 4);
    assert_int_equal(file_write(&world, file, "ab", 2, 0), 2);
    assert_int_equal(file_read(&world, file, data, 4, 3), 4);
    assert_memory_equal(data, "3ab6", 4);
    sim_disk_stale_reads(world.node, "f", 1);
    assert_int_equal(file_read(&world, file, data, 4, 3), 4);
    assert_memory_equal(data, "3456", 4);
    assert_int_equal(file_read(&world, file, data, 4, 3), 4);
    assert_memory_equal(data, "3ab6", 4);
    sim_disk_cut_file(world.node, "f", 5);
    assert_int_equal(file_size(&world, file), 5);
    io_file_close(file);
    world_power_cut(&world);
    assert_int_equal(sim_disk_peek(world.node, "f", false, data, 4, 0), 4);
    assert_memory_equal(data, "ZZ33", 4); /* the medium itself is damaged */
    world_end(&world);
}

static void test_old_images_and_empty_disks(void **state)
{
    struct world world;
    struct sim_disk_copy *copy;
    struct io_file *file;
    char data[3];

    (void)state;
    world_start(&world, 1, NULL);
    sim_disk_mkdir(world.node, "d");
    sim_disk_put(world.node, "d/f", BYTES("one"));
    copy = sim_disk_copy_create(world.node);
    sim_disk_put(world.node, "d/f", BYTES("two"));
    sim_disk_put(world.node, "d/g", BYTES("two"));
    sim_node_kill(world.node);
    sim_disk_copy_restore(world.node, copy);
    sim_disk_copy_destroy(&copy);
    assert_int_equal(sim_disk_peek(world.node, "d/f", false, data, 3, 0), 3);
    assert_memory_equal(data, "one", 3);
    assert_int_equal(sim_disk_size(world.node, "d/g", true), -ENOENT);
    sim_disk_wipe(world.node);
    assert_int_equal(sim_disk_size(world.node, "d/f", true), -ENOENT);
    assert_int_equal(sim_disk_used(world.node), 0);
    world.io = sim_node_start(world.node);
    file = file_open(&world, "f", RW | IO_FILE_CREATE);
    io_file_close(file);
    world_end(&world);
}

/* What is pending is bounded: the kernel writes the oldest back. */
static void test_pending_is_bounded(void **state)
{
    struct sim_options options;
    struct world world;
    struct io_file *file;
    char data[4096];

    (void)state;
    sim_options_calm(&options);
    options.disk.pending_max = 8 * 4096;
    memset(data, 'x', sizeof(data));
    world_start(&world, 1, &options);
    sim_disk_put(world.node, "f", BYTES(""));
    file = file_open(&world, "f", RW);
    for (uint64_t i = 0; i < 20; i++)
        assert_int_equal(file_write(&world, file, data, sizeof(data), i * 4096), sizeof(data));
    assert_int_equal(sim_disk_pending(world.node), 8 * 4096);
    assert_int_equal(sim_disk_size(world.node, "f", true), 12 * 4096);
    sim_disk_sync(world.node);
    assert_int_equal(sim_disk_pending(world.node), 0);
    assert_int_equal(sim_disk_size(world.node, "f", true), 20 * 4096);
    io_file_close(file);
    world_end(&world);
}

/* ---- swarm --------------------------------------------------------------------------------- */

#define SWARM_FILES 3
#define SWARM_OPS   16

struct swarm {
    struct world world;
    struct io_file *files[SWARM_FILES];
    struct swarm_op {
        struct call call; /* first */
        char data[3000];
        bool is_used;
    } ops[SWARM_OPS];
};

static void swarm_step(struct swarm *swarm, struct swarm_op *op)
{
    struct sim *sim = swarm->world.sim;
    struct io_file *file = swarm->files[sim_random_below(sim, SIM_RANDOM_WORKLOAD, SWARM_FILES)];
    uint64_t off = sim_random_below(sim, SIM_RANDOM_WORKLOAD, 20000);
    size_t size = 1 + sim_random_below(sim, SIM_RANDOM_WORKLOAD, sizeof(op->data) - 1);
    char path[2] = {(char)('p' + sim_random_below(sim, SIM_RANDOM_WORKLOAD, 4)), '\0'};
    uint64_t pick = sim_random_below(sim, SIM_RANDOM_WORKLOAD, 9);

    op->call = (struct call)CALL();
    op->is_used = true;
    if (pick <= 2) {
        memset(op->data, (int)('a' + pick), sizeof(op->data));
        io_file_write(file, &op->call.op, op->data, size, off);
    } else if (pick == 3) {
        io_file_read(file, &op->call.op, op->data, size, off);
    } else if (pick == 4) {
        io_file_datasync(file, &op->call.op);
    } else if (pick == 5) {
        io_file_truncate(file, &op->call.op, off);
    } else if (pick == 6) {
        io_rename(swarm->world.io, &op->call.op, path, "q");
    } else if (pick == 7) {
        io_dirsync(swarm->world.io, &op->call.op, "/");
    } else {
        io_link(swarm->world.io, &op->call.op, "q", path);
    }
}

static void swarm_open(struct swarm *swarm)
{
    for (int i = 0; i < SWARM_FILES; i++) {
        char path[2] = {(char)('p' + i), '\0'};

        swarm->files[i] = file_open(&swarm->world, path, RW | IO_FILE_CREATE);
    }
}

static uint64_t swarm_run(uint64_t seed)
{
    struct swarm *swarm = must_zalloc(sizeof(*swarm));
    struct sim_options options;
    uint64_t hash;

    sim_options_draw(&options, seed);
    options.disk.capacity = 200000;
    options.disk.pending_max = 20000;
    world_start(&swarm->world, seed, &options);
    for (int life = 0; life < 4; life++) {
        swarm_open(swarm);
        for (int step = 0; step < 60; step++) {
            struct swarm_op *op = &swarm->ops[step % SWARM_OPS];

            if (op->is_used && !op->call.is_done)
                MAYBE(wait_for(&swarm->world, &op->call));
            swarm_step(swarm, op);
            sim_run_for(swarm->world.sim, 100);
        }
        if (life % 2 == 0)
            sim_node_power_cut(swarm->world.node);
        else
            sim_node_kill(swarm->world.node);
        for (int i = 0; i < SWARM_FILES; i++)
            io_file_close(swarm->files[i]);
        memset(swarm->ops, 0, sizeof(swarm->ops));
        sim_disk_crash_set(swarm->world.node, SIM_DISK_DRAWN);
        swarm->world.io = sim_node_start(swarm->world.node);
        assert_true(sim_disk_used(swarm->world.node) <= 200000);
        assert_true(sim_disk_pending(swarm->world.node) <= 20000);
        for (char name = 'p'; name <= 's'; name++) {
            char path[2] = {name, '\0'}, data[512];
            ssize_t got = sim_disk_peek(swarm->world.node, path, true, data, sizeof(data), 0);

            sim_trace_add(swarm->world.sim, path, got <= 0 ? 0 : (uint64_t)data[got - 1]);
        }
    }
    hash = sim_trace_hash(swarm->world.sim);
    world_end(&swarm->world);
    mem_free(swarm);
    return hash;
}

static void test_swarm_is_decided_by_the_seed(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        uint64_t hash = swarm_run(seed);

        assert_true(hash == swarm_run(seed));
        assert_true(hash != swarm_run(seed + 100));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_read_size_truncate),
        cmocka_unit_test(test_errors_are_the_systems),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_append_goes_to_the_end),
        cmocka_unit_test(test_close_waits_for_ops),
        cmocka_unit_test(test_kill_keeps_what_was_written),
        cmocka_unit_test(test_a_buffer_changed_under_way_is_a_bug),
        cmocka_unit_test(test_a_full_disk),
        cmocka_unit_test(test_errors_on_order),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_old_images_and_empty_disks),
        cmocka_unit_test(test_pending_is_bounded),
        cmocka_unit_test(test_swarm_is_decided_by_the_seed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
