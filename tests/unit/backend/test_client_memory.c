/* SPDX-License-Identifier: Apache-2.0 */
/* What clients do not take, or have not ended to say, is memory, too. */
#include "tests/unit/backend/node_test.h"

#include "backend/cmd/engine.h"
#include "backend/store/store.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <stdlib.h>

static struct world w;
static struct client admin;

static int setup(void **state)
{
    (void)state;
    world_start(&w, STORE_FSYNC_EVERYSEC);
    join(&w, &admin);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    client_free(&admin);
    world_end(&w);
    return 0;
}

static void ask(const char *command, const char *reply)
{
    say(&admin, command);
    sim_run_for(w.sim, 20000);
    hears(&admin, reply);
}

/* A number of INFO's. */
static uint64_t info(const char *section, const char *name)
{
    char command[64], line[64], text[8192];
    const char *at;
    uint64_t value;

    snprintf(command, sizeof(command), "INFO %s\r\n", section);
    say(&admin, command);
    sim_run_for(w.sim, 20000);
    snprintf(line, sizeof(line), "\n%s:", name);
    assert_true(admin.in_len < sizeof(text));
    memcpy(text, admin.in, admin.in_len);
    text[admin.in_len] = '\0';
    at = strstr(text, line);
    assert_non_null(at);
    value = strtoull(at + strlen(line), NULL, 10);
    admin.in_len = 0;
    return value;
}

/* Says it `count` times, and takes no reply. */
static void say_and_not_take(struct client *client, const char *what, int count)
{
    join(&w, client);
    io_stream_pause(&client->stream);
    for (int i = 0; i < count; i++)
        say(client, what);
    sim_run_for(w.sim, 20000);
}

/* Values of 400,000 bytes, which are sent from where they lie. */
static void ask_and_not_take(struct client *client, int count)
{
    say_and_not_take(client, "GET big\r\n", count);
}

/* 400,000 bytes, too, but copies. */
static void ask_for_copies_and_not_take(struct client *client, int count)
{
#define KEYS_10 " k k k k k k k k k k"
    say_and_not_take(client, "MGET" KEYS_10 KEYS_10 KEYS_10 KEYS_10 "\r\n", count);
}

static void test_replies_not_taken_count(void **state)
{
    struct client slow;
    uint64_t before;

    (void)state;
    ask("SETRANGE k 9999 x\r\n", ":10000\r\n");
    before = info("memory", "used_memory");
    assert_true(info("memory", "mem_clients_normal") < 100000);
    ask_for_copies_and_not_take(&slow, 3);
    assert_true(info("memory", "mem_clients_normal") > 400000);
    assert_true(info("memory", "used_memory") > before + 400000);
    client_free(&slow);
    sim_run_for(w.sim, 20000);
    assert_true(info("memory", "used_memory") < before + 100000);
}

/* One value, whoever it is sent to. */
static void test_a_value_counts_once(void **state)
{
    struct client slow[4];
    uint64_t before;

    (void)state;
    ask("SETRANGE big 399999 x\r\n", ":400000\r\n");
    before = info("memory", "used_memory");
    for (size_t i = 0; i < ARRAY_COUNT(slow); i++)
        ask_and_not_take(&slow[i], 1);
    assert_true(info("memory", "used_memory") < before + 200000);
    for (size_t i = 0; i < ARRAY_COUNT(slow); i++)
        client_free(&slow[i]);
}

/* Sends 200,000 bytes of a value of `size`, and waits until they are counted. */
static void begin_a_set(struct client *client, int size)
{
    char *part = must_alloc(200001), head[64];

    memset(part, 'x', 200000);
    part[200000] = '\0';
    snprintf(head, sizeof(head), "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$%d\r\n", size);
    join(&w, client);
    say(client, head);
    say(client, part);
    sim_run_for(w.sim, 3 * SECOND);
    assert_true(info("memory", "mem_clients_normal") > 200000);
    mem_free(part);
}

/* It is the value's memory from then on. */
/* Watched keys and subscriptions are kept, too. */
static void test_what_a_client_keeps_counts(void **state)
{
    struct client keeper;
    char line[128];

    (void)state;
    join(&w, &keeper);
    for (int i = 0; i < 1000; i++) {
        snprintf(line, sizeof(line), "WATCH key%d\r\nPSUBSCRIBE one%d* two%d*\r\n", i, i, i);
        say(&keeper, line);
        sim_run_for(w.sim, 1000);
        keeper.in_len = 0;
    }
    say(&keeper, "UNSUBSCRIBE\r\n"); /* whatever it says last */
    sim_run_for(w.sim, 1000);
    assert_true(info("memory", "mem_clients_normal") > 300000);
    ask("CONFIG SET maxmemory-clients 300000\r\n", "+OK\r\n");
    assert_int_equal(keeper.closed, 1);
    assert_true(info("memory", "mem_clients_normal") < 100000);
    client_free(&keeper);
}

static void test_what_is_executed_counts_no_more(void **state)
{
    struct client slow;

    (void)state;
    begin_a_set(&slow, 200000);
    say(&slow, "\r\n");
    sim_run_for(w.sim, SECOND / 2);
    hears(&slow, "+OK\r\n");
    assert_true(info("memory", "mem_clients_normal") < 100000);
    client_free(&slow);
}

static void test_requests_that_have_not_ended_count(void **state)
{
    struct client slow;

    (void)state;
    begin_a_set(&slow, 500000);
    assert_true(info("clients", "client_recent_max_input_buffer") > 200000);
    client_free(&slow);
    sim_run_for(w.sim, 3 * SECOND);
    assert_true(info("memory", "mem_clients_normal") < 100000);
}

