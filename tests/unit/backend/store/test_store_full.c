/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that is full, under a store with a model beside it. What is promised: only the writes end, reads and deletes go
 * on; what is deleted makes room, where nobody else gives any, too; and a close ends in time, with all that was answered.
 *
 * A sample by default; STORE_SEEDS=N: that many times as much.
 */
#include "tests/unit/backend/store/store_faulty.h"

#include "backend/store/log_private.h"

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

static uint64_t bound_of(struct world *w)
{
    struct store_stats stats;

    store_stats_get(w->store, &stats);
    return stats.disk_bound;
}

/* Nobody has said how much of the disk is ours: it is what the file system has left beside what checkpoints come to want. So
 * clients are told while it has that, and what others take is less for us. */
static void test_the_bound_is_the_room_of_the_file_system(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= world_times(3); seed++) {
        uint64_t capacity, before;
        struct faulty f;
        struct world *w = &f.w;
        unsigned count = 0;

        begin(&f, seed, (enum store_fsync)(seed % 3));
        world_open(w);
        capacity = sim_disk_used(w->node) + 60 * SEGMENT;
        sim_disk_capacity_set(w->node, capacity);
        sim_run_for(w->sim, 3000000);
        put_or_delete(w, count++, true);
        before = bound_of(w);
        assert_in_range(before, 40 * SEGMENT, capacity - SEGMENT);

        capacity -= 20 * SEGMENT;
        sim_disk_capacity_set(w->node, capacity);
        sim_run_for(w->sim, 3000000);
        put_or_delete(w, count++, true);
        assert_in_range(bound_of(w), before - 21 * SEGMENT, before - 19 * SEGMENT);

        for (unsigned i = 0; i < 5000 && store_may_write(w->store, 1) != -ENOSPC; i++) {
            if (store_may_write(w->store, 1) == 0)
                put_or_delete(w, count++, true);
            sim_run_for(w->sim, 1000);
        }
        assert_int_equal(store_may_write(w->store, 1), -ENOSPC);
        assert_true(sim_disk_used(w->node) + checkpoint_room(w->store) <= capacity);
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

    for (unsigned i = 0; !world_room_wait(w, 0) || !store_may_delete(w->store, 4096); i++) {
        if (i == 3000)
            return false;
        sim_run_for(w->sim, 10000);
    }
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

/* All that is there can be deleted, and then written again. */
static void life_empty(struct world *w, uint64_t seed)
{
    for (unsigned i = 0; i < LIFE_KEYS; i++)
        if (!life_delete(w, i))
            fail_msg("seed %lu: a delete is refused at the end", (unsigned long)seed);
    sim_run_for(w->sim, 20000000);
    assert_int_equal(life_put(w, 0, SEGMENT), 0);
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
    life_empty(w, seed);
    end(&f);
}

/* Nobody has said how much of the disk is ours. */
static void test_a_life_on_a_full_disk(void **state)
{
    static const uint64_t known[] = {78, 1104, 1122, 1218, 1258};

    (void)state;
    for (uint64_t seed = world_seed_first(); seed < world_seed_first() + world_times(8); seed++)
        life(seed, false);
    /* Others have taken all of the disk before there was a checkpoint, which so has only what free segments leave it, over
     * starts that take one each: these lives ended in refused deletes, and in a start without a segment. */
    for (unsigned i = 0; i < ARRAY_COUNT(known); i++)
        life(known[i], false);
}

static void test_a_life_with_a_bound(void **state)
{
    (void)state;
    for (uint64_t seed = world_seed_first() + 60; seed < world_seed_first() + 60 + world_times(6); seed++)
        life(seed, true);
    life(1292, true); /* the last free segment is for the hot log: the one before has nothing that lives */
}

static void life_with_other_segments(uint64_t seed)
{
    const uint32_t sizes[] = {8u * SEGMENT, 2u * SEGMENT};
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
    life_empty(w, seed);
    end(&f);
}

/* Others have taken the rest of the disk, and the free segments have a size that new ones have not: they go, without a
 * checkpoint, for which there is no room either. */
static void test_deletes_where_free_segments_have_another_size(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= world_times(6); seed++)
        life_with_other_segments(seed);
    life_with_other_segments(70); /* what is left is open, and dead */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_full_disk),
        cmocka_unit_test(test_killed_again_on_a_full_disk),
        cmocka_unit_test(test_deletes_make_room_on_a_full_disk),
        cmocka_unit_test(test_the_bound_is_the_room_of_the_file_system),
        cmocka_unit_test(test_a_life_on_a_full_disk),
        cmocka_unit_test(test_a_life_with_a_bound),
        cmocka_unit_test(test_deletes_where_free_segments_have_another_size),
        cmocka_unit_test(test_a_close_does_not_wait_for_room),
        cmocka_unit_test(test_a_close_does_not_wait_for_a_copy),
        cmocka_unit_test(test_a_close_takes_the_room_that_comes),
        cmocka_unit_test(test_a_close_at_any_moment),
    };

    return cmocka_run_group_tests_name("store_full", tests, NULL, NULL);
}
