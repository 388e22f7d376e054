/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated disk: what a power cut may leave, and what it must.
 */
#include "tests/unit/common/io/sim_disk_test.h"

/* ---- bytes --------------------------------------------------------------------------------- */

static void fill(char *data, size_t size, char first)
{
    for (size_t i = 0; i < size; i++)
        data[i] = (char)(first + i / SECTOR);
}

/* A durable file of four sectors 'a'..'d', overwritten by 'A'..'D', which stays pending. */
static void crash_prepare(struct world *world, const struct sim_options *options, uint64_t seed)
{
    char old[4 * SECTOR], new[4 * SECTOR];
    struct io_file *file;

    fill(old, sizeof(old), 'a');
    fill(new, sizeof(new), 'A');
    world_start(world, seed, options);
    sim_disk_put(world->node, "f", bytes_of(old, sizeof(old)));
    file = file_open(world, "f", RW);
    assert_int_equal(file_write(world, file, new, sizeof(new), 0), sizeof(new));
    assert_int_equal(sim_disk_pending(world->node), sizeof(new));
    io_file_close(file);
}

static void test_crash_leaves_each_of_four_outcomes(void **state)
{
    static const enum sim_disk_outcome outcomes[] = {SIM_DISK_OLD, SIM_DISK_NEW, SIM_DISK_ZERO,
                                                     SIM_DISK_GARBAGE};

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(outcomes); i++) {
        char got[4 * SECTOR], old[4 * SECTOR], new[4 * SECTOR];
        const char zero[4 * SECTOR] = {0};
        struct world world;

        fill(old, sizeof(old), 'a');
        fill(new, sizeof(new), 'A');
        crash_prepare(&world, NULL, 1);
        assert_int_equal(sim_disk_peek(world.node, "f", false, got, sizeof(got), 0), sizeof(got));
        assert_memory_equal(got, new, sizeof(got));
        assert_int_equal(sim_disk_peek(world.node, "f", true, got, sizeof(got), 0), sizeof(got));
        assert_memory_equal(got, old, sizeof(got));
        sim_disk_crash_set(world.node, outcomes[i]);
        world_power_cut(&world);
        assert_int_equal(sim_disk_peek(world.node, "f", false, got, sizeof(got), 0), sizeof(got));
        if (outcomes[i] == SIM_DISK_OLD)
            assert_memory_equal(got, old, sizeof(got));
        if (outcomes[i] == SIM_DISK_NEW)
            assert_memory_equal(got, new, sizeof(got));
        if (outcomes[i] == SIM_DISK_ZERO)
            assert_memory_equal(got, zero, sizeof(got));
        if (outcomes[i] == SIM_DISK_GARBAGE) {
            assert_memory_not_equal(got, old, sizeof(got));
            assert_memory_not_equal(got, new, sizeof(got));
            assert_memory_not_equal(got, zero, sizeof(got));
        }
        assert_int_equal(sim_disk_pending(world.node), 0);
        world_end(&world);
    }
}

/* 'o' old, 'n' new, 'z' zero, 'g' garbage. */
static char sector_outcome(const char *sector, int index)
{
    char old[SECTOR], new[SECTOR];
    const char zero[SECTOR] = {0};

    memset(old, 'a' + index, SECTOR);
    memset(new, 'A' + index, SECTOR);
    if (memcmp(sector, old, SECTOR) == 0)
        return 'o';
    if (memcmp(sector, new, SECTOR) == 0)
        return 'n';
    return memcmp(sector, zero, SECTOR) == 0 ? 'z' : 'g';
}

/* By weights each sector has its own fate, and the seed decides it. */
static void test_crash_tears_between_sectors(void **state)
{
    int counts[128] = {0}, torn = 0;
    struct sim_options options;

    (void)state;
    sim_options_calm(&options);
    options.disk.crash_old = options.disk.crash_new = 4;
    options.disk.crash_zero = options.disk.crash_garbage = 1;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        char got[4 * SECTOR], first = 0;
        struct world world;
        bool differs = false;

        crash_prepare(&world, &options, seed);
        world_power_cut(&world);
        assert_int_equal(sim_disk_peek(world.node, "f", false, got, sizeof(got), 0), sizeof(got));
        for (int i = 0; i < 4; i++) {
            char outcome = sector_outcome(got + i * SECTOR, i);

            counts[(int)outcome]++;
            first = i == 0 ? outcome : first;
            differs |= outcome != first;
        }
        torn += differs;
        world_end(&world);
    }
    assert_true(counts['o'] > counts['z'] && counts['n'] > counts['g']);
    assert_true(counts['z'] > 0 && counts['g'] > 0);
    assert_true(torn > 20);
}

