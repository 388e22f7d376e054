/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "backend/types/packed.h"
#include "common/base/err.h"
#include "common/base/mem.h"

static void add(struct packed *packed, const char *item)
{
    assert_int_equal(packed_append(packed, bytes_of_string(item)), 0);
}

/* "a,bb,ccc": the items in order, for comparisons that can be read. */
static const char *joined(const struct packed *packed, char out[256])
{
    size_t len = 0;

    for (uint32_t off = 0; off < packed->len;) {
        struct bytes item;

        if (off > 0)
            out[len++] = ',';
        off = packed_get(packed, off, &item);
        assert_true(len + item.len + 2 < 256);
        memcpy(out + len, item.data, item.len);
        len += item.len;
    }
    out[len] = '\0';
    return out;
}

static void test_items_come_back_in_order(void **state)
{
    struct packed packed;
    char text[256];

    (void)state;
    packed_init(&packed);
    assert_int_equal(packed_at(&packed, 0), 0);
    add(&packed, "one");
    add(&packed, "");
    add(&packed, "three");
    assert_int_equal(packed.count, 3);
    assert_string_equal(joined(&packed, text), "one,,three");
    assert_int_equal(packed_at(&packed, 1), 4);
    assert_int_equal(packed_at(&packed, 3), packed.len);
    packed_deinit(&packed);
    assert_int_equal(packed_bytes(&packed), 0);
}

static void test_change_in_the_middle(void **state)
{
    struct packed packed;
    char text[256];

    (void)state;
    packed_init(&packed);
    add(&packed, "a");
    add(&packed, "c");
    assert_int_equal(packed_insert(&packed, packed_at(&packed, 1), BYTES("b")), 0);
    assert_int_equal(packed_insert(&packed, 0, BYTES("start")), 0);
    assert_string_equal(joined(&packed, text), "start,a,b,c");
    assert_int_equal(packed_replace(&packed, packed_at(&packed, 1), BYTES("longer")), 0);
    assert_int_equal(packed_replace(&packed, packed_at(&packed, 0), BYTES("")), 0);
    assert_int_equal(packed_replace(&packed, packed_at(&packed, 2), bytes_of(NULL, 0)), 0);
    assert_string_equal(joined(&packed, text), ",longer,,c");
    packed_remove(&packed, packed_at(&packed, 1), 2);
    assert_string_equal(joined(&packed, text), ",c");
    packed_remove(&packed, 0, 2);
    assert_int_equal(packed.count, 0);
    assert_int_equal(packed.len, 0);
    packed_deinit(&packed);
}

/* With a stride of two only fields are looked at, never values that look like one. */
static void test_find_heeds_first_and_stride(void **state)
{
    struct packed packed;

    (void)state;
    packed_init(&packed);
    assert_int_equal(packed_find(&packed, BYTES("x"), 0, 1), UINT32_MAX);
    add(&packed, "f1");
    add(&packed, "f2");
    add(&packed, "f2");
    add(&packed, "f1");
    assert_int_equal(packed_find(&packed, BYTES("f2"), 0, 2), packed_at(&packed, 2));
    assert_int_equal(packed_find(&packed, BYTES("f2"), 1, 2), packed_at(&packed, 1));
    assert_int_equal(packed_find(&packed, BYTES("f1"), 1, 1), packed_at(&packed, 3));
    assert_int_equal(packed_find(&packed, BYTES("f"), 0, 1), UINT32_MAX);
    assert_int_equal(packed_find(&packed, bytes_of(NULL, 0), 0, 1), UINT32_MAX);
    assert_int_equal(packed_find(&packed, BYTES("f1"), 4, 1), UINT32_MAX);
    packed_deinit(&packed);
}

/* Lengths around every size of their varint, as items and as replacements. */
static void test_lengths_of_any_size(void **state)
{
    static const size_t lens[] = {0, 1, 127, 128, 129, 16383, 16384, 2097151, 2097152};
    char *data = must_zalloc(2097152);
    struct packed packed;
    struct bytes item;

    (void)state;
    memset(data, 'x', 2097152);
    packed_init(&packed);
    for (size_t i = 0; i < ARRAY_COUNT(lens); i++)
        assert_int_equal(packed_append(&packed, bytes_of(data, lens[i])), 0);
    for (uint32_t i = 0; i < ARRAY_COUNT(lens); i++) {
        packed_get(&packed, packed_at(&packed, i), &item);
        assert_int_equal(item.len, lens[i]);
    }
    for (uint32_t i = 0; i < ARRAY_COUNT(lens); i++) {
        size_t len = lens[ARRAY_COUNT(lens) - 1 - i];

        assert_int_equal(packed_replace(&packed, packed_at(&packed, 3), bytes_of(data, len)), 0);
        packed_get(&packed, packed_at(&packed, 3), &item);
        assert_true(bytes_equal(item, bytes_of(data, len)));
        packed_get(&packed, packed_at(&packed, 4), &item);
        assert_int_equal(item.len, lens[4]);
    }
    packed_deinit(&packed);
    mem_free(data);
}

static void test_memory_is_given_back(void **state)
{
    struct packed packed;
    char text[256];

    (void)state;
    packed_init(&packed);
    for (int i = 0; i < 1000; i++)
        add(&packed, "0123456789");
    assert_true(packed_bytes(&packed) >= packed.len);
    assert_true(packed_bytes(&packed) <= packed.len + packed.len / 4);
    packed_remove(&packed, 0, 990);
    assert_true(packed_bytes(&packed) <= 256);
    packed_remove(&packed, 0, 9);
    assert_string_equal(joined(&packed, text), "0123456789");
    packed_deinit(&packed);
}

static void test_image_is_loaded(void **state)
{
    struct packed packed, copy;
    char text[256];

    (void)state;
    packed_init(&packed);
    add(&packed, "a");
    add(&packed, "");
    add(&packed, "bcd");
    assert_int_equal(packed_load(&copy, bytes_of(packed.data, packed.len)), 0);
    assert_int_equal(copy.count, 3);
    assert_string_equal(joined(&copy, text), "a,,bcd");
    packed_deinit(&copy);
    assert_int_equal(packed_load(&copy, bytes_of(NULL, 0)), 0);
    assert_int_equal(copy.count, 0);
    packed_deinit(&copy);
    packed_deinit(&packed);
}

/* Cut items, lengths past the end, lengths that are not the shortest form or over 32 bits. */
static void test_broken_images_are_refused(void **state)
{
    static const struct bytes broken[] = {
        {"\x02" "a", 2}, {"\x80", 1}, {"\x80\x00", 2}, {"\x81\x00" "a", 3}, {"\x01" "a\x05", 3},
        {"\xff\xff\xff\xff\x0f", 5}, {"\xff\xff\xff\xff\xff\x0f", 6}, {"\x80\x80\x80\x80\x80\x00", 6},
    };
    struct packed packed;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(broken); i++) {
        assert_int_equal(packed_load(&packed, broken[i]), ERR_CORRUPT);
        assert_null(packed.data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_items_come_back_in_order),
        cmocka_unit_test(test_change_in_the_middle),
        cmocka_unit_test(test_find_heeds_first_and_stride),
        cmocka_unit_test(test_lengths_of_any_size),
        cmocka_unit_test(test_memory_is_given_back),
        cmocka_unit_test(test_image_is_loaded),
        cmocka_unit_test(test_broken_images_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
