/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of memcache's text protocol: every frame is read whole, cut in two at each byte, and byte by
 * byte, alone, behind and before other requests; what was understood must always be the same.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "tests/unit/common/proto/memcache_trace.h"

struct vector {
    struct bytes wire;
    const char *expected;
};
#define V(wire_, expected_) {BYTES(wire_), expected_}

static const struct proto_limits limits = {
    .args_max = 1024, .line_max = 65536, .bulk_max = 1 << 20, .value_max = 1 << 20, .key_max = 250};

static struct trace trace;

static void check(struct bytes wire, const char *expected)
{
    for (size_t cut = 0; cut <= wire.len; cut++) {
        trace_stream(&trace, &limits, wire, cut, wire.len);
        if (strcmp(trace.text, expected) != 0)
            print_error("cut at %zu of: %.*s\n", cut, BYTES_ARG(wire));
        assert_string_equal(trace.text, expected);
    }
    for (size_t step = 1; step <= 3; step++) {
        trace_stream(&trace, &limits, wire, 0, step);
        assert_string_equal(trace.text, expected);
    }
}

/* The same with three requests before it and three behind it. */
static void check_between(struct bytes wire, const char *expected)
{
#define AROUND       "get a\r\nset b 0 0 11\r\nflush_all\r\n\r\ndelete c noreply\r\n"
#define AROUND_TRACE "get a\nset b 0 0 11<flush_all\r\n>\ndelete c noreply\n"
    static char bytes[100000], text[100000];
    bool closes = strstr(expected, " X\n") != NULL;
    size_t len = sizeof(AROUND) - 1;

    memcpy(bytes, AROUND, len);
    memcpy(bytes + len, wire.data, wire.len);
    memcpy(bytes + len + wire.len, AROUND, len);
    snprintf(text, sizeof(text), "%s%s%s", AROUND_TRACE, expected, closes ? "" : AROUND_TRACE);
    for (size_t step = 1; step < 5; step++) {
        trace_stream(&trace, &limits, bytes_of(bytes, 2 * len + wire.len), 0, step);
        assert_string_equal(trace.text, text);
    }
    trace_stream(&trace, &limits, bytes_of(bytes, 2 * len + wire.len), 2 * len + wire.len, 1);
    assert_string_equal(trace.text, text);
}

static void check_all(const struct vector *vectors, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        check(vectors[i].wire, vectors[i].expected);
        check_between(vectors[i].wire, vectors[i].expected);
    }
}
#define CHECK_ALL(vectors) check_all((vectors), ARRAY_COUNT(vectors))

#define K10  "kkkkkkkkkk"
#define K50  K10 K10 K10 K10 K10
#define K250 K50 K50 K50 K50 K50
#define K251 K250 "k"

static void test_every_classic_command_is_read(void **state)
{
    static const struct vector vectors[] = {
        V("get a\r\n", "get a\n"),
        V("get a b a\r\n", "get a b a\n"),
        V("gets a b\r\n", "gets a b\n"),
        V("gat 10 a b\r\n", "gat 10 a b\n"),
        V("gats -1 a\r\n", "gats -1 a\n"),
        V("set a 1 2 3\r\nabc\r\n", "set a 1 2 3<abc>\n"),
        V("set a 4294967295 -1 0\r\n\r\n", "set a 4294967295 -1 0<>\n"),
        V("set a 0 0 11 noreply\r\n\r\nflush_all\r\n", "set a 0 0 11 noreply<\r\nflush_all>\n"),
        V("set a 0 0 13\r\n\r\nflush_all\r\n\r\n", "set a 0 0 13<\r\nflush_all\r\n>\n"),
        V("add a 0 2147483647 1\r\n\n\r\n", "add a 0 2147483647 1<\n>\n"),
        V("replace a 0 -2147483648 1\r\nx\r\n", "replace a 0 -2147483648 1<x>\n"),
        V("append a 0 0 1\r\nx\r\n", "append a 0 0 1<x>\n"),
        V("prepend a 0 0 1 noreply\r\nx\r\n", "prepend a 0 0 1 noreply<x>\n"),
        V("cas a 0 0 1 18446744073709551615\r\nx\r\n",
          "cas a 0 0 1 18446744073709551615<x>\n"),
        V("cas a 0 0 1 5 noreply\r\nx\r\n", "cas a 0 0 1 5 noreply<x>\n"),
        V("delete a\r\n", "delete a\n"),
        V("delete a noreply\r\n", "delete a noreply\n"),
        V("delete a 0\r\n", "~delete a\n"),
        V("delete a 0 noreply\r\n", "~delete a noreply\n"),
        V("incr a 18446744073709551615\r\n", "incr a 18446744073709551615\n"),
        V("decr a 5 noreply\r\n", "decr a 5 noreply\n"),
        V("touch a -1\r\n", "touch a -1\n"),
        V("touch a 100 noreply\r\n", "touch a 100 noreply\n"),
        V("flush_all\r\n", "flush_all\n"),
        V("flush_all 10 noreply\r\n", "flush_all 10 noreply\n"),
        V("flush_all noreply\r\n", "flush_all noreply\n"),
        V("stats\r\n", "stats\n"),
        V("stats items\r\n", "stats items\n"),
        V("version\r\n", "version\n"),
        V("verbosity 1\r\n", "verbosity 1\n"),
        V("verbosity 1 noreply\r\n", "verbosity 1 noreply\n"),
        V("quit\r\n", "quit\n"),
        V("get " K250 "\r\n", "get " K250 "\n"),
        V("get \xff\x80\xc3\xa9\r\n", "get \xff\x80\xc3\xa9\n"),
    };

    (void)state;
    CHECK_ALL(vectors);
}

