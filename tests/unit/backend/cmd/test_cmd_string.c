/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/backend/cmd/cmd_world.h"

#include <stdio.h>

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

static struct store_key find(const char *name)
{
    struct store_key key;

    store_find(w.store, 0, bytes_of_string(name), &key);
    return key;
}

/* The time to live in milliseconds, as the store has it. */
static int64_t left_ms(const char *name)
{
    struct store_key key = find(name);

    assert_non_null(key.entry);
    if (entry_expire_ms(key.entry) == 0)
        return -1;
    return (int64_t)(entry_expire_ms(key.entry) - store_now_ms(w.store));
}

static void test_set_options(void **state)
{
    (void)state;
    world_ask(&w, "SET a 1", "+OK\r\n");
    world_ask(&w, "SET a 2 NX", "$-1\r\n");
    world_ask(&w, "SET b 2 XX", "$-1\r\n");
    world_ask(&w, "SET a 3 XX GET", "$1\r\n1\r\n");
    world_ask(&w, "SET a 4 nx get", "$1\r\n3\r\n");
    world_ask(&w, "GET a", "$1\r\n3\r\n");
    world_ask(&w, "SET n 1 NX GET", "$-1\r\n");
    world_ask(&w, "GET n", "$1\r\n1\r\n");
    world_ask(&w, "SET a 5 EX 10", "+OK\r\n");
    assert_int_equal(left_ms("a"), 10000);
    world_ask(&w, "SET a 6 KEEPTTL", "+OK\r\n");
    assert_int_equal(left_ms("a"), 10000);
    world_ask(&w, "SET a 7", "+OK\r\n");
    assert_int_equal(left_ms("a"), -1);
    world_ask(&w, "SET a 8 NX XX", "-ERR syntax error\r\n");
    world_ask(&w, "SET a 8 EX 10 PX 10", "-ERR syntax error\r\n");
    world_ask(&w, "SET a 8 EX 10 KEEPTTL", "-ERR syntax error\r\n");
    world_ask(&w, "SET a 8 PERSIST", "-ERR syntax error\r\n");
    world_ask(&w, "SET a 8 EX", "-ERR syntax error\r\n");
    world_ask(&w, "SET a 8 EX 0", "-ERR invalid expire time in 'set' command\r\n");
    world_ask(&w, "SET a 8 EX 9223372036854775807", "-ERR invalid expire time in 'set' command\r\n");
    world_ask(&w, "SET a 8 PX x", "-ERR value is not an integer or out of range\r\n");
    world_ask(&w, "PSETEX a -1 8", "-ERR invalid expire time in 'psetex' command\r\n");
    world_ask(&w, "SETEX a 5 8", "+OK\r\n");
    assert_int_equal(left_ms("a"), 5000);
    world_ask(&w, "SET a 9 PXAT 1", "+OK\r\n"); /* over already */
    world_ask(&w, "EXISTS a", ":0\r\n");
    world_ask(&w, "RPUSH list x", ":1\r\n");
    world_ask(&w, "SET list 1 GET", "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n");
    world_ask(&w, "SET list 1", "+OK\r\n");
}

static void test_getex(void **state)
{
    (void)state;
    world_ask(&w, "GETEX a", "$-1\r\n");
    world_ask(&w, "SET a 1", "+OK\r\n");
    world_ask(&w, "GETEX a PX 700", "$1\r\n1\r\n");
    assert_int_equal(left_ms("a"), 700);
    world_ask(&w, "GETEX a", "$1\r\n1\r\n");
    assert_int_equal(left_ms("a"), 700);
    world_ask(&w, "GETEX a PERSIST", "$1\r\n1\r\n");
    assert_int_equal(left_ms("a"), -1);
    world_ask(&w, "GETEX a EX 5 PERSIST", "-ERR syntax error\r\n");
    world_ask(&w, "GETEX a NX", "-ERR syntax error\r\n");
    world_ask(&w, "GETEX a EXAT 1", "$1\r\n1\r\n");
    world_ask(&w, "GET a", "$-1\r\n");
    world_ask(&w, "SET a 2", "+OK\r\n");
    world_ask(&w, "GETDEL a", "$1\r\n2\r\n");
    world_ask(&w, "GETDEL a", "$-1\r\n");
}

