/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What two things that happen at once, or one after the other, must not do to each other.
 */
#include "tests/unit/backend/store/store_world.h"

static uint64_t live_bytes(struct world *w)
{
    uint64_t live = 0;

    for (uint32_t i = 0; i < store_log_segment_count(w->store->log); i++)
        live += store_log_segment(w->store->log, i)->live_bytes;
    return live;
}

/* The image that a change of the expiry brings about has the new expiry. */
static void test_image_has_the_expiry_that_caused_it(void **state)
{
    struct world w;
    struct store_key key;
    uint64_t expire_ms = 0, images;
    char name[32];

    (void)state;
    world_init(&w, 1, NULL);
    world_open(&w);
    world_field(&w, 0, 1, 0, 5);
    images = w.store->stats.images;
    for (unsigned i = 0; i < 1000 && w.store->stats.images == images; i++) {
        store_find(w.store, 0, world_key(1, name), &key);
        expire_ms = store_now_ms(w.store) + 1000000 + i;
        assert_int_equal(store_set_expire(w.store, &key, expire_ms), 0);
        store_turn_end(w.store);
    }
    assert_true(w.store->stats.images > images);
    w.is_told = false;
    store_log_flush(w.store->log, world_told, &w);
    sim_run_while_not(w.sim, &w.is_told, WORLD_OPEN_US);
    world_die(&w, false);
    world_open(&w);
    store_find(w.store, 0, world_key(1, name), &key);
    assert_non_null(key.entry);
    assert_int_equal(entry_expire_ms(key.entry), expire_ms);
    assert_int_equal(store_expiring_count(w.store, 0), 1);
    /* Also when the image itself is what is read. */
    assert_int_equal(world_find(&w, 0, world_key(1, name), &key), 0);
    spill_entry(w.store, key.hash, &key.entry);
    assert_int_equal(entry_expire_ms(key.entry), expire_ms);
    world_deinit(&w);
}

/* A delta that a recovery has found is not forgotten by the next checkpoint, also if nobody asks for the key. */
static void test_recovered_delta_is_in_the_next_checkpoint(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, 2, NULL);
    world_open(&w);
    world_field(&w, 0, 1, 0, 5);
    world_checkpoint(&w); /* the page has the image, no chain */
    for (unsigned life = 0; life < 2; life++) { /* and no replay sees it again */
        world_close(&w);
        world_open(&w);
    }
    world_field(&w, 0, 1, 1, 6);
    store_turn_end(w.store);
    sim_run_for(w.sim, 3000000);
    world_die(&w, true);
    world_open(&w);
    world_checkpoint(&w);
    world_checkpoint(&w);
    world_die(&w, true);
    world_open(&w);
    world_check(&w, UINT64_MAX);
    world_deinit(&w);
}

/* Recovery's tombstones go, and all else is counted, though the index shrinks meanwhile. */
static void test_recovery_of_many_deletions(void **state)
{
    struct world w;
    struct store_key key;
    char name[32];

    (void)state;
    world_init(&w, 5, NULL);
    world_open(&w);
    for (uint16_t k = 0; k < 20000; k++) {
        store_find(w.store, 0, world_key(k, name), &key);
        assert_int_equal(store_put_string(w.store, &key, BYTES("v"), NULL), 0);
        store_turn_end(w.store);
        if (store_may_write(w.store, 1) != 0)
            sim_run_for(w.sim, 20000);
    }
    for (uint16_t k = 0; k < 20000; k++) {
        if (k % 100 == 0)
            continue;
        store_find(w.store, 0, world_key(k, name), &key);
        assert_int_equal(store_delete(w.store, &key), 0);
        store_turn_end(w.store);
        if (store_may_write(w.store, 1) != 0)
            sim_run_for(w.sim, 20000);
    }
    world_die(&w, false);
    world_open(&w);
    assert_int_equal(store_count(w.store, 0), 200);
    assert_int_equal(index_count(w.store->index), 200);
    for (uint16_t k = 0; k < 20000; k++) {
        store_find(w.store, 0, world_key(k, name), &key);
        assert_int_equal(key.entry != NULL, k % 100 == 0);
    }
    world_deinit(&w);
}

/* Nothing is left: nothing counts as live. */
static void test_deleted_objects_leave_no_live_bytes(void **state)
{
    struct world w;

    (void)state;
    world_init(&w, 3, NULL);
    world_open(&w);
    for (unsigned round = 0; round < 50; round++) {
        for (uint16_t k = 0; k < WORLD_KEYS; k++)
            for (uint8_t f = 0; f < WORLD_FIELDS; f++)
                world_field(&w, 0, k, f, 1000 + round + f);
        for (uint16_t k = 0; k < WORLD_KEYS; k++) {
            if (round % 2 == 0)
                world_delete(&w, 0, k);
            else
                world_set(&w, 0, k, round + 1, 10);
        }
        store_turn_end(w.store);
        sim_run_for(w.sim, 1000);
    }
    for (uint16_t k = 0; k < WORLD_KEYS; k++)
        world_delete(&w, 0, k);
    assert_int_equal(live_bytes(&w), 0);
    world_deinit(&w);
}

