/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "common/base/bytes.h"

static void test_views_never_reach_past_the_end(void **state)
{
    const struct bytes b = BYTES("memcache");

    (void)state;
    assert_true(bytes_equal(bytes_first(b, 3), BYTES("mem")));
    assert_true(bytes_equal(bytes_first(b, 99), b));
    assert_true(bytes_equal(bytes_skip(b, 3), BYTES("cache")));
    assert_int_equal(bytes_skip(b, 99).len, 0);
    assert_ptr_equal(bytes_skip(b, 99).data, b.data + b.len);
}

/* A view of nothing may have no address. */
static void test_empty_views_without_an_address(void **state)
{
    const struct bytes none = bytes_of(NULL, 0);

    (void)state;
    assert_true(bytes_equal(none, BYTES_EMPTY));
    assert_true(bytes_equal(bytes_skip(none, 5), none));
    assert_true(bytes_equal(bytes_first(none, 5), none));
    assert_true(bytes_equal_nocase(none, BYTES_EMPTY));
    assert_int_equal(bytes_of_string("").len, 0);
}

static void test_equality_is_by_all_bytes_and_length(void **state)
{
    (void)state;
    assert_true(bytes_equal(BYTES("a\0b"), BYTES("a\0b")));
    assert_false(bytes_equal(BYTES("a\0b"), BYTES("a\0c")));
    assert_false(bytes_equal(BYTES("abc"), BYTES("ab")));
    assert_false(bytes_equal(BYTES("abc"), BYTES("ABC")));
}

/* Only A-Z and a-z fold: a byte 0x20 away from another is another ('@' and '`', 0xc4 and 0xe4). */
static void test_case_folds_in_ascii_alone(void **state)
{
    (void)state;
    assert_true(bytes_equal_nocase(BYTES("GetRange"), BYTES("gETrANGE")));
    assert_false(bytes_equal_nocase(BYTES("@"), BYTES("`")));
    assert_false(bytes_equal_nocase(BYTES("["), BYTES("{")));
    assert_false(bytes_equal_nocase(BYTES("\xc4"), BYTES("\xe4")));
    assert_false(bytes_equal_nocase(BYTES("get"), BYTES("gets")));
}

static void test_u64_takes_canonical_decimals_only(void **state)
{
    static const char *const wrong[] = {"",   "-1", "+1", " 1",    "1 ",    "01",
                                        "00", "0x1", "1.", "1e3", "\xb2", "18446744073709551616",
                                        "99999999999999999999", "100000000000000000000"};
    uint64_t value = 77;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        assert_false(bytes_to_u64(bytes_of_string(wrong[i]), UINT64_MAX, &value));
        assert_int_equal(value, 77); /* untouched */
    }
    assert_true(bytes_to_u64(BYTES("0"), 0, &value));
    assert_int_equal(value, 0);
    assert_true(bytes_to_u64(BYTES("18446744073709551615"), UINT64_MAX, &value));
    assert_true(value == UINT64_MAX);
}

static void test_u64_keeps_to_the_caller_s_bound(void **state)
{
    uint64_t value = 77;

    (void)state;
    assert_true(bytes_to_u64(BYTES("65535"), 65535, &value));
    assert_false(bytes_to_u64(BYTES("65536"), 65535, &value));
    assert_int_equal(value, 65535);
}

static void test_i64_reaches_both_ends(void **state)
{
    int64_t value = 7;

    (void)state;
    assert_true(bytes_to_i64(BYTES("9223372036854775807"), &value));
    assert_true(value == INT64_MAX);
    assert_true(bytes_to_i64(BYTES("-9223372036854775808"), &value));
    assert_true(value == INT64_MIN);
    assert_false(bytes_to_i64(BYTES("9223372036854775808"), &value));
    assert_false(bytes_to_i64(BYTES("-9223372036854775809"), &value));
    assert_false(bytes_to_i64(BYTES("-0"), &value));
    assert_false(bytes_to_i64(BYTES("--1"), &value));
    assert_false(bytes_to_i64(BYTES("-"), &value));
    assert_true(value == INT64_MIN);
}

/* Around each power of ten, and at the ends: digits and back is the same number. */
static void test_digits_round_trip(void **state)
{
    char digits[21];

    (void)state;
    for (uint64_t power = 1; power <= UINT64_MAX / 10; power *= 10)
        for (uint64_t value = power - 1; value <= power + 1; value++) {
            uint64_t back = ~value;
            int64_t negative = -(int64_t)value, negative_back = 1;

            assert_true(bytes_to_u64(bytes_of(digits, u64_to_digits(value, digits)), UINT64_MAX,
                                     &back));
            assert_true(back == value);
            if (value > INT64_MAX)
                continue;
            assert_true(bytes_to_i64(bytes_of(digits, i64_to_digits(negative, digits)),
                                     &negative_back));
            assert_true(negative_back == negative);
        }
    assert_int_equal(u64_to_digits(UINT64_MAX, digits), 20);
    assert_memory_equal(digits, "18446744073709551615", 20);
    assert_int_equal(i64_to_digits(INT64_MIN, digits), 20);
    assert_memory_equal(digits, "-9223372036854775808", 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_views_never_reach_past_the_end),
        cmocka_unit_test(test_empty_views_without_an_address),
        cmocka_unit_test(test_equality_is_by_all_bytes_and_length),
        cmocka_unit_test(test_case_folds_in_ascii_alone),
        cmocka_unit_test(test_u64_takes_canonical_decimals_only),
        cmocka_unit_test(test_u64_keeps_to_the_caller_s_bound),
        cmocka_unit_test(test_i64_reaches_both_ends),
        cmocka_unit_test(test_digits_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
