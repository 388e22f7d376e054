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
    assert_int_equal(slab_create(NULL, false, &slab), 0);
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
    assert_int_equal(slab_create(NULL, false, &slab), 0);
    for (size_t i = 0; i < count; i++)
        assert_non_null(slab_get(slab, size));
    assert_true(slab_page_bytes(slab) < size * count * 101 / 100 + SLAB_PAGE_SIZE);
    slab_destroy(&slab); /* gives back what is out */
}

static void test_small_powers_of_two_are_aligned(void **state)
{
    struct slab *slab = NULL;

    (void)state;
    assert_int_equal(slab_create(NULL, false, &slab), 0);
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
    assert_int_equal(slab_create(NULL, false, &slab), 0);
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

#define CLEARING_RUN 1000u /* what goes together, so that pages go */

struct clearing {
    struct slab *slab;
    struct object_out *out;
    unsigned moved, refuses_from; /* this one and later ones stay where they are */
};

/* The object tells whose it is. */
static void clearing_move(void *arg, void *object)
{
    struct clearing *c = arg;
    struct object_out *o;
    unsigned char *moved;
    uint32_t at;

    memcpy(&at, object, sizeof(at));
    assert_true(at < OBJECTS);
    o = &c->out[at];
    assert_ptr_equal(o->at, object); /* one that is out, and none that was given back */
    if (c->moved++ >= c->refuses_from)
        return;
    moved = slab_get(c->slab, o->size);
    assert_non_null(moved);
    memcpy(moved, object, o->size);
    slab_put(c->slab, object, o->size);
    o->at = moved;
}

static void clearing_get(struct clearing *c, uint32_t at, uint64_t *seed)
{
    struct object_out *o = &c->out[at];

    o->size = 960 + next_random(seed) % 64; /* eight classes, each has some pages */
    o->mark = (unsigned char)next_random(seed);
    o->at = slab_get(c->slab, o->size);
    assert_non_null(o->at);
    memset(o->at, o->mark, o->size);
    memcpy(o->at, &at, sizeof(at));
}

static void clearing_put(struct clearing *c, uint32_t at)
{
    slab_put(c->slab, c->out[at].at, c->out[at].size);
    c->out[at].at = NULL;
}

static void clearing_check(const struct clearing *c)
{
    uint64_t charged = 0;

    for (uint32_t i = 0, at; i < OBJECTS; i++) {
        const struct object_out *o = &c->out[i];

        if (o->at == NULL)
            continue;
        memcpy(&at, o->at, sizeof(at));
        assert_int_equal(at, i);
        for (size_t k = sizeof(at); k < o->size; k++)
            assert_int_equal(o->at[k], o->mark);
        charged += slab_charge(o->size);
    }
    assert_int_equal(slab_used_bytes(c->slab), charged);
}

/* B3: up and down again, in between others come and go; all is where its owner was told, and it ends. */
static void test_huge_pages_are_cleared(void **state)
{
    static struct object_out out[OBJECTS];
    struct clearing c = {.out = out, .refuses_from = UINT32_MAX};
    uint64_t seed = 5;

    (void)state;
    assert_int_equal(slab_create(NULL, true, &c.slab), 0);
    for (unsigned round = 0; round < 6; round++) {
        unsigned steps = 0, before = c.moved;

        for (uint32_t i = 0; i < OBJECTS; i++)
            if (out[i].at == NULL)
                clearing_get(&c, i, &seed);
        while (slab_clear(c.slab, 64, clearing_move, &c))
            assert_true(++steps < OBJECTS);
        for (uint32_t i = 0; i < OBJECTS; i++)
            if (i / CLEARING_RUN % 10 < 3 + round)
                clearing_put(&c, i);
        while (slab_clear(c.slab, 1 + (uint32_t)next_random(&seed) % 100, clearing_move, &c)) {
            uint32_t at = (uint32_t)next_random(&seed) % OBJECTS;

            assert_true(++steps < OBJECTS);
            if (out[at].at == NULL)
                clearing_get(&c, at, &seed);
            else
                clearing_put(&c, at);
        }
        clearing_check(&c);
        assert_true(round == 0 || c.moved > before);
        assert_false(slab_clear(c.slab, 64, clearing_move, &c));
    }
    for (uint32_t i = 0; i < OBJECTS; i++)
        if (out[i].at != NULL)
            clearing_put(&c, i);
    assert_int_equal(slab_page_bytes(c.slab), 0);
    slab_destroy(&c.slab);
}

/* Without memory for them they stay, at any of them, and are used as before. */
static void test_what_cannot_be_moved_stays(void **state)
{
    static struct object_out out[OBJECTS];
    struct clearing c = {.out = out};
    unsigned stops = 0;
    uint64_t seed = 6;

    (void)state;
    assert_int_equal(slab_create(NULL, true, &c.slab), 0);
    for (uint32_t i = 0; i < OBJECTS; i++)
        clearing_get(&c, i, &seed);
    for (uint32_t i = 0; i < OBJECTS; i++)
        if (i / CLEARING_RUN % 2 != 0)
            clearing_put(&c, i);
    for (unsigned last = UINT32_MAX; c.moved != last; stops += c.moved > c.refuses_from) {
        last = c.moved;
        c.refuses_from = last + stops;
        while (slab_clear(c.slab, 7, clearing_move, &c))
            assert_in_range(c.moved, last + 1, c.refuses_from);
        clearing_check(&c);
    }
    assert_true(stops > 20); /* until so few pages are free that nothing is to be cleared */
    for (uint32_t i = 0; i < OBJECTS; i++)
        if (out[i].at == NULL)
            clearing_get(&c, i, &seed);
    clearing_check(&c);
    slab_destroy(&c.slab);
}

/* Of each second page one object is left, the other pages are free. To find it in a page costs as much as many moves: a step
 * does so once. */
static void test_a_step_of_clearing_looks_at_little(void **state)
{
    enum { SIZE = 32, PAGES = 192, PAGE_OBJECTS = (SLAB_PAGE_SIZE - 64) / SIZE, COUNT = PAGES * PAGE_OBJECTS };
    static struct object_out out[PAGES];
    struct clearing c = {.out = out, .refuses_from = UINT32_MAX};
    void **given = must_zalloc(COUNT * sizeof(*given));
    unsigned steps = 0;

    (void)state;
    assert_int_equal(slab_create(NULL, true, &c.slab), 0);
    for (uint32_t i = 0; i < COUNT; i++) {
        given[i] = slab_get(c.slab, SIZE);
        assert_non_null(given[i]);
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t at = i / PAGE_OBJECTS;

        if (at % 2 == 0 && i % PAGE_OBJECTS == 0) {
            out[at] = (struct object_out){.at = given[i], .size = SIZE};
            memcpy(given[i], &at, sizeof(at));
        } else {
            slab_put(c.slab, given[i], SIZE);
        }
    }
    assert_int_equal(slab_page_bytes(c.slab), PAGES / 2 * SLAB_PAGE_SIZE);
    while (slab_clear(c.slab, 64, clearing_move, &c))
        steps++;
    assert_in_range(steps, PAGES / 4, PAGES / 2); /* one for each page that was cleared: most of those left */
    mem_free(given);
    slab_destroy(&c.slab);
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
    assert_int_equal(slab_create(NULL, false, &slab), 0);
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
        cmocka_unit_test(test_huge_pages_are_cleared),
        cmocka_unit_test(test_what_cannot_be_moved_stays),
        cmocka_unit_test(test_a_step_of_clearing_looks_at_little),
        cmocka_unit_test(test_size_given_back_is_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
