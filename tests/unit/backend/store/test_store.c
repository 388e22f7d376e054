/* SPDX-License-Identifier: Apache-2.0 */
/* Rounds of changes, background work and lives; after each death the store must hold the right prefix. */
#include "backend/store/residency.h"
#include "backend/store/slab.h"
#include "tests/unit/backend/store/store_world.h"

#include <stdlib.h>

/* Drawn worlds: with delays, torn sectors and names that were not flushed, with and without a log ring, with little
 * disk, in each fsync mode. STORE_SEEDS=N and STORE_SEED=FROM for more than a sample. */
static void test_lives_end_in_every_way(void **state)
{
    uint64_t seeds = world_seeds(), first = world_seed_first(), last = first + (seeds != 0 ? seeds : 30);

    (void)state;
    for (uint64_t seed = first; seed < last; seed++) {
        struct world w;
        struct sim_options options;

        if (seeds != 0 || getenv("STORE_SEED") != NULL)
            print_message("# seed %llu\n", (unsigned long long)seed);
        sim_options_calm(&options);
        if (seed % 2 == 1) {
            sim_options_draw(&options, seed);
            options.disk.read_error_ppm = options.disk.write_error_ppm = options.disk.flush_error_ppm = 0;
            options.disk.capacity = 1u << 30;
            /* A dead process keeps its lock as long as its writes are on their way; who comes after waits 2 s. */
            options.disk.stall_us = MIN(options.disk.stall_us, 500000u);
        }
        world_init(&w, seed, &options);
        w.options.fsync = (enum store_fsync)(seed % 3);
        if (seed % 5 == 0)
            w.options.disk_max = 16u * (256u << 10);
        if (seed % 7 == 0)
            w.options.ring_path = NULL;
        world_open(&w);
        for (unsigned life = 0; life < 8; life++) {
            world_live(&w, 150);
            world_check(&w, UINT64_MAX);
            world_live(&w, 100);
            world_end_life(&w);
        }
        world_deinit(&w);
    }
}

/* Little room and many overwrites: the cleaner must give space back for ever, and lose nothing. */
static void test_cleaner_keeps_up(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, 77, NULL);
    w.options.disk_max = 12u * (256u << 10);
    w.value_max = 3000;
    world_open(&w);
    for (unsigned round = 0; round < 60; round++) {
        world_live(&w, 100);
        store_turn_end(w.store);
        for (unsigned i = 0; i < 200 && store_may_write(w.store, 1) != 0; i++)
            sim_run_for(w.sim, 20000);
        assert_int_equal(store_may_write(w.store, 1), 0);
    }
    assert_true(w.store->stats.cleaner_segments > 0);
    world_check(&w, UINT64_MAX);
    world_close(&w);
    world_open(&w);
    world_check(&w, UINT64_MAX);
    world_deinit(&w);
}

static void test_values_go_cold_and_come_back(void **state)
{
    struct world w;
    struct store_stats stats;

    (void)state;
    world_init(&w, 5, NULL);
    world_open(&w);
    for (uint16_t k = 0; k < WORLD_KEYS; k++)
        world_set(&w, 0, k, k + 1u, 100 + k * 40u);
    store_turn_end(w.store);
    for (unsigned i = 0; i < 20; i++)
        world_spill(&w, WORLD_KEYS);
    store_stats_get(w.store, &stats);
    assert_true(stats.cold_keys > WORLD_KEYS / 2);
    world_check(&w, UINT64_MAX);
    store_stats_get(w.store, &stats);
    assert_int_equal(stats.cold_keys, 0);
    assert_true(stats.fetches > WORLD_KEYS / 2);
    world_deinit(&w);
}

/* R3: with room values that are new are not told from those that stay, and long before memory is full they are. */
static void test_memory_is_looked_at_before_it_is_full(void **state)
{
    struct residency_stats stats;
    struct world w;

    (void)state;
    world_init(&w, 6, NULL);
    w.options.memory_max = 4u << 20;
    world_open(&w);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t before;

        residency_stats_get(w.store->residency, &stats);
        before = stats.small_count;
        for (uint16_t k = 0; k < WORLD_KEYS; k++) {
            world_delete(&w, 0, k);
            world_set(&w, 0, k, k + 1u, 15000);
            store_turn_end(w.store);
            sim_run_for(w.sim, 30000);
        }
        residency_stats_get(w.store->residency, &stats);
        if (i == 0) {
            assert_true(store_memory_bytes(w.store) < 4u << 20);
            assert_int_equal(stats.small_count, 0);
            w.options.memory_max = 1200u << 10;
            store_memory_max_set(w.store, w.options.memory_max);
        } else {
            assert_true(stats.small_count > before);
        }
        sim_run_for(w.sim, 100000);
    }
    assert_true(w.store->stats.spills == 0 && store_memory_bytes(w.store) > 600u << 10);
    world_deinit(&w);
}

