/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "backend/store/effect.h"
#include "backend/types/string.h"
#include "common/base/err.h"
#include "common/base/shared.h"

static struct bytes image_of(const struct object *object, struct buffer *out)
{
    buffer_clear(out);
    string_ops.encode(object, out);
    assert_false(out->failed);
    return buffer_bytes(out);
}

/* A replica that has the image and gets the effects holds the same bytes. */
static void test_effects_repeat_changes(void **state)
{
    struct object *object = string_ops.decode(BYTES("hello")), *replica = string_ops.create();
    struct buffer effects = {0}, a = {0}, b = {0};

    (void)state;
    assert_int_equal(string_append(replica, BYTES("hello")), 0);
    assert_int_equal(string_append(object, BYTES(" world")), 0);
    string_effect_append(&effects, BYTES(" world"));
    assert_int_equal(string_write(object, 2, BYTES("LL")), 0);
    string_effect_write(&effects, 2, BYTES("LL"));
    assert_int_equal(string_write(object, 14, BYTES("!")), 0);
    string_effect_write(&effects, 14, BYTES("!"));
    assert_int_equal(string_ops.apply(replica, buffer_bytes(&effects)), 0);
    assert_true(bytes_equal(string_object_bytes(object), BYTES("heLLo world\0\0\0!")));
    assert_true(bytes_equal(image_of(object, &a), image_of(replica, &b)));
    assert_int_equal(string_ops.count(object), 15);
    assert_true(string_ops.bytes(object) >= 15 + sizeof(struct string_object));
    string_ops.destroy(object);
    assert_true(string_ops.destroy_step(replica, 1));
    buffer_deinit(&effects);
    buffer_deinit(&a);
    buffer_deinit(&b);
}

static void test_too_long_changes_nothing(void **state)
{
    struct object *object = string_ops.decode(BYTES("x"));

    (void)state;
    assert_int_equal(string_write(object, STORE_VALUE_MAX, BYTES("y")), ERR_FULL);
    assert_int_equal(string_write(object, SIZE_MAX, BYTES("y")), ERR_FULL);
    assert_int_equal(string_ops.count(object), 1);
    string_ops.destroy(object);
}

/* What a reply refers to stays as it is, whatever becomes of the value. */
static void test_what_is_held_does_not_change(void **state)
{
    struct object *object = string_ops.decode(BYTES("hello"));
    char *held[4];

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        held[i] = (char *)string_object_bytes(object).data;
        shared_hold(held[i]);
        if (i == 0)
            assert_int_equal(string_write(object, 0, BYTES("J")), 0);
        if (i == 1)
            assert_int_equal(string_append(object, BYTES(", world")), 0);
        if (i == 2)
            assert_int_equal(string_write(object, 4, BYTES("y")), 0);
    }
    assert_true(bytes_equal(string_object_bytes(object), BYTES("Jelly, world")));
    string_ops.destroy(object);
    assert_memory_equal(held[0], "hello", 5);
    assert_memory_equal(held[1], "Jello", 5);
    assert_memory_equal(held[2], "Jello, world", 12);
    assert_memory_equal(held[3], "Jelly, world", 12);
    for (unsigned i = 0; i < 4; i++) {
        assert_true(shared_is_sole(held[i]));
        shared_drop(held[i]);
    }
}

static void test_bad_effects_are_refused(void **state)
{
    struct object *object = string_ops.decode(BYTES("x"));
    struct buffer effects = {0};

    (void)state;
    string_effect_write(&effects, (size_t)STORE_VALUE_MAX, BYTES("y"));
    assert_int_equal(string_ops.apply(object, buffer_bytes(&effects)), ERR_CORRUPT);
    for (size_t len = 1; len < effects.len; len++)
        assert_int_equal(string_ops.apply(object, bytes_of(effects.data, len)), ERR_CORRUPT);
    buffer_clear(&effects);
    effect_begin(&effects, 77, 1);
    effect_bytes(&effects, BYTES("y"));
    assert_int_equal(string_ops.apply(object, buffer_bytes(&effects)), ERR_CORRUPT);
    buffer_clear(&effects);
    effect_begin(&effects, STRING_EFFECT_WRITE, 1);
    effect_bytes(&effects, BYTES("y"));
    assert_int_equal(string_ops.apply(object, buffer_bytes(&effects)), ERR_CORRUPT);
    assert_int_equal(string_ops.count(object), 1);
    string_ops.destroy(object);
    buffer_deinit(&effects);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_effects_repeat_changes),
        cmocka_unit_test(test_too_long_changes_nothing),
        cmocka_unit_test(test_what_is_held_does_not_change),
        cmocka_unit_test(test_bad_effects_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
