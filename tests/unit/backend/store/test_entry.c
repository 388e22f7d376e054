/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "backend/store/entry.h"
#include "common/base/mem.h"

static struct entry *compose(const struct entry_parts *parts)
{
    size_t size = entry_size_of(parts);
    struct entry *e = must_alloc(size);

    entry_compose(e, parts);
    assert_int_equal(entry_size(e), size);
    return e;
}

static void assert_same(const struct entry_parts *a, const struct entry_parts *b)
{
    assert_int_equal(a->address, b->address);
    assert_int_equal(a->lsn, b->lsn);
    assert_int_equal(a->expire_ms, b->expire_ms);
    assert_int_equal(a->mc_flags, b->mc_flags);
    assert_int_equal(a->type, b->type);
    assert_int_equal(a->db, b->db);
    assert_int_equal(a->is_cold, b->is_cold);
    assert_int_equal(a->is_main, b->is_main);
    assert_int_equal(a->access, b->access);
    assert_true(bytes_equal(a->key, b->key));
    assert_int_equal(a->value.len, b->value.len);
    if (!a->is_cold)
        assert_true(bytes_equal(a->value, b->value));
    assert_ptr_equal(a->object, b->object);
}

/* Every combination of what is optional, with keys on both sides of where the long length begins. */
static void test_parts_survive_composing(void **state)
{
    static char text[70000];
    static const size_t key_lens[] = {0, 1, 16, 31, 33, 254, 255, 256, STORE_KEY_MAX};
    char object;

    (void)state;
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (char)(i * 31 + i / 256);
    for (size_t k = 0; k < ARRAY_COUNT(key_lens); k++) {
        for (unsigned mix = 0; mix < 32; mix++) {
            struct entry_parts parts = {
                .address = 0x123456789abcdef0, .lsn = STORE_LSN_MAX - mix, .type = STORE_STRING,
                .db = (uint8_t)(mix % STORE_DBS), .access = (uint8_t)(mix & 3),
                .expire_ms = (mix & 1) ? 1700000000123 : 0, .mc_flags = (mix & 2) ? 0x3deadbeef : 0,
                .is_cold = (mix & 12) == 4, .is_main = (mix & 16) != 0,
                .key = bytes_of(text, key_lens[k]),
                .value = bytes_of(text + 1000, (mix & 8) ? 0 : STRING_INLINE_MAX - mix),
            }, again;
            struct entry *e;

            if ((mix & 12) == 8) {
                parts.type = STORE_ZSET;
                parts.object = (struct object *)(void *)&object;
            }
            e = compose(&parts);
            assert_int_equal(entry_is_cold(e), parts.is_cold);
            assert_int_equal(entry_is_object(e), parts.object != NULL);
            entry_parts_of(e, &again);
            assert_same(&parts, &again);
            mem_free(e);
        }
    }
}

static void test_hot_string_has_a_header_of_20_bytes(void **state)
{
    struct entry_parts parts = {
        .type = STORE_STRING, .key = BYTES("0123456789abcdef"), .value = BYTES("value")};

    (void)state;
    assert_int_equal(entry_size_of(&parts), 20 + 16 + 5);
    parts.is_cold = true;
    assert_int_equal(entry_size_of(&parts), 20 + 16);
}

/* Access count and LSN are changed in place; nothing around them may move. */
static void test_fields_change_alone(void **state)
{
    struct entry_parts parts = {
        .address = 7, .lsn = 1, .type = STORE_HASH, .db = 15, .key = BYTES("k"), .value = BYTES("v")};
    struct entry *e = compose(&parts);

    (void)state;
    for (uint8_t access = 0; access < 4; access++) {
        entry_access_set(e, access);
        assert_int_equal(entry_access(e), access);
        assert_int_equal(entry_db(e), 15);
    }
    entry_lsn_set(e, STORE_LSN_MAX);
    assert_int_equal(entry_lsn(e), STORE_LSN_MAX);
    assert_int_equal(entry_type(e), STORE_HASH);
    assert_int_equal(e->address, 7);
    assert_true(bytes_equal(entry_inline_value(e), BYTES("v")));
    mem_free(e);
}

static void test_length_of_large_cold_values_is_clipped(void **state)
{
    struct entry_parts parts = {.address = 1, .type = STORE_STRING, .is_cold = true,
                                .key = BYTES("k"), .value = bytes_of(NULL, STORE_VALUE_MAX)};
    struct entry *e = compose(&parts);

    (void)state;
    assert_int_equal(entry_value_len(e), ENTRY_VALUE_LEN_MAX);
    mem_free(e);
}

static void compose_in_child(void *arg)
{
    mem_free(compose(arg));
}

static void test_what_excludes_each_other(void **state)
{
    char object;
    struct entry_parts both = {.address = 1, .type = STORE_LIST, .is_cold = true,
                               .object = (struct object *)(void *)&object, .key = BYTES("k")};
    struct entry_parts hot_tombstone = {.address = 1, .type = STORE_NONE, .key = BYTES("k")};

    (void)state;
    assert_true(test_aborts(compose_in_child, &both));
    assert_true(test_aborts(compose_in_child, &hot_tombstone));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_survive_composing),
        cmocka_unit_test(test_hot_string_has_a_header_of_20_bytes),
        cmocka_unit_test(test_fields_change_alone),
        cmocka_unit_test(test_length_of_large_cold_values_is_clipped),
        cmocka_unit_test(test_what_excludes_each_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