static void test_other_writings_are_made_canonical(void **state)
{
    static const struct vector vectors[] = {
        V("get a\n", "~get a\n"),
        V("get  a   b \r\n", "~get a b\n"),
        V("  get a\r\n", "~get a\n"),
        V("gat 010 a\r\n", "~gat 10 a\n"),
        V("set a 007 -0 003\nabc\r\n", "~set a 7 0 3<abc>\n"),
        V("set a 0 0 3 reply\r\nabc\r\n", "~set a 0 0 3<abc>\n"),
        V("cas a 0 0 3 07 x\r\nabc\r\n", "~cas a 0 0 3 7<abc>\n"),
        V("set  a 0 0 3\r\nabc\r\n", "~set a 0 0 3<abc>\n"),
        V("incr a 00\r\n", "~incr a 0\n"),
        V("touch a 05 x\r\n", "~touch a 5\n"),
        V("touch a 4294967295\r\n", "~touch a -1\n"),
        V("touch a 2147483648\r\n", "~touch a -2147483648\n"),
        V("set a 0 4294967295 3\r\nabc\r\n", "~set a 0 -1 3<abc>\n"),
        V("gat 4294967286 a\r\n", "~gat -10 a\n"),
        V("flush_all 00\n", "~flush_all 0\n"),
        V("flush_all -0 x\r\n", "~flush_all 0\n"),
        V("flush_all 5 x\r\n", "~flush_all 5\n"),
        V("verbosity 01 x\r\n", "~verbosity 1\n"),
        V("verbosity 1 x\r\n", "~verbosity 1\n"),
        V("stats   items\n", "~stats items\n"),
        V("mn x y\r\n", "~mn\n"),
        V("mg  a v\n", "~mg a v\n"),
        V("ms a 03 T0\r\nabc\r\n", "~ms a 3 T0<abc>\n"),
    };

    (void)state;
    CHECK_ALL(vectors);
}

