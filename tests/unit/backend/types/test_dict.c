/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "backend/types/dict.h"
#include "common/base/err.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <stdlib.h>

/* An item is a key alone here. */
static char *item_make(struct bytes key)
{
    char *item = must_alloc(item_size(key.len));

    item_write(item, key);
    return item;
}

static struct bytes key_of(uint32_t number, char text[32])
{
    int len = snprintf(text, 32, "key:%u", number);

    return bytes_of(text, (size_t)len);
}

static void insert(struct dict *dict, uint32_t number)
{
    char text[32];
    struct bytes key = key_of(number, text);

    assert_int_equal(dict_insert(dict, dict_hash(key), item_make(key)), 0);
}

static bool take(struct dict *dict, uint32_t number)
{
    char text[32];
    struct bytes key = key_of(number, text);
    char *item = dict_remove(dict, dict_hash(key), key);

    mem_free(item);
    return item != NULL;
}

static bool has(const struct dict *dict, uint32_t number)
{
    char text[32];
    struct bytes key = key_of(number, text);
    char *item = dict_find(dict, dict_hash(key), key);

    assert_true(item == NULL || bytes_equal(dict_item_key(item), key));
    return item != NULL;
}

static uint32_t number_of(const char *item)
{
    struct bytes key = dict_item_key(item);
    uint64_t number;

    assert_true(bytes_to_u64(bytes_skip(key, 4), UINT32_MAX, &number));
    return (uint32_t)number;
}

static void free_item(void *arg, char *item)
{
    (void)arg;
    mem_free(item);
}

static void clear(struct dict *dict)
{
    while (!dict_clear_step(dict, 100, free_item, NULL))
        ;
    assert_int_equal(dict->bytes, 0);
}

static void test_empty_table_takes_no_memory(void **state)
{
    struct dict dict;
    struct dict_walk walk;

    (void)state;
    dict_init(&dict);
    assert_null(dict_find(&dict, 1, BYTES("x")));
    assert_null(dict_remove(&dict, 1, BYTES("x")));
    assert_null(dict_random(&dict, 1));
    assert_int_equal(dict_scan(&dict, 5, NULL, NULL), 0);
    assert_int_equal(dict_sorted(&dict, NULL, NULL), 0);
    dict_walk_init(&walk, &dict);
    assert_null(dict_walk_next(&walk));
    assert_int_equal(dict.bytes, 0);
    assert_true(dict_clear_step(&dict, 1, NULL, NULL));
    dict_deinit(&dict);
}

/* Against an array of flags: every insert, every tenth a removal, then all removed again. */
static void test_agrees_with_a_model_while_it_grows_and_shrinks(void **state)
{
    enum { COUNT = 20000 };
    bool *model = must_zalloc(COUNT);
    struct dict dict;
    uint64_t count = 0;

    (void)state;
    dict_init(&dict);
    srand(1);
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t victim = (uint32_t)rand() % (i + 1);

        insert(&dict, i);
        model[i] = true;
        count++;
        if (i % 10 == 0) {
            assert_int_equal(take(&dict, victim), model[victim]);
            count -= model[victim];
            model[victim] = false;
        }
        assert_int_equal(dict.count, count);
        assert_true(dict.bucket_count <= dict.mask + 1);
        assert_true(dict.mask + 1 < 2 * dict.bucket_count);
    }
    for (uint32_t i = 0; i < COUNT; i++)
        assert_int_equal(has(&dict, i), model[i]);
    assert_true(dict.bytes < count * 14);
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_int_equal(take(&dict, i), model[i]);
        assert_false(has(&dict, i));
        assert_true(i % 100 != 0 || i + 1 == COUNT || has(&dict, COUNT - 1));
    }
    assert_int_equal(dict.count, 0);
    assert_true(dict.bytes <= 4 * 64 + 16);
    clear(&dict);
    mem_free(model);
}

