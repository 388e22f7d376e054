/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that refuses, lies or is slow, under a store with a model beside it. What is promised: a value is right or
 * refused; what was durable is there or the opening is refused, with file and offset; the first error of a write or a
 * flush ends the promises. One that is full: test_store_full.c.
 *
 * A sample by default; STORE_SEEDS=N: that many times as much.
 */
#include "tests/unit/backend/store/store_faulty.h"

#include "backend/store/checkpoint_format.h"

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
            world_give_up(w);
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
            world_give_up(w);
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
                world_give_up(w);
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
        world_give_up(w);
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
        cmocka_unit_test(test_lies_are_seen),
        cmocka_unit_test(test_falling_back_to_the_older_checkpoint),
        cmocka_unit_test(test_a_slow_disk),
    };

    return cmocka_run_group_tests_name("store_fault", tests, NULL, NULL);
}
