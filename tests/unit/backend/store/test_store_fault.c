/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that refuses, lies or is slow, under a store with a model beside it. What is promised: a value is right or
 * refused; what was durable is there or the opening is refused, with file and offset; the first error of a write or a
 * flush ends the promises, a full disk only the writes.
 *
 * A sample by default; STORE_SEEDS=N: that many times as much.
 */
#include "tests/unit/backend/store/store_world.h"

#include "backend/store/checkpoint_format.h"
#include "backend/store/log_private.h"

#define SEGMENT (64u << 10)

struct faulty {
    struct world w;
    struct world_errors errors;
};

static void begin(struct faulty *f, uint64_t seed, enum store_fsync fsync)
{
    memset(f, 0, sizeof(*f));
    world_init(&f->w, seed, NULL);
    world_errors_init(&f->errors, &f->w);
    f->w.options.segment_size = SEGMENT;
    f->w.options.ring_size = 1u << 18;
    f->w.options.fsync = fsync;
}

static void end(struct faulty *f)
{
    world_deinit(&f->w);
    world_errors_deinit(&f->errors);
}

static void ops(struct world *w, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        world_random_op(w);
        if (world_random(w, 3) == 0)
            store_turn_end(w->store);
        if (world_random(w, 4) == 0)
            sim_run_for(w->sim, world_random(w, 3000));
        if (world_random(w, 50) == 0)
            store_checkpoint(w->store);
    }
    store_turn_end(w->store);
}

/* What is opened now holds a prefix, with all that was durable. */
static void judge_open(struct world *w)
{
    uint64_t lsn = store_marks_of(w->store).appended;

    assert_true(lsn >= w->marks.durable && lsn <= w->lsn_last);
    world_forget_after(w, lsn);
    world_check(w, lsn);
}

static void judge(struct world *w)
{
    world_open(w);
    judge_open(w);
}

/* ---- errors ------------------------------------------------------------------------------------- */

struct fault {
    enum sim_disk_op op;
    int err;
    bool ends_writing; /* of the log: the shard is read-only then */
};
static const struct fault faults[] = {
    {SIM_DISK_DATASYNC, -EIO, true}, {SIM_DISK_WRITE, -EIO, true},       {SIM_DISK_WRITE, -ENOSPC, true},
    {SIM_DISK_OPEN, -ENOSPC, false}, {SIM_DISK_ALLOCATE, -ENOSPC, false}, {SIM_DISK_DIRSYNC, -EIO, true},
    {SIM_DISK_DATASYNC, -ENOSPC, true}, {SIM_DISK_DIRSYNC, -ENOSPC, false},
};

/* One operation fails once, at any moment of a life. The marks that were told hold, whatever the kernel says to those
 * who ask again: then the power is cut, and all that had not been flushed well is gone. */
static void test_one_failure(void **state)
{
    uint64_t count = world_times(90);
    uint32_t read_only = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= count; seed++) {
        const struct fault *fault = &faults[seed % ARRAY_COUNT(faults)];
        struct faulty f;
        struct world *w = &f.w;
        uint64_t durable;

        begin(&f, seed, (enum store_fsync)(seed / 2 % 3));
        world_open(w);
        ops(w, 30 + (unsigned)world_random(w, 60));
        sim_disk_fail(w->node, fault->op, NULL, fault->err, 1);
        ops(w, 60);
        for (unsigned i = 0; i < 100 && !w->store->stats.is_read_only; i++)
            sim_run_for(w->sim, 20000);
        if (w->store->stats.is_read_only) {
            assert_true(fault->ends_writing);
            assert_true(f.errors.count > 0);
            assert_int_equal(store_may_write(w->store, 0), -EROFS);
            durable = store_marks_of(w->store).durable;
            sim_run_for(w->sim, 3000000);
            assert_int_equal(store_marks_of(w->store).durable, durable);
            read_only++;
        } else {
            ops(w, 20);
        }
        sim_disk_crash_set(w->node, seed % 3 == 0 ? SIM_DISK_OLD : SIM_DISK_DRAWN);
        world_die(w, true);
        if (world_try_open(w) != 0) { /* it comes only now */
            assert_int_equal(w->err, fault->err);
            store_destroy(&w->store);
            sim_node_kill(w->node);
            w->io = sim_node_start(w->node);
            world_open(w);
        }
        judge_open(w);
        end(&f);
    }
    assert_true(read_only > count / 4);
}

/* No new segment can be made: nothing more is written, and who closes is not kept waiting for it. */
static void test_a_segment_can_not_be_made(void **state)
{
    static const enum sim_disk_op at[] = {SIM_DISK_OPEN, SIM_DISK_ALLOCATE, SIM_DISK_DIRSYNC};

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(at); i++) {
        struct faulty f;
        struct world *w = &f.w;

        begin(&f, i + 1, STORE_FSYNC_EVERYSEC);
        w->value_max = 3000;
        world_open(w);
        sim_run_for(w->sim, 1000000); /* three are ready */
        sim_disk_fail(w->node, at[i], NULL, -EIO, 1);
        for (unsigned n = 0; n < 100 && !w->store->stats.is_read_only; n++)
            ops(w, 5);
        assert_true(w->store->stats.is_read_only);
        world_close(w);
        world_open(w);
        judge_open(w);
        end(&f);
    }
}

