/* SPDX-License-Identifier: Apache-2.0 */
/* COMMAND's replies: whole values in either dialect, and some of them byte for byte as Redis's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include "common/command/command.h"
#include "common/command/command_docs.h"
#include "common/proto/resp.h"

struct text {
    char *data;
    size_t len, cap;
};

static void text_write(void *arg, const char *data, size_t len)
{
    struct text *text = arg;

    if (text->len + len > text->cap) {
        text->cap = (text->len + len) * 2;
        text->data = realloc(text->data, text->cap);
        assert_non_null(text->data);
    }
    memcpy(text->data + text->len, data, len);
    text->len += len;
}

static struct bytes ask(struct text *text, bool is_resp3, uint32_t hidden, const char *const *words)
{
    const struct compose_sink sink = {.write = text_write, .arg = text};
    struct bytes argv[8];
    uint32_t argc = 0;

    for (; words[argc] != NULL; argc++)
        argv[argc] = bytes_of_string(words[argc]);
    text->len = 0;
    command_reply_compose(argv, argc, is_resp3, hidden, &sink);
    return bytes_of(text->data, text->len);
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void assert_reply(struct bytes reply, const char *want)
{
    assert_int_equal(reply.len, strlen(want));
    assert_memory_equal(reply.data, want, reply.len);
}

static void test_replies_are_whole_values(void **state)
{
    static const char *const requests[][8] = {
        {"COMMAND"}, {"command", "count"}, {"COMMAND", "INFO"}, {"COMMAND", "DOCS"},
        {"COMMAND", "LIST"}, {"COMMAND", "HELP"}, {"COMMAND", "INFO", "get", "nosuch", "client"},
        {"COMMAND", "DOCS", "get", "nosuch", "config|get"}, {"COMMAND", "NOSUCH"},
        {"COMMAND", "LIST", "FILTERBY", "PATTERN", "x*"},
        {"COMMAND", "LIST", "FILTERBY", "ACLCAT", "Geo"},
        {"COMMAND", "LIST", "FILTERBY", "MODULE", "m"},
        {"COMMAND", "LIST", "FILTERBY", "X", "m"}, {"COMMAND", "LIST", "x"},
        {"COMMAND", "GETKEYS"}, {"COMMAND", "GETKEYS", "mget", "a", "b"},
        {"COMMAND", "GETKEYSANDFLAGS", "mget", "a", "b"}, {"COMMAND", "COUNT", "x"},
    };
    struct text text = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(requests); i++) {
        for (int dialect = 2; dialect <= 3; dialect++) {
            struct bytes reply = ask(&text, dialect == 3, 0, requests[i]);

            assert_int_equal(resp_value_len(reply), reply.len);
        }
    }
    free(text.data);
}

static void test_some_replies_byte_for_byte(void **state)
{
    struct text text = {0};

    (void)state;
    assert_reply(ask(&text, false, 0, WORDS("COMMAND", "INFO", "GET")),
                 "*1\r\n*10\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n"
                 "*3\r\n+@read\r\n+@string\r\n+@fast\r\n*0\r\n*1\r\n*6\r\n$5\r\nflags\r\n*2\r\n+RO"
                 "\r\n+access\r\n$12\r\nbegin_search\r\n*4\r\n$4\r\ntype\r\n$5\r\nindex\r\n$4\r\n"
                 "spec\r\n*2\r\n$5\r\nindex\r\n:1\r\n$9\r\nfind_keys\r\n*4\r\n$4\r\ntype\r\n$5\r\n"
                 "range\r\n$4\r\nspec\r\n*6\r\n$7\r\nlastkey\r\n:0\r\n$7\r\nkeystep\r\n:1\r\n$5\r\n"
                 "limit\r\n:0\r\n*0\r\n");
    assert_reply(ask(&text, true, 0, WORDS("COMMAND", "INFO", "client|setname", "nosuch")),
                 "*2\r\n*10\r\n$14\r\nclient|setname\r\n:3\r\n~3\r\n+noscript\r\n+loading\r\n"
                 "+stale\r\n:0\r\n:0\r\n:0\r\n~2\r\n+@slow\r\n+@connection\r\n~0\r\n~0\r\n~0\r\n"
                 "_\r\n");
    assert_reply(ask(&text, false, 0, WORDS("COMMAND", "GETKEYS", "MSET", "a", "1", "b", "2")),
                 "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
    assert_reply(ask(&text, false, 0, WORDS("COMMAND", "GETKEYS", "PING", "x")),
                 "-ERR The command has no key arguments\r\n");
    assert_reply(ask(&text, false, 0, WORDS("COMMAND", "GETKEYS", "nosuch", "x")),
                 "-ERR Invalid command specified\r\n");
    assert_reply(ask(&text, false, 0, WORDS("COMMAND", "GETKEYS", "SET", "x")),
                 "-ERR Invalid number of arguments specified for command\r\n");
    assert_reply(ask(&text, false, 0, WORDS("COMMAND", "GETKEYS", "ZUNION", "0", "x")),
                 "-ERR Invalid arguments specified for command\r\n");
    assert_reply(ask(&text, false, 0, WORDS("COMMAND", "GETKEYS", "EVAL", "x", "0")), "*0\r\n");
    assert_reply(ask(&text, false, 0, WORDS("COMMAND", "GETKEYS", "GET")),
                 "-ERR wrong number of arguments for 'command|getkeys' command\r\n");
    assert_reply(ask(&text, false, 0, WORDS("COMMAND", "a\r\n+b")),
                 "-ERR unknown subcommand 'a  +b'. Try COMMAND HELP.\r\n");
    assert_reply(ask(&text, false, 0, WORDS("COMMAND", "LIST", "FILTERBY", "PATTERN", "XR*")),
                 "*4\r\n$6\r\nxrange\r\n$5\r\nxread\r\n$10\r\nxreadgroup\r\n$9\r\nxrevrange\r\n");
    free(text.data);
}

/* What a server does not have is not there in any reply. */
static void test_hidden_rows(void **state)
{
    struct text text = {0};

    (void)state;
    assert_reply(ask(&text, false, CMD_DENIED, WORDS("COMMAND", "INFO", "config", "config|get")),
                 "*2\r\n$-1\r\n$-1\r\n");
    assert_reply(ask(&text, false, CMD_LATER, WORDS("COMMAND", "GETKEYS", "xadd", "s", "*", "a")),
                 "-ERR Invalid command specified\r\n");
    assert_reply(ask(&text, false, CMD_LATER, WORDS("COMMAND", "LIST", "FILTERBY", "PATTERN", "x*")),
                 "*0\r\n");
    assert_reply(ask(&text, true, CMD_LATER, WORDS("COMMAND", "DOCS", "xadd")), "%0\r\n");
    free(text.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replies_are_whole_values),
        cmocka_unit_test(test_some_replies_byte_for_byte),
        cmocka_unit_test(test_hidden_rows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
