/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "backend/store/effect.h"
#include "backend/types/limits.h"
#include "backend/types/set.h"
#include "backend/types/types.h"
#include "common/base/err.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <stdlib.h>

static struct bytes text_of(const char *prefix, unsigned number, char out[160])
{
    int len = snprintf(out, 160, "%s%u", prefix, number);

    return bytes_of(out, (size_t)len);
}

static bool add(struct object *set, struct bytes member)
{
    bool is_new;

    assert_int_equal(set_add(set, member, &is_new), 0);
    return is_new;
}

static void fill(struct object *set, const char *prefix, unsigned from, unsigned to)
{
    char text[160];

    for (unsigned i = from; i < to; i++)
        assert_true(add(set, text_of(prefix, i, text)));
}

/* Which form it has inside: the first byte of its image. */
static int form_of(const struct object *set)
{
    struct buffer image = {0};
    int form;

    set_ops.encode(set, &image);
    form = image.data[0];
    buffer_deinit(&image);
    return form;
}

static struct object *copy_of(const struct object *set)
{
    struct buffer first = {0}, second = {0};
    struct object *copy;

    set_ops.encode(set, &first);
    copy = set_ops.decode(buffer_bytes(&first));
    assert_non_null(copy);
    set_ops.encode(copy, &second);
    assert_int_equal(first.len, second.len);
    assert_memory_equal(first.data, second.data, first.len);
    buffer_deinit(&first);
    buffer_deinit(&second);
    return copy;
}

static void test_integers_of_any_width(void **state)
{
    static const char *const sorted[] = {
        "-9223372036854775808", "-2147483649", "-2147483648", "-32769", "-32768", "-1", "0", "1",
        "32767", "32768", "2147483647", "2147483648", "9223372036854775807",
    };
    static const unsigned order[] = {6, 5, 7, 8, 9, 3, 4, 2, 10, 11, 1, 12, 0};
    struct object *set = set_create();
    struct bytes member;
    struct set_walk walk;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(order); i++) {
        assert_false(set_has(set, bytes_of_string(sorted[order[i]])));
        assert_true(add(set, bytes_of_string(sorted[order[i]])));
        assert_false(add(set, bytes_of_string(sorted[order[i]])));
    }
    assert_string_equal(set_encoding(set), "intset");
    set_walk_init(&walk, set);
    for (size_t i = 0; i < ARRAY_COUNT(sorted); i++) {
        assert_true(set_walk_next(&walk, &member));
        assert_true(bytes_equal(member, bytes_of_string(sorted[i])));
    }
    assert_false(set_walk_next(&walk, &member));
    for (size_t i = 0; i < ARRAY_COUNT(sorted); i++)
        assert_true(set_remove(set, bytes_of_string(sorted[i])));
    assert_int_equal(set_count(set), 0);
    set_ops.destroy(set);
}

/* "01", "+1", "-0", " 1" are strings. */
static void test_only_canonical_numbers_are_integers(void **state)
{
    static const char *const texts[] = {"01", "+1", "-0", " 1", "1 ", "", "9223372036854775808", "1.0"};

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        struct object *set = set_create();

        assert_true(add(set, BYTES("1")));
        assert_false(set_has(set, bytes_of_string(texts[i])));
        assert_true(add(set, bytes_of_string(texts[i])));
        assert_string_equal(set_encoding(set), "hashtable");
        assert_true(set_has(set, BYTES("1")));
        assert_int_equal(set_count(set), 2);
        set_ops.destroy(set);
    }
}

static void test_turns_into_larger_forms_at_the_limits(void **state)
{
    struct object *set = set_create();
    char big[SET_PACKED_SIZE_MAX + 1] = {0};

    (void)state;
    fill(set, "", 0, SET_INTS_MAX);
    assert_int_equal(form_of(set), 1);
    fill(set, "", SET_INTS_MAX, SET_INTS_MAX + 1);
    assert_int_equal(form_of(set), 3);
    assert_string_equal(set_encoding(set), "hashtable");
    assert_int_equal(set_count(set), SET_INTS_MAX + 1);
    set_ops.destroy(set);

    set = set_create();
    fill(set, "", 0, 100);
    fill(set, "m", 0, SET_PACKED_MEMBERS_MAX - 100);
    assert_int_equal(form_of(set), 2);
    assert_false(add(set, BYTES("m0")));
    assert_int_equal(form_of(set), 2);
    assert_true(add(set, BYTES("one more")));
    assert_int_equal(form_of(set), 3);
    assert_true(set_has(set, BYTES("99")));
    set_ops.destroy(set);

    set = set_create();
    assert_true(add(set, bytes_of(big, SET_PACKED_SIZE_MAX)));
    assert_int_equal(form_of(set), 2);
    assert_true(add(set, bytes_of(big, SET_PACKED_SIZE_MAX + 1)));
    assert_int_equal(form_of(set), 3);
    set_ops.destroy(set);

    set = set_create();
    fill(set, "", 0, 300);
    assert_true(add(set, BYTES("x")));
    assert_int_equal(form_of(set), 3);
    assert_int_equal(set_count(set), 301);
    set_ops.destroy(set);
}

