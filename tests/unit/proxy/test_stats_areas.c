/* SPDX-License-Identifier: Apache-2.0 */
/* The plan of a worker's segment, and what lies in it beside counters: slow log, big keys, hot keys. */
#include "tests/unit/test.h"

#include "common/base/mem.h"
#include "proxy/hotkeys.h"
#include "proxy/slowlog.h"
#include "proxy/stats_layout.h"

#include <stdio.h>

static struct conf *conf_of(uint32_t pools, uint32_t servers)
{
    size_t cap = 256 + (size_t)pools * (200 + (size_t)servers * 40), len = 0;
    char *text = must_alloc(cap);
    struct conf_error error;
    struct conf *conf = NULL;

    for (uint32_t p = 0; p < pools; p++) {
        len += (size_t)snprintf(text + len, cap - len, "pool%u:\n  listen: 127.0.0.1:%u\n  servers:\n", p, 1000 + p);
        for (uint32_t s = 0; s < servers; s++)
            len += (size_t)snprintf(text + len, cap - len, "  - 10.0.%u.%u:11211:1\n", s / 250, s % 250);
    }
    assert_int_equal(conf_parse("test", bytes_of(text, len), &conf, &error), 0);
    mem_free(text);
    return conf;
}

/* Everything that the plan promises has room: pools, servers, and the commands to come. */
static void test_the_plan_has_room_for_all(void **state)
{
    struct conf *conf = conf_of(20, 30);
    struct stats_plan plan;
    struct stats_segment segment;
    struct stats_schemas schemas;
    void *memory;
    char name[24];

    (void)state;
    assert_int_equal(stats_plan(conf, &plan), 0);
    assert_true(plan.has_commands && plan.has_pool_histograms && plan.has_server_histograms);
    memory = must_zalloc(plan.size);
    stats_open(&segment, memory, plan.size, false);
    stats_schemas_add(&segment, &plan, &schemas);
    assert_non_null(stats_group_add(&segment, schemas.process, BYTES_EMPTY, BYTES_EMPTY));
    for (uint32_t p = 0; p < conf->pools_count; p++) {
        struct bytes pool = bytes_of_string(conf->pools[p].name);

        assert_non_null(stats_group_add(&segment, schemas.pool, pool, BYTES_EMPTY));
        for (uint32_t s = 0; s < conf->pools[p].servers_count; s++)
            assert_non_null(stats_group_add(&segment, schemas.server, pool,
                                            bytes_of_string(conf->pools[p].servers[s].name)));
    }
    for (uint32_t i = 0; i < STATS_DYNAMIC_MAX; i++) {
        snprintf(name, sizeof(name), "command%u", i);
        assert_non_null(stats_group_add(&segment, schemas.command, BYTES("pool0"), bytes_of_string(name)));
    }
    stats_close(&segment);
    mem_free(memory);
    conf_destroy(&conf);
}

