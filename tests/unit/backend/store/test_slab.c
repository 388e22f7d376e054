/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "backend/store/slab.h"
#include "common/base/mem.h"

#define OBJECTS 20000u

struct object_out {
    unsigned char *at;
    size_t size;
    unsigned char mark;
};

static uint64_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

static void object_check(const struct object_out *o)
{
    for (size_t i = 0; i < o->size; i++)
        assert_int_equal(o->at[i], o->mark);
}

/* Random gets and puts of every size: no two objects overlap, what is charged adds up, nothing is kept when
 * all is given back. */
static void test_objects_never_overlap(void **state)
{
    static struct object_out out[OBJECTS];
    struct slab *slab = NULL;
    uint64_t seed = 1, charged = 0;

    (void)state;
    assert_int_equal(slab_create(NULL, &slab), 0);
    for (unsigned step = 0; step < 10 * OBJECTS; step++) {
        struct object_out *o = &out[next_random(&seed) % OBJECTS];

        if (o->at != NULL) {
            object_check(o);
            charged -= slab_charge(o->size);
            slab_put(slab, o->at, o->size);
            o->at = NULL;
            continue;
        }
        o->size = 1 + next_random(&seed) % (step % 64 == 0 ? 3 * SLAB_SIZE_MAX : 300);
        o->mark = (unsigned char)next_random(&seed);
        o->at = slab_get(slab, o->size);
        assert_non_null(o->at);
        assert_int_equal((uintptr_t)o->at % SLAB_STEP, 0);
        memset(o->at, o->mark, o->size);
        charged += slab_charge(o->size);
        assert_int_equal(slab_used_bytes(slab), charged);
        assert_true(slab_page_bytes(slab) >= charged);
    }
    for (unsigned i = 0; i < OBJECTS; i++) {
        if (out[i].at == NULL)
            continue;
        object_check(&out[i]);
        slab_put(slab, out[i].at, out[i].size);
    }
    assert_int_equal(slab_used_bytes(slab), 0);
    assert_int_equal(slab_page_bytes(slab), 0);
    slab_destroy(&slab);
    assert_null(slab);
    slab_destroy(&slab);
}

/* The reason for classes in steps of 8: 136 bytes cost 136 and a little for headers and the last page. */
static void test_same_sizes_lie_densely(void **state)
{
    const size_t size = 136, count = 100000;
    struct slab *slab = NULL;

    (void)state;
    assert_int_equal(slab_create(NULL, &slab), 0);
    for (size_t i = 0; i < count; i++)
        assert_non_null(slab_get(slab, size));
    assert_true(slab_page_bytes(slab) < size * count * 101 / 100 + SLAB_PAGE_SIZE);
    slab_destroy(&slab); /* gives back what is out */
}

static void test_small_powers_of_two_are_aligned(void **state)
{
    struct slab *slab = NULL;

    (void)state;
    assert_int_equal(slab_create(NULL, &slab), 0);
    for (int i = 0; i < 5000; i++) {
        assert_int_equal((uintptr_t)slab_get(slab, 32) % 32, 0);
        assert_int_equal((uintptr_t)slab_get(slab, 64) % 64, 0);
    }
    slab_destroy(&slab);
}

/* Nine of ten go, all over the pages: hardly a page is free. Then a walk moves what lies in sparse pages, as the
 * store does, and most of the memory comes back. */
static void test_moving_out_of_sparse_pages_frees_them(void **state)
{
    static void *out[OBJECTS];
    const size_t size = 128;
    struct slab *slab = NULL;
    uint64_t seed = 2, full, left = 0;

    (void)state;
    assert_int_equal(slab_create(NULL, &slab), 0);
    for (unsigned i = 0; i < OBJECTS; i++)
        out[i] = slab_get(slab, size);
    full = slab_page_bytes(slab);
    for (unsigned i = 0; i < OBJECTS; i++) {
        if (next_random(&seed) % 10 == 0) {
            left++;
            continue;
        }
        slab_put(slab, out[i], size);
        out[i] = NULL;
    }
    assert_true(slab_page_bytes(slab) > full / 2);
    for (unsigned i = 0; i < OBJECTS; i++) {
        void *moved;

        if (out[i] == NULL || !slab_is_sparse(slab, out[i], size))
            continue;
        moved = slab_get(slab, size);
        assert_non_null(moved);
        memcpy(moved, out[i], size);
        slab_put(slab, out[i], size);
        out[i] = moved;
    }
    assert_int_equal(slab_used_bytes(slab), left * size);
    assert_true(slab_page_bytes(slab) <= 2 * left * size + SLAB_PAGE_SIZE);
    slab_destroy(&slab);
}

static void put_with_wrong_size(void *arg)
{
    struct slab *slab = arg;
    void *object = slab_get(slab, 40);

    slab_put(slab, object, 64);
}

static void test_size_given_back_is_checked(void **state)
{
    struct slab *slab = NULL;

    (void)state;
    assert_int_equal(slab_create(NULL, &slab), 0);
    assert_non_null(slab_get(slab, 1000));
    assert_true(test_aborts(put_with_wrong_size, slab));
    slab_destroy(&slab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_objects_never_overlap),
        cmocka_unit_test(test_same_sizes_lie_densely),
        cmocka_unit_test(test_small_powers_of_two_are_aligned),
        cmocka_unit_test(test_moving_out_of_sparse_pages_frees_them),
        cmocka_unit_test(test_size_given_back_is_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
