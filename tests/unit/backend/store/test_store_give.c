/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments that go before a checkpoint comes (cleaner_give.c): whenever the process dies or the power is cut, what the
 * newest checkpoint names and is gone has a copy, or something newer, in the log; what has neither is a start refused.
 *
 * A sample by default; STORE_SEEDS=N: that many times as much.
 */
#include "tests/unit/backend/store/store_world.h"

#include "backend/store/checkpoint_private.h"
#include "backend/store/cleaner_private.h"
#include "backend/store/log_private.h"

#define SEGMENT  (128u << 10)
#define DISK     (2u << 20)
#define LIVES    4u

static void begin(struct world *w, uint64_t seed, enum store_fsync fsync)
{
    world_init(w, seed, NULL);
    w->options.segment_size = SEGMENT;
    w->options.ring_size = 1u << 18;
    w->options.disk_max = DISK;
    w->options.fsync = fsync;
    w->value_max = 3000;
}

/* What is open now holds a prefix, with all that was promised. */
static void judge(struct world *w, uint64_t promised)
{
    uint64_t lsn = store_marks_of(w->store).appended;

    assert_true(lsn >= promised && lsn <= w->lsn_last);
    world_forget_after(w, lsn);
    world_check(w, lsn);
}

/* Lives that end at any moment, one after the other, in a directory whose cleaner works all the time. */
static void test_whenever_it_ends(void **state)
{
    uint64_t given = 0, places_gone = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= world_times(30); seed++) {
        struct world w;

        begin(&w, seed, (enum store_fsync)(seed % 3));
        world_open(&w);
        for (unsigned life = 0; life < LIVES; life++) {
            bool with_host = world_random(&w, 2) == 0;

            assert_true(world_live_in_room(&w, 500 + (unsigned)world_random(&w, 500)));
            for (unsigned i = (unsigned)world_random(&w, 40); i > 0; i--)
                MAYBE(sim_step(w.sim));
            given += w.store->stats.segments_given;
            world_die(&w, with_host);
            world_open(&w);
            places_gone += w.store->has_places_gone;
            judge(&w, with_host ? w.marks.durable : w.marks.appended);
        }
        world_close(&w);
        world_open(&w);
        assert_false(w.store->has_places_gone); /* the last checkpoint knows where all of it is */
        judge(&w, w.marks.appended);
        world_deinit(&w);
    }
    print_message("# %llu segments given early, %llu starts with places that were gone\n", (unsigned long long)given,
                  (unsigned long long)places_gone);
    assert_true(given > 100 && places_gone > 10);
}

struct moved {
    struct world *w;
    uint64_t slot; /* of a segment with a value that the checkpoint looks for elsewhere; UINT64_MAX: none */
};

static void moved_each(void *arg, struct entry *e)
{
    struct moved *moved = arg;
    const struct segment_info *info =
        store_log_segment_find(moved->w->store->log, address_sequence(e->address));

    if (info != NULL && info->kind == SEGMENT_COLD && checkpoint_is_since(moved->w->store->checkpoint, entry_lsn(e),
                                                                          entry_lsn(e), e->address))
        moved->slot = info->slot;
}

/* Keys that are written over, over and over. */
static void noise(struct world *w, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        assert_true(world_room_wait(w, 4096));
        world_set(w, 0, (uint16_t)(32 + i % 32), i + 1u, 2500);
        store_turn_end(w->store);
        sim_run_for(w->sim, 500);
    }
}

/* V1: while a transaction has not ended in the log, its changes may be cut, and what they took the place of is needed. */
static void test_none_goes_while_a_transaction_has_not_ended(void **state)
{
    struct world w;
    unsigned seen = 0;

    (void)state;
    begin(&w, 11, STORE_FSYNC_EVERYSEC);
    world_open(&w);
    for (unsigned i = 0; i < 3000 && seen == 0; i++) {
        noise(&w, 1);
        for (uint32_t k = 0; k < store_log_segment_count(w.store->log); k++) {
            const struct segment_info *segment = store_log_segment(w.store->log, k);

            if (!clean_goes(w.store, segment))
                continue;
            w.store->log->is_unit_open = true;
            assert_false(clean_goes(w.store, segment));
            w.store->log->is_unit_open = false;
            seen++;
        }
    }
    assert_true(seen > 0);
    world_deinit(&w);
}

/* Some keys that stay lie among others, until segments have gone early, and the newest checkpoint looks for one that stays
 * where it does not lie any more. */
static void live_until_moved(struct world *w, struct moved *moved)
{
    for (uint16_t k = 0; k < 24; k++) {
        world_set(w, 0, k, k + 1u, 2500);
        noise(w, 10);
    }
    for (unsigned i = 0; i < 20000 && moved->slot == UINT64_MAX; i++) {
        uint64_t given = w->store->stats.segments_given;

        noise(w, 1);
        if (w->store->stats.segments_given > given)
            index_page_each(w->store->index, 0, 0, moved_each, moved);
    }
    assert_true(moved->slot != UINT64_MAX);
}

