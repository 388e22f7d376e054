/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "proxy/nameset.h"

#include <stdio.h>
#include <string.h>

static struct bytes name_of(uint32_t i, char text[32])
{
    return bytes_of(text, (size_t)snprintf(text, 32, "channel:%u", i));
}

static void test_a_name_is_in_it_once(void **state)
{
    struct nameset set = {.seed = 7};

    (void)state;
    assert_false(nameset_has(&set, BYTES("a")));
    assert_int_equal(nameset_remove(&set, BYTES("a")), ERR_NOT_FOUND);
    assert_int_equal(nameset_add(&set, BYTES("a")), 0);
    assert_int_equal(nameset_add(&set, BYTES("a")), ERR_EXISTS);
    assert_int_equal(nameset_add(&set, BYTES_EMPTY), 0);
    assert_int_equal(nameset_add(&set, BYTES("a\0b")), 0);
    assert_int_equal(set.count, 3);
    assert_true(nameset_has(&set, BYTES("a\0b")));
    assert_true(nameset_has(&set, BYTES_EMPTY));
    assert_int_equal(nameset_remove(&set, BYTES("a")), 0);
    assert_false(nameset_has(&set, BYTES("a")));
    assert_true(nameset_has(&set, BYTES("a\0b")));
    nameset_deinit(&set);
}

/* Thousands come and go; a bitmap says what must be there. */
static void test_it_agrees_with_a_bitmap(void **state)
{
    static bool model[500];
    struct nameset set = {.seed = 99};
    uint32_t random = 1, count = 0, at = 0, walked = 0;
    struct bytes name;
    char text[32];

    (void)state;
    for (int i = 0; i < 20000; i++) {
        uint32_t which;

        random = random * 1664525u + 1013904223u;
        which = (random >> 8) % 500;
        if (random & 0x80) {
            assert_int_equal(nameset_add(&set, name_of(which, text)), model[which] ? ERR_EXISTS : 0);
            count += !model[which];
            model[which] = true;
        } else {
            assert_int_equal(nameset_remove(&set, name_of(which, text)), model[which] ? 0 : ERR_NOT_FOUND);
            count -= model[which];
            model[which] = false;
        }
        assert_int_equal(set.count, count);
    }
    for (uint32_t i = 0; i < 500; i++)
        assert_int_equal(nameset_has(&set, name_of(i, text)), model[i]);
    while (nameset_next(&set, &at, &name))
        walked++;
    assert_int_equal(walked, count);
    nameset_deinit(&set);
}

static void test_the_walk_is_in_the_order_of_arrival(void **state)
{
    struct nameset set = {.seed = 3};
    uint32_t at = 0, expected = 0;
    struct bytes name;
    char text[32];

    (void)state;
    for (uint32_t i = 0; i < 100; i++)
        assert_int_equal(nameset_add(&set, name_of(i, text)), 0);
    for (uint32_t i = 0; i < 100; i += 3)
        assert_int_equal(nameset_remove(&set, name_of(i, text)), 0);
    while (nameset_next(&set, &at, &name)) {
        expected += expected % 3 == 0;
        assert_true(bytes_equal(name, name_of(expected, text)));
        expected++;
    }
    assert_int_equal(expected, 99);
    nameset_deinit(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_name_is_in_it_once),
        cmocka_unit_test(test_it_agrees_with_a_bitmap),
        cmocka_unit_test(test_the_walk_is_in_the_order_of_arrival),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