/* m1: the block is thrown away, exactly; what follows is a command again. */
static void test_m1_long_key_swallows_its_block(void **state)
{
    static const struct vector vectors[] = {
        V("set " K251 " 0 0 9\r\nflush_all\r\nget a\r\n",
          "CLIENT_ERROR key too long\nget a\n"),
        V("cas " K251 " 0 0 9 5\r\nflush_all\r\nget a\r\n",
          "CLIENT_ERROR key too long\nget a\n"),
        V("ms " K251 " 9\r\nflush_all\r\nget a\r\n", "CLIENT_ERROR key too long\nget a\n"),
        V("get " K251 "\r\nget a\r\n", "CLIENT_ERROR key too long\nget a\n"),
        V("get a " K251 " b\r\nget a\r\n", "CLIENT_ERROR key too long\nget a\n"),
        V("gat 0 " K251 "\r\n", "CLIENT_ERROR key too long\n"),
        V("delete " K251 "\r\n", "CLIENT_ERROR key too long\n"),
        V("incr " K251 " 1\r\n", "CLIENT_ERROR key too long\n"),
        V("touch " K251 " 1\r\n", "CLIENT_ERROR key too long\n"),
        V("mg " K251 " v\r\n", "CLIENT_ERROR key too long\n"),
        /* A block that does not end where it says: nothing of it may run. */
        V("set " K251 " 0 0 5\r\nflush_all\r\nget a\r\n",
          "CLIENT_ERROR key too long\nCLIENT_ERROR bad data chunk X\n"),
        V("set " K251 " 0 0 9\nflush_all\nget a\r\n",
          "CLIENT_ERROR key too long\nCLIENT_ERROR bad data chunk X\n"),
    };

    (void)state;
    CHECK_ALL(vectors);
}

static void test_m2_unreadable_length_closes(void **state)
{
    static const char *const lengths[] = {"-1", "x", "", "+5", "0x10", "1e3", "4294967297",
                                          "18446744073709551617", "2147483648", "5\t", "-", "5,"};
    static const char *const forms[] = {"set a 0 0 %s\r\nflush_all\r\nget a\r\n",
                                        "set a 0 0 %s noreply\r\nflush_all\r\nget a\r\n",
                                        "cas a 0 0 %s 1\r\nflush_all\r\nget a\r\n",
                                        "append a 0 0 %s\nflush_all\r\n",
                                        "ms a %s T0\r\nflush_all\r\nmn\r\n"};
    char wire[200];

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(lengths); i++) {
        for (size_t j = 0; j < ARRAY_COUNT(forms); j++) {
            /* "set a 0 0  noreply": "noreply" stands where the length should. */
            snprintf(wire, sizeof(wire), forms[j], lengths[i]);
            if (lengths[i][0] == '\0' && j == 2)
                continue; /* "1" becomes the length, see the wrong counts */
            check(bytes_of_string(wire), "CLIENT_ERROR bad data length X\n");
            check_between(bytes_of_string(wire), "CLIENT_ERROR bad data length X\n");
        }
    }
    check(BYTES("set\r\n"), "CLIENT_ERROR bad data length X\n");
    check(BYTES("set a\r\nflush_all\r\n"), "CLIENT_ERROR bad data length X\n");
    check(BYTES("set a 0 0\r\nflush_all\r\n"), "CLIENT_ERROR bad data length X\n");
    check(BYTES("ms a\r\nflush_all\r\n"), "CLIENT_ERROR bad data length X\n");
    check(BYTES("ms a S5\r\nhello\r\n"), "CLIENT_ERROR bad data length X\n");
}

/* A storage line with too few or too many words: its block is thrown away all the same. */
static void test_wrong_counts_of_a_storage_line_swallow(void **state)
{
    static const struct vector vectors[] = {
        V("set a 0 0 9 noreply x\r\nflush_all\r\nget a\r\n", "ERROR\nget a\n"),
        V("cas a 0 0 9\r\nflush_all\r\nget a\r\n", "ERROR\nget a\n"),
        V("cas a 0 0 9 1 noreply x\r\nflush_all\r\nget a\r\n", "ERROR\nget a\n"),
    };

    (void)state;
    CHECK_ALL(vectors);
}