static void test_walk_meets_each_item_once(void **state)
{
    enum { COUNT = 5000 };
    uint8_t *seen = must_zalloc(COUNT);
    struct dict dict;
    struct dict_walk walk;
    uint32_t count = 0;

    (void)state;
    dict_init(&dict);
    for (uint32_t i = 0; i < COUNT; i++)
        insert(&dict, i);
    dict_walk_init(&walk, &dict);
    for (char *item; (item = dict_walk_next(&walk)) != NULL; count++)
        assert_int_equal(seen[number_of(item)]++, 0);
    assert_int_equal(count, COUNT);
    clear(&dict);
    mem_free(seen);
}

struct scan {
    uint8_t *seen;
    uint32_t count;
};

static void note(void *arg, char *item)
{
    struct scan *scan = arg;

    scan->seen[number_of(item)] = 1;
    scan->count++;
}

/* What stays is seen, however much comes and goes between two steps. Grows in one run, shrinks in the next. */
static void test_scan_sees_what_stays(void **state)
{
    enum { STAY = 500, COUNT = 20000 };

    (void)state;
    for (int run = 0; run < 4; run++) {
        struct scan scan = {.seen = must_zalloc(COUNT)};
        struct dict dict;
        uint32_t next = STAY, gone = STAY;
        uint64_t cursor = 0;

        dict_init(&dict);
        for (uint32_t i = 0; i < STAY; i++)
            insert(&dict, i);
        for (; run == 1 && next < COUNT; next++)
            insert(&dict, next);
        do {
            cursor = dict_scan(&dict, cursor, note, &scan);
            for (int i = 0; run == 0 && i < 50 && next < COUNT; i++)
                insert(&dict, next++);
            for (int i = 0; run == 1 && i < 50 && gone < COUNT; i++)
                assert_true(take(&dict, gone++));
            for (int i = 0; run == 2 && i < 7 && next < COUNT; i++)
                insert(&dict, next++);
        } while (cursor != 0);
        for (uint32_t i = 0; i < STAY; i++)
            assert_int_equal(scan.seen[i], 1);
        if (run == 3)
            assert_int_equal(scan.count, STAY);
        clear(&dict);
        mem_free(scan.seen);
    }
}

/* Any number may come from a client. */
static void test_scan_takes_any_cursor(void **state)
{
    uint8_t *seen = must_zalloc(1000);
    struct scan scan = {.seen = seen};
    struct dict dict;

    (void)state;
    dict_init(&dict);
    for (uint32_t i = 0; i < 1000; i++)
        insert(&dict, i);
    for (uint64_t cursor = 1; cursor != 0; cursor <<= 1)
        MAYBE(dict_scan(&dict, cursor, note, &scan));
    MAYBE(dict_scan(&dict, UINT64_MAX, note, &scan));
    clear(&dict);
    mem_free(seen);
}

struct order {
    uint32_t numbers[1000];
    uint32_t count;
};

static void add_order(void *arg, char *item)
{
    struct order *order = arg;

    order->numbers[order->count++] = number_of(item);
}

/* One table grew step by step, the other was ten times as large: the order is the same. */
static void test_sorted_order_depends_on_items_alone(void **state)
{
    struct order first = {.count = 0}, second = {.count = 0};
    struct dict a, b;

    (void)state;
    dict_init(&a);
    dict_init(&b);
    for (uint32_t i = 0; i < 1000; i++)
        insert(&a, i);
    for (uint32_t i = 10000; i > 0; i--)
        insert(&b, i - 1);
    for (uint32_t i = 1000; i < 10000; i++)
        assert_true(take(&b, i));
    assert_int_equal(dict_sorted(&a, add_order, &first), 0);
    assert_int_equal(dict_sorted(&b, add_order, &second), 0);
    assert_int_equal(first.count, 1000);
    assert_memory_equal(&first, &second, sizeof(first));
    clear(&a);
    clear(&b);
}