/* Large configurations lose histograms, never counters; beyond that they are refused. */
static void test_large_configurations_lose_histograms_first(void **state)
{
    static const struct { uint32_t pools, servers; bool of_servers, of_commands, of_pools; } cases[] = {
        {10, 100, true, true, true},
        {10, 900, false, true, true},
        {1700, 8, false, false, true},
        {4000, 6, false, false, false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct conf *conf = conf_of(cases[i].pools, cases[i].servers);
        struct stats_plan plan;

        assert_int_equal(stats_plan(conf, &plan), 0);
        assert_true(plan.size <= STATS_SEGMENT_MAX);
        assert_int_equal(plan.has_server_histograms, cases[i].of_servers);
        assert_int_equal(plan.has_commands, cases[i].of_commands);
        assert_int_equal(plan.has_pool_histograms, cases[i].of_pools);
        conf_destroy(&conf);
    }
}

static struct stats_slowlog *slowlog_create(uint32_t entries)
{
    struct stats_slowlog *slowlog = must_zalloc(sizeof(*slowlog) + entries * sizeof(slowlog->entries[0]));

    slowlog->entries_max = entries;
    return slowlog;
}

static void slow_set(struct stats_slow *slow, uint64_t number)
{
    memset(slow, 0, sizeof(*slow));
    slow->at_us = number;
    stats_key_set(&slow->key, BYTES("key"));
    stats_text_set(slow->command, sizeof(slow->command), BYTES("get"));
}

static void test_the_slow_log_keeps_the_latest(void **state)
{
    struct stats_slowlog *slowlog = slowlog_create(4);
    struct stats_slow slow, got;

    (void)state;
    assert_false(slowlog_get(slowlog, 0, &got));
    for (uint64_t i = 0; i < 10; i++) {
        slow_set(&slow, i);
        slowlog_add(slowlog, &slow);
    }
    for (uint64_t i = 0; i < 12; i++) {
        assert_int_equal(slowlog_get(slowlog, i, &got), i >= 6 && i < 10);
        if (i >= 6 && i < 10) {
            assert_int_equal(got.at_us, i);
            assert_string_equal(got.command, "get");
        }
    }
    /* One that is being written is not there. */
    slowlog->entries[9 % 4].sequence++;
    assert_false(slowlog_get(slowlog, 9, &got));
    mem_free(slowlog);
}

static void test_slow_logs_merge(void **state)
{
    struct stats_slowlog *into = slowlog_create(4), *from = slowlog_create(3);
    struct stats_slow slow;

    (void)state;
    for (uint64_t i = 0; i < 5; i++) {
        slow_set(&slow, 100 + i);
        slowlog_add(from, &slow);
    }
    slow_set(&slow, 1);
    slowlog_add(into, &slow);
    slowlog_merge(into, from);
    assert_int_equal(into->count, 4);
    for (uint64_t i = 0; i < 4; i++) {
        assert_true(slowlog_get(into, i, &slow));
        assert_int_equal(slow.at_us, i == 0 ? 1 : 101 + i);
    }
    mem_free(into);
    mem_free(from);
}

/* Text that nobody ended, of a worker that died in the middle, is ended by the reader. */
static void test_text_always_ends(void **state)
{
    struct stats_slowlog *slowlog = slowlog_create(1);
    struct stats_slow slow;

    (void)state;
    slow_set(&slow, 1);
    memset(slow.pool, 'x', sizeof(slow.pool));
    memset(slow.client, 'x', sizeof(slow.client));
    slowlog_add(slowlog, &slow);
    assert_true(slowlog_get(slowlog, 0, &slow));
    assert_int_equal(strlen(slow.pool), STATS_TEXT_MAX - 1);
    assert_int_equal(strlen(slow.client), STATS_TEXT_MAX - 1);
    mem_free(slowlog);
}

static void big_add(struct stats_bigkeys *bigkeys, uint64_t hash, uint64_t size, uint64_t at_us)
{
    struct stats_big big = {.hash = hash, .size = size, .at_us = at_us, .count = 1};

    bigkeys_add(bigkeys, &big);
}

static void test_big_keys_count_and_forget_the_oldest(void **state)
{
    struct stats_bigkeys *bigkeys = must_zalloc(sizeof(*bigkeys));
    uint32_t found = 0;

    (void)state;
    big_add(bigkeys, 7, 100, 1000);
    big_add(bigkeys, 7, 300, 1001);
    big_add(bigkeys, 7, 200, 1002);
    assert_int_equal(bigkeys->entries[0].count, 3);
    assert_int_equal(bigkeys->entries[0].size, 300);
    assert_int_equal(bigkeys->entries[0].at_us, 1002);
    /* As many newer ones as there is room for: the first has to go, and only it. */
    for (uint64_t i = 0; i < STATS_BIGKEYS_MAX; i++)
        big_add(bigkeys, 1000 + i, 1, 2000 + i);
    for (uint32_t i = 0; i < STATS_BIGKEYS_MAX; i++) {
        assert_int_not_equal(bigkeys->entries[i].hash, 7);
        found += bigkeys->entries[i].hash >= 1000;
    }
    assert_int_equal(found, STATS_BIGKEYS_MAX);
    mem_free(bigkeys);
}

static struct stats_hotkeys *hotkeys_create(uint32_t entries)
{
    struct stats_hotkeys *hotkeys = must_zalloc(sizeof(*hotkeys) + entries * sizeof(hotkeys->entries[0]));

    hotkeys->entries_max = entries;
    hotkeys->sample = 1;
    return hotkeys;
}

static uint64_t hot_count(const struct stats_hotkeys *hotkeys, const char *key)
{
    uint64_t hash = hotkeys_hash("alpha", bytes_of_string(key));

    for (uint64_t i = 0; i < hotkeys->entries_max; i++)
        if (hotkeys->entries[i].hash == hash)
            return hotkeys->entries[i].count;
    return 0;
}

/* A key with more than one part in `entries` of all is in the table, whatever else goes by; its count is
 * never too low, and too high by its error at most. */
static void test_space_saving_keeps_the_hot(void **state)
{
    struct stats_hotkeys *hotkeys = hotkeys_create(8), *copy;
    char name[24];

    (void)state;
    for (uint32_t i = 0; i < 10000; i++) {
        snprintf(name, sizeof(name), "cold%u", i);
        hotkeys_add(hotkeys, "alpha", bytes_of_string(name));
        if (i % 3 == 0)
            hotkeys_add(hotkeys, "alpha", BYTES("hot"));
    }
    assert_int_equal(hotkeys->total, 10000 + 3334);
    assert_in_range(hot_count(hotkeys, "hot"), 3334, 3334 + 2000);
    for (uint64_t i = 0; i < 8; i++)
        if (hotkeys->entries[i].hash == hotkeys_hash("alpha", BYTES("hot")))
            assert_true(hotkeys->entries[i].count - hotkeys->entries[i].error <= 3334);
    copy = hotkeys_copy(hotkeys);
    assert_non_null(copy);
    assert_int_equal(hot_count(copy, "hot"), hot_count(hotkeys, "hot"));
    mem_free(copy);
    hotkeys->sequence++; /* its writer died */
    assert_null(hotkeys_copy(hotkeys));
    mem_free(hotkeys);
}

static void test_heat_fades(void **state)
{
    struct stats_hotkeys *hotkeys = hotkeys_create(4);

    (void)state;
    hotkeys_fade(hotkeys, 1000);
    for (int i = 0; i < 100; i++)
        hotkeys_add(hotkeys, "alpha", BYTES("k"));
    hotkeys_fade(hotkeys, 1059);
    assert_int_equal(hot_count(hotkeys, "k"), 100);
    hotkeys_fade(hotkeys, 1060);
    assert_int_equal(hot_count(hotkeys, "k"), 50);
    assert_int_equal(hotkeys->total, 50);
    mem_free(hotkeys);
}

/* The same key of two pools is two keys; long keys differ in their tails too. */
static void test_hashes_tell_keys_apart(void **state)
{
    char a[3000], b[3000];

    (void)state;
    memset(a, 'k', sizeof(a));
    memcpy(b, a, sizeof(b));
    b[sizeof(b) - 1] = 'x';
    assert_true(hotkeys_hash("alpha", BYTES("k")) != hotkeys_hash("beta", BYTES("k")));
    assert_true(hotkeys_hash("a", bytes_of(a, sizeof(a))) != hotkeys_hash("a", bytes_of(b, sizeof(b))));
    assert_true(hotkeys_hash("a", bytes_of(a, 2999)) != hotkeys_hash("a", bytes_of(a, 3000)));
    assert_true(hotkeys_hash("ab", BYTES("c")) != hotkeys_hash("a", BYTES("bc")));
}

/* A retired worker's lists are in the base, also when the base has been there for several sizes. */
static void test_areas_fold_into_the_base(void **state)
{
    struct conf *conf = conf_of(1, 1);
    struct stats_segment base, worker;
    uint64_t *base_memory = must_zalloc(STATS_SEGMENT_MAX);

    (void)state;
    stats_open(&base, base_memory, STATS_SEGMENT_MAX, false);
    for (uint32_t size = 4; size <= 6; size += 2) {
        struct stats_schemas schemas;
        struct stats_plan plan;
        struct stats_slow slow;
        struct stats_slowlog *slowlog;
        uint64_t *process;
        void *memory;

        conf->process.slowlog_entries = size;
        assert_int_equal(stats_plan(conf, &plan), 0);
        memory = must_zalloc(plan.size);
        stats_open(&worker, memory, plan.size, false);
        stats_schemas_add(&worker, &plan, &schemas);
        process = stats_group_add(&worker, schemas.process, BYTES_EMPTY, BYTES_EMPTY);
        slowlog = (struct stats_slowlog *)(void *)(process + schemas.slowlog);
        slowlog->entries_max = size;
        ((struct stats_bigkeys *)(void *)(process + schemas.bigkeys))->entries_max = STATS_BIGKEYS_MAX;
        big_add((struct stats_bigkeys *)(void *)(process + schemas.bigkeys), size, 100, size);
        slow_set(&slow, size);
        slowlog_add(slowlog, &slow);
        stats_merge(&base, memory, plan.size, STATS_MERGE_CREATE | STATS_MERGE_EXACT);
        stats_fold_areas(base_memory, STATS_SEGMENT_MAX, memory, plan.size);
        stats_close(&worker);
        mem_free(memory);
    }
    {
        struct stats_cursor cursor;
        const struct stats_slowlog *slowlog;
        const struct stats_bigkeys *bigkeys;
        uint64_t sum = 0;

        stats_walk(&cursor, base_memory, STATS_SEGMENT_MAX);
        while ((slowlog = stats_next_slowlog(&cursor)) != NULL)
            sum += slowlog->count * slowlog->entries_max;
        assert_int_equal(sum, 4 + 6);
        stats_walk(&cursor, base_memory, STATS_SEGMENT_MAX);
        bigkeys = stats_next_bigkeys(&cursor);
        assert_non_null(bigkeys);
        assert_int_equal(bigkeys->entries[0].hash + bigkeys->entries[1].hash, 4 + 6);
    }
    stats_close(&base);
    mem_free(base_memory);
    conf_destroy(&conf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_plan_has_room_for_all),
        cmocka_unit_test(test_large_configurations_lose_histograms_first),
        cmocka_unit_test(test_the_slow_log_keeps_the_latest),
        cmocka_unit_test(test_slow_logs_merge),
        cmocka_unit_test(test_text_always_ends),
        cmocka_unit_test(test_big_keys_count_and_forget_the_oldest),
        cmocka_unit_test(test_space_saving_keeps_the_hot),
        cmocka_unit_test(test_heat_fades),
        cmocka_unit_test(test_hashes_tell_keys_apart),
        cmocka_unit_test(test_areas_fold_into_the_base),
    };

    return cmocka_run_group_tests_name("stats_areas", tests, NULL, NULL);
}
