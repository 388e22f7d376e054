/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/backend/cmd/cmd_world.h"

#include <stdio.h>
#include <stdlib.h>

static struct cmd_world w;

static int open_world(void **state)
{
    (void)state;
    world_open(&w);
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    world_close(&w);
    return 0;
}

/* One of each type, under its type's name. */
static void fill(void)
{
    world_ask(&w, "SET string value", "+OK\r\n");
    world_ask(&w, "RPUSH list b a c", ":3\r\n");
    world_ask(&w, "SADD set 3 1 2", ":3\r\n");
    world_ask(&w, "ZADD zset 1 x 2 y", ":2\r\n");
    world_ask(&w, "HSET hash f v", ":1\r\n");
}

static const char *const types[] = {"string", "list", "set", "zset", "hash"};

static void ask_type(const char *key, const char *type)
{
    char ask[64], reply[64];

    (void)snprintf(ask, sizeof(ask), "TYPE %s", key);
    (void)snprintf(reply, sizeof(reply), "+%s\r\n", type);
    world_ask(&w, ask, reply);
}

static void test_every_type_moves_and_copies(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(types); i++) {
        char ask[64];

        fill();
        world_ask(&w, "SET target old EX 50", "+OK\r\n");
        (void)snprintf(ask, sizeof(ask), "PEXPIRE %s 70000", types[i]);
        world_ask(&w, ask, ":1\r\n");
        (void)snprintf(ask, sizeof(ask), "COPY %s target", types[i]);
        world_ask(&w, ask, ":0\r\n");
        (void)snprintf(ask, sizeof(ask), "COPY %s copy REPLACE", types[i]);
        world_ask(&w, ask, ":1\r\n");
        ask_type("copy", types[i]);
        ask_type(types[i], types[i]);
        (void)snprintf(ask, sizeof(ask), "RENAMENX %s target", types[i]);
        world_ask(&w, ask, ":0\r\n");
        (void)snprintf(ask, sizeof(ask), "RENAME %s target", types[i]);
        world_ask(&w, ask, "+OK\r\n");
        ask_type("target", types[i]);
        ask_type(types[i], "none");
        world_ask(&w, "PTTL target", ":70000\r\n");
        world_ask(&w, "PTTL copy", ":70000\r\n");
        world_ask(&w, "MOVE target 5", ":1\r\n");
        ask_type("target", "none");
        w.session.db = 5;
        ask_type("target", types[i]);
        world_ask(&w, "PTTL target", ":70000\r\n");
        world_ask(&w, "COPY target again DB 0", ":1\r\n");
        w.session.db = 0;
        ask_type("again", types[i]);
        world_ask(&w, "FLUSHALL", "+OK\r\n");
    }
    world_ask(&w, "RENAME none target", "-ERR no such key\r\n");
    world_ask(&w, "SET a 1", "+OK\r\n");
    world_ask(&w, "RENAME a a", "+OK\r\n");
    world_ask(&w, "COPY a a", "-ERR source and destination objects are the same\r\n");
    world_ask(&w, "MOVE a 0", "-ERR source and destination objects are the same\r\n");
    world_ask(&w, "MOVE a 16", "-ERR DB index is out of range\r\n");
}

