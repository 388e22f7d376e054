/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "backend/protocol.h"

static const struct {
    const char *bytes;
    enum session_protocol protocol;
} openings[] = {
    {"*1\r\n", SESSION_RESP},
    {"\x80", SESSION_MC_BINARY},
    {"PING\r\n", SESSION_RESP},
    {"SET k v\r\n", SESSION_RESP},
    {"SET k 0 0 1\r\n", SESSION_RESP},
    {"set k v\n", SESSION_RESP},
    {"set k v ex 10\r\n", SESSION_MC_TEXT},
    {"set k 0 0 1\r\n", SESSION_MC_TEXT},
    {"set  k  0 0   1 noreply \r\nx\r\n", SESSION_MC_TEXT},
    {"append k v\r\nset k 0 0 1\r\n", SESSION_RESP},
    {"append k 0 0 1\r\n", SESSION_MC_TEXT},
    {"set k 0 0\r\n", SESSION_MC_TEXT},
    {"incr k\r\n", SESSION_MC_TEXT},
    {"incr k 1\r\n", SESSION_MC_TEXT},
    {"touch k\n", SESSION_MC_TEXT},
    {"touch k 0\n", SESSION_MC_TEXT},
    {"get k\r\n", SESSION_MC_TEXT},
    {"add k v\r\n", SESSION_MC_TEXT},
    {"hset k f v\r\n", SESSION_RESP},
    {"a word that is no verb at all", SESSION_RESP},
    {"\rx\r\n", SESSION_RESP},
    {" get k\r\n", SESSION_RESP},
};

/* Whatever is said of the first bytes stays said when more come. */
static void test_openings(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(openings); i++) {
        struct bytes data = bytes_of_string(openings[i].bytes);

        assert_int_equal(protocol_of(data), openings[i].protocol);
        for (size_t len = 0; len < data.len; len++) {
            enum session_protocol early = protocol_of(bytes_first(data, len));

            assert_true(early == SESSION_NEW || early == openings[i].protocol);
        }
    }
}

static void test_empty_lines_say_nothing(void **state)
{
    (void)state;
    assert_int_equal(protocol_empty_lines(bytes_of_string("\r\n\n\r\nget k\r\n\r\n")), 5);
    assert_int_equal(protocol_empty_lines(bytes_of_string("\r\n\r")), 2);
    assert_int_equal(protocol_empty_lines(bytes_of_string(" \r\n  \n get k\r\n")), 6);
    assert_int_equal(protocol_empty_lines(bytes_of_string("\n  ")), 1);
    assert_int_equal(protocol_empty_lines(bytes_of_string(" \r")), 0);
    assert_int_equal(protocol_empty_lines(BYTES_EMPTY), 0);
}

/* A line without an end is not waited for beyond what memcache would take. */
static void test_a_long_line_is_not_waited_for(void **state)
{
    char line[4096];

    (void)state;
    memset(line, 'x', sizeof(line));
    memcpy(line, "set ", 4);
    assert_int_equal(protocol_of(bytes_of(line, 1000)), SESSION_NEW);
    assert_int_equal(protocol_of(bytes_of(line, sizeof(line))), SESSION_MC_TEXT);
    memset(line, ' ', sizeof(line));
    assert_int_equal(protocol_of(bytes_of(line, 1000)), SESSION_NEW);
    assert_int_equal(protocol_of(bytes_of(line, sizeof(line))), SESSION_RESP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_openings),
        cmocka_unit_test(test_empty_lines_say_nothing),
        cmocka_unit_test(test_a_long_line_is_not_waited_for),
    };

    return cmocka_run_group_tests_name("protocol", tests, NULL, NULL);
}
