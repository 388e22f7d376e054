/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "backend/store/effect.h"
#include "backend/types/list.h"
#include "backend/types/types.h"

#include <stdio.h>
#include <stdlib.h>

static struct bytes image_of(const struct object *object, struct buffer *out)
{
    buffer_clear(out);
    list_ops.encode(object, out);
    assert_false(out->failed);
    return buffer_bytes(out);
}

static void assert_same(const struct object *a, const struct object *b)
{
    struct buffer images[2] = {{0}, {0}};

    assert_true(bytes_equal(image_of(a, &images[0]), image_of(b, &images[1])));
    assert_int_equal(list_ops.count(a), list_ops.count(b));
    buffer_deinit(&images[0]);
    buffer_deinit(&images[1]);
}

static void change(struct object *object, struct buffer *effects)
{
    char texts[3][32];
    struct bytes items[3];
    uint64_t count = list_ops.count(object);
    enum deque_end end = rand() % 2 ? DEQUE_HEAD : DEQUE_TAIL;

    for (uint32_t i = 0; i < 3; i++)
        items[i] = bytes_of(texts[i], (size_t)snprintf(texts[i], 32, "item %d", rand() % 100));
    switch (rand() % 6) {
    case 0:
    case 1:
        assert_int_equal(list_push(object, end, items, 1 + (uint32_t)rand() % 3, effects), 0);
        break;
    case 2:
        list_pop(object, end, MIN(count, (uint64_t)rand() % 3), effects);
        break;
    case 3:
        if (count > 0)
            assert_int_equal(list_set(object, (uint64_t)rand() % count, items[0], effects), 0);
        break;
    case 4:
        assert_int_equal(list_insert(object, (uint64_t)rand() % (count + 1), items[0], effects), 0);
        break;
    default:
        MAYBE(list_remove_equal(object, items[0], rand() % 5 - 2, effects));
        break;
    }
}

/* What a replica makes of the effects, and of an image now and then, is what the primary has. */
static void test_effects_and_images_make_the_same_list(void **state)
{
    (void)state;
    struct object *primary = list_ops.create(), *replica = list_ops.create();
    struct buffer effects = {0}, image = {0};

    srand(1);
    for (uint32_t i = 0; i < 5000; i++) {
        buffer_clear(&effects);
        for (int n = rand() % 4; n >= 0; n--)
            change(primary, &effects);
        assert_int_equal(list_ops.apply(replica, buffer_bytes(&effects)), 0);
        if (i % 50 == 0) {
            assert_same(primary, replica);
            list_ops.destroy(replica);
            replica = list_ops.decode(image_of(primary, &image));
            assert_non_null(replica);
        }
    }
    assert_same(primary, replica);
    list_ops.destroy(primary);
    while (!list_ops.destroy_step(replica, 10))
        ;
    buffer_deinit(&effects);
    buffer_deinit(&image);
}

static void test_refuses_what_is_no_image(void **state)
{
    (void)state;
    static const struct bytes bad[] = {
        BYTES("\x02" "a"), BYTES("\x01" "a" "\x80"), BYTES("\xff\xff\xff\xff\xff\xff"),
    };

    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_null(list_ops.decode(bad[i]));
}

/* Effects of another list: too many popped, no such index, no such item. */
static void test_refuses_effects_that_do_not_fit(void **state)
{
    (void)state;
    static const uint8_t codes[] = {3, 4, 5, 6, 7, 8, 100};

    for (size_t i = 0; i < ARRAY_COUNT(codes); i++) {
        struct object *object = list_ops.create();
        struct buffer effects = {0};

        effect_begin(&effects, codes[i], 2);
        effect_u64(&effects, 1);
        effect_bytes(&effects, BYTES("item"));
        assert_int_equal(list_ops.apply(object, buffer_bytes(&effects)), ERR_CORRUPT);
        assert_int_equal(list_ops.count(object), 0);
        buffer_deinit(&effects);
        list_ops.destroy(object);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_effects_and_images_make_the_same_list),
        cmocka_unit_test(test_refuses_what_is_no_image),
        cmocka_unit_test(test_refuses_effects_that_do_not_fit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