static void test_m3_large_value_is_swallowed_without_buffering(void **state)
{
    struct mc_parser parser = {0};
    struct mc_keys keys;
    struct mc_request request;
    static char block[70000];
    uint64_t left = (1u << 20) + 1 + 2;
    const char *line = "set a 0 0 1048577\r\n";

    (void)state;
    mc_keys_init(&keys);
    assert_int_equal(mc_parse(&parser, &keys, &limits, bytes_of_string(line), &request), PARSE_OK);
    assert_int_equal(request.status, MC_REQ_ERROR);
    assert_string_equal(request.error, "SERVER_ERROR object too large for cache");
    assert_int_equal(request.len, strlen(line));
    memset(block, 'x', sizeof(block));
    while (left > 0) {
        size_t len = MIN(left, sizeof(block));

        if (left == len)
            memcpy(block + len - 2, "\r\n", 2);
        assert_int_equal(mc_parse(&parser, &keys, &limits, bytes_of(block, len), &request),
                         PARSE_OK);
        assert_int_equal(request.status, MC_REQ_SKIP);
        assert_int_equal(request.len, len);
        left -= len;
    }
    assert_int_equal(mc_parse(&parser, &keys, &limits, BYTES("get a\r\n"), &request), PARSE_OK);
    assert_int_equal(request.status, MC_REQ_OK);
    mc_keys_deinit(&keys);
    check(BYTES("set a 0 0 2147483647\r\nflush_all\r\n"), "SERVER_ERROR object too large for cache\n");
    check(BYTES("set a 0 0 2147483647 noreply\r\nflush_all\r\n"), "");
    check(BYTES("ms a 2147483647\r\nmn\r\n"), "SERVER_ERROR object too large for cache\n");
    check(BYTES("set a 0 0 2147483648\r\nflush_all\r\n"), "CLIENT_ERROR bad data length X\n");
}

static void test_m4_block_without_crlf_closes(void **state)
{
    static const struct vector vectors[] = {
        V("set a 0 0 3\r\nabcdef\r\nget a\r\n", "CLIENT_ERROR bad data chunk X\n"),
        V("set a 0 0 9\r\nflush_all\nget a\r\n", "CLIENT_ERROR bad data chunk X\n"),
        V("set a 0 0 9\r\nflush_all\r\rget a\r\n", "CLIENT_ERROR bad data chunk X\n"),
        V("set a 0 0 0\r\nflush_all\r\n", "CLIENT_ERROR bad data chunk X\n"),
        V("set a 0 0 3 noreply\r\nabcdef\r\nget a\r\n", "CLIENT_ERROR bad data chunk X\n"),
        V("ms a 3\r\nabcdef\r\nmn\r\n", "CLIENT_ERROR bad data chunk X\n"),
        V("ms a 3 q\r\nabcdef\r\nmn\r\n", "CLIENT_ERROR bad data chunk X\n"),
    };

    (void)state;
    CHECK_ALL(vectors);
}

static void test_m5_noreply_keeps_silent(void **state)
{
    static const struct vector vectors[] = {
        V("set " K251 " 0 0 9 noreply\r\nflush_all\r\nget a\r\n", "get a\n"),
        V("set a x 0 9 noreply\r\nflush_all\r\nget a\r\n", "get a\n"),
        V("cas a 0 0 9 noreply\r\nflush_all\r\nget a\r\n", "get a\n"),
        V("cas a 0 0 9 x noreply\r\nflush_all\r\nget a\r\n", "get a\n"),
        V("incr a x noreply\r\nget a\r\n", "get a\n"),
        V("touch a x noreply\r\nget a\r\n", "get a\n"),
        V("delete a 5 noreply\r\nget a\r\n", "get a\n"),
        V("delete " K251 " noreply\r\nget a\r\n", "get a\n"),
        V("flush_all x noreply\r\nget a\r\n", "get a\n"),
        V("verbosity x noreply\r\nget a\r\n", "get a\n"),
        V("verbosity noreply\r\nget a\r\n", "get a\n"),
    };

    (void)state;
    CHECK_ALL(vectors);
}

