/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "backend/types/btree.h"
#include "backend/types/item.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <stdlib.h>

#define ITEMS 20000u

struct fixture {
    struct btree tree;
    char *items[ITEMS];
    double scores[ITEMS];
    bool is_in[ITEMS];
};

static int setup(void **state)
{
    struct fixture *f = must_zalloc(sizeof(*f));

    btree_init(&f->tree);
    for (uint32_t i = 0; i < ITEMS; i++) {
        char text[32];
        int len = snprintf(text, sizeof(text), "%u", i);

        f->items[i] = must_alloc(item_size((size_t)len));
        item_write(f->items[i], bytes_of(text, (size_t)len));
    }
    srand(1);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    btree_deinit(&f->tree);
    for (uint32_t i = 0; i < ITEMS; i++)
        mem_free(f->items[i]);
    mem_free(f);
    return 0;
}

static void insert(struct fixture *f, uint32_t i, double score)
{
    assert_int_equal(btree_insert(&f->tree, score, f->items[i]), 0);
    f->scores[i] = score;
    f->is_in[i] = true;
}

static void take(struct fixture *f, uint32_t i)
{
    btree_remove(&f->tree, f->scores[i], f->items[i]);
    f->is_in[i] = false;
}

/* Ranks and both walks agree with each other. */
static void assert_ranks(const struct fixture *f)
{
    struct btree_cursor up, down;
    uint64_t count = f->tree.count;

    btree_check(&f->tree);
    if (count == 0)
        return;
    up = btree_at(&f->tree, 0);
    down = btree_at(&f->tree, count - 1);
    for (uint64_t rank = 0; rank < count; rank++) {
        struct btree_entry entry = btree_next(&up);
        struct btree_cursor at = btree_at(&f->tree, rank);

        assert_int_equal(btree_rank(&f->tree, entry.score, entry.item), rank);
        assert_ptr_equal(btree_next(&at).item, entry.item);
        MAYBE(btree_prev(&down).item == entry.item);
    }
    assert_null(up.leaf);
    assert_null(down.leaf);
}

/* Few different scores, so that keys decide; growing, then shrinking to nothing. */
static void test_keeps_order_and_ranks(void **state)
{
    struct fixture *f = *state;
    uint32_t count = 0;

    for (uint32_t i = 0; i < ITEMS * 8; i++) {
        uint32_t at = (uint32_t)rand() % ITEMS;

        if (!f->is_in[at] && i < ITEMS * 4)
            insert(f, at, (double)(rand() % 300) / 4);
        else if (f->is_in[at] && (i >= ITEMS * 4 || i % 3 == 0))
            take(f, at);
        if (i % 5003 == 0)
            assert_ranks(f);
    }
    for (uint32_t i = 0; i < ITEMS; i++)
        count += f->is_in[i];
    assert_int_equal(f->tree.count, count);
    assert_ranks(f);
    for (uint32_t i = 0; i < ITEMS; i++)
        if (f->is_in[i])
            take(f, i);
    assert_int_equal(f->tree.bytes, 0);
}

/* What comes in order, either way, fills the nodes; at random they are two thirds full. */
static void test_nodes_are_well_filled(void **state)
{
    struct fixture *f = *state;
    static const double limits[] = {18, 18, 27};

    for (uint32_t way = 0; way < 3; way++) {
        for (uint32_t i = 0; i < ITEMS; i++)
            insert(f, i, way == 0 ? i : way == 1 ? -(double)i : (double)rand());
        btree_check(&f->tree);
        assert_true((double)f->tree.bytes / ITEMS < limits[way]);
        btree_deinit(&f->tree);
    }
}

static bool is_below(const void *bound, double score, const char *item)
{
    (void)item;
    return score < *(const double *)bound;
}

static void test_counts_what_is_before_a_bound(void **state)
{
    struct fixture *f = *state;
    double bound = 0;

    assert_int_equal(btree_count_before(&f->tree, is_below, &bound), 0);
    for (uint32_t i = 0; i < ITEMS; i++)
        insert(f, i, (double)(i / 10));
    for (bound = -1; bound < ITEMS / 10 + 2; bound += 0.5) {
        uint64_t before = bound <= 0 ? 0 : MIN((uint64_t)ITEMS, (uint64_t)(bound + 0.5) * 10);

        assert_int_equal(btree_count_before(&f->tree, is_below, &bound), before);
    }
}

/* A score changes in its place only where order allows it. */
static void test_rescores_in_place(void **state)
{
    struct fixture *f = *state;
    uint32_t in_place = 0;

    for (uint32_t i = 0; i < ITEMS; i++)
        insert(f, i, i);
    for (uint32_t i = 0; i < ITEMS * 2; i++) {
        uint32_t at = (uint32_t)rand() % ITEMS;
        double now = f->scores[at] + (double)(rand() % 5 - 2) / 2;

        if (now == f->scores[at])
            continue;
        if (btree_rescore(&f->tree, f->scores[at], f->items[at], now)) {
            in_place++;
        } else {
            assert_int_equal(btree_insert(&f->tree, now, f->items[at]), 0);
            btree_remove(&f->tree, f->scores[at], f->items[at]);
        }
        f->scores[at] = now;
    }
    assert_true(in_place > ITEMS / 4);
    assert_ranks(f);
}

static void test_is_freed_in_bounded_steps(void **state)
{
    struct fixture *f = *state;
    uint32_t nodes, steps = 1;

    for (uint32_t i = 0; i < ITEMS; i++)
        insert(f, i, (double)rand());
    nodes = (uint32_t)(f->tree.bytes / 1024);
    while (!btree_deinit_step(&f->tree, 10))
        steps++;
    assert_int_equal(steps, (nodes + 9) / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_keeps_order_and_ranks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nodes_are_well_filled, setup, teardown),
        cmocka_unit_test_setup_teardown(test_counts_what_is_before_a_bound, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rescores_in_place, setup, teardown),
        cmocka_unit_test_setup_teardown(test_is_freed_in_bounded_steps, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