/* Copies are lost. If one was the only one, the start says so; else all is there. */
static void test_a_lost_copy_is_missed(void **state)
{
    unsigned refused = 0;

    (void)state;
    for (unsigned seed = 1; seed <= 10; seed++) {
        struct world w;
        struct moved moved = {.w = &w, .slot = UINT64_MAX};
        char path[64];

        begin(&w, seed, STORE_FSYNC_EVERYSEC);
        world_open(&w);
        live_until_moved(&w, &moved);
        (void)snprintf(path, sizeof(path), WORLD_DIR "/%06u.seg", (unsigned)moved.slot);
        world_die(&w, false);
        sim_disk_cut_file(w.node, path, 0); /* as if it had never been made */
        if (world_try_open(&w) == 0) {
            judge(&w, w.marks.appended);
        } else {
            assert_int_equal(w.err, ERR_CORRUPT);
            refused++;
            world_give_up(&w);
        }
        world_deinit(&w);
    }
    print_message("# %u of 10 starts were refused\n", refused);
    assert_true(refused > 0);
}

/* Emptied, and of no use to a recovery but for what V3 says. */
static bool is_any_held(struct world *w)
{
    for (uint32_t i = 0; i < store_log_segment_count(w->store->log); i++) {
        const struct segment_info *info = store_log_segment(w->store->log, i);

        if (info->is_emptied && clean_would_go(w->store, info))
            return true;
    }
    return false;
}

/* A key that expired while nothing could be logged has left no record: nothing goes before a checkpoint has come. */
static void test_a_silent_expiry_waits_for_a_checkpoint(void **state)
{
    struct world w;
    struct moved moved = {.w = &w, .slot = UINT64_MAX};
    uint64_t given, checkpoints;

    (void)state;
    begin(&w, 7, STORE_FSYNC_EVERYSEC);
    world_open(&w);
    live_until_moved(&w, &moved);
    while (w.store->cleaner->is_giving || checkpoint_is_running(w.store))
        sim_run_for(w.sim, 100);
    w.store->is_unlogged = true;
    w.store->checkpoint_again_ms = w.store->now_ms + 3600000; /* as if the last one had failed */
    given = w.store->stats.segments_given;
    checkpoints = w.store->stats.checkpoints;
    for (unsigned i = 0; i < 2000 && !is_any_held(&w); i++)
        noise(&w, 1);
    assert_true(is_any_held(&w));
    sim_run_for(w.sim, 1000000);
    assert_int_equal(w.store->stats.segments_given, given);
    assert_int_equal(w.store->stats.checkpoints, checkpoints);
    w.store->checkpoint_again_ms = 0;
    for (unsigned i = 0; i < 20000 && w.store->stats.segments_given == given; i++)
        noise(&w, 1);
    assert_true(w.store->stats.segments_given > given);
    assert_true(w.store->stats.checkpoints > checkpoints);
    assert_false(w.store->is_unlogged || w.store->cleaner->is_unlogged);
    world_deinit(&w);
}

/* Later headers tell the LSN that was durable when the last one went, in this life and the next. */
static void test_headers_tell(void **state)
{
    struct world w;
    struct moved moved = {.w = &w, .slot = UINT64_MAX};
    uint64_t lsn;

    (void)state;
    begin(&w, 9, STORE_FSYNC_EVERYSEC);
    world_open(&w);
    live_until_moved(&w, &moved);
    lsn = w.store->log->given_lsn;
    assert_true(lsn > 0 && lsn <= store_marks_of(w.store).durable);
    world_close(&w);
    world_open(&w);
    assert_true(w.store->log->given_lsn > 0);
    world_deinit(&w);
}

#define GONE_MAX 4096u

/* Segments in use, and those that went in this life, with the LSN that has to be told once their pages are gone. */
struct gone {
    uint64_t used[GONE_MAX], sequences[GONE_MAX], lsns[GONE_MAX];
    uint32_t used_count, count, removed;
};

static void used_know(struct world *w, struct gone *gone)
{
    gone->used_count = store_log_segment_count(w->store->log);
    assert_true(gone->used_count <= GONE_MAX);
    for (uint32_t i = 0; i < gone->used_count; i++)
        gone->used[i] = store_log_segment(w->store->log, i)->sequence;
}

/* Steps of the simulator; those that a checkpoint let go need not be told. */
static void steps_watched(struct world *w, struct gone *gone, unsigned count)
{
    while (count-- > 0) {
        uint64_t given = w->store->stats.segments_given;

        used_know(w, gone);
        if (!sim_step(w->sim))
            return;
        for (uint32_t i = 0; w->store->stats.segments_given > given && i < gone->used_count; i++) {
            if (store_log_segment_find(w->store->log, gone->used[i]) != NULL)
                continue;
            assert_true(gone->count < GONE_MAX);
            gone->sequences[gone->count] = gone->used[i];
            gone->lsns[gone->count++] = w->store->log->given_lsn;
        }
    }
}