static void test_m6_odd_lines(void **state)
{
    static const struct vector vectors[] = {
        V("get\r\n", "ERROR\n"),         V("get \r\n", "ERROR\n"),
        V("gets\r\n", "ERROR\n"),        V("gat\r\n", "ERROR\n"),
        V("gat 10\r\n", "ERROR\n"),      V("gats 10 \r\n", "ERROR\n"),
        V("incr\r\n", "ERROR\n"),        V("incr a\r\n", "ERROR\n"),
        V("incr a 1 2 3\r\n", "ERROR\n"), V("touch a\r\n", "ERROR\n"),
        V("delete\r\n", "ERROR\n"),      V("delete a 0 noreply x\r\n", "ERROR\n"),
        V("verbosity\r\n", "ERROR\n"),   V("verbosity 1 2 3\r\n", "ERROR\n"),
        V("flush_all 1 2 3\r\n", "ERROR\n"),
        V("\r\n", "ERROR\n"),            V("\n\n", "ERROR\nERROR\n"),
        V("   \r\n", "ERROR\n"),         V("\r\r\n", "ERROR\n"),
        V("GET a\r\n", "ERROR\n"),       V("bogus a b c\r\n", "ERROR\n"),
        V("getx a\r\n", "ERROR\n"),      V("ge\r\n", "ERROR\n"),
        V("mx a\r\n", "ERROR\n"),        V("m\r\n", "ERROR\n"),
        V("delete a x\r\n",
          "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\n"),
        V("verbosity x\r\n", "CLIENT_ERROR bad command line format\n"),
        V("stats a\tb\r\n", "CLIENT_ERROR bad command line format\n"),
    };
    static char wire[70000], expected[70000];
    size_t len;

    (void)state;
    CHECK_ALL(vectors);
    memset(wire, ' ', 400);
    memcpy(wire, "get", 3);
    memcpy(wire + 303, "k\r\n", 3);
    check(bytes_of(wire, 306), "~get k\n");
    len = 3;
    for (unsigned i = 0; i < 5000; i++)
        len += (size_t)snprintf(wire + len, 16, " key%u", i);
    memcpy(expected, wire, len);
    memcpy(expected + len, "\n", 2);
    memcpy(wire + len, "\r\n", 2);
    trace_stream(&trace, &limits, bytes_of(wire, len + 2), 0, 1000);
    assert_string_equal(trace.text, expected);
}

static void test_room_of_a_huge_get_is_given_back(void **state)
{
    static char wire[3 + 2 * 2000 + 1];
    struct mc_keys keys;
    struct mc_parser parser = {0};
    struct mc_request request;

    (void)state;
    memcpy(wire, "get", 3);
    for (size_t at = 3; at < sizeof(wire) - 1; at += 2)
        memcpy(wire + at, " k", 2);
    wire[sizeof(wire) - 1] = '\n';
    mc_keys_init(&keys);
    assert_int_equal(mc_parse(&parser, &keys, &limits, bytes_of(wire, sizeof(wire)), &request), PARSE_OK);
    assert_int_equal(request.key_count, 2000);
    mc_keys_trim(&keys);
    assert_int_equal(keys.cap, 0);
    assert_int_equal(mc_parse(&parser, &keys, &limits, BYTES("get a b\r\n"), &request), PARSE_OK);
    mc_keys_trim(&keys);
    assert_int_equal(request.key_count, 2);
    assert_true(keys.cap > 0);
    mc_keys_deinit(&keys);
}

static void test_m6_line_without_end_is_refused(void **state)
{
    static char wire[200000];

    (void)state;
    memset(wire, 'a', sizeof(wire));
    for (size_t step = 1000; step < sizeof(wire); step += 40000) {
        trace_stream(&trace, &limits, bytes_of(wire, sizeof(wire)), 0, step);
        assert_string_equal(trace.text, "CLIENT_ERROR line too long X\n");
    }
    /* The last length that is taken, and the first that is not. */
    wire[limits.line_max] = '\n';
    for (size_t step = 1; step < sizeof(wire); step += 65535) {
        trace_stream(&trace, &limits, bytes_of(wire, limits.line_max + 1), 65536, step);
        assert_string_equal(trace.text, "ERROR\n");
    }
    wire[limits.line_max] = 'a';
    wire[limits.line_max + 1] = '\n';
    trace_stream(&trace, &limits, bytes_of(wire, limits.line_max + 2), limits.line_max, 1);
    assert_string_equal(trace.text, "CLIENT_ERROR line too long X\n");
    trace_stream(&trace, &limits, bytes_of(wire, limits.line_max + 2), limits.line_max + 2, 1);
    assert_string_equal(trace.text, "CLIENT_ERROR line too long X\n");
}