static void check_string(struct world *w, uint8_t db, const char *name, const char *value)
{
    struct store_key key;

    store_find(w->store, db, bytes_of(name, strlen(name)), &key);
    assert_int_equal(key.entry != NULL, value != NULL);
    if (value == NULL)
        return;
    assert_int_equal(world_find(w, db, key.name, &key), 0);
    assert_true(bytes_equal(store_string(key.entry), bytes_of(value, strlen(value))));
}

static void put_string(struct world *w, uint8_t db, const char *name, const char *value)
{
    struct store_key key;

    store_find(w->store, db, bytes_of(name, strlen(name)), &key);
    assert_int_equal(store_put_string(w->store, &key, bytes_of(value, strlen(value)), &(struct store_attributes){0}), 0);
}

static void expect_swapped(struct world *w)
{
    check_string(w, 5, "a", "of 2");
    check_string(w, 2, "b", "of 9");
    check_string(w, 9, "b", NULL);
    check_string(w, 9, "a", "later");
    check_string(w, 2, "a", NULL);
    assert_int_equal(store_count(w->store, 2), 1);
    assert_int_equal(store_count(w->store, 5), 1);
    assert_int_equal(store_count(w->store, 9), 1);
}

/* Two swaps, a flush and a change after them; then by way of the log, of a checkpoint, of both. */
static void test_databases_swap(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, 5, NULL);
    world_open(&w);
    put_string(&w, 2, "a", "of 2");
    put_string(&w, 5, "a", "of 5");
    put_string(&w, 9, "b", "of 9");
    assert_int_equal(store_swap(w.store, 2, 5), 0);
    check_string(&w, 2, "a", "of 5");
    assert_int_equal(store_swap(w.store, 2, 9), 0);
    check_string(&w, 9, "a", "of 5");
    assert_int_equal(store_flush(w.store, 9), 0);
    put_string(&w, 9, "a", "later");
    expect_swapped(&w);
    store_turn_end(w.store);
    world_die(&w, false);
    world_open(&w);
    expect_swapped(&w);
    world_close(&w);
    world_open(&w);
    assert_true(store_swap_lsn(w.store) > 0);
    expect_swapped(&w);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(store_swap(w.store, 15, 0), 0);
        store_turn_end(w.store);
        world_die(&w, false);
        world_open(&w);
        expect_swapped(&w);
    }
    world_deinit(&w);
}

static void test_expiry(void **state)
{
    struct world w;
    struct store_key key;
    struct store_attributes soon = {0};

    (void)state;
    world_init(&w, 6, NULL);
    world_open(&w);
    soon.expire_ms = store_now_ms(w.store) + 1000;
    soon.mc_flags = 0;
    store_find(w.store, 0, BYTES("a"), &key);
    assert_int_equal(store_put_string(w.store, &key, BYTES("1"), &soon), 0);
    assert_int_equal(store_expiring_count(w.store, 0), 1);
    store_turn_end(w.store);
    world_close(&w);
    world_open(&w);
    store_find(w.store, 0, BYTES("a"), &key);
    assert_non_null(key.entry);
    assert_int_equal(entry_expire_ms(key.entry), soon.expire_ms);
    store_now_set(w.store, soon.expire_ms);
    store_find(w.store, 0, BYTES("a"), &key);
    assert_null(key.entry);
    assert_int_equal(store_count(w.store, 0), 0);
    assert_int_equal(store_expiring_count(w.store, 0), 0);
    /* The clock never goes back (S8). */
    store_now_set(w.store, soon.expire_ms - 500);
    assert_int_equal(store_now_ms(w.store), soon.expire_ms);
    world_deinit(&w);
}

static uint64_t now_of(struct world *w)
{
    store_now_set(w->store, io_wall_us(w->io) / 1000);
    return store_now_ms(w->store);
}

/* The host's clock goes forward by a minute and back again: the store's goes on from there, a little slower, so that what
 * waits for a second waits for about one; when the host's has come up to it, both are one again. */
