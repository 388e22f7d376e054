/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "tests/unit/test.h"
#include "tests/unit/threads_named.h"

#include "common/base/err.h"
#include "common/base/mem.h"

struct object {
    uint64_t words[4];
};

static void test_allocations_are_zeroed_where_promised(void **state)
{
    unsigned char *zeroes = mem_zalloc(4096);
    unsigned char sum = 0;

    (void)state;
    assert_non_null(zeroes);
    for (size_t i = 0; i < 4096; i++)
        sum |= zeroes[i];
    assert_int_equal(sum, 0);
    mem_free(zeroes);
    mem_free(NULL);
}

static void test_copies_of_strings_end_with_nul(void **state)
{
    char *whole = must_strdup("weir"), *part = must_strndup("we\0ir", 4);

    (void)state;
    assert_string_equal(whole, "weir");
    assert_memory_equal(part, "we\0i", 5);
    mem_free(whole);
    mem_free(part);
}

static void test_growing_keeps_the_contents(void **state)
{
    char *text = must_strdup("weir");

    (void)state;
    text = must_realloc(text, 1 << 20);
    assert_string_equal(text, "weir");
    text = mem_realloc(text, 8);
    assert_non_null(text);
    assert_string_equal(text, "weir");
    mem_free(text);
    mem_trim(); /* nothing to see but that it may be called */
}

static void test_regions_are_aligned_and_apart(void **state)
{
    char *regions[3];

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(regions); i++) {
        regions[i] = mem_region_get(i != 1);
        assert_non_null(regions[i]);
        assert_int_equal((uintptr_t)regions[i] % MEM_REGION_SIZE, 0);
        memset(regions[i], (int)i, MEM_REGION_SIZE);
    }
    for (size_t i = 0; i < ARRAY_COUNT(regions); i++) {
        assert_int_equal(regions[i][0], i);
        assert_int_equal(regions[i][MEM_REGION_SIZE - 1], i);
        mem_region_put(regions[i]);
    }
}

static void test_pool_counts_what_is_out(void **state)
{
    struct mem_pool pool;
    struct object *objects[8];

    (void)state;
    mem_pool_init(&pool, sizeof(struct object), 4);
    for (size_t i = 0; i < ARRAY_COUNT(objects); i++) {
        objects[i] = mem_pool_get(&pool);
        assert_non_null(objects[i]);
        *objects[i] = (struct object){.words = {i, i, i, i}};
    }
    assert_int_equal(pool.live_count, 8);
    for (size_t i = 0; i < ARRAY_COUNT(objects); i++) {
        assert_int_equal(objects[i]->words[3], i); /* no two overlap */
        mem_pool_put(&pool, objects[i]);
    }
    assert_int_equal(pool.live_count, 0);
    assert_true(pool.idle_count <= 4); /* above idle_max goes back to the heap */
    mem_pool_trim(&pool, 1);
    assert_true(pool.idle_count <= 1);
    mem_pool_deinit(&pool);
}

static void test_pool_reuses_before_it_allocates(void **state)
{
    struct mem_pool pool;

    (void)state;
    mem_pool_init(&pool, sizeof(struct object), 16);
    for (int round = 0; round < 1000; round++) {
        struct object *a = mem_pool_get(&pool), *b = mem_pool_get(&pool);

        assert_non_null(a);
        assert_non_null(b);
        assert_ptr_not_equal(a, b);
        mem_pool_put(&pool, a);
        mem_pool_put(&pool, b);
        assert_true(pool.idle_count <= 2);
    }
    mem_pool_deinit(&pool);
}

static void deinit_with_one_out(void *arg)
{
    struct mem_pool pool;

    MAYBE(arg);
    mem_pool_init(&pool, sizeof(struct object), 4);
    if (mem_pool_get(&pool) != NULL)
        mem_pool_deinit(&pool);
}

static void put_what_was_not_got(void *arg)
{
    struct mem_pool pool;
    struct object object;

    MAYBE(arg);
    mem_pool_init(&pool, sizeof(struct object), 4);
    mem_pool_put(&pool, &object);
}

static void test_pool_finds_lost_and_foreign_objects(void **state)
{
    (void)state;
    assert_true(test_aborts(deinit_with_one_out, NULL));
    assert_true(test_aborts(put_what_was_not_got, NULL));
}

/* Every code has its own text, errno's are the C library's, and anything else is still printable. */
static void test_errors_have_texts(void **state)
{
    (void)state;
    assert_string_equal(err_text(0), "ok");
    assert_string_equal(err_text(-ECONNREFUSED), strerror(ECONNREFUSED));
    for (int err = ERR_FULL; err >= ERR_UNSUPPORTED; err--) {
        assert_string_not_equal(err_text(err), "unknown");
        for (int other = ERR_FULL; other > err; other--)
            assert_string_not_equal(err_text(err), err_text(other));
    }
    assert_string_equal(err_text(1), "unknown");
    assert_string_equal(err_text(-5000), "unknown");
}

/* The C library's allocator has no such thread. It names itself, a moment after it began. */
static void test_what_is_free_is_given_back_by_a_thread(void **state)
{
#ifdef HAVE_JEMALLOC
    const int wanted = 1;
#else
    const int wanted = 0;
#endif

    (void)state;
    assert_int_equal(threads_named("jemalloc"), 0);
    mem_purge_aside();
    for (int i = 0; i < 10000 && threads_named("jemalloc") != wanted; i++)
        usleep(1000);
    assert_int_equal(threads_named("jemalloc"), wanted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allocations_are_zeroed_where_promised),
        cmocka_unit_test(test_copies_of_strings_end_with_nul),
        cmocka_unit_test(test_growing_keeps_the_contents),
        cmocka_unit_test(test_regions_are_aligned_and_apart),
        cmocka_unit_test(test_pool_counts_what_is_out),
        cmocka_unit_test(test_pool_reuses_before_it_allocates),
        cmocka_unit_test(test_pool_finds_lost_and_foreign_objects),
        cmocka_unit_test(test_errors_have_texts),
        cmocka_unit_test(test_what_is_free_is_given_back_by_a_thread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