static void test_m7_control_bytes_in_keys(void **state)
{
    static const struct vector vectors[] = {
        V("get a\0b\r\nget a\r\n", "CLIENT_ERROR invalid key\nget a\n"),
        V("get a\x7f\r\n", "CLIENT_ERROR invalid key\n"),
        V("get \x01\r\n", "CLIENT_ERROR invalid key\n"),
        V("get a\tb\r\n", "CLIENT_ERROR invalid key\n"),
        V("get a\rb\r\n", "CLIENT_ERROR invalid key\n"),
        V("get a\r\r\n", "CLIENT_ERROR invalid key\n"),
        V("get a b\x1f c\r\n", "CLIENT_ERROR invalid key\n"),
        V("get aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\x02\r\n",
          "CLIENT_ERROR invalid key\n"),
        V("set a\0b 0 0 9\r\nflush_all\r\nget a\r\n", "CLIENT_ERROR invalid key\nget a\n"),
        V("ms a\tb 9\r\nflush_all\r\nget a\r\n", "CLIENT_ERROR invalid key\nget a\n"),
        V("delete a\x1b\r\n", "CLIENT_ERROR invalid key\n"),
        V("mg a\x1b v\r\n", "CLIENT_ERROR invalid key\n"),
    };

    (void)state;
    CHECK_ALL(vectors);
}

/* As memcached does. A NUL is refused there, too. */
static void test_m7_a_node_takes_control_bytes_in_keys(void **state)
{
    static const struct vector vectors[] = {
        V("get a\0b\r\nget a\r\n", "CLIENT_ERROR invalid key\nget a\n"),
        V("get \x01\r\n", "get \x01\n"),
        V("get a\rb c\x7f\r\n", "get a\rb c\x7f\n"),
        V("get a\r\r\n", "get a\r\n"),
        V("set a\rb 0 0 9\r\nflush_all\r\nget a\r\n", "set a\rb 0 0 9<flush_all>\nget a\n"),
        V("ms a\tb 1\r\nx\r\n", "ms a\tb 1<x>\n"),
        V("delete a\x1b\r\n", "delete a\x1b\n"),
        V("me a\x1b\r\n", "me a\x1b\n"),
        V("me a\0b\r\n", "CLIENT_ERROR invalid key\n"),
    };
    struct proto_limits node_limits = limits;

    (void)state;
    node_limits.has_control_keys = true;
    for (size_t i = 0; i < ARRAY_COUNT(vectors); i++) {
        for (size_t cut = 0; cut <= vectors[i].wire.len; cut++) {
            trace_stream(&trace, &node_limits, vectors[i].wire, cut, vectors[i].wire.len);
            assert_string_equal(trace.text, vectors[i].expected);
        }
    }
}

/* What may be a storage command of another hand is no place to guess where its block ends. */
static void test_disguised_storage_commands_close(void **state)
{
    static const struct vector vectors[] = {
        V("SET a 0 0 9\r\nflush_all\r\n", "ERROR X\n"),
        V("Append a 0 0 9\r\nflush_all\r\n", "ERROR X\n"),
        V("MS a 9\r\nflush_all\r\n", "ERROR X\n"),
        V("set\ta\t0\t0\t9\r\nflush_all\r\n", "ERROR X\n"),
        V("set\0 a 0 0 9\r\nflush_all\r\n", "ERROR X\n"),
        V("SET a\r\nget a\r\n", "ERROR\nget a\n"),
        V("settle a 0 0 9\r\nget a\r\n", "ERROR\nget a\n"),
    };

    (void)state;
    CHECK_ALL(vectors);
}

static void test_m9_numbers(void **state)
{
#define BAD     "CLIENT_ERROR bad command line format\n"
#define DELTA   "CLIENT_ERROR invalid numeric delta argument\n"
#define EXPTIME "CLIENT_ERROR invalid exptime argument\n"
    static const struct vector vectors[] = {
        V("incr k -1\r\n", DELTA),
        V("incr k 18446744073709551616\r\n", DELTA),
        V("incr k x\r\n", DELTA),
        V("decr k 1x\r\n", DELTA),
        V("incr k +1\r\n", DELTA),
        V("touch k 99999999999\r\n", EXPTIME),
        V("touch k 4294967296\r\n", EXPTIME),
        V("touch k -2147483649\r\n", EXPTIME),
        V("touch k --1\r\n", EXPTIME),
        V("touch k -\r\n", EXPTIME),
        V("gat x k\r\n", EXPTIME),
        V("gat x\r\n", EXPTIME),
        V("gats 1x\r\n", EXPTIME),
        V("gat 99999999999 k\r\n", EXPTIME),
        V("flush_all 99999999999\r\n", EXPTIME),
        V("set k 0 99999999999 9\r\nflush_all\r\nget a\r\n", BAD "get a\n"),
        V("set k 4294967296 0 9\r\nflush_all\r\nget a\r\n", BAD "get a\n"),
        V("set k -1 0 9\r\nflush_all\r\nget a\r\n", BAD "get a\n"),
        V("cas k 0 0 9 -1\r\nflush_all\r\nget a\r\n", BAD "get a\n"),
        V("cas k 0 0 9 18446744073709551616\r\nflush_all\r\nget a\r\n", BAD "get a\n"),
    };

    (void)state;
    CHECK_ALL(vectors);
}

