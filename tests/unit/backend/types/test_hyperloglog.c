/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "backend/types/hyperloglog.h"
#include "common/base/err.h"

#include <stdio.h>

static uint64_t fnv(struct bytes b)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (size_t i = 0; i < b.len; i++)
        h = (h ^ (unsigned char)b.data[i]) * 0x100000001b3u;
    return h;
}

static void add_range(struct hll *hll, unsigned first, unsigned end)
{
    for (unsigned i = first; i < end; i++) {
        char element[16];
        int len = snprintf(element, sizeof(element), "e%u", i);
        int changed = hll_add(hll, bytes_of(element, (size_t)len));

        assert_true(changed >= 0);
        if (changed == 1)
            hll_cache_invalidate(hll);
    }
}

/* Strings that redis-server 7.0.15 made of PFADD h e0, e1 ...: length, digest, PFCOUNT, digest after that. */
static void test_strings_are_those_of_redis(void **state)
{
    static const struct {
        unsigned elements;
        size_t len;
        uint64_t digest, count, digest_counted;
    } cases[] = {
        {1, 21, 0xfffb6faeff77f7cdu, 1, 0x546d16fdfd2c805au},
        {10, 48, 0x4afcb65d27f7d346u, 10, 0xd06c25fbeaa23420u},
        {300, 713, 0xa4cfffba965d1718u, 302, 0xc7b1bd47db913d5bu},
        {2000, 12304, 0x1b5576fa1f6b8092u, 2000, 0xdd4d26f186b57d33u},
        {5000, 12304, 0x805246753a1cdadau, 4968, 0x9219c5a2921db657u},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct hll hll;
        uint64_t count;

        assert_int_equal(hll_load(&hll, BYTES_EMPTY), 0);
        add_range(&hll, 0, cases[i].elements);
        assert_true(hll_is_valid(hll_bytes(&hll)));
        assert_int_equal(hll.len, cases[i].len);
        assert_true(fnv(hll_bytes(&hll)) == cases[i].digest);
        assert_false(hll_cached(hll_bytes(&hll), &count));
        assert_int_equal(hll_count(hll_bytes(&hll), &count), 0);
        assert_int_equal(count, cases[i].count);
        hll_cache_set(&hll, count);
        assert_true(hll_cached(hll_bytes(&hll), &count));
        assert_int_equal(count, cases[i].count);
        assert_true(fnv(hll_bytes(&hll)) == cases[i].digest_counted);
        hll_deinit(&hll);
    }
}

/* Merging in registers, from either encoding, gives what adding all elements to one gives. */
static void test_merge_is_union(void **state)
{
    static uint8_t registers[HLL_REGISTERS];
    struct hll a, b, all;
    uint64_t count;

    (void)state;
    assert_int_equal(hll_load(&a, BYTES_EMPTY), 0);
    assert_int_equal(hll_load(&b, BYTES_EMPTY), 0);
    assert_int_equal(hll_load(&all, BYTES_EMPTY), 0);
    add_range(&a, 0, 400);
    add_range(&b, 200, 4000);
    add_range(&all, 0, 4000);
    assert_false(hll_is_dense(hll_bytes(&a)));
    assert_true(hll_is_dense(hll_bytes(&b)));
    memset(registers, 0, sizeof(registers));
    assert_int_equal(hll_merge(hll_bytes(&a), registers), 0);
    assert_int_equal(hll_merge(hll_bytes(&b), registers), 0);
    assert_int_equal(hll_count(hll_bytes(&all), &count), 0);
    assert_int_equal(hll_count_registers(registers), count);
    assert_int_equal(hll_make_dense(&a), 0);
    hll_raise(&a, registers);
    assert_memory_equal(a.data + HLL_HEADER_SIZE, all.data + HLL_HEADER_SIZE,
                        HLL_DENSE_SIZE - HLL_HEADER_SIZE);
    hll_deinit(&a);
    hll_deinit(&b);
    hll_deinit(&all);
}

/* Anybody can SET such strings. None may be read or written outside its bytes. */
static void test_broken_runs_are_refused(void **state)
{
    static const char header[] = "HYLL\1\0\0\0\0\0\0\0\0\0\0\200";
    static const struct bytes tails[] = {
        {"", 0}, {"\x3f", 1}, {"\x7f", 1}, {"\x7f\xff\x00", 3}, {"\x7f\xfe", 2}, {"\xff\xff", 2},
    };
    static uint8_t registers[HLL_REGISTERS];

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(tails); i++) {
        char string[32];
        struct hll hll;
        uint64_t count;
        struct bytes whole = bytes_of(string, HLL_HEADER_SIZE + tails[i].len);

        memcpy(string, header, HLL_HEADER_SIZE);
        memcpy(string + HLL_HEADER_SIZE, tails[i].data, tails[i].len);
        assert_true(hll_is_valid(whole));
        assert_int_equal(hll_count(whole, &count), ERR_CORRUPT);
        assert_int_equal(hll_merge(whole, registers), ERR_CORRUPT);
        assert_int_equal(hll_load(&hll, whole), 0);
        assert_int_equal(hll_make_dense(&hll), ERR_CORRUPT);
        for (unsigned element = 0; element < 100; element++)
            MAYBE(hll_add(&hll, bytes_of(&element, sizeof(element))) == ERR_CORRUPT);
        hll_deinit(&hll);
    }
    assert_false(hll_is_valid(BYTES("HYLL")));
    assert_false(hll_is_valid(BYTES("HYLL\2\0\0\0\0\0\0\0\0\0\0\0")));
    assert_false(hll_is_valid(BYTES("HYLL\0\0\0\0\0\0\0\0\0\0\0\0")));
    assert_false(hll_is_valid(BYTES("hyll\1\0\0\0\0\0\0\0\0\0\0\0\177\377")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strings_are_those_of_redis),
        cmocka_unit_test(test_merge_is_union),
        cmocka_unit_test(test_broken_runs_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
