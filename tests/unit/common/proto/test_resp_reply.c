/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RESP replies: every type, every cut, hostile servers. Pieces are given out of allocations of exactly
 * their size, and only the bytes that were not scanned are given again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include "common/proto/resp.h"

static const struct proto_limits limits = PROTO_LIMITS_DEFAULT;

struct reply {
    struct bytes wire;
    char type;
    int64_t integer;
    bool is_null;
};

/* Feeds `wire` in pieces of `step` bytes behind a first one of `first`; returns the last answer, and in
 * *total what was scanned. */
static enum parse_result feed(struct resp_reply_parser *parser, struct bytes wire, size_t first,
                              size_t step, size_t *total)
{
    enum parse_result result = PARSE_MORE;
    size_t have = MIN(first, wire.len);

    *total = 0;
    for (;;) {
        size_t len = have - *total;
        size_t scanned = 0;
        char *copy = malloc(len > 0 ? len : 1);

        assert_non_null(copy);
        memcpy(copy, wire.data + *total, len);
        result = resp_reply_scan(parser, &limits, bytes_of(copy, len), &scanned);
        free(copy);
        assert_true(scanned <= len);
        *total += scanned;
        if (result == PARSE_MORE)
            assert_true(parser->need > len - scanned);
        if (result != PARSE_MORE || have == wire.len)
            return result;
        have = MIN(have + step, wire.len);
    }
}

static void check_reply(const struct reply *want, size_t first, size_t step)
{
    struct resp_reply_parser parser = {0};
    size_t total;

    for (int round = 0; round < 2; round++) { /* PARSE_OK leaves the parser ready for the next one */
        assert_int_equal(feed(&parser, want->wire, first, step, &total), PARSE_OK);
        assert_int_equal(total, want->wire.len);
        assert_int_equal(parser.type, want->type);
        assert_int_equal(parser.is_null, want->is_null);
        assert_true(parser.integer == want->integer);
    }
}

#define REPLY(text, kind, number)    {.wire = BYTES(text), .type = (kind), .integer = (number)}
#define NIL(text, kind, number)                                                                    \
    {.wire = BYTES(text), .type = (kind), .integer = (number), .is_null = true}

static const struct reply replies[] = {
    REPLY("+OK\r\n", '+', 0),
    REPLY("+\r\n", '+', 0),
    REPLY("-ERR no\r\n", '-', 0),
    REPLY(":1\r\n", ':', 1),
    REPLY(":-9223372036854775808\r\n", ':', INT64_MIN),
    REPLY("$0\r\n\r\n", '$', 0),
    REPLY("$3\r\nabc\r\n", '$', 3),
    REPLY("$11\r\na\r\n$5\r\n\0\0\0*\r\n", '$', 11),
    NIL("$-1\r\n", '$', -1),
    NIL("*-1\r\n", '*', -1),
    REPLY("*0\r\n", '*', 0),
    REPLY("*2\r\n$1\r\na\r\n$-1\r\n", '*', 2),
    REPLY("*6\r\n$1\r\na\r\n$0\r\n\r\n$-1\r\n$12\r\n$1\r\na\r\n$-1\r\n\r\n:1\r\n$1\r\nb\r\n", '*', 6),
    REPLY("*3\r\n$1\r\na\r\n*3\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n$1\r\ne\r\n", '*', 3),
    REPLY("*2\r\n|1\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n", '*', 2),
    REPLY("*3\r\n*0\r\n*2\r\n:1\r\n*1\r\n+x\r\n-ERR\r\n", '*', 3),
    NIL("_\r\n", '_', 0),
    REPLY("#t\r\n", '#', 0),
    REPLY("#f\r\n", '#', 0),
    REPLY(",1.5\r\n", ',', 0),
    REPLY(",-1e+10\r\n", ',', 0),
    REPLY(",1e99999\r\n", ',', 0),
    REPLY(",inf\r\n", ',', 0),
    REPLY(",-inf\r\n", ',', 0),
    REPLY(",nan\r\n", ',', 0),
    REPLY(",-nan\r\n", ',', 0),
    REPLY(",10\r\n", ',', 0),
    REPLY("(3492890328409238509324850943850943825024385\r\n", '(', 0),
    REPLY("(-1\r\n", '(', 0),
    REPLY("!21\r\nSYNTAX invalid syntax\r\n", '!', 21),
    REPLY("=15\r\ntxt:Some string\r\n", '=', 15),
    REPLY("%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n:2\r\n", '%', 2),
    REPLY("%0\r\n", '%', 0),
    REPLY("~2\r\n+a\r\n+b\r\n", '~', 2),
    REPLY(">3\r\n+message\r\n+ch\r\n$1\r\nx\r\n", '>', 3),
    REPLY("|1\r\n+ttl\r\n:3600\r\n:7\r\n", ':', 7),
    REPLY("|0\r\n+OK\r\n", '+', 0),
    REPLY("|1\r\n+a\r\n|1\r\n+b\r\n+c\r\n:1\r\n*1\r\n:5\r\n", '*', 1),
    REPLY("*2\r\n|1\r\n+a\r\n:1\r\n:2\r\n|1\r\n+b\r\n%1\r\n:1\r\n:2\r\n$1\r\nx\r\n", '*', 2),
    REPLY("%1\r\n|2\r\n+a\r\n+b\r\n+c\r\n+d\r\n+key\r\n~1\r\n_\r\n", '%', 1),
};