static void test_clock_that_was_set_back_does_not_stop_ours(void **state)
{
    enum { MINUTE_US = 60 * 1000 * 1000 };
    struct world w;
    uint64_t was;

    (void)state;
    world_init(&w, 8, NULL);
    world_open(&w);
    sim_node_wall_jump(w.node, MINUTE_US);
    was = now_of(&w);
    assert_int_equal(was, io_wall_us(w.io) / 1000);
    sim_node_wall_jump(w.node, -MINUTE_US);
    assert_int_equal(now_of(&w), was);
    sim_run_for(w.sim, MINUTE_US / 60);
    assert_in_range(now_of(&w), was + 900, was + 1000);
    sim_run_for(w.sim, 8 * MINUTE_US);
    assert_in_range(now_of(&w), was + 7 * 60000, was + 8 * 60000);
    assert_true(now_of(&w) > io_wall_us(w.io) / 1000 + 20000);
    sim_run_for(w.sim, 9 * MINUTE_US);
    assert_int_equal(now_of(&w), io_wall_us(w.io) / 1000);
    world_deinit(&w);
}

/* ---- memory that is given back ---------------------------------------------------------------------- */

static struct object *large_hash(unsigned fields)
{
    struct object *object = hash_ops.create();

    assert_non_null(object);
    for (unsigned i = 0; i < fields; i++) {
        char name[32];
        struct bytes field = bytes_of(name, (size_t)snprintf(name, sizeof(name), "field-%u", i));
        bool is_new;

        assert_int_equal(hash_set(object, field, BYTES("a value of a field"), &is_new), 0);
    }
    return object;
}

/* Collections that are deleted, overwritten, flushed: they are gone at once and freed in steps, and what is still to be
 * freed is told; in the end nothing is left. A store that is closed before frees the rest. */
static void test_large_objects_are_freed_in_steps(void **state)
{
    enum { LARGE = 3, FIELDS = 30000 };

    (void)state;
    for (unsigned is_closed = 0; is_closed < 2; is_closed++) {
        struct world w;
        struct store_stats stats;
        struct store_key key;
        uint64_t before, all, freeing;
        unsigned steps = 0;

        world_init(&w, 5, NULL);
        world_open(&w);
        store_stats_get(w.store, &stats);
        before = stats.object_bytes;
        for (unsigned i = 0; i < LARGE; i++) {
            char name[32];

            assert_true(world_room_wait(&w, 4u << 20));
            store_find(w.store, 0, world_key((uint16_t)i, name), &key);
            assert_int_equal(store_put_object(w.store, &key, large_hash(FIELDS), NULL), 0);
        }
        store_stats_get(w.store, &stats);
        all = stats.object_bytes - before;
        assert_true(all > LARGE * FIELDS * 20);
        world_delete(&w, 0, 0);
        world_set(&w, 0, 1, 7, 100);
        assert_true(world_room_wait(&w, 4096));
        world_flush(&w, 0);
        world_check(&w, UINT64_MAX);
        store_stats_get(w.store, &stats);
        assert_true(stats.objects_freeing >= 2);
        freeing = stats.object_bytes - before;
        assert_true(freeing > all / 2);
        for (; !is_closed && freeing > 0; steps++) {
            uint64_t last = freeing;

            assert_true(steps < 1000);
            store_work(w.store);
            store_turn_end(w.store);
            sim_run_for(w.sim, 1000);
            store_stats_get(w.store, &stats);
            freeing = stats.object_bytes - before;
            assert_true(freeing <= last);
        }
        if (!is_closed) {
            assert_true(steps > 10);
            assert_int_equal(stats.objects_freeing, 0);
            assert_int_equal(stats.objects_freed, LARGE);
        }
        world_check(&w, UINT64_MAX);
        world_deinit(&w);
    }
}

/* Seven of eight values go cold, and what is left is spread over all pages: it moves together, nothing is lost, and the
 * pages are given back. */
/* At any time, also while a flush frees more keys than the index has shrunk by. */
static void test_an_audit_holds_during_a_flush(void **state)
{
    char name[32];

    (void)state;
    for (unsigned many = 400; many < 4000; many += 100) {
        struct world w;

        world_init(&w, 5, NULL);
        world_open(&w);
        for (unsigned k = 0; k < many; k++)
            put_string(&w, k % 16 != 0, (snprintf(name, sizeof(name), "%u", k), name), "value");
        assert_int_equal(store_flush(w.store, 1), 0);
        for (unsigned step = 0; step < 32; step++) {
            store_work(w.store);
            world_audit(&w);
        }
        world_deinit(&w);
    }
}