/* A flush fails, the shard is started anew and goes on, and then the power fails: what had only looked as if it were on
 * disk would be gone, and with it all that was built upon it. */
static void test_a_failed_flush_is_not_believed_after_a_restart(void **state)
{
    uint32_t hits = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= world_times(60); seed++) {
        struct faulty f;
        struct world *w = &f.w;
        bool is_manifest = seed % 3 == 0;

        begin(&f, seed, (enum store_fsync)(seed / 2 % 3));
        w->options.direct = seed % 4 == 0;
        world_open(w);
        ops(w, 30 + (unsigned)world_random(w, 60));
        sim_disk_fail(w->node, SIM_DISK_DATASYNC, is_manifest ? WORLD_DIR "/MANIFEST" : NULL, -EIO, 1);
        ops(w, 60);
        store_checkpoint(w->store); /* needs it, if nothing else has */
        sim_run_for(w->sim, 1500000);
        hits += w->store->stats.is_read_only;
        world_die(w, false);
        if (seed % 5 == 0) { /* the next one dies while it copies */
            w->options.io = w->io;
            assert_int_equal(store_create(&w->options, world_told, w, &w->store), 0);
            for (uint64_t i = world_random(w, 120); i > 0; i--)
                MAYBE(sim_step(w->sim));
            sim_node_kill(w->node);
            store_destroy(&w->store);
            w->io = sim_node_start(w->node);
        }
        judge(w);
        assert_true(store_marks_of(w->store).appended >= w->marks.appended);
        ops(w, 20);
        sim_run_for(w->sim, 3000000);
        sim_disk_crash_set(w->node, seed % 2 == 0 ? SIM_DISK_OLD : SIM_DISK_DRAWN);
        world_die(w, true);
        judge(w);
        end(&f);
    }
    assert_true(hits > world_times(60) / 4);
}

/* The same with the process killed, not the host: what was sealed is in the ring, whatever the disk did to it. */
static void test_a_failed_write_is_in_the_ring(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= world_times(20); seed++) {
        struct faulty f;
        struct world *w = &f.w;

        begin(&f, seed, (enum store_fsync)(seed % 3));
        world_open(w);
        ops(w, 40);
        sim_disk_fail(w->node, SIM_DISK_WRITE, NULL, -EIO, 1);
        ops(w, 60);
        if (!w->store->stats.is_read_only)
            sim_run_for(w->sim, 3000000);
        world_die(w, false);
        judge(w);
        assert_true(store_marks_of(w->store).appended >= w->marks.appended);
        end(&f);
    }
}

/* Making a directory fails at each step: then it is refused, or made all the same; the next try goes well. */
static void test_making_a_directory_fails_anywhere(void **state)
{
    static const enum sim_disk_op steps[] = {
        SIM_DISK_MKDIR, SIM_DISK_OPEN, SIM_DISK_WRITE, SIM_DISK_DATASYNC, SIM_DISK_RENAME, SIM_DISK_DIRSYNC,
        SIM_DISK_ALLOCATE, SIM_DISK_LIST, SIM_DISK_READ, SIM_DISK_SIZE,
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(steps); i++) {
        for (unsigned nth = 0; nth < 6; nth++) {
            struct faulty f;
            struct world *w = &f.w;
            int err;

            begin(&f, i * 10 + nth + 1, STORE_FSYNC_ALWAYS);
            w->options.io = w->io;
            w->is_told = false;
            assert_int_equal(store_create(&w->options, world_told, w, &w->store), 0);
            for (unsigned e = 0; e < nth * 6; e++)
                MAYBE(sim_step(w->sim));
            sim_disk_fail(w->node, steps[i], NULL, nth % 2 == 0 ? -EIO : -ENOSPC, 1);
            sim_run_while_not(w->sim, &w->is_told, WORLD_OPEN_US);
            assert_true(w->is_told);
            err = w->err;
            assert_true(err == 0 || f.errors.count > 0);
            if (err == 0) {
                ops(w, 20);
                world_see_marks(w);
            }
            if (nth % 2 == 0)
                sim_node_power_cut(w->node);
            else
                sim_node_kill(w->node);
            store_destroy(&w->store);
            w->io = sim_node_start(w->node);
            sim_run_for(w->sim, 1000000);
            if (world_try_open(w) != 0) { /* the fault was still there for it */
                store_destroy(&w->store);
                sim_node_kill(w->node);
                w->io = sim_node_start(w->node);
                world_open(w);
            }
            world_check(w, store_marks_of(w->store).appended);
            end(&f);
        }
    }
}

/* ---- checkpoints that somebody waits for --------------------------------------------------------- */

static int await_checkpoint(struct world *w, uint64_t number)
{
    for (unsigned i = 0; i < 100000; i++) {
        int err = store_checkpoint_result(w->store, number);

        if (err != -EINPROGRESS)
            return err;
        MAYBE(sim_step(w->sim));
    }
    fail_msg("a checkpoint never ends");
    return 0;
}