/* D1: a flush covers what had completed before it was submitted, not what is on its way. */
static void test_datasync_covers_completed_writes_only(void **state)
{
    struct world world;
    struct io_file *file;
    struct call second = CALL(), flush = CALL();
    char got[2 * SECTOR], data[SECTOR];

    (void)state;
    world_start(&world, 1, NULL);
    sim_disk_put(world.node, "f", BYTES(""));
    file = file_open(&world, "f", RW);
    memset(data, 'x', sizeof(data));
    assert_int_equal(file_write(&world, file, data, sizeof(data), 0), SECTOR);
    io_file_write(file, &second.op, data, sizeof(data), SECTOR);
    sim_disk_stall(world.node, sim_now_us(world.sim) + SECOND); /* the flush is the slower one */
    io_file_datasync(file, &flush.op);
    assert_int_equal(wait_for(&world, &flush), 0);
    assert_true(second.is_done);
    assert_int_equal(sim_disk_size(world.node, "f", false), 2 * SECTOR);
    assert_int_equal(sim_disk_size(world.node, "f", true), SECTOR);
    io_file_close(file);
    sim_disk_crash_set(world.node, SIM_DISK_OLD);
    world_power_cut(&world);
    assert_int_equal(sim_disk_peek(world.node, "f", false, got, sizeof(got), 0), SECTOR);
    world_end(&world);
}

/* A sector that is written again after the flush began: durable is what it was then. */
static void test_datasync_keeps_the_version_it_covers(void **state)
{
    struct world world;
    struct io_file *file;
    struct call flush = CALL();
    char got[3];

    (void)state;
    world_start(&world, 1, NULL);
    sim_disk_put(world.node, "f", BYTES("aaa"));
    file = file_open(&world, "f", RW);
    assert_int_equal(file_write(&world, file, "bbb", 3, 0), 3);
    sim_disk_stall(world.node, sim_now_us(world.sim) + SECOND);
    io_file_datasync(file, &flush.op);
    sim_disk_stall(world.node, 0);
    assert_int_equal(file_write(&world, file, "ccc", 3, 0), 3);
    assert_int_equal(wait_for(&world, &flush), 0);
    assert_int_equal(sim_disk_peek(world.node, "f", true, got, 3, 0), 3);
    assert_memory_equal(got, "bbb", 3);
    assert_int_equal(sim_disk_peek(world.node, "f", false, got, 3, 0), 3);
    assert_memory_equal(got, "ccc", 3);
    io_file_close(file);
    world_end(&world);
}

/* D4: after a flush that failed "new" is still read, the next one says that all is well, and the power
 * cut brings "old" back. */
static void judge_lost(struct world *world, struct io_file *file)
{
    char got[3];

    assert_int_equal(file_read(world, file, got, 3, 0), 3);
    assert_memory_equal(got, "new", 3);
    assert_int_equal(file_sync(world, file), 0); /* a lie */
    sim_disk_crash_set(world->node, SIM_DISK_NEW);
    io_file_close(file);
    world_power_cut(world);
    assert_int_equal(sim_disk_peek(world->node, "f", false, got, 3, 0), 3);
    assert_memory_equal(got, "old", 3);
}

static void test_datasync_that_fails_has_lost_the_data(void **state)
{
    struct world world;
    struct io_file *file;

    (void)state;
    world_start(&world, 1, NULL);
    sim_disk_put(world.node, "f", BYTES("old"));
    file = file_open(&world, "f", RW);
    assert_int_equal(file_write(&world, file, "new", 3, 0), 3);
    sim_disk_fail(world.node, SIM_DISK_DATASYNC, "f", -EIO, 1);
    assert_int_equal(file_sync(&world, file), -EIO);
    judge_lost(&world, file);
    world_end(&world);
}

static void test_durable_write_that_fails_is_lost(void **state)
{
    struct call call = CALL();
    struct world world;
    struct io_file *file;

    (void)state;
    world_start(&world, 1, NULL);
    sim_disk_put(world.node, "f", BYTES("old"));
    file = file_open(&world, "f", RW);
    assert_int_equal(file_write(&world, file, "bad", 3, 0), 3); /* in the same sector */
    sim_disk_fail(world.node, SIM_DISK_DATASYNC, "f", -EIO, 1);
    io_file_write_durable(file, &call.op, "new", 3, 0);
    assert_int_equal(wait_for(&world, &call), -EIO);
    judge_lost(&world, file);
    world_end(&world);
}

