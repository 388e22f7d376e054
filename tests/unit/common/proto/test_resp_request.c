/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RESP requests. Every frame is read whole, cut once at each byte, and byte by byte, always out of an
 * allocation of exactly its size, so that sanitizers see a read too far.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <stdio.h>
#include "common/base/mem.h"
#include "common/proto/resp.h"

#define ARGS_MAX 8

struct expectation {
    struct bytes wire;
    enum parse_result result;
    const char *error; /* BAD */
    uint32_t argc;
    struct bytes argv[ARGS_MAX];
    char error_byte;
    bool is_inline;
    size_t len; /* 0: all of the wire */
};

static const struct proto_limits limits = PROTO_LIMITS_DEFAULT;

/* A copy that ends where its allocation ends. */
static char *exact_copy(struct bytes b)
{
    char *copy = malloc(b.len > 0 ? b.len : 1);

    assert_non_null(copy);
    memcpy(copy, b.data, b.len);
    return copy;
}

static enum parse_result parse_piece(struct resp_parser *parser, struct resp_args *args,
                                     struct bytes piece, bool want_partial, struct resp_request *out,
                                     char **copy)
{
    free(*copy);
    *copy = exact_copy(piece);
    return resp_parse(parser, args, &limits, bytes_of(*copy, piece.len), want_partial, out);
}

static void check_result(const struct expectation *want, enum parse_result result,
                         const struct resp_request *request)
{
    assert_int_equal(result, want->result);
    if (result == PARSE_BAD) {
        assert_string_equal(request->error, want->error);
        if (want->error_byte != 0)
            assert_int_equal(request->error_byte, want->error_byte);
        return;
    }
    assert_int_equal(request->len, want->len > 0 ? want->len : want->wire.len);
    assert_int_equal(request->argc, want->argc);
    assert_int_equal(request->is_inline, want->is_inline);
    for (uint32_t i = 0; i < want->argc && i < ARGS_MAX; i++) {
        assert_int_equal(request->argv[i].len, want->argv[i].len);
        assert_memory_equal(request->argv[i].data, want->argv[i].data, want->argv[i].len);
    }
}

static bool is_reset(const struct resp_parser *parser)
{
    return parser->scan_off == 0 && parser->args_left == 0 && parser->arg_count == 0 &&
           parser->need == 0;
}

/* Gives the frame in steps of `step` bytes behind a first piece of `first`; an answer may come before
 * the last byte only if it is BAD. The args are spoilt between calls, as by another client. */
static void check_cut(const struct expectation *want, size_t first, size_t step, bool want_partial)
{
    struct resp_parser parser = {0};
    struct resp_args args;
    struct resp_request request;
    enum parse_result result = PARSE_MORE;
    char *copy = NULL;
    size_t len = first;

    resp_args_init(&args);
    for (;;) {
        result = parse_piece(&parser, &args, bytes_first(want->wire, len), want_partial, &request,
                             &copy);
        if (result != PARSE_MORE || len == want->wire.len)
            break;
        assert_true(parser.need > len);
        assert_true(parser.need <= want->wire.len || want->result != PARSE_OK);
        if (args.items != NULL)
            memset(args.items, 0xa5, args.cap * sizeof(*args.items));
        len = MIN(len + step, want->wire.len);
    }
    check_result(want, result, &request);
    if (result != PARSE_MORE)
        assert_true(is_reset(&parser));
    free(copy);
    resp_args_deinit(&args);
}

static void check_all_cuts(const struct expectation *want)
{
    check_cut(want, want->wire.len, 1, false);
    check_cut(want, 1, 1, false);
    check_cut(want, 1, 1, true);
    for (size_t cut = 1; cut < want->wire.len; cut++) {
        check_cut(want, cut, want->wire.len, false);
        check_cut(want, cut, want->wire.len, true);
    }
}

#define OK(text, count, ...)                                                                       \
    {.wire = BYTES(text), .result = PARSE_OK, .argc = (count), .argv = {__VA_ARGS__}}
#define INLINE(text, count, ...)                                                                   \
    {.wire = BYTES(text), .result = PARSE_OK, .argc = (count), .argv = {__VA_ARGS__},              \
     .is_inline = true}
#define FAIL(text, why) {.wire = BYTES(text), .result = PARSE_BAD, .error = "Protocol error: " why}