static void test_agrees_with_a_model(void **state)
{
    enum { MEMBERS = 1000 };
    static const struct { const char *prefix; unsigned range; } runs[] = {
        {"", 400}, {"", MEMBERS}, {"m", 60}, {"m", MEMBERS},
    };

    (void)state;
    srand(3);
    for (size_t run = 0; run < ARRAY_COUNT(runs); run++) {
        struct object *set = set_create(), *copy;
        bool model[MEMBERS] = {0};
        unsigned count = 0;
        char text[160];

        for (unsigned i = 1; i < 20000; i++) {
            unsigned at = (unsigned)rand() % runs[run].range;
            struct bytes member = text_of(runs[run].prefix, at, text);

            assert_int_equal(set_has(set, member), model[at]);
            if (rand() % 3 == 0) {
                assert_int_equal(set_remove(set, member), model[at]);
                count -= model[at];
                model[at] = false;
            } else {
                assert_int_equal(add(set, member), !model[at]);
                count += !model[at];
                model[at] = true;
            }
            assert_int_equal(set_count(set), count);
            if (i % 1000 == 0 && count > 0) {
                copy = copy_of(set);
                set_ops.destroy(set);
                set = copy;
            }
        }
        for (unsigned at = 0; at < runs[run].range; at++)
            assert_int_equal(set_remove(set, text_of(runs[run].prefix, at, text)), model[at]);
        assert_int_equal(set_count(set), 0);
        assert_true(set_ops.bytes(set) <= 512);
        set_ops.destroy(set);
    }
}

struct seen {
    unsigned members[1000];
    unsigned count;
};

static void note(void *arg, struct bytes member)
{
    struct seen *seen = arg;
    uint64_t number;

    assert_true(bytes_to_u64(bytes_skip(member, member.data[0] == 'm'), 999, &number));
    seen->members[number]++;
    seen->count++;
}

static void test_walks_tell_all_members_once(void **state)
{
    static const struct { const char *prefix; unsigned count; } runs[] = {
        {"", 1}, {"", 500}, {"", 1000}, {"m", 50}, {"m", 1000},
    };

    (void)state;
    for (size_t run = 0; run < ARRAY_COUNT(runs); run++) {
        struct object *set = set_create();
        struct seen walked = {.count = 0}, scanned = {.count = 0}, sampled = {.count = 0};
        struct bytes member;
        struct set_walk walk;
        uint64_t cursor = 0;

        fill(set, runs[run].prefix, 0, runs[run].count);
        set_walk_init(&walk, set);
        while (set_walk_next(&walk, &member))
            note(&walked, member);
        do
            cursor = set_scan(set, cursor, note, &scanned);
        while (cursor != 0);
        set_sample(set, UINT64_MAX, 1, note, &sampled);
        for (unsigned i = 0; i < runs[run].count; i++) {
            assert_int_equal(walked.members[i], 1);
            assert_int_equal(scanned.members[i], 1);
            assert_int_equal(sampled.members[i], 1);
        }
        assert_int_equal(walked.count, runs[run].count);
        set_ops.destroy(set);
    }
}

/* Each member must come up about equally often: in single draws, in samples of a tenth and of nine tenths. */
static void test_random_and_samples_are_fair(void **state)
{
    static const struct { const char *prefix; unsigned count; } runs[] = {{"", 20}, {"m", 20}, {"m", 200}};

    (void)state;
    for (size_t run = 0; run < ARRAY_COUNT(runs); run++) {
        struct object *set = set_create();

        fill(set, runs[run].prefix, 0, runs[run].count);
        for (unsigned tenths = 1; tenths < 10; tenths += 4) {
            struct seen drawn = {.count = 0};
            unsigned rounds = 400 * runs[run].count, wanted = tenths * runs[run].count / 10;

            for (unsigned i = 0; i < rounds; i++) {
                char digits[SET_DIGITS_MAX];

                set_sample(set, wanted, i * 77777u, note, &drawn);
                note(&drawn, set_random(set, i * 99991u, digits));
            }
            for (unsigned i = 0; i < runs[run].count; i++)
                assert_in_range(drawn.members[i], 400 * (wanted + 1) * 75 / 100,
                                400 * (wanted + 1) * 125 / 100);
        }
        set_ops.destroy(set);
    }
}

