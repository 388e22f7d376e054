/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log while all is well: places, marks, reads, walks, room.
 */
#include "tests/unit/backend/store/log_test.h"

#include "backend/store/log_private.h"

static void test_records_are_read_from_memory_and_from_disk(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, 1);
    assert_int_equal(world_start(&w), 0);
    for (int i = 0; i < 300; i++) {
        bool is_right;

        assert_int_equal(world_append(&w), 0);
        if (i % 3 == 0) { /* in the open frame */
            assert_int_equal(world_read(&w, w.count - 1, &is_right), 0);
            assert_true(is_right);
        }
        if (i % 7 == 0)
            store_log_turn_end(w.log);
    }
    store_log_turn_end(w.log);
    world_check_reads(&w, 1);
    assert_int_equal(world_flush(&w), 0);
    world_check_reads(&w, 1);
    assert_int_equal(store_log_marks(w.log).durable, store_log_last_lsn(w.log));
    assert_int_equal(world_close(&w), 0);
    world_deinit(&w);
}

static void test_a_clean_stop_loses_nothing(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, 2);
    for (int life = 0; life < 4; life++) {
        assert_int_equal(world_start(&w), 0);
        world_check_prefix(&w, UINT64_MAX);
        world_check_reads(&w, 1);
        for (int i = 0; i < 100; i++) {
            if (i % 10 == 0)
                world_transaction(&w, 5);
            else
                assert_int_equal(world_append(&w), 0);
            if (i % 5 == 0)
                store_log_turn_end(w.log);
            if (i % 20 == 0)
                world_copy_cold(&w, w.count / 2);
        }
        assert_int_equal(world_close(&w), 0);
    }
    assert_int_equal(w.corrupt_lines, 0);
    world_deinit(&w);
}

/* G3, in each mode: nothing is durable before a flush, appended runs ahead with a ring and does not without. */
static void test_marks_keep_their_order(void **state)
{
    (void)state;
    for (int mode = 0; mode < 6; mode++) {
        struct world w;
        struct store_marks marks;

        world_init(&w, 3);
        w.options.fsync = (enum store_fsync)(mode % 3);
        if (mode >= 3)
            w.options.ring_path = NULL;
        assert_int_equal(world_start(&w), 0);
        for (int i = 0; i < 10; i++)
            assert_int_equal(world_append_draw(&w, 100 * (uint64_t)i + 1), 0);
        marks = store_log_marks(w.log);
        assert_int_equal(marks.appended, 0);
        store_log_turn_end(w.log);
        marks = store_log_marks(w.log);
        assert_int_equal(marks.appended, mode < 3 ? 10 : 0);
        assert_int_equal(marks.durable, 0);
        sim_run_for(w.sim, 100000);
        marks = store_log_marks(w.log);
        assert_int_equal(marks.appended, 10);
        assert_int_equal(marks.durable, w.options.fsync == STORE_FSYNC_ALWAYS ? 10 : 0);
        sim_run_for(w.sim, 3 * SECOND);
        marks = store_log_marks(w.log);
        assert_int_equal(marks.written, 10);
        assert_int_equal(marks.durable, w.options.fsync == STORE_FSYNC_NO ? 0 : 10);
        world_deinit(&w);
    }
}

/* With everysec and a ring a turn makes no system call: of a hundred turns one page write comes. */
static void test_turns_share_a_write(void **state)
{
    struct world w;
    struct store_log_stats stats;

    (void)state;
    world_init(&w, 4);
    assert_int_equal(world_start(&w), 0);
    for (uint64_t i = 0; i < 20; i++) {
        assert_int_equal(world_append_draw(&w, 100 * i), 0);
        store_log_turn_end(w.log);
        sim_run_for(w.sim, 1000);
    }
    store_log_stats_get(w.log, &stats);
    assert_int_equal(stats.page_writes, 0);
    assert_int_equal(stats.frames, 20);
    sim_run_for(w.sim, 2 * SECOND);
    store_log_stats_get(w.log, &stats);
    assert_int_equal(stats.page_writes, 1);
    world_deinit(&w);
}

