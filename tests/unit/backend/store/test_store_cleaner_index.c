/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments that the index shows to be dead: as many as there are, and never one more, whatever the counts say.
 */
#include "tests/unit/backend/store/store_world.h"

#include "backend/store/cleaner_private.h"

#define SEGMENT (64u << 10)

static void world_small(struct world *w, uint64_t seed)
{
    world_init(w, seed, NULL);
    w->options.segment_size = SEGMENT;
    world_open(w);
}

static void other_put(struct world *w, unsigned i, size_t len)
{
    char name[32], value[64];
    struct store_key key;

    world_fill(value, sizeof(value), i);
    store_find(w->store, 2, world_other_key(i, name), &key);
    assert_int_equal(store_put_string(w->store, &key, bytes_of(value, len), NULL), 0);
}

static void other_delete(struct world *w, unsigned i)
{
    char name[32];
    struct store_key key;

    store_find(w->store, 2, world_other_key(i, name), &key);
    assert_int_equal(store_delete(w->store, &key), 0);
}

static void overwrite(struct world *w, uint16_t k, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        world_set(w, 0, k, i + 1, 500);
        store_turn_end(w->store);
        sim_run_for(w->sim, 200);
    }
    sim_run_for(w->sim, 1000000);
}

/* Of few keys that change often all segments but the last are dead: not one is read, nothing is moved. */
static void test_what_is_dead_is_not_read(void **state)
{
    struct world w;

    (void)state;
    world_small(&w, 1);
    overwrite(&w, 1, 3000);
    assert_true(w.store->stats.cleaner_segments > 10);
    assert_int_equal(w.store->stats.cleaner_segments_by_index, w.store->stats.cleaner_segments);
    assert_int_equal(w.store->stats.cleaner_bytes, 0);
    world_check(&w, UINT64_MAX);
    world_end_life(&w);
    world_deinit(&w);
}

/* Many keys, which the walk of a victim is through with sooner. */
static void test_many_keys_are_not_looked_at(void **state)
{
    struct world w;

    (void)state;
    world_small(&w, 2);
    for (unsigned i = 0; i < SEGMENT / 256; i++)
        other_put(&w, i, 10);
    overwrite(&w, 1, 3000);
    assert_true(w.store->stats.cleaner_segments > 10);
    assert_int_equal(w.store->stats.cleaner_segments_by_index, 0);
    world_deinit(&w);
}

static void take_away(struct world *w, enum world_kind kind)
{
    if (kind == WORLD_DELETE)
        world_delete(w, 0, 2);
    else if (kind == WORLD_FLUSH)
        world_flush(w, 0);
    else
        world_swap(w);
}

/* L4: what took a key away is moved, as long as a checkpoint may have the key; also what the process before has logged. */
static void test_what_takes_away_is_kept(void **state)
{
    static const enum world_kind kinds[] = {WORLD_DELETE, WORLD_FLUSH, WORLD_SWAP};
    struct world w;

    (void)state;
    for (unsigned i = 0; i < 2 * ARRAY_COUNT(kinds); i++) {
        world_small(&w, i);
        overwrite(&w, 1, 50);
        world_set(&w, 0, 2, 1, 100);
        take_away(&w, kinds[i / 2]);
        overwrite(&w, 1, 100);
        assert_int_equal(w.store->stats.cleaner_segments, 0);
        if (i % 2 == 1) {
            world_die(&w, false);
            world_open(&w);
        }
        overwrite(&w, 1, 3000);
        assert_true(w.store->stats.cleaner_segments_by_index > 10);
        assert_true(w.store->stats.cleaner_segments_by_index < w.store->stats.cleaner_segments);
        assert_true(w.store->stats.cleaner_bytes >= RECORD_HEADER_SIZE);
        world_end_life(&w);
        world_deinit(&w);
    }
}

/* As if all were dead. */
static void counts_lie(struct world *w)
{
    for (uint32_t i = 0; i < store_log_segment_count(w->store->log); i++) {
        struct segment_info *info = store_log_segment(w->store->log, i);

        if (info->state == SEGMENT_SEALED)
            info->live_bytes = 0;
    }
    clean_plan_forget(w->store);
}

/* D3: no entry names the deltas of an object. One that is large keeps them over checkpoints, too; when their segment is a
 * victim it gets an image instead (L3). */
static void test_deltas_have_no_address(void **state)
{
    struct world w;

    (void)state;
    world_small(&w, 4);
    world_set(&w, 0, 2, 1, 200000);
    world_append(&w, 0, 2, 2, 100);
    assert_int_equal(w.store->stats.images, 0);
    for (unsigned i = 0; i < 1000; i++) {
        world_set(&w, 0, 1, i + 1, 500);
        store_turn_end(w.store);
        sim_run_for(w.sim, 200);
        counts_lie(&w);
    }
    assert_true(w.store->stats.cleaner_segments > 2 && w.store->stats.cleaner_segments_by_index > 1);
    assert_int_equal(w.store->stats.images, 1);
    world_end_life(&w);
    world_deinit(&w);
}

