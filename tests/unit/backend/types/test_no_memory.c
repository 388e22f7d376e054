/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory runs out in the middle of a change: the object is as it was, and everything works as soon as there is memory.
 *
 * The same drawn changes again and again, with the first allocation refused, the second, and so on until all have
 * been. A twin gets those that were not refused, with memory for all: the two must have the same content.
 */
#include "tests/unit/no_memory.h"

#include "backend/store/effect.h"
#include "backend/types/hash.h"
#include "backend/types/limits.h"
#include "backend/types/list.h"
#include "backend/types/set.h"
#include "backend/types/string.h"
#include "backend/types/types.h"
#include "backend/types/zset.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

enum { CHANGES = 400, LONG_NAME = 300 };

/* Small ones: so that all forms are met in a short life. */
static const struct object_limits limits = {
    .hash_fields = 12, .hash_size = 64, .set_ints = 10, .zset_members = 12, .zset_size = 64};

/* A sanitized run takes many times as long. */
#ifdef TEST_ASAN
#define SAMPLE 397u
#else
#define SAMPLE 97u
#endif

/* Short lives of small objects, every allocation of them; and long lives of objects that get large, a sample. */
static const struct life {
    unsigned names, changes, seeds;
    uint64_t step;
} lives[] = {{60, CHANGES, 3, 1}, {4000, 9000, 1, SAMPLE}};

struct draw {
    uint64_t random;
    unsigned names;
    struct buffer effects;
    char name[LONG_NAME + 1], value[LONG_NAME + 1];
};

static uint64_t draw_below(struct draw *draw, uint64_t below)
{
    draw->random = draw->random * 6364136223846793005ull + 1442695040888963407ull;
    return (draw->random >> 33) % below;
}

/* One of a few names; a few of them are long. */
static struct bytes draw_name(struct draw *draw, char out[LONG_NAME + 1])
{
    unsigned number = (unsigned)draw_below(draw, draw->names);
    int len = snprintf(out, LONG_NAME + 1, number % 16 == 7 ? "%0*u" : "%.*u", number % 16 == 7 ? LONG_NAME : 1, number);

    return bytes_of(out, (size_t)len);
}

struct kind {
    const struct object_ops *ops;
    const char *name;
    /* One change that `draw` decides. */
    int (*change)(struct object *object, struct draw *draw);
    void (*compare)(const struct object *a, const struct object *b);
};

/* ---- what changes ---- */

static int change_string(struct object *object, struct draw *draw)
{
    struct bytes bytes = draw_name(draw, draw->name);

    return draw_below(draw, 2) == 0 ? string_append(object, bytes)
                                    : string_write(object, (size_t)draw_below(draw, 3000), bytes);
}

static int change_hash(struct object *object, struct draw *draw)
{
    struct bytes field = draw_name(draw, draw->name), value = draw_name(draw, draw->value);
    bool is_new;

    if (draw_below(draw, 4) > 0)
        return hash_set(object, field, value, &is_new);
    MAYBE(hash_delete(object, field));
    return 0;
}

/* Numbers first, then names too: the three forms. */
static int change_set(struct object *object, struct draw *draw)
{
    struct bytes member = draw_name(draw, draw->name);
    bool is_new, is_word = draw_below(draw, 12) == 0;

    if (is_word)
        draw->name[0] = 'w';
    if (draw_below(draw, 4) > 0)
        return set_add(object, member, &is_new);
    MAYBE(set_remove(object, member));
    return 0;
}

static int change_zset(struct object *object, struct draw *draw)
{
    struct bytes member = draw_name(draw, draw->name);
    double score = (double)draw_below(draw, 10);

    if (draw_below(draw, 4) > 0)
        return zset_set(object, member, score, &draw->effects);
    MAYBE(zset_remove(object, member, &draw->effects));
    return 0;
}

static int change_list(struct object *object, struct draw *draw)
{
    struct bytes items[3] = {draw_name(draw, draw->name), draw_name(draw, draw->value), BYTES("third")};
    uint64_t count = list_items(object)->count, what = draw_below(draw, 8), index = draw_below(draw, count + 1);
    enum deque_end end = draw_below(draw, 2) == 0 ? DEQUE_HEAD : DEQUE_TAIL;

    if (what < 3)
        return list_push(object, end, items, 1 + (uint32_t)draw_below(draw, 3), &draw->effects);
    if (what < 5)
        return list_insert(object, index, items[0], &draw->effects);
    if (count == 0)
        return 0;
    if (what == 5)
        return list_set(object, index % count, items[1], &draw->effects);
    if (what == 6)
        list_pop(object, end, 1 + index % MIN(count, 3u), &draw->effects);
    else
        MAYBE(list_remove_equal(object, items[0], 1, &draw->effects));
    return 0;
}

/* ---- what is compared ---- */

static void compare_strings(const struct object *a, const struct object *b)
{
    assert_true(bytes_equal(string_object_bytes(a), string_object_bytes(b)));
}

static void compare_hashes(const struct object *a, const struct object *b)
{
    struct hash_walk walk;
    struct bytes field, value, other;

    hash_walk_init(&walk, b);
    while (hash_walk_next(&walk, &field, &value)) {
        assert_true(hash_get(a, field, &other));
        assert_true(bytes_equal(value, other));
    }
}

static void compare_sets(const struct object *a, const struct object *b)
{
    struct set_walk walk;
    struct bytes member;

    set_walk_init(&walk, b);
    while (set_walk_next(&walk, &member))
        assert_true(set_has(a, member));
}

