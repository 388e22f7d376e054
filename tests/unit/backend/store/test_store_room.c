/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that is nearly full of what lives, overwritten for ever: every write is taken in the end, and what goes to the
 * disk for it stays within bounds. Bytes are counted, no times.
 */
#include "tests/unit/backend/store/store_world.h"

#include <math.h>

/* A sanitized run takes seven times as long: it writes less. */
#ifdef TEST_ASAN
#define SHARE 4u
#else
#define SHARE 1u
#endif

#define SEGMENT_SIZE (512u << 10)
#define VALUE_SIZE   4000u
#define RECORD_SIZE  (32u + 16u + VALUE_SIZE) /* about */
#define TURN_SETS    16u
#define WAIT_TURNS   3000u

struct overwriting {
    struct world w;
    uint32_t keys;
    double *sums; /* owns; of the zipf weights */
    uint64_t waits, longest_wait;
};

/* The weights of 1 / i^0.99, added up; keys are spread over them by a multiplication. */
static void zipf_make(struct overwriting *o)
{
    double sum = 0;

    o->sums = must_alloc(sizeof(double) * o->keys);
    for (uint32_t i = 0; i < o->keys; i++)
        o->sums[i] = sum += pow(1.0 + i, -0.99);
}

static uint32_t key_draw(struct overwriting *o)
{
    uint32_t low = 0, high = o->keys - 1;
    double at;

    at = (double)world_random(&o->w, 1u << 30) / (double)(1u << 30) * o->sums[o->keys - 1];
    while (low < high) {
        uint32_t middle = (low + high) / 2;

        if (o->sums[middle] <= at)
            low = middle + 1;
        else
            high = middle;
    }
    return (uint32_t)((uint64_t)low * 2654435761u % o->keys);
}

/* As a parked client: again and again until it may. */
static int may_write(struct overwriting *o, size_t bytes)
{
    int err = store_may_write(o->w.store, bytes);
    uint64_t wait = 0;

    for (; err == ERR_AGAIN && wait < WAIT_TURNS; wait++) {
        store_turn_end(o->w.store);
        sim_run_for(o->w.sim, 1000);
        err = store_may_write(o->w.store, bytes);
    }
    o->waits += wait > 0;
    o->longest_wait = MAX(o->longest_wait, wait);
    return err;
}

static void set(struct overwriting *o, uint32_t k, uint32_t seed)
{
    char name[32], value[VALUE_SIZE];
    struct store_key key;

    assert_int_equal(may_write(o, VALUE_SIZE), 0);
    memset(value, (int)seed, sizeof(value));
    memcpy(value, &seed, sizeof(seed));
    store_find(o->w.store, 0, bytes_of(name, (size_t)snprintf(name, sizeof(name), "key:%012u", k)), &key);
    assert_int_equal(store_put_string(o->w.store, &key, bytes_of(value, sizeof(value)), NULL), 0);
    if (seed % TURN_SETS == 0) {
        store_turn_end(o->w.store);
        sim_run_for(o->w.sim, 300);
    }
}

/* Bytes to the device over bytes of clients' records. */
static double overwrite(struct overwriting *o, uint64_t bytes)
{
    struct store_stats before, after;

    store_stats_get(o->w.store, &before);
    for (uint64_t i = 0; i < bytes / RECORD_SIZE; i++)
        set(o, key_draw(o), (uint32_t)i);
    store_stats_get(o->w.store, &after);
    return (double)(after.bytes_written - before.bytes_written) /
           (double)(after.record_bytes_client - before.record_bytes_client);
}

/* Then `bytes` are overwritten. */
static double fill_and_overwrite(uint64_t disk, unsigned percent, uint64_t bytes)
{
    struct overwriting o = {.keys = (uint32_t)(disk / 100 * percent / RECORD_SIZE)};
    struct sim_options options;
    double first, then;

    sim_options_calm(&options);
    options.disk.capacity = 4 * disk;
    world_init(&o.w, percent, &options);
    o.w.options.segment_size = SEGMENT_SIZE;
    o.w.options.disk_max = disk;
    zipf_make(&o);
    world_open(&o.w);
    for (uint32_t k = 0; k < o.keys; k++)
        set(&o, k, k);
    first = overwrite(&o, bytes / 10); /* until it is always the same */
    then = overwrite(&o, bytes / 10 * 9);
    print_message("# %u %% full: %.2f, then %.2f; %llu waits, the longest %llu ms, %llu checkpoints\n", percent, first,
                  then, (unsigned long long)o.waits, (unsigned long long)o.longest_wait,
                  (unsigned long long)o.w.store->stats.checkpoints);
    mem_free(o.sums);
    world_deinit(&o.w);
    return then;
}

static void test_overwriting_at_three_quarters(void **state)
{
    (void)state;
    assert_true(fill_and_overwrite(64u << 20, 75, (640u << 20) / SHARE) <= 2.7);
}

