/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "common/base/buffer.h"

static void test_what_is_appended_stands_in_order(void **state)
{
    struct buffer buffer = {0};

    (void)state;
    for (int i = 0; i < 1000; i++)
        buffer_append_format(&buffer, "%03d,", i);
    assert_int_equal(buffer.len, 4000);
    assert_memory_equal(buffer.data, "000,001,", 8);
    buffer_consume(&buffer, 3996);
    assert_int_equal(buffer.len, 4);
    assert_memory_equal(buffer.data, "999,", 4);
    buffer_append_string(&buffer, "end");
    buffer_append(&buffer, NULL, 0);
    assert_memory_equal(buffer.data, "999,end", 7);
    buffer_deinit(&buffer);
    assert_null(buffer.data);
}

/* It stays failed, with what it had, until it is cleared. */
static void test_a_bound_is_kept(void **state)
{
    struct buffer buffer = {.max = 100};
    char text[64] = {0};

    (void)state;
    buffer_append(&buffer, text, sizeof(text));
    assert_false(buffer.failed);
    buffer_append(&buffer, text, sizeof(text));
    assert_true(buffer.failed);
    assert_int_equal(buffer.len, sizeof(text));
    assert_null(buffer_reserve(&buffer, 1));
    buffer_clear(&buffer);
    assert_non_null(buffer_reserve(&buffer, 100));
    assert_null(buffer_reserve(&buffer, SIZE_MAX));
    buffer_deinit(&buffer);
    assert_int_equal(buffer.max, 100);
}

/* What comes then stays where it is; and to expect too much is no failure. */
static void test_what_is_expected_is_not_moved(void **state)
{
    struct buffer buffer = {0}, bounded = {.max = 100};
    char piece[1000] = {'x'};
    const char *data;

    (void)state;
    buffer_append_string(&buffer, "head");
    buffer_expect(&buffer, 1000 * sizeof(piece));
    data = buffer.data;
    for (int i = 0; i < 1000; i++)
        buffer_append(&buffer, piece, sizeof(piece));
    assert_ptr_equal(buffer.data, data);
    assert_memory_equal(buffer.data, "headx", 5);
    buffer_expect(&buffer, SIZE_MAX);
    assert_false(buffer.failed);
    assert_ptr_equal(buffer.data, data);
    buffer_expect(&bounded, 1 << 20);
    assert_false(bounded.failed);
    assert_non_null(buffer_reserve(&bounded, 100));
    buffer_deinit(&buffer);
    buffer_deinit(&bounded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_appended_stands_in_order),
        cmocka_unit_test(test_a_bound_is_kept),
        cmocka_unit_test(test_what_is_expected_is_not_moved),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