/* N1: whenever it dies, and whether the segment was one of many or a file of its own that is removed; others fill the file
 * system of some. */
static void test_what_is_gone_is_told(void **state)
{
    struct gone *gone = must_zalloc(sizeof(*gone));
    uint64_t given = 0, placed = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= world_times(20); seed++) {
        struct world w;

        begin(&w, seed, (enum store_fsync)(seed % 3));
        world_open(&w);
        for (unsigned life = 0; life < LIVES; life++) {
            bool with_host = world_random(&w, 2) == 0;
            unsigned count = 100 + (unsigned)world_random(&w, 200);

            gone->count = 0;
            if (seed % 4 == 0)
                sim_disk_capacity_set(w.node, sim_disk_used(w.node) + 600000);
            for (unsigned i = 0; i < count; i++) {
                uint16_t key = (uint16_t)world_random(&w, 24);

                if (world_room_wait(&w, 32768))
                    world_set(&w, 0, key, i + 1u, i % 3 == 0 ? 24000 : 2500);
                else
                    world_delete(&w, 0, key);
                store_turn_end(w.store);
                steps_watched(&w, gone, 5 + (unsigned)world_random(&w, 20));
            }
            given += gone->count;
            placed += world_placed_count(&w);
            world_die(&w, with_host);
            world_open(&w);
            for (uint32_t i = 0; i < gone->count; i++) {
                if (store_log_segment_find(w.store->log, gone->sequences[i]) != NULL)
                    continue;
                assert_true(w.store->log->given_lsn >= gone->lsns[i]);
                gone->removed++;
            }
            judge(&w, with_host ? w.marks.durable : w.marks.appended);
        }
        world_deinit(&w);
    }
    print_message("# %llu segments given early, %u of them gone after the start, %llu large ones in segments\n",
                  (unsigned long long)given, gone->removed, (unsigned long long)placed);
    assert_true(gone->removed > 100 && placed > 0);
    mem_free(gone);
}

/* Files come and go for so many turns, or until something is told, or cannot be. */
static void files_come_and_go(struct world *w, unsigned count, bool until_told)
{
    const struct log_given *given = &w->store->log->given;

    for (unsigned i = 0; i < count && !w->store->stats.is_read_only && !given->is_untold; i++) {
        uint16_t key = (uint16_t)world_random(w, 24);

        if (world_room_wait(w, 32768))
            world_set(w, 0, key, i + 1u, i % 3 == 0 ? 24000 : 2500);
        else if (store_may_write(w->store, 0) == 0)
            world_delete(w, 0, key);
        store_turn_end(w->store);
        for (unsigned step = 0; step < 20; step++) {
            if (until_told && given->is_writing)
                return;
            MAYBE(sim_step(w->sim));
        }
    }
}

/* Then no file is removed for it, and nothing more is written; if it is for want of room, life goes on (N1). A close that
 * comes in the middle of it waits for it. */
static void test_what_cannot_be_told(void **state)
{
    static const struct {
        enum sim_disk_op op;
        int err;
    } faults[] = {{SIM_DISK_WRITE, -EIO}, {SIM_DISK_DATASYNC, -EIO}, {SIM_DISK_WRITE, -ENOSPC}, {SIM_DISK_DATASYNC, -ENOSPC},
                  {SIM_DISK_WRITE, 0}};

    (void)state;
    for (uint64_t seed = 0; seed < world_times(3 * ARRAY_COUNT(faults)); seed++) {
        int err = faults[seed % ARRAY_COUNT(faults)].err;
        uint64_t told;
        struct world w;

        begin(&w, seed + 1, (enum store_fsync)(seed % 3));
        world_open(&w);
        files_come_and_go(&w, 60, false);
        told = w.store->log->given.told_lsn;
        if (err != 0)
            sim_disk_fail(w.node, faults[seed % ARRAY_COUNT(faults)].op, WORLD_DIR "/lock", err, 1);
        files_come_and_go(&w, 1000, err == 0);
        assert_int_equal(w.store->stats.is_read_only, err == -EIO);
        assert_int_equal(w.store->log->given.is_untold, err == -ENOSPC);
        assert_int_equal(w.store->log->given.is_writing, err == 0);
        if (err == -EIO)
            assert_true(w.store->log->given.told_lsn >= told && w.store->log->given.told_lsn < w.store->log->given_lsn);
        world_close(&w);
        world_open(&w);
        judge(&w, w.marks.durable);
        files_come_and_go(&w, 100, false);
        assert_int_equal(store_may_write(w.store, 0), 0);
        world_deinit(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whenever_it_ends),
        cmocka_unit_test(test_none_goes_while_a_transaction_has_not_ended),
        cmocka_unit_test(test_a_lost_copy_is_missed),
        cmocka_unit_test(test_a_silent_expiry_waits_for_a_checkpoint),
        cmocka_unit_test(test_headers_tell),
        cmocka_unit_test(test_what_is_gone_is_told),
        cmocka_unit_test(test_what_cannot_be_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
