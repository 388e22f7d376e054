/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/backend/cmd/cmd_world.h"

static void test_hash_fields(void **state)
{
    struct cmd_world w;

    (void)state;
    world_open(&w);
    world_ask(&w, "HSET h a 1 b 2", ":2\r\n");
    world_ask(&w, "HSET h a 3 c 4", ":1\r\n");
    world_ask(&w, "HSET h a 3 c", "-ERR wrong number of arguments for 'hset' command\r\n");
    world_ask(&w, "HMSET h d 5", "+OK\r\n");
    world_ask(&w, "HSETNX h d 6", ":0\r\n");
    world_ask(&w, "HMGET h a x d", "*3\r\n$1\r\n3\r\n$-1\r\n$1\r\n5\r\n");
    world_ask(&w, "HINCRBY h a 10", ":13\r\n");
    world_ask(&w, "HINCRBYFLOAT h a 0.5", "$4\r\n13.5\r\n");
    world_ask(&w, "HINCRBY h a 1", "-ERR hash value is not an integer\r\n");
    world_ask(&w, "HINCRBYFLOAT h a inf", "-ERR value is NaN or Infinity\r\n");
    world_ask(&w, "HINCRBY h n 9223372036854775807", ":9223372036854775807\r\n");
    world_ask(&w, "HINCRBY h n 1", "-ERR increment or decrement would overflow\r\n");
    world_ask(&w, "HDEL h n b c none", ":3\r\n");
    world_ask(&w, "HGETALL h", "*4\r\n$1\r\na\r\n$4\r\n13.5\r\n$1\r\nd\r\n$1\r\n5\r\n");
    world_ask(&w, "HSCAN h 0 MATCH d", "*2\r\n$1\r\n0\r\n*2\r\n$1\r\nd\r\n$1\r\n5\r\n");
    world_ask(&w, "HDEL h a d", ":2\r\n");
    world_ask(&w, "EXISTS h", ":0\r\n");
    w.session.resp = 3;
    world_ask(&w, "HGET h a", "_\r\n");
    world_ask(&w, "HGETALL h", "%0\r\n");
    world_close(&w);
}

/* RESP2 is flat, RESP3 has pairs. */
static void test_random_pairs_in_both_dialects(void **state)
{
    struct cmd_world w;

    (void)state;
    world_open(&w);
    world_ask(&w, "HSET h a 1", ":1\r\n");
    world_ask(&w, "HRANDFIELD h", "$1\r\na\r\n");
    world_ask(&w, "HRANDFIELD h -2", "*2\r\n$1\r\na\r\n$1\r\na\r\n");
    world_ask(&w, "HRANDFIELD h 5 WITHVALUES", "*2\r\n$1\r\na\r\n$1\r\n1\r\n");
    w.session.resp = 3;
    world_ask(&w, "HRANDFIELD h 5 WITHVALUES", "*1\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n");
    world_ask(&w, "HRANDFIELD none 5", "*0\r\n");
    world_close(&w);
}

static void test_set_members(void **state)
{
    struct cmd_world w;

    (void)state;
    world_open(&w);
    world_ask(&w, "SADD s 3 1 2 3", ":3\r\n");
    world_ask(&w, "SADD s 3", ":0\r\n");
    world_ask(&w, "SMEMBERS s", "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n");
    world_ask(&w, "SMISMEMBER s 1 4", "*2\r\n:1\r\n:0\r\n");
    world_ask(&w, "SMOVE s t 1", ":1\r\n");
    world_ask(&w, "SMOVE s t 1", ":0\r\n");
    world_ask(&w, "SMOVE t t 1", ":1\r\n");
    world_ask(&w, "SREM s 2 9", ":1\r\n");
    world_ask(&w, "SPOP s", "$1\r\n3\r\n");
    world_ask(&w, "EXISTS s", ":0\r\n");
    world_ask(&w, "SPOP s", "$-1\r\n");
    world_ask(&w, "SPOP t -1", "-ERR value is out of range, must be positive\r\n");
    w.session.resp = 3;
    world_ask(&w, "SPOP t 5", "~1\r\n$1\r\n1\r\n");
    world_ask(&w, "EXISTS t", ":0\r\n");
    world_close(&w);
}

static void test_sets_combined(void **state)
{
    struct cmd_world w;

    (void)state;
    world_open(&w);
    world_ask(&w, "SADD a 1 2 3 4", ":4\r\n");
    world_ask(&w, "SADD b 3 4 5", ":3\r\n");
    world_ask(&w, "SADD c x", ":1\r\n");
    world_ask(&w, "SINTER a b", "*2\r\n$1\r\n3\r\n$1\r\n4\r\n");
    world_ask(&w, "SDIFF a b none", "*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
    world_ask(&w, "SUNION b c", "*4\r\n$1\r\n3\r\n$1\r\n4\r\n$1\r\n5\r\n$1\r\nx\r\n");
    world_ask(&w, "SINTERCARD 2 a b LIMIT 1", ":1\r\n");
    world_ask(&w, "SINTERCARD 3 a b", "-ERR Number of keys can't be greater than number of args\r\n");
    world_ask(&w, "SINTERSTORE a a b", ":2\r\n");
    world_ask(&w, "SMEMBERS a", "*2\r\n$1\r\n3\r\n$1\r\n4\r\n");
    world_ask(&w, "SUNIONSTORE c a b c", ":4\r\n");
    world_ask(&w, "SDIFFSTORE a a b", ":0\r\n");
    world_ask(&w, "EXISTS a", ":0\r\n");
    world_ask(&w, "SET string 1", "+OK\r\n");
    world_ask(&w, "SINTER none string",
              "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n");
    world_ask(&w, "SUNIONSTORE string b", ":3\r\n");
    world_ask(&w, "SCARD string", ":3\r\n");
    world_close(&w);
}

static void test_cursors_as_redis_reads_them(void **state)
{
    struct cmd_world w;

    (void)state;
    world_open(&w);
    world_ask(&w, "SADD s 1", ":1\r\n");
    world_ask(&w, "SSCAN s 0", "*2\r\n$1\r\n0\r\n*1\r\n$1\r\n1\r\n");
    world_ask(&w, "SSCAN s -1", "*2\r\n$1\r\n0\r\n*1\r\n$1\r\n1\r\n");
    world_ask(&w, "SSCAN s 18446744073709551616", "-ERR invalid cursor\r\n");
    world_ask(&w, "SSCAN s 1x", "-ERR invalid cursor\r\n");
    world_ask(&w, "SSCAN s -", "-ERR invalid cursor\r\n");
    world_ask(&w, "SSCAN s 0 COUNT 0", "-ERR syntax error\r\n");
    world_ask(&w, "SSCAN none 0 COUNT 0", "*2\r\n$1\r\n0\r\n*0\r\n");
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hash_fields),
        cmocka_unit_test(test_random_pairs_in_both_dialects),
        cmocka_unit_test(test_set_members),
        cmocka_unit_test(test_sets_combined),
        cmocka_unit_test(test_cursors_as_redis_reads_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