/* D2: the size after a power cut is one of the sizes in between; never bytes of nowhere. */
static void test_sizes_survive_as_a_prefix(void **state)
{
    bool seen[4] = {0};
    struct sim_options options;

    (void)state;
    sim_options_calm(&options);
    options.disk.crash_old = 0;
    options.disk.crash_new = 1;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct world world;
        struct io_file *file;
        ssize_t size;
        char got[3000];

        world_start(&world, seed, &options);
        sim_disk_put(world.node, "f", BYTES(""));
        file = file_open(&world, "f", RW);
        for (int i = 0; i < 3; i++) {
            char data[1000];

            memset(data, '1' + i, sizeof(data));
            assert_int_equal(file_write(&world, file, data, 1000, (uint64_t)i * 1000), 1000);
        }
        io_file_close(file);
        world_power_cut(&world);
        size = sim_disk_size(world.node, "f", false);
        assert_true(size >= 0 && size <= 3000 && size % 1000 == 0);
        seen[size / 1000] = true;
        assert_int_equal(sim_disk_peek(world.node, "f", false, got, sizeof(got), 0), size);
        for (ssize_t i = 0; i < size; i++)
            assert_int_equal(got[i], '1' + i / 1000);
        world_end(&world);
    }
    assert_true(seen[0] && seen[1] && seen[2] && seen[3]);
}

/* A write on its way when the power fails has reached the disk, or not. */
static void test_power_cut_during_a_write(void **state)
{
    bool seen_old = false, seen_new = false;

    (void)state;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct world world;
        struct io_file *file;
        struct call call = CALL();
        char got[3];

        world_start(&world, seed, NULL);
        sim_disk_put(world.node, "f", BYTES("old"));
        sim_disk_crash_set(world.node, SIM_DISK_NEW);
        file = file_open(&world, "f", RW);
        io_file_write(file, &call.op, "new", 3, 0);
        sim_node_power_cut(world.node);
        io_file_close(file);
        assert_int_equal(sim_disk_peek(world.node, "f", true, got, 3, 0), 3);
        seen_old |= memcmp(got, "old", 3) == 0;
        seen_new |= memcmp(got, "new", 3) == 0;
        world_end(&world);
    }
    assert_true(seen_old && seen_new);
}

/* ---- names --------------------------------------------------------------------------------- */

/* D3: a file that was flushed is still lost when its directory was not. */
static void test_names_are_durable_after_dirsync_only(void **state)
{
    struct world world;
    struct io_file *file;

    (void)state;
    world_start(&world, 1, NULL);
    sim_disk_mkdir(world.node, "d");
    sim_disk_crash_set(world.node, SIM_DISK_OLD);
    for (int round = 0; round < 2; round++) {
        file = file_open(&world, "d/new", RW | IO_FILE_CREATE);
        assert_int_equal(file_write(&world, file, "abc", 3, 0), 3);
        assert_int_equal(file_sync(&world, file), 0);
        io_file_close(file);
        if (round == 1)
            assert_int_equal(path_call(&world, DIRSYNC, "d", NULL), 0);
        world_power_cut(&world);
        assert_int_equal(sim_disk_size(world.node, "d/new", false), round == 0 ? -ENOENT : 3);
    }
    assert_int_equal(path_call(&world, UNLINK, "d/new", NULL), 0);
    world_power_cut(&world);
    assert_int_equal(sim_disk_size(world.node, "d/new", false), 3); /* it is back */
    assert_int_equal(path_call(&world, UNLINK, "d/new", NULL), 0);
    assert_int_equal(path_call(&world, DIRSYNC, "d", NULL), 0);
    world_power_cut(&world);
    assert_int_equal(sim_disk_size(world.node, "d/new", false), -ENOENT);
    world_end(&world);
}

/* What changes after a dirsync was submitted is not covered by it. */
static void test_dirsync_covers_what_was_before_it(void **state)
{
    struct world world;
    struct call sync = CALL();

    (void)state;
    world_start(&world, 1, NULL);
    sim_disk_put(world.node, "a", BYTES("a"));
    sim_disk_put(world.node, "b", BYTES("b"));
    assert_int_equal(path_call(&world, UNLINK, "a", NULL), 0);
    sim_disk_stall(world.node, sim_now_us(world.sim) + SECOND);
    io_dirsync(world.io, &sync.op, "/");
    sim_disk_stall(world.node, 0);
    assert_int_equal(path_call(&world, UNLINK, "b", NULL), 0);
    assert_int_equal(wait_for(&world, &sync), 0);
    assert_int_equal(sim_disk_size(world.node, "a", true), -ENOENT);
    assert_int_equal(sim_disk_size(world.node, "b", true), 1);
    assert_int_equal(sim_disk_pending_names(world.node), 1);
    world_end(&world);
}