static void test_expire_conditions(void **state)
{
    (void)state;
    world_ask(&w, "EXPIRE a 10", ":0\r\n");
    world_ask(&w, "SET a 1", "+OK\r\n");
    world_ask(&w, "TTL a", ":-1\r\n");
    world_ask(&w, "EXPIRE a 10 XX", ":0\r\n");
    world_ask(&w, "EXPIRE a 10 GT", ":0\r\n");
    world_ask(&w, "EXPIRE a 10 NX", ":1\r\n");
    world_ask(&w, "EXPIRE a 20 NX", ":0\r\n");
    world_ask(&w, "EXPIRE a 5 GT", ":0\r\n");
    world_ask(&w, "EXPIRE a 20 LT", ":0\r\n");
    world_ask(&w, "EXPIRE a 5 LT", ":1\r\n");
    world_ask(&w, "TTL a", ":5\r\n");
    world_ask(&w, "EXPIRE a 5 NX XX", "-ERR NX and XX, GT or LT options at the same time are not compatible\r\n");
    world_ask(&w, "EXPIRE a 5 GT LT", "-ERR GT and LT options at the same time are not compatible\r\n");
    world_ask(&w, "EXPIRE a 5 SOON", "-ERR Unsupported option SOON\r\n");
    world_ask(&w, "EXPIRE a 9223372036854775807", "-ERR invalid expire time in 'expire' command\r\n");
    world_ask(&w, "PERSIST a", ":1\r\n");
    world_ask(&w, "PERSIST a", ":0\r\n");
    world_ask(&w, "PEXPIREAT a 1", ":1\r\n");
    world_ask(&w, "TTL a", ":-2\r\n");
}

/* Nobody sees a key whose time is over, in whatever way he looks. */
static void test_expired_keys_are_gone(void **state)
{
    (void)state;
    world_ask(&w, "SET a 1 PX 100", "+OK\r\n");
    world_ask(&w, "RPUSH list x", ":1\r\n");
    world_ask(&w, "PEXPIRE list 100", ":1\r\n");
    sim_run_for(w.sim, 90000);
    world_ask(&w, "EXISTS a list", ":2\r\n");
    sim_run_for(w.sim, 20000);
    world_ask(&w, "EXISTS a list", ":0\r\n");
    world_ask(&w, "KEYS *", "*0\r\n");
    world_ask(&w, "SCAN 0", "*2\r\n$1\r\n0\r\n*0\r\n");
    world_ask(&w, "RANDOMKEY", "$-1\r\n");
    world_ask(&w, "SET a 2 XX", "$-1\r\n");
    world_ask(&w, "RENAME list b", "-ERR no such key\r\n");
    world_ask(&w, "DEL a", ":0\r\n");
    world_ask(&w, "LPUSHX list x", ":0\r\n");
}

static void test_keys_and_scan(void **state)
{
    (void)state;
    world_ask(&w, "SCAN 0", "*2\r\n$1\r\n0\r\n*0\r\n");
    fill();
    world_ask(&w, "DBSIZE", ":5\r\n");
    world_ask(&w, "KEYS l?s*", "*1\r\n$4\r\nlist\r\n");
    world_ask(&w, "SCAN 0 COUNT 100 TYPE HASH", "*2\r\n$1\r\n0\r\n*1\r\n$4\r\nhash\r\n");
    world_ask(&w, "SCAN 0 COUNT 100 MATCH z*", "*2\r\n$1\r\n0\r\n*1\r\n$4\r\nzset\r\n");
    world_ask(&w, "SCAN x", "-ERR invalid cursor\r\n");
    world_ask(&w, "SCAN 99999999999999999999", "-ERR invalid cursor\r\n");
    world_ask(&w, "SCAN 0 COUNT 0", "-ERR syntax error\r\n");
    w.session.db = 3;
    world_ask(&w, "KEYS *", "*0\r\n");
    world_ask(&w, "DBSIZE", ":0\r\n");
    w.session.db = 0;
    world_ask(&w, "TOUCH list none set list", ":3\r\n");
    world_ask(&w, "UNLINK list none list", ":1\r\n");
    world_ask(&w, "FLUSHDB NOW", "-ERR syntax error\r\n");
    world_ask(&w, "FLUSHDB ASYNC", "+OK\r\n");
    world_ask(&w, "DBSIZE", ":0\r\n");
}

