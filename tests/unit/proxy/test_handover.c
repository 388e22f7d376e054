/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "common/base/mem.h"
#include "common/proto/proto.h"
#include "proxy/handover.h"

#include <string.h>

static void encode(struct buffer *out)
{
    struct handover handover = {.dialect = DIALECT_RESP3,
                                .db = 5,
                                .is_authenticated = true,
                                .swallow = 0x123456789ull,
                                .client_id = 0xfedcba9876543210ull,
                                .session = BYTES("session"),
                                .input = BYTES("*1\r\n$4\r\nPI")};

    assert_int_equal(handover_blob_encode(&handover, out), 0);
}

static void test_a_client_comes_out_as_it_went_in(void **state)
{
    struct buffer blob = {0};
    struct handover out;

    (void)state;
    encode(&blob);
    assert_int_equal(handover_blob_decode(buffer_bytes(&blob), &out), 0);
    assert_int_equal(out.dialect, DIALECT_RESP3);
    assert_int_equal(out.db, 5);
    assert_true(out.is_authenticated);
    assert_true(out.swallow == 0x123456789ull);
    assert_true(out.client_id == 0xfedcba9876543210ull);
    assert_true(bytes_equal(out.session, BYTES("session")));
    assert_true(bytes_equal(out.input, BYTES("*1\r\n$4\r\nPI")));
    buffer_deinit(&blob);
}

/* From a process of another version, or from anybody: cut at each byte, and one byte too long. */
static void test_another_length_is_refused(void **state)
{
    struct buffer blob = {0};
    struct handover out;

    (void)state;
    encode(&blob);
    for (size_t cut = 0; cut < blob.len; cut++) {
        /* A block of just that size: the sanitizer sees a byte too far. */
        char *copy = must_alloc(cut + (cut == 0));

        memcpy(copy, blob.data, cut);
        assert_int_equal(handover_blob_decode(bytes_of(copy, cut), &out), ERR_CORRUPT);
        mem_free(copy);
    }
    buffer_append(&blob, "", 1);
    assert_int_equal(handover_blob_decode(buffer_bytes(&blob), &out), ERR_CORRUPT);
    buffer_deinit(&blob);
}

static void test_another_magic_version_or_dialect_is_refused(void **state)
{
    static const struct {
        size_t off;
        char value;
    } changes[] = {{0, 'X'}, {4, HANDOVER_VERSION + 1}, {6, DIALECT_COUNT}, {8, 4}, {9, 1}, {8, 1}};
    struct handover out;

    (void)state;
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        struct buffer blob = {0};

        encode(&blob);
        blob.data[changes[i].off] = changes[i].value;
        assert_int_equal(handover_blob_decode(buffer_bytes(&blob), &out), ERR_CORRUPT);
        buffer_deinit(&blob);
    }
}

static void test_what_is_too_long_stays(void **state)
{
    char *data = must_zalloc(HANDOVER_INPUT_MAX + 1);
    struct handover handover = {.input = bytes_of(data, HANDOVER_INPUT_MAX + 1)};
    struct buffer blob = {0};

    (void)state;
    assert_int_equal(handover_blob_encode(&handover, &blob), ERR_FULL);
    buffer_deinit(&blob);
    mem_free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_client_comes_out_as_it_went_in),
        cmocka_unit_test(test_another_length_is_refused),
        cmocka_unit_test(test_another_magic_version_or_dialect_is_refused),
        cmocka_unit_test(test_what_is_too_long_stays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