static void test_multibulk_survives_any_cut(void **state)
{
    static const struct expectation wants[] = {
        OK("*1\r\n$4\r\nPING\r\n", 1, BYTES("PING")),
        OK("*2\r\n$3\r\nGET\r\n$1\r\na\r\n", 2, BYTES("GET"), BYTES("a")),
        OK("*3\r\n$4\r\nmget\r\n$1\r\na\r\n$0\r\n\r\n", 3, BYTES("mget"), BYTES("a"), BYTES("")),
        OK("*3\r\n$3\r\nSET\r\n$12\r\na\r\nb\0c$5\r\n*d\r\n$1\r\n\n\r\n", 3, BYTES("SET"),
           BYTES("a\r\nb\0c$5\r\n*d"), BYTES("\n")),
        OK("*2\r\n$6\r\nfl\r\nsh\r\n$2\r\n\r\n\r\n", 2, BYTES("fl\r\nsh"), BYTES("\r\n")),
        OK("*1\r\n$0\r\n\r\n", 1, BYTES("")),
        OK("*2\r\n$11\r\nhincrbyfloa\r\n$10\r\n0123456789\r\n", 2, BYTES("hincrbyfloa"),
           BYTES("0123456789")),
        OK("*0\r\n", 0, BYTES("")),
        OK("*-1\r\n", 0, BYTES("")),
        OK("*-10\r\n", 0, BYTES("")),
        OK("*-999999999999999999\r\n", 0, BYTES("")),
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(wants); i++)
        check_all_cuts(&wants[i]);
}

static void test_inline_survives_any_cut(void **state)
{
    static const struct expectation wants[] = {
        INLINE("PING\r\n", 1, BYTES("PING")),
        INLINE("PING\n", 1, BYTES("PING")),
        INLINE("  set   a\tb  \r\n", 3, BYTES("set"), BYTES("a"), BYTES("b")),
        INLINE("\r\n", 0, BYTES("")),
        INLINE("\n", 0, BYTES("")),
        INLINE("   \r\n", 0, BYTES("")),
        INLINE("set \"a b\" 'c d'\r\n", 3, BYTES("set"), BYTES("a b"), BYTES("c d")),
        INLINE("set \"\" ''\n", 3, BYTES("set"), BYTES(""), BYTES("")),
        INLINE("x \"\\x41\\x0a\\xzz\\n\\r\\t\\b\\a\\\\\\\"\\q\"\n", 2, BYTES("x"),
               BYTES("A\nxzz\n\r\t\b\a\\\"q")),
        INLINE("x \"a\\x00b\"\n", 2, BYTES("x"), BYTES("a\0b")),
        INLINE("x '\\'a\\n'\n", 2, BYTES("x"), BYTES("'a\\n")),
        INLINE("x ab\"c d\" e\n", 3, BYTES("x"), BYTES("abc d"), BYTES("e")),
        INLINE("x a\vb \f c\n", 3, BYTES("x"), BYTES("a\vb"), BYTES("c")),
        INLINE("x a\rb\r\n", 3, BYTES("x"), BYTES("a"), BYTES("b")),
        INLINE("$3\r\n", 1, BYTES("$3")),
        INLINE("GET a*1\r\n", 2, BYTES("GET"), BYTES("a*1")),
        INLINE("\"GET\" 'a'\r\n", 2, BYTES("GET"), BYTES("a")),
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(wants); i++)
        check_all_cuts(&wants[i]);
}

