/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "common/base/outbuf.h"
#include "common/base/shared.h"

#include <string.h>

/* Everything in the chain, as one run of bytes. */
static size_t gather(const struct outbuf *out, char *to, size_t cap)
{
    struct iovec slices[256];
    int count = outbuf_slices(out, slices, 256);
    size_t len = 0;

    for (int i = 0; i < count; i++) {
        assert_true(len + slices[i].iov_len <= cap);
        memcpy(to + len, slices[i].iov_base, slices[i].iov_len);
        len += slices[i].iov_len;
    }
    return len;
}

/* Against a plain array: appends of all sizes, consumed in pieces of all sizes. */
static void test_bytes_come_out_as_they_went_in(void **state)
{
    static char model[400000], seen[400000];
    struct chunk_pools pools;
    struct outbuf out = {0};
    size_t head = 0, tail = 0;

    (void)state;
    chunk_pools_init(&pools);
    for (uint32_t i = 0; i < 900; i++) {
        size_t size = i % 7 == 0 ? i * 5 : i % 60, eat;

        for (size_t k = 0; k < size; k++)
            model[tail + k] = (char)(tail + k * 31);
        assert_true(outbuf_append(&pools, &out, model + tail, size));
        tail += size;
        assert_int_equal(out.len, tail - head);
        eat = i % 3 == 0 ? (tail - head) / 2 : i % 50;
        eat = eat < tail - head ? eat : tail - head;
        outbuf_consume(&pools, &out, eat);
        head += eat;
        if (i % 20 == 0) {
            assert_int_equal(gather(&out, seen, sizeof(seen)), tail - head);
            assert_memory_equal(seen, model + head, tail - head);
        }
    }
    outbuf_consume(&pools, &out, out.len);
    assert_null(out.first);
    assert_int_equal(chunk_pools_bytes(&pools), 0);
    chunk_pools_deinit(&pools);
}

static void test_splice_moves_all_behind_all(void **state)
{
    struct chunk_pools pools;
    struct outbuf a = {0}, b = {0}, empty = {0};
    char seen[3000];

    (void)state;
    chunk_pools_init(&pools);
    assert_true(outbuf_append(&pools, &b, "world", 5));
    outbuf_splice(&a, &b); /* to an empty one */
    assert_null(b.first);
    assert_true(outbuf_append(&pools, &b, "!", 1));
    outbuf_splice(&a, &b);
    outbuf_splice(&a, &empty);
    assert_true(outbuf_append(&pools, &a, "?", 1)); /* still open at its end */
    assert_true(outbuf_append(&pools, &a, NULL, 0));
    assert_int_equal(gather(&a, seen, sizeof(seen)), 7);
    assert_memory_equal(seen, "world!?", 7);
    assert_int_equal(a.len, 7);
    outbuf_clear(&pools, &a);
    assert_true(outbuf_is_empty(&a));
    chunk_pools_deinit(&pools);
}

static void test_reserved_bytes_count_when_they_are_committed(void **state)
{
    struct chunk_pools pools;
    struct outbuf out = {0};
    char *room, seen[8];

    (void)state;
    chunk_pools_init(&pools);
    room = outbuf_reserve(&pools, &out, 100);
    assert_non_null(room);
    assert_true(outbuf_is_empty(&out));
    memcpy(room, "abc", 3);
    outbuf_commit(&out, 3);
    assert_int_equal(out.len, 3);
    assert_int_equal(gather(&out, seen, sizeof(seen)), 3);
    assert_memory_equal(seen, "abc", 3);
    outbuf_clear(&pools, &out);
    chunk_pools_deinit(&pools);
}

/* At every length, over small and large chunks: what is left is the front, and appends go on behind it. */
static void test_truncate_keeps_the_front(void **state)
{
    static char model[40000], seen[40010];
    struct chunk_pools pools;

    (void)state;
    for (size_t k = 0; k < sizeof(model); k++)
        model[k] = (char)(k * 7);
    chunk_pools_init(&pools);
    for (size_t len = 0; len <= sizeof(model); len += len < 2100 ? 1 : 997) {
        struct outbuf out = {0};

        assert_true(outbuf_append(&pools, &out, model, 500));
        assert_true(outbuf_append(&pools, &out, model + 500, sizeof(model) - 500));
        outbuf_truncate(&pools, &out, len);
        assert_int_equal(out.len, len);
        assert_true(outbuf_append(&pools, &out, "end", 3));
        assert_int_equal(gather(&out, seen, sizeof(seen)), len + 3);
        assert_memory_equal(seen, model, len);
        assert_memory_equal(seen + len, "end", 3);
        outbuf_clear(&pools, &out);
    }
    chunk_pools_deinit(&pools);
}

#define SHARED_SIZE 30000u

/* Between bytes of its own a buffer refers to shared ones, holds them for as long as it does, and counts them as if they
 * were copies. Cut anywhere, consumed in pieces, appended to. */
static void test_shared_bytes_are_held_until_they_are_sent(void **state)
{
    static char model[2 * SHARED_SIZE + 20], seen[sizeof(model)];
    struct chunk_pools pools;
    char *shared = shared_alloc(SHARED_SIZE);

    (void)state;
    assert_non_null(shared);
    for (size_t k = 0; k < SHARED_SIZE; k++)
        shared[k] = (char)(k * 13);
    memcpy(model, "head", 4);
    memcpy(model + 4, shared, SHARED_SIZE);
    memcpy(model + 4 + SHARED_SIZE, "\r\n", 2);
    memcpy(model + 6 + SHARED_SIZE, shared, SHARED_SIZE);
    chunk_pools_init(&pools);
    for (size_t cut = 0; cut <= 6 + 2 * SHARED_SIZE; cut += cut < 10 || cut % 5000 > 4990 ? 1 : 331) {
        struct outbuf out = {0};
        size_t eat = cut / 3;

        assert_true(outbuf_append(&pools, &out, "head", 4));
        assert_true(outbuf_append_shared(&pools, &out, shared, SHARED_SIZE));
        assert_true(outbuf_append(&pools, &out, "\r\n", 2));
        assert_true(outbuf_append_shared(&pools, &out, shared, SHARED_SIZE));
        assert_false(shared_is_sole(shared));
        assert_true(chunk_pools_bytes(&pools) >= 2 * SHARED_SIZE);
        assert_true(chunk_pools_bytes(&pools) <= 2 * SHARED_SIZE + 4 * CHUNK_LARGE_SIZE);
        outbuf_truncate(&pools, &out, cut);
        assert_int_equal(out.len, cut);
        outbuf_consume(&pools, &out, eat);
        assert_true(outbuf_append(&pools, &out, "end", 3));
        assert_int_equal(gather(&out, seen, sizeof(seen)), cut - eat + 3);
        assert_memory_equal(seen, model + eat, cut - eat);
        assert_memory_equal(seen + cut - eat, "end", 3);
        outbuf_clear(&pools, &out);
        assert_true(shared_is_sole(shared));
        assert_int_equal(chunk_pools_bytes(&pools), 0);
    }
    chunk_pools_deinit(&pools);
    shared_drop(shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_truncate_keeps_the_front),
        cmocka_unit_test(test_bytes_come_out_as_they_went_in),
        cmocka_unit_test(test_splice_moves_all_behind_all),
        cmocka_unit_test(test_reserved_bytes_count_when_they_are_committed),
        cmocka_unit_test(test_shared_bytes_are_held_until_they_are_sent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