/* memcache's flags: what changes a part of the value keeps them, SET does not. So it is with the time to live. */
static void test_flags_and_time_to_live_stay(void **state)
{
    static const char *const keeps[] = {"INCR a", "APPEND a 2", "SETRANGE a 1 3", "INCRBYFLOAT a 1", "SETBIT a 30 1",
                                        "EXPIRE a 100", "BITFIELD a SET u8 0 50"};
    struct store_attributes attributes = {.mc_flags = 7};

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(keeps); i++) {
        struct bytes words[WORLD_WORDS_MAX];
        struct store_key key = find("a");

        attributes.expire_ms = store_now_ms(w.store) + 100000;
        assert_int_equal(store_put_string(w.store, &key, BYTES("1"), &attributes), 0);
        world_run(&w, words, world_words(keeps[i], words));
        assert_true(w.reply[0] != '-');
        assert_int_equal(entry_mc_flags(find("a").entry), 7);
        assert_int_equal(left_ms("a"), 100000);
    }
    world_ask(&w, "RENAME a b", "+OK\r\n");
    assert_int_equal(entry_mc_flags(find("b").entry), 7);
    assert_int_equal(left_ms("b"), 100000);
    world_ask(&w, "SET b 1", "+OK\r\n");
    assert_int_equal(entry_mc_flags(find("b").entry), 0);
}

/* Over STRING_INLINE_MAX a string is an object (below, test_store: this world has no log, for which a change would be
 * short); what is read does not tell, and a bit costs the log a few bytes. */
static void test_long_strings_change_in_place(void **state)
{
    char text[80];

    (void)state;
    world_ask(&w, "SETRANGE a 16383 x", ":16384\r\n");
    assert_false(entry_is_object(find("a").entry));
    world_ask(&w, "APPEND a yz", ":16386\r\n");
    assert_true(entry_is_object(find("a").entry));
    world_ask(&w, "GETRANGE a 16382 -1", "$4\r\n\0");
    assert_int_equal(w.reply_len, 4 + 4 + 2);
    assert_memory_equal(w.reply + 4, "\0xyz", 4);
    world_ask(&w, "SETBIT a 8000000 1", ":0\r\n");
    world_ask(&w, "STRLEN a", ":1000001\r\n");
    world_ask(&w, "SETBIT a 800 1", ":0\r\n");
    assert_true(store_effects(w.store)->len < 32);
    world_ask(&w, "SETBIT a 800 1", ":1\r\n");
    assert_int_equal(store_effects(w.store)->len, 0);
    world_ask(&w, "BITCOUNT a 100 100", ":1\r\n");
    world_ask(&w, "BITPOS a 1 1000 999999", ":131065\r\n");
    world_ask(&w, "APPEND a tail", ":1000005\r\n");
    assert_true(store_effects(w.store)->len < 32);
    world_ask(&w, "SETBIT new 800000 1", ":0\r\n");
    assert_true(store_effects(w.store)->len < 64);
    world_ask(&w, "STRLEN new", ":100001\r\n");
    world_ask(&w, "RENAME a b", "+OK\r\n");
    world_ask(&w, "COPY b c", ":1\r\n");
    world_ask(&w, "GETRANGE c -4 -1", "$4\r\ntail\r\n");
    world_ask(&w, "SET c short", "+OK\r\n");
    assert_false(entry_is_object(find("c").entry));
    world_ask(&w, "GETRANGE b -4 -1", "$4\r\ntail\r\n");
    world_ask(&w, "SETRANGE b 536870912 x",
              "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n");
    (void)snprintf(text, sizeof(text), "SETRANGE b %lld x", (long long)INT64_MAX);
    world_ask(&w, text, "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n");
    world_ask(&w, "SETRANGE b -1 x", "-ERR offset is out of range\r\n");
}

/* A few bytes of request that make a string long ask for its memory; what is as long already needs none. */
static void test_growth_asks_for_memory(void **state)
{
#define OOM "-OOM command not allowed when used memory > 'maxmemory'.\r\n"
    (void)state;
    world_ask(&w, "SETRANGE long 3145727 x", ":3145728\r\n");
    world_ask(&w, "CONFIG SET maxmemory 8mb", "+OK\r\n");
    world_ask(&w, "SETBIT k 4294967295 1", OOM);
    world_ask(&w, "SETRANGE k 536870911 x", OOM);
    world_ask(&w, "BITFIELD k SET u8 #8388607 1", OOM);
    world_ask(&w, "EXISTS k", ":0\r\n");
    world_ask(&w, "SETBIT k 8388607 1", ":0\r\n");
    world_ask(&w, "STRLEN k", ":1048576\r\n");
    world_ask(&w, "SETBIT long 25165823 1", ":0\r\n");
    world_ask(&w, "STRLEN long", ":3145728\r\n");
}

static void test_numbers(void **state)
{
    (void)state;
    world_ask(&w, "INCR n", ":1\r\n");
    world_ask(&w, "INCRBY n 9223372036854775806", ":9223372036854775807\r\n");
    world_ask(&w, "INCR n", "-ERR increment or decrement would overflow\r\n");
    world_ask(&w, "DECRBY n -9223372036854775808", "-ERR decrement would overflow\r\n");
    world_ask(&w, "SET n 01", "+OK\r\n");
    world_ask(&w, "INCR n", "-ERR value is not an integer or out of range\r\n");
    world_ask(&w, "SET f 3.0e3", "+OK\r\n");
    world_ask(&w, "INCRBYFLOAT f 0.1", "$22\r\n3000.10000000000000009\r\n");
    world_ask(&w, "INCRBYFLOAT f -0.1", "$4\r\n3000\r\n");
    world_ask(&w, "INCRBYFLOAT f inf", "-ERR increment would produce NaN or Infinity\r\n");
    world_ask(&w, "INCRBYFLOAT f x", "-ERR value is not a valid float\r\n");
}