/* A walk by pages sees every key, though others come and go meanwhile. */
static void test_scan_sees_what_stays(void **state)
{
    static bool seen[2000];
    struct bytes words[WORLD_WORDS_MAX];
    char ask[64];
    uint64_t cursor = 0;
    unsigned round = 0;

    (void)state;
    memset(seen, 0, sizeof(seen));
    for (unsigned i = 0; i < ARRAY_COUNT(seen); i++) {
        (void)snprintf(ask, sizeof(ask), "SET stays:%u x", i);
        world_ask(&w, ask, "+OK\r\n");
    }
    do {
        const char *at;

        (void)snprintf(ask, sizeof(ask), "SCAN %llu COUNT 20", (unsigned long long)cursor);
        world_run(&w, words, world_words(ask, words));
        at = strchr(w.reply, '\n') + 1;
        cursor = strtoull(strchr(at, '\n') + 1, NULL, 10);
        for (at = strstr(w.reply, "stays:"); at != NULL; at = strstr(at + 1, "stays:"))
            seen[strtoul(at + 6, NULL, 10)] = true;
        for (unsigned i = 0; i < 30; i++) {
            (void)snprintf(ask, sizeof(ask), round % 3 != 2 ? "SET goes:%u x" : "DEL goes:%u", round / 3 * 60 + i);
            world_ask(&w, ask, round % 3 != 2 ? "+OK\r\n" : ":1\r\n");
        }
        round++;
    } while (cursor != 0);
    for (unsigned i = 0; i < ARRAY_COUNT(seen); i++)
        assert_true(seen[i]);
}

static void test_sort(void **state)
{
    (void)state;
    fill();
    world_ask(&w, "SORT set", "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n");
    world_ask(&w, "SORT set DESC LIMIT 1 5", "*2\r\n$1\r\n2\r\n$1\r\n1\r\n");
    world_ask(&w, "SORT list", "-ERR One or more scores can't be converted into double\r\n");
    world_ask(&w, "SORT list ALPHA", "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n");
    world_ask(&w, "SORT list BY nosort DESC", "*3\r\n$1\r\nc\r\n$1\r\na\r\n$1\r\nb\r\n");
    world_ask(&w, "SORT zset BY nosort LIMIT 1 1", "*1\r\n$1\r\ny\r\n");
    world_ask(&w, "MSET w_a 3 w_b 1 w_c 2", "+OK\r\n");
    world_ask(&w, "HSET o_b name second", ":1\r\n");
    world_ask(&w, "SORT list BY w_* GET # GET o_*->name LIMIT 0 2",
              "*4\r\n$1\r\nb\r\n$6\r\nsecond\r\n$1\r\nc\r\n$-1\r\n");
    world_ask(&w, "SORT list BY w_* GET o_*->name STORE out", ":3\r\n");
    world_ask(&w, "LRANGE out 0 -1", "*3\r\n$6\r\nsecond\r\n$0\r\n\r\n$0\r\n\r\n");
    world_ask(&w, "SORT none STORE out", ":0\r\n");
    world_ask(&w, "EXISTS out", ":0\r\n");
    world_ask(&w, "SORT_RO list STORE out", "-ERR syntax error\r\n");
    world_ask(&w, "SORT hash", "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n");
}

static void test_object(void **state)
{
    (void)state;
    fill();
    world_ask(&w, "OBJECT ENCODING string", "$6\r\nembstr\r\n");
    world_ask(&w, "SET n 12345", "+OK\r\n");
    world_ask(&w, "OBJECT ENCODING n", "$3\r\nint\r\n");
    world_ask(&w, "SETRANGE long 44 x", ":45\r\n");
    world_ask(&w, "OBJECT ENCODING long", "$3\r\nraw\r\n");
    world_ask(&w, "OBJECT ENCODING list", "$9\r\nquicklist\r\n");
    world_ask(&w, "OBJECT ENCODING set", "$6\r\nintset\r\n");
    world_ask(&w, "OBJECT ENCODING zset", "$8\r\nlistpack\r\n");
    world_ask(&w, "OBJECT ENCODING hash", "$8\r\nlistpack\r\n");
    world_ask(&w, "OBJECT ENCODING none", "$-1\r\n");
    world_ask(&w, "OBJECT REFCOUNT list", ":1\r\n");
    world_ask(&w, "OBJECT IDLETIME list", ":0\r\n");
    world_ask(&w, "OBJECT FREQ none", "$-1\r\n");
}

