/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "common/base/mem.h"
#include "common/stats/segment.h"

#include <stdio.h>

#define SIZE (64u << 10)

static const struct stats_metric pool_metrics[] = {
    {"requests", STATS_COUNTER, 1},
    {"clients", STATS_GAUGE, 1},
    {"ejected_at", STATS_STAMP, 1},
    {"latency", STATS_HISTOGRAM, HISTOGRAM_CELLS},
};
/* What a later version counts: another order, one gone, one new. */
static const struct stats_metric later_metrics[] = {
    {"clients", STATS_GAUGE, 1},
    {"retries", STATS_COUNTER, 1},
    {"requests", STATS_COUNTER, 1},
};

struct fixture {
    uint64_t memory[SIZE / 8];
    struct stats_segment segment;
    stats_schema_id pool;
};

static struct fixture *fixture_create(const struct stats_metric *metrics, uint32_t count)
{
    struct fixture *fixture = must_zalloc(sizeof(*fixture));

    stats_open(&fixture->segment, fixture->memory, SIZE, false);
    fixture->pool = stats_schema_add(&fixture->segment, "pool", metrics, count);
    assert_int_not_equal(fixture->pool, 0);
    return fixture;
}

static struct fixture *fixture_of_pools(void)
{
    return fixture_create(pool_metrics, ARRAY_COUNT(pool_metrics));
}

static void fixture_destroy(struct fixture *fixture)
{
    stats_close(&fixture->segment);
    mem_free(fixture);
}

static uint64_t *pool_cells(struct fixture *fixture, const char *name)
{
    return stats_group_add(&fixture->segment, fixture->pool, bytes_of_string(name), BYTES_EMPTY);
}

static void test_groups_are_found_by_key(void **state)
{
    struct fixture *f = fixture_of_pools();
    uint64_t *alpha = pool_cells(f, "alpha");

    (void)state;
    assert_non_null(alpha);
    assert_ptr_equal(pool_cells(f, "alpha"), alpha);
    assert_ptr_not_equal(pool_cells(f, "beta"), alpha);
    assert_null(stats_group_find(&f->segment, f->pool, BYTES("alpha"), BYTES("x")));
    /* "ab","c" is not "a","bc". */
    assert_ptr_not_equal(stats_group_add(&f->segment, f->pool, BYTES("ab"), BYTES("c")),
                         stats_group_add(&f->segment, f->pool, BYTES("a"), BYTES("bc")));
    assert_int_equal(stats_schema_add(&f->segment, "pool", pool_metrics, ARRAY_COUNT(pool_metrics)), f->pool);
    fixture_destroy(f);
}

/* Many groups make the index grow; the cells stay where they are. */
static void test_pointers_stay_good_while_it_grows(void **state)
{
    struct fixture *f = fixture_create(later_metrics, ARRAY_COUNT(later_metrics));
    uint64_t *cells[500];
    char name[16];

    (void)state;
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof(name), "pool%d", i);
        cells[i] = pool_cells(f, name);
        assert_non_null(cells[i]);
        cells[i][0] = (uint64_t)i;
    }
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof(name), "pool%d", i);
        assert_ptr_equal(pool_cells(f, name), cells[i]);
        assert_int_equal(cells[i][0], i);
    }
    fixture_destroy(f);
}

static void test_no_room_is_said(void **state)
{
    struct fixture *f = fixture_of_pools();
    char name[16];
    int i;

    (void)state;
    for (i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "pool%d", i);
        if (pool_cells(f, name) == NULL)
            break;
    }
    assert_in_range(i, SIZE / 4000 - 2, SIZE / 3000);
    assert_non_null(pool_cells(f, "pool0"));
    fixture_destroy(f);
}

/* Of two live writers and the base all kinds are added as they should be. */
static void test_merging_adds_by_kind(void **state)
{
    struct fixture *view = fixture_of_pools(), *one = fixture_of_pools(), *two = fixture_of_pools();
    uint64_t *cells = pool_cells(one, "alpha"), *total;

    (void)state;
    cells[0] = 10, cells[1] = 3, cells[2] = 500;
    histogram_add((struct histogram *)(void *)&cells[3], 7);
    pool_cells(two, "beta");
    cells = pool_cells(two, "alpha");
    cells[0] = 5, cells[1] = 2, cells[2] = 400;
    histogram_add((struct histogram *)(void *)&cells[3], 9);
    total = pool_cells(view, "alpha");
    assert_int_equal(stats_merge(&view->segment, one->memory, SIZE, STATS_MERGE_GAUGES), 0);
    assert_int_equal(stats_merge(&view->segment, two->memory, SIZE, 0), 0);
    assert_int_equal(total[0], 15);
    assert_int_equal(total[1], 3); /* the second is dead */
    assert_int_equal(total[2], 500);
    assert_int_equal(histogram_count((struct histogram *)(void *)&total[3]), 2);
    assert_null(stats_group_find(&view->segment, view->pool, BYTES("beta"), BYTES_EMPTY));
    assert_int_equal(stats_merge(&view->segment, two->memory, SIZE, STATS_MERGE_CREATE), 0);
    assert_non_null(stats_group_find(&view->segment, view->pool, BYTES("beta"), BYTES_EMPTY));
    fixture_destroy(view), fixture_destroy(one), fixture_destroy(two);
}

