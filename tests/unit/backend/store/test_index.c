/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "backend/store/index.h"
#include "backend/store/slab.h"
#include "common/base/err.h"
#include "common/base/mem.h"

#include <stdio.h>

#define SEED 0x1234567890abcdefu

/* Keys are numbers; an entry's value has the number too, so that what a walk sees can be counted. */
struct keys {
    struct index *index;
    struct slab *slab;
    struct entry **entries; /* by number; NULL: not there */
    uint32_t *seen;         /* by number: how often a walk saw it */
    uint32_t cap, count;
    uint64_t random;
};

static uint64_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 32;
}

static void keys_init(struct keys *keys, uint32_t cap)
{
    *keys = (struct keys){.cap = cap, .random = 7};
    assert_int_equal(index_create(SEED, NULL, &keys->index), 0);
    assert_int_equal(slab_create(NULL, false, &keys->slab), 0);
    keys->entries = must_zalloc(cap * sizeof(*keys->entries));
    keys->seen = must_zalloc(cap * sizeof(*keys->seen));
}

static void keys_deinit(struct keys *keys)
{
    index_destroy(&keys->index);
    slab_destroy(&keys->slab);
    mem_free(keys->entries);
    mem_free(keys->seen);
    assert_null(keys->index);
}

static struct bytes key_of(uint32_t number, char room[16])
{
    int len = snprintf(room, 16, "key:%u", number);

    return bytes_of(room, (size_t)len);
}

static uint8_t db_of(uint32_t number)
{
    return (uint8_t)(number % 3);
}

static uint64_t hash_of(const struct keys *keys, uint32_t number)
{
    char room[16];

    return index_hash(keys->index, db_of(number), key_of(number, room));
}

static struct entry *entry_make(struct keys *keys, uint32_t number)
{
    char room[16];
    struct entry_parts parts = {.type = STORE_STRING, .db = db_of(number),
                                .key = key_of(number, room),
                                .value = bytes_of(&number, sizeof(number))};
    struct entry *e = slab_get(keys->slab, entry_size_of(&parts));

    assert_non_null(e);
    entry_compose(e, &parts);
    return e;
}

static uint32_t number_of(const struct entry *e)
{
    uint32_t number;

    memcpy(&number, entry_inline_value(e).data, sizeof(number));
    return number;
}

static void key_add(struct keys *keys, uint32_t number)
{
    ASSERT(keys->entries[number] == NULL);
    keys->entries[number] = entry_make(keys, number);
    assert_int_equal(index_insert(keys->index, hash_of(keys, number), keys->entries[number]), 0);
    keys->count++;
}

static void key_drop(struct keys *keys, uint32_t number)
{
    struct entry *e = keys->entries[number];

    index_remove(keys->index, hash_of(keys, number), e);
    slab_put(keys->slab, e, entry_size(e));
    keys->entries[number] = NULL;
    keys->count--;
}

static void key_move(struct keys *keys, uint32_t number)
{
    struct entry *e = keys->entries[number];

    keys->entries[number] = entry_make(keys, number);
    index_replace(keys->index, hash_of(keys, number), e, keys->entries[number]);
    slab_put(keys->slab, e, entry_size(e));
}

static void key_check(struct keys *keys, uint32_t number)
{
    char room[16];
    struct bytes key = key_of(number, room);
    uint64_t hash = hash_of(keys, number);

    assert_ptr_equal(index_find(keys->index, hash, db_of(number), key), keys->entries[number]);
    assert_ptr_equal(index_find_hash(keys->index, hash), keys->entries[number]);
    /* The same name in another database is another key. */
    assert_null(index_find(keys->index, hash, 5, key));
}

static void each_seen(void *arg, struct entry *entry)
{
    struct keys *keys = arg;

    keys->seen[number_of(entry)]++;
}

static void seen_clear(struct keys *keys)
{
    memset(keys->seen, 0, keys->cap * sizeof(*keys->seen));
}

/* Everything that is there was seen `times`, nothing else. */
static void seen_check(const struct keys *keys, uint32_t times)
{
    for (uint32_t i = 0; i < keys->cap; i++)
        assert_int_equal(keys->seen[i], keys->entries[i] != NULL ? times : 0);
}

