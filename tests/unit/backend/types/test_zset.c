/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "backend/store/effect.h"
#include "backend/types/types.h"
#include "backend/types/zset.h"
#include "common/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define MEMBERS 2000u

struct model {
    double scores[MEMBERS];
    bool is_in[MEMBERS];
    uint32_t count;
};

static struct bytes member_of(uint32_t number, char text[128])
{
    int len = snprintf(text, 128, "member %u", number);

    return bytes_of(text, (size_t)len);
}

static struct bytes image_of(const struct object *object, struct buffer *out)
{
    buffer_clear(out);
    zset_ops.encode(object, out);
    assert_false(out->failed);
    return buffer_bytes(out);
}

static bool comes_before(const struct model *model, uint32_t a, uint32_t b)
{
    char texts[2][128];

    if (model->scores[a] != model->scores[b])
        return model->scores[a] < model->scores[b];
    return strcmp(member_of(a, texts[0]).data, member_of(b, texts[1]).data) < 0;
}

/* Members, scores, some ranks, both walks. */
static void assert_same(const struct object *object, const struct model *model)
{
    struct zset_walk *walk = must_alloc(sizeof(*walk));
    struct bytes member, last_member = BYTES_EMPTY;
    double score, last = -INFINITY;
    uint64_t rank, seen = 0;
    char text[128];

    assert_int_equal(zset_count(object), model->count);
    for (uint32_t i = 0; i < MEMBERS; i++) {
        assert_int_equal(zset_score(object, member_of(i, text), &score), model->is_in[i]);
        if (model->is_in[i])
            assert_true(score == model->scores[i]);
    }
    for (uint32_t i = 0; i < MEMBERS; i += 1 + (uint32_t)rand() % 300) {
        uint64_t wanted = 0;

        assert_int_equal(zset_rank(object, member_of(i, text), &rank, &score), model->is_in[i]);
        if (!model->is_in[i])
            continue;
        for (uint32_t j = 0; j < MEMBERS; j++)
            wanted += model->is_in[j] && comes_before(model, j, i);
        assert_int_equal(rank, wanted);
    }
    zset_walk_init(walk, object, 0, model->count, false);
    for (; zset_walk_next(walk, &member, &score); seen++) {
        assert_true(score >= last);
        last = score;
        last_member = member;
    }
    assert_int_equal(seen, model->count);
    if (model->count > 0) {
        zset_walk_init(walk, object, model->count - 1, model->count, true);
        assert_true(zset_walk_next(walk, &member, &score));
        assert_true(bytes_equal(member, last_member));
        for (seen = 1; zset_walk_next(walk, &member, &score); seen++) {
            assert_true(score <= last);
            last = score;
        }
        assert_int_equal(seen, model->count);
    }
    mem_free(walk);
}

static void remove_ranks(struct object *object, struct model *model, struct buffer *effects)
{
    uint64_t first = (uint64_t)rand() % (model->count + 1u);
    uint64_t count = MIN((uint64_t)rand() % 4, model->count - first);
    struct zset_walk *walk = must_alloc(sizeof(*walk));
    struct bytes member;
    double score;

    zset_walk_init(walk, object, first, count, false);
    while (zset_walk_next(walk, &member, &score)) {
        uint64_t number;

        assert_true(bytes_to_u64(bytes_skip(member, 7), MEMBERS, &number));
        model->is_in[number] = false;
        model->count--;
    }
    mem_free(walk);
    zset_remove_ranks(object, first, count, effects);
}

static double random_score(void)
{
    static const double odd[] = {0, 0.1, -0.5, 1e300, INFINITY, -INFINITY, 0x1p60, -0x1p54, 128, -129};

    return rand() % 8 == 0 ? odd[(uint32_t)rand() % ARRAY_COUNT(odd)] : rand() % 2000 - 1000;
}

static void change(struct object *object, struct model *model, uint32_t members,
                   struct buffer *effects)
{
    uint32_t number = (uint32_t)rand() % members;
    char text[128];
    struct bytes member = member_of(number, text);
    int what = rand() % 8;

    if (what < 5) {
        double score = random_score();

        assert_int_equal(zset_set(object, member, score, effects), 0);
        model->count += !model->is_in[number];
        model->is_in[number] = true;
        model->scores[number] = score;
    } else if (what < 7) {
        assert_int_equal(zset_remove(object, member, effects), model->is_in[number]);
        model->count -= model->is_in[number];
        model->is_in[number] = false;
    } else {
        remove_ranks(object, model, effects);
    }
}

/* Small sets stay packed, larger ones become trees; a replica that gets effects or images has the same. */
static void test_agrees_with_a_model_and_its_replica(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {20, 250, MEMBERS};
    struct model *model = must_alloc(sizeof(*model));
    struct buffer effects = {0}, images[2] = {{0}, {0}};

    srand(1);
    for (size_t size = 0; size < ARRAY_COUNT(sizes); size++) {
        struct object *primary = zset_ops.create(), *replica = zset_ops.create();

        *model = (struct model){0};
        for (uint32_t i = 0; i < 4000; i++) {
            buffer_clear(&effects);
            for (int n = rand() % 4; n >= 0; n--)
                change(primary, model, sizes[size], &effects);
            assert_int_equal(zset_ops.apply(replica, buffer_bytes(&effects)), 0);
            if (i % 100 != 0)
                continue;
            assert_same(primary, model);
            assert_true(bytes_equal(image_of(primary, &images[0]), image_of(replica, &images[1])));
            zset_ops.destroy(replica);
            replica = zset_ops.decode(buffer_bytes(&images[0]));
            assert_non_null(replica);
            assert_same(replica, model);
            assert_true(bytes_equal(image_of(replica, &images[1]), buffer_bytes(&images[0])));
        }
        assert_string_equal(zset_encoding(primary), size == 0 ? "listpack" : "skiplist");
        zset_ops.destroy(primary);
        while (!zset_ops.destroy_step(replica, 10))
            ;
    }
    buffer_deinit(&effects);
    buffer_deinit(&images[0]);
    buffer_deinit(&images[1]);
    mem_free(model);
}

