/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "common/base/list.h"

struct item {
    int number;
    struct list_node node;
    struct queue_node link;
};

static struct item *item_of(struct list_node *node)
{
    return CONTAINER_OF(node, struct item, node);
}

/* The numbers on the list as one decimal: 1, 2, 3 is 123. */
static int digits_of(const struct list *list)
{
    int digits = 0;

    LIST_FOR_EACH(list, node)
        digits = digits * 10 + item_of(node)->number;
    return digits;
}

static void test_list_keeps_order_at_both_ends(void **state)
{
    struct item a = {.number = 1}, b = {.number = 2}, c = {.number = 3};
    struct list list;

    (void)state;
    list_init(&list);
    assert_true(list_is_empty(&list));
    assert_null(list_first(&list));
    assert_null(list_last(&list));
    assert_null(list_pop_front(&list));
    assert_null(LIST_FIRST(&list, struct item, node));

    list_push_back(&list, &b.node);
    list_push_back(&list, &c.node);
    list_push_front(&list, &a.node);
    assert_int_equal(digits_of(&list), 123);
    assert_ptr_equal(LIST_FIRST(&list, struct item, node), &a);
    assert_ptr_equal(list_last(&list), &c.node);
    assert_ptr_equal(list_next(&list, &a.node), &b.node);
    assert_null(list_next(&list, &c.node));

    assert_ptr_equal(list_pop_front(&list), &a.node);
    assert_ptr_equal(list_pop_front(&list), &b.node);
    assert_ptr_equal(list_pop_front(&list), &c.node);
    assert_true(list_is_empty(&list));
}

static void test_list_node_knows_whether_it_is_linked(void **state)
{
    struct item a = {.number = 1}, b = {.number = 2}, c = {.number = 3};
    struct list list;

    (void)state;
    list_init(&list);
    assert_false(list_node_is_linked(&b.node));
    list_push_back(&list, &a.node);
    list_push_back(&list, &b.node);
    list_push_back(&list, &c.node);
    assert_true(list_node_is_linked(&b.node));
    list_remove(&b.node);
    assert_false(list_node_is_linked(&b.node));
    assert_int_equal(digits_of(&list), 13);
    list_push_front(&list, &b.node);
    assert_int_equal(digits_of(&list), 213);
}

static void test_walk_survives_removal_of_the_visited(void **state)
{
    struct item items[5] = {{.number = 1}, {.number = 2}, {.number = 3}, {.number = 4},
                            {.number = 5}};
    struct list list;
    int visited = 0;

    (void)state;
    list_init(&list);
    for (size_t i = 0; i < ARRAY_COUNT(items); i++)
        list_push_back(&list, &items[i].node);
    LIST_FOR_EACH(&list, node) {
        visited++;
        if (item_of(node)->number != 3)
            list_remove(node);
    }
    assert_int_equal(visited, 5);
    assert_int_equal(digits_of(&list), 3);
}

static void push_twice(void *arg)
{
    struct item a = {.number = 1};
    struct list list;

    MAYBE(arg);
    list_init(&list);
    list_push_back(&list, &a.node);
    list_push_back(&list, &a.node);
}

static void remove_unlinked(void *arg)
{
    struct item a = {.number = 1};

    MAYBE(arg);
    list_remove(&a.node);
}

static void test_wrong_membership_is_a_bug(void **state)
{
    (void)state;
    assert_true(test_aborts(push_twice, NULL));
    assert_true(test_aborts(remove_unlinked, NULL));
}

static void test_queue_is_first_in_first_out_and_refills(void **state)
{
    struct item a = {.number = 1}, b = {.number = 2};
    struct queue queue;

    (void)state;
    queue_init(&queue);
    assert_null(queue_pop(&queue));
    for (int round = 0; round < 3; round++) { /* the tail pointer is right after it ran empty */
        assert_true(queue_is_empty(&queue));
        queue_push(&queue, &a.link);
        queue_push(&queue, &b.link);
        assert_ptr_equal(queue_pop(&queue), &a.link);
        queue_push(&queue, &a.link);
        assert_ptr_equal(queue_pop(&queue), &b.link);
        assert_ptr_equal(queue_pop(&queue), &a.link);
        assert_null(queue_pop(&queue));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list_keeps_order_at_both_ends),
        cmocka_unit_test(test_list_node_knows_whether_it_is_linked),
        cmocka_unit_test(test_walk_survives_removal_of_the_visited),
        cmocka_unit_test(test_wrong_membership_is_a_bug),
        cmocka_unit_test(test_queue_is_first_in_first_out_and_refills),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