static void test_many(void **state)
{
    (void)state;
    world_ask(&w, "MSET a 1 b 2", "+OK\r\n");
    world_ask(&w, "MSET a 1 b", "-ERR wrong number of arguments for 'mset' command\r\n");
    world_ask(&w, "MSETNX c 3 a 4", ":0\r\n");
    world_ask(&w, "MSETNX c 3 d 4", ":1\r\n");
    world_ask(&w, "RPUSH list x", ":1\r\n");
    world_ask(&w, "MGET a list nothing c", "*4\r\n$1\r\n1\r\n$-1\r\n$-1\r\n$1\r\n3\r\n");
}

static void test_lcs(void **state)
{
    (void)state;
    world_ask(&w, "MSET a ohmytext b mynewtext", "+OK\r\n");
    world_ask(&w, "LCS a b", "$6\r\nmytext\r\n");
    world_ask(&w, "LCS a b LEN", ":6\r\n");
    world_ask(&w, "LCS a none", "$0\r\n\r\n");
    world_ask(&w, "LCS a b IDX MINMATCHLEN 4 WITHMATCHLEN",
              "*4\r\n$7\r\nmatches\r\n*1\r\n*3\r\n*2\r\n:4\r\n:7\r\n*2\r\n:5\r\n:8\r\n:4\r\n$3\r\nlen\r\n:6\r\n");
    world_ask(&w, "LCS a b IDX",
              "*4\r\n$7\r\nmatches\r\n*2\r\n*2\r\n*2\r\n:4\r\n:7\r\n*2\r\n:5\r\n:8\r\n"
              "*2\r\n*2\r\n:2\r\n:3\r\n*2\r\n:0\r\n:1\r\n$3\r\nlen\r\n:6\r\n");
    world_ask(&w, "LCS a b IDX LEN", "-ERR If you want both the length and indexes, please just use IDX.\r\n");
    world_ask(&w, "RPUSH list x", ":1\r\n");
    world_ask(&w, "LCS a list", "-ERR The specified keys must contain string values\r\n");
}

static void test_bitfield(void **state)
{
    (void)state;
    world_ask(&w, "BITFIELD f INCRBY i5 100 1 GET u4 0", "*2\r\n:1\r\n:0\r\n");
    world_ask(&w, "BITFIELD f SET u8 #1 255 OVERFLOW FAIL INCRBY u8 #1 1 OVERFLOW SAT INCRBY u8 #1 9 INCRBY u8 #0 -3",
              "*4\r\n:0\r\n$-1\r\n:255\r\n:0\r\n");
    world_ask(&w, "BITFIELD_RO f GET i8 8", "*1\r\n:-1\r\n");
    world_ask(&w, "BITFIELD_RO f SET i8 8 1", "-ERR BITFIELD_RO only supports the GET subcommand\r\n");
    world_ask(&w, "BITFIELD f GET u64 0",
              "-ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.\r\n");
    world_ask(&w, "BITFIELD f GET u8 4294967296", "-ERR bit offset is not an integer or out of range\r\n");
    /* A string of 512 MiB and some bytes is none. */
    world_ask(&w, "BITFIELD f SET i64 4294967295 1",
              "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n");
}

static void test_hyperloglog(void **state)
{
    struct store_key key;

    (void)state;
    world_ask(&w, "PFADD h a b c", ":1\r\n");
    world_ask(&w, "PFADD h a", ":0\r\n");
    world_ask(&w, "PFCOUNT h", ":3\r\n");
    key = find("h");
    assert_int_equal(store_string(key.entry).data[8], 3); /* the count is kept */
    world_ask(&w, "PFADD g c d", ":1\r\n");
    world_ask(&w, "PFCOUNT h g none", ":4\r\n");
    world_ask(&w, "PFMERGE both h g", "+OK\r\n");
    world_ask(&w, "PFCOUNT both", ":4\r\n");
    world_ask(&w, "SET s x", "+OK\r\n");
    world_ask(&w, "PFADD s a", "-WRONGTYPE Key is not a valid HyperLogLog string value.\r\n");
    world_ask(&w, "PFADD empty", ":1\r\n");
    world_ask(&w, "PFADD empty", ":0\r\n");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
    const struct CMUnitTest tests[] = {
        TEST(test_set_options),
        TEST(test_getex),
        TEST(test_flags_and_time_to_live_stay),
        TEST(test_long_strings_change_in_place),
        TEST(test_growth_asks_for_memory),
        TEST(test_numbers),
        TEST(test_many),
        TEST(test_lcs),
        TEST(test_bitfield),
        TEST(test_hyperloglog),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