/* It is asked for at any moment, while another one runs, too. When it has ended well, whatever had been changed before
 * outlives a power cut that takes all that was not flushed; and when an operation has failed it says so, or another one
 * has been made. Nothing else flushes in most of these lives. */
static void test_who_waits_for_a_checkpoint(void **state)
{
    uint32_t good = 0, failed = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= world_times(120); seed++) {
        const struct fault *fault = &faults[seed / 2 % ARRAY_COUNT(faults)];
        struct faulty f;
        struct world *w = &f.w;
        uint64_t appended, number, earlier;
        int err;

        begin(&f, seed, seed % 5 == 0 ? STORE_FSYNC_EVERYSEC : STORE_FSYNC_NO);
        world_open(w);
        ops(w, (unsigned)world_random(w, 80));
        earlier = store_checkpoint(w->store);
        for (uint64_t i = world_random(w, 30); i > 0; i--)
            MAYBE(sim_step(w->sim));
        ops(w, 1 + (unsigned)world_random(w, 20));
        if (seed % 2 == 0)
            sim_disk_fail(w->node, fault->op, NULL, fault->err, 1);
        appended = store_marks_of(w->store).appended;
        number = store_checkpoint(w->store);
        assert_true(number >= earlier);
        err = await_checkpoint(w, number);
        good += err == 0;
        failed += err != 0;
        assert_true(err == 0 || seed % 2 == 0);
        if (err == 0) {
            assert_true(store_marks_of(w->store).durable >= appended);
            assert_int_equal(store_checkpoint_result(w->store, earlier), 0);
        }
        sim_disk_fail_no_more(w->node);
        sim_disk_crash_set(w->node, SIM_DISK_OLD);
        world_die(w, true);
        judge(w);
        assert_true(err != 0 || store_marks_of(w->store).appended >= appended);
        end(&f);
    }
    print_message("# %u good, %u failed\n", good, failed);
    assert_true(good > world_times(120) / 2 && failed > 5);
}

/* ---- a full disk -------------------------------------------------------------------------------- */

#define CLOSE_US_MAX 10000000u /* who stops a process does not wait much longer before killing it */

/* The marks are those of the end: what was answered by then. True: in order, with all that was changed. */
static bool close_in_time(struct world *w)
{
    int err;

    w->is_told = false;
    store_turn_end(w->store);
    store_close(w->store, world_told, w);
    sim_run_while_not(w->sim, &w->is_told, CLOSE_US_MAX);
    assert_true(w->is_told);
    err = w->err;
    world_see_marks(w);
    store_destroy(&w->store);
    return err == 0;
}

/* Space runs out under load: writes are refused, deletes and reads go on, and are answered (appended); it comes back: so do
 * the writes, without a restart. Nothing is lost over a power cut in the middle of it. */
static void test_a_full_disk(void **state)
{
    uint32_t placed = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= world_times(12); seed++) {
        struct faulty f;
        struct world *w = &f.w;

        begin(&f, seed, (enum store_fsync)(seed % 3));
        w->value_max = 6000;
        if (seed % 5 == 0) /* as large a reserve as there is, of which the file system has room for little */
            w->options.disk_max = LOG_RESERVE_SHARE * LOG_RESERVE_MAX * SEGMENT;
        world_open(w);
        ops(w, 50);
        sim_disk_capacity_set(w->node, sim_disk_used(w->node) + (seed % 4) * 40000);
        w->value_max = 14000; /* more lives than there is room for: no cleaner can help */
        for (unsigned i = 0; i < 2000 && store_may_write(w->store, 1) != -ENOSPC; i++)
            ops(w, 5);
        assert_int_equal(store_may_write(w->store, 1), -ENOSPC);
        assert_false(w->store->stats.is_read_only);
        world_check(w, UINT64_MAX);
        for (uint16_t k = 0; k < 20; k++) {
            char name[32];
            struct store_key key;

            assert_true(world_room_wait(w, 0));
            world_delete(w, 0, k);
            store_find(w->store, 0, world_key(k, name), &key);
            assert_null(key.entry);
            store_turn_end(w->store);
        }
        for (unsigned i = 0; i < 50 && store_marks_of(w->store).appended < store_lsn(w->store); i++)
            sim_run_for(w->sim, 100000);
        assert_int_equal(store_marks_of(w->store).appended, store_lsn(w->store));
        placed += world_placed_count(w);
        if (seed % 2 == 0) {
            sim_disk_crash_set(w->node, SIM_DISK_DRAWN);
            world_die(w, true);
            judge(w);
        } else if (seed % 4 == 1) { /* it needs no room to end */
            uint64_t lsn = store_lsn(w->store);

            assert_true(close_in_time(w));
            assert_int_equal(w->marks.durable, lsn);
            sim_node_kill(w->node);
            w->io = sim_node_start(w->node);
            judge(w);
        }
        sim_disk_capacity_set(w->node, 1ull << 30);
        w->value_max = 6000;
        for (unsigned i = 0; i < 50 && store_may_write(w->store, 1) != 0; i++)
            sim_run_for(w->sim, 100000);
        assert_int_equal(store_may_write(w->store, 1), 0);
        ops(w, 100);
        world_check(w, UINT64_MAX);
        world_die(w, true);
        judge(w);
        end(&f);
    }
    assert_true(placed > world_times(12) / 4);
}

