/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "backend/types/bits.h"

static unsigned char data[67];

static struct bytes fill(uint32_t seed)
{
    for (size_t i = 0; i < sizeof(data); i++) {
        seed = seed * 1103515245u + 12345u;
        data[i] = (unsigned char)(seed >> 16);
    }
    return bytes_of(data, sizeof(data));
}

/* Every range of a random string, and of long runs of equal bits, against counting one by one. */
static void test_ranges_count_and_find(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 4; round++) {
        struct bytes b = fill(round);
        uint64_t bits = b.len * 8;

        if (round >= 2)
            memset(data + 1, round == 2 ? 0xff : 0, sizeof(data) - 2);
        for (uint64_t first = 0; first < bits; first += first < 80 ? 1 : 7) {
            uint64_t count = 0;
            int64_t found[2] = {-1, -1};

            for (uint64_t last = first; last < bits; last++) {
                bool bit = bits_get(b, last);

                count += bit;
                if (found[bit] < 0)
                    found[bit] = (int64_t)last;
                assert_int_equal(bits_count_range(b, first, last), count);
                assert_int_equal(bits_find(b, first, last, true), found[1]);
                assert_int_equal(bits_find(b, first, last, false), found[0]);
            }
        }
        assert_int_equal(bits_count(b), bits_count_range(b, 0, bits - 1));
    }
    assert_false(bits_get(bytes_of(data, 1), 8));
}

/* A field is the bits it covers, first one most significant; setting it leaves its neighbours alone. */
static void test_fields_at_any_place(void **state)
{
    (void)state;
    for (unsigned width = 1; width <= 64; width++) {
        for (uint64_t at = 0; at + width <= 160; at += 3) {
            unsigned char before[sizeof(data)];
            struct bytes b = fill(width);
            uint64_t want = 0, other = 0x9e3779b97f4a7c15u >> (64 - width);

            for (unsigned i = 0; i < width; i++)
                want = want << 1 | bits_get(b, at + i);
            assert_true(bits_field_get(b, at, width) == want);
            memcpy(before, data, sizeof(data));
            bits_field_set(data, at, width, other);
            assert_true(bits_field_get(b, at, width) == other);
            bits_field_set(data, at, width, want);
            assert_memory_equal(before, data, sizeof(data));
        }
    }
    assert_true(bits_field_get(BYTES("\xff"), 4, 8) == 0xf0);
    assert_true(bits_field_get(BYTES("\xff"), 4000, 64) == 0);
    assert_int_equal(bits_field_signed(0x80, 8), -128);
    assert_int_equal(bits_field_signed(0x7f, 8), 127);
}

static void test_combine(void **state)
{
    unsigned char out[40];
    char long_[40];
    struct bytes strings[2] = {bytes_of(long_, sizeof(long_)), BYTES("\x0f\xf0\xff")};

    (void)state;
    memset(long_, 0x55, sizeof(long_));
    bits_combine(BITS_AND, strings, 2, out, sizeof(out));
    assert_memory_equal(out, "\x05\x50\x55\0\0", 5);
    bits_combine(BITS_OR, strings, 2, out, sizeof(out));
    assert_memory_equal(out, "\x5f\xf5\xff\x55\x55", 5);
    bits_combine(BITS_XOR, strings, 2, out, sizeof(out));
    assert_memory_equal(out, "\x5a\xa5\xaa\x55\x55", 5);
    bits_combine(BITS_NOT, strings, 1, out, sizeof(out));
    for (size_t i = 0; i < sizeof(out); i++)
        assert_int_equal(out[i], 0xaa);
}

static void test_additions_overflow_as_asked(void **state)
{
    int64_t i;
    uint64_t u;

    (void)state;
    assert_true(bits_add_signed(100, 27, 8, BITS_WRAP, &i) && i == 127);
    assert_true(!bits_add_signed(100, 28, 8, BITS_WRAP, &i) && i == -128);
    assert_true(!bits_add_signed(100, 28, 8, BITS_SATURATE, &i) && i == 127);
    assert_true(!bits_add_signed(-100, -29, 8, BITS_SATURATE, &i) && i == -128);
    assert_true(!bits_add_signed(INT64_MAX, 1, 64, BITS_WRAP, &i) && i == INT64_MIN);
    assert_true(!bits_add_signed(INT64_MIN, -1, 64, BITS_SATURATE, &i) && i == INT64_MIN);
    assert_true(!bits_add_signed(300, 0, 8, BITS_WRAP, &i) && i == 44);
    assert_true(!bits_add_signed(-300, 0, 8, BITS_SATURATE, &i) && i == -128);
    assert_true(!bits_add_signed(INT64_MIN, 0, 5, BITS_SATURATE, &i) && i == 15); /* as Redis 7.0 */
    assert_true(bits_add_unsigned(250, 5, 8, BITS_WRAP, &u) && u == 255);
    assert_true(!bits_add_unsigned(250, 6, 8, BITS_WRAP, &u) && u == 0);
    assert_true(!bits_add_unsigned(250, 6, 8, BITS_SATURATE, &u) && u == 255);
    assert_true(!bits_add_unsigned(5, -6, 8, BITS_WRAP, &u) && u == 255);
    assert_true(!bits_add_unsigned(5, -6, 8, BITS_SATURATE, &u) && u == 0);
    assert_true(bits_add_unsigned(5, -5, 8, BITS_FAIL, &u) && u == 0);
    assert_false(bits_add_unsigned(5, INT64_MIN, 63, BITS_FAIL, &u));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges_count_and_find),
        cmocka_unit_test(test_fields_at_any_place),
        cmocka_unit_test(test_combine),
        cmocka_unit_test(test_additions_overflow_as_asked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