/* What a start has found as image and deltas has no object, and its deltas may lie in a segment of this life: only a walk
 * sees that they are needed. */
static void test_chains_of_a_start_are_walked_for(void **state)
{
    struct world w;
    bool had_chains = false;

    (void)state;
    world_small(&w, 5);
    world_set(&w, 0, 2, 1, 40000);
    store_turn_end(w.store);
    sim_run_for(w.sim, 3000000);
    world_append(&w, 0, 2, 2, 100); /* in the log ring alone */
    store_turn_end(w.store);
    world_die(&w, false);
    world_open(&w);
    for (unsigned i = 0; i < 3000; i++) {
        uint64_t before = w.store->stats.cleaner_segments_by_index;
        bool has_chains = w.store->chains != NULL;

        had_chains |= has_chains;
        world_set(&w, 0, 1, i + 1, 500);
        store_turn_end(w.store);
        sim_run_for(w.sim, 200);
        counts_lie(&w);
        assert_true(!has_chains || w.store->chains == NULL || w.store->stats.cleaner_segments_by_index == before);
    }
    assert_true(had_chains);
    assert_null(w.store->chains); /* the cleaner has fetched it */
    assert_true(w.store->stats.cleaner_segments_by_index > 10);
    world_end_life(&w);
    world_deinit(&w);
}

/* X2: a look takes many steps, and keys come and go meanwhile, so that the index grows and shrinks. */
static void test_a_look_of_many_steps(void **state)
{
    enum { KEYS = 6000, ROUNDS = 6 };
    struct world w;
    unsigned steps = 0;

    (void)state;
    world_init(&w, 6, NULL);
    w.options.segment_size = 2u << 20;
    world_open(&w);
    for (unsigned i = 0; i < KEYS; i++)
        other_put(&w, i, 64);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < 600; i++) {
            world_set(&w, 0, 1, i + 1, 8000);
            for (unsigned k = 0; k < 5; k++) {
                unsigned key = KEYS + (i * 5 + k) % 1500;

                if (i < 300)
                    other_put(&w, key, 64);
                else
                    other_delete(&w, key);
            }
            if (i == 299) /* what takes away is no reason to walk */
                world_checkpoint(&w);
            store_turn_end(w.store);
            sim_run_for(w.sim, 500);
            counts_lie(&w);
            steps += w.store->cleaner->state == CLEANER_LOOKING && w.store->cleaner->index_cursor != 0;
        }
        world_checkpoint(&w);
    }
    assert_true(steps > 10);
    world_die(&w, false);
    world_open(&w);
    for (unsigned i = 0; i < KEYS; i++) {
        char name[32], value[64];
        struct store_key found;

        world_fill(value, sizeof(value), i);
        assert_int_equal(world_find(&w, 2, world_other_key(i, name), &found), 0);
        assert_non_null(found.entry);
        assert_true(bytes_equal(store_string(found.entry), bytes_of(value, sizeof(value))));
    }
    world_deinit(&w);
}

/* L8: strings, collections with their chains, cold values, over several lives; a count of live bytes that is wrong costs
 * work, and no value. */
static void test_counts_that_lie_lose_nothing(void **state)
{
    uint64_t by_index = 0, walked = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct world w;

        world_small(&w, seed);
        w.counts_lie = true;
        for (unsigned life = 0; life < 4; life++) {
            for (unsigned i = 0; i < 150; i++) {
                world_live(&w, 8);
                counts_lie(&w);
            }
            for (unsigned i = 0; i < 600; i++) {
                world_set(&w, 1, 3, i + 1, 500);
                store_turn_end(w.store);
                sim_run_for(w.sim, 200);
                counts_lie(&w);
            }
            store_turn_end(w.store);
            sim_run_for(w.sim, 500000);
            by_index += w.store->stats.cleaner_segments_by_index;
            walked += w.store->stats.cleaner_segments - w.store->stats.cleaner_segments_by_index;
            world_check(&w, UINT64_MAX);
            world_end_life(&w);
        }
        world_deinit(&w);
    }
    print_message("%llu by the index, %llu walked\n", (unsigned long long)by_index, (unsigned long long)walked);
    assert_true(by_index > 20 && walked > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_dead_is_not_read),
        cmocka_unit_test(test_many_keys_are_not_looked_at),
        cmocka_unit_test(test_what_takes_away_is_kept),
        cmocka_unit_test(test_deltas_have_no_address),
        cmocka_unit_test(test_chains_of_a_start_are_walked_for),
        cmocka_unit_test(test_a_look_of_many_steps),
        cmocka_unit_test(test_counts_that_lie_lose_nothing),
    };

    return cmocka_run_group_tests_name("store_cleaner_index", tests, NULL, NULL);
}