static void test_empty_index_finds_nothing(void **state)
{
    struct keys keys;

    (void)state;
    keys_init(&keys, 4);
    key_check(&keys, 1);
    assert_null(index_random(keys.index, 1));
    assert_int_equal(index_sweep(keys.index, 99, each_seen, &keys) != 99, true);
    seen_check(&keys, 1);
    keys_deinit(&keys);
}

/* Random changes that pull the number of keys up and down again, against an array; all is looked up after each
 * stretch. */
static void test_agrees_with_a_model(void **state)
{
    static const uint32_t aims[] = {10, 1000, 20000, 3000, 50000, 49000, 100, 30000, 0};
    struct keys keys;

    (void)state;
    keys_init(&keys, 60000);
    for (size_t a = 0; a < ARRAY_COUNT(aims); a++) {
        for (uint32_t steps = 0; keys.count != aims[a] || steps < 2000; steps++) {
            uint32_t number = (uint32_t)(next_random(&keys.random) % keys.cap);
            bool grows = next_random(&keys.random) % 8 < (keys.count < aims[a] ? 7u : 0u);

            if (keys.entries[number] == NULL) {
                if (grows)
                    key_add(&keys, number);
            } else if (steps % 16 == 0) {
                key_move(&keys, number);
            } else if (!grows) {
                key_drop(&keys, number);
            }
        }
        assert_int_equal(index_count(keys.index), keys.count);
        for (uint32_t i = 0; i < keys.cap; i++)
            key_check(&keys, i);
    }
    keys_deinit(&keys);
}

/* X6: what went cold in its place is not offered, what came back is, and splits, merges and chains keep that. */
static void test_a_sweep_of_the_hot_ones(void **state)
{
    static const uint32_t aims[] = {3000, 20000, 500, 40000, 39000, 0};
    struct keys keys;
    uint64_t at;

    (void)state;
    keys_init(&keys, 50000);
    for (size_t a = 0; a < ARRAY_COUNT(aims); a++) {
        while (keys.count != aims[a]) {
            uint32_t number = (uint32_t)(next_random(&keys.random) % keys.cap);
            struct entry *e = keys.entries[number];

            if (e == NULL && keys.count < aims[a]) {
                key_add(&keys, number);
            } else if (e != NULL && keys.count > aims[a]) {
                e->type_flags &= (uint8_t)~ENTRY_COLD;
                key_drop(&keys, number);
            } else if (e != NULL) {
                e->type_flags ^= ENTRY_COLD;
                index_replace(keys.index, hash_of(&keys, number), e, e);
            }
        }
        seen_clear(&keys);
        at = 0;
        do
            at = index_sweep_hot(keys.index, at, each_seen, &keys);
        while (at != 0);
        for (uint32_t i = 0; i < keys.cap; i++)
            assert_int_equal(keys.seen[i], keys.entries[i] != NULL && !entry_is_cold(keys.entries[i]));
    }
    keys_deinit(&keys);
}

/* At every stage between two powers of two: half split is the worst. */
static void test_a_key_costs_at_most_eleven_bytes(void **state)
{
    const uint32_t count = 1000000;
    double worst = 0, at_million = 0;
    struct keys keys;

    (void)state;
    keys_init(&keys, 1);
    for (uint32_t i = 1; i <= count; i++) {
        struct entry *e = entry_make(&keys, i);

        assert_int_equal(index_insert(keys.index, hash_of(&keys, i), e), 0);
        if (i >= 400000 && i % 10000 == 0) {
            at_million = (double)index_bytes(keys.index) / i;
            worst = MAX(worst, at_million);
        }
    }
    print_message("# %.2f bytes a key at 1M keys, at most %.2f from 400k on\n", at_million, worst);
    assert_true(worst <= 11);
    keys_deinit(&keys);
}

static void test_memory_comes_back_when_keys_go(void **state)
{
    struct keys keys;
    uint64_t full;

    (void)state;
    keys_init(&keys, 300000);
    for (uint32_t i = 0; i < keys.cap; i++)
        key_add(&keys, i);
    full = index_bytes(keys.index);
    for (uint32_t i = 0; i < keys.cap - 30000; i++)
        key_drop(&keys, i);
    assert_true(index_bytes(keys.index) < full / 2);
    /* A round of the clock hand takes out what fragments are left. */
    for (uint64_t at = index_sweep(keys.index, 0, each_seen, &keys); at != 0;)
        at = index_sweep(keys.index, at, each_seen, &keys);
    seen_check(&keys, 1);
    assert_true(index_bytes(keys.index) < full / 4);
    for (uint32_t i = 0; i < keys.cap; i++)
        key_check(&keys, i);
    keys_deinit(&keys);
}