static void put_or_delete(struct world *w, unsigned number, bool is_put)
{
    static char value[5000];
    struct store_key key;
    char name[32];

    store_find(w->store, 0, bytes_of(name, (size_t)snprintf(name, sizeof(name), "n%u", number)), &key);
    if (is_put)
        assert_int_equal(store_put_string(w->store, &key, bytes_of(value, sizeof(value)), NULL), 0);
    else
        assert_int_equal(store_delete(w->store, &key), 0);
    store_turn_end(w->store);
    sim_run_for(w->sim, 1000);
}

static unsigned fill(struct world *w)
{
    unsigned count = 0;
    int err;

    w->options.segment_size = 4 * SEGMENT; /* what is left of the disk holds a checkpoint */
    world_open(w);
    sim_disk_capacity_set(w->node, sim_disk_used(w->node) + 20 * 4 * SEGMENT + 2 * SEGMENT);
    while ((err = store_may_write(w->store, 1)) != -ENOSPC) {
        if (err == 0)
            put_or_delete(w, count++, true);
        else
            sim_run_for(w->sim, 10000);
    }
    sim_run_for(w->sim, 5000000);
    assert_int_equal(store_may_write(w->store, 1), -ENOSPC);
    return count;
}

/* Each start takes a segment for what the log ring has, the last one, too. */
static void test_killed_again_on_a_full_disk(void **state)
{
    struct faulty f;
    struct world *w = &f.w;
    unsigned count;

    (void)state;
    begin(&f, 1, STORE_FSYNC_EVERYSEC);
    count = fill(w);
    for (unsigned i = 0; i < 3; i++) {
        put_or_delete(w, i, false);
        world_die(w, false);
        world_open(w);
        assert_int_equal(store_marks_of(w->store).appended, w->marks.appended);
    }
    sim_disk_capacity_set(w->node, 1ull << 30);
    sim_run_for(w->sim, 5000000);
    assert_int_equal(store_may_write(w->store, 1), 0);
    put_or_delete(w, count, true);
    end(&f);
}

/* Nobody has said how much of the disk is ours: when it is full the cleaner finds room all the same, once something was
 * deleted, and service goes on though nobody gives the disk more. */
static void test_deletes_make_room_on_a_full_disk(void **state)
{
    (void)state;
    for (unsigned nth = 2; nth <= 4; nth++) {
        struct faulty f;
        struct world *w = &f.w;
        unsigned count;

        begin(&f, nth, STORE_FSYNC_EVERYSEC);
        count = fill(w);
        for (unsigned i = 0; i < count; i++)
            if (i % 4 < nth)
                put_or_delete(w, i, false);
        sim_run_for(w->sim, 20000000);
        assert_int_equal(store_may_write(w->store, 1), 0);
        put_or_delete(w, count, true);
        end(&f);
    }
}

/* ---- a life on a full disk ---------------------------------------------------------------------- */

#define LIFE_KEYS  400u
#define LIFE_BYTES (24u * 4u * SEGMENT)

/* As a client sees it: waits while it is told to, and whoever is refused changes nothing. */
static int life_put(struct world *w, unsigned number, size_t len)
{
    static char value[8 * SEGMENT];
    struct store_key key;
    char name[32];
    int err = ERR_AGAIN;

    for (unsigned i = 0; i < 1000 && (err = store_may_write(w->store, len)) == ERR_AGAIN; i++)
        sim_run_for(w->sim, 10000);
    if (err != 0)
        return err;
    store_find(w->store, 0, world_other_key(number, name), &key);
    err = store_put_string(w->store, &key, bytes_of(value, len), NULL);
    store_turn_end(w->store);
    sim_run_for(w->sim, 1000);
    return err;
}

static bool life_delete(struct world *w, unsigned number)
{
    struct store_key key;
    char name[32];

    for (unsigned i = 0; !store_may_delete(w->store, 4096); i++) {
        if (i == 3000)
            return false;
        sim_run_for(w->sim, 10000);
    }
    assert_true(world_room_wait(w, 0));
    store_find(w->store, 0, world_other_key(number, name), &key);
    if (key.entry != NULL)
        assert_int_equal(store_delete(w->store, &key), 0);
    store_turn_end(w->store);
    sim_run_for(w->sim, 1000);
    return true;
}

static void life_fill(struct world *w, size_t len_max)
{
    for (unsigned i = 0, refused = 0; i < 2000 && refused < 3; i++) {
        size_t len = 1 + world_random(w, world_random(w, 4) == 0 ? len_max : len_max / 8);

        refused += life_put(w, (unsigned)world_random(w, LIFE_KEYS), len) != 0;
    }
}

/* It is filled again and again, a part deleted each time, and the store started again: who deletes can always do so, in the
 * end, and so all who write can again. */
