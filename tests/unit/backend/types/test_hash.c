/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "backend/store/effect.h"
#include "backend/types/hash.h"
#include "backend/types/limits.h"
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

static bool set(struct object *hash, struct bytes field, struct bytes value)
{
    bool is_new;

    assert_int_equal(hash_set(hash, field, value, &is_new), 0);
    return is_new;
}

static void fill(struct object *hash, unsigned from, unsigned to)
{
    char field[160], value[160];

    for (unsigned i = from; i < to; i++)
        assert_true(set(hash, text_of("field", i, field), text_of("value", i, value)));
}

/* A table from the start. */
static struct object *table_create(void)
{
    struct object *hash = hash_create();
    char big[HASH_PACKED_SIZE_MAX + 1] = {0};

    set(hash, BYTES("big"), bytes_of(big, sizeof(big)));
    assert_true(hash_delete(hash, BYTES("big")));
    assert_string_equal(hash_encoding(hash), "hashtable");
    return hash;
}

static void assert_value(const struct object *hash, struct bytes field, struct bytes value)
{
    struct bytes found;

    assert_true(hash_get(hash, field, &found));
    assert_true(bytes_equal(found, value));
}

static void test_field_is_set_replaced_and_deleted(void **state)
{
    struct object *hash = hash_create();
    struct bytes found;

    (void)state;
    assert_int_equal(hash_count(hash), 0);
    assert_true(set(hash, BYTES("f"), BYTES("one")));
    assert_true(set(hash, BYTES(""), BYTES("")));
    assert_false(set(hash, BYTES("f"), BYTES("longer than before")));
    assert_value(hash, BYTES("f"), BYTES("longer than before"));
    assert_value(hash, BYTES(""), BYTES(""));
    assert_false(hash_get(hash, BYTES("longer than before"), &found));
    assert_int_equal(hash_count(hash), 2);
    assert_true(hash_delete(hash, BYTES("f")));
    assert_false(hash_delete(hash, BYTES("f")));
    assert_int_equal(hash_count(hash), 1);
    hash_ops.destroy(hash);
}

static void test_turns_into_a_table_by_count_and_by_size(void **state)
{
    struct object *hash = hash_create();
    char big[HASH_PACKED_SIZE_MAX + 1] = {0};

    (void)state;
    fill(hash, 0, HASH_PACKED_FIELDS_MAX);
    assert_false(set(hash, BYTES("field0"), BYTES("value0")));
    assert_string_equal(hash_encoding(hash), "listpack");
    fill(hash, HASH_PACKED_FIELDS_MAX, HASH_PACKED_FIELDS_MAX + 1);
    assert_string_equal(hash_encoding(hash), "hashtable");
    assert_true(hash_delete(hash, BYTES("field1")));
    assert_string_equal(hash_encoding(hash), "hashtable");
    hash_ops.destroy(hash);

    hash = hash_create();
    set(hash, BYTES("f"), bytes_of(big, HASH_PACKED_SIZE_MAX));
    assert_string_equal(hash_encoding(hash), "listpack");
    set(hash, BYTES("f"), bytes_of(big, HASH_PACKED_SIZE_MAX + 1));
    assert_string_equal(hash_encoding(hash), "hashtable");
    assert_int_equal(hash_count(hash), 1);
    hash_ops.destroy(hash);
}

static void assert_same(const struct object *a, const struct object *b)
{
    struct buffer first = {0}, second = {0};

    hash_ops.encode(a, &first);
    hash_ops.encode(b, &second);
    assert_int_equal(first.len, second.len);
    assert_memory_equal(first.data, second.data, first.len);
    assert_string_equal(hash_encoding(a), hash_encoding(b));
    buffer_deinit(&first);
    buffer_deinit(&second);
}

static struct object *copy_of(const struct object *hash)
{
    struct buffer image = {0};
    struct object *copy;

    hash_ops.encode(hash, &image);
    assert_false(image.failed);
    copy = hash_ops.decode(buffer_bytes(&image));
    assert_non_null(copy);
    buffer_deinit(&image);
    return copy;
}