/* r2 to r6 of the table of protocol abuse: each error has Redis's text, wherever the stream is cut. */
static void test_errors_survive_any_cut(void **state)
{
    static const struct expectation wants[] = {
        FAIL("*2147483648\r\n", "invalid multibulk length"),
        FAIL("*99999999999999999999\r\n", "invalid multibulk length"),
        FAIL("*18446744073709551617\r\n$4\r\nPING\r\n", "invalid multibulk length"),
        FAIL("*4294967298\r\n$3\r\nGET\r\n$1\r\na\r\n", "invalid multibulk length"),
        FAIL("*+1\r\n", "invalid multibulk length"),
        FAIL("*01\r\n", "invalid multibulk length"),
        FAIL("*00\r\n", "invalid multibulk length"),
        FAIL("*1 \r\n", "invalid multibulk length"),
        FAIL("* 1\r\n", "invalid multibulk length"),
        FAIL("*\r\n", "invalid multibulk length"),
        FAIL("*-0\r\n", "invalid multibulk length"),
        FAIL("*-01\r\n", "invalid multibulk length"),
        FAIL("*--1\r\n", "invalid multibulk length"),
        FAIL("*-99999999999999999999\r\n", "invalid multibulk length"),
        FAIL("*-\r\n", "invalid multibulk length"),
        FAIL("*-1x\r\n", "invalid multibulk length"),
        FAIL("*1\n", "invalid multibulk length"),
        FAIL("*1\rx", "invalid multibulk length"),
        FAIL("*1x\r\n", "invalid multibulk length"),
        FAIL("*1048577\r\n", "invalid multibulk length"),
        FAIL("*abc\r\n", "invalid multibulk length"),
        FAIL("*1\r\n$-1\r\n", "invalid bulk length"),
        FAIL("*1\r\n$536870913\r\n", "invalid bulk length"),
        FAIL("*1\r\n$4294967297\r\n", "invalid bulk length"),
        FAIL("*1\r\n$18446744073709551617\r\nx\r\n", "invalid bulk length"),
        FAIL("*1\r\n$+4\r\nPING\r\n", "invalid bulk length"),
        FAIL("*1\r\n$04\r\nPING\r\n", "invalid bulk length"),
        FAIL("*1\r\n$ 4\r\nPING\r\n", "invalid bulk length"),
        FAIL("*1\r\n$4 \r\nPING\r\n", "invalid bulk length"),
        FAIL("*1\r\n$\r\n", "invalid bulk length"),
        FAIL("*1\r\n$x\r\n", "invalid bulk length"),
        FAIL("*1\r\n$4\nPING\r\n", "invalid bulk length"),
        FAIL("*2\r\n$3\r\nGET\r\n$-5\r\n", "invalid bulk length"),
        FAIL("*1\r\n$4\r\nPINGxx", "expected CRLF after bulk"),
        FAIL("*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n", "expected CRLF after bulk"),
        FAIL("*1\r\n$4\r\nPING\n\r", "expected CRLF after bulk"),
        FAIL("*1\r\n$4\r\nPING\r\r", "expected CRLF after bulk"),
        FAIL("*1\r\n$3\r\nPING\r\n", "expected CRLF after bulk"),
        FAIL("PI\0NG\r\n", "invalid byte"),
        FAIL("PI\0NG\r\n*1\r\n$4\r\nPING\r\n", "invalid byte"),
        FAIL("get \"a\r\n", "unbalanced quotes in request"),
        FAIL("get 'a\r\n", "unbalanced quotes in request"),
        FAIL("get \"a\"b\r\n", "unbalanced quotes in request"),
        FAIL("get 'a'b\r\n", "unbalanced quotes in request"),
        FAIL("get \"a\\\"\n", "unbalanced quotes in request"),
        FAIL("get \\\"\\ \n", "unbalanced quotes in request"),
        FAIL("get 'a\\'\n", "unbalanced quotes in request"),
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(wants); i++)
        check_all_cuts(&wants[i]);
}

static void test_a_wrong_type_byte_is_named(void **state)
{
    static const struct {
        struct bytes wire;
        char byte;
    } cases[] = {
        {BYTES("*1\r\nX"), 'X'},
        {BYTES("*1\r\nPING\r\n"), 'P'},
        {BYTES("*1\r\n:1\r\n"), ':'},
        {BYTES("*2\r\n$3\r\nGET\r\n*1"), '*'},
        {BYTES("*1\r\n\r\n"), ' '},  /* nothing that could end the error line */
        {BYTES("*1\r\n\n"), ' '},
        {BYTES("*1\r\n\0"), '?'},
        {BYTES("*1\r\n\x1b"), '?'},
        {BYTES("*1\r\n\x7f"), '?'},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct expectation want = {.wire = cases[i].wire,
                                   .result = PARSE_BAD,
                                   .error = "Protocol error: expected '$', got '%c'",
                                   .error_byte = cases[i].byte};

        check_all_cuts(&want);
    }
}