static void life(uint64_t seed, bool has_bound)
{
    struct faulty f;
    struct world *w = &f.w;
    size_t len_max = seed % 2 == 0 ? 2 * SEGMENT : SEGMENT / 4;

    begin(&f, seed, (enum store_fsync)(seed % 3));
    w->options.segment_size = 4 * SEGMENT;
    w->options.disk_max = has_bound ? LIFE_BYTES : 0;
    world_open(w);
    if (!has_bound)
        sim_disk_capacity_set(w->node, sim_disk_used(w->node) + LIFE_BYTES);
    for (unsigned round = 0; round < 8; round++) {
        life_fill(w, len_max);
        for (unsigned i = 0; i < LIFE_KEYS / 10; i++) {
            unsigned number = (unsigned)world_random(w, LIFE_KEYS);

            if (!life_delete(w, number))
                fail_msg("seed %lu round %u: a delete is refused", (unsigned long)seed, round);
            if (world_random(w, 2) == 0)
                MAYBE(life_put(w, number, 1 + world_random(w, len_max)));
        }
        if (round % 2 == 1) {
            world_see_marks(w);
            if (world_random(w, 2) == 0)
                world_close(w);
            else
                world_die(w, false);
            world_open(w);
        }
    }
    for (unsigned i = 0; i < LIFE_KEYS; i++)
        if (!life_delete(w, i))
            fail_msg("seed %lu: a delete is refused at the end", (unsigned long)seed);
    sim_run_for(w->sim, 20000000);
    assert_int_equal(life_put(w, 0, SEGMENT), 0);
    end(&f);
}

/* Nobody has said how much of the disk is ours. */
static void test_a_life_on_a_full_disk(void **state)
{
    (void)state;
    for (uint64_t seed = world_seed_first(); seed < world_seed_first() + world_times(8); seed++)
        life(seed, false);
}

static void test_a_life_with_a_bound(void **state)
{
    (void)state;
    for (uint64_t seed = world_seed_first() + 60; seed < world_seed_first() + 60 + world_times(6); seed++)
        life(seed, true);
}

/* Others have taken the rest of the disk, and the free segments have a size that new ones have not: they go, without a
 * checkpoint, for which there is no room either. */
static void test_deletes_where_free_segments_have_another_size(void **state)
{
    const uint32_t sizes[] = {8u * SEGMENT, 2u * SEGMENT};

    (void)state;
    for (uint64_t seed = 1; seed <= world_times(6); seed++) {
        struct faulty f;
        struct world *w = &f.w;
        struct store_stats stats;

        begin(&f, seed, (enum store_fsync)(seed % 3));
        w->options.segment_size = 4 * SEGMENT;
        world_open(w);
        sim_disk_capacity_set(w->node, sim_disk_used(w->node) + LIFE_BYTES);
        life_fill(w, SEGMENT / 4);
        for (unsigned i = 0; i < LIFE_KEYS / 2; i++)
            assert_true(life_delete(w, (unsigned)world_random(w, LIFE_KEYS)));
        sim_run_for(w->sim, 20000000);
        store_stats_get(w->store, &stats);
        assert_true(stats.segments_free >= 4);
        world_see_marks(w);
        if (seed / 2 % 2 == 0)
            world_close(w);
        else
            world_die(w, false);
        sim_disk_capacity_set(w->node, sim_disk_used(w->node));
        w->options.segment_size = sizes[seed % 2];
        world_open(w);
        for (unsigned i = 0; i < LIFE_KEYS; i++)
            if (!life_delete(w, i))
                fail_msg("seed %lu: a delete is refused", (unsigned long)seed);
        sim_run_for(w->sim, 20000000);
        assert_int_equal(life_put(w, 0, SEGMENT), 0);
        end(&f);
    }
}

/* ---- the end on a full disk --------------------------------------------------------------------- */

/* A large value waits for room, and with it what came behind: it is not appended. `left`: for a checkpoint, perhaps. */
static void stall(struct world *w, uint64_t left)
{
    uint64_t appended;

    ops(w, 50);
    sim_run_for(w->sim, 1500000); /* what is behind the last flush now has just been answered */
    ops(w, 10);
    sim_disk_capacity_set(w->node, sim_disk_used(w->node) + left);
    world_set(w, 0, (uint16_t)world_random(w, WORLD_KEYS), 7, 3 * SEGMENT);
    appended = store_lsn(w->store) - 1;
    world_set(w, 0, (uint16_t)world_random(w, WORLD_KEYS), 8, 100);
    store_turn_end(w->store);
    sim_run_for(w->sim, 2500000 + world_random(w, 5000000));
    for (unsigned i = 0; i < 100 && !store_log_is_stalled(w->store->log); i++) /* it is being asked just now */
        sim_run_for(w->sim, 1000);
    assert_true(store_log_is_stalled(w->store->log));
    world_see_marks(w);
    assert_int_equal(w->marks.appended, appended);
    if (w->options.fsync != STORE_FSYNC_NO)
        assert_int_equal(w->marks.durable, appended); /* that does not wait */
}

/* A value larger than a segment has no room, and the store is closed. It ends all the same, without that value; what was
 * answered is on the disk, whatever happens to the log ring after. */