static void test_overwriting_at_nine_tenths(void **state)
{
    (void)state;
    /* A sample, or ten times the disk. */
    assert_true(fill_and_overwrite(128u << 20, 90, world_seeds() != 0 ? 1280u << 20 : 40u << 20) <= 9.0);
}

static void gone(struct overwriting *o, uint32_t k)
{
    struct store_key key;
    char name[32];

    assert_int_equal(store_may_write(o->w.store, 0), 0);
    store_find(o->w.store, 0, bytes_of(name, (size_t)snprintf(name, sizeof(name), "key:%012u", k)), &key);
    assert_non_null(key.entry);
    assert_int_equal(store_delete(o->w.store, &key), 0);
}

/* Killed again and again on a full disk, before a checkpoint has made room: each start takes a segment for what the log
 * ring has, and has one made when none is left. What is more than `disk` then goes when it is free. */
static void test_killed_again_and_again_on_a_full_disk(void **state)
{
    struct overwriting o = {.keys = 1};
    struct store_stats stats;
    uint64_t disk = 16u << 20;
    uint32_t k = 0, first = 0;

    (void)state;
    world_init(&o.w, 5, NULL);
    o.w.options.segment_size = SEGMENT_SIZE / 2;
    o.w.options.disk_max = disk;
    world_open(&o.w);
    for (; may_write(&o, VALUE_SIZE) == 0; k++)
        set(&o, k, k);
    for (; first < 12; first++) {
        gone(&o, first);
        store_turn_end(o.w.store);
        world_die(&o.w, false);
        world_open(&o.w);
        assert_int_equal(store_marks_of(o.w.store).appended, o.w.marks.appended);
    }
    store_stats_get(o.w.store, &stats);
    assert_int_equal(stats.keys, k - first);
    assert_true(stats.disk_bytes > disk);
    for (; first < k / 2; first++)
        gone(&o, first);
    for (uint32_t i = 0; i < 2 * k; i++)
        set(&o, k / 2 + i % (k / 2), i);
    sim_run_for(o.w.sim, 5000000);
    store_stats_get(o.w.store, &stats);
    assert_true(stats.disk_bytes <= disk);
    world_deinit(&o.w);
}

/* What lives does not fit: that is said at once, not after waiting; and when keys go it is over. */
static void test_what_does_not_fit(void **state)
{
    struct overwriting o = {.keys = 1};
    uint64_t disk = 16u << 20;
    uint32_t k = 0;
    int err;

    (void)state;
    world_init(&o.w, 3, NULL);
    o.w.options.segment_size = SEGMENT_SIZE / 2;
    o.w.options.disk_max = disk;
    world_open(&o.w);
    while ((err = may_write(&o, VALUE_SIZE)) == 0 && k < disk / RECORD_SIZE)
        set(&o, k++, 1);
    assert_int_equal(err, -ENOSPC);
    assert_true(k > disk / RECORD_SIZE * 3 / 4);
    assert_true(o.longest_wait < 200); /* for a file, at most */
    for (uint32_t i = 0; i < k; i += 2)
        gone(&o, i);
    store_turn_end(o.w.store);
    sim_run_for(o.w.sim, 30000);
    assert_int_equal(may_write(&o, VALUE_SIZE), 0);
    world_deinit(&o.w);
}

/* Records that get files of their own, on a disk whose room is in segments that are free, or would be: they get it. What
 * is larger than the disk is refused, and harms nobody. */
static void test_large_among_small(void **state)
{
    struct overwriting o = {.keys = 500};
    const size_t sizes[] = {100u << 10, 700u << 10, 2u << 20};
    uint64_t disk = 12u << 20;
    char *value = must_zalloc(sizes[2]);

    (void)state;
    world_init(&o.w, 4, NULL);
    o.w.options.segment_size = SEGMENT_SIZE / 2;
    o.w.options.disk_max = disk;
    zipf_make(&o);
    world_open(&o.w);
    for (uint32_t i = 0; i < 400 / SHARE; i++) {
        size_t size = sizes[world_random(&o.w, 3)];
        struct store_key key;
        char name[32];

        for (uint32_t k = 0; k < 40; k++)
            set(&o, key_draw(&o), k);
        assert_int_equal(may_write(&o, size), 0);
        store_find(o.w.store, 0, bytes_of(name, (size_t)snprintf(name, sizeof(name), "large:%u", i % 2)), &key);
        assert_int_equal(store_put_string(o.w.store, &key, bytes_of(value, size), NULL), 0);
        store_turn_end(o.w.store);
        if (i % 100 == 0)
            assert_int_equal(may_write(&o, disk), -ENOSPC);
        if (i % 10 == 0) { /* segments that a start has found free are removed as well */
            world_close(&o.w);
            world_open(&o.w);
        }
    }
    mem_free(value);
    mem_free(o.sums);
    world_deinit(&o.w);
}

