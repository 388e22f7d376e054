/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What servers answer, the hostile ones included. Every reply is read whole, cut in two at each byte,
 * and byte by byte; each scan sees a heap block of exactly the bytes that are there.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "common/proto/memcache.h"
#include <stdio.h>
#include <stdlib.h>

static const struct proto_limits limits = {
    .args_max = 1024, .line_max = 65536, .bulk_max = 1 << 20, .value_max = 1 << 20, .key_max = 250};

/* What came of a reply: result, how many bytes it took, its items ("key:length ..."). */
struct outcome {
    enum parse_result result;
    size_t used;
    bool is_end, is_error;
    char items[4096];
    char last[4096];
};

static void scan_stream(uint8_t kind, uint8_t verb, struct bytes wire, size_t cut, size_t step,
                        struct outcome *out)
{
    struct mc_reply_parser parser = {.expect = kind, .verb = verb};
    size_t have = cut;

    memset(out, 0, sizeof(*out));
    while (true) {
        size_t len = have - out->used;
        char *copy = malloc(len);
        struct mc_reply reply;

        memcpy(copy, wire.data + out->used, len);
        out->result = mc_reply_scan(&parser, &limits, bytes_of(copy, len), &reply);
        assert_true(reply.scanned <= len);
        out->used += reply.scanned;
        if (reply.is_item_start) {
            size_t at = strlen(out->items);

            assert_int_equal(out->result, PARSE_MORE);
            snprintf(out->items + at, sizeof(out->items) - at, "%.*s:%llu ",
                     BYTES_ARG(reply.item_key), (unsigned long long)reply.item_data_len);
        }
        out->is_end = reply.is_end;
        out->is_error = reply.is_error;
        if (out->result == PARSE_OK)
            snprintf(out->last, sizeof(out->last), "%.*s", BYTES_ARG(reply.line));
        free(copy);
        if (out->result != PARSE_MORE)
            break;
        if (!reply.is_item_start) {
            if (have == wire.len)
                break;
            have = MIN(wire.len, have + step);
        }
    }
    if (out->result == PARSE_BAD)
        assert_non_null(parser.error);
}

