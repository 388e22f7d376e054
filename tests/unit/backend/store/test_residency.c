/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "backend/store/residency.h"
#include "backend/store/slab.h"
#include "common/base/mem.h"

#include <stdio.h>

#define VALUE_SIZE 100u

/* A store as small as can be: values of one size, which go cold when residency says so. */
struct shard {
    struct index *index;
    struct slab *slab;
    struct residency *residency;
    uint64_t hot_bytes, hot_count, bytes_max;
    uint32_t inserted, turn; /* make_room() after so many */
    uint64_t random, misses;
    bool refuses;
};

static uint64_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 32;
}

static void shard_init(struct shard *shard, uint64_t bytes_max)
{
    *shard = (struct shard){.bytes_max = bytes_max, .random = 5, .turn = 1};
    assert_int_equal(index_create(1, NULL, &shard->index), 0);
    assert_int_equal(slab_create(NULL, false, &shard->slab), 0);
    assert_int_equal(residency_create(shard->index, &shard->residency), 0);
}

static void shard_deinit(struct shard *shard)
{
    residency_destroy(&shard->residency);
    index_destroy(&shard->index);
    slab_destroy(&shard->slab);
    assert_null(shard->residency);
}

static void account(struct shard *shard, const struct entry *e, bool is_added)
{
    if (entry_is_cold(e))
        return;
    shard->hot_bytes += is_added ? VALUE_SIZE : -(uint64_t)VALUE_SIZE;
    shard->hot_count += is_added ? 1 : -(uint64_t)1;
}

static struct entry *entry_make(struct shard *shard, const struct entry_parts *parts)
{
    struct entry *e = slab_get(shard->slab, entry_size_of(parts));

    assert_non_null(e);
    entry_compose(e, parts);
    account(shard, e, true);
    return e;
}

static void entry_drop(struct shard *shard, struct entry *e)
{
    account(shard, e, false);
    slab_put(shard->slab, e, entry_size(e));
}

/* `old` in another state. */
static void entry_change(struct shard *shard, struct entry *old, const struct entry_parts *parts)
{
    struct entry *now = entry_make(shard, parts);

    index_replace(shard->index, index_hash(shard->index, 0, parts->key), old, now);
    entry_drop(shard, old);
}

static uint64_t spill(void *arg, struct entry *e)
{
    struct shard *shard = arg;
    struct entry_parts parts;

    assert_false(entry_is_cold(e));
    if (shard->refuses)
        return 0;
    entry_parts_of(e, &parts);
    parts.is_cold = true;
    parts.is_main = false;
    parts.address = 16;
    entry_change(shard, e, &parts);
    return VALUE_SIZE;
}

static void make_room(struct shard *shard)
{
    residency_pressure_set(shard->residency, shard->hot_bytes, shard->bytes_max,
                           shard->hot_count);
    if (shard->hot_bytes > shard->bytes_max)
        MAYBE(residency_spill(shard->residency, shard->hot_bytes - shard->bytes_max, 1000, spill,
                              shard));
}

static struct bytes key_of(uint32_t number, char room[16])
{
    return bytes_of(room, (size_t)snprintf(room, 16, "%u", number));
}

/* A GET through the cache, or the SET of a key that is not there yet. */
static void use(struct shard *shard, uint32_t number)
{
    static const char value[VALUE_SIZE];
    char room[16];
    struct bytes key = key_of(number, room);
    uint64_t hash = index_hash(shard->index, 0, key);
    struct entry *e = index_find(shard->index, hash, 0, key);
    struct entry_parts parts = {.type = STORE_STRING, .key = key};

    if (e != NULL && !entry_is_cold(e)) {
        entry_access_set(e, (uint8_t)MIN(entry_access(e) + 1, 3));
        return;
    }
    shard->misses++;
    parts.value = bytes_of(value, sizeof(value));
    parts.is_main = residency_inserted(shard->residency, hash, VALUE_SIZE);
    parts.access = 1;
    if (e != NULL)
        entry_change(shard, e, &parts);
    else
        assert_int_equal(index_insert(shard->index, hash, entry_make(shard, &parts)), 0);
    if (++shard->inserted % shard->turn == 0)
        make_room(shard);
}

