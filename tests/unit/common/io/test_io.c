/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "common/io/io.h"
#include "common/io/io_private.h"

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

/* ---- steps -------------------------------------------------------------------------------- */

static uint64_t step_clock_us;

static uint64_t step_clock(struct io *io)
{
    (void)io;
    return step_clock_us;
}

/* A step that takes as long as it may, or `over_us` longer: how long it might go on. */
static uint64_t step_run(struct io *io, uint32_t step_us, uint64_t over_us)
{
    uint64_t until_us = io_step_begin(io, step_us), may_us = until_us - step_clock_us;

    step_clock_us = until_us + over_us;
    io_step_end(io);
    return may_us;
}

static void test_steps_of_a_turn_share_its_time(void **state)
{
    static const struct io_vtable vtable = {.clock_us = step_clock};
    struct io io;

    (void)state;
    io_init(&io, &vtable, NULL);
    step_clock_us = 1000000;
    io_turn_stamp(&io, step_clock_us);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(step_run(&io, 150, 50), 150); /* nobody asked for a bound */

    io.steps_us = 250;
    io_turn_stamp(&io, step_clock_us);
    assert_int_equal(step_run(&io, 150, 10), 150);
    step_clock_us += 5000; /* what is between steps is none */
    assert_int_equal(step_run(&io, 150, 0), 90);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t least_us = step_run(&io, 150, 500); /* over its time by far: the next gets on all the same */

        assert_in_range(least_us, 1, 89);
        assert_int_equal(step_run(&io, 1, 0), 1); /* never more than it wants */
    }
    io_turn_stamp(&io, step_clock_us);
    assert_int_equal(step_run(&io, 200, 0), 200);
    assert_int_equal(step_run(&io, 150, 0), 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps_of_a_turn_share_its_time),
        cmocka_unit_test(test_addresses_print_as_one_would_type_them),
        cmocka_unit_test(test_only_numeric_hosts_parse),
        cmocka_unit_test(test_unix_paths_are_bounded),
        cmocka_unit_test(test_equality_and_loopback),
    };

    return cmocka_run_group_tests_name("io", tests, NULL, NULL);
}
