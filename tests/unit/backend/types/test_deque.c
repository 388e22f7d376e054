/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "backend/types/deque.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <stdlib.h>

#define MODEL_MAX 6000u
#define TEXT_MAX  9000u

/* What a deque should be: numbers, each standing for a text. */
struct model {
    uint32_t numbers[MODEL_MAX];
    uint32_t count;
};

/* Mostly short, some around the steps of the length's encoding, a few larger than a node. */
static struct bytes text_of(uint32_t number, char out[TEXT_MAX])
{
    static const uint32_t lens[] = {0, 1, 20, 100, 126, 127, 128, 129, 300, 4000};
    uint32_t len = number % 500 == 7 ? 8990 : lens[number % 7 == 3 ? number % 10 : number % 4];

    memset(out, 'a' + (int)(number % 26), len);
    if (len >= 12)
        MAYBE(snprintf(out, len, "%u", number) > 0);
    return bytes_of(out, len);
}

static void model_insert(struct model *model, uint32_t index, uint32_t number)
{
    assert_true(model->count < MODEL_MAX);
    memmove(model->numbers + index + 1, model->numbers + index,
            (model->count - index) * sizeof(model->numbers[0]));
    model->numbers[index] = number;
    model->count++;
}

static void model_remove(struct model *model, uint32_t index, uint32_t count)
{
    memmove(model->numbers + index, model->numbers + index + count,
            (model->count - index - count) * sizeof(model->numbers[0]));
    model->count -= count;
}

static void assert_item(struct bytes item, uint32_t number)
{
    char text[TEXT_MAX];

    assert_true(bytes_equal(item, text_of(number, text)));
}

/* Both ways, and from the middle. */
static void assert_same(const struct deque *deque, const struct model *model)
{
    struct deque_cursor cursor;

    assert_int_equal(deque->count, model->count);
    if (model->count == 0) {
        assert_int_equal(deque->bytes, 0);
        assert_null(deque->head);
        return;
    }
    cursor = deque_seek(deque, 0);
    for (uint32_t i = 0; i < model->count; i++)
        assert_item(deque_walk(&cursor, DEQUE_TAIL), model->numbers[i]);
    assert_null(cursor.node);
    cursor = deque_seek(deque, model->count - 1);
    for (uint32_t i = model->count; i-- > 0;)
        assert_item(deque_walk(&cursor, DEQUE_HEAD), model->numbers[i]);
    assert_null(cursor.node);
    for (uint32_t i = 0; i < model->count; i += 1 + model->count / 17) {
        cursor = deque_seek(deque, i);
        assert_item(deque_item(&cursor), model->numbers[i]);
    }
}

static void change(struct deque *deque, struct model *model, uint32_t what)
{
    uint32_t number = (uint32_t)rand() % 1000, count;
    uint32_t index = model->count == 0 ? 0 : (uint32_t)rand() % model->count;
    char text[TEXT_MAX];
    struct bytes item = text_of(number, text);

    switch (what) {
    case 0:
    case 1:
        assert_int_equal(deque_push(deque, what == 0 ? DEQUE_HEAD : DEQUE_TAIL, item), 0);
        model_insert(model, what == 0 ? 0 : model->count, number);
        break;
    case 2:
    case 3:
        count = MIN(model->count, (uint32_t)rand() % 4);
        deque_pop(deque, what == 2 ? DEQUE_HEAD : DEQUE_TAIL, count);
        model_remove(model, what == 2 ? 0 : model->count - count, count);
        break;
    case 4:
        assert_int_equal(deque_insert(deque, index, item), 0);
        model_insert(model, index, number);
        break;
    default:
        if (model->count == 0)
            break;
        assert_int_equal(deque_set(deque, index, item), 0);
        model->numbers[index] = number;
        break;
    }
}

/* Random changes, first more that add, then more that take, against an array. */
static void test_agrees_with_an_array(void **state)
{
    (void)state;
    struct deque deque;
    struct model *model = must_zalloc(sizeof(*model));

    srand(1);
    deque_init(&deque);
    for (uint32_t i = 0; i < 20000; i++) {
        static const uint8_t growing[] = {0, 1, 4, 4, 5, 2, 3}, shrinking[] = {0, 1, 4, 5, 2, 3, 2, 3};
        uint32_t kind = (uint32_t)rand();

        if (i / 2500 % 2 == 0)
            change(&deque, model, growing[kind % ARRAY_COUNT(growing)]);
        else
            change(&deque, model, shrinking[kind % ARRAY_COUNT(shrinking)]);
        if (i % 97 == 0 || model->count < 4)
            assert_same(&deque, model);
    }
    assert_same(&deque, model);
    deque_deinit(&deque);
    mem_free(model);
}

static uint32_t model_remove_equal(struct model *model, uint32_t number, int64_t count)
{
    uint32_t removed = 0;
    int64_t max = count == 0 ? INT64_MAX : llabs(count);

    for (uint32_t i = 0; i < model->count && removed < max;) {
        uint32_t at = count < 0 ? model->count - 1 - i : i;

        if (model->numbers[at] == number) {
            model_remove(model, at, 1);
            removed++;
        } else {
            i++;
        }
    }
    return removed;
}

/* From either end, with and without a bound, where many match and where none does. */
static void test_removes_equal_items(void **state)
{
    (void)state;
    struct model *model = must_zalloc(sizeof(*model));

    srand(2);
    for (int64_t count = -40; count <= 40; count += 8) {
        struct deque deque;
        char text[TEXT_MAX];

        deque_init(&deque);
        model->count = 0;
        for (uint32_t i = 0; i < 2000; i++)
            change(&deque, model, 1);
        for (uint32_t number = 0; number < 1000; number += 3) {
            struct bytes item = text_of(number, text);
            uint32_t removed;

            /* Several numbers may share a text. */
            for (uint32_t i = 0; i < model->count; i++) {
                char other[TEXT_MAX];

                if (bytes_equal(text_of(model->numbers[i], other), item))
                    model->numbers[i] = number;
            }
            removed = model_remove_equal(model, number, count);
            assert_int_equal(deque_remove_equal(&deque, item, count), removed);
        }
        assert_same(&deque, model);
        deque_deinit(&deque);
    }
    mem_free(model);
}

/* Short items cost two bytes more than they have, and the middle of a long list has full nodes. */
static void test_memory_is_near_to_the_content(void **state)
{
    (void)state;
    struct deque deque;
    char text[100] = {0};
    uint32_t count = 100000;

    for (enum deque_end end = DEQUE_HEAD; end <= DEQUE_TAIL; end++) {
        deque_init(&deque);
        for (uint32_t i = 0; i < count; i++)
            assert_int_equal(deque_push(&deque, end, bytes_of(text, sizeof(text))), 0);
        assert_true(deque.bytes < count * 104ull);
        deque_pop(&deque, deque_other_end(end), count - 3);
        assert_true(deque.bytes < 1000);
        deque_deinit(&deque);
    }
}

static void test_is_freed_in_bounded_steps(void **state)
{
    (void)state;
    struct deque deque;
    uint32_t steps = 1;

    deque_init(&deque);
    for (uint32_t i = 0; i < 100000; i++)
        assert_int_equal(deque_push(&deque, DEQUE_TAIL, BYTES("0123456789")), 0);
    while (!deque_deinit_step(&deque, 1000))
        steps++;
    assert_in_range(steps, 50, 101);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_agrees_with_an_array),
        cmocka_unit_test(test_removes_equal_items),
        cmocka_unit_test(test_memory_is_near_to_the_content),
        cmocka_unit_test(test_is_freed_in_bounded_steps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