/* Objects that come and go fill no disk. */
static void test_objects_that_come_and_go_leave_room(void **state)
{
    struct world w;
    char name[32], value[600];
    struct store_key key;

    (void)state;
    world_init(&w, 4, NULL);
    w.options.disk_max = 12u * (256u << 10);
    world_open(&w);
    memset(value, 'v', sizeof(value));
    for (uint32_t i = 0; i < 20000; i++) {
        bool is_new;

        for (unsigned wait = 0; wait < 500 && store_may_write(w.store, 1) != 0; wait++) {
            store_turn_end(w.store);
            sim_run_for(w.sim, 10000);
        }
        assert_int_equal(store_may_write(w.store, 1), 0);
        store_find(w.store, 0, world_key((uint16_t)(i % WORLD_KEYS), name), &key);
        assert_int_equal(hash_set(store_object_open(w.store, &key, STORE_HASH, true), BYTES("f"),
                                  bytes_of(value, sizeof(value)), &is_new), 0);
        effect_begin(store_effects(w.store), HASH_EFFECT_SET, 2);
        effect_bytes(store_effects(w.store), BYTES("f"));
        effect_bytes(store_effects(w.store), bytes_of(value, sizeof(value)));
        assert_int_equal(store_change(w.store, &key), 0);
        assert_int_equal(store_delete(w.store, &key), 0);
        if (i % 16 == 0)
            store_turn_end(w.store);
        if (i % 64 == 0)
            sim_run_for(w.sim, 1000);
    }
    world_deinit(&w);
}

/* The cleaner needs a segment for each lifetime, and finds none: it waits, and goes on when there is room. */
static void test_cleaner_without_room(void **state)
{
    static const uint64_t lifetimes_ms[3] = {1800000, 12 * 3600000ull, 30 * 86400000ull};
    struct world w;
    struct store_key key;
    char name[32], value[400];
    unsigned refused = 0;

    (void)state;
    world_init(&w, 6, NULL);
    w.options.disk_max = 6u * (256u << 10);
    world_open(&w);
    memset(value, 'v', sizeof(value));
    for (uint32_t i = 0; i < 30000; i++) {
        uint16_t k = (uint16_t)(world_random(&w, 8) == 0 ? world_random(&w, 1200) : 1200 + world_random(&w, 300));
        struct store_attributes attributes = {.expire_ms = store_now_ms(w.store) + lifetimes_ms[k % 3]};

        if (store_may_write(w.store, 1) != 0) {
            refused++;
            store_turn_end(w.store);
            sim_run_for(w.sim, 5000);
            continue;
        }
        store_find(w.store, 0, world_key(k, name), &key);
        assert_int_equal(store_put_string(w.store, &key, bytes_of(value, sizeof(value)), &attributes), 0);
        if (i % 16 == 0)
            store_turn_end(w.store);
        if (i % 64 == 0)
            sim_run_for(w.sim, 1000);
    }
    assert_true(refused < 30000);
    world_deinit(&w);
}

/* Half a transaction of a life that has ended: it never happened, also when the cleaner comes across it. */
static void test_cleaner_revives_no_cut_transaction(void **state)
{
    struct world w;
    struct store_key key;
    char name[32], *value = must_zalloc(12000);

    (void)state;
    world_init(&w, 8, NULL);
    world_open(&w);
    for (uint16_t k = 0; k < WORLD_KEYS; k++)
        world_set(&w, 0, k, k + 1u, 100);
    store_turn_end(w.store);
    sim_run_for(w.sim, 1500000);
    store_atomic_begin(w.store);
    store_find(w.store, 0, world_key(1, name), &key);
    assert_int_equal(store_delete(w.store, &key), 0);
    assert_int_equal(store_flush(w.store, 0), 0);
    for (uint16_t k = 0; k < 15; k++) {
        store_find(w.store, 1, world_key(k, name), &key);
        assert_int_equal(store_put_string(w.store, &key, bytes_of(value, 12000), NULL), 0);
    }
    sim_run_for(w.sim, 10000);
    world_die(&w, false);
    world_open(&w);
    world_check(&w, UINT64_MAX);
    for (unsigned i = 0; i < 8000; i++) {
        world_set(&w, 0, (uint16_t)(WORLD_KEYS / 2 + world_random(&w, WORLD_KEYS / 2)), i + 1, 500);
        store_turn_end(w.store);
        sim_run_for(w.sim, 200);
    }
    sim_run_for(w.sim, 2000000);
    assert_true(w.store->stats.cleaner_segments > 0);
    world_checkpoint(&w);
    world_die(&w, true);
    world_open(&w);
    world_forget_after(&w, store_lsn(w.store));
    world_check(&w, store_lsn(w.store));
    world_deinit(&w);
    mem_free(value);
}

/* A disk that lied about a flush: the change is gone, its copy in a cold segment is not. The copy must stay dead, or the
 * value would be newer than what was changed before it. */
