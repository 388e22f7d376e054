/* SPDX-License-Identifier: Apache-2.0 */
/* Which arguments are keys, and the errors. tests/e2e/test_command_table.py asks a real server the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "common/base/err.h"
#include "common/command/command.h"

#define WORDS_MAX 16

/* Splits at blanks; '' is an empty word. */
static uint32_t split(const char *line, struct bytes argv[WORDS_MAX])
{
    uint32_t argc = 0;

    while (*line != '\0') {
        size_t len = strcspn(line, " ");

        assert_true(argc < WORDS_MAX);
        argv[argc++] = len == 2 && memcmp(line, "''", 2) == 0 ? BYTES_EMPTY : bytes_of(line, len);
        line += len;
        line += *line == ' ';
    }
    return argc;
}

static const struct command *find(const struct bytes *argv, uint32_t argc)
{
    const struct command *row = command_find(argv[0]);

    assert_non_null(row);
    if ((row->flags & CMD_HAS_SUBCOMMANDS) && argc > 1)
        row = command_find_sub(row, argv[1]);
    assert_non_null(row);
    return row;
}

static void test_keys_are_where_redis_has_them(void **state)
{
    static const struct {
        const char *request;
        const char *keys; /* indexes */
    } cases[] = {
        {"GET a", "1"},
        {"PING", ""},
        {"MGET a b a", "1 2 3"},
        {"MSET a 1 b 2", "1 3"},
        {"BLPOP a b 0", "1 2"},
        {"RENAME a b", "1 2"},
        {"BITOP AND d a b", "2 3 4"},
        {"OBJECT ENCODING a", "2"},
        {"OBJECT HELP", ""},
        {"MEMORY USAGE a SAMPLES 5", "2"},
        {"XGROUP CREATE s g $", "2"},
        {"EVAL x 0", ""},
        {"EVAL x 0 a", ""},
        {"EVAL x 2 a b c", "3 4"},
        {"FCALL f 1 a", "3"},
        {"ZUNION 2 a b WITHSCORES", "2 3"},
        {"ZUNIONSTORE d 2 a b WEIGHTS 1 2", "1 3 4"},
        {"SINTERCARD 2 a b LIMIT 1", "2 3"},
        {"LMPOP 2 a b LEFT", "2 3"},
        {"BLMPOP 0 1 a LEFT COUNT 2", "3"},
        {"XREAD STREAMS a b 0 0", "2 3"},
        {"XREAD COUNT 2 BLOCK 5 STREAMS streams 0", "6"},
        {"XREADGROUP GROUP streams c NOACK STREAMS a >", "6"},
        {"SORT a", "1"},
        {"SORT a BY store GET store LIMIT 0 1 DESC STORE d", "1 11"},
        {"SORT a STORE b STORE c", "1 5"},
        {"SORT a STORE", "1"},
        {"SORT_RO a BY x", "1"},
        {"GEORADIUS a 1 2 3 km STORE d", "1 7"},
        {"GEORADIUS a 1 2 3 km COUNT 1 STOREDIST d", "1 9"},
        {"GEORADIUS a 1 2 3 km STORE", "1"},
        {"GEORADIUSBYMEMBER a m 3 km STORE d", "1 6"},
        {"GEOSEARCHSTORE d s FROMMEMBER m BYRADIUS 1 m", "1 2"},
        {"MIGRATE h 1 a 0 5", "3"},
        {"MIGRATE h 1 '' 0 5 KEYS a b", "7 8"},
        {"MIGRATE h 1 '' 0 5 COPY AUTH keys KEYS a", "10"},
        {"MIGRATE h 1 '' 0 5 AUTH2 keys keys KEYS a", "10"},
        {"MIGRATE h 1 a 0 5 KEYS b", "3"},
        {"SUNSUBSCRIBE", ""},
        {"SUBSCRIBE a", ""},
        {"SPUBLISH ch m", "1"},
        {"PFCOUNT a b", "1 2"},
        {"COPY a b", "1 2"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct bytes argv[WORDS_MAX];
        uint32_t argc = split(cases[i].request, argv);
        const struct command *row = find(argv, argc);
        struct command_keys keys;
        const char *at = cases[i].keys;
        uint32_t count = 0;

        assert_int_equal(command_keys(row, argv, argc, &keys), 0);
        for (uint32_t r = 0; r < keys.range_count; r++) {
            assert_true(keys.ranges[r].count > 0);
            for (uint32_t k = 0; k < keys.ranges[r].count; k++, count++) {
                uint64_t want;
                size_t len = strcspn(at, " ");

                assert_true(bytes_to_u64(bytes_of(at, len), WORDS_MAX, &want));
                assert_int_equal(keys.ranges[r].first + k * keys.ranges[r].step, want);
                at += len;
                at += *at == ' ';
            }
        }
        assert_int_equal(*at, '\0');
        assert_int_equal(keys.key_count, count);
    }
}

static void test_errors_are_those_of_redis(void **state)
{
#define TOO_MANY "ERR Number of keys can't be greater than number of args"
#define NOT_INT  "ERR value is not an integer or out of range"
    static const struct {
        const char *request, *error;
    } cases[] = {
        {"MSET a 1 b", "ERR wrong number of arguments for 'mset' command"},
        {"MSETNX a 1 b", "ERR wrong number of arguments for 'msetnx' command"},
        {"EVAL x -1 a", "ERR Number of keys can't be negative"},
        {"EVAL x 3 a", TOO_MANY},
        {"EVAL x y a", NOT_INT},
        {"EVAL x 01 a", NOT_INT},
        {"EVAL x 99999999999999999999 a", NOT_INT},
        {"EVALSHA x 4294967297 a", TOO_MANY},
        {"EVAL_RO x 9223372036854775807 a", TOO_MANY},
        {"FCALL f x a", "ERR Bad number of keys provided"},
        {"FCALL_RO f -2 a", "ERR Number of keys can't be negative"},
        {"ZUNION 0 a", "ERR at least 1 input key is needed for 'zunion' command"},
        {"ZINTERSTORE d -1 a", "ERR at least 1 input key is needed for 'zinterstore' command"},
        {"ZDIFF 3 a b", "ERR syntax error"},
        {"ZINTERCARD x a", NOT_INT},
        {"SINTERCARD 0 a", "ERR numkeys should be greater than 0"},
        {"SINTERCARD x a", "ERR numkeys should be greater than 0"},
        {"SINTERCARD 2 a", TOO_MANY},
        {"LMPOP 0 a LEFT", "ERR numkeys should be greater than 0"},
        {"LMPOP 2 a LEFT", "ERR syntax error"},
        {"BZMPOP 0 x a MIN", "ERR numkeys should be greater than 0"},
        {"XREAD COUNT 1 a 0", "ERR syntax error"},
        {"XREAD STREAMS a b 0",
         "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be "
         "specified."},
        {"XREADGROUP GROUP g c STREAMS a b 0",
         "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be "
         "specified."},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct bytes argv[WORDS_MAX];
        uint32_t argc = split(cases[i].request, argv);
        const struct command *row = find(argv, argc);
        struct command_keys keys;

        assert_int_equal(command_keys(row, argv, argc, &keys), ERR_INVALID);
        assert_string_equal(command_keys_error(row, argv, argc), cases[i].error);
    }
}

/* Whatever the count of arguments is: an answer, no index outside, no crash. */
static void test_any_argc_is_survived(void **state)
{
    static const char *const words[] = {"1", "store", "streams", "keys", "''", "-1"};

    (void)state;
    for (uint16_t id = 1; id < COMMAND_COUNT; id++) {
        for (size_t w = 0; w < ARRAY_COUNT(words); w++) {
            for (uint32_t argc = 1; argc <= WORDS_MAX; argc++) {
                struct bytes argv[WORDS_MAX];
                struct command_keys keys;

                for (uint32_t i = 0; i < argc; i++)
                    argv[i] = bytes_of_string(words[(i + w) % ARRAY_COUNT(words)]);
                if (command_keys(command_by_id(id), argv, argc, &keys) < 0) {
                    assert_non_null(command_keys_error(command_by_id(id), argv, argc));
                    continue;
                }
                for (uint32_t r = 0; r < keys.range_count; r++)
                    assert_true(keys.ranges[r].first +
                                    (keys.ranges[r].count - 1) * keys.ranges[r].step <
                                argc);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_are_where_redis_has_them),
        cmocka_unit_test(test_errors_are_those_of_redis),
        cmocka_unit_test(test_any_argc_is_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