/* As many buckets as an insert each would have made, and the table is used, and taken back, as any other. */
static void test_expected_items_find_their_buckets(void **state)
{
    static const uint32_t counts[] = {0, 1, 24, 25, 383, 384, 385, 1000, 100000};

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(counts); i++) {
        struct dict grown, expected, empty;

        dict_init(&grown);
        dict_init(&expected);
        dict_init(&empty);
        dict_expect(&empty, counts[i]);
        dict_expect(&expected, counts[i]);
        dict_prefetch(&expected, i);
        for (uint32_t number = 0; number < counts[i]; number++) {
            insert(&grown, number);
            insert(&expected, number);
        }
        assert_in_range(grown.bucket_count, expected.bucket_count, expected.bucket_count + 1);
        for (uint32_t number = 0; number < counts[i]; number++)
            assert_true(has(&expected, number));
        assert_false(has(&expected, counts[i]));
        for (uint32_t number = 0; number < counts[i]; number++)
            assert_true(take(&expected, number));
        insert(&expected, 1);
        clear(&grown);
        clear(&expected);
        clear(&empty);
    }
}

/* Each of 100 items is drawn 1000 times on average; the standard deviation is about 31. */
static void test_random_is_fair(void **state)
{
    uint32_t drawn[100] = {0};
    struct dict dict;

    (void)state;
    dict_init(&dict);
    for (uint32_t i = 0; i < 100; i++)
        insert(&dict, i);
    for (uint64_t i = 0; i < 100000; i++)
        drawn[number_of(dict_random(&dict, i * 0xda942042e4dd58b5u))]++;
    for (uint32_t i = 0; i < 100; i++)
        assert_in_range(drawn[i], 840, 1160);
    clear(&dict);
}

/* Hashes that are all the same make one long chain of overflow buckets; it still works. */
static void test_equal_hashes_share_a_chain(void **state)
{
    char text[32];
    struct dict dict;

    (void)state;
    dict_init(&dict);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(dict_insert(&dict, 7, item_make(key_of(i, text))), 0);
    for (uint32_t i = 0; i < 20; i++) {
        struct bytes key = key_of(i, text);

        assert_true(bytes_equal(dict_item_key(dict_find(&dict, 7, key)), key));
    }
    assert_int_equal(dict.chain_len_max, 20);
    for (uint32_t i = 0; i < 20; i += 3)
        mem_free(dict_remove(&dict, 7, key_of(i, text)));
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(dict_find(&dict, 7, key_of(i, text)) != NULL, i % 3 != 0);
    clear(&dict);
}

static void test_moved_item_is_found_at_its_new_place(void **state)
{
    struct dict dict;
    char *item = item_make(BYTES("a")), *moved = item_make(BYTES("a"));

    (void)state;
    dict_init(&dict);
    assert_int_equal(dict_insert(&dict, dict_hash(BYTES("a")), item), 0);
    dict_replace(&dict, dict_hash(BYTES("a")), item, moved);
    mem_free(item);
    assert_ptr_equal(dict_find(&dict, dict_hash(BYTES("a")), BYTES("a")), moved);
    clear(&dict);
}

static void test_clearing_goes_in_bounded_steps(void **state)
{
    struct dict dict;
    uint32_t steps = 0;

    (void)state;
    dict_init(&dict);
    for (uint32_t i = 0; i < 10000; i++)
        insert(&dict, i);
    for (; !dict_clear_step(&dict, 100, free_item, NULL); steps++)
        ;
    assert_in_range(steps, 99, 150);
    assert_int_equal(dict.bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_table_takes_no_memory),
        cmocka_unit_test(test_agrees_with_a_model_while_it_grows_and_shrinks),
        cmocka_unit_test(test_walk_meets_each_item_once),
        cmocka_unit_test(test_scan_sees_what_stays),
        cmocka_unit_test(test_scan_takes_any_cursor),
        cmocka_unit_test(test_sorted_order_depends_on_items_alone),
        cmocka_unit_test(test_expected_items_find_their_buckets),
        cmocka_unit_test(test_random_is_fair),
        cmocka_unit_test(test_equal_hashes_share_a_chain),
        cmocka_unit_test(test_moved_item_is_found_at_its_new_place),
        cmocka_unit_test(test_clearing_goes_in_bounded_steps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