static void test_a_close_does_not_wait_for_room(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= world_times(18); seed++) {
        struct faulty f;
        struct world *w = &f.w;
        uint64_t appended;

        begin(&f, seed, (enum store_fsync)(seed % 3));
        world_open(w);
        stall(w, seed / 3 % 2 * SEGMENT / 2);
        appended = w->marks.appended;
        if (seed % 2 == 0) {
            store_checkpoint(w->store); /* which waits for it, too */
            sim_run_for(w->sim, 500000);
        }
        assert_false(close_in_time(w));
        assert_int_equal(w->marks.appended, appended);
        sim_disk_crash_set(w->node, SIM_DISK_OLD);
        sim_node_power_cut(w->node);
        w->io = sim_node_start(w->node);
        judge(w); /* as full as it was */
        assert_int_equal(store_marks_of(w->store).appended, appended);
        assert_false(store_log_is_ring_lost(w->store->log));
        sim_disk_capacity_set(w->node, 1ull << 30);
        sim_run_for(w->sim, 3000000);
        ops(w, 30);
        world_close(w);
        judge(w);
        end(&f);
    }
}

/* A large copy has no room: nothing is missing without it. */
static void test_a_close_does_not_wait_for_a_copy(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= world_times(6); seed++) {
        struct faulty f;
        struct world *w = &f.w;
        struct store_key key;
        char name[32];

        begin(&f, seed, (enum store_fsync)(seed % 3));
        world_open(w);
        ops(w, 50);
        world_set(w, 0, 1, 7, 3 * SEGMENT);
        world_append(w, 0, 1, 8, 200); /* now it has a chain */
        store_turn_end(w->store);
        sim_run_for(w->sim, 1500000);
        sim_disk_capacity_set(w->node, sim_disk_used(w->node) + SEGMENT / 2);
        store_find(w->store, 0, world_key(1, name), &key);
        assert_int_equal(store_image(w->store, key.hash, key.entry), 0);
        sim_run_for(w->sim, 500000);
        assert_true(store_log_is_stalled(w->store->log));
        ops(w, 5);
        assert_false(close_in_time(w));
        assert_int_equal(w->marks.durable, w->lsn_last);
        sim_disk_crash_set(w->node, SIM_DISK_OLD);
        sim_node_power_cut(w->node);
        w->io = sim_node_start(w->node);
        judge(w);
        assert_false(store_log_is_ring_lost(w->store->log));
        end(&f);
    }
}

/* Others make room while it closes: then nothing is missing. */
static void test_a_close_takes_the_room_that_comes(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= world_times(9); seed++) {
        struct faulty f;
        struct world *w = &f.w;

        begin(&f, seed, (enum store_fsync)(seed % 3));
        world_open(w);
        stall(w, seed / 3 % 2 * SEGMENT / 2);
        w->is_told = false;
        store_close(w->store, world_told, w);
        sim_run_for(w->sim, world_random(w, 1000000));
        assert_false(w->is_told);
        sim_disk_capacity_set(w->node, 1ull << 30);
        sim_run_while_not(w->sim, &w->is_told, CLOSE_US_MAX);
        assert_true(w->is_told);
        assert_int_equal(w->err, 0);
        world_see_marks(w);
        assert_int_equal(w->marks.durable, w->lsn_last);
        store_destroy(&w->store);
        sim_node_kill(w->node);
        w->io = sim_node_start(w->node);
        judge(w);
        end(&f);
    }
}

/* Whatever waits for room when it is told to close, whenever room comes or all of it is killed: it ends in time, and with
 * all that was answered. */
static void test_a_close_at_any_moment(void **state)
{
    uint32_t in_order = 0, given_up = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= world_times(60); seed++) {
        struct faulty f;
        struct world *w = &f.w;
        bool is_ended;

        begin(&f, seed, (enum store_fsync)(seed / 4 % 3));
        world_open(w);
        ops(w, 40);
        sim_disk_capacity_set(w->node, sim_disk_used(w->node) + world_random(w, 4) * SEGMENT);
        for (unsigned i = 0; i < 4; i++) {
            w->value_max = world_random(w, 2) == 0 ? 3 * SEGMENT : 3000;
            if (world_random(w, 3) == 0) {
                store_atomic_begin(w->store);
                for (unsigned j = 0; j < 3; j++)
                    world_set(w, 0, (uint16_t)world_random(w, WORLD_KEYS), 5, (uint32_t)world_random(w, w->value_max));
                store_atomic_end(w->store);
            }
            ops(w, 5);
        }
        if (seed % 5 == 0) { /* what is before it is not flushed yet when there is to be no more waiting */
            sim_run_for(w->sim, 500000);
            ops(w, 5);
            sim_disk_stall(w->node, sim_now_us(w->sim) + 4000000);
        }
        w->is_told = false;
        store_close(w->store, world_told, w);
        sim_run_while_not(w->sim, &w->is_told, world_random(w, 4000000));
        if (seed % 4 == 0)
            sim_disk_capacity_set(w->node, 1ull << 30);
        if (seed % 4 < 3)
            sim_run_while_not(w->sim, &w->is_told, CLOSE_US_MAX);
        is_ended = w->is_told;
        assert_true(is_ended || seed % 4 == 3);
        in_order += is_ended && w->err == 0;
        given_up += is_ended && w->err != 0;
        world_see_marks(w);
        assert_true(!is_ended || w->marks.durable == w->marks.appended);
        assert_true(!is_ended || w->err != 0 || w->marks.durable == w->lsn_last);
        sim_disk_crash_set(w->node, SIM_DISK_DRAWN);
        world_die(w, is_ended);
        sim_run_for(w->sim, 10000000); /* a killed one's lock goes with the last that it had asked of the disk */
        judge(w);
        assert_true(store_marks_of(w->store).appended >= w->marks.appended);
        assert_true(!is_ended || !store_log_is_ring_lost(w->store->log));
        end(&f);
    }
    print_message("# %u in order, %u gave something up\n", in_order, given_up);
    assert_true(in_order > world_times(60) / 10 && given_up > world_times(60) / 10);
}