struct reply_vector {
    uint8_t kind, verb;
    struct bytes wire;
    enum parse_result result;
    const char *items;
};
#define GOOD(kind_, verb_, wire_, items_)                                                          \
    {MC_KIND_##kind_, MC_##verb_, BYTES(wire_), PARSE_OK, items_}
#define BAD(kind_, verb_, wire_)                                                                   \
    {MC_KIND_##kind_, MC_##verb_, BYTES(wire_), PARSE_BAD, NULL}
#define MORE(kind_, verb_, wire_)                                                                  \
    {MC_KIND_##kind_, MC_##verb_, BYTES(wire_), PARSE_MORE, NULL}

static void check_cut(const struct reply_vector *vector, struct bytes wire, size_t cut, size_t step)
{
    static struct outcome outcome;

    scan_stream(vector->kind, vector->verb, wire, cut, step, &outcome);
    if (outcome.result != vector->result)
        print_error("cut %zu, step %zu of: %.*s\n", cut, step, BYTES_ARG(wire));
    assert_int_equal(outcome.result, vector->result);
    if (vector->result == PARSE_OK) {
        assert_string_equal(outcome.items, vector->items);
        assert_int_equal(outcome.used, vector->wire.len);
    }
}

/* Alone, and with bytes behind it that are not its own. */
static void check(const struct reply_vector *vector)
{
    static char longer[20000];
    struct bytes tail = BYTES("VALUE x 0 3\r\nEND\r\nEND\r\n");

    for (size_t cut = 0; cut <= vector->wire.len; cut++)
        check_cut(vector, vector->wire, cut, vector->wire.len + 1);
    check_cut(vector, vector->wire, 0, 1);
    check_cut(vector, vector->wire, 0, 7);
    if (vector->result == PARSE_MORE)
        return;
    memcpy(longer, vector->wire.data, vector->wire.len);
    memcpy(longer + vector->wire.len, tail.data, tail.len);
    check_cut(vector, bytes_of(longer, vector->wire.len + tail.len), 0, 100000);
}

static void check_all(const struct reply_vector *vectors, size_t count)
{
    for (size_t i = 0; i < count; i++)
        check(&vectors[i]);
}
#define CHECK_ALL(vectors) check_all((vectors), ARRAY_COUNT(vectors))

static void test_good_replies(void **state)
{
    static const struct reply_vector vectors[] = {
        GOOD(GET, get, "END\r\n", ""),
        GOOD(GET, get, "VALUE a 0 5\r\nhello\r\nEND\r\n", "a:5 "),
        GOOD(GET, get, "VALUE a 0 0\r\n\r\nEND\r\n", "a:0 "),
        GOOD(GET, get, "VALUE a 4294967295 5\r\nEND\r\n\r\nVALUE b 0 5 77\r\nEND\r\n\r\nEND\r\n",
             "a:5 b:5 "),
        GOOD(GET, gets, "VALUE a 0 13 18446744073709551615\r\n\r\nflush_all\r\n\r\nEND\r\n",
             "a:13 "),
        GOOD(GET, get, "VALUE a 0 1\r\nx\r\nSERVER_ERROR out of memory\r\n", "a:1 "),
        GOOD(STORE, set, "STORED\r\n", ""),
        GOOD(STORE, add, "NOT_STORED\r\n", ""),
        GOOD(STORE, cas, "EXISTS\r\n", ""),
        GOOD(STORE, cas, "NOT_FOUND\r\n", ""),
        GOOD(STORE, none, "EXISTS\r\n", ""),
        GOOD(KEY_LINE, delete, "DELETED\r\n", ""),
        GOOD(KEY_LINE, delete, "NOT_FOUND\r\n", ""),
        GOOD(KEY_LINE, touch, "TOUCHED\r\n", ""),
        GOOD(KEY_LINE, incr, "18446744073709551615\r\n", ""),
        GOOD(KEY_LINE, decr, "0\r\n", ""),
        GOOD(KEY_LINE, none, "TOUCHED\r\n", ""),
        GOOD(META, mg, "HD\r\n", ""),
        GOOD(META, mg, "EN\r\n", ""),
        GOOD(META, mg, "HD s5 t-1 kfoo Oabc\r\n", ""),
        GOOD(META, mg, "VA 5 f0 kfoo O1 W\r\nEND\r\n\r\n", "foo:5 "),
        GOOD(META, mg, "VA 0\r\n\r\n", ":0 "),
        GOOD(META, md, "NF\r\n", ""),
        GOOD(META, md, "EX\r\n", ""),
        GOOD(META, ma, "VA 2 kn\r\n42\r\n", "n:2 "),
        GOOD(META, ma, "NS\r\n", ""),
        GOOD(META, me, "ME foo exp=-1 la=3 cas=2 fetch=no cls=1 size=63\r\n", ""),
        GOOD(META, me, "EN\r\n", ""),
        GOOD(META_STORE, ms, "HD c5\r\n", ""),
        GOOD(META_STORE, ms, "NS\r\n", ""),
        GOOD(META_STORE, ms, "NF kfoo\r\n", ""),
        GOOD(META_NOOP, mn, "MN\r\n", ""),
        GOOD(LOCAL, stats, "STAT pid 1\r\nSTAT version 1.6.18\r\nEND\r\n", ""),
        GOOD(LOCAL, stats, "END\r\n", ""),
        GOOD(LOCAL, stats, "RESET\r\n", ""),
        GOOD(LOCAL, stats, "OK\r\n", ""),
        GOOD(LOCAL, stats, "ITEM a [5 b; 0 s]\r\nEND\r\n", ""),
        GOOD(LOCAL, stats, "PREFIX a get 1 hit 1 set 0 del 0\r\nEND\r\n", ""),
        GOOD(LOCAL, version, "VERSION 1.6.18\r\n", ""),
        GOOD(LOCAL, flush_all, "OK\r\n", ""),
        GOOD(LOCAL, slabs, "BUSY currently processing reassign request\r\n", ""),
        GOOD(GET, get, "SERVER_ERROR out of memory writing get response\r\n", ""),
        GOOD(STORE, set, "SERVER_ERROR object too large for cache\r\n", ""),
        GOOD(STORE, set, "CLIENT_ERROR bad data chunk\r\n", ""),
        GOOD(STORE, set, "ERROR\r\n", ""),
        GOOD(KEY_LINE, incr,
             "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n", ""),
        GOOD(META, mg, "CLIENT_ERROR invalid flag\r\n", ""),
        GOOD(LOCAL, shutdown, "ERROR: shutdown not enabled\r\n", ""),
    };

    (void)state;
    CHECK_ALL(vectors);
}

static void test_hostile_replies(void **state)
{
    static const struct reply_vector vectors[] = {
        /* lengths */
        BAD(GET, get, "VALUE a 0 2147483648\r\n"),
        BAD(GET, get, "VALUE a 0 1073741825\r\n"),
        BAD(GET, get, "VALUE a 0 4294967297\r\n"),
        BAD(GET, get, "VALUE a 0 18446744073709551617\r\n"),
        BAD(GET, get, "VALUE a 0 -1\r\n"),
        BAD(GET, get, "VALUE a 0 +1\r\n"),
        BAD(GET, get, "VALUE a 0 01\r\n"),
        BAD(GET, get, "VALUE a 0 0x1\r\n"),
        BAD(GET, get, "VALUE a 0 \r\n"),
        BAD(GET, get, "VALUE a 0\r\n"),
        BAD(GET, get, "VALUE a\r\n"),
        BAD(GET, get, "VALUE \r\n"),
        BAD(GET, get, "VALUE\r\n"),
        BAD(GET, get, "VALUE  a 0 1\r\n"),
        BAD(GET, get, "VALUE a  0 1\r\n"),
        BAD(GET, get, "VALUE a 0 1 \r\n"),
        BAD(GET, get, "VALUE a 0 1  5\r\n"),
        BAD(GET, get, "VALUE a 0 1 5 6\r\n"),
        BAD(GET, get, "VALUE a 0 1 x\r\n"),
        BAD(GET, get, "VALUE a -1 1\r\n"),
        BAD(GET, get, "VALUE a\tb 0 1\r\n"),
        BAD(GET, get, "VALUE a\0b 0 1\r\n"),
        BAD(META, mg, "VA\r\n"),
        BAD(META, mg, "VA x\r\n"),
        BAD(META, mg, "VA -1\r\n"),
        BAD(META, mg, "VA 2147483648\r\n"),
        BAD(META, mg, "VA 99999999999999999999999 kfoo\r\n"),
        /* ends */
        BAD(GET, get, "VALUE a 0 1\r\nxy\r\nEND\r\n"),
        BAD(GET, get, "VALUE a 0 1\r\nx\nEND\r\n"),
        BAD(GET, get, "VALUE a 0 1\r\nx\rEND\r\n"),
        BAD(GET, get, "VALUE a 0 5\r\nhello\r\nSTORED\r\n"),
        BAD(GET, get, "VALUE a 0 5\nhello\r\nEND\r\n"),
        BAD(GET, get, "END\n"),
        BAD(GET, get, "END \r\n"),
        BAD(GET, get, "\r\n"),
        BAD(GET, get, "\n"),
        BAD(META, mg, "VA 1\r\nxEN\r\n"),
        MORE(GET, get, "VALUE a 0 5\r\nhello\r\n"),
        MORE(GET, get, "VALUE a 0 1073741824\r\nhello\r\n"),
        MORE(GET, get, "VALUE a 0 5\r\nhello\r"),
        MORE(LOCAL, stats, "STAT a 1\r\nSTAT b"),
        /* the answer to another command: we are not where we think we are */
        BAD(GET, get, "STORED\r\n"),
        BAD(GET, get, "HD\r\n"),
        BAD(GET, get, "5\r\n"),
        BAD(STORE, set, "END\r\n"),
        BAD(STORE, set, "VALUE a 0 1\r\n"),
        BAD(STORE, set, "EXISTS\r\n"),
        BAD(STORE, set, "DELETED\r\n"),
        BAD(STORE, set, "STORED \r\n"),
        BAD(STORE, set, "STOREDx\r\n"),
        BAD(KEY_LINE, delete, "TOUCHED\r\n"),
        BAD(KEY_LINE, delete, "5\r\n"),
        BAD(KEY_LINE, touch, "DELETED\r\n"),
        BAD(KEY_LINE, incr, "DELETED\r\n"),
        BAD(KEY_LINE, incr, "-5\r\n"),
        BAD(KEY_LINE, incr, "18446744073709551616\r\n"),
        BAD(KEY_LINE, incr, "007\r\n"),
        BAD(KEY_LINE, incr, "\r\n"),
        BAD(META, mg, "NF\r\n"),
        BAD(META, mg, "MN\r\n"),
        BAD(META, mg, "END\r\n"),
        BAD(META, mg, "HDx\r\n"),
        BAD(META, mg, "H\r\n"),
        BAD(META, md, "VA 1\r\n"),
        BAD(META, me, "HD\r\n"),
        BAD(META, me, "ME\r\n"),
        BAD(META, me, "ME  x\r\n"),
        BAD(META, mg, "HD k\0foo\r\n"),
        BAD(META, mg, "HD k\rfoo\r\n"),
        BAD(META_STORE, ms, "EN\r\n"),
        BAD(META_STORE, ms, "STORED\r\n"),
        BAD(META_NOOP, mn, "MN x\r\n"),
        BAD(META_NOOP, mn, "HD\r\n"),
        BAD(LOCAL, stats, "STAT a 1\r\nOK\r\n"),
        BAD(LOCAL, stats, "STORED\r\n"),
        BAD(LOCAL, version, "STAT a 1\r\n"),
        BAD(LOCAL, version, "END\r\n"),
        BAD(LOCAL, flush_all, "STORED\r\n"),
        BAD(LOCAL, slabs, "\r\n"),
        BAD(LOCAL, slabs, "a\0b\r\n"),
        /* garbage */
        BAD(GET, get, "-ERR unknown command\r\n"),
        BAD(GET, get, "HTTP/1.1 400 Bad Request\r\n"),
        BAD(GET, get, "\x81\x00\x00\x00\r\n"),
        BAD(GET, get, "ERRORS\r\n"),
        BAD(GET, get, "CLIENT_ERRORx\r\n"),
        BAD(STORE, set, "SERVER_ERROR a\rb\r\n"),
        BAD(STORE, set, "SERVER_ERROR a\0b\r\n"),
    };

    (void)state;
    CHECK_ALL(vectors);
}

static void test_a_line_may_not_grow_for_ever(void **state)
{
    static char wire[5000];
    static struct outcome outcome;
    size_t max = MC_REPLY_LINE_MAX + 250;

    (void)state;
    memset(wire, 'a', sizeof(wire));
    memcpy(wire, "SERVER_ERROR ", 13);
    for (size_t step = 1; step < sizeof(wire); step += 700) {
        scan_stream(MC_KIND_GET, MC_get, bytes_of(wire, sizeof(wire)), 0, step, &outcome);
        assert_int_equal(outcome.result, PARSE_BAD);
    }
    /* The longest that passes, and one byte more. */
    memcpy(wire + max - 2, "\r\n", 2);
    scan_stream(MC_KIND_GET, MC_get, bytes_of(wire, sizeof(wire)), 0, 1, &outcome);
    assert_int_equal(outcome.result, PARSE_OK);
    assert_true(outcome.is_error);
    memcpy(wire + max - 2, "a\r\n", 3);
    for (size_t step = 1; step < sizeof(wire); step += 700) {
        scan_stream(MC_KIND_GET, MC_get, bytes_of(wire, sizeof(wire)), 0, step, &outcome);
        assert_int_equal(outcome.result, PARSE_BAD);
    }
    /* A key that is one too long. */
    memset(wire, 'k', sizeof(wire));
    memcpy(wire, "VALUE ", 6);
    memcpy(wire + 6 + 251, " 0 1\r\nx\r\nEND\r\n", 14);
    scan_stream(MC_KIND_GET, MC_get, bytes_of(wire, 6 + 251 + 14), 0, 1000, &outcome);
    assert_int_equal(outcome.result, PARSE_BAD);
    memcpy(wire + 6 + 250, " 0 1\r\nx\r\nEND\r\n", 14);
    scan_stream(MC_KIND_GET, MC_get, bytes_of(wire, 6 + 250 + 14), 0, 1000, &outcome);
    assert_int_equal(outcome.result, PARSE_OK);
}

static void test_what_the_end_says(void **state)
{
    static struct outcome outcome;

    (void)state;
    scan_stream(MC_KIND_GET, MC_get, BYTES("END\r\n"), 5, 1, &outcome);
    assert_true(outcome.is_end && !outcome.is_error);
    scan_stream(MC_KIND_LOCAL, MC_stats, BYTES("STAT a b\r\nEND\r\n"), 15, 1, &outcome);
    assert_true(outcome.is_end);
    scan_stream(MC_KIND_STORE, MC_set, BYTES("ERROR\r\n"), 7, 1, &outcome);
    assert_true(outcome.is_error && !outcome.is_end);
    assert_string_equal(outcome.last, "ERROR");
    scan_stream(MC_KIND_KEY_LINE, MC_incr, BYTES("17\r\n"), 4, 1, &outcome);
    assert_string_equal(outcome.last, "17");
}

static void test_key_and_opaque_of_a_meta_line(void **state)
{
    struct mc_reply_parser parser = {.expect = MC_KIND_META, .verb = MC_mg};
    struct mc_reply reply;

    (void)state;
    assert_int_equal(mc_reply_scan(&parser, &limits, BYTES("HD t5 kZm9v b Oxyz\r\n"), &reply),
                     PARSE_OK);
    assert_false(reply.is_item_start);
    assert_true(bytes_equal(reply.item_key, BYTES("Zm9v")));
    assert_true(bytes_equal(reply.opaque, BYTES("xyz")));
    assert_true(bytes_equal(reply.line, BYTES("HD t5 kZm9v b Oxyz")));
    assert_int_equal(mc_reply_scan(&parser, &limits, BYTES("VA 3 Oxyz kfoo\r\nab"), &reply),
                     PARSE_MORE);
    assert_true(reply.is_item_start);
    assert_int_equal(reply.scanned, 16);
    assert_int_equal(reply.item_data_len, 3);
    assert_true(bytes_equal(reply.item_key, BYTES("foo")));
    assert_int_equal(mc_reply_scan(&parser, &limits, BYTES("ab"), &reply), PARSE_MORE);
    assert_int_equal(reply.scanned, 2);
    assert_int_equal(mc_reply_scan(&parser, &limits, BYTES(""), &reply), PARSE_MORE);
    assert_int_equal(mc_reply_scan(&parser, &limits, BYTES("c\r\nHD\r\n"), &reply), PARSE_OK);
    assert_int_equal(reply.scanned, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_replies),
        cmocka_unit_test(test_hostile_replies),
        cmocka_unit_test(test_a_line_may_not_grow_for_ever),
        cmocka_unit_test(test_what_the_end_says),
        cmocka_unit_test(test_key_and_opaque_of_a_meta_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