/* Half of the keys stay all the time. While a scan goes on, others come and go in waves that grow the table to
 * eight times its size and shrink it again; every key that stays must be seen. From many starts: where the table
 * stands when the scan begins is different each time. */
static void test_scan_misses_no_key_while_the_table_changes(void **state)
{
    const uint32_t staying = 2000;
    struct keys keys;

    (void)state;
    keys_init(&keys, 8 * staying);
    for (uint32_t i = 0; i < staying; i++)
        key_add(&keys, i);
    for (int round = 0; round < 60; round++) {
        uint64_t cursor = 0;
        unsigned wave = 0;
        bool is_growing = (round & 1) == 0;

        seen_clear(&keys);
        do {
            cursor = index_scan(keys.index, cursor, each_seen, &keys);
            assert_true(cursor < (uint64_t)1 << 40);
            for (uint64_t n = next_random(&keys.random) % (1 + 20 * (round % 5)); n > 0; n--) {
                uint32_t number =
                    staying + (uint32_t)(next_random(&keys.random) % (keys.cap - staying));

                if (is_growing && keys.entries[number] == NULL)
                    key_add(&keys, number);
                else if (!is_growing && keys.entries[number] != NULL)
                    key_drop(&keys, number);
            }
            if (++wave % (50 + 10 * round) == 0)
                is_growing = !is_growing;
        } while (cursor != 0);
        for (uint32_t i = 0; i < staying; i++)
            assert_true(keys.seen[i] >= 1);
    }
    keys_deinit(&keys);
}

static void test_scan_at_rest_sees_each_once(void **state)
{
    struct keys keys;
    uint32_t number = 0;

    (void)state;
    keys_init(&keys, 5000);
    /* Stops at many sizes, so that the table is caught at many splits. */
    for (uint32_t size = 1; size < keys.cap; size += size / 5 + 1) {
        uint64_t cursor = 0;

        while (number < size)
            key_add(&keys, number++);
        seen_clear(&keys);
        do
            cursor = index_scan(keys.index, cursor, each_seen, &keys);
        while (cursor != 0);
        seen_check(&keys, 1);
    }
    keys_deinit(&keys);
}

static void each_drop_or_move(void *arg, struct entry *entry)
{
    struct keys *keys = arg;
    uint32_t number = number_of(entry);

    keys->seen[number]++;
    switch (next_random(&keys->random) % 4) {
    case 0: key_drop(keys, number); break;
    case 1: key_move(keys, number); break;
    default: break;
    }
}

struct page_walk {
    struct keys *keys;
    uint64_t mask, page;
};

static void each_of_page(void *arg, struct entry *entry)
{
    struct page_walk *walk = arg;

    assert_int_equal(hash_of(walk->keys, number_of(entry)) & walk->mask, walk->page);
    each_drop_or_move(walk->keys, entry);
}

/* Coarser and finer than the buckets; the callback takes entries away as it goes. */
static void test_pages_share_out_all_entries(void **state)
{
    struct keys keys;

    (void)state;
    keys_init(&keys, 20000);
    for (unsigned bits = 0; bits < 16; bits++) {
        for (uint32_t i = 0; i < keys.cap; i++)
            if (keys.entries[i] == NULL && i % (bits + 1) == 0)
                key_add(&keys, i);
        uint32_t before = keys.count, seen = 0;

        seen_clear(&keys);
        for (uint64_t page = 0; page < (uint64_t)1 << bits; page++) {
            struct page_walk walk = {&keys, ((uint64_t)1 << bits) - 1, page};

            index_page_each(keys.index, bits, page, each_of_page, &walk);
        }
        for (uint32_t i = 0; i < keys.cap; i++) {
            assert_true(keys.seen[i] <= 1);
            seen += keys.seen[i];
            key_check(&keys, i);
        }
        assert_int_equal(seen, before);
        assert_int_equal(index_count(keys.index), keys.count);
    }
    keys_deinit(&keys);
}