/* ---- lies --------------------------------------------------------------------------------------- */

struct names {
    char path[96][96];
    uint32_t count;
};

static void name_each(void *arg, const char *path)
{
    struct names *names = arg;

    if (strncmp(path, WORLD_DIR "/", sizeof(WORLD_DIR)) == 0 && strstr(path, "lock") == NULL && names->count < 96)
        (void)snprintf(names->path[names->count++], sizeof(names->path[0]), "%s", path);
}

/* Something of everything: sealed hot and cold segments, blobs, two checkpoints, chains. */
static void image_make(struct faulty *f)
{
    struct world *w = &f->w;

    w->value_max = 3000;
    world_open(w);
    for (unsigned i = 0; i < 4; i++) {
        ops(w, 60);
        world_spill(w, 20);
        ops(w, 10);
        store_checkpoint(w->store);
        sim_run_for(w->sim, 200000);
    }
    world_close(w);
    sim_disk_sync(w->node);
}

enum lie { LIE_FLIP, LIE_MISDIRECTED, LIE_ZERO_PAGE, LIE_COUNT }; /* what was there before: test_store_stale.c */

/* A small file is looked at closely, a large one mostly where something is. */
static uint64_t draw_off(struct world *w, const char *path)
{
    uint64_t size = (uint64_t)MAX(sim_disk_size(w->node, path, true), 1);

    switch (world_random(w, 4)) {
    case 0: return world_random(w, MIN(size, 200u));
    case 1: return size - 1 - world_random(w, MIN(size, 4096u));
    case 2: return world_random(w, MIN(size, 8192u));
    default: return world_random(w, size);
    }
}

static void lie_tell(struct world *w, enum lie lie, const char *path)
{
    static const char zeros[4096];
    uint64_t off = draw_off(w, path);

    switch (lie) {
    case LIE_FLIP:
        sim_disk_flip_bit(w->node, path, off, (unsigned)world_random(w, 8));
        break;
    case LIE_MISDIRECTED:
        sim_disk_misdirect_read(w->node, path, 4096 * ((int64_t)world_random(w, 16) - 8));
        break;
    case LIE_ZERO_PAGE:
        sim_disk_overwrite(w->node, path, off / 4096 * 4096, bytes_of(zeros, sizeof(zeros)));
        break;
    case LIE_COUNT:
        break;
    }
}

/* One lie of the disk about one file; then all of it is opened and read. */
static void test_lies_are_seen(void **state)
{
    struct faulty f;
    struct world *w = &f.w;
    struct sim_disk_copy *copy;
    uint32_t not_opened = 0, refused = 0;
    uint64_t count = world_times(500);

    (void)state;
    begin(&f, 4711, STORE_FSYNC_EVERYSEC);
    image_make(&f);
    copy = sim_disk_copy_create(w->node);
    for (uint64_t i = 0; i < count; i++) {
        struct names names = {0};
        uint32_t lines = f.errors.count;
        const char *path;

        sim_node_kill(w->node);
        sim_disk_copy_restore(w->node, copy);
        w->io = sim_node_start(w->node);
        sim_disk_each(w->node, true, name_each, &names);
        path = names.path[world_random(w, names.count)];
        lie_tell(w, (enum lie)(i % LIE_COUNT), path);
        if (world_try_open(w) != 0) {
            assert_true(w->err == ERR_CORRUPT || w->err == ERR_INVALID);
            assert_true(f.errors.count > lines);
            not_opened++;
        } else {
            refused += world_refused_count(w, &f.errors, UINT64_MAX);
        }
        sim_node_kill(w->node);
        store_destroy(&w->store);
        w->io = sim_node_start(w->node);
    }
    assert_true(not_opened > count / 50 && not_opened < count * 4 / 5);
    assert_true(refused > 0);
    sim_disk_copy_destroy(&copy);
    end(&f);
}

/* ---- the older checkpoint ----------------------------------------------------------------------- */