static void drop(struct shard *shard, uint32_t number)
{
    char room[16];
    struct bytes key = key_of(number, room);
    uint64_t hash = index_hash(shard->index, 0, key);
    struct entry *e = index_find(shard->index, hash, 0, key);

    if (e == NULL)
        return;
    index_remove(shard->index, hash, e);
    entry_drop(shard, e);
}

static bool is_hot(const struct shard *shard, uint32_t number)
{
    char room[16];
    struct bytes key = key_of(number, room);
    struct entry *e = index_find(shard->index, index_hash(shard->index, 0, key), 0, key);

    return e != NULL && !entry_is_cold(e);
}

/* Room for 2000 values; 1500 are in steady use. Then 100,000 others are read once each, one for every use of one of
 * the 1500, as by a backup through the front door: under LRU hardly any would be left. */
static void sweep(uint32_t turn)
{
    const uint32_t hot = 1500, swept = 100000;
    struct residency_stats stats;
    struct shard shard;
    uint32_t left = 0;
    uint64_t misses;

    shard_init(&shard, 2000 * VALUE_SIZE);
    shard.turn = turn;
    for (uint32_t i = 0; i < 20 * hot; i++)
        use(&shard, (uint32_t)(next_random(&shard.random) % hot));
    for (uint32_t i = 0; i < 1000; i++)
        use(&shard, 500000 + i); /* fills up */
    misses = shard.misses;
    for (uint32_t i = 0; i < swept; i++) {
        use(&shard, 1000000 + i);
        use(&shard, (uint32_t)(next_random(&shard.random) % hot));
    }
    misses = shard.misses - misses - swept;
    for (uint32_t i = 0; i < hot; i++)
        left += is_hot(&shard, i);
    print_message("# %u of %u hot keys left, %u misses of %u\n", left, hot, (unsigned)misses,
                  swept);
    assert_true(left >= hot * 98 / 100);
    assert_true(misses < swept / 50);
    assert_true(shard.hot_bytes < shard.bytes_max + turn * VALUE_SIZE);
    residency_stats_get(shard.residency, &stats);
    assert_true(stats.spilled_small > 20 * stats.spilled_main);
    shard_deinit(&shard);
}

static void test_a_sweep_of_cold_keys_leaves_the_hot_set(void **state)
{
    (void)state;
    sweep(1);
}

/* Many come before memory is asked for, as in a turn of the loop. */
static void test_a_sweep_in_turns(void **state)
{
    (void)state;
    sweep(40);
}

/* What was spilled from small and comes back soon is in main at once. */
static void test_what_comes_back_goes_to_main(void **state)
{
    struct residency_stats stats;
    struct shard shard;

    (void)state;
    shard_init(&shard, 1000 * VALUE_SIZE);
    for (uint32_t i = 0; i < 1500; i++)
        use(&shard, i);
    residency_stats_get(shard.residency, &stats);
    assert_true(stats.spilled_small >= 400);
    for (uint32_t i = 1500; i-- > 0;)
        if (!is_hot(&shard, i))
            use(&shard, i);
    residency_stats_get(shard.residency, &stats);
    assert_true(stats.ghost_hits > 100);
    shard_deinit(&shard);
}

/* A new hot set takes over from the old one. */
static void test_main_forgets(void **state)
{
    const uint32_t hot = 1500;
    struct shard shard;
    uint32_t left = 0;

    (void)state;
    shard_init(&shard, 2000 * VALUE_SIZE);
    for (uint32_t i = 0; i < 20 * hot; i++)
        use(&shard, (uint32_t)(next_random(&shard.random) % hot));
    for (uint32_t i = 0; i < 40 * hot; i++)
        use(&shard, hot + (uint32_t)(next_random(&shard.random) % hot));
    for (uint32_t i = 0; i < hot; i++)
        left += is_hot(&shard, hot + i);
    assert_true(left >= hot * 95 / 100);
    shard_deinit(&shard);
}

