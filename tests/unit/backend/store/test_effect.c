/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "backend/store/effect.h"
#include "common/base/mem.h"

static void test_varints_are_read_as_written(void **state)
{
    struct buffer out = {0};

    (void)state;
    for (unsigned bit = 0; bit < 64; bit++) {
        const uint64_t numbers[] = {(uint64_t)1 << bit, ((uint64_t)1 << bit) - 1,
                                    UINT64_MAX >> bit};

        for (size_t i = 0; i < ARRAY_COUNT(numbers); i++) {
            struct bytes cursor;
            uint64_t again = 0;

            buffer_clear(&out);
            varint_append(&out, numbers[i]);
            assert_true(out.len <= 10);
            for (size_t cut = 0; cut < out.len; cut++) {
                cursor = bytes_first(buffer_bytes(&out), cut);
                assert_false(varint_read(&cursor, &again));
                assert_int_equal(cursor.len, cut);
            }
            cursor = buffer_bytes(&out);
            assert_true(varint_read(&cursor, &again));
            assert_int_equal(again, numbers[i]);
            assert_int_equal(cursor.len, 0);
        }
    }
    buffer_deinit(&out);
}

static void test_varints_have_one_form(void **state)
{
    static const struct bytes bad[] = {
        BYTES("\x80\x00"),                                 /* zero, one byte too long */
        BYTES("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), /* 65 bits */
        BYTES("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
    };
    uint64_t number;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        struct bytes cursor = bad[i];

        assert_false(varint_read(&cursor, &number));
    }
}

static void operations_compose(struct buffer *out)
{
    effect_begin(out, 1, 3);
    effect_bytes(out, BYTES("field"));
    effect_bytes(out, BYTES(""));
    effect_u64(out, 0x0102030405060708);
    effect_begin(out, 2, 0);
    effect_begin(out, EFFECT_EXPIRE, 1);
    effect_u64(out, 1700000000000);
    effect_begin(out, 3, 1);
    effect_double(out, -0.1);
}

static void test_operations_are_read_as_written(void **state)
{
    struct buffer out = {0};
    struct effect_reader reader;
    struct bytes text;
    uint8_t code;
    uint32_t count;
    uint64_t number;
    double real;

    (void)state;
    operations_compose(&out);
    effect_reader_init(&reader, buffer_bytes(&out));
    assert_true(effect_next(&reader, &code, &count));
    assert_int_equal(code, 1);
    assert_int_equal(count, 3);
    assert_true(effect_read_bytes(&reader, &text));
    assert_true(bytes_equal(text, BYTES("field")));
    /* The two others are skipped. */
    assert_true(effect_next(&reader, &code, &count));
    assert_int_equal(code, 2);
    assert_int_equal(count, 0);
    assert_true(effect_next(&reader, &code, &count));
    assert_int_equal(code, EFFECT_EXPIRE);
    assert_true(effect_read_u64(&reader, &number));
    assert_int_equal(number, 1700000000000);
    assert_true(effect_next(&reader, &code, &count));
    assert_true(effect_read_double(&reader, &real));
    assert_true(real == -0.1);
    assert_false(effect_next(&reader, &code, &count));
    assert_false(reader.is_bad);
    buffer_deinit(&out);
}

/* Reads all; whether it ended well. */
static bool read_all(struct bytes ops)
{
    struct effect_reader reader;
    struct bytes text;
    uint8_t code;
    uint32_t count;

    effect_reader_init(&reader, ops);
    while (effect_next(&reader, &code, &count))
        for (uint32_t i = 0; i < count; i++)
            if (!effect_read_bytes(&reader, &text))
                return false;
    return !reader.is_bad;
}

/* Cut at every byte: either it is the end of an operation, or it is seen to be bad; never read past. */
static void test_cut_operations_are_bad(void **state)
{
    struct buffer out = {0};
    size_t ends = 0;

    (void)state;
    operations_compose(&out);
    for (size_t cut = 0; cut <= out.len; cut++) {
        char *exact = must_alloc(cut + 1); /* so that a sanitizer sees reading on */

        memcpy(exact, out.data, cut);
        ends += read_all(bytes_of(exact, cut));
        mem_free(exact);
    }
    assert_int_equal(ends, 5); /* nothing, and behind each of the four */
    buffer_deinit(&out);
}

static void test_wrong_arguments_are_sticky(void **state)
{
    struct buffer out = {0};
    struct effect_reader reader;
    struct bytes text;
    uint8_t code;
    uint32_t count;
    uint64_t number;

    (void)state;
    effect_begin(&out, 1, 2);
    effect_bytes(&out, BYTES("four"));
    effect_bytes(&out, BYTES("x"));
    effect_reader_init(&reader, buffer_bytes(&out));
    assert_true(effect_next(&reader, &code, &count));
    assert_false(effect_read_u64(&reader, &number)); /* four bytes are no number */
    assert_true(reader.is_bad);
    assert_false(effect_read_bytes(&reader, &text));
    assert_false(effect_next(&reader, &code, &count));

    effect_reader_init(&reader, BYTES("\x01\xff\xff\x3f\x00")); /* a million arguments in a byte */
    assert_false(effect_next(&reader, &code, &count));
    assert_true(reader.is_bad);
    effect_reader_init(&reader, BYTES("\x00\x00")); /* no operation has code 0 */
    assert_false(effect_next(&reader, &code, &count));
    assert_true(reader.is_bad);
    buffer_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_varints_are_read_as_written),
        cmocka_unit_test(test_varints_have_one_form),
        cmocka_unit_test(test_operations_are_read_as_written),
        cmocka_unit_test(test_cut_operations_are_bad),
        cmocka_unit_test(test_wrong_arguments_are_sticky),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