/* Group commit: while a flush is under way, turns only add to the next page write. */
static void test_commits_share_a_flush(void **state)
{
    struct world w;
    struct store_log_stats stats;

    (void)state;
    world_init(&w, 5);
    w.options.fsync = STORE_FSYNC_ALWAYS;
    assert_int_equal(world_start(&w), 0);
    sim_options(w.sim)->disk.flush_min_us = 50000;
    for (uint64_t i = 0; i < 40; i++) {
        assert_int_equal(world_append_draw(&w, 100 * i), 0);
        store_log_turn_end(w.log);
        sim_run_for(w.sim, 1000);
    }
    sim_run_for(w.sim, 2 * SECOND);
    store_log_stats_get(w.log, &stats);
    assert_in_range(stats.flushes, 2, 8);
    assert_int_equal(store_log_marks(w.log).durable, 40);
    world_deinit(&w);
}

struct walk {
    struct store_log_walk walk;
    struct world *w;
    uint32_t count;
    bool is_done;
    int err;
};

static int walk_record(void *arg, const struct record *record, uint64_t address, size_t size, bool is_cold)
{
    struct walk *walk = arg;
    uint64_t key;

    MAYBE(is_cold);
    memcpy(&key, record->key.data, 8);
    walk->w->wrong += !record_is(record, key) || record_size(record) != size;
    for (uint32_t i = 0; i < walk->w->count; i++)
        if (walk->w->model[i].address == address)
            walk->count++;
    return 0;
}

static void walk_done(void *arg, int err)
{
    struct walk *walk = arg;

    walk->is_done = true;
    walk->err = err;
}

/* Every record of every sealed segment, in one go and in pieces. */
static void test_walks_see_every_record(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, 6);
    assert_int_equal(world_start(&w), 0);
    for (int i = 0; i < 600; i++)
        assert_int_equal(world_append(&w), 0);
    assert_int_equal(world_flush(&w), 0);
    for (uint32_t piece = 0; piece <= 8192; piece += 8192) {
        uint32_t found = 0, wanted = 0;

        for (uint32_t i = 0; i < store_log_segment_count(w.log); i++) {
            const struct segment_info *info = store_log_segment(w.log, i);
            struct walk walk = {.w = &w};

            if (info->state != SEGMENT_SEALED)
                continue;
            walk.walk = (struct store_log_walk){
                .arg = &walk, .record = walk_record, .done = walk_done, .sequence = info->sequence,
                .piece_bytes = piece,
            };
            do {
                walk.is_done = false;
                store_log_walk(w.log, &walk.walk);
                assert_true(sim_run_while_not(w.sim, &walk.is_done, 100 * (uint64_t)SECOND));
            } while (walk.err == ERR_AGAIN);
            assert_int_equal(walk.err, 0);
            found += walk.count;
        }
        for (uint32_t i = 0; i < w.count; i++) {
            const struct segment_info *info = store_log_segment_find(w.log, address_sequence(w.model[i].address));

            wanted += info->state == SEGMENT_SEALED;
        }
        assert_int_equal(w.wrong, 0);
        assert_true(found > 300);
        assert_int_equal(found, wanted);
    }
    assert_int_equal(world_close(&w), 0);
    world_deinit(&w);
}

/* G7: over lives and recycled files no sequence comes twice, so no address either. */
static void test_sequences_are_not_used_again(void **state)
{
    struct world w;
    uint64_t highest = 0;

    (void)state;
    world_init(&w, 7);
    for (int life = 0; life < 6; life++) {
        assert_int_equal(world_start(&w), 0);
        assert_true(store_log_next_sequence(w.log) > highest);
        for (int i = 0; i < 300; i++)
            assert_int_equal(world_append(&w), 0);
        assert_int_equal(world_flush(&w), 0);
        for (uint32_t i = 0; i < store_log_segment_count(w.log); i++) {
            const struct segment_info *info = store_log_segment(w.log, i);

            highest = MAX(highest, info->sequence);
            if (info->state == SEGMENT_SEALED)
                store_log_cleaned(w.log, info->sequence);
        }
        w.hot_from = store_log_hot_sequence(w.log);
        w.cold_from = store_log_cold_sequence(w.log);
        store_log_release(w.log, w.hot_from, w.cold_from);
        sim_run_for(w.sim, SECOND);
        assert_in_range(store_log_segment_count(w.log), 1, 8);
        if (life % 2 == 0)
            assert_int_equal(world_close(&w), 0);
        else
            world_crash(&w, life % 4 == 1);
    }
    world_deinit(&w);
}