/* Keys that come and go without any need for room leave hashes behind: these must not pile up. */
static void test_queue_and_ghost_are_bounded(void **state)
{
    struct residency_stats stats;
    struct shard shard;
    uint64_t bytes_max = 3000 * VALUE_SIZE;

    (void)state;
    shard_init(&shard, bytes_max);
    for (uint32_t i = 0; i < 200000; i++) {
        use(&shard, i);
        if (i >= 2000)
            drop(&shard, i - 2000);
        residency_stats_get(shard.residency, &stats);
        assert_true(stats.small_bytes <= bytes_max / 10 + VALUE_SIZE);
        assert_true(stats.small_count <= 301);
    }
    for (uint32_t i = 0; i < 200000; i++)
        use(&shard, i);
    residency_stats_get(shard.residency, &stats);
    assert_true(stats.ghost_count_max <= 2 * 3000 + 512);
    assert_true(stats.memory_bytes < 64 * 1024);
    assert_true(shard.hot_bytes <= bytes_max);
    shard_deinit(&shard);
}

/* Values whose records are not written yet: each call ends within its budget, and they go when they may. */
static void test_refused_values_go_later(void **state)
{
    struct residency_stats stats;
    struct shard shard;

    (void)state;
    shard_init(&shard, 1000 * VALUE_SIZE);
    shard.refuses = true;
    for (uint32_t i = 0; i < 2000; i++)
        use(&shard, i);
    assert_int_equal(shard.hot_count, 2000);
    residency_stats_get(shard.residency, &stats);
    assert_true(stats.refused > 0);
    shard.refuses = false;
    for (int calls = 0; shard.hot_bytes > shard.bytes_max; calls++) {
        make_room(&shard);
        assert_true(calls < 20);
    }
    shard_deinit(&shard);
}

/* Many cold keys, a few hot ones in small, none in main: they are found however few entries each call looks at. */
static void test_small_gives_to_many_short_calls(void **state)
{
    struct residency_stats stats;
    struct shard shard;
    unsigned calls = 0;

    (void)state;
    shard_init(&shard, 1000 * VALUE_SIZE);
    for (uint32_t i = 0; i < 50000; i++)
        use(&shard, i);
    residency_stats_get(shard.residency, &stats);
    assert_true(stats.small_count > 50);
    residency_pressure_set(shard.residency, shard.hot_bytes, 100000 * VALUE_SIZE, shard.hot_count); /* small is small now */
    while (shard.hot_count > 0 && ++calls < 20000)
        MAYBE(residency_spill(shard.residency, shard.hot_bytes, 64, spill, &shard));
    assert_int_equal(shard.hot_count, 0);
    shard_deinit(&shard);
}

static void test_with_room_nothing_is_remembered(void **state)
{
    struct residency_stats stats;
    struct shard shard;

    (void)state;
    shard_init(&shard, 10000 * VALUE_SIZE);
    for (uint32_t i = 0; i < 4999; i++)
        use(&shard, i);
    residency_stats_get(shard.residency, &stats);
    assert_int_equal(stats.small_count, 0);
    assert_int_equal(stats.ghost_count_max, 0);
    /* An empty index must not keep the hand going round. */
    for (uint32_t i = 0; i < 4999; i++)
        drop(&shard, i);
    assert_int_equal(residency_spill(shard.residency, 1, 1000, spill, &shard), 0);
    shard_deinit(&shard);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_sweep_of_cold_keys_leaves_the_hot_set),
        cmocka_unit_test(test_a_sweep_in_turns),
        cmocka_unit_test(test_what_comes_back_goes_to_main),
        cmocka_unit_test(test_main_forgets),
        cmocka_unit_test(test_queue_and_ghost_are_bounded),
        cmocka_unit_test(test_refused_values_go_later),
        cmocka_unit_test(test_small_gives_to_many_short_calls),
        cmocka_unit_test(test_with_room_nothing_is_remembered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