/* What another version counted is added where the name is the same; nothing lands in a wrong cell. */
static void test_other_versions_merge_by_name(void **state)
{
    struct fixture *view = fixture_of_pools();
    struct fixture *later = fixture_create(later_metrics, ARRAY_COUNT(later_metrics));
    uint64_t *total = pool_cells(view, "alpha"), *cells = pool_cells(later, "alpha");

    (void)state;
    cells[0] = 4, cells[1] = 77, cells[2] = 9;
    stats_merge(&view->segment, later->memory, SIZE, STATS_MERGE_GAUGES);
    assert_int_equal(total[0], 9);
    assert_int_equal(total[1], 4);
    assert_int_equal(total[2], 0);
    assert_int_equal(histogram_count((struct histogram *)(void *)&total[3]), 0);
    fixture_destroy(view), fixture_destroy(later);
}

/* The base keeps what it does not understand, so that a later version finds its own there. */
static void test_exact_merges_keep_foreign_metrics(void **state)
{
    struct fixture *base = fixture_of_pools(), *view;
    struct fixture *later = fixture_create(later_metrics, ARRAY_COUNT(later_metrics));
    uint64_t *cells = pool_cells(later, "alpha");

    (void)state;
    cells[1] = 77, cells[2] = 9;
    pool_cells(base, "alpha")[0] = 1;
    assert_int_equal(stats_merge(&base->segment, later->memory, SIZE, STATS_MERGE_EXACT | STATS_MERGE_CREATE), 0);
    view = fixture_create(later_metrics, ARRAY_COUNT(later_metrics));
    cells = pool_cells(view, "alpha");
    stats_merge(&view->segment, base->memory, SIZE, 0);
    assert_int_equal(cells[1], 77);
    assert_int_equal(cells[2], 10); /* both versions' requests */
    fixture_destroy(base), fixture_destroy(view), fixture_destroy(later);
}

/* A successor in a crashed worker's segment: counters go on, gauges start from zero. */
static void test_a_successor_goes_on(void **state)
{
    struct fixture *f = fixture_of_pools();
    uint64_t *cells = pool_cells(f, "alpha"), *again;

    (void)state;
    cells[0] = 10, cells[1] = 3;
    stats_close(&f->segment);
    stats_open(&f->segment, f->memory, SIZE, true);
    stats_zero_gauges(&f->segment);
    assert_int_equal(stats_schema_add(&f->segment, "pool", pool_metrics, ARRAY_COUNT(pool_metrics)), f->pool);
    again = pool_cells(f, "alpha");
    assert_ptr_equal(again, cells);
    assert_int_equal(again[0], 10);
    assert_int_equal(again[1], 0);
    /* Without `keep` it starts anew. */
    stats_close(&f->segment);
    stats_open(&f->segment, f->memory, SIZE, false);
    assert_int_equal(stats_used(&f->segment), STATS_HEADER_SIZE);
    fixture_destroy(f);
}

/* Each byte of a segment is broken in turn; the readers must stay inside it. ASan watches. */
static void test_a_broken_segment_is_read_safely(void **state)
{
    struct fixture *view = fixture_of_pools(), *f = fixture_create(later_metrics, ARRAY_COUNT(later_metrics));
    size_t used;

    (void)state;
    pool_cells(f, "alpha");
    pool_cells(f, "beta");
    used = stats_used(&f->segment);
    for (size_t i = 0; i < used; i++) {
        for (int bit = 0; bit < 8; bit++) {
            /* Exactly as long as it says: a step beyond is seen. */
            char *copy = must_alloc(used);
            struct stats_segment again;

            memcpy(copy, f->memory, used);
            copy[i] = (char)(copy[i] ^ 1 << bit);
            stats_merge(&view->segment, copy, used, STATS_MERGE_GAUGES | STATS_MERGE_EXACT | STATS_MERGE_CREATE);
            stats_open(&again, copy, used, true);
            stats_close(&again);
            mem_free(copy);
        }
    }
    fixture_destroy(view), fixture_destroy(f);
}

static void test_memory_without_a_segment_is_empty(void **state)
{
    static const uint64_t zeroes[16];
    struct stats_cursor cursor;
    struct stats_group group;

    (void)state;
    stats_walk(&cursor, zeroes, sizeof(zeroes));
    assert_false(stats_next(&cursor, &group));
    stats_walk(&cursor, NULL, 0);
    assert_false(stats_next(&cursor, &group));
}

static void test_metrics_are_found_by_name_and_kind(void **state)
{
    struct fixture *f = fixture_of_pools();
    struct stats_cursor cursor;
    struct stats_group group;
    uint32_t cells;

    (void)state;
    pool_cells(f, "alpha")[1] = 3;
    stats_walk(&cursor, f->memory, SIZE);
    assert_true(stats_next(&cursor, &group));
    assert_true(bytes_equal(group.schema, BYTES("pool")) && bytes_equal(group.a, BYTES("alpha")));
    assert_int_equal(*stats_metric_find(&group, "clients", STATS_GAUGE, &cells), 3);
    assert_int_equal(cells, 1);
    assert_null(stats_metric_find(&group, "clients", STATS_COUNTER, NULL));
    assert_non_null(stats_metric_find(&group, "latency", STATS_HISTOGRAM, &cells));
    assert_int_equal(cells, HISTOGRAM_CELLS);
    assert_false(stats_next(&cursor, &group));
    fixture_destroy(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups_are_found_by_key),
        cmocka_unit_test(test_pointers_stay_good_while_it_grows),
        cmocka_unit_test(test_no_room_is_said),
        cmocka_unit_test(test_merging_adds_by_kind),
        cmocka_unit_test(test_other_versions_merge_by_name),
        cmocka_unit_test(test_exact_merges_keep_foreign_metrics),
        cmocka_unit_test(test_a_successor_goes_on),
        cmocka_unit_test(test_a_broken_segment_is_read_safely),
        cmocka_unit_test(test_memory_without_a_segment_is_empty),
        cmocka_unit_test(test_metrics_are_found_by_name_and_kind),
    };

    return cmocka_run_group_tests_name("segment", tests, NULL, NULL);
}