/* A rename over a file: after any power cut the name holds the old or the new, wholly. */
static void test_rename_is_atomic(void **state)
{
    bool seen_old = false, seen_new = false;

    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct sim_options options;
        struct world world;
        char got[3];

        sim_options_calm(&options);
        options.disk.crash_names_in_order = seed % 2 == 0;
        world_start(&world, seed, &options);
        sim_disk_put(world.node, "f", BYTES("old"));
        sim_disk_put(world.node, "f.tmp", BYTES("new"));
        assert_int_equal(path_call(&world, RENAME, "f.tmp", "f"), 0);
        world_power_cut(&world);
        assert_int_equal(sim_disk_peek(world.node, "f", false, got, 3, 0), 3);
        if (memcmp(got, "new", 3) == 0) {
            seen_new = true;
            assert_int_equal(sim_disk_size(world.node, "f.tmp", false), -ENOENT);
        } else {
            seen_old = true;
            assert_memory_equal(got, "old", 3);
            assert_int_equal(sim_disk_size(world.node, "f.tmp", false), 3);
        }
        world_end(&world);
    }
    assert_true(seen_old && seen_new);
}

/* A rename between directories, of which one is synced, does not leave two names; and what was made
 * before under the old name does not come back later. */
static void test_rename_across_directories(void **state)
{
    struct world world;
    struct io_file *file;

    (void)state;
    world_start(&world, 1, NULL);
    sim_disk_mkdir(world.node, "d");
    sim_disk_mkdir(world.node, "e");
    sim_disk_crash_set(world.node, SIM_DISK_OLD);
    file = file_open(&world, "d/a", RW | IO_FILE_CREATE);
    io_file_close(file);
    assert_int_equal(path_call(&world, RENAME, "d/a", "e/a"), 0);
    assert_int_equal(path_call(&world, DIRSYNC, "e", NULL), 0);
    assert_int_equal(path_call(&world, DIRSYNC, "d", NULL), 0);
    world_power_cut(&world);
    assert_int_equal(sim_disk_size(world.node, "d/a", false), -ENOENT);
    assert_int_equal(sim_disk_size(world.node, "e/a", false), 0);
    world_end(&world);
}

/* Of a rename between directories it is enough to sync the one: both names change. */
static void test_a_rename_is_durable_as_a_whole(void **state)
{
    struct world world;

    (void)state;
    world_start(&world, 1, NULL);
    sim_disk_mkdir(world.node, "d");
    sim_disk_mkdir(world.node, "e");
    sim_disk_put(world.node, "d/a", BYTES("a"));
    sim_disk_put(world.node, "d/b", BYTES("b"));
    assert_int_equal(path_call(&world, RENAME, "d/a", "e/a"), 0);
    assert_int_equal(path_call(&world, DIRSYNC, "e", NULL), 0);
    assert_int_equal(sim_disk_size(world.node, "d/a", true), -ENOENT);
    assert_int_equal(sim_disk_size(world.node, "e/a", true), 1);
    assert_int_equal(path_call(&world, RENAME, "d/b", "e/b"), 0);
    assert_int_equal(path_call(&world, DIRSYNC, "d", NULL), 0);
    assert_int_equal(sim_disk_size(world.node, "d/b", true), -ENOENT);
    assert_int_equal(sim_disk_size(world.node, "e/b", true), 1);
    world_end(&world);
}

static void test_a_lost_directory_takes_its_files_along(void **state)
{
    struct world world;
    struct io_file *file;

    (void)state;
    world_start(&world, 1, NULL);
    sim_disk_crash_set(world.node, SIM_DISK_OLD);
    assert_int_equal(path_call(&world, MKDIR, "d", NULL), 0);
    file = file_open(&world, "d/a", RW | IO_FILE_CREATE);
    io_file_close(file);
    assert_int_equal(path_call(&world, DIRSYNC, "d", NULL), 0);
    world_power_cut(&world); /* "/" was not synced */
    assert_int_equal(sim_disk_size(world.node, "d/a", false), -ENOENT);
    assert_int_equal(path_call(&world, MKDIR, "d", NULL), 0);
    assert_int_equal(try_open(&world, "d/a", RW, &file), -ENOENT);
    world_end(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crash_leaves_each_of_four_outcomes),
        cmocka_unit_test(test_crash_tears_between_sectors),
        cmocka_unit_test(test_datasync_covers_completed_writes_only),
        cmocka_unit_test(test_datasync_keeps_the_version_it_covers),
        cmocka_unit_test(test_datasync_that_fails_has_lost_the_data),
        cmocka_unit_test(test_durable_write_that_fails_is_lost),
        cmocka_unit_test(test_sizes_survive_as_a_prefix),
        cmocka_unit_test(test_power_cut_during_a_write),
        cmocka_unit_test(test_names_are_durable_after_dirsync_only),
        cmocka_unit_test(test_dirsync_covers_what_was_before_it),
        cmocka_unit_test(test_rename_is_atomic),
        cmocka_unit_test(test_rename_across_directories),
        cmocka_unit_test(test_a_rename_is_durable_as_a_whole),
        cmocka_unit_test(test_a_lost_directory_takes_its_files_along),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