/* disk_max: clients are stopped while deletes and the cleaner still have a segment; what is freed lets them go on. */
static void test_a_full_disk_keeps_its_reserve(void **state)
{
    struct world w;
    uint32_t after_full = 0;
    int err = 0;

    (void)state;
    world_init(&w, 8);
    w.options.disk_max = 8 * (256 << 10);
    assert_int_equal(world_start(&w), 0);
    while (!store_log_is_disk_full(w.log)) {
        assert_int_equal(world_append_draw(&w, 100 * (draw(&w) >> 8)), 0);
        store_log_turn_end(w.log);
        sim_run_for(w.sim, 1000);
    }
    while (err == 0) {
        err = world_append_draw(&w, 100 * (draw(&w) >> 8));
        store_log_turn_end(w.log);
        sim_run_for(w.sim, 1000);
        after_full++;
    }
    assert_int_equal(err, -ENOSPC);
    assert_true(after_full > 100);
    world_copy_cold(&w, 0); /* the last one */
    assert_int_equal(store_log_error(w.log), 0);
    for (uint32_t i = 0; i < store_log_segment_count(w.log); i++)
        if (store_log_segment(w.log, i)->state == SEGMENT_SEALED)
            store_log_cleaned(w.log, store_log_segment(w.log, i)->sequence);
    store_log_release(w.log, store_log_hot_sequence(w.log), store_log_cold_sequence(w.log));
    sim_run_for(w.sim, SECOND);
    assert_false(store_log_is_disk_full(w.log));
    assert_int_equal(world_append(&w), 0);
    world_deinit(&w);
}

/* The file system's own end: no failure of the log, and it goes on by itself when there is room. */
static void test_a_full_file_system_is_no_failure(void **state)
{
    struct world w;
    int err = 0;

    (void)state;
    world_init(&w, 9);
    assert_int_equal(world_start(&w), 0);
    sim_disk_capacity_set(w.node, sim_disk_used(w.node) + (300 << 10));
    while (err == 0) {
        err = world_append_draw(&w, 100 * (draw(&w) >> 8));
        store_log_turn_end(w.log);
        sim_run_for(w.sim, 1000);
    }
    assert_int_equal(err, -ENOSPC);
    assert_true(store_log_is_disk_full(w.log));
    assert_int_equal(store_log_error(w.log), 0);
    sim_disk_capacity_set(w.node, 1ull << 30);
    sim_run_for(w.sim, 5 * SECOND);
    assert_false(store_log_is_disk_full(w.log));
    assert_true(w.rooms > 0);
    for (int i = 0; i < 50; i++)
        assert_int_equal(world_append(&w), 0);
    assert_int_equal(world_close(&w), 0);
    assert_int_equal(world_start(&w), 0);
    world_check_prefix(&w, UINT64_MAX);
    world_deinit(&w);
}

/* A draw whose record gets a file of its own; and one of which a segment holds seven. */
#define LARGE(n) (((n) * 40000ull + 39000u) * 100u + 99u)
#define SMALL(n) (((n) * 40000ull + 30000u) * 100u + 99u)

static void steps(struct world *w, int count)
{
    for (int i = 0; i < count; i++)
        MAYBE(sim_step(w->sim));
}

static uint32_t stalled_count(const struct world *w)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < w->log->used_count; i++)
        count += w->log->used[i]->is_stalled;
    return count;
}

/* All that was appended becomes durable, and is there after a power cut that leaves nothing else. */
static void all_is_kept(struct world *w)
{
    uint64_t last = store_log_last_lsn(w->log);

    assert_int_equal(world_flush(w), 0);
    assert_int_equal(store_log_marks(w->log).durable, last);
    sim_disk_crash_set(w->node, SIM_DISK_OLD);
    world_crash(w, true);
    assert_int_equal(world_start(w), 0);
    world_check_prefix(w, last);
    assert_int_equal(store_log_last_lsn(w->log), last);
    world_check_reads(w, 1);
}

/* G10. Others have filled the file system, and two large records are refused their files: the names, or the room, and at
 * any point when the first one is to be written. Free segments are theirs then, before anybody else's: hot and cold
 * appends that go on until they are refused leave fewer than two. */
