/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/store/record.h"
#include "backend/store/format_private.h"
#include "common/base/mem.h"
#include "tests/unit/test.h"

static struct record sample(unsigned flags, size_t key_len, size_t value_len, char *bytes)
{
    struct record record = {
        .type = RECORD_SET, .db = 3, .value_type = STORE_STRING, .slot = 12182, .epoch = 7,
        .lsn = 0x123456789abcull,
        .key = bytes_of(bytes, key_len), .value = bytes_of(bytes + key_len, value_len),
    };

    for (size_t i = 0; i < key_len + value_len; i++)
        bytes[i] = (char)(i * 37 + 11);
    record.expire_ms = (flags & RECORD_HAS_EXPIRE) != 0 ? 1700000000000ull : 0;
    record.mc_flags = (flags & RECORD_HAS_MC_FLAGS) != 0 ? 0x2deadbeefu : 0;
    record.base_lsn = (flags & RECORD_HAS_BASE) != 0 ? 99 : 0;
    record.has_request = (flags & RECORD_HAS_REQUEST) != 0;
    if (record.has_request)
        memset(record.request, 0x5a, sizeof(record.request));
    return record;
}

static void assert_same(const struct record *a, const struct record *b)
{
    assert_int_equal(a->type, b->type);
    assert_int_equal(a->db, b->db);
    assert_int_equal(a->value_type, b->value_type);
    assert_int_equal(a->slot, b->slot);
    assert_int_equal(a->epoch, b->epoch);
    assert_int_equal(a->lsn, b->lsn);
    assert_int_equal(a->expire_ms, b->expire_ms);
    assert_int_equal(a->mc_flags, b->mc_flags);
    assert_int_equal(a->base_lsn, b->base_lsn);
    assert_int_equal(a->has_request, b->has_request);
    assert_memory_equal(a->request, b->request, sizeof(a->request));
    assert_true(bytes_equal(a->key, b->key));
    assert_true(bytes_equal(a->value, b->value));
}

/* Every set of options, keys and values of every size around the alignment: decoded as encoded. */
static void test_decode_gives_back_what_was_encoded(void **state)
{
    char bytes[128], out[512];

    (void)state;
    for (unsigned flags = 0; flags < 16; flags++) {
        for (size_t key_len = 0; key_len < 36; key_len++) {
            struct record record = sample(flags, key_len, 67 - key_len % 19, bytes), back;
            size_t size = record_size(&record);

            memset(out, 0xee, sizeof(out));
            record_encode(&record, out);
            assert_int_equal(size % RECORD_ALIGN, 0);
            assert_int_equal((unsigned char)out[size], 0xee); /* not a byte more */
            assert_int_equal(record_size_announced(bytes_of(out, RECORD_HEADER_SIZE)), size);
            assert_int_equal(record_decode(bytes_of(out, sizeof(out)), &back), size);
            assert_same(&record, &back);
        }
    }
}

static void test_every_flipped_bit_is_refused(void **state)
{
    char bytes[64], out[256];
    struct record record = sample(15, 13, 21, bytes), back;
    size_t size = record_size(&record);

    (void)state;
    record_encode(&record, out);
    for (size_t bit = 0; bit < size * 8; bit++) {
        out[bit / 8] = (char)(out[bit / 8] ^ (1 << bit % 8));
        assert_int_equal(record_decode(bytes_of(out, size), &back), 0);
        out[bit / 8] = (char)(out[bit / 8] ^ (1 << bit % 8));
    }
    assert_int_equal(record_decode(bytes_of(out, size), &back), size);
}

static void test_every_cut_is_refused(void **state)
{
    char bytes[64], out[256];
    struct record record = sample(5, 13, 21, bytes), back;
    size_t size = record_size(&record);

    (void)state;
    record_encode(&record, out);
    for (size_t cut = 0; cut < size; cut++) {
        char *exact = must_alloc(cut + 1); /* a read behind it is seen by the sanitizer */

        memcpy(exact, out, cut);
        assert_int_equal(record_decode(bytes_of(exact, cut), &back), 0);
        mem_free(exact);
    }
}

/* A correct checksum over an option that no encoder writes: two encodings of one record are one too many. */
static void test_empty_options_are_refused(void **state)
{
    char bytes[64], out[256];
    struct record record = sample(RECORD_HAS_EXPIRE, 5, 5, bytes), back;
    size_t size = RECORD_HEADER_SIZE + 8 + 10;

    (void)state;
    record_encode(&record, out);
    put_u64(out + RECORD_HEADER_SIZE, 0);
    put_u32(out, crc32c(0, out + 4, size - 4));
    assert_int_equal(record_decode(bytes_of(out, sizeof(out)), &back), 0);
}

/* RFC 3720, B.4, and the check value of the catalogue. */
static void test_crc32c_has_the_published_values(void **state)
{
    char zeros[32] = {0}, ones[32], rising[32];

    (void)state;
    memset(ones, 0xff, sizeof(ones));
    for (int i = 0; i < 32; i++)
        rising[i] = (char)i;
    assert_int_equal(crc32c(0, zeros, 32), 0x8a9136aau);
    assert_int_equal(crc32c(0, ones, 32), 0x62a8ab43u);
    assert_int_equal(crc32c(0, rising, 32), 0x46dd794eu);
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283u);
    assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283u);
    for (size_t size = 0; size <= 32; size++)
        assert_int_equal(crc32c(7, rising, size), crc32c_portable(7, rising, size));
}

/* Redis 7.0.15's CLUSTER KEYSLOT. */
static void test_key_slot_is_redis_clusters(void **state)
{
    (void)state;
    assert_int_equal(key_slot(BYTES("foo")), 12182);
    assert_int_equal(key_slot(BYTES("bar")), 5061);
    assert_int_equal(key_slot(BYTES("123456789")), 12739);
    assert_int_equal(key_slot(BYTES("")), 0);
    assert_int_equal(key_slot(BYTES("{foo}.x")), key_slot(BYTES("foo")));
    assert_int_equal(key_slot(BYTES("a{foo}{bar}")), key_slot(BYTES("foo")));
    assert_int_not_equal(key_slot(BYTES("{}foo")), key_slot(BYTES("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode_gives_back_what_was_encoded),
        cmocka_unit_test(test_every_flipped_bit_is_refused),
        cmocka_unit_test(test_every_cut_is_refused),
        cmocka_unit_test(test_empty_options_are_refused),
        cmocka_unit_test(test_crc32c_has_the_published_values),
        cmocka_unit_test(test_key_slot_is_redis_clusters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