static void compare_zsets(const struct object *a, const struct object *b)
{
    struct zset_walk walks[2];
    struct bytes members[2];
    double scores[2];
    uint64_t count = zset_count(b), rank = 0;

    if (count == 0)
        return;
    zset_walk_init(&walks[0], a, 0, count, false);
    zset_walk_init(&walks[1], b, 0, count, false);
    while (zset_walk_next(&walks[1], &members[1], &scores[1])) {
        double score;
        uint64_t seen;

        assert_true(zset_walk_next(&walks[0], &members[0], &scores[0]));
        assert_true(bytes_equal(members[0], members[1]));
        assert_true(scores[0] == scores[1]);
        assert_true(zset_rank(a, members[1], &seen, &score));
        assert_int_equal(seen, rank++);
        assert_true(score == scores[1]);
    }
}

static void compare_lists(const struct object *a, const struct object *b)
{
    uint64_t count = list_items(b)->count;
    struct deque_cursor cursors[2];

    if (count == 0)
        return;
    cursors[0] = deque_seek(list_items(a), 0);
    cursors[1] = deque_seek(list_items(b), 0);
    for (uint64_t i = 0; i < count; i++) {
        struct bytes items[2] = {deque_walk(&cursors[0], DEQUE_TAIL), deque_walk(&cursors[1], DEQUE_TAIL)};

        assert_true(bytes_equal(items[0], items[1]));
    }
}

static const struct kind kinds[] = {
    {&string_ops, "string", change_string, compare_strings}, {&hash_ops, "hash", change_hash, compare_hashes},
    {&set_ops, "set", change_set, compare_sets},             {&zset_ops, "zset", change_zset, compare_zsets},
    {&list_ops, "list", change_list, compare_lists},
};

static void compare(const struct kind *kind, const struct object *a, const struct object *b)
{
    assert_int_equal(kind->ops->count(a), kind->ops->count(b));
    kind->compare(a, b);
    kind->compare(b, a);
}

/* ---- the tests ---- */

static struct object *make(const struct kind *kind)
{
    struct object *object = kind->ops->create();

    assert_non_null(object);
    object->limits = &limits;
    return object;
}

/* Room from the start: what runs out is not the log's. */
static void draw_init(struct draw *draw, uint64_t seed, unsigned names)
{
    *draw = (struct draw){.random = seed, .names = names};
    for (unsigned i = 0; i < 4096; i++)
        buffer_append(&draw->effects, "0123456789abcdef", 16);
}

/* A life in which the allocation with this number is refused. False: there were not so many. */
static bool live(const struct kind *kind, const struct life *life, uint64_t seed, uint64_t refuse, uint64_t *errors)
{
    struct object *object = make(kind), *twin = make(kind);
    struct draw draw, again;
    bool was_refused = false;

    draw_init(&draw, seed, life->names);
    no_memory.left = refuse;
    for (unsigned i = 0; i < life->changes; i++) {
        uint64_t random = draw.random, refused = no_memory.refused, left;
        int err;

        buffer_clear(&draw.effects);
        err = kind->change(object, &draw);
        left = no_memory.left;
        no_memory.left = 0;
        if (err != 0) {
            assert_int_equal(err, ERR_FULL);
            assert_true(no_memory.refused > refused);
            (*errors)++;
        } else {
            again = draw;
            again.random = random;
            buffer_clear(&again.effects);
            assert_int_equal(kind->change(twin, &again), 0);
            draw.effects = again.effects; /* it may have grown */
        }
        if (no_memory.refused > refused) {
            was_refused = true;
            compare(kind, object, twin);
        }
        no_memory.left = left;
    }
    no_memory.left = 0;
    compare(kind, object, twin);
    kind->ops->destroy(object);
    kind->ops->destroy(twin);
    buffer_deinit(&draw.effects);
    return was_refused;
}

static void test_a_refused_change_changes_nothing(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(kinds); k++) {
        uint64_t errors = 0, count = 0;

        for (const struct life *life = lives; life < lives + ARRAY_COUNT(lives); life++)
            for (uint64_t seed = 1; seed <= life->seeds; seed++)
                for (uint64_t refuse = 1; live(&kinds[k], life, seed, refuse, &errors); refuse += life->step)
                    count++;
        print_message("# %s: %u lives, %u changes refused\n", kinds[k].name, (unsigned)count, (unsigned)errors);
        assert_true(errors > 10 && errors >= count / 2);
    }
}

/* An image is read as a whole or not at all; a delta's operations up to where memory ran out. Nothing is left behind. */
static void test_reading_without_memory(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(kinds); k++) {
        const struct kind *kind = &kinds[k];
        struct buffer image = {0};
        struct draw draw;

        draw_init(&draw, 9, lives[0].names);
        for (unsigned changes = 1; changes <= CHANGES; changes += changes < 20 ? 1 : 120) {
            struct object *object = make(kind), *copy = NULL;

            draw.random = changes;
            for (unsigned i = 0; i < changes; i++) {
                buffer_clear(&draw.effects);
                assert_int_equal(kind->change(object, &draw), 0);
            }
            if (kind->ops->count(object) > 0) {
                buffer_clear(&image);
                kind->ops->encode(object, &image);
                assert_false(image.failed);
                for (uint64_t refuse = 1; copy == NULL; refuse++) {
                    uint64_t refused = no_memory.refused;

                    no_memory.left = refuse;
                    copy = kind->ops->decode(buffer_bytes(&image));
                    no_memory.left = 0;
                    assert_true(copy != NULL || no_memory.refused > refused);
                }
                compare(kind, object, copy);
                kind->ops->destroy(copy);
            }
            kind->ops->destroy(object);
        }
        buffer_deinit(&image);
        buffer_deinit(&draw.effects);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_refused_change_changes_nothing),
        cmocka_unit_test(test_reading_without_memory),
    };

    return cmocka_run_group_tests_name("no_memory", tests, NULL, NULL);
}