static void test_who_is_refused_a_file_takes_a_free_one(void **state)
{
    int both = 0;

    (void)state;
    for (int seed = 0; seed < 48; seed++) {
        struct world w;
        int err = 0;

        world_init(&w, 40 + (uint64_t)seed);
        w.options.fsync = (enum store_fsync)(seed % 3);
        assert_int_equal(world_start(&w), 0);
        assert_int_equal(world_append_draw(&w, SMALL(0)), 0);
        assert_int_equal(world_flush(&w), 0);
        sim_run_for(w.sim, SECOND);
        assert_int_equal(w.log->ready_count, LOG_READY_TARGET + 1);
        sim_disk_capacity_set(w.node, sim_disk_used(w.node) + (seed % 4 != 0) * (16 << 10));
        for (uint64_t i = 0; i < 2 && store_log_has_room(w.log); i++) {
            err = world_append_draw(&w, LARGE(i));
            assert_true(err == 0 || (err == -ENOSPC && i == 1 && w.log->is_out_of_space));
            both += err == 0 && i == 1;
            steps(&w, seed % 8);
        }
        store_log_turn_end(w.log);
        err = 0;
        for (uint64_t i = 1; err == 0; i++) {
            world_room_wait(&w);
            err = world_append_draw(&w, SMALL(i));
            store_log_turn_end(w.log);
        }
        assert_int_equal(err, -ENOSPC);
        world_copy_cold(&w, 0);
        assert_in_range(w.log->ready_count, 0, 1);
        all_is_kept(&w);
        world_deinit(&w);
    }
    assert_true(both >= 12);
}

/* A transaction of one more than there are free segments: the last record stands still, and all that comes behind it,
 * until a segment is given back. */
static void test_who_is_refused_a_file_takes_the_next_free_one(void **state)
{
    struct world w;
    uint64_t hot_from;

    (void)state;
    world_init(&w, 80);
    assert_int_equal(world_start(&w), 0);
    for (uint64_t i = 0; i < 20; i++) {
        world_room_wait(&w);
        assert_int_equal(world_append_draw(&w, SMALL(i)), 0);
        store_log_turn_end(w.log);
    }
    assert_int_equal(world_flush(&w), 0);
    hot_from = store_log_hot_sequence(w.log);
    sim_run_for(w.sim, SECOND);
    sim_disk_capacity_set(w.node, sim_disk_used(w.node));
    store_log_atomic(w.log, true);
    for (uint64_t i = w.log->ready_count + 1; i > 0; i--)
        assert_int_equal(world_append_draw(&w, LARGE(i)), 0);
    store_log_atomic(w.log, false);
    store_log_turn_end(w.log);
    sim_run_for(w.sim, 10 * SECOND);
    assert_int_equal(stalled_count(&w), 1);
    assert_true(store_log_is_stalled(w.log));
    assert_int_equal(store_log_marks(w.log).durable, 20);
    for (uint32_t i = 0; stalled_count(&w) > 0; i++) {
        const struct segment_info *info = store_log_segment(w.log, i);

        assert_true(info->sequence < hot_from);
        if (info->state == SEGMENT_SEALED) {
            store_log_cleaned(w.log, info->sequence);
            store_log_release(w.log, hot_from, store_log_cold_sequence(w.log));
            sim_run_for(w.sim, 100000);
        }
    }
    assert_int_equal(world_flush(&w), 0);
    world_deinit(&w);
}

/* A large record is durable when it is there after a power cut, its file's name and all; whatever point the making of that
 * has come to when the record is to be written. */
static void test_a_large_record_waits_for_its_name(void **state)
{
    (void)state;
    for (int at = 0; at < 40; at++) {
        struct world w;

        world_init(&w, 120 + (uint64_t)at);
        w.options.fsync = STORE_FSYNC_ALWAYS;
        assert_int_equal(world_start(&w), 0);
        assert_int_equal(world_append_draw(&w, LARGE(0)), 0);
        steps(&w, at);
        store_log_turn_end(w.log);
        for (int i = 0; store_log_marks(w.log).durable < w.model[0].lsn; i++) {
            assert_true(i < 10000);
            steps(&w, 1);
        }
        sim_disk_crash_set(w.node, SIM_DISK_OLD);
        world_crash(&w, true);
        assert_int_equal(world_start(&w), 0);
        world_check_prefix(&w, w.model[0].lsn);
        world_deinit(&w);
    }
}