static void test_sweep_goes_round(void **state)
{
    struct keys keys;
    uint64_t at = 0;

    (void)state;
    keys_init(&keys, 30000);
    for (uint32_t i = 0; i < keys.cap; i++)
        key_add(&keys, i);
    do
        at = index_sweep(keys.index, at, each_seen, &keys);
    while (at != 0);
    seen_check(&keys, 1);
    /* Taking away as it goes: the table shrinks under the hand, and all goes in the end. */
    for (unsigned steps = 0; keys.count > 0; steps++) {
        at = index_sweep(keys.index, at, each_drop_or_move, &keys);
        assert_true(steps < 1000000);
    }
    assert_int_equal(index_count(keys.index), 0);
    for (uint32_t i = 0; i < keys.cap; i++)
        key_check(&keys, i);
    keys_deinit(&keys);
}

static void test_random_finds_every_key(void **state)
{
    struct keys keys;
    uint32_t missing = 0;

    (void)state;
    keys_init(&keys, 700);
    for (uint32_t i = 0; i < keys.cap; i++)
        key_add(&keys, i);
    for (int i = 0; i < 40000; i++)
        each_seen(&keys, index_random(keys.index, next_random(&keys.random)));
    for (uint32_t i = 0; i < keys.cap; i++)
        missing += keys.seen[i] == 0;
    assert_int_equal(missing, 0);
    for (uint32_t i = 1; i < keys.cap; i++)
        key_drop(&keys, i);
    assert_ptr_equal(index_random(keys.index, 1), keys.entries[0]);
    keys_deinit(&keys);
}

/* The room stays while it fills, also when some keys go; after that it shrinks as any. */
static void test_reserved_room_stays_until_it_is_used(void **state)
{
    struct keys keys;
    uint64_t reserved;

    (void)state;
    keys_init(&keys, 200000);
    assert_int_equal(index_reserve(keys.index, 150000), 0);
    reserved = index_bytes(keys.index);
    key_add(&keys, 0);
    assert_ptr_equal(index_random(keys.index, 3), keys.entries[0]);
    key_drop(&keys, 0);
    for (uint32_t i = 0; i < 140000; i++)
        key_add(&keys, i);
    assert_true(index_bytes(keys.index) >= reserved);
    assert_true(index_bytes(keys.index) < reserved * 5 / 4); /* only nodes were added */
    for (uint32_t i = 140000; i < keys.cap; i++)
        key_add(&keys, i);
    for (uint32_t i = 0; i < keys.cap; i++)
        key_drop(&keys, i);
    assert_true(index_bytes(keys.index) < reserved / 4);
    keys_deinit(&keys);
}

static void insert_while_walking(void *arg, struct entry *entry)
{
    key_add(arg, number_of(entry) + 1);
}

static void walk_and_insert(void *arg)
{
    struct keys *keys = arg;

    for (uint64_t at = 0, i = 0; i < 64; i++)
        at = index_sweep(keys->index, at, insert_while_walking, keys);
}

static void remove_twice(void *arg)
{
    struct keys *keys = arg;
    struct entry *e = keys->entries[0];

    index_remove(keys->index, hash_of(keys, 0), e);
    index_remove(keys->index, hash_of(keys, 0), e);
}

static void test_misuse_ends_in_an_assertion(void **state)
{
    struct keys keys;

    (void)state;
    keys_init(&keys, 10);
    key_add(&keys, 0);
    assert_true(test_aborts(walk_and_insert, &keys));
    assert_true(test_aborts(remove_twice, &keys));
    keys_deinit(&keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_index_finds_nothing),
        cmocka_unit_test(test_agrees_with_a_model),
        cmocka_unit_test(test_a_sweep_of_the_hot_ones),
        cmocka_unit_test(test_a_key_costs_at_most_eleven_bytes),
        cmocka_unit_test(test_memory_comes_back_when_keys_go),
        cmocka_unit_test(test_scan_misses_no_key_while_the_table_changes),
        cmocka_unit_test(test_scan_at_rest_sees_each_once),
        cmocka_unit_test(test_pages_share_out_all_entries),
        cmocka_unit_test(test_sweep_goes_round),
        cmocka_unit_test(test_random_finds_every_key),
        cmocka_unit_test(test_reserved_room_stays_until_it_is_used),
        cmocka_unit_test(test_misuse_ends_in_an_assertion),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
