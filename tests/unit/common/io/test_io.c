/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "common/io/io.h"

#include <arpa/inet.h>
#include <stdio.h>

static void assert_text(const char *host, uint16_t port, const char *text)
{
    struct io_addr addr;
    char out[IO_ADDR_TEXT_MAX];

    assert_int_equal(io_addr_parse(host, port, &addr), 0);
    assert_string_equal(io_addr_text(&addr, out), text);
}

static void test_addresses_print_as_one_would_type_them(void **state)
{
    struct io_addr addr = {0};
    char out[IO_ADDR_TEXT_MAX];

    (void)state;
    assert_text("127.0.0.1", 22121, "127.0.0.1:22121");
    assert_text("::1", 1, "[::1]:1");
    assert_text("2001:db8::7", 65535, "[2001:db8::7]:65535");
    assert_int_equal(io_addr_unix("/run/weir.sock", &addr), 0);
    assert_string_equal(io_addr_text(&addr, out), "/run/weir.sock");
    addr.len = offsetof(struct sockaddr_un, sun_path); /* what accept() gives of an unnamed peer */
    assert_string_equal(io_addr_text(&addr, out), "unix:");
    addr.len = 0;
    assert_string_equal(io_addr_text(&addr, out), "?");
    addr.len = sizeof(addr.un); /* no NUL within the path */
    memset(addr.un.sun_path, 'x', sizeof(addr.un.sun_path));
    assert_int_equal(strlen(io_addr_text(&addr, out)), sizeof(addr.un.sun_path));
}

static void test_only_numeric_hosts_parse(void **state)
{
    static const char *const bad[] = {"",    "localhost", "127.0.0.1.5", "1.2.3",         "::g",
                                      "%lo", "::1%",      "127.0.0.1%1", "fe80::1%nolink", "::1%0"};
    struct io_addr addr;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        assert_int_equal(io_addr_parse(bad[i], 1, &addr), ERR_INVALID);
        assert_int_equal(addr.len, 0);
    }
    assert_int_equal(io_addr_parse("fe80::1%lo", 1, &addr), 0);
    assert_int_not_equal(addr.in6.sin6_scope_id, 0);
    assert_int_equal(io_addr_parse("fe80::1%77", 1, &addr), 0);
    assert_int_equal(addr.in6.sin6_scope_id, 77);
}

static void test_unix_paths_are_bounded(void **state)
{
    char path[200];
    struct io_addr addr;

    (void)state;
    memset(path, 'p', sizeof(path));
    path[107] = '\0';
    assert_int_equal(io_addr_unix(path, &addr), 0);
    path[107] = 'p';
    path[108] = '\0';
    assert_int_equal(io_addr_unix(path, &addr), ERR_INVALID);
    assert_int_equal(io_addr_unix("", &addr), ERR_INVALID);
}

static void test_equality_and_loopback(void **state)
{
    struct io_addr a, b;

    (void)state;
    assert_int_equal(io_addr_parse("127.0.0.1", 1, &a), 0);
    assert_int_equal(io_addr_parse("127.0.0.1", 1, &b), 0);
    b.in.sin_zero[3] = 1; /* not part of the address */
    assert_true(io_addr_equal(&a, &b));
    assert_true(io_addr_is_loopback(&a));
    assert_int_equal(io_addr_parse("127.0.0.1", 2, &b), 0);
    assert_false(io_addr_equal(&a, &b));
    assert_int_equal(io_addr_parse("::ffff:127.0.0.1", 1, &b), 0);
    assert_false(io_addr_equal(&a, &b));
    assert_true(io_addr_is_loopback(&b));
    assert_int_equal(io_addr_parse("10.0.0.1", 1, &b), 0);
    assert_false(io_addr_is_loopback(&b));
    assert_int_equal(io_addr_parse("::1", 1, &b), 0);
    assert_true(io_addr_is_loopback(&b));
    b.len = 0;
    assert_false(io_addr_is_loopback(&b));
    assert_false(io_addr_equal(&a, &b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses_print_as_one_would_type_them),
        cmocka_unit_test(test_only_numeric_hosts_parse),
        cmocka_unit_test(test_unix_paths_are_bounded),
        cmocka_unit_test(test_equality_and_loopback),
    };

    return cmocka_run_group_tests_name("io", tests, NULL, NULL);
}