/* Random sets and deletes against an array of numbers; now and then the hash goes through its image. */
static void test_agrees_with_a_model(void **state)
{
    enum { FIELDS = 1000 };
    static const unsigned ranges[] = {20, 100, FIELDS};

    (void)state;
    srand(2);
    for (size_t run = 0; run < ARRAY_COUNT(ranges); run++) {
        struct object *hash = hash_create(), *copy;
        unsigned model[FIELDS] = {0}, count = 0;
        char field[160], value[160];
        struct bytes found;

        for (unsigned i = 1; i < 20000; i++) {
            unsigned at = (unsigned)rand() % ranges[run];
            struct bytes name = text_of("f", at, field);

            if (rand() % 3 == 0) {
                assert_int_equal(hash_delete(hash, name), model[at] != 0);
                count -= model[at] != 0;
                model[at] = 0;
            } else {
                /* Values of 1 to 50 bytes. */
                int len = snprintf(value, sizeof(value), "%0*u", 1 + (int)(i % 50), i);

                assert_int_equal(set(hash, name, bytes_of(value, (size_t)len)), model[at] == 0);
                count += model[at] == 0;
                model[at] = i;
            }
            assert_int_equal(hash_count(hash), count);
            if (i % 1000 == 0 && count > 0) {
                copy = copy_of(hash);
                assert_same(hash, copy);
                hash_ops.destroy(hash);
                hash = copy;
            }
        }
        for (unsigned at = 0; at < ranges[run]; at++) {
            assert_int_equal(hash_get(hash, text_of("f", at, field), &found), model[at] != 0);
            if (model[at] != 0) {
                memcpy(value, found.data, found.len);
                value[found.len] = '\0';
                assert_int_equal(strtoul(value, NULL, 10), model[at]);
            }
            hash_delete(hash, text_of("f", at, field));
        }
        assert_int_equal(hash_count(hash), 0);
        assert_true(hash_ops.bytes(hash) <= 512);
        hash_ops.destroy(hash);
    }
}

/* What a walk, a scan and a large sample tell is the same: all pairs, once each. */
struct seen {
    unsigned fields[1000];
    unsigned count;
};

static void note(void *arg, struct bytes field, struct bytes value)
{
    struct seen *seen = arg;
    uint64_t number, same;

    assert_true(bytes_to_u64(bytes_skip(field, 5), 999, &number));
    assert_true(bytes_to_u64(bytes_skip(value, 5), 999, &same));
    assert_int_equal(number, same);
    seen->fields[number]++;
    seen->count++;
}

static void test_walks_tell_all_pairs_once(void **state)
{
    static const unsigned counts[] = {1, 50, 1000};

    (void)state;
    for (size_t run = 0; run < ARRAY_COUNT(counts); run++) {
        struct object *hash = hash_create();
        struct seen walked = {.count = 0}, scanned = {.count = 0}, sampled = {.count = 0};
        struct bytes field, value;
        struct hash_walk walk;
        uint64_t cursor = 0;

        fill(hash, 0, counts[run]);
        hash_walk_init(&walk, hash);
        while (hash_walk_next(&walk, &field, &value))
            note(&walked, field, value);
        do
            cursor = hash_scan(hash, cursor, note, &scanned);
        while (cursor != 0);
        hash_sample(hash, UINT64_MAX, 1, note, &sampled);
        for (unsigned i = 0; i < counts[run]; i++) {
            assert_int_equal(walked.fields[i], 1);
            assert_int_equal(scanned.fields[i], 1);
            assert_int_equal(sampled.fields[i], 1);
        }
        assert_int_equal(walked.count, counts[run]);
        hash_ops.destroy(hash);
    }
}

/* Each of n fields must come up about equally often: in single draws, in samples of a few and of most. */
static void test_random_and_samples_are_fair(void **state)
{
    static const unsigned counts[] = {10, 200};
    static const unsigned samples[] = {1, 3, 9};

    (void)state;
    for (size_t run = 0; run < ARRAY_COUNT(counts); run++) {
        struct object *hash = run == 0 ? hash_create() : table_create();

        fill(hash, 0, counts[run]);
        for (size_t s = 0; s < ARRAY_COUNT(samples); s++) {
            struct seen drawn = {.count = 0};
            unsigned rounds = 400 * counts[run], wanted = samples[s] * counts[run] / 10;

            for (unsigned i = 0; i < rounds; i++) {
                struct bytes field, value;

                hash_sample(hash, wanted, i * 77777u, note, &drawn);
                hash_random(hash, i * 99991u, &field, &value);
                note(&drawn, field, value);
            }
            assert_int_equal(drawn.count, rounds * (wanted + 1));
            for (unsigned i = 0; i < counts[run]; i++)
                assert_in_range(drawn.fields[i], 400 * (wanted + 1) * 75 / 100,
                                400 * (wanted + 1) * 125 / 100);
        }
        hash_ops.destroy(hash);
    }
}

static void test_effects_do_on_another_what_the_command_did(void **state)
{
    struct object *hash = hash_create();
    struct buffer ops = {0};

    (void)state;
    effect_begin(&ops, HASH_EFFECT_SET, 4);
    effect_bytes(&ops, BYTES("a"));
    effect_bytes(&ops, BYTES("1"));
    effect_bytes(&ops, BYTES("b"));
    effect_bytes(&ops, BYTES("2"));
    effect_begin(&ops, EFFECT_EXPIRE, 1);
    effect_u64(&ops, 12345);
    effect_begin(&ops, HASH_EFFECT_DELETE, 2);
    effect_bytes(&ops, BYTES("a"));
    effect_bytes(&ops, BYTES("never there"));
    assert_int_equal(hash_ops.apply(hash, buffer_bytes(&ops)), 0);
    assert_int_equal(hash_count(hash), 1);
    assert_value(hash, BYTES("b"), BYTES("2"));

    assert_int_equal(hash_ops.apply(hash, bytes_first(buffer_bytes(&ops), ops.len - 1)), ERR_CORRUPT);
    buffer_clear(&ops);
    effect_begin(&ops, HASH_EFFECT_SET, 1);
    effect_bytes(&ops, BYTES("a"));
    assert_int_equal(hash_ops.apply(hash, buffer_bytes(&ops)), ERR_CORRUPT);
    buffer_clear(&ops);
    effect_begin(&ops, 3, 0);
    assert_int_equal(hash_ops.apply(hash, buffer_bytes(&ops)), ERR_CORRUPT);
    buffer_deinit(&ops);
    hash_ops.destroy(hash);
}