static void test_lonely_entries_move_together(void **state)
{
    enum { MANY = 40000, LEN = 400 };
    struct world w;
    struct store_key key;
    uint64_t full;
    char name[32], value[LEN];

    (void)state;
    world_init(&w, 5, NULL);
    w.options.segment_size = 4u << 20;
    world_open(&w);
    for (unsigned k = 0; k < MANY; k++) {
        assert_true(world_room_wait(&w, 4096));
        world_fill(value, LEN, k);
        store_find(w.store, 0, world_key((uint16_t)k, name), &key);
        assert_int_equal(store_put_string(w.store, &key, bytes_of(value, LEN), NULL), 0);
        if (k % 64 == 0)
            store_turn_end(w.store);
    }
    full = slab_page_bytes(w.store->slab);
    for (unsigned k = 0; k < MANY; k++) {
        store_find(w.store, 0, world_key((uint16_t)k, name), &key);
        if (k % 8 != 0)
            assert_true(spill_entry(w.store, key.hash, &key.entry) > 0);
    }
    assert_true(slab_page_bytes(w.store->slab) > full * 9 / 10);
    store_turn_end(w.store);
    sim_run_for(w.sim, 20000000);
    assert_true(slab_page_bytes(w.store->slab) < full / 2);
    for (unsigned k = 0; k < MANY; k++) {
        store_find(w.store, 0, world_key((uint16_t)k, name), &key);
        assert_non_null(key.entry);
        assert_int_equal(entry_is_cold(key.entry), k % 8 != 0);
        if (k % 16 == 1)
            assert_int_equal(world_find(&w, 0, key.name, &key), 0);
        if (k % 8 == 0 || k % 16 == 1) {
            world_fill(value, LEN, k);
            assert_true(bytes_equal(store_string(key.entry), bytes_of(value, LEN)));
        }
    }
    world_deinit(&w);
}

/* Of a string that is long enough the log gets the change of a part, and of what is beside it; through lives, checkpoints
 * and colds. A shorter one is logged as a whole. */
static void test_a_change_of_a_part_logs_a_part(void **state)
{
    const uint32_t lens[] = {STRING_DELTA_MIN - 1, STRING_DELTA_MIN, 4000, STRING_INLINE_MAX - 10, STRING_INLINE_MAX + 1};

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(lens); i++) {
        bool is_in_place = lens[i] >= STRING_DELTA_MIN;
        char name[32];
        struct store_key key;
        struct world w;

        world_init(&w, i + 1, NULL);
        world_open(&w);
        world_set(&w, 0, 1, 77, lens[i]);
        for (unsigned round = 0; round < 12; round++) {
            uint64_t bytes = w.store->stats.record_bytes_client, expire_ms = w.store->now_ms + 1000000 + round;

            if (is_in_place)
                world_append(&w, 0, 1, round + 1, 7);
            assert_int_equal(world_find(&w, 0, world_key(1, name), &key), 0);
            assert_int_equal(store_set_expire(w.store, &key, expire_ms), 0);
            bytes = w.store->stats.record_bytes_client - bytes;
            assert_true(is_in_place ? bytes < 300 : bytes > lens[i]);
            assert_int_equal(entry_is_object(key.entry), is_in_place);
            store_turn_end(w.store);
            if (round % 3 == 2)
                world_checkpoint(&w);
            if (round % 4 == 3 || round == 0) { /* the first time there is no checkpoint that hides the image's base */
                assert_int_equal(world_find(&w, 0, world_key(1, name), &key), 0);
                assert_true(spill_entry(w.store, key.hash, &key.entry) > 0);
            }
            sim_run_for(w.sim, 3000000);
            if (round % 4 == 1 || round % 4 == 2)
                world_die(&w, round % 4 == 1);
            if (round == 4)
                world_close(&w);
            if (round % 4 == 1 || round % 4 == 2 || round == 4)
                world_open(&w);
            world_check(&w, UINT64_MAX);
            assert_int_equal(world_find(&w, 0, world_key(1, name), &key), 0);
            assert_int_equal(entry_expire_ms(key.entry), expire_ms);
        }
        world_set(&w, 0, 1, 78, lens[i]); /* a new one is inline again */
        assert_int_equal(world_find(&w, 0, world_key(1, name), &key), 0);
        assert_int_equal(entry_is_object(key.entry), lens[i] > STRING_INLINE_MAX);
        world_deinit(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_go_cold_and_come_back),
        cmocka_unit_test(test_memory_is_looked_at_before_it_is_full),
        cmocka_unit_test(test_expiry),
        cmocka_unit_test(test_clock_that_was_set_back_does_not_stop_ours),
        cmocka_unit_test(test_databases_swap),
        cmocka_unit_test(test_large_objects_are_freed_in_steps),
        cmocka_unit_test(test_a_change_of_a_part_logs_a_part),
        cmocka_unit_test(test_an_audit_holds_during_a_flush),
        cmocka_unit_test(test_lonely_entries_move_together),
        cmocka_unit_test(test_lives_end_in_every_way),
        cmocka_unit_test(test_cleaner_keeps_up),
    };

    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