static void test_replies_survive_any_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(replies); i++) {
        check_reply(&replies[i], replies[i].wire.len, 1);
        check_reply(&replies[i], 1, 1);
        for (size_t cut = 1; cut < replies[i].wire.len; cut++)
            check_reply(&replies[i], cut, replies[i].wire.len);
    }
}

/* The end is found although more follows. */
static void test_replies_end_where_they_end(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(replies); i++) {
        for (size_t j = 0; j < ARRAY_COUNT(replies); j++) {
            struct resp_reply_parser parser = {0};
            char wire[256];
            size_t scanned;
            struct bytes data;

            memcpy(wire, replies[i].wire.data, replies[i].wire.len);
            memcpy(wire + replies[i].wire.len, replies[j].wire.data, replies[j].wire.len);
            data = bytes_of(wire, replies[i].wire.len + replies[j].wire.len);
            assert_int_equal(resp_reply_scan(&parser, &limits, data, &scanned), PARSE_OK);
            assert_int_equal(scanned, replies[i].wire.len);
            assert_int_equal(resp_reply_scan(&parser, &limits, bytes_skip(data, scanned), &scanned),
                             PARSE_OK);
            assert_int_equal(scanned, replies[j].wire.len);
            assert_int_equal(parser.type, replies[j].type);
            assert_int_equal(resp_value_len(bytes_skip(data, replies[i].wire.len)), scanned);
        }
    }
}

static void test_broken_replies_are_refused_at_any_cut(void **state)
{
    static const struct bytes wires[] = {
        BYTES("x\r\n"), BYTES("\r\n"), BYTES("\0\r\n"), BYTES("VALUE a 0 1\r\n"), BYTES("END\r\n"),
        BYTES("+a\nb\r\n"), BYTES("+a\rb\r\n"), BYTES("+a\n"), BYTES("-ERR\r\r\n"),
        BYTES(":\r\n"), BYTES(":1 \r\n"), BYTES(":+1\r\n"), BYTES(":01\r\n"), BYTES(":-0\r\n"),
        BYTES(":9223372036854775808\r\n"), BYTES(":1.5\r\n"),
        BYTES("$\r\n"), BYTES("$-2\r\n"), BYTES("$+1\r\nx\r\n"), BYTES("$01\r\nx\r\n"),
        BYTES("$?\r\n;1\r\na\r\n;0\r\n"), BYTES("*?\r\n:1\r\n.\r\n"), BYTES("%?\r\n"),
        BYTES("$2147483647\r\n"), BYTES("$536870913\r\n"), BYTES("$18446744073709551617\r\n"),
        BYTES("$3\r\nabcd\r\n"), BYTES("$3\r\nabc\n\r"), BYTES("$3\r\nabc\r\r"),
        BYTES("$3\r\nab\r\n\r\r"),
        BYTES("!-1\r\n"), BYTES("=-1\r\n"), BYTES("=3\r\ntxt\r\n"), BYTES("%-1\r\n"),
        BYTES("~-1\r\n"), BYTES(">-1\r\n"), BYTES("|-1\r\n"),
        BYTES("*4294967297\r\n"), BYTES("*9999999999999999999999\r\n"), BYTES("*2147483648\r\n"),
        BYTES("_x\r\n"), BYTES("#\r\n"), BYTES("#x\r\n"), BYTES("#tt\r\n"),
        BYTES(",\r\n"), BYTES(",abc\r\n"), BYTES(",1.5x\r\n"), BYTES(",1e\r\n"), BYTES(",.5\r\n"),
        BYTES(",-\r\n"), BYTES(",1,5\r\n"),
        BYTES("(\r\n"), BYTES("(-\r\n"), BYTES("(12a\r\n"),
        BYTES("*2\r\n:1\r\nx\r\n"), BYTES("*1\r\n>1\r\n+a\r\n"), BYTES("*1\r\n*1\r\n$-3\r\n"),
        BYTES("*3\r\n$1\r\na\r\n$01\r\nx\r\n"), BYTES("*3\r\n$1\r\nab\r\n$1\r\nc\r\n"),
        BYTES("*3\r\n$536870913\r\n"), BYTES("*3\r\n$18446744073709551617\r\n"),
        BYTES("*3\r\n$-2\r\n"), BYTES("*3\r\n$\r\n"), BYTES("*3\r\n$1\r\na\n\r$1\r\n"),
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(wires); i++) {
        for (size_t cut = 1; cut <= wires[i].len; cut++) {
            for (size_t step = 1; step <= wires[i].len; step += wires[i].len - 1) {
                struct resp_reply_parser parser = {0};
                size_t total;

                assert_int_equal(feed(&parser, wires[i], cut, step, &total), PARSE_BAD);
                assert_non_null(parser.error);
            }
        }
    }
}