/* A frame ends where it ends: what follows is not looked at, be it valid or rubbish. */
static void test_bytes_behind_a_frame_do_not_matter(void **state)
{
    static const struct bytes frames[] = {
        BYTES("*1\r\n$4\r\nPING\r\n"), BYTES("*2\r\n$3\r\nGET\r\n$1\r\na\r\n"),
        BYTES("*0\r\n"), BYTES("*-1\r\n"), BYTES("PING\r\n"), BYTES("\n"),
    };
    static const struct bytes tails[] = {
        BYTES("*1\r\n$4\r\nPING\r\n"), BYTES("\0\0\0"), BYTES("*99999999999"), BYTES("\r\n"),
        BYTES("$"),
    };
    struct resp_args args;

    (void)state;
    resp_args_init(&args);
    for (size_t i = 0; i < ARRAY_COUNT(frames); i++) {
        for (size_t j = 0; j < ARRAY_COUNT(tails); j++) {
            struct resp_parser parser = {0};
            struct resp_request request;
            char wire[64];

            memcpy(wire, frames[i].data, frames[i].len);
            memcpy(wire + frames[i].len, tails[j].data, tails[j].len);
            assert_int_equal(resp_parse(&parser, &args, &limits,
                                        bytes_of(wire, frames[i].len + tails[j].len), false,
                                        &request),
                             PARSE_OK);
            assert_int_equal(request.len, frames[i].len);
        }
    }
    resp_args_deinit(&args);
}

/* The line's limit holds for a line with its end in sight and for one without. */
static void test_inline_line_limit(void **state)
{
    static const size_t lens[] = {65535, 65536, 65537, 70000};

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(lens); i++) {
        bool fits = lens[i] <= 65536;
        char *line = malloc(lens[i] + 1);
        struct resp_args args;

        assert_non_null(line);
        resp_args_init(&args);
        memset(line, 'a', lens[i]);
        line[lens[i]] = '\n';
        for (size_t cut = 1; cut <= lens[i] + 1; cut += cut < 65530 ? 997 : 1) {
            struct resp_parser parser = {0};
            struct resp_request request;
            enum parse_result result =
                resp_parse(&parser, &args, &limits, bytes_of(line, cut), false, &request);

            if (result == PARSE_MORE)
                result = resp_parse(&parser, &args, &limits, bytes_of(line, lens[i] + 1), false,
                                    &request);
            assert_int_equal(result, fits ? PARSE_OK : PARSE_BAD);
            if (!fits)
                assert_string_equal(request.error, "Protocol error: too big inline request");
            else
                assert_int_equal(request.argv[0].len, lens[i]);
        }
        free(line);
        resp_args_deinit(&args);
    }
}

/* 20,000 arguments in pieces of 1,000 bytes; room grows with what came, and is given back. */
static void test_many_arguments_in_pieces(void **state)
{
    enum { COUNT = 20000 };
    size_t cap = COUNT * 16 + 32;
    char *wire = malloc(cap);
    size_t len;
    struct resp_args args;
    struct resp_parser parser = {0};
    struct resp_request request;
    enum parse_result result = PARSE_MORE;

    (void)state;
    assert_non_null(wire);
    resp_args_init(&args);
    len = (size_t)snprintf(wire, cap, "*%d\r\n", COUNT);
    for (int i = 0; i < COUNT; i++)
        len += (size_t)snprintf(wire + len, cap - len, "$5\r\n%05d\r\n", i);
    for (size_t have = 1000; result == PARSE_MORE; have += 1000) {
        assert_true(have < len + 1000);
        result = resp_parse(&parser, &args, &limits, bytes_of(wire, MIN(have, len)), false,
                            &request);
        assert_true(args.cap <= 32768);
    }
    assert_int_equal(result, PARSE_OK);
    assert_int_equal(request.len, len);
    assert_int_equal(request.argc, COUNT);
    for (int i = 0; i < COUNT; i++) {
        char text[16];

        snprintf(text, sizeof(text), "%05d", i);
        assert_memory_equal(request.argv[i].data, text, 5);
    }
    resp_args_trim(&args);
    assert_int_equal(args.cap, 0);
    resp_args_deinit(&args);
    free(wire);
}

/* An announcement of a million arguments takes no memory. */
static void test_announced_arguments_take_no_room(void **state)
{
    struct resp_args args;
    struct resp_parser parser = {0};
    struct resp_request request;

    (void)state;
    resp_args_init(&args);
    assert_int_equal(resp_parse(&parser, &args, &limits,
                                BYTES("*1048576\r\n$3\r\nGET\r\n$536870912\r\nx"), true, &request),
                     PARSE_MORE);
    assert_true(args.cap <= 64);
    assert_int_equal(parser.need, 10 + 9 + 12 + 536870912 + 2);
    resp_args_deinit(&args);
}

