/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "backend/store/expiry.h"
#include "backend/store/slab.h"
#include "common/base/mem.h"

#include <stdio.h>

struct shard {
    struct index *index;
    struct slab *slab;
    struct expiry expiry;
    uint64_t now_ms, expiring, expired;
    uint64_t looked_at_live; /* calls for keys that are not over: must stay 0 */
};

static void shard_init(struct shard *shard)
{
    *shard = (struct shard){.now_ms = 1000000};
    assert_int_equal(index_create(3, NULL, &shard->index), 0);
    assert_int_equal(slab_create(NULL, false, &shard->slab), 0);
    expiry_init(&shard->expiry);
}

static void shard_deinit(struct shard *shard)
{
    index_destroy(&shard->index);
    slab_destroy(&shard->slab);
}

static void key_add(struct shard *shard, uint32_t number, uint64_t expire_ms)
{
    char room[16];
    struct entry_parts parts = {
        .type = STORE_STRING, .expire_ms = expire_ms,
        .key = bytes_of(room, (size_t)snprintf(room, sizeof(room), "%u", number))};
    struct entry *e = slab_get(shard->slab, entry_size_of(&parts));

    assert_non_null(e);
    entry_compose(e, &parts);
    assert_int_equal(index_insert(shard->index, index_hash(shard->index, 0, parts.key), e), 0);
    shard->expiring += expire_ms != 0;
}

static void each_expired(void *arg, struct entry *e)
{
    struct shard *shard = arg;

    shard->looked_at_live += entry_expire_ms(e) == 0 || entry_expire_ms(e) > shard->now_ms;
    index_remove(shard->index, index_hash(shard->index, 0, entry_key(e)), e);
    slab_put(shard->slab, e, entry_size(e));
    shard->expiring--;
    shard->expired++;
}

static uint32_t work(struct shard *shard, uint32_t budget)
{
    return expiry_work(&shard->expiry, shard->index, shard->now_ms, shard->expiring, budget,
                       each_expired, shard);
}

/* 10,000 keys are over at once among 20,000 that live and 20,000 that never expire. */
static void test_all_that_is_over_goes_and_nothing_else(void **state)
{
    struct shard shard;
    int calls = 0;

    (void)state;
    shard_init(&shard);
    for (uint32_t i = 0; i < 50000; i++)
        key_add(&shard, i, i % 5 == 0 ? 900000 : i % 5 < 3 ? 2000000 : 0);
    for (; shard.expired < 10000; calls++) {
        assert_true(calls < 1000);
        MAYBE(work(&shard, 2000));
    }
    assert_int_equal(index_count(shard.index), 40000);
    assert_int_equal(shard.looked_at_live, 0);
    assert_true(calls < 60); /* 50,000 entries by up to 2,000 a call */
    shard_deinit(&shard);
}

static void test_pace_follows_the_need_within_the_budget(void **state)
{
    struct shard shard;

    (void)state;
    shard_init(&shard);
    for (uint32_t i = 0; i < 100000; i++)
        key_add(&shard, i, 2000000);
    for (int i = 0; i < 100; i++)
        assert_int_equal(work(&shard, 1000), 0);
    assert_int_equal(shard.expiry.pace, EXPIRY_PACE_MIN);
    shard.now_ms = 2000000;
    for (int i = 0; i < 20; i++)
        assert_true(work(&shard, 1000) <= 1000 + 32);
    assert_int_equal(shard.expiry.pace, 1000);
    shard_deinit(&shard);
}

/* A third is over: the estimate is near that after a stretch of the index, and sinks to little when a round is
 * done. */
static void test_estimate_is_near_the_truth(void **state)
{
    struct shard shard;
    uint64_t estimate;

    (void)state;
    shard_init(&shard);
    for (uint32_t i = 0; i < 90000; i++)
        key_add(&shard, i, i % 3 == 0 ? 900000 : 2000000);
    while (shard.expired < 2000)
        MAYBE(work(&shard, 500));
    estimate = expiry_estimate(&shard.expiry, shard.expiring);
    assert_true(estimate > 28000 * 8 / 10 && estimate < 28000 * 12 / 10);
    while (shard.expired < 30000)
        MAYBE(work(&shard, 2000));
    for (int i = 0; i < 500; i++)
        MAYBE(work(&shard, 2000));
    assert_true(expiry_estimate(&shard.expiry, shard.expiring) < 600);
    shard_deinit(&shard);
}

static void test_without_expiring_keys_nothing_is_looked_at(void **state)
{
    struct shard shard;

    (void)state;
    shard_init(&shard);
    for (uint32_t i = 0; i < 1000; i++)
        key_add(&shard, i, 0);
    assert_int_equal(work(&shard, 100000), 0);
    assert_int_equal(shard.expiry.hand, 0);
    assert_int_equal(expiry_estimate(&shard.expiry, shard.expiring), 0);
    shard_deinit(&shard);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_that_is_over_goes_and_nothing_else),
        cmocka_unit_test(test_pace_follows_the_need_within_the_budget),
        cmocka_unit_test(test_estimate_is_near_the_truth),
        cmocka_unit_test(test_without_expiring_keys_nothing_is_looked_at),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
