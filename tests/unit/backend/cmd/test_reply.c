/* SPDX-License-Identifier: Apache-2.0 */
/* Replies in both dialects, counts that come at the end, and numbers as Redis writes and reads them. */
#include "tests/unit/backend/cmd/cmd_world.h"

#include "backend/cmd/cmd_private.h"
#include "backend/cmd/reply.h"

#include <math.h>

static void is_written(double value, const char *text)
{
    char out[FORMAT_DOUBLE_MAX];
    size_t len = format_double(value, out);

    assert_int_equal(len, strlen(text));
    assert_memory_equal(out, text, len);
}

static void test_doubles(void **state)
{
    (void)state;
    is_written(0, "0");
    is_written(-0.0, "-0");
    is_written(3, "3");
    is_written(-17179869184.0, "-17179869184");
    is_written(0.1, "0.10000000000000001");
    is_written(1e15, "1000000000000000");
    is_written(1e17, "1e+17");
    is_written(1.5e300, "1.5000000000000001e+300");
    is_written(INFINITY, "inf");
    is_written(-INFINITY, "-inf");
}

static void is_human(long double value, const char *text)
{
    char out[FORMAT_HUMAN_DOUBLE_MAX];
    size_t len = format_human_double(value, out);

    assert_int_equal(len, strlen(text));
    assert_memory_equal(out, text, len);
}

static void test_human_doubles(void **state)
{
    (void)state;
    is_human(10.6L, "10.6");
    is_human(3.0L, "3");
    is_human(100.0L, "100");
    is_human(-0.0L, "0");
    is_human(5e3L, "5000");
    is_human(-INFINITY, "-inf");
}

static void reads(const char *text, double wanted)
{
    double value;

    assert_true(parse_double(bytes_of_string(text), &value));
    assert_true(memcmp(&value, &wanted, sizeof(value)) == 0);
}

static void test_what_is_a_number(void **state)
{
    static const char *const no[] = {"", " 1", "1 ", "a", "1a", "nan", "-nan", "1e400", "--1", "0x"};
    long double value;
    double number;

    (void)state;
    reads("1", 1);
    reads("-0", -0.0);
    reads("+1.5", 1.5);
    reads("1e3", 1000);
    reads("0x10", 16);
    reads("inf", INFINITY);
    reads("-INF", -INFINITY);
    reads("9007199254740993", 9007199254740992.0);
    for (size_t i = 0; i < ARRAY_COUNT(no); i++)
        assert_false(parse_double(bytes_of_string(no[i]), &number));
    assert_false(parse_double(BYTES("1\0"), &number));
    assert_true(parse_long_double(BYTES("1.25"), &value));
    assert_true(value == 1.25L);
    assert_false(parse_long_double(BYTES("nan"), &value));
}

static void composed(struct cmd_world *w, const char *text)
{
    struct outbuf *out = &w->session.out;

    assert_int_equal(out->len, strlen(text));
    for (const struct chunk *chunk = out->first; chunk != NULL; text += chunk->end - chunk->start, chunk = chunk->next)
        assert_memory_equal(chunk->data + chunk->start, text, chunk->end - chunk->start);
    outbuf_clear(&w->engine->chunks, out);
}

static void compose_all(struct cmd *c)
{
    reply_null(c);
    reply_null_array(c);
    reply_map(c, 1);
    reply_set(c, 0);
    reply_bool(c, true);
    reply_double(c, 1.5);
    reply_verbatim(c, "txt", BYTES("hi"));
    reply_bignum(c, BYTES("123"));
    reply_error(c, "ERR two\r\nlines");
}

static void test_dialects(void **state)
{
    struct bytes words[] = {BYTES("ping")};
    struct cmd_world w;
    struct cmd c;

    (void)state;
    world_open(&w);
    cmd_init(&c, &w.session, words, 1);
    compose_all(&c);
    composed(&w, "$-1\r\n*-1\r\n*2\r\n*0\r\n:1\r\n$3\r\n1.5\r\n$2\r\nhi\r\n$3\r\n123\r\n-ERR two  lines\r\n");
    w.session.resp = 3;
    compose_all(&c);
    composed(&w, "_\r\n_\r\n%1\r\n~0\r\n#t\r\n,1.5\r\n=6\r\ntxt:hi\r\n(123\r\n-ERR two  lines\r\n");
    world_close(&w);
}

/* Counts inside counts; and all of it taken back, as when a command turns out to have to wait. */
static void test_counts_that_come_at_the_end(void **state)
{
    struct bytes words[] = {BYTES("ping")};
    struct cmd_world w;
    struct cmd c;

    (void)state;
    world_open(&w);
    cmd_init(&c, &w.session, words, 1);
    for (int round = 0; round < 2; round++) {
        reply_status(&c, "before");
        reply_count_later(&c);
        reply_integer(&c, 1);
        reply_count_later(&c);
        reply_integer(&c, 2);
        if (round == 1)
            break;
        reply_count_map(&c, 1);
        reply_count_array(&c, 2);
        composed(&w, "+before\r\n*2\r\n:1\r\n*2\r\n:2\r\n");
    }
    reply_take_back(&c, strlen("+before\r\n"));
    composed(&w, "+before\r\n");
    assert_int_equal(c.count_depth, 0);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_doubles),
        cmocka_unit_test(test_human_doubles),
        cmocka_unit_test(test_what_is_a_number),
        cmocka_unit_test(test_dialects),
        cmocka_unit_test(test_counts_that_come_at_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