static void test_turns_into_a_tree_where_redis_does(void **state)
{
    (void)state;
    struct object *object = zset_ops.create();
    char text[128];

    for (uint32_t i = 0; i < 128; i++)
        assert_int_equal(zset_set(object, member_of(i, text), i, NULL), 0);
    assert_string_equal(zset_encoding(object), "listpack");
    assert_int_equal(zset_set(object, BYTES("one more"), 0, NULL), 0);
    assert_string_equal(zset_encoding(object), "skiplist");
    zset_ops.destroy(object);
    object = zset_ops.create();
    memset(text, 'x', sizeof(text));
    assert_int_equal(zset_set(object, bytes_of(text, 64), 0, NULL), 0);
    assert_string_equal(zset_encoding(object), "listpack");
    assert_int_equal(zset_set(object, bytes_of(text, 65), 0, NULL), 0);
    assert_string_equal(zset_encoding(object), "skiplist");
    zset_ops.destroy(object);
}

static bool image_is_good(struct bytes image)
{
    struct object *object = zset_ops.decode(image);

    if (object != NULL)
        zset_ops.destroy(object);
    return object != NULL;
}

static void test_refuses_what_is_no_image(void **state)
{
    (void)state;

    assert_true(image_is_good(BYTES("\0\1a\1\1" "\1b\1\1")));
    assert_true(image_is_good(BYTES("\1\1a\1\1" "\1b\1\1")));
    assert_false(image_is_good(BYTES("\2\1a\1\1")));
    assert_false(image_is_good(BYTES("")));
    assert_false(image_is_good(BYTES("\0\1a\1\1" "\1a\1\2")));  /* a member twice */
    assert_false(image_is_good(BYTES("\0\1a\1\2" "\1b\1\1")));  /* no order of scores */
    assert_false(image_is_good(BYTES("\0\1b\1\1" "\1a\1\1")));  /* no order of members */
    assert_false(image_is_good(BYTES("\0\1a\0")));              /* no score */
    assert_false(image_is_good(BYTES("\0\1a")));
    assert_false(image_is_good(BYTES("\0\1a\1")));
    assert_false(image_is_good(BYTES("\0\1a\x9" "\1\1\1\1\1\1\1\1\1")));
    assert_false(image_is_good(BYTES("\0\1a\x8" "\0\0\0\0\0\0\xf8\x7f"))); /* NaN */
}

/* -0 is a score of its own, though it equals 0. */
static void test_keeps_every_double(void **state)
{
    (void)state;
    static const double scores[] = {0.0, -0.0, 127, 128, -128, -129, 0x1p55, -0x1p55, 0x1p55 - 8,
                                    1e-310, INFINITY, -INFINITY, 0.1, 36028797018963967.0};

    for (size_t i = 0; i < ARRAY_COUNT(scores); i++) {
        struct object *object = zset_ops.create();
        double score;

        assert_int_equal(zset_set(object, BYTES("m"), scores[i], NULL), 0);
        assert_true(zset_score(object, BYTES("m"), &score));
        assert_memory_equal(&score, &scores[i], sizeof(score));
        zset_ops.destroy(object);
    }
}

static void count_scanned(void *arg, struct bytes member, double score)
{
    (void)score;
    (void)member;
    (*(uint32_t *)arg)++;
}

static void test_scan_and_bounds(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {100, 1000};

    for (size_t size = 0; size < ARRAY_COUNT(sizes); size++) {
        struct object *object = zset_ops.create();
        struct zset_bound bound = {.kind = ZSET_BOUND_SCORE, .score = 7};
        uint32_t seen = 0;
        uint64_t cursor = 0;
        char text[128];

        for (uint32_t i = 0; i < sizes[size]; i++)
            assert_int_equal(zset_set(object, member_of(i, text), i / 10, NULL), 0);
        do {
            cursor = zset_scan(object, cursor, count_scanned, &seen);
        } while (cursor != 0);
        assert_int_equal(seen, sizes[size]);
        assert_int_equal(zset_count_before(object, &bound), 70);
        bound.is_behind = true;
        assert_int_equal(zset_count_before(object, &bound), 80);
        bound.kind = ZSET_BOUND_LOWEST;
        assert_int_equal(zset_count_before(object, &bound), 0);
        bound.kind = ZSET_BOUND_HIGHEST;
        assert_int_equal(zset_count_before(object, &bound), sizes[size]);
        zset_ops.destroy(object);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_agrees_with_a_model_and_its_replica),
        cmocka_unit_test(test_turns_into_a_tree_where_redis_does),
        cmocka_unit_test(test_refuses_what_is_no_image),
        cmocka_unit_test(test_keeps_every_double),
        cmocka_unit_test(test_scan_and_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