/* In every mode of fsync a disk is written over, time and again, by small values, and by nothing but large ones: for each
 * the files of those before them come back. */
static void overwrite_in_mode(enum store_fsync fsync, size_t size)
{
    struct overwriting o = {.keys = 10};
    uint64_t disk = 8u << 20;
    char *value = must_zalloc(size);

    world_init(&o.w, 5, NULL);
    o.w.options.segment_size = SEGMENT_SIZE / 2;
    o.w.options.disk_max = disk;
    o.w.options.fsync = fsync;
    world_open(&o.w);
    for (uint64_t i = 0; i < 5 * disk / size; i++) {
        struct store_key key;
        char name[32];

        assert_int_equal(may_write(&o, size), 0);
        store_find(o.w.store, 0, bytes_of(name, (size_t)snprintf(name, sizeof(name), "key:%u", (unsigned)i % 10)), &key);
        assert_int_equal(store_put_string(o.w.store, &key, bytes_of(value, size), NULL), 0);
        store_turn_end(o.w.store);
        if (i % TURN_SETS == 0)
            sim_run_for(o.w.sim, 300);
        if (i % 50 == 49) { /* by and by with everything cleaned that is there, and nothing of the hot log open */
            world_die(&o.w, false);
            world_open(&o.w);
        }
    }
    world_close(&o.w);
    world_open(&o.w);
    assert_int_equal(store_count(o.w.store, 0), 10);
    mem_free(value);
    world_deinit(&o.w);
}

static void test_every_mode_gives_back(void **state)
{
    const enum store_fsync modes[] = {STORE_FSYNC_NO, STORE_FSYNC_EVERYSEC, STORE_FSYNC_ALWAYS};

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(modes); i++) {
        overwrite_in_mode(modes[i], VALUE_SIZE);
        overwrite_in_mode(modes[i], 100u << 10);
    }
}

/* Sixteen segments, and objects that need a file of their own when they are copied: the disk is full of segments, and
 * one has to go for it. */
static void test_large_copies_get_room(void **state)
{
    const uint64_t seeds[] = {110, 133, 553, 596, 654, 807, 1, 2, 3};

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(seeds); i++) {
        struct world w;

        world_init(&w, seeds[i], NULL);
        w.options.segment_size = 64u << 10;
        w.options.ring_size = 1u << 18;
        w.options.disk_max = 1u << 20;
        w.value_max = 3000;
        for (unsigned life = 0; life < 4; life++) {
            world_open(&w);
            assert_true(world_live_in_room(&w, 500 + (unsigned)world_random(&w, 500)));
            world_die(&w, false);
        }
        world_deinit(&w);
    }
}

/* Nobody has said how much of the disk is ours, and what was on it is deleted: it is given back but for a few free segments,
 * also by a store that has just been opened. */
static void test_what_is_not_needed_is_given_back(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 3; seed++) {
        struct world w;
        struct store_stats stats;
        char name[32], value[6000] = "";
        struct store_key key;
        uint64_t most;

        world_init(&w, seed, NULL);
        w.options.segment_size = 64u << 10;
        w.options.fsync = (enum store_fsync)(seed % 3);
        world_open(&w);
        for (unsigned k = 0; k < 3000; k++) {
            assert_true(world_room_wait(&w, 1));
            store_find(w.store, 0, world_other_key(k, name), &key);
            assert_int_equal(store_put_string(w.store, &key, bytes_of(value, sizeof(value)), NULL), 0);
            store_turn_end(w.store);
            sim_run_for(w.sim, 500);
        }
        store_stats_get(w.store, &stats);
        most = stats.disk_bytes;
        for (unsigned k = 0; k < 3000; k++) {
            store_find(w.store, 0, world_other_key(k, name), &key);
            assert_int_equal(store_delete(w.store, &key), 0);
            store_turn_end(w.store);
            sim_run_for(w.sim, 500);
        }
        if (seed == 2) {
            world_close(&w);
            world_open(&w);
        }
        sim_run_for(w.sim, 60000000);
        store_stats_get(w.store, &stats);
        assert_true(most > 250 * w.options.segment_size && stats.disk_bytes < 40 * w.options.segment_size);
        world_deinit(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_overwriting_at_three_quarters),
        cmocka_unit_test(test_overwriting_at_nine_tenths),
        cmocka_unit_test(test_killed_again_and_again_on_a_full_disk),
        cmocka_unit_test(test_what_does_not_fit),
        cmocka_unit_test(test_large_among_small),
        cmocka_unit_test(test_every_mode_gives_back),
        cmocka_unit_test(test_large_copies_get_room),
        cmocka_unit_test(test_what_is_not_needed_is_given_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