static void test_m10_quit_with_a_tail(void **state)
{
    (void)state;
    check(BYTES("quit\r\n\n"), "quit\nERROR\n"); /* the caller stops at quit */
}

static void test_m11_browsers_get_no_word(void **state)
{
    static const struct vector vectors[] = {
        V("GET / HTTP/1.1\r\nHost: x\r\n\r\nflush_all\r\n", " X\n"),
        V("POST /x HTTP/1.1\r\nflush_all\r\n", " X\n"),
        V("POST /\r\nflush_all\r\n", " X\n"),
        V("Host: localhost:11211\r\nflush_all\r\n", " X\n"),
        V("host: x\r\nflush_all\r\n", " X\n"),
    };

    (void)state;
    CHECK_ALL(vectors);
}

static void test_m12_operators_commands_are_marked(void **state)
{
    static const char *const lines[] = {"shutdown\r\n", "debug x\r\n", "lru_crawler enable\r\n",
                                        "watch fetchers\r\n", "slabs automove 1\r\n",
                                        "cache_memlimit 5\r\n", "lru tune 1\r\n",
                                        "refresh_certs\r\n", "extstore x 1\r\n", "debugtime p\r\n",
                                        "misbehave\r\n"};
    static const char *const served[] = {"flush_all\r\n", "stats\r\n", "verbosity 1\r\n",
                                         "version\r\n", "quit\r\n"};
    struct mc_parser parser = {0};
    struct mc_keys keys;
    struct mc_request request;

    (void)state;
    mc_keys_init(&keys);
    for (size_t i = 0; i < ARRAY_COUNT(lines) + ARRAY_COUNT(served); i++) {
        bool is_denied = i < ARRAY_COUNT(lines);
        const char *line = is_denied ? lines[i] : served[i - ARRAY_COUNT(lines)];

        assert_int_equal(mc_parse(&parser, &keys, &limits, bytes_of_string(line), &request),
                         PARSE_OK);
        assert_int_equal(request.status, MC_REQ_OK);
        assert_int_equal(mc_verb_info(request.verb)->is_denied, is_denied);
        assert_int_equal(mc_verb_info(request.verb)->kind, MC_KIND_LOCAL);
    }
    mc_keys_deinit(&keys);
}

/* A large block: the proxy learns key and length as soon as the line is there, and streams. */
static void test_large_block_shows_its_line_early(void **state)
{
    static const char wire[] = "cas abc 5 60 900000 77 noreply\r\nxxxx";
    struct mc_parser parser = {0};
    struct mc_keys keys;
    struct mc_request request;

    (void)state;
    mc_keys_init(&keys);
    for (size_t len = 1; len < sizeof(wire); len++) {
        assert_int_equal(mc_parse(&parser, &keys, &limits, bytes_of(wire, len), &request),
                         PARSE_MORE);
        if (len < 32) {
            assert_int_equal(request.partial_data_len, 0);
            continue;
        }
        assert_int_equal(request.partial_data_len, 900000);
        assert_int_equal(request.line_len, 32);
        assert_int_equal(parser.need, 32 + 900000 + 2);
        assert_int_equal(request.verb, MC_cas);
        assert_int_equal(request.value_len, 900000);
        assert_int_equal(request.flags, 5);
        assert_int_equal(request.exptime, 60);
        assert_int_equal(request.cas, 77);
        assert_true(request.is_noreply);
        assert_true(request.is_canonical);
        assert_true(request.is_write);
        assert_true(bytes_equal(request.route_key, BYTES("abc")));
    }
    mc_keys_deinit(&keys);
}