static void test_effects_do_on_another_what_the_command_did(void **state)
{
    struct object *set = set_create();
    struct buffer ops = {0};

    (void)state;
    effect_begin(&ops, SET_EFFECT_ADD, 3);
    effect_bytes(&ops, BYTES("1"));
    effect_bytes(&ops, BYTES("2"));
    effect_bytes(&ops, BYTES("a"));
    effect_begin(&ops, EFFECT_EXPIRE, 1);
    effect_u64(&ops, 12345);
    effect_begin(&ops, SET_EFFECT_REMOVE, 2);
    effect_bytes(&ops, BYTES("1"));
    effect_bytes(&ops, BYTES("never there"));
    assert_int_equal(set_ops.apply(set, buffer_bytes(&ops)), 0);
    assert_int_equal(set_count(set), 2);
    assert_true(set_has(set, BYTES("2")) && set_has(set, BYTES("a")));
    assert_int_equal(set_ops.apply(set, bytes_first(buffer_bytes(&ops), ops.len - 1)), ERR_CORRUPT);
    buffer_clear(&ops);
    effect_begin(&ops, 3, 0);
    assert_int_equal(set_ops.apply(set, buffer_bytes(&ops)), ERR_CORRUPT);
    buffer_deinit(&ops);
    set_ops.destroy(set);
}

static void test_broken_images_are_refused(void **state)
{
    static const struct bytes broken[] = {
        {"", 0}, {"\x01", 1}, {"\x01\x00", 2}, {"\x02\x00", 2}, {"\x03\x00", 2},
        {"\x01\x01\x03\x00\x00\x00", 6},         /* no such width */
        {"\x01\x01\x02\x01\x00\x02", 6},         /* half a number */
        {"\x01\x02\x02\x02\x00\x01\x00", 7},     /* not in order */
        {"\x01\x02\x02\x01\x00\x01\x00", 7},     /* twice */
        {"\x01\x03\x02\x01\x00\x02\x00", 7},     /* another count */
        {"\x02\x02\x01" "a", 4},
        {"\x02\x02\x01" "a\x01" "a", 6},
        {"\x03\x02\x01" "a\x01" "a", 6},
        {"\x03\x01\x01" "a\x01" "b", 6},
        {"\x04\x01\x01" "a", 4},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(broken); i++)
        assert_null(set_ops.decode(broken[i]));
}

static void test_images_of_other_limits_are_taken(void **state)
{
    struct buffer image = {0};
    struct object *set;
    char text[160];

    (void)state;
    buffer_append(&image, "\x02", 1);
    varint_append(&image, SET_PACKED_MEMBERS_MAX + 1);
    for (unsigned i = 0; i <= SET_PACKED_MEMBERS_MAX; i++)
        varint_append_bytes(&image, text_of("m", i, text));
    set = set_ops.decode(buffer_bytes(&image));
    assert_non_null(set);
    assert_int_equal(form_of(set), 3);
    set_ops.destroy(set);

    buffer_clear(&image);
    buffer_append(&image, "\x01", 1);
    varint_append(&image, SET_INTS_MAX + 1);
    buffer_append(&image, "\x02", 1);
    for (uint16_t i = 0; i <= SET_INTS_MAX; i++)
        buffer_append(&image, &i, 2);
    set = set_ops.decode(buffer_bytes(&image));
    assert_non_null(set);
    assert_int_equal(form_of(set), 1);
    assert_true(set_has(set, BYTES("512")));
    fill(set, "", SET_INTS_MAX + 1, SET_INTS_MAX + 2);
    assert_int_equal(form_of(set), 3);
    set_ops.destroy(set);
    buffer_deinit(&image);
}

static void test_destroy_goes_in_steps(void **state)
{
    struct object *set = set_create();
    unsigned steps = 1;

    (void)state;
    fill(set, "m", 0, 10000);
    for (; !set_ops.destroy_step(set, 100); steps++)
        ;
    assert_in_range(steps, 100, 150);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers_of_any_width),
        cmocka_unit_test(test_only_canonical_numbers_are_integers),
        cmocka_unit_test(test_turns_into_larger_forms_at_the_limits),
        cmocka_unit_test(test_agrees_with_a_model),
        cmocka_unit_test(test_walks_tell_all_members_once),
        cmocka_unit_test(test_random_and_samples_are_fair),
        cmocka_unit_test(test_effects_do_on_another_what_the_command_did),
        cmocka_unit_test(test_broken_images_are_refused),
        cmocka_unit_test(test_images_of_other_limits_are_taken),
        cmocka_unit_test(test_destroy_goes_in_steps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
