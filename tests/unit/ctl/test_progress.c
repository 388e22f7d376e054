/* SPDX-License-Identifier: Apache-2.0 */
/* What somebody who waits sees on a terminal, and that nothing of it goes into a file or a pipe. */
#include "tests/unit/test.h"

#include "ctl/progress.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define MIB (1u << 20)

/* All until the other end was closed: a terminal hands it over in pieces. */
static void read_all(int from, char *out, size_t size)
{
    size_t len = 0;
    ssize_t got;

    while (len < size - 1 && (got = read(from, out + len, size - 1 - len)) > 0)
        len += (size_t)got;
    out[len] = '\0';
}

/* Half of 2 MiB after more than the second that is shown nothing of, then the end. What came out is in `out`; closes `to`. */
static void half_of_two(int to, int from, char *out, size_t size)
{
    const struct timespec pause = {.tv_sec = 1, .tv_nsec = 100000000};
    struct progress progress;
    int saved = dup(STDERR_FILENO);

    assert_true(saved >= 0 && dup2(to, STDERR_FILENO) >= 0);
    progress_start(&progress, "copying", 2 * MIB);
    progress_add(&progress, MIB / 2);
    nanosleep(&pause, NULL);
    progress_add(&progress, MIB / 2);
    progress_clear(&progress);
    (void)fflush(stderr);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
    close(to);
    read_all(from, out, size);
}

static void test_a_terminal_shows_share_rate_and_what_is_left(void **state)
{
    int from = posix_openpt(O_RDWR | O_NOCTTY), to;
    char out[1024];

    (void)state;
    assert_true(from >= 0);
    assert_int_equal(grantpt(from) + unlockpt(from), 0);
    to = open(ptsname(from), O_RDWR | O_NOCTTY);
    assert_true(to >= 0);
    half_of_two(to, from, out, sizeof(out));
    assert_non_null(strstr(out, "copying [############............]  50%  1.0 MiB of 2.0 MiB  "));
    assert_non_null(strstr(out, "/s  0:00:0"));
    assert_non_null(strstr(out, " left"));
    assert_string_equal(out + strlen(out) - 4, "\r\033[K"); /* and is taken away */
    close(from);
}

static void test_a_pipe_sees_nothing_of_it(void **state)
{
    int ends[2];
    char out[64];

    (void)state;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    half_of_two(ends[1], ends[0], out, sizeof(out));
    assert_string_equal(out, "");
    close(ends[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_terminal_shows_share_rate_and_what_is_left),
        cmocka_unit_test(test_a_pipe_sees_nothing_of_it),
    };

    return cmocka_run_group_tests_name("progress", tests, NULL, NULL);
}