static void test_depth_is_bounded(void **state)
{
    char wire[4 * (RESP_DEPTH_MAX + 1) + 4];
    struct resp_reply_parser parser = {0};
    size_t scanned;

    (void)state;
    for (size_t i = 0; i <= RESP_DEPTH_MAX; i++)
        memcpy(wire + 4 * i, "*1\r\n", 4);
    memcpy(wire + 4 * RESP_DEPTH_MAX, ":1\r\n", 4);
    assert_int_equal(
        resp_reply_scan(&parser, &limits, bytes_of(wire, 4 * RESP_DEPTH_MAX + 4), &scanned),
        PARSE_OK);
    memcpy(wire + 4 * RESP_DEPTH_MAX, "*1\r\n", 4);
    assert_int_equal(
        resp_reply_scan(&parser, &limits, bytes_of(wire, 4 * RESP_DEPTH_MAX + 4), &scanned),
        PARSE_BAD);
    assert_string_equal(parser.error, "nested too deep");
}

/* A line without end is refused at the limit, and each byte is looked at once. */
static void test_lines_are_bounded(void **state)
{
    size_t len = 70000;
    char *line = malloc(len);
    struct resp_reply_parser parser = {0};
    size_t scanned = 0;
    size_t refused_at = 0;

    (void)state;
    assert_non_null(line);
    memset(line, 'a', len);
    line[0] = '-';
    for (size_t have = 1; have <= len; have++) {
        enum parse_result result = resp_reply_scan(&parser, &limits, bytes_of(line, have), &scanned);

        assert_int_equal(scanned, 0);
        if (result == PARSE_BAD) {
            refused_at = have;
            break;
        }
        assert_int_equal(parser.line_off, have);
    }
    assert_int_equal(refused_at, limits.line_max + 1);
    free(line);
}

/* A big bulk passes piece by piece: nothing has to be kept. */
static void test_a_bulk_streams(void **state)
{
    static const char chunk[4096];
    struct resp_reply_parser parser = {0};
    size_t scanned;
    uint64_t left = UINT64_C(512) << 20;

    (void)state;
    assert_int_equal(resp_reply_scan(&parser, &limits, BYTES("*1\r\n$536870912\r\n"), &scanned),
                     PARSE_MORE);
    assert_int_equal(scanned, 16);
    assert_true(parser.bulk_left == left + 2);
    assert_int_equal(parser.type, '*');
    for (int i = 0; i < 100; i++, left -= sizeof(chunk)) {
        assert_int_equal(
            resp_reply_scan(&parser, &limits, bytes_of(chunk, sizeof(chunk)), &scanned), PARSE_MORE);
        assert_int_equal(scanned, sizeof(chunk));
    }
    assert_true(parser.bulk_left == left + 2);
}