/* Damages the newer slot of the MANIFEST (in its first bytes), or the META that it names. */
static bool newest_damage(struct world *w, bool is_meta)
{
    char page[CHECKPOINT_SLOT_SIZE], path[96];
    struct checkpoint_slot slots[2];
    unsigned newer;

    for (unsigned i = 0; i < 2; i++) {
        if (sim_disk_peek(w->node, WORLD_DIR "/MANIFEST", true, page, sizeof(page), i * sizeof(page)) !=
            (ssize_t)sizeof(page))
            return false;
        memcpy(&slots[i], page, sizeof(slots[i]));
        if (!checkpoint_slot_is_valid(&slots[i], i))
            return false;
    }
    newer = slots[1].generation > slots[0].generation;
    if (!is_meta) {
        sim_disk_flip_bit(w->node, WORLD_DIR "/MANIFEST", newer * sizeof(page) + world_random(w, 48), 3);
        return true;
    }
    (void)snprintf(path, sizeof(path), WORLD_DIR "/checkpoint.%llu", (unsigned long long)slots[newer].file);
    sim_disk_flip_bit(w->node, path, slots[newer].meta_off + world_random(w, slots[newer].meta_len), 3);
    return true;
}

/* The power fails, and then the newest checkpoint is not to be read. With the older one everything that was durable is
 * found, or the start is refused as segments that only it needs are used again: never less without a word. */
static void test_falling_back_to_the_older_checkpoint(void **state)
{
    unsigned opened = 0, refused = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= world_times(60); seed++) {
        struct faulty f;
        struct world *w = &f.w;

        begin(&f, seed, (enum store_fsync)(seed / 2 % 3));
        w->value_max = 2000;
        if (seed % 3 != 0)
            w->options.disk_max = 12u * SEGMENT; /* so that segments are used again */
        world_open(w);
        ops(w, 400 + (unsigned)world_random(w, 400));
        for (unsigned i = 0; i < 2; i++) {
            uint64_t before = w->store->stats.checkpoints;

            ops(w, (unsigned)world_random(w, 400));
            store_checkpoint(w->store);
            for (unsigned j = 0; j < 400 && w->store->stats.checkpoints == before; j++)
                sim_run_for(w->sim, 10000);
        }
        if (seed % 4 != 0)
            ops(w, (unsigned)world_random(w, 40));
        world_die(w, true);
        if (!newest_damage(w, seed % 2 == 0)) {
            end(&f);
            continue;
        }
        if (world_try_open(w) == 0) {
            uint64_t lsn = store_marks_of(w->store).appended;

            opened++;
            assert_true(store_lsn(w->store) >= w->marks.durable && lsn <= w->lsn_last);
            world_forget_after(w, MAX(lsn, w->marks.durable));
            world_check(w, MAX(lsn, w->marks.durable));
        } else {
            refused++;
            assert_int_equal(w->err, ERR_CORRUPT);
            assert_non_null(strstr(f.errors.last, "store: "));
            assert_true(f.errors.count > 1);
        }
        end(&f);
    }
    print_message("# %u opened, %u refused\n", opened, refused);
    assert_true(opened > world_times(60) / 10);
    assert_true(refused > world_times(60) / 60);
}

/* ---- a slow disk -------------------------------------------------------------------------------- */

/* It stands still for seconds, twice: who writes waits, nothing fails, nothing is lost. */
static void test_a_slow_disk(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= world_times(6); seed++) {
        struct faulty f;
        struct world *w = &f.w;

        begin(&f, seed, (enum store_fsync)(seed % 3));
        world_open(w);
        for (unsigned i = 0; i < 2; i++) {
            ops(w, 40);
            sim_disk_stall(w->node, sim_now_us(w->sim) + 5000000);
            ops(w, 80);
        }
        sim_run_for(w->sim, 20000000);
        assert_false(w->store->stats.is_read_only);
        assert_int_equal(store_may_write(w->store, 1), 0);
        ops(w, 40);
        world_check(w, UINT64_MAX);
        world_die(w, true);
        judge(w);
        end(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_failure),
        cmocka_unit_test(test_a_segment_can_not_be_made),
        cmocka_unit_test(test_a_failed_flush_is_not_believed_after_a_restart),
        cmocka_unit_test(test_a_failed_write_is_in_the_ring),
        cmocka_unit_test(test_making_a_directory_fails_anywhere),
        cmocka_unit_test(test_who_waits_for_a_checkpoint),
        cmocka_unit_test(test_a_full_disk),
        cmocka_unit_test(test_killed_again_on_a_full_disk),
        cmocka_unit_test(test_deletes_make_room_on_a_full_disk),
        cmocka_unit_test(test_a_life_on_a_full_disk),
        cmocka_unit_test(test_a_life_with_a_bound),
        cmocka_unit_test(test_deletes_where_free_segments_have_another_size),
        cmocka_unit_test(test_a_close_does_not_wait_for_room),
        cmocka_unit_test(test_a_close_does_not_wait_for_a_copy),
        cmocka_unit_test(test_a_close_takes_the_room_that_comes),
        cmocka_unit_test(test_a_close_at_any_moment),
        cmocka_unit_test(test_lies_are_seen),
        cmocka_unit_test(test_falling_back_to_the_older_checkpoint),
        cmocka_unit_test(test_a_slow_disk),
    };

    return cmocka_run_group_tests_name("store_fault", tests, NULL, NULL);
}