/* What a big value needs to be routed before it is complete. */
static void test_partial_arguments_of_a_big_value(void **state)
{
    static const struct bytes wire = BYTES("*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$100000\r\nabc");
    struct resp_args args;
    struct resp_parser parser = {0};
    struct resp_request request;

    (void)state;
    resp_args_init(&args);
    assert_int_equal(resp_parse(&parser, &args, &limits, wire, true, &request), PARSE_MORE);
    assert_int_equal(request.total_argc, 3);
    assert_int_equal(request.partial_argc, 3);
    assert_int_equal(request.partial_arg_len, 100000);
    assert_int_equal(request.partial_arg_off, wire.len - 3);
    assert_int_equal(request.argv[1].len, 3);
    assert_memory_equal(request.argv[1].data, "key", 3);
    assert_int_equal(request.argv[2].len, 3);
    assert_int_equal(parser.need, wire.len - 3 + 100000 + 2);

    /* Only two headers are there: the third argument is not known. */
    parser = (struct resp_parser){0};
    assert_int_equal(resp_parse(&parser, &args, &limits, bytes_first(wire, 27), true, &request),
                     PARSE_MORE);
    assert_int_equal(request.partial_argc, 2);
    assert_int_equal(request.partial_arg_len, 3);

    /* Nothing but the count. */
    parser = (struct resp_parser){0};
    assert_int_equal(resp_parse(&parser, &args, &limits, bytes_first(wire, 4), true, &request),
                     PARSE_MORE);
    assert_int_equal(request.partial_argc, 0);
    assert_int_equal(request.total_argc, 3);
    resp_args_deinit(&args);
}

/* Calls that bring less than was asked for cost nothing and change nothing. */
static void test_a_call_below_need_changes_nothing(void **state)
{
    static const struct bytes wire = BYTES("*2\r\n$3\r\nGET\r\n$20\r\n01234567890123456789\r\n");
    struct resp_args args;
    struct resp_parser parser = {0}, before;
    struct resp_request request;

    (void)state;
    resp_args_init(&args);
    assert_int_equal(resp_parse(&parser, &args, &limits, bytes_first(wire, 20), false, &request),
                     PARSE_MORE);
    assert_int_equal(parser.need, wire.len);
    before = parser;
    assert_int_equal(resp_parse(&parser, &args, &limits, bytes_first(wire, 30), false, &request),
                     PARSE_MORE);
    assert_memory_equal(&parser, &before, sizeof(parser));
    assert_int_equal(resp_parse(&parser, &args, &limits, wire, false, &request), PARSE_OK);
    resp_args_deinit(&args);
}

/* Offsets are 32 bits: a frame that cannot be held is refused when its header says so. */
static void test_a_frame_over_four_gib_is_refused(void **state)
{
    struct proto_limits wide = limits;
    struct resp_args args;
    struct resp_parser parser = {0};
    struct resp_request request;

    (void)state;
    wide.bulk_max = UINT64_C(1) << 40;
    resp_args_init(&args);
    assert_int_equal(resp_parse(&parser, &args, &wide, BYTES("*2\r\n$3\r\nGET\r\n$4294967290\r\n"),
                                false, &request),
                     PARSE_BAD);
    assert_string_equal(request.error, "Protocol error: too big request");
    resp_args_deinit(&args);
}

static void test_headers_are_composed(void **state)
{
    static const struct {
        char type;
        int64_t number;
        const char *text;
    } cases[] = {
        {'*', 3, "*3\r\n"},     {'$', 12, "$12\r\n"},
        {':', 0, ":0\r\n"},     {'$', -1, "$-1\r\n"},
        {':', INT64_MAX, ":9223372036854775807\r\n"},
        {':', INT64_MIN, ":-9223372036854775808\r\n"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        char out[RESP_HEADER_MAX];
        size_t len = resp_compose_header(out, cases[i].type, cases[i].number);

        assert_int_equal(len, strlen(cases[i].text));
        assert_memory_equal(out, cases[i].text, len);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_multibulk_survives_any_cut),
        cmocka_unit_test(test_inline_survives_any_cut),
        cmocka_unit_test(test_errors_survive_any_cut),
        cmocka_unit_test(test_a_wrong_type_byte_is_named),
        cmocka_unit_test(test_bytes_behind_a_frame_do_not_matter),
        cmocka_unit_test(test_inline_line_limit),
        cmocka_unit_test(test_many_arguments_in_pieces),
        cmocka_unit_test(test_announced_arguments_take_no_room),
        cmocka_unit_test(test_partial_arguments_of_a_big_value),
        cmocka_unit_test(test_a_call_below_need_changes_nothing),
        cmocka_unit_test(test_a_frame_over_four_gib_is_refused),
        cmocka_unit_test(test_headers_are_composed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
