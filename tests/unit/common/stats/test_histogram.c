/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "common/base/mem.h"
#include "common/stats/histogram.h"

/* Every value lies within the bounds of its bucket, and the bounds meet without a gap. */
static void test_buckets_cover_every_value_once(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        assert_int_equal(histogram_index(histogram_bucket_low(i)), i);
        assert_int_equal(histogram_index(histogram_bucket_high(i)), i);
        if (i + 1 < HISTOGRAM_BUCKETS)
            assert_int_equal(histogram_bucket_high(i) + 1, histogram_bucket_low(i + 1));
    }
    assert_int_equal(histogram_bucket_low(0), 0);
    assert_int_equal(histogram_bucket_high(HISTOGRAM_BUCKETS - 1), HISTOGRAM_VALUE_MAX);
    assert_int_equal(histogram_index(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
}

static void test_a_value_is_known_to_a_sixteenth(void **state)
{
    (void)state;
    for (uint64_t value = 1; value < HISTOGRAM_VALUE_MAX; value += value / 100 + 1) {
        uint32_t i = histogram_index(value);

        assert_true(histogram_bucket_low(i) <= value && value <= histogram_bucket_high(i));
        assert_true((histogram_bucket_high(i) - histogram_bucket_low(i) + 1) * 16 <= MAX(value, 16u));
    }
}

static void test_quantiles_of_a_thousand(void **state)
{
    struct histogram *histogram = must_zalloc(sizeof(*histogram));

    (void)state;
    assert_int_equal(histogram_quantile(histogram, 5000), 0);
    assert_int_equal(histogram_quantile(histogram, 10000), 0);
    for (uint64_t i = 1; i <= 1000; i++)
        histogram_add(histogram, i);
    assert_int_equal(histogram_count(histogram), 1000);
    assert_int_equal(histogram->sum, 500500);
    assert_int_equal(histogram_quantile(histogram, 10000), 1000);
    assert_int_equal(histogram_quantile(histogram, 9999), 1000); /* never above the max */
    assert_in_range(histogram_quantile(histogram, 5000), 500, 500 + 500 / 16);
    assert_in_range(histogram_quantile(histogram, 9900), 990, 1000);
    assert_int_equal(histogram_quantile(histogram, 0), 1); /* the least */
    assert_int_equal(histogram_count_to(histogram, 31), 31);
    assert_int_equal(histogram_count_to(histogram, UINT64_MAX), 1000);
    mem_free(histogram);
}

/* The range ends, the truth does not. */
static void test_what_is_too_long_is_kept_in_the_max(void **state)
{
    struct histogram *histogram = must_zalloc(sizeof(*histogram));

    (void)state;
    histogram_add(histogram, 5);
    histogram_add(histogram, 1ull << 40);
    assert_int_equal(histogram_quantile(histogram, 10000), 1ull << 40);
    assert_int_equal(histogram_quantile(histogram, 5000), 5);
    assert_int_equal(histogram->buckets[HISTOGRAM_BUCKETS - 1], 1);
    mem_free(histogram);
}

/* Two halves merged are the same as the whole. */
static void test_merging_is_adding(void **state)
{
    struct histogram *halves = must_zalloc(sizeof(*halves) * 3);

    (void)state;
    for (uint64_t i = 0; i < 5000; i++) {
        histogram_add(&halves[i % 2], i * i);
        histogram_add(&halves[2], i * i);
    }
    histogram_merge(&halves[0], &halves[1]);
    assert_memory_equal(&halves[0], &halves[2], sizeof(halves[0]));
    mem_free(halves);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buckets_cover_every_value_once),
        cmocka_unit_test(test_a_value_is_known_to_a_sixteenth),
        cmocka_unit_test(test_quantiles_of_a_thousand),
        cmocka_unit_test(test_what_is_too_long_is_kept_in_the_max),
        cmocka_unit_test(test_merging_is_adding),
    };

    return cmocka_run_group_tests_name("histogram", tests, NULL, NULL);
}
