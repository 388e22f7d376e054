/* SPDX-License-Identifier: Apache-2.0 */
#include "nginx-style-master/link.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void test_message_and_descriptor(void **state)
{
    char buffer[LINK_DATA_MAX], byte = 0;
    struct link_message in, out = {.type = 7, .value = 1ull << 40, .data = BYTES("hello")};
    int fds[2], tube[2];

    MAYBE(state);
    assert_int_equal(link_pair(fds), 0);
    assert_int_equal(pipe(tube), 0);
    out.fd = tube[1];
    assert_int_equal(link_send(fds[0], &out), 0);
    link_close(&tube[1]);
    assert_int_equal(link_recv(fds[1], &in, buffer), 0);
    assert_int_equal(in.type, 7);
    assert_true(in.value == 1ull << 40);
    assert_true(bytes_equal(in.data, BYTES("hello")));
    assert_int_equal(write(in.fd, "x", 1), 1);
    assert_int_equal(read(tube[0], &byte, 1), 1);
    assert_int_equal(byte, 'x');
    assert_int_equal(link_recv(fds[1], &in, buffer), ERR_AGAIN);
    link_close(&in.fd);
    link_close(&tube[0]);
    link_close(&fds[0]);
    assert_int_equal(link_recv(fds[1], &in, buffer), ERR_EOF);
    assert_int_equal(link_send(fds[1], &out), ERR_EOF);
    link_close(&fds[1]);
    assert_int_equal(fds[1], -1);
}

static void test_full_long_and_foreign(void **state)
{
    static char data[LINK_DATA_MAX + 1];
    char buffer[LINK_DATA_MAX];
    struct link_message in, out = {.type = 1, .fd = -1, .data = bytes_of(data, sizeof(data))};
    int fds[2], err = 0, count = 0;

    MAYBE(state);
    assert_int_equal(link_pair(fds), 0);
    assert_int_equal(link_send(fds[0], &out), ERR_INVALID);
    out.data.len = LINK_DATA_MAX;
    for (; err == 0; count++)
        err = link_send(fds[0], &out);
    assert_int_equal(err, ERR_AGAIN);
    for (int i = 0; i < count - 1; i++) {
        assert_int_equal(link_recv(fds[1], &in, buffer), 0);
        assert_int_equal(in.data.len, LINK_DATA_MAX);
        assert_int_equal(in.fd, -1);
    }
    assert_int_equal(write(fds[0], "short", 5), 5);
    assert_int_equal(link_recv(fds[1], &in, buffer), ERR_INVALID);
    assert_int_equal(link_recv(fds[1], &in, buffer), ERR_AGAIN);
    link_close(&fds[0]);
    link_close(&fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message_and_descriptor),
        cmocka_unit_test(test_full_long_and_foreign),
    };

    return cmocka_run_group_tests_name("link", tests, NULL, NULL);
}