static void test_a_copy_of_a_lost_change_stays_dead(void **state)
{
    struct world w;
    struct store_key key;
    struct segment_info *hot;
    char name[32], path[96], *zeros = must_zalloc(64u << 10);
    uint64_t sequence, from, lsn;

    (void)state;
    world_init(&w, 9, NULL);
    world_open(&w);
    world_field(&w, 0, 1, 0, 10);
    store_turn_end(w.store);
    sim_run_for(w.sim, 2500000);
    lsn = store_marks_of(w.store).durable;
    assert_int_equal(lsn, store_lsn(w.store));
    sequence = store_log_hot_sequence(w.store->log);
    hot = store_log_segment_find(w.store->log, sequence);
    from = hot->used_bytes;
    (void)snprintf(path, sizeof(path), WORLD_DIR "/%06u.seg", hot->slot);
    world_set(&w, 0, 2, 20, 100);
    world_field(&w, 0, 1, 0, 11);
    store_turn_end(w.store);
    sim_run_for(w.sim, 2500000);
    store_find(w.store, 0, world_key(1, name), &key);
    spill_entry(w.store, key.hash, &key.entry); /* writes an image, which is such a copy */
    w.is_told = false;
    store_log_flush(w.store->log, world_told, &w);
    sim_run_while_not(w.sim, &w.is_told, WORLD_OPEN_US);
    assert_int_equal(store_log_hot_sequence(w.store->log), sequence);
    hot = store_log_segment_find(w.store->log, sequence);
    sim_disk_overwrite(w.node, path, from, bytes_of(zeros, hot->used_bytes - from));
    world_die(&w, true);
    world_open(&w);
    assert_int_equal(store_marks_of(w.store).appended, lsn);
    world_forget_after(&w, lsn);
    world_check(&w, lsn);
    world_deinit(&w);
    mem_free(zeros);
}

/* A chain from which a change is missing is no value: the entry knows what its last one was. */
static void test_a_chain_without_its_last_delta_is_refused(void **state)
{
    struct world w;
    struct store_key key;
    struct chain *chain;
    char name[32];
    uint64_t corrupt;

    (void)state;
    world_init(&w, 10, NULL);
    world_open(&w);
    for (uint8_t f = 0; f < 4; f++)
        world_field(&w, 0, 1, f, f + 1u);
    store_turn_end(w.store);
    world_die(&w, false);
    world_open(&w);
    store_find(w.store, 0, world_key(1, name), &key);
    assert_true(entry_is_cold(key.entry));
    chain = chain_find(w.store, key.hash, key.entry);
    assert_non_null(chain);
    assert_int_equal(chain->count, 4);
    chain->count--;
    corrupt = w.store->stats.corrupt_records;
    assert_int_equal(world_find(&w, 0, world_key(1, name), &key), ERR_CORRUPT);
    assert_int_equal(w.store->stats.corrupt_records, corrupt + 1);
    chain->count++;
    world_check(&w, UINT64_MAX);
    world_deinit(&w);
}

/* A cache that was started again holds entries without values. Those go too, when nothing else is left. */
static void test_cache_forgets_cold_entries(void **state)
{
    struct world w;
    struct store_key key;
    struct store_stats stats;
    char name[32];

    (void)state;
    world_init(&w, 9, NULL);
    w.options.namespaces[0].is_cache = true;
    world_open(&w);
    for (uint32_t k = 0; k < 60000; k++) {
        store_find(w.store, 0, world_key((uint16_t)k, name), &key);
        assert_int_equal(store_put_string(w.store, &key, BYTES("a value of thirty-two bytes, yes"), NULL), 0);
        store_turn_end(w.store);
        if (store_may_write(w.store, 1) != 0)
            sim_run_for(w.sim, 20000);
    }
    world_close(&w);
    world_open(&w);
    store_stats_get(w.store, &stats);
    assert_int_equal(stats.cold_keys, 60000);
    store_memory_max_set(w.store, stats.index_bytes + stats.entry_bytes / 2);
    for (unsigned i = 0; i < 1000 && store_may_write(w.store, 1) != 0; i++) {
        store_turn_end(w.store);
        sim_run_for(w.sim, 1000);
    }
    assert_int_equal(store_may_write(w.store, 1), 0);
    store_stats_get(w.store, &stats);
    assert_true(stats.evictions > 0 && stats.keys > 10000);
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_image_has_the_expiry_that_caused_it),
        cmocka_unit_test(test_recovered_delta_is_in_the_next_checkpoint),
        cmocka_unit_test(test_recovery_of_many_deletions),
        cmocka_unit_test(test_deleted_objects_leave_no_live_bytes),
        cmocka_unit_test(test_objects_that_come_and_go_leave_room),
        cmocka_unit_test(test_cleaner_without_room),
        cmocka_unit_test(test_cleaner_revives_no_cut_transaction),
        cmocka_unit_test(test_a_copy_of_a_lost_change_stays_dead),
        cmocka_unit_test(test_a_chain_without_its_last_delta_is_refused),
        cmocka_unit_test(test_cache_forgets_cold_entries),
    };

    return cmocka_run_group_tests_name("store review", tests, NULL, NULL);
}