static void test_wait_and_swap(void **state)
{
    (void)state;
    world_ask(&w, "WAIT 0 0", ":0\r\n");
    world_ask(&w, "WAIT 0 -1", "-ERR timeout is negative\r\n");
    world_ask(&w, "WAIT x 0", "-ERR value is not an integer or out of range\r\n");
    world_ask(&w, "WAIT 1 50", ""); /* waits */
    sim_run_for(w.sim, 60000);
    world_ask(&w, "WAIT 1 50", ":0\r\n"); /* the same request, resumed */
    world_ask(&w, "SWAPDB 1 2", "+OK\r\n");
    world_ask(&w, "SWAPDB 0 x", "-ERR invalid second DB index\r\n");
    world_ask(&w, "SWAPDB 0 16", "-ERR DB index is out of range\r\n");
    world_ask(&w, "SET a zero", "+OK\r\n");
    world_ask(&w, "WATCH a", "+OK\r\n");
    world_ask(&w, "SWAPDB 0 3", "+OK\r\n");
    world_ask(&w, "EXISTS a", ":0\r\n");
    world_ask(&w, "MULTI", "+OK\r\n");
    world_ask(&w, "EXEC", "*-1\r\n");
    world_ask(&w, "SELECT 3", "+OK\r\n");
    world_ask(&w, "GET a", "$4\r\nzero\r\n");
    world_ask(&w, "RENAME a b", "+OK\r\n");
    world_ask(&w, "MOVE b 0", ":1\r\n");
    world_ask(&w, "DBSIZE", ":0\r\n");
    world_ask(&w, "WATCH none", "+OK\r\n");
    world_ask(&w, "SWAPDB 3 0", "+OK\r\n"); /* no watched key in either: not touched */
    world_ask(&w, "MULTI", "+OK\r\n");
    world_ask(&w, "KEYS *", "+QUEUED\r\n");
    world_ask(&w, "EXEC", "*1\r\n*1\r\n$1\r\nb\r\n");
    world_ask(&w, "SELECT 0", "+OK\r\n");
}

/* SWAPDB brings a watched key whose time is over: to who watches there was none, and there is none. */
static void test_swap_brings_what_is_over(void **state)
{
    (void)state;
    for (int with_other = 0; with_other < 2; with_other++) {
        world_ask(&w, "DEBUG SET-ACTIVE-EXPIRE 0", "+OK\r\n");
        world_ask(&w, "SET x old PX 1", "+OK\r\n");
        world_ask(&w, "SELECT 1", "+OK\r\n");
        if (with_other)
            world_ask(&w, "SET x other PX 1", "+OK\r\n");
        sim_run_for(w.sim, 10000);
        world_ask(&w, "WATCH x", "+OK\r\n");
        world_ask(&w, "SWAPDB 0 1", "+OK\r\n");
        world_ask(&w, "GET x", "$-1\r\n");
        world_ask(&w, "MULTI", "+OK\r\n");
        world_ask(&w, "EXEC", "*0\r\n");
        world_ask(&w, "SET x new PX 1", "+OK\r\n");
        world_ask(&w, "WATCH x", "+OK\r\n");
        sim_run_for(w.sim, 10000);
        world_ask(&w, "GET x", "$-1\r\n"); /* that one was there */
        world_ask(&w, "MULTI", "+OK\r\n");
        world_ask(&w, "EXEC", "*-1\r\n");
        world_ask(&w, "SELECT 0", "+OK\r\n");
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
    const struct CMUnitTest tests[] = {
        TEST(test_every_type_moves_and_copies),
        TEST(test_expire_conditions),
        TEST(test_expired_keys_are_gone),
        TEST(test_keys_and_scan),
        TEST(test_scan_sees_what_stays),
        TEST(test_sort),
        TEST(test_object),
        TEST(test_wait_and_swap), TEST(test_swap_brings_what_is_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