static void test_compose_respects_its_bounds(void **state)
{
    struct mc_parser parser = {0};
    struct mc_keys keys;
    struct mc_request request;
    struct bytes some[2];
    char out[64];

    (void)state;
    mc_keys_init(&keys);
    assert_int_equal(
        mc_parse(&parser, &keys, &limits, BYTES("gat 5 a bb ccc\r\n"), &request), PARSE_OK);
    some[0] = request.keys[2];
    some[1] = request.keys[0];
    assert_int_equal(mc_compose_line(&request, some, 2, out, sizeof(out)), 13);
    assert_memory_equal(out, "gat 5 ccc a\r\n", 13);
    for (size_t cap = 0; cap < 13; cap++) {
        char *exact = malloc(cap);

        assert_int_equal(mc_compose_line(&request, some, 2, exact, cap), 0);
        free(exact);
    }
    assert_int_equal(
        mc_parse(&parser, &keys, &limits, BYTES("delete a noreply\r\n"), &request), PARSE_OK);
    request.is_noreply = false;
    assert_int_equal(mc_compose_line(&request, NULL, 0, out, sizeof(out)), 10);
    assert_memory_equal(out, "delete a\r\n", 10);
    assert_int_equal(
        mc_parse(&parser, &keys, &limits, BYTES("mg a v q Oabc\r\n"), &request), PARSE_OK);
    request.is_quiet = false;
    assert_int_equal(mc_compose_line(&request, NULL, 0, out, sizeof(out)), 13);
    assert_memory_equal(out, "mg a v Oabc\r\n", 13);
    mc_keys_deinit(&keys);
}

static void test_verbs_are_found(void **state)
{
    bool is_quiet;

    (void)state;
    for (unsigned verb = 1; verb < MC_VERB_COUNT; verb++) {
        const struct mc_verb_info *info = mc_verb_info((enum mc_verb)verb);

        assert_int_equal(info->id, verb);
        if (info->name[0] != '\0')
            assert_int_equal(mc_verb_find(bytes_of_string(info->name)), verb);
        if (info->opcode != MC_OPCODE_NONE) {
            assert_ptr_equal(mc_verb_by_opcode(info->opcode, &is_quiet), info);
            assert_false(is_quiet);
        }
        if (info->quiet_opcode != MC_OPCODE_NONE) {
            assert_ptr_equal(mc_verb_by_opcode(info->quiet_opcode, &is_quiet), info);
            assert_true(is_quiet);
        }
    }
    assert_int_equal(mc_verb_find(BYTES("")), MC_none);
    assert_int_equal(mc_verb_find(BYTES("Get")), MC_none);
    assert_int_equal(mc_verb_find(BYTES("a_very_long_word_indeed")), MC_none);
    assert_null(mc_verb_by_opcode(0x30, &is_quiet));
    assert_null(mc_verb_by_opcode(0xff, &is_quiet));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_classic_command_is_read),
        cmocka_unit_test(test_other_writings_are_made_canonical),
        cmocka_unit_test(test_m1_long_key_swallows_its_block),
        cmocka_unit_test(test_m2_unreadable_length_closes),
        cmocka_unit_test(test_wrong_counts_of_a_storage_line_swallow),
        cmocka_unit_test(test_m3_large_value_is_swallowed_without_buffering),
        cmocka_unit_test(test_m4_block_without_crlf_closes),
        cmocka_unit_test(test_m5_noreply_keeps_silent),
        cmocka_unit_test(test_m6_odd_lines),
        cmocka_unit_test(test_room_of_a_huge_get_is_given_back),
        cmocka_unit_test(test_m6_line_without_end_is_refused),
        cmocka_unit_test(test_m7_control_bytes_in_keys),
        cmocka_unit_test(test_m7_a_node_takes_control_bytes_in_keys),
        cmocka_unit_test(test_disguised_storage_commands_close),
        cmocka_unit_test(test_m9_numbers),
        cmocka_unit_test(test_m10_quit_with_a_tail),
        cmocka_unit_test(test_m11_browsers_get_no_word),
        cmocka_unit_test(test_m12_operators_commands_are_marked),
        cmocka_unit_test(test_large_block_shows_its_line_early),
        cmocka_unit_test(test_compose_respects_its_bounds),
        cmocka_unit_test(test_verbs_are_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