static void test_values_are_read_in_order(void **state)
{
    struct bytes cursor = BYTES("*6\r\n$3\r\na\r\n\r\n:-7\r\n$-1\r\n%1\r\n+k\r\n,2.5\r\n"
                                "=5\r\ntxt:x\r\n-ERR x\r\n");
    static const struct {
        char type;
        int64_t integer;
        const char *payload;
        bool is_null;
    } wants[] = {
        {'*', 6, "", false},  {'$', 3, "a\r\n", false}, {':', -7, "-7", false},
        {'$', -1, "", true},  {'%', 1, "", false},      {'+', 0, "k", false},
        {',', 0, "2.5", false}, {'=', 5, "txt:x", false}, {'-', 0, "ERR x", false},
    };
    struct resp_value value;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(wants); i++) {
        assert_true(resp_next(&cursor, &value));
        assert_int_equal(value.type, wants[i].type);
        assert_true(value.integer == wants[i].integer);
        assert_int_equal(value.is_null, wants[i].is_null);
        assert_int_equal(value.payload.len, strlen(wants[i].payload));
        assert_memory_equal(value.payload.data, wants[i].payload, value.payload.len);
    }
    assert_int_equal(cursor.len, 0);
    assert_false(resp_next(&cursor, &value));
}

/* Not complete, or not a value: refused, without a read too far. */
static void test_pieces_are_no_values(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(replies); i++) {
        for (size_t len = 0; len < replies[i].wire.len; len++) {
            char *copy = malloc(len > 0 ? len : 1);
            struct bytes cursor = bytes_of(copy, len);
            struct resp_value value;

            assert_non_null(copy);
            memcpy(copy, replies[i].wire.data, len);
            assert_int_equal(resp_value_len(cursor), 0);
            while (resp_next(&cursor, &value))
                assert_true(cursor.len < len);
            free(copy);
        }
    }
}

/* Nothing of it is read past its end, whatever is missing; what is not bulks and nulls is for the scanner. */
static void test_an_array_of_bulks_is_taken_whole_or_not_at_all(void **state)
{
    const struct bytes wire = BYTES("*4\r\n$1\r\na\r\n$-1\r\n$0\r\n\r\n$10\r\n0123456789\r\n");
    const struct proto_limits small = {.line_max = 256, .bulk_max = 9};
    uint32_t lens[5] = {0};

    (void)state;
    for (size_t len = 0; len < wire.len; len++) {
        char *copy = malloc(len > 0 ? len : 1);

        assert_non_null(copy);
        memcpy(copy, wire.data, len);
        assert_int_equal(resp_bulks_scan(bytes_of(copy, len), &limits, 4, lens), 0);
        free(copy);
    }
    assert_int_equal(resp_bulks_scan(wire, &limits, 4, lens), wire.len);
    assert_int_equal(lens[0], 7);
    assert_int_equal(lens[1], 5);
    assert_int_equal(lens[2], 6);
    assert_int_equal(lens[3], 17);
    assert_int_equal(resp_bulks_scan(wire, &limits, 3, lens), 0);
    assert_int_equal(resp_bulks_scan(wire, &limits, 5, lens), 0);
    assert_int_equal(resp_bulks_scan(wire, &small, 4, lens), 0);
    assert_int_equal(resp_bulks_scan(BYTES("*1\r\n:1\r\n"), &limits, 1, lens), 0);
    assert_int_equal(resp_bulks_scan(BYTES("*1\r\n$01\r\na\r\n"), &limits, 1, lens), 0);
    assert_int_equal(resp_bulks_scan(BYTES("*1\r\n$1\r\nab\r"), &limits, 1, lens), 0);
    assert_int_equal(resp_bulks_scan(BYTES("*1\r\n$1\r\na\r\n+more\r\n"), &limits, 1, lens), 11);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replies_survive_any_cut),
        cmocka_unit_test(test_replies_end_where_they_end),
        cmocka_unit_test(test_broken_replies_are_refused_at_any_cut),
        cmocka_unit_test(test_depth_is_bounded),
        cmocka_unit_test(test_lines_are_bounded),
        cmocka_unit_test(test_a_bulk_streams),
        cmocka_unit_test(test_values_are_read_in_order),
        cmocka_unit_test(test_pieces_are_no_values),
        cmocka_unit_test(test_an_array_of_bulks_is_taken_whole_or_not_at_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