static void test_broken_images_are_refused(void **state)
{
    static const struct bytes broken[] = {
        {"", 0}, {"\x01", 1}, {"\x01\x00", 2}, {"\x02\x00", 2},
        {"\x01\x01\x01" "a", 4},                     /* no value */
        {"\x01\x01\x01" "a\x01" "b\x01" "c", 8},     /* one too many */
        {"\x02\x01\x01" "a\x01" "b\x00", 7},
        {"\x01\x02\x01" "a\x01" "b\x01" "a\x01" "c", 10}, /* a field twice */
        {"\x02\x02\x01" "a\x01" "b\x01" "a\x01" "c", 10},
        {"\x03\x01\x01" "a\x01" "b", 6},             /* no such encoding */
        {"\x02\xff\xff\xff\xff\x0f\x01" "a\x01" "b", 10},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(broken); i++)
        assert_null(hash_ops.decode(broken[i]));
}

static struct object *packed_image(unsigned count, unsigned last, struct buffer *image)
{
    char text[160];

    buffer_clear(image);
    buffer_append(image, "\x01", 1);
    varint_append(image, count);
    for (unsigned i = 0; i < count; i++) {
        varint_append_bytes(image, text_of("f", i + 1 == count ? last : i, text));
        varint_append_bytes(image, text_of("v", i, text));
    }
    return hash_ops.decode(buffer_bytes(image));
}

/* A packed image stays what it is, up to a bound; beyond it is taken as a table. A field that is there twice is seen. */
static void test_packed_images_of_other_limits_are_taken(void **state)
{
    static const unsigned counts[] = {HASH_PACKED_FIELDS_MAX, HASH_PACKED_FIELDS_MAX + 1, PACKED_COUNT_BOUND,
                                      PACKED_COUNT_BOUND + 1};
    struct buffer image = {0};
    struct object *hash;
    char text[160], other[160];

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(counts); i++) {
        unsigned last = counts[i] - 1;

        hash = packed_image(counts[i], last, &image);
        assert_non_null(hash);
        assert_string_equal(hash_encoding(hash), counts[i] <= PACKED_COUNT_BOUND ? "listpack" : "hashtable");
        assert_value(hash, text_of("f", last, text), text_of("v", last, other));
        hash_ops.destroy(hash);
        assert_null(packed_image(counts[i], last / 2, &image));
    }
    buffer_deinit(&image);
}

/* What is over a limit that was lowered is converted when it is changed next. */
static void test_limits_may_change(void **state)
{
    struct object_limits limits = object_limits_default;
    struct object *hash = hash_create();
    char text[160];

    (void)state;
    hash->limits = &limits;
    limits.hash_fields = 1000;
    limits.hash_size = 100;
    fill(hash, 0, 1000);
    assert_string_equal(hash_encoding(hash), "listpack");
    limits.hash_fields = 999;
    assert_true(hash_delete(hash, text_of("field", 0, text)));
    set(hash, text_of("field", 1, text), BYTES("new"));
    assert_string_equal(hash_encoding(hash), "listpack");
    limits.hash_fields = 998;
    set(hash, text_of("field", 1, text), BYTES("newer"));
    assert_string_equal(hash_encoding(hash), "hashtable");
    hash_ops.destroy(hash);
}

static void test_destroy_goes_in_steps(void **state)
{
    struct object *hash = hash_create();
    unsigned steps = 1;

    (void)state;
    fill(hash, 0, 10000);
    for (; !hash_ops.destroy_step(hash, 100); steps++)
        ;
    assert_in_range(steps, 100, 150);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_field_is_set_replaced_and_deleted),
        cmocka_unit_test(test_turns_into_a_table_by_count_and_by_size),
        cmocka_unit_test(test_agrees_with_a_model),
        cmocka_unit_test(test_walks_tell_all_pairs_once),
        cmocka_unit_test(test_random_and_samples_are_fair),
        cmocka_unit_test(test_effects_do_on_another_what_the_command_did),
        cmocka_unit_test(test_broken_images_are_refused),
        cmocka_unit_test(test_packed_images_of_other_limits_are_taken),
        cmocka_unit_test(test_limits_may_change),
        cmocka_unit_test(test_destroy_goes_in_steps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