/* Others have filled the file system, and the reserve is as small as it gets. Its last segment is the cleaner's; once that
 * has one with room for its copies, deletes go on in it. */
static void test_deletes_take_what_the_cleaner_does_not_need(void **state)
{
    (void)state;
    for (unsigned has_copies = 0; has_copies < 2; has_copies++) {
        struct world w;
        struct store_log_stats stats;
        int err = 0;

        world_init(&w, 9);
        w.options.disk_max = 64 * (256 << 10);
        assert_int_equal(world_start(&w), 0);
        assert_int_equal(w.log->reserve, 2);
        assert_int_equal(world_append(&w), 0);
        assert_int_equal(world_flush(&w), 0);
        sim_disk_capacity_set(w.node, sim_disk_used(w.node) + (300 << 10));
        while (!store_log_is_disk_full(w.log)) {
            assert_int_equal(world_append_draw(&w, 100 * (draw(&w) >> 8)), 0);
            store_log_turn_end(w.log);
            sim_run_for(w.sim, 1000);
        }
        if (has_copies)
            world_copy_cold(&w, 0);
        while (err == 0) {
            err = world_append_draw(&w, 100 * (draw(&w) >> 8));
            store_log_turn_end(w.log);
            sim_run_for(w.sim, 1000);
        }
        assert_int_equal(err, -ENOSPC);
        store_log_stats_get(w.log, &stats);
        assert_int_equal(stats.segments_free, has_copies ? 0 : 1);
        world_copy_cold(&w, 0); /* it has room either way */
        assert_int_equal(store_log_error(w.log), 0);
        world_deinit(&w);
    }
}

static void fail_once(enum sim_disk_op op, enum store_fsync fsync)
{
    struct world w;
    struct store_marks before, after;
    bool is_right;

    world_init(&w, 10);
    w.options.fsync = fsync;
    assert_int_equal(world_start(&w), 0);
    for (int i = 0; i < 20; i++)
        assert_int_equal(world_append(&w), 0);
    assert_int_equal(world_flush(&w), 0);
    before = store_log_marks(w.log);
    sim_disk_fail(w.node, op, NULL, -EIO, 1);
    for (int i = 0; i < 20; i++)
        assert_int_equal(world_append_draw(&w, 100 * (draw(&w) >> 8)), 0);
    store_log_turn_end(w.log);
    sim_run_for(w.sim, 5 * SECOND);
    after = store_log_marks(w.log);
    assert_int_equal(w.failures, 1);
    assert_int_equal(store_log_error(w.log), -EIO);
    assert_int_equal(after.durable, before.durable);
    assert_int_equal(world_append(&w), -EROFS);
    assert_int_equal(world_flush(&w), -EROFS);
    assert_int_equal(store_log_marks(w.log).durable, before.durable);
    assert_int_equal(world_read(&w, 0, &is_right), 0); /* reading goes on */
    assert_true(is_right);
    world_crash(&w, true);
    assert_int_equal(world_start(&w), 0);
    world_check_prefix(&w, before.durable);
    world_deinit(&w);
}

/* G4: one error, then the disk works again; nothing that was not flushed is ever called durable. */
static void test_a_failed_write_or_flush_is_final(void **state)
{
    (void)state;
    fail_once(SIM_DISK_WRITE, STORE_FSYNC_EVERYSEC);
    fail_once(SIM_DISK_WRITE, STORE_FSYNC_ALWAYS);
    fail_once(SIM_DISK_DATASYNC, STORE_FSYNC_EVERYSEC);
    fail_once(SIM_DISK_DATASYNC, STORE_FSYNC_ALWAYS);
}

static void test_another_shard_count_is_refused(void **state)
{
    struct world w;
    unsigned char uuid[16];
    uint64_t seed;

    (void)state;
    world_init(&w, 11);
    assert_int_equal(world_start(&w), 0);
    memcpy(uuid, store_log_uuid(w.log), 16);
    seed = store_log_hash_seed(w.log);
    assert_int_equal(world_close(&w), 0);
    w.options.shard_count = 8;
    assert_int_equal(world_open(&w), ERR_INVALID);
    assert_non_null(strstr(w.last_line, "workers=4"));
    store_log_destroy(&w.log);
    w.options.shard_count = 4;
    assert_int_equal(world_start(&w), 0);
    assert_memory_equal(uuid, store_log_uuid(w.log), 16);
    assert_int_equal(seed, store_log_hash_seed(w.log));
    world_deinit(&w);
}