/* Values make room for what clients do not take; where that is not enough writes that grow are refused, as Redis does. */
static void test_values_make_room_for_clients(void **state)
{
    struct store_stats stats;
    struct client slow, slower;

    (void)state;
    ask("SETRANGE k 9999 x\r\n", ":10000\r\n");
    for (int i = 0; i < 100; i++) {
        char command[64];

        snprintf(command, sizeof(command), "SETRANGE k%d 9999 x\r\n", i);
        ask(command, ":10000\r\n");
    }
    ask("CONFIG SET maxmemory 1500kb\r\n", "+OK\r\n");
    store_stats_get(node_store(w.node), &stats);
    assert_int_equal(stats.cold_keys, 0);
    ask_for_copies_and_not_take(&slow, 3);
    ask("PING\r\n", "+PONG\r\n");
    sim_run_for(w.sim, SECOND);
    store_stats_get(node_store(w.node), &stats);
    assert_true(stats.cold_keys > 0);
    ask("CONFIG SET maxmemory 600kb\r\n", "+OK\r\n");
    ask_for_copies_and_not_take(&slower, 3);
    sim_run_for(w.sim, SECOND);
    ask("SET a 1\r\n", "-OOM command not allowed when used memory > 'maxmemory'.\r\n");
    ask("DEL k1\r\n", ":1\r\n");
    client_free(&slow);
    client_free(&slower);
    sim_run_for(w.sim, SECOND);
    ask("SET a 1\r\n", "+OK\r\n");
}

static void test_who_needs_the_most_goes(void **state)
{
    struct client much, more, spared, small;

    (void)state;
    ask("SETRANGE big 399999 x\r\n", ":400000\r\n");
    ask("CONFIG SET maxmemory-clients 1500000\r\n", "+OK\r\n");
    join(&w, &small);
    join(&w, &spared);
    say(&spared, "CLIENT NO-EVICT on\r\n");
    sim_run_for(w.sim, 20000);
    hears(&spared, "+OK\r\n");
    io_stream_pause(&spared.stream);
    for (int i = 0; i < 3; i++)
        say(&spared, "GET big\r\n");
    sim_run_for(w.sim, 20000);
    assert_int_equal(info("stats", "evicted_clients"), 0);
    ask_and_not_take(&much, 1);
    ask_and_not_take(&more, 2);
    assert_int_equal(info("stats", "evicted_clients"), 1);
    io_stream_resume(&much.stream);
    io_stream_resume(&more.stream);
    sim_run_for(w.sim, SECOND);
    assert_int_equal(more.closed, 1);
    assert_int_equal(much.closed + spared.closed + small.closed, 0);
    say(&small, "PING\r\n");
    sim_run_for(w.sim, 20000);
    hears(&small, "+PONG\r\n");
    ask("CONFIG GET maxmemory-clients\r\n", "*2\r\n$17\r\nmaxmemory-clients\r\n$7\r\n1500000\r\n");
    client_free(&much);
    client_free(&more);
    client_free(&spared);
    client_free(&small);
}

/* A share of maxmemory; without that there is none. */
static void test_the_bound_may_be_a_share(void **state)
{
    struct client slow;

    (void)state;
    ask("SETRANGE big 399999 x\r\n", ":400000\r\n");
    ask("CONFIG SET maxmemory-clients 5%\r\n", "+OK\r\n");
    ask_and_not_take(&slow, 2);
    assert_int_equal(info("stats", "evicted_clients"), 0);
    ask("CONFIG SET maxmemory 20mb\r\n", "+OK\r\n");
    assert_int_equal(info("stats", "evicted_clients"), 0);
    ask("CONFIG SET maxmemory 2mb\r\n", "+OK\r\n");
    assert_int_equal(info("stats", "evicted_clients"), 1);
    client_free(&slow);
}

/* Nothing of a reply above the hard limit is sent, and it is not composed to its end. What EXEC has begun it does. */
static void test_no_reply_above_the_output_limit(void **state)
{
    static const char *const commands[] = {
        "MGET big\r\n", "GET big\r\n", "HRANDFIELD hash -4000000000\r\n", "SRANDMEMBER set -4000000000\r\n",
        "ZRANDMEMBER zset -4000000000\r\n", "MULTI\r\nINCR n\r\nGET big\r\nINCR n\r\nEXEC\r\nINCR n\r\n",
        "GET part\r\nGET part\r\nGET part\r\nINCR n\r\n",
    };

    (void)state;
    ask("SETRANGE big 399999 x\r\n", ":400000\r\n");
    ask("SETRANGE part 9999 x\r\n", ":10000\r\n");
    ask("HSET hash f v\r\n", ":1\r\n");
    ask("SADD set m\r\n", ":1\r\n");
    ask("ZADD zset 1 m\r\n", ":1\r\n");
    ask("CONFIG SET client-output-buffer-limit \"normal 25000 0 0\"\r\n", "+OK\r\n");
    for (size_t i = 0; i < ARRAY_COUNT(commands); i++) {
        struct client client;

        join(&w, &client);
        say(&client, commands[i]);
        sim_run_for(w.sim, 20000);
        assert_int_equal(client.closed, 1);
        if (strncmp(commands[i], "MULTI", 5) != 0)
            assert_int_equal(client.in_len, 0);
        client_free(&client);
    }
    ask("GET n\r\n", "$1\r\n2\r\n");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_replies_not_taken_count),
        TEST(test_a_value_counts_once),
        TEST(test_requests_that_have_not_ended_count),
        TEST(test_what_a_client_keeps_counts),
        TEST(test_what_is_executed_counts_no_more),
        TEST(test_values_make_room_for_clients),
        TEST(test_who_needs_the_most_goes),
        TEST(test_the_bound_may_be_a_share),
        TEST(test_no_reply_above_the_output_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