static void test_a_directory_has_one_owner(void **state)
{
    struct world w;
    struct store_log *first;

    (void)state;
    world_init(&w, 12);
    assert_int_equal(world_start(&w), 0);
    first = w.log;
    assert_int_equal(world_open(&w), ERR_EXISTS);
    store_log_destroy(&w.log);
    w.log = first;
    world_deinit(&w);
}

/* Reads that the disk is slow to answer: who closes waits for them, for their buffers and files are the log's. */
static void test_a_close_waits_for_reads(void **state)
{
    static struct world_read reads[40];
    struct world w;

    (void)state;
    world_init(&w, 5);
    assert_int_equal(world_start(&w), 0);
    for (uint32_t i = 0; i < ARRAY_COUNT(reads); i++)
        assert_int_equal(world_append(&w), 0);
    assert_int_equal(world_flush(&w), 0);
    sim_disk_stall(w.node, sim_now_us(w.sim) + 5 * SECOND);
    for (uint32_t i = 0; i < ARRAY_COUNT(reads); i++) {
        reads[i] = (struct world_read){
            .read = {.address = w.model[i].address, .done = world_read_done},
            .draw = w.model[i].draw, .lsn = w.model[i].lsn,
        };
        store_log_read(w.log, &reads[i].read);
    }
    sim_disk_stall(w.node, 0); /* only those */
    assert_int_equal(world_close(&w), 0);
    for (uint32_t i = 0; i < ARRAY_COUNT(reads); i++)
        assert_true(reads[i].is_done && reads[i].is_right);
    world_deinit(&w);
}

/* Page writes that found the log ring full, or had none, give back all that they have taken: else clients would be told
 * for ever that there is no room. */
static void test_what_lies_beside_the_ring_is_given_back(void **state)
{
    (void)state;
    for (int has_ring = 0; has_ring < 2; has_ring++) {
        struct world w;
        bool was_beside = false;

        world_init(&w, 31);
        if (!has_ring)
            w.options.ring_path = NULL;
        assert_int_equal(world_start(&w), 0);
        for (int round = 0; round < 100; round++) {
            for (int i = 0; i < 100; i++) /* more in a turn than the ring holds */
                assert_int_equal(world_append_draw(&w, draw(&w)), 0);
            was_beside |= w.log->heap_bytes > 0;
            assert_int_equal(world_flush(&w), 0);
            assert_int_equal(w.log->heap_bytes, 0);
            assert_int_equal(w.log->heap_count, 0);
            if (!store_log_has_room(w.log)) /* the next free segment is being made */
                sim_run_for(w.sim, SECOND);
            assert_true(store_log_has_room(w.log));
        }
        assert_true(was_beside);
        world_deinit(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records_are_read_from_memory_and_from_disk),
        cmocka_unit_test(test_a_clean_stop_loses_nothing),
        cmocka_unit_test(test_marks_keep_their_order),
        cmocka_unit_test(test_turns_share_a_write),
        cmocka_unit_test(test_commits_share_a_flush),
        cmocka_unit_test(test_walks_see_every_record),
        cmocka_unit_test(test_sequences_are_not_used_again),
        cmocka_unit_test(test_a_full_disk_keeps_its_reserve),
        cmocka_unit_test(test_a_full_file_system_is_no_failure),
        cmocka_unit_test(test_who_is_refused_a_file_takes_a_free_one),
        cmocka_unit_test(test_who_is_refused_a_file_takes_the_next_free_one),
        cmocka_unit_test(test_a_large_record_waits_for_its_name),

        cmocka_unit_test(test_deletes_take_what_the_cleaner_does_not_need),
        cmocka_unit_test(test_a_failed_write_or_flush_is_final),
        cmocka_unit_test(test_another_shard_count_is_refused),
        cmocka_unit_test(test_a_directory_has_one_owner),
        cmocka_unit_test(test_a_close_waits_for_reads),
        cmocka_unit_test(test_what_lies_beside_the_ring_is_given_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
